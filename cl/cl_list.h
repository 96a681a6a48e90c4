/* cl_list.h - the OpenCL devices of this machine. */
#ifndef KVCL_CL_LIST_H
#define KVCL_CL_LIST_H

#include "cl_caps.h"

typedef struct kvcl_cl_found {
    cl_platform_id platform;
    cl_device_id device;
    uint32_t number; /* counts the devices of one implementation: "opencl:<impl>:<number>" */
    bool hidden;     /* another entry is the same GPU under a better driver */
    kvcl_cl_caps caps;
} kvcl_cl_found;

typedef struct kvcl_cl_set {
    size_t n, cap;
    kvcl_cl_found *found;
} kvcl_cl_set;

/* All devices of all platforms that answer, in platform order; duplicates are marked hidden.  A
 * platform that fails or has no device is logged at debug level and left out. */
kvcl_status kvcl_cl_enumerate(kvcl_ctx *ctx, const kvcl_cl_lib *cl, kvcl_cl_set *out);
void kvcl_cl_set_free(kvcl_ctx *ctx, kvcl_cl_set *set);

/* What the program shows of a device. */
void kvcl_cl_describe(const kvcl_cl_found *f, kvcl_device_info *out);

#endif
