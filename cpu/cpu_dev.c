/* cpu_dev.c - the CPU as a device: its table is filled with the scalar twins, then overridden by
 * what this processor does faster with the same bits. */
#include "cpu_pool.h"
#include "log.h"
#include "mem.h"
#include "os.h"
#include "types.h"

#include <stdio.h>
#include <stdlib.h>

#define QUEUE_ENTRIES 512
/* Buffers of this size are worth large pages (2 MiB). */
#define LARGE_BYTES ((size_t)4 << 20)

typedef struct kvcl_cpu_dev {
    kvcl_cpu_caps caps;
    kvcl_cpu_op ops[KVCL_N_OPS];
} kvcl_cpu_dev;

typedef struct kvcl_cpu_queue {
    kvcl_cpu_pool pool;
    uint32_t n;
    kvcl_cpu_entry entries[QUEUE_ENTRIES];
} kvcl_cpu_queue;

/* ---- memory -------------------------------------------------------------------------------- */

static kvcl_status cpu_buf_create(kvcl_dev *dev, size_t bytes, kvcl_buf **out)
{
    void *p;
    size_t total;
    KVCL_CHECK(dev->ctx, kvcl_add_size(sizeof(kvcl_buf) + 2 * KVCL_ALIGN, bytes, &total),
               KVCL_E_MEM, "no memory for a buffer of %zu bytes", bytes);
    KVCL_TRY(kvcl_mem_alloc_undefined(dev->ctx, total, "a buffer", &p));
    kvcl_buf *b = p;
    b->dev = dev;
    b->bytes = bytes;
    b->impl = (unsigned char *)p + kvcl_align_up(sizeof *b, KVCL_ALIGN);
    if (bytes >= LARGE_BYTES)
        kvcl_os_large_pages(b->impl, bytes);
    *out = b;
    return KVCL_OK;
}

static void cpu_buf_free(kvcl_dev *dev, kvcl_buf *buf) { kvcl_mem_free(dev->ctx, buf); }

static void run(kvcl_queue *q)
{
    kvcl_cpu_queue *cq = q->impl;
    kvcl_cpu_pool_run(&cq->pool, cq->entries, cq->n);
    cq->n = 0;
}

static kvcl_status cpu_buf_write(kvcl_queue *q, kvcl_buf *dst, size_t off, const void *src,
                                 size_t n)
{
    run(q);
    memcpy((unsigned char *)dst->impl + off, src, n);
    return KVCL_OK;
}

static kvcl_status cpu_buf_read(kvcl_queue *q, const kvcl_buf *src, size_t off, void *dst, size_t n)
{
    run(q);
    memcpy(dst, (const unsigned char *)src->impl + off, n);
    return KVCL_OK;
}

static kvcl_status cpu_buf_copy(kvcl_queue *q, kvcl_buf *dst, size_t dst_off, const kvcl_buf *src,
                                size_t src_off, size_t n)
{
    run(q);
    memmove((unsigned char *)dst->impl + dst_off, (const unsigned char *)src->impl + src_off, n);
    return KVCL_OK;
}

/* Wraps the file's own rows: a mapped model is not copied. */
static kvcl_status cpu_mat_create(kvcl_queue *q, kvcl_type type, uint32_t rows, uint32_t cols,
                                  const void *rows_data, kvcl_mat **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(q->dev->ctx, sizeof(kvcl_mat) + sizeof(kvcl_buf), "a matrix", &p));
    kvcl_mat *m = p;
    kvcl_buf *b = (kvcl_buf *)(m + 1);
    m->dev = b->dev = q->dev;
    m->type = type;
    m->rows = m->rows_per_part = rows;
    m->cols = cols;
    m->n_parts = 1;
    m->bytes = b->bytes = rows * kvcl_type_bytes(type, cols);
    memcpy(&b->impl, &rows_data, sizeof rows_data); /* const is kept by all users of a matrix */
    m->part[0] = b;
    *out = m;
    return KVCL_OK;
}

static void cpu_mat_free(kvcl_dev *dev, kvcl_mat *mat) { kvcl_mem_free(dev->ctx, mat); }

/* Room for x packed 16 tokens wide (simd_matmul.c); the scalar twin needs none. */
static size_t cpu_matmul_scratch_bytes(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w)
{
    KVCL_UNUSED(dev);
    return kvcl_align_up(n, 16) * (size_t)w->cols * sizeof(float);
}

/* ---- order --------------------------------------------------------------------------------- */

static kvcl_status cpu_queue_create(kvcl_dev *dev, kvcl_queue **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(dev->ctx, sizeof(kvcl_queue) + sizeof(kvcl_cpu_queue), "a queue", &p));
    kvcl_queue *q = p;
    kvcl_cpu_queue *cq = (kvcl_cpu_queue *)(q + 1);
    kvcl_status st = kvcl_cpu_pool_init(dev->ctx, dev->info.n_units, &cq->pool);
    if (st != KVCL_OK) {
        kvcl_mem_free(dev->ctx, p);
        return st;
    }
    q->dev = dev;
    q->impl = cq;
    *out = q;
    return KVCL_OK;
}

static void cpu_queue_free(kvcl_queue *q)
{
    kvcl_cpu_queue *cq = q->impl;
    kvcl_cpu_pool_free(q->dev->ctx, &cq->pool);
    kvcl_mem_free(q->dev->ctx, q);
}

static kvcl_status cpu_queue_wait(kvcl_queue *q)
{
    run(q);
    return KVCL_OK;
}

/* ---- compute ------------------------------------------------------------------------------- */

static kvcl_status enqueue(kvcl_queue *q, kvcl_op_id id, const void *args, size_t bytes)
{
    kvcl_cpu_queue *cq = q->impl;
    const kvcl_cpu_dev *cd = q->dev->impl;
    if (cq->n == QUEUE_ENTRIES)
        run(q);
    kvcl_cpu_entry *e = &cq->entries[cq->n++];
    e->op = cd->ops[id];
    memcpy(&e->args, args, bytes);
    return KVCL_OK;
}

#define KVCL_OP(name, group, stem)                                                \
    static kvcl_status enqueue_##name(kvcl_queue *q, const kvcl_##name##_args *a) \
    {                                                                             \
        return enqueue(q, KVCL_OP_ID_##name, a, sizeof *a);                       \
    }
#include "ops.def"
#undef KVCL_OP

static const kvcl_dev_ops cpu_table = {
    .buf_create = cpu_buf_create,
    .buf_free = cpu_buf_free,
    .buf_write = cpu_buf_write,
    .buf_read = cpu_buf_read,
    .buf_copy = cpu_buf_copy,
    .mat_create = cpu_mat_create,
    .mat_free = cpu_mat_free,
    .matmul_scratch_bytes = cpu_matmul_scratch_bytes,
    .queue_create = cpu_queue_create,
    .queue_free = cpu_queue_free,
    .queue_wait = cpu_queue_wait,
#define KVCL_OP(name, group, stem) .name = enqueue_##name,
#include "ops.def"
#undef KVCL_OP
};

static void fill_ops(kvcl_cpu_dev *cd)
{
    static const kvcl_cpu_op twins[KVCL_N_OPS] = {
#define KVCL_OP(name, group, stem) [KVCL_OP_ID_##name] = {kvcl_cpu_##name, 1},
#include "ops.def"
#undef KVCL_OP
    };
    memcpy(cd->ops, twins, sizeof twins);
#if defined(__x86_64__)
    if (cd->caps == KVCL_CPU_AVX2)
        kvcl_avx2_override(cd->ops);
    if (cd->caps == KVCL_CPU_AVX512)
        kvcl_avx512_override(cd->ops);
#elif defined(__aarch64__)
    if (cd->caps == KVCL_CPU_NEON)
        kvcl_neon_override(cd->ops);
#endif
}

/* ---- life cycle ---------------------------------------------------------------------------- */

static kvcl_status cpu_list(kvcl_ctx *ctx, kvcl_device_info *out, size_t cap, size_t *n_out)
{
    KVCL_UNUSED(ctx);
    size_t i = (*n_out)++;
    if (i >= cap)
        return KVCL_OK;
    kvcl_device_info *info = &out[i];
    memset(info, 0, sizeof *info);
    snprintf(info->id, sizeof info->id, "cpu");
    kvcl_os_cpu_name(info->name, sizeof info->name);
    snprintf(info->platform, sizeof info->platform, "kvcl");
    snprintf(info->driver, sizeof info->driver, "%s", KVCL_VERSION);
    info->kind = KVCL_KIND_CPU;
    info->mem_bytes = info->max_alloc_bytes = kvcl_os_mem_bytes();
    info->n_units = kvcl_os_n_cpus();
    return KVCL_OK;
}

/* "cpu" takes the best path (or KVCL_CPU_CAPS); "cpu:avx2" names one. */
static kvcl_status pick_caps(kvcl_dev *dev, kvcl_cpu_caps *out)
{
    const char *colon = strchr(dev->info.id, ':');
    return kvcl_cpu_caps_pick(dev->ctx, colon ? colon + 1 : getenv("KVCL_CPU_CAPS"), out);
}

static void cpu_close(kvcl_dev *dev)
{
    kvcl_mem_free(dev->ctx, dev->impl);
    dev->impl = NULL;
}

/* Catches a compiler or a run-time environment that breaks the rules (flush-to-zero, -ffast-math).
 */
static kvcl_status selftest(kvcl_dev *dev)
{
    kvcl_queue *q;
    bool exact = false;
    KVCL_TRY(cpu_queue_create(dev, &q));
    kvcl_status st = kvcl_dev_selftest(q, &exact);
    cpu_queue_free(q);
    dev->info.exactness = exact ? KVCL_EXACT : KVCL_FAST_ONLY;
    if (st == KVCL_OK && !exact)
        st = kvcl_fail(dev->ctx, KVCL_E_DEVICE,
                       "%s: the self-test gives other bits: built with -ffast-math, or another "
                       "library set flush-to-zero",
                       dev->info.id);
    return st;
}

static kvcl_status cpu_open(kvcl_dev *dev)
{
    void *p;
    kvcl_cpu_caps caps;
    KVCL_TRY(pick_caps(dev, &caps));
    KVCL_TRY(kvcl_mem_alloc(dev->ctx, sizeof(kvcl_cpu_dev), "the CPU device", &p));
    kvcl_cpu_dev *cd = dev->impl = p;
    cd->caps = caps;
    fill_ops(cd);
    dev->ops = cpu_table;
    snprintf(dev->info.detail, sizeof dev->info.detail, "%s, %u threads", kvcl_cpu_caps_name(caps),
             (unsigned)dev->info.n_units);
    return selftest(dev);
}

const kvcl_backend kvcl_cpu_backend = {
    .name = "cpu", .list = cpu_list, .open = cpu_open, .close = cpu_close};
