/* simd_glu.c - elementwise sums and activations.  Definition: cpu/glu.c */
#include "simd.h"

#define ELEMS_PER_TASK 8192

void KVCL_SIMD_FN(swiglu_row)(const float *gate, const float *up, float *out, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 y = v16_mul(v16_silu(v16_load(gate + i)), v16_load(up + i));
        v16_store(out + i, v16_plus_zero(y));
    }
    for (; i < n; i++)
        out[i] = kvcl_zero(kvcl_silu(gate[i]) * up[i]);
}

void KVCL_SIMD_FN(gelu_row)(const float *x, float *out, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(out + i, v16_gelu(v16_load(x + i)));
    for (; i < n; i++)
        out[i] = kvcl_gelu(x[i]);
}

void KVCL_SIMD_FN(add)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_add_args *a = args;
    const float *x = kvcl_cpu_ptr(a->a), *b = kvcl_cpu_ptr(a->b);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        const float *xi = x + (size_t)i * a->stride, *bi = a->b_is_row ? b : b + (size_t)i * a->dim;
        float *oi = out + (size_t)i * a->stride;
        uint32_t j = 0;
        for (; j + 16 <= a->dim; j += 16)
            v16_store(oi + j, v16_add(v16_load(xi + j), v16_load(bi + j)));
        for (; j < a->dim; j++)
            oi[j] = xi[j] + bi[j];
    }
}

void KVCL_SIMD_FN(swiglu)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_swiglu_args *a = args;
    const float *gate = kvcl_cpu_ptr(a->gate), *up = kvcl_cpu_ptr(a->up);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n_elems, ELEMS_PER_TASK, &i, &end);)
        KVCL_SIMD_FN(swiglu_row)(gate + i, up + i, out + i, end - i);
}

void KVCL_SIMD_FN(gelu)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_gelu_args *a = args;
    const float *x = kvcl_cpu_ptr(a->x);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n_elems, ELEMS_PER_TASK, &i, &end);)
        KVCL_SIMD_FN(gelu_row)(x + i, out + i, end - i);
}
