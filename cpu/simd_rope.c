/* simd_rope.c - rotates queries and keys, stores keys and values.  Definition: cpu/rope.c
 *
 * A task is one head of one token, so that a single token's heads spread over the threads. */
#include "simd.h"

#define MAX_DIM 256

/* out = x rotated by the table row cs; out != x. */
static void rotate(const kvcl_rope_store_args *a, const float *cs, const float *restrict x,
                   float *restrict out)
{
    uint32_t half = a->pairing == KVCL_ROPE_NONE || !cs ? 0 : a->n_rot / 2;
    if (a->pairing == KVCL_ROPE_ADJACENT) {
        for (uint32_t i = 0; i < half; i++) {
            float xa = x[2 * i], xb = x[2 * i + 1], c = cs[2 * i], s = cs[2 * i + 1];
            out[2 * i] = kvcl_zero(fmaf(xa, c, -(xb * s)));
            out[2 * i + 1] = kvcl_zero(fmaf(xb, c, xa * s));
        }
    } else {
        for (uint32_t i = 0; i < half; i++) {
            float xa = x[i], xb = x[i + half], c = cs[2 * i], s = cs[2 * i + 1];
            out[i] = kvcl_zero(fmaf(xa, c, -(xb * s)));
            out[i + half] = kvcl_zero(fmaf(xb, c, xa * s));
        }
    }
    memcpy(out + 2 * half, x + 2 * half, (a->head_dim - 2 * half) * sizeof *x);
}

/* x [n rounded up to 16] as halves; x may be read to the end of its last 16. */
static void to_f16(const float *x, uint16_t *out, uint32_t n)
{
    for (uint32_t d = 0; d < n; d += 16)
        v16_store_f16(out + d, v16_load(x + d));
}

/* A token's key: one value in each of the page's D rows. */
static void store_k(kvcl_type type, void *page, uint32_t t, const float *k, uint32_t D)
{
    if (type == KVCL_F16) {
        uint16_t h[MAX_DIM], *out = page;
        to_f16(k, h, D);
        for (uint32_t d = 0; d < D; d++)
            out[(size_t)d * KVCL_TOKENS + t] = h[d];
    } else {
        float *out = page;
        for (uint32_t d = 0; d < D; d++)
            out[(size_t)d * KVCL_TOKENS + t] = k[d];
    }
}

/* A token's value: one row of the page. */
static void store_v(kvcl_type type, void *page, uint32_t t, const float *v, uint32_t D)
{
    if (type == KVCL_F16) {
        float padded[MAX_DIM] = {0};
        uint16_t h[MAX_DIM];
        memcpy(padded, v, D * sizeof *v);
        to_f16(padded, h, D);
        memcpy((uint16_t *)page + (size_t)t * D, h, D * sizeof *h);
    } else {
        memcpy((float *)page + (size_t)t * D, v, D * sizeof *v);
    }
}

/* Head h of token i: queries first, then the kv heads. */
static void rope_head(const kvcl_rope_store_args *a, uint32_t i, uint32_t h)
{
    uint32_t D = a->head_dim, Hq = a->n_q_heads, Hk = a->n_kv_heads, pos = a->pos0 + i;
    const float *cs = kvcl_cpu_ptr(a->table);
    float *x = (float *)kvcl_cpu_ptr(a->qkv) + (size_t)i * a->qkv_stride + (size_t)h * D;
    float turned[MAX_DIM] = {0};
    rotate(a, cs ? cs + (size_t)pos * a->n_rot : NULL, x, turned);
    if (h < Hq) {
        memcpy(x, turned, D * sizeof *x);
        return;
    }
    const int32_t *pages = kvcl_cpu_ptr(a->page_table);
    size_t slot = (size_t)pages[pos / KVCL_TOKENS - a->first_page];
    size_t base = (slot * Hk + (h - Hq)) * D * KVCL_TOKENS;
    unsigned char *k = kvcl_cpu_ptr(a->k), *v = kvcl_cpu_ptr(a->v), *ku = kvcl_cpu_ptr(a->ku);
    store_k(a->type_k, k + kvcl_type_bytes(a->type_k, base), pos % KVCL_TOKENS, turned, D);
    store_v(a->type_v, v + kvcl_type_bytes(a->type_v, base), pos % KVCL_TOKENS, x + (size_t)Hk * D,
            D);
    if (ku) {
        memcpy(turned, x, D * sizeof *x);
        store_k(a->type_ku, ku + kvcl_type_bytes(a->type_ku, base), pos % KVCL_TOKENS, turned, D);
    }
}

void KVCL_SIMD_FN(rope_store)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_rope_store_args *a = args;
    uint32_t heads = a->n_q_heads + a->n_kv_heads, step = a->n > p->n_threads ? heads : 4;
    for (uint32_t t, end; kvcl_cpu_take(p, a->n * heads, step, &t, &end);)
        for (; t < end; t++)
            rope_head(a, t / heads, t % heads);
}
