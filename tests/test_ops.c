/* test_ops.c - every case of every operation on every row of the device table: the scalar twin's
 * bits, guard bytes, and the case's identity. */
#define _POSIX_C_SOURCE 200809L

#include "case.h"

#include "f16.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct stem {
    const char *name;
    void (*list)(test_cases *cases);
} stem;

static const stem stems[] = {
#define STEM_ROW(name) {#name, test_cases_##name},
    TEST_STEMS(STEM_ROW)
#undef STEM_ROW
};

static unsigned char *run_case(test_dev *d, const test_case *c, uint64_t seed, size_t *n_out)
{
    test_run r;
    test_run_begin(&r, d, seed);
    c->run(&r, c->params);
    test_wait(&r);
    unsigned char *blob = test_run_blob(&r, n_out);
    test_run_end(&r);
    return blob;
}

/* Seconds of processor time of all threads: what a case costs, however busy the machine is. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Counts the words that differ and shows the first few. */
static void report(const char *row, const char *label, const unsigned char *want,
                   const unsigned char *got, size_t bytes)
{
    size_t n_bad = 0;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        uint32_t w, g;
        memcpy(&w, want + i, 4);
        memcpy(&g, got + i, 4);
        if (w == g)
            continue;
        if (n_bad++ < 8)
            printf("  word %zu: twin %08x %.9g, %s %08x %.9g\n", i / 4, w, (double)kvcl_bits_f32(w),
                   row, g, (double)kvcl_bits_f32(g));
    }
    printf("  %s on %s: %zu of %zu words differ\n", label, row, n_bad, bytes / 4);
    fflush(stdout);
}

static void check_bits(test_dev *d, const test_case *c, uint64_t seed, const unsigned char *want,
                       size_t n_want)
{
    size_t n_got = 0;
    unsigned char *got = run_case(d, c, seed, &n_got);
    bool same = n_want == n_got && memcmp(want, got, n_want) == 0;
    if (!same)
        report(d->row, c->label, want, got, n_want);
    free(got);
    test_require(same, "%s on %s: other bits than the scalar twin", c->label, d->row);
}

static void check_case(test_dev *d, const test_case *c, uint64_t seed, const unsigned char *want,
                       size_t n_want)
{
    bool verbose = test_env_on("KVCL_TEST_VERBOSE");
    double from = cpu_seconds();
    if (verbose) {
        printf("%s: %s", d->row, c->label);
        fflush(stdout); /* before what may crash */
    }
    if (!test_is_reference(d))
        check_bits(d, c, seed, want, n_want);
    if (c->identity && !test_more_threads(d) && !test_env_on("KVCL_TEST_BITS_ONLY")) {
        test_run r;
        test_run_begin(&r, d, seed);
        c->identity(&r, c->params);
        test_run_end(&r);
    }
    if (verbose)
        printf(": %.3f s\n", cpu_seconds() - from);
}

static void check_stem(const stem *s)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    test_cases cases = {0};
    double from = cpu_seconds();
    s->list(&cases);
    for (size_t k = 0; k < cases.n; k++) {
        size_t n_want;
        uint64_t seed = test_seed() + k;
        unsigned char *want = run_case(test_reference(), &cases.list[k], seed, &n_want);
        for (size_t i = 0; i < n_rows; i++)
            check_case(&rows[i], &cases.list[k], seed, want, n_want);
        free(want);
    }
    printf("%s: %zu cases on %zu rows, %.1f s\n", s->name, cases.n, n_rows, cpu_seconds() - from);
    fflush(stdout);
    free(cases.list);
}

START_TEST(stem_on_every_row) { check_stem(&stems[_i]); }
END_TEST

START_TEST(tables_have_no_empty_slot)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    for (size_t i = 0; i < n_rows; i++) {
        const kvcl_dev_ops *ops = &rows[i].dev->ops;
        ck_assert(ops->buf_create && ops->buf_free && ops->buf_write && ops->buf_read);
        ck_assert(ops->buf_copy && ops->mat_create && ops->mat_free && ops->matmul_scratch_bytes);
        ck_assert(ops->queue_create && ops->queue_free && ops->queue_wait);
#define KVCL_OP(name, group, stem) \
    ck_assert_msg(ops->name != NULL, "%s: no %s", rows[i].row, #name);
#include "ops.def"
#undef KVCL_OP
    }
}
END_TEST

START_TEST(devices_are_exact)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    for (size_t i = 0; i < n_rows; i++) {
        const kvcl_device_info *info = kvcl_device_get_info(rows[i].dev);
        bool exact = false;
        ck_assert_int_eq(kvcl_dev_selftest(rows[i].q, &exact), KVCL_OK);
        ck_assert_msg(exact, "%s: the self-test's hash differs", rows[i].row);
        ck_assert(info->exactness == KVCL_EXACT || info->exactness == KVCL_EXACT_SLOW);
    }
}
END_TEST

/* Where the allocation limit is small (KVCL_CL_MAX_ALLOC), a matrix becomes parts that keep it. */
START_TEST(matrices_are_split_where_they_must)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    for (size_t i = 0; i < n_rows; i++) {
        uint64_t limit = kvcl_device_get_info(rows[i].dev)->max_alloc_bytes;
        uint32_t cols = 1024, n = (uint32_t)(limit * 5 / 2 / (cols * sizeof(float)));
        test_run r;
        if (limit > 1u << 20)
            continue;
        test_run_begin(&r, &rows[i], test_seed());
        kvcl_mat *m = test_mat(&r, KVCL_F32, n, cols, NULL);
        ck_assert_uint_ge(m->n_parts, 3);
        ck_assert_uint_ge(m->rows_per_part * m->n_parts, n);
        for (uint32_t p = 0; p < m->n_parts; p++)
            ck_assert_uint_le(m->part[p]->bytes, limit);
        test_run_end(&r);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ops");
    TCase *c = tcase_create("ops");
    tcase_add_test(c, tables_have_no_empty_slot);
    tcase_add_test(c, devices_are_exact);
    tcase_add_test(c, matrices_are_split_where_they_must);
    tcase_add_loop_test(c, stem_on_every_row, 0, (int)kvcl_array_len(stems));
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
