/* cl_kv.c - host half of cl/kv.cl. */
#include "cl_launch.h"

#define GROUP 64

kvcl_status kvcl_cl_kv_sum(kvcl_queue *q, const kvcl_kv_sum_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_kv, 0, "kvcl_kv_sum", &l));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->sums, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n_pages);
    kvcl_cl_arg_u32(&l, a->n_skip);
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_v);
    return kvcl_cl_run1(&l, 2 * (size_t)a->n_kv_heads * a->head_dim, GROUP);
}

kvcl_status kvcl_cl_kv_mean(kvcl_queue *q, const kvcl_kv_mean_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_kv, 0, "kvcl_kv_mean", &l));
    kvcl_cl_arg_view(&l, a->sums, sizeof(float));
    kvcl_cl_arg_view(&l, a->mean, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_f32(&l, a->factor);
    return kvcl_cl_run1(&l, a->n, GROUP);
}

kvcl_status kvcl_cl_kv_error(kvcl_queue *q, const kvcl_kv_error_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_kv, 0, "kvcl_kv_error", &l));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->ka, 1);
    kvcl_cl_arg_view(&l, a->va, 1);
    kvcl_cl_arg_view(&l, a->page_table_a, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->err, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n_skip);
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_v);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_ka);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_va);
    return kvcl_cl_run2(&l, (size_t)a->n_pages * a->n_kv_heads * GROUP, 4, GROUP, 1);
}
