/* cl_attn_spectral.c - host half of cl/attn_spectral.cl, cl/attn_spectral_vec.cl and
 * cl/attn_spectral_mma.cl. */
#include "cl_launch.h"

#define GROUP 256
#define ROWS 4 /* as in the kernels */

/* Local memory: scores, four rows twice, lanes, statistics; keys of a tile of
 * tokens, as coefficients and as values; slots of pages. */
static size_t lane_bytes(uint32_t head_dim)
{
    size_t D = head_dim, tile = D > 128 ? 8 : 16;
    return 16 * KVCL_BLOCK_TOKENS + 2 * 4 * ROWS * D + 1024 + 768 + D * tile * (4 + 2) +
           4 * KVCL_BLOCK_PAGES;
}

/* The tensor cores' kernel: NVIDIA from compute capability 8.0 on.  H200, 2026-11-30, one query, 32
 * query heads, 8 KV heads of 128, 131,072 tokens: 0.74 ms (fold 1) to 1.06 (fold 8). */
static bool takes_mma(const kvcl_cl_caps *caps, const kvcl_attn_spectral_args *a)
{
    uint32_t D = a->shape.head_dim;
    if (!(caps->features & KVCL_CL_PTX) || caps->cc_major < 8 || (D != 64 && D != 128))
        return false;
    if (a->pairing != KVCL_ROPE_NONE && (a->n_rot % 4 != 0 || a->table.off % 16 != 0))
        return false;
    return a->pool.off % 16 == 0 && a->basis.off % 16 == 0;
}

kvcl_status kvcl_cl_attn_spectral(kvcl_queue *q, const kvcl_attn_spectral_args *a)
{
    const kvcl_attn_in *in = &a->in;
    uint32_t blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t groups = (size_t)blocks * in->n_kv_heads, items = GROUP;
    uint32_t rows = in->n * (in->n_q_heads / in->n_kv_heads), spec = a->shape.fold;
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    uint32_t n_rot = a->pairing == KVCL_ROPE_NONE ? 0 : a->n_rot;
    bool mma = takes_mma(kvcl_cl_caps_of(q), a);
    kvcl_cl_launch l;
    if (mma) {
        spec += in->head_dim / 64 << 4 | (uint32_t)(a->pairing == KVCL_ROPE_HALVES) << 6;
        KVCL_TRY(
            kvcl_cl_begin(q, KVCL_CL_STEM_attn_spectral_mma, spec, "kvcl_attn_spectral_mma", &l));
    } else if (vector) {
        items = 1;
        KVCL_TRY(
            kvcl_cl_begin(q, KVCL_CL_STEM_attn_spectral_vec, spec, "kvcl_attn_spectral_vec", &l));
    } else {
        KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_attn_spectral, spec, "kvcl_attn_spectral", &l));
        items = kvcl_cl_lanes_group(&l, GROUP);
    }
    kvcl_cl_arg_coded(&l, in, a->pool, a->means, a->table, n_rot, a->pairing);
    kvcl_cl_arg_view(&l, a->basis, 1);
    kvcl_cl_arg_u32(&l, a->shape.words_k);
    kvcl_cl_arg_u32(&l, a->shape.words_v);
    if (!vector && !mma)
        kvcl_cl_arg_local(&l, lane_bytes(in->head_dim));
    return kvcl_cl_run2(&l, groups * items, kvcl_div_up(rows, ROWS), items, 1);
}
