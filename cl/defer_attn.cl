// defer_attn.cl - cl/defer.cl's attention of one query, beside cl/attn.cl.
//
// attn_raw: a group takes two rows (query heads of a KV head) of a block; item = token, then (page,
// dimension).  local memory: 5,904 floats.
// attn_merge: an item makes four values; the matvec that reads them makes them for itself in every
// group.

#if KVCL_PTX

#if KVCL_SPEC & 1
#define LOAD_K(p, at) vload_half((at), (__global const half *)(p))
#else
#define LOAD_K(p, at) ((__global const float *)(p))[at]
#endif

#if KVCL_SPEC & 2
#define LOAD_V(p, at) vload_half((at), (__global const half *)(p))
#else
#define LOAD_V(p, at) ((__global const float *)(p))[at]
#endif

// Scores of a pair of rows for one token; s is [row][token of the block].
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
        float kt = LOAD_K(k, at + d * TOKENS);
        a0 = fma(q0[d], kt, a0);
        a1 = fma(q1[d], kt, a1);
    }
    s[0] = kvcl_zero(a0);
    if (pair_full)
        s[BLOCK_TOKENS] = kvcl_zero(a1);
}

// One dimension of a page's partials of two rows with weights pa, pb, that see [from, n0) and
// [from, n1), n0 <= n1.
static float2 output_pair(__global const uchar *v, ulong at, uint D, __local const float *pa,
                          __local const float *pb, uint from, uint n0, uint n1)
{
    float8 a = (float8)(0.0f), b = (float8)(0.0f);
#if KVCL_NVIDIA
#pragma unroll 4 // H200, 2026-11-22: 930 instead of 910 tokens/s of a 1.1B model
#endif
    for (uint t = from / L * L; t < n1; t += L) {
        float8 vt = (float8)(LOAD_V(v, at + t * D), LOAD_V(v, at + (t + 1) * D),
                             LOAD_V(v, at + (t + 2) * D), LOAD_V(v, at + (t + 3) * D),
                             LOAD_V(v, at + (t + 4) * D), LOAD_V(v, at + (t + 5) * D),
                             LOAD_V(v, at + (t + 6) * D), LOAD_V(v, at + (t + 7) * D));
        float8 ra = fma(vload8(0, pa + t), vt, a), rb = fma(vload8(0, pb + t), vt, b);
        if (t >= from && t + L <= n0) {
            a = ra;
            b = rb;
        } else {
            uint8 e = (uint8)(t) + (uint8)(0, 1, 2, 3, 4, 5, 6, 7);
            int8 seen = e >= (uint8)(from);
            a = select(a, ra, seen & (e < (uint8)(n0)));
            b = select(b, rb, seen & (e < (uint8)(n1)));
        }
    }
    return (float2)(kvcl_tree8(a), kvcl_tree8(b));
}

// Values 4i .. 4i + 3 of the output of attention, from n partials of their head.
static float4 merged(ulong ml_at, ulong o_at, uint D, uint n_parts, uint n, uint i)
{
    uint h = i * 4 / D, d = kvcl_rest(i * 4, h, D);
    __global const float2 *ml = (__global const float2 *)ml_at + (ulong)h * n_parts;
    __global const float4 *o = (__global const float4 *)(o_at + ((ulong)h * n_parts * D + d) * 4);
    float l[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float4 a[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float m = ml[0].x;
    for (uint c = 1; c < n; c++)
        m = ml[c].x > m ? ml[c].x : m;
    for (uint c0 = 0; c0 < n; c0 += L) {
#pragma unroll
        for (uint c = 0; c < L; c++)
            if (c0 + c < n) {
                float2 one = ml[c0 + c];
                float w = kvcl_merge_weight(one.x, m);
                l[c] = fma(w, one.y, l[c]);
                a[c] = fma((float4)(w), o[(ulong)(c0 + c) * (D / 4)], a[c]);
            }
    }
    float inv = kvcl_recip(kvcl_tree8(vload8(0, l)));
    float4 y = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
    return kvcl_zero4(kvcl_zero4(y) * inv);
}

// Four values of a matvec's input that attn_merge makes; one group writes them to x as well.
static float4 merged_input(__local const kvcl_defer_matvec *op, __local const uint *dyn, uint i)
{
    if (i * 4 >= op->cols)
        return (float4)(0.0f);
    float4 y = merged(op->ml, op->o, op->merge_head_dim, op->merge_parts, dyn[op->n_merged], i);
    if (get_group_id(0) == 0)
        ((__global float4 *)op->x)[i] = y;
    return y;
}

static void run_merge(__local const kvcl_defer_merge *op, __local const uint *dyn)
{
    uint i = (uint)get_global_id(0);
    if (i * 4 < op->n_q_heads * op->head_dim)
        ((__global float4 *)op->out)[i] =
            merged(op->ml, op->o, op->head_dim, op->n_parts, dyn[op->n_merged], i);
}

// Page weights w [rows][PAGES] of up to two rows from their lanes' maxima and sums, and (m, l) of
// their blocks, by one warp: item (row, page).
static void block_weights_by_warp(__local const float *maxima, __local const float *sums, uint rows,
                                  __local float *w, __global float2 *ml, ulong stride)
{
    uint i = (uint)get_local_id(0) % 16, here = get_local_id(0) < rows * PAGES;
    uint at = i < rows * PAGES ? i : 0; // all items of the warp take part in shuffles
    float m = kvcl_page_max(maxima + at * L), m_all = m;
    for (uint s = PAGES / 2; s > 0; s /= 2)
        m_all = fmax(m_all, kvcl_shfl_xor(m_all, s));
    float weight = kvcl_merge_weight(m, m_all);
    float x = fma(weight, kvcl_tree8(vload8(0, sums + at * L)), 0.0f);
    for (uint s = PAGES / 2; s > 0; s /= 2)
        x += kvcl_shfl_xor(x, s);
    if (here)
        w[i] = weight;
    if (here && i % PAGES == 0)
        ml[i / PAGES * stride] = (float2)(m_all, kvcl_zero(x));
}

// Block partials of a KV head's rows `row` and, with `rows` 2, row + 1: an item takes a token's
// scores, then a dimension of a page.
static void attn_block(__local const kvcl_defer_attn *op, kvcl_span b, uint row, uint rows,
                       uint begin, uint end, __local float *mem)
{
    uint lid = (uint)get_local_id(0), D = op->head_dim, G = op->n_q_heads / op->n_kv_heads;
    uint t = lid, h = b.hk * G + row;
    __local float *qs = mem, *s = qs + 2 * MAX_DIM, *maxima = s + 2 * BLOCK_TOKENS;
    __local float *sums = maxima + 2 * PAGES * L, *w = sums + 2 * PAGES * L;
    __local float *parts = w + 2 * PAGES, *second = rows == 2 ? s + BLOCK_TOKENS : s;
    __global const float *q = (__global const float *)op->q + h * D;
    __global const int *pages = (__global const int *)op->pages;
    for (uint i = lid; i < rows * D; i += GROUP)
        qs[i] = q[i] * op->scale;
    ulong base = 0;
    if (t >= b.from && t < b.to)
        base = kvcl_page_base(pages, b, begin, t / TOKENS, op->n_kv_heads, D);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (t >= b.from && t < b.to)
        scores_pair((__global const uchar *)op->k, base + t % TOKENS, D, qs,
                    rows == 2 ? qs + D : qs, rows == 2, s + t);
    barrier(CLK_LOCAL_MEM_FENCE);
    kvcl_row_weights(b, end - 1, 0, rows, rows, s, maxima, sums);
    ulong at = (ulong)h * op->n_parts + b.part;
    if (lid < 32)
        block_weights_by_warp(maxima, sums, rows, w, (__global float2 *)op->ml + at, op->n_parts);
    for (uint i = lid; i < PAGES * D; i += GROUP) {
        uint c = i / D, d = kvcl_rest(i, c, D), from = kvcl_in_page(b.from, c);
        uint to = kvcl_in_page(b.to, c);
        float2 x = (float2)(0.0f);
        if (from < to)
            x = output_pair((__global const uchar *)op->v,
                            kvcl_page_base(pages, b, begin, c, op->n_kv_heads, D) + d, D,
                            s + c * TOKENS, second + c * TOKENS, from, to, to);
        ((__local float2 *)parts)[i] = x;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = lid; i < rows * D; i += GROUP) {
        uint r = i / D, d = kvcl_rest(i, r, D);
        float x[PAGES];
        for (uint c = 0; c < PAGES; c++)
            x[c] = fma(parts[(c * D + d) * 2 + r], w[r * PAGES + c], 0.0f);
        ((__global float *)op->o)[(at + r * op->n_parts) * D + d] = kvcl_tree8(vload8(0, x));
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

static void run_attn(__local const kvcl_defer_attn *op, __local const uint *dyn, __local float *mem)
{
    uint begin = dyn[op->begin], end = dyn[op->end], G = op->n_q_heads / op->n_kv_heads;
    uint n_blocks = (end - 1) / BLOCK_TOKENS - begin / BLOCK_TOKENS + 1, pairs = (G + 1) / 2;
    for (uint task = (uint)get_group_id(0); task < n_blocks * op->n_kv_heads * pairs;
         task += (uint)get_num_groups(0)) {
        uint i = task / pairs, row = 2 * kvcl_rest(task, i, pairs);
        kvcl_span b = kvcl_span_of(i, op->n_kv_heads, begin, end, op->first_part);
        attn_block(op, b, row, min(G - row, 2u), begin, end, mem);
    }
}

#endif
