/* test_arch.c - families of models and kinds of RoPE: logits near those of double precision, and
 * the same bits on every row of the device table, with raw and with coded caches.
 *
 * The tiny models of tiny_named() everywhere; with the folder of reference data the models of an
 * independent engine, too. */
#include "rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH_CAP 1024
#define N_LAST 4u
#define N_DECODED 2u /* of these */

static const char *const tiny[] = {"qwen2", "qwen3", "llama-linear", "llama-yarn", "llama-freqs"};
#define TINY_TOKENS 100u

static const char *const shared[] = {"qwen2", "qwen3", "llama3", "llama-linear"};
#define SHARED_TOKENS 300u

static void *read_words(const char *path, size_t n)
{
    size_t bytes;
    void *p = test_read_file(path, &bytes);
    test_require(bytes == 4 * n, "%s: %zu bytes, not %zu", path, bytes, 4 * n);
    return p;
}

/* A prompt but for its last two tokens, then those: logits of the last four. */
static float *play(test_dev *d, rig *r, const int32_t *tokens, uint32_t n)
{
    size_t n_vocab = kvcl_model_get_info(r->model)->n_vocab;
    float *logits = calloc(N_LAST * n_vocab, sizeof *logits);
    test_true(logits != NULL);
    rig_ok(d, kvcl_session_prefill(r->session, tokens, n - N_DECODED, N_LAST - N_DECODED, logits,
                                   NULL, NULL));
    for (uint32_t i = 0; i < N_DECODED; i++)
        rig_ok(d, kvcl_session_decode(r->session, tokens[n - N_DECODED + i],
                                      logits + (N_LAST - N_DECODED + i) * n_vocab));
    return logits;
}

/* Relative RMS error at most 1e-5, the same largest logit at each position. */
static void check_near(const char *what, const float *got, const float *want, size_t n_vocab)
{
    double error = 0.0, size = 0.0;
    for (size_t i = 0; i < N_LAST * n_vocab; i++) {
        double e = (double)got[i] - (double)want[i];
        error += e * e;
        size += (double)want[i] * (double)want[i];
    }
    double rms = sqrt(error / size);
    printf("%s: relative RMS error %.3g\n", what, rms);
    fflush(stdout);
    test_require(rms <= 1e-5, "%s: relative RMS error %.3g above 1e-5", what, rms);
    for (size_t i = 0; i < N_LAST; i++) {
        size_t a = 0, b = 0;
        for (size_t k = 1; k < n_vocab; k++) {
            a = got[i * n_vocab + k] > got[i * n_vocab + a] ? k : a;
            b = want[i * n_vocab + k] > want[i * n_vocab + b] ? k : b;
        }
        test_require(a == b, "%s: position %zu: largest logit at %zu, not %zu", what, i, a, b);
    }
}

static rig open_at(test_dev *d, const char *path, kvcl_session_options opt)
{
    rig r = {0};
    rig_ok(d, kvcl_model_open(d->ctx, path, &r.model));
    rig_ok(d, kvcl_engine_create(r.model, d->dev, &r.engine));
    rig_ok(d, kvcl_session_create(r.engine, &opt, &r.session));
    return r;
}

/* The twin against double precision (golden not NULL), then every row against the twin. */
static void check_file(const char *name, const char *path, const int32_t *tokens, uint32_t n,
                       const float *golden, kvcl_session_options opt)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    rig r = open_at(test_reference(), path, opt);
    size_t n_vocab = kvcl_model_get_info(r.model)->n_vocab;
    float *want = play(test_reference(), &r, tokens, n);
    rig_close(&r);
    if (golden)
        check_near(name, want, golden, n_vocab);
    for (size_t i = 0; i < n_rows; i++) {
        if (test_is_reference(&rows[i]))
            continue;
        r = open_at(&rows[i], path, opt);
        float *got = play(&rows[i], &r, tokens, n);
        rig_same(rows[i].row, want, got, N_LAST * n_vocab);
        free(got);
        rig_close(&r);
    }
    free(want);
}

static const kvcl_session_options exact = {.n_ctx = 512, .type_k = KVCL_F32, .type_v = KVCL_F32};

START_TEST(tiny_models)
{
    char path[PATH_CAP], name[64];
    int32_t tokens[TINY_TOKENS];
    uint32_t n = test_small() ? 6 : TINY_TOKENS;
    tiny_model m = tiny_named(tiny[_i], KVCL_F32);
    for (uint32_t i = 0; i < TINY_TOKENS; i++)
        tokens[i] = (int32_t)(i * i * 7 % TINY_VOCAB);
    tiny_model_write(&m, rig_path());
    snprintf(name, sizeof name, "tests/golden/tiny-%s.logits64.f32", tiny[_i]);
    test_source(name, path, sizeof path);
    float *golden = read_words(path, (size_t)N_LAST * TINY_VOCAB);
    check_file(tiny[_i], rig_path(), tokens, n, n == TINY_TOKENS ? golden : NULL, exact);
    free(golden);
}
END_TEST

/* Codes of keys before RoPE turn them by the table when they are read. */
START_TEST(coded_caches)
{
    static const char *const codecs[] = {"quant4", "spectral3"};
    int32_t tokens[300];
    uint32_t n = test_small() ? 140 : 300;
    tiny_model m = tiny_named(_i ? "llama-yarn" : "qwen3", KVCL_Q8_0);
    tiny_model_write(&m, rig_path());
    for (uint32_t i = 0; i < 300; i++)
        tokens[i] = (int32_t)(i * i * 7 % TINY_VOCAB);
    for (size_t k = 0; k < kvcl_array_len(codecs); k++)
        check_file(codecs[k], rig_path(), tokens, n, NULL, rig_tiers(NULL, codecs[k], 512));
}
END_TEST

START_TEST(shared_models)
{
    char name[64], path[PATH_CAP];
    if (test_small() || !test_shared("golden/arch/arch.tokens.i32", path, sizeof path)) {
        printf("%s: not compared\n", path);
        return;
    }
    int32_t *tokens = read_words(path, SHARED_TOKENS);
    snprintf(name, sizeof name, "golden/arch/arch-%s.logits64.f32", shared[_i]);
    test_true(test_shared(name, path, sizeof path));
    float *golden = read_words(path, N_LAST * 512);
    snprintf(name, sizeof name, "golden/arch/arch-%s.gguf", shared[_i]);
    test_true(test_shared(name, path, sizeof path));
    check_file(name, path, tokens, SHARED_TOKENS, golden, exact);
    free(golden);
    free(tokens);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("arch");
    TCase *t = tcase_create("arch");
    tcase_add_checked_fixture(t, rig_setup, rig_teardown);
    tcase_add_loop_test(t, tiny_models, 0, (int)kvcl_array_len(tiny));
    tcase_add_loop_test(t, coded_caches, 0, 2);
    tcase_add_loop_test(t, shared_models, 0, (int)kvcl_array_len(shared));
    suite_add_tcase(s, t);
    return test_main_on_rows(s);
}
