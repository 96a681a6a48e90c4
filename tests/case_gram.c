/* case_gram.c - second moments of raw pages and of rows.  Kernels: cl/gram.cl; twins: cpu/gram.c
 *
 * Identities: near the same in double precision; whole numbers exactly the same; pages summed in
 * two calls give the bits of one; matrices stay symmetric; tokens of slots that do not count, not a
 * number here, are not looked at. */
#include "pages.h"

#include <math.h>

typedef struct gram_params {
    uint32_t n_tokens, n_skip, fold, n_kv, dim;
    uint32_t type_k, type_v;
    uint32_t group, n, pad; /* rows: query heads of a KV head, rows, values between them */
    uint32_t whole;         /* 1: values are whole numbers */
    uint32_t join;          /* pages: heads of the raw pages in each head, or 0 */
} gram_params;

typedef struct gram_data {
    uint32_t n_pages;
    int32_t *slots;
    float *k, *v, *mean, *gram;
    kvcl_view k_pool, v_pool, out;
} gram_data;

static float *values(test_run *r, const gram_params *p, size_t n, float scale)
{
    float *x = test_floats(r, n, scale);
    for (size_t i = 0; i < n && p->whole; i++)
        x[i] = floorf(x[i]);
    return x;
}

/* Symmetric matrices to add to. */
static float *matrices(test_run *r, const gram_params *p, uint32_t n)
{
    uint32_t D = p->dim;
    float *m = values(r, p, (size_t)n * D * D, 4.0f);
    for (uint32_t i = 0; i < n * D; i++)
        for (uint32_t j = 0; j < i % D; j++)
            m[(i / D * D + j) * D + i % D] = m[i * D + j];
    return m;
}

static void check_symmetric(const float *m, uint32_t n, uint32_t D)
{
    for (uint32_t i = 0; i < n * D; i++)
        for (uint32_t j = 0; j < i % D; j++)
            test_require(memcmp(&m[(i / D * D + j) * D + i % D], &m[i * D + j], 4) == 0,
                         "row %u, column %u has two values", i % D, j);
}

/* ---- pages --------------------------------------------------------------------------------- */

/* Where token t's dimension d of KV head h stands. */
static size_t element(const gram_params *p, uint32_t t, uint32_t h, uint32_t d, bool of_v)
{
    uint32_t in_page = t % KVCL_PAGE_TOKENS;
    size_t base = ((size_t)t / KVCL_PAGE_TOKENS * p->n_kv + h) * p->dim * KVCL_PAGE_TOKENS;
    uint32_t of_raw = p->join ? p->dim / p->join : p->dim;
    return base + (of_v ? (d / of_raw * KVCL_PAGE_TOKENS + in_page) * of_raw + d % of_raw
                        : d * KVCL_PAGE_TOKENS + in_page);
}

static gram_data make_pages(test_run *r, const gram_params *p)
{
    gram_data d = {.n_pages = kvcl_div_up(p->n_tokens, KVCL_PAGE_TOKENS)};
    size_t elems = (size_t)p->n_kv * p->dim * KVCL_PAGE_TOKENS, n = d.n_pages * elems;
    d.slots = test_slots(r, d.n_pages);
    d.k = values(r, p, n, 5.0f);
    d.v = values(r, p, n, 5.0f);
    for (uint32_t t = 0; t < d.n_pages * KVCL_PAGE_TOKENS; t++)
        for (uint32_t e = 0; e < p->n_kv * p->dim && (t < p->n_skip || t >= p->n_tokens); e++) {
            d.k[element(p, t, e / p->dim, e % p->dim, false)] = NAN;
            d.v[element(p, t, e / p->dim, e % p->dim, true)] = NAN;
        }
    d.k_pool = test_raw_pool(r, (kvcl_type)p->type_k, d.slots, d.n_pages, elems, d.k);
    d.v_pool = test_raw_pool(r, (kvcl_type)p->type_v, d.slots, d.n_pages, elems, d.v);
    d.mean = values(r, p, 2 * (size_t)p->n_kv * p->dim, 3.0f);
    d.gram = matrices(r, p, 2 * p->n_kv * p->fold);
    return d;
}

static size_t pages_bytes(const gram_params *p)
{
    return 2 * (size_t)p->n_kv * p->fold * p->dim * p->dim * sizeof(float);
}

/* Pages [first, end) into d->out. */
static void gram_pages(test_run *r, const gram_params *p, const gram_data *d, uint32_t first,
                       uint32_t end)
{
    kvcl_gram_pages_args a = {.k = d->k_pool, .v = d->v_pool, .gram = d->out, .fold = p->fold};
    a.page_table = test_in(r, d->slots + first, (end - first) * sizeof *d->slots);
    a.mean = test_in(r, d->mean, 2 * (size_t)p->n_kv * p->dim * sizeof(float));
    a.n_tokens = kvcl_min_u32(p->n_tokens, end * KVCL_PAGE_TOKENS) - first * KVCL_PAGE_TOKENS;
    a.n_skip = first == 0 ? p->n_skip : 0;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    a.join = p->join;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    test_ok(r, kvcl_op_gram_pages(r->d->q, &a));
}

static void run_pages(test_run *r, const void *params)
{
    gram_data d = make_pages(r, params);
    d.out = test_inout(r, d.gram, pages_bytes(params));
    gram_pages(r, params, &d, 0, d.n_pages);
}

/* Value of dimension e in Walsh row `row` of the slot that begins at token t. */
static double walsh(const gram_params *p, const gram_data *d, uint32_t part, uint32_t h, uint32_t t,
                    uint32_t row, uint32_t e)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < p->fold; i++) {
        double x = (double)(part ? d->v : d->k)[element(p, t + i, h, e, part == 1)];
        x -= (double)d->mean[(part * p->n_kv + h) * p->dim + e];
        sum += __builtin_parity(row & i) ? -x : x;
    }
    return sum;
}

/* Matrix m of a run, some of its elements, in double precision. */
static void check_matrix(const gram_params *p, const gram_data *d, uint32_t m, const float *got)
{
    uint32_t D = p->dim, h = m / p->fold, row = m % p->fold;
    for (uint32_t i = 0; i < D; i++) {
        uint32_t j = (7 * i + m) % (i + 1), slots = 0;
        double want = (double)d->gram[(m * D + i) * D + j], size = fabs(want);
        for (uint32_t t = kvcl_div_up(p->n_skip, p->fold) * p->fold; t + p->fold <= p->n_tokens;
             t += p->fold, slots++) {
            double a = walsh(p, d, h / p->n_kv, h % p->n_kv, t, row, i);
            double b = walsh(p, d, h / p->n_kv, h % p->n_kv, t, row, j);
            want += a * b;
            size += fabs(a * b);
        }
        test_true(slots == kvcl_gram_slots(p->n_skip, p->n_tokens, p->fold));
        test_close((double)got[(m * D + i) * D + j], want, p->whole ? 0.0 : 3e-6 * size, "moment",
                   i);
    }
}

static void identity_pages(test_run *r, const void *params)
{
    const gram_params *p = params;
    gram_data d = make_pages(r, p), cut = d;
    d.out = test_inout(r, d.gram, pages_bytes(p));
    cut.out = test_inout(r, d.gram, pages_bytes(p));
    gram_pages(r, p, &d, 0, d.n_pages);
    gram_pages(r, p, &cut, 0, 1);
    if (d.n_pages > 1)
        gram_pages(r, p, &cut, 1, d.n_pages);
    test_wait(r);
    const float *got = test_values(r, d.out);
    ck_assert_mem_eq(got, test_values(r, cut.out), pages_bytes(p));
    check_symmetric(got, 2 * p->n_kv * p->fold, p->dim);
    for (uint32_t m = 0; m < 2 * p->n_kv * p->fold; m++)
        check_matrix(p, &d, m, got);
}

/* ---- rows ---------------------------------------------------------------------------------- */

typedef struct rows_data {
    float *x, *gram;
    uint32_t stride;
    kvcl_view out;
} rows_data;

static rows_data make_rows(test_run *r, const gram_params *p)
{
    rows_data d = {.stride = p->n_kv * p->group * p->dim + p->pad};
    d.x = values(r, p, (size_t)p->n * d.stride, 5.0f);
    d.gram = matrices(r, p, p->n_kv);
    d.out = test_inout(r, d.gram, (size_t)p->n_kv * p->dim * p->dim * sizeof(float));
    kvcl_gram_rows_args a = {.gram = d.out, .n = p->n, .stride = d.stride};
    a.x = test_in(r, d.x, ((size_t)p->n * d.stride - p->pad) * sizeof(float));
    a.n_q_heads = p->n_kv * p->group;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    test_ok(r, kvcl_op_gram_rows(r->d->q, &a));
    return d;
}

static void run_rows(test_run *r, const void *params) { (void)make_rows(r, params); }

static void identity_rows(test_run *r, const void *params)
{
    const gram_params *p = params;
    rows_data d = make_rows(r, p);
    uint32_t D = p->dim;
    test_wait(r);
    const float *got = test_values(r, d.out);
    check_symmetric(got, p->n_kv, D);
    for (uint32_t i = 0; i < p->n_kv * D; i++) {
        uint32_t j = (5 * i + 3) % (i % D + 1);
        double want = (double)d.gram[i * D + j], size = fabs(want);
        for (uint32_t row = 0; row < p->n * p->group; row++) {
            const float *x = d.x + (size_t)row / p->group * d.stride;
            x += (i / D * p->group + row % p->group) * D;
            want += (double)x[i % D] * (double)x[j];
            size += fabs((double)x[i % D] * (double)x[j]);
        }
        double ulps = p->whole ? 0.0 : 6e-8 * (p->n * p->group + 2);
        test_close((double)got[i * D + j], want, ulps * size, "moment", i);
    }
}

/* ---- cases --------------------------------------------------------------------------------- */

static void add(test_cases *cases, bool small, bool pages, const gram_params *p)
{
    if (pages)
        test_cases_add(cases, small, run_pages, identity_pages, p, sizeof *p,
                       "gram_pages tokens=%u skip=%u fold=%u heads=%u D=%u join=%u %s/%s",
                       p->n_tokens, p->n_skip, p->fold, p->n_kv, p->dim, p->join,
                       kvcl_type_name((kvcl_type)p->type_k), kvcl_type_name((kvcl_type)p->type_v));
    else
        test_cases_add(cases, small, run_rows, identity_rows, p, sizeof *p,
                       "gram_rows n=%u heads=%u/%u D=%u pad=%u", p->n, p->n_kv * p->group, p->n_kv,
                       p->dim, p->pad);
}

void test_cases_gram(test_cases *cases)
{
    static const struct {
        gram_params p;
        bool small;
    } list[] = {
        {{.n_tokens = 64, .fold = 1, .n_kv = 1, .dim = 8, .n = 1, .group = 1}, true},
        {{.n_tokens = 67, .n_skip = 5, .fold = 4, .n_kv = 2, .dim = 16, .n = 5, .group = 2}, true},
        {{.n_tokens = 130, .n_skip = 3, .fold = 2, .n_kv = 1, .dim = 40, .n = 65, .group = 1},
         true},
        {{.n_tokens = 3, .fold = 4, .n_kv = 1, .dim = 24, .n = 64, .group = 3}, false},
        {{.n_tokens = 200, .n_skip = 63, .fold = 8, .n_kv = 3, .dim = 64, .n = 100, .group = 2},
         false},
        {{.n_tokens = 128, .fold = 4, .n_kv = 2, .dim = 128, .n = 130, .group = 4}, false},
        {{.n_tokens = 70, .fold = 1, .n_kv = 2, .dim = 64, .n = 5, .group = 2, .join = 2}, true},
        {{.n_tokens = 150,
          .n_skip = 9,
          .fold = 2,
          .n_kv = 1,
          .dim = 192,
          .n = 1,
          .group = 1,
          .join = 6},
         false},
        {{.n_tokens = 192, .n_skip = 8, .fold = 1, .n_kv = 1, .dim = 200, .n = 7, .group = 2},
         false},
        {{.n_tokens = 66, .fold = 2, .n_kv = 1, .dim = 256, .n = 3, .group = 1, .whole = 1}, false},
        {{.n_tokens = 150,
          .n_skip = 9,
          .fold = 8,
          .n_kv = 2,
          .dim = 72,
          .n = 129,
          .group = 2,
          .whole = 1},
         false},
    };
    for (size_t i = 0; i < kvcl_array_len(list); i++)
        for (uint32_t types = 0; types < 4; types += i % 2 ? 1 : 3) {
            gram_params p = list[i].p;
            p.type_k = types % 2 ? KVCL_F32 : KVCL_F16;
            p.type_v = types / 2 ? KVCL_F16 : KVCL_F32;
            p.pad = types * 3;
            add(cases, list[i].small && types == 0, true, &p);
            if (types < 2)
                add(cases, list[i].small && types == 0, false, &p);
        }
}
