/* session.c - one sequence: a cache, the activations of a step.  Prompts: session_prefill.c. */
#include "session_int.h"

#include "mem.h"
#include "rope_table.h"

#define DEFAULT_CTX 8192u
#define DEFAULT_BATCH 512u
#define DEFAULT_SINK 8u

kvcl_session_options kvcl_session_defaults(void)
{
    return (kvcl_session_options){.type_k = KVCL_F16, .type_v = KVCL_F16, .n_sink = DEFAULT_SINK};
}

/* ---- options ------------------------------------------------------------------------------- */

static kvcl_status resolve_tiers(kvcl_ctx *ctx, const kvcl_session_options *o,
                                 kvcl_cache_options *c)
{
    KVCL_CHECK(ctx, o->n_tiers <= KVCL_MAX_TIERS, KVCL_E_ARG, "%u tiers: at most %d",
               (unsigned)o->n_tiers, KVCL_MAX_TIERS);
    KVCL_CHECK(ctx, !o->n_tiers || !o->tiers[0].on_disk, KVCL_E_ARG,
               "the hot tier is in the memory of the model's device, not on disk");
    for (uint32_t i = 1; i < o->n_tiers; i++) {
        const char *codec = o->tiers[i].codec ? o->tiers[i].codec : "f16";
        KVCL_CHECK(ctx, !o->tiers[i].on_disk || !o->tiers[i].dev, KVCL_E_ARG,
                   "tier %u is on disk and on %s; give it one place", (unsigned)i,
                   o->tiers[i].dev->info.id);
        c->tiers[i - 1].dev = o->tiers[i].dev;
        c->tiers[i - 1].on_disk = o->tiers[i].on_disk;
        c->tiers[i - 1].tokens =
            kvcl_div_up(o->tiers[i].tokens, KVCL_PAGE_TOKENS) * KVCL_PAGE_TOKENS;
        KVCL_TRY(kvcl_codec_parse(ctx, codec, &c->tiers[i - 1].codec));
    }
    c->tier_dir = o->tier_dir;
    c->n_hot = o->n_tiers > 1 ? o->tiers[0].tokens : 0;
    c->n_tiers = o->n_tiers > 1 ? o->n_tiers - 1 : 0;
    return KVCL_OK;
}

kvcl_status kvcl_session_resolve(const kvcl_model *model, kvcl_session_options *o,
                                 kvcl_cache_options *c)
{
    kvcl_ctx *ctx = model->ctx;
    const kvcl_hparams *hp = &model->hp;
    if (o->n_ctx == 0)
        o->n_ctx = kvcl_min_u32(kvcl_hparams_ctx(hp), DEFAULT_CTX);
    KVCL_CHECK(ctx, o->n_ctx <= hp->n_ctx_train, KVCL_E_ARG,
               "context %u (-c) is longer than the model's %u tokens", (unsigned)o->n_ctx,
               (unsigned)hp->n_ctx_train);
    KVCL_CHECK(ctx, o->n_ctx <= kvcl_hparams_ctx(hp), KVCL_E_UNSUPPORTED,
               "context %u (-c) is longer than the %u tokens that attention slides over "
               "(%s.attention.sliding_window); that is not supported: use -c %u",
               (unsigned)o->n_ctx, (unsigned)hp->n_window, hp->arch->name, (unsigned)hp->n_window);
    o->n_batch = kvcl_min_u32(o->n_batch ? o->n_batch : DEFAULT_BATCH, o->n_ctx);
    for (int i = 0; i < 2; i++) {
        kvcl_type t = i ? o->type_v : o->type_k;
        KVCL_CHECK(ctx, t == KVCL_F16 || t == KVCL_F32, KVCL_E_UNSUPPORTED,
                   "cache type %s is not supported; use f16 or f32",
                   kvcl_type_name(t) ? kvcl_type_name(t) : "?");
    }
    *c = (kvcl_cache_options){
        .n_layers = hp->n_layers,
        .n_ctx = o->n_ctx,
        .n_batch = o->n_batch,
        .shape = {.n_q_heads = hp->n_heads,
                  .n_kv_heads = hp->n_kv_heads,
                  .head_dim = hp->head_dim,
                  .n_rot = hp->n_rot,
                  .pairing = hp->arch->pairing,
                  .scale = hp->attn_scale},
        .type_k = o->type_k,
        .type_v = o->type_v,
        .n_sink = o->n_sink,
        .drop_oldest = o->drop_oldest,
    };
    return resolve_tiers(ctx, o, c);
}

size_t kvcl_session_rope_bytes(const kvcl_model *model, uint32_t n_ctx)
{
    return (size_t)n_ctx * model->hp.n_rot * sizeof(float);
}

/* ---- life ---------------------------------------------------------------------------------- */

static kvcl_status create_rope(kvcl_session *s, kvcl_cache_rope *out)
{
    const kvcl_hparams *hp = &s->engine->model->hp;
    kvcl_queue *q = s->engine->queue;
    size_t bytes = kvcl_session_rope_bytes(s->engine->model, s->n_ctx);
    void *table;
    *out = (kvcl_cache_rope){.pairing = KVCL_ROPE_NONE};
    if (!bytes)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_alloc_undefined(s->ctx, bytes, "the rotation table", &table));
    kvcl_rope_table(table, s->n_ctx, &hp->rope);
    kvcl_status st = kvcl_buf_create(q->dev, bytes, KVCL_USE_ACTIVATIONS, &s->rope_table);
    if (st == KVCL_OK)
        st = kvcl_buf_write(q, s->rope_table, 0, table, bytes);
    kvcl_mem_free(s->ctx, table);
    *out = (kvcl_cache_rope){hp->arch->pairing, hp->n_rot, kvcl_view_of(s->rope_table)};
    return st;
}

/* One token through the empty session, so that what a device makes at first use (kernels, lists of
 * ops) is there before the first real one.  Its rows are overwritten by whatever comes first. */
static kvcl_status warm_up(kvcl_session *s)
{
    kvcl_queue *q = s->engine->queue;
    if (s->engine->dev->info.kind == KVCL_KIND_CPU)
        return KVCL_OK;
    KVCL_TRY(kvcl_cache_begin(s->cache, q, 1));
    KVCL_TRY(kvcl_forward_decode(&s->forward, 0, 0));
    return kvcl_queue_wait(q);
}

kvcl_status kvcl_session_create(kvcl_engine *e, const kvcl_session_options *opt, kvcl_session **out)
{
    if (!e || !out)
        return KVCL_E_ARG;
    kvcl_session_options o = opt ? *opt : kvcl_session_defaults();
    kvcl_cache_options cache;
    kvcl_cache_rope rope;
    kvcl_status st;
    void *p;
    KVCL_TRY(kvcl_session_resolve(e->model, &o, &cache));
    KVCL_CHECK(e->model->ctx, !o.n_tiers || !o.tiers[0].dev || o.tiers[0].dev == e->dev, KVCL_E_ARG,
               "the hot tier lives on the model's device, %s, not on %s", e->dev->info.id,
               o.tiers[0].dev->info.id);
    KVCL_TRY(kvcl_mem_alloc(e->model->ctx, sizeof(kvcl_session), "the session", &p));
    kvcl_session *s = p;
    s->engine = e;
    s->ctx = e->model->ctx;
    s->opt = o;
    s->n_ctx = o.n_ctx;
    s->opt.tier_dir = NULL; /* ours from here on */
    if (o.tier_dir)
        KVCL_TRY_GOTO(kvcl_mem_strdup(s->ctx, o.tier_dir, &s->tier_dir));
    s->opt.tier_dir = cache.tier_dir = s->tier_dir;
    KVCL_TRY_GOTO(create_rope(s, &rope));
    KVCL_TRY_GOTO(kvcl_cache_create(e->queue, &cache, &rope, &s->cache));
    KVCL_TRY_GOTO(kvcl_forward_create(e->model, &e->weights, s->cache, e->queue,
                                      cache.n_tiers ? o.n_ctx : o.n_batch, o.n_batch, &s->forward));
    KVCL_TRY_GOTO(kvcl_queue_wait(e->queue));
    KVCL_TRY_GOTO(warm_up(s));
    *out = s;
    return KVCL_OK;
fail:
    kvcl_session_free(s);
    return st;
}

void kvcl_session_free(kvcl_session *s)
{
    if (!s)
        return;
    if (s->engine) /* pages of the last step may still be on their way to a tier */
        (void)kvcl_queue_wait(s->engine->queue);
    kvcl_forward_free(&s->forward);
    kvcl_cache_free(s->cache);
    kvcl_buf_free(s->rope_table);
    kvcl_mem_free(s->ctx, s->tier_dir);
    kvcl_mem_free(s->ctx, s);
}

kvcl_status kvcl_session_fork(kvcl_session *s, kvcl_session **out)
{
    kvcl_session *copy;
    /* the name of a codec belongs to whoever made the options: take our own */
    kvcl_session_options o = s->opt;
    for (uint32_t i = 1; i < o.n_tiers; i++)
        o.tiers[i].codec = kvcl_cache_get_layout(s->cache)->opt.tiers[i - 1].codec.name;
    KVCL_TRY(kvcl_session_create(s->engine, &o, &copy));
    kvcl_status st = kvcl_cache_copy(copy->cache, s->cache, s->engine->queue);
    if (st != KVCL_OK) {
        kvcl_session_free(copy);
        return st;
    }
    *out = copy;
    return KVCL_OK;
}

/* ---- facts --------------------------------------------------------------------------------- */

uint32_t kvcl_session_n_tokens(const kvcl_session *s) { return kvcl_cache_n_tokens(s->cache); }

uint32_t kvcl_session_n_ctx(const kvcl_session *s) { return s->n_ctx; }

void kvcl_session_cache_stats(const kvcl_session *s, kvcl_cache_stats *out)
{
    kvcl_cache_stats_get(s->cache, out);
}

uint64_t kvcl_session_cache_bytes(const kvcl_session *s)
{
    kvcl_cache_stats st;
    kvcl_cache_stats_get(s->cache, &st);
    return st.total_bytes - st.scratch_bytes - st.staging_bytes;
}

kvcl_status kvcl_session_set_tap(kvcl_session *s, uint32_t mask, kvcl_tap_fn fn, void *user)
{
    const kvcl_hparams *hp = &s->engine->model->hp;
    kvcl_forward_tap *tap = &s->forward.tap;
    size_t width = (size_t)(hp->n_heads + 2 * hp->n_kv_heads) * hp->head_dim;
    void *p = tap->rows;
    if (fn && mask && !p)
        KVCL_TRY(kvcl_mem_array(s->ctx, s->forward.n_batch * width, sizeof(float),
                                "rows of activations", &p));
    *tap = (kvcl_forward_tap){.mask = fn ? mask : 0, .fn = fn, .user = user, .rows = p};
    return KVCL_OK;
}

/* ---- positions and single tokens ----------------------------------------------------------- */

kvcl_status kvcl_session_rewind(kvcl_session *s, uint32_t n_tokens)
{
    return kvcl_cache_rewind(s->cache, n_tokens);
}

kvcl_status kvcl_session_check_tokens(kvcl_session *s, const int32_t *tokens, uint32_t n)
{
    uint32_t n_vocab = s->engine->model->hp.n_vocab, used = kvcl_session_n_tokens(s);
    for (uint32_t i = 0; i < n; i++)
        KVCL_CHECK(s->ctx, tokens[i] >= 0 && (uint32_t)tokens[i] < n_vocab, KVCL_E_ARG,
                   "token %d at %u is outside the vocabulary of %u", (int)tokens[i], (unsigned)i,
                   (unsigned)n_vocab);
    KVCL_CHECK(s->ctx, n <= s->n_ctx - used, KVCL_E_FULL,
               "%u tokens do not fit: the context holds %u, %u are used; use a longer context (-c)",
               (unsigned)n, (unsigned)s->n_ctx, (unsigned)used);
    return KVCL_OK;
}

kvcl_status kvcl_session_decode(kvcl_session *s, int32_t token, float *logits)
{
    kvcl_forward *f = &s->forward;
    KVCL_TRY(kvcl_session_check_tokens(s, &token, 1));
    KVCL_TRY(kvcl_cache_begin(s->cache, f->q, 1));
    KVCL_TRY(kvcl_forward_decode(f, token, kvcl_session_n_tokens(s)));
    if (logits)
        KVCL_TRY(kvcl_buf_read(f->q, f->logits, 0, logits,
                               s->engine->model->hp.n_vocab * sizeof(float)));
    KVCL_TRY(kvcl_queue_wait(f->q));
    return kvcl_cache_end(s->cache, f->q, 1);
}
