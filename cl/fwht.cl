// fwht.cl - Walsh-Hadamard transform of rows.  Twin: cpu/fwht.c
//
// Lane shape: KVCL_SPEC is log2 of the tile's elements, 12 or 13.
// kvcl_fwht: one group per tile: whole rows of at most a tile, or a tile-long part of a longer row,
// which then lacks its stages h >= tile.  Stages 1 and 2 happen in the vectors that come from
// memory; then 16 elements per unit of work stand in registers for the four stages whose bits of
// the index differ within them: bits 2 .. 5, 6 .. 9, and the tile's top four (those of them that
// are left).  Element i lies at i + 4 (i / 64) of local memory: no step has bank conflicts, vectors
// stay aligned.
//   local memory: tile * 17/16 floats = 17,408 or 34,816 bytes
// kvcl_fwht_rest: the stages h >= tile of rows of 2, 4, 8 or 16 tiles: one item per row and column
// of four elements.
// Vector shape: one work-item per `n_rows` rows; `out` is the memory between passes.

#define FWHT_PARAMS                                                                             \
    __global const float *x, ulong x_off, __global float *out, ulong out_off, uint n, uint dim, \
        uint stride, float factor

#if KVCL_VECTOR_SHAPE

// log2(R) stages over R vectors that are `pitch` apart; before them the stages inside the vectors,
// behind them the factor.
#define DEFINE_PASS(R)                                                                          \
    static void pass_##R(__global const float *x, __global float *out, uint pitch, uint within, \
                         uint last, float factor)                                               \
    {                                                                                           \
        float16 v[R];                                                                           \
        KVCL_UNROLL for (uint i = 0; i < R; i++) { v[i] = vload16(0, x + i * pitch); }          \
        if (within) {                                                                           \
            KVCL_UNROLL for (uint i = 0; i < R; i++) { v[i] = kvcl_stages_within(v[i]); }       \
        }                                                                                       \
        KVCL_UNROLL for (uint h = 1; h < R; h *= 2)                                             \
        {                                                                                       \
            KVCL_UNROLL for (uint i = 0; i < R; i++)                                            \
            {                                                                                   \
                if ((i & h) == 0)                                                               \
                    KVCL_BUTTERFLY(float16, v[i], v[i + h])                                     \
            }                                                                                   \
        }                                                                                       \
        KVCL_UNROLL for (uint i = 0; i < R; i++)                                                \
        {                                                                                       \
            vstore16(last ? kvcl_zero16(v[i] * factor) : v[i], 0, out + i * pitch);             \
        }                                                                                       \
    }
DEFINE_PASS(1)
DEFINE_PASS(2)
DEFINE_PASS(4)
DEFINE_PASS(8)

static void pass(uint R, __global const float *x, __global float *out, uint pitch, uint within,
                 uint last, float factor)
{
    if (R == 8)
        pass_8(x, out, pitch, within, last, factor);
    else if (R == 4)
        pass_4(x, out, pitch, within, last, factor);
    else if (R == 2)
        pass_2(x, out, pitch, within, last, factor);
    else
        pass_1(x, out, pitch, within, last, factor);
}

static void row_vec(__global const float *x, __global float *out, uint dim, float factor)
{
    uint R = min(8u, dim / 16), h = 16 * R;
    for (uint at = 0; at < dim; at += h)
        pass(R, x + at, out + at, 16, 1, h == dim, factor);
    for (; h < dim; h *= R) {
        R = min(8u, dim / h);
        for (uint at = 0; at < dim; at += h * R)
            for (uint k = at; k < at + h; k += 16)
                pass(R, out + k, out + k, h, 0, h * R == dim, factor);
    }
}

__kernel void kvcl_fwht_vec(FWHT_PARAMS, uint n_rows)
{
    uint begin = (uint)get_global_id(0) * n_rows, end = min(n, begin + n_rows);
    for (uint i = begin; i < end; i++)
        row_vec(x + x_off + (ulong)i * stride, out + out_off + (ulong)i * stride, dim, factor);
}

#else

#define TILE (1u << KVCL_SPEC)
#define UNITS (TILE / 16)

// Four elements; `aligned` when the place is a multiple of 16 bytes.
static float4 load4(__global const float *p, uint aligned)
{
    return aligned ? *(__global const float4 *)p : vload4(0, p);
}

static void store4(float4 v, __global float *p, uint aligned)
{
    if (aligned)
        *(__global float4 *)p = v;
    else
        vstore4(v, 0, p);
}

// (By an array: Oclgrind's check of uninitialised values fails on the shuffles of vectors.)
static float4 stages_1_2(float4 v)
{
    float a[4];
    vstore4(v, 0, a);
    KVCL_BUTTERFLY(float, a[0], a[1])
    KVCL_BUTTERFLY(float, a[2], a[3])
    KVCL_BUTTERFLY(float, a[0], a[2])
    KVCL_BUTTERFLY(float, a[1], a[3])
    return vload4(0, a);
}

// Stages of bits from .. to - 1 of the index into x.
static void stages16(float *x, uint from, uint to)
{
#pragma unroll
    for (uint b = 0; b < 4; b++)
        if (b >= from && b < to) {
#pragma unroll
            for (uint i = 0; i < 16; i++)
                if ((i >> b & 1) == 0)
                    KVCL_BUTTERFLY(float, x[i], x[i + (1u << b)])
        }
}

// The part of the rows that a group transforms.
typedef struct part {
    uint row, column, log_dim; // of the tile's first element; dimensions of a row inside the tile
} part;

static part part_of(uint group, uint dim)
{
    uint log_row = 31 - clz(dim), over = log_row > KVCL_SPEC ? log_row - KVCL_SPEC : 0;
    uint row = group >> over;
    part p = {row << (KVCL_SPEC + over - log_row), (group - (row << over)) << KVCL_SPEC,
              log_row - over};
    return p;
}

// Where a group's unit of work u finds its 16 elements in step 0, 1 or 2: local places at +
// i * pitch, elements first + i * apart of the tile; and the bits of i that it works on.
typedef struct unit {
    uint at, pitch, first, apart, from, to;
} unit;

static unit unit_of(uint step, uint u, uint log_dim)
{
    unit r;
    if (step == 0) { // bits 2 .. 5
        r.first = u % 4 + u / 4 * 64, r.apart = 4, r.pitch = 4;
        r.from = 0, r.to = log_dim - 2;
    } else if (step == 1) { // bits 6 .. 9
        r.first = u % 64 + u / 64 * 1024, r.apart = 64, r.pitch = 68;
        r.from = 0, r.to = log_dim - 6;
    } else { // the top four bits from 10 on
        r.first = u, r.apart = UNITS, r.pitch = UNITS + UNITS / 16;
        r.from = 14 - KVCL_SPEC, r.to = log_dim + 4 - KVCL_SPEC;
    }
    r.at = r.first + r.first / 64 * 4;
    return r;
}

__kernel void kvcl_fwht(FWHT_PARAMS, uint aligned)
{
    __local float4 tile4[TILE / 4 + TILE / 64];
    __local float *tile = (__local float *)tile4;
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    part p = part_of((uint)get_group_id(0), dim);
    uint log_dim = p.log_dim, mask = (1u << log_dim) - 1;
    uint n_steps = log_dim <= 6 ? 1 : log_dim <= 10 ? 2 : 3;
    x += x_off + p.column;
    out += out_off + p.column;
    for (uint u = lid; u < UNITS; u += items) {
        float4 v[4];
#pragma unroll
        for (uint c = 0; c < 4; c++) {
            uint e = 4 * (u + c * UNITS), row = p.row + (e >> log_dim);
            v[c] = row < n ? load4(x + (ulong)row * stride + (e & mask), aligned) : (float4)(0.0f);
        }
#pragma unroll
        for (uint c = 0; c < 4; c++) {
            uint e4 = u + c * UNITS;
            tile4[e4 + e4 / 16] = stages_1_2(v[c]);
        }
    }
    for (uint step = 0; step < n_steps; step++) {
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE); // out may be x
        for (uint u = lid; u < UNITS; u += items) {
            unit r = unit_of(step, u, log_dim);
            float v[16];
#pragma unroll
            for (uint i = 0; i < 16; i++)
                v[i] = tile[r.at + i * r.pitch];
            stages16(v, r.from, r.to);
            if (step == 0 || step + 1 < n_steps) {
#pragma unroll
                for (uint i = 0; i < 16; i++)
                    tile[r.at + i * r.pitch] = v[i];
            } else {
#pragma unroll
                for (uint i = 0; i < 16; i++) {
                    uint e = r.first + i * r.apart, row = p.row + (e >> log_dim);
                    if (row < n)
                        out[(ulong)row * stride + (e & mask)] = kvcl_zero(v[i] * factor);
                }
            }
        }
    }
    // rows of at most 64: neighbours leave together as they came
    for (uint pass = n_steps; pass < 2; pass++) {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint e4 = lid; e4 < TILE / 4; e4 += items) {
            uint e = 4 * e4, row = p.row + (e >> log_dim);
            if (row < n)
                store4(kvcl_zero4(tile4[e4 + e4 / 16] * factor),
                       out + (ulong)row * stride + (e & mask), aligned);
        }
    }
}

// log2(R) stages over R vectors a tile apart, in place, and the factor.
#define DEFINE_REST(R)                                                                        \
    static void rest_##R(__global float *out, float factor, uint aligned)                     \
    {                                                                                         \
        float4 v[R];                                                                          \
        _Pragma("unroll") for (uint i = 0; i < R; i++) v[i] = load4(out + i * TILE, aligned); \
        _Pragma("unroll") for (uint h = 1; h < R; h *= 2)                                     \
        {                                                                                     \
            _Pragma("unroll") for (uint i = 0; i < R; i++) if ((i & h) == 0)                  \
                KVCL_BUTTERFLY(float4, v[i], v[i + h])                                        \
        }                                                                                     \
        _Pragma("unroll") for (uint i = 0; i < R; i++)                                        \
            store4(kvcl_zero4(v[i] * factor), out + i * TILE, aligned);                       \
    }
DEFINE_REST(2)
DEFINE_REST(4)
DEFINE_REST(8)
DEFINE_REST(16)

__kernel void kvcl_fwht_rest(__global float *out, ulong out_off, uint n, uint R, uint stride,
                             float factor, uint aligned)
{
    uint row = (uint)get_global_id(0) / (TILE / 4), k = (uint)get_global_id(0) % (TILE / 4) * 4;
    if (row >= n)
        return;
    out += out_off + (ulong)row * stride + k;
    if (R == 16)
        rest_16(out, factor, aligned);
    else if (R == 8)
        rest_8(out, factor, aligned);
    else if (R == 4)
        rest_4(out, factor, aligned);
    else
        rest_2(out, factor, aligned);
}

#endif
