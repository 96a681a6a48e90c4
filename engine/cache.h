/* cache.h - the raw key/value cache of one sequence: pages of 64 tokens in pools, one K and one V
 * pool per layer and segment; a segment is what fits a buffer of the device.
 *
 * Attention: every page gives a partial; one merge in page order.  See ops_kv.h. */
#ifndef KVCL_CACHE_H
#define KVCL_CACHE_H

#include "dev.h"

typedef struct kvcl_cache_shape {
    uint32_t n_layers, n_q_heads, n_kv_heads, head_dim;
    uint32_t n_ctx;   /* tokens it must hold */
    uint32_t n_batch; /* most queries of one call */
    float scale;      /* of q . k */
    kvcl_type type_k, type_v;
} kvcl_cache_shape;

/* How keys and queries are rotated on their way in; KVCL_ROPE_NONE: not at all. */
typedef struct kvcl_cache_rope {
    kvcl_rope_pairing pairing;
    uint32_t n_rot;
    kvcl_view table; /* f32 [n_ctx][n_rot/2][2] */
} kvcl_cache_rope;

typedef struct kvcl_cache kvcl_cache;

/* keeps queue's device; all memory is allocated here.  The queue borrows (for the page table). */
kvcl_status kvcl_cache_create(kvcl_queue *q, const kvcl_cache_shape *shape, kvcl_cache **out);
void kvcl_cache_free(kvcl_cache *cache);
/* Bytes of all pools; bytes of the partials' scratch. */
size_t kvcl_cache_page_bytes(const kvcl_cache *cache);
size_t kvcl_cache_scratch_bytes(const kvcl_cache *cache);

/* Rotates q in place and k on its way, stores the K and V of n tokens at positions pos0 ... of a
 * layer.  qkv f32 [n] rows `stride` apart, [Hq*D | Hk*D | Hk*D].  pos0 + n <= n_ctx.  Enqueues. */
kvcl_status kvcl_cache_store(kvcl_cache *cache, kvcl_queue *q, uint32_t layer, kvcl_view qkv,
                             uint32_t stride, uint32_t n, uint32_t pos0,
                             const kvcl_cache_rope *rope);

/* Attention of n queries at positions pos0 ..., each over all tokens up to its own, which are
 * stored.  queries f32 [n] rows q_stride apart, [Hq][D]; out f32 [n][Hq*D] contiguous.  Enqueues.
 */
kvcl_status kvcl_cache_attend(kvcl_cache *cache, kvcl_queue *q, uint32_t layer, kvcl_view queries,
                              uint32_t q_stride, uint32_t n, uint32_t pos0, kvcl_view out);

#endif
