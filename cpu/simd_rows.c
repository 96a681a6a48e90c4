/* simd_rows.c - rows normalised, quantised and expanded.  Definitions: cpu/rows.c */
#include "simd.h"

/* sum64 of x[k] * y[k]; y == NULL: of x. */
KVCL_INLINE float sum64(const float *x, const float *y, uint32_t n)
{
    v16 acc[4] = {v16_set(0.0f), v16_set(0.0f), v16_set(0.0f), v16_set(0.0f)};
    uint32_t k = 0;
    for (; k + 64 <= n; k += 64)
        KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        v16 a = v16_load(x + k + 16 * j);
        acc[j] = y ? v16_fma(a, v16_load(y + k + 16 * j), acc[j]) : v16_add(a, acc[j]);
    }
    for (uint32_t j = 0; k < n; j++, k += 16) {
        v16 a = v16_load(x + k);
        acc[j] = y ? v16_fma(a, v16_load(y + k), acc[j]) : v16_add(a, acc[j]);
    }
    return v16_tree64(acc);
}

static void layer_norm(const float *w, const float *b, float eps, const float *x, float *out,
                       uint32_t dim)
{
    float inv_n = 1.0f / (float)dim;
    v16 mean = v16_set(sum64(x, NULL, dim) * inv_n);
    for (uint32_t i = 0; i < dim; i += 16)
        v16_store(out + i, v16_sub(v16_load(x + i), mean));
    v16 r = v16_set(kvcl_rsqrt(fmaf(sum64(out, out, dim), inv_n, eps)));
    for (uint32_t i = 0; i < dim; i += 16) {
        v16 y = v16_mul(v16_load(out + i), r);
        v16_store(out + i, v16_plus_zero(v16_fma(y, v16_load(w + i), v16_load(b + i))));
    }
}

void KVCL_SIMD_FN(norm_row)(const kvcl_norm_spec *spec, const float *x, float *out, uint32_t dim)
{
    const float *w = kvcl_cpu_ptr(spec->weight);
    if (spec->kind == KVCL_NORM_NONE) {
        memmove(out, x, dim * sizeof *x);
    } else if (spec->kind == KVCL_NORM_LAYER) {
        layer_norm(w, kvcl_cpu_ptr(spec->bias), spec->eps, x, out, dim);
    } else {
        float inv_n = 1.0f / (float)dim;
        v16 r = v16_set(kvcl_rsqrt(fmaf(sum64(x, x, dim), inv_n, spec->eps)));
        for (uint32_t i = 0; i < dim; i += 16)
            v16_store(out + i, v16_mul(v16_mul(v16_load(x + i), r), v16_load(w + i)));
    }
}

void KVCL_SIMD_FN(norm)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_norm_args *a = args;
    const float *x = kvcl_cpu_ptr(a->x);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        size_t at = kvcl_norm_row_at(a, i);
        KVCL_SIMD_FN(norm_row)(&a->spec, x + at, out + at, a->dim);
    }
}

void KVCL_SIMD_FN(quant_row)(const float *x, int8_t *codes, float *scales, uint32_t n)
{
    for (uint32_t b = 0; b < n / KVCL_QK; b++, x += KVCL_QK, codes += KVCL_QK) {
        v16 x0 = v16_load(x), x1 = v16_load(x + 16);
        float amax = v16_max_lane(v16_max(v16_abs(x0), v16_abs(x1)));
        v16 inv = v16_set(kvcl_quant_inv(amax)), round = v16_set(KVCL_ROUND);
        scales[b] = kvcl_quant_scale(amax);
        v16_store_codes(codes, v16_fma(x0, inv, round));
        v16_store_codes(codes + 16, v16_fma(x1, inv, round));
    }
}

void KVCL_SIMD_FN(quant_starts)(kvcl_type type, const int8_t *codes, int32_t *starts, uint32_t n)
{
    for (uint32_t k = 0; k < n; k += KVCL_QK)
        c32_store_starts(type, starts + k / 4, codes + k);
}

KVCL_INLINE void expand_blocks(kvcl_type type, size_t bytes, const unsigned char *w, uint32_t n,
                               float *out)
{
    for (uint32_t k = 0; k < n; k += KVCL_QK, w += bytes) {
        int8_t codes[KVCL_QK];
        uint16_t half;
        memcpy(&half, w, sizeof half);
        v16 d = v16_set(kvcl_f16_to_f32(half));
        c32 q = type == KVCL_Q8_0 ? c32_q8_0(w) : type == KVCL_Q5_0 ? c32_q5_0(w) : c32_q4_0(w);
        c32_store_signed(type, codes, q);
        v16_store(out + k, v16_mul(v16_load_i8(codes), d));
        v16_store(out + k + 16, v16_mul(v16_load_i8(codes + 16), d));
    }
}

KVCL_INLINE void expand_floats(kvcl_type type, size_t size, const unsigned char *w, uint32_t n,
                               float *out)
{
    for (uint32_t k = 0; k < n; k += 16)
        v16_store(out + k, v16_load_type(type, w + k * size));
}

void KVCL_SIMD_FN(expand_row)(kvcl_type type, const unsigned char *w, uint32_t n, float *out)
{
    switch (type) {
    case KVCL_F32:
        expand_floats(KVCL_F32, 4, w, n, out);
        break;
    case KVCL_F16:
        expand_floats(KVCL_F16, 2, w, n, out);
        break;
    case KVCL_BF16:
        expand_floats(KVCL_BF16, 2, w, n, out);
        break;
    case KVCL_Q8_0:
        expand_blocks(KVCL_Q8_0, KVCL_Q8_0_BYTES, w, n, out);
        break;
    case KVCL_Q5_0:
        expand_blocks(KVCL_Q5_0, KVCL_Q5_0_BYTES, w, n, out);
        break;
    case KVCL_Q4_0:
        expand_blocks(KVCL_Q4_0, KVCL_Q4_0_BYTES, w, n, out);
        break;
    }
}
