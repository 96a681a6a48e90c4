/* ops_holo.c - sizes and signs of superposed pages; the only validation of their operations'
 * arguments, then the table call. */
#include "ops_holo.h"

#include "ops_check.h"
#include "shared.h"
#include "types.h"

/* ---- sizes, signs -------------------------------------------------------------------------- */

size_t kvcl_holo_page_bytes(const kvcl_holo_shape *s, size_t parts_out[2])
{
    size_t row = kvcl_type_bytes(s->type, s->head_dim);
    for (uint32_t of_v = 0; of_v < 2; of_v++)
        parts_out[of_v] = s->n_kv_heads * (KVCL_PAGE_TOKENS / kvcl_holo_fold(s, of_v)) * row;
    return parts_out[0] + parts_out[1];
}

size_t kvcl_holo_basis_bytes(const kvcl_holo_shape *s)
{
    size_t n = kvcl_holo_components(s, false) + kvcl_holo_components(s, true);
    return s->form == KVCL_HOLO_SIGNS ? 0 : s->n_kv_heads * n * s->head_dim * 2;
}

bool kvcl_holo_commutes(const kvcl_holo_shape *s, kvcl_rope_pairing pairing, uint32_t n_rot)
{
    bool adjacent = pairing == KVCL_ROPE_ADJACENT;
    for (uint32_t i = 0; pairing != KVCL_ROPE_NONE && i < n_rot / 2; i++) {
        uint32_t a = adjacent ? 2 * i : i, b = adjacent ? a + 1 : a + n_rot / 2;
        for (uint32_t j = 0; j < s->fold; j++)
            if (kvcl_holo_minus(j, a / s->pair % s->fold) !=
                kvcl_holo_minus(j, b / s->pair % s->fold))
                return false;
    }
    return true;
}

/* ---- operations ---------------------------------------------------------------------------- */

/* The shape, a pool of at least one page, what is there of matrices and means. */
static kvcl_status check_holo(const kvcl_queue *q, const char *op, const kvcl_holo_shape *s,
                              kvcl_view pool, kvcl_view basis, kvcl_view means, uint32_t last_page)
{
    kvcl_ctx *ctx = q->dev->ctx;
    size_t parts[2], n_bases = s->by_block ? last_page / KVCL_BLOCK_PAGES + 1 : 1;
    KVCL_TRY(kvcl_check_coded(ctx, op, s->n_kv_heads, s->head_dim));
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        uint32_t fold = kvcl_holo_fold(s, of_v);
        KVCL_CHECK(ctx, fold == 2 || fold == 4 || fold == 8, KVCL_E_UNSUPPORTED,
                   "%s: %u tokens a slot; want 2, 4 or 8", op, (unsigned)fold);
    }
    KVCL_CHECK(ctx, kvcl_holo_fold(s, true) == s->fold || s->form == KVCL_HOLO_SIDE, KVCL_E_ARG,
               "%s: %u tokens a slot of keys, %u of values", op, (unsigned)s->fold,
               (unsigned)s->fold_v);
    KVCL_CHECK(ctx, s->pair == 1 || s->pair == 2, KVCL_E_ARG,
               "%s: signs of %u channels; want 1 or 2", op, (unsigned)s->pair);
    KVCL_CHECK(ctx, (unsigned)s->form <= KVCL_HOLO_SIDE, KVCL_E_ARG, "%s: form %d", op,
               (int)s->form);
    KVCL_CHECK(ctx, s->type == KVCL_F16 || s->type == KVCL_Q8_0, KVCL_E_UNSUPPORTED,
               "%s: slots of type %d; want F16 or Q8_0", op, (int)s->type);
    KVCL_TRY(kvcl_check_view(q, op, "pool", pool, kvcl_holo_page_bytes(s, parts) / 2, 2));
    KVCL_CHECK(ctx, (basis.buf != NULL) == (s->form != KVCL_HOLO_SIGNS), KVCL_E_ARG,
               "%s: basis: %s", op, basis.buf ? "unexpected" : "missing");
    if (basis.buf)
        KVCL_TRY(kvcl_check_view(q, op, "basis", basis, n_bases * kvcl_holo_basis_bytes(s) / 2, 2));
    if (means.buf)
        KVCL_TRY(kvcl_check_means(q, op, means, s->n_kv_heads, s->head_dim, last_page));
    return KVCL_OK;
}

kvcl_status kvcl_op_holo_enc(kvcl_queue *q, const kvcl_holo_enc_args *a)
{
    static const char op[] = "holo_enc";
    const kvcl_holo_shape *s = &a->shape;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, a->first_page, a->n_pages));
    KVCL_TRY(check_holo(q, op, s, a->pool, a->basis, a->means, a->first_page + a->n_pages - 1));
    KVCL_CHECK(q->dev->ctx, a->n_skip < KVCL_PAGE_TOKENS, KVCL_E_ARG,
               "%s: %u tokens left out of a page; want less than 64", op, (unsigned)a->n_skip);
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "bad", a->bad, (uint64_t)a->n_pages * s->n_kv_heads,
                             sizeof(int32_t)));
    const kvcl_view in[] = {a->k, a->v, a->page_table, a->pool_table, a->means, a->basis};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->pool, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->bad, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->bad, a->pool));
    return q->dev->ops.holo_enc(q, a);
}

kvcl_status kvcl_op_holo_dec(kvcl_queue *q, const kvcl_holo_dec_args *a)
{
    static const char op[] = "holo_dec";
    const kvcl_holo_shape *s = &a->shape;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, a->first_page, a->n_pages));
    KVCL_TRY(check_holo(q, op, s, a->pool, a->basis, a->means, a->first_page + a->n_pages - 1));
    if (a->table.buf)
        KVCL_TRY(kvcl_check_turning(q, op, s->head_dim, a->pairing, a->n_rot, a->table,
                                    (a->first_page + a->n_pages) * KVCL_PAGE_TOKENS));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    const kvcl_view in[] = {a->pool, a->page_table, a->pool_table, a->means, a->basis, a->table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->k, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->v, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->k, a->v));
    return q->dev->ops.holo_dec(q, a);
}

kvcl_status kvcl_op_attn_holo(kvcl_queue *q, const kvcl_attn_holo_args *a)
{
    static const char op[] = "attn_holo";
    const kvcl_holo_shape *s = &a->shape;
    if (kvcl_attn_in_empty(&a->in))
        return KVCL_OK;
    KVCL_TRY(kvcl_check_attn_coded(q, op, &a->in, s->n_kv_heads, s->head_dim));
    uint32_t last_page = (a->in.end - 1) / KVCL_PAGE_TOKENS;
    KVCL_TRY(check_holo(q, op, s, a->pool, a->basis, a->means, last_page));
    if (a->table.buf)
        KVCL_TRY(kvcl_check_turning(q, op, s->head_dim, a->pairing, a->n_rot, a->table,
                                    (last_page + 1) * KVCL_PAGE_TOKENS));
    const kvcl_view in[] = {a->pool, a->means, a->basis, a->table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->in.ml, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->in.o, in, kvcl_array_len(in)));
    return q->dev->ops.attn_holo(q, a);
}
