/* simd_neon.h - the vector layer of simd.h on AArch64's NEON. */
#ifndef KVCL_CPU_SIMD_NEON_H
#define KVCL_CPU_SIMD_NEON_H

#include <arm_neon.h>

#define KVCL_SIMD_FN(name) kvcl_neon_##name
#define V16_REGS 4 /* machine registers in a v16 */

typedef float32x4x4_t v16;
typedef float32x4x2_t v8;
typedef int8x16x2_t c32;

#define V16_EACH(out, expr)                                    \
    v16 out;                                                   \
    KVCL_UNROLL for (int i = 0; i < 4; i++) out.val[i] = expr; \
    return out

KVCL_INLINE v16 v16_set(float x) { V16_EACH(o, vdupq_n_f32(x)); }
KVCL_INLINE v16 v16_add(v16 a, v16 b) { V16_EACH(o, vaddq_f32(a.val[i], b.val[i])); }
KVCL_INLINE v16 v16_sub(v16 a, v16 b) { V16_EACH(o, vsubq_f32(a.val[i], b.val[i])); }
KVCL_INLINE v16 v16_mul(v16 a, v16 b) { V16_EACH(o, vmulq_f32(a.val[i], b.val[i])); }
KVCL_INLINE v16 v16_max(v16 a, v16 b) { V16_EACH(o, vmaxq_f32(a.val[i], b.val[i])); }
KVCL_INLINE v16 v16_abs(v16 a) { V16_EACH(o, vabsq_f32(a.val[i])); }
/* a * b + c */
KVCL_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    V16_EACH(o, vfmaq_f32(c.val[i], a.val[i], b.val[i]));
}

/* Loads go through bytes: the pointers need no alignment. */
KVCL_INLINE uint8x16_t v16_bytes(const void *p, int i)
{
    return vld1q_u8((const uint8_t *)p + 16 * i);
}

KVCL_INLINE v16 v16_load(const void *p) { V16_EACH(o, vreinterpretq_f32_u8(v16_bytes(p, i))); }

KVCL_INLINE void v16_store(float *p, v16 a)
{
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, a.val[i]);
}

KVCL_INLINE v16 v16_load_f16(const void *p)
{
    float16x8_t a = vreinterpretq_f16_u8(v16_bytes(p, 0));
    float16x8_t b = vreinterpretq_f16_u8(v16_bytes(p, 1));
    return (v16){{vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a),
                  vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)}};
}

KVCL_INLINE v16 v16_load_bf16(const void *p)
{
    uint16x8_t a = vreinterpretq_u16_u8(v16_bytes(p, 0)), b = vreinterpretq_u16_u8(v16_bytes(p, 1));
    return (v16){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(a), 16)),
                  vreinterpretq_f32_u32(vshll_high_n_u16(a, 16)),
                  vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(b), 16)),
                  vreinterpretq_f32_u32(vshll_high_n_u16(b, 16))}};
}

KVCL_INLINE v16 v16_load_i8(const int8_t *p)
{
    int8x16_t q = vld1q_s8(p);
    int16x8_t a = vmovl_s8(vget_low_s8(q)), b = vmovl_high_s8(q);
    return (v16){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(a))), vcvtq_f32_s32(vmovl_high_s16(a)),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(b))), vcvtq_f32_s32(vmovl_high_s16(b))}};
}

KVCL_INLINE float32x4_t v16_quarter_plus_zero(float32x4_t a)
{
    uint32x4_t u = vreinterpretq_u32_f32(a), zero = vceqq_u32(u, vdupq_n_u32(0x80000000u));
    return vreinterpretq_f32_u32(vbicq_u32(u, zero));
}

/* -0 becomes +0 */
KVCL_INLINE v16 v16_plus_zero(v16 a) { V16_EACH(o, v16_quarter_plus_zero(a.val[i])); }

KVCL_INLINE v16 v16_negate(v16 a) { V16_EACH(o, vnegq_f32(a.val[i])); }

KVCL_INLINE float32x4_t v16_quarter_seed(float32x4_t x)
{
    int32x4_t seed = vdupq_n_s32(0x7ef311c3);
    return vreinterpretq_f32_s32(vsubq_s32(seed, vreinterpretq_s32_f32(x)));
}

/* kvcl_recip's seed */
KVCL_INLINE v16 v16_recip_seed(v16 x) { V16_EACH(o, v16_quarter_seed(x.val[i])); }

KVCL_INLINE void v16_store_f16(void *p, v16 a)
{
    float16x8_t lo = vcvt_high_f16_f32(vcvt_f16_f32(a.val[0]), a.val[1]);
    float16x8_t hi = vcvt_high_f16_f32(vcvt_f16_f32(a.val[2]), a.val[3]);
    vst1q_u8(p, vreinterpretq_u8_f16(lo));
    vst1q_u8((uint8_t *)p + 16, vreinterpretq_u8_f16(hi));
}

/* x < y ? a : b */
KVCL_INLINE v16 v16_select_lt(v16 x, v16 y, v16 a, v16 b)
{
    V16_EACH(o, vbslq_f32(vcltq_f32(x.val[i], y.val[i]), a.val[i], b.val[i]));
}

KVCL_INLINE float32x4_t v16_quarter_scale2(float32x4_t p, float32x4_t t)
{
    int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(t), vdupq_n_s32(KVCL_ROUND_BITS));
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(n, 23)));
}

/* p * 2^(integer that t, a sum with KVCL_ROUND, holds in its low bits) */
KVCL_INLINE v16 v16_scale2(v16 p, v16 t) { V16_EACH(o, v16_quarter_scale2(p.val[i], t.val[i])); }

/* Halving tree of the lanes: steps 8, 4, 2, 1. */
KVCL_INLINE float v16_tree(v16 a)
{
    float32x4_t q = vaddq_f32(vaddq_f32(a.val[0], a.val[2]), vaddq_f32(a.val[1], a.val[3]));
    float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

KVCL_INLINE float v16_max_lane(v16 a)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.val[0], a.val[1]), vmaxq_f32(a.val[2], a.val[3])));
}

/* The low bytes of the integers that fma(x, inv, KVCL_ROUND) holds. */
KVCL_INLINE void v16_store_codes(int8_t *p, v16 t)
{
    int8x16x4_t bytes;
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        bytes.val[i] = vreinterpretq_s8_f32(t.val[i]);
    int8x16_t even = vuzp1q_s8(bytes.val[0], bytes.val[1]);
    int8x16_t odd = vuzp1q_s8(bytes.val[2], bytes.val[3]);
    vst1q_s8(p, vuzp1q_s8(even, odd));
}

KVCL_INLINE void v16_transpose4(float32x4_t r[4])
{
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1]));
    float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3]));
    float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
    r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

/* Sixteen rows of sixteen, turned, as squares of four. */
KVCL_INLINE void v16_transpose(v16 r[16])
{
    v16 o[16];
    KVCL_UNROLL
    for (int i = 0; i < 4; i++) {
        KVCL_UNROLL
        for (int j = 0; j < 4; j++) {
            float32x4_t q[4] = {r[4 * i].val[j], r[4 * i + 1].val[j], r[4 * i + 2].val[j],
                                r[4 * i + 3].val[j]};
            v16_transpose4(q);
            KVCL_UNROLL
            for (int k = 0; k < 4; k++)
                o[4 * j + k].val[i] = q[k];
        }
    }
    KVCL_UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = o[i];
}

KVCL_INLINE float32x4_t v16_quarter_hadamard(float32x4_t x)
{
    static const float first[4] = {1, -1, 1, -1}, second[4] = {1, 1, -1, -1};
    x = vfmaq_f32(vrev64q_f32(x), x, vld1q_f32(first));
    return vfmaq_f32(vextq_f32(x, x, 2), x, vld1q_f32(second));
}

/* Stages 1, 2, 4, 8 of a Walsh-Hadamard transform: the other lane plus or minus this one. */
KVCL_INLINE v16 v16_hadamard(v16 x)
{
    float32x4_t q[4], a, b, c, d;
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        q[i] = v16_quarter_hadamard(x.val[i]);
    a = vaddq_f32(q[0], q[1]);
    b = vsubq_f32(q[0], q[1]);
    c = vaddq_f32(q[2], q[3]);
    d = vsubq_f32(q[2], q[3]);
    return (v16){{vaddq_f32(a, c), vaddq_f32(b, d), vsubq_f32(a, c), vsubq_f32(b, d)}};
}

/* ---- quantised blocks: signed codes; their sums start from nothing. ---- */

KVCL_INLINE v8 v8_zero(void) { return (v8){{vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)}}; }
KVCL_INLINE v8 v8_load(const float *p) { return (v8){{vld1q_f32(p), vld1q_f32(p + 4)}}; }

KVCL_INLINE v8 v8_add(v8 a, v8 b)
{
    return (v8){{vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1])}};
}

KVCL_INLINE void v8_store(float *p, v8 a)
{
    vst1q_f32(p, a.val[0]);
    vst1q_f32(p + 4, a.val[1]);
}

/* a * b + c */
KVCL_INLINE v8 v8_fma(v8 a, v8 b, v8 c)
{
    return (v8){{vfmaq_f32(c.val[0], a.val[0], b.val[0]), vfmaq_f32(c.val[1], a.val[1], b.val[1])}};
}

KVCL_INLINE v8 v8_fma_scalar(v8 a, float s, v8 c)
{
    return (v8){{vfmaq_n_f32(c.val[0], a.val[0], s), vfmaq_n_f32(c.val[1], a.val[1], s)}};
}

/* Halving tree: steps 4, 2, 1. */
KVCL_INLINE float v8_tree(v8 a)
{
    float32x4_t q = vaddq_f32(a.val[0], a.val[1]);
    float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

/* f16 scale of block i * dx[i], of eight blocks `bytes` apart. */
KVCL_INLINE v8 v8_scales(const unsigned char *p, size_t bytes, const float *dx)
{
    uint16_t h[8];
    KVCL_UNROLL
    for (size_t i = 0; i < 8; i++)
        memcpy(&h[i], p + i * bytes, sizeof h[i]);
    float16x8_t d = vreinterpretq_f16_u16(vld1q_u16(h));
    return (v8){{vmulq_f32(vcvt_f32_f16(vget_low_f16(d)), vld1q_f32(dx)),
                 vmulq_f32(vcvt_high_f32_f16(d), vld1q_f32(dx + 4))}};
}

/* Lane j in all lanes. */
KVCL_INLINE v8 v8_pick(v8 s, int j)
{
    float32x4_t q = j < 4 ? s.val[0] : s.val[1];
    float32x4_t all = j % 4 == 0   ? vdupq_laneq_f32(q, 0)
                      : j % 4 == 1 ? vdupq_laneq_f32(q, 1)
                      : j % 4 == 2 ? vdupq_laneq_f32(q, 2)
                                   : vdupq_laneq_f32(q, 3);
    return (v8){{all, all}};
}

KVCL_INLINE c32 c32_load(const void *p)
{
    return (c32){{vreinterpretq_s8_u8(v16_bytes(p, 0)), vreinterpretq_s8_u8(v16_bytes(p, 1))}};
}

KVCL_INLINE c32 c32_q8_0(const unsigned char *b) { return c32_load(b + 2); }

/* The nibbles of 16 bytes: low halves, then high halves. */
KVCL_INLINE c32 c32_nibbles(const unsigned char *p)
{
    uint8x16_t q = vld1q_u8(p);
    return (c32){
        {vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(q, 4))}};
}

KVCL_INLINE c32 c32_q4_0(const unsigned char *b)
{
    c32 q = c32_nibbles(b + 2);
    return (c32){{vsubq_s8(q.val[0], vdupq_n_s8(8)), vsubq_s8(q.val[1], vdupq_n_s8(8))}};
}

/* n - 16, where the set bit of qh adds 16; `bits` are two bytes of qh. */
KVCL_INLINE int8x16_t c32_fifth(int8x16_t nibbles, const unsigned char *bits)
{
    uint8x16_t spread = vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1]));
    uint8x16_t mask = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
    uint8x16_t sub = vbicq_u8(vdupq_n_u8(16), vtstq_u8(spread, mask));
    return vsubq_s8(nibbles, vreinterpretq_s8_u8(sub));
}

KVCL_INLINE c32 c32_q5_0(const unsigned char *b)
{
    c32 q = c32_nibbles(b + 6);
    return (c32){{c32_fifth(q.val[0], b + 2), c32_fifth(q.val[1], b + 4)}};
}

/* The codes as signed bytes. */
KVCL_INLINE void c32_store_signed(kvcl_type type, int8_t *p, c32 q)
{
    KVCL_UNUSED(type);
    vst1q_s8(p, q.val[0]);
    vst1q_s8(p + 16, q.val[1]);
}

KVCL_INLINE c32 c32_start(const int32_t *p)
{
    KVCL_UNUSED(p);
    return (c32){{vdupq_n_s8(0), vdupq_n_s8(0)}};
}

KVCL_INLINE void c32_store_starts(kvcl_type type, int32_t *p, const int8_t *codes)
{
    KVCL_UNUSED(type), KVCL_UNUSED(p), KVCL_UNUSED(codes);
}

KVCL_INLINE float32x4_t v8_half_dot4(int8x16_t w, int8x16_t x)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return vcvtq_f32_s32(vdotq_s32(vdupq_n_s32(0), w, x));
#else
    int16x8_t a = vmull_s8(vget_low_s8(w), vget_low_s8(x)), b = vmull_high_s8(w, x);
    return vcvtq_f32_s32(vpaddq_s32(vpaddlq_s16(a), vpaddlq_s16(b)));
#endif
}

/* The sums of each four products, as floats. */
KVCL_INLINE v8 v8_dot4(c32 w, c32 x, c32 start)
{
    KVCL_UNUSED(start);
    return (v8){{v8_half_dot4(w.val[0], x.val[0]), v8_half_dot4(w.val[1], x.val[1])}};
}

/* ---- coded pages (simd_code.h): machine registers of M_LANES dwords, four codes each ---- */

#define M_LANES 4
#define MB_BIAS 0 /* of levels */

typedef uint8x16_t mb; /* bytes */
typedef int16x8_t mh;  /* 16-bit integers, two per lane */
typedef float32x4_t mf;
typedef int8x16_t mlev;
typedef struct mdot {
    int32x4_t hi, lo;
} mdot;

KVCL_INLINE mb mb_load(const void *p) { return vld1q_u8(p); }
KVCL_INLINE void mb_store(void *p, mb a) { vst1q_u8(p, a); }
KVCL_INLINE mb mb_table(const void *p) { return vld1q_u8(p); }
/* (x shifted left, or right where n < 0) & mask, byte by byte */
KVCL_INLINE mb mb_bits(mb x, int n, int mask)
{
    return vandq_u8(vshlq_u8(x, vdupq_n_s8((int8_t)n)), vdupq_n_u8((uint8_t)mask));
}
KVCL_INLINE mb mb_or(mb a, mb b) { return vorrq_u8(a, b); }
/* Sixteen bytes by index. */
KVCL_INLINE mb mb_pick(mb table, mb index) { return vqtbl1q_u8(table, index); }
/* Signed codes as levels. */
KVCL_INLINE mb mb_level8(mb x) { return x; }

KVCL_INLINE mlev mlev_of(mb x) { return vreinterpretq_s8_u8(x); }
KVCL_INLINE mdot mdot_zero(void) { return (mdot){vdupq_n_s32(0), vdupq_n_s32(0)}; }
KVCL_INLINE int32x4_t m_dot4(int32x4_t acc, int8x16_t x, uint32_t word)
{
    int8x16_t w = vreinterpretq_s8_u32(vdupq_n_u32(word));
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, x, w);
#else
    int16x8_t a = vmull_s8(vget_low_s8(x), vget_low_s8(w)), b = vmull_high_s8(x, w);
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(a), vpaddlq_s16(b)));
#endif
}
/* Adds four products per lane; q: the words of v16_store_q15. */
KVCL_INLINE mdot mdot_add(mdot acc, mlev x, const uint32_t *q)
{
    return (mdot){m_dot4(acc.hi, x, q[0]), m_dot4(acc.lo, x, q[1])};
}
/* The sums; q_sum: of all Q. */
KVCL_INLINE mf mdot_float(mdot acc, int32_t q_sum)
{
    KVCL_UNUSED(q_sum);
    return vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(acc.hi, 7), acc.lo));
}

/* a + b and a - b of each pair of levels. */
KVCL_INLINE mh mb_pair_sum(mb x) { return vpaddlq_s8(vreinterpretq_s8_u8(x)); }
KVCL_INLINE mh mb_pair_diff(mb x)
{
    int16x8_t both = vreinterpretq_s16_u8(x), odd = vshrq_n_s16(both, 8);
    return vsubq_s16(vshrq_n_s16(vshlq_n_s16(both, 8), 8), odd);
}
KVCL_INLINE mh mh_load(const int16_t *p) { return vld1q_s16(p); }
KVCL_INLINE void mh_store(int16_t *p, mh a) { vst1q_s16(p, a); }
KVCL_INLINE mh mh_add(mh a, mh b) { return vaddq_s16(a, b); }
KVCL_INLINE mh mh_sub(mh a, mh b) { return vsubq_s16(a, b); }
KVCL_INLINE mh mh_minus(mh a, int n) { return vsubq_s16(a, vdupq_n_s16((int16_t)n)); }
/* a + b and a - b of the two halves of each lane. */
KVCL_INLINE mf mh_lane_sum(mh x) { return vcvtq_f32_s32(vpaddlq_s16(x)); }
KVCL_INLINE mf mh_lane_diff(mh x)
{
    int16x8_t sign = vreinterpretq_s16_u32(vdupq_n_u32(0xffff0001u));
    return vcvtq_f32_s32(vpaddlq_s16(vmulq_s16(x, sign)));
}

KVCL_INLINE mf mf_set(float x) { return vdupq_n_f32(x); }
KVCL_INLINE mf mf_load(const float *p) { return vld1q_f32(p); }
KVCL_INLINE void mf_store(float *p, mf a) { vst1q_f32(p, a); }
KVCL_INLINE mf mf_mul(mf a, mf b) { return vmulq_f32(a, b); }
KVCL_INLINE mf mf_fma(mf a, mf b, mf c) { return vfmaq_f32(c, a, b); }
/* a * b - c */
KVCL_INLINE mf mf_fms(mf a, mf b, mf c) { return vfmaq_f32(vnegq_f32(c), a, b); }

/* a * b - c */
KVCL_INLINE v16 v16_fms(v16 a, v16 b, v16 c)
{
    V16_EACH(o, vfmaq_f32(vnegq_f32(c.val[i]), a.val[i], b.val[i]));
}

/* The integers Q that x * inv + KVCL_ROUND holds, as words for mdot_add: four values' high
 * halves, then their low halves, and so on.  Returns sum. */
typedef int msum;
KVCL_INLINE msum msum_zero(void) { return 0; }
KVCL_INLINE int32_t msum_total(msum a) { return a; }
KVCL_INLINE msum v16_store_q15(uint32_t *out, v16 t, msum sum)
{
    KVCL_UNROLL
    for (int i = 0; i < 4; i++) {
        int32x4_t q = vsubq_s32(vreinterpretq_s32_f32(t.val[i]), vdupq_n_s32(KVCL_ROUND_BITS));
        int32x4_t hi = vshrq_n_s32(vaddq_s32(q, vdupq_n_s32(64)), 7);
        int32x4_t lo = vsubq_s32(q, vshlq_n_s32(hi, 7));
        int16x8_t both = vcombine_s16(vmovn_s32(hi), vmovn_s32(lo));
        vst1_u8((uint8_t *)(out + 2 * i), vreinterpret_u8_s8(vmovn_s16(both)));
    }
    return sum;
}

/* ---- products of int8 weights with numbers of +-16256 in lanes (simd_spectral.h) ---- */

#define MT_LO 256 /* of four numbers, bytes from the high parts to the low ones */
typedef int8_t mt_weight;
typedef mdot macc;

/* Four rows x [4][64] to lanes of four bytes; numbers become 128 hi + lo. */
KVCL_INLINE void mt_pack(const int16_t *x, unsigned char *out)
{
    for (int i = 0; i < 64; i += 8) {
        int16x8_t hi[4], lo[4], byte = vdupq_n_s16(255);
        KVCL_UNROLL
        for (int k = 0; k < 4; k++) {
            int16x8_t v = vld1q_s16(x + 64 * k + i);
            hi[k] = vshrq_n_s16(vaddq_s16(v, vdupq_n_s16(64)), 7);
            lo[k] = vandq_s16(vsubq_s16(v, vshlq_n_s16(hi[k], 7)), byte);
            hi[k] = vandq_s16(hi[k], byte);
        }
        int16x8_t h01 = vorrq_s16(hi[0], vshlq_n_s16(hi[1], 8));
        int16x8_t h23 = vorrq_s16(hi[2], vshlq_n_s16(hi[3], 8));
        int16x8_t l01 = vorrq_s16(lo[0], vshlq_n_s16(lo[1], 8));
        int16x8_t l23 = vorrq_s16(lo[2], vshlq_n_s16(lo[3], 8));
        mb_store(out + 4 * i, vreinterpretq_u8_s16(vzip1q_s16(h01, h23)));
        mb_store(out + 4 * i + 16, vreinterpretq_u8_s16(vzip2q_s16(h01, h23)));
        mb_store(out + MT_LO + 4 * i, vreinterpretq_u8_s16(vzip1q_s16(l01, l23)));
        mb_store(out + MT_LO + 4 * i + 16, vreinterpretq_u8_s16(vzip2q_s16(l01, l23)));
    }
}
KVCL_INLINE macc macc_zero(void) { return mdot_zero(); }
typedef struct mt {
    mlev hi, lo;
} mt;
KVCL_INLINE mt mt_load(const unsigned char *x)
{
    return (mt){mlev_of(mb_load(x)), mlev_of(mb_load(x + MT_LO))};
}
/* Adds the four products of each lane; w: four weights. */
KVCL_INLINE macc mt_add(macc acc, mt x, const mt_weight *w)
{
    uint32_t word;
    memcpy(&word, w, sizeof word);
    return (mdot){m_dot4(acc.hi, x.hi, word), m_dot4(acc.lo, x.lo, word)};
}
/* The sums; w_sum: of the weights. */
KVCL_INLINE mf mt_float(macc acc, int32_t w_sum) { return mdot_float(acc, w_sum); }

/* Sums of products of 16-bit integers, two a lane. */
typedef int32x4_t mq;
KVCL_INLINE mq mq_zero(void) { return vdupq_n_s32(0); }
/* x: the lanes' pairs; pair: the same for all. */
KVCL_INLINE mq mq_add(mq acc, const void *x, uint32_t pair)
{
    int16x8_t a = vld1q_s16(x), b = vreinterpretq_s16_u32(vdupq_n_u32(pair));
    int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
    return vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)));
}
KVCL_INLINE mf mq_float(mq acc) { return vcvtq_f32_s32(acc); }
KVCL_INLINE mf mf_load_i16(const int16_t *p) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }

#endif
