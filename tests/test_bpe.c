/* test_bpe.c - the tokenizer against what an independent engine gives, and its properties. */
#include "gguf_writer.h"
#include "model_int.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PATH_CAP 1024

static kvcl_ctx *ctx;

static void setup(void) { ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK); }

static void teardown(void)
{
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

static kvcl_model *open_at(const char *path)
{
    kvcl_model *m = NULL;
    ck_assert_msg(kvcl_model_open(ctx, path, &m) == KVCL_OK, "%s", kvcl_last_error(ctx));
    return m;
}

static kvcl_model *open_ref(const char *name)
{
    char rel[128], path[PATH_CAP];
    snprintf(rel, sizeof rel, "models/ref/%s-q5_0.gguf", name);
    test_source(rel, path, sizeof path);
    return open_at(path);
}

/* The tiny model, with keys that `more` adds. */
static kvcl_model *open_tiny(void (*more)(gguf_writer *w))
{
    char folder[256], path[512];
    gguf_writer w;
    gw_tiny_keys(&w);
    if (more)
        more(&w);
    gw_tiny_tensors(&w);
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/tiny.gguf", folder);
    test_write_file(path, w.data, w.n);
    kvcl_model *m = open_at(path);
    test_folder_remove(folder); /* the mapping stays */
    gw_free(&w);
    return m;
}

static void *golden(const char *name, size_t *n_out)
{
    char rel[128], path[PATH_CAP];
    snprintf(rel, sizeof rel, "tests/golden/%s", name);
    test_source(rel, path, sizeof path);
    return test_read_file(path, n_out);
}

static size_t tokenize(const kvcl_model *m, const char *text, size_t n, int bos, int32_t **out)
{
    size_t n_out = 0;
    kvcl_status st = kvcl_tokenize(m, text, n, bos, out, &n_out);
    ck_assert_msg(st == KVCL_OK, "%s", kvcl_last_error(ctx));
    return n_out;
}

static void expect(const kvcl_model *m, const char *text, size_t n, int bos, const int32_t *want,
                   size_t n_want, bool prefix)
{
    int32_t *got;
    size_t n_got = tokenize(m, text, n, bos, &got);
    ck_assert_msg(prefix ? n_got >= n_want : n_got == n_want, "%zu tokens, want %zu", n_got,
                  n_want);
    for (size_t i = 0; i < n_want; i++)
        ck_assert_msg(got[i] == want[i], "token %zu is %d, want %d", i, got[i], want[i]);
    kvcl_tokens_free(m, got);
}

/* The text that the tokens stand for must be the text they came from. */
static void expect_round_trip(const kvcl_model *m, const char *text, size_t n)
{
    int32_t *tokens;
    size_t n_tokens = tokenize(m, text, n, 0, &tokens), at = 0;
    for (size_t i = 0; i < n_tokens; i++) {
        const char *bytes;
        size_t k;
        ck_assert_int_eq(kvcl_token_bytes(m, tokens[i], &bytes, &k), KVCL_OK);
        ck_assert_uint_le(at + k, n);
        ck_assert(memcmp(text + at, bytes, k) == 0);
        at += k;
    }
    ck_assert_uint_eq(at, n);
    kvcl_tokens_free(m, tokens);
}

/* ---- golden -------------------------------------------------------------------------------- */

static const char *const refs[] = {"ref-llama-29m", "ref-gpt2-14m"};

START_TEST(prompt)
{
    size_t n, n_want;
    char name[64];
    kvcl_model *m = open_ref(refs[_i]);
    char *text = golden("prompt.txt", &n);
    snprintf(name, sizeof name, "%s.tokens.i32", refs[_i]);
    int32_t *want = golden(name, &n_want);
    ck_assert_uint_eq(n_want, 512 * sizeof *want);
    expect(m, text, n, -1, want, 512, true);
    expect_round_trip(m, text, n);
    free(want);
    free(text);
    kvcl_model_close(m);
}
END_TEST

START_TEST(weird)
{
    size_t n, bytes;
    kvcl_model *m = open_ref(refs[_i]);
    char *text = golden("weird.txt", &n);
    int32_t *want = golden("weird.tokens.i32", &bytes);
    size_t n_want = bytes / sizeof *want;
    expect(m, text, n, 1, want, n_want, false);
    expect(m, text, n, 0, want + 1, n_want - 1, false);
    expect_round_trip(m, text, n);
    free(want);
    free(text);
    kvcl_model_close(m);
}
END_TEST

/* ---- properties ---------------------------------------------------------------------------- */

/* Bytes of all kinds; half of them from pieces that make words, spaces and broken UTF-8. */
static size_t made_up_text(test_rng *rng, char *out, size_t cap)
{
    static const char *const pieces[] = {" ",
                                         "  ",
                                         "\n",
                                         "\t",
                                         "the",
                                         "'ll",
                                         "\xc3\xa9",
                                         "\xe2\x82",
                                         "\xf0\x9f",
                                         "\xf0\x9f\x98\x80",
                                         "\xc0\x80",
                                         "\xed\xa0\x80",
                                         "\xff",
                                         "1234",
                                         "\xe1\xa0\x8e",
                                         "\xc2\x85",
                                         "<|endoftext|>",
                                         "\xf4\x90\x80\x80",
                                         "...",
                                         "\xcc\x81"};
    size_t n = 0, want = test_below(rng, (uint32_t)cap - 16);
    while (n < want) {
        if (test_below(rng, 2)) {
            const char *p = pieces[test_below(rng, (uint32_t)kvcl_array_len(pieces))];
            memcpy(out + n, p, strlen(p));
            n += strlen(p);
        } else {
            out[n++] = (char)test_below(rng, 256);
        }
    }
    return n;
}

START_TEST(round_trip)
{
    test_rng rng = {test_seed(), 0};
    kvcl_model *m = _i < 2 ? open_ref(refs[_i]) : open_tiny(NULL);
    for (int i = 0; i < 2000; i++) {
        char text[256];
        size_t n = made_up_text(&rng, text, sizeof text);
        expect_round_trip(m, text, n);
    }
    kvcl_model_close(m);
}
END_TEST

START_TEST(small_texts)
{
    static const struct {
        const char *text;
        size_t n;
        int32_t want[8];
        size_t n_want;
    } rows[] = {
        {"", 0, {0}, 0},
        {"\0", 1, {1}, 1},
        {"the", 3, {1 + 't', GW_TINY_HE}, 2},
        {" the", 4, {GW_TINY_THE}, 1},
        {"  the", 5, {1 + ' ', GW_TINY_THE}, 2},
        {" t h", 4, {GW_TINY_T, 1 + ' ', 1 + 'h'}, 3},
        {"\xff\xfe", 2, {256, 255}, 2},
        {"h\xff"
         "e",
         3,
         {1 + 'h', 256, 1 + 'e'},
         3},                                                  /* no word spans a bad byte */
        {"<tool>", 6, {GW_TINY_TOOL}, 1},                     /* user-defined: always found */
        {"h<tool>e", 8, {1 + 'h', GW_TINY_TOOL, 1 + 'e'}, 3}, /* and never merged across */
        {"<tool", 5, {1 + '<', 1 + 't', 1 + 'o', 1 + 'o', 1 + 'l'}, 5},
        {"<<tool>", 7, {1 + '<', GW_TINY_TOOL}, 2},
        {"\xe1\xa0\x8e", 3, {1 + 0xe1, 1 + 0xa0, 1 + 0x8e}, 3},
    };
    kvcl_model *m = open_tiny(NULL);
    for (size_t i = 0; i < kvcl_array_len(rows); i++)
        expect(m, rows[i].text, rows[i].n, 0, rows[i].want, rows[i].n_want, false);
    /* a control token's text in a text is text */
    int32_t *got;
    ck_assert_uint_eq(tokenize(m, "<|endoftext|>", 13, 0, &got), 13);
    kvcl_tokens_free(m, got);
    ck_assert_uint_eq(tokenize(m, "", 0, -1, &got), 1);
    ck_assert_int_eq(got[0], GW_TINY_EOT);
    kvcl_tokens_free(m, got);
    kvcl_model_close(m);
}
END_TEST

START_TEST(single_tokens)
{
    kvcl_model *m = open_tiny(NULL);
    const char *s;
    size_t n;
    ck_assert(kvcl_token_is_end(m, GW_TINY_EOT));
    ck_assert(!kvcl_token_is_end(m, GW_TINY_THE));
    ck_assert(!kvcl_token_is_end(m, -1));
    ck_assert(!kvcl_token_is_end(m, 1 << 30));
    ck_assert_int_eq(kvcl_token_bytes(m, GW_TINY_THE, &s, &n), KVCL_OK);
    ck_assert(n == 4 && memcmp(s, " the", 4) == 0);
    ck_assert_int_eq(kvcl_token_bytes(m, GW_TINY_EOT, &s, &n), KVCL_OK);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(kvcl_token_bytes(m, -1, &s, &n), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_token_bytes(m, GW_TINY_VOCAB, &s, &n), KVCL_E_ARG);
    kvcl_str text = kvcl_tokenizer_text(m->tok, GW_TINY_EOT);
    ck_assert(kvcl_str_is(text, "<|endoftext|>"));
    kvcl_model_close(m);
}
END_TEST

/* One word of 300,000 letters: what the heap is for.  Naively it would take minutes. */
START_TEST(long_word)
{
    size_t n = 300000;
    char *text = malloc(n);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < n; i++)
        text[i] = "the"[i % 3];
    kvcl_model *m = open_ref(refs[0]);
    clock_t start = clock();
    expect_round_trip(m, text, n);
    ck_assert_int_lt((int)((clock() - start) / CLOCKS_PER_SEC), 30);
    kvcl_model_close(m);
    free(text);
}
END_TEST

/* ---- vocabularies with holes --------------------------------------------------------------- */

/* A vocabulary-only file with few tokens. */
static kvcl_model *open_small(const char *pre, bool unknown)
{
    static const char *const tokens[] = {"<unk>", "a", "b", "abc", "c"};
    /* "ab" is no token, only a step on the way to "abc" */
    static const char *const merges[] = {"a b", "ab c"};
    char folder[256], path[512];
    gguf_writer w;
    gw_begin(&w, 3);
    gw_str(&w, "general.architecture", "gpt2");
    gw_u32(&w, "gpt2.block_count", 1);
    gw_u32(&w, "gpt2.context_length", 16);
    gw_u32(&w, "gpt2.embedding_length", 32);
    gw_u32(&w, "gpt2.feed_forward_length", 32);
    gw_u32(&w, "gpt2.attention.head_count", 1);
    gw_f32(&w, "gpt2.attention.layer_norm_epsilon", 1e-5f);
    gw_str(&w, "tokenizer.ggml.model", "gpt2");
    if (pre)
        gw_str(&w, "tokenizer.ggml.pre", pre);
    gw_strs(&w, "tokenizer.ggml.tokens", tokens, kvcl_array_len(tokens));
    gw_strs(&w, "tokenizer.ggml.merges", merges, kvcl_array_len(merges));
    if (unknown)
        gw_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    gw_u32(&w, "tokenizer.ggml.bos_token_id", 77);
    gw_finish(&w);
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/small.gguf", folder);
    test_write_file(path, w.data, w.n);
    kvcl_model *m = open_at(path);
    test_folder_remove(folder);
    gw_free(&w);
    return m;
}

START_TEST(holes)
{
    static const int32_t abc[] = {3}, ab[] = {1, 2}, unk[] = {1, 0, 3};
    int32_t *tokens;
    size_t n;
    kvcl_model *m = open_small(NULL, true);
    ck_assert_uint_eq(kvcl_model_get_info(m)->tensor_bytes, 0);
    ck_assert_int_eq(kvcl_model_get_info(m)->bos_id, -1); /* 77 is beyond the vocabulary */
    expect(m, "abc", 3, 0, abc, 1, false);
    expect(m, "ab", 2, 0, ab, 2, false);
    expect(m, "aXabc", 5, 0, unk, 3, false);
    ck_assert_int_eq(kvcl_tokenize(m, "a", 1, 1, &tokens, &n), KVCL_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "BOS"));
    kvcl_model_close(m);
    m = open_small(NULL, false);
    ck_assert_int_eq(kvcl_tokenize(m, "aX", 2, 0, &tokens, &n), KVCL_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "byte 0x58"));
    kvcl_model_close(m);
}
END_TEST

START_TEST(unknown_splitting)
{
    int32_t *tokens;
    size_t n;
    const char *bytes;
    kvcl_model *m = open_small("chameleon", true);
    ck_assert(!kvcl_model_get_info(m)->has_tokenizer);
    ck_assert_int_eq(kvcl_tokenize(m, "a", 1, 0, &tokens, &n), KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "'chameleon'"));
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "known are gpt-2, "));
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), ", codeshell")); /* the last of them */
    ck_assert_int_eq(kvcl_token_bytes(m, 1, &bytes, &n), KVCL_E_UNSUPPORTED);
    ck_assert(!kvcl_token_is_end(m, 1));
    kvcl_model_close(m);
}
END_TEST

static void more_ends(gguf_writer *w)
{
    gw_u32(w, "tokenizer.ggml.eot_token_id", GW_TINY_HE);
    gw_u32(w, "tokenizer.ggml.eom_token_id", 0xffffffffu); /* -1: none */
}

START_TEST(more_end_tokens)
{
    kvcl_model *m = open_tiny(more_ends);
    ck_assert(kvcl_token_is_end(m, GW_TINY_HE));
    ck_assert(kvcl_token_is_end(m, GW_TINY_EOT));
    ck_assert_int_eq(m->ids.eom, -1);
    kvcl_model_close(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bpe");
    TCase *t = tcase_create("bpe");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, prompt, 0, 2);
    tcase_add_loop_test(t, weird, 0, 2);
    tcase_add_loop_test(t, round_trip, 0, 3);
    tcase_add_test(t, small_texts);
    tcase_add_test(t, single_tokens);
    tcase_add_test(t, long_word);
    tcase_add_test(t, holes);
    tcase_add_test(t, unknown_splitting);
    tcase_add_test(t, more_end_tokens);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
