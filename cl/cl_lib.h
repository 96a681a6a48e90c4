/* cl_lib.h - the OpenCL loader's library, loaded at run time: one table of function pointers.
 *
 * The program runs where there is no OpenCL; only the headers are needed to build.  CL/cl.h is
 * included here and nowhere else, and this header by cl/ alone. */
#ifndef KVCL_CL_LIB_H
#define KVCL_CL_LIB_H

#include "base.h"
#include "os.h"

#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#if defined(__APPLE__)
#include <OpenCL/opencl.h>
#else
#include <CL/cl.h>
#endif

/* X(result, name without "cl", arguments) */
#define KVCL_CL_FUNCTIONS(X)                                                                       \
    X(cl_int, GetPlatformIDs, (cl_uint, cl_platform_id *, cl_uint *))                              \
    X(cl_int, GetPlatformInfo, (cl_platform_id, cl_platform_info, size_t, void *, size_t *))       \
    X(cl_int, GetDeviceIDs, (cl_platform_id, cl_device_type, cl_uint, cl_device_id *, cl_uint *))  \
    X(cl_int, GetDeviceInfo, (cl_device_id, cl_device_info, size_t, void *, size_t *))             \
    X(cl_context, CreateContext,                                                                   \
      (const cl_context_properties *, cl_uint, const cl_device_id *,                               \
       void(CL_CALLBACK *)(const char *, const void *, size_t, void *), void *, cl_int *))         \
    X(cl_int, ReleaseContext, (cl_context))                                                        \
    X(cl_command_queue, CreateCommandQueue,                                                        \
      (cl_context, cl_device_id, cl_command_queue_properties, cl_int *))                           \
    X(cl_int, ReleaseCommandQueue, (cl_command_queue))                                             \
    X(cl_mem, CreateBuffer, (cl_context, cl_mem_flags, size_t, void *, cl_int *))                  \
    X(cl_int, ReleaseMemObject, (cl_mem))                                                          \
    X(cl_int, EnqueueReadBuffer,                                                                   \
      (cl_command_queue, cl_mem, cl_bool, size_t, size_t, void *, cl_uint, const cl_event *,       \
       cl_event *))                                                                                \
    X(cl_int, EnqueueWriteBuffer,                                                                  \
      (cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void *, cl_uint, const cl_event *, \
       cl_event *))                                                                                \
    X(cl_int, EnqueueCopyBuffer,                                                                   \
      (cl_command_queue, cl_mem, cl_mem, size_t, size_t, size_t, cl_uint, const cl_event *,        \
       cl_event *))                                                                                \
    X(cl_program, CreateProgramWithSource,                                                         \
      (cl_context, cl_uint, const char **, const size_t *, cl_int *))                              \
    X(cl_program, CreateProgramWithBinary,                                                         \
      (cl_context, cl_uint, const cl_device_id *, const size_t *, const unsigned char **,          \
       cl_int *, cl_int *))                                                                        \
    X(cl_int, BuildProgram,                                                                        \
      (cl_program, cl_uint, const cl_device_id *, const char *,                                    \
       void(CL_CALLBACK *)(cl_program, void *), void *))                                           \
    X(cl_int, GetProgramInfo, (cl_program, cl_program_info, size_t, void *, size_t *))             \
    X(cl_int, GetProgramBuildInfo,                                                                 \
      (cl_program, cl_device_id, cl_program_build_info, size_t, void *, size_t *))                 \
    X(cl_int, ReleaseProgram, (cl_program))                                                        \
    X(cl_int, CreateKernelsInProgram, (cl_program, cl_uint, cl_kernel *, cl_uint *))               \
    X(cl_kernel, CreateKernel, (cl_program, const char *, cl_int *))                               \
    X(cl_int, ReleaseKernel, (cl_kernel))                                                          \
    X(cl_int, SetKernelArg, (cl_kernel, cl_uint, size_t, const void *))                            \
    X(cl_int, GetKernelWorkGroupInfo,                                                              \
      (cl_kernel, cl_device_id, cl_kernel_work_group_info, size_t, void *, size_t *))              \
    X(cl_int, EnqueueNDRangeKernel,                                                                \
      (cl_command_queue, cl_kernel, cl_uint, const size_t *, const size_t *, const size_t *,       \
       cl_uint, const cl_event *, cl_event *))                                                     \
    X(cl_int, Flush, (cl_command_queue))                                                           \
    X(cl_int, Finish, (cl_command_queue))

typedef struct kvcl_cl_lib {
    kvcl_os_lib *handle;
#define KVCL_CL_MEMBER(result, name, args) result(CL_API_CALL *name) args;
    KVCL_CL_FUNCTIONS(KVCL_CL_MEMBER)
#undef KVCL_CL_MEMBER
} kvcl_cl_lib;

/* Loads the library and fills the table.  False when there is none, or when it lacks a function
 * (logged at debug level); `lib` then holds nothing. */
bool kvcl_cl_lib_load(kvcl_ctx *ctx, kvcl_cl_lib *lib);
/* Forgets the table.  The library itself stays loaded: drivers keep threads running, and unloading
 * the code under them crashes. */
void kvcl_cl_lib_drop(kvcl_cl_lib *lib);

/* "CL_OUT_OF_RESOURCES"; "unknown OpenCL error" for a code that nobody defines. */
const char *kvcl_cl_error_name(cl_int err);
/* The likely cause and what to do, for a reader who does not know OpenCL. */
const char *kvcl_cl_error_cause(cl_int err);
/* The status that an OpenCL error becomes: allocation failures E_DEVICE_MEM, build failures
 * E_BUILD, all others E_DEVICE.  CL_OUT_OF_RESOURCES means both; it becomes E_DEVICE here, and
 * E_DEVICE_MEM where a buffer is created or first touched. */
kvcl_status kvcl_cl_error_status(cl_int err);

#endif
