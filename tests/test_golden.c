/* test_golden.c - whole models against known results.
 *
 * With the folder of reference models (KVCL_SHARED, or ../shared beside the sources): logits of the
 * F16 models after a prompt of 512 tokens against those computed in double precision.  Everywhere:
 * the bits of the shipped models' logits, pinned in golden/logits.txt, on every row of
 * KVCL_TEST_DEVICES (default: the best path of this processor). */
#define _POSIX_C_SOURCE 200809L

#include "test.h"

#include "f16.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH_CAP 1024
#define N_PROMPT 512u
#define N_LAST 16u
#define N_VOCAB 8192u

typedef struct golden_model {
    const char *name, *f16_path, *tokens, *logits64, *q5_path;
} golden_model;

static const golden_model models[] = {
    {"ref-llama-29m", "models/ref-llama-29m-f16.gguf", "golden/ref-llama-29m.tokens.i32",
     "golden/ref-llama-29m.logits64.f32", "models/ref/ref-llama-29m-q5_0.gguf"},
    {"ref-gpt2-14m", "models/ref-gpt2-14m-f16.gguf", "golden/ref-gpt2-14m.tokens.i32",
     "golden/ref-gpt2-14m.logits64.f32", "models/ref/ref-gpt2-14m-q5_0.gguf"},
};

typedef struct rig {
    test_dev *d;
    kvcl_model *model;
    kvcl_engine *engine;
    kvcl_session *session;
} rig;

static void ok(const test_dev *d, kvcl_status st)
{
    ck_assert_msg(st == KVCL_OK, "%s: %s: %s", d->row, kvcl_status_string(st),
                  kvcl_last_error(d->ctx));
}

static rig rig_open(test_dev *d, const char *path, kvcl_type cache)
{
    rig r = {.d = d};
    kvcl_session_options opt = {.n_ctx = 1024, .type_k = cache, .type_v = cache};
    ok(d, kvcl_model_open(d->ctx, path, &r.model));
    ck_assert_uint_eq(kvcl_model_get_info(r.model)->n_vocab, N_VOCAB);
    ok(d, kvcl_engine_create(r.model, d->dev, &r.engine));
    ok(d, kvcl_session_create(r.engine, &opt, &r.session));
    return r;
}

static void rig_close(rig *r)
{
    kvcl_session_free(r->session);
    kvcl_engine_free(r->engine);
    kvcl_model_close(r->model);
}

static void *read_words(const char *path, size_t n)
{
    size_t bytes;
    void *p = test_read_file(path, &bytes);
    ck_assert_msg(bytes == 4 * n, "%s: %zu bytes, not %zu", path, bytes, 4 * n);
    return p;
}

static uint32_t arg_max(const float *x)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < N_VOCAB; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* Relative RMS error over all positions, the same largest logit at each. */
static void check_near(const char *what, const float *got, const float *want, double limit)
{
    double error = 0.0, size = 0.0;
    for (size_t i = 0; i < (size_t)N_LAST * N_VOCAB; i++) {
        double e = (double)got[i] - (double)want[i];
        error += e * e;
        size += (double)want[i] * (double)want[i];
    }
    double rms = sqrt(error / size);
    printf("%s: relative RMS error %.3g (limit %.0e)\n", what, rms, limit);
    fflush(stdout);
    ck_assert_msg(rms <= limit, "%s: relative RMS error %.3g above %.0e", what, rms, limit);
    for (uint32_t i = 0; i < N_LAST; i++)
        ck_assert_uint_eq(arg_max(got + i * N_VOCAB), arg_max(want + i * N_VOCAB));
}

/* The prompt as one prefill; then the last 16 tokens once more, one decode each. */
static void check_model(test_dev *d, const golden_model *m, kvcl_type cache, double limit)
{
    char path[PATH_CAP], what[160];
    rig r;
    if (!test_shared(m->f16_path, path, sizeof path)) {
        printf("%s: %s is not here; not compared\n", m->name, path);
        return;
    }
    r = rig_open(d, path, cache);
    ck_assert(test_shared(m->tokens, path, sizeof path));
    int32_t *tokens = read_words(path, N_PROMPT);
    ck_assert(test_shared(m->logits64, path, sizeof path));
    float *want = read_words(path, (size_t)N_LAST * N_VOCAB);
    float *got = calloc((size_t)N_LAST * N_VOCAB, sizeof *got);
    ck_assert_ptr_nonnull(got);
    ok(d, kvcl_session_prefill(r.session, tokens, N_PROMPT, N_LAST, got, NULL, NULL));
    snprintf(what, sizeof what, "%s on %s, %s cache, prefill", m->name, d->row,
             kvcl_type_name(cache));
    check_near(what, got, want, limit);
    ok(d, kvcl_session_rewind(r.session, N_PROMPT - N_LAST));
    for (uint32_t i = 0; i < N_LAST; i++)
        ok(d, kvcl_session_decode(r.session, tokens[N_PROMPT - N_LAST + i], got + i * N_VOCAB));
    snprintf(what, sizeof what, "%s on %s, %s cache, decode", m->name, d->row,
             kvcl_type_name(cache));
    check_near(what, got, want, limit);
    free(tokens);
    free(want);
    free(got);
    rig_close(&r);
}

START_TEST(logits_are_near_double_precision)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    for (size_t i = 0; i < n_rows; i++) {
        check_model(&rows[i], &models[_i], KVCL_F32, 1e-5);
        check_model(&rows[i], &models[_i], KVCL_F16, 2e-3);
    }
}
END_TEST

/* ---- the bits of the shipped models -------------------------------------------------------- */

#define N_PINNED 64u
#define N_DECODED 8u

static uint64_t hash_floats(uint64_t hash, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ kvcl_f32_bits(x[i])) * UINT64_C(0x100000001b3);
    return hash;
}

/* FNV-1a over the words of the logits: 64 tokens of the prompt in one prefill, 8 decoded. */
static uint64_t hash_model(test_dev *d, const golden_model *m, kvcl_type cache)
{
    char path[PATH_CAP], name[128];
    snprintf(name, sizeof name, "tests/%s", m->tokens);
    test_source(name, path, sizeof path);
    int32_t *tokens = read_words(path, N_PROMPT);
    test_source(m->q5_path, path, sizeof path);
    rig r = rig_open(d, path, cache);
    float *logits = calloc((size_t)N_PINNED * N_VOCAB, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    ok(d, kvcl_session_prefill(r.session, tokens, N_PINNED, N_PINNED, logits, NULL, NULL));
    hash = hash_floats(hash, logits, (size_t)N_PINNED * N_VOCAB);
    for (uint32_t i = 0; i < N_DECODED; i++) {
        ok(d, kvcl_session_decode(r.session, tokens[N_PINNED + i], logits));
        hash = hash_floats(hash, logits, N_VOCAB);
    }
    free(tokens);
    free(logits);
    rig_close(&r);
    return hash;
}

/* The line "<model> <cache type> <hash>" of golden/logits.txt; 0 when there is none. */
static uint64_t pinned(const char *model, const char *cache)
{
    char path[PATH_CAP], a[64], b[64];
    unsigned long long hash = 0;
    size_t bytes;
    test_source("tests/golden/logits.txt", path, sizeof path);
    char *text = test_read_file(path, &bytes);
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        unsigned long long h;
        if (sscanf(line, "%63s %63s %16llx", a, b, &h) == 3 && strcmp(a, model) == 0 &&
            strcmp(b, cache) == 0)
            hash = h;
    }
    free(text);
    return hash;
}

START_TEST(logits_of_the_shipped_models_are_pinned)
{
    static const kvcl_type caches[] = {KVCL_F16, KVCL_F32};
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    const golden_model *m = &models[_i];
    for (size_t i = 0; i < n_rows; i++) {
        for (size_t k = 0; k < kvcl_array_len(caches); k++) {
            const char *cache = kvcl_type_name(caches[k]);
            uint64_t want = pinned(m->name, cache), got = hash_model(&rows[i], m, caches[k]);
            printf("%s %s %016llx on %s\n", m->name, cache, (unsigned long long)got, rows[i].row);
            fflush(stdout);
            ck_assert_msg(got == want, "%s, %s cache on %s: logits hash to %016llx, not %016llx",
                          m->name, cache, rows[i].row, (unsigned long long)got,
                          (unsigned long long)want);
        }
    }
}
END_TEST

int main(void)
{
    setenv("KVCL_TEST_DEVICES", "cpu:auto", 0);
    Suite *suite = suite_create("golden");
    TCase *c = tcase_create("golden");
    tcase_add_loop_test(c, logits_are_near_double_precision, 0, (int)kvcl_array_len(models));
    tcase_add_loop_test(c, logits_of_the_shipped_models_are_pinned, 0, (int)kvcl_array_len(models));
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
