/* cl_dev.c - OpenCL devices: opening, buffers, queues; fills the table of dev.h.
 *
 * One context per opened device, one in-order queue per kvcl_queue.  No events: they cost time, and
 * drivers slow down when many are alive. */
#include "cl_defer.h"
#include "cl_list.h"
#include "ctx.h"
#include "log.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>

static double mib(uint64_t bytes) { return (double)bytes / 1048576.0; }

/* ---- errors ---------------------------------------------------------------------------------- */

/* OUT_OF_RESOURCES (-5) says "no memory" where buffers are created or filled. */
static kvcl_status memory_status(cl_int err)
{
    return err == CL_OUT_OF_RESOURCES ? KVCL_E_DEVICE_MEM : kvcl_cl_error_status(err);
}

kvcl_status kvcl_cl_stick(kvcl_queue *q, cl_int err, const char *doing)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    if (err == CL_SUCCESS)
        return KVCL_OK;
    kvcl_status st = kvcl_cl_error_status(err);
    (void)kvcl_fail(q->dev->ctx, st, "%s: %s (%d) while %s; %s", q->dev->info.id,
                    kvcl_cl_error_name(err), (int)err, doing, kvcl_cl_error_cause(err));
    if (cq->sticky == KVCL_OK) {
        cq->sticky = st;
        snprintf(cq->sentence, sizeof cq->sentence, "%s", kvcl_last_error(q->dev->ctx));
    }
    return st;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static kvcl_status cl_buf_create(kvcl_dev *dev, size_t bytes, kvcl_buf **out)
{
    kvcl_cl_dev *d = dev->impl;
    void *p;
    cl_int err = CL_SUCCESS;
    KVCL_CHECK(dev->ctx, bytes <= d->caps.max_alloc_bytes, KVCL_E_DEVICE_MEM,
               "%s: a buffer of %.1f MiB asked, %.1f MiB is the most this device gives in one "
               "piece; use a smaller context (-c) or batch (-b)",
               dev->info.id, mib(bytes), mib(d->caps.max_alloc_bytes));
    KVCL_TRY(kvcl_mem_alloc(dev->ctx, sizeof(kvcl_cl_buf), "a buffer", &p));
    kvcl_buf *b = p;
    b->dev = dev;
    b->bytes = bytes;
    b->impl = d->cl.CreateBuffer(d->context, CL_MEM_READ_WRITE, bytes ? bytes : 16, NULL, &err);
    if (err != CL_SUCCESS || !b->impl) {
        kvcl_mem_free(dev->ctx, p);
        return kvcl_fail(dev->ctx, memory_status(err),
                         "%s: %s (%d) for a buffer of %.1f MiB; %.1f of %.1f MiB in use, %.1f MiB "
                         "allowed in one piece; use a smaller model, context (-c) or batch",
                         dev->info.id, kvcl_cl_error_name(err), (int)err, mib(bytes),
                         mib(atomic_load(&dev->bytes_used)), mib(d->caps.mem_bytes),
                         mib(d->caps.max_alloc_bytes));
    }
    *out = b;
    return KVCL_OK;
}

static void cl_buf_free(kvcl_dev *dev, kvcl_buf *buf)
{
    kvcl_cl_dev *d = dev->impl;
    if (!buf)
        return;
    d->cl.ReleaseMemObject(buf->impl);
    atomic_fetch_add(&d->mem_epoch, 1);
    kvcl_mem_free(dev->ctx, buf);
}

/* Drivers that allocate at first touch tell of a full device here. */
static kvcl_status transfer_failed(kvcl_queue *q, cl_int err, const char *doing, size_t n)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    if (memory_status(err) != KVCL_E_DEVICE_MEM || err == CL_OUT_OF_RESOURCES)
        return kvcl_cl_stick(q, err, doing);
    return kvcl_fail(q->dev->ctx, KVCL_E_DEVICE_MEM,
                     "%s: %s (%d) while %s %zu bytes; %.1f of %.1f MiB in use; use a smaller "
                     "model, context (-c) or batch",
                     q->dev->info.id, kvcl_cl_error_name(err), (int)err, doing, n,
                     mib(atomic_load(&q->dev->bytes_used)), mib(cq->d->caps.mem_bytes));
}

static kvcl_status cl_buf_write(kvcl_queue *q, kvcl_buf *dst, size_t off, const void *src, size_t n)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    KVCL_TRY(kvcl_cl_defer_flush(q));
    cl_int err =
        cq->d->cl.EnqueueWriteBuffer(cq->queue, dst->impl, CL_TRUE, off, n, src, 0, NULL, NULL);
    cq->n_unflushed = 0;
    return err == CL_SUCCESS ? KVCL_OK : transfer_failed(q, err, "writing", n);
}

static kvcl_status cl_buf_read(kvcl_queue *q, const kvcl_buf *src, size_t off, void *dst, size_t n)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    KVCL_TRY(kvcl_cl_defer_flush(q));
    cl_int err =
        cq->d->cl.EnqueueReadBuffer(cq->queue, src->impl, CL_TRUE, off, n, dst, 0, NULL, NULL);
    cq->n_unflushed = 0;
    return err == CL_SUCCESS ? KVCL_OK : transfer_failed(q, err, "reading", n);
}

static kvcl_status cl_buf_copy(kvcl_queue *q, kvcl_buf *dst, size_t dst_off, const kvcl_buf *src,
                               size_t src_off, size_t n)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    KVCL_TRY(kvcl_cl_defer_flush(q));
    cl_int err = cq->d->cl.EnqueueCopyBuffer(cq->queue, src->impl, dst->impl, src_off, dst_off, n,
                                             0, NULL, NULL);
    if (err == CL_SUCCESS)
        err = cq->d->cl.Finish(cq->queue);
    cq->n_unflushed = 0;
    return err == CL_SUCCESS ? KVCL_OK : transfer_failed(q, err, "copying", n);
}

/* ---- order ----------------------------------------------------------------------------------- */

static kvcl_status cl_queue_create(kvcl_dev *dev, kvcl_queue **out)
{
    kvcl_cl_dev *d = dev->impl;
    void *p;
    cl_int err;
    KVCL_TRY(kvcl_mem_alloc(dev->ctx, sizeof(kvcl_queue) + sizeof(kvcl_cl_queue), "a queue", &p));
    kvcl_queue *q = p;
    kvcl_cl_queue *cq = (kvcl_cl_queue *)(q + 1);
    cq->queue = d->cl.CreateCommandQueue(d->context, d->device, 0, &err);
    if (err != CL_SUCCESS) {
        kvcl_mem_free(dev->ctx, p);
        return kvcl_fail(dev->ctx, kvcl_cl_error_status(err), "%s: no queue: %s (%d); %s",
                         dev->info.id, kvcl_cl_error_name(err), (int)err, kvcl_cl_error_cause(err));
    }
    cq->d = d;
    q->dev = dev;
    q->impl = cq;
    *out = q;
    return KVCL_OK;
}

static void cl_queue_free(kvcl_queue *q)
{
    if (!q)
        return;
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    kvcl_cl_dev *d = cq->d;
    (void)d->cl.Finish(cq->queue);
    kvcl_cl_defer_free(q);
    for (uint32_t i = 0; i < cq->n_kernels; i++)
        d->cl.ReleaseKernel(cq->kernels[i].kernel);
    d->cl.ReleaseCommandQueue(cq->queue);
    kvcl_mem_free(q->dev->ctx, q);
}

static kvcl_status cl_queue_wait(kvcl_queue *q)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    kvcl_status st = kvcl_cl_defer_flush(q);
    cl_int err = cq->d->cl.Finish(cq->queue);
    if (st == KVCL_OK)
        st = kvcl_cl_stick(q, err, "waiting for the device");
    cq->n_unflushed = 0;
    if (cq->sticky != KVCL_OK) {
        st = kvcl_fail(q->dev->ctx, cq->sticky, "%s", cq->sentence);
        cq->sticky = KVCL_OK;
    }
    return st;
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static const kvcl_dev_ops cl_table = {
    .buf_create = cl_buf_create,
    .buf_free = cl_buf_free,
    .buf_write = cl_buf_write,
    .buf_read = cl_buf_read,
    .buf_copy = cl_buf_copy,
    .mat_create = kvcl_cl_mat_create,
    .mat_free = kvcl_cl_mat_free,
    .matmul_scratch_bytes = kvcl_cl_matmul_scratch_bytes,
    .queue_create = cl_queue_create,
    .queue_free = cl_queue_free,
    .queue_wait = cl_queue_wait,
#define KVCL_OP(name, group, stem) .name = kvcl_cl_##name,
#include "ops.def"
#undef KVCL_OP
};

static kvcl_status cl_list(kvcl_ctx *ctx, kvcl_device_info *out, size_t cap, size_t *n_out)
{
    kvcl_cl_lib cl;
    kvcl_cl_set set;
    if (!kvcl_cl_lib_load(ctx, &cl))
        return KVCL_OK;
    kvcl_status st = kvcl_cl_enumerate(ctx, &cl, &set);
    if (st == KVCL_OK) {
        for (size_t i = 0; i < set.n; i++) {
            if (set.found[i].hidden)
                continue;
            if (*n_out < cap)
                kvcl_cl_describe(&set.found[i], &out[*n_out]);
            (*n_out)++;
        }
        kvcl_cl_set_free(ctx, &set);
    }
    kvcl_cl_lib_drop(&cl);
    return st;
}

/* The device that dev->info.id names, and what it can do. */
static kvcl_status find_device(kvcl_dev *dev, kvcl_cl_dev *d)
{
    kvcl_cl_set set;
    kvcl_device_info info;
    bool found = false;
    KVCL_TRY(kvcl_cl_enumerate(dev->ctx, &d->cl, &set));
    for (size_t i = 0; i < set.n && !found; i++) {
        kvcl_cl_describe(&set.found[i], &info);
        found = strcmp(info.id, dev->info.id) == 0;
        if (!found)
            continue;
        d->platform = set.found[i].platform;
        d->device = set.found[i].device;
        d->caps = set.found[i].caps;
    }
    kvcl_cl_set_free(dev->ctx, &set);
    KVCL_CHECK(dev->ctx, found, KVCL_E_NO_DEVICE, "no OpenCL device '%s'; see `kvcl devices`",
               dev->info.id);
    return KVCL_OK;
}

static kvcl_status make_context(kvcl_cl_dev *d)
{
    kvcl_ctx *ctx = d->dev->ctx;
    const char *id = d->dev->info.id;
    cl_int err;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM,
                                                (cl_context_properties)d->platform, 0};
    KVCL_CHECK(ctx, d->caps.little_endian, KVCL_E_UNSUPPORTED,
               "%s is big-endian; take another device (--device)", id);
    d->context = d->cl.CreateContext(properties, 1, &d->device, NULL, NULL, &err);
    KVCL_CHECK(ctx, err == CL_SUCCESS, kvcl_cl_error_status(err), "%s: no context: %s (%d); %s", id,
               kvcl_cl_error_name(err), (int)err, kvcl_cl_error_cause(err));
    return KVCL_OK;
}

/* Runs the self-test and says which class of exactness the device has. */
static kvcl_status classify(kvcl_dev *dev)
{
    const kvcl_cl_dev *d = dev->impl;
    const char *skip = getenv("KVCL_SELFTEST");
    kvcl_queue *q = NULL;
    bool exact = false;
    if (skip && strcmp(skip, "0") == 0)
        return KVCL_OK;
    KVCL_TRY(cl_queue_create(dev, &q));
    kvcl_status st = kvcl_dev_selftest(q, &exact);
    cl_queue_free(q);
    if (st != KVCL_OK)
        return st;
    if (!d->caps.full_profile || !exact)
        dev->info.exactness = KVCL_FAST_ONLY;
    else
        dev->info.exactness = d->caps.fast_fma ? KVCL_EXACT : KVCL_EXACT_SLOW;
    KVCL_CHECK(dev->ctx, dev->info.exactness != KVCL_FAST_ONLY || dev->ctx->allow_inexact,
               KVCL_E_UNSUPPORTED,
               "%s (%s, driver %s) %s; --allow-inexact uses it nevertheless, --device cpu does not "
               "need it",
               dev->info.id, dev->info.name, dev->info.driver,
               exact ? "has OpenCL's embedded profile, which may round otherwise"
                     : "computed other bits than the definition in its self-test");
    return KVCL_OK;
}

static void cl_close(kvcl_dev *dev)
{
    kvcl_cl_dev *d = dev->impl;
    if (!d)
        return;
    kvcl_cl_blas_free(d);
    kvcl_cl_programs_free(d);
    if (d->context)
        d->cl.ReleaseContext(d->context);
    kvcl_cl_lib_drop(&d->cl);
    kvcl_mem_free(dev->ctx, d);
    dev->impl = NULL;
}

static kvcl_status cl_open(kvcl_dev *dev)
{
    void *p;
    kvcl_status st;
    KVCL_TRY(kvcl_mem_alloc(dev->ctx, sizeof(kvcl_cl_dev), "an OpenCL device", &p));
    kvcl_cl_dev *d = dev->impl = p;
    d->dev = dev;
    atomic_init(&d->mem_epoch, 0);
    atomic_init(&d->defer_owner, 0);
    atomic_flag_clear(&d->build_lock);
    KVCL_CHECK_GOTO(dev->ctx, kvcl_cl_lib_load(dev->ctx, &d->cl), KVCL_E_NO_DEVICE,
                    "%s: no OpenCL library; install an OpenCL loader, or use --device cpu",
                    dev->info.id);
    KVCL_TRY_GOTO(find_device(dev, d));
    KVCL_TRY_GOTO(make_context(d));
    dev->ops = cl_table;
    KVCL_TRY_GOTO(classify(dev));
    return KVCL_OK;
fail:
    cl_close(dev);
    return st;
}

const kvcl_backend kvcl_cl_backend = {
    .name = "opencl", .list = cl_list, .open = cl_open, .close = cl_close};
