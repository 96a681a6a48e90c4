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

#endif
