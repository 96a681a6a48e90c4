// matvec.cl - decode's linear layers: norm, up to three matrices, bias, activation, residual in one
// launch.  Twin: cpu/matvec.c
//
// KVCL_SPEC: type of the weights, + 256 for a pair (SwiGLU: row r of w0 and of w1 together).
// Assumes (checked by the host half): cols and tile multiples of 32, tile of 256 when smaller than
// cols; all matrices have cols columns, one type and one part.
// Groups: dimension 0 shares out the rows (counted over all matrices), dimension 1 is the row of x.
//
// Lane shape: groups of a multiple of 64 items.  A team of 8 items owns a row; item j holds the 8
// lanes 8j .. 8j + 7, so that its loads are 16 bytes wide: 8 weights of every 64, or, where weights
// are blocks of 32, whole blocks (block b is the 8 groups 8b ..: item b mod 8).
//   local memory: `mem`, 72 + 9 * items floats (18 * items for a pair), then tile floats, then,
//   for blocks, tile / 4 + tile / 32 more
// Vector shape: groups of one item, which does rows_per_group rows one after the other, 16 lanes to
// a vector.
//   local memory: `mem`, tile floats, or tile (a multiple of 64) / 4 words, as many again, then
//   tile / 32 floats
//
// The input row lives in local memory, normalised (and quantised where weights are blocks), a tile
// of `tile` values at a time; a single tile is prepared once per group.

#define TYPE (KVCL_SPEC & 255)
#define PAIR (KVCL_SPEC >> 8)
#define BLOCKS (TYPE == KVCL_Q8_0 || TYPE == KVCL_Q5_0 || TYPE == KVCL_Q4_0)

#define ACT_SWIGLU 1
#define ACT_GELU 2
#define ACT_GATED 3 // out = silu(out) * y: the second half of a pair whose types differ
#define HAS_BIAS(s) (8u << (s))
#define HAS_RES 64u // flags: bits 0 .. 2 the activation, then these

#define MATVEC_PARAMS                                                                             \
    __global const uchar *w0, __global const uchar *w1, __global const uchar *w2, uint rows0,     \
        uint rows1, uint rows2, __global const float *b0, ulong b0_off, __global const float *b1, \
        ulong b1_off, __global const float *b2, ulong b2_off, __global float *o0, ulong o0_off,   \
        __global float *o1, ulong o1_off, __global float *o2, ulong o2_off, uint stride0,         \
        uint stride1, uint stride2, __global const float *x, ulong x_off, uint x_stride,          \
        uint cols, uint kind, float eps, float inv_n, __global const float *nw, ulong nw_off,     \
        __global const float *nb, ulong nb_off, __global const float *res, ulong res_off,         \
        uint flags, uint tile, uint rows_per_group, __local float8 *mem8 // aligned for blocks

// A matrix of a launch, and where its results go.
typedef struct segment {
    __global const uchar *w;
    __global const float *bias;
    __global float *out;
    uint rows, has_bias;
} segment;

// Chooses the matrix that row *r (counted over all) is in; *r becomes its row there.
#define PICK_SEGMENT(seg, r, i)                                                                    \
    segment seg = {w0, b0 + b0_off, o0 + o0_off + (ulong)(i)*stride0, rows0, flags & HAS_BIAS(0)}; \
    if (!PAIR && (r) >= rows0) {                                                                   \
        (r) -= rows0;                                                                              \
        segment one = {w1, b1 + b1_off, o1 + o1_off + (ulong)(i)*stride1, rows1,                   \
                       flags & HAS_BIAS(1)};                                                       \
        segment two = {w2, b2 + b2_off, o2 + o2_off + (ulong)(i)*stride2, rows2,                   \
                       flags & HAS_BIAS(2)};                                                       \
        uint second = (r) >= rows1;                                                                \
        (r) -= second ? rows1 : 0;                                                                 \
        seg = second ? two : one;                                                                  \
    }

// Activation and residual of row r, then the store.  y1: the second of a pair.
static void finish(uint flags, __global float *out, __global const float *res, uint r, float y0,
                   float y1)
{
    uint act = flags & 7;
    float y = y0;
    if (PAIR)
        y = kvcl_zero(kvcl_silu(y0) * y1);
    else if (act == ACT_GELU)
        y = kvcl_gelu(y0);
    else if (act == ACT_GATED)
        y = kvcl_zero(kvcl_silu(out[r]) * y0);
    out[r] = flags & HAS_RES ? res[r] + y : y;
}

#if KVCL_VECTOR_SHAPE

#if BLOCKS
// What the smallest code of each byte adds up to, times the input's codes, is taken off the sums.
#define SMALLEST (TYPE == KVCL_Q5_0 ? 0x10101010u : TYPE == KVCL_Q4_0 ? 0x08080808u : 0u)

// A tile of the input: codes, four to a word, what a word's sums have too much, blocks' scales.
typedef struct input {
    __local uint *z;
    __local int *less;
    __local float *scales;
} input;

static input input_at(__local float8 *mem, uint tile)
{
    uint words = (tile + 63) / 64 * 16;
    __local uint *z = (__local uint *)mem;
    input in = {z, (__local int *)z + words, (__local float *)z + 2 * words};
    return in;
}

// Codes of 16 values.
static uint4 quant16(float16 v, float inv)
{
    int16 bits = as_int16(fma(v, (float16)(inv), (float16)(KVCL_ROUND)));
    return as_uint4(convert_char16(bits - (int16)(KVCL_ROUND_BITS)));
}

// Tile of the input that starts at value k0: normalised and quantised.
static void prepare(__global const float *x, uint k0, uint n, uint kind, float2 stats,
                    __global const float *nw, __global const float *nb, input in)
{
    for (uint k = 0; k < n; k += 32) {
        float16 a = kvcl_norm16(kind, x, k0 + k, stats, nw, nb);
        float16 b = kvcl_norm16(kind, x, k0 + k + 16, stats, nw, nb);
        float16 m16 = fmax(fabs(a), fabs(b));
        float8 m8 = fmax(m16.lo, m16.hi);
        float4 m4 = fmax(m8.lo, m8.hi);
        float2 m2 = fmax(m4.lo, m4.hi);
        float amax = fmax(m2.x, m2.y), inv = kvcl_quant_inv(amax);
        uint8 z = (uint8)(quant16(a, inv), quant16(b, inv));
        in.scales[k / 32] = kvcl_quant_scale(amax);
        vstore8(z, k / 32, in.z);
        if (SMALLEST)
            vstore8(kvcl_dot4_small(kvcl_words(SMALLEST), (uint16)(z, z)).lo, k / 32, in.less);
    }
}
#else
typedef __local float *input;

static input input_at(__local float8 *mem, uint tile)
{
    (void)tile;
    return (input)mem;
}

// Tile of the input that starts at value k0, normalised.
static void prepare(__global const float *x, uint k0, uint n, uint kind, float2 stats,
                    __global const float *nw, __global const float *nb, input in)
{
    for (uint k = 0; k < n; k += 16)
        vstore16(kvcl_norm16(kind, x, k0 + k, stats, nw, nb), 0, in + k);
}
#endif

#if BLOCKS
// What two blocks' codes are above the smallest code of their type, in order; Q8_0: the codes.
static uint16 codes64(__global const uchar *w, ulong block, ulong next, __global const uint *h)
{
#if TYPE == KVCL_Q8_0
    (void)h;
    return (uint16)(vload8(block, (__global const uint *)w),
                    vload8(next, (__global const uint *)w));
#else
    uint4 a = vload4(block, (__global const uint *)w), b = vload4(next, (__global const uint *)w);
    uint16 n = (uint16)(a, a >> 4, b, b >> 4) & 0x0f0f0f0fu;
#if TYPE == KVCL_Q5_0
    n |= kvcl_fifths(h[block], h[next]);
#else
    (void)h;
#endif
    return n;
#endif
}

// Sums over the 16 groups of 4 codes of two blocks and the input's; less: SMALLEST's share.
static int16 group_sums(uint16 codes, uint16 z, int16 less)
{
    return SMALLEST ? kvcl_dot4_small(codes, z) - less : kvcl_dot4(codes, z);
}

// 16 lanes more, from two blocks whose scales (weights' times input's) are s0 and s1.
#define UNIT(acc, u, s0, s1)                                                                      \
    acc =                                                                                         \
        fma((float16)((float8)(s0), (float8)(s1)),                                                \
            convert_float16(group_sums(codes64(w, block + 2 * u, block + 2 * u + 1, h),           \
                                       vload16(k / 64 + u, in.z), vload16(k / 64 + u, in.less))), \
            acc);

// Adds one tile of a row (n weights from column k0 on) to the lanes.
static void dot_tile(__global const uchar *w, uint rows, uint cols, uint r, uint k0, uint n,
                     input in, float16 *acc)
{
    __global const uint *h = (__global const uint *)(w + kvcl_plane_h(rows, cols));
    __global const half *d = (__global const half *)(w + kvcl_plane_d(TYPE, rows, cols));
    ulong block = ((ulong)r * cols + k0) / 32;
    float16 a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    uint k = 0;
    for (; k + 256 <= n; k += 256, block += 8) {
        float8 s = vload_half8(0, d + block) * vload8(0, in.scales + k / 32);
        UNIT(a0, 0, s.s0, s.s1)
        UNIT(a1, 1, s.s2, s.s3)
        UNIT(a2, 2, s.s4, s.s5)
        UNIT(a3, 3, s.s6, s.s7)
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
    for (; k < n; k += 64, block += 2) {
        uint next = k + 64 <= n; // else the second block is not there: its scale is 0
        uint i = k / 32, i1 = i + next;
        float s0 = vload_half(block, d) * in.scales[i];
        float s1 = next ? vload_half(block + 1, d) * in.scales[i1] : 0.0f;
        int16 sums = group_sums(codes64(w, block, block + next, h),
                                (uint16)(vload8(i, in.z), vload8(i1, in.z)),
                                (int16)(vload8(i, in.less), vload8(i1, in.less)));
        float16 s = (float16)((float8)(s0), (float8)(s1));
        acc[k / 64 % 4] = fma(s, convert_float16(sums), acc[k / 64 % 4]);
    }
}
#else

static float16 weights16(__global const uchar *w, ulong at)
{
#if TYPE == KVCL_F32
    return vload16(0, (__global const float *)w + at);
#elif TYPE == KVCL_F16
    return vload_half16(0, (__global const half *)w + at);
#else
    return as_float16(convert_uint16(vload16(0, (__global const ushort *)w + at)) << 16);
#endif
}

static void dot_tile(__global const uchar *w, uint rows, uint cols, uint r, uint k0, uint n,
                     input z, float16 *acc)
{
    (void)rows;
    ulong at = (ulong)r * cols + k0;
    float16 a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    uint k = 0;
    for (; k + 64 <= n; k += 64, at += 64) {
        a0 = fma(weights16(w, at), vload16(0, z + k), a0);
        a1 = fma(weights16(w, at + 16), vload16(1, z + k), a1);
        a2 = fma(weights16(w, at + 32), vload16(2, z + k), a2);
        a3 = fma(weights16(w, at + 48), vload16(3, z + k), a3);
    }
    if (k < n) {
        a0 = fma(weights16(w, at), vload16(0, z + k), a0);
        a1 = fma(weights16(w, at + 16), vload16(1, z + k), a1);
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}
#endif

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void kvcl_matvec_vec(MATVEC_PARAMS)
{
    uint i = (uint)get_group_id(1), all = rows0 + (PAIR ? 0 : rows1 + rows2);
    uint first = (uint)get_group_id(0) * rows_per_group, last = min(all, first + rows_per_group);
    x += x_off + (ulong)i * x_stride;
    nw += nw_off;
    nb += nb_off;
    input in = input_at(mem8, tile);
    float2 stats = (float2)(0.0f);
    if (kind != KVCL_NORM_NONE)
        stats = kvcl_norm_stats_vec(x, cols, kind, eps, inv_n);
    if (cols <= tile)
        prepare(x, 0, cols, kind, stats, nw, nb, in);
    for (uint row = first; row < last; row++) {
        uint r = row;
        PICK_SEGMENT(seg, r, i)
        float16 acc[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        for (uint k0 = 0; k0 < cols; k0 += tile) {
            uint n = min(tile, cols - k0);
            if (cols > tile)
                prepare(x, k0, n, kind, stats, nw, nb, in);
            dot_tile(seg.w, seg.rows, cols, r, k0, n, in, acc);
            if (PAIR)
                dot_tile(w1, rows1, cols, r, k0, n, in, acc + 4);
        }
        float y0 = kvcl_tree64_vec(acc[0], acc[1], acc[2], acc[3]), y1 = 0.0f;
        y0 = seg.has_bias ? y0 + seg.bias[r] : y0;
        if (PAIR) {
            y1 = kvcl_tree64_vec(acc[4], acc[5], acc[6], acc[7]);
            y1 = flags & HAS_BIAS(1) ? y1 + b1[b1_off + r] : y1;
        }
        finish(flags, seg.out, res + res_off + (ulong)i * stride0, r, y0, y1);
    }
}

#endif

#define TEAM 8
#define LANES 8 // of an item
#define SUMS (1 + PAIR)

#if BLOCKS

#if KVCL_PTX
static int dot4(uint a, uint b, int c)
{
    int r;
    __asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
#else
static int dot4(uint a, uint b, int c)
{
    char4 p = as_char4(a), q = as_char4(b);
    return c + p.s0 * q.s0 + p.s1 * q.s1 + p.s2 * q.s2 + p.s3 * q.s3;
}
#endif

static int8 dot_words(uint8 w, uint8 z)
{
    return (int8)(dot4(w.s0, z.s0, 0), dot4(w.s1, z.s1, 0), dot4(w.s2, z.s2, 0),
                  dot4(w.s3, z.s3, 0), dot4(w.s4, z.s4, 0), dot4(w.s5, z.s5, 0),
                  dot4(w.s6, z.s6, 0), dot4(w.s7, z.s7, 0));
}

// The 32 codes of a block as signed bytes, 4 to a word.
static uint8 block_words(__global const uchar *w, ulong block, __global const uint *h)
{
#if TYPE == KVCL_Q8_0
    __global const uint4 *q = (__global const uint4 *)(w + block * 32);
    return (uint8)(q[0], q[1]);
#else
    uint4 q = ((__global const uint4 *)w)[block];
    uint8 n = (uint8)(q & 0x0f0f0f0fu, (q >> 4) & 0x0f0f0f0fu);
#if TYPE == KVCL_Q5_0
    uint f = h[block];
    n |= (uint8)(kvcl_fifth4(f), kvcl_fifth4(f >> 4), kvcl_fifth4(f >> 8), kvcl_fifth4(f >> 12),
                 kvcl_fifth4(f >> 16), kvcl_fifth4(f >> 20), kvcl_fifth4(f >> 24),
                 kvcl_fifth4(f >> 28));
    return (n + 0x70707070u) ^ 0x80808080u;
#else
    return (n + 0x78787878u) ^ 0x80808080u;
#endif
#endif
}

// Adds item j's lanes of one tile of a row.
static float8 dot_lanes(__global const uchar *w, uint rows, uint cols, uint r, uint k0, uint n,
                        uint j, __local const float *z, float8 acc)
{
    __global const uint *h = (__global const uint *)(w + kvcl_plane_h(rows, cols));
    __global const half *d = (__global const half *)(w + kvcl_plane_d(TYPE, rows, cols));
    __local const uint8 *zq = (__local const uint8 *)(z + n);
    __local const float *zd = z + n + n / 4;
    ulong block0 = ((ulong)r * cols + k0) / 32;
    for (uint b = j; b < n / 32; b += TEAM) {
        int8 isum = dot_words(block_words(w, block0 + b, h), zq[b]);
        float s = vload_half(block0 + b, d) * zd[b];
        acc = fma((float8)(s), convert_float8(isum), acc);
    }
    return acc;
}

// Quantises the tile of n values at z, in place: codes to z, scales behind them.  An item does a
// block; it starts at a word of its own so that neighbours use different banks.
static void quantise(__local float *z, uint n, __local float *codes)
{
    uint items = (uint)get_local_size(0);
    __local uint *zq = (__local uint *)codes;
    for (uint b = (uint)get_local_id(0); b < n / 32; b += items) {
        __local const float4 *x = (__local const float4 *)z + b * 8;
        float4 m = (float4)(0.0f);
        for (uint g = 0; g < 8; g++)
            m = fmax(m, fabs(x[(g + b) & 7]));
        float amax = fmax(fmax(m.x, m.y), fmax(m.z, m.w)), inv = kvcl_quant_inv(amax);
        codes[n / 4 + b] = kvcl_quant_scale(amax);
        for (uint g = 0; g < 8; g++) {
            uint at = (g + b) & 7;
            float4 t = fma(x[at], (float4)(inv), (float4)(KVCL_ROUND));
            zq[b * 8 + at] = as_uint(convert_char4(as_int4(t) - (int4)(KVCL_ROUND_BITS)));
        }
    }
}
#else

static float8 dot_lanes(__global const uchar *w, uint rows, uint cols, uint r, uint k0, uint n,
                        uint j, __local const float *z, float8 acc)
{
    ulong at = (ulong)r * cols + k0;
#pragma unroll 4
    for (uint k = j * LANES; k < n; k += TEAM * LANES)
        acc = fma(kvcl_weight8(TYPE, w, rows, cols, at + k), vload8(0, z + k), acc);
    return acc;
}
#endif

// Tile of the input from value k0 on into local memory, normalised, and quantised for blocks.
// All items of the group must come here together.
static void prepare_lanes(__global const float *x, uint k0, uint n, uint kind, float2 stats,
                          __global const float *nw, __global const float *nb, __local float *z)
{
    uint items = (uint)get_local_size(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint k = (uint)get_local_id(0); k < n; k += items) {
        float t = x[k0 + k];
        if (kind != KVCL_NORM_NONE)
            t = kvcl_norm_value(kind, t, stats, nw[k0 + k],
                                kind == KVCL_NORM_LAYER ? nb[k0 + k] : 0.0f);
        z[k] = t;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#if BLOCKS
    quantise(z, n, z + n);
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
}

// The trees of all teams of a group: lanes of the items' rows to sums, in item 0 of each team.
static float team_sum(float8 acc, __local float *lanes, __local float *tops)
{
    uint lid = (uint)get_local_id(0), j = lid % TEAM;
    vstore8(acc, lid, lanes);
    barrier(CLK_LOCAL_MEM_FENCE);
    tops[lid] = kvcl_tree64_top(lanes + (lid - j) * LANES, j);
    barrier(CLK_LOCAL_MEM_FENCE);
    return kvcl_tree8(vload8(0, tops + (lid - j)));
}

__kernel void kvcl_matvec(MATVEC_PARAMS)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), j = lid % TEAM;
    uint i = (uint)get_group_id(1), all = rows0 + (PAIR ? 0 : rows1 + rows2);
    uint first = (uint)get_group_id(0) * rows_per_group, last = min(all, first + rows_per_group);
    __local float *mem = (__local float *)mem8, *tops = mem + KVCL_RED_FLOATS,
                  *lanes = tops + SUMS * items;
    __local float *z = lanes + SUMS * LANES * items;
    x += x_off + (ulong)i * x_stride;
    nw += nw_off;
    nb += nb_off;
    float2 stats = kvcl_norm_stats_global(x, cols, kind, eps, inv_n, mem);
    for (uint row0 = first; row0 < last; row0 += items / TEAM) { // uniform: barriers inside
        uint r = row0 + lid / TEAM, mine = r < last;
        r = mine ? r : first; // idle teams read a row that is there and store nothing
        PICK_SEGMENT(seg, r, i)
        float8 acc0 = (float8)(0.0f), acc1 = (float8)(0.0f);
        for (uint k0 = 0; k0 < cols; k0 += tile) {
            uint n = min(tile, cols - k0);
            for (uint todo = cols > tile || row0 == first; todo; todo = 0)
                prepare_lanes(x, k0, n, kind, stats, nw, nb, z);
            acc0 = dot_lanes(seg.w, seg.rows, cols, r, k0, n, j, z, acc0);
            if (PAIR)
                acc1 = dot_lanes(w1, rows1, cols, r, k0, n, j, z, acc1);
        }
        float y0 = team_sum(acc0, lanes, tops), y1 = 0.0f;
        if (PAIR)
            y1 = team_sum(acc1, lanes + 8 * items, tops + items);
        if (j == 0 && mine) {
            y0 = seg.has_bias ? y0 + seg.bias[r] : y0;
            if (PAIR)
                y1 = flags & HAS_BIAS(1) ? y1 + b1[b1_off + r] : y1;
            finish(flags, seg.out, res + res_off + (ulong)i * stride0, r, y0, y1);
        }
    }
}
