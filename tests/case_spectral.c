/* case_spectral.c - raw pages to spectral pages and back.  Kernels: cl/spectral.cl; twins:
 * cpu/spectral.c
 *
 * Identities: in an orthonormal basis the squared error of decoded Gaussian pages is that of the
 * Lloyd-Max quantiser of the literature, whatever the fold; the bytes are those of the layout, bit
 * by bit; the turned keys are those before rotation, turned; tokens that nobody reads do not
 * matter; slots with values that are not finite, or too large for a norm, are named. */
#include "bases.h"

#include "f16.h"
#include "shared.h"
#include "types.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct sp_params {
    uint32_t bits_k, bits_v, fold, dim, n_kv;
    uint32_t first_page, n_pages, n_skip;
    uint32_t pairing, n_rot, type_k, type_v;
} sp_params;

typedef struct sp_data {
    test_spectral spec;
    float *k, *v; /* [page][Hk][D][64], [page][Hk][64][D] */
    float *means;
    int32_t *raw_slots, *code_slots, *dec_slots;
    size_t head_elems, page_elems, n_means;
    kvcl_view means_view, pool, code_table, bad;
} sp_data;

static float mean_of(const sp_params *p, const sp_data *d, uint32_t of_v, uint32_t head,
                     uint32_t dim)
{
    return d->means[(of_v * p->n_kv + head) * p->dim + dim];
}

/* Gaussian rows around the means, slots of very different size. */
static sp_data make(test_run *r, const sp_params *p)
{
    sp_data d = {.head_elems = (size_t)p->dim * KVCL_PAGE_TOKENS};
    d.spec = test_spectral_make(r, p->dim, p->n_kv, p->fold, p->bits_k, p->bits_v);
    d.page_elems = d.head_elems * p->n_kv;
    d.n_means = 2 * (size_t)p->n_kv * p->dim;
    d.means = test_floats(r, d.n_means, 1.0f);
    d.k = test_gauss(r, p->n_pages * d.page_elems, 1.0f);
    d.v = test_gauss(r, p->n_pages * d.page_elems, 1.0f);
    for (size_t at = 0; at < p->n_pages * d.page_elems; at++) {
        uint32_t head = (uint32_t)(at / d.head_elems) % p->n_kv;
        uint32_t dk = (uint32_t)(at / KVCL_PAGE_TOKENS) % p->dim, dv = (uint32_t)at % p->dim;
        uint32_t tk = (uint32_t)at % KVCL_PAGE_TOKENS;
        uint32_t tv = (uint32_t)(at / p->dim) % KVCL_PAGE_TOKENS;
        d.k[at] = d.k[at] * (0.5f + (float)(tk / p->fold % 5)) + mean_of(p, &d, 0, head, dk);
        d.v[at] = d.v[at] * (0.5f + (float)(tv / p->fold % 3)) + mean_of(p, &d, 1, head, dv);
    }
    d.raw_slots = test_slots(r, p->n_pages);
    d.code_slots = test_slots(r, p->n_pages);
    d.dec_slots = test_slots(r, p->n_pages);
    d.means_view = test_in(r, d.means, d.n_means * sizeof(float));
    d.code_table = test_in(r, d.code_slots, p->n_pages * sizeof(int32_t));
    return d;
}

static size_t pool_bytes(const sp_params *p, const sp_data *d)
{
    size_t parts[4];
    return (p->n_pages + 1) * kvcl_spectral_page_bytes(&d->spec.shape, parts);
}

/* Raw pages of these values to d->pool and d->bad; values become what the raw pages hold. */
static void encode(test_run *r, const sp_params *p, sp_data *d, kvcl_view pool)
{
    kvcl_spectral_enc_args a = {.shape = d->spec.shape, .means = d->means_view, .pool = pool};
    a.basis = d->spec.basis;
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_skip = p->n_skip;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    a.k = test_raw_pool(r, a.type_k, d->raw_slots, p->n_pages, d->page_elems, d->k);
    a.v = test_raw_pool(r, a.type_v, d->raw_slots, p->n_pages, d->page_elems, d->v);
    a.page_table = test_in(r, d->raw_slots, p->n_pages * sizeof(int32_t));
    a.pool_table = d->code_table;
    a.bad = d->bad = test_out(r, (size_t)p->n_pages * p->n_kv * sizeof(int32_t));
    d->pool = pool;
    test_ok(r, kvcl_op_spectral_enc(r->d->q, &a));
}

/* Pools of K and V. */
static void decode(test_run *r, const sp_params *p, const sp_data *d, const float *table,
                   kvcl_type type_k, kvcl_type type_v, kvcl_view out[2])
{
    kvcl_spectral_dec_args a = {.shape = d->spec.shape, .pool = d->pool, .means = d->means_view};
    a.basis = d->spec.basis;
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
    test_ok(r, kvcl_op_spectral_dec(r->d->q, &a));
}

static const float *make_table(test_run *r, const sp_params *p)
{
    if (p->pairing == KVCL_ROPE_NONE)
        return NULL;
    return test_rope_table(r, (p->first_page + p->n_pages) * KVCL_PAGE_TOKENS, p->n_rot);
}

static void run(test_run *r, const void *params)
{
    const sp_params *p = params;
    kvcl_view out[2];
    sp_data d = make(r, p);
    const float *table = make_table(r, p);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    decode(r, p, &d, table, (kvcl_type)p->type_v, (kvcl_type)p->type_k, out);
}

/* The same pages as coefficients. */
static kvcl_view coefs_of(test_run *r, const sp_params *p, sp_data *d)
{
    const kvcl_spectral_shape *s = &d->spec.shape;
    size_t slots = KVCL_PAGE_TOKENS / s->fold;
    kvcl_spectral_coef_args a = {.shape = *s, .means = d->means_view, .basis = d->spec.basis};
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_skip = p->n_skip;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    a.k = test_raw_pool(r, a.type_k, d->raw_slots, p->n_pages, d->page_elems, d->k);
    a.v = test_raw_pool(r, a.type_v, d->raw_slots, p->n_pages, d->page_elems, d->v);
    a.page_table = test_in(r, d->raw_slots, p->n_pages * sizeof(int32_t));
    a.coefs = test_out(r, p->n_pages * (s->words_k + s->words_v) * slots * 4 * sizeof(float));
    test_ok(r, kvcl_op_spectral_coef(r->d->q, &a));
    return a.coefs;
}

static void run_coef(test_run *r, const void *params)
{
    sp_data d = make(r, params);
    coefs_of(r, params, &d);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* Values of a decoded pool in the order of d->k and d->v. */
static float *values_of(test_run *r, const sp_params *p, const sp_data *d, kvcl_view pool)
{
    size_t n = p->n_pages * d->page_elems;
    float *out = test_mem(r, n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        size_t page = i / d->page_elems, slot = (size_t)d->dec_slots[page];
        out[i] = test_raw_value(r, pool, KVCL_F32, slot * d->page_elems + i % d->page_elems);
    }
    return out;
}

/* Relative error of a Gaussian slot: as case_quant.c; 8 bits are uniform, 32 steps a deviation.
 * Besides, int8 directions are neither quite orthogonal nor quite complete. */
static double known_error(uint32_t bits, bool of_v)
{
    double e = bits == 8 ? 8.2e-5 : bits == 4 ? 0.009497 : bits == 2 ? 0.1175 : 0.3634;
    return (of_v ? e / (1.0 - e) : 2.0 - 2.0 * sqrt(1.0 - e)) + 4e-4;
}

/* Mean over slots of the squared error against the energy around the mean. */
static void check_error(const sp_params *p, const sp_data *d, uint32_t of_v, const float *got)
{
    uint32_t n = p->n_pages * p->n_kv * KVCL_PAGE_TOKENS / p->fold, bits;
    double total = 0.0;
    bits = of_v ? p->bits_v : p->bits_k;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slots = KVCL_PAGE_TOKENS / p->fold, head = i / slots;
        double sum = 0.0, all = 0.0;
        for (uint32_t e = 0; e < p->fold * p->dim; e++) {
            uint32_t t = i % slots * p->fold + e / p->dim, dim = e % p->dim;
            size_t at =
                head * d->head_elems + (of_v ? t * p->dim + dim : dim * KVCL_PAGE_TOKENS + t);
            double x = (double)(of_v ? d->v[at] : d->k[at]), y = (double)got[at];
            double z = x - (double)mean_of(p, d, of_v, head % p->n_kv, dim);
            sum += (x - y) * (x - y);
            all += z * z;
        }
        total += sum / all;
    }
    double known = known_error(bits, of_v);
    test_require(total / n < (1.05 + 12.0 / sqrt(64.0 * p->n_pages * p->n_kv * p->dim)) * known,
                 "%s of %u bits: relative error %.6f, known %.6f", of_v ? "V" : "K", bits,
                 total / n, known);
    test_require(total / n > 0.1 * known, "%u bits: an error of %.3g is too good", bits, total / n);
    if (test_env_on("KVCL_TEST_VERBOSE"))
        printf("  %s of %u bits: relative error %.6f, known %.6f\n", of_v ? "V" : "K", bits,
               total / n, known);
}

/* The layout by the text of ops_spectral.h: entries in their order, and where each code is. */
typedef struct layout {
    uint32_t comp[256], n_comp;
    int level[8][256]; /* of one slot, by r and component of the fit */
    double weight[256];
} layout;

static void order_components(uint32_t fold, const kvcl_spectral_part *part, layout *l)
{
    for (uint32_t i = 0; i < part->n_comp; i++) {
        bool any = false;
        l->weight[i] = 0.0;
        for (uint32_t e = i; e < fold * part->n_comp; e += part->n_comp)
            if (part->width[e] && part->amp[e] >= 1e-10f) {
                any = true;
                l->weight[i] += fabs((double)part->gain[i] * (double)part->amp[e] /
                                     (double)kvcl_spectral_unit(part->width[e]) / fold);
            }
        if (!any)
            continue;
        uint32_t at = l->n_comp++;
        for (; at > 0 && l->weight[l->comp[at - 1]] < l->weight[i]; at--)
            l->comp[at] = l->comp[at - 1];
        l->comp[at] = i;
    }
}

static void read_levels(uint32_t fold, const kvcl_spectral_part *part, const unsigned char *words,
                        uint32_t slot, layout *l)
{
    uint32_t slots = 64 / fold;
    for (uint32_t bits = 8; bits >= 1; bits /= 2) {
        uint32_t e = 0;
        for (uint32_t n = 0; n < fold * l->n_comp; n++) {
            uint32_t r = n / l->n_comp, i = l->comp[n % l->n_comp], from = r * part->n_comp + i;
            if (part->width[from] != bits || part->amp[from] < 1e-10f)
                continue;
            uint32_t in = e % (32 / bits);
            const unsigned char *word = words + 4 * (e / (32 / bits) * slots + slot);
            uint32_t code = word[in % 4] >> bits * (in / 4) & ((1u << bits) - 1);
            l->level[r][i] = bits == 8 ? (int)(signed char)code : kvcl_quant_level(bits, code);
            e++;
        }
        words += 4 * (size_t)slots * kvcl_div_up(e * bits, 32);
    }
}

/* Some decoded values of a head of the last page, from the bytes. */
static void check_layout(test_run *r, const sp_params *p, const sp_data *d, uint32_t of_v,
                         uint32_t head, const float *got)
{
    const kvcl_spectral_shape *s = &d->spec.shape;
    const kvcl_spectral_part *parts = d->spec.parts + of_v * p->n_kv, *part = parts + head;
    size_t sizes[4], bytes = kvcl_spectral_page_bytes(s, sizes), word = 0;
    uint32_t i = p->n_pages - 1, slots = 64 / p->fold;
    const unsigned char *page =
        (const unsigned char *)test_bytes(r, d->pool) + (size_t)d->code_slots[i] * bytes;
    const uint16_t *norms = (const uint16_t *)(const void *)(page + sizes[0] + sizes[1]);
    norms += (of_v ? sizes[2] / 2 : 0) + (size_t)head * slots;
    for (uint32_t h = 0; h < head; h++)
        word += kvcl_spectral_words(p->fold, parts + h);
    page += (of_v ? sizes[0] : 0) + 4 * word * slots;
    for (uint32_t round = 0; round < 20; round++) {
        uint32_t t = test_below(&r->rng, 64), dim = test_below(&r->rng, p->dim);
        layout l = {.n_comp = 0};
        double x = 0.0;
        order_components(p->fold, part, &l);
        read_levels(p->fold, part, page, t / p->fold, &l);
        for (uint32_t e = 0; e < p->fold * part->n_comp; e++) {
            uint32_t k = e / part->n_comp, c = e % part->n_comp;
            if (part->width[e] == 0 || part->amp[e] < 1e-10f)
                continue;
            double a = (double)part->amp[e] / (double)kvcl_spectral_unit(part->width[e]) / p->fold;
            double sign = __builtin_parity(t % p->fold & k) ? -1.0 : 1.0;
            x += sign * l.level[k][c] * a * (double)part->gain[c] * part->synth[c * p->dim + dim];
        }
        double norm = (double)kvcl_f16_to_f32(norms[t / p->fold]);
        x = x * norm + (double)mean_of(p, d, of_v, head, dim);
        size_t at = (size_t)i * d->page_elems + head * d->head_elems;
        at += of_v ? t * p->dim + dim : dim * 64 + t;
        test_close((double)got[at], x, 4e-3 * (1.0 + norm),
                   of_v ? "v from its bytes" : "k from its bytes", dim);
    }
}

static void identity(test_run *r, const void *params)
{
    const sp_params *p = params;
    kvcl_view back[2], turned[2];
    sp_data d = make(r, p);
    const float *table = make_table(r, p);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    decode(r, p, &d, NULL, KVCL_F32, KVCL_F32, back);
    if (table)
        decode(r, p, &d, table, KVCL_F32, KVCL_F32, turned);
    test_wait(r);
    for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++)
        test_require(((const int32_t *)test_bytes(r, d.bad))[i] == KVCL_PAGE_TOKENS,
                     "a good page is called bad");
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        const float *got = values_of(r, p, &d, back[of_v]);
        if (table && !of_v)
            test_check_turned(&(test_turned){p->first_page, p->n_pages, p->n_kv, p->dim, p->n_rot,
                                             (kvcl_rope_pairing)p->pairing, table, 2e-5},
                              got, values_of(r, p, &d, turned[0]));
        for (uint32_t head = 0; head < p->n_kv; head++)
            check_layout(r, p, &d, of_v, head, got);
        if ((of_v ? p->bits_v : p->bits_k) != TEST_MIXED)
            check_error(p, &d, of_v, got);
    }
}

/* ---- tokens left out; bad rows ------------------------------------------------------------- */

/* Page 0: whatever stands in the tokens left out, the page stays. */
static void run_skip(test_run *r, const void *params)
{
    const sp_params *p = params;
    sp_data d = make(r, p);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    kvcl_view pool = d.pool;
    for (size_t i = 0; i < d.page_elems; i++) {
        if (i % KVCL_PAGE_TOKENS < p->n_skip)
            d.k[i] = i % 5 == 0 ? NAN : 1000.0f * test_unit(&r->rng);
        if (i / p->dim % KVCL_PAGE_TOKENS < p->n_skip)
            d.v[i] = i % 5 == 0 ? INFINITY : 1000.0f * test_unit(&r->rng);
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
    const sp_params *p = params;
    sp_data d = make(r, p);
    uint32_t n = p->n_pages * p->n_kv;
    int32_t *want = test_mem(r, n * sizeof *want);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = test_below(&r->rng, 63), e = test_below(&r->rng, p->dim), what = i % 6;
        float *k = d.k + i * d.head_elems + e * KVCL_PAGE_TOKENS + t;
        float *v = d.v + i * d.head_elems + t * p->dim + e;
        want[i] = what == 0 ? KVCL_PAGE_TOKENS : (int32_t)(t & (0u - p->fold));
        if (what == 1)
            k[0] = NAN;
        if (what == 2)
            v[0] = -INFINITY;
        if (what == 3) /* the first of two */
            k[1] = v[0] = INFINITY;
        if (what == 4) /* finite, but too large for a norm (in f16, infinite) */
            v[0] = 3e9f;
        if (what == 5) /* finite, but its square is not */
            k[0] = 1e30f;
    }
    encode(r, p, &d, test_scratch(r, pool_bytes(p, &d)));
    test_wait(r);
    for (uint32_t i = 0; i < n; i++) {
        int32_t got = ((const int32_t *)test_bytes(r, d.bad))[i];
        test_require(got == want[i], "page %u, head %u: bad token %d, want %d", i / p->n_kv,
                     i % p->n_kv, got, want[i]);
    }
}

/* Rows of nothing but their mean, and nearly: codes and norms of a defined kind. */
static void run_flat(test_run *r, const void *params)
{
    const sp_params *p = params;
    kvcl_view back[2];
    sp_data d = make(r, p);
    for (size_t at = 0; at < p->n_pages * d.page_elems; at++) {
        uint32_t head = (uint32_t)(at / d.head_elems) % p->n_kv;
        uint32_t tk = (uint32_t)at % KVCL_PAGE_TOKENS;
        uint32_t tv = (uint32_t)(at / p->dim) % KVCL_PAGE_TOKENS;
        float near = tk % 3 == 0 ? 0.0f : tk % 3 == 1 ? 1e-16f : -1e-7f;
        d.k[at] = mean_of(p, &d, 0, head, (uint32_t)(at / KVCL_PAGE_TOKENS) % p->dim) + near;
        d.v[at] = tv % 2 ? near : mean_of(p, &d, 1, head, (uint32_t)at % p->dim);
    }
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    decode(r, p, &d, NULL, KVCL_F32, KVCL_F32, back);
    test_wait(r);
    float *k = values_of(r, p, &d, back[0]);
    for (size_t at = 0; at < p->n_pages * d.page_elems; at++)
        test_close((double)k[at], (double)d.k[at], 1e-6, "flat", at);
}

/* ---- cases --------------------------------------------------------------------------------- */

/* Codes of 8 bits are coefficients, scaled by one number a slot and rounded. */
static void coef_identity(test_run *r, const void *params)
{
    const sp_params *p = params;
    sp_data d = make(r, p);
    const kvcl_spectral_shape *s = &d.spec.shape;
    kvcl_view coefs = coefs_of(r, p, &d);
    encode(r, p, &d, test_out(r, pool_bytes(p, &d)));
    test_wait(r);
    size_t parts[4], page_bytes = kvcl_spectral_page_bytes(s, parts),
                     words = s->words_k + s->words_v;
    uint32_t slots = KVCL_PAGE_TOKENS / s->fold, per_head = s->words_k / s->n_kv_heads;
    for (uint32_t i = 0; i < p->n_pages * words / per_head * slots; i++) {
        size_t part = i / slots, page = part * per_head / words, slot = i % slots;
        const float *c = test_values(r, coefs) + (part * per_head * slots + slot) * 4;
        const int8_t *code = (const int8_t *)test_bytes(r, d.pool) +
                             (size_t)d.code_slots[page] * page_bytes +
                             ((part * per_head - page * words) * slots + slot) * 4;
        double cc = 0.0, ck = 0.0;
        for (uint32_t k = 0; k < 4 * per_head; k++) {
            double x = (double)c[k / 4 * slots * 4 + k % 4];
            if (abs(code[k / 4 * slots * 4 + k % 4]) < 127) {
                cc += x * x;
                ck += x * code[k / 4 * slots * 4 + k % 4];
            }
        }
        for (uint32_t k = 0; k < 4 * per_head; k++) {
            size_t at = k / 4 * (size_t)slots * 4 + k % 4;
            if (abs(code[at]) < 127)
                test_close((double)c[at] * (ck / cc), code[at], 0.55 + abs(code[at]) / 48.0, "code",
                           k);
        }
    }
}

static void add(test_cases *cases, bool small, test_case_fn fn, test_case_fn check,
                const sp_params *p, const char *what)
{
    static const char *const pairings[] = {"none", "adjacent", "halves"};
    test_cases_add(cases, small, fn, check, p, sizeof *p,
                   "spectral %s k%uv%u fold=%u D=%u heads=%u pages=%u+%u rope=%s/%u %s/%s", what,
                   p->bits_k, p->bits_v, p->fold, p->dim, p->n_kv, p->first_page, p->n_pages,
                   pairings[p->pairing], p->n_rot, kvcl_type_name((kvcl_type)p->type_k),
                   kvcl_type_name((kvcl_type)p->type_v));
}

void test_cases_spectral(test_cases *cases)
{
    static const uint32_t bits[][2] = {{TEST_MIXED, TEST_MIXED}, {8, 8}, {4, 2}, {2, 4}, {1, 8}};
    static const struct {
        uint32_t dim, n_kv, first_page, n_pages, n_rot, pairing, type_k, type_v;
    } shapes[] = {
        {32, 1, 0, 1, 32, KVCL_ROPE_HALVES, KVCL_F16, KVCL_F16},
        {64, 3, 6, 3, 40, KVCL_ROPE_ADJACENT, KVCL_F16, KVCL_F32},
        {96, 8, 63, 1, 96, KVCL_ROPE_HALVES, KVCL_F32, KVCL_F16},
        {128, 2, 511, 2, 128, KVCL_ROPE_NONE, KVCL_F16, KVCL_F16},
        {256, 1, 2, 1, 64, KVCL_ROPE_ADJACENT, KVCL_F32, KVCL_F32},
    };
    for (uint32_t f = 0; f < 4; f++) {
        uint32_t fold = 1u << f;
        for (size_t b = 0; b < kvcl_array_len(bits); b++) {
            sp_params p = {.bits_k = bits[b][0], .bits_v = bits[b][1], .fold = fold};
            for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
                bool small = i == 0 && b < 2 && f % 2 == 0;
                if (!small && !test_pairwise(i + b + f, 3))
                    continue;
                p.dim = shapes[i].dim;
                p.n_kv = shapes[i].n_kv;
                p.first_page = shapes[i].first_page;
                p.n_pages = shapes[i].n_pages;
                p.n_rot = shapes[i].n_rot;
                p.pairing = shapes[i].pairing;
                p.type_k = shapes[i].type_k;
                p.type_v = shapes[i].type_v;
                add(cases, small, run, identity, &p, "codes");
                if (b < 2 && (i == 0 || fold != 2))
                    add(cases, small, run_coef, b ? coef_identity : NULL, &p, "coefficients");
            }
        }
        sp_params p = {4, 8, fold, .dim = 64, .n_kv = 2, .n_pages = 6};
        for (uint32_t types = 0; types < 2; types++) {
            p.type_k = p.type_v = types ? KVCL_F32 : KVCL_F16;
            add(cases, false, run_bad, NULL, &p, "bad");
        }
        p.n_pages = 1;
        add(cases, false, run_flat, NULL, &p, "flat");
        p.n_skip = 5;
        add(cases, fold == 4, run_skip, NULL, &p, "skip");
    }
}
