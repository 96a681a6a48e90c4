/* ops_kv.c - the only validation of the cache operations' arguments, then the table call. */
#include "ops_check.h"
#include "types.h"

#define KVCL_MAX_HEAD_DIM 256u
#define KVCL_MAX_TOKENS (1u << 24) /* positions: keeps every index of a page inside 32 bits */

/* Head counts and dimension, page types, positions. */
static kvcl_status check_shape(const kvcl_queue *q, const char *op, uint32_t n_q_heads,
                               uint32_t n_kv_heads, uint32_t head_dim, uint32_t pos0, uint32_t n)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_CHECK(ctx, n_kv_heads && n_q_heads && n_q_heads % n_kv_heads == 0 && n_q_heads <= 1024,
               KVCL_E_UNSUPPORTED, "%s: %u query heads on %u kv heads", op, (unsigned)n_q_heads,
               (unsigned)n_kv_heads);
    KVCL_CHECK(ctx, head_dim && head_dim % 8 == 0 && head_dim <= KVCL_MAX_HEAD_DIM,
               KVCL_E_UNSUPPORTED, "%s: head dimension %u; want a multiple of 8, at most %u", op,
               (unsigned)head_dim, KVCL_MAX_HEAD_DIM);
    KVCL_CHECK(ctx, n <= KVCL_MAX_TOKENS && pos0 <= KVCL_MAX_TOKENS - n, KVCL_E_UNSUPPORTED,
               "%s: position %u + %u", op, (unsigned)pos0, (unsigned)n);
    return KVCL_OK;
}

/* The pools hold the slots by contract of the page table; here: types and at least one page. */
static kvcl_status check_pool(const kvcl_queue *q, const char *op, const char *what, kvcl_view pool,
                              kvcl_type type, size_t page_elems)
{
    KVCL_CHECK(q->dev->ctx, type == KVCL_F16 || type == KVCL_F32, KVCL_E_UNSUPPORTED,
               "%s: %s type %d; want F16 or F32", op, what, (int)type);
    return kvcl_check_view(q, op, what, pool, page_elems, type == KVCL_F16 ? 2 : 4);
}

kvcl_status kvcl_op_rope_store(kvcl_queue *q, const kvcl_rope_store_args *a)
{
    static const char op[] = "rope_store";
    kvcl_ctx *ctx = q->dev->ctx;
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(check_shape(q, op, a->n_q_heads, a->n_kv_heads, a->head_dim, a->pos0, a->n));
    size_t page_elems = (size_t)a->n_kv_heads * a->head_dim * KVCL_PAGE_TOKENS;
    uint32_t width = (a->n_q_heads + 2 * a->n_kv_heads) * a->head_dim;
    KVCL_TRY(kvcl_check_rows(q, op, "qkv", a->qkv, a->n, width, a->qkv_stride));
    KVCL_TRY(check_pool(q, op, "k", a->k, a->type_k, page_elems));
    KVCL_TRY(check_pool(q, op, "v", a->v, a->type_v, page_elems));
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
    return q->dev->ops.rope_store(q, a);
}

kvcl_status kvcl_op_attn_raw(kvcl_queue *q, const kvcl_attn_raw_args *a)
{
    static const char op[] = "attn_raw";
    if (a->n == 0 || a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_shape(q, op, a->n_q_heads, a->n_kv_heads, a->head_dim, a->pos0, a->n));
    size_t page_elems = (size_t)a->n_kv_heads * a->head_dim * KVCL_PAGE_TOKENS;
    uint64_t partials = (uint64_t)a->n * a->n_q_heads * a->n_parts;
    KVCL_CHECK(q->dev->ctx, a->first_page <= a->n_parts && a->n_pages <= a->n_parts - a->first_page,
               KVCL_E_ARG, "%s: pages %u + %u beyond %u partials", op, (unsigned)a->first_page,
               (unsigned)a->n_pages, (unsigned)a->n_parts);
    KVCL_TRY(kvcl_check_rows(q, op, "q", a->q, a->n, a->n_q_heads * a->head_dim, a->q_stride));
    KVCL_TRY(check_pool(q, op, "k", a->k, a->type_k, page_elems));
    KVCL_TRY(check_pool(q, op, "v", a->v, a->type_v, page_elems));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "ml", a->ml, 2 * partials, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "o", a->o, partials * a->head_dim, sizeof(float)));
    KVCL_TRY(kvcl_check_apart(q, op, a->ml, a->q));
    KVCL_TRY(kvcl_check_apart(q, op, a->o, a->q));
    KVCL_TRY(kvcl_check_apart(q, op, a->o, a->ml));
    return q->dev->ops.attn_raw(q, a);
}

kvcl_status kvcl_op_attn_merge(kvcl_queue *q, const kvcl_attn_merge_args *a)
{
    static const char op[] = "attn_merge";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_TRY(check_shape(q, op, a->n_q_heads, a->n_q_heads, a->head_dim, a->pos0, a->n));
    uint64_t partials = (uint64_t)a->n * a->n_q_heads * a->n_parts;
    KVCL_CHECK(q->dev->ctx, (a->pos0 + a->n - 1) / KVCL_PAGE_TOKENS < a->n_parts, KVCL_E_ARG,
               "%s: position %u has more than %u partials", op, (unsigned)(a->pos0 + a->n - 1),
               (unsigned)a->n_parts);
    KVCL_TRY(kvcl_check_view(q, op, "ml", a->ml, 2 * partials, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "o", a->o, partials * a->head_dim, sizeof(float)));
    KVCL_TRY(
        kvcl_check_rows(q, op, "out", a->out, a->n, a->n_q_heads * a->head_dim, a->out_stride));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->ml));
    KVCL_TRY(kvcl_check_apart(q, op, a->out, a->o));
    return q->dev->ops.attn_merge(q, a);
}
