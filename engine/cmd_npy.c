/* cmd_npy.c - see cmd_npy.h. */
#include "cmd_npy.h"

#include <stdio.h>

/* Magic, version, length, and a Python literal padded to 64 bytes. */
kvcl_status kvcl_npy_header(kvcl_os_out *f, const size_t *dims, size_t n_dims)
{
    const uint16_t one = 1;
    unsigned char little;
    char shape[KVCL_NPY_DIMS * 24], text[KVCL_NPY_DIMS * 24 + 128];
    size_t m = 0;
    memcpy(&little, &one, 1);
    for (size_t i = 0; i < n_dims && i < KVCL_NPY_DIMS; i++)
        m += (size_t)snprintf(shape + m, sizeof shape - m, "%zu, ", dims[i]);
    int n =
        snprintf(text, sizeof text, "{'descr': '%cf4', 'fortran_order': False, 'shape': (%.*s), }",
                 little ? '<' : '>', (int)(m - (n_dims > 1 ? 2 : 1)), shape);
    size_t len = kvcl_align_up(10 + (size_t)n + 1, 64) - 10;
    memset(text + n, ' ', len - (size_t)n);
    text[len - 1] = '\n';
    const unsigned char head[10] = {0x93, 'N', 'U', 'M',        'P',
                                    'Y',  1,   0,   len & 0xff, (unsigned char)(len >> 8)};
    KVCL_TRY(kvcl_os_out_write(f, head, sizeof head));
    return kvcl_os_out_write(f, text, len);
}

kvcl_status kvcl_npy_write(kvcl_ctx *ctx, const char *path, const float *values, const size_t *dims,
                           size_t n_dims)
{
    kvcl_os_out *f;
    size_t n = sizeof(float);
    for (size_t i = 0; i < n_dims; i++)
        n *= dims[i];
    KVCL_TRY(kvcl_os_out_create(ctx, path, &f));
    kvcl_status st = kvcl_npy_header(f, dims, n_dims);
    if (st == KVCL_OK)
        st = kvcl_os_out_write(f, values, n);
    if (st != KVCL_OK) {
        kvcl_os_out_abort(f);
        return st;
    }
    return kvcl_os_out_commit(f);
}
