/* rope_table.h - cosines and sines of RoPE, the same bits on every host: double precision + - * and
 * division only, no libm. */
#ifndef KVCL_ROPE_TABLE_H
#define KVCL_ROPE_TABLE_H

#include <stdint.h>

/* out[pos][i] = (cos, sin) of pos * scale * base^(-2 i / n_rot), i < n_rot / 2, pos < n_pos.
 * base > 1; error below 2^-24 of the f32 result for angles up to 2^27. */
void kvcl_rope_table(float *out, uint32_t n_pos, uint32_t n_rot, double base, double scale);

#endif
