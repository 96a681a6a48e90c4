/* simd_dot.c - rows of weights against one row of activations.  Definition: cpu/matvec.c.
 *
 * The 64 lanes of a sum are four v16 accumulators.  Rows go in groups that share the loads of x;
 * AVX-512 has registers for two rows at once, the others for one. */
#include "simd.h"

#define MAX_BLOCKS (65536 / KVCL_QK)
#define ROWS (V16_REGS == 1 ? 2 : 1)
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

KVCL_INLINE float tree64(const v8 a[8])
{
    v8 b[4];
    KVCL_UNROLL
    for (int i = 0; i < 4; i++)
        b[i] = v8_add(a[i], a[i + 4]);
    return kvcl_zero(v8_tree(v8_add(v8_add(b[0], b[2]), v8_add(b[1], b[3]))));
}

/* Scales of a row's blocks times those of x. */
KVCL_INLINE void row_scales(size_t bytes, const unsigned char *w, const float *dx, uint32_t n,
                            float *out)
{
    uint32_t b = 0;
    for (; b + 8 <= n; b += 8)
        v8_store(out + b, v8_scales(w + b * bytes, bytes, dx + b));
    for (; b < n; b++) {
        uint16_t d;
        memcpy(&d, w + b * bytes, sizeof d);
        out[b] = kvcl_f16_to_f32(d) * dx[b];
    }
}

/* Sums of four of block b, as floats. */
KVCL_INLINE v8 block_sums(kvcl_type type, const unsigned char *w, const kvcl_simd_row *x,
                          const int32_t *starts, uint32_t b)
{
    return v8_dot4(c32_type(type, w), c32_load(x->codes + (size_t)b * KVCL_QK),
                   c32_start(starts + (size_t)b * 8));
}

/* Eight blocks are one turn of the 64 lanes.  Nibbles keep the shuffle units busy: their scales are
 * made ahead, and reach all lanes of a product as part of a load.  Bytes keep the load units busy:
 * their scales are shuffled.  (Measured both ways.) */
KVCL_INLINE float quant_row(kvcl_type type, const unsigned char *w, const kvcl_simd_row *x,
                            const int32_t *starts, uint32_t n_blocks, float *scales)
{
    size_t bytes = block_bytes(type);
    bool ahead = type != KVCL_Q8_0;
    uint32_t b = 0, tail = n_blocks & ~7u;
    v8 acc[8];
    KVCL_UNROLL
    for (int j = 0; j < 8; j++)
        acc[j] = v8_zero();
    if (ahead)
        row_scales(bytes, w, x->scales, n_blocks, scales);
    else
        row_scales(bytes, w + tail * bytes, x->scales + tail, n_blocks - tail, scales + tail);
    for (; b < tail; b += 8, w += 8 * bytes) {
        v8 scale = ahead ? v8_zero() : v8_scales(w, bytes, x->scales + b);
        KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            v8 sums = block_sums(type, w + j * bytes, x, starts, b + j);
            acc[j] = ahead ? v8_fma_scalar(sums, scales[b + j], acc[j])
                           : v8_fma(sums, v8_pick(scale, (int)j), acc[j]);
        }
    }
    KVCL_UNROLL
    for (uint32_t j = 0; j < 7; j++)
        if (b + j < n_blocks) {
            v8 sums = block_sums(type, w + j * bytes, x, starts, b + j);
            acc[j] = v8_fma_scalar(sums, scales[b + j], acc[j]);
        }
    return tree64(acc);
}

void KVCL_SIMD_FN(dot_quant)(kvcl_type type, const unsigned char *w, size_t row_bytes, uint32_t n,
                             const kvcl_simd_row *x, uint32_t seg, uint32_t cols, float *out)
{
    float scales[MAX_BLOCKS];
    uint32_t n_blocks = cols / KVCL_QK;
    for (uint32_t r = 0; r < n; r++, w += row_bytes)
        if (type == KVCL_Q8_0)
            out[r] = quant_row(KVCL_Q8_0, w, x, x->starts[seg], n_blocks, scales);
        else if (type == KVCL_Q5_0)
            out[r] = quant_row(KVCL_Q5_0, w, x, x->starts[seg], n_blocks, scales);
        else
            out[r] = quant_row(KVCL_Q4_0, w, x, x->starts[seg], n_blocks, scales);
}
