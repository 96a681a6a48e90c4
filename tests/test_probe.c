/* test_probe.c - speeds of a device: measured, kept, measured anew when the device changed; files
 * that are not good are ignored. */
#define _POSIX_C_SOURCE 200809L

#include "mem.h"
#include "probe.h"
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[256];
static kvcl_ctx *ctx;
static kvcl_dev *dev;

static void setup(void)
{
    test_folder_make(folder, sizeof folder);
    setenv("KVCL_CACHE_DIR", folder, 1);
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    ck_assert_int_eq(kvcl_device_open(ctx, "cpu", &dev), KVCL_OK);
}

static void teardown(void)
{
    kvcl_device_close(dev);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
    test_folder_remove(folder);
}

/* The only file of the folder; false when there is none. */
static bool kept_file(char *path, size_t cap)
{
    DIR *d = opendir(folder);
    bool found = false;
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (e->d_name[0] != '.') {
            ck_assert(!found);
            snprintf(path, cap, "%s/%s", folder, e->d_name);
            found = true;
        }
    closedir(d);
    return found;
}

static kvcl_probe get(kvcl_probe_mode mode)
{
    kvcl_probe p;
    ck_assert_msg(kvcl_probe_get(dev, mode, &p) == KVCL_OK, "%s", kvcl_last_error(ctx));
    return p;
}

START_TEST(a_result_is_kept)
{
    char path[600];
    kvcl_probe none = get(KVCL_PROBE_STORED);
    ck_assert(!none.is_stored && none.copy_bytes_per_s == 0 && none.launch_ns == 0);
    ck_assert_uint_eq(none.mem_bytes, dev->info.mem_bytes);
    ck_assert(!kept_file(path, sizeof path));

    kvcl_probe first = get(KVCL_PROBE_ONCE);
    ck_assert(!first.is_stored);
    /* slower than a tape, faster than light: something else was measured */
    ck_assert(first.copy_bytes_per_s > 1e7 && first.copy_bytes_per_s < 1e14);
    ck_assert(first.launch_ns > 0 && first.launch_ns < 1e9);
    ck_assert_int_eq(first.exactness, KVCL_EXACT);
    ck_assert(kept_file(path, sizeof path));

    kvcl_probe again = get(KVCL_PROBE_ONCE), stored = get(KVCL_PROBE_STORED);
    ck_assert(again.is_stored && stored.is_stored);
    ck_assert_int_eq((int64_t)again.copy_bytes_per_s, (int64_t)first.copy_bytes_per_s);
    ck_assert_int_eq((int64_t)again.launch_ns, (int64_t)first.launch_ns);
    ck_assert(!get(KVCL_PROBE_ANEW).is_stored);
    ck_assert(get(KVCL_PROBE_STORED).is_stored);
}
END_TEST

START_TEST(another_driver_is_another_device)
{
    kvcl_device_info info = dev->info;
    get(KVCL_PROBE_ONCE);
    ck_assert(get(KVCL_PROBE_STORED).is_stored);
    snprintf(dev->info.driver, sizeof dev->info.driver, "%s", "another");
    ck_assert(!get(KVCL_PROBE_STORED).is_stored);
    dev->info = info;
    snprintf(dev->info.detail, sizeof dev->info.detail, "%s", "another path");
    ck_assert(!get(KVCL_PROBE_STORED).is_stored);
    dev->info = info;
    dev->info.name[0] ^= 1;
    ck_assert(!get(KVCL_PROBE_ONCE).is_stored);
    ck_assert(get(KVCL_PROBE_STORED).is_stored); /* the file is the other device's now */
    dev->info = info;
    ck_assert(!get(KVCL_PROBE_STORED).is_stored);
}
END_TEST

START_TEST(damaged_files_are_ignored)
{
    char path[600];
    size_t n;
    get(KVCL_PROBE_ONCE);
    ck_assert(kept_file(path, sizeof path));
    char *good = test_read_file(path, &n), *bad = malloc(n + 1);
    ck_assert_ptr_nonnull(bad);
    for (size_t i = 0; i < n; i++) { /* a bit anywhere */
        memcpy(bad, good, n);
        bad[i] ^= 1 << (i % 7);
        test_write_file(path, bad, n);
        test_require(!get(KVCL_PROBE_STORED).is_stored, "byte %zu of %zu changed", i, n);
    }
    for (size_t i = 0; i < n; i += 7) { /* cut */
        test_write_file(path, good, i);
        test_require(!get(KVCL_PROBE_STORED).is_stored, "cut to %zu of %zu bytes", i, n);
    }
    memcpy(bad, good, n);
    bad[n] = '\n';
    test_write_file(path, bad, n + 1);
    ck_assert(!get(KVCL_PROBE_STORED).is_stored);
    test_write_file(path, good, n);
    ck_assert(get(KVCL_PROBE_STORED).is_stored);
    /* not ours to trust */
    ck_assert_int_eq(remove(path), 0);
    ck_assert_int_eq(symlink("/etc/hostname", path), 0);
    ck_assert(!get(KVCL_PROBE_STORED).is_stored);
    free(good);
    free(bad);
}
END_TEST

START_TEST(without_a_folder_or_memory)
{
    setenv("KVCL_CACHE_DIR", "off", 1);
    ck_assert(!get(KVCL_PROBE_ONCE).is_stored);
    ck_assert(get(KVCL_PROBE_ONCE).copy_bytes_per_s > 0);
    /* little memory: smaller buffers; next to none: a sentence */
    kvcl_device_close(dev);
    kvcl_ctx_free(ctx);
    const kvcl_ctx_options one = {.n_threads = 1}; /* each has scratch of its own */
    setenv("KVCL_MEM_LIMIT", "6m", 1);
    ck_assert_int_eq(kvcl_ctx_create(&one, &ctx), KVCL_OK);
    ck_assert_int_eq(kvcl_device_open(ctx, "cpu", &dev), KVCL_OK);
    ck_assert(get(KVCL_PROBE_ONCE).copy_bytes_per_s > 0);
    kvcl_device_close(dev);
    kvcl_ctx_free(ctx);
    setenv("KVCL_MEM_LIMIT", "3m", 1);
    ck_assert_int_eq(kvcl_ctx_create(&one, &ctx), KVCL_OK);
    ck_assert_int_eq(kvcl_device_open(ctx, "cpu", &dev), KVCL_OK);
    kvcl_probe p;
    ck_assert_int_ne(kvcl_probe_get(dev, KVCL_PROBE_ONCE, &p), KVCL_OK);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "KVCL_MEM_LIMIT"));
    unsetenv("KVCL_MEM_LIMIT");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("probe");
    TCase *t = tcase_create("probe");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_result_is_kept);
    tcase_add_test(t, another_driver_is_another_device);
    tcase_add_test(t, damaged_files_are_ignored);
    tcase_add_test(t, without_a_folder_or_memory);
    suite_add_tcase(s, t);
    return test_main(s, false);
}
