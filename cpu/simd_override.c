/* simd_override.c - the ops that this instruction set does faster than the scalar twins. */
#include "simd.h"

void KVCL_SIMD_FN(override)(kvcl_cpu_op ops[KVCL_N_OPS])
{
    ops[KVCL_OP_ID_norm] = (kvcl_cpu_op){KVCL_SIMD_FN(norm), 1};
    ops[KVCL_OP_ID_matvec] = (kvcl_cpu_op){KVCL_SIMD_FN(matvec), 1};
    ops[KVCL_OP_ID_matmul] = (kvcl_cpu_op){KVCL_SIMD_FN(matmul), 2};
    ops[KVCL_OP_ID_attn_raw] = (kvcl_cpu_op){KVCL_SIMD_FN(attn_raw), 1};
    ops[KVCL_OP_ID_attn_merge] = (kvcl_cpu_op){KVCL_SIMD_FN(attn_merge), 1};
    ops[KVCL_OP_ID_swiglu] = (kvcl_cpu_op){KVCL_SIMD_FN(swiglu), 1};
    ops[KVCL_OP_ID_gelu] = (kvcl_cpu_op){KVCL_SIMD_FN(gelu), 1};
    ops[KVCL_OP_ID_add] = (kvcl_cpu_op){KVCL_SIMD_FN(add), 1};
    ops[KVCL_OP_ID_kv_sum] = (kvcl_cpu_op){KVCL_SIMD_FN(kv_sum), 1};
    ops[KVCL_OP_ID_gram_pages] = (kvcl_cpu_op){KVCL_SIMD_FN(gram_pages), 1};
    ops[KVCL_OP_ID_gram_rows] = (kvcl_cpu_op){KVCL_SIMD_FN(gram_rows), 1};
    ops[KVCL_OP_ID_rope_store] = (kvcl_cpu_op){KVCL_SIMD_FN(rope_store), 1};
    ops[KVCL_OP_ID_fwht] = (kvcl_cpu_op){KVCL_SIMD_FN(fwht), 1};
    ops[KVCL_OP_ID_quant_enc] = (kvcl_cpu_op){KVCL_SIMD_FN(quant_enc), 1};
    ops[KVCL_OP_ID_attn_quant] = (kvcl_cpu_op){KVCL_SIMD_FN(attn_quant), 1};
    ops[KVCL_OP_ID_spectral_enc] = (kvcl_cpu_op){KVCL_SIMD_FN(spectral_enc), 1};
    ops[KVCL_OP_ID_spectral_coef] = (kvcl_cpu_op){KVCL_SIMD_FN(spectral_coef), 1};
    ops[KVCL_OP_ID_spectral_dec] = (kvcl_cpu_op){KVCL_SIMD_FN(spectral_dec), 1};
    ops[KVCL_OP_ID_attn_spectral] = (kvcl_cpu_op){KVCL_SIMD_FN(attn_spectral), 1};
    ops[KVCL_OP_ID_attn_holo] = (kvcl_cpu_op){KVCL_SIMD_FN(attn_holo), 1};
    ops[KVCL_OP_ID_block_enc] = (kvcl_cpu_op){KVCL_SIMD_FN(block_enc), 1};
    ops[KVCL_OP_ID_block_dec] = (kvcl_cpu_op){KVCL_SIMD_FN(block_dec), 1};
    ops[KVCL_OP_ID_attn_block] = (kvcl_cpu_op){KVCL_SIMD_FN(attn_block), 1};
    ops[KVCL_OP_ID_rans_enc] = (kvcl_cpu_op){KVCL_SIMD_FN(rans_enc), 1};
    ops[KVCL_OP_ID_rans_dec] = (kvcl_cpu_op){KVCL_SIMD_FN(rans_dec), 1};
    ops[KVCL_OP_ID_rsvd] = (kvcl_cpu_op){KVCL_SIMD_FN(rsvd), 1};
}
