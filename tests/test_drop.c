/* test_drop.c - sessions whose last tier drops its oldest pages: what is dropped is not read, what
 * is left is, with the same bits on every row. */
#include "case.h"
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>

#define V TINY_VOCAB
#define N_CTX 512u
#define N_CONFIGS 4
#define KEPT 128u /* tokens of the last tier; the hot one has 64 */

static kvcl_session_options dropping(const char *warm, const char *cold)
{
    kvcl_session_options o = rig_tiers(warm, cold, N_CTX);
    o.drop_oldest = true;
    o.tiers[o.n_tiers - 1].tokens = KEPT;
    return o;
}

/* First token that is read besides the sinks by the query after n tokens. */
static uint32_t first_read(uint32_t n, uint32_t kept)
{
    return n + 1 - 64 > kept ? (n + 1 - 64 - kept) / 64 * 64 : 0;
}

/* Logits after n tokens of the text, token `other` of which is another one. */
static void logits_with(test_dev *d, kvcl_session *s, uint32_t n, uint32_t n_prompt, uint32_t other,
                        float *out)
{
    int32_t *tokens = calloc(n, sizeof *tokens);
    rig_tokens(tokens, 0, n);
    if (other < n)
        tokens[other] = tokens[other] == 5 ? 6 : 5;
    rig_ok(d, kvcl_session_rewind(s, 0));
    rig_ok(d, kvcl_session_prefill(s, tokens, n_prompt, 1, out, NULL, NULL));
    for (uint32_t i = n_prompt; i < n; i++)
        rig_ok(d, kvcl_session_decode(s, tokens[i], out));
    free(tokens);
}

/* In a model of one layer a token's row depends on that token alone. */
START_TEST(what_is_dropped_is_not_read)
{
    test_dev *d = rig_last_row();
    const uint32_t n = 420, n_prompt = _i ? 40 : 330, from = first_read(n - 1, KEPT);
    const uint32_t others[] = {0, 7, 8, from - 1, from, from + 70, n - 65, n - 2};
    rig_tier_model(false, 1);
    kvcl_session_options opt = dropping(NULL, "f16");
    rig r = rig_open(d, &opt);
    float want[V], got[V];
    logits_with(d, r.session, n, n_prompt, n, want);
    for (size_t i = 0; i < kvcl_array_len(others); i++) {
        bool read = others[i] < 8 || others[i] >= from;
        logits_with(d, r.session, n, n_prompt, others[i], got);
        test_require((memcmp(want, got, sizeof want) != 0) == read,
                     "token %u of %u, read from %u on: %s", others[i], n, from,
                     read ? "does not matter" : "matters");
    }
    rig_close(&r);
}
END_TEST

START_TEST(every_row_and_split)
{
    static const uint32_t batches[] = {512, 64, 7};
    static const int configs[N_CONFIGS] = {3, 7, 9, 11};
    const char *const *names = rig_configs[configs[_i]];
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    kvcl_session_options opt = dropping(names[0], names[1]);
    rig_tier_model(false, 2);
    rig ref = rig_open(test_reference(), &opt);
    float *want = rig_play(test_reference(), ref.session, 300, 1, 40);
    for (size_t i = 0; i < n_rows; i++) {
        opt.n_batch = batches[i % 3];
        rig r = rig_open(&rows[i], &opt);
        float *got = rig_play(&rows[i], r.session, 300, 1, 40);
        rig_same(rows[i].row, want, got, 41 * V);
        free(got);
        rig_close(&r);
    }
    free(want);
    rig_close(&ref);
}
END_TEST

/* As long as there is room, nothing differs; then figures and rewinding know what is gone. */
START_TEST(figures_and_rewinding)
{
    test_dev *d = rig_last_row();
    kvcl_session_options opt = dropping(NULL, "superpose4-2"), all = opt;
    kvcl_cache_stats st;
    all.drop_oldest = false;
    all.tiers[1].tokens = 0;
    rig_tier_model(false, 2);
    rig few = rig_open(d, &opt), many = rig_open(d, &all);
    uint32_t room = 64 + KEPT + 62; /* the next query reads all */
    float *want = rig_play(d, many.session, 150, 1, room - 150);
    float *got = rig_play(d, few.session, 150, 1, room - 150);
    rig_same("not full", want, got, (room - 149) * V);
    kvcl_session_cache_stats(few.session, &st);
    ck_assert_uint_eq(st.n_dropped, 0);
    ck_assert_uint_lt(kvcl_session_cache_bytes(few.session),
                      kvcl_session_cache_bytes(many.session));
    float *more = calloc(100 * V, sizeof *more);
    rig_decode(d, few.session, room, 100, more);
    free(more);
    kvcl_session_cache_stats(few.session, &st);
    uint32_t n = room + 100, from = first_read(n - 1, KEPT);
    ck_assert_uint_eq(st.n_dropped, from - 8);
    ck_assert_uint_eq(st.tiers[0].n_tokens + st.tiers[1].n_tokens, n - from);
    ck_assert_int_eq(kvcl_session_rewind(few.session, from - 1), KVCL_E_ARG);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(d->ctx), "dropped"));
    ck_assert_int_eq(kvcl_session_rewind(few.session, from + 1), KVCL_E_ARG);
    rig_ok(d, kvcl_session_rewind(few.session, n - 20));
    rig_ok(d, kvcl_session_rewind(few.session, 0));
    free(want);
    free(got);
    rig_close(&few);
    rig_close(&many);
    opt.tiers[1].codec = "spectral3/again1.5";
    kvcl_session *s;
    rig r = rig_open(d, &all);
    ck_assert_int_eq(kvcl_session_create(r.engine, &opt, &s), KVCL_E_UNSUPPORTED);
    rig_close(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("drop");
    TCase *c = tcase_create("drop");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_add_loop_test(c, what_is_dropped_is_not_read, 0, 2);
    tcase_add_loop_test(c, every_row_and_split, 0, N_CONFIGS);
    tcase_add_test(c, figures_and_rewinding);
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
