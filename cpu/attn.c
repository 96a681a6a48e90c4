// attn.c - attention by partials over raw pages, and their merge.  Kernels: cl/attn.cl; SIMD:
// cpu/simd_attn.c
#include "rows.h"
#include "shared.h"

static float load(kvcl_type type, const void *pool, size_t at)
{
    return type == KVCL_F16 ? kvcl_f16_to_f32(((const uint16_t *)pool)[at])
                            : ((const float *)pool)[at];
}

// Scores of n_valid tokens of one page, then p[t] = exp(s[t] - m) in place; returns m.
static float weights(const kvcl_attn_raw_args *a, const float *q, size_t base, uint32_t n_valid,
                     float *s)
{
    const void *k = kvcl_cpu_ptr(a->k);
    float m = 0.0f;
    for (uint32_t t = 0; t < n_valid; t++) {
        float acc = 0.0f;
        for (uint32_t d = 0; d < a->head_dim; d++)
            acc =
                fmaf(q[d] * a->scale, load(a->type_k, k, base + (size_t)d * KVCL_TOKENS + t), acc);
        s[t] = kvcl_zero(acc);
        m = t == 0 || s[t] > m ? s[t] : m;
    }
    for (uint32_t t = 0; t < n_valid; t++)
        s[t] = kvcl_exp(s[t] - m);
    return m;
}

// Partial of one query head over one page whose first n_valid tokens it sees.
static void partial(const kvcl_attn_raw_args *a, const float *q, size_t base, uint32_t n_valid,
                    float *ml, float *o)
{
    float p[KVCL_TOKENS], lanes[KVCL_ATTN_LANES] = {0};
    const void *v = kvcl_cpu_ptr(a->v);
    ml[0] = weights(a, q, base, n_valid, p);
    for (uint32_t t = 0; t < n_valid; t++)
        lanes[t % KVCL_ATTN_LANES] += p[t];
    ml[1] = kvcl_cpu_tree(lanes, KVCL_ATTN_LANES);
    for (uint32_t d = 0; d < a->head_dim; d++) {
        memset(lanes, 0, sizeof lanes);
        for (uint32_t t = 0; t < n_valid; t++) {
            float vt = load(a->type_v, v, base + (size_t)t * a->head_dim + d);
            lanes[t % KVCL_ATTN_LANES] = fmaf(p[t], vt, lanes[t % KVCL_ATTN_LANES]);
        }
        o[d] = kvcl_cpu_tree(lanes, KVCL_ATTN_LANES);
    }
}

void kvcl_cpu_attn_raw(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_raw_args *a = args;
    const int32_t *pages = kvcl_cpu_ptr(a->page_table);
    uint32_t D = a->head_dim, G = a->n_q_heads / a->n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * a->n_kv_heads, 1, &task, &end);) {
        uint32_t i_page = task / a->n_kv_heads, hk = task % a->n_kv_heads;
        uint32_t page = a->first_page + i_page, begin = page * KVCL_TOKENS;
        size_t base = ((size_t)pages[i_page] * a->n_kv_heads + hk) * D * KVCL_TOKENS;
        for (uint32_t i = begin > a->pos0 ? begin - a->pos0 : 0; i < a->n; i++) {
            uint32_t n_valid = kvcl_min_u32(a->pos0 + i - begin + 1, KVCL_TOKENS);
            for (uint32_t h = hk * G; h < (hk + 1) * G; h++) {
                size_t at = ((size_t)i * a->n_q_heads + h) * a->n_parts + page;
                const float *q = (const float *)kvcl_cpu_ptr(a->q) + (size_t)i * a->q_stride;
                partial(a, q + h * D, base, n_valid, (float *)kvcl_cpu_ptr(a->ml) + 2 * at,
                        (float *)kvcl_cpu_ptr(a->o) + at * D);
            }
        }
    }
}

// Weight of a partial against the overall maximum.
static float merge_weight(float m, float m_all) { return m < -3e38f ? 0.0f : kvcl_exp(m - m_all); }

void kvcl_cpu_attn_merge(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_merge_args *a = args;
    uint32_t D = a->head_dim;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n * a->n_q_heads, 1, &task, &end);) {
        uint32_t i = task / a->n_q_heads, h = task % a->n_q_heads;
        uint32_t n_c = (a->pos0 + i) / KVCL_TOKENS + 1;
        const float *ml = (const float *)kvcl_cpu_ptr(a->ml) + (size_t)task * a->n_parts * 2;
        const float *o = (const float *)kvcl_cpu_ptr(a->o) + (size_t)task * a->n_parts * D;
        float *out = (float *)kvcl_cpu_ptr(a->out) + (size_t)i * a->out_stride + h * D;
        float m_all = ml[0], lanes[KVCL_ATTN_LANES] = {0};
        for (uint32_t c = 1; c < n_c; c++)
            m_all = ml[2 * c] > m_all ? ml[2 * c] : m_all;
        for (uint32_t c = 0; c < n_c; c++)
            lanes[c % KVCL_ATTN_LANES] =
                fmaf(merge_weight(ml[2 * c], m_all), ml[2 * c + 1], lanes[c % KVCL_ATTN_LANES]);
        float inv = kvcl_recip(kvcl_cpu_tree(lanes, KVCL_ATTN_LANES));
        for (uint32_t d = 0; d < D; d++) {
            memset(lanes, 0, sizeof lanes);
            for (uint32_t c = 0; c < n_c; c++)
                lanes[c % KVCL_ATTN_LANES] =
                    fmaf(merge_weight(ml[2 * c], m_all), o[c * D + d], lanes[c % KVCL_ATTN_LANES]);
            out[d] = kvcl_zero(kvcl_cpu_tree(lanes, KVCL_ATTN_LANES) * inv);
        }
    }
}
