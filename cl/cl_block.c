/* cl_block.c - host halves of cl/block.cl and cl/block_vec.cl. */
#include "cl_launch.h"

#define GROUP 256
#define CHUNK_ROWS 32    /* query heads, of several queries in prefill, of a group */
#define CHUNK_ROWS_VEC 8 /* ROWS of block_vec.cl */

static kvcl_status begin(kvcl_queue *q, const char *lane, const char *vec, kvcl_cl_launch *l)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    return kvcl_cl_begin(q, vector ? KVCL_CL_STEM_block_vec : KVCL_CL_STEM_block, 0,
                         vector ? vec : lane, l);
}

/* A group, or in the vector shape an item, per page and head. */
static kvcl_status run_pages(kvcl_cl_launch *l, size_t groups)
{
    bool vector = kvcl_cl_caps_of(l->q)->vector_shape;
    size_t items = vector ? 1 : kvcl_cl_lanes_group(l, GROUP);
    return kvcl_cl_run1(l, groups * items, items);
}

kvcl_status kvcl_cl_block_enc(kvcl_queue *q, const kvcl_block_enc_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, "kvcl_block_enc", "kvcl_block_enc_vec", &l));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->pool, 1);
    kvcl_cl_arg_view(&l, a->pool_table, sizeof(int32_t));
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_v);
    kvcl_cl_arg_u32(&l, (uint32_t)a->block_type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->block_type_v);
    kvcl_cl_arg_view(&l, a->bad, sizeof(int32_t));
    return run_pages(&l, (size_t)a->n_pages * a->n_kv_heads);
}

kvcl_status kvcl_cl_block_dec(kvcl_queue *q, const kvcl_block_dec_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, "kvcl_block_dec", "kvcl_block_dec_vec", &l));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
    kvcl_cl_arg_view(&l, a->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->pool, 1);
    kvcl_cl_arg_view(&l, a->pool_table, sizeof(int32_t));
    kvcl_cl_arg_u32(&l, a->n_kv_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->type_v);
    kvcl_cl_arg_u32(&l, (uint32_t)a->block_type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->block_type_v);
    return run_pages(&l, (size_t)a->n_pages * a->n_kv_heads);
}

kvcl_status kvcl_cl_attn_block(kvcl_queue *q, const kvcl_attn_block_args *a)
{
    const kvcl_attn_in *in = &a->in;
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    uint32_t chunk = vector ? CHUNK_ROWS_VEC : CHUNK_ROWS;
    uint32_t n_blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t tasks = (size_t)n_blocks * in->n_kv_heads;
    size_t chunks = kvcl_div_up(in->n * (in->n_q_heads / in->n_kv_heads), chunk);
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, "kvcl_attn_block", "kvcl_attn_block_vec", &l));
    kvcl_cl_arg_view(&l, in->q, sizeof(float));
    kvcl_cl_arg_view(&l, a->pool, 1);
    kvcl_cl_arg_view(&l, in->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, in->ml, sizeof(float));
    kvcl_cl_arg_view(&l, in->o, sizeof(float));
    kvcl_cl_arg_u32(&l, in->n);
    kvcl_cl_arg_u32(&l, in->q_stride);
    kvcl_cl_arg_u32(&l, in->pos0);
    kvcl_cl_arg_u32(&l, in->n_q_heads);
    kvcl_cl_arg_u32(&l, in->n_kv_heads);
    kvcl_cl_arg_u32(&l, in->head_dim);
    kvcl_cl_arg_u32(&l, in->begin);
    kvcl_cl_arg_u32(&l, in->end);
    kvcl_cl_arg_u32(&l, in->first_part);
    kvcl_cl_arg_u32(&l, in->n_parts);
    kvcl_cl_arg_f32(&l, in->scale);
    kvcl_cl_arg_u32(&l, chunk);
    kvcl_cl_arg_u32(&l, (uint32_t)a->block_type_k);
    kvcl_cl_arg_u32(&l, (uint32_t)a->block_type_v);
    if (vector)
        return kvcl_cl_run2(&l, tasks, chunks, 1, 1);
    size_t items = kvcl_cl_lanes_group(&l, GROUP);
    return kvcl_cl_run2(&l, tasks * items, chunks, items, 1);
}
