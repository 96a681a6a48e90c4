// kv.c - sums and means of raw pages' rows; squared error between two sets of them.  Kernels:
// cl/kv.cl; SIMD: cpu/simd_kv.c
#include "rows.h"
#include "shared.h"

// Where a head's K (or V) of a page begins in its pool, in elements.
static size_t head_at(kvcl_view table, uint32_t page, uint32_t n_kv_heads, uint32_t hk, uint32_t D)
{
    const int32_t *slots = kvcl_cpu_ptr(table);
    return ((size_t)slots[page] * n_kv_heads + hk) * D * KVCL_TOKENS;
}

// Where token t's dimension d is from there.
static size_t element(bool of_v, uint32_t D, uint32_t t, uint32_t d)
{
    return of_v ? (size_t)t * D + d : (size_t)d * KVCL_TOKENS + t;
}

void kvcl_cpu_kv_sum(const void *args, kvcl_cpu_part *p)
{
    const kvcl_kv_sum_args *a = args;
    uint32_t D = a->head_dim, Hk = a->n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, 2 * Hk, 1, &task, &end);) {
        bool of_v = task >= Hk;
        const void *pool = kvcl_cpu_ptr(of_v ? a->v : a->k);
        float *sums = (float *)kvcl_cpu_ptr(a->sums) + (size_t)task * D;
        for (uint32_t page = 0; page < a->n_pages; page++) {
            size_t base = head_at(a->page_table, page, Hk, task % Hk, D);
            for (uint32_t d = 0; d < D; d++) {
                float lanes[KVCL_ATTN_LANES] = {0};
                for (uint32_t t = page == 0 ? a->n_skip : 0; t < KVCL_TOKENS; t++)
                    lanes[t % KVCL_ATTN_LANES] += kvcl_cpu_load(of_v ? a->type_v : a->type_k, pool,
                                                                base + element(of_v, D, t, d));
                sums[d] += kvcl_cpu_tree(lanes, KVCL_ATTN_LANES);
            }
        }
    }
}

void kvcl_cpu_kv_mean(const void *args, kvcl_cpu_part *p)
{
    const kvcl_kv_mean_args *a = args;
    const float *sums = kvcl_cpu_ptr(a->sums);
    float *mean = kvcl_cpu_ptr(a->mean);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, 1024, &i, &end);)
        for (; i < end; i++)
            mean[i] = sums[i] * a->factor;
}

// sum (x - y)^2 and sum x^2 over a head's K (or V) of a page.
static void error_of(const kvcl_kv_error_args *a, bool of_v, uint32_t page, uint32_t hk, float *err)
{
    uint32_t D = a->head_dim;
    const void *x = kvcl_cpu_ptr(of_v ? a->v : a->k), *y = kvcl_cpu_ptr(of_v ? a->va : a->ka);
    kvcl_type type_x = of_v ? a->type_v : a->type_k, type_y = of_v ? a->type_va : a->type_ka;
    size_t base_x = head_at(a->page_table, page, a->n_kv_heads, hk, D);
    size_t base_y = head_at(a->page_table_a, page, a->n_kv_heads, hk, D);
    float diff[64] = {0}, square[64] = {0};
    for (uint32_t d = 0; d < D; d++) {
        for (uint32_t t = page == 0 ? a->n_skip : 0; t < KVCL_TOKENS; t++) {
            size_t at = element(of_v, D, t, d);
            float v = kvcl_cpu_load(type_x, x, base_x + at);
            float e = v - kvcl_cpu_load(type_y, y, base_y + at);
            diff[d % 64] = fmaf(e, e, diff[d % 64]);
            square[d % 64] = fmaf(v, v, square[d % 64]);
        }
    }
    err[0] = kvcl_cpu_tree(diff, 64);
    err[1] = kvcl_cpu_tree(square, 64);
}

void kvcl_cpu_kv_error(const void *args, kvcl_cpu_part *p)
{
    const kvcl_kv_error_args *a = args;
    uint32_t Hk = a->n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, 2 * a->n_pages * Hk, 1, &task, &end);) {
        float *err = (float *)kvcl_cpu_ptr(a->err) + (size_t)task * 2;
        error_of(a, task % 2 == 1, task / 2 / Hk, task / 2 % Hk, err);
    }
}
