/* os_scratch.c - private files without a name, for what does not fit memory.  See os.h. */
#if !defined(_WIN32)
#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "mem.h"
#include "os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(_WIN32)
#include <windows.h>
#include <io.h>
#include <process.h>
#else
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#endif

#define REMEDY "name another folder with --tier-dir"

/* A name that no other process and no earlier try of this one uses. */
static void make_name(unsigned attempt, char *out, size_t cap)
{
#if defined(_WIN32)
    long pid = (long)_getpid();
#else
    long pid = (long)getpid();
#endif
    unsigned stamp = (unsigned)(kvcl_os_now_ns() & 0xffffffu);
    snprintf(out, cap, "kvcl-%ld-%06x-%u.tier", pid, stamp, attempt);
}

#if defined(_WIN32)

static const char *temp_folder(char *space, size_t cap)
{
    DWORD n = GetTempPathA((DWORD)cap, space);
    return n > 0 && n < cap ? space : ".";
}

/* The system removes the file with its last handle. */
static bool open_nameless(const char *folder, intptr_t *handle, char *why, size_t cap)
{
    char path[4096], name[64];
    for (unsigned attempt = 0; attempt < 8; attempt++) {
        make_name(attempt, name, sizeof name);
        snprintf(path, sizeof path, "%s\\%s", folder, name);
        HANDLE f = CreateFileA(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, CREATE_NEW,
                               FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, NULL);
        *handle = (intptr_t)f;
        if (f != INVALID_HANDLE_VALUE)
            return true;
        if (GetLastError() != ERROR_FILE_EXISTS)
            break;
    }
    snprintf(why, cap, "Windows error %lu", GetLastError());
    return false;
}

static bool reserve(intptr_t handle, uint64_t bytes, char *why, size_t cap)
{
    LARGE_INTEGER end = {.QuadPart = (LONGLONG)bytes};
    if (SetFilePointerEx((HANDLE)handle, end, NULL, FILE_BEGIN) && SetEndOfFile((HANDLE)handle))
        return true;
    snprintf(why, cap, "Windows error %lu", GetLastError());
    return false;
}

static OVERLAPPED at_offset(uint64_t off)
{
    return (OVERLAPPED){.Offset = (DWORD)off, .OffsetHigh = (DWORD)(off >> 32)};
}

/* Bytes moved, 0 at the end of the file; -1: failed. */
static long long read_some(intptr_t handle, uint64_t off, void *dst, size_t n)
{
    OVERLAPPED at = at_offset(off);
    DWORD done = 0;
    if (ReadFile((HANDLE)handle, dst, (DWORD)kvcl_min_size(n, 1u << 30), &done, &at))
        return (long long)done;
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : -1;
}

static long long write_some(intptr_t handle, uint64_t off, const void *src, size_t n)
{
    OVERLAPPED at = at_offset(off);
    DWORD done = 0;
    bool ok = WriteFile((HANDLE)handle, src, (DWORD)kvcl_min_size(n, 1u << 30), &done, &at);
    return ok ? (long long)done : -1;
}

static void close_handle(intptr_t handle) { CloseHandle((HANDLE)handle); }

#else

static const char *temp_folder(char *space, size_t cap)
{
    const char *dir = getenv("TMPDIR");
    KVCL_UNUSED(space);
    KVCL_UNUSED(cap);
    return dir && *dir ? dir : "/tmp";
}

/* A new file, which loses its name before a signal can end the process: no handler and no default
 * action runs in between. */
static int create_and_unlink(int folder)
{
    sigset_t all, before;
    int fd = -1, err = EEXIST;
    char name[64];
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    for (unsigned attempt = 0; attempt < 8 && fd < 0 && err == EEXIST; attempt++) {
        make_name(attempt, name, sizeof name);
        /* O_EXCL: never a file that is there, nor one behind a link */
        fd = openat(folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        err = errno;
    }
    if (fd >= 0 && unlinkat(folder, name, 0) != 0) {
        err = errno;
        close(fd);
        fd = -1;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = err;
    return fd;
}

static bool open_nameless(const char *path, intptr_t *handle, char *why, size_t cap)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = folder >= 0 ? create_and_unlink(folder) : -1, err = errno;
    if (folder >= 0)
        close(folder);
    if (fd < 0)
        snprintf(why, cap, "%s", strerror(err));
    *handle = fd;
    return fd >= 0;
}

static long long write_some(intptr_t handle, uint64_t off, const void *src, size_t n)
{
    return (long long)pwrite((int)handle, src, n, (off_t)off);
}

static long long read_some(intptr_t handle, uint64_t off, void *dst, size_t n)
{
    return (long long)pread((int)handle, dst, n, (off_t)off);
}

/* Where the system cannot reserve: zeros. */
static int write_zeros(intptr_t handle, uint64_t bytes)
{
    static const unsigned char zero[65536] = {0};
    for (uint64_t at = 0; at < bytes;) {
        uint64_t left = bytes - at;
        long long n = write_some(handle, at, zero, left < sizeof zero ? (size_t)left : sizeof zero);
        if (n < 0 && errno != EINTR)
            return errno;
        at += n > 0 ? (uint64_t)n : 0;
    }
    return 0;
}

/* Asked first: writing beyond the limit would end the process with SIGXFSZ. */
static bool limit_allows(uint64_t bytes, char *why, size_t cap)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        bytes <= limit.rlim_cur)
        return true;
    snprintf(why, cap, "a file of this process may have %llu bytes (ulimit -f)",
             (unsigned long long)limit.rlim_cur);
    return false;
}

static bool reserve(intptr_t handle, uint64_t bytes, char *why, size_t cap)
{
    int err = EFBIG;
    if (!limit_allows(bytes, why, cap))
        return false;
    if (bytes <= (uint64_t)INT64_MAX) {
#if defined(__APPLE__)
        err = write_zeros(handle, bytes);
#else
        do
            err = posix_fallocate((int)handle, 0, (off_t)bytes);
        while (err == EINTR);
        if (err == EOPNOTSUPP || err == EINVAL)
            err = write_zeros(handle, bytes);
#endif
    }
    if (err)
        snprintf(why, cap, "%s", strerror(err));
    return err == 0;
}

static void close_handle(intptr_t handle) { close((int)handle); }

#endif

kvcl_status kvcl_os_scratch_open(kvcl_ctx *ctx, const char *folder, uint64_t bytes,
                                 const char *what, kvcl_os_scratch *out)
{
    char space[1024], why[160];
    kvcl_os_scratch f = {.ctx = ctx, .bytes = bytes};
    snprintf(f.what, sizeof f.what, "%s", what);
    if (!folder || !*folder)
        folder = temp_folder(space, sizeof space);
    KVCL_CHECK(ctx, open_nameless(folder, &f.handle, why, sizeof why), KVCL_E_IO,
               "%s: the %s cannot have a file there: %s; " REMEDY, folder, what, why);
    if (!reserve(f.handle, bytes, why, sizeof why)) {
        close_handle(f.handle);
        return kvcl_fail(ctx, KVCL_E_IO,
                         "%s: %llu bytes of the %s cannot be reserved there: %s; " REMEDY
                         ", or ask for a shorter context (-c) or fewer bits",
                         folder, (unsigned long long)bytes, what, why);
    }
    f.is_open = true;
    *out = f;
    return KVCL_OK;
}

void kvcl_os_scratch_close(kvcl_os_scratch *f)
{
    if (f->is_open)
        close_handle(f->handle);
    *f = (kvcl_os_scratch){0};
}

kvcl_status kvcl_os_scratch_write(kvcl_os_scratch *f, uint64_t off, const void *src, size_t n)
{
    for (size_t done = 0; done < n;) {
        long long k =
            write_some(f->handle, off + done, (const unsigned char *)src + done, n - done);
        KVCL_CHECK(f->ctx, k > 0 || (k < 0 && errno == EINTR), KVCL_E_IO,
                   "the %s: its file could not be written: %s; keep it in memory, or " REMEDY,
                   f->what, strerror(errno));
        done += k > 0 ? (size_t)k : 0;
    }
    return KVCL_OK;
}

kvcl_status kvcl_os_scratch_read(const kvcl_os_scratch *f, uint64_t off, void *dst, size_t n,
                                 size_t *n_out)
{
    size_t done = 0;
    for (long long k = 1; done < n && k != 0;) {
        k = read_some(f->handle, off + done, (unsigned char *)dst + done, n - done);
        KVCL_CHECK(f->ctx, k >= 0 || errno == EINTR, KVCL_E_IO,
                   "the %s: its file could not be read: %s; keep it in memory, or " REMEDY, f->what,
                   strerror(errno));
        done += k > 0 ? (size_t)k : 0;
    }
    *n_out = done;
    return KVCL_OK;
}

void kvcl_os_scratch_expect(const kvcl_os_scratch *f, uint64_t off, size_t n)
{
#if defined(POSIX_FADV_WILLNEED)
    (void)posix_fadvise((int)f->handle, (off_t)off, (off_t)n, POSIX_FADV_WILLNEED);
#else
    KVCL_UNUSED(f);
    KVCL_UNUSED(off);
    KVCL_UNUSED(n);
#endif
}
