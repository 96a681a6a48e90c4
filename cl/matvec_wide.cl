// matvec_wide.cl - decode's linear layers on float weights, for GPUs with many units: what
// kvcl_matvec of cl/matvec.cl does, arranged to keep many bytes in flight.  Twin: cpu/matvec.c
//
// KVCL_SPEC: type of the weights (F32, F16, BF16); bit 8: a pair (SwiGLU); bits 9, 10: the norm;
// bit 11: biases; bit 12: GELU; bit 13: a residual; bits 14, 15: matrices; bit 16: teams of 32.
// What a launch does not have it does not pass: every argument costs time on the host. Assumes
// (checked by the host half): cols a multiple of 32 that fits local memory as floats; all matrices
// have cols columns, one type, one part and one output buffer; x and the norm's vectors are aligned
// to 16 bytes; groups of GROUP items. Groups: dimension 0 shares out the rows (counted over all
// matrices) in passes of GROUP / TEAM; dimension 1 is the row of x.  A team of 16 items owns a row,
// item j its lanes 4j .. 4j + 3: one load is 4 weights, a team's loads are 64 neighbours. Weights
// do not depend on the input: each item asks for its first 2 CHUNK loads before the input row is
// read and normalised, and holds them as raw bits meanwhile; from then on one chunk is in flight
// while the other is summed, into the next pass too. local memory: `mem`, laid out as in
// kvcl_matvec_wide; its size in cl_matvec.c

#define TYPE (KVCL_SPEC & 255)
#define PAIR (KVCL_SPEC >> 8 & 1)
#define NORM (KVCL_SPEC >> 9 & 3)
#define BIAS (KVCL_SPEC >> 11 & 1)
#define GELU (KVCL_SPEC >> 12 & 1)
#define RES (KVCL_SPEC >> 13 & 1)
#define SEGS (KVCL_SPEC >> 14 & 3)

#define GROUP 256
#define TEAM (KVCL_SPEC >> 16 & 1 ? 32 : 16)
#define TEAMS (GROUP / TEAM)
#define LANES (64 / TEAM)
#define ROW_PAD 68 // floats from one team's lanes to the next: neighbours on other banks
#define CHUNK 8    // loads of a chunk

// An item's weights of one load as raw bits, and its lanes.
#if LANES == 2
typedef float2 vec;
#else
typedef float4 vec;
#endif
#if LANES == 2 && TYPE != KVCL_F32
typedef uint raw;
#elif LANES == 4 && TYPE == KVCL_F32
typedef uint4 raw;
#else
typedef uint2 raw;
#endif

// Raw bits to f32.  (Through arrays where there is no PTX: a vector made of parts of a shorter one
// is more than Oclgrind's check of uninitialised values takes.)
#if TYPE == KVCL_F32 && LANES == 2
static vec widen(raw r) { return as_float2(r); }
#elif TYPE == KVCL_F32
static vec widen(raw r) { return as_float4(r); }
#elif KVCL_PTX && TYPE == KVCL_F16
#if LANES == 2
static vec widen(raw r) { return kvcl_half_pair(r); }
#else
static vec widen(raw r) { return (float4)(kvcl_half_pair(r.x), kvcl_half_pair(r.y)); }
#endif
#else
static vec widen(raw r)
{
    uint w[LANES / 2];
#if LANES == 2
    w[0] = r;
#else
    vstore2(r, 0, w);
#endif
#if TYPE == KVCL_F16 && LANES == 2
    return vload_half2(0, (const half *)w);
#elif TYPE == KVCL_F16
    return vload_half4(0, (const half *)w);
#else
    float f[LANES];
    for (uint e = 0; e < LANES / 2; e++) {
        f[2 * e] = as_float(w[e] << 16);
        f[2 * e + 1] = as_float(w[e] & 0xffff0000u);
    }
#if LANES == 2
    return vload2(0, f);
#else
    return vload4(0, f);
#endif
#endif
}
#endif

// Loads of chunk c of the row at w (4 weights every 64), as far as it goes.
#define LOAD(buf, w, c)                                \
    _Pragma("unroll") for (uint u = 0; u < CHUNK; u++) \
    {                                                  \
        uint k = ((c)*CHUNK + u) * 64 + j * LANES;     \
        buf[u] = k < cols ? (w)[k / LANES] : (raw)(0); \
    }

#define SUM(acc, buf, c)                                  \
    _Pragma("unroll") for (uint u = 0; u < CHUNK; u++)    \
    {                                                     \
        uint k = ((c)*CHUNK + u) * 64 + j * LANES;        \
        if (k < cols)                                     \
            acc = fma(widen(buf[u]), zv[k / LANES], acc); \
    }

#if NORM
// Weights 4i .. 4i + 3 of the norm, as far as there are any.
static float4 norm_weight(__global const float *nw, uint i, uint cols)
{
    return i * 4 < cols ? ((__global const float4 *)nw)[i] : (float4)(0.0f);
}

// The input row in local memory, normalised; the norm's weights were asked for before the sums.
static void normalise(uint cols, float eps, float inv_n, __global const float *nw,
                      __global const float *nb, float4 g0, float4 g1, __local float *z,
                      __local float *red)
{
    uint k0 = (uint)get_local_id(0) * 4, k1 = k0 + GROUP * 4;
    __local float4 *z4 = (__local float4 *)z;
    float2 stats = kvcl_norm_stats_local(z, cols, NORM, eps, inv_n, red);
    for (uint k = k0; k < cols; k += GROUP * 4) {
        float4 v = z4[k / 4], g = k == k0 ? g0 : k == k1 ? g1 : vload4(0, nw + k);
#if NORM == KVCL_NORM_RMS
        v = (v * stats.y) * g;
#else
        v = fma(fma((float4)(-1.0f), (float4)(stats.x), v) * stats.y, g, vload4(0, nb + k));
#endif
        z4[k / 4] = v;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}
#endif

// The trees of all teams of a group, in item 0 of each.
static float team_sum(vec acc, __local float *lanes, __local float *tops)
{
    uint lid = (uint)get_local_id(0), team = lid / TEAM, j = lid % TEAM;
    *(__local vec *)(lanes + team * ROW_PAD + j * LANES) = acc;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (j < 8)
        tops[team * 8 + j] = kvcl_tree64_top(lanes + team * ROW_PAD, j);
    barrier(CLK_LOCAL_MEM_FENCE);
    return kvcl_tree8(vload8(0, tops + team * 8));
}

// Where row r (counted over all matrices) lies.
#if SEGS == 3
#define ROW_AT(r)                                               \
    ((r) < rows0           ? w0 + (ulong)(r)*row_raws           \
     : (r) < rows0 + rows1 ? w1 + (ulong)((r)-rows0) * row_raws \
                           : w2 + (ulong)((r)-rows0 - rows1) * row_raws)
#define OUT_AT(r)                               \
    ((r) < rows0           ? o0_off + (r)       \
     : (r) < rows0 + rows1 ? o1_off + (r)-rows0 \
                           : o2_off + (r)-rows0 - rows1)
#define BIAS_AT(r)                                  \
    ((r) < rows0           ? b0[b0_off + (r)]       \
     : (r) < rows0 + rows1 ? b1[b1_off + (r)-rows0] \
                           : b2[b2_off + (r)-rows0 - rows1])
#else
#define ROW_AT(r) (w0 + (ulong)(r)*row_raws)
#define OUT_AT(r) (o0_off + (r))
#define BIAS_AT(r) (b0[b0_off + (r)])
#endif

// Of a pair the odd chunks are the second matrix's, else every other one of the only row.
#if PAIR
#define ODD_ROW(r) (w1 + (ulong)(r)*row_raws)
#define ODD_ACC acc1
#define STRIDE 1
#else
#define ODD_ROW(r) ROW_AT(r)
#define ODD_ACC acc0
#define STRIDE 2
#endif

// Arguments that only some launches have.
#if SEGS == 3
#define ARGS_MATS __global const raw *w1, __global const raw *w2, uint rows1,
#define ARGS_OUTS ulong o1_off, ulong o2_off,
#elif SEGS == 2
#define ARGS_MATS __global const raw *w1,
#define ARGS_OUTS
#else
#define ARGS_MATS
#define ARGS_OUTS
#endif
#define ARG_BIAS(b) __global const float *b, ulong b##_off,
#if BIAS && SEGS == 3
#define ARGS_BIAS ARG_BIAS(b0) ARG_BIAS(b1) ARG_BIAS(b2)
#elif BIAS && SEGS == 2
#define ARGS_BIAS ARG_BIAS(b0) ARG_BIAS(b1)
#elif BIAS
#define ARGS_BIAS ARG_BIAS(b0)
#else
#define ARGS_BIAS
#endif
#if NORM == KVCL_NORM_LAYER
#define ARGS_NORM ARG_BIAS(nw) float eps, float inv_n, ARG_BIAS(nb)
#elif NORM
#define ARGS_NORM ARG_BIAS(nw) float eps, float inv_n,
#else
#define ARGS_NORM
#endif
#if RES
#define ARGS_RES ARG_BIAS(res)
#else
#define ARGS_RES
#endif

// Bias, activation and residual of row r; y1: of the pair's second matrix.
#if PAIR && BIAS
#define FINISH(y, y1, r) kvcl_zero(kvcl_silu((y) + BIAS_AT(r)) * ((y1) + b1[b1_off + (r)]))
#elif PAIR
#define FINISH(y, y1, r) kvcl_zero(kvcl_silu(y) * (y1))
#elif GELU && BIAS
#define FINISH(y, y1, r) kvcl_gelu((y) + BIAS_AT(r))
#elif GELU
#define FINISH(y, y1, r) kvcl_gelu(y)
#elif BIAS
#define FINISH(y, y1, r) ((y) + BIAS_AT(r))
#else
#define FINISH(y, y1, r) (y)
#endif

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
kvcl_matvec_wide(__global const raw *w0, ARGS_MATS uint rows0, uint rows, __global float *out,
                 ulong o0_off, ARGS_OUTS ARGS_BIAS ARGS_NORM ARGS_RES __global const float *x,
                 ulong x_off, uint cols, uint x_stride, uint out_stride, __local float4 *mem4)
{
    uint lid = (uint)get_local_id(0), j = lid % TEAM, row_raws = cols / LANES;
    uint i = (uint)get_group_id(1), step = (uint)get_num_groups(0) * TEAMS;
    uint first = (uint)get_group_id(0) * TEAMS; // of the pass: the same for all items
    __local float *mem = (__local float *)mem4, *tops = mem + KVCL_RED_FLOATS;
    __local float *lanes = tops + 16 * TEAMS;
    __local float *z = lanes + 2 * ROW_PAD * TEAMS;
    __local float4 *z4 = (__local float4 *)z; // what stands before is a multiple of 4 floats
    __local vec *zv = (__local vec *)z;
    uint n_chunks = (cols + CHUNK * 64 - 1) / (CHUNK * 64);
    raw even[CHUNK], odd[CHUNK];
    uint r = min(first + lid / TEAM, rows - 1); // idle teams read the last row and store nothing
    __global const raw *p0 = ROW_AT(r);
    __global const raw *p1 = ODD_ROW(r);
    LOAD(even, p0, 0)
    LOAD(odd, p1, STRIDE - 1)
#if NORM
    nw += nw_off;
    float4 g0 = norm_weight(nw, lid, cols), g1 = norm_weight(nw, lid + GROUP, cols);
#endif
    x += x_off + (ulong)i * x_stride;
#pragma unroll 4
    for (uint k = lid; k < cols / 4; k += GROUP)
        z4[k] = ((__global const float4 *)x)[k];
    barrier(CLK_LOCAL_MEM_FENCE);
#if NORM == KVCL_NORM_LAYER
    normalise(cols, eps, inv_n, nw, nb + nb_off, g0, g1, z, mem);
#elif NORM
    normalise(cols, eps, inv_n, nw, nw, g0, g1, z, mem);
#endif
    for (; first < rows; first += step) {
        vec acc0 = (vec)(0.0f), acc1 = (vec)(0.0f);
        uint mine = first + lid / TEAM < rows, at = r;
        for (uint c = 0; c < n_chunks; c += STRIDE) {
            SUM(acc0, even, c)
            LOAD(even, p0, c + STRIDE)
            SUM(ODD_ACC, odd, c + STRIDE - 1)
            LOAD(odd, p1, c + 2 * STRIDE - 1)
        }
        if (first + step < rows) { // the next pass's first loads, before this one's trees
            r = min(first + step + lid / TEAM, rows - 1);
            p0 = ROW_AT(r);
            p1 = ODD_ROW(r);
            LOAD(even, p0, 0)
            LOAD(odd, p1, STRIDE - 1)
        }
        float y = team_sum(acc0, lanes, tops), y1 = 0.0f;
#if PAIR
        y1 = team_sum(acc1, lanes + ROW_PAD * TEAMS, tops + 8 * TEAMS);
#endif
        if (j == 0 && mine) {
            y = FINISH(y, y1, at);
#if RES
            y = res[res_off + (ulong)i * out_stride + at] + y;
#endif
            out[OUT_AT(at) + (ulong)i * out_stride] = y;
        }
    }
}
