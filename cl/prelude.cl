// prelude.cl - what every kernel file may use: types of weights, eight weights at a time, the
// canonical sums over a row.  Twin of the sums: cpu/rows.c
//
// Weights: one buffer holds `rows` x `cols` (cols a multiple of 32) in planes that start at
// multiples of 256 bytes (cl/cl_mat.c lays them out):
//   F32, F16, BF16  [rows][cols], nothing else
//   Q8_0            q int8 [rows][cols];               d half [rows][cols / 32]
//   Q4_0            q nibbles [rows][cols / 32][16];   d
//   Q5_0            q like Q4_0's;                     h uint [rows][cols / 32];   d
// Nibbles and fifth bits keep the file's order: element e < 16 of a block is the low half of byte
// e, e >= 16 the high half of byte e - 16; bit e of h.  So 32-bit word w of a block holds the
// elements 4w .. 4w + 3 in its low nibbles and those of 16 + 4w .. in its high ones.

#define KVCL_F32 0
#define KVCL_F16 1
#define KVCL_Q4_0 2
#define KVCL_Q5_0 6
#define KVCL_Q8_0 8
#define KVCL_BF16 30

// a % b, where quotient = a / b is at hand.  (Written `a % b` beside `a / b`, it becomes an
// instruction of LLVM's that Oclgrind does not know.)
static uint kvcl_rest(uint a, uint quotient, uint b) { return a - quotient * b; }

#if KVCL_VECTOR_SHAPE
#define KVCL_AS_FLOAT16(v) as_float16(v)
#define KVCL_SPLAT_F(v) ((float16)(v))
#define KVCL_SPLAT_U(v) ((uint16)(v))
KVCL_DEFINE_MATH(float16, 16, as_uint16, as_float16, KVCL_SPLAT_F, KVCL_SPLAT_U)
#endif

// ---- weights ------------------------------------------------------------------------------------

static ulong kvcl_plane(ulong bytes) { return (bytes + 255) & ~(ulong)255; }

// Where the planes d (scales) and h (fifth bits) of a matrix begin, in bytes.
static ulong kvcl_plane_h(uint rows, uint cols) { return kvcl_plane((ulong)rows * cols / 2); }
static ulong kvcl_plane_d(uint type, uint rows, uint cols)
{
    ulong n = (ulong)rows * cols;
    if (type == KVCL_Q8_0)
        return kvcl_plane(n);
    return type == KVCL_Q4_0 ? kvcl_plane(n / 2) : kvcl_plane_h(rows, cols) + kvcl_plane(n / 8);
}

// Four codes n - zero in [0, 32) - zero as signed bytes, from four codes n; zero 8 or 16.
static uint kvcl_centre4(uint n, uint zero)
{
    return (n + (128u - zero) * 0x01010101u) ^ 0x80808080u;
}

// Bits 0 .. 3 of h, each moved to bit 4 of a byte.
static uint kvcl_fifth4(uint h) { return (((h & 15u) * 0x00204081u) & 0x01010101u) << 4; }

static float8 kvcl_bf16x8(ushort8 u) { return as_float8(convert_uint8(u) << 16); }

// Elements at .. at + 7 of the matrix (at = row * cols + k, a multiple of 8) as f32.
static float8 kvcl_weight8(uint type, __global const uchar *w, uint rows, uint cols, ulong at)
{
    if (type == KVCL_F32)
        return vload8(0, (__global const float *)w + at);
    if (type == KVCL_F16)
        return vloada_half8(0, (__global const half *)w + at);
    if (type == KVCL_BF16)
        return kvcl_bf16x8(as_ushort8(((__global const uint4 *)w)[at / 8]));
    ulong block = at / 32;
    uint e = (uint)(at % 32);
    float d = vload_half(block, (__global const half *)(w + kvcl_plane_d(type, rows, cols)));
    if (type == KVCL_Q8_0)
        return convert_float8(as_char8(((__global const uint2 *)w)[at / 8])) * d;
    uint2 qs = ((__global const uint2 *)w)[block * 2 + e / 8 % 2] >> (e < 16 ? 0 : 4);
    int8 n = convert_int8(as_char8(qs & 0x0f0f0f0fu));
    if (type == KVCL_Q4_0)
        return convert_float8(n - 8) * d;
    uint h = ((__global const uint *)(w + kvcl_plane_h(rows, cols)))[block] >> e;
    int8 fifth = ((int8)((int)h) >> (int8)(0, 1, 2, 3, 4, 5, 6, 7)) & 1;
    return convert_float8(n + fifth * 16 - 16) * d;
}

// ---- sums ---------------------------------------------------------------------------------------

#if KVCL_PTX
// v of the item of the warp whose number differs in the bits of mask; all 32 items take part.
static float kvcl_shfl_xor(float v, uint mask)
{
    float r;
    __asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(r) : "f"(v), "r"(mask));
    return r;
}

// Two halves that came in one load: NVIDIA's compiler makes two loads of 16 bits of vload_half2
// and of vloada_half2.
static float2 kvcl_half_pair(uint h)
{
    float lo, hi;
    __asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
          : "=f"(lo), "=f"(hi)
          : "r"(h));
    return (float2)(lo, hi);
}
#endif

// Halving tree over 8 lanes.  (A sum of two elements of one vector becomes a shuffle that
// Oclgrind's check of uninitialised values crashes on: hence the detour by an array.)
static float kvcl_tree8(float8 a)
{
    float4 b = a.lo + a.hi;
    float c[2];
    vstore2(b.lo + b.hi, 0, c);
    return kvcl_zero(c[0] + c[1]);
}

// The first three levels of the tree over 64 lanes: what lane j < 8 holds after them.
static float kvcl_tree64_top(__local const float *lanes, uint j)
{
    float a = lanes[j] + lanes[j + 32], b = lanes[j + 16] + lanes[j + 48];
    float c = lanes[j + 8] + lanes[j + 40], d = lanes[j + 24] + lanes[j + 56];
    return (a + b) + (c + d);
}

#define KVCL_RED_FLOATS 72 // local floats that kvcl_lanes_sum needs

// Lane values of work-items 0 .. 63 to their tree's sum, in all items of the group.
static float kvcl_lanes_sum(float acc, __local float *red)
{
    uint lid = get_local_id(0);
    if (lid < 64)
        red[lid] = acc;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid < 8)
        red[64 + lid] = kvcl_tree64_top(red, lid);
    barrier(CLK_LOCAL_MEM_FENCE);
    return kvcl_tree8(vload8(0, red + 64));
}

#define KVCL_NORM_NONE 0
#define KVCL_NORM_RMS 1
#define KVCL_NORM_LAYER 2

// (mean, r) of a row of n values for a norm, in all items of a group of at least 64 work-items;
// one definition for rows in global and one for rows in local memory.  The kind is also the number
// of sums: a loop, since some CPU compilers fail on barriers inside conditions.
#define KVCL_DEFINE_NORM_STATS(name, SPACE)                                             \
    static float2 name(SPACE const float *x, uint n, uint kind, float eps, float inv_n, \
                       __local float *red)                                              \
    {                                                                                   \
        uint lid = get_local_id(0);                                                     \
        float mean = 0.0f, sum = 0.0f;                                                  \
        for (uint pass = 0; pass < kind; pass++) {                                      \
            uint squares = pass + 1 == kind;                                            \
            float acc = 0.0f;                                                           \
            mean = sum * inv_n;                                                         \
            if (lid < 64)                                                               \
                for (uint k = lid; k < n; k += 64) {                                    \
                    float v = fma(-1.0f, mean, x[k]);                                   \
                    acc = fma(v, squares ? v : 1.0f, acc);                              \
                }                                                                       \
            sum = kvcl_lanes_sum(acc, red);                                             \
            barrier(CLK_LOCAL_MEM_FENCE);                                               \
        }                                                                               \
        return (float2)(mean, kvcl_rsqrt(fma(sum, inv_n, eps)));                        \
    }
KVCL_DEFINE_NORM_STATS(kvcl_norm_stats_global, __global)
KVCL_DEFINE_NORM_STATS(kvcl_norm_stats_local, __local)

static float4 kvcl_zero4(float4 v)
{
    return as_int4(v) == (int4)(-2147483647 - 1) ? (float4)(0.0f) : v;
}

// One value through a norm; stats = (mean, r).
static float kvcl_norm_value(uint kind, float x, float2 stats, float w, float b)
{
    if (kind == KVCL_NORM_RMS)
        return (x * stats.y) * w;
    return kvcl_zero(fma(fma(-1.0f, stats.x, x) * stats.y, w, b));
}

#if KVCL_VECTOR_SHAPE
// Halving tree over 64 lanes held in four vectors.
static float kvcl_tree64_vec(float16 a0, float16 a1, float16 a2, float16 a3)
{
    float16 a = (a0 + a2) + (a1 + a3);
    return kvcl_tree8(a.lo + a.hi);
}

// Value k .. k + 15 of a row minus its mean, as a term of the sums.
static float16 kvcl_centred(__global const float *x, uint k, float mean)
{
    return fma((float16)(-1.0f), (float16)(mean), vload16(0, x + k));
}

// sum64 over a row by one work-item: of the values (square 0) or of squared centred values.  n is
// a multiple of 32, so the row ends after a whole or a half round of lanes.
static float kvcl_sum64_vec(__global const float *x, uint n, uint square, float mean)
{
    float16 a[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (uint k = 0; k < n; k += 64) {
        uint n_vec = k + 64 <= n ? 4 : 2;
        for (uint v = 0; v < n_vec; v++) {
            float16 t = kvcl_centred(x, k + 16 * v, mean);
            a[v] = fma(t, square ? t : (float16)(1.0f), a[v]);
        }
    }
    return kvcl_tree64_vec(a[0], a[1], a[2], a[3]);
}

// (mean, r) of a row for a norm, by one work-item.
static float2 kvcl_norm_stats_vec(__global const float *x, uint n, uint kind, float eps,
                                  float inv_n)
{
    float mean = 0.0f;
    if (kind == KVCL_NORM_LAYER)
        mean = kvcl_sum64_vec(x, n, 0, 0.0f) * inv_n;
    return (float2)(mean, kvcl_rsqrt(fma(kvcl_sum64_vec(x, n, 1, mean), inv_n, eps)));
}

// Values k .. k + 15 of a row through a norm.
static float16 kvcl_norm16(uint kind, __global const float *x, uint k, float2 stats,
                           __global const float *w, __global const float *b)
{
    if (kind == KVCL_NORM_NONE)
        return vload16(0, x + k);
    if (kind == KVCL_NORM_RMS)
        return (vload16(0, x + k) * stats.y) * vload16(0, w + k);
    float16 d = kvcl_centred(x, k, stats.x);
    return kvcl_zero16(fma(d * stats.y, vload16(0, w + k), vload16(0, b + k)));
}
#endif

// ---- attention: regions, blocks, rows (engine/ops_kv.h) -----------------------------------------
//
// A "row" is one query head of one query: row / G is the query, row % G the head of the KV head's
// G.  Tokens of a block are numbered 0 .. 511.

#define KVCL_BLOCK_TOKENS (KVCL_TOKENS * KVCL_BLOCK)

#define KVCL_ATTN_RAW_PARAMS                                                                       \
    __global const float *q, ulong q_off, __global const uchar *k, ulong k_off,                    \
        __global const uchar *v, ulong v_off, __global const int *pages, ulong pages_off,          \
        __global float *ml, ulong ml_off, __global float *o, ulong o_off, uint n, uint q_stride,   \
        uint pos0, uint n_q_heads, uint n_kv_heads, uint D, uint begin, uint end, uint first_part, \
        uint n_parts, float scale, uint chunk

#define KVCL_ATTN_MERGE_PARAMS                                                            \
    __global const float *ml, ulong ml_off, __global const float *o, ulong o_off,         \
        __global float *out, ulong out_off, uint n, uint before, uint pos0, uint n_parts, \
        uint n_q_heads, uint D, uint out_stride

// What a group works on: KV head, where the partials go, first position and first page of the
// block, and the region's tokens [from, to) in it.
typedef struct kvcl_span {
    uint hk, part, pos, page, from, to;
} kvcl_span;

static kvcl_span kvcl_span_of(uint task, uint n_kv_heads, uint begin, uint end, uint first_part)
{
    uint i = task / n_kv_heads, b = begin / KVCL_BLOCK_TOKENS + i;
    kvcl_span r = {kvcl_rest(task, i, n_kv_heads),
                   first_part + i,
                   b * KVCL_BLOCK_TOKENS,
                   b * KVCL_BLOCK,
                   0,
                   0};
    r.from = (uint)max((int)(begin - r.pos), 0); // (Oclgrind does not know saturating differences)
    r.to = end > r.pos ? min(end - r.pos, (uint)KVCL_BLOCK_TOKENS) : 0;
    return r;
}

// End of the tokens of the block that a query sees, at least b.from.
static uint kvcl_seen_to(kvcl_span b, uint pos)
{
    uint to = pos < b.pos ? 0 : min(b.to, pos - b.pos + 1);
    return max(to, b.from);
}

// Page c's tokens of [0, t).
static uint kvcl_in_page(uint t, uint c)
{
    return t < c * KVCL_TOKENS ? 0 : min(t - c * KVCL_TOKENS, (uint)KVCL_TOKENS);
}

// Where the K (or V) of page c of the block begins, in elements; for pages of the region.
static ulong kvcl_page_base(__global const int *pages, kvcl_span b, uint begin, uint c,
                            uint n_kv_heads, uint D)
{
    ulong slot = (ulong)pages[b.page + c - begin / KVCL_TOKENS];
    return (slot * n_kv_heads + b.hk) * (ulong)(D * KVCL_TOKENS);
}

// Query and head of a row of KV head hk.
typedef struct kvcl_place {
    uint i, h;
} kvcl_place;

static kvcl_place kvcl_place_of(uint row, uint hk, uint G)
{
    uint query = row / G;
    kvcl_place p = {query, hk * G + kvcl_rest(row, query, G)};
    return p;
}

// The halving tree over pages takes them in the order 0 4 2 6 1 5 3 7.
static uint kvcl_tree_page(uint i) { return 0x73516240u >> 4 * i & 7; }

// Weight of a partial against the overall maximum.
static float kvcl_merge_weight(float m, float m_all)
{
    return m < -3e38f ? 0.0f : kvcl_exp(m - m_all);
}

#if KVCL_VECTOR_SHAPE

// Scores of one row (64 floats) to weights, zeros outside of the tokens [from, to) that it sees;
// m and l: -inf and 0 when there are none.
static void kvcl_weights64(float16 *s16, uint from, uint to, float *m_out, float *l_out)
{
    float *s = (float *)s16;
    float m = from < to ? s[from] : -INFINITY;
    for (uint t = from; t < to; t++)
        m = s[t] > m ? s[t] : m;
    *m_out = m;
    *l_out = 0.0f;
    if (from >= to)
        return;
    for (uint t = 0; t < from; t++)
        s[t] = -INFINITY;
    for (uint t = to; t < KVCL_TOKENS; t++)
        s[t] = -INFINITY;
    float8 l = 0.0f;
    for (uint c = 0; c < 4; c++) {
        s16[c] = kvcl_exp16(s16[c] - (float16)(m));
        l = (l + s16[c].lo) + s16[c].hi;
    }
    *l_out = kvcl_tree8(l);
}

// Page partials' m and l to the block's; m becomes the pages' weights.
static void kvcl_block_weights_vec(float *m, const float *l, __global float *ml)
{
    float m_all = m[0], x[KVCL_BLOCK];
    for (uint c = 1; c < KVCL_BLOCK; c++)
        m_all = m[c] > m_all ? m[c] : m_all;
    for (uint c = 0; c < KVCL_BLOCK; c++) {
        m[c] = m[c] < -3e38f ? 0.0f : kvcl_exp(m[c] - m_all);
        x[c] = fma(m[c], l[c], 0.0f);
    }
    ml[0] = m_all;
    ml[1] = kvcl_tree8(vload8(0, x));
}

#else

// Largest of the scores of a page that lane j looks after and a row sees: tokens [from, to).
static float kvcl_lane_max(__local const float *s, uint from, uint to, uint j)
{
    float m = -INFINITY;
    for (uint t = j; t < KVCL_TOKENS; t += KVCL_ATTN_LANES)
        m = t >= from && t < to && s[t] > m ? s[t] : m;
    return m;
}

// Weights of a lane in place, 0 for tokens not seen; returns their sum.
static float kvcl_lane_weights(__local float *s, uint from, uint to, uint j, float m)
{
    float l = 0.0f;
    for (uint t = j; t < KVCL_TOKENS; t += KVCL_ATTN_LANES) {
        float p = 0.0f;
        if (t >= from && t < to) {
            p = kvcl_exp(s[t] - m);
            l += p;
        }
        s[t] = p;
    }
    return l;
}

// Largest of a page's lanes.
static float kvcl_page_max(__local const float *maxima)
{
    float m = maxima[0];
    for (uint j = 1; j < KVCL_ATTN_LANES; j++)
        m = maxima[j] > m ? maxima[j] : m;
    return m;
}

// A row's page weights w [KVCL_BLOCK] from its lanes' maxima and sums; (m, l) of its block.
static float2 kvcl_block_weights(__local const float *maxima, __local const float *sums,
                                 __local float *w)
{
    float m[KVCL_BLOCK], x[KVCL_BLOCK], m_all = -INFINITY;
    for (uint c = 0; c < KVCL_BLOCK; c++) {
        m[c] = kvcl_page_max(maxima + c * KVCL_ATTN_LANES);
        m_all = m[c] > m_all ? m[c] : m_all;
    }
    for (uint c = 0; c < KVCL_BLOCK; c++) {
        w[c] = m[c] < -3e38f ? 0.0f : kvcl_exp(m[c] - m_all);
        x[c] = fma(w[c], kvcl_tree8(vload8(0, sums + c * KVCL_ATTN_LANES)), 0.0f);
    }
    return (float2)(m_all, kvcl_tree8(vload8(0, x)));
}

// Scores of `rows` rows from row0 on, [row][token], to weights in place, and the lanes' maxima and
// sums [row][page][lane], by all items of a group.
static void kvcl_row_weights(kvcl_span b, uint pos0, uint row0, uint rows, uint G, __local float *s,
                             __local float *maxima, __local float *sums)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    for (uint at = lid; at < rows * KVCL_BLOCK * KVCL_ATTN_LANES; at += items) {
        uint r = at / (KVCL_BLOCK * KVCL_ATTN_LANES), c = at / KVCL_ATTN_LANES % KVCL_BLOCK;
        uint to = kvcl_seen_to(b, pos0 + (row0 + r) / G);
        maxima[at] =
            kvcl_lane_max(s + r * KVCL_BLOCK_TOKENS + c * KVCL_TOKENS, kvcl_in_page(b.from, c),
                          kvcl_in_page(to, c), at % KVCL_ATTN_LANES);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint at = lid; at < rows * KVCL_BLOCK * KVCL_ATTN_LANES; at += items) {
        uint r = at / (KVCL_BLOCK * KVCL_ATTN_LANES), c = at / KVCL_ATTN_LANES % KVCL_BLOCK;
        uint to = kvcl_seen_to(b, pos0 + (row0 + r) / G);
        sums[at] =
            kvcl_lane_weights(s + r * KVCL_BLOCK_TOKENS + c * KVCL_TOKENS, kvcl_in_page(b.from, c),
                              kvcl_in_page(to, c), at % KVCL_ATTN_LANES,
                              kvcl_page_max(maxima + at / KVCL_ATTN_LANES * KVCL_ATTN_LANES));
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

#endif
