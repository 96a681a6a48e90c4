/* rig.h - a model, its engine and a session on one row of the device table, and made-up texts for
 * them: what tests of whole sessions share. */
#ifndef KVCL_RIG_H
#define KVCL_RIG_H

#include "tiny_model.h"

typedef struct rig {
    kvcl_model *model;
    kvcl_engine *engine;
    kvcl_session *session;
} rig;

/* Fixtures: a folder of the test's own; rig_path() names the model file in it. */
void rig_setup(void);
void rig_teardown(void);
const char *rig_path(void);

/* Fails with the library's sentence unless st is KVCL_OK. */
void rig_ok(const test_dev *d, kvcl_status st);
/* The file at rig_path(). */
rig rig_open(test_dev *d, const kvcl_session_options *opt);
void rig_close(rig *r);

/* The last row that was asked for: on processors the fastest path.  For tests of one row. */
test_dev *rig_last_row(void);

/* Made-up token number i of a text, and n of them. */
int32_t rig_token(uint32_t i);
void rig_tokens(int32_t *tokens, uint32_t first, uint32_t n);
/* Decodes tokens first .. first + n - 1 of the text: logits [n][TINY_VOCAB]. */
void rig_decode(test_dev *d, kvcl_session *s, uint32_t first, uint32_t n, float *logits);
/* Prefill of n tokens with logits of the last n_logits, then n_decode decoded ones, malloc'ed:
 * [n_logits + n_decode][TINY_VOCAB]. */
float *rig_play(test_dev *d, kvcl_session *s, uint32_t n, uint32_t n_logits, uint32_t n_decode);
/* Fails at the first of n values that has other bits. */
void rig_same(const char *what, const float *want, const float *got, size_t n);

/* Tiered sessions: 4 heads on 2 of 32; a hot tier of 64 tokens and others by name. */
void rig_tier_model(bool gpt2, uint32_t n_layers);
kvcl_session_options rig_tiers(const char *warm, const char *cold, uint32_t n_ctx);
/* Pairs of warm (may be NULL) and cold codecs that tests go through. */
extern const char *const rig_configs[][2];
extern const int rig_n_configs;

#endif
