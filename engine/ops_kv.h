/* ops_kv.h - arguments of the cache's operations.
 *
 * Dimensions: T tokens in a page (KVCL_PAGE_TOKENS), Hq / Hk query and key/value heads, G = Hq/Hk,
 * D head dimension, P partials (one per page).  Query head h reads kv head h / G.
 *
 * A page of one layer holds 64 consecutive tokens:
 *   K page [Hk][D][64]   (a dimension's tokens are neighbours: scores are chains over D)
 *   V page [Hk][64][D]
 * in f16 or f32, the same bytes on every device.  A pool is an array of pages; page_table[i] is the
 * slot in the pool of page first_page + i of the sequence.
 *
 * partial = { m, l, o[D] } of one query head over one page: m = max score, l = sum exp(s - m),
 * o = sum exp(s - m) v.  Partials merge in page order to one set of bits, wherever they were made.
 * source: online softmax arXiv:1805.02867, block-wise arXiv:2205.14135 */
#ifndef KVCL_OPS_KV_H
#define KVCL_OPS_KV_H

#include "ops_model.h"

#define KVCL_PAGE_TOKENS 64

typedef enum kvcl_rope_pairing {
    KVCL_ROPE_NONE = 0,
    KVCL_ROPE_ADJACENT = 1, /* pairs (2i, 2i+1): llama */
    KVCL_ROPE_HALVES = 2    /* pairs (i, i + n_rot/2): "neox" */
} kvcl_rope_pairing;

/* rope_store - rotates queries and keys by position and stores keys and values in their pages.
 *   row i of qkv is [Hq*D | Hk*D | Hk*D] (q, k, v) of the token at position pos0 + i
 *   pair (a, b) with angle (c, s) = table[pos][pair]:  a' = fma(a, c, -(b * s)), b' = fma(b, c, a *
 * s) q is rotated in place; k rotated goes to the K page, v to the V page, rounded to the page's
 * type (f16: nearest even); the k and v parts of qkv are left as they were. table f32 [>= pos0 +
 * n][n_rot/2][2]; n_rot even, <= D; dims beyond n_rot are not rotated. k, v: pools; page_table i32
 * [n_pages] for the pages first_page .. first_page + n_pages - 1, which must contain positions pos0
 * .. pos0 + n - 1. source: RoPE arXiv:2104.09864.  twins: cl/rope.cl  cpu/rope.c  tests/case_rope.c
 */
typedef struct kvcl_rope_store_args {
    kvcl_view qkv, table, k, v, page_table;
    uint32_t n, qkv_stride, pos0;
    uint32_t n_q_heads, n_kv_heads, head_dim, n_rot;
    uint32_t first_page, n_pages;
    kvcl_rope_pairing pairing;
    kvcl_type type_k, type_v;
} kvcl_rope_store_args;

/* attn_raw - partials of n queries over raw pages.
 *   qs = q * scale;  s[t] = chain over d ascending of fma(qs[d], k[d][t])
 *   m = max s;  p[t] = exp(s[t] - m), exactly 0 where s - m < -60
 *   l = sum p[t], o[d] = sum p[t] v[t][d]: 8 lanes by t mod 8 (l adds, o fma), halving tree 4, 2, 1
 *   Query i stands at position pos0 + i and sees tokens at positions <= its own; it gets a partial
 *   for each page p in [first_page, first_page + n_pages) with 64 p <= pos0 + i, others stay
 * unwritten. q f32 [n] rows q_stride apart, [Hq][D]; ml f32 [n][Hq][n_parts][2] = (m, l); o f32
 * [n][Hq][n_parts][D]; partial of page p at index p.  first_page + n_pages <= n_parts. D a multiple
 * of 8, at most 256. cost: reads Hk T D (bytes of K + V elements) per page; 4 n Hq T D flops per
 * page. twins: cl/attn.cl  cpu/attn.c  tests/case_attn.c */
typedef struct kvcl_attn_raw_args {
    kvcl_view q, k, v, page_table, ml, o;
    uint32_t n, q_stride, pos0;
    uint32_t n_q_heads, n_kv_heads, head_dim;
    uint32_t first_page, n_pages, n_parts;
    float scale;
    kvcl_type type_k, type_v;
} kvcl_attn_raw_args;

/* attn_merge - partials to attention output.
 *   query i merges its partials c = 0 .. (pos0 + i) / 64:
 *   M = max m_c;  w_c = exp(m_c - M), 0 below -60 and for an empty partial (m = -inf)
 *   L = sum w_c l_c, O[d] = sum w_c o_c[d]: fma in 8 lanes by c mod 8, halving tree
 *   out[i][h][d] = O[d] * recip(L), -0 stored as +0
 *   ml, o as attn_raw wrote them; out f32 [n] rows out_stride apart, [Hq][D].
 *   twins: cl/attn.cl  cpu/attn.c  tests/case_attn.c */
typedef struct kvcl_attn_merge_args {
    kvcl_view ml, o, out;
    uint32_t n, pos0, n_parts;
    uint32_t n_q_heads, head_dim, out_stride;
} kvcl_attn_merge_args;

#endif
