/* partial.h - what the attention twins share: tasks, what a query sees, page partials to a block
 * partial.  The arithmetic: engine/ops_kv.h. */
#ifndef KVCL_CPU_PARTIAL_H
#define KVCL_CPU_PARTIAL_H

#include "rows.h"
#include "shared.h"

/* A task: one block's pages of the region and one kv head. */
typedef struct kvcl_cpu_attn_task {
    uint32_t first_page, end_page; /* of the sequence, within one block */
    uint32_t part, hk;             /* where the block's partials go */
} kvcl_cpu_attn_task;

bool kvcl_cpu_attn_take(const kvcl_attn_in *in, kvcl_cpu_part *p, kvcl_cpu_attn_task *out);
/* The slot of a page of the region. */
size_t kvcl_cpu_attn_slot(const kvcl_attn_in *in, uint32_t page);
/* The tokens [*begin, *end) of a page that query i sees; false when there are none. */
bool kvcl_cpu_attn_sees(const kvcl_attn_in *in, uint32_t page, uint32_t i, uint32_t *begin,
                        uint32_t *end);
/* qs = q * scale of query i, head h. */
void kvcl_cpu_attn_query(const kvcl_attn_in *in, uint32_t i, uint32_t h, float *qs);

/* Page partials of one query head over a block; lane c is page mod 8. */
typedef struct kvcl_cpu_attn_pages {
    bool seen[KVCL_BLOCK];
    float m[KVCL_BLOCK], l[KVCL_BLOCK];
    float o[KVCL_BLOCK][256]; /* o of raw and block pages, z of quant pages */
} kvcl_cpu_attn_pages;

/* Scores of tokens [begin, end) to weights p[t] = exp(s - m), in place; fills m and l of lane c. */
void kvcl_cpu_attn_weights(kvcl_cpu_attn_pages *pages, uint32_t c, float *s, uint32_t begin,
                           uint32_t end);
/* One head's rows of a raw page: K [D][64], V [64][D] from element `first` of each on. */
typedef struct kvcl_cpu_attn_rows {
    const void *k, *v;
    size_t first;
    kvcl_type type_k, type_v;
    uint32_t head_dim;
} kvcl_cpu_attn_rows;

/* Partial of one query head over tokens [begin, end) of a page, into lane c. */
void kvcl_cpu_attn_page(const kvcl_cpu_attn_rows *rows, const float *qs, uint32_t c, uint32_t begin,
                        uint32_t end, kvcl_cpu_attn_pages *out);
/* The block's M, l and tree over c of w_c o_c[d]. */
void kvcl_cpu_attn_merge_pages(const kvcl_cpu_attn_pages *pages, uint32_t head_dim, float ml[2],
                               float *o);
/* Where they belong. */
float *kvcl_cpu_attn_ml(const kvcl_attn_in *in, uint32_t i, uint32_t h, uint32_t part);
float *kvcl_cpu_attn_o(const kvcl_attn_in *in, uint32_t i, uint32_t h, uint32_t part);

#endif
