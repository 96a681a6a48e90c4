/* ops_fit.h - arguments of the operations that gather what a basis is fitted to.  Dimensions,
 * pages: ops_kv.h. */
#ifndef KVCL_OPS_FIT_H
#define KVCL_OPS_FIT_H

#include "ops_kv.h"

#define KVCL_MAX_FOLD 8 /* tokens of a slot */

/* gram_pages - second moments of raw pages, one matrix for each Walsh row of a slot.
 *   y[t] = x[t] - mean; a slot is `fold` (1, 2, 4, 8) neighbouring tokens; Y[s][r] = row r of the
 *   Walsh transform over the slot's tokens (the butterflies of fwht, no factor).
 *   For each page in order, K (part 0) and V (part 1), head, row r and pair of dimensions a >= b:
 *     gram[part][h][r][a][b] += S,  S = chain over the page's slots ascending of
 *     fma(Y[s][r][a], Y[s][r][b], .) from +0;  gram[..][b][a] = gram[..][a][b].
 *   Slots with all tokens in [n_skip, n_tokens) count: kvcl_gram_slots() of them.
 *   With u = sum_d E[d] Y[d] the moment of u in row r is E gram[r] E^T, whatever basis E is chosen
 *   afterwards: one pass gives the basis (sum over r) and the variance of every (row, component).
 *   That costs as many products as one plain moment matrix, T/fold slots of fold rows.
 *   k, v raw pools, page_table i32 [ceil(n_tokens / 64)]; mean f32 [2][Hk][D] (K, then V); gram f32
 *   [2][Hk][fold][D][D], in and out, symmetric.
 *   join: 0, or heads of the raw pages in each of the Hk heads here, as of spectral_coef.
 * cost: T D (D + 1) / 2 fma for each of K, V and head; no scratch.
 * twins: cl/gram.cl  cpu/gram.c  tests/case_gram.c */
typedef struct kvcl_gram_pages_args {
    kvcl_view k, v, page_table, mean, gram;
    uint32_t n_tokens, n_skip, fold, join;
    uint32_t n_kv_heads, head_dim;
    kvcl_type type_k, type_v;
} kvcl_gram_pages_args;

/* Slots that gram_pages counts. */
static inline uint32_t kvcl_gram_slots(uint32_t n_skip, uint32_t n_tokens, uint32_t fold)
{
    if (fold == 0)
        return 0;
    uint32_t first = n_skip / fold + (n_skip % fold != 0), end = n_tokens / fold;
    return end > first ? end - first : 0;
}

/* gram_rows - second moments of the query heads that read a KV head.
 *   For KV head h and a >= b: gram[h][a][b] = chain over the rows of x ascending, within a row over
 *   the G = Hq/Hk query heads of h ascending, of fma(q[a], q[b], .) from what was there;
 *   gram[h][b][a] = gram[h][a][b].  So it does not matter how many calls the rows are cut into.
 *   x f32 [n] rows `stride` apart, [Hq][D] each; gram f32 [Hk][D][D], in and out, symmetric.
 * cost: n Hq D (D + 1) / 2 fma; no scratch.
 * twins: cl/gram.cl  cpu/gram.c  tests/case_gram.c */
typedef struct kvcl_gram_rows_args {
    kvcl_view x, gram;
    uint32_t n, stride;
    uint32_t n_q_heads, n_kv_heads, head_dim;
} kvcl_gram_rows_args;

#endif
