// fwht.c - fast Walsh-Hadamard transform of rows.  Kernel: cl/fwht.cl; SIMD: cpu/simd_fwht.c
#include "rows.h"
#include "shared.h"

void kvcl_cpu_fwht(const void *args, kvcl_cpu_part *p)
{
    const kvcl_fwht_args *a = args;
    float *row = (float *)(void *)p->scratch;
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        const float *x = (const float *)kvcl_cpu_ptr(a->x) + (size_t)i * a->stride;
        float *out = (float *)kvcl_cpu_ptr(a->out) + (size_t)i * a->stride;
        memcpy(row, x, a->dim * sizeof *row);
        kvcl_cpu_fwht_row(row, a->dim);
        for (uint32_t k = 0; k < a->dim; k++)
            out[k] = kvcl_zero(row[k] * a->factor);
    }
}
