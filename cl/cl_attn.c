/* cl_attn.c - host half of cl/attn.cl, cl/attn_vec.cl and cl/attn_warp.cl. */
#include "cl_defer.h"
#include "cl_launch.h"

#define GROUP 256
#define MERGE_DIMS 32 /* as in attn.cl */
#define CHUNK_ROWS 32 /* query heads, of several queries in prefill, of a group */

typedef struct variant {
    kvcl_cl_stem stem;
    uint32_t spec;
    const char *kernel;
} variant;

/* The kernel for pages of these types and heads of D dimensions. */
static variant variant_of(const kvcl_cl_caps *caps, const kvcl_attn_raw_args *a)
{
    uint32_t spec = (a->type_k == KVCL_F16 ? 1u : 0u) + (a->type_v == KVCL_F16 ? 2u : 0u);
    uint32_t D = a->in.head_dim;
    if (caps->vector_shape)
        return (variant){KVCL_CL_STEM_attn_vec, spec, "kvcl_attn_raw_vec"};
    if ((caps->features & KVCL_CL_PTX) && D % 32 == 0 && (a->k.off | a->v.off) % 8 == 0)
        return (variant){KVCL_CL_STEM_attn_warp, spec + 4 * D, "kvcl_attn_raw_warp"};
    return (variant){KVCL_CL_STEM_attn, spec, "kvcl_attn_raw"};
}

kvcl_status kvcl_cl_attn_raw(kvcl_queue *q, const kvcl_attn_raw_args *a)
{
    const kvcl_attn_in *in = &a->in;
    bool deferred;
    KVCL_TRY(kvcl_cl_defer_attn_raw(q, a, &deferred));
    if (deferred)
        return KVCL_OK;
    variant kernel = variant_of(kvcl_cl_caps_of(q), a);
    uint32_t n_blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t tasks = (size_t)n_blocks * in->n_kv_heads;
    size_t chunks = kvcl_div_up(in->n * (in->n_q_heads / in->n_kv_heads), CHUNK_ROWS);
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, kernel.stem, kernel.spec, kernel.kernel, &l));
    kvcl_cl_arg_view(&l, in->q, sizeof(float));
    kvcl_cl_arg_view(&l, a->k, 1);
    kvcl_cl_arg_view(&l, a->v, 1);
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
    kvcl_cl_arg_u32(&l, CHUNK_ROWS);
    if (kernel.stem == KVCL_CL_STEM_attn_vec)
        return kvcl_cl_run2(&l, tasks, chunks, 1, 1);
    size_t items = kvcl_cl_lanes_group(&l, GROUP);
    return kvcl_cl_run2(&l, tasks * items, chunks, items, 1);
}

kvcl_status kvcl_cl_attn_merge(kvcl_queue *q, const kvcl_attn_merge_args *a)
{
    bool deferred;
    KVCL_TRY(kvcl_cl_defer_attn_merge(q, a, &deferred));
    if (deferred)
        return KVCL_OK;
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    size_t rows = (size_t)a->n * a->n_q_heads;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, vector ? KVCL_CL_STEM_attn_vec : KVCL_CL_STEM_attn, 3,
                           vector ? "kvcl_attn_merge_vec" : "kvcl_attn_merge", &l));
    kvcl_cl_arg_view(&l, a->ml, sizeof(float));
    kvcl_cl_arg_view(&l, a->o, sizeof(float));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->n_before + 1 - a->last_begin / KVCL_BLOCK_TOKENS);
    kvcl_cl_arg_u32(&l, a->pos0);
    kvcl_cl_arg_u32(&l, a->n_parts);
    kvcl_cl_arg_u32(&l, a->n_q_heads);
    kvcl_cl_arg_u32(&l, a->head_dim);
    kvcl_cl_arg_u32(&l, a->out_stride);
    if (vector)
        return kvcl_cl_run1(&l, rows, 1);
    return kvcl_cl_run2(&l, (size_t)kvcl_div_up(a->head_dim, MERGE_DIMS) * GROUP, rows, GROUP, 1);
}
