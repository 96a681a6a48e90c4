/* test_quantize.c - rewriting a model file in another type. */
#include "gguf_writer.h"
#include "model_int.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATH_CAP 1024

static char folder[256], in_path[512], out_path[512];
static kvcl_ctx *ctx;

static void setup(void)
{
    gguf_writer w;
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    test_folder_make(folder, sizeof folder);
    snprintf(in_path, sizeof in_path, "%s/in.gguf", folder);
    snprintf(out_path, sizeof out_path, "%s/out.gguf", folder);
    gw_tiny_llama(&w);
    test_write_file(in_path, w.data, w.n);
    gw_free(&w);
}

static void teardown(void)
{
    test_folder_remove(folder);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

static void quantize(const char *from, const char *to, kvcl_type type)
{
    kvcl_status st = kvcl_quantize_file(ctx, from, to, type, NULL, NULL);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
}

static void must_fail(const char *from, const char *to, kvcl_type type, kvcl_status want,
                      const char *sentence)
{
    kvcl_status st = kvcl_quantize_file(ctx, from, to, type, NULL, NULL);
    const char *said = kvcl_last_error(ctx);
    ck_assert_msg(st == want && strstr(said, sentence), "status %d: %s", st, said);
}

static void open_gguf(const char *path, kvcl_gguf *g)
{
    ck_assert_msg(kvcl_gguf_open(ctx, path, g) == KVCL_OK, "%s", kvcl_last_error(ctx));
}

static void expect_same_files(const char *a, const char *b)
{
    size_t n_a, n_b;
    char *x = test_read_file(a, &n_a), *y = test_read_file(b, &n_b);
    ck_assert_msg(n_a == n_b && memcmp(x, y, n_a) == 0, "%s and %s differ", a, b);
    free(x);
    free(y);
}

/* Files in the folder: a failure must leave no part of a result behind. */
static int n_files(void)
{
    char command[600];
    int n = -1;
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *p = popen(command, "r");
    ck_assert_ptr_nonnull(p);
    ck_assert_int_eq(fscanf(p, "%d", &n), 1);
    ck_assert_int_eq(pclose(p), 0);
    return n;
}

static const kvcl_type types[] = {KVCL_Q8_0, KVCL_Q5_0, KVCL_Q4_0, KVCL_F16, KVCL_F32};
static const uint32_t file_types[] = {7, 8, 2, 1, 0};

/* What each tensor must have become: the encoding of its values, or itself. */
static void check_tensor(const kvcl_gguf_tensor *was, const kvcl_gguf_tensor *is, kvcl_type type)
{
    size_t n = (size_t)was->n_elems;
    ck_assert_str_eq(was->name, is->name);
    ck_assert_uint_eq(was->n_dims, is->n_dims);
    ck_assert(memcmp(was->dims, is->dims, sizeof was->dims) == 0);
    if (was->n_dims == 1) {
        ck_assert(is->type == was->type && memcmp(is->data, was->data, was->bytes) == 0);
        return;
    }
    float *values = malloc(n * sizeof *values);
    unsigned char *want = malloc(n * 4);
    ck_assert(values && want);
    kvcl_dequantise(was->type, was->data, n, values);
    ck_assert(kvcl_quantise(type, values, n, want));
    ck_assert_int_eq(is->type, type);
    ck_assert_uint_eq(is->bytes, kvcl_type_bytes(type, n));
    ck_assert(memcmp(is->data, want, is->bytes) == 0);
    free(values);
    free(want);
}

START_TEST(every_type)
{
    kvcl_gguf a, b;
    uint32_t v = 99;
    quantize(in_path, out_path, types[_i]);
    open_gguf(in_path, &a);
    open_gguf(out_path, &b);
    ck_assert_uint_eq(a.n_tensors, b.n_tensors);
    for (uint32_t i = 0; i < a.n_tensors; i++)
        check_tensor(&a.tensors[i], &b.tensors[i], types[_i]);
    for (uint32_t i = 0; i < a.n_kv; i++) {
        char key[128];
        kvcl_str_show(a.kv[i].key, key, sizeof key);
        const kvcl_gguf_kv *kv = kvcl_gguf_find(&b, key);
        ck_assert_msg(kv != NULL, "%s is lost", key);
        if (strcmp(key, "general.file_type") != 0)
            ck_assert(kv->bytes == a.kv[i].bytes && kv->type == a.kv[i].type &&
                      memcmp(kv->data, a.kv[i].data, kv->bytes) == 0);
    }
    ck_assert_int_eq(kvcl_gguf_get_u32(&b, "general.file_type", &v), KVCL_OK);
    ck_assert_uint_eq(v, file_types[_i]);
    ck_assert_uint_eq(b.n_kv, a.n_kv + 1); /* general.quantization_version is new */
    kvcl_gguf_close(&a);
    kvcl_gguf_close(&b);
    kvcl_model *m;
    ck_assert_msg(kvcl_model_open(ctx, out_path, &m) == KVCL_OK, "%s", kvcl_last_error(ctx));
    kvcl_model_close(m);
}
END_TEST

static void count_progress(void *user, uint64_t done, uint64_t total)
{
    uint64_t *last = user;
    ck_assert_uint_gt(done, *last);
    ck_assert_uint_le(done, total);
    *last = done;
}

START_TEST(progress_ends_at_total)
{
    uint64_t last = 0;
    kvcl_gguf g;
    size_t total = 0;
    open_gguf(in_path, &g);
    for (uint32_t i = 0; i < g.n_tensors; i++)
        total += g.tensors[i].bytes;
    kvcl_gguf_close(&g);
    kvcl_status st = kvcl_quantize_file(ctx, in_path, out_path, KVCL_Q8_0, count_progress, &last);
    ck_assert_int_eq(st, KVCL_OK);
    ck_assert_uint_eq(last, total);
}
END_TEST

START_TEST(refused)
{
    char other[600];
    must_fail(in_path, in_path, KVCL_Q8_0, KVCL_E_ARG, "is the input");
    snprintf(other, sizeof other, "%s/./in.gguf", folder);
    must_fail(in_path, other, KVCL_Q8_0, KVCL_E_ARG, "is the input");
    snprintf(other, sizeof other, "%s/link.gguf", folder);
    ck_assert_int_eq(symlink(in_path, other), 0);
    must_fail(in_path, other, KVCL_Q8_0, KVCL_E_ARG, "is the input");
    ck_assert_int_eq(unlink(other), 0);
    must_fail(in_path, out_path, KVCL_BF16, KVCL_E_ARG, "BF16");
    must_fail(in_path, out_path, (kvcl_type)12, KVCL_E_ARG, "unknown type");
    must_fail(in_path, "", KVCL_Q8_0, KVCL_E_ARG, "two files");
    must_fail("/nonexistent/in.gguf", out_path, KVCL_Q8_0, KVCL_E_IO, "in.gguf");
    must_fail(in_path, "/nonexistent/out.gguf", KVCL_Q8_0, KVCL_E_IO, "out.gguf");
    ck_assert_int_eq(n_files(), 1);
    quantize(in_path, out_path, KVCL_Q5_0);
    snprintf(other, sizeof other, "%s/again.gguf", folder);
    must_fail(out_path, other, KVCL_Q4_0, KVCL_E_UNSUPPORTED, "quantised already (Q5_0)");
    ck_assert_int_eq(n_files(), 2);
    quantize(out_path, other, KVCL_F32); /* expanding is fine */
    quantize(other, in_path, KVCL_Q5_0);
    expect_same_files(in_path, out_path); /* and the codes survive it */
}
END_TEST

/* A value that no code stands for: named tensor, no result. */
START_TEST(bad_values)
{
    static const uint32_t bad[] = {0x7f800000, 0xffc00000, 0x7f000000};
    gguf_writer w;
    gw_tiny_llama(&w);
    for (size_t i = 0; i < kvcl_array_len(bad); i++) {
        gw_patch(&w, w.n - 64, 4, bad[i]); /* in the last tensor */
        test_write_file(in_path, w.data, w.n);
        must_fail(in_path, out_path, KVCL_Q4_0, KVCL_E_FORMAT,
                  "'blk.0.ffn_down.weight' has a value");
        ck_assert_int_eq(n_files(), 1);
    }
    gw_free(&w);
}
END_TEST

/* The shipped models come from this quantiser, to the byte; and it writes what llama-quantize
 * writes: its F16 file of the same type again is the same file. */
START_TEST(shared_files)
{
    static const char *const refs[] = {"ref-llama-29m", "ref-gpt2-14m"};
    char name[128], from[PATH_CAP], shipped[PATH_CAP];
    for (size_t i = 0; i < kvcl_array_len(refs); i++) {
        snprintf(name, sizeof name, "models/%s-f16.gguf", refs[i]);
        if (!test_shared(name, from, sizeof from))
            return;
        snprintf(name, sizeof name, "models/ref/%s-q5_0.gguf", refs[i]);
        test_source(name, shipped, sizeof shipped);
        quantize(from, out_path, KVCL_Q5_0);
        expect_same_files(out_path, shipped);
    }
    static const char *const tiny[] = {"Q8_0", "Q5_0", "Q4_0", "F16"};
    for (size_t i = 0; i < kvcl_array_len(tiny); i++) {
        snprintf(name, sizeof name, "golden/types/tiny-%s.gguf", tiny[i]);
        ck_assert(test_shared(name, from, sizeof from));
        quantize(from, out_path, types[i]);
        expect_same_files(out_path, from);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("quantize");
    TCase *t = tcase_create("quantize");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, every_type, 0, (int)kvcl_array_len(types));
    tcase_add_test(t, progress_ends_at_total);
    tcase_add_test(t, refused);
    tcase_add_test(t, bad_values);
    tcase_add_test(t, shared_files);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
