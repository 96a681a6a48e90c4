/* test_rans.c - the entropy coder's models and the validation of its operations.  The coder itself:
 * case_rans.c, fuzz_rans.c */
#include "rans_model.h"
#include "shared.h"

#include "validate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TABLE_HASH 0x060d017au

static uint32_t *make_table(void)
{
    uint32_t *table = malloc(kvcl_rans_table_bytes());
    ck_assert_ptr_nonnull(table);
    kvcl_rans_table_fill(table);
    return table;
}

/* Each value's slots are its frequency's, in a row, and say so; the rest is the escape's. */
static void check_model(const uint32_t *words, uint32_t model)
{
    uint32_t seen[256] = {0}, escapes = words[128], covered = 0;
    for (uint32_t slot = 0; slot < 4096; slot++) {
        uint32_t e = words[KVCL_RANS_SLOTS + slot], v = e & 255, place = kvcl_rans_place(words[v]);
        test_require(kvcl_rans_freq(e) == kvcl_rans_freq(words[v]) && (words[v] & 255) == v &&
                         slot == place + kvcl_rans_place(e) && kvcl_rans_place(e) == seen[v],
                     "model %u, slot %u: %08x", model, slot, e);
        seen[v]++;
    }
    for (uint32_t v = 0; v < 256; v++) {
        bool direct = !kvcl_rans_escapes(words[v]);
        test_require(direct || words[v] == escapes, "model %u, value %u: %08x", model, v, words[v]);
        test_require(seen[v] == (direct || v == 128 ? kvcl_rans_freq(words[v]) : 0),
                     "model %u, value %u has %u slots", model, v, seen[v]);
        covered += seen[v];
    }
    ck_assert_uint_eq(covered, 4096);
    ck_assert(kvcl_rans_escapes(escapes) && kvcl_rans_freq(escapes) >= 1);
    ck_assert(!kvcl_rans_escapes(words[0]) && !kvcl_rans_escapes(words[1]));
}

START_TEST(models_are_complete)
{
    uint32_t *table = make_table(), hash = 2166136261u;
    for (uint32_t m = 0; m < KVCL_RANS_MODELS; m++)
        check_model(table + (size_t)m * KVCL_RANS_WORDS, m);
    for (size_t i = 0; i < kvcl_rans_table_bytes() / 4; i++)
        hash = (hash ^ table[i]) * 16777619u;
    /* the tables are part of what a stored stream means */
    ck_assert_msg(hash == TABLE_HASH, "the tables' hash is 0x%08xu", hash);
    free(table);
}
END_TEST

static double upper(bool laplace, double x)
{
    return laplace ? 0.5 * exp(-sqrt(2.0) * x) : 0.5 * erfc(x / sqrt(2.0));
}

/* Probability of value v >= 0 under an ideal model; 127 has all that is beyond. */
static double ideal(bool laplace, double deviation, int v)
{
    if (v == 0)
        return 1.0 - 2.0 * upper(laplace, 0.5 / deviation);
    double beyond = v == 127 ? 0.0 : upper(laplace, (v + 0.5) / deviation);
    return upper(laplace, (v - 0.5) / deviation) - beyond;
}

/* The picked model costs at most 1 % more than the
 * entropy, between scales, too. */
START_TEST(models_are_near_the_ideal)
{
    uint32_t *table = make_table();
    double worst = 0.0;
    for (int laplace = 0; laplace < 2; laplace++)
        for (double s = 0.3; s <= 20.0; s *= 1.03) {
            uint32_t model =
                kvcl_rans_pick(laplace ? KVCL_RANS_LAPLACE : KVCL_RANS_GAUSS, (float)s);
            double entropy = 0.0, cost = 0.0;
            for (int v = 0; v <= 127; v++) {
                uint32_t hist[256] = {0};
                double p = ideal(laplace, s, v);
                hist[v] = 1;
                cost += p * (v ? 2 : 1) * (double)kvcl_rans_cost(table, model, hist) / 65536.0;
                entropy -= p > 0.0 ? p * (v ? 2 : 1) * log2(p) : 0.0;
            }
            worst = fmax(worst, cost / entropy);
            test_require(cost < 1.01 * entropy, "laplace %d, deviation %.3f: %.4f bits, not %.4f",
                         laplace, s, cost, entropy);
            test_require(cost > 0.9999 * entropy, "laplace %d, deviation %.3f: %.4f bits < %.4f",
                         laplace, s, cost, entropy);
        }
    printf("models: at most %.2f %% above the entropy\n", 100.0 * (worst - 1.0));
    free(table);
}
END_TEST

START_TEST(picks)
{
    uint32_t *table = make_table(), hist[256] = {0};
    ck_assert_uint_eq(kvcl_rans_pick(KVCL_RANS_GAUSS, 0.0f), 0);
    ck_assert_uint_eq(kvcl_rans_pick(KVCL_RANS_GAUSS, NAN), 0);
    ck_assert_uint_eq(kvcl_rans_pick(KVCL_RANS_MIXED, 1.0f), 32 + 12);
    ck_assert_uint_eq(kvcl_rans_pick(KVCL_RANS_MIXED, 1.08f), 32 + 12);
    ck_assert_uint_eq(kvcl_rans_pick(KVCL_RANS_MIXED, 1.1f), 32 + 13);
    ck_assert_uint_eq(kvcl_rans_pick(KVCL_RANS_LAPLACE, INFINITY), 95);
    hist[0] = 3;
    hist[128] = 2;
    uint64_t cost = kvcl_rans_cost(table, 0, hist);
    double esc = (double)(kvcl_rans_freq(table[128])) / 4096.0;
    double zero = (double)(kvcl_rans_freq(table[0])) / 4096.0;
    double want = -3.0 * log2(zero) + 2.0 * (8.0 - log2(esc));
    ck_assert_double_eq_tol((double)cost / 65536.0, want, 6.0 / 65536.0);
    /* each model's own frequencies are cheapest under itself */
    for (uint32_t m = 1; m < KVCL_RANS_MODELS; m++) {
        const uint32_t *words = table + (size_t)m * KVCL_RANS_WORDS;
        for (uint32_t v = 0; v < 256; v++)
            hist[v] = kvcl_rans_escapes(words[v]) ? 0 : kvcl_rans_freq(words[v]);
        hist[128] = kvcl_rans_freq(words[128]);
        uint32_t got = kvcl_rans_pick_for(table, hist);
        test_require(kvcl_rans_cost(table, got, hist) == kvcl_rans_cost(table, m, hist),
                     "model %u is not its own best, %u is", m, got);
    }
    free(table);
}
END_TEST

/* ---- validation ---------------------------------------------------------------------------- */

static kvcl_status accept_enc(kvcl_queue *queue, const kvcl_rans_enc_args *a)
{
    return queue && a ? KVCL_OK : KVCL_E_ARG;
}

static kvcl_status accept_dec(kvcl_queue *queue, const kvcl_rans_dec_args *a)
{
    return queue && a ? KVCL_OK : KVCL_E_ARG;
}

static kvcl_buf *table_buf;

static void setup(void)
{
    setup_buffers();
    ck_assert_int_eq(kvcl_buf_create(d.dev, kvcl_rans_table_bytes(), "table", &table_buf), KVCL_OK);
    d.dev->ops.rans_enc = accept_enc;
    d.dev->ops.rans_dec = accept_dec;
}

static void teardown(void)
{
    kvcl_buf_free(table_buf);
    check_buffers();
    test_dev_close(&d);
}

#define ACCEPTED(op, good, change) REFUSED(op, good, KVCL_OK, change)

/* 3 pages of 4 x 64 values, models of their own. */
static const kvcl_rans_shape shape = {3, 4, 64, 4, 0};

#define BAD_SHAPES(op, good)                                                                 \
    do {                                                                                     \
        ACCEPTED(op, good, (void)0);                                                         \
        ACCEPTED(op, good, (a.shape.n_pages = 0, a.values.buf = NULL));                      \
        ACCEPTED(op, good, (a.shape.model_stride = 0, a.models.bytes = 4));                  \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_rows = 0);                           \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_cols = 0);                           \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, (a.shape.n_rows = 513, a.shape.n_cols = 512)); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_rows = a.shape.n_cols = 65536);      \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_pages = UINT32_MAX);                 \
        REFUSED(op, good, KVCL_E_ARG, a.shape.n_pages = 4);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.shape.model_stride = 3);                             \
        REFUSED(op, good, KVCL_E_ARG, a.shape.model_stride = UINT32_MAX);                    \
        REFUSED(op, good, KVCL_E_ARG, a.values.bytes -= 1);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.values.buf = NULL);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.models.bytes -= 1);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.models.buf = NULL);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.table.bytes -= 4);                                   \
        REFUSED(op, good, KVCL_E_ARG, a.table.off += 2);                                     \
        REFUSED(op, good, KVCL_E_ARG, a.table.buf = NULL);                                   \
    } while (0)

START_TEST(rans_enc)
{
    kvcl_rans_enc_args good = {.shape = shape, .slot_bytes = 136};
    good.values = view(in, 0, 3 * 64);
    good.models = view(aux, 0, 3);
    good.table = (kvcl_view){table_buf, 0, kvcl_rans_table_bytes()};
    good.streams = view(out, 0, 3 * 34);
    good.used = view(out2, 0, 3);
    BAD_SHAPES(rans_enc, good);
    BAD_VIEWS(rans_enc, good, streams, 3 * 34);
    BAD_VIEWS(rans_enc, good, used, 3);
    REFUSED(rans_enc, good, KVCL_E_ARG, a.slot_bytes = 100);
    ACCEPTED(rans_enc, good, a.slot_bytes = 104);
    REFUSED(rans_enc, good, KVCL_E_ARG, a.slot_bytes = 138);
    REFUSED(rans_enc, good, KVCL_E_ARG, a.slot_bytes = 140);
    REFUSED(rans_enc, good, KVCL_E_ARG, a.slot_bytes = UINT32_MAX - 3);
    REFUSED(rans_enc, good, KVCL_E_ARG, a.streams = view(in, 191, 102));
    REFUSED(rans_enc, good, KVCL_E_ARG, a.streams = view(aux, 2, 102));
    REFUSED(rans_enc, good, KVCL_E_ARG, a.streams = view(out2, 2, 102));
    REFUSED(rans_enc, good, KVCL_E_ARG, a.used = view(in, 0, 3));
    REFUSED(rans_enc, good, KVCL_E_ARG, (a.used.buf = table_buf, a.used.off = 0));
}
END_TEST

START_TEST(rans_dec)
{
    kvcl_rans_dec_args good = {.shape = shape};
    good.streams = view(in, 0, 100);
    good.places = view(in, 200, 6);
    good.models = view(aux, 0, 3);
    good.table = (kvcl_view){table_buf, 0, kvcl_rans_table_bytes()};
    good.values = view(out, 0, 3 * 64);
    good.bad = view(out2, 0, 3);
    BAD_SHAPES(rans_dec, good);
    BAD_VIEWS(rans_dec, good, places, 6);
    BAD_VIEWS(rans_dec, good, bad, 3);
    BAD_VIEWS(rans_dec, good, streams, 1);
    REFUSED(rans_dec, good, KVCL_E_ARG, a.values = view(in, 99, 192));
    REFUSED(rans_dec, good, KVCL_E_ARG, a.values = view(in, 205, 192));
    REFUSED(rans_dec, good, KVCL_E_ARG, a.values = view(aux, 2, 192));
    REFUSED(rans_dec, good, KVCL_E_ARG, a.bad = view(out, 191, 3));
    REFUSED(rans_dec, good, KVCL_E_ARG, a.bad = view(in, 203, 3));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rans");
    TCase *c = tcase_create("models"), *v = tcase_create("validation");
    tcase_add_test(c, models_are_complete);
    tcase_add_test(c, models_are_near_the_ideal);
    tcase_add_test(c, picks);
    tcase_add_checked_fixture(v, setup, teardown);
    tcase_add_test(v, rans_enc);
    tcase_add_test(v, rans_dec);
    suite_add_tcase(suite, c);
    suite_add_tcase(suite, v);
    return test_main(suite, true);
}
