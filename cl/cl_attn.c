/* cl_attn.c - host half of cl/attn.cl. */
#include "cl_launch.h"

#define GROUP 256
#define MERGE_DIMS 32 /* as in attn.cl */
#define ROWS_PER_BLOCK \
    64 /* query heads, of several queries in prefill, that share a page's reads */

kvcl_status kvcl_cl_attn_raw(kvcl_queue *q, const kvcl_attn_raw_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    uint32_t spec = (a->type_k == KVCL_F16 ? 1u : 0u) + (a->type_v == KVCL_F16 ? 2u : 0u);
    uint32_t q_block = kvcl_max_u32(1, ROWS_PER_BLOCK / (a->n_q_heads / a->n_kv_heads));
    size_t pages = (size_t)a->n_pages * a->n_kv_heads, blocks = kvcl_div_up(a->n, q_block);
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_attn, spec,
                           vector ? "kvcl_attn_raw_vec" : "kvcl_attn_raw", &l));
    kvcl_cl_arg_view(&l, a->q, sizeof(float));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->ml, sizeof(float));
    kvcl_cl_arg_view(&l, a->o, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->q_stride);
    kvcl_cl_arg_u32(&l, a->pos0);
    kvcl_cl_arg_u32(&l, a->n_q_heads);
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, a->first_page);
    kvcl_cl_arg_u32(&l, a->n_pages);
    kvcl_cl_arg_u32(&l, a->n_parts);
    kvcl_cl_arg_f32(&l, a->scale);
    kvcl_cl_arg_u32(&l, q_block);
    if (vector)
        return kvcl_cl_run2(&l, pages, blocks, 1, 1);
    size_t items = kvcl_cl_lanes_group(&l, GROUP);
    return kvcl_cl_run2(&l, pages * items, blocks, items, 1);
}

kvcl_status kvcl_cl_attn_merge(kvcl_queue *q, const kvcl_attn_merge_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    size_t rows = (size_t)a->n * a->n_q_heads;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_attn, 3,
                           vector ? "kvcl_attn_merge_vec" : "kvcl_attn_merge", &l));
    kvcl_cl_arg_view(&l, a->ml, sizeof(float));
    kvcl_cl_arg_view(&l, a->o, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->pos0);
    kvcl_cl_arg_u32(&l, a->n_parts);
    kvcl_cl_arg_u32(&l, a->n_q_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, a->out_stride);
    if (vector)
        return kvcl_cl_run1(&l, rows, 1);
    return kvcl_cl_run2(&l, (size_t)kvcl_div_up(a->head_dim, MERGE_DIMS) * GROUP, rows, GROUP, 1);
}
