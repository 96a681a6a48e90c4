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
        __builtin_prefetch(p + AHEAD + i, 0, 1);
}

/* `rows` and type are constants after inlining. */
KVCL_INLINE void float_rows(kvcl_type type, uint32_t rows, const unsigned char *w, size_t row_bytes,
                            const float *x, uint32_t cols, float *out)
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
        out[r] = v16_tree64(acc[r]);
}

KVCL_INLINE void float_all(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                           const float *x, uint32_t cols, float *out)
{
    uint32_t r = 0;
    for (; r + ROWS <= n; r += ROWS)
        float_rows(type, ROWS, w + r * row_bytes, row_bytes, x, cols, out + r);
    for (; r < n; r++)
        float_rows(type, 1, w + r * row_bytes, row_bytes, x, cols, out + r);
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

KVCL_INLINE c64 c64_type(kvcl_type type, const unsigned char *b0, const unsigned char *b1)
{
    return type == KVCL_Q8_0   ? c64_q8_0(b0, b1)
           : type == KVCL_Q5_0 ? c64_q5_0(b0, b1)
                               : c64_q4_0(b0, b1);
}

KVCL_INLINE size_t block_bytes(kvcl_type type)
{
    return type == KVCL_Q8_0   ? KVCL_Q8_0_BYTES
           : type == KVCL_Q5_0 ? KVCL_Q5_0_BYTES
                               : KVCL_Q4_0_BYTES;
}

/* The last n_blocks < 8 blocks of a row: pairs as long as there are, into the lanes they reach. */
KVCL_INLINE void quant_tail(kvcl_type type, const unsigned char *p, uint32_t n_blocks,
                            const kvcl_simd_row *x, uint32_t block, v16 acc[4])
{
    size_t bytes = block_bytes(type);
    float lanes[64], scale[16], sum[16];
    for (uint32_t j = 0; j < 4; j++)
        v16_store(lanes + 16 * j, acc[j]);
    for (uint32_t b = 0; b < n_blocks; b += 2) {
        bool both = b + 1 < n_blocks;
        const unsigned char *b0 = p + b * bytes, *b1 = both ? b0 + bytes : b0;
        for (uint32_t i = 0; i < 16; i++) {
            uint16_t d;
            memcpy(&d, i < 8 ? b0 : b1, sizeof d);
            scale[i] = kvcl_f16_to_f32(d) * x->scales[block + b + (both && i >= 8)];
        }
        c64 codes = c64_load(x->codes + (size_t)(block + b) * KVCL_QK);
        c64 start = c64_start(type, x->starts + (size_t)(block + b) * 8);
        v16 isum = v16_dot4(c64_type(type, b0, b1), codes, start);
        v16_store(sum, v16_fma(v16_load(scale), isum, v16_load(lanes + 8 * b)));
        memcpy(lanes + 8 * b, sum, (both ? 16 : 8) * sizeof *sum);
    }
    for (uint32_t j = 0; j < 4; j++)
        acc[j] = v16_load(lanes + 16 * j);
}

/* Eight blocks are one turn of the 64 lanes. */
KVCL_INLINE void quant_rows(kvcl_type type, uint32_t rows, const unsigned char *w, size_t row_bytes,
                            const kvcl_simd_row *x, uint32_t cols, float *out)
{
    size_t bytes = block_bytes(type);
    uint32_t n_blocks = cols / KVCL_QK, b = 0;
    v16 acc[ROWS][4];
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (int j = 0; j < 4; j++)
        acc[r][j] = v16_set(0.0f);
    for (; b + 8 <= n_blocks; b += 8) {
        s8 scale[ROWS];
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            prefetch(w + r * row_bytes + b * bytes, 8 * bytes);
            scale[r] = s8_load(w + r * row_bytes + b * bytes, bytes, x->scales + b);
        }
        KVCL_UNROLL
        for (uint32_t j = 0; j < 4; j++) {
            c64 codes = c64_load(x->codes + (size_t)(b + 2 * j) * KVCL_QK);
            c64 start = c64_start(type, x->starts + (size_t)(b + 2 * j) * 8);
            KVCL_UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                const unsigned char *p = w + r * row_bytes + (b + 2 * j) * bytes;
                v16 isum = v16_dot4(c64_type(type, p, p + bytes), codes, start);
                acc[r][j] = v16_fma(s8_pair(scale[r], (int)j), isum, acc[r][j]);
            }
        }
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        if (b < n_blocks)
            quant_tail(type, w + r * row_bytes + b * bytes, n_blocks - b, x, b, acc[r]);
        out[r] = v16_tree64(acc[r]);
    }
}

KVCL_INLINE void quant_all(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                           const kvcl_simd_row *x, uint32_t cols, float *out)
{
    uint32_t r = 0;
    for (; r + ROWS <= n; r += ROWS)
        quant_rows(type, ROWS, w + r * row_bytes, row_bytes, x, cols, out + r);
    for (; r < n; r++)
        quant_rows(type, 1, w + r * row_bytes, row_bytes, x, cols, out + r);
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
