/* case_holo.c - raw pages to superposed pages, back, and attention on them.  Kernels: cl/holo.cl;
 * twins: cpu/holo.c
 *
 * Identities, in double precision: a slot is the sum of its tokens by the signs of Walsh's matrix;
 * a decoded row is what gain, matrix, signs and mean make of its slot; tokens in the span of the
 * chips come back whole, and so does one that is alone in its slot; turned keys are those before
 * rotation, turned; tokens that nobody reads do not matter; bad slots are named; attention is near
 * double precision over the decoded pages (test_codec.c: equal to the bit). */
#include "holos.h"

#include "types.h"

#include <math.h>

static size_t pool_bytes(const test_holo_params *p, const test_holo *d)
{
    size_t parts[2];
    return (p->n_pages + 1) * kvcl_holo_page_bytes(&d->shape, parts);
}

/* Raw pages of these values to d->pool and d->bad; values become what the raw pages hold. */
static void encode(test_run *r, const test_holo_params *p, test_holo *d, kvcl_view pool)
{
    kvcl_holo_enc_args a = {.shape = d->shape, .means = d->means_view, .basis = d->basis_view};
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_skip = p->n_skip;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    a.k = test_raw_pool(r, a.type_k, d->raw_slots, p->n_pages, d->page_elems, d->k);
    a.v = test_raw_pool(r, a.type_v, d->raw_slots, p->n_pages, d->page_elems, d->v);
    a.page_table = test_in(r, d->raw_slots, p->n_pages * sizeof(int32_t));
    a.pool_table = d->code_table;
    a.pool = d->pool = pool;
    a.bad = d->bad = test_out(r, (size_t)p->n_pages * p->n_kv * sizeof(int32_t));
    test_ok(r, kvcl_op_holo_enc(r->d->q, &a));
}

static void decode(test_run *r, const test_holo_params *p, const test_holo *d, const float *table,
                   kvcl_type type_k, kvcl_type type_v, kvcl_view out[2])
{
    kvcl_holo_dec_args a = {.shape = d->shape, .pool = d->pool, .means = d->means_view};
    a.basis = d->basis_view;
    a.pool_table = d->code_table;
    a.page_table = test_in(r, d->dec_slots, p->n_pages * sizeof(int32_t));
    a.k = out[0] = test_out(r, kvcl_type_bytes(type_k, (p->n_pages + 1) * d->page_elems));
    a.v = out[1] = test_out(r, kvcl_type_bytes(type_v, (p->n_pages + 1) * d->page_elems));
    if (table)
        a.table = test_in(r, table,
                          (size_t)(p->first_page + p->n_pages) * KVCL_PAGE_TOKENS * p->n_rot * 4);
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_rot = p->n_rot;
    a.pairing = (kvcl_rope_pairing)p->pairing;
    a.type_k = type_k;
    a.type_v = type_v;
    test_ok(r, kvcl_op_holo_dec(r->d->q, &a));
}

static const float *make_table(test_run *r, const test_holo_params *p)
{
    if (p->pairing == KVCL_ROPE_NONE)
        return NULL;
    return test_rope_table(r, (p->first_page + p->n_pages) * KVCL_PAGE_TOKENS, p->n_rot);
}

static void run(test_run *r, const void *params)
{
    const test_holo_params *p = params;
    kvcl_view out[2];
    test_holo d = test_holo_make(r, p);
    const float *table = make_table(r, p);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    decode(r, p, &d, table, (kvcl_type)p->type_v, (kvcl_type)p->type_k, out);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* Values of a decoded pool in the order of d->k and d->v. */
static float *values_of(test_run *r, const test_holo_params *p, const test_holo *d, kvcl_view pool)
{
    size_t n = p->n_pages * d->page_elems;
    float *out = test_mem(r, n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        size_t slot = (size_t)d->dec_slots[i / d->page_elems];
        out[i] = test_raw_value(r, pool, KVCL_F32, slot * d->page_elems + i % d->page_elems);
    }
    return out;
}

/* The component that value m of a slot is about, and how token t counts in it: a sign, or not. */
static uint32_t component_of(const test_holo *d, uint32_t of_v, uint32_t m)
{
    return d->shape.form == KVCL_HOLO_SIDE ? m % d->n_comp[of_v] : m / d->chips;
}

static double weight_of(const test_holo *d, uint32_t of_v, uint32_t t, uint32_t m)
{
    uint32_t fold = d->fold[of_v], class = d->chips > 1 ? m % fold : m / d->shape.pair % fold;
    if (d->shape.form == KVCL_HOLO_SIDE)
        return m / d->n_comp[of_v] == t % fold ? 1.0 : 0.0;
    return __builtin_parity(t % fold & class) ? -1.0 : 1.0;
}

/* Component e of a token, from its row. */
static double component(const test_holo_params *p, const test_holo *d, uint32_t of_v, uint32_t i,
                        uint32_t t, uint32_t e)
{
    const float *x = of_v ? d->v : d->k;
    uint32_t head = i % p->n_kv, page = i / p->n_kv;
    double sum = 0.0;
    if (p->first_page + page == 0 && t < p->n_skip)
        return 0.0;
    for (uint32_t dim = 0; dim < p->dim; dim++) {
        double y = (double)x[test_holo_place(p, of_v, i, t, dim)] -
                   (double)test_holo_mean(p, d, page, of_v, head, dim);
        if (d->n_comp[of_v] < p->dim)
            sum += y * (double)test_holo_basis(p, d, page, of_v, head)[e * p->dim + dim];
        else if (dim == e)
            sum = y;
    }
    return sum;
}

/* One slot of page and head i against its tokens; x gets its values. */
static void check_slot(test_run *r, const test_holo_params *p, const test_holo *d, uint32_t of_v,
                       uint32_t i, uint32_t slot, float *x)
{
    size_t parts[2], bytes = kvcl_holo_page_bytes(&d->shape, parts);
    size_t row = kvcl_type_bytes(d->shape.type, p->dim);
    uint32_t fold = d->fold[of_v];
    const unsigned char *at = (const unsigned char *)test_bytes(r, d->pool) +
                              (size_t)d->code_slots[i / p->n_kv] * bytes + (of_v ? parts[0] : 0);
    kvcl_dequantise(d->shape.type, at + (i % p->n_kv * (64 / fold) + slot) * row, p->dim, x);
    for (uint32_t m = 0; m < p->dim; m++) {
        double sum = 0.0, top = 0.0;
        for (uint32_t j = 0; j < fold; j++)
            sum += weight_of(d, of_v, j, m) *
                   component(p, d, of_v, i, slot * fold + j, component_of(d, of_v, m));
        for (uint32_t e = m / 32 * 32; e < m / 32 * 32 + 32; e++)
            top = fmax(top, fabs((double)x[e]));
        double step = d->shape.type == KVCL_F16 ? fabs(sum) / 2048.0 : top / 127.0 * 0.6;
        test_close((double)x[m], sum, step + 1e-4, "slot", m);
    }
}

/* The row of token t from its slot x. */
static void check_row(const test_holo_params *p, const test_holo *d, uint32_t of_v, uint32_t i,
                      uint32_t t, const float *x, const float *got)
{
    double gain = (double)(of_v ? d->shape.gain_v : d->shape.gain_k), z[256] = {0};
    const float *raw = of_v ? d->v : d->k;
    uint32_t page = i / p->n_kv, head = i % p->n_kv, n = d->n_comp[of_v];
    for (uint32_t m = 0; m < p->dim; m++)
        z[component_of(d, of_v, m)] += weight_of(d, of_v, t, m) * (double)x[m];
    for (uint32_t dim = 0; dim < p->dim; dim++) {
        double sum = test_holo_has_basis(p) ? 0.0 : z[dim];
        for (uint32_t e = 0; e < n && test_holo_has_basis(p); e++)
            sum += z[e] * (double)test_holo_basis(p, d, page, of_v, head)[e * p->dim + dim];
        size_t at = test_holo_place(p, of_v, i, t, dim);
        double mean = (double)test_holo_mean(p, d, page, of_v, head, dim);
        test_close((double)got[at], gain * sum + mean, 1e-4, "row", dim);
        bool read = p->first_page + page > 0 || t >= p->n_skip;
        if (n < p->dim && read) /* components of f16, slots of 11 or 8 bits */
            test_close((double)got[at], (double)raw[at], p->type == KVCL_F16 ? 0.02 : 0.15, "whole",
                       dim);
    }
}

static void identity(test_run *r, const void *params)
{
    const test_holo_params *p = params;
    kvcl_view back[2], turned[2];
    test_holo d = test_holo_make(r, p);
    const float *table = make_table(r, p);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    decode(r, p, &d, NULL, KVCL_F32, KVCL_F32, back);
    if (table)
        decode(r, p, &d, table, KVCL_F32, KVCL_F32, turned);
    test_wait(r);
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        const float *got = values_of(r, p, &d, back[of_v]);
        for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++) {
            uint32_t fold = d.fold[of_v], slot = test_below(&r->rng, 64 / fold);
            float x[256];
            test_true(((const int32_t *)test_bytes(r, d.bad))[i] == KVCL_PAGE_TOKENS);
            check_slot(r, p, &d, of_v, i, slot, x);
            for (uint32_t j = 0; j < fold; j++)
                check_row(p, &d, of_v, i, slot * fold + j, x, got);
        }
        if (table && !of_v)
            test_check_turned(&(test_turned){p->first_page, p->n_pages, p->n_kv, p->dim, p->n_rot,
                                             (kvcl_rope_pairing)p->pairing, table, 2e-5},
                              got, values_of(r, p, &d, turned[0]));
    }
}

/* One token in each slot, the others nothing: it comes back to the bit of its f16. */
static void run_alone(test_run *r, const void *params)
{
    const test_holo_params *p = params;
    kvcl_view back[2];
    test_holo d = test_holo_make(r, p);
    d.shape.gain_k = 1.0f;
    for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++)
        for (uint32_t e = 0; e < p->dim * KVCL_PAGE_TOKENS; e++) {
            uint32_t t = e / p->dim, dim = e % p->dim;
            bool alone = t % p->fold == t / p->fold % p->fold;
            d.k[test_holo_place(p, 0, i, t, dim)] *= alone ? 1.0f : 0.0f;
            d.v[test_holo_place(p, 1, i, t, dim)] *= alone ? 1.0f : 0.0f;
        }
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    decode(r, p, &d, NULL, KVCL_F32, KVCL_F32, back);
    test_wait(r);
    const float *k = values_of(r, p, &d, back[0]), *v = values_of(r, p, &d, back[1]);
    for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++)
        for (uint32_t e = 0; e < p->dim * KVCL_PAGE_TOKENS; e++) {
            uint32_t t = e / p->dim, dim = e % p->dim;
            size_t at_k = test_holo_place(p, 0, i, t, dim), at_v = test_holo_place(p, 1, i, t, dim);
            if (t % p->fold == t / p->fold % p->fold)
                test_require(k[at_k] == d.k[at_k] && v[at_v] == d.v[at_v],
                             "token %u, alone in its slot, came back otherwise", t);
        }
}

/* ---- tokens left out; bad rows ------------------------------------------------------------- */

/* Page 0: whatever stands in the tokens left out, the page stays. */
static void run_skip(test_run *r, const void *params)
{
    const test_holo_params *p = params;
    test_holo d = test_holo_make(r, p);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    kvcl_view pool = d.pool;
    for (uint32_t i = 0; i < p->n_kv; i++)
        for (uint32_t e = 0; e < p->dim * p->n_skip; e++) {
            d.k[test_holo_place(p, 0, i, e / p->dim, e % p->dim)] = e % 5 ? 1000.0f : NAN;
            d.v[test_holo_place(p, 1, i, e / p->dim, e % p->dim)] = e % 7 ? -1000.0f : INFINITY;
        }
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    test_wait(r);
    ck_assert_mem_eq(test_bytes(r, pool), test_bytes(r, d.pool), pool_bytes(p, &d));
    for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++)
        test_true(((const int32_t *)test_bytes(r, d.bad))[i] == KVCL_PAGE_TOKENS);
}

/* One bad thing in each (page, head), or none. */
static void run_bad(test_run *r, const void *params)
{
    const test_holo_params *p = params;
    test_holo d = test_holo_make(r, p);
    uint32_t n = p->n_pages * p->n_kv;
    int32_t *want = test_mem(r, n * sizeof *want);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = test_below(&r->rng, 63), e = test_below(&r->rng, p->dim), what = i % 5;
        float *k = d.k + test_holo_place(p, 0, i, t, e), *v = d.v + test_holo_place(p, 1, i, t, e);
        uint32_t in_k = t & (0u - d.fold[0]), in_v = t & (0u - d.fold[1]);
        want[i] = what == 0   ? KVCL_PAGE_TOKENS
                  : what == 1 ? (int32_t)in_k
                  : what == 3 ? (int32_t)kvcl_min_u32(in_v, (t + 1) & (0u - d.fold[0]))
                              : (int32_t)in_v;
        if (what == 1)
            k[0] = NAN;
        if (what == 2)
            v[0] = -INFINITY;
        if (what == 3) /* the first of two */
            k[1] = v[0] = INFINITY;
        if (what == 4) /* finite, but too large for a slot (in f16, infinite) */
            v[0] = -3e12f;
    }
    encode(r, p, &d, test_scratch(r, pool_bytes(p, &d)));
    test_wait(r);
    for (uint32_t i = 0; i < n; i++) {
        int32_t got = ((const int32_t *)test_bytes(r, d.bad))[i];
        test_require(got == want[i], "page %u, head %u: bad token %d, want %d", i / p->n_kv,
                     i % p->n_kv, got, want[i]);
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

typedef struct attend_params {
    uint32_t form, fold, type, pairing, n_rot;
    test_region region;
} attend_params;

typedef struct attend_data {
    test_holo_params p;
    test_holo d;
    test_attn attn;
    kvcl_view table;
} attend_data;

/* Made-up slots in the region's pages; keys are rotated where the form has a basis. */
static attend_data make_attend(test_run *r, const attend_params *a)
{
    const test_region *g = &a->region;
    attend_data x = {.attn = test_attn_make(r, g)};
    x.p = (test_holo_params){.form = a->form,
                             .fold = a->fold,
                             .type = a->type,
                             .dim = g->dim,
                             .n_kv = g->n_kv,
                             .first_page = x.attn.first_page,
                             .n_pages = x.attn.n_pages,
                             .pairing = a->pairing,
                             .n_rot = a->n_rot};
    x.d = test_holo_make(r, &x.p);
    x.d.code_slots = x.d.dec_slots = x.attn.slots;
    x.d.code_table = test_in(r, x.attn.slots, x.attn.n_pages * sizeof(int32_t));
    size_t parts[2], row = kvcl_type_bytes(x.d.shape.type, g->dim);
    size_t rows = (x.attn.n_pages + 1) * kvcl_holo_page_bytes(&x.d.shape, parts) / row;
    unsigned char *pool = test_mem(r, rows * row);
    test_true(
        kvcl_quantise(x.d.shape.type, test_gauss(r, rows * g->dim, 1.5f), rows * g->dim, pool));
    x.d.pool = test_in(r, pool, rows * row);
    if (test_holo_has_basis(&x.p) && a->pairing != KVCL_ROPE_NONE)
        x.table = test_in(r, make_table(r, &x.p),
                          (size_t)(x.attn.first_page + x.attn.n_pages) * 64 * a->n_rot * 4);
    return x;
}

static void attend(test_run *r, const void *data, const kvcl_attn_in *in)
{
    const attend_data *x = data;
    kvcl_attn_holo_args a = {.in = *in, .shape = x->d.shape, .pool = x->d.pool};
    a.means = x->d.means_view;
    a.basis = x->d.basis_view;
    a.table = x->table;
    a.n_rot = x->p.n_rot;
    a.pairing = (kvcl_rope_pairing)x->p.pairing;
    test_ok(r, kvcl_op_attn_holo(r->d->q, &a));
}

static void run_attend(test_run *r, const void *params)
{
    attend_data x = make_attend(r, params);
    x.attn.in = test_attn_part(r, &x.attn, x.attn.in.begin, x.attn.in.end);
    attend(r, &x, &x.attn.in);
}

static void identity_attend(test_run *r, const void *params)
{
    attend_data x = make_attend(r, params);
    kvcl_view rows[2];
    x.attn.in = test_attn_part(r, &x.attn, x.attn.in.begin, x.attn.in.end);
    attend(r, &x, &x.attn.in);
    decode(r, &x.p, &x.d, x.table.buf ? make_table(r, &x.p) : NULL, KVCL_F32, KVCL_F32, rows);
    test_wait(r);
    for (uint32_t hk = 0; hk < x.p.n_kv; hk++)
        test_attn_check_head(r, &x.attn, rows[0], rows[1], hk, 4e-5, 4e-5);
    test_attn_check_bits(r, &x.attn, attend, &x);
}

/* ---- cases --------------------------------------------------------------------------------- */

static const char *const pairings[] = {"none", "adjacent", "halves"};
static const char *const forms[] = {"signs", "matrix", "chips", "side"};

static void add(test_cases *cases, bool small, test_case_fn fn, test_case_fn check,
                const test_holo_params *p, const char *what)
{
    test_cases_add(cases, small, fn, check, p, sizeof *p,
                   "holo %s %s fold=%u %s D=%u heads=%u pages=%u+%u rope=%s/%u %s/%s", what,
                   forms[p->form], p->fold, kvcl_type_name((kvcl_type)p->type), p->dim, p->n_kv,
                   p->first_page, p->n_pages, pairings[p->pairing], p->n_rot,
                   kvcl_type_name((kvcl_type)p->type_k), kvcl_type_name((kvcl_type)p->type_v));
}

static void add_pages(test_cases *cases, uint32_t form, uint32_t fold, uint32_t type)
{
    static const uint32_t shapes[][8] = {
        {32, 1, 0, 1, 32, KVCL_ROPE_HALVES, KVCL_F16, KVCL_F16},
        {64, 3, 6, 3, 40, KVCL_ROPE_ADJACENT, KVCL_F16, KVCL_F32},
        {128, 2, 511, 2, 128, KVCL_ROPE_NONE, KVCL_F32, KVCL_F16},
        {256, 1, 2, 1, 64, KVCL_ROPE_ADJACENT, KVCL_F32, KVCL_F32},
    };
    test_holo_params p = {.form = form, .fold = fold, .type = type};
    for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
        const uint32_t *s = shapes[i];
        if (i != 0 && (i + form + fold / 2) % 2 != 0) /* half */
            continue;
        p.dim = s[0], p.n_kv = s[1], p.first_page = s[2], p.n_pages = s[3], p.n_rot = s[4];
        p.pairing = s[5], p.type_k = s[6], p.type_v = s[7], p.n_skip = i ? 0 : 9;
        add(cases, i == 0 && fold == 4, run, identity, &p, "pages");
    }
    p = (test_holo_params){form, fold, type, 64, 2, .n_pages = 6, .type_k = KVCL_F32};
    add(cases, false, run_bad, NULL, &p, "bad");
    p = (test_holo_params){form, fold, type, 96, 2, .n_pages = 1, .n_skip = 13};
    add(cases, false, run_skip, NULL, &p, "skip");
    p = (test_holo_params){form, fold, type, 64, 2, .n_pages = 2};
    p.type_k = p.type_v = KVCL_F16;
    if (form == KVCL_HOLO_SIGNS)
        add(cases, false, run_alone, NULL, &p, "alone");
}

void test_cases_holo(test_cases *cases)
{
    static const struct {
        test_region region;
        uint32_t pairing, n_rot;
    } regions[] = {
        /* D, heads, group; n, pos0; tokens; first partial, spare ones, gap between rows */
        {{32, 1, 1, 1, 70, 5, 71, 0, 0, 0}, KVCL_ROPE_HALVES, 32},
        {{64, 3, 2, 3, 700, 408, 600, 1, 2, 0}, KVCL_ROPE_ADJACENT, 40},
        {{96, 1, 4, 2, 1100, 900, 1030, 0, 0, 3}, KVCL_ROPE_HALVES, 96},
        {{256, 1, 2, 5, 126, 100, 131, 0, 0, 0}, KVCL_ROPE_HALVES, 64},
        {{64, 2, 1, 70, 480, 470, 550, 0, 0, 0}, KVCL_ROPE_ADJACENT, 64},
    };
    for (uint32_t form = 0; form < 4; form++)
        for (uint32_t fold = 2; fold <= 8; fold *= 2) {
            uint32_t type = (form + fold / 2) % 2 ? KVCL_F16 : KVCL_Q8_0;
            add_pages(cases, form, fold, KVCL_F16);
            if (form != KVCL_HOLO_SIGNS)
                add_pages(cases, form, fold, KVCL_Q8_0);
            for (size_t i = 0; i < kvcl_array_len(regions); i++) {
                const test_region *g = &regions[i].region;
                attend_params a = {form, fold, type, regions[i].pairing, regions[i].n_rot, *g};
                if (i != 0 && (i + form + fold / 2) % 2 != 0) /* half */
                    continue;
                test_cases_add(
                    cases, i == 0 && fold == 4, run_attend, identity_attend, &a, sizeof a,
                    "attn_holo %s fold=%u %s D=%u heads=%ux%u n=%u pos0=%u "
                    "tokens=%u-%u rope=%s/%u",
                    forms[form], fold, kvcl_type_name((kvcl_type)type), g->dim, g->group, g->n_kv,
                    g->n, g->pos0, g->begin, g->end, pairings[a.pairing], a.n_rot);
            }
        }
}
