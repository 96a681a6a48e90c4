/* page_raw.c - see page_raw.h. */
#include "page_raw.h"

#include "mem.h"
#include "types.h"

/* A pool never asks the device for more than this at once: below every driver's limit. */
#define SEGMENT_BYTES_MAX ((size_t)256 << 20)

/* ---- maps ---------------------------------------------------------------------------------- */

kvcl_status kvcl_page_map_init(kvcl_dev *dev, uint32_t n_pages, uint32_t n_slots, size_t page_bytes,
                               kvcl_page_map *out)
{
    size_t limit = kvcl_min_size(SEGMENT_BYTES_MAX, (size_t)dev->info.max_alloc_bytes);
    size_t fit = limit / page_bytes / KVCL_BLOCK_PAGES * KVCL_BLOCK_PAGES;
    bool ring = n_slots < n_pages;
    if (ring && n_slots > fit)
        fit = (size_t)dev->info.max_alloc_bytes / page_bytes;
    KVCL_CHECK(dev->ctx, fit >= (ring ? n_slots : kvcl_min_u32(n_slots, KVCL_BLOCK_PAGES)),
               KVCL_E_DEVICE_MEM,
               "%u pages of %zu bytes do not fit one buffer of %s (%llu bytes); ask for fewer hot "
               "tokens",
               (unsigned)n_slots, page_bytes, dev->info.id,
               (unsigned long long)dev->info.max_alloc_bytes);
    *out = (kvcl_page_map){.n_pages = n_pages, .n_slots = n_slots};
    out->pages_per_segment = (uint32_t)kvcl_min_size(fit, n_slots);
    out->n_segments = kvcl_div_up(n_slots, out->pages_per_segment);
    return KVCL_OK;
}

kvcl_status kvcl_page_map_create(kvcl_queue *q, const char *what, kvcl_page_map *m)
{
    void *p;
    KVCL_TRY(kvcl_mem_array(q->dev->ctx, m->n_pages, sizeof(int32_t), "a page table", &p));
    m->slots = p;
    for (uint32_t i = 0; i < m->n_pages; i++)
        m->slots[i] = (int32_t)(i % m->n_slots % m->pages_per_segment);
    size_t bytes = m->n_pages * sizeof(int32_t);
    KVCL_TRY(kvcl_buf_create(q->dev, bytes, what, &m->table));
    return kvcl_buf_write(q, m->table, 0, m->slots, bytes);
}

void kvcl_page_map_free(kvcl_ctx *ctx, kvcl_page_map *m)
{
    kvcl_buf_free(m->table);
    kvcl_mem_free(ctx, m->slots);
    m->table = NULL;
    m->slots = NULL;
}

uint32_t kvcl_page_map_run(const kvcl_page_map *m, uint32_t page, uint32_t end)
{
    if (m->n_segments == 1) /* a ring's pages each in a slot of its own */
        return kvcl_min_u32(end - page, m->n_slots);
    uint32_t slot = page % m->n_slots;
    uint32_t last = (slot / m->pages_per_segment + 1) * m->pages_per_segment;
    return kvcl_min_u32(end - page, kvcl_min_u32(last, m->n_slots) - slot);
}

kvcl_view kvcl_page_map_view(const kvcl_page_map *m, uint32_t page, uint32_t n)
{
    return (kvcl_view){m->table, page * sizeof(int32_t), n * sizeof(int32_t)};
}

/* ---- raw pages ----------------------------------------------------------------------------- */

kvcl_status kvcl_raw_pages_init(kvcl_dev *dev, uint32_t n_layers, uint32_t n_pages,
                                uint32_t n_slots, size_t page_elems, kvcl_type type_k,
                                kvcl_type type_v, bool has_ku, kvcl_raw_pages *out)
{
    *out = (kvcl_raw_pages){.type_k = type_k,
                            .type_v = type_v,
                            .bytes_k = kvcl_type_bytes(type_k, page_elems),
                            .bytes_v = kvcl_type_bytes(type_v, page_elems),
                            .has_ku = has_ku,
                            .n_layers = n_layers};
    return kvcl_page_map_init(dev, n_pages, n_slots, kvcl_max_size(out->bytes_k, out->bytes_v),
                              &out->map);
}

kvcl_status kvcl_raw_pages_create(kvcl_queue *q, const char *what, kvcl_raw_pages *r)
{
    void *p;
    uint32_t n = r->n_layers * r->map.n_segments;
    KVCL_TRY(kvcl_page_map_create(q, KVCL_USE_SCRATCH, &r->map));
    KVCL_TRY(kvcl_mem_array(q->dev->ctx, n, sizeof(kvcl_raw_pool), what, &p));
    r->pools = p;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pages = kvcl_page_map_segment_pages(&r->map, i % r->map.n_segments);
        kvcl_raw_pool *pool = &r->pools[i];
        KVCL_TRY(kvcl_buf_create(q->dev, pages * r->bytes_k, what, &pool->k));
        KVCL_TRY(kvcl_buf_create(q->dev, pages * r->bytes_v, what, &pool->v));
        if (r->has_ku)
            KVCL_TRY(kvcl_buf_create(q->dev, pages * r->bytes_k, what, &pool->ku));
    }
    return KVCL_OK;
}

void kvcl_raw_pages_free(kvcl_ctx *ctx, kvcl_raw_pages *r)
{
    for (uint32_t i = 0; r->pools && i < r->n_layers * r->map.n_segments; i++) {
        kvcl_buf_free(r->pools[i].k);
        kvcl_buf_free(r->pools[i].v);
        kvcl_buf_free(r->pools[i].ku);
    }
    kvcl_mem_free(ctx, r->pools);
    r->pools = NULL;
    kvcl_page_map_free(ctx, &r->map);
}

size_t kvcl_raw_pages_bytes(const kvcl_raw_pages *r)
{
    size_t page = r->bytes_k * (r->has_ku ? 2 : 1) + r->bytes_v;
    return (size_t)r->n_layers * r->map.n_slots * page;
}

kvcl_raw_pool kvcl_raw_pages_pool(const kvcl_raw_pages *r, uint32_t layer, uint32_t page)
{
    return r->pools[layer * r->map.n_segments + kvcl_page_map_segment(&r->map, page)];
}

static kvcl_status copy_page(kvcl_queue *q, kvcl_buf *dst, int32_t to, const kvcl_buf *src,
                             int32_t from, size_t bytes)
{
    return kvcl_buf_copy(q, dst, (size_t)to * bytes, src, (size_t)from * bytes, bytes);
}

kvcl_status kvcl_raw_pages_copy(kvcl_queue *q, const kvcl_raw_pages *src, uint32_t src_layer,
                                const kvcl_raw_pages *dst, uint32_t dst_layer, uint32_t begin,
                                uint32_t end)
{
    for (uint32_t page = begin; page < end; page++) {
        kvcl_raw_pool s = kvcl_raw_pages_pool(src, src_layer, page);
        kvcl_raw_pool d = kvcl_raw_pages_pool(dst, dst_layer, page);
        int32_t from = src->map.slots[page], to = dst->map.slots[page];
        KVCL_TRY(copy_page(q, d.k, to, s.k, from, src->bytes_k));
        KVCL_TRY(copy_page(q, d.v, to, s.v, from, src->bytes_v));
        if (d.ku)
            KVCL_TRY(copy_page(q, d.ku, to, s.ku, from, src->bytes_k));
    }
    return KVCL_OK;
}

kvcl_status kvcl_view_zero(kvcl_queue *q, kvcl_view v)
{
    static const unsigned char zero[4096] = {0};
    for (size_t at = 0; at < v.bytes; at += sizeof zero)
        KVCL_TRY(
            kvcl_buf_write(q, v.buf, v.off + at, zero, kvcl_min_size(sizeof zero, v.bytes - at)));
    return KVCL_OK;
}
