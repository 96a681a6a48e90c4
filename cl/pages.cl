// pages.cl - what the kernels of coded pages may use: where the parts of a quant page are, what one
// head's rows of codes are, the rules of the encoder, Hadamard transforms.  Twin: cpu/quant.c
//
// A "row" has one scale: a token's D values, or (CHANNEL's K) a channel's 64 tokens.  Rows of V and
// of channels are contiguous in memory and their words run across rows; a token's K is strided and
// its words run along it.

// Element `at` of a pool of raw pages.
static float kvcl_raw_load(uint type, __global const uchar *pool, ulong at)
{
    return type == KVCL_F16 ? vload_half(at, (__global const half *)pool)
                            : ((__global const float *)pool)[at];
}

// ---- layout (engine/ops_code.h) -----------------------------------------------------------------

#define KVCL_QUANT_PRE 0
#define KVCL_QUANT_POST 1
#define KVCL_QUANT_CHANNEL 2

// Where the parts of one head of a quant page begin: bytes from the pool's start.  CHANNEL's means
// follow its D scales.
typedef struct kvcl_quant_head {
    ulong k_words, v_words, k_scales, v_scales;
} kvcl_quant_head;

static kvcl_quant_head kvcl_quant_at(uint form, uint bits_k, uint bits_v, uint n_kv_heads, uint D,
                                     ulong slot, uint hk)
{
    uint k_words = 4 * kvcl_code_words(bits_k, D), v_words = 4 * kvcl_code_words(bits_v, D);
    uint k_scales = form == KVCL_QUANT_CHANNEL ? 4 * D : 2 * KVCL_TOKENS;
    uint head = k_words + v_words + k_scales + 2 * KVCL_TOKENS;
    ulong at = slot * (ulong)(head * n_kv_heads);
    kvcl_quant_head r;
    r.k_words = at + hk * k_words;
    at += n_kv_heads * k_words;
    r.v_words = at + hk * v_words;
    at += n_kv_heads * v_words;
    r.k_scales = at + hk * k_scales;
    at += n_kv_heads * k_scales;
    r.v_scales = at + hk * (2 * KVCL_TOKENS);
    return r;
}

// Index of the first of the D means that a page's K (or V) of a head is coded with.
static ulong kvcl_quant_mean_at(uint page, uint of_v, uint n_kv_heads, uint hk, uint D)
{
    uint epoch = kvcl_mean_epoch(page / KVCL_BLOCK);
    return (ulong)((epoch * 2 + of_v) * n_kv_heads + hk) * D;
}

// The arguments that encoder and decoder share; raw pages and quant pages are bytes.
#define KVCL_QUANT_PARAMS(IN, OUT)                                                           \
    IN uchar *k, ulong k_off, IN uchar *v, ulong v_off, __global const int *pages,           \
        ulong pages_off, __global const float *means, ulong means_off, OUT uchar *pool,      \
        ulong pool_off, __global const int *slots, ulong slots_off, uint n_kv_heads, uint D, \
        uint bits_k, uint bits_v, uint form, uint first_page, uint type_k, uint type_v,      \
        uint n_skip
#define KVCL_QUANT_ARGS                                                                          \
    (__global uchar *)k, k_off, (__global uchar *)v, v_off, pages, pages_off, means, means_off,  \
        (__global uchar *)pool, pool_off, slots, slots_off, n_kv_heads, D, bits_k, bits_v, form, \
        first_page, type_k, type_v, n_skip

// K or V of one head of a page.
typedef struct kvcl_rows {
    __global uchar *raw;         // the head's first value
    __global const float *means; // [D]; unused by channels
    __global uint *words;
    __global half *scales; // [n_rows]; channels: means behind them
    uint of_v, D, page, type, bits, n_rows, n;
    uint across; // words run across rows, whose values are neighbours
    uint log_b;  // log2 of the transform's blocks; 0: channels
    uint n_skip; // values at a row's beginning that the encoder's sums leave out
} kvcl_rows;

// Those of work-group `group`; of_v: V.
static kvcl_rows kvcl_rows_of(uint group, uint of_v, KVCL_QUANT_PARAMS(__global, __global))
{
    uint i = group / n_kv_heads, hk = kvcl_rest(group, i, n_kv_heads);
    ulong at = ((ulong)pages[pages_off + i] * n_kv_heads + hk) * (ulong)(D * KVCL_TOKENS);
    kvcl_quant_head head =
        kvcl_quant_at(form, bits_k, bits_v, n_kv_heads, D, (ulong)slots[slots_off + i], hk);
    uint channels = !of_v && form == KVCL_QUANT_CHANNEL;
    kvcl_rows r;
    r.of_v = of_v;
    r.D = D;
    r.page = first_page + i;
    r.type = of_v ? type_v : type_k;
    r.raw = (of_v ? v + v_off : k + k_off) + at * (r.type == KVCL_F16 ? 2 : 4);
    r.means =
        means + (channels ? 0 : means_off + kvcl_quant_mean_at(r.page, of_v, n_kv_heads, hk, D));
    r.words = (__global uint *)(pool + pool_off + (of_v ? head.v_words : head.k_words));
    r.scales = (__global half *)(pool + pool_off + (of_v ? head.v_scales : head.k_scales));
    r.bits = of_v ? bits_v : bits_k;
    r.n_rows = channels ? D : KVCL_TOKENS;
    r.n = channels ? KVCL_TOKENS : D;
    r.across = of_v || channels;
    r.log_b = channels ? 0 : kvcl_head_log2(D);
    r.n_skip = channels && r.page == 0 ? n_skip : 0;
    return r;
}

static float kvcl_row_value(const kvcl_rows *r, uint row, uint i)
{
    uint at = r->across ? row * r->n + i : row + i * KVCL_TOKENS;
    return r->type == KVCL_F16 ? vload_half(at, (__global const half *)r->raw)
                               : ((__global const float *)r->raw)[at];
}

// How the keys of a page are turned by their positions.
typedef struct kvcl_turning {
    __global const float *table; // the page's first row
    uint n_rot;                  // 0: they are not
    uint pairing;
} kvcl_turning;

static kvcl_turning kvcl_turning_of(const kvcl_rows *r, __global const float *table, uint n_rot,
                                    uint pairing)
{
    kvcl_turning t = {table, r->of_v ? 0 : n_rot, pairing};
    if (t.n_rot != 0)
        t.table += (ulong)r->page * KVCL_TOKENS * n_rot;
    return t;
}

// ---- rules of the encoder ----------------------------------------------------------------------

static uint kvcl_is_bad(float x) { return (as_int(x) & 0x7f800000) == 0x7f800000; }

// Threshold j = 1 .. 2^bits - 1, between the levels j - 1 and j.
static float kvcl_threshold(uint bits, uint j)
{
    return 0.5f * (float)(kvcl_quant_level(bits, j) + kvcl_quant_level(bits, j - 1));
}

// What a code is made of: clipped, which moves no value across a threshold.
static float kvcl_clip(float v)
{
    v = v > -127.0f ? v : -127.0f;
    return v < 127.0f ? v : 127.0f;
}

// True when a row's step makes its largest value 127, whatever the values' distribution.
static uint kvcl_by_range(const kvcl_rows *r) { return r->bits == 8 || r->log_b == 0; }

static uint kvcl_range_scale(float top) { return kvcl_half_store(top * 0.00787401572f); }

// What the codes of a row need: a value times this is compared with thresholds, or rounded.
// square: mean square; top: largest magnitude (each where it is needed).
static float kvcl_row_inv(const kvcl_rows *r, float square, float top)
{
    if (!kvcl_by_range(r))
        return square < 1e-30f ? 0.0f
                               : kvcl_quant_unit(r->bits) * kvcl_recip(square * kvcl_rsqrt(square));
    float step = kvcl_half_load(kvcl_range_scale(top));
    return step > 0.0f ? kvcl_recip(step) : 0.0f;
}

// A row's scale, as a half's bits; e = sum z^2, zc = sum z c, cc = sum c^2.
static uint kvcl_row_scale(const kvcl_rows *r, float e, float square, float top, float zc, float cc)
{
    if (kvcl_by_range(r))
        return kvcl_range_scale(top);
    float divisor = r->of_v ? zc : cc, g = divisor < 1e-30f ? 0.0f : e * kvcl_recip(divisor);
    if (!r->of_v)
        g = g < 1e-30f ? 0.0f : g * kvcl_rsqrt(g);
    return square < 1e-30f ? 0 : kvcl_half_store(g);
}

static uint kvcl_bad_half(uint h) { return (h & 0x7c00u) == 0x7c00u; }

// ---- Hadamard transforms -----------------------------------------------------------------------

// Sum and difference: a Hadamard butterfly of values of a type.
#define KVCL_BUTTERFLY(type, a, b) \
    {                              \
        type t_ = (a) - (b);       \
        (a) = (a) + (b);           \
        (b) = t_;                  \
    }

#if KVCL_VECTOR_SHAPE

// One Hadamard stage inside a vector: `swapped` is v with the partners exchanged, `sign` has the
// sign bit in the upper one of each pair.
static float16 kvcl_stage_within(float16 v, float16 swapped, int16 sign)
{
    return as_float16(as_int16(v) ^ sign) + swapped;
}

// Stages 1, 2, 4, 8 inside a vector.
static float16 kvcl_stages_within(float16 v)
{
    const int S = -2147483647 - 1;
    v = kvcl_stage_within(v, v.s1032547698badcfe,
                          (int16)(0, S, 0, S, 0, S, 0, S, 0, S, 0, S, 0, S, 0, S));
    v = kvcl_stage_within(v, v.s23016745ab89efcd,
                          (int16)(0, 0, S, S, 0, 0, S, S, 0, 0, S, S, 0, 0, S, S));
    v = kvcl_stage_within(v, v.s45670123cdef89ab,
                          (int16)(0, 0, 0, 0, S, S, S, S, 0, 0, 0, 0, S, S, S, S));
    return kvcl_stage_within(v, v.s89abcdef01234567,
                             (int16)(0, 0, 0, 0, 0, 0, 0, 0, S, S, S, S, S, S, S, S));
}

// log2(R) stages over R vectors that are `pitch` apart; ADD and SUB: of two of them.
#define KVCL_UNROLL _Pragma("unroll") // PoCL leaves v in memory otherwise
#define KVCL_DEFINE_MIX(name, R, type, ADD, SUB)                          \
    static void name##_mix_##R(type *z, uint pitch)                       \
    {                                                                     \
        type v[R];                                                        \
        KVCL_UNROLL for (uint i = 0; i < R; i++) { v[i] = z[i * pitch]; } \
        KVCL_UNROLL for (uint h = 1; h < R; h *= 2)                       \
        {                                                                 \
            KVCL_UNROLL for (uint i = 0; i < R; i++)                      \
            {                                                             \
                if ((i & h) == 0) {                                       \
                    type less = SUB(v[i], v[i + h]);                      \
                    v[i] = ADD(v[i], v[i + h]);                           \
                    v[i + h] = less;                                      \
                }                                                         \
            }                                                             \
        }                                                                 \
        KVCL_UNROLL for (uint i = 0; i < R; i++) { z[i * pitch] = v[i]; } \
    }

// Transform across n vectors in blocks of 2^log_b.
#define KVCL_DEFINE_FWHT(name, type, ADD, SUB)                \
    KVCL_DEFINE_MIX(name, 2, type, ADD, SUB)                  \
    KVCL_DEFINE_MIX(name, 4, type, ADD, SUB)                  \
    KVCL_DEFINE_MIX(name, 8, type, ADD, SUB)                  \
    static void name(type *z, uint n, uint log_b)             \
    {                                                         \
        for (uint s = 0; s < log_b; s += 3) {                 \
            uint left = min(3u, log_b - s);                   \
            for (uint at = 0; at < n; at += 1u << (s + left)) \
                for (uint k = at; k < at + (1u << s); k++) {  \
                    if (left == 3)                            \
                        name##_mix_8(z + k, 1u << s);         \
                    else if (left == 2)                       \
                        name##_mix_4(z + k, 1u << s);         \
                    else                                      \
                        name##_mix_2(z + k, 1u << s);         \
                }                                             \
        }                                                     \
    }

#define KVCL_PLUS(a, b) ((a) + (b))
#define KVCL_MINUS(a, b) ((a) - (b))
KVCL_DEFINE_FWHT(kvcl_fwht_across, float16, KVCL_PLUS, KVCL_MINUS)

#else

// Stages of bits from .. to - 1 of the index into x.
static void kvcl_stages8(float *x, uint from, uint to)
{
#pragma unroll
    for (uint b = 0; b < 3; b++)
        if (b >= from && b < to) {
#pragma unroll
            for (uint i = 0; i < 8; i++)
                if ((i >> b & 1) == 0)
                    KVCL_BUTTERFLY(float, x[i], x[i + (1u << b)])
        }
}

// Stages 8 .. 2^(log_b - 1) of `rows` (a power of two) rows in local memory, n values in blocks of
// 2^log_b >= 16, `pitch` apart: by all items of a group, each eight values at a time.
static void kvcl_fwht_rows(__local float *z, uint log_rows, uint n, uint log_b, uint pitch)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    for (uint s = 3; s < log_b; s += 3) {
        uint to = min(s + 3, log_b), low = min(s, log_b - 3); // bits low .. low + 2 in registers
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint u = lid; u < n / 8 << log_rows; u += items) {
            uint k = u >> log_rows;
            __local float *p = z + (u & ((1u << log_rows) - 1)) * pitch + (k >> low << (low + 3)) +
                               (k & ((1u << low) - 1));
            float x[8];
#pragma unroll
            for (uint i = 0; i < 8; i++)
                x[i] = p[i << low];
            kvcl_stages8(x, s - low, to - low);
#pragma unroll
            for (uint i = 0; i < 8; i++)
                p[i << low] = x[i];
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

#endif

// ---- attention over quant pages ----------------------------------------------------------------

#define KVCL_ATTN_QUANT_PARAMS                                                                    \
    __global const float *q, ulong q_off, __global const int *pages, ulong pages_off,             \
        __global float *ml, ulong ml_off, __global float *o, ulong o_off,                         \
        __global const uchar *pool, ulong pool_off, __global const float *means, ulong means_off, \
        __global const float *table, ulong table_off, uint n, uint q_stride, uint pos0,           \
        uint n_q_heads, uint n_kv_heads, uint D, uint begin, uint end, uint first_part,           \
        uint n_parts, float scale, uint n_rot, uint pairing

#define KVCL_ROPE_HALVES 2 // of kvcl_rope_pairing

// One KV head's parts of a page; CHANNEL: k_scales + D are the means.
typedef struct kvcl_head {
    __global const uint *k, *v;
    __global const half *k_scales, *v_scales;
} kvcl_head;

static kvcl_head kvcl_head_of(uint form, uint bits_k, uint bits_v, __global const uchar *pool,
                              uint slot, uint hk, uint n_kv_heads, uint D)
{
    kvcl_quant_head at = kvcl_quant_at(form, bits_k, bits_v, n_kv_heads, D, slot, hk);
    kvcl_head h = {
        (__global const uint *)(pool + at.k_words), (__global const uint *)(pool + at.v_words),
        (__global const half *)(pool + at.k_scales), (__global const half *)(pool + at.v_scales)};
    return h;
}

// Block and KV head of group `group` of a region: its pages first .. last of the sequence.
typedef struct kvcl_block {
    uint hk, part, first, last;
} kvcl_block;

static kvcl_block kvcl_block_of(uint group, uint n_kv_heads, uint begin, uint end, uint first_part)
{
    uint i = group / n_kv_heads, first = begin / KVCL_TOKENS, at = first / KVCL_BLOCK + i;
    kvcl_block b = {kvcl_rest(group, i, n_kv_heads), first_part + i, max(first, at * KVCL_BLOCK),
                    min((end - 1) / KVCL_TOKENS, at * KVCL_BLOCK + KVCL_BLOCK - 1)};
    return b;
}

// The tokens x .. y - 1 of a page that the query at `pos` sees; none when x >= y.
static int2 kvcl_seen_of(uint page, uint pos, uint begin, uint end)
{
    int first = (int)(page * KVCL_TOKENS);
    return (int2)(max((int)begin, first) - first,
                  min(min((int)end, (int)pos + 1) - first, KVCL_TOKENS));
}

// Codes 4 i .. 4 i + 3 along and j across of one head's codes, a byte each.
static uint kvcl_codes4(uint bits, __global const uint *words, uint across, uint along, uint i,
                        uint j)
{
    if (bits == 8)
        return words[i * across + j];
    if (bits == 4)
        return words[i / 2 * across + j] >> i % 2 * 4 & 0x0f0f0f0fu;
    if (bits == 1)
        return words[i / 8 * across + j] >> i % 8 & 0x01010101u;
    uint low = words[i / 4 * across + j] >> i % 4 * 2 & 0x03030303u;
    if (bits == 2)
        return low;
    words += kvcl_plane_begin(1, across, along);
    return low | (words[i / 8 * across + j] >> i % 8 & 0x01010101u) << 2;
}

// A pair of values turned by an angle's (cos, sin), or back.
static float2 kvcl_turn(float2 v, float2 cs)
{
    return (float2)(fma(v.x, cs.x, -(v.y * cs.y)), fma(v.y, cs.x, v.x * cs.y));
}

static float2 kvcl_turn_back(float2 v, float2 cs)
{
    return (float2)(fma(v.x, cs.x, v.y * cs.y), fma(v.y, cs.x, -(v.x * cs.y)));
}

// The pair that dimension d < n_rot belongs to: its first dimension and the distance of the other.
typedef struct kvcl_pair {
    uint i, a, apart;
} kvcl_pair;

static kvcl_pair kvcl_pair_of(uint d, uint n_rot, uint pairing)
{
    uint mid = n_rot / 2, halves = pairing == KVCL_ROPE_HALVES;
    uint i = halves ? (d < mid ? d : d - mid) : d / 2;
    kvcl_pair p = {i, halves ? i : 2 * i, halves ? mid : 1};
    return p;
}
