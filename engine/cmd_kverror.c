/* cmd_kverror.c - --kv-error: the smallest rate of a family of codecs whose cost in attention's
 * output stays below a target.  See cmd.h.
 *
 * The measure is that of kvcl eval: |o - o'| / |o| of attention's outputs, the mean over heads,
 * layers and tokens.  Next-token KL follows its square within a factor of 1.5 over codecs from 1 to
 * 8 bits (about .25 to .33 times it: bench/JOURNAL.md), errors of rows or of scores do not, across
 * codecs.  Attention has to be computed to know it: the prompt's first tokens go once through an
 * exact cache and through one of each candidate, whose last tokens are compared.  All of that has
 * the same bits on every device, so the choice has, too; and it is made before the session that it
 * is for is allocated, so a plan is what it was. */
#include "cmd.h"
#include "cmd_eval_stats.h"
#include "cmd_stream.h"

#include "mem.h"

#include <stdio.h>

#define MOST_TOKENS 2048u /* of the prompt */
#define LEAST_TOKENS 512u
#define POSITIONS 32u /* of them, at the end */
#define HOT 64u       /* newest tokens that stay raw meanwhile: as few as may be */
#define CANDIDATES 12

/* Families with rates from the lowest; a codec that is said bounds those of its own family. */
typedef struct family {
    const char *prefix;
    const char *codecs[CANDIDATES];
} family;

static const family families[] = {
    {"superpose8",
     {"superpose8-1", "superpose8-1.5", "superpose8-1.75", "superpose8-2", "superpose8-2.5",
      "superpose8-3", "superpose8-4", "superpose8-6"}},
    {"superpose4",
     {"superpose4-1", "superpose4-1.5", "superpose4-1.75", "superpose4-2", "superpose4-2.5",
      "superpose4-3", "superpose4-4", "superpose4-6"}},
    {"superpose2",
     {"superpose2-1", "superpose2-1.5", "superpose2-2", "superpose2-2.5", "superpose2-3",
      "superpose2-4", "superpose2-6"}},
    {"spectral",
     {"spectral1", "spectral1.5", "spectral2", "spectral2.5", "spectral3", "spectral4", "spectral6",
      "spectral8"}},
    {"rest",
     {"rest0.75", "rest1", "rest1.25", "rest1.5", "rest2", "rest2.5", "rest3", "rest4", "rest6"}},
    {"quant", {"quant1", "quant2", "quant-k3v2", "quant3", "quant4", "quant8"}},
};
#define DEFAULT_FAMILY (&families[1])
#define QUANT_FAMILY (&families[kvcl_array_len(families) - 1])

/* What quant costs on the reference models, the larger of the two: for texts too short to measure
 * (bench/results/eval/README.md). */
static const double quant_errors[] = {.396, .169, .116, .069, .034, .0026};

typedef struct candidate {
    const char *codec;
    double bits, error;
    kvcl_session *session;
} candidate;

typedef struct choice {
    kvcl_app *app;
    kvcl_cache_wish *wish;
    const kvcl_session_options *s;
    double target;
    size_t n;
    candidate list[CANDIDATES];
    bool by_table;
    uint32_t n_tokens; /* that are measured */
    float *exact;      /* [POSITIONS][n_layers][Hq * D] */
    candidate *at;     /* whose outputs come now; NULL: the exact cache's */
} choice;

/* ---- candidates ---------------------------------------------------------------------------- */

static const family *family_of(const char *codec)
{
    for (size_t i = 0; i < kvcl_array_len(families); i++)
        if (strncmp(codec, families[i].prefix, strlen(families[i].prefix)) == 0)
            return &families[i];
    return NULL;
}

/* Sizes of the user's cache with this codec in its cold tier. */
static kvcl_status size_with(choice *c, const char *codec, kvcl_planner_plan *plan)
{
    char words[192];
    kvcl_cache_wish wish = *c->wish;
    kvcl_session_options s = *c->s;
    wish.tier[KVCL_WISH_COLD].is_given = true;
    snprintf(wish.tier[KVCL_WISH_COLD].codec, KVCL_CODEC_NAME_CAP, "%s", codec);
    return kvcl_app_plan_cache(c->app, &wish, &s, plan, words, sizeof words);
}

/* Those of the family that the model takes, --cache-mem allows and no codec that is said is below.
 */
static kvcl_status collect(choice *c, const family *f, const char *most, kvcl_planner_plan *plan)
{
    double most_bits = 64.0;
    kvcl_status st = KVCL_OK;
    if (most[0]) {
        KVCL_TRY(size_with(c, most, plan));
        most_bits = plan->sizes.bits_per_elem;
    }
    for (size_t i = 0; i < CANDIDATES && f->codecs[i]; i++) {
        st = size_with(c, f->codecs[i], plan);
        if (st != KVCL_OK || plan->sizes.bits_per_elem > most_bits)
            continue;
        c->list[c->n++] = (candidate){.codec = f->codecs[i], .bits = plan->sizes.bits_per_elem};
    }
    return c->n ? KVCL_OK : st;
}

/* ---- measuring ----------------------------------------------------------------------------- */

static void on_attention(void *user, kvcl_tap_point point, uint32_t layer, uint32_t pos0,
                         uint32_t n, const float *rows, uint32_t width)
{
    choice *c = user;
    const kvcl_model_info *m = kvcl_model_get_info(c->app->model);
    KVCL_UNUSED(point);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = pos0 + i + POSITIONS - c->n_tokens;
        float *exact = c->exact + ((size_t)at * m->n_layers + layer) * width;
        if (!c->at)
            memcpy(exact, rows + (size_t)i * width, width * sizeof *rows);
        else
            c->at->error +=
                kvcl_stats_head_error(exact, rows + (size_t)i * width, m->n_heads, m->head_dim) /
                (POSITIONS * m->n_layers);
    }
}

static kvcl_status decode(choice *c, kvcl_session *s, const int32_t *tokens)
{
    KVCL_TRY(kvcl_session_set_tap(s, 1u << KVCL_TAP_ATT, on_attention, c));
    for (uint32_t i = c->n_tokens - POSITIONS; i < c->n_tokens; i++) {
        KVCL_TRY(kvcl_session_decode(s, tokens[i], NULL));
        if (kvcl_interrupted())
            return KVCL_E_INTERRUPTED;
    }
    return KVCL_OK;
}

/* all: the exact session, then the candidates'. */
static kvcl_status open_all(choice *c, kvcl_session **all)
{
    kvcl_session_options s = *c->s;
    s.n_ctx = c->n_tokens;
    s.n_tiers = 0;
    KVCL_TRY(kvcl_session_create(c->app->engine, &s, &all[0]));
    s.n_tiers = 2;
    for (size_t i = 0; i < c->n; i++) {
        s.tiers[0] = (kvcl_tier_options){.tokens = HOT};
        s.tiers[1] = (kvcl_tier_options){.codec = c->list[i].codec};
        KVCL_TRY(kvcl_session_create(c->app->engine, &s, &all[i + 1]));
    }
    return KVCL_OK;
}

static kvcl_status measure(choice *c, const int32_t *tokens, kvcl_session **all)
{
    kvcl_progress progress;
    KVCL_TRY(open_all(c, all));
    kvcl_progress_init(&progress, c->app, "--kv-error: measuring codecs", "tokens");
    kvcl_status st =
        kvcl_session_prefill_shared(all, (uint32_t)c->n + 1, tokens, c->n_tokens - POSITIONS, 0,
                                    NULL, kvcl_progress_prefill, &progress);
    kvcl_progress_end(&progress);
    KVCL_TRY(st);
    for (size_t i = 0; i <= c->n; i++) {
        c->at = i ? &c->list[i - 1] : NULL;
        KVCL_TRY(decode(c, all[i], tokens));
    }
    return KVCL_OK;
}

static kvcl_status measure_all(choice *c, const int32_t *tokens)
{
    const kvcl_model_info *m = kvcl_model_get_info(c->app->model);
    kvcl_session *all[CANDIDATES + 1] = {NULL};
    void *p;
    if (!c->app->engine)
        KVCL_TRY(kvcl_engine_create(c->app->model, c->app->dev, &c->app->engine));
    KVCL_TRY(kvcl_mem_array(c->app->ctx, (size_t)POSITIONS * m->n_layers * m->n_heads,
                            m->head_dim * sizeof(float), "outputs of attention", &p));
    c->exact = p;
    kvcl_status st = measure(c, tokens, all);
    for (size_t i = 0; i <= c->n; i++)
        kvcl_session_free(all[i]);
    kvcl_mem_free(c->app->ctx, p);
    return st;
}

/* ---- choosing ------------------------------------------------------------------------------ */

static void take_table(choice *c)
{
    c->by_table = true;
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < kvcl_array_len(quant_errors); k++)
            if (strcmp(c->list[i].codec, QUANT_FAMILY->codecs[k]) == 0)
                c->list[i].error = quant_errors[k];
}

static void tell(const choice *c, const candidate *best, bool is_met)
{
    char how[80] = "as measured on the reference models, for the prompt is too short";
    if (!c->by_table)
        snprintf(how, sizeof how, "measured on the prompt's first %u tokens",
                 (unsigned)c->n_tokens);
    if (!is_met)
        kvcl_app_note(c->app, "warning: no rate of %s meets --kv-error %g; the best one is taken",
                      best->codec, c->target);
    kvcl_app_note(c->app, "--kv-error %g: cold=%s, %.2f bits an element, error %.4f (%s)",
                  c->target, best->codec, best->bits, best->error, how);
    if (c->app->common->verbose > 0)
        for (size_t i = 0; i < c->n; i++)
            kvcl_app_note(c->app, "  %-16s %6.2f bits  error %.4f", c->list[i].codec,
                          c->list[i].bits, c->list[i].error);
}

/* The first that meets the target; else the one with the least error. */
static void take_best(choice *c)
{
    kvcl_tier_wish *cold = &c->wish->tier[KVCL_WISH_COLD];
    const candidate *best = &c->list[0];
    for (size_t i = 1; i < c->n && best->error > c->target; i++)
        if (c->list[i].error < best->error)
            best = &c->list[i];
    tell(c, best, best->error <= c->target);
    cold->is_given = true;
    snprintf(cold->codec, sizeof cold->codec, "%s", best->codec);
}

kvcl_status kvcl_app_choose_rate(kvcl_app *app, double target, const kvcl_session_options *s,
                                 const int32_t *tokens, size_t n, kvcl_cache_wish *wish)
{
    choice c = {.app = app, .wish = wish, .s = s, .target = target};
    const char *said = wish->tier[KVCL_WISH_COLD].codec;
    char most[KVCL_CODEC_NAME_CAP];
    kvcl_planner_plan plan;
    snprintf(most, sizeof most, "%s", said);
    const family *f = most[0] ? family_of(most) : DEFAULT_FAMILY;
    KVCL_CHECK(app->ctx, f, KVCL_E_ARG,
               "--kv-error chooses among superpose, spectral, rest and quant, and the cold tier is "
               "%s; leave one of the two out",
               most);
    c.n_tokens = (uint32_t)kvcl_min_size(n, MOST_TOKENS);
    c.n_tokens = kvcl_min_u32(c.n_tokens, kvcl_model_get_info(app->model)->n_ctx_train);
    if (s->n_ctx)
        c.n_tokens = kvcl_min_u32(c.n_tokens, s->n_ctx);
    if (c.n_tokens < LEAST_TOKENS && f != QUANT_FAMILY)
        f = QUANT_FAMILY, most[0] = 0;
    kvcl_status st = collect(&c, f, most, &plan);
    if (st != KVCL_OK && f == DEFAULT_FAMILY && !most[0]) /* heads that it does not take */
        st = collect(&c, QUANT_FAMILY, most, &plan);
    KVCL_TRY(st);
    KVCL_CHECK(app->ctx, c.n, KVCL_E_ARG,
               "--kv-error: no rate of %s is left to choose from; name a larger codec", most);
    if (c.n_tokens < LEAST_TOKENS)
        take_table(&c);
    else
        KVCL_TRY(measure_all(&c, tokens));
    take_best(&c);
    return KVCL_OK;
}
