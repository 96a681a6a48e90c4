/* cache_layout.c - how much of what a cache allocates, and the figures it reports.  See cache.h. */
#include "cache_int.h"

#include "types.h"

#include <stdio.h>
#include <string.h>

/* Partials of a prompt are made for as many queries at once as fit here. */
#define PARTIALS_BYTES ((size_t)4 << 20)

static uint32_t pages_of(uint32_t tokens) { return kvcl_div_up(tokens, KVCL_PAGE_TOKENS); }

static bool any_lossy(const kvcl_cache_layout *l)
{
    bool lossy = false;
    for (uint32_t i = 0; i < l->opt.n_tiers; i++)
        lossy |= l->setups[i].plan.lossy;
    return lossy;
}

uint32_t kvcl_cache_layout_metric(const kvcl_cache_layout *l, uint32_t tokens)
{
    uint32_t i = 0;
    while (i < l->n_metrics && l->metric_tokens[i] != tokens)
        i++;
    return i;
}

static void add_metrics(kvcl_cache_layout *l)
{
    const kvcl_kv_shape *s = &l->opt.shape;
    l->metric_bytes = (size_t)s->n_kv_heads * s->head_dim * s->head_dim * sizeof(float);
    for (uint32_t i = 0; i < l->opt.n_tiers; i++) {
        uint32_t tokens = kvcl_codec_learn_tokens(&l->setups[i].plan);
        if (tokens && kvcl_cache_layout_metric(l, tokens) == l->n_metrics)
            l->metric_tokens[l->n_metrics++] = tokens;
    }
}

bool kvcl_cache_layout_serves(const kvcl_cache_layout *from, const kvcl_cache_layout *to)
{
    const kvcl_cache_options *a = &from->opt, *b = &to->opt;
    if (a->type_k != b->type_k || a->type_v != b->type_v || a->n_ctx != b->n_ctx ||
        (to->hot.has_ku && !from->staging.has_ku))
        return false;
    for (uint32_t i = 0; i < to->n_metrics; i++)
        if (kvcl_cache_layout_metric(from, to->metric_tokens[i]) == from->n_metrics)
            return false;
    return true;
}

static bool drops(const kvcl_cache_options *o)
{
    return o->drop_oldest && o->n_tiers && o->tiers[o->n_tiers - 1].tokens;
}

uint32_t kvcl_cache_dropped(const kvcl_cache_layout *l, uint32_t raw_begin)
{
    uint32_t keep = 0;
    for (uint32_t i = 0; i < l->opt.n_tiers; i++)
        keep += l->opt.tiers[i].tokens;
    bool some = drops(&l->opt) && raw_begin > keep;
    return some ? (raw_begin - keep) / KVCL_PAGE_TOKENS * KVCL_PAGE_TOKENS : 0;
}

static kvcl_status check(kvcl_ctx *ctx, const kvcl_cache_options *o)
{
    KVCL_CHECK(ctx, o->n_sink <= KVCL_PAGE_TOKENS / 2, KVCL_E_ARG,
               "%u sink tokens: 32 are the most", (unsigned)o->n_sink);
    for (uint32_t i = 0; i < o->n_tiers; i++) {
        bool last = i + 1 == o->n_tiers;
        KVCL_CHECK(ctx, last || o->tiers[i].tokens, KVCL_E_ARG,
                   "tier %u has no capacity; only the last one may hold all that is left",
                   (unsigned)i + 1);
        uint64_t below = (uint64_t)o->n_hot + (o->n_tiers > 1 ? o->tiers[0].tokens : 0);
        KVCL_CHECK(ctx, !drops(o) || !o->tiers[i].codec.again, KVCL_E_UNSUPPORTED,
                   "codec %s learns anew from all pages, and with --drop-oldest some are gone; "
                   "leave out one of the two",
                   o->tiers[i].codec.name);
        KVCL_CHECK(ctx,
                   !last || !o->tiers[i].tokens || o->drop_oldest ||
                       below + o->tiers[i].tokens >= o->n_ctx,
                   KVCL_E_ARG,
                   "the tiers hold %llu tokens, the context %u; give the last tier no number, or "
                   "at least %llu, or drop what does not fit with --drop-oldest",
                   (unsigned long long)(below + o->tiers[i].tokens), (unsigned)o->n_ctx,
                   (unsigned long long)(o->n_ctx - below));
    }
    return KVCL_OK;
}

static uint32_t parts_needed(const kvcl_cache_layout *l)
{
    uint32_t blocks = kvcl_div_up(l->n_pages, KVCL_BLOCK_PAGES);
    /* each further region may share its first block with its neighbour's last */
    return blocks + (l->opt.n_tiers ? 1 + l->opt.n_tiers : 0);
}

/* Slots of a tier: the last, unless it drops some, holds every page that can leave the hot window;
 * others the pages that their tokens may touch, one that is coded ahead, one to rewind. */
static uint32_t tier_slots(const kvcl_cache_layout *l, uint32_t i)
{
    uint32_t hot = l->opt.n_hot, all = l->opt.n_ctx > hot ? pages_of(l->opt.n_ctx - hot) : 1;
    uint32_t tokens = l->opt.tiers[i].tokens;
    bool last = i + 1 == l->opt.n_tiers;
    return last && !drops(&l->opt) ? all : kvcl_min_u32(all, pages_of(tokens) + 4);
}

static kvcl_status make_tier(kvcl_cache_layout *l, kvcl_dev *dev, uint32_t i, size_t rope_bytes)
{
    static const char *const two[] = {"warm", "cold"};
    const kvcl_cache_tier *o = &l->opt.tiers[i];
    kvcl_tier_setup *s = &l->setups[i];
    s->name = l->opt.n_tiers == 1 ? "cold" : two[i];
    s->main_dev = dev;
    s->dev = o->dev ? o->dev : dev;
    s->on_disk = o->on_disk;
    s->dir = l->opt.tier_dir;
    s->tokens = o->tokens;
    s->n_layers = l->opt.n_layers;
    s->n_slots = tier_slots(l, i);
    s->n_pages = kvcl_max_u32(l->n_pages, s->n_slots);
    s->n_queries = l->n_queries;
    s->n_parts = l->n_parts;
    s->rope.bytes = rope_bytes;
    s->type_k = l->opt.type_k;
    s->type_v = l->opt.type_v;
    return kvcl_tier_init(s, &l->tiers[i]);
}

static kvcl_status make_raw(kvcl_cache_layout *l, kvcl_dev *dev)
{
    const kvcl_cache_options *o = &l->opt;
    size_t elems = (size_t)o->shape.n_kv_heads * o->shape.head_dim * KVCL_PAGE_TOKENS;
    bool ku = false;
    for (uint32_t i = 0; i < o->n_tiers; i++)
        ku |= l->setups[i].plan.unrotated;
    uint32_t ring = kvcl_min_u32(l->n_pages, o->n_hot / KVCL_PAGE_TOKENS + 1);
    KVCL_TRY(kvcl_raw_pages_init(dev, o->n_layers, l->n_pages, o->n_tiers ? ring : l->n_pages,
                                 elems, o->type_k, o->type_v, ku, &l->hot));
    if (!o->n_tiers)
        return KVCL_OK;
    if (o->n_sink)
        KVCL_TRY(kvcl_raw_pages_init(dev, o->n_layers, 1, 1, elems, o->type_k, o->type_v, false,
                                     &l->sink));
    return kvcl_raw_pages_init(dev, 1, l->n_pages, l->n_pages, elems, o->type_k, o->type_v, ku,
                               &l->staging);
}

kvcl_status kvcl_cache_layout_make(kvcl_dev *dev, const kvcl_cache_options *opt, size_t rope_bytes,
                                   kvcl_cache_layout *out)
{
    kvcl_cache_layout l = {.opt = *opt};
    KVCL_TRY(check(dev->ctx, opt));
    l.n_pages = pages_of(opt->n_ctx);
    l.opt.n_hot = kvcl_max_u32(1, pages_of(opt->n_hot)) * KVCL_PAGE_TOKENS;
    for (uint32_t i = 0; i < opt->n_tiers; i++)
        KVCL_TRY(
            kvcl_codec_plan_make(dev->ctx, &opt->tiers[i].codec, &opt->shape, &l.setups[i].plan));
    if (!any_lossy(&l) && !drops(opt))
        l.opt.n_sink = 0;
    for (uint32_t i = 0; i < opt->n_tiers; i++)
        l.setups[i].n_sink = l.opt.n_sink;
    l.n_parts = parts_needed(&l);
    size_t per_query = (size_t)opt->shape.n_q_heads * l.n_parts * sizeof(float);
    size_t fits = PARTIALS_BYTES / (per_query * (opt->shape.head_dim + 2));
    l.n_queries = kvcl_max_u32(1, (uint32_t)kvcl_min_size(fits, opt->n_batch));
    l.ml_bytes = l.n_queries * per_query * 2;
    l.o_bytes = l.n_queries * per_query * opt->shape.head_dim;
    add_metrics(&l);
    for (uint32_t i = 0; i < opt->n_tiers; i++)
        KVCL_TRY(make_tier(&l, dev, i, rope_bytes));
    KVCL_TRY(make_raw(&l, dev));
    *out = l;
    return KVCL_OK;
}

static size_t table_bytes(const kvcl_raw_pages *r) { return r->map.n_pages * sizeof(int32_t); }

size_t kvcl_cache_layout_scratch(const kvcl_cache_layout *l)
{
    size_t n = l->ml_bytes + l->o_bytes + table_bytes(&l->hot) + table_bytes(&l->sink) +
               table_bytes(&l->staging) + l->n_metrics * l->metric_bytes;
    for (uint32_t i = 0; i < l->opt.n_tiers; i++)
        n += kvcl_tier_scratch_bytes(&l->setups[i], &l->tiers[i], false);
    return n;
}

/* ---- figures ------------------------------------------------------------------------------- */

static void raw_stats(const kvcl_cache *c, uint32_t n_tokens, kvcl_tier_stats *t)
{
    const kvcl_raw_pages *hot = &c->l.hot;
    size_t slots = (size_t)hot->n_layers * hot->map.n_slots;
    snprintf(t->tier, sizeof t->tier, "hot");
    snprintf(t->device, sizeof t->device, "%s", c->dev->info.id);
    snprintf(t->codec, sizeof t->codec, "%s",
             hot->type_k != hot->type_v ? "raw"
             : hot->type_k == KVCL_F16  ? "f16"
                                        : "f32");
    t->n_tokens = n_tokens;
    t->capacity = hot->map.n_slots * KVCL_PAGE_TOKENS;
    t->bytes = kvcl_raw_pages_bytes(hot);
    t->part_name[0] = "keys", t->part_bytes[0] = slots * hot->bytes_k;
    t->part_name[1] = "values", t->part_bytes[1] = slots * hot->bytes_v;
    if (hot->has_ku)
        t->part_name[2] = "keys before rotation", t->part_bytes[2] = slots * hot->bytes_k;
    double elems = 2.0 * KVCL_PAGE_TOKENS * c->l.opt.shape.n_kv_heads * c->l.opt.shape.head_dim;
    t->bits_per_elem = 8.0 * (double)(hot->bytes_k + hot->bytes_v) / elems;
}

static void tier_stats(const kvcl_cache *c, uint32_t i, uint32_t n_tokens, kvcl_tier_stats *out)
{
    const kvcl_tier *t = &c->l.tiers[i];
    size_t slots = (size_t)t->n_layers * t->map.n_slots;
    snprintf(out->tier, sizeof out->tier, "%s", t->name);
    snprintf(out->device, sizeof out->device, "%s", t->on_disk ? "disk" : t->dev->info.id);
    out->on_disk = t->on_disk;
    snprintf(out->codec, sizeof out->codec, "%s", t->plan.spec.name);
    out->n_tokens = n_tokens;
    out->capacity = t->map.n_slots * KVCL_PAGE_TOKENS;
    out->bytes = kvcl_tier_page_bytes(t);
    for (uint32_t p = 0; p < KVCL_CODEC_PARTS; p++) {
        out->part_name[p] = t->plan.part_name[p];
        out->part_bytes[p] = slots * t->plan.part_bytes[p];
    }
    out->bits_per_elem = t->plan.bits_per_elem;
    for (uint32_t layer = 0; t->drift && layer < t->n_layers; layer++) {
        out->n_refreshes += t->drift[layer].n_refreshes;
        out->error_learned += t->drift[layer].usual / t->n_layers;
        out->error_now += t->drift[layer].now / t->n_layers;
    }
}

void kvcl_cache_stats_get(const kvcl_cache *c, kvcl_cache_stats *out)
{
    const kvcl_cache_layout *l = &c->l;
    memset(out, 0, sizeof *out);
    uint32_t n = c->n_tokens, hot = l->opt.n_tiers ? kvcl_min_u32(n, l->opt.n_hot) : n;
    uint32_t left = n - hot, sink = kvcl_min_u32(l->opt.n_sink, left);
    uint32_t behind = kvcl_cache_dropped(l, left);
    out->n_dropped = behind > sink ? behind - sink : 0;
    double row = 2.0 * l->opt.shape.n_kv_heads * l->opt.shape.head_dim * l->opt.n_layers;
    out->n_tiers = 1 + l->opt.n_tiers;
    raw_stats(c, hot, &out->tiers[0]);
    double raw_bits = out->tiers[0].bits_per_elem, coded = 0.0, means = 0.0;
    uint32_t n_coded = left - sink - out->n_dropped;
    left -= out->n_dropped;
    for (uint32_t i = 0; i < l->opt.n_tiers; i++) {
        uint32_t holds = i + 1 == l->opt.n_tiers
                             ? left - sink
                             : kvcl_min_u32(left - sink, l->opt.tiers[i].tokens);
        tier_stats(c, i, holds, &out->tiers[1 + i]);
        coded += holds * out->tiers[1 + i].bits_per_elem * row;
        out->mean_bytes += kvcl_tier_mean_bytes(&l->tiers[i]);
        out->basis_bytes += kvcl_tier_basis_bytes(&l->tiers[i]);
        left -= holds;
    }
    out->sink_bytes = l->opt.n_sink && l->opt.n_tiers ? kvcl_raw_pages_bytes(&l->sink) : 0;
    out->staging_bytes = l->opt.n_tiers ? kvcl_raw_pages_bytes(&l->staging) : 0;
    out->scratch_bytes = kvcl_cache_layout_scratch(l);
    for (uint32_t i = 0; i < l->opt.n_tiers; i++)
        out->scratch_bytes += kvcl_tier_scratch_bytes(&l->setups[i], &l->tiers[i], true);
    means = 8.0 * (double)(out->mean_bytes + out->basis_bytes);
    out->total_bytes = out->sink_bytes + out->mean_bytes + out->basis_bytes + out->staging_bytes +
                       out->scratch_bytes;
    for (uint32_t i = 0; i < out->n_tiers; i++)
        *(out->tiers[i].on_disk ? &out->disk_bytes : &out->total_bytes) += out->tiers[i].bytes;
    double raw = (hot + sink) * raw_bits * row;
    out->read_bytes = (uint64_t)((raw + coded) / 8.0);
    if (n_coded)
        out->bits_per_elem = (coded + means) / (n_coded * row);
    if (n)
        out->bits_per_elem_all = (raw + coded + means) / (n * row);
}
