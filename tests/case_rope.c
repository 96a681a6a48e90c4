/* case_rope.c - rotary positions and storing in pages.  Kernel: cl/rope.cl; twin: cpu/rope.c
 *
 * Identities: a rotation keeps each pair's norm; rotating by p and then by -p gives the values
 * back within rounding; the stored rows are the rotated keys and the values, rounded to the page's
 * type, and the keys as they were where asked for; a batch stores what its tokens alone store. */
#include "case.h"

#include "f16.h"
#include "types.h"

#include <math.h>

typedef struct rope_params {
    uint32_t n, pos0, n_q, n_kv, dim, n_rot, pairing;
    uint32_t type_k, type_v, first_page, n_pages, pad;
    uint32_t ku, type_ku; /* ku: keys before rotation, too */
} rope_params;

typedef struct rope_data {
    float *qkv, *table;
    int32_t *pages;
    uint32_t stride;
    size_t pool_elems; /* of one pool */
    kvcl_view out, k, v, ku;
} rope_data;

/* Slots of a pool one page larger than needed, in shuffled order. */
static int32_t *make_page_table(test_run *r, uint32_t n_pages)
{
    int32_t *pages = test_mem(r, (n_pages + 1) * sizeof *pages);
    for (uint32_t i = 0; i <= n_pages; i++)
        pages[i] = (int32_t)i;
    for (uint32_t i = n_pages; i > 0; i--) {
        uint32_t j = test_below(&r->rng, i + 1);
        int32_t swap = pages[i];
        pages[i] = pages[j];
        pages[j] = swap;
    }
    return pages;
}

static rope_data make(test_run *r, const rope_params *p)
{
    rope_data d = {.stride = (p->n_q + 2 * p->n_kv) * p->dim + p->pad};
    uint32_t half = p->n_rot / 2;
    d.qkv = test_floats(r, (size_t)p->n * d.stride, 4.0f);
    d.table = test_mem(r, (size_t)(p->pos0 + p->n) * p->n_rot * sizeof(float));
    for (uint32_t pos = 0; pos < p->pos0 + p->n; pos++) {
        for (uint32_t i = 0; i < half; i++) {
            double angle = pos * pow(10000.0, -2.0 * i / p->n_rot);
            d.table[(size_t)pos * p->n_rot + 2 * i] = (float)cos(angle);
            d.table[(size_t)pos * p->n_rot + 2 * i + 1] = (float)sin(angle);
        }
    }
    d.pages = make_page_table(r, p->n_pages);
    d.pool_elems = (size_t)(p->n_pages + 1) * p->n_kv * p->dim * KVCL_PAGE_TOKENS;
    return d;
}

/* Stores tokens [first, first + n) of the data in new pools. */
static void rope(test_run *r, const rope_params *p, rope_data *d, uint32_t first, uint32_t n,
                 const float *table)
{
    kvcl_rope_store_args a = {.n = n, .qkv_stride = d->stride, .pos0 = p->pos0 + first};
    a.n_q_heads = p->n_q;
    a.n_kv_heads = p->n_kv;
    a.head_dim = p->dim;
    a.n_rot = p->n_rot;
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.pairing = (kvcl_rope_pairing)p->pairing;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    size_t row = (size_t)d->stride - p->pad;
    a.qkv = d->out = test_inout(r, d->qkv + (size_t)first * d->stride,
                                (((size_t)n - 1) * d->stride + row) * sizeof(float));
    if (p->pairing != KVCL_ROPE_NONE)
        a.table = test_in(r, table, (size_t)(p->pos0 + p->n) * p->n_rot * sizeof(float));
    a.page_table = test_in(r, d->pages, p->n_pages * sizeof *d->pages);
    a.k = d->k = test_out(r, kvcl_type_bytes(a.type_k, d->pool_elems));
    a.v = d->v = test_out(r, kvcl_type_bytes(a.type_v, d->pool_elems));
    a.type_ku = (kvcl_type)p->type_ku;
    if (p->ku)
        a.ku = d->ku = test_out(r, kvcl_type_bytes(a.type_ku, d->pool_elems));
    test_ok(r, kvcl_op_rope_store(r->d->q, &a));
}

static void run(test_run *r, const void *params)
{
    const rope_params *p = params;
    rope_data d = make(r, p);
    rope(r, p, &d, 0, p->n, d.table);
}

static double pair_norm(const float *x, uint32_t ia, uint32_t ib)
{
    return hypot((double)x[ia], (double)x[ib]);
}

/* Pairs keep their norm; dims that are not rotated keep their bits. */
static void check_head(const rope_params *p, const float *before, const float *after)
{
    uint32_t half = p->n_rot / 2;
    bool turns = p->pairing != KVCL_ROPE_NONE;
    for (uint32_t i = 0; turns && i < half; i++) {
        uint32_t ia = p->pairing == KVCL_ROPE_ADJACENT ? 2 * i : i;
        uint32_t ib = p->pairing == KVCL_ROPE_ADJACENT ? 2 * i + 1 : i + half;
        double want = pair_norm(before, ia, ib);
        test_close(pair_norm(after, ia, ib), want, 3e-7 * want, "norm of pair", i);
    }
    uint32_t fixed = turns ? p->n_rot : 0;
    ck_assert_mem_eq(before + fixed, after + fixed, (p->dim - fixed) * sizeof(float));
}

static float page_value(test_run *r, kvcl_view pool, kvcl_type type, size_t at)
{
    const unsigned char *bytes = test_bytes(r, pool);
    float x;
    kvcl_dequantise(type, bytes + kvcl_type_bytes(type, at), 1, &x);
    return x;
}

/* The pages hold token i's key (as rotated by this test's own arithmetic) and value. */
static void check_pages(test_run *r, const rope_params *p, const rope_data *d, uint32_t i)
{
    uint32_t pos = p->pos0 + i, t = pos % KVCL_PAGE_TOKENS, half = p->n_rot / 2;
    size_t slot = (size_t)d->pages[pos / KVCL_PAGE_TOKENS - p->first_page];
    const float *row = d->qkv + (size_t)i * d->stride, *cs = d->table + (size_t)pos * p->n_rot;
    for (uint32_t h = 0; h < p->n_kv; h++) {
        const float *k = row + (p->n_q + h) * p->dim, *v = k + p->n_kv * p->dim;
        size_t base = (slot * p->n_kv + h) * p->dim * KVCL_PAGE_TOKENS;
        for (uint32_t e = 0; e < p->dim; e++) {
            bool turns = p->pairing != KVCL_ROPE_NONE && e < p->n_rot;
            bool adjacent = p->pairing == KVCL_ROPE_ADJACENT;
            uint32_t i_pair = adjacent ? e / 2 : e % (half ? half : 1);
            bool first = adjacent ? e % 2 == 0 : e < half;
            uint32_t other = adjacent ? e ^ 1u : first ? e + half : e - half;
            double c = turns ? (double)cs[2 * i_pair] : 1.0;
            double s = turns ? (double)cs[2 * i_pair + 1] : 0.0;
            double x = (double)k[e], y = turns ? (double)k[other] : 0.0;
            double want = first ? x * c - y * s : x * c + y * s;
            double tol = p->type_k == KVCL_F16 ? 5e-4 * (fabs(want) + 1e-4) : 1e-6;
            float got = page_value(r, d->k, (kvcl_type)p->type_k, base + e * 64 + t);
            test_close((double)got, want, turns ? tol : p->type_k == KVCL_F16 ? tol : 0.0, "k", e);
            float want_v = p->type_v == KVCL_F16 ? kvcl_f16_to_f32(kvcl_f32_to_f16(v[e])) : v[e];
            got = page_value(r, d->v, (kvcl_type)p->type_v, base + t * p->dim + e);
            test_require(memcmp(&got, &want_v, sizeof got) == 0, "v of token %u, dim %u", i, e);
            float want_ku = p->type_ku == KVCL_F16 ? kvcl_f16_to_f32(kvcl_f32_to_f16(k[e])) : k[e];
            if (!p->ku)
                continue;
            got = page_value(r, d->ku, (kvcl_type)p->type_ku, base + e * 64 + t);
            test_require(memcmp(&got, &want_ku, sizeof got) == 0, "ku of token %u, dim %u", i, e);
        }
    }
}

static void identity(test_run *r, const void *params)
{
    const rope_params *p = params;
    rope_data d = make(r, p);
    size_t n_table = (size_t)(p->pos0 + p->n) * p->n_rot, row = (size_t)d.stride - p->pad;
    const float *qkv = d.qkv;
    float *back = test_mem(r, n_table * sizeof *back);
    float *turned = test_mem(r, (size_t)p->n * d.stride * sizeof *turned);
    for (size_t i = 0; i < n_table; i++)
        back[i] = i % 2 ? -d.table[i] : d.table[i];
    rope(r, p, &d, 0, p->n, d.table);
    test_wait(r);
    for (uint32_t i = 0; i < p->n; i++) {
        const float *before = d.qkv + (size_t)i * d.stride;
        const float *after = test_values(r, d.out) + (size_t)i * d.stride;
        memcpy(turned + (size_t)i * d.stride, after, row * sizeof *turned);
        for (uint32_t h = 0; h < p->n_q; h++)
            check_head(p, before + h * p->dim, after + h * p->dim);
        size_t n_q = (size_t)p->n_q * p->dim;
        ck_assert_mem_eq(before + n_q, after + n_q, (row - n_q) * sizeof(float));
        check_pages(r, p, &d, i);
    }
    /* the last token alone stores the same, and turning back gives the queries back */
    kvcl_view all = d.out;
    rope(r, p, &d, p->n - 1, 1, d.table);
    test_wait(r);
    ck_assert_mem_eq(test_values(r, all) + (size_t)(p->n - 1) * d.stride, test_values(r, d.out),
                     row * sizeof(float));
    check_pages(r, p, &d, p->n - 1);
    d.qkv = turned;
    rope(r, p, &d, 0, p->n, back);
    test_wait(r);
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t e = 0; e < p->n_q * p->dim; e++)
            test_close((double)test_values(r, d.out)[(size_t)i * d.stride + e],
                       (double)qkv[(size_t)i * d.stride + e], 2e-6, "turned back", e);
}

/* A case in the pairing and the types that `types` stands for. */
static void add(test_cases *cases, bool small, rope_params p, uint32_t pairing, uint32_t types)
{
    static const char *const pairings[] = {"none", "adjacent", "halves"};
    p.pairing = pairing;
    p.type_k = types % 2 ? KVCL_F32 : KVCL_F16;
    p.type_v = types / 2 % 2 ? KVCL_F32 : KVCL_F16;
    p.ku = types >= 3;
    p.type_ku = types == 4 ? KVCL_F32 : KVCL_F16;
    test_cases_add(cases, small, run, identity, &p, sizeof p,
                   "rope_store %s n=%u pos0=%u heads=%u/%u D=%u rot=%u k=%s v=%s ku=%s",
                   pairings[pairing], p.n, p.pos0, p.n_q, p.n_kv, p.dim, p.n_rot,
                   kvcl_type_name((kvcl_type)p.type_k), kvcl_type_name((kvcl_type)p.type_v),
                   p.ku ? kvcl_type_name((kvcl_type)p.type_ku) : "none");
}

void test_cases_rope(test_cases *cases)
{
    static const struct {
        rope_params p;
        bool small;
    } list[] = {
        {{.n = 1, .pos0 = 0, .n_q = 1, .n_kv = 1, .dim = 8, .n_rot = 8, .n_pages = 1}, true},
        {{.n = 2, .pos0 = 63, .n_q = 2, .n_kv = 1, .dim = 16, .n_rot = 8, .n_pages = 2, .pad = 3},
         true},
        {{.n = 7,
          .pos0 = 190,
          .n_q = 4,
          .n_kv = 2,
          .dim = 64,
          .n_rot = 64,
          .first_page = 2,
          .n_pages = 3},
         false},
        {{.n = 64,
          .pos0 = 64,
          .n_q = 8,
          .n_kv = 1,
          .dim = 32,
          .n_rot = 20,
          .first_page = 1,
          .n_pages = 1,
          .pad = 32},
         false},
        {{.n = 100, .pos0 = 30, .n_q = 3, .n_kv = 3, .dim = 128, .n_rot = 128, .n_pages = 3},
         false},
        {{.n = 3,
          .pos0 = 1000,
          .n_q = 2,
          .n_kv = 2,
          .dim = 256,
          .n_rot = 256,
          .first_page = 14,
          .n_pages = 3},
         false},
        {{.n = 1, .pos0 = 127, .n_q = 6, .n_kv = 2, .dim = 24, .n_rot = 24, .n_pages = 2}, false},
    };
    for (size_t i = 0; i < kvcl_array_len(list); i++)
        for (uint32_t pairing = KVCL_ROPE_NONE; pairing <= KVCL_ROPE_HALVES; pairing++)
            for (uint32_t types = 0; types < 6; types++)
                if (test_pairwise(i + pairing + types, 3))
                    add(cases, list[i].small, list[i].p, pairing, types);
}
