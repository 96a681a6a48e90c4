/* svd.h - the steps of a decomposition, which the twin and the SIMD paths run in one order. */
#ifndef KVCL_CPU_SVD_H
#define KVCL_CPU_SVD_H

#include "cpu_int.h"
#include "shared.h"

#define KVCL_SVD_PANEL 64 /* rows that `gram` may take at once */

/* Rows of values that are taken times a scale; those below `least` then are 0.  `stride` apart. */
typedef struct kvcl_svd_rows {
    const float *x;
    uint32_t rows, n, stride;
    float scale, least;
} kvcl_svd_rows;

/* The pairs of a round: their rows, their elements of the matrix, their rotations. */
#define KVCL_SVD_PAIRS (KVCL_SVD_MAX_SKETCH / 2)
typedef struct kvcl_svd_pairs {
    uint32_t p[KVCL_SVD_PAIRS], q[KVCL_SVD_PAIRS];
    float pp[KVCL_SVD_PAIRS], qq[KVCL_SVD_PAIRS], pq[KVCL_SVD_PAIRS];
    float t[KVCL_SVD_PAIRS], s[KVCL_SVD_PAIRS], tau[KVCL_SVD_PAIRS];
} kvcl_svd_pairs;

/* Pads between sizes and strides hold zeros. */
typedef struct kvcl_svd_steps {
    /* Bits of the largest magnitude of n values, KVCL_SVD_BAD_BITS or more when one is not finite.
     */
    uint32_t (*max_bits)(const float *x, size_t n);
    /* g [n][stride] = X^T X; panel: KVCL_SVD_PANEL * stride floats. */
    void (*gram)(const kvcl_svd_rows *x, float *g, uint32_t stride, float *panel);
    /* h[j][i] = sum over r of g[r][i] z[j][r] for rows j < l of n, a multiple of 16; below 2^-40:
     * 0. */
    void (*apply)(const float *g, const float *z, float *h, uint32_t l, uint32_t n);
    /* a.b of ops_svd.h, n a multiple of 16: out[j] = a[j] . b for j < m, rows `n` apart. */
    void (*dots)(const float *a, const float *b, uint32_t m, uint32_t n, float *out);
    /* b -= sum over j of h[j] a[j]. */
    void (*subtract)(const float *a, const float *h, float *b, uint32_t m, uint32_t n);
    /* The rotations of m pairs from their elements of the matrix. */
    void (*angles)(kvcl_svd_pairs *p, uint32_t m);
    /* Rows p and q of x [..][stride] of each of m pairs turned. */
    void (*turn_rows)(float *x, uint32_t stride, const kvcl_svd_pairs *p, uint32_t m);
    /* out = in transposed, [n][n], n a multiple of 16. */
    void (*transpose)(const float *in, float *out, uint32_t n);
    /* out [rows][n_out], rows out_stride apart, = X M * factor; m [n][m_stride], factor
     * [m_stride]; -0 becomes 0, and what is below `least` before the factor. */
    void (*times)(const kvcl_svd_rows *x, const float *m, uint32_t m_stride, const float *factor,
                  float least, float *out, uint32_t n_out, uint32_t out_stride);
} kvcl_svd_steps;

/* As `angles`: in a header, so that each path compiles it for its own instructions. */
static inline void kvcl_svd_angles(kvcl_svd_pairs *p, uint32_t m)
{
    for (uint32_t i = 0; i < m; i++) {
        kvcl_rotation r = kvcl_svd_rotation(p->pp[i], p->qq[i], p->pq[i]);
        p->t[i] = r.t;
        p->s[i] = r.s;
        p->tau[i] = r.tau;
    }
}

/* The op with these steps. */
void kvcl_cpu_svd_run(const kvcl_rsvd_args *a, kvcl_cpu_part *p, const kvcl_svd_steps *steps);

#endif
