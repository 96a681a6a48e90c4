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
#define KVCL_SPLAT_I(v) ((int16)(v))
KVCL_DEFINE_MATH(float16, int16, 16, as_int16, as_float16, KVCL_SPLAT_F, KVCL_SPLAT_I)
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
