// gram.c - second moments of raw pages and of rows.  Kernels: cl/gram.cl; SIMD: cpu/simd_gram.c
#include "rows.h"
#include "shared.h"

#include <assert.h>

// gram += the rows first, first + step .. < end of x, `pitch` apart.
static void add_rows(const float *x, size_t pitch, uint32_t first, uint32_t end, uint32_t step,
                     uint32_t D, float *gram)
{
    for (uint32_t i = 0; i < D; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            float sum = 0.0f;
            for (uint32_t t = first; t < end; t += step)
                sum = fmaf(x[t * pitch + i], x[t * pitch + j], sum);
            sum += gram[i * D + j];
            gram[i * D + j] = gram[j * D + i] = sum;
        }
    }
}

// y of a head's page, [64][D], each slot's tokens transformed.
static void page_rows(const kvcl_gram_pages_args *a, bool of_v, uint32_t page, uint32_t hk,
                      float *y)
{
    uint32_t D = a->head_dim, Hk = a->n_kv_heads, raw_dim = a->join > 1 ? D / a->join : D;
    const int32_t *slots = kvcl_cpu_ptr(a->page_table);
    const void *pool = kvcl_cpu_ptr(of_v ? a->v : a->k);
    const float *mean = (const float *)kvcl_cpu_ptr(a->mean) + (of_v ? Hk + hk : hk) * D;
    size_t base = ((size_t)slots[page] * Hk + hk) * D * KVCL_TOKENS;
    for (uint32_t d = 0; d < D; d++) {
        for (uint32_t t = 0; t < KVCL_TOKENS; t += a->fold) {
            float slot[KVCL_MAX_FOLD];
            for (uint32_t i = 0; i < a->fold; i++) {
                size_t at = kvcl_cpu_raw_at(of_v, raw_dim, t + i, d);
                slot[i] = kvcl_cpu_load(of_v ? a->type_v : a->type_k, pool, base + at) - mean[d];
            }
            kvcl_cpu_fwht_row(slot, a->fold);
            for (uint32_t i = 0; i < a->fold; i++)
                y[(t + i) * D + d] = slot[i];
        }
    }
}

void kvcl_cpu_gram_pages(const void *args, kvcl_cpu_part *p)
{
    const kvcl_gram_pages_args *a = args;
    uint32_t D = a->head_dim, Hk = a->n_kv_heads, fold = a->fold;
    float *y = (float *)(void *)p->scratch;
    for (uint32_t task, end; kvcl_cpu_take(p, 2 * Hk, 1, &task, &end);) {
        float *gram = (float *)kvcl_cpu_ptr(a->gram) + (size_t)task * fold * D * D;
        for (uint32_t page = 0; page * KVCL_TOKENS < a->n_tokens; page++) {
            uint32_t left = kvcl_min_u32(KVCL_TOKENS, a->n_tokens - page * KVCL_TOKENS);
            uint32_t first = page == 0 ? kvcl_div_up(a->n_skip, fold) * fold : 0;
            page_rows(a, task >= Hk, page, task % Hk, y);
            for (uint32_t r = 0; r < fold; r++)
                add_rows(y + r * D, D, first, left / fold * fold, fold, D, gram + r * D * D);
        }
    }
}

void kvcl_cpu_gram_rows(const void *args, kvcl_cpu_part *p)
{
    const kvcl_gram_rows_args *a = args;
    uint32_t D = a->head_dim, group = a->n_q_heads / a->n_kv_heads;
    const float *x = kvcl_cpu_ptr(a->x);
    assert(x);
    for (uint32_t hk, end; kvcl_cpu_take(p, a->n_kv_heads, 1, &hk, &end);) {
        float *gram = (float *)kvcl_cpu_ptr(a->gram) + (size_t)hk * D * D;
        for (uint32_t i = 0; i < D; i++) {
            for (uint32_t j = 0; j <= i; j++) {
                float sum = gram[i * D + j];
                for (uint32_t t = 0; t < a->n * group; t++) {
                    const float *q = x + (size_t)(t / group) * a->stride;
                    q += (hk * group + t % group) * D;
                    sum = fmaf(q[i], q[j], sum);
                }
                gram[i * D + j] = gram[j * D + i] = sum;
            }
        }
    }
}
