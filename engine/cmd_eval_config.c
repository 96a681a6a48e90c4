/* cmd_eval_config.c - the configurations of kvcl eval: from words to sessions.  See cmd_eval.h. */
#include "cmd_eval.h"

#include "mem.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_GRID ((size_t)1 << 20)
#define MAX_WORDS 16
#define DEFAULT_CODECS "quant8,quant4,quant3,quant-k3v2,quant2,q8_0,q4_0"

/* ---- reading ------------------------------------------------------------------------------- */

static kvcl_status add(kvcl_ctx *ctx, const kvcl_eval_opts *o, kvcl_eval_configs *c,
                       const char *name, kvcl_eval_config **out)
{
    KVCL_CHECK(ctx, c->n < KVCL_EVAL_CONFIGS, KVCL_E_ARG,
               "more than %d configurations; split them over several runs", KVCL_EVAL_CONFIGS - 1);
    KVCL_CHECK(ctx, strlen(name) < KVCL_EVAL_NAME, KVCL_E_ARG,
               "configuration '%s': the name is longer than %d bytes", name, KVCL_EVAL_NAME - 1);
    KVCL_CHECK(ctx, !strpbrk(name, ",\""), KVCL_E_ARG,
               "configuration '%s': a name holds no comma and no quote", name);
    for (size_t i = 0; i < c->n; i++)
        KVCL_CHECK(ctx, strcmp(c->list[i].name, name) != 0, KVCL_E_ARG,
                   "configuration '%s' is there twice%s; give each its own name", name,
                   i ? "" : " (it names the reference)");
    kvcl_eval_config *e = &c->list[c->n++];
    memcpy(e->name, name, strlen(name) + 1);
    e->n_sinks = (uint32_t)o->n_sinks;
    e->wish.tier_dir = o->cache.tier_dir;
    *out = e;
    return KVCL_OK;
}

/* The hot window of --hot, where neither tiers nor a preset say one. */
static kvcl_status add_hot(kvcl_ctx *ctx, int64_t n_hot, kvcl_cache_wish *w)
{
    char text[48];
    if (w->tier[KVCL_WISH_HOT].is_given || w->preset || w->budget_bytes)
        return KVCL_OK;
    snprintf(text, sizeof text, "hot=raw:%lld", (long long)n_hot);
    return kvcl_wish_add_tier(ctx, "--hot", text, w);
}

static kvcl_status read_codecs(kvcl_ctx *ctx, const kvcl_eval_opts *o, const char *list,
                               kvcl_eval_configs *c)
{
    for (const char *p = list; *p;) {
        char name[KVCL_CODEC_NAME_CAP], text[64];
        size_t n = strcspn(p, ",");
        KVCL_CHECK(ctx, n > 0 && n < sizeof name, KVCL_E_ARG,
                   "--codecs %s: an entry is empty or too long; put one comma between codecs",
                   list);
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        kvcl_codec_spec spec;
        KVCL_TRY(kvcl_codec_parse(ctx, name, &spec));
        kvcl_eval_config *e;
        KVCL_TRY(add(ctx, o, c, name, &e));
        snprintf(text, sizeof text, "cold=%s", name);
        KVCL_TRY(kvcl_wish_add_tier(ctx, "--codecs", text, &e->wish));
        KVCL_TRY(add_hot(ctx, o->n_hot, &e->wish));
        p += n + (p[n] == ',');
    }
    return KVCL_OK;
}

static kvcl_status number(kvcl_ctx *ctx, const char *from, const char *word, const char *text,
                          int64_t max, int64_t *out)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    KVCL_CHECK(ctx, end != text && !*end && n >= 0 && n <= max, KVCL_E_ARG,
               "%s: %s takes a whole number from 0 to %lld, not '%s'", from, word, (long long)max,
               text);
    *out = n;
    return KVCL_OK;
}

/* One "--word value" of a grid line. */
static kvcl_status take_word(kvcl_ctx *ctx, const char *from, const char *word, const char *value,
                             kvcl_eval_config *e, int64_t *n_hot)
{
    int64_t n;
    if (strcmp(word, "--tier") == 0)
        return kvcl_wish_add_tier(ctx, from, value, &e->wish);
    if (strcmp(word, "--hot") == 0)
        return number(ctx, from, word, value, 16777216, n_hot);
    if (strcmp(word, "--sinks") == 0) {
        KVCL_TRY(number(ctx, from, word, value, 32, &n));
        e->n_sinks = (uint32_t)n;
        return KVCL_OK;
    }
    if (strcmp(word, "--cache-mem") == 0)
        return kvcl_parse_bytes(ctx, value, from, &e->wish.budget_bytes);
    KVCL_CHECK(ctx, strcmp(word, "--cache") == 0, KVCL_E_ARG,
               "%s: '%s' is none of --tier, --cache, --cache-mem, --hot, --sinks", from, word);
    if (strcmp(value, "auto") == 0)
        e->wish.preset = "auto";
    for (size_t i = 0; i < KVCL_N_PRESETS; i++)
        if (strcmp(value, kvcl_cache_presets[i].name) == 0)
            e->wish.preset = kvcl_cache_presets[i].name;
    KVCL_CHECK(ctx, e->wish.preset, KVCL_E_ARG,
               "%s: --cache takes one of exact, balanced, small, smallest, auto, not '%s'", from,
               value);
    return KVCL_OK;
}

static kvcl_status read_line(kvcl_ctx *ctx, const kvcl_eval_opts *o, const char *from, char *line,
                             kvcl_eval_configs *c)
{
    char *word[MAX_WORDS];
    size_t n = 0;
    line[strcspn(line, "#\r")] = 0;
    for (char *p = line; *(p += strspn(p, " \t"));) {
        KVCL_CHECK(ctx, n < MAX_WORDS, KVCL_E_ARG, "%s: more than %d words", from, MAX_WORDS);
        word[n++] = p;
        p += strcspn(p, " \t=");
        if (*p == '=' && word[n - 1][0] == '-') /* --tier=... as two words */
            *p++ = 0;
        else if ((p += strcspn(p, " \t")), *p)
            *p++ = 0;
    }
    if (n == 0)
        return KVCL_OK;
    KVCL_CHECK(ctx, word[0][0] != '-' && n % 2 == 1, KVCL_E_ARG,
               "%s: a line is a name, then --tier, --cache, --cache-mem, --hot or --sinks, each "
               "with its value",
               from);
    kvcl_eval_config *e;
    int64_t n_hot = o->n_hot;
    KVCL_TRY(add(ctx, o, c, word[0], &e));
    for (size_t i = 1; i < n; i += 2)
        KVCL_TRY(take_word(ctx, from, word[i], word[i + 1], e, &n_hot));
    return add_hot(ctx, n_hot, &e->wish);
}

static kvcl_status read_grid(kvcl_ctx *ctx, const kvcl_eval_opts *o, kvcl_eval_configs *c)
{
    char *text, from[300];
    size_t bytes, before = c->n;
    KVCL_TRY(kvcl_os_read_file(ctx, o->grid, MAX_GRID, &text, &bytes));
    kvcl_status st = KVCL_OK;
    unsigned n = 1;
    for (char *p = text; p < text + bytes && st == KVCL_OK; n++) {
        char *end = p + strcspn(p, "\n");
        bool last = !*end;
        *end = 0;
        snprintf(from, sizeof from, "%.250s, line %u", o->grid, n);
        st = read_line(ctx, o, from, p, c);
        p = last ? text + bytes : end + 1;
    }
    kvcl_mem_free(ctx, text);
    KVCL_TRY(st);
    KVCL_CHECK(ctx, c->n > before, KVCL_E_ARG,
               "%s holds no configuration; write lines like 'q4 --tier cold=quant4'", o->grid);
    return KVCL_OK;
}

kvcl_status kvcl_eval_configs_read(kvcl_ctx *ctx, const kvcl_eval_opts *o, kvcl_eval_configs *out)
{
    kvcl_cache_wish wish;
    kvcl_eval_config *e;
    void *p;
    KVCL_TRY(kvcl_cache_wish_read(ctx, &o->cache, &wish));
    KVCL_TRY(kvcl_mem_array(ctx, KVCL_EVAL_CONFIGS, sizeof *out->list, "configurations", &p));
    *out = (kvcl_eval_configs){.list = p};
    KVCL_TRY(add(ctx, o, out, "exact", &e));
    if (o->codecs)
        KVCL_TRY(read_codecs(ctx, o, o->codecs, out));
    if (o->grid)
        KVCL_TRY(read_grid(ctx, o, out));
    if (!kvcl_wish_is_empty(&wish)) {
        KVCL_TRY(add(ctx, o, out,
                     wish.preset && strcmp(wish.preset, "exact") != 0 ? wish.preset : "asked", &e));
        e->wish = wish;
        KVCL_TRY(add_hot(ctx, o->n_hot, &e->wish));
    }
    return out->n > 1 ? KVCL_OK : read_codecs(ctx, o, DEFAULT_CODECS, out);
}

/* ---- plans and sessions -------------------------------------------------------------------- */

static kvcl_status plan_one(kvcl_app *app, const kvcl_session_options *exact, kvcl_eval_config *e)
{
    char words[sizeof e->words - 12];
    e->wish.n_prompt = e->opt.n_ctx; /* about, and in --prompt-step's steps */
    KVCL_TRY(kvcl_app_plan_cache(app, &e->wish, &e->opt, &e->plan, words, sizeof words));
    KVCL_CHECK(app->ctx, e->opt.type_k == exact->type_k && e->opt.type_v == exact->type_v,
               KVCL_E_ARG,
               "configuration '%s': its raw rows differ in type from the reference's; set -ctk "
               "and -ctv for all",
               e->name);
    if (e->words[0]) /* as planned first: they are part of keys */
        return KVCL_OK;
    snprintf(e->words, sizeof e->words, "%s", words);
    if (e->opt.n_tiers > 1)
        snprintf(e->words, sizeof e->words, "%s sinks=%u", words, (unsigned)e->n_sinks);
    return KVCL_OK;
}

kvcl_status kvcl_eval_configs_plan(kvcl_app *app, const kvcl_eval_opts *o, uint32_t n_ctx,
                                   kvcl_eval_configs *c)
{
    for (size_t i = 0; i < c->n; i++) {
        kvcl_eval_config *e = &c->list[i];
        e->opt = kvcl_app_session_options(&o->model);
        e->opt.n_ctx = n_ctx;
        e->opt.n_sink = e->n_sinks;
        if (i > 0)
            KVCL_TRY(plan_one(app, &c->list[0].opt, e));
        else
            snprintf(e->words, sizeof e->words, "exact");
    }
    return KVCL_OK;
}

kvcl_status kvcl_eval_configs_open(kvcl_app *app, const bool *wanted, kvcl_eval_configs *c)
{
    for (size_t i = 0; i < c->n; i++)
        if ((i == 0 || wanted[i]) && !c->list[i].session)
            KVCL_TRY(kvcl_session_create(app->engine, &c->list[i].opt, &c->list[i].session));
    return KVCL_OK;
}

void kvcl_eval_configs_close(kvcl_eval_configs *c)
{
    for (size_t i = 0; i < c->n; i++) {
        kvcl_session_free(c->list[i].session);
        c->list[i].session = NULL;
    }
}

static kvcl_status prefill_by_steps(kvcl_session *s, uint32_t n_step, const int32_t *tokens,
                                    uint32_t n, kvcl_progress *progress)
{
    for (uint32_t i = 0, some; i < n; i += some) {
        some = kvcl_min_u32(n_step, n - i);
        KVCL_TRY(kvcl_session_prefill(s, tokens + i, some, 0, NULL, NULL, NULL));
        if (!kvcl_progress_prefill(progress, i + some, n))
            return KVCL_E_INTERRUPTED;
    }
    return KVCL_OK;
}

kvcl_status kvcl_eval_configs_prefill(kvcl_app *app, kvcl_eval_configs *c, uint32_t n_step,
                                      const int32_t *tokens, size_t n, const char *what)
{
    kvcl_session *all[KVCL_EVAL_CONFIGS];
    uint32_t n_all = 0;
    kvcl_progress progress;
    kvcl_status st = KVCL_OK;
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].session) {
            all[n_all++] = c->list[i].session;
            KVCL_TRY(kvcl_session_rewind(c->list[i].session, 0));
        }
    kvcl_progress_init(&progress, app, what, "prompt tokens");
    if (!n_step)
        st = kvcl_session_prefill_shared(all, n_all, tokens, (uint32_t)n, 0, NULL,
                                         kvcl_progress_prefill, &progress);
    for (uint32_t i = 0; i < n_all && n_step && st == KVCL_OK; i++)
        st = prefill_by_steps(all[i], n_step, tokens, (uint32_t)n, &progress);
    kvcl_progress_end(&progress);
    return st;
}
