/* ops_spectral.h - arguments of the transform code's operations: rows in a basis of their own, a
 * width in bits for each coefficient.  Dimensions, pages and partials: ops_kv.h; levels and
 * fifteen-bit integers: ops_code.h. */
#ifndef KVCL_OPS_SPECTRAL_H
#define KVCL_OPS_SPECTRAL_H

#include "ops_kv.h"

/* Shape of a spectral page: a part of every spectral op's arguments.
 *   D a multiple of 32, at most 256; fold k = 1, 2, 4 or 8.  A slot is k consecutive tokens: slot s
 *   holds tokens k s + j, j < k; a page has 64/k slots.
 *
 * Page layout (slot of the pool s begins at s * page_bytes; u32 words little-endian):
 *   K codes  u32 [words_k][64/k]      V codes  u32 [words_v][64/k]     all heads, one after another
 *   K norms  f16 [Hk][64/k]           V norms  f16 [Hk][64/k]
 * A head's words are planes of 8, 4, 2 and 1 bits in this order, each padded with zeros to whole
 * words; a word of b bits holds 32/b codes of one slot: code e at byte e mod 4, bit b * (e / 4) of
 * that byte.  8-bit codes are int8, -127 .. 127; others indices of kvcl_quant_level(b, .).  The
 * codes of a plane are its entries (r, i) by ascending r, within it i.  Words that no head uses are
 * zeros. */
typedef struct kvcl_spectral_shape {
    uint32_t n_kv_heads, head_dim, fold;
    uint32_t words_k, words_v; /* of a slot, all heads together; at least 1 */
} kvcl_spectral_shape;

/* Bytes of one page and of its parts K codes, V codes, K norms, V norms, in that order. */
size_t kvcl_spectral_page_bytes(const kvcl_spectral_shape *shape, size_t parts_out[4]);

/* One KV head's K or V, as a fit makes it.
 *   A row y = x - mean is taken to coefficients c[i] = sum over d of analysis[i][d] y[d]; the k
 *   tokens of a slot to u[r][i] = sum over j of (-1)^(number of bits of r & j) c[j][i];
 *   amp[r][i] is u's standard deviation.  Back: y[d] = sum over i of synth[i][d] gain[i] c[i]. */
typedef struct kvcl_spectral_part {
    uint32_t n_comp;                /* <= D, a multiple of 4 */
    const int8_t *synth, *analysis; /* [n_comp][D], -127 .. 127; analysis NULL: the same as synth */
    const float *gain;              /* [n_comp] */
    const float *amp;               /* [k][n_comp]; below 1e-10: never coded */
    const uint8_t *width;           /* [k][n_comp] of 0, 1, 2, 4, 8 bits; 0: never coded */
    bool in_order;                  /* the packed components keep the order of these */
} kvcl_spectral_part;

/* The words of a slot that a part's codes take. */
uint32_t kvcl_spectral_words(uint32_t fold, const kvcl_spectral_part *part);

/* A layer's basis: for K, then for V, of each head a part; its bytes depend on the shape alone.
 *   head      kvcl_spectral_head (cl/shared.h), 64 bytes
 *   synth     int8 [D/4][D][4]: S[i][d] at [i/4][d][i % 4]; zeros from n_comp on
 *   analysis  int8 [D/4][D][4]: E likewise; K only, V's E is its S
 *   place     u16 [k][D]: 32 * word of the entry's code (counted in the head's) + its first bit;
 *             KVCL_SPECTRAL_NONE where there is none
 *   factor    i16 [k][D]: A, 0 where there is no code
 *   amp       f32 [k][D]: where there is a code
 * where each begins: cl/shared.h.  What else is said of codes follows: a code's plane is that of
 * its word; n, its number, counts codes in the order of planes, without padding.  unit(8) = 32,
 * unit(b) = kvcl_quant_unit(b).
 * Components without a code are left out; the others come by descending sum over r of |A[r][i]|,
 * equals (with in_order: all) in the order of the fit; n_comp is their number, made a multiple of 4
 * with zeros.
 *   A[r][i] = round(128 / quantum * gain[i] amp[r][i] / (unit(b) k)), quantum the f32 next to the
 *   one that makes the largest sum over r of |A[r][i]| 16256 - k: x^ of these sums never leaves
 *   +-16256, nor int8 for component i >= n_wide (n_wide a multiple of 4). */
size_t kvcl_spectral_basis_bytes(const kvcl_spectral_shape *shape);
/* parts [2][Hk] (K, then V), borrowed; basis: kvcl_spectral_basis_bytes of them, all written.
 * E_ARG with a sentence when the shape is unknown, a part is not as described above or the codes
 * do not fit the words of the shape. */
kvcl_status kvcl_spectral_pack(kvcl_ctx *ctx, const kvcl_spectral_shape *shape,
                               const kvcl_spectral_part *parts, void *basis);

/* spectral_enc - raw pages to spectral pages.  Views, tables, bad: as quant_enc; K is as it was
 *   before rotation.  means f32 [2][Hk][D]: K's and V's, the same for all pages.  bad is the first
 *   token of a slot (of K or V) that is bad: one whose e or sum u^2 is not finite or whose norm
 *   fits no f16.
 *   y[t][d] = x[t][d] - mean[d];  0 for tokens t < n_skip of page 0: nobody reads them, and they
 *     must not spoil their slot
 *   c[t][i] = chain over d ascending of fma((float)E[i][d], y[t][d], .)
 *   u[r][i]: stages h = 1, 2, 4 .. k/2 over j of (a, b) = (a + b, a - b), as fwht
 *   Sums over a slot's codes n = 0 .. n_codes - 1: 16 lanes by n mod 16, fma chain, halving tree
 *   v = u recip(amp);  e = sum v^2;  q = e * inv_n
 *   inv = recip(q * rsqrt(q));  0 when q < 1e-30
 *   8 bits: code = round(min(127, max(-127, v * (32 inv)))), its level the same
 *   bits < 8: index = number of thresholds (ops_code.h) below v * (unit(b) * inv)
 *   l = level * (amp * recip(unit(b)))
 *   K: g = (sum u^2) * recip(sum l^2), norm = f16(g * rsqrt(g)): the slot keeps its length
 *   V: norm = f16((sum u^2) * recip(sum u l)): the slot keeps its part along itself
 *   norm is 0 when q < 1e-30, or a divisor or g is < 1e-30
 * cost: reads a raw page, writes a spectral page; 128 n_comp D flops per head and part.
 * source: this project; transform coding with a fixed bit allocation, Huang and Schultheiss 1963.
 * twins: cl/spectral.cl  cpu/spectral.c  tests/case_spectral.c */
typedef struct kvcl_spectral_enc_args {
    kvcl_spectral_shape shape;
    kvcl_view k, v, page_table, means, basis, pool, pool_table, bad;
    uint32_t first_page, n_pages, n_skip;
    kvcl_type type_k, type_v;
} kvcl_spectral_enc_args;

/* spectral_coef - raw pages to coefficients, for coders that round by themselves.
 *   coefs f32 [n_pages][words_k + words_v][64/k][4]: (u recip(amp)) * 32 of spectral_enc, u in
 *   levels of 8 bits, each where its code would be in a page: word, slot, byte.  0 where there is
 *   no code of 8 bits.  Not finite where rows are not.
 *   join: 0, or heads of the raw pages in each head of the shape: rows of join heads side by side,
 *   D / join dimensions (a multiple of 32) from each.  Raw pages are those of n_kv_heads * join
 *   heads: K's bytes are the same either way, V's are not.
 * cost: as spectral_enc.
 * twins: cl/spectral.cl  cpu/spectral.c  tests/case_spectral.c */
typedef struct kvcl_spectral_coef_args {
    kvcl_spectral_shape shape;
    kvcl_view k, v, page_table, means, basis, coefs;
    uint32_t first_page, n_pages, n_skip, join;
    kvcl_type type_k, type_v;
} kvcl_spectral_coef_args;

/* Dimensions of a head of raw pages, where `join` of them make a row of D. */
static inline uint32_t kvcl_spectral_raw_dim(const kvcl_spectral_shape *s, uint32_t join)
{
    return join > 1 ? s->head_dim / join : s->head_dim;
}

/* Where an encoder's rows come from; coefs is absent. */
static inline kvcl_spectral_coef_args kvcl_spectral_source(const kvcl_spectral_enc_args *a)
{
    return (kvcl_spectral_coef_args){.shape = a->shape,
                                     .k = a->k,
                                     .v = a->v,
                                     .page_table = a->page_table,
                                     .means = a->means,
                                     .basis = a->basis,
                                     .first_page = a->first_page,
                                     .n_pages = a->n_pages,
                                     .n_skip = a->n_skip,
                                     .type_k = a->type_k,
                                     .type_v = a->type_v};
}

/* spectral_dec - spectral pages to raw pages.  Views and rotation as quant_dec with form PRE.
 *   K: a[r][i] = (level * A[r][i] + 64) >> 7 (arithmetic), 0 where there is no code
 *      x^[j][i] = sum over r of (-1)^(number of bits of r & j) a[r][i]
 *      h[t][d] = sum over i of S[i][d] x^[t][i]
 *      x~[t][d] = fma(quantum * norm, (float)h[t][d], mean[d]), never -0
 *      All integers exact in any order: |a| and |x^| <= 16256, |h| < 2^30.
 *   V: x^ likewise of a[r][i] = level * A[r][i] (below 2^21)
 *      h[t][d] = chain over i ascending of fma((float)S[i][d], (float)x^[t][i], .)
 *      x~[t][d] = fma((quantum * 2^-7) * norm, h[t][d], mean[d]), never -0
 *   join as of spectral_coef: n_rot and the table are those of one of the joined heads.
 * twins: cl/spectral.cl  cpu/spectral.c  tests/case_spectral.c */
typedef struct kvcl_spectral_dec_args {
    kvcl_spectral_shape shape;
    kvcl_view pool, pool_table, means, basis, k, v, page_table;
    kvcl_view table; /* f32 [>= 64 (first_page + n_pages)][n_rot/2][2], or absent */
    uint32_t first_page, n_pages, n_rot, join;
    kvcl_rope_pairing pairing;
    kvcl_type type_k, type_v;
} kvcl_spectral_dec_args;

/* attn_spectral - block partials of n queries over spectral pages.
 *   Scores: k[t][d] = x~[t][d] of K as above, then turned and scored as attn_quant's PRE keys
 *   Values (p[t] of a page partial, 0 for tokens not seen):
 *     f[s][r]: stages h = 1 .. k/2 over j of p[k s + j], as fwht
 *     (W, wquantum) = quantise15 of the page's 64 numbers f[s][r] * norm[s]
 *     J[r][i] = sum over s of W[s][r] level[s][r][i], exact int32
 *     z_c[i] = (chain over r ascending of fma((float)J[r][i], (float)A[r][i], .)) *
 *              (wquantum * (quantum * 2^-7))
 *   block: M, w_c, l as for raw pages; z[i] = tree over c of w_c z_c[i];
 *     o[d] = fma(l, vmean[d], chain over i ascending of fma((float)S[i][d], z[i], .)), -0 stored
 *     as +0
 *   table as attn_quant with form PRE.  No scratch.
 * cost: reads n_pages * page_bytes; per page and KV head 128 n_comp D integer operations and 7 * 64
 *   D flops; per page and query head 2 * 64 (D flops + n_codes / (k 64) integer operations).
 * source: this project.
 * twins: cl/attn_spectral.cl  cpu/attn_spectral.c  tests/case_attn_spectral.c */
typedef struct kvcl_attn_spectral_args {
    kvcl_attn_in in;
    kvcl_spectral_shape shape;
    kvcl_view pool, means, basis, table;
    uint32_t n_rot;
    kvcl_rope_pairing pairing;
} kvcl_attn_spectral_args;

#endif
