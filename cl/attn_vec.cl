// attn_vec.cl - the kernels of cl/attn.cl in the vector shape.  Twin: cpu/attn.c
//
// KVCL_SPEC: 1 when K is f16, + 2 when V is f16.  Assumes (checked by the host half): head_dim D a
// multiple of 8, at most 256.  Rows and blocks: cl/prelude.cl.
//
// kvcl_attn_raw_vec: one work-item per block and KV head (dimension 0) and `chunk` rows (dimension
// 1), two rows at a time, 16 tokens and then 16 dimensions to a vector.
// kvcl_attn_merge_vec: one work-item per query and head.

#if KVCL_VECTOR_SHAPE

#define MAX_DIM 256
#define L KVCL_ATTN_LANES
#define TOKENS KVCL_TOKENS
#define PAGES KVCL_BLOCK
#define BLOCK_TOKENS KVCL_BLOCK_TOKENS

#if KVCL_SPEC & 1
#define LOAD_K16(p, at) vload_half16(0, (__global const half *)(p) + (at))
#else
#define LOAD_K16(p, at) vload16(0, (__global const float *)(p) + (at))
#endif

#if KVCL_SPEC & 2
#define LOAD_V8(p, at) vload_half8(0, (__global const half *)(p) + (at))
#define LOAD_V16(p, at) vload_half16(0, (__global const half *)(p) + (at))
#else
#define LOAD_V8(p, at) vload8(0, (__global const float *)(p) + (at))
#define LOAD_V16(p, at) vload16(0, (__global const float *)(p) + (at))
#endif

// Scores of two rows against a page: s[row][token], two chains a vector of 16 tokens.
static void scores2(__global const uchar *k, ulong base, uint D, __global const float *q0,
                    __global const float *q1, float scale, float16 *s)
{
    float16 a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, a3 = 0.0f;
    float16 b0 = 0.0f, b1 = 0.0f, b2 = 0.0f, b3 = 0.0f;
    for (uint d = 0; d < D; d++) {
        float16 qa = (float16)(q0[d] * scale), qb = (float16)(q1[d] * scale);
        ulong at = base + (ulong)d * TOKENS;
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

// W dimensions d .. d + W - 1 of page i (in the tree's order) of two rows, one of which has
// weights p0 and sees [from, n0), the other p1 and [from, n1), n0 <= n1: 8 lanes each; then a step
// of the tree over pages, whose waiting sums are t0 and t1 [3][MAX_DIM].
#define DEFINE_OUTPUT2(W, FW, LOAD)                                                            \
    static void add_page_##W(FW x, uint i, float *waits, __global float *o)                    \
    {                                                                                          \
        if (i & 1)                                                                             \
            x = vload##W(0, waits + 2 * MAX_DIM) + x;                                          \
        if ((i & 3) == 3)                                                                      \
            x = vload##W(0, waits + MAX_DIM) + x;                                              \
        if (i < 7) {                                                                           \
            vstore##W(x, 0, waits + ((i & 1) == 0 ? 2 : i == 3 ? 0 : 1) * MAX_DIM);            \
            return;                                                                            \
        }                                                                                      \
        x = vload##W(0, waits) + x;                                                            \
        for (uint e = 0; e < W; e++)                                                           \
            o[e] = kvcl_zero(((const float *)&x)[e]);                                          \
    }                                                                                          \
    static FW output_##W(const FW *a, float w)                                                 \
    {                                                                                          \
        return fma(((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])), (FW)(w), \
                   (FW)(0.0f));                                                                \
    }                                                                                          \
    static void output2_##W(__global const uchar *v, ulong base, uint D, const float *p0,      \
                            const float *p1, uint from, uint n0, uint n1, FW *a, FW *b)        \
    {                                                                                          \
        uint t = from;                                                                         \
        for (uint j = 0; j < L; j++)                                                           \
            a[j] = b[j] = 0.0f;                                                                \
        for (uint whole = n0 / L * L; t % L == 0 && t < whole; t += L)                         \
            for (uint j = 0; j < L; j++) {                                                     \
                FW vt = LOAD(v, base + (ulong)(t + j) * D);                                    \
                a[j] = fma((FW)(p0[t + j]), vt, a[j]);                                         \
                b[j] = fma((FW)(p1[t + j]), vt, b[j]);                                         \
            }                                                                                  \
        for (; t < n1; t++) {                                                                  \
            FW vt = LOAD(v, base + (ulong)t * D);                                              \
            if (t < n0)                                                                        \
                a[t % L] = fma((FW)(p0[t]), vt, a[t % L]);                                     \
            b[t % L] = fma((FW)(p1[t]), vt, b[t % L]);                                         \
        }                                                                                      \
    }
DEFINE_OUTPUT2(16, float16, LOAD_V16)
DEFINE_OUTPUT2(8, float8, LOAD_V8)

// What a work-item knows of a pair of rows: page weights or maxima, sums, where outputs go.
typedef struct pair_state {
    float w0[PAGES], w1[PAGES], l0[PAGES], l1[PAGES];
    float waits0[3 * MAX_DIM], waits1[3 * MAX_DIM];
    uint to0, to1, both; // both: the first row sees something, too
    __global float *o0, *o1;
} pair_state;

#define DEFINE_PAGE2(W, FW)                                                              \
    static void page2_##W(__global const uchar *v, ulong base, uint D, uint i, uint d,   \
                          const float *p0, const float *p1, uint from, uint n0, uint n1, \
                          pair_state *s)                                                 \
    {                                                                                    \
        FW a[L], b[L];                                                                   \
        uint c = kvcl_tree_page(i);                                                      \
        output2_##W(v, base + d, D, p0, p1, from, n0, n1, a, b);                         \
        if (s->both)                                                                     \
            add_page_##W(output_##W(a, s->w0[c]), i, s->waits0 + d, s->o0 + d);          \
        add_page_##W(output_##W(b, s->w1[c]), i, s->waits1 + d, s->o1 + d);              \
    }
DEFINE_PAGE2(16, float16)
DEFINE_PAGE2(8, float8)

__kernel void kvcl_attn_raw_vec(KVCL_ATTN_RAW_PARAMS)
{
    uint G = n_q_heads / n_kv_heads;
    kvcl_span b = kvcl_span_of((uint)get_global_id(0), n_kv_heads, begin, end, first_part);
    uint row0 = (uint)get_global_id(1) * chunk, row_end = min(row0 + chunk, n * G);
    pages += pages_off;
    k += k_off;
    v += v_off;
    for (uint row = row0; row < row_end; row += 2) {
        // an odd last row goes with itself
        kvcl_place a0 = kvcl_place_of(row, b.hk, G),
                   a1 = kvcl_place_of(min(row + 1, row_end - 1), b.hk, G);
        pair_state s;
        s.to0 = kvcl_seen_to(b, pos0 + a0.i);
        s.to1 = kvcl_seen_to(b, pos0 + a1.i);
        s.both = s.to0 > b.from;
        if (s.to1 == b.from)
            continue;
        ulong at0 = ((ulong)a0.i * n_q_heads + a0.h) * n_parts + b.part;
        ulong at1 = ((ulong)a1.i * n_q_heads + a1.h) * n_parts + b.part;
        s.o0 = o + o_off + at0 * D;
        s.o1 = o + o_off + at1 * D;
        float16 p[PAGES * 8];
        for (uint c = 0; c < PAGES; c++) {
            uint from = kvcl_in_page(b.from, c), n0 = kvcl_in_page(s.to0, c),
                 n1 = kvcl_in_page(s.to1, c);
            if (from < n1)
                scores2(k, kvcl_page_base(pages, b, begin, c, n_kv_heads, D), D,
                        q + q_off + (ulong)a0.i * q_stride + a0.h * D,
                        q + q_off + (ulong)a1.i * q_stride + a1.h * D, scale, p + c * 8);
            kvcl_weights64(p + c * 8, from, n0, s.w0 + c, s.l0 + c);
            kvcl_weights64(p + c * 8 + 4, from, n1, s.w1 + c, s.l1 + c);
        }
        if (s.both)
            kvcl_block_weights_vec(s.w0, s.l0, ml + ml_off + 2 * at0);
        kvcl_block_weights_vec(s.w1, s.l1, ml + ml_off + 2 * at1);
        for (uint i = 0; i < PAGES; i++) {
            uint c = kvcl_tree_page(i), from = kvcl_in_page(b.from, c), n0 = kvcl_in_page(s.to0, c),
                 d = 0;
            uint n1 = kvcl_in_page(s.to1, c);
            const float *p0 = (const float *)(p + c * 8), *p1 = p0 + TOKENS;
            ulong base = from < n1 ? kvcl_page_base(pages, b, begin, c, n_kv_heads, D) : 0;
            for (; d + 16 <= D; d += 16)
                page2_16(v, base, D, i, d, p0, p1, from, n0, n1, &s);
            if (d < D)
                page2_8(v, base, D, i, d, p0, p1, from, n0, n1, &s);
        }
    }
}

// W dimensions d .. d + W - 1 of a head's output.
#define DEFINE_MERGE(W, FW)                                                            \
    static void merge_##W(__global const float *ml, __global const float *o, uint n_c, \
                          float m_all, float inv, uint D, uint d, __global float *out) \
    {                                                                                  \
        FW a[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};                    \
        for (uint c = 0; c < n_c; c++)                                                 \
            a[c % L] = fma((FW)(kvcl_merge_weight(ml[2 * c], m_all)),                  \
                           vload##W(0, o + (ulong)c * D + d), a[c % L]);               \
        FW sum = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));    \
        for (uint e = 0; e < W; e++)                                                   \
            out[d + e] = kvcl_zero(kvcl_zero(((const float *)&sum)[e]) * inv);         \
    }
DEFINE_MERGE(16, float16)
DEFINE_MERGE(8, float8)

__kernel void kvcl_attn_merge_vec(KVCL_ATTN_MERGE_PARAMS)
{
    uint row = (uint)get_global_id(0), i = row / n_q_heads, h = kvcl_rest(row, i, n_q_heads);
    uint n_c = before + (pos0 + i) / BLOCK_TOKENS, d = 0;
    if (i >= n)
        return;
    ml += ml_off + 2 * (ulong)row * n_parts;
    o += o_off + (ulong)row * n_parts * D;
    out += out_off + (ulong)i * out_stride + h * D;
    float m_all = ml[0], l[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for (uint c = 1; c < n_c; c++)
        m_all = ml[2 * c] > m_all ? ml[2 * c] : m_all;
    for (uint c = 0; c < n_c; c++)
        l[c % L] = fma(kvcl_merge_weight(ml[2 * c], m_all), ml[2 * c + 1], l[c % L]);
    float inv = kvcl_recip(kvcl_tree8(vload8(0, l)));
    for (; d + 16 <= D; d += 16)
        merge_16(ml, o, n_c, m_all, inv, D, d, out);
    if (d < D)
        merge_8(ml, o, n_c, m_all, inv, D, d, out);
}

#endif
