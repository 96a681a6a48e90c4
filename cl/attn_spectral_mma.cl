// attn_spectral_mma.cl - attention by block partials over spectral pages on NVIDIA's integer tensor
// cores (compute capability 8.0 on).  Twin: cpu/attn_spectral.c; what it shares with the other
// shape: cl/attn_spectral_rows.cl
//
// KVCL_SPEC: tokens of a slot, + 16 * (head_dim / 64), + 64 where rotation pairs halves.  Assumes
// (checked by the host half): head_dim 64 or 128; pool, basis and table aligned to 16 bytes, n_rot
// a multiple of 4.
//
// kvcl_attn_spectral_mma: a group of 256 items per block and KV head (dimension 0) and four rows
// (dimension 1).  Keys come in tiles of 32 tokens: their coefficients x^ as two planes of bytes in
// local memory; h by tensor cores, a warp 32 dimensions of 8 or 16 tokens, with the basis in
// registers; there to floats and turned, since a lane gets both dimensions of each pair.  One warp
// scores a tile, an item a token, while the group makes the coefficients of the next.  Values: an
// item a component of a page.
//   h = 256 high + low: both sums stay below 2^22, so that they start at the bits of KVCL_ROUND and
//   are floats at once, and one fma rounds h as a conversion does.
//   local memory: 42 KiB

#if KVCL_PTX && !KVCL_VECTOR_SHAPE

#define DIM (64 * (KVCL_SPEC >> 4 & 3u))
#define HALVES (KVCL_SPEC >> 6 & 1u)
#define GROUP 256
#define TILE 32           // tokens
#define X_WORDS (DIM / 4) // of a token's coefficients in a plane
#define PARTS (DIM / 64)  // of 64 components; also a warp's tiles of 8 tokens
#define PITCH (DIM + 4)   // floats from a token's key to the next: neighbours on other banks
#define WARP_DIMS 16
#define AT_ONCE (FOLD < 4 ? 4 / FOLD : 1) // slots of an item's coefficients
// Components of them whose words an item asks for together: what registers allow.
#if (KVCL_SPEC & 15) < 4
#define SOME _Pragma("unroll 4") for
#elif (KVCL_SPEC & 15) == 4
#define SOME _Pragma("unroll 2") for
#else
#define SOME _Pragma("unroll 1") for
#endif

// ---- coefficients -------------------------------------------------------------------------------

// Levels of the codes of less than 8 bits: [plane][16], and as bytes.
INLINE void make_levels(__local int *levels, __local uint *bytes)
{
    uint i = (uint)get_local_id(0), bits = 8u >> i / 16;
    if (i >= 16 && i < 64)
        levels[i] = kvcl_quant_level(bits, i % (1u << bits));
    if (i >= 4 && i < 16)
        bytes[i] = kvcl_levels4(8u >> i / 4, i % 4 * 4, 0);
}

INLINE int level_of(uint place, uint word, __local const int *levels)
{
    uint plane = place >> 24, shift = place >> 16 & 31u, mask = (1u << (8u >> plane)) - 1u;
    int wide = (int)(word << (24u - shift & 31u)) >> 24;
    int narrow = levels[16 * plane + (word >> shift & mask & 15u)];
    return plane == 0 ? wide : narrow;
}

// First word of the codes of a place; any where there is none: their factor is 0.
INLINE uint word_of(uint place) { return place == KVCL_NO_PLACE ? 0 : (place & 0xffffu) * SLOTS; }

// Levels of four slots' codes at a place, a byte each; table: its plane's levels.
INLINE uint levels4(uint place, uint4 table, uint4 word)
{
    uint plane = place >> 24, shift = place >> 16 & 31u, which = shift / 8 * 0x11u + 0x40u;
    uint bytes =
        kvcl_pick(kvcl_pick(word.x, word.y, which), kvcl_pick(word.z, word.w, which), 0x5410);
    uint codes = bytes >> (shift & 7u) & ((1u << (8u >> plane)) - 1u) * 0x01010101u;
    uint pairs = codes | codes >> 4; // two to a byte, in the first and the third
    uint index = kvcl_pick(pairs, pairs, 0x2020), upper = kvcl_pick(codes << 4, 0, 0xba98);
    uint low = kvcl_pick(table.x, table.y, index & 0x7777u);
    uint high = kvcl_pick(table.z, table.w, index & 0x7777u);
    return plane == 0 ? bytes : (low & ~upper) | (high & upper);
}

// Place of word i of a token's coefficients: parts of two neighbours are on different banks.
INLINE uint x_word(uint token, uint i)
{
    return token * X_WORDS + (i / 16 + token) % PARTS * 16 + i % 16;
}

// Levels of an item's slots at a place.
INLINE void load_levels(uint place, __global const uint *from, __local const int *levels,
                        __local const uint4 *tables, int *level)
{
#if (KVCL_SPEC & 15) == 1
    uint four = levels4(place, tables[place >> 24], *(__global const uint4 *)from);
    level[0] = (char)four;
    level[1] = (char)(four >> 8);
    level[2] = (char)(four >> 16);
    level[3] = (char)(four >> 24);
#elif (KVCL_SPEC & 15) == 2
    uint2 v = *(__global const uint2 *)from;
    level[0] = level_of(place, v.x, levels);
    level[1] = level_of(place, v.y, levels);
#else
    level[0] = level_of(place, *from, levels);
#endif
}

// Coefficients of the tile at slot `first` of a page to planes x [2][TILE][X_WORDS], low bytes
// first.
INLINE void make_coefficients(const kvcl_spectral_part *k, __global const uint *words, uint first,
                              __local const int *levels, __local const uint4 *tables,
                              __local uint *x)
{
    for (uint at = (uint)get_local_id(0); at < X_WORDS * (TILE / FOLD / AT_ONCE); at += GROUP) {
        uint quad = at % X_WORDS, slot = at / X_WORDS * AT_ONCE;
        uint low[AT_ONCE * FOLD] = {0}, high[AT_ONCE * FOLD] = {0};
        SOME(uint e = 0; e < 4; e++)
        {
            int c[AT_ONCE * FOLD];
            LOOP(uint r = 0; r < FOLD; r++)
            {
                uint p = kvcl_spectral_place(k, r * DIM + 4 * quad + e);
                int f = k->factor[r * DIM + 4 * quad + e], level[AT_ONCE];
                load_levels(p, words + word_of(p) + first + slot, levels, tables, level);
                LOOP(uint s = 0; s < AT_ONCE; s++) c[s * FOLD + r] = (level[s] * f + 64) >> 7;
            }
            LOOP(uint h = 1; h < FOLD; h *= 2) LOOP(uint j = 0; j < AT_ONCE * FOLD; j++)
            {
                if ((j & h) == 0)
                    KVCL_BUTTERFLY(int, c[j], c[j + h])
            }
            uint keep = 0x3210u & ~(15u << 4 * e); // the other three bytes
            LOOP(uint j = 0; j < AT_ONCE * FOLD; j++)
            {
                low[j] = kvcl_pick(low[j], (uint)c[j], keep | 4u << 4 * e);
                high[j] = kvcl_pick(high[j], (uint)c[j], keep | 5u << 4 * e);
            }
        }
        LOOP(uint j = 0; j < AT_ONCE * FOLD; j++)
        {
            __local uint *to = x + x_word(slot * FOLD + j, quad);
            to[0] = low[j];
            to[TILE * X_WORDS] = high[j];
        }
    }
}

// ---- keys ---------------------------------------------------------------------------------------

// The dimensions of pair p of the head, a lane's.
typedef struct lane_dims {
    uint p, a, b;
} lane_dims;

INLINE lane_dims dims_of(uint n_rot)
{
    uint lid = (uint)get_local_id(0), p = lid / 32 % (DIM / WARP_DIMS) * 8 + lid % 32 / 4;
    uint mid = n_rot / 2;
    lane_dims r = {p, 2 * p, 2 * p + 1};
    if (HALVES) {
        r.a = p < mid ? p : p + mid;
        r.b = p < mid ? p + mid : r.a + (DIM - n_rot) / 2;
    }
    return r;
}

// The basis of a lane's dimensions, for each 32 components.
INLINE void load_basis(__global const uint *synth, lane_dims at, uint (*s)[4])
{
    uint i = (uint)get_local_id(0) % 4;
    LOOP(uint k = 0; k < 2 * PARTS; k++)
    {
        __global const uint *from = synth + (k / 2 * 16 + 4 * i + k % 2 * 2) * DIM;
        s[k][0] = from[at.a];
        s[k][1] = from[at.b];
        s[k][2] = from[DIM + at.a];
        s[k][3] = from[DIM + at.b];
    }
}

// A key from the bits of its sums.
INLINE float key_of(int low, int high, float step, float mean)
{
    float h = fma(256.0f, as_float(high) - KVCL_ROUND, as_float(low) - KVCL_ROUND);
    return fma(step, h, mean);
}

// Keys of the tile at token t0 of a page, turned, from its coefficients.
INLINE void make_keys(uint t0, lane_dims at, uint (*s)[4], float2 mean, __local const float *steps,
                      __local const uint *x, __global const float *table, uint n_rot,
                      __local float *keys)
{
    uint lid = (uint)get_local_id(0), lane = lid % 32, i = lane % 4;
    uint turned = at.p < n_rot / 2;
    _Pragma("unroll 2") for (uint nt = 0; nt < DIM / 32; nt++)
    {
        uint first = (lid / 32 / (DIM / WARP_DIMS) * (DIM / 32) + nt) * 8;
        uint row = first + lane / 4, token = first + 2 * i;
        const int start = (int)KVCL_ROUND_BITS;
        int4 low = (int4)(start), high = (int4)(start);
        float2 cs[2] = {(float2)(1.0f, 0.0f), (float2)(1.0f, 0.0f)};
        if (turned) {
            cs[0] = *(__global const float2 *)(table + (t0 + token) * n_rot + 2 * at.p);
            cs[1] = *(__global const float2 *)(table + (t0 + token + 1) * n_rot + 2 * at.p);
        }
        LOOP(uint part = 0; part < PARTS; part++)
        {
            __local const uint4 *b4 = (__local const uint4 *)(x + x_word(row, 16 * part + 4 * i));
            uint4 l4 = b4[0], h4 = b4[TILE * X_WORDS / 4];
            uint *c = s[2 * part], *d = s[2 * part + 1];
            low = kvcl_mma_low(c[0], c[1], c[2], c[3], l4.xy, low);
            high = kvcl_mma(c[0], c[1], c[2], c[3], h4.xy, high);
            low = kvcl_mma_low(d[0], d[1], d[2], d[3], l4.zw, low);
            high = kvcl_mma(d[0], d[1], d[2], d[3], h4.zw, high);
        }
        float2 step = *(__local const float2 *)(steps + token);
        float2 v[2] = {
            (float2)(key_of(low.x, high.x, step.x, mean.x), key_of(low.z, high.z, step.x, mean.y)),
            (float2)(key_of(low.y, high.y, step.y, mean.x), key_of(low.w, high.w, step.y, mean.y))};
        LOOP(uint j = 0; j < 2; j++)
        {
            __local float *to = keys + (token + j) * PITCH;
            float2 u = kvcl_turn(v[j], cs[j]);
            u = turned ? u : v[j];
            if (HALVES) {
                to[at.a] = u.x;
                to[at.b] = u.y;
            } else {
                *(__local float2 *)(to + at.a) = u;
            }
        }
    }
}

// Score of a token for the four rows.  What a step needs is asked for a step ahead.
INLINE float4 score_of(__local const float *key, __local const float4 *qp)
{
    float4 sum = (float4)(0.0f), k = *(__local const float4 *)key;
    float4 q0 = qp[0], q1 = qp[1], q2 = qp[2], q3 = qp[3];
#pragma unroll 2
    for (uint d = 0; d < DIM; d += 4) {
        uint next = d + 4 < DIM ? d + 4 : 0;
        float4 k_next = *(__local const float4 *)(key + next);
        float4 n0 = qp[next], n1 = qp[next + 1], n2 = qp[next + 2], n3 = qp[next + 3];
        sum = fma(q0, (float4)(k.x), sum);
        sum = fma(q1, (float4)(k.y), sum);
        sum = fma(q2, (float4)(k.z), sum);
        sum = fma(q3, (float4)(k.w), sum);
        k = k_next;
        q0 = n0;
        q1 = n1;
        q2 = n2;
        q3 = n3;
    }
    return kvcl_zero4(sum);
}

// ---- values -------------------------------------------------------------------------------------

// Integer weights of pages c0 .. c1 as bytes, W = 128 high + low: of entry k and slots 4 q .. 4 q +
// 3 of a page, four rows' high halves and four rows' low ones, at [page][k][q].
INLINE void split_weights(place w, uint c0, uint c1, __local uint *out)
{
    for (uint at = (uint)get_local_id(0); at < (c1 - c0 + 1) * TOKENS; at += GROUP) {
        uint r = at % ROWS, quad = at / ROWS % (TOKENS / 4), c = c0 + at / TOKENS;
        uint k = quad / (SLOTS / 4), q = quad % (SLOTS / 4);
        __local const int *from = (__local const int *)(w.s + c * TOKENS + 4 * q * FOLD + k) + r;
        uint high[4], low[4];
        LOOP(uint e = 0; e < 4; e++)
        {
            int v = from[e * FOLD * ROWS], h = (v + 64) >> 7;
            high[e] = (uint)h;
            low[e] = (uint)(v - 128 * h);
        }
        __local uint *to = out + (c * (TOKENS / 4) + quad) * 2 * ROWS + r;
        to[0] = kvcl_bytes4(high);
        to[ROWS] = kvcl_bytes4(low);
    }
    SYNC;
}

// Component i of a page's values: sums with the weights of the four rows.
INLINE float4 page_values(const kvcl_spectral_part *v, __global const uint *words,
                          __local const uint4 *weights, __local const uint4 *tables, uint i)
{
    float4 all = (float4)(0.0f);
    for (uint k = 0; k < FOLD; k++) {
        uint p = kvcl_spectral_place(v, k * DIM + i);
        __global const uint4 *from = (__global const uint4 *)(words + word_of(p));
        uint4 table = tables[p >> 24];
        int4 high = (int4)(0), low = (int4)(0);
        if (p == KVCL_NO_PLACE)
            continue;
#pragma unroll 4
        for (uint q = 0; q < SLOTS / 4; q++) {
            uint level = levels4(p, table, from[q]);
            uint4 h = weights[2 * (k * (SLOTS / 4) + q)],
                  l = weights[2 * (k * (SLOTS / 4) + q) + 1];
            high.x = kvcl_dot4(level, h.x, high.x);
            high.y = kvcl_dot4(level, h.y, high.y);
            high.z = kvcl_dot4(level, h.z, high.z);
            high.w = kvcl_dot4(level, h.w, high.w);
            low.x = kvcl_dot4(level, l.x, low.x);
            low.y = kvcl_dot4(level, l.y, low.y);
            low.z = kvcl_dot4(level, l.z, low.z);
            low.w = kvcl_dot4(level, l.w, low.w);
        }
        all = fma(convert_float4(128 * high + low), (float4)(v->factor[k * DIM + i]), all);
    }
    return all;
}

// z of the four rows to z [DIM], by the tree over pages; pairs: room.
INLINE void make_values(place w, const kvcl_spectral_part *v, ulong page_words, uint c0, uint c1,
                        __local const uint4 *weights, __local const uint4 *tables,
                        __local float4 *pairs, __local float4 *z)
{
    for (uint at = (uint)get_local_id(0); at < 4 * DIM; at += GROUP) {
        uint i = at % DIM, from = at / DIM;
        float4 sum[2] = {(float4)(0.0f), (float4)(0.0f)};
        LOOP(uint j = 0; j < 2; j++)
        {
            uint c = from + 4 * j;
            if (c >= c0 && c <= c1 && i < v->head.n_comp) {
                float4 all = page_values(v, v->words + page_words * w.slots[c],
                                         weights + c * (TOKENS / 2), tables, i);
                float4 unit = *(__local const float4 *)&STAT(FACTOR, c, 0);
                sum[j] = *(__local const float4 *)&STAT(INVERSE, c, 0) * (all * unit);
            }
        }
        pairs[at] = sum[0] + sum[1];
    }
    SYNC;
    for (uint i = (uint)get_local_id(0); i < DIM; i += GROUP)
        z[i] = kvcl_zero4((pairs[i] + pairs[2 * DIM + i]) + (pairs[DIM + i] + pairs[3 * DIM + i]));
    SYNC;
}

// Dimension d of two rows' outputs, before the mean.
INLINE float2 output2(__global const uint *synth, uint n_comp, __local const float2 *z, uint d)
{
    float2 sum = (float2)(0.0f);
#pragma unroll 4
    for (uint i = 0; i < n_comp; i += 4) {
        float4 s = convert_float4(as_char4(synth[i / 4 * DIM + d]));
        sum = fma((float2)(s.x), z[2 * i], sum);
        sum = fma((float2)(s.y), z[2 * i + 2], sum);
        sum = fma((float2)(s.z), z[2 * i + 4], sum);
        sum = fma((float2)(s.w), z[2 * i + 6], sum);
    }
    return sum;
}

// Asks for the codes and norms of the block's pages, a line of 128 bytes at a time.
INLINE void prefetch_line(__global const uchar *at)
{
    __asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}
INLINE void prefetch(__global const uchar *pool, __global const uchar *basis, ulong page_words,
                     uint words_k, uint words_v, uint n_kv_heads, kvcl_block b,
                     __local const uint *slots)
{
    uint lid = (uint)get_local_id(0), per = (words_k + words_v) / (2 * n_kv_heads) * SLOTS / 32 + 1;
    for (uint i = lid; i < 2 * per * (b.last - b.first + 1); i += GROUP) {
        uint page = i / (2 * per), j = i - page * 2 * per;
        uint of_v = j >= per;
        j -= of_v * per;
        prefetch_line(pool +
                      (page_words * slots[page] + (of_v ? words_k * SLOTS : 0) +
                       b.hk * ((of_v ? words_v : words_k) / n_kv_heads) * SLOTS) *
                          4 +
                      128 * j);
    }
}

// Where tiles of keys are made.
typedef struct tile_place {
    __local float4 *qp; // [2][DIM]: rows turned back by a page, of the last two pages
    __local uint4 *x;   // coefficients
    __local float *keys, *steps;
    const __local int *levels;
    const __local uint4 *tables;
} tile_place;

// Scores of pages c0 .. c1: each round makes a tile's keys while one warp scores the tile before.
static void make_scores(place w, tile_place tp, const kvcl_spectral_part *k, kvcl_block b, uint c0,
                        uint c1, ulong page_words, lane_dims at, uint s[2 * PARTS][4],
                        float2 k_mean, __global const float *table, uint n_rot, uint pairing)
{
    uint lid = (uint)get_local_id(0), items = GROUP, n_tiles = (c1 - c0 + 1) * (TOKENS / TILE);
    for (uint tile = 0; tile <= n_tiles; tile++) {
        uint c = c0 + tile / (TOKENS / TILE), t0 = tile % (TOKENS / TILE) * TILE;
        if (tile < n_tiles) {
            ulong page = page_words * w.slots[c];
            make_coefficients(k, k->words + page, t0 / FOLD, tp.levels, tp.tables,
                              (__local uint *)tp.x);
            if (lid < TILE)
                tp.steps[lid] =
                    k->head.quantum * vload_half((t0 + lid) / FOLD, k->norms + 2 * page);
            if (t0 == 0) {
                w.qp = tp.qp + c % 2 * DIM;
                turn_rows(w, b.first + c - c0, DIM, table, n_rot, pairing, items);
            }
        }
        if (tile > 0 && lid / 32 == tile % 8) {
            uint was = tile - 1, page = c0 + was / (TOKENS / TILE);
            uint token = was % (TOKENS / TILE) * TILE + lid % 32;
            w.s[page * TOKENS + token] =
                score_of(tp.keys + lid % 32 * PITCH, tp.qp + page % 2 * DIM);
        }
        SYNC;
        if (tile < n_tiles)
            make_keys(t0, at, s, k_mean, tp.steps, (__local const uint *)tp.x, table, n_rot,
                      tp.keys);
        SYNC;
    }
}

// Outputs of the rows in parts, from z of their pairs.
static void put_outputs(place w, kvcl_block b, const kvcl_spectral_part *v, __local const float2 *z,
                        __global const float *mean, uint row0, uint n_rows, uint G, uint n_q_heads,
                        uint n_parts, __global float *ml, __global float *o)
{
    for (uint i = (uint)get_local_id(0); i < ROWS / 2 * DIM; i += GROUP) {
        uint pair = i / DIM, d = i % DIM;
        float2 sum = output2((__global const uint *)v->synth, v->head.n_comp, z + pair, d);
        for (uint j = 0; j < 2; j++) {
            uint r = 2 * pair + j, row = row0 + r, query = row / G;
            if (row >= n_rows || STAT(M, 0, r) == -INFINITY)
                continue;
            ulong to =
                ((ulong)query * n_q_heads + b.hk * G + kvcl_rest(row, query, G)) * n_parts + b.part;
            o[to * DIM + d] = kvcl_zero(fma(STAT(SUM, 0, r), mean[d], j == 0 ? sum.x : sum.y));
            if (d == 0)
                vstore2((float2)(STAT(M, 0, r), STAT(SUM, 0, r)), to, ml);
        }
    }
}

// ---- the kernel ---------------------------------------------------------------------------------

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
kvcl_attn_spectral_mma(KVCL_ATTN_QUANT_PARAMS, __global const uchar *basis, ulong basis_off,
                       uint words_k, uint words_v)
{
    __local float4 scores[PAGES * TOKENS], qs4[ROWS * DIM / 4], qp[2 * DIM];
    __local float4 stat4[6 * PAGES * ROWS / 4], red4[PAGES * ROWS * L / 4];
    __local uint4 x4[2 * TILE * X_WORDS / 4];
    __local float4 keys4[TILE * PITCH / 4], steps4[TILE / 4];
    __local int levels[64];
    __local uint4 tables[4];
    __local uint slots[PAGES];
    uint lid = (uint)get_local_id(0), items = GROUP;
    uint G = n_q_heads / n_kv_heads, row0 = (uint)get_group_id(1) * ROWS;
    kvcl_block b = kvcl_block_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    // pages behind the last row's query stay out
    b.last = min(b.last, (pos0 + (min(row0 + ROWS, n * G) - 1) / G) / TOKENS);
    if (b.first > b.last)
        return;
    uint c0 = b.first % PAGES, c1 = b.last % PAGES;
    place w = {.s = scores,
               .qs = (__local float *)qs4,
               .red = (__local float *)red4,
               .stat = (__local float *)stat4,
               .slots = slots};
    __global const float *mean = means + means_off + b.hk * DIM;
    ulong page_words = (ulong)(words_k + words_v + n_kv_heads) * SLOTS;
    table += table_off;
    kvcl_spectral_part k;
    kvcl_spectral_of(&k, FOLD, DIM, n_kv_heads, words_k, words_v, basis + basis_off,
                     (__global uchar *)pool + pool_off, 0, 0, b.hk);
    make_levels(levels, (__local uint *)tables);
    if (lid <= c1 - c0)
        slots[c0 + lid] = (uint)pages[pages_off + b.first + lid - begin / TOKENS];
    load_rows(w, q + q_off, q_stride, b.hk, row0, n * G, G, DIM, scale, items);
    uint s[2 * PARTS][4];
    lane_dims at = dims_of(n_rot);
    load_basis((__global const uint *)k.synth, at, s);
    float2 k_mean = (float2)(mean[at.a], mean[at.b]);
    SYNC;
    prefetch(pool + pool_off, basis + basis_off, page_words, words_k, words_v, n_kv_heads, b,
             slots + c0);
    tile_place tp = {qp, x4, (__local float *)keys4, (__local float *)steps4, levels, tables};
    make_scores(w, tp, &k, b, c0, c1, page_words, at, s, k_mean, table, n_rot, pairing);
    kvcl_spectral_part v;
    kvcl_spectral_of(&v, FOLD, DIM, n_kv_heads, words_k, words_v, basis + basis_off,
                     (__global uchar *)pool + pool_off, 0, 1, b.hk);
    weights(w, b, c0, c1, row0, G, n, pos0, begin, end, items);
    fold_weights(w, v.norms, page_words, c0, c1, v.head.quantum * 0.0078125f, items); // 2^-7
    block_stats(w, c0, c1, items);
    __local uint4 *weights4 = (__local uint4 *)(keys4 + 4 * DIM);
    split_weights(w, c0, c1, (__local uint *)weights4);
    make_values(w, &v, page_words, c0, c1, weights4, tables, keys4, qs4);
    put_outputs(w, b, &v, (__local const float2 *)qs4, mean + n_kv_heads * DIM, row0, n * G, G,
                n_q_heads, n_parts, ml + ml_off, o + o_off);
}

#endif
