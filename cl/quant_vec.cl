// quant_vec.cl - raw pages to quant pages and back, vector shape.  Twin: cpu/quant.c; the lane
// shape: cl/quant.cl; rows: cl/pages.cl; codes: cl/quant_pages.cl
//
// Assumes (checked by the host half): head_dim D a multiple of 32, at most 256.
// One work-item per page and head; 16 tokens, or 16 values of a row to a vector.

#if KVCL_VECTOR_SHAPE

#define MAX_DIM 256
#define V 16

// Words of 16 columns under way: codes come along, full words leave for memory.
static void put_codes(uint bits, uint across, uint along, uint i, uint column, uint16 code,
                      uint16 word[2], __global uint *words)
{
    for (uint plane = 0; plane < kvcl_n_planes(bits); plane++) {
        uint width = kvcl_plane_width(bits, plane), P = 32 / width;
        uint16 part = (code >> (2 * plane)) & (uint16)((1u << width) - 1);
        word[plane] =
            (i % P == 0 ? (uint16)(0u) : word[plane]) | part << kvcl_code_shift(width, i % P);
        if (i % P == P - 1)
            vstore16(word[plane], 0,
                     words + kvcl_plane_begin(plane, across, along) +
                         kvcl_code_word(width, across, i, column));
    }
}

// Sum over the lanes of each of 16 rows.
static float16 tree64_rows(float16 *lanes)
{
    for (uint s = 32; s > 0; s /= 2)
        for (uint i = 0; i < s; i++)
            lanes[i] += lanes[i + s];
    return kvcl_zero16(lanes[0]);
}

// Sums z a over the n values of each of 16 rows.
static float16 sum_rows(const float16 *z, const float16 *a, uint n)
{
    float16 lanes[64];
    for (uint j = 0; j < 64; j++) {
        float16 acc = 0.0f;
        for (uint i = j; i < n; i += 64)
            acc = fma(z[i], a[i], acc);
        lanes[j] = acc;
    }
    return tree64_rows(lanes);
}

// Sixteen tokens' K, words along them; returns the first bad token, 64 for none.
static uint encode_tokens16(const kvcl_rows *r, const kvcl_magnitudes *levels, uint t0)
{
    float16 z[MAX_DIM], c[MAX_DIM], top = 0.0f, cc = 0.0f;
    float e[V], tops[V], zc[V], ccs[V], invs[V];
    uint first = KVCL_TOKENS, n = r->n;
    float down = kvcl_head_down(r->log_b), inv_n = kvcl_recip((float)n);
    for (uint i = 0; i < n; i++) {
        uint at = t0 + i * KVCL_TOKENS;
        float16 x = r->type == KVCL_F16 ? vload_half16(0, (__global const half *)r->raw + at)
                                        : vload16(0, (__global const float *)r->raw + at);
        z[i] = x - (float16)(r->means[i]);
    }
    kvcl_fwht_across(z, n, r->log_b);
    for (uint i = 0; i < n; i++) {
        z[i] = z[i] * down;
        float16 mag = fabs(z[i]);
        top = mag > top ? mag : top;
    }
    vstore16(sum_rows(z, z, n), 0, e);
    vstore16(top, 0, tops);
    for (uint j = 0; j < V; j++)
        invs[j] = kvcl_row_inv(r, e[j] * inv_n, tops[j]);
    float16 inv = vload16(0, invs);
    uint16 word[2] = {(uint16)(0u), (uint16)(0u)};
    for (uint i = 0; i < n; i++) {
        uint16 code = kvcl_codes16(r->bits, levels, z[i], inv, &c[i]);
        put_codes(r->bits, KVCL_TOKENS, n, i, t0, code, word, r->words);
        if (r->bits != 8)
            cc = fma(c[i], c[i], cc);
    }
    vstore16(r->bits != 8 ? sum_rows(z, c, n) : cc, 0, zc);
    vstore16(cc, 0, ccs);
    for (uint j = 0; j < V; j++) {
        uint scale = kvcl_row_scale(r, e[j], e[j] * inv_n, tops[j], zc[j], ccs[j]);
        ((__global ushort *)r->scales)[t0 + j] = (ushort)scale;
        if (kvcl_is_bad(e[j]) || kvcl_bad_half(scale))
            first = min(first, t0 + j);
    }
    return first;
}

// Sixteen values of a row whose values are neighbours, from value i on.
static float16 load16(const kvcl_rows *r, uint row, uint i)
{
    uint at = row * r->n + i;
    return r->type == KVCL_F16 ? vload_half16(0, (__global const half *)r->raw + at)
                               : vload16(0, (__global const float *)r->raw + at);
}

// True for the values i .. i + 15 of a row that the sums leave out.
static int16 skipped(const kvcl_rows *r, uint i)
{
    return (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) <
           (int16)((int)r->n_skip - (int)i);
}

// The middle of a channel's range, as f16 and stored as that; *bad becomes the first bad token.
static float channel_mean(const kvcl_rows *r, uint row, uint *bad)
{
    float16 low = (float16)(INFINITY), high = (float16)(-INFINITY);
    float lows[V], highs[V];
    for (uint i = 0; i < KVCL_TOKENS; i += V) {
        float16 x = load16(r, row, i);
        int16 out = skipped(r, i);
        low = select(low, x, ~out & (x < low));
        high = select(high, x, ~out & (x > high));
        if (any((as_int16(x) & 0x7f800000) == (int16)(0x7f800000)))
            for (uint t = i; t < i + V; t++)
                if (kvcl_is_bad(kvcl_row_value(r, row, t)))
                    *bad = min(*bad, t);
    }
    vstore16(low, 0, lows);
    vstore16(high, 0, highs);
    for (uint j = 1; j < V; j++) {
        lows[0] = lows[j] < lows[0] ? lows[j] : lows[0];
        highs[0] = highs[j] > highs[0] ? highs[j] : highs[0];
    }
    uint mean = kvcl_half_store(kvcl_zero(0.5f * (highs[0] + lows[0])));
    ((__global ushort *)r->scales)[r->n_rows + row] = (ushort)mean;
    return kvcl_half_load(mean);
}

// Values of a row to z: mean removed, transformed, scaled down; zs has zeros for those left out.
static void load_row(const kvcl_rows *r, uint row, float mean, float16 *z, float16 *zs)
{
    uint n = r->n / V;
    float down = r->log_b == 0 ? 1.0f : kvcl_head_down(r->log_b);
    for (uint i = 0; i < n; i++) {
        z[i] = load16(r, row, i * V) -
               (r->log_b == 0 ? (float16)(mean) : vload16(0, r->means + i * V));
        z[i] = r->log_b == 0 ? z[i] : kvcl_stages_within(z[i]);
    }
    kvcl_fwht_across(z, n, r->log_b == 0 ? 0 : r->log_b - 4);
    for (uint i = 0; i < n; i++) {
        z[i] = z[i] * down;
        zs[i] = select(z[i], (float16)(0.0f), skipped(r, i * V));
    }
}

// Sum z a of one row's n vectors, in the canonical lanes.
static float sum_row(const float16 *z, const float16 *a, uint n)
{
    float16 lanes[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (uint i = 0; i < n; i++)
        lanes[i % 4] = fma(z[i], a[i], lanes[i % 4]);
    return kvcl_tree64_vec(lanes[0], lanes[1], lanes[2], lanes[3]);
}

// Largest magnitude of one row's n vectors.
static float top_of_row(const float16 *z, uint n)
{
    float16 top = 0.0f;
    float a[V], best = 0.0f;
    for (uint i = 0; i < n; i++)
        top = fabs(z[i]) > top ? fabs(z[i]) : top;
    vstore16(top, 0, a);
    for (uint j = 0; j < V; j++)
        best = a[j] > best ? a[j] : best;
    return best;
}

// All rows whose words run across them; returns the first bad one, n_rows for none.
static uint encode_across(const kvcl_rows *r, const kvcl_magnitudes *levels, uint *bad_token)
{
    float16 z[MAX_DIM / V], zs[MAX_DIM / V], c[MAX_DIM / V];
    uint16 word[MAX_DIM / V][2];
    uint n = r->n / V, first = r->n_rows;
    float inv_n = kvcl_recip((float)r->n);
    for (uint row = 0; row < r->n_rows; row++) {
        float mean = r->log_b == 0 ? channel_mean(r, row, bad_token) : 0.0f;
        load_row(r, row, mean, z, zs);
        float e = r->log_b == 0 ? 0.0f : sum_row(z, z, n), top = top_of_row(zs, n), zc = 0.0f,
              cc = 0.0f;
        float16 inv = (float16)(kvcl_row_inv(r, e * inv_n, top));
        for (uint i = 0; i < n; i++) {
            uint16 code = kvcl_codes16(r->bits, levels, z[i], inv, &c[i]);
            put_codes(r->bits, r->n, r->n_rows, row, i * V, code, word[i], r->words);
        }
        if (!kvcl_by_range(r)) {
            zc = sum_row(z, c, n);
            cc = sum_row(c, c, n);
        }
        uint scale = kvcl_row_scale(r, e, e * inv_n, top, zc, cc);
        ((__global ushort *)r->scales)[row] = (ushort)scale;
        if (kvcl_is_bad(e) || kvcl_is_bad(mean) || kvcl_bad_half(scale))
            first = min(first, row);
    }
    return first;
}

__kernel void kvcl_quant_enc_vec(KVCL_QUANT_PARAMS(__global const, __global), __global int *bad,
                                 ulong bad_off)
{
    uint bad_token = KVCL_TOKENS, bad_v;
    kvcl_magnitudes levels;
    kvcl_rows r = kvcl_rows_of((uint)get_group_id(0), 0, KVCL_QUANT_ARGS);
    kvcl_magnitudes_of(bits_k, &levels);
    if (r.across) {
        uint bad_channel = encode_across(&r, &levels, &bad_token) < r.n_rows;
        bad_token = bad_token == KVCL_TOKENS && bad_channel ? 0 : bad_token;
    } else {
        for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += V)
            bad_token = min(bad_token, encode_tokens16(&r, &levels, t0));
    }
    r = kvcl_rows_of((uint)get_group_id(0), 1, KVCL_QUANT_ARGS);
    kvcl_magnitudes_of(bits_v, &levels);
    bad_v = encode_across(&r, &levels, &bad_token);
    bad[bad_off + get_group_id(0)] = (int)min(bad_token, bad_v);
}

// ---- decoder ------------------------------------------------------------------------------------

// Sixteen codes, `i` along and `column` .. across, as levels.
static float16 levels16(const kvcl_rows *r, const kvcl_magnitudes *t, uint across, uint along,
                        uint i, uint column)
{
    uint bits = r->bits;
    uint16 code = (uint16)(0u);
    for (uint plane = 0; plane < kvcl_n_planes(bits); plane++) {
        uint width = kvcl_plane_width(bits, plane), P = 32 / width;
        uint16 word = vload16(0, r->words + kvcl_plane_begin(plane, across, along) +
                                     kvcl_code_word(width, across, i, column));
        word = (word >> kvcl_code_shift(width, i % P)) & (uint16)((1u << width) - 1);
        code |= word << (2 * plane);
    }
    if (bits == 8)
        return convert_float16(as_int16(code ^ (uint16)(128u)) - 128);
    int16 low_side = as_int16(code) <= (int16)(t->n);
    int16 mag = (as_int16(code) - (t->n + 1)) ^ low_side, c = (int16)(t->low);
    for (int j = 0; j < t->n; j++)
        c += (mag > (int16)(j)) & (int16)(t->up[j]);
    return convert_float16((c ^ low_side) - low_side);
}

static void store16(const kvcl_rows *r, uint at, float16 x)
{
    if (r->type == KVCL_F16)
        vstore_half16_rte(x, 0, (__global half *)r->raw + at);
    else
        vstore16(x, 0, (__global float *)r->raw + at);
}

// Keys of tokens t0 .. t0 + 15 turned by their positions.
static void turn16(const kvcl_turning *r, uint t0, float16 *x)
{
    uint halves = r->pairing == KVCL_ROPE_HALVES;
    for (uint i = 0; i < r->n_rot / 2; i++) {
        uint ia = halves ? i : 2 * i, ib = halves ? i + r->n_rot / 2 : 2 * i + 1;
        float c[V], s[V];
        for (uint j = 0; j < V; j++) {
            __global const float *cs = r->table + (t0 + j) * r->n_rot + 2 * i;
            c[j] = cs[0];
            s[j] = cs[1];
        }
        float16 a = x[ia], b = x[ib], c16 = vload16(0, c), s16 = vload16(0, s);
        x[ia] = kvcl_zero16(fma(a, c16, -(b * s16)));
        x[ib] = kvcl_zero16(fma(b, c16, a * s16));
    }
}

static void decode_k16(const kvcl_rows *r, const kvcl_turning *tn, const kvcl_magnitudes *t,
                       uint t0)
{
    float16 x[MAX_DIM];
    uint D = r->D;
    for (uint d = 0; d < D; d++)
        x[d] = levels16(r, t, KVCL_TOKENS, D, d, t0);
    if (r->log_b == 0) {
        for (uint d = 0; d < D; d++)
            x[d] = kvcl_zero16(fma((float16)(vload_half(d, r->scales)), x[d],
                                   (float16)(vload_half(D + d, r->scales))));
    } else {
        float16 step = vload_half16(0, r->scales + t0) * kvcl_head_up(r->log_b);
        kvcl_fwht_across(x, D, r->log_b);
        for (uint d = 0; d < D; d++)
            x[d] = kvcl_zero16(fma(step, x[d], (float16)(r->means[d])));
    }
    turn16(tn, t0, x);
    for (uint d = 0; d < D; d++)
        store16(r, d * KVCL_TOKENS + t0, x[d]);
}

static void decode_v(const kvcl_rows *r, const kvcl_magnitudes *levels, uint t)
{
    float16 x[MAX_DIM / V];
    uint n = r->D / V;
    float16 step = (float16)(vload_half(t, r->scales) * kvcl_head_up(r->log_b));
    for (uint i = 0; i < n; i++)
        x[i] = kvcl_stages_within(levels16(r, levels, r->D, KVCL_TOKENS, t, i * V));
    kvcl_fwht_across(x, n, r->log_b - 4);
    for (uint i = 0; i < n; i++)
        store16(r, t * r->D + i * V, kvcl_zero16(fma(step, x[i], vload16(0, r->means + i * V))));
}

__kernel void kvcl_quant_dec_vec(KVCL_QUANT_PARAMS(__global, __global const),
                                 __global const float *table, ulong table_off, uint n_rot,
                                 uint pairing)
{
    kvcl_magnitudes levels;
    kvcl_rows r = kvcl_rows_of((uint)get_group_id(0), 0, KVCL_QUANT_ARGS);
    kvcl_magnitudes_of(bits_k, &levels);
    kvcl_turning tn = kvcl_turning_of(&r, table + table_off, n_rot, pairing);
    for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += V)
        decode_k16(&r, &tn, &levels, t0);
    r = kvcl_rows_of((uint)get_group_id(0), 1, KVCL_QUANT_ARGS);
    kvcl_magnitudes_of(bits_v, &levels);
    for (uint t = 0; t < KVCL_TOKENS; t++)
        decode_v(&r, &levels, t);
}

#endif
