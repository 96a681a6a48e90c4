/* case_block.c - raw pages to pages of Q8_0 and Q4_0 rows, back, and attention on them.  Kernels:
 * cl/block.cl; twins: cpu/block.c
 *
 * Identities: no value is further away than a step allows; the bytes are nearly always those of the
 * format's own encoder (kvcl_quantise, which divides); coding a decoded page again changes no
 * value; rows with values that are not finite are named; attention is near double precision over
 * the decoded pages. */
#include "pages.h"

#include "f16.h"
#include "types.h"

#include <math.h>

typedef struct block_params {
    uint32_t dim, n_kv, n_pages, type_k, type_v, block_k, block_v;
} block_params;

typedef struct block_data {
    float *k, *v; /* [page][Hk][D][64], [page][Hk][64][D] */
    int32_t *raw_slots, *code_slots;
    size_t page_elems, page_bytes;
    kvcl_view pool, code_table, raw_table, bad;
} block_data;

static block_data make(test_run *r, const block_params *p)
{
    block_data d = {.page_elems = (size_t)p->n_kv * p->dim * KVCL_PAGE_TOKENS};
    d.page_bytes =
        kvcl_block_page_bytes(p->n_kv, p->dim, (kvcl_type)p->block_k, (kvcl_type)p->block_v);
    d.k = test_gauss(r, p->n_pages * d.page_elems, 2.0f);
    d.v = test_gauss(r, p->n_pages * d.page_elems, 0.5f);
    for (size_t i = 0; i < p->n_pages * d.page_elems; i++) { /* blocks of nothing, and nearly */
        uint32_t t = (uint32_t)(i / p->dim) % KVCL_PAGE_TOKENS;
        d.v[i] = t == 3 ? 0.0f : t == 5 ? d.v[i] * 1e-20f : t == 9 ? d.v[i] * 1e-4f : d.v[i];
    }
    d.raw_slots = test_slots(r, p->n_pages);
    d.code_slots = test_slots(r, p->n_pages);
    d.raw_table = test_in(r, d.raw_slots, p->n_pages * sizeof(int32_t));
    d.code_table = test_in(r, d.code_slots, p->n_pages * sizeof(int32_t));
    return d;
}

static void encode(test_run *r, const block_params *p, block_data *d, kvcl_type type_k,
                   kvcl_type type_v, kvcl_view pool)
{
    kvcl_block_enc_args a = {.page_table = d->raw_table, .pool_table = d->code_table};
    a.k = test_raw_pool(r, type_k, d->raw_slots, p->n_pages, d->page_elems, d->k);
    a.v = test_raw_pool(r, type_v, d->raw_slots, p->n_pages, d->page_elems, d->v);
    a.pool = d->pool = pool;
    a.bad = d->bad = test_out(r, (size_t)p->n_pages * p->n_kv * sizeof(int32_t));
    a.n_pages = p->n_pages;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    a.type_k = type_k;
    a.type_v = type_v;
    a.block_type_k = (kvcl_type)p->block_k;
    a.block_type_v = (kvcl_type)p->block_v;
    test_ok(r, kvcl_op_block_enc(r->d->q, &a));
}

/* To pools with the raw slots. */
static void decode(test_run *r, const block_params *p, const block_data *d, kvcl_type type_k,
                   kvcl_type type_v, kvcl_view *k, kvcl_view *v)
{
    kvcl_block_dec_args a = {.pool = d->pool, .pool_table = d->code_table};
    a.page_table = d->raw_table;
    a.k = *k = test_out(r, kvcl_type_bytes(type_k, (p->n_pages + 1) * d->page_elems));
    a.v = *v = test_out(r, kvcl_type_bytes(type_v, (p->n_pages + 1) * d->page_elems));
    a.n_pages = p->n_pages;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    a.type_k = type_k;
    a.type_v = type_v;
    a.block_type_k = (kvcl_type)p->block_k;
    a.block_type_v = (kvcl_type)p->block_v;
    test_ok(r, kvcl_op_block_dec(r->d->q, &a));
}

static kvcl_view make_pool(test_run *r, const block_params *p, const block_data *d)
{
    return test_out(r, (p->n_pages + 1) * d->page_bytes);
}

static void run(test_run *r, const void *params)
{
    const block_params *p = params;
    block_data d = make(r, p);
    kvcl_view k, v;
    encode(r, p, &d, (kvcl_type)p->type_k, (kvcl_type)p->type_v, make_pool(r, p, &d));
    decode(r, p, &d, (kvcl_type)p->type_v, (kvcl_type)p->type_k, &k, &v);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* One row x and its bytes: within a step of it, and how many bytes the format's encoder makes
 * otherwise. */
static size_t check_row(kvcl_type type, const float *x, uint32_t dim, const unsigned char *row)
{
    size_t bytes = kvcl_type_bytes(type, dim), n_other = 0;
    unsigned char reference[256 / KVCL_QK * KVCL_Q8_0_BYTES];
    float got[256];
    kvcl_dequantise(type, row, dim, got);
    for (uint32_t i = 0; i < dim; i++) {
        float amax = 0.0f;
        for (uint32_t e = 0; e < KVCL_QK; e++)
            amax = fmaxf(amax, fabsf(x[i / KVCL_QK * KVCL_QK + e]));
        /* half a step and d's rounding; Q4_0's last step is a whole one at one end */
        double step = (double)amax / (type == KVCL_Q8_0 ? 127.0 : 8.0);
        double limit = step * (type == KVCL_Q8_0 ? 0.57 : 1.01) + 1e-5;
        test_close((double)got[i], (double)x[i], limit, "value", i);
    }
    test_true(kvcl_quantise(type, x, dim, reference));
    for (size_t i = 0; i < bytes; i++)
        n_other += row[i] != reference[i];
    return n_other;
}

static void check_rows(test_run *r, const block_params *p, const block_data *d)
{
    const unsigned char *pool = test_bytes(r, d->pool);
    size_t row_k = kvcl_type_bytes((kvcl_type)p->block_k, p->dim), n_other = 0;
    size_t row_v = kvcl_type_bytes((kvcl_type)p->block_v, p->dim);
    for (uint32_t i = 0; i < p->n_pages * p->n_kv * KVCL_PAGE_TOKENS; i++) {
        uint32_t head = i / KVCL_PAGE_TOKENS, t = i % KVCL_PAGE_TOKENS;
        const unsigned char *page = pool + (size_t)d->code_slots[head / p->n_kv] * d->page_bytes;
        size_t at = (size_t)head * p->dim * KVCL_PAGE_TOKENS;
        float k[256], v[256];
        for (uint32_t e = 0; e < p->dim; e++) {
            k[e] = d->k[at + e * KVCL_PAGE_TOKENS + t];
            v[e] = d->v[at + t * p->dim + e];
            if (fabsf(v[e]) < 1e-12f) /* the format's encoder may call this -0 */
                v[e] = 0.0f;
        }
        size_t row = (size_t)(head % p->n_kv) * KVCL_PAGE_TOKENS + t;
        n_other += check_row((kvcl_type)p->block_k, k, p->dim, page + row * row_k);
        page += p->n_kv * KVCL_PAGE_TOKENS * row_k;
        if (t != 3 && t != 5)
            n_other += check_row((kvcl_type)p->block_v, v, p->dim, page + row * row_v);
    }
    test_require(n_other <= p->n_pages * d->page_bytes / 200,
                 "%zu bytes differ from the format's encoder", n_other);
}

static void identity(test_run *r, const void *params)
{
    const block_params *p = params;
    block_data d = make(r, p);
    kvcl_view k, v;
    encode(r, p, &d, (kvcl_type)p->type_k, (kvcl_type)p->type_v, make_pool(r, p, &d));
    decode(r, p, &d, KVCL_F32, KVCL_F32, &k, &v);
    test_wait(r);
    for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++)
        test_require(((const int32_t *)test_bytes(r, d.bad))[i] == KVCL_PAGE_TOKENS,
                     "a good page is called bad");
    check_rows(r, p, &d);
    size_t n = p->n_pages * d.page_elems;
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)d.raw_slots[i / d.page_elems] * d.page_elems + i % d.page_elems;
        d.k[i] = test_values(r, k)[at];
        d.v[i] = test_values(r, v)[at];
    }
    encode(r, p, &d, KVCL_F32, KVCL_F32, make_pool(r, p, &d));
    decode(r, p, &d, KVCL_F32, KVCL_F32, &k, &v);
    test_wait(r);
    for (size_t i = 0; i < n; i++) {
        size_t at = (size_t)d.raw_slots[i / d.page_elems] * d.page_elems + i % d.page_elems;
        test_require(test_values(r, k)[at] == d.k[i] && test_values(r, v)[at] == d.v[i],
                     "value %zu of a decoded page moved", i);
    }
}

static void run_bad(test_run *r, const void *params)
{
    const block_params *p = params;
    block_data d = make(r, p);
    uint32_t n = p->n_pages * p->n_kv;
    int32_t *want = test_mem(r, n * sizeof *want);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = test_below(&r->rng, 63), e = test_below(&r->rng, p->dim), what = i % 5;
        size_t at = (size_t)i * p->dim * KVCL_PAGE_TOKENS;
        float *k = d.k + at + e * KVCL_PAGE_TOKENS + t, *v = d.v + at + t * p->dim + e;
        want[i] = what == 0 ? KVCL_PAGE_TOKENS : (int32_t)t;
        if (what == 1)
            k[0] = NAN;
        if (what == 2)
            v[0] = -INFINITY;
        if (what == 3) /* the first of two */
            k[1] = v[0] = INFINITY;
        if (what == 4) /* finite, but too large for a scale (in f16, infinite) */
            v[0] = -3e9f;
    }
    encode(r, p, &d, (kvcl_type)p->type_k, (kvcl_type)p->type_v,
           test_scratch(r, (p->n_pages + 1) * d.page_bytes));
    test_wait(r);
    for (uint32_t i = 0; i < n; i++) {
        int32_t got = ((const int32_t *)test_bytes(r, d.bad))[i];
        test_require(got == want[i], "page %u, head %u: bad token %d, want %d", i / p->n_kv,
                     i % p->n_kv, got, want[i]);
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

typedef struct attend_params {
    uint32_t block_k, block_v;
    test_region region;
} attend_params;

typedef struct attend_data {
    const attend_params *p;
    test_attn attn;
    kvcl_view pool;
} attend_data;

/* Rows of random codes, d about `size`. */
static void make_rows(test_run *r, kvcl_type type, size_t n_blocks, float size, unsigned char *out)
{
    size_t bytes = kvcl_type_block_bytes(type);
    for (size_t b = 0; b < n_blocks; b++, out += bytes) {
        float x = test_below(&r->rng, 30) ? size * (1.0f + 0.5f * test_unit(&r->rng)) : 0.0f;
        uint16_t d = kvcl_f32_to_f16(test_below(&r->rng, 2) ? x : -x);
        memcpy(out, &d, sizeof d);
        for (size_t i = 2; i < bytes; i++)
            out[i] = (unsigned char)test_below(&r->rng, 256);
    }
}

static attend_data make_attend(test_run *r, const attend_params *p)
{
    const test_region *g = &p->region;
    kvcl_type types[2] = {(kvcl_type)p->block_k, (kvcl_type)p->block_v};
    attend_data a = {.p = p, .attn = test_attn_make(r, g)};
    size_t page_bytes = kvcl_block_page_bytes(g->n_kv, g->dim, types[0], types[1]);
    size_t bytes = (a.attn.n_pages + 1) * page_bytes;
    unsigned char *pool = test_mem(r, bytes);
    memset(pool, 0xff, bytes);
    for (uint32_t i = 0; i < a.attn.n_pages; i++) {
        unsigned char *at = pool + (size_t)a.attn.slots[i] * page_bytes;
        size_t n_blocks = (size_t)g->n_kv * KVCL_PAGE_TOKENS * g->dim / KVCL_QK;
        for (uint32_t of_v = 0; of_v < 2; of_v++) {
            make_rows(r, types[of_v], n_blocks, types[of_v] == KVCL_Q8_0 ? 0.014f : 0.22f, at);
            at += n_blocks * kvcl_type_block_bytes(types[of_v]);
        }
    }
    a.pool = test_in(r, pool, bytes);
    return a;
}

static void attend(test_run *r, const void *data, const kvcl_attn_in *in)
{
    const attend_data *d = data;
    kvcl_attn_block_args a = {.in = *in, .pool = d->pool};
    a.block_type_k = (kvcl_type)d->p->block_k;
    a.block_type_v = (kvcl_type)d->p->block_v;
    test_ok(r, kvcl_op_attn_block(r->d->q, &a));
}

static void run_attend(test_run *r, const void *params)
{
    attend_data a = make_attend(r, params);
    a.attn.in = test_attn_part(r, &a.attn, a.attn.in.begin, a.attn.in.end);
    attend(r, &a, &a.attn.in);
}

static void identity_attend(test_run *r, const void *params)
{
    const attend_params *p = params;
    attend_data a = make_attend(r, p);
    block_params shape = {p->region.dim, p->region.n_kv, a.attn.n_pages, KVCL_F32,
                          KVCL_F32,      p->block_k,     p->block_v};
    block_data d = {.page_elems = (size_t)p->region.n_kv * p->region.dim * KVCL_PAGE_TOKENS};
    kvcl_view k, v;
    d.pool = a.pool;
    d.raw_table = d.code_table = test_in(r, a.attn.slots, a.attn.n_pages * sizeof(int32_t));
    a.attn.in = test_attn_part(r, &a.attn, a.attn.in.begin, a.attn.in.end);
    attend(r, &a, &a.attn.in);
    decode(r, &shape, &d, KVCL_F32, KVCL_F32, &k, &v);
    test_wait(r);
    for (uint32_t hk = 0; hk < p->region.n_kv; hk++)
        test_attn_check_head(r, &a.attn, k, v, hk, 2e-5, 2e-5);
    test_attn_check_bits(r, &a.attn, attend, &a);
}

/* ---- cases --------------------------------------------------------------------------------- */

void test_cases_block(test_cases *cases)
{
    static const uint32_t shapes[][3] = {
        {32, 1, 1}, {64, 3, 2}, {96, 2, 1}, {128, 2, 3}, {256, 1, 1}};
    /* D, heads, group; n, pos0; tokens; first partial, spare ones, gap between rows */
    static const test_region regions[] = {
        {32, 1, 1, 1, 70, 5, 71, 0, 0, 0},       {64, 2, 2, 3, 700, 8, 600, 1, 2, 0},
        {96, 1, 4, 2, 1100, 500, 1030, 0, 0, 3}, {128, 2, 4, 1, 2000, 64, 1536, 0, 0, 0},
        {256, 1, 2, 5, 126, 100, 131, 0, 0, 0},  {64, 3, 1, 70, 480, 470, 550, 0, 0, 0},
    };
    for (uint32_t types = 0; types < 4; types++) {
        uint32_t block_k = types % 2 ? KVCL_Q4_0 : KVCL_Q8_0;
        uint32_t block_v = types / 2 ? KVCL_Q4_0 : KVCL_Q8_0;
        const char *name_k = kvcl_type_name((kvcl_type)block_k);
        const char *name_v = kvcl_type_name((kvcl_type)block_v);
        for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
            if (!test_pairwise(i + types % 2 + types / 2, 2))
                continue;
            block_params p = {shapes[i][0], shapes[i][1], shapes[i][2], KVCL_F16,
                              KVCL_F16,     block_k,      block_v};
            p.type_k = i % 2 ? KVCL_F32 : KVCL_F16;
            p.type_v = i / 2 % 2 ? KVCL_F32 : KVCL_F16;
            test_cases_add(cases, i == 0 && types % 3 == 0, run, identity, &p, sizeof p,
                           "block %s/%s D=%u heads=%u pages=%u", name_k, name_v, p.dim, p.n_kv,
                           p.n_pages);
            p.n_pages = 5;
            if (i == 1 || i == 2)
                test_cases_add(cases, false, run_bad, NULL, &p, sizeof p,
                               "block bad %s/%s D=%u heads=%u", name_k, name_v, p.dim, p.n_kv);
        }
        for (size_t i = 0; i < kvcl_array_len(regions); i++) {
            if (!test_pairwise(i + types % 2 + types / 2, 2))
                continue;
            attend_params p = {block_k, block_v, regions[i]};
            const test_region *g = &regions[i];
            test_cases_add(cases, i == 0, run_attend, identity_attend, &p, sizeof p,
                           "attn_block %s/%s D=%u heads=%ux%u n=%u pos0=%u tokens=%u-%u", name_k,
                           name_v, g->dim, g->group, g->n_kv, g->n, g->pos0, g->begin, g->end);
        }
    }
}
