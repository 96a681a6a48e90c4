// matmul.cl - prefill's linear layer: one fma chain over k ascending per output.  Twin:
// cpu/matmul.c
//
// KVCL_SPEC: type of the weights.  Assumes (checked by the host half): cols a multiple of 32; a
// matrix of one part (the host half goes through the parts).
//
// kvcl_matmul (lane shape): groups of 16 x 16 items; a group does 64 rows of the matrix (dimension
// 0) for 64 rows of x (dimension 1), an item 4 x 4 of them, k by steps of 32 through local memory.
//   local memory: 2 * 32 * 64 floats = 16,384 bytes
// kvcl_matmul_vec (vector shape): one work-item does 8 rows of the matrix (dimension 0) for 32 rows
// of x (dimension 1), rows of x being the lanes of vectors; x comes packed by kvcl_matmul_pack as
// [n / 32][cols][32], with zeros for rows that are not there.
// kvcl_matmul_expand: weights to f32 rows; kvcl_matmul_zero: -0 to +0; both for CLBlast's SGEMM,
// one work-item per 8 values and per value.

#if KVCL_VECTOR_SHAPE

#define PANEL 32
#define RB 8
#define KB 32

__kernel void kvcl_matmul_pack(__global const float *x, ulong x_off, uint x_stride, uint n,
                               uint cols, __global float *packed, ulong packed_off)
{
    uint k = (uint)get_global_id(0), p = (uint)get_global_id(1);
    if (k >= cols || p * PANEL >= n)
        return;
    packed += packed_off + ((ulong)p * cols + k) * PANEL;
    for (uint i = 0; i < PANEL; i++) {
        uint row = p * PANEL + i;
        packed[i] = row < n ? x[x_off + (ulong)row * x_stride + k] : 0.0f;
    }
}

#define STEP(c)                                     \
    a##c = fma((float16)(w[(c)*KB + k]), x0, a##c); \
    b##c = fma((float16)(w[(c)*KB + k]), x1, b##c);

// Stores row r of the matrix for the rows of x in the two vectors.
static void store_row(__global float *out, ulong stride, uint n, float16 a, float16 b)
{
    float y[PANEL];
    vstore16(kvcl_zero16(a), 0, y);
    vstore16(kvcl_zero16(b), 1, y);
    for (uint i = 0; i < n; i++)
        out[i * stride] = y[i];
}

__kernel void kvcl_matmul_vec(__global const uchar *wm, uint rows, uint cols,
                              __global const float *packed, ulong packed_off, __global float *out,
                              ulong out_off, uint out_stride, uint n)
{
    uint r0 = (uint)get_global_id(0) * RB, p = (uint)get_global_id(1);
    if (r0 >= rows || p * PANEL >= n)
        return;
    __global const float *x = packed + packed_off + (ulong)p * cols * PANEL;
    float16 a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, a3 = 0.0f, a4 = 0.0f, a5 = 0.0f, a6 = 0.0f, a7 = 0.0f;
    float16 b0 = 0.0f, b1 = 0.0f, b2 = 0.0f, b3 = 0.0f, b4 = 0.0f, b5 = 0.0f, b6 = 0.0f, b7 = 0.0f;
    float w[RB * KB];
    for (uint k0 = 0; k0 < cols; k0 += KB, x += KB * PANEL) {
        for (uint c = 0; c < RB; c++) { // rows past the last one repeat it
            ulong at = (ulong)min(r0 + c, rows - 1) * cols + k0;
            for (uint k = 0; k < KB; k += 8)
                vstore8(kvcl_weight8(KVCL_SPEC, wm, rows, cols, at + k), 0, w + c * KB + k);
        }
        for (uint k = 0; k < KB; k++) {
            float16 x0 = vload16(2 * k, x), x1 = vload16(2 * k + 1, x);
            STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)
        }
    }
    out += out_off + (ulong)p * PANEL * out_stride + r0;
    uint left = rows - r0;
    n = min(n - p * PANEL, (uint)PANEL);
    store_row(out, out_stride, n, a0, b0);
    store_row(out + 1, out_stride, left > 1 ? n : 0, a1, b1);
    store_row(out + 2, out_stride, left > 2 ? n : 0, a2, b2);
    store_row(out + 3, out_stride, left > 3 ? n : 0, a3, b3);
    store_row(out + 4, out_stride, left > 4 ? n : 0, a4, b4);
    store_row(out + 5, out_stride, left > 5 ? n : 0, a5, b5);
    store_row(out + 6, out_stride, left > 6 ? n : 0, a6, b6);
    store_row(out + 7, out_stride, left > 7 ? n : 0, a7, b7);
}

#else

#define TILE 64 // rows of the matrix and of x in a group
#define KB 32
#define SIDE 4 // rows of each in an item

// Eight values into column `row` of a [KB][TILE] tile.
static void store_column(__local float *tile, uint k, uint row, float8 v)
{
    tile += k * TILE + row;
    tile[0] = v.s0;
    tile[TILE] = v.s1;
    tile[2 * TILE] = v.s2;
    tile[3 * TILE] = v.s3;
    tile[4 * TILE] = v.s4;
    tile[5 * TILE] = v.s5;
    tile[6 * TILE] = v.s6;
    tile[7 * TILE] = v.s7;
}

__kernel __attribute__((reqd_work_group_size(16, 16, 1))) void
kvcl_matmul(__global const uchar *w, uint rows, uint cols, __global const float *x, ulong x_off,
            uint x_stride, __global float *out, ulong out_off, uint out_stride, uint n)
{
    __local float wt[KB * TILE], xt[KB * TILE];
    uint lr = (uint)get_local_id(0), li = (uint)get_local_id(1), lid = li * 16 + lr;
    uint r0 = (uint)get_group_id(0) * TILE, i0 = (uint)get_group_id(1) * TILE;
    // what this item fetches of each tile: 8 values of one row; rows past the end repeat the last
    uint row = lid % TILE, kl = lid / TILE * 8;
    ulong w_at = (ulong)min(r0 + row, rows - 1) * cols + kl;
    __global const float *xr = x + x_off + (ulong)min(i0 + row, n - 1) * x_stride + kl;
    float4 acc0 = (float4)(0.0f), acc1 = acc0, acc2 = acc0, acc3 = acc0; // [row of x], 4 outputs
    for (uint k0 = 0; k0 < cols; k0 += KB) {
        store_column(wt, kl, row, kvcl_weight8(KVCL_SPEC, w, rows, cols, w_at + k0));
        store_column(xt, kl, row, vload8(0, xr + k0));
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 8
        for (uint k = 0; k < KB; k++) {
            float4 wk = vload4(k * (TILE / SIDE) + lr, wt), xk = vload4(k * (TILE / SIDE) + li, xt);
            acc0 = fma(wk, (float4)(xk.s0), acc0);
            acc1 = fma(wk, (float4)(xk.s1), acc1);
            acc2 = fma(wk, (float4)(xk.s2), acc2);
            acc3 = fma(wk, (float4)(xk.s3), acc3);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    float y[SIDE * SIDE];
    vstore4(acc0, 0, y);
    vstore4(acc1, 1, y);
    vstore4(acc2, 2, y);
    vstore4(acc3, 3, y);
    for (uint a = 0; a < SIDE; a++)
        for (uint b = 0; b < SIDE; b++) {
            uint i = i0 + li * SIDE + a, r = r0 + lr * SIDE + b;
            if (i < n && r < rows)
                out[out_off + (ulong)i * out_stride + r] = kvcl_zero(y[a * SIDE + b]);
        }
}

#endif

__kernel void kvcl_matmul_expand(__global const uchar *w, uint rows, uint cols, uint row0,
                                 uint n_rows, __global float *out, ulong out_off)
{
    uint k = (uint)get_global_id(0) * 8, r = (uint)get_global_id(1);
    if (k >= cols || r >= n_rows)
        return;
    ulong at = (ulong)r * cols + k;
    float8 v = kvcl_weight8(KVCL_SPEC, w, rows, cols, (ulong)row0 * cols + at);
    vstore8(v, 0, out + out_off + at);
}

__kernel void kvcl_matmul_zero(__global float *out, ulong out_off, uint out_stride, uint rows,
                               uint n)
{
    uint r = (uint)get_global_id(0), i = (uint)get_global_id(1);
    if (r >= rows || i >= n)
        return;
    out += out_off + (ulong)i * out_stride + r;
    *out = kvcl_zero(*out);
}
