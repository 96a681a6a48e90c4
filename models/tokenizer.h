/* tokenizer.h - text to token ids and back, in two families.
 *
 * Byte-level BPE (tokenizer.ggml.model "gpt2"): a text is cut into words by a regular expression
 * that tokenizer.ggml.pre names (PCRE2, Unicode classes), each byte of a word becomes a printable
 * code point (the alphabet that the vocabulary is written in), and the adjacent pair of lowest rank
 * is merged, the leftmost on ties, until no pair has a rank.  Some rules take a word that is a
 * token as it is.
 *   source: Sennrich et al., arXiv:1508.07909; byte level: GPT-2 (Radford et al. 2019)
 *
 * SentencePiece ("llama"): a space goes before each run of text (unless the file says otherwise),
 * spaces become U+2581, and of all adjacent pieces whose concatenation is a token those that make
 * the token of the highest score are merged, the leftmost on ties; it starts from the characters.
 * What is no token in the end becomes byte tokens "<0xNN>", without them the unknown token.
 *   source: Kudo and Richardson, arXiv:1808.06226 */
#ifndef KVCL_TOKENIZER_H
#define KVCL_TOKENIZER_H

#include "gguf.h"

typedef struct kvcl_tokenizer kvcl_tokenizer;

/* Texts longer than this are refused. */
#define KVCL_MAX_TEXT_BYTES (1u << 30)

/* What every model has, whether or not its tokenizer is known. */
typedef struct kvcl_vocab_ids {
    int32_t bos, eos, eot, eom, unk; /* -1: the file has none */
    bool add_bos, add_eos;
} kvcl_vocab_ids;

kvcl_status kvcl_vocab_ids_read(const kvcl_gguf *g, uint32_t n_vocab, kvcl_vocab_ids *out);

/* From the tokenizer.ggml.* keys; keeps g.  E_UNSUPPORTED, with a sentence that names it, when the
 * file's kind of tokenizer or its splitting rule is not known; E_FORMAT when arrays have wrong
 * types or lengths.  Cost: one pass over vocabulary and merges; about 150 bytes per token. */
kvcl_status kvcl_tokenizer_create(const kvcl_gguf *g, uint32_t n_vocab, kvcl_tokenizer **out);
void kvcl_tokenizer_free(kvcl_tokenizer *tok);

/* The most ids that a text of n_bytes can become. */
size_t kvcl_tokenizer_room(const kvcl_tokenizer *tok, size_t n_bytes);
/* Token ids of a text, without BOS.  Tokens that the file marks user-defined are found first, the
 * longest first; with `control` the control tokens and the unknown one likewise, else their text is
 * text like any other and never becomes them.  Bytes that are not valid UTF-8 stand alone.
 *   out  room for kvcl_tokenizer_room() ids; *n_out how many there are
 * Allocates scratch for the longest word.  Cost: linear, n log n within a word. */
kvcl_status kvcl_tokenizer_encode(const kvcl_tokenizer *tok, const char *text, size_t n_bytes,
                                  bool control, int32_t *out, size_t *n_out);
/* The bytes that a token stands for; none for control tokens and the unknown one.  They may end
 * inside a character.  Borrows from the tokenizer.  id must be below n_vocab. */
kvcl_str kvcl_tokenizer_bytes(const kvcl_tokenizer *tok, uint32_t id);
/* The token's own text as the file has it: "<|endoftext|>". */
kvcl_str kvcl_tokenizer_text(const kvcl_tokenizer *tok, uint32_t id);
/* True when the token ends generation: eos, eot, eom, and the usual end markers by their text. */
bool kvcl_tokenizer_is_end(const kvcl_tokenizer *tok, uint32_t id);

#endif
