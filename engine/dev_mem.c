/* dev_mem.c - a device's memory: its limit, and live counters by what it is for.  See dev.h. */
#include "dev.h"

#include "mem.h"
#include "os.h"

#include <stdio.h>

static void lock(kvcl_dev *dev)
{
    while (atomic_flag_test_and_set_explicit(&dev->uses_busy, memory_order_acquire))
        kvcl_os_yield();
}

static void unlock(kvcl_dev *dev)
{
    atomic_flag_clear_explicit(&dev->uses_busy, memory_order_release);
}

static uint32_t find_use(kvcl_dev *dev, const char *what)
{
    kvcl_dev_use *u = dev->uses;
    char name[sizeof u->what];
    snprintf(name, sizeof name, "%s", what);
    for (uint32_t i = 0; i < dev->n_uses; i++)
        if (strcmp(u[i].what, name) == 0)
            return i;
    uint32_t i = kvcl_min_u32(dev->n_uses, KVCL_DEV_USES - 1);
    snprintf(u[i].what, sizeof u[i].what, "%s", i + 1 < KVCL_DEV_USES ? name : "other");
    dev->n_uses = i + 1;
    return i;
}

kvcl_status kvcl_dev_mem_take(kvcl_dev *dev, size_t bytes, const char *what, uint32_t *use_out)
{
    uint64_t limit = kvcl_mem_limit(dev->ctx);
    size_t used = atomic_fetch_add(&dev->bytes_used, bytes);
    if (bytes > limit || used > limit - bytes) {
        atomic_fetch_sub(&dev->bytes_used, bytes);
        return kvcl_fail(
            dev->ctx, KVCL_E_DEVICE_MEM,
            "%s: no memory for %s: %zu bytes asked, %zu in use, KVCL_MEM_LIMIT is %llu; "
            "use a smaller model or context (-c)",
            dev->info.id, what, bytes, used, (unsigned long long)limit);
    }
    lock(dev);
    *use_out = find_use(dev, what);
    dev->uses[*use_out].bytes += bytes;
    unlock(dev);
    return KVCL_OK;
}

void kvcl_dev_mem_give(kvcl_dev *dev, size_t bytes, uint32_t use)
{
    atomic_fetch_sub(&dev->bytes_used, bytes);
    lock(dev);
    dev->uses[use].bytes -= bytes;
    unlock(dev);
}

uint32_t kvcl_dev_mem_uses(kvcl_dev *dev, kvcl_dev_use out[KVCL_DEV_USES])
{
    lock(dev);
    uint32_t n = dev->n_uses;
    memcpy(out, dev->uses, n * sizeof *out);
    unlock(dev);
    return n;
}
