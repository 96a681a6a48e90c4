/* simd_block.c - raw pages to pages of Q8_0 and Q4_0 rows, back, and attention on them.
 * Definition: cpu/block.c
 *
 * Raw keys lie [D][64] and rows hold a token's: sixteen by sixteen values turn on the way.
 * Attention works on pages in f32, which one decodes to for all rows of a task: products code * d
 * are exact in f32, so that nothing differs from decoding on the fly. */
#include "ops_code.h"
#include "simd_attn.h"

#define MAX_D 256
#define TURN 16 /* tokens that turn together */

/* Where the rows of heads are in a slot of the pool, in bytes. */
typedef struct head_rows {
    size_t row_k, row_v;   /* of a row */
    size_t head_k, head_v; /* from one head to the next */
    size_t first_v, slot;  /* from K to V; from one slot to the next */
} head_rows;

static head_rows rows_of(uint32_t n_kv_heads, uint32_t head_dim, kvcl_type type_k, kvcl_type type_v)
{
    head_rows r = {.row_k = kvcl_type_bytes(type_k, head_dim),
                   .row_v = kvcl_type_bytes(type_v, head_dim),
                   .slot = kvcl_block_page_bytes(n_kv_heads, head_dim, type_k, type_v)};
    r.head_k = KVCL_TOKENS * r.row_k;
    r.head_v = KVCL_TOKENS * r.row_v;
    r.first_v = n_kv_heads * r.head_k;
    return r;
}

/* Sixteen columns of `in` become sixteen rows of `out`, or the reverse. */
KVCL_INLINE void turn(const float *in, size_t in_pitch, float *out, size_t out_pitch)
{
    v16 x[TURN];
    KVCL_UNROLL
    for (uint32_t j = 0; j < TURN; j++)
        x[j] = v16_load(in + j * in_pitch);
    v16_transpose(x);
    KVCL_UNROLL
    for (uint32_t j = 0; j < TURN; j++)
        v16_store(out + j * out_pitch, x[j]);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static void put_half(unsigned char *p, uint16_t h)
{
    p[0] = (unsigned char)h;
    p[1] = (unsigned char)(h >> 8);
}

/* The first value of largest magnitude, `amax`. */
static float first_of(const float *x, float amax)
{
    uint32_t e = 0;
    while (fabsf(x[e]) != amax)
        e++;
    return x[e];
}

static void encode_q8_0(const float *x, float amax, unsigned char *p)
{
    v16 inv = v16_set(kvcl_quant_inv(amax)), round = v16_set(KVCL_ROUND);
    int8_t codes[KVCL_QK];
    put_half(p, kvcl_f32_to_f16(kvcl_quant_scale(amax)));
    /* two roundings, as in the twin: the product's, then the sum's */
    for (uint32_t e = 0; e < KVCL_QK; e += 16)
        v16_store_codes(codes + e, v16_add(v16_mul(v16_load(x + e), inv), round));
    memcpy(p + 2, codes, sizeof codes);
}

/* min(15, trunc(y)) of 0 < y < 17, as bytes. */
KVCL_INLINE void store_nibbles(int8_t *p, v16 y)
{
    v16 round = v16_set(KVCL_ROUND), most = v16_set(15.0f);
    v16 n = v16_sub(v16_add(y, round), round);
    n = v16_select_lt(y, n, v16_sub(n, v16_set(1.0f)), n);
    v16_store_codes(p, v16_add(v16_select_lt(n, most, n, most), round));
}

static void encode_q4_0(const float *x, float amax, unsigned char *p)
{
    float top = first_of(x, amax);
    bool nothing = amax < 1e-30f;
    float inv = nothing ? 0.0f : 8.0f * kvcl_recip(amax);
    int8_t codes[KVCL_QK];
    put_half(p, nothing ? 0 : kvcl_f32_to_f16(top * -0.125f));
    v16 scale = v16_set(top > 0.0f ? -inv : inv), half = v16_set(8.5f);
    for (uint32_t e = 0; e < KVCL_QK; e += 16)
        store_nibbles(codes + e, v16_fma(v16_load(x + e), scale, half));
    for (uint32_t e = 0; e < KVCL_QK / 2; e++)
        p[2 + e] = (unsigned char)(codes[e] | codes[e + 16] << 4);
}

/* A row of n values; false when one is not finite or a block's d does not fit an f16. */
static bool encode_row(kvcl_type type, const float *x, uint32_t n, unsigned char *p)
{
    bool good = true;
    for (uint32_t b = 0; b < n / KVCL_QK; b++, x += KVCL_QK, p += kvcl_type_block_bytes(type)) {
        v16 x0 = v16_load(x), x1 = v16_load(x + 16), zero = v16_set(0.0f);
        /* 0 x is 0 where x is finite */
        if (v16_tree(v16_fma(x0, zero, v16_mul(x1, zero))) != 0.0f) {
            good = false;
            continue;
        }
        float amax = v16_max_lane(v16_max(v16_abs(x0), v16_abs(x1)));
        if (type == KVCL_Q8_0)
            encode_q8_0(x, amax, p);
        else
            encode_q4_0(x, amax, p);
        good = good && (p[1] & 0x7c) != 0x7c;
    }
    return good;
}

/* The rows of a head's page in f32, x [64][D] (turned: [D][64]); the first bad one, or 64. */
static uint32_t encode_rows(kvcl_type type, const float *x, bool turned, uint32_t D,
                            unsigned char *p)
{
    size_t row_bytes = kvcl_type_bytes(type, D);
    uint32_t bad = KVCL_TOKENS;
    float rows[TURN * MAX_D];
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        uint32_t j = t % TURN;
        for (uint32_t d = 0; turned && j == 0 && d < D; d += TURN)
            turn(x + (size_t)d * KVCL_TOKENS + t, KVCL_TOKENS, rows + d, MAX_D);
        const float *row = turned ? rows + (size_t)j * MAX_D : x + (size_t)t * D;
        if (!encode_row(type, row, D, p + t * row_bytes))
            bad = kvcl_min_u32(bad, t);
    }
    return bad;
}

void KVCL_SIMD_FN(block_enc)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_block_enc_args *a = args;
    const int32_t *from = kvcl_cpu_ptr(a->page_table), *to = kvcl_cpu_ptr(a->pool_table);
    uint32_t D = a->head_dim, Hk = a->n_kv_heads;
    head_rows r = rows_of(Hk, D, a->block_type_k, a->block_type_v);
    const unsigned char *k = kvcl_cpu_ptr(a->k), *v = kvcl_cpu_ptr(a->v);
    unsigned char *pool = kvcl_cpu_ptr(a->pool);
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    float *x = (float *)(void *)p->scratch;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / Hk, hk = task % Hk;
        size_t raw = ((size_t)from[i] * Hk + hk) * D * KVCL_TOKENS;
        unsigned char *page = pool + (size_t)to[i] * r.slot;
        KVCL_SIMD_FN(expand_row)
        (a->type_k, k + kvcl_type_bytes(a->type_k, raw), D * KVCL_TOKENS, x);
        uint32_t bad_k = encode_rows(a->block_type_k, x, true, D, page + hk * r.head_k);
        KVCL_SIMD_FN(expand_row)
        (a->type_v, v + kvcl_type_bytes(a->type_v, raw), D * KVCL_TOKENS, x);
        uint32_t bad_v =
            encode_rows(a->block_type_v, x, false, D, page + r.first_v + hk * r.head_v);
        bad[task] = (int32_t)kvcl_min_u32(bad_k, bad_v);
    }
}

/* ---- decoding ------------------------------------------------------------------------------ */

void KVCL_SIMD_FN(block_keys)(kvcl_type type, const unsigned char *rows, uint32_t D,
                              const unsigned char *next, float *out)
{
    size_t row_bytes = kvcl_type_bytes(type, D);
    float x[TURN * MAX_D];
    for (uint32_t t = 0; t < KVCL_TOKENS; t += TURN) {
        for (uint32_t j = 0; j < TURN; j++) {
            size_t at = (t + j) * row_bytes;
            attn_ask(next ? next + at : NULL, row_bytes);
            KVCL_SIMD_FN(expand_row)(type, rows + at, D, x + (size_t)j * MAX_D);
        }
        for (uint32_t d = 0; d < D; d += TURN)
            turn(x + d, MAX_D, out + (size_t)d * KVCL_TOKENS + t, KVCL_TOKENS);
    }
}

static void store_raw(kvcl_type type, const float *x, uint32_t n, unsigned char *out)
{
    for (uint32_t i = 0; i < n; i += 16)
        if (type == KVCL_F16)
            v16_store_f16(out + 2 * i, v16_load(x + i));
        else
            memcpy(out + 4 * i, x + i, 16 * sizeof *x);
}

void KVCL_SIMD_FN(block_dec)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_block_dec_args *a = args;
    const int32_t *from = kvcl_cpu_ptr(a->pool_table), *to = kvcl_cpu_ptr(a->page_table);
    uint32_t D = a->head_dim, Hk = a->n_kv_heads, n = D * KVCL_TOKENS;
    head_rows r = rows_of(Hk, D, a->block_type_k, a->block_type_v);
    unsigned char *k = kvcl_cpu_ptr(a->k), *v = kvcl_cpu_ptr(a->v);
    const unsigned char *pool = kvcl_cpu_ptr(a->pool);
    float *x = (float *)(void *)p->scratch;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / Hk, hk = task % Hk;
        size_t raw = ((size_t)to[i] * Hk + hk) * n;
        const unsigned char *page = pool + (size_t)from[i] * r.slot;
        KVCL_SIMD_FN(block_keys)(a->block_type_k, page + hk * r.head_k, D, NULL, x);
        store_raw(a->type_k, x, n, k + kvcl_type_bytes(a->type_k, raw));
        KVCL_SIMD_FN(expand_row)(a->block_type_v, page + r.first_v + hk * r.head_v, n, x);
        store_raw(a->type_v, x, n, v + kvcl_type_bytes(a->type_v, raw));
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

void KVCL_SIMD_FN(attn_block)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_block_args *a = args;
    head_rows r = rows_of(a->in.n_kv_heads, a->in.head_dim, a->block_type_k, a->block_type_v);
    kvcl_simd_pages pages = {.in = &a->in,
                             .k = kvcl_cpu_ptr(a->pool),
                             .slot_k = r.slot,
                             .slot_v = r.slot,
                             .head_k = r.head_k,
                             .head_v = r.head_v,
                             .type_k = a->block_type_k,
                             .type_v = a->block_type_v};
    pages.v = pages.k + r.first_v;
    KVCL_SIMD_FN(attn_pages)(&pages, p);
}
