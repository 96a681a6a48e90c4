/* cl_gram.c - host half of cl/gram.cl. */
#include "cl_launch.h"

#define GROUP 64
#define TILE 32

/* A group for each of n matrices and each of its tiles on or below the diagonal. */
static kvcl_status run_tiles(kvcl_cl_launch *l, size_t n, uint32_t head_dim)
{
    size_t tiles = kvcl_div_up(head_dim, TILE);
    return kvcl_cl_run2(l, n * GROUP, tiles * (tiles + 1) / 2, GROUP, 1);
}

kvcl_status kvcl_cl_gram_pages(kvcl_queue *q, const kvcl_gram_pages_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_gram, 0, "kvcl_gram_pages", &l));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->mean, sizeof(float));
    kvcl_cl_arg_view(&l, a->gram, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n_tokens);
    kvcl_cl_arg_u32(&l, a->n_skip);
    kvcl_cl_arg_u32(&l, a->fold);
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, a->join > 1 ? a->head_dim / a->join : a->head_dim);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_v);
    return run_tiles(&l, 2 * (size_t)a->n_kv_heads * a->fold, a->head_dim);
}

kvcl_status kvcl_cl_gram_rows(kvcl_queue *q, const kvcl_gram_rows_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_gram, 0, "kvcl_gram_rows", &l));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_view(&l, a->gram, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->stride);
    kvcl_cl_arg_u32(&l, a->n_q_heads / a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    return run_tiles(&l, a->n_kv_heads, a->head_dim);
}
