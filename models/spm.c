/* spm.c - SentencePiece's BPE by scores.  See tokenizer.h. */
#include "tok_int.h"

#include "f16.h"
#include "mem.h"

#include <stdio.h>

/* U+2581, which stands for a space in the vocabulary. */
static const char mark[3] = {'\xe2', '\x96', '\x81'};

static bool is_mark(const char *s, size_t n)
{
    return n >= sizeof mark && memcmp(s, mark, sizeof mark) == 0;
}

/* ---- from the file ------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of "<0xNN>", two digits exactly; -1 for any other text. */
static int byte_of(kvcl_str s)
{
    if (s.n != 6 || memcmp(s.s, "<0x", 3) != 0 || s.s[5] != '>')
        return -1;
    int high = hex_digit(s.s[3]), low = hex_digit(s.s[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static bool decode(kvcl_str s, char *out, size_t *n_out)
{
    size_t n = 0;
    int byte = byte_of(s);
    if (byte >= 0) {
        out[0] = (char)byte;
        *n_out = 1;
        return true;
    }
    for (size_t i = 0; i < s.n;) {
        bool space = is_mark(s.s + i, s.n - i);
        out[n++] = space ? ' ' : s.s[i];
        i += space ? sizeof mark : 1;
    }
    *n_out = n;
    return true;
}

/* Scores as ranks that order like them, the highest first; the bits of floats do so once those of
 * negative ones are turned round. */
static kvcl_status read_scores(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    void *p;
    const char *key = "tokenizer.ggml.scores";
    const kvcl_gguf_kv *kv;
    KVCL_TRY(kvcl_gguf_require(g, key));
    KVCL_TRY(kvcl_gguf_get_array(g, key, KVCL_GGUF_F32, &kv));
    KVCL_CHECK(g->ctx, kv->n == tok->n_vocab, KVCL_E_FORMAT,
               "%s: %s has %llu entries for %u tokens", g->path, key, (unsigned long long)kv->n,
               tok->n_vocab);
    KVCL_TRY(kvcl_mem_array(tok->ctx, tok->n_vocab, sizeof(uint32_t), "the scores", &p));
    tok->rank = p;
    for (uint32_t i = 0; i < tok->n_vocab; i++) {
        float score;
        memcpy(&score, kv->data + 4 * (size_t)i, sizeof score);
        KVCL_CHECK(g->ctx, score == score, KVCL_E_FORMAT, "%s: the score of token %u is no number",
                   g->path, i);
        uint32_t bits = score == 0.0f ? 0 : kvcl_f32_bits(score);
        tok->rank[i] = bits >> 31 ? bits : ~bits & 0x7fffffffu;
    }
    return KVCL_OK;
}

/* True when no token has a space behind something else: then no merge crosses the place between a
 * word and the space before the next one. */
static bool words_are_apart(const kvcl_tokenizer *tok)
{
    for (uint32_t i = 0; i < tok->n_vocab; i++) {
        kvcl_str s = tok->text[i];
        for (size_t at = 1; kvcl_tok_is_text(tok, i) && at < s.n; at++) {
            bool after_mark = at >= 3 && is_mark(s.s + at - 3, 3);
            if (is_mark(s.s + at, s.n - at) && !after_mark)
                return false;
        }
    }
    return true;
}

static kvcl_status open_spm(const kvcl_gguf *g, kvcl_tokenizer *tok)
{
    char text[8];
    tok->space_prefix = true;
    KVCL_TRY(kvcl_gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &tok->space_prefix));
    KVCL_TRY(read_scores(g, tok));
    for (unsigned b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        tok->byte_symbol[b] = kvcl_strmap_get(tok->symbols, (kvcl_str){text, 6});
    }
    tok->words_apart = words_are_apart(tok);
    return KVCL_OK;
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* The token of a text; KVCL_STRMAP_NONE when it is none, or one that no text may become. */
static uint32_t token_of(const kvcl_tokenizer *tok, kvcl_str s)
{
    uint32_t id = s.n > tok->longest ? KVCL_STRMAP_NONE : kvcl_strmap_get(tok->symbols, s);
    return kvcl_tok_is_text(tok, id) ? id : KVCL_STRMAP_NONE;
}

static bool pair(const kvcl_tokenizer *tok, kvcl_str both, uint32_t left, uint32_t right,
                 kvcl_merge *out)
{
    uint32_t id = token_of(tok, both);
    if (id == KVCL_STRMAP_NONE)
        return false;
    *out = (kvcl_merge){.left = left, .right = right, .rank = tok->rank[id], .result = id};
    return true;
}

/* Appends a character to the word in e->work.text, as a piece. */
static void add_piece(kvcl_tok_encoder *e, const char *s, size_t n, size_t *used, size_t *n_pieces)
{
    char *to = e->work.text + *used;
    memcpy(to, s, n);
    e->work.pieces[(*n_pieces)++] =
        (kvcl_tok_piece){.symbol = token_of(e->tok, (kvcl_str){to, n}), .n_bytes = (uint32_t)n};
    *used += n;
}

/* One word of n bytes (spaces included), with a space before it where asked for: a piece for each
 * character. */
static kvcl_status encode_word(kvcl_tok_encoder *e, const char *word, size_t n, bool prefix)
{
    size_t used = 0, n_pieces = 0;
    KVCL_TRY(kvcl_tok_work_reserve(&e->work, n + 1));
    if (prefix)
        add_piece(e, mark, sizeof mark, &used, &n_pieces);
    for (size_t i = 0; i < n;) {
        bool space = word[i] == ' ';
        size_t len = kvcl_tok_utf8_char(word + i, n - i);
        len = len ? len : 1; /* a stray byte is a piece, too */
        add_piece(e, space ? mark : word + i, space ? sizeof mark : len, &used, &n_pieces);
        i += len;
    }
    return kvcl_tok_merge(e, e->work.text, n_pieces);
}

/* Before a space that follows something else, when no token crosses that place. */
static bool may_cut(const kvcl_tokenizer *tok, const char *text, size_t at)
{
    return tok->words_apart && text[at] == ' ' && text[at - 1] != ' ' &&
           !(at >= 3 && is_mark(text + at - 3, 3));
}

/* A run begins the text or follows a special token. */
static kvcl_status encode_run(kvcl_tok_encoder *e, const char *text, size_t n)
{
    size_t begin = 0;
    for (size_t at = 1; at <= n; at++) {
        if (at < n && !may_cut(e->tok, text, at))
            continue;
        KVCL_TRY(encode_word(e, text + begin, at - begin, e->tok->space_prefix && begin == 0));
        begin = at;
    }
    return KVCL_OK;
}

const kvcl_tok_family kvcl_tok_spm = {
    .model = "llama",
    .decode = decode,
    .open = open_spm,
    .pair = pair,
    .run = encode_run,
};
