/* tier_work.c - what a codec wants besides pages, means and bases: constant tables, memory to work
 * in, a word for damaged pages.  See tier.h. */
#include "tier_int.h"

#include "mem.h"

static size_t fault_bytes(const kvcl_tier_setup *s) { return s->n_layers * sizeof(uint32_t); }

size_t kvcl_tier_work_bytes(const kvcl_tier_setup *s, const kvcl_codec_plan *p, bool there)
{
    bool remote = s->dev != s->main_dev;
    size_t n = there ? 0 : p->encode_bytes;
    if (!p->table_bytes)
        return 0;
    n += !there || remote ? p->table_bytes : 0;
    return n + (there == remote ? p->attend_bytes + fault_bytes(s) : 0);
}

kvcl_status kvcl_tier_create_work(const kvcl_tier_setup *s, kvcl_queue *main, const char *travel,
                                  kvcl_tier *t)
{
    const kvcl_codec_plan *p = &t->plan;
    kvcl_queue *q = t->queue ? t->queue : main;
    const char *what = t->queue ? travel : KVCL_USE_SCRATCH;
    void *tables;
    kvcl_status st;
    if (!p->table_bytes)
        return KVCL_OK;
    KVCL_TRY(kvcl_buf_create(s->main_dev, p->table_bytes, KVCL_USE_SCRATCH, &t->tables));
    KVCL_TRY(kvcl_buf_create(s->main_dev, p->encode_bytes, KVCL_USE_SCRATCH, &t->encode_work));
    KVCL_TRY(kvcl_buf_create(t->dev, p->attend_bytes, what, &t->attend_work));
    KVCL_TRY(kvcl_buf_create(t->dev, fault_bytes(s), what, &t->fault));
    if (t->queue)
        KVCL_TRY(kvcl_buf_create(t->dev, p->table_bytes, what, &t->tables_there));
    KVCL_TRY(kvcl_view_zero(q, kvcl_view_of(t->fault)));
    KVCL_TRY(kvcl_mem_alloc(t->dev->ctx, fault_bytes(s), "damaged pages", &tables));
    t->fault_host = tables;
    KVCL_TRY(kvcl_mem_alloc(t->dev->ctx, p->table_bytes, "a codec's tables", &tables));
    p->spec.ops->fill(p, tables);
    KVCL_TRY_GOTO(kvcl_buf_write(main, t->tables, 0, tables, p->table_bytes));
    KVCL_TRY_GOTO(kvcl_queue_wait(main));
    if (t->queue)
        KVCL_TRY_GOTO(kvcl_buf_write(q, t->tables_there, 0, tables, p->table_bytes));
    st = kvcl_queue_wait(q);
fail:
    kvcl_mem_free(t->dev->ctx, tables);
    return st;
}

kvcl_view kvcl_tier_fault(const kvcl_tier *t, uint32_t layer)
{
    if (!t->fault)
        return (kvcl_view){0};
    return (kvcl_view){t->fault, layer * sizeof(uint32_t), sizeof(uint32_t)};
}

kvcl_status kvcl_tier_check_pages(kvcl_tier *t, kvcl_queue *main)
{
    kvcl_queue *q = t->queue ? t->queue : main;
    if (!t->fault)
        return KVCL_OK;
    KVCL_TRY(kvcl_buf_read(q, t->fault, 0, t->fault_host, t->fault->bytes));
    KVCL_TRY(kvcl_queue_wait(q));
    for (uint32_t layer = 0; layer < t->n_layers; layer++) {
        uint32_t page = t->fault_host[layer];
        if (!page)
            continue;
        KVCL_TRY(kvcl_view_zero(q, kvcl_view_of(t->fault)));
        return kvcl_fail(t->dev->ctx, KVCL_E_FORMAT,
                         "layer %u, tokens %u to %u: their coded page in the %s tier is damaged "
                         "(codec %s); read the prompt again",
                         (unsigned)layer, (unsigned)(page - 1) * KVCL_PAGE_TOKENS,
                         (unsigned)page * KVCL_PAGE_TOKENS - 1, t->name, t->plan.spec.name);
    }
    return KVCL_OK;
}
