/* ops_pack.c - the only validation of the entropy coder's arguments, then the table call. */
#include "ops_check.h"
#include "shared.h"

#define MAX_PAGES (1u << 18)

/* True when there is nothing to do. */
static bool empty(const kvcl_rans_shape *s) { return s->n_pages == 0; }

static kvcl_status check_shape(const kvcl_queue *q, const char *op, const kvcl_rans_shape *s,
                               kvcl_view values, kvcl_view models, kvcl_view table)
{
    kvcl_ctx *ctx = q->dev->ctx;
    uint64_t n = (uint64_t)s->n_rows * s->n_cols;
    KVCL_CHECK(ctx, n && n <= KVCL_RANS_MAX_VALUES, KVCL_E_UNSUPPORTED,
               "%s: %u x %u values; want 1 to %u", op, (unsigned)s->n_rows, (unsigned)s->n_cols,
               KVCL_RANS_MAX_VALUES);
    KVCL_CHECK(ctx, s->n_pages <= MAX_PAGES, KVCL_E_UNSUPPORTED, "%s: %u pages; want at most %u",
               op, (unsigned)s->n_pages, MAX_PAGES);
    KVCL_CHECK(ctx, s->model_stride == 0 || s->model_stride >= s->n_rows, KVCL_E_ARG,
               "%s: models %u apart for %u rows", op, (unsigned)s->model_stride,
               (unsigned)s->n_rows);
    KVCL_CHECK(ctx, kvcl_rans_stride(s) >= n, KVCL_E_ARG, "%s: values %u apart for %u of a page",
               op, (unsigned)s->value_stride, (unsigned)n);
    uint64_t n_models = (uint64_t)(s->n_pages - 1) * s->model_stride + s->n_rows;
    KVCL_TRY(kvcl_check_view(q, op, "values", values,
                             (uint64_t)(s->n_pages - 1) * kvcl_rans_stride(s) + n, 1));
    KVCL_TRY(kvcl_check_view(q, op, "models", models, n_models, 1));
    return kvcl_check_view(q, op, "table", table, KVCL_RANS_MODELS * KVCL_RANS_WORDS,
                           sizeof(uint32_t));
}

kvcl_status kvcl_op_rans_enc(kvcl_queue *q, const kvcl_rans_enc_args *a)
{
    static const char op[] = "rans_enc";
    if (empty(&a->shape))
        return KVCL_OK;
    KVCL_TRY(check_shape(q, op, &a->shape, a->values, a->models, a->table));
    KVCL_CHECK(q->dev->ctx, a->slot_bytes % 4 == 0 && a->slot_bytes >= KVCL_RANS_LEAST, KVCL_E_ARG,
               "%s: slots of %u bytes; want a multiple of 4, at least %u", op,
               (unsigned)a->slot_bytes, KVCL_RANS_LEAST + 3);
    KVCL_TRY(kvcl_check_view(q, op, "streams", a->streams,
                             (uint64_t)a->shape.n_pages * a->slot_bytes / 4, 4));
    KVCL_TRY(kvcl_check_view(q, op, "used", a->used, a->shape.n_pages, sizeof(uint32_t)));
    const kvcl_view inputs[] = {a->values, a->models, a->table};
    for (size_t i = 0; i < kvcl_array_len(inputs); i++) {
        KVCL_TRY(kvcl_check_apart(q, op, a->streams, inputs[i]));
        KVCL_TRY(kvcl_check_apart(q, op, a->used, inputs[i]));
    }
    KVCL_TRY(kvcl_check_apart(q, op, a->used, a->streams));
    return q->dev->ops.rans_enc(q, a);
}

kvcl_status kvcl_op_rans_dec(kvcl_queue *q, const kvcl_rans_dec_args *a)
{
    static const char op[] = "rans_dec";
    if (empty(&a->shape))
        return KVCL_OK;
    KVCL_TRY(check_shape(q, op, &a->shape, a->values, a->models, a->table));
    KVCL_TRY(kvcl_check_view(q, op, "streams", a->streams, 1, 4));
    KVCL_TRY(kvcl_check_view(q, op, "places", a->places, 2 * (uint64_t)a->shape.n_pages,
                             sizeof(uint32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "bad", a->bad, a->shape.n_pages, sizeof(uint32_t)));
    const kvcl_view inputs[] = {a->streams, a->places, a->models, a->table};
    for (size_t i = 0; i < kvcl_array_len(inputs); i++) {
        KVCL_TRY(kvcl_check_apart(q, op, a->values, inputs[i]));
        KVCL_TRY(kvcl_check_apart(q, op, a->bad, inputs[i]));
    }
    KVCL_TRY(kvcl_check_apart(q, op, a->bad, a->values));
    return q->dev->ops.rans_dec(q, a);
}
