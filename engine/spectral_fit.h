/* spectral_fit.h - from second moments to the bases, amplitudes and widths of a layer's spectral
 * pages (ops_spectral.h).
 *
 * Host code in doubles: + - * / and sqrt in a fixed order, so that every machine has the same bits.
 *
 *   V: C = covariance; E = S = its eigenvectors.
 *   K: an error e of a key costs the queries e^T M e, M their second moment plus a ridge.  M = L
 * L^T; eigenvectors U of L^T C L; E = U^T L^T, S = L^-T U: coefficients without correlation, whose
 *      errors cost as much as those of an orthonormal basis do.  (Any root of M gives the same
 *      coefficients; the triangular one needs no second eigenproblem.)
 *   Rows of E and S are scaled to a largest weight of 127 and rounded; gain[i] = 1 / (E[i] S[i]),
 * so that a coefficient alone comes back as it was.  Moments of the rounded E are taken exactly.
 * source: transform coding with reverse water filling; balanced bases as in the notes of the codec
 *   study: this project. */
#ifndef KVCL_SPECTRAL_FIT_H
#define KVCL_SPECTRAL_FIT_H

#include "base.h"
#include "ops_kv.h"
#include "ops_spectral.h"

/* How queries weigh the errors of keys.  A query meets a key turned by their distance, so that its
 * moments M before rotation count as R M R^T, R the turn by the distance. */
typedef enum kvcl_spectral_metric {
    KVCL_METRIC_NONE = 0, /* not at all: squared error */
    KVCL_METRIC_RAW = 1,  /* M: as if all keys were at the query's place */
    /* the mean over all turns of each pair by itself: the pairs' own mean squares alone are left */
    KVCL_METRIC_PAIRS = 2,
    /* the mean over distances below n_span, even in their logarithm: fast pairs turn freely, slow
     * ones hardly.  The best of all by far (bench/JOURNAL.md). */
    KVCL_METRIC_SPAN = 3
} kvcl_spectral_metric;

/* The distances that SPAN looks at: the whole parts of .5 * 2^(i/8), each once.  Returns the next
 * one from *power (KVCL_SPECTRAL_FIRST at first), which moves on, and how many i it stands for.  Of
 * those below 8192 there are fewer than KVCL_SPECTRAL_DISTANCES. */
#define KVCL_SPECTRAL_FIRST 0.5
#define KVCL_SPECTRAL_DISTANCES 128u
uint32_t kvcl_spectral_distance(double *power, uint32_t *times);

typedef struct kvcl_spectral_moments {
    const float *pages;   /* of gram_pages: [2][Hk][k][D][D], of n_slots slots (kvcl_gram_slots) */
    const float *queries; /* of gram_rows before rotation: [Hk][D][D]; NULL: metric NONE */
    uint32_t join; /* 0, or heads that make one of these (ops_spectral.h): queries are [Hk][join]
                      [D / join][D / join], n_rot and table those of one of them */
    uint32_t n_slots;
    kvcl_spectral_metric metric;
    kvcl_rope_pairing pairing; /* PAIRS and SPAN: which dimensions turn together */
    uint32_t n_rot;
    const float *table; /* SPAN: angles of its distances below n_span, [][n_rot/2][2] (cos, sin), as
                           rope_store has them */
    uint32_t n_span;    /* 0: RAW */
    /* of K and V: what the moments of each Walsh row get on their diagonal, as a part of its mean.
     * Tokens to come are not like those of the fit: without it they meet directions without bits.
     */
    double shrink[2];
    double ridge; /* of M, as a part of the mean of its diagonal; 0: 1e-3 */
} kvcl_spectral_moments;

typedef struct kvcl_spectral_fit {
    kvcl_spectral_part *parts;  /* [2][Hk] (K, then V) for kvcl_spectral_pack; n_comp is D */
    double *cost;               /* [2][Hk][k][D]: what leaving a coefficient out costs per token */
    double error[2], energy[2]; /* of K and V per token, all heads: expected cost of coding, and the
                                   cost of no codes at all; in the metric */
} kvcl_spectral_fit;

/* A layer's fit on n_threads threads (0: one); moments are borrowed.  E_ARG when there is no
 * slot, E_NOT_FINITE when a moment is not finite or too large.  What has no variance gets no bits.
 * cost: a Jacobi eigenproblem of size D and 2 k D^3 flops for each of K, V and head. */
kvcl_status kvcl_spectral_fit_make(kvcl_ctx *ctx, const kvcl_spectral_shape *shape,
                                   const kvcl_spectral_moments *moments, uint32_t n_threads,
                                   kvcl_spectral_fit *out);
void kvcl_spectral_fit_free(kvcl_ctx *ctx, kvcl_spectral_fit *fit);

#endif
