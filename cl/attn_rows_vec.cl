// attn_rows_vec.cl - what the vector shapes of attention over coded pages share: rows of an item,
// keys turned and multiplied, weights from scores, a block's weights of pages.  Stands before the
// kernels that use it.

#if KVCL_VECTOR_SHAPE

#define ROWS 4 // of a group: query heads of some queries, all of one KV head
#define PAGES KVCL_BLOCK
#define TOKENS KVCL_TOKENS
#define MAX_DIM 256

// What an item holds of its rows.
typedef struct rows {
    float qs[ROWS][MAX_DIM];
    float s[PAGES][ROWS][TOKENS];         // scores, then weights
    float m[PAGES][ROWS], l[PAGES][ROWS]; // of pages; l 0 where there is none
    float w[PAGES][ROWS];                 // weights of pages in the block
    float top[ROWS];                      // the block's m
    float k_mean[MAX_DIM];
    uint query[ROWS], h[ROWS];
} rows;

// Rows row0 .. row0 + ROWS - 1 of KV head hk; those past the last one as the last one.
static void load_rows(rows *x, __global const float *q, uint q_stride, uint hk, uint row0,
                      uint n_rows, uint G, uint D, float scale, __global const float *mean)
{
    for (uint r = 0; r < ROWS; r++) {
        uint row = min(row0 + r, n_rows - 1);
        x->query[r] = row / G;
        x->h[r] = hk * G + kvcl_rest(row, x->query[r], G);
        for (uint d = 0; d < D; d++)
            x->qs[r][d] = q[(ulong)x->query[r] * q_stride + x->h[r] * D + d] * scale;
        for (uint c = 0; c < PAGES; c++)
            x->l[c][r] = x->w[c][r] = 0.0f;
    }
    for (uint d = 0; d < D; d++)
        x->k_mean[d] = mean[d];
}

// ---- keys ---------------------------------------------------------------------------------------

// Angles of 16 tokens of a page, by pairs.
typedef struct angles {
    float c[MAX_DIM / 2][16], s[MAX_DIM / 2][16];
} angles;

// Tokens t, t + apart ..; those behind the page's end go on from its beginning, one further.
static void angles_of(__global const float *table, uint n_rot, uint t, uint apart, angles *x)
{
    for (uint e = 0; e < 16; e++) {
        uint token = t + e * apart % TOKENS + e * apart / TOKENS;
        for (uint i = 0; i < n_rot / 2; i++) {
            x->c[i][e] = table[token * n_rot + 2 * i];
            x->s[i][e] = table[token * n_rot + 2 * i + 1];
        }
    }
}

static kvcl_pair pair_at(uint i, uint n_rot, uint pairing)
{
    return kvcl_pair_of(pairing == KVCL_ROPE_HALVES ? i : 2 * i, n_rot, pairing);
}

// Queries turned back by a page.
static void turn_queries(const rows *x, uint D, __global const float *cs, uint n_rot, uint pairing,
                         float (*qp)[MAX_DIM])
{
    for (uint r = 0; r < ROWS; r++) {
        for (uint d = 0; d < D; d++)
            qp[r][d] = x->qs[r][d];
        for (uint i = 0; i < n_rot / 2; i++) {
            kvcl_pair p = pair_at(i, n_rot, pairing);
            float2 v = kvcl_turn_back((float2)(qp[r][p.a], qp[r][p.a + p.apart]), vload2(i, cs));
            qp[r][p.a] = v.x;
            qp[r][p.a + p.apart] = v.y;
        }
    }
}

// Dimension d more of the chains of four rows.
#define CHAINS(x, d)                          \
    {                                         \
        float16 x_ = (x);                     \
        s0 = fma((float16)(q[0][d]), x_, s0); \
        s1 = fma((float16)(q[1][d]), x_, s1); \
        s2 = fma((float16)(q[2][d]), x_, s2); \
        s3 = fma((float16)(q[3][d]), x_, s3); \
    }

// Turns the keys and adds up their products with the queries, dimension by dimension: the second
// ones of pairs of halves wait in k.
static void turn_and_dot(float16 *k, const angles *angle, uint D, uint n_rot, uint pairing,
                         float (*q)[MAX_DIM], float16 *s)
{
    uint halves = pairing == KVCL_ROPE_HALVES, n = n_rot / 2, d = halves ? n : n_rot;
    float16 s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    for (uint i = 0; i < n; i++) {
        uint ia = halves ? i : 2 * i, ib = halves ? i + n : 2 * i + 1;
        float16 a = k[ia], b = k[ib], c = vload16(0, angle->c[i]), sn = vload16(0, angle->s[i]);
        CHAINS(fma(a, c, -(b * sn)), ia)
        b = fma(b, c, a * sn);
        if (halves)
            k[ib] = b;
        else
            CHAINS(b, ib)
    }
    for (; d < D; d++)
        CHAINS(k[d], d)
    s[0] = s0;
    s[1] = s1;
    s[2] = s2;
    s[3] = s3;
}

// ---- weights ------------------------------------------------------------------------------------

static float largest16(float16 v)
{
    float8 a = fmax(v.lo, v.hi);
    float4 b = fmax(a.lo, a.hi);
    float2 c = fmax(b.lo, b.hi);
    return fmax(c.x, c.y);
}

// Scores of a row of a page to weights, zeros for tokens not seen.
static void page_weights(rows *x, uint c, uint r, int2 seen)
{
    float *s = x->s[c][r], m;
    float16 top = (float16)(-INFINITY);
    int16 place = (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int t = 0; t < TOKENS; t += 16) {
        int16 in = (place + t >= seen.x) & (place + t < seen.y);
        float16 v = in ? vload16(0, s + t) : (float16)(-INFINITY);
        vstore16(v, 0, s + t);
        top = fmax(top, v);
    }
    x->m[c][r] = m = largest16(top);
    float8 l = 0.0f;
    for (uint t = 0; t < TOKENS; t += 16) {
        float16 p =
            seen.x < seen.y ? kvcl_exp16(vload16(0, s + t) - (float16)(m)) : (float16)(0.0f);
        l = (l + p.lo) + p.hi;
        vstore16(p, 0, s + t);
    }
    x->l[c][r] = kvcl_tree8(l);
}

// The block's m, and its weights of pages c0 .. c1.
static void block_weights(rows *x, uint c0, uint c1)
{
    for (uint r = 0; r < ROWS; r++) {
        float m = -INFINITY;
        for (uint c = c0; c <= c1; c++)
            m = x->m[c][r] > m ? x->m[c][r] : m;
        for (uint c = c0; c <= c1; c++)
            x->w[c][r] = x->m[c][r] > -INFINITY ? kvcl_exp(x->m[c][r] - m) : 0.0f;
        x->top[r] = m;
    }
}

// m and l of a row's block partial; returns l.
static float store_ml(const rows *x, uint r, __global float *ml)
{
    float wl[PAGES];
    for (uint c = 0; c < PAGES; c++)
        wl[c] = x->w[c][r] * x->l[c][r];
    float l = kvcl_tree8(vload8(0, wl));
    ml[0] = x->top[r];
    ml[1] = l;
    return l;
}

// Tree over a block's pages.
static float16 tree_of_pages(const float16 *p)
{
    return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

#endif
