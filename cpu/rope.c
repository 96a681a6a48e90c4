// rope.c - rotates queries and keys, stores keys and values in their pages.  Kernel: cl/rope.cl
#include "rows.h"
#include "shared.h"

// One head of D values: rotated by the table row cs, or copied.
static void rotate(const kvcl_rope_store_args *a, const float *cs, const float *x, float *out)
{
    memmove(out, x, a->head_dim * sizeof *x);
    if (a->pairing == KVCL_ROPE_NONE || !cs)
        return;
    for (uint32_t i = 0; i < a->n_rot / 2; i++) {
        bool adjacent = a->pairing == KVCL_ROPE_ADJACENT;
        uint32_t ia = adjacent ? 2 * i : i, ib = adjacent ? 2 * i + 1 : i + a->n_rot / 2;
        float xa = x[ia], xb = x[ib], c = cs[2 * i], s = cs[2 * i + 1];
        out[ia] = kvcl_zero(fmaf(xa, c, -(xb * s)));
        out[ib] = kvcl_zero(fmaf(xb, c, xa * s));
    }
}

static void store(kvcl_type type, void *pool, size_t at, float x)
{
    if (type == KVCL_F16)
        ((uint16_t *)pool)[at] = kvcl_f32_to_f16(x);
    else
        ((float *)pool)[at] = x;
}

void kvcl_cpu_rope_store(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rope_store_args *a = args;
    uint32_t D = a->head_dim, Hq = a->n_q_heads, Hk = a->n_kv_heads;
    const int32_t *pages = kvcl_cpu_ptr(a->page_table);
    float *turned = (float *)(void *)p->scratch;
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        float *row = (float *)kvcl_cpu_ptr(a->qkv) + (size_t)i * a->qkv_stride;
        uint32_t pos = a->pos0 + i, t = pos % KVCL_TOKENS;
        const float *cs = kvcl_cpu_ptr(a->table);
        if (cs)
            cs += (size_t)pos * a->n_rot;
        size_t slot = (size_t)pages[pos / KVCL_TOKENS - a->first_page];
        for (uint32_t h = 0; h < Hq; h++) {
            rotate(a, cs, row + h * D, turned);
            memcpy(row + h * D, turned, D * sizeof *turned);
        }
        for (uint32_t h = 0; h < Hk; h++) {
            const float *k = row + (Hq + h) * D, *v = row + (Hq + Hk + h) * D;
            size_t base = (slot * Hk + h) * D * KVCL_TOKENS;
            rotate(a, cs, k, turned);
            for (uint32_t d = 0; d < D; d++) {
                store(a->type_k, kvcl_cpu_ptr(a->k), base + (size_t)d * KVCL_TOKENS + t, turned[d]);
                store(a->type_v, kvcl_cpu_ptr(a->v), base + (size_t)t * D + d, v[d]);
            }
        }
    }
}
