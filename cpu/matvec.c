// matvec.c - decode's linear layers.  Kernels: cl/matvec.cl; SIMD: cpu/simd_matvec.c
#include "rows.h"
#include "shared.h"

#define ROWS_PER_TASK 16

// Integer codes and scale of one block of 32 weights.
static float block_codes(kvcl_type type, const unsigned char *blk, int *codes)
{
    uint32_t qh = 0;
    const unsigned char *qs = blk + 2;
    if (type == KVCL_Q5_0) {
        memcpy(&qh, blk + 2, sizeof qh);
        qs = blk + 6;
    }
    for (uint32_t e = 0; e < KVCL_QK; e++) {
        int nibble = e < 16 ? qs[e % 16] & 15 : qs[e % 16] >> 4;
        if (type == KVCL_Q8_0)
            codes[e] = (int8_t)qs[e];
        else if (type == KVCL_Q5_0)
            codes[e] = (nibble | (int)(qh >> e & 1u) << 4) - 16;
        else
            codes[e] = nibble - 8;
    }
    uint16_t d;
    memcpy(&d, blk, sizeof d);
    return kvcl_f16_to_f32(d);
}

// One row against quantised activations: exact integer sums of 4, 64 lanes, halving tree.
static float dot_blocks(kvcl_type type, const unsigned char *row, const int8_t *zq, const float *zd,
                        uint32_t cols)
{
    float lanes[64] = {0};
    for (uint32_t b = 0; b < cols / KVCL_QK; b++) {
        int codes[KVCL_QK];
        float dw = block_codes(type, row + (size_t)b * kvcl_type_block_bytes(type), codes);
        for (uint32_t g = 0; g < KVCL_QK / 4; g++) {
            int isum = 0;
            for (uint32_t j = 0; j < 4; j++)
                isum += codes[4 * g + j] * zq[b * KVCL_QK + 4 * g + j];
            uint32_t lane = (b * (KVCL_QK / 4) + g) % 64;
            lanes[lane] = fmaf(dw * zd[b], (float)isum, lanes[lane]);
        }
    }
    return kvcl_cpu_tree(lanes, 64);
}

// One row against f32 activations: sum64.
static float dot_floats(kvcl_type type, const unsigned char *row, const float *z, uint32_t cols)
{
    float lanes[64] = {0};
    for (uint32_t k = 0; k < cols; k += 32) {
        float w[32];
        kvcl_dequantise(type, row + kvcl_type_bytes(type, k), 32, w);
        for (uint32_t j = 0; j < 32; j++)
            lanes[(k + j) % 64] = fmaf(w[j], z[k + j], lanes[(k + j) % 64]);
    }
    return kvcl_cpu_tree(lanes, 64);
}

static float row_value(const kvcl_matvec_args *a, uint32_t s, uint32_t r, const float *z,
                       const int8_t *zq, const float *zd)
{
    const kvcl_mat *w = a->w[s];
    const unsigned char *row = kvcl_cpu_rows(w) + r * kvcl_type_bytes(w->type, w->cols);
    float y = kvcl_type_is_quantised(w->type) ? dot_blocks(w->type, row, zq, zd, w->cols)
                                              : dot_floats(w->type, row, z, w->cols);
    const float *bias = kvcl_cpu_ptr(a->bias[s]);
    return bias ? y + bias[r] : y;
}

// Row r (counted over all segments) for row i of x: value, activation, residual.
static void store_row(const kvcl_matvec_args *a, uint32_t i, uint32_t r, const float *z,
                      const int8_t *zq, const float *zd)
{
    uint32_t s = 0;
    float y;
    if (a->act == KVCL_ACT_SWIGLU) {
        y = kvcl_zero(kvcl_silu(row_value(a, 0, r, z, zq, zd)) * row_value(a, 1, r, z, zq, zd));
    } else {
        for (; r >= a->w[s]->rows; s++)
            r -= a->w[s]->rows;
        y = row_value(a, s, r, z, zq, zd);
        if (a->act == KVCL_ACT_GELU)
            y = kvcl_gelu(y);
    }
    size_t at = (size_t)i * a->out_stride[s] + r;
    const float *res = kvcl_cpu_ptr(a->res);
    ((float *)kvcl_cpu_ptr(a->out[s]))[at] = res ? res[at] + y : y;
}

void kvcl_cpu_matvec(const void *args, kvcl_cpu_part *p)
{
    const kvcl_matvec_args *a = args;
    uint32_t cols = a->w[0]->cols, rows = a->w[0]->rows;
    for (uint32_t s = 1; s < a->n_seg && a->act != KVCL_ACT_SWIGLU; s++)
        rows += a->w[s]->rows;
    float *z = (float *)(void *)p->scratch, *zd = z + cols;
    int8_t *zq = (int8_t *)(zd + cols / KVCL_QK);
    uint32_t tasks_per_x = kvcl_div_up(rows, ROWS_PER_TASK), ready = UINT32_MAX;
    for (uint32_t t, end; kvcl_cpu_take(p, a->n * tasks_per_x, 1, &t, &end);) {
        uint32_t i = t / tasks_per_x, r = t % tasks_per_x * ROWS_PER_TASK;
        if (i != ready) {
            const float *x = kvcl_cpu_ptr(a->x);
            kvcl_cpu_norm_row(&a->norm, x + (size_t)i * a->x_stride, z, cols);
            kvcl_cpu_quant_row(z, zq, zd, cols);
            ready = i;
        }
        for (uint32_t last = kvcl_min_u32(rows, r + ROWS_PER_TASK); r < last; r++)
            store_row(a, i, r, z, zq, zd);
    }
}
