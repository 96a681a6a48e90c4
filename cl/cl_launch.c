/* cl_launch.c - kernel launches: remembered kernels, remembered arguments.  See cl_launch.h. */
#include "cl_launch.h"

#include "cl_defer.h"
#include "log.h"

#include <assert.h>
#include <stdio.h>

/* Launches between two clFlush: often enough that the device starts while the host enqueues on. */
#define FLUSH_EVERY 16

#define ARG_LOCAL 255

/* ---- look-up --------------------------------------------------------------------------------- */

static kvcl_cl_entry *find_entry(kvcl_cl_queue *cq, kvcl_cl_stem stem, uint32_t spec,
                                 const char *name)
{
    for (uint32_t i = 0; i < cq->n_kernels; i++) {
        kvcl_cl_entry *e = &cq->kernels[i];
        if (e->stem == stem && e->spec == spec && (e->name == name || !strcmp(e->name, name)))
            return e;
    }
    return NULL;
}

static kvcl_status new_entry(kvcl_queue *q, kvcl_cl_stem stem, uint32_t spec, const char *name,
                             kvcl_cl_entry **out)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    kvcl_cl_dev *d = cq->d;
    kvcl_ctx *ctx = d->dev->ctx;
    kvcl_cl_program program;
    cl_int err;
    KVCL_CHECK(ctx, cq->n_kernels < KVCL_CL_MAX_KERNELS, KVCL_E_UNSUPPORTED,
               "%s: more than %d kernels in use", d->dev->info.id, KVCL_CL_MAX_KERNELS);
    KVCL_TRY(kvcl_cl_program_get(d, stem, spec, &program));
    kvcl_cl_entry *e = &cq->kernels[cq->n_kernels];
    memset(e, 0, sizeof *e);
    e->kernel = d->cl.CreateKernel(program.program, name, &err);
    KVCL_CHECK(ctx, err == CL_SUCCESS, kvcl_cl_error_status(err), "%s on %s: %s (%d); %s", name,
               d->dev->info.id, kvcl_cl_error_name(err), (int)err, kvcl_cl_error_cause(err));
    err = d->cl.GetKernelWorkGroupInfo(e->kernel, d->device, CL_KERNEL_WORK_GROUP_SIZE,
                                       sizeof e->max_group, &e->max_group, NULL);
    if (err != CL_SUCCESS)
        e->max_group = d->caps.max_group;
    e->stem = stem;
    e->spec = spec;
    e->name = name;
    e->features = program.features;
    e->mem_epoch = atomic_load(&d->mem_epoch);
    cq->n_kernels++;
    *out = e;
    return KVCL_OK;
}

kvcl_status kvcl_cl_begin(kvcl_queue *q, kvcl_cl_stem stem, uint32_t spec, const char *name,
                          kvcl_cl_launch *out)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    KVCL_TRY(kvcl_cl_defer_flush(q));
    kvcl_cl_entry *e = find_entry(cq, stem, spec, name);
    if (!e)
        KVCL_TRY(new_entry(q, stem, spec, name, &e));
    uint32_t epoch = atomic_load_explicit(&cq->d->mem_epoch, memory_order_relaxed);
    if (e->mem_epoch != epoch) {
        /* a freed buffer's handle may have come back for another buffer */
        for (size_t i = 0; i < KVCL_CL_MAX_ARGS; i++)
            e->args[i].bytes = 0;
        e->mem_epoch = epoch;
    }
    *out = (kvcl_cl_launch){.q = q, .entry = e, .n_args = 0, .err = CL_SUCCESS};
    return KVCL_OK;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static void set_arg(kvcl_cl_launch *l, const void *value, uint8_t bytes)
{
    const kvcl_cl_dev *d = kvcl_cl_of(l->q)->d;
    uint32_t i = l->n_args++;
    uint64_t word = 0;
    assert(i < KVCL_CL_MAX_ARGS && bytes <= sizeof word);
    memcpy(&word, value, bytes);
    if (l->entry->args[i].bytes == bytes && l->entry->args[i].value == word)
        return;
    cl_int err = d->cl.SetKernelArg(l->entry->kernel, i, bytes, value);
    if (err == CL_SUCCESS) {
        l->entry->args[i].bytes = bytes;
        l->entry->args[i].value = word;
        return;
    }
    l->entry->args[i].bytes = 0;
    if (l->err == CL_SUCCESS)
        l->err = err;
}

void kvcl_cl_arg_buf(kvcl_cl_launch *l, const kvcl_buf *buf)
{
    cl_mem mem = buf ? buf->impl : NULL; /* NULL costs nothing at launch, a buffer does */
    set_arg(l, &mem, sizeof mem);
}

void kvcl_cl_arg_view(kvcl_cl_launch *l, kvcl_view view, size_t elem_bytes)
{
    assert(!view.buf || view.off % elem_bytes == 0);
    kvcl_cl_arg_buf(l, view.buf);
    kvcl_cl_arg_u64(l, view.buf ? view.off / elem_bytes : 0);
}

void kvcl_cl_arg_u32(kvcl_cl_launch *l, uint32_t v) { set_arg(l, &v, sizeof v); }
void kvcl_cl_arg_i32(kvcl_cl_launch *l, int32_t v) { set_arg(l, &v, sizeof v); }
void kvcl_cl_arg_u64(kvcl_cl_launch *l, uint64_t v) { set_arg(l, &v, sizeof v); }
void kvcl_cl_arg_f32(kvcl_cl_launch *l, float v) { set_arg(l, &v, sizeof v); }

void kvcl_cl_arg_local(kvcl_cl_launch *l, size_t bytes)
{
    const kvcl_cl_dev *d = kvcl_cl_of(l->q)->d;
    uint32_t i = l->n_args++;
    assert(i < KVCL_CL_MAX_ARGS);
    if (l->entry->args[i].bytes == ARG_LOCAL && l->entry->args[i].value == bytes)
        return;
    cl_int err = d->cl.SetKernelArg(l->entry->kernel, i, bytes, NULL);
    l->entry->args[i].bytes = err == CL_SUCCESS ? ARG_LOCAL : 0;
    l->entry->args[i].value = bytes;
    if (err != CL_SUCCESS && l->err == CL_SUCCESS)
        l->err = err;
}

void kvcl_cl_arg_coded(kvcl_cl_launch *l, const kvcl_attn_in *in, kvcl_view pool, kvcl_view means,
                       kvcl_view table, uint32_t n_rot, kvcl_rope_pairing pairing)
{
    kvcl_cl_arg_view(l, in->q, sizeof(float));
    kvcl_cl_arg_view(l, in->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(l, in->ml, sizeof(float));
    kvcl_cl_arg_view(l, in->o, sizeof(float));
    kvcl_cl_arg_view(l, pool, 1);
    kvcl_cl_arg_view(l, means, sizeof(float));
    kvcl_cl_arg_view(l, table, sizeof(float));
    kvcl_cl_arg_u32(l, in->n);
    kvcl_cl_arg_u32(l, in->q_stride);
    kvcl_cl_arg_u32(l, in->pos0);
    kvcl_cl_arg_u32(l, in->n_q_heads);
    kvcl_cl_arg_u32(l, in->n_kv_heads);
    kvcl_cl_arg_u32(l, in->head_dim);
    kvcl_cl_arg_u32(l, in->begin);
    kvcl_cl_arg_u32(l, in->end);
    kvcl_cl_arg_u32(l, in->first_part);
    kvcl_cl_arg_u32(l, in->n_parts);
    kvcl_cl_arg_f32(l, in->scale);
    kvcl_cl_arg_u32(l, n_rot);
    kvcl_cl_arg_u32(l, (uint32_t)pairing);
}

/* ---- enqueue --------------------------------------------------------------------------------- */

static kvcl_status fail_launch(const kvcl_cl_launch *l, cl_int err, const char *doing,
                               const size_t local[3])
{
    const kvcl_cl_dev *d = kvcl_cl_of(l->q)->d;
    char detail[96];
    if (err == CL_INVALID_WORK_GROUP_SIZE || err == CL_INVALID_WORK_ITEM_SIZE)
        snprintf(detail, sizeof detail, "group of %zux%zux%zu items, %zu allowed", local[0],
                 local[1], local[2], l->entry->max_group);
    else
        snprintf(detail, sizeof detail, "%s", kvcl_cl_error_cause(err));
    return kvcl_fail(d->dev->ctx, kvcl_cl_error_status(err), "%s on %s: %s (%d) %s; %s",
                     l->entry->name, d->dev->info.id, kvcl_cl_error_name(err), (int)err, doing,
                     detail);
}

static kvcl_status run(kvcl_cl_launch *l, cl_uint dims, const size_t global[3],
                       const size_t local[3])
{
    kvcl_cl_queue *cq = kvcl_cl_of(l->q);
    size_t rounded[3];
    if (l->err != CL_SUCCESS)
        return fail_launch(l, l->err, "setting an argument", local);
    for (cl_uint i = 0; i < dims; i++) {
        if (global[i] == 0)
            return KVCL_OK;
        rounded[i] = (global[i] + local[i] - 1) / local[i] * local[i];
    }
    cl_int err = cq->d->cl.EnqueueNDRangeKernel(cq->queue, l->entry->kernel, dims, NULL, rounded,
                                                local, 0, NULL, NULL);
    if (err != CL_SUCCESS)
        return fail_launch(l, err, "launching", local);
    if (++cq->n_unflushed >= FLUSH_EVERY) {
        cq->n_unflushed = 0;
        (void)cq->d->cl.Flush(cq->queue); /* a lost queue shows in the next wait */
    }
    return KVCL_OK;
}

kvcl_status kvcl_cl_run1(kvcl_cl_launch *l, size_t global, size_t local)
{
    return run(l, 1, (const size_t[3]){global, 1, 1}, (const size_t[3]){local, 1, 1});
}

kvcl_status kvcl_cl_run2(kvcl_cl_launch *l, size_t g0, size_t g1, size_t l0, size_t l1)
{
    return run(l, 2, (const size_t[3]){g0, g1, 1}, (const size_t[3]){l0, l1, 1});
}

kvcl_status kvcl_cl_run3(kvcl_cl_launch *l, const size_t global[3], const size_t local[3])
{
    return run(l, 3, global, local);
}
