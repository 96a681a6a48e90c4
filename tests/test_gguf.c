/* test_gguf.c - the GGUF reader and the shape checks on bad files, by name.  Every bad file must
 * give the right status, a sentence that names the cause, and leave no memory behind. */
#include "gguf_writer.h"
#include "mem.h"
#include "model_int.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

/* Opens the file at `path`, which must fail. */
static void must_fail(const char *name, kvcl_status want, const char *sentence)
{
    kvcl_model *m = NULL;
    kvcl_status st = kvcl_model_open(ctx, path, &m);
    ck_assert_msg(st == want, "%s: status %d (%s), want %d", name, st, kvcl_last_error(ctx), want);
    const char *said = kvcl_last_error(ctx);
    ck_assert_msg(strstr(said, sentence) != NULL, "%s: '%s' lacks '%s'", name, said, sentence);
    ck_assert_msg(strstr(said, "model.gguf") != NULL, "%s: '%s' lacks the path", name, said);
    ck_assert_msg(strchr(said, '\n') == NULL, "%s: more than one line", name);
    ck_assert_ptr_null(m);
    ck_assert_msg(kvcl_ctx_mem_stats(ctx).n_live == 0, "%s: memory left", name);
    ck_assert_msg(kvcl_ctx_mem_stats(ctx).bytes_peak < 1u << 20, "%s: much memory", name);
}

static kvcl_model *must_open(void)
{
    kvcl_model *m = NULL;
    kvcl_status st = kvcl_model_open(ctx, path, &m);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    return m;
}

/* ---- bad files ----------------------------------------------------------------------------- */

START_TEST(not_a_file)
{
    must_fail("missing", KVCL_E_IO, "No such file");
    test_write_file(path, "", 0);
    must_fail("empty", KVCL_E_FORMAT, "empty");
    test_write_file(path, "PK\3\4 something else", 19);
    must_fail("another format", KVCL_E_FORMAT, "not a GGUF file");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("/", path), 0);
    must_fail("a folder", KVCL_E_IO, "folder");
    ck_assert_int_eq(kvcl_model_open(ctx, "", &(kvcl_model *){NULL}), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_model_open(ctx, NULL, &(kvcl_model *){NULL}), KVCL_E_ARG);
}
END_TEST

/* A number in the tiny model's file overwritten: `bytes` bytes, `delta` behind the start of `find`
 * (of the file when it is ""). */
typedef struct patch_case {
    const char *name, *find;
    int delta, bytes;
    uint64_t value;
    kvcl_status status;
    const char *sentence;
} patch_case;

#define U(x) UINT64_C(x)
/* From the start of a key or tensor name to what follows it. */
#define AFTER(text) (int)(sizeof(text) - 1)
#define KEY(text) text, AFTER(text)
#define IN_VALUE(text) text, AFTER(text) + 4 /* behind the value's type */
#define IN_ARRAY(text) text, AFTER(text) + 8 /* behind type and element type: the count */
#define DIMS(text) text, AFTER(text)
#define DIM0(text) text, AFTER(text) + 4
#define TYPE2(text) text, AFTER(text) + 20 /* of a matrix */
#define OFFSET2(text) text, AFTER(text) + 24

#define T_EMBD "token_embd.weight"
#define T_K "blk.0.attn_k.weight"
#define T_NORM "output_norm.weight"
#define K_TOKENS "tokenizer.ggml.tokens"
#define K_KINDS "tokenizer.ggml.token_type"
#define K_ALIGN "general.alignment"

static const patch_case patches[] = {
    {"no magic", "", 0, 4, 0x12345678, KVCL_E_FORMAT, "not a GGUF file"},
    {"version 0", "", 4, 4, 0, KVCL_E_VERSION, "version 0 is not supported"},
    {"version 1", "", 4, 4, 1, KVCL_E_VERSION, "version 1 is not supported"},
    {"version 4", "", 4, 4, 4, KVCL_E_VERSION, "version 4 is not supported"},
    {"big-endian", "", 4, 4, 0x03000000, KVCL_E_VERSION, "big-endian"},
    {"huge count of tensors", "", 8, 8, ~U(0), KVCL_E_FORMAT, "18446744073709551615 tensors"},
    {"many tensors", "", 8, 8, 65000, KVCL_E_FORMAT, "65000 tensors"},
    {"one tensor too many", "", 8, 8, 12, KVCL_E_FORMAT, ""},
    {"huge count of keys", "", 16, 8, U(1) << 60, KVCL_E_FORMAT, "metadata keys"},
    {"many keys", "", 16, 8, 65000, KVCL_E_FORMAT, "65000 metadata keys"},
    {"one key too many", "", 16, 8, 24, KVCL_E_FORMAT, ""},
    {"huge key length", "general.name", -8, 8, U(1) << 63, KVCL_E_FORMAT, "a metadata key claims"},
    {"empty key", "test.twin_a", -8, 8, 0, KVCL_E_FORMAT, "not plain text"},
    {"key with a control byte", "twin_b", 5, 1, 1, KVCL_E_FORMAT, "not plain text"},
    {"same key twice", "twin_b", 5, 1, 'a', KVCL_E_FORMAT, "'test.twin_a' appears twice"},
    {"unknown value type", KEY("general.name"), 4, 77, KVCL_E_FORMAT, "value type 77"},
    {"negative value type", KEY("general.name"), 4, ~U(0), KVCL_E_FORMAT, "value type"},
    {"huge string", IN_VALUE("general.name"), 8, U(1) << 40, KVCL_E_FORMAT, "claims a length of"},
    {"string that wraps", IN_VALUE("general.name"), 8, ~U(0), KVCL_E_FORMAT, "claims a length of"},
    {"string past the end", IN_VALUE("general.name"), 8, 1 << 20, KVCL_E_FORMAT, "ends inside"},
    {"unknown element type", IN_VALUE(K_TOKENS), 4, 13, KVCL_E_FORMAT, "value type 13"},
    {"array of arrays", IN_VALUE(K_TOKENS), 4, 9, KVCL_E_FORMAT, "array of arrays"},
    {"huge array", IN_ARRAY(K_TOKENS), 8, U(1) << 61, KVCL_E_FORMAT, "claims an array of"},
    {"array past the end", IN_ARRAY(K_TOKENS), 8, 60 << 20, KVCL_E_FORMAT, "ends inside"},
    {"number array past the end", IN_ARRAY(K_KINDS), 8, 1 << 20, KVCL_E_FORMAT, "ends inside"},
    {"truth value 7", IN_VALUE("ggml.add_bos_token"), 1, 7, KVCL_E_FORMAT, "truth value of 7"},
    {"alignment 0", IN_VALUE(K_ALIGN), 4, 0, KVCL_E_FORMAT, "alignment is 0"},
    {"alignment 48", IN_VALUE(K_ALIGN), 4, 48, KVCL_E_FORMAT, "alignment is 48"},
    {"alignment 4", IN_VALUE(K_ALIGN), 4, 4, KVCL_E_FORMAT, "power of two from 8"},
    {"huge alignment", IN_VALUE(K_ALIGN), 4, 1u << 31, KVCL_E_FORMAT, "power of two"},
    {"alignment a real number", KEY(K_ALIGN), 4, 6, KVCL_E_FORMAT, "must be a u32"},
    {"huge tensor name", T_EMBD, -8, 8, ~U(0), KVCL_E_FORMAT, "a tensor name claims"},
    {"tensor name of 64", T_EMBD, -8, 8, 64, KVCL_E_FORMAT, "a tensor name claims"},
    {"empty tensor name", T_EMBD, -8, 8, 0, KVCL_E_FORMAT, "not plain text"},
    {"tensor name with NUL", T_EMBD, 3, 1, 0, KVCL_E_FORMAT, "not plain text"},
    {"same tensor twice", T_K, 11, 1, 'q', KVCL_E_FORMAT, "'blk.0.attn_q.weight' appears twice"},
    {"no dimensions", DIMS(T_EMBD), 4, 0, KVCL_E_FORMAT, "0 dimensions"},
    {"five dimensions", DIMS(T_EMBD), 4, 5, KVCL_E_FORMAT, "5 dimensions"},
    {"many dimensions", DIMS(T_EMBD), 4, ~U(0), KVCL_E_FORMAT, "dimensions"},
    {"empty dimension", DIM0(T_EMBD), 8, 0, KVCL_E_FORMAT, "empty dimension"},
    {"elements wrap", DIM0(T_EMBD), 8, U(1) << 62, KVCL_E_FORMAT, "more elements"},
    {"bytes wrap", DIM0(T_NORM), 8, U(1) << 62, KVCL_E_FORMAT, "more bytes"},
    {"dimension 2^42+32", DIM0(T_NORM), 8, (U(1) << 42) + 32, KVCL_E_FORMAT, ""},
    {"unknown tensor type", TYPE2(T_K), 4, 99, KVCL_E_UNSUPPORTED, "type number 99"},
    {"tensor type -1", TYPE2(T_K), 4, ~U(0), KVCL_E_UNSUPPORTED, "type number 4294967295"},
    {"tensor type Q4_K", TYPE2(T_K), 4, 12, KVCL_E_UNSUPPORTED, "type Q4_K"},
    {"tensor type IQ2_XXS", TYPE2(T_K), 4, 16, KVCL_E_UNSUPPORTED, "type IQ2_XXS"},
    {"retired tensor type", TYPE2(T_K), 4, 4, KVCL_E_UNSUPPORTED, "type Q4_2"},
    {"type of other size", TYPE2(T_K), 4, KVCL_F32, KVCL_E_FORMAT, "overlaps"},
    {"tensor off the alignment", OFFSET2(T_K), 8, 20, KVCL_E_FORMAT, "not a multiple of the align"},
    {"overlapping tensors", OFFSET2(T_K), 8, 0, KVCL_E_FORMAT, "overlaps tensor"},
    {"gap between tensors", OFFSET2(T_EMBD), 8, 64, KVCL_E_FORMAT, "where 0 is due"},
    {"offset beyond the file", OFFSET2(T_K), 8, U(1) << 40, KVCL_E_FORMAT, "beyond the end"},
    {"offset that wraps", OFFSET2(T_K), 8, ~U(31), KVCL_E_FORMAT, "beyond the end"},
    {"tensor past the end", DIM0("ffn_down.weight"), 8, 1 << 20, KVCL_E_FORMAT, "truncated"},

    {"unknown architecture", "llama", 2, 1, 'e', KVCL_E_UNSUPPORTED, "'llema' is not supported"},
    {"architecture a number", KEY("general.architecture"), 4, 10, KVCL_E_FORMAT, ""},
    {"no architecture", "general.arch", 0, 1, 'x', KVCL_E_FORMAT,
     "general.architecture is missing"},
    {"no layers", IN_VALUE("block_count"), 4, 0, KVCL_E_FORMAT, "block_count is 0"},
    {"huge layers", IN_VALUE("block_count"), 4, 1 << 30, KVCL_E_FORMAT, "block_count is 10737"},
    {"a layer missing", IN_VALUE("block_count"), 4, 2, KVCL_E_FORMAT, "'blk.1.attn_q.weight' is"},
    {"layers negative", KEY("block_count"), 8, (~U(0) << 32) | 5, KVCL_E_FORMAT, "negative"},
    {"layers a real number", KEY("block_count"), 4, 6, KVCL_E_FORMAT, "must be an integer"},
    {"layers not given", "block_count", 0, 1, 'x', KVCL_E_FORMAT, "block_count is missing"},
    {"width of no blocks", IN_VALUE("embedding_length"), 4, 40, KVCL_E_UNSUPPORTED, "width is 40"},
    {"width of others", IN_VALUE("embedding_length"), 4, 64, KVCL_E_UNSUPPORTED, "16 of 32"},
    {"no context", IN_VALUE("context_length"), 4, 0, KVCL_E_FORMAT, "context_length is 0"},
    {"feed-forward of others", IN_VALUE("forward_length"), 4, 96, KVCL_E_FORMAT, "ffn_down.weight"},
    {"no heads", IN_VALUE("head_count"), 4, 0, KVCL_E_FORMAT, "head_count is 0"},
    {"three key heads", IN_VALUE("head_count_kv"), 4, 3, KVCL_E_FORMAT, "2 heads do not divide"},
    {"no key heads", IN_VALUE("head_count_kv"), 4, 0, KVCL_E_FORMAT, "0 key/value heads"},
    {"key heads of others", IN_VALUE("head_count_kv"), 4, 2, KVCL_E_FORMAT, "attn_k.weight"},
    {"partial RoPE", IN_VALUE("dimension_count"), 4, 8, KVCL_E_UNSUPPORTED, "RoPE over 8 of 16"},
    {"RoPE base infinite", IN_VALUE("freq_base"), 4, 0x7f800000, KVCL_E_FORMAT, "not a finite"},
    {"RoPE base 0", IN_VALUE("freq_base"), 4, 0, KVCL_E_FORMAT, "freq_base is 0"},
    {"epsilon NaN", IN_VALUE("rms_epsilon"), 4, 0x7fc00000, KVCL_E_FORMAT, "not a finite"},
    {"epsilon negative", IN_VALUE("rms_epsilon"), 4, 0xbf800000, KVCL_E_FORMAT, "epsilon is -1"},
    {"tokens not strings", KEY("ggml.tokens"), 4, 4, KVCL_E_FORMAT, ""},
    {"kinds not i32", IN_VALUE(K_KINDS), 4, 6, KVCL_E_FORMAT, "array of type f32"},
    {"unknown kind of token", K_KINDS, AFTER(K_KINDS) + 16, 4, 9, KVCL_E_FORMAT, "unknown kind 9"},
    {"merge of one piece", "\xc4\xa0t he", 3, 1, 'x', KVCL_E_FORMAT, "is not two pieces"},
    {"no merges", "ggml.merges", 5, 1, 'x', KVCL_E_FORMAT, "merges is missing"},
    {"no vocabulary", "ggml.tokens", 5, 1, 'x', KVCL_E_FORMAT, "tokens is missing"},
    {"no embedding", T_EMBD, 0, 1, 'x', KVCL_E_FORMAT, "'token_embd.weight' is missing"},
};

START_TEST(patched)
{
    const patch_case *c = &patches[_i];
    gguf_writer w;
    gw_tiny_llama(&w);
    size_t at = *c->find ? gw_find(&w, c->find) : 0;
    at = c->delta < 0 ? at - (size_t)-c->delta : at + (size_t)c->delta;
    gw_patch(&w, at, (size_t)c->bytes, c->value);
    save(&w);
    must_fail(c->name, c->status, c->sentence);
    gw_free(&w);
}
END_TEST

START_TEST(rows_of_no_whole_blocks)
{
    gguf_writer w;
    gw_tiny_llama(&w);
    size_t at = gw_find(&w, T_K) + AFTER(T_K);
    gw_patch(&w, at + 4, 8, 33);
    gw_patch(&w, at + 20, 4, KVCL_Q8_0);
    save(&w);
    must_fail("rows of 33", KVCL_E_FORMAT, "(Q8_0) has rows of 33 elements");
    gw_free(&w);
}
END_TEST

/* Cut before, at and behind the end of each part of the header, and at steps through the data. */
START_TEST(truncated)
{
    gguf_writer w;
    gw_tiny_llama(&w);
    save(&w);
    kvcl_model_close(must_open());
    ck_assert_uint_gt(w.n_marks, 300);
    for (size_t i = w.n_marks; i-- > 0;) {
        for (int d = 1; d >= -1; d--) {
            size_t cut = w.marks[i] + (size_t)d;
            if (i > 0 && d < 0 && cut <= w.marks[i - 1] + 1)
                continue; /* seen from the mark before */
            ck_assert_int_eq(truncate(path, (off_t)cut), 0);
            must_fail("truncated", KVCL_E_FORMAT, "");
            test_write_file(path, w.data, cut);
        }
    }
    for (size_t cut = w.n - 1; cut > w.n - 9000; cut -= 997) {
        test_write_file(path, w.data, cut);
        must_fail("truncated data", KVCL_E_FORMAT, "truncated");
    }
    gw_free(&w);
}
END_TEST

/* What a damaged file may do: open, or fail with a sentence; never anything else.  If it opens, its
 * tokenizer must still work. */
static void try_file(size_t where)
{
    kvcl_model *m = NULL;
    kvcl_status st = kvcl_model_open(ctx, path, &m);
    if (st == KVCL_OK) {
        static const char text[] = "the <tool> \xff weather";
        int32_t *tokens;
        size_t n;
        if (kvcl_tokenize(m, text, sizeof text - 1, 0, &tokens, &n) == KVCL_OK) {
            ck_assert_uint_le(n, sizeof text - 1);
            for (size_t i = 0; i < n; i++)
                ck_assert(tokens[i] >= 0 && tokens[i] < GW_TINY_VOCAB);
            kvcl_tokens_free(m, tokens);
        }
    } else {
        ck_assert_msg(kvcl_last_error(ctx)[0] != 0, "no sentence at %zu", where);
    }
    kvcl_model_close(m);
    ck_assert_msg(kvcl_ctx_mem_stats(ctx).n_live == 0, "memory left at %zu", where);
    ck_assert_msg(kvcl_ctx_mem_stats(ctx).bytes_peak < 4u << 20, "much memory at %zu", where);
}

/* Every byte of the header with one bit turned, with all bits turned, and set to 0xff. */
START_TEST(damaged)
{
    gguf_writer w;
    gw_tiny_llama(&w);
    save(&w);
    size_t n_header = w.marks[w.n_marks - 1];
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    setbuf(f, NULL);
    for (size_t i = 0; i < n_header; i++) {
        unsigned char was = w.data[i];
        unsigned char tries[] = {(unsigned char)(was ^ 1u << (test_word(test_seed(), i) % 8)),
                                 (unsigned char)~was, 0xff};
        for (size_t k = 0; k <= sizeof tries; k++) {
            ck_assert_int_eq(fseek(f, (long)i, SEEK_SET), 0);
            ck_assert_int_ne(fputc(k < sizeof tries ? tries[k] : was, f), EOF);
            if (k < sizeof tries)
                try_file(i);
        }
    }
    fclose(f);
    gw_free(&w);
}
END_TEST

/* ---- what is refused by meaning ------------------------------------------------------------ */

/* The tiny model with one key more: a string if text is given, else a number. */
static void variant(const char *key, kvcl_gguf_type type, uint64_t v, const char *text,
                    kvcl_status want, const char *sentence)
{
    gguf_writer w;
    gw_tiny_keys(&w);
    if (text)
        gw_str(&w, key, text);
    else
        gw_scalar(&w, key, type, v);
    gw_tiny_tensors(&w);
    save(&w);
    if (want == KVCL_OK)
        kvcl_model_close(must_open());
    else
        must_fail(key, want, sentence);
    gw_free(&w);
}

/* A tensor that no layer reads: the file opens, the weights are refused. */
START_TEST(extra_tensor)
{
    gguf_writer w;
    kvcl_dev *dev;
    kvcl_engine *e;
    gw_tiny_keys(&w);
    gw_tensor(&w, "blk.0.post_attention_norm.weight", KVCL_F32, 32, 0);
    gw_tiny_tensors(&w);
    save(&w);
    kvcl_model *m = must_open();
    ck_assert_int_eq(kvcl_device_open(ctx, "cpu", &dev), KVCL_OK);
    ck_assert_int_eq(kvcl_engine_create(m, dev, &e), KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "'blk.0.post_attention_norm.weight'"));
    kvcl_device_close(dev);
    kvcl_model_close(m);
    gw_free(&w);
}
END_TEST

/* Beyond a sliding window: refused by the key's name; the default context keeps to it. */
START_TEST(sliding_window)
{
    gguf_writer w;
    kvcl_dev *dev;
    kvcl_engine *e;
    kvcl_session *s;
    kvcl_session_options opt = kvcl_session_defaults();
    gw_tiny_keys(&w);
    gw_u32(&w, "llama.attention.sliding_window", 32);
    gw_tiny_tensors(&w);
    save(&w);
    kvcl_model *m = must_open();
    ck_assert_uint_eq(kvcl_model_get_info(m)->n_ctx_train, 32);
    ck_assert_int_eq(kvcl_device_open(ctx, "cpu", &dev), KVCL_OK);
    ck_assert_int_eq(kvcl_engine_create(m, dev, &e), KVCL_OK);
    opt.n_ctx = 33;
    ck_assert_int_eq(kvcl_session_create(e, &opt, &s), KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "llama.attention.sliding_window"));
    opt.n_ctx = 0;
    ck_assert_int_eq(kvcl_session_create(e, &opt, &s), KVCL_OK);
    ck_assert_uint_eq(kvcl_session_n_ctx(s), 32);
    kvcl_session_free(s);
    kvcl_engine_free(e);
    kvcl_device_close(dev);
    kvcl_model_close(m);
    gw_free(&w);
}
END_TEST

START_TEST(variants)
{
    uint32_t half = 0x3f000000, four = 0x40800000, one = 0x3f800000;
    variant("llama.expert_count", KVCL_GGUF_U32, 8, NULL, KVCL_E_UNSUPPORTED, "8 experts");
    variant("split.count", KVCL_GGUF_U16, 3, NULL, KVCL_E_FORMAT, "part 0 of 3 by its keys");
    variant("llama.rope.scaling.type", 0, 0, "longrope", KVCL_E_UNSUPPORTED, "'longrope'");
    variant("llama.rope.scaling.type", 0, 0, "yarn", KVCL_OK, "");
    variant("llama.rope.scaling.type", KVCL_GGUF_U32, 1, NULL, KVCL_E_FORMAT, "must be a string");
    variant("llama.rope.scaling.attn_factor", KVCL_GGUF_F32, 0, NULL, KVCL_E_FORMAT,
            "attn_factor is 0");
    variant("llama.attention.sliding_window", KVCL_GGUF_U32, 32, NULL, KVCL_OK, "");
    variant("llama.logit_scale", KVCL_GGUF_F32, one, NULL, KVCL_OK, "");
    variant("llama.logit_scale", KVCL_GGUF_F32, half, NULL, KVCL_E_UNSUPPORTED,
            "llama.logit_scale = 0.5");
    variant("llama.final_logit_softcapping", KVCL_GGUF_F32, four, NULL, KVCL_E_UNSUPPORTED,
            "llama.final_logit_softcapping = 4");
    variant("llama.attention.causal", KVCL_GGUF_BOOL, 0, NULL, KVCL_E_UNSUPPORTED,
            "llama.attention.causal = false");
    variant("llama.never_heard_of", 0, 0, "x", KVCL_E_UNSUPPORTED, "llama.never_heard_of = x");
    variant("llama.rope.scaling.factor", KVCL_GGUF_F32, four, NULL, KVCL_OK, "");
    variant("llama.rope.scale_linear", KVCL_GGUF_F32, 0xbf800000, NULL, KVCL_E_FORMAT, "factor");
    variant("llama.attention.scale", KVCL_GGUF_F32, half, NULL, KVCL_OK, "");
    variant("llama.attention.value_length", KVCL_GGUF_U32, 8, NULL, KVCL_E_UNSUPPORTED,
            "values of 8");
    variant("llama.attention.key_length", KVCL_GGUF_U32, 15, NULL, KVCL_E_FORMAT, "of 15");
    variant("llama.attention.key_length", KVCL_GGUF_U32, 1 << 20, NULL, KVCL_E_FORMAT,
            "of 1048576");
    variant("llama.vocab_size", KVCL_GGUF_U32, 5, NULL, KVCL_OK, "");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf");
    TCase *t = tcase_create("gguf");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, not_a_file);
    tcase_add_loop_test(t, patched, 0, (int)kvcl_array_len(patches));
    tcase_add_test(t, rows_of_no_whole_blocks);
    tcase_add_test(t, truncated);
    tcase_add_test(t, damaged);
    tcase_add_test(t, variants);
    tcase_add_test(t, extra_tensor);
    tcase_add_test(t, sliding_window);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
