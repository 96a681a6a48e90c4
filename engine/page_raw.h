/* page_raw.h - pools of raw pages, and where a page of the sequence lies in a pool.
 *
 * A page map gives each page of a sequence its slot: page modulo n_slots (a pool with fewer slots
 * than the sequence has pages is a ring that holds the newest).  A pool is cut into segments that
 * fit one buffer of the device; segments hold whole blocks of 8 pages, so that a region is cut
 * between blocks only.  Rings have one segment. */
#ifndef KVCL_PAGE_RAW_H
#define KVCL_PAGE_RAW_H

#include "dev.h"

typedef struct kvcl_page_map {
    uint32_t n_pages; /* of the longest sequence */
    uint32_t n_slots, pages_per_segment, n_segments;
    int32_t *slots;  /* [n_pages]: slot in its segment, on the host */
    kvcl_buf *table; /* the same on the device; NULL until created */
} kvcl_page_map;

/* Fills the numbers: a pool of n_slots pages of at most page_bytes in one buffer each.  E_ARG when
 * a ring does not fit one buffer. */
kvcl_status kvcl_page_map_init(kvcl_dev *dev, uint32_t n_pages, uint32_t n_slots, size_t page_bytes,
                               kvcl_page_map *out);
/* Allocates slots and, under the name `what`, the table, which q's device keeps. */
kvcl_status kvcl_page_map_create(kvcl_queue *q, const char *what, kvcl_page_map *map);
void kvcl_page_map_free(kvcl_ctx *ctx, kvcl_page_map *map);
static inline uint32_t kvcl_page_map_segment(const kvcl_page_map *m, uint32_t page)
{
    return page % m->n_slots / m->pages_per_segment;
}
static inline uint32_t kvcl_page_map_segment_pages(const kvcl_page_map *m, uint32_t segment)
{
    return kvcl_min_u32(m->pages_per_segment, m->n_slots - segment * m->pages_per_segment);
}
/* How many pages from `page` on, up to `end`, lie in its segment. */
uint32_t kvcl_page_map_run(const kvcl_page_map *m, uint32_t page, uint32_t end);
/* The table's part for pages page .. page + n - 1. */
kvcl_view kvcl_page_map_view(const kvcl_page_map *m, uint32_t page, uint32_t n);

/* Raw pages of one layer (ku: keys as they were before rotation, where a codec wants them). */
typedef struct kvcl_raw_pool {
    kvcl_buf *k, *v, *ku;
} kvcl_raw_pool;

typedef struct kvcl_raw_pages {
    kvcl_type type_k, type_v;
    size_t bytes_k, bytes_v; /* of one page */
    bool has_ku;
    kvcl_page_map map;
    uint32_t n_layers;
    kvcl_raw_pool *pools; /* [n_layers][map.n_segments] */
} kvcl_raw_pages;

/* Sizes only: nothing is allocated. */
kvcl_status kvcl_raw_pages_init(kvcl_dev *dev, uint32_t n_layers, uint32_t n_pages,
                                uint32_t n_slots, size_t page_elems, kvcl_type type_k,
                                kvcl_type type_v, bool has_ku, kvcl_raw_pages *out);
/* Allocates pages under the name `what`, and the table. */
kvcl_status kvcl_raw_pages_create(kvcl_queue *q, const char *what, kvcl_raw_pages *r);
void kvcl_raw_pages_free(kvcl_ctx *ctx, kvcl_raw_pages *r);
/* Bytes that create() allocates on the device: pages; the table. */
size_t kvcl_raw_pages_bytes(const kvcl_raw_pages *r);

/* Pages page .. page + n - 1 (of one segment) of a layer. */
kvcl_raw_pool kvcl_raw_pages_pool(const kvcl_raw_pages *r, uint32_t layer, uint32_t page);

/* Copies pages [begin, end) of a layer; dst has no ku, or src has one too.  Enqueues. */
kvcl_status kvcl_raw_pages_copy(kvcl_queue *q, const kvcl_raw_pages *src, uint32_t src_layer,
                                const kvcl_raw_pages *dst, uint32_t dst_layer, uint32_t begin,
                                uint32_t end);

static inline kvcl_view kvcl_view_of(kvcl_buf *b) { return (kvcl_view){b, 0, b ? b->bytes : 0}; }

/* Zeros to a view of whole bytes.  Enqueues. */
kvcl_status kvcl_view_zero(kvcl_queue *q, kvcl_view v);

#endif
