/* cl_attn_spectral.c - host half of cl/attn_spectral.cl and cl/attn_spectral_vec.cl. */
#include "cl_launch.h"

#define GROUP 256
#define ROWS 4 /* as in the kernels */

/* Local memory: scores, four rows twice, lanes, statistics; keys of a tile of
 * tokens, as coefficients and as values. */
static size_t lane_bytes(uint32_t head_dim)
{
    size_t D = head_dim, tile = D > 128 ? 8 : 16;
    return 16 * KVCL_BLOCK_TOKENS + 2 * 4 * ROWS * D + 1024 + 768 + D * tile * (4 + 2);
}

kvcl_status kvcl_cl_attn_spectral(kvcl_queue *q, const kvcl_attn_spectral_args *a)
{
    const kvcl_attn_in *in = &a->in;
    uint32_t blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t groups = (size_t)blocks * in->n_kv_heads;
    uint32_t rows = in->n * (in->n_q_heads / in->n_kv_heads), fold = a->shape.fold;
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, vector ? KVCL_CL_STEM_attn_spectral_vec : KVCL_CL_STEM_attn_spectral,
                           fold, vector ? "kvcl_attn_spectral_vec" : "kvcl_attn_spectral", &l));
    size_t items = vector ? 1 : kvcl_cl_lanes_group(&l, GROUP);
    uint32_t n_rot = a->pairing == KVCL_ROPE_NONE ? 0 : a->n_rot;
    kvcl_cl_arg_coded(&l, in, a->pool, a->means, a->table, n_rot, a->pairing);
    kvcl_cl_arg_view(&l, a->basis, 1);
    kvcl_cl_arg_u32(&l, a->shape.words_k);
    kvcl_cl_arg_u32(&l, a->shape.words_v);
    if (!vector)
        kvcl_cl_arg_local(&l, lane_bytes(in->head_dim));
    return kvcl_cl_run2(&l, groups * items, kvcl_div_up(rows, ROWS), items, 1);
}
