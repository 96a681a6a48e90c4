/* cmd_eval_retrieval.c - kvcl eval on retrieval prompts: the context is prefilled and compressed,
 * then the question is fed token by token and the answer generated greedily.  See cmd_eval.h. */
#include "cmd_eval.h"
#include "cmd_eval_stats.h"

#include "mem.h"
#include "os.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWER_SPARE 2u /* tokens that an answer may take more than its own, if split otherwise */
#define MAX_ANSWER 64u

/* ---- reading ------------------------------------------------------------------------------- */

static kvcl_status copy_tokens(kvcl_eval *e, const char *text, size_t n_bytes, int32_t **out,
                               size_t *n_out)
{
    int32_t *ids;
    void *p;
    KVCL_TRY(kvcl_tokenize(e->app.model, text, n_bytes, -1, &ids, n_out));
    kvcl_status st = kvcl_mem_array(e->app.ctx, *n_out + 1, sizeof *ids, "a prompt's tokens", &p);
    if (st == KVCL_OK) {
        memcpy(p, ids, *n_out * sizeof *ids);
        *out = p;
    }
    kvcl_tokens_free(e->app.model, ids);
    return st;
}

/* Tokens whose bytes lie before the question, which begins at byte `at`. */
static kvcl_status count_context(kvcl_eval *e, const kvcl_eval_prompt *p, size_t at, uint32_t *out)
{
    size_t bytes = 0;
    uint32_t n = 0;
    for (; n < p->n_tokens; n++) {
        const char *text;
        size_t len;
        KVCL_TRY(kvcl_token_bytes(e->app.model, p->tokens[n], &text, &len));
        if (bytes + len > at)
            break;
        bytes += len;
    }
    *out = n;
    return KVCL_OK;
}

static kvcl_status read_prompt(kvcl_eval *e, const char *from, const json_t *row,
                               kvcl_eval_prompt *p)
{
    kvcl_ctx *ctx = e->app.ctx;
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    const json_t *prompt = json_object_get(row, "prompt"), *answer = json_object_get(row, "answer");
    KVCL_CHECK(ctx, json_is_object(row) && json_is_string(prompt) && json_is_string(answer),
               KVCL_E_FORMAT,
               "%s: no text '%s'; a line is {\"prompt\": \"...\", \"answer\": \"...\"}", from,
               json_is_string(prompt) ? "answer" : "prompt");
    const char *text = json_string_value(prompt), *last = strrchr(text, '\n');
    KVCL_CHECK(ctx, last && last[1], KVCL_E_FORMAT,
               "%s: the prompt has no line before its last one, the question, or that is empty",
               from);
    KVCL_CHECK(ctx, *json_string_value(answer), KVCL_E_FORMAT, "%s: the answer is empty", from);
    size_t n;
    int32_t *ids;
    KVCL_TRY(kvcl_mem_strdup(ctx, json_string_value(answer), &p->answer));
    KVCL_TRY(kvcl_tokenize(e->app.model, p->answer, strlen(p->answer), 0, &ids, &n));
    kvcl_tokens_free(e->app.model, ids);
    KVCL_CHECK(ctx, n + ANSWER_SPARE <= MAX_ANSWER, KVCL_E_FORMAT,
               "%s: the answer takes %zu tokens, and at most %u are generated", from, n,
               MAX_ANSWER - ANSWER_SPARE);
    p->n_answer_max = (uint32_t)n + ANSWER_SPARE;
    KVCL_TRY(copy_tokens(e, text, json_string_length(prompt), &p->tokens, &n));
    KVCL_CHECK(ctx, n + p->n_answer_max <= m->n_ctx_train, KVCL_E_ARG,
               "%s: the prompt's %zu tokens and an answer of up to %u do not fit into this "
               "model's context of %u",
               from, n, p->n_answer_max, m->n_ctx_train);
    p->n_tokens = (uint32_t)n;
    KVCL_TRY(count_context(e, p, (size_t)(last + 1 - text), &p->n_context));
    KVCL_CHECK(ctx, p->n_context > 0 && p->n_context < p->n_tokens, KVCL_E_FORMAT,
               "%s: the prompt's context or its question has no tokens", from);
    return KVCL_OK;
}

static size_t count_lines(const char *text, size_t n)
{
    size_t lines = 1;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    return lines;
}

static kvcl_status read_lines(kvcl_eval *e, uint32_t file, const char *text, size_t n)
{
    char from[300];
    size_t line = 1;
    for (const char *p = text; p < text + n; line++) {
        size_t len = strcspn(p, "\n");
        if (strspn(p, " \t\r") < len) {
            json_error_t error;
            json_t *row = json_loadb(p, len, 0, &error);
            kvcl_eval_prompt *to = &e->prompts[e->n_prompts];
            snprintf(from, sizeof from, "%.250s, line %zu", e->o->retrieval.item[file], line);
            *to = (kvcl_eval_prompt){.file = file, .line = line};
            e->n_prompts++; /* what it holds is freed even if it is refused */
            kvcl_status st =
                row ? read_prompt(e, from, row, to)
                    : kvcl_fail(e->app.ctx, KVCL_E_FORMAT, "%s: no JSON: %s", from, error.text);
            json_decref(row);
            KVCL_TRY(st);
        }
        p += len + 1;
    }
    return KVCL_OK;
}

kvcl_status kvcl_eval_retrieval_read(kvcl_eval *e)
{
    kvcl_ctx *ctx = e->app.ctx;
    const kvcl_opt_list *files = &e->o->retrieval;
    char *text[KVCL_EVAL_FILES] = {0};
    size_t bytes[KVCL_EVAL_FILES], n_lines = 0;
    kvcl_status st = KVCL_OK;
    void *p;
    for (size_t i = 0; i < files->n && st == KVCL_OK; i++) {
        st = kvcl_os_read_file(ctx, files->item[i], KVCL_MAX_INPUT, &text[i], &bytes[i]);
        n_lines += st == KVCL_OK ? count_lines(text[i], bytes[i]) : 0;
    }
    if (st == KVCL_OK && files->n > 0)
        st = kvcl_mem_array(ctx, n_lines, sizeof *e->prompts, "prompts", &p);
    if (st == KVCL_OK && files->n > 0)
        e->prompts = p;
    for (uint32_t i = 0; i < files->n && st == KVCL_OK; i++) {
        size_t before = e->n_prompts;
        st = read_lines(e, i, text[i], bytes[i]);
        if (st == KVCL_OK && e->n_prompts == before)
            st = kvcl_fail(ctx, KVCL_E_FORMAT,
                           "%s holds no prompts; a line is {\"prompt\": \"...\", \"answer\": "
                           "\"...\"}",
                           files->item[i]);
    }
    for (size_t i = 0; i < files->n; i++)
        kvcl_mem_free(ctx, text[i]);
    KVCL_TRY(st);
    if (files->n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(ctx, e->configs.n * e->n_prompts, sizeof *e->answers, "results", &p));
    e->answers = p;
    return KVCL_OK;
}

/* ---- asking -------------------------------------------------------------------------------- */

/* What the exact cache answers to the prompt at hand. */
typedef struct asking {
    kvcl_eval *e;
    size_t prompt;
    uint32_t n; /* generated tokens */
    int32_t tokens[MAX_ANSWER];
    float *logits; /* [MAX_ANSWER][n_vocab] from which they were picked */
} asking;

/* Compares the text of tokens, without blanks at its begin, with the answer: 1 begins with it, 0
 * may still do so, -1 not. */
static int judge(const kvcl_eval *e, const kvcl_eval_prompt *p, const int32_t *tokens, uint32_t n)
{
    const char *want = p->answer;
    for (uint32_t i = 0; i < n && *want; i++) {
        const char *text;
        size_t len;
        if (kvcl_token_bytes(e->app.model, tokens[i], &text, &len) != KVCL_OK)
            return -1;
        for (; len > 0 && *want; text++, len--) {
            if (want == p->answer && (*text == ' ' || *text == '\n') && *want != *text)
                continue;
            if (*text != *want)
                return -1;
            want++;
        }
    }
    return *want ? 0 : 1;
}

static kvcl_status feed(kvcl_session *s, int32_t token, float *logits)
{
    KVCL_TRY(kvcl_session_decode(s, token, logits));
    return kvcl_interrupted() ? KVCL_E_INTERRUPTED : KVCL_OK;
}

static kvcl_status feed_question(asking *a, kvcl_session *s, float *logits)
{
    const kvcl_eval_prompt *p = &a->e->prompts[a->prompt];
    for (uint32_t i = p->n_context; i < p->n_tokens; i++)
        KVCL_TRY(feed(s, p->tokens[i], logits));
    return KVCL_OK;
}

/* Greedy tokens of a session behind tokens[0..n), from logits on; ends when the answer is there, or
 * cannot be any more, or takes too long. */
static kvcl_status go_on(asking *a, kvcl_session *s, float *logits, size_t step, int32_t *tokens,
                         uint32_t *n)
{
    const kvcl_eval_prompt *p = &a->e->prompts[a->prompt];
    const uint32_t n_vocab = kvcl_model_get_info(a->e->app.model)->n_vocab;
    for (;;) {
        tokens[*n] = (int32_t)kvcl_stats_argmax(logits, n_vocab);
        ++*n;
        if (*n == p->n_answer_max || judge(a->e, p, tokens, *n) != 0)
            return KVCL_OK;
        logits += step;
        KVCL_TRY(feed(s, tokens[*n - 1], logits));
    }
}

static kvcl_status ask_exact(asking *a)
{
    kvcl_eval *e = a->e;
    kvcl_eval_answer *r = kvcl_eval_answer_at(e, 0, a->prompt);
    a->n = 0;
    KVCL_TRY(feed_question(a, e->configs.list[0].session, a->logits));
    KVCL_TRY(go_on(a, e->configs.list[0].session, a->logits,
                   kvcl_model_get_info(e->app.model)->n_vocab, a->tokens, &a->n));
    if (r->is_done)
        return KVCL_OK;
    *r = (kvcl_eval_answer){.is_done = true,
                            .n_kl = a->n,
                            .is_hit = judge(e, &e->prompts[a->prompt], a->tokens, a->n) > 0};
    return kvcl_eval_state_put_answer(e, 0, a->prompt);
}

/* First the exact cache's tokens are fed, for the divergence; where greedy picks another token for
 * the first time, the session goes back and follows its own. */
static kvcl_status ask(asking *a, size_t config)
{
    kvcl_eval *e = a->e;
    const uint32_t n_vocab = kvcl_model_get_info(e->app.model)->n_vocab;
    const kvcl_eval_prompt *p = &e->prompts[a->prompt];
    kvcl_session *s = e->configs.list[config].session;
    kvcl_eval_answer r = {.is_done = true, .n_kl = a->n};
    int32_t own[MAX_ANSWER] = {0};
    uint32_t n_same = a->n; /* leading tokens that are picked too */
    KVCL_TRY(feed_question(a, s, e->logits));
    for (uint32_t i = 0; i < a->n; i++) {
        double kl = kvcl_stats_kl(a->logits + (size_t)i * n_vocab, e->logits, n_vocab);
        KVCL_CHECK(e->app.ctx, isfinite(kl), KVCL_E_NOT_FINITE,
                   "configuration '%s': the logits on prompt %zu are not finite",
                   e->configs.list[config].name, a->prompt + 1);
        r.kl_sum += kl;
        r.kl_max = kl > r.kl_max ? kl : r.kl_max;
        own[i] = (int32_t)kvcl_stats_argmax(e->logits, n_vocab);
        if (own[i] != a->tokens[i] && i < n_same)
            n_same = i;
        if (i + 1 < a->n)
            KVCL_TRY(feed(s, a->tokens[i], e->logits));
    }
    uint32_t n = kvcl_min_u32(n_same + 1, a->n);
    if (n < p->n_answer_max && judge(e, p, own, n) == 0) {
        KVCL_TRY(kvcl_session_rewind(s, p->n_tokens + n - 1));
        KVCL_TRY(feed(s, own[n - 1], e->logits));
        KVCL_TRY(go_on(a, s, e->logits, 0, own, &n));
    }
    r.is_hit = judge(e, p, own, n) > 0;
    *kvcl_eval_answer_at(e, config, a->prompt) = r;
    return kvcl_eval_state_put_answer(e, config, a->prompt);
}

static kvcl_status ask_all(asking *a, const bool *wanted)
{
    kvcl_eval *e = a->e;
    const kvcl_eval_prompt *p = &e->prompts[a->prompt];
    char what[64];
    snprintf(what, sizeof what, "prompt %zu of %zu:", a->prompt + 1, e->n_prompts);
    KVCL_TRY(kvcl_eval_configs_prefill(&e->app, &e->configs, (uint32_t)e->o->n_step, p->tokens,
                                       p->n_context, what));
    KVCL_TRY(ask_exact(a));
    for (size_t c = 1; c < e->configs.n; c++)
        if (wanted[c])
            KVCL_TRY(ask(a, c));
    return KVCL_OK;
}

/* Prompts of one file: sessions as long as its longest prompt wants. */
static kvcl_status ask_file(asking *a, uint32_t file)
{
    kvcl_eval *e = a->e;
    bool wanted[KVCL_EVAL_CONFIGS] = {false}, any = false;
    uint32_t n_ctx = 0;
    for (size_t i = 0; i < e->n_prompts; i++) {
        const kvcl_eval_prompt *p = &e->prompts[i];
        if (p->file != file)
            continue;
        n_ctx = kvcl_max_u32(n_ctx, p->n_tokens + p->n_answer_max);
        for (size_t c = 0; c < e->configs.n; c++)
            wanted[c] = wanted[c] || !kvcl_eval_answer_at(e, c, i)->is_done;
    }
    for (size_t c = 0; c < e->configs.n; c++)
        any = any || wanted[c];
    if (!any)
        return KVCL_OK;
    KVCL_TRY(kvcl_eval_configs_plan(&e->app, e->o, n_ctx, &e->configs));
    KVCL_TRY(kvcl_eval_configs_open(&e->app, wanted, &e->configs));
    for (a->prompt = 0; a->prompt < e->n_prompts; a->prompt++) {
        bool now[KVCL_EVAL_CONFIGS] = {false}, some = false;
        for (size_t c = 0; c < e->configs.n; c++) {
            now[c] = !kvcl_eval_answer_at(e, c, a->prompt)->is_done;
            some = some || now[c];
        }
        if (some && e->prompts[a->prompt].file == file)
            KVCL_TRY(ask_all(a, now));
    }
    return KVCL_OK;
}

kvcl_status kvcl_eval_retrieval_run(kvcl_eval *e)
{
    asking a = {.e = e};
    kvcl_status st = KVCL_OK;
    void *p;
    if (e->n_prompts == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(e->app.ctx,
                            (size_t)MAX_ANSWER * kvcl_model_get_info(e->app.model)->n_vocab,
                            sizeof(float), "an answer's logits", &p));
    a.logits = p;
    for (uint32_t i = 0; i < e->o->retrieval.n && st == KVCL_OK; i++) {
        st = ask_file(&a, i);
        kvcl_eval_configs_close(&e->configs);
    }
    kvcl_mem_free(e->app.ctx, a.logits);
    return st;
}
