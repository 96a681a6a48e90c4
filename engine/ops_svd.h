/* ops_svd.h - arguments of the randomised singular value decomposition. */
#ifndef KVCL_OPS_SVD_H
#define KVCL_OPS_SVD_H

#include "ops_kv.h"

/* rsvd - the `rank` largest singular values of n matrices and their vectors: A ~ U diag(S) V^T.
 *   a f32 [n][rows][cols]; ids u32 [n][3]: layer, head and page, which with the seed key the random
 *   numbers; u f32 [n][rows][rank], s f32 [n][rank], v f32 [n][cols][rank]; bad i32 [n]: 1 when a
 *   value is not finite or its magnitude is 2^100 or more (the matrix then counts as zero), else 0.
 *   cols at most 256, rows at most 2^20, l = rank + oversample at most 128 and at most cols.
 *   S descends.  Of each column of V the entry of largest magnitude (the first such) is positive.
 *   Where the matrix has no more rank (S[c] <= 2^-20 S[0]): S[c] = 0, U's column is zero, V's is
 *   still a unit vector at right angles to the others.
 *   Matrices below 2^-80 count as zero.
 *
 * Range finder with power iterations seen from the rows' side: span((A^T A)^(power + 1) Omega),
 * with Omega = +-1, is the row space of Q^T A of the textbook form (Y = (A A^T)^power A Omega = Q
 * R). A^T A is formed once, so that an iteration costs cols^2 l instead of 2 rows cols l, and what
 * is made orthogonal has cols rows instead of `rows`.  Forming it loses directions below about 5e-4
 * of the largest singular value; what the sketch holds of them, U and S come from A (steps 3 to 6).
 *
 *   A' = A * 2^-exponent of the largest magnitude; a magnitude below 2^-30 becomes 0
 *   1. G = A'^T A': chains over the rows, ascending.
 *   2. Z = signs (kvcl_svd_sign, round 0); power + 1 times, it = 0, 1 ..: H = G Z, chains over G's
 *      columns ascending; Z = H made orthonormal, column by column, z = H[c]:
 *        r0 = z.z; twice: h_j = Z_j.z of all j < c, then z = z - sum h_j Z_j, chains over j;
 *        if not z.z > 2^-40 r0: z = signs of column c, round it + 1, and once more the above;
 *        Z_c = z * rsqrt(z.z) (0 when z.z < 2^-40).
 *      a.b: 8 lanes by index mod 8, fma chains, halving tree.
 *   3. U1 = A' Z: chains over the columns ascending.
 *   4. C = U1^T U1 as in 1.
 *   5. Eigenvalues e and vectors (rows of W) of C: KVCL_SVD_SWEEPS cyclic Jacobi sweeps, pairs as
 *      kvcl_svd_player tells, all pairs of a round together: rotations from C; C = rows of C
 *      turned; C = its transpose, rows turned; C[p][p] = fma(-t, cpq, cpp), C[q][q] = fma(t, cpq,
 *      cqq), C[p][q] = C[q][p] = 0; rows of W (first I) turned.
 *      o(c): eigenvalues descending, equal ones by index.
 *   6. S = e rsqrt(e) 2^exponent; V[i][c] = chain over a of Z[i][a] W[o(c)][a], U[t][c] = chain
 *      over a of U1[t][a] W[o(c)][a], times rsqrt(e).
 *   Sums of G, U1, C and what Jacobi turns become 0 below 2^-60, those of H, Z below 2^-40.
 * The columns of Z come out of the iterations by descending singular value, so that U1's lengths
 * and C are graded and Jacobi's small eigenvalues, and with them U, keep their own accuracy.
 *
 * scratch: kvcl_rsvd_scratch_bytes(), U1 first; no view overlaps a written one.
 * cost: rows (cols^2 + 2 cols l + l^2 + 2 l rank) + 2 (power + 1) cols^2 l flops and about 40 l^3
 *   for the eigenvalues.
 * source: Halko, Martinsson, Tropp arXiv:0909.4061, algorithms 4.4 and 5.1; Jacobi: Golub and Van
 *   Loan 8.5; "twice is enough": Giraud et al. 2005.
 * twins: cl/svd.cl  cpu/svd.c  tests/case_svd.c */
typedef struct kvcl_rsvd_args {
    kvcl_view a, ids, u, s, v, bad, scratch;
    uint32_t n, rows, cols, rank, oversample, power;
    uint64_t seed;
} kvcl_rsvd_args;

/* Sizes and places of a matrix's working memory, in floats; np, ls: cols and l rounded up to 16. */
#define KVCL_SVD_META 272
typedef struct kvcl_svd_layout {
    uint32_t l, np, ls;
    size_t g;       /* [np][np] */
    size_t z, h;    /* [ls][np], a column of the sketch each */
    size_t c, w, x; /* [ls][ls] */
    size_t meta;    /* KVCL_SVD_META: a backend's own */
    size_t floats;
} kvcl_svd_layout;

kvcl_svd_layout kvcl_svd_layout_of(uint32_t cols, uint32_t l);
size_t kvcl_rsvd_scratch_bytes(uint32_t n, uint32_t rows, uint32_t cols, uint32_t l);

#endif
