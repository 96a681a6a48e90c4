/* spectral_rest.h - the basis of pages at rest (ops_rest.h): that of spectral_fit.h with a code of
 * eight bits for every coefficient, steps that all cost the same, and matrices as fine as they have
 * to be, entropy coded.
 *
 * An error of one step costs as much in every coefficient of K and of all its heads: uniform
 * quantisation in the queries' metric, where entropy coding spends the bits by itself.  V likewise
 * without a metric.  Steps of rung 320 are the root mean square of K's coefficients, and of V's.
 *
 * Matrices are rounded likewise: what a row of the synthesis adds to keys or values is off by the
 * same, however large its coefficients are, and what a row of K's analysis finds, too; both in
 * proportion to the step that pages of this rate will have.  Components far below it are left out.
 * The proportion is the finest with which the streams fit their room, which depends on the shape
 * and the rate alone. */
#ifndef KVCL_SPECTRAL_REST_H
#define KVCL_SPECTRAL_REST_H

#include "dev.h"
#include "spectral_fit.h"

/* A layer's basis as it is kept, by bytes from its first:
 *   tables   of each part (K of the shape's heads, then V) its head and what stands behind its
 *            matrices in ops_spectral.h's basis
 *   scales   i16 [words_k + words_v] as ops_rest.h has them
 *   models   u8, of each row of each part's matrices: a row is the four components [D][4] that
 *            stand together, the analysis' rows come behind the synthesis'
 *   places   u32 [chunk][2] as of rans_dec, counted from the streams: a chunk is KVCL_REST_CHUNK
 *            rows, a page of the entropy coder
 *   streams  of all chunks
 * The shape's fold is 1. */
typedef struct kvcl_rest_basis {
    size_t scales, models, places, streams, bytes;
} kvcl_rest_basis;

#define KVCL_REST_CHUNK 8u /* of rows */

kvcl_rest_basis kvcl_rest_basis_layout(const kvcl_spectral_shape *shape, uint32_t rate);

/* Matrices of a part, chunks of them. */
static inline uint32_t kvcl_rest_matrices(bool of_v) { return of_v ? 1 : 2; }
static inline uint32_t kvcl_rest_chunks(const kvcl_spectral_shape *s, bool of_v)
{
    return kvcl_rest_matrices(of_v) * s->head_dim / (4 * KVCL_REST_CHUNK);
}

/* basis: the layout's bytes, all written; rate: of pages, hundredths of a bit.
 * Errors: kvcl_spectral_fit_make.  cost: that, and some 10 times the coding of the matrices. */
kvcl_status kvcl_spectral_rest_make(kvcl_ctx *ctx, const kvcl_spectral_shape *shape,
                                    const kvcl_spectral_moments *moments, uint32_t n_threads,
                                    uint32_t rate, void *basis);

/* A basis as it is kept to one of ops_spectral.h, `full`, all of it but what nobody reads.
 *   rans: the coder's table; bad: u32 [chunks of K] of work.  What is not a stream becomes zeros.
 * Enqueues. */
kvcl_status kvcl_spectral_rest_open(kvcl_queue *q, const kvcl_spectral_shape *shape, uint32_t rate,
                                    kvcl_view basis, kvcl_view rans, kvcl_view full, kvcl_view bad);

#endif
