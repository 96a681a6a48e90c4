/* test_cl_list.c - the device list without OpenCL, with broken and empty platforms, with one GPU
 * under several drivers; errors of opening.  Each test in its own process: loaders read their
 * environment once.  KVCL_FAKE_OPENCL: the library made of fake_opencl.c. */
#define _POSIX_C_SOURCE 200809L

#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#define CAP 64

static kvcl_ctx *ctx;
static kvcl_device_info list[CAP];
static size_t n;

static void setup(void)
{
    unsetenv("KVCL_CL_CAPS");
    unsetenv("KVCL_CL_MAX_ALLOC");
    unsetenv("KVCL_DEVICE");
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
}

static void teardown(void)
{
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

static void get_list(void)
{
    kvcl_status st = kvcl_device_list(ctx, list, CAP, &n);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_uint_ge(n, 1);
    ck_assert_uint_le(n, CAP);
    ck_assert_str_eq(list[0].id, "cpu");
}

static const kvcl_device_info *by_id(const char *id)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].id, id) == 0)
            return &list[i];
    return NULL;
}

static void only_the_cpu(void)
{
    get_list();
    ck_assert_uint_eq(n, 1);
    ck_assert(list[0].is_default);
    kvcl_dev *dev = NULL;
    ck_assert_int_eq(kvcl_device_open(ctx, "opencl:pocl:0", &dev), KVCL_E_NO_DEVICE);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "there is: cpu"));
    ck_assert_int_eq(kvcl_device_open(ctx, NULL, &dev), KVCL_OK);
    ck_assert_str_eq(kvcl_device_get_info(dev)->id, "cpu");
    kvcl_device_close(dev);
}

START_TEST(no_library)
{
    setenv("KVCL_OPENCL_LIB", "off", 1);
    only_the_cpu();
}
END_TEST

START_TEST(library_that_is_missing_or_another)
{
    setenv("KVCL_OPENCL_LIB", "/nonexistent/libOpenCL.so.1", 1);
    only_the_cpu();
    setenv("KVCL_OPENCL_LIB", "libm.so.6", 1);
    only_the_cpu();
}
END_TEST

START_TEST(loader_without_drivers)
{
    char folder[256];
    test_folder_make(folder, sizeof folder);
    setenv("OCL_ICD_VENDORS", folder, 1);
    only_the_cpu();
    test_folder_remove(folder);
}
END_TEST

/* rusticl without RUSTICL_ENABLE is a platform with no device */
START_TEST(installed_platforms)
{
    unsetenv("RUSTICL_ENABLE");
    get_list();
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(strncmp(list[i].id, "opencl:rusticl", 14) != 0 ||
                          list[i].kind != KVCL_KIND_OPENCL_CPU,
                      "%s has no business here", list[i].id);
        ck_assert_ptr_eq(by_id(list[i].id), &list[i]);
        ck_assert_uint_gt(strlen(list[i].name), 0);
        ck_assert_uint_gt(list[i].mem_bytes, 0);
        ck_assert(!list[i].is_default || list[i].kind != KVCL_KIND_OPENCL_CPU);
        ck_assert_int_eq(list[i].exactness, KVCL_EXACT_UNTESTED);
    }
}
END_TEST

/* ---- made-up platforms ----------------------------------------------------------------------- */

START_TEST(broken_platforms_and_duplicates)
{
    setenv("KVCL_OPENCL_LIB", KVCL_FAKE_OPENCL, 1);
    get_list();
    ck_assert_uint_eq(n, 5);
    ck_assert_str_eq(list[1].id, "opencl:nvidia:0");
    ck_assert_str_eq(list[2].id, "opencl:nvidia:1");
    /* rusticl's :0 is board B again, PoCL's :0 and :1 are the boards by name */
    ck_assert_str_eq(list[3].id, "opencl:rusticl:1");
    ck_assert_int_eq(list[3].kind, KVCL_KIND_OPENCL_CPU);
    ck_assert_str_eq(list[4].id, "opencl:pocl:2");
    ck_assert_int_eq(list[4].kind, KVCL_KIND_INTEGRATED);
    ck_assert_int_eq(list[1].kind, KVCL_KIND_GPU);
    ck_assert(list[1].is_default);
    ck_assert_str_eq(list[2].name, "Fake GPU");
    ck_assert_str_eq(list[2].platform, "NVIDIA CUDA");
    ck_assert_str_eq(list[2].driver, "fake 1.0");
}
END_TEST

START_TEST(list_that_does_not_fit)
{
    setenv("KVCL_OPENCL_LIB", KVCL_FAKE_OPENCL, 1);
    memset(list, 0x5a, sizeof list);
    ck_assert_int_eq(kvcl_device_list(ctx, list, 2, &n), KVCL_OK);
    ck_assert_uint_eq(n, 5);
    ck_assert_str_eq(list[1].id, "opencl:nvidia:0");
    ck_assert_int_eq(list[2].id[0], 0x5a);
}
END_TEST

START_TEST(device_that_does_not_open)
{
    kvcl_dev *dev = NULL;
    setenv("KVCL_OPENCL_LIB", KVCL_FAKE_OPENCL, 1);
    ck_assert_int_eq(kvcl_device_open(ctx, "nvidia:1", &dev), KVCL_E_DEVICE);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "opencl:nvidia:1"));
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "CL_DEVICE_NOT_AVAILABLE (-2)"));
    ck_assert_ptr_null(dev);
}
END_TEST

START_TEST(capabilities_of_the_environment)
{
    setenv("KVCL_OPENCL_LIB", KVCL_FAKE_OPENCL, 1);
    setenv("KVCL_CL_CAPS", "base,vector", 1);
    setenv("KVCL_CL_MAX_ALLOC", "1m", 1);
    get_list();
    ck_assert_ptr_nonnull(strstr(by_id("opencl:nvidia:0")->detail, "vector shape"));
    ck_assert_uint_eq(by_id("opencl:nvidia:0")->max_alloc_bytes, 1 << 20);
    setenv("KVCL_CL_CAPS", "lane,fast", 1);
    ck_assert_int_eq(kvcl_device_list(ctx, list, CAP, &n), KVCL_E_ARG);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "KVCL_CL_CAPS: unknown word 'fast'"));
    unsetenv("KVCL_CL_CAPS");
    setenv("KVCL_CL_MAX_ALLOC", "many", 1);
    ck_assert_int_eq(kvcl_device_list(ctx, list, CAP, &n), KVCL_E_ARG);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "KVCL_CL_MAX_ALLOC"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cl_list");
    TCase *c = tcase_create("cl_list");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, no_library);
    tcase_add_test(c, library_that_is_missing_or_another);
    tcase_add_test(c, loader_without_drivers);
    tcase_add_test(c, installed_platforms);
    tcase_add_test(c, broken_platforms_and_duplicates);
    tcase_add_test(c, list_that_does_not_fit);
    tcase_add_test(c, device_that_does_not_open);
    tcase_add_test(c, capabilities_of_the_environment);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
