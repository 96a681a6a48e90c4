// embed.cl - rows of an embedding table, dequantised.  Twin: cpu/embed.c
//
// KVCL_SPEC: the table's type.  Assumes (checked by the host half): dim a multiple of 32.
// One work-item per 8 values of a row; no local memory.  The part of the table at hand holds its
// rows row0 .. row0 + rows - 1; the part with first = 1 also writes zeros for ids that are in no
// part.

__kernel void kvcl_embed_rows(__global const uchar *w, uint rows, uint row0, uint all_rows,
                              __global const int *ids, ulong ids_off, __global float *out,
                              ulong out_off, uint n, uint dim, uint first)
{
    uint e = (uint)get_global_id(0) * 8, i = (uint)get_global_id(1);
    if (i >= n || e >= dim)
        return;
    uint id = (uint)ids[ids_off + i];
    out += out_off + (ulong)i * dim + e;
    if (id - row0 < rows)
        vstore8(kvcl_weight8(KVCL_SPEC, w, rows, dim, (ulong)(id - row0) * dim + e), 0, out);
    else if (first && id >= all_rows)
        vstore8((float8)(0.0f), 0, out);
}

// Adds row pos0 + i of a table of positions to row i.
__kernel void kvcl_embed_rows_pos(__global const uchar *w, uint rows, uint row0,
                                  __global float *out, ulong out_off, uint n, uint dim, uint pos0)
{
    uint e = (uint)get_global_id(0) * 8, i = (uint)get_global_id(1);
    if (i >= n || e >= dim || pos0 + i - row0 >= rows)
        return;
    out += out_off + (ulong)i * dim + e;
    float8 p = kvcl_weight8(KVCL_SPEC, w, rows, dim, (ulong)(pos0 + i - row0) * dim + e);
    vstore8(vload8(0, out) + p, 0, out);
}
