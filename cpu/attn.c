// attn.c - attention by block partials over raw pages, and their merge.  Kernels: cl/attn.cl; SIMD:
// cpu/simd_attn.c, cpu/simd_attn_tile.c, cpu/simd_merge.c
#include "partial.h"

void kvcl_cpu_attn_page(const kvcl_cpu_attn_rows *r, const float *qs, uint32_t c, uint32_t begin,
                        uint32_t end, kvcl_cpu_attn_pages *out)
{
    uint32_t D = r->head_dim;
    float p[KVCL_TOKENS], lanes[KVCL_ATTN_LANES];
    for (uint32_t t = begin; t < end; t++) {
        float acc = 0.0f;
        for (uint32_t d = 0; d < D; d++)
            acc = fmaf(qs[d],
                       kvcl_cpu_load(r->type_k, r->k, r->first + (size_t)d * KVCL_TOKENS + t), acc);
        p[t] = kvcl_zero(acc);
    }
    kvcl_cpu_attn_weights(out, c, p, begin, end);
    for (uint32_t d = 0; d < D; d++) {
        memset(lanes, 0, sizeof lanes);
        for (uint32_t t = begin; t < end; t++) {
            float vt = kvcl_cpu_load(r->type_v, r->v, r->first + (size_t)t * D + d);
            lanes[t % KVCL_ATTN_LANES] = fmaf(p[t], vt, lanes[t % KVCL_ATTN_LANES]);
        }
        out->o[c][d] = kvcl_cpu_tree(lanes, KVCL_ATTN_LANES);
    }
}

// The block's partial of query i, head h; a block of which it sees nothing stays unwritten.
static void block_partial(const kvcl_attn_raw_args *a, const kvcl_cpu_attn_task *task, uint32_t i,
                          uint32_t h)
{
    const kvcl_attn_in *in = &a->in;
    kvcl_cpu_attn_pages pages = {0};
    kvcl_cpu_attn_rows rows = {.k = kvcl_cpu_ptr(a->k),
                               .v = kvcl_cpu_ptr(a->v),
                               .type_k = a->type_k,
                               .type_v = a->type_v,
                               .head_dim = in->head_dim};
    float qs[256];
    bool any = false;
    kvcl_cpu_attn_query(in, i, h, qs);
    for (uint32_t page = task->first_page; page < task->end_page; page++) {
        uint32_t begin, end;
        if (!kvcl_cpu_attn_sees(in, page, i, &begin, &end))
            continue;
        rows.first =
            (kvcl_cpu_attn_slot(in, page) * in->n_kv_heads + task->hk) * in->head_dim * KVCL_TOKENS;
        kvcl_cpu_attn_page(&rows, qs, page % KVCL_BLOCK, begin, end, &pages);
        any = true;
    }
    if (any)
        kvcl_cpu_attn_merge_pages(&pages, in->head_dim, kvcl_cpu_attn_ml(in, i, h, task->part),
                                  kvcl_cpu_attn_o(in, i, h, task->part));
}

void kvcl_cpu_attn_raw(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_raw_args *a = args;
    uint32_t G = a->in.n_q_heads / a->in.n_kv_heads;
    for (kvcl_cpu_attn_task task; kvcl_cpu_attn_take(&a->in, p, &task);)
        for (uint32_t i = 0; i < a->in.n; i++)
            for (uint32_t h = task.hk * G; h < (task.hk + 1) * G; h++)
                block_partial(a, &task, i, h);
}

// Weight of a partial against the overall maximum.
static float merge_weight(float m, float m_all) { return m < -3e38f ? 0.0f : kvcl_exp(m - m_all); }

void kvcl_cpu_attn_merge(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_merge_args *a = args;
    uint32_t D = a->head_dim, before = a->n_before + 1 - a->last_begin / KVCL_BLOCK_TOKENS;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n * a->n_q_heads, 1, &task, &end);) {
        uint32_t i = task / a->n_q_heads, h = task % a->n_q_heads;
        uint32_t n_c = before + (a->pos0 + i) / KVCL_BLOCK_TOKENS;
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
