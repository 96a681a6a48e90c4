/* ops_holo.h - arguments of the operations on superposed pages: several tokens in one row, told
 * apart by signs.  Dimensions, pages and partials: ops_kv.h; means and bad rows: ops_code.h. */
#ifndef KVCL_OPS_HOLO_H
#define KVCL_OPS_HOLO_H

#include "ops_kv.h"

/* What a slot is the sum of, and how it is read. */
typedef enum kvcl_holo_form {
    KVCL_HOLO_SIGNS = 0,  /* channels; read by their signs, the other tokens stay as noise */
    KVCL_HOLO_MATRIX = 1, /* channels; read by signs and a matrix that knows the noise */
    KVCL_HOLO_CHIPS = 2,  /* the strongest D/k components, each over k chips: no noise */
    KVCL_HOLO_SIDE = 3    /* the same side by side, without signs: factors of low rank */
} kvcl_holo_form;

/* Shape of a superposed page: a part of every holo op's arguments.
 *   D a multiple of 32, at most 256.  Slot s of a page's 64/k holds its tokens k s + j, j < k.
 *   sign(j, c) = (-1)^(number of bits of j & c), a Walsh matrix of k rows.
 *
 * Page layout: rows of D values as the GGUF types F16 / Q8_0 have them (engine/types.h), K
 * [Hk][64/k][row bytes], then V [Hk][64/k][row bytes].
 *
 * Rows of a token, y = x - mean (x where means are absent), and of its slot S:
 *   SIGNS, MATRIX  n = D components and one chip:  a[j][i] = y[j][i]
 *   CHIPS          n = D/k components, k chips:    a[j][i] = chain over d ascending of
 *                                                  fma(B[i][d], y[j][d], .)
 *   S[i chips + c] = sum over j ascending of +-a[j][i], by sign(j, c'); -0 made +0;
 *   SIDE: S[j n + i] = a[j][i], a as for CHIPS
 *   c' = c for CHIPS, else (i / pair) mod k; rounded to the slots' type (Q8_0 as block_enc)
 * Back:
 *   z[j][i] = sum over c ascending of +-S[i chips + c], by sign(j, c');  SIDE: S[j n + i]
 *   x~[j][d] = fma(gain, r, mean[d]), mean 0 where absent, -0 made +0;  r = z[j][d] for SIGNS, else
 *   chain over i ascending of fma(B[i][d], z[j][i], .)
 * B: f16 [n][D] of each part and head, [2][Hk]; absent for SIGNS.  The chips of a component come
 * back as k times the component, so its gain holds 1/k.
 * Tokens < n_skip of page 0, which nobody reads, add nothing to their slot. */
typedef struct kvcl_holo_shape {
    uint32_t n_kv_heads, head_dim;
    uint32_t fold; /* k: 2, 4 or 8 */
    uint32_t pair; /* neighbouring channels with one sign: 1 or 2 */
    kvcl_holo_form form;
    kvcl_type type; /* of slots: F16 or Q8_0 */
    float gain_k, gain_v;
    uint32_t fold_v; /* V's k, for SIDE; 0: as K's */
    bool by_block; /* matrices of block b = page / 8 are the b-th of the basis; else one for all */
} kvcl_holo_shape;

static inline uint32_t kvcl_holo_fold(const kvcl_holo_shape *s, bool of_v)
{
    return of_v && s->fold_v ? s->fold_v : s->fold;
}
/* Components of a row: n above. */
static inline uint32_t kvcl_holo_components(const kvcl_holo_shape *s, bool of_v)
{
    return s->form >= KVCL_HOLO_CHIPS ? s->head_dim / kvcl_holo_fold(s, of_v) : s->head_dim;
}

/* Bytes of one page and of its parts K, V; of a layer's (or block's) matrices (0 for SIGNS). */
size_t kvcl_holo_page_bytes(const kvcl_holo_shape *shape, size_t parts_out[2]);
size_t kvcl_holo_basis_bytes(const kvcl_holo_shape *shape);
/* Do both channels of each rotary pair carry one sign in every token's key, so that a slot may be
 * rotated as a whole?  ("strict even-boundary rule")  With pairing NONE nothing is rotated. */
bool kvcl_holo_commutes(const kvcl_holo_shape *shape, kvcl_rope_pairing pairing, uint32_t n_rot);

/* holo_enc - raw pages to superposed pages.  Views, tables, bad: as quant_enc; K is as the codec
 *   wants it, before or after rotation.  means: as there, or absent.  basis: all B, or absent.
 *   bad: the first token of a slot (of K or V) with a value that is not finite or fits no slot.
 * cost: reads a raw page, writes a superposed page; CHIPS: 128 n D flops per head and part.
 * source: HoloKV (github.com/0sami0/HoloKV, 2026): Walsh keys, k tokens a slot; MATRIX: the linear
 *   estimate of least squared error (Wiener); CHIPS: spreading as in code division, with as many
 *   chips as tokens; SIDE: Unsloth Spectral (github.com/nyssaleo/unsloth-spectral, 2026).  twins:
 * cl/holo.cl  cpu/holo.c  tests/case_holo.c */
typedef struct kvcl_holo_enc_args {
    kvcl_holo_shape shape;
    kvcl_view k, v, page_table, means, basis, pool, pool_table, bad;
    uint32_t first_page, n_pages, n_skip;
    kvcl_type type_k, type_v;
} kvcl_holo_enc_args;

/* holo_dec - superposed pages to raw pages: x~ as above; with table present and a pairing K is then
 *   rotated by table row 64 page + t, as rope_store rotates.  Written rounded to type_k / type_v.
 * twins: cl/holo.cl  cpu/holo.c  tests/case_holo.c */
typedef struct kvcl_holo_dec_args {
    kvcl_holo_shape shape;
    kvcl_view pool, pool_table, means, basis, k, v, page_table;
    kvcl_view table; /* f32 [>= 64 (first_page + n_pages)][n_rot/2][2], or absent */
    uint32_t first_page, n_pages, n_rot;
    kvcl_rope_pairing pairing;
    kvcl_type type_k, type_v;
} kvcl_holo_dec_args;

/* attn_holo - block partials of n queries over superposed pages: attn_raw's arithmetic on the rows
 *   that holo_dec makes (F32; rotated, where table is present), each token by its own position,
 * made where they are used.  table: as holo_dec, for all pages of the region, or absent. cost:
 * reads n_pages * page_bytes; per page and KV head up to 4 * 64 n D flops to make rows. twins:
 * cl/holo.cl  cpu/holo.c  tests/case_holo.c */
typedef struct kvcl_attn_holo_args {
    kvcl_attn_in in;
    kvcl_holo_shape shape;
    kvcl_view pool, means, basis, table;
    uint32_t n_rot;
    kvcl_rope_pairing pairing;
} kvcl_attn_holo_args;

#endif
