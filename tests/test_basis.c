/* test_basis.c - which rows the bases of learning codecs come from, and when they are learned
 * anew. */
#define _POSIX_C_SOURCE 200809L

#include "rig.h"
#include "session_int.h"

#include <stdio.h>
#include <stdlib.h>

#define V TINY_VOCAB

/* ---- names --------------------------------------------------------------------------------- */

START_TEST(names)
{
    static const char *const good[][2] = {
        {"superpose8-k2.25v2/first16384", "superpose8-k2.25v2/first16384"},
        {"rest1.30/first64", "rest1.3/first64"},
        {"spectral2/again2.05", "spectral2/again2.05"},
        {"superpose8-k2.25v1.75/first8192/again1.50", "superpose8-k2.25v1.75/first8192/again1.5"},
    };
    static const char *const bad[] = {
        "/first64",
        "spectral2/first",
        "spectral2/first0",
        "spectral2/first100",
        "spectral2/first-6",
        "quant4/first64",
        "factor-k16v32/first64",
        "spectral2/first64x",
        "spectral2/again",
        "spectral2/again1",
        "spectral2/again1.04",
        "spectral2/again9.1",
        "spectral2/again-2",
        "rest1.3/again1.5",
        "spectral2/again1.x",
        "spectral2/again1.234",
        "quant4/again2",
        "spectral2/first1e3",
        "spectral2/first64/first64",
        "spectral2/again1.5/first64",
        "spectral2/first99999999999999999999",
    };
    kvcl_ctx *ctx = test_reference()->ctx;
    kvcl_codec_spec spec;
    for (size_t i = 0; i < kvcl_array_len(good); i++) {
        ck_assert_int_eq(kvcl_codec_parse(ctx, good[i][0], &spec), KVCL_OK);
        ck_assert_str_eq(spec.name, good[i][1]);
    }
    ck_assert(spec.first == 8192 && spec.again == 150);
    for (size_t i = 0; i < kvcl_array_len(bad); i++) {
        ck_assert_msg(kvcl_codec_parse(ctx, bad[i], &spec) == KVCL_E_ARG, "%s", bad[i]);
        ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "/firstN"));
    }
    /* sums of tokens as published need no matrix */
    kvcl_kv_shape shape = {.n_q_heads = 1, .n_kv_heads = 1, .head_dim = 64};
    kvcl_codec_plan plan;
    ck_assert_int_eq(kvcl_codec_parse(ctx, "holo4/first64", &spec), KVCL_OK);
    ck_assert_int_eq(kvcl_codec_plan_make(ctx, &spec, &shape, &plan), KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "learns nothing"));
}
END_TEST

/* ---- the first tokens ---------------------------------------------------------------------- */

/* What the cold tier learned, read back; *n gets its bytes.  Free it. */
static unsigned char *basis_of(test_dev *d, const rig *r, size_t *n)
{
    const kvcl_cache_layout *l = kvcl_cache_get_layout(r->session->cache);
    const kvcl_buf *b = l->tiers[l->opt.n_tiers - 1].basis;
    unsigned char *out = malloc(b->bytes);
    test_true(out != NULL);
    rig_ok(d, kvcl_buf_read(r->engine->queue, b, 0, out, b->bytes));
    rig_ok(d, kvcl_queue_wait(r->engine->queue));
    *n = b->bytes;
    return out;
}

/* A prompt of 300 tokens that parts from the usual one at `parts`; the basis learned from it. */
static unsigned char *learn_from(test_dev *d, const char *codec, uint32_t batch, uint32_t parts,
                                 size_t *n)
{
    kvcl_session_options opt = rig_tiers(NULL, codec, 512);
    int32_t tokens[300];
    opt.n_batch = batch;
    rig r = rig_open(d, &opt);
    rig_tokens(tokens, 0, 300);
    for (uint32_t i = parts; i < 300; i++)
        tokens[i] = rig_token(1000 + i);
    rig_ok(d, kvcl_session_prefill(r.session, tokens, 300, 0, NULL, NULL, NULL));
    unsigned char *out = basis_of(d, &r, n);
    rig_close(&r);
    return out;
}

/* Neither keys and values nor queries behind the first 128 tokens count, however they were cut. */
START_TEST(a_basis_of_the_first_tokens)
{
    static const char *const codecs[] = {"superpose4-2", "rest1.5"};
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    for (size_t i = 0; i < kvcl_array_len(codecs); i++) {
        char first[KVCL_CODEC_NAME_CAP];
        size_t n;
        snprintf(first, sizeof first, "%s/first128", codecs[i]);
        unsigned char *want = learn_from(d, first, 512, 300, &n);
        unsigned char *other = learn_from(d, first, 7, 128, &n);
        ck_assert_mem_eq(want, other, n);
        free(other);
        other = learn_from(d, first, 512, 120, &n);
        ck_assert(memcmp(want, other, n) != 0);
        free(other);
        other = learn_from(d, codecs[i], 512, 300, &n); /* all of them are another basis */
        ck_assert(memcmp(want, other, n) != 0);
        free(other);
        free(want);
    }
}
END_TEST

/* Sessions that learn from different tokens share a prompt, each with its own answers. */
START_TEST(a_shared_prompt_of_several_bases)
{
    enum { N = 5 };
    static const char *const codecs[N] = {NULL, "superpose4-2", "superpose4-2/first64", "quant3",
                                          "rest1.5/first64"};
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options raw = kvcl_session_defaults();
    raw.n_ctx = 512;
    float *want[N], got[3 * V];
    int32_t tokens[300];
    rig_tokens(tokens, 0, 300);
    rig r = rig_open(d, &raw);
    kvcl_session_free(r.session);
    kvcl_session *s[N];
    for (int i = 0; i < N; i++) {
        kvcl_session_options opt = codecs[i] ? rig_tiers(NULL, codecs[i], 512) : raw;
        rig_ok(d, kvcl_session_create(r.engine, &opt, &s[i]));
        want[i] = rig_play(d, s[i], 300, 1, 2);
        rig_ok(d, kvcl_session_rewind(s[i], 0));
    }
    rig_ok(d, kvcl_session_prefill_shared(s, N, tokens, 300, 1, got, NULL, NULL));
    for (int i = 0; i < N; i++) {
        rig_decode(d, s[i], 300, 2, got + V);
        rig_same(codecs[i] ? codecs[i] : "raw", want[i], got, 3 * V);
        free(want[i]);
        kvcl_session_free(s[i]);
    }
    r.session = NULL;
    rig_close(&r);
}
END_TEST

/* ---- learned anew --------------------------------------------------------------------------- */

#define AGAIN "superpose4-2/first128/again1.05"
#define N_PROMPT 200
#define N_DECODE 280

static uint32_t refreshes(const rig *r)
{
    kvcl_cache_stats st;
    kvcl_session_cache_stats(r->session, &st);
    const kvcl_tier_stats *t = &st.tiers[st.n_tiers - 1];
    ck_assert(t->error_learned > 0 && t->error_now > 0);
    return t->n_refreshes;
}

/* Two prompts, then tokens one by one. */
static float *play(test_dev *d, rig *r)
{
    float *logits = calloc(N_DECODE * V, sizeof *logits);
    int32_t tokens[2 * N_PROMPT];
    rig_tokens(tokens, 0, 2 * N_PROMPT);
    for (int i = 0; i < 2; i++)
        rig_ok(d, kvcl_session_prefill(r->session, tokens + i * N_PROMPT, N_PROMPT, 0, NULL, NULL,
                                       NULL));
    rig_decode(d, r->session, 2 * N_PROMPT, N_DECODE, logits);
    return logits;
}

/* One and the same decision on every row, wherever the tier lives, however prompts are cut, and
 * with a second queue at hand. */
START_TEST(bases_that_follow_the_text)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows), step = test_small() ? n_rows : 3;
    kvcl_session_options opt = rig_tiers(NULL, AGAIN, 704);
    rig_tier_model(false, 2);
    rig r = rig_open(test_reference(), &opt);
    float *want = play(test_reference(), &r);
    uint32_t n = refreshes(&r);
    rig_close(&r);
    ck_assert_uint_gt(n, 0);
    for (size_t i = 0; i < n_rows; i += step) {
        test_dev *d = &rows[i];
        kvcl_dev *other = NULL;
        rig_ok(d, kvcl_device_open(d->ctx, "cpu:scalar", &other));
        opt.n_batch = i % 2 ? 7 : 512;
        opt.tiers[0].tokens = 64;
        opt.tiers[1].dev = i % 2 ? NULL : other;
        opt.tiers[1].on_disk = i % 2;
        setenv("KVCL_SECOND_QUEUE", "1", 1);
        r = rig_open(d, &opt);
        unsetenv("KVCL_SECOND_QUEUE");
        float *got = play(d, &r);
        ck_assert_uint_eq(refreshes(&r), n);
        rig_same(d->row, want, got, N_DECODE * V);
        free(got);
        rig_close(&r);
        kvcl_device_close(other);
    }
    free(want);
}
END_TEST

/* A tier that keeps few tokens learns from those that it has, wherever it is. */
START_TEST(bases_of_a_warm_tier)
{
    test_dev *d = rig_last_row();
    kvcl_session_options opt = rig_tiers(AGAIN, "quant4", 704);
    kvcl_dev *other = NULL;
    kvcl_cache_stats st;
    rig_tier_model(false, 2);
    rig r = rig_open(d, &opt);
    float *want = play(d, &r);
    kvcl_session_cache_stats(r.session, &st);
    ck_assert_uint_gt(st.tiers[1].n_refreshes, 0);
    rig_close(&r);
    rig_ok(d, kvcl_device_open(d->ctx, "cpu:scalar", &other));
    opt.tiers[1].dev = other;
    r = rig_open(d, &opt);
    float *got = play(d, &r);
    rig_same("warm", want, got, N_DECODE * V);
    rig_close(&r);
    kvcl_device_close(other);
    free(want);
    free(got);
}
END_TEST

/* Without it there is none; from nothing and in a fork all is as it was. */
START_TEST(what_was_measured_goes_along)
{
    test_dev *d = rig_last_row();
    kvcl_session_options opt = rig_tiers(NULL, AGAIN, 704);
    kvcl_session *copy;
    kvcl_cache_stats st;
    rig_tier_model(false, 2);
    rig r = rig_open(d, &opt);
    float *want = play(d, &r), *got;
    uint32_t n = refreshes(&r);
    rig_ok(d, kvcl_session_rewind(r.session, 0));
    got = rig_play(d, r.session, N_PROMPT, 1, 10);
    free(got);
    rig_ok(d, kvcl_session_fork(r.session, &copy));
    got = calloc(N_DECODE * V, sizeof *got);
    float *other = calloc(N_DECODE * V, sizeof *other);
    rig_decode(d, r.session, N_PROMPT + 10, N_DECODE, got);
    rig_decode(d, copy, N_PROMPT + 10, N_DECODE, other);
    rig_same("fork", got, other, N_DECODE * V);
    kvcl_session_free(r.session);
    r.session = copy;
    ck_assert_uint_gt(refreshes(&r), 0);
    rig_ok(d, kvcl_session_rewind(r.session, 0));
    free(got);
    got = play(d, &r);
    rig_same("from nothing", want, got, N_DECODE * V);
    ck_assert_uint_eq(refreshes(&r), n);
    rig_close(&r);
    free(got);
    opt.tiers[1].codec = "superpose4-2/first128";
    r = rig_open(d, &opt);
    got = play(d, &r);
    kvcl_session_cache_stats(r.session, &st);
    ck_assert(st.tiers[1].n_refreshes == 0 && st.tiers[1].error_learned == 0);
    ck_assert(memcmp(want, got, N_DECODE * V * sizeof *got) != 0);
    rig_close(&r);
    free(want);
    free(got);
    free(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("basis");
    TCase *c = tcase_create("basis");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_add_test(c, names);
    tcase_add_test(c, a_basis_of_the_first_tokens);
    tcase_add_test(c, bases_that_follow_the_text);
    if (!test_small()) {
        tcase_add_test(c, a_shared_prompt_of_several_bases);
        tcase_add_test(c, bases_of_a_warm_tier);
        tcase_add_test(c, what_was_measured_goes_along);
    }
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
