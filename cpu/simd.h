/* simd.h - a small vector layer: sources simd_*.c are written once over it and compiled per
 * instruction set, which the compiler's flags choose.
 *
 *   v16   sixteen floats: 1 zmm, 2 ymm or 4 NEON registers
 *   v8    eight floats: the lanes that one quantised block feeds
 *   c32   the 32 codes of a block, in the form v8_dot4 likes
 *
 * Every operation is one correctly rounded step per lane, so that the bits are the scalar twins'.
 * Pointers need no alignment; a load reads exactly the bytes it names. */
#ifndef KVCL_CPU_SIMD_H
#define KVCL_CPU_SIMD_H

#include "cpu_int.h"
#include "shared.h"
#include "types.h"

#define KVCL_INLINE static inline __attribute__((always_inline, unused))

#if defined(__clang__)
#define KVCL_UNROLL _Pragma("unroll")
#else
#define KVCL_UNROLL _Pragma("GCC unroll 64")
#endif

#if defined(__AVX512VNNI__)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#elif defined(__aarch64__)
#include "simd_neon.h"
#else
#error "no instruction set of the vector layer is enabled"
#endif

#define V16_LANES 16

/* Sixteen elements of an unquantised type as floats; type is a constant after inlining. */
KVCL_INLINE v16 v16_load_type(kvcl_type type, const void *p)
{
    return type == KVCL_F32 ? v16_load(p) : type == KVCL_F16 ? v16_load_f16(p) : v16_load_bf16(p);
}

/* sum64's halving tree; -0 becomes +0. */
KVCL_INLINE float v16_tree64(const v16 a[4])
{
    return kvcl_zero(v16_tree(v16_add(v16_add(a[0], a[2]), v16_add(a[1], a[3]))));
}

/* kvcl_exp of shared.h, lane by lane. */
KVCL_INLINE v16 v16_exp(v16 x)
{
    v16 low = v16_set(KVCL_EXP_MIN), xc = v16_select_lt(x, low, low, x);
    v16 t = v16_fma(xc, v16_set(1.44269502f), v16_set(KVCL_ROUND));
    v16 n = v16_sub(t, v16_set(KVCL_ROUND));
    v16 r = v16_fma(n, v16_set(-0.693145752f), xc);
    v16 p = v16_set(1.98756915e-4f);
    r = v16_fma(n, v16_set(-1.42860677e-6f), r);
    p = v16_fma(p, r, v16_set(1.39819995e-3f));
    p = v16_fma(p, r, v16_set(8.33345205e-3f));
    p = v16_fma(p, r, v16_set(4.16657962e-2f));
    p = v16_fma(p, r, v16_set(1.66666657e-1f));
    p = v16_fma(p, r, v16_set(0.5f));
    p = v16_fma(p, r, v16_set(1.0f));
    p = v16_fma(p, r, v16_set(1.0f));
    return v16_select_lt(x, low, v16_set(0.0f), v16_scale2(p, t));
}

/* kvcl_recip, kvcl_sigmoid, kvcl_silu, kvcl_gelu of shared.h, lane by lane. */
KVCL_INLINE v16 v16_recip(v16 x)
{
    v16 r = v16_recip_seed(x), minus = v16_negate(x), one = v16_set(1.0f);
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        r = v16_fma(r, v16_fma(minus, r, one), r);
    return r;
}

KVCL_INLINE v16 v16_sigmoid(v16 x)
{
    v16 zero = v16_set(0.0f), e = v16_exp(v16_select_lt(zero, x, v16_negate(x), x));
    v16 r = v16_recip(v16_add(v16_set(1.0f), e));
    return v16_select_lt(zero, x, r, v16_mul(e, r));
}

KVCL_INLINE v16 v16_silu(v16 x) { return v16_plus_zero(v16_mul(x, v16_sigmoid(x))); }

KVCL_INLINE v16 v16_gelu(v16 x)
{
    v16 cube = v16_fma(v16_set(0.044715f), v16_mul(x, x), v16_set(1.0f));
    v16 u = v16_mul(v16_mul(v16_set(1.59576912f), x), cube);
    return v16_plus_zero(v16_mul(x, v16_sigmoid(u)));
}

/* What the SIMD sources offer each other; the names carry the instruction set. */

/* One row of activations, ready for dot products. */
typedef struct kvcl_simd_row {
    const float *x;      /* [cols] */
    const int8_t *codes; /* [cols], where weights are quantised */
    const float *scales; /* [cols / 32] */
    /* [cols / 4], per segment: what the sums of four start from, for the weights' type */
    const int32_t *starts[KVCL_MATVEC_SEGS];
} kvcl_simd_row;

/* out[r] = dot(row r of w, x) for n rows; w points at the first. */
void KVCL_SIMD_FN(dot_float)(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                             const kvcl_simd_row *x, uint32_t cols, float *out);
void KVCL_SIMD_FN(dot_quant)(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                             const kvcl_simd_row *x, uint32_t seg, uint32_t cols, float *out);
/* Twins of kvcl_cpu_norm_row and kvcl_cpu_quant_row. */
void KVCL_SIMD_FN(norm_row)(const kvcl_norm_spec *spec, const float *x, float *out, uint32_t dim);
void KVCL_SIMD_FN(quant_row)(const float *x, int8_t *codes, float *scales, uint32_t n);
/* starts [n / 4] of codes against weights of a type. */
void KVCL_SIMD_FN(quant_starts)(kvcl_type type, const int8_t *codes, int32_t *starts, uint32_t n);
/* out[i] = silu(gate[i]) * up[i];  out[i] = gelu(x[i]).  out may be an input. */
void KVCL_SIMD_FN(swiglu_row)(const float *gate, const float *up, float *out, uint32_t n);
void KVCL_SIMD_FN(gelu_row)(const float *x, float *out, uint32_t n);
/* n elements (a multiple of 32; of 16 where no blocks are) of a row, dequantised. */
void KVCL_SIMD_FN(expand_row)(kvcl_type type, const unsigned char *w, uint32_t n, float *out);

#define KVCL_OP(name, group, stem) void KVCL_SIMD_FN(name)(const void *args, kvcl_cpu_part *p);
#include "ops.def"
#undef KVCL_OP

#endif
