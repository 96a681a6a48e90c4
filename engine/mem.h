/* mem.h - host memory through the context's allocator, with live counters; an arena.
 *
 * All blocks are aligned to 64 bytes.  KVCL_MEM_LIMIT (bytes, or with k, m, g) in the environment
 * bounds what the context's allocations and each device's buffers may hold, for tests and for
 * careful users. */
#ifndef KVCL_MEM_H
#define KVCL_MEM_H

#include "base.h"

#define KVCL_ALIGN 64

/* Zeroed memory; E_MEM with a sentence that names `what` when there is none. */
kvcl_status kvcl_mem_alloc(kvcl_ctx *ctx, size_t bytes, const char *what, void **out);
/* The same without the zeroes, for large buffers that are written before they are read. */
kvcl_status kvcl_mem_alloc_undefined(kvcl_ctx *ctx, size_t bytes, const char *what, void **out);
/* n * size with an overflow check. */
kvcl_status kvcl_mem_array(kvcl_ctx *ctx, size_t n, size_t size, const char *what, void **out);
/* NULL is fine. */
void kvcl_mem_free(kvcl_ctx *ctx, void *p);
/* A copy of a string. */
kvcl_status kvcl_mem_strdup(kvcl_ctx *ctx, const char *s, char **out);

/* A run of memory handed out front to back and reset as a whole. */
typedef struct kvcl_arena {
    unsigned char *base;
    size_t bytes_used, bytes_limit;
} kvcl_arena;

kvcl_status kvcl_arena_init(kvcl_ctx *ctx, size_t bytes, const char *what, kvcl_arena *out);
void kvcl_arena_free(kvcl_ctx *ctx, kvcl_arena *arena);
/* 64-byte aligned; NULL when the arena is full (its size came from a plan: that is our bug). */
void *kvcl_arena_take(kvcl_arena *arena, size_t bytes);
static inline void kvcl_arena_reset(kvcl_arena *arena) { arena->bytes_used = 0; }

/* Reads "512M", "2g", "65536"; E_ARG with a sentence naming `what` otherwise. */
kvcl_status kvcl_parse_bytes(kvcl_ctx *ctx, const char *text, const char *what, uint64_t *out);
/* The limit of KVCL_MEM_LIMIT; UINT64_MAX when unset. */
uint64_t kvcl_mem_limit(const kvcl_ctx *ctx);

#endif
