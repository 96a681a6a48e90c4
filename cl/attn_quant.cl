// attn_quant.cl - attention by block partials over quant pages, lane shape.  Twin:
// cpu/attn_quant.c; vector shape: attn_quant_vec.cl; NVIDIA's tensor cores: attn_quant_mma.cl
//
// KVCL_SPEC: bits of K, + 16 * bits of V, + 256 * form (engine/ops_code.h).  Assumes (checked by
// the host half): head_dim D a multiple of 32, at most 256.
//
// kvcl_attn_quant: a group of a multiple of 64 items per block and KV head (dimension 0) and ROWS
// rows (dimension 1; row / G is the query, row % G the head of the KV head's G).  Its phases, all
// for the four rows: queries to integers; scores of the block's 512 tokens, an item per token;
// weights to integers in place; values, an item per dimension and pair of rows; transform; output.
//   local memory: `mem`, laid out as in kvcl_attn_quant; its size in cl_attn_quant.c

#if !KVCL_VECTOR_SHAPE

#define BITS_K (KVCL_SPEC & 15)
#define BITS_V (KVCL_SPEC >> 4 & 15)
#define FORM (KVCL_SPEC >> 8 & 3)
#define PRE KVCL_QUANT_PRE
#define POST KVCL_QUANT_POST
#define CHANNEL KVCL_QUANT_CHANNEL

// Levels of four codes of one kind, exact products with those of four rows.
static int4 add4(uint bits, __local const int *level, uint codes, __local const short4 *x, int4 sum)
{
    for (uint e = 0; e < 4; e++) {
        uint code = codes >> 8 * e & 255u;
        int v = bits == 8 ? kvcl_quant_value(8, code) : level[code];
        sum += convert_int4(x[e]) * v;
    }
    return sum;
}

// Stages of the transform of `count` values in blocks of B, in place.
static void fwht_local(__local float *x, uint count, uint B, uint items)
{
    for (uint h = 1; h < B; h *= 2) {
        SYNC;
        EACH(at, count / 2)
        {
            uint i = at / h * 2 * h + (at & (h - 1));
            float a = x[i], b = x[i + h];
            x[i] = a + b;
            x[i + h] = a - b;
        }
    }
    SYNC;
}

#if FORM == PRE

#define LOG_TILE (D > 128 ? 4u : 5u) // tokens whose keys are in local memory together
#define TILE (1u << LOG_TILE)

// Value of dimension d of token t's key, as it was before rotation.
static float key_at(__local const short *keys, uint tile, uint d, float step,
                    __global const float *mean)
{
    return fma(step, (float)keys[d * tile], mean[d]);
}

// Score of one row: its key is made dimension by dimension.
static float score_turned(__local const short *keys, uint tile, __local const float *qp, float step,
                          __global const float *mean, __global const float *cs, uint D, uint n_rot,
                          uint pairing)
{
    float sum = 0.0f;
    for (uint d = 0; d < D; d++) {
        float k = key_at(keys, tile, d, step, mean);
        if (d < n_rot) {
            kvcl_pair p = kvcl_pair_of(d, n_rot, pairing);
            float other = key_at(keys, tile, d == p.a ? d + p.apart : p.a, step, mean);
            float2 v = kvcl_turn(d == p.a ? (float2)(k, other) : (float2)(other, k),
                                 (float2)(cs[2 * p.i], cs[2 * p.i + 1]));
            k = d == p.a ? v.x : v.y;
        }
        sum = fma(qp[d * ROWS], k, sum);
    }
    return kvcl_zero(sum);
}

// Scores of the page in lane c.
static void scores_page(place w, kvcl_head at, uint c, uint page, uint D,
                        __global const float *mean, __global const float *table, uint n_rot,
                        uint pairing, uint items)
{
    uint log2_b = kvcl_head_log2(D);
    __local const float *qp = (__local const float *)w.qp;
    n_rot = pairing ? n_rot : 0;
    turn_rows(w, page, D, table, n_rot, pairing, items);
    for (uint t0 = 0; t0 < TOKENS; t0 += TILE) {
        EACH(i, D / 4 * TILE)
        {
            uint t = i & (TILE - 1), d = i >> LOG_TILE << 2, codes;
            codes = kvcl_codes4(BITS_K, at.k, TOKENS, D, d / 4, t0 + t);
            for (uint e = 0; e < 4; e++)
                w.keys[(d + e) * TILE + t] = (short)kvcl_quant_value(BITS_K, codes >> 8 * e & 255u);
        }
        for (uint h = 1; h < 1u << log2_b; h *= 2) {
            SYNC;
            EACH(i, D / 2 * TILE)
            {
                uint u = i >> LOG_TILE;
                uint d = (u / h * 2 * h + (u & (h - 1))) * TILE + (i & (TILE - 1));
                short a = w.keys[d], b = w.keys[d + h * TILE];
                w.keys[d] = (short)(a + b);
                w.keys[d + h * TILE] = (short)(a - b);
            }
        }
        SYNC;
        EACH(i, ROWS * TILE)
        {
            uint r = i >> LOG_TILE, t = i & (TILE - 1);
            float step = kvcl_head_up(log2_b) * vload_half(t0 + t, at.k_scales);
            ((__local float *)w.s)[(c * TOKENS + t0 + t) * ROWS + r] = score_turned(
                w.keys + t, TILE, qp + r, step, mean, table + (t0 + t) * n_rot, D, n_rot, pairing);
        }
        SYNC;
    }
}

#else

// Queries times the page's steps (CHANNEL), or their transform, to integers; sums with the mean.
static void codes_of(place w, kvcl_head at, uint c, uint D, __global const float *mean, uint items)
{
#if FORM == CHANNEL
#define MEAN(d) vload_half(D + (d), at.k_scales)
#define STEP(d) vload_half((d), at.k_scales)
#else
#define MEAN(d) mean[d]
#define STEP(d) 1.0f
#endif
    EACH(i, ROWS * 64)
    {
        float acc = 0.0f;
        for (uint d = i % 64; d < D; d += 64)
            acc = fma(w.qs[i / 64 * D + d], MEAN(d), acc);
        w.red[i] = acc;
    }
    SYNC;
    EACH(r, ROWS)
    {
        float tops[8];
        for (uint j = 0; j < 8; j++)
            tops[j] = kvcl_tree64_top(w.red + 64 * r, j);
        STAT(BETA, c, r) = kvcl_tree8(vload8(0, tops));
    }
    if (FORM == POST)
        fwht_local(w.qs, ROWS * D, 1u << kvcl_head_log2(D), items);
    SYNC;
    EACH(i, ROWS * L)
    {
        float a = 0.0f;
        for (uint d = i % L; d < D; d += L)
            a = fmax(a, fabs(w.qs[i / L * D + d] * STEP(d)));
        w.red[i] = a;
    }
    SYNC;
    EACH(r, ROWS)
    {
        float a = LANES_MAX(w.red + r * L);
        STAT(INVERSE, c, r) = kvcl_q15_inv(a);
        STAT(QUANTUM, c, r) = kvcl_q15_quantum(a);
    }
    SYNC;
    __local short *codes = (__local short *)(w.codes + (FORM == CHANNEL ? c * D : 0));
    EACH(i, ROWS * D)
    {
        uint d = i / ROWS, r = i % ROWS;
        codes[i] = (short)kvcl_round((w.qs[r * D + d] * STEP(d)) * STAT(INVERSE, c, r));
    }
    SYNC;
}

// Score of a token for all rows.
static float4 score4(place w, kvcl_head at, uint c, uint t, uint D)
{
    int4 sum = 0;
    __local const short4 *x = w.codes + (FORM == CHANNEL ? c * D : 0);
#pragma unroll 8
    for (uint i = 0; i < D / 4; i++)
        sum = add4(BITS_K, w.level, kvcl_codes4(BITS_K, at.k, TOKENS, D, i, t), x + 4 * i, sum);
    uint from = FORM == CHANNEL ? c : 0;
    float4 s = convert_float4(sum), quantum = vload4(0, &STAT(QUANTUM, from, 0));
    float4 beta = vload4(0, &STAT(BETA, from, 0));
#if FORM == CHANNEL
    s = fma(s, quantum, beta);
#else
    s = fma(s * (quantum * kvcl_head_up(kvcl_head_log2(D))), (float4)(vload_half(t, at.k_scales)),
            beta);
#endif
    return kvcl_zero4(s);
}

#endif

// Weights of pages c0 .. c1 times the steps of their values to integers in place.
static void quantise_weights(place w, const kvcl_head *at, uint c0, uint c1, float up, uint items)
{
    __local float *s = (__local float *)w.s;
    uint n_rows = (c1 - c0 + 1) * ROWS; // (page, row)
    EACH(i, n_rows * L)
    {
        uint c = c0 + i / L / ROWS, r = i / L % ROWS;
        float a = 0.0f;
        for (uint t = i % L; t < TOKENS; t += L) {
            uint to = (c * TOKENS + t) * ROWS + r;
            s[to] = s[to] * vload_half(t, at[c].v_scales);
            a = fmax(a, fabs(s[to]));
        }
        w.red[i] = a;
    }
    SYNC;
    weights_to_integers(w, c0, c1, up, items);
}

// z[d] of rows r and r + 1: tree over the block's pages of weighted sums.
static float2 values2(place w, const kvcl_head *at, uint c0, uint c1, uint d, uint r, uint D)
{
    float z0[PAGES], z1[PAGES];
    for (uint c = 0; c < PAGES; c++) {
        z0[c] = z1[c] = 0.0f;
        if (c < c0 || c > c1)
            continue;
        __local const int2 *x = (__local const int2 *)(w.s + c * TOKENS) + r / 2;
        int2 sum = 0;
#pragma unroll 8
        for (uint i = 0; i < TOKENS / 4; i++) {
            uint codes = kvcl_codes4(BITS_V, at[c].v, D, TOKENS, i, d);
            for (uint e = 0; e < 4; e++) {
                uint code = codes >> 8 * e & 255u;
                sum += x[(4 * i + e) * (ROWS / 2)] *
                       (BITS_V == 8 ? kvcl_quant_value(8, code) : w.level[16 + code]);
            }
        }
        z0[c] = STAT(INVERSE, c, r) * ((float)sum.x * STAT(FACTOR, c, r));
        z1[c] = STAT(INVERSE, c, r + 1) * ((float)sum.y * STAT(FACTOR, c, r + 1));
    }
    return (float2)(kvcl_tree8(vload8(0, z0)), kvcl_tree8(vload8(0, z1)));
}

static place place_in(__local float4 *mem, uint D)
{
    place w;
    w.s = mem;
    w.qs = (__local float *)(w.s + PAGES * TOKENS);
    w.red = w.qs + ROWS * D;
    w.stat = w.red + PAGES * ROWS * L;
    w.level = (__local int *)(w.stat + 6 * PAGES * ROWS);
    w.codes = (__local short4 *)(w.level + 32);
    w.qp = (__local float4 *)(w.level + 32);
    w.keys = (__local short *)(w.qp + D);
    return w;
}

// Levels of both kinds of codes.
static void load_levels(place w, uint items)
{
    EACH(i, 32)
    {
        uint bits = i < 16 ? BITS_K : BITS_V;
        w.level[i] = bits < 8 && i % 16 < 1u << bits ? kvcl_quant_level(bits, i % 16) : 0;
    }
}

__kernel void kvcl_attn_quant(KVCL_ATTN_QUANT_PARAMS, __local float4 *mem)
{
    uint items = (uint)get_local_size(0);
    uint G = n_q_heads / n_kv_heads, row0 = (uint)get_group_id(1) * ROWS;
    kvcl_block b = kvcl_block_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    // pages behind the last row's query stay out, but one (PoCL fails on loops with barriers that
    // end before they begin)
    b.last = min(b.last, (pos0 + (min(row0 + ROWS, n * G) - 1) / G) / TOKENS);
    uint n_pages = b.last < b.first ? 1 : b.last - b.first + 1;
    uint c0 = b.first % PAGES, c1 = c0 + n_pages - 1;
    __global const float *mean =
        means + means_off + b.hk * D + (ulong)kvcl_mean_epoch(b.first / PAGES) * 2 * n_kv_heads * D;
    place w = place_in(mem, D);
    load_levels(w, items);
    load_rows(w, q + q_off, q_stride, b.hk, row0, n * G, G, D, scale, items);
    kvcl_head at[PAGES];
    for (uint c = c0; c < c0 + n_pages; c++)
        at[c] = kvcl_head_of(FORM, BITS_K, BITS_V, pool + pool_off,
                             (uint)pages[pages_off + b.first + c - c0 - begin / TOKENS], b.hk,
                             n_kv_heads, D);
    SYNC;
#if FORM == PRE
    for (uint c = c0; c < c0 + n_pages; c++)
        scores_page(w, at[c], c, b.first + c - c0, D, mean, table + table_off, n_rot, pairing,
                    items);
#else
    for (uint c = c0; c < (FORM == CHANNEL ? c0 + n_pages : c0 + 1); c++)
        codes_of(w, at[c], FORM == CHANNEL ? c : 0, D, mean, items);
    EACH(i, n_pages * TOKENS)
    {
        uint c = c0 + i / TOKENS;
        w.s[c0 * TOKENS + i] = score4(w, at[c], c, i % TOKENS, D);
    }
#endif
    SYNC;
    weights(w, b, c0, c1, row0, G, n, pos0, begin, end, items);
    quantise_weights(w, at, c0, c1, kvcl_head_up(kvcl_head_log2(D)), items);
    block_stats(w, c0, c1, items);
    EACH(i, ROWS / 2 * D)
    {
        uint r = i / D * 2, d = kvcl_rest(i, i / D, D);
        float2 z = values2(w, at, c0, c1, d, r, D);
        w.qs[r * D + d] = z.x;
        w.qs[(r + 1) * D + d] = z.y;
    }
    fwht_local(w.qs, ROWS * D, 1u << kvcl_head_log2(D), items);
    EACH(i, ROWS * D)
    {
        uint r = i / D, d = kvcl_rest(i, r, D), row = row0 + r, query = row / G;
        if (row >= n * G || STAT(M, 0, r) == -INFINITY)
            continue;
        ulong to =
            ((ulong)query * n_q_heads + b.hk * G + kvcl_rest(row, query, G)) * n_parts + b.part;
        o[o_off + to * D + d] = kvcl_zero(fma(STAT(SUM, 0, r), mean[n_kv_heads * D + d], w.qs[i]));
        if (d == 0)
            vstore2((float2)(STAT(M, 0, r), STAT(SUM, 0, r)), to, ml + ml_off);
    }
}

#endif
