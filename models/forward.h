/* forward.h - one step of the transformer over the op table: prompt tokens through matmul, a
 * generated token through matvec.  Knows architectures by what the weights hold: a gate makes
 * SwiGLU, its absence GELU; a position table replaces RoPE; norms of heads come before it. */
#ifndef KVCL_FORWARD_H
#define KVCL_FORWARD_H

#include "cache.h"
#include "weights.h"

/* Lets someone see activations; see kvcl_session_set_tap(). */
typedef struct kvcl_forward_tap {
    uint32_t mask;
    kvcl_tap_fn fn;
    void *user;
    float *rows; /* [n_batch][widest] on the host */
} kvcl_forward_tap;

/* Activations of one step: device buffers sized for n_batch tokens; x of a tiered cache: for n_ctx,
 * since a prompt goes through the model layer by layer there. */
typedef struct kvcl_forward {
    const kvcl_model *model;
    const kvcl_weights *w;
    kvcl_cache *cache;
    kvcl_queue *q;
    kvcl_forward_tap tap;
    uint32_t n_batch, n_rows; /* most tokens of a step; rows of x */
    uint32_t n_logits;        /* most rows of logits at once */
    kvcl_buf *ids, *x, *h, *qkv, *att, *gate, *up, *scratch, *logits;
} kvcl_forward;

/* Allocates all of it.  model, w, cache and q are kept. */
kvcl_status kvcl_forward_create(const kvcl_model *model, const kvcl_weights *w, kvcl_cache *cache,
                                kvcl_queue *q, uint32_t n_rows, uint32_t n_batch,
                                kvcl_forward *out);
void kvcl_forward_free(kvcl_forward *f);
/* Bytes that create() allocates, of activations and of matmul's scratch; w may be partly filled:
 * matrices need their device, type and sizes only. */
size_t kvcl_forward_bytes(const kvcl_model *model, const kvcl_weights *w, uint32_t n_rows,
                          uint32_t n_batch);

/* Steps of a prompt, each over n <= n_batch tokens whose activations are rows row ... of x:
 *   embed   their embeddings (positions pos0 ...)
 *   layer   one layer; stores their keys and values at positions pos0 ...
 *   logits  n <= n_logits rows of f->logits
 * Enqueue. */
kvcl_status kvcl_forward_embed(kvcl_forward *f, const int32_t *tokens, uint32_t row, uint32_t n,
                               uint32_t pos0);
kvcl_status kvcl_forward_layer(kvcl_forward *f, uint32_t layer, uint32_t row, uint32_t n,
                               uint32_t pos0);
kvcl_status kvcl_forward_logits(kvcl_forward *f, uint32_t row, uint32_t n);
/* One generated token; its logits in f->logits.  Enqueues. */
kvcl_status kvcl_forward_decode(kvcl_forward *f, int32_t token, uint32_t pos);

#endif
