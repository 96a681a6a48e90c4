/* case_rest.c - pages at rest.  Kernels: cl/rest.cl; twins: cpu/rest.c
 *
 * Identities: a page's rung is the finest whose costs are in the budget, and one finer is not; what
 * was quantised comes back from the slot, whole, with the norms of its rung and gains; gains keep
 * lengths; a budget that the coder promises is kept; every flipped bit of a slot is noticed; pages
 * that cannot be coded are named. */
#include "pages.h"

#include "f16.h"
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
    test_require(used >= KVCL_RANS_LEAST && used <= room, "page %u: %u of %u bytes", page, used,
                 room);
    double hope = (double)kvcl_rest_hope(room) / 512.0,
           sure = (double)kvcl_rest_budget(room) / 512.0;
    double at = cost_at(d, page, rung), finer = rung ? cost_at(d, page, rung - 1) : INFINITY;
    test_require(at <= hope + 2.0, "page %u: %.1f bits at rung %u, %.1f hoped for", page, at, rung,
                 hope);
    test_require(finer > sure - 2.0, "page %u: %.1f bits at a finer rung than %u, %.1f are sure",
                 page, finer, rung, sure);
}

/* Lengths of keys and values' part along themselves come back. */
static void check_gain(const rest_data *d, uint32_t page, uint32_t part, float norm,
                       const int8_t *values)
{
    uint32_t n = d->n / d->shape.n_parts;
    double uu = 0.0, ll = 0.0, ul = 0.0, g;
    for (uint32_t i = part * n; i < (part + 1) * n; i++) {
        double u = (double)d->coefs[(size_t)page * d->n + i], l = (double)norm * values[i];
        uu += u * u;
        ll += l * l;
        ul += u * l;
    }
    if (ll == 0.0)
        return;
    g = part < d->shape.n_parts / 2 ? sqrt(uu / ll) : uu / ul;
    /* where the byte is at its end, nothing is promised */
    if (g < 1.3 && g > 0.7)
        test_close(g, 1.0, 4e-3, "gain", part);
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
    test_require(bad[page] == 0, "page %u is called damaged", page);
    test_require(memcmp(out, values, d->n) == 0, "page %u: other values come back", page);
    check_rung(d, page, rungs[page] % KVCL_REST_RUNGS, used[page]);
    for (uint32_t i = 0; i < s->n_parts * s->n_cols / 4; i++) {
        uint32_t part = i / (s->n_cols / 4);
        test_require(norms[i] == norms[part * (s->n_cols / 4)], "norm %u of page %u", i, page);
        if (i % (s->n_cols / 4) == 0)
            check_gain(d, page, part, kvcl_f16_to_f32(norms[i]), values);
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
    test_require(*(const uint32_t *)test_bytes(r, o.fault) == FIRST_PAGE + s->n_pages,
                 "the last damaged page is not reported");
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
    for (size_t i = 0; i < kvcl_array_len(list); i++)
        add(cases, true, &list[i]);
    for (size_t i = 0; i < kvcl_array_len(large); i++)
        add(cases, false, &large[i]);
    test_cases_add(cases, true, run, damaged, &list[0], sizeof list[0], "rest damaged, one page");
    test_cases_add(cases, false, run, damaged, &large[4], sizeof large[4], "rest damaged, 5 pages");
}
