/* test_frontier.c - bounds of kvcl frontier that must hold, a planted one that does not, bases
 * and codes. */
#include "cmd_frontier.h"
#include "f16.h"
#include "mem.h"
#include "rope_table.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TOKENS 300u
#define DIM 64u
#define SINKS 4u

static kvcl_ctx *ctx;
static test_rng rng;

static void setup(void)
{
    rng = (test_rng){.seed = test_seed()};
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
}

static void teardown(void) { kvcl_ctx_free(ctx); }

static float half(float x) { return kvcl_f16_to_f32(kvcl_f32_to_f16(x)); }

/* Keys with a mean and a falling spectrum, turned by position; queries' moments with another. */
typedef struct rig {
    kvcl_frontier_keys keys;
    float *pre, *post, *table;
    double *queries, *work;
    kvcl_frontier_sketch sketch;
    kvcl_frontier_spec spec;
} rig;

static void rig_make(rig *r)
{
    *r = (rig){0};
    r->pre = test_zeros((size_t)TOKENS * DIM, sizeof(float));
    r->post = test_zeros((size_t)TOKENS * DIM, sizeof(float));
    r->table = test_zeros((size_t)TOKENS * DIM, sizeof(float));
    r->queries = test_zeros((size_t)DIM * DIM, sizeof(double));
    r->work = test_zeros(kvcl_frontier_sketch_work(TOKENS, DIM), sizeof(double));
    kvcl_rope_table(r->table, TOKENS, &(kvcl_rope_spec){.n_rot = DIM, .base = 500000, .factor = 1});
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t d = 0; d < DIM; d++)
            r->pre[t * DIM + d] = half((float)(3 * sin(d) + 4 * test_normal(&rng) / (1 + 0.1 * d)));
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t d = 0; d < DIM; d += 2) {
            const float *cs = r->table + t * DIM + d, *x = r->pre + t * DIM + d;
            r->post[t * DIM + d] = half(x[0] * cs[0] - x[1] * cs[1]);
            r->post[t * DIM + d + 1] = half(x[1] * cs[0] + x[0] * cs[1]);
        }
    for (uint32_t i = 0; i < 200; i++) {
        double q[DIM];
        for (uint32_t d = 0; d < DIM; d++)
            q[d] = test_normal(&rng) * (1 + 0.05 * d);
        for (uint32_t a = 0; a < DIM * DIM; a++)
            r->queries[a] += q[a / DIM] * q[a % DIM];
    }
    r->keys = (kvcl_frontier_keys){.T = TOKENS,
                                   .D = DIM,
                                   .n_sinks = SINKS,
                                   .n_rot = DIM,
                                   .pairing = KVCL_ROPE_ADJACENT,
                                   .table = r->table,
                                   .pre = r->pre,
                                   .post = r->post,
                                   .queries = r->queries,
                                   .seed = 7};
    ck_assert_int_eq(kvcl_frontier_sketch_create(ctx, TOKENS, DIM, &r->sketch), KVCL_OK);
}

static void rig_free(rig *r)
{
    free(r->pre);
    free(r->post);
    free(r->table);
    free(r->queries);
    free(r->work);
    kvcl_frontier_sketch_free(ctx, &r->sketch);
}

static void rig_sketch(rig *r, const char *name)
{
    uint32_t n;
    ck_assert_int_eq(kvcl_frontier_specs_read(ctx, name, &r->spec, &n), KVCL_OK);
    test_true(kvcl_frontier_sketch_make(&r->spec, &r->keys, r->work, &r->sketch));
}

/* Scores of q, and how many of them its bounds miss. */
static uint64_t missed(const rig *r, const float *q)
{
    float score[TOKENS], low[TOKENS], high[TOKENS];
    kvcl_frontier_query query = {.n = TOKENS, .begin = 0, .end = TOKENS, .score = score};
    for (uint32_t t = 0; t < TOKENS; t++)
        score[t] = kvcl_frontier_dot(q, r->post + (size_t)t * DIM, DIM);
    kvcl_frontier_bounds(&r->sketch, q, score, TOKENS, 0.125, 0, low, high);
    return kvcl_frontier_violations(&query, low, high);
}

/* Along the error of key t: there |q| times the norm is what the score is off by. */
static void worst_query(const rig *r, uint32_t t, float *q)
{
    for (uint32_t d = 0; d < DIM; d++)
        q[d] = r->post[t * DIM + d] - r->sketch.code[t * DIM + d];
}

/* ---- bounds -------------------------------------------------------------------------------- */

static const char *const sound[] = {
    "oracle",         "pca8",       "pca64",           "pca24/int4", "whitened16",
    "whitened8/int4", "balanced16", "balanced32/int4", "balanced64", "lm1",
    "lm2/pre",        "lm2/post",   "lm3/pre",         "lm4/post",   "box2",
    "box16"};

START_TEST(bounds_hold)
{
    rig r;
    float q[DIM];
    rig_make(&r);
    for (size_t i = 0; i < kvcl_array_len(sound); i++) {
        rig_sketch(&r, sound[i]);
        for (uint32_t k = 0; k < 60; k++) {
            const float scale = ldexpf(1, (int)(k % 3) * 20 - 20);
            for (uint32_t d = 0; d < DIM; d++)
                q[d] = scale * (float)test_normal(&rng);
            if (k % 4 == 0 && r.spec.kind == KVCL_SKETCH_LEVELS)
                worst_query(&r, k * 5 % TOKENS, q);
            if (k % 4 == 1)
                memcpy(q, r.post + (size_t)(k * 7 % TOKENS) * DIM, sizeof q);
            test_require(missed(&r, q) == 0, "%s: a bound does not hold", sound[i]);
        }
    }
    rig_free(&r);
}
END_TEST

/* Keys +-u alone: one coordinate codes them almost without error, and rounding is all that is left.
 */
START_TEST(rounding_is_covered)
{
    static const char *const names_of[] = {"pca1", "whitened1", "balanced1", "lm2/post", "box2"};
    rig r;
    float q[DIM];
    rig_make(&r);
    for (uint32_t i = DIM; i < TOKENS * DIM; i++)
        r.post[i] = i / DIM % 2 ? r.post[i % DIM] : -r.post[i % DIM];
    for (size_t i = 0; i < kvcl_array_len(names_of); i++) {
        rig_sketch(&r, names_of[i]);
        for (uint32_t k = 0; k < 200; k++) {
            for (uint32_t d = 0; d < DIM; d++)
                q[d] = (float)test_normal(&rng);
            test_require(missed(&r, q) == 0, "%s: rounding breaks a bound", names_of[i]);
        }
    }
    rig_free(&r);
}
END_TEST

/* Norms rounded down: caught where the query lies along the error. */
START_TEST(planted_norm_is_caught)
{
    rig r;
    float q[DIM];
    uint64_t n_caught = 0;
    rig_make(&r);
    rig_sketch(&r, "lm2/pre");
    for (uint32_t t = 0; t < TOKENS; t++) {
        worst_query(&r, t, q);
        ck_assert_uint_eq(missed(&r, q), 0);
        const float up = r.sketch.in[t];
        r.sketch.in[t] = (float)((double)up * exp2(-1 / 32.0));
        n_caught += missed(&r, q);
        r.sketch.in[t] = up;
    }
    /* a norm hardly above the lower step is covered by the slack for rounding */
    ck_assert_uint_ge(n_caught, TOKENS * 9 / 10);
    rig_free(&r);
}
END_TEST

/* The program's answer to a bound or a promise that does not hold. */
START_TEST(verdicts)
{
    bool chosen[1] = {true};
    uint64_t n_violated[2] = {0};
    kvcl_frontier_cell cells[2 * 2 * 2] = {{0}};
    kvcl_frontier f = {.app = {.ctx = ctx},
                       .n_layers = 1,
                       .n_heads = 1,
                       .D = DIM,
                       .n_queries = 1,
                       .layer = chosen,
                       .head = chosen,
                       .cells = cells,
                       .n_violated = n_violated};
    ck_assert_int_eq(kvcl_frontier_specs_read(ctx, "rp8,lm2", f.specs, &f.n_specs), KVCL_OK);
    ck_assert_int_eq(kvcl_frontier_rules_read(ctx, "topk8,theta0.5", f.rules, &f.n_rules), KVCL_OK);
    n_violated[0] = 5; /* nothing was promised */
    ck_assert_int_eq(kvcl_frontier_verdict(&f), KVCL_OK);
    n_violated[1] = 1;
    ck_assert_int_eq(kvcl_frontier_verdict(&f), KVCL_E_DIFFERS);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "lm2: 1 scores"));
    n_violated[1] = 0;
    kvcl_frontier_cell_at(&f, 1, 0, 1, 0, 0)->n_broken = 1;
    ck_assert_int_eq(kvcl_frontier_verdict(&f), KVCL_E_DIFFERS);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "topk8"));
    ck_assert_int_eq(kvcl_status_exit_code(KVCL_E_DIFFERS), 7);
}
END_TEST

START_TEST(norms_round_up)
{
    double norms[2000];
    float out[2000];
    for (uint32_t i = 0; i < 2000; i++)
        norms[i] = i % 97 == 0 ? 0 : exp2(20 * (double)test_unit(&rng));
    kvcl_frontier_norms(2000, norms, out);
    double largest = 0;
    for (uint32_t i = 0; i < 2000; i++)
        largest = fmax(largest, norms[i]);
    for (uint32_t i = 0; i < 2000; i++) {
        test_true((double)out[i] >= norms[i]);
        test_true((double)out[i] <=
                  fmax(norms[i], largest * exp2(-256 / 32.0)) * exp2(1 / 32.0) * (1 + 1e-6));
    }
    norms[0] = 0;
    kvcl_frontier_norms(1, norms, out);
    test_true(out[0] < 1e-30f);
}
END_TEST

/* Clusters rule out what lies below their mean's score, radius and the constants; else they change
 * nothing. */
START_TEST(clusters)
{
    rig r;
    float q[DIM], low[2][TOKENS], high[2][TOKENS];
    uint32_t n_tighter = 0;
    rig_make(&r);
    for (uint32_t d = 0; d < DIM; d++)
        q[d] = (float)test_normal(&rng);
    rig_sketch(&r, "rp8");
    kvcl_frontier_bounds(&r.sketch, q, NULL, TOKENS, 0.125, 0, low[0], high[0]);
    rig_sketch(&r, "kmeans8");
    kvcl_frontier_bounds(&r.sketch, q, NULL, TOKENS, 0.125, 0, low[1], high[1]);
    for (uint32_t t = 0; t < TOKENS; t++) {
        const kvcl_frontier_sketch *s = &r.sketch;
        const uint32_t c = s->cluster[t];
        double distance = 0, score = 0;
        for (uint32_t i = 0; i < 8; i++) {
            const double x = (double)s->code[t * 8 + i] - (double)s->center[c * 8 + i];
            distance += x * x;
            for (uint32_t d = 0; d < DIM; d++)
                score +=
                    (double)q[d] * (double)s->random[i * DIM + d] * (double)s->center[c * 8 + i];
        }
        test_true(sqrt(distance) <= s->radius[c] * (1 + 1e-12));
        const double most = score * 8 / sqrt(8) + s->radius[c] + 0.1;
        test_true(low[0][t] == low[1][t]);
        test_true(fabs((double)high[1][t] - fmin((double)high[0][t], most)) <
                  1e-5 * (1 + fabs(most)));
        n_tighter += high[1][t] < high[0][t];
    }
    test_true(n_tighter > 0);
    rig_free(&r);
}
END_TEST

/* ---- bases and codes ----------------------------------------------------------------------- */

/* out = m a m^TOKENS for row m. */
static double moment(const double *m, const double *a)
{
    double sum = 0;
    for (uint32_t i = 0; i < DIM; i++)
        for (uint32_t j = 0; j < DIM; j++)
            sum += m[i] * a[i * DIM + j] * m[j];
    return sum;
}

START_TEST(bases)
{
    static const kvcl_frontier_kind kinds[] = {KVCL_SKETCH_PCA, KVCL_SKETCH_WHITENED,
                                               KVCL_SKETCH_BALANCED};
    rig r;
    rig_make(&r);
    double *keys = test_zeros((size_t)DIM * DIM, sizeof(double)), *work;
    double *a = test_zeros((size_t)DIM * DIM, sizeof(double)),
           *b = test_zeros((size_t)DIM * DIM, sizeof(double));
    work = test_zeros(kvcl_frontier_basis_work(DIM), sizeof(double));
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t i = 0; i < DIM * DIM; i++)
            keys[i] +=
                (double)r.post[t * DIM + i / DIM] * (double)r.post[t * DIM + i % DIM] / TOKENS;
    for (size_t k = 0; k < 3; k++) {
        double defect = 1, before = INFINITY;
        test_true(kvcl_frontier_basis(kinds[k], DIM, keys, r.queries, work, a, b, &defect));
        test_true(defect < 1e-9);
        for (uint32_t i = 0; i < DIM; i++) {
            const double of_keys = moment(a + (size_t)i * DIM, keys);
            const double of_queries = moment(b + (size_t)i * DIM, r.queries);
            test_true(of_keys <= before * (1 + 1e-9));
            before = of_keys;
            if (kinds[k] == KVCL_SKETCH_BALANCED) /* no direction of queries is below the ridge */
                test_true(fabs(of_keys / of_queries - 1) < 1e-6);
            if (kinds[k] == KVCL_SKETCH_WHITENED)
                test_true(fabs(of_queries - 1) < 1e-6);
        }
    }
    free(keys);
    free(work);
    free(a);
    free(b);
    rig_free(&r);
}
END_TEST

/* Errors of levels are those of Lloyd and Max on Gaussian rows, which a transform makes them. */
START_TEST(levels)
{
    static const double mse[] = {0.3634, 0.1175, 0.0345, 0.0095};
    rig r;
    rig_make(&r);
    for (uint32_t bits = 1; bits <= 4; bits++)
        for (uint32_t post = 0; post < 2; post++) {
            char name[16];
            double error = 0, energy = 0, mean[DIM] = {0};
            snprintf(name, sizeof name, "lm%u/%s", bits, post ? "post" : "pre");
            rig_sketch(&r, name);
            const float *x = post ? r.post : r.pre;
            for (uint32_t i = SINKS * DIM; i < TOKENS * DIM; i++)
                mean[i % DIM] += (double)x[i] / (TOKENS - SINKS);
            for (uint32_t i = 0; i < TOKENS * DIM; i++) {
                const double e = (double)r.post[i] - (double)r.sketch.code[i];
                const double y = (double)x[i] - mean[i % DIM];
                error += e * e;
                energy += y * y;
            }
            test_require(error / energy < 1.25 * mse[bits - 1] &&
                             error / energy > 0.8 * mse[bits - 1],
                         "%s: error %g", name, error / energy);
        }
    rig_free(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("frontier");
    TCase *c = tcase_create("frontier");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, bounds_hold);
    tcase_add_test(c, rounding_is_covered);
    tcase_add_test(c, planted_norm_is_caught);
    tcase_add_test(c, verdicts);
    tcase_add_test(c, norms_round_up);
    tcase_add_test(c, clusters);
    tcase_add_test(c, bases);
    tcase_add_test(c, levels);
    suite_add_tcase(s, c);
    return test_main(s, false);
}
