/* arch_llama.c - Llama 1 to 3, Mistral and their kin: arXiv:2302.13971, arXiv:2310.06825.
 *
 * RMSNorm, grouped heads, SwiGLU, RoPE on adjacent pairs: the rows of attn_q and attn_k in these
 * files are permuted so that neighbours are what the publishers' halves were.  Llama 3.1's scaling
 * of long contexts is in the file as rope_freqs.weight. */
#include "arch.h"

const kvcl_arch kvcl_arch_llama = {
    .name = "llama",
    .norm = KVCL_NORM_RMS,
    .eps_key = "attention.layer_norm_rms_epsilon",
    .pairing = KVCL_ROPE_ADJACENT,
    .gated = true,
};
