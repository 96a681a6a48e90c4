// attn_spectral.c - attention by block partials over spectral pages.  Kernel: cl/attn_spectral.cl;
// SIMD: cpu/simd_attn_spectral.c
#include "partial.h"
#include "quant.h"
#include "spectral.h"

// One page of a block, unpacked.
typedef struct spectral_page {
    float k_turned[KVCL_TOKENS * 256]; // [64][D]
    int8_t v[KVCL_TOKENS * 256];       // levels [entry][slots], entries [k][D]
    float v_norm[KVCL_TOKENS];
} spectral_page;

_Static_assert(KVCL_BLOCK * sizeof(spectral_page) <= KVCL_CPU_SCRATCH_BYTES, "a block's pages");

static void unpack(const kvcl_attn_spectral_args *a, uint32_t page, uint32_t hk, spectral_page *out)
{
    const kvcl_spectral_shape *s = &a->shape;
    size_t slot = kvcl_cpu_attn_slot(&a->in, page);
    kvcl_cpu_spectral k = kvcl_cpu_spectral_at(s, a->basis, a->pool, slot, false, hk);
    kvcl_cpu_spectral v = kvcl_cpu_spectral_at(s, a->basis, a->pool, slot, true, hk);
    const float *table = kvcl_cpu_ptr(a->table);
    kvcl_cpu_spectral_keys(&k, kvcl_cpu_spectral_mean(s, a->means, false, hk), out->k_turned);
    for (uint32_t t = 0; table && t < KVCL_TOKENS; t++)
        kvcl_cpu_turn(a->pairing, a->n_rot, table + (size_t)t * a->n_rot, false,
                      out->k_turned + t * k.D);
    for (uint32_t e = 0; e < v.fold * v.D; e++)
        for (uint32_t i = 0; i < v.slots; i++)
            out->v[e * v.slots + i] = (int8_t)kvcl_cpu_spectral_level(&v, e, i);
    for (uint32_t i = 0; i < v.slots; i++)
        out->v_norm[i] = kvcl_f16_to_f32(v.norms[i]);
}

// z_c[i] from weights p of tokens [begin, end).
static void sum_values(const kvcl_cpu_spectral *v, const spectral_page *page, const float *p,
                       uint32_t begin, uint32_t end, float *z)
{
    float w[KVCL_TOKENS] = {0};
    int32_t q[KVCL_TOKENS];
    for (uint32_t t = begin; t < end; t++)
        w[t] = p[t];
    for (uint32_t i = 0; i < v->slots; i++) {
        kvcl_cpu_fwht_row(w + i * v->fold, v->fold);
        for (uint32_t r = 0; r < v->fold; r++)
            w[i * v->fold + r] = w[i * v->fold + r] * page->v_norm[i];
    }
    float unit = kvcl_cpu_quantise15(w, KVCL_TOKENS, q) * (v->head->quantum * 0.0078125f); // 2^-7
    for (uint32_t i = 0; i < v->head->n_comp; i++) {
        float sum = 0.0f;
        for (uint32_t r = 0; r < v->fold; r++) {
            const int8_t *levels = page->v + (size_t)(r * v->D + i) * v->slots;
            int32_t J = 0;
            for (uint32_t slot = 0; slot < v->slots; slot++)
                J += q[slot * v->fold + r] * levels[slot];
            sum = fmaf((float)J, (float)v->factor[r * v->D + i], sum);
        }
        z[i] = sum * unit;
    }
}

// Block partial of query i, head h.
static void attend(const kvcl_attn_spectral_args *a, const kvcl_cpu_attn_task *task,
                   const spectral_page *block, uint32_t i, uint32_t h)
{
    uint32_t D = a->in.head_dim, n_seen = 0;
    kvcl_cpu_spectral v = kvcl_cpu_spectral_basis(&a->shape, a->basis, true, task->hk);
    const float *v_mean = kvcl_cpu_spectral_mean(&a->shape, a->means, true, task->hk);
    kvcl_cpu_attn_pages parts = {.seen = {false}};
    float qs[256], s[KVCL_TOKENS], z[256];
    kvcl_cpu_attn_query(&a->in, i, h, qs);
    for (uint32_t page = task->first_page; page < task->end_page; page++) {
        uint32_t c = page % KVCL_BLOCK, begin, end;
        kvcl_cpu_turned keys = {D, a->n_rot, a->pairing, kvcl_cpu_ptr(a->table), block[c].k_turned};
        if (!kvcl_cpu_attn_sees(&a->in, page, i, &begin, &end))
            continue;
        n_seen++;
        kvcl_cpu_score_keys(&keys, page, qs, begin, end, s);
        kvcl_cpu_attn_weights(&parts, c, s, begin, end);
        sum_values(&v, &block[c], s, begin, end, parts.o[c]);
    }
    if (n_seen == 0)
        return;
    float *ml = kvcl_cpu_attn_ml(&a->in, i, h, task->part);
    float *o = kvcl_cpu_attn_o(&a->in, i, h, task->part);
    kvcl_cpu_attn_merge_pages(&parts, v.head->n_comp, ml, z);
    for (uint32_t d = 0; d < D; d++) {
        float sum = 0.0f;
        for (uint32_t j = 0; j < v.head->n_comp; j++)
            sum = fmaf((float)kvcl_cpu_spectral_weight(&v, v.synth, j, d), z[j], sum);
        o[d] = kvcl_zero(fmaf(ml[1], v_mean[d], sum));
    }
}

void kvcl_cpu_attn_spectral(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_spectral_args *a = args;
    uint32_t G = a->in.n_q_heads / a->in.n_kv_heads;
    spectral_page *block = (spectral_page *)(void *)p->scratch;
    for (kvcl_cpu_attn_task task; kvcl_cpu_attn_take(&a->in, p, &task);) {
        for (uint32_t page = task.first_page; page < task.end_page; page++)
            unpack(a, page, task.hk, &block[page % KVCL_BLOCK]);
        for (uint32_t i = 0; i < a->in.n; i++)
            for (uint32_t h = task.hk * G; h < (task.hk + 1) * G; h++)
                attend(a, &task, block, i, h);
    }
}
