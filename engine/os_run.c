/* os_run.c - other programs and new folders.  See os.h. */
#if !defined(_WIN32)
#define _DARWIN_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "os.h"

#include <errno.h>
#include <sys/stat.h>

#if defined(_WIN32)
#include <direct.h>
#include <process.h>
#define S_ISDIR(mode) (((mode)&_S_IFMT) == _S_IFDIR)
static int make(const char *path) { return _mkdir(path); }
#else
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;
static int make(const char *path) { return mkdir(path, 0777); }
#endif

kvcl_status kvcl_os_make_folder(kvcl_ctx *ctx, const char *path)
{
    struct stat s;
    int made = make(path);
    KVCL_CHECK(ctx, made == 0 || errno == EEXIST, KVCL_E_IO, "%s: the folder cannot be made: %s",
               path, strerror(errno));
    KVCL_CHECK(ctx, stat(path, &s) == 0 && S_ISDIR(s.st_mode), KVCL_E_IO,
               "%s is there and is not a folder; name another one", path);
    return KVCL_OK;
}

#if defined(_WIN32)
int kvcl_os_run(const char *const *argv) { return (int)_spawnvp(_P_WAIT, argv[0], argv); }
#else
int kvcl_os_run(const char *const *argv)
{
    pid_t pid;
    int status;
    /* posix_spawn takes argv without const and changes nothing in it */
    if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
#endif
