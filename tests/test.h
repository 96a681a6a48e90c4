/* test.h - what every test stands on, above the Check framework: seeds that are printed, made-up
 * data by counter, a folder that is removed again, and the rows of the device table.
 *
 * Environment:
 *   KVCL_TEST_SEED     seed of all made-up data (printed at the start of every program)
 *   KVCL_TEST_FILTER   only op cases whose label contains this text, or one of several (comma)
 *   KVCL_TEST_DEVICES  rows to test, by comma: "cpu" (every capability level on 1 thread and on
 *                      more), "cpu:avx2:3", "cpu:auto", or a device as `--device` names it;
 *                      "@NAME=VALUE" behind a row sets a variable while the device is opened.
 *                      Default: "cpu"
 *   KVCL_TEST_REQUIRE  1: a named device that is not there is a failure, not a skipped row
 *   KVCL_TEST_SMALL    1: few and tiny cases, for simulators; 2: likewise, but for KVCL_TEST_FULL
 *   KVCL_TEST_FULL     1: all combinations of the tables of cases, every number of threads
 *   KVCL_TEST_VERBOSE  1: names and times each case, passes on the library's log
 *   KVCL_SHARED        folder of reference models and data; default: "../shared" beside the sources
 */
#ifndef KVCL_TEST_H
#define KVCL_TEST_H

#include "base.h"
#include "dev.h"

#include <check.h>

/* Like ck_assert_msg, but for loops: Check's own sends a message on success, too. */
#define test_require(cond, ...)        \
    do {                               \
        if (!(cond))                   \
            ck_abort_msg(__VA_ARGS__); \
    } while (0)
#define test_true(cond) test_require(cond, "'%s' is false", #cond)

/* ---- made-up data -------------------------------------------------------------------------- */

/* Word number `counter` of stream `seed`: any word can be had without the ones before it. */
uint64_t test_word(uint64_t seed, uint64_t counter);
/* The seed of this run. */
uint64_t test_seed(void);

typedef struct test_rng {
    uint64_t seed, counter;
} test_rng;

uint32_t test_u32(test_rng *rng);
/* 0 .. n-1 */
uint32_t test_below(test_rng *rng, uint32_t n);
/* [-1, 1) in steps of 2^-23 */
float test_unit(test_rng *rng);
/* of the standard normal distribution */
double test_normal(test_rng *rng);
/* n values in [-scale, scale), now and then +0 and -0. */
void test_fill_f32(test_rng *rng, float *out, size_t n, float scale);
/* Rows of a weight matrix of any type: scales and codes over their whole range, zeros and half
 * sub-normals among them.  bytes: kvcl_type_bytes of the matrix. */
void test_fill_rows(test_rng *rng, kvcl_type type, void *out, size_t bytes);

#define TEST_N_TYPES 6
extern const kvcl_type test_types[TEST_N_TYPES];

/* ---- environment --------------------------------------------------------------------------- */

bool test_env_on(const char *name);
/* Whether to run a few small cases alone: KVCL_TEST_SMALL is 1, or 2 and KVCL_TEST_FULL is not on.
 */
bool test_small(void);
/* A new private folder; the same one is removed, with all in it, by test_folder_remove(). */
void test_folder_make(char *path, size_t cap);
void test_folder_remove(const char *path);
/* Path of a file under the shared folder; false when it is not there. */
bool test_shared(const char *name, char *path, size_t cap);
/* Path of a file of the source tree. */
void test_source(const char *name, char *path, size_t cap);
/* calloc(); fails the test when there is no memory. */
void *test_zeros(size_t n, size_t size);
/* A whole file in malloc'ed memory; fails the test when it cannot be read. */
void *test_read_file(const char *path, size_t *n_out);
void test_write_file(const char *path, const void *data, size_t bytes);

/* Runs the suite in this process (devices stay open from test to test) or, with fork, each test in
 * its own; returns main()'s result. */
int test_main(Suite *suite, bool fork);
/* The same in this process, for suites on rows of the device table: skipped where none is here. */
int test_main_on_rows(Suite *suite);

/* What ctest takes for "not run". */
#define TEST_SKIPPED 77

/* ---- rows of the device table -------------------------------------------------------------- */

typedef struct test_dev {
    char row[128];
    kvcl_ctx *ctx;
    kvcl_dev *dev;
    kvcl_queue *q;
} test_dev;

/* Opens a row ("cpu:avx2:3", "opencl:pocl:0@NAME=VALUE").  E_UNSUPPORTED when the processor lacks
 * the level, E_NO_DEVICE when there is no such device.  On error nothing stays open, and the
 * sentence stands in why. */
kvcl_status test_dev_open(const char *row, test_dev *out, char *why, size_t why_cap);
void test_dev_close(test_dev *d);

#define TEST_MAX_ROWS 32

/* The rows of KVCL_TEST_DEVICES, opened; kept until the process ends.  Rows that cannot be opened
 * are named on stdout.  Returns how many are open. */
size_t test_rows(test_dev **out);
/* The scalar twins on one thread: what every row is compared with. */
test_dev *test_reference(void);

/* Whether this row is what test_reference() is: nothing to compare. */
bool test_is_reference(const test_dev *d);
/* Whether this row differs from one before it in the number of threads alone: having the same bits,
 * it has the same identities. */
bool test_more_threads(const test_dev *d);

/* Names of the rows of KVCL_TEST_DEVICES, unopened; returns how many. */
size_t test_row_names(char names[TEST_MAX_ROWS][128]);

#endif
