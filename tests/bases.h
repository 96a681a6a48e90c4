/* bases.h - made-up bases for the cases of spectral pages. */
#ifndef KVCL_TEST_BASES_H
#define KVCL_TEST_BASES_H

#include "codec.h"
#include "pages.h"

#define TEST_MIXED 0 /* "bits": heads of different widths, counts and amplitudes */

/* Orthonormal rows [n][n]: those of Hadamard's matrix in blocks, mirrored twice at random. */
float *test_orthonormal(test_run *r, uint32_t n);

typedef struct test_spectral {
    kvcl_spectral_shape shape;
    kvcl_spectral_part *parts; /* [2][Hk] */
    kvcl_view basis;
} test_spectral;

/* Orthonormal directions in random order, rounded to int8, their amplitudes those of Gaussian rows
 * of unit variance.  Bits of all codes of K and V: 8, 4, 2, 1, or TEST_MIXED, where half the
 * components have no code, head 1 of three has none in K, K's analysis is not its synthesis and
 * the words have room to spare. */
test_spectral test_spectral_make(test_run *r, uint32_t dim, uint32_t n_kv, uint32_t fold,
                                 uint32_t bits_k, uint32_t bits_v);

/* Second moments of `n` made-up rows that favour some directions: [n_matrices][D][D]. */
float *test_moments(test_run *r, uint32_t n_matrices, uint32_t D, uint32_t n);
/* Tables, fault and memory (of encode, of attend and decode) of a codec that wants them. */
void test_codec_work(test_run *r, const kvcl_codec_plan *plan, kvcl_codec_pages *pages,
                     kvcl_view work[2]);

#endif
