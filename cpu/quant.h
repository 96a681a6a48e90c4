/* quant.h - quant pages on the CPU: where one head's parts are, its codes as levels.  Layout:
 * engine/ops_code.h. */
#ifndef KVCL_CPU_QUANT_H
#define KVCL_CPU_QUANT_H

#include "rows.h"

/* One head's parts of a quant page. */
typedef struct kvcl_cpu_quant_head {
    uint32_t *k_words, *v_words;
    uint16_t *k_scales; /* [64]; CHANNEL [D] */
    uint16_t *k_means;  /* CHANNEL [D] */
    uint16_t *v_scales; /* [64] */
} kvcl_cpu_quant_head;

kvcl_cpu_quant_head kvcl_cpu_quant_at(const kvcl_quant_shape *shape, kvcl_view pool, size_t slot,
                                      uint32_t hk);
/* Levels [64][D] of one head's codes. */
void kvcl_cpu_quant_levels_k(const kvcl_quant_shape *shape, const uint32_t *words, int8_t *levels);
void kvcl_cpu_quant_levels_v(const kvcl_quant_shape *shape, const uint32_t *words, int8_t *levels);
/* The means [D] that a page's K (or V) of a head is coded with. */
const float *kvcl_cpu_quant_mean(const kvcl_quant_shape *shape, kvcl_view means, uint32_t page,
                                 bool of_v, uint32_t hk);
/* Transform of each block of B values of a head. */
void kvcl_cpu_fwht_head(uint32_t head_dim, float *x);
/* Q[i] = round(g[i] * inv); returns the quantum. */
float kvcl_cpu_quantise15(const float *g, uint32_t n, int32_t *q);

/* Keys [64][D] of a page, turned by their place in it. */
typedef struct kvcl_cpu_turned {
    uint32_t D, n_rot;
    kvcl_rope_pairing pairing;
    const float *table, *keys; /* table NULL: nothing is turned */
} kvcl_cpu_turned;

/* Scores of tokens [begin, end) of page i_page: the query turned back to its first position. */
void kvcl_cpu_score_keys(const kvcl_cpu_turned *k, uint32_t i_page, const float *qs, uint32_t begin,
                         uint32_t end, float *score);

#endif
