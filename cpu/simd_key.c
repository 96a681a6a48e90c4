/* simd_key.c - keys of quant pages coded before rotation: transform, mean, rotation by the token's
 * place in its page, dot products.  Definition: cpu/attn_quant.c
 *
 * The transform is exact in integers, so its stages may come in any order: within dwords the one
 * of neighbours (bytes to 16-bit pairs) first and the one of distance 2 (pairs to 32 bits) last,
 * between them those of larger distances, vertically, in 16 bits: |h| <= 127 * 128 before the last
 * stage.  A level's bias (MB_BIAS) shows in h[0] alone. */
#include "simd_code.h"

/* Transforms x[0], x[1] .. x[n - 1], n a constant power of two. */
KVCL_INLINE void butterflies(mh *x, uint32_t n)
{
    KVCL_UNROLL
    for (uint32_t h = 1; h < n; h *= 2)
        KVCL_UNROLL
    for (uint32_t i = 0; i < n; i++)
        if ((i & h) == 0) {
            mh a = x[i], b = x[i + h];
            x[i] = mh_add(a, b);
            x[i + h] = mh_sub(a, b);
        }
}

#define H_LANES (2 * M_LANES) /* 16-bit integers of a register */

/* Stages 1, 4, 8 and 16 of all dims for M_LANES tokens: h [dim / 4][2][H_LANES], the sums of
 * neighbours, then their differences. */
KVCL_INLINE void first_stages(uint32_t bits, const kvcl_simd_codes *c, uint32_t t, int16_t *h)
{
    const unsigned char *p = c->codes + 4 * (size_t)t;
    const unsigned char *high = p + (size_t)c->n / 16 * c->width * 4;
    size_t pitch = (size_t)c->width * 4;
    mb table = mb_table(c->table);
    for (uint32_t i = 0; i < c->n; i += 32) {
        mh sums[8], diffs[8];
        KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            mb x = code_group(bits, p, high, pitch, table, j);
            sums[j] = mb_pair_sum(x);
            diffs[j] = mb_pair_diff(x);
        }
        butterflies(sums, 8);
        butterflies(diffs, 8);
        KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            mh_store(h + 2 * j * H_LANES, sums[j]);
            mh_store(h + (2 * j + 1) * H_LANES, diffs[j]);
        }
        p += code_step(bits) * pitch;
        high += pitch;
        h += 16 * H_LANES;
    }
}

/* The other stages of a block of 32 n dims, then scale and mean; n is a constant. */
KVCL_INLINE void last_stages(uint32_t n, const int16_t *h, mf us, const float *mean, float *out,
                             uint32_t pitch)
{
    for (uint32_t j = 0; j < 8; j++) {
        mh sums[8], diffs[8];
        KVCL_UNROLL
        for (uint32_t k = 0; k < n; k++) {
            sums[k] = mh_load(h + (8 * k + j) * 2 * H_LANES);
            diffs[k] = mh_load(h + (8 * k + j) * 2 * H_LANES + H_LANES);
        }
        butterflies(sums, n);
        butterflies(diffs, n);
        if (MB_BIAS != 0 && j == 0)
            sums[0] = mh_minus(sums[0], 2 * MB_BIAS * 8 * (int)n);
        KVCL_UNROLL
        for (uint32_t k = 0; k < n; k++) {
            uint32_t d = 4 * (8 * k + j);
            float *o = out + (size_t)d * pitch;
            mf_store(o, mf_fma(us, mh_lane_sum(sums[k]), mf_set(mean[d])));
            mf_store(o + pitch, mf_fma(us, mh_lane_sum(diffs[k]), mf_set(mean[d + 1])));
            mf_store(o + 2 * pitch, mf_fma(us, mh_lane_diff(sums[k]), mf_set(mean[d + 2])));
            mf_store(o + 3 * pitch, mf_fma(us, mh_lane_diff(diffs[k]), mf_set(mean[d + 3])));
        }
    }
}

KVCL_INLINE void keys(uint32_t bits, const kvcl_simd_codes *c, uint32_t block, uint32_t t,
                      const float *us, const float *mean, float *out, uint32_t pitch)
{
    int16_t h[CODE_MAX_DIM / 2 * H_LANES];
    for (uint32_t i = 0; i < 16; i += M_LANES) {
        first_stages(bits, c, t + i, h);
        for (uint32_t d = 0; d < c->n; d += block) {
            const int16_t *hb = h + d / 2 * H_LANES;
            float *o = out + (size_t)d * pitch + i;
            if (block == 32)
                last_stages(1, hb, mf_load(us + i), mean + d, o, pitch);
            else if (block == 64)
                last_stages(2, hb, mf_load(us + i), mean + d, o, pitch);
            else if (block == 128)
                last_stages(4, hb, mf_load(us + i), mean + d, o, pitch);
            else
                last_stages(8, hb, mf_load(us + i), mean + d, o, pitch);
        }
    }
}

void KVCL_SIMD_FN(code_keys)(const kvcl_simd_codes *c, uint32_t block, uint32_t t, const float *us,
                             const float *mean, float *out, uint32_t pitch)
{
    CODE_EACH_BITS(keys, c->bits, c, block, t, us, mean, out, pitch);
}

/* ---- rotation and dot products ------------------------------------------------------------- */

/* (a, b) turned by (c, s) */
KVCL_INLINE void turn(v16 a, v16 b, const float *cs, uint32_t pitch, v16 *a_out, v16 *b_out)
{
    v16 c = v16_load(cs), s = v16_load(cs + pitch);
    *a_out = v16_fms(a, c, v16_mul(b, s));
    *b_out = v16_fma(b, c, v16_mul(a, s));
}

#define DOT(r, x, d) acc[r] = v16_fma(v16_set(q[(r)*q_pitch + (d)]), x, acc[r])

/* rows and adjacent are constants.  Pairs of halves: the first halves' products come on the way,
 * the second halves wait in place. */
KVCL_INLINE void turn_dot(uint32_t rows, bool adjacent, const kvcl_simd_turn *k, const float *q,
                          uint32_t q_pitch, float *out, size_t out_pitch)
{
    uint32_t half = k->n_rot / 2, pitch = k->pitch, d = adjacent ? k->n_rot : half;
    const float *cs = k->cs;
    float *a = k->k, *b = a + (size_t)(adjacent ? 1 : half) * pitch;
    v16 acc[CODE_TILE];
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = v16_set(0.0f);
    for (uint32_t i = 0; i < half; i++) {
        size_t at = (size_t)(adjacent ? 2 * i : i) * pitch;
        v16 ta, tb;
        turn(v16_load(a + at), v16_load(b + at), cs, k->cs_pitch, &ta, &tb);
        cs += 2 * k->cs_pitch;
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            DOT(r, ta, adjacent ? 2 * i : i);
        if (!adjacent)
            v16_store(b + at, tb);
        KVCL_UNROLL
        for (uint32_t r = 0; adjacent && r < rows; r++)
            DOT(r, tb, 2 * i + 1);
    }
    for (; d < k->dim; d++) {
        v16 x = v16_load(k->k + (size_t)d * pitch);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            DOT(r, x, d);
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        v16_store(out + r * out_pitch, v16_plus_zero(acc[r]));
}

KVCL_INLINE void turn_dot_rows(uint32_t rows, const kvcl_simd_turn *k, const float *q,
                               uint32_t q_pitch, float *out, size_t out_pitch)
{
    if (k->pairing == KVCL_ROPE_ADJACENT)
        turn_dot(rows, true, k, q, q_pitch, out, out_pitch);
    else
        turn_dot(rows, false, k, q, q_pitch, out, out_pitch);
}

void KVCL_SIMD_FN(key_turn_dot)(const kvcl_simd_turn *k, const float *q, uint32_t q_pitch,
                                uint32_t rows, float *out, size_t out_pitch)
{
    if (rows == 1)
        turn_dot_rows(1, k, q, q_pitch, out, out_pitch);
    else if (rows == 2)
        turn_dot_rows(2, k, q, q_pitch, out, out_pitch);
    else if (rows == 3)
        turn_dot_rows(3, k, q, q_pitch, out, out_pitch);
    else
        turn_dot_rows(4, k, q, q_pitch, out, out_pitch);
}

void KVCL_SIMD_FN(key_turn)(const kvcl_simd_turn *k, uint32_t n)
{
    bool adjacent = k->pairing == KVCL_ROPE_ADJACENT;
    uint32_t half = k->n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        float *a = k->k + (size_t)(adjacent ? 2 * i : i) * k->pitch;
        float *b = a + (size_t)(adjacent ? 1 : half) * k->pitch;
        const float *cs = k->cs + (size_t)2 * i * k->cs_pitch;
        for (uint32_t t = 0; t < n; t += 16) {
            v16 ta, tb;
            turn(v16_load(a + t), v16_load(b + t), cs + t, k->cs_pitch, &ta, &tb);
            v16_store(a + t, ta);
            v16_store(b + t, tb);
        }
    }
}

#define N_VEC(rows) (V16_REGS == 1 || (rows) == 1 ? 4u : (rows) <= 3 ? 2u : 1u)

KVCL_INLINE void dot_tile(uint32_t rows, const float *k, uint32_t dim, const float *q,
                          uint32_t q_pitch, float *out, size_t out_pitch)
{
    const uint32_t nv = N_VEC(rows);
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16 * nv) {
        v16 acc[CODE_TILE][4];
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++)
            acc[r][j] = v16_set(0.0f);
        for (uint32_t d = 0; d < dim; d++) {
            const float *x = k + (size_t)d * KVCL_TOKENS + t;
            KVCL_UNROLL
            for (uint32_t j = 0; j < nv; j++) {
                v16 kv = v16_load(x + 16 * j);
                KVCL_UNROLL
                for (uint32_t r = 0; r < rows; r++)
                    acc[r][j] = v16_fma(v16_set(q[r * q_pitch + d]), kv, acc[r][j]);
            }
        }
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++)
            v16_store(out + r * out_pitch + t + 16 * j, v16_plus_zero(acc[r][j]));
    }
}

void KVCL_SIMD_FN(key_dot)(const float *k, uint32_t dim, const float *q, uint32_t q_pitch,
                           uint32_t rows, float *out, size_t out_pitch)
{
    for (uint32_t r = 0; r < rows; r += CODE_TILE) {
        const float *qr = q + (size_t)r * q_pitch;
        float *o = out + r * out_pitch;
        if (rows - r >= 4)
            dot_tile(4, k, dim, qr, q_pitch, o, out_pitch);
        else if (rows - r == 3)
            dot_tile(3, k, dim, qr, q_pitch, o, out_pitch);
        else if (rows - r == 2)
            dot_tile(2, k, dim, qr, q_pitch, o, out_pitch);
        else
            dot_tile(1, k, dim, qr, q_pitch, o, out_pitch);
    }
}
