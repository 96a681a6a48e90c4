/* case_kv.c - sums, means and squared errors of raw pages.  Kernels: cl/kv.cl; twins: cpu/kv.c
 *
 * Identities: near the same in double precision; pages summed in two calls give the bits of one;
 * whole numbers sum exactly; no error between a page and itself; the tokens left out, not a number
 * here, are not looked at. */
#include "pages.h"

#include <math.h>

typedef struct kv_params {
    uint32_t n_pages, n_skip, n_kv, dim;
    uint32_t type_k, type_v, type_ka, type_va;
    uint32_t whole; /* 1: values are whole numbers */
} kv_params;

typedef struct kv_data {
    int32_t *slots, *slots_a;
    float *k, *v, *ka, *va, *sums; /* [page][Hk][D][64] (V: [64][D]); [2][Hk][D] */
    kvcl_view k_pool, v_pool, ka_pool, va_pool, out;
} kv_data;

/* Where token t's element of a head stands in a set of pages. */
static size_t element(const kv_params *p, uint32_t page, uint32_t h, uint32_t t, uint32_t d,
                      bool of_v)
{
    size_t base = ((size_t)page * p->n_kv + h) * p->dim * KVCL_PAGE_TOKENS;
    return base + (of_v ? t * p->dim + d : d * KVCL_PAGE_TOKENS + t);
}

/* Values with NaN in the tokens left out; `near`: other values, these with something added. */
static float *values(test_run *r, const kv_params *p, bool of_v, const float *near)
{
    size_t n = (size_t)p->n_pages * p->n_kv * p->dim * KVCL_PAGE_TOKENS;
    float *x = test_floats(r, n, near ? 0.1f : 3.0f);
    for (size_t i = 0; i < n; i++)
        x[i] = p->whole ? floorf(16.0f * x[i]) : near ? near[i] + x[i] : x[i] + 0.5f;
    for (uint32_t i = 0; i < p->n_kv * p->dim * p->n_skip; i++)
        x[element(p, 0, i / p->dim / p->n_skip, i % p->n_skip, i / p->n_skip % p->dim, of_v)] = NAN;
    return x;
}

/* ---- sums ---------------------------------------------------------------------------------- */

static kv_data make_sums(test_run *r, const kv_params *p)
{
    kv_data d = {.slots = test_slots(r, p->n_pages)};
    size_t n = 2 * (size_t)p->n_kv * p->dim, elems = n / 2 * KVCL_PAGE_TOKENS;
    d.k = values(r, p, false, NULL);
    d.v = values(r, p, true, NULL);
    d.k_pool = test_raw_pool(r, (kvcl_type)p->type_k, d.slots, p->n_pages, elems, d.k);
    d.v_pool = test_raw_pool(r, (kvcl_type)p->type_v, d.slots, p->n_pages, elems, d.v);
    d.sums = test_floats(r, n, 10.0f);
    for (size_t i = 0; i < n && p->whole; i++)
        d.sums[i] = floorf(d.sums[i]);
    return d;
}

/* Pages [first, end) into d->out, which holds sums. */
static void sum(test_run *r, const kv_params *p, const kv_data *d, uint32_t first, uint32_t end)
{
    kvcl_kv_sum_args a = {.k = d->k_pool, .v = d->v_pool, .sums = d->out, .n_pages = end - first};
    a.page_table = test_in(r, d->slots + first, (end - first) * sizeof *d->slots);
    a.n_skip = first == 0 ? p->n_skip : 0;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    test_ok(r, kvcl_op_kv_sum(r->d->q, &a));
}

static void run_sum(test_run *r, const void *params)
{
    const kv_params *p = params;
    kv_data d = make_sums(r, p);
    d.out = test_inout(r, d.sums, 2 * (size_t)p->n_kv * p->dim * sizeof(float));
    sum(r, p, &d, 0, p->n_pages);
}

static void identity_sum(test_run *r, const void *params)
{
    const kv_params *p = params;
    kv_data d = make_sums(r, p), cut = d;
    size_t bytes = 2 * (size_t)p->n_kv * p->dim * sizeof(float);
    d.out = test_inout(r, d.sums, bytes);
    cut.out = test_inout(r, d.sums, bytes);
    sum(r, p, &d, 0, p->n_pages);
    sum(r, p, &cut, 0, 1);
    if (p->n_pages > 1)
        sum(r, p, &cut, 1, p->n_pages);
    test_wait(r);
    ck_assert_mem_eq(test_values(r, d.out), test_values(r, cut.out), bytes);
    for (uint32_t row = 0; row < 2 * p->n_kv; row++)
        for (uint32_t e = 0; e < p->dim; e++) {
            bool of_v = row >= p->n_kv;
            double want = (double)d.sums[row * p->dim + e], size = 0.0;
            for (uint32_t t = p->n_skip; t < p->n_pages * KVCL_PAGE_TOKENS; t++) {
                double x = (double)(of_v ? d.v : d.k)[element(
                    p, t / KVCL_PAGE_TOKENS, row % p->n_kv, t % KVCL_PAGE_TOKENS, e, of_v)];
                want += x;
                size += fabs(x);
            }
            test_close((double)test_values(r, d.out)[row * p->dim + e], want,
                       p->whole ? 0.0 : 1e-6 * (size + 10.0), "sum", row * p->dim + e);
        }
}

/* ---- means --------------------------------------------------------------------------------- */

static void run_mean(test_run *r, const void *params)
{
    const kv_params *p = params;
    uint32_t n = p->n_kv * p->dim;
    float *x = test_floats(r, n, 100.0f);
    kvcl_kv_mean_args a = {.n = n, .factor = 1.0f / 448.0f};
    a.sums = test_in(r, x, n * sizeof *x);
    a.mean = test_out(r, n * sizeof *x);
    test_ok(r, kvcl_op_kv_mean(r->d->q, &a));
    test_wait(r);
    for (uint32_t i = 0; i < n; i++) {
        float want = x[i] * a.factor;
        test_require(memcmp(&want, test_values(r, a.mean) + i, sizeof want) == 0, "mean %u", i);
    }
}

/* ---- errors -------------------------------------------------------------------------------- */

static void error(test_run *r, const kv_params *p, kv_data *d, bool same)
{
    kvcl_kv_error_args a = {.k = d->k_pool, .v = d->v_pool, .n_pages = p->n_pages};
    const int32_t *slots_a = same ? d->slots : d->slots_a;
    a.ka = same ? d->k_pool : d->ka_pool;
    a.va = same ? d->v_pool : d->va_pool;
    a.page_table = test_in(r, d->slots, p->n_pages * sizeof *d->slots);
    a.page_table_a = test_in(r, slots_a, p->n_pages * sizeof *d->slots);
    a.err = d->out = test_out(r, (size_t)p->n_pages * p->n_kv * 4 * sizeof(float));
    a.n_skip = p->n_skip;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    a.type_ka = same ? a.type_k : (kvcl_type)p->type_ka;
    a.type_va = same ? a.type_v : (kvcl_type)p->type_va;
    test_ok(r, kvcl_op_kv_error(r->d->q, &a));
}

static kv_data make_errors(test_run *r, const kv_params *p)
{
    kv_data d = make_sums(r, p);
    size_t elems = (size_t)p->n_kv * p->dim * KVCL_PAGE_TOKENS;
    d.slots_a = test_slots(r, p->n_pages);
    d.ka = values(r, p, false, d.k);
    d.va = values(r, p, true, d.v);
    d.ka_pool = test_raw_pool(r, (kvcl_type)p->type_ka, d.slots_a, p->n_pages, elems, d.ka);
    d.va_pool = test_raw_pool(r, (kvcl_type)p->type_va, d.slots_a, p->n_pages, elems, d.va);
    return d;
}

static void run_error(test_run *r, const void *params)
{
    kv_data d = make_errors(r, params);
    error(r, params, &d, false);
}

static void identity_error(test_run *r, const void *params)
{
    const kv_params *p = params;
    kv_data d = make_errors(r, p), self = d;
    error(r, p, &d, false);
    error(r, p, &self, true);
    test_wait(r);
    for (uint32_t i = 0; i < p->n_pages * p->n_kv * 2; i++) {
        uint32_t page = i / 2 / p->n_kv, h = i / 2 % p->n_kv;
        double diff = 0.0, square = 0.0;
        for (uint32_t t = page == 0 ? p->n_skip : 0; t < KVCL_PAGE_TOKENS; t++)
            for (uint32_t e = 0; e < p->dim; e++) {
                size_t at = element(p, page, h, t, e, i % 2 == 1);
                double x = (double)(i % 2 ? d.v : d.k)[at];
                diff += pow(x - (double)(i % 2 ? d.va : d.ka)[at], 2.0);
                square += x * x;
            }
        const float *got = test_values(r, d.out) + 2 * i, *none = test_values(r, self.out) + 2 * i;
        test_close((double)got[0], diff, 1e-5 * diff, "error", i);
        test_close((double)got[1], square, 1e-5 * square, "square", i);
        test_require(none[0] == 0.0f && none[1] == got[1], "page against itself: %.9g, %.9g",
                     (double)none[0], (double)none[1]);
    }
}

/* ---- cases --------------------------------------------------------------------------------- */

static void add(test_cases *cases, bool small, test_case_fn fn, test_case_fn check,
                const kv_params *p, const char *what)
{
    test_cases_add(cases, small, fn, check, p, sizeof *p, "%s pages=%u skip=%u heads=%u D=%u %s/%s",
                   what, p->n_pages, p->n_skip, p->n_kv, p->dim,
                   kvcl_type_name((kvcl_type)p->type_k), kvcl_type_name((kvcl_type)p->type_v));
}

void test_cases_kv(test_cases *cases)
{
    static const struct {
        kv_params p;
        bool small;
    } list[] = {
        {{.n_pages = 1, .n_kv = 1, .dim = 8}, true},
        {{.n_pages = 2, .n_skip = 5, .n_kv = 2, .dim = 16}, true},
        {{.n_pages = 9, .n_skip = 63, .n_kv = 3, .dim = 64}, false},
        {{.n_pages = 3, .n_skip = 8, .n_kv = 1, .dim = 200}, false},
        {{.n_pages = 2, .n_kv = 2, .dim = 256, .whole = 1}, false},
        {{.n_pages = 5, .n_skip = 33, .n_kv = 2, .dim = 24, .whole = 1}, false},
    };
    for (size_t i = 0; i < kvcl_array_len(list); i++)
        for (uint32_t types = 0; types < 4; types++) {
            kv_params p = list[i].p;
            p.type_k = types % 2 ? KVCL_F32 : KVCL_F16;
            p.type_v = types / 2 ? KVCL_F32 : KVCL_F16;
            p.type_ka = types / 2 ? KVCL_F32 : KVCL_F16;
            p.type_va = types % 2 ? KVCL_F16 : KVCL_F32;
            bool small = list[i].small && types % 3 == 1;
            add(cases, small, run_sum, identity_sum, &p, "kv_sum");
            add(cases, small, run_error, identity_error, &p, "kv_error");
            if (types == 0)
                add(cases, list[i].small, run_mean, NULL, &p, "kv_mean");
        }
}
