/* case_quant.c - raw pages to quant pages and back.  Kernels: cl/quant.cl; twins: cpu/quant.c
 *
 * Identities: the mean squared error of decoded pages is that of the Lloyd-Max quantiser of the
 * literature for Gaussian data; coding a decoded page again changes nearly nothing (8 bits
 * and CHANNEL's keys: nothing); CHANNEL's keys are within half a gap of levels; the bytes are those
 * of the layout, bit by bit; tokens left out do not move CHANNEL's scales; rows with values that
 * are not finite, or too large for a scale, are named. */
#include "pages.h"

#include "f16.h"
#include "shared.h"
#include "types.h"

#include <math.h>

typedef struct quant_params {
    uint32_t form, bits_k, bits_v, dim, n_kv;
    uint32_t first_page, n_pages, n_skip;
    uint32_t pairing, n_rot, type_k, type_v;
} quant_params;

typedef struct quant_data {
    float *k, *v; /* [page][Hk][D][64], [page][Hk][64][D] */
    float *means;
    int32_t *raw_slots, *code_slots, *dec_slots;
    size_t head_elems, page_elems, n_means;
    kvcl_view means_view, pool, code_table, bad;
} quant_data;

static kvcl_quant_shape shape_of(const quant_params *p)
{
    return (kvcl_quant_shape){p->n_kv, p->dim, p->bits_k, p->bits_v, (kvcl_quant_form)p->form};
}

/* The mean of dimension d of K (0) or V (1) that page i of the call is coded with. */
static float mean_of(const quant_params *p, const quant_data *d, uint32_t i, uint32_t of_v,
                     uint32_t head, uint32_t dim)
{
    size_t epoch = kvcl_mean_epoch((p->first_page + i) / KVCL_BLOCK_PAGES);
    return d->means[((epoch * 2 + of_v) * p->n_kv + head) * p->dim + dim];
}

/* Gaussian rows around the means, rows of very different size. */
static quant_data make(test_run *r, const quant_params *p)
{
    quant_data d = {.head_elems = (size_t)p->dim * KVCL_PAGE_TOKENS};
    uint32_t last = p->first_page + p->n_pages - 1;
    d.page_elems = d.head_elems * p->n_kv;
    d.n_means = (kvcl_mean_epoch(last / KVCL_BLOCK_PAGES) + 1) * 2 * (size_t)p->n_kv * p->dim;
    d.means = test_floats(r, d.n_means, 1.0f);
    d.k = test_gauss(r, p->n_pages * d.page_elems, 1.0f);
    d.v = test_gauss(r, p->n_pages * d.page_elems, 1.0f);
    for (size_t at = 0; at < p->n_pages * d.page_elems; at++) {
        uint32_t page = (uint32_t)(at / d.page_elems),
                 head = (uint32_t)(at / d.head_elems) % p->n_kv;
        uint32_t dk = (uint32_t)(at / KVCL_PAGE_TOKENS) % p->dim, dv = (uint32_t)at % p->dim;
        uint32_t tk = (uint32_t)at % KVCL_PAGE_TOKENS;
        uint32_t tv = (uint32_t)(at / p->dim) % KVCL_PAGE_TOKENS;
        uint32_t row_k = p->form == KVCL_QUANT_CHANNEL ? dk : tk;
        d.k[at] = d.k[at] * (0.5f + (float)(row_k % 5)) + mean_of(p, &d, page, 0, head, dk);
        d.v[at] = d.v[at] * (0.5f + (float)(tv % 3)) + mean_of(p, &d, page, 1, head, dv);
    }
    d.raw_slots = test_slots(r, p->n_pages);
    d.code_slots = test_slots(r, p->n_pages);
    d.dec_slots = test_slots(r, p->n_pages);
    d.means_view = test_in(r, d.means, d.n_means * sizeof(float));
    d.code_table = test_in(r, d.code_slots, p->n_pages * sizeof(int32_t));
    return d;
}

static size_t pool_bytes(const quant_params *p)
{
    kvcl_quant_shape shape = shape_of(p);
    size_t parts[4];
    return (p->n_pages + 1) * kvcl_quant_page_bytes(&shape, parts);
}

/* Raw pages of these values to d->pool and d->bad; values become what the raw pages hold. */
static void encode(test_run *r, const quant_params *p, quant_data *d, float *k, float *v,
                   kvcl_view pool)
{
    kvcl_quant_enc_args a = {.shape = shape_of(p), .means = d->means_view, .pool = pool};
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_skip = p->n_skip;
    a.type_k = (kvcl_type)p->type_k;
    a.type_v = (kvcl_type)p->type_v;
    a.k = test_raw_pool(r, a.type_k, d->raw_slots, p->n_pages, d->page_elems, k);
    a.v = test_raw_pool(r, a.type_v, d->raw_slots, p->n_pages, d->page_elems, v);
    a.page_table = test_in(r, d->raw_slots, p->n_pages * sizeof(int32_t));
    a.pool_table = d->code_table;
    a.bad = d->bad = test_out(r, (size_t)p->n_pages * p->n_kv * sizeof(int32_t));
    d->pool = pool;
    test_ok(r, kvcl_op_quant_enc(r->d->q, &a));
}

typedef struct decoded {
    kvcl_view k, v;
    kvcl_type type_k, type_v;
} decoded;

static decoded decode(test_run *r, const quant_params *p, const quant_data *d, const float *table,
                      kvcl_type type_k, kvcl_type type_v)
{
    kvcl_quant_dec_args a = {.shape = shape_of(p), .pool = d->pool, .means = d->means_view};
    a.pool_table = d->code_table;
    a.page_table = test_in(r, d->dec_slots, p->n_pages * sizeof(int32_t));
    a.k = test_out(r, kvcl_type_bytes(type_k, (p->n_pages + 1) * d->page_elems));
    a.v = test_out(r, kvcl_type_bytes(type_v, (p->n_pages + 1) * d->page_elems));
    if (table)
        a.table = test_in(r, table,
                          (size_t)(p->first_page + p->n_pages) * KVCL_PAGE_TOKENS * p->n_rot * 4);
    a.first_page = p->first_page;
    a.n_pages = p->n_pages;
    a.n_rot = p->n_rot;
    a.pairing = (kvcl_rope_pairing)p->pairing;
    a.type_k = type_k;
    a.type_v = type_v;
    test_ok(r, kvcl_op_quant_dec(r->d->q, &a));
    return (decoded){a.k, a.v, type_k, type_v};
}

static const float *make_table(test_run *r, const quant_params *p)
{
    if (p->form != KVCL_QUANT_PRE || p->pairing == KVCL_ROPE_NONE)
        return NULL;
    return test_rope_table(r, (p->first_page + p->n_pages) * KVCL_PAGE_TOKENS, p->n_rot);
}

static void run(test_run *r, const void *params)
{
    const quant_params *p = params;
    quant_data d = make(r, p);
    const float *table = make_table(r, p);
    encode(r, p, &d, d.k, d.v, test_out(r, pool_bytes(p)));
    decode(r, p, &d, table, (kvcl_type)p->type_v, (kvcl_type)p->type_k);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* Values of a decoded pool in the order of d->k and d->v. */
static float *values_of(test_run *r, const quant_params *p, const quant_data *d, kvcl_view pool,
                        kvcl_type type)
{
    size_t n = p->n_pages * d->page_elems;
    float *out = test_mem(r, n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        size_t page = i / d->page_elems, slot = (size_t)d->dec_slots[page];
        out[i] = test_raw_value(r, pool, type, slot * d->page_elems + i % d->page_elems);
    }
    return out;
}

/* Relative error of a Gaussian row.  Max 1960 has the least squares' error E of 1 to 4 bits; a row
 * that keeps its length has 2 - 2 sqrt(1 - E), one that keeps its part along itself E / (1 - E).  8
 * bits are uniform, the step a 127th of a row's largest value (some three deviations). */
static double known_error(uint32_t bits, bool of_v)
{
    double e = bits == 8   ? 1e-4
               : bits == 4 ? 0.009497
               : bits == 3 ? 0.03454
               : bits == 2 ? 0.1175
                           : 0.3634;
    return of_v ? e / (1.0 - e) : 2.0 - 2.0 * sqrt(1.0 - e);
}

/* CHANNEL's keys: no value is further from its level than half the widest gap between levels, which
 * divide the channel's range; where a page's first tokens are left out, the others. */
static void check_channels(const quant_params *p, const quant_data *d, const float *k)
{
    double gap = p->bits_k == 8   ? 1.0
                 : p->bits_k == 4 ? 31.0
                 : p->bits_k == 3 ? 48.0
                 : p->bits_k == 2 ? 89.0
                                  : 254.0;
    for (size_t i = 0; i < (size_t)p->n_pages * p->n_kv * p->dim; i++) {
        const float *x = d->k + i * KVCL_PAGE_TOKENS, *y = k + i * KVCL_PAGE_TOKENS;
        double low = (double)x[0], high = (double)x[0];
        for (uint32_t t = 0; t < KVCL_PAGE_TOKENS; t++) {
            low = fmin(low, (double)x[t]);
            high = fmax(high, (double)x[t]);
        }
        double half_range = 0.5 * (high - low), rounding = 1e-3 * fmax(fabs(low), fabs(high));
        double limit = 0.5 * gap / 127.0 * half_range + 2.0 * rounding;
        for (uint32_t t = 0; t < KVCL_PAGE_TOKENS; t++)
            test_close((double)y[t], (double)x[t], limit, "value of a channel", i);
    }
}

/* Mean over rows of a row's squared error against its energy around the mean: [0] K, [1] V.  The
 * limit grows with the spread of a mean of so few values. */
static void check_error(const quant_params *p, const quant_data *d, const float *k, const float *v)
{
    double total[2] = {0.0};
    uint32_t n = p->n_pages * p->n_kv * KVCL_PAGE_TOKENS;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t head = i / KVCL_PAGE_TOKENS, t = i % KVCL_PAGE_TOKENS, page = head / p->n_kv;
        double sum[2] = {0.0}, all[2] = {0.0};
        for (uint32_t e = 0; e < p->dim; e++) {
            size_t at[2] = {head * d->head_elems + e * KVCL_PAGE_TOKENS + t,
                            head * d->head_elems + t * p->dim + e};
            for (uint32_t of_v = 0; of_v < 2; of_v++) {
                float x = of_v ? d->v[at[1]] : d->k[at[0]], y = of_v ? v[at[1]] : k[at[0]];
                double z = (double)(x - mean_of(p, d, page, of_v, head % p->n_kv, e));
                sum[of_v] += pow((double)(x - y), 2.0);
                all[of_v] += z * z;
            }
        }
        total[0] += sum[0] / all[0];
        total[1] += sum[1] / all[1];
    }
    for (uint32_t i = p->form == KVCL_QUANT_CHANNEL; i < 2; i++) {
        uint32_t bits = i == 0 ? p->bits_k : p->bits_v;
        double known = known_error(bits, i == 1), got = total[i] / n;
        test_require(got < (1.05 + 12.0 / sqrt((double)n * p->dim)) * known,
                     "%s of %u bits: relative error %.5f, known %.5f", i == 0 ? "K" : "V", bits,
                     got, known);
        test_require(got > 0.1 * known, "%u bits: an error of %.3g is too good", bits, got);
    }
}

/* The layout's own sum: a code's bits for each element, an f16 for each scale and mean. */
static void check_sizes(const quant_params *p)
{
    kvcl_quant_shape shape = shape_of(p);
    size_t parts[4], got = kvcl_quant_page_bytes(&shape, parts);
    size_t n = (size_t)p->n_kv * p->dim * 64;
    test_true(parts[0] == n * p->bits_k / 8 && parts[1] == n * p->bits_v / 8);
    test_true(parts[2] == p->n_kv * (p->form == KVCL_QUANT_CHANNEL ? p->dim * 4u : 128u));
    test_true(parts[3] == p->n_kv * 128u);
    test_true(got == parts[0] + parts[1] + parts[2] + parts[3]);
}

/* One code by the text of ops_code.h: `along` its row, `across` the rows. */
static int code_of(const unsigned char *part, uint32_t bits, uint32_t n_along, uint32_t n_across,
                   uint32_t along, uint32_t across)
{
    uint32_t code = 0;
    for (uint32_t done = 0; done < bits;) {
        uint32_t b = bits == 3 ? 2 - done / 2 : bits, per_word = 32 / b, r = along % per_word;
        size_t word = (size_t)(along / per_word) * n_across + across;
        code |= (part[4 * word + r % 4] >> b * (r / 4) & ((1u << b) - 1)) << done;
        part += (size_t)n_along / per_word * n_across * 4;
        done += b;
    }
    return bits == 8 ? (int)(signed char)code : kvcl_quant_level(bits, code);
}

/* Some decoded values of the last head of the last page, from the bytes and the definition of the
 * transform. */
static void check_layout(test_run *r, const quant_params *p, const quant_data *d, const float *k,
                         const float *v)
{
    kvcl_quant_shape shape = shape_of(p);
    size_t parts[4], bytes = kvcl_quant_page_bytes(&shape, parts);
    uint32_t i = p->n_pages - 1, head = p->n_kv - 1, block = p->dim & (0u - p->dim);
    const unsigned char *page =
        (const unsigned char *)test_bytes(r, d->pool) + (size_t)d->code_slots[i] * bytes;
    const uint16_t *scale_k = (const uint16_t *)(const void *)(page + parts[0] + parts[1]);
    const uint16_t *scale_v = scale_k + parts[2] / 2 + (size_t)head * 64;
    const unsigned char *codes_k = page + parts[0] / p->n_kv * head;
    const unsigned char *codes_v = page + parts[0] + parts[1] / p->n_kv * head;
    double up = pow(2.0, -floor(log2((double)block) / 2.0));
    size_t at = (size_t)i * d->page_elems + head * d->head_elems;
    scale_k += parts[2] / 2 / p->n_kv * head;
    for (uint32_t round = 0; round < 40; round++) {
        uint32_t t = test_below(&r->rng, 64), e = test_below(&r->rng, p->dim);
        double x = 0.0, y = 0.0;
        for (uint32_t j = e / block * block; j < (e / block + 1) * block; j++) {
            double sign = __builtin_parity(j & e & (block - 1)) ? -1.0 : 1.0;
            x += sign * code_of(codes_k, p->bits_k, p->dim, 64, j, t);
            y += sign * code_of(codes_v, p->bits_v, 64, p->dim, t, j);
        }
        x = up * x * (double)kvcl_f16_to_f32(scale_k[t]);
        y = up * y * (double)kvcl_f16_to_f32(scale_v[t]);
        if (p->form == KVCL_QUANT_CHANNEL)
            x = (double)kvcl_f16_to_f32(scale_k[e]) * code_of(codes_k, p->bits_k, p->dim, 64, e, t);
        x += (double)(p->form == KVCL_QUANT_CHANNEL ? kvcl_f16_to_f32(scale_k[p->dim + e])
                                                    : mean_of(p, d, i, 0, head, e));
        y += (double)mean_of(p, d, i, 1, head, e);
        test_close((double)k[at + e * 64 + t], x, 1e-5, "k from its bytes", e);
        test_close((double)v[at + t * p->dim + e], y, 1e-5, "v from its bytes", e);
    }
}

/* Decoding what a decoded page was coded to: the same values, but for rows so far from Gaussian
 * that the energy of their codes asks for another step.  8 bits and CHANNEL's keys know no such
 * rows. */
static void check_again(bool all, const float *once, const float *twice, size_t n)
{
    size_t n_other = 0;
    for (size_t i = 0; i < n; i++)
        n_other += fabsf(once[i] - twice[i]) > 1e-5f * (1.0f + fabsf(once[i]));
    test_require(n_other <= (all ? 0 : n / 12), "%zu of %zu values moved", n_other, n);
}

static void identity(test_run *r, const void *params)
{
    const quant_params *p = params;
    quant_data d = make(r, p);
    const float *table = make_table(r, p);
    check_sizes(p);
    encode(r, p, &d, d.k, d.v, test_out(r, pool_bytes(p)));
    kvcl_view bad = d.bad;
    decoded back = decode(r, p, &d, NULL, KVCL_F32, KVCL_F32);
    decoded turned = back;
    if (table)
        turned = decode(r, p, &d, table, KVCL_F32, KVCL_F32);
    test_wait(r);
    for (uint32_t i = 0; i < p->n_pages * p->n_kv; i++)
        test_require(((const int32_t *)test_bytes(r, bad))[i] == KVCL_PAGE_TOKENS,
                     "a good page is called bad");
    float *k = values_of(r, p, &d, back.k, KVCL_F32), *v = values_of(r, p, &d, back.v, KVCL_F32);
    check_layout(r, p, &d, k, v);
    check_error(p, &d, k, v);
    if (p->form == KVCL_QUANT_CHANNEL)
        check_channels(p, &d, k);
    if (table)
        test_check_turned(&(test_turned){p->first_page, p->n_pages, p->n_kv, p->dim, p->n_rot,
                                         (kvcl_rope_pairing)p->pairing, table, 1e-5},
                          k, values_of(r, p, &d, turned.k, KVCL_F32));
    quant_params f32 = *p;
    size_t n = p->n_pages * d.page_elems;
    f32.type_k = f32.type_v = KVCL_F32;
    encode(r, &f32, &d, k, v, test_out(r, pool_bytes(p)));
    back = decode(r, p, &d, NULL, KVCL_F32, KVCL_F32);
    test_wait(r);
    check_again(p->form == KVCL_QUANT_CHANNEL || p->bits_k == 8, k,
                values_of(r, p, &d, back.k, KVCL_F32), n);
    check_again(p->bits_v == 8, v, values_of(r, p, &d, back.v, KVCL_F32), n);
}

/* ---- tokens left out; bad rows ------------------------------------------------------------- */

/* CHANNEL, page 0: whatever stands in the tokens left out, scales, means and the other tokens'
 * codes stay. */
static void run_skip(test_run *r, const void *params)
{
    const quant_params *p = params;
    quant_data d = make(r, p);
    kvcl_quant_shape shape = shape_of(p);
    size_t parts[4], bytes = kvcl_quant_page_bytes(&shape, parts);
    encode(r, p, &d, d.k, d.v, test_out(r, pool_bytes(p)));
    kvcl_view pool = d.pool;
    for (size_t i = 0; i < d.page_elems; i++)
        if (i % KVCL_PAGE_TOKENS < p->n_skip)
            d.k[i] = 1000.0f * test_unit(&r->rng);
    encode(r, p, &d, d.k, d.v, test_out(r, pool_bytes(p)));
    decoded back = decode(r, p, &d, NULL, KVCL_F32, KVCL_F32);
    test_wait(r);
    const unsigned char *a = test_bytes(r, pool), *b = test_bytes(r, d.pool);
    size_t page = (size_t)d.code_slots[0] * bytes;
    ck_assert_mem_eq(a + page + parts[0], b + page + parts[0], bytes - parts[0]);
    for (size_t i = 0; i < parts[0] / 4; i++)
        if (i % KVCL_PAGE_TOKENS >= p->n_skip)
            ck_assert_mem_eq(a + page + 4 * i, b + page + 4 * i, 4);
    for (size_t i = 0; i < d.page_elems; i++) { /* far outside: the outermost level */
        float x = test_raw_value(r, back.k, KVCL_F32, (size_t)d.dec_slots[0] * d.page_elems + i);
        test_require(fabsf(x) < 100.0f, "value %zu: %.9g", i, (double)x);
    }
}

/* One bad thing in each (page, head), or none. */
static void run_bad(test_run *r, const void *params)
{
    const quant_params *p = params;
    quant_data d = make(r, p);
    bool channel = p->form == KVCL_QUANT_CHANNEL;
    uint32_t n = p->n_pages * p->n_kv;
    int32_t *want = test_mem(r, n * sizeof *want);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = test_below(&r->rng, 63), e = test_below(&r->rng, p->dim), what = i % 6;
        float *k = d.k + i * d.head_elems + e * KVCL_PAGE_TOKENS + t;
        float *v = d.v + i * d.head_elems + t * p->dim + e;
        want[i] = what == 0 ? KVCL_PAGE_TOKENS : (int32_t)t;
        if (what == 1)
            k[0] = NAN;
        if (what == 2)
            v[0] = -INFINITY;
        if (what == 3) /* the first of two */
            k[1] = v[0] = INFINITY;
        if (what == 4) /* finite, but too large for a scale (in f16, infinite) */
            v[0] = 3e9f;
        if (what == 5) { /* finite, but its square is not */
            k[0] = 1e30f;
            want[i] = channel && p->type_k == KVCL_F32 ? 0 : want[i];
        }
    }
    encode(r, p, &d, d.k, d.v, test_scratch(r, pool_bytes(p)));
    test_wait(r);
    for (uint32_t i = 0; i < n; i++) {
        int32_t got = ((const int32_t *)test_bytes(r, d.bad))[i];
        test_require(got == want[i], "page %u, head %u: bad token %d, want %d", i / p->n_kv,
                     i % p->n_kv, got, want[i]);
    }
}

/* Rows of nothing but their mean, and nearly: codes and scales of a defined kind. */
static void run_flat(test_run *r, const void *params)
{
    const quant_params *p = params;
    quant_data d = make(r, p);
    for (size_t at = 0; at < p->n_pages * d.page_elems; at++) {
        uint32_t page = (uint32_t)(at / d.page_elems),
                 head = (uint32_t)(at / d.head_elems) % p->n_kv;
        uint32_t tk = (uint32_t)at % KVCL_PAGE_TOKENS;
        uint32_t tv = (uint32_t)(at / p->dim) % KVCL_PAGE_TOKENS;
        float near = tk % 3 == 0 ? 0.0f : tk % 3 == 1 ? 1e-16f : -1e-7f;
        d.k[at] = mean_of(p, &d, page, 0, head, (uint32_t)(at / KVCL_PAGE_TOKENS) % p->dim) + near;
        d.v[at] = tv % 2 ? near : mean_of(p, &d, page, 1, head, (uint32_t)at % p->dim);
    }
    encode(r, p, &d, d.k, d.v, test_out(r, pool_bytes(p)));
    decoded back = decode(r, p, &d, NULL, KVCL_F32, KVCL_F32);
    test_wait(r);
    float *k = values_of(r, p, &d, back.k, KVCL_F32);
    for (size_t at = 0; at < p->n_pages * d.page_elems; at++)
        test_close((double)k[at], (double)d.k[at], 4e-7 + (p->form == KVCL_QUANT_CHANNEL) * 1e-3,
                   "flat", at);
}

/* ---- cases --------------------------------------------------------------------------------- */

static void add(test_cases *cases, bool small, test_case_fn fn, test_case_fn check,
                const quant_params *p, const char *what)
{
    static const char *const forms[] = {"pre", "post", "channel"};
    static const char *const pairings[] = {"none", "adjacent", "halves"};
    test_cases_add(cases, small, fn, check, p, sizeof *p,
                   "quant %s %s k%uv%u D=%u heads=%u pages=%u+%u rope=%s/%u %s/%s", what,
                   forms[p->form], p->bits_k, p->bits_v, p->dim, p->n_kv, p->first_page, p->n_pages,
                   pairings[p->pairing], p->n_rot, kvcl_type_name((kvcl_type)p->type_k),
                   kvcl_type_name((kvcl_type)p->type_v));
}

void test_cases_quant(test_cases *cases)
{
    static const uint32_t bits[][2] = {{8, 8}, {4, 4}, {3, 3}, {2, 2}, {1, 1}, {3, 2}, {8, 1}};
    static const struct {
        uint32_t dim, n_kv, first_page, n_pages, n_rot, pairing, type_k, type_v;
    } shapes[] = {
        {32, 1, 0, 1, 32, KVCL_ROPE_HALVES, KVCL_F16, KVCL_F16},
        {64, 3, 6, 4, 40, KVCL_ROPE_ADJACENT, KVCL_F16, KVCL_F32},
        {96, 2, 63, 2, 96, KVCL_ROPE_HALVES, KVCL_F32, KVCL_F16},
        {128, 2, 511, 2, 128, KVCL_ROPE_NONE, KVCL_F16, KVCL_F16},
        {160, 1, 4095, 2, 160, KVCL_ROPE_NONE, KVCL_F32, KVCL_F32},
        {256, 2, 2, 1, 64, KVCL_ROPE_ADJACENT, KVCL_F16, KVCL_F16},
    };
    for (uint32_t form = 0; form <= KVCL_QUANT_CHANNEL; form++) {
        for (size_t b = 0; b < kvcl_array_len(bits); b++) {
            quant_params p = {.form = form, .bits_k = bits[b][0], .bits_v = bits[b][1]};
            for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
                bool small = i == 0 && (b == 0 || b == 5);
                if (!small && !test_pairwise(i + b + form, 3))
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
            }
            p = (quant_params){form, bits[b][0], bits[b][1], .dim = 64, .n_kv = 2, .n_pages = 6};
            for (uint32_t types = 0; types < 2; types++) {
                p.type_k = p.type_v = types ? KVCL_F32 : KVCL_F16;
                if (test_pairwise(types + b + form, 2))
                    add(cases, false, run_bad, NULL, &p, "bad");
            }
            p.n_pages = 1;
            add(cases, false, run_flat, NULL, &p, "flat");
            p.n_skip = 8;
            if (form == KVCL_QUANT_CHANNEL)
                add(cases, b == 1, run_skip, NULL, &p, "skip");
        }
    }
}
