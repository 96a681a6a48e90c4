// attn_quant_mma.cl - attention by block partials over quant pages on NVIDIA's integer tensor cores
// (compute capability 8.0 on).  Twin: cpu/attn_quant.c; what is assumed besides: attn_quant.cl
//
// KVCL_SPEC: bits of K, + 16 * bits of V, + 256 * form, + 1024 * (head_dim / 32), + 16384 * TILES,
// PRE: + 65536 * pairing.  Assumes (checked by the host half): the pool is aligned to 16 bytes;
// head_dim a multiple of 64, TILES * head_dim at most 256; PRE: head_dim 64 or 128, all of it
// rotated (or no pairing), and TILES 1.
//
// kvcl_attn_quant_mma: a group of 256 items per block and KV head (dimension 0) and ROWS rows
// (dimension 1).  Warp c does page c of the block alone: scores, weights, values; the group meets
// for queries, the block's maximum and the tree over pages.  Exact sums: mma.cl.
//   local memory: 18 to 41 KiB, see kvcl_attn_quant_mma

#if KVCL_PTX && !KVCL_VECTOR_SHAPE

#define BITS_K (KVCL_SPEC & 15)
#define BITS_V (KVCL_SPEC >> 4 & 15)
#define FORM (KVCL_SPEC >> 8 & 3)
#define DIM (32 * (KVCL_SPEC >> 10 & 15))
#define TILES (KVCL_SPEC >> 14 & 3)
#define PAIRING (KVCL_SPEC >> 16 & 3)
#define PRE KVCL_QUANT_PRE
#define POST KVCL_QUANT_POST
#define CHANNEL KVCL_QUANT_CHANNEL

#define ROWS (4 * TILES) // query heads of some queries, all of one KV head
#define PAGES KVCL_BLOCK
#define TOKENS KVCL_TOKENS
#define GROUP 256
#define PARTS (DIM / 32) // a lane's values of a row: dimensions lane + 32 k

KVCL_DEFINE_KIND(k, BITS_K, TOKENS, DIM)
KVCL_DEFINE_KIND(v, BITS_V, DIM, TOKENS)
KVCL_DEFINE_FWHT_WARP(DIM)

// ---- integers of queries ------------------------------------------------------------------------

// The integers of a row g by a warp, and the row's sum of qs[d] mean[d]: (quantum, sum).
INLINE float2 integers_of(uint r, const float *g, const float *qs, const float *mean,
                          __local char *block)
{
    uint lane = (uint)get_local_id(0) % 32;
    float even = 0.0f, odd = 0.0f, amax = 0.0f;
    LOOP(uint k = 0; k < PARTS; k++)
    {
        if (k % 2 == 0)
            even = fma(qs[k], mean[k], even);
        else
            odd = fma(qs[k], mean[k], odd);
        amax = fmax(amax, fabs(g[k]));
    }
    float sum = even + odd;
    LOOP(uint h = 16; h > 0; h /= 2) sum = sum + kvcl_from_lane(sum, h);
    amax = kvcl_warp_max(amax);
    float inv = kvcl_q15_inv(amax);
    LOOP(uint k = 0; k < PARTS; k++)
    kvcl_store_integer(g[k] * inv, block + kvcl_integer_at(BITS_K, DIM, r, lane + 32 * k));
    return (float2)(kvcl_q15_quantum(amax), kvcl_zero(sum));
}

// ---- scores -------------------------------------------------------------------------------------

#define K_WORDS (QUADS(BITS_K, DIM) * WORDS(BITS_K))
#define V_WORDS (QUADS(BITS_V, TOKENS) * WORDS(BITS_V))
#define K_STEPS STEPS(BITS_K, DIM)
#define V_STEPS STEPS(BITS_V, TOKENS)
#define BLOCK_WORDS(steps) (TILES * (steps)*64)
#define PITCH 72 // floats from one row's weights to the next: neighbours on other banks
#define Z_PITCH (DIM + 8)
#define WEIGHTS (ROWS * PITCH + BLOCK_WORDS(V_STEPS))
#define SCRATCH (WEIGHTS > ROWS * Z_PITCH ? WEIGHTS : ROWS * Z_PITCH) // of a warp

// A row of the group.
typedef struct row {
    uint query, head, valid;
} row;

INLINE row row_of(uint r, uint n, uint G, uint hk)
{
    uint at = (uint)get_group_id(1) * ROWS + r, last = min(at, n * G - 1), query = last / G;
    row x = {query, hk * G + kvcl_rest(last, query, G), at < n * G};
    return x;
}

INLINE int2 row_sees(uint r, uint page, uint n, uint G, uint pos0, uint begin, uint end)
{
    return kvcl_seen_of(page, pos0 + row_of(r, n, G, 0).query, begin, end);
}

// Scores of a lane's tokens (row 4 i + lane % 4, tokens 32 j + lane / 4 * 4 ..) in s[i][j].
INLINE void scores_of(kvcl_head at, const uint4 (*raw)[K_WORDS], __local const uint *integers,
                      __local const float2 *stats, float4 (*s)[2])
{
    uint lane = (uint)get_local_id(0) % 32;
    float up = kvcl_head_up(kvcl_head_log2(DIM));
    uint2 x[TILES * K_STEPS];
    load_integers_k(integers, x);
    LOOP(uint j = 0; j < 2; j++)
    {
        int4 sum[TILES];
        sum_words_k(raw[j], x, sum);
        float4 step = kvcl_half_four(at.k_scales, 8 * j + lane / 4);
        LOOP(uint i = 0; i < TILES; i++)
        {
            float2 stat = stats[4 * i + lane % 4];
            float4 v = convert_float4(sum[i]), beta = (float4)(stat.y);
#if FORM == CHANNEL
            v = fma(v, (float4)(stat.x), beta);
#else
            v = fma(v * (stat.x * up), step, beta);
#endif
            s[i][j] = kvcl_zero4(v);
        }
    }
}

// ---- weights ------------------------------------------------------------------------------------

INLINE float masked(float s, int t, int2 seen) { return t >= seen.x && t < seen.y ? s : -INFINITY; }

// Scores of row 4 i + lane % 4 to integer weights in the block; returns (m, quantum * up).
INLINE float2 weights_of(uint i, float4 s0, float4 s1, int2 seen, __global const half *scales,
                         __local float *p, __local char *block)
{
    uint lane = (uint)get_local_id(0) % 32, r = 4 * i + lane % 4;
    float4 s[2] = {s0, s1}, w[2];
    float m = -INFINITY, amax = 0.0f;
    LOOP(uint j = 0; j < 2; j++)
    {
        int t = (int)(32 * j + lane / 4 * 4);
        if (seen.x > 0 || seen.y < TOKENS)
            s[j] = (float4)(masked(s[j].x, t, seen), masked(s[j].y, t + 1, seen),
                            masked(s[j].z, t + 2, seen), masked(s[j].w, t + 3, seen));
        m = fmax(m, kvcl_largest4(s[j]));
    }
    m = kvcl_rows_max(m);
    LOOP(uint j = 0; j < 2; j++)
    {
        float4 e = s[j] - m; // not a number when the row sees nothing
        if (seen.x < seen.y)
            e = (float4)(kvcl_exp(e.x), kvcl_exp(e.y), kvcl_exp(e.z), kvcl_exp(e.w));
        else
            e = (float4)(0.0f);
        *(__local float4 *)(p + r * PITCH + 32 * j + lane / 4 * 4) = e;
        w[j] = e * kvcl_half_four(scales, 8 * j + lane / 4);
        amax = fmax(amax, kvcl_largest4(fabs(w[j])));
    }
    amax = kvcl_rows_max(amax);
    float inv = kvcl_q15_inv(amax);
    LOOP(uint j = 0; j < 2; j++)
    {
        uint t = 32 * j + lane / 4 * 4;
        kvcl_store_integer(w[j].x * inv, block + kvcl_integer_at(BITS_V, TOKENS, r, t));
        kvcl_store_integer(w[j].y * inv, block + kvcl_integer_at(BITS_V, TOKENS, r, t + 1));
        kvcl_store_integer(w[j].z * inv, block + kvcl_integer_at(BITS_V, TOKENS, r, t + 2));
        kvcl_store_integer(w[j].w * inv, block + kvcl_integer_at(BITS_V, TOKENS, r, t + 3));
    }
    return (float2)(m, kvcl_q15_quantum(amax) * kvcl_head_up(kvcl_head_log2(DIM)));
}

// ---- PRE: keys as they are after rotation -------------------------------------------------------

#if FORM == PRE

#define MID (DIM / 2)
// H200, 2026-11-22: decides whether NVIDIA's compiler stays within 128 registers (two groups)
#if BITS_K < 4
#define HALVES_LOOP _Pragma("unroll 1") for
#else
#define HALVES_LOOP LOOP
#endif
#define CS_PITCH 33 // angles from one pair to the next: neighbours on other banks

// A token's levels, of dimensions d and d + MID in x[d]: their sum with the second times 65536.
INLINE void unpack_token(__global const uint *words, int *x)
{
    LOOP(uint u = 0; u < MID / UNIT(BITS_K); u++)
    {
        uint level[2][4], minus[2][2];
        LOOP(uint i = 0; i < 2; i++)
        {
            uint at = u + i * (MID / UNIT(BITS_K)), odd = at % 2;
            uint low, high = 0;
            if (BITS_K == 8) {
                low = words[2 * at * TOKENS];
                high = words[(2 * at + 1) * TOKENS];
            } else {
                low = words[(BITS_K == 1 ? at / 2 : at) * TOKENS];
                if (BITS_K == 3)
                    high = words[kvcl_plane_begin(1, TOKENS, DIM) + at / 2 * TOKENS];
            }
            kvcl_unpack(BITS_K, low, high, odd, level[i], minus[i]);
        }
        LOOP(uint e = 0; e < UNIT(BITS_K); e++)
        {
            uint slot = kvcl_slot_of(BITS_K, e), b = slot % 4;
            // the two levels as 16 bits each (a nibble above 7 picks a sign)
            int v = (int)kvcl_pick(level[0][slot / 4], level[1][slot / 4], 0xc480 + 0x1111 * b);
            if (BITS_K == 4)
                v -= (int)kvcl_pick(minus[0][slot / 4], minus[1][slot / 4], 0xc480 + 0x1111 * b);
            else
                v -= 2 * (v & 0x8000); // what a negative first one owes the second
            x[u * UNIT(BITS_K) + e] = v;
        }
    }
}

// Scores of a token for four rows.  qp: [DIM] of the rows; cs: [MID][CS_PITCH] angles, by tokens.
INLINE float4 score_turned(int *x, float step, __local const float *mean, __local const float4 *qp,
                           __local const float2 *cs)
{
    float4 sum = (float4)(0.0f);
    LOOP(uint h = 1; h < MID; h *= 2) LOOP(uint d = 0; d < MID; d++)
    {
        if ((d & h) == 0)
            KVCL_BUTTERFLY(int, x[d], x[d + h])
    }
    LOOP(uint d = 0; d < MID; d += 2)
    {
        float k[4];                  // of dimensions d, d + 1, and MID on
        LOOP(uint e = 0; e < 2; e++) // the last stage
        {
            int low = (int)(short)x[d + e], high = (x[d + e] - low) >> 16;
            k[e] = fma(step, (float)(low + high), mean[d + e]);
            k[2 + e] = fma(step, (float)(low - high), mean[d + e + MID]);
        }
        if (PAIRING) {
            uint halves = PAIRING == KVCL_ROPE_HALVES, partner = halves ? 2 : 1;
            LOOP(uint e = 0; e < 2; e++)
            {
                uint a = halves ? e : 2 * e, pair = halves ? d + e : (d + e * MID) / 2;
                float2 v = kvcl_turn((float2)(k[a], k[a + partner]), cs[CS_PITCH * pair]);
                k[a] = v.x;
                k[a + partner] = v.y;
            }
        }
        x[d] = as_int(k[2]);
        x[d + 1] = as_int(k[3]);
        sum = fma(qp[d], (float4)(k[0]), sum);
        sum = fma(qp[d + 1], (float4)(k[1]), sum);
    }
    LOOP(uint d = 0; d < MID; d++) sum = fma(qp[d + MID], (float4)(as_float(x[d])), sum);
    return kvcl_zero4(sum);
}

// Scores of a warp's page, as scores_of gives them.  All warps come here: `cs` is theirs together.
INLINE void page_scores(uint active, uint page, kvcl_head at, __global const float *table,
                        __local const float *qs, __local float *scratch, __local float2 *cs,
                        float4 *s)
{
    uint lid = (uint)get_local_id(0), lane = lid % 32;
    float4 score[2] = {(float4)(0.0f), (float4)(0.0f)};
    for (uint i = lane; i < MID && active; i += 32) { // queries turned back by the page
        uint a = PAIRING == KVCL_ROPE_HALVES ? i : 2 * i;
        uint b = PAIRING == KVCL_ROPE_HALVES ? i + MID : a + 1;
        float2 angle = (float2)(1.0f, 0.0f), v[4];
        if (PAIRING)
            angle = vload2(i, table + (ulong)page * TOKENS * DIM);
        LOOP(uint r = 0; r < 4; r++)
        {
            v[r] = (float2)(qs[r * DIM + a], qs[r * DIM + b]);
            if (PAIRING)
                v[r] = kvcl_turn_back(v[r], angle);
        }
        ((__local float4 *)scratch)[a] = (float4)(v[0].x, v[1].x, v[2].x, v[3].x);
        ((__local float4 *)scratch)[b] = (float4)(v[0].y, v[1].y, v[2].y, v[3].y);
    }
    HALVES_LOOP(uint j = 0; j < 2; j++)
    {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = lid; PAIRING && i < 32 * MID; i += GROUP)
            cs[i % MID * CS_PITCH + i / MID] = vload2(i + j * 32 * MID, table);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (active) {
            int x[MID];
            uint t = 32 * j + lane;
            unpack_token(at.k + t, x);
            float step = kvcl_head_up(kvcl_head_log2(DIM)) * vload_half(t, at.k_scales);
            float4 v =
                score_turned(x, step, qs + ROWS * DIM, (__local const float4 *)scratch, cs + lane);
            score[0] = j == 0 ? v : score[0];
            score[1] = v;
        }
    }
    kvcl_sync_warp();
    LOOP(uint j = 0; j < 2; j++)
    {
        scratch[32 * j + lane] = score[j].x;
        scratch[PITCH + 32 * j + lane] = score[j].y;
        scratch[2 * PITCH + 32 * j + lane] = score[j].z;
        scratch[3 * PITCH + 32 * j + lane] = score[j].w;
    }
    kvcl_sync_warp();
    LOOP(uint j = 0; j < 2; j++)
    s[j] = *(__local float4 *)(scratch + lane % 4 * PITCH + 32 * j + lane / 4 * 4);
    kvcl_sync_warp();
}
#endif

// ---- the kernel ---------------------------------------------------------------------------------

// Row r: the tree over the block's pages, transform, output.
INLINE void finish(uint r, row x, uint c0, uint c1, __local const float *z, __local const float *m,
                   __local const float *l, __global const float *v_mean, __global float *ml,
                   __global float *o)
{
    uint lane = (uint)get_local_id(0) % 32, c = lane % PAGES, there = c >= c0 && c <= c1;
    float v[PARTS], m_page = there ? m[c * ROWS + r] : -INFINITY, m_all = m_page;
    LOOP(uint h = 1; h < PAGES; h *= 2) m_all = fmax(m_all, kvcl_from_lane(m_all, h));
    float sum = m_page > -INFINITY ? kvcl_exp(m_page - m_all) * l[c * ROWS + r] : 0.0f;
    LOOP(uint h = PAGES / 2; h > 0; h /= 2) sum = sum + kvcl_from_lane(sum, h);
    sum = kvcl_zero(sum);
    z += r * Z_PITCH + lane;
#define Z(c) ((c) >= c0 && (c) <= c1 ? z[(c)*SCRATCH + 32 * k] : 0.0f)
    LOOP(uint k = 0; k < PARTS; k++)
    v[k] = ((Z(0) + Z(4)) + (Z(2) + Z(6))) + ((Z(1) + Z(5)) + (Z(3) + Z(7)));
#undef Z
    fwht_warp(v);
    if (!x.valid || m_all == -INFINITY)
        return;
    LOOP(uint k = 0; k < PARTS; k++)
    o[32 * k + lane] = kvcl_zero(fma(sum, v_mean[32 * k + lane], v[k]));
    if (lane == 0)
        vstore2((float2)(m_all, sum), 0, ml);
}

// The group's rows: POST: to integers; else kept as they are.
INLINE void prepare_rows(uint r, row x, __global const float *q, float scale,
                         __global const float *mean, __local float *qs, __local float2 *stats)
{
    uint lane = (uint)get_local_id(0) % 32;
    float v[PARTS];
    LOOP(uint k = 0; k < PARTS; k++) v[k] = q[32 * k + lane] * scale;
#if FORM == POST
    float g[PARTS], mu[PARTS];
    LOOP(uint k = 0; k < PARTS; k++)
    {
        g[k] = v[k];
        mu[k] = mean[32 * k + lane];
    }
    fwht_warp(g);
    float2 stat = integers_of(r, g, v, mu, (__local char *)qs);
    if (lane == 0)
        stats[r] = stat;
#else
    LOOP(uint k = 0; k < PARTS; k++)
    {
        qs[r * DIM + 32 * k + lane] = v[k];
        if (FORM == PRE)
            qs[ROWS * DIM + 32 * k + lane] = mean[32 * k + lane]; // all rows the same
    }
#endif
}

// CHANNEL: the rows times the page's steps to integers, by its warp.
INLINE void page_integers(kvcl_head at, __local const float *qs, __local uint *block,
                          __local float2 *stats)
{
    uint lane = (uint)get_local_id(0) % 32;
    float step[PARTS], mu[PARTS], v[PARTS], g[PARTS];
    kvcl_sync_warp();
    LOOP(uint k = 0; k < PARTS; k++)
    {
        step[k] = vload_half(32 * k + lane, at.k_scales);
        mu[k] = vload_half(DIM + 32 * k + lane, at.k_scales);
    }
    for (uint r = 0; r < ROWS; r++) {
        LOOP(uint k = 0; k < PARTS; k++)
        {
            v[k] = qs[r * DIM + 32 * k + lane];
            g[k] = v[k] * step[k];
        }
        float2 stat = integers_of(r, g, v, mu, (__local char *)block);
        if (lane == 0)
            stats[r] = stat;
    }
    kvcl_sync_warp();
}

// z of a warp's page from scores: row 4 i + lane % 4, dimensions 32 k + lane / 4 * 4 ..; m and l of
// the page's rows.
INLINE void page_partial(kvcl_head at, float4 (*s)[2], const int2 *seen, __local float *scratch,
                         __local float *m, __local float *l, float4 (*z)[PARTS])
{
    uint lane = (uint)get_local_id(0) % 32;
    __local uint *block = (__local uint *)(scratch + ROWS * PITCH);
    uint4 raw[2][V_WORDS];
    float unit[TILES];
    uint2 x[TILES * V_STEPS];
    load_words_v(at.v, 0, raw[0]);
    if (PARTS > 1)
        load_words_v(at.v, 32, raw[1]);
    kvcl_sync_warp();
    LOOP(uint i = 0; i < TILES; i++)
    {
        float2 stat =
            weights_of(i, s[i][0], s[i][1], seen[i], at.v_scales, scratch, (__local char *)block);
        unit[i] = stat.y;
        if (lane < 4)
            m[4 * i + lane] = stat.x;
    }
    kvcl_sync_warp();
    LOOP(uint i = 0; i < TILES; i++)
    {
        float sum = kvcl_weight_sum(scratch + 4 * i * PITCH, PITCH);
        if (lane % 8 == 0)
            l[4 * i + lane / 8] = sum;
    }
    load_integers_v(block, x);
    LOOP(uint k = 0; k < PARTS; k++)
    {
        int4 sum[TILES];
        sum_words_v(raw[k % 2], x, sum);
        if (k + 2 < PARTS)
            load_words_v(at.v, 32 * (k + 2), raw[k % 2]);
        LOOP(uint i = 0; i < TILES; i++) z[i][k] = convert_float4(sum[i]) * unit[i];
    }
}

// A warp's z times the page's weights, to be summed over pages.
INLINE void store_page(uint c, uint c0, uint c1, __local const float *m, float4 (*z)[PARTS],
                       __local float *scratch)
{
    uint lane = (uint)get_local_id(0) % 32;
    LOOP(uint i = 0; i < TILES; i++)
    {
        uint r = 4 * i + lane % 4, e = lane / 4; // of a row's eight lanes each looks at a page
        float m_page = m[c * ROWS + r];
        float m_all = kvcl_rows_max(e >= c0 && e <= c1 ? m[e * ROWS + r] : -INFINITY);
        float w = m_page > -INFINITY ? kvcl_exp(m_page - m_all) : 0.0f;
        LOOP(uint k = 0; k < PARTS; k++) *
            (__local float4 *)(scratch + r * Z_PITCH + 32 * k + lane / 4 * 4) = w * z[i][k];
    }
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
kvcl_attn_quant_mma(KVCL_ATTN_QUANT_PARAMS)
{
    // of each warp: integers or queries; then weights, their integers; in the end z
    __local float4 scratch4[PAGES * SCRATCH / 4];
    __local float4 rows4[FORM == POST ? BLOCK_WORDS(K_STEPS) / 4 : (ROWS + 1) * DIM / 4];
    __local float2 stats[FORM == CHANNEL ? PAGES * ROWS : ROWS];
    __local float m[PAGES * ROWS], l[PAGES * ROWS];
    __local float *rows = (__local float *)rows4;
    uint lane = (uint)get_local_id(0) % 32, warp = (uint)get_local_id(0) / 32;
    uint G = n_q_heads / n_kv_heads, row0 = (uint)get_group_id(1) * ROWS;
    kvcl_block b = kvcl_block_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    // pages behind the last row's query stay out
    b.last = min(b.last, (pos0 + (min(row0 + ROWS, n * G) - 1) / G) / TOKENS);
    if (b.first > b.last)
        return;
    uint c0 = b.first % PAGES, c1 = b.last % PAGES, active = warp >= c0 && warp <= c1;
    uint page = b.first + max(min(warp, c1), c0) - c0;
    uint slot = (uint)pages[pages_off + page - begin / TOKENS];
    kvcl_head at = kvcl_head_of(FORM, BITS_K, BITS_V, pool + pool_off, slot, b.hk, n_kv_heads, DIM);
    means += means_off + kvcl_quant_mean_at(b.first, 0, n_kv_heads, b.hk, DIM);
    __local float *scratch = (__local float *)scratch4 + warp * SCRATCH;
    float4 s[TILES][2], z[TILES][PARTS];
#if FORM != PRE
    uint4 raw[2][K_WORDS];
    load_words_k(at.k, 0, raw[0]);
    load_words_k(at.k, 32, raw[1]);
#endif
    if (warp < ROWS) {
        row x = row_of(warp, n, G, b.hk);
        prepare_rows(warp, x, q + q_off + (ulong)x.query * q_stride + x.head * DIM, scale, means,
                     rows, stats);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#if FORM == PRE
    __local float2 cs[PAIRING ? CS_PITCH * MID : 1];
    page_scores(active, page, at, table + table_off, rows, scratch, cs, s[0]);
#endif
    if (active) {
        int2 seen[TILES];
        LOOP(uint i = 0; i < TILES; i++)
        seen[i] = row_sees(4 * i + lane % 4, page, n, G, pos0, begin, end);
#if FORM == POST
        scores_of(at, raw, (__local const uint *)rows, stats, s);
#elif FORM == CHANNEL
        page_integers(at, rows, (__local uint *)scratch, stats + warp * ROWS);
        scores_of(at, raw, (__local const uint *)scratch, stats + warp * ROWS, s);
#endif
        page_partial(at, s, seen, scratch, m + warp * ROWS, l + warp * ROWS, z);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (active)
        store_page(warp, c0, c1, m, z, scratch);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (warp < ROWS) {
        row x = row_of(warp, n, G, b.hk);
        ulong to = ((ulong)x.query * n_q_heads + x.head) * n_parts + b.part;
        finish(warp, x, c0, c1, (__local const float *)scratch4, m, l, means + n_kv_heads * DIM,
               ml + ml_off + 2 * to, o + o_off + to * DIM);
    }
}

#endif
