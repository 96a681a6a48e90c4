/* cpu_int.h - how an op runs on the CPU backend.
 *
 * A queue is a list of ops; queue_wait() runs the whole list inside one OpenMP region, so that a
 * token costs one region and a barrier per step instead of one region per op.  An op is a function
 * that every thread calls; it takes tasks (rows, heads, pages ...) from a shared counter until none
 * is left.  A task's outputs depend on the task alone, so that any number of threads, in any order,
 * gives the same bits.  Ops that prepare something for all threads first (packing) have phases with
 * a barrier between them. */
#ifndef KVCL_CPU_INT_H
#define KVCL_CPU_INT_H

#include "dev.h"

#include <stdatomic.h>

/* Bytes of scratch each thread owns: enough for one normalised and quantised row of 65,536 values
 * and for the tiles of matmul and attention. */
#define KVCL_CPU_SCRATCH_BYTES ((size_t)1 << 20)

typedef struct kvcl_cpu_part {
    uint32_t thread, n_threads;
    uint32_t phase;
    atomic_uint *next;      /* the step's task counter */
    unsigned char *scratch; /* this thread's, 64-byte aligned */
} kvcl_cpu_part;

/* Takes the next `step` tasks of n: [*begin, *end); false when none is left. */
static inline bool kvcl_cpu_take(kvcl_cpu_part *p, uint32_t n, uint32_t step, uint32_t *begin,
                                 uint32_t *end)
{
    /* the counter stays far from wrapping: each thread overshoots once */
    uint32_t i = atomic_fetch_add_explicit(p->next, 1, memory_order_relaxed);
    if (i >= kvcl_div_up(n, step))
        return false;
    *begin = i * step;
    *end = kvcl_min_u32(n, *begin + step);
    return true;
}

typedef void (*kvcl_cpu_fn)(const void *args, kvcl_cpu_part *p);

/* One per op: what to run, and in how many phases. */
typedef struct kvcl_cpu_op {
    kvcl_cpu_fn fn;
    uint32_t n_phases;
} kvcl_cpu_op;

/* The scalar twins: they define the arithmetic. */
#define KVCL_OP(name, group, stem) void kvcl_cpu_##name(const void *args, kvcl_cpu_part *p);
#include "ops.def"
#undef KVCL_OP

/* Features of this processor, bounded by KVCL_CPU_CAPS (scalar, avx2, avx512, neon). */
typedef enum kvcl_cpu_caps {
    KVCL_CPU_SCALAR = 0,
    KVCL_CPU_AVX2 = 1,   /* AVX2 + FMA + F16C */
    KVCL_CPU_AVX512 = 2, /* the above + AVX-512 F, BW, DQ, VL, VNNI */
    KVCL_CPU_NEON = 3    /* AArch64 + dot product where there */
} kvcl_cpu_caps;

/* The best path of this processor when `want` is NULL, empty or "auto", else the named one; E_ARG
 * when the name is unknown, E_UNSUPPORTED when this processor lacks it. */
kvcl_status kvcl_cpu_caps_pick(kvcl_ctx *ctx, const char *want, kvcl_cpu_caps *out);
const char *kvcl_cpu_caps_name(kvcl_cpu_caps caps);

/* SIMD overrides: each replaces the rows of `ops` that it does faster, with the same bits. */
void kvcl_avx2_override(kvcl_cpu_op ops[KVCL_N_OPS]);
void kvcl_avx512_override(kvcl_cpu_op ops[KVCL_N_OPS]);
void kvcl_neon_override(kvcl_cpu_op ops[KVCL_N_OPS]);

/* Views and matrices on the CPU are plain memory. */
static inline void *kvcl_cpu_ptr(kvcl_view v)
{
    return v.buf ? (unsigned char *)v.buf->impl + v.off : NULL;
}

static inline const unsigned char *kvcl_cpu_rows(const kvcl_mat *w) { return w->part[0]->impl; }

#endif
