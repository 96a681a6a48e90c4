/* test.c - the frame of the tests.  See test.h. */
#define _POSIX_C_SOURCE 200809L

#include "test.h"

#include "f16.h"
#include "types.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- made-up data -------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t test_word(uint64_t seed, uint64_t counter)
{
    return mix(mix(seed + UINT64_C(0x9e3779b97f4a7c15)) + counter * UINT64_C(0x9e3779b97f4a7c15));
}

uint64_t test_seed(void)
{
    const char *text = getenv("KVCL_TEST_SEED");
    return text && *text ? strtoull(text, NULL, 0) : 20240607;
}

uint32_t test_u32(test_rng *rng) { return (uint32_t)(test_word(rng->seed, rng->counter++) >> 32); }

uint32_t test_below(test_rng *rng, uint32_t n)
{
    return (uint32_t)((uint64_t)test_u32(rng) * n >> 32);
}

float test_unit(test_rng *rng)
{
    return (float)((int32_t)(test_u32(rng) >> 8) - 8388608) * 0x1p-23f;
}

double test_normal(test_rng *rng)
{
    double u = 0.5 + 0.5 * (double)test_unit(rng), v = (double)test_unit(rng);
    return sqrt(-2.0 * log(u + 1e-12)) * cos(3.14159265358979 * v);
}

void test_fill_f32(test_rng *rng, float *out, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t odd = test_below(rng, 64);
        out[i] = odd == 0 ? 0.0f : odd == 1 ? -0.0f : test_unit(rng) * scale;
    }
}

static uint16_t random_half(test_rng *rng, float scale)
{
    uint32_t odd = test_below(rng, 64);
    if (odd == 0)
        return test_u32(rng) & 1u ? 0x8000u : 0;
    if (odd == 1) /* sub-normal */
        return (uint16_t)(test_u32(rng) & 0x83ffu);
    return kvcl_f32_to_f16(test_unit(rng) * scale);
}

void test_fill_rows(test_rng *rng, kvcl_type type, void *out, size_t bytes)
{
    unsigned char *p = out;
    size_t block = kvcl_type_block_bytes(type);
    for (size_t at = 0; at + block <= bytes; at += block) {
        float x = 0.0f;
        uint16_t h = 0;
        test_fill_f32(rng, &x, 1, 1.0f);
        if (type == KVCL_F32) {
            memcpy(p + at, &x, sizeof x);
            continue;
        }
        if (type == KVCL_BF16)
            h = (uint16_t)(kvcl_f32_bits(x) >> 16);
        else
            h = random_half(rng, type == KVCL_F16 ? 1.0f : 0.05f);
        memcpy(p + at, &h, sizeof h);
        for (size_t i = sizeof h; i < block; i++)
            p[at + i] = (unsigned char)test_u32(rng);
    }
}

const kvcl_type test_types[TEST_N_TYPES] = {KVCL_F32,  KVCL_F16,  KVCL_BF16,
                                            KVCL_Q8_0, KVCL_Q5_0, KVCL_Q4_0};

/* ---- environment --------------------------------------------------------------------------- */

bool test_env_on(const char *name)
{
    const char *text = getenv(name);
    return text && *text && strcmp(text, "0") != 0;
}

void test_folder_make(char *path, size_t cap)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(path, cap, "%s/kvcl-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(path));
}

void test_folder_remove(const char *path)
{
    char command[1024];
    ck_assert_ptr_nonnull(strstr(path, "/kvcl-test-"));
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    ck_assert_int_eq(system(command), 0);
}

bool test_small(void)
{
    const char *text = getenv("KVCL_TEST_SMALL");
    bool two = text && strcmp(text, "2") == 0;
    return test_env_on("KVCL_TEST_SMALL") && !(two && test_env_on("KVCL_TEST_FULL"));
}

void test_source(const char *name, char *path, size_t cap)
{
    snprintf(path, cap, "%s/%s", KVCL_TEST_SOURCE_DIR, name);
}

bool test_shared(const char *name, char *path, size_t cap)
{
    const char *folder = getenv("KVCL_SHARED");
    snprintf(path, cap, "%s/%s", folder && *folder ? folder : KVCL_TEST_SOURCE_DIR "/../shared",
             name);
    return access(path, R_OK) == 0;
}

void *test_zeros(size_t n, size_t size)
{
    void *p = calloc(n, size);
    ck_assert_ptr_nonnull(p);
    return p;
}

void *test_read_file(const char *path, size_t *n_out)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "cannot open %s", path);
    ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
    long bytes = ftell(f);
    ck_assert_int_ge(bytes, 0);
    rewind(f);
    char *data = malloc((size_t)bytes + 1);
    ck_assert_ptr_nonnull(data);
    ck_assert_uint_eq(fread(data, 1, (size_t)bytes, f), (size_t)bytes);
    data[bytes] = 0;
    fclose(f);
    *n_out = (size_t)bytes;
    return data;
}

void test_write_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "cannot create %s", path);
    ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
    ck_assert_int_eq(fclose(f), 0);
}

static void close_rows(void);

int test_main(Suite *suite, bool fork)
{
    printf("seed %llu\n", (unsigned long long)test_seed());
    fflush(stdout);
    SRunner *r = srunner_create(suite);
    srunner_set_fork_status(r, fork ? CK_FORK_GETENV : CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    close_rows(); /* not atexit(): drivers end their own objects there, some before ours */
    return failed ? 1 : 0;
}

/* ---- rows of the device table -------------------------------------------------------------- */

static void print_log(void *user, kvcl_log_level level, const char *message)
{
    KVCL_UNUSED(user);
    fprintf(stderr, "[%d] %s\n", (int)level, message);
}

/* For what goes wrong before any test runs, where Check cannot fail. */
static void require(bool cond, const char *row, const char *why)
{
    if (cond)
        return;
    fprintf(stderr, "%s: %s\n", row, why);
    exit(1);
}

/* Sets the variables behind the first '@' of a row; what they held before goes to old. */
#define MAX_VARS 8
typedef struct row_vars {
    size_t n;
    char name[MAX_VARS][64];
    char *old[MAX_VARS];
} row_vars;

static void var_set(row_vars *vars, const char *name, const char *value)
{
    require(vars->n < MAX_VARS, name, "too many variables");
    const char *old = getenv(name);
    snprintf(vars->name[vars->n], sizeof vars->name[0], "%s", name);
    vars->old[vars->n++] = old ? strdup(old) : NULL;
    setenv(name, value, 1);
}

static void vars_restore(row_vars *vars)
{
    while (vars->n > 0) {
        vars->n--;
        if (vars->old[vars->n])
            setenv(vars->name[vars->n], vars->old[vars->n], 1);
        else
            unsetenv(vars->name[vars->n]);
        free(vars->old[vars->n]);
    }
}

static void vars_parse(row_vars *vars, char *text)
{
    for (char *save = NULL, *one = strtok_r(text, "@", &save); one;
         one = strtok_r(NULL, "@", &save)) {
        char *eq = strchr(one, '=');
        require(eq != NULL, one, "not NAME=VALUE, in KVCL_TEST_DEVICES");
        *eq = 0;
        var_set(vars, one, eq + 1);
    }
}

/* "cpu:avx2:3" -> which "cpu", variables, threads, level; anything else names a device. */
static void row_parse(const char *row, row_vars *vars, char which[128], char level[16],
                      uint32_t *n_threads)
{
    snprintf(which, 128, "%s", row);
    char *at = strchr(which, '@');
    if (at) {
        *at = 0;
        vars_parse(vars, at + 1);
    }
    unsigned threads = 0;
    level[0] = 0;
    if (sscanf(which, "cpu:%15[a-z0-9]:%u", level, &threads) >= 1) {
        var_set(vars, "KVCL_CPU_CAPS", level);
        snprintf(which, 128, "cpu");
        level[0] = strcmp(level, "auto") == 0 ? 0 : level[0];
    }
    *n_threads = threads;
}

kvcl_status test_dev_open(const char *row, test_dev *out, char *why, size_t why_cap)
{
    row_vars vars = {0};
    char which[128], level[16];
    kvcl_ctx_options opt = {0};
    test_dev d = {0};
    row_parse(row, &vars, which, level, &opt.n_threads);
    opt.log = test_env_on("KVCL_TEST_VERBOSE") ? print_log : NULL;
    opt.log_level = KVCL_LOG_DEBUG;
    snprintf(d.row, sizeof d.row, "%s", row);
    kvcl_status st = kvcl_ctx_create(&opt, &d.ctx);
    if (st == KVCL_OK)
        st = kvcl_device_open(d.ctx, which, &d.dev);
    if (st == KVCL_OK && !strstr(kvcl_device_get_info(d.dev)->detail, level))
        st = kvcl_fail(d.ctx, KVCL_E_UNSUPPORTED, "this processor has no %s", level);
    if (st == KVCL_OK)
        st = kvcl_queue_create(d.dev, &d.q);
    vars_restore(&vars);
    if (st == KVCL_OK) {
        *out = d;
        return st;
    }
    snprintf(why, why_cap, "%s", d.ctx ? kvcl_last_error(d.ctx) : kvcl_status_string(st));
    test_dev_close(&d);
    return st;
}

void test_dev_close(test_dev *d)
{
    kvcl_queue_free(d->q);
    kvcl_device_close(d->dev);
    kvcl_ctx_free(d->ctx);
    memset(d, 0, sizeof *d);
}

static void add_name(char names[TEST_MAX_ROWS][128], size_t *n, const char *name)
{
    require(*n < TEST_MAX_ROWS, name, "too many rows");
    snprintf(names[(*n)++], 128, "%s", name);
}

size_t test_row_names(char names[TEST_MAX_ROWS][128])
{
    static const char *const levels[] = {"scalar", "avx2", "avx512", "neon"};
    const char *env = getenv("KVCL_TEST_DEVICES");
    char text[2048], name[128];
    size_t n = 0;
    snprintf(text, sizeof text, "%s", env && *env ? env : "cpu");
    for (char *save = NULL, *one = strtok_r(text, ",", &save); one;
         one = strtok_r(NULL, ",", &save)) {
        if (strcmp(one, "cpu") != 0) {
            add_name(names, &n, one);
            continue;
        }
        for (size_t i = 0; i < kvcl_array_len(levels); i++) {
            for (unsigned threads = 1; threads <= 3; threads++) {
                /* one thread, and two or three: in turn, as the paths share how work is split */
                if (threads == 3 - i % 2 && !test_env_on("KVCL_TEST_FULL"))
                    continue;
                snprintf(name, sizeof name, "cpu:%s:%u", levels[i], threads);
                add_name(names, &n, name);
            }
        }
    }
    return n;
}

static test_dev rows[TEST_MAX_ROWS], reference;
static size_t n_rows;

static void close_rows(void)
{
    for (size_t i = 0; i < n_rows; i++)
        test_dev_close(&rows[i]);
    test_dev_close(&reference);
}

size_t test_rows(test_dev **out)
{
    static bool done;
    char names[TEST_MAX_ROWS][128], why[512];
    if (!done) {
        size_t n = test_row_names(names);
        for (size_t i = 0; i < n; i++) {
            kvcl_status st = test_dev_open(names[i], &rows[n_rows], why, sizeof why);
            bool absent = st == KVCL_E_UNSUPPORTED || st == KVCL_E_NO_DEVICE;
            bool level = strncmp(names[i], "cpu:", 4) == 0;
            bool fine = st == KVCL_OK || (absent && (level || !test_env_on("KVCL_TEST_REQUIRE")));
            require(fine, names[i], why);
            printf("row %-28s %s\n", names[i],
                   st ? why : kvcl_device_get_info(rows[n_rows].dev)->detail);
            n_rows += st == KVCL_OK;
        }
        done = true;
        fflush(stdout);
    }
    *out = rows;
    return n_rows;
}

int test_main_on_rows(Suite *suite)
{
    test_dev *all;
    if (test_rows(&all) > 0)
        return test_main(suite, false);
    printf("none of the devices of KVCL_TEST_DEVICES is here\n");
    srunner_free(srunner_create(suite));
    return TEST_SKIPPED;
}

test_dev *test_reference(void)
{
    char why[512] = "";
    if (!reference.dev)
        require(test_dev_open("cpu:scalar:1", &reference, why, sizeof why) == KVCL_OK,
                "the scalar twins", why);
    return &reference;
}

bool test_is_reference(const test_dev *d) { return strcmp(d->row, "cpu:scalar:1") == 0; }

bool test_more_threads(const test_dev *d)
{
    return strncmp(d->row, "cpu:", 4) == 0 && !strstr(d->row, ":1");
}
