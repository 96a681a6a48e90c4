/* ops_rest.h - arguments of the operations of pages at rest: coefficients (spectral_coef), one step
 * for all of a page, entropy coded (ops_pack.h) into a slot of fixed size. */
#ifndef KVCL_OPS_REST_H
#define KVCL_OPS_REST_H

#include "ops_pack.h"
#include "ops_spectral.h"

/* Shape: a part of every rest op's arguments.
 *   A page is n_rows rows of n_cols int8 values, as rans codes them.  Row w holds what word w of a
 *   spectral page of 8-bit codes holds (K's words, then V's; ops_spectral.h): n_cols = 256 / fold
 *   bytes, [slot][4 codes], so that decoded values are the codes of such a page as they stand.
 *   scales i16 [n_rows]: 64 log2 of a row's deviation, in steps of rung 320.
 *   The step of rung j < 1024 is kvcl_rest_step(j) = 2^((j - 320) / 64), rounded to f16; row w of a
 *   page of rung j is coded by model kvcl_rest_model(scales[w], j): the deviation follows the step.
 *   n_parts equal runs of rows, one for K of each head (of the spectral page: several of the
 * cache's may share one), then one for V of each, each have a gain: decoded values count step *
 * (192 + gain byte) / 256.  Like the norms of spectral pages, it makes up for what coding takes
 * from lengths.
 *
 * A page in its slot of page_bytes (a multiple of 4):
 *   u32   bytes of the stream + 2^20 * rung
 *   u32   checksum: of the slot's words i != 1, the sum of kvcl_mix(word + kvcl_mix(i))
 *   u8[]  gains [n_parts], zeros up to a multiple of 4
 *   u32[] the stream (ops_pack.h), zeros behind it */
typedef struct kvcl_rest_shape {
    uint32_t n_pages, n_rows, n_cols, n_parts;
    uint32_t page_bytes;
} kvcl_rest_shape;

#define KVCL_REST_RUNGS 1024u

/* Bytes before the stream; those of its slot. */
static inline uint32_t kvcl_rest_head(const kvcl_rest_shape *s)
{
    return 8 + (s->n_parts + 3) / 4 * 4;
}
static inline uint32_t kvcl_rest_room(const kvcl_rest_shape *s)
{
    return s->page_bytes - kvcl_rest_head(s);
}

/* Bytes of the costs of values: u16 [KVCL_RANS_MODELS][256], 1/512 bit rounded up, by model and
 * value as an unsigned byte.  table: kvcl_rans_table_fill()'s. */
size_t kvcl_rest_cost_bytes(void);
void kvcl_rest_cost_fill(const uint32_t *table, uint16_t *costs);

/* The sum of costs with which a stream always fits `bytes`; 0 when there may be none.
 *   rans_enc: a state that starts at 2^16 + a word and ends at 2^16 or more loses one bit; a symbol
 *   of frequency f coded in state x loses less than f / x bits: .09 in the 16 bits from one word to
 *   the next, and as much in the symbol that pushes one, 1.2 % in all. */
uint32_t kvcl_rest_budget(size_t bytes);
/* One with which most streams fit: what the tail saves and what is lost on average. */
uint32_t kvcl_rest_hope(size_t bytes);

/* rest_quant - coefficients to int8 values with the finest step that is sure to fit.
 *   coefs f32 [n_pages][n_rows][n_cols]; values i8 the same; models u8 [n_pages][n_rows];
 *   rungs u32 [n_pages]: rung + 1024 * token, the token 64, or, of a page that is to be refused,
 * the first one with a coefficient that is not finite or too large for rung 1023 (0: the page as a
 *   whole does not fit); values of a refused page are zeros of rung 1023.
 *   value = sign of c * (int)(fma(|c|, recip(step), round)): below 1/2, round makes zero wider than
 *   the others; values are more often nearer to it than their middle (rate against distortion)
 *   A rung fits when all numbers before the cut are below 128 and the sum of costs is <= budget.
 *   rung: low = 0, high = 1023; while low < high: mid = (low + high) / 2, high = mid when it fits,
 *   else low = mid + 1
 *   gains u8 [n_pages][n_parts]: min(255, max(0, round(fma(256, g, -192)))), over a part's
 *     coefficients c and values l, n values of them: uu = sum c^2, cl = sum c l (each 64 lanes by
 *     index mod 64, fma chain, halving tree), ll = sum l^2, exact
 *     K (the first half of the parts): g = r rsqrt(r), r = ((uu * recip(ll)) * inv) * inv: keys
 * keep their length; V: g = (uu * recip(cl)) * inv: values keep their part along themselves; inv =
 * recip(step); g = 1 when the divisor, uu or r is < 1e-30, and in pages that are refused used u32
 * [n_pages], or absent: where it is not 0 a page's outputs are left as they are. cost: 12 passes
 * over a page. source: uniform quantisation with entropy coding, Gish and Pierce 1968; dead zone:
 * Sullivan 1996. twins: cl/rest.cl  cpu/rest.c  tests/case_rest.c */
typedef struct kvcl_rest_quant_args {
    kvcl_rest_shape shape;
    kvcl_view coefs, scales, costs, values, models, gains, rungs, used;
    uint32_t budget, fold;
    float round; /* 0 to 1/2 */
} kvcl_rest_quant_args;

/* rest_store - streams to pages in their slots.
 *   streams: page i's at i * kvcl_rest_room(), used u32 [n_pages] its bytes; rungs and gains of
 *   rest_quant; pool: pages, slots pool_table i32 [n_pages], all bytes written.
 *   bad i32 [n_pages][n_heads]: the token of rungs for each head; 0 when used is 0.
 * twins: cl/rest.cl  cpu/rest.c  tests/case_rest.c */
typedef struct kvcl_rest_store_args {
    kvcl_rest_shape shape;
    kvcl_view streams, used, rungs, gains, pool, pool_table, bad;
    uint32_t n_heads;
} kvcl_rest_store_args;

/* rest_open - where the streams of pages are, for rans_dec over the pool.
 *   places u32 [n_pages][2], models u8 [n_pages][n_rows].  A page with a wrong checksum or length
 *   gets a place of 0 bytes, which rans_dec calls bad.
 * twins: cl/rest.cl  cpu/rest.c  tests/case_rest.c */
typedef struct kvcl_rest_open_args {
    kvcl_rest_shape shape;
    kvcl_view pool, pool_table, scales, places, models;
} kvcl_rest_open_args;

/* rest_norms - what is left to make spectral pages of decoded values.
 *   out: pages of stride_bytes, page i the i-th, the first n_rows * n_cols bytes its values; the
 *   n_parts * n_cols / 4 f16 behind them become, part by part, the rung's step times the part's
 *   gain, 0 in pages that are bad.
 *   bad u32 [n_pages]: of rans_dec; fault u32 [1]: the larger of what it was and first_page + i + 1
 *   of a bad page.
 * twins: cl/rest.cl  cpu/rest.c  tests/case_rest.c */
typedef struct kvcl_rest_norms_args {
    kvcl_rest_shape shape;
    kvcl_view pool, pool_table, bad, out, fault;
    uint32_t stride_bytes, first_page;
} kvcl_rest_norms_args;

#endif
