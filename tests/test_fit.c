/* test_fit.c - from moments to bases and bits: eigenproblems, deals of bits, whole fits of made-up
 * spectra and of what hardly has one. */
#include "jacobi.h"
#include "spectral_basis.h"
#include "spectral_deal.h"
#include "spectral_fit.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

static kvcl_ctx *ctx;
static test_rng rng;

static void setup(void)
{
    rng = (test_rng){.seed = test_seed()};
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
}

static void teardown(void) { kvcl_ctx_free(ctx); }

/* n orthonormal rows: Gram-Schmidt, twice. */
static void random_basis(uint32_t n, double *u)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t d = 0; d < n; d++)
            u[i * n + d] = test_normal(&rng);
        for (uint32_t pass = 0; pass < 2; pass++)
            for (uint32_t j = 0; j < i; j++) {
                double dot = 0.0;
                for (uint32_t d = 0; d < n; d++)
                    dot += u[i * n + d] * u[j * n + d];
                for (uint32_t d = 0; d < n; d++)
                    u[i * n + d] -= dot * u[j * n + d];
            }
        double square = 0.0;
        for (uint32_t d = 0; d < n; d++)
            square += u[i * n + d] * u[i * n + d];
        for (uint32_t d = 0; d < n; d++)
            u[i * n + d] /= sqrt(square);
    }
}

/* out[a][b] = sum over i of value[i] u[i][a] u[i][b]. */
static void compose(uint32_t n, const double *u, const double *value, double *out)
{
    memset(out, 0, (size_t)n * n * sizeof *out);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t a = 0; a < n; a++)
            for (uint32_t b = 0; b < n; b++)
                out[a * n + b] += value[i] * u[i * n + a] * u[i * n + b];
}

/* ---- eigenproblems -------------------------------------------------------------------------- */

static void check_eigen(uint32_t n, const double *value, const char *what)
{
    size_t cells = (size_t)n * n;
    double *u = test_zeros(cells, 8), *a = test_zeros(cells, 8),
           *work = test_zeros(cells + 3 * n, 8);
    double *v = test_zeros(cells, 8), *got = test_zeros(n, 8), norm = 0.0;
    uint32_t *order = test_zeros(n, 4);
    random_basis(n, u);
    compose(n, u, value, a);
    for (uint32_t i = 0; i < n; i++)
        memcpy(work + i * (n + 3), a + i * n, n * 8);
    for (size_t i = 0; i < cells; i++)
        norm += a[i] * a[i];
    norm = sqrt(norm) + 1e-300;
    test_require(kvcl_jacobi(n, n + 3, work, got, v, order), "%s of %u does not converge", what, n);
    for (uint32_t i = 0; i < n; i++) {
        test_require(fabs(got[i] - value[i]) <= 1e-12 * norm, "%s of %u: value %u is %g, not %g",
                     what, n, i, got[i], value[i]);
        for (uint32_t d = 0; d < n; d++) {
            double av = 0.0, dot = 0.0;
            for (uint32_t k = 0; k < n; k++) {
                av += a[d * n + k] * v[i * n + k];
                dot += v[d * n + k] * v[i * n + k];
            }
            test_require(fabs(av - got[i] * v[i * n + d]) <= 1e-12 * norm,
                         "%s of %u: vector %u is none", what, n, i);
            test_require(fabs(dot - (d == i)) <= 1e-12, "%s of %u: vectors %u and %u", what, n, i,
                         d);
        }
    }
    free(u);
    free(a);
    free(work);
    free(v);
    free(got);
    free(order);
}

START_TEST(eigenproblems)
{
    const uint32_t sizes[] = {1, 2, 8, 40, 64, 128};
    for (size_t s = 0; s < kvcl_array_len(sizes); s++) {
        double falls[128], steps[128] = {0}, rank1[128] = {3.0}, none[128] = {0};
        for (uint32_t i = 0; i < 128; i++) {
            falls[i] = pow(0.7, i);
            steps[i] = 7.0 - (double)(uint32_t)(i / 20);
        }
        check_eigen(sizes[s], falls, "a falling spectrum");
        check_eigen(sizes[s], steps, "a spectrum of steps");
        check_eigen(sizes[s], rank1, "rank 1");
        check_eigen(sizes[s], none, "zero");
    }
}
END_TEST

/* ---- deals ---------------------------------------------------------------------------------- */

static uint32_t words_of(const uint8_t *width, uint32_t n)
{
    uint32_t words = 0;
    for (uint32_t bits = 1; bits <= 8; bits *= 2) {
        uint32_t codes = 0;
        for (uint32_t i = 0; i < n; i++)
            codes += width[i] == bits;
        words += kvcl_div_up(codes * bits, 32);
    }
    return words;
}

static uint32_t total_words(const uint8_t *width, uint32_t heads, uint32_t n)
{
    uint32_t words = 0;
    for (uint32_t h = 0; h < heads; h++)
        words += words_of(width + h * n, n);
    return words;
}

/* The best of all counts of words for one head whose variances fall. */
static double best_of_all(const double *v, uint32_t n, uint32_t words)
{
    double best = INFINITY;
    for (uint32_t a = 0; a <= words; a++)
        for (uint32_t b = 0; a + b <= words; b++)
            for (uint32_t c = 0; a + b + c <= words; c++) {
                uint32_t ends[4] = {4 * a, 4 * a + 8 * b, 4 * a + 8 * b + 16 * c, 0};
                double error = 0.0;
                ends[3] = ends[2] + 32 * (words - a - b - c);
                for (uint32_t i = 0, plane = 0; i < n; i++) {
                    while (plane < 4 && i >= ends[plane])
                        plane++;
                    error += v[i] * kvcl_spectral_distortion(plane < 4 ? 8u >> plane : 0);
                }
                best = error < best ? error : best;
            }
    return best;
}

START_TEST(deal_of_one_head)
{
    const uint32_t n = 40;
    for (uint32_t words = 0; words <= 10; words++) {
        double v[40], error;
        uint8_t width[40];
        for (uint32_t i = 0; i < n; i++)
            v[i] = pow(0.8 + 0.02 * words, i) * (1.0 + 1e-3 * i);
        for (uint32_t i = 1; i < n; i++)
            v[i] = v[i] < v[i - 1] ? v[i] : v[i - 1];
        ck_assert_int_eq(kvcl_spectral_deal(ctx, 1, n, v, words, width, &error), KVCL_OK);
        double want = best_of_all(v, n, words);
        test_require(fabs(error - want) <= 1e-12 * want, "%u words: error %g, the best is %g",
                     words, error, want);
        test_require(words_of(width, n) <= words, "%u words: took %u", words, words_of(width, n));
    }
}
END_TEST

/* Heads of different spectra: within the budget, better than a fixed share, far better than equal
 * widths; monotone in the words; more variance never has fewer bits. */
START_TEST(deal_among_heads)
{
    enum { HEADS = 3, COUNT = 128, WORDS = 8 };
    static double v[HEADS * COUNT];
    static uint8_t width[HEADS * COUNT], alone[COUNT];
    double error, fixed = 0.0, equal = 0.0, before = INFINITY;
    for (uint32_t i = 0; i < HEADS * COUNT; i++) {
        uint32_t at = i * 37 % COUNT, head = i / COUNT; /* in no order */
        v[i] = pow(0.99 - 0.04 * (double)head, at) * (1.0 + (double)head);
    }
    ck_assert_int_eq(kvcl_spectral_deal(ctx, HEADS, COUNT, v, HEADS * WORDS, width, &error),
                     KVCL_OK);
    ck_assert_uint_le(total_words(width, HEADS, COUNT), HEADS * WORDS);
    for (uint32_t h = 0; h < HEADS; h++) {
        double one;
        ck_assert_int_eq(kvcl_spectral_deal(ctx, 1, COUNT, v + h * COUNT, WORDS, alone, &one),
                         KVCL_OK);
        fixed += one;
        for (uint32_t i = 0; i < COUNT; i++) {
            equal += v[h * COUNT + i] * kvcl_spectral_distortion(2);
            for (uint32_t j = 0; j < COUNT; j++)
                test_require(v[h * COUNT + i] <= v[h * COUNT + j] ||
                                 width[h * COUNT + i] >= width[h * COUNT + j],
                             "head %u: %u has fewer bits than %u", h, i, j);
        }
    }
    test_require(error < fixed && fixed < 0.7 * equal, "errors: shared %g, fixed %g, equal %g",
                 error, fixed, equal);
    for (uint32_t words = 0; words <= HEADS * COUNT / 4 + 3; words++) {
        ck_assert_int_eq(kvcl_spectral_deal(ctx, HEADS, COUNT, v, words, width, &error), KVCL_OK);
        test_require(error <= before, "%u words are worse than one fewer", words);
        test_require(total_words(width, HEADS, COUNT) <= words, "%u words are too few", words);
        before = error;
    }
    for (uint32_t i = 0; i < HEADS * COUNT; i++)
        ck_assert_uint_eq(width[i], 8);
}
END_TEST

START_TEST(deal_of_nothing)
{
    double v[64] = {0}, error;
    uint8_t width[64];
    ck_assert_int_eq(kvcl_spectral_deal(ctx, 2, 32, v, 5, width, &error), KVCL_OK);
    test_true(error == 0.0);
    for (uint32_t i = 0; i < 64; i++)
        ck_assert_uint_eq(width[i], 0);
    v[3] = v[40] = 1.0; /* few numbers, many words */
    ck_assert_int_eq(kvcl_spectral_deal(ctx, 2, 32, v, 50, width, &error), KVCL_OK);
    for (uint32_t i = 0; i < 64; i++)
        ck_assert_uint_eq(width[i], v[i] > 0.0 ? 8 : 0);
}
END_TEST

/* ---- fits ----------------------------------------------------------------------------------- */

enum { HEADS = 2, D = 32, FOLD = 4, CELLS = D * D };

typedef struct made {
    float pages[2 * HEADS * FOLD * CELLS], queries[HEADS * CELLS];
    kvcl_spectral_shape shape;
    kvcl_spectral_moments moments;
    kvcl_spectral_fit fit;
    unsigned char *basis;
} made;

/* Moments of a known spectrum: value[i] * row[r] in a random basis, 100 slots. */
static void make_moments(made *m)
{
    static const double row[FOLD] = {8.0, 2.0, 1.5, 0.5};
    double u[CELLS], value[D], c[CELLS];
    memset(m, 0, sizeof *m);
    for (uint32_t h = 0; h < 2 * HEADS; h++) {
        random_basis(D, u);
        for (uint32_t i = 0; i < D; i++)
            value[i] = 100.0 * pow(0.75, i);
        compose(D, u, value, c);
        for (uint32_t i = 0; i < FOLD * CELLS; i++)
            m->pages[h * FOLD * CELLS + i] = (float)(c[i % CELLS] * row[i / CELLS]);
        if (h >= HEADS)
            continue;
        random_basis(D, u);
        for (uint32_t i = 0; i < D; i++)
            value[i] = 500.0 * pow(0.85, i);
        compose(D, u, value, c);
        for (uint32_t i = 0; i < CELLS; i++)
            m->queries[h * CELLS + i] = (float)c[i];
    }
    m->shape = (kvcl_spectral_shape){HEADS, D, FOLD, 16, 16};
    m->moments = (kvcl_spectral_moments){.pages = m->pages,
                                         .queries = m->queries,
                                         .n_slots = 100,
                                         .metric = KVCL_METRIC_RAW,
                                         .pairing = KVCL_ROPE_HALVES,
                                         .n_rot = D};
}

/* Fits; what comes out packs within the words. */
static void fit(made *m)
{
    kvcl_status st = kvcl_spectral_fit_make(ctx, &m->shape, &m->moments, 1, &m->fit);
    test_require(st == KVCL_OK, "fit: %s", kvcl_last_error(ctx));
    m->basis = test_zeros(kvcl_spectral_basis_bytes(&m->shape), 1);
    st = kvcl_spectral_pack(ctx, &m->shape, m->fit.parts, m->basis);
    test_require(st == KVCL_OK, "pack: %s", kvcl_last_error(ctx));
}

static void done(made *m)
{
    kvcl_spectral_fit_free(ctx, &m->fit);
    free(m->basis);
}

/* What a part's components make of row x: the largest difference to it. */
static double round_trip(const kvcl_spectral_part *p, const double *x)
{
    const int8_t *analysis = p->analysis ? p->analysis : p->synth;
    double y[D] = {0}, worst = 0.0;
    for (uint32_t i = 0; i < p->n_comp; i++) {
        double c = 0.0;
        for (uint32_t d = 0; d < D; d++)
            c += analysis[i * D + d] * x[d];
        for (uint32_t d = 0; d < D; d++)
            y[d] += (double)p->gain[i] * c * p->synth[i * D + d];
    }
    for (uint32_t d = 0; d < D; d++)
        worst = fmax(worst, fabs(y[d] - x[d]));
    return worst;
}

START_TEST(known_spectrum)
{
    static made m, again;
    float table[8 * D];
    for (uint32_t i = 0; i < 8 * D; i += 2) {
        table[i] = (float)cos(0.1 * (double)(uint32_t)(i / D) * (i % D));
        table[i + 1] = (float)sin(0.1 * (double)(uint32_t)(i / D) * (i % D));
    }
    for (uint32_t metric = 0; metric <= KVCL_METRIC_SPAN; metric++) {
        rng.counter = 0;
        make_moments(&m);
        m.moments.table = table;
        m.moments.n_span = 8;
        m.moments.metric = (kvcl_spectral_metric)metric;
        fit(&m);
        for (uint32_t h = 0; h < 2 * HEADS; h++) {
            const kvcl_spectral_part *p = &m.fit.parts[h];
            double x[D];
            ck_assert_uint_eq(p->n_comp, D);
            test_true((p->analysis != NULL) == (metric != 0 && h < HEADS));
            for (uint32_t d = 0; d < D; d++)
                x[d] = test_normal(&rng);
            test_require(round_trip(p, x) < 0.15, "metric %u, part %u: off by %g", metric, h,
                         round_trip(p, x));
            /* variances of rows as they were made; of components in the basis' own units */
            for (uint32_t i = 0; i < D; i++)
                for (uint32_t r = 1; r < FOLD; r++) {
                    static const double ratio[FOLD] = {1.0, 0.5, 0.4330127, 0.25};
                    double a = (double)p->amp[i], b = (double)p->amp[r * D + i];
                    test_require(fabs(b - a * ratio[r]) <= 1e-5 * a, "amplitude %g of %g", b, a);
                }
            for (uint32_t i = 0; i < D && !p->analysis; i++) {
                double sd = (double)p->amp[i] * (double)p->gain[i], norm = 0.0;
                for (uint32_t d = 0; d < D; d++)
                    norm += (double)(p->synth[i * D + d] * p->synth[i * D + d]);
                double want = sqrt(100.0 * pow(0.75, i) * 8.0 / 100.0);
                test_require(i > 12 || fabs(sd * sqrt(norm) - want) < 0.03 * want,
                             "component %u: %g, not %g", i, sd * sqrt(norm), want);
            }
        }
        for (uint32_t of_v = 0; of_v < 2; of_v++)
            test_require(m.fit.error[of_v] < 0.02 * m.fit.energy[of_v], "error %g of %g",
                         m.fit.error[of_v], m.fit.energy[of_v]);
        again = m; /* the same bits with another number of threads */
        again.moments.pages = again.pages;
        kvcl_spectral_fit other;
        ck_assert_int_eq(kvcl_spectral_fit_make(ctx, &m.shape, &m.moments, 3, &other), KVCL_OK);
        again.fit = other;
        again.basis = test_zeros(kvcl_spectral_basis_bytes(&m.shape), 1);
        ck_assert_int_eq(kvcl_spectral_pack(ctx, &m.shape, other.parts, again.basis), KVCL_OK);
        ck_assert_mem_eq(m.basis, again.basis, kvcl_spectral_basis_bytes(&m.shape));
        done(&again);
        done(&m);
    }
}
END_TEST

/* Moments averaged over two distances, a right angle apart, against the product of matrices. */
START_TEST(metric_of_turns)
{
    enum { N = 16, ROT = 12 };
    float q[N * N], table[2 * ROT];
    double work[N * N], got[N * N], turn[N * N], half[N * N], ridge = 0.0;
    for (uint32_t i = 0; i < N * N; i++)
        q[i] = 0.0f;
    for (uint32_t k = 0; k < 40; k++) {
        float x[N];
        for (uint32_t d = 0; d < N; d++)
            x[d] = (float)test_normal(&rng);
        for (uint32_t i = 0; i < N * N; i++)
            q[i] += x[i / N] * x[i % N];
    }
    for (uint32_t i = 0; i < 2 * ROT; i++)
        table[i] = i < ROT ? (i % 2 == 0 ? 1.0f : 0.0f) : (i % 2 == 0 ? 0.0f : 1.0f);
    for (uint32_t i = 0; i < N; i++)
        ridge += 1e-3 * (double)q[i * N + i] / N;
    for (uint32_t pairing = KVCL_ROPE_ADJACENT; pairing <= KVCL_ROPE_HALVES; pairing++) {
        kvcl_spectral_moments m = {.metric = KVCL_METRIC_SPAN,
                                   .queries = q,
                                   .pairing = (kvcl_rope_pairing)pairing,
                                   .n_rot = ROT,
                                   .table = table,
                                   .n_span = 2};
        kvcl_spectral_metric_make(&m, N, 0, work, got);
        memset(turn, 0, sizeof turn);
        for (uint32_t d = 0; d < N; d++)
            if (d >= ROT) {
                turn[d * N + d] = 1.0;
            } else if (pairing == KVCL_ROPE_ADJACENT) {
                turn[d * N + (d ^ 1u)] = d % 2 ? 1.0 : -1.0;
            } else {
                turn[d * N + (d + ROT / 2) % ROT] = d < ROT / 2 ? -1.0 : 1.0;
            }
        for (uint32_t i = 0; i < N * N; i++) {
            half[i] = 0.0;
            for (uint32_t k = 0; k < N; k++)
                half[i] += turn[i / N * N + k] * (double)q[k * N + i % N];
        }
        for (uint32_t i = 0; i < N * N; i++) {
            double want = (double)q[i] + (i / N == i % N ? 2.0 * ridge : 0.0);
            for (uint32_t k = 0; k < N; k++)
                want += half[i / N * N + k] * turn[i % N * N + k];
            test_require(fabs(2.0 * got[i] - want) <= 1e-9, "pairing %u: element %u is %g, not %g",
                         pairing, i, got[i], 0.5 * want);
        }
    }
}
END_TEST

START_TEST(degenerate)
{
    static made m;
    make_moments(&m); /* nothing at all */
    memset(m.pages, 0, sizeof m.pages);
    fit(&m);
    for (uint32_t h = 0; h < 2 * HEADS; h++)
        for (uint32_t e = 0; e < FOLD * D; e++)
            test_true(m.fit.parts[h].width[e] == 0 && m.fit.parts[h].amp[e] == 0.0f);
    done(&m);
    make_moments(&m); /* rank 1 in one head, nothing in the others; one slot */
    memset(m.pages, 0, sizeof m.pages);
    for (uint32_t i = 0; i < CELLS; i++)
        m.pages[i] = (float)((i % D + 1) * (uint32_t)(i / D + 1));
    m.moments.n_slots = 1;
    fit(&m);
    ck_assert_uint_eq(m.fit.parts[0].width[0], 8);
    test_true(m.fit.error[0] < 1e-3 * m.fit.energy[0] && m.fit.energy[1] == 0.0);
    done(&m);
    make_moments(&m); /* rank 1 again, and everything else to be expected, too */
    memset(m.pages, 0, sizeof m.pages);
    m.pages[0] = 32.0f;
    m.moments.metric = KVCL_METRIC_NONE;
    m.moments.n_slots = 1;
    m.moments.shrink[0] = 0.25;
    fit(&m);
    for (uint32_t i = 0; i < D; i++) {
        double want = 127.0 * sqrt(i == 0 ? 32.25 : 0.25);
        test_require(fabs((double)m.fit.parts[0].amp[i] - want) < 1e-3, "amplitude %u is %g", i,
                     (double)m.fit.parts[0].amp[i]);
    }
    ck_assert_uint_gt(m.fit.parts[0].width[D - 1], 0);
    done(&m);
    make_moments(&m); /* no queries: as without a metric */
    memset(m.queries, 0, sizeof m.queries);
    fit(&m);
    test_true(m.fit.error[0] < 0.02 * m.fit.energy[0]);
    done(&m);
    make_moments(&m);
    m.queries[CELLS + 5] = INFINITY;
    ck_assert_int_eq(kvcl_spectral_fit_make(ctx, &m.shape, &m.moments, 1, &m.fit),
                     KVCL_E_NOT_FINITE);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "queries of kv head 1"));
    make_moments(&m);
    m.pages[HEADS * FOLD * CELLS + 7] = NAN;
    ck_assert_int_eq(kvcl_spectral_fit_make(ctx, &m.shape, &m.moments, 1, &m.fit),
                     KVCL_E_NOT_FINITE);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "V of kv head 0"));
    make_moments(&m);
    m.moments.n_slots = 0;
    ck_assert_int_eq(kvcl_spectral_fit_make(ctx, &m.shape, &m.moments, 1, &m.fit), KVCL_E_ARG);
    m.moments.n_slots = 1;
    m.shape.fold = 3;
    ck_assert_int_eq(kvcl_spectral_fit_make(ctx, &m.shape, &m.moments, 1, &m.fit),
                     KVCL_E_UNSUPPORTED);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fit");
    TCase *c = tcase_create("fit");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, eigenproblems);
    tcase_add_test(c, deal_of_one_head);
    tcase_add_test(c, deal_among_heads);
    tcase_add_test(c, deal_of_nothing);
    tcase_add_test(c, known_spectrum);
    tcase_add_test(c, metric_of_turns);
    tcase_add_test(c, degenerate);
    suite_add_tcase(s, c);
    return test_main(s, false);
}
