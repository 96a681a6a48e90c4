/* case_fwht.c - the fast Walsh-Hadamard transform.  Kernel: cl/fwht.cl; twin: cpu/fwht.c
 *
 * Identities: twice is n times the input; the energy grows by n; integers come out exactly, by the
 * definition H[i][j] = (-1)^popcount(i & j); in place has the bits of out of place. */
#include "case.h"

#include <math.h>

typedef struct fwht_params {
    uint32_t n, dim, pad, in_place;
    float factor;
} fwht_params;

static kvcl_view transform(test_run *r, const fwht_params *p, const float *x, float factor,
                           bool in_place)
{
    kvcl_fwht_args a = {.n = p->n, .dim = p->dim, .stride = p->dim + p->pad, .factor = factor};
    size_t bytes = ((size_t)(p->n - 1) * a.stride + p->dim) * sizeof(float);
    a.x = in_place ? test_inout(r, x, bytes) : test_in(r, x, bytes);
    a.out = in_place ? a.x : test_out(r, bytes);
    test_ok(r, kvcl_op_fwht(r->d->q, &a));
    return a.out;
}

static void run(test_run *r, const void *params)
{
    const fwht_params *p = params;
    const float *x = test_floats(r, (size_t)p->n * (p->dim + p->pad), 3.0f);
    transform(r, p, x, p->factor, p->in_place);
}

/* Small integers: some results of each row against the definition. */
static void check_integers(test_run *r, const fwht_params *p)
{
    size_t stride = p->dim + p->pad;
    float *x = test_mem(r, p->n * stride * sizeof *x);
    for (size_t i = 0; i < p->n * stride; i++)
        x[i] = (float)test_below(&r->rng, 17) - 8.0f;
    kvcl_view out = transform(r, p, x, 1.0f, false);
    test_wait(r);
    for (uint32_t row = 0; row < p->n; row += 1 + p->n / 4) {
        for (uint32_t k = 0; k < 32; k++) {
            uint32_t i = test_below(&r->rng, p->dim);
            double want = 0.0;
            for (uint32_t j = 0; j < p->dim; j++)
                want += __builtin_parity(i & j) ? -(double)x[row * stride + j]
                                                : (double)x[row * stride + j];
            test_close((double)test_values(r, out)[row * stride + i], want, 0.0, "integers", i);
        }
    }
}

static void identity(test_run *r, const void *params)
{
    const fwht_params *p = params;
    size_t stride = p->dim + p->pad, n = p->n * stride;
    const float *x = test_floats(r, n, 3.0f);
    kvcl_view once = transform(r, p, x, 1.0f, false);
    kvcl_view same = transform(r, p, x, 1.0f, true);
    test_wait(r);
    test_check_gaps(r, once, p->n - 1, p->dim, (uint32_t)stride);
    float *h = test_mem(r, n * sizeof *h);
    memcpy(h, test_values(r, once), once.bytes);
    kvcl_view twice = transform(r, p, h, 1.0f / (float)p->dim, false);
    test_wait(r);
    double eps = 6e-8 * log2((double)p->dim);
    for (uint32_t row = 0; row < p->n; row++) {
        double before = 0.0, after = 0.0;
        const float *a = x + row * stride, *b = test_values(r, once) + row * stride;
        const float *back = test_values(r, twice) + row * stride;
        for (uint32_t i = 0; i < p->dim; i++) {
            before += (double)a[i] * (double)a[i];
            after += (double)b[i] * (double)b[i];
            test_close((double)back[i], (double)a[i], 3.0 * 4.0 * eps, "twice", i);
        }
        test_close(after, before * p->dim, 8.0 * eps * after, "energy of row", row);
        ck_assert_mem_eq(b, test_values(r, same) + row * stride, p->dim * sizeof(float));
    }
    check_integers(r, p);
}

void test_cases_fwht(test_cases *cases)
{
    static const uint32_t batches[][2] = {{1, 0}, {3, 5}, {70, 0}};
    for (uint32_t dim = 16; dim <= 65536; dim *= 2) {
        for (size_t i = 0; i < kvcl_array_len(batches); i++) {
            fwht_params p = {.n = batches[i][0], .dim = dim, .pad = batches[i][1]};
            p.factor = i == 0 ? 1.0f : 1.0f / sqrtf((float)dim);
            p.in_place = i == 1;
            if (p.n * dim > 1u << 19)
                p.n = 5;
            /* the last of them: more than a work-group holds */
            bool small = (dim == 16 && i == 1) || (dim == 64 && i == 0) || (dim == 512 && i == 1) ||
                         (dim == 16384 && i == 0);
            test_cases_add(cases, small, run, identity, &p, sizeof p, "fwht n=%u dim=%u pad=%u%s",
                           p.n, dim, p.pad, p.in_place ? " in place" : "");
        }
    }
}
