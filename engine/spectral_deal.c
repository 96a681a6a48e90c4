/* spectral_deal.c - see spectral_deal.h.
 *
 * Within a head a number of larger variance never has fewer bits than one of smaller: with the
 * numbers in falling order a deal is four counts, and since a word that is begun may as well be
 * filled, four counts of words.  So a walk over the sorted numbers, which adds one word of a plane
 * at a time and goes from wide planes to narrow ones, meets every deal worth a thought: the best
 * way to each (numbers covered, words used) follows from those before.  Then one more such table
 * over heads shares out the words: sharing is worth more than any finesse within a head. */
#include "spectral_deal.h"

#include "mem.h"

#include <stdlib.h>

#define PLANES 4 /* of 8 >> plane bits */
#define STEP 4   /* numbers that a word of the widest plane holds */

double kvcl_spectral_distortion(uint32_t bits)
{
    switch (bits) {
    case 0:
        return 1.0;
    case 1:
        return 0.3634;
    case 2:
        return 0.1175;
    case 4:
        return 0.009497;
    default:
        return 8.1e-5;
    }
}

typedef struct deal_number {
    double variance;
    uint32_t index;
} deal_number;

typedef struct deal {
    uint32_t n, n_steps, max_words; /* of a head: numbers, ceil(n / STEP), words worth having */
    deal_number *sorted;            /* [n] */
    double *sums;                   /* [n_steps + 1]: of the first STEP * i variances */
    double *best;  /* [n_steps + 1][max_words + 1]: error spared, -1 where there is no way */
    uint8_t *step; /* [PLANES][n_steps + 1][max_words + 1]: steps of the last word; 0: another plane
                      was last */
    double *curve; /* [n_heads][max_words + 1]: the best of all steps */
    double *total, *total_before; /* [words + 1]: of the heads so far */
    uint16_t *pick;               /* [n_heads][words + 1]: words of the last head */
} deal;

static int by_variance(const void *a, const void *b)
{
    const deal_number *x = a, *y = b;
    if (x->variance != y->variance)
        return x->variance > y->variance ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* Steps that lead to numbers with a variance. */
static uint32_t sort_head(const deal *d, const double *variance)
{
    uint32_t n = 0;
    double sum = 0.0;
    for (uint32_t i = 0; i < d->n; i++) {
        d->sorted[i] = (deal_number){variance[i], i};
        n += variance[i] > 0.0;
    }
    qsort(d->sorted, d->n, sizeof *d->sorted, by_variance);
    for (uint32_t i = 0; i < d->n; i++) {
        if (i % STEP == 0)
            d->sums[i / STEP] = sum;
        sum += d->sorted[i].variance;
    }
    d->sums[d->n_steps] = sum;
    return kvcl_div_up(n, STEP);
}

/* All ways through one head's sorted numbers. */
static void walk(const deal *d, uint32_t n_steps)
{
    uint32_t W = d->max_words + 1;
    size_t cells = (size_t)(d->n_steps + 1) * W;
    for (size_t i = 0; i < cells; i++)
        d->best[i] = -1.0;
    d->best[0] = 0.0;
    memset(d->step, 0, PLANES * cells);
    for (uint32_t plane = 0; plane < PLANES; plane++) {
        double spared = 1.0 - kvcl_spectral_distortion(8u >> plane);
        for (uint32_t i = 0; i < n_steps; i++) {
            uint32_t to = kvcl_min_u32(i + (1u << plane), n_steps);
            double more = (d->sums[to] - d->sums[i]) * spared;
            const double *from = d->best + (size_t)i * W;
            double *best = d->best + (size_t)to * W + 1;
            uint8_t *step = d->step + plane * cells + (size_t)to * W + 1;
            for (uint32_t w = 0; w < d->max_words; w++) {
                if (from[w] >= 0.0 && from[w] + more > best[w]) {
                    best[w] = from[w] + more;
                    step[w] = (uint8_t)(to - i);
                }
            }
        }
    }
}

/* Where the best way with so many words ends. */
static uint32_t end_of_way(const deal *d, uint32_t words)
{
    uint32_t W = d->max_words + 1, at = 0;
    for (uint32_t i = 1; i <= d->n_steps; i++)
        if (d->best[(size_t)i * W + words] > d->best[(size_t)at * W + words])
            at = i;
    return at;
}

/* The way with so many words back to the beginning. */
static void set_widths(const deal *d, uint32_t words, uint8_t *width)
{
    uint32_t W = d->max_words + 1, at = end_of_way(d, words);
    size_t cells = (size_t)(d->n_steps + 1) * W;
    memset(width, 0, d->n);
    for (uint32_t plane = PLANES; plane-- > 0;) {
        uint32_t step;
        while ((step = d->step[plane * cells + (size_t)at * W + words]) != 0) {
            uint32_t end = kvcl_min_u32(at * STEP, d->n);
            at -= step;
            words--;
            for (uint32_t i = at * STEP; i < end; i++)
                if (d->sorted[i].variance > 0.0)
                    width[d->sorted[i].index] = (uint8_t)(8u >> plane);
        }
    }
}

/* Words of each head into pick's first column, from the curves. */
static void share(const deal *d, uint32_t n_heads, uint32_t words)
{
    double *total = d->total, *before = d->total_before;
    for (uint32_t w = 0; w <= words; w++)
        total[w] = 0.0;
    for (uint32_t h = 0; h < n_heads; h++) {
        const double *curve = d->curve + (size_t)h * (d->max_words + 1);
        uint16_t *pick = d->pick + (size_t)h * (words + 1);
        double *swap = total;
        total = before;
        before = swap;
        for (uint32_t w = 0; w <= words; w++) {
            total[w] = before[w];
            pick[w] = 0;
            for (uint32_t x = 1; x <= kvcl_min_u32(w, d->max_words); x++)
                if (curve[x] >= 0.0 && before[w - x] + curve[x] > total[w]) {
                    total[w] = before[w - x] + curve[x];
                    pick[w] = (uint16_t)x;
                }
        }
    }
    for (uint32_t h = n_heads, left = words; h-- > 0;) {
        uint16_t *pick = d->pick + (size_t)h * (words + 1), x = pick[left];
        left -= x;
        pick[0] = x;
    }
}

static void deal_free(kvcl_ctx *ctx, deal *d)
{
    kvcl_mem_free(ctx, d->sorted);
    kvcl_mem_free(ctx, d->sums);
    kvcl_mem_free(ctx, d->best);
    kvcl_mem_free(ctx, d->step);
    kvcl_mem_free(ctx, d->curve);
    kvcl_mem_free(ctx, d->total);
    kvcl_mem_free(ctx, d->total_before);
    kvcl_mem_free(ctx, d->pick);
}

static kvcl_status deal_init(kvcl_ctx *ctx, uint32_t n_heads, uint32_t n, uint32_t words, deal *d)
{
    static const char what[] = "a deal of bits";
    *d = (deal){.n = n, .n_steps = kvcl_div_up(n, STEP)};
    d->max_words = kvcl_min_u32(d->n_steps, words); /* all of 8 bits */
    size_t W = d->max_words + 1, cells = (d->n_steps + 1) * W, all = (size_t)words + 1;
    void *p[8] = {0};
    const size_t bytes[8] = {n * sizeof *d->sorted,          (d->n_steps + 1) * sizeof *d->sums,
                             cells * sizeof *d->best,        cells * PLANES,
                             n_heads * W * sizeof *d->curve, all * sizeof *d->total,
                             all * sizeof *d->total_before,  n_heads * all * sizeof *d->pick};
    kvcl_status st = KVCL_OK;
    for (int i = 0; i < 8 && st == KVCL_OK; i++)
        st = kvcl_mem_alloc(ctx, bytes[i], what, &p[i]);
    d->sorted = p[0];
    d->sums = p[1];
    d->best = p[2];
    d->step = p[3];
    d->curve = p[4];
    d->total = p[5];
    d->total_before = p[6];
    d->pick = p[7];
    return st;
}

kvcl_status kvcl_spectral_deal(kvcl_ctx *ctx, uint32_t n_heads, uint32_t n, const double *variance,
                               uint32_t words, uint8_t *width, double *error_out)
{
    deal d;
    words = kvcl_min_u32(words, n_heads * kvcl_div_up(n, STEP));
    kvcl_status st;
    KVCL_TRY_GOTO(deal_init(ctx, n_heads, n, words, &d));
    for (uint32_t h = 0; h < n_heads; h++) {
        double *curve = d.curve + (size_t)h * (d.max_words + 1);
        walk(&d, sort_head(&d, variance + (size_t)h * n));
        for (uint32_t w = 0; w <= d.max_words; w++)
            curve[w] = d.best[(size_t)end_of_way(&d, w) * (d.max_words + 1) + w];
    }
    share(&d, n_heads, words);
    *error_out = 0.0;
    for (uint32_t h = 0; h < n_heads; h++) {
        const double *v = variance + (size_t)h * n;
        walk(&d, sort_head(&d, v));
        set_widths(&d, d.pick[(size_t)h * (words + 1)], width + (size_t)h * n);
        for (uint32_t i = 0; i < n; i++)
            *error_out += v[i] * kvcl_spectral_distortion(width[(size_t)h * n + i]);
    }
fail:
    deal_free(ctx, &d);
    return st;
}
