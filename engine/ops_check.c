/* ops_check.c - what the operations on pages check alike. */
#include "ops_check.h"
#include "shared.h"

kvcl_status kvcl_check_heads(const kvcl_queue *q, const char *op, uint32_t n_q_heads,
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
               "%s: position %u + %u; want at most %u", op, (unsigned)pos0, (unsigned)n,
               KVCL_MAX_TOKENS);
    return KVCL_OK;
}

kvcl_status kvcl_check_raw_pool(const kvcl_queue *q, const char *op, const char *what,
                                kvcl_view pool, kvcl_type type, uint32_t n_kv_heads,
                                uint32_t head_dim)
{
    KVCL_CHECK(q->dev->ctx, type == KVCL_F16 || type == KVCL_F32, KVCL_E_UNSUPPORTED,
               "%s: %s type %d; want F16 or F32", op, what, (int)type);
    return kvcl_check_view(q, op, what, pool, (uint64_t)n_kv_heads * head_dim * KVCL_PAGE_TOKENS,
                           type == KVCL_F16 ? 2 : 4);
}

kvcl_status kvcl_check_attn_in(const kvcl_queue *q, const char *op, const kvcl_attn_in *in)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_TRY(kvcl_check_heads(q, op, in->n_q_heads, in->n_kv_heads, in->head_dim, in->pos0, in->n));
    KVCL_CHECK(ctx, in->begin < in->end && in->end <= KVCL_MAX_TOKENS, KVCL_E_ARG,
               "%s: a region from %u to %u; want at most %u tokens", op, (unsigned)in->begin,
               (unsigned)in->end, KVCL_MAX_TOKENS);
    uint32_t n_pages = (in->end - 1) / KVCL_PAGE_TOKENS - in->begin / KVCL_PAGE_TOKENS + 1;
    uint32_t n_blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    KVCL_CHECK(ctx, n_blocks <= in->n_parts && in->first_part <= in->n_parts - n_blocks, KVCL_E_ARG,
               "%s: %u blocks from partial %u on, of %u partials", op, (unsigned)n_blocks,
               (unsigned)in->first_part, (unsigned)in->n_parts);
    KVCL_CHECK(ctx, in->n_parts <= KVCL_MAX_TOKENS, KVCL_E_ARG, "%s: %u partials; want at most %u",
               op, (unsigned)in->n_parts, KVCL_MAX_TOKENS);
    uint64_t partials = (uint64_t)in->n * in->n_q_heads * in->n_parts;
    KVCL_TRY(kvcl_check_rows(q, op, "q", in->q, in->n, in->n_q_heads * in->head_dim, in->q_stride));
    KVCL_TRY(kvcl_check_view(q, op, "page table", in->page_table, n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "ml", in->ml, 2 * partials, sizeof(float)));
    KVCL_TRY(kvcl_check_view(q, op, "o", in->o, partials * in->head_dim, sizeof(float)));
    KVCL_TRY(kvcl_check_apart(q, op, in->ml, in->q));
    KVCL_TRY(kvcl_check_apart(q, op, in->o, in->q));
    KVCL_TRY(kvcl_check_apart(q, op, in->ml, in->page_table));
    KVCL_TRY(kvcl_check_apart(q, op, in->o, in->page_table));
    return kvcl_check_apart(q, op, in->o, in->ml);
}

kvcl_status kvcl_check_attn_coded(const kvcl_queue *q, const char *op, const kvcl_attn_in *in,
                                  uint32_t n_kv_heads, uint32_t head_dim)
{
    KVCL_TRY(kvcl_check_attn_in(q, op, in));
    KVCL_CHECK(q->dev->ctx, n_kv_heads == in->n_kv_heads && head_dim == in->head_dim, KVCL_E_ARG,
               "%s: pages of %u heads of %u, queries for %u of %u", op, (unsigned)n_kv_heads,
               (unsigned)head_dim, (unsigned)in->n_kv_heads, (unsigned)in->head_dim);
    return KVCL_OK;
}

/* ---- coded pages --------------------------------------------------------------------------- */

kvcl_status kvcl_check_coded(kvcl_ctx *ctx, const char *op, uint32_t n_kv_heads, uint32_t head_dim)
{
    KVCL_CHECK(ctx, n_kv_heads >= 1 && n_kv_heads <= 1024, KVCL_E_UNSUPPORTED,
               "%s: %u kv heads; want 1 to 1024", op, (unsigned)n_kv_heads);
    KVCL_CHECK(ctx, head_dim && head_dim % 32 == 0 && head_dim <= KVCL_MAX_HEAD_DIM,
               KVCL_E_UNSUPPORTED, "%s: head dimension %u; want a multiple of 32, at most %u", op,
               (unsigned)head_dim, KVCL_MAX_HEAD_DIM);
    return KVCL_OK;
}

kvcl_status kvcl_check_pages(const kvcl_queue *q, const char *op, uint32_t first, uint32_t n)
{
    KVCL_CHECK(q->dev->ctx, n <= KVCL_MAX_PAGES && first <= KVCL_MAX_PAGES - n, KVCL_E_UNSUPPORTED,
               "%s: pages %u + %u; want at most %u", op, (unsigned)first, (unsigned)n,
               KVCL_MAX_PAGES);
    return KVCL_OK;
}

kvcl_status kvcl_check_means(const kvcl_queue *q, const char *op, kvcl_view means,
                             uint32_t n_kv_heads, uint32_t head_dim, uint32_t last_page)
{
    uint64_t n_epochs = kvcl_mean_epoch(last_page / KVCL_BLOCK_PAGES) + 1;
    return kvcl_check_view(q, op, "means", means, n_epochs * 2 * n_kv_heads * head_dim,
                           sizeof(float));
}

kvcl_status kvcl_check_turning(const kvcl_queue *q, const char *op, uint32_t head_dim,
                               kvcl_rope_pairing pairing, uint32_t n_rot, kvcl_view table,
                               uint32_t n_rows)
{
    kvcl_ctx *ctx = q->dev->ctx;
    KVCL_CHECK(ctx, (unsigned)pairing <= KVCL_ROPE_HALVES, KVCL_E_ARG, "%s: pairing %d", op,
               (int)pairing);
    if (pairing == KVCL_ROPE_NONE)
        return KVCL_OK;
    KVCL_CHECK(ctx, n_rot && n_rot % 2 == 0 && n_rot <= head_dim, KVCL_E_ARG,
               "%s: %u rotated dimensions of %u", op, (unsigned)n_rot, (unsigned)head_dim);
    return kvcl_check_view(q, op, "rope table", table, (uint64_t)n_rows * n_rot, sizeof(float));
}

kvcl_status kvcl_check_apart_of(const kvcl_queue *q, const char *op, kvcl_view out,
                                const kvcl_view *others, size_t n)
{
    for (size_t i = 0; i < n; i++)
        KVCL_TRY(kvcl_check_apart(q, op, out, others[i]));
    return KVCL_OK;
}
