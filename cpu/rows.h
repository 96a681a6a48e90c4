/* rows.h - what the scalar twins share: canonical sums, dequantised rows, a normalised row,
 * elements of raw pages, rotation by position. */
#ifndef KVCL_CPU_ROWS_H
#define KVCL_CPU_ROWS_H

#include "cpu_int.h"
#include "types.h"

/* Halving tree over n lanes (a power of two), in place; returns lane 0 with -0 made +0. */
float kvcl_cpu_tree(float *lanes, uint32_t n);
/* sum64 of a[k] * b[k]. */
float kvcl_cpu_dot64(const float *a, const float *b, uint32_t n);
/* One row through a norm spec (NONE copies); out may be x. */
void kvcl_cpu_norm_row(const kvcl_norm_spec *spec, const float *x, float *out, uint32_t dim);
/* The activation quantiser: codes [n], scales [n / 32]. */
void kvcl_cpu_quant_row(const float *x, int8_t *codes, float *scales, uint32_t n);

/* Element of dimension d of token t, counted from where a head's raw page begins.  d may go on into
 * the heads behind it, each of raw_dim. */
static inline size_t kvcl_cpu_raw_at(bool of_v, uint32_t raw_dim, uint32_t t, uint32_t d)
{
    return of_v ? ((size_t)(d / raw_dim) * KVCL_PAGE_TOKENS + t) * raw_dim + d % raw_dim
                : (size_t)d * KVCL_PAGE_TOKENS + t;
}
/* Element `at` of a pool of F16 or F32. */
float kvcl_cpu_load(kvcl_type type, const void *pool, size_t at);
void kvcl_cpu_store(kvcl_type type, void *pool, size_t at, float x);
/* Turns a head in place by a row of the rope table, `cs` [n_rot/2][2] (NONE: leaves it); back: the
 * other way. */
void kvcl_cpu_turn(kvcl_rope_pairing pairing, uint32_t n_rot, const float *cs, bool back, float *x);
/* Fast Walsh-Hadamard transform of n values, a power of two, in place; no factor. */
void kvcl_cpu_fwht_row(float *x, uint32_t n);

#endif
