/* simd_quant.c - raw pages to quant pages.  Definition: cpu/quant.c
 *
 * Keys stay as they lie, [D][64]: a vector holds tokens, the transform and the sums of a token run
 * down the rows.  Values [64][D] and channels are rows of their own; their sums run along them.
 * Codes are words of rows either way, `along` being the index of the row. */
#include "quant.h"
#include "simd_code.h"

#define MAX_D CODE_MAX_DIM

/* Rows [n][width] of numbers to be coded. */
typedef struct rows {
    float z[MAX_D * KVCL_TOKENS];
    uint32_t n, width, bits;
} rows;

typedef struct work {
    rows r;
    float inv[MAX_D], level[MAX_D]; /* of one row */
    uint32_t index[MAX_D];
    float e[KVCL_TOKENS], cc[KVCL_TOKENS]; /* of tokens */
} work;

typedef struct enc_task {
    const kvcl_quant_enc_args *a;
    work *w;
    uint32_t page, hk;
    size_t raw; /* first element of the head's raw page */
    kvcl_cpu_quant_head out;
} enc_task;

static bool half_is_finite(uint16_t h) { return (h & 0x7c00u) != 0x7c00u; }

/* ---- codes --------------------------------------------------------------------------------- */

/* index and level of z * inv; bits is a constant.  Plain loops, which compilers turn to vectors. */
KVCL_INLINE void levels_of(uint32_t bits, uint32_t n, const float *restrict z,
                           const float *restrict inv, uint32_t *restrict index,
                           float *restrict level)
{
    float edge[16];
    int step[16];
    for (uint32_t j = 1; j < 1u << bits; j++) {
        int low = kvcl_quant_level(bits, j - 1), high = kvcl_quant_level(bits, j);
        edge[j] = 0.5f * (float)(low + high);
        step[j] = high - low;
    }
    int first = kvcl_quant_level(bits, 0);
    for (uint32_t i = 0; i < n; i++) {
        float v = z[i] * inv[i];
        uint32_t k = 0;
        int c = first;
        KVCL_UNROLL
        for (uint32_t j = 1; j < 1u << bits; j++) {
            k += v > edge[j] ? 1u : 0u;
            c += v > edge[j] ? step[j] : 0;
        }
        index[i] = k;
        level[i] = (float)c;
    }
}

static void codes_8(uint32_t n, const float *restrict z, const float *restrict inv,
                    uint32_t *restrict index)
{
    for (uint32_t i = 0; i < n; i++) {
        float v = z[i] * inv[i];
        v = v > -127.0f ? v : -127.0f;
        v = v < 127.0f ? v : 127.0f;
        index[i] = (uint32_t)kvcl_round(v) & 255u;
    }
}

static void row_codes(uint32_t bits, uint32_t n, const float *z, work *w)
{
    if (bits == 8)
        codes_8(n, z, w->inv, w->index);
    else if (bits == 4)
        levels_of(4, n, z, w->inv, w->index, w->level);
    else if (bits == 3)
        levels_of(3, n, z, w->inv, w->index, w->level);
    else if (bits == 2)
        levels_of(2, n, z, w->inv, w->index, w->level);
    else
        levels_of(1, n, z, w->inv, w->index, w->level);
}

/* Puts (index >> down) of row i into the plane of `bits` bits that begins at words [..][n]. */
static void put_plane(uint32_t bits, uint32_t down, uint32_t i, uint32_t n,
                      const uint32_t *restrict index, uint32_t *restrict words)
{
    uint32_t per = 32 / bits, r = i % per, mask = (1u << bits) - 1,
             shift = 8 * (r % 4) + bits * (r / 4);
    words += i / per * n;
    if (r == 0)
        for (uint32_t k = 0; k < n; k++)
            words[k] = index[k] >> down & mask;
    else
        for (uint32_t k = 0; k < n; k++)
            words[k] |= (index[k] >> down & mask) << shift;
}

static void put_row(const rows *r, uint32_t i, const work *w, uint32_t *words)
{
    if (r->bits != 3) {
        put_plane(r->bits, 0, i, r->width, w->index, words);
        return;
    }
    put_plane(2, 0, i, r->width, w->index, words);
    put_plane(1, 2, i, r->width, w->index, words + r->n / 16 * r->width);
}

/* ---- scales -------------------------------------------------------------------------------- */

/* Scale and factor of codes whose largest number becomes 127. */
static float range_factor(float max, uint16_t *scale)
{
    *scale = kvcl_f32_to_f16(max * 0.00787401572f); /* 1/127 */
    float step = kvcl_f16_to_f32(*scale);
    return step > 0.0f ? kvcl_recip(step) : 0.0f;
}

/* Factor of levels, from the sum of squares of n numbers. */
static float level_factor(uint32_t bits, float e, uint32_t n)
{
    float square = e * kvcl_recip((float)n);
    if (square < 1e-30f)
        return 0.0f;
    return kvcl_quant_unit(bits) * kvcl_recip(square * kvcl_rsqrt(square));
}

static float ratio(float e, float divisor)
{
    return divisor < 1e-30f ? 0.0f : e * kvcl_recip(divisor);
}

/* sum a[i] b[i]: 64 lanes by i mod 64; n a multiple of 16. */
static float dot64(const float *a, const float *b, uint32_t n)
{
    v16 acc[4] = {v16_set(0.0f), v16_set(0.0f), v16_set(0.0f), v16_set(0.0f)};
    for (uint32_t i = 0; i < n; i += 16)
        acc[i / 16 % 4] = v16_fma(v16_load(a + i), v16_load(b + i), acc[i / 16 % 4]);
    return v16_tree64(acc);
}

static float largest(const float *a, uint32_t n)
{
    v16 max = v16_set(0.0f);
    for (uint32_t i = 0; i < n; i += 16)
        max = v16_max(max, v16_abs(v16_load(a + i)));
    return v16_max_lane(max);
}

static v16 load_raw(kvcl_type type, const unsigned char *p, size_t i)
{
    return type == KVCL_F16 ? v16_load_f16(p + 2 * i) : v16_load(p + 4 * i);
}

static void begin_rows(rows *r, uint32_t n, uint32_t width, uint32_t bits)
{
    r->n = n;
    r->width = width;
    r->bits = bits;
}

/* Codes of row i, all numbers times inv. */
static void code_row(work *w, uint32_t i, float inv, uint32_t *words)
{
    const rows *r = &w->r;
    for (uint32_t k = 0; k < r->width; k += 16)
        v16_store(w->inv + k, v16_set(inv));
    row_codes(r->bits, r->width, r->z + (size_t)i * r->width, w);
    put_row(r, i, w, words);
}

/* ---- values -------------------------------------------------------------------------------- */

static bool encode_value(work *w, uint32_t t, uint32_t *words, uint16_t *scale)
{
    uint32_t D = w->r.width, bits = w->r.bits;
    const float *z = w->r.z + (size_t)t * D;
    float e = dot64(z, z, D);
    if (e - e != 0.0f)
        return false;
    float inv = bits == 8 ? range_factor(largest(z, D), scale) : level_factor(bits, e, D);
    code_row(w, t, inv, words);
    if (bits != 8)
        *scale = inv == 0.0f ? 0 : kvcl_f32_to_f16(ratio(e, dot64(z, w->level, D)));
    return half_is_finite(*scale);
}

static uint32_t encode_v(const enc_task *e)
{
    const kvcl_quant_shape *s = &e->a->shape;
    uint32_t D = s->head_dim, block = D & -D, bad = KVCL_TOKENS;
    const float *mean = kvcl_cpu_quant_mean(s, e->a->means, e->page, true, e->hk);
    const unsigned char *v =
        (const unsigned char *)kvcl_cpu_ptr(e->a->v) + kvcl_type_bytes(e->a->type_v, e->raw);
    float down = kvcl_head_down(kvcl_head_log2(D));
    begin_rows(&e->w->r, KVCL_TOKENS, D, s->bits_v);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        float *z = e->w->r.z + (size_t)t * D;
        for (uint32_t d = 0; d < D; d += 16) {
            v16 x = load_raw(e->a->type_v, v, (size_t)t * D + d);
            v16_store(z + d, v16_sub(x, v16_load(mean + d)));
        }
        for (uint32_t d = 0; d < D; d += block)
            KVCL_SIMD_FN(fwht_columns)(z + d, block, 1, down);
        if (!encode_value(e->w, t, e->out.v_words, &e->out.v_scales[t]))
            bad = kvcl_min_u32(bad, t);
    }
    return bad;
}

/* ---- keys with a scale per token: tokens in the lanes ---------------------------------------- */

/* Sums of squares of each token: 64 lanes by d mod 64. */
static void token_energies(const rows *r, float *e)
{
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16) {
        v16 acc[64];
        for (uint32_t j = 0; j < 64; j++)
            acc[j] = v16_set(0.0f);
        for (uint32_t d = 0; d < r->n; d++) {
            v16 x = v16_load(r->z + (size_t)d * KVCL_TOKENS + t);
            acc[d % 64] = v16_fma(x, x, acc[d % 64]);
        }
        for (uint32_t s = 32; s > 0; s /= 2)
            for (uint32_t j = 0; j < s; j++)
                acc[j] = v16_add(acc[j], acc[j + s]);
        v16_store(e + t, v16_plus_zero(acc[0]));
    }
}

/* Factors of all tokens to inv; for 8 bits the scales, too. */
static void token_factors(work *w, uint16_t *scales)
{
    const rows *r = &w->r;
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16) {
        float max[16];
        v16 m = v16_set(0.0f);
        for (uint32_t d = 0; r->bits == 8 && d < r->n; d++)
            m = v16_max(m, v16_abs(v16_load(r->z + (size_t)d * KVCL_TOKENS + t)));
        v16_store(max, m);
        for (uint32_t k = 0; k < 16; k++)
            w->inv[t + k] = r->bits == 8 ? range_factor(max[k], &scales[t + k])
                                         : level_factor(r->bits, w->e[t + k], r->n);
    }
}

/* The row keeps its length. */
static uint16_t length_scale(float inv, float e, float cc)
{
    float g = ratio(e, cc);
    return inv == 0.0f || g < 1e-30f ? 0 : kvcl_f32_to_f16(g * kvcl_rsqrt(g));
}

static uint32_t encode_k(const enc_task *e)
{
    const kvcl_quant_shape *s = &e->a->shape;
    work *w = e->w;
    uint32_t D = s->head_dim, block = D & -D, bad = KVCL_TOKENS;
    const float *mean = kvcl_cpu_quant_mean(s, e->a->means, e->page, false, e->hk);
    const unsigned char *k =
        (const unsigned char *)kvcl_cpu_ptr(e->a->k) + kvcl_type_bytes(e->a->type_k, e->raw);
    float down = kvcl_head_down(kvcl_head_log2(D));
    begin_rows(&w->r, D, KVCL_TOKENS, s->bits_k);
    for (uint32_t i = 0; i < D * KVCL_TOKENS; i += 16)
        v16_store(w->r.z + i,
                  v16_sub(load_raw(e->a->type_k, k, i), v16_set(mean[i / KVCL_TOKENS])));
    for (uint32_t d = 0; d < D; d += block)
        KVCL_SIMD_FN(fwht_columns)(w->r.z + (size_t)d * KVCL_TOKENS, block, KVCL_TOKENS, down);
    token_energies(&w->r, w->e);
    token_factors(w, e->out.k_scales);
    memset(w->cc, 0, sizeof w->cc);
    for (uint32_t d = 0; d < D; d++) {
        row_codes(s->bits_k, KVCL_TOKENS, w->r.z + (size_t)d * KVCL_TOKENS, w);
        put_row(&w->r, d, w, e->out.k_words);
        for (uint32_t t = 0; s->bits_k != 8 && t < KVCL_TOKENS; t += 16) {
            v16 c = v16_load(w->level + t); /* sums of squares of levels are exact */
            v16_store(w->cc + t, v16_fma(c, c, v16_load(w->cc + t)));
        }
    }
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        if (s->bits_k != 8)
            e->out.k_scales[t] = length_scale(w->inv[t], w->e[t], w->cc[t]);
        if (w->e[t] - w->e[t] != 0.0f || !half_is_finite(e->out.k_scales[t]))
            bad = kvcl_min_u32(bad, t);
    }
    return bad;
}

/* ---- keys with a scale per channel --------------------------------------------------------- */

/* Channel d, its tokens from `first` on in statistics; false when mean or scale fit no f16. */
static bool encode_channel(const enc_task *e, uint32_t d, uint32_t first)
{
    work *w = e->w;
    float *x = w->r.z + (size_t)d * KVCL_TOKENS, counted[KVCL_TOKENS];
    memcpy(counted, x, sizeof counted);
    for (uint32_t t = 0; t < first; t++)
        counted[t] = x[first];
    float low = counted[0], high = counted[0];
    for (uint32_t t = 1; t < KVCL_TOKENS; t++) {
        low = counted[t] < low ? counted[t] : low;
        high = counted[t] > high ? counted[t] : high;
    }
    e->out.k_means[d] = kvcl_f32_to_f16(kvcl_zero(0.5f * (high + low)));
    v16 mean = v16_set(kvcl_f16_to_f32(e->out.k_means[d]));
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16) {
        v16_store(x + t, v16_sub(v16_load(x + t), mean));
        v16_store(counted + t, v16_sub(v16_load(counted + t), mean));
    }
    code_row(w, d, range_factor(largest(counted, KVCL_TOKENS), &e->out.k_scales[d]),
             e->out.k_words);
    return half_is_finite(e->out.k_scales[d]) && half_is_finite(e->out.k_means[d]);
}

static uint32_t encode_k_channels(const enc_task *e)
{
    work *w = e->w;
    uint32_t D = e->a->shape.head_dim, first = e->page == 0 ? e->a->n_skip : 0;
    const unsigned char *k =
        (const unsigned char *)kvcl_cpu_ptr(e->a->k) + kvcl_type_bytes(e->a->type_k, e->raw);
    begin_rows(&w->r, D, KVCL_TOKENS, e->a->shape.bits_k);
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16) { /* 0 x is not 0 where x is not finite */
        v16 sum = v16_set(0.0f);
        for (uint32_t d = 0; d < D; d++) {
            v16 x = load_raw(e->a->type_k, k, (size_t)d * KVCL_TOKENS + t);
            v16_store(w->r.z + (size_t)d * KVCL_TOKENS + t, x);
            sum = v16_fma(x, v16_set(0.0f), sum);
        }
        v16_store(w->e + t, sum);
    }
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        if (w->e[t] - w->e[t] != 0.0f)
            return t;
    bool good = true;
    for (uint32_t d = 0; d < D; d++)
        good = encode_channel(e, d, first) && good;
    return good ? KVCL_TOKENS : 0;
}

void KVCL_SIMD_FN(quant_enc)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_quant_enc_args *a = args;
    const kvcl_quant_shape *s = &a->shape;
    const int32_t *from = kvcl_cpu_ptr(a->page_table), *to = kvcl_cpu_ptr(a->pool_table);
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * s->n_kv_heads, 1, &task, &end);) {
        uint32_t i = task / s->n_kv_heads, hk = task % s->n_kv_heads;
        enc_task e = {.a = a,
                      .w = (work *)(void *)p->scratch,
                      .page = a->first_page + i,
                      .hk = hk,
                      .raw = ((size_t)from[i] * s->n_kv_heads + hk) * s->head_dim * KVCL_TOKENS,
                      .out = kvcl_cpu_quant_at(s, a->pool, (size_t)to[i], hk)};
        uint32_t bad_k = s->form == KVCL_QUANT_CHANNEL ? encode_k_channels(&e) : encode_k(&e);
        bad[task] = (int32_t)kvcl_min_u32(bad_k, encode_v(&e));
    }
}
