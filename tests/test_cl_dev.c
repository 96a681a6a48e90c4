/* test_cl_dev.c - what goes wrong on an OpenCL device: sources that do not build, a device that
 * computes other bits, memory that is not there, launches that host and kernel disagree on.  Each
 * test in its own process, on the OpenCL device of KVCL_TEST_DEVICES (default PoCL's). */
#define _POSIX_C_SOURCE 200809L

#include "cl_launch.h"
#include "mem.h"
#include "test.h"
#include "types.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const files[] = {"shared.h",       "prelude.cl", "embed.cl",    "norm.cl",
                                    "matvec.cl",      "matmul.cl",  "glu.cl",      "rope.cl",
                                    "matvec_wide.cl", "attn.cl",    "selftest.cl", "pages.cl"};
static char device_row[128] = "opencl:pocl:0";
static char folder[256];
static char warnings[8192];
static kvcl_ctx *ctx;
static kvcl_dev *dev;
static kvcl_queue *q;

static void keep_warnings(void *user, kvcl_log_level level, const char *message)
{
    size_t at = strlen(warnings);
    KVCL_UNUSED(user);
    if (level == KVCL_LOG_WARN)
        snprintf(warnings + at, sizeof warnings - at, "%s\n", message);
}

static void make_ctx(bool allow_inexact)
{
    kvcl_ctx_free(ctx);
    ctx = NULL;
    const kvcl_ctx_options opt = {
        .log = keep_warnings, .log_level = KVCL_LOG_WARN, .allow_inexact = allow_inexact};
    ck_assert_int_eq(kvcl_ctx_create(&opt, &ctx), KVCL_OK);
}

static void setup(void)
{
    test_folder_make(folder, sizeof folder);
    setenv("KVCL_CACHE_DIR", "off", 1);
    setenv("KVCL_SELFTEST", "0", 1);
    unsetenv("KVCL_CL_CAPS");
    unsetenv("KVCL_CL_MAX_ALLOC");
    unsetenv("KVCL_CL_DIR");
    unsetenv("KVCL_MEM_LIMIT");
    make_ctx(false);
}

static void open_device(void)
{
    kvcl_status st = kvcl_device_open(ctx, device_row, &dev);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    st = kvcl_queue_create(dev, &q);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
}

static void teardown(void)
{
    if (dev) {
        ck_assert_uint_eq(atomic_load(&dev->bytes_used), 0);
        kvcl_queue_free(q);
        kvcl_device_close(dev);
    }
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
    test_folder_remove(folder);
}

static void expect_sentence(const char *part)
{
    ck_assert_msg(strstr(kvcl_last_error(ctx), part) != NULL, "no '%s' in: %s", part,
                  kvcl_last_error(ctx));
}

/* The kernel files into the folder, `name` with `before` put before it (NULL: left out). */
static void copy_kernels(const char *name, const char *before)
{
    for (size_t i = 0; i < kvcl_array_len(files); i++) {
        char from[512], to[512], relative[64];
        size_t n;
        bool chosen = strcmp(files[i], name) == 0;
        if (chosen && !before)
            continue;
        snprintf(relative, sizeof relative, "cl/%s", files[i]);
        test_source(relative, from, sizeof from);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        char *text = test_read_file(from, &n);
        size_t n_before = chosen ? strlen(before) : 0;
        char *whole = malloc(n + n_before + 1);
        ck_assert_ptr_nonnull(whole);
        if (n_before)
            memcpy(whole, before, n_before);
        memcpy(whole + n_before, text, n);
        test_write_file(to, whole, n + n_before);
        free(whole);
        free(text);
    }
    setenv("KVCL_CL_DIR", folder, 1);
}

/* gelu of a few values; on success they are those of the definition. */
static kvcl_status run_gelu(void)
{
    float x[100], y[100];
    kvcl_buf *b = NULL;
    ck_assert_int_eq(kvcl_buf_create(dev, sizeof x, "x", &b), KVCL_OK);
    for (int i = 0; i < 100; i++)
        x[i] = (float)(i - 50) * 0.125f;
    ck_assert_int_eq(kvcl_buf_write(q, b, 0, x, sizeof x), KVCL_OK);
    const kvcl_view v = {b, 0, sizeof x};
    kvcl_status st = kvcl_op_gelu(q, &(kvcl_gelu_args){.x = v, .out = v, .n_elems = 100});
    if (st == KVCL_OK) {
        test_dev *ref = test_reference();
        kvcl_buf *rb = NULL;
        float want[100];
        ck_assert_int_eq(kvcl_buf_create(ref->dev, sizeof x, "x", &rb), KVCL_OK);
        ck_assert_int_eq(kvcl_buf_write(ref->q, rb, 0, x, sizeof x), KVCL_OK);
        const kvcl_view rv = {rb, 0, sizeof x};
        const kvcl_gelu_args a = {.x = rv, .out = rv, .n_elems = 100};
        ck_assert_int_eq(kvcl_op_gelu(ref->q, &a), KVCL_OK);
        ck_assert_int_eq(kvcl_buf_read(ref->q, rb, 0, want, sizeof x), KVCL_OK);
        ck_assert_int_eq(kvcl_buf_read(q, b, 0, y, sizeof y), KVCL_OK);
        ck_assert_mem_eq(want, y, sizeof y);
        kvcl_buf_free(rb);
    }
    kvcl_buf_free(b);
    return st;
}

/* ---- sources --------------------------------------------------------------------------------- */

START_TEST(source_that_does_not_build)
{
    setenv("KVCL_CL_CAPS", "base", 1); /* no variant with features to warn of */
    copy_kernels("glu.cl", "this is no OpenCL;\n");
    open_device();
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(run_gelu(), KVCL_E_BUILD);
        expect_sentence("glu.cl on opencl:");
        expect_sentence("CL_BUILD_PROGRAM_FAILURE (-11)");
        expect_sentence("--device");
    }
    ck_assert_str_eq(warnings, "");
    /* nothing is kept of a failed build: mended, the same queue works */
    copy_kernels("glu.cl", "\n");
    ck_assert_int_eq(run_gelu(), KVCL_OK);
    ck_assert_int_eq(kvcl_queue_wait(q), KVCL_OK);
}
END_TEST

START_TEST(variant_that_does_not_build_falls_back)
{
    copy_kernels("glu.cl", "#if KVCL_SUBGROUPS\n#error \"not today\"\n#endif\n");
    setenv("KVCL_CL_CAPS", "+subgroups", 1);
    open_device();
    ck_assert_int_eq(run_gelu(), KVCL_OK);
    ck_assert_ptr_nonnull(strstr(warnings, "not today"));
    char *said = strstr(warnings, "using the base variant of glu.cl");
    ck_assert_ptr_nonnull(said);
    ck_assert_int_eq(run_gelu(), KVCL_OK);
    ck_assert_ptr_null(strstr(said + 1, "using the base variant"));
}
END_TEST

START_TEST(missing_source)
{
    copy_kernels("glu.cl", NULL);
    open_device();
    ck_assert_int_eq(run_gelu(), KVCL_E_IO);
    expect_sentence("/glu.cl");
}
END_TEST

START_TEST(device_that_computes_other_bits)
{
    kvcl_dev *other = NULL;
    setenv("KVCL_SELFTEST", "1", 1);
    copy_kernels("selftest.cl", "#define kvcl_selftest_word(i, j) (kvcl_selftest_word((i), (j)) ^ "
                                "((i) == 1000 && (j) == 3))\n");
    ck_assert_int_eq(kvcl_device_open(ctx, device_row, &other), KVCL_E_UNSUPPORTED);
    expect_sentence("computed other bits");
    expect_sentence("--allow-inexact");
    ck_assert_ptr_null(other);
    make_ctx(true);
    open_device();
    ck_assert_int_eq(kvcl_device_get_info(dev)->exactness, KVCL_FAST_ONLY);
    ck_assert_int_eq(run_gelu(), KVCL_OK);
}
END_TEST

START_TEST(device_that_computes_the_same_bits)
{
    setenv("KVCL_SELFTEST", "1", 1);
    open_device();
    bool slow = strstr(kvcl_device_get_info(dev)->detail, "emulated fma") != NULL;
    ck_assert_int_eq(kvcl_device_get_info(dev)->exactness, slow ? KVCL_EXACT_SLOW : KVCL_EXACT);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

START_TEST(buffer_above_the_limit)
{
    kvcl_buf *b = NULL;
    setenv("KVCL_CL_MAX_ALLOC", "1m", 1);
    open_device();
    ck_assert_int_eq(kvcl_buf_create(dev, (1 << 20) + 1, "too much", &b), KVCL_E_DEVICE_MEM);
    expect_sentence("1.0 MiB");
    ck_assert_ptr_null(b);
    ck_assert_uint_eq(atomic_load(&dev->bytes_used), 0);
    ck_assert_int_eq(kvcl_buf_create(dev, 1 << 20, "just enough", &b), KVCL_OK);
    kvcl_buf_free(b);
    ck_assert_int_eq(kvcl_buf_create(dev, 0, "nothing", &b), KVCL_OK);
    kvcl_buf_free(b);
}
END_TEST

START_TEST(memory_limit_of_the_environment)
{
    kvcl_buf *b = NULL;
    kvcl_mat *m = NULL;
    setenv("KVCL_MEM_LIMIT", "900k", 1);
    make_ctx(false);
    open_device();
    ck_assert_int_eq(kvcl_buf_create(dev, 1 << 20, "too much", &b), KVCL_E_DEVICE_MEM);
    expect_sentence("too much");
    ck_assert_ptr_null(b);
    void *rows = calloc(1000, 256 * sizeof(float));
    ck_assert_ptr_nonnull(rows);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 1000, 256, rows, &m), KVCL_E_DEVICE_MEM);
    ck_assert_ptr_null(m);
    ck_assert_uint_eq(atomic_load(&dev->bytes_used), 0);
    free(rows);
}
END_TEST

/* Every row of a matrix in parts, expanded on the device, has the bits of its definition. */
static void check_parts(kvcl_type type, uint32_t rows, uint32_t cols, uint32_t min_parts)
{
    test_rng rng = {.seed = test_seed()};
    size_t bytes = kvcl_type_bytes(type, (size_t)rows * cols), n = (size_t)rows * cols;
    void *data = malloc(bytes);
    float *want = malloc(n * sizeof(float)), *got = malloc(cols * sizeof(float));
    ck_assert(data && want && got);
    test_fill_rows(&rng, type, data, bytes);
    kvcl_dequantise(type, data, n, want);
    kvcl_mat *m = NULL;
    kvcl_buf *ids = NULL, *out = NULL;
    kvcl_status st = kvcl_mat_create(q, type, rows, cols, data, &m);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_uint_ge(m->n_parts, min_parts);
    ck_assert_uint_ge(m->bytes, bytes);
    ck_assert_int_eq(kvcl_buf_create(dev, 4, "ids", &ids), KVCL_OK);
    ck_assert_int_eq(kvcl_buf_create(dev, cols * sizeof(float), "out", &out), KVCL_OK);
    for (uint32_t r = 0; r < rows; r += 1 + r / 7) {
        const int32_t id = (int32_t)r;
        const kvcl_embed_rows_args a = {
            .table = m, .ids = {ids, 0, 4}, .out = {out, 0, cols * sizeof(float)}, .n = 1};
        ck_assert_int_eq(kvcl_buf_write(q, ids, 0, &id, 4), KVCL_OK);
        st = kvcl_op_embed_rows(q, &a);
        ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
        ck_assert_int_eq(kvcl_buf_read(q, out, 0, got, cols * sizeof(float)), KVCL_OK);
        ck_assert_msg(memcmp(got, want + (size_t)r * cols, cols * sizeof(float)) == 0,
                      "%s row %u differs", kvcl_type_name(type), (unsigned)r);
    }
    kvcl_mat_free(m);
    kvcl_buf_free(ids);
    kvcl_buf_free(out);
    free(data);
    free(want);
    free(got);
}

START_TEST(matrices_in_parts)
{
    setenv("KVCL_CL_MAX_ALLOC", "20k", 1);
    open_device();
    check_parts(KVCL_F32, 200, 96, 4);
    check_parts(KVCL_F16, 200, 96, 2);
    check_parts(KVCL_BF16, 201, 96, 2);
    check_parts(KVCL_Q8_0, 400, 96, 3);
    check_parts(KVCL_Q5_0, 500, 96, 2);
    check_parts(KVCL_Q4_0, 500, 96, 2);
    check_parts(KVCL_Q4_0, 3, 32, 1);
    kvcl_mat *m = NULL;
    void *rows = calloc(65, 20000);
    ck_assert_ptr_nonnull(rows);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 65, 4992, rows, &m), KVCL_E_DEVICE_MEM);
    expect_sentence("65 x 4992 F32");
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 1, 8192, rows, &m), KVCL_E_DEVICE_MEM);
    ck_assert_ptr_null(m);
    free(rows);
}
END_TEST

/* ---- launches -------------------------------------------------------------------------------- */

START_TEST(launches_that_fail)
{
    kvcl_cl_launch l;
    kvcl_buf *b = NULL;
    open_device();
    ck_assert_int_eq(kvcl_cl_begin(q, KVCL_CL_STEM_glu, 0, "kvcl_nothing", &l), KVCL_E_DEVICE);
    expect_sentence("kvcl_nothing on opencl:");
    expect_sentence("CL_INVALID_KERNEL_NAME (-46)");
    ck_assert_int_eq(kvcl_cl_begin(q, KVCL_CL_STEM_glu, 0, "kvcl_swiglu", &l), KVCL_OK);
    ck_assert_int_eq(kvcl_cl_run1(&l, 64, 64), KVCL_E_DEVICE);
    expect_sentence("CL_INVALID_KERNEL_ARGS (-52)");
    ck_assert_int_eq(kvcl_cl_begin(q, KVCL_CL_STEM_glu, 0, "kvcl_swiglu", &l), KVCL_OK);
    kvcl_cl_arg_u32(&l, 1); /* a buffer is wanted */
    ck_assert_int_eq(kvcl_cl_run1(&l, 64, 64), KVCL_E_DEVICE);
    expect_sentence("setting an argument");
    ck_assert_int_eq(kvcl_buf_create(dev, 64, "x", &b), KVCL_OK);
    ck_assert_int_eq(kvcl_cl_begin(q, KVCL_CL_STEM_selftest, 0, "kvcl_selftest", &l), KVCL_OK);
    kvcl_cl_arg_view(&l, (kvcl_view){b, 0, 64}, 4);
    kvcl_cl_arg_u32(&l, 0);
    kvcl_cl_arg_u32(&l, 1);
    ck_assert_int_eq(kvcl_cl_run1(&l, 1, (size_t)1 << 20), KVCL_E_DEVICE);
    expect_sentence("group of 1048576x1x1 items");
    ck_assert_int_eq(kvcl_cl_run1(&l, 0, 64), KVCL_OK);
    /* none of this was enqueued: the queue is sound */
    ck_assert_int_eq(kvcl_queue_wait(q), KVCL_OK);
    kvcl_buf_free(b);
    ck_assert_int_eq(run_gelu(), KVCL_OK);
}
END_TEST

/* A buffer's handle may come back after it was freed: arguments must be set anew. */
START_TEST(buffers_come_and_go)
{
    open_device();
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(run_gelu(), KVCL_OK);
}
END_TEST

/* The first row of KVCL_TEST_DEVICES, without the variables behind it. */
static void pick_row(void)
{
    char names[TEST_MAX_ROWS][128];
    size_t n = test_row_names(names);
    if (n == 0 || strncmp(names[0], "cpu", 3) == 0)
        return;
    names[0][strcspn(names[0], "@")] = 0;
    memcpy(device_row, names[0], sizeof device_row);
}

int main(void)
{
    pick_row();
    Suite *suite = suite_create("cl_dev");
    TCase *c = tcase_create("cl_dev");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, source_that_does_not_build);
    tcase_add_test(c, variant_that_does_not_build_falls_back);
    tcase_add_test(c, missing_source);
    tcase_add_test(c, device_that_computes_other_bits);
    tcase_add_test(c, device_that_computes_the_same_bits);
    tcase_add_test(c, buffer_above_the_limit);
    tcase_add_test(c, memory_limit_of_the_environment);
    tcase_add_test(c, matrices_in_parts);
    tcase_add_test(c, launches_that_fail);
    tcase_add_test(c, buffers_come_and_go);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
