// matmul.c - prefill's linear layer.  Kernels: cl/matmul.cl; SIMD: cpu/simd_matmul.c
#include "rows.h"
#include "shared.h"

void kvcl_cpu_matmul(const void *args, kvcl_cpu_part *p)
{
    const kvcl_matmul_args *a = args;
    uint32_t cols = a->w->cols;
    size_t row_bytes = kvcl_type_bytes(a->w->type, cols);
    float *w = (float *)(void *)p->scratch;
    for (uint32_t r, end; kvcl_cpu_take(p, a->w->rows, 1, &r, &end);) {
        kvcl_dequantise(a->w->type, kvcl_cpu_rows(a->w) + r * row_bytes, cols, w);
        for (uint32_t i = 0; i < a->n; i++) {
            const float *x = (const float *)kvcl_cpu_ptr(a->x) + (size_t)i * a->x_stride;
            float acc = 0.0f;
            for (uint32_t k = 0; k < cols; k++)
                acc = fmaf(w[k], x[k], acc);
            ((float *)kvcl_cpu_ptr(a->out))[(size_t)i * a->out_stride + r] = kvcl_zero(acc);
        }
    }
}
