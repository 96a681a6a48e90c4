/* cl_launch.h - one kernel launch: look up, arguments in order, run.
 *
 *   kvcl_cl_launch l;
 *   KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_norm, 0, "kvcl_norm", &l));
 *   kvcl_cl_arg_view(&l, a->x, sizeof(float));     __global const float *x, ulong x_off
 *   kvcl_cl_arg_u32(&l, a->dim);                   uint dim
 *   return kvcl_cl_run1(&l, n_items, 64);
 *
 * The arg functions never fail visibly: the first error is kept in the launch and told by run.
 * After a kernel's first use on a queue nothing is allocated or locked, and an argument equal to
 * the last one at its place costs a comparison. */
#ifndef KVCL_CL_LAUNCH_H
#define KVCL_CL_LAUNCH_H

#include "cl_int.h"

typedef struct kvcl_cl_launch {
    kvcl_queue *q;
    kvcl_cl_entry *entry;
    uint32_t n_args;
    cl_int err; /* the first that setting an argument gave */
} kvcl_cl_launch;

/* Finds kernel `name` (a string literal) of program (stem, spec), building it at first use. */
kvcl_status kvcl_cl_begin(kvcl_queue *q, kvcl_cl_stem stem, uint32_t spec, const char *name,
                          kvcl_cl_launch *out);

/* True when the program was built with this feature; false in the base variant. */
static inline bool kvcl_cl_has(const kvcl_cl_launch *l, kvcl_cl_feature f)
{
    return (l->entry->features & (uint32_t)f) != 0;
}

/* The most work-items a group of this kernel may have. */
static inline size_t kvcl_cl_max_group(const kvcl_cl_launch *l) { return l->entry->max_group; }

/* Work-items for a group of a kernel that works in 64 lanes: `want`, or the largest multiple of 64
 * below it that the kernel allows; 64 at least, since rusticl understates what it allows. */
static inline size_t kvcl_cl_lanes_group(const kvcl_cl_launch *l, size_t want)
{
    size_t allowed = kvcl_cl_max_group(l) / 64 * 64;
    return kvcl_max_size(64, kvcl_min_size(want, allowed));
}

/* A buffer: `__global T *`; NULL gives a null pointer.
 * On an H200 a launch costs about 3.8 us of the host's time, and 0.25 us more for each argument
 * that is a buffer (the same one twice counts twice), 0.05 us for each other one, nothing for
 * NULL; setting arguments costs 0.01 us. */
void kvcl_cl_arg_buf(kvcl_cl_launch *l, const kvcl_buf *buf);
/* A view: two arguments, `__global T *p, ulong off`, off in elements of elem_bytes (of which
 * view.off is a multiple).  An absent view: as kvcl_cl_arg_buf(NULL), off 0. */
void kvcl_cl_arg_view(kvcl_cl_launch *l, kvcl_view view, size_t elem_bytes);
void kvcl_cl_arg_u32(kvcl_cl_launch *l, uint32_t v);
void kvcl_cl_arg_i32(kvcl_cl_launch *l, int32_t v);
void kvcl_cl_arg_u64(kvcl_cl_launch *l, uint64_t v);
void kvcl_cl_arg_f32(kvcl_cl_launch *l, float v);
/* `__local T *` of that many bytes. */
void kvcl_cl_arg_local(kvcl_cl_launch *l, size_t bytes);
/* What kernels of attention over coded pages take first, in this order: queries, page table,
 * partials, pool, means, rotation table; the region and its heads; n_rot and pairing. */
void kvcl_cl_arg_coded(kvcl_cl_launch *l, const kvcl_attn_in *in, kvcl_view pool, kvcl_view means,
                       kvcl_view table, uint32_t n_rot, kvcl_rope_pairing pairing);

/* Enqueues.  Global sizes are rounded up to multiples of the local ones: kernels guard.  A zero
 * size enqueues nothing. */
kvcl_status kvcl_cl_run1(kvcl_cl_launch *l, size_t global, size_t local);
kvcl_status kvcl_cl_run2(kvcl_cl_launch *l, size_t g0, size_t g1, size_t l0, size_t l1);
kvcl_status kvcl_cl_run3(kvcl_cl_launch *l, const size_t global[3], const size_t local[3]);

#endif
