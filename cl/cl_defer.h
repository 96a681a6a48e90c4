/* cl_defer.h - decode's ops collected on the host and run in one launch (cl/defer.cl).
 *
 * A queue that may defer keeps the ops of a token in a list instead of launching each.  Whatever
 * else it is asked to do (a launch, a transfer, a wait) runs the list first: kvcl_cl_defer_flush().
 * NVIDIA only, one queue of a device at a time (two launches that wait for all their groups must
 * not share the units), and only after a trial launch has shown that its groups run together;
 * KVCL_CL_DEFER=0 in the environment turns it off.  Results have the bits of the other kernels. */
#ifndef KVCL_CL_DEFER_H
#define KVCL_CL_DEFER_H

#include "cl_int.h"

/* Takes the op when it can (*taken); the caller launches its kernel otherwise. */
kvcl_status kvcl_cl_defer_matvec(kvcl_queue *q, const kvcl_matvec_args *a, bool *taken);
kvcl_status kvcl_cl_defer_embed_rows(kvcl_queue *q, const kvcl_embed_rows_args *a, bool *taken);
kvcl_status kvcl_cl_defer_rope_store(kvcl_queue *q, const kvcl_rope_store_args *a, bool *taken);
kvcl_status kvcl_cl_defer_attn_raw(kvcl_queue *q, const kvcl_attn_raw_args *a, bool *taken);
kvcl_status kvcl_cl_defer_attn_merge(kvcl_queue *q, const kvcl_attn_merge_args *a, bool *taken);

/* Runs what is in the list. */
kvcl_status kvcl_cl_defer_flush(kvcl_queue *q);

/* Lets go of the list; what it still holds never runs. */
void kvcl_cl_defer_free(kvcl_queue *q);

#endif
