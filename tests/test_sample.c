/* test_sample.c - the sampler: golden picks, each filter against a plain definition, penalties,
 * determinism, refusal of bad logits, no allocation per pick. */
#include "shared.h"
#include "test.h"

#include <float.h>
#include <stdlib.h>

#define V 1000

static kvcl_ctx *ctx;
static float logits[V];

static void setup(void)
{
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    /* of a fixed counter, not of the test's seed: the golden picks depend on them */
    for (unsigned i = 0; i < V; i++)
        logits[i] = 8.0f * kvcl_unit(kvcl_mix(i + 1));
}

static void teardown(void)
{
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

static kvcl_sampler *sampler(kvcl_sampler_options o)
{
    kvcl_sampler *s = NULL;
    ck_assert_msg(kvcl_sampler_create(ctx, &o, V, &s) == KVCL_OK, "%s", kvcl_last_error(ctx));
    return s;
}

static int32_t pick(kvcl_sampler *s)
{
    int32_t token = -1;
    ck_assert_msg(kvcl_sampler_pick(s, logits, &token) == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert(token >= 0 && token < V);
    return token;
}

static int by_logit(const void *a, const void *b)
{
    int i = *(const int *)a, j = *(const int *)b;
    if (logits[i] != logits[j])
        return logits[i] > logits[j] ? -1 : 1;
    return i - j;
}

/* Ids, best first. */
static void rank_all(int *order)
{
    for (int i = 0; i < V; i++)
        order[i] = i;
    qsort(order, V, sizeof *order, by_logit);
}

/* Picks often and marks what came. */
static void collect(kvcl_sampler_options o, int n, int *count)
{
    memset(count, 0, V * sizeof *count);
    kvcl_sampler *s = sampler(o);
    for (int i = 0; i < n; i++)
        count[pick(s)]++;
    kvcl_sampler_free(s);
}

START_TEST(greedy)
{
    int order[V];
    rank_all(order);
    kvcl_sampler *s = sampler((kvcl_sampler_options){.temp = 0, .repeat_penalty = 1, .top_p = 1});
    ck_assert_int_eq(pick(s), order[0]);
    ck_assert_int_eq(pick(s), order[0]);
    logits[order[0]] = logits[order[1]]; /* a tie goes to the lower id */
    ck_assert_int_eq(pick(s), order[0] < order[1] ? order[0] : order[1]);
    kvcl_sampler_free(s);
}
END_TEST

/* Computed by a plain double-precision program; any machine, compiler and option set must repeat
 * them. */
START_TEST(golden_picks)
{
    static const int32_t golden[3][12] = {
        {527, 445, 644, 288, 194, 610, 164, 863, 352, 39, 810, 433},
        {392, 14, 913, 575, 452, 273, 476, 311, 174, 421, 121, 962},
        {720, 869, 944, 863, 589, 725, 134, 679, 668, 314, 194, 507}};
    kvcl_sampler_options o[3] = {kvcl_sampler_defaults(), kvcl_sampler_defaults(),
                                 kvcl_sampler_defaults()};
    o[0].seed = 42;
    o[1].seed = 7;
    o[1].top_k = 0;
    o[1].top_p = 1;
    o[1].min_p = 0;
    o[1].temp = 1.5f;
    o[2].seed = UINT64_MAX;
    o[2].top_k = 0;
    o[2].repeat_penalty = 1.3f;
    o[2].repeat_last_n = 4;
    for (int k = 0; k < 3; k++) {
        kvcl_sampler *s = sampler(o[k]);
        for (int i = 0; i < 12; i++) {
            int32_t token = pick(s);
            test_require(token == golden[k][i], "options %d, pick %d: %d", k, i, token);
        }
        kvcl_sampler_free(s);
    }
}
END_TEST

START_TEST(top_k_keeps_the_best)
{
    int order[V], count[V];
    rank_all(order);
    for (int k = 1; k <= 64; k *= 4) {
        kvcl_sampler_options o = {.temp = 50, .top_k = k, .top_p = 1, .repeat_penalty = 1};
        collect(o, 4000, count);
        for (int i = 0; i < V; i++)
            test_require((count[order[i]] > 0) == (i < k), "k %d: rank %d came %d times", k, i,
                         count[order[i]]);
    }
}
END_TEST

START_TEST(top_p_keeps_the_mass)
{
    int order[V], count[V], n = 0;
    double total = 0, sum = 0;
    rank_all(order);
    for (int i = 0; i < V; i++)
        total += exp((double)logits[i]);
    while (sum < 0.3 * total)
        sum += exp((double)logits[order[n++]]);
    ck_assert_int_gt(n, 3);
    kvcl_sampler_options o = {.temp = 50, .top_p = 0.3f, .repeat_penalty = 1};
    collect(o, 200 * n, count);
    for (int i = 0; i < V; i++)
        test_require((count[order[i]] > 0) == (i < n), "rank %d of %d", i, n);
    o.top_p = 0; /* one token always stays */
    collect(o, 10, count);
    ck_assert_int_eq(count[order[0]], 10);
}
END_TEST

START_TEST(min_p_keeps_the_likely)
{
    int order[V], count[V], n = 0;
    rank_all(order);
    while (exp((double)(logits[order[n]] - logits[order[0]])) >= 0.7)
        n++;
    ck_assert_int_gt(n, 3);
    kvcl_sampler_options o = {.temp = 50, .top_p = 1, .min_p = 0.7f, .repeat_penalty = 1};
    collect(o, 200 * n, count);
    for (int i = 0; i < V; i++)
        test_require((count[order[i]] > 0) == (i < n), "rank %d of %d", i, n);
}
END_TEST

/* Frequencies of three tokens stay near their probabilities (5 sigma). */
START_TEST(frequencies)
{
    int count[V];
    for (int i = 0; i < V; i++)
        logits[i] = -INFINITY;
    logits[3] = 1;
    logits[500] = 0;
    logits[999] = -1;
    const int ids[3] = {3, 500, 999}, n = 20000;
    const double t = 0.7;
    kvcl_sampler_options o = {
        .temp = (float)t, .top_p = 1, .repeat_penalty = 1, .seed = test_seed()};
    collect(o, n, count);
    double z = exp(1 / t) + 1 + exp(-1 / t);
    for (int i = 0; i < 3; i++) {
        double p = exp((double)logits[ids[i]] / t) / z;
        double off = fabs((double)count[ids[i]] - n * p) / sqrt(n * p * (1 - p));
        test_require(off < 5, "token %d: %.1f sigma", ids[i], off);
    }
    ck_assert_int_eq(count[3] + count[500] + count[999], n);
}
END_TEST

START_TEST(penalty)
{
    int order[V];
    rank_all(order);
    kvcl_sampler_options o = {.temp = 0, .repeat_penalty = 1000, .repeat_last_n = 2, .top_p = 1};
    kvcl_sampler *s = sampler(o);
    kvcl_sampler_accept(s, order[0]); /* the prompt's token; others come from pick itself */
    ck_assert_int_eq(pick(s), order[1]);
    ck_assert_int_eq(pick(s), order[2]);
    ck_assert_int_eq(pick(s), order[0]); /* out of the window of two */
    kvcl_sampler_accept(s, -1);          /* no tokens of this vocabulary: ignored */
    kvcl_sampler_accept(s, V);
    kvcl_sampler_free(s);
    o.repeat_last_n = -1; /* all tokens */
    s = sampler(o);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(pick(s), order[i]);
    kvcl_sampler_free(s);
    o.repeat_last_n = 0; /* none */
    s = sampler(o);
    ck_assert_int_eq(pick(s), order[0]);
    ck_assert_int_eq(pick(s), order[0]);
    kvcl_sampler_free(s);
    for (int i = 0; i < V; i++) /* negative logits are multiplied */
        logits[i] = i == 5 ? -0.5f : -400.0f;
    o.repeat_last_n = 1;
    s = sampler(o);
    ck_assert_int_eq(pick(s), 5);
    ck_assert_int_eq(pick(s), 0);
    kvcl_sampler_free(s);
}
END_TEST

START_TEST(extreme_logits)
{
    int32_t token;
    for (int i = 0; i < V; i++)
        logits[i] = i == 77 ? FLT_MAX : -FLT_MAX;
    kvcl_sampler_options o = kvcl_sampler_defaults();
    o.repeat_penalty = 0.001f;
    o.top_k = 0;
    kvcl_sampler *s = sampler(o);
    ck_assert_int_eq(pick(s), 77);
    ck_assert_int_eq(pick(s), 77);
    static const float bad[] = {NAN, INFINITY};
    for (size_t k = 0; k < kvcl_array_len(bad); k++) {
        logits[V - 1] = bad[k];
        token = -5;
        ck_assert_int_eq(kvcl_sampler_pick(s, logits, &token), KVCL_E_ARG);
        ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "token 999"));
        ck_assert_int_eq(token, -5);
    }
    for (int i = 0; i < V; i++)
        logits[i] = -INFINITY;
    ck_assert_int_eq(kvcl_sampler_pick(s, logits, &token), KVCL_E_ARG);
    logits[4] = -3;
    ck_assert_int_eq(pick(s), 4);
    kvcl_sampler_free(s);
}
END_TEST

START_TEST(wrong_options)
{
    kvcl_sampler *s = NULL;
    const kvcl_sampler_options good = kvcl_sampler_defaults();
    kvcl_sampler_options bad[8] = {good, good, good, good, good, good, good, good};
    bad[0].temp = NAN;
    bad[1].top_p = 1.5f;
    bad[2].top_p = NAN;
    bad[3].min_p = -0.1f;
    bad[4].repeat_penalty = 0;
    bad[5].repeat_penalty = NAN;
    bad[6].repeat_last_n = -2;
    bad[7].temp = INFINITY;
    for (size_t i = 0; i < kvcl_array_len(bad); i++)
        ck_assert_int_eq(kvcl_sampler_create(ctx, &bad[i], V, &s), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_sampler_create(ctx, &good, 0, &s), KVCL_E_ARG);
    ck_assert_ptr_null(s);
    kvcl_sampler_free(NULL);
}
END_TEST

START_TEST(no_allocation_per_pick)
{
    kvcl_sampler_options o = kvcl_sampler_defaults();
    o.top_k = 0;
    kvcl_sampler *s = sampler(o);
    uint64_t before = kvcl_ctx_mem_stats(ctx).n_allocs;
    for (int i = 0; i < 100; i++)
        pick(s);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_allocs, before);
    kvcl_sampler_free(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sample");
    TCase *t = tcase_create("sample");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, greedy);
    tcase_add_test(t, golden_picks);
    tcase_add_test(t, top_k_keeps_the_best);
    tcase_add_test(t, top_p_keeps_the_mass);
    tcase_add_test(t, min_p_keeps_the_likely);
    tcase_add_test(t, frequencies);
    tcase_add_test(t, penalty);
    tcase_add_test(t, extreme_logits);
    tcase_add_test(t, wrong_options);
    tcase_add_test(t, no_allocation_per_pick);
    suite_add_tcase(s, t);
    return test_main(s, false);
}
