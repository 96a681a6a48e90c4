/* engine.c - a model's weights on one device. */
#include "engine_int.h"

#include "log.h"
#include "mem.h"

kvcl_status kvcl_engine_create(kvcl_model *model, kvcl_dev *dev, kvcl_engine **out)
{
    void *p;
    kvcl_status st;
    if (!model || !dev || !out)
        return KVCL_E_ARG;
    KVCL_CHECK(model->ctx, model->ctx == dev->ctx, KVCL_E_ARG,
               "engine_create: model and device belong to different contexts");
    KVCL_TRY(kvcl_mem_alloc(model->ctx, sizeof(kvcl_engine), "the engine", &p));
    kvcl_engine *e = p;
    e->model = model;
    e->dev = dev;
    KVCL_TRY_GOTO(kvcl_queue_create(dev, &e->queue));
    KVCL_TRY_GOTO(kvcl_weights_create(model, e->queue, &e->weights));
    kvcl_log_info(model->ctx, "%s: %.1f MiB of weights on %s", model->gguf.path,
                  (double)e->weights.bytes / 1048576.0, dev->info.id);
    *out = e;
    return KVCL_OK;
fail:
    kvcl_engine_free(e);
    return st;
}

void kvcl_engine_free(kvcl_engine *e)
{
    if (!e)
        return;
    kvcl_weights_free(&e->weights);
    kvcl_queue_free(e->queue);
    kvcl_mem_free(e->model->ctx, e);
}

uint64_t kvcl_engine_weight_bytes_per_token(const kvcl_engine *e)
{
    return e->weights.bytes_per_token;
}
