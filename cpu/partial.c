// partial.c - tasks of attention, what a query sees, page partials to a block partial.
#include "partial.h"

bool kvcl_cpu_attn_take(const kvcl_attn_in *in, kvcl_cpu_part *p, kvcl_cpu_attn_task *out)
{
    uint32_t first_page = in->begin / KVCL_TOKENS, last_page = (in->end - 1) / KVCL_TOKENS;
    uint32_t first = first_page / KVCL_BLOCK, n_blocks = last_page / KVCL_BLOCK - first + 1;
    uint32_t task, end;
    if (!kvcl_cpu_take(p, n_blocks * in->n_kv_heads, 1, &task, &end))
        return false;
    uint32_t block = first + task / in->n_kv_heads;
    out->hk = task % in->n_kv_heads;
    out->part = in->first_part + block - first;
    out->first_page = kvcl_max_u32(first_page, block * KVCL_BLOCK);
    out->end_page = kvcl_min_u32(last_page + 1, (block + 1) * KVCL_BLOCK);
    return true;
}

size_t kvcl_cpu_attn_slot(const kvcl_attn_in *in, uint32_t page)
{
    const int32_t *slots = kvcl_cpu_ptr(in->page_table);
    return (size_t)slots[page - in->begin / KVCL_TOKENS];
}

bool kvcl_cpu_attn_sees(const kvcl_attn_in *in, uint32_t page, uint32_t i, uint32_t *begin,
                        uint32_t *end)
{
    uint32_t first = page * KVCL_TOKENS; // positions
    uint32_t from = kvcl_max_u32(in->begin, first);
    uint32_t to = kvcl_min_u32(kvcl_min_u32(in->end, in->pos0 + i + 1), first + KVCL_TOKENS);
    *begin = from - first;
    *end = to - first;
    return from < to;
}

void kvcl_cpu_attn_query(const kvcl_attn_in *in, uint32_t i, uint32_t h, float *qs)
{
    const float *q = (const float *)kvcl_cpu_ptr(in->q) + (size_t)i * in->q_stride;
    for (uint32_t d = 0; d < in->head_dim; d++)
        qs[d] = q[h * in->head_dim + d] * in->scale;
}

void kvcl_cpu_attn_weights(kvcl_cpu_attn_pages *pages, uint32_t c, float *s, uint32_t begin,
                           uint32_t end)
{
    float m = s[begin], lanes[KVCL_ATTN_LANES] = {0};
    for (uint32_t t = begin; t < end; t++)
        m = s[t] > m ? s[t] : m;
    for (uint32_t t = begin; t < end; t++) {
        s[t] = kvcl_exp(s[t] - m);
        lanes[t % KVCL_ATTN_LANES] += s[t];
    }
    pages->seen[c] = true;
    pages->m[c] = m;
    pages->l[c] = kvcl_cpu_tree(lanes, KVCL_ATTN_LANES);
}

void kvcl_cpu_attn_merge_pages(const kvcl_cpu_attn_pages *pages, uint32_t head_dim, float ml[2],
                               float *o)
{
    float m = -INFINITY, w[KVCL_BLOCK], lanes[KVCL_BLOCK];
    for (uint32_t c = 0; c < KVCL_BLOCK; c++)
        m = pages->seen[c] && pages->m[c] > m ? pages->m[c] : m;
    for (uint32_t c = 0; c < KVCL_BLOCK; c++)
        w[c] = pages->seen[c] ? kvcl_exp(pages->m[c] - m) : 0.0f;
    for (uint32_t c = 0; c < KVCL_BLOCK; c++)
        lanes[c] = pages->seen[c] ? w[c] * pages->l[c] : 0.0f;
    ml[0] = m;
    ml[1] = kvcl_cpu_tree(lanes, KVCL_BLOCK);
    for (uint32_t d = 0; d < head_dim; d++) {
        for (uint32_t c = 0; c < KVCL_BLOCK; c++)
            lanes[c] = pages->seen[c] ? w[c] * pages->o[c][d] : 0.0f;
        o[d] = kvcl_cpu_tree(lanes, KVCL_BLOCK);
    }
}

static size_t partial_index(const kvcl_attn_in *in, uint32_t i, uint32_t h, uint32_t part)
{
    return ((size_t)i * in->n_q_heads + h) * in->n_parts + part;
}

float *kvcl_cpu_attn_ml(const kvcl_attn_in *in, uint32_t i, uint32_t h, uint32_t part)
{
    return (float *)kvcl_cpu_ptr(in->ml) + 2 * partial_index(in, i, h, part);
}

float *kvcl_cpu_attn_o(const kvcl_attn_in *in, uint32_t i, uint32_t h, uint32_t part)
{
    return (float *)kvcl_cpu_ptr(in->o) + partial_index(in, i, h, part) * in->head_dim;
}
