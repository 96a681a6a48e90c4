/* ops_kv.h - arguments of the cache's operations.
 *
 * Dimensions: T = 64 tokens in a page (KVCL_PAGE_TOKENS), Hq / Hk query and key/value heads, G =
 * Hq/Hk, D head dimension, B the largest power of two that divides D (a head's Hadamard blocks).
 * Query head h reads kv head h / G.
 *
 * A raw page of one layer holds 64 consecutive tokens:
 *   K page [Hk][D][64]   (a dimension's tokens are neighbours: scores are chains over D)
 *   V page [Hk][64][D]
 * in f16 or f32, the same bytes on every device.  A pool is an array of pages (raw: one pool of K,
 * one of V; coded: one pool of whole pages); page_table[i] is the slot in the pool of page
 * first_page + i of the sequence.
 *
 * A region is a run of positions [begin, end) that one codec on one device answers for.  Partial =
 * { m, l, o[D] } of one query head: m = max score, l = sum exp(s - m), o = sum exp(s - m) v.
 * Tokens of a page give a page partial; the pages of a block (8 pages whose indices agree in
 * index / 8) that lie in the region give a block partial; blocks of all regions merge in order.
 *
 *   page partial   m = max s;  p[t] = exp(s[t] - m), exactly 0 where s - m < -60
 *                  l = sum p[t], o[d] = sum p[t] v[t][d]: 8 lanes by t mod 8 (l adds, o fma), tree
 *   block partial  M = max m_c;  w_c = exp(m_c - M), c = page mod 8
 *                  l = tree over c of w_c l_c,  o[d] = tree over c of w_c o_c[d]
 *                  (products, +0 for a page of the block that is absent or has no visible token)
 * "tree" halves: 8 lanes, a[i] += a[i + 4], + 2, + 1; -0 of a result becomes +0.
 * source: online softmax arXiv:1805.02867, block-wise arXiv:2205.14135 */
#ifndef KVCL_OPS_KV_H
#define KVCL_OPS_KV_H

#include "ops_model.h"

#define KVCL_PAGE_TOKENS 64
#define KVCL_BLOCK_PAGES 8
#define KVCL_BLOCK_TOKENS (KVCL_PAGE_TOKENS * KVCL_BLOCK_PAGES)

typedef enum kvcl_rope_pairing {
    KVCL_ROPE_NONE = 0,
    KVCL_ROPE_ADJACENT = 1, /* pairs (2i, 2i+1): llama */
    KVCL_ROPE_HALVES = 2    /* pairs (i, i + n_rot/2): "neox" */
} kvcl_rope_pairing;

/* rope_store - rotates queries and keys by position and stores keys and values in their pages.
 *   row i of qkv is [Hq*D | Hk*D | Hk*D] (q, k, v) of the token at position pos0 + i
 *   pair (a, b) with angle (c, s) = table[pos][pair]:
 *     a' = fma(a, c, -(b * s)),  b' = fma(b, c, a * s)
 *   q is rotated in place; k rotated goes to the K page, v to the V page, rounded to the page's
 *   type (f16: nearest even); the k and v parts of qkv are left as they were.
 *   ku: when present, a third pool of K pages that gets k as it was before rotation, in type_ku.
 *   table f32 [>= pos0 + n][n_rot/2][2]; n_rot even, <= D; dims beyond n_rot are not rotated.
 *   k, v, ku: pools; page_table i32 [n_pages] for the pages first_page .. first_page + n_pages - 1,
 *   which must contain positions pos0 .. pos0 + n - 1.
 * source: RoPE arXiv:2104.09864.  twins: cl/rope.cl  cpu/rope.c  tests/case_rope.c */
typedef struct kvcl_rope_store_args {
    kvcl_view qkv, table, k, v, page_table;
    kvcl_view ku;
    uint32_t n, qkv_stride, pos0;
    uint32_t n_q_heads, n_kv_heads, head_dim, n_rot;
    uint32_t first_page, n_pages;
    kvcl_rope_pairing pairing;
    kvcl_type type_k, type_v, type_ku;
} kvcl_rope_store_args;

/* The queries of an attention op and where their partials go; a part of every attn_*_args.
 *   q f32 [n] rows q_stride apart, [Hq][D]; query i stands at position pos0 + i and sees the
 *   region's tokens begin <= t < min(end, pos0 + i + 1).
 *   The region's pages are begin/64 .. (end-1)/64; its blocks b are begin/512 .. (end-1)/512.
 *   Block b's partial goes to index first_part + b - begin/512 of ml f32 [n][Hq][n_parts][2] =
 *   (m, l) and o f32 [n][Hq][n_parts][D].  A block of which query i sees no token stays unwritten.
 *   page_table i32: slots of pages begin/64 .. (end-1)/64.
 *   scale: scores are of qs[d] = q[d] * scale. */
typedef struct kvcl_attn_in {
    kvcl_view q, page_table, ml, o;
    uint32_t n, q_stride, pos0;
    uint32_t n_q_heads, n_kv_heads, head_dim;
    uint32_t begin, end;
    uint32_t first_part, n_parts;
    float scale;
} kvcl_attn_in;

/* attn_raw - block partials of n queries over raw pages.
 *   s[t] = chain over d ascending of fma(qs[d], k[d][t]); then page and block partials as above.
 *   D a multiple of 8, at most 256.
 * cost: reads Hk T D (bytes of K + V elements) per page; 4 n Hq T D flops per page.
 * twins: cl/attn.cl  cpu/attn.c  tests/case_attn.c */
typedef struct kvcl_attn_raw_args {
    kvcl_attn_in in;
    kvcl_view k, v;
    kvcl_type type_k, type_v;
} kvcl_attn_raw_args;

/* attn_merge - block partials to attention output.
 *   query i merges its partials c = 0 .. n_before + (pos0 + i)/512 - last_begin/512: n_before of
 *   earlier regions, all seen by every query, and those of the last (causal) region, whose first
 *   position is last_begin <= pos0.
 *   M = max m_c;  w_c = exp(m_c - M), 0 below -60 and for an empty partial (m = -inf)
 *   L = sum w_c l_c, O[d] = sum w_c o_c[d]: fma in 8 lanes by c mod 8, halving tree
 *   out[i][h][d] = O[d] * recip(L), -0 stored as +0
 *   ml, o as attn_* wrote them; out f32 [n] rows out_stride apart, [Hq][D].
 * twins: cl/attn.cl  cpu/attn.c  tests/case_attn.c */
typedef struct kvcl_attn_merge_args {
    kvcl_view ml, o, out;
    uint32_t n, pos0, n_before, last_begin, n_parts;
    uint32_t n_q_heads, head_dim, out_stride;
} kvcl_attn_merge_args;

/* kv_sum - adds up K and V rows of pages: what means are made of.
 *   for each page i = 0 .. n_pages - 1 in order, each head and dimension: sums[d] += S, with S the
 *   sum over the page's tokens (those < n_skip of the first page left out) in 8 lanes by t mod 8,
 *   halving tree.
 *   k, v raw pools (K before or after rotation, as the codec wants), page_table i32 [n_pages];
 *   sums f32 [2][Hk][D] (K, then V), in and out.
 * twins: cl/kv.cl  cpu/kv.c  tests/case_kv.c */
typedef struct kvcl_kv_sum_args {
    kvcl_view k, v, page_table, sums;
    uint32_t n_pages, n_skip;
    uint32_t n_kv_heads, head_dim;
    kvcl_type type_k, type_v;
} kvcl_kv_sum_args;

/* kv_mean - mean[i] = sums[i] * factor, i < n: the sums of kv_sum to the means of an epoch.
 * twins: cl/kv.cl  cpu/kv.c  tests/case_kv.c */
typedef struct kvcl_kv_mean_args {
    kvcl_view sums, mean; /* f32 [n] each */
    uint32_t n;
    float factor;
} kvcl_kv_mean_args;

/* kv_error - squared error between two sets of raw pages, for quality figures.
 *   err f32 [n_pages][Hk][4] = sum (k - k~)^2, sum k^2, sum (v - v~)^2, sum v^2 over the page's
 *   tokens (those < n_skip of the first page left out) and dimensions.  Element (t, d) belongs to
 *   lane d mod 64; a lane is an fma chain over d ascending, within it over t ascending; halving
 *   tree over 64 lanes.
 *   k, v, ka, va: pools of the exact and the approximate pages; page i of them is slot
 *   page_table[i] and page_table_a[i].
 * twins: cl/kv.cl  cpu/kv.c  tests/case_kv.c */
typedef struct kvcl_kv_error_args {
    kvcl_view k, v, page_table, ka, va, page_table_a, err;
    uint32_t n_pages, n_skip;
    uint32_t n_kv_heads, head_dim;
    kvcl_type type_k, type_v, type_ka, type_va;
} kvcl_kv_error_args;

#endif
