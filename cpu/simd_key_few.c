/* simd_key_few.c - scores of a tile of rows over PRE keys, without ever storing the keys: for heads
 * of 64 or 128 dims that are one block of the transform and rotated as a whole.  Others, and more
 * rows: simd_key.c.
 *
 * For M_LANES tokens at a time, two passes.  The first leaves stages 1 and D/2 .. 16 in h; the
 * second takes sixteen neighbouring dims (and, where pairs are halves, the sixteen D/2 further on)
 * through stages 8, 4 and 2, scale, mean and rotation, and straight into the chains over d.
 * Turned second halves wait in `tail` until the first halves of a few pages are through, whose
 * chains then go side by side. */
#include "simd_code.h"

#define MAX_FEW 128 /* dims */
#define H_LANES (2 * M_LANES)

typedef kvcl_simd_key_job key_job;
typedef kvcl_simd_key_page key_page;

KVCL_INLINE void butterflies(mh *x, uint32_t n)
{
    KVCL_UNROLL
    for (uint32_t h = 1; h < n; h *= 2)
        KVCL_UNROLL
    for (uint32_t i = 0; i < n; i++)
        if ((i & h) == 0) {
            mh a = x[i], b = x[i + h];
            x[i] = mh_add(a, b);
            x[i + h] = mh_sub(a, b);
        }
}

/* h [D / 4][2]: sums, differences of neighbours.  bits and D are constants. */
KVCL_INLINE void first_pass(uint32_t bits, uint32_t D, const unsigned char *codes, mb table, mh *h)
{
    const size_t pitch = KVCL_TOKENS * 4;
    const unsigned char *high = codes + D / 16 * pitch;
    KVCL_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        mh sums[8], diffs[8];
        KVCL_UNROLL
        for (uint32_t m = 0; m < D / 16; m++) {
            uint32_t g = i + 4 * m;
            const unsigned char *p = codes + g / 8 * code_step(bits) * pitch;
            mb x = code_group(bits, p, high + g / 8 * pitch, pitch, table, g % 8);
            sums[m] = mb_pair_sum(x);
            diffs[m] = mb_pair_diff(x);
        }
        butterflies(sums, D / 16);
        butterflies(diffs, D / 16);
        KVCL_UNROLL
        for (uint32_t m = 0; m < D / 16; m++) {
            h[2 * (i + 4 * m)] = sums[m];
            h[2 * (i + 4 * m) + 1] = diffs[m];
        }
    }
}

/* Sixteen dims before their last stage: sums and differences of neighbours, by fours. */
typedef struct dims16 {
    mh sums[4], diffs[4];
} dims16;

KVCL_INLINE void load_dims(const mh *h, uint32_t b, int bias, dims16 *x)
{
    KVCL_UNROLL
    for (uint32_t m = 0; m < 4; m++) {
        x->sums[m] = h[8 * b + 2 * m];
        x->diffs[m] = h[8 * b + 2 * m + 1];
    }
    butterflies(x->sums, 4);
    butterflies(x->diffs, 4);
    if (MB_BIAS != 0 && b == 0)
        x->sums[0] = mh_minus(x->sums[0], bias);
}

/* Key value i of sixteen; i is a constant. */
KVCL_INLINE mf key_value(const dims16 *x, uint32_t i, mf us, const float *mean)
{
    mh pair = i % 2 == 0 ? x->sums[i / 4] : x->diffs[i / 4];
    mf value = i % 4 < 2 ? mh_lane_sum(pair) : mh_lane_diff(pair);
    return mf_fma(us, value, mf_set(mean[i]));
}

KVCL_INLINE void turn(mf *a, mf *b, const float *cs)
{
    mf c = mf_load(cs), s = mf_load(cs + 16), a0 = *a;
    *a = mf_fms(a0, c, mf_mul(*b, s));
    *b = mf_fma(*b, c, mf_mul(a0, s));
}

/* rows, D and adjacent are constants. */
KVCL_INLINE void last_pass(uint32_t rows, uint32_t D, bool adjacent, const key_job *job,
                           const key_page *page, uint32_t t, const mh *h, mf *tail)
{
    const int bias = 2 * MB_BIAS * (int)(D / 4);
    const float *cs = job->cs + t / 16 * 16 * D + t % 16, *q = page->q, *mean = job->mean;
    mf acc[CODE_TILE], us = mf_load(page->us + t);
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[r] = mf_set(0.0f);
    for (uint32_t b = 0; b < (adjacent ? D / 16 : D / 32); b++) {
        dims16 x, y;
        load_dims(h, b, bias, &x);
        if (!adjacent)
            load_dims(h, b + D / 32, 0, &y);
        KVCL_UNROLL
        for (uint32_t i = 0; i < 16; i += adjacent ? 2 : 1) {
            mf ta = key_value(&x, i, us, mean);
            mf tb = adjacent ? key_value(&x, i + 1, us, mean) : key_value(&y, i, us, mean + D / 2);
            turn(&ta, &tb, cs + (adjacent ? i / 2 : i) * 32);
            KVCL_UNROLL
            for (uint32_t r = 0; r < rows; r++) {
                acc[r] = mf_fma(mf_set(q[r * CODE_MAX_DIM + i]), ta, acc[r]);
                if (adjacent)
                    acc[r] = mf_fma(mf_set(q[r * CODE_MAX_DIM + i + 1]), tb, acc[r]);
            }
            if (!adjacent)
                tail[16 * b + i] = tb;
        }
        q += 16;
        mean += 16;
        cs += adjacent ? 8 * 32 : 16 * 32;
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        mf_store(page->s + r * job->s_pitch + t, acc[r]);
}

/* The chains' second halves of n pages; rows and n are constants. */
KVCL_INLINE void tails(uint32_t rows, uint32_t n, const key_job *job, const key_page *page,
                       uint32_t t, mf tail[4][MAX_FEW / 2])
{
    uint32_t half = job->dim / 2;
    mf acc[4][CODE_TILE];
    KVCL_UNROLL
    for (uint32_t p = 0; p < n; p++)
        KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        acc[p][r] = mf_load(page[p].s + r * job->s_pitch + t);
    for (uint32_t d = 0; d < half; d++)
        KVCL_UNROLL
    for (uint32_t p = 0; p < n; p++) {
        mf x = tail[p][d];
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            acc[p][r] = mf_fma(mf_set(page[p].q[r * CODE_MAX_DIM + half + d]), x, acc[p][r]);
    }
    KVCL_UNROLL
    for (uint32_t p = 0; p < n; p++)
        KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        mf_store(page[p].s + r * job->s_pitch + t, acc[p][r]);
}

/* ---- one function per bits, rows and D ----------------------------------------------------- */

typedef void (*first_fn)(const unsigned char *codes, mb table, mh *h);
typedef void (*last_fn)(const key_job *job, const key_page *page, uint32_t t, const mh *h,
                        mf *tail);
typedef void (*tails_fn)(const key_job *job, const key_page *page, uint32_t t,
                         mf tail[4][MAX_FEW / 2]);

#define FIRST(bits, D)                                                          \
    static void first_##bits##_##D(const unsigned char *codes, mb table, mh *h) \
    {                                                                           \
        first_pass(bits, D, codes, table, h);                                   \
    }
#define LAST(rows, D)                                                                   \
    static void last_##rows##_##D(const key_job *job, const key_page *page, uint32_t t, \
                                  const mh *h, mf *tail)                                \
    {                                                                                   \
        if (job->pairing == KVCL_ROPE_ADJACENT)                                         \
            last_pass(rows, D, true, job, page, t, h, tail);                            \
        else                                                                            \
            last_pass(rows, D, false, job, page, t, h, tail);                           \
    }
#define TAILS(rows, n)                                                                   \
    static void tails_##rows##_##n(const key_job *job, const key_page *page, uint32_t t, \
                                   mf tail[4][MAX_FEW / 2])                              \
    {                                                                                    \
        tails(rows, n, job, page, t, tail);                                              \
    }
#define EACH_BITS(X, D) X(1, D) X(2, D) X(3, D) X(4, D) X(8, D)
EACH_BITS(FIRST, 64)
EACH_BITS(FIRST, 128)
#define EACH_ROWS(X, D) X(1, D) X(2, D) X(3, D) X(4, D)
EACH_ROWS(LAST, 64)
EACH_ROWS(LAST, 128)
EACH_ROWS(TAILS, 1)
TAILS(1, 4)
TAILS(2, 2)

static first_fn pick_first(uint32_t bits, uint32_t dim)
{
    static const first_fn list[2][5] = {
        {first_1_64, first_2_64, first_3_64, first_4_64, first_8_64},
        {first_1_128, first_2_128, first_3_128, first_4_128, first_8_128}};
    return list[dim == 128][bits == 8 ? 4 : bits - 1];
}

static last_fn pick_last(uint32_t rows, uint32_t dim)
{
    static const last_fn list[2][CODE_TILE] = {{last_1_64, last_2_64, last_3_64, last_4_64},
                                               {last_1_128, last_2_128, last_3_128, last_4_128}};
    return list[dim == 128][rows - 1];
}

/* Asks for a part of the keys and values that are wanted soon. */
KVCL_INLINE void ask(const key_job *job, uint32_t c, uint32_t t, uint32_t ahead)
{
    const uint32_t parts = KVCL_TOKENS / M_LANES;
    uint32_t n = job->bits * job->dim / 32 * KVCL_TOKENS * 4 / parts, m = job->soon_bytes / parts;
    if (c + ahead < job->n_pages)
        code_ask(job->pages[c + ahead].codes + n * (t / M_LANES), n);
    else if (job->pages[c].next)
        code_ask(job->pages[c].next + n * (t / M_LANES), n);
    code_ask(job->pages[c].soon + m * (t / M_LANES), m);
}

bool KVCL_SIMD_FN(key_scores)(const kvcl_simd_key_job *job)
{
    static const tails_fn single[CODE_TILE] = {tails_1_1, tails_2_1, tails_3_1, tails_4_1};
    uint32_t D = job->dim, rows = job->rows;
    if ((D != 64 && D != 128) || job->n_rot != D)
        return false;
    first_fn first = pick_first(job->bits, D);
    last_fn last = pick_last(rows, D);
    uint32_t most = rows == 1 ? 4 : rows == 2 ? 2 : 1; /* pages side by side */
    mb table = mb_table(job->table);
    mh h[MAX_FEW / 2];
    mf tail[4][MAX_FEW / 2];
    for (uint32_t c = 0, n; c < job->n_pages; c += n) {
        const key_page *page = &job->pages[c];
        n = job->n_pages - c >= most ? most : 1;
        for (uint32_t t = 0; t < KVCL_TOKENS; t += M_LANES) {
            for (uint32_t p = 0; p < n; p++) {
                ask(job, c + p, t, n);
                first(page[p].codes + 4 * (size_t)t, table, h);
                last(job, &page[p], t, h, tail[p]);
            }
            if (job->pairing == KVCL_ROPE_HALVES)
                (n == 1 ? single[rows - 1] : rows == 1 ? tails_1_4 : tails_2_2)(job, page, t, tail);
        }
    }
    return true;
}
