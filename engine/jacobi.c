/* jacobi.c - see jacobi.h.
 *
 * Rotations touch rows alone: a rotation of two rows and then of the same two columns leaves a
 * symmetric matrix, so that the columns are copies of the new rows. */
#include "jacobi.h"

#include <math.h>
#include <string.h>

#define MAX_SWEEPS 60
#define NOTHING 1e-15 /* of the matrix's norm: elements that small stay */

/* Rows x, y of n values to c x - s y, s x + c y. */
static void rotate(uint32_t n, double c, double s, double *restrict x, double *restrict y)
{
    for (uint32_t k = 0; k < n; k++) {
        double a = x[k], b = y[k];
        x[k] = c * a - s * b;
        y[k] = s * a + c * b;
    }
}

/* Makes a[p][q] zero. */
static void annihilate(uint32_t n, uint32_t pitch, double *a, double *vectors, uint32_t p,
                       uint32_t q)
{
    double *row_p = a + (size_t)p * pitch, *row_q = a + (size_t)q * pitch;
    double apq = row_p[q], app = row_p[p], aqq = row_q[q];
    double theta = (aqq - app) / (2.0 * apq), size = theta < 0.0 ? -theta : theta;
    double t = 1.0 / (size + sqrt(theta * theta + 1.0));
    t = theta < 0.0 ? -t : t;
    double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
    rotate(n, c, s, row_p, row_q);
    row_p[p] = app - t * apq;
    row_q[q] = aqq + t * apq;
    row_p[q] = row_q[p] = 0.0;
    for (uint32_t k = 0; k < n; k++) {
        a[(size_t)k * pitch + p] = row_p[k];
        a[(size_t)k * pitch + q] = row_q[k];
    }
    rotate(n, c, s, vectors + (size_t)p * n, vectors + (size_t)q * n);
}

/* True when no element off the diagonal is above `nothing`. */
static bool sweep(uint32_t n, uint32_t pitch, double *a, double *vectors, double nothing)
{
    bool done = true;
    for (uint32_t p = 0; p + 1 < n; p++) {
        for (uint32_t q = p + 1; q < n; q++) {
            double apq = a[(size_t)p * pitch + q];
            if (apq <= nothing && apq >= -nothing)
                continue;
            annihilate(n, pitch, a, vectors, p, q);
            done = false;
        }
    }
    return done;
}

/* Values of the diagonal in falling order (equal ones in rising order of index), vectors likewise;
 * a is scratch. */
static void sort(uint32_t n, uint32_t pitch, double *a, double *values, double *vectors,
                 uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++) {
        double value = a[(size_t)i * pitch + i];
        uint32_t at = i;
        for (; at > 0 && values[at - 1] < value; at--) {
            values[at] = values[at - 1];
            order[at] = order[at - 1];
        }
        values[at] = value;
        order[at] = i;
    }
    memcpy(a, vectors, (size_t)n * n * sizeof *a);
    for (uint32_t i = 0; i < n; i++)
        memcpy(vectors + (size_t)i * n, a + (size_t)order[i] * n, n * sizeof *a);
}

bool kvcl_jacobi(uint32_t n, uint32_t pitch, double *a, double *values, double *vectors,
                 uint32_t *order)
{
    double square = 0.0;
    bool done = false;
    memset(vectors, 0, (size_t)n * n * sizeof *vectors);
    for (uint32_t i = 0; i < n; i++)
        vectors[(size_t)i * n + i] = 1.0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < n; k++)
            square += a[(size_t)i * pitch + k] * a[(size_t)i * pitch + k];
    for (uint32_t i = 0; i < MAX_SWEEPS && !done; i++)
        done = sweep(n, pitch, a, vectors, NOTHING * sqrt(square));
    sort(n, pitch, a, values, vectors, order);
    return done;
}
