/* spectral_rest.c - see spectral_rest.h. */
#include "spectral_rest.h"

#include "shared.h"

#include <math.h>

#define VALUE_STEP 1.0    /* coarser or finer by a quarter: no better (bench/JOURNAL.md) */
#define MIN_SCALE (-8000) /* of rows that are nothing */

/* 64 log2(x), rounded down; x > 0. */
static int log_of(double x)
{
    static const double root = 1.0108892860517005; /* 2^(1/64) */
    int whole = 0, part = 0;
    for (; x >= 2.0; whole++)
        x *= 0.5;
    for (; x < 1.0 && whole > -100; whole--)
        x *= 2.0;
    for (double edge = root; part < 63 && x >= edge; part++)
        edge *= root;
    return 64 * whole + part;
}

/* Amplitudes of a part become those of codes of 8 bits and equal steps; devs [k][D]: squared
 * deviations in steps of the coefficients that have a code, without gaps, by code. */
static uint32_t set_steps(const kvcl_spectral_shape *s, const double *cost, double step,
                          kvcl_spectral_part *p, double *devs)
{
    float *amp = (float *)(uintptr_t)p->amp;
    uint8_t *width = (uint8_t *)(uintptr_t)p->width;
    uint32_t n = 0;
    for (uint32_t e = 0; e < s->fold * s->head_dim; e++) {
        double root = sqrt(cost[e]);
        double to = root > 0.0 && step > 0.0 ? 32.0 * step * (double)amp[e] / root : 0.0;
        bool coded = to >= 1e-9 && to <= 1e9;
        amp[e] = coded ? (float)to : 0.0f;
        width[e] = coded ? 8 : 0;
        if (coded)
            devs[n++] = cost[e] / (step * step);
    }
    p->in_order = true;
    return n;
}

/* Scales of a part's words, from word `first` on. */
static void set_scales(const double *devs, uint32_t n, int16_t *scales)
{
    for (uint32_t i = 0; i < n; i += 4) {
        double sum = 0.0;
        uint32_t some = kvcl_min_u32(4, n - i);
        for (uint32_t j = 0; j < some; j++)
            sum += devs[i + j];
        scales[i / 4] = (int16_t)log_of(sqrt(sum / some));
    }
}

kvcl_status kvcl_spectral_rest_make(kvcl_ctx *ctx, const kvcl_spectral_shape *s,
                                    const kvcl_spectral_moments *moments, uint32_t n_threads,
                                    void *basis, int16_t *scales)
{
    kvcl_spectral_fit fit;
    KVCL_TRY(kvcl_spectral_fit_make(ctx, s, moments, n_threads, &fit));
    uint32_t heads = s->n_kv_heads, n = s->fold * s->head_dim;
    for (uint32_t w = 0; w < s->words_k + s->words_v; w++)
        scales[w] = MIN_SCALE;
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        double step = sqrt(fit.energy[of_v] / ((double)heads * n)) * (of_v ? VALUE_STEP : 1.0);
        uint32_t word = of_v ? s->words_k : 0;
        for (uint32_t h = of_v * heads; h < (of_v + 1) * heads; h++) {
            double *cost = fit.cost + (size_t)h * n;
            uint32_t n_codes = set_steps(s, cost, step, &fit.parts[h], cost);
            set_scales(cost, n_codes, scales + word);
            word += kvcl_div_up(n_codes, 4);
        }
    }
    kvcl_status st = kvcl_spectral_pack(ctx, s, fit.parts, basis);
    kvcl_spectral_fit_free(ctx, &fit);
    return st;
}
