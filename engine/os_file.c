/* os_file.c - files and folders of each operating system.  See os.h. */
#if !defined(_WIN32)
#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "mem.h"
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

#if defined(_WIN32)
#include <windows.h>
#include <io.h>
#include <process.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#define PATH_CAP 4096

/* ---- mapped files -------------------------------------------------------------------------- */

#if defined(_WIN32)
kvcl_status kvcl_os_map_open(kvcl_ctx *ctx, const char *path, kvcl_os_map *out)
{
    kvcl_status st = KVCL_OK;
    HANDLE map = NULL;
    LARGE_INTEGER size;
    HANDLE f = CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                           FILE_ATTRIBUTE_NORMAL, NULL);
    KVCL_CHECK(ctx, f != INVALID_HANDLE_VALUE, KVCL_E_IO,
               "%s: cannot be opened (Windows error %lu)", path, GetLastError());
    KVCL_CHECK_GOTO(ctx, GetFileSizeEx(f, &size), KVCL_E_IO, "%s: not a regular file", path);
    KVCL_CHECK_GOTO(ctx, size.QuadPart > 0, KVCL_E_FORMAT,
                    "%s: the file is empty; copy or download it again", path);
    map = CreateFileMappingA(f, NULL, PAGE_READONLY, 0, 0, NULL);
    void *p = map ? MapViewOfFile(map, FILE_MAP_READ, 0, 0, 0) : NULL;
    KVCL_CHECK_GOTO(ctx, p, KVCL_E_IO, "%s: cannot be mapped (Windows error %lu)", path,
                    GetLastError());
    *out = (kvcl_os_map){.data = p, .bytes = (size_t)size.QuadPart, .handle = map};
    CloseHandle(f);
    return KVCL_OK;
fail:
    if (map)
        CloseHandle(map);
    CloseHandle(f);
    return st;
}

void kvcl_os_map_close(kvcl_os_map *map)
{
    if (!map->data)
        return;
    UnmapViewOfFile(map->data);
    CloseHandle(map->handle);
    *map = (kvcl_os_map){0};
}
#else
kvcl_status kvcl_os_map_open(kvcl_ctx *ctx, const char *path, kvcl_os_map *out)
{
    kvcl_status st = KVCL_OK;
    struct stat s;
    /* O_NONBLOCK: a named pipe must be refused below, not waited for */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    KVCL_CHECK(ctx, fd >= 0, KVCL_E_IO, "%s: %s; check the path", path, strerror(errno));
    KVCL_CHECK_GOTO(ctx, fstat(fd, &s) == 0, KVCL_E_IO, "%s: %s", path, strerror(errno));
    KVCL_CHECK_GOTO(ctx, S_ISREG(s.st_mode), KVCL_E_IO, "%s: %s, not a regular file", path,
                    S_ISDIR(s.st_mode) ? "a folder" : "a device or pipe");
    KVCL_CHECK_GOTO(ctx, s.st_size > 0, KVCL_E_FORMAT,
                    "%s: the file is empty; copy or download it again", path);
    KVCL_CHECK_GOTO(ctx, (uint64_t)s.st_size <= SIZE_MAX / 2, KVCL_E_MEM,
                    "%s: too large for this machine's address space", path);
    void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    KVCL_CHECK_GOTO(ctx, p != MAP_FAILED, KVCL_E_IO, "%s: cannot be mapped: %s", path,
                    strerror(errno));
    *out = (kvcl_os_map){.data = p, .bytes = (size_t)s.st_size};
fail:
    close(fd); /* the mapping stays */
    return st;
}

void kvcl_os_map_close(kvcl_os_map *map)
{
    if (map->data) {
        /* the mapping was made by us from non-const memory */
        munmap((void *)(uintptr_t)map->data, map->bytes);
        *map = (kvcl_os_map){0};
    }
}
#endif

/* ---- files that appear complete or not at all ---------------------------------------------- */

static bool sync_and_close(FILE *f)
{
    bool ok = fflush(f) == 0;
#if defined(_WIN32)
    ok = ok && _commit(_fileno(f)) == 0;
#else
    /* EINVAL: a pipe or terminal, which has nothing to sync */
    ok = ok && (fsync(fileno(f)) == 0 || errno == EINVAL || errno == EROFS);
#endif
    int err = errno;
    bool closed = fclose(f) == 0;
    if (!ok)
        errno = err;
    return ok && closed;
}

static bool replace_file(const char *from, const char *to)
{
#if defined(_WIN32)
    return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0;
#else
    return rename(from, to) == 0;
#endif
}

/* A name beside `path` that no other process and no earlier try of this one uses. */
static bool temp_name(const char *path, unsigned attempt, char *out, size_t cap)
{
#if defined(_WIN32)
    long pid = (long)_getpid();
#else
    long pid = (long)getpid();
#endif
    unsigned stamp = (unsigned)(kvcl_os_now_ns() & 0xffffffu);
    int n = snprintf(out, cap, "%s.%ld-%06x-%u.tmp", path, pid, stamp, attempt);
    return n > 0 && (size_t)n < cap;
}

/* Opens a new file for writing; never an existing one, never through a link. */
static FILE *create_new(const char *path, bool private_to_user)
{
#if defined(_WIN32)
    KVCL_UNUSED(private_to_user); /* the folder's access list rules */
    return fopen(path, "wbx");
#else
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, private_to_user ? 0600 : 0666);
    FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (fd >= 0 && !f)
        close(fd);
    return f;
#endif
}

static FILE *create_temp(const char *path, bool private_to_user, char *temp, size_t cap)
{
    for (unsigned attempt = 0; attempt < 8; attempt++) {
        errno = ENAMETOOLONG;
        if (!temp_name(path, attempt, temp, cap))
            return NULL;
        FILE *f = create_new(temp, private_to_user);
        if (f || errno != EEXIST)
            return f;
    }
    return NULL;
}

struct kvcl_os_out {
    kvcl_ctx *ctx;
    FILE *file;
    bool direct; /* a device or pipe: written in place, since a rename would replace the device */
    char path[PATH_CAP], temp[PATH_CAP + 64];
};

/* Where the file shall appear: behind a symbolic link, the link's target. */
static bool out_target(const char *path, char *out, bool *direct)
{
    struct stat s;
    *direct = false;
#if !defined(_WIN32)
    if (stat(path, &s) == 0) {
        if (S_ISDIR(s.st_mode)) {
            errno = EISDIR;
            return false;
        }
        *direct = !S_ISREG(s.st_mode);
        char *real = *direct ? NULL : realpath(path, NULL);
        if (real) {
            int n = snprintf(out, PATH_CAP, "%s", real);
            free(real);
            errno = ENAMETOOLONG;
            return n > 0 && n < PATH_CAP;
        }
    }
#else
    KVCL_UNUSED(s);
#endif
    int n = snprintf(out, PATH_CAP, "%s", path);
    errno = n == 0 ? ENOENT : ENAMETOOLONG;
    return n > 0 && n < PATH_CAP;
}

kvcl_status kvcl_os_out_create(kvcl_ctx *ctx, const char *path, kvcl_os_out **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_os_out), "an output file", &p));
    kvcl_os_out *f = p;
    f->ctx = ctx;
    bool ok = out_target(path, f->path, &f->direct);
    if (ok && f->direct)
        f->file = fopen(f->path, "wb");
    else if (ok)
        f->file = create_temp(f->path, false, f->temp, sizeof f->temp);
    if (!f->file) {
        kvcl_status st =
            kvcl_fail(ctx, KVCL_E_IO, "%s: cannot be written: %s", path, strerror(errno));
        kvcl_mem_free(ctx, f);
        return st;
    }
    *out = f;
    return KVCL_OK;
}

kvcl_status kvcl_os_out_write(kvcl_os_out *f, const void *data, size_t bytes)
{
    KVCL_CHECK(f->ctx, bytes == 0 || fwrite(data, 1, bytes, f->file) == bytes, KVCL_E_IO,
               "%s: writing failed: %s", f->path, strerror(errno));
    return KVCL_OK;
}

/* So that the new name survives a power failure; best effort, not every file system can. */
static void sync_folder(const char *path)
{
#if defined(_WIN32)
    KVCL_UNUSED(path);
#else
    char folder[PATH_CAP];
    const char *slash = strrchr(path, '/');
    int n = slash ? (int)(slash - path) : 0;
    if (n >= PATH_CAP)
        return;
    snprintf(folder, sizeof folder, "%.*s", slash ? (n ? n : 1) : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
#endif
}

kvcl_status kvcl_os_out_commit(kvcl_os_out *f)
{
    kvcl_status st = KVCL_OK;
    bool ok = sync_and_close(f->file);
    f->file = NULL;
    if (ok && !f->direct) {
        ok = replace_file(f->temp, f->path);
        if (ok)
            sync_folder(f->path);
    }
    if (ok)
        f->temp[0] = 0;
    else
        st = kvcl_fail(f->ctx, KVCL_E_IO, "%s: writing failed: %s", f->path, strerror(errno));
    kvcl_os_out_abort(f);
    return st;
}

void kvcl_os_out_abort(kvcl_os_out *f)
{
    if (!f)
        return;
    if (f->file)
        fclose(f->file);
    if (f->temp[0])
        remove(f->temp);
    kvcl_mem_free(f->ctx, f);
}

#if defined(_WIN32)
static bool file_identity(const char *path, BY_HANDLE_FILE_INFORMATION *out)
{
    HANDLE f = CreateFileA(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING,
                           FILE_ATTRIBUTE_NORMAL, NULL);
    if (f == INVALID_HANDLE_VALUE)
        return false;
    bool ok = GetFileInformationByHandle(f, out) != 0;
    CloseHandle(f);
    return ok;
}

bool kvcl_os_same_file(const char *a, const char *b)
{
    BY_HANDLE_FILE_INFORMATION x, y;
    return file_identity(a, &x) && file_identity(b, &y) &&
           x.dwVolumeSerialNumber == y.dwVolumeSerialNumber &&
           x.nFileIndexHigh == y.nFileIndexHigh && x.nFileIndexLow == y.nFileIndexLow;
}
#else
bool kvcl_os_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
#endif

/* ---- whole files --------------------------------------------------------------------------- */

/* Reads to the end, doubling the memory as it fills up. */
static kvcl_status read_stream(kvcl_ctx *ctx, FILE *f, const char *path, size_t max_bytes,
                               char **out, size_t *n_out)
{
    kvcl_status st = KVCL_OK;
    void *p = NULL;
    size_t n = 0, cap = kvcl_min_size(max_bytes, 1u << 16);
    KVCL_TRY(kvcl_mem_alloc(ctx, cap + 1, path, &p));
    for (;;) {
        errno = 0;
        n += fread((char *)p + n, 1, cap + 1 - n, f); /* the spare byte finds "more than max" */
        KVCL_CHECK_GOTO(ctx, !ferror(f) || errno != EINTR, KVCL_E_INTERRUPTED,
                        "%s: interrupted while reading", path);
        KVCL_CHECK_GOTO(ctx, !ferror(f), KVCL_E_IO, "%s: %s", path, strerror(errno));
        if (n <= cap)
            break;
        KVCL_CHECK_GOTO(ctx, cap < max_bytes, KVCL_E_FULL,
                        "%s: longer than the %zu bytes accepted here; shorten it", path, max_bytes);
        size_t wider = cap > max_bytes / 2 ? max_bytes : 2 * cap;
        void *q;
        KVCL_TRY_GOTO(kvcl_mem_alloc(ctx, wider + 1, path, &q));
        memcpy(q, p, n);
        kvcl_mem_free(ctx, p);
        p = q;
        cap = wider;
    }
    ((char *)p)[n] = 0;
    *out = p;
    *n_out = n;
    return KVCL_OK;
fail:
    kvcl_mem_free(ctx, p);
    return st;
}

kvcl_status kvcl_os_read_file(kvcl_ctx *ctx, const char *path, size_t max_bytes, char **out,
                              size_t *n_out)
{
    if (strcmp(path, "-") == 0)
        return read_stream(ctx, stdin, "standard input", max_bytes, out, n_out);
    FILE *f = fopen(path, "rb");
    KVCL_CHECK(ctx, f, KVCL_E_IO, "%s: %s; check the path", path, strerror(errno));
    kvcl_status st = read_stream(ctx, f, path, max_bytes, out, n_out);
    fclose(f);
    return st;
}

/* ---- the private cache folder -------------------------------------------------------------- */

/* Names the folder by the environment. */
static bool cache_name(char *path, size_t cap, char *why, size_t why_cap)
{
    const char *dir = getenv("KVCL_CACHE_DIR"), *tail = "";
    if (dir && strcmp(dir, "off") == 0) {
        snprintf(why, why_cap, "KVCL_CACHE_DIR is off");
        return false;
    }
#if defined(_WIN32)
    if (!dir || !*dir) {
        dir = getenv("LOCALAPPDATA");
        tail = "/kvcl/cache";
    }
#else
    if (!dir || !*dir) {
        dir = getenv("XDG_CACHE_HOME");
        tail = "/kvcl";
        if (!dir || dir[0] != '/') { /* the XDG rules say to ignore relative paths */
            dir = getenv("HOME");
            tail = "/.cache/kvcl";
        }
    }
#endif
    if (!dir || !*dir) {
        snprintf(why, why_cap, "no home folder known; set KVCL_CACHE_DIR");
        return false;
    }
    int n = snprintf(path, cap, "%s%s", dir, tail);
    if (n < 0 || (size_t)n >= cap) {
        snprintf(why, why_cap, "the path of the cache folder is too long");
        return false;
    }
    while (n > 1 && path[n - 1] == '/') /* a final slash would look through a link */
        path[--n] = 0;
    return true;
}

static int make_private_folder(const char *path)
{
#if defined(_WIN32)
    return CreateDirectoryA(path, NULL) || GetLastError() == ERROR_ALREADY_EXISTS ? 0 : -1;
#else
    return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -1;
#endif
}

/* Makes the folder and those above it; the caller judges the result. */
static void make_folders(char *path)
{
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            (void)make_private_folder(path);
            *p = '/';
        }
    (void)make_private_folder(path);
}

#if !defined(_WIN32)
/* Why this file or folder must not be trusted; NULL when it may. */
static const char *distrust(const struct stat *s)
{
    if (S_ISLNK(s->st_mode))
        return "it is a symbolic link";
    if (s->st_uid != geteuid())
        return "it belongs to another user";
    if (s->st_mode & (S_IWGRP | S_IWOTH))
        return "others may write to it";
    return NULL;
}
#endif

bool kvcl_os_cache_dir(char *path, size_t cap, char *why, size_t why_cap)
{
    if (!cache_name(path, cap, why, why_cap))
        return false;
    make_folders(path);
#if !defined(_WIN32)
    struct stat s;
    if (lstat(path, &s) != 0) {
        snprintf(why, why_cap, "%s: %s", path, strerror(errno));
        return false;
    }
    const char *reason = distrust(&s);
    if (!reason && !S_ISDIR(s.st_mode))
        reason = "it is not a folder";
    if (reason) {
        snprintf(why, why_cap, "%s is not safe: %s", path, reason);
        return false;
    }
    if (access(path, W_OK | X_OK) != 0) {
        snprintf(why, why_cap, "%s: %s", path, strerror(errno));
        return false;
    }
#endif
    return true;
}

void *kvcl_os_cache_read(kvcl_ctx *ctx, const char *path, size_t max_bytes, size_t *n_out)
{
#if defined(_WIN32)
    FILE *f = fopen(path, "rb");
#else
    struct stat s;
    FILE *f = NULL;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && !distrust(&s))
        f = fdopen(fd, "rb");
    if (fd >= 0 && !f)
        close(fd);
#endif
    if (!f)
        return NULL;
    char *data = NULL;
    kvcl_status st = read_stream(ctx, f, path, max_bytes, &data, n_out);
    fclose(f);
    return st == KVCL_OK ? data : NULL;
}

bool kvcl_os_cache_write(const char *path, const void *const *parts, const size_t *bytes,
                         size_t n_parts)
{
    char temp[PATH_CAP + 64];
    FILE *f = create_temp(path, true, temp, sizeof temp);
    if (!f)
        return false;
    bool ok = true;
    for (size_t i = 0; i < n_parts && ok; i++)
        ok = bytes[i] == 0 || fwrite(parts[i], 1, bytes[i], f) == bytes[i];
    ok = sync_and_close(f) && ok;
    ok = ok && replace_file(temp, path);
    if (!ok)
        remove(temp);
    return ok;
}

void kvcl_os_cache_remove(const char *path) { remove(path); }
