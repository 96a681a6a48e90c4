/* rig.c - see rig.h. */
#define _POSIX_C_SOURCE 200809L

#include "rig.h"

#include <stdio.h>
#include <stdlib.h>

/* one test at a time: Check runs them one after the other */
static char folder[256], path[512];

const char *const rig_configs[][2] = {
    {NULL, "quant4"},
    {NULL, "quant-k3v2"},
    {NULL, "q4_0"},
    {"quant8", "quant2"},
    {"f16", "quant3/post"},
    {NULL, "quant1"},
    {NULL, "quant4/channel"},
    {NULL, "f16"},
    {"quant4/post", "q8_0"},
    {NULL, "superpose4-2"},
    {"spectral4/first128/again9", "superpose2-k3v2.5"},
    {NULL, "rest1.5"},
    {"rest4", "rest1.05"},
};
const int rig_n_configs = (int)kvcl_array_len(rig_configs);

void rig_setup(void)
{
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/tiny.gguf", folder);
}

void rig_teardown(void) { test_folder_remove(folder); }

const char *rig_path(void) { return path; }

void rig_ok(const test_dev *d, kvcl_status st)
{
    test_require(st == KVCL_OK, "%s: %s: %s", d->row, kvcl_status_string(st),
                 kvcl_last_error(d->ctx));
}

rig rig_open(test_dev *d, const kvcl_session_options *opt)
{
    rig r = {0};
    rig_ok(d, kvcl_model_open(d->ctx, path, &r.model));
    rig_ok(d, kvcl_engine_create(r.model, d->dev, &r.engine));
    rig_ok(d, kvcl_session_create(r.engine, opt, &r.session));
    return r;
}

void rig_close(rig *r)
{
    kvcl_session_free(r->session);
    kvcl_engine_free(r->engine);
    kvcl_model_close(r->model);
}

test_dev *rig_last_row(void)
{
    test_dev *rows;
    size_t n = test_rows(&rows);
    test_true(n > 0);
    return &rows[n - 1];
}

int32_t rig_token(uint32_t i) { return (int32_t)(test_word(test_seed(), i) % TINY_VOCAB); }

void rig_tokens(int32_t *tokens, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = rig_token(first + i);
}

void rig_decode(test_dev *d, kvcl_session *s, uint32_t first, uint32_t n, float *logits)
{
    for (uint32_t i = 0; i < n; i++)
        rig_ok(d, kvcl_session_decode(s, rig_token(first + i), logits + (size_t)i * TINY_VOCAB));
}

float *rig_play(test_dev *d, kvcl_session *s, uint32_t n, uint32_t n_logits, uint32_t n_decode)
{
    float *logits = calloc((size_t)(n_logits + n_decode) * TINY_VOCAB, sizeof *logits);
    int32_t tokens[TINY_CTX];
    test_true(logits && n <= TINY_CTX);
    rig_tokens(tokens, 0, n);
    rig_ok(d, kvcl_session_prefill(s, tokens, n, n_logits, logits, NULL, NULL));
    rig_decode(d, s, n, n_decode, logits + (size_t)n_logits * TINY_VOCAB);
    ck_assert_uint_eq(kvcl_session_n_tokens(s), n + n_decode);
    return logits;
}

void rig_same(const char *what, const float *want, const float *got, size_t n)
{
    for (size_t i = 0; i < n; i++)
        test_require(memcmp(&want[i], &got[i], sizeof *want) == 0,
                     "%s: logit %zu of position %zu: %.9g, not %.9g", what, i % TINY_VOCAB,
                     i / TINY_VOCAB, (double)got[i], (double)want[i]);
}

void rig_tier_model(bool gpt2, uint32_t n_layers)
{
    tiny_model m = gpt2 ? tiny_gpt2(KVCL_F16) : tiny_llama(KVCL_F16);
    m.n_embd = 128;
    m.n_layers = n_layers;
    tiny_model_write(&m, path);
}

kvcl_session_options rig_tiers(const char *warm, const char *cold, uint32_t n_ctx)
{
    kvcl_session_options o = kvcl_session_defaults();
    o.n_ctx = n_ctx;
    o.n_tiers = warm ? 3 : 2;
    o.tiers[0].tokens = 64;
    if (warm)
        o.tiers[1] = (kvcl_tier_options){.codec = warm, .tokens = 128};
    o.tiers[o.n_tiers - 1].codec = cold;
    return o;
}
