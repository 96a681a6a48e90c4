// defer.cl - the ops of a token in one launch.  Twins: those of the ops, cpu/matvec.c, cpu/embed.c
//
// KVCL_SPEC: cl/defer_base.cl.  NVIDIA only (inline assembly; warps of 32).
//
// kvcl_defer runs a list of ops (cl/defer.h) one after the other.  All groups of the launch must be
// resident at the same time: they meet at a barrier after each op.  A launch costs the host 4 us
// and more, the barrier 1 us; and while groups wait there the next weights come into the L2 cache.
// Groups of GROUP items, one on each compute unit.

#if KVCL_PTX

static void run_embed(__local const kvcl_defer_embed *op, __local const uint *dyn)
{
    uint e = ((uint)get_group_id(0) * GROUP + (uint)get_local_id(0)) * 8, cols = op->cols;
    uint id = *(__global const uint *)op->ids, pos = dyn[op->pos];
    if (e >= cols)
        return;
    float8 v = (float8)(0.0f);
    if (id < op->rows)
        v = kvcl_weight8(TYPE, (__global const uchar *)op->w, op->rows, cols, (ulong)id * cols + e);
    if (op->pos_w && pos < op->pos_rows)
        v += kvcl_weight8(TYPE, (__global const uchar *)op->pos_w, op->pos_rows, cols,
                          (ulong)pos * cols + e);
    vstore8(v, 0, (__global float *)op->out + e);
}

// round[0]: arrivals since the queue began, `base` of them before this launch; round[1]: set when
// a launch without trap waited in vain.
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1))) void
kvcl_defer(__global const uint *list, uint first, uint n_ops, __global uint *round, uint base,
           uint patience, uint trap, ulong n0, ulong n2, ulong n4, ulong n6, __local float4 *mem4)
{
    __local uint slots[2][KVCL_DEFER_WORDS] __attribute__((aligned(16)));
    __local uint dyn[KVCL_DEFER_DYN] __attribute__((aligned(8))), gone;
    __local float *mem = (__local float *)mem4;
    uint lid = (uint)get_local_id(0), next = 0;
    list += first * KVCL_DEFER_WORDS;
    if (lid == 0)
        vstore4((ulong4)(n0, n2, n4, n6), 0, (__local ulong *)dyn);
    if (lid < KVCL_DEFER_WORDS)
        slots[0][lid] = list[lid];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = 0; i < n_ops; i++) {
        __local const kvcl_defer_head *op = (__local const kvcl_defer_head *)slots[i & 1];
        if (lid < KVCL_DEFER_WORDS && i + 1 < n_ops)
            next = list[(i + 1) * KVCL_DEFER_WORDS + lid];
        if (op->kind == KVCL_DEFER_MATVEC)
            run_matvec((__local const kvcl_defer_matvec *)op, dyn, mem);
        else if (op->kind == KVCL_DEFER_EMBED)
            run_embed((__local const kvcl_defer_embed *)op, dyn);
        else if (op->kind == KVCL_DEFER_ATTN)
            run_attn((__local const kvcl_defer_attn *)op, dyn, mem);
        else if (op->kind == KVCL_DEFER_MERGE)
            run_merge((__local const kvcl_defer_merge *)op, dyn);
        if (i + 1 == n_ops)
            return;
        if (lid < KVCL_DEFER_WORDS)
            slots[(i + 1) & 1][lid] = next;
        arrive(round);
        look_ahead(op);
        if (await(round, base + (i + 1) * (uint)get_num_groups(0), patience, trap, &gone)) {
            round[1] = 1;
            return;
        }
    }
}

// Where a buffer lies.
__kernel void kvcl_defer_address(__global uchar *buf, __global ulong *out) { *out = (ulong)buf; }

#endif
