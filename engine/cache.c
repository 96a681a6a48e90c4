/* cache.c - life, positions and the layers of a step.  See cache.h. */
#include "cache_int.h"

#include "mem.h"
#include "types.h"

#include <stdlib.h>

/* Pages are coded so many tokens before they are needed when a second queue does it. */
#define CODE_AHEAD 32u

/* ---- life ---------------------------------------------------------------------------------- */

/* A second queue overlaps with decoding on GPUs; KVCL_SECOND_QUEUE=1 or 0 decides otherwise. */
static bool wants_coder(const kvcl_dev *dev)
{
    const char *want = getenv("KVCL_SECOND_QUEUE");
    if (want && (*want == '0' || *want == '1'))
        return *want == '1';
    return dev->info.kind == KVCL_KIND_GPU || dev->info.kind == KVCL_KIND_INTEGRATED;
}

static bool follows(const kvcl_cache *c)
{
    for (uint32_t i = 0; i < c->l.opt.n_tiers; i++)
        if (c->l.opt.tiers[i].codec.again)
            return true;
    return false;
}

static kvcl_status create_tiers(kvcl_cache *c, kvcl_queue *q)
{
    for (uint32_t i = 0; i < c->l.opt.n_tiers; i++) {
        c->l.setups[i].rope = c->rope.table;
        KVCL_TRY(kvcl_tier_create(&c->l.setups[i], q, &c->l.tiers[i]));
    }
    if (!c->l.opt.n_tiers)
        return KVCL_OK;
    if (c->l.opt.n_sink)
        KVCL_TRY(kvcl_raw_pages_create(q, KVCL_USE_SINKS, &c->l.sink));
    KVCL_TRY(kvcl_raw_pages_create(q, KVCL_USE_STAGING, &c->l.staging));
    /* a basis that is learned anew changes what is read: not beside it, and not ahead of time */
    bool ahead = c->l.opt.n_hot >= 2 * KVCL_PAGE_TOKENS && !follows(c) && wants_coder(c->dev);
    return ahead ? kvcl_queue_create(c->dev, &c->coder) : KVCL_OK;
}

/* Zeros in place of what new buffers happen to hold: page 0 of layer 0, a query, its moments. */
static kvcl_status write_zeros(kvcl_cache *c, kvcl_queue *q, size_t query_bytes)
{
    const kvcl_raw_pages *hot = &c->l.hot;
    const kvcl_raw_pool *p = hot->pools;
    const kvcl_view part[] = {{p->k, 0, hot->bytes_k},
                              {p->ku, 0, hot->bytes_k},
                              {p->v, 0, hot->bytes_v},
                              {c->o, 0, query_bytes},
                              kvcl_view_of(c->metric)};
    for (size_t i = 0; i < kvcl_array_len(part); i++)
        if (part[i].buf)
            KVCL_TRY(kvcl_view_zero(q, part[i]));
    return KVCL_OK;
}

/* The moments of queries that a tier learns with, of the prompt that `from` computes. */
static kvcl_view metric_of(const kvcl_cache *from, const kvcl_tier *t)
{
    uint32_t i = kvcl_cache_layout_metric(&from->l, kvcl_codec_learn_tokens(&t->plan));
    return i < from->l.n_metrics ? kvcl_cache_metric(from, i) : (kvcl_view){0};
}

/* Runs each tier's ops once on a page of zeros: nothing is built while decoding. */
static kvcl_status warm_up(kvcl_cache *c, kvcl_queue *q)
{
    const kvcl_kv_shape *sh = &c->l.opt.shape;
    if (!c->l.opt.n_tiers || c->l.opt.n_ctx <= c->l.opt.n_hot)
        return KVCL_OK;
    size_t query_bytes = (size_t)sh->n_q_heads * sh->head_dim * sizeof(float);
    KVCL_TRY(write_zeros(c, q, query_bytes));
    KVCL_TRY(c->coder ? kvcl_queue_wait(q) : KVCL_OK);
    for (uint32_t i = 0; i < c->l.opt.n_tiers; i++) {
        kvcl_tier *t = &c->l.tiers[i];
        kvcl_attn_in in = {.q = kvcl_view_of(c->o),
                           .ml = kvcl_view_of(c->ml),
                           .o = kvcl_view_of(c->o),
                           .n = 1,
                           .q_stride = sh->n_q_heads * sh->head_dim,
                           .n_q_heads = sh->n_q_heads,
                           .n_kv_heads = sh->n_kv_heads,
                           .head_dim = sh->head_dim,
                           .end = 1,
                           .n_parts = 1,
                           .scale = sh->scale};
        in.q.bytes = query_bytes;
        in.o.off += query_bytes, in.o.bytes -= query_bytes;
        kvcl_tier_rows rows = {.pages = &c->l.hot, .n_learn = 1, .metric = metric_of(c, t)};
        KVCL_TRY(kvcl_tier_encode(t, c->coder ? c->coder : q, 0, &rows, 0, 1));
        KVCL_TRY(c->coder ? kvcl_queue_wait(c->coder) : KVCL_OK);
        KVCL_TRY(kvcl_tier_attend(t, q, 0, &in));
    }
    return kvcl_queue_wait(q);
}

kvcl_status kvcl_cache_create(kvcl_queue *q, const kvcl_cache_options *opt,
                              const kvcl_cache_rope *rope, kvcl_cache **out)
{
    kvcl_status st;
    void *p;
    KVCL_TRY(kvcl_mem_alloc(q->dev->ctx, sizeof(kvcl_cache), "the cache", &p));
    kvcl_cache *c = p;
    c->dev = q->dev;
    c->rope = *rope;
    KVCL_TRY_GOTO(kvcl_cache_layout_make(c->dev, opt, rope->table.bytes, &c->l));
    KVCL_TRY_GOTO(kvcl_buf_create(c->dev, c->l.ml_bytes, KVCL_USE_SCRATCH, &c->ml));
    KVCL_TRY_GOTO(kvcl_buf_create(c->dev, c->l.o_bytes, KVCL_USE_SCRATCH, &c->o));
    if (c->l.n_metrics)
        KVCL_TRY_GOTO(kvcl_buf_create(c->dev, c->l.n_metrics * c->l.metric_bytes, KVCL_USE_SCRATCH,
                                      &c->metric));
    KVCL_TRY_GOTO(
        kvcl_raw_pages_create(q, opt->n_tiers ? KVCL_USE_HOT : KVCL_USE_CACHE, &c->l.hot));
    KVCL_TRY_GOTO(create_tiers(c, q));
    KVCL_TRY_GOTO(warm_up(c, q));
    *out = c;
    return KVCL_OK;
fail:
    kvcl_cache_free(c);
    return st;
}

void kvcl_cache_free(kvcl_cache *c)
{
    if (!c)
        return;
    kvcl_ctx *ctx = c->dev->ctx;
    kvcl_queue_free(c->coder);
    for (uint32_t i = 0; i < c->l.opt.n_tiers; i++)
        kvcl_tier_free(ctx, &c->l.tiers[i]);
    kvcl_raw_pages_free(ctx, &c->l.hot);
    kvcl_raw_pages_free(ctx, &c->l.sink);
    kvcl_raw_pages_free(ctx, &c->l.staging);
    kvcl_buf_free(c->ml);
    kvcl_buf_free(c->o);
    kvcl_buf_free(c->metric);
    kvcl_mem_free(ctx, c);
}

const kvcl_cache_layout *kvcl_cache_get_layout(const kvcl_cache *c) { return &c->l; }

bool kvcl_cache_is_tiered(const kvcl_cache *c) { return c->l.opt.n_tiers > 0; }

uint32_t kvcl_cache_n_tokens(const kvcl_cache *c) { return c->n_tokens; }

/* ---- positions ----------------------------------------------------------------------------- */

void kvcl_cache_clear(kvcl_cache *c)
{
    c->n_tokens = c->raw_low = c->n_coded = c->n_passed = 0;
    c->has_sink = c->in_prompt = false;
}

/* Where raw reading begins for a query (or a prompt's first query) at n_tokens. */
static uint32_t raw_begin(const kvcl_cache *c)
{
    uint32_t n = c->n_tokens + 1, hot = c->l.opt.n_hot;
    return !c->l.opt.n_tiers || n <= hot ? 0 : kvcl_max_u32(n - hot, c->raw_low);
}

kvcl_status kvcl_cache_rewind(kvcl_cache *c, uint32_t n)
{
    KVCL_CHECK(c->dev->ctx, n <= c->n_tokens, KVCL_E_ARG, "rewind to %u tokens: the session has %u",
               (unsigned)n, (unsigned)c->n_tokens);
    if (c->coder)
        KVCL_TRY(kvcl_queue_wait(c->coder)); /* it reads rows that may now be written again */
    if (n == 0) {
        kvcl_cache_clear(c);
        return KVCL_OK;
    }
    uint32_t dropped = kvcl_cache_dropped(&c->l, raw_begin(c));
    KVCL_CHECK(c->dev->ctx, n >= dropped, KVCL_E_ARG,
               "rewind to %u tokens: those before token %u were dropped (--drop-oldest); rewind to "
               "0 and prefill again",
               (unsigned)n, (unsigned)dropped);
    KVCL_CHECK(c->dev->ctx, n == c->n_tokens || n > c->raw_low, KVCL_E_ARG,
               "rewind to %u tokens: exact rows are kept from token %u on, older ones only in "
               "coded pages; rewind to 0 and prefill again, or ask for a larger hot tier",
               (unsigned)n, (unsigned)c->raw_low);
    c->n_tokens = n;
    c->n_coded = kvcl_min_u32(c->n_coded, n / KVCL_PAGE_TOKENS);
    c->n_passed = kvcl_min_u32(c->n_passed, c->n_coded);
    c->has_sink = c->has_sink && n >= KVCL_PAGE_TOKENS;
    return KVCL_OK;
}

kvcl_status kvcl_cache_copy(kvcl_cache *dst, kvcl_cache *src, kvcl_queue *q)
{
    if (src->coder)
        KVCL_TRY(kvcl_queue_wait(src->coder));
    for (uint32_t layer = 0; layer < src->l.opt.n_layers; layer++) {
        uint32_t end = kvcl_min_u32(src->l.hot.map.n_slots, src->l.n_pages);
        KVCL_TRY(kvcl_raw_pages_copy(q, &src->l.hot, layer, &dst->l.hot, layer, 0, end));
        if (src->has_sink)
            KVCL_TRY(kvcl_raw_pages_copy(q, &src->l.sink, layer, &dst->l.sink, layer, 0, 1));
    }
    for (uint32_t i = 0; i < src->l.opt.n_tiers; i++)
        KVCL_TRY(kvcl_tier_copy(&dst->l.tiers[i], &src->l.tiers[i], q));
    KVCL_TRY(kvcl_queue_wait(q));
    dst->n_tokens = src->n_tokens, dst->raw_low = src->raw_low;
    dst->n_coded = src->n_coded, dst->n_passed = src->n_passed;
    dst->has_sink = src->has_sink;
    return KVCL_OK;
}

/* Looks at the coder's report on pages that were not yet looked at. */
static kvcl_status pass_pages(kvcl_cache *c, kvcl_queue *q)
{
    if (c->n_passed == c->n_coded)
        return KVCL_OK;
    kvcl_status st = c->coder ? kvcl_queue_wait(c->coder) : KVCL_OK;
    for (uint32_t i = 0; st == KVCL_OK && i < c->l.opt.n_tiers; i++)
        st = kvcl_tier_check(&c->l.tiers[i], q, c->n_passed, c->n_coded);
    if (st == KVCL_OK)
        c->n_passed = c->n_coded;
    return st;
}

kvcl_status kvcl_cache_begin(kvcl_cache *c, kvcl_queue *q, uint32_t n)
{
    c->in_prompt = false;
    c->n_step = n;
    c->raw_begin = raw_begin(c);
    if (kvcl_div_up(c->raw_begin, KVCL_PAGE_TOKENS) > c->n_passed)
        KVCL_TRY(pass_pages(c, q));
    return KVCL_OK;
}

/* Raw page 0 stays with the sinks; the ring will lose it. */
static kvcl_status keep_sink(kvcl_cache *c, kvcl_queue *q, uint32_t layer,
                             const kvcl_raw_pages *src, uint32_t src_layer)
{
    if (!c->l.opt.n_sink || c->has_sink)
        return KVCL_OK;
    return kvcl_raw_pages_copy(q, src, src_layer, &c->l.sink, layer, 0, 1);
}

/* from: the cache that computes the prompt whose rows these are, or NULL. */
static kvcl_status code_pages(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_tier_rows rows,
                              const kvcl_cache *from, uint32_t end)
{
    for (uint32_t i = 0; i < c->l.opt.n_tiers; i++) {
        kvcl_tier *t = &c->l.tiers[i];
        rows.metric = from ? metric_of(from, t) : (kvcl_view){0};
        KVCL_TRY(kvcl_tier_encode(t, q, layer, &rows, c->n_coded, end));
    }
    return KVCL_OK;
}

static void count_tokens(kvcl_cache *c, uint32_t n)
{
    c->n_tokens += n;
    uint32_t last = (c->n_tokens - 1) / KVCL_PAGE_TOKENS, slots = c->l.hot.map.n_slots;
    if (last >= slots)
        c->raw_low = kvcl_max_u32(c->raw_low, (last - slots + 1) * KVCL_PAGE_TOKENS);
}

/* Whether the step read a coded page that is damaged. */
static kvcl_status check_pages(kvcl_cache *c, kvcl_queue *q)
{
    for (uint32_t i = 0; i < c->l.opt.n_tiers; i++)
        KVCL_TRY(kvcl_tier_check_pages(&c->l.tiers[i], q));
    return KVCL_OK;
}

kvcl_status kvcl_cache_end(kvcl_cache *c, kvcl_queue *q, uint32_t n)
{
    KVCL_TRY(c->raw_begin ? check_pages(c, q) : KVCL_OK);
    count_tokens(c, n);
    if (!c->l.opt.n_tiers)
        return KVCL_OK;
    uint32_t n_layers = c->l.opt.n_layers;
    if (c->l.opt.n_sink && !c->has_sink && c->n_tokens >= KVCL_PAGE_TOKENS) {
        for (uint32_t layer = 0; layer < n_layers; layer++)
            KVCL_TRY(keep_sink(c, q, layer, &c->l.hot, layer));
        c->has_sink = true;
    }
    uint32_t due = kvcl_cache_pages_due(c, c->n_tokens + (c->coder ? CODE_AHEAD : 0));
    due = kvcl_min_u32(due, c->n_tokens / KVCL_PAGE_TOKENS);
    for (uint32_t layer = 0; layer < n_layers && due > c->n_coded; layer++) {
        /* pages that are there whether or not they are coded ahead */
        uint32_t n_learn = kvcl_max_u32(c->l.opt.n_hot / KVCL_PAGE_TOKENS, 2) - 1;
        kvcl_tier_rows rows = {
            .pages = &c->l.hot, .layer = layer, .n_learn = n_learn, .room = &c->l.staging};
        KVCL_TRY(code_pages(c, c->coder ? c->coder : q, layer, rows, NULL, due));
    }
    c->n_coded = kvcl_max_u32(c->n_coded, due);
    return KVCL_OK;
}

/* ---- a prompt through a tiered cache -------------------------------------------------------- */

kvcl_status kvcl_cache_prompt_begin(kvcl_cache *c, kvcl_queue *q, uint32_t n)
{
    KVCL_TRY(kvcl_cache_begin(c, q, n));
    c->in_prompt = kvcl_cache_is_tiered(c);
    return KVCL_OK;
}

kvcl_status kvcl_cache_layer_begin(kvcl_cache *c, kvcl_queue *q, uint32_t layer)
{
    if (kvcl_cache_counts_queries(c))
        KVCL_TRY(kvcl_view_zero(q, kvcl_view_of(c->metric)));
    if (!c->in_prompt || !c->n_tokens)
        return KVCL_OK;
    uint32_t end = kvcl_div_up(c->n_tokens, KVCL_PAGE_TOKENS);
    uint32_t begin = kvcl_min_u32(c->raw_begin / KVCL_PAGE_TOKENS, c->n_coded);
    begin = kvcl_max_u32(begin, c->raw_low / KVCL_PAGE_TOKENS);
    return kvcl_raw_pages_copy(q, &c->l.hot, layer, &c->l.staging, 0, begin, end);
}

/* Codes what the tokens after the prompt will want coded, keeps the newest pages raw. */
static kvcl_status take_layer(kvcl_cache *c, kvcl_queue *q, uint32_t layer, const kvcl_cache *from,
                              uint32_t n)
{
    const kvcl_raw_pages *src = &from->l.staging;
    uint32_t end = kvcl_div_up(n, KVCL_PAGE_TOKENS), slots = c->l.hot.map.n_slots;
    uint32_t begin = c->l.opt.n_tiers && end > slots ? end - slots : 0;
    begin = kvcl_max_u32(begin, c->n_tokens / KVCL_PAGE_TOKENS);
    if (c->l.opt.n_tiers) {
        kvcl_tier_rows rows = {
            .pages = src, .n_learn = n / KVCL_PAGE_TOKENS, .room = &c->l.staging};
        KVCL_TRY(code_pages(c, q, layer, rows, from, kvcl_cache_pages_due(c, n)));
        KVCL_TRY(n >= KVCL_PAGE_TOKENS ? keep_sink(c, q, layer, src, 0) : KVCL_OK);
    }
    return kvcl_raw_pages_copy(q, src, 0, &c->l.hot, layer, begin, end);
}

kvcl_status kvcl_cache_layer_end(kvcl_cache *c, kvcl_queue *q, uint32_t layer)
{
    if (!c->in_prompt)
        return KVCL_OK;
    return take_layer(c, q, layer, c, c->n_tokens + c->n_step);
}

kvcl_status kvcl_cache_layer_take(kvcl_cache *c, kvcl_queue *q, uint32_t layer, kvcl_cache *from)
{
    KVCL_CHECK(c->dev->ctx, kvcl_cache_layout_serves(&from->l, &c->l), KVCL_E_ARG,
               "sessions that share a prompt must agree in context and raw types");
    c->n_step = from->n_step;
    return take_layer(c, q, layer, from, c->n_step);
}

kvcl_status kvcl_cache_prompt_end(kvcl_cache *c, kvcl_queue *q)
{
    c->in_prompt = false;
    count_tokens(c, c->n_step);
    if (!c->l.opt.n_tiers)
        return KVCL_OK;
    c->n_coded = kvcl_max_u32(c->n_coded, kvcl_cache_pages_due(c, c->n_tokens));
    c->has_sink = c->l.opt.n_sink && c->n_tokens >= KVCL_PAGE_TOKENS;
    KVCL_TRY(c->raw_begin ? check_pages(c, q) : KVCL_OK);
    return pass_pages(c, q);
}
