/* roofline.h - how fast this machine's memory is read: the measure for decode, which reads all
 * weights once per token. */
#ifndef KVCL_ROOFLINE_H
#define KVCL_ROOFLINE_H

#include "dev.h"

/* Bytes per second that n_threads read from host memory: the best of n_sweeps over 1 GiB (less on
 * small machines, never less than 16 MiB). */
kvcl_status kvcl_roofline_read(kvcl_ctx *ctx, uint32_t n_threads, uint32_t n_sweeps,
                               double *bytes_per_s);
/* Bytes per second, read and written together, of a copy inside the device's memory: the best of
 * n_sweeps. */
kvcl_status kvcl_roofline_copy(kvcl_dev *dev, uint32_t n_sweeps, double *bytes_per_s);

#endif
