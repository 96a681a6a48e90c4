// norm.c - RMSNorm and LayerNorm of rows.  Kernels: cl/norm.cl
#include "rows.h"

void kvcl_cpu_norm(const void *args, kvcl_cpu_part *p)
{
    const kvcl_norm_args *a = args;
    const float *x = kvcl_cpu_ptr(a->x);
    float *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        size_t at = kvcl_norm_row_at(a, i);
        kvcl_cpu_norm_row(&a->spec, x + at, out + at, a->dim);
    }
}
