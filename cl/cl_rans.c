/* cl_rans.c - host halves of cl/rans.cl. */
#include "cl_launch.h"

#define LANES 32

static void add_shape(kvcl_cl_launch *l, const kvcl_rans_shape *s)
{
    kvcl_cl_arg_u32(l, s->n_pages);
    kvcl_cl_arg_u32(l, s->n_rows);
    kvcl_cl_arg_u32(l, s->n_cols);
    kvcl_cl_arg_u32(l, s->model_stride);
    kvcl_cl_arg_u32(l, kvcl_rans_stride(s));
}

/* A group, or in the vector shape an item, per page. */
static kvcl_status run(kvcl_cl_launch *l, uint32_t n_pages, bool vector)
{
    size_t items = vector ? 1 : LANES;
    return kvcl_cl_run1(l, n_pages * items, items);
}

kvcl_status kvcl_cl_rans_enc(kvcl_queue *q, const kvcl_rans_enc_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_cl_launch l;
    KVCL_TRY(
        kvcl_cl_begin(q, KVCL_CL_STEM_rans, 0, vector ? "kvcl_rans_enc_vec" : "kvcl_rans_enc", &l));
    kvcl_cl_arg_view(&l, a->values, 1);
    kvcl_cl_arg_view(&l, a->models, 1);
    kvcl_cl_arg_view(&l, a->table, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->streams, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->used, sizeof(uint32_t));
    add_shape(&l, &a->shape);
    kvcl_cl_arg_u32(&l, a->slot_bytes);
    return run(&l, a->shape.n_pages, vector);
}

kvcl_status kvcl_cl_rans_dec(kvcl_queue *q, const kvcl_rans_dec_args *a)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_cl_launch l;
    KVCL_TRY(
        kvcl_cl_begin(q, KVCL_CL_STEM_rans, 0, vector ? "kvcl_rans_dec_vec" : "kvcl_rans_dec", &l));
    kvcl_cl_arg_view(&l, a->streams, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->places, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->models, 1);
    kvcl_cl_arg_view(&l, a->table, sizeof(uint32_t));
    kvcl_cl_arg_view(&l, a->values, 1);
    kvcl_cl_arg_view(&l, a->bad, sizeof(uint32_t));
    add_shape(&l, &a->shape);
    kvcl_cl_arg_u64(&l, a->streams.bytes);
    return run(&l, a->shape.n_pages, vector);
}
