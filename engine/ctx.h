/* ctx.h - what a context holds; seen by L0 and by dev.c alone. */
#ifndef KVCL_CTX_H
#define KVCL_CTX_H

#include "base.h"

#include <stdatomic.h>

struct kvcl_ctx {
    kvcl_allocator allocator;
    kvcl_log_fn log;
    void *log_user;
    kvcl_log_level log_level;
    uint32_t n_threads;
    bool allow_inexact;
    uint64_t mem_limit;
    atomic_size_t bytes_used, bytes_peak;
    atomic_uint_fast64_t n_allocs, n_live;
    char error[1024];
};

#endif
