// kv.cl - sums and means of raw pages' rows; squared error between two sets of them.  Twin:
// cpu/kv.c
//
// One shape for all devices: these run once for many tokens.  Types: KVCL_F32 or KVCL_F16.
//
// kvcl_kv_sum: one work-item per K or V, head and dimension.
// kvcl_kv_mean: one work-item per value.
// kvcl_kv_error: one group of 64 items per page and head (dimension 0) and number of the four
// (dimension 1); item: lane.  local memory: 72 floats = 288 bytes

__kernel void kvcl_kv_sum(__global const uchar *k, ulong k_off, __global const uchar *v,
                          ulong v_off, __global const int *pages, ulong pages_off,
                          __global float *sums, ulong sums_off, uint n_pages, uint n_skip,
                          uint n_kv_heads, uint D, uint type_k, uint type_v)
{
    uint item = (uint)get_global_id(0), row = item / D, d = kvcl_rest(item, row, D);
    if (row >= 2 * n_kv_heads)
        return;
    uint of_v = row >= n_kv_heads, hk = of_v ? row - n_kv_heads : row;
    uint apart = of_v ? D : 1, type = of_v ? type_v : type_k;
    __global const uchar *pool = of_v ? v + v_off : k + k_off;
    float sum = sums[sums_off + item];
    for (uint i = 0; i < n_pages; i++) {
        ulong slot = (ulong)pages[pages_off + i], base = (slot * n_kv_heads + hk) * D * KVCL_TOKENS;
        float8 lanes = (float8)(0.0f);
        base += of_v ? d : d * KVCL_TOKENS;
        for (uint t = 0; t < KVCL_TOKENS; t += KVCL_ATTN_LANES) {
            float x[KVCL_ATTN_LANES];
            for (uint j = 0; j < KVCL_ATTN_LANES; j++)
                x[j] = i == 0 && t + j < n_skip ? 0.0f
                                                : kvcl_raw_load(type, pool, base + (t + j) * apart);
            lanes += vload8(0, x);
        }
        sum += kvcl_tree8(lanes);
    }
    sums[sums_off + item] = sum;
}

__kernel void kvcl_kv_mean(__global const float *sums, ulong sums_off, __global float *mean,
                           ulong mean_off, uint n, float factor)
{
    uint i = (uint)get_global_id(0);
    if (i < n)
        mean[mean_off + i] = sums[sums_off + i] * factor;
}

__kernel void kvcl_kv_error(__global const uchar *k, ulong k_off, __global const uchar *v,
                            ulong v_off, __global const int *pages, ulong pages_off,
                            __global const uchar *ka, ulong ka_off, __global const uchar *va,
                            ulong va_off, __global const int *pages_a, ulong pages_a_off,
                            __global float *err, ulong err_off, uint n_skip, uint n_kv_heads,
                            uint D, uint type_k, uint type_v, uint type_ka, uint type_va)
{
    __local float red[KVCL_RED_FLOATS];
    uint group = (uint)get_group_id(0), which = (uint)get_group_id(1);
    uint page = group / n_kv_heads, hk = kvcl_rest(group, page, n_kv_heads), of_v = which / 2;
    __global const uchar *x = of_v ? v + v_off : k + k_off, *y = of_v ? va + va_off : ka + ka_off;
    uint type_x = of_v ? type_v : type_k, type_y = of_v ? type_va : type_ka;
    ulong base_x = ((ulong)pages[pages_off + page] * n_kv_heads + hk) * D * KVCL_TOKENS;
    ulong base_y = ((ulong)pages_a[pages_a_off + page] * n_kv_heads + hk) * D * KVCL_TOKENS;
    float acc = 0.0f;
    for (uint d = (uint)get_local_id(0); d < D; d += 64)
        for (uint t = page == 0 ? n_skip : 0; t < KVCL_TOKENS; t++) {
            uint at = of_v ? t * D + d : d * KVCL_TOKENS + t;
            float e = kvcl_raw_load(type_x, x, base_x + at);
            if (which % 2 == 0)
                e -= kvcl_raw_load(type_y, y, base_y + at);
            acc = fma(e, e, acc);
        }
    acc = kvcl_lanes_sum(acc, red);
    if (get_local_id(0) == 0)
        err[err_off + 4 * group + which] = acc;
}
