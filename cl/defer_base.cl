// defer_base.cl - what the parts of cl/defer.cl share: numbers, inline assembly, the barrier of all
// groups, weights asked for ahead.
//
// KVCL_SPEC: bits 0, 1: f16 K, f16 V (as cl/attn.cl and cl/rope.cl); bits 8 .. 15 the type of the
// weights; bit 16: compute capability 9.

#define TYPE (KVCL_SPEC >> 8 & 255)
#define BLOCKS (TYPE == KVCL_Q8_0 || TYPE == KVCL_Q5_0 || TYPE == KVCL_Q4_0)
#define GROUP 512
#define WARPS (GROUP / 32)
#define LINE 128u
#define BULK (KVCL_SPEC >> 16 & 1)
#define PIECE (BULK ? 4096u : LINE)

#if KVCL_PTX

// ---- PTX ----------------------------------------------------------------------------------------

// Asks for bytes [at, at + n) to come into the L2 cache; n a multiple of 16.
static void prefetch(ulong at, uint n)
{
#if BULK
    __asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(at), "r"(n));
#else
    for (uint i = 0; i < n; i += LINE)
        __asm volatile("prefetch.global.L2 [%0];" ::"l"(at + i));
#endif
}

static uint load_acquire(__global const uint *p)
{
    uint r;
    __asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
    return r;
}

// Everything the group has written is visible to who sees the count.
static void arrive(__global uint *count)
{
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    if (get_local_id(0) == 0)
        __asm volatile("fence.acq_rel.gpu; red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(count)
                       : "memory");
}

// Waits until the count has reached `until`.  A group that is not there would make this last for
// ever: after `patience` looks it gives up, and with `trap` the launch ends in an error.
static uint await(__global const uint *count, uint until, uint patience, uint trap,
                  __local uint *gone)
{
    if (get_local_id(0) == 0) {
        uint n = 0;
        while ((int)(load_acquire(count) - until) < 0 && ++n < patience)
            ;
        *gone = n >= patience;
        if (n >= patience && trap)
            __asm volatile("trap;");
    }
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    return *gone;
}

// The groups take pieces in turn, as they will take tasks.
static void look_ahead(__local const kvcl_defer_head *op)
{
    uint lid = (uint)get_local_id(0), n_groups = (uint)get_num_groups(0);
    for (uint r = 0; r < KVCL_DEFER_AHEAD; r++) {
        uint n = op->ahead_bytes[r];
        for (uint i = (lid * n_groups + (uint)get_group_id(0)) * PIECE; i < n;
             i += GROUP * n_groups * PIECE)
            prefetch(op->ahead_at[r] + i, min(PIECE, n - i));
    }
}

#endif
