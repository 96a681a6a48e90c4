// attn_spectral_vec.cl - attention by block partials over spectral pages, vector shape.  Twin:
// cpu/attn_spectral.c; KVCL_SPEC and what is assumed: attn_spectral.cl; rows: attn_rows_vec.cl;
// places, levels of sixteen codes: spectral_vec_pages.cl
//
// kvcl_attn_spectral_vec: one work-item per block and KV head (dimension 0) and ROWS rows
// (dimension 1).  Keys are multiplied as Walsh rows, since a row that has few codes then costs
// little, and become tokens afterwards: all integers are exact in any order.

#if KVCL_VECTOR_SHAPE

#define VECTORS KVCL_SPECTRAL_VECTORS // of a page
#define QUADS (MAX_DIM / 4)           // of components

// What an item holds to make keys.
typedef struct keys {
    uint16 a[QUADS][VECTORS][2];       // of four components the even and the odd ones
    uint weights[QUADS * 2 * MAX_DIM]; // [quad][even, odd][D]: of the basis in the same shape
    float16 k[VECTORS][MAX_DIM];
    angles angle[VECTORS];
    float qp[ROWS][MAX_DIM];
    int16 tables[4];
    uint quads[VECTORS]; // that have codes
} keys;

// A head's basis of keys; angles of a page's tokens.
static void load_keys(const kvcl_spectral_part *p, __global const float *table, uint n_rot, keys *x)
{
    uint D = p->D;
    for (uint g = 0; g < p->head.n_comp / 4; g++)
        for (uint d = 0; d < D; d += 16) {
            uint16 four = vload16(0, (__global const uint *)p->synth + g * D + d);
            vstore16(kvcl_even_bytes(four), 0, x->weights + 2 * g * D + d);
            vstore16(kvcl_odd_bytes(four), 0, x->weights + (2 * g + 1) * D + d);
        }
    for (uint v = 0; v < VECTORS; v++) {
        x->quads[v] = kvcl_spectral_quads(p, v);
        uint slot = 16 * v % KVCL_SPECTRAL_SLOTS, j = 16 * v / KVCL_SPECTRAL_SLOTS;
        angles_of(table, n_rot, slot * KVCL_SPEC + j, KVCL_SPEC, &x->angle[v]);
    }
    kvcl_spectral_tables(x->tables);
}

// Coefficients a of a page's Walsh rows.
static void coefficients(const kvcl_spectral_part *p, keys *x)
{
    for (uint v = 0; v < VECTORS; v++)
        for (uint g = 0; g < x->quads[v]; g++) {
            int16 a[4];
            KVCL_UNROLL for (uint j = 0; j < 4; j++)
            {
                a[j] = kvcl_spectral_levels(p, x->tables, 4 * g + j, v) *
                       kvcl_spectral_factors(p, 4 * g + j, v);
                a[j] = (a[j] + 64) >> 7;
            }
            x->a[g][v][0] = (as_uint16(a[0]) & 0xffffu) | as_uint16(a[2]) << 16;
            x->a[g][v][1] = (as_uint16(a[1]) & 0xffffu) | as_uint16(a[3]) << 16;
        }
}

// Sums over the components of dimensions d .. d + 3, sixteen places.
static void products4(const keys *x, uint D, uint v, uint d, int16 *h)
{
    int16 h0 = 0, h1 = 0, h2 = 0, h3 = 0;
    const uint *even = x->weights + d, *odd = even + D;
    for (uint g = 0; g < x->quads[v]; g++, even += 2 * D, odd += 2 * D) {
        uint16 a = x->a[g][v][0], b = x->a[g][v][1];
        h0 += kvcl_pair_sums(a, kvcl_words(even[0])) + kvcl_pair_sums(b, kvcl_words(odd[0]));
        h1 += kvcl_pair_sums(a, kvcl_words(even[1])) + kvcl_pair_sums(b, kvcl_words(odd[1]));
        h2 += kvcl_pair_sums(a, kvcl_words(even[2])) + kvcl_pair_sums(b, kvcl_words(odd[2]));
        h3 += kvcl_pair_sums(a, kvcl_words(even[3])) + kvcl_pair_sums(b, kvcl_words(odd[3]));
    }
    h[0] = h0;
    h[1] = h1;
    h[2] = h2;
    h[3] = h3;
}

KVCL_SPECTRAL_DEFINE_WALSH(walsh_int, int)
KVCL_SPECTRAL_DEFINE_WALSH(walsh_float, float)

// Keys of a page before they are turned.
static void keys_of(const kvcl_spectral_part *p, const float *mean, keys *x)
{
    uint D = p->D;
    float16 step[VECTORS];
    coefficients(p, x);
    for (uint v = 0; v < VECTORS; v++)
        step[v] = p->head.quantum * kvcl_spectral_norms(p, v);
    for (uint d = 0; d < D; d += 4) {
        int16 h[VECTORS][4];
        for (uint v = 0; v < VECTORS; v++)
            products4(x, D, v, d, h[v]);
        KVCL_UNROLL for (uint e = 0; e < 4; e++)
        {
            int16 y[VECTORS] = {h[0][e], h[1][e], h[2][e], h[3][e]};
            walsh_int(y);
            KVCL_UNROLL for (uint v = 0; v < VECTORS; v++)
            {
                x->k[v][d + e] = fma(step[v], convert_float16(y[v]), (float16)(mean[d + e]));
            }
        }
    }
}

// Scores of a page, lane c of its block.
static void scores(const kvcl_spectral_part *p, rows *x, keys *y, uint c, uint page,
                   __global const float *table, uint n_rot, uint pairing)
{
    float16 s[VECTORS][ROWS];
    turn_queries(x, p->D, table + (ulong)page * TOKENS * n_rot, n_rot, pairing, y->qp);
    keys_of(p, x->k_mean, y);
    for (uint v = 0; v < VECTORS; v++)
        turn_and_dot(y->k[v], &y->angle[v], p->D, n_rot, pairing, y->qp, s[v]);
    for (uint r = 0; r < ROWS; r++) {
        float16 t[VECTORS] = {s[0][r], s[1][r], s[2][r], s[3][r]};
        kvcl_spectral_to_tokens(t);
        for (uint v = 0; v < VECTORS; v++)
            vstore16(kvcl_zero16(t[v]), v, x->s[c][r]);
    }
}

// ---- values -------------------------------------------------------------------------------------

// Four rows' integers of weights, and sums by quad of components: [4][ROWS].
typedef struct sums {
    int16 weights[VECTORS][ROWS];
    float unit[ROWS];
    float16 z[PAGES][QUADS];
    int16 tables[4];
    uint quads[VECTORS];
} sums;

static void load_sums(const kvcl_spectral_part *p, sums *y)
{
    for (uint v = 0; v < VECTORS; v++)
        y->quads[v] = kvcl_spectral_quads(p, v);
    kvcl_spectral_tables(y->tables);
}

// A row's weights of a page, folded, times the norms of its values, to integers.
static void fold_weights(const kvcl_spectral_part *p, const float *s, uint r, sums *y)
{
    float16 f[VECTORS] = {vload16(0, s), vload16(1, s), vload16(2, s), vload16(3, s)};
    float16 top = 0.0f;
    kvcl_spectral_to_places(f);
    walsh_float(f);
    for (uint v = 0; v < VECTORS; v++) {
        f[v] = f[v] * kvcl_spectral_norms(p, v);
        top = fmax(top, fabs(f[v]));
    }
    float amax = largest16(top);
    float16 inv = (float16)(kvcl_q15_inv(amax));
    for (uint v = 0; v < VECTORS; v++)
        y->weights[v][r] = as_int16(fma(f[v] * inv, (float16)(1.0f), (float16)(KVCL_ROUND))) -
                           (int16)((int)KVCL_ROUND_BITS);
    y->unit[r] = kvcl_q15_quantum(amax) * (p->head.quantum * 0.0078125f); // 2^-7
}

// Halves of two vectors, their quarters, and so on, added up.
#define SUM2(a, b) ((int16)((a).lo, (b).lo) + (int16)((a).hi, (b).hi))
#define SUM4(a, b) ((int16)((a).s012389ab, (b).s012389ab) + (int16)((a).s4567cdef, (b).s4567cdef))
#define SUM8(a, b) ((int16)((a).s014589cd, (b).s014589cd) + (int16)((a).s2367abef, (b).s2367abef))
#define SUM16(a, b) ((int16)((a).even, (b).even) + (int16)((a).odd, (b).odd))
#define PAIRS(n, SUM, x)                                                                    \
    {                                                                                       \
        KVCL_UNROLL for (uint i = 0; i < (n); i++)(x)[i] = SUM((x)[2 * i], (x)[2 * i + 1]); \
    }

// Factors of four components in Walsh row r, each for ROWS rows.
static float16 factors_by_row(const kvcl_spectral_part *p, uint r, uint g)
{
    return convert_float4(vload4(0, p->factor + r * p->D + 4 * g)).s0000111122223333;
}

// Adds J A of the Walsh rows in vector v to the chains of four components: J is the sum of the
// lanes of x [4][ROWS], or with eight slots of their lower and of their upper half.
static float16 add_rows(const kvcl_spectral_part *p, int16 *x, uint g, uint v, float16 all)
{
#if KVCL_SPEC == 8
    int16 upper[8];
    KVCL_UNROLL for (uint i = 0; i < 8; i++)
    {
        upper[i] = (int16)(x[2 * i].hi, x[2 * i + 1].hi);
        x[i] = (int16)(x[2 * i].lo, x[2 * i + 1].lo);
    }
    PAIRS(4, SUM4, x)
    PAIRS(2, SUM8, x)
    PAIRS(1, SUM16, x)
    PAIRS(4, SUM4, upper)
    PAIRS(2, SUM8, upper)
    PAIRS(1, SUM16, upper)
    all = fma(convert_float16(x[0]), factors_by_row(p, 2 * v, g), all);
    return fma(convert_float16(upper[0]), factors_by_row(p, 2 * v + 1, g), all);
#else
    PAIRS(8, SUM2, x)
    PAIRS(4, SUM4, x)
    PAIRS(2, SUM8, x)
    PAIRS(1, SUM16, x)
    return fma(convert_float16(x[0]), factors_by_row(p, 16 * v / KVCL_SPECTRAL_SLOTS, g), all);
#endif
}

// z_c of a page, lane c of its block.
static void values(const kvcl_spectral_part *p, sums *y, uint c)
{
    float16 unit = vload4(0, y->unit).s0123012301230123;
    for (uint g = 0; g < p->head.n_comp / 4; g++) {
        float16 all = 0.0f;
        for (uint v0 = 0; v0 < VECTORS; v0 += KVCL_SPECTRAL_OF_ROW) {
            int16 acc[4 * ROWS];
            if (g >= y->quads[v0])
                continue;
            KVCL_UNROLL for (uint i = 0; i < 4 * ROWS; i++) { acc[i] = 0; }
            KVCL_UNROLL for (uint v = v0; v < v0 + KVCL_SPECTRAL_OF_ROW; v++)
            {
                KVCL_UNROLL for (uint j = 0; j < 4; j++)
                {
                    int16 level = kvcl_spectral_levels(p, y->tables, 4 * g + j, v);
                    KVCL_UNROLL for (uint r = 0; r < ROWS; r++)
                    {
                        acc[ROWS * j + r] += level * y->weights[v][r];
                    }
                }
            }
            all = add_rows(p, acc, g, v0, all);
        }
        y->z[c][g] = all * unit;
    }
}

// z of four components: the tree over the block's pages of weighted sums.
static float16 block_sums(const rows *x, const sums *y, uint g)
{
    float16 p[PAGES];
    for (uint c = 0; c < PAGES; c++) {
        float16 w = vload4(0, x->w[c]).s0123012301230123;
        p[c] = w > (float16)(0.0f) ? w * y->z[c][g] : (float16)(0.0f);
    }
    return tree_of_pages(p);
}

// Dimensions d .. d + 15 of four rows' z in the basis of the values; z [component][ROWS].
static void output16(const kvcl_spectral_part *p, const float *z, uint d, float16 *o)
{
    float16 o0 = 0.0f, o1 = 0.0f, o2 = 0.0f, o3 = 0.0f;
    for (uint g = 0; g < p->head.n_comp / 4; g++) {
        int16 four = as_int16(vload16(0, (__global const uint *)p->synth + g * p->D + d));
        KVCL_UNROLL for (uint j = 0; j < 4; j++, z += ROWS)
        {
            float16 s = convert_float16(four << (int)(24 - 8 * j) >> 24);
            o0 = fma(s, (float16)(z[0]), o0);
            o1 = fma(s, (float16)(z[1]), o1);
            o2 = fma(s, (float16)(z[2]), o2);
            o3 = fma(s, (float16)(z[3]), o3);
        }
    }
    o[0] = o0;
    o[1] = o1;
    o[2] = o2;
    o[3] = o3;
}

__kernel void kvcl_attn_spectral_vec(KVCL_ATTN_QUANT_PARAMS, __global const uchar *basis,
                                     ulong basis_off, uint words_k, uint words_v)
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
    __global const float *mean = means + means_off + b.hk * D;
    __global const int *slots = pages + pages_off + b.first - c0 - begin / TOKENS;
    kvcl_spectral_part p;
    rows x;
    keys k;
    sums v;
    load_rows(&x, q + q_off, q_stride, b.hk, row0, n * G, G, D, scale, mean);
    for (uint c = c0; c <= c1; c++) {
        kvcl_spectral_of(&p, KVCL_SPEC, D, n_kv_heads, words_k, words_v, basis + basis_off,
                         (__global uchar *)pool + pool_off, (ulong)slots[c], 0, b.hk);
        if (c == c0)
            load_keys(&p, table + table_off, n_rot, &k);
        scores(&p, &x, &k, c, b.first + c - c0, table + table_off, n_rot, pairing);
    }
    for (uint c = c0; c <= c1; c++) {
        kvcl_spectral_of(&p, KVCL_SPEC, D, n_kv_heads, words_k, words_v, basis + basis_off,
                         (__global uchar *)pool + pool_off, (ulong)slots[c], 1, b.hk);
        if (c == c0)
            load_sums(&p, &v);
        for (uint r = 0; r < ROWS; r++) {
            page_weights(&x, c, r, kvcl_seen_of(b.first + c - c0, pos0 + x.query[r], begin, end));
            fold_weights(&p, x.s[c][r], r, &v);
        }
        values(&p, &v, c);
    }
    block_weights(&x, c0, c1);
    for (uint g = 0; g < p.head.n_comp / 4; g++)
        v.z[0][g] = block_sums(&x, &v, g);
    uint n_rows = min((uint)ROWS, n * G - row0);
    ulong to[ROWS];
    float l[ROWS];
    for (uint r = 0; r < n_rows; r++) {
        to[r] = ((ulong)x.query[r] * n_q_heads + x.h[r]) * n_parts + b.part;
        if (x.top[r] > -INFINITY)
            l[r] = store_ml(&x, r, ml + ml_off + 2 * to[r]);
    }
    for (uint d = 0; d < D; d += 16) {
        float16 o16[ROWS], v_mean = vload16(0, mean + n_kv_heads * D + d);
        output16(&p, (const float *)v.z[0], d, o16);
        for (uint r = 0; r < n_rows; r++)
            if (x.top[r] > -INFINITY)
                vstore16(kvcl_zero16(fma((float16)(l[r]), v_mean, o16[r])), 0,
                         o + o_off + to[r] * D + d);
    }
}

#endif
