/* dev.c - the list of devices, opening one by name, and the shorthands over its table. */
#include "dev.h"

#include "ctx.h"
#include "log.h"
#include "mem.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_DEVICES 64

static const kvcl_backend *const backends[] = {
    &kvcl_cpu_backend,
#ifdef KVCL_WITH_OPENCL
    &kvcl_cl_backend,
#endif
};

const char *kvcl_op_name(kvcl_op_id id)
{
    static const char *const names[KVCL_N_OPS] = {
#define KVCL_OP(name, group, stem) [KVCL_OP_ID_##name] = #name,
#include "ops.def"
#undef KVCL_OP
    };
    return (unsigned)id < KVCL_N_OPS ? names[id] : "?";
}

/* ---- list and choice ----------------------------------------------------------------------- */

/* Discrete GPU, then integrated GPU, then the CPU; CPUs behind OpenCL only when named. */
static int rank_of(const kvcl_device_info *info)
{
    switch (info->kind) {
    case KVCL_KIND_GPU:
        return 3;
    case KVCL_KIND_INTEGRATED:
        return 2;
    case KVCL_KIND_CPU:
        return 1;
    default:
        return 0;
    }
}

static void mark_default(kvcl_device_info *list, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (rank_of(&list[i]) > rank_of(&list[best]) ||
            (rank_of(&list[i]) == rank_of(&list[best]) && list[i].mem_bytes > list[best].mem_bytes))
            best = i;
    for (size_t i = 0; i < n; i++)
        list[i].is_default = i == best;
}

/* All devices into memory of ours; *backend_out[i] opens list[i]. */
static kvcl_status collect(kvcl_ctx *ctx, kvcl_device_info list[MAX_DEVICES],
                           const kvcl_backend *owner[MAX_DEVICES], bool cpu_only, size_t *n_out)
{
    size_t n = 0;
    for (size_t b = 0; b < (cpu_only ? 1 : kvcl_array_len(backends)); b++) {
        size_t before = n;
        KVCL_TRY(backends[b]->list(ctx, list, MAX_DEVICES, &n));
        if (n > MAX_DEVICES)
            n = MAX_DEVICES;
        for (size_t i = before; i < n; i++)
            owner[i] = backends[b];
    }
    mark_default(list, n);
    *n_out = n;
    return KVCL_OK;
}

typedef struct kvcl_device_set {
    kvcl_device_info list[MAX_DEVICES];
    const kvcl_backend *owner[MAX_DEVICES];
    size_t n;
} kvcl_device_set;

static kvcl_status device_set_create(kvcl_ctx *ctx, bool cpu_only, kvcl_device_set **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_device_set), "the device list", &p));
    kvcl_device_set *set = p;
    kvcl_status st = collect(ctx, set->list, set->owner, cpu_only, &set->n);
    if (st != KVCL_OK) {
        kvcl_mem_free(ctx, p);
        return st;
    }
    *out = set;
    return KVCL_OK;
}

kvcl_status kvcl_device_list(kvcl_ctx *ctx, kvcl_device_info *out, size_t cap, size_t *n_out)
{
    kvcl_device_set *set;
    KVCL_CHECK(ctx, ctx && n_out && (out || cap == 0), KVCL_E_ARG, "device_list: NULL argument");
    KVCL_TRY(device_set_create(ctx, false, &set));
    for (size_t i = 0; i < set->n && i < cap; i++)
        out[i] = set->list[i];
    *n_out = set->n;
    kvcl_mem_free(ctx, set);
    return KVCL_OK;
}

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && text[i] &&
               tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == n)
            return true;
    }
    return false;
}

/* Exact id, index, then a part of id, name or platform; SIZE_MAX when none, *n_hits how many. */
static size_t find(const kvcl_device_set *set, const char *which, size_t *n_hits)
{
    char *end;
    *n_hits = 1;
    for (size_t i = 0; i < set->n; i++)
        if (*which ? strcmp(set->list[i].id, which) == 0 : set->list[i].is_default)
            return i;
    unsigned long index = strtoul(which, &end, 10);
    if (*end == 0 && end != which)
        return index < set->n ? (size_t)index : SIZE_MAX;
    size_t hit = SIZE_MAX;
    *n_hits = 0;
    for (size_t i = set->n; i-- > 0;) {
        const kvcl_device_info *d = &set->list[i];
        if (contains(d->id, which) || contains(d->name, which) || contains(d->platform, which)) {
            hit = i;
            (*n_hits)++;
        }
    }
    return hit;
}

/* "a, b, c" for the error sentence. */
static void join_ids(const kvcl_device_set *set, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < set->n && at < cap; i++) {
        int n = snprintf(out + at, cap - at, "%s%s", i ? ", " : "", set->list[i].id);
        at += n > 0 ? (size_t)n : 0;
    }
}

static kvcl_status open_one(kvcl_ctx *ctx, const kvcl_device_info *info, const kvcl_backend *owner,
                            const char *id, kvcl_dev **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_dev), "a device", &p));
    kvcl_dev *dev = p;
    dev->ctx = ctx;
    dev->backend = owner;
    dev->info = *info;
    atomic_flag_clear(&dev->uses_busy);
    if (info->kind == KVCL_KIND_CPU) {
        dev->info.n_units = ctx->n_threads;
        snprintf(dev->info.id, sizeof dev->info.id, "%s", id);
    }
    kvcl_status st = owner->open(dev);
    if (st != KVCL_OK) {
        owner->close(dev);
        kvcl_mem_free(ctx, dev);
        return st;
    }
    *out = dev;
    return KVCL_OK;
}

kvcl_status kvcl_device_open(kvcl_ctx *ctx, const char *which, kvcl_dev **out)
{
    kvcl_device_set *set;
    size_t n_hits, i;
    char ids[512];
    KVCL_CHECK(ctx, ctx && out, KVCL_E_ARG, "device_open: NULL argument");
    if (!which || !*which)
        which = getenv("KVCL_DEVICE");
    if (!which)
        which = "";
    /* naming the CPU never touches a driver */
    bool cpu = strcmp(which, "cpu") == 0 || strncmp(which, "cpu:", 4) == 0;
    KVCL_TRY(device_set_create(ctx, cpu, &set));
    i = cpu ? 0 : find(set, which, &n_hits);
    kvcl_status st;
    if (i == SIZE_MAX) {
        join_ids(set, ids, sizeof ids);
        st = kvcl_fail(ctx, KVCL_E_NO_DEVICE, "no device '%s'; there is: %s%s", which, ids,
                       set->n > 1 ? ""
                                  : " (no OpenCL device was found: install the OpenCL loader, "
                                    "libOpenCL, and the device's driver)");
    } else if (!cpu && n_hits > 1 && set->list[i].kind != KVCL_KIND_GPU &&
               !set->list[i].is_default) {
        kvcl_log_info(ctx, "'%s' fits %zu devices; taking the first, %s", which, n_hits,
                      set->list[i].id);
        st = open_one(ctx, &set->list[i], set->owner[i], set->list[i].id, out);
    } else {
        st = open_one(ctx, &set->list[i], set->owner[i], cpu ? which : set->list[i].id, out);
    }
    kvcl_mem_free(ctx, set);
    return st;
}

void kvcl_device_close(kvcl_dev *dev)
{
    if (!dev)
        return;
    dev->backend->close(dev);
    kvcl_mem_free(dev->ctx, dev);
}

const kvcl_device_info *kvcl_device_get_info(const kvcl_dev *dev) { return &dev->info; }

/* ---- self-test ----------------------------------------------------------------------------- */

/* FNV-1a over the words of the scalar twin's self-test; tests/test_ops.c recomputes it. */
#define KVCL_SELFTEST_HASH UINT64_C(0x419493c54cf3c691)

kvcl_status kvcl_dev_selftest(kvcl_queue *q, bool *exact_out)
{
    const size_t bytes = sizeof(uint32_t) * KVCL_SELFTEST_N * KVCL_SELFTEST_WORDS;
    kvcl_dev *dev = q->dev;
    kvcl_buf *buf = NULL;
    void *words = NULL;
    kvcl_status st;
    KVCL_TRY_GOTO(kvcl_buf_create(dev, bytes, "the self-test", &buf));
    KVCL_TRY_GOTO(kvcl_mem_alloc(dev->ctx, bytes, "the self-test", &words));
    KVCL_TRY_GOTO(kvcl_op_selftest(q, &(kvcl_selftest_args){.out = {buf, 0, bytes}}));
    KVCL_TRY_GOTO(kvcl_buf_read(q, buf, 0, words, bytes));
    KVCL_TRY_GOTO(kvcl_queue_wait(q));
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes / sizeof(uint32_t); i++)
        hash = (hash ^ ((const uint32_t *)words)[i]) * UINT64_C(0x100000001b3);
    kvcl_log_debug(dev->ctx, "%s: self-test hash %016llx", dev->info.id, (unsigned long long)hash);
    *exact_out = hash == KVCL_SELFTEST_HASH;
fail:
    kvcl_mem_free(dev->ctx, words);
    kvcl_buf_free(buf);
    return st;
}

/* ---- shorthands ---------------------------------------------------------------------------- */

kvcl_status kvcl_buf_create(kvcl_dev *dev, size_t bytes, const char *what, kvcl_buf **out)
{
    uint32_t use;
    KVCL_TRY(kvcl_dev_mem_take(dev, bytes, what, &use));
    kvcl_status st = dev->ops.buf_create(dev, bytes, out);
    if (st == KVCL_OK)
        (*out)->use = use;
    else
        kvcl_dev_mem_give(dev, bytes, use);
    return st;
}

void kvcl_buf_free(kvcl_buf *buf)
{
    if (!buf)
        return;
    kvcl_dev *dev = buf->dev;
    kvcl_dev_mem_give(dev, buf->bytes, buf->use);
    dev->ops.buf_free(dev, buf);
}

/* [off, off + n) inside the buffer? */
static bool inside(const kvcl_buf *b, size_t off, size_t n)
{
    return b && off <= b->bytes && n <= b->bytes - off;
}

kvcl_status kvcl_buf_write(kvcl_queue *q, kvcl_buf *dst, size_t off, const void *src, size_t n)
{
    KVCL_CHECK(q->dev->ctx, inside(dst, off, n), KVCL_E_ARG, "buf_write: beyond the buffer");
    return n ? q->dev->ops.buf_write(q, dst, off, src, n) : KVCL_OK;
}

kvcl_status kvcl_buf_read(kvcl_queue *q, const kvcl_buf *src, size_t off, void *dst, size_t n)
{
    KVCL_CHECK(q->dev->ctx, inside(src, off, n), KVCL_E_ARG, "buf_read: beyond the buffer");
    return n ? q->dev->ops.buf_read(q, src, off, dst, n) : KVCL_OK;
}

kvcl_status kvcl_buf_copy(kvcl_queue *q, kvcl_buf *dst, size_t dst_off, const kvcl_buf *src,
                          size_t src_off, size_t n)
{
    KVCL_CHECK(q->dev->ctx, inside(dst, dst_off, n) && inside(src, src_off, n), KVCL_E_ARG,
               "buf_copy: beyond the buffer");
    return n ? q->dev->ops.buf_copy(q, dst, dst_off, src, src_off, n) : KVCL_OK;
}

kvcl_status kvcl_mat_create(kvcl_queue *q, kvcl_type type, uint32_t rows, uint32_t cols,
                            const void *rows_data, kvcl_mat **out)
{
    KVCL_CHECK(q->dev->ctx, rows && cols && rows_data, KVCL_E_ARG, "mat_create: empty matrix");
    return q->dev->ops.mat_create(q, type, rows, cols, rows_data, out);
}

void kvcl_mat_free(kvcl_mat *mat)
{
    if (mat)
        mat->dev->ops.mat_free(mat->dev, mat);
}

kvcl_status kvcl_queue_create(kvcl_dev *dev, kvcl_queue **out)
{
    return dev->ops.queue_create(dev, out);
}

void kvcl_queue_free(kvcl_queue *q)
{
    if (q)
        q->dev->ops.queue_free(q);
}

kvcl_status kvcl_queue_wait(kvcl_queue *q) { return q->dev->ops.queue_wait(q); }
