// block_vec.cl - the kernels of cl/block.cl in the vector shape.  Twin: cpu/block.c; layout of a
// page: cl/pages.cl
//
// Assumes (checked by the host half): head_dim D a multiple of 32, at most 256.
// kvcl_block_enc_vec, kvcl_block_dec_vec: one work-item per page and head.
// kvcl_attn_block_vec: one work-item per block and KV head (dimension 0) and up to ROWS rows
// (dimension 1): each page's keys, then values, become floats once for all rows.

#if KVCL_VECTOR_SHAPE

#define MAX_DIM 256
#define ROWS 8
#define L KVCL_ATTN_LANES

__kernel void kvcl_block_enc_vec(KVCL_BLOCK_PARAMS(__global const, __global), __global int *bad,
                                 ulong bad_off)
{
    uint first_bad = KVCL_TOKENS;
    float x[32 * KVCL_TOKENS];
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_block_rows r = kvcl_block_rows_of((uint)get_group_id(0), of_v, KVCL_BLOCK_ARGS);
        for (uint b = 0; b < D / 32; b++) {
            for (uint e = 0; e < 32 * KVCL_TOKENS; e++) {
                uint t = of_v ? e / 32 : e % KVCL_TOKENS, k = of_v ? e % 32 : e / KVCL_TOKENS;
                x[32 * t + k] = kvcl_block_raw(&r, t, 32 * b + k);
            }
            for (uint t = 0; t < KVCL_TOKENS; t++)
                if (kvcl_block_encode(r.block, x + 32 * t, r.rows + t * r.row_bytes + b * r.bytes))
                    first_bad = min(first_bad, t);
        }
    }
    bad[bad_off + get_group_id(0)] = (int)first_bad;
}

// A block's scale.  Seven of the eight halves are codes: PoCL converts vectors by one instruction,
// a single half by many, and takes vectors of halves in memory to be aligned.
static float scale_of(__global const uchar *block)
{
    ushort8 halves = vload8(0, (__global const ushort *)block);
    return vload_half8(0, (const half *)&halves).s0;
}

// Elements 32 b .. 32 b + 31 of a row.
static void values32(uint block, __global const uchar *row, uint b, float16 *lo, float16 *hi)
{
    row += b * (block == KVCL_Q8_0 ? 34 : 18);
    float16 d = (float16)(scale_of(row));
    if (block == KVCL_Q8_0) {
        *lo = convert_float16(vload16(0, (__global const char *)row + 2)) * d;
        *hi = convert_float16(vload16(1, (__global const char *)row + 2)) * d;
    } else {
        uchar16 n = vload16(0, row + 2);
        *lo = convert_float16(convert_int16(n & (uchar16)(15)) - 8) * d;
        *hi = convert_float16(convert_int16(n >> (uchar16)(4)) - 8) * d;
    }
}

// Dimensions 32 b .. 32 b + 31 of a page's rows of one head as floats: [64][32].
static void values_of(uint block, __global const uchar *rows, uint row_bytes, uint b, float *x)
{
    for (uint t = 0; t < KVCL_TOKENS; t++) {
        float16 lo, hi;
        values32(block, rows + t * row_bytes, b, &lo, &hi);
        vstore16(lo, 2 * t, x);
        vstore16(hi, 2 * t + 1, x);
    }
}

// Pairs of rows mixed: a0 b0 a1 b1 of each half, or a2 b2 a3 b3.
static void zip(float8 a, float8 b, float8 *low, float8 *high)
{
    low->even = a.s0145;
    low->odd = b.s0145;
    high->even = a.s2367;
    high->odd = b.s2367;
}

// Eight rows 32 apart to eight columns 64 apart.
static void turn8(const float *x, float *out)
{
    float8 t[8], u[8];
    for (uint i = 0; i < 8; i += 2)
        zip(vload8(0, x + 32 * i), vload8(0, x + 32 * i + 32), &t[i], &t[i + 1]);
    for (uint i = 0; i < 8; i++) { // 0 2, 1 3, 4 6, 5 7; each gives two columns of four rows
        uint a = i / 4 * 4 + i % 4 / 2;
        u[i] = i % 2 ? (float8)(t[a].s23, t[a + 2].s23, t[a].s67, t[a + 2].s67)
                     : (float8)(t[a].s01, t[a + 2].s01, t[a].s45, t[a + 2].s45);
    }
    for (uint i = 0; i < 4; i++) {
        vstore8((float8)(u[i].lo, u[i + 4].lo), 0, out + KVCL_TOKENS * i);
        vstore8((float8)(u[i].hi, u[i + 4].hi), 0, out + KVCL_TOKENS * (i + 4));
    }
}

// The same as columns, [32][64].
static void columns_of(const float *x, float *out)
{
    for (uint t = 0; t < KVCL_TOKENS; t += 8)
        for (uint d = 0; d < 32; d += 8)
            turn8(x + 32 * t + d, out + KVCL_TOKENS * d + t);
}

static void store16(const kvcl_block_rows *r, uint at, const float *x)
{
    if (r->type == KVCL_F16)
        vstore_half16_rte(vload16(0, x), 0, (__global half *)r->raw + at);
    else
        vstore16(vload16(0, x), 0, (__global float *)r->raw + at);
}

__kernel void kvcl_block_dec_vec(KVCL_BLOCK_PARAMS(__global, __global const))
{
    float x[32 * KVCL_TOKENS], columns[32 * KVCL_TOKENS];
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_block_rows r = kvcl_block_rows_of((uint)get_group_id(0), of_v, KVCL_BLOCK_ARGS);
        for (uint b = 0; b < D / 32; b++) {
            values_of(r.block, r.rows, r.row_bytes, b, x);
            if (!of_v)
                columns_of(x, columns);
            for (uint i = 0; i < 32 * KVCL_TOKENS; i += 16)
                if (of_v)
                    store16(&r, i / 32 * D + 32 * b + i % 32, x + i);
                else
                    store16(&r, 32 * b * KVCL_TOKENS + i, columns + i);
        }
    }
}

// Adds 32 dimensions to the scores of one row against a page's keys [32][64].
static void add_scores(const float *k, __global const float *q, float scale, float16 *s)
{
    float16 a0 = s[0], a1 = s[1], a2 = s[2], a3 = s[3];
    for (uint d = 0; d < 32; d++) {
        float16 qd = (float16)(q[d] * scale);
        a0 = fma(qd, vload16(0, k + d * KVCL_TOKENS), a0);
        a1 = fma(qd, vload16(1, k + d * KVCL_TOKENS), a1);
        a2 = fma(qd, vload16(2, k + d * KVCL_TOKENS), a2);
        a3 = fma(qd, vload16(3, k + d * KVCL_TOKENS), a3);
    }
    s[0] = a0;
    s[1] = a1;
    s[2] = a2;
    s[3] = a3;
}

// A row of the item: page weights or maxima, sums, weights of tokens, outputs of pages that wait
// in the tree, what it sees.
typedef struct row_state {
    float w[KVCL_BLOCK], l[KVCL_BLOCK];
    float16 p[KVCL_BLOCK * 4];
    float waits[3 * MAX_DIM];
    uint to;
    ulong at, q_at; // its partial, its query
} row_state;

// Sixteen dimensions of a page's output of a row that sees [from, to), times the page's weight.
static float16 output16(const float *v, const float *p, uint from, uint to, float w)
{
    float16 a[L] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    uint t = from;
    for (uint whole = to / L * L; t % L == 0 && t < whole; t += L)
        for (uint j = 0; j < L; j++)
            a[j] = fma((float16)(p[t + j]), vload16(0, v + 32 * (t + j)), a[j]);
    for (; t < to; t++)
        a[t % L] = fma((float16)(p[t]), vload16(0, v + 32 * t), a[t % L]);
    return fma(((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])), (float16)(w),
               (float16)(0.0f));
}

// Dimensions d0 .. d0 + 31, v [64][32], of page i (in the tree's order) of a row: a step of the
// tree over pages.
static void add_page(row_state *r, const float *v, uint d0, uint i, uint from, uint to,
                     __global float *o)
{
    uint c = kvcl_tree_page(i);
    for (uint d = 0; d < 32; d += 16) {
        float16 x = output16(v + d, (const float *)(r->p + 4 * c), from, to, r->w[c]);
        float *waits = r->waits + d0 + d;
        if (i & 1)
            x = vload16(0, waits + 2 * MAX_DIM) + x;
        if ((i & 3) == 3)
            x = vload16(0, waits + MAX_DIM) + x;
        if (i < 7)
            vstore16(x, 0, waits + ((i & 1) == 0 ? 2 : i == 3 ? 0 : 1) * MAX_DIM);
        else
            vstore16(kvcl_zero16(vload16(0, waits) + x), 0, o + d0 + d);
    }
}

// Scores of the item's rows against page c, of which they see tokens from `from` on.
static void page_scores(const kvcl_block_pool *p, __global const uchar *keys, row_state *rows,
                        uint n_rows, uint c, uint from, uint D, __global const float *q,
                        float scale)
{
    float x[32 * KVCL_TOKENS], columns[32 * KVCL_TOKENS];
    for (uint r = 0; r < n_rows; r++)
        for (uint j = 0; j < 4; j++)
            rows[r].p[4 * c + j] = 0.0f;
    for (uint b = 0; b < D / 32; b++) {
        values_of(p->block_k, keys, p->row_k, b, x);
        columns_of(x, columns);
        for (uint r = 0; r < n_rows; r++)
            if (from < kvcl_in_page(rows[r].to, c))
                add_scores(columns, q + rows[r].q_at + 32 * b, scale, rows[r].p + 4 * c);
    }
    for (uint r = 0; r < n_rows; r++)
        for (uint j = 0; j < 4; j++)
            rows[r].p[4 * c + j] = kvcl_zero16(rows[r].p[4 * c + j]);
}

__kernel void kvcl_attn_block_vec(KVCL_ATTN_BLOCK_PARAMS)
{
    row_state rows[ROWS];
    float x[32 * KVCL_TOKENS];
    uint G = n_q_heads / n_kv_heads;
    kvcl_span b = kvcl_span_of((uint)get_global_id(0), n_kv_heads, begin, end, first_part);
    kvcl_block_pool p = kvcl_block_pool_of(pool + pool_off, n_kv_heads, D, block_k, block_v);
    uint row0 = (uint)get_global_id(1) * chunk, n_rows = min(chunk, n * G - row0), last = b.from;
    ml += ml_off;
    o += o_off;
    for (uint r = 0; r < n_rows; r++) {
        kvcl_place a = kvcl_place_of(row0 + r, b.hk, G);
        rows[r].at = ((ulong)a.i * n_q_heads + a.h) * n_parts + b.part;
        rows[r].q_at = q_off + (ulong)a.i * q_stride + a.h * D;
        rows[r].to = last = kvcl_seen_to(b, pos0 + a.i); // the last row sees the most
    }
    pages += pages_off + b.page - begin / KVCL_TOKENS;
    for (uint c = 0; c < KVCL_BLOCK; c++) {
        uint from = kvcl_in_page(b.from, c);
        if (from < kvcl_in_page(last, c))
            page_scores(&p, kvcl_block_at(&p, 0, (ulong)pages[c], b.hk), rows, n_rows, c, from, D,
                        q, scale);
        for (uint r = 0; r < n_rows; r++)
            kvcl_weights64(rows[r].p + 4 * c, from, kvcl_in_page(rows[r].to, c), rows[r].w + c,
                           rows[r].l + c);
    }
    for (uint r = 0; r < n_rows; r++)
        if (rows[r].to > b.from)
            kvcl_block_weights_vec(rows[r].w, rows[r].l, ml + 2 * rows[r].at);
    for (uint i = 0; i < KVCL_BLOCK; i++) {
        uint c = kvcl_tree_page(i), from = kvcl_in_page(b.from, c);
        for (uint d = 0; d < D; d += 32) {
            if (from < kvcl_in_page(last, c))
                values_of(block_v, kvcl_block_at(&p, 1, (ulong)pages[c], b.hk), p.row_v, d / 32, x);
            for (uint r = 0; r < n_rows; r++)
                if (rows[r].to > b.from)
                    add_page(rows + r, x, d, i, from, kvcl_in_page(rows[r].to, c),
                             o + rows[r].at * D);
        }
    }
}

#endif
