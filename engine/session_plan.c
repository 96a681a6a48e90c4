/* session_plan.c - what a session would allocate, told before; what it holds, told by the devices'
 * live counters. */
#include "session_int.h"

#include "mem.h"

#include <stdio.h>
#include <string.h>

static bool add_row(kvcl_session_plan *p, const char *device, size_t bytes, const char *what,
                    const char *codec)
{
    if (!bytes || p->n_rows == KVCL_PLAN_ROWS)
        return false;
    kvcl_plan_row *r = &p->rows[p->n_rows++];
    snprintf(r->device, sizeof r->device, "%s", device);
    snprintf(r->what, sizeof r->what, "%.40s%s%s", what, codec ? ", " : "", codec ? codec : "");
    r->bytes = bytes;
    return true;
}

static void add_disk(kvcl_session_plan *p, size_t bytes, const char *what, const char *codec)
{
    if (add_row(p, "disk", bytes, what, codec))
        p->disk_bytes += bytes;
}

static void add(kvcl_session_plan *p, const kvcl_dev *dev, size_t bytes, bool cache,
                const char *what, const char *codec)
{
    if (!add_row(p, dev->info.id, bytes, what, codec))
        return;
    p->total_bytes += bytes;
    if (cache)
        p->cache_bytes += bytes;
}

static void add_tier(kvcl_session_plan *p, const kvcl_cache_layout *l, kvcl_dev *dev, uint32_t i)
{
    const kvcl_tier *t = &l->tiers[i];
    const kvcl_tier_uses uses = kvcl_tier_name_uses(t->name);
    if (t->on_disk)
        add_disk(p, kvcl_tier_page_bytes(t), uses.pages, t->plan.spec.name);
    else
        add(p, t->dev, kvcl_tier_page_bytes(t), true, uses.pages, t->plan.spec.name);
    add(p, dev, kvcl_tier_mean_bytes(t), true, uses.means, NULL);
    add(p, dev, kvcl_tier_basis_bytes(t), true, uses.bases, NULL);
    add(p, t->dev, kvcl_tier_scratch_bytes(&l->setups[i], t, true), false, uses.travel, NULL);
}

static void add_cache(kvcl_session_plan *p, const kvcl_cache_layout *l, kvcl_dev *dev)
{
    uint32_t n = l->opt.n_tiers;
    const char *type = l->opt.type_k == KVCL_F16 ? "f16" : "f32";
    add(p, dev, kvcl_raw_pages_bytes(&l->hot), true, n ? KVCL_USE_HOT : KVCL_USE_CACHE, type);
    if (n && l->opt.n_sink)
        add(p, dev, kvcl_raw_pages_bytes(&l->sink), true, KVCL_USE_SINKS, type);
    for (uint32_t i = 0; i < n; i++)
        add_tier(p, l, dev, i);
    if (n)
        add(p, dev, kvcl_raw_pages_bytes(&l->staging), false, KVCL_USE_STAGING, type);
    add(p, dev, kvcl_cache_layout_scratch(l), false, KVCL_USE_SCRATCH, NULL);
    p->bits_per_elem =
        n ? l->tiers[n - 1].plan.bits_per_elem
          : 8.0 * (double)(l->hot.bytes_k + l->hot.bytes_v) /
                (2.0 * KVCL_PAGE_TOKENS * l->opt.shape.n_kv_heads * l->opt.shape.head_dim);
}

kvcl_status kvcl_session_plan_make(const kvcl_model *model, kvcl_dev *dev,
                                   const kvcl_session_options *opt, kvcl_session_plan *out)
{
    kvcl_session_options o = opt ? *opt : kvcl_session_defaults();
    kvcl_session_plan p;
    kvcl_cache_options cache;
    kvcl_cache_layout *l;
    kvcl_weights w;
    kvcl_dev *own = NULL;
    void *mem = NULL;
    memset(&p, 0, sizeof p);
    KVCL_TRY(kvcl_session_resolve(model, &o, &cache));
    if (!dev)
        KVCL_TRY(kvcl_device_open(model->ctx, "cpu", &own));
    dev = dev ? dev : own;
    kvcl_status st = kvcl_mem_alloc(model->ctx, sizeof *l, "a plan", &mem);
    l = mem;
    size_t rope = kvcl_session_rope_bytes(model, o.n_ctx);
    if (st == KVCL_OK)
        st = kvcl_cache_layout_make(dev, &cache, rope, l);
    if (st == KVCL_OK)
        st = kvcl_weights_describe(model, dev, &w);
    if (st == KVCL_OK) {
        p.weight_bytes = w.bytes;
        add(&p, dev, w.bytes, false, KVCL_USE_WEIGHTS, NULL);
        add_cache(&p, l, dev);
        uint32_t rows = cache.n_tiers ? o.n_ctx : o.n_batch;
        add(&p, dev, kvcl_forward_bytes(model, &w, rows, o.n_batch) + rope, false,
            KVCL_USE_ACTIVATIONS, NULL);
        kvcl_weights_free(&w);
        *out = p;
    }
    kvcl_mem_free(model->ctx, mem);
    kvcl_device_close(own);
    return st;
}

/* ---- what is held -------------------------------------------------------------------------- */

/* All counters of a device; the CPU's matrices are the mapped file's and in no counter. */
static void add_held(kvcl_session_plan *p, kvcl_dev *dev, const kvcl_weights *w)
{
    kvcl_dev_use uses[KVCL_DEV_USES];
    uint32_t n = kvcl_dev_mem_uses(dev, uses);
    bool maps = dev == w->dev && dev->info.kind == KVCL_KIND_CPU;
    for (uint32_t i = 0; i < n; i++) {
        bool weights = strcmp(uses[i].what, KVCL_USE_WEIGHTS) == 0;
        size_t mapped = maps && weights && w->vectors ? w->bytes - w->vectors->bytes : 0;
        add(p, dev, uses[i].bytes + mapped, false, uses[i].what, NULL);
    }
}

void kvcl_session_memory(const kvcl_session *s, kvcl_session_plan *out)
{
    const kvcl_cache_layout *l = kvcl_cache_get_layout(s->cache);
    kvcl_dev *dev = s->engine->dev;
    memset(out, 0, sizeof *out);
    add_held(out, dev, &s->engine->weights);
    for (uint32_t i = 0; i < l->opt.n_tiers; i++) {
        const kvcl_os_scratch *file = &l->tiers[i].file;
        add_disk(out, file->is_open ? (size_t)file->bytes : 0, file->what, NULL);
        bool told = l->tiers[i].dev == dev;
        for (uint32_t j = 0; j < i; j++)
            told = told || l->tiers[i].dev == l->tiers[j].dev;
        if (!told)
            add_held(out, l->tiers[i].dev, &s->engine->weights);
    }
    out->weight_bytes = s->engine->weights.bytes;
    out->cache_bytes = kvcl_session_cache_bytes(s);
    if (l->opt.n_tiers)
        out->bits_per_elem = l->tiers[l->opt.n_tiers - 1].plan.bits_per_elem;
}
