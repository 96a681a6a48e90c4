/* hparams.h - the shape of a model, from its metadata, checked against its tensors. */
#ifndef KVCL_HPARAMS_H
#define KVCL_HPARAMS_H

#include "arch.h"
#include "rope_table.h"

/* Sane upper bounds of a shape. */
#define KVCL_MAX_LAYERS 1024u
#define KVCL_MAX_EMBD 65536u /* also of n_ff and n_heads * head_dim: what the ops take as cols */
#define KVCL_MAX_HEADS 1024u
#define KVCL_MAX_HEAD_DIM 512u
#define KVCL_MAX_VOCAB (16u << 20)
#define KVCL_MAX_CTX (1u << 27)

typedef struct kvcl_hparams {
    const kvcl_arch *arch;
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim;
    uint32_t n_rot; /* dimensions of a head that RoPE turns: head_dim, or 0 without RoPE */
    uint32_t n_vocab, n_ctx_train;
    uint32_t n_window; /* tokens that attention looks back, itself included; 0: all.  Contexts are
                          held to it, where it makes no difference */
    float norm_eps;
    kvcl_rope_spec rope;
    float attn_scale; /* of q . k: 1 / sqrt(head_dim) unless the file says otherwise */
    bool has_tensors; /* false: a vocabulary-only file */
    bool tied_output; /* no output.weight: token_embd.weight serves */
} kvcl_hparams;

/* The longest context that is computed as the file means it. */
static inline uint32_t kvcl_hparams_ctx(const kvcl_hparams *hp)
{
    return hp->n_window ? kvcl_min_u32(hp->n_window, hp->n_ctx_train) : hp->n_ctx_train;
}

/* E_UNSUPPORTED: an architecture or variant that is not known (named, with the known ones);
 * E_FORMAT: keys missing, out of range or in contradiction to each other or to the tensors. */
kvcl_status kvcl_hparams_read(const kvcl_gguf *g, kvcl_hparams *out);
/* The part of it that RoPE needs, once the heads are known; hparams_rope.c. */
kvcl_status kvcl_hparams_read_rope(const kvcl_gguf *g, kvcl_hparams *hp);
/* Getters of the family's keys: see kvcl_gguf_get_*. */
kvcl_status kvcl_hparams_u32(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                             uint32_t *out);
kvcl_status kvcl_hparams_f32(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                             float *out);
kvcl_status kvcl_hparams_str(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                             kvcl_str *out);

/* A tensor that must be there with these dimensions (rows 0: a vector of cols elements): E_FORMAT
 * with a sentence that names it and both shapes otherwise. */
kvcl_status kvcl_tensor_need(const kvcl_gguf *g, const char *name, uint32_t cols, uint32_t rows,
                             const kvcl_gguf_tensor **out);

#endif
