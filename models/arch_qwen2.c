/* arch_qwen2.c - Qwen 2 and 2.5: arXiv:2407.10671.
 *
 * As Llama, but with biases on q, k and v, and RoPE on the halves of a head. */
#include "arch.h"

const kvcl_arch kvcl_arch_qwen2 = {
    .name = "qwen2",
    .norm = KVCL_NORM_RMS,
    .eps_key = "attention.layer_norm_rms_epsilon",
    .pairing = KVCL_ROPE_HALVES,
    .gated = true,
    .qkv_bias = true,
};
