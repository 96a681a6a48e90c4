/* case_norm.c - RMSNorm and LayerNorm.  Kernel: cl/norm.cl; twin: cpu/norm.c
 *
 * Identities: near the value in double precision; with an eps below all rounding, norm(2 x) has the
 * bits of norm(x); rows of a batch have the bits they have alone. */
#include "case.h"

#include <math.h>

typedef struct norm_params {
    uint32_t kind, n, dim, in_place, bias;
    uint32_t n_group, pad; /* not 0: groups of rows, pad values between them */
} norm_params;

typedef struct norm_data {
    const float *x, *w, *b;
    float eps;
} norm_data;

static uint32_t stride_of(const norm_params *p) { return p->n_group * p->dim + p->pad; }

static size_t row_at(const norm_params *p, uint32_t i)
{
    if (!p->n_group)
        return (size_t)i * p->dim;
    return (size_t)(i / p->n_group) * stride_of(p) + (size_t)(i % p->n_group) * p->dim;
}

/* Values from the first row to the end of the last of n. */
static size_t span(const norm_params *p, uint32_t n) { return row_at(p, n - 1) + p->dim; }

static norm_data make(test_run *r, const norm_params *p)
{
    norm_data d = {.eps = p->n % 2 ? 1e-5f : 1e-6f};
    d.x = test_floats(r, span(p, p->n), 3.0f);
    d.w = test_floats(r, p->dim, 2.0f);
    d.b = test_floats(r, p->dim, 1.0f);
    return d;
}

static kvcl_view norm(test_run *r, const norm_params *p, const norm_data *d, uint32_t n,
                      const float *x)
{
    size_t bytes = span(p, n) * sizeof(float);
    kvcl_norm_args a = {.n = n, .dim = p->dim};
    if (p->n_group && n > 1) {
        a.n_group = p->n_group;
        a.stride = stride_of(p);
    }
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
    size_t at = row_at(p, p->n - 1), bytes = p->dim * sizeof(float);
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
        check_row(p, &d, d.x + row_at(p, i), test_values(r, all) + row_at(p, i));
    for (uint32_t i = p->n_group; p->n_group && i < p->n; i += p->n_group) /* between the groups */
        ck_assert_mem_eq(test_values(r, all) + row_at(p, i) - p->pad, d.x + row_at(p, i) - p->pad,
                         p->pad * sizeof(float));
    ck_assert_mem_eq(test_values(r, all) + at, test_values(r, last), bytes);
    ck_assert_mem_eq(test_values(r, plain), test_values(r, twice), bytes);
}

/* Heads of tokens, in place. */
static void add_groups(test_cases *cases)
{
    static const norm_params rows[] = {{.n = 4, .dim = 32, .n_group = 4, .pad = 96},
                                       {.n = 6, .dim = 64, .n_group = 2, .pad = 64},
                                       {.n = 7, .dim = 128, .n_group = 1, .pad = 4},
                                       {.n = 99, .dim = 128, .n_group = 9},
                                       {.n = 120, .dim = 96, .n_group = 8, .pad = 7}};
    for (size_t i = 0; i < kvcl_array_len(rows); i++) {
        norm_params p = rows[i];
        p.kind = KVCL_NORM_RMS;
        p.in_place = 1;
        test_cases_add(cases, i < 2, run, identity, &p, sizeof p,
                       "norm heads n=%u dim=%u of %u + %u", p.n, p.dim, p.n_group, p.pad);
    }
}

void test_cases_norm(test_cases *cases)
{
    add_groups(cases);
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
