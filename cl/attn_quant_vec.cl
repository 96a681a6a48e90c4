// attn_quant_vec.cl - attention by block partials over quant pages, vector shape.  Twin:
// cpu/attn_quant.c; KVCL_SPEC and what is assumed: attn_quant.cl; rows: attn_rows_vec.cl
//
// kvcl_attn_quant_vec: one work-item per block and KV head (dimension 0) and ROWS rows (dimension
// 1).  16 tokens and then 16 dimensions to a vector; sums of products of 15-bit and 8-bit integers
// by cl/ints.cl.

#if KVCL_VECTOR_SHAPE

#define BITS_K (KVCL_SPEC & 15)
#define BITS_V (KVCL_SPEC >> 4 & 15)
#define FORM (KVCL_SPEC >> 8 & 3)
#define PRE KVCL_QUANT_PRE
#define POST KVCL_QUANT_POST
#define CHANNEL KVCL_QUANT_CHANNEL

// Levels by code, a byte each.
static uint4 level_table(uint bits)
{
    uint w[4] = {0, 0, 0, 0};
    for (uint i = 0; bits < 8 && i < 1u << bits; i++)
        w[i / 4] |= ((uint)kvcl_quant_level(bits, i) & 255u) << i % 4 * 8;
    return vload4(0, w);
}

// Levels of codes 4 g .. 4 g + 3 along, a byte each, j .. j + 15 across.
static uint16 levels64(uint bits, uint4 table, __global const uint *words, uint across, uint along,
                       uint g, uint j)
{
    uint width = bits == 3 ? 2 : bits, P = 8 / width; // groups of a word
    uint16 codes = vload16(0, words + g / P * across + j) >> g % P * width;
    if (bits == 8)
        return codes;
    codes &= bits == 4 ? 0x0f0f0f0fu : bits == 1 ? 0x01010101u : 0x03030303u;
    if (bits == 3) {
        words += kvcl_plane_begin(1, across, along);
        codes |= (vload16(0, words + g / 8 * across + j) >> g % 8 & 0x01010101u) << 2;
    }
    return kvcl_pick(table, 1u << bits, codes);
}

// 15-bit integers of a row: of each 16 values four words of two even ones, then four of odd ones.
#define WORD_OF(g) ((g) / 4 * 8 + (g) % 4)
#define ODD_WORD 4

// Asks for codes 32 i .. 32 i + 31 along, j .. j + 15 across.
static void ask_for(uint bits, __global const uint *words, uint across, uint along, uint i, uint j)
{
    uint n = bits == 3 ? 2 : bits; // words of 32 codes
    KVCL_UNROLL for (uint e = 0; e < n; e++) { kvcl_ask(words + (i * n + e) * across + j); }
    if (bits == 3)
        kvcl_ask(words + kvcl_plane_begin(1, across, along) + i * across + j);
}

// Exact sums over `along` of x[i] * level[i], of ROWS rows of x, for all places across: 32 codes
// along of each place at a time, so that memory is read as it lies.  soon: codes in the same shape
// that are read next.
#define DEFINE_SUMS(name, BITS)                                                               \
    static void name(__global const uint *words, __global const uint *soon, uint across,      \
                     uint along, const uint *x, uint pitch, int(*sum)[MAX_DIM])               \
    {                                                                                         \
        uint4 table = level_table(BITS);                                                      \
        for (uint i = 0; i < along / 32; i++)                                                 \
            for (uint j = 0; j < across; j += 16) {                                           \
                int16 acc[ROWS];                                                              \
                for (uint r = 0; r < ROWS; r++)                                               \
                    acc[r] = i == 0 ? (int16)(0) : vload16(0, sum[r] + j);                    \
                ask_for(BITS, soon, across, along, i, j);                                     \
                KVCL_UNROLL for (uint g = 0; g < 8; g++)                                      \
                {                                                                             \
                    uint16 level = levels64(BITS, table, words, across, along, 8 * i + g, j); \
                    uint16 even = kvcl_even_bytes(level), odd = kvcl_odd_bytes(level);        \
                    KVCL_UNROLL for (uint r = 0; r < ROWS; r++)                               \
                    {                                                                         \
                        const uint *xr = x + r * pitch + 16 * i + WORD_OF(g);                 \
                        acc[r] += kvcl_pair_sums(even, kvcl_words(xr[0])) +                   \
                                  kvcl_pair_sums(odd, kvcl_words(xr[ODD_WORD]));              \
                    }                                                                         \
                }                                                                             \
                for (uint r = 0; r < ROWS; r++)                                               \
                    vstore16(acc[r], 0, sum[r] + j);                                          \
            }                                                                                 \
    }
#if FORM != PRE
DEFINE_SUMS(sums_k, BITS_K)
#endif
DEFINE_SUMS(sums_v, BITS_V)

// Transform of each block of a head.
static void fwht_head(float *x, uint D)
{
    float16 v[MAX_DIM / 16];
    for (uint i = 0; i < D / 16; i++)
        v[i] = kvcl_stages_within(vload16(i, x));
    kvcl_fwht_across(v, D / 16, kvcl_head_log2(D) - 4);
    for (uint i = 0; i < D / 16; i++)
        vstore16(v[i], i, x);
}

// n values (a multiple of 16) to the words of their integers; returns the quantum.
static float quantise15(const float *x, uint n, uint *words)
{
    float16 a = 0.0f;
    for (uint i = 0; i < n; i += 16)
        a = fmax(a, fabs(vload16(0, x + i)));
    float amax = largest16(a);
    float16 inv = (float16)(kvcl_q15_inv(amax));
    for (uint i = 0; i < n; i += 16) { // the integer is in the sum's low 16 bits
        uint16 q = as_uint16(fma(vload16(0, x + i) * inv, (float16)(1.0f), (float16)(KVCL_ROUND)));
        vstore4((q.s048c & 0xffffu) | q.s26ae << 16, i / 8, words);
        vstore4((q.s159d & 0xffffu) | q.s37bf << 16, i / 8 + 1, words);
    }
    return kvcl_q15_quantum(amax);
}

// Sum of qs[d] mean[d] in 64 lanes.
static float dot64(const float *qs, const float *mean, uint D)
{
    float16 a[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (uint d = 0; d < D; d += 16)
        a[d / 16 % 4] = fma(vload16(0, qs + d), vload16(0, mean + d), a[d / 16 % 4]);
    return kvcl_tree64_vec(a[0], a[1], a[2], a[3]);
}

#if FORM == PRE

KVCL_DEFINE_FWHT(fwht2_across, uint16, kvcl_add2, kvcl_sub2)

// Keys of tokens t .. t + 15 of a page before they are turned, [D].  Of four dimensions in a word
// the stage of neighbours comes first and that of distance 2 last, the others between them in 16
// bits: sums of at most 128 levels.
static void keys_of(uint4 levels, kvcl_head at, const float *mean, uint D, uint t, float16 *k)
{
    const uint both = 0x00010001u, less = 0xffff0001u;
    uint log2_b = kvcl_head_log2(D);
    uint16 sums[MAX_DIM / 4], diffs[MAX_DIM / 4];
    float16 step = kvcl_head_up(log2_b) * vload_half16(0, at.k_scales + t);
    for (uint i = 0; i < D / 32; i++)
        KVCL_UNROLL for (uint g = 8 * i; g < 8 * i + 8; g++)
        {
            uint16 level = levels64(BITS_K, levels, at.k, TOKENS, D, g, t);
            uint16 even = kvcl_even_bytes(level), odd = kvcl_odd_bytes(level);
            sums[g] = kvcl_add2(even, odd);
            diffs[g] = kvcl_sub2(even, odd);
        }
    fwht2_across(sums, D / 4, log2_b - 2);
    fwht2_across(diffs, D / 4, log2_b - 2);
    for (uint g = 0; g < D / 4; g++) {
        float4 m = vload4(g, mean);
        float16 h0 = convert_float16(kvcl_pair_sums(sums[g], kvcl_words(both)));
        float16 h1 = convert_float16(kvcl_pair_sums(diffs[g], kvcl_words(both)));
        float16 h2 = convert_float16(kvcl_pair_sums(sums[g], kvcl_words(less)));
        float16 h3 = convert_float16(kvcl_pair_sums(diffs[g], kvcl_words(less)));
        k[4 * g] = fma(step, h0, (float16)(m.x));
        k[4 * g + 1] = fma(step, h1, (float16)(m.y));
        k[4 * g + 2] = fma(step, h2, (float16)(m.z));
        k[4 * g + 3] = fma(step, h3, (float16)(m.w));
    }
}

// Scores of pages c0 .. c1 of a block.
static void scores(const kvcl_head *at, rows *x, uint D, uint c0, uint c1, uint page,
                   __global const float *table, uint n_rot, uint pairing)
{
    float qp[PAGES][ROWS][MAX_DIM];
    float16 k[MAX_DIM], s[ROWS];
    uint4 levels = level_table(BITS_K);
    angles angle;
    n_rot = pairing ? n_rot : 0;
    for (uint c = c0; c <= c1; c++)
        turn_queries(x, D, table + (ulong)(page + c - c0) * TOKENS * n_rot, n_rot, pairing, qp[c]);
    for (uint t = 0; t < TOKENS; t += 16) {
        angles_of(table, n_rot, t, 1, &angle);
        for (uint c = c0; c <= c1; c++) {
            uint next = c < c1 ? c + 1 : c0, t_next = c < c1 ? t : (t + 16) % TOKENS;
            for (uint i = 0; i < D / 32; i++)
                ask_for(BITS_K, at[next].k, TOKENS, D, i, t_next);
            keys_of(levels, at[c], x->k_mean, D, t, k);
            turn_and_dot(k, &angle, D, n_rot, pairing, qp[c], s);
            for (uint r = 0; r < ROWS; r++)
                vstore16(kvcl_zero16(s[r]), 0, x->s[c][r] + t);
        }
    }
}

#else

// Queries (CHANNEL: times the page's steps) as integers, their quanta and sums with the mean.
typedef struct integers {
    uint q[ROWS][MAX_DIM / 2];
    float quantum[ROWS], beta[ROWS];
} integers;

static void integers_of(kvcl_head at, const rows *x, uint D, integers *out)
{
    float mean[MAX_DIM], g[MAX_DIM];
    for (uint d = 0; d < D; d += 16)
        vstore16(FORM == CHANNEL ? vload_half16(0, at.k_scales + D + d) : vload16(0, x->k_mean + d),
                 0, mean + d);
    for (uint r = 0; r < ROWS; r++) {
        out->beta[r] = dot64(x->qs[r], mean, D);
        for (uint d = 0; d < D; d += 16) {
            float16 q = vload16(0, x->qs[r] + d);
            vstore16(FORM == CHANNEL ? q * vload_half16(0, at.k_scales + d) : q, 0, g + d);
        }
        if (FORM == POST)
            fwht_head(g, D);
        out->quantum[r] = quantise15(g, D, out->q[r]);
    }
}

// Scores of pages c0 .. c1 of a block.
static void scores(const kvcl_head *at, rows *x, uint D, uint c0, uint c1, uint page,
                   __global const float *table, uint n_rot, uint pairing)
{
    float up = kvcl_head_up(kvcl_head_log2(D));
    int sum[ROWS][MAX_DIM];
    integers g;
    for (uint c = c0; c <= c1; c++) {
        if (FORM == CHANNEL || c == c0)
            integers_of(at[c], x, D, &g);
        sums_k(at[c].k, at[min(c + 1, c1)].k, TOKENS, D, g.q[0], MAX_DIM / 2, sum);
        for (uint t = 0; t < TOKENS; t += 16) {
            for (uint r = 0; r < ROWS; r++) {
                float16 s = convert_float16(vload16(0, sum[r] + t)), b = (float16)(g.beta[r]);
#if FORM == CHANNEL
                s = fma(s, (float16)(g.quantum[r]), b);
#else
                s = fma(s * (g.quantum[r] * up), vload_half16(0, at[c].k_scales + t), b);
#endif
                vstore16(kvcl_zero16(s), 0, x->s[c][r] + t);
            }
        }
    }
}

#endif

// Integers of the weights and their sums with the values' levels.
typedef struct sums {
    uint words[PAGES][ROWS][TOKENS / 2];
    float z[PAGES][ROWS][MAX_DIM];
    float quantum[PAGES][ROWS];
} sums;

// Weights of a row of a page, times the steps of its values, to integers.
static void weights(kvcl_head at, rows *x, sums *y, uint c, uint r, float up)
{
    float *s = x->s[c][r];
    for (uint t = 0; t < TOKENS; t += 16)
        vstore16(vload16(0, s + t) * vload_half16(0, at.v_scales + t), 0, s + t);
    y->quantum[c][r] = quantise15(s, TOKENS, y->words[c][r]) * up;
}

// Sums of the weights' integers with a page's values.
static void values(const kvcl_head *at, sums *y, uint D, uint c, uint soon)
{
    int sum[ROWS][MAX_DIM];
    sums_v(at[c].v, at[soon].v, D, TOKENS, y->words[c][0], TOKENS / 2, sum);
    for (uint r = 0; r < ROWS; r++)
        for (uint d = 0; d < D; d += 16)
            vstore16(convert_float16(vload16(0, sum[r] + d)) * y->quantum[c][r], 0, y->z[c][r] + d);
}

// 16 dimensions of z of a row: the tree over the block's pages of weighted sums.
static float16 values16(const rows *x, const sums *y, uint r, uint d)
{
    float16 p[PAGES];
    for (uint c = 0; c < PAGES; c++) {
        float w = x->w[c][r];
        p[c] = w > 0.0f ? (float16)(w)*vload16(0, y->z[c][r] + d) : (float16)(0.0f);
    }
    return tree_of_pages(p);
}

// Block partial of a row: m, l and output.
static void finish(const rows *x, uint r, float *z, uint D, __global const float *v_mean,
                   __global float *ml, __global float *o)
{
    float l = store_ml(x, r, ml);
    fwht_head(z, D);
    for (uint d = 0; d < D; d++)
        o[d] = kvcl_zero(fma(l, v_mean[d], z[d]));
}

__kernel void kvcl_attn_quant_vec(KVCL_ATTN_QUANT_PARAMS)
{
    uint G = n_q_heads / n_kv_heads, row0 = (uint)get_global_id(1) * ROWS;
    kvcl_block b = kvcl_block_of((uint)get_global_id(0), n_kv_heads, begin, end, first_part);
    if (row0 >= n * G)
        return;
    // pages behind the last row's query stay out
    b.last = min(b.last, (pos0 + (min(row0 + ROWS, n * G) - 1) / G) / TOKENS);
    if (b.first > b.last)
        return;
    uint c0 = b.first % PAGES, c1 = b.last % PAGES;
    float up = kvcl_head_up(kvcl_head_log2(D)), z[ROWS][MAX_DIM];
    __global const float *mean =
        means + means_off + b.hk * D + (ulong)kvcl_mean_epoch(b.first / PAGES) * 2 * n_kv_heads * D;
    kvcl_head at[PAGES];
    rows x;
    sums y;
    load_rows(&x, q + q_off, q_stride, b.hk, row0, n * G, G, D, scale, mean);
    for (uint c = c0; c <= c1; c++) {
        uint slot = (uint)pages[pages_off + b.first + c - c0 - begin / TOKENS];
        at[c] = kvcl_head_of(FORM, BITS_K, BITS_V, pool + pool_off, slot, b.hk, n_kv_heads, D);
    }
    scores(at, &x, D, c0, c1, b.first, table + table_off, n_rot, pairing);
    for (uint c = c0; c <= c1; c++)
        for (uint r = 0; r < ROWS; r++) {
            page_weights(&x, c, r, kvcl_seen_of(b.first + c - c0, pos0 + x.query[r], begin, end));
            weights(at[c], &x, &y, c, r, up);
        }
    block_weights(&x, c0, c1);
    for (uint c = c0; c <= c1; c++)
        values(at, &y, D, c, min(c + 1, c1));
    for (uint r = 0; r < ROWS; r++)
        for (uint d = 0; d < D; d += 16)
            vstore16(values16(&x, &y, r, d), 0, z[r] + d);
    for (uint r = 0; r < min((uint)ROWS, n * G - row0); r++) {
        ulong to = ((ulong)x.query[r] * n_q_heads + x.h[r]) * n_parts + b.part;
        if (x.top[r] > -INFINITY)
            finish(&x, r, z[r], D, mean + n_kv_heads * D, ml + ml_off + 2 * to, o + o_off + to * D);
    }
}

#endif
