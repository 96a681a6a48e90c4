/* cl_quant.c - host halves of cl/quant.cl and cl/quant_vec.cl. */
#include "cl_launch.h"

#define GROUP 256

/* The arguments that both have, in the order of cl/pages.cl. */
static void add_common(kvcl_cl_launch *l, const kvcl_quant_shape *shape, kvcl_view k, kvcl_view v,
                       kvcl_view page_table, kvcl_view means, kvcl_view pool, kvcl_view pool_table,
                       uint32_t first_page, kvcl_type type_k, kvcl_type type_v, uint32_t n_skip)
{
    kvcl_cl_arg_view(l, k, 1);
    kvcl_cl_arg_view(l, v, 1);
    kvcl_cl_arg_view(l, page_table, sizeof(int32_t));
    kvcl_cl_arg_view(l, means, sizeof(float));
    kvcl_cl_arg_view(l, pool, 1);
    kvcl_cl_arg_view(l, pool_table, sizeof(int32_t));
    kvcl_cl_arg_u32(l, shape->n_kv_heads);
    kvcl_cl_arg_u32(l, shape->head_dim);
    kvcl_cl_arg_u32(l, shape->bits_k);
    kvcl_cl_arg_u32(l, shape->bits_v);
    kvcl_cl_arg_u32(l, (uint32_t)shape->form);
    kvcl_cl_arg_u32(l, first_page);
    kvcl_cl_arg_u32(l, (uint32_t)type_k);
    kvcl_cl_arg_u32(l, (uint32_t)type_v);
    kvcl_cl_arg_u32(l, n_skip);
}

/* A group, or in the vector shape an item, per page and head. */
static kvcl_status run(kvcl_cl_launch *l, const kvcl_quant_shape *shape, uint32_t n_pages,
                       bool vector)
{
    size_t groups = (size_t)n_pages * shape->n_kv_heads;
    size_t items = vector ? 1 : kvcl_cl_lanes_group(l, GROUP);
    return kvcl_cl_run1(l, groups * items, items);
}

kvcl_status kvcl_cl_quant_enc(kvcl_queue *q, const kvcl_quant_enc_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, vector ? KVCL_CL_STEM_quant_vec : KVCL_CL_STEM_quant, 0,
                           vector ? "kvcl_quant_enc_vec" : "kvcl_quant_enc", &l));
    add_common(&l, &a->shape, a->k, a->v, a->page_table, a->means, a->pool, a->pool_table,
               a->first_page, a->type_k, a->type_v, a->n_skip);
    kvcl_cl_arg_view(&l, a->bad, sizeof(int32_t));
    return run(&l, &a->shape, a->n_pages, vector);
}

kvcl_status kvcl_cl_quant_dec(kvcl_queue *q, const kvcl_quant_dec_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    bool turned = a->shape.form == KVCL_QUANT_PRE && a->table.buf && a->pairing != KVCL_ROPE_NONE;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, vector ? KVCL_CL_STEM_quant_vec : KVCL_CL_STEM_quant, 0,
                           vector ? "kvcl_quant_dec_vec" : "kvcl_quant_dec", &l));
    add_common(&l, &a->shape, a->k, a->v, a->page_table, a->means, a->pool, a->pool_table,
               a->first_page, a->type_k, a->type_v, 0);
    kvcl_cl_arg_view(&l, a->table, sizeof(float));
    kvcl_cl_arg_u32(&l, turned ? a->n_rot : 0);
    kvcl_cl_arg_u32(&l, (uint32_t)a->pairing);
    return run(&l, &a->shape, a->n_pages, vector);
}
