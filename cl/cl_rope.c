/* cl_rope.c - host half of cl/rope.cl. */
#include "cl_defer.h"
#include "cl_launch.h"

#define GROUP 64

kvcl_status kvcl_cl_rope_store(kvcl_queue *q, const kvcl_rope_store_args *a)
{
    bool deferred;
    KVCL_TRY(kvcl_cl_defer_rope_store(q, a, &deferred));
    if (deferred)
        return KVCL_OK;
    uint32_t spec = (a->type_k == KVCL_F16 ? 1u : 0u) + (a->type_v == KVCL_F16 ? 2u : 0u);
    if (a->ku.buf)
        spec += a->type_ku == KVCL_F16 ? 12u : 4u;
    size_t heads = (size_t)a->n_q_heads + 2 * (size_t)a->n_kv_heads;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_rope, spec, "kvcl_rope_store", &l));
    kvcl_cl_arg_view(&l, a->qkv, sizeof(float));
    kvcl_cl_arg_u32(&l, a->qkv_stride);
    kvcl_cl_arg_view(&l, a->table, sizeof(float));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->ku, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_u32(&l, a->first_page);
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->pos0);
    kvcl_cl_arg_u32(&l, a->n_q_heads);
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, a->n_rot);
    kvcl_cl_arg_u32(&l, (uint32_t)a->pairing);
    return kvcl_cl_run2(&l, heads * (a->head_dim / 2), a->n, GROUP, 1);
}
