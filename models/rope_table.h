/* rope_table.h - cosines and sines of RoPE, the same bits on every host: double precision + - * and
 * division only, no libm. */
#ifndef KVCL_ROPE_TABLE_H
#define KVCL_ROPE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

/* theta_i = base^(-2 i / n_rot) / freqs[i], i < n_rot / 2, slowed by the factor of a longer
 * context: linear   theta_i / factor YaRN     theta_i (1 / factor (1 - r_i) + r_i): fast pairs
 * stay, slow ones are slowed. r_i = 1 - clamp((i - low) / max(0.001, high - low), 0, 1) low =
 * max(0, floor c(beta_fast)), high = min(n_rot - 1, ceil c(beta_slow)) c(b) = n_rot ln(original_ctx
 * / (2 pi b)) / (2 ln base) source: linear arXiv:2306.15595; YaRN arXiv:2309.00071 */
typedef struct kvcl_rope_spec {
    uint32_t n_rot;
    bool yarn;
    double base, factor;                       /* base > 1; factor 1: as trained */
    double original_ctx, beta_fast, beta_slow; /* YaRN */
    const float *freqs;                        /* [n_rot / 2], borrowed; NULL: ones */
} kvcl_rope_spec;

/* out[pos][i] = (cos, sin) of pos * theta_i, pos < n_pos; error below 2^-24 of the f32 result for
 * angles up to 2^27. */
void kvcl_rope_table(float *out, uint32_t n_pos, const kvcl_rope_spec *spec);
/* What YaRN multiplies scores by besides: (1 + 0.1 ln factor)^2. */
double kvcl_rope_yarn_gain(double factor);

#endif
