/* test_os.c - the floor of everything: counted memory, arena, sizes, files that appear whole, the
 * private cache folder.  Needs no device. */
#define _POSIX_C_SOURCE 200809L

#include "mem.h"
#include "os.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256];
static kvcl_ctx *ctx;

static const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/kvcl-os-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    unsetenv("KVCL_MEM_LIMIT");
    unsetenv("KVCL_CACHE_DIR");
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
}

static void teardown(void)
{
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).bytes_used, 0);
    kvcl_ctx_free(ctx);
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

static void write_plain(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(text, f), 0);
    ck_assert_int_eq(fclose(f), 0);
}

static unsigned n_entries(void)
{
    char command[512];
    unsigned n = 0;
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *p = popen(command, "r");
    ck_assert_ptr_nonnull(p);
    ck_assert_int_eq(fscanf(p, "%u", &n), 1);
    pclose(p);
    return n;
}

/* ---- memory -------------------------------------------------------------------------------- */

START_TEST(memory_is_counted_and_aligned)
{
    void *a, *b;
    char *s;
    ck_assert_int_eq(kvcl_mem_alloc(ctx, 1, "a", &a), KVCL_OK);
    ck_assert_int_eq(kvcl_mem_array(ctx, 10, 100, "b", &b), KVCL_OK);
    ck_assert_int_eq(kvcl_mem_strdup(ctx, "text", &s), KVCL_OK);
    ck_assert_str_eq(s, "text");
    ck_assert_uint_eq((uintptr_t)a % KVCL_ALIGN, 0);
    ck_assert_uint_eq((uintptr_t)b % KVCL_ALIGN, 0);
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(((char *)b)[i], 0);
    kvcl_mem_stats m = kvcl_ctx_mem_stats(ctx);
    ck_assert_uint_eq(m.n_live, 3);
    ck_assert_uint_eq(m.n_allocs, 3);
    ck_assert_uint_ge(m.bytes_used, 1006);
    kvcl_mem_free(ctx, a);
    kvcl_mem_free(ctx, b);
    kvcl_mem_free(ctx, s);
    kvcl_mem_free(ctx, NULL);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).bytes_peak, m.bytes_used);
}
END_TEST

START_TEST(memory_overflow_is_refused)
{
    void *p = ctx;
    ck_assert_int_eq(kvcl_mem_array(ctx, SIZE_MAX / 2, 3, "the rows", &p), KVCL_E_MEM);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "the rows"));
    ck_assert_int_eq(kvcl_mem_alloc(ctx, SIZE_MAX, "all", &p), KVCL_E_MEM);
    ck_assert_int_eq(kvcl_mem_alloc(ctx, SIZE_MAX - 100, "nearly all", &p), KVCL_E_MEM);
    ck_assert_ptr_eq(p, ctx);
}
END_TEST

START_TEST(memory_limit_of_the_environment)
{
    kvcl_ctx *small;
    void *p, *q;
    setenv("KVCL_MEM_LIMIT", "64k", 1);
    ck_assert_int_eq(kvcl_ctx_create(NULL, &small), KVCL_OK);
    ck_assert_uint_eq(kvcl_mem_limit(small), 65536);
    ck_assert_int_eq(kvcl_mem_alloc(small, 40000, "first", &p), KVCL_OK);
    ck_assert_int_eq(kvcl_mem_alloc(small, 40000, "second", &q), KVCL_E_MEM);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(small), "second"));
    kvcl_mem_free(small, p);
    ck_assert_int_eq(kvcl_mem_alloc(small, 40000, "second", &q), KVCL_OK);
    kvcl_mem_free(small, q);
    kvcl_ctx_free(small);
    setenv("KVCL_MEM_LIMIT", "lots", 1);
    ck_assert_int_eq(kvcl_ctx_create(NULL, &small), KVCL_E_ARG);
    unsetenv("KVCL_MEM_LIMIT");
}
END_TEST

START_TEST(arena_hands_out_and_fills_up)
{
    kvcl_arena arena;
    ck_assert_int_eq(kvcl_arena_init(ctx, 256, "arena", &arena), KVCL_OK);
    unsigned char *a = kvcl_arena_take(&arena, 1), *b = kvcl_arena_take(&arena, 65);
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_eq(b, a + 64);
    ck_assert_ptr_nonnull(kvcl_arena_take(&arena, 64));
    ck_assert_ptr_null(kvcl_arena_take(&arena, 1));
    ck_assert_ptr_null(kvcl_arena_take(&arena, SIZE_MAX));
    kvcl_arena_reset(&arena);
    ck_assert_ptr_eq(kvcl_arena_take(&arena, 256), a);
    kvcl_arena_free(ctx, &arena);
}
END_TEST

START_TEST(sizes_are_read)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {{"0", 0},
                {"65536", 65536},
                {"512M", UINT64_C(512) << 20},
                {"2g", UINT64_C(2) << 30},
                {"1k", 1024},
                {"16777215t", UINT64_C(16777215) << 40}};
    static const char *const bad[] = {"", "x", "-1", "1x", "1kb", "M", "99999999999999999g"};
    uint64_t v = 7;
    for (size_t i = 0; i < kvcl_array_len(good); i++) {
        ck_assert_int_eq(kvcl_parse_bytes(ctx, good[i].text, "size", &v), KVCL_OK);
        ck_assert_uint_eq(v, good[i].want);
    }
    v = 7;
    for (size_t i = 0; i < kvcl_array_len(bad); i++) {
        ck_assert_msg(kvcl_parse_bytes(ctx, bad[i], "--limit", &v) == KVCL_E_ARG, "'%s' passed",
                      bad[i]);
        ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "--limit"));
    }
    ck_assert_uint_eq(v, 7);
}
END_TEST

/* ---- files --------------------------------------------------------------------------------- */

START_TEST(out_file_appears_on_commit_only)
{
    kvcl_os_out *f;
    char *text;
    size_t n;
    const char *path = in_folder("result");
    ck_assert_int_eq(kvcl_os_out_create(ctx, path, &f), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_write(f, "abc", 3), KVCL_OK);
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_int_eq(kvcl_os_out_write(f, "def", 3), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_commit(f), KVCL_OK);
    ck_assert_int_eq(kvcl_os_read_file(ctx, path, 100, &text, &n), KVCL_OK);
    ck_assert_uint_eq(n, 6);
    ck_assert_str_eq(text, "abcdef");
    kvcl_mem_free(ctx, text);
    ck_assert_uint_eq(n_entries(), 1);
}
END_TEST

START_TEST(out_file_abort_keeps_the_old_one)
{
    kvcl_os_out *f;
    char *text;
    size_t n;
    const char *path = in_folder("result");
    write_plain(path, "old");
    ck_assert_int_eq(kvcl_os_out_create(ctx, path, &f), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_write(f, "new", 3), KVCL_OK);
    kvcl_os_out_abort(f);
    kvcl_os_out_abort(NULL);
    ck_assert_int_eq(kvcl_os_read_file(ctx, path, 100, &text, &n), KVCL_OK);
    ck_assert_str_eq(text, "old");
    kvcl_mem_free(ctx, text);
    ck_assert_uint_eq(n_entries(), 1);
}
END_TEST

START_TEST(out_file_follows_a_link_and_spares_devices)
{
    kvcl_os_out *f;
    struct stat s;
    char target[512], link[512];
    snprintf(target, sizeof target, "%s/target", folder);
    snprintf(link, sizeof link, "%s/link", folder);
    write_plain(target, "old");
    ck_assert_int_eq(symlink("target", link), 0);
    ck_assert_int_eq(kvcl_os_out_create(ctx, link, &f), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_write(f, "newer", 5), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_commit(f), KVCL_OK);
    ck_assert_int_eq(lstat(link, &s), 0);
    ck_assert(S_ISLNK(s.st_mode));
    ck_assert_int_eq(stat(target, &s), 0);
    ck_assert_int_eq(s.st_size, 5);
    ck_assert_int_eq(kvcl_os_out_create(ctx, "/dev/null", &f), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_write(f, "newer", 5), KVCL_OK);
    ck_assert_int_eq(kvcl_os_out_commit(f), KVCL_OK);
    ck_assert_int_eq(stat("/dev/null", &s), 0);
    ck_assert(S_ISCHR(s.st_mode));
}
END_TEST

START_TEST(out_file_errors_have_sentences)
{
    kvcl_os_out *f;
    const char *path = in_folder("absent/result");
    ck_assert_int_eq(kvcl_os_out_create(ctx, path, &f), KVCL_E_IO);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), path));
    ck_assert_int_eq(kvcl_os_out_create(ctx, folder, &f), KVCL_E_IO);
    ck_assert_int_eq(kvcl_os_out_create(ctx, "", &f), KVCL_E_IO);
}
END_TEST

START_TEST(read_file_keeps_its_limit)
{
    char *text = NULL;
    size_t n = 0;
    const char *path = in_folder("text");
    write_plain(path, "12345678");
    ck_assert_int_eq(kvcl_os_read_file(ctx, path, 8, &text, &n), KVCL_OK);
    ck_assert_uint_eq(n, 8);
    ck_assert_str_eq(text, "12345678");
    kvcl_mem_free(ctx, text);
    text = NULL;
    ck_assert_int_eq(kvcl_os_read_file(ctx, path, 7, &text, &n), KVCL_E_FULL);
    ck_assert_ptr_null(text);
    ck_assert_int_eq(kvcl_os_read_file(ctx, folder, 7, &text, &n), KVCL_E_IO);
    ck_assert_int_eq(kvcl_os_read_file(ctx, in_folder("absent"), 7, &text, &n), KVCL_E_IO);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "No such file"));
}
END_TEST

START_TEST(read_file_grows)
{
    enum { LEN = 300001 };
    char *text;
    size_t n;
    const char *path = in_folder("long");
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < LEN; i++)
        fputc(i % 251, f);
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_int_eq(kvcl_os_read_file(ctx, path, LEN, &text, &n), KVCL_OK);
    ck_assert_uint_eq(n, LEN);
    for (int i = 0; i < LEN; i++)
        ck_assert_int_eq((unsigned char)text[i], i % 251);
    ck_assert_int_eq(text[LEN], 0);
    kvcl_mem_free(ctx, text);
    ck_assert_int_eq(kvcl_os_read_file(ctx, path, LEN - 1, &text, &n), KVCL_E_FULL);
}
END_TEST

START_TEST(map_regular_files_only)
{
    kvcl_os_map map = {0};
    write_plain(in_folder("text"), "mapped");
    ck_assert_int_eq(kvcl_os_map_open(ctx, in_folder("text"), &map), KVCL_OK);
    ck_assert_uint_eq(map.bytes, 6);
    ck_assert_mem_eq(map.data, "mapped", 6);
    kvcl_os_map_close(&map);
    ck_assert_ptr_null(map.data);
    kvcl_os_map_close(&map);
    write_plain(in_folder("empty"), "");
    ck_assert_int_eq(kvcl_os_map_open(ctx, in_folder("empty"), &map), KVCL_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "empty"));
    ck_assert_int_eq(kvcl_os_map_open(ctx, folder, &map), KVCL_E_IO);
    ck_assert_int_eq(kvcl_os_map_open(ctx, "/dev/null", &map), KVCL_E_IO);
    ck_assert_int_eq(kvcl_os_map_open(ctx, in_folder("absent"), &map), KVCL_E_IO);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "No such file"));
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    ck_assert_int_eq(kvcl_os_map_open(ctx, in_folder("pipe"), &map), KVCL_E_IO);
    ck_assert_ptr_null(map.data);
}
END_TEST

/* ---- cache folder -------------------------------------------------------------------------- */

static bool cache_dir(const char *dir, char *path, char *why)
{
    if (dir)
        setenv("KVCL_CACHE_DIR", dir, 1);
    else
        unsetenv("KVCL_CACHE_DIR");
    why[0] = 0;
    return kvcl_os_cache_dir(path, 512, why, 512);
}

START_TEST(cache_folder_is_private)
{
    char path[512], why[512];
    struct stat s;
    ck_assert(cache_dir(in_folder("a/b/cache"), path, why));
    ck_assert_str_eq(path, in_folder("a/b/cache"));
    ck_assert_int_eq(lstat(path, &s), 0);
    ck_assert_uint_eq(s.st_mode & 07777, 0700);
    ck_assert(cache_dir(path, path, why)); /* again, now that it is there */
    setenv("XDG_CACHE_HOME", folder, 1);
    ck_assert(cache_dir(NULL, path, why));
    ck_assert_str_eq(path, in_folder("kvcl"));
    setenv("XDG_CACHE_HOME", "relative", 1);
    setenv("HOME", folder, 1);
    ck_assert(cache_dir(NULL, path, why));
    ck_assert_str_eq(path, in_folder(".cache/kvcl"));
}
END_TEST

START_TEST(cache_folder_is_refused)
{
    char path[512], why[512], name[512];
    ck_assert(!cache_dir("off", path, why));
    ck_assert_ptr_nonnull(strstr(why, "off"));

    snprintf(name, sizeof name, "%s/open", folder);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    static const mode_t modes[] = {0770, 0702, 01777};
    for (size_t i = 0; i < kvcl_array_len(modes); i++) {
        ck_assert_int_eq(chmod(name, modes[i]), 0);
        ck_assert(!cache_dir(name, path, why));
        ck_assert_ptr_nonnull(strstr(why, "others may write"));
    }
    ck_assert_int_eq(chmod(name, 0700), 0);
    ck_assert(cache_dir(name, path, why));

    ck_assert_int_eq(symlink("open", in_folder("link")), 0);
    ck_assert(!cache_dir(in_folder("link"), path, why));
    ck_assert_ptr_nonnull(strstr(why, "symbolic link"));
    ck_assert(!cache_dir(in_folder("link/"), path, why));

    write_plain(in_folder("file"), "");
    ck_assert(!cache_dir(in_folder("file"), path, why));
    ck_assert_ptr_nonnull(strstr(why, "not a folder"));
    ck_assert(!cache_dir("/proc/kvcl-cannot-be-made", path, why));
    ck_assert_str_ne(why, "");
}
END_TEST

START_TEST(cache_files_round_trip)
{
    size_t n = 0;
    struct stat s;
    const char *path = in_folder("entry");
    const void *const parts[] = {"head", "", "payload"};
    const size_t bytes[] = {4, 0, 7};
    ck_assert(kvcl_os_cache_write(path, parts, bytes, 3));
    ck_assert_int_eq(stat(path, &s), 0);
    ck_assert_uint_eq(s.st_mode & 07777, 0600);
    ck_assert_uint_eq(n_entries(), 1);
    void *data = kvcl_os_cache_read(ctx, path, 100, &n);
    ck_assert_uint_eq(n, 11);
    ck_assert_mem_eq(data, "headpayload", 11);
    kvcl_mem_free(ctx, data);
    ck_assert_ptr_null(kvcl_os_cache_read(ctx, path, 10, &n));
    ck_assert(!kvcl_os_cache_write(in_folder("absent/entry"), parts, bytes, 3));
    kvcl_os_cache_remove(in_folder("entry"));
    ck_assert_uint_eq(n_entries(), 0);
}
END_TEST

START_TEST(cache_files_that_are_not_safe)
{
    size_t n = 0;
    write_plain(in_folder("entry"), "data");
    void *data = kvcl_os_cache_read(ctx, in_folder("entry"), 100, &n);
    ck_assert_ptr_nonnull(data);
    kvcl_mem_free(ctx, data);
    ck_assert_int_eq(chmod(in_folder("entry"), 0666), 0);
    ck_assert_ptr_null(kvcl_os_cache_read(ctx, in_folder("entry"), 100, &n));
    ck_assert_int_eq(chmod(in_folder("entry"), 0600), 0);
    ck_assert_int_eq(symlink("entry", in_folder("link")), 0);
    ck_assert_ptr_null(kvcl_os_cache_read(ctx, in_folder("link"), 100, &n));
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    ck_assert_ptr_null(kvcl_os_cache_read(ctx, in_folder("pipe"), 100, &n));
    ck_assert_ptr_null(kvcl_os_cache_read(ctx, folder, 100, &n));
    ck_assert_ptr_null(kvcl_os_cache_read(ctx, in_folder("absent"), 100, &n));
    /* a link in the place of an entry is replaced, never written through */
    const void *const parts[] = {"new"};
    const size_t bytes[] = {3};
    ck_assert(kvcl_os_cache_write(in_folder("link"), parts, bytes, 1));
    data = kvcl_os_cache_read(ctx, in_folder("entry"), 100, &n);
    ck_assert_mem_eq(data, "data", 4);
    kvcl_mem_free(ctx, data);
}
END_TEST

/* ---- the system ---------------------------------------------------------------------------- */

START_TEST(libraries_by_environment)
{
    setenv("KVCL_OPENCL_LIB", "off", 1);
    ck_assert_ptr_null(kvcl_os_opencl_names()[0]);
    ck_assert_ptr_null(kvcl_os_lib_open(kvcl_os_opencl_names()));
    setenv("KVCL_OPENCL_LIB", "/absent/libOpenCL.so", 1);
    ck_assert_str_eq(kvcl_os_opencl_names()[0], "/absent/libOpenCL.so");
    ck_assert_ptr_null(kvcl_os_opencl_names()[1]);
    ck_assert_ptr_null(kvcl_os_lib_open(kvcl_os_opencl_names()));
    unsetenv("KVCL_OPENCL_LIB");
    ck_assert_ptr_nonnull(kvcl_os_opencl_names()[0]);
    ck_assert_ptr_nonnull(kvcl_os_clblast_names()[0]);
    ck_assert_ptr_null(kvcl_os_lib_symbol(NULL, "clFinish"));
    kvcl_os_lib_close(NULL);
}
END_TEST

START_TEST(system_facts)
{
    char name[64], tiny[2];
    uint64_t t = kvcl_os_now_ns();
    ck_assert_uint_ge(kvcl_os_n_cpus(), 1);
    ck_assert_uint_ge(kvcl_os_mem_bytes(), 1 << 24);
    kvcl_os_cpu_name(name, sizeof name);
    ck_assert_uint_ge(strlen(name), 1);
    kvcl_os_cpu_name(tiny, sizeof tiny);
    ck_assert_uint_eq(strlen(tiny), 1);
    kvcl_os_yield();
    ck_assert_uint_gt(kvcl_os_now_ns(), t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("os");
    TCase *c = tcase_create("os");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, memory_is_counted_and_aligned);
    tcase_add_test(c, memory_overflow_is_refused);
    tcase_add_test(c, memory_limit_of_the_environment);
    tcase_add_test(c, arena_hands_out_and_fills_up);
    tcase_add_test(c, sizes_are_read);
    tcase_add_test(c, out_file_appears_on_commit_only);
    tcase_add_test(c, out_file_abort_keeps_the_old_one);
    tcase_add_test(c, out_file_follows_a_link_and_spares_devices);
    tcase_add_test(c, out_file_errors_have_sentences);
    tcase_add_test(c, read_file_keeps_its_limit);
    tcase_add_test(c, read_file_grows);
    tcase_add_test(c, map_regular_files_only);
    tcase_add_test(c, cache_folder_is_private);
    tcase_add_test(c, cache_folder_is_refused);
    tcase_add_test(c, cache_files_round_trip);
    tcase_add_test(c, cache_files_that_are_not_safe);
    tcase_add_test(c, libraries_by_environment);
    tcase_add_test(c, system_facts);
    suite_add_tcase(suite, c);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
