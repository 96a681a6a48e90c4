/* forward.h - one step of the transformer over the op table: prompt tokens through matmul, a
 * generated token through matvec.  Knows architectures by what the weights hold: a gate makes
 * SwiGLU, its absence GELU; a position table replaces RoPE. */
#ifndef KVCL_FORWARD_H
#define KVCL_FORWARD_H

#include "cache.h"
#include "weights.h"

/* Activations of one step: device buffers sized for n_batch tokens. */
typedef struct kvcl_forward {
    const kvcl_model *model;
    const kvcl_weights *w;
    kvcl_cache *cache;
    kvcl_queue *q;
    kvcl_cache_rope rope;
    uint32_t n_batch, n_logits; /* most tokens of a step; most rows of logits of a step */
    kvcl_buf *ids, *x, *h, *qkv, *att, *gate, *up, *scratch, *logits, *rope_table;
} kvcl_forward;

/* Allocates all of it.  model, w, cache and q are kept. */
kvcl_status kvcl_forward_create(const kvcl_model *model, const kvcl_weights *w, kvcl_cache *cache,
                                kvcl_queue *q, uint32_t n_ctx, uint32_t n_batch, kvcl_forward *out);
void kvcl_forward_free(kvcl_forward *f);

/* n prompt tokens at positions pos0 ...: fills the cache and, for the last n_logits (<=
 * f->n_logits) of them, the rows of f->logits.  Enqueues. */
kvcl_status kvcl_forward_prefill(kvcl_forward *f, const int32_t *tokens, uint32_t n, uint32_t pos0,
                                 uint32_t n_logits);
/* One generated token; its logits in f->logits.  Enqueues. */
kvcl_status kvcl_forward_decode(kvcl_forward *f, int32_t token, uint32_t pos);

#endif
