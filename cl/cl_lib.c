/* cl_lib.c - loads the OpenCL loader's library.  See cl_lib.h. */
#include "cl_lib.h"

#include "log.h"

bool kvcl_cl_lib_load(kvcl_ctx *ctx, kvcl_cl_lib *lib)
{
    memset(lib, 0, sizeof *lib);
    lib->handle = kvcl_os_lib_open(kvcl_os_opencl_names());
    if (!lib->handle) {
        kvcl_log_debug(ctx, "OpenCL: no library found (install an OpenCL loader to use GPUs)");
        return false;
    }
    /* ISO C has no cast from an object pointer to a function pointer: copy the bits */
#define KVCL_CL_RESOLVE(result, name, args)                                \
    {                                                                      \
        void *symbol = kvcl_os_lib_symbol(lib->handle, "cl" #name);        \
        if (!symbol) {                                                     \
            kvcl_log_debug(ctx, "OpenCL: the library has no cl%s", #name); \
            memset(lib, 0, sizeof *lib);                                   \
            return false;                                                  \
        }                                                                  \
        memcpy(&lib->name, &symbol, sizeof symbol);                        \
    }
    KVCL_CL_FUNCTIONS(KVCL_CL_RESOLVE)
#undef KVCL_CL_RESOLVE
    return true;
}

void kvcl_cl_lib_drop(kvcl_cl_lib *lib) { memset(lib, 0, sizeof *lib); }
