/* simd_matmul.c - prefill's linear layer.  Definition: cpu/matmul.c
 *
 * An output is one fma chain over k, so the vectors run across tokens.  Phase 0 packs x into tiles
 * of 16 tokens, [tile][cols][16], tokens beyond the last being zero.  Phase 1: a task is a block of
 * rows of w against up to MAX_TOKENS tokens.  It goes over k in steps: expands the rows' weights
 * of the step to f32 in scratch, then runs MR rows x NV tiles at a time in registers.  Between
 * steps the chains rest in scratch, [tile][row][16]. */
#include "simd.h"

#if V16_REGS == 1
#define MR 8 /* rows, and */
#define NV 3 /* tiles of tokens in registers: 24 sums, 3 of x, 1 weight */
#else
#define MR 6
#define NV 1
#endif
#define MAX_ROWS 48          /* rows of a task, a multiple of MR */
#define MAX_TOKENS 512       /* tokens of a task */
#define STEP 512             /* of k */
#define PITCH (STEP + 16)    /* of an expanded row: keeps rows out of each other's cache sets */
#define TILE (MAX_ROWS * 16) /* floats of chains for one tile of tokens */

_Static_assert(MAX_ROWS % MR == 0, "a task holds whole register blocks");
_Static_assert((MAX_ROWS * PITCH + MAX_TOKENS / 16 * TILE) * 4 <= (1 << 20), "scratch");

/* rows 0 .. MR - 1 of w and nv tiles of x, over n values of k; nv is a constant.  x tiles are
 * `tile` floats apart. */
KVCL_INLINE void micro(uint32_t nv, const float *w, const float *x, size_t tile, uint32_t n,
                       bool first, float *sums)
{
    v16 acc[MR][NV];
    KVCL_UNROLL
    for (uint32_t r = 0; r < MR; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        acc[r][j] = first ? v16_set(0.0f) : v16_load(sums + j * TILE + r * 16);
    for (uint32_t k = 0; k < n; k++) {
        v16 xv[NV];
        KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++)
            xv[j] = v16_load(x + j * tile + (size_t)k * 16);
        KVCL_UNROLL
        for (uint32_t r = 0; r < MR; r++) {
            v16 wv = v16_set(w[r * PITCH + k]);
            KVCL_UNROLL
            for (uint32_t j = 0; j < nv; j++)
                acc[r][j] = v16_fma(wv, xv[j], acc[r][j]);
        }
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < MR; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        v16_store(sums + j * TILE + r * 16, acc[r][j]);
}

/* Asks for the lines that the results of nv tiles will be written to, n_rows of each token. */
static void fetch_out(float *out, size_t out_stride, uint32_t n_rows, uint32_t n_tokens)
{
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t r = 0; r < n_rows; r += 16)
            __builtin_prefetch(out + t * out_stride + r, 1, 2);
}

/* n_rows rows (rounded up to MR) against n_tiles tiles; out is NULL before the last step. */
static void step_block(const float *w, uint32_t n_rows, const float *x, size_t tile,
                       uint32_t n_tiles, uint32_t n, bool first, float *sums, float *out,
                       size_t out_stride)
{
    for (uint32_t t = 0; t < n_tiles; t += NV) {
        if (out && t + NV < n_tiles)
            fetch_out(out + t * 16 * out_stride, out_stride, n_rows, NV * 16);
        for (uint32_t r = 0; r < n_rows; r += MR) {
            const float *wr = w + (size_t)r * PITCH, *xt = x + t * tile;
            float *st = sums + (size_t)t * TILE + r * 16;
            if (NV == 1 || n_tiles - t == 1)
                micro(1, wr, xt, tile, n, first, st);
            else if (NV == 2 || n_tiles - t == 2)
                micro(NV < 2 ? NV : 2, wr, xt, tile, n, first, st);
            else
                micro(NV, wr, xt, tile, n, first, st);
        }
    }
}

/* One tile's chains, turned, to out[token][row]. */
static void store_tile(const float *sums, uint32_t n_rows, uint32_t n_tokens, float *out,
                       size_t out_stride)
{
    for (uint32_t r = 0; r < n_rows; r += 16) {
        v16 q[16];
        uint32_t n = kvcl_min_u32(16, n_rows - r);
        KVCL_UNROLL
        for (uint32_t i = 0; i < 16; i++)
            q[i] = v16_plus_zero(v16_load(sums + (size_t)(r + i) * 16));
        v16_transpose(q);
        for (uint32_t t = 0; t < n_tokens; t++) {
            float *o = out + t * out_stride + r;
            if (n == 16) {
                v16_store(o, q[t]);
            } else {
                float part[16];
                v16_store(part, q[t]);
                memcpy(o, part, n * sizeof *part);
            }
        }
    }
}

/* Rows [row, row + n_rows) against tokens [token, token + n_tokens). */
static void task(const kvcl_matmul_args *a, const float *x, uint32_t row, uint32_t n_rows,
                 uint32_t token, uint32_t n_tokens, float *scratch)
{
    const kvcl_mat *mat = a->w;
    uint32_t cols = mat->cols, n_tiles = kvcl_div_up(n_tokens, 16);
    size_t row_bytes = kvcl_type_bytes(mat->type, cols), tile = (size_t)cols * 16;
    float *w = scratch, *sums = scratch + MAX_ROWS * PITCH;
    float *out = (float *)kvcl_cpu_ptr(a->out) + (size_t)token * a->out_stride + row;
    for (uint32_t k = 0; k < cols; k += STEP) {
        uint32_t n = kvcl_min_u32(STEP, cols - k);
        const unsigned char *src = kvcl_cpu_rows(mat) + row * row_bytes;
        src += kvcl_type_bytes(mat->type, k);
        for (uint32_t r = 0; r < n_rows; r++)
            KVCL_SIMD_FN(expand_row)(mat->type, src + r * row_bytes, n, w + (size_t)r * PITCH);
        for (uint32_t r = n_rows; r % MR != 0; r++)
            memset(w + (size_t)r * PITCH, 0, n * sizeof *w);
        const float *xt = x + (size_t)token * cols + (size_t)k * 16;
        step_block(w, n_rows, xt, tile, n_tiles, n, k == 0, sums, k + n == cols ? out : NULL,
                   a->out_stride);
    }
    for (uint32_t t = 0; t < n_tokens; t += 16)
        store_tile(sums + (size_t)t * MAX_ROWS, n_rows, kvcl_min_u32(16, n_tokens - t),
                   out + (size_t)t * a->out_stride, a->out_stride);
}

/* 16 tokens x 16 columns from (token, k) on; n_tokens of them exist. */
KVCL_INLINE void pack_square(const float *x, size_t x_stride, uint32_t n_tokens, float *out)
{
    v16 q[16];
    KVCL_UNROLL
    for (uint32_t i = 0; i < 16; i++)
        q[i] = i < n_tokens ? v16_load(x + i * x_stride) : v16_set(0.0f);
    v16_transpose(q);
    KVCL_UNROLL
    for (uint32_t i = 0; i < 16; i++)
        v16_store(out + i * 16, q[i]);
}

static void pack(const kvcl_matmul_args *a, float *packed, kvcl_cpu_part *p)
{
    uint32_t cols = a->w->cols, n_tiles = kvcl_div_up(a->n, 16);
    for (uint32_t t, end; kvcl_cpu_take(p, n_tiles, 1, &t, &end);) {
        const float *x = (const float *)kvcl_cpu_ptr(a->x) + (size_t)t * 16 * a->x_stride;
        uint32_t n = kvcl_min_u32(16, a->n - t * 16);
        for (uint32_t k = 0; k < cols; k += 16)
            if (n == 16)
                pack_square(x + k, a->x_stride, 16, packed + ((size_t)t * cols + k) * 16);
            else
                pack_square(x + k, a->x_stride, n, packed + ((size_t)t * cols + k) * 16);
    }
}

void KVCL_SIMD_FN(matmul)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_matmul_args *a = args;
    float *packed = kvcl_cpu_ptr(a->scratch);
    if (p->phase == 0) {
        pack(a, packed, p);
        return;
    }
    uint32_t rows = a->w->rows, n_blocks = kvcl_div_up(a->n, MAX_TOKENS);
    /* some eight tasks a thread, so that none waits long for the last */
    uint32_t step = rows / (8 * p->n_threads) / MR * MR;
    step = kvcl_max_u32(MR, kvcl_min_u32(MAX_ROWS, step));
    uint32_t per_block = kvcl_div_up(rows, step);
    for (uint32_t t, end; kvcl_cpu_take(p, n_blocks * per_block, 1, &t, &end);) {
        uint32_t token = t / per_block * MAX_TOKENS, row = t % per_block * step;
        task(a, packed, row, kvcl_min_u32(step, rows - row), token,
             kvcl_min_u32(MAX_TOKENS, a->n - token), (float *)(void *)p->scratch);
    }
}
