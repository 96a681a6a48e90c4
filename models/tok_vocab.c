/* tok_vocab.c - the tokens of a vocabulary, from the file.  See tokenizer.h. */
#include "tok_int.h"

#include "mem.h"

#include <stdlib.h>

static kvcl_status read_kinds(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    const char *key = "tokenizer.ggml.token_type";
    const kvcl_gguf_kv *kv;
    memset(tok->kind, KVCL_TOKEN_NORMAL, tok->n_vocab);
    KVCL_TRY(kvcl_gguf_get_array(g, key, KVCL_GGUF_I32, &kv));
    if (!kv)
        return KVCL_OK;
    KVCL_CHECK(g->ctx, kv->n == tok->n_vocab, KVCL_E_FORMAT,
               "%s: %s has %llu entries for %u tokens", g->path, key, (unsigned long long)kv->n,
               tok->n_vocab);
    for (uint32_t i = 0; i < tok->n_vocab; i++) {
        int32_t kind = kvcl_gguf_i32_at(kv, i);
        KVCL_CHECK(g->ctx, kind >= 0 && kind <= KVCL_TOKEN_BYTE, KVCL_E_FORMAT,
                   "%s: token %u has the unknown kind %d", g->path, i, kind);
        tok->kind[i] = (unsigned char)kind;
        tok->n_user += kind == KVCL_TOKEN_USER;
    }
    return KVCL_OK;
}

/* What the token stands for: control and unknown tokens nothing, user-defined ones their text,
 * others their text decoded (or as it is, where it is not in the vocabulary's alphabet). */
static size_t token_bytes(kvcl_tokenizer *tok, uint32_t i, char *blob)
{
    size_t n = 0;
    kvcl_str s = tok->text[i];
    if (tok->kind[i] == KVCL_TOKEN_CONTROL || tok->kind[i] == KVCL_TOKEN_UNKNOWN)
        tok->bytes[i] = (kvcl_str){blob, 0};
    else if (tok->kind[i] != KVCL_TOKEN_USER && tok->family->decode(s, blob, &n))
        tok->bytes[i] = (kvcl_str){blob, n};
    else
        tok->bytes[i] = s;
    return n;
}

static kvcl_status read_tokens(const kvcl_gguf *g, const kvcl_gguf_kv *kv, kvcl_tokenizer *tok)
{
    void *p;
    uint32_t n = tok->n_vocab;
    KVCL_TRY(kvcl_mem_array(tok->ctx, n, sizeof *tok->text, "the vocabulary", &p));
    tok->text = p;
    KVCL_TRY(kvcl_mem_array(tok->ctx, n, sizeof *tok->bytes, "the vocabulary", &p));
    tok->bytes = p;
    KVCL_TRY(kvcl_mem_alloc(tok->ctx, n, "the vocabulary", &p));
    tok->kind = p;
    KVCL_TRY(kvcl_mem_alloc(tok->ctx, kv->bytes, "the vocabulary", &p));
    tok->blob = p;
    KVCL_TRY(read_kinds(g, tok));
    const unsigned char *at = kv->data;
    size_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        tok->text[i] = kvcl_gguf_next_str(&at);
        tok->longest = kvcl_max_size(tok->longest, tok->text[i].n);
        used += token_bytes(tok, i, tok->blob + used);
        kvcl_strmap_put(tok->symbols, tok->text[i], i);
    }
    return KVCL_OK;
}

/* A text is searched for each of them. */
#define MAX_USER_TOKENS 4096
#define MAX_SPECIAL_TOKENS 65536

static bool is_special(const kvcl_tokenizer *tok, uint32_t i)
{
    unsigned kind = tok->kind[i];
    return tok->text[i].n > 0 &&
           (kind == KVCL_TOKEN_USER || kind == KVCL_TOKEN_CONTROL || kind == KVCL_TOKEN_UNKNOWN);
}

typedef struct special_token {
    size_t n_bytes;
    uint32_t id;
} special_token;

/* Longest first; the lower id first on ties. */
static int longer_first(const void *x, const void *y)
{
    const special_token *a = x, *b = y;
    if (a->n_bytes != b->n_bytes)
        return a->n_bytes > b->n_bytes ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static kvcl_status list_special_tokens(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    void *p;
    uint32_t n = 0;
    for (uint32_t i = 0; i < tok->n_vocab; i++)
        tok->n_special += is_special(tok, i);
    if (tok->n_special == 0)
        return KVCL_OK;
    KVCL_CHECK(g->ctx, tok->n_user <= MAX_USER_TOKENS, KVCL_E_UNSUPPORTED,
               "%s: %u user-defined tokens, at most %d are supported", g->path, tok->n_user,
               MAX_USER_TOKENS);
    KVCL_CHECK(g->ctx, tok->n_special <= MAX_SPECIAL_TOKENS, KVCL_E_UNSUPPORTED,
               "%s: %u control tokens, at most %d are supported", g->path, tok->n_special,
               MAX_SPECIAL_TOKENS);
    KVCL_TRY(kvcl_mem_array(tok->ctx, tok->n_special, sizeof(uint32_t), "special tokens", &p));
    tok->special = p;
    KVCL_TRY(kvcl_mem_array(tok->ctx, tok->n_special, sizeof(special_token), "special tokens", &p));
    special_token *list = p;
    for (uint32_t i = 0; i < tok->n_vocab; i++) {
        if (is_special(tok, i))
            list[n++] = (special_token){tok->text[i].n, i};
    }
    qsort(list, n, sizeof *list, longer_first);
    for (uint32_t i = 0; i < n; i++)
        tok->special[i] = list[i].id;
    kvcl_mem_free(tok->ctx, list);
    return KVCL_OK;
}

kvcl_status kvcl_tok_vocab_read(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    const char *key = "tokenizer.ggml.tokens";
    const kvcl_gguf_kv *tokens;
    KVCL_TRY(kvcl_gguf_require(g, key));
    KVCL_TRY(kvcl_gguf_get_array(g, key, KVCL_GGUF_STRING, &tokens));
    KVCL_CHECK(g->ctx, tokens->n == tok->n_vocab, KVCL_E_FORMAT,
               "%s: the vocabulary has %llu tokens, the model %u", g->path,
               (unsigned long long)tokens->n, tok->n_vocab);
    tok->n_symbols = tok->n_vocab;
    KVCL_TRY(kvcl_strmap_create(tok->ctx, tok->n_vocab, &tok->symbols));
    KVCL_TRY(read_tokens(g, tokens, tok));
    return list_special_tokens(g, tok);
}

bool kvcl_tok_is_text(const kvcl_tokenizer *tok, uint32_t id)
{
    if (id >= tok->n_vocab)
        return false;
    unsigned kind = tok->kind[id];
    return kind != KVCL_TOKEN_CONTROL && kind != KVCL_TOKEN_UNKNOWN && kind != KVCL_TOKEN_BYTE;
}
