/* test_status.c - statuses: sentences, exit codes, the error sentence of a context, the log. */
#include "test.h"

#include "log.h"

#include <stdio.h>

static const struct {
    kvcl_status st;
    int exit_code;
} table[] = {
    {KVCL_OK, 0},           {KVCL_E_ARG, 2},
    {KVCL_E_MEM, 6},        {KVCL_E_DEVICE_MEM, 6},
    {KVCL_E_DEVICE, 5},     {KVCL_E_BUILD, 5},
    {KVCL_E_FORMAT, 3},     {KVCL_E_VERSION, 3},
    {KVCL_E_NO_DEVICE, 5},  {KVCL_E_UNSUPPORTED, 1},
    {KVCL_E_IO, 1},         {KVCL_E_FULL, 1},
    {KVCL_E_DIFFERS, 7},    {KVCL_E_INTERRUPTED, 130},
    {KVCL_E_NOT_FINITE, 1},
};

#define COUNT(name, value, sentence, exit_code) +1
static const size_t n_statuses = 0 KVCL_STATUS_LIST(COUNT);
#undef COUNT

START_TEST(every_status_has_sentence_and_exit_code)
{
    ck_assert_uint_eq(n_statuses, kvcl_array_len(table));
    for (size_t i = 0; i < kvcl_array_len(table); i++) {
        const char *sentence = kvcl_status_string(table[i].st);
        ck_assert_int_eq(kvcl_status_exit_code(table[i].st), table[i].exit_code);
        ck_assert_uint_ge(strlen(sentence), 5);
        ck_assert_str_ne(sentence, "unknown status");
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(sentence, kvcl_status_string(table[k].st));
        ck_assert(table[i].st == KVCL_OK || table[i].st < 0);
    }
    ck_assert_str_eq(kvcl_status_string((kvcl_status)12345), "unknown status");
    ck_assert_int_eq(kvcl_status_exit_code((kvcl_status)12345), 1);
}
END_TEST

START_TEST(sentence_of_the_last_failure)
{
    kvcl_ctx *ctx, *other;
    char longest[3000];
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    ck_assert_int_eq(kvcl_ctx_create(NULL, &other), KVCL_OK);
    ck_assert_str_eq(kvcl_last_error(ctx), "");
    ck_assert_int_eq(kvcl_fail(ctx, KVCL_E_IO, "disk %d is %s", 3, "full"), KVCL_E_IO);
    ck_assert_str_eq(kvcl_last_error(ctx), "disk 3 is full");
    ck_assert_str_eq(kvcl_last_error(other), "");
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    ck_assert_int_eq(kvcl_fail(ctx, KVCL_E_ARG, "%s", longest), KVCL_E_ARG);
    ck_assert_uint_ge(strlen(kvcl_last_error(ctx)), 500);
    ck_assert_int_eq(kvcl_fail(NULL, KVCL_E_FULL, "nobody hears"), KVCL_E_FULL);
    ck_assert_str_eq(kvcl_last_error(NULL), "");
    kvcl_ctx_free(ctx);
    kvcl_ctx_free(other);
    kvcl_ctx_free(NULL);
}
END_TEST

static kvcl_status checks(kvcl_ctx *ctx, int value, int *n_after)
{
    KVCL_CHECK(ctx, value > 0, KVCL_E_ARG, "value %d", value);
    KVCL_TRY(value > 1 ? KVCL_OK : KVCL_E_FULL);
    (*n_after)++;
    return KVCL_OK;
}

START_TEST(check_and_try_leave_with_the_status)
{
    kvcl_ctx *ctx;
    int n_after = 0;
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    ck_assert_int_eq(checks(ctx, 0, &n_after), KVCL_E_ARG);
    ck_assert_str_eq(kvcl_last_error(ctx), "value 0");
    ck_assert_int_eq(checks(ctx, 1, &n_after), KVCL_E_FULL);
    ck_assert_int_eq(n_after, 0);
    ck_assert_int_eq(checks(ctx, 2, &n_after), KVCL_OK);
    ck_assert_int_eq(n_after, 1);
    kvcl_ctx_free(ctx);
}
END_TEST

typedef struct heard {
    int n[4];
    char last[256];
} heard;

static void listen(void *user, kvcl_log_level level, const char *message)
{
    heard *h = user;
    h->n[level]++;
    snprintf(h->last, sizeof h->last, "%s", message);
}

START_TEST(log_keeps_its_level)
{
    kvcl_ctx *ctx;
    heard h = {0};
    kvcl_ctx_options opt = {.log = listen, .log_user = &h, .log_level = KVCL_LOG_INFO};
    ck_assert_int_eq(kvcl_ctx_create(&opt, &ctx), KVCL_OK);
    memset(&h, 0, sizeof h);
    kvcl_log_debug(ctx, "too fine");
    kvcl_log_info(ctx, "about %d", 7);
    ck_assert_str_eq(h.last, "about 7");
    kvcl_log_warn(ctx, "careful");
    ck_assert_int_eq(h.n[KVCL_LOG_DEBUG], 0);
    ck_assert_int_eq(h.n[KVCL_LOG_INFO], 1);
    ck_assert_int_eq(h.n[KVCL_LOG_WARN], 1);
    kvcl_log_warn(NULL, "nobody hears");
    kvcl_ctx_free(ctx);
}
END_TEST

START_TEST(op_names)
{
    ck_assert_str_eq(kvcl_op_name(KVCL_OP_ID_matvec), "matvec");
    ck_assert_str_eq(kvcl_op_name(KVCL_OP_ID_attn_merge), "attn_merge");
    ck_assert_str_eq(kvcl_op_name(KVCL_N_OPS), "?");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *c = tcase_create("status");
    tcase_add_test(c, every_status_has_sentence_and_exit_code);
    tcase_add_test(c, sentence_of_the_last_failure);
    tcase_add_test(c, check_and_try_leave_with_the_status);
    tcase_add_test(c, log_keeps_its_level);
    tcase_add_test(c, op_names);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
