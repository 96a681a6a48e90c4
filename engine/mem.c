/* mem.c - counted host memory, arena, the context itself.  See mem.h. */
#include "mem.h"

#include "ctx.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>

/* Stands before every block, so that free knows the size; one alignment unit long. */
typedef union kvcl_block {
    struct {
        size_t bytes;
        uint64_t magic;
    } head;
    unsigned char pad[KVCL_ALIGN];
} kvcl_block;

#define KVCL_BLOCK_MAGIC UINT64_C(0x6b76636c2d6d656d)

static void *default_alloc(void *user, size_t bytes)
{
    KVCL_UNUSED(user);
    return aligned_alloc(KVCL_ALIGN, bytes);
}

static void default_free(void *user, void *p, size_t bytes)
{
    KVCL_UNUSED(user);
    KVCL_UNUSED(bytes);
    free(p);
}

static kvcl_status read_environment(kvcl_ctx *ctx)
{
    const char *limit = getenv("KVCL_MEM_LIMIT"), *threads = getenv("KVCL_THREADS");
    ctx->mem_limit = UINT64_MAX;
    if (limit && *limit)
        KVCL_TRY(kvcl_parse_bytes(ctx, limit, "KVCL_MEM_LIMIT", &ctx->mem_limit));
    if (ctx->n_threads == 0 && threads && *threads) {
        char *end;
        unsigned long n = strtoul(threads, &end, 10);
        KVCL_CHECK(ctx, *end == 0 && n >= 1 && n <= 1024, KVCL_E_ARG,
                   "KVCL_THREADS=%s: want a number from 1 to 1024", threads);
        ctx->n_threads = (uint32_t)n;
    }
    if (ctx->n_threads == 0)
        ctx->n_threads = kvcl_os_n_cpus();
    return KVCL_OK;
}

kvcl_status kvcl_ctx_create(const kvcl_ctx_options *opt, kvcl_ctx **out)
{
    static const kvcl_allocator c_library = {default_alloc, default_free, NULL};
    static const kvcl_ctx_options none;
    if (!opt)
        opt = &none;
    const kvcl_allocator *a = opt->allocator ? opt->allocator : &c_library;
    kvcl_ctx *ctx = a->alloc(a->user, kvcl_align_up(sizeof *ctx, KVCL_ALIGN));
    if (!ctx)
        return KVCL_E_MEM;
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = *a;
    ctx->log = opt->log;
    ctx->log_user = opt->log_user;
    ctx->log_level = opt->log_level;
    ctx->n_threads = opt->n_threads;
    ctx->allow_inexact = opt->allow_inexact;
    kvcl_status st = read_environment(ctx);
    if (st != KVCL_OK) {
        if (ctx->log)
            ctx->log(ctx->log_user, KVCL_LOG_ERROR, ctx->error);
        kvcl_ctx_free(ctx);
        return st;
    }
    *out = ctx;
    return KVCL_OK;
}

void kvcl_ctx_free(kvcl_ctx *ctx)
{
    if (ctx)
        ctx->allocator.free(ctx->allocator.user, ctx, kvcl_align_up(sizeof *ctx, KVCL_ALIGN));
}

kvcl_mem_stats kvcl_ctx_mem_stats(const kvcl_ctx *ctx)
{
    return (kvcl_mem_stats){
        .bytes_used = atomic_load(&ctx->bytes_used),
        .bytes_peak = atomic_load(&ctx->bytes_peak),
        .n_allocs = atomic_load(&ctx->n_allocs),
        .n_live = atomic_load(&ctx->n_live),
    };
}

uint64_t kvcl_mem_limit(const kvcl_ctx *ctx) { return ctx->mem_limit; }

static void count_peak(kvcl_ctx *ctx, size_t used)
{
    size_t peak = atomic_load(&ctx->bytes_peak);
    while (used > peak && !atomic_compare_exchange_weak(&ctx->bytes_peak, &peak, used)) {
    }
}

kvcl_status kvcl_mem_alloc_undefined(kvcl_ctx *ctx, size_t bytes, const char *what, void **out)
{
    size_t total;
    bool fits = kvcl_add_size(bytes, 2 * sizeof(kvcl_block), &total);
    if (fits) {
        total = kvcl_align_up(sizeof(kvcl_block) + bytes, KVCL_ALIGN);
        fits = total <= ctx->mem_limit && atomic_load(&ctx->bytes_used) <= ctx->mem_limit - total;
    }
    kvcl_block *b = fits ? ctx->allocator.alloc(ctx->allocator.user, total) : NULL;
    KVCL_CHECK(
        ctx, b, KVCL_E_MEM,
        "no memory for %s: %zu bytes asked, %zu in use; use a smaller model or context (-c), or "
        "raise KVCL_MEM_LIMIT if it is set",
        what, bytes, atomic_load(&ctx->bytes_used));
    memset(b, 0, sizeof *b);
    b->head.bytes = total;
    b->head.magic = KVCL_BLOCK_MAGIC;
    count_peak(ctx, atomic_fetch_add(&ctx->bytes_used, total) + total);
    atomic_fetch_add(&ctx->n_allocs, 1);
    atomic_fetch_add(&ctx->n_live, 1);
    *out = b + 1;
    return KVCL_OK;
}

kvcl_status kvcl_mem_alloc(kvcl_ctx *ctx, size_t bytes, const char *what, void **out)
{
    KVCL_TRY(kvcl_mem_alloc_undefined(ctx, bytes, what, out));
    memset(*out, 0, bytes);
    return KVCL_OK;
}

kvcl_status kvcl_mem_array(kvcl_ctx *ctx, size_t n, size_t size, const char *what, void **out)
{
    size_t bytes;
    KVCL_CHECK(ctx, kvcl_mul_size(n, size, &bytes), KVCL_E_MEM,
               "no memory for %s: %zu x %zu bytes overflow", what, n, size);
    return kvcl_mem_alloc(ctx, bytes, what, out);
}

void kvcl_mem_free(kvcl_ctx *ctx, void *p)
{
    if (!p)
        return;
    kvcl_block *b = (kvcl_block *)p - 1;
    if (b->head.magic != KVCL_BLOCK_MAGIC)
        return; /* not ours: leaking beats corrupting */
    b->head.magic = 0;
    atomic_fetch_sub(&ctx->bytes_used, b->head.bytes);
    atomic_fetch_sub(&ctx->n_live, 1);
    ctx->allocator.free(ctx->allocator.user, b, b->head.bytes);
}

kvcl_status kvcl_mem_strdup(kvcl_ctx *ctx, const char *s, char **out)
{
    void *p;
    size_t n = strlen(s) + 1;
    KVCL_TRY(kvcl_mem_alloc(ctx, n, "a string", &p));
    memcpy(p, s, n);
    *out = p;
    return KVCL_OK;
}

kvcl_status kvcl_arena_init(kvcl_ctx *ctx, size_t bytes, const char *what, kvcl_arena *out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(ctx, bytes, what, &p));
    *out = (kvcl_arena){.base = p, .bytes_limit = bytes};
    return KVCL_OK;
}

void kvcl_arena_free(kvcl_ctx *ctx, kvcl_arena *arena)
{
    kvcl_mem_free(ctx, arena->base);
    *arena = (kvcl_arena){0};
}

void *kvcl_arena_take(kvcl_arena *arena, size_t bytes)
{
    size_t n = kvcl_align_up(bytes, KVCL_ALIGN);
    if (n < bytes || n > arena->bytes_limit - arena->bytes_used)
        return NULL;
    void *p = arena->base + arena->bytes_used;
    arena->bytes_used += n;
    return p;
}

kvcl_status kvcl_parse_bytes(kvcl_ctx *ctx, const char *text, const char *what, uint64_t *out)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    unsigned shift = 0;
    bool ok = end != text && *text != '-';
    if (*end) {
        static const char units[] = "kmgt";
        const char *u = strchr(units, *end | 0x20);
        ok = ok && u && end[1] == 0;
        shift = u ? 10 * (unsigned)(u - units + 1) : 0;
    }
    KVCL_CHECK(ctx, ok && n <= UINT64_MAX >> shift, KVCL_E_ARG,
               "%s: '%s' is not a size; write bytes, or a number with k, m, g or t", what, text);
    *out = (uint64_t)n << shift;
    return KVCL_OK;
}
