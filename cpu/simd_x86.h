/* simd_x86.h - 256-bit pieces of the vector layer that AVX2 and AVX-512 share. */
#ifndef KVCL_CPU_SIMD_X86_H
#define KVCL_CPU_SIMD_X86_H

#include <immintrin.h>

typedef __m256 v8;
typedef __m256i c32;

KVCL_INLINE v8 v8_zero(void) { return _mm256_setzero_ps(); }
KVCL_INLINE v8 v8_add(v8 a, v8 b) { return _mm256_add_ps(a, b); }
KVCL_INLINE v8 v8_load(const float *p) { return _mm256_loadu_ps(p); }
KVCL_INLINE void v8_store(float *p, v8 a) { _mm256_storeu_ps(p, a); }
/* a * b + c */
KVCL_INLINE v8 v8_fma(v8 a, v8 b, v8 c) { return _mm256_fmadd_ps(a, b, c); }
KVCL_INLINE v8 v8_fma_scalar(v8 a, float s, v8 c)
{
    return _mm256_fmadd_ps(a, _mm256_set1_ps(s), c);
}

/* Halving tree: steps 4, 2, 1. */
KVCL_INLINE float v8_tree(v8 a)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

KVCL_INLINE c32 c32_load(const void *p) { return _mm256_loadu_si256(p); }

/* The nibbles of 16 bytes: low halves, then high halves. */
KVCL_INLINE c32 c32_nibbles(const unsigned char *p)
{
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)p));
    both = _mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0));
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

KVCL_INLINE int v8_scale_bits(const unsigned char *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* f16 scale of block i * dx[i], of eight blocks `bytes` apart. */
KVCL_INLINE v8 v8_scales(const unsigned char *p, size_t bytes, const float *dx)
{
    __m128i a = _mm_cvtsi32_si128(v8_scale_bits(p));
    __m128i b = _mm_cvtsi32_si128(v8_scale_bits(p + 4 * bytes));
    a = _mm_insert_epi16(a, v8_scale_bits(p + bytes), 1);
    b = _mm_insert_epi16(b, v8_scale_bits(p + 5 * bytes), 1);
    a = _mm_insert_epi16(a, v8_scale_bits(p + 2 * bytes), 2);
    b = _mm_insert_epi16(b, v8_scale_bits(p + 6 * bytes), 2);
    a = _mm_insert_epi16(a, v8_scale_bits(p + 3 * bytes), 3);
    b = _mm_insert_epi16(b, v8_scale_bits(p + 7 * bytes), 3);
    __m256 d = _mm256_cvtph_ps(_mm_unpacklo_epi64(a, b));
    return _mm256_mul_ps(d, _mm256_loadu_ps(dx));
}

/* Lane j in all lanes. */
KVCL_INLINE v8 v8_pick(v8 s, int j) { return _mm256_permutevar8x32_ps(s, _mm256_set1_epi32(j)); }

#endif
