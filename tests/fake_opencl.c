/* fake_opencl.c - an OpenCL library that only answers questions, for tests of the device list: five
 * platforms as they are met in the field, of which two are broken.
 *
 *   "NVIDIA CUDA"                    GPUs A and B, two equal boards at PCI places 1 and 2
 *   "Failing Platform"               clGetDeviceIDs fails
 *   "rusticl"                        B again, by its PCI place, under another name, and the CPU
 *   "Empty Platform"                 no device
 *   "Portable Computing Language"    A and B once more, without a PCI place but with their names;
 *                                    a GPU of its own that shares memory with the host
 * fake_opencl_rest.c has the functions that need only be there. */
#include "cl_lib.h"

#include <string.h>

#define QUERY_PCI_BUS_INFO_KHR 0x410F

struct _cl_platform_id {
    const char *name;
    cl_int err;
    cl_uint n, first;
};

struct _cl_device_id {
    const char *name;
    cl_device_type type;
    cl_uint bus; /* 0: not told */
    cl_bool unified;
};

static struct _cl_device_id devices[] = {
    {"Fake GPU", CL_DEVICE_TYPE_GPU, 1, CL_FALSE},
    {"Fake GPU", CL_DEVICE_TYPE_GPU, 2, CL_FALSE},
    {"fakechip (radeonsi)", CL_DEVICE_TYPE_GPU, 2, CL_FALSE},
    {"llvmpipe", CL_DEVICE_TYPE_CPU, 0, CL_TRUE},
    {"Fake GPU", CL_DEVICE_TYPE_GPU, 0, CL_FALSE},
    {"Fake GPU", CL_DEVICE_TYPE_GPU, 0, CL_FALSE},
    {"Fake iGPU", CL_DEVICE_TYPE_GPU, 0, CL_TRUE},
};

static struct _cl_platform_id platforms[] = {
    {"NVIDIA CUDA", CL_SUCCESS, 2, 0},
    {"Failing Platform", CL_OUT_OF_HOST_MEMORY, 1, 0},
    {"rusticl", CL_SUCCESS, 2, 2},
    {"Empty Platform", CL_DEVICE_NOT_FOUND, 0, 0},
    {"Portable Computing Language", CL_SUCCESS, 3, 4},
};

static cl_int answer(const void *data, size_t n, size_t cap, void *out, size_t *n_out)
{
    if (n_out)
        *n_out = n;
    if (out && cap < n)
        return CL_INVALID_VALUE;
    if (out)
        memcpy(out, data, n);
    return CL_SUCCESS;
}

cl_int clGetPlatformIDs(cl_uint cap, cl_platform_id *out, cl_uint *n_out)
{
    if (n_out)
        *n_out = kvcl_array_len(platforms);
    for (cl_uint i = 0; out && i < cap && i < kvcl_array_len(platforms); i++)
        out[i] = &platforms[i];
    return CL_SUCCESS;
}

cl_int clGetPlatformInfo(cl_platform_id p, cl_platform_info what, size_t cap, void *out,
                         size_t *n_out)
{
    const char *text = what == CL_PLATFORM_NAME ? p->name : "OpenCL 1.2 fake";
    return answer(text, strlen(text) + 1, cap, out, n_out);
}

cl_int clGetDeviceIDs(cl_platform_id p, cl_device_type type, cl_uint cap, cl_device_id *out,
                      cl_uint *n_out)
{
    KVCL_UNUSED(type);
    if (p->err != CL_SUCCESS)
        return p->err;
    if (n_out)
        *n_out = p->n;
    for (cl_uint i = 0; out && i < cap && i < p->n; i++)
        out[i] = &devices[p->first + i];
    return CL_SUCCESS;
}

cl_int clGetDeviceInfo(cl_device_id d, cl_device_info what, size_t cap, void *out, size_t *n_out)
{
    const char *text = "fake 1.0";
    const cl_uint one = 4, pci[4] = {0, d->bus, 0, 0};
    const cl_ulong bytes = (cl_ulong)1 << 33;
    const size_t sizes[3] = {1024, 1024, 64};
    const cl_device_fp_config fp = CL_FP_FMA | CL_FP_ROUND_TO_NEAREST;
    const cl_bool yes = CL_TRUE;
    switch (what) {
    case CL_DEVICE_NAME:
        text = d->name;
        break;
    case CL_DEVICE_PROFILE:
        text = "FULL_PROFILE";
        break;
    case CL_DEVICE_EXTENSIONS:
        text = d->bus ? "cl_khr_foo cl_khr_pci_bus_info" : "cl_khr_pci_bus_info_not";
        break;
    case CL_DEVICE_TYPE:
        return answer(&d->type, sizeof d->type, cap, out, n_out);
    case CL_DEVICE_HOST_UNIFIED_MEMORY:
        return answer(&d->unified, sizeof d->unified, cap, out, n_out);
    case CL_DEVICE_ENDIAN_LITTLE:
        return answer(&yes, sizeof yes, cap, out, n_out);
    case CL_DEVICE_MAX_COMPUTE_UNITS:
    case CL_DEVICE_ADDRESS_BITS:
        return answer(&one, sizeof one, cap, out, n_out);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        return answer(sizes, sizeof sizes[0], cap, out, n_out);
    case CL_DEVICE_MAX_WORK_ITEM_SIZES:
        return answer(sizes, sizeof sizes, cap, out, n_out);
    case CL_DEVICE_LOCAL_MEM_SIZE:
    case CL_DEVICE_GLOBAL_MEM_SIZE:
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
        return answer(&bytes, sizeof bytes, cap, out, n_out);
    case CL_DEVICE_SINGLE_FP_CONFIG:
        return answer(&fp, sizeof fp, cap, out, n_out);
    case QUERY_PCI_BUS_INFO_KHR:
        return answer(pci, sizeof pci, cap, out, n_out);
    case CL_DRIVER_VERSION:
    case CL_DEVICE_VERSION:
        break;
    default:
        return CL_INVALID_VALUE;
    }
    return answer(text, strlen(text) + 1, cap, out, n_out);
}

/* Nothing here can be opened. */
cl_context clCreateContext(const cl_context_properties *properties, cl_uint n,
                           const cl_device_id *list,
                           void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *),
                           void *user, cl_int *err)
{
    KVCL_UNUSED(properties);
    KVCL_UNUSED(n);
    KVCL_UNUSED(list);
    KVCL_UNUSED(notify);
    KVCL_UNUSED(user);
    *err = CL_DEVICE_NOT_AVAILABLE;
    return NULL;
}
