// quant.cl - raw pages to quant pages and back, lane shape.  Twin: cpu/quant.c; the vector shape:
// cl/quant_vec.cl; rows: cl/pages.cl
//
// Assumes (checked by the host half): head_dim D a multiple of 32, at most 256.
// One group of at least 64 items (256 to be best) per page and head, 16 rows at a time, values and
// transforms in local memory.  The encoder's sums take 16 units of work to a row, each with the
// lanes that agree in lane mod 16, so that the tree's first two levels need no exchange.
//   local memory: 28,184 bytes (encoder), 16,512 bytes (decoder)

#if !KVCL_VECTOR_SHAPE

#define MAX_DIM 256
#define CHUNK 16  // rows at a time
#define CODES 32  // rows whose codes stand in local memory: a whole word's worth
#define UNITS 256 // 16 rows times 16 classes of lanes
#define LOG_CHUNK 4

typedef struct work {
    float z[CHUNK * (MAX_DIM + 1)]; // [row][n + 1]
    float e[UNITS], zc[UNITS];      // [class][row]; zc: first the largest magnitudes
    int cc[UNITS];
    float th[16], level[16];
    uint bad, bad_value, bad_channel;
    uchar codes[CODES * (MAX_DIM + 4)]; // [row][n + 4]
} work;

// The middle of a channel's range from its lanes, rounded to f16.
static uint mean_bits(__local const work *w, uint row)
{
    float low = w->e[row], high = w->zc[row];
    for (uint j = 1; j < KVCL_ATTN_LANES; j++) {
        low = w->e[j * CHUNK + row] < low ? w->e[j * CHUNK + row] : low;
        high = w->zc[j * CHUNK + row] > high ? w->zc[j * CHUNK + row] : high;
    }
    return kvcl_half_store(kvcl_zero(0.5f * (high + low)));
}

// Ranges of 16 channels, each in 8 lanes: lowest (w->e) and highest (w->zc).  (No work for tokens:
// a loop, not a condition around the barrier.)
static void range_channels(const kvcl_rows *r, __local work *w, uint row0)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    for (uint u = lid; u < (r->log_b == 0 ? CHUNK * KVCL_ATTN_LANES : 0); u += items) {
        float low = INFINITY, high = -INFINITY;
        for (uint t = u / CHUNK; t < KVCL_TOKENS; t += KVCL_ATTN_LANES) {
            float x = kvcl_row_value(r, row0 + u % CHUNK, t);
            if (t >= r->n_skip) {
                low = x < low ? x : low;
                high = x > high ? x : high;
            }
            if (kvcl_is_bad(x))
                atomic_min(&w->bad_value, t);
        }
        w->e[u] = low;
        w->zc[u] = high;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

// Sixteen rows to w->z: mean removed, and the transform's stages 1, 2, 4.
static void load_rows(const kvcl_rows *r, __local work *w, uint row0)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    for (uint u = lid; u < CHUNK * r->n / 8; u += items) {
        uint row = u % CHUNK, i0 = u / CHUNK * 8, mean = 0;
        float x[8];
#pragma unroll
        for (uint i = 0; i < 8; i++)
            x[i] = kvcl_row_value(r, row0 + row, i0 + i);
        if (r->log_b == 0) {
            mean = mean_bits(w, row);
            if (i0 == 0) {
                ((__global ushort *)r->scales)[r->n_rows + row0 + row] = (ushort)mean;
                if (kvcl_bad_half(mean))
                    atomic_max(&w->bad_channel, 1u);
            }
        }
#pragma unroll
        for (uint i = 0; i < 8; i++)
            x[i] = x[i] - (r->log_b == 0 ? kvcl_half_load(mean) : r->means[i0 + i]);
        kvcl_stages8(x, 0, r->log_b == 0 ? 0 : 3);
#pragma unroll
        for (uint i = 0; i < 8; i++)
            w->z[row * (r->n + 1) + i0 + i] = x[i];
    }
}

// The lanes of a class after the tree's first two levels.
static float class_sum(const float lanes[4])
{
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

// The rest of the tree: over the classes of a row.
static float classes_sum(__local const float *sums, uint row)
{
    float a[8];
#pragma unroll
    for (uint j = 0; j < 8; j++)
        a[j] = sums[j * CHUNK + row] + sums[(j + 8) * CHUNK + row];
    return kvcl_tree8(vload8(0, a));
}

// Largest of a row's classes.
static float classes_max(__local const float *tops, uint row)
{
    float top = 0.0f;
    for (uint j = 0; j < 16; j++)
        top = tops[j * CHUNK + row] > top ? tops[j * CHUNK + row] : top;
    return top;
}

// Sums of squares (w->e), and the largest magnitudes for 8 bits (w->zc), of the classes.
static void sum_squares(const kvcl_rows *r, __local work *w, float down)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    for (uint u = lid; u < UNITS; u += items) {
        __local const float *z = w->z + u % CHUNK * (r->n + 1);
        float lanes[4] = {0.0f, 0.0f, 0.0f, 0.0f}, top = 0.0f;
        for (uint i0 = 0; i0 < r->n; i0 += 64)
#pragma unroll
            for (uint j = 0; j < 4; j++) {
                uint i = i0 + 16 * j + u / CHUNK;
                if (i >= r->n_skip && i < r->n) {
                    float x = z[i] * down;
                    lanes[j] = fma(x, x, lanes[j]);
                    top = fabs(x) > top ? fabs(x) : top;
                }
            }
        w->e[u] = class_sum(lanes);
        w->zc[u] = top;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

// Index of the level of a value: how many thresholds are below it.
static uint index_of(__local const work *w, uint bits, float v)
{
    uint index = 0;
    for (uint half_way = 1u << (bits - 1); half_way > 0; half_way /= 2)
        index += v > w->th[index + half_way] ? half_way : 0;
    return index;
}

// Codes of 16 rows, and the sums that their scales need.
static void make_codes(const kvcl_rows *r, __local work *w, uint row0, float down, float inv_n)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0);
    uint by_range = kvcl_by_range(r);
    for (uint u = lid; u < UNITS; u += items) {
        uint row = u % CHUNK;
        __local const float *z = w->z + row * (r->n + 1);
        __local uchar *codes = w->codes + (row0 + row) % CODES * (r->n + 4);
        float lanes[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        int cc = 0;
        float inv = kvcl_row_inv(r, by_range ? 0.0f : classes_sum(w->e, row) * inv_n,
                                 by_range ? classes_max(w->zc, row) : 0.0f);
        for (uint i0 = 0; i0 < r->n; i0 += 64)
#pragma unroll
            for (uint j = 0; j < 4; j++) {
                uint i = i0 + 16 * j + u / CHUNK;
                if (i >= r->n)
                    continue;
                float x = z[i] * down, v = kvcl_clip(x * inv);
                if (r->bits == 8) {
                    codes[i] = (uchar)kvcl_round(v);
                    continue;
                }
                uint index = index_of(w, r->bits, v);
                float c = w->level[index];
                codes[i] = (uchar)index;
                lanes[j] = fma(x, c, lanes[j]);
                cc += (int)c * (int)c;
            }
        if (!by_range) // else other items may still read the tops
            w->zc[u] = class_sum(lanes);
        w->cc[u] = cc;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

// Scales of 16 rows.
static void make_scales(const kvcl_rows *r, __local work *w, uint row0, float inv_n)
{
    uint lid = (uint)get_local_id(0);
    if (lid >= CHUNK)
        return;
    float e = classes_sum(w->e, lid);
    int cc = 0;
    for (uint j = 0; j < 16; j++)
        cc += w->cc[j * CHUNK + lid];
    uint scale = kvcl_row_scale(r, e, e * inv_n, classes_max(w->zc, lid), classes_sum(w->zc, lid),
                                (float)cc);
    ((__global ushort *)r->scales)[row0 + lid] = (ushort)scale;
    if (r->log_b == 0) {
        if (kvcl_bad_half(scale))
            atomic_max(&w->bad_channel, 1u);
    } else if (kvcl_is_bad(e) || kvcl_bad_half(scale)) {
        atomic_min(&w->bad, row0 + lid);
    }
}

// Codes of the rows from row0 on, 32 of them, into words.
static void write_words(const kvcl_rows *r, __local const work *w, uint row0)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), pitch = r->n + 4;
    uint across = r->across ? r->n : KVCL_TOKENS, along = r->across ? r->n_rows : r->n;
    for (uint plane = 0; plane < kvcl_n_planes(r->bits); plane++) {
        uint width = kvcl_plane_width(r->bits, plane), P = 32 / width;
        __global uint *words = r->words + kvcl_plane_begin(plane, across, along);
        for (uint x = lid; x < r->n * width; x += items) {
            uint columns = r->across ? r->n : CODES, group = x / columns;
            uint column = kvcl_rest(x, group, columns), word = 0;
            uint first = r->across ? group * P * pitch + column : column * pitch + group * P;
            for (uint i = 0; i < P; i++) {
                uint code = w->codes[first + i * (r->across ? pitch : 1)];
                word |= (code >> (2 * plane) & ((1u << width) - 1)) << kvcl_code_shift(width, i);
            }
            words[kvcl_code_word(width, across, group * P + (r->across ? row0 : 0),
                                 column + (r->across ? 0 : row0))] = word;
        }
    }
}

static void encode(const kvcl_rows *r, __local work *w)
{
    uint lid = (uint)get_local_id(0);
    float inv_n = kvcl_recip((float)r->n);
    float down = r->log_b == 0 ? 1.0f : kvcl_head_down(r->log_b);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lid < 16 && r->bits != 8 && lid < 1u << r->bits) {
        w->level[lid] = (float)kvcl_quant_level(r->bits, lid);
        w->th[lid] = lid > 0 ? kvcl_threshold(r->bits, lid) : 0.0f;
    }
    for (uint row0 = 0; row0 < r->n_rows; row0 += CHUNK) {
        barrier(CLK_LOCAL_MEM_FENCE);
        range_channels(r, w, row0);
        load_rows(r, w, row0);
        kvcl_fwht_rows(w->z, LOG_CHUNK, r->n, r->log_b, r->n + 1);
        sum_squares(r, w, down);
        make_codes(r, w, row0, down, inv_n);
        make_scales(r, w, row0, inv_n);
        if (row0 % CODES != 0)
            write_words(r, w, row0 - CHUNK);
    }
}

__kernel void kvcl_quant_enc(KVCL_QUANT_PARAMS(__global const, __global), __global int *bad,
                             ulong bad_off)
{
    __local work w;
    if (get_local_id(0) == 0) {
        w.bad = w.bad_value = KVCL_TOKENS;
        w.bad_channel = 0;
    }
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_rows r = kvcl_rows_of((uint)get_group_id(0), of_v, KVCL_QUANT_ARGS);
        encode(&r, &w);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (get_local_id(0) == 0) {
        uint bad_k = w.bad_value == KVCL_TOKENS && w.bad_channel ? 0 : w.bad_value;
        bad[bad_off + get_group_id(0)] = (int)min(w.bad, bad_k);
    }
}

// ---- decoder ------------------------------------------------------------------------------------

static float level_of(uint bits, __local const float *level, uint code)
{
    return bits == 8 ? (float)((int)(code ^ 128u) - 128) : level[code];
}

// One value of a token, turned by its position where it is to be.
static float value_of(const kvcl_rows *r, const kvcl_turning *tn, __local const float *z, uint t,
                      uint d, float step)
{
    float x = kvcl_zero(fma(step, z[d], r->means[d]));
    if (d >= tn->n_rot)
        return x;
    kvcl_pair p = kvcl_pair_of(d, tn->n_rot, tn->pairing);
    uint upper = d != p.a, e = upper ? p.a : p.a + p.apart;
    float y = kvcl_zero(fma(step, z[e], r->means[e]));
    __global const float *cs = tn->table + t * tn->n_rot + 2 * p.i;
    float c = cs[0], sine = cs[1], ys = y * sine;
    return kvcl_zero(fma(x, c, upper ? ys : -ys));
}

static void store(const kvcl_rows *r, uint at, float x)
{
    if (r->type == KVCL_F16)
        vstore_half_rte(x, at, (__global half *)r->raw);
    else
        ((__global float *)r->raw)[at] = x;
}

// Levels of 16 tokens to z, through the transform's stages 1, 2, 4.
static void load_levels(const kvcl_rows *r, __local float *z, __local const float *level, uint t0)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), D = r->D;
    for (uint u = lid; u < CHUNK * D / 8; u += items) {
        uint t = u % CHUNK, d0 = u / CHUNK * 8;
        float x[8];
        if (r->of_v) {
            uint tokens = (t0 + t) / 4, shift = (t0 + t) % 4 * 8;
#pragma unroll
            for (uint i = 0; i < 8; i++)
                x[i] = level_of(
                    r->bits, level,
                    kvcl_codes4(r->bits, r->words, D, KVCL_TOKENS, tokens, d0 + i) >> shift & 255u);
        } else {
            uint a = kvcl_codes4(r->bits, r->words, KVCL_TOKENS, D, d0 / 4, t0 + t);
            uint b = kvcl_codes4(r->bits, r->words, KVCL_TOKENS, D, d0 / 4 + 1, t0 + t);
#pragma unroll
            for (uint i = 0; i < 8; i++)
                x[i] = level_of(r->bits, level, (i < 4 ? a : b) >> (i % 4 * 8) & 255u);
        }
        kvcl_stages8(x, 0, 3);
#pragma unroll
        for (uint i = 0; i < 8; i++)
            z[t * (D + 1) + d0 + i] = x[i];
    }
}

// Values of 16 tokens to the page.
static void store_values(const kvcl_rows *r, const kvcl_turning *tn, __local const float *z,
                         uint t0)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), D = r->D;
    float up = kvcl_head_up(r->log_b);
    for (uint u = lid; u < CHUNK * D; u += items) {
        uint row = u / D, t = r->of_v ? row : u % CHUNK;
        uint d = r->of_v ? kvcl_rest(u, row, D) : u / CHUNK;
        float step = up * vload_half(t0 + t, r->scales);
        float x = value_of(r, tn, z + t * (D + 1), t0 + t, d, step);
        store(r, r->of_v ? (t0 + t) * D + d : d * KVCL_TOKENS + t0 + t, x);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

// CHANNEL's K: no transform.
static void decode_channels(const kvcl_rows *r, __local const float *level)
{
    uint lid = (uint)get_local_id(0), items = (uint)get_local_size(0), D = r->D;
    for (uint u = lid; u < KVCL_TOKENS * D / 4; u += items) {
        uint t = u % KVCL_TOKENS, d0 = u / KVCL_TOKENS * 4;
        uint codes = kvcl_codes4(r->bits, r->words, KVCL_TOKENS, D, d0 / 4, t);
        for (uint i = 0; i < 4; i++)
            store(r, (d0 + i) * KVCL_TOKENS + t,
                  kvcl_zero(fma(vload_half(d0 + i, r->scales),
                                level_of(r->bits, level, codes >> (8 * i) & 255u),
                                vload_half(D + d0 + i, r->scales))));
    }
}

__kernel void kvcl_quant_dec(KVCL_QUANT_PARAMS(__global, __global const),
                             __global const float *table, ulong table_off, uint n_rot, uint pairing)
{
    __local float z[CHUNK * (MAX_DIM + 1)], level[16];
    uint lid = (uint)get_local_id(0);
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_rows r = kvcl_rows_of((uint)get_group_id(0), of_v, KVCL_QUANT_ARGS);
        if (lid < 16 && r.bits != 8 && lid < 1u << r.bits)
            level[lid] = (float)kvcl_quant_level(r.bits, lid);
        barrier(CLK_LOCAL_MEM_FENCE);
        kvcl_turning tn = kvcl_turning_of(&r, table + table_off, n_rot, pairing);
        if (r.log_b == 0)
            decode_channels(&r, level);
        for (uint t0 = 0; t0 < (r.log_b == 0 ? 0 : KVCL_TOKENS); t0 += CHUNK) {
            load_levels(&r, z, level, t0);
            kvcl_fwht_rows(z, LOG_CHUNK, D, r.log_b, D + 1);
            store_values(&r, &tn, z, t0);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

#endif
