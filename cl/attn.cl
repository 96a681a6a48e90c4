// attn.cl - attention by partials over raw pages, and their merge.  Twin: cpu/attn.c
//
// KVCL_SPEC: 1 when K is f16, + 2 when V is f16.  Assumes (checked by the host half): head_dim D a
// multiple of 8, at most 256.
//
// A "row" is one query head of one query: row = query in the block * G + head of the KV head's G.
//
// kvcl_attn_raw (lane shape): one group of a multiple of 64 items per KV head and page (dimension
// 0) and block of `q_block` queries (dimension 1).  The group does its rows ROWS at a time: items
// take (pair of rows, token) for the scores, (row, lane) for the weights, (pair of rows, d) for the
// output, so that two rows share what is read of the page.
//   local memory: ROWS * (256 + 64 + 16) floats = 10,752 bytes
// kvcl_attn_raw_vec (vector shape): one work-item for the same, two rows at a time, 16 tokens and
// then 16 dimensions to a vector.
// kvcl_attn_merge (lane shape): one group of 256 items per query and head (dimension 1) and 32
// dimensions of the head (dimension 0): item (d, lane).  local memory: 520 floats = 2,080 bytes
// kvcl_attn_merge_vec (vector shape): one work-item per query and head.

#define ROWS 8
#define MAX_DIM 256
#define L KVCL_ATTN_LANES

#if KVCL_SPEC & 1
#define LOAD_K(p, at) vload_half((at), (__global const half *)(p))
#define LOAD_K16(p, at) vload_half16(0, (__global const half *)(p) + (at))
#else
#define LOAD_K(p, at) ((__global const float *)(p))[at]
#define LOAD_K16(p, at) vload16(0, (__global const float *)(p) + (at))
#endif

#if KVCL_SPEC & 2
#define LOAD_V(p, at) vload_half((at), (__global const half *)(p))
#define LOAD_V8(p, at) vload_half8(0, (__global const half *)(p) + (at))
#define LOAD_V16(p, at) vload_half16(0, (__global const half *)(p) + (at))
#else
#define LOAD_V(p, at) ((__global const float *)(p))[at]
#define LOAD_V8(p, at) vload8(0, (__global const float *)(p) + (at))
#define LOAD_V16(p, at) vload16(0, (__global const float *)(p) + (at))
#endif

#define ATTN_PARAMS                                                                              \
    __global const float *q, ulong q_off, __global const uchar *k, ulong k_off,                  \
        __global const uchar *v, ulong v_off, __global const int *pages, ulong pages_off,        \
        __global float *ml, ulong ml_off, __global float *o, ulong o_off, uint n, uint q_stride, \
        uint pos0, uint n_q_heads, uint n_kv_heads, uint D, uint first_page, uint n_pages,       \
        uint n_parts, float scale, uint q_block

// Tokens of the page that begins at position `begin` which the query at `pos` sees.
static uint visible(uint pos, uint begin)
{
    return pos < begin ? 0 : min(pos - begin + 1, (uint)KVCL_TOKENS);
}

// Query and head of row `row` of a block that begins at query i0, of KV head hk's G heads.
typedef struct place {
    uint i, h;
} place;

static place place_of(uint row, uint i0, uint hk, uint G)
{
    uint query = row / G;
    place p = {i0 + query, hk * G + kvcl_rest(row, query, G)};
    return p;
}

#if KVCL_VECTOR_SHAPE

// Scores of two rows against the page: s[row][token], two chains a vector of 16 tokens.
static void scores2(__global const uchar *k, ulong base, uint D, __global const float *q0,
                    __global const float *q1, float scale, float16 *s)
{
    float16 a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, a3 = 0.0f;
    float16 b0 = 0.0f, b1 = 0.0f, b2 = 0.0f, b3 = 0.0f;
    for (uint d = 0; d < D; d++) {
        float16 qa = (float16)(q0[d] * scale), qb = (float16)(q1[d] * scale);
        ulong at = base + (ulong)d * KVCL_TOKENS;
        float16 k0 = LOAD_K16(k, at), k1 = LOAD_K16(k, at + 16);
        float16 k2 = LOAD_K16(k, at + 32), k3 = LOAD_K16(k, at + 48);
        a0 = fma(qa, k0, a0);
        a1 = fma(qa, k1, a1);
        a2 = fma(qa, k2, a2);
        a3 = fma(qa, k3, a3);
        b0 = fma(qb, k0, b0);
        b1 = fma(qb, k1, b1);
        b2 = fma(qb, k2, b2);
        b3 = fma(qb, k3, b3);
    }
    s[0] = kvcl_zero16(a0);
    s[1] = kvcl_zero16(a1);
    s[2] = kvcl_zero16(a2);
    s[3] = kvcl_zero16(a3);
    s[4] = kvcl_zero16(b0);
    s[5] = kvcl_zero16(b1);
    s[6] = kvcl_zero16(b2);
    s[7] = kvcl_zero16(b3);
}

// Scores of one row (64 floats) to weights, zeros where the query does not see; stores m and l.
static void weights64(float16 *s16, uint n_valid, __global float *ml)
{
    float *s = (float *)s16;
    float m = s[0];
    for (uint t = 1; t < n_valid; t++)
        m = s[t] > m ? s[t] : m;
    for (uint t = n_valid; t < KVCL_TOKENS; t++)
        s[t] = -INFINITY;
    float8 l = 0.0f;
    for (uint c = 0; c < 4; c++) {
        s16[c] = kvcl_exp16(s16[c] - (float16)(m));
        l = (l + s16[c].lo) + s16[c].hi;
    }
    ml[0] = m;
    ml[1] = kvcl_tree8(l);
}

// W dimensions d .. d + W - 1 of the output of two rows that see n0 <= n1 tokens: 8 lanes each.
#define DEFINE_OUTPUT2(W, FW, LOAD)                                                               \
    static void output2_##W(__global const uchar *v, ulong base, uint D, uint d, const float *p0, \
                            const float *p1, uint n0, uint n1, __global float *o0,                \
                            __global float *o1)                                                   \
    {                                                                                             \
        FW a[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};                               \
        FW b[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};                               \
        uint whole = n0 / L * L;                                                                  \
        for (uint t0 = 0; t0 < whole; t0 += L)                                                    \
            for (uint j = 0; j < L; j++) {                                                        \
                FW vt = LOAD(v, base + (ulong)(t0 + j) * D + d);                                  \
                a[j] = fma((FW)(p0[t0 + j]), vt, a[j]);                                           \
                b[j] = fma((FW)(p1[t0 + j]), vt, b[j]);                                           \
            }                                                                                     \
        for (uint t = whole; t < n1; t++) {                                                       \
            FW vt = LOAD(v, base + (ulong)t * D + d);                                             \
            if (t < n0)                                                                           \
                a[t % L] = fma((FW)(p0[t]), vt, a[t % L]);                                        \
            b[t % L] = fma((FW)(p1[t]), vt, b[t % L]);                                            \
        }                                                                                         \
        FW ra = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));                \
        FW rb = ((b[0] + b[4]) + (b[2] + b[6])) + ((b[1] + b[5]) + (b[3] + b[7]));                \
        for (uint e = 0; e < W; e++) {                                                            \
            if (n0 != 0)                                                                          \
                o0[d + e] = kvcl_zero(((const float *)&ra)[e]);                                   \
            o1[d + e] = kvcl_zero(((const float *)&rb)[e]);                                       \
        }                                                                                         \
    }
DEFINE_OUTPUT2(16, float16, LOAD_V16)
DEFINE_OUTPUT2(8, float8, LOAD_V8)

__kernel void kvcl_attn_raw_vec(ATTN_PARAMS)
{
    uint G = n_q_heads / n_kv_heads, i_page = (uint)get_global_id(0) / n_kv_heads;
    uint hk = kvcl_rest((uint)get_global_id(0), i_page, n_kv_heads);
    uint i0 = (uint)get_global_id(1) * q_block, n_rows = i0 < n ? min(q_block, n - i0) * G : 0;
    if (i_page >= n_pages)
        return;
    uint page = first_page + i_page, begin = page * KVCL_TOKENS;
    ulong base = ((ulong)pages[pages_off + i_page] * n_kv_heads + hk) * (ulong)(D * KVCL_TOKENS);
    k += k_off;
    v += v_off;
    for (uint row = 0; row < n_rows; row += 2) {
        // an odd last row goes with itself
        place a = place_of(row, i0, hk, G), b = place_of(min(row + 1, n_rows - 1), i0, hk, G);
        uint n0 = visible(pos0 + a.i, begin), n1 = visible(pos0 + b.i, begin);
        if (n1 == 0)
            continue;
        ulong at = ((ulong)a.i * n_q_heads + a.h) * n_parts + page;
        ulong at1 = ((ulong)b.i * n_q_heads + b.h) * n_parts + page;
        float16 s[8];
        scores2(k, base, D, q + q_off + (ulong)a.i * q_stride + a.h * D,
                q + q_off + (ulong)b.i * q_stride + b.h * D, scale, s);
        if (n0 != 0)
            weights64(s, n0, ml + ml_off + 2 * at);
        weights64(s + 4, n1, ml + ml_off + 2 * at1);
        __global float *o0 = o + o_off + at * D, *o1 = o + o_off + at1 * D;
        const float *p0 = (const float *)s, *p1 = (const float *)(s + 4);
        uint d = 0;
        for (; d + 16 <= D; d += 16)
            output2_16(v, base, D, d, p0, p1, n0, n1, o0, o1);
        if (d < D)
            output2_8(v, base, D, d, p0, p1, n0, n1, o0, o1);
    }
}

#else

// Scores of a pair of rows for one token; s is [row][token].
static void scores_pair(__global const uchar *k, ulong at, uint D, __local const float *q0,
                        __local const float *q1, uint pair_full, __local float *s)
{
    float a0 = 0.0f, a1 = 0.0f;
#if KVCL_NVIDIA
#pragma unroll 32 // H200, 2026-11-22: 7.1 us for two pages instead of 7.9
#else
#pragma unroll 8
#endif
    for (uint d = 0; d < D; d++) {
        float kt = LOAD_K(k, at + d * KVCL_TOKENS);
        a0 = fma(q0[d], kt, a0);
        a1 = fma(q1[d], kt, a1);
    }
    s[0] = kvcl_zero(a0);
    if (pair_full)
        s[KVCL_TOKENS] = kvcl_zero(a1);
}

// Largest of the scores that (row, lane) looks after.
static float lane_max(__local const float *s, uint n_valid, uint j)
{
    float m = s[0];
    for (uint t = j; t < n_valid; t += L)
        m = s[t] > m ? s[t] : m;
    return m;
}

// Weights of (row, lane) in place; returns the lane's sum.
static float lane_weights(__local float *s, uint n_valid, uint j, __local const float *maxima,
                          float *m_out)
{
    float m = maxima[0], l = 0.0f;
    for (uint c = 1; c < L; c++)
        m = maxima[c] > m ? maxima[c] : m;
    for (uint t = j; t < n_valid; t += L) {
        float p = kvcl_exp(s[t] - m);
        s[t] = p;
        l += p;
    }
    *m_out = m;
    return l;
}

// Output of a pair of rows, with weights pa and pb, that see n0 <= n1 tokens, at one dimension.
static float2 output_pair(__global const uchar *v, ulong at, uint D, __local const float *pa,
                          __local const float *pb, uint n0, uint n1)
{
    float8 a = (float8)(0.0f), b = (float8)(0.0f);
    uint t = 0;
    for (; t + L <= n0; t += L) {
        float8 vt = (float8)(LOAD_V(v, at + t * D), LOAD_V(v, at + (t + 1) * D),
                             LOAD_V(v, at + (t + 2) * D), LOAD_V(v, at + (t + 3) * D),
                             LOAD_V(v, at + (t + 4) * D), LOAD_V(v, at + (t + 5) * D),
                             LOAD_V(v, at + (t + 6) * D), LOAD_V(v, at + (t + 7) * D));
        a = fma(vload8(0, pa + t), vt, a);
        b = fma(vload8(0, pb + t), vt, b);
    }
    float la[L], lb[L];
    vstore8(a, 0, la);
    vstore8(b, 0, lb);
    for (; t < n1; t++) {
        float vt = LOAD_V(v, at + t * D);
        if (t < n0)
            la[t % L] = fma(pa[t], vt, la[t % L]);
        lb[t % L] = fma(pb[t], vt, lb[t % L]);
    }
    return (float2)(kvcl_tree8(vload8(0, la)), kvcl_tree8(vload8(0, lb)));
}

__kernel void kvcl_attn_raw(ATTN_PARAMS)
{
    __local float qs[ROWS * MAX_DIM], s[ROWS * KVCL_TOKENS], maxima[ROWS * L], sums[ROWS * L];
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    uint G = n_q_heads / n_kv_heads, i_page = (uint)get_group_id(0) / n_kv_heads;
    uint hk = kvcl_rest((uint)get_group_id(0), i_page, n_kv_heads);
    uint i0 = (uint)get_group_id(1) * q_block;
    uint page = first_page + i_page, begin = page * KVCL_TOKENS, n_i = min(q_block, n - i0);
    // nothing to do for a whole group whose queries all stand before the page
    uint all = pos0 + i0 + n_i <= begin ? 0 : n_i * G;
    ulong base = ((ulong)pages[pages_off + i_page] * n_kv_heads + hk) * (ulong)(D * KVCL_TOKENS);
    k += k_off;
    v += v_off;
    for (uint row0 = 0; row0 < all; row0 += ROWS) {
        uint rows = min((uint)ROWS, all - row0);
        for (uint at = lid; at < rows * D; at += items) {
            uint row = at / D;
            place a = place_of(row0 + row, i0, hk, G);
            qs[at] = q[q_off + (ulong)a.i * q_stride + a.h * D + kvcl_rest(at, row, D)] * scale;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < (rows + 1) / 2 * KVCL_TOKENS; at += items) {
            uint r = at / KVCL_TOKENS * 2, t = at % KVCL_TOKENS, r1 = min(r + 1, rows - 1);
            if (t < visible(pos0 + i0 + (row0 + r1) / G, begin))
                scores_pair(k, base + t, D, qs + r * D, qs + r1 * D, r1 != r,
                            s + r * KVCL_TOKENS + t);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        uint r = lid / L, j = lid % L;
        uint n_valid = r < rows ? visible(pos0 + i0 + (row0 + r) / G, begin) : 0;
        if (n_valid != 0)
            maxima[lid] = lane_max(s + r * KVCL_TOKENS, n_valid, j);
        barrier(CLK_LOCAL_MEM_FENCE);
        float m = 0.0f;
        if (n_valid != 0)
            sums[lid] = lane_weights(s + r * KVCL_TOKENS, n_valid, j, maxima + r * L, &m);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (n_valid != 0 && j == 0) {
            place a = place_of(row0 + r, i0, hk, G);
            ulong at = ((ulong)a.i * n_q_heads + a.h) * n_parts + page;
            vstore2((float2)(m, kvcl_tree8(vload8(0, sums + lid))), at, ml + ml_off);
        }
        for (uint at = lid; at < (rows + 1) / 2 * D; at += items) {
            uint pair = at / D, d = kvcl_rest(at, pair, D), ra = 2 * pair;
            uint rb = min(ra + 1, rows - 1);
            place a = place_of(row0 + ra, i0, hk, G), b = place_of(row0 + rb, i0, hk, G);
            uint n0 = visible(pos0 + a.i, begin), n1 = visible(pos0 + b.i, begin);
            float2 y =
                output_pair(v, base + d, D, s + ra * KVCL_TOKENS, s + rb * KVCL_TOKENS, n0, n1);
            ulong pa = ((ulong)a.i * n_q_heads + a.h) * n_parts + page;
            ulong pb = ((ulong)b.i * n_q_heads + b.h) * n_parts + page;
            if (n0 != 0)
                o[o_off + pa * D + d] = y.x;
            if (rb != ra && n1 != 0)
                o[o_off + pb * D + d] = y.y;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

#endif

#define MERGE_PARAMS                                                                         \
    __global const float *ml, ulong ml_off, __global const float *o, ulong o_off,            \
        __global float *out, ulong out_off, uint n, uint pos0, uint n_parts, uint n_q_heads, \
        uint D, uint out_stride

// Weight of a partial against the overall maximum.
static float merge_weight(float m, float m_all) { return m < -3e38f ? 0.0f : kvcl_exp(m - m_all); }

#if KVCL_VECTOR_SHAPE

// W dimensions d .. d + W - 1 of a head's output.
#define DEFINE_MERGE(W, FW)                                                            \
    static void merge_##W(__global const float *ml, __global const float *o, uint n_c, \
                          float m_all, float inv, uint D, uint d, __global float *out) \
    {                                                                                  \
        FW a[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};                    \
        for (uint c = 0; c < n_c; c++)                                                 \
            a[c % L] = fma((FW)(merge_weight(ml[2 * c], m_all)),                       \
                           vload##W(0, o + (ulong)c * D + d), a[c % L]);               \
        FW sum = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));    \
        for (uint e = 0; e < W; e++)                                                   \
            out[d + e] = kvcl_zero(kvcl_zero(((const float *)&sum)[e]) * inv);         \
    }
DEFINE_MERGE(16, float16)
DEFINE_MERGE(8, float8)

__kernel void kvcl_attn_merge_vec(MERGE_PARAMS)
{
    uint row = (uint)get_global_id(0), i = row / n_q_heads, h = kvcl_rest(row, i, n_q_heads);
    uint n_c = (pos0 + i) / KVCL_TOKENS + 1, d = 0;
    if (i >= n)
        return;
    ml += ml_off + 2 * (ulong)row * n_parts;
    o += o_off + (ulong)row * n_parts * D;
    out += out_off + (ulong)i * out_stride + h * D;
    float m_all = ml[0], l[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for (uint c = 1; c < n_c; c++)
        m_all = ml[2 * c] > m_all ? ml[2 * c] : m_all;
    for (uint c = 0; c < n_c; c++)
        l[c % L] = fma(merge_weight(ml[2 * c], m_all), ml[2 * c + 1], l[c % L]);
    float inv = kvcl_recip(kvcl_tree8(vload8(0, l)));
    for (; d + 16 <= D; d += 16)
        merge_16(ml, o, n_c, m_all, inv, D, d, out);
    if (d < D)
        merge_8(ml, o, n_c, m_all, inv, D, d, out);
}

#else

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

__kernel void kvcl_attn_merge(MERGE_PARAMS)
{
    __local float w[MERGE_TILE], red[MERGE_TILE], l_lanes[L];
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    uint i = (uint)get_group_id(1) / n_q_heads;
    uint h = kvcl_rest((uint)get_group_id(1), i, n_q_heads);
    uint d = (uint)get_group_id(0) * MERGE_DIMS + lid % MERGE_DIMS, j = lid / MERGE_DIMS;
    uint n_c = (pos0 + i) / KVCL_TOKENS + 1;
    ulong first = (ulong)get_group_id(1) * n_parts;
    ml += ml_off + 2 * first;
    o += o_off + first * D;
    float m_all = merge_max(ml, n_c, red), acc = 0.0f, l = 0.0f;
    for (uint c0 = 0; c0 < n_c; c0 += MERGE_TILE) {
        uint n_w = min((uint)MERGE_TILE, n_c - c0);
        for (uint c = lid; c < n_w; c += items)
            w[c] = merge_weight(ml[2 * (c0 + c)], m_all);
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
