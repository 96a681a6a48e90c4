/* case_matmul.c - prefill's linear layer.  Kernels: cl/matmul.cl; twin: cpu/matmul.c
 *
 * Identities: equals itself row by row, to the bit; W = I gives x, to the bit; near the sum in
 * double precision. */
#include "case.h"

#include "types.h"

#include <math.h>

typedef struct matmul_params {
    uint32_t n, rows, cols, type, x_pad, out_pad;
} matmul_params;

typedef struct matmul_data {
    const float *x;
    float *values;
    kvcl_mat *w;
    uint32_t x_stride, out_stride;
} matmul_data;

static kvcl_view matmul(test_run *r, const matmul_params *p, const matmul_data *d, uint32_t first,
                        uint32_t n)
{
    kvcl_matmul_args a = {.n = n, .w = d->w, .x_stride = d->x_stride, .out_stride = d->out_stride};
    a.x = test_in(r, d->x + (size_t)first * d->x_stride,
                  (((size_t)n - 1) * d->x_stride + p->cols) * sizeof(float));
    a.out = test_out(r, (((size_t)n - 1) * d->out_stride + p->rows) * sizeof(float));
    a.scratch = test_scratch(r, kvcl_matmul_scratch_bytes(r->d->dev, n, d->w));
    test_ok(r, kvcl_op_matmul(r->d->q, &a));
    return a.out;
}

static matmul_data make(test_run *r, const matmul_params *p)
{
    matmul_data d = {.x_stride = p->cols + p->x_pad, .out_stride = p->rows + p->out_pad};
    d.x = test_floats(r, (size_t)p->n * d.x_stride, 2.0f);
    d.w = test_mat(r, (kvcl_type)p->type, p->rows, p->cols, &d.values);
    return d;
}

static void run(test_run *r, const void *params)
{
    const matmul_params *p = params;
    matmul_data d = make(r, p);
    kvcl_view out = matmul(r, p, &d, 0, p->n);
    test_wait(r);
    test_check_gaps(r, out, p->n - 1, p->rows, d.out_stride);
}

static void identity(test_run *r, const void *params)
{
    const matmul_params *p = params;
    matmul_data d = make(r, p);
    uint32_t step = p->n > 8 ? p->n / 4 : 1;
    kvcl_view all = matmul(r, p, &d, 0, p->n);
    for (uint32_t i = 0; i < p->n; i += step) {
        kvcl_view one = matmul(r, p, &d, i, 1);
        test_wait(r);
        const float *y = test_values(r, one);
        ck_assert_mem_eq(test_values(r, all) + (size_t)i * d.out_stride, y,
                         p->rows * sizeof(float));
        for (uint32_t row = 0; row < p->rows; row++) {
            double want = 0.0, size = 0.0;
            for (uint32_t k = 0; k < p->cols; k++) {
                double term = (double)d.values[(size_t)row * p->cols + k] *
                              (double)d.x[(size_t)i * d.x_stride + k];
                want += term;
                size += fabs(term);
            }
            test_close((double)y[row], want, 2e-5 * size, "matmul", row);
        }
    }
}

static void run_unit(test_run *r, const void *params)
{
    const matmul_params *p = params;
    matmul_data d = {.x_stride = p->cols + p->x_pad, .out_stride = p->cols + p->out_pad};
    d.x = test_floats(r, (size_t)p->n * d.x_stride, 2.0f);
    d.w = test_mat_identity(r, (kvcl_type)p->type, p->cols);
    kvcl_view out = matmul(r, p, &d, 0, p->n);
    test_wait(r);
    float one = p->type == KVCL_Q8_0 ? 127.0f * 0.00787353515625f : 1.0f;
    for (uint32_t i = 0; i < p->n; i++) {
        for (uint32_t k = 0; k < p->cols; k++) {
            float got = test_values(r, out)[(size_t)i * d.out_stride + k];
            test_close((double)got, (double)(d.x[(size_t)i * d.x_stride + k] * one), 0.0, "I x", k);
            test_true(got != 0.0f || !signbit(got));
        }
    }
}

void test_cases_matmul(test_cases *cases)
{
    static const struct {
        matmul_params p;
        bool small;
    } list[] = {
        {{.n = 1, .rows = 1, .cols = 32}, true},
        {{.n = 2, .rows = 3, .cols = 96, .x_pad = 3, .out_pad = 1}, true},
        {{.n = 7, .rows = 17, .cols = 352, .x_pad = 32, .out_pad = 7}, false},
        {{.n = 64, .rows = 64, .cols = 64}, false},
        {{.n = 64, .rows = 300, .cols = 96, .out_pad = 20}, false},
        {{.n = 5, .rows = 300, .cols = 1376}, false},
        {{.n = 65, .rows = 33, .cols = 128, .x_pad = 1, .out_pad = 2}, false},
        {{.n = 130, .rows = 129, .cols = 160}, false},
    };
    test_rng rng = {.seed = test_seed() ^ 0x6d6d};
    for (size_t t = 0; t < TEST_N_TYPES; t++) {
        const char *name = kvcl_type_name(test_types[t]);
        for (size_t i = 0; i < kvcl_array_len(list) + 4; i++) {
            matmul_params p = i < kvcl_array_len(list) ? list[i].p : (matmul_params){0};
            bool small = i < kvcl_array_len(list) && list[i].small;
            if (p.n == 0) {
                p.n = 1 + test_below(&rng, 100);
                p.rows = 1 + test_below(&rng, 100);
                p.cols = 32 * (1 + test_below(&rng, 12));
                p.x_pad = test_below(&rng, 9);
                p.out_pad = test_below(&rng, 9);
            }
            p.type = (uint32_t)test_types[t];
            test_cases_add(cases, small, run, identity, &p, sizeof p, "matmul %s n=%u %ux%u", name,
                           p.n, p.rows, p.cols);
        }
        matmul_params unit = {.n = 7, .rows = 96, .cols = 96, .x_pad = 4, .out_pad = 4};
        unit.type = (uint32_t)test_types[t];
        test_cases_add(cases, true, run_unit, NULL, &unit, sizeof unit, "matmul %s identity 96x96",
                       name);
    }
}
