/* bpe.c - byte-level BPE of whole texts: special pieces, words, merges.  See tokenizer.h. */
#include "bpe_int.h"

#include "log.h"
#include "mem.h"

/* White space is spelled out: PCRE2's \s also takes U+180E, which Unicode dropped in 6.3. */
#define WS "\\p{Z}\\t-\\r\\x{85}"

static const char split_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS
                                 "\\p{L}\\p{N}]+|[" WS "]+(?![^" WS "])|[" WS "]+";

/* tokenizer.ggml.pre -> how texts are cut into words */
static const struct {
    const char *pre, *pattern;
} splits[] = {
    {"gpt-2", split_gpt2}, {"phi-2", split_gpt2}, {"roberta-bpe", split_gpt2},
    {"mpt", split_gpt2},   {"olmo", split_gpt2},
};

/* ---- from the file ------------------------------------------------------------------------- */

static kvcl_status read_id(const kvcl_gguf *g, const char *key, uint32_t n_vocab, int32_t *out)
{
    uint32_t id = UINT32_MAX;
    *out = -1;
    KVCL_TRY(kvcl_gguf_get_u32(g, key, &id));
    if (id < n_vocab)
        *out = (int32_t)id;
    else if (id != UINT32_MAX) /* some converters write -1 for none */
        kvcl_log_warn(g->ctx, "%s: %s is %u, beyond the vocabulary of %u: ignored", g->path, key,
                      id, n_vocab);
    return KVCL_OK;
}

kvcl_status kvcl_vocab_ids_read(const kvcl_gguf *g, uint32_t n_vocab, kvcl_vocab_ids *out)
{
    kvcl_vocab_ids ids = {0};
    KVCL_TRY(read_id(g, "tokenizer.ggml.bos_token_id", n_vocab, &ids.bos));
    KVCL_TRY(read_id(g, "tokenizer.ggml.eos_token_id", n_vocab, &ids.eos));
    KVCL_TRY(read_id(g, "tokenizer.ggml.eot_token_id", n_vocab, &ids.eot));
    KVCL_TRY(read_id(g, "tokenizer.ggml.eom_token_id", n_vocab, &ids.eom));
    KVCL_TRY(read_id(g, "tokenizer.ggml.unknown_token_id", n_vocab, &ids.unk));
    KVCL_TRY(kvcl_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &ids.add_bos));
    *out = ids;
    return KVCL_OK;
}

static kvcl_status check_model(const kvcl_gguf *g)
{
    const char *key = "tokenizer.ggml.model";
    kvcl_str model = {0};
    char show[64];
    KVCL_TRY(kvcl_gguf_get_str(g, key, &model));
    KVCL_CHECK(g->ctx, model.s, KVCL_E_UNSUPPORTED,
               "%s: the file has no tokenizer; give token ids, or a file with one", g->path);
    KVCL_CHECK(g->ctx, kvcl_str_is(model, "gpt2"), KVCL_E_UNSUPPORTED,
               "%s: tokenizer '%s' is not supported (gpt2, byte-level BPE, is); give token ids, or "
               "another model",
               g->path, kvcl_str_show(model, show, sizeof show));
    return KVCL_OK;
}

static kvcl_status find_pattern(const kvcl_gguf *g, const char **out)
{
    kvcl_str pre = {0}, arch = {0};
    char show[64];
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
            return KVCL_OK;
        }
    }
    return kvcl_fail(g->ctx, KVCL_E_UNSUPPORTED,
                     "%s: the word splitting '%s' (tokenizer.ggml.pre) is not supported; known are "
                     "gpt-2, phi-2, roberta-bpe, mpt and olmo",
                     g->path, kvcl_str_show(pre, show, sizeof show));
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

kvcl_status kvcl_tokenizer_create(const kvcl_gguf *g, uint32_t n_vocab, kvcl_tokenizer **out)
{
    void *p;
    const char *pattern;
    kvcl_status st;
    KVCL_TRY(check_model(g));
    KVCL_TRY(find_pattern(g, &pattern));
    KVCL_TRY(kvcl_mem_alloc(g->ctx, sizeof(kvcl_tokenizer), "the tokenizer", &p));
    kvcl_tokenizer *tok = p;
    tok->ctx = g->ctx;
    tok->n_vocab = n_vocab;
    KVCL_TRY_GOTO(kvcl_vocab_ids_read(g, n_vocab, &tok->ids));
    KVCL_TRY_GOTO(kvcl_bpe_vocab_read(g, tok));
    KVCL_TRY_GOTO(compile(tok, pattern));
    *out = tok;
    return KVCL_OK;
fail:
    kvcl_tokenizer_free(tok);
    return st;
}

void kvcl_tokenizer_free(kvcl_tokenizer *tok)
{
    if (!tok)
        return;
    kvcl_ctx *ctx = tok->ctx;
    pcre2_code_free(tok->split);
    pcre2_general_context_free(tok->pcre);
    kvcl_strmap_free(ctx, tok->symbols);
    kvcl_strmap_free(ctx, tok->extra);
    void *blocks[] = {tok->text,   tok->bytes, tok->kind,   tok->blob,
                      tok->merged, tok->user,  tok->merges, tok};
    for (size_t i = 0; i < kvcl_array_len(blocks); i++)
        kvcl_mem_free(ctx, blocks[i]);
}

/* ---- encoding ------------------------------------------------------------------------------ */

typedef struct encoder {
    const kvcl_tokenizer *tok;
    kvcl_bpe_work work;
    pcre2_match_data *match;
    int32_t *out;
    size_t *n_out;
} encoder;

/* Bytes of the valid UTF-8 character at s, 0 when there is none (RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF). */
static size_t utf8_char(const unsigned char *s, size_t n)
{
    unsigned c = s[0];
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    bool bad = (c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) ||
               (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : len;
}

/* Words of a run of valid UTF-8.  What no alternative takes (nothing, by the pattern) is a word
 * too, so that no byte is ever lost. */
static kvcl_status encode_words(encoder *e, const char *text, size_t n)
{
    size_t at = 0;
    while (at < n) {
        int rc =
            pcre2_match(e->tok->split, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, e->match, NULL);
        KVCL_CHECK(e->tok->ctx, rc > 0 || rc == PCRE2_ERROR_NOMATCH, KVCL_E_MEM,
                   "the word pattern failed at byte %zu of the text (PCRE2 error %d); give a "
                   "shorter text",
                   at, rc);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(e->match);
        size_t begin = rc > 0 ? span[0] : n, end = rc > 0 ? span[1] : n;
        if (begin > at)
            KVCL_TRY(kvcl_bpe_word(e->tok, &e->work, text + at, begin - at, e->out, e->n_out));
        if (end > begin)
            KVCL_TRY(kvcl_bpe_word(e->tok, &e->work, text + begin, end - begin, e->out, e->n_out));
        at = kvcl_max_size(end, at + 1);
    }
    return KVCL_OK;
}

/* Valid runs by words, every other byte alone. */
static kvcl_status encode_run(encoder *e, const char *text, size_t n)
{
    size_t start = 0, at = 0;
    while (at < n) {
        size_t len = utf8_char((const unsigned char *)text + at, n - at);
        if (len == 0) {
            KVCL_TRY(encode_words(e, text + start, at - start));
            KVCL_TRY(kvcl_bpe_word(e->tok, &e->work, text + at, 1, e->out, e->n_out));
            start = at + 1;
        }
        at += len ? len : 1;
    }
    return encode_words(e, text + start, n - start);
}

/* The next place of `what` in text[from, n); n when there is none. */
static size_t find_bytes(const char *text, size_t n, size_t from, kvcl_str what)
{
    while (n - from >= what.n) {
        const char *p = memchr(text + from, what.s[0], n - from - what.n + 1);
        if (!p)
            break;
        if (memcmp(p, what.s, what.n) == 0)
            return (size_t)(p - text);
        from = (size_t)(p - text) + 1;
    }
    return n;
}

/* claim[i]: 0 free, id + 1 where a user-defined token begins, UINT32_MAX inside one. */
static void claim_user_tokens(const kvcl_tokenizer *tok, const char *text, size_t n,
                              uint32_t *claim)
{
    for (uint32_t u = 0; u < tok->n_user; u++) {
        kvcl_str s = tok->text[tok->user[u]];
        size_t at = find_bytes(text, n, 0, s);
        while (at < n) {
            /* tokens already placed are no shorter: a clash shows at one of the ends */
            bool is_free = claim[at] == 0 && claim[at + s.n - 1] == 0;
            for (size_t i = 0; is_free && i < s.n; i++)
                claim[at + i] = i == 0 ? tok->user[u] + 1 : UINT32_MAX;
            at = find_bytes(text, n, is_free ? at + s.n : at + 1, s);
        }
    }
}

static kvcl_status encode_with_user_tokens(encoder *e, const char *text, size_t n)
{
    void *p;
    kvcl_ctx *ctx = e->tok->ctx;
    KVCL_TRY(kvcl_mem_array(ctx, n, sizeof(uint32_t), "the places of user-defined tokens", &p));
    uint32_t *claim = p;
    kvcl_status st = KVCL_OK;
    claim_user_tokens(e->tok, text, n, claim);
    size_t at = 0;
    while (at < n && st == KVCL_OK) {
        size_t end = at;
        while (end < n && claim[end] == 0)
            end++;
        st = encode_run(e, text + at, end - at);
        if (st == KVCL_OK && end < n) {
            uint32_t id = claim[end] - 1;
            e->out[(*e->n_out)++] = (int32_t)id;
            end += e->tok->text[id].n;
        }
        at = end;
    }
    kvcl_mem_free(ctx, claim);
    return st;
}

kvcl_status kvcl_tokenizer_encode(const kvcl_tokenizer *tok, const char *text, size_t n_bytes,
                                  int32_t *out, size_t *n_out)
{
    size_t n = 0;
    KVCL_CHECK(tok->ctx, n_bytes <= KVCL_MAX_TEXT_BYTES, KVCL_E_ARG,
               "a text of %zu bytes is too long, at most %u can be tokenised at once", n_bytes,
               KVCL_MAX_TEXT_BYTES);
    encoder e = {.tok = tok, .work = {.ctx = tok->ctx}, .out = out, .n_out = &n};
    e.match = pcre2_match_data_create(1, tok->pcre);
    KVCL_CHECK(tok->ctx, e.match, KVCL_E_MEM, "no memory for the word pattern's matches");
    kvcl_status st = tok->n_user > 0 && n_bytes > 0 ? encode_with_user_tokens(&e, text, n_bytes)
                                                    : encode_run(&e, text, n_bytes);
    pcre2_match_data_free(e.match);
    kvcl_bpe_work_free(&e.work);
    if (st == KVCL_OK)
        *n_out = n;
    return st;
}

/* ---- single tokens ------------------------------------------------------------------------- */

kvcl_str kvcl_tokenizer_bytes(const kvcl_tokenizer *tok, uint32_t id) { return tok->bytes[id]; }

kvcl_str kvcl_tokenizer_text(const kvcl_tokenizer *tok, uint32_t id) { return tok->text[id]; }

bool kvcl_tokenizer_is_end(const kvcl_tokenizer *tok, uint32_t id)
{
    static const char *const ends[] = {
        "<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
        "<|endoftext|>", "<|eom_id|>", "<EOT>",
    };
    const kvcl_vocab_ids *ids = &tok->ids;
    int32_t t = (int32_t)id;
    if (id >= tok->n_vocab)
        return false;
    if (t == ids->eos || t == ids->eot || t == ids->eom)
        return true;
    for (size_t i = 0; i < kvcl_array_len(ends); i++) {
        if (kvcl_str_is(tok->text[id], ends[i]))
            return true;
    }
    return false;
}
