/* test_tok.c - tokenizers of other models: splitting rules, SentencePiece, special tokens.  What is
 * particular to the shipped models' byte-level BPE: test_bpe.c. */
#include "gguf_writer.h"
#include "model_int.h"
#include "test.h"
#include "tok_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH_CAP 1024

static kvcl_ctx *ctx;

static void setup(void) { ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK); }

static void teardown(void)
{
    ck_assert_uint_eq(kvcl_ctx_mem_stats(ctx).n_live, 0);
    kvcl_ctx_free(ctx);
}

/* ---- made-up files ------------------------------------------------------------------------- */

/* A vocabulary-only file; the tokenizer's keys follow. */
static void begin(gguf_writer *w)
{
    gw_begin(w, 3);
    gw_str(w, "general.architecture", "llama");
    gw_u32(w, "llama.block_count", 1);
    gw_u32(w, "llama.context_length", 16);
    gw_u32(w, "llama.embedding_length", 32);
    gw_u32(w, "llama.feed_forward_length", 32);
    gw_u32(w, "llama.attention.head_count", 1);
    gw_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
}

static kvcl_status open_image(gguf_writer *w, kvcl_model **out)
{
    char folder[256], path[512];
    gw_finish(w);
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/made.gguf", folder);
    test_write_file(path, w->data, w->n);
    kvcl_status st = kvcl_model_open(ctx, path, out);
    test_folder_remove(folder); /* the mapping stays */
    gw_free(w);
    return st;
}

static void encode(const kvcl_model *m, const char *text, size_t n, bool control, int32_t *out,
                   size_t cap, size_t *n_out)
{
    int32_t *ids;
    kvcl_tokenize_options opt = {.control = control};
    ck_assert_msg(kvcl_tokenize_with(m, text, n, &opt, &ids, n_out) == KVCL_OK, "%s",
                  kvcl_last_error(ctx));
    ck_assert_uint_le(*n_out, cap);
    memcpy(out, ids, *n_out * sizeof *ids);
    kvcl_tokens_free(m, ids);
}

/* ---- splitting rules ----------------------------------------------------------------------- */

/* A model that knows nothing but bytes, 1 + byte each; more: further tokens. */
static kvcl_status open_bytes(const char *pre, const char *const *more, const int32_t *kinds,
                              size_t n_more, kvcl_model **out)
{
    static const char *const merges[] = {"a b"};
    static char text[256][3];
    const char *tokens[300] = {"<unk>"};
    int32_t kind[300] = {KVCL_TOKEN_UNKNOWN};
    gguf_writer w;
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char)b;
        text[b][kvcl_bpe_encode(&byte, 1, text[b])] = 0;
        tokens[1 + b] = text[b];
        kind[1 + b] = KVCL_TOKEN_NORMAL;
    }
    for (size_t i = 0; i < n_more; i++) {
        tokens[257 + i] = more[i];
        kind[257 + i] = kinds[i];
    }
    begin(&w);
    gw_str(&w, "tokenizer.ggml.model", "gpt2");
    gw_str(&w, "tokenizer.ggml.pre", pre);
    gw_strs(&w, "tokenizer.ggml.tokens", tokens, 257 + n_more);
    gw_i32s(&w, "tokenizer.ggml.token_type", kind, 257 + n_more);
    gw_strs(&w, "tokenizer.ggml.merges", merges, 1);
    gw_u32(&w, "tokenizer.ggml.bos_token_id", 0);
    return open_image(&w, out);
}

/* The words of golden/words.txt by one rule, against the line that begins with its name. */
static void check_split(const char *line, const char *text, size_t n)
{
    char pre[32];
    int used;
    kvcl_model *m;
    ck_assert_int_eq(sscanf(line, "%31s%n", pre, &used), 1);
    ck_assert_msg(open_bytes(pre, NULL, NULL, 0, &m) == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_msg(m->tok, "%s: %s", pre, m->tok_why);
    kvcl_tok_encoder e = {.tok = m->tok};
    e.match = pcre2_match_data_create(1, m->tok->pcre);
    char *at_line = (char *)(uintptr_t)line + used;
    size_t at = 0, from, end;
    for (; at < n; at = end) {
        size_t want = strtoul(at_line, &at_line, 10);
        ck_assert_int_eq(kvcl_bpe_split(&e, text, n, at, &from, &end), KVCL_OK);
        ck_assert_msg(from == at && end - at == want,
                      "%s: a word [%zu, %zu) at %zu, want %zu bytes", pre, from, end, at, want);
    }
    ck_assert_int_eq((int)strspn(at_line, " "), (int)strcspn(at_line, "\n"));
    pcre2_match_data_free(e.match);
    kvcl_model_close(m);
}

START_TEST(splitting)
{
    char path[PATH_CAP];
    size_t n, bytes, n_rules = 0;
    test_source("tests/golden/words.txt", path, sizeof path);
    char *text = test_read_file(path, &n);
    test_source("tests/golden/words.splits", path, sizeof path);
    char *lines = test_read_file(path, &bytes);
    for (char *line = lines; *line; line = strchr(line, '\n') + 1, n_rules++)
        check_split(line, text, n);
    ck_assert_uint_eq(n_rules, 5);
    free(lines);
    free(text);
}
END_TEST

/* One word that is a token though no merge makes it: taken whole by llama-bpe alone; a control
 * token never comes out of text unless it is asked for. */
START_TEST(whole_words_and_control_tokens)
{
    static const char *const more[] = {"\xc4\xa0xyz", "<|im_end|>", "<t>", "$$"};
    static const int32_t kinds[] = {KVCL_TOKEN_NORMAL, KVCL_TOKEN_CONTROL, KVCL_TOKEN_USER,
                                    KVCL_TOKEN_CONTROL};
    int32_t ids[64];
    size_t n;
    for (int whole = 0; whole < 2; whole++) {
        kvcl_model *m;
        ck_assert_int_eq(open_bytes(whole ? "llama-bpe" : "qwen2", more, kinds, 4, &m), KVCL_OK);
        ck_assert_int_eq(m->ids.add_bos, whole);
        encode(m, " xyz", 4, false, ids, 64, &n);
        ck_assert_uint_eq(n, whole ? 1 : 4);
        ck_assert_int_eq(ids[0], whole ? 257 : 1 + ' ');
        encode(m, "$$", 2, false, ids, 64, &n);
        ck_assert_uint_eq(n, 2);
        encode(m, "a<|im_end|><t>", 14, false, ids, 64, &n);
        ck_assert_uint_eq(n, 12);
        ck_assert_int_eq(ids[11], 259);
        encode(m, "a<|im_end|><t>", 14, true, ids, 64, &n);
        ck_assert_uint_eq(n, 3);
        ck_assert(ids[0] == 1 + 'a' && ids[1] == 258 && ids[2] == 259);
        ck_assert(kvcl_token_is_end(m, 258));
        kvcl_model_close(m);
    }
}
END_TEST

/* ---- SentencePiece ------------------------------------------------------------------------- */

#define MARK "\xe2\x96\x81"
enum { UNK, BOS, EOS, BYTE0, SPACE = BYTE0 + 256, A, B, C, SP_A, AB, BC, SP_ABC, ABC, T, E, AA };
#define N_SPM (AA + 1)

typedef struct spm_options {
    bool no_prefix, no_bytes, crossing, eos, no_scores, bad_score, few_scores;
} spm_options;

static kvcl_status open_spm(const spm_options *o, kvcl_model **out)
{
    static const struct {
        const char *text;
        float score;
    } more[] = {{MARK, -10},       {"a", -10},    {"b", -10},       {"c", -10},  {MARK "a", -1},
                {"ab", -2},        {"bc", -1.5f}, {MARK "abc", -5}, {"abc", -4}, {"<t>", 0},
                {"\xc3\xa9", -10}, {"aa", -1},    {"b" MARK, -0.5f}};
    static char bytes[256][8];
    const char *tokens[N_SPM + 1] = {"<unk>", "<s>", "</s>"};
    float scores[N_SPM + 1] = {0};
    int32_t kinds[N_SPM + 1] = {KVCL_TOKEN_UNKNOWN, KVCL_TOKEN_CONTROL, KVCL_TOKEN_CONTROL};
    size_t n = N_SPM + o->crossing;
    gguf_writer w;
    for (unsigned b = 0; b < 256; b++) {
        snprintf(bytes[b], sizeof bytes[b], o->no_bytes ? "<%02X>" : "<0x%02X>", b);
        tokens[BYTE0 + b] = bytes[b];
        kinds[BYTE0 + b] = o->no_bytes ? KVCL_TOKEN_CONTROL : KVCL_TOKEN_BYTE;
    }
    for (size_t i = 0; SPACE + i < n; i++) {
        tokens[SPACE + i] = more[i].text;
        scores[SPACE + i] = more[i].score;
        kinds[SPACE + i] = SPACE + i == T ? KVCL_TOKEN_USER : KVCL_TOKEN_NORMAL;
    }
    if (o->bad_score)
        scores[AB] = NAN;
    begin(&w);
    gw_str(&w, "tokenizer.ggml.model", "llama");
    gw_strs(&w, "tokenizer.ggml.tokens", tokens, n);
    gw_i32s(&w, "tokenizer.ggml.token_type", kinds, n);
    if (!o->no_scores)
        gw_f32s(&w, "tokenizer.ggml.scores", scores, n - o->few_scores);
    if (o->no_prefix)
        gw_bool(&w, "tokenizer.ggml.add_space_prefix", false);
    if (o->eos)
        gw_bool(&w, "tokenizer.ggml.add_eos_token", true);
    return open_image(&w, out);
}

static void expect(const spm_options *o, const char *text, bool control, const int32_t *want)
{
    kvcl_model *m;
    int32_t ids[64];
    size_t n, n_want = 0;
    ck_assert_msg(open_spm(o, &m) == KVCL_OK, "%s", kvcl_last_error(ctx));
    ck_assert_msg(m->tok, "%s", m->tok_why);
    while (want[n_want] >= 0)
        n_want++;
    encode(m, text, strlen(text), control, ids, 64, &n);
    ck_assert_msg(n == n_want, "'%s': %zu tokens, want %zu", text, n, n_want);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(ids[i] == want[i], "'%s': token %zu is %d, want %d", text, i, ids[i],
                      want[i]);
    kvcl_model_close(m);
}

START_TEST(small_texts)
{
    static const struct {
        spm_options o;
        bool control;
        const char *text;
        int32_t want[8];
    } rows[] = {
        {{0}, false, "", {-1}},
        {{0}, false, "abc", {SP_ABC, -1}}, /* " a", "bc", then both */
        {{0}, false, "ab", {SP_A, B, -1}},
        {{0}, false, " a", {SPACE, SP_A, -1}},
        {{0}, false, "a b", {SP_A, SPACE, B, -1}},
        {{0}, false, "\xc3\xa9", {SPACE, E, -1}},
        {{0}, false, "\xc3\xa8", {SPACE, BYTE0 + 0xc3, BYTE0 + 0xa8, -1}},
        {{0}, false, "\xff", {SPACE, BYTE0 + 0xff, -1}},
        {{0}, false, "\n", {SPACE, BYTE0 + '\n', -1}},
        {{0}, false, "<t>", {T, -1}},
        {{0}, false, "a<t>b", {SP_A, T, SPACE, B, -1}},
        {{0}, false, MARK "a", {SPACE, SP_A, -1}},
        {{0}, false, "</s>", {SPACE, BYTE0 + '<', BYTE0 + '/', BYTE0 + 's', BYTE0 + '>', -1}},
        {{0}, true, "</s>", {EOS, -1}},
        {{0}, true, "a<unk>", {SP_A, UNK, -1}},
        {{.no_prefix = true}, false, "abc", {ABC, -1}},
        {{.no_prefix = true}, false, "ab c", {AB, SPACE, C, -1}},
        {{.no_prefix = true}, false, "aaa", {AA, A, -1}}, /* leftmost of equals */
        {{.no_prefix = true}, false, "b c", {B, SPACE, C, -1}},
        {{.no_prefix = true, .crossing = true}, false, "b c", {N_SPM, C, -1}},
        {{.no_bytes = true}, false, "\xc3\xa8", {SPACE, UNK, -1}}, /* one for the character */
    };
    for (size_t i = 0; i < kvcl_array_len(rows); i++)
        expect(&rows[i].o, rows[i].text, rows[i].control, rows[i].want);
}
END_TEST

START_TEST(defaults_and_ends)
{
    kvcl_model *m;
    int32_t *ids;
    size_t n;
    const char *bytes;
    ck_assert_int_eq(open_spm(&(spm_options){.eos = true}, &m), KVCL_OK);
    const kvcl_model_info *info = kvcl_model_get_info(m);
    ck_assert(info->bos_id == BOS && info->eos_id == EOS && info->add_bos && info->add_eos);
    ck_assert_int_eq(kvcl_tokenize(m, "a", 1, -1, &ids, &n), KVCL_OK);
    ck_assert(n == 2 && ids[0] == BOS && ids[1] == SP_A);
    kvcl_tokens_free(m, ids);
    kvcl_tokenize_options opt = {.add_bos = -1, .add_eos = -1};
    ck_assert_int_eq(kvcl_tokenize_with(m, "a", 1, &opt, &ids, &n), KVCL_OK);
    ck_assert(n == 3 && ids[0] == BOS && ids[1] == SP_A && ids[2] == EOS);
    kvcl_tokens_free(m, ids);
    ck_assert_int_eq(kvcl_token_bytes(m, SP_A, &bytes, &n), KVCL_OK);
    ck_assert(n == 2 && memcmp(bytes, " a", 2) == 0);
    ck_assert_int_eq(kvcl_token_bytes(m, BYTE0 + 0xc3, &bytes, &n), KVCL_OK);
    ck_assert(n == 1 && bytes[0] == '\xc3');
    ck_assert_int_eq(kvcl_token_bytes(m, EOS, &bytes, &n), KVCL_OK);
    ck_assert_uint_eq(n, 0);
    kvcl_model_close(m);
}
END_TEST

/* Malformed files, each with its sentence. */
START_TEST(malformed)
{
    static const struct {
        spm_options o;
        const char *says;
    } rows[] = {
        {{.no_scores = true}, "key tokenizer.ggml.scores is missing"},
        {{.few_scores = true}, "tokenizer.ggml.scores has 270 entries for 271 tokens"},
        {{.bad_score = true}, "the score of token 264 is no number"},
    };
    for (size_t i = 0; i < kvcl_array_len(rows); i++) {
        kvcl_model *m;
        ck_assert_int_eq(open_spm(&rows[i].o, &m), KVCL_E_FORMAT);
        ck_assert_msg(strstr(kvcl_last_error(ctx), rows[i].says), "%s", kvcl_last_error(ctx));
    }
}
END_TEST

/* Words one by one give what the whole text gives. */
static void check_cuts(kvcl_model *m, test_rng *rng, int n_texts)
{
    static const char *const pieces[] = {
        " ",        "  ", "a",   "b",   "c",    "\xc3\xa9", MARK,
        "\xe2\x96", "\n", "abc", "the", " and", "\xff",     "\xf0\x9f\x98\x80"};
    ck_assert(m->tok->words_apart);
    for (int i = 0; i < n_texts; i++) {
        char text[128];
        int32_t cut[512], whole[512];
        size_t n = 0, n_cut, n_whole;
        while (n < 100) {
            const char *p = pieces[test_below(rng, (uint32_t)kvcl_array_len(pieces))];
            memcpy(text + n, p, strlen(p));
            n += strlen(p);
        }
        encode(m, text, n, false, cut, 512, &n_cut);
        m->tok->words_apart = false;
        encode(m, text, n, false, whole, 512, &n_whole);
        m->tok->words_apart = true;
        ck_assert(n_cut == n_whole && memcmp(cut, whole, n_cut * sizeof *cut) == 0);
    }
}

START_TEST(cut_into_words)
{
    test_rng rng = {test_seed(), 0};
    char path[PATH_CAP];
    kvcl_model *m;
    ck_assert_int_eq(open_spm(&(spm_options){.no_prefix = true}, &m), KVCL_OK);
    check_cuts(m, &rng, 300);
    kvcl_model_close(m);
    if (!test_shared("golden/vocab/ggml-vocab-llama-spm.gguf", path, sizeof path))
        return;
    ck_assert_int_eq(kvcl_model_open(ctx, path, &m), KVCL_OK);
    check_cuts(m, &rng, 300);
    kvcl_model_close(m);
}
END_TEST

/* ---- llama.cpp's vectors ------------------------------------------------------------------- */

/* The text that tokens stand for: without the space that SentencePiece put before it. */
static void check_back(const kvcl_model *m, const int32_t *ids, size_t n_ids, const char *text,
                       size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n_ids; i++) {
        const char *bytes;
        size_t k, skip = i == 0 && m->tok->space_prefix;
        ck_assert_int_eq(kvcl_token_bytes(m, ids[i], &bytes, &k), KVCL_OK);
        ck_assert_uint_le(at + k - skip, n);
        ck_assert(memcmp(text + at, bytes + skip, k - skip) == 0);
        at += k - skip;
    }
    ck_assert_uint_eq(at, n);
}

static void check_vector(const kvcl_model *m, const char *text, size_t n, char **line)
{
    int32_t want[256], got[256];
    size_t n_want = 0, n_got;
    char *at = *line;
    for (; *at && *at != '\n'; at += *at == ' ') {
        ck_assert_uint_lt(n_want, kvcl_array_len(want));
        if (*at != ' ')
            want[n_want++] = (int32_t)strtol(at, &at, 10);
    }
    *line = at + (*at == '\n');
    encode(m, text, n, false, got, 256, &n_got);
    ck_assert_msg(n_got == n_want, "'%.*s': %zu tokens, want %zu", (int)n, text, n_got, n_want);
    for (size_t i = 0; i < n_want; i++)
        ck_assert_msg(got[i] == want[i], "'%.*s': token %zu is %d, want %d", (int)n, text, i,
                      got[i], want[i]);
    check_back(m, got, n_got, text, n);
}

/* Texts between separator lines, ids line by line. */
START_TEST(vectors)
{
    static const char *const names[] = {"gpt-2", "llama-spm"};
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char name[64], path[PATH_CAP];
    size_t n, n_texts = 0;
    kvcl_model *m;
    snprintf(name, sizeof name, "golden/vocab/ggml-vocab-%s.gguf", names[_i]);
    if (!test_shared(name, path, sizeof path)) {
        printf("%s is not here; not compared\n", path);
        return;
    }
    ck_assert_int_eq(kvcl_model_open(ctx, path, &m), KVCL_OK);
    ck_assert_int_eq(kvcl_model_get_info(m)->add_bos, _i);
    snprintf(name, sizeof name, "golden/vocab/ggml-vocab-%s.gguf.inp", names[_i]);
    ck_assert(test_shared(name, path, sizeof path));
    char *texts = test_read_file(path, &n);
    snprintf(name, sizeof name, "golden/vocab/ggml-vocab-%s.gguf.out", names[_i]);
    ck_assert(test_shared(name, path, sizeof path));
    char *ids = test_read_file(path, &n), *line = ids;
    for (char *text = texts, *end; *text && *line; text = end + sizeof separator - 1) {
        end = strstr(text, separator);
        if (!end)
            break;
        check_vector(m, text, (size_t)(end - text), &line);
        n_texts++;
    }
    printf("%s: %zu texts\n", names[_i], n_texts);
    ck_assert_uint_eq(n_texts, 46);
    free(ids);
    free(texts);
    kvcl_model_close(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tok");
    TCase *t = tcase_create("tok");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, splitting);
    tcase_add_test(t, whole_words_and_control_tokens);
    tcase_add_test(t, small_texts);
    tcase_add_test(t, defaults_and_ends);
    tcase_add_test(t, malformed);
    tcase_add_test(t, cut_into_words);
    tcase_add_loop_test(t, vectors, 0, 2);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
