/* cmd_frontier_random.c - random projections, flat and in clusters, in the form of GhostKV: for
 * comparison, as their bounds are none.  See cmd_frontier.h. */
#include "cmd_frontier.h"

#include "f16.h"
#include "hparams.h"

#include <math.h>

#define ROUNDS 20         /* of k-means, at most */
#define SOURCE_SLACK 0.05 /* the source's epsilon, and its sigma */

/* splitmix64 (Steele, Lea, Flood 2014) as a function of a counter: (0, 1). */
static double uniform(uint64_t seed, uint64_t counter)
{
    uint64_t x = (seed << 32) + (counter + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return ((double)((x ^ x >> 31) >> 12) + 0.5) * 0x1p-52;
}

/* ---- clusters ------------------------------------------------------------------------------ */

static double distance2(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const double x = (double)a[i] - (double)b[i];
        sum += x * x;
    }
    return sum;
}

/* Every token to the nearest center, the first of equal ones; false when none moved. */
static bool assign(kvcl_frontier_sketch *s)
{
    bool moved = false;
    for (uint32_t t = 0; t < s->T; t++) {
        uint8_t best = 0;
        double least = INFINITY;
        for (uint8_t c = 0; c < KVCL_FRONTIER_CLUSTERS; c++) {
            const double x = distance2(s->code + (size_t)t * s->s, s->center + c * s->s, s->s);
            if (x < least) {
                least = x;
                best = c;
            }
        }
        moved |= s->cluster[t] != best;
        s->cluster[t] = best;
    }
    return moved;
}

/* Centers to the means of their tokens; one without tokens stays. */
static void move_centers(kvcl_frontier_sketch *s)
{
    for (uint32_t c = 0; c < KVCL_FRONTIER_CLUSTERS; c++) {
        double sum[KVCL_MAX_HEAD_DIM] = {0};
        uint32_t n = 0;
        for (uint32_t t = 0; t < s->T; t++) {
            if (s->cluster[t] != c)
                continue;
            n++;
            for (uint32_t i = 0; i < s->s; i++)
                sum[i] += (double)s->code[(size_t)t * s->s + i];
        }
        for (uint32_t i = 0; i < s->s && n; i++)
            s->center[c * s->s + i] = (float)(sum[i] / n);
    }
}

static void make_clusters(kvcl_frontier_sketch *s)
{
    for (uint32_t c = 0; c < KVCL_FRONTIER_CLUSTERS; c++)
        memcpy(s->center + c * s->s, s->code + (size_t)s->T * c / KVCL_FRONTIER_CLUSTERS * s->s,
               s->s * sizeof(float));
    memset(s->cluster, 0xff, s->T);
    for (uint32_t i = 0; i < ROUNDS && assign(s); i++)
        move_centers(s);
    memset(s->radius, 0, sizeof s->radius);
    for (uint32_t t = 0; t < s->T; t++) {
        const uint8_t c = s->cluster[t];
        s->radius[c] = fmax(
            s->radius[c], sqrt(distance2(s->code + (size_t)t * s->s, s->center + c * s->s, s->s)));
    }
}

/* ---- projections --------------------------------------------------------------------------- */

void kvcl_frontier_code_random(const kvcl_frontier_keys *k, kvcl_frontier_sketch *s)
{
    for (uint64_t i = 0; i < (uint64_t)s->s * s->D; i++) {
        const double r = sqrt(-2 * log(uniform(k->seed, 2 * i)));
        const double angle = 6.283185307179586 * uniform(k->seed, 2 * i + 1);
        s->random[i] = (float)(r * cos(angle) / sqrt((double)s->s));
    }
    for (uint32_t t = 0; t < s->T; t++)
        for (uint32_t i = 0; i < s->s; i++)
            s->code[(size_t)t * s->s + i] = kvcl_f16_to_f32(kvcl_f32_to_f16(
                kvcl_frontier_dot(k->post + (size_t)t * s->D, s->random + (size_t)i * s->D, s->D)));
    if (s->spec->grouped)
        make_clusters(s);
}

void kvcl_frontier_bounds_random(const kvcl_frontier_sketch *s, const float *q, uint32_t n,
                                 double scale, float *low, float *high)
{
    float b[KVCL_MAX_HEAD_DIM];
    double most[KVCL_FRONTIER_CLUSTERS];
    for (uint32_t i = 0; i < s->s; i++)
        b[i] = kvcl_frontier_dot(q, s->random + (size_t)i * s->D, s->D);
    const double factor = 1 / (scale * sqrt((double)s->s)), slack = 2 * SOURCE_SLACK;
    for (uint32_t c = 0; c < KVCL_FRONTIER_CLUSTERS && s->spec->grouped; c++)
        most[c] = factor * (double)kvcl_frontier_dot(b, s->center + c * s->s, s->s) + s->radius[c] +
                  slack;
    for (uint32_t t = 0; t < n; t++) {
        const double x = factor * (double)kvcl_frontier_dot(b, s->code + (size_t)t * s->s, s->s);
        low[t] = (float)(x - slack);
        high[t] = (float)(s->spec->grouped ? fmin(x + slack, most[s->cluster[t]]) : x + slack);
    }
}
