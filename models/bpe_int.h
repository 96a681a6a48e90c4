/* bpe_int.h - what the parts of the byte-level BPE tokenizer share: bpe.c (texts), bpe_vocab.c
 * (tables from the file), bpe_merge.c (merges of one word). */
#ifndef KVCL_BPE_INT_H
#define KVCL_BPE_INT_H

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

/* One slot of the merge table; left KVCL_STRMAP_NONE: empty. */
typedef struct kvcl_merge {
    uint32_t left, right; /* symbols */
    uint32_t rank, result;
} kvcl_merge;

/* A symbol is a token id, or n_vocab and up for a piece that only merges know. */
struct kvcl_tokenizer {
    kvcl_ctx *ctx;
    uint32_t n_vocab, n_symbols;
    kvcl_vocab_ids ids;
    kvcl_str *text;      /* [n_vocab] in the file's alphabet */
    kvcl_str *bytes;     /* [n_vocab] what the token stands for; into `blob` or the file */
    unsigned char *kind; /* [n_vocab] */
    char *blob;          /* decoded bytes of the tokens */
    char *merged;        /* texts of merge results */
    uint32_t *user;      /* user-defined tokens, longest first */
    uint32_t n_user;
    uint32_t byte_symbol[256];    /* KVCL_STRMAP_NONE: the vocabulary lacks this byte */
    kvcl_strmap *symbols, *extra; /* text -> symbol: tokens, other pieces */
    kvcl_merge *merges;           /* hash table */
    size_t merge_mask;
    pcre2_general_context *pcre; /* its memory is the context's */
    pcre2_code *split;
};

/* Entry of the pair, or NULL. */
const kvcl_merge *kvcl_bpe_merge_find(const kvcl_tokenizer *tok, uint32_t left, uint32_t right);
/* Fills text, bytes, kind, user, symbols, byte_symbol and merges from the file. */
kvcl_status kvcl_bpe_vocab_read(const kvcl_gguf *g, kvcl_tokenizer *tok);

/* Scratch for words of up to n_max bytes; grows. */
typedef struct kvcl_bpe_work {
    kvcl_ctx *ctx;
    struct kvcl_bpe_piece *pieces;
    struct kvcl_bpe_pair *heap;
    size_t n_max, n_heap;
} kvcl_bpe_work;

void kvcl_bpe_work_free(kvcl_bpe_work *work);
/* Appends the tokens of one word to out at *n_out: at most n of them.  E_FORMAT when the
 * vocabulary has no token for a byte and no unknown token. */
kvcl_status kvcl_bpe_word(const kvcl_tokenizer *tok, kvcl_bpe_work *work, const char *word,
                          size_t n, int32_t *out, size_t *n_out);

#endif
