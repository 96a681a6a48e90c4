/* simd_dot.c - rows of weights against one row of activations.  Definition: cpu/matvec.c.
 *
 * The 64 lanes of a sum are four v16 accumulators.  Rows go in groups that share the loads of x;
 * AVX-512 has registers for two rows at once, the others for one. */
#include "simd.h"

#define ROWS (V16_REGS == 1 ? 2 : 1)
/* How far ahead of the loads memory is asked for: a bit more than what a core has in flight. */
#define AHEAD 1536

KVCL_INLINE void prefetch(const unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + AHEAD + i, 0, 3);
}

/* `rows` and type are constants after inlining. */
KVCL_INLINE void float_rows(kvcl_type type, uint32_t rows, const unsigned char *w, size_t row_bytes,
                            const float *x, uint32_t cols, float *out, size_t out_step)
{
    size_t size = type == KVCL_F32 ? 4 : 2;
    v16 acc[ROWS][4];
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (int j = 0; j < 4; j++)
        acc[r][j] = v16_set(0.0f);
    uint32_t k = 0;
    for (; k + 64 <= cols; k += 64) {
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            prefetch(w + r * row_bytes + k * size, 64 * size);
        KVCL_UNROLL
        for (uint32_t j = 0; j < 4; j++) {
            v16 xv = v16_load(x + k + 16 * j);
            KVCL_UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                const unsigned char *p = w + r * row_bytes + (k + 16 * j) * size;
                acc[r][j] = v16_fma(v16_load_type(type, p), xv, acc[r][j]);
            }
        }
    }
    if (k < cols) { /* half a turn of the lanes is left */
        KVCL_UNROLL
        for (uint32_t j = 0; j < 2; j++) {
            v16 xv = v16_load(x + k + 16 * j);
            KVCL_UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                const unsigned char *p = w + r * row_bytes + (k + 16 * j) * size;
                acc[r][j] = v16_fma(v16_load_type(type, p), xv, acc[r][j]);
            }
        }
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        out[r * out_step] = v16_tree64(acc[r]);
}

/* Rows that run together are half of n apart: each is then a long stream through memory. */
KVCL_INLINE void float_all(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                           const float *x, uint32_t cols, float *out)
{
    uint32_t part = n / ROWS, r = 0;
    for (; r < part; r++)
        float_rows(type, ROWS, w + r * row_bytes, part * row_bytes, x, cols, out + r, part);
    for (r = part * ROWS; r < n; r++)
        float_rows(type, 1, w + r * row_bytes, row_bytes, x, cols, out + r, 1);
}

void KVCL_SIMD_FN(dot_float)(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                             const kvcl_simd_row *x, uint32_t cols, float *out)
{
    if (type == KVCL_F32)
        float_all(KVCL_F32, w, row_bytes, n, x->x, cols, out);
    else if (type == KVCL_F16)
        float_all(KVCL_F16, w, row_bytes, n, x->x, cols, out);
    else
        float_all(KVCL_BF16, w, row_bytes, n, x->x, cols, out);
}

KVCL_INLINE c32 c32_type(kvcl_type type, const unsigned char *block)
{
    return type == KVCL_Q8_0   ? c32_q8_0(block)
           : type == KVCL_Q5_0 ? c32_q5_0(block)
                               : c32_q4_0(block);
}

KVCL_INLINE size_t block_bytes(kvcl_type type)
{
    return type == KVCL_Q8_0   ? KVCL_Q8_0_BYTES
           : type == KVCL_Q5_0 ? KVCL_Q5_0_BYTES
                               : KVCL_Q4_0_BYTES;
}

/* n <= 8 blocks from block b on: one turn of the 64 lanes, a block feeding eight. */
KVCL_INLINE void quant_turn(kvcl_type type, uint32_t rows, uint32_t n, const unsigned char *w,
                            size_t row_bytes, const kvcl_simd_row *x, uint32_t b,
                            float scale[ROWS][8], v8 acc[ROWS][8])
{
    size_t bytes = block_bytes(type);
    KVCL_UNROLL
    for (uint32_t j = 0; j < n; j++) {
        c32 codes = c32_load(x->codes + (size_t)(b + j) * KVCL_QK);
        c32 start = c32_start(type, x->starts + (size_t)(b + j) * 8);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            const unsigned char *p = w + r * row_bytes + (b + j) * bytes;
            acc[r][j] =
                v8_fma_scalar(v8_dot4(c32_type(type, p), codes, start), scale[r][j], acc[r][j]);
        }
    }
}

/* The last n < 8 blocks of one row. */
KVCL_INLINE void quant_tail(kvcl_type type, uint32_t n, const unsigned char *w,
                            const kvcl_simd_row *x, uint32_t b, v8 acc[8])
{
    size_t bytes = block_bytes(type);
    KVCL_UNROLL
    for (uint32_t j = 0; j < 7; j++) {
        if (j >= n)
            return;
        const unsigned char *p = w + (b + j) * bytes;
        uint16_t d;
        memcpy(&d, p, sizeof d);
        c32 codes = c32_load(x->codes + (size_t)(b + j) * KVCL_QK);
        c32 start = c32_start(type, x->starts + (size_t)(b + j) * 8);
        float scale = kvcl_f16_to_f32(d) * x->scales[b + j];
        acc[j] = v8_fma_scalar(v8_dot4(c32_type(type, p), codes, start), scale, acc[j]);
    }
}

KVCL_INLINE float tree64(const v8 a[8])
{
    v8 b[4];
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        b[i] = v8_add(a[i], a[i + 4]);
    return kvcl_zero(v8_tree(v8_add(v8_add(b[0], b[2]), v8_add(b[1], b[3]))));
}

/* `rows` rows, row_bytes apart. */
KVCL_INLINE void quant_rows(kvcl_type type, uint32_t rows, const unsigned char *w, size_t row_bytes,
                            const kvcl_simd_row *x, uint32_t cols, float *out, size_t out_step)
{
    size_t bytes = block_bytes(type);
    uint32_t n_blocks = cols / KVCL_QK, b = 0;
    v8 acc[ROWS][8];
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (int j = 0; j < 8; j++)
        acc[r][j] = v8_zero();
    for (; b + 8 <= n_blocks; b += 8) {
        float scale[ROWS][8];
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            prefetch(w + r * row_bytes + b * bytes, 8 * bytes);
            v8_scales(w + r * row_bytes + b * bytes, bytes, x->scales + b, scale[r]);
        }
        quant_turn(type, rows, 8, w, row_bytes, x, b, scale, acc);
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        quant_tail(type, n_blocks - b, w + r * row_bytes, x, b, acc[r]);
        out[r * out_step] = tree64(acc[r]);
    }
}

KVCL_INLINE void quant_all(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                           const kvcl_simd_row *x, uint32_t cols, float *out)
{
    uint32_t part = n / ROWS, r = 0;
    for (; r < part; r++)
        quant_rows(type, ROWS, w + r * row_bytes, part * row_bytes, x, cols, out + r, part);
    for (r = part * ROWS; r < n; r++)
        quant_rows(type, 1, w + r * row_bytes, row_bytes, x, cols, out + r, 1);
}

void KVCL_SIMD_FN(dot_quant)(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                             const kvcl_simd_row *x, uint32_t cols, float *out)
{
    if (type == KVCL_Q8_0)
        quant_all(KVCL_Q8_0, w, row_bytes, n, x, cols, out);
    else if (type == KVCL_Q5_0)
        quant_all(KVCL_Q5_0, w, row_bytes, n, x, cols, out);
    else
        quant_all(KVCL_Q4_0, w, row_bytes, n, x, cols, out);
}
