/* test_rest.c - pages at rest beside their cases (case_rest.c): what their operations refuse, names
 * and plans of the codec, a page in a cache that is damaged. */
#include "bases.h"
#include "codec.h"
#include "ctx.h"
#include "rans_model.h"
#include "rig.h"
#include "session_int.h"
#include "shared.h"
#include "spectral_rest.h"
#include "validate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define KVCL_OP(name, group, stem)                                                   \
    static kvcl_status accept_##name(kvcl_queue *queue, const kvcl_##name##_args *a) \
    {                                                                                \
        return queue && a ? KVCL_OK : KVCL_E_ARG;                                    \
    }
#include "ops.def"
#undef KVCL_OP

static kvcl_buf *costs;

static void setup(void)
{
    setup_buffers();
    ck_assert_int_eq(kvcl_buf_create(d.dev, kvcl_rest_cost_bytes(), "test", &costs), KVCL_OK);
#define KVCL_OP(name, group, stem) d.dev->ops.name = accept_##name;
#include "ops.def"
#undef KVCL_OP
}

static void teardown(void)
{
    check_buffers();
    kvcl_buf_free(costs);
    test_dev_close(&d);
}

#define ACCEPTED(op, good, change) REFUSED(op, good, KVCL_OK, change)

/* ---- arguments ----------------------------------------------------------------------------- */

static const kvcl_rest_shape shape = {2, 8, 64, 2, 256};

#define BAD_SHAPES(op, good)                                          \
    do {                                                              \
        ACCEPTED(op, good, (void)0);                                  \
        ACCEPTED(op, good, a.shape.n_pages = 0);                      \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_rows = 0);    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_rows = 8192); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_cols = 62);   \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_pages = ~0u); \
        REFUSED(op, good, KVCL_E_ARG, a.shape.n_parts = 0);           \
        REFUSED(op, good, KVCL_E_ARG, a.shape.n_parts = 3);           \
        REFUSED(op, good, KVCL_E_ARG, a.shape.page_bytes = 254);      \
        REFUSED(op, good, KVCL_E_ARG, a.shape.page_bytes = 112);      \
        REFUSED(op, good, KVCL_E_ARG, a.shape.page_bytes = 1u << 20); \
    } while (0)

START_TEST(spectral_coef)
{
    kvcl_spectral_coef_args good = {.shape = {1, 32, 1, 8, 8}, .n_pages = 1, .n_skip = 8};
    good.k = view(in, 0, 2048);
    good.v = view(in, 2048, 2048);
    good.page_table = view(aux, 0, 1);
    good.means = view(aux, 4, 64);
    good.basis = view(aux, 128, 928);
    good.coefs = view(out, 0, 4096);
    ACCEPTED(spectral_coef, good, (void)0);
    ACCEPTED(spectral_coef, good, a.first_page = 600); /* one mean for all pages */
    ACCEPTED(spectral_coef, good, (a.n_pages = 0, a.k.buf = NULL));
    BAD_VIEWS(spectral_coef, good, basis, 928);
    BAD_VIEWS(spectral_coef, good, coefs, 4096);
    BAD_VIEWS(spectral_coef, good, means, 64);
    REFUSED(spectral_coef, good, KVCL_E_UNSUPPORTED, a.shape.fold = 3);
    REFUSED(spectral_coef, good, KVCL_E_UNSUPPORTED, a.shape.head_dim = 48);
    REFUSED(spectral_coef, good, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q8_0);
    REFUSED(spectral_coef, good, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(spectral_coef, good, KVCL_E_ARG, a.join = 2);
    REFUSED(spectral_coef, good, KVCL_E_ARG, a.page_table.bytes = 0);
    REFUSED(spectral_coef, good, KVCL_E_ARG, a.coefs.buf = in);
}
END_TEST

START_TEST(rest_quant)
{
    kvcl_rest_quant_args good = {.shape = shape, .budget = 1000, .fold = 4, .round = 0.4f};
    good.coefs = view(in, 0, 1024);
    good.scales = view(aux, 0, 4);
    good.costs = (kvcl_view){costs, 0, kvcl_rest_cost_bytes()};
    good.values = view(out, 0, 256);
    good.models = view(out, 256, 4);
    good.gains = view(out, 260, 1);
    good.rungs = view(out, 264, 2);
    BAD_SHAPES(rest_quant, good);
    BAD_VIEWS(rest_quant, good, coefs, 1024);
    BAD_VIEWS(rest_quant, good, rungs, 2);
    ACCEPTED(rest_quant, good, a.used = view(aux, 8, 2));
    REFUSED(rest_quant, good, KVCL_E_ARG, a.used = view(aux, 8, 1));
    REFUSED(rest_quant, good, KVCL_E_ARG, a.used = a.rungs);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.scales.bytes = 14);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.costs.bytes -= 2);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.values.bytes -= 1);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.models.bytes -= 1);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.gains.bytes = 3);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.gains.off -= 2);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.values = view(in, 1000, 256));
    REFUSED(rest_quant, good, KVCL_E_ARG, a.fold = 8);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.fold = 0);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.round = 0.6f);
    REFUSED(rest_quant, good, KVCL_E_ARG, a.round = NAN);
}
END_TEST

START_TEST(rest_store)
{
    kvcl_rest_store_args good = {.shape = shape, .n_heads = 2};
    good.streams = view(in, 0, 2 * 61);
    good.used = view(aux, 0, 2);
    good.rungs = view(aux, 2, 2);
    good.gains = view(aux, 4, 1);
    good.pool_table = view(aux, 6, 2);
    good.pool = view(out, 0, 64);
    good.bad = view(out2, 0, 4);
    BAD_SHAPES(rest_store, good);
    BAD_VIEWS(rest_store, good, streams, 2 * 61);
    BAD_VIEWS(rest_store, good, used, 2);
    BAD_VIEWS(rest_store, good, rungs, 2);
    BAD_VIEWS(rest_store, good, pool_table, 2);
    BAD_VIEWS(rest_store, good, pool, 64);
    BAD_VIEWS(rest_store, good, bad, 4);
    REFUSED(rest_store, good, KVCL_E_ARG, a.gains.bytes = 3);
    REFUSED(rest_store, good, KVCL_E_ARG, a.n_heads = 0);
    REFUSED(rest_store, good, KVCL_E_ARG, a.pool = view(in, 100, 64));
    REFUSED(rest_store, good, KVCL_E_ARG, a.bad = view(out, 60, 4));
}
END_TEST

START_TEST(rest_open)
{
    kvcl_rest_open_args good = {.shape = shape};
    good.pool = view(in, 0, 64);
    good.pool_table = view(aux, 0, 2);
    good.scales = view(aux, 2, 4);
    good.places = view(out, 0, 4);
    good.models = view(out, 4, 4);
    BAD_SHAPES(rest_open, good);
    BAD_VIEWS(rest_open, good, pool, 64);
    BAD_VIEWS(rest_open, good, pool_table, 2);
    BAD_VIEWS(rest_open, good, places, 4);
    REFUSED(rest_open, good, KVCL_E_ARG, a.scales.bytes = 14);
    REFUSED(rest_open, good, KVCL_E_ARG, a.models.bytes = 15);
    REFUSED(rest_open, good, KVCL_E_ARG, a.models = view(out, 3, 4));
    REFUSED(rest_open, good, KVCL_E_ARG, a.places = view(in, 63, 4));
}
END_TEST

START_TEST(rest_norms)
{
    kvcl_rest_norms_args good = {.shape = shape, .stride_bytes = 580, .first_page = 3};
    good.pool = view(in, 0, 64);
    good.pool_table = view(aux, 0, 2);
    good.bad = view(aux, 2, 2);
    good.out = view(out, 0, 145 + 144);
    good.fault = view(out2, 0, 1);
    BAD_SHAPES(rest_norms, good);
    BAD_VIEWS(rest_norms, good, pool, 64);
    BAD_VIEWS(rest_norms, good, bad, 2);
    BAD_VIEWS(rest_norms, good, fault, 1);
    REFUSED(rest_norms, good, KVCL_E_ARG, a.out.bytes -= 2);
    REFUSED(rest_norms, good, KVCL_E_ARG, a.stride_bytes = 574);
    REFUSED(rest_norms, good, KVCL_E_ARG, a.stride_bytes = 581);
    REFUSED(rest_norms, good, KVCL_E_ARG, a.out = view(in, 60, 289));
    REFUSED(rest_norms, good, KVCL_E_ARG, a.fault = view(out, 2, 1));
}
END_TEST

/* ---- the codec ----------------------------------------------------------------------------- */

/* Pages take what the name says, to the word; what cannot be is refused. */
START_TEST(plans)
{
    kvcl_ctx *ctx = test_reference()->ctx;
    kvcl_kv_shape s = {4, 2, 128, 128, KVCL_ROPE_ADJACENT, 1.0f};
    static const struct {
        const char *name, *same;
        size_t bytes;
    } list[] = {{"rest1.5", "rest1.50", 6144},
                {"rest1.05", "rest1.05", 4300},
                {"rest2", "rest2.0", 8192},
                {"rest0.88", "rest0.88", 3604}};
    kvcl_codec_spec spec, again;
    kvcl_codec_plan p;
    for (size_t i = 0; i < kvcl_array_len(list); i++) {
        ck_assert_int_eq(kvcl_codec_parse(ctx, list[i].name, &spec), KVCL_OK);
        ck_assert_int_eq(kvcl_codec_parse(ctx, list[i].same, &again), KVCL_OK);
        ck_assert_str_eq(spec.name, again.name);
        ck_assert_int_eq(kvcl_codec_plan_make(ctx, &spec, &s, &p), KVCL_OK);
        ck_assert_uint_eq(p.page_bytes, list[i].bytes);
        ck_assert_uint_eq(p.part_bytes[0] + p.part_bytes[1], list[i].bytes);
        ck_assert_uint_eq(p.join, 2);
    }
    s.n_kv_heads = 3; /* no two of them share a basis */
    ck_assert_int_eq(kvcl_codec_plan_make(ctx, &spec, &s, &p), KVCL_OK);
    ck_assert_uint_eq(p.join, 1);
    s.head_dim = 48;
    ck_assert_int_eq(kvcl_codec_plan_make(ctx, &spec, &s, &p), KVCL_E_UNSUPPORTED);
    s.head_dim = 256, s.n_kv_heads = 16;
    ck_assert_int_eq(kvcl_codec_plan_make(ctx, &spec, &s, &p), KVCL_E_UNSUPPORTED);
}
END_TEST

/* Costs are those of the models, rounded up; a sure budget is below a hopeful one. */
START_TEST(budgets)
{
    uint32_t *table = malloc(kvcl_rans_table_bytes());
    uint16_t *cost = malloc(kvcl_rest_cost_bytes());
    test_true(table && cost);
    kvcl_rans_table_fill(table);
    kvcl_rest_cost_fill(table, cost);
    for (uint32_t i = 0; i < KVCL_RANS_MODELS * 256; i++) {
        uint32_t hist[256] = {0};
        hist[i % 256] = 1;
        uint64_t exact = kvcl_rans_cost(table, i / 256, hist);
        ck_assert(cost[i] * 128u >= exact && cost[i] * 128u < exact + 128);
    }
    ck_assert_uint_eq(kvcl_rest_budget(KVCL_RANS_LEAST), 0);
    ck_assert_uint_eq(kvcl_rest_hope(KVCL_RANS_LEAST), 0);
    for (size_t bytes = 120; bytes < 100000; bytes += 1000)
        ck_assert(kvcl_rest_budget(bytes) < kvcl_rest_hope(bytes) &&
                  kvcl_rest_budget(bytes) > kvcl_rest_budget(bytes - 10));
    free(table);
    free(cost);
}
END_TEST

/* The weights of component i of a part that stands as ops_spectral.h has it. */
static double product(const int8_t *a, uint32_t i, const int8_t *b, uint32_t j, uint32_t D)
{
    double sum = 0.0;
    for (uint32_t e = 0; e < D; e++)
        sum += (double)(a[(i / 4 * D + e) * 4 + i % 4] * b[(j / 4 * D + e) * 4 + j % 4]);
    return sum;
}

/* A basis of a rate comes back from its streams: what a component of K adds is what its own row of
 * the analysis finds, and what the others hardly do: the mean square of their cosines. */
static double basis_error(const kvcl_codec_plan *p, test_run *r)
{
    uint32_t D = p->shape.head_dim * p->join, heads = p->shape.n_kv_heads / p->join;
    kvcl_spectral_shape s = {heads, D, 1, heads * D / 4, heads * D / 4};
    unsigned char *basis = test_mem(r, p->basis_bytes);
    kvcl_codec_moments m = {.gram = test_moments(r, 2 * heads, D, 3 * D), .n_slots = 3 * D};
    m.metric = test_moments(r, p->shape.n_kv_heads, p->shape.head_dim, 400);
    uint32_t *rans = test_mem(r, kvcl_rans_table_bytes());
    kvcl_rans_table_fill(rans);
    test_ok(r, p->spec.ops->learn(r->d->ctx, p, &m, basis));
    kvcl_view full = test_out(r, kvcl_spectral_basis_bytes(&s));
    kvcl_view bad = test_out(r, kvcl_rest_chunks(&s, false) * sizeof(uint32_t));
    test_ok(r, kvcl_spectral_rest_open(r->d->q, &s, p->spec.rate, test_in(r, basis, p->basis_bytes),
                                       test_in(r, rans, kvcl_rans_table_bytes()), full, bad));
    test_wait(r);
    const unsigned char *at = test_bytes(r, full);
    const int8_t *synth = (const int8_t *)at + kvcl_spectral_synth();
    const int8_t *analysis = (const int8_t *)at + kvcl_spectral_analysis(0, D);
    kvcl_spectral_head head;
    memcpy(&head, at, sizeof head);
    double sum = 0.0;
    ck_assert(head.n_codes > D / 4 && head.n_codes <= D);
    for (uint32_t i = 0; i < head.n_codes; i++)
        for (uint32_t j = 0; j < head.n_codes; j++) {
            double x = product(synth, j, analysis, i, D);
            ck_assert(i != j || x > 0.0);
            x = x * x / product(synth, j, synth, j, D) / product(analysis, i, analysis, i, D);
            sum += i != j ? x : 0.0;
        }
    for (uint32_t i = 0; i < kvcl_rest_chunks(&s, false); i++)
        ck_assert_uint_eq(((const uint32_t *)(const void *)test_bytes(r, bad))[i], 0);
    return sqrt(sum) / head.n_codes;
}

START_TEST(bases)
{
    static const char *const names[] = {"rest0.9", "rest2", "rest4"};
    kvcl_kv_shape s = {4, 4, 32, 32, KVCL_ROPE_NONE, 1.0f};
    double last = INFINITY;
    size_t bytes = 0;
    for (size_t i = 0; i < kvcl_array_len(names); i++) {
        kvcl_codec_spec spec;
        kvcl_codec_plan p;
        test_run r;
        test_run_begin(&r, test_reference(), 5);
        test_ok(&r, kvcl_codec_parse(r.d->ctx, names[i], &spec));
        test_ok(&r, kvcl_codec_plan_make(r.d->ctx, &spec, &s, &p));
        ck_assert_uint_eq(p.join, 4);
        double error = basis_error(&p, &r);
        if (test_env_on("KVCL_TEST_VERBOSE"))
            fprintf(stderr, "%s: %zu bytes, %g\n", names[i], p.basis_bytes, error);
        ck_assert(error < last && p.basis_bytes > bytes);
        last = error;
        bytes = p.basis_bytes;
        test_run_end(&r);
    }
    ck_assert(last < 0.1);
}
END_TEST

/* A bit of a coded page turns over: the next token says which tokens are lost, and a prompt that is
 * read again is as good as new. */
START_TEST(damaged_page)
{
    test_dev *t = rig_last_row();
    kvcl_session_options opt = rig_tiers(NULL, "rest1.5", 512);
    rig_tier_model(false, 2);
    rig r = rig_open(t, &opt);
    float *want = rig_play(t, r.session, 300, 1, 2), *got;
    const kvcl_tier *tier = &kvcl_cache_get_layout(r.session->cache)->tiers[0];
    kvcl_queue *queue = NULL;
    kvcl_codec_plan plan = tier->plan;
    kvcl_buf *pool = tier->pools[2]; /* of layer 1 */
    size_t at = (size_t)tier->map.slots[2] * plan.page_bytes + 100;
    unsigned char byte;
    rig_ok(t, kvcl_queue_create(tier->dev, &queue));
    rig_ok(t, kvcl_buf_read(queue, pool, at, &byte, 1));
    rig_ok(t, kvcl_queue_wait(queue));
    byte ^= 4;
    rig_ok(t, kvcl_buf_write(queue, pool, at, &byte, 1));
    rig_ok(t, kvcl_queue_wait(queue));
    int32_t token = rig_token(302);
    kvcl_status st = kvcl_session_decode(r.session, token, NULL);
    test_require(st == KVCL_E_FORMAT, "a damaged page: %s", kvcl_status_string(st));
    const char *said = kvcl_last_error(t->ctx);
    test_require(strstr(said, "layer 1") && strstr(said, "tokens 128 to 191"), "'%s'", said);
    rig_ok(t, kvcl_session_rewind(r.session, 0));
    got = rig_play(t, r.session, 300, 1, 2);
    rig_same("after the damage", want, got, (size_t)3 * TINY_VOCAB);
    free(want);
    free(got);
    kvcl_queue_free(queue);
    rig_close(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rest");
    TCase *c = tcase_create("arguments");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, spectral_coef);
    tcase_add_test(c, rest_quant);
    tcase_add_test(c, rest_store);
    tcase_add_test(c, rest_open);
    tcase_add_test(c, rest_norms);
    suite_add_tcase(suite, c);
    c = tcase_create("codec");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, plans);
    tcase_add_test(c, budgets);
    tcase_add_test(c, bases);
    tcase_add_test(c, damaged_page);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
