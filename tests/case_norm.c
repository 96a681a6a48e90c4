/* case_norm.c - RMSNorm and LayerNorm.  Kernel: cl/norm.cl; twin: cpu/norm.c
 *
 * Identities: near the value in double precision; with an eps below all rounding, norm(2 x) has the
 * bits of norm(x); rows of a batch have the bits they have alone. */
#include "case.h"

#include <math.h>

typedef struct norm_params {
    uint32_t kind, n, dim, in_place, bias;
} norm_params;

typedef struct norm_data {
    const float *x, *w, *b;
    float eps;
} norm_data;

static norm_data make(test_run *r, const norm_params *p)
{
    norm_data d = {.eps = p->n % 2 ? 1e-5f : 1e-6f};
    d.x = test_floats(r, (size_t)p->n * p->dim, 3.0f);
    d.w = test_floats(r, p->dim, 2.0f);
    d.b = test_floats(r, p->dim, 1.0f);
    return d;
}

static kvcl_view norm(test_run *r, const norm_params *p, const norm_data *d, uint32_t n,
                      const float *x)
{
    size_t bytes = (size_t)n * p->dim * sizeof(float);
    kvcl_norm_args a = {.n = n, .dim = p->dim};
    a.spec.kind = (kvcl_norm_kind)p->kind;
    a.spec.eps = d->eps;
    if (p->kind != KVCL_NORM_NONE)
        a.spec.weight = test_in(r, d->w, p->dim * sizeof(float));
    if (p->kind == KVCL_NORM_LAYER)
        a.spec.bias = test_in(r, d->b, p->dim * sizeof(float));
    if (p->in_place) {
        a.x = a.out = test_inout(r, x, bytes);
    } else {
        a.x = test_in(r, x, bytes);
        a.out = test_out(r, bytes);
    }
    test_ok(r, kvcl_op_norm(r->d->q, &a));
    return a.out;
}

static void run(test_run *r, const void *params)
{
    norm_data d = make(r, params);
    norm(r, params, &d, ((const norm_params *)params)->n, d.x);
}

/* One row in double precision. */
static void check_row(const norm_params *p, const norm_data *d, const float *x, const float *got)
{
    double mean = 0.0, square = 0.0;
    for (uint32_t k = 0; k < p->dim; k++)
        mean += (double)x[k] / p->dim;
    if (p->kind != KVCL_NORM_LAYER)
        mean = 0.0;
    for (uint32_t k = 0; k < p->dim; k++)
        square += ((double)x[k] - mean) * ((double)x[k] - mean) / p->dim;
    double scale = 1.0 / sqrt(square + (double)d->eps);
    for (uint32_t k = 0; k < p->dim; k++) {
        double want = ((double)x[k] - mean) * scale * (double)d->w[k];
        if (p->kind == KVCL_NORM_LAYER)
            want += (double)d->b[k];
        test_close((double)got[k], want, 2e-6 * (1.0 + fabs(want)), "norm", k);
    }
}

static void identity(test_run *r, const void *params)
{
    const norm_params *p = params;
    norm_data d = make(r, p);
    kvcl_view all = norm(r, p, &d, p->n, d.x), last = {0}, plain = {0}, twice = {0};
    size_t at = (size_t)(p->n - 1) * p->dim, bytes = p->dim * sizeof(float);
    last = norm(r, p, &d, 1, d.x + at);
    d.eps = 1e-30f;
    float *x2 = test_mem(r, bytes);
    for (uint32_t k = 0; k < p->dim; k++)
        x2[k] = 2.0f * d.x[k];
    plain = norm(r, p, &d, 1, d.x);
    twice = norm(r, p, &d, 1, x2);
    test_wait(r);
    d.eps = p->n % 2 ? 1e-5f : 1e-6f;
    for (uint32_t i = 0; i < p->n; i++)
        check_row(p, &d, d.x + (size_t)i * p->dim, test_values(r, all) + (size_t)i * p->dim);
    ck_assert_mem_eq(test_values(r, all) + at, test_values(r, last), bytes);
    ck_assert_mem_eq(test_values(r, plain), test_values(r, twice), bytes);
}

void test_cases_norm(test_cases *cases)
{
    static const uint32_t dims[] = {32, 64, 96, 352, 1376, 4096}, ns[] = {1, 2, 7, 64};
    for (uint32_t kind = KVCL_NORM_RMS; kind <= KVCL_NORM_LAYER; kind++) {
        for (size_t i = 0; i < kvcl_array_len(dims); i++) {
            for (size_t j = 0; j < kvcl_array_len(ns); j++) {
                norm_params p = {.kind = kind, .n = ns[j], .dim = dims[i]};
                p.in_place = (i + j) % 2;
                if (p.n == 64 && p.dim > 1000)
                    continue;
                test_cases_add(cases, p.n < 7 && p.dim < 100, run, identity, &p, sizeof p,
                               "norm %s n=%u dim=%u%s", kind == KVCL_NORM_RMS ? "rms" : "layer",
                               p.n, p.dim, p.in_place ? " in place" : "");
            }
        }
    }
}
