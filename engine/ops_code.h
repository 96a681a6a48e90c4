/* ops_code.h - arguments of the coded pages' operations: the Walsh-Hadamard transform, the quant
 * codec, llama.cpp's block types.  Dimensions, pages and partials: ops_kv.h. */
#ifndef KVCL_OPS_CODE_H
#define KVCL_OPS_CODE_H

#include "ops_kv.h"

/* fwht - fast Walsh-Hadamard transform of rows, times a factor.
 *   stages h = 1, 2, 4 .. dim/2: (a, b) = (x[i], x[i + h]) for i with (i & h) == 0 becomes
 *   (a + b, a - b); then out[i] = x[i] * factor, -0 stored as +0.  Natural (Hadamard) order.
 *   x, out f32 [n] rows `stride` apart; out may be x.  dim a power of two, 16 .. 65536; stride >=
 *   dim.  Every butterfly is one rounded sum and one rounded difference: any schedule of the
 *   stages in this order has the same bits.
 * cost: reads and writes 8 n dim bytes; n dim log2(dim) adds.
 * twins: cl/fwht.cl  cpu/fwht.c  tests/case_fwht.c */
typedef struct kvcl_fwht_args {
    kvcl_view x, out;
    uint32_t n, dim, stride;
    float factor;
} kvcl_fwht_args;

/* ---- quant: Hadamard-rotated low-bit codes -------------------------------------------------- */

/* Where the K of a quant page was taken, and what a scale belongs to. */
typedef enum kvcl_quant_form {
    KVCL_QUANT_PRE = 0,    /* K before rotation; Hadamard; one scale per token and head */
    KVCL_QUANT_POST = 1,   /* the same, K after rotation (or a model without rotation) */
    KVCL_QUANT_CHANNEL = 2 /* K after rotation, no Hadamard; scale and mean per channel and page */
} kvcl_quant_form;

/* Shape of a quant page: a part of every quant op's arguments.
 *   bits 8, 4, 3, 2 or 1 each; D a multiple of 32, at most 256.
 *
 * Page layout (slot s begins at s * page_bytes of the pool; all u32 words little-endian):
 *   K codes   u32 [Hk][bits_k * D/32][64]     V codes   u32 [Hk][2 bits_v][D]
 *   K scales  f16 [Hk][64]; CHANNEL: f16 [Hk][2][D] (scales, then means)
 *   V scales  f16 [Hk][64]
 * A word of a plane of b bits (b = 8, 4, 2, 1) holds P = 32/b codes: code r at byte r mod 4, bit
 * b * (r / 4) of that byte.  K: word w of token t (index [w][t]) holds dims d = w P + r.  V: word g
 * of dimension d (index [g][d]) holds tokens t = g P + r.  3 bits are a plane of the low 2 bits
 * followed by a plane of bit 2 (so [2 D/32 words][64] then [D/32 words][64]; V [4][D] then [2][D]).
 * 8-bit codes are int8, -127 .. 127; others are indices i of an ascending int8 table,
 * kvcl_quant_level(b, i) of cl/shared.h.  Value of a code: its level.
 *
 * Codes of a row x of n values (K, V: one token and head, n = D; CHANNEL: one channel, n = 64;
 * divisions by n are products with recip(n) of cl/shared.h, which is 1/n rounded):
 *   y = x - mean (f32)
 *   z = y; K PRE/POST and V: z = fwht of each block of B values * down, down = 2^-ceil(log2(B)/2)
 *   e = sum z^2: 64 lanes by index mod 64, fma chain, halving tree
 *   8 bits: step = f16(max|z| * (1/127)), the stored scale; inv = recip(step) (0 when step is 0);
 *     c = round(min(127, max(-127, z * inv)))
 *   bits < 8: r = e/n * rsqrt(e/n) (0 when e/n < 1e-30); inv = unit(b) * recip(r) (0 likewise);
 *     index = number of thresholds th_j, j = 1 .. 2^b - 1, with z * inv > th_j, th_j =
 *     (level_j + level_j-1) / 2; c = level of the index
 *     step, rounded to f16 the stored scale (0 when e/n < 1e-30, or its divisor is < 1e-30):
 *       K: g * rsqrt(g) (0 when g < 1e-30), g = e * recip(sum c^2): the row keeps its length
 *       V: e * recip(sum z c): the row keeps its part along itself
 *     sum z c in e's order, sum c^2 exact
 *     (least squares shrinks both; its next-token KL is 1.4 to 2.2 times as large:
 *     bench/JOURNAL.md)
 *   CHANNEL's K, over the tokens >= n_skip of page 0, over all tokens of other pages:
 *     mean = f16(0.5 * (max x + min x)), -0 stored as +0: the middle of the page's own range;
 *     step and inv as for 8 bits whatever the bits (clipping a channel costs more than a coarse
 *     step); bits < 8: c by the thresholds, of min(127, max(-127, z * inv))
 * A decoded value: x~ = mean + up * step * (fwht of c), up = 2^-floor(log2(B)/2);
 *   CHANNEL's K: mean + step * c.
 * means (but CHANNEL's K): f32 [n_epochs][2][Hk][D] (K, then V), epoch kvcl_mean_epoch(page / 8) of
 * cl/shared.h. */
typedef struct kvcl_quant_shape {
    uint32_t n_kv_heads, head_dim;
    uint32_t bits_k, bits_v;
    kvcl_quant_form form;
} kvcl_quant_shape;

/* Bytes of one page and of its parts K codes, V codes, K scales, V scales, in that order. */
size_t kvcl_quant_page_bytes(const kvcl_quant_shape *shape, size_t parts_out[4]);

/* quant_enc - raw pages to quant pages.
 *   k, v: raw pools (PRE: K before rotation), slots page_table i32 [n_pages]; pool: quant pages,
 *   slots pool_table i32 [n_pages]; means as above; page i is page first_page + i of the sequence.
 *   n_skip: tokens of page 0 (when among the pages) that nobody will read: still coded (as any
 *   other), but left out of CHANNEL's statistics; less than 64.
 *   bad i32 [n_pages][Hk]: the first token whose row of K or V is bad, 64 when there is none; that
 *   (page, head) then holds undefined bytes.  A row is bad when e (also computed for 8 bits) is not
 *   finite or the scale does not fit an f16.  CHANNEL's K: the first token with a value that is not
 *   finite; if there is none, 0 when a channel's mean or scale does not fit an f16.
 *   pool must not overlap k, v; bad, pool: no overlap with any other view.
 * cost: reads a raw page, writes a quant page; about 2 D log2(D) + 30 D flops per row.
 * source: rotation and Lloyd-Max tables: DRIVE/EDEN (arXiv:2105.08339), QuaRot (arXiv:2404.00456);
 *   per channel: KIVI (arXiv:2402.02750).  twins: cl/quant.cl  cpu/quant.c  tests/case_quant.c */
typedef struct kvcl_quant_enc_args {
    kvcl_quant_shape shape;
    kvcl_view k, v, page_table, means, pool, pool_table, bad;
    uint32_t first_page, n_pages, n_skip;
    kvcl_type type_k, type_v;
} kvcl_quant_enc_args;

/* quant_dec - quant pages to raw pages.
 *   x~ as above: v~ = fma(up * step, (float)h, mean), h the exact integer transform of the levels;
 *   CHANNEL: fma(step, (float)c, mean); never -0.  PRE with table present and a pairing: K is then
 *   rotated by table row 64 page + t, as rope_store rotates; else it is left as it was before.
 *   Written rounded to type_k / type_v.
 * twins: cl/quant.cl  cpu/quant.c  tests/case_quant.c */
typedef struct kvcl_quant_dec_args {
    kvcl_quant_shape shape;
    kvcl_view pool, pool_table, means, k, v, page_table;
    kvcl_view table; /* f32 [>= 64 (first_page + n_pages)][n_rot/2][2], or absent */
    uint32_t first_page, n_pages, n_rot;
    kvcl_rope_pairing pairing;
    kvcl_type type_k, type_v;
} kvcl_quant_dec_args;

/* attn_quant - block partials of n queries over quant pages.
 *   qs[d] = q[d] * scale.  quantise15(g): a = max|g|; Q = round(g * inv), inv = 16256 * recip(a),
 *   quantum = a * (1/16256); all 0 when a < 1e-30.  Sums of Q * level are exact int32.
 *   Scores
 *     (Q, quantum) = quantise15(g), I = sum Q[d] c[t][d], beta = sum qs[d] mean[d]: fma in 64 lanes
 *     by d mod 64, halving tree
 *     POST     g = fwht of each block of B values of qs;
 *              s[t] = fma((float)I * (quantum * up), step_t, beta)
 *     CHANNEL  g[d] = qs[d] * step_d; mean_d the page's;  s[t] = fma((float)I, quantum, beta)
 *     PRE      qp = qs turned back by 64 page: pair (a, b), (c, s) = table[64 page][pair]:
 *              a' = fma(a, c, b * s), b' = fma(b, c, -(a * s))
 *              k[d] = fma(up * step_t, (float)h[t][d], mean[d]), h = fwht blocks(levels), exact
 *              k turned by t: a' = fma(a, c, -(b * s)), b' = fma(b, c, a * s), (c, s) = table[t]
 *              s[t] = chain over d ascending of fma(qp[d], k[d], .)
 *   -0 of a score becomes +0.  m, p, l as in a page partial.
 *   Values: w[t] = p[t] * vstep_t (0 for tokens not seen); (W, quantum) = quantise15(w)
 *     J[d] = sum W[t] c[t][d], exact int32;  z_c[d] = (float)J[d] * (quantum * up)
 *   block: M, w_c, l as for raw pages; z[d] = tree over c of w_c z_c[d];
 *     o[d] = fma(l, vmean[d], fwht blocks(z)[d]), -0 stored as +0
 *   (int32 to float rounds to nearest even; 16256 = 127 * 128: Q = 128 hi + lo with both in int8.)
 *   A head's max|g| is over its D values; w's is over the page's 64 tokens.
 *   table f32 [> 64 last page, and >= 64][n_rot/2][2], PRE with a pairing only: without one, qp is
 *   qs and k is not turned.  Dimensions beyond n_rot are not turned.  means: epochs of all blocks
 *   (K's part unused by CHANNEL).  No scratch.
 * cost: reads n_pages * page_bytes; 4 n Hq T D integer operations per page; PRE: + Hk T (D log2 B +
 *   7 D) flops.  source: this project; rotated-domain attention as in QuaRot.
 * twins: cl/attn_quant.cl  cpu/attn_quant.c  tests/case_attn_quant.c */
typedef struct kvcl_attn_quant_args {
    kvcl_attn_in in;
    kvcl_quant_shape shape;
    kvcl_view pool, means, table;
    uint32_t n_rot;
    kvcl_rope_pairing pairing;
} kvcl_attn_quant_args;

/* ---- block: llama.cpp's q8_0 and q4_0 rows, for comparison ---------------------------------- */

/* A block page: rows as the GGUF types Q8_0 / Q4_0 have them (engine/types.h), bytes of the whole
 * page K [Hk][64][row bytes], then V [Hk][64][row bytes]; K after rotation.  D a multiple of 32. */
size_t kvcl_block_page_bytes(uint32_t n_kv_heads, uint32_t head_dim, kvcl_type type_k,
                             kvcl_type type_v);

/* block_enc - raw pages to block pages.
 *   bad i32 [n_pages][Hk]: the first token of K or V with a value that is not finite, or a block
 *   whose d does not fit an f16; 64 when there is none.  A bad (page, head) has undefined bytes.
 *   Canonical encoders (d and inv are +0 when amax < 1e-30):
 *   Q8_0: d = f16(amax * (1/127)), c = round(x * inv), inv = 127 * recip(amax)
 *   Q4_0: m the value of largest magnitude (the first of several), amax = |m|, d = f16(m * -0.125),
 *     inv = 8 * recip(amax) with the sign of -m, n = min(15, trunc(fma(x, inv, 8.5))).
 * twins: cl/block.cl  cpu/block.c  tests/case_block.c */
typedef struct kvcl_block_enc_args {
    kvcl_view k, v, page_table, pool, pool_table, bad;
    uint32_t n_pages, n_kv_heads, head_dim;
    kvcl_type type_k, type_v;             /* of the raw pages: F16, F32 */
    kvcl_type block_type_k, block_type_v; /* Q8_0, Q4_0 */
} kvcl_block_enc_args;

/* block_dec - block pages to raw pages: x~ = code * d, rounded to type_k / type_v. */
typedef struct kvcl_block_dec_args {
    kvcl_view pool, pool_table, k, v, page_table;
    uint32_t n_pages, n_kv_heads, head_dim;
    kvcl_type type_k, type_v, block_type_k, block_type_v;
} kvcl_block_dec_args;

/* attn_block - block partials of n queries over block pages: attn_raw's arithmetic on k[d] =
 * (float) code * d and v likewise (exact products), decoded on the fly. */
typedef struct kvcl_attn_block_args {
    kvcl_attn_in in;
    kvcl_view pool;
    kvcl_type block_type_k, block_type_v;
} kvcl_attn_block_args;

#endif
