/* case_glu.c - sums, SwiGLU, GELU.  Kernels: cl/glu.cl; twins: cpu/glu.c
 *
 * Identities: the sum is the one IEEE sum; silu and gelu lie near libm's in double precision over
 * the whole range; gate 0 gives +0. */
#include "case.h"

#include <math.h>

typedef struct glu_params {
    uint32_t n, dim, stride, b_is_row, in_place;
} glu_params;

/* ---- add ----------------------------------------------------------------------------------- */

typedef struct add_data {
    const float *a, *b;
    kvcl_view out;
} add_data;

static add_data add(test_run *r, const glu_params *p)
{
    size_t n = (size_t)(p->n - 1) * p->stride + p->dim, nb = p->dim;
    nb *= p->b_is_row ? 1 : p->n;
    add_data d = {.a = test_floats(r, n, 4.0f), .b = test_floats(r, nb, 4.0f)};
    kvcl_add_args a = {.n = p->n, .dim = p->dim, .stride = p->stride, .b_is_row = p->b_is_row != 0};
    a.b = test_in(r, d.b, nb * sizeof(float));
    if (p->in_place) {
        a.a = a.out = test_inout(r, d.a, n * sizeof(float));
    } else {
        a.a = test_in(r, d.a, n * sizeof(float));
        a.out = test_out(r, n * sizeof(float));
    }
    test_ok(r, kvcl_op_add(r->d->q, &a));
    d.out = a.out;
    return d;
}

static void run_add(test_run *r, const void *params) { add(r, params); }

static void identity_add(test_run *r, const void *params)
{
    const glu_params *p = params;
    add_data d = add(r, p);
    test_wait(r);
    const float *got = test_values(r, d.out);
    test_check_gaps(r, d.out, p->n - 1, p->dim, p->stride);
    for (uint32_t i = 0; i < p->n; i++) {
        for (uint32_t j = 0; j < p->dim; j++) {
            size_t at = (size_t)i * p->stride + j;
            float want = d.a[at] + d.b[p->b_is_row ? j : (size_t)i * p->dim + j];
            test_require(memcmp(&want, &got[at], sizeof want) == 0, "row %u, %u", i, j);
        }
    }
}

/* ---- swiglu and gelu ----------------------------------------------------------------------- */

/* n values: mostly of the size activations have, some far out, some tiny, zeros. */
static float *activations(test_run *r, uint32_t n)
{
    float *x = test_floats(r, n, 6.0f);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t odd = test_below(&r->rng, 16);
        if (odd == 0)
            x[i] *= 30.0f;
        else if (odd == 1)
            x[i] *= 1e-6f;
    }
    return x;
}

static double silu64(double x) { return x / (1.0 + exp(-x)); }

static double gelu64(double x)
{
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static kvcl_view swiglu(test_run *r, const glu_params *p, const float *gate, const float *up)
{
    size_t bytes = p->n * sizeof(float);
    kvcl_swiglu_args a = {.n_elems = p->n};
    if (p->in_place == 1)
        a.gate = a.out = test_inout(r, gate, bytes);
    else
        a.gate = test_in(r, gate, bytes);
    if (p->in_place == 2)
        a.up = a.out = test_inout(r, up, bytes);
    else
        a.up = test_in(r, up, bytes);
    if (p->in_place == 0)
        a.out = test_out(r, bytes);
    test_ok(r, kvcl_op_swiglu(r->d->q, &a));
    return a.out;
}

static void run_swiglu(test_run *r, const void *params)
{
    const glu_params *p = params;
    float *gate = activations(r, p->n), *up = test_floats(r, p->n, 3.0f);
    swiglu(r, p, gate, up);
}

static void identity_swiglu(test_run *r, const void *params)
{
    const glu_params *p = params;
    float *gate = activations(r, p->n), *up = test_floats(r, p->n, 3.0f);
    gate[0] = -0.0f;
    kvcl_view out = swiglu(r, p, gate, up);
    test_wait(r);
    const float *got = test_values(r, out);
    test_true(got[0] == 0.0f && !signbit(got[0]));
    for (uint32_t i = 0; i < p->n; i++) {
        double want = silu64((double)gate[i]) * (double)up[i];
        test_close((double)got[i], want, 6e-7 * fabs(want) + 1e-22, "swiglu", i);
    }
}

static kvcl_view gelu(test_run *r, const glu_params *p, const float *x)
{
    size_t bytes = p->n * sizeof(float);
    kvcl_gelu_args a = {.n_elems = p->n};
    if (p->in_place) {
        a.x = a.out = test_inout(r, x, bytes);
    } else {
        a.x = test_in(r, x, bytes);
        a.out = test_out(r, bytes);
    }
    test_ok(r, kvcl_op_gelu(r->d->q, &a));
    return a.out;
}

static void run_gelu(test_run *r, const void *params)
{
    const glu_params *p = params;
    gelu(r, p, activations(r, p->n));
}

/* The argument u of the sigmoid carries a rounding error of its own: relative to the result that
 * is an error of a few |u| 2^-24. */
static void identity_gelu(test_run *r, const void *params)
{
    const glu_params *p = params;
    const float *x = activations(r, p->n);
    kvcl_view out = gelu(r, p, x);
    test_wait(r);
    const float *got = test_values(r, out);
    for (uint32_t i = 0; i < p->n; i++) {
        double v = (double)x[i], want = gelu64(v), u = 1.6 * v * (1.0 + 0.045 * v * v);
        /* tanh of libm cancels below: there the form x * sigmoid(u) is the better one */
        if (v < -2.0)
            want = v / (1.0 + exp(-2.0 * sqrt(2.0 / acos(-1.0)) * (v + 0.044715 * v * v * v)));
        test_close((double)got[i], want, (6e-7 + 3e-7 * fabs(u)) * fabs(want) + 1e-22, "gelu", i);
    }
}

void test_cases_glu(test_cases *cases)
{
    static const glu_params sums[] = {{1, 1, 1, 0, 0},      {1, 32, 32, 0, 1}, {3, 96, 100, 1, 0},
                                      {7, 352, 352, 1, 1},  {7, 31, 96, 0, 1}, {64, 96, 1376, 0, 0},
                                      {2, 4099, 4100, 1, 0}};
    static const uint32_t lengths[] = {1, 3, 32, 96, 1376, 4096, 4097, 10007};
    for (size_t i = 0; i < kvcl_array_len(sums); i++)
        test_cases_add(cases, i < 3, run_add, identity_add, &sums[i], sizeof sums[i],
                       "add n=%u dim=%u stride=%u%s%s", sums[i].n, sums[i].dim, sums[i].stride,
                       sums[i].b_is_row ? " row" : "", sums[i].in_place ? " in place" : "");
    for (size_t i = 0; i < kvcl_array_len(lengths); i++) {
        for (uint32_t in_place = 0; in_place < 3; in_place++) {
            glu_params p = {.n = lengths[i], .in_place = in_place};
            test_cases_add(cases, p.n < 100, run_swiglu, identity_swiglu, &p, sizeof p,
                           "swiglu n=%u in_place=%u", p.n, in_place);
            if (in_place < 2)
                test_cases_add(cases, p.n < 100, run_gelu, identity_gelu, &p, sizeof p,
                               "gelu n=%u in_place=%u", p.n, in_place);
        }
    }
}
