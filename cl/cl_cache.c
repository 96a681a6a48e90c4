/* cl_cache.c - program binaries kept on disk between runs.  See cl_program.h. */
#include "cl_program.h"

#include "log.h"
#include "mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <stdlib.h>

#define MAX_ENTRY_BYTES ((size_t)16 << 20)
#define SUFFIX ".clb"

typedef struct kvcl_cl_key {
    unsigned char bytes[16];
    char path[4096];
    char dir[4000];
} kvcl_cl_key;

static void put_u32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static void put_u64(unsigned char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static void put_hash(unsigned char *p, XXH128_hash_t h)
{
    put_u64(p, h.low64);
    put_u64(p + 8, h.high64);
}

/* A run of bytes with its length before it, so that neighbours cannot run into one another. */
static void feed(XXH3_state_t *s, const void *data, size_t bytes)
{
    unsigned char n[8];
    put_u64(n, bytes);
    XXH3_128bits_update(s, n, sizeof n);
    XXH3_128bits_update(s, data, bytes);
}

static void feed_text(XXH3_state_t *s, const char *text) { feed(s, text, strlen(text)); }

static void hash_key(const kvcl_cl_dev *d, const kvcl_cl_text *t, unsigned char out[16])
{
    const kvcl_cl_caps *c = &d->caps;
    unsigned char numbers[8];
    XXH3_state_t s;
    XXH3_128bits_reset(&s);
    put_u32(numbers, KVCL_CL_CACHE_VERSION);
    put_u32(numbers + 4, c->address_bits);
    feed(&s, numbers, sizeof numbers);
    feed_text(&s, KVCL_VERSION);
    feed_text(&s, t->options);
    feed_text(&s, c->platform_name);
    feed_text(&s, c->platform_version);
    feed_text(&s, c->device_name);
    feed_text(&s, c->device_version);
    feed_text(&s, c->driver_version);
    for (size_t i = 0; i < KVCL_CL_PIECES; i++)
        feed(&s, t->piece[i], t->bytes[i]);
    put_hash(out, XXH3_128bits_digest(&s));
}

/* False when there is no cache for this device: PoCL keeps its own (and compiles for seconds to
 * answer what its binary is), and the folder may be off or not safe. */
static bool make_key(kvcl_cl_dev *d, const kvcl_cl_text *t, kvcl_cl_key *key)
{
    static const char digits[] = "0123456789abcdef";
    char why[512], name[33];
    if (d->caps.impl == KVCL_CL_POCL || d->cache_off)
        return false;
    if (!kvcl_os_cache_dir(key->dir, sizeof key->dir, why, sizeof why)) {
        kvcl_log_info(d->dev->ctx, "program cache not used: %s", why);
        d->cache_off = true;
        return false;
    }
    hash_key(d, t, key->bytes);
    for (size_t i = 0; i < 16; i++) {
        name[2 * i] = digits[key->bytes[i] >> 4];
        name[2 * i + 1] = digits[key->bytes[i] & 15];
    }
    name[32] = 0;
    int n = snprintf(key->path, sizeof key->path, "%s/%s" SUFFIX, key->dir, name);
    return n > 0 && (size_t)n < sizeof key->path;
}

static void make_header(const unsigned char key[16], const unsigned char *payload, size_t bytes,
                        unsigned char out[KVCL_CL_CACHE_HEADER])
{
    memset(out, 0, KVCL_CL_CACHE_HEADER);
    memcpy(out, "KVCLPRG", 7);
    put_u32(out + 8, KVCL_CL_CACHE_VERSION);
    memcpy(out + 16, key, 16);
    put_u64(out + 32, bytes);
    put_hash(out + 40, XXH3_128bits(payload, bytes));
}

/* NULL when the file is one that we wrote for this key, whole; else what is wrong. */
static const char *find_fault(const unsigned char key[16], const unsigned char *file, size_t bytes)
{
    unsigned char want[KVCL_CL_CACHE_HEADER];
    if (bytes <= KVCL_CL_CACHE_HEADER)
        return "it is too short";
    make_header(key, file + KVCL_CL_CACHE_HEADER, bytes - KVCL_CL_CACHE_HEADER, want);
    if (memcmp(file, want, 16) != 0)
        return "it is not a program of this version";
    if (memcmp(file + 16, want + 16, 16) != 0)
        return "it belongs to another program or device";
    return memcmp(file + 32, want + 32, KVCL_CL_CACHE_HEADER - 32) == 0 ? NULL : "it is damaged";
}

/* The binary through the driver, up to working kernels. */
static cl_program revive(kvcl_cl_dev *d, const kvcl_cl_text *t, const unsigned char *binary,
                         size_t bytes)
{
    cl_int state = CL_SUCCESS, err;
    cl_program program =
        d->cl.CreateProgramWithBinary(d->context, 1, &d->device, &bytes, &binary, &state, &err);
    if (err != CL_SUCCESS || !program)
        return NULL;
    if (state == CL_SUCCESS &&
        d->cl.BuildProgram(program, 1, &d->device, t->options, NULL, NULL) == CL_SUCCESS &&
        kvcl_cl_program_try(d, program) == CL_SUCCESS)
        return program;
    d->cl.ReleaseProgram(program);
    return NULL;
}

cl_program kvcl_cl_cache_load(kvcl_cl_dev *d, const kvcl_cl_text *t)
{
    kvcl_cl_key key;
    size_t n = 0;
    if (!make_key(d, t, &key))
        return NULL;
    unsigned char *file = kvcl_os_cache_read(d->dev->ctx, key.path, MAX_ENTRY_BYTES, &n);
    if (!file)
        return NULL;
    cl_program program = NULL;
    const char *fault = find_fault(key.bytes, file, n);
    if (!fault) {
        program = revive(d, t, file + KVCL_CL_CACHE_HEADER, n - KVCL_CL_CACHE_HEADER);
        if (!program)
            fault = "the driver refuses it";
    }
    kvcl_mem_free(d->dev->ctx, file);
    if (fault) {
        kvcl_log_info(d->dev->ctx, "program cache: %s: %s; building from source", key.path, fault);
        kvcl_os_cache_remove(key.path);
    }
    return program;
}

static uint64_t cache_limit(kvcl_ctx *ctx)
{
    const char *s = getenv("KVCL_CACHE_MAX");
    uint64_t bytes;
    if (s && *s && kvcl_parse_bytes(ctx, s, "KVCL_CACHE_MAX", &bytes) == KVCL_OK)
        return bytes;
    return KVCL_CL_CACHE_MAX_BYTES;
}

void kvcl_cl_cache_store(kvcl_cl_dev *d, const kvcl_cl_text *t, cl_program program)
{
    kvcl_ctx *ctx = d->dev->ctx;
    kvcl_cl_key key;
    size_t bytes = 0;
    void *p;
    if (!make_key(d, t, &key) ||
        d->cl.GetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) !=
            CL_SUCCESS ||
        bytes == 0 || bytes > MAX_ENTRY_BYTES - KVCL_CL_CACHE_HEADER ||
        kvcl_mem_alloc(ctx, bytes, "a program binary", &p) != KVCL_OK)
        return;
    unsigned char *binary = p;
    if (d->cl.GetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) ==
        CL_SUCCESS) {
        unsigned char header[KVCL_CL_CACHE_HEADER];
        make_header(key.bytes, binary, bytes, header);
        if (kvcl_os_cache_write(key.path, (const void *[]){header, binary},
                                (const size_t[]){sizeof header, bytes}, 2))
            kvcl_os_cache_trim(key.dir, SUFFIX, cache_limit(ctx));
        else
            kvcl_log_debug(ctx, "program cache: %s cannot be written", key.path);
    }
    kvcl_mem_free(ctx, binary);
}
