// quant.c - raw pages to quant pages and back.  Kernels: cl/quant.cl; SIMD: cpu/simd_quant.c
#include "quant.h"

#include "shared.h"

/* ---- layout -------------------------------------------------------------------------------- */

kvcl_cpu_quant_head kvcl_cpu_quant_at(const kvcl_quant_shape *s, kvcl_view pool, size_t slot,
                                      uint32_t hk)
{
    size_t part[4], page_bytes = kvcl_quant_page_bytes(s, part), Hk = s->n_kv_heads;
    // a pool is never absent
    unsigned char *at = (unsigned char *)pool.buf->impl + pool.off + slot * page_bytes;
    kvcl_cpu_quant_head out;
    out.k_words = (uint32_t *)(void *)(at + part[0] / Hk * hk);
    at += part[0];
    out.v_words = (uint32_t *)(void *)(at + part[1] / Hk * hk);
    at += part[1];
    out.k_scales = (uint16_t *)(void *)(at + part[2] / Hk * hk);
    out.k_means = out.k_scales + s->head_dim;
    at += part[2];
    out.v_scales = (uint16_t *)(void *)(at + part[3] / Hk * hk);
    return out;
}

// One of the rows' codes: `i` along the rows, `j` across them (cl/shared.h).
static uint32_t get_code(const uint32_t *words, uint32_t bits, uint32_t across, uint32_t along,
                         uint32_t i, uint32_t j)
{
    uint32_t code = 0;
    for (uint32_t plane = 0; plane < kvcl_n_planes(bits); plane++) {
        uint32_t width = kvcl_plane_width(bits, plane);
        uint32_t word =
            words[kvcl_plane_begin(plane, across, along) + kvcl_code_word(width, across, i, j)];
        word >>= kvcl_code_shift(width, i % (32 / width));
        code |= (word & ((1u << width) - 1)) << 2 * plane;
    }
    return code;
}

// Into words that were zero.
static void put_code(uint32_t *words, uint32_t bits, uint32_t across, uint32_t along, uint32_t i,
                     uint32_t j, uint32_t code)
{
    for (uint32_t plane = 0; plane < kvcl_n_planes(bits); plane++) {
        uint32_t width = kvcl_plane_width(bits, plane);
        uint32_t part = code >> 2 * plane & ((1u << width) - 1);
        words[kvcl_plane_begin(plane, across, along) + kvcl_code_word(width, across, i, j)] |=
            part << kvcl_code_shift(width, i % (32 / width));
    }
}

void kvcl_cpu_quant_levels_k(const kvcl_quant_shape *s, const uint32_t *words, int8_t *levels)
{
    uint32_t D = s->head_dim;
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        for (uint32_t d = 0; d < D; d++)
            levels[t * D + d] = (int8_t)kvcl_quant_value(
                s->bits_k, get_code(words, s->bits_k, KVCL_TOKENS, D, d, t));
}

void kvcl_cpu_quant_levels_v(const kvcl_quant_shape *s, const uint32_t *words, int8_t *levels)
{
    uint32_t D = s->head_dim;
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        for (uint32_t d = 0; d < D; d++)
            levels[t * D + d] = (int8_t)kvcl_quant_value(
                s->bits_v, get_code(words, s->bits_v, D, KVCL_TOKENS, t, d));
}

const float *kvcl_cpu_quant_mean(const kvcl_quant_shape *s, kvcl_view means, uint32_t page,
                                 bool of_v, uint32_t hk)
{
    size_t epoch = kvcl_mean_epoch(page / KVCL_BLOCK);
    return (const float *)kvcl_cpu_ptr(means) +
           ((epoch * 2 + of_v) * s->n_kv_heads + hk) * s->head_dim;
}

void kvcl_cpu_fwht_head(uint32_t head_dim, float *x)
{
    uint32_t block = 1u << kvcl_head_log2(head_dim);
    for (uint32_t d = 0; d < head_dim; d += block)
        kvcl_cpu_fwht_row(x + d, block);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static bool is_finite(float x) { return x - x == 0.0f; }
static bool half_is_finite(uint16_t h) { return (h & 0x7c00u) != 0x7c00u; }

// What the scale of a row keeps: its length, or its part along itself.
typedef enum keeps { KEEPS_LENGTH, KEEPS_PART } keeps;

static float energy(const float *z, uint32_t n)
{
    float lanes[64] = {0};
    for (uint32_t k = 0; k < n; k++)
        lanes[k % 64] = fmaf(z[k], z[k], lanes[k % 64]);
    return kvcl_cpu_tree(lanes, 64);
}

// A code for each of n values, with a step that makes the largest of those from `first` on 127.
// False: a bad row.
static bool encode_range(const float *z, uint32_t first, uint32_t n, uint32_t bits, uint8_t *codes,
                         uint16_t *scale)
{
    float amax = 0.0f;
    for (uint32_t k = first; k < n; k++)
        amax = fabsf(z[k]) > amax ? fabsf(z[k]) : amax;
    *scale = kvcl_f32_to_f16(amax * 0.00787401572f); // 1/127
    float step = kvcl_f16_to_f32(*scale), inv = step > 0.0f ? kvcl_recip(step) : 0.0f;
    for (uint32_t k = 0; k < n; k++) {
        float v = z[k] * inv;
        v = v > -127.0f ? v : -127.0f;
        v = v < 127.0f ? v : 127.0f;
        codes[k] = (uint8_t)(bits == 8 ? (uint32_t)kvcl_round(v) : kvcl_quant_index(bits, v));
    }
    return half_is_finite(*scale);
}

static float step_of(keeps what, float e, float zc, int cc)
{
    float divisor = what == KEEPS_PART ? zc : (float)cc;
    float g = divisor < 1e-30f ? 0.0f : e * kvcl_recip(divisor);
    if (what == KEEPS_PART)
        return g;
    return g < 1e-30f ? 0.0f : g * kvcl_rsqrt(g);
}

static bool encode_levels(const float *z, uint32_t n, uint32_t bits, keeps what, uint8_t *codes,
                          uint16_t *scale)
{
    float e = energy(z, n), square = e * kvcl_recip((float)n);
    float inv = 0.0f, lanes[64] = {0};
    int cc = 0;
    bool nothing = square < 1e-30f;
    if (!is_finite(e))
        return false;
    if (!nothing)
        inv = kvcl_quant_unit(bits) * kvcl_recip(square * kvcl_rsqrt(square));
    for (uint32_t k = 0; k < n; k++) {
        codes[k] = (uint8_t)kvcl_quant_index(bits, z[k] * inv);
        int c = kvcl_quant_level(bits, codes[k]);
        lanes[k % 64] = fmaf(z[k], (float)c, lanes[k % 64]);
        cc += c * c;
    }
    *scale = nothing ? 0 : kvcl_f32_to_f16(step_of(what, e, kvcl_cpu_tree(lanes, 64), cc));
    return half_is_finite(*scale);
}

// One token's row of K or V.
static bool encode_row(const float *z, uint32_t n, uint32_t bits, keeps what, uint8_t *codes,
                       uint16_t *scale)
{
    if (bits == 8)
        return encode_range(z, 0, n, bits, codes, scale) && is_finite(energy(z, n));
    return encode_levels(z, n, bits, what, codes, scale);
}

typedef struct enc_task {
    const kvcl_quant_enc_args *a;
    uint32_t page, hk;
    size_t raw; // first element of the head's raw page
    kvcl_cpu_quant_head out;
} enc_task;

// One token's values to z: mean removed, transformed, scaled down.
static void to_z(uint32_t head_dim, const float *mean, float *x)
{
    float down = kvcl_head_down(kvcl_head_log2(head_dim));
    for (uint32_t d = 0; d < head_dim; d++)
        x[d] = x[d] - mean[d];
    kvcl_cpu_fwht_head(head_dim, x);
    for (uint32_t d = 0; d < head_dim; d++)
        x[d] = x[d] * down;
}

// K of PRE and POST: a row per token.  Returns the first bad token.
static uint32_t encode_k(const enc_task *e)
{
    const kvcl_quant_shape *s = &e->a->shape;
    const float *mean = kvcl_cpu_quant_mean(s, e->a->means, e->page, false, e->hk);
    uint32_t D = s->head_dim, bad = KVCL_TOKENS;
    float x[256];
    uint8_t codes[256];
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        for (uint32_t d = 0; d < D; d++)
            x[d] = kvcl_cpu_load(e->a->type_k, kvcl_cpu_ptr(e->a->k),
                                 e->raw + (size_t)d * KVCL_TOKENS + t);
        to_z(D, mean, x);
        memset(codes, 0, sizeof codes);
        if (!encode_row(x, D, s->bits_k, KEEPS_LENGTH, codes, &e->out.k_scales[t]))
            bad = kvcl_min_u32(bad, t);
        for (uint32_t d = 0; d < D; d++)
            put_code(e->out.k_words, s->bits_k, KVCL_TOKENS, D, d, t, codes[d]);
    }
    return bad;
}

static uint32_t encode_v(const enc_task *e)
{
    const kvcl_quant_shape *s = &e->a->shape;
    const float *mean = kvcl_cpu_quant_mean(s, e->a->means, e->page, true, e->hk);
    uint32_t D = s->head_dim, bad = KVCL_TOKENS;
    float x[256];
    uint8_t codes[256];
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        for (uint32_t d = 0; d < D; d++)
            x[d] = kvcl_cpu_load(e->a->type_v, kvcl_cpu_ptr(e->a->v), e->raw + (size_t)t * D + d);
        to_z(D, mean, x);
        memset(codes, 0, sizeof codes);
        if (!encode_row(x, D, s->bits_v, KEEPS_PART, codes, &e->out.v_scales[t]))
            bad = kvcl_min_u32(bad, t);
        for (uint32_t d = 0; d < D; d++)
            put_code(e->out.v_words, s->bits_v, D, KVCL_TOKENS, t, d, codes[d]);
    }
    return bad;
}

// One channel of K over the page's tokens: the middle of its range, then codes.
static bool encode_channel(const enc_task *e, uint32_t d, uint32_t first, float *x)
{
    const kvcl_quant_shape *s = &e->a->shape;
    uint8_t codes[KVCL_TOKENS] = {0};
    float low = x[first], high = x[first];
    for (uint32_t t = first; t < KVCL_TOKENS; t++) {
        low = x[t] < low ? x[t] : low;
        high = x[t] > high ? x[t] : high;
    }
    e->out.k_means[d] = kvcl_f32_to_f16(kvcl_zero(0.5f * (high + low)));
    float mean = kvcl_f16_to_f32(e->out.k_means[d]);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        x[t] = x[t] - mean;
    bool good = encode_range(x, first, KVCL_TOKENS, s->bits_k, codes, &e->out.k_scales[d]);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        put_code(e->out.k_words, s->bits_k, KVCL_TOKENS, s->head_dim, d, t, codes[t]);
    return good && half_is_finite(e->out.k_means[d]);
}

static uint32_t encode_k_channels(const enc_task *e)
{
    uint32_t bad = KVCL_TOKENS, first = e->page == 0 ? e->a->n_skip : 0;
    bool scales_good = true;
    for (uint32_t d = 0; d < e->a->shape.head_dim; d++) {
        float x[KVCL_TOKENS];
        for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
            x[t] = kvcl_cpu_load(e->a->type_k, kvcl_cpu_ptr(e->a->k),
                                 e->raw + (size_t)d * KVCL_TOKENS + t);
            if (!is_finite(x[t]))
                bad = kvcl_min_u32(bad, t);
        }
        scales_good = encode_channel(e, d, first, x) && scales_good;
    }
    return bad == KVCL_TOKENS && !scales_good ? 0 : bad;
}

void kvcl_cpu_quant_enc(const void *args, kvcl_cpu_part *p)
{
    const kvcl_quant_enc_args *a = args;
    const kvcl_quant_shape *s = &a->shape;
    const int32_t *from = kvcl_cpu_ptr(a->page_table), *to = kvcl_cpu_ptr(a->pool_table);
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    size_t head_elems = (size_t)s->head_dim * KVCL_TOKENS;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * s->n_kv_heads, 1, &task, &end);) {
        uint32_t i = task / s->n_kv_heads, hk = task % s->n_kv_heads;
        enc_task e = {.a = a, .page = a->first_page + i, .hk = hk};
        e.raw = ((size_t)from[i] * s->n_kv_heads + hk) * head_elems;
        e.out = kvcl_cpu_quant_at(s, a->pool, (size_t)to[i], hk);
        memset(e.out.k_words, 0, kvcl_code_words(s->bits_k, s->head_dim) * sizeof(uint32_t));
        memset(e.out.v_words, 0, kvcl_code_words(s->bits_v, s->head_dim) * sizeof(uint32_t));
        uint32_t bad_k = s->form == KVCL_QUANT_CHANNEL ? encode_k_channels(&e) : encode_k(&e);
        bad[task] = (int32_t)kvcl_min_u32(bad_k, encode_v(&e));
    }
}

/* ---- decoding ------------------------------------------------------------------------------ */

typedef struct dec_task {
    const kvcl_quant_dec_args *a;
    uint32_t page, hk;
    size_t raw;
    kvcl_cpu_quant_head in;
    int8_t *levels; // [64][D]
} dec_task;

// A token's levels to values.
static void from_levels(uint32_t head_dim, const int8_t *levels, uint16_t scale, const float *mean,
                        float *x)
{
    float step = kvcl_head_up(kvcl_head_log2(head_dim)) * kvcl_f16_to_f32(scale);
    for (uint32_t d = 0; d < head_dim; d++)
        x[d] = (float)levels[d];
    kvcl_cpu_fwht_head(head_dim, x); // exact: sums of at most 256 levels
    for (uint32_t d = 0; d < head_dim; d++)
        x[d] = kvcl_zero(fmaf(step, x[d], mean[d]));
}

static void decode_v(const dec_task *t)
{
    const kvcl_quant_shape *s = &t->a->shape;
    uint32_t D = s->head_dim;
    const float *mean = kvcl_cpu_quant_mean(s, t->a->means, t->page, true, t->hk);
    float x[256];
    kvcl_cpu_quant_levels_v(s, t->in.v_words, t->levels);
    for (uint32_t k = 0; k < KVCL_TOKENS; k++) {
        from_levels(D, t->levels + k * D, t->in.v_scales[k], mean, x);
        for (uint32_t d = 0; d < D; d++)
            kvcl_cpu_store(t->a->type_v, kvcl_cpu_ptr(t->a->v), t->raw + (size_t)k * D + d, x[d]);
    }
}

static void decode_k(const dec_task *t)
{
    const kvcl_quant_dec_args *a = t->a;
    const kvcl_quant_shape *s = &a->shape;
    uint32_t D = s->head_dim;
    const float *mean = kvcl_cpu_quant_mean(s, a->means, t->page, false, t->hk);
    const float *table = kvcl_cpu_ptr(a->table);
    float x[256];
    kvcl_cpu_quant_levels_k(s, t->in.k_words, t->levels);
    for (uint32_t k = 0; k < KVCL_TOKENS; k++) {
        size_t pos = (size_t)t->page * KVCL_TOKENS + k;
        if (s->form == KVCL_QUANT_CHANNEL) {
            for (uint32_t d = 0; d < D; d++)
                x[d] =
                    kvcl_zero(fmaf(kvcl_f16_to_f32(t->in.k_scales[d]), (float)t->levels[k * D + d],
                                   kvcl_f16_to_f32(t->in.k_means[d])));
        } else {
            from_levels(D, t->levels + k * D, t->in.k_scales[k], mean, x);
        }
        if (s->form == KVCL_QUANT_PRE && table)
            kvcl_cpu_turn(a->pairing, a->n_rot, table + pos * a->n_rot, false, x);
        for (uint32_t d = 0; d < D; d++)
            kvcl_cpu_store(a->type_k, kvcl_cpu_ptr(a->k), t->raw + (size_t)d * KVCL_TOKENS + k,
                           x[d]);
    }
}

void kvcl_cpu_quant_dec(const void *args, kvcl_cpu_part *p)
{
    const kvcl_quant_dec_args *a = args;
    const kvcl_quant_shape *s = &a->shape;
    const int32_t *from = kvcl_cpu_ptr(a->pool_table), *to = kvcl_cpu_ptr(a->page_table);
    size_t head_elems = (size_t)s->head_dim * KVCL_TOKENS;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * s->n_kv_heads, 1, &task, &end);) {
        uint32_t i = task / s->n_kv_heads, hk = task % s->n_kv_heads;
        dec_task t = {.a = a, .page = a->first_page + i, .hk = hk};
        t.raw = ((size_t)to[i] * s->n_kv_heads + hk) * head_elems;
        t.in = kvcl_cpu_quant_at(s, a->pool, (size_t)from[i], hk);
        t.levels = (int8_t *)p->scratch;
        decode_k(&t);
        decode_v(&t);
    }
}
