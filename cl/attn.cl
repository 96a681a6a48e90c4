// attn.cl - attention by block partials over raw pages, and their merge; lane shape.  Vector shape:
// cl/attn_vec.cl.  Twin: cpu/attn.c
//
// KVCL_SPEC: 1 when K is f16, + 2 when V is f16.  Assumes (checked by the host half): head_dim D a
// multiple of 8, at most 256.  Rows and blocks: cl/prelude.cl.
//
// kvcl_attn_raw: one group of a multiple of 64 items per block and KV head (dimension 0) and
// `chunk` rows (dimension 1), ROWS at a time: items take (two tokens) of all rows for the scores,
// (row, page, lane) for the weights, (pair of rows, two pages, two dimensions) for the outputs.
//   local memory: ROWS * (256 + 512 + 2 * 64 + 8 + 4 * 256) floats = 30,848 bytes
// kvcl_attn_merge: one group of 256 items per query and head (dimension 1) and 32 dimensions of the
// head (dimension 0): item (d, lane).  local memory: 520 floats = 2,080 bytes

#if !KVCL_VECTOR_SHAPE

#define ROWS 4
#define MAX_DIM 256
#define L KVCL_ATTN_LANES
#define TOKENS KVCL_TOKENS
#define PAGES KVCL_BLOCK
#define BLOCK_TOKENS KVCL_BLOCK_TOKENS

#if KVCL_SPEC & 1
#define LOAD_K2(p, at) vload_half2(0, (__global const half *)(p) + (at))
#else
#define LOAD_K2(p, at) vload2(0, (__global const float *)(p) + (at))
#endif

#if KVCL_SPEC & 2
#define LOAD_V2(p, at) vload_half2(0, (__global const half *)(p) + (at))
#else
#define LOAD_V2(p, at) vload2(0, (__global const float *)(p) + (at))
#endif

#if KVCL_NVIDIA
#define UNROLL_SCORES 16
#define UNROLL_OUTPUTS 4
#else
#define UNROLL_SCORES 8
#define UNROLL_OUTPUTS 1
#endif

// Scores of ROWS rows, qs [ROWS][MAX_DIM], for two neighbouring tokens at `at`; s is [row][token].
static void scores_of(__global const uchar *k, ulong at, uint D, __local const float *qs, uint rows,
                      uint2 seen, __local float *s)
{
    float2 a[ROWS] = {(float2)(0.0f), (float2)(0.0f), (float2)(0.0f), (float2)(0.0f)};
#pragma unroll UNROLL_SCORES
    for (uint d = 0; d < D; d++) {
        float2 kt = LOAD_K2(k, at + d * TOKENS);
#pragma unroll
        for (uint r = 0; r < ROWS; r++)
            a[r] = fma((float2)(qs[r * MAX_DIM + d]), kt, a[r]);
    }
#pragma unroll
    for (uint r = 0; r < ROWS; r++) {
        if (r < rows && seen.x)
            s[r * BLOCK_TOKENS] = kvcl_zero(a[r].x);
        if (r < rows && seen.y)
            s[r * BLOCK_TOKENS + 1] = kvcl_zero(a[r].y);
    }
}

// Two dimensions of a page's partials of two rows with weights pa, pb, that see [from, n0) and
// [from, n1), n0 <= n1: the first row's, the second's.
static float4 output_of(__global const uchar *v, ulong at, uint D, __local const float *pa,
                        __local const float *pb, uint from, uint n0, uint n1)
{
    float8 a0 = (float8)(0.0f), a1 = a0, b0 = a0, b1 = a0;
#pragma unroll UNROLL_OUTPUTS
    for (uint t = from / L * L; t < n1; t += L) {
        float x[L], y[L];
#pragma unroll
        for (uint j = 0; j < L; j++) {
            float2 vt = LOAD_V2(v, at + (t + j) * D);
            x[j] = vt.x;
            y[j] = vt.y;
        }
        float8 x8 = vload8(0, x), y8 = vload8(0, y), wa = vload8(0, pa + t), wb = vload8(0, pb + t);
        if (t >= from && t + L <= n0) {
            a0 = fma(wa, x8, a0);
            a1 = fma(wa, y8, a1);
            b0 = fma(wb, x8, b0);
            b1 = fma(wb, y8, b1);
        } else {
            uint8 e = (uint8)(t) + (uint8)(0, 1, 2, 3, 4, 5, 6, 7);
            int8 seen = e >= (uint8)(from), sa = seen & (e < (uint8)(n0));
            int8 sb = seen & (e < (uint8)(n1));
            a0 = select(a0, fma(wa, x8, a0), sa);
            a1 = select(a1, fma(wa, y8, a1), sa);
            b0 = select(b0, fma(wb, x8, b0), sb);
            b1 = select(b1, fma(wb, y8, b1), sb);
        }
    }
    return (float4)(kvcl_tree8(a0), kvcl_tree8(a1), kvcl_tree8(b0), kvcl_tree8(b1));
}

// The same for pages c and c + 4, times the pages' weights: the tree's first sum.
static float4 output_pages(__global const uchar *v, __global const int *pages, kvcl_span b,
                           uint begin, uint n_kv_heads, uint D, uint d, uint c,
                           __local const float *pa, __local const float *pb,
                           __local const float *wa, __local const float *wb, uint to0, uint to1)
{
    float4 sum = (float4)(0.0f);
    for (uint i = 0; i < 2; i++, c += PAGES / 2) {
        uint from = kvcl_in_page(b.from, c), n1 = kvcl_in_page(to1, c);
        if (from < n1) {
            ulong at = kvcl_page_base(pages, b, begin, c, n_kv_heads, D) + d;
            float4 x = output_of(v, at, D, pa + c * TOKENS, pb + c * TOKENS, from,
                                 kvcl_in_page(to0, c), n1);
            sum += fma(x, (float4)(wa[c], wa[c], wb[c], wb[c]), (float4)(0.0f));
        }
    }
    return sum;
}

__kernel void kvcl_attn_raw(KVCL_ATTN_RAW_PARAMS)
{
    __local float qs[ROWS * MAX_DIM], s[ROWS * BLOCK_TOKENS], w[ROWS * PAGES];
    __local float maxima[ROWS * PAGES * L], sums[ROWS * PAGES * L];
    __local float part[PAGES / 2 * ROWS * MAX_DIM];
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), G = n_q_heads / n_kv_heads;
    kvcl_span b = kvcl_span_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    uint first = (uint)get_group_id(1) * chunk, row_end = min(first + chunk, n * G);
    pages += pages_off;
    k += k_off;
    v += v_off;
    // rows of queries that stand before the block or the region see nothing
    uint before = b.pos + b.from < pos0 ? 0 : (b.pos + b.from - pos0) * G;
    for (uint row0 = max(first, before); row0 < row_end; row0 += ROWS) {
        uint rows = min((uint)ROWS, row_end - row0);
        for (uint at = lid; at < ROWS * D; at += items) {
            uint row = at / D, d = kvcl_rest(at, row, D);
            kvcl_place a = kvcl_place_of(row0 + min(row, rows - 1), b.hk, G);
            qs[row * MAX_DIM + d] = q[q_off + (ulong)a.i * q_stride + a.h * D + d] * scale;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        uint to_last = kvcl_seen_to(b, pos0 + (row0 + rows - 1) / G);
        for (uint t = 2 * lid; t < to_last; t += 2 * items)
            if (t + 1 >= b.from)
                scores_of(k,
                          kvcl_page_base(pages, b, begin, t / TOKENS, n_kv_heads, D) + t % TOKENS,
                          D, qs, rows, (uint2)(t >= b.from, t + 1 < to_last), s + t);
        barrier(CLK_LOCAL_MEM_FENCE);
        kvcl_row_weights(b, pos0, row0, rows, G, s, maxima, sums);
        if (lid < rows) {
            kvcl_place a = kvcl_place_of(row0 + lid, b.hk, G);
            ulong at = ((ulong)a.i * n_q_heads + a.h) * n_parts + b.part;
            vstore2(kvcl_block_weights(maxima + lid * PAGES * L, sums + lid * PAGES * L,
                                       w + lid * PAGES),
                    at, ml + ml_off);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < (rows + 1) / 2 * (PAGES / 2) * (D / 2); at += items) {
            uint unit = at / (D / 2), d = 2 * kvcl_rest(at, unit, D / 2), c = unit % (PAGES / 2);
            uint ra = unit / (PAGES / 2) * 2, rb = min(ra + 1, rows - 1);
            float4 x = output_pages(v, pages, b, begin, n_kv_heads, D, d, c, s + ra * BLOCK_TOKENS,
                                    s + rb * BLOCK_TOKENS, w + ra * PAGES, w + rb * PAGES,
                                    kvcl_seen_to(b, pos0 + (row0 + ra) / G),
                                    kvcl_seen_to(b, pos0 + (row0 + rb) / G));
            vstore2(x.lo, 0, part + (c * ROWS + ra) * MAX_DIM + d);
            if (rb != ra)
                vstore2(x.hi, 0, part + (c * ROWS + rb) * MAX_DIM + d);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < rows * D; at += items) {
            uint row = at / D, d = kvcl_rest(at, row, D);
            kvcl_place a = kvcl_place_of(row0 + row, b.hk, G);
            __local const float *x = part + row * MAX_DIM + d;
            float y = (x[0] + x[2 * ROWS * MAX_DIM]) + (x[ROWS * MAX_DIM] + x[3 * ROWS * MAX_DIM]);
            o[o_off + (((ulong)a.i * n_q_heads + a.h) * n_parts + b.part) * D + d] = kvcl_zero(y);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

#define MERGE_TILE 256 // partials whose weights are in local memory together
#define MERGE_DIMS 32

// Largest m of n_c partials, in all items of a group of 256.
static float merge_max(__global const float *ml, uint n_c, __local float *red)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    float m = ml[0];
    for (uint c = lid; c < n_c; c += items)
        m = ml[2 * c] > m ? ml[2 * c] : m;
    red[lid] = m;
    for (uint s = items / 2; s > 0; s /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid < s)
            red[lid] = red[lid + s] > red[lid] ? red[lid + s] : red[lid];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    m = red[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return m;
}

__kernel void kvcl_attn_merge(KVCL_ATTN_MERGE_PARAMS)
{
    __local float w[MERGE_TILE], red[MERGE_TILE], l_lanes[L];
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    uint i = (uint)get_group_id(1) / n_q_heads;
    uint h = kvcl_rest((uint)get_group_id(1), i, n_q_heads);
    uint d = (uint)get_group_id(0) * MERGE_DIMS + lid % MERGE_DIMS, j = lid / MERGE_DIMS;
    uint n_c = before + (pos0 + i) / BLOCK_TOKENS;
    ulong first = (ulong)get_group_id(1) * n_parts;
    ml += ml_off + 2 * first;
    o += o_off + first * D;
    float m_all = merge_max(ml, n_c, red), acc = 0.0f, l = 0.0f;
    for (uint c0 = 0; c0 < n_c; c0 += MERGE_TILE) {
        uint n_w = min((uint)MERGE_TILE, n_c - c0);
        for (uint c = lid; c < n_w; c += items)
            w[c] = kvcl_merge_weight(ml[2 * (c0 + c)], m_all);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint c = j; c < n_w; c += L) {
            l = fma(w[c], ml[2 * (c0 + c) + 1], l);
            acc = fma(w[c], d < D ? o[(ulong)(c0 + c) * D + d] : 0.0f, acc);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    red[lid % MERGE_DIMS * L + j] = acc;
    if (lid % MERGE_DIMS == 0)
        l_lanes[j] = l;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (j == 0 && d < D) {
        float inv = kvcl_recip(kvcl_tree8(vload8(0, l_lanes)));
        out[out_off + (ulong)i * out_stride + h * D + d] =
            kvcl_zero(kvcl_tree8(vload8(lid % MERGE_DIMS, red)) * inv);
    }
}

#endif
