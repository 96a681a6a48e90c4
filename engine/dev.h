/* dev.h - what a backend provides: memory, order, and one function per compute operation.
 *
 * The contract that holds for every compute op on every backend:
 *
 *  1. Arguments are already valid: kvcl_op_<name>() in ops_<group>.c checks shapes, types, bounds
 * and aliasing.  Backends only assert.
 *  2. The call enqueues and copies its arguments block (what it points to must stay until
 *     queue_wait).  Its status covers enqueueing; a fault while running surfaces at queue_wait.
 *  3. No allocation.  Scratch is an argument, sized by the op's _scratch_bytes function.
 *  4. Reads only inside the views given, writes only the `out` views, and no byte beyond.
 *  5. Bit-identical to the scalar twin on every exact device, for every batch, thread and
 * work-group size.
 *  6. Empty sizes succeed and write nothing.
 *  7. Unsupported types or sizes are refused in ops_<group>.c, so all backends refuse the same. */
#ifndef KVCL_DEV_H
#define KVCL_DEV_H

#include "base.h"
#include "ops_code.h"
#include "ops_fit.h"
#include "ops_holo.h"
#include "ops_kv.h"
#include "ops_model.h"
#include "ops_pack.h"
#include "ops_rest.h"
#include "ops_spectral.h"
#include "ops_svd.h"

#include <stdatomic.h>

typedef enum kvcl_op_id {
#define KVCL_OP(name, group, stem) KVCL_OP_ID_##name,
#include "ops.def"
#undef KVCL_OP
    KVCL_N_OPS
} kvcl_op_id;

/* "matvec" */
const char *kvcl_op_name(kvcl_op_id id);

/* A table is complete: no slot is NULL once open() has returned. */
typedef struct kvcl_dev_ops {
    /* memory: blocking; host pointers are borrowed for the call.  buf_free(NULL) is fine; the
     * queues must be idle on buf.  Offsets and sizes in bytes.  New buffers hold undefined bytes.
     */
    kvcl_status (*buf_create)(kvcl_dev *dev, size_t bytes, kvcl_buf **out);
    void (*buf_free)(kvcl_dev *dev, kvcl_buf *buf);
    kvcl_status (*buf_write)(kvcl_queue *q, kvcl_buf *dst, size_t off, const void *src, size_t n);
    kvcl_status (*buf_read)(kvcl_queue *q, const kvcl_buf *src, size_t off, void *dst, size_t n);
    kvcl_status (*buf_copy)(kvcl_queue *q, kvcl_buf *dst, size_t dst_off, const kvcl_buf *src,
                            size_t src_off, size_t n);

    /* A weight matrix in the layout this device likes, from GGUF rows in host memory.  The CPU
     * keeps `rows_data` and copies nothing (the caller lets it outlive the matrix); OpenCL borrows
     * it. Split into parts where the device's allocation limit asks for it. */
    kvcl_status (*mat_create)(kvcl_queue *q, kvcl_type type, uint32_t rows, uint32_t cols,
                              const void *rows_data, kvcl_mat **out);
    void (*mat_free)(kvcl_dev *dev, kvcl_mat *mat);

    /* Bytes of scratch that matmul wants for n rows of x and this matrix. */
    size_t (*matmul_scratch_bytes)(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w);

    /* order: queues run in order and belong to one thread at a time.  queue_wait() runs everything
     * enqueued, returns, then clears, the first execution error since the last wait. */
    kvcl_status (*queue_create)(kvcl_dev *dev, kvcl_queue **out);
    void (*queue_free)(kvcl_queue *q);
    kvcl_status (*queue_wait)(kvcl_queue *q);

    /* compute */
#define KVCL_OP(name, group, stem) kvcl_status (*name)(kvcl_queue * q, const kvcl_##name##_args *a);
#include "ops.def"
#undef KVCL_OP
} kvcl_dev_ops;

/* What a device's buffers are for: live counters by the names that kvcl_buf_create() was given,
 * which are those of a plan's rows (session_plan.c). */
#define KVCL_DEV_USES 32
#define KVCL_USE_WEIGHTS "weights"
#define KVCL_USE_CACHE "cache" /* raw, without tiers */
#define KVCL_USE_HOT "hot tier"
#define KVCL_USE_SINKS "sinks"
#define KVCL_USE_STAGING "staging of a prompt"
#define KVCL_USE_SCRATCH "attention scratch"
#define KVCL_USE_ACTIVATIONS "activations"
typedef struct kvcl_dev_use {
    char what[40];
    size_t bytes;
} kvcl_dev_use;

struct kvcl_dev {
    kvcl_ctx *ctx;
    const struct kvcl_backend *backend;
    kvcl_dev_ops ops;
    kvcl_device_info info;
    atomic_size_t bytes_used; /* of all buffers and matrices; bounded by KVCL_MEM_LIMIT */
    atomic_flag uses_busy;    /* taken while one of the next two is looked at */
    uint32_t n_uses;
    kvcl_dev_use uses[KVCL_DEV_USES]; /* the last one counts all that found no place */
    void *impl;                       /* the backend's */
};

struct kvcl_queue {
    kvcl_dev *dev;
    void *impl;
};

struct kvcl_buf {
    kvcl_dev *dev;
    size_t bytes;
    uint32_t use; /* in dev->uses */
    void *impl;   /* cpu: the memory; opencl: cl_mem */
};

#define KVCL_MAT_PARTS 64

/* rows x cols weights; part i holds rows [i * rows_per_part, ...). */
struct kvcl_mat {
    kvcl_dev *dev;
    kvcl_type type;
    uint32_t rows, cols;
    uint32_t n_parts, rows_per_part;
    size_t bytes; /* allocated on the device; on the CPU, mapped */
    kvcl_buf *part[KVCL_MAT_PARTS];
    void *impl;
};

/* A backend: a list of devices and a way to open one. */
typedef struct kvcl_backend {
    const char *name;
    /* Appends its devices to out[*n_out ...]; stops storing at cap but counts on.  Never fails for
     * a platform that is broken or empty: that one is logged and left out. */
    kvcl_status (*list)(kvcl_ctx *ctx, kvcl_device_info *out, size_t cap, size_t *n_out);
    /* dev->info names one of list()'s devices.  Fills dev->ops and dev->impl, runs the self-test,
     * sets dev->info.exactness and .detail.  On error leaves nothing behind. */
    kvcl_status (*open)(kvcl_dev *dev);
    void (*close)(kvcl_dev *dev); /* accepts a half-opened device */
} kvcl_backend;

extern const kvcl_backend kvcl_cpu_backend;
extern const kvcl_backend kvcl_cl_backend; /* absent when built with KVCL_OPENCL=OFF */

/* Counts device memory against KVCL_MEM_LIMIT, E_DEVICE_MEM with a sentence naming `what`, and
 * under that name; *use_out is what to give it back with. */
kvcl_status kvcl_dev_mem_take(kvcl_dev *dev, size_t bytes, const char *what, uint32_t *use_out);
void kvcl_dev_mem_give(kvcl_dev *dev, size_t bytes, uint32_t use);
/* The counters, as they are now; names whose bytes are all given back stay, with 0.  Returns how
 * many. */
uint32_t kvcl_dev_mem_uses(kvcl_dev *dev, kvcl_dev_use out[KVCL_DEV_USES]);

/* The self-test every backend runs when a device is opened: kvcl_op_selftest() on `q`, hashed and
 * compared with the golden hash.  *exact_out says whether they agree. */
kvcl_status kvcl_dev_selftest(kvcl_queue *q, bool *exact_out);

/* Shorthands over the table. */
kvcl_status kvcl_buf_create(kvcl_dev *dev, size_t bytes, const char *what, kvcl_buf **out);
void kvcl_buf_free(kvcl_buf *buf);
kvcl_status kvcl_buf_write(kvcl_queue *q, kvcl_buf *dst, size_t off, const void *src, size_t n);
kvcl_status kvcl_buf_read(kvcl_queue *q, const kvcl_buf *src, size_t off, void *dst, size_t n);
kvcl_status kvcl_buf_copy(kvcl_queue *q, kvcl_buf *dst, size_t dst_off, const kvcl_buf *src,
                          size_t src_off, size_t n);
kvcl_status kvcl_mat_create(kvcl_queue *q, kvcl_type type, uint32_t rows, uint32_t cols,
                            const void *rows_data, kvcl_mat **out);
void kvcl_mat_free(kvcl_mat *mat);
kvcl_status kvcl_queue_create(kvcl_dev *dev, kvcl_queue **out);
void kvcl_queue_free(kvcl_queue *q);
kvcl_status kvcl_queue_wait(kvcl_queue *q);

/* The only validation of compute arguments; then the table call. */
#define KVCL_OP(name, group, stem) \
    kvcl_status kvcl_op_##name(kvcl_queue *q, const kvcl_##name##_args *a);
#include "ops.def"
#undef KVCL_OP

#endif
