/* cl_svd.c - host half of cl/svd.cl. */
#include "cl_launch.h"
#include "shared.h"

#define GROUP 256
#define FLAT_GROUP 64
#define TILE 64
#define LOCAL_BYTES (36u << 10)
#define ALIGN_BYTES 256u /* of scratch; see ops_svd.c */

/* A decomposition: where its parts are, in floats of the scratch buffer. */
typedef struct plan {
    kvcl_queue *q;
    const kvcl_rsvd_args *a;
    kvcl_svd_layout at;
    uint32_t spec;
    size_t base;  /* of U1 */
    size_t first; /* of the first matrix's layout */
} plan;

/* Rows of a matrix of the batch. */
typedef struct rows {
    const kvcl_buf *buf;
    size_t off, step;
    uint32_t stride, rows, n, scaled;
} rows;

static kvcl_status begin(const plan *p, const char *name, kvcl_cl_launch *k)
{
    return kvcl_cl_begin(p->q, KVCL_CL_STEM_svd, p->spec, name, k);
}

/* The scratch buffer, then the places of up to 4 of its parts, then the step. */
static void arg_scratch(const plan *p, kvcl_cl_launch *k, const size_t *parts, size_t n)
{
    kvcl_cl_arg_buf(k, p->a->scratch.buf);
    for (size_t i = 0; i < n; i++)
        kvcl_cl_arg_u64(k, p->first + parts[i]);
    kvcl_cl_arg_u32(k, (uint32_t)p->at.floats);
}

static void arg_rows(kvcl_cl_launch *k, const rows *x)
{
    kvcl_cl_arg_buf(k, x->buf);
    kvcl_cl_arg_u64(k, x->off);
    kvcl_cl_arg_u64(k, x->step);
    kvcl_cl_arg_u32(k, x->stride);
    kvcl_cl_arg_u32(k, x->rows);
    kvcl_cl_arg_u32(k, x->n);
}

/* A group per matrix. */
static kvcl_status run_groups(const plan *p, kvcl_cl_launch *k)
{
    size_t items = kvcl_cl_lanes_group(k, GROUP);
    return kvcl_cl_run1(k, p->a->n * items, items);
}

/* `units` items per matrix. */
static kvcl_status run_flat(const plan *p, kvcl_cl_launch *k, size_t units)
{
    return kvcl_cl_run2(k, units, p->a->n, FLAT_GROUP, 1);
}

static kvcl_status scale(const plan *p)
{
    const kvcl_rsvd_args *a = p->a;
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_scale", &k));
    kvcl_cl_arg_view(&k, a->a, sizeof(float));
    kvcl_cl_arg_view(&k, a->ids, sizeof(uint32_t));
    kvcl_cl_arg_view(&k, a->bad, sizeof(int32_t));
    arg_scratch(p, &k, (const size_t[]){p->at.meta, p->at.z}, 2);
    kvcl_cl_arg_u32(&k, a->rows);
    kvcl_cl_arg_u32(&k, a->cols);
    kvcl_cl_arg_u32(&k, p->at.l);
    kvcl_cl_arg_u32(&k, (uint32_t)a->seed);
    kvcl_cl_arg_u32(&k, (uint32_t)(a->seed >> 32));
    return run_groups(p, &k);
}

/* The part `to`, [stride][stride], from rows. */
static kvcl_status gram(const plan *p, const rows *x, size_t to, uint32_t stride)
{
    const size_t tiles = kvcl_div_up(stride, TILE);
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_gram", &k));
    arg_rows(&k, x);
    arg_scratch(p, &k, (const size_t[]){to, p->at.meta}, 2);
    kvcl_cl_arg_u32(&k, stride);
    kvcl_cl_arg_u32(&k, x->scaled);
    size_t items = kvcl_cl_lanes_group(&k, GROUP);
    return kvcl_cl_run2(&k, tiles * (tiles + 1) / 2 * items, p->a->n, items, 1);
}

static kvcl_status apply(const plan *p)
{
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_apply", &k));
    arg_scratch(p, &k, (const size_t[]){p->at.g, p->at.z, p->at.h}, 3);
    kvcl_cl_arg_u32(&k, p->a->cols);
    kvcl_cl_arg_u32(&k, p->at.l);
    return run_flat(p, &k, (size_t)(p->at.ls / 4) * (p->at.np / 4));
}

static kvcl_status orthonormal(const plan *p, uint32_t round)
{
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_orth", &k));
    arg_scratch(p, &k, (const size_t[]){p->at.h, p->at.z, p->at.meta}, 3);
    kvcl_cl_arg_u32(&k, p->a->cols);
    kvcl_cl_arg_u32(&k, p->at.l);
    kvcl_cl_arg_u32(&k, round);
    return run_groups(p, &k);
}

/* Rows of `from` as columns of `to`. */
static kvcl_status order(const plan *p, size_t from, size_t to, uint32_t stride, uint32_t n,
                         uint32_t n_used, uint32_t ordered)
{
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_order", &k));
    arg_scratch(p, &k, (const size_t[]){from, to, p->at.meta}, 3);
    kvcl_cl_arg_u32(&k, stride);
    kvcl_cl_arg_u32(&k, n);
    kvcl_cl_arg_u32(&k, p->at.ls);
    kvcl_cl_arg_u32(&k, n_used);
    kvcl_cl_arg_u32(&k, ordered);
    return run_flat(p, &k, (size_t)n * p->at.ls);
}

/* Rows times the part `m`. */
static kvcl_status times(const plan *p, const rows *x, size_t m, float x_least, float least,
                         const rows *out)
{
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_times", &k));
    arg_rows(&k, x);
    arg_scratch(p, &k, (const size_t[]){m, p->at.meta}, 2);
    kvcl_cl_arg_u32(&k, p->at.ls);
    kvcl_cl_arg_u32(&k, x->scaled);
    kvcl_cl_arg_f32(&k, x_least);
    kvcl_cl_arg_f32(&k, least);
    kvcl_cl_arg_buf(&k, out->buf);
    kvcl_cl_arg_u64(&k, out->off);
    kvcl_cl_arg_u64(&k, out->step);
    kvcl_cl_arg_u32(&k, out->stride);
    kvcl_cl_arg_u32(&k, out->n);
    return run_flat(p, &k, (size_t)kvcl_div_up(x->rows, 4) * kvcl_div_up(out->n, 4));
}

static kvcl_status eigen(const plan *p)
{
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_eigen", &k));
    arg_scratch(p, &k, (const size_t[]){p->at.c, p->at.w, p->at.meta}, 3);
    kvcl_cl_arg_u32(&k, p->a->cols);
    kvcl_cl_arg_u32(&k, p->at.l);
    return run_groups(p, &k);
}

static kvcl_status values(const plan *p)
{
    kvcl_cl_launch k;
    KVCL_TRY(begin(p, "kvcl_rsvd_values", &k));
    arg_scratch(p, &k, (const size_t[]){p->at.c, p->at.meta}, 2);
    kvcl_cl_arg_view(&k, p->a->s, sizeof(float));
    kvcl_cl_arg_view(&k, p->a->v, sizeof(float));
    kvcl_cl_arg_u32(&k, p->a->cols);
    kvcl_cl_arg_u32(&k, p->a->rank);
    kvcl_cl_arg_u32(&k, p->at.ls);
    return run_flat(p, &k, p->a->rank);
}

static rows rows_of(kvcl_view v, uint32_t n_rows, uint32_t n)
{
    return (rows){v.buf, v.off / sizeof(float), (size_t)n_rows * n, n, n_rows, n, 0};
}

kvcl_status kvcl_cl_rsvd(kvcl_queue *q, const kvcl_rsvd_args *a)
{
    plan p = {.q = q, .a = a, .at = kvcl_svd_layout_of(a->cols, a->rank + a->oversample)};
    const uint32_t l = p.at.l, ls = p.at.ls;
    p.spec = l <= 64 && kvcl_cl_caps_of(q)->local_bytes >= LOCAL_BYTES;
    p.base = kvcl_align_up(a->scratch.off, ALIGN_BYTES) / sizeof(float);
    p.first = p.base + (size_t)a->n * a->rows * ls;
    rows x = rows_of(a->a, a->rows, a->cols), u = rows_of(a->u, a->rows, a->rank);
    rows v = rows_of(a->v, a->cols, a->rank);
    rows u1 = {a->scratch.buf, p.base, (size_t)a->rows * ls, ls, a->rows, l, 0};
    rows z = {a->scratch.buf, p.first + p.at.h, p.at.floats, ls, a->cols, l, 0};
    x.scaled = 1;
    KVCL_TRY(scale(&p));
    KVCL_TRY(gram(&p, &x, p.at.g, p.at.np));
    for (uint32_t it = 0; it <= a->power; it++) {
        KVCL_TRY(apply(&p));
        KVCL_TRY(orthonormal(&p, it + 1));
    }
    KVCL_TRY(order(&p, p.at.z, p.at.h, p.at.np, p.at.np, l, 0));
    KVCL_TRY(times(&p, &x, p.at.h, KVCL_SVD_LEAST, KVCL_SVD_LEAST_SUM, &u1));
    KVCL_TRY(gram(&p, &u1, p.at.c, ls));
    KVCL_TRY(eigen(&p));
    KVCL_TRY(order(&p, p.at.w, p.at.x, ls, ls, a->rank, 1));
    KVCL_TRY(times(&p, &z, p.at.x, KVCL_SVD_LEAST_UNIT, 0.0f, &v));
    KVCL_TRY(values(&p));
    return times(&p, &u1, p.at.x, KVCL_SVD_LEAST_SUM, 0.0f, &u);
}
