// rope.c - rotates queries and keys, stores keys and values in their pages.  Kernel: cl/rope.cl
#include "rows.h"
#include "shared.h"

// A token's key at `base` + t in a page of K, [D][64].
static void store_key(kvcl_type type, kvcl_view pool, size_t base, uint32_t D, uint32_t t,
                      const float *k)
{
    for (uint32_t d = 0; d < D; d++)
        kvcl_cpu_store(type, kvcl_cpu_ptr(pool), base + (size_t)d * KVCL_TOKENS + t, k[d]);
}

void kvcl_cpu_rope_store(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rope_store_args *a = args;
    uint32_t D = a->head_dim, Hq = a->n_q_heads, Hk = a->n_kv_heads;
    kvcl_rope_pairing pairing = a->table.buf ? a->pairing : KVCL_ROPE_NONE;
    const int32_t *pages = kvcl_cpu_ptr(a->page_table);
    float *turned = (float *)(void *)p->scratch;
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1, &i, &end);) {
        float *row = (float *)kvcl_cpu_ptr(a->qkv) + (size_t)i * a->qkv_stride;
        uint32_t pos = a->pos0 + i, t = pos % KVCL_TOKENS;
        const float *cs = kvcl_cpu_ptr(a->table);
        if (cs)
            cs += (size_t)pos * a->n_rot;
        size_t slot = (size_t)pages[pos / KVCL_TOKENS - a->first_page];
        for (uint32_t h = 0; h < Hq; h++)
            kvcl_cpu_turn(pairing, a->n_rot, cs, false, row + h * D);
        for (uint32_t h = 0; h < Hk; h++) {
            const float *k = row + (Hq + h) * D, *v = row + (Hq + Hk + h) * D;
            size_t base = (slot * Hk + h) * D * KVCL_TOKENS;
            if (a->ku.buf)
                store_key(a->type_ku, a->ku, base, D, t, k);
            memcpy(turned, k, D * sizeof *turned);
            kvcl_cpu_turn(pairing, a->n_rot, cs, false, turned);
            store_key(a->type_k, a->k, base, D, t, turned);
            for (uint32_t d = 0; d < D; d++)
                kvcl_cpu_store(a->type_v, kvcl_cpu_ptr(a->v), base + (size_t)t * D + d, v[d]);
        }
    }
}
