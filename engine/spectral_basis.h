/* spectral_basis.h - the basis of one KV head's K or V: a step of spectral_fit.c. */
#ifndef KVCL_SPECTRAL_BASIS_H
#define KVCL_SPECTRAL_BASIS_H

#include "spectral_fit.h"

/* Doubles of scratch. */
size_t kvcl_spectral_basis_scratch(uint32_t head_dim);
/* Where a metric may stand in it. */
double *kvcl_spectral_metric_at(uint32_t head_dim, double *scratch);

typedef struct kvcl_spectral_basis {
    uint32_t D, fold, n_slots;
    double shrink;     /* of kvcl_spectral_moments */
    const float *gram; /* [k][D][D] */
    const double
        *metric; /* [D][D] positive definite, may be at kvcl_spectral_metric_at; NULL: none */
    int8_t *synth, *analysis; /* [D][D]; analysis unused without a metric */
    float *gain, *amp;        /* [D], [k][D] */
    double *cost;             /* [k][D]: what leaving u[r][i] out costs per token, in the metric */
} kvcl_spectral_basis;

/* False when the eigenproblem did not converge. */
bool kvcl_spectral_basis_make(const kvcl_spectral_basis *b, double *scratch);

/* M of head h: second moments of queries as a metric, with a ridge; the identity when there are
 * none.  Of joined heads: theirs along the diagonal, since no query meets two of them.
 * out, work [D][D]. */
void kvcl_spectral_metric_make(const kvcl_spectral_moments *m, uint32_t D, uint32_t h, double *work,
                               double *out);

#endif
