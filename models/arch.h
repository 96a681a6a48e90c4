/* arch.h - families of models.  Each stands in a file of its own, arch_<name>.c, and in the list of
 * arch.c; nothing else knows them by name. */
#ifndef KVCL_ARCH_H
#define KVCL_ARCH_H

#include "gguf.h"
#include "ops_kv.h"

typedef struct kvcl_arch {
    const char *name; /* general.architecture, and the prefix of the file's keys */
    kvcl_norm_kind norm;
    const char *eps_key;       /* behind "<name>." */
    kvcl_rope_pairing pairing; /* NONE: position_embd.weight instead, and all heads alike */
    bool gated;                /* SwiGLU with ffn_gate.weight; else GELU */
    bool qkv_bias;             /* attn_q, attn_k and attn_v must have biases */
    bool qk_norm;              /* RMSNorm of each head's query and key before RoPE */
} kvcl_arch;

extern const kvcl_arch kvcl_arch_gpt2, kvcl_arch_llama, kvcl_arch_qwen2, kvcl_arch_qwen3;

/* The family that the file names; E_UNSUPPORTED, with the list of the known, when it is none. */
kvcl_status kvcl_arch_find(const kvcl_gguf *g, const kvcl_arch **out);
/* Refuses (E_UNSUPPORTED, by name) keys of the family that may change what is computed: those that
 * are neither read nor known to say nothing. */
kvcl_status kvcl_arch_check_keys(const kvcl_gguf *g, const kvcl_arch *arch);

#endif
