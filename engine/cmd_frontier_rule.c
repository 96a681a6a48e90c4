/* cmd_frontier_rule.c - which tokens a rule leaves unread, and what that costs.  See
 * cmd_frontier.h. */
#include "cmd_frontier.h"

#include "f16.h"

#include <math.h>

#define INFLATE 1e-9  /* sums of up to 2^27 doubles, generously */
#define MAX_EXP 600.0 /* a bound that far above the largest score is as good as any */

const uint32_t kvcl_frontier_tops[KVCL_FRONTIER_TOPS] = {8, 32, 64};

/* ---- the k largest ------------------------------------------------------------------------- */

static void sink_root(kvcl_frontier_heap *h)
{
    const float x = h->v[0];
    uint32_t at = 0;
    for (uint32_t child; (child = 2 * at + 1) < h->n; at = child) {
        child += child + 1 < h->n && h->v[child + 1] < h->v[child];
        if (h->v[child] >= x)
            break;
        h->v[at] = h->v[child];
    }
    h->v[at] = x;
}

void kvcl_frontier_push(kvcl_frontier_heap *h, float x)
{
    if (h->n == h->k) {
        if (x > h->v[0]) {
            h->v[0] = x;
            sink_root(h);
        }
        return;
    }
    uint32_t at = h->n++;
    for (; at > 0 && h->v[(at - 1) / 2] > x; at = (at - 1) / 2)
        h->v[at] = h->v[(at - 1) / 2];
    h->v[at] = x;
}

float kvcl_frontier_least(const kvcl_frontier_heap *h)
{
    return h->n == h->k ? h->v[0] : -INFINITY;
}

static bool is_cold(const kvcl_frontier_query *q, uint32_t t)
{
    return t >= q->begin && t < q->end;
}

static void push_hot(const kvcl_frontier_query *q, kvcl_frontier_heap *h)
{
    for (uint32_t t = 0; t < q->n; t++)
        if (!is_cold(q, t))
            kvcl_frontier_push(h, q->score[t]);
}

static double hot_weight(const kvcl_frontier_query *q)
{
    double sum = 0;
    for (uint32_t t = 0; t < q->n; t++)
        if (!is_cold(q, t))
            sum += q->weight[t];
    return sum;
}

/* ---- order --------------------------------------------------------------------------------- */

/* Words that rise where floats fall. */
static uint32_t falling_key(float x)
{
    const uint32_t bits = kvcl_f32_bits(x);
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

static double exp_above(const kvcl_frontier_query *q, float x)
{
    return exp(fmin((double)x - q->max, MAX_EXP));
}

/* By keys, a byte at a time: equal ones stay in order of tokens. */
void kvcl_frontier_bound_sort(const kvcl_frontier_query *q, uint32_t *keys, uint32_t *spare,
                              kvcl_frontier_bound *b)
{
    const uint32_t n = q->end - q->begin;
    uint32_t *from = b->order, *to = spare;
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = falling_key(b->high[q->begin + i]);
        from[i] = i;
    }
    for (uint32_t shift = 0; shift < 32; shift += 8) { /* an even number of passes: ends in order */
        uint32_t begin[257] = {0};
        for (uint32_t i = 0; i < n; i++)
            begin[(keys[i] >> shift & 255u) + 1]++;
        for (uint32_t i = 0; i < 256; i++)
            begin[i + 1] += begin[i];
        for (uint32_t i = 0; i < n; i++)
            to[begin[keys[from[i]] >> shift & 255u]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    b->sums[n] = 0;
    for (uint32_t i = n; i-- > 0;) {
        b->order[i] += q->begin;
        b->sums[i] = b->sums[i + 1] + exp_above(q, b->high[b->order[i]]);
    }
}

/* ---- rules --------------------------------------------------------------------------------- */

static void keep_above(const kvcl_frontier_query *q, const float *high, float threshold,
                       uint8_t *kept)
{
    for (uint32_t t = q->begin; t < q->end; t++)
        kept[t] = high[t] >= threshold;
}

static void keep_first(const kvcl_frontier_bound *b, uint32_t n, uint8_t *kept)
{
    for (uint32_t i = 0; i < n; i++)
        kept[b->order[i]] = 1;
}

static void top_one_shot(uint32_t k, const kvcl_frontier_query *q, const kvcl_frontier_bound *b,
                         uint8_t *kept)
{
    kvcl_frontier_heap h = {.k = k};
    push_hot(q, &h);
    for (uint32_t t = q->begin; t < q->end; t++)
        kvcl_frontier_push(&h, b->low[t]);
    keep_above(q, b->high, kvcl_frontier_least(&h), kept);
}

static void top_scan(uint32_t k, const kvcl_frontier_query *q, const kvcl_frontier_bound *b,
                     uint8_t *kept)
{
    kvcl_frontier_heap h = {.k = k};
    push_hot(q, &h);
    for (uint32_t i = 0; i < q->end - q->begin; i++) {
        const uint32_t t = b->order[i];
        if (b->high[t] < kvcl_frontier_least(&h))
            break;
        kvcl_frontier_push(&h, q->score[t]);
        kept[t] = 1;
    }
}

static double mass_one_shot(double delta, const kvcl_frontier_query *q,
                            const kvcl_frontier_bound *b, uint8_t *kept)
{
    const uint32_t n = q->end - q->begin;
    double sum = hot_weight(q);
    for (uint32_t t = q->begin; t < q->end; t++)
        sum += exp((double)b->low[t] - q->max);
    sum *= 1 - INFLATE;
    uint32_t first = n;
    while (first > 0 && b->sums[first - 1] * (1 + INFLATE) <= delta * sum)
        first--;
    keep_first(b, first, kept);
    return b->sums[first] > 0 ? b->sums[first] * (1 + INFLATE) / sum : 0;
}

static double mass_scan(double delta, const kvcl_frontier_query *q, const kvcl_frontier_bound *b,
                        uint8_t *kept)
{
    const uint32_t n = q->end - q->begin;
    double seen = hot_weight(q);
    uint32_t first = 0;
    while (first < n &&
           b->sums[first] * (1 + INFLATE) > delta / (1 - delta) * seen * (1 - INFLATE)) {
        seen += q->weight[b->order[first]];
        first++;
    }
    keep_first(b, first, kept);
    const double rest = b->sums[first] * (1 + INFLATE);
    return rest > 0 ? rest / (seen * (1 - INFLATE) + rest) : 0;
}

double kvcl_frontier_apply(const kvcl_frontier_rule *rule, bool scan, const kvcl_frontier_query *q,
                           const kvcl_frontier_bound *b, uint8_t *kept)
{
    memset(kept, 0, q->n);
    switch (rule->aim) {
    case KVCL_AIM_TOP:
        (scan ? top_scan : top_one_shot)(rule->k, q, b, kept);
        break;
    case KVCL_AIM_MASS:
        return (scan ? mass_scan : mass_one_shot)(rule->value, q, b, kept);
    case KVCL_AIM_THETA:
        keep_above(q, b->high, (float)rule->value, kept);
        break;
    }
    return 0;
}

/* ---- what it did --------------------------------------------------------------------------- */

uint64_t kvcl_frontier_violations(const kvcl_frontier_query *q, const float *low, const float *high)
{
    uint64_t n = 0;
    for (uint32_t t = q->begin; t < q->end; t++)
        n += !(q->score[t] >= low[t] && q->score[t] <= high[t]);
    return n;
}

/* A promise of the k best covers fewer, too; above them, of k itself. */
static bool misses(const kvcl_frontier_rule *rule, const kvcl_frontier_query *q,
                   const uint8_t *kept)
{
    kvcl_frontier_heap h = {.k = rule->k};
    for (uint32_t t = 0; t < q->n; t++)
        kvcl_frontier_push(&h, q->score[t]);
    const float least = kvcl_frontier_least(&h);
    for (uint32_t t = q->begin; t < q->end; t++)
        if (!kept[t] && q->score[t] >= least)
            return true;
    return false;
}

void kvcl_frontier_count(const kvcl_frontier_rule *rule, bool proves, double certificate,
                         const kvcl_frontier_query *q, const uint8_t *kept,
                         kvcl_frontier_cell *cell)
{
    uint32_t n_out = 0, n_missed[KVCL_FRONTIER_TOPS] = {0};
    double lost = 0;
    for (uint32_t t = q->begin; t < q->end; t++) {
        if (kept[t])
            continue;
        n_out++;
        lost += q->weight[t];
        for (uint32_t i = 0; i < KVCL_FRONTIER_TOPS; i++)
            n_missed[i] += q->score[t] >= q->top[i];
    }
    lost /= q->total;
    cell->eliminated += (double)n_out / (q->end - q->begin);
    cell->lost += lost;
    cell->lost_max = fmax(cell->lost_max, lost);
    cell->certificate_max = fmax(cell->certificate_max, certificate);
    for (uint32_t i = 0; i < KVCL_FRONTIER_TOPS; i++)
        cell->missed[i] += (double)n_missed[i] / kvcl_frontier_tops[i];
    if (!proves)
        return;
    if (rule->aim == KVCL_AIM_MASS)
        cell->n_broken += lost > certificate || certificate > rule->value * (1 + INFLATE);
    else if (rule->aim == KVCL_AIM_TOP)
        cell->n_broken += misses(rule, q, kept);
}
