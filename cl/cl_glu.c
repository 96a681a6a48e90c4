/* cl_glu.c - host half of cl/glu.cl. */
#include "cl_launch.h"

#define GROUP 64

kvcl_status kvcl_cl_add(kvcl_queue *q, const kvcl_add_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_glu, 0, "kvcl_add", &l));
    kvcl_cl_arg_view(&l, a->a, sizeof(float));
    kvcl_cl_arg_view(&l, a->b, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->dim);
    kvcl_cl_arg_u32(&l, a->stride);
    kvcl_cl_arg_u32(&l, a->b_is_row);
    return kvcl_cl_run2(&l, a->dim, a->n, GROUP, 1);
}

kvcl_status kvcl_cl_swiglu(kvcl_queue *q, const kvcl_swiglu_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_glu, 0, "kvcl_swiglu", &l));
    kvcl_cl_arg_view(&l, a->gate, sizeof(float));
    kvcl_cl_arg_view(&l, a->up, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n_elems);
    return kvcl_cl_run1(&l, a->n_elems, GROUP);
}

kvcl_status kvcl_cl_gelu(kvcl_queue *q, const kvcl_gelu_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_glu, 0, "kvcl_gelu_rows", &l));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n_elems);
    return kvcl_cl_run1(&l, a->n_elems, GROUP);
}
