// block.cl - raw pages to pages of Q8_0 and Q4_0 rows, back, and attention on them; lane shape.
// Vector shape: cl/block_vec.cl.  Twin: cpu/block.c; layout of a page: cl/pages.cl
//
// Assumes (checked by the host half): head_dim D a multiple of 32, at most 256.
// kvcl_block_enc, kvcl_block_dec: one group per page and head, an item per token and block of 32.
// kvcl_attn_block: as kvcl_attn_raw in cl/attn.cl, ROWS rows at a time: items take a token for the
// scores of all rows, (row, page, lane) for the weights, a dimension for two rows' outputs; codes
// become values where they are used.
//   local memory: ROWS * (256 + 512 + 2 * 64 + 8) floats = 14,464 bytes

#if !KVCL_VECTOR_SHAPE

#define ROWS 4
#define MAX_DIM 256
#define L KVCL_ATTN_LANES

__kernel void kvcl_block_enc(KVCL_BLOCK_PARAMS(__global const, __global), __global int *bad,
                             ulong bad_off)
{
    __local uint first_bad;
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    if (lid == 0)
        first_bad = KVCL_TOKENS;
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_block_rows r = kvcl_block_rows_of((uint)get_group_id(0), of_v, KVCL_BLOCK_ARGS);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint u = lid; u < KVCL_TOKENS * D / 32; u += items) {
            uint t = u % KVCL_TOKENS, b = u / KVCL_TOKENS;
            float x[32];
            for (uint e = 0; e < 32; e++)
                x[e] = kvcl_block_raw(&r, t, 32 * b + e);
            if (kvcl_block_encode(r.block, x, r.rows + t * r.row_bytes + b * r.bytes))
                atomic_min(&first_bad, t);
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid == 0)
        bad[bad_off + get_group_id(0)] = (int)first_bad;
}

__kernel void kvcl_block_dec(KVCL_BLOCK_PARAMS(__global, __global const))
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_block_rows r = kvcl_block_rows_of((uint)get_group_id(0), of_v, KVCL_BLOCK_ARGS);
        for (uint u = lid; u < KVCL_TOKENS * D; u += items) {
            uint row = u / D, t = of_v ? row : u % KVCL_TOKENS;
            uint d = of_v ? kvcl_rest(u, row, D) : u / KVCL_TOKENS;
            float x = kvcl_block_value(r.block, r.rows + t * r.row_bytes, d);
            if (r.type == KVCL_F16)
                vstore_half_rte(x, u, (__global half *)r.raw);
            else
                ((__global float *)r.raw)[u] = x;
        }
    }
}

// Codes i and i + 1 of a block's first half (h = 0) or second; words: behind its scale.
static float2 two_codes(uint block, __global const ushort *words, uint h, uint i)
{
    if (block == KVCL_Q8_0) {
        uint w = words[8 * h + i / 2];
        return convert_float2(as_char2((ushort)w));
    }
    uint w = words[i / 2] >> (4 * h) & 0x0f0fu;
    return convert_float2(as_char2((ushort)w)) - (float2)(8.0f);
}

// Scores of ROWS rows for one token, s [row][token of the block]; q [D] of the rows; those beyond
// `rows` are rows that nobody reads.
static void scores_of(uint block, __global const uchar *row, uint D, __local const float4 *q,
                      uint rows, __local float *s)
{
    float4 a = (float4)(0.0f);
    for (uint half_block = 0; half_block < D / 16; half_block++) {
        __global const uchar *at = row + half_block / 2 * kvcl_block_bytes(block);
        float scale = vload_half(0, (__global const half *)at);
        __local const float4 *qh = q + 16 * half_block;
#pragma unroll
        for (uint i = 0; i < 16; i += 2) {
            float2 k = two_codes(block, (__global const ushort *)at + 1, half_block % 2, i) * scale;
            a = fma(qh[i], (float4)(k.x), a);
            a = fma(qh[i + 1], (float4)(k.y), a);
        }
    }
    float4 zeroed = kvcl_zero4(a);
    float out[ROWS];
    vstore4(zeroed, 0, out);
    for (uint r = 0; r < rows; r++)
        s[r * KVCL_BLOCK_TOKENS] = out[r];
}

// One dimension of a page's partials of two rows with weights pa, pb, that see [from, n0) and
// [from, n1), n0 <= n1.
static float2 output_pair(uint block, __global const uchar *rows, uint row_bytes, uint d,
                          __local const float *pa, __local const float *pb, uint from, uint n0,
                          uint n1)
{
    float a[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float b[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (from == 0 && n0 == KVCL_TOKENS) {
#pragma unroll 2
        for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += L)
#pragma unroll
            for (uint j = 0; j < L; j++) {
                float v = kvcl_block_value(block, rows + (t0 + j) * row_bytes, d);
                a[j] = fma(pa[t0 + j], v, a[j]);
                b[j] = fma(pb[t0 + j], v, b[j]);
            }
        return (float2)(kvcl_tree8(vload8(0, a)), kvcl_tree8(vload8(0, b)));
    }
    for (uint t0 = from / L * L; t0 < n1; t0 += L)
#pragma unroll
        for (uint j = 0; j < L; j++) {
            uint t = t0 + j;
            float v = kvcl_block_value(block, rows + t * row_bytes, d);
            a[j] = t >= from && t < n0 ? fma(pa[t], v, a[j]) : a[j];
            b[j] = t >= from && t < n1 ? fma(pb[t], v, b[j]) : b[j];
        }
    return (float2)(kvcl_tree8(vload8(0, a)), kvcl_tree8(vload8(0, b)));
}

// What all items of a group know.
typedef struct task {
    kvcl_span b;
    kvcl_block_pool pool;
    __global const int *pages;
    uint begin, D;
} task;

static __global const uchar *rows_of(const task *g, uint of_v, uint c)
{
    return kvcl_block_at(&g->pool, of_v, (ulong)g->pages[g->b.page + c - g->begin / KVCL_TOKENS],
                         g->b.hk);
}

// One dimension of the block's partials of two rows: pages in the tree's order.
static float2 output_block(const task *g, uint d, __local const float *pa, __local const float *pb,
                           __local const float *wa, __local const float *wb, uint to0, uint to1)
{
    float2 wait0 = (float2)(0.0f), wait1 = wait0, wait2 = wait0;
    for (uint i = 0; i < KVCL_BLOCK; i++) {
        uint c = kvcl_tree_page(i), from = kvcl_in_page(g->b.from, c), n1 = kvcl_in_page(to1, c);
        float2 x = (float2)(0.0f);
        if (from < n1) {
            x = output_pair(g->pool.block_v, rows_of(g, 1, c), g->pool.row_v, d,
                            pa + c * KVCL_TOKENS, pb + c * KVCL_TOKENS, from, kvcl_in_page(to0, c),
                            n1);
            x = fma(x, (float2)(wa[c], wb[c]), (float2)(0.0f));
        }
        if (i & 1)
            x = wait2 + x;
        if ((i & 3) == 3)
            x = wait1 + x;
        if (i == 7)
            wait0 += x;
        else if ((i & 1) == 0)
            wait2 = x;
        else if (i == 3)
            wait0 = x;
        else
            wait1 = x;
    }
    return (float2)(kvcl_zero(wait0.x), kvcl_zero(wait0.y));
}

__kernel void kvcl_attn_block(KVCL_ATTN_BLOCK_PARAMS)
{
    __local float4 qs[MAX_DIM];
    __local float s[ROWS * KVCL_BLOCK_TOKENS], w[ROWS * KVCL_BLOCK];
    __local float maxima[ROWS * KVCL_BLOCK * L], sums[ROWS * KVCL_BLOCK * L];
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), G = n_q_heads / n_kv_heads;
    kvcl_span b = kvcl_span_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    task g = {b, kvcl_block_pool_of(pool + pool_off, n_kv_heads, D, block_k, block_v),
              pages + pages_off, begin, D};
    uint first = (uint)get_group_id(1) * chunk, row_end = min(first + chunk, n * G);
    // rows of queries that stand before the block or the region see nothing
    uint before = b.pos + b.from < pos0 ? 0 : (b.pos + b.from - pos0) * G;
    for (uint row0 = max(first, before); row0 < row_end; row0 += ROWS) {
        uint rows = min((uint)ROWS, row_end - row0), far = pos0 + (row0 + rows - 1) / G;
        for (uint at = lid; at < ROWS * D; at += items) {
            uint r = at / D, d = kvcl_rest(at, r, D);
            kvcl_place a = kvcl_place_of(row0 + min(r, rows - 1), b.hk, G);
            ((__local float *)qs)[ROWS * d + r] =
                q[q_off + (ulong)a.i * q_stride + a.h * D + d] * scale;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint t = b.from + lid; t < kvcl_seen_to(b, far); t += items)
            scores_of(block_k, rows_of(&g, 0, t / KVCL_TOKENS) + t % KVCL_TOKENS * g.pool.row_k, D,
                      qs, rows, s + t);
        barrier(CLK_LOCAL_MEM_FENCE);
        kvcl_row_weights(b, pos0, row0, rows, G, s, maxima, sums);
        if (lid < rows) {
            kvcl_place a = kvcl_place_of(row0 + lid, b.hk, G);
            uint at = lid * KVCL_BLOCK * L;
            vstore2(kvcl_block_weights(maxima + at, sums + at, w + lid * KVCL_BLOCK),
                    ((ulong)a.i * n_q_heads + a.h) * n_parts + b.part, ml + ml_off);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < (rows + 1) / 2 * D; at += items) {
            uint ra = at / D * 2, d = kvcl_rest(at, at / D, D), rb = min(ra + 1, rows - 1);
            kvcl_place pa = kvcl_place_of(row0 + ra, b.hk, G);
            kvcl_place pb = kvcl_place_of(row0 + rb, b.hk, G);
            float2 y = output_block(&g, d, s + ra * KVCL_BLOCK_TOKENS, s + rb * KVCL_BLOCK_TOKENS,
                                    w + ra * KVCL_BLOCK, w + rb * KVCL_BLOCK,
                                    kvcl_seen_to(b, pos0 + pa.i), kvcl_seen_to(b, pos0 + pb.i));
            o[o_off + (((ulong)pa.i * n_q_heads + pa.h) * n_parts + b.part) * D + d] = y.x;
            if (rb != ra)
                o[o_off + (((ulong)pb.i * n_q_heads + pb.h) * n_parts + b.part) * D + d] = y.y;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

#endif
