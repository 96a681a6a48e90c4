// attn_rows.cl - what the lane shapes of attention over coded pages share: rows of a group, weights
// from scores, integers from weights, a block's weights of pages.  Stands before the kernels that
// use it.

#define ROWS 4 // of a group: query heads of some queries, all of one KV head
#define PAGES KVCL_BLOCK
#define TOKENS KVCL_TOKENS
#define L KVCL_ATTN_LANES

// A phase of the group: `count` units of work shared out among its items.
#define EACH(at, count) for (uint at = (uint)get_local_id(0); at < (count); at += items)
#define SYNC barrier(CLK_LOCAL_MEM_FENCE)

// Where the kernel's phases keep things in local memory.
typedef struct place {
    __local float *qs;     // [ROWS][D]: queries, their transform, in the end z
    __local float4 *s;     // [512]: scores of the four rows, then integer weights
    __local float *red;    // [256]: lanes
    __local float *stat;   // [6][8 pages][ROWS]: see below
    __local short4 *codes; // [page or 1][D]: integers of the four rows
    __local int *level;    // [16]: of the two kinds of codes
    __local float4 *qp;    // PRE: [D], the rows turned back by the page
    __local short *keys;   // PRE: [D][16 or 32 tokens], transforms of levels
    __local uint *slots;   // spectral pages: [page], places in the pool
} place;

#define BETA 0    // CHANNEL, POST: sum of query times mean
#define QUANTUM 1 // of the queries' integers
#define INVERSE 2
#define M 3
#define SUM 4    // l
#define FACTOR 5 // quantum * up of the weights' integers
#define STAT(what, c, r) w.stat[((what)*PAGES + (c)) * ROWS + (r)]

#define LANES_MAX(p)                                       \
    fmax(fmax(fmax((p)[0], (p)[1]), fmax((p)[2], (p)[3])), \
         fmax(fmax((p)[4], (p)[5]), fmax((p)[6], (p)[7])))

// What a query sees of lane c's page, as places in the page.
#define SEEN(c, r) kvcl_seen_of(b.first + (c)-c0, pos0 + min(row0 + (r), n * G - 1) / G, begin, end)

// Scores of pages c0 .. c1 to weights in place.
static void weights(place w, kvcl_block b, uint c0, uint c1, uint row0, uint G, uint n, uint pos0,
                    uint begin, uint end, uint items)
{
    __local float *s = (__local float *)w.s;
    uint n_rows = (c1 - c0 + 1) * ROWS; // (page, row)
    EACH(i, n_rows * L)
    {
        uint c = c0 + i / L / ROWS, r = i / L % ROWS;
        int2 seen = SEEN(c, r);
        float m = -INFINITY;
        for (int t = (int)(i % L); t < seen.y; t += L)
            if (t >= seen.x)
                m = fmax(m, s[(c * TOKENS + t) * ROWS + r]);
        w.red[i] = m;
    }
    SYNC;
    EACH(i, n_rows) { STAT(M, c0, i) = LANES_MAX(w.red + i * L); }
    SYNC;
    EACH(i, n_rows * L)
    {
        uint c = c0 + i / L / ROWS, r = i / L % ROWS;
        int2 seen = SEEN(c, r);
        float sum = 0.0f;
        for (uint t = i % L; t < TOKENS; t += L) {
            uint to = (c * TOKENS + t) * ROWS + r;
            float p = 0.0f;
            if ((int)t >= seen.x && (int)t < seen.y)
                p = kvcl_exp(s[to] - STAT(M, c, r));
            s[to] = p;
            sum += p;
        }
        w.red[i] = sum;
    }
    SYNC;
    EACH(i, n_rows) { STAT(SUM, c0, i) = kvcl_tree8(vload8(i, w.red)); }
    SYNC;
}

// Weights [page][token] of pages c0 .. c1 to integers in place; w.red: lanes' largest magnitudes.
static void weights_to_integers(place w, uint c0, uint c1, float up, uint items)
{
    __local float *s = (__local float *)w.s;
    uint n_rows = (c1 - c0 + 1) * ROWS; // (page, row)
    EACH(i, n_rows)
    {
        float a = LANES_MAX(w.red + i * L);
        STAT(INVERSE, c0, i) = kvcl_q15_inv(a);
        STAT(FACTOR, c0, i) = kvcl_q15_quantum(a) * up;
    }
    SYNC;
    EACH(i, (c1 - c0 + 1) * TOKENS * ROWS)
    {
        uint to = c0 * TOKENS * ROWS + i;
        ((__local int *)s)[to] = kvcl_round(s[to] * STAT(INVERSE, to / (TOKENS * ROWS), i % ROWS));
    }
    SYNC;
}

// The block's maximum and sum; weights of its pages take the place of the inverses.
static void block_stats(place w, uint c0, uint c1, uint items)
{
    EACH(r, ROWS)
    {
        float m = -INFINITY, sums[PAGES];
        for (uint c = c0; c <= c1; c++)
            m = fmax(m, STAT(M, c, r));
        for (uint c = 0; c < PAGES; c++) {
            sums[c] = 0.0f;
            if (c < c0 || c > c1)
                continue;
            float page_m = STAT(M, c, r);
            STAT(INVERSE, c, r) = page_m > -INFINITY ? kvcl_exp(page_m - m) : 0.0f;
            sums[c] = STAT(INVERSE, c, r) * STAT(SUM, c, r);
        }
        STAT(M, 0, r) = m;
        STAT(SUM, 0, r) = kvcl_tree8(vload8(0, sums));
    }
    SYNC;
}

// The group's rows; those past the last one as the last one.
static void load_rows(place w, __global const float *q, uint q_stride, uint hk, uint row0,
                      uint n_rows, uint G, uint D, float scale, uint items)
{
    EACH(i, ROWS * D)
    {
        uint r = i / D, row = min(row0 + r, n_rows - 1), query = row / G;
        uint h = hk * G + kvcl_rest(row, query, G);
        w.qs[i] = q[(ulong)query * q_stride + h * D + kvcl_rest(i, r, D)] * scale;
    }
}

// The rows turned back by a page, to w.qp; n_rot 0: as they are.
static void turn_rows(place w, uint page, uint D, __global const float *table, uint n_rot,
                      uint pairing, uint items)
{
    __local float *qp = (__local float *)w.qp;
    EACH(i, ROWS * D)
    {
        uint d = i / ROWS, r = i % ROWS;
        float v = w.qs[r * D + d];
        if (d < n_rot) {
            kvcl_pair p = kvcl_pair_of(d, n_rot, pairing);
            __global const float *cs = table + (ulong)page * TOKENS * n_rot + 2 * p.i;
            float2 back = kvcl_turn_back((float2)(w.qs[r * D + p.a], w.qs[r * D + p.a + p.apart]),
                                         (float2)(cs[0], cs[1]));
            v = d == p.a ? back.x : back.y;
        }
        qp[i] = v;
    }
}
