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
#define KVCL_AS_UINT(x) as_uint(x)
#define KVCL_AS_FLOAT(x) as_float(x)
#define KVCL_MUL_HIGH(a, b) mul_hi((a), (b))
#else
#include "f16.h"
#include <math.h>
#include <stdint.h>
#define KVCL_FN static inline
#define KVCL_FMA(a, b, c) fmaf((a), (b), (c))
#define KVCL_AS_INT(x) ((int)kvcl_f32_bits(x))
#define KVCL_AS_UINT(x) kvcl_f32_bits(x)
#define KVCL_AS_FLOAT(x) kvcl_bits_f32((uint32_t)(x))
#define KVCL_MUL_HIGH(a, b) ((unsigned int)((uint64_t)(a) * (b) >> 32))
#endif

#define KVCL_TOKENS 64    /* tokens in a page */
#define KVCL_BLOCK 8      /* pages in a block */
#define KVCL_ATTN_LANES 8 /* lanes of sums over tokens, over pages and over partials */
#define KVCL_ROUND \
    12582912.0f /* 1.5 * 2^23: fma(x, 1, KVCL_ROUND) rounds x to an integer in its low bits */
#define KVCL_ROUND_BITS 0x4b400000u
#define KVCL_EXP_MIN (-60.0f)

/* The primitives, for float and (in OpenCL) for float16: F the type, SUF the suffix,
 * AS_U / AS_F the bit casts to unsigned integers and back, C(v) a constant of type F, K(v) of the
 * integers: unsigned, so that a NaN in wraps in C as it does on devices.
 *
 *   kvcl_zero   -0 becomes +0 (integer test: compilers fold x + 0)
 *   kvcl_exp    e^x for x <= 0; exactly 0 below -60.  x = n ln2 + r; degree-7 polynomial; <= 1 ulp
 *   kvcl_recip  1/x for normal x > 0: integer seed, four Newton steps
 *   kvcl_rsqrt  1/sqrt(x) for normal x > 0: integer seed, four Newton steps
 *   kvcl_sigmoid, kvcl_silu, kvcl_gelu (tanh form, as x * sigmoid) */
#define KVCL_DEFINE_MATH(F, SUF, AS_U, AS_F, C, K)                                     \
    KVCL_FN F kvcl_zero##SUF(F x) { return AS_U(x) == K(0x80000000u) ? C(0.0f) : x; }  \
    KVCL_FN F kvcl_exp##SUF(F x)                                                       \
    {                                                                                  \
        F xc = x < C(KVCL_EXP_MIN) ? C(KVCL_EXP_MIN) : x;                              \
        F t = KVCL_FMA(xc, C(1.44269502f), C(KVCL_ROUND));                             \
        F n = t - C(KVCL_ROUND);                                                       \
        F r = KVCL_FMA(n, C(-0.693145752f), xc);                                       \
        F p = C(1.98756915e-4f);                                                       \
        r = KVCL_FMA(n, C(-1.42860677e-6f), r);                                        \
        p = KVCL_FMA(p, r, C(1.39819995e-3f));                                         \
        p = KVCL_FMA(p, r, C(8.33345205e-3f));                                         \
        p = KVCL_FMA(p, r, C(4.16657962e-2f));                                         \
        p = KVCL_FMA(p, r, C(1.66666657e-1f));                                         \
        p = KVCL_FMA(p, r, C(0.5f));                                                   \
        p = KVCL_FMA(p, r, C(1.0f));                                                   \
        p = KVCL_FMA(p, r, C(1.0f));                                                   \
        p = AS_F(AS_U(p) + (AS_U(t) - K(KVCL_ROUND_BITS)) * K(8388608u));              \
        return x < C(KVCL_EXP_MIN) ? C(0.0f) : p;                                      \
    }                                                                                  \
    KVCL_FN F kvcl_recip##SUF(F x)                                                     \
    {                                                                                  \
        F r = AS_F(K(0x7ef311c3u) - AS_U(x));                                          \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                  \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                  \
        r = KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                                  \
        return KVCL_FMA(r, KVCL_FMA(-x, r, C(1.0f)), r);                               \
    }                                                                                  \
    KVCL_FN F kvcl_rsqrt##SUF(F x)                                                     \
    {                                                                                  \
        F h = C(0.5f) * x;                                                             \
        F y = AS_F(K(0x5f375a86u) - (AS_U(x) >> K(1u)));                               \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                        \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                        \
        y = y * KVCL_FMA(-(h * y), y, C(1.5f));                                        \
        return y * KVCL_FMA(-(h * y), y, C(1.5f));                                     \
    }                                                                                  \
    KVCL_FN F kvcl_sigmoid##SUF(F x)                                                   \
    {                                                                                  \
        F e = kvcl_exp##SUF(x > C(0.0f) ? -x : x);                                     \
        F r = kvcl_recip##SUF(C(1.0f) + e);                                            \
        return x > C(0.0f) ? r : e * r;                                                \
    }                                                                                  \
    KVCL_FN F kvcl_silu##SUF(F x) { return kvcl_zero##SUF(x * kvcl_sigmoid##SUF(x)); } \
    KVCL_FN F kvcl_gelu##SUF(F x)                                                      \
    {                                                                                  \
        F u = (C(1.59576912f) * x) * KVCL_FMA(C(0.044715f), x * x, C(1.0f));           \
        return kvcl_zero##SUF(x * kvcl_sigmoid##SUF(u));                               \
    }

#define KVCL_SAME(v) (v)
KVCL_DEFINE_MATH(float, , KVCL_AS_UINT, KVCL_AS_FLOAT, KVCL_SAME, KVCL_SAME)

/* Rounds to the nearest integer, ties to even; |x| < 2^22. */
KVCL_FN int kvcl_round(float x)
{
    return (int)(KVCL_AS_UINT(KVCL_FMA(x, 1.0f, KVCL_ROUND)) - KVCL_ROUND_BITS);
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
    return (int)(KVCL_AS_UINT(KVCL_FMA(x, inv, KVCL_ROUND)) - KVCL_ROUND_BITS);
}

/* Levels of the low-bit codes: Lloyd-Max levels of a unit Gaussian (Max 1960; Lloyd 1982), scaled
 * so that the largest is 127 and rounded; symmetric, so only magnitudes are kept, a byte each,
 * ascending.  One standard deviation is kvcl_quant_unit.  Index i < 2^bits counts levels upwards
 * from the most negative; bits 1 .. 4. */
KVCL_FN int kvcl_quant_level(unsigned int bits, unsigned int i)
{
    unsigned int mid = 1u << (bits - 1u), mag = i < mid ? mid - 1u - i : i - mid;
    unsigned int low = bits == 4u   ? 0x2c1f1206u /* 6 18 31 44 */
                       : bits == 3u ? 0x7f4f2d0eu /* 14 45 79 127 */
                       : bits == 2u ? 0x7f26u     /* 38 127 */
                                    : 0x7fu;
    int level = (int)(((mag < 4u ? low : 0x7f604b3au) >> (8u * (mag & 3u))) & 127u); /* 58 .. 127 */
    return i < mid ? -level : level;
}

KVCL_FN float kvcl_quant_unit(unsigned int bits)
{
    return bits == 4u ? 46.4760f : bits == 3u ? 59.0149f : bits == 2u ? 84.0837f : 159.168f;
}

/* Number of thresholds (midpoints of neighbouring levels) below v: the index of v's level. */
KVCL_FN unsigned int kvcl_quant_index(unsigned int bits, float v)
{
    unsigned int n = 0u, j;
    for (j = 1u; j < (1u << bits); j++)
        n += v > 0.5f * (float)(kvcl_quant_level(bits, j) + kvcl_quant_level(bits, j - 1u)) ? 1u
                                                                                            : 0u;
    return n;
}

/* Layout of a quant page's codes (engine/ops_code.h): planes of `width` bits, 3 bits being a plane
 * of 2 and a plane of 1.  A word of a plane holds 32 / width codes; code r of it at this bit: */
KVCL_FN unsigned int kvcl_code_shift(unsigned int width, unsigned int r)
{
    return 8u * (r & 3u) + width * (r >> 2);
}
KVCL_FN unsigned int kvcl_plane_width(unsigned int bits, unsigned int plane)
{
    return bits != 3u ? bits : 2u - plane;
}
KVCL_FN unsigned int kvcl_n_planes(unsigned int bits) { return bits == 3u ? 2u : 1u; }
/* Words of the planes before this one, of one head: K's rows are D dimensions of 64 tokens each
 * (across = 64, along = D), V's are 64 tokens of D dimensions each (across = D, along = 64). */
KVCL_FN unsigned int kvcl_plane_begin(unsigned int plane, unsigned int across, unsigned int along)
{
    return plane * (along / 16u) * across;
}
/* Word of a plane that holds the code `i` along, `j` across. */
KVCL_FN unsigned int kvcl_code_word(unsigned int width, unsigned int across, unsigned int i,
                                    unsigned int j)
{
    return i / (32u / width) * across + j;
}
/* Words of one head's K or V codes. */
KVCL_FN unsigned int kvcl_code_words(unsigned int bits, unsigned int head_dim)
{
    return 2u * bits * head_dim;
}
/* Value of a code. */
KVCL_FN int kvcl_quant_value(unsigned int bits, unsigned int code)
{
    return bits == 8u ? (int)(code ^ 128u) - 128 : kvcl_quant_level(bits, code);
}
/* log2 of B, the largest power of two that divides a head dimension, and the factors of a head's
 * transform: down * up = 1 / B. */
KVCL_FN unsigned int kvcl_head_log2(unsigned int head_dim)
{
    unsigned int n = 0u;
    while ((head_dim >> n & 1u) == 0u)
        n++;
    return n;
}
KVCL_FN float kvcl_head_down(unsigned int log2_b)
{
    return KVCL_AS_FLOAT((int)((127u - (log2_b + 1u) / 2u) << 23));
}
KVCL_FN float kvcl_head_up(unsigned int log2_b)
{
    return KVCL_AS_FLOAT((int)((127u - log2_b / 2u) << 23));
}

/* Spectral pages (engine/ops_spectral.h).  Planes p = 0 .. 3 hold codes of 8 >> p bits; levels of a
 * standard deviation: */
KVCL_FN float kvcl_spectral_unit(unsigned int bits)
{
    return bits == 8u ? 32.0f : kvcl_quant_unit(bits);
}
/* Head of one part of a basis, 64 bytes. */
typedef struct kvcl_spectral_head {
    unsigned int n_comp, n_wide, n_codes; /* components; those whose x^ may leave int8; codes */
    unsigned int first_word, n_words;     /* of the part's words in a page */
    unsigned int plane_codes[4], plane_word[4]; /* of planes; first words counted in the head's */
    float inv_n, quantum;                       /* 1 / n_codes; of x^ */
    unsigned int zero;
} kvcl_spectral_head;
/* Where things are in a part of a basis, in bytes: first the head, then these. */
#define KVCL_SPECTRAL_HEAD 64u
#define KVCL_SPECTRAL_NONE 0xffffu
KVCL_FN unsigned int kvcl_spectral_synth(void) { return KVCL_SPECTRAL_HEAD; }
KVCL_FN unsigned int kvcl_spectral_analysis(unsigned int of_v, unsigned int D)
{
    return KVCL_SPECTRAL_HEAD + (of_v ? 0u : D * D);
}
KVCL_FN unsigned int kvcl_spectral_places(unsigned int of_v, unsigned int D)
{
    return KVCL_SPECTRAL_HEAD + (of_v ? 1u : 2u) * D * D;
}
#define KVCL_SPECTRAL_TABLE(name, bytes)                                         \
    KVCL_FN unsigned int kvcl_spectral_##name(unsigned int of_v, unsigned int D, \
                                              unsigned int fold)                 \
    {                                                                            \
        return kvcl_spectral_places(of_v, D) + (bytes)*fold * D;                 \
    }
KVCL_SPECTRAL_TABLE(factor, 2u)
KVCL_SPECTRAL_TABLE(amp, 4u)
KVCL_SPECTRAL_TABLE(part_bytes, 8u)

/* Superposed pages (engine/ops_holo.h): is token j's sign of class c minus?  Both below 8. */
KVCL_FN unsigned int kvcl_holo_minus(unsigned int j, unsigned int c)
{
    unsigned int both = j & c;
    return (both ^ both >> 1 ^ both >> 2) & 1u;
}

/* Fifteen-bit integers of queries and weights: 16256 = 127 * 128, so that Q = 128 hi + lo with
 * both halves in int8: hi = (Q + 64) >> 7, lo = Q - 128 hi. */
#define KVCL_Q15_MAX 16256.0f
KVCL_FN float kvcl_q15_inv(float amax)
{
    return amax < 1e-30f ? 0.0f : 16256.0f * kvcl_recip(amax);
}
KVCL_FN float kvcl_q15_quantum(float amax) { return amax < 1e-30f ? 0.0f : amax * 6.15157480e-5f; }

/* Which of a sequence's means the pages of a block (page / 8) are coded with: epoch 0 is the mean
 * of the first page, epoch e > 0 that of the first 8^e pages, used from block 8^(e-1) on. */
#define KVCL_MEAN_EPOCHS 5
KVCL_FN unsigned int kvcl_mean_epoch(unsigned int block)
{
    return block < 1u ? 0u : block < 8u ? 1u : block < 64u ? 2u : block < 512u ? 3u : 4u;
}

/* The entropy coder of pages (engine/ops_pack.h).  A model's tables are KVCL_RANS_WORDS words (made
 * by engine/rans_model.c): an entry for each int8 value, as an unsigned byte, for encoding; an
 * entry for each of 4096 slots for decoding.  An entry: frequency << 20 | place << 8 | value;
 * place: where the value's slots begin (encoding), the slot's number among them (decoding). */
#define KVCL_RANS_MODELS 96u
#define KVCL_RANS_SLOTS 256u /* first word of the decoding entries */
#define KVCL_RANS_WORDS (KVCL_RANS_SLOTS + 4096u)
#define KVCL_RANS_LANES 32u
#define KVCL_RANS_TAIL_LANES 4u
#define KVCL_RANS_SPARE (KVCL_RANS_LANES - KVCL_RANS_TAIL_LANES) /* words of the tail */
#define KVCL_RANS_LOW 0x10000u                                   /* states are not below */
#define KVCL_RANS_HEAD 100u                                      /* bytes before a stream's words */
#define KVCL_RANS_LEAST (KVCL_RANS_HEAD + 1u)
KVCL_FN unsigned int kvcl_rans_freq(unsigned int entry) { return entry >> 20; }
KVCL_FN unsigned int kvcl_rans_place(unsigned int entry) { return entry >> 8 & 4095u; }
/* -128 stands for any value, which follows in eight plain bits. */
KVCL_FN unsigned int kvcl_rans_escapes(unsigned int entry) { return (entry & 255u) == 128u; }

/* Pages at rest (engine/ops_rest.h): a rung's step; the model of a row's deviation at it. */
KVCL_FN float kvcl_rest_step(unsigned int rung)
{
    float m = 2048.0f * kvcl_exp(-0.0108304243f * (float)(64 - (int)(rung & 63u)));
    return (float)kvcl_round(m) * KVCL_AS_FLOAT((int)((rung / 64u + 112u) << 23));
}
KVCL_FN unsigned int kvcl_rest_model(int scale, unsigned int rung)
{
    int s = (scale - (int)rung + 520) >> 4; /* half Gauss, half Laplace: */
    return (s < 0 ? 0u : s > 31 ? 31u : (unsigned int)s) + 32u;
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

/* Words by counter: word `second` (0 or 1) of two that ten rounds of multiplying and crossing over
 * make of the counters c0, c1 under a key (the 2x32 form of Salmon et al. 2011, Random123). */
KVCL_FN unsigned int kvcl_random(unsigned int c0, unsigned int c1, unsigned int key,
                                 unsigned int second)
{
    unsigned int i;
    for (i = 0u; i < 10u; i++) {
        unsigned int high = KVCL_MUL_HIGH(0xd256d193u, c0), low = 0xd256d193u * c0;
        c0 = high ^ key ^ c1;
        c1 = low;
        key += 0x9e3779b9u;
    }
    return second ? c1 : c0;
}

/* ---- singular values (engine/ops_svd.h) ---- */

#define KVCL_SVD_MAX_COLS 256u
#define KVCL_SVD_MAX_SKETCH 128u            /* rank + oversample */
#define KVCL_SVD_SWEEPS 7u                  /* of the sketch's eigenvalues */
#define KVCL_SVD_LEAST 9.31322575e-10f      /* 2^-30: values of a scaled matrix below are zero */
#define KVCL_SVD_LEAST_SUM 8.67361738e-19f  /* 2^-60: sums and rotated values */
#define KVCL_SVD_LEAST_UNIT 9.09494702e-13f /* 2^-40: values of unit vectors; dependence; rank */

/* Zero for what is nearer to it than `least`: products then stay in the normal range. */
KVCL_FN float kvcl_drop(float x, float least) { return x < least && x > -least ? 0.0f : x; }

/* Word `second` of a matrix's key. */
KVCL_FN unsigned int kvcl_svd_key(unsigned int seed_low, unsigned int seed_high, unsigned int layer,
                                  unsigned int head, unsigned int page, unsigned int second)
{
    unsigned int a = kvcl_random(seed_low, seed_high, layer, 0u);
    unsigned int b = kvcl_random(seed_low, seed_high, layer, 1u);
    return kvcl_random(a + head, b + page, 0x6b76636cu, second);
}
/* Element (i, j) of the random matrix of a round: 1 or -1, for i < 65536. */
KVCL_FN float kvcl_svd_sign(unsigned int key0, unsigned int key1, unsigned int round,
                            unsigned int i, unsigned int j)
{
    unsigned int w = kvcl_random(i | round << 16, key1 + (j >> 6), key0, j >> 5 & 1u);
    return (w >> (j & 31u) & 1u) != 0u ? -1.0f : 1.0f;
}

/* Scale of a matrix by the bits of its largest magnitude: 2^-exponent; 0 when the matrix counts as
 * zero (below 2^-80) or is bad (not finite, or from 2^100 on). */
#define KVCL_SVD_BAD_BITS 0x71800000u
KVCL_FN float kvcl_svd_scale(unsigned int max_bits)
{
    return max_bits < 0x17800000u || max_bits >= KVCL_SVD_BAD_BITS
               ? 0.0f
               : KVCL_AS_FLOAT((int)((254u - (max_bits >> 23)) << 23));
}
/* Its inverse; 0 stays 0. */
KVCL_FN float kvcl_svd_unscale(float scale)
{
    return scale == 0.0f ? 0.0f : KVCL_AS_FLOAT((int)(0x7f000000u - KVCL_AS_UINT(scale)));
}
KVCL_FN float kvcl_svd_value(float x, float scale, float least)
{
    return scale == 0.0f ? 0.0f : kvcl_drop(x * scale, least);
}

/* The order in which a sweep takes pairs: a tournament of n players (even) in n - 1 rounds, of
 * n / 2 pairs each; player `side` of pair i. */
KVCL_FN unsigned int kvcl_svd_player(unsigned int n, unsigned int round, unsigned int i,
                                     unsigned int side)
{
    unsigned int at = side ? round + (n - 1u) - i : round + i;
    at = at >= n - 1u ? at - (n - 1u) : at;
    return i == 0u && side == 0u ? n - 1u : at;
}

/* The rotation (p, q) -> (c p - s q, s p + c q) that makes apq zero, |s| <= c: t = s / c and
 * tau = s / (1 + c), by which c = 1 - s tau to far below a rounding.  None (0, 0, 0) below |apq| =
 * 2^-50 or |t| = 2^-44. */
typedef struct kvcl_rotation {
    float t, s, tau;
} kvcl_rotation;

KVCL_FN kvcl_rotation kvcl_svd_rotation(float app, float aqq, float apq)
{
    kvcl_rotation r;
    float d = aqq - app, b = apq + apq;
    float ad = d < 0.0f ? -d : d, ab = b < 0.0f ? -b : b;
    float h = KVCL_FMA(d, d, b * b);
    float t = ab * kvcl_recip(KVCL_FMA(h, kvcl_rsqrt(h), ad));
    float c;
    /* by masks: compilers then take several at once */
    unsigned int turns =
        0u - ((unsigned int)(ab >= 1.77635684e-15f) & (unsigned int)(t >= 5.68434189e-14f));
    unsigned int sign = (KVCL_AS_UINT(d) ^ KVCL_AS_UINT(b)) & 0x80000000u;
    float size = KVCL_AS_FLOAT((int)((KVCL_AS_UINT(t) | sign) & turns));
    c = kvcl_rsqrt(KVCL_FMA(size, size, 1.0f));
    r.t = size;
    r.s = size * c;
    r.tau = r.s * kvcl_recip(1.0f + c);
    return r;
}
/* The two values of a pair after it. */
KVCL_FN float kvcl_svd_turn_p(kvcl_rotation r, float p, float q)
{
    return kvcl_drop(KVCL_FMA(-r.s, KVCL_FMA(r.tau, p, q), p), KVCL_SVD_LEAST_SUM);
}
KVCL_FN float kvcl_svd_turn_q(kvcl_rotation r, float p, float q)
{
    return kvcl_drop(KVCL_FMA(r.s, KVCL_FMA(-r.tau, q, p), q), KVCL_SVD_LEAST_SUM);
}

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
