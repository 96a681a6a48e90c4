/* ops_svd.c - the only validation of the decomposition's arguments, then the table call. */
#include "ops_check.h"
#include "shared.h"

#define MAX_ROWS (1u << 20)
#define MAX_POWER 64u
#define ALIGN_BYTES 256u /* a backend starts there, wherever the view does */

kvcl_svd_layout kvcl_svd_layout_of(uint32_t cols, uint32_t l)
{
    kvcl_svd_layout m = {.l = l, .np = (cols + 15) / 16 * 16, .ls = (l + 15) / 16 * 16};
    const size_t square = (size_t)m.ls * m.ls, sketch = (size_t)m.ls * m.np;
    m.z = m.g + (size_t)m.np * m.np;
    m.h = m.z + sketch;
    m.c = m.h + sketch;
    m.w = m.c + square;
    m.x = m.w + square;
    m.meta = m.x + square;
    m.floats = m.meta + KVCL_SVD_META;
    return m;
}

size_t kvcl_rsvd_scratch_bytes(uint32_t n, uint32_t rows, uint32_t cols, uint32_t l)
{
    const kvcl_svd_layout m = kvcl_svd_layout_of(cols, l);
    return n * ((size_t)rows * m.ls + m.floats) * sizeof(float) + ALIGN_BYTES;
}

static kvcl_status check_sizes(const kvcl_queue *q, const char *op, const kvcl_rsvd_args *a)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_CHECK(ctx, a->n <= 65536, KVCL_E_UNSUPPORTED, "%s: %u matrices; want at most 65536", op,
               (unsigned)a->n);
    KVCL_CHECK(ctx, a->rows >= 1 && a->rows <= MAX_ROWS, KVCL_E_UNSUPPORTED,
               "%s: %u rows; want 1 to %u", op, (unsigned)a->rows, MAX_ROWS);
    KVCL_CHECK(ctx, a->cols >= 1 && a->cols <= KVCL_SVD_MAX_COLS, KVCL_E_UNSUPPORTED,
               "%s: %u columns; want 1 to %u", op, (unsigned)a->cols, KVCL_SVD_MAX_COLS);
    uint32_t most = kvcl_min_u32(a->cols, KVCL_SVD_MAX_SKETCH);
    KVCL_CHECK(ctx, a->rank >= 1 && a->rank <= most && a->oversample <= most - a->rank,
               KVCL_E_UNSUPPORTED, "%s: rank %u and %u more; want 1 to %u together", op,
               (unsigned)a->rank, (unsigned)a->oversample, (unsigned)most);
    KVCL_CHECK(ctx, a->power <= MAX_POWER, KVCL_E_UNSUPPORTED,
               "%s: %u power iterations; want at most %u", op, (unsigned)a->power, MAX_POWER);
    return KVCL_OK;
}

kvcl_status kvcl_op_rsvd(kvcl_queue *q, const kvcl_rsvd_args *a)
{
    static const char op[] = "rsvd";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(check_sizes(q, op, a));
    const uint64_t n = a->n, rows = a->rows, cols = a->cols, rank = a->rank;
    KVCL_TRY(kvcl_check_view(q, op, "a", a->a, n * rows * cols, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "ids", a->ids, n * 3, sizeof(uint32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "u", a->u, n * rows * rank, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "s", a->s, n * rank, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "v", a->v, n * cols * rank, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "bad", a->bad, n, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(
        q, op, "scratch", a->scratch,
        kvcl_rsvd_scratch_bytes(a->n, a->rows, a->cols, a->rank + a->oversample) / sizeof(float),
        sizeof(float)));
    const kvcl_view all[] = {a->a, a->ids, a->u, a->s, a->v, a->bad, a->scratch};
    for (size_t i = 2; i < kvcl_array_len(all); i++)
        for (size_t j = 0; j < i; j++)
            KVCL_TRY(kvcl_check_apart(q, op, all[i], all[j]));
    return q->dev->ops.rsvd(q, a);
}
