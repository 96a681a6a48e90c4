/* ops_model.c - the only validation of the model operations' arguments, then the table call. */
#include "ops_check.h"
#include "types.h"

/* ---- shared checks ------------------------------------------------------------------------- */

kvcl_status kvcl_check_view(const kvcl_queue *q, const char *op, const char *what, kvcl_view v,
                            uint64_t n, size_t size)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_CHECK(ctx, v.buf, KVCL_E_ARG, "%s: %s is missing", op, what);
    KVCL_CHECK(ctx, v.buf->dev == q->dev, KVCL_E_ARG, "%s: %s is on another device", op, what);
    KVCL_CHECK(ctx, v.off <= v.buf->bytes && v.bytes <= v.buf->bytes - v.off, KVCL_E_ARG,
               "%s: %s reaches beyond its buffer", op, what);
    KVCL_CHECK(ctx, v.off % size == 0, KVCL_E_ARG, "%s: %s is not aligned to %zu bytes", op, what,
               size);
    KVCL_CHECK(ctx, n <= v.bytes / size, KVCL_E_ARG, "%s: %s holds %zu bytes, needs %llu x %zu", op,
               what, v.bytes, (unsigned long long)n, size);
    return KVCL_OK;
}

kvcl_status kvcl_check_rows(const kvcl_queue *q, const char *op, const char *what, kvcl_view v,
                            uint32_t n, uint32_t dim, uint32_t stride)
{
    KVCL_CHECK(q->dev->ctx, stride >= dim, KVCL_E_ARG,
               "%s: rows of %s overlap: stride %u, width %u", op, what, (unsigned)stride,
               (unsigned)dim);
    return kvcl_check_view(q, op, what, v, (uint64_t)(n - 1) * stride + dim, sizeof(float));
}

kvcl_status kvcl_check_mat(const kvcl_queue *q, const char *op, const kvcl_mat *w)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_CHECK(ctx, w, KVCL_E_ARG, "%s: a matrix is missing", op);
    KVCL_CHECK(ctx, w->dev == q->dev, KVCL_E_ARG, "%s: a matrix is on another device", op);
    KVCL_CHECK(ctx, kvcl_type_known(w->type), KVCL_E_UNSUPPORTED, "%s: weight type %d", op,
               (int)w->type);
    KVCL_CHECK(ctx, w->cols % 32 == 0 && w->cols <= KVCL_MAX_COLS, KVCL_E_UNSUPPORTED,
               "%s: %u columns; want a multiple of 32, at most %u", op, (unsigned)w->cols,
               KVCL_MAX_COLS);
    return KVCL_OK;
}

kvcl_status kvcl_check_norm(const kvcl_queue *q, const char *op, const kvcl_norm_spec *spec,
                            uint32_t dim)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_CHECK(ctx, (unsigned)spec->kind <= KVCL_NORM_LAYER, KVCL_E_ARG, "%s: norm kind %d", op,
               (int)spec->kind);
    if (spec->kind == KVCL_NORM_NONE)
        return KVCL_OK;
    KVCL_CHECK(ctx, spec->eps > 0.0f, KVCL_E_ARG, "%s: eps must be positive", op);
    KVCL_TRY(kvcl_check_view(q, op, "the norm's weight", spec->weight, dim, sizeof(float)));
    if (spec->kind == KVCL_NORM_LAYER)
        KVCL_TRY(kvcl_check_view(q, op, "the norm's bias", spec->bias, dim, sizeof(float)));
    return KVCL_OK;
}

static bool overlap(kvcl_view a, kvcl_view b)
{
    return a.buf && a.buf == b.buf && a.off < b.off + b.bytes && b.off < a.off + a.bytes;
}

kvcl_status kvcl_check_apart(const kvcl_queue *q, const char *op, kvcl_view a, kvcl_view b)
{
    KVCL_CHECK(q->dev->ctx, !overlap(a, b), KVCL_E_ARG, "%s: output and input overlap", op);
    return KVCL_OK;
}

kvcl_status kvcl_check_same_or_apart(const kvcl_queue *q, const char *op, kvcl_view a, kvcl_view b)
{
    return a.off == b.off ? KVCL_OK : kvcl_check_apart(q, op, a, b);
}

/* ---- operations ---------------------------------------------------------------------------- */

kvcl_status kvcl_op_embed_rows(kvcl_queue *q, const kvcl_embed_rows_args *a)
{
    static const char op[] = "embed_rows";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_mat(q, op, a->table));
    KVCL_TRY(kvcl_check_view(q, op, "ids", a->ids, a->n, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "out", a->out, (uint64_t)a->n * a->table->cols, sizeof(float)));
    if (a->pos_table) {
        KVCL_TRY(kvcl_check_mat(q, op, a->pos_table));
        KVCL_CHECK(q->dev->ctx,
                   a->pos_table->cols == a->table->cols && a->n <= a->pos_table->rows &&
                       a->pos0 <= a->pos_table->rows - a->n,
                   KVCL_E_ARG, "%s: position table too small", op);
    }
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->ids));
    return q->dev->ops.embed_rows(q, a);
}

kvcl_status kvcl_op_norm(kvcl_queue *q, const kvcl_norm_args *a)
{
    static const char op[] = "norm";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_CHECK(q->dev->ctx, a->dim && a->dim % 32 == 0 && a->dim <= KVCL_MAX_COLS,
               KVCL_E_UNSUPPORTED, "%s: width %u; want a multiple of 32, at most %u", op,
               (unsigned)a->dim, KVCL_MAX_COLS);
    kvcl_norm_args grouped = *a;
    if (a->n_group == 0) {
        grouped.n_group = 1;
        grouped.stride = a->dim;
    }
    uint32_t n_groups = a->n / grouped.n_group, width = grouped.n_group * a->dim;
    KVCL_CHECK(q->dev->ctx, n_groups * grouped.n_group == a->n && grouped.n_group <= KVCL_MAX_COLS,
               KVCL_E_ARG, "%s: %u rows in groups of %u", op, (unsigned)a->n,
               (unsigned)grouped.n_group);
    KVCL_TRY(kvcl_check_norm(q, op, &a->spec, a->dim));
    KVCL_TRY(kvcl_check_rows(q, op, "x", a->x, n_groups, width, grouped.stride));
    KVCL_TRY(kvcl_check_rows(q, op, "out", a->out, n_groups, width, grouped.stride));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out, a->x));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->spec.weight));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->spec.bias));
    return q->dev->ops.norm(q, &grouped);
}

static kvcl_status check_matvec_segment(kvcl_queue *q, const kvcl_matvec_args *a, uint32_t s)
{
    static const char op[] = "matvec";
    KVCL_TRY(kvcl_check_mat(q, op, a->w[s]));
    KVCL_CHECK(q->dev->ctx, a->w[s]->cols == a->w[0]->cols, KVCL_E_ARG,
               "%s: segments differ in columns", op);
    if (a->bias[s].buf)
        KVCL_TRY(kvcl_check_view(q, op, "bias", a->bias[s], a->w[s]->rows, sizeof(float)));
    if (a->act == KVCL_ACT_SWIGLU && s == 1)
        return KVCL_OK; /* its results go to out[0] */
    KVCL_TRY(kvcl_check_rows(q, op, "out", a->out[s], a->n, a->w[s]->rows, a->out_stride[s]));
    return kvcl_check_apart(q, op, a->out[s], a->x);
}

kvcl_status kvcl_op_matvec(kvcl_queue *q, const kvcl_matvec_args *a)
{
    static const char op[] = "matvec";
    kvcl_ctx *ctx = q->dev->ctx;
    if (a->n == 0)
        return KVCL_OK;
    KVCL_CHECK(ctx, a->n_seg >= 1 && a->n_seg <= KVCL_MATVEC_SEGS, KVCL_E_ARG, "%s: %u segments",
               op, (unsigned)a->n_seg);
    KVCL_CHECK(ctx, (unsigned)a->act <= KVCL_ACT_GELU, KVCL_E_ARG, "%s: activation %d", op,
               (int)a->act);
    for (uint32_t s = 0; s < a->n_seg; s++)
        KVCL_TRY(check_matvec_segment(q, a, s));
    KVCL_TRY(kvcl_check_rows(q, op, "x", a->x, a->n, a->w[0]->cols, a->x_stride));
    KVCL_TRY(kvcl_check_norm(q, op, &a->norm, a->w[0]->cols));
    if (a->act == KVCL_ACT_SWIGLU)
        KVCL_CHECK(ctx, a->n_seg == 2 && a->w[1]->rows == a->w[0]->rows, KVCL_E_ARG,
                   "%s: swiglu wants two matrices of the same rows", op);
    if (a->res.buf) {
        KVCL_CHECK(ctx, a->n_seg == 1 || a->act == KVCL_ACT_SWIGLU, KVCL_E_ARG,
                   "%s: a residual wants one segment", op);
        KVCL_TRY(kvcl_check_rows(q, op, "res", a->res, a->n, a->w[0]->rows, a->out_stride[0]));
        KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out[0], a->res));
    }
    return q->dev->ops.matvec(q, a);
}

size_t kvcl_matmul_scratch_bytes(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w)
{
    return dev->ops.matmul_scratch_bytes(dev, n, w);
}

kvcl_status kvcl_op_matmul(kvcl_queue *q, const kvcl_matmul_args *a)
{
    static const char op[] = "matmul";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_mat(q, op, a->w));
    KVCL_TRY(kvcl_check_rows(q, op, "x", a->x, a->n, a->w->cols, a->x_stride));
    KVCL_TRY(kvcl_check_rows(q, op, "out", a->out, a->n, a->w->rows, a->out_stride));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->x));
    size_t need = kvcl_matmul_scratch_bytes(q->dev, a->n, a->w);
    if (need) {
        KVCL_TRY(
            kvcl_check_view(q, op, "scratch", a->scratch, need / sizeof(float), sizeof(float)));
        KVCL_TRY(kvcl_check_apart(q, op, a->scratch, a->x));
        KVCL_TRY(kvcl_check_apart(q, op, a->scratch, a->out));
    }
    return q->dev->ops.matmul(q, a);
}

kvcl_status kvcl_op_add(kvcl_queue *q, const kvcl_add_args *a)
{
    static const char op[] = "add";
    if (a->n == 0 || a->dim == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_rows(q, op, "a", a->a, a->n, a->dim, a->stride));
    KVCL_TRY(kvcl_check_rows(q, op, "out", a->out, a->n, a->dim, a->stride));
    KVCL_TRY(kvcl_check_rows(q, op, "b", a->b, a->b_is_row ? 1 : a->n, a->dim, a->dim));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out, a->a));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->b));
    return q->dev->ops.add(q, a);
}

kvcl_status kvcl_op_swiglu(kvcl_queue *q, const kvcl_swiglu_args *a)
{
    static const char op[] = "swiglu";
    if (a->n_elems == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_view(q, op, "gate", a->gate, a->n_elems, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "up", a->up, a->n_elems, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "out", a->out, a->n_elems, sizeof(float)));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out, a->gate));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out, a->up));
    return q->dev->ops.swiglu(q, a);
}

kvcl_status kvcl_op_gelu(kvcl_queue *q, const kvcl_gelu_args *a)
{
    static const char op[] = "gelu";
    if (a->n_elems == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_view(q, op, "x", a->x, a->n_elems, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "out", a->out, a->n_elems, sizeof(float)));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out, a->x));
    return q->dev->ops.gelu(q, a);
}

kvcl_status kvcl_op_selftest(kvcl_queue *q, const kvcl_selftest_args *a)
{
    KVCL_TRY(kvcl_check_view(q, "selftest", "out", a->out, KVCL_SELFTEST_N * KVCL_SELFTEST_WORDS,
                             sizeof(uint32_t)));
    return q->dev->ops.selftest(q, a);
}
