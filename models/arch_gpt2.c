/* arch_gpt2.c - GPT-2: Radford et al. 2019.
 *
 * LayerNorm, learned positions, one matrix for q, k and v, GELU, biases everywhere. */
#include "arch.h"

const kvcl_arch kvcl_arch_gpt2 = {
    .name = "gpt2",
    .norm = KVCL_NORM_LAYER,
    .eps_key = "attention.layer_norm_epsilon",
    .pairing = KVCL_ROPE_NONE,
};
