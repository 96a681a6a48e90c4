/* case_svd.c - the randomised singular value decomposition.  Kernel: cl/svd.cl; twin: cpu/svd.c
 *
 * Identities: a power of two times the matrix has S times it and the same U and V, bit for bit; a
 * matrix alone has the bits it has in a batch.  In double precision: U and V are orthonormal where
 * S is not 0, A V = U S, S descends, what is left over has the energy ||A||^2 - ||S||^2, a sketch
 * of all columns leaves nothing. */
#include "case.h"

#include <math.h>

enum { RANDOM, DEFICIENT, GRADED, ZERO, HUGE_VALUES, SMALL_VALUES, NOT_FINITE, DENORMAL, EQUAL };
static const char *const kinds[] = {"",       " deficient",  " graded",   " zero", " huge",
                                    " small", " not finite", " denormal", " equal"};

typedef struct svd_params {
    uint32_t n, rows, cols, rank, oversample, power, kind;
} svd_params;

typedef struct svd_views {
    kvcl_view u, s, v, bad;
} svd_views;

static svd_views decompose(test_run *r, const svd_params *p, const float *a, const uint32_t *ids,
                           uint32_t n)
{
    kvcl_rsvd_args args = {.n = n,
                           .rows = p->rows,
                           .cols = p->cols,
                           .rank = p->rank,
                           .oversample = p->oversample,
                           .power = p->power,
                           .seed = 0x1234567890abcdefu};
    svd_views out;
    args.a = test_in(r, a, (size_t)n * p->rows * p->cols * 4);
    args.ids = test_in(r, ids, (size_t)n * 12);
    args.u = out.u = test_out(r, (size_t)n * p->rows * p->rank * 4);
    args.s = out.s = test_out(r, (size_t)n * p->rank * 4);
    args.v = out.v = test_out(r, (size_t)n * p->cols * p->rank * 4);
    args.bad = out.bad = test_out(r, (size_t)n * 4);
    args.scratch =
        test_scratch(r, kvcl_rsvd_scratch_bytes(n, p->rows, p->cols, p->rank + p->oversample));
    test_ok(r, kvcl_op_rsvd(r->d->q, &args));
    return out;
}

static void fill(test_run *r, const svd_params *p, float *x)
{
    const size_t size = (size_t)p->rows * p->cols;
    const uint32_t inner = p->cols < 4 ? 1 : p->cols / 4;
    test_fill_f32(&r->rng, x, size, 3.0f);
    for (size_t i = 0; i < size && p->kind != RANDOM; i++)
        switch (p->kind) {
        case ZERO:
            x[i] = i % 3 ? 0.0f : -0.0f;
            break;
        case GRADED: /* columns fall by 0.8 each */
            x[i] *= powf(0.8f, (float)(i % p->cols));
            break;
        case HUGE_VALUES:
            x[i] *= 0x1p97f;
            break;
        case SMALL_VALUES:
            x[i] *= 0x1p-78f;
            break;
        case DENORMAL: /* counts as zero */
            x[i] *= 0x1p-130f;
            break;
        case EQUAL:
            x[i] = 1.5f;
            break;
        case DEFICIENT: /* column c is a multiple of column c mod inner */
            if (i % p->cols >= inner)
                x[i] =
                    x[i / p->cols * p->cols + i % p->cols % inner] * (float)(1 + i % p->cols % 3);
            break;
        default:
            break;
        }
}

static float *inputs(test_run *r, const svd_params *p, uint32_t **ids_out)
{
    const size_t size = (size_t)p->rows * p->cols;
    float *a = test_mem(r, p->n * size * sizeof *a);
    uint32_t *ids = test_mem(r, (size_t)p->n * 12);
    for (uint32_t b = 0; b < p->n; b++) {
        fill(r, p, a + b * size);
        ids[3 * b] = 5;
        ids[3 * b + 1] = b / 2;
        ids[3 * b + 2] = 1000 + b;
    }
    if (p->kind == NOT_FINITE) { /* the others of the batch are good */
        static const float bad[3] = {NAN, -INFINITY, 0x1p100f};
        for (uint32_t b = 0; b < p->n && b < 3; b++)
            a[b * size + test_below(&r->rng, (uint32_t)size)] = bad[b];
    }
    *ids_out = ids;
    return a;
}

static void run(test_run *r, const void *params)
{
    const svd_params *p = params;
    uint32_t *ids;
    float *a = inputs(r, p, &ids);
    decompose(r, p, a, ids, p->n);
}

/* The columns of x [rows][rank] are orthonormal, where s is not 0. */
static void check_columns(const float *x, const float *s, uint32_t rows, uint32_t rank,
                          const char *what)
{
    for (uint32_t c = 0; c < rank; c++)
        for (uint32_t d = 0; d <= c; d++) {
            double sum = 0.0;
            for (uint32_t i = 0; i < rows; i++)
                sum += (double)x[i * rank + c] * (double)x[i * rank + d];
            bool zero = s && s[c] == 0.0f;
            test_close(sum, c == d && !zero ? 1.0 : 0.0, 2e-5, what, c);
        }
}

/* A V = U S; returns the energy of A - U S V^T and of A. */
static void residual(const svd_params *p, const float *a, const float *u, const float *s,
                     const float *v, double out[2])
{
    out[0] = out[1] = 0.0;
    for (uint32_t t = 0; t < p->rows; t++) {
        for (uint32_t c = 0; c < p->rank; c++) {
            double sum = 0.0;
            for (uint32_t i = 0; i < p->cols; i++)
                sum += (double)a[t * p->cols + i] * (double)v[i * p->rank + c];
            test_close((double)u[t * p->rank + c] * (double)s[c], sum, 4e-6 * (double)s[0],
                       "A V = U S", c);
        }
        for (uint32_t i = 0; i < p->cols; i++) {
            double x = (double)a[t * p->cols + i];
            out[1] += x * x;
            for (uint32_t c = 0; c < p->rank; c++)
                x -= (double)u[t * p->rank + c] * (double)s[c] * (double)v[i * p->rank + c];
            out[0] += x * x;
        }
    }
}

static void check_properties(const svd_params *p, const float *a, const float *u, const float *s,
                             const float *v)
{
    double energy[2], kept = 0.0;
    for (uint32_t c = 0; c < p->rank; c++) {
        kept += (double)s[c] * (double)s[c];
        test_require(s[c] >= 0.0f && (c == 0 || s[c] <= s[c - 1]), "S[%u] = %g", c, (double)s[c]);
    }
    check_columns(u, s, p->rows, p->rank, "U^T U");
    if (p->cols >= 16) /* a few signs of a small matrix may be all alike */
        check_columns(v, NULL, p->cols, p->rank, "V^T V");
    residual(p, a, u, s, v, energy);
    test_close(energy[0], energy[1] - kept, 4e-6 * energy[1], "energy left over", 0);
    if (p->rank == p->cols || p->kind == DEFICIENT || p->kind == EQUAL)
        test_close(energy[0], 0.0, 1e-10 * energy[1], "nothing is left over", 0);
}

static void identity(test_run *r, const void *params)
{
    const svd_params *p = params;
    const size_t size = (size_t)p->rows * p->cols;
    const size_t nu = (size_t)p->rows * p->rank, nv = (size_t)p->cols * p->rank;
    uint32_t *ids;
    float *a = inputs(r, p, &ids);
    svd_views all = decompose(r, p, a, ids, p->n);
    uint32_t last = p->n - 1;
    svd_views alone = decompose(r, p, a + last * size, ids + 3 * last, 1);
    float *scaled = test_mem(r, size * sizeof *scaled);
    const float factor = p->kind == HUGE_VALUES ? 0x1p-20f : 2.0f;
    for (size_t i = 0; i < size; i++)
        scaled[i] = a[last * size + i] * factor;
    svd_views twice = decompose(r, p, scaled, ids + 3 * last, 1);
    test_wait(r);
    const float *u = test_values(r, all.u), *s = test_values(r, all.s), *v = test_values(r, all.v);
    ck_assert_mem_eq(test_values(r, alone.u), u + last * nu, nu * 4);
    ck_assert_mem_eq(test_values(r, alone.s), s + last * p->rank, p->rank * 4);
    ck_assert_mem_eq(test_values(r, alone.v), v + last * nv, nv * 4);
    ck_assert_mem_eq(test_values(r, twice.u), u + last * nu, nu * 4);
    ck_assert_mem_eq(test_values(r, twice.v), v + last * nv, nv * 4);
    for (uint32_t c = 0; c < p->rank; c++) {
        float once = s[last * p->rank + c];
        test_require(test_values(r, twice.s)[c] == once * factor, "S of twice the matrix");
    }
    for (uint32_t b = 0; b < p->n; b++) {
        bool bad = p->kind == NOT_FINITE && b < 3;
        ck_assert_int_eq(((const int32_t *)test_bytes(r, all.bad))[b], bad);
        bool zero = bad || p->kind == ZERO || p->kind == DENORMAL;
        for (uint32_t c = 0; c < p->rank && zero; c++)
            ck_assert(s[b * p->rank + c] == 0.0f);
        if (!zero)
            check_properties(p, a + b * size, u + b * nu, s + b * p->rank, v + b * nv);
    }
}

void test_cases_svd(test_cases *cases)
{
    static const svd_params list[] = {
        /* n, rows, cols, rank, oversample, power, kind */
        {1, 1, 1, 1, 0, 0, RANDOM},         {2, 5, 2, 1, 1, 1, RANDOM},
        {2, 3, 7, 3, 2, 2, RANDOM},         {3, 40, 17, 17, 0, 1, RANDOM},
        {2, 33, 16, 4, 4, 2, RANDOM},       {1, 100, 48, 9, 6, 4, RANDOM},
        {1, 70, 64, 64, 0, 1, RANDOM},      {2, 129, 65, 20, 13, 0, RANDOM},
        {1, 512, 128, 32, 8, 4, RANDOM},    {1, 130, 256, 64, 16, 1, RANDOM},
        {1, 150, 130, 128, 0, 0, RANDOM},   {1, 1100, 20, 4, 3, 2, RANDOM},
        {1, 4096, 16, 3, 2, 1, RANDOM},     {2, 60, 32, 16, 5, 2, DEFICIENT},
        {2, 200, 40, 20, 9, 3, DEFICIENT},  {2, 90, 40, 8, 8, 3, GRADED},
        {2, 40, 24, 6, 2, 2, ZERO},         {1, 50, 33, 8, 8, 2, HUGE_VALUES},
        {1, 50, 33, 8, 8, 2, SMALL_VALUES}, {4, 20, 18, 5, 5, 1, NOT_FINITE},
        {1, 20, 18, 5, 5, 1, DENORMAL},     {1, 64, 32, 7, 9, 2, EQUAL}};
    for (size_t i = 0; i < kvcl_array_len(list); i++) {
        const svd_params *p = &list[i];
        const bool small = p->rows * p->cols <= 21 || p->kind == DENORMAL;
        test_cases_add(cases, small, run, identity, p, sizeof *p,
                       "rsvd n=%u %ux%u rank=%u+%u power=%u%s", p->n, p->rows, p->cols, p->rank,
                       p->oversample, p->power, kinds[p->kind]);
    }
}
