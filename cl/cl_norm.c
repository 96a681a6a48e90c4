/* cl_norm.c - host half of cl/norm.cl. */
#include "cl_launch.h"

#define GROUP 256
#define SMALL_GROUP 64 /* for rows as short as a head */

kvcl_status kvcl_cl_norm(kvcl_queue *q, const kvcl_norm_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_norm, 0, vector ? "kvcl_norm_vec" : "kvcl_norm", &l));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_view(&l, a->spec.weight, sizeof(float));
    kvcl_cl_arg_view(&l, a->spec.bias, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->dim);
    kvcl_cl_arg_u32(&l, (uint32_t)a->spec.kind);
    kvcl_cl_arg_f32(&l, a->spec.eps);
    kvcl_cl_arg_f32(&l, a->dim ? 1.0f / (float)a->dim : 0.0f);
    kvcl_cl_arg_u32(&l, a->n_group);
    kvcl_cl_arg_u32(&l, a->stride);
    if (vector)
        return kvcl_cl_run1(&l, a->n, 1);
    size_t items = kvcl_cl_lanes_group(&l, a->dim <= GROUP ? SMALL_GROUP : GROUP);
    return kvcl_cl_run1(&l, a->n * items, items);
}
