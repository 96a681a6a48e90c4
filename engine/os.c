/* os.c - libraries, processor, time, terminal, signals of each operating system.  See os.h.
 * With os_file.c (files and folders) this is all the system-specific code there is. */
#if !defined(_WIN32)
#define _GNU_SOURCE      /* sched_getaffinity on Linux */
#define _DARWIN_C_SOURCE /* sysctlbyname on macOS */
#define _POSIX_C_SOURCE 200809L
#endif

#include "os.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(_WIN32)
#include <windows.h>
#include <io.h>
#else
#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__APPLE__)
#include <mach-o/dyld.h>
#include <sys/sysctl.h>
#endif

/* ---- shared libraries ---------------------------------------------------------------------- */

static void *lib_load(const char *name)
{
#if defined(_WIN32)
    return (void *)LoadLibraryA(name);
#else
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
#endif
}

kvcl_os_lib *kvcl_os_lib_open(const char *const *names)
{
    for (; *names; names++) {
        void *lib = lib_load(*names);
        if (lib)
            return lib;
    }
    return NULL;
}

void *kvcl_os_lib_symbol(kvcl_os_lib *lib, const char *name)
{
    if (!lib)
        return NULL;
#if defined(_WIN32)
    FARPROC p = GetProcAddress((HMODULE)(void *)lib, name);
    void *out; /* ISO C has no cast from function to object pointer */
    memcpy(&out, &p, sizeof out);
    return out;
#else
    return dlsym(lib, name);
#endif
}

void kvcl_os_lib_close(kvcl_os_lib *lib)
{
    if (!lib)
        return;
#if defined(_WIN32)
    FreeLibrary((HMODULE)(void *)lib);
#else
    dlclose(lib);
#endif
}

/* The list that the environment variable asks for, else the system's.  The slot is per thread
 * because the caller gets a pointer to it. */
static const char *const *lib_names(const char *variable, const char *slot[2],
                                    const char *const *usual)
{
    static const char *const none[] = {NULL};
    const char *named = getenv(variable);
    if (!named || !*named)
        return usual;
    if (strcmp(named, "off") == 0)
        return none;
    slot[0] = named;
    slot[1] = NULL;
    return slot;
}

const char *const *kvcl_os_opencl_names(void)
{
    static _Thread_local const char *slot[2];
#if defined(_WIN32)
    static const char *const usual[] = {"OpenCL.dll", NULL};
#elif defined(__APPLE__)
    static const char *const usual[] = {"/System/Library/Frameworks/OpenCL.framework/OpenCL", NULL};
#else
    static const char *const usual[] = {"libOpenCL.so.1", "libOpenCL.so", NULL};
#endif
    return lib_names("KVCL_OPENCL_LIB", slot, usual);
}

const char *const *kvcl_os_clblast_names(void)
{
    static _Thread_local const char *slot[2];
#if defined(_WIN32)
    static const char *const usual[] = {"clblast.dll", NULL};
#elif defined(__APPLE__)
    static const char *const usual[] = {"libclblast.1.dylib", "libclblast.dylib", NULL};
#else
    static const char *const usual[] = {"libclblast.so.1", "libclblast.so", NULL};
#endif
    return lib_names("KVCL_CLBLAST_LIB", slot, usual);
}

/* ---- time and processor -------------------------------------------------------------------- */

uint64_t kvcl_os_now_ns(void)
{
#if defined(_WIN32)
    LARGE_INTEGER count, rate;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&rate);
    uint64_t c = (uint64_t)count.QuadPart, r = (uint64_t)rate.QuadPart;
    return c / r * UINT64_C(1000000000) + c % r * UINT64_C(1000000000) / r;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
#endif
}

uint32_t kvcl_os_n_cpus(void)
{
    long n = 0;
#if defined(_WIN32)
    DWORD_PTR mine = 0, all = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))
        for (; mine; mine &= mine - 1)
            n++;
#else
#if defined(__linux__)
    cpu_set_t set; /* more than 1024 processors: falls through to sysconf */
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
#endif
    if (n < 1)
        n = sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return n < 1 ? 1 : (uint32_t)n;
}

#if defined(__linux__)
/* Copies the value of the first of `keys` that a line of the file starts with. */
static bool value_in(const char *path, const char *const *keys, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        for (const char *const *k = keys; colon && *k && !found; k++)
            if (strncmp(line, *k, strlen(*k)) == 0) {
                colon += strspn(colon, ": \t");
                snprintf(out, cap, "%.*s", (int)strcspn(colon, "\n"), colon);
                found = *out != 0;
            }
    }
    fclose(f);
    return found;
}
#endif

void kvcl_os_cpu_name(char *out, size_t cap)
{
    snprintf(out, cap, "CPU");
#if defined(_WIN32)
    const char *name = getenv("PROCESSOR_IDENTIFIER");
    if (name && *name)
        snprintf(out, cap, "%s", name);
#elif defined(__APPLE__)
    size_t n = cap;
    if (sysctlbyname("machdep.cpu.brand_string", out, &n, NULL, 0) != 0)
        snprintf(out, cap, "CPU");
#elif defined(__linux__)
    static const char *const keys[] = {"model name", "Model", "Hardware",
                                       "cpu model",  "cpu\t", NULL};
    if (!value_in("/proc/cpuinfo", keys, out, cap)) {
#if defined(__aarch64__)
        snprintf(out, cap, "ARM64 processor");
#else
        snprintf(out, cap, "CPU");
#endif
    }
#endif
}

void kvcl_os_large_pages(void *p, size_t bytes)
{
#if defined(MADV_HUGEPAGE)
    uintptr_t page = 4096, begin = ((uintptr_t)p + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)p + bytes) / page * page;
    if (begin < end)
        (void)madvise((unsigned char *)p + (begin - (uintptr_t)p), end - begin, MADV_HUGEPAGE);
#else
    (void)p, (void)bytes;
#endif
}

uint64_t kvcl_os_mem_bytes(void)
{
#if defined(_WIN32)
    MEMORYSTATUSEX m = {.dwLength = sizeof m};
    return GlobalMemoryStatusEx(&m) ? (uint64_t)m.ullTotalPhys : 0;
#elif defined(__APPLE__)
    uint64_t bytes = 0;
    size_t n = sizeof bytes;
    return sysctlbyname("hw.memsize", &bytes, &n, NULL, 0) == 0 ? bytes : 0;
#else
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
#endif
}

uint64_t kvcl_os_process_bytes(bool peak)
{
#if defined(__linux__)
    const char *const keys[] = {peak ? "VmHWM:" : "VmRSS:", NULL};
    char text[64];
    if (value_in("/proc/self/status", keys, text, sizeof text)) /* "12345 kB" */
        return (uint64_t)strtoull(text, NULL, 10) * 1024;
#endif
    (void)peak;
    return 0;
}

void kvcl_os_yield(void)
{
#if defined(_WIN32)
    SwitchToThread();
#else
    sched_yield();
#endif
}

/* ---- terminal, start, signals -------------------------------------------------------------- */

bool kvcl_os_is_tty(int fd)
{
#if defined(_WIN32)
    return _isatty(fd) != 0;
#else
    return isatty(fd) == 1;
#endif
}

bool kvcl_os_program_path(char *out, size_t cap)
{
#if defined(_WIN32)
    DWORD n = GetModuleFileNameA(NULL, out, (DWORD)cap);
    return n > 0 && n < cap;
#elif defined(__APPLE__)
    uint32_t n = (uint32_t)cap;
    return _NSGetExecutablePath(out, &n) == 0;
#elif defined(__linux__)
    ssize_t n = readlink("/proc/self/exe", out, cap);
    if (n <= 0 || (size_t)n >= cap)
        return false;
    out[n] = 0;
    return true;
#else
    KVCL_UNUSED(out);
    KVCL_UNUSED(cap);
    return false;
#endif
}

void kvcl_os_passive_waiting(char **argv)
{
#if defined(_WIN32)
    KVCL_UNUSED(argv); /* its OpenMP run times sleep after a short spin anyway */
#else
    /* KVCL_RESTARTED breaks the loop should the new program not see OMP_WAIT_POLICY */
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KVCL_RESTARTED"))
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) != 0 || setenv("KVCL_RESTARTED", "1", 1) != 0)
        return;
#if defined(__APPLE__)
    char self[4096];
    uint32_t n = sizeof self;
    if (_NSGetExecutablePath(self, &n) == 0)
        execv(self, argv);
#else
    execv("/proc/self/exe", argv);
#endif
    /* not possible here: go on with the waiting policy there is */
    unsetenv("OMP_WAIT_POLICY");
#endif
}

/* A signal handler has no argument for its context: these two are the only variables of the
 * library that outlive a call. */
static void (*volatile interrupt_fn)(void);
static volatile sig_atomic_t interrupt_seen;

static void on_signal(int sig)
{
    KVCL_UNUSED(sig);
    if (interrupt_seen)
        _Exit(130);
    interrupt_seen = 1;
#if defined(_WIN32)
    signal(sig, on_signal); /* Windows forgets the handler once it ran */
#endif
    if (interrupt_fn)
        interrupt_fn();
}

void kvcl_os_on_interrupt(void (*fn)(void))
{
    interrupt_fn = fn;
#if defined(_WIN32)
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
#else
    struct sigaction act; /* no SA_RESTART: a read of standard input ends with the signal */
    memset(&act, 0, sizeof act);
    act.sa_handler = on_signal;
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
#endif
}
