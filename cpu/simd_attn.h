/* simd_attn.h - what the sources of attention over raw and block pages share: where pages lie, a
 * task and the page at hand.  A task is one block of pages of one kv head against a chunk of rows,
 * a row being one head of one query; the rows of a tile share what is loaded. */
#ifndef KVCL_CPU_SIMD_ATTN_H
#define KVCL_CPU_SIMD_ATTN_H

#include "simd.h"

#define ATTN_TILE 6 /* rows in registers */
#define ATTN_PAGES KVCL_BLOCK
#define ATTN_WORK_BYTES ((size_t)640 << 10) /* of scratch that attn_pages takes, at most */

/* The pages of a region.  Types F16, F32: K [D][64], V [64][D]; Q8_0, Q4_0: rows of tokens. */
typedef struct kvcl_simd_pages {
    const kvcl_attn_in *in;
    /* where not NULL: makes page i_page of a head in f32, K [D][64], V [64][D], D a multiple of 16;
     * the rest is then unused */
    void (*make)(const struct kvcl_simd_pages *pages, uint32_t i_page, uint32_t hk, float *k,
                 float *v);
    const unsigned char *k, *v;            /* of slot 0, kv head 0 */
    size_t slot_k, slot_v, head_k, head_v; /* bytes from one to the next */
    kvcl_type type_k, type_v;
} kvcl_simd_pages;

/* Where a task's scratch begins; dimensions of a row are rounded up to 16 (pitch). */
typedef struct attn_work {
    float *q;                /* [rows][pitch], scaled */
    float *m, *l;            /* [rows][ATTN_PAGES]; m = -inf where a row sees no token */
    float *o;                /* [rows][ATTN_PAGES][pitch] */
    float *k, *v;            /* a page in f32: [D][64], [64][pitch] */
    float (*p)[KVCL_TOKENS]; /* [ATTN_TILE] */
} attn_work;

typedef struct attn_task {
    const kvcl_simd_pages *pages;
    uint32_t hk, group;     /* kv head; query heads of it */
    uint32_t first, n_rows; /* rows: head r % group of query r / group */
    uint32_t D, pitch;
    attn_work w;
} attn_task;

/* The page at hand. */
typedef struct attn_page {
    uint32_t c;                 /* lane in the block */
    uint32_t begin;             /* its first position */
    uint32_t from;              /* the first token of the region */
    const unsigned char *k, *v; /* [D][64]; [64][v_pitch] */
    kvcl_type type_k, type_v;
    uint32_t v_pitch;
    const unsigned char *next_k, *next_v; /* of the page after this one; NULL: do not ask for it */
} attn_page;

/* Positions that row r sees end here. */
static inline uint32_t attn_row_end(const attn_task *tk, uint32_t r)
{
    const kvcl_attn_in *in = tk->pages->in;
    return kvcl_min_u32(in->end, in->pos0 + (tk->first + r) / tk->group + 1);
}

/* Asks for `bytes` at p, unless it is NULL.  To be inlined: calls that only ask are removed. */
KVCL_INLINE void attn_ask(const unsigned char *p, size_t bytes)
{
    for (size_t b = 0; p && b < bytes; b += 64)
        __builtin_prefetch(p + b, 0, 1);
}

/* Page partials of rows [first, end) of the task, which all see something of the page; its types
 * are F16 or F32. */
void KVCL_SIMD_FN(attn_rows)(const attn_task *tk, const attn_page *pg, uint32_t first,
                             uint32_t end);

/* Block partials of a region. */
void KVCL_SIMD_FN(attn_pages)(const kvcl_simd_pages *pages, kvcl_cpu_part *p);

/* 64 rows of tokens as Q8_0 or Q4_0 to out [D][64], asking for as many bytes at `next` (NULL: none)
 * on the way. */
void KVCL_SIMD_FN(block_keys)(kvcl_type type, const unsigned char *rows, uint32_t D,
                              const unsigned char *next, float *out);

#endif
