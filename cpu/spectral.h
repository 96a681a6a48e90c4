/* spectral.h - spectral pages on the CPU: where one head's parts are, its codes as levels and rows.
 * Layout: engine/ops_spectral.h. */
#ifndef KVCL_CPU_SPECTRAL_H
#define KVCL_CPU_SPECTRAL_H

#include "rows.h"
#include "shared.h"

/* K or V of one head: its basis, and in a page its words and norms. */
typedef struct kvcl_cpu_spectral {
    const kvcl_spectral_head *head;
    const int8_t *synth, *analysis; /* [D/4][D][4] */
    const uint16_t *place;          /* [k][D] */
    const int16_t *factor;          /* [k][D] */
    const float *amp;               /* [k][D] */
    uint32_t *words; /* [n_words][slots]: the head's; the last head's: and the rest */
    uint16_t *norms; /* [slots] */
    uint32_t n_words, fold, slots, D;
} kvcl_cpu_spectral;

/* Weight of component i and dimension d of a matrix. */
static inline int kvcl_cpu_spectral_weight(const kvcl_cpu_spectral *x, const int8_t *matrix,
                                           uint32_t i, uint32_t d)
{
    size_t four = (size_t)(i / 4) * x->D + d;
    return matrix[four * 4 + i % 4];
}

/* The basis alone; words and norms stay NULL. */
kvcl_cpu_spectral kvcl_cpu_spectral_basis(const kvcl_spectral_shape *shape, kvcl_view basis,
                                          bool of_v, uint32_t hk);
kvcl_cpu_spectral kvcl_cpu_spectral_at(const kvcl_spectral_shape *shape, kvcl_view basis,
                                       kvcl_view pool, size_t slot, bool of_v, uint32_t hk);
/* Words of a head in a page, the last head's with the rest; the first of them, counted over pages
 * of codes alone. */
uint32_t kvcl_cpu_spectral_n_words(const kvcl_spectral_shape *shape, const kvcl_cpu_spectral *x,
                                   bool of_v, uint32_t hk);
size_t kvcl_cpu_spectral_first(const kvcl_spectral_shape *shape, const kvcl_cpu_spectral *x,
                               uint32_t page, bool of_v);
/* The mean [D] of a head's K (or V). */
const float *kvcl_cpu_spectral_mean(const kvcl_spectral_shape *shape, kvcl_view means, bool of_v,
                                    uint32_t hk);
/* Where the code of an entry is. */
typedef struct kvcl_cpu_place {
    uint32_t word, shift, plane; /* of the head's words; first bit; 8 >> plane bits */
} kvcl_cpu_place;
/* False where there is none. */
static inline bool kvcl_cpu_spectral_place(const kvcl_cpu_spectral *x, uint32_t entry,
                                           kvcl_cpu_place *out)
{
    const uint32_t *first = x->head->plane_word;
    uint32_t at = x->place[entry], word = at >> 5;
    out->word = word;
    out->shift = at & 31u;
    out->plane = (uint32_t)((word >= first[1]) + (word >= first[2]) + (word >= first[3]));
    return at != KVCL_SPECTRAL_NONE;
}
/* The entry of each code, in the codes' order: order [k D]. */
void kvcl_cpu_spectral_order(const kvcl_cpu_spectral *x, uint16_t *order);
/* Level of entry r D + i of a slot; 0 where there is no code. */
int kvcl_cpu_spectral_level(const kvcl_cpu_spectral *x, uint32_t entry, uint32_t slot);
/* Keys [64][D] as they were before rotation. */
void kvcl_cpu_spectral_keys(const kvcl_cpu_spectral *x, const float *mean, float *out);

#endif
