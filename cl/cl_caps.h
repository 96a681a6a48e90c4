/* cl_caps.h - what one OpenCL device can do, asked once. */
#ifndef KVCL_CL_CAPS_H
#define KVCL_CL_CAPS_H

#include "cl_lib.h"

/* The implementation behind a platform: drivers differ more than chips do.  X(enum, id) */
#define KVCL_CL_IMPLS(X)    \
    X(NVIDIA, "nvidia")     \
    X(AMD, "amd")           \
    X(INTEL, "intel")       \
    X(APPLE, "apple")       \
    X(QUALCOMM, "adreno")   \
    X(ARM, "mali")          \
    X(RUSTICL, "rusticl")   \
    X(CLOVER, "clover")     \
    X(POCL, "pocl")         \
    X(OCLGRIND, "oclgrind") \
    X(OTHER, "other")

typedef enum kvcl_cl_impl {
#define KVCL_CL_IMPL_ENUM(name, id) KVCL_CL_##name,
    KVCL_CL_IMPLS(KVCL_CL_IMPL_ENUM)
#undef KVCL_CL_IMPL_ENUM
} kvcl_cl_impl;

/* Optional features, which kernels may use only inside #if: bits of kvcl_cl_caps.features.
 *
 * KVCL_CL_CAPS in the environment masks them, for tests: words between commas or slashes; in it a
 * feature's name keeps it ("base": none), "+name" claims one that the device does not have, and
 * "lane" or "vector" chooses the kernels' shape. */
typedef enum kvcl_cl_feature {
    KVCL_CL_PTX = 1u << 0,       /* NVIDIA inline assembly: dp4a, shfl.sync */
    KVCL_CL_SUBGROUPS = 1u << 1, /* cl_khr_subgroups or cl_intel_subgroups */
    KVCL_CL_X86 = 1u << 2        /* clang's names for instructions of x86 */
} kvcl_cl_feature;

typedef struct kvcl_cl_caps {
    kvcl_cl_impl impl;
    cl_device_type type;
    bool vector_shape; /* a CPU: one work-item does a vector's work; else the lane shape */
    bool full_profile; /* rounds to nearest even */
    bool fast_fma;     /* CL_FP_FMA: in hardware, not emulated */
    bool unified_memory;
    bool little_endian;
    uint32_t features; /* kvcl_cl_feature */
    uint32_t address_bits;
    uint32_t n_units;
    uint32_t cc_major, cc_minor; /* NVIDIA compute capability, else 0 */
    size_t max_group;            /* work-items in a group */
    size_t max_group_dim[3];
    size_t align_bytes; /* of a buffer's start */
    uint64_t local_bytes;
    uint64_t mem_bytes;
    uint64_t max_alloc_bytes; /* lowered by KVCL_CL_MAX_ALLOC */
    char device_name[128];
    char device_version[128];
    char driver_version[128];
    char platform_name[128];
    char platform_version[128];
    bool has_pci, has_uuid;
    uint32_t pci[4]; /* domain, bus, device, function */
    uint8_t uuid[16];
} kvcl_cl_caps;

const char *kvcl_cl_impl_name(kvcl_cl_impl impl);

/* Fills `out`.  E_DEVICE when the device does not answer the questions every device must; E_ARG
 * when KVCL_CL_CAPS or KVCL_CL_MAX_ALLOC cannot be understood. */
kvcl_status kvcl_cl_caps_query(kvcl_ctx *ctx, const kvcl_cl_lib *cl, cl_platform_id platform,
                               cl_device_id device, kvcl_cl_caps *out);

#endif
