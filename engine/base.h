/* base.h - what every file may use: statuses with sentences, checked arithmetic, small macros. */
#ifndef KVCL_BASE_H
#define KVCL_BASE_H

#include "kvcl.h"

#include <stdarg.h>
#include <string.h>

#define KVCL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define KVCL_UNUSED(x) ((void)(x))

#define kvcl_array_len(a) (sizeof(a) / sizeof((a)[0]))

/* Puts a sentence into the context and returns st, so that `return kvcl_fail(...)` reads well.
 * ctx may be NULL: the sentence is then lost, the status is not. */
kvcl_status kvcl_fail(kvcl_ctx *ctx, kvcl_status st, const char *fmt, ...) KVCL_PRINTF(3, 4);
#ifdef __clang_analyzer__ /* so that static analysis knows which status comes back */
#define kvcl_fail(ctx, st, ...) ((void)(kvcl_fail)((ctx), (st), __VA_ARGS__), (st))
#endif

/* Returns any error of expr; evaluates once. */
#define KVCL_TRY(expr)                \
    do {                              \
        kvcl_status st_try_ = (expr); \
        if (st_try_ != KVCL_OK)       \
            return st_try_;           \
    } while (0)

/* If not cond: sentence into the context, return code. */
#define KVCL_CHECK(ctx, cond, code, ...)                  \
    do {                                                  \
        if (!(cond))                                      \
            return kvcl_fail((ctx), (code), __VA_ARGS__); \
    } while (0)

/* The same for functions with a `kvcl_status st` and a `fail:` label. */
#define KVCL_TRY_GOTO(expr) \
    do {                    \
        st = (expr);        \
        if (st != KVCL_OK)  \
            goto fail;      \
    } while (0)

#define KVCL_CHECK_GOTO(ctx, cond, code, ...)           \
    do {                                                \
        if (!(cond)) {                                  \
            st = kvcl_fail((ctx), (code), __VA_ARGS__); \
            goto fail;                                  \
        }                                               \
    } while (0)

/* Checked arithmetic: false on overflow, *out untouched then. */
static inline bool kvcl_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool kvcl_add_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* align: a power of two; the caller keeps n clear of overflow. */
static inline size_t kvcl_align_up(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

static inline uint32_t kvcl_min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static inline uint32_t kvcl_max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline size_t kvcl_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t kvcl_max_size(size_t a, size_t b) { return a > b ? a : b; }

/* ceil(a / b) */
static inline uint32_t kvcl_div_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

#endif
