/* cmd_frontier_run.c - sketches and rules over the heads of a model.  See cmd_frontier.h.
 *
 * A unit is a KV head of a layer with the query heads that share it.  Units are independent, write
 * to places of their own and are summed in order: any number of threads gives the same numbers. */
#include "cmd_frontier.h"
#include "cmd_stream.h"

#include "f16.h"
#include "mem.h"
#include "os.h"
#include "quant.h"

#include <math.h>

#define MAX_THREADS 256

/* What a thread works with. */
typedef struct work {
    kvcl_frontier_sketch sketch;
    double *doubles;            /* of kvcl_frontier_sketch_make */
    float *pre, *post;          /* [T][D] of the unit's KV head */
    float *score;               /* [group][n_queries][T] */
    double *weight;             /* likewise */
    kvcl_frontier_query *query; /* [group][n_queries] */
    float *low, *high;          /* [T] */
    uint32_t *order, *keys, *spare;
    double *sums;   /* [T + 1] */
    uint8_t *kept;  /* [T] */
    uint8_t *group; /* [n_rules][2][T]: read by a head of the group */
    bool failed;
} work;

typedef struct unit {
    uint32_t layer, kv_head, first, n; /* query heads first .. first + n - 1 */
} unit;

/* ---- memory -------------------------------------------------------------------------------- */

static kvcl_status create_work(const kvcl_frontier *f, work *w)
{
    const size_t T = f->T, D = f->D, group = f->n_heads / f->n_kv_heads;
    const size_t rows = group * f->n_queries;
    const struct {
        void **to;
        size_t n, size;
    } parts[] = {
        {(void **)&w->doubles, kvcl_frontier_sketch_work(f->T, f->D), sizeof(double)},
        {(void **)&w->pre, T * D, sizeof(float)},
        {(void **)&w->post, T * D, sizeof(float)},
        {(void **)&w->score, rows * T, sizeof(float)},
        {(void **)&w->weight, rows * T, sizeof(double)},
        {(void **)&w->query, rows, sizeof(kvcl_frontier_query)},
        {(void **)&w->low, T, sizeof(float)},
        {(void **)&w->high, T, sizeof(float)},
        {(void **)&w->order, T, sizeof(uint32_t)},
        {(void **)&w->keys, T, sizeof(uint32_t)},
        {(void **)&w->spare, T, sizeof(uint32_t)},
        {(void **)&w->sums, T + 1, sizeof(double)},
        {(void **)&w->kept, T, 1},
        {(void **)&w->group, 2 * (size_t)f->n_rules * T, 1},
    };
    for (size_t i = 0; i < kvcl_array_len(parts); i++)
        KVCL_TRY(kvcl_mem_array(f->app.ctx, parts[i].n, parts[i].size,
                                "scores of a head (smaller -c, fewer --positions or -t)",
                                parts[i].to));
    return kvcl_frontier_sketch_create(f->app.ctx, f->T, f->D, &w->sketch);
}

static void free_work(kvcl_ctx *ctx, work *w)
{
    void *const all[] = {w->doubles, w->pre,   w->post, w->score, w->weight, w->query, w->low,
                         w->high,    w->order, w->keys, w->spare, w->sums,   w->kept,  w->group};
    for (size_t i = 0; i < kvcl_array_len(all); i++)
        kvcl_mem_free(ctx, all[i]);
    kvcl_frontier_sketch_free(ctx, &w->sketch);
}

/* ---- the truth ----------------------------------------------------------------------------- */

static float half(float x) { return kvcl_f16_to_f32(kvcl_f32_to_f16(x)); }

/* The keys of a KV head as the cache has them. */
static kvcl_frontier_keys take_keys(const kvcl_frontier *f, const unit *u, work *w)
{
    const size_t D = f->D;
    const kvcl_frontier_keys k = {
        .T = f->T,
        .D = f->D,
        .n_sinks = (uint32_t)f->o->n_sinks,
        .n_rot = f->n_rot,
        .pairing = f->pairing,
        .table = f->table,
        .pre = w->pre,
        .post = w->post,
        .queries = f->moments[u->layer] + (size_t)u->kv_head * D * D,
        .seed = u->layer * f->n_kv_heads + u->kv_head,
    };
    for (size_t t = 0; t < f->T; t++) {
        float *pre = w->pre + t * D, *post = w->post + t * D;
        memcpy(post, f->keys[u->layer] + (t * f->n_kv_heads + u->kv_head) * D, D * sizeof *post);
        memcpy(pre, post, D * sizeof *pre);
        if (f->table)
            kvcl_cpu_turn(k.pairing, f->n_rot, f->table + t * f->n_rot, false, post);
        for (size_t d = 0; d < D; d++) {
            pre[d] = half(pre[d]);
            post[d] = half(post[d]);
        }
    }
    return k;
}

static const float *query_at(const kvcl_frontier *f, const unit *u, uint32_t head, uint32_t i)
{
    return f->queries[u->layer] + ((size_t)i * f->n_heads + u->first + head) * f->D;
}

static void score_query(const kvcl_frontier *f, const float *q, uint32_t i, const float *keys,
                        float *score, double *weight, kvcl_frontier_query *out)
{
    const uint32_t n = f->T - (f->n_queries - 1 - i) * f->stride;
    *out = (kvcl_frontier_query){.n = n,
                                 .begin = (uint32_t)f->o->n_sinks,
                                 .end = n - (uint32_t)f->o->n_hot,
                                 .score = score,
                                 .weight = weight,
                                 .max = -INFINITY};
    for (uint32_t t = 0; t < n; t++) {
        score[t] = kvcl_frontier_dot(q, keys + (size_t)t * f->D, f->D);
        out->max = fmax(out->max, (double)score[t]);
    }
    for (uint32_t t = 0; t < n; t++) {
        weight[t] = exp((double)score[t] - out->max);
        out->total += weight[t];
    }
    for (uint32_t j = 0; j < KVCL_FRONTIER_TOPS; j++) {
        kvcl_frontier_heap h = {.k = kvcl_frontier_tops[j]};
        for (uint32_t t = 0; t < n; t++)
            kvcl_frontier_push(&h, score[t]);
        out->top[j] = kvcl_frontier_least(&h);
    }
}

/* ---- one sketch ---------------------------------------------------------------------------- */

/* All rules of one z on one query of one head. */
static void apply_rules(kvcl_frontier *f, const unit *u, uint32_t spec, uint32_t head, double z,
                        const kvcl_frontier_query *q, work *w)
{
    kvcl_frontier_bound b = {.low = w->low, .high = w->high, .order = w->order, .sums = w->sums};
    kvcl_frontier_bound_sort(q, w->keys, w->spare, &b);
    for (uint32_t r = 0; r < f->n_rules; r++) {
        const kvcl_frontier_rule *rule = &f->rules[r];
        if (rule->z != z || !kvcl_frontier_fits(&f->specs[spec], rule))
            continue;
        for (uint32_t scan = 0; scan < (rule->aim == KVCL_AIM_THETA ? 1u : 2u); scan++) {
            uint8_t *group = w->group + (2 * (size_t)r + scan) * f->T;
            const double certificate = kvcl_frontier_apply(rule, scan, q, &b, w->kept);
            kvcl_frontier_count(rule, kvcl_frontier_proves(&f->specs[spec], rule), certificate, q,
                                w->kept,
                                kvcl_frontier_cell_at(f, spec, r, scan, u->layer, u->first + head));
            for (uint32_t t = q->begin; t < q->end; t++)
                group[t] |= w->kept[t];
        }
    }
}

/* What a group of heads reads together counts for each of them. */
static void count_group(kvcl_frontier *f, const unit *u, uint32_t spec,
                        const kvcl_frontier_query *q, const uint8_t *group)
{
    for (uint32_t r = 0; r < f->n_rules; r++)
        for (uint32_t scan = 0; scan < 2; scan++) {
            uint32_t n = 0;
            for (uint32_t t = q->begin; t < q->end; t++)
                n += group[(2 * (size_t)r + scan) * f->T + t];
            for (uint32_t h = 0; h < u->n; h++)
                kvcl_frontier_cell_at(f, spec, r, scan, u->layer, u->first + h)->kept_by_group +=
                    (double)n / (q->end - q->begin);
        }
}

/* True when no rule before has this z. */
static bool is_first_z(const kvcl_frontier *f, uint32_t rule)
{
    for (uint32_t r = 0; r < rule; r++)
        if (f->rules[r].z == f->rules[rule].z)
            return false;
    return true;
}

static void measure_query(kvcl_frontier *f, const unit *u, uint32_t spec, uint32_t i, work *w)
{
    const uint32_t n_q = f->n_queries;
    memset(w->group, 0, 2 * (size_t)f->n_rules * f->T);
    for (uint32_t h = 0; h < u->n; h++) {
        if (!f->head[u->first + h])
            continue;
        const kvcl_frontier_query *q = &w->query[h * n_q + i];
        const float *row = query_at(f, u, h, i);
        kvcl_frontier_bounds(&w->sketch, row, q->score, q->n, f->scale, 0, w->low, w->high);
        f->n_violated[((size_t)spec * f->n_layers + u->layer) * f->n_heads + u->first + h] +=
            kvcl_frontier_violations(q, w->low, w->high);
        apply_rules(f, u, spec, h, 0, q, w);
        for (uint32_t r = 0; r < f->n_rules; r++) {
            const double z = f->rules[r].z;
            if (z <= 0 || !is_first_z(f, r))
                continue;
            kvcl_frontier_bounds(&w->sketch, row, q->score, q->n, f->scale, z, w->low, w->high);
            apply_rules(f, u, spec, h, z, q, w);
        }
    }
    count_group(f, u, spec, &w->query[i], w->group);
}

static void measure_unit(kvcl_frontier *f, const unit *u, work *w)
{
    const uint32_t n_q = f->n_queries;
    const kvcl_frontier_keys keys = take_keys(f, u, w);
    for (uint32_t h = 0; h < u->n; h++)
        for (uint32_t i = 0; i < n_q; i++) {
            const size_t at = (size_t)h * n_q + i;
            score_query(f, query_at(f, u, h, i), i, w->post, w->score + at * f->T,
                        w->weight + at * f->T, &w->query[at]);
        }
    for (uint32_t s = 0; s < f->n_specs && !kvcl_interrupted(); s++) {
        if (!kvcl_frontier_sketch_make(&f->specs[s], &keys, w->doubles, &w->sketch)) {
            w->failed = true;
            return;
        }
        for (uint32_t i = 0; i < n_q; i++)
            measure_query(f, u, s, i, w);
    }
}

/* ---- all of them --------------------------------------------------------------------------- */

static bool has_head(const kvcl_frontier *f, const unit *u)
{
    for (uint32_t h = 0; h < u->n; h++)
        if (f->head[u->first + h])
            return true;
    return false;
}

/* The chosen units; `out` has room for all.  Returns how many. */
static uint32_t list_units(const kvcl_frontier *f, unit *out)
{
    const uint32_t group = f->n_heads / f->n_kv_heads;
    uint32_t n = 0;
    for (uint32_t l = 0; l < f->n_layers; l++)
        for (uint32_t k = 0; k < f->n_kv_heads && f->layer[l]; k++) {
            out[n] = (unit){.layer = l, .kv_head = k, .first = k * group, .n = group};
            n += has_head(f, &out[n]);
        }
    return n;
}

static kvcl_status run_units(kvcl_frontier *f, const unit *units, uint32_t n, work *works,
                             uint32_t n_threads)
{
    kvcl_progress progress;
    kvcl_progress_init(&progress, &f->app, "sketches and rules", "KV heads");
    kvcl_status st = KVCL_OK;
    for (uint32_t i = 0; i < n && st == KVCL_OK; i += n_threads) {
        const int count = (int)kvcl_min_u32(n_threads, n - i);
#ifdef _OPENMP
#pragma omp parallel for num_threads(count) schedule(static)
#endif
        for (int k = 0; k < count; k++)
            measure_unit(f, &units[i + (uint32_t)k], &works[k]);
        kvcl_progress_show(&progress, i + (uint32_t)count, n);
        if (kvcl_interrupted())
            st = KVCL_E_INTERRUPTED;
        for (int k = 0; k < count && st == KVCL_OK; k++)
            if (works[k].failed)
                st = kvcl_fail(f->app.ctx, KVCL_E_UNSUPPORTED,
                               "layer %u, KV head %u: an eigenproblem does not converge",
                               units[i + (uint32_t)k].layer, units[i + (uint32_t)k].kv_head);
    }
    kvcl_progress_end(&progress);
    return st;
}

kvcl_status kvcl_frontier_run(kvcl_frontier *f)
{
    kvcl_ctx *ctx = f->app.ctx;
    uint32_t n_threads = (uint32_t)f->o->model.n_threads, n_works = 0;
    void *units = NULL, *works = NULL;
    kvcl_status st;
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, (size_t)f->n_layers * f->n_kv_heads, sizeof(unit),
                                 "a list of heads", &units));
    const uint32_t n = list_units(f, units);
    n_threads = n_threads ? n_threads : kvcl_os_n_cpus();
    n_threads = kvcl_max_u32(1, kvcl_min_u32(kvcl_min_u32(n_threads, MAX_THREADS), n));
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, n_threads, sizeof(work), "threads", &works));
    while (n_works < n_threads) {
        n_works++;
        KVCL_TRY_GOTO(create_work(f, (work *)works + n_works - 1));
    }
    st = run_units(f, units, n, works, n_threads);
fail:
    for (uint32_t i = 0; i < n_works; i++)
        free_work(ctx, (work *)works + i);
    kvcl_mem_free(ctx, works);
    kvcl_mem_free(ctx, units);
    return st;
}
