/* probe.c - measures a device and keeps what was found.  See probe.h. */
#include "probe.h"

#include "log.h"
#include "mem.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>

#define VERSION 1
#define N_ROUNDS 5
#define N_LAUNCHES 64
#define ROW 4096u /* floats of a row of the sums */
#define LARGE ((size_t)256 << 20)
#define SMALL ((size_t)64 << 20) /* enough for a processor: beyond its caches */
#define LEAST ((size_t)1 << 20)
#define ZEROES ((size_t)1 << 16)
#define MAX_FILE 4096
#define MAX_PATH 4400

/* ---- measuring ----------------------------------------------------------------------------- */

typedef struct probe_run {
    kvcl_queue *q;
    kvcl_buf *a, *b;
    size_t bytes;
} probe_run;

static double median(double *x, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && x[k - 1] > x[k]; k--) {
            double swap = x[k];
            x[k] = x[k - 1];
            x[k - 1] = swap;
        }
    return x[n / 2];
}

/* Two buffers as large as is sensible; smaller ones where memory is short. */
static kvcl_status create_buffers(kvcl_dev *dev, probe_run *r)
{
    const kvcl_device_info *d = &dev->info;
    bool cpu = d->kind == KVCL_KIND_CPU || d->kind == KVCL_KIND_OPENCL_CPU;
    kvcl_status st = KVCL_E_DEVICE_MEM;
    for (r->bytes = cpu ? SMALL : LARGE; r->bytes >= LEAST; r->bytes /= 2) {
        if (r->bytes > LEAST && (r->bytes > d->max_alloc_bytes || r->bytes > d->mem_bytes / 8))
            continue;
        st = kvcl_buf_create(dev, r->bytes, "the probe", &r->a);
        if (st == KVCL_OK)
            st = kvcl_buf_create(dev, r->bytes, "the probe", &r->b);
        if (st == KVCL_OK)
            return KVCL_OK;
        kvcl_buf_free(r->a);
        r->a = NULL;
    }
    return st;
}

/* Zeroes: sums of what happens to be in memory may be slow ones. */
static kvcl_status clear(kvcl_dev *dev, probe_run *r)
{
    void *zeroes;
    KVCL_TRY(kvcl_mem_alloc(dev->ctx, ZEROES, "the probe", &zeroes));
    kvcl_status st = kvcl_buf_write(r->q, r->a, 0, zeroes, ZEROES);
    for (size_t n = ZEROES; n < r->bytes && st == KVCL_OK; n *= 2)
        st = kvcl_buf_copy(r->q, r->a, n, r->a, 0, n);
    if (st == KVCL_OK)
        st = kvcl_buf_copy(r->q, r->b, 0, r->a, 0, r->bytes);
    if (st == KVCL_OK)
        st = kvcl_queue_wait(r->q);
    kvcl_mem_free(dev->ctx, zeroes);
    return st;
}

static kvcl_status add_rows(const probe_run *r, size_t bytes)
{
    const uint32_t dim = kvcl_min_u32(ROW, (uint32_t)(bytes / sizeof(float)));
    return kvcl_op_add(r->q, &(kvcl_add_args){.a = {r->a, 0, bytes},
                                              .b = {r->b, 0, bytes},
                                              .out = {r->a, 0, bytes},
                                              .n = (uint32_t)(bytes / sizeof(float) / dim),
                                              .dim = dim,
                                              .stride = dim});
}

/* Bytes per second of one copy (sum: of one sum) after two that do not count. */
static kvcl_status measure_rate(const probe_run *r, bool sum, double *out)
{
    double rate[N_ROUNDS];
    for (int i = -2; i < N_ROUNDS; i++) {
        uint64_t begin = kvcl_os_now_ns();
        if (sum)
            KVCL_TRY(add_rows(r, r->bytes));
        else
            KVCL_TRY(kvcl_buf_copy(r->q, r->b, 0, r->a, 0, r->bytes));
        KVCL_TRY(kvcl_queue_wait(r->q));
        double ns = (double)(kvcl_os_now_ns() - begin + 1);
        if (i >= 0)
            rate[i] = (sum ? 3.0 : 2.0) * (double)r->bytes * 1e9 / ns;
    }
    *out = median(rate, N_ROUNDS);
    return KVCL_OK;
}

static kvcl_status measure_launch(const probe_run *r, double *out)
{
    double ns[N_ROUNDS];
    for (int i = -2; i < N_ROUNDS; i++) {
        uint64_t begin = kvcl_os_now_ns();
        for (int k = 0; k < N_LAUNCHES; k++)
            KVCL_TRY(add_rows(r, 64 * sizeof(float)));
        KVCL_TRY(kvcl_queue_wait(r->q));
        if (i >= 0)
            ns[i] = (double)(kvcl_os_now_ns() - begin) / N_LAUNCHES;
    }
    *out = median(ns, N_ROUNDS);
    return KVCL_OK;
}

static kvcl_status measure(kvcl_dev *dev, kvcl_probe *p)
{
    probe_run r = {0};
    kvcl_status st;
    double copy, sum;
    KVCL_TRY_GOTO(kvcl_queue_create(dev, &r.q));
    KVCL_TRY_GOTO(create_buffers(dev, &r));
    KVCL_TRY_GOTO(clear(dev, &r));
    KVCL_TRY_GOTO(measure_rate(&r, false, &copy));
    KVCL_TRY_GOTO(measure_rate(&r, true, &sum));
    KVCL_TRY_GOTO(measure_launch(&r, &p->launch_ns));
    p->copy_bytes_per_s = copy > sum ? copy : sum;
fail:
    kvcl_buf_free(r.a);
    kvcl_buf_free(r.b);
    kvcl_queue_free(r.q);
    return st;
}

/* ---- keeping ------------------------------------------------------------------------------- */

static uint64_t hash_of(const char *s)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(0x100000001b3);
    return h;
}

/* False when there is no safe folder. */
static bool path_of(const kvcl_dev *dev, char *path, size_t cap)
{
    char dir[MAX_PATH - 64], why[512];
    if (!kvcl_os_cache_dir(dir, sizeof dir, why, sizeof why)) {
        kvcl_log_debug(dev->ctx, "probe of %s is not kept: %s", dev->info.id, why);
        return false;
    }
    int n = snprintf(path, cap, "%s/%016llx.probe", dir, (unsigned long long)hash_of(dev->info.id));
    return n > 0 && (size_t)n < cap;
}

/* The lines that must be the same for a file to count. */
static void head_of(const kvcl_dev *dev, char *out, size_t cap)
{
    const kvcl_device_info *d = &dev->info;
    snprintf(out, cap,
             "kvcl probe %d\nid %s\nname %s\nplatform %s\ndriver %s\ndetail %s\nunits %u\n"
             "memory %llu\nlargest %llu\nclass %d\n",
             VERSION, d->id, d->name, d->platform, d->driver, d->detail, (unsigned)d->n_units,
             (unsigned long long)d->mem_bytes, (unsigned long long)d->max_alloc_bytes,
             (int)d->exactness);
}

/* Numbers as integers: no decimal point that a locale could change. */
static void text_of(const kvcl_dev *dev, unsigned long long bytes_per_s, unsigned long long launch,
                    char *out, size_t cap)
{
    head_of(dev, out, cap);
    size_t n = strlen(out);
    snprintf(out + n, cap - n, "bytes_per_second %llu\nlaunch_picoseconds %llu\n", bytes_per_s,
             launch);
    unsigned long long sum = hash_of(out);
    n = strlen(out);
    snprintf(out + n, cap - n, "sum %016llx\n", sum);
}

/* The number behind `key`; 0 when it is not there. */
static unsigned long long number_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* Written anew from its two numbers, a good text is the same to its last byte. */
static bool read_text(const kvcl_dev *dev, const char *text, kvcl_probe *out)
{
    char again[MAX_FILE];
    unsigned long long rate = number_of(text, "\nbytes_per_second ");
    unsigned long long launch = number_of(text, "\nlaunch_picoseconds ");
    text_of(dev, rate, launch, again, sizeof again);
    if (rate == 0 || strcmp(text, again) != 0)
        return false;
    *out = (kvcl_probe){.copy_bytes_per_s = (double)rate, .launch_ns = (double)launch * 1e-3};
    return true;
}

static bool load(const kvcl_dev *dev, kvcl_probe *out)
{
    char path[MAX_PATH];
    size_t n = 0;
    if (!path_of(dev, path, sizeof path))
        return false;
    char *text = kvcl_os_cache_read(dev->ctx, path, MAX_FILE, &n);
    if (!text)
        return false;
    bool ok = strlen(text) == n && read_text(dev, text, out);
    if (!ok)
        kvcl_log_info(dev->ctx, "probe of %s: %s is of another driver or damaged; ignored",
                      dev->info.id, path);
    kvcl_mem_free(dev->ctx, text);
    return ok;
}

static void store(const kvcl_dev *dev, const kvcl_probe *p)
{
    char path[MAX_PATH], text[MAX_FILE];
    if (!path_of(dev, path, sizeof path))
        return;
    text_of(dev, (unsigned long long)p->copy_bytes_per_s, (unsigned long long)(p->launch_ns * 1e3),
            text, sizeof text);
    if (!kvcl_os_cache_write(path, (const void *[]){text}, (const size_t[]){strlen(text)}, 1))
        kvcl_log_debug(dev->ctx, "probe of %s: %s cannot be written", dev->info.id, path);
}

kvcl_status kvcl_probe_get(kvcl_dev *dev, kvcl_probe_mode mode, kvcl_probe *out)
{
    kvcl_probe p = {0};
    bool found = mode != KVCL_PROBE_ANEW && load(dev, &p);
    p.is_stored = found;
    if (!found && mode != KVCL_PROBE_STORED) {
        KVCL_TRY(measure(dev, &p));
        store(dev, &p);
        kvcl_log_info(dev->ctx, "probe of %s: %.1f GB/s, %.1f us per operation", dev->info.id,
                      p.copy_bytes_per_s * 1e-9, p.launch_ns * 1e-3);
    }
    p.mem_bytes = dev->info.mem_bytes;
    p.max_alloc_bytes = dev->info.max_alloc_bytes;
    p.exactness = dev->info.exactness;
    *out = p;
    return KVCL_OK;
}
