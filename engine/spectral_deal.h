/* spectral_deal.h - who gets how many bits: widths of codes under a budget of whole words. */
#ifndef KVCL_SPECTRAL_DEAL_H
#define KVCL_SPECTRAL_DEAL_H

#include "base.h"

/* Squared error of a code of 0, 1, 2, 4 or 8 bits of a Gaussian of variance 1. */
double kvcl_spectral_distortion(uint32_t bits);

/* Widths 0, 1, 2, 4, 8 for n_heads times n numbers of the given variances (>= 0; each a weight of
 * the numbers' errors, too) that minimise the sum of variance * distortion(width) exactly, under
 *   sum over heads and planes b = 8, 4, 2, 1 of ceil(b * (codes of b bits) / 32) <= words.
 * A variance of 0 gets no bits.  variance, width [n_heads][n]; n at most 2048; *error_out: that
 * sum. E_MEM only. */
kvcl_status kvcl_spectral_deal(kvcl_ctx *ctx, uint32_t n_heads, uint32_t n, const double *variance,
                               uint32_t words, uint8_t *width, double *error_out);

#endif
