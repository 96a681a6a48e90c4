/* tier_refresh.c - bases that follow the text: how far pages come back from their codes is measured
 * while they are coded, and where it gets worse than when the basis was learned, a layer learns
 * anew and codes its pages again.  See tier.h.
 *
 * Measured is every second page, on the host in doubles: what is decided depends on
 * rows and codes alone, which are the same on every device.  Older pages have only their codes
 * left, so a new basis is learned from decoded rows and those are rounded twice; that happens at
 * most once for each doubling of the tokens. */
#include "tier_int.h"

#include "f16.h"
#include "mem.h"

#define MEASURED 2u /* of so many pages one is measured: the last of them */
#define RECENT 4.0  /* pages that the mean error of new ones looks back on, about */

static size_t metric_bytes(const kvcl_codec_plan *p)
{
    return (size_t)p->shape.n_kv_heads * p->shape.head_dim * p->shape.head_dim * sizeof(float);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* One slot that every page of the sequence comes to. */
static kvcl_status init_echo(const kvcl_tier_setup *s, kvcl_raw_pages *out)
{
    const kvcl_kv_shape *sh = &s->plan.shape;
    size_t elems = (size_t)sh->n_kv_heads * sh->head_dim * KVCL_PAGE_TOKENS;
    return kvcl_raw_pages_init(s->main_dev, 1, s->n_pages, 1, elems, s->type_k, s->type_v, false,
                               out);
}

kvcl_status kvcl_tier_init_refresh(const kvcl_tier_setup *s, kvcl_tier *t)
{
    return s->plan.spec.again ? init_echo(s, &t->echo) : KVCL_OK;
}

size_t kvcl_tier_refresh_bytes(const kvcl_tier *t)
{
    if (!t->plan.spec.again)
        return 0;
    return kvcl_raw_pages_bytes(&t->echo) + t->echo.map.n_pages * sizeof(int32_t) +
           t->n_layers * metric_bytes(&t->plan);
}

kvcl_status kvcl_tier_create_refresh(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t)
{
    void *p;
    if (!t->plan.spec.again)
        return KVCL_OK;
    KVCL_TRY(kvcl_raw_pages_create(main, KVCL_USE_SCRATCH, &t->echo));
    KVCL_TRY(kvcl_buf_create(s->main_dev, t->n_layers * metric_bytes(&t->plan), KVCL_USE_SCRATCH,
                             &t->kept));
    KVCL_TRY(kvcl_mem_array(t->dev->ctx, t->n_layers, sizeof *t->drift, "errors of layers", &p));
    t->drift = p;
    KVCL_TRY(kvcl_mem_alloc(t->dev->ctx, 2 * kvcl_max_size(t->echo.bytes_k, t->echo.bytes_v),
                            "a page and its echo", &p));
    t->echo_host = p;
    return KVCL_OK;
}

void kvcl_tier_free_refresh(kvcl_ctx *ctx, kvcl_tier *t)
{
    kvcl_raw_pages_free(ctx, &t->echo);
    kvcl_buf_free(t->kept);
    kvcl_mem_free(ctx, t->drift);
    kvcl_mem_free(ctx, t->echo_host);
}

kvcl_status kvcl_tier_copy_refresh(kvcl_tier *dst, const kvcl_tier *src, kvcl_queue *main)
{
    if (!src->drift)
        return KVCL_OK;
    memcpy(dst->drift, src->drift, src->n_layers * sizeof *src->drift);
    return kvcl_buf_copy(main, dst->kept, 0, src->kept, 0, src->kept->bytes);
}

/* A layer's metric as it was when the layer was learned first. */
static kvcl_view kept_metric(const kvcl_tier *t, uint32_t layer)
{
    size_t bytes = metric_bytes(&t->plan);
    return (kvcl_view){t->kept, layer * bytes, bytes};
}

kvcl_status kvcl_tier_note_learned(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                   const kvcl_tier_rows *rows)
{
    kvcl_view to = kept_metric(t, layer);
    if (!t->drift)
        return KVCL_OK;
    t->drift[layer] =
        (kvcl_tier_drift){.n_learned = rows->n_learn, .has_metric = rows->metric.buf != NULL};
    return rows->metric.buf
               ? kvcl_buf_copy(q, to.buf, to.off, rows->metric.buf, rows->metric.off, to.bytes)
               : KVCL_OK;
}

/* ---- coded pages to raw ones --------------------------------------------------------------- */

/* Pages page .. page + n - 1, which lie in one segment here and there. */
static kvcl_status decode_run(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                              const kvcl_codec_raw *out)
{
    uint32_t page = out->first_page, n = out->n_pages;
    kvcl_codec_pages coded;
    if (t->on_disk)
        KVCL_TRY(kvcl_tier_disk_bring(t, q, layer, page, n, &coded));
    else
        coded = kvcl_tier_pages(t, layer, page, n);
    if (t->queue) {
        KVCL_TRY(kvcl_tier_bring(t, q, &coded, n));
        coded.means = kvcl_tier_means(t, t->means, layer);
        coded.basis = kvcl_tier_basis(t, t->basis, layer);
    }
    return t->plan.spec.ops->decode(q, &t->plan, &coded, out, t->plan.unrotated);
}

static kvcl_status decode_pages(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                const kvcl_raw_pages *to, uint32_t begin, uint32_t end)
{
    for (uint32_t page = begin, n; page < end; page += n) {
        n = kvcl_page_map_run(&to->map, page, end);
        n = kvcl_page_map_run(&t->map, page, page + n);
        n = t->queue || t->on_disk ? kvcl_min_u32(n, t->bounce_map.n_slots) : n;
        kvcl_codec_raw out = kvcl_tier_source(t, to, 0, page, n);
        KVCL_TRY(decode_run(t, q, layer, &out));
    }
    return KVCL_OK;
}

/* ---- the error of a page ------------------------------------------------------------------- */

static double value_of(const void *rows, kvcl_type type, size_t i)
{
    return type == KVCL_F32 ? (double)((const float *)rows)[i]
                            : (double)kvcl_f16_to_f32(((const uint16_t *)rows)[i]);
}

/* K or V of a page, as it was and as it comes back. */
typedef struct page_rows {
    const void *exact, *coded;
    kvcl_type type;
    uint32_t n_heads, dim;
    bool by_token; /* [heads][64][dim], else [heads][dim][64] */
} page_rows;

/* Squared error against the squared deviations from the page's own mean row. */
static double relative_error(const page_rows *p)
{
    double error = 0.0, energy = 0.0;
    for (uint32_t h = 0; h < p->n_heads; h++)
        for (uint32_t d = 0; d < p->dim; d++) {
            size_t at = (size_t)h * p->dim * KVCL_PAGE_TOKENS;
            size_t step = p->by_token ? p->dim : 1, first = p->by_token ? d : d * KVCL_PAGE_TOKENS;
            double sum = 0.0, squares = 0.0;
            for (size_t i = 0; i < KVCL_PAGE_TOKENS; i++) {
                double x = value_of(p->exact, p->type, at + first + i * step);
                double e = x - value_of(p->coded, p->type, at + first + i * step);
                sum += x;
                squares += x * x;
                error += e * e;
            }
            energy += squares - sum * sum / KVCL_PAGE_TOKENS;
        }
    return energy > 0.0 ? error / energy : 0.0;
}

/* One page of exact rows and its echo to the host; the error of both parts, the mean of it. */
static kvcl_status measure_page(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                const kvcl_tier_rows *rows, uint32_t page, double *out)
{
    const kvcl_raw_pages *echo = &t->echo;
    kvcl_codec_raw exact = kvcl_tier_source(t, rows->pages, rows->layer, page, 1);
    kvcl_codec_raw coded = kvcl_tier_source(t, echo, 0, page, 1);
    coded.k = kvcl_view_of(echo->pools[0].k); /* which has no place for keys before rotation */
    KVCL_TRY(decode_run(t, q, layer, &coded));
    *out = 0.0;
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        size_t bytes = of_v ? echo->bytes_v : echo->bytes_k;
        size_t at = (size_t)exact.slots[0] * bytes;
        kvcl_view from = of_v ? exact.v : exact.k, back = of_v ? coded.v : coded.k;
        KVCL_TRY(kvcl_buf_read(q, from.buf, from.off + at, t->echo_host, bytes));
        KVCL_TRY(kvcl_buf_read(q, back.buf, back.off, t->echo_host + bytes, bytes));
        KVCL_TRY(kvcl_queue_wait(q));
        page_rows p = {.exact = t->echo_host,
                       .coded = t->echo_host + bytes,
                       .type = of_v ? echo->type_v : echo->type_k,
                       .n_heads = t->plan.shape.n_kv_heads,
                       .dim = t->plan.shape.head_dim,
                       .by_token = of_v};
        *out += 0.5 * relative_error(&p);
    }
    return KVCL_OK;
}

/* Pages that were learned from say what is usual, and where none of them was measured the first
 * one behind them. */
static void count(kvcl_tier_drift *d, uint32_t page, double error)
{
    if (page < d->n_learned || d->n_usual == 0) {
        d->usual += (error - d->usual) / ++d->n_usual;
        d->now = d->usual;
    } else {
        d->now += (error - d->now) / RECENT;
    }
}

/* The first of the pages below `end` that the tier has not forgotten. */
static uint32_t oldest(const kvcl_tier *t, uint32_t end)
{
    return end > t->map.n_slots ? end - t->map.n_slots : 0;
}

static kvcl_status measure(kvcl_tier *t, kvcl_queue *q, uint32_t layer, const kvcl_tier_rows *rows,
                           uint32_t begin, uint32_t end)
{
    begin = kvcl_max_u32(begin, oldest(t, end));
    for (uint32_t page = begin / MEASURED * MEASURED + MEASURED - 1; page < end; page += MEASURED) {
        double error;
        KVCL_TRY(measure_page(t, q, layer, rows, page, &error));
        count(&t->drift[layer], page, error);
    }
    return KVCL_OK;
}

/* ---- learning anew ------------------------------------------------------------------------- */

/* Pages [begin, end) are still there as they were, in rows. */
static kvcl_status learn_again(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                               const kvcl_tier_rows *rows, uint32_t begin, uint32_t end)
{
    kvcl_tier_drift before = t->drift[layer];
    uint32_t low = oldest(t, end);
    kvcl_tier_rows all = {.pages = rows->room, .learn_from = low, .n_learn = end};
    if (before.has_metric)
        all.metric = kept_metric(t, layer);
    KVCL_TRY(decode_pages(t, q, layer, rows->room, low, begin));
    if (rows->room != rows->pages)
        KVCL_TRY(kvcl_raw_pages_copy(q, rows->pages, rows->layer, rows->room, 0,
                                     kvcl_max_u32(begin, low), end));
    KVCL_TRY(kvcl_tier_learn(t, q, layer, &all));
    KVCL_TRY(kvcl_tier_encode_pages(t, q, layer, &all, low, end));
    t->drift[layer] = (kvcl_tier_drift){
        .n_learned = end, .n_refreshes = before.n_refreshes + 1, .has_metric = before.has_metric};
    return measure(t, q, layer, rows, begin, end);
}

kvcl_status kvcl_tier_follow(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                             const kvcl_tier_rows *rows, uint32_t begin, uint32_t end)
{
    if (!t->drift || !rows->room)
        return KVCL_OK;
    const kvcl_tier_drift *d = &t->drift[layer];
    KVCL_TRY(measure(t, q, layer, rows, begin, end));
    bool drifted = d->n_usual && d->now > d->usual * (0.01 * t->plan.spec.again);
    return drifted && end >= 2 * d->n_learned ? learn_again(t, q, layer, rows, begin, end)
                                              : KVCL_OK;
}
