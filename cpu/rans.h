/* rans.h - the entropy coder's pages on the CPU: all but the main part's loop, which the SIMD paths
 * replace.  Definition: engine/ops_pack.h */
#ifndef KVCL_CPU_RANS_H
#define KVCL_CPU_RANS_H

#include "cpu_int.h"

typedef struct kvcl_rans_coder {
    const uint32_t *table; /* of all models */
    const uint8_t *models; /* of the rows */
    uint32_t n_cols;
    uint32_t x[32]; /* states */
} kvcl_rans_coder;

/* Encodes values[first .. end - 1], from the last to the first, in `lanes` lanes; first is a
 * multiple of lanes.  words: the stack, with room for 2 (end - first + 32) more; *n: its height. */
typedef void (*kvcl_rans_encode_fn)(kvcl_rans_coder *c, const int8_t *values, uint32_t first,
                                    uint32_t end, uint32_t lanes, uint16_t *words, uint32_t *n);
/* The way back.  Words that are missing are zeros, and *n goes below 0.  In front of words[0] are
 * KVCL_RANS_HEAD bytes that may be read. */
typedef void (*kvcl_rans_decode_fn)(kvcl_rans_coder *c, int8_t *values, uint32_t first,
                                    uint32_t end, uint32_t lanes, const uint16_t *words,
                                    int32_t *n);

void kvcl_cpu_rans_encode(kvcl_rans_coder *c, const int8_t *values, uint32_t first, uint32_t end,
                          uint32_t lanes, uint16_t *words, uint32_t *n);
void kvcl_cpu_rans_decode(kvcl_rans_coder *c, int8_t *values, uint32_t first, uint32_t end,
                          uint32_t lanes, const uint16_t *words, int32_t *n);

/* Whole ops; `encode` and `decode` do the main parts. */
void kvcl_cpu_rans_enc_pages(const kvcl_rans_enc_args *a, kvcl_cpu_part *p,
                             kvcl_rans_encode_fn encode);
void kvcl_cpu_rans_dec_pages(const kvcl_rans_dec_args *a, kvcl_cpu_part *p,
                             kvcl_rans_decode_fn decode);

#endif
