/* session.c - one sequence: a cache, the activations of a step, a position. */
#include "engine_int.h"

#include "mem.h"

#define DEFAULT_CTX 8192u
#define DEFAULT_BATCH 512u

struct kvcl_session {
    kvcl_engine *engine;
    kvcl_ctx *ctx;
    uint32_t n_ctx, n_tokens;
    kvcl_cache *cache;
    kvcl_forward forward;
};

kvcl_session_options kvcl_session_defaults(void)
{
    return (kvcl_session_options){.type_k = KVCL_F16, .type_v = KVCL_F16};
}

static kvcl_status check_options(kvcl_engine *e, kvcl_session_options *o)
{
    kvcl_ctx *ctx = e->model->ctx;
    uint32_t most = e->model->hp.n_ctx_train;
    if (o->n_ctx == 0)
        o->n_ctx = kvcl_min_u32(most, DEFAULT_CTX);
    KVCL_CHECK(ctx, o->n_ctx <= most, KVCL_E_ARG,
               "context %u (-c) is longer than the model's %u tokens", (unsigned)o->n_ctx,
               (unsigned)most);
    if (o->n_batch == 0)
        o->n_batch = DEFAULT_BATCH;
    o->n_batch = kvcl_min_u32(o->n_batch, o->n_ctx);
    for (int i = 0; i < 2; i++) {
        kvcl_type t = i ? o->type_v : o->type_k;
        KVCL_CHECK(ctx, t == KVCL_F16 || t == KVCL_F32, KVCL_E_UNSUPPORTED,
                   "cache type %s is not supported; use f16 or f32",
                   kvcl_type_name(t) ? kvcl_type_name(t) : "?");
    }
    return KVCL_OK;
}

kvcl_status kvcl_session_create(kvcl_engine *e, const kvcl_session_options *opt, kvcl_session **out)
{
    if (!e || !out)
        return KVCL_E_ARG;
    const kvcl_hparams *hp = &e->model->hp;
    kvcl_session_options o = opt ? *opt : kvcl_session_defaults();
    kvcl_status st;
    void *p;
    KVCL_TRY(check_options(e, &o));
    KVCL_TRY(kvcl_mem_alloc(e->model->ctx, sizeof(kvcl_session), "the session", &p));
    kvcl_session *s = p;
    s->engine = e;
    s->ctx = e->model->ctx;
    s->n_ctx = o.n_ctx;
    KVCL_TRY_GOTO(kvcl_cache_create(e->queue,
                                    &(kvcl_cache_shape){.n_layers = hp->n_layers,
                                                        .n_q_heads = hp->n_heads,
                                                        .n_kv_heads = hp->n_kv_heads,
                                                        .head_dim = hp->head_dim,
                                                        .n_ctx = o.n_ctx,
                                                        .n_batch = o.n_batch,
                                                        .scale = hp->attn_scale,
                                                        .type_k = o.type_k,
                                                        .type_v = o.type_v},
                                    &s->cache));
    KVCL_TRY_GOTO(kvcl_forward_create(e->model, &e->weights, s->cache, e->queue, o.n_ctx, o.n_batch,
                                      &s->forward));
    KVCL_TRY_GOTO(kvcl_queue_wait(e->queue));
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
    kvcl_forward_free(&s->forward);
    kvcl_cache_free(s->cache);
    kvcl_mem_free(s->ctx, s);
}

uint32_t kvcl_session_n_tokens(const kvcl_session *s) { return s->n_tokens; }

uint32_t kvcl_session_n_ctx(const kvcl_session *s) { return s->n_ctx; }

uint64_t kvcl_session_cache_bytes(const kvcl_session *s) { return kvcl_cache_page_bytes(s->cache); }

kvcl_status kvcl_session_rewind(kvcl_session *s, uint32_t n_tokens)
{
    KVCL_CHECK(s->ctx, n_tokens <= s->n_tokens, KVCL_E_ARG,
               "rewind to %u tokens: the session has %u", (unsigned)n_tokens,
               (unsigned)s->n_tokens);
    s->n_tokens = n_tokens;
    return KVCL_OK;
}

static kvcl_status check_tokens(kvcl_session *s, const int32_t *tokens, uint32_t n)
{
    uint32_t n_vocab = s->engine->model->hp.n_vocab;
    for (uint32_t i = 0; i < n; i++)
        KVCL_CHECK(s->ctx, tokens[i] >= 0 && (uint32_t)tokens[i] < n_vocab, KVCL_E_ARG,
                   "token %d at %u is outside the vocabulary of %u", (int)tokens[i], (unsigned)i,
                   (unsigned)n_vocab);
    KVCL_CHECK(s->ctx, n <= s->n_ctx - s->n_tokens, KVCL_E_FULL,
               "%u tokens do not fit: the context holds %u, %u are used; use a longer context (-c)",
               (unsigned)n, (unsigned)s->n_ctx, (unsigned)s->n_tokens);
    return KVCL_OK;
}

kvcl_status kvcl_session_prefill(kvcl_session *s, const int32_t *tokens, uint32_t n_tokens,
                                 uint32_t n_logits, float *logits, kvcl_prefill_fn progress,
                                 void *user)
{
    KVCL_CHECK(s->ctx, n_tokens > 0 && tokens && n_logits <= n_tokens && (logits || !n_logits),
               KVCL_E_ARG, "prefill: no tokens, or more logits than tokens");
    KVCL_TRY(check_tokens(s, tokens, n_tokens));
    kvcl_forward *f = &s->forward;
    uint32_t V = s->engine->model->hp.n_vocab, n_before = s->n_tokens, quiet = n_tokens - n_logits;
    kvcl_status st = KVCL_OK;
    for (uint32_t i = 0, n; i < n_tokens && st == KVCL_OK; i += n) {
        /* a step has no more rows of logits than f holds */
        n = kvcl_min_u32(f->n_batch, n_tokens - i);
        if (i + n > quiet + f->n_logits)
            n = kvcl_min_u32(n, (i < quiet ? quiet - i : 0) + f->n_logits);
        uint32_t rows = i + n > quiet ? kvcl_min_u32(n, i + n - quiet) : 0;
        st = kvcl_forward_prefill(f, tokens + i, n, s->n_tokens, rows);
        if (st == KVCL_OK && rows)
            st = kvcl_buf_read(f->q, f->logits, 0, logits + (size_t)(i + n - rows - quiet) * V,
                               (size_t)rows * V * sizeof(float));
        if (st == KVCL_OK)
            st = kvcl_queue_wait(f->q);
        s->n_tokens += n;
        if (st == KVCL_OK && progress && !progress(user, i + n, n_tokens))
            st = kvcl_fail(s->ctx, KVCL_E_INTERRUPTED, "stopped after %u of %u prompt tokens",
                           (unsigned)(i + n), (unsigned)n_tokens);
    }
    if (st != KVCL_OK)
        s->n_tokens = n_before;
    return st;
}

kvcl_status kvcl_session_decode(kvcl_session *s, int32_t token, float *logits)
{
    kvcl_forward *f = &s->forward;
    KVCL_TRY(check_tokens(s, &token, 1));
    KVCL_TRY(kvcl_forward_decode(f, token, s->n_tokens));
    if (logits)
        KVCL_TRY(kvcl_buf_read(f->q, f->logits, 0, logits,
                               s->engine->model->hp.n_vocab * sizeof(float)));
    KVCL_TRY(kvcl_queue_wait(f->q));
    s->n_tokens++;
    return KVCL_OK;
}
