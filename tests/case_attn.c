/* case_attn.c - attention by block partials over raw pages, and their merge.  Kernels: cl/attn.cl;
 * twins: cpu/attn.c
 *
 * Identities: near softmax attention in double precision; any split of the tokens into regions
 * merges to attention over all within rounding; a split between blocks, computed in any order,
 * has the bits of all at once; a query of a batch has the bits it has alone; one token returns its
 * value; permuting the tokens of a page with their values changes the rounding only; an empty
 * partial changes nothing; tokens outside of a region, not a number here, are not looked at. */
#include "case.h"

#include "f16.h"
#include "types.h"

#include <math.h>

#define MAX_CUTS 3

typedef struct attn_params {
    uint32_t n, pos0, n_q, n_kv, dim, type_k, type_v;
    uint32_t begin;          /* tokens before it are nobody's */
    uint32_t cuts[MAX_CUTS]; /* where further regions begin, ascending, at most pos0; 0: none */
    uint32_t spare_parts, pad;
    uint32_t infinite; /* 1: the last query's own value is */
} attn_params;

typedef struct attn_data {
    const float *q;
    float *k, *v; /* [page][Hk][D][64] and [page][Hk][64][D], page 0 first */
    int32_t *pages;
    uint32_t n_pages, n_parts, q_stride, out_stride;
    float scale;
    kvcl_view q_view, k_pool, v_pool, ml, o, out;
} attn_data;

static size_t page_elems(const attn_params *p)
{
    return (size_t)p->n_kv * p->dim * KVCL_PAGE_TOKENS;
}

static uint32_t blocks(uint32_t begin, uint32_t end)
{
    return (end - 1) / KVCL_BLOCK_TOKENS - begin / KVCL_BLOCK_TOKENS + 1;
}

/* Regions of a case: where region i begins, and where the one after it does; false after the last.
 */
static bool region(const attn_params *p, uint32_t i, uint32_t *begin, uint32_t *end)
{
    uint32_t n_cuts = 0;
    while (n_cuts < MAX_CUTS && p->cuts[n_cuts])
        n_cuts++;
    if (i > n_cuts)
        return false;
    *begin = i == 0 ? p->begin : p->cuts[i - 1];
    *end = i == n_cuts ? p->pos0 + p->n : p->cuts[i];
    return true;
}

/* Partials that the regions of a case make; *before_out: those of all but the last, *last_out: the
 * last one's begin. */
static uint32_t count_parts(const attn_params *p, uint32_t *before_out, uint32_t *last_out)
{
    uint32_t n = 0, begin, end;
    for (uint32_t i = 0; region(p, i, &begin, &end); i++) {
        *before_out = n;
        *last_out = begin;
        n += blocks(begin, end);
    }
    return n;
}

/* A pool with the pages in shuffled slots, in the pool's type; values[] becomes what is stored. */
static kvcl_view make_pool(test_run *r, const attn_params *p, kvcl_type type, const attn_data *d,
                           float *values)
{
    size_t elems = page_elems(p), bytes = kvcl_type_bytes(type, elems);
    unsigned char *pool = test_mem(r, (d->n_pages + 1) * bytes);
    memset(pool, 0xff, (d->n_pages + 1) * bytes);
    for (uint32_t page = 0; page < d->n_pages; page++) {
        unsigned char *slot = pool + (size_t)d->pages[page] * bytes;
        float *x = values + page * elems;
        for (size_t i = 0; i < elems; i++) { /* kvcl_quantise would not take what is not finite */
            uint16_t half = kvcl_f32_to_f16(x[i]);
            memcpy(slot + kvcl_type_bytes(type, i), type == KVCL_F16 ? (void *)&half : &x[i],
                   kvcl_type_bytes(type, 1));
            x[i] = type == KVCL_F16 ? kvcl_f16_to_f32(half) : x[i];
        }
    }
    return test_in(r, pool, (d->n_pages + 1) * bytes);
}

/* Where element e of token t of a head stands in d->k (or v). */
static size_t element(const attn_params *p, uint32_t t, uint32_t h, uint32_t e, bool of_v)
{
    size_t base = ((size_t)(t / KVCL_PAGE_TOKENS) * p->n_kv + h) * p->dim * KVCL_PAGE_TOKENS;
    t %= KVCL_PAGE_TOKENS;
    return base + (of_v ? t * p->dim + e : e * KVCL_PAGE_TOKENS + t);
}

/* Nobody's tokens are not a number. */
static void spoil(const attn_params *p, attn_data *d)
{
    for (uint32_t t = 0; t < d->n_pages * KVCL_PAGE_TOKENS; t++)
        for (uint32_t i = 0; (t < p->begin || t >= p->pos0 + p->n) && i < p->n_kv * p->dim; i++) {
            d->k[element(p, t, i / p->dim, i % p->dim, false)] = NAN;
            d->v[element(p, t, i / p->dim, i % p->dim, true)] = NAN;
        }
    if (p->infinite)
        for (uint32_t h = 0; h < p->n_kv; h++)
            d->v[element(p, p->pos0 + p->n - 1, h, 0, true)] = INFINITY;
}

static attn_data make_values(test_run *r, const attn_params *p)
{
    attn_data d = {.scale = 1.0f / sqrtf((float)p->dim)};
    d.n_pages = (p->pos0 + p->n - 1) / KVCL_PAGE_TOKENS + 1;
    uint32_t before, last;
    d.n_parts = count_parts(p, &before, &last) + p->spare_parts;
    d.q_stride = p->n_q * p->dim + p->pad;
    d.out_stride = p->n_q * p->dim + p->pad;
    d.q = test_floats(r, (size_t)p->n * d.q_stride, p->infinite ? 1.0f : 8.0f);
    d.k = test_floats(r, d.n_pages * page_elems(p), 3.0f);
    d.v = test_floats(r, d.n_pages * page_elems(p), 3.0f);
    d.pages = test_mem(r, (d.n_pages + 1) * sizeof *d.pages);
    for (uint32_t i = 0; i <= d.n_pages; i++)
        d.pages[i] = (int32_t)i;
    for (uint32_t i = d.n_pages; i > 0; i--) {
        uint32_t j = test_below(&r->rng, i + 1);
        int32_t swap = d.pages[i];
        d.pages[i] = d.pages[j];
        d.pages[j] = swap;
    }
    spoil(p, &d);
    return d;
}

static void make_views(test_run *r, const attn_params *p, attn_data *d)
{
    size_t parts = (size_t)p->n * p->n_q * d->n_parts;
    d->q_view = test_in(r, d->q, ((p->n - 1) * (size_t)d->q_stride + p->n_q * p->dim) * 4);
    d->k_pool = make_pool(r, p, (kvcl_type)p->type_k, d, d->k);
    d->v_pool = make_pool(r, p, (kvcl_type)p->type_v, d, d->v);
    d->ml = test_out(r, parts * 2 * sizeof(float));
    d->o = test_out(r, parts * p->dim * sizeof(float));
    d->out = test_out(r, ((p->n - 1) * (size_t)d->out_stride + p->n_q * p->dim) * 4);
}

/* Partials of the region [begin, end), from index first_part on. */
static void raw(test_run *r, const attn_params *p, const attn_data *d, uint32_t begin, uint32_t end,
                uint32_t first_part)
{
    uint32_t first = begin / KVCL_PAGE_TOKENS, n_pages = (end - 1) / KVCL_PAGE_TOKENS + 1 - first;
    kvcl_attn_raw_args a = {.k = d->k_pool, .v = d->v_pool};
    a.in = (kvcl_attn_in){.q = d->q_view, .ml = d->ml, .o = d->o, .n = p->n, .pos0 = p->pos0};
    a.in.page_table = test_in(r, d->pages + first, n_pages * sizeof *d->pages);
    a.in.q_stride = d->q_stride;
    a.in.n_q_heads = p->n_q;
    a.in.n_kv_heads = p->n_kv;
    a.in.head_dim = p->dim;
    a.in.begin = begin;
    a.in.end = end;
    a.in.first_part = first_part;
    a.in.n_parts = d->n_parts;
    a.in.scale = d->scale;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    test_ok(r, kvcl_op_attn_raw(r->d->q, &a));
}

static void merge(test_run *r, const attn_params *p, const attn_data *d)
{
    kvcl_attn_merge_args a = {.ml = d->ml, .o = d->o, .out = d->out, .n = p->n, .pos0 = p->pos0};
    count_parts(p, &a.n_before, &a.last_begin);
    a.n_parts = d->n_parts;
    a.n_q_heads = p->n_q;
    a.head_dim = p->dim;
    a.out_stride = d->out_stride;
    test_ok(r, kvcl_op_attn_merge(r->d->q, &a));
}

static void attend(test_run *r, const attn_params *p, const attn_data *d)
{
    uint32_t begin, end, first_part = 0;
    for (uint32_t i = 0; region(p, i, &begin, &end); i++) {
        raw(r, p, d, begin, end, first_part);
        first_part += blocks(begin, end);
    }
    merge(r, p, d);
}

static void run(test_run *r, const void *params)
{
    const attn_params *p = params;
    attn_data d = make_values(r, p);
    make_views(r, p, &d);
    attend(r, p, &d);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* Softmax attention of query i, head h in double precision. */
static void check_exactly(const attn_params *p, const attn_data *d, const float *out, uint32_t i,
                          uint32_t h)
{
    const float *q = d->q + (size_t)i * d->q_stride + h * p->dim;
    uint32_t n = p->pos0 + i + 1, hk = h / (p->n_q / p->n_kv);
    double want[256] = {0}, total = 0.0;
    for (uint32_t t = p->begin; t < n; t++) {
        double s = 0.0;
        for (uint32_t e = 0; e < p->dim; e++)
            s += (double)q[e] * (double)d->k[element(p, t, hk, e, false)];
        s = exp(s * (double)d->scale - 20.0);
        total += s;
        for (uint32_t e = 0; e < p->dim; e++)
            want[e] += s * (double)d->v[element(p, t, hk, e, true)];
    }
    for (uint32_t e = 0; e < p->dim; e++)
        if (isfinite(want[e]))
            test_close((double)out[h * p->dim + e], want[e] / total, 6e-5, "attention", e);
        else
            test_true(p->infinite && i + 1 == p->n && e == 0 && !isfinite(out[h * p->dim]));
}

/* New places for partials and outputs. */
static attn_data fresh(test_run *r, const attn_data *d)
{
    attn_data f = *d;
    f.ml = test_out(r, d->ml.bytes);
    f.o = test_out(r, d->o.bytes);
    f.out = test_out(r, d->out.bytes);
    return f;
}

/* The last query alone: the bits it has in the batch. */
static void check_alone(test_run *r, const attn_params *p, const attn_data *d,
                        const float *in_batch)
{
    attn_params one = *p;
    attn_data alone = *d;
    one.n = 1;
    one.pos0 = p->pos0 + p->n - 1;
    alone.q = d->q + (size_t)(p->n - 1) * d->q_stride;
    size_t parts = (size_t)p->n_q * d->n_parts, row = (size_t)p->n_q * p->dim * sizeof(float);
    alone.q_view = test_in(r, alone.q, row);
    alone.ml = test_out(r, parts * 2 * sizeof(float));
    alone.o = test_out(r, parts * p->dim * sizeof(float));
    alone.out = test_out(r, row);
    attend(r, &one, &alone);
    test_wait(r);
    ck_assert_mem_eq(test_values(r, alone.out), in_batch, row);
}

/* The last region's blocks in two halves, the later first: the same bits everywhere. */
static void check_halves(test_run *r, const attn_params *p, const attn_data *d)
{
    attn_data split = fresh(r, d);
    uint32_t begin, end, before, last;
    uint32_t n = count_parts(p, &before, &last) - before;
    uint32_t cut = kvcl_max_u32(last, (last / KVCL_BLOCK_TOKENS + n / 2) * KVCL_BLOCK_TOKENS);
    for (uint32_t i = 0, part = 0; region(p, i, &begin, &end); i++, part += blocks(begin, end))
        if (begin != last || cut == last) {
            raw(r, p, &split, begin, end, part);
        } else {
            raw(r, p, &split, cut, end, part + blocks(begin, cut));
            raw(r, p, &split, begin, cut, part);
        }
    merge(r, p, &split);
    test_wait(r);
    ck_assert_mem_eq(test_values(r, split.out), test_values(r, d->out), d->out.bytes);
    ck_assert_mem_eq(test_values(r, split.ml), test_values(r, d->ml), d->ml.bytes);
    ck_assert_mem_eq(test_values(r, split.o), test_values(r, d->o), d->o.bytes);
}

static void identity(test_run *r, const void *params)
{
    const attn_params *p = params;
    attn_data d = make_values(r, p);
    make_views(r, p, &d);
    attend(r, p, &d);
    test_wait(r);
    const float *all = test_values(r, d.out);
    test_check_gaps(r, d.out, p->n - 1, p->n_q * p->dim, d.out_stride);
    for (uint32_t i = 0; i < p->n; i++) /* of many queries some, and the last */
        for (uint32_t h = 0; h < p->n_q && (p->n <= 8 || i % 13 == 0 || i + 1 == p->n); h++)
            check_exactly(p, &d, all + (size_t)i * d.out_stride, i, h);
    check_halves(r, p, &d);
    check_alone(r, p, &d, all + (size_t)(p->n - 1) * d.out_stride);
    /* as one region */
    attn_params whole = *p;
    memset(whole.cuts, 0, sizeof whole.cuts);
    attn_data one = fresh(r, &d);
    attend(r, &whole, &one);
    test_wait(r);
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t e = 0; e < p->n_q * p->dim; e++) {
            size_t at = (size_t)i * d.out_stride + e;
            float a = test_values(r, one.out)[at];
            if (isfinite(a) || !p->infinite)
                test_close((double)a, (double)all[at], 1e-5, "as one region", at);
        }
}

/* ---- one token; permuted tokens ------------------------------------------------------------ */

static void run_one_token(test_run *r, const void *params)
{
    const attn_params *p = params;
    attn_data d = make_values(r, p);
    make_views(r, p, &d);
    attend(r, p, &d);
    test_wait(r);
    for (uint32_t h = 0; h < p->n_q; h++) {
        const float *v = d.v + (size_t)(h / (p->n_q / p->n_kv)) * p->dim * KVCL_PAGE_TOKENS;
        for (uint32_t e = 0; e < p->dim; e++) {
            float got = test_values(r, d.out)[h * p->dim + e];
            test_require(got == v[e], "head %u, dim %u: %.9g is not the value %.9g", h, e,
                         (double)got, (double)v[e]);
            test_true(got != 0.0f || !signbit(got));
        }
    }
}

static void run_permuted(test_run *r, const void *params)
{
    const attn_params *p = params;
    attn_data d = make_values(r, p);
    make_views(r, p, &d);
    attend(r, p, &d);
    attn_data turned = d;
    size_t elems = d.n_pages * page_elems(p);
    turned.k = test_mem(r, elems * sizeof(float));
    turned.v = test_mem(r, elems * sizeof(float));
    for (size_t i = 0; i < elems; i++) { /* token t moves to 63 - t */
        size_t t_k = i % KVCL_PAGE_TOKENS, t_v = i / p->dim % KVCL_PAGE_TOKENS;
        turned.k[i - t_k + (KVCL_PAGE_TOKENS - 1 - t_k)] = d.k[i];
        turned.v[i + (KVCL_PAGE_TOKENS - 1 - t_v) * p->dim - t_v * p->dim] = d.v[i];
    }
    make_views(r, p, &turned);
    attend(r, p, &turned);
    test_wait(r);
    const float *a = test_values(r, d.out), *b = test_values(r, turned.out);
    for (uint32_t e = 0; e < p->n_q * p->dim; e++)
        test_close((double)a[e], (double)b[e], 5e-6, "permuted", e);
}

/* ---- merge on made-up partials ------------------------------------------------------------- */

/* Partials with empty ones (m = -inf) and ones far below the maximum among them. */
static void run_merge(test_run *r, const void *params)
{
    const attn_params *p = params;
    attn_data d = {.out_stride = p->n_q * p->dim + p->pad};
    uint32_t before, last;
    d.n_parts = count_parts(p, &before, &last) + p->spare_parts;
    size_t n = (size_t)p->n * p->n_q * d.n_parts;
    float *ml = test_floats(r, 2 * n, 5.0f), *o = test_floats(r, n * p->dim, 3.0f);
    for (size_t i = 0; i < n; i++) {
        uint32_t odd = i % d.n_parts ? test_below(&r->rng, 4) : 3;
        ml[2 * i + 1] = odd == 0 ? 0.0f : 1.0f + (float)test_below(&r->rng, 1000) * 0.05f;
        ml[2 * i] = odd == 0 ? -INFINITY : odd == 1 ? ml[2 * i] - 70.0f : ml[2 * i];
        for (uint32_t e = 0; odd == 0 && e < p->dim; e++)
            o[i * p->dim + e] = 0.0f;
    }
    d.ml = test_in(r, ml, 2 * n * sizeof(float));
    d.o = test_in(r, o, n * p->dim * sizeof(float));
    d.out = test_out(r, ((p->n - 1) * (size_t)d.out_stride + p->n_q * p->dim) * sizeof(float));
    merge(r, p, &d);
    test_wait(r);
    test_check_gaps(r, d.out, p->n - 1, p->n_q * p->dim, d.out_stride);
    for (size_t task = 0; task < (size_t)p->n * p->n_q; task++) {
        size_t i = task / p->n_q, h = task % p->n_q;
        size_t n_c = before + blocks(last, (uint32_t)(p->pos0 + i) + 1), at = task * d.n_parts;
        for (uint32_t e = 0; e < p->dim; e++) {
            double total = 0.0, sum = 0.0;
            for (size_t c = 0; c < n_c; c++) {
                double w = exp((double)ml[2 * (at + c)]);
                total += w * (double)ml[2 * (at + c) + 1];
                sum += w * (double)o[(at + c) * p->dim + e];
            }
            float got = test_values(r, d.out)[i * d.out_stride + h * p->dim + e];
            test_close((double)got, sum / total, 1e-5, "merge", e);
        }
    }
}

/* ---- cases --------------------------------------------------------------------------------- */

static void add(test_cases *cases, bool small, test_case_fn fn, test_case_fn check,
                const attn_params *p, const char *what)
{
    test_cases_add(cases, small, fn, check, p, sizeof *p,
                   "%s n=%u pos0=%u from=%u,%u heads=%u/%u D=%u k=%s v=%s", what, p->n, p->pos0,
                   p->begin, p->cuts[0], p->n_q, p->n_kv, p->dim,
                   kvcl_type_name((kvcl_type)p->type_k), kvcl_type_name((kvcl_type)p->type_v));
}

void test_cases_attn(test_cases *cases)
{
    static const struct {
        attn_params p;
        bool small;
    } list[] = {
        {{.n = 1, .pos0 = 0, .n_q = 1, .n_kv = 1, .dim = 8}, true},
        {{.n = 2, .pos0 = 63, .n_q = 2, .n_kv = 1, .dim = 16, .pad = 3, .spare_parts = 1}, true},
        {{.n = 1, .pos0 = 64, .n_q = 4, .n_kv = 2, .dim = 32, .cuts = {30}}, true},
        {{.n = 3, .pos0 = 511, .n_q = 3, .n_kv = 1, .dim = 8, .begin = 3, .cuts = {500}}, true},
        {{.n = 7, .pos0 = 60, .n_q = 8, .n_kv = 1, .dim = 64, .pad = 32, .begin = 11}, false},
        {{.n = 64, .pos0 = 0, .n_q = 4, .n_kv = 2, .dim = 128}, false},
        {{.n = 64, .pos0 = 500, .n_q = 3, .n_kv = 3, .dim = 24, .cuts = {70, 300}}, false},
        {{.n = 1, .pos0 = 127, .n_q = 6, .n_kv = 2, .dim = 64, .spare_parts = 4}, false},
        {{.n = 1, .pos0 = 128, .n_q = 4, .n_kv = 4, .dim = 256, .begin = 127, .cuts = {128}},
         false},
        {{.n = 3, .pos0 = 700, .n_q = 5, .n_kv = 1, .dim = 40, .cuts = {512}}, false},
        {{.n = 1, .pos0 = 1500, .n_q = 4, .n_kv = 2, .dim = 128, .cuts = {65, 520, 1030}}, false},
        {{.n = 130, .pos0 = 31, .n_q = 2, .n_kv = 1, .dim = 64}, false},
        {{.n = 40, .pos0 = 1020, .n_q = 4, .n_kv = 2, .dim = 16, .begin = 100, .cuts = {1000}},
         false},
        {{.n = 20, .pos0 = 500, .n_q = 16, .n_kv = 1, .dim = 64, .begin = 70}, false},
        {{.n = 2, .pos0 = 8200, .n_q = 2, .n_kv = 1, .dim = 8, .cuts = {900}}, false},
        {{.n = 9, .pos0 = 516, .n_q = 2, .n_kv = 1, .dim = 16, .infinite = 1}, false},
        {{.n = 30, .pos0 = 80, .n_q = 3, .n_kv = 1, .dim = 40, .begin = 70, .infinite = 1}, false},
    };
    for (uint32_t types = 0; types < 4; types++) {
        attn_params one = {.n = 1, .n_q = 4, .n_kv = 2, .dim = 64};
        attn_params full = {.n = 1, .pos0 = 191, .n_q = 4, .n_kv = 2, .dim = 64};
        one.type_k = full.type_k = types % 2 ? KVCL_F32 : KVCL_F16;
        one.type_v = full.type_v = types / 2 ? KVCL_F32 : KVCL_F16;
        for (size_t i = 0; i < kvcl_array_len(list); i++) {
            attn_params p = list[i].p;
            if (!test_pairwise(i + types % 2 + types / 2, 2))
                continue;
            p.type_k = one.type_k;
            p.type_v = one.type_v;
            add(cases, list[i].small, run, identity, &p, "attn_raw");
        }
        add(cases, types == 0, run_one_token, NULL, &one, "attn_raw one token");
        add(cases, false, run_permuted, NULL, &full, "attn_raw permuted");
    }
    for (size_t i = 0; i < kvcl_array_len(list); i++) {
        attn_params p = list[i].p;
        p.type_k = p.type_v = KVCL_F32;
        add(cases, list[i].small, run_merge, NULL, &p, "attn_merge");
    }
}
