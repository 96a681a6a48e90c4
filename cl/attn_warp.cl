// attn_warp.cl - attention by block partials over raw pages for NVIDIA's warps of 32 items, beside
// cl/attn.cl.  Twin: cpu/attn.c
//
// KVCL_SPEC: as cl/attn.cl, + 4 head_dim.  Assumes (checked by the host half): head_dim a multiple
// of 32, at most 256; k and v at multiples of 8 bytes.
//
// kvcl_attn_raw_warp: one group of 256 items per block and KV head (dimension 0) and `chunk` rows
// (dimension 1), ROWS at a time.  Each key and value comes to the group once:
//   scores: item (two tokens) of all rows
//   weights: item (row, page, lane); lanes, then pages, meet by shuffles
//   outputs: item (two dimensions, even or odd tokens) of all rows: lanes 0 2 4 6 or 1 3 5 7 of the
//   halving tree, which join by its last step; a warp has 32 dimensions of pages c and c + 4
// local memory: 8,192 + 80 * head_dim + 384 bytes, at most 29,056

#if KVCL_PTX

#define DIM (KVCL_SPEC >> 2)
#define GROUP 256
#define OCTETS 8 // of tokens whose values are asked for together

// Two neighbours, the first at an even place, in one load.
#define LOAD_HALVES(p, at) \
    kvcl_half_pair(*(__global const uint *)((__global const ushort *)(p) + (at)))
#define LOAD_FLOATS(p, at) (*(__global const float2 *)((__global const float *)(p) + (at)))
#if KVCL_SPEC & 1
#define LOAD_KEYS LOAD_HALVES
#else
#define LOAD_KEYS LOAD_FLOATS
#endif
#if KVCL_SPEC & 2
#define LOAD_VALUES LOAD_HALVES
#else
#define LOAD_VALUES LOAD_FLOATS
#endif

// Where the group's phases keep things in local memory.
typedef struct block_place {
    __local float4 *q;    // [head_dim] rows
    __local float4 *s;    // [token] scores, then weights of the rows
    __local float *m, *l; // [row][page]
    __local float *w;     // [row][page]: weights of pages
    __local float *part;  // [PAGES / 2][ROWS][head_dim]
} block_place;

// Scores of all rows for two neighbouring tokens at `at`.
static void scores_two(__global const uchar *k, ulong at, __local const float4 *q, uint2 seen,
                       __local float4 *s)
{
    float4 a = (float4)(0.0f), b = (float4)(0.0f);
#pragma unroll 32
    for (uint d = 0; d < DIM; d++) {
        float2 kt = LOAD_KEYS(k, at + d * TOKENS);
        float4 row = q[d];
        a = fma(row, (float4)(kt.x), a);
        b = fma(row, (float4)(kt.y), b);
    }
    if (seen.x)
        s[0] = kvcl_zero4(a);
    if (seen.y)
        s[1] = kvcl_zero4(b);
}

// Scores to weights, 0 where a row does not see the token; m and l of each row's pages.
static void page_weights(block_place p, kvcl_span b, uint pos, uint G, uint row0, uint rows)
{
    for (uint at = (uint)get_local_id(0); at < ROWS * PAGES * L; at += GROUP) {
        uint r = at / (PAGES * L), c = at / L % PAGES, j = at % L, from = kvcl_in_page(b.from, c);
        uint to = kvcl_in_page(kvcl_seen_to(b, pos + (row0 + min(r, rows - 1)) / G), c);
        __local float *s = (__local float *)(p.s + c * TOKENS + j) + r;
        float x[TOKENS / L], m = -INFINITY, l = 0.0f;
#pragma unroll
        for (uint i = 0; i < TOKENS / L; i++) {
            x[i] = L * i + j >= from && L * i + j < to ? s[4 * L * i] : -INFINITY;
            m = x[i] > m ? x[i] : m;
        }
        for (uint h = L / 2; h > 0; h /= 2) {
            float other = kvcl_shfl_xor(m, h);
            m = other > m ? other : m;
        }
#pragma unroll
        for (uint i = 0; i < TOKENS / L; i++) {
            uint seen = L * i + j >= from && L * i + j < to;
            x[i] = seen ? kvcl_exp(x[i] - m) : 0.0f;
            l = seen ? l + x[i] : l;
            s[4 * L * i] = x[i];
        }
        for (uint h = L / 2; h > 0; h /= 2)
            l += kvcl_shfl_xor(l, h);
        if (j == 0) {
            p.m[r * PAGES + c] = m;
            p.l[r * PAGES + c] = kvcl_zero(l);
        }
    }
}

// Weights of pages, and m and l of the rows' blocks, by the first warp: item (row, page).
static void block_weights(block_place p, kvcl_span b, uint G, uint row0, uint rows,
                          __global float *ml, uint n_q_heads, uint n_parts)
{
    uint i = (uint)get_local_id(0), row = i / PAGES;
    float m = p.m[i], m_all = m;
    for (uint h = PAGES / 2; h > 0; h /= 2) {
        float other = kvcl_shfl_xor(m_all, h);
        m_all = other > m_all ? other : m_all;
    }
    float weight = m < -3e38f ? 0.0f : kvcl_exp(m - m_all), x = fma(weight, p.l[i], 0.0f);
    for (uint h = PAGES / 2; h > 0; h /= 2)
        x += kvcl_shfl_xor(x, h);
    p.w[i] = weight;
    if (i % PAGES == 0 && row < rows) {
        kvcl_place a = kvcl_place_of(row0 + row, b.hk, G);
        vstore2((float2)(m_all, kvcl_zero(x)), ((ulong)a.i * n_q_heads + a.h) * n_parts + b.part,
                ml);
    }
}

// The rows' sums over an item's tokens of a page: those that a row sees are [from, to[r]), to
// ascending.  v: the item's first token's values; s: the page's weights from that token on.
static void sums_of(__global const uchar *v, ulong at, __local const float4 *s, uint from,
                    const uint *to, uint odd, float2 x[ROWS][L / 2])
{
#pragma unroll
    for (uint r = 0; r < ROWS; r++)
#pragma unroll
        for (uint i = 0; i < L / 2; i++)
            x[r][i] = (float2)(0.0f);
    if (from == 0 && to[0] == TOKENS) {
        for (uint t = 0; t < TOKENS; t += OCTETS * L) {
            float2 vt[OCTETS * L / 2];
#pragma unroll
            for (uint i = 0; i < OCTETS * L / 2; i++)
                vt[i] = LOAD_VALUES(v, at + (t + 2 * i) * DIM);
#pragma unroll
            for (uint i = 0; i < OCTETS * L / 2; i++) {
                float4 w = s[t + 2 * i];
                x[0][i % (L / 2)] = fma((float2)(w.x), vt[i], x[0][i % (L / 2)]);
                x[1][i % (L / 2)] = fma((float2)(w.y), vt[i], x[1][i % (L / 2)]);
                x[2][i % (L / 2)] = fma((float2)(w.z), vt[i], x[2][i % (L / 2)]);
                x[3][i % (L / 2)] = fma((float2)(w.w), vt[i], x[3][i % (L / 2)]);
            }
        }
        return;
    }
    for (uint t = from / L * L; t < to[ROWS - 1]; t += L) {
#pragma unroll
        for (uint i = 0; i < L / 2; i++) {
            uint e = t + 2 * i + odd;
            float2 vt = LOAD_VALUES(v, at + (t + 2 * i) * DIM);
            float4 w = s[t + 2 * i];
            x[0][i] = e >= from && e < to[0] ? fma((float2)(w.x), vt, x[0][i]) : x[0][i];
            x[1][i] = e >= from && e < to[1] ? fma((float2)(w.y), vt, x[1][i]) : x[1][i];
            x[2][i] = e >= from && e < to[2] ? fma((float2)(w.z), vt, x[2][i]) : x[2][i];
            x[3][i] = e >= from && e < to[3] ? fma((float2)(w.w), vt, x[3][i]) : x[3][i];
        }
    }
}

// Outputs of the rows, of pages c and c + 4 each: the pages' tree's first sums.
static void outputs(block_place p, __global const uchar *v, __global const int *pages, kvcl_span b,
                    uint begin, uint n_kv_heads, uint pos, uint G, uint row0, uint rows)
{
    uint lid = (uint)get_local_id(0), odd = lid / 16 % 2;
    for (uint unit = lid / 32; unit < PAGES / 2 * (DIM / 32); unit += GROUP / 32) {
        uint c = unit / (DIM / 32), d = 32 * (unit % (DIM / 32)) + 2 * (lid % 16);
        float2 sum[ROWS];
#pragma unroll
        for (uint r = 0; r < ROWS; r++)
            sum[r] = (float2)(0.0f);
        for (uint page = c; page < PAGES; page += PAGES / 2) {
            uint from = kvcl_in_page(b.from, page), to[ROWS];
#pragma unroll
            for (uint r = 0; r < ROWS; r++)
                to[r] = kvcl_in_page(kvcl_seen_to(b, pos + (row0 + min(r, rows - 1)) / G), page);
            if (from >= to[ROWS - 1])
                continue;
            float2 x[ROWS][L / 2];
            sums_of(v, kvcl_page_base(pages, b, begin, page, n_kv_heads, DIM) + odd * DIM + d,
                    p.s + page * TOKENS + odd, from, to, odd, x);
#pragma unroll
            for (uint r = 0; r < ROWS; r++) {
                float2 y = (x[r][0] + x[r][2]) + (x[r][1] + x[r][3]);
                y = (float2)(kvcl_zero(y.x + kvcl_shfl_xor(y.x, 16)),
                             kvcl_zero(y.y + kvcl_shfl_xor(y.y, 16)));
                sum[r] += fma(y, (float2)(p.w[r * PAGES + page]), (float2)(0.0f));
            }
        }
#pragma unroll
        for (uint r = 0; r < ROWS; r++)
            if (!odd)
                vstore2(sum[r], 0, p.part + (c * ROWS + r) * DIM + d);
    }
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
kvcl_attn_raw_warp(KVCL_ATTN_RAW_PARAMS)
{
    __local float4 qs[DIM], s[BLOCK_TOKENS];
    __local float m[ROWS * PAGES], l[ROWS * PAGES], w[ROWS * PAGES], part[PAGES / 2 * ROWS * DIM];
    block_place p = {qs, s, m, l, w, part};
    uint lid = (uint)get_local_id(0), G = n_q_heads / n_kv_heads;
    kvcl_span b = kvcl_span_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    uint first = (uint)get_group_id(1) * chunk, row_end = min(first + chunk, n * G);
    pages += pages_off;
    k += k_off;
    v += v_off;
    // rows of queries that stand before the block or the region see nothing
    uint before = b.pos + b.from < pos0 ? 0 : (b.pos + b.from - pos0) * G;
    for (uint row0 = max(first, before); row0 < row_end; row0 += ROWS) {
        uint rows = min((uint)ROWS, row_end - row0);
        for (uint at = lid; at < ROWS * DIM; at += GROUP) {
            uint row = at / DIM, d = at % DIM;
            kvcl_place a = kvcl_place_of(row0 + min(row, rows - 1), b.hk, G);
            ((__local float *)qs)[4 * d + row] =
                q[q_off + (ulong)a.i * q_stride + a.h * DIM + d] * scale;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        uint to_last = kvcl_seen_to(b, pos0 + (row0 + rows - 1) / G);
        for (uint t = 2 * lid; t < to_last; t += 2 * GROUP)
            if (t + 1 >= b.from)
                scores_two(
                    k, kvcl_page_base(pages, b, begin, t / TOKENS, n_kv_heads, DIM) + t % TOKENS,
                    qs, (uint2)(t >= b.from, t + 1 < to_last), s + t);
        barrier(CLK_LOCAL_MEM_FENCE);
        page_weights(p, b, pos0, G, row0, rows);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lid < ROWS * PAGES)
            block_weights(p, b, G, row0, rows, ml + ml_off, n_q_heads, n_parts);
        barrier(CLK_LOCAL_MEM_FENCE);
        outputs(p, v, pages, b, begin, n_kv_heads, pos0, G, row0, rows);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < rows * DIM; at += GROUP) {
            uint row = at / DIM, d = at % DIM;
            kvcl_place a = kvcl_place_of(row0 + row, b.hk, G);
            float y = (part[at] + part[2 * ROWS * DIM + at]) +
                      (part[ROWS * DIM + at] + part[3 * ROWS * DIM + at]);
            o[o_off + (((ulong)a.i * n_q_heads + a.h) * n_parts + b.part) * DIM + d] = kvcl_zero(y);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

#endif
