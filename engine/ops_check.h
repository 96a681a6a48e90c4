/* ops_check.h - the checks that both groups of operations share.  Included by ops_*.c alone. */
#ifndef KVCL_OPS_CHECK_H
#define KVCL_OPS_CHECK_H

#include "dev.h"

#define KVCL_MAX_COLS 65536u

/* A view of at least n elements of `size` bytes, inside its buffer, on this device, aligned to its
 * element. */
kvcl_status kvcl_check_view(const kvcl_queue *q, const char *op, const char *what, kvcl_view v,
                            uint64_t n, size_t size);
/* n rows of `dim` f32 elements, `stride` apart. */
kvcl_status kvcl_check_rows(const kvcl_queue *q, const char *op, const char *what, kvcl_view v,
                            uint32_t n, uint32_t dim, uint32_t stride);
kvcl_status kvcl_check_mat(const kvcl_queue *q, const char *op, const kvcl_mat *w);
kvcl_status kvcl_check_norm(const kvcl_queue *q, const char *op, const kvcl_norm_spec *spec,
                            uint32_t dim);
/* E_ARG when the views share a byte. */
kvcl_status kvcl_check_apart(const kvcl_queue *q, const char *op, kvcl_view a, kvcl_view b);
/* E_ARG when they share a byte but are not the same place. */
kvcl_status kvcl_check_same_or_apart(const kvcl_queue *q, const char *op, kvcl_view a, kvcl_view b);

#endif
