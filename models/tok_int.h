/* tok_int.h - what the parts of the tokenizers share: tokenizer.c (texts), tok_vocab.c (tokens from
 * the file), tok_merge.c (merges of one word), and the two families: bpe.c with bpe_vocab.c
 * (byte-level BPE), spm.c (SentencePiece). */
#ifndef KVCL_TOK_INT_H
#define KVCL_TOK_INT_H

#include "strmap.h"
#include "tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Kinds of token, numbered as in the file. */
enum {
    KVCL_TOKEN_NORMAL = 1,
    KVCL_TOKEN_UNKNOWN = 2,
    KVCL_TOKEN_CONTROL = 3,
    KVCL_TOKEN_USER = 4,
    KVCL_TOKEN_UNUSED = 5,
    KVCL_TOKEN_BYTE = 6
};

/* A pair that may be merged: the lowest rank first.  As a slot of BPE's table: left
 * KVCL_STRMAP_NONE is an empty one. */
typedef struct kvcl_merge {
    uint32_t left, right; /* symbols */
    uint32_t rank, result;
} kvcl_merge;

#define KVCL_NO_PIECE UINT32_MAX

/* A run of bytes of a word that is one symbol so far. */
typedef struct kvcl_tok_piece {
    uint32_t symbol; /* KVCL_STRMAP_NONE: no token */
    uint32_t prev, next;
    uint32_t at, n_bytes; /* of the word; n_bytes 0: merged away */
} kvcl_tok_piece;

/* Scratch for words; grows. */
typedef struct kvcl_tok_work {
    kvcl_ctx *ctx;
    kvcl_tok_piece *pieces;
    struct kvcl_tok_pair *heap;
    char *text; /* 3 n_max bytes: a word in the vocabulary's alphabet */
    size_t n_max, n_heap;
} kvcl_tok_work;

/* A text on its way. */
typedef struct kvcl_tok_encoder {
    const kvcl_tokenizer *tok;
    kvcl_tok_work work;
    pcre2_match_data *match; /* byte-level BPE's */
    int32_t *out;
    size_t n_out;
} kvcl_tok_encoder;

/* What the families do differently. */
typedef struct kvcl_tok_family {
    const char *model; /* tokenizer.ggml.model */
    /* The bytes that a token's text stands for, at most s.n of them, into out; false: the text
     * itself.  open() has not been called yet. */
    bool (*decode)(kvcl_str s, char *out, size_t *n_out);
    /* The rest of the file's tables, once the tokens are there. */
    kvcl_status (*open)(const kvcl_gguf *g, kvcl_tokenizer *tok);
    /* May neighbours be merged?  both: their text in the word. */
    bool (*pair)(const kvcl_tokenizer *tok, kvcl_str both, uint32_t left, uint32_t right,
                 kvcl_merge *out);
    /* Appends the tokens of n >= 1 bytes of text between special tokens or the ends. */
    kvcl_status (*run)(kvcl_tok_encoder *e, const char *text, size_t n);
} kvcl_tok_family;

extern const kvcl_tok_family kvcl_tok_bpe, kvcl_tok_spm;

/* A symbol is a token id, or n_vocab and up for a piece that only merges know. */
struct kvcl_tokenizer {
    kvcl_ctx *ctx;
    const kvcl_tok_family *family;
    uint32_t n_vocab, n_symbols;
    kvcl_vocab_ids ids;
    kvcl_str *text;      /* [n_vocab] in the file's alphabet */
    kvcl_str *bytes;     /* [n_vocab] what the token stands for; into `blob` or the file */
    unsigned char *kind; /* [n_vocab] */
    char *blob;          /* decoded bytes of the tokens */
    uint32_t *special;   /* user-defined, control and unknown tokens, the longest text first */
    uint32_t n_special, n_user;
    size_t longest;               /* bytes of the longest token's text */
    uint32_t byte_symbol[256];    /* KVCL_STRMAP_NONE: the vocabulary lacks this byte */
    kvcl_strmap *symbols, *extra; /* text -> symbol: tokens, other pieces */
    /* byte-level BPE */
    char *merged;       /* texts of merge results */
    kvcl_merge *merges; /* hash table */
    size_t merge_mask;
    bool ignore_merges;          /* a word that is a token is that token */
    pcre2_general_context *pcre; /* its memory is the context's */
    pcre2_code *split;
    /* SentencePiece */
    uint32_t *rank;    /* [n_vocab] ordered as the scores are, the highest first */
    bool space_prefix; /* a space before each run of text */
    bool words_apart;  /* no token goes on behind a space: words may be merged one by one */
};

/* ---- tok_vocab.c --------------------------------------------------------------------------- */

/* Fills text, bytes, kind, special and symbols from the file. */
kvcl_status kvcl_tok_vocab_read(const kvcl_gguf *g, kvcl_tokenizer *tok);
/* True for tokens that text may become by itself: not the control, unknown and byte tokens. */
bool kvcl_tok_is_text(const kvcl_tokenizer *tok, uint32_t id);

/* ---- tok_merge.c --------------------------------------------------------------------------- */

void kvcl_tok_work_free(kvcl_tok_work *work);
/* Room for words of n pieces. */
kvcl_status kvcl_tok_work_reserve(kvcl_tok_work *work, size_t n);
/* Merges the first n pieces (symbol and n_bytes are filled), which make up `word`, and appends what
 * they become.  E_FORMAT when the vocabulary has no token for a byte and no unknown token. */
kvcl_status kvcl_tok_merge(kvcl_tok_encoder *e, const char *word, size_t n);
/* Bytes of the valid UTF-8 character at s, 0 when there is none. */
size_t kvcl_tok_utf8_char(const char *s, size_t n);

/* ---- bpe.c, bpe_vocab.c -------------------------------------------------------------------- */

/* Texts in the byte alphabet: each byte as one or two bytes of UTF-8. */
bool kvcl_bpe_decode(kvcl_str s, char *out, size_t *n_out);
size_t kvcl_bpe_encode(const char *bytes, size_t n, char *out);
/* byte_symbol and the merges. */
kvcl_status kvcl_bpe_vocab_read(const kvcl_gguf *g, kvcl_tokenizer *tok);
const kvcl_merge *kvcl_bpe_merge_find(const kvcl_tokenizer *tok, uint32_t left, uint32_t right);
/* The next word of valid UTF-8 at or behind `at` < n: [*begin, *end).  What no alternative takes
 * (nothing, by the patterns) is before *begin. */
kvcl_status kvcl_bpe_split(kvcl_tok_encoder *e, const char *text, size_t n, size_t at,
                           size_t *begin, size_t *end);

#endif
