/* rans.h - the entropy coder's pages on the CPU: all but the main part's loop, which the SIMD paths
 * replace.  Definition: engine/ops_pack.h */
#ifndef KVCL_CPU_RANS_H
#define KVCL_CPU_RANS_H

#include "cpu_int.h"
#include "rans_enc.h"

/* The way back.  Words that are missing are zeros, and *n goes below 0.  In front of words[0] are
 * KVCL_RANS_HEAD bytes that may be read. */
typedef void (*kvcl_rans_decode_fn)(kvcl_rans_coder *c, int8_t *values, uint32_t first,
                                    uint32_t end, uint32_t lanes, const uint16_t *words,
                                    int32_t *n);

void kvcl_cpu_rans_decode(kvcl_rans_coder *c, int8_t *values, uint32_t first, uint32_t end,
                          uint32_t lanes, const uint16_t *words, int32_t *n);

/* Whole ops; `encode` and `decode` do the main parts. */
void kvcl_cpu_rans_enc_pages(const kvcl_rans_enc_args *a, kvcl_cpu_part *p,
                             kvcl_rans_encode_fn encode);
void kvcl_cpu_rans_dec_pages(const kvcl_rans_dec_args *a, kvcl_cpu_part *p,
                             kvcl_rans_decode_fn decode);

#endif
