// rope.cl - rotates queries and keys, stores keys and values in their pages.  Twin: cpu/rope.c
//
// KVCL_SPEC: 1 when K is f16, + 2 when V is f16, + 4 when keys before rotation are stored too, + 8
// when those are f16.  Assumes (checked by the host half): head_dim and
// n_rot even.  One work-item per pair of values of one head of one token; no local memory.

#define PAIR_ADJACENT 1
#define PAIR_HALVES 2

static void store_k(__global uchar *pool, ulong at, float x)
{
#if KVCL_SPEC & 1
    vstore_half_rte(x, at, (__global half *)pool);
#else
    ((__global float *)pool)[at] = x;
#endif
}

static void store_v(__global uchar *pool, ulong at, float x)
{
#if KVCL_SPEC & 2
    vstore_half_rte(x, at, (__global half *)pool);
#else
    ((__global float *)pool)[at] = x;
#endif
}

#if KVCL_SPEC & 4
static void store_ku(__global uchar *pool, ulong at, float x)
{
#if KVCL_SPEC & 8
    vstore_half_rte(x, at, (__global half *)pool);
#else
    ((__global float *)pool)[at] = x;
#endif
}
#endif

// The two values of a pair (a, b) turned by (c, s).
static float kvcl_turn_a(float a, float b, float2 cs)
{
    return kvcl_zero(fma(a, cs.x, -(b * cs.y)));
}
static float kvcl_turn_b(float a, float b, float2 cs) { return kvcl_zero(fma(b, cs.x, a * cs.y)); }

__kernel void kvcl_rope_store(__global float *qkv, ulong qkv_off, uint qkv_stride,
                              __global const float *table, ulong table_off, __global uchar *k,
                              ulong k_off, __global uchar *v, ulong v_off, __global uchar *ku,
                              ulong ku_off, __global const int *pages, ulong pages_off,
                              uint first_page, uint n, uint pos0, uint n_q_heads, uint n_kv_heads,
                              uint head_dim, uint n_rot, uint pairing)
{
    uint half_dim = head_dim / 2, i = (uint)get_global_id(1);
    uint at = (uint)get_global_id(0), h = at / half_dim, e = kvcl_rest(at, h, half_dim);
    if (i >= n || h >= n_q_heads + 2 * n_kv_heads)
        return;
    __global float *x = qkv + qkv_off + (ulong)i * qkv_stride + h * head_dim;
    uint pos = pos0 + i, t = pos % KVCL_TOKENS;
    uint turn = pairing != 0 && e < n_rot / 2 && h < n_q_heads + n_kv_heads;
    uint ia = 2 * e, ib = 2 * e + 1;
    if (turn && pairing == PAIR_HALVES) {
        ia = e;
        ib = e + n_rot / 2;
    }
    float a = x[ia], b = x[ib];
#if KVCL_SPEC & 4
    if (h >= n_q_heads && h < n_q_heads + n_kv_heads) {
        ulong slot = (ulong)pages[pages_off + pos / KVCL_TOKENS - first_page];
        ulong base = (slot * n_kv_heads + (h - n_q_heads)) * head_dim * KVCL_TOKENS + t;
        store_ku(ku + ku_off, base + ia * KVCL_TOKENS, a);
        store_ku(ku + ku_off, base + ib * KVCL_TOKENS, b);
    }
#endif
    if (turn) {
        float2 cs = vload2((ulong)pos * (n_rot / 2) + e, table + table_off);
        float ra = kvcl_turn_a(a, b, cs);
        b = kvcl_turn_b(a, b, cs);
        a = ra;
    }
    if (h < n_q_heads) {
        x[ia] = a;
        x[ib] = b;
        return;
    }
    ulong slot = (ulong)pages[pages_off + pos / KVCL_TOKENS - first_page];
    if (h < n_q_heads + n_kv_heads) {
        ulong base = (slot * n_kv_heads + (h - n_q_heads)) * head_dim * KVCL_TOKENS + t;
        store_k(k + k_off, base + ia * KVCL_TOKENS, a);
        store_k(k + k_off, base + ib * KVCL_TOKENS, b);
    } else {
        ulong base = (slot * n_kv_heads + (h - n_q_heads - n_kv_heads)) * KVCL_TOKENS;
        store_v(v + v_off, (base + t) * head_dim + ia, a);
        store_v(v + v_off, (base + t) * head_dim + ib, b);
    }
}
