// glu.cl - elementwise sums and activations.  Twin: cpu/glu.c
//
// One work-item per value; no local memory.  CPU compilers make vectors of neighbouring items
// themselves here, so there is one shape.

__kernel void kvcl_add(__global const float *a, ulong a_off, __global const float *b, ulong b_off,
                       __global float *out, ulong out_off, uint n, uint dim, uint stride,
                       uint b_is_row)
{
    uint j = (uint)get_global_id(0), i = (uint)get_global_id(1);
    if (i >= n || j >= dim)
        return;
    ulong at = (ulong)i * stride + j;
    out[out_off + at] = a[a_off + at] + b[b_off + (b_is_row ? j : (ulong)i * dim + j)];
}

__kernel void kvcl_swiglu(__global const float *gate, ulong gate_off, __global const float *up,
                          ulong up_off, __global float *out, ulong out_off, uint n)
{
    uint i = (uint)get_global_id(0);
    if (i < n)
        out[out_off + i] = kvcl_zero(kvcl_silu(gate[gate_off + i]) * up[up_off + i]);
}

__kernel void kvcl_gelu_rows(__global const float *x, ulong x_off, __global float *out,
                             ulong out_off, uint n)
{
    uint i = (uint)get_global_id(0);
    if (i < n)
        out[out_off + i] = kvcl_gelu(x[x_off + i]);
}
