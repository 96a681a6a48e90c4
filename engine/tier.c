/* tier.c - memory and coding of a tier.  See tier.h; attention and travel:
 * tier_attend.c; what codecs learn: tier_learn.c; files: tier_disk.c. */
#include "tier_int.h"

#include "mem.h"
#include "shared.h"
#include "types.h"

#include <stdio.h>

static size_t mean_elems(const kvcl_codec_plan *p)
{
    return (size_t)2 * p->shape.n_kv_heads * p->shape.head_dim;
}

/* ---- sizes --------------------------------------------------------------------------------- */

static kvcl_page_map one_segment(uint32_t n_pages, uint32_t n_slots)
{
    return (kvcl_page_map){
        .n_pages = n_pages, .n_slots = n_slots, .pages_per_segment = n_slots, .n_segments = 1};
}

kvcl_status kvcl_tier_init(const kvcl_tier_setup *s, kvcl_tier *out)
{
    *out = (kvcl_tier){.name = s->name,
                       .plan = s->plan,
                       .tokens = s->tokens,
                       .n_layers = s->n_layers,
                       .n_sink = s->n_sink,
                       .dev = s->dev,
                       .on_disk = s->on_disk};
    size_t page = kvcl_max_size(s->plan.pool_bytes[0], s->plan.pool_bytes[1]);
    uint32_t n = s->on_disk ? kvcl_tier_disk_bounce(&s->plan, s->n_slots) : KVCL_TIER_BOUNCE;
    out->bounce_map = one_segment(n, n);
    out->map = one_segment(s->n_pages, s->n_slots);
    if (!s->on_disk)
        KVCL_TRY(kvcl_page_map_init(s->dev, s->n_pages, s->n_slots, page, &out->map));
    return kvcl_tier_init_refresh(s, out);
}

size_t kvcl_tier_page_bytes(const kvcl_tier *t)
{
    return (size_t)t->n_layers * t->map.n_slots * t->plan.page_bytes;
}

/* Sums of all layers; where something is learned, of the layer at hand. */
static size_t sum_rows(const kvcl_tier *t)
{
    return t->plan.basis_bytes ? 1 : (size_t)t->n_layers * KVCL_TIER_SUMS;
}

size_t kvcl_tier_mean_bytes(const kvcl_tier *t)
{
    size_t rows = sum_rows(t) + (size_t)t->n_layers * kvcl_tier_n_means(&t->plan);
    return t->plan.wants_means ? rows * mean_elems(&t->plan) * sizeof(float) : 0;
}

size_t kvcl_tier_basis_bytes(const kvcl_tier *t) { return t->n_layers * kvcl_tier_layer_basis(t); }

size_t kvcl_tier_layer_basis(const kvcl_tier *t)
{
    uint32_t n = t->plan.by_block ? kvcl_div_up(t->map.n_pages, KVCL_BLOCK_PAGES) : 1;
    return n * t->plan.basis_bytes;
}

static size_t bad_bytes(const kvcl_tier *t)
{
    return (size_t)t->n_layers * t->map.n_pages * t->plan.shape.n_kv_heads * sizeof(int32_t);
}

static size_t query_bytes(const kvcl_tier_setup *s)
{
    return (size_t)s->n_queries * s->plan.shape.n_q_heads * s->plan.shape.head_dim * sizeof(float);
}

static size_t ml_bytes(const kvcl_tier_setup *s)
{
    return (size_t)s->n_queries * s->plan.shape.n_q_heads * s->n_parts * 2 * sizeof(float);
}

size_t kvcl_tier_scratch_bytes(const kvcl_tier_setup *s, const kvcl_tier *t, bool there)
{
    bool remote = s->dev != s->main_dev;
    size_t n = there == remote && !s->on_disk ? t->map.n_pages * sizeof(int32_t) : 0;
    n += kvcl_tier_work_bytes(s, &t->plan, there);
    if (!there)
        n += (t->plan.lossy ? bad_bytes(t) : 0) + kvcl_tier_learn_bytes(&t->plan) +
             kvcl_tier_refresh_bytes(t) +
             (remote || s->on_disk ? t->bounce_map.n_slots * (t->plan.page_bytes + sizeof(int32_t))
                                   : 0);
    else if (remote)
        n += s->rope.bytes + query_bytes(s) + ml_bytes(s) / 2 * (2 + s->plan.shape.head_dim) +
             (t->plan.wants_means
                  ? t->n_layers * kvcl_tier_n_means(&t->plan) * mean_elems(&t->plan) * sizeof(float)
                  : 0) +
             kvcl_tier_basis_bytes(t);
    return n;
}

kvcl_tier_uses kvcl_tier_name_uses(const char *tier)
{
    kvcl_tier_uses u;
    snprintf(u.pages, sizeof u.pages, "%s tier", tier);
    snprintf(u.means, sizeof u.means, "%s tier's means", tier);
    snprintf(u.bases, sizeof u.bases, "%s tier's bases", tier);
    snprintf(u.travel, sizeof u.travel, "%s tier's travel", tier);
    return u;
}

/* ---- life ---------------------------------------------------------------------------------- */

static kvcl_status create_pools(kvcl_tier *t, const char *what)
{
    kvcl_ctx *ctx = t->dev->ctx;
    void *p;
    uint32_t n = t->n_layers * t->map.n_segments;
    KVCL_TRY(kvcl_mem_array(ctx, (size_t)2 * n, sizeof(kvcl_buf *), what, &p));
    t->pools = p;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pages = kvcl_page_map_segment_pages(&t->map, i % t->map.n_segments);
        for (uint32_t j = 0; j < 2; j++)
            if (t->plan.pool_bytes[j])
                KVCL_TRY(kvcl_buf_create(t->dev, pages * t->plan.pool_bytes[j], what,
                                         &t->pools[2 * i + j]));
    }
    return KVCL_OK;
}

static kvcl_status create_means(kvcl_tier *t, kvcl_dev *main_dev, const char *what)
{
    size_t row = mean_elems(&t->plan) * sizeof(float);
    if (!t->plan.wants_means)
        return KVCL_OK;
    KVCL_TRY(kvcl_buf_create(main_dev, row * sum_rows(t), what, &t->sums));
    return kvcl_buf_create(main_dev, row * t->n_layers * kvcl_tier_n_means(&t->plan), what,
                           &t->means);
}

kvcl_status kvcl_tier_create(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t)
{
    bool remote = s->dev != s->main_dev;
    const kvcl_tier_uses uses = kvcl_tier_name_uses(s->name);
    void *p;
    t->rope = s->rope;
    if (remote)
        KVCL_TRY(kvcl_queue_create(t->dev, &t->queue));
    if (!t->on_disk) {
        KVCL_TRY(kvcl_page_map_create(remote ? t->queue : main,
                                      remote ? uses.travel : KVCL_USE_SCRATCH, &t->map));
        KVCL_TRY(create_pools(t, uses.pages));
    }
    KVCL_TRY(create_means(t, s->main_dev, uses.means));
    KVCL_TRY(kvcl_tier_create_learn(s, main, uses.bases, t));
    KVCL_TRY(kvcl_tier_create_refresh(s, main, t));
    KVCL_TRY(kvcl_tier_create_work(s, main, uses.travel, t));
    if (t->plan.lossy) {
        KVCL_TRY(kvcl_buf_create(s->main_dev, bad_bytes(t), KVCL_USE_SCRATCH, &t->bad));
        KVCL_TRY(kvcl_mem_alloc(t->dev->ctx, bad_bytes(t) / t->n_layers, "the coder's report", &p));
        t->bad_host = p;
    }
    if (t->on_disk)
        return kvcl_tier_create_disk(s, main, t);
    return remote ? kvcl_tier_create_remote(s, main, t) : KVCL_OK;
}

void kvcl_tier_free(kvcl_ctx *ctx, kvcl_tier *t)
{
    for (uint32_t i = 0; t->pools && i < 2 * t->n_layers * t->map.n_segments; i++)
        kvcl_buf_free(t->pools[i]);
    kvcl_mem_free(ctx, t->pools);
    kvcl_buf *all[] = {t->sums,      t->means,       t->basis,       t->gram,        t->bounce[0],
                       t->bounce[1], t->bad,         t->means_there, t->basis_there, t->rope_there,
                       t->q_there,   t->ml_there,    t->o_there,     t->tables,      t->encode_work,
                       t->fault,     t->attend_work, t->tables_there};
    for (uint32_t i = 0; i < kvcl_array_len(all); i++)
        kvcl_buf_free(all[i]);
    kvcl_tier_free_refresh(ctx, t);
    kvcl_page_map_free(ctx, &t->map);
    kvcl_page_map_free(ctx, &t->bounce_map);
    kvcl_os_scratch_close(&t->file);
    kvcl_mem_free(ctx, t->page_sums);
    kvcl_mem_free(ctx, t->host);
    kvcl_mem_free(ctx, t->bad_host);
    kvcl_mem_free(ctx, t->learn_host);
    kvcl_mem_free(ctx, t->fault_host);
    kvcl_queue_free(t->queue);
    *t = (kvcl_tier){0};
}

static kvcl_status copy_all(kvcl_queue *q, kvcl_buf *dst, const kvcl_buf *src)
{
    return dst ? kvcl_buf_copy(q, dst, 0, src, 0, src->bytes) : KVCL_OK;
}

kvcl_status kvcl_tier_copy(kvcl_tier *dst, const kvcl_tier *src, kvcl_queue *main)
{
    kvcl_queue *q = dst->queue ? dst->queue : main;
    for (uint32_t i = 0; src->pools && i < 2 * src->n_layers * src->map.n_segments; i++)
        KVCL_TRY(copy_all(q, dst->pools[i], src->pools[i]));
    if (src->on_disk)
        KVCL_TRY(kvcl_tier_disk_copy(dst, src));
    KVCL_TRY(copy_all(q, dst->means_there, src->means_there));
    KVCL_TRY(copy_all(q, dst->basis_there, src->basis_there));
    KVCL_TRY(copy_all(main, dst->basis, src->basis));
    KVCL_TRY(copy_all(main, dst->sums, src->sums));
    KVCL_TRY(copy_all(main, dst->means, src->means));
    KVCL_TRY(kvcl_tier_copy_refresh(dst, src, main));
    return q == main ? KVCL_OK : kvcl_queue_wait(q);
}

/* ---- coding -------------------------------------------------------------------------------- */

/* Entry i of a layer's part of sums or means. */
kvcl_view kvcl_tier_mean(const kvcl_tier *t, kvcl_buf *buf, uint32_t per_layer, uint32_t layer,
                         uint32_t i)
{
    size_t bytes = mean_elems(&t->plan) * sizeof(float);
    return (kvcl_view){buf, ((size_t)layer * per_layer + i) * bytes, bytes};
}

static kvcl_view sums_at(const kvcl_tier *t, uint32_t layer, uint32_t page)
{
    return kvcl_tier_mean(t, t->sums, KVCL_TIER_SUMS, layer, page % KVCL_TIER_SUMS);
}

kvcl_view kvcl_tier_means(const kvcl_tier *t, kvcl_buf *buf, uint32_t layer)
{
    uint32_t n = kvcl_tier_n_means(&t->plan);
    kvcl_view v = kvcl_tier_mean(t, buf, n, layer, 0);
    v.bytes *= n;
    return buf ? v : (kvcl_view){0};
}

kvcl_view kvcl_tier_basis(const kvcl_tier *t, kvcl_buf *buf, uint32_t layer)
{
    size_t bytes = kvcl_tier_layer_basis(t);
    return buf ? (kvcl_view){buf, layer * bytes, bytes} : (kvcl_view){0};
}

kvcl_codec_raw kvcl_tier_source(const kvcl_tier *t, const kvcl_raw_pages *src, uint32_t layer,
                                uint32_t page, uint32_t n)
{
    kvcl_raw_pool pool = kvcl_raw_pages_pool(src, layer, page);
    return (kvcl_codec_raw){.k = kvcl_view_of(t->plan.unrotated ? pool.ku : pool.k),
                            .v = kvcl_view_of(pool.v),
                            .page_table = kvcl_page_map_view(&src->map, page, n),
                            .slots = src->map.slots + page,
                            .type_k = src->type_k,
                            .type_v = src->type_v,
                            .first_page = page,
                            .n_pages = n,
                            .n_skip = page == 0 ? t->n_sink : 0};
}

kvcl_codec_pages kvcl_tier_pages(const kvcl_tier *t, uint32_t layer, uint32_t page, uint32_t n)
{
    uint32_t i = layer * t->map.n_segments + kvcl_page_map_segment(&t->map, page);
    return (kvcl_codec_pages){
        .pool = {kvcl_view_of(t->pools[2 * i]), kvcl_view_of(t->pools[2 * i + 1])},
        .table = kvcl_page_map_view(&t->map, page, n),
        .slots = t->map.slots + page,
        .means = kvcl_tier_means(t, t->means_there ? t->means_there : t->means, layer),
        .rope = t->rope,
        .basis = kvcl_tier_basis(t, t->basis_there ? t->basis_there : t->basis, layer),
        .tables = kvcl_view_of(t->tables_there ? t->tables_there : t->tables),
        .work = kvcl_view_of(t->attend_work),
        .fault = kvcl_tier_fault(t, layer)};
}

kvcl_view kvcl_tier_bad(const kvcl_tier *t, uint32_t layer, uint32_t page, uint32_t n)
{
    size_t row = t->plan.shape.n_kv_heads * sizeof(int32_t);
    if (!t->bad)
        return (kvcl_view){0};
    return (kvcl_view){t->bad, ((size_t)layer * t->map.n_pages + page) * row, n * row};
}

kvcl_status kvcl_tier_add_rows(const kvcl_tier *t, kvcl_queue *q, const kvcl_codec_raw *raw,
                               kvcl_view sums)
{
    return kvcl_op_kv_sum(q, &(kvcl_kv_sum_args){.k = raw->k,
                                                 .v = raw->v,
                                                 .page_table = raw->page_table,
                                                 .sums = sums,
                                                 .n_pages = raw->n_pages,
                                                 .n_skip = raw->n_skip,
                                                 .n_kv_heads = t->plan.shape.n_kv_heads,
                                                 .head_dim = t->plan.shape.head_dim,
                                                 .type_k = raw->type_k,
                                                 .type_v = raw->type_v});
}

/* Adds pages [begin, end), all of one segment of src, to the sums kept under page begin - 1; the
 * result is kept under end - 1, and what was there before the last page under end - 2. */
static kvcl_status add_sums(const kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                            const kvcl_tier_rows *rows, uint32_t begin, uint32_t end)
{
    for (uint32_t page = begin, n; page < end; page += n) {
        n = kvcl_max_u32(1, end - page - kvcl_min_u32(end - page, KVCL_TIER_SUMS - 1));
        kvcl_view to = sums_at(t, layer, page + n - 1), from = sums_at(t, layer, page - 1);
        kvcl_codec_raw raw = kvcl_tier_source(t, rows->pages, rows->layer, page, n);
        if (to.off != from.off)
            KVCL_TRY(kvcl_buf_copy(q, to.buf, to.off, from.buf, from.off, to.bytes));
        KVCL_TRY(kvcl_tier_add_rows(t, q, &raw, to));
    }
    return KVCL_OK;
}

/* Means of the epoch that begins with `page`, from the sums of the pages before it (of page 0
 * itself for the first). */
static kvcl_status make_means(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t page)
{
    uint32_t epoch = kvcl_mean_epoch(page / KVCL_BLOCK_PAGES);
    uint32_t n_tokens = kvcl_max_u32(page, 1) * KVCL_PAGE_TOKENS - t->n_sink;
    kvcl_view mean = kvcl_tier_mean(t, t->means, KVCL_MEAN_EPOCHS, layer, epoch);
    KVCL_TRY(kvcl_op_kv_mean(q, &(kvcl_kv_mean_args){.sums = sums_at(t, layer, page ? page - 1 : 0),
                                                     .mean = mean,
                                                     .n = (uint32_t)mean_elems(&t->plan),
                                                     .factor = 1.0f / (float)n_tokens}));
    return t->means_there ? kvcl_tier_send(t, q, mean, t->means_there) : KVCL_OK;
}

static bool starts_epoch(uint32_t page)
{
    uint32_t block = page / KVCL_BLOCK_PAGES;
    return page % KVCL_BLOCK_PAGES == 0 &&
           (block == 0 || kvcl_mean_epoch(block) != kvcl_mean_epoch(block - 1));
}

/* Page 0's sums start from nothing. */
static kvcl_status first_sums(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                              const kvcl_tier_rows *rows)
{
    kvcl_view before = sums_at(t, layer, KVCL_TIER_SUMS - 1);
    KVCL_TRY(kvcl_view_zero(q, before));
    kvcl_view to = sums_at(t, layer, 0);
    kvcl_codec_raw raw = kvcl_tier_source(t, rows->pages, rows->layer, 0, 1);
    KVCL_TRY(kvcl_buf_copy(q, to.buf, to.off, before.buf, before.off, to.bytes));
    return kvcl_tier_add_rows(t, q, &raw, to);
}

/* Means that the run of n pages from `page` on needs; returns through n how many of them one epoch
 * covers. */
static kvcl_status follow_means(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                const kvcl_tier_rows *rows, uint32_t page, uint32_t *n)
{
    if (page == 0)
        KVCL_TRY(first_sums(t, q, layer, rows));
    if (starts_epoch(page))
        KVCL_TRY(make_means(t, q, layer, page));
    for (uint32_t i = 1; i < *n; i++)
        if (starts_epoch(page + i))
            *n = i;
    return add_sums(t, q, layer, rows, kvcl_max_u32(page, 1), page + *n);
}

kvcl_status kvcl_tier_encode_pages(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                   const kvcl_tier_rows *rows, uint32_t begin, uint32_t end)
{
    for (uint32_t page = begin, n; page < end; page += n) {
        n = kvcl_page_map_run(&rows->pages->map, page, end);
        n = kvcl_page_map_run(&t->map, page, page + n);
        if (t->plan.wants_means && !t->plan.basis_bytes)
            KVCL_TRY(follow_means(t, q, layer, rows, page, &n));
        kvcl_codec_raw raw = kvcl_tier_source(t, rows->pages, rows->layer, page, n);
        if (t->queue || t->on_disk) {
            KVCL_TRY(kvcl_tier_encode_bounced(t, q, layer, &raw));
        } else {
            kvcl_codec_pages out = kvcl_tier_pages(t, layer, page, n);
            out.bad = kvcl_tier_bad(t, layer, page, n);
            out.work = kvcl_view_of(t->encode_work);
            KVCL_TRY(t->plan.spec.ops->encode(q, &t->plan, &raw, &out));
        }
    }
    return KVCL_OK;
}

kvcl_status kvcl_tier_encode(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                             const kvcl_tier_rows *rows, uint32_t begin, uint32_t end)
{
    if (t->plan.basis_bytes && begin == 0 && end > 0) {
        kvcl_tier_rows first = *rows;
        if (t->plan.spec.first)
            first.n_learn = kvcl_min_u32(first.n_learn, t->plan.spec.first / KVCL_PAGE_TOKENS);
        KVCL_TRY(kvcl_tier_learn(t, q, layer, &first));
        KVCL_TRY(kvcl_tier_note_learned(t, q, layer, &first));
    }
    KVCL_TRY(kvcl_tier_encode_pages(t, q, layer, rows, begin, end));
    return kvcl_tier_follow(t, q, layer, rows, begin, end);
}

kvcl_status kvcl_tier_check(kvcl_tier *t, kvcl_queue *q, uint32_t begin, uint32_t end)
{
    uint32_t heads = t->plan.shape.n_kv_heads;
    for (uint32_t layer = 0; t->bad && begin < end && layer < t->n_layers; layer++) {
        kvcl_view v = kvcl_tier_bad(t, layer, begin, end - begin);
        KVCL_TRY(kvcl_buf_read(q, v.buf, v.off, t->bad_host, v.bytes));
        KVCL_TRY(kvcl_queue_wait(q));
        for (uint32_t i = 0; i < (end - begin) * heads; i++)
            KVCL_CHECK(
                t->dev->ctx, t->bad_host[i] == KVCL_PAGE_TOKENS, KVCL_E_NOT_FINITE,
                "layer %u, token %u: a key or value is not finite, or too large for codec "
                "%s; its page is refused (try --cache exact, or f32 rows with -ctk, -ctv)",
                (unsigned)layer,
                (unsigned)((begin + i / heads) * KVCL_PAGE_TOKENS + (uint32_t)t->bad_host[i]),
                t->plan.spec.name);
    }
    return KVCL_OK;
}
