/* arch_qwen3.c - Qwen 3, dense: arXiv:2505.09388.
 *
 * As Qwen 2 without biases; each head's query and key are normalised before RoPE.  Heads are of a
 * length of their own (attention.key_length), not width / heads. */
#include "arch.h"

const kvcl_arch kvcl_arch_qwen3 = {
    .name = "qwen3",
    .norm = KVCL_NORM_RMS,
    .eps_key = "attention.layer_norm_rms_epsilon",
    .pairing = KVCL_ROPE_HALVES,
    .gated = true,
    .qk_norm = true,
};
