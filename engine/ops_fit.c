/* ops_fit.c - the only validation of the fit's operations' arguments, then the table call. */
#include "ops_check.h"

static uint64_t square(uint32_t head_dim) { return (uint64_t)head_dim * head_dim; }

kvcl_status kvcl_op_gram_pages(kvcl_queue *q, const kvcl_gram_pages_args *a)
{
    static const char op[] = "gram_pages";
    kvcl_ctx *ctx = q->dev->ctx;
    uint32_t Hk = a->n_kv_heads, D = a->head_dim;
    if (a->n_tokens == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_heads(q, op, Hk, Hk, D, 0, a->n_tokens));
    KVCL_CHECK(ctx, a->fold && a->fold <= KVCL_MAX_FOLD && (a->fold & (a->fold - 1)) == 0,
               KVCL_E_UNSUPPORTED, "%s: slots of %u tokens; want 1, 2, 4 or 8", op,
               (unsigned)a->fold);
    KVCL_CHECK(ctx, a->n_skip < KVCL_PAGE_TOKENS, KVCL_E_ARG,
               "%s: %u tokens left out; want less than %d", op, (unsigned)a->n_skip,
               KVCL_PAGE_TOKENS);
    KVCL_CHECK(ctx, a->join <= 1 || D % a->join == 0, KVCL_E_ARG,
               "%s: %u heads joined to %u dimensions", op, (unsigned)a->join, (unsigned)D);
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, Hk, D));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table,
                             kvcl_div_up(a->n_tokens, KVCL_PAGE_TOKENS), sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "mean", a->mean, 2 * (uint64_t)Hk * D, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "gram", a->gram, 2 * (uint64_t)Hk * a->fold * square(D),
                             sizeof(float)));
    const kvcl_view in[] = {a->k, a->v, a->page_table, a->mean};
    for (size_t i = 0; i < kvcl_array_len(in); i++)
        KVCL_TRY(kvcl_check_apart(q, op, a->gram, in[i]));
    return q->dev->ops.gram_pages(q, a);
}

kvcl_status kvcl_op_gram_rows(kvcl_queue *q, const kvcl_gram_rows_args *a)
{
    static const char op[] = "gram_rows";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_heads(q, op, a->n_q_heads, a->n_kv_heads, a->head_dim, 0, a->n));
    KVCL_TRY(kvcl_check_rows(q, op, "x", a->x, a->n, a->n_q_heads * a->head_dim, a->stride));
    KVCL_TRY(kvcl_check_view(q, op, "gram", a->gram, a->n_kv_heads * square(a->head_dim),
                             sizeof(float)));
    KVCL_TRY(kvcl_check_apart(q, op, a->gram, a->x));
    return q->dev->ops.gram_rows(q, a);
}
