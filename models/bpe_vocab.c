/* bpe_vocab.c - the byte alphabet and the merges of a byte-level BPE tokenizer, from the file.  See
 * tokenizer.h. */
#include "tok_int.h"

#include "mem.h"

/* ---- the byte alphabet --------------------------------------------------------------------- */

/* Bytes that print as themselves: 33..126, 161..172, 174..255.  The others (0..32, 127..160, 173)
 * become 256, 257, ... in ascending order. */
static unsigned point_of(unsigned b)
{
    if (b < 33)
        return 256 + b;
    if (b < 127)
        return b;
    if (b < 161)
        return 256 + 33 + (b - 127);
    return b == 173 ? 256 + 67 : b;
}

/* The byte of a code point; 256 when it is not in the alphabet. */
static unsigned byte_of(unsigned c)
{
    if (c >= 256 + 68)
        return 256;
    if (c < 256)
        return point_of(c) == c ? c : 256;
    unsigned i = c - 256;
    return i < 33 ? i : i < 67 ? 127 + (i - 33) : 173;
}

/* Code points of the alphabet are below 0x800: one or two bytes. */
bool kvcl_bpe_decode(kvcl_str s, char *out, size_t *n_out)
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
        unsigned b = byte_of(c);
        if (b > 255)
            return false;
        out[n++] = (char)b;
    }
    *n_out = n;
    return true;
}

size_t kvcl_bpe_encode(const char *bytes, size_t n, char *out)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned c = point_of((unsigned char)bytes[i]);
        if (c >= 0x80)
            out[n_out++] = (char)(0xc0 | c >> 6);
        out[n_out++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
    }
    return n_out;
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
    const char *key = "tokenizer.ggml.merges";
    const kvcl_gguf_kv *merges;
    KVCL_TRY(kvcl_gguf_require(g, key));
    KVCL_TRY(kvcl_gguf_get_array(g, key, KVCL_GGUF_STRING, &merges));
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char)b, text[2];
        kvcl_str s = {text, kvcl_bpe_encode(&byte, 1, text)};
        tok->byte_symbol[b] = kvcl_strmap_get(tok->symbols, s);
    }
    return read_merges(g, merges, tok);
}
