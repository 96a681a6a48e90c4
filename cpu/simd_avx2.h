/* simd_avx2.h - the vector layer of simd.h on AVX2, FMA and F16C. */
#ifndef KVCL_CPU_SIMD_AVX2_H
#define KVCL_CPU_SIMD_AVX2_H

#include "simd_x86.h"

#define KVCL_SIMD_FN(name) kvcl_avx2_##name
#define V16_REGS 2 /* machine registers in a v16 */

typedef struct v16 {
    __m256 a, b;
} v16;

#define V16_MAP2(f, x, y) ((v16){f((x).a, (y).a), f((x).b, (y).b)})

KVCL_INLINE v16 v16_set(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
KVCL_INLINE v16 v16_add(v16 a, v16 b) { return V16_MAP2(_mm256_add_ps, a, b); }
KVCL_INLINE v16 v16_sub(v16 a, v16 b) { return V16_MAP2(_mm256_sub_ps, a, b); }
KVCL_INLINE v16 v16_mul(v16 a, v16 b) { return V16_MAP2(_mm256_mul_ps, a, b); }
KVCL_INLINE v16 v16_max(v16 a, v16 b) { return V16_MAP2(_mm256_max_ps, a, b); }

KVCL_INLINE v16 v16_load(const void *p)
{
    const float *f = p;
    return (v16){_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
}

KVCL_INLINE void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.a);
    _mm256_storeu_ps(p + 8, a.b);
}

/* a * b + c */
KVCL_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)};
}

KVCL_INLINE v16 v16_load_f16(const void *p)
{
    const __m128i *h = p;
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}

KVCL_INLINE v16 v16_load_bf16(const void *p)
{
    const __m128i *h = p;
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(h));
    __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}

KVCL_INLINE v16 v16_load_i8(const int8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)p);
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}

KVCL_INLINE v16 v16_abs(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(sign, a.a), _mm256_andnot_ps(sign, a.b)};
}

KVCL_INLINE __m256 v16_half_plus_zero(__m256 a)
{
    __m256i u = _mm256_castps_si256(a), sign = _mm256_set1_epi32((int)0x80000000u);
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpeq_epi32(u, sign), u));
}

/* -0 becomes +0 */
KVCL_INLINE v16 v16_plus_zero(v16 a)
{
    return (v16){v16_half_plus_zero(a.a), v16_half_plus_zero(a.b)};
}

KVCL_INLINE v16 v16_negate(v16 a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_xor_ps(a.a, sign), _mm256_xor_ps(a.b, sign)};
}

/* kvcl_recip's seed */
KVCL_INLINE v16 v16_recip_seed(v16 x)
{
    __m256i seed = _mm256_set1_epi32(0x7ef311c3);
    return (v16){_mm256_castsi256_ps(_mm256_sub_epi32(seed, _mm256_castps_si256(x.a))),
                 _mm256_castsi256_ps(_mm256_sub_epi32(seed, _mm256_castps_si256(x.b)))};
}

KVCL_INLINE void v16_store_f16(void *p, v16 a)
{
    __m128i *h = p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(a.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(a.b, _MM_FROUND_TO_NEAREST_INT));
}

/* x < y ? a : b */
KVCL_INLINE v16 v16_select_lt(v16 x, v16 y, v16 a, v16 b)
{
    return (v16){_mm256_blendv_ps(b.a, a.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(b.b, a.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}

KVCL_INLINE __m256 v16_half_scale2(__m256 p, __m256 t)
{
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(KVCL_ROUND_BITS));
    __m256i u = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(n, 23));
    return _mm256_castsi256_ps(u);
}

/* p * 2^(integer that t, a sum with KVCL_ROUND, holds in its low bits) */
KVCL_INLINE v16 v16_scale2(v16 p, v16 t)
{
    return (v16){v16_half_scale2(p.a, t.a), v16_half_scale2(p.b, t.b)};
}

/* Halving tree of the lanes: steps 8, 4, 2, 1. */
KVCL_INLINE float v16_tree(v16 a) { return v8_tree(_mm256_add_ps(a.a, a.b)); }

KVCL_INLINE float v16_max_lane(v16 a)
{
    __m256 h = _mm256_max_ps(a.a, a.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

/* The low bytes of the integers that fma(x, inv, KVCL_ROUND) holds. */
KVCL_INLINE void v16_store_codes(int8_t *p, v16 t)
{
    __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0,
                                    4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i a = _mm256_shuffle_epi8(_mm256_castps_si256(t.a), pick);
    __m256i b = _mm256_shuffle_epi8(_mm256_castps_si256(t.b), pick);
    __m128i a4 = _mm_unpacklo_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i b4 = _mm_unpacklo_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    _mm_storeu_si128((__m128i *)p, _mm_unpacklo_epi64(a4, b4));
}

KVCL_INLINE void v16_transpose8(__m256 r[8])
{
    __m256 t[8], u[8];
    KVCL_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    KVCL_UNROLL
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    KVCL_UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

/* Sixteen rows of sixteen, turned, as four squares of eight. */
KVCL_INLINE void v16_transpose(v16 r[16])
{
    __m256 q[4][8];
    KVCL_UNROLL
    for (int i = 0; i < 8; i++) {
        q[0][i] = r[i].a;
        q[1][i] = r[i].b;
        q[2][i] = r[i + 8].a;
        q[3][i] = r[i + 8].b;
    }
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        v16_transpose8(q[i]);
    KVCL_UNROLL
    for (int i = 0; i < 8; i++) {
        r[i] = (v16){q[0][i], q[2][i]};
        r[i + 8] = (v16){q[1][i], q[3][i]};
    }
}

KVCL_INLINE __m256 v16_half_hadamard(__m256 x)
{
    __m256 t = _mm256_permute_ps(x, 0xb1);
    x = _mm256_fmsubadd_ps(t, _mm256_set1_ps(1.0f), x);
    t = _mm256_permute_ps(x, 0x4e);
    x = _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1), t);
    t = _mm256_permute2f128_ps(x, x, 0x01);
    return _mm256_fmadd_ps(x, _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1), t);
}

/* Stages 1, 2, 4, 8 of a Walsh-Hadamard transform: the other lane plus or minus this one. */
KVCL_INLINE v16 v16_hadamard(v16 x)
{
    __m256 a = v16_half_hadamard(x.a), b = v16_half_hadamard(x.b);
    return (v16){_mm256_add_ps(a, b), _mm256_sub_ps(a, b)};
}

/* ---- quantised blocks: signed codes; their sums start from nothing. ---- */

KVCL_INLINE c32 c32_q8_0(const unsigned char *b) { return c32_load(b + 2); }

KVCL_INLINE c32 c32_q4_0(const unsigned char *b)
{
    return _mm256_sub_epi8(c32_nibbles(b + 2), _mm256_set1_epi8(8));
}

KVCL_INLINE c32 c32_q5_0(const unsigned char *b)
{
    int bits;
    memcpy(&bits, b + 2, sizeof bits);
    /* byte e gets the byte of qh that holds bit e, then that bit alone */
    __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2,
                                      2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    __m256i mask = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i h = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), mask);
    __m256i clear = _mm256_cmpeq_epi8(h, _mm256_setzero_si256());
    /* n - 16: the set bit adds 16 */
    return _mm256_sub_epi8(c32_nibbles(b + 6), _mm256_and_si256(clear, _mm256_set1_epi8(16)));
}

/* The codes as signed bytes. */
KVCL_INLINE void c32_store_signed(kvcl_type type, int8_t *p, c32 q)
{
    KVCL_UNUSED(type);
    _mm256_storeu_si256((__m256i *)p, q);
}

KVCL_INLINE c32 c32_start(const int32_t *p)
{
    KVCL_UNUSED(p);
    return _mm256_setzero_si256();
}

KVCL_INLINE void c32_store_starts(kvcl_type type, int32_t *p, const int8_t *codes)
{
    KVCL_UNUSED(type), KVCL_UNUSED(p), KVCL_UNUSED(codes);
}

/* The sums of each four products, as floats.  |w| times x with w's sign: 2 * 128 * 127 fits the
 * 16-bit pairs, so nothing saturates. */
KVCL_INLINE v8 v8_dot4(c32 w, c32 x, c32 start)
{
    KVCL_UNUSED(start);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* ---- coded pages (simd_code.h): machine registers of M_LANES dwords, four codes each ---- */

#define M_LANES 8
#define MB_BIAS 0 /* of levels */

typedef __m256i mb; /* bytes */
typedef __m256i mh; /* 16-bit integers, two per lane */
typedef __m256 mf;
typedef struct mlev { /* levels of even and odd bytes, ready for products */
    __m256i even, odd;
} mlev;
typedef __m256i mdot;

KVCL_INLINE mb mb_load(const void *p) { return _mm256_loadu_si256(p); }
KVCL_INLINE void mb_store(void *p, mb a) { _mm256_storeu_si256(p, a); }
KVCL_INLINE mb mb_table(const void *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}
/* (x shifted left, or right where n < 0) & mask, byte by byte; no bits of a neighbour are left in
 * mask */
KVCL_INLINE mb mb_bits(mb x, int n, int mask)
{
    x = n > 0 ? _mm256_slli_epi32(x, n) : n < 0 ? _mm256_srli_epi32(x, -n) : x;
    return _mm256_and_si256(x, _mm256_set1_epi8((char)mask));
}
KVCL_INLINE mb mb_or(mb a, mb b) { return _mm256_or_si256(a, b); }
/* Sixteen bytes by index. */
KVCL_INLINE mb mb_pick(mb table, mb index) { return _mm256_shuffle_epi8(table, index); }
/* Signed codes as levels. */
KVCL_INLINE mb mb_level8(mb x) { return x; }

KVCL_INLINE mlev mlev_of(mb x)
{
    return (mlev){_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
}
KVCL_INLINE mdot mdot_zero(void) { return _mm256_setzero_si256(); }
/* Adds four products per lane; q: the words of v16_store_q15. */
KVCL_INLINE mdot mdot_add(mdot acc, mlev x, const uint32_t *q)
{
    __m256i a = _mm256_madd_epi16(x.even, _mm256_set1_epi32((int)q[0]));
    __m256i b = _mm256_madd_epi16(x.odd, _mm256_set1_epi32((int)q[1]));
    return _mm256_add_epi32(acc, _mm256_add_epi32(a, b));
}
/* The sums; q_sum: of all Q. */
KVCL_INLINE mf mdot_float(mdot acc, int32_t q_sum)
{
    KVCL_UNUSED(q_sum);
    return _mm256_cvtepi32_ps(acc);
}

/* a + b and a - b of each pair of levels. */
KVCL_INLINE mh mb_pair_sum(mb x) { return _mm256_maddubs_epi16(_mm256_set1_epi8(1), x); }
KVCL_INLINE mh mb_pair_diff(mb x)
{
    /* unsigned: a bias of both cancels */
    x = _mm256_xor_si256(x, _mm256_set1_epi8((char)0x80));
    return _mm256_maddubs_epi16(x, _mm256_set1_epi16((short)0xff01));
}
KVCL_INLINE mh mh_load(const int16_t *p) { return _mm256_loadu_si256((const void *)p); }
KVCL_INLINE void mh_store(int16_t *p, mh a) { _mm256_storeu_si256((void *)p, a); }
KVCL_INLINE mh mh_add(mh a, mh b) { return _mm256_add_epi16(a, b); }
KVCL_INLINE mh mh_sub(mh a, mh b) { return _mm256_sub_epi16(a, b); }
KVCL_INLINE mh mh_minus(mh a, int n) { return _mm256_sub_epi16(a, _mm256_set1_epi16((short)n)); }
/* a + b and a - b of the two halves of each lane. */
KVCL_INLINE mf mh_lane_sum(mh x)
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(x, _mm256_set1_epi16(1)));
}
KVCL_INLINE mf mh_lane_diff(mh x)
{
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(x, _mm256_set1_epi32((int)0xffff0001u)));
}

KVCL_INLINE mf mf_set(float x) { return _mm256_set1_ps(x); }
KVCL_INLINE mf mf_load(const float *p) { return _mm256_loadu_ps(p); }
KVCL_INLINE void mf_store(float *p, mf a) { _mm256_storeu_ps(p, a); }
KVCL_INLINE mf mf_mul(mf a, mf b) { return _mm256_mul_ps(a, b); }
KVCL_INLINE mf mf_fma(mf a, mf b, mf c) { return _mm256_fmadd_ps(a, b, c); }
/* a * b - c */
KVCL_INLINE mf mf_fms(mf a, mf b, mf c) { return _mm256_fmsub_ps(a, b, c); }

/* a * b - c */
KVCL_INLINE v16 v16_fms(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmsub_ps(a.a, b.a, c.a), _mm256_fmsub_ps(a.b, b.b, c.b)};
}

/* The integers Q that x * inv + KVCL_ROUND holds, as words for mdot_add: of four values, those
 * of even index, then those of odd index.  Returns sum. */
typedef int msum;
KVCL_INLINE msum msum_zero(void) { return 0; }
KVCL_INLINE int32_t msum_total(msum a) { return a; }
KVCL_INLINE msum v16_store_q15(uint32_t *out, v16 t, msum sum)
{
    /* the low 16 bits of ROUND_BITS + Q are those of Q; lanes 0 2 of four, then 1 3 */
    __m256i order = _mm256_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1,
                                     8, 9, 4, 5, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i a = _mm256_shuffle_epi8(_mm256_castps_si256(t.a), order);
    __m256i b = _mm256_shuffle_epi8(_mm256_castps_si256(t.b), order);
    __m128i *o = (__m128i *)(void *)out;
    _mm_storeu_si128(o,
                     _mm_unpacklo_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
    _mm_storeu_si128(o + 1,
                     _mm_unpacklo_epi64(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
    return sum;
}

/* ---- products of int8 weights with numbers of +-16256 in lanes (simd_spectral.h) ---- */

#define MT_LO 256 /* of four numbers, bytes from the first two to the others */
typedef int16_t mt_weight;
typedef mdot macc;

/* Four rows x [4][64] to lanes of two numbers. */
KVCL_INLINE void mt_pack(const int16_t *x, unsigned char *out)
{
    for (int i = 0; i < 64; i += 16) {
        __m256i r[4];
        KVCL_UNROLL
        for (int k = 0; k < 4; k++)
            r[k] = _mm256_loadu_si256((const void *)(x + 64 * k + i));
        mb_store(out + 4 * i, _mm256_unpacklo_epi16(r[0], r[1]));
        mb_store(out + 4 * i + 32, _mm256_unpackhi_epi16(r[0], r[1]));
        mb_store(out + MT_LO + 4 * i, _mm256_unpacklo_epi16(r[2], r[3]));
        mb_store(out + MT_LO + 4 * i + 32, _mm256_unpackhi_epi16(r[2], r[3]));
    }
}
typedef struct mt {
    __m256i a, b;
} mt;
KVCL_INLINE mt mt_load(const unsigned char *x)
{
    mt v = {mb_load(x), mb_load(x + MT_LO)};
    /* used several times: kept in registers, since loads are what the sums wait for */
    __asm__("" : "+x"(v.a), "+x"(v.b));
    return v;
}
KVCL_INLINE macc macc_zero(void) { return mdot_zero(); }
/* Adds the four products of each lane; w: four weights. */
KVCL_INLINE macc mt_add(macc acc, mt x, const mt_weight *w)
{
    /* broadcasts from memory: through general registers they cost more than the products */
    __m256i a = _mm256_castps_si256(_mm256_broadcast_ss((const float *)(const void *)w));
    __m256i b = _mm256_castps_si256(_mm256_broadcast_ss((const float *)(const void *)(w + 2)));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x.a, a));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(x.b, b));
}
/* The sums; w_sum: of the weights. */
KVCL_INLINE mf mt_float(macc acc, int32_t w_sum)
{
    KVCL_UNUSED(w_sum);
    return _mm256_cvtepi32_ps(acc);
}

/* Sums of products of 16-bit integers, two a lane. */
typedef __m256i mq;
KVCL_INLINE mq mq_zero(void) { return _mm256_setzero_si256(); }
/* x: the lanes' pairs; pair: the same for all. */
KVCL_INLINE mq mq_add(mq acc, const void *x, uint32_t pair)
{
    return _mm256_add_epi32(acc, _mm256_madd_epi16(mb_load(x), _mm256_set1_epi32((int)pair)));
}
KVCL_INLINE mf mq_float(mq acc) { return _mm256_cvtepi32_ps(acc); }
KVCL_INLINE mf mf_load_i16(const int16_t *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

#endif
