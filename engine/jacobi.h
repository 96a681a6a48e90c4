/* jacobi.h - eigenvalues and eigenvectors of a symmetric matrix, the same bits on every machine. */
#ifndef KVCL_JACOBI_H
#define KVCL_JACOBI_H

#include <stdbool.h>
#include <stdint.h>

/* a [n] rows `pitch` >= n apart, symmetric, finite, destroyed; values [n] descending, vectors
 * [n][n]: row i belongs to value i, rows orthonormal.  order: n words of scratch.  False when it
 * did not converge, which finite input does not do. Doubles with + - * / and sqrt in a fixed order.
 * cost: about 7 sweeps of 6 n^3 flops. Columns are written, too: with n a power of two a pitch of n
 * + 8 takes half the time of n (cache). source: cyclic Jacobi by rows; rotations as in Golub and
 * Van Loan, chapter 8. */
bool kvcl_jacobi(uint32_t n, uint32_t pitch, double *a, double *values, double *vectors,
                 uint32_t *order);

#endif
