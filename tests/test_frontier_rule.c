/* test_frontier_rule.c - rules of kvcl frontier against their definitions; names of sketches and
 * rules.
 */
#include "cmd_frontier.h"
#include "test.h"

#include <math.h>

#define TOKENS 300u
#define SINKS 4u
#define HOT 10u

static kvcl_ctx *ctx;
static test_rng rng;

static void setup(void)
{
    rng = (test_rng){.seed = test_seed()};
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
}

static void teardown(void) { kvcl_ctx_free(ctx); }

/* ---- rules --------------------------------------------------------------------------------- */

typedef struct scene {
    kvcl_frontier_query q;
    kvcl_frontier_bound b;
    float score[TOKENS], low[TOKENS], high[TOKENS];
    double weight[TOKENS], sums[TOKENS + 1];
    uint32_t order[TOKENS], keys[TOKENS], spare[TOKENS];
    uint8_t kept[TOKENS];
} scene;

/* Scores, some of them equal, and bounds around them. */
static void scene_make(scene *s, double spread, double width)
{
    *s = (scene){.q = {.n = TOKENS, .begin = SINKS, .end = TOKENS - HOT, .max = -INFINITY}};
    for (uint32_t t = 0; t < TOKENS; t++) {
        s->score[t] = (float)(round(spread * test_normal(&rng) * 8) / 8);
        s->low[t] = s->score[t] - (float)(width * fabs((double)test_unit(&rng)));
        s->high[t] = s->score[t] + (float)(width * fabs((double)test_unit(&rng)));
        s->q.max = fmax(s->q.max, (double)s->score[t]);
    }
    for (uint32_t t = 0; t < TOKENS; t++)
        s->q.total += s->weight[t] = exp((double)s->score[t] - s->q.max);
    s->q.score = s->score;
    s->q.weight = s->weight;
    s->b = (kvcl_frontier_bound){s->low, s->high, s->order, s->sums};
    kvcl_frontier_bound_sort(&s->q, s->keys, s->spare, &s->b);
}

static float kth(const float *x, uint32_t n, uint32_t k)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t above = 0, same = 0;
        for (uint32_t j = 0; j < n; j++) {
            above += x[j] > x[i];
            same += x[j] == x[i];
        }
        if (above < k && above + same >= k)
            return x[i];
    }
    return -INFINITY;
}

static uint32_t n_kept(const scene *s)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < TOKENS; t++)
        n += s->kept[t];
    return n;
}

START_TEST(orders)
{
    scene s;
    scene_make(&s, 2, 1);
    for (uint32_t i = 0; i < TOKENS - HOT - SINKS; i++) {
        ck_assert_uint_ge(s.order[i], SINKS);
        ck_assert_uint_lt(s.order[i], TOKENS - HOT);
        if (i == 0)
            continue;
        const float a = s.high[s.order[i - 1]], b = s.high[s.order[i]];
        test_true(a > b || (a == b && s.order[i - 1] < s.order[i]));
        test_true(s.sums[i] < s.sums[i - 1]);
    }
}
END_TEST

START_TEST(best_tokens_stay)
{
    static const uint32_t ks[] = {1, 8, 32, 64, 290, 1000};
    for (uint32_t i = 0; i < 60; i++) {
        scene s;
        float known[TOKENS];
        const kvcl_frontier_rule rule = {.aim = KVCL_AIM_TOP, .k = ks[i % 6]};
        scene_make(&s, 1 + i % 3, 0.1 * (i % 10));
        const float best = kth(s.score, TOKENS, rule.k);
        for (uint32_t t = 0; t < TOKENS; t++)
            known[t] = t >= SINKS && t < TOKENS - HOT ? s.low[t] : s.score[t];
        const float threshold = kth(known, TOKENS, rule.k);
        uint32_t n[2];
        for (uint32_t scan = 0; scan < 2; scan++) {
            kvcl_frontier_cell cell = {0};
            kvcl_frontier_apply(&rule, scan, &s.q, &s.b, s.kept);
            for (uint32_t t = SINKS; t < TOKENS - HOT; t++) {
                test_true(s.kept[t] || s.score[t] < best);
                test_true(s.kept[t] == (s.high[t] >= (scan ? best : threshold)));
            }
            n[scan] = n_kept(&s);
            kvcl_frontier_count(&rule, true, 0, &s.q, s.kept, &cell);
            ck_assert_uint_eq(cell.n_broken, 0);
        }
        ck_assert_uint_le(n[1], n[0]);
    }
}
END_TEST

START_TEST(mass_stays)
{
    for (uint32_t i = 0; i < 60; i++) {
        scene s;
        const kvcl_frontier_rule rule = {.aim = KVCL_AIM_MASS, .value = i % 2 ? 0.01 : 0.2};
        scene_make(&s, 1 + i % 3, i % 5 == 4 ? 900 : 0.3 * (i % 5));
        for (uint32_t scan = 0; scan < 2; scan++) {
            kvcl_frontier_cell cell = {0};
            const double c = kvcl_frontier_apply(&rule, scan, &s.q, &s.b, s.kept);
            double lost = 0;
            for (uint32_t t = SINKS; t < TOKENS - HOT; t++)
                lost += s.kept[t] ? 0 : s.weight[t] / s.q.total;
            test_true(lost <= c);
            test_true(c <= rule.value * (1 + 1e-9));
            if (i % 5 == 0 && !scan) /* exact bounds: one more would be too many */
                test_true(lost + s.weight[s.order[n_kept(&s) - 1]] / s.q.total > rule.value);
            kvcl_frontier_count(&rule, true, c, &s.q, s.kept, &cell);
            ck_assert_uint_eq(cell.n_broken, 0);
        }
    }
}
END_TEST

/* Bounds that are wrong make rules that lose what they promised: that must be seen. */
START_TEST(broken_promises_are_seen)
{
    scene s;
    uint64_t n_top = 0, n_mass = 0;
    for (uint32_t i = 0; i < 20; i++) {
        const kvcl_frontier_rule top = {.aim = KVCL_AIM_TOP, .k = 8},
                                 mass = {.aim = KVCL_AIM_MASS, .value = 0.01};
        kvcl_frontier_cell a = {0}, b = {0}, c = {0};
        scene_make(&s, 2, 0.1);
        for (uint32_t t = 0; t < TOKENS; t++)
            s.high[t] -= 4;
        kvcl_frontier_bound_sort(&s.q, s.keys, s.spare, &s.b);
        kvcl_frontier_apply(&top, false, &s.q, &s.b, s.kept);
        kvcl_frontier_count(&top, true, 0, &s.q, s.kept, &a);
        n_top += a.n_broken;
        kvcl_frontier_count(&top, false, 0, &s.q, s.kept, &b);
        ck_assert_uint_eq(b.n_broken, 0); /* no promise */
        const double x = kvcl_frontier_apply(&mass, true, &s.q, &s.b, s.kept);
        kvcl_frontier_count(&mass, true, x, &s.q, s.kept, &c);
        n_mass += c.n_broken;
    }
    ck_assert_uint_ge(n_top, 15);
    ck_assert_uint_ge(n_mass, 15);
}
END_TEST

/* ---- names --------------------------------------------------------------------------------- */

START_TEST(names)
{
    kvcl_frontier_spec specs[KVCL_FRONTIER_SKETCHES];
    kvcl_frontier_rule rules[KVCL_FRONTIER_RULES];
    uint32_t n;
    static const char *const bad_specs[] = {"",          "lm5",     "lm",     "pca0",
                                            "pca8/int2", "box1",    "rp",     "pca8,pca8",
                                            "pca8,",     "lm2/mid", "oracle1"};
    static const char *const bad_rules[] = {"",      "topk0",   "topk2000", "mass0",
                                            "mass1", "z0",      "theta",    "mass.1,",
                                            "topkx", "massnan", "z1e999"};
    ck_assert_int_eq(kvcl_frontier_specs_read(
                         ctx, "oracle,rp16,pca32/int4,lm2,lm3/post,box4,kmeans16", specs, &n),
                     KVCL_OK);
    ck_assert_uint_eq(n, 7);
    ck_assert_double_eq(kvcl_frontier_spec_bytes(&specs[6], 128), 33);
    ck_assert_double_eq(kvcl_frontier_spec_bytes(&specs[1], 128), 32);
    ck_assert_double_eq(kvcl_frontier_spec_bytes(&specs[2], 128), 18);
    ck_assert_double_eq(kvcl_frontier_spec_bytes(&specs[3], 128), 35);
    ck_assert_double_eq(kvcl_frontier_spec_bytes(&specs[4], 128), 51);
    ck_assert_double_eq(kvcl_frontier_spec_bytes(&specs[5], 128), 128);
    ck_assert_int_eq(kvcl_frontier_rules_read(ctx, "topk32,mass.5/z2,z3,theta-1.5", rules, &n),
                     KVCL_OK);
    ck_assert_double_eq(rules[1].z, 2);
    ck_assert_double_eq(rules[2].value, 0.01);
    ck_assert_double_eq(rules[3].value, -1.5);
    for (size_t i = 0; i < kvcl_array_len(bad_specs); i++)
        test_require(kvcl_frontier_specs_read(ctx, bad_specs[i], specs, &n) == KVCL_E_ARG,
                     "'%s' is taken for sketches", bad_specs[i]);
    for (size_t i = 0; i < kvcl_array_len(bad_rules); i++)
        test_require(kvcl_frontier_rules_read(ctx, bad_rules[i], rules, &n) == KVCL_E_ARG,
                     "'%s' is taken for rules", bad_rules[i]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("frontier_rule");
    TCase *c = tcase_create("frontier");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, orders);
    tcase_add_test(c, best_tokens_stay);
    tcase_add_test(c, mass_stays);
    tcase_add_test(c, broken_promises_are_seen);
    tcase_add_test(c, names);
    suite_add_tcase(s, c);
    return test_main(s, false);
}
