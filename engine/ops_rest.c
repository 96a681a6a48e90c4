/* ops_rest.c - sizes and costs of pages at rest; the only validation of their operations'
 * arguments, then the table call. */
#include "ops_rest.h"

#include "ops_check.h"
#include "rans_model.h"
#include "shared.h"

/* ---- sizes --------------------------------------------------------------------------------- */

size_t kvcl_rest_cost_bytes(void) { return (size_t)KVCL_RANS_MODELS * 256 * sizeof(uint16_t); }

void kvcl_rest_cost_fill(const uint32_t *table, uint16_t *costs)
{
    for (uint32_t model = 0; model < KVCL_RANS_MODELS; model++)
        for (uint32_t v = 0; v < 256; v++) {
            uint32_t hist[256] = {0};
            hist[v] = 1;
            costs[model * 256 + v] = (uint16_t)((kvcl_rans_cost(table, model, hist) + 127) / 128);
        }
}

/* Bits, in 1/512, less what states lose at their ends. */
static uint64_t room(size_t bytes, uint32_t ends)
{
    uint64_t bits = 8 * (uint64_t)bytes, head = 8 * KVCL_RANS_LEAST + ends;
    return bits > head ? 512 * (bits - head) : 0;
}

uint32_t kvcl_rest_budget(size_t bytes)
{
    return (uint32_t)kvcl_min_size(room(bytes, 40) * 80 / 81, UINT32_MAX);
}

uint32_t kvcl_rest_hope(size_t bytes)
{
    uint64_t n = room(bytes, 0);
    return n ? (uint32_t)kvcl_min_size((n + (uint64_t)512 * 650) * 333 / 334, UINT32_MAX) : 0;
}

/* ---- operations ---------------------------------------------------------------------------- */

static kvcl_status check_shape(const kvcl_queue *q, const char *op, const kvcl_rest_shape *s)
{
    kvcl_ctx *ctx = q->dev->ctx;
    uint64_t n = (uint64_t)s->n_rows * s->n_cols;
    KVCL_CHECK(ctx, n && n <= KVCL_RANS_MAX_VALUES && s->n_cols % 4 == 0, KVCL_E_UNSUPPORTED,
               "%s: %u x %u values; want 4 to %u, rows of whole words", op, (unsigned)s->n_rows,
               (unsigned)s->n_cols, KVCL_RANS_MAX_VALUES);
    KVCL_CHECK(ctx, s->n_pages <= KVCL_MAX_PAGES, KVCL_E_UNSUPPORTED, "%s: %u pages", op,
               (unsigned)s->n_pages);
    KVCL_CHECK(ctx, s->n_parts && s->n_parts % 2 == 0 && s->n_rows % s->n_parts == 0, KVCL_E_ARG,
               "%s: %u rows in %u parts", op, (unsigned)s->n_rows, (unsigned)s->n_parts);
    uint32_t least = kvcl_rest_head(s) + KVCL_RANS_LEAST + 3;
    KVCL_CHECK(ctx, s->page_bytes % 4 == 0 && s->page_bytes >= least && s->page_bytes < 1u << 20,
               KVCL_E_ARG, "%s: pages of %u bytes; want a multiple of 4, %u to 2^20", op,
               (unsigned)s->page_bytes, (unsigned)least);
    return KVCL_OK;
}

/* The pool by contract of the table: at least one page. */
static kvcl_status check_pool(const kvcl_queue *q, const char *op, const kvcl_rest_shape *s,
                              kvcl_view pool, kvcl_view table)
{
    KVCL_TRY(check_shape(q, op, s));
    KVCL_TRY(kvcl_check_view(q, op, "pool", pool, s->page_bytes / 4, sizeof(uint32_t)));
    return kvcl_check_view(q, op, "pool table", table, s->n_pages, sizeof(int32_t));
}

/* No view of `outs` shares a byte with one of `in` or another of them. */
static kvcl_status check_outs(const kvcl_queue *q, const char *op, const kvcl_view *outs,
                              size_t n_outs, const kvcl_view *in, size_t n_in)
{
    for (size_t i = 0; i < n_outs; i++) {
        KVCL_TRY(kvcl_check_apart_of(q, op, outs[i], in, n_in));
        KVCL_TRY(kvcl_check_apart_of(q, op, outs[i], outs + i + 1, n_outs - i - 1));
    }
    return KVCL_OK;
}

kvcl_status kvcl_op_rest_quant(kvcl_queue *q, const kvcl_rest_quant_args *a)
{
    static const char op[] = "rest_quant";
    const kvcl_rest_shape *s = &a->shape;
    uint64_t rows = (uint64_t)s->n_pages * s->n_rows, n = rows * s->n_cols;
    if (s->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_shape(q, op, s));
    KVCL_CHECK(q->dev->ctx, a->fold && a->fold * s->n_cols == 4 * KVCL_PAGE_TOKENS, KVCL_E_ARG,
               "%s: rows of %u values for slots of %u tokens", op, (unsigned)s->n_cols,
               (unsigned)a->fold);
    KVCL_CHECK(q->dev->ctx, a->round >= 0.0f && a->round <= 0.5f, KVCL_E_ARG,
               "%s: rounds up from %g; want 0 to .5", op, (double)(1.0f - a->round));
    KVCL_TRY(kvcl_check_view(q, op, "coefs", a->coefs, n, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "scales", a->scales, s->n_rows, sizeof(int16_t)));
    KVCL_TRY(kvcl_check_view(q, op, "costs", a->costs, kvcl_rest_cost_bytes() / 2, 2));
    KVCL_TRY(kvcl_check_view(q, op, "values", a->values, n, 1));
    KVCL_TRY(kvcl_check_view(q, op, "models", a->models, rows, 1));
    KVCL_TRY(kvcl_check_view(q, op, "gains", a->gains, (uint64_t)s->n_pages * s->n_parts, 1));
    KVCL_TRY(kvcl_check_view(q, op, "rungs", a->rungs, s->n_pages, sizeof(uint32_t)));
    if (a->used.buf)
        KVCL_TRY(kvcl_check_view(q, op, "used", a->used, s->n_pages, sizeof(uint32_t)));
    const kvcl_view outs[] = {a->values, a->models, a->gains, a->rungs};
    const kvcl_view in[] = {a->coefs, a->scales, a->costs, a->used};
    KVCL_TRY(check_outs(q, op, outs, 4, in, a->used.buf ? 4 : 3));
    return q->dev->ops.rest_quant(q, a);
}

kvcl_status kvcl_op_rest_store(kvcl_queue *q, const kvcl_rest_store_args *a)
{
    static const char op[] = "rest_store";
    const kvcl_rest_shape *s = &a->shape;
    if (s->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_pool(q, op, s, a->pool, a->pool_table));
    KVCL_CHECK(q->dev->ctx, a->n_heads, KVCL_E_ARG, "%s: no heads", op);
    KVCL_TRY(kvcl_check_view(q, op, "streams", a->streams,
                             (uint64_t)s->n_pages * kvcl_rest_room(s) / 4, 4));
    KVCL_TRY(kvcl_check_view(q, op, "used", a->used, s->n_pages, sizeof(uint32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "rungs", a->rungs, s->n_pages, sizeof(uint32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "gains", a->gains, (uint64_t)s->n_pages * s->n_parts, 1));
    KVCL_TRY(
        kvcl_check_view(q, op, "bad", a->bad, (uint64_t)s->n_pages * a->n_heads, sizeof(int32_t)));
    const kvcl_view outs[] = {a->pool, a->bad};
    const kvcl_view in[] = {a->streams, a->used, a->rungs, a->gains, a->pool_table};
    KVCL_TRY(check_outs(q, op, outs, 2, in, 5));
    return q->dev->ops.rest_store(q, a);
}

kvcl_status kvcl_op_rest_open(kvcl_queue *q, const kvcl_rest_open_args *a)
{
    static const char op[] = "rest_open";
    const kvcl_rest_shape *s = &a->shape;
    if (s->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_pool(q, op, s, a->pool, a->pool_table));
    KVCL_TRY(kvcl_check_view(q, op, "scales", a->scales, s->n_rows, sizeof(int16_t)));
    KVCL_TRY(
        kvcl_check_view(q, op, "places", a->places, 2 * (uint64_t)s->n_pages, sizeof(uint32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "models", a->models, (uint64_t)s->n_pages * s->n_rows, 1));
    const kvcl_view outs[] = {a->places, a->models}, in[] = {a->pool, a->pool_table, a->scales};
    KVCL_TRY(check_outs(q, op, outs, 2, in, 3));
    return q->dev->ops.rest_open(q, a);
}

kvcl_status kvcl_op_rest_norms(kvcl_queue *q, const kvcl_rest_norms_args *a)
{
    static const char op[] = "rest_norms";
    const kvcl_rest_shape *s = &a->shape;
    uint64_t used = ((uint64_t)s->n_rows + s->n_parts / 2) * s->n_cols;
    if (s->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_pool(q, op, s, a->pool, a->pool_table));
    KVCL_CHECK(q->dev->ctx, a->stride_bytes % 2 == 0 && a->stride_bytes >= used, KVCL_E_ARG,
               "%s: pages of %u bytes for %u of values and norms", op, (unsigned)a->stride_bytes,
               (unsigned)used);
    KVCL_TRY(kvcl_check_view(q, op, "bad", a->bad, s->n_pages, sizeof(uint32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "out", a->out,
                             ((uint64_t)(s->n_pages - 1) * a->stride_bytes + used) / 2, 2));
    KVCL_TRY(kvcl_check_view(q, op, "fault", a->fault, 1, sizeof(uint32_t)));
    const kvcl_view outs[] = {a->out, a->fault}, in[] = {a->pool, a->pool_table, a->bad};
    KVCL_TRY(check_outs(q, op, outs, 2, in, 3));
    return q->dev->ops.rest_norms(q, a);
}
