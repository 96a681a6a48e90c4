/* cmd_frontier_basis.c - bases in which sketches keep coordinates.  See cmd_frontier.h. */
#include "cmd_frontier.h"

#include "jacobi.h"

#include <math.h>

#define RIDGE 1e-4 /* least moment of queries, as a part of the mean one */
#define PITCH 8    /* jacobi.h: rows that much longer, for the cache */

size_t kvcl_frontier_basis_work(uint32_t D) { return (size_t)D * (7 * D + PITCH + 4); }

/* Eigenvalues, falling, and vectors (rows) of a [D][D]; spare [D][D + PITCH]. */
static bool eigen(uint32_t D, const double *a, double *spare, double *values, double *vectors,
                  uint32_t *order)
{
    for (uint32_t i = 0; i < D; i++)
        memcpy(spare + (size_t)i * (D + PITCH), a + (size_t)i * D, D * sizeof *a);
    return kvcl_jacobi(D, D + PITCH, spare, values, vectors, order);
}

/* out = sum over i of f_i v_i v_i^T, v_i row i. */
static void compose(uint32_t D, const double *f, const double *v, double *out)
{
    memset(out, 0, (size_t)D * D * sizeof *out);
    for (uint32_t i = 0; i < D; i++)
        for (uint32_t a = 0; a < D; a++) {
            const double x = f[i] * v[(size_t)i * D + a];
            for (uint32_t b = 0; b < D; b++)
                out[(size_t)a * D + b] += x * v[(size_t)i * D + b];
        }
}

/* out = a b; not in place. */
static void multiply(uint32_t D, const double *a, const double *b, double *out)
{
    memset(out, 0, (size_t)D * D * sizeof *out);
    for (uint32_t i = 0; i < D; i++)
        for (uint32_t k = 0; k < D; k++) {
            const double x = a[(size_t)i * D + k];
            for (uint32_t j = 0; j < D; j++)
                out[(size_t)i * D + j] += x * b[(size_t)k * D + j];
        }
}

/* |to_query^T to_key - 1| */
static double defect_of(uint32_t D, const double *to_key, const double *to_query, double *product)
{
    double square = 0;
    memset(product, 0, (size_t)D * D * sizeof *product);
    for (uint32_t k = 0; k < D; k++)
        for (uint32_t i = 0; i < D; i++) {
            const double x = to_query[(size_t)k * D + i];
            for (uint32_t j = 0; j < D; j++)
                product[(size_t)i * D + j] += x * to_key[(size_t)k * D + j];
        }
    for (uint32_t i = 0; i < D; i++)
        for (uint32_t j = 0; j < D; j++) {
            const double x = product[(size_t)i * D + j] - (i == j ? 1 : 0);
            square += x * x;
        }
    return sqrt(square);
}

/* root, unroot = queries^(1/2), queries^(-1/2) with a ridge; the identity without queries. */
static bool roots(uint32_t D, const double *queries, double *spare, double *values, double *vectors,
                  uint32_t *order, double *root, double *unroot)
{
    double mean = 0;
    if (!eigen(D, queries, spare, values, vectors, order))
        return false;
    for (uint32_t i = 0; i < D; i++)
        mean += values[i] / D;
    for (uint32_t i = 0; i < D; i++)
        values[i] = mean > 0 ? sqrt(fmax(values[i], RIDGE * mean)) : 1;
    compose(D, values, vectors, root);
    for (uint32_t i = 0; i < D; i++)
        values[i] = 1 / values[i];
    compose(D, values, vectors, unroot);
    return true;
}

bool kvcl_frontier_basis(kvcl_frontier_kind kind, uint32_t D, const double *keys,
                         const double *queries, double *work, double *to_key, double *to_query,
                         double *defect)
{
    const size_t square = (size_t)D * D;
    double *root = work, *unroot = root + square, *product = unroot + square;
    double *moments = product + square, *vectors = moments + square;
    double *spare = vectors + square, *values = spare + square + (size_t)D * PITCH;
    uint32_t *order = (uint32_t *)(void *)(values + D);
    double largest = 0;
    if (kind == KVCL_SKETCH_PCA) {
        if (!eigen(D, keys, spare, values, to_key, order))
            return false;
        memcpy(to_query, to_key, square * sizeof *to_key);
        *defect = defect_of(D, to_key, to_query, product);
        return true;
    }
    if (!roots(D, queries, spare, values, vectors, order, root, unroot))
        return false;
    multiply(D, root, keys, product);
    multiply(D, product, root, moments);
    if (!eigen(D, moments, spare, values, vectors, order))
        return false;
    multiply(D, vectors, root, to_key);
    multiply(D, vectors, unroot, to_query);
    for (uint32_t i = 0; i < D; i++)
        largest = fmax(largest, values[i]);
    for (uint32_t i = 0; i < D && kind == KVCL_SKETCH_BALANCED; i++) {
        /* the fourth root of a square of S; a direction without keys is scaled as if it had some */
        const double f = sqrt(sqrt(fmax(values[i], 1e-12 * largest + 1e-300)));
        for (uint32_t j = 0; j < D; j++) {
            to_key[(size_t)i * D + j] /= f;
            to_query[(size_t)i * D + j] *= f;
        }
    }
    *defect = defect_of(D, to_key, to_query, product);
    return true;
}
