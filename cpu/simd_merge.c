/* simd_merge.c - merges attention's partials.  Definition: cpu/attn.c */
#include "simd.h"

#define AHEAD 32 /* partials asked for while the weights are made */

/* Weights of n partials and the sum of their l: w [n rounded up to 16].  ml: (m, l) pairs. */
static float merge_weights(const float *ml, uint32_t n, float *w, float *l)
{
    float m_all = ml[0];
    for (uint32_t c = 1; c < n; c++)
        m_all = ml[2 * c] > m_all ? ml[2 * c] : m_all;
    for (uint32_t c = 0; c < n; c++) {
        w[c] = ml[2 * c];
        l[c] = ml[2 * c + 1];
    }
    for (uint32_t c = n; c % 16 != 0; c++) {
        w[c] = -INFINITY;
        l[c] = 0.0f;
    }
    for (uint32_t c = 0; c < n; c += 16) {
        v16 m = v16_load(w + c), e = v16_exp(v16_sub(m, v16_set(m_all)));
        v16_store(w + c, v16_select_lt(m, v16_set(-3e38f), v16_set(0.0f), e));
    }
    v8 sum = v8_zero();
    for (uint32_t c = 0; c < n; c += 8)
        sum = v8_fma(v8_load(w + c), v8_load(l + c), sum);
    return kvcl_zero(v8_tree(sum));
}

/* Eight dimensions: out = (sum over c of w[c] o[c]) * inv, in 8 lanes by c. */
KVCL_INLINE void merge_dims(const float *w, const float *o, uint32_t n, uint32_t D, float inv,
                            float *out)
{
    v8 acc[8];
    KVCL_UNROLL
    for (uint32_t j = 0; j < 8; j++)
        acc[j] = v8_zero();
    uint32_t c = 0;
    for (; c + 8 <= n; c += 8)
        KVCL_UNROLL
    for (uint32_t j = 0; j < 8; j++)
        acc[j] = v8_fma_scalar(v8_load(o + (size_t)(c + j) * D), w[c + j], acc[j]);
    KVCL_UNROLL
    for (uint32_t j = 0; j < 7; j++)
        if (c + j < n)
            acc[j] = v8_fma_scalar(v8_load(o + (size_t)(c + j) * D), w[c + j], acc[j]);
    KVCL_UNROLL
    for (uint32_t s = 4; s > 0; s /= 2)
        KVCL_UNROLL
    for (uint32_t j = 0; j < s; j++)
        acc[j] = v8_add(acc[j], acc[j + s]);
    float sum[8];
    v8_store(sum, acc[0]);
    for (uint32_t j = 0; j < 8; j++)
        out[j] = kvcl_zero(kvcl_zero(sum[j]) * inv);
}

void KVCL_SIMD_FN(attn_merge)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_merge_args *a = args;
    uint32_t D = a->head_dim, before = a->n_before + 1 - a->last_begin / KVCL_BLOCK_TOKENS;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n * a->n_q_heads, 1, &task, &end);) {
        uint32_t i = task / a->n_q_heads, h = task % a->n_q_heads;
        uint32_t n = before + (a->pos0 + i) / KVCL_BLOCK_TOKENS;
        const float *ml = (const float *)kvcl_cpu_ptr(a->ml) + (size_t)task * a->n_parts * 2;
        const float *o = (const float *)kvcl_cpu_ptr(a->o) + (size_t)task * a->n_parts * D;
        float *out = (float *)kvcl_cpu_ptr(a->out) + (size_t)i * a->out_stride + h * D;
        float *w = (float *)(void *)p->scratch, *l = w + kvcl_align_up(n, 16);
        for (uint32_t c = 0; c < kvcl_min_u32(n, AHEAD) * D; c += 16)
            __builtin_prefetch(o + c, 0, 3);
        float inv = kvcl_recip(merge_weights(ml, n, w, l));
        for (uint32_t d = 0; d < D; d += 8)
            merge_dims(w, o + d, n, D, inv, out + d);
    }
}
