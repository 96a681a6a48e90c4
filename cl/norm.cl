// norm.cl - RMSNorm and LayerNorm of rows.  Twin: cpu/norm.c
//
// Assumes (checked by the host half): dim a multiple of 32, n_group at least 1.
// Lane shape: one group of at least 64 items per row; 288 bytes of local memory.
// Vector shape: one work-item per row.

// Where row i begins: in groups of n_group contiguous rows, `stride` apart.
static ulong row_at(uint i, uint dim, uint n_group, uint stride)
{
    uint group = i / n_group;
    return (ulong)group * stride + (ulong)kvcl_rest(i, group, n_group) * dim;
}

#if KVCL_VECTOR_SHAPE
__kernel void kvcl_norm_vec(__global const float *x, ulong x_off, __global float *out,
                            ulong out_off, __global const float *w, ulong w_off,
                            __global const float *b, ulong b_off, uint n, uint dim, uint kind,
                            float eps, float inv_n, uint n_group, uint stride)
{
    uint i = (uint)get_global_id(0);
    if (i >= n)
        return;
    ulong at = row_at(i, dim, n_group, stride);
    x += x_off + at;
    out += out_off + at;
    float2 stats = (float2)(0.0f);
    if (kind != KVCL_NORM_NONE)
        stats = kvcl_norm_stats_vec(x, dim, kind, eps, inv_n);
    for (uint k = 0; k < dim; k += 16)
        vstore16(kvcl_norm16(kind, x, k, stats, w + w_off, b + b_off), 0, out + k);
}
#else
__kernel void kvcl_norm(__global const float *x, ulong x_off, __global float *out, ulong out_off,
                        __global const float *w, ulong w_off, __global const float *b, ulong b_off,
                        uint n, uint dim, uint kind, float eps, float inv_n, uint n_group,
                        uint stride)
{
    __local float red[KVCL_RED_FLOATS];
    uint i = (uint)get_group_id(0), lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    ulong at = row_at(i, dim, n_group, stride);
    x += x_off + at;
    out += out_off + at;
    float2 stats = kvcl_norm_stats_global(x, dim, kind, eps, inv_n, red);
    barrier(CLK_GLOBAL_MEM_FENCE); // out may be x: all sums first
    for (uint k = lid; k < dim; k += items) {
        float y = x[k];
        if (kind != KVCL_NORM_NONE)
            y = kvcl_norm_value(kind, y, stats, w[w_off + k],
                                kind == KVCL_NORM_LAYER ? b[b_off + k] : 0.0f);
        out[k] = y;
    }
}
#endif
