/* failing_opencl.c - stands before the real OpenCL library and lets kernel number
 * KVCL_TEST_FAIL_AT (and all later ones) fail with the code KVCL_TEST_FAIL_CODE: a device that
 * vanishes or runs out of memory in the middle of a text.  All other functions are the real
 * library's, which this one needs. */
#include "cl_lib.h"

#include <dlfcn.h>
#include <stdlib.h>

typedef cl_int (*enqueue_fn)(cl_command_queue, cl_kernel, cl_uint, const size_t *, const size_t *,
                             const size_t *, cl_uint, const cl_event *, cl_event *);

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel,
                                                       cl_uint dims, const size_t *offset,
                                                       const size_t *global, const size_t *local,
                                                       cl_uint n_events, const cl_event *events,
                                                       cl_event *event)
{
    static enqueue_fn real;
    static long n;
    if (!real) {
        void *lib = dlopen("libOpenCL.so.1", RTLD_LAZY);
        void *symbol = lib ? dlsym(lib, "clEnqueueNDRangeKernel") : NULL;
        memcpy(&real, &symbol, sizeof real);
        if (!real)
            return CL_INVALID_OPERATION;
    }
    if (++n >= number("KVCL_TEST_FAIL_AT", 0x7fffffff))
        return (cl_int)number("KVCL_TEST_FAIL_CODE", CL_DEVICE_NOT_AVAILABLE);
    return real(queue, kernel, dims, offset, global, local, n_events, events, event);
}
