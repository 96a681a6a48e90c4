/* rans_enc.h - the entropy coder on hosts: one page of values to a stream.  Definition: ops_pack.h
 */
#ifndef KVCL_RANS_ENC_H
#define KVCL_RANS_ENC_H

#include "base.h"
#include "shared.h"

typedef struct kvcl_rans_coder {
    const uint32_t *table; /* of all models */
    const uint8_t *models; /* of the rows, all known */
    uint32_t n_cols;
    uint32_t x[32]; /* states */
} kvcl_rans_coder;

/* Entry of value (or slot) number `index` in the model of element i. */
static inline uint32_t kvcl_rans_entry(const kvcl_rans_coder *c, uint32_t i, uint32_t index)
{
    return c->table[c->models[i / c->n_cols] * KVCL_RANS_WORDS + index];
}

/* The first value of the tail. */
static inline uint32_t kvcl_rans_tail_begin(uint32_t n, uint32_t steps)
{
    return steps == 0 ? n : KVCL_RANS_LANES * (kvcl_div_up(n, KVCL_RANS_LANES) - steps);
}

/* Bytes of a stream: a state's top byte is stored when it is not zero, as every other's is. */
static inline uint32_t kvcl_rans_stream_bytes(uint32_t height, uint32_t tall)
{
    return KVCL_RANS_LEAST + 2 * height + (uint32_t)__builtin_popcount(tall);
}

/* Encodes values[first .. end - 1], from the last to the first, in `lanes` lanes; first is a
 * multiple of lanes.  words: the stack, with room for 2 (end - first + 32) more; *n: its height. */
typedef void (*kvcl_rans_encode_fn)(kvcl_rans_coder *c, const int8_t *values, uint32_t first,
                                    uint32_t end, uint32_t lanes, uint16_t *words, uint32_t *n);
void kvcl_rans_encode(kvcl_rans_coder *c, const int8_t *values, uint32_t first, uint32_t end,
                      uint32_t lanes, uint16_t *words, uint32_t *n);

/* A page of n values to a slot; returns the stream's bytes, 0 when it does not fit (undefined bytes
 * then).  `encode` does the main part; words: room for 4/3 n + 128 of them. */
uint32_t kvcl_rans_encode_page(kvcl_rans_coder *c, const int8_t *values, uint32_t n,
                               kvcl_rans_encode_fn encode, uint16_t *words, unsigned char *slot,
                               uint32_t slot_bytes);

#endif
