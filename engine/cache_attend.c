/* cache_attend.c - storing and attending: which region answers for which tokens.  See cache.h. */
#include "cache_int.h"

#include "types.h"

static kvcl_view rows_from(kvcl_view v, uint32_t i, uint32_t stride)
{
    size_t skip = (size_t)i * stride * sizeof(float);
    return (kvcl_view){v.buf, v.off + skip, v.bytes - skip};
}

/* The moments of queries that come with a prompt's keys: what a basis is good for. */
static kvcl_status count_queries(kvcl_cache *c, kvcl_queue *q, kvcl_view qkv, uint32_t stride,
                                 uint32_t n, uint32_t pos0)
{
    const kvcl_kv_shape *sh = &c->l.opt.shape;
    kvcl_gram_rows_args a = {.x = qkv,
                             .stride = stride,
                             .n_q_heads = sh->n_q_heads,
                             .n_kv_heads = sh->n_kv_heads,
                             .head_dim = sh->head_dim};
    for (uint32_t i = 0; i < c->l.n_metrics; i++) {
        uint32_t end = c->l.metric_tokens[i];
        a.gram = kvcl_cache_metric(c, i);
        a.n = pos0 < end ? kvcl_min_u32(n, end - pos0) : 0;
        if (a.n)
            KVCL_TRY(kvcl_op_gram_rows(q, &a));
    }
    return KVCL_OK;
}

kvcl_status kvcl_cache_store(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_view qkv,
                             uint32_t stride, uint32_t n, uint32_t pos0)
{
    const kvcl_kv_shape *sh = &c->l.opt.shape;
    const kvcl_raw_pages *raw = kvcl_cache_raw(c, &layer);
    if (kvcl_cache_counts_queries(c))
        KVCL_TRY(count_queries(c, q, qkv, stride, n, pos0));
    for (uint32_t i = 0, m; i < n; i += m) {
        uint32_t page = (pos0 + i) / KVCL_PAGE_TOKENS;
        uint32_t end = (pos0 + n - 1) / KVCL_PAGE_TOKENS + 1;
        uint32_t n_pages = kvcl_page_map_run(&raw->map, page, end);
        m = kvcl_min_u32(n - i, (page + n_pages) * KVCL_PAGE_TOKENS - (pos0 + i));
        kvcl_raw_pool pool = kvcl_raw_pages_pool(raw, layer, page);
        KVCL_TRY(
            kvcl_op_rope_store(q, &(kvcl_rope_store_args){
                                      .qkv = rows_from(qkv, i, stride),
                                      .table = c->rope.table,
                                      .k = kvcl_view_of(pool.k),
                                      .v = kvcl_view_of(pool.v),
                                      .ku = kvcl_view_of(pool.ku),
                                      .page_table = kvcl_page_map_view(&raw->map, page, n_pages),
                                      .n = m,
                                      .qkv_stride = stride,
                                      .pos0 = pos0 + i,
                                      .n_q_heads = sh->n_q_heads,
                                      .n_kv_heads = sh->n_kv_heads,
                                      .head_dim = sh->head_dim,
                                      .n_rot = c->rope.n_rot,
                                      .first_page = page,
                                      .n_pages = n_pages,
                                      .pairing = c->rope.pairing,
                                      .type_k = raw->type_k,
                                      .type_v = raw->type_v,
                                      .type_ku = raw->type_k,
                                  }));
    }
    return KVCL_OK;
}

/* Raw pages of a region, cut where segments end. */
static kvcl_status attend_raw(const kvcl_raw_pages *raw, kvcl_queue *q, uint32_t layer,
                              const kvcl_attn_in *in)
{
    uint32_t end = (in->end - 1) / KVCL_PAGE_TOKENS + 1;
    for (uint32_t page = in->begin / KVCL_PAGE_TOKENS, n; page < end; page += n) {
        n = kvcl_page_map_run(&raw->map, page, end);
        kvcl_raw_pool pool = kvcl_raw_pages_pool(raw, layer, page);
        kvcl_attn_raw_args a = {.in = *in,
                                .k = kvcl_view_of(pool.k),
                                .v = kvcl_view_of(pool.v),
                                .type_k = raw->type_k,
                                .type_v = raw->type_v};
        a.in.begin = kvcl_max_u32(in->begin, page * KVCL_PAGE_TOKENS);
        a.in.end = kvcl_min_u32(in->end, (page + n) * KVCL_PAGE_TOKENS);
        a.in.first_part += page / KVCL_BLOCK_PAGES - in->begin / KVCL_BLOCK_TOKENS;
        a.in.page_table = kvcl_page_map_view(&raw->map, page, n);
        KVCL_TRY(kvcl_op_attn_raw(q, &a));
    }
    return KVCL_OK;
}

static uint32_t blocks_of(uint32_t begin, uint32_t end)
{
    return (end - 1) / KVCL_BLOCK_TOKENS - begin / KVCL_BLOCK_TOKENS + 1;
}

/* Partials of everything below raw_begin, oldest first; in->first_part counts them. */
static kvcl_status attend_older(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_attn_in *in)
{
    uint32_t begin = kvcl_min_u32(c->l.opt.n_sink, c->raw_begin), n = c->l.opt.n_tiers;
    if (begin) {
        in->begin = 0, in->end = begin;
        KVCL_TRY(attend_raw(&c->l.sink, q, layer, in));
        in->first_part += 1;
    }
    begin = kvcl_max_u32(begin, kvcl_cache_dropped(&c->l, c->raw_begin));
    for (uint32_t i = n; i-- > 0; begin = kvcl_max_u32(begin, in->end)) {
        /* what tier i and its newer neighbours cannot hold is left to older ones */
        uint32_t newer = 0;
        for (uint32_t j = 0; j < i; j++)
            newer += c->l.opt.tiers[j].tokens;
        uint32_t end = c->raw_begin > newer ? c->raw_begin - newer : 0;
        if (i > 0)
            end = end / KVCL_PAGE_TOKENS * KVCL_PAGE_TOKENS;
        in->begin = begin, in->end = end;
        if (end <= begin)
            continue;
        KVCL_TRY(kvcl_tier_attend(&c->l.tiers[i], q, layer, in));
        in->first_part += blocks_of(begin, end);
    }
    return KVCL_OK;
}

static kvcl_status make_partials(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_view queries,
                                 uint32_t q_stride, uint32_t n, uint32_t pos0, uint32_t *n_before)
{
    const kvcl_kv_shape *sh = &c->l.opt.shape;
    kvcl_attn_in in = {.q = queries,
                       .ml = kvcl_view_of(c->ml),
                       .o = kvcl_view_of(c->o),
                       .n = n,
                       .q_stride = q_stride,
                       .pos0 = pos0,
                       .n_q_heads = sh->n_q_heads,
                       .n_kv_heads = sh->n_kv_heads,
                       .head_dim = sh->head_dim,
                       .n_parts = c->l.n_parts,
                       .scale = sh->scale};
    if (c->raw_begin)
        KVCL_TRY(attend_older(c, q, layer, &in));
    *n_before = in.first_part;
    in.begin = c->raw_begin, in.end = pos0 + n;
    const kvcl_raw_pages *raw = kvcl_cache_raw(c, &layer);
    return attend_raw(raw, q, layer, &in);
}

kvcl_status kvcl_cache_attend(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_view queries,
                              uint32_t q_stride, uint32_t n, uint32_t pos0, kvcl_view out)
{
    const kvcl_kv_shape *sh = &c->l.opt.shape;
    uint32_t width = sh->n_q_heads * sh->head_dim;
    for (uint32_t i = 0, m, before; i < n; i += m) {
        m = kvcl_min_u32(n - i, c->l.n_queries);
        KVCL_TRY(make_partials(c, q, layer, rows_from(queries, i, q_stride), q_stride, m, pos0 + i,
                               &before));
        KVCL_TRY(kvcl_op_attn_merge(q, &(kvcl_attn_merge_args){
                                           .ml = kvcl_view_of(c->ml),
                                           .o = kvcl_view_of(c->o),
                                           .out = rows_from(out, i, width),
                                           .n = m,
                                           .pos0 = pos0 + i,
                                           .n_before = before,
                                           .last_begin = c->raw_begin,
                                           .n_parts = c->l.n_parts,
                                           .n_q_heads = sh->n_q_heads,
                                           .head_dim = sh->head_dim,
                                           .out_stride = width,
                                       }));
    }
    return KVCL_OK;
}
