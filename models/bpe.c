/* bpe.c - byte-level BPE: how texts are cut into words.  See tokenizer.h. */
#include "tok_int.h"

#include "mem.h"

/* White space is spelled out: PCRE2's \s also takes U+180E, which Unicode dropped in 6.3.  So are
 * the endings, in both cases: (?i) would also take U+017F, the long s. */
#define WS "\\p{Z}\\t-\\r\\x{85}"
#define OTHER "[^" WS "\\p{L}\\p{N}]"
#define SPACES "[" WS "]+(?![^" WS "])|[" WS "]+"
#define NEW_LINES "[" WS "]*[\\r\\n]+|"
#define ENDINGS "'s|'t|'re|'ve|'m|'ll|'d|"
#define ANY_ENDINGS "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"

static const char split_gpt2[] = ENDINGS " ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACES;
static const char split_llama3[] =
    ANY_ENDINGS BEFORE "\\p{L}+|\\p{N}{1,3}| ?" OTHER "+[\\r\\n]*|" NEW_LINES SPACES;
static const char split_qwen2[] =
    ANY_ENDINGS BEFORE "\\p{L}+|\\p{N}| ?" OTHER "+[\\r\\n]*|" NEW_LINES SPACES;
static const char split_tekken[] = BEFORE "[" UPPER "]*[" LOWER "]+|" BEFORE "[" UPPER "]+[" LOWER
                                          "]*|\\p{N}| ?" OTHER "+[\\r\\n/]*|" NEW_LINES SPACES;
/* gpt-2's words of the stretches between digits, each of which is a word: a digit ends a stretch as
 * the end of the text does. */
static const char split_smollm[] =
    "\\p{N}|" ENDINGS " ?\\p{L}+| ?" OTHER "+|[" WS "]+(?![^" WS "\\p{N}])|[" WS "]+";

/* tokenizer.ggml.pre -> how texts are cut into words; whether a word that is a token is taken whole
 * whatever the merges say */
static const struct {
    const char *pre, *pattern;
    bool ignore_merges;
} splits[] = {
    {"gpt-2", split_gpt2, false},       {"phi-2", split_gpt2, false},
    {"roberta-bpe", split_gpt2, false}, {"mpt", split_gpt2, false},
    {"olmo", split_gpt2, false},        {"llama-bpe", split_llama3, true},
    {"llama3", split_llama3, true},     {"llama-v3", split_llama3, true},
    {"dbrx", split_llama3, false},      {"smaug-bpe", split_llama3, false},
    {"qwen2", split_qwen2, false},      {"deepseek-r1-qwen", split_qwen2, false},
    {"megrez", split_qwen2, false},     {"stablelm2", split_qwen2, false},
    {"tekken", split_tekken, true},     {"smollm", split_smollm, false},
    {"starcoder", split_smollm, false}, {"refact", split_smollm, false},
    {"command-r", split_smollm, false}, {"codeshell", split_smollm, false},
};

/* ---- from the file ------------------------------------------------------------------------- */

static kvcl_status unknown_pre(const kvcl_gguf *g, kvcl_str pre)
{
    char show[64], known[320];
    size_t n = 0;
    for (size_t i = 0; i < kvcl_array_len(splits); i++) {
        const char *s = splits[i].pre;
        size_t len = strlen(s);
        if (n + len + 3 > sizeof known)
            break;
        if (n) {
            memcpy(known + n, ", ", 2);
            n += 2;
        }
        memcpy(known + n, s, len);
        n += len;
    }
    known[n] = 0;
    return kvcl_fail(g->ctx, KVCL_E_UNSUPPORTED,
                     "%s: the word splitting '%s' (tokenizer.ggml.pre) is not supported; known are "
                     "%s",
                     g->path, kvcl_str_show(pre, show, sizeof show), known);
}

static kvcl_status find_pattern(const kvcl_gguf *g, kvcl_tokenizer *tok, const char **out)
{
    kvcl_str pre = {0}, arch = {0};
    KVCL_TRY(kvcl_gguf_get_str(g, "tokenizer.ggml.pre", &pre));
    KVCL_TRY(kvcl_gguf_get_str(g, "general.architecture", &arch));
    if (!pre.s && kvcl_str_is(arch, "gpt2"))
        pre = (kvcl_str){"gpt-2", 5}; /* files from before the key existed */
    KVCL_CHECK(g->ctx, pre.s, KVCL_E_UNSUPPORTED,
               "%s: tokenizer.ggml.pre is missing, so the rule that cuts texts into words is not "
               "known; convert the model again",
               g->path);
    for (size_t i = 0; i < kvcl_array_len(splits); i++) {
        if (kvcl_str_is(pre, splits[i].pre)) {
            *out = splits[i].pattern;
            tok->ignore_merges = splits[i].ignore_merges;
            return KVCL_OK;
        }
    }
    return unknown_pre(g, pre);
}

static void *pcre_alloc(size_t bytes, void *user)
{
    void *p;
    return kvcl_mem_alloc(user, bytes, "the word pattern", &p) == KVCL_OK ? p : NULL;
}

static void pcre_free(void *p, void *user) { kvcl_mem_free(user, p); }

static kvcl_status compile(kvcl_tokenizer *tok, const char *pattern)
{
    int err;
    PCRE2_SIZE at;
    tok->pcre = pcre2_general_context_create(pcre_alloc, pcre_free, tok->ctx);
    pcre2_compile_context *cc = tok->pcre ? pcre2_compile_context_create(tok->pcre) : NULL;
    KVCL_CHECK(tok->ctx, cc, KVCL_E_MEM, "no memory for the word pattern");
    tok->split = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                               &err, &at, cc);
    pcre2_compile_context_free(cc);
    KVCL_CHECK(tok->ctx, tok->split || err != PCRE2_ERROR_HEAP_FAILED, KVCL_E_MEM,
               "no memory for the word pattern");
    KVCL_CHECK(tok->ctx, tok->split, KVCL_E_UNSUPPORTED,
               "the PCRE2 library refuses the word pattern (error %d at %zu); it must be built "
               "with Unicode support",
               err, (size_t)at);
    /* without a JIT matching is slower, no different */
    pcre2_jit_compile(tok->split, PCRE2_JIT_COMPLETE);
    return KVCL_OK;
}

static kvcl_status open_bpe(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    const char *pattern;
    KVCL_TRY(find_pattern(g, tok, &pattern));
    KVCL_TRY(kvcl_bpe_vocab_read(g, tok));
    return compile(tok, pattern);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static bool pair(const kvcl_tokenizer *tok, kvcl_str both, uint32_t left, uint32_t right,
                 kvcl_merge *out)
{
    KVCL_UNUSED(both);
    const kvcl_merge *m = kvcl_bpe_merge_find(tok, left, right);
    if (m)
        *out = *m;
    return m != NULL;
}

/* The token whose text is this word; KVCL_STRMAP_NONE when there is none. */
static uint32_t whole_word(const kvcl_tok_encoder *e, const char *word, size_t n)
{
    if (!e->tok->ignore_merges || n > e->tok->longest)
        return KVCL_STRMAP_NONE;
    kvcl_str s = {e->work.text, kvcl_bpe_encode(word, n, e->work.text)};
    uint32_t id = kvcl_strmap_get(e->tok->symbols, s);
    return kvcl_tok_is_text(e->tok, id) ? id : KVCL_STRMAP_NONE;
}

static kvcl_status encode_word(kvcl_tok_encoder *e, const char *word, size_t n)
{
    KVCL_TRY(kvcl_tok_work_reserve(&e->work, n));
    uint32_t id = whole_word(e, word, n);
    if (id != KVCL_STRMAP_NONE) {
        e->out[e->n_out++] = (int32_t)id;
        return KVCL_OK;
    }
    for (size_t i = 0; i < n; i++)
        e->work.pieces[i] =
            (kvcl_tok_piece){.symbol = e->tok->byte_symbol[(unsigned char)word[i]], .n_bytes = 1};
    return kvcl_tok_merge(e, word, n);
}

kvcl_status kvcl_bpe_split(kvcl_tok_encoder *e, const char *text, size_t n, size_t at,
                           size_t *begin, size_t *end)
{
    int rc =
        pcre2_match(e->tok->split, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, e->match, NULL);
    KVCL_CHECK(e->tok->ctx, rc > 0 || rc == PCRE2_ERROR_NOMATCH, KVCL_E_MEM,
               "the word pattern failed at byte %zu of the text (PCRE2 error %d); give a "
               "shorter text",
               at, rc);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(e->match);
    *begin = rc > 0 ? span[0] : n;
    *end = rc > 0 ? span[1] : n;
    return KVCL_OK;
}

/* Words of a run of valid UTF-8.  What no alternative takes is a word too, so that no byte is ever
 * lost. */
static kvcl_status encode_words(kvcl_tok_encoder *e, const char *text, size_t n)
{
    size_t at = 0, begin, end;
    while (at < n) {
        KVCL_TRY(kvcl_bpe_split(e, text, n, at, &begin, &end));
        if (begin > at)
            KVCL_TRY(encode_word(e, text + at, begin - at));
        if (end > begin)
            KVCL_TRY(encode_word(e, text + begin, end - begin));
        at = kvcl_max_size(end, at + 1);
    }
    return KVCL_OK;
}

/* Valid runs by words, every other byte alone. */
static kvcl_status encode_run(kvcl_tok_encoder *e, const char *text, size_t n)
{
    size_t start = 0, at = 0;
    while (at < n) {
        size_t len = kvcl_tok_utf8_char(text + at, n - at);
        if (len == 0) {
            KVCL_TRY(encode_words(e, text + start, at - start));
            KVCL_TRY(encode_word(e, text + at, 1));
            start = at + 1;
        }
        at += len ? len : 1;
    }
    return encode_words(e, text + start, n - start);
}

const kvcl_tok_family kvcl_tok_bpe = {
    .model = "gpt2",
    .decode = kvcl_bpe_decode,
    .open = open_bpe,
    .pair = pair,
    .run = encode_run,
};
