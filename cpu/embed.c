// embed.c - rows of an embedding table, dequantised.  Kernel: cl/embed.cl
#include "rows.h"

static bool row_of(const kvcl_mat *m, int32_t id, float *out)
{
    if (id < 0 || (uint32_t)id >= m->rows)
        return false;
    size_t row_bytes = kvcl_type_bytes(m->type, m->cols);
    kvcl_dequantise(m->type, kvcl_cpu_rows(m) + (size_t)id * row_bytes, m->cols, out);
    return true;
}

void kvcl_cpu_embed_rows(const void *args, kvcl_cpu_part *p)
{
    const kvcl_embed_rows_args *a = args;
    const int32_t *ids = kvcl_cpu_ptr(a->ids);
    uint32_t dim = a->table->cols;
    float *pos = (float *)(void *)p->scratch;
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        float *out = (float *)kvcl_cpu_ptr(a->out) + (size_t)i * dim;
        if (!row_of(a->table, ids[i], out))
            memset(out, 0, dim * sizeof *out);
        if (a->pos_table && row_of(a->pos_table, (int32_t)(a->pos0 + i), pos))
            for (uint32_t e = 0; e < dim; e++)
                out[e] = out[e] + pos[e];
    }
}
