/* cmd_eval_state.c - finished rows of kvcl eval in a file of JSON lines.  See cmd_eval.h. */
#include "cmd_eval.h"
#include "cmd_eval_stats.h"

#include "mem.h"
#include "os.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct kvcl_eval_state {
    kvcl_ctx *ctx;
    FILE *file;
    json_t *rows; /* object: key to row, of what was there at the beginning */
    char path[1024];
};

/* ---- the file ------------------------------------------------------------------------------ */

/* Takes what is complete; a line cut off by a power failure is no row. */
static kvcl_status read_rows(kvcl_eval_state *s, bool *ends_open)
{
    char *text;
    size_t n;
    FILE *f = fopen(s->path, "rb");
    *ends_open = false;
    if (!f)
        return KVCL_OK;
    fclose(f);
    KVCL_TRY(kvcl_os_read_file(s->ctx, s->path, KVCL_MAX_INPUT, &text, &n));
    for (char *p = text; p < text + n;) {
        size_t len = strcspn(p, "\n");
        json_t *row = p[len] ? json_loadb(p, len, 0, NULL) : NULL;
        const char *key = row ? json_string_value(json_object_get(row, "key")) : NULL;
        if (key)
            json_object_set(s->rows, key, row);
        json_decref(row);
        p += len + 1;
    }
    *ends_open = n > 0 && text[n - 1] != '\n';
    bool is_ours = n == 0 || text[0] == '{';
    kvcl_mem_free(s->ctx, text);
    KVCL_CHECK(s->ctx, is_ours, KVCL_E_FORMAT,
               "--resume %s: the file holds no rows of 'kvcl eval'; name another one, which may "
               "be new",
               s->path);
    return KVCL_OK;
}

kvcl_status kvcl_eval_state_open(kvcl_ctx *ctx, const char *path, kvcl_eval_state **out)
{
    kvcl_status st;
    bool ends_open;
    void *p;
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_eval_state), "the state of a run", &p));
    kvcl_eval_state *s = p;
    s->ctx = ctx;
    KVCL_CHECK_GOTO(ctx, strlen(path) < sizeof s->path, KVCL_E_ARG,
                    "--resume: the path is longer than %zu bytes", sizeof s->path - 1);
    memcpy(s->path, path, strlen(path) + 1);
    s->rows = json_object();
    KVCL_CHECK_GOTO(ctx, s->rows, KVCL_E_MEM, "no memory for the state of a run");
    KVCL_TRY_GOTO(read_rows(s, &ends_open));
    s->file = fopen(path, "ab");
    KVCL_CHECK_GOTO(ctx, s->file, KVCL_E_IO, "--resume %s: cannot be written: %s", path,
                    strerror(errno));
    if (ends_open)
        fputc('\n', s->file);
    *out = s;
    return KVCL_OK;
fail:
    kvcl_eval_state_close(s);
    return st;
}

void kvcl_eval_state_close(kvcl_eval_state *s)
{
    if (!s)
        return;
    json_decref(s->rows);
    if (s->file)
        fclose(s->file);
    kvcl_mem_free(s->ctx, s);
}

/* ---- keys ---------------------------------------------------------------------------------- */

static uint64_t start_key(const kvcl_eval *e, size_t config, const char *kind)
{
    const kvcl_eval_config *c = &e->configs.list[config];
    const char *device = kvcl_device_get_info(e->app.dev)->id;
    uint64_t h = kvcl_stats_hash(e->model_hash, kind, strlen(kind) + 1);
    h = kvcl_stats_hash(h, device, strlen(device) + 1);
    h = kvcl_stats_hash(h, c->words, strlen(c->words) + 1);
    if (e->o->n_step)
        h = kvcl_stats_hash(h, &e->o->n_step, sizeof e->o->n_step);
    return kvcl_stats_hash(h, &c->opt.type_k, sizeof c->opt.type_k);
}

uint64_t kvcl_eval_text_key(const kvcl_eval *e, size_t config, size_t place)
{
    uint64_t h = start_key(e, config, "text");
    h = kvcl_stats_hash(h, &e->n_positions, sizeof e->n_positions);
    return kvcl_stats_hash(h, e->places[place].tokens, (e->n_ctx + 1u) * sizeof(int32_t));
}

uint64_t kvcl_eval_answer_key(const kvcl_eval *e, size_t config, size_t prompt)
{
    const kvcl_eval_prompt *p = &e->prompts[prompt];
    uint64_t h = start_key(e, config, "retrieval");
    h = kvcl_stats_hash(h, &p->n_context, sizeof p->n_context);
    h = kvcl_stats_hash(h, p->answer, strlen(p->answer) + 1);
    return kvcl_stats_hash(h, p->tokens, p->n_tokens * sizeof(int32_t));
}

static const json_t *find(const kvcl_eval_state *s, uint64_t key)
{
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)key);
    return json_object_get(s->rows, text);
}

/* ---- taking rows --------------------------------------------------------------------------- */

static double real(const json_t *row, const char *name)
{
    return json_number_value(json_object_get(row, name));
}

static bool take_array(const json_t *row, const char *name, double *out, size_t n)
{
    const json_t *a = json_object_get(row, name);
    if (json_array_size(a) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!json_is_number(json_array_get(a, i)))
            return false;
        out[i] = json_number_value(json_array_get(a, i));
    }
    return true;
}

static bool take_text(const kvcl_eval *e, const json_t *row, kvcl_eval_text *t)
{
    uint32_t n_layers = kvcl_model_get_info(e->app.model)->n_layers;
    if (!row || !take_array(row, "kl", t->kl, e->n_positions) ||
        !take_array(row, "att", t->att, n_layers))
        return false;
    t->n_same = (uint32_t)real(row, "same");
    t->nll = real(row, "nll");
    t->bits = real(row, "bits");
    t->bits_all = real(row, "bits_all");
    t->bytes = (uint64_t)real(row, "bytes");
    t->disk = (uint64_t)real(row, "disk");
    t->read = (uint64_t)real(row, "read");
    t->seconds_per_token = real(row, "seconds_per_token");
    return t->is_done = true;
}

static bool take_answer(const json_t *row, kvcl_eval_answer *a)
{
    if (!row || !json_is_boolean(json_object_get(row, "hit")))
        return false;
    a->is_hit = json_is_true(json_object_get(row, "hit"));
    a->n_kl = (uint32_t)real(row, "n_kl");
    a->kl_sum = real(row, "kl_sum");
    a->kl_max = real(row, "kl_max");
    return a->is_done = true;
}

void kvcl_eval_state_take(kvcl_eval *e)
{
    size_t n = 0, n_rows = e->configs.n * (e->n_places + e->n_prompts);
    if (!e->state)
        return;
    for (size_t c = 0; c < e->configs.n; c++) {
        for (size_t i = 0; i < e->n_places; i++)
            n += take_text(e, find(e->state, kvcl_eval_text_key(e, c, i)),
                           kvcl_eval_text_at(e, c, i));
        for (size_t i = 0; i < e->n_prompts; i++)
            n += take_answer(find(e->state, kvcl_eval_answer_key(e, c, i)),
                             kvcl_eval_answer_at(e, c, i));
    }
    if (json_object_size(e->state->rows) > 0)
        kvcl_app_note(&e->app, "%s: %zu of this run's %zu rows are there", e->state->path, n,
                      n_rows);
}

/* ---- putting rows -------------------------------------------------------------------------- */

static json_t *array_of(const double *x, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_real(x[i]));
    return a;
}

/* A whole line at once, so that a killed run leaves whole lines. */
static kvcl_status put(kvcl_eval_state *s, json_t *row)
{
    char *text = row ? json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(row);
    KVCL_CHECK(s->ctx, text, KVCL_E_MEM, "no memory for a row of the state");
    bool ok = fprintf(s->file, "%s\n", text) > 0 && fflush(s->file) == 0;
    free(text);
    KVCL_CHECK(s->ctx, ok, KVCL_E_IO, "%s: writing failed: %s", s->path, strerror(errno));
    return KVCL_OK;
}

kvcl_status kvcl_eval_state_put_text(kvcl_eval *e, size_t config, size_t place)
{
    const kvcl_eval_text *t = kvcl_eval_text_at(e, config, place);
    char key[20];
    if (!e->state)
        return KVCL_OK;
    snprintf(key, sizeof key, "%016llx", (unsigned long long)kvcl_eval_text_key(e, config, place));
    return put(e->state,
               json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:o, s:o}", "key",
                         key, "config", e->configs.list[config].name, "place", (json_int_t)place,
                         "same", (json_int_t)t->n_same, "nll", t->nll, "bits", t->bits, "bits_all",
                         t->bits_all, "bytes", (json_int_t)t->bytes, "disk", (json_int_t)t->disk,
                         "read", (json_int_t)t->read, "seconds_per_token", t->seconds_per_token,
                         "kl", array_of(t->kl, e->n_positions), "att",
                         array_of(t->att, kvcl_model_get_info(e->app.model)->n_layers)));
}

kvcl_status kvcl_eval_state_put_answer(kvcl_eval *e, size_t config, size_t prompt)
{
    const kvcl_eval_answer *a = kvcl_eval_answer_at(e, config, prompt);
    const kvcl_eval_prompt *p = &e->prompts[prompt];
    char key[20];
    if (!e->state)
        return KVCL_OK;
    snprintf(key, sizeof key, "%016llx",
             (unsigned long long)kvcl_eval_answer_key(e, config, prompt));
    return put(e->state, json_pack("{s:s, s:s, s:I, s:I, s:b, s:I, s:f, s:f}", "key", key, "config",
                                   e->configs.list[config].name, "file", (json_int_t)p->file,
                                   "line", (json_int_t)p->line, "hit", a->is_hit, "n_kl",
                                   (json_int_t)a->n_kl, "kl_sum", a->kl_sum, "kl_max", a->kl_max));
}
