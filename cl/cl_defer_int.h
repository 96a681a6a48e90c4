/* cl_defer_int.h - the list of deferred ops itself, between cl_defer.c and cl_defer_ops.c. */
#ifndef KVCL_CL_DEFER_INT_H
#define KVCL_CL_DEFER_INT_H

#include "cl_defer.h"
#include "cl_launch.h"
#include "defer.h"

#define KVCL_DEFER_MAX_OPS 1024
#define KVCL_DEFER_GROUP 512 /* these three as in the kernel files */
#define KVCL_DEFER_MAX_COLS 10240
#define KVCL_DEFER_RED_FLOATS 72

/* KVCL_SPEC */
#define KVCL_DEFER_SPEC_PAGES 3u      /* f16 K, f16 V */
#define KVCL_DEFER_SPEC_TYPE 8        /* shift of the weights' type */
#define KVCL_DEFER_SPEC_BULK 0x10000u /* bulk prefetch: compute capability 9 */

typedef union kvcl_defer_slot {
    kvcl_defer_head head;
    kvcl_defer_matvec matvec;
    kvcl_defer_embed embed;
    kvcl_defer_attn attn;
    kvcl_defer_merge merge;
    uint32_t words[KVCL_DEFER_WORDS];
} kvcl_defer_slot;

/* Ops [0, n_run) of the list have been launched, [n_run, n) have not.  The list is of one program
 * (spec).  Numbers that change from token to token stand apart, so that the list itself stays the
 * same and is not uploaded again. */
struct kvcl_cl_defer {
    bool on, busy, on_pages; /* tried and good; being launched; the list has an op on pages */
    uint32_t n, n_run, n_uploaded, n_numbers, spec;
    uint32_t arrivals; /* at the barrier since the queue began */
    uint32_t numbers[KVCL_DEFER_DYN], meaning[KVCL_DEFER_DYN];
    kvcl_buf *list, *round, *address;
    kvcl_defer_slot ops[KVCL_DEFER_MAX_OPS];
    kvcl_defer_slot uploaded[KVCL_DEFER_MAX_OPS];
};

/* The queue's list when it may be used.  The first call tries it; whatever goes wrong then means
 * that ops are launched one by one, as on other devices. */
kvcl_cl_defer *kvcl_cl_defer_list(kvcl_queue *q, uint32_t spec);

/* Puts an op at the list's end.  The first ops start while the host collects the others. */
kvcl_status kvcl_cl_defer_add(kvcl_queue *q, kvcl_cl_defer *d, const kvcl_defer_slot *op);

static inline uint32_t kvcl_cl_defer_groups(const kvcl_queue *q)
{
    return kvcl_cl_caps_of(q)->n_units;
}

#endif
