/* ops_model.h - arguments of the model's operations.
 *
 * Dimensions: N rows of activations (tokens of a batch), E model width, F feed-forward width, V
 * vocabulary.  Shapes are C order, last index contiguous; strides count elements.  All activations
 * are f32.  A row of a batch has the bits it would have alone.
 *
 * Shared arithmetic (cl/shared.h): sum64 - 64 lanes by index mod 64, one fma chain down each lane
 * in ascending index from +0, then a halving tree a[i] += a[i + s], s = 32, 16, 8, 4, 2, 1.  A
 * stored sum of -0 becomes +0. */
#ifndef KVCL_OPS_MODEL_H
#define KVCL_OPS_MODEL_H

#include "kvcl.h"

typedef struct kvcl_buf kvcl_buf;
typedef struct kvcl_queue kvcl_queue;
typedef struct kvcl_mat kvcl_mat;

/* A run of bytes inside a buffer; buf == NULL: absent. */
typedef struct kvcl_view {
    kvcl_buf *buf;
    size_t off, bytes;
} kvcl_view;

/* embed_rows - rows of a table, dequantised.
 *   out[i][e] = table[id_i][e]  ( + pos_table[pos0 + i][e] )
 *   table, pos_table [rows][E] any weight type; pos_table NULL: none; ids i32 [n], each < table
 * rows (checked by the caller who made them; an id out of range yields a row of zeros); out f32
 * [n][E] contiguous.  With ids 0, 1, 2 ... this is the matrix dequantised. cost: reads n rows,
 * writes 4 n E bytes. twins: cl/embed.cl  cpu/embed.c  tests/case_embed.c */
typedef struct kvcl_embed_rows_args {
    const kvcl_mat *table;
    const kvcl_mat *pos_table;
    kvcl_view ids, out;
    uint32_t n, pos0;
} kvcl_embed_rows_args;

typedef enum kvcl_norm_kind {
    KVCL_NORM_NONE = 0,
    KVCL_NORM_RMS = 1,  /* y = (x * r) * w,  r = rsqrt(fma(sum64(x^2), 1/E, eps)) */
    KVCL_NORM_LAYER = 2 /* mu = sum64(x) / E (fma with 1.0), d = x - mu,
                           r = rsqrt(fma(sum64(d^2), 1/E, eps)), y = fma(d * r, w, b), -0 made +0 */
} kvcl_norm_kind;

typedef struct kvcl_norm_spec {
    kvcl_norm_kind kind;
    float eps;
    kvcl_view weight, bias; /* f32 [E]; bias for KVCL_NORM_LAYER only */
} kvcl_norm_spec;

/* norm - each row of x normalised (see kvcl_norm_kind; 1/E is the f32 nearest to it).
 *   x, out f32, n rows of dim; out may be x.  dim a multiple of 32, at most 65536.
 *   The rows are contiguous, or (n_group not 0) groups of n_group contiguous rows `stride` apart:
 *   the heads of a part of the tokens' q | k | v rows.
 *   cost: reads 4 n E + 4 E, writes 4 n E bytes.
 *   source: RMSNorm arXiv:1910.07467, LayerNorm arXiv:1607.06450
 *   twins: cl/norm.cl  cpu/norm.c  tests/case_norm.c */
typedef struct kvcl_norm_args {
    kvcl_norm_spec spec;
    kvcl_view x, out;
    uint32_t n, dim;
    uint32_t n_group, stride;
} kvcl_norm_args;

/* Where row i begins, once n_group is not 0. */
static inline size_t kvcl_norm_row_at(const kvcl_norm_args *a, uint32_t i)
{
    return (size_t)(i / a->n_group) * a->stride + (size_t)(i % a->n_group) * a->dim;
}

typedef enum kvcl_act {
    KVCL_ACT_NONE = 0,
    KVCL_ACT_SWIGLU = 1, /* two segments, gate and up: y = silu(gate) * up */
    KVCL_ACT_GELU = 2    /* tanh form */
} kvcl_act;

#define KVCL_MATVEC_SEGS 3

/* matvec - decode's linear layers: up to three matrices on one normalised input.
 *   z        = norm(x) (or x)
 *   y_s[r]   = dot(w_s[r], z)  ( + bias_s[r] )
 *   act      NONE: out_s = y_s;  GELU: out_s = gelu(y_s);  SWIGLU: out_0 = silu(y_0) * y_1
 *   res      out_0 = res + (the above); one segment (or SWIGLU's pair) only
 *   dot on F32, F16, BF16 weights: sum64 over k of w * z.
 *   dot on Q8_0, Q5_0, Q4_0 weights: z is quantised per 32 elements (kvcl_quant_act in cl/shared.h)
 *   to int8 codes and an f32 scale dz; the integer sum of each 4 consecutive products is exact;
 *   group g = k / 4 goes to lane g mod 64: acc = fma(dw * dz, (float)isum, acc); halving tree.
 *   x f32 [n] rows x_stride apart, cols wide; out_s f32 [n] rows out_stride[s] apart; bias f32;
 *   res f32 like out_0 (and may be out_0).  cols a multiple of 32, at most 65536; same for all
 *   segments.  SWIGLU: both matrices have the same rows.  out must not overlap x.
 *   cost: reads the matrices once per row of x; 2 n rows cols flops.
 *   twins: cl/matvec.cl  cpu/matvec.c  tests/case_matvec.c */
typedef struct kvcl_matvec_args {
    uint32_t n, n_seg;
    const kvcl_mat *w[KVCL_MATVEC_SEGS];
    kvcl_view bias[KVCL_MATVEC_SEGS];
    kvcl_view out[KVCL_MATVEC_SEGS];
    uint32_t out_stride[KVCL_MATVEC_SEGS];
    kvcl_view x;
    uint32_t x_stride;
    kvcl_norm_spec norm;
    kvcl_view res;
    kvcl_act act;
} kvcl_matvec_args;

/* matmul - prefill's linear layer.
 *   out[i][r] = sum_k w[r][k] * x[i][k]    one fma chain over k ascending, from +0
 *   w any weight type, dequantised to f32 first; x f32 [n] rows x_stride apart; out f32 [n] rows
 *   out_stride apart.  cols a multiple of 32.  scratch: kvcl_matmul_scratch_bytes.
 *   cost: 2 n rows cols flops.
 *   twins: cl/matmul.cl  cpu/matmul.c  tests/case_matmul.c */
typedef struct kvcl_matmul_args {
    uint32_t n;
    const kvcl_mat *w;
    kvcl_view x, out;
    uint32_t x_stride, out_stride;
    kvcl_view scratch;
} kvcl_matmul_args;

size_t kvcl_matmul_scratch_bytes(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w);

/* add - sum of two arrays, or of an array and a row.
 *   out[i][j] = a[i][j] + b[i][j]       (b_is_row: + b[j])
 *   f32; rows `stride` apart in a and out, b contiguous rows of dim (or one row); out may be a.
 *   twins: cl/glu.cl  cpu/glu.c  tests/case_glu.c */
typedef struct kvcl_add_args {
    kvcl_view a, b, out;
    uint32_t n, dim, stride;
    bool b_is_row;
} kvcl_add_args;

/* swiglu - out[i] = silu(gate[i]) * up[i], n_elems values; out may be gate or up.
 *   silu(x) = x * sigmoid(x), by own exp and reciprocal (cl/shared.h)
 *   source: arXiv:2002.05202.  twins: cl/glu.cl  cpu/glu.c  tests/case_glu.c */
typedef struct kvcl_swiglu_args {
    kvcl_view gate, up, out;
    uint32_t n_elems;
} kvcl_swiglu_args;

/* gelu - out[i] = x[i] * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)), the tanh form; out may be x.
 *   source: arXiv:1606.08415.  twins: cl/glu.cl  cpu/glu.c  tests/case_glu.c */
typedef struct kvcl_gelu_args {
    kvcl_view x, out;
    uint32_t n_elems;
} kvcl_gelu_args;

#define KVCL_SELFTEST_N 2048   /* inputs */
#define KVCL_SELFTEST_WORDS 16 /* words written per input */

/* selftest - every primitive that exactness stands on, at KVCL_SELFTEST_N made-up inputs.
 *   out u32 [KVCL_SELFTEST_N][KVCL_SELFTEST_WORDS]; the words are listed in cl/shared.h.
 *   twins: cl/selftest.cl  cpu/selftest.c  tests/case_selftest.c */
typedef struct kvcl_selftest_args {
    kvcl_view out;
} kvcl_selftest_args;

#endif
