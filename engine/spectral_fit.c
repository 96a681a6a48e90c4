/* spectral_fit.c - see spectral_fit.h. */
#include "spectral_fit.h"

#include "mem.h"
#include "ops_check.h"
#include "spectral_basis.h"
#include "spectral_deal.h"

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define TOO_LARGE 1e20f /* a moment beyond: amplitudes would not fit their range */

static kvcl_status check(kvcl_ctx *ctx, const kvcl_spectral_shape *s,
                         const kvcl_spectral_moments *m)
{
    uint32_t D = s->head_dim, k = s->fold, join = kvcl_max_u32(1, m->join);
    KVCL_CHECK(ctx, D && D % 8 == 0 && D <= KVCL_MAX_HEAD_DIM, KVCL_E_UNSUPPORTED,
               "spectral fit: head dimension %u; want a multiple of 8, at most %u", (unsigned)D,
               KVCL_MAX_HEAD_DIM);
    KVCL_CHECK(ctx, k && k <= 8 && (k & (k - 1)) == 0, KVCL_E_UNSUPPORTED,
               "spectral fit: slots of %u tokens; want 1, 2, 4 or 8", (unsigned)k);
    KVCL_CHECK(ctx, s->n_kv_heads && s->n_kv_heads <= 1024, KVCL_E_UNSUPPORTED,
               "spectral fit: %u kv heads; want 1 to 1024", (unsigned)s->n_kv_heads);
    KVCL_CHECK(ctx, m->n_slots, KVCL_E_ARG, "spectral fit: no tokens to fit to");
    KVCL_CHECK(ctx, D % join == 0, KVCL_E_ARG, "spectral fit: %u dimensions of %u heads",
               (unsigned)D, (unsigned)join);
    KVCL_CHECK(ctx, m->pairing == KVCL_ROPE_NONE || (m->n_rot <= D / join && m->n_rot % 2 == 0),
               KVCL_E_ARG, "spectral fit: %u rotated dimensions of %u", (unsigned)m->n_rot,
               (unsigned)(D / join));
    KVCL_CHECK(ctx, m->metric != KVCL_METRIC_SPAN || !m->n_span || m->table, KVCL_E_ARG,
               "spectral fit: no angles for %u distances", (unsigned)m->n_span);
    for (uint32_t of_v = 0; of_v < 2; of_v++)
        for (size_t i = 0, n = (size_t)s->n_kv_heads * k * D * D; i < n; i++)
            KVCL_CHECK(ctx, fabsf(m->pages[of_v * n + i]) < TOO_LARGE, KVCL_E_NOT_FINITE,
                       "spectral fit: a moment of %s of kv head %u is %g", of_v ? "V" : "K",
                       (unsigned)(i / ((size_t)k * D * D)), (double)m->pages[of_v * n + i]);
    for (size_t i = 0, n = (size_t)s->n_kv_heads * D * D / join; m->queries && i < n; i++)
        KVCL_CHECK(ctx, fabsf(m->queries[i]) < TOO_LARGE, KVCL_E_NOT_FINITE,
                   "spectral fit: a moment of the queries of kv head %u is %g",
                   (unsigned)(i * join * join / ((size_t)D * D)), (double)m->queries[i]);
    return KVCL_OK;
}

/* One block: parts, numbers, bases.  Pointers into it go to the parts. */
static kvcl_status make_parts(kvcl_ctx *ctx, const kvcl_spectral_shape *s, bool metric,
                              kvcl_spectral_part **out)
{
    size_t heads = 2 * (size_t)s->n_kv_heads, D = s->head_dim, k = s->fold;
    size_t head_bytes = (1 + k) * D * sizeof(float) + 2 * D * D + k * D;
    void *block;
    KVCL_TRY(kvcl_mem_alloc(ctx, heads * (sizeof **out + head_bytes), "a spectral fit", &block));
    kvcl_spectral_part *parts = block;
    float *numbers = (float *)(void *)(parts + heads);
    int8_t *bytes = (int8_t *)(numbers + heads * (1 + k) * D);
    for (size_t h = 0; h < heads; h++, numbers += (1 + k) * D, bytes += 2 * D * D + k * D) {
        bool two = metric && h < s->n_kv_heads;
        parts[h] = (kvcl_spectral_part){.n_comp = s->head_dim, .synth = bytes, .gain = numbers};
        parts[h].analysis = two ? bytes + D * D : NULL;
        parts[h].amp = numbers + D;
        parts[h].width = (uint8_t *)(bytes + 2 * D * D);
    }
    *out = parts;
    return KVCL_OK;
}

/* Bases of all heads; cost [2][Hk][k][D]; a thread's scratch is D-dependent.  False when an
 * eigenproblem does not converge. */
static bool make_bases(const kvcl_spectral_shape *s, const kvcl_spectral_moments *m,
                       kvcl_spectral_part *parts, int n_threads, double *scratch, double *cost)
{
    size_t D = s->head_dim, per_head = s->fold * D * D, per_thread;
    per_thread = kvcl_spectral_basis_scratch(s->head_dim);
    int heads = (int)(2 * s->n_kv_heads), n_failed = 0;
    KVCL_UNUSED(n_threads);
#ifdef _OPENMP
#pragma omp parallel for num_threads(n_threads) schedule(dynamic) reduction(+ : n_failed)
#endif
    for (int h = 0; h < heads; h++) {
        int thread = 0;
#ifdef _OPENMP
        thread = omp_get_thread_num();
#endif
        double *mine = scratch + (size_t)thread * per_thread;
        double *metric = kvcl_spectral_metric_at(s->head_dim, mine);
        kvcl_spectral_part *p = &parts[h];
        kvcl_spectral_basis b = {.D = s->head_dim, .fold = s->fold, .n_slots = m->n_slots};
        if (p->analysis) {
            kvcl_spectral_metric_make(m, s->head_dim, (uint32_t)h, mine, metric);
            b.metric = metric;
        }
        b.shrink = m->shrink[(uint32_t)h >= s->n_kv_heads];
        b.gram = m->pages + (size_t)h * per_head;
        b.synth = (int8_t *)(uintptr_t)p->synth;
        b.analysis = (int8_t *)(uintptr_t)p->analysis;
        b.gain = (float *)(uintptr_t)p->gain;
        b.amp = (float *)(uintptr_t)p->amp;
        b.cost = cost + (size_t)h * s->fold * D;
        n_failed += kvcl_spectral_basis_make(&b, mine) ? 0 : 1;
    }
    return n_failed == 0;
}

kvcl_status kvcl_spectral_fit_make(kvcl_ctx *ctx, const kvcl_spectral_shape *s,
                                   const kvcl_spectral_moments *m, uint32_t n_threads,
                                   kvcl_spectral_fit *out)
{
    KVCL_TRY(check(ctx, s, m));
    uint32_t n = s->fold * s->head_dim, heads = s->n_kv_heads;
    uint32_t threads = kvcl_max_u32(1, kvcl_min_u32(n_threads, 2 * heads));
    size_t scratch = threads * kvcl_spectral_basis_scratch(s->head_dim);
    kvcl_spectral_fit fit = {0};
    void *work = NULL;
    kvcl_status st;
    KVCL_TRY_GOTO(make_parts(ctx, s, m->queries && m->metric != KVCL_METRIC_NONE, &fit.parts));
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, 2 * (size_t)heads * n, sizeof(double),
                                 "a spectral fit's costs", (void **)&fit.cost));
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, scratch + (size_t)heads * n, sizeof(double),
                                 "a spectral fit's work", &work));
    uint8_t *width = (uint8_t *)((double *)work + scratch);
    KVCL_CHECK_GOTO(ctx, make_bases(s, m, fit.parts, (int)threads, work, fit.cost),
                    KVCL_E_UNSUPPORTED, "spectral fit: an eigenproblem does not converge");
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        const double *c = fit.cost + (size_t)of_v * heads * n;
        KVCL_TRY_GOTO(kvcl_spectral_deal(ctx, heads, n, c, of_v ? s->words_v : s->words_k, width,
                                         &fit.error[of_v]));
        for (size_t i = 0; i < (size_t)heads * n; i++)
            fit.energy[of_v] += c[i];
        for (uint32_t h = 0; h < heads; h++)
            memcpy((uint8_t *)(uintptr_t)fit.parts[of_v * heads + h].width, width + (size_t)h * n,
                   n);
    }
    kvcl_mem_free(ctx, work);
    *out = fit;
    return KVCL_OK;
fail:
    kvcl_mem_free(ctx, work);
    kvcl_spectral_fit_free(ctx, &fit);
    return st;
}

void kvcl_spectral_fit_free(kvcl_ctx *ctx, kvcl_spectral_fit *fit)
{
    kvcl_mem_free(ctx, fit->parts);
    kvcl_mem_free(ctx, fit->cost);
    *fit = (kvcl_spectral_fit){0};
}
