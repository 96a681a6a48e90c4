/* test_tiers.c - sessions with coded tiers on tiny models: the same bits on every row, for every
 * split of the prompt and every placement of the tiers; fork and rewinding. */
#define _POSIX_C_SOURCE 200809L

#include "case.h"
#include "rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define V TINY_VOCAB
#define N_KINDS 3

static void check_finite(const float *logits, size_t n)
{
    for (size_t i = 0; i < n; i++)
        test_require(fabsf(logits[i]) < 1e4f, "logit %zu is %g", i, (double)logits[i]);
}

/* Rules of the cache that know nothing of codecs: half of the configurations for each, each one in
 * half of the tests. */
static bool is_tried(int config, size_t test) { return test_pairwise((size_t)config + test, 2); }

/* ---- the same bits ------------------------------------------------------------------------- */

START_TEST(every_row_has_the_twins_bits)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    uint32_t n = test_small() ? 76 : 270, n_decode = test_small() ? 1 : 6;
    /* small: quantised, in blocks (a gpt2), with learned bases; few tokens left the hot window */
    static const int kinds[N_KINDS] = {0, 2, 9};
    int i_config = test_small() ? kinds[_i] : _i;
    kvcl_session_options opt = rig_tiers(rig_configs[i_config][0], rig_configs[i_config][1], 512);
    rig_tier_model(i_config % 3 == 2, test_small() ? 1 : 2);
    rig ref = rig_open(test_reference(), &opt);
    float *want = rig_play(test_reference(), ref.session, n, 1, n_decode);
    check_finite(want, (size_t)(1 + n_decode) * V);
    for (size_t i = 0; i < n_rows; i++) {
        rig r = rig_open(&rows[i], &opt);
        float *got = rig_play(&rows[i], r.session, n, 1, n_decode);
        rig_same(rows[i].row, want, got, (size_t)(1 + n_decode) * V);
        free(got);
        rig_close(&r);
    }
    free(want);
    rig_close(&ref);
}
END_TEST

START_TEST(every_split_of_the_prompt)
{
    static const uint32_t batches[] = {512, 64, 7, 1};
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    float *want = NULL;
    for (size_t i = 0; i < kvcl_array_len(batches); i++) {
        kvcl_session_options opt = rig_tiers(rig_configs[_i][0], rig_configs[_i][1], 512);
        opt.n_batch = batches[i];
        rig r = rig_open(d, &opt);
        float *got = rig_play(d, r.session, 300, 1, 10);
        if (want)
            rig_same("split", want, got, 11 * V);
        if (want)
            free(got);
        else
            want = got;
        rig_close(&r);
    }
    free(want);
}
END_TEST

/* Tiers on the first row, on the reference device and on disk, in every arrangement. */
START_TEST(placement_changes_nothing)
{
    /* warm + 3 * cold: 0 here, 1 on the other device, 2 on disk */
    static const uint32_t places[] = {0, 1, 3, 4, 5, 6};
    test_dev *rows, *d;
    size_t n_rows = test_rows(&rows), step = n_rows > 3 ? 3 : 1;
    rig_tier_model(false, 2);
    for (size_t i = 0; i < n_rows; i += step) {
        d = &rows[i];
        kvcl_dev *other = NULL;
        rig_ok(d, kvcl_device_open(d->ctx, "cpu:scalar", &other));
        float *want = NULL;
        for (size_t k = 0; k < kvcl_array_len(places); k++) {
            uint32_t where = places[k];
            kvcl_session_options opt = rig_tiers("quant8", "quant3", 512);
            opt.tiers[1].dev = where % 3 == 1 ? other : NULL;
            opt.tiers[2].dev = where / 3 == 1 ? other : NULL;
            opt.tiers[1].on_disk = where % 3 == 2;
            opt.tiers[2].on_disk = where / 3 == 2;
            rig r = rig_open(d, &opt);
            float *got = rig_play(d, r.session, 330, 1, 80);
            if (want)
                rig_same(d->row, want, got, 81 * V);
            if (want)
                free(got);
            else
                want = got;
            rig_close(&r);
        }
        free(want);
        kvcl_device_close(other);
    }
}
END_TEST

/* Pages that are coded ahead, beside decoding, up to the last token of the context. */
START_TEST(a_second_queue_changes_nothing)
{
    if (!is_tried(_i, 0))
        return;
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    float *got[2];
    for (int second = 0; second < 2; second++) {
        setenv("KVCL_SECOND_QUEUE", second ? "1" : "0", 1);
        kvcl_session_options opt = rig_tiers(rig_configs[_i][0], rig_configs[_i][1], 512);
        opt.tiers[0].tokens = 128;
        rig r = rig_open(d, &opt);
        got[second] = rig_play(d, r.session, 270, 1, 242);
        rig_close(&r);
    }
    unsetenv("KVCL_SECOND_QUEUE");
    rig_same("second queue", got[0], got[1], 243 * V);
    free(got[0]);
    free(got[1]);
}
END_TEST

START_TEST(a_shared_prompt_is_each_ones_own)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options raw = kvcl_session_defaults(), a = rig_tiers(NULL, "quant4/post", 512),
                         b = rig_tiers("quant8", "quant2", 512);
    raw.n_ctx = 512;
    const kvcl_session_options *all[] = {&raw, &a, &b};
    float *want[3], got[3 * V];
    int32_t tokens[300];
    rig_tokens(tokens, 0, 300);
    rig r = rig_open(d, &raw);
    kvcl_session_free(r.session);
    kvcl_session *s[3];
    for (int i = 0; i < 3; i++) {
        rig_ok(d, kvcl_session_create(r.engine, all[i], &s[i]));
        want[i] = rig_play(d, s[i], 300, 1, 2);
        rig_ok(d, kvcl_session_rewind(s[i], 0));
    }
    rig_ok(d, kvcl_session_prefill_shared(s, 3, tokens, 300, 1, got, NULL, NULL));
    for (int i = 0; i < 3; i++) {
        rig_decode(d, s[i], 300, 2, got + V);
        rig_same("shared", want[i], got, 3 * V);
        free(want[i]);
        kvcl_session_free(s[i]);
    }
    r.session = NULL;
    rig_close(&r);
}
END_TEST

/* ---- positions ----------------------------------------------------------------------------- */

START_TEST(a_fork_goes_on_like_its_source)
{
    if (!is_tried(_i, 1))
        return;
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = rig_tiers(rig_configs[_i][0], rig_configs[_i][1], 512);
    rig r = rig_open(d, &opt);
    free(rig_play(d, r.session, 250, 1, 20));
    kvcl_session *copy;
    float *a = calloc(100 * V, sizeof *a), *b = calloc(100 * V, sizeof *b), other[V];
    rig_ok(d, kvcl_session_fork(r.session, &copy));
    for (uint32_t i = 0; i < 100; i++) {
        rig_decode(d, r.session, 270 + i, 1, a + i * V);
        rig_decode(d, copy, 270 + i, 1, b + i * V);
    }
    rig_same("fork", a, b, 100 * V);
    rig_ok(d, kvcl_session_decode(copy, 1, other));
    rig_decode(d, r.session, 370, 1, a);
    free(a);
    free(b);
    kvcl_session_free(copy);
    rig_close(&r);
}
END_TEST

START_TEST(rewinding_inside_the_hot_window)
{
    if (!is_tried(_i, 2))
        return;
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = rig_tiers(rig_configs[_i][0], rig_configs[_i][1], 512);
    opt.tiers[0].tokens = 128;
    rig r = rig_open(d, &opt);
    float *want = rig_play(d, r.session, 300, 1, 60), *got = calloc(60 * V, sizeof *got);
    /* to 340: the window of the tokens after it is still there */
    rig_ok(d, kvcl_session_rewind(r.session, 340));
    rig_decode(d, r.session, 340, 20, got);
    rig_same("again", want + 41 * V, got, 20 * V);
    ck_assert_int_eq(kvcl_session_rewind(r.session, 100), KVCL_E_ARG);
    ck_assert_uint_eq(kvcl_session_n_tokens(r.session), 360);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(d->ctx), "rewind to 0"));
    rig_ok(d, kvcl_session_rewind(r.session, 0));
    float *again = rig_play(d, r.session, 300, 1, 60);
    rig_same("from nothing", want, again, 61 * V);
    free(again);
    free(want);
    free(got);
    rig_close(&r);
}
END_TEST

/* A context that is full to the last token has coded nothing that it has no room for. */
START_TEST(a_full_context_keeps_its_first_pages)
{
    if (!is_tried(_i, 3))
        return;
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = rig_tiers(rig_configs[_i][0], rig_configs[_i][1], 512);
    rig wide = rig_open(d, &opt);
    float *want = calloc(20 * V, sizeof *want), *got = calloc(20 * V, sizeof *got);
    free(rig_play(d, wide.session, 320, 1, 0));
    rig_ok(d, kvcl_session_rewind(wide.session, 300));
    rig_decode(d, wide.session, 300, 20, want);
    opt.n_ctx = 320;
    rig full = rig_open(d, &opt);
    free(rig_play(d, full.session, 320, 1, 0));
    rig_ok(d, kvcl_session_rewind(full.session, 300));
    rig_decode(d, full.session, 300, 20, got);
    rig_same("full", want, got, 20 * V);
    free(want);
    free(got);
    rig_close(&wide);
    rig_close(&full);
}
END_TEST

static bool stop_at_third(void *user, uint32_t n_done, uint32_t n_total)
{
    uint32_t *calls = user;
    ck_assert_uint_le(n_done, n_total);
    return ++*calls < 3;
}

START_TEST(a_stopped_prompt_leaves_an_empty_session)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = rig_tiers(NULL, "quant4", 512);
    opt.n_batch = 64;
    rig r = rig_open(d, &opt);
    float *want = rig_play(d, r.session, 300, 1, 3);
    int32_t tokens[200];
    uint32_t calls = 0;
    rig_tokens(tokens, 0, 200);
    ck_assert_int_eq(kvcl_session_prefill(r.session, tokens, 200, 0, NULL, stop_at_third, &calls),
                     KVCL_E_INTERRUPTED);
    ck_assert_uint_eq(kvcl_session_n_tokens(r.session), 0);
    float *got = rig_play(d, r.session, 300, 1, 3);
    rig_same("after a stop", want, got, 4 * V);
    free(want);
    free(got);
    rig_close(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tiers");
    TCase *c = tcase_create("tiers");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_add_loop_test(c, every_row_has_the_twins_bits, 0, test_small() ? N_KINDS : rig_n_configs);
    if (!test_small()) {
        tcase_add_loop_test(c, every_split_of_the_prompt, 0, rig_n_configs);
        tcase_add_test(c, placement_changes_nothing);
        tcase_add_loop_test(c, a_second_queue_changes_nothing, 0, rig_n_configs);
        tcase_add_test(c, a_shared_prompt_is_each_ones_own);
        tcase_add_loop_test(c, a_fork_goes_on_like_its_source, 0, rig_n_configs);
        tcase_add_loop_test(c, rewinding_inside_the_hot_window, 0, rig_n_configs);
        tcase_add_loop_test(c, a_full_context_keeps_its_first_pages, 0, rig_n_configs);
        tcase_add_test(c, a_stopped_prompt_leaves_an_empty_session);
    }
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
