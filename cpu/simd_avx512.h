/* simd_avx512.h - the vector layer of simd.h on AVX-512 F, BW, DQ, VL, VNNI. */
#ifndef KVCL_CPU_SIMD_AVX512_H
#define KVCL_CPU_SIMD_AVX512_H

#include "simd_x86.h"

#define KVCL_SIMD_FN(name) kvcl_avx512_##name
#define V16_REGS 1 /* machine registers in a v16 */

typedef __m512 v16;

KVCL_INLINE v16 v16_set(float x) { return _mm512_set1_ps(x); }
KVCL_INLINE v16 v16_load(const void *p) { return _mm512_loadu_ps(p); }
KVCL_INLINE void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
KVCL_INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
KVCL_INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
KVCL_INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
KVCL_INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
/* a * b + c */
KVCL_INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }

KVCL_INLINE v16 v16_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

KVCL_INLINE v16 v16_load_bf16(const void *p)
{
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}

KVCL_INLINE v16 v16_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

KVCL_INLINE v16 v16_abs(v16 a) { return _mm512_abs_ps(a); }

/* -0 becomes +0 */
KVCL_INLINE v16 v16_plus_zero(v16 a)
{
    __m512i u = _mm512_castps_si512(a);
    __mmask16 keep = _mm512_cmpneq_epi32_mask(u, _mm512_set1_epi32((int)0x80000000u));
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(keep, u));
}

KVCL_INLINE v16 v16_negate(v16 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }

/* kvcl_recip's seed */
KVCL_INLINE v16 v16_recip_seed(v16 x)
{
    __m512i u = _mm512_sub_epi32(_mm512_set1_epi32(0x7ef311c3), _mm512_castps_si512(x));
    return _mm512_castsi512_ps(u);
}

KVCL_INLINE void v16_store_f16(void *p, v16 a)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* x < y ? a : b */
KVCL_INLINE v16 v16_select_lt(v16 x, v16 y, v16 a, v16 b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), b, a);
}

/* p * 2^(integer that t, a sum with KVCL_ROUND, holds in its low bits) */
KVCL_INLINE v16 v16_scale2(v16 p, v16 t)
{
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(KVCL_ROUND_BITS));
    __m512i u = _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(n, 23));
    return _mm512_castsi512_ps(u);
}

/* Halving tree of the lanes: steps 8, 4, 2, 1. */
KVCL_INLINE float v16_tree(v16 a)
{
    return v8_tree(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}

KVCL_INLINE float v16_max_lane(v16 a) { return _mm512_reduce_max_ps(a); }

/* The low bytes of the integers that fma(x, inv, KVCL_ROUND) holds. */
KVCL_INLINE void v16_store_codes(int8_t *p, v16 t)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_castps_si512(t)));
}

/* Sixteen rows of sixteen, turned. */
KVCL_INLINE void v16_transpose(v16 r[16])
{
    __m512 t[16], u[16];
    KVCL_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    KVCL_UNROLL
    for (int i = 0; i < 16; i += 4) {
        u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    KVCL_UNROLL
    for (int i = 0; i < 4; i++) {
        __m512 a = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
        __m512 b = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
        __m512 c = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
        __m512 d = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

/* Stages 1, 2, 4, 8 of a Walsh-Hadamard transform: the other lane plus or minus this one. */
KVCL_INLINE v16 v16_hadamard(v16 x)
{
    __m512 one = _mm512_set1_ps(1.0f), t;
    t = _mm512_permute_ps(x, 0xb1);
    x = _mm512_fmsubadd_ps(t, one, x);
    t = _mm512_permute_ps(x, 0x4e);
    x = _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xcccc, one, _mm512_set1_ps(-1.0f)), t);
    t = _mm512_shuffle_f32x4(x, x, 0xb1);
    x = _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xf0f0, one, _mm512_set1_ps(-1.0f)), t);
    t = _mm512_shuffle_f32x4(x, x, 0x4e);
    return _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xff00, one, _mm512_set1_ps(-1.0f)), t);
}

/* ---- quantised blocks: VNNI multiplies unsigned by signed bytes, so codes carry a bias; sums
 * start from minus the bias times the sum of the group's activations.  256 bits at a time: a block
 * is 32 bytes that no 64-byte load finds together. ---- */

KVCL_INLINE c32 c32_q8_0(const unsigned char *b)
{
    return _mm256_xor_si256(c32_load(b + 2), _mm256_set1_epi8((char)0x80));
}

KVCL_INLINE c32 c32_q4_0(const unsigned char *b) { return c32_nibbles(b + 2); }

KVCL_INLINE c32 c32_q5_0(const unsigned char *b)
{
    uint32_t high;
    memcpy(&high, b + 2, sizeof high);
    c32 q = c32_nibbles(b + 6);
    return _mm256_mask_add_epi8(q, high, q, _mm256_set1_epi8(16));
}

KVCL_INLINE int c32_bias(kvcl_type type)
{
    return type == KVCL_Q8_0 ? 128 : type == KVCL_Q5_0 ? 16 : 8;
}

/* The codes as signed bytes. */
KVCL_INLINE void c32_store_signed(kvcl_type type, int8_t *p, c32 q)
{
    c32 bias = _mm256_set1_epi8((char)c32_bias(type));
    _mm256_storeu_si256((__m256i *)p, _mm256_sub_epi8(q, bias));
}

/* What the sums of a block's eight groups start from. */
KVCL_INLINE c32 c32_start(const int32_t *p) { return c32_load(p); }

/* The starts of 32 codes against weights of a type: minus its bias times the groups' sums. */
KVCL_INLINE void c32_store_starts(kvcl_type type, int32_t *p, const int8_t *codes)
{
    __m256i zero = _mm256_setzero_si256();
    __m256i sums = _mm256_dpbusd_epi32(zero, _mm256_set1_epi8(1), c32_load(codes));
    _mm256_storeu_si256((__m256i *)p, _mm256_mullo_epi32(sums, _mm256_set1_epi32(-c32_bias(type))));
}

/* The sums of each four products, as floats. */
KVCL_INLINE v8 v8_dot4(c32 w, c32 x, c32 start)
{
    return _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(start, w, x));
}

/* ---- coded pages (simd_code.h): machine registers of M_LANES dwords, four codes each ---- */

#define M_LANES 16
#define MB_BIAS 128 /* of levels: products take unsigned by signed bytes */

typedef __m512i mb; /* bytes */
typedef __m512i mh; /* 16-bit integers, two per lane */
typedef __m512i mi; /* 32-bit integers */
typedef __m512 mf;
typedef __m512i mlev; /* bytes, ready for products */
typedef struct mdot {
    mi hi, lo;
} mdot;

KVCL_INLINE mb mb_load(const void *p) { return _mm512_loadu_si512(p); }
KVCL_INLINE void mb_store(void *p, mb a) { _mm512_storeu_si512(p, a); }
KVCL_INLINE mb mb_table(const void *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}
/* (x shifted left, or right where n < 0) & mask, byte by byte; no bits of a neighbour are left in
 * mask */
KVCL_INLINE mb mb_bits(mb x, int n, int mask)
{
    x = n > 0 ? _mm512_slli_epi32(x, (unsigned)n) : n < 0 ? _mm512_srli_epi32(x, (unsigned)-n) : x;
    return _mm512_and_si512(x, _mm512_set1_epi8((char)mask));
}
KVCL_INLINE mb mb_or(mb a, mb b) { return _mm512_or_si512(a, b); }
/* Sixteen bytes by index. */
KVCL_INLINE mb mb_pick(mb table, mb index) { return _mm512_shuffle_epi8(table, index); }
/* Signed codes as levels. */
KVCL_INLINE mb mb_level8(mb x) { return _mm512_xor_si512(x, _mm512_set1_epi8((char)0x80)); }

KVCL_INLINE mlev mlev_of(mb x) { return x; }
KVCL_INLINE mdot mdot_zero(void) { return (mdot){_mm512_setzero_si512(), _mm512_setzero_si512()}; }
/* Adds four products per lane; q: the words of v16_store_q15. */
KVCL_INLINE mdot mdot_add(mdot acc, mlev x, const uint32_t *q)
{
    return (mdot){_mm512_dpbusd_epi32(acc.hi, x, _mm512_set1_epi32((int)q[0])),
                  _mm512_dpbusd_epi32(acc.lo, x, _mm512_set1_epi32((int)q[1]))};
}
/* The sums; q_sum: of all Q. */
KVCL_INLINE mf mdot_float(mdot acc, int32_t q_sum)
{
    __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(acc.hi, 7), acc.lo);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(MB_BIAS * q_sum)));
}

/* a + b and a - b of each pair of levels; sums carry 2 MB_BIAS. */
KVCL_INLINE mh mb_pair_sum(mb x) { return _mm512_maddubs_epi16(x, _mm512_set1_epi8(1)); }
KVCL_INLINE mh mb_pair_diff(mb x)
{
    return _mm512_maddubs_epi16(x, _mm512_set1_epi16((short)0xff01));
}
KVCL_INLINE mh mh_load(const int16_t *p) { return _mm512_loadu_si512(p); }
KVCL_INLINE void mh_store(int16_t *p, mh a) { _mm512_storeu_si512(p, a); }
KVCL_INLINE mh mh_add(mh a, mh b) { return _mm512_add_epi16(a, b); }
KVCL_INLINE mh mh_sub(mh a, mh b) { return _mm512_sub_epi16(a, b); }
KVCL_INLINE mh mh_minus(mh a, int n) { return _mm512_sub_epi16(a, _mm512_set1_epi16((short)n)); }
/* a + b and a - b of the two halves of each lane. */
KVCL_INLINE mf mh_lane_sum(mh x)
{
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(x, _mm512_set1_epi16(1)));
}
KVCL_INLINE mf mh_lane_diff(mh x)
{
    return _mm512_cvtepi32_ps(_mm512_madd_epi16(x, _mm512_set1_epi32((int)0xffff0001u)));
}

KVCL_INLINE mf mf_set(float x) { return _mm512_set1_ps(x); }
KVCL_INLINE mf mf_load(const float *p) { return _mm512_loadu_ps(p); }
KVCL_INLINE void mf_store(float *p, mf a) { _mm512_storeu_ps(p, a); }
KVCL_INLINE mf mf_mul(mf a, mf b) { return _mm512_mul_ps(a, b); }
KVCL_INLINE mf mf_fma(mf a, mf b, mf c) { return _mm512_fmadd_ps(a, b, c); }
/* a * b - c */
KVCL_INLINE mf mf_fms(mf a, mf b, mf c) { return _mm512_fmsub_ps(a, b, c); }

/* a * b - c */
KVCL_INLINE v16 v16_fms(v16 a, v16 b, v16 c) { return _mm512_fmsub_ps(a, b, c); }

/* The integers Q that x * inv + KVCL_ROUND holds, as words for mdot_add: four values' high
 * halves, then their low halves, and so on.  Returns sum + Q. */
typedef __m512i msum;
KVCL_INLINE msum msum_zero(void) { return _mm512_setzero_si512(); }
KVCL_INLINE int32_t msum_total(msum a) { return _mm512_reduce_add_epi32(a); }
KVCL_INLINE msum v16_store_q15(uint32_t *out, v16 t, msum sum)
{
    __m512i q = _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(KVCL_ROUND_BITS));
    __m512i hi = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(64)), 7);
    __m128i h = _mm512_cvtepi32_epi8(hi);
    __m128i l = _mm512_cvtepi32_epi8(_mm512_sub_epi32(q, _mm512_slli_epi32(hi, 7)));
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi32(h, l));
    _mm_storeu_si128((__m128i *)(out + 4), _mm_unpackhi_epi32(h, l));
    return _mm512_add_epi32(sum, q);
}

/* ---- products of int8 weights with numbers of +-16256 in lanes (simd_spectral.h) ---- */

#define MT_LO 256 /* of four numbers, bytes from the first two to the others */
typedef int16_t mt_weight;
typedef mi macc;

/* Four rows x [4][64] to lanes of two numbers.  (Bytes would need as many products: two halves of
 * each number.) */
KVCL_INLINE void mt_pack(const int16_t *x, unsigned char *out)
{
    for (int i = 0; i < 64; i += 32) {
        __m512i r[4];
        KVCL_UNROLL
        for (int k = 0; k < 4; k++)
            r[k] = _mm512_loadu_si512(x + 64 * k + i);
        mb_store(out + 4 * i, _mm512_unpacklo_epi16(r[0], r[1]));
        mb_store(out + 4 * i + 64, _mm512_unpackhi_epi16(r[0], r[1]));
        mb_store(out + MT_LO + 4 * i, _mm512_unpacklo_epi16(r[2], r[3]));
        mb_store(out + MT_LO + 4 * i + 64, _mm512_unpackhi_epi16(r[2], r[3]));
    }
}
typedef struct mt {
    mb a, b;
} mt;
KVCL_INLINE mt mt_load(const unsigned char *x)
{
    mt v = {mb_load(x), mb_load(x + MT_LO)};
    /* used several times: kept in registers */
    __asm__("" : "+v"(v.a), "+v"(v.b));
    return v;
}
KVCL_INLINE macc macc_zero(void) { return _mm512_setzero_si512(); }
/* acc += the two products of each lane with the weights w.  (Of the intrinsic compilers make moves
 * between registers and of the weights two more instructions.) */
KVCL_INLINE macc mt_add_pair(macc acc, mb x, const mt_weight *w)
{
    __asm__("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(x), "m"(*(const mt_weight(*)[2])w));
    return acc;
}
/* Adds the four products of each lane; w: four weights. */
KVCL_INLINE macc mt_add(macc acc, mt x, const mt_weight *w)
{
    return mt_add_pair(mt_add_pair(acc, x.a, w), x.b, w + 2);
}
/* The sums; w_sum: of the weights. */
KVCL_INLINE mf mt_float(macc acc, int32_t w_sum)
{
    KVCL_UNUSED(w_sum);
    return _mm512_cvtepi32_ps(acc);
}

/* Sums of products of 16-bit integers, two a lane. */
typedef __m512i mq;
KVCL_INLINE mq mq_zero(void) { return _mm512_setzero_si512(); }
/* x: the lanes' pairs; pair: the same for all. */
KVCL_INLINE mq mq_add(mq acc, const void *x, uint32_t pair)
{
    return _mm512_dpwssd_epi32(acc, mb_load(x), _mm512_set1_epi32((int)pair));
}
KVCL_INLINE mf mq_float(mq acc) { return _mm512_cvtepi32_ps(acc); }
KVCL_INLINE mf mf_load_i16(const int16_t *p)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(x));
}

#endif
