/* os_dir.c - what is in a folder, on each operating system.  See os.h. */
#if !defined(_WIN32)
#define _DARWIN_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "os.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dirent.h>
#endif

#define PATH_CAP 4400
#define MAX_ROUNDS 256 /* files removed in one call */

/* The regular files with the suffix: how many bytes they hold and which is the oldest. */
typedef struct kvcl_os_census {
    const char *dir, *suffix;
    uint64_t bytes;
    int64_t oldest_time;
    char oldest[PATH_CAP];
} kvcl_os_census;

static void count_file(kvcl_os_census *c, const char *name)
{
    char path[PATH_CAP];
    struct stat s;
    size_t n = strlen(name), n_suffix = strlen(c->suffix);
    if (n < n_suffix || strcmp(name + n - n_suffix, c->suffix) != 0)
        return;
    int len = snprintf(path, sizeof path, "%s/%s", c->dir, name);
    if (len < 0 || (size_t)len >= sizeof path)
        return;
#if defined(_WIN32)
    if (stat(path, &s) != 0)
        return;
#else
    if (lstat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return;
#endif
    c->bytes += (uint64_t)s.st_size;
    if (!c->oldest[0] || (int64_t)s.st_mtime < c->oldest_time) {
        c->oldest_time = (int64_t)s.st_mtime;
        memcpy(c->oldest, path, (size_t)len + 1);
    }
}

#if defined(_WIN32)
static void take_census(kvcl_os_census *c)
{
    char pattern[PATH_CAP];
    WIN32_FIND_DATAA entry;
    snprintf(pattern, sizeof pattern, "%s/*%s", c->dir, c->suffix);
    HANDLE h = FindFirstFileA(pattern, &entry);
    if (h == INVALID_HANDLE_VALUE)
        return;
    do
        count_file(c, entry.cFileName);
    while (FindNextFileA(h, &entry));
    FindClose(h);
}
#else
static void take_census(kvcl_os_census *c)
{
    DIR *d = opendir(c->dir);
    if (!d)
        return;
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        count_file(c, e->d_name);
    closedir(d);
}
#endif

void kvcl_os_cache_trim(const char *dir, const char *suffix, uint64_t max_bytes)
{
    for (int i = 0; i < MAX_ROUNDS; i++) {
        kvcl_os_census c = {.dir = dir, .suffix = suffix};
        take_census(&c);
        if (c.bytes <= max_bytes || !c.oldest[0] || remove(c.oldest) != 0)
            return;
    }
}
