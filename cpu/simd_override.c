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
    ops[KVCL_OP_ID_rope_store] = (kvcl_cpu_op){KVCL_SIMD_FN(rope_store), 1};
}
