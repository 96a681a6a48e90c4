/* case_rest.c - pages at rest.  Kernels: cl/rest.cl; twins: cpu/rest.c
 *
 * Identities: a page's rung is the finest whose costs are in the budget, and one finer is not; what
 * was quantised comes back from the slot, whole, with the norms of its rung and gains; gains keep
 * lengths; a budget that the coder promises is kept; every flipped bit of a slot is noticed; pages
 * that cannot be coded are named.  Heads that share a basis: rows of joined heads are those of one
 * head of as many dimensions, whose values stand together; keys are turned head by head. */
#include "bases.h"

#include "f16.h"
#include "types.h"
#include "rans_model.h"
#include "shared.h"

#include <math.h>
#include <stdlib.h>

typedef enum rest_kind {
    REST_PLAIN = 0, /* Gaussian rows that suit their scales, more or less */
    REST_LOUD = 1,  /* pages of very different size */
    REST_NONE = 2,  /* nothing but zeros */
    REST_BAD = 3    /* numbers that are not finite or far too large */
} rest_kind;

typedef struct rest_params {
    uint32_t n_pages, n_rows, fold, n_parts, hundredths, kind;
} rest_params;

typedef struct rest_data {
    const rest_params *p;
    kvcl_rest_shape shape;
    uint32_t n; /* values of a page */
    float *coefs;
    int16_t *scales;
    uint32_t *rans;
    uint16_t *costs;
    int32_t *slots;
    kvcl_view coefs_view, scales_view, costs_view, rans_view, table;
} rest_data;

/* Where the case makes a page loud. */
static float size_of(test_run *r, const rest_params *p)
{
    static const float sizes[] = {1.0f, 40.0f, 0.001f, 3.0f};
    return p->kind == REST_LOUD   ? sizes[test_below(&r->rng, 4)]
           : p->kind == REST_NONE ? 0.0f
                                  : 1.0f;
}

static void make_coefs(test_run *r, rest_data *d)
{
    const rest_params *p = d->p;
    d->coefs = test_mem(r, (size_t)p->n_pages * d->n * sizeof(float));
    for (uint32_t page = 0; page < p->n_pages; page++) {
        float size = size_of(r, p);
        for (uint32_t i = 0; i < d->n; i++) {
            float x = 0.0f, dev = exp2f((float)d->scales[i / d->shape.n_cols] / 64.0f);
            for (int j = 0; j < 4; j++)
                x += 0.866f * test_unit(&r->rng);
            d->coefs[(size_t)page * d->n + i] = x * dev * size;
        }
        uint32_t at = test_below(&r->rng, d->n);
        if (p->kind == REST_BAD && page % 2 == 0)
            d->coefs[(size_t)page * d->n + at] = page % 4 ? 1e9f : NAN;
    }
}

static rest_data make(test_run *r, const rest_params *p)
{
    rest_data d = {.p = p};
    d.shape = (kvcl_rest_shape){p->n_pages, p->n_rows, 256 / p->fold, p->n_parts, 0};
    d.n = d.shape.n_rows * d.shape.n_cols;
    d.shape.page_bytes = d.n * p->hundredths / 800 / 4 * 4;
    d.scales = test_mem(r, p->n_rows * sizeof *d.scales);
    for (uint32_t i = 0; i < p->n_rows; i++)
        d.scales[i] = (int16_t)((int)test_below(&r->rng, 400) - 300);
    make_coefs(r, &d);
    d.rans = test_mem(r, kvcl_rans_table_bytes());
    d.costs = test_mem(r, kvcl_rest_cost_bytes());
    kvcl_rans_table_fill(d.rans);
    kvcl_rest_cost_fill(d.rans, d.costs);
    d.slots = test_slots(r, p->n_pages);
    d.table = test_in(r, d.slots, p->n_pages * sizeof *d.slots);
    d.coefs_view = test_in(r, d.coefs, (size_t)p->n_pages * d.n * sizeof(float));
    d.scales_view = test_in(r, d.scales, p->n_rows * sizeof *d.scales);
    d.costs_view = test_in(r, d.costs, kvcl_rest_cost_bytes());
    d.rans_view = test_in(r, d.rans, kvcl_rans_table_bytes());
    return d;
}

/* ---- the ops ------------------------------------------------------------------------------- */

typedef struct rest_coded {
    kvcl_view values, models, gains, rungs, streams, used, pool, bad;
} rest_coded;

static kvcl_rest_quant_args quant_args(const rest_data *d, const rest_coded *c, uint32_t budget)
{
    kvcl_rest_quant_args a = {.shape = d->shape, .coefs = d->coefs_view, .round = 0.4f};
    a.scales = d->scales_view;
    a.costs = d->costs_view;
    a.values = c->values;
    a.models = c->models;
    a.gains = c->gains;
    a.rungs = c->rungs;
    a.budget = budget;
    a.fold = d->p->fold;
    return a;
}

static void code(test_run *r, const rest_data *d, const rest_coded *c)
{
    const kvcl_rest_shape *s = &d->shape;
    kvcl_rans_enc_args a = {.shape = {s->n_pages, s->n_rows, s->n_cols, s->n_rows, 0}};
    a.values = c->values;
    a.models = c->models;
    a.table = d->rans_view;
    a.streams = c->streams;
    a.used = c->used;
    a.slot_bytes = kvcl_rest_room(s);
    test_ok(r, kvcl_op_rans_enc(r->d->q, &a));
}

/* Both tries and the slots, as the codec has them. */
static rest_coded encode(test_run *r, const rest_data *d)
{
    const kvcl_rest_shape *s = &d->shape;
    size_t values = (size_t)s->n_pages * d->n, room = kvcl_rest_room(s);
    rest_coded c = {.values = test_out(r, values), .models = test_out(r, s->n_pages * s->n_rows)};
    c.gains = test_out(r, s->n_pages * s->n_parts);
    c.rungs = test_out(r, s->n_pages * sizeof(uint32_t));
    c.streams = test_scratch(r, s->n_pages * room);
    c.used = test_out(r, s->n_pages * sizeof(uint32_t));
    c.pool = test_out(r, (size_t)(s->n_pages + 1) * s->page_bytes);
    c.bad = test_out(r, s->n_pages * 3 * sizeof(int32_t));
    kvcl_rest_quant_args a = quant_args(d, &c, kvcl_rest_hope(room));
    test_ok(r, kvcl_op_rest_quant(r->d->q, &a));
    code(r, d, &c);
    a.used = c.used;
    a.budget = kvcl_rest_budget(room);
    test_ok(r, kvcl_op_rest_quant(r->d->q, &a));
    code(r, d, &c);
    kvcl_rest_store_args b = {.shape = *s, .streams = c.streams, .used = c.used, .n_heads = 3};
    b.rungs = c.rungs;
    b.gains = c.gains;
    b.pool = c.pool;
    b.pool_table = d->table;
    b.bad = c.bad;
    test_ok(r, kvcl_op_rest_store(r->d->q, &b));
    return c;
}

typedef struct rest_opened {
    kvcl_view places, models, bad, out, fault;
    uint32_t stride;
} rest_opened;

#define FIRST_PAGE 5

static rest_opened decode(test_run *r, const rest_data *d, kvcl_view pool)
{
    const kvcl_rest_shape *s = &d->shape;
    rest_opened o = {.stride = d->n + s->n_parts * s->n_cols / 2 + 4};
    uint32_t fault = 3;
    o.places = test_out(r, 2 * s->n_pages * sizeof(uint32_t));
    o.models = test_out(r, s->n_pages * s->n_rows);
    o.bad = test_out(r, s->n_pages * sizeof(uint32_t));
    o.out = test_out(r, s->n_pages * o.stride);
    o.fault = test_inout(r, &fault, sizeof fault);
    kvcl_rest_open_args a = {.shape = *s, .pool = pool, .pool_table = d->table};
    a.scales = d->scales_view;
    a.places = o.places;
    a.models = o.models;
    test_ok(r, kvcl_op_rest_open(r->d->q, &a));
    kvcl_rans_dec_args b = {.shape = {s->n_pages, s->n_rows, s->n_cols, s->n_rows, o.stride}};
    b.streams = pool;
    b.places = o.places;
    b.models = o.models;
    b.table = d->rans_view;
    b.values = o.out;
    b.bad = o.bad;
    test_ok(r, kvcl_op_rans_dec(r->d->q, &b));
    kvcl_rest_norms_args c = {.shape = *s, .pool = pool, .pool_table = d->table};
    c.bad = o.bad;
    c.out = o.out;
    c.fault = o.fault;
    c.stride_bytes = o.stride;
    c.first_page = FIRST_PAGE;
    test_ok(r, kvcl_op_rest_norms(r->d->q, &c));
    return o;
}

static void run(test_run *r, const void *params)
{
    rest_data d = make(r, params);
    rest_coded c = encode(r, &d);
    decode(r, &d, c.pool);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* Costs of a page at a rung, in bits; infinite when a number is too large. */
static double cost_at(const rest_data *d, uint32_t page, uint32_t rung)
{
    double sum = 0.0, inv = 1.0 / (double)kvcl_rest_step(rung);
    for (uint32_t i = 0; i < d->n; i++) {
        double c = (double)d->coefs[(size_t)page * d->n + i], v = floor(fabs(c) * inv + 0.4);
        if (!(v < 128.0))
            return INFINITY;
        uint32_t model = kvcl_rest_model(d->scales[i / d->shape.n_cols], rung);
        sum += (double)d->costs[model * 256 + ((uint32_t)(int)(c < 0.0 ? -v : v) & 255u)];
    }
    return sum / 512.0;
}

/* The stream fits its slot and the next finer rung is beyond what is hoped for, or its values would
 * be too large. */
static void check_rung(const rest_data *d, uint32_t page, uint32_t rung, uint32_t used)
{
    uint32_t room = kvcl_rest_room(&d->shape);
    test_require(used >= KVCL_RANS_LEAST && used <= room, "page %u: %u bytes", page, used);
    double hope = kvcl_rest_hope(room) / 512.0, sure = kvcl_rest_budget(room) / 512.0;
    double at = cost_at(d, page, rung), finer = rung ? cost_at(d, page, rung - 1) : INFINITY;
    test_require(at <= hope + 2.0, "page %u: %.1f bits, %.1f hoped for", page, at, hope);
    test_require(finer > sure - 2.0, "page %u: %.1f bits at a finer rung than %u, %.1f are sure",
                 page, finer, rung, sure);
}

/* Lengths of keys and values' part along themselves, but where a gain's byte is at its end. */
static void check_gain(const rest_data *d, uint32_t page, uint32_t part, float norm, uint32_t byte,
                       const int8_t *values)
{
    uint32_t n = d->n / d->shape.n_parts;
    double uu = 0.0, ll = 0.0, ul = 0.0;
    for (uint32_t i = part * n; i < (part + 1) * n; i++) {
        double u = (double)d->coefs[(size_t)page * d->n + i], l = (double)norm * values[i];
        uu += u * u;
        ll += l * l;
        ul += u * l;
    }
    if (ll != 0.0 && byte > 0 && byte < 255)
        test_close(part < d->shape.n_parts / 2 ? sqrt(uu / ll) : uu / ul, 1.0, 4e-3, "gain", part);
}

static void check_page(test_run *r, const rest_data *d, const rest_coded *c, const rest_opened *o,
                       uint32_t page)
{
    const kvcl_rest_shape *s = &d->shape;
    const uint32_t *rungs = test_bytes(r, c->rungs), *used = test_bytes(r, c->used);
    const uint32_t *bad = test_bytes(r, o->bad);
    const int8_t *values = (const int8_t *)test_bytes(r, c->values) + (size_t)page * d->n;
    const unsigned char *out = (const unsigned char *)test_bytes(r, o->out) + page * o->stride;
    const uint16_t *norms = (const uint16_t *)(const void *)(out + d->n);
    const unsigned char *slot = (const unsigned char *)test_bytes(r, c->pool);
    slot += (size_t)d->slots[page] * s->page_bytes;
    test_require(bad[page] == 0, "page %u is called damaged", page);
    test_require(memcmp(out, values, d->n) == 0, "page %u: other values come back", page);
    check_rung(d, page, rungs[page] % KVCL_REST_RUNGS, used[page]);
    for (uint32_t i = 0; i < s->n_parts * s->n_cols / 4; i++) {
        uint32_t part = i / (s->n_cols / 4);
        test_require(norms[i] == norms[part * (s->n_cols / 4)], "norm %u of page %u", i, page);
        if (i % (s->n_cols / 4) == 0)
            check_gain(d, page, part, kvcl_f16_to_f32(norms[i]), slot[8 + part], values);
    }
}

static void identity(test_run *r, const void *params)
{
    rest_data d = make(r, params);
    rest_coded c = encode(r, &d);
    rest_opened o = decode(r, &d, c.pool);
    test_wait(r);
    const int32_t *bad = test_bytes(r, c.bad);
    for (uint32_t page = 0; page < d.shape.n_pages; page++) {
        uint32_t token = (uint32_t)KVCL_PAGE_TOKENS;
        for (uint32_t i = 0; i < d.n; i++)
            if (!(fabsf(d.coefs[(size_t)page * d.n + i]) < 1e6f))
                token = i % d.shape.n_cols / 4 * d.p->fold;
        for (uint32_t h = 0; h < 3; h++)
            test_require(bad[3 * page + h] == (int32_t)token, "page %u: token %d, not %u, is bad",
                         page, bad[3 * page + h], token);
        if (token == (uint32_t)KVCL_PAGE_TOKENS)
            check_page(r, &d, &c, &o, page);
    }
    test_require(*(const uint32_t *)test_bytes(r, o.fault) == 3, "a good page is a fault");
}

/* One bit of each page flipped: its values are zeros, its norms too, and the last is reported. */
static void damaged(test_run *r, const void *params)
{
    rest_data d = make(r, params);
    rest_coded c = encode(r, &d);
    test_wait(r);
    const kvcl_rest_shape *s = &d.shape;
    size_t bytes = c.pool.bytes;
    unsigned char *pool = test_mem(r, bytes);
    memcpy(pool, test_bytes(r, c.pool), bytes);
    for (uint32_t page = 0; page < s->n_pages; page++)
        pool[(size_t)d.slots[page] * s->page_bytes + test_below(&r->rng, s->page_bytes)] ^=
            (unsigned char)(1u << test_below(&r->rng, 8));
    rest_opened o = decode(r, &d, test_in(r, pool, bytes));
    test_wait(r);
    const uint32_t *bad = test_bytes(r, o.bad);
    const unsigned char *out = test_bytes(r, o.out);
    for (uint32_t page = 0; page < s->n_pages; page++) {
        test_require(bad[page] == 1, "page %u: a flipped bit goes unnoticed", page);
        for (uint32_t i = 0; i < o.stride - 4; i++)
            test_require(out[page * o.stride + i] == 0, "page %u: byte %u is not zero", page, i);
    }
    test_require(*(const uint32_t *)test_bytes(r, o.fault) == FIRST_PAGE + s->n_pages, "no fault");
}

/* ---- heads that share a basis -------------------------------------------------------------- */

typedef struct join_params {
    uint32_t dim, join, groups, n_pages, first_page, n_rot, pairing, type;
} join_params;

typedef struct join_data {
    test_spectral spec;
    size_t elems; /* of a raw page */
    float *k, *v,
        *one; /* [page][head][D][64], [page][head][64][D]; V as that of one head a group */
    const float *table;
    int32_t *slots;
    kvcl_view means, slots_view, coded;
} join_data;

/* Where a value stands when its group is one head. */
static size_t in_one(const join_params *p, size_t at)
{
    size_t head = at / (p->dim * KVCL_PAGE_TOKENS), t = at / p->dim % KVCL_PAGE_TOKENS;
    size_t row = head / p->join * KVCL_PAGE_TOKENS + t;
    return (row * p->join + head % p->join) * p->dim + at % p->dim;
}

static join_data make_joined(test_run *r, const join_params *p)
{
    uint32_t D = p->dim * p->join;
    join_data d = {.spec = test_spectral_make(r, D, p->groups, 1, 8, 8)};
    size_t parts[4];
    d.elems = (size_t)p->groups * D * KVCL_PAGE_TOKENS;
    d.k = test_gauss(r, p->n_pages * d.elems, 1.0f);
    d.v = test_gauss(r, p->n_pages * d.elems, 1.0f);
    d.one = test_mem(r, p->n_pages * d.elems * sizeof(float));
    for (size_t at = 0; at < p->n_pages * d.elems; at++)
        d.one[in_one(p, at)] = d.v[at];
    size_t n = 2 * (size_t)p->groups * D;
    d.means = test_in(r, test_floats(r, n, 0.5f), n * sizeof(float));
    d.slots = test_slots(r, p->n_pages);
    d.slots_view = test_in(r, d.slots, p->n_pages * sizeof *d.slots);
    d.coded = test_out(r, (p->n_pages + 1) * kvcl_spectral_page_bytes(&d.spec.shape, parts));
    if (p->pairing != KVCL_ROPE_NONE)
        d.table = test_rope_table(r, (p->first_page + p->n_pages) * KVCL_PAGE_TOKENS, p->n_rot);
    return d;
}

static kvcl_view coefs_of(test_run *r, const join_params *p, const join_data *d, uint32_t join,
                          float *v)
{
    const kvcl_spectral_shape *s = &d->spec.shape;
    kvcl_spectral_coef_args a = {.shape = *s, .means = d->means, .basis = d->spec.basis};
    a.page_table = d->slots_view;
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_skip = 3;
    a.join = join;
    a.type_k = a.type_v = (kvcl_type)p->type;
    a.k = test_raw_pool(r, a.type_k, d->slots, p->n_pages, d->elems, d->k);
    a.v = test_raw_pool(r, a.type_v, d->slots, p->n_pages, d->elems, v);
    a.coefs = test_out(r, (size_t)p->n_pages * (s->words_k + s->words_v) * KVCL_PAGE_TOKENS * 16);
    test_ok(r, kvcl_op_spectral_coef(r->d->q, &a));
    return a.coefs;
}

/* Pages of codes, of one head a group, to d->coded. */
static void code_joined(test_run *r, const join_params *p, const join_data *d)
{
    kvcl_spectral_enc_args a = {.shape = d->spec.shape, .means = d->means, .pool = d->coded};
    a.basis = d->spec.basis;
    a.page_table = a.pool_table = d->slots_view;
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.type_k = a.type_v = (kvcl_type)p->type;
    a.k = test_raw_pool(r, a.type_k, d->slots, p->n_pages, d->elems, d->k);
    a.v = test_raw_pool(r, a.type_v, d->slots, p->n_pages, d->elems, d->one);
    a.bad = test_out(r, (size_t)p->n_pages * p->groups * sizeof(int32_t));
    test_ok(r, kvcl_op_spectral_enc(r->d->q, &a));
}

static void decode_joined(test_run *r, const join_params *p, const join_data *d, uint32_t join,
                          kvcl_type type, kvcl_view out[2])
{
    kvcl_spectral_dec_args a = {.shape = d->spec.shape, .pool = d->coded, .means = d->means};
    size_t rows = (size_t)(p->first_page + p->n_pages) * KVCL_PAGE_TOKENS;
    a.basis = d->spec.basis;
    a.pool_table = a.page_table = d->slots_view;
    a.k = out[0] = test_out(r, kvcl_type_bytes(type, (p->n_pages + 1) * d->elems));
    a.v = out[1] = test_out(r, kvcl_type_bytes(type, (p->n_pages + 1) * d->elems));
    if (d->table && join)
        a.table = test_in(r, d->table, rows * p->n_rot * sizeof(float));
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_rot = p->n_rot;
    a.join = join;
    a.pairing = (kvcl_rope_pairing)p->pairing;
    a.type_k = a.type_v = type;
    test_ok(r, kvcl_op_spectral_dec(r->d->q, &a));
}

static void run_joined(test_run *r, const void *params)
{
    const join_params *p = params;
    kvcl_view out[2];
    join_data d = make_joined(r, p);
    coefs_of(r, p, &d, p->join, d.v);
    code_joined(r, p, &d);
    decode_joined(r, p, &d, p->join, (kvcl_type)p->type, out);
}

/* The pages of a pool of F32, in order. */
static float *pages_in_order(test_run *r, const join_params *p, const join_data *d, kvcl_view pool)
{
    float *out = test_mem(r, p->n_pages * d->elems * sizeof *out);
    for (size_t i = 0; i < p->n_pages * d->elems; i++)
        out[i] = test_raw_value(r, pool, KVCL_F32,
                                (size_t)d->slots[i / d->elems] * d->elems + i % d->elems);
    return out;
}

static void check_joined(test_run *r, const void *params)
{
    const join_params *p = params;
    kvcl_view joined[2], one[2];
    join_data d = make_joined(r, p);
    kvcl_view coefs = coefs_of(r, p, &d, p->join, d.v), same = coefs_of(r, p, &d, 0, d.one);
    code_joined(r, p, &d);
    decode_joined(r, p, &d, p->join, KVCL_F32, joined);
    decode_joined(r, p, &d, 0, KVCL_F32, one);
    test_wait(r);
    ck_assert_mem_eq(test_bytes(r, coefs), test_bytes(r, same), coefs.bytes);
    const float *v = pages_in_order(r, p, &d, joined[1]), *w = pages_in_order(r, p, &d, one[1]);
    for (size_t at = 0; at < p->n_pages * d.elems; at++)
        test_require(memcmp(v + at, w + in_one(p, at), sizeof *v) == 0,
                     "value %zu is another head's", at);
    const float *k = pages_in_order(r, p, &d, one[0]),
                *turned = pages_in_order(r, p, &d, joined[0]);
    if (d.table)
        test_check_turned(&(test_turned){p->first_page, p->n_pages, p->groups * p->join, p->dim,
                                         p->n_rot, (kvcl_rope_pairing)p->pairing, d.table, 2e-5},
                          k, turned);
    else
        ck_assert_mem_eq(k, turned, p->n_pages * d.elems * sizeof *k);
}

static void add_joined(test_cases *cases, bool small, const join_params *p)
{
    test_cases_add(cases, small, run_joined, check_joined, p, sizeof *p,
                   "rest joined %u x %u heads of %u, pages %u+%u, pairing %u, n_rot %u, %s",
                   p->groups, p->join, p->dim, p->first_page, p->n_pages, p->pairing, p->n_rot,
                   kvcl_type_name((kvcl_type)p->type));
}

static void add(test_cases *cases, bool small, const rest_params *p)
{
    test_cases_add(cases, small, run, identity, p, sizeof *p,
                   "rest %u pages of %u rows, fold %u, %u parts, %u/100 bits, kind %u", p->n_pages,
                   p->n_rows, p->fold, p->n_parts, p->hundredths, p->kind);
}

void test_cases_rest(test_cases *cases)
{
    /* for simulators: a few hundred values */
    static const rest_params list[] = {
        {1, 8, 8, 2, 600, REST_PLAIN},
        {2, 8, 4, 4, 400, REST_BAD},
    };
    static const rest_params large[] = {
        {1, 32, 1, 2, 130, REST_PLAIN},   {2, 64, 8, 4, 130, REST_LOUD},
        {2, 96, 4, 6, 60, REST_BAD},      {1, 32, 2, 2, 105, REST_NONE},
        {5, 256, 1, 4, 85, REST_PLAIN},   {9, 256, 1, 4, 200, REST_LOUD},
        {3, 384, 1, 6, 500, REST_PLAIN},  {4, 192, 2, 6, 150, REST_BAD},
        {2, 1024, 1, 16, 130, REST_LOUD},
    };
    static const join_params joined[] = {
        {32, 2, 1, 1, 3, 32, KVCL_ROPE_HALVES, KVCL_F16},
        {64, 4, 1, 2, 0, 40, KVCL_ROPE_ADJACENT, KVCL_F16},
        {128, 2, 2, 2, 1, 128, KVCL_ROPE_ADJACENT, KVCL_F32},
        {32, 4, 2, 1, 0, 32, KVCL_ROPE_NONE, KVCL_F16},
    };
    for (size_t i = 0; i < kvcl_array_len(joined); i++)
        add_joined(cases, i == 0, &joined[i]);
    for (size_t i = 0; i < kvcl_array_len(list); i++)
        add(cases, true, &list[i]);
    for (size_t i = 0; i < kvcl_array_len(large); i++)
        add(cases, false, &large[i]);
    test_cases_add(cases, true, run, damaged, &list[0], sizeof list[0], "rest damaged, one page");
    test_cases_add(cases, false, run, damaged, &large[4], sizeof large[4], "rest damaged, 5 pages");
}
