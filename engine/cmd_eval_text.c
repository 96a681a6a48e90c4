/* cmd_eval_text.c - kvcl eval on texts: places are prefilled exactly, the last tokens of each are
 * decoded through every cache.  See cmd_eval.h. */
#include "cmd_eval.h"
#include "cmd_eval_stats.h"

#include "mem.h"
#include "os.h"

#include <math.h>
#include <stdio.h>

#define TIMED 32u /* positions that are decoded once more, untapped, for the speed */

/* ---- places -------------------------------------------------------------------------------- */

/* Puts `n` places at equal distances over a text's tokens; each begins with BOS where the model
 * wants it. */
static kvcl_status cut_places(kvcl_eval *e, const char *file, const int32_t *ids, size_t n_ids,
                              bool has_bos, uint32_t n, kvcl_eval_place *place)
{
    const size_t width = e->n_ctx + 1u - has_bos, n_text = n_ids - has_bos;
    KVCL_CHECK(e->app.ctx, n_text >= width, KVCL_E_ARG,
               "%s has %zu tokens, and a place takes %zu; use a longer text or a smaller -c", file,
               n_text, width);
    size_t step = kvcl_min_size(n_text / n, n > 1 ? (n_text - width) / (n - 1) : 0);
    KVCL_CHECK(e->app.ctx, n == 1 || step >= e->n_positions, KVCL_E_ARG,
               "%s has %zu tokens, too few for %u places of %zu that share no position; use fewer "
               "--places or a smaller -c",
               file, n_text, n, width);
    for (uint32_t i = 0; i < n; i++) {
        size_t index = (size_t)(place + i - e->places);
        int32_t *to = e->place_tokens + index * (e->n_ctx + 1u);
        if (has_bos)
            to[0] = ids[0];
        memcpy(to + has_bos, ids + has_bos + i * step, width * sizeof *to);
        place[i] = (kvcl_eval_place){.file = file, .first = i * step, .tokens = to};
    }
    return KVCL_OK;
}

static kvcl_status read_places(kvcl_eval *e)
{
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    const kvcl_opt_list *texts = &e->o->texts;
    uint32_t at = 0;
    for (size_t i = 0; i < texts->n; i++) {
        uint32_t n = e->n_places / (uint32_t)texts->n + (i < e->n_places % texts->n);
        int32_t *ids;
        size_t n_ids;
        if (n == 0)
            continue;
        KVCL_TRY(kvcl_input_tokens(&e->app, NULL, texts->item[i], NULL, &ids, &n_ids));
        bool has_bos = m->add_bos && n_ids > 0 && ids[0] == m->bos_id;
        kvcl_status st = cut_places(e, texts->item[i], ids, n_ids, has_bos, n, &e->places[at]);
        kvcl_mem_free(e->app.ctx, ids);
        KVCL_TRY(st);
        at += n;
    }
    return KVCL_OK;
}

kvcl_status kvcl_eval_text_read(kvcl_eval *e)
{
    kvcl_ctx *ctx = e->app.ctx;
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    int64_t n_ctx = e->o->model.n_ctx;
    void *p;
    if (e->o->texts.n == 0)
        return KVCL_OK;
    KVCL_CHECK(ctx, n_ctx <= m->n_ctx_train, KVCL_E_ARG,
               "-c %lld is longer than this model's context of %u tokens", (long long)n_ctx,
               m->n_ctx_train);
    e->n_ctx = n_ctx ? (uint32_t)n_ctx : kvcl_min_u32(m->n_ctx_train, 8192);
    e->n_positions = (uint32_t)e->o->n_positions;
    e->n_places = (uint32_t)e->o->n_places;
    KVCL_CHECK(ctx, e->n_positions < e->n_ctx, KVCL_E_ARG,
               "--positions %u leaves nothing to prefill at a place of %u tokens (-c)",
               e->n_positions, e->n_ctx);
    KVCL_CHECK(ctx, e->n_places >= e->o->texts.n, KVCL_E_ARG,
               "%zu texts and --places %u: each text takes one at least", e->o->texts.n,
               e->n_places);
    KVCL_TRY(kvcl_mem_array(ctx, (size_t)e->n_places * (e->n_ctx + 1u), sizeof(int32_t),
                            "the places' tokens", &p));
    e->place_tokens = p;
    KVCL_TRY(kvcl_mem_array(ctx, e->n_places, sizeof *e->places, "places", &p));
    e->places = p;
    KVCL_TRY(read_places(e));
    const size_t n_rows = e->configs.n * e->n_places, per_row = e->n_positions + m->n_layers;
    KVCL_TRY(kvcl_mem_array(ctx, n_rows, sizeof *e->texts, "results", &p));
    e->texts = p;
    KVCL_TRY(kvcl_mem_array(ctx, n_rows * per_row, sizeof(double), "results", &p));
    e->numbers = p;
    for (size_t i = 0; i < n_rows; i++) {
        e->texts[i].kl = e->numbers + i * per_row;
        e->texts[i].att = e->texts[i].kl + e->n_positions;
    }
    return KVCL_OK;
}

/* ---- measuring ----------------------------------------------------------------------------- */

/* One configuration's pass over the positions of a place. */
typedef struct measure {
    kvcl_eval *e;
    size_t config, place;
    kvcl_eval_text *row;
    float *exact_logits; /* [n_positions][n_vocab] of the exact pass, which fills them */
    float *exact_att;    /* [n_positions][n_layers][heads * head_dim] */
    uint32_t first;      /* position of row 0 */
    kvcl_progress *progress;
} measure;

static void on_attention(void *user, kvcl_tap_point point, uint32_t layer, uint32_t pos0,
                         uint32_t n, const float *rows, uint32_t width)
{
    measure *m = user;
    const kvcl_model_info *info = kvcl_model_get_info(m->e->app.model);
    KVCL_UNUSED(point);
    for (uint32_t i = 0; i < n; i++) {
        size_t at = ((size_t)(pos0 + i - m->first) * info->n_layers + layer) * width;
        if (m->config == 0)
            memcpy(m->exact_att + at, rows + (size_t)i * width, width * sizeof *rows);
        else
            m->row->att[layer] += kvcl_stats_head_error(m->exact_att + at, rows + (size_t)i * width,
                                                        info->n_heads, info->head_dim);
    }
}

static kvcl_status check_go_on(const measure *m, uint64_t done, uint64_t total)
{
    kvcl_progress_show(m->progress, m->progress->before + done,
                       m->progress->total ? m->progress->total : total);
    return kvcl_interrupted() ? KVCL_E_INTERRUPTED : KVCL_OK;
}

static kvcl_status score(measure *m, uint32_t i, const float *logits)
{
    const uint32_t n_vocab = kvcl_model_get_info(m->e->app.model)->n_vocab;
    const float *exact = m->exact_logits + (size_t)i * n_vocab;
    const int32_t *tokens = m->e->places[m->place].tokens;
    kvcl_eval_text *r = m->row;
    r->kl[i] = m->config ? kvcl_stats_kl(exact, logits, n_vocab) : 0;
    r->n_same += kvcl_stats_argmax(exact, n_vocab) == kvcl_stats_argmax(logits, n_vocab);
    double nll = kvcl_stats_nll(logits, n_vocab, (size_t)tokens[m->first + i + 1]);
    r->nll += nll;
    KVCL_CHECK(m->e->app.ctx, isfinite(r->kl[i]) && isfinite(nll), KVCL_E_NOT_FINITE,
               "configuration '%s': the logits after token %u of place %zu are not finite",
               m->e->configs.list[m->config].name, m->first + i, m->place + 1);
    return KVCL_OK;
}

/* The last positions once more, without taps: the window of exact rows allows to go back. */
static kvcl_status time_decode(measure *m)
{
    kvcl_eval *e = m->e;
    kvcl_session *s = e->configs.list[m->config].session;
    const int32_t *tokens = e->places[m->place].tokens;
    const uint32_t n = kvcl_min_u32(TIMED, e->n_positions), at = e->n_ctx - n;
    double seconds[TIMED];
    KVCL_TRY(kvcl_session_rewind(s, at));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin = kvcl_os_now_ns();
        KVCL_TRY(kvcl_session_decode(s, tokens[at + i], e->logits));
        seconds[i] = kvcl_seconds(kvcl_os_now_ns() - begin);
    }
    kvcl_stats_sort(seconds, n);
    m->row->seconds_per_token = kvcl_stats_quantile(seconds, n, 0.1);
    return KVCL_OK;
}

static void take_stats(measure *m)
{
    const kvcl_eval_config *c = &m->e->configs.list[m->config];
    kvcl_cache_stats s;
    kvcl_session_cache_stats(c->session, &s);
    m->row->bits = s.bits_per_elem > 0 ? s.bits_per_elem : s.bits_per_elem_all;
    m->row->bits_all = s.bits_per_elem_all;
    m->row->bytes = kvcl_session_cache_bytes(c->session);
    m->row->disk = s.disk_bytes;
    m->row->read = s.read_bytes;
    kvcl_app_note_drift(&m->e->app, c->name, c->session);
}

static kvcl_status decode_all(measure *m)
{
    kvcl_eval *e = m->e;
    const kvcl_model_info *info = kvcl_model_get_info(e->app.model);
    kvcl_session *s = e->configs.list[m->config].session;
    const int32_t *tokens = e->places[m->place].tokens;
    KVCL_TRY(kvcl_session_set_tap(s, 1u << KVCL_TAP_ATT, on_attention, m));
    for (uint32_t i = 0; i < e->n_positions; i++) {
        float *logits = m->config ? e->logits : m->exact_logits + (size_t)i * info->n_vocab;
        KVCL_TRY(check_go_on(m, i, e->n_positions));
        KVCL_TRY(kvcl_session_decode(s, tokens[m->first + i], logits));
        KVCL_TRY(score(m, i, logits));
    }
    for (uint32_t layer = 0; layer < info->n_layers; layer++)
        m->row->att[layer] /= e->n_positions;
    take_stats(m);
    return KVCL_OK;
}

/* A row of an earlier run stays as it was: its exact pass is needed again, its figures are not. */
static kvcl_status measure_one(measure *m, size_t config)
{
    kvcl_eval *e = m->e;
    kvcl_session *s = e->configs.list[config].session;
    const kvcl_eval_text before = *kvcl_eval_text_at(e, config, m->place);
    m->config = config;
    m->row = kvcl_eval_text_at(e, config, m->place);
    m->row->n_same = 0;
    m->row->nll = 0;
    memset(m->row->att, 0, sizeof(double) * kvcl_model_get_info(e->app.model)->n_layers);
    kvcl_status st = decode_all(m);
    kvcl_status off = kvcl_session_set_tap(s, 0, NULL, NULL);
    KVCL_TRY(st);
    KVCL_TRY(off);
    if (before.is_done) {
        *m->row = before;
        return KVCL_OK;
    }
    KVCL_TRY(time_decode(m));
    m->row->is_done = true;
    return kvcl_eval_state_put_text(e, config, m->place);
}

static kvcl_status measure_place(measure *m)
{
    kvcl_eval *e = m->e;
    bool wanted[KVCL_EVAL_CONFIGS] = {false};
    size_t n_wanted = 0, n_done = 0;
    char what[64];
    kvcl_progress progress;
    for (size_t c = 0; c < e->configs.n; c++) {
        wanted[c] = !kvcl_eval_text_at(e, c, m->place)->is_done;
        n_wanted += wanted[c];
    }
    if (n_wanted == 0)
        return KVCL_OK;
    m->first = e->n_ctx - e->n_positions;
    snprintf(what, sizeof what, "place %zu of %u:", m->place + 1, e->n_places);
    KVCL_TRY(kvcl_eval_configs_open(&e->app, wanted, &e->configs));
    KVCL_TRY(kvcl_eval_configs_prefill(&e->app, &e->configs, (uint32_t)e->o->n_step,
                                       e->places[m->place].tokens, m->first, what));
    kvcl_progress_init(&progress, &e->app, what, "steps");
    progress.total = (n_wanted + !wanted[0]) * (uint64_t)e->n_positions;
    m->progress = &progress;
    kvcl_status st = KVCL_OK;
    for (size_t c = 0; c < e->configs.n && st == KVCL_OK; c++)
        if (c == 0 || wanted[c]) {
            progress.before = n_done++ * (uint64_t)e->n_positions;
            st = measure_one(m, c);
        }
    kvcl_progress_end(&progress);
    m->progress = NULL;
    return st;
}

kvcl_status kvcl_eval_text_run(kvcl_eval *e)
{
    const kvcl_model_info *info = kvcl_model_get_info(e->app.model);
    measure m = {.e = e};
    size_t att = (size_t)info->n_layers * info->n_heads * info->head_dim;
    void *p;
    if (e->n_places == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(e->app.ctx, (size_t)e->n_positions * info->n_vocab, sizeof(float),
                            "the exact logits (--positions)", &p));
    m.exact_logits = p;
    kvcl_status st = kvcl_mem_array(e->app.ctx, e->n_positions * att, sizeof(float),
                                    "the exact attention outputs (--positions)", &p);
    m.exact_att = st == KVCL_OK ? p : NULL;
    for (m.place = 0; m.place < e->n_places && st == KVCL_OK; m.place++)
        st = measure_place(&m);
    kvcl_eval_configs_close(&e->configs);
    kvcl_mem_free(e->app.ctx, m.exact_att);
    kvcl_mem_free(e->app.ctx, m.exact_logits);
    return st;
}
