/* test_cl_cache.c - the disk cache of OpenCL programs: an entry that is damaged, foreign or not
 * safe leads to a build from source and a new entry, never to a driver seeing it.
 *
 * Runs on the first OpenCL device whose programs are cached (all but PoCL's); each test in its own
 * process. */
#define _POSIX_C_SOURCE 200809L

#include "cl_program.h"
#include "mem.h"
#include "test.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utime.h>

typedef enum test_stem { GLU = KVCL_CL_STEM_glu, NORM = KVCL_CL_STEM_norm } test_stem;

static char folder[256], outside[256];
static char device_id[64];
static char log_text[65536];
static kvcl_ctx *ctx;

static void keep_log(void *user, kvcl_log_level level, const char *message)
{
    size_t at = strlen(log_text);
    KVCL_UNUSED(user);
    KVCL_UNUSED(level);
    snprintf(log_text + at, sizeof log_text - at, "%s\n", message);
}

static void setup(void)
{
    const kvcl_ctx_options opt = {.log = keep_log, .log_level = KVCL_LOG_DEBUG};
    test_folder_make(folder, sizeof folder);
    test_folder_make(outside, sizeof outside);
    setenv("KVCL_CACHE_DIR", folder, 1);
    setenv("KVCL_SELFTEST", "0", 1);
    unsetenv("KVCL_CACHE_MAX");
    ck_assert_int_eq(kvcl_ctx_create(&opt, &ctx), KVCL_OK);
}

static void teardown(void)
{
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
    test_folder_remove(folder);
    test_folder_remove(outside);
}

/* Opens the device, gets the program, closes: true when it came from the cache. */
static bool get_program(test_stem stem)
{
    kvcl_dev *dev;
    kvcl_cl_program program;
    log_text[0] = 0;
    kvcl_status st = kvcl_device_open(ctx, device_id, &dev);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    st = kvcl_cl_program_get(dev->impl, (kvcl_cl_stem)stem, 0, &program);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_ptr_nonnull(program.program);
    kvcl_device_close(dev);
    bool loaded = strstr(log_text, ") loaded in ") != NULL;
    ck_assert_msg(loaded != (strstr(log_text, ") built in ") != NULL), "%s", log_text);
    return loaded;
}

/* The folder's only entry that is not `other`; fails when there is another number of them. */
static void only_entry(char path[512], const char *other)
{
    DIR *d = opendir(folder);
    unsigned n_found = 0;
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (e->d_name[0] == '.' || (other && strstr(other, e->d_name)))
            continue;
        snprintf(path, 512, "%s/%.200s", folder, e->d_name);
        n_found++;
    }
    closedir(d);
    ck_assert_uint_eq(n_found, 1);
}

static unsigned n_entries(void)
{
    DIR *d = opendir(folder);
    unsigned n_found = 0;
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        n_found += e->d_name[0] != '.';
    closedir(d);
    return n_found;
}

/* After a fault: built from source with a message, and the next start finds a good entry. */
static void expect_recovery(const char *path, const char *fault)
{
    ck_assert(!get_program(GLU));
    ck_assert_msg(strstr(log_text, fault) != NULL, "no '%s' in:\n%s", fault, log_text);
    ck_assert_int_eq(access(path, R_OK), 0);
    ck_assert(get_program(GLU));
}

/* ---- tests ----------------------------------------------------------------------------------- */

START_TEST(second_start_loads)
{
    ck_assert(!get_program(GLU));
    ck_assert_uint_eq(n_entries(), 1);
    ck_assert(get_program(GLU));
    ck_assert(!get_program(NORM));
    ck_assert_uint_eq(n_entries(), 2);
    ck_assert(get_program(NORM));
    ck_assert(get_program(GLU));
}
END_TEST

/* Every byte of the header that says something, and some of the payload. */
START_TEST(flipped_bytes)
{
    char path[512];
    size_t n;
    ck_assert(!get_program(GLU));
    only_entry(path, NULL);
    unsigned char *file = test_read_file(path, &n);
    const size_t at[] = {0, 7, 8, 12, 16, 31, 32, 39, 40, 55, 56, 64, 64 + (n - 64) / 2, n - 1};
    for (size_t i = 0; i < kvcl_array_len(at); i++) {
        file[at[i]] ^= 0x10;
        test_write_file(path, file, n);
        ck_assert_int_eq(chmod(path, 0600), 0);
        expect_recovery(path, "program cache: ");
        file[at[i]] ^= 0x10;
    }
    free(file);
}
END_TEST

START_TEST(wrong_length)
{
    char path[512];
    size_t n;
    ck_assert(!get_program(GLU));
    only_entry(path, NULL);
    unsigned char *file = test_read_file(path, &n);
    unsigned char *longer = calloc(1, n + 100);
    ck_assert_ptr_nonnull(longer);
    memcpy(longer, file, n);
    const size_t lengths[] = {0, 1, 63, 64, 65, n - 1, n + 1, n + 100};
    for (size_t i = 0; i < kvcl_array_len(lengths); i++) {
        test_write_file(path, longer, lengths[i]);
        ck_assert_int_eq(chmod(path, 0600), 0);
        expect_recovery(path, lengths[i] <= 64 ? "too short" : "damaged");
    }
    free(longer);
    free(file);
}
END_TEST

START_TEST(entry_of_another_program)
{
    char glu[512], norm[512];
    size_t n;
    ck_assert(!get_program(GLU));
    only_entry(glu, NULL);
    ck_assert(!get_program(NORM));
    only_entry(norm, glu);
    void *file = test_read_file(norm, &n);
    test_write_file(glu, file, n);
    expect_recovery(glu, "belongs to another program");
    free(file);
}
END_TEST

/* Header and checksum right, but not a program: it was damaged before it was stored.  Mesa refuses
 * a wrong magic number of the SPIR-V behind its own 12 bytes; other damage can end the process. */
START_TEST(binary_that_the_driver_refuses)
{
    char path[512];
    size_t n;
    if (strncmp(device_id, "opencl:rusticl", 14) != 0)
        return; /* Oclgrind's compiler ends the process on such a binary */
    ck_assert(!get_program(GLU));
    only_entry(path, NULL);
    unsigned char *file = test_read_file(path, &n);
    file[KVCL_CL_CACHE_HEADER + 12] ^= 0xff;
    XXH128_hash_t h = XXH3_128bits(file + KVCL_CL_CACHE_HEADER, n - KVCL_CL_CACHE_HEADER);
    for (size_t i = 0; i < 8; i++) {
        file[40 + i] = (unsigned char)(h.low64 >> (8 * i));
        file[48 + i] = (unsigned char)(h.high64 >> (8 * i));
    }
    test_write_file(path, file, n);
    expect_recovery(path, "the driver refuses it");
    free(file);
}
END_TEST

START_TEST(symbolic_link_as_entry)
{
    char path[512], target[512];
    struct stat s;
    size_t n;
    ck_assert(!get_program(GLU));
    only_entry(path, NULL);
    void *file = test_read_file(path, &n);
    snprintf(target, sizeof target, "%s/target", outside);
    test_write_file(target, file, n);
    ck_assert_int_eq(chmod(target, 0600), 0);
    free(file);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink(target, path), 0);
    ck_assert(!get_program(GLU));
    ck_assert_int_eq(lstat(path, &s), 0);
    ck_assert(S_ISREG(s.st_mode));
    ck_assert_int_eq(access(target, R_OK), 0);
    ck_assert(get_program(GLU));
}
END_TEST

START_TEST(entry_that_others_may_write)
{
    char path[512];
    struct stat s;
    ck_assert(!get_program(GLU));
    only_entry(path, NULL);
    ck_assert_int_eq(chmod(path, 0666), 0);
    ck_assert(!get_program(GLU));
    ck_assert_int_eq(stat(path, &s), 0);
    ck_assert_int_eq(s.st_mode & 0777, 0600);
    ck_assert(get_program(GLU));
}
END_TEST

START_TEST(folder_that_others_may_write)
{
    ck_assert_int_eq(chmod(folder, 0777), 0);
    ck_assert(!get_program(GLU));
    ck_assert_ptr_nonnull(strstr(log_text, "program cache not used"));
    ck_assert(!get_program(GLU));
    ck_assert_uint_eq(n_entries(), 0);
}
END_TEST

START_TEST(folder_that_is_a_link)
{
    char path[512];
    snprintf(path, sizeof path, "%s/link", outside);
    ck_assert_int_eq(symlink(folder, path), 0);
    setenv("KVCL_CACHE_DIR", path, 1);
    ck_assert(!get_program(GLU));
    ck_assert_ptr_nonnull(strstr(log_text, "program cache not used"));
    ck_assert_uint_eq(n_entries(), 0);
}
END_TEST

START_TEST(folder_that_cannot_be_written)
{
    char path[512];
    snprintf(path, sizeof path, "%s/file", outside);
    test_write_file(path, "x", 1);
    setenv("KVCL_CACHE_DIR", path, 1); /* a file */
    ck_assert(!get_program(GLU));
    ck_assert_ptr_nonnull(strstr(log_text, "program cache not used"));
    snprintf(path, sizeof path, "%s/file/below", outside); /* cannot be made, even by root */
    setenv("KVCL_CACHE_DIR", path, 1);
    ck_assert(!get_program(GLU));
    ck_assert_ptr_nonnull(strstr(log_text, "program cache not used"));
    setenv("KVCL_CACHE_DIR", folder, 1);
    ck_assert_int_eq(chmod(folder, 0500), 0);
    ck_assert(!get_program(GLU));
    ck_assert(n_entries() == 0 || geteuid() == 0); /* root may write everywhere */
    ck_assert_int_eq(chmod(folder, 0700), 0);
}
END_TEST

START_TEST(switched_off)
{
    setenv("KVCL_CACHE_DIR", "off", 1);
    ck_assert(!get_program(GLU));
    ck_assert(!get_program(GLU));
    ck_assert_uint_eq(n_entries(), 0);
}
END_TEST

START_TEST(oldest_entries_go)
{
    char glu[512], norm[512], limit[32], other[512];
    struct stat s;
    ck_assert(!get_program(GLU));
    only_entry(glu, NULL);
    ck_assert_int_eq(utime(glu, &(struct utimbuf){1000000, 1000000}), 0);
    snprintf(other, sizeof other, "%s/notes.txt", folder);
    test_write_file(other, "kept", 4);
    ck_assert_int_eq(stat(glu, &s), 0);
    setenv("KVCL_CACHE_MAX", "1", 1);
    ck_assert(!get_program(NORM)); /* nothing fits, and that is no error */
    ck_assert_int_ne(access(glu, F_OK), 0);
    unsetenv("KVCL_CACHE_MAX");
    ck_assert(!get_program(GLU));
    ck_assert_int_eq(utime(glu, &(struct utimbuf){1000000, 1000000}), 0);
    ck_assert(!get_program(NORM));
    ck_assert_int_eq(unlink(other), 0);
    only_entry(norm, glu);
    ck_assert_int_eq(stat(norm, &s), 0);
    ck_assert_int_eq(unlink(norm), 0);
    snprintf(limit, sizeof limit, "%lld", (long long)s.st_size);
    setenv("KVCL_CACHE_MAX", limit, 1);
    ck_assert(!get_program(NORM)); /* fits alone: the older one goes */
    ck_assert_int_ne(access(glu, F_OK), 0);
    ck_assert_int_eq(access(norm, F_OK), 0);
    ck_assert(get_program(NORM));
}
END_TEST

/* ---- the device ------------------------------------------------------------------------------ */

static void write_device_id(int fd)
{
    kvcl_device_info list[64];
    kvcl_ctx *c;
    size_t n = 0;
    if (kvcl_ctx_create(NULL, &c) != KVCL_OK ||
        kvcl_device_list(c, list, kvcl_array_len(list), &n) != KVCL_OK)
        _exit(1);
    for (size_t i = 0; i < n && i < kvcl_array_len(list); i++)
        if (strncmp(list[i].id, "opencl:", 7) == 0 && !strstr(list[i].id, ":pocl:"))
            _exit(write(fd, list[i].id, strlen(list[i].id)) < 0);
    _exit(0);
}

/* In a child: a driver's threads would not be in the processes that Check forks later. */
static bool find_device(void)
{
    int pipe_fd[2], status = 1;
    setenv("RUSTICL_ENABLE", "llvmpipe", 0);
    if (pipe(pipe_fd) != 0)
        return false;
    pid_t child = fork();
    if (child == 0)
        write_device_id(pipe_fd[1]);
    close(pipe_fd[1]);
    ssize_t n = read(pipe_fd[0], device_id, sizeof device_id - 1);
    close(pipe_fd[0]);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 && n > 0;
}

int main(void)
{
    if (!find_device()) {
        printf("no OpenCL device whose programs are cached\n");
        return TEST_SKIPPED;
    }
    printf("device %s\n", device_id);
    Suite *suite = suite_create("cl_cache");
    TCase *c = tcase_create("cl_cache");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, second_start_loads);
    tcase_add_test(c, flipped_bytes);
    tcase_add_test(c, wrong_length);
    tcase_add_test(c, entry_of_another_program);
    tcase_add_test(c, binary_that_the_driver_refuses);
    tcase_add_test(c, symbolic_link_as_entry);
    tcase_add_test(c, entry_that_others_may_write);
    tcase_add_test(c, folder_that_others_may_write);
    tcase_add_test(c, folder_that_is_a_link);
    tcase_add_test(c, folder_that_cannot_be_written);
    tcase_add_test(c, switched_off);
    tcase_add_test(c, oldest_entries_go);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
