/* case_matvec.c - decode's linear layers.  Kernels: cl/matvec.cl; twin: cpu/matvec.c
 *
 * Identities: near the sum in double precision (for quantised weights within the error that
 * activations of 8 bits allow); linear: twice x gives twice y, to the bit; W = I gives x; a row of
 * a batch has the bits it has alone. */
#include "case.h"

#include "types.h"

#include <math.h>

typedef struct matvec_params {
    uint32_t n, n_seg, cols;
    uint32_t type[KVCL_MATVEC_SEGS], rows[KVCL_MATVEC_SEGS];
    uint32_t norm, act, bias, res; /* res 1: a view of its own, 2: the output itself */
    uint32_t x_pad, out_pad;
} matvec_params;

typedef struct matvec_data {
    const float *x, *norm_w, *norm_b, *res;
    const float *bias[KVCL_MATVEC_SEGS];
    float *values[KVCL_MATVEC_SEGS];
    kvcl_mat *w[KVCL_MATVEC_SEGS];
    uint32_t x_stride, out_stride;
} matvec_data;

static uint32_t max_rows(const matvec_params *p)
{
    uint32_t rows = 0;
    for (uint32_t s = 0; s < p->n_seg; s++)
        rows = kvcl_max_u32(rows, p->rows[s]);
    return rows;
}

static matvec_data make(test_run *r, const matvec_params *p)
{
    matvec_data d = {.x_stride = p->cols + p->x_pad, .out_stride = max_rows(p) + p->out_pad};
    d.x = test_floats(r, (size_t)p->n * d.x_stride, 2.0f);
    d.res = test_floats(r, (size_t)p->n * d.out_stride, 1.0f);
    d.norm_w = test_floats(r, p->cols, 1.0f);
    d.norm_b = test_floats(r, p->cols, 1.0f);
    for (uint32_t s = 0; s < p->n_seg; s++) {
        d.w[s] = test_mat(r, (kvcl_type)p->type[s], p->rows[s], p->cols, &d.values[s]);
        d.bias[s] = test_floats(r, p->rows[s], 1.0f);
    }
    return d;
}

static size_t out_bytes(uint32_t n, uint32_t stride, uint32_t rows)
{
    return (((size_t)n - 1) * stride + rows) * sizeof(float);
}

/* Runs rows [first, first + n) of x; out[] are the views written. */
static void matvec(test_run *r, const matvec_params *p, const matvec_data *d, uint32_t first,
                   uint32_t n, const float *x, kvcl_view out[KVCL_MATVEC_SEGS])
{
    kvcl_matvec_args a = {.n = n, .n_seg = p->n_seg, .act = (kvcl_act)p->act};
    const float *res = d->res ? d->res + (size_t)first * d->out_stride : NULL;
    a.x_stride = d->x_stride;
    a.x = test_in(r, x + (size_t)first * d->x_stride, out_bytes(n, d->x_stride, p->cols));
    a.norm.kind = (kvcl_norm_kind)p->norm;
    a.norm.eps = 1e-5f;
    if (p->norm != KVCL_NORM_NONE)
        a.norm.weight = test_in(r, d->norm_w, p->cols * sizeof(float));
    if (p->norm == KVCL_NORM_LAYER)
        a.norm.bias = test_in(r, d->norm_b, p->cols * sizeof(float));
    for (uint32_t s = 0; s < p->n_seg; s++) {
        size_t bytes = out_bytes(n, d->out_stride, p->rows[s]);
        a.w[s] = d->w[s];
        a.out_stride[s] = d->out_stride;
        if (p->bias)
            a.bias[s] = test_in(r, d->bias[s], p->rows[s] * sizeof(float));
        if (s > 0 && p->act == KVCL_ACT_SWIGLU)
            continue;
        a.out[s] = p->res == 2 ? test_inout(r, res, bytes) : test_out(r, bytes);
        if (p->res)
            a.res = p->res == 2 ? a.out[s] : test_in(r, res, bytes);
        out[s] = a.out[s];
    }
    test_ok(r, kvcl_op_matvec(r->d->q, &a));
}

static void run(test_run *r, const void *params)
{
    const matvec_params *p = params;
    matvec_data d = make(r, p);
    kvcl_view out[KVCL_MATVEC_SEGS];
    matvec(r, p, &d, 0, p->n, d.x, out);
    test_wait(r);
    for (uint32_t s = 0; s < p->n_seg && p->res != 2; s++)
        if (s == 0 || p->act != KVCL_ACT_SWIGLU)
            test_check_gaps(r, out[s], p->n - 1, p->rows[s], d.out_stride);
}

/* The last row of the batch alone. */
static void check_batch(test_run *r, const matvec_params *p, const matvec_data *d)
{
    kvcl_view all[KVCL_MATVEC_SEGS], one[KVCL_MATVEC_SEGS];
    matvec(r, p, d, 0, p->n, d->x, all);
    matvec(r, p, d, p->n - 1, 1, d->x, one);
    test_wait(r);
    for (uint32_t s = 0; s < p->n_seg; s++)
        if (s == 0 || p->act != KVCL_ACT_SWIGLU)
            ck_assert_mem_eq(test_values(r, all[s]) + (size_t)(p->n - 1) * d->out_stride,
                             test_values(r, one[s]), p->rows[s] * sizeof(float));
}

/* Largest error that rounding activations to 127 steps of their block's maximum can make. */
static double quant_error(const float *w, const float *x, uint32_t cols)
{
    double sum = 0.0;
    for (uint32_t b = 0; b < cols; b += KVCL_QK) {
        double amax = 0.0, weight = 0.0;
        for (uint32_t k = b; k < b + KVCL_QK; k++) {
            amax = fmax(amax, fabs((double)x[k]));
            weight += fabs((double)w[k]);
        }
        sum += weight * amax / 127.0 * 0.501;
    }
    return sum;
}

static void identity(test_run *r, const void *params)
{
    const matvec_params *p = params;
    matvec_data d = make(r, p);
    check_batch(r, p, &d);
    if (p->norm || p->act || p->bias || p->res)
        return;
    kvcl_view one[KVCL_MATVEC_SEGS], two[KVCL_MATVEC_SEGS];
    float *x2 = test_mem(r, d.x_stride * sizeof *x2);
    for (uint32_t k = 0; k < p->cols; k++)
        x2[k] = 2.0f * d.x[k];
    matvec(r, p, &d, 0, 1, d.x, one);
    matvec(r, p, &d, 0, 1, x2, two);
    test_wait(r);
    for (uint32_t s = 0; s < p->n_seg; s++) {
        for (uint32_t row = 0; row < p->rows[s]; row++) {
            const float *w = d.values[s] + (size_t)row * p->cols;
            float y = test_values(r, one[s])[row], y2 = test_values(r, two[s])[row];
            double want = 0.0, size = 0.0;
            for (uint32_t k = 0; k < p->cols; k++) {
                want += (double)w[k] * (double)d.x[k];
                size += fabs((double)w[k] * (double)d.x[k]);
            }
            double tol = 3e-6 * size;
            if (kvcl_type_is_quantised((kvcl_type)p->type[s]))
                tol += quant_error(w, d.x, p->cols);
            test_close((double)y, want, tol, "matvec", row);
            test_require(y2 == 2.0f * y, "row %u: twice x gives %.9g, not twice %.9g", row,
                         (double)y2, (double)y);
        }
    }
}

/* ---- W = I --------------------------------------------------------------------------------- */

static void run_unit(test_run *r, const void *params)
{
    const matvec_params *p = params;
    kvcl_type type = (kvcl_type)p->type[0];
    matvec_data d = {.x_stride = p->cols, .out_stride = p->cols};
    kvcl_view out[KVCL_MATVEC_SEGS];
    d.x = test_floats(r, (size_t)p->n * p->cols, 2.0f);
    d.w[0] = test_mat_identity(r, type, p->cols);
    matvec(r, p, &d, 0, p->n, d.x, out);
    test_wait(r);
    const float *got = test_values(r, out[0]);
    for (size_t i = 0; i < (size_t)p->n * p->cols; i++) {
        const float *block = d.x + i / KVCL_QK * KVCL_QK;
        double amax = 0.0;
        for (uint32_t k = 0; k < KVCL_QK; k++)
            amax = fmax(amax, fabs((double)block[k]));
        /* the scale of Q8_0's 1 is the half nearest to 1/127 */
        double one = type == KVCL_Q8_0 ? 127.0 * 0.00787353515625 : 1.0;
        double tol = kvcl_type_is_quantised(type) ? amax * (0.501 / 127.0) : 0.0;
        test_close((double)got[i], (double)d.x[i] * one, tol, "I x", i);
        test_true(got[i] != 0.0f || !signbit(got[i]));
    }
}

/* ---- cases --------------------------------------------------------------------------------- */

static void add(test_cases *cases, bool small, const matvec_params *p)
{
    static const char *const acts[] = {"", " swiglu", " gelu"}, *const norms[] = {"", " rms",
                                                                                  " ln"};
    test_cases_add(cases, small, run, identity, p, sizeof *p,
                   "matvec %s n=%u %ux%u segs=%u%s%s%s%s%s", kvcl_type_name((kvcl_type)p->type[0]),
                   p->n, p->rows[0], p->cols, p->n_seg, norms[p->norm], acts[p->act],
                   p->bias ? " bias" : "",
                   p->res == 1   ? " res"
                   : p->res == 2 ? " res=out"
                                 : "",
                   p->x_pad || p->out_pad ? " strided" : "");
}

static void add_by_hand(test_cases *cases, uint32_t type)
{
    static const struct {
        matvec_params p;
        bool small;
    } list[] = {
        {{.n = 1, .n_seg = 1, .rows = {1}, .cols = 32}, true},
        {{.n = 2, .n_seg = 1, .rows = {3}, .cols = 96, .x_pad = 32, .out_pad = 5}, true},
        {{.n = 7, .n_seg = 1, .rows = {17}, .cols = 352, .x_pad = 4, .out_pad = 1}, false},
        {{.n = 1, .n_seg = 1, .rows = {300}, .cols = 1376}, false},
        {{.n = 2, .n_seg = 1, .rows = {1}, .cols = 4096}, false},
        {{.n = 64, .n_seg = 1, .rows = {17}, .cols = 96, .out_pad = 3}, false},
        {{.n = 1, .n_seg = 3, .rows = {17, 3, 1}, .cols = 64, .norm = 1, .bias = 1}, true},
        {{.n = 2, .n_seg = 3, .rows = {64, 32, 32}, .cols = 352, .norm = 2, .out_pad = 9}, false},
        {{.n = 7, .n_seg = 2, .rows = {33, 65}, .cols = 96}, false},
        {{.n = 1, .n_seg = 2, .rows = {17, 17}, .cols = 96, .norm = 1, .act = 1}, true},
        {{.n = 3, .n_seg = 2, .rows = {300, 300}, .cols = 128, .act = 1, .bias = 1}, false},
        {{.n = 2, .n_seg = 2, .rows = {31, 31}, .cols = 64, .act = 1, .res = 1}, false},
        {{.n = 1, .n_seg = 1, .rows = {65}, .cols = 96, .norm = 2, .act = 2, .bias = 1}, false},
        {{.n = 2, .n_seg = 1, .rows = {40}, .cols = 1376, .bias = 1, .res = 2}, false},
        {{.n = 1, .n_seg = 1, .rows = {17}, .cols = 352, .res = 1, .norm = 1}, true},
        {{.n = 7, .n_seg = 1, .rows = {100}, .cols = 256, .res = 2, .x_pad = 1}, false},
    };
    for (size_t i = 0; i < kvcl_array_len(list); i++) {
        matvec_params p = list[i].p;
        for (uint32_t s = 0; s < p.n_seg; s++)
            p.type[s] = type;
        add(cases, list[i].small, &p);
    }
}

static void add_random(test_cases *cases, test_rng *rng, uint32_t type)
{
    static const uint32_t batches[] = {1, 1, 2, 3, 5, 7};
    matvec_params p = {.n = batches[test_below(rng, 6)], .n_seg = 1 + test_below(rng, 3)};
    p.cols = 32 * (1 + test_below(rng, 40));
    for (uint32_t s = 0; s < p.n_seg; s++) {
        p.type[s] = type;
        p.rows[s] = 1 + test_below(rng, 90);
    }
    p.norm = test_below(rng, 3);
    p.act = test_below(rng, 3);
    if (p.act == KVCL_ACT_SWIGLU) {
        p.n_seg = 2;
        p.type[1] = type;
        p.rows[1] = p.rows[0];
    }
    p.bias = test_below(rng, 2);
    p.res = p.n_seg == 1 || p.act == KVCL_ACT_SWIGLU ? test_below(rng, 3) : 0;
    p.x_pad = test_below(rng, 40);
    p.out_pad = test_below(rng, 40);
    add(cases, false, &p);
}

void test_cases_matvec(test_cases *cases)
{
    test_rng rng = {.seed = test_seed() ^ 0x6d76};
    for (size_t t = 0; t < TEST_N_TYPES; t++) {
        matvec_params unit = {.n = 2, .n_seg = 1, .cols = 96};
        add_by_hand(cases, (uint32_t)test_types[t]);
        for (int i = 0; i < (test_env_on("KVCL_TEST_FULL") ? 8 : 4); i++)
            add_random(cases, &rng, (uint32_t)test_types[t]);
        unit.type[0] = (uint32_t)test_types[t];
        unit.rows[0] = unit.cols;
        test_cases_add(cases, true, run_unit, NULL, &unit, sizeof unit, "matvec %s identity 96x96",
                       kvcl_type_name(test_types[t]));
    }
}
