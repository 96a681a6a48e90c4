/* cl_error.c - OpenCL's error codes: name, likely cause, our status.  See cl_lib.h. */
#include "cl_lib.h"

typedef struct kvcl_cl_error_row {
    int code;
    const char *name, *cause;
} kvcl_cl_error_row;

/* Numbers from the OpenCL specification; -1001 from the loader's; -9999 is NVIDIA's own. */
static const kvcl_cl_error_row rows[] = {
    {0, "CL_SUCCESS", ""},
    {-1, "CL_DEVICE_NOT_FOUND", "the platform has no device"},
    {-2, "CL_DEVICE_NOT_AVAILABLE", "another process may hold the device"},
    {-3, "CL_COMPILER_NOT_AVAILABLE", "the driver was installed without its compiler"},
    {-4, "CL_MEM_OBJECT_ALLOCATION_FAILURE",
     "the device has no room; use a smaller model, context (-c) or batch"},
    {-5, "CL_OUT_OF_RESOURCES",
     "the device ran out of memory or registers, a kernel read out of bounds, or ran too long"},
    {-6, "CL_OUT_OF_HOST_MEMORY", "the driver found no host memory"},
    {-7, "CL_PROFILING_INFO_NOT_AVAILABLE", ""},
    {-8, "CL_MEM_COPY_OVERLAP", ""},
    {-9, "CL_IMAGE_FORMAT_MISMATCH", ""},
    {-10, "CL_IMAGE_FORMAT_NOT_SUPPORTED", ""},
    {-11, "CL_BUILD_PROGRAM_FAILURE", "the driver's compiler refused the source"},
    {-12, "CL_MAP_FAILURE", ""},
    {-13, "CL_MISALIGNED_SUB_BUFFER_OFFSET", ""},
    {-14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST", "an earlier command failed"},
    {-15, "CL_COMPILE_PROGRAM_FAILURE", ""},
    {-16, "CL_LINKER_NOT_AVAILABLE", ""},
    {-17, "CL_LINK_PROGRAM_FAILURE", ""},
    {-18, "CL_DEVICE_PARTITION_FAILED", ""},
    {-19, "CL_KERNEL_ARG_INFO_NOT_AVAILABLE", ""},
    {-30, "CL_INVALID_VALUE", ""},
    {-31, "CL_INVALID_DEVICE_TYPE", ""},
    {-32, "CL_INVALID_PLATFORM", ""},
    {-33, "CL_INVALID_DEVICE", ""},
    {-34, "CL_INVALID_CONTEXT", ""},
    {-35, "CL_INVALID_QUEUE_PROPERTIES", ""},
    {-36, "CL_INVALID_COMMAND_QUEUE", "an earlier kernel crashed and the driver gave up the queue"},
    {-37, "CL_INVALID_HOST_PTR", ""},
    {-38, "CL_INVALID_MEM_OBJECT", "the buffer was lost, or never had memory"},
    {-39, "CL_INVALID_IMAGE_FORMAT_DESCRIPTOR", ""},
    {-40, "CL_INVALID_IMAGE_SIZE", ""},
    {-41, "CL_INVALID_SAMPLER", ""},
    {-42, "CL_INVALID_BINARY", "the program binary is from another driver or damaged"},
    {-43, "CL_INVALID_BUILD_OPTIONS", ""},
    {-44, "CL_INVALID_PROGRAM", ""},
    {-45, "CL_INVALID_PROGRAM_EXECUTABLE", "the program did not build for this device"},
    {-46, "CL_INVALID_KERNEL_NAME", "the program has no kernel of this name"},
    {-47, "CL_INVALID_KERNEL_DEFINITION", ""},
    {-48, "CL_INVALID_KERNEL", ""},
    {-49, "CL_INVALID_ARG_INDEX", "host and kernel disagree on the number of arguments"},
    {-50, "CL_INVALID_ARG_VALUE", ""},
    {-51, "CL_INVALID_ARG_SIZE", "host and kernel disagree on the type of an argument"},
    {-52, "CL_INVALID_KERNEL_ARGS", "host and kernel disagree on the number of arguments"},
    {-53, "CL_INVALID_WORK_DIMENSION", ""},
    {-54, "CL_INVALID_WORK_GROUP_SIZE", "the group is larger than this kernel may have here"},
    {-55, "CL_INVALID_WORK_ITEM_SIZE", ""},
    {-56, "CL_INVALID_GLOBAL_OFFSET", ""},
    {-57, "CL_INVALID_EVENT_WAIT_LIST", ""},
    {-58, "CL_INVALID_EVENT", ""},
    {-59, "CL_INVALID_OPERATION", ""},
    {-60, "CL_INVALID_GL_OBJECT", ""},
    {-61, "CL_INVALID_BUFFER_SIZE", "the buffer is larger than the device allows in one piece"},
    {-62, "CL_INVALID_MIP_LEVEL", ""},
    {-63, "CL_INVALID_GLOBAL_WORK_SIZE", ""},
    {-64, "CL_INVALID_PROPERTY", ""},
    {-65, "CL_INVALID_IMAGE_DESCRIPTOR", ""},
    {-66, "CL_INVALID_COMPILER_OPTIONS", ""},
    {-67, "CL_INVALID_LINKER_OPTIONS", ""},
    {-68, "CL_INVALID_DEVICE_PARTITION_COUNT", ""},
    {-1001, "CL_PLATFORM_NOT_FOUND_KHR", "no OpenCL driver is installed"},
    {-9999, "NVIDIA's unnamed error", "a kernel read or wrote out of bounds, or is too large"},
};

static const kvcl_cl_error_row *row_of(cl_int err)
{
    for (size_t i = 0; i < kvcl_array_len(rows); i++)
        if (rows[i].code == err)
            return &rows[i];
    return NULL;
}

const char *kvcl_cl_error_name(cl_int err)
{
    const kvcl_cl_error_row *row = row_of(err);
    return row ? row->name : "unknown OpenCL error";
}

const char *kvcl_cl_error_cause(cl_int err)
{
    const kvcl_cl_error_row *row = row_of(err);
    return row && *row->cause ? row->cause : "this should not happen: please report it";
}

kvcl_status kvcl_cl_error_status(cl_int err)
{
    switch (err) {
    case CL_SUCCESS:
        return KVCL_OK;
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
    case CL_OUT_OF_HOST_MEMORY:
        return KVCL_E_DEVICE_MEM;
    case CL_BUILD_PROGRAM_FAILURE:
    case CL_COMPILER_NOT_AVAILABLE:
    case CL_INVALID_PROGRAM_EXECUTABLE:
        return KVCL_E_BUILD;
    default:
        return KVCL_E_DEVICE;
    }
}
