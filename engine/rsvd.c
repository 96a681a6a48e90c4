/* rsvd.c - kvcl_rsvd(): batches of matrices through the operation, in pieces that the device holds.
 */
#include "dev.h"
#include "mem.h"
#include "shared.h"

#include <math.h>

#define PIECE_BYTES ((size_t)256 << 20) /* of matrices on the device at a time */

kvcl_rsvd_options kvcl_rsvd_defaults(uint32_t rank, size_t rows, size_t cols)
{
    size_t most = kvcl_min_size(kvcl_min_size(rows, cols), KVCL_SVD_MAX_SKETCH);
    kvcl_rsvd_options o = {.rank = rank, .power = 4};
    o.oversample = rank < most ? (uint32_t)kvcl_min_size(8, most - rank) : 0;
    return o;
}

/* Buffers for a piece of a batch. */
typedef struct piece {
    kvcl_queue *q;
    kvcl_buf *buf[7];
    kvcl_rsvd_args args;
} piece;

static kvcl_status piece_create(piece *p, uint32_t n)
{
    kvcl_rsvd_args *a = &p->args;
    const size_t rows = a->rows, cols = a->cols, rank = a->rank;
    const size_t floats[7] = {
        n * rows * cols,
        n * (size_t)3,
        n * rows * rank,
        n * rank,
        n * cols * rank,
        n,
        kvcl_rsvd_scratch_bytes(n, a->rows, a->cols, a->rank + a->oversample) / 4};
    kvcl_view *view[7] = {&a->a, &a->ids, &a->u, &a->s, &a->v, &a->bad, &a->scratch};
    for (size_t i = 0; i < kvcl_array_len(floats); i++) {
        KVCL_TRY(kvcl_buf_create(p->q->dev, floats[i] * sizeof(float),
                                 "matrices of a decomposition", &p->buf[i]));
        *view[i] = (kvcl_view){p->buf[i], 0, floats[i] * sizeof(float)};
    }
    return KVCL_OK;
}

static void piece_free(piece *p)
{
    for (size_t i = 0; i < kvcl_array_len(p->buf); i++)
        kvcl_buf_free(p->buf[i]);
    kvcl_queue_free(p->q);
}

/* Matrices first .. first + n - 1 of the batch; the pointers are those of the whole batch. */
static kvcl_status piece_run(piece *p, const kvcl_rsvd_options *o, size_t first, uint32_t n,
                             const float *a, float *u, float *s, float *v)
{
    kvcl_rsvd_args *args = &p->args;
    const size_t rows = args->rows, cols = args->cols, rank = args->rank;
    kvcl_ctx *ctx = p->q->dev->ctx;
    args->n = n;
    KVCL_TRY(kvcl_buf_write(p->q, p->buf[0], 0, a + first * rows * cols, n * rows * cols * 4));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t id[3] = {o->layer, o->head, o->page + (uint32_t)first + i};
        KVCL_TRY(kvcl_buf_write(p->q, p->buf[1], i * sizeof id, id, sizeof id));
    }
    KVCL_TRY(kvcl_op_rsvd(p->q, args));
    KVCL_TRY(kvcl_queue_wait(p->q));
    for (uint32_t i = 0; i < n; i++) {
        int32_t bad;
        KVCL_TRY(kvcl_buf_read(p->q, p->buf[5], i * sizeof bad, &bad, sizeof bad));
        KVCL_CHECK(ctx, !bad, KVCL_E_NOT_FINITE,
                   "matrix %zu: a value is not finite, or its magnitude is 2^100 or more",
                   first + i);
    }
    KVCL_TRY(kvcl_buf_read(p->q, p->buf[2], 0, u + first * rows * rank, n * rows * rank * 4));
    KVCL_TRY(kvcl_buf_read(p->q, p->buf[3], 0, s + first * rank, n * rank * 4));
    return kvcl_buf_read(p->q, p->buf[4], 0, v + first * cols * rank, n * cols * rank * 4);
}

static kvcl_status direct(kvcl_dev *dev, const float *a, size_t n, size_t rows, size_t cols,
                          const kvcl_rsvd_options *o, float *u, float *s, float *v)
{
    const size_t most = kvcl_max_size(1, PIECE_BYTES / (rows * cols * sizeof(float)));
    piece p = {.args = {.rows = (uint32_t)rows,
                        .cols = (uint32_t)cols,
                        .rank = o->rank,
                        .oversample = o->oversample,
                        .power = o->power,
                        .seed = o->seed}};
    kvcl_status st;
    const uint32_t step = (uint32_t)kvcl_min_size(n, kvcl_min_size(most, 4096));
    KVCL_TRY(kvcl_queue_create(dev, &p.q));
    KVCL_TRY_GOTO(piece_create(&p, step));
    for (size_t i = 0; i < n; i += step)
        KVCL_TRY_GOTO(piece_run(&p, o, i, (uint32_t)kvcl_min_size(step, n - i), a, u, s, v));
fail:
    piece_free(&p);
    return st;
}

/* ---- wide matrices: transposed --------------------------------------------------------------- */

static void transpose(const float *in, size_t rows, size_t cols, float *out)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            out[j * rows + i] = in[i * cols + j];
}

/* The largest entry of each column of v becomes positive; u turns with it. */
static void fix_signs(float *u, size_t rows, float *v, size_t cols, size_t rank)
{
    for (size_t c = 0; c < rank; c++) {
        float most = 0.0f, at_most = 0.0f;
        for (size_t i = 0; i < cols; i++) {
            float x = v[i * rank + c], size = x < 0.0f ? -x : x;
            if (size > most) {
                most = size;
                at_most = x;
            }
        }
        for (size_t i = 0; i < cols && at_most < 0.0f; i++)
            v[i * rank + c] = kvcl_zero(-v[i * rank + c]);
        for (size_t i = 0; i < rows && at_most < 0.0f; i++)
            u[i * rank + c] = kvcl_zero(-u[i * rank + c]);
    }
}

static kvcl_status wide(kvcl_dev *dev, const float *a, size_t n, size_t rows, size_t cols,
                        const kvcl_rsvd_options *o, float *u, float *s, float *v)
{
    void *turned;
    const size_t size = rows * cols, rank = o->rank;
    KVCL_TRY(kvcl_mem_array(dev->ctx, n, size * sizeof(float), "the transposed matrices", &turned));
    for (size_t b = 0; b < n; b++)
        transpose(a + b * size, rows, cols, (float *)turned + b * size);
    kvcl_status st = direct(dev, turned, n, cols, rows, o, v, s, u);
    for (size_t b = 0; b < n && st == KVCL_OK; b++)
        fix_signs(u + b * rows * rank, rows, v + b * cols * rank, cols, rank);
    kvcl_mem_free(dev->ctx, turned);
    return st;
}

/* ---- large matrices: the range finder by products -------------------------------------------- */

/* One direction: Y = M X for a matrix M [rows][cols], cols padded to `wide`; X and Y as their
 * transposes. */
typedef struct product {
    uint32_t rows, wide;
    float *data;
    kvcl_mat *mat;
    kvcl_buf *x, *y, *scratch;
} product;

typedef struct large {
    kvcl_dev *dev;
    kvcl_queue *q;
    kvcl_rsvd_options o;
    uint32_t l;
    product to_rows, to_cols; /* by A, by its transpose */
    float *turned, *q_rows, *q_cols, *small_s, *small_v;
} large;

static kvcl_status product_create(large *g, product *p, size_t rows, size_t cols)
{
    kvcl_ctx *ctx = g->dev->ctx;
    void *data;
    p->rows = (uint32_t)rows;
    p->wide = (uint32_t)kvcl_align_up(cols, 32);
    KVCL_TRY(kvcl_mem_array(ctx, rows, p->wide * sizeof(float), "a copy of the matrix", &data));
    p->data = data;
    KVCL_TRY(kvcl_buf_create(g->dev, (size_t)g->l * p->wide * sizeof(float), "a sketch", &p->x));
    return kvcl_buf_create(g->dev, (size_t)g->l * p->rows * sizeof(float), "a sketch", &p->y);
}

static kvcl_status product_upload(large *g, product *p)
{
    KVCL_TRY(kvcl_mat_create(g->q, KVCL_F32, p->rows, p->wide, p->data, &p->mat));
    const size_t bytes = kvcl_matmul_scratch_bytes(g->dev, g->l, p->mat);
    return kvcl_buf_create(g->dev, kvcl_max_size(bytes, 4), "scratch of a product", &p->scratch);
}

static void product_free(large *g, product *p)
{
    kvcl_mat_free(p->mat);
    kvcl_buf_free(p->x);
    kvcl_buf_free(p->y);
    kvcl_buf_free(p->scratch);
    kvcl_mem_free(g->dev->ctx, p->data);
}

/* out [rows][l] = M X for X [n][l]. */
static kvcl_status multiply(large *g, product *p, const float *x, size_t n, float *out)
{
    const size_t l = g->l;
    memset(g->turned, 0, l * p->wide * sizeof(float));
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < l; c++)
            g->turned[c * p->wide + i] = x[i * l + c];
    KVCL_TRY(kvcl_buf_write(g->q, p->x, 0, g->turned, l * p->wide * sizeof(float)));
    const kvcl_matmul_args a = {.n = g->l,
                                .w = p->mat,
                                .x = {p->x, 0, p->x->bytes},
                                .out = {p->y, 0, p->y->bytes},
                                .x_stride = p->wide,
                                .out_stride = p->rows,
                                .scratch = {p->scratch, 0, p->scratch->bytes}};
    KVCL_TRY(kvcl_op_matmul(g->q, &a));
    KVCL_TRY(kvcl_queue_wait(g->q));
    KVCL_TRY(kvcl_buf_read(g->q, p->y, 0, g->turned, l * p->rows * sizeof(float)));
    transpose(g->turned, l, p->rows, out);
    return KVCL_OK;
}

/* x [rows][l] made orthonormal in place. */
static kvcl_status orthonormal(large *g, float *x, size_t rows)
{
    kvcl_rsvd_options o = g->o;
    o.rank = g->l;
    o.oversample = 0;
    o.power = 1;
    memcpy(g->turned, x, rows * g->l * sizeof *x);
    return direct(g->dev, g->turned, 1, rows, g->l, &o, x, g->small_s, g->small_v);
}

/* The matrix times its scale, and its transpose. */
static kvcl_status large_load(large *g, const float *a, size_t rows, size_t cols, float *scale)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < rows * cols; i++)
        bits = kvcl_max_u32(bits, KVCL_AS_UINT(a[i]) & 0x7fffffffu);
    KVCL_CHECK(g->dev->ctx, bits < KVCL_SVD_BAD_BITS, KVCL_E_NOT_FINITE,
               "a value of the matrix is not finite, or its magnitude is 2^100 or more");
    *scale = kvcl_svd_scale(bits);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            float x = kvcl_svd_value(a[i * cols + j], *scale, KVCL_SVD_LEAST);
            g->to_rows.data[i * g->to_rows.wide + j] = x;
            g->to_cols.data[j * g->to_cols.wide + i] = x;
        }
    KVCL_TRY(product_upload(g, &g->to_rows));
    return product_upload(g, &g->to_cols);
}

static kvcl_status large_create(large *g, size_t rows, size_t cols)
{
    kvcl_ctx *ctx = g->dev->ctx;
    const size_t most = kvcl_align_up(kvcl_max_size(rows, cols), 32), l = g->l;
    const size_t floats[] = {most * l, rows * l, cols * l, l, l * l};
    float **to[] = {&g->turned, &g->q_rows, &g->q_cols, &g->small_s, &g->small_v};
    KVCL_TRY(kvcl_queue_create(g->dev, &g->q));
    for (size_t i = 0; i < kvcl_array_len(floats); i++) {
        void *p;
        KVCL_TRY(kvcl_mem_array(ctx, floats[i], sizeof(float), "a sketch", &p));
        *to[i] = p;
    }
    KVCL_TRY(product_create(g, &g->to_rows, rows, cols));
    return product_create(g, &g->to_cols, cols, rows);
}

static void large_free(large *g)
{
    kvcl_ctx *ctx = g->dev->ctx;
    product_free(g, &g->to_rows);
    product_free(g, &g->to_cols);
    kvcl_mem_free(ctx, g->turned);
    kvcl_mem_free(ctx, g->q_rows);
    kvcl_mem_free(ctx, g->q_cols);
    kvcl_mem_free(ctx, g->small_s);
    kvcl_mem_free(ctx, g->small_v);
    kvcl_queue_free(g->q);
}

/* Q of the range, then A^T Q = V diag(S) W^T, so that A ~ (Q W) diag(S) V^T. */
static kvcl_status large_run(large *g, const float *a, size_t rows, size_t cols, float *u, float *s,
                             float *v)
{
    const kvcl_rsvd_options *o = &g->o;
    const size_t l = g->l, rank = o->rank;
    const uint32_t low = (uint32_t)o->seed, high = (uint32_t)(o->seed >> 32);
    const uint32_t key0 = kvcl_svd_key(low, high, o->layer, o->head, o->page, 0);
    const uint32_t key1 = kvcl_svd_key(low, high, o->layer, o->head, o->page, 1);
    float scale = 0.0f;
    KVCL_TRY(large_create(g, rows, cols));
    KVCL_TRY(large_load(g, a, rows, cols, &scale));
    for (uint32_t i = 0; i < cols; i++)
        for (uint32_t c = 0; c < l; c++)
            g->q_cols[i * l + c] = kvcl_svd_sign(key0, key1, 0, i, c);
    for (uint32_t it = 0; it <= o->power; it++) {
        KVCL_TRY(multiply(g, &g->to_rows, g->q_cols, cols, g->q_rows));
        KVCL_TRY(orthonormal(g, g->q_rows, rows));
        KVCL_TRY(multiply(g, &g->to_cols, g->q_rows, rows, g->q_cols));
        if (it < o->power)
            KVCL_TRY(orthonormal(g, g->q_cols, cols));
    }
    kvcl_rsvd_options last = *o;
    last.power = 2;
    KVCL_TRY(direct(g->dev, g->q_cols, 1, cols, l, &last, v, s, g->small_v));
    for (size_t t = 0; t < rows; t++)
        for (size_t c = 0; c < rank; c++) {
            float sum = 0.0f;
            for (size_t i = 0; i < l; i++)
                sum = fmaf(g->q_rows[t * l + i], g->small_v[i * rank + c], sum);
            u[t * rank + c] = s[c] > 0.0f ? kvcl_zero(sum) : 0.0f;
        }
    for (size_t c = 0; c < rank; c++)
        s[c] = kvcl_zero(s[c] * kvcl_svd_unscale(scale));
    fix_signs(u, rows, v, cols, rank);
    return KVCL_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

kvcl_status kvcl_rsvd(kvcl_dev *dev, const float *a, size_t n, size_t rows, size_t cols,
                      const kvcl_rsvd_options *opt, float *u, float *s, float *v)
{
    const size_t few = kvcl_min_size(rows, cols), many = kvcl_max_size(rows, cols);
    const size_t most = kvcl_min_size(few, KVCL_SVD_MAX_SKETCH);
    kvcl_status st = KVCL_OK;
    if (n == 0)
        return KVCL_OK;
    KVCL_CHECK(
        dev->ctx, opt->rank >= 1 && opt->rank <= most && opt->oversample <= most - opt->rank,
        KVCL_E_UNSUPPORTED,
        "rank %u and %u more columns of a sketch; a %zu x %zu matrix takes 1 to %zu together",
        (unsigned)opt->rank, (unsigned)opt->oversample, rows, cols, most);
    KVCL_CHECK(dev->ctx, opt->power <= 64, KVCL_E_UNSUPPORTED,
               "%u power iterations; at most 64 are done", (unsigned)opt->power);
    KVCL_CHECK(dev->ctx, many <= (few <= KVCL_SVD_MAX_COLS ? 1u << 20 : 1u << 16),
               KVCL_E_UNSUPPORTED,
               "a %zu x %zu matrix; at most 65536 rows and columns, or 2^20 of one and 256 of the "
               "other, are done",
               rows, cols);
    if (cols <= KVCL_SVD_MAX_COLS)
        return direct(dev, a, n, rows, cols, opt, u, s, v);
    if (rows <= KVCL_SVD_MAX_COLS)
        return wide(dev, a, n, rows, cols, opt, u, s, v);
    for (size_t b = 0; b < n && st == KVCL_OK; b++) {
        large g = {.dev = dev, .o = *opt, .l = opt->rank + opt->oversample};
        g.o.page += (uint32_t)b;
        st = large_run(&g, a + b * rows * cols, rows, cols, u + b * rows * opt->rank,
                       s + b * opt->rank, v + b * cols * opt->rank);
        large_free(&g);
    }
    return st;
}
