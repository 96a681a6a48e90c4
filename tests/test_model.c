/* test_model.c - opening models: shapes, metadata of every type, allocation failures. */
#include "gguf_writer.h"
#include "mem.h"
#include "model_int.h"
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[256], path[512];
static kvcl_ctx *ctx;

static void setup(void)
{
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/model.gguf", folder);
}

static void teardown(void)
{
    test_folder_remove(folder);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

static void save(const gguf_writer *w) { test_write_file(path, w->data, w->n); }

static kvcl_model *must_open(void)
{
    kvcl_model *m = NULL;
    kvcl_status st = kvcl_model_open(ctx, path, &m);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    return m;
}

/* ---- good files ---------------------------------------------------------------------------- */

START_TEST(tiny_opens)
{
    gguf_writer w;
    gw_tiny_llama(&w);
    gw_patch(&w, 4, 4, _i ? 2 : 3); /* versions 2 and 3 have one layout */
    save(&w);
    kvcl_model *m = must_open();
    const kvcl_model_info *i = kvcl_model_get_info(m);
    ck_assert_str_eq(i->arch, "llama");
    ck_assert_str_eq(i->name, "tiny");
    ck_assert_uint_eq(i->n_layers, 1);
    ck_assert_uint_eq(i->n_embd, 32);
    ck_assert_uint_eq(i->n_ff, 64);
    ck_assert_uint_eq(i->n_heads, 2);
    ck_assert_uint_eq(i->n_kv_heads, 1);
    ck_assert_uint_eq(i->head_dim, 16);
    ck_assert_uint_eq(i->n_vocab, GW_TINY_VOCAB);
    ck_assert_uint_eq(i->n_ctx_train, 64);
    ck_assert_uint_eq(i->n_params, 32u * (GW_TINY_VOCAB + 3 + 64 + 32 + 192));
    ck_assert(i->add_bos && i->has_tokenizer && i->bos_id == 0 && i->eos_id == 0);
    ck_assert(m->hp.tied_output && m->hp.n_rot == 16 && m->hp.attn_scale == 0.25f);
    const kvcl_gguf_tensor *t = kvcl_gguf_tensor_find(&m->gguf, "blk.0.attn_v.weight");
    ck_assert_ptr_nonnull(t);
    ck_assert(t->type == KVCL_F16 && t->dims[0] == 32 && t->dims[1] == 16 && t->bytes == 1024);
    ck_assert_ptr_eq(t->data, m->gguf.map.data + t->offset);
    ck_assert_ptr_null(kvcl_gguf_tensor_find(&m->gguf, "blk.1.attn_v.weight"));
    kvcl_model_close(m);
    gw_free(&w);
}
END_TEST

static const kvcl_gguf_type ints[] = {KVCL_GGUF_U8,  KVCL_GGUF_I8,  KVCL_GGUF_U16, KVCL_GGUF_I16,
                                      KVCL_GGUF_U32, KVCL_GGUF_I32, KVCL_GGUF_U64, KVCL_GGUF_I64};

/* A file with each integer type at 100 and with all bits set, and a few other values; opened. */
static void open_values(kvcl_gguf *g)
{
    static const int32_t same[] = {7, 7, 7}, mixed[] = {7, 8, 7};
    char key[32];
    gguf_writer w;
    gw_begin(&w, 3);
    for (size_t i = 0; i < kvcl_array_len(ints); i++) {
        snprintf(key, sizeof key, "int.%zu", i);
        gw_scalar(&w, key, ints[i], 100);
        snprintf(key, sizeof key, "neg.%zu", i);
        gw_scalar(&w, key, ints[i], ~UINT64_C(0));
    }
    gw_scalar(&w, "real.64", KVCL_GGUF_F64, UINT64_C(0x3ff8000000000000));
    gw_f32(&w, "real.nan", NAN);
    gw_i32s(&w, "array.same", same, 3);
    gw_i32s(&w, "array.mixed", mixed, 3);
    gw_i32s(&w, "array.empty", mixed, 0);
    gw_str(&w, "text", "a\nb");
    gw_finish(&w);
    save(&w);
    gw_free(&w);
    ck_assert_msg(kvcl_gguf_open(ctx, path, g) == KVCL_OK, "%s", kvcl_last_error(ctx));
}

START_TEST(integers)
{
    kvcl_gguf g;
    char key[32], text[16];
    uint32_t v = 5;
    open_values(&g);
    ck_assert_int_eq(kvcl_gguf_get_u32(&g, "absent", &v), KVCL_OK);
    ck_assert_uint_eq(v, 5);
    for (size_t i = 0; i < kvcl_array_len(ints); i++) {
        bool is_signed = i & 1;
        snprintf(key, sizeof key, "int.%zu", i);
        ck_assert_int_eq(kvcl_gguf_get_u32(&g, key, &v), KVCL_OK);
        ck_assert_uint_eq(v, 100);
        snprintf(key, sizeof key, "neg.%zu", i);
        kvcl_gguf_format(kvcl_gguf_find(&g, key), text, sizeof text);
        if (is_signed)
            ck_assert_str_eq(text, "-1");
        kvcl_status want = is_signed || ints[i] == KVCL_GGUF_U64 ? KVCL_E_FORMAT : KVCL_OK;
        ck_assert_int_eq(kvcl_gguf_get_u32(&g, key, &v), want);
    }
    ck_assert_int_eq(kvcl_gguf_get_u32(&g, "array.same", &v), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_get_u32_uniform(&g, "array.same", &v), KVCL_OK);
    ck_assert_uint_eq(v, 7);
    ck_assert_int_eq(kvcl_gguf_get_u32_uniform(&g, "array.mixed", &v), KVCL_E_UNSUPPORTED);
    ck_assert_int_eq(kvcl_gguf_get_u32_uniform(&g, "array.empty", &v), KVCL_E_FORMAT);
    kvcl_gguf_close(&g);
}
END_TEST

START_TEST(other_values)
{
    kvcl_gguf g;
    char text[16];
    float f = 0;
    bool b;
    kvcl_str s;
    const kvcl_gguf_kv *kv;
    open_values(&g);
    ck_assert_int_eq(kvcl_gguf_get_f32(&g, "real.64", &f), KVCL_OK);
    ck_assert(f == 1.5f);
    ck_assert_int_eq(kvcl_gguf_get_f32(&g, "real.nan", &f), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_get_f32(&g, "int.0", &f), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_get_bool(&g, "int.0", &b), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_get_str(&g, "int.0", &s), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_get_array(&g, "array.same", KVCL_GGUF_F32, &kv), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_get_array(&g, "int.0", KVCL_GGUF_I32, &kv), KVCL_E_FORMAT);
    ck_assert_int_eq(kvcl_gguf_require(&g, "absent"), KVCL_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "absent"));
    kvcl_gguf_format(kvcl_gguf_find(&g, "text"), text, sizeof text);
    ck_assert_str_eq(text, "a?b");
    kvcl_gguf_format(kvcl_gguf_find(&g, "array.same"), text, sizeof text);
    ck_assert_str_eq(text, "[3 x i32]");
    kvcl_gguf_close(&g);
}
END_TEST

/* ---- failures ------------------------------------------------------------------------------- */

/* Every allocation of opening and tokenising failed once: E_MEM with a sentence, nothing left. */
typedef struct failing {
    uint64_t n, fail_at;
} failing;

static void *failing_alloc(void *user, size_t bytes)
{
    failing *f = user;
    return f->n++ == f->fail_at ? NULL : aligned_alloc(64, bytes);
}

static void failing_free(void *user, void *p, size_t bytes)
{
    KVCL_UNUSED(user);
    KVCL_UNUSED(bytes);
    free(p);
}

START_TEST(no_memory)
{
    gguf_writer w;
    kvcl_status st = KVCL_E_MEM;
    gw_tiny_llama(&w);
    save(&w);
    uint64_t at = 1; /* 0 is the context itself */
    for (; st != KVCL_OK; at++) {
        failing f = {0, at};
        kvcl_allocator a = {failing_alloc, failing_free, &f};
        kvcl_ctx_options opt = {.allocator = &a};
        kvcl_ctx *c;
        kvcl_model *m = NULL;
        int32_t *tokens = NULL;
        size_t n;
        ck_assert_uint_lt(at, 200);
        ck_assert_int_eq(kvcl_ctx_create(&opt, &c), KVCL_OK);
        st = kvcl_model_open(c, path, &m);
        if (st == KVCL_OK)
            st = kvcl_tokenize(m, "the <tool>", 10, -1, &tokens, &n);
        ck_assert(st == KVCL_OK || (st == KVCL_E_MEM && strstr(kvcl_last_error(c), "no memory")));
        kvcl_tokens_free(m, tokens);
        kvcl_model_close(m);
        ck_assert_uint_eq(kvcl_ctx_mem_stats(c).n_live, 0);
        kvcl_ctx_free(c);
    }
    ck_assert_uint_gt(at, 20);
    gw_free(&w);
}
END_TEST

/* Shared files of other kinds: each opens or says why not. */
START_TEST(shared_files)
{
    static const struct {
        const char *name;
        kvcl_status status;
        const char *sentence;
    } files[] = {
        {"golden/types/tiny-Q4_K.gguf", KVCL_E_UNSUPPORTED, "type Q4_K"},
        {"golden/types/tiny-Q4_1.gguf", KVCL_E_UNSUPPORTED, "type Q4_1"},
        {"golden/types/tiny-IQ4_NL.gguf", KVCL_E_UNSUPPORTED, "type IQ4_NL"},
        {"golden/types/tiny-Q8_0.gguf", KVCL_OK, ""},
        {"golden/arch/arch-qwen3.gguf", KVCL_OK, ""},
        {"golden/arch/arch-llama-linear.gguf", KVCL_OK, ""},
        {"golden/arch/arch-llama3.gguf", KVCL_OK, ""},
        {"golden/vocab/ggml-vocab-gpt-2.gguf", KVCL_OK, ""},
        {"golden/vocab/ggml-vocab-llama-spm.gguf", KVCL_OK, ""},
        {"models/ref-llama-29m-f16.gguf", KVCL_OK, ""},
        {"models/ref-gpt2-14m-f16.gguf", KVCL_OK, ""},
    };
    char shared[1024];
    for (size_t i = 0; i < kvcl_array_len(files); i++) {
        kvcl_model *m = NULL;
        if (!test_shared(files[i].name, shared, sizeof shared))
            continue;
        kvcl_status st = kvcl_model_open(ctx, shared, &m);
        const char *said = kvcl_last_error(ctx);
        ck_assert_msg(st == files[i].status, "%s: %s", files[i].name, said);
        ck_assert(st == KVCL_OK || strstr(said, files[i].sentence));
        kvcl_model_close(m);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model");
    TCase *t = tcase_create("model");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, tiny_opens, 0, 2);
    tcase_add_test(t, integers);
    tcase_add_test(t, other_values);
    tcase_add_test(t, no_memory);
    tcase_add_test(t, shared_files);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
