// rest.c - pages at rest: one step for a whole page, streams in slots of fixed size.  Kernels:
// cl/rest.cl
#include "rows.h"
#include "shared.h"

#include <assert.h>

#define LAST_RUNG (KVCL_REST_RUNGS - 1)

// ---- steps --------------------------------------------------------------------------------------

typedef struct page_coefs {
    const kvcl_rest_shape *s;
    const float *coefs; // [n_rows][n_cols]
    const int16_t *scales;
    const uint16_t *costs;
    float round;
} page_coefs;

// A coefficient before the cut, in steps; not below 128: too large.
static float in_steps(const page_coefs *p, float c, float inv)
{
    return fmaf(fabsf(c), inv, p->round);
}

// The value of a coefficient that is not too large.
static int value_of(const page_coefs *p, float c, float inv)
{
    int v = (int)in_steps(p, c, inv);
    return c < 0.0f ? -v : v;
}

// Does a rung's stream fit, as far as costs tell?
static bool fits(const page_coefs *p, uint32_t rung, uint32_t budget)
{
    float inv = kvcl_recip(kvcl_rest_step(rung));
    uint32_t n_cols = p->s->n_cols, sum = 0;
    for (uint32_t row = 0; row < p->s->n_rows; row++) {
        const float *c = p->coefs + (size_t)row * n_cols;
        const uint16_t *costs = p->costs + 256 * kvcl_rest_model(p->scales[row], rung);
        for (uint32_t i = 0; i < n_cols; i++) {
            if (!(in_steps(p, c[i], inv) < 128.0f))
                return false;
            sum += costs[value_of(p, c[i], inv) & 255];
        }
        if (sum > budget)
            return false;
    }
    return true;
}

static uint32_t finest_rung(const page_coefs *p, uint32_t budget)
{
    uint32_t low = 0, high = LAST_RUNG;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (fits(p, mid, budget))
            high = mid;
        else
            low = mid + 1;
    }
    return high;
}

// The first token with a coefficient that is too large for the coarsest rung; 64 when none is.
static uint32_t first_bad(const page_coefs *p, uint32_t fold)
{
    float inv = kvcl_recip(kvcl_rest_step(LAST_RUNG));
    uint32_t bad = KVCL_TOKENS, n_cols = p->s->n_cols;
    for (uint32_t i = 0; i < p->s->n_rows * n_cols; i++)
        if (!(in_steps(p, p->coefs[i], inv) < 128.0f))
            bad = kvcl_min_u32(bad, i % n_cols / 4 * fold);
    return bad;
}

// The gain of n coefficients and their values.
static uint8_t gain_of(bool of_v, const float *c, const int8_t *values, uint32_t n, float inv)
{
    float uu[64] = {0}, cl[64] = {0};
    int32_t ll = 0;
    for (uint32_t i = 0; i < n; i++) {
        uu[i % 64] = fmaf(c[i], c[i], uu[i % 64]);
        cl[i % 64] = fmaf(c[i], (float)values[i], cl[i % 64]);
        ll += values[i] * values[i];
    }
    float length = kvcl_cpu_tree(uu, 64), by = of_v ? kvcl_cpu_tree(cl, 64) : (float)ll, g = 1.0f;
    if (length >= 1e-30f && by >= 1e-30f) {
        float r = (length * kvcl_recip(by)) * inv, root = r * inv;
        g = of_v ? r : root < 1e-30f ? 1.0f : root * kvcl_rsqrt(root);
    }
    g = fmaf(256.0f, g, -192.0f);
    return (uint8_t)kvcl_round(g < 0.0f ? 0.0f : g < 255.0f ? g : 255.0f);
}

static void quantise(const page_coefs *p, const kvcl_rest_quant_args *a, uint32_t page)
{
    uint32_t n_rows = p->s->n_rows, n = n_rows * p->s->n_cols, n_part = n / p->s->n_parts;
    uint32_t *rungs = kvcl_cpu_ptr(a->rungs);
    int8_t *values = (int8_t *)kvcl_cpu_ptr(a->values) + (size_t)page * n;
    uint8_t *models = (uint8_t *)kvcl_cpu_ptr(a->models) + (size_t)page * n_rows;
    uint8_t *gains = (uint8_t *)kvcl_cpu_ptr(a->gains) + (size_t)page * p->s->n_parts;
    uint32_t rung = finest_rung(p, a->budget), bad = KVCL_TOKENS;
    if (rung == LAST_RUNG && !fits(p, rung, a->budget)) {
        bad = first_bad(p, a->fold);
        bad = bad == KVCL_TOKENS ? 0 : bad;
    }
    float inv = kvcl_recip(kvcl_rest_step(rung));
    for (uint32_t i = 0; i < n; i++)
        values[i] = (int8_t)(bad < KVCL_TOKENS ? 0 : value_of(p, p->coefs[i], inv));
    for (uint32_t row = 0; row < n_rows; row++)
        models[row] = (uint8_t)kvcl_rest_model(p->scales[row], rung);
    for (uint32_t i = 0; i < p->s->n_parts; i++)
        gains[i] = gain_of(i >= p->s->n_parts / 2, p->coefs + i * n_part, values + i * n_part,
                           n_part, inv);
    rungs[page] = rung + KVCL_REST_RUNGS * bad;
}

void kvcl_cpu_rest_quant(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rest_quant_args *a = args;
    const uint32_t *used = kvcl_cpu_ptr(a->used);
    const float *coefs = kvcl_cpu_ptr(a->coefs);
    const int16_t *scales = kvcl_cpu_ptr(a->scales);
    const uint16_t *costs = kvcl_cpu_ptr(a->costs);
    size_t n = (size_t)a->shape.n_rows * a->shape.n_cols;
    assert(coefs && scales && costs);
    for (uint32_t page, end; kvcl_cpu_take(p, a->shape.n_pages, 1, &page, &end);) {
        page_coefs c = {&a->shape, coefs + page * n, scales, costs, a->round};
        if (!used || used[page] == 0)
            quantise(&c, a, page);
    }
}

// ---- slots --------------------------------------------------------------------------------------

static uint32_t *slot_of(const kvcl_rest_shape *s, kvcl_view pool, kvcl_view table, uint32_t page)
{
    const int32_t *slots = kvcl_cpu_ptr(table);
    unsigned char *at = kvcl_cpu_ptr(pool);
    assert(slots && at);
    return (uint32_t *)(void *)(at + (size_t)slots[page] * s->page_bytes);
}

static uint32_t checksum(const uint32_t *words, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (i != 1)
            sum += kvcl_mix(words[i] + kvcl_mix(i));
    return sum;
}

void kvcl_cpu_rest_store(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rest_store_args *a = args;
    const uint32_t *used = kvcl_cpu_ptr(a->used), *rungs = kvcl_cpu_ptr(a->rungs);
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    const kvcl_rest_shape *s = &a->shape;
    uint32_t room = kvcl_rest_room(s), head = kvcl_rest_head(s);
    for (uint32_t page, end; kvcl_cpu_take(p, a->shape.n_pages, 1, &page, &end);) {
        uint32_t *slot = slot_of(s, a->pool, a->pool_table, page);
        const unsigned char *stream = kvcl_cpu_ptr(a->streams), *gains = kvcl_cpu_ptr(a->gains);
        unsigned char *to = (unsigned char *)slot;
        memset(to, 0, s->page_bytes);
        memcpy(to + 8, gains + (size_t)page * s->n_parts, s->n_parts);
        memcpy(to + head, stream + (size_t)page * room, used[page]);
        slot[0] = used[page] + (rungs[page] % KVCL_REST_RUNGS << 20);
        slot[1] = checksum(slot, s->page_bytes / 4);
        for (uint32_t h = 0; h < a->n_heads; h++)
            bad[page * a->n_heads + h] = used[page] ? (int32_t)(rungs[page] / KVCL_REST_RUNGS) : 0;
    }
}

void kvcl_cpu_rest_open(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rest_open_args *a = args;
    const kvcl_rest_shape *s = &a->shape;
    const int32_t *slots = kvcl_cpu_ptr(a->pool_table);
    const int16_t *scales = kvcl_cpu_ptr(a->scales);
    uint32_t *places = kvcl_cpu_ptr(a->places);
    for (uint32_t page, end; kvcl_cpu_take(p, s->n_pages, 1, &page, &end);) {
        const uint32_t *slot = slot_of(s, a->pool, a->pool_table, page);
        uint8_t *models = (uint8_t *)kvcl_cpu_ptr(a->models) + (size_t)page * s->n_rows;
        uint32_t bytes = slot[0] & 0xfffffu;
        bool good = bytes <= kvcl_rest_room(s) && slot[1] == checksum(slot, s->page_bytes / 4);
        places[2 * page] = (uint32_t)slots[page] * (s->page_bytes / 4) + kvcl_rest_head(s) / 4;
        places[2 * page + 1] = good ? bytes : 0;
        for (uint32_t row = 0; row < s->n_rows; row++)
            models[row] = (uint8_t)kvcl_rest_model(scales[row], slot[0] >> 20 & 1023);
    }
}

// Norms of a page; a part's are alike.
static void put_norms(const kvcl_rest_shape *s, const uint32_t *slot, bool bad, uint16_t *norms)
{
    const unsigned char *gains = (const unsigned char *)(slot + 2);
    float step = kvcl_rest_step(slot[0] >> 20 & 1023);
    uint32_t n = s->n_cols / 4;
    for (uint32_t i = 0; i < s->n_parts * n; i++) {
        uint32_t part = i / n;
        float gain = (float)(192 + gains[part]) * 0.00390625f; // 1/256
        norms[i] = bad ? 0 : kvcl_f32_to_f16(step * gain);
    }
}

void kvcl_cpu_rest_norms(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rest_norms_args *a = args;
    const kvcl_rest_shape *s = &a->shape;
    const uint32_t *bad = kvcl_cpu_ptr(a->bad);
    uint32_t *fault = kvcl_cpu_ptr(a->fault);
    size_t values = (size_t)s->n_rows * s->n_cols;
    for (uint32_t page, end; kvcl_cpu_take(p, s->n_pages, s->n_pages, &page, &end);)
        for (; page < end; page++) {
            unsigned char *to =
                (unsigned char *)kvcl_cpu_ptr(a->out) + (size_t)page * a->stride_bytes;
            put_norms(s, slot_of(s, a->pool, a->pool_table, page), bad[page] != 0,
                      (uint16_t *)(void *)(to + values));
            if (bad[page])
                *fault = kvcl_max_u32(*fault, a->first_page + page + 1);
        }
}
