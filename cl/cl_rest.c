/* cl_rest.c - host halves of cl/rest.cl. */
#include "cl_launch.h"

#define GROUP 256

static void add_shape(kvcl_cl_launch *l, const kvcl_rest_shape *s)
{
    kvcl_cl_arg_u32(l, s->n_pages);
    kvcl_cl_arg_u32(l, s->n_rows);
    kvcl_cl_arg_u32(l, s->n_cols);
    kvcl_cl_arg_u32(l, s->n_parts);
    kvcl_cl_arg_u32(l, s->page_bytes);
}

/* A group per page. */
static kvcl_status run(kvcl_cl_launch *l, const kvcl_rest_shape *s)
{
    size_t items = kvcl_cl_lanes_group(l, GROUP);
    return kvcl_cl_run1(l, s->n_pages * items, items);
}

kvcl_status kvcl_cl_rest_quant(kvcl_queue *q, const kvcl_rest_quant_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_rest, 0, "kvcl_rest_quant", &l));
    kvcl_cl_arg_view(&l, a->coefs, sizeof(float));
    kvcl_cl_arg_view(&l, a->scales, sizeof(int16_t));
    kvcl_cl_arg_view(&l, a->costs, sizeof(uint16_t));
    kvcl_cl_arg_view(&l, a->values, 1);
    kvcl_cl_arg_view(&l, a->models, 1);
    kvcl_cl_arg_view(&l, a->gains, 1);
    kvcl_cl_arg_view(&l, a->rungs, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->used, sizeof(uint32_t));
    add_shape(&l, &a->shape);
    kvcl_cl_arg_u32(&l, a->budget);
    kvcl_cl_arg_u32(&l, a->fold);
    kvcl_cl_arg_f32(&l, a->round);
    return run(&l, &a->shape);
}

kvcl_status kvcl_cl_rest_store(kvcl_queue *q, const kvcl_rest_store_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_rest, 0, "kvcl_rest_store", &l));
    kvcl_cl_arg_view(&l, a->streams, 1);
    kvcl_cl_arg_view(&l, a->used, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->rungs, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->gains, 1);
    kvcl_cl_arg_view(&l, a->pool, 1);
    kvcl_cl_arg_view(&l, a->pool_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->bad, sizeof(int32_t));
    add_shape(&l, &a->shape);
    kvcl_cl_arg_u32(&l, a->n_heads);
    return run(&l, &a->shape);
}

kvcl_status kvcl_cl_rest_open(kvcl_queue *q, const kvcl_rest_open_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_rest, 0, "kvcl_rest_open", &l));
    kvcl_cl_arg_view(&l, a->pool, 1);
    kvcl_cl_arg_view(&l, a->pool_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->scales, sizeof(int16_t));
    kvcl_cl_arg_view(&l, a->places, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->models, 1);
    add_shape(&l, &a->shape);
    return run(&l, &a->shape);
}

kvcl_status kvcl_cl_rest_norms(kvcl_queue *q, const kvcl_rest_norms_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_rest, 0, "kvcl_rest_norms", &l));
    kvcl_cl_arg_view(&l, a->pool, 1);
    kvcl_cl_arg_view(&l, a->pool_table, sizeof(int32_t));
    kvcl_cl_arg_view(&l, a->bad, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->out, 1);
    kvcl_cl_arg_view(&l, a->fault, sizeof(uint32_t));
    add_shape(&l, &a->shape);
    kvcl_cl_arg_u32(&l, a->stride_bytes);
    kvcl_cl_arg_u32(&l, a->first_page);
    return run(&l, &a->shape);
}
