/* case_rans.c - the entropy coder.  Kernels: cl/rans.cl; twins: cpu/rans.c
 *
 * Identities: what was encoded comes back; a stream's size is what its models say, to a few bytes;
 * a slot of just that size is enough and one word less is not; damaged streams give no more than
 * zeros and a flag. */
#include "case.h"

#include "rans_model.h"
#include "shared.h"

#include <math.h>

typedef enum rans_kind {
    RANS_FIT = 0,  /* values that suit their models */
    RANS_ZERO = 1, /* nothing but zeros */
    RANS_FAR = 2,  /* escapes only */
    RANS_ANY = 3,  /* all values alike, whatever the model */
    RANS_TOP = 4   /* a model number too large in the last page */
} rans_kind;

typedef struct rans_params {
    uint32_t n_pages, n_rows, n_cols, own_models, kind;
} rans_params;

typedef struct rans_data {
    kvcl_rans_shape shape;
    uint32_t n, stride, slot_bytes; /* values of a page, from one page's to the next's */
    int8_t *values;
    uint8_t *models;
    uint32_t *table;
    kvcl_view values_view, models_view, table_view;
} rans_data;

static uint8_t model_for(test_run *r, const rans_params *p, uint32_t row)
{
    if (p->kind == RANS_FAR)
        return (uint8_t)(test_below(&r->rng, 3) * KVCL_RANS_SCALES);
    if (p->kind == RANS_ZERO)
        return (uint8_t)(row % 4);
    return (uint8_t)test_below(&r->rng, KVCL_RANS_MODELS);
}

static int8_t value_for(test_run *r, const rans_params *p, uint32_t model)
{
    float x = 0.0f, deviation = exp2f((float)(model % KVCL_RANS_SCALES) / 4.0f - 3.0f);
    if (p->kind == RANS_ZERO)
        return 0;
    if (p->kind == RANS_FAR)
        return (int8_t)(test_below(&r->rng, 2) ? 100 + (int)test_below(&r->rng, 28)
                                               : -128 + (int)test_below(&r->rng, 28));
    if (p->kind == RANS_ANY || test_below(&r->rng, 1000) == 0)
        return (int8_t)((int)test_below(&r->rng, 256) - 128);
    for (int i = 0; i < 4; i++)
        x += 0.866f * test_unit(&r->rng);
    return (int8_t)fminf(127.0f, fmaxf(-127.0f, roundf(x * deviation)));
}

static rans_data make(test_run *r, const rans_params *p)
{
    uint32_t n_sets = p->own_models ? p->n_pages : 1;
    rans_data d = {.shape = {.n_pages = p->n_pages, .n_rows = p->n_rows, .n_cols = p->n_cols}};
    d.shape.model_stride = p->own_models ? p->n_rows + 3 : 0;
    d.n = p->n_rows * p->n_cols;
    d.shape.value_stride = p->own_models ? d.n + 20 : 0;
    d.stride = kvcl_rans_stride(&d.shape);
    d.slot_bytes = (uint32_t)kvcl_rans_bytes_max(d.n);
    size_t models_bytes = (size_t)(n_sets - 1) * d.shape.model_stride + p->n_rows;
    d.models = test_mem(r, models_bytes);
    for (size_t i = 0; i < models_bytes; i++)
        d.models[i] = model_for(r, p, (uint32_t)i);
    d.values = test_mem(r, (size_t)p->n_pages * d.stride);
    for (uint32_t i = 0; i < p->n_pages * d.n; i++) {
        uint32_t page = i / d.n, row = i % d.n / p->n_cols;
        d.values[page * d.stride + i % d.n] =
            value_for(r, p, d.models[page * d.shape.model_stride + row]);
    }
    if (p->kind == RANS_TOP)
        d.models[models_bytes - 1] = KVCL_RANS_MODELS;
    d.table = test_mem(r, kvcl_rans_table_bytes());
    kvcl_rans_table_fill(d.table);
    d.values_view = test_in(r, d.values, (size_t)p->n_pages * d.stride);
    d.models_view = test_in(r, d.models, models_bytes);
    d.table_view = test_in(r, d.table, kvcl_rans_table_bytes());
    return d;
}

/* ---- both ops ------------------------------------------------------------------------------ */

typedef struct rans_streams {
    kvcl_view streams, used;
} rans_streams;

/* tight: some page may not fit, its slot then holds anything. */
static rans_streams encode(test_run *r, const rans_data *d, uint32_t slot_bytes, bool tight)
{
    rans_streams s;
    size_t bytes = (size_t)d->shape.n_pages * slot_bytes;
    kvcl_rans_enc_args a = {.shape = d->shape, .slot_bytes = slot_bytes};
    a.values = d->values_view;
    a.models = d->models_view;
    a.table = d->table_view;
    a.streams = s.streams = tight ? test_scratch(r, bytes) : test_out(r, bytes);
    a.used = s.used = test_out(r, d->shape.n_pages * sizeof(uint32_t));
    test_ok(r, kvcl_op_rans_enc(r->d->q, &a));
    test_wait(r);
    return s;
}

typedef struct rans_values {
    kvcl_view values, bad;
} rans_values;

static rans_values decode(test_run *r, const rans_data *d, kvcl_view streams,
                          const uint32_t *places)
{
    rans_values v;
    kvcl_rans_dec_args a = {.shape = d->shape, .streams = streams};
    a.places = test_in(r, places, 2 * d->shape.n_pages * sizeof *places);
    a.models = d->models_view;
    a.table = d->table_view;
    a.values = v.values = test_out(r, (size_t)d->shape.n_pages * d->stride);
    a.bad = v.bad = test_out(r, d->shape.n_pages * sizeof(uint32_t));
    test_ok(r, kvcl_op_rans_dec(r->d->q, &a));
    return v;
}

/* Where the encoder's streams are. */
static uint32_t *places_of(test_run *r, const rans_data *d, const rans_streams *s)
{
    uint32_t *places = test_mem(r, 2 * d->shape.n_pages * sizeof *places);
    const uint32_t *used = test_bytes(r, s->used);
    for (uint32_t i = 0; i < d->shape.n_pages; i++) {
        places[2 * i] = i * (d->slot_bytes / 4);
        places[2 * i + 1] = used[i];
    }
    return places;
}

static void run(test_run *r, const void *params)
{
    const rans_params *p = params;
    rans_data d = make(r, p);
    rans_streams s = encode(r, &d, d.slot_bytes, p->kind == RANS_TOP);
    decode(r, &d, s.streams, places_of(r, &d, &s));
}

/* ---- identities ---------------------------------------------------------------------------- */

/* What the page's models ask for, in bytes. */
static double cost_of(const rans_data *d, uint32_t page)
{
    uint64_t sum = 0;
    for (uint32_t row = 0; row < d->shape.n_rows; row++) {
        uint32_t hist[256] = {0};
        const int8_t *v = d->values + (size_t)page * d->stride + row * d->shape.n_cols;
        for (uint32_t c = 0; c < d->shape.n_cols; c++)
            hist[(uint8_t)v[c]]++;
        sum += kvcl_rans_cost(d->table, d->models[page * d->shape.model_stride + row], hist);
    }
    return (double)sum / 65536.0 / 8.0;
}

/* The lanes' slack is filled to within a step of the tail, if a whole step fits. */
static void check_size(const rans_data *d, uint32_t page, uint32_t used)
{
    double cost = cost_of(d, page), more = (double)used - cost;
    test_require(used >= KVCL_RANS_LEAST, "page %u: %u bytes", page, used);
    test_require(more > -0.004 * cost - 1.0 && more < 110.0 + 0.004 * cost,
                 "page %u: %u bytes, its models ask for %.1f", page, used, cost);
}

static void check_slots(test_run *r, const rans_data *d, const uint32_t *used)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < d->shape.n_pages; i++)
        most = kvcl_max_u32(most, used[i]);
    uint32_t enough = (uint32_t)kvcl_align_up(most, 4);
    rans_streams fits = encode(r, d, enough, false);
    ck_assert_mem_eq(test_bytes(r, fits.used), used, d->shape.n_pages * sizeof *used);
    if (enough - 4 < KVCL_RANS_LEAST)
        return;
    rans_streams tight = encode(r, d, enough - 4, true);
    for (uint32_t i = 0; i < d->shape.n_pages; i++) {
        uint32_t got = ((const uint32_t *)test_bytes(r, tight.used))[i];
        test_require(got == (used[i] > enough - 4 ? 0 : used[i]), "page %u of %u bytes: %u", i,
                     used[i], got);
    }
}

static void identity(test_run *r, const void *params)
{
    const rans_params *p = params;
    rans_data d = make(r, p);
    rans_streams s = encode(r, &d, d.slot_bytes, p->kind == RANS_TOP);
    uint32_t *used = test_mem(r, p->n_pages * sizeof *used);
    memcpy(used, test_bytes(r, s.used), p->n_pages * sizeof *used);
    rans_values v = decode(r, &d, s.streams, places_of(r, &d, &s));
    test_wait(r);
    for (uint32_t i = 0; i < p->n_pages; i++) {
        uint32_t bad = ((const uint32_t *)test_bytes(r, v.bad))[i];
        const int8_t *got = (const int8_t *)test_bytes(r, v.values) + (size_t)i * d.stride;
        if (p->kind == RANS_TOP && (i + 1 == p->n_pages || !p->own_models)) {
            test_require(bad == 1 && used[i] == 0, "page %u of an unknown model", i);
            continue;
        }
        test_require(bad == 0, "page %u is bad", i);
        ck_assert_mem_eq(got, d.values + (size_t)i * d.stride, d.n);
        check_size(&d, i, used[i]);
    }
    if (p->kind != RANS_TOP)
        check_slots(r, &d, used);
}

/* ---- damaged streams ----------------------------------------------------------------------- */

static void damage(test_run *r, unsigned char *stream, uint32_t place[2], uint32_t total)
{
    uint32_t bytes = place[1], i = test_below(&r->rng, bytes), tall;
    switch (test_below(&r->rng, 8)) {
    case 0: /* words gone */
        place[1] -= 2 * test_below(&r->rng, 8);
        break;
    case 1:
        place[1] = test_below(&r->rng, 2 * bytes);
        break;
    case 2: /* beyond the view */
        place[0] = test_below(&r->rng, 2) ? test_u32(&r->rng) : total / 4;
        break;
    case 3: /* another tail */
        memcpy(&tall, stream, sizeof tall);
        stream[bytes - 1 - (uint32_t)__builtin_popcount(tall)] =
            (unsigned char)test_below(&r->rng, 256);
        break;
    case 4: /* a word fewer, the rest as before */
        memmove(stream + bytes - 40, stream + bytes - 38, 38);
        place[1] -= 2;
        break;
    case 5:
        stream[i] = (unsigned char)(stream[i] ^ 1u << test_below(&r->rng, 8));
        break;
    case 6:
        for (uint32_t k = 4; k < bytes; k++)
            stream[k] = (unsigned char)test_below(&r->rng, 256);
        break;
    default: /* as it was */
        break;
    }
}

static rans_values run_damaged(test_run *r, const rans_params *p, rans_data *d)
{
    *d = make(r, p);
    rans_streams s = encode(r, d, d->slot_bytes, false);
    uint32_t *places = places_of(r, d, &s), total = p->n_pages * d->slot_bytes;
    unsigned char *streams = test_mem(r, total);
    memcpy(streams, test_bytes(r, s.streams), total);
    for (uint32_t i = 0; i < p->n_pages; i++)
        damage(r, streams + 4 * places[2 * i], places + 2 * i, total);
    return decode(r, d, test_in(r, streams, total), places);
}

static void run_bad(test_run *r, const void *params)
{
    rans_data d;
    run_damaged(r, params, &d);
}

static void identity_bad(test_run *r, const void *params)
{
    rans_data d;
    rans_values v = run_damaged(r, params, &d);
    test_wait(r);
    for (uint32_t i = 0; i < d.shape.n_pages; i++) {
        uint32_t bad = ((const uint32_t *)test_bytes(r, v.bad))[i];
        const int8_t *got = (const int8_t *)test_bytes(r, v.values) + (size_t)i * d.stride;
        test_require(bad <= 1, "bad is %u", bad);
        for (uint32_t k = 0; bad && k < d.n; k++)
            test_require(got[k] == 0, "value %u of bad page %u is %d", k, i, got[k]);
    }
}

/* ---- cases --------------------------------------------------------------------------------- */

void test_cases_rans(test_cases *cases)
{
    static const char *const kinds[] = {"fit", "zero", "far", "any", "top"};
    static const struct {
        rans_params p;
        bool small;
    } list[] = {
        {{1, 1, 1, 0, RANS_FIT}, true},      {{1, 1, 1, 0, RANS_FAR}, false},
        {{3, 1, 31, 1, RANS_FAR}, true},     {{2, 4, 8, 0, RANS_FIT}, true},
        {{2, 3, 11, 1, RANS_FIT}, true},     {{2, 5, 13, 0, RANS_ANY}, false},
        {{3, 16, 8, 1, RANS_FIT}, false},    {{2, 40, 16, 1, RANS_FIT}, false},
        {{2, 129, 64, 0, RANS_ZERO}, false}, {{1, 512, 64, 0, RANS_ZERO}, false},
        {{2, 24, 64, 0, RANS_FAR}, false},   {{1, 4096, 64, 0, RANS_FAR}, false},
        {{3, 256, 64, 0, RANS_FIT}, false},  {{2, 100, 32, 1, RANS_ANY}, false},
        {{2, 7, 100, 1, RANS_FIT}, false},   {{1, 1, 3000, 0, RANS_FIT}, false},
        {{2, 3000, 1, 1, RANS_FIT}, false},  {{2, 20, 64, 1, RANS_TOP}, true},
        {{2, 20, 64, 0, RANS_TOP}, false},
    };
    for (size_t i = 0; i < kvcl_array_len(list); i++) {
        const rans_params *p = &list[i].p;
        test_cases_add(cases, list[i].small, run, identity, p, sizeof *p,
                       "rans pages=%u %ux%u %s%s", p->n_pages, p->n_rows, p->n_cols, kinds[p->kind],
                       p->own_models ? " own models" : "");
    }
    static const rans_params damaged[] = {
        {12, 1, 5, 1, RANS_ANY}, {60, 8, 64, 1, RANS_FIT}, {40, 70, 16, 0, RANS_FIT}};
    for (size_t i = 0; i < kvcl_array_len(damaged); i++) {
        const rans_params *p = &damaged[i];
        test_cases_add(cases, i == 0, run_bad, identity_bad, p, sizeof *p,
                       "rans damaged pages=%u %ux%u", p->n_pages, p->n_rows, p->n_cols);
    }
}
