// glu.c - elementwise sums and activations.  Kernels: cl/glu.cl
#include "rows.h"
#include "shared.h"

#define ELEMS_PER_TASK 4096

void kvcl_cpu_add(const void *args, kvcl_cpu_part *p)
{
    const kvcl_add_args *a = args;
    const float *x = kvcl_cpu_ptr(a->a), *b = kvcl_cpu_ptr(a->b);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        const float *xi = x + (size_t)i * a->stride, *bi = a->b_is_row ? b : b + (size_t)i * a->dim;
        float *oi = out + (size_t)i * a->stride;
        for (uint32_t j = 0; j < a->dim; j++)
            oi[j] = xi[j] + bi[j];
    }
}

void kvcl_cpu_swiglu(const void *args, kvcl_cpu_part *p)
{
    const kvcl_swiglu_args *a = args;
    const float *gate = kvcl_cpu_ptr(a->gate), *up = kvcl_cpu_ptr(a->up);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n_elems, ELEMS_PER_TASK, &i, &end);)
        for (; i < end; i++)
            out[i] = kvcl_zero(kvcl_silu(gate[i]) * up[i]);
}

void kvcl_cpu_gelu(const void *args, kvcl_cpu_part *p)
{
    const kvcl_gelu_args *a = args;
    const float *x = kvcl_cpu_ptr(a->x);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n_elems, ELEMS_PER_TASK, &i, &end);)
        for (; i < end; i++)
            out[i] = kvcl_gelu(x[i]);
}
