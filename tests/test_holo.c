/* test_holo.c - codec holo: which keys may be rotated as a whole and which are refused; the
 * matrices that it learns, against their definition. */
#include "codec.h"
#include "test.h"

#include "f16.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define D 64
#define HEADS 2

static kvcl_ctx *ctx;

static kvcl_codec_plan plan_of(const char *name, kvcl_rope_pairing pairing, uint32_t n_rot,
                               kvcl_status want)
{
    kvcl_kv_shape shape = {4, HEADS, D, n_rot, pairing, 0.125f};
    kvcl_codec_spec spec;
    kvcl_codec_plan plan;
    memset(&plan, 0, sizeof plan);
    ck_assert_int_eq(kvcl_codec_parse(ctx, name, &spec), KVCL_OK);
    ck_assert_int_eq(kvcl_codec_plan_make(ctx, &spec, &shape, &plan), want);
    return plan;
}

/* Signs that repeat every k channels are alike in pairs n_rot/2 apart when k divides that; in pairs
 * of neighbours never, unless each sign stands twice. */
START_TEST(even_boundary)
{
    for (uint32_t k = 2; k <= 8; k *= 2)
        for (uint32_t pair = 1; pair <= 2; pair++)
            for (uint32_t n_rot = 2; n_rot <= D; n_rot += 2) {
                kvcl_holo_shape s = {1,        D,    k,    pair, KVCL_HOLO_SIGNS,
                                     KVCL_F16, 1.0f, 1.0f, 0,    false};
                ck_assert(kvcl_holo_commutes(&s, KVCL_ROPE_NONE, n_rot));
                ck_assert(kvcl_holo_commutes(&s, KVCL_ROPE_ADJACENT, n_rot) == (pair == 2));
                if (pair == 1)
                    ck_assert(kvcl_holo_commutes(&s, KVCL_ROPE_HALVES, n_rot) ==
                              (n_rot / 2 % k == 0));
            }
    plan_of("holo8", KVCL_ROPE_HALVES, 48, KVCL_OK);
    plan_of("holo8-mmse", KVCL_ROPE_ADJACENT, 40, KVCL_OK);
    plan_of("holo8-chip", KVCL_ROPE_HALVES, 40, KVCL_OK);
    plan_of("holo8", KVCL_ROPE_HALVES, 40, KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "rotary pairs"));
    plan_of("holo8-mmse", KVCL_ROPE_HALVES, 40, KVCL_E_UNSUPPORTED);
    plan_of("factor-k8v32", KVCL_ROPE_HALVES, 40, KVCL_OK);
    plan_of("factor-k4v32", KVCL_ROPE_HALVES, 40, KVCL_E_UNSUPPORTED);
    plan_of("factor-k16v24", KVCL_ROPE_HALVES, 40, KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "ranks"));
}
END_TEST

/* Moments of rows with correlated channels: [2][HEADS][D][D]. */
static float *make_gram(void)
{
    float *gram = calloc((size_t)2 * HEADS * D * D, sizeof *gram);
    test_rng rng = {.seed = test_seed()};
    ck_assert_ptr_nonnull(gram);
    for (uint32_t part = 0; part < 2 * HEADS; part++)
        for (uint32_t row = 0; row < 500; row++) {
            float x[D];
            test_fill_f32(&rng, x, D, 1.0f);
            for (uint32_t d = 1; d < D; d++)
                x[d] = 0.7f * x[d - 1] + (float)(1 + d % 5) * x[d];
            for (uint32_t d = 0; d < D * D; d++)
                gram[(size_t)part * D * D + d] += x[d / D] * x[d % D];
        }
    return gram;
}

static uint16_t *learn(const kvcl_codec_plan *plan, const float *gram)
{
    uint16_t *out = calloc(plan->basis_bytes, 1);
    kvcl_codec_moments m = {.gram = gram, .n_slots = 500};
    ck_assert_ptr_nonnull(out);
    ck_assert_int_eq(plan->spec.ops->learn(ctx, plan, &m, out), KVCL_OK);
    return out;
}

static double sign(uint32_t j, uint32_t d, uint32_t k, uint32_t pair)
{
    return __builtin_parity(j & (d / pair % k)) ? -1.0 : 1.0;
}

/* Normal equations of the estimate of token j: W (sum over s of D_s C D_s) = C D_j, W = M D_j. */
static void check_estimate(const float *c, const uint16_t *m, uint32_t k, uint32_t pair)
{
    double a[D][D], top = 0.0;
    for (uint32_t d = 0; d < D; d++)
        for (uint32_t e = 0; e < D; e++) {
            a[d][e] = 0.0;
            for (uint32_t s = 0; s < k; s++)
                a[d][e] += sign(s, d, k, pair) * (double)c[d * D + e] * sign(s, e, k, pair);
            top = fmax(top, fabs((double)c[d * D + e]));
        }
    for (uint32_t j = 0; j < k; j++)
        for (uint32_t d = 0; d < D; d++)
            for (uint32_t e = 0; e < D; e++) {
                double sum = 0.0;
                for (uint32_t i = 0; i < D; i++)
                    sum += (double)kvcl_f16_to_f32(m[i * D + d]) * sign(j, i, k, pair) * a[i][e];
                double want = (double)c[d * D + e] * sign(j, e, k, pair);
                ck_assert_msg(fabs(sum - want) < 4e-3 * top, "token %u: %g, want %g", j, sum, want);
            }
}

START_TEST(estimates)
{
    static const char *const names[] = {"holo2-mmse", "holo4-mmse", "holo8-mmse"};
    float *gram = make_gram();
    for (uint32_t i = 0; i < 6; i++) {
        bool adjacent = i >= 3;
        kvcl_codec_plan plan =
            plan_of(names[i % 3], adjacent ? KVCL_ROPE_ADJACENT : KVCL_ROPE_HALVES, 32, KVCL_OK);
        uint16_t *m = learn(&plan, gram);
        ck_assert_uint_eq(plan.basis_bytes, 2 * HEADS * D * D * 2);
        for (uint32_t part = 0; part < 2 * HEADS; part++)
            check_estimate(gram + part * D * D, m + part * D * D, 2u << i % 3, adjacent ? 2 : 1);
        free(m);
    }
    free(gram);
}
END_TEST

#define KEPT (D / 4)

/* v C v / v v */
static double strength(const float *c, const double *v)
{
    double moment = 0.0, square = 0.0;
    for (uint32_t d = 0; d < D; d++) {
        square += v[d] * v[d];
        for (uint32_t e = 0; e < D; e++)
            moment += v[d] * v[e] * (double)c[d * D + e];
    }
    return moment / square;
}

/* Orthonormal, by falling strength, and no channel has more of it beside them. */
static void check_components(const float *c, double (*b)[D])
{
    for (uint32_t i = 0; i < KEPT; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            double dot = 0.0;
            for (uint32_t d = 0; d < D; d++)
                dot += b[i][d] * b[j][d];
            ck_assert_double_eq_tol(dot, i == j ? 1.0 : 0.0, 2e-3);
        }
        ck_assert(i == 0 || strength(c, b[i]) <= strength(c, b[i - 1]) * 1.001);
    }
    for (uint32_t channel = 0; channel < D; channel++) {
        double rest[D] = {0};
        rest[channel] = 1.0;
        for (uint32_t i = 0; i < KEPT; i++)
            for (uint32_t d = 0; d < D; d++)
                rest[d] -= b[i][channel] * b[i][d];
        ck_assert(strength(c, rest) <= strength(c, b[KEPT - 1]) * 1.001);
    }
}

START_TEST(components)
{
    float *gram = make_gram();
    kvcl_codec_plan plan = plan_of("holo4-chip", KVCL_ROPE_HALVES, 32, KVCL_OK);
    uint16_t *basis = learn(&plan, gram);
    ck_assert_uint_eq(plan.basis_bytes, 2 * HEADS * KEPT * D * 2);
    for (uint32_t part = 0; part < 2 * HEADS; part++) {
        double b[KEPT][D];
        for (uint32_t e = 0; e < KEPT * D; e++)
            b[e / D][e % D] = (double)kvcl_f16_to_f32(basis[part * KEPT * D + e]);
        check_components(gram + part * D * D, b);
    }
    free(basis);
    free(gram);
}
END_TEST

/* No variance, and moments that are no numbers. */
START_TEST(nothing)
{
    static const char *const names[] = {"holo4-mmse", "holo4-chip"};
    float *gram = calloc((size_t)2 * HEADS * D * D, sizeof *gram);
    ck_assert_ptr_nonnull(gram);
    for (uint32_t i = 0; i < 2; i++) {
        kvcl_codec_plan plan = plan_of(names[i], KVCL_ROPE_NONE, 0, KVCL_OK);
        kvcl_codec_moments m = {.gram = gram, .n_slots = 1};
        uint16_t *basis = learn(&plan, gram);
        for (size_t e = 0; i == 0 && e < plan.basis_bytes / 2; e++)
            ck_assert_uint_eq(basis[e], 0);
        gram[5] = NAN;
        ck_assert_int_eq(plan.spec.ops->learn(ctx, &plan, &m, basis), KVCL_E_NOT_FINITE);
        gram[5] = 0.0f;
        free(basis);
    }
    free(gram);
}
END_TEST

int main(void)
{
    ctx = test_reference()->ctx;
    Suite *suite = suite_create("holo");
    TCase *c = tcase_create("holo");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, even_boundary);
    tcase_add_test(c, estimates);
    tcase_add_test(c, components);
    tcase_add_test(c, nothing);
    suite_add_tcase(suite, c);
    return test_main(suite, false);
}
