/* cmd_npy.h - arrays of f32 for NumPy, in its format 1.0; reading of 1.0 to 3.0. */
#ifndef KVCL_CMD_NPY_H
#define KVCL_CMD_NPY_H

#include "os.h"

#define KVCL_NPY_DIMS 4

/* The header of a C-ordered array in the host's byte order; the values follow.  1 <= n_dims. */
kvcl_status kvcl_npy_header(kvcl_os_out *f, const size_t *dims, size_t n_dims);
/* A whole file. */
kvcl_status kvcl_npy_write(kvcl_ctx *ctx, const char *path, const float *values, const size_t *dims,
                           size_t n_dims);

typedef struct kvcl_npy_array {
    size_t dims[KVCL_NPY_DIMS], n_dims;
    float *values; /* free with kvcl_mem_free */
} kvcl_npy_array;

/* A file of f2, f4 or f8 (rounded to f32) in C order.  E_FORMAT and E_VERSION when it is damaged,
 * E_UNSUPPORTED when it holds something else. */
kvcl_status kvcl_npy_read(kvcl_ctx *ctx, const char *path, kvcl_npy_array *out);

#endif
