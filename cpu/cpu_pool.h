/* cpu_pool.h - runs a list of ops on all threads.  See cpu_int.h for the idea. */
#ifndef KVCL_CPU_POOL_H
#define KVCL_CPU_POOL_H

#include "cpu_int.h"

typedef union kvcl_cpu_args {
#define KVCL_OP(name, group, stem) kvcl_##name##_args name;
#include "ops.def"
#undef KVCL_OP
} kvcl_cpu_args;

typedef struct kvcl_cpu_entry {
    kvcl_cpu_op op;
    kvcl_cpu_args args;
} kvcl_cpu_entry;

typedef struct kvcl_cpu_pool {
    uint32_t n_threads;
    unsigned char *scratch; /* n_threads * KVCL_CPU_SCRATCH_BYTES */
    atomic_uint next;       /* task counter of the current step */
    atomic_uint arrived;
    atomic_uint round; /* barrier generation */
} kvcl_cpu_pool;

kvcl_status kvcl_cpu_pool_init(kvcl_ctx *ctx, uint32_t n_threads, kvcl_cpu_pool *out);
void kvcl_cpu_pool_free(kvcl_ctx *ctx, kvcl_cpu_pool *pool);
/* Runs the entries in order, each after the one before has finished. */
void kvcl_cpu_pool_run(kvcl_cpu_pool *pool, const kvcl_cpu_entry *entries, uint32_t n);

#endif
