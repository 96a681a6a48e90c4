/* tier_learn.c - what a codec learns of a layer before its first page is coded: one mean for all
 * pages and a basis, from moments of the exact rows.  See tier.h, ops_fit.h.
 *
 * The rows are those of the prompt (of the first pages of the hot window where nothing was read at
 * once), so what is learned depends on the tokens alone, not on devices or on how a prompt was
 * cut. */
#include "tier_int.h"

#include "mem.h"
#include "shared.h"
#include "spectral_fit.h"

/* ---- memory -------------------------------------------------------------------------------- */

static size_t metric_elems(const kvcl_codec_plan *p)
{
    return (size_t)p->shape.n_kv_heads * p->shape.head_dim * p->shape.head_dim;
}

static size_t gram_elems(const kvcl_codec_plan *p)
{
    return 2 * p->spec.fold * metric_elems(p) * kvcl_codec_join(p);
}

/* Bytes of a row of the rotation table; rows of distances below this one are kept. */
#define SPAN_MAX 8192u
static size_t span_row_bytes(const kvcl_codec_plan *p)
{
    return p->shape.pairing == KVCL_ROPE_NONE ? 0 : p->shape.n_rot * sizeof(float);
}

static float *metric_of(const kvcl_tier *t)
{
    return (float *)t->learn_host + gram_elems(&t->plan);
}

static float *table_of(const kvcl_tier *t) { return metric_of(t) + metric_elems(&t->plan); }

static void *basis_of(const kvcl_tier *t)
{
    size_t n = t->n_span ? KVCL_SPECTRAL_DISTANCES : 0;
    return (unsigned char *)table_of(t) + n * span_row_bytes(&t->plan);
}

size_t kvcl_tier_learn_bytes(const kvcl_codec_plan *p)
{
    return p->basis_bytes ? gram_elems(p) * sizeof(float) : 0;
}

kvcl_status kvcl_tier_create_learn(const kvcl_tier_setup *s, kvcl_queue *main, const char *what,
                                   kvcl_tier *t)
{
    void *p;
    size_t gram_bytes = kvcl_tier_learn_bytes(&t->plan), row = span_row_bytes(&t->plan);
    if (!t->plan.basis_bytes)
        return KVCL_OK;
    KVCL_TRY(kvcl_buf_create(s->main_dev, kvcl_tier_basis_bytes(t), what, &t->basis));
    KVCL_TRY(kvcl_buf_create(s->main_dev, gram_bytes, KVCL_USE_SCRATCH, &t->gram));
    t->n_span = row ? (uint32_t)kvcl_min_size(SPAN_MAX, s->rope.bytes / row) : 0;
    KVCL_TRY(kvcl_mem_alloc_undefined(s->main_dev->ctx,
                                      gram_bytes + metric_elems(&t->plan) * sizeof(float) +
                                          KVCL_SPECTRAL_DISTANCES * row + kvcl_tier_layer_basis(t),
                                      "moments of rows", &p));
    t->learn_host = p;
    unsigned char *to = (unsigned char *)table_of(t);
    for (double power = KVCL_SPECTRAL_FIRST; power < t->n_span; to += row) {
        uint32_t times, distance = kvcl_spectral_distance(&power, &times);
        KVCL_TRY(kvcl_buf_read(main, s->rope.buf, s->rope.off + distance * row, to, row));
    }
    return kvcl_queue_wait(main);
}

/* ---- moments ------------------------------------------------------------------------------- */

typedef kvcl_status run_fn(const kvcl_tier *t, kvcl_queue *q, const kvcl_codec_raw *raw,
                           kvcl_view mean_or_sums);

/* f for each run of pages [page, end) that lie in one segment. */
static kvcl_status each_run(kvcl_tier *t, kvcl_queue *q, const kvcl_tier_rows *rows, uint32_t page,
                            uint32_t end, kvcl_view v, run_fn *f)
{
    for (uint32_t n; page < end; page += n) {
        n = kvcl_page_map_run(&rows->pages->map, page, end);
        kvcl_codec_raw raw = kvcl_tier_source(t, rows->pages, rows->layer, page, n);
        KVCL_TRY(f(t, q, &raw, v));
    }
    return KVCL_OK;
}

static kvcl_status add_to_gram(const kvcl_tier *t, kvcl_queue *q, const kvcl_codec_raw *raw,
                               kvcl_view mean)
{
    const kvcl_codec_plan *p = &t->plan;
    uint32_t join = kvcl_codec_join(p);
    return kvcl_op_gram_pages(q,
                              &(kvcl_gram_pages_args){.k = raw->k,
                                                      .v = raw->v,
                                                      .page_table = raw->page_table,
                                                      .mean = mean,
                                                      .gram = kvcl_view_of(t->gram),
                                                      .n_tokens = raw->n_pages * KVCL_PAGE_TOKENS,
                                                      .n_skip = raw->n_skip,
                                                      .fold = p->spec.fold,
                                                      .join = join,
                                                      .n_kv_heads = p->shape.n_kv_heads / join,
                                                      .head_dim = p->shape.head_dim * join,
                                                      .type_k = raw->type_k,
                                                      .type_v = raw->type_v});
}

/* The mean of all rows; 0 where each block has a basis of its own. */
static kvcl_status make_mean(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                             const kvcl_tier_rows *rows, kvcl_view *out)
{
    kvcl_view sums = kvcl_view_of(t->sums);
    kvcl_view mean = kvcl_tier_mean(t, t->means, kvcl_tier_n_means(&t->plan), layer, 0);
    uint32_t from = rows->learn_from, n_sink = from ? 0 : t->n_sink;
    uint32_t n_tokens = (rows->n_learn - from) * KVCL_PAGE_TOKENS - n_sink;
    float factor = t->plan.by_block ? 0.0f : 1.0f / (float)n_tokens;
    KVCL_TRY(kvcl_view_zero(q, sums));
    if (!t->plan.by_block)
        KVCL_TRY(each_run(t, q, rows, from, rows->n_learn, sums, kvcl_tier_add_rows));
    KVCL_TRY(kvcl_op_kv_mean(q, &(kvcl_kv_mean_args){.sums = sums,
                                                     .mean = mean,
                                                     .n = (uint32_t)(mean.bytes / sizeof(float)),
                                                     .factor = factor}));
    for (uint32_t i = 1; i < kvcl_tier_n_means(&t->plan); i++)
        KVCL_TRY(
            kvcl_buf_copy(q, mean.buf, mean.off + i * mean.bytes, mean.buf, mean.off, mean.bytes));
    *out = mean;
    return KVCL_OK;
}

/* ---- learning ------------------------------------------------------------------------------ */

/* Moments of rows that are all alike, where the true ones are no numbers: coding the pages then
 * finds the token that is at fault. */
static kvcl_status learn_nothing(kvcl_tier *t, kvcl_queue *q, kvcl_view mean, void *out)
{
    const kvcl_codec_plan *p = &t->plan;
    uint32_t D = p->shape.head_dim * kvcl_codec_join(p);
    float *gram = t->learn_host;
    kvcl_codec_moments m = {.gram = gram, .n_slots = 1};
    for (size_t i = 0; i < gram_elems(p); i++)
        gram[i] = i % ((size_t)D * D) % (D + 1) == 0 ? 1.0f : 0.0f;
    KVCL_TRY(kvcl_view_zero(q, mean));
    return p->spec.ops->learn(t->dev->ctx, p, &m, out);
}

/* Moments of pages [begin, end) to t->learn_host, from there the basis to `out` on the host. */
static kvcl_status learn_basis(kvcl_tier *t, kvcl_queue *q, const kvcl_tier_rows *rows,
                               uint32_t begin, uint32_t end, kvcl_view mean, void *out)
{
    const kvcl_codec_plan *p = &t->plan;
    kvcl_view gram = kvcl_view_of(t->gram);
    float *metric = metric_of(t);
    kvcl_codec_moments m = {.gram = t->learn_host};
    /* distances that the rows have among them, whatever the context has room for */
    m.n_span = kvcl_min_u32(t->n_span, rows->n_learn * KVCL_PAGE_TOKENS);
    m.table = t->n_span ? table_of(t) : NULL;
    KVCL_TRY(kvcl_view_zero(q, gram));
    KVCL_TRY(each_run(t, q, rows, begin, end, mean, add_to_gram));
    KVCL_TRY(kvcl_buf_read(q, gram.buf, 0, t->learn_host, gram.bytes));
    if (rows->metric.buf) {
        KVCL_TRY(kvcl_buf_read(q, rows->metric.buf, rows->metric.off, metric, rows->metric.bytes));
        m.metric = metric;
    }
    KVCL_TRY(kvcl_queue_wait(q));
    m.n_slots =
        kvcl_gram_slots(begin ? 0 : t->n_sink, (end - begin) * KVCL_PAGE_TOKENS, p->spec.fold);
    kvcl_status st = p->spec.ops->learn(t->dev->ctx, p, &m, out);
    return st == KVCL_E_NOT_FINITE ? learn_nothing(t, q, mean, out) : st;
}

/* A basis from each block's own rows; blocks to come get that of the last one. */
static kvcl_status learn_blocks(kvcl_tier *t, kvcl_queue *q, const kvcl_tier_rows *rows,
                                kvcl_view mean, void *out)
{
    size_t each = t->plan.basis_bytes;
    unsigned char *to = out, *end = to + kvcl_tier_layer_basis(t);
    for (uint32_t page = 0; page < rows->n_learn; page += KVCL_BLOCK_PAGES, to += each)
        KVCL_TRY(learn_basis(t, q, rows, page, kvcl_min_u32(page + KVCL_BLOCK_PAGES, rows->n_learn),
                             mean, to));
    for (; to < end; to += each)
        memcpy(to, to - each, each);
    return KVCL_OK;
}

kvcl_status kvcl_tier_learn(kvcl_tier *t, kvcl_queue *q, uint32_t layer, const kvcl_tier_rows *rows)
{
    kvcl_view mean, basis = kvcl_tier_basis(t, t->basis, layer);
    void *out = basis_of(t);
    KVCL_TRY(make_mean(t, q, layer, rows, &mean));
    if (t->plan.by_block)
        KVCL_TRY(learn_blocks(t, q, rows, mean, out));
    else
        KVCL_TRY(learn_basis(t, q, rows, rows->learn_from, rows->n_learn, mean, out));
    KVCL_TRY(kvcl_buf_write(q, basis.buf, basis.off, out, basis.bytes));
    if (!t->queue)
        return kvcl_queue_wait(q); /* `out` is written again for the next layer */
    KVCL_TRY(kvcl_tier_send(t, q, kvcl_tier_means(t, t->means, layer), t->means_there));
    return kvcl_tier_send(t, q, basis, t->basis_there);
}
