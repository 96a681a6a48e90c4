/* cl_program.h - the text of programs, and the disk cache of their binaries. */
#ifndef KVCL_CL_PROGRAM_H
#define KVCL_CL_PROGRAM_H

#include "cl_int.h"

/* The embedded kernel files; the last row has no name. */
typedef struct kvcl_cl_source {
    const char *name;
    const unsigned char *text;
    size_t bytes;
} kvcl_cl_source;

extern const kvcl_cl_source kvcl_cl_sources[];

/* A program's source: defines, cl/shared.h, cl/prelude.cl, cl/pages.cl, the stem's file. */
/* Before the last come up to KVCL_CL_BEFORE files that the stem's builds on. */
#define KVCL_CL_BEFORE 6
#define KVCL_CL_PIECES (5 + KVCL_CL_BEFORE)

typedef struct kvcl_cl_text {
    const char *piece[KVCL_CL_PIECES];
    size_t bytes[KVCL_CL_PIECES];
    char defines[512];
    char *owned[KVCL_CL_PIECES]; /* pieces read from KVCL_CL_DIR */
    const char *options;
} kvcl_cl_text;

/* Creates every kernel of a built program and lets them go: some drivers find out only then that a
 * binary is unusable, and some compile only then. */
cl_int kvcl_cl_program_try(const kvcl_cl_dev *d, cl_program program);

/* ---- disk cache (cl_cache.c) -----------------------------------------------------------------
 *
 * A file per program in kvcl_os_cache_dir(), named by its key: XXH3-128 over the format's and the
 * engine's version, the whole source, the options, the driver's and the device's names and
 * versions.  The file says its key and a checksum of its payload, and both are verified before a
 * driver sees one byte: a damaged binary crashes drivers.  Anything that is not as expected means
 * "not cached"; the program is then built from source and the entry written anew.
 *
 *   offset 0   8 bytes  "KVCLPRG" and a NUL
 *          8   u32      KVCL_CL_CACHE_VERSION
 *         12   u32      0
 *         16  16 bytes  key
 *         32   u64      payload bytes
 *         40  16 bytes  XXH3-128 of the payload
 *         56   u64      0
 *         64   ...      payload: the driver's binary          (integers little-endian) */
#define KVCL_CL_CACHE_VERSION 1
#define KVCL_CL_CACHE_HEADER 64
/* Above this the oldest entries go; KVCL_CACHE_MAX in the environment says otherwise. */
#define KVCL_CL_CACHE_MAX_BYTES (UINT64_C(64) << 20)

/* A built program from the cache; NULL when there is none that works. */
cl_program kvcl_cl_cache_load(kvcl_cl_dev *d, const kvcl_cl_text *text);
/* Stores a built program; failures are logged at debug level. */
void kvcl_cl_cache_store(kvcl_cl_dev *d, const kvcl_cl_text *text, cl_program program);

#endif
