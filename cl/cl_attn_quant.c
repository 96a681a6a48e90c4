/* cl_attn_quant.c - host half of cl/attn_quant.cl, cl/attn_quant_vec.cl and cl/attn_quant_mma.cl.
 */
#include "cl_launch.h"

#define GROUP 256
#define ROWS 4 /* as in the kernels */

/* Local memory of the lane shape: scores, four rows, lanes, statistics, levels; then the integers
 * of queries, or (PRE) queries and keys. */
static size_t lane_bytes(const kvcl_quant_shape *s)
{
    size_t D = s->head_dim, tile = D > 128 ? 16 : 32;
    size_t common = 16 * KVCL_BLOCK_TOKENS + 4 * ROWS * D + 1024 + 768 + 128;
    if (s->form == KVCL_QUANT_PRE)
        return common + D * (4 * ROWS + 2 * tile);
    return common + 2 * ROWS * D * (s->form == KVCL_QUANT_CHANNEL ? KVCL_BLOCK_PAGES : 1);
}

/* The tensor cores' kernel: NVIDIA from compute capability 8.0 on.  H200, 2026-11-22, one query, 32
 * query heads, 8 KV heads of 128, 131,072 tokens: POST 64 us (4 bits), 42 us (2 bits); CHANNEL 80
 * and 52 us; PRE, where every key is transformed and turned, 171 and 158 us. */
static bool takes_mma(const kvcl_cl_caps *caps, const kvcl_attn_quant_args *a)
{
    uint32_t D = a->shape.head_dim;
    if (!(caps->features & KVCL_CL_PTX) || caps->cc_major < 8 || a->pool.off % 16 != 0 || D % 64)
        return false;
    if (a->shape.form == KVCL_QUANT_PRE)
        return D <= 128 && (a->pairing == KVCL_ROPE_NONE || a->n_rot == D);
    return true;
}

static kvcl_status attn_quant_mma(kvcl_queue *q, const kvcl_attn_quant_args *a, uint32_t spec,
                                  size_t groups, uint32_t rows)
{
    uint32_t tiles = rows > ROWS && a->shape.head_dim <= 128 ? 2 : 1;
    kvcl_cl_launch l;
    if (a->shape.form == KVCL_QUANT_PRE) {
        tiles = 1;
        spec += (uint32_t)a->pairing << 16;
    }
    spec += a->shape.head_dim / 32 << 10 | tiles << 14;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_attn_quant_mma, spec, "kvcl_attn_quant_mma", &l));
    kvcl_cl_arg_coded(&l, &a->in, a->pool, a->means, a->table, a->n_rot, a->pairing);
    return kvcl_cl_run2(&l, groups * GROUP, kvcl_div_up(rows, ROWS * tiles), GROUP, 1);
}

kvcl_status kvcl_cl_attn_quant(kvcl_queue *q, const kvcl_attn_quant_args *a)
{
    const kvcl_attn_in *in = &a->in;
    const kvcl_quant_shape *s = &a->shape;
    uint32_t spec = s->bits_k + 16 * s->bits_v + 256 * (uint32_t)s->form;
    uint32_t blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t groups = (size_t)blocks * in->n_kv_heads;
    uint32_t rows = in->n * (in->n_q_heads / in->n_kv_heads);
    kvcl_cl_launch l;
    if (takes_mma(kvcl_cl_caps_of(q), a))
        return attn_quant_mma(q, a, spec, groups, rows);
    if (kvcl_cl_caps_of(q)->vector_shape) {
        KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_attn_quant_vec, spec, "kvcl_attn_quant_vec", &l));
        kvcl_cl_arg_coded(&l, &a->in, a->pool, a->means, a->table, a->n_rot, a->pairing);
        return kvcl_cl_run2(&l, groups, kvcl_div_up(rows, ROWS), 1, 1);
    }
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_attn_quant, spec, "kvcl_attn_quant", &l));
    size_t items = kvcl_cl_lanes_group(&l, GROUP);
    kvcl_cl_arg_coded(&l, &a->in, a->pool, a->means, a->table, a->n_rot, a->pairing);
    kvcl_cl_arg_local(&l, lane_bytes(s));
    return kvcl_cl_run2(&l, groups * items, kvcl_div_up(rows, ROWS), items, 1);
}
