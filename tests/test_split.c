/* test_split.c - models split into several files: the same model as one file, and the parts that do
 * not belong together. */
#include "gguf_writer.h"
#include "mem.h"
#include "model_int.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define N_PARTS 3u

static char folder[256];
static kvcl_ctx *ctx;

static void setup(void)
{
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    test_folder_make(folder, sizeof folder);
}

static void teardown(void)
{
    test_folder_remove(folder);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

static const char *part_path(uint32_t no)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/m-%05u-of-%05u.gguf", folder, no + 1, N_PARTS);
    return path;
}

/* What a part says about itself. */
typedef struct split_keys {
    uint32_t no, count, tensors;
} split_keys;

static void put_keys(gguf_writer *w, split_keys k)
{
    gw_scalar(w, "split.no", KVCL_GGUF_U16, k.no);
    gw_scalar(w, "split.count", KVCL_GGUF_U16, k.count);
    gw_scalar(w, "split.tensors.count", KVCL_GGUF_I32, k.tensors);
}

/* The tiny model's first tensors with the metadata, further ones behind them. */
static void write_part(uint32_t no, split_keys k, bool twice)
{
    gguf_writer w;
    if (no == 0) {
        gw_tiny_keys(&w);
    } else {
        gw_begin(&w, 3);
        gw_str(&w, "general.architecture", "llama");
    }
    put_keys(&w, k);
    if (no == 1) {
        gw_tensor(&w, "token_embd.weight", KVCL_F32, 32, GW_TINY_VOCAB);
        gw_tensor(&w, "output_norm.weight", KVCL_F32, 32, 0);
        gw_tensor(&w, "blk.0.attn_norm.weight", KVCL_F32, 32, 0);
        gw_tensor(&w, "blk.0.attn_q.weight", KVCL_F32, 32, 32);
    } else if (no == 2) {
        gw_tensor(&w, twice ? "token_embd.weight" : "blk.0.attn_k.weight", KVCL_F16, 32, 16);
        gw_tensor(&w, "blk.0.attn_v.weight", KVCL_F16, 32, 16);
        gw_tensor(&w, "blk.0.attn_output.weight", KVCL_F32, 32, 32);
        gw_tensor(&w, "blk.0.ffn_norm.weight", KVCL_F32, 32, 0);
        gw_tensor(&w, "blk.0.ffn_gate.weight", KVCL_F32, 32, 64);
        gw_tensor(&w, "blk.0.ffn_up.weight", KVCL_F32, 32, 64);
        gw_tensor(&w, "blk.0.ffn_down.weight", KVCL_F32, 64, 32);
    }
    gw_finish(&w);
    test_write_file(part_path(no), w.data, w.n);
    gw_free(&w);
}

static void write_parts(void)
{
    for (uint32_t i = 0; i < N_PARTS; i++)
        write_part(i, (split_keys){i, N_PARTS, 11}, false);
}

static void must_fail(const char *path, kvcl_status want, const char *sentence)
{
    kvcl_model *m = NULL;
    kvcl_status st = kvcl_model_open(ctx, path, &m);
    const char *said = kvcl_last_error(ctx);
    ck_assert_msg(st == want && strstr(said, sentence), "status %d (%s), want %d (%s)", st, said,
                  want, sentence);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
}

START_TEST(whole)
{
    char path[512];
    kvcl_model *m;
    kvcl_dev *dev;
    kvcl_engine *e;
    write_parts();
    ck_assert_msg(kvcl_model_open(ctx, part_path(0), &m) == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_uint_eq(m->gguf.n_tensors, 11);
    ck_assert(m->gguf.file_bytes > m->gguf.map.bytes);
    ck_assert_int_eq(kvcl_device_open(ctx, "cpu", &dev), KVCL_OK);
    ck_assert_msg(kvcl_engine_create(m, dev, &e) == KVCL_OK, "%s", kvcl_last_error(ctx));
    kvcl_engine_free(e);
    kvcl_device_close(dev);
    /* copied into one file, without the keys that say otherwise */
    snprintf(path, sizeof path, "%s/whole.gguf", folder);
    ck_assert_int_eq(kvcl_quantize_file(ctx, part_path(0), path, KVCL_F32, NULL, NULL), KVCL_OK);
    kvcl_model *one;
    ck_assert_msg(kvcl_model_open(ctx, path, &one) == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_ptr_null(kvcl_gguf_find(&one->gguf, "split.count"));
    const kvcl_gguf_tensor *a = kvcl_gguf_tensor_find(&m->gguf, "blk.0.ffn_down.weight");
    const kvcl_gguf_tensor *b = kvcl_gguf_tensor_find(&one->gguf, "blk.0.ffn_down.weight");
    ck_assert(a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0);
    kvcl_model_close(one);
    kvcl_model_close(m);
}
END_TEST

START_TEST(parts_that_do_not_fit)
{
    char path[512];
    write_parts();
    must_fail(part_path(1), KVCL_E_FORMAT, "part 2 of 3 by its keys split.no");
    write_part(1, (split_keys){2, N_PARTS, 11}, false);
    must_fail(part_path(0), KVCL_E_FORMAT, "where 2 of 3 is due");
    write_part(1, (split_keys){1, N_PARTS, 11}, false);
    write_part(2, (split_keys){2, N_PARTS, 11}, true);
    must_fail(part_path(0), KVCL_E_FORMAT, "'token_embd.weight' appears in two parts");
    ck_assert_int_eq(unlink(part_path(2)), 0);
    must_fail(part_path(0), KVCL_E_IO, "m-00003-of-00003.gguf");
    write_part(2, (split_keys){2, N_PARTS, 11}, false);
    write_part(0, (split_keys){0, N_PARTS, 12}, false);
    must_fail(part_path(0), KVCL_E_FORMAT, "11 tensors, split.tensors.count says 12");
    write_part(0, (split_keys){0, N_PARTS, 11}, false);
    snprintf(path, sizeof path, "%s/other.gguf", folder);
    ck_assert_int_eq(rename(part_path(0), path), 0);
    must_fail(path, KVCL_E_ARG, "must end in -00001-of-00003.gguf");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("split");
    TCase *t = tcase_create("split");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, whole);
    tcase_add_test(t, parts_that_do_not_fit);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
