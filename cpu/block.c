// block.c - raw pages to pages of Q8_0 and Q4_0 rows, back, and attention on them.  Kernels:
// cl/block.cl; SIMD: cpu/simd_block.c, cpu/simd_attn.c
#include "block.h"

#include "partial.h"

// One head's rows in a page: rows of K, or of V behind the page's K.
static unsigned char *head_rows(kvcl_view pool, size_t slot, uint32_t n_kv_heads, uint32_t head_dim,
                                kvcl_type type_k, kvcl_type type_v, bool of_v, uint32_t hk)
{
    size_t page_bytes = kvcl_block_page_bytes(n_kv_heads, head_dim, type_k, type_v);
    size_t head_k = KVCL_TOKENS * kvcl_type_bytes(type_k, head_dim);
    size_t head_v = KVCL_TOKENS * kvcl_type_bytes(type_v, head_dim);
    unsigned char *page = (unsigned char *)kvcl_cpu_ptr(pool) + slot * page_bytes;
    return of_v ? page + n_kv_heads * head_k + hk * head_v : page + hk * head_k;
}

static void put_half(unsigned char *p, uint16_t h)
{
    p[0] = (unsigned char)h;
    p[1] = (unsigned char)(h >> 8);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static void encode_q8_0(const float *x, float top, unsigned char *p)
{
    float amax = fabsf(top), inv = kvcl_quant_inv(amax);
    put_half(p, kvcl_f32_to_f16(kvcl_quant_scale(amax)));
    for (uint32_t e = 0; e < KVCL_QK; e++)
        p[2 + e] = (unsigned char)kvcl_round(x[e] * inv);
}

static void encode_q4_0(const float *x, float top, unsigned char *p)
{
    bool nothing = fabsf(top) < 1e-30f;
    float inv = nothing ? 0.0f : 8.0f * kvcl_recip(fabsf(top));
    put_half(p, nothing ? 0 : kvcl_f32_to_f16(top * -0.125f));
    inv = top > 0.0f ? -inv : inv;
    memset(p + 2, 0, KVCL_QK / 2);
    for (uint32_t e = 0; e < KVCL_QK; e++) {
        int n = (int)fmaf(x[e], inv, 8.5f);
        n = n < 15 ? n : 15;
        p[2 + e % 16] = (unsigned char)(p[2 + e % 16] | n << e / 16 * 4);
    }
}

bool kvcl_cpu_block_row(kvcl_type type, const float *x, uint32_t n, unsigned char *p)
{
    bool good = true;
    for (uint32_t b = 0; b < n / KVCL_QK; b++, x += KVCL_QK, p += kvcl_type_block_bytes(type)) {
        float top = 0.0f;
        bool finite = true;
        for (uint32_t e = 0; e < KVCL_QK; e++) {
            finite = finite && x[e] - x[e] == 0.0f;
            top = fabsf(x[e]) > fabsf(top) ? x[e] : top;
        }
        good = good && finite;
        if (!finite)
            continue;
        if (type == KVCL_Q8_0)
            encode_q8_0(x, top, p);
        else
            encode_q4_0(x, top, p);
        good = good && (p[1] & 0x7c) != 0x7c;
    }
    return good;
}

void kvcl_cpu_block_enc(const void *args, kvcl_cpu_part *p)
{
    const kvcl_block_enc_args *a = args;
    const int32_t *from = kvcl_cpu_ptr(a->page_table), *to = kvcl_cpu_ptr(a->pool_table);
    kvcl_type type_k = a->block_type_k, type_v = a->block_type_v;
    uint32_t D = a->head_dim, Hk = a->n_kv_heads;
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / Hk, hk = task % Hk, first_bad = KVCL_TOKENS;
        size_t raw = ((size_t)from[i] * Hk + hk) * D * KVCL_TOKENS, slot = (size_t)to[i];
        unsigned char *k = head_rows(a->pool, slot, Hk, D, type_k, type_v, false, hk);
        unsigned char *v = head_rows(a->pool, slot, Hk, D, type_k, type_v, true, hk);
        for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
            float xk[256], xv[256];
            for (uint32_t d = 0; d < D; d++) {
                xk[d] =
                    kvcl_cpu_load(a->type_k, kvcl_cpu_ptr(a->k), raw + (size_t)d * KVCL_TOKENS + t);
                xv[d] = kvcl_cpu_load(a->type_v, kvcl_cpu_ptr(a->v), raw + (size_t)t * D + d);
            }
            bool good_k = kvcl_cpu_block_row(type_k, xk, D, k + t * kvcl_type_bytes(type_k, D));
            bool good_v = kvcl_cpu_block_row(type_v, xv, D, v + t * kvcl_type_bytes(type_v, D));
            if (!good_k || !good_v)
                first_bad = kvcl_min_u32(first_bad, t);
        }
        bad[task] = (int32_t)first_bad;
    }
}

/* ---- decoding ------------------------------------------------------------------------------ */

void kvcl_cpu_block_dec(const void *args, kvcl_cpu_part *p)
{
    const kvcl_block_dec_args *a = args;
    const int32_t *from = kvcl_cpu_ptr(a->pool_table), *to = kvcl_cpu_ptr(a->page_table);
    kvcl_type type_k = a->block_type_k, type_v = a->block_type_v;
    uint32_t D = a->head_dim, Hk = a->n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / Hk, hk = task % Hk;
        size_t raw = ((size_t)to[i] * Hk + hk) * D * KVCL_TOKENS, slot = (size_t)from[i];
        const unsigned char *k = head_rows(a->pool, slot, Hk, D, type_k, type_v, false, hk);
        const unsigned char *v = head_rows(a->pool, slot, Hk, D, type_k, type_v, true, hk);
        for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
            float xk[256], xv[256];
            kvcl_dequantise(type_k, k + t * kvcl_type_bytes(type_k, D), D, xk);
            kvcl_dequantise(type_v, v + t * kvcl_type_bytes(type_v, D), D, xv);
            for (uint32_t d = 0; d < D; d++) {
                kvcl_cpu_store(a->type_k, kvcl_cpu_ptr(a->k), raw + (size_t)d * KVCL_TOKENS + t,
                               xk[d]);
                kvcl_cpu_store(a->type_v, kvcl_cpu_ptr(a->v), raw + (size_t)t * D + d, xv[d]);
            }
        }
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

// Rows of one head of one page.
typedef struct block_head {
    const unsigned char *k, *v;
} block_head;

static block_head head_at(const kvcl_attn_block_args *a, uint32_t page, uint32_t hk)
{
    const kvcl_attn_in *in = &a->in;
    size_t slot = kvcl_cpu_attn_slot(in, page);
    block_head out;
    out.k = head_rows(a->pool, slot, in->n_kv_heads, in->head_dim, a->block_type_k, a->block_type_v,
                      false, hk);
    out.v = head_rows(a->pool, slot, in->n_kv_heads, in->head_dim, a->block_type_k, a->block_type_v,
                      true, hk);
    return out;
}

// Page partial of one query head over tokens [begin, end), into lane c.
static void attend_page(const kvcl_attn_block_args *a, block_head page, const float *qs,
                        uint32_t begin, uint32_t end, kvcl_cpu_attn_pages *parts, uint32_t c)
{
    uint32_t D = a->in.head_dim;
    float s[KVCL_TOKENS], x[256], lanes[256][KVCL_ATTN_LANES] = {{0}};
    for (uint32_t t = begin; t < end; t++) {
        float acc = 0.0f;
        kvcl_dequantise(a->block_type_k, page.k + t * kvcl_type_bytes(a->block_type_k, D), D, x);
        for (uint32_t d = 0; d < D; d++)
            acc = fmaf(qs[d], x[d], acc);
        s[t] = kvcl_zero(acc);
    }
    kvcl_cpu_attn_weights(parts, c, s, begin, end);
    for (uint32_t t = begin; t < end; t++) {
        kvcl_dequantise(a->block_type_v, page.v + t * kvcl_type_bytes(a->block_type_v, D), D, x);
        for (uint32_t d = 0; d < D; d++)
            lanes[d][t % KVCL_ATTN_LANES] = fmaf(s[t], x[d], lanes[d][t % KVCL_ATTN_LANES]);
    }
    for (uint32_t d = 0; d < D; d++)
        parts->o[c][d] = kvcl_cpu_tree(lanes[d], KVCL_ATTN_LANES);
}

static void attend(const kvcl_attn_block_args *a, const kvcl_cpu_attn_task *task, uint32_t i,
                   uint32_t h)
{
    kvcl_cpu_attn_pages parts = {.seen = {false}};
    uint32_t n_seen = 0;
    float qs[256];
    kvcl_cpu_attn_query(&a->in, i, h, qs);
    for (uint32_t page = task->first_page; page < task->end_page; page++) {
        uint32_t begin, end;
        if (!kvcl_cpu_attn_sees(&a->in, page, i, &begin, &end))
            continue;
        attend_page(a, head_at(a, page, task->hk), qs, begin, end, &parts, page % KVCL_BLOCK);
        n_seen++;
    }
    if (n_seen > 0)
        kvcl_cpu_attn_merge_pages(&parts, a->in.head_dim,
                                  kvcl_cpu_attn_ml(&a->in, i, h, task->part),
                                  kvcl_cpu_attn_o(&a->in, i, h, task->part));
}

void kvcl_cpu_attn_block(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_block_args *a = args;
    uint32_t G = a->in.n_q_heads / a->in.n_kv_heads;
    for (kvcl_cpu_attn_task task; kvcl_cpu_attn_take(&a->in, p, &task);)
        for (uint32_t i = 0; i < a->in.n; i++)
            for (uint32_t h = task.hk * G; h < (task.hk + 1) * G; h++)
                attend(a, &task, i, h);
}
