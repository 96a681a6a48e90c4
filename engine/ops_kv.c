/* ops_kv.c - the only validation of the cache operations' arguments, then the table call. */
#include "ops_check.h"
#include "types.h"

kvcl_status kvcl_op_rope_store(kvcl_queue *q, const kvcl_rope_store_args *a)
{
    static const char op[] = "rope_store";
    kvcl_ctx *ctx = q->dev->ctx;
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_heads(q, op, a->n_q_heads, a->n_kv_heads, a->head_dim, a->pos0, a->n));
    uint32_t width = (a->n_q_heads + 2 * a->n_kv_heads) * a->head_dim;
    KVCL_TRY(kvcl_check_rows(q, op, "qkv", a->qkv, a->n, width, a->qkv_stride));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, a->n_kv_heads, a->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, a->n_kv_heads, a->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_CHECK(ctx,
               a->pos0 / KVCL_PAGE_TOKENS >= a->first_page &&
                   (a->pos0 + a->n - 1) / KVCL_PAGE_TOKENS - a->first_page < a->n_pages,
               KVCL_E_ARG, "%s: positions outside the pages given", op);
    KVCL_CHECK(ctx, (unsigned)a->pairing <= KVCL_ROPE_HALVES, KVCL_E_ARG, "%s: pairing %d", op,
               (int)a->pairing);
    if (a->pairing != KVCL_ROPE_NONE) {
        KVCL_CHECK(ctx, a->n_rot && a->n_rot % 2 == 0 && a->n_rot <= a->head_dim, KVCL_E_ARG,
                   "%s: %u rotated dimensions of %u", op, (unsigned)a->n_rot,
                   (unsigned)a->head_dim);
        KVCL_TRY(kvcl_check_view(q, op, "rope table", a->table,
                                 (uint64_t)(a->pos0 + a->n) * a->n_rot, sizeof(float)));
    }
    KVCL_TRY(kvcl_check_apart(q, op, a->k, a->qkv));
    KVCL_TRY(kvcl_check_apart(q, op, a->v, a->qkv));
    KVCL_TRY(kvcl_check_apart(q, op, a->k, a->v));
    if (a->ku.buf) {
        KVCL_TRY(kvcl_check_raw_pool(q, op, "ku", a->ku, a->type_ku, a->n_kv_heads, a->head_dim));
        KVCL_TRY(kvcl_check_apart(q, op, a->ku, a->qkv));
        KVCL_TRY(kvcl_check_apart(q, op, a->ku, a->k));
        KVCL_TRY(kvcl_check_apart(q, op, a->ku, a->v));
    }
    return q->dev->ops.rope_store(q, a);
}

kvcl_status kvcl_op_attn_raw(kvcl_queue *q, const kvcl_attn_raw_args *a)
{
    static const char op[] = "attn_raw";
    const kvcl_attn_in *in = &a->in;
    if (kvcl_attn_in_empty(in))
        return KVCL_OK;
    KVCL_TRY(kvcl_check_attn_in(q, op, in));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, in->n_kv_heads, in->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, in->n_kv_heads, in->head_dim));
    KVCL_TRY(kvcl_check_apart(q, op, in->ml, a->k));
    KVCL_TRY(kvcl_check_apart(q, op, in->ml, a->v));
    KVCL_TRY(kvcl_check_apart(q, op, in->o, a->k));
    KVCL_TRY(kvcl_check_apart(q, op, in->o, a->v));
    return q->dev->ops.attn_raw(q, a);
}

kvcl_status kvcl_op_attn_merge(kvcl_queue *q, const kvcl_attn_merge_args *a)
{
    static const char op[] = "attn_merge";
    kvcl_ctx *ctx = q->dev->ctx;
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_heads(q, op, a->n_q_heads, a->n_q_heads, a->head_dim, a->pos0, a->n));
    KVCL_CHECK(ctx, a->last_begin <= a->pos0, KVCL_E_ARG,
               "%s: the last region begins at %u, behind query %u", op, (unsigned)a->last_begin,
               (unsigned)a->pos0);
    uint64_t partials = (uint64_t)a->n * a->n_q_heads * a->n_parts;
    uint32_t last =
        (a->pos0 + a->n - 1) / KVCL_BLOCK_TOKENS - a->last_begin / KVCL_BLOCK_TOKENS + 1;
    KVCL_CHECK(ctx,
               a->n_parts <= KVCL_MAX_TOKENS && last <= a->n_parts &&
                   a->n_before <= a->n_parts - last,
               KVCL_E_ARG, "%s: %u partials before and %u of the last region, of %u partials", op,
               (unsigned)a->n_before, (unsigned)last, (unsigned)a->n_parts);
    KVCL_TRY(kvcl_check_view(q, op, "ml", a->ml, 2 * partials, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "o", a->o, partials * a->head_dim, sizeof(float)));
    KVCL_TRY(
        kvcl_check_rows(q, op, "out", a->out, a->n, a->n_q_heads * a->head_dim, a->out_stride));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->ml));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->o));
    return q->dev->ops.attn_merge(q, a);
}

/* ---- sums and errors of raw pages ---------------------------------------------------------- */

static kvcl_status check_raw_pages(const kvcl_queue *q, const char *op, uint32_t n_pages,
                                   uint32_t n_skip, uint32_t n_kv_heads, uint32_t head_dim)
{
    KVCL_TRY(kvcl_check_heads(q, op, n_kv_heads, n_kv_heads, head_dim, 0, 0));
    KVCL_CHECK(q->dev->ctx, n_pages <= KVCL_MAX_TOKENS / KVCL_PAGE_TOKENS, KVCL_E_UNSUPPORTED,
               "%s: %u pages; want at most %u", op, (unsigned)n_pages,
               KVCL_MAX_TOKENS / KVCL_PAGE_TOKENS);
    KVCL_CHECK(q->dev->ctx, n_skip < KVCL_PAGE_TOKENS, KVCL_E_ARG,
               "%s: %u tokens of a page left out; want less than %d", op, (unsigned)n_skip,
               KVCL_PAGE_TOKENS);
    return KVCL_OK;
}

kvcl_status kvcl_op_kv_sum(kvcl_queue *q, const kvcl_kv_sum_args *a)
{
    static const char op[] = "kv_sum";
    uint32_t Hk = a->n_kv_heads, D = a->head_dim;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_raw_pages(q, op, a->n_pages, a->n_skip, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, Hk, D));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "sums", a->sums, 2 * (uint64_t)Hk * D, sizeof(float)));
    KVCL_TRY(kvcl_check_apart(q, op, a->sums, a->k));
    KVCL_TRY(kvcl_check_apart(q, op, a->sums, a->v));
    KVCL_TRY(kvcl_check_apart(q, op, a->sums, a->page_table));
    return q->dev->ops.kv_sum(q, a);
}

kvcl_status kvcl_op_kv_mean(kvcl_queue *q, const kvcl_kv_mean_args *a)
{
    static const char op[] = "kv_mean";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_view(q, op, "sums", a->sums, a->n, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "mean", a->mean, a->n, sizeof(float)));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->mean, a->sums));
    return q->dev->ops.kv_mean(q, a);
}

kvcl_status kvcl_op_kv_error(kvcl_queue *q, const kvcl_kv_error_args *a)
{
    static const char op[] = "kv_error";
    uint32_t Hk = a->n_kv_heads, D = a->head_dim;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_raw_pages(q, op, a->n_pages, a->n_skip, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "ka", a->ka, a->type_ka, Hk, D));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "va", a->va, a->type_va, Hk, D));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "page table of the approximation", a->page_table_a, a->n_pages,
                             sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "err", a->err, (uint64_t)a->n_pages * Hk * 4, sizeof(float)));
    const kvcl_view in[] = {a->k, a->v, a->ka, a->va, a->page_table, a->page_table_a};
    for (size_t i = 0; i < kvcl_array_len(in); i++)
        KVCL_TRY(kvcl_check_apart(q, op, a->err, in[i]));
    return q->dev->ops.kv_error(q, a);
}
