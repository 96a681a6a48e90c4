/* ops_code.c - the only validation of the coded pages' operations' arguments, then the table
 * call. */
#include "ops_check.h"
#include "types.h"

kvcl_status kvcl_op_fwht(kvcl_queue *q, const kvcl_fwht_args *a)
{
    static const char op[] = "fwht";
    if (a->n == 0)
        return KVCL_OK;
    KVCL_CHECK(q->dev->ctx, a->dim >= 16 && a->dim <= 65536 && (a->dim & (a->dim - 1)) == 0,
               KVCL_E_UNSUPPORTED, "%s: %u values; want a power of two, 16 to 65536", op,
               (unsigned)a->dim);
    KVCL_TRY(kvcl_check_rows(q, op, "x", a->x, a->n, a->dim, a->stride));
    KVCL_TRY(kvcl_check_rows(q, op, "out", a->out, a->n, a->dim, a->stride));
    KVCL_TRY(kvcl_check_same_or_apart(q, op, a->out, a->x));
    return q->dev->ops.fwht(q, a);
}

/* ---- quant --------------------------------------------------------------------------------- */

size_t kvcl_quant_page_bytes(const kvcl_quant_shape *s, size_t parts_out[4])
{
    size_t heads = s->n_kv_heads, D = s->head_dim, tokens = KVCL_PAGE_TOKENS;
    parts_out[0] = heads * D * tokens * s->bits_k / 8;
    parts_out[1] = heads * D * tokens * s->bits_v / 8;
    parts_out[2] = heads * (s->form == KVCL_QUANT_CHANNEL ? 2 * D : tokens) * 2;
    parts_out[3] = heads * tokens * 2;
    return parts_out[0] + parts_out[1] + parts_out[2] + parts_out[3];
}

static bool bits_known(uint32_t bits) { return bits == 8 || (bits >= 1 && bits <= 4); }

/* The shape, a pool of at least one page, the means up to the last page's epoch. */
static kvcl_status check_quant(const kvcl_queue *q, const char *op, const kvcl_quant_shape *s,
                               kvcl_view pool, kvcl_view means, uint32_t last_page)
{
    kvcl_ctx *ctx = q->dev->ctx;
    size_t parts[4];
    KVCL_TRY(kvcl_check_coded(q->dev->ctx, op, s->n_kv_heads, s->head_dim));
    KVCL_CHECK(ctx, bits_known(s->bits_k) && bits_known(s->bits_v), KVCL_E_UNSUPPORTED,
               "%s: %u and %u bits; want 8, 4, 3, 2 or 1", op, (unsigned)s->bits_k,
               (unsigned)s->bits_v);
    KVCL_CHECK(ctx, (unsigned)s->form <= KVCL_QUANT_CHANNEL, KVCL_E_ARG, "%s: form %d", op,
               (int)s->form);
    KVCL_TRY(kvcl_check_view(q, op, "pool", pool, kvcl_quant_page_bytes(s, parts) / 4, 4));
    return kvcl_check_means(q, op, means, s->n_kv_heads, s->head_dim, last_page);
}

/* PRE: rows 0 .. n_rows - 1 of the rope table. */
static kvcl_status check_table(const kvcl_queue *q, const char *op, const kvcl_quant_shape *s,
                               kvcl_rope_pairing pairing, uint32_t n_rot, kvcl_view table,
                               uint32_t n_rows)
{
    if (s->form != KVCL_QUANT_PRE)
        pairing = (unsigned)pairing <= KVCL_ROPE_HALVES ? KVCL_ROPE_NONE : pairing;
    return kvcl_check_turning(q, op, s->head_dim, pairing, n_rot, table, n_rows);
}

kvcl_status kvcl_op_quant_enc(kvcl_queue *q, const kvcl_quant_enc_args *a)
{
    static const char op[] = "quant_enc";
    const kvcl_quant_shape *s = &a->shape;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, a->first_page, a->n_pages));
    KVCL_TRY(check_quant(q, op, s, a->pool, a->means, a->first_page + a->n_pages - 1));
    KVCL_CHECK(q->dev->ctx, a->n_skip < KVCL_PAGE_TOKENS, KVCL_E_ARG,
               "%s: %u tokens left out of a page; want less than 64", op, (unsigned)a->n_skip);
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "bad", a->bad, (uint64_t)a->n_pages * s->n_kv_heads,
                             sizeof(int32_t)));
    const kvcl_view in[] = {a->k, a->v, a->page_table, a->pool_table, a->means};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->pool, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->bad, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->bad, a->pool));
    return q->dev->ops.quant_enc(q, a);
}

kvcl_status kvcl_op_quant_dec(kvcl_queue *q, const kvcl_quant_dec_args *a)
{
    static const char op[] = "quant_dec";
    const kvcl_quant_shape *s = &a->shape;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, a->first_page, a->n_pages));
    KVCL_TRY(check_quant(q, op, s, a->pool, a->means, a->first_page + a->n_pages - 1));
    if (a->table.buf)
        KVCL_TRY(check_table(q, op, s, a->pairing, a->n_rot, a->table,
                             (a->first_page + a->n_pages) * KVCL_PAGE_TOKENS));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    const kvcl_view in[] = {a->pool, a->page_table, a->pool_table, a->means, a->table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->k, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->v, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->k, a->v));
    return q->dev->ops.quant_dec(q, a);
}

kvcl_status kvcl_op_attn_quant(kvcl_queue *q, const kvcl_attn_quant_args *a)
{
    static const char op[] = "attn_quant";
    const kvcl_quant_shape *s = &a->shape;
    if (kvcl_attn_in_empty(&a->in))
        return KVCL_OK;
    KVCL_TRY(kvcl_check_attn_coded(q, op, &a->in, s->n_kv_heads, s->head_dim));
    uint32_t last_page = (a->in.end - 1) / KVCL_PAGE_TOKENS;
    KVCL_TRY(check_quant(q, op, s, a->pool, a->means, last_page));
    KVCL_TRY(check_table(q, op, s, a->pairing, a->n_rot, a->table,
                         kvcl_max_u32(last_page * KVCL_PAGE_TOKENS + 1, KVCL_PAGE_TOKENS)));
    const kvcl_view in[] = {a->pool, a->means, a->table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->in.ml, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->in.o, in, kvcl_array_len(in)));
    return q->dev->ops.attn_quant(q, a);
}

/* ---- block --------------------------------------------------------------------------------- */

size_t kvcl_block_page_bytes(uint32_t n_kv_heads, uint32_t head_dim, kvcl_type type_k,
                             kvcl_type type_v)
{
    return (size_t)n_kv_heads * KVCL_PAGE_TOKENS *
           (kvcl_type_bytes(type_k, head_dim) + kvcl_type_bytes(type_v, head_dim));
}

static kvcl_status check_block(const kvcl_queue *q, const char *op, uint32_t n_kv_heads,
                               uint32_t head_dim, kvcl_type type_k, kvcl_type type_v,
                               kvcl_view pool)
{
    KVCL_TRY(kvcl_check_coded(q->dev->ctx, op, n_kv_heads, head_dim));
    KVCL_CHECK(q->dev->ctx,
               (type_k == KVCL_Q8_0 || type_k == KVCL_Q4_0) &&
                   (type_v == KVCL_Q8_0 || type_v == KVCL_Q4_0),
               KVCL_E_UNSUPPORTED, "%s: block types %d and %d; want Q8_0 or Q4_0", op, (int)type_k,
               (int)type_v);
    return kvcl_check_view(q, op, "pool", pool,
                           kvcl_block_page_bytes(n_kv_heads, head_dim, type_k, type_v) / 2, 2);
}

kvcl_status kvcl_op_block_enc(kvcl_queue *q, const kvcl_block_enc_args *a)
{
    static const char op[] = "block_enc";
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, 0, a->n_pages));
    KVCL_TRY(
        check_block(q, op, a->n_kv_heads, a->head_dim, a->block_type_k, a->block_type_v, a->pool));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, a->n_kv_heads, a->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, a->n_kv_heads, a->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "bad", a->bad, (uint64_t)a->n_pages * a->n_kv_heads,
                             sizeof(int32_t)));
    const kvcl_view in[] = {a->k, a->v, a->page_table, a->pool_table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->pool, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->bad, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->bad, a->pool));
    return q->dev->ops.block_enc(q, a);
}

kvcl_status kvcl_op_block_dec(kvcl_queue *q, const kvcl_block_dec_args *a)
{
    static const char op[] = "block_dec";
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, 0, a->n_pages));
    KVCL_TRY(
        check_block(q, op, a->n_kv_heads, a->head_dim, a->block_type_k, a->block_type_v, a->pool));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, a->n_kv_heads, a->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, a->n_kv_heads, a->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    const kvcl_view in[] = {a->pool, a->page_table, a->pool_table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->k, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->v, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->k, a->v));
    return q->dev->ops.block_dec(q, a);
}

kvcl_status kvcl_op_attn_block(kvcl_queue *q, const kvcl_attn_block_args *a)
{
    static const char op[] = "attn_block";
    if (kvcl_attn_in_empty(&a->in))
        return KVCL_OK;
    KVCL_TRY(kvcl_check_attn_in(q, op, &a->in));
    KVCL_TRY(check_block(q, op, a->in.n_kv_heads, a->in.head_dim, a->block_type_k, a->block_type_v,
                         a->pool));
    KVCL_TRY(kvcl_check_apart(q, op, a->in.ml, a->pool));
    KVCL_TRY(kvcl_check_apart(q, op, a->in.o, a->pool));
    return q->dev->ops.attn_block(q, a);
}
