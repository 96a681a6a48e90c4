/* probe.h - what a device can do, measured once and kept: how fast its memory is, what starting an
 * operation costs.  For the planner, `kvcl plan` and `kvcl devices --probe`.
 *
 * Results are kept as small text files in the private cache folder (os.h), one for each device id;
 * they hold name, driver and detail (path, threads) of the device, and are measured anew when one
 * of these changed.  A file that is damaged, not ours or of another version counts as none. */
#ifndef KVCL_PROBE_H
#define KVCL_PROBE_H

#include "dev.h"

typedef struct kvcl_probe {
    /* read and written together: the faster of a plain copy and a sum of two arrays, each the
     * median of 5 */
    double copy_bytes_per_s;
    double launch_ns; /* of one tiny operation among 64, the wait for all of them shared; median */
    uint64_t mem_bytes, max_alloc_bytes;
    kvcl_exactness exactness;
    bool is_stored; /* it came from a file */
} kvcl_probe;

typedef enum kvcl_probe_mode {
    KVCL_PROBE_STORED, /* only from a file: without one, speeds are 0 */
    KVCL_PROBE_ONCE,   /* from a file, else measured and kept */
    KVCL_PROBE_ANEW    /* measured and kept */
} kvcl_probe_mode;

/* Cost of a measurement: up to 512 MiB of the device's memory, some tenths of a second. */
kvcl_status kvcl_probe_get(kvcl_dev *dev, kvcl_probe_mode mode, kvcl_probe *out);

#endif
