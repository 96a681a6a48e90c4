/* cache.c - raw pages in pools.  See cache.h. */
#include "cache.h"

#include "mem.h"
#include "types.h"

/* A pool never asks the device for more than this at once: below every driver's allocation limit.
 */
#define SEGMENT_BYTES_MAX ((size_t)256 << 20)
/* Partials of a prefill are made for as many queries at once as fit here. */
#define PARTIALS_BYTES ((size_t)16 << 20)

typedef struct kvcl_segment {
    kvcl_buf *k, *v;
} kvcl_segment;

struct kvcl_cache {
    kvcl_dev *dev;
    kvcl_cache_shape shape;
    uint32_t n_pages, pages_per_segment, n_segments;
    uint32_t n_queries; /* whose partials fit the scratch */
    size_t page_elems, scratch_bytes;
    kvcl_segment *segments; /* [n_layers][n_segments] */
    kvcl_buf *page_table;   /* i32 [n_pages]: slot in its segment */
    kvcl_buf *ml, *o;
};

static kvcl_view whole(kvcl_buf *b) { return (kvcl_view){b, 0, b->bytes}; }

static uint32_t segment_pages(const kvcl_cache *c, uint32_t s)
{
    return kvcl_min_u32(c->pages_per_segment, c->n_pages - s * c->pages_per_segment);
}

static kvcl_status create_pools(kvcl_cache *c)
{
    const kvcl_cache_shape *sh = &c->shape;
    for (uint32_t i = 0; i < sh->n_layers * c->n_segments; i++) {
        size_t elems = c->page_elems * segment_pages(c, i % c->n_segments);
        KVCL_TRY(kvcl_buf_create(c->dev, kvcl_type_bytes(sh->type_k, elems), "the cache's keys",
                                 &c->segments[i].k));
        KVCL_TRY(kvcl_buf_create(c->dev, kvcl_type_bytes(sh->type_v, elems), "the cache's values",
                                 &c->segments[i].v));
    }
    return KVCL_OK;
}

static kvcl_status create_page_table(kvcl_cache *c, kvcl_queue *q)
{
    void *p;
    KVCL_TRY(kvcl_mem_array(c->dev->ctx, c->n_pages, sizeof(int32_t), "the page table", &p));
    int32_t *slots = p;
    for (uint32_t i = 0; i < c->n_pages; i++)
        slots[i] = (int32_t)(i % c->pages_per_segment);
    size_t bytes = c->n_pages * sizeof *slots;
    kvcl_status st = kvcl_buf_create(c->dev, bytes, "the page table", &c->page_table);
    if (st == KVCL_OK)
        st = kvcl_buf_write(q, c->page_table, 0, slots, bytes);
    kvcl_mem_free(c->dev->ctx, slots);
    return st;
}

static kvcl_status create_scratch(kvcl_cache *c)
{
    const kvcl_cache_shape *sh = &c->shape;
    size_t per_query = (size_t)sh->n_q_heads * c->n_pages * sizeof(float);
    size_t fits = PARTIALS_BYTES / (per_query * (sh->head_dim + 2));
    c->n_queries = kvcl_max_u32(1, (uint32_t)kvcl_min_size(fits, sh->n_batch));
    KVCL_TRY(kvcl_buf_create(c->dev, c->n_queries * per_query * 2, "attention scratch", &c->ml));
    KVCL_TRY(kvcl_buf_create(c->dev, c->n_queries * per_query * sh->head_dim, "attention scratch",
                             &c->o));
    c->scratch_bytes = c->ml->bytes + c->o->bytes;
    return KVCL_OK;
}

kvcl_status kvcl_cache_create(kvcl_queue *q, const kvcl_cache_shape *shape, kvcl_cache **out)
{
    kvcl_ctx *ctx = q->dev->ctx;
    void *p;
    kvcl_status st;
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_cache), "the cache", &p));
    kvcl_cache *c = p;
    c->dev = q->dev;
    c->shape = *shape;
    c->page_elems = (size_t)shape->n_kv_heads * shape->head_dim * KVCL_PAGE_TOKENS;
    c->n_pages = kvcl_div_up(shape->n_ctx, KVCL_PAGE_TOKENS);
    size_t limit = kvcl_min_size(SEGMENT_BYTES_MAX, (size_t)c->dev->info.max_alloc_bytes);
    size_t pages = limit / (c->page_elems * sizeof(float));
    c->pages_per_segment = kvcl_max_u32(1, (uint32_t)kvcl_min_size(pages, c->n_pages));
    c->n_segments = kvcl_div_up(c->n_pages, c->pages_per_segment);
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, (size_t)shape->n_layers * c->n_segments, sizeof(kvcl_segment),
                                 "the cache", &p));
    c->segments = p;
    KVCL_TRY_GOTO(create_pools(c));
    KVCL_TRY_GOTO(create_page_table(c, q));
    KVCL_TRY_GOTO(create_scratch(c));
    *out = c;
    return KVCL_OK;
fail:
    kvcl_cache_free(c);
    return st;
}

void kvcl_cache_free(kvcl_cache *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; c->segments && i < c->shape.n_layers * c->n_segments; i++) {
        kvcl_buf_free(c->segments[i].k);
        kvcl_buf_free(c->segments[i].v);
    }
    kvcl_buf_free(c->page_table);
    kvcl_buf_free(c->ml);
    kvcl_buf_free(c->o);
    kvcl_mem_free(c->dev->ctx, c->segments);
    kvcl_mem_free(c->dev->ctx, c);
}

size_t kvcl_cache_page_bytes(const kvcl_cache *c)
{
    size_t n = 0;
    for (uint32_t i = 0; i < c->shape.n_layers * c->n_segments; i++)
        n += c->segments[i].k->bytes + c->segments[i].v->bytes;
    return n;
}

size_t kvcl_cache_scratch_bytes(const kvcl_cache *c) { return c->scratch_bytes; }

/* The page table's part for the pages of a segment. */
static kvcl_view table_of(const kvcl_cache *c, uint32_t s)
{
    return (kvcl_view){c->page_table, (size_t)s * c->pages_per_segment * sizeof(int32_t),
                       segment_pages(c, s) * sizeof(int32_t)};
}

static kvcl_view rows_from(kvcl_view v, uint32_t i, uint32_t stride)
{
    size_t skip = (size_t)i * stride * sizeof(float);
    return (kvcl_view){v.buf, v.off + skip, v.bytes - skip};
}

kvcl_status kvcl_cache_store(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_view qkv,
                             uint32_t stride, uint32_t n, uint32_t pos0,
                             const kvcl_cache_rope *rope)
{
    const kvcl_cache_shape *sh = &c->shape;
    uint32_t tokens_per_segment = c->pages_per_segment * KVCL_PAGE_TOKENS;
    for (uint32_t i = 0, m; i < n; i += m) {
        uint32_t pos = pos0 + i, s = pos / tokens_per_segment;
        m = kvcl_min_u32(n - i, (s + 1) * tokens_per_segment - pos);
        const kvcl_segment *seg = &c->segments[layer * c->n_segments + s];
        KVCL_TRY(kvcl_op_rope_store(q, &(kvcl_rope_store_args){
                                           .qkv = rows_from(qkv, i, stride),
                                           .table = rope->table,
                                           .k = whole(seg->k),
                                           .v = whole(seg->v),
                                           .page_table = table_of(c, s),
                                           .n = m,
                                           .qkv_stride = stride,
                                           .pos0 = pos,
                                           .n_q_heads = sh->n_q_heads,
                                           .n_kv_heads = sh->n_kv_heads,
                                           .head_dim = sh->head_dim,
                                           .n_rot = rope->n_rot,
                                           .first_page = s * c->pages_per_segment,
                                           .n_pages = segment_pages(c, s),
                                           .pairing = rope->pairing,
                                           .type_k = sh->type_k,
                                           .type_v = sh->type_v,
                                       }));
    }
    return KVCL_OK;
}

/* Partials of n queries (which fit the scratch) over every segment that holds tokens of theirs. */
static kvcl_status make_partials(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_view queries,
                                 uint32_t q_stride, uint32_t n, uint32_t pos0)
{
    const kvcl_cache_shape *sh = &c->shape;
    uint32_t n_pages = (pos0 + n - 1) / KVCL_PAGE_TOKENS + 1;
    for (uint32_t s = 0; s * c->pages_per_segment < n_pages; s++) {
        uint32_t first = s * c->pages_per_segment;
        const kvcl_segment *seg = &c->segments[layer * c->n_segments + s];
        KVCL_TRY(
            kvcl_op_attn_raw(q, &(kvcl_attn_raw_args){
                                    .q = queries,
                                    .k = whole(seg->k),
                                    .v = whole(seg->v),
                                    .page_table = table_of(c, s),
                                    .ml = whole(c->ml),
                                    .o = whole(c->o),
                                    .n = n,
                                    .q_stride = q_stride,
                                    .pos0 = pos0,
                                    .n_q_heads = sh->n_q_heads,
                                    .n_kv_heads = sh->n_kv_heads,
                                    .head_dim = sh->head_dim,
                                    .first_page = first,
                                    .n_pages = kvcl_min_u32(segment_pages(c, s), n_pages - first),
                                    .n_parts = c->n_pages,
                                    .scale = sh->scale,
                                    .type_k = sh->type_k,
                                    .type_v = sh->type_v,
                                }));
    }
    return KVCL_OK;
}

kvcl_status kvcl_cache_attend(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_view queries,
                              uint32_t q_stride, uint32_t n, uint32_t pos0, kvcl_view out)
{
    const kvcl_cache_shape *sh = &c->shape;
    uint32_t width = sh->n_q_heads * sh->head_dim;
    for (uint32_t i = 0, m; i < n; i += m) {
        m = kvcl_min_u32(n - i, c->n_queries);
        KVCL_TRY(
            make_partials(c, q, layer, rows_from(queries, i, q_stride), q_stride, m, pos0 + i));
        KVCL_TRY(kvcl_op_attn_merge(q, &(kvcl_attn_merge_args){
                                           .ml = whole(c->ml),
                                           .o = whole(c->o),
                                           .out = rows_from(out, i, width),
                                           .n = m,
                                           .pos0 = pos0 + i,
                                           .n_parts = c->n_pages,
                                           .n_q_heads = sh->n_q_heads,
                                           .head_dim = sh->head_dim,
                                           .out_stride = width,
                                       }));
    }
    return KVCL_OK;
}
