/* hparams.h - the shape of a model, from its metadata, checked against its tensors. */
#ifndef KVCL_HPARAMS_H
#define KVCL_HPARAMS_H

#include "gguf.h"

typedef enum kvcl_arch {
    KVCL_ARCH_LLAMA = 0, /* RMSNorm, RoPE on adjacent pairs, grouped heads, SwiGLU */
    KVCL_ARCH_GPT2 = 1   /* LayerNorm, learned positions, GELU, biases everywhere */
} kvcl_arch;

/* Sane upper bounds of a shape. */
#define KVCL_MAX_LAYERS 1024u
#define KVCL_MAX_EMBD 65536u /* also of n_ff and n_heads * head_dim: what the ops take as cols */
#define KVCL_MAX_HEADS 1024u
#define KVCL_MAX_HEAD_DIM 512u
#define KVCL_MAX_VOCAB (16u << 20)
#define KVCL_MAX_CTX (1u << 27)

typedef struct kvcl_hparams {
    kvcl_arch arch;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim;
    uint32_t n_rot; /* dimensions of a head that RoPE turns: head_dim for llama, 0 for gpt2 */
    uint32_t n_vocab, n_ctx_train;
    float norm_eps;
    float rope_base;
    float rope_scale; /* positions are multiplied by it: 1 / factor of linear scaling */
    float attn_scale; /* of q . k: 1 / sqrt(head_dim) unless the file says otherwise */
    bool has_tensors; /* false: a vocabulary-only file */
    bool tied_output; /* no output.weight: token_embd.weight serves */
} kvcl_hparams;

/* "llama", "gpt2" */
const char *kvcl_arch_name(kvcl_arch arch);

/* E_UNSUPPORTED: an architecture or variant that is not known (named, with the known ones);
 * E_FORMAT: keys missing, out of range or in contradiction to each other or to the tensors. */
kvcl_status kvcl_hparams_read(const kvcl_gguf *g, kvcl_hparams *out);

/* A tensor that must be there with these dimensions (rows 0: a vector of cols elements): E_FORMAT
 * with a sentence that names it and both shapes otherwise. */
kvcl_status kvcl_tensor_need(const kvcl_gguf *g, const char *name, uint32_t cols, uint32_t rows,
                             const kvcl_gguf_tensor **out);

#endif
