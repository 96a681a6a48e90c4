/* os.h - everything that is specific to an operating system, in one place: shared libraries, mapped
 * files, safe files, folders, time, terminal. */
#ifndef KVCL_OS_H
#define KVCL_OS_H

#include "base.h"

/* Shared libraries.  Candidates are tried in order; NULL when none loads. */
typedef struct kvcl_os_lib kvcl_os_lib;
kvcl_os_lib *kvcl_os_lib_open(const char *const *names);
void *kvcl_os_lib_symbol(kvcl_os_lib *lib, const char *name);
void kvcl_os_lib_close(kvcl_os_lib *lib);
/* Names under which this system knows the OpenCL loader and CLBlast; NULL-terminated.  The
 * environment variables KVCL_OPENCL_LIB and KVCL_CLBLAST_LIB name another file ("off" for none). */
const char *const *kvcl_os_opencl_names(void);
const char *const *kvcl_os_clblast_names(void);

/* A whole file mapped read-only. */
typedef struct kvcl_os_map {
    const unsigned char *data;
    size_t bytes;
    void *handle;
} kvcl_os_map;
kvcl_status kvcl_os_map_open(kvcl_ctx *ctx, const char *path, kvcl_os_map *out);
void kvcl_os_map_close(kvcl_os_map *map);

/* A file that appears under its path complete or not at all: written to a temporary name beside it,
 * synced, renamed.  abort removes the temporary. */
typedef struct kvcl_os_out kvcl_os_out;
kvcl_status kvcl_os_out_create(kvcl_ctx *ctx, const char *path, kvcl_os_out **out);
kvcl_status kvcl_os_out_write(kvcl_os_out *f, const void *data, size_t bytes);
kvcl_status kvcl_os_out_commit(kvcl_os_out *f); /* frees f either way */
void kvcl_os_out_abort(kvcl_os_out *f);         /* NULL is fine */
/* True when both names lead to one existing file, through links too. */
bool kvcl_os_same_file(const char *a, const char *b);

/* Reads a whole file, or standard input for "-", into memory (E_FULL above max_bytes).  *out is
 * one byte longer and ends in NUL; free with kvcl_mem_free. */
kvcl_status kvcl_os_read_file(kvcl_ctx *ctx, const char *path, size_t max_bytes, char **out,
                              size_t *n_out);

/* A file that no name leads to, readable by us alone: it is gone once it is closed or the process
 * ends, however that happens.  All its bytes are reserved when it is opened, so that no later write
 * finds the disk full. */
typedef struct kvcl_os_scratch {
    kvcl_ctx *ctx;
    char what[32];   /* for messages */
    intptr_t handle; /* a file descriptor; on Windows a HANDLE */
    uint64_t bytes;
    bool is_open;
} kvcl_os_scratch;
/* In `folder`; NULL or "": the system's for temporary files.  E_IO when the folder or its disk do
 * not allow it. */
kvcl_status kvcl_os_scratch_open(kvcl_ctx *ctx, const char *folder, uint64_t bytes,
                                 const char *what, kvcl_os_scratch *out);
void kvcl_os_scratch_close(kvcl_os_scratch *f); /* one that is not open, too */
kvcl_status kvcl_os_scratch_write(kvcl_os_scratch *f, uint64_t off, const void *src, size_t n);
/* *n_out < n: the file ends there. */
kvcl_status kvcl_os_scratch_read(const kvcl_os_scratch *f, uint64_t off, void *dst, size_t n,
                                 size_t *n_out);
/* These bytes will be read soon: the system may fetch them meanwhile. */
void kvcl_os_scratch_expect(const kvcl_os_scratch *f, uint64_t off, size_t n);

/* The private folder for cached program binaries, created 0700: KVCL_CACHE_DIR, else
 * XDG_CACHE_HOME/kvcl, else HOME/.cache/kvcl.  False (with a reason) when it is "off", is not ours,
 * is a symbolic link or others may write to it. */
bool kvcl_os_cache_dir(char *path, size_t cap, char *why, size_t why_cap);
/* Reads a file of that folder: a regular file of ours, never through a link.  NULL when there is
 * none or it is not safe; the caller frees with kvcl_mem_free. */
void *kvcl_os_cache_read(kvcl_ctx *ctx, const char *path, size_t max_bytes, size_t *n_out);
/* Writes it by temporary name and rename, 0600; false when that failed. */
bool kvcl_os_cache_write(const char *path, const void *const *parts, const size_t *bytes,
                         size_t n_parts);
void kvcl_os_cache_remove(const char *path);
/* Removes files of that folder whose names end in `suffix`, oldest first, until the rest holds at
 * most max_bytes. */
void kvcl_os_cache_trim(const char *dir, const char *suffix, uint64_t max_bytes);

/* Makes a folder, unless it is there; the one above it must be. */
kvcl_status kvcl_os_make_folder(kvcl_ctx *ctx, const char *path);
/* Runs a program that is searched for in PATH, with our output and errors; argv ends in NULL.
 * Returns its exit status, 128 and more after a signal, -1 (127 on some systems) when it could not
 * be started. */
int kvcl_os_run(const char *const *argv);

uint64_t kvcl_os_now_ns(void); /* monotonic */
uint32_t kvcl_os_n_cpus(void); /* that this process may use */
void kvcl_os_cpu_name(char *out, size_t cap);
uint64_t kvcl_os_mem_bytes(void);
/* What this process has resident, mapped files included: now, or at most so far.  0: not known. */
uint64_t kvcl_os_process_bytes(bool peak);
/* Lets the system back memory, that was never touched, with large pages: far fewer of them to look
 * up when all of it is read.  Does nothing where that is not known. */
void kvcl_os_large_pages(void *p, size_t bytes);
bool kvcl_os_is_tty(int fd);
/* The file of the running program; false when the system does not tell or cap is too small. */
bool kvcl_os_program_path(char *out, size_t cap);
/* Starts the program anew with OMP_WAIT_POLICY=passive when the variable is unset: OpenMP reads it
 * before main() runs.  Returns when there is nothing to do or it cannot be done. */
void kvcl_os_passive_waiting(char **argv);
/* Runs fn on the first interrupt signal (Ctrl-C, SIGTERM); the second ends the process with 130. */
void kvcl_os_on_interrupt(void (*fn)(void));
/* Waits a moment in a spin loop; gives the processor away. */
void kvcl_os_yield(void);

#endif
