/* test_eval_stats.c - the figures of kvcl eval on distributions whose figures are known. */
#include "cmd_eval_stats.h"
#include "test.h"

#include <math.h>

static void near(double got, double want, double tolerance)
{
    ck_assert_msg(fabs(got - want) <= tolerance, "%.17g, expected %.17g", got, want);
}

START_TEST(kl_of_known_distributions)
{
    /* p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), each logit shifted by a constant, which changes
     * nothing: KL = 1/2 ln 2 + 1/4 ln 1 + 1/4 ln 1/2 = 1/4 ln 2 */
    const float p[3] = {(float)log(2) + 5, 5, 5}, q[3] = {-7, -7, (float)log(2) - 7};
    near(kvcl_stats_kl(p, q, 3), 0.25 * log(2), 1e-6);
    near(kvcl_stats_kl(q, p, 3), 0.25 * log(2), 1e-6);
    ck_assert_double_eq(kvcl_stats_kl(p, p, 3), 0);
    /* a coin of probability s(x) against a fair one: ln 2 - H(s(x)); here x = ln 3, s = 3/4 */
    const float coin[2] = {(float)log(3), 0}, fair[2] = {0, 0};
    double h = -0.75 * log(0.75) - 0.25 * log(0.25);
    near(kvcl_stats_kl(coin, fair, 2), log(2) - h, 1e-7);
    /* not symmetric: -1/2 ln(3/4) - 1/2 ln(1/4) - ln 2 */
    near(kvcl_stats_kl(fair, coin, 2), -0.5 * log(0.75) - 0.5 * log(0.25) - log(2), 1e-7);
}
END_TEST

/* Small differences are what is measured: a logit moved by e costs p (1 - p) e^2 / 2. */
START_TEST(kl_of_tiny_differences)
{
    float p[100], q[100];
    for (int i = 0; i < 100; i++)
        p[i] = q[i] = 3;
    q[17] += 0x1p-10f;
    const double e = 0x1p-10, want = 0.01 * 0.99 * e * e / 2;
    near(kvcl_stats_kl(p, q, 100) / want, 1, 2e-3);
}
END_TEST

START_TEST(kl_of_extremes)
{
    /* what softmax makes 0 counts nothing; large logits do not overflow */
    const float p[3] = {1e4f, 0, -1e4f}, q[3] = {1e4f, -1e4f, 0}, bad[3] = {0, NAN, 0};
    near(kvcl_stats_kl(p, q, 3), 0, 1e-300);
    ck_assert(!isfinite(kvcl_stats_kl(p, bad, 3)));
    ck_assert(!isfinite(kvcl_stats_kl(bad, p, 3)));
}
END_TEST

START_TEST(nll_and_argmax)
{
    const float x[4] = {0, 0, (float)log(2), 0};
    near(kvcl_stats_nll(x, 4, 2), log(2.5), 1e-7);
    near(kvcl_stats_nll(x, 4, 0), log(5), 1e-7);
    near(kvcl_stats_log_sum_exp(x, 4), log(5), 1e-7);
    ck_assert_uint_eq(kvcl_stats_argmax(x, 4), 2);
    const float same[3] = {1, 1, 1};
    ck_assert_uint_eq(kvcl_stats_argmax(same, 3), 0); /* as greedy decoding picks */
}
END_TEST

START_TEST(quantiles)
{
    double x[5] = {5, 1, 4, 2, 3}, one[1] = {7};
    kvcl_stats_sort(x, 5);
    for (int i = 0; i < 5; i++)
        ck_assert_double_eq(x[i], i + 1);
    ck_assert_double_eq(kvcl_stats_quantile(x, 5, 0), 1);
    ck_assert_double_eq(kvcl_stats_quantile(x, 5, 0.5), 3);
    ck_assert_double_eq(kvcl_stats_quantile(x, 5, 1), 5);
    near(kvcl_stats_quantile(x, 5, 0.99), 4.96, 1e-12); /* h = 3.96 */
    near(kvcl_stats_quantile(x, 4, 0.5), 2.5, 1e-12);
    ck_assert_double_eq(kvcl_stats_quantile(one, 1, 0.99), 7);
    ck_assert_double_eq(kvcl_stats_quantile(x, 0, 0.5), 0);
    ck_assert_double_eq(kvcl_stats_mean(x, 5), 3);
    ck_assert_double_eq(kvcl_stats_mean(x, 0), 0);
}
END_TEST

START_TEST(head_error)
{
    /* |a| = 5, |a - b| = 1: 0.2; |a| = 2, |a - b| = 2: 1; a = b = 0: 0; a = 0, b not: 1 */
    const float a[8] = {3, 4, 0, 2, 0, 0, 0, 0}, b[8] = {3, 5, 0, 0, 0, 0, 1, 0};
    near(kvcl_stats_head_error(a, b, 1, 2), 0.2, 1e-12);
    near(kvcl_stats_head_error(a, b, 2, 2), 0.6, 1e-12);
    near(kvcl_stats_head_error(a, b, 3, 2), 0.4, 1e-12);
    near(kvcl_stats_head_error(a, b, 4, 2), 0.55, 1e-12);
    near(kvcl_stats_head_error(a, a, 4, 2), 0, 0);
}
END_TEST

START_TEST(hashes)
{
    /* FNV-1a's published values */
    ck_assert_uint_eq(kvcl_stats_hash(KVCL_HASH_START, "", 0), UINT64_C(0xcbf29ce484222325));
    ck_assert_uint_eq(kvcl_stats_hash(KVCL_HASH_START, "a", 1), UINT64_C(0xaf63dc4c8601ec8c));
    ck_assert_uint_eq(kvcl_stats_hash(KVCL_HASH_START, "foobar", 6), UINT64_C(0x85944171f73967e8));
    ck_assert_uint_eq(kvcl_stats_hash(kvcl_stats_hash(KVCL_HASH_START, "foo", 3), "bar", 3),
                      UINT64_C(0x85944171f73967e8));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("eval_stats");
    TCase *t = tcase_create("eval_stats");
    tcase_add_test(t, kl_of_known_distributions);
    tcase_add_test(t, kl_of_tiny_differences);
    tcase_add_test(t, kl_of_extremes);
    tcase_add_test(t, nll_and_argmax);
    tcase_add_test(t, quantiles);
    tcase_add_test(t, head_error);
    tcase_add_test(t, hashes);
    suite_add_tcase(s, t);
    return test_main(s, false);
}
