// attn_quant.c - attention by block partials over quant pages.  Kernel: cl/attn_quant.cl; SIMD:
// cpu/simd_attn_quant.c
#include "partial.h"
#include "quant.h"

// One page of a block, unpacked.
typedef struct quant_page {
    int8_t k[KVCL_TOKENS * 256], v[KVCL_TOKENS * 256]; // levels [64][D]
    float k_turned[KVCL_TOKENS * 256]; // PRE: keys turned by their token in the page, [64][D]
    float k_step[256], v_step[KVCL_TOKENS];
    float k_mean[256];
} quant_page;

_Static_assert(KVCL_BLOCK * sizeof(quant_page) <= KVCL_CPU_SCRATCH_BYTES, "a block's pages");

// PRE: k[d] = fma(up * step_t, h[d], mean[d]), turned by t.
static void turn_keys(const kvcl_attn_quant_args *a, quant_page *page)
{
    uint32_t D = a->shape.head_dim;
    float up = kvcl_head_up(kvcl_head_log2(D));
    const float *table = kvcl_cpu_ptr(a->table);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        float *k = page->k_turned + t * D;
        for (uint32_t d = 0; d < D; d++)
            k[d] = (float)page->k[t * D + d];
        kvcl_cpu_fwht_head(D, k);
        for (uint32_t d = 0; d < D; d++)
            k[d] = fmaf(up * page->k_step[t], k[d], page->k_mean[d]);
        if (table)
            kvcl_cpu_turn(a->pairing, a->n_rot, table + (size_t)t * a->n_rot, false, k);
    }
}

static void unpack(const kvcl_attn_quant_args *a, uint32_t page, uint32_t hk, quant_page *out)
{
    const kvcl_quant_shape *s = &a->shape;
    kvcl_cpu_quant_head in = kvcl_cpu_quant_at(s, a->pool, kvcl_cpu_attn_slot(&a->in, page), hk);
    bool channel = s->form == KVCL_QUANT_CHANNEL;
    kvcl_cpu_quant_levels_k(s, in.k_words, out->k);
    kvcl_cpu_quant_levels_v(s, in.v_words, out->v);
    for (uint32_t i = 0; i < (channel ? s->head_dim : KVCL_TOKENS); i++)
        out->k_step[i] = kvcl_f16_to_f32(in.k_scales[i]);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        out->v_step[t] = kvcl_f16_to_f32(in.v_scales[t]);
    for (uint32_t d = 0; d < s->head_dim; d++)
        out->k_mean[d] = channel ? kvcl_f16_to_f32(in.k_means[d])
                                 : kvcl_cpu_quant_mean(s, a->means, page, false, hk)[d];
    if (s->form == KVCL_QUANT_PRE)
        turn_keys(a, out);
}

float kvcl_cpu_quantise15(const float *g, uint32_t n, int32_t *q)
{
    float amax = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        amax = fabsf(g[i]) > amax ? fabsf(g[i]) : amax;
    float inv = kvcl_q15_inv(amax);
    for (uint32_t i = 0; i < n; i++)
        q[i] = kvcl_round(g[i] * inv);
    return kvcl_q15_quantum(amax);
}

// POST and CHANNEL: s[t] of tokens [begin, end) from exact integer sums.
static void score_integers(const kvcl_quant_shape *s, const quant_page *page, const float *qs,
                           uint32_t begin, uint32_t end, float *score)
{
    uint32_t D = s->head_dim;
    bool channel = s->form == KVCL_QUANT_CHANNEL;
    float g[256], beta = kvcl_cpu_dot64(qs, page->k_mean, D);
    int32_t q[256];
    for (uint32_t d = 0; d < D; d++)
        g[d] = channel ? qs[d] * page->k_step[d] : qs[d];
    if (!channel)
        kvcl_cpu_fwht_head(D, g);
    float quantum = kvcl_cpu_quantise15(g, D, q), up = kvcl_head_up(kvcl_head_log2(D));
    for (uint32_t t = begin; t < end; t++) {
        int32_t sum = 0;
        for (uint32_t d = 0; d < D; d++)
            sum += q[d] * page->k[t * D + d];
        score[t] = kvcl_zero(channel ? fmaf((float)sum, quantum, beta)
                                     : fmaf((float)sum * (quantum * up), page->k_step[t], beta));
    }
}

void kvcl_cpu_score_keys(const kvcl_cpu_turned *k, uint32_t i_page, const float *qs, uint32_t begin,
                         uint32_t end, float *score)
{
    float qp[256];
    memcpy(qp, qs, k->D * sizeof *qp);
    if (k->table)
        kvcl_cpu_turn(k->pairing, k->n_rot, k->table + (size_t)i_page * KVCL_TOKENS * k->n_rot,
                      true, qp);
    for (uint32_t t = begin; t < end; t++) {
        float acc = 0.0f;
        for (uint32_t d = 0; d < k->D; d++)
            acc = fmaf(qp[d], k->keys[t * k->D + d], acc);
        score[t] = kvcl_zero(acc);
    }
}

// z_c[d] = (float)J[d] * (quantum * up), from weights p of tokens [begin, end).
static void sum_values(const kvcl_quant_shape *s, const quant_page *page, const float *p,
                       uint32_t begin, uint32_t end, float *z)
{
    float w[KVCL_TOKENS] = {0}, up = kvcl_head_up(kvcl_head_log2(s->head_dim));
    int32_t q[KVCL_TOKENS];
    for (uint32_t t = begin; t < end; t++)
        w[t] = p[t] * page->v_step[t];
    float quantum = kvcl_cpu_quantise15(w, KVCL_TOKENS, q);
    for (uint32_t d = 0; d < s->head_dim; d++) {
        int32_t sum = 0;
        for (uint32_t t = 0; t < KVCL_TOKENS; t++)
            sum += q[t] * page->v[t * s->head_dim + d];
        z[d] = (float)sum * (quantum * up);
    }
}

// Block partial of query i, head h.
static void attend(const kvcl_attn_quant_args *a, const kvcl_cpu_attn_task *task,
                   const quant_page *block, uint32_t i, uint32_t h)
{
    uint32_t D = a->in.head_dim, n_seen = 0;
    const float *v_mean =
        kvcl_cpu_quant_mean(&a->shape, a->means, task->first_page, true, task->hk);
    kvcl_cpu_attn_pages parts = {.seen = {false}};
    float qs[256], s[KVCL_TOKENS];
    kvcl_cpu_attn_query(&a->in, i, h, qs);
    for (uint32_t page = task->first_page; page < task->end_page; page++) {
        uint32_t c = page % KVCL_BLOCK, begin, end;
        if (!kvcl_cpu_attn_sees(&a->in, page, i, &begin, &end))
            continue;
        n_seen++;
        kvcl_cpu_turned keys = {D, a->n_rot, a->pairing, kvcl_cpu_ptr(a->table), block[c].k_turned};
        if (a->shape.form == KVCL_QUANT_PRE)
            kvcl_cpu_score_keys(&keys, page, qs, begin, end, s);
        else
            score_integers(&a->shape, &block[c], qs, begin, end, s);
        kvcl_cpu_attn_weights(&parts, c, s, begin, end);
        sum_values(&a->shape, &block[c], s, begin, end, parts.o[c]);
    }
    if (n_seen == 0)
        return;
    float *ml = kvcl_cpu_attn_ml(&a->in, i, h, task->part);
    float *o = kvcl_cpu_attn_o(&a->in, i, h, task->part), z[256];
    kvcl_cpu_attn_merge_pages(&parts, D, ml, z);
    kvcl_cpu_fwht_head(D, z);
    for (uint32_t d = 0; d < D; d++)
        o[d] = kvcl_zero(fmaf(ml[1], v_mean[d], z[d]));
}

void kvcl_cpu_attn_quant(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_quant_args *a = args;
    uint32_t G = a->in.n_q_heads / a->in.n_kv_heads;
    quant_page *block = (quant_page *)(void *)p->scratch;
    for (kvcl_cpu_attn_task task; kvcl_cpu_attn_take(&a->in, p, &task);) {
        for (uint32_t page = task.first_page; page < task.end_page; page++)
            unpack(a, page, task.hk, &block[page % KVCL_BLOCK]);
        for (uint32_t i = 0; i < a->in.n; i++)
            for (uint32_t h = task.hk * G; h < (task.hk + 1) * G; h++)
                attend(a, &task, block, i, h);
    }
}
