/* test_session.c - whole sessions on tiny models: the same bits on every row of the device table
 * and for every split of the prompt; nothing allocated while decoding; rewinding; a full context.
 */
#define _POSIX_C_SOURCE 200809L

#include "rig.h"

#include <stdio.h>
#include <stdlib.h>

#define V TINY_VOCAB

/* A raw cache. */
static rig raw_open(test_dev *d, uint32_t n_ctx, uint32_t n_batch, kvcl_type cache)
{
    kvcl_session_options opt = {
        .n_ctx = n_ctx, .n_batch = n_batch, .type_k = cache, .type_v = cache};
    return rig_open(d, &opt);
}

static float *play(test_dev *d, rig *r, uint32_t n, uint32_t n_logits, uint32_t n_decode)
{
    return rig_play(d, r->session, n, n_logits, n_decode);
}

/* All finite, and not all the same. */
static void check_sane(const float *logits, size_t n)
{
    float lo = logits[0], hi = logits[0];
    for (size_t i = 0; i < n; i++) {
        test_require(logits[i] > -1e4f && logits[i] < 1e4f, "logit %zu is %g", i,
                     (double)logits[i]);
        lo = logits[i] < lo ? logits[i] : lo;
        hi = logits[i] > hi ? logits[i] : hi;
    }
    test_require(hi - lo > 0.1f, "all logits are %g", (double)lo);
}

static tiny_model model_number(int i)
{
    kvcl_type type = test_types[i / 2 % TEST_N_TYPES];
    return i % 2 ? tiny_gpt2(type) : tiny_llama(type);
}

/* ---- the same bits everywhere -------------------------------------------------------------- */

START_TEST(every_row_has_the_twins_bits)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    bool small = test_small();
    uint32_t n = small ? 5 : 70, n_logits = small ? 2 : 70, n_decode = small ? 2 : 20;
    tiny_model m = model_number(_i);
    tiny_model_write(&m, rig_path());
    rig ref = raw_open(test_reference(), 128, 0, _i % 3 ? KVCL_F16 : KVCL_F32);
    float *want = play(test_reference(), &ref, n, n_logits, n_decode);
    check_sane(want, (size_t)(n_logits + n_decode) * V);
    for (size_t i = 0; i < n_rows; i++) {
        rig r = raw_open(&rows[i], 128, 0, _i % 3 ? KVCL_F16 : KVCL_F32);
        float *got = play(&rows[i], &r, n, n_logits, n_decode);
        rig_same(rows[i].row, want, got, (size_t)(n_logits + n_decode) * V);
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
    bool small = test_small();
    const uint32_t n = small ? 9 : 200, n_logits = small ? 2 : 5, n_decode = small ? 1 : 4;
    test_dev *rows, *d;
    test_rows(&rows);
    d = &rows[0];
    tiny_model m = _i ? tiny_gpt2(KVCL_Q5_0) : tiny_llama(KVCL_F16);
    tiny_model_write(&m, rig_path());
    float *want = NULL;
    for (size_t i = 0; i < kvcl_array_len(batches); i++) {
        if (i > 0 && batches[i] > n) /* as the first */
            continue;
        rig r = raw_open(d, 256, batches[i], KVCL_F16);
        float *got = play(d, &r, n, n_logits, n_decode);
        if (want)
            rig_same("split", want, got, (n_logits + n_decode) * V);
        else
            want = got;
        if (want != got)
            free(got);
        rig_close(&r);
    }
    /* several prefills in a row */
    rig r = raw_open(d, 256, 64, KVCL_F16);
    int32_t tokens[256];
    float *last = calloc(n_logits * V, sizeof *last);
    rig_tokens(tokens, 0, n);
    for (uint32_t at = 0, step = 1; at < n; at += step, step = step * 2 + 1) {
        step = kvcl_min_u32(step, n - at);
        uint32_t rows_now = at + step == n ? kvcl_min_u32(n_logits, step) : 0;
        rig_ok(d, kvcl_session_prefill(r.session, tokens + at, step, rows_now,
                                       last + (n_logits - rows_now) * V, NULL, NULL));
    }
    rig_same("prefills in a row", want + (n_logits - 1) * V, last + (n_logits - 1) * V, V);
    free(last);
    free(want);
    rig_close(&r);
}
END_TEST

START_TEST(logits_do_not_depend_on_how_many_are_asked)
{
    test_dev *rows, *d;
    test_rows(&rows);
    d = &rows[0];
    tiny_model m = tiny_llama(KVCL_Q8_0);
    tiny_model_write(&m, rig_path());
    rig r = raw_open(d, 128, 16, KVCL_F16);
    float *all = play(d, &r, 40, 40, 0), *few;
    rig_ok(d, kvcl_session_rewind(r.session, 0));
    few = play(d, &r, 40, 3, 0);
    rig_same("3 of 40", all + 37 * V, few, 3 * V);
    free(few);
    rig_ok(d, kvcl_session_rewind(r.session, 0));
    few = play(d, &r, 40, 0, 1);
    free(few);
    free(all);
    rig_close(&r);
}
END_TEST

/* ---- memory -------------------------------------------------------------------------------- */

START_TEST(nothing_is_allocated_after_creation)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    tiny_model m = tiny_llama(KVCL_Q4_0);
    tiny_model_write(&m, rig_path());
    for (size_t i = 0; i < n_rows; i++) {
        test_dev *d = &rows[i];
        uint64_t n_live = kvcl_ctx_mem_stats(d->ctx).n_live;
        rig r = raw_open(d, 512, 32, KVCL_F16);
        uint64_t n_allocs = kvcl_ctx_mem_stats(d->ctx).n_allocs;
        float *logits = calloc(V, sizeof *logits);
        int32_t tokens[80];
        rig_tokens(tokens, 0, 80);
        rig_ok(d, kvcl_session_prefill(r.session, tokens, 80, 1, logits, NULL, NULL));
        for (uint32_t k = 0; k < 100; k++)
            rig_ok(d, kvcl_session_decode(r.session, rig_token(k), logits));
        test_require(kvcl_ctx_mem_stats(d->ctx).n_allocs == n_allocs, "%s: %llu allocations",
                     d->row, (unsigned long long)(kvcl_ctx_mem_stats(d->ctx).n_allocs - n_allocs));
        free(logits);
        rig_close(&r);
        test_require(kvcl_ctx_mem_stats(d->ctx).n_live == n_live, "%s: blocks are left", d->row);
    }
}
END_TEST

START_TEST(cache_bytes_are_what_is_allocated)
{
    test_dev *rows;
    test_rows(&rows);
    tiny_model m = tiny_llama(KVCL_F16);
    tiny_model_write(&m, rig_path());
    /* 130 tokens: 3 pages of 64; 2 layers, K and V, 2 heads of 16 */
    uint64_t elems = 3 * 64 * 2 * 2 * 2 * 16;
    rig half = raw_open(&rows[0], 130, 0, KVCL_F16), full = raw_open(&rows[0], 130, 0, KVCL_F32);
    ck_assert_uint_eq(kvcl_session_cache_bytes(half.session), 2 * elems);
    ck_assert_uint_eq(kvcl_session_cache_bytes(full.session), 4 * elems);
    ck_assert_uint_eq(kvcl_session_n_ctx(half.session), 130);
    rig_close(&half);
    rig_close(&full);
}
END_TEST

/* ---- rewinding, limits, wrong arguments ---------------------------------------------------- */

START_TEST(rewound_tokens_leave_no_trace)
{
    test_dev *rows, *d;
    test_rows(&rows);
    d = &rows[0];
    tiny_model m = tiny_gpt2(KVCL_F16);
    tiny_model_write(&m, rig_path());
    rig r = raw_open(d, 256, 32, KVCL_F16);
    float *want = play(d, &r, 60, 1, 10), *got = calloc(V, sizeof *got);
    rig_ok(d, kvcl_session_rewind(r.session, 40));
    for (uint32_t i = 0; i < 50; i++) /* other tokens over page boundaries */
        rig_ok(d, kvcl_session_decode(r.session, (int32_t)(i * 7 % V), got));
    rig_ok(d, kvcl_session_rewind(r.session, 60 - 20));
    int32_t tokens[60];
    rig_tokens(tokens, 0, 60);
    rig_ok(d, kvcl_session_prefill(r.session, tokens + 40, 20, 1, got, NULL, NULL));
    rig_same("prefill again", want, got, V);
    for (uint32_t i = 0; i < 10; i++) {
        rig_ok(d, kvcl_session_decode(r.session, rig_token(60 + i), got));
        rig_same("decode again", want + (1 + i) * V, got, V);
    }
    ck_assert_int_eq(kvcl_session_rewind(r.session, 71), KVCL_E_ARG);
    ck_assert_uint_eq(kvcl_session_n_tokens(r.session), 70);
    rig_ok(d, kvcl_session_rewind(r.session, 70));
    free(want);
    free(got);
    rig_close(&r);
}
END_TEST

START_TEST(a_full_context_takes_nothing)
{
    test_dev *rows, *d;
    test_rows(&rows);
    d = &rows[0];
    tiny_model m = tiny_llama(KVCL_F16);
    tiny_model_write(&m, rig_path());
    rig r = raw_open(d, 70, 32, KVCL_F16);
    int32_t tokens[71];
    float logits[V], again[V];
    rig_tokens(tokens, 0, 71);
    ck_assert_int_eq(kvcl_session_prefill(r.session, tokens, 71, 1, logits, NULL, NULL),
                     KVCL_E_FULL);
    ck_assert_uint_eq(kvcl_session_n_tokens(r.session), 0);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(d->ctx), "70"));
    rig_ok(d, kvcl_session_prefill(r.session, tokens, 70, 1, logits, NULL, NULL));
    ck_assert_int_eq(kvcl_session_decode(r.session, 1, again), KVCL_E_FULL);
    ck_assert_int_eq(kvcl_session_prefill(r.session, tokens, 1, 0, NULL, NULL, NULL), KVCL_E_FULL);
    ck_assert_uint_eq(kvcl_session_n_tokens(r.session), 70);
    rig_ok(d, kvcl_session_rewind(r.session, 60));
    rig_ok(d, kvcl_session_prefill(r.session, tokens + 60, 10, 1, again, NULL, NULL));
    rig_same("after E_FULL", logits, again, V);
    rig_close(&r);
}
END_TEST

static bool stop_at_once(void *user, uint32_t n_done, uint32_t n_total)
{
    uint32_t *calls = user;
    ck_assert_uint_le(n_done, n_total);
    (*calls)++;
    return false;
}

START_TEST(wrong_arguments_change_nothing)
{
    test_dev *rows, *d;
    test_rows(&rows);
    d = &rows[0];
    tiny_model m = tiny_llama(KVCL_F16);
    tiny_model_write(&m, rig_path());
    rig r = raw_open(d, 64, 8, KVCL_F16);
    int32_t tokens[20], bad[3] = {1, -1, 2};
    float logits[V];
    uint32_t calls = 0;
    rig_tokens(tokens, 0, 20);
    kvcl_session *s = r.session;
    ck_assert_int_eq(kvcl_session_prefill(s, bad, 3, 1, logits, NULL, NULL), KVCL_E_ARG);
    bad[1] = V;
    ck_assert_int_eq(kvcl_session_prefill(s, bad, 3, 1, logits, NULL, NULL), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_decode(s, (int32_t)V, logits), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_decode(s, -1, logits), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_prefill(s, tokens, 0, 0, NULL, NULL, NULL), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_prefill(s, NULL, 3, 0, NULL, NULL, NULL), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_prefill(s, tokens, 3, 4, logits, NULL, NULL), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_prefill(s, tokens, 3, 1, NULL, NULL, NULL), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_session_prefill(s, tokens, 20, 1, logits, stop_at_once, &calls),
                     KVCL_E_INTERRUPTED);
    ck_assert_uint_eq(calls, 1);
    ck_assert_uint_eq(kvcl_session_n_tokens(s), 0);
    kvcl_session *none = NULL;
    kvcl_session_options opt = kvcl_session_defaults();
    opt.n_ctx = TINY_CTX + 1;
    ck_assert_int_eq(kvcl_session_create(r.engine, &opt, &none), KVCL_E_ARG);
    opt.n_ctx = 64;
    opt.type_k = KVCL_Q8_0;
    ck_assert_int_eq(kvcl_session_create(r.engine, &opt, &none), KVCL_E_UNSUPPORTED);
    ck_assert_ptr_null(none);
    kvcl_session_free(NULL);
    kvcl_engine_free(NULL);
    kvcl_model_close(NULL);
    rig_close(&r);
}
END_TEST

START_TEST(two_sessions_do_not_meet)
{
    test_dev *rows, *d;
    test_rows(&rows);
    d = &rows[0];
    tiny_model m = tiny_llama(KVCL_F16);
    tiny_model_write(&m, rig_path());
    rig a = raw_open(d, 128, 32, KVCL_F16), b = a;
    float *want = play(d, &a, 50, 1, 10), got[V];
    rig_ok(d, kvcl_session_rewind(a.session, 0));
    kvcl_session_options opt = kvcl_session_defaults();
    opt.n_ctx = 128;
    rig_ok(d, kvcl_session_create(a.engine, &opt, &b.session));
    int32_t tokens[50];
    rig_tokens(tokens, 0, 50);
    rig_ok(d, kvcl_session_prefill(a.session, tokens, 50, 0, NULL, NULL, NULL));
    rig_ok(d, kvcl_session_prefill(b.session, tokens + 5, 45, 0, NULL, NULL, NULL));
    for (uint32_t i = 0; i < 10; i++) {
        rig_ok(d, kvcl_session_decode(a.session, rig_token(50 + i), got));
        rig_same("session a", want + (1 + i) * V, got, V);
        rig_ok(d, kvcl_session_decode(b.session, (int32_t)i, got));
    }
    free(want);
    kvcl_session_free(b.session);
    rig_close(&a);
}
END_TEST

int main(void)
{
    bool small = test_small();
    Suite *suite = suite_create("session");
    TCase *c = tcase_create("session");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_add_loop_test(c, every_row_has_the_twins_bits, 0, small ? 2 : 2 * TEST_N_TYPES);
    tcase_add_loop_test(c, every_split_of_the_prompt, 0, small ? 1 : 2);
    if (!small) {
        tcase_add_test(c, logits_do_not_depend_on_how_many_are_asked);
        tcase_add_test(c, nothing_is_allocated_after_creation);
        tcase_add_test(c, cache_bytes_are_what_is_allocated);
        tcase_add_test(c, rewound_tokens_leave_no_trace);
        tcase_add_test(c, a_full_context_takes_nothing);
        tcase_add_test(c, wrong_arguments_change_nothing);
        tcase_add_test(c, two_sessions_do_not_meet);
    }
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
