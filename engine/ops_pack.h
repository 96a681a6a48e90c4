/* ops_pack.h - arguments of the entropy coder, for pages at rest. */
#ifndef KVCL_OPS_PACK_H
#define KVCL_OPS_PACK_H

#include "ops_model.h"

#define KVCL_RANS_MAX_VALUES (1u << 18) /* of a page */

/* What both directions know of the values: n_pages pages of n_rows rows (components) of n_cols int8
 * values (tokens, slots), [n_pages][n_rows][n_cols]; n_rows * n_cols at most 2^18.
 *   value_stride: from one page's values to the next's, at least n_rows * n_cols; 0: just that.
 *   models u8 [n_rows], row r's model (rans_model.h); page i's begin at i * model_stride, which is
 *     0 (one choice for all pages) or >= n_rows.
 *   table: kvcl_rans_table_fill()'s, unchanged.
 *
 * Stream of a page (little-endian), N = n_rows * n_cols values v in order:
 *   u32      mask of the lanes whose state is 2^24 or more
 *   u16 [32] the states' bits 0 .. 15;  u8 [32] bits 16 .. 23
 *   u16 []   words, a stack: the decoder takes the last one first
 *   u8       number of tail steps T;  u8 [] bits 24 .. 31 of the states in the mask
 * The main part is the first 32 (ceil(N / 32) - T) values, all when T = 0; its value i belongs to
 * lane i mod 32.  The tail is the rest; its value i belongs to lane i mod 4.
 * Range variant of asymmetric numeral systems, states x in 2^16 .. 2^32 - 1, words of 16 bits,
 * frequencies f (of 4096) and first slots c of the row's model:
 *   encode v: when x >= f 2^20, push x mod 2^16, x = floor(x / 2^16); then
 *     x = 4096 floor(x / f) + c + x mod f
 *   decode: slot x mod 4096 belongs to v; x = f floor(x / 4096) + slot - c; when x < 2^16,
 *     x = 2^16 x + pop()
 *   escaped values are encoded as eight plain bits first: when x >= 2^24, push as above; x = 256 x
 *     + v mod 256; then as the escape.  Decoding: after the escape and its pop, v = x mod 256,
 *     x = floor(x / 256); when x < 2^16, pop as above.
 *   The encoder goes from the last value to the first.  In a step of 32 values (4 in the tail) all
 *   lanes' plain bits come before all lanes' symbols; lanes push in ascending, pop in descending
 *   order.
 * The tail exists since a lane that starts at 2^16 wastes 16 bits: the encoder codes the last 32 T
 * values (those beyond a multiple of 32 make the last step short) in 4 lanes that start at 2^16,
 * pushing words to a stack of 28, T the largest number, at most 255, for which they fit.  These
 * words, from lane 31 down, zeros before them, are the low halves of the states 2^16 + word of the
 * lanes 4 .. 31 before the main part is encoded; lanes 0 .. 3 go on with the tail's states. */
typedef struct kvcl_rans_shape {
    uint32_t n_pages, n_rows, n_cols, model_stride, value_stride;
} kvcl_rans_shape;

/* Bytes between pages' values. */
static inline uint32_t kvcl_rans_stride(const kvcl_rans_shape *s)
{
    return s->value_stride ? s->value_stride : s->n_rows * s->n_cols;
}

/* rans_enc - values to streams.
 *   streams: page i's at i * slot_bytes (a multiple of 4, at least 104).  What a slot has beyond
 *   its stream stays as it is.
 *   used u32 [n_pages]: the stream's bytes; 0 when it does not fit its slot or a model is unknown:
 *   the slot then holds undefined bytes.  kvcl_rans_bytes_max() always fits.
 *   streams, used: no overlap with any other view.
 * cost: a division per value.
 * source: asymmetric numeral systems, arXiv:1311.2540; interleaved lanes, arXiv:1402.3392.
 * twins: cl/rans.cl  cpu/rans.c  tests/case_rans.c */
typedef struct kvcl_rans_enc_args {
    kvcl_rans_shape shape;
    kvcl_view values, models, table, streams, used;
    uint32_t slot_bytes;
} kvcl_rans_enc_args;

/* rans_dec - streams to values.
 *   places u32 [n_pages][2]: a stream's offset in `streams` in units of 4 bytes, its bytes.
 *   bad u32 [n_pages]: 1, and all values of the page 0, when the place is outside of the view, a
 *   model is unknown, words are missing or left over or the states do not end where an encoder
 *   starts; else 0.  Anything may stand in streams, places and models.  Not every flipped bit is
 *   noticed: what is stored needs a checksum besides.
 *   values, bad: no overlap with any other view.
 * cost: a table look-up per value.
 * twins: cl/rans.cl  cpu/rans.c  tests/case_rans.c */
typedef struct kvcl_rans_dec_args {
    kvcl_rans_shape shape;
    kvcl_view streams, places, models, table, values, bad;
} kvcl_rans_dec_args;

#endif
