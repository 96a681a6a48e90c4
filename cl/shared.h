/* shared.h - the arithmetic both worlds share to the bit: this text is compiled as OpenCL C 1.2
 * (put before every kernel file) and as C11 (included by cpu/).
 *
 * Rules: only + - *, explicit fma, integers, compares and selects; no product ever stands bare
 * beside a sum, so there is nothing a compiler could contract.  Everything stays in the normal
 * range. */
#ifndef KVCL_SHARED_H
#define KVCL_SHARED_H

#ifdef __OPENCL_VERSION__
#pragma OPENCL FP_CONTRACT OFF
#define KVCL_FN static
#define KVCL_FMA(a, b, c) fma((a), (b), (c))
#define KVCL_AS_INT(x) as_int(x)
#define KVCL_AS_FLOAT(x) as_float(x)
#else
#include "f16.h"
#include <math.h>
#include <stdint.h>
#define KVCL_FN static inline
#define KVCL_FMA(a, b, c) fmaf((a), (b), (c))
#define KVCL_AS_INT(x) ((int)kvcl_f32_bits(x))
#define KVCL_AS_FLOAT(x) kvcl_bits_f32((uint32_t)(x))
#endif

#define KVCL_TOKENS 64    /* tokens in a page */
#define KVCL_ATTN_LANES 8 /* lanes of sums over tokens and over partials */
#define KVCL_ROUND \
    12582912.0f /* 1.5 * 2^23: fma(x, 1, KVCL_ROUND) rounds x to an integer in its low bits */
#define KVCL_ROUND_BITS 0x4b400000
#define KVCL_EXP_MIN (-60.0f)

/* The primitives, for float and (in OpenCL) for float16: F the type, I its integer twin, SUF the
 * suffix, AS_I / AS_F the bit casts, C(v) a constant of type F, K(v) of type I.
 *
 *   kvcl_zero   -0 becomes +0 (integer test: compilers fold x + 0)
 *   kvcl_exp    e^x for x <= 0; exactly 0 below -60.  x = n ln2 + r; degree-7 polynomial; <= 1 ulp
 *   kvcl_recip  1/x for normal x > 0: integer seed, four Newton steps
 *   kvcl_rsqrt  1/sqrt(x) for normal x > 0: integer seed, four Newton steps
 *   kvcl_sigmoid, kvcl_silu, kvcl_gelu (tanh form, as x * sigmoid) */
#define KVCL_DEFINE_MATH(F, I, SUF, AS_I, AS_F, C, K)                                     \
    KVCL_FN F kvcl_zero##SUF(F x) { return AS_I(x) == K(-2147483647 - 1) ? C(0.0f) : x; } \
    KVCL_FN F kvcl_exp##SUF(F x)                                                          \
    {                                                                                     \
        F xc = x < C(KVCL_EXP_MIN) ? C(KVCL_EXP_MIN) : x;                                 \
        F t = KVCL_FMA(xc, C(1.44269502f), C(KVCL_ROUND));                                \
        F n = t - C(KVCL_ROUND);                                                          \
        F r = KVCL_FMA(n, C(-0.693145752f), xc);                                          \
        F p = C(1.98756915e-4f);                                                          \
        r = KVCL_FMA(n, C(-1.42860677e-6f), r);                                           \
        p = KVCL_FMA(p, r, C(1.39819995e-3f));                                            \
        p = KVCL_FMA(p, r, C(8.33345205e-3f));                                            \
        p = KVCL_FMA(p, r, C(4.16657962e-2f));                                            \
        p = KVCL_FMA(p, r, C(1.66666657e-1f));                                            \
        p = KVCL_FMA(p, r, C(0.5f));                                                      \
        p = KVCL_FMA(p, r, C(1.0f));                                                      \
        p = KVCL_FMA(p, r, C(1.0f));                                                      \
        p = AS_F(AS_I(p) + (AS_I(t) - K(KVCL_ROUND_BITS)) * K(8388608));                  \
        return x < C(KVCL_EXP_MIN) ? C(0.0f) : p;                                         \
    }                                                                                     \
    KVCL_FN F kvcl_recip##SUF(F x)                                                        \
    {                                                                                     \
        F r = AS_F(K(0x7ef311c3) - AS_I(x));                                              \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                     \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                     \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                     \
        return KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                  \
    }                                                                                     \
    KVCL_FN F kvcl_rsqrt##SUF(F x)                                                        \
    {                                                                                     \
        F h = C(0.5f) * x;                                                                \
        F y = AS_F(K(0x5f375a86) - (AS_I(x) >> K(1)));                                    \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                           \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                           \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                           \
        return y * KVCL_FMA(-(h * y), y, C(1.5f));                                        \
    }                                                                                     \
    KVCL_FN F kvcl_sigmoid##SUF(F x)                                                      \
    {                                                                                     \
        F e = kvcl_exp##SUF(x > C(0.0f) ? -x : x);                                        \
        F r = kvcl_recip##SUF(C(1.0f) + e);                                               \
        return x > C(0.0f) ? r : e * r;                                                   \
    }                                                                                     \
    KVCL_FN F kvcl_silu##SUF(F x) { return kvcl_zero##SUF(x * kvcl_sigmoid##SUF(x)); }    \
    KVCL_FN F kvcl_gelu##SUF(F x)                                                         \
    {                                                                                     \
        F u = (C(1.59576912f) * x) * KVCL_FMA(C(0.044715f), x * x, C(1.0f));              \
        return kvcl_zero##SUF(x * kvcl_sigmoid##SUF(u));                                  \
    }

#define KVCL_SAME(v) (v)
KVCL_DEFINE_MATH(float, int, , KVCL_AS_INT, KVCL_AS_FLOAT, KVCL_SAME, KVCL_SAME)

/* Rounds to the nearest integer, ties to even; |x| < 2^22. */
KVCL_FN int kvcl_round(float x)
{
    return KVCL_AS_INT(KVCL_FMA(x, 1.0f, KVCL_ROUND)) - KVCL_ROUND_BITS;
}

/* Activation quantiser: scale and its inverse for a block of 32 with the given absolute maximum; a
 * code is the low bits of fma(x, *inv, KVCL_ROUND).  Blocks that are nearly nothing become zero. */
KVCL_FN float kvcl_quant_scale(float amax)
{
    return amax < 1e-30f ? 0.0f : amax * 0.00787401572f; /* 1/127 */
}

KVCL_FN float kvcl_quant_inv(float amax)
{
    return amax < 1e-30f ? 0.0f : 127.0f * kvcl_recip(amax);
}

KVCL_FN int kvcl_quant_code(float x, float inv)
{
    return KVCL_AS_INT(KVCL_FMA(x, inv, KVCL_ROUND)) - KVCL_ROUND_BITS;
}

/* Counter-based input of the self-test: a well-mixed word of i (xorshift-multiply). */
KVCL_FN unsigned int kvcl_mix(unsigned int i)
{
    i ^= i >> 16;
    i *= 0x7feb352du;
    i ^= i >> 15;
    i *= 0x846ca68bu;
    i ^= i >> 16;
    return i;
}

/* A float in [-1, 1) with 24 random bits, from a word. */
KVCL_FN float kvcl_unit(unsigned int w) { return (float)((int)(w >> 8) - 8388608) * 1.1920929e-7f; }

/* f16 bits to f32 and back (nearest even). */
#ifdef __OPENCL_VERSION__
KVCL_FN float kvcl_half_load(unsigned int h)
{
    ushort v = (ushort)h;
    return vload_half(0, (const half *)&v);
}
KVCL_FN unsigned int kvcl_half_store(float x)
{
    ushort v;
    vstore_half_rte(x, 0, (half *)&v);
    return v;
}
#else
KVCL_FN unsigned int kvcl_half_store(float x) { return kvcl_f32_to_f16(x); }
KVCL_FN float kvcl_half_load(unsigned int h) { return kvcl_f16_to_f32((uint16_t)h); }
#endif

/* Word w (0 .. 15) of the self-test for input i: one primitive each, on made-up operands. */
KVCL_FN unsigned int kvcl_selftest_word(unsigned int i, unsigned int w)
{
    unsigned int seed = kvcl_mix(i * 16u + w + 1u);
    float a = kvcl_unit(seed), b = kvcl_unit(kvcl_mix(seed)), c = kvcl_unit(kvcl_mix(seed + 1u));
    float mag = KVCL_AS_FLOAT((int)(((seed & 63u) + 96u) << 23)) * (1.5f + 0.25f * a);
    float lanes[8];
    unsigned int word = 0u, j;
    switch (w) {
    case 0:
        return (unsigned int)KVCL_AS_INT(KVCL_FMA(a, b, c));
    case 1:
        return (unsigned int)KVCL_AS_INT(kvcl_exp(-32.0f * (a < 0.0f ? -a : a)));
    case 2:
        return (unsigned int)KVCL_AS_INT(kvcl_recip(mag));
    case 3:
        return (unsigned int)KVCL_AS_INT(kvcl_rsqrt(mag));
    case 4:
        return (unsigned int)KVCL_AS_INT(kvcl_silu(20.0f * a));
    case 5:
        return (unsigned int)KVCL_AS_INT(kvcl_gelu(6.0f * a));
    case 6: /* to f16: normal, sub-normal and overflowing magnitudes */
        return kvcl_half_store(a * KVCL_AS_FLOAT((int)(((seed & 31u) + 112u) << 23)));
    case 7: /* from f16: 32 of the 65536 patterns without NaN, so that 2048 inputs see them all */
        for (j = 0u; j < 32u; j++) {
            unsigned int h = (i & 2047u) * 32u + j;
            if ((h & 0x7c00u) != 0x7c00u)
                word = word * 31u + (unsigned int)KVCL_AS_INT(kvcl_half_load(h));
        }
        return word;
    case 8:
        return (unsigned int)kvcl_quant_code(b, kvcl_quant_inv(1.0f)) ^
               (unsigned int)KVCL_AS_INT(kvcl_quant_scale(mag));
    case 9: /* exact integer sums */
        for (j = 0u; j < 4u; j++)
            word += (unsigned int)(((int)((seed >> (8u * j)) & 255u) - 128) *
                                   ((int)((kvcl_mix(seed) >> (8u * j)) & 255u) - 128));
        return (unsigned int)KVCL_AS_INT((float)(int)word);
    case 10: /* a chain */
        for (j = 0u; j < 64u; j++)
            a = KVCL_FMA(kvcl_unit(kvcl_mix(seed + j)), b, a);
        return (unsigned int)KVCL_AS_INT(kvcl_zero(a));
    case 11: /* a halving tree */
        for (j = 0u; j < 8u; j++)
            lanes[j] = kvcl_unit(kvcl_mix(seed + j));
        for (j = 0u; j < 4u; j++)
            lanes[j] += lanes[j + 4u];
        lanes[0] += lanes[2];
        lanes[1] += lanes[3];
        return (unsigned int)KVCL_AS_INT(kvcl_zero(lanes[0] + lanes[1]));
    case 12:
        return (unsigned int)KVCL_AS_INT(a + b);
    case 13:
        return (unsigned int)KVCL_AS_INT(a * b);
    case 14: /* compare and select */
        return (unsigned int)KVCL_AS_INT(a > b ? a : b);
    default:
        return (unsigned int)kvcl_round(1000.0f * a) ^ (unsigned int)KVCL_AS_INT((float)(int)seed);
    }
}

#endif
