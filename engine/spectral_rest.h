/* spectral_rest.h - the basis of pages at rest (ops_rest.h): that of spectral_fit.h with a code of
 * eight bits for every coefficient and steps that all cost the same.
 *
 * An error of one step costs as much in every coefficient of K and of all its heads: uniform
 * quantisation in the queries' metric, where entropy coding spends the bits by itself.  V likewise
 * without a metric.  Steps of rung 320 are the root mean square of K's coefficients, and VALUE_STEP
 * times that of V's. */
#ifndef KVCL_SPECTRAL_REST_H
#define KVCL_SPECTRAL_REST_H

#include "spectral_fit.h"

/* basis: kvcl_spectral_basis_bytes of the shape, whose words are those of all codes at 8 bits;
 * scales i16 [words_k + words_v] as ops_rest.h has them.  Errors: kvcl_spectral_fit_make. */
kvcl_status kvcl_spectral_rest_make(kvcl_ctx *ctx, const kvcl_spectral_shape *shape,
                                    const kvcl_spectral_moments *moments, uint32_t n_threads,
                                    void *basis, int16_t *scales);

#endif
