/* cmd_eval_sum.c - figures of kvcl eval over places and prompts.  See cmd_eval.h. */
#include "cmd_eval.h"
#include "cmd_eval_stats.h"

#include "mem.h"

#include <math.h>

static void sum_text(const kvcl_eval *e, size_t config, double *kl, kvcl_eval_sum *s)
{
    const uint32_t n_layers = kvcl_model_get_info(e->app.model)->n_layers, n = e->n_positions;
    double nll = 0;
    for (size_t i = 0; i < e->n_places; i++) {
        const kvcl_eval_text *t = kvcl_eval_text_at(e, config, i);
        if (!t->is_done)
            continue;
        memcpy(kl + (size_t)s->n_places * n, t->kl, n * sizeof(double));
        if (s->n_places++ == 0 || t->seconds_per_token < s->seconds_per_token)
            s->seconds_per_token = t->seconds_per_token;
        s->same_top1 += t->n_same;
        nll += t->nll;
        for (uint32_t l = 0; l < n_layers; l++)
            s->att[l] += t->att[l];
        s->bits += t->bits;
        s->bits_all += t->bits_all;
        s->bytes = t->bytes > s->bytes ? t->bytes : s->bytes;
        s->disk = t->disk > s->disk ? t->disk : s->disk;
        s->read = t->read > s->read ? t->read : s->read;
    }
    if (s->n_places == 0)
        return;
    const double places = s->n_places;
    s->n_positions = s->n_places * n;
    kvcl_stats_sort(kl, s->n_positions);
    s->kl_mean = kvcl_stats_mean(kl, s->n_positions);
    s->kl_median = kvcl_stats_quantile(kl, s->n_positions, 0.5);
    s->kl_p99 = kvcl_stats_quantile(kl, s->n_positions, 0.99);
    s->kl_max = kvcl_stats_quantile(kl, s->n_positions, 1);
    s->same_top1 /= s->n_positions;
    s->ppl = exp(nll / s->n_positions);
    s->bits /= places;
    s->bits_all /= places;
    for (uint32_t l = 0; l < n_layers; l++) {
        s->att[l] /= places;
        s->att_mean += s->att[l] / n_layers;
        if (s->att[l] > s->att_worst) {
            s->att_worst = s->att[l];
            s->att_worst_layer = l;
        }
    }
}

static void sum_answers(const kvcl_eval *e, size_t config, kvcl_eval_sum *s)
{
    uint64_t n_kl = 0;
    for (size_t i = 0; i < e->n_prompts; i++) {
        const kvcl_eval_answer *a = kvcl_eval_answer_at(e, config, i);
        if (!a->is_done)
            continue;
        s->n_asked[e->prompts[i].file]++;
        s->hits[e->prompts[i].file] += a->is_hit;
        s->n_prompts++;
        s->n_hits += a->is_hit;
        s->answer_kl += a->kl_sum;
        s->answer_kl_max = a->kl_max > s->answer_kl_max ? a->kl_max : s->answer_kl_max;
        n_kl += a->n_kl;
    }
    s->answer_kl /= n_kl ? (double)n_kl : 1;
}

kvcl_status kvcl_eval_sums_make(const kvcl_eval *e, kvcl_eval_sum **out)
{
    const size_t n_layers = kvcl_model_get_info(e->app.model)->n_layers, n = e->configs.n;
    const size_t n_work = (size_t)e->n_places * e->n_positions;
    void *p, *work;
    KVCL_TRY(kvcl_mem_alloc(e->app.ctx, n * (sizeof(kvcl_eval_sum) + n_layers * sizeof(double)),
                            "the sums", &p));
    kvcl_status st =
        kvcl_mem_array(e->app.ctx, n_work + 1, sizeof(double), "figures to sort", &work);
    if (st != KVCL_OK) {
        kvcl_mem_free(e->app.ctx, p);
        return st;
    }
    kvcl_eval_sum *sums = p;
    for (size_t c = 0; c < n; c++) {
        sums[c].att = (double *)(void *)(sums + n) + c * n_layers;
        sum_text(e, c, work, &sums[c]);
        sum_answers(e, c, &sums[c]);
    }
    kvcl_mem_free(e->app.ctx, work);
    *out = sums;
    return KVCL_OK;
}
