/* holo.h - superposed pages on the CPU: where one head's slots are, components of tokens from them.
 * Layout: engine/ops_holo.h. */
#ifndef KVCL_CPU_HOLO_H
#define KVCL_CPU_HOLO_H

#include "rows.h"

/* K or V of one head in a page. */
typedef struct kvcl_cpu_holo {
    const uint16_t *matrix; /* f16 [n_comp][D]; NULL: none */
    const float *mean;      /* [D]; NULL: none */
    unsigned char *slots;   /* rows of row_bytes */
    size_t row_bytes;
    kvcl_type type;
    uint32_t D, n_comp, chips, fold, pair;
    bool side; /* components side by side */
    float gain;
} kvcl_cpu_holo;

/* In slot `slot` of the pool, which is page i_page of the sequence. */
kvcl_cpu_holo kvcl_cpu_holo_at(const kvcl_holo_shape *shape, kvcl_view basis, kvcl_view means,
                               kvcl_view pool, size_t slot, uint32_t i_page, bool of_v,
                               uint32_t hk);
/* Class of chip c of component i, by which kvcl_holo_minus knows a token's sign. */
static inline uint32_t kvcl_cpu_holo_class(const kvcl_cpu_holo *x, uint32_t i, uint32_t c)
{
    return x->chips > 1 ? c : i / x->pair % x->fold;
}
/* z[j][i] of a slot's tokens, to out [n_comp][pitch]. */
void kvcl_cpu_holo_components(const kvcl_cpu_holo *x, uint32_t slot, float *out, uint32_t pitch);

#endif
