/* simd_kv.c - sums of raw pages' rows.  Definition: cpu/kv.c
 *
 * Tokens that are left out become zeros: a lane starts from +0, which adding +0 never changes. */
#include "simd.h"

/* A page's K of a head, [D][64]: sums[d] += the tree of row d's lanes. */
static void sum_k(const float *k, uint32_t D, uint32_t n_skip, float *sums)
{
    for (uint32_t d = 0; d < D; d++) {
        float row[KVCL_TOKENS];
        v8 lanes = v8_zero();
        memcpy(row, k + (size_t)d * KVCL_TOKENS, sizeof row);
        memset(row, 0, n_skip * sizeof *row);
        KVCL_UNROLL
        for (uint32_t t = 0; t < KVCL_TOKENS; t += 8)
            lanes = v8_add(lanes, v8_load(row + t));
        sums[d] += kvcl_zero(v8_tree(lanes));
    }
}

/* A page's V of a head, [64][D]: the same, eight dimensions at a time. */
static void sum_v(const float *v, uint32_t D, uint32_t n_skip, float *sums)
{
    for (uint32_t d = 0; d < D; d += 8) {
        v8 lanes[8];
        float s[8];
        KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++)
            lanes[j] = v8_zero();
        for (uint32_t t = 0; t < KVCL_TOKENS; t += 8)
            KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++)
            if (t + j >= n_skip)
                lanes[j] = v8_add(lanes[j], v8_load(v + (size_t)(t + j) * D + d));
        KVCL_UNROLL
        for (uint32_t step = 4; step > 0; step /= 2)
            KVCL_UNROLL
        for (uint32_t j = 0; j < step; j++)
            lanes[j] = v8_add(lanes[j], lanes[j + step]);
        v8_store(s, lanes[0]);
        for (uint32_t j = 0; j < 8; j++)
            sums[d + j] += kvcl_zero(s[j]);
    }
}

void KVCL_SIMD_FN(kv_sum)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_kv_sum_args *a = args;
    const int32_t *slots = kvcl_cpu_ptr(a->page_table);
    uint32_t D = a->head_dim, Hk = a->n_kv_heads;
    float *x = (float *)(void *)p->scratch;
    for (uint32_t task, end; kvcl_cpu_take(p, 2 * Hk, 1, &task, &end);) {
        bool of_v = task >= Hk;
        kvcl_type type = of_v ? a->type_v : a->type_k;
        const unsigned char *pool = kvcl_cpu_ptr(of_v ? a->v : a->k);
        float *sums = (float *)kvcl_cpu_ptr(a->sums) + (size_t)task * D;
        for (uint32_t page = 0; page < a->n_pages; page++) {
            size_t at = ((size_t)slots[page] * Hk + task % Hk) * D * KVCL_TOKENS;
            KVCL_SIMD_FN(expand_row)(type, pool + kvcl_type_bytes(type, at), D * KVCL_TOKENS, x);
            (of_v ? sum_v : sum_k)(x, D, page == 0 ? a->n_skip : 0, sums);
        }
    }
}
