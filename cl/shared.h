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
#define KVCL_FMA(a, b, c) fma((a), (b), (c))
#define KVCL_AS_INT(x) as_int(x)
#define KVCL_AS_FLOAT(x) as_float(x)
#else
#include "f16.h"
#include <math.h>
#include <stdint.h>
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
#define KVCL_DEFINE_MATH(F, I, SUF, AS_I, AS_F, C, K)                                    \
    static F kvcl_zero##SUF(F x) { return AS_I(x) == K(-2147483647 - 1) ? C(0.0f) : x; } \
    static F kvcl_exp##SUF(F x)                                                          \
    {                                                                                    \
        F xc = x < C(KVCL_EXP_MIN) ? C(KVCL_EXP_MIN) : x;                                \
        F t = KVCL_FMA(xc, C(1.44269502f), C(KVCL_ROUND));                               \
        F n = t - C(KVCL_ROUND);                                                         \
        F r = KVCL_FMA(n, C(-0.693145752f), xc);                                         \
        F p = C(1.98756915e-4f);                                                         \
        r = KVCL_FMA(n, C(-1.42860677e-6f), r);                                          \
        p = KVCL_FMA(p, r, C(1.39819995e-3f));                                           \
        p = KVCL_FMA(p, r, C(8.33345205e-3f));                                           \
        p = KVCL_FMA(p, r, C(4.16657962e-2f));                                           \
        p = KVCL_FMA(p, r, C(1.66666657e-1f));                                           \
        p = KVCL_FMA(p, r, C(0.5f));                                                     \
        p = KVCL_FMA(p, r, C(1.0f));                                                     \
        p = KVCL_FMA(p, r, C(1.0f));                                                     \
        p = AS_F(AS_I(p) + (AS_I(t) - K(KVCL_ROUND_BITS)) * K(8388608));                 \
        return x < C(KVCL_EXP_MIN) ? C(0.0f) : p;                                        \
    }                                                                                    \
    static F kvcl_recip##SUF(F x)                                                        \
    {                                                                                    \
        F r = AS_F(K(0x7ef311c3) - AS_I(x));                                             \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                    \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                    \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                    \
        return KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                 \
    }                                                                                    \
    static F kvcl_rsqrt##SUF(F x)                                                        \
    {                                                                                    \
        F h = C(0.5f) * x;                                                               \
        F y = AS_F(K(0x5f375a86) - (AS_I(x) >> K(1)));                                   \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                          \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                          \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                          \
        return y * KVCL_FMA(-(h * y), y, C(1.5f));                                       \
    }                                                                                    \
    static F kvcl_sigmoid##SUF(F x)                                                      \
    {                                                                                    \
        F e = kvcl_exp##SUF(x > C(0.0f) ? -x : x);                                       \
        F r = kvcl_recip##SUF(C(1.0f) + e);                                              \
        return x > C(0.0f) ? r : e * r;                                                  \
    }                                                                                    \
    static F kvcl_silu##SUF(F x) { return kvcl_zero##SUF(x * kvcl_sigmoid##SUF(x)); }    \
    static F kvcl_gelu##SUF(F x)                                                         \
    {                                                                                    \
        F u = (C(1.59576912f) * x) * KVCL_FMA(C(0.044715f), x * x, C(1.0f));             \
        return kvcl_zero##SUF(x * kvcl_sigmoid##SUF(u));                                 \
    }

#define KVCL_SAME(v) (v)
KVCL_DEFINE_MATH(float, int, , KVCL_AS_INT, KVCL_AS_FLOAT, KVCL_SAME, KVCL_SAME)

/* Rounds to the nearest integer, ties to even; |x| < 2^22. */
static int kvcl_round(float x)
{
    return KVCL_AS_INT(KVCL_FMA(x, 1.0f, KVCL_ROUND)) - KVCL_ROUND_BITS;
}

/* Activation quantiser: scale and its inverse for a block of 32 with the given absolute maximum; a
 * code is the low bits of fma(x, *inv, KVCL_ROUND).  Blocks that are nearly nothing become zero. */
static float kvcl_quant_scale(float amax)
{
    return amax < 1e-30f ? 0.0f : amax * 0.00787401572f; /* 1/127 */
}

static float kvcl_quant_inv(float amax) { return amax < 1e-30f ? 0.0f : 127.0f * kvcl_recip(amax); }

static int kvcl_quant_code(float x, float inv)
{
    return KVCL_AS_INT(KVCL_FMA(x, inv, KVCL_ROUND)) - KVCL_ROUND_BITS;
}

/* Counter-based input of the self-test: a well-mixed word of i (xorshift-multiply). */
static unsigned int kvcl_mix(unsigned int i)
{
    i ^= i >> 16;
    i *= 0x7feb352du;
    i ^= i >> 15;
    i *= 0x846ca68bu;
    i ^= i >> 16;
    return i;
}

/* A float in [-1, 1) with 24 random bits, from a word. */
static float kvcl_unit(unsigned int w) { return (float)((int)(w >> 8) - 8388608) * 1.1920929e-7f; }

#endif
