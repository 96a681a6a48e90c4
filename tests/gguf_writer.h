/* gguf_writer.h - builds GGUF images in memory, right ones and wrong ones, for the tests. */
#ifndef KVCL_GGUF_WRITER_H
#define KVCL_GGUF_WRITER_H

#include "gguf.h"

#define GW_MAX_MARKS 2048

/* Metadata first, then tensors, then gw_finish(). */
typedef struct gguf_writer {
    unsigned char *data; /* malloc'ed */
    size_t n, cap;
    size_t marks[GW_MAX_MARKS]; /* ends of the parts of the header */
    size_t n_marks;
    uint32_t align;
    uint64_t n_kv, n_tensors;
    size_t offset; /* of the next tensor */
} gguf_writer;

void gw_begin(gguf_writer *w, uint32_t version);
void gw_u32(gguf_writer *w, const char *key, uint32_t v);
void gw_f32(gguf_writer *w, const char *key, float v);
void gw_bool(gguf_writer *w, const char *key, bool v);
void gw_str(gguf_writer *w, const char *key, const char *v);
/* A scalar of any type, little-endian from v. */
void gw_scalar(gguf_writer *w, const char *key, kvcl_gguf_type type, uint64_t v);
void gw_strs(gguf_writer *w, const char *key, const char *const *v, size_t n);
void gw_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gw_f32s(gguf_writer *w, const char *key, const float *v, size_t n);
/* rows 0: a vector */
void gw_tensor(gguf_writer *w, const char *name, kvcl_type type, uint64_t cols, uint64_t rows);
/* Pads and appends the tensors' data: small made-up values that are finite in every type. */
void gw_finish(gguf_writer *w);
void gw_free(gguf_writer *w);

/* Where `text` stands in the image; fails the test when it is not there. */
size_t gw_find(const gguf_writer *w, const char *text);
/* Overwrites `bytes` bytes at `at`, little-endian. */
void gw_patch(gguf_writer *w, size_t at, size_t bytes, uint64_t v);

/* A complete small llama model: 1 layer, width 32, 2 heads of 16, feed-forward 64, byte-level BPE
 * with the 256 bytes, " t" "he" " the", <|endoftext|> and a user-defined token "<tool>". */
#define GW_TINY_VOCAB 261
#define GW_TINY_EOT 0
#define GW_TINY_T 257
#define GW_TINY_HE 258
#define GW_TINY_THE 259
#define GW_TINY_TOOL 260
void gw_tiny_llama(gguf_writer *w);
/* The same in two steps, for more keys between them. */
void gw_tiny_keys(gguf_writer *w);
void gw_tiny_tensors(gguf_writer *w);

#endif
