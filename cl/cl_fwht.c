/* cl_fwht.c - host half of cl/fwht.cl. */
#include "cl_launch.h"

#define REST_GROUP 256
#define ELEMENTS_PER_ITEM 4096 /* vector shape: short rows go together */

/* log2 of the elements that a group transforms in local memory: 8192 for the rows that fill them
 * (a 16th more for the gaps), where the device has that much. */
static uint32_t log_tile(const kvcl_cl_caps *caps, uint32_t dim)
{
    return dim >= 8192 && caps->local_bytes >= 34816 + 1024 && caps->max_group >= 512 ? 13 : 12;
}

static bool aligned(kvcl_view v, uint32_t stride) { return v.off % 16 == 0 && stride % 4 == 0; }

static void add_args(kvcl_cl_launch *l, const kvcl_fwht_args *a, float factor)
{
    kvcl_cl_arg_u32(l, a->n);
    kvcl_cl_arg_u32(l, a->dim);
    kvcl_cl_arg_u32(l, a->stride);
    kvcl_cl_arg_f32(l, factor);
}

static kvcl_status fwht_vec(kvcl_queue *q, const kvcl_fwht_args *a)
{
    uint32_t n_rows = kvcl_max_u32(1, ELEMENTS_PER_ITEM / a->dim);
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_fwht, 12, "kvcl_fwht_vec", &l));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    add_args(&l, a, a->factor);
    kvcl_cl_arg_u32(&l, n_rows);
    return kvcl_cl_run1(&l, kvcl_div_up(a->n, n_rows), 1);
}

kvcl_status kvcl_cl_fwht(kvcl_queue *q, const kvcl_fwht_args *a)
{
    const kvcl_cl_caps *caps = kvcl_cl_caps_of(q);
    kvcl_cl_launch l;
    if (caps->vector_shape)
        return fwht_vec(q, a);
    uint32_t log = log_tile(caps, a->dim), tile = 1u << log;
    bool whole = a->dim <= tile;
    size_t groups = whole ? kvcl_div_up(a->n, tile / a->dim) : (size_t)a->n * (a->dim / tile);
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_fwht, log, "kvcl_fwht", &l));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    add_args(&l, a, whole ? a->factor : 1.0f);
    kvcl_cl_arg_u32(&l, aligned(a->x, a->stride) && aligned(a->out, a->stride));
    size_t items = kvcl_cl_lanes_group(&l, tile / 16);
    KVCL_TRY(kvcl_cl_run1(&l, groups * items, items));
    if (whole)
        return KVCL_OK;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_fwht, log, "kvcl_fwht_rest", &l));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->dim / tile);
    kvcl_cl_arg_u32(&l, a->stride);
    kvcl_cl_arg_f32(&l, a->factor);
    kvcl_cl_arg_u32(&l, aligned(a->out, a->stride));
    return kvcl_cl_run1(&l, (size_t)a->n * (tile / 4), REST_GROUP);
}
