/* bpe_vocab.c - vocabulary and merges of a byte-level BPE tokenizer, from the file.  See
 * tokenizer.h. */
#include "bpe_int.h"

#include "mem.h"

#include <stdlib.h>

/* ---- the byte alphabet --------------------------------------------------------------------- */

/* Bytes that print as themselves: 33..126, 161..172, 174..255.  The others become 256, 257, ... in
 * ascending order. */
static bool byte_is_plain(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

#define N_POINTS (256 + 68)

/* point[b]: code point of byte b; byte[c]: byte of code point c, or 0xffff */
typedef struct alphabet {
    uint16_t point[256], byte[N_POINTS];
} alphabet;

static void alphabet_init(alphabet *a)
{
    unsigned extra = 256;
    memset(a->byte, 0xff, sizeof a->byte);
    for (unsigned b = 0; b < 256; b++) {
        unsigned c = byte_is_plain(b) ? b : extra++;
        a->point[b] = (uint16_t)c;
        a->byte[c] = (uint16_t)b;
    }
}

/* Decodes alphabet text (code points below 0x800) to bytes; false, out then undefined, when it
 * holds anything else.  out has room for s.n bytes. */
static bool alphabet_decode(const alphabet *a, kvcl_str s, char *out, size_t *n_out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned c = (unsigned char)s.s[i];
        if (c >= 0x80) {
            unsigned d = i + 1 < s.n ? (unsigned char)s.s[i + 1] : 0;
            if ((c & 0xe0) != 0xc0 || (d & 0xc0) != 0x80)
                return false;
            c = (c & 0x1f) << 6 | (d & 0x3f);
            i++;
        }
        if (c >= N_POINTS || a->byte[c] > 255)
            return false;
        out[n++] = (char)a->byte[c];
    }
    *n_out = n;
    return true;
}

/* ---- vocabulary ---------------------------------------------------------------------------- */

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

/* What the token stands for: control tokens nothing, user-defined ones their text, others their
 * text read in the byte alphabet (or as it is, where it is not in that alphabet). */
static size_t token_bytes(kvcl_tokenizer *tok, const alphabet *a, uint32_t i, char *blob)
{
    size_t n = 0;
    kvcl_str s = tok->text[i];
    if (tok->kind[i] == KVCL_TOKEN_CONTROL)
        tok->bytes[i] = (kvcl_str){blob, 0};
    else if (tok->kind[i] != KVCL_TOKEN_USER && alphabet_decode(a, s, blob, &n))
        tok->bytes[i] = (kvcl_str){blob, n};
    else
        tok->bytes[i] = s;
    return n;
}

static kvcl_status read_tokens(const kvcl_gguf *g, const alphabet *a, const kvcl_gguf_kv *kv,
                               kvcl_tokenizer *tok)
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
        used += token_bytes(tok, a, i, tok->blob + used);
        kvcl_strmap_put(tok->symbols, tok->text[i], i);
    }
    for (unsigned b = 0; b < 256; b++) {
        unsigned c = a->point[b];
        char u[2] = {(char)(c < 0x80 ? c : 0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};
        tok->byte_symbol[b] = kvcl_strmap_get(tok->symbols, (kvcl_str){u, c < 0x80 ? 1 : 2});
    }
    return KVCL_OK;
}

#define MAX_USER_TOKENS 4096

typedef struct user_token {
    size_t n_bytes;
    uint32_t id;
} user_token;

/* Longest first; the lower id first on ties. */
static int longer_first(const void *x, const void *y)
{
    const user_token *a = x, *b = y;
    if (a->n_bytes != b->n_bytes)
        return a->n_bytes > b->n_bytes ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static kvcl_status list_user_tokens(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    void *p;
    uint32_t n = 0;
    if (tok->n_user == 0)
        return KVCL_OK;
    KVCL_CHECK(g->ctx, tok->n_user <= MAX_USER_TOKENS, KVCL_E_UNSUPPORTED,
               "%s: %u user-defined tokens, at most %d are supported", g->path, tok->n_user,
               MAX_USER_TOKENS);
    KVCL_TRY(kvcl_mem_array(tok->ctx, tok->n_user, sizeof(uint32_t), "user-defined tokens", &p));
    tok->user = p;
    KVCL_TRY(kvcl_mem_array(tok->ctx, tok->n_user, sizeof(user_token), "user-defined tokens", &p));
    user_token *list = p;
    for (uint32_t i = 0; i < tok->n_vocab; i++) {
        if (tok->kind[i] == KVCL_TOKEN_USER && tok->text[i].n > 0)
            list[n++] = (user_token){tok->text[i].n, i};
    }
    qsort(list, n, sizeof *list, longer_first);
    for (uint32_t i = 0; i < n; i++)
        tok->user[i] = list[i].id;
    tok->n_user = n;
    kvcl_mem_free(tok->ctx, list);
    return KVCL_OK;
}

/* ---- merges -------------------------------------------------------------------------------- */

static size_t merge_slot(const kvcl_tokenizer *tok, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(h >> 32) & tok->merge_mask;
    while (tok->merges[i].left != KVCL_STRMAP_NONE &&
           (tok->merges[i].left != left || tok->merges[i].right != right))
        i = (i + 1) & tok->merge_mask;
    return i;
}

const kvcl_merge *kvcl_bpe_merge_find(const kvcl_tokenizer *tok, uint32_t left, uint32_t right)
{
    if (left == KVCL_STRMAP_NONE || right == KVCL_STRMAP_NONE)
        return NULL;
    const kvcl_merge *m = &tok->merges[merge_slot(tok, left, right)];
    return m->left == KVCL_STRMAP_NONE ? NULL : m;
}

/* The symbol of a text; a text that is no token becomes a new symbol in a second table, which
 * ordinary files never need. */
static kvcl_status symbol_of(kvcl_tokenizer *tok, uint64_t n_merges, kvcl_str s, uint32_t *out)
{
    uint32_t id = kvcl_strmap_get(tok->symbols, s);
    if (id == KVCL_STRMAP_NONE && !tok->extra) /* three new texts per merge at most */
        KVCL_TRY(kvcl_strmap_create(tok->ctx, 3 * (size_t)n_merges, &tok->extra));
    if (id == KVCL_STRMAP_NONE)
        id = kvcl_strmap_get(tok->extra, s);
    if (id == KVCL_STRMAP_NONE) {
        id = tok->n_symbols++;
        kvcl_strmap_put(tok->extra, s, id);
    }
    *out = id;
    return KVCL_OK;
}

/* "left right": cut at the first space after the first character. */
static bool split_merge(kvcl_str s, kvcl_str *left, kvcl_str *right)
{
    const char *space = s.n > 2 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
    if (!space || space + 1 == s.s + s.n)
        return false;
    *left = (kvcl_str){s.s, (size_t)(space - s.s)};
    *right = (kvcl_str){space + 1, s.n - left->n - 1};
    return true;
}

static kvcl_status merge_table_create(kvcl_tokenizer *tok, uint64_t n_merges)
{
    void *p;
    size_t n = 16;
    while (n / 2 < n_merges)
        n *= 2;
    KVCL_TRY(kvcl_mem_array(tok->ctx, n, sizeof *tok->merges, "the table of merges", &p));
    tok->merges = p;
    tok->merge_mask = n - 1;
    for (size_t i = 0; i < n; i++)
        tok->merges[i].left = KVCL_STRMAP_NONE;
    return KVCL_OK;
}

static kvcl_status read_merges(const kvcl_gguf *g, const kvcl_gguf_kv *kv, kvcl_tokenizer *tok)
{
    void *p;
    KVCL_TRY(merge_table_create(tok, kv->n));
    KVCL_TRY(kvcl_mem_alloc(tok->ctx, kv->bytes, "the texts of merges", &p));
    tok->merged = p;
    char *to = tok->merged;
    const unsigned char *at = kv->data;
    for (uint32_t rank = 0; rank < kv->n; rank++) {
        kvcl_str s = kvcl_gguf_next_str(&at), left, right;
        char show[64];
        KVCL_CHECK(g->ctx, split_merge(s, &left, &right), KVCL_E_FORMAT,
                   "%s: merge %u ('%s') is not two pieces", g->path, rank,
                   kvcl_str_show(s, show, sizeof show));
        kvcl_str both = {to, left.n + right.n};
        memcpy(to, left.s, left.n);
        memcpy(to + left.n, right.s, right.n);
        to += both.n;
        kvcl_merge m = {.rank = rank};
        KVCL_TRY(symbol_of(tok, kv->n, left, &m.left));
        KVCL_TRY(symbol_of(tok, kv->n, right, &m.right));
        KVCL_TRY(symbol_of(tok, kv->n, both, &m.result));
        size_t i = merge_slot(tok, m.left, m.right);
        if (tok->merges[i].left == KVCL_STRMAP_NONE) /* a repeated merge keeps its first rank */
            tok->merges[i] = m;
    }
    return KVCL_OK;
}

kvcl_status kvcl_bpe_vocab_read(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    const char *tokens_key = "tokenizer.ggml.tokens", *merges_key = "tokenizer.ggml.merges";
    const kvcl_gguf_kv *tokens, *merges;
    alphabet a;
    alphabet_init(&a);
    KVCL_TRY(kvcl_gguf_require(g, tokens_key));
    KVCL_TRY(kvcl_gguf_require(g, merges_key));
    KVCL_TRY(kvcl_gguf_get_array(g, tokens_key, KVCL_GGUF_STRING, &tokens));
    KVCL_TRY(kvcl_gguf_get_array(g, merges_key, KVCL_GGUF_STRING, &merges));
    KVCL_CHECK(g->ctx, tokens->n == tok->n_vocab, KVCL_E_FORMAT,
               "%s: the vocabulary has %llu tokens, the model %u", g->path,
               (unsigned long long)tokens->n, tok->n_vocab);
    tok->n_symbols = tok->n_vocab;
    KVCL_TRY(kvcl_strmap_create(tok->ctx, tok->n_vocab, &tok->symbols));
    KVCL_TRY(read_tokens(g, &a, tokens, tok));
    KVCL_TRY(list_user_tokens(g, tok));
    return read_merges(g, merges, tok);
}
