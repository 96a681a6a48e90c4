/* tiny_model.h - GGUF files of tiny models with made-up weights, so that the whole engine is tested
 * with nothing downloaded. */
#ifndef KVCL_TINY_MODEL_H
#define KVCL_TINY_MODEL_H

#include "test.h"

#define TINY_VOCAB 288u /* 256 bytes, 30 merged pairs of letters, 2 control tokens */
#define TINY_CTX 1024u

typedef enum tiny_rope {
    TINY_ROPE_PLAIN = 0,
    TINY_ROPE_LINEAR,
    TINY_ROPE_YARN,
    TINY_ROPE_FREQS
} tiny_rope;

typedef struct tiny_model {
    bool gpt2;          /* else llama */
    const char *family; /* another architecture; NULL: none */
    bool untied;
    tiny_rope rope;
    uint32_t head_dim; /* 0: width / heads */
    kvcl_type type;    /* of every matrix */
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads;
    uint64_t seed;
} tiny_model;

/* 2 layers, width 64, 4 heads on 2, of the given type. */
tiny_model tiny_llama(kvcl_type type);
tiny_model tiny_gpt2(kvcl_type type);
/* One of each further feature, by name: "qwen2", "qwen3", "llama-linear", "llama-yarn" (heads of
 * 32) and "llama-freqs" (untied output). */
tiny_model tiny_named(const char *name, kvcl_type type);

/* Writes it; the same description gives the same bytes. */
void tiny_model_write(const tiny_model *m, const char *path);

#endif
