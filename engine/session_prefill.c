/* session_prefill.c - prompts: chunk by chunk through a raw cache, layer by layer through a tiered
 * one (every prompt token attends exact rows; see cache.h). */
#include "session_int.h"

/* What a prompt is made of, for the functions below. */
typedef struct kvcl_prompt {
    const int32_t *tokens;
    uint32_t n, n_logits;
    float *logits; /* [n_logits][n_vocab] */
    kvcl_prefill_fn progress;
    void *user;
} kvcl_prompt;

static kvcl_status tell(kvcl_session *s, const kvcl_prompt *p, uint32_t done)
{
    if (!p->progress || p->progress(p->user, done, p->n))
        return KVCL_OK;
    return kvcl_fail(s->ctx, KVCL_E_INTERRUPTED, "stopped after %u of %u prompt tokens",
                     (unsigned)done, (unsigned)p->n);
}

/* Logits of the prompt's tokens [begin, end) that are wanted; their activations begin at row 0 of x
 * with token `first`. */
static kvcl_status read_logits(kvcl_session *s, const kvcl_prompt *p, uint32_t first,
                               uint32_t begin, uint32_t end)
{
    kvcl_forward *f = &s->forward;
    uint32_t quiet = p->n - p->n_logits, V = s->engine->model->hp.n_vocab;
    for (uint32_t i = kvcl_max_u32(begin, quiet), m; i < end; i += m) {
        m = kvcl_min_u32(end - i, f->n_logits);
        KVCL_TRY(kvcl_forward_logits(f, i - first, m));
        KVCL_TRY(kvcl_buf_read(f->q, f->logits, 0, p->logits + (size_t)(i - quiet) * V,
                               (size_t)m * V * sizeof(float)));
    }
    return KVCL_OK;
}

/* ---- a raw cache --------------------------------------------------------------------------- */

static kvcl_status chunk(kvcl_session *s, const kvcl_prompt *p, uint32_t i, uint32_t n)
{
    kvcl_forward *f = &s->forward;
    uint32_t pos0 = kvcl_session_n_tokens(s);
    KVCL_TRY(kvcl_cache_begin(s->cache, f->q, n));
    KVCL_TRY(kvcl_forward_embed(f, p->tokens + i, 0, n, pos0));
    for (uint32_t layer = 0; layer < s->engine->model->hp.n_layers; layer++)
        KVCL_TRY(kvcl_forward_layer(f, layer, 0, n, pos0));
    KVCL_TRY(read_logits(s, p, i, i, i + n));
    KVCL_TRY(kvcl_queue_wait(f->q));
    return kvcl_cache_end(s->cache, f->q, n);
}

static kvcl_status by_chunks(kvcl_session *s, const kvcl_prompt *p)
{
    uint32_t n_before = kvcl_session_n_tokens(s);
    kvcl_status st = KVCL_OK;
    for (uint32_t i = 0, n; i < p->n && st == KVCL_OK; i += n) {
        n = kvcl_min_u32(s->forward.n_batch, p->n - i);
        st = chunk(s, p, i, n);
        if (st == KVCL_OK)
            st = tell(s, p, i + n);
    }
    if (st != KVCL_OK)
        (void)kvcl_cache_rewind(s->cache, n_before);
    return st;
}

/* ---- tiered caches ------------------------------------------------------------------------- */

static kvcl_status layer(kvcl_session *const *all, uint32_t n_all, const kvcl_prompt *p,
                         uint32_t index)
{
    kvcl_session *s = all[0];
    kvcl_forward *f = &s->forward;
    uint32_t pos0 = kvcl_session_n_tokens(s), n_layers = s->engine->model->hp.n_layers;
    KVCL_TRY(kvcl_cache_layer_begin(s->cache, f->q, index));
    for (uint32_t i = 0, n; i < p->n; i += n) {
        n = kvcl_min_u32(f->n_batch, p->n - i);
        KVCL_TRY(kvcl_forward_layer(f, index, i, n, pos0 + i));
        KVCL_TRY(kvcl_queue_wait(f->q));
        /* done: as if the layers so far had been the work of that many whole tokens */
        uint64_t steps = (uint64_t)index * p->n + i + n;
        if (steps < (uint64_t)p->n * n_layers)
            KVCL_TRY(tell(s, p, (uint32_t)(steps / n_layers)));
    }
    KVCL_TRY(kvcl_cache_layer_end(s->cache, f->q, index));
    for (uint32_t j = 1; j < n_all; j++)
        KVCL_TRY(kvcl_cache_layer_take(all[j]->cache, f->q, index, s->cache));
    return KVCL_OK;
}

static kvcl_status by_layers(kvcl_session *const *all, uint32_t n_all, const kvcl_prompt *p)
{
    kvcl_session *s = all[0];
    kvcl_forward *f = &s->forward;
    uint32_t pos0 = kvcl_session_n_tokens(s);
    KVCL_TRY(kvcl_cache_prompt_begin(s->cache, f->q, p->n));
    for (uint32_t i = 0, n; i < p->n; i += n) {
        n = kvcl_min_u32(f->n_batch, p->n - i);
        KVCL_TRY(kvcl_forward_embed(f, p->tokens + i, i, n, pos0 + i));
    }
    for (uint32_t i = 0; i < s->engine->model->hp.n_layers; i++)
        KVCL_TRY(layer(all, n_all, p, i));
    KVCL_TRY(read_logits(s, p, 0, 0, p->n));
    KVCL_TRY(kvcl_queue_wait(f->q));
    for (uint32_t j = 0; j < n_all; j++)
        KVCL_TRY(kvcl_cache_prompt_end(all[j]->cache, f->q));
    return tell(s, p, p->n);
}

/* A prompt that failed half way has overwritten rows of older tokens: the caches are emptied. */
static kvcl_status tiered(kvcl_session *const *all, uint32_t n_all, const kvcl_prompt *p)
{
    kvcl_status st = by_layers(all, n_all, p);
    if (st != KVCL_OK) {
        (void)kvcl_queue_wait(all[0]->forward.q);
        for (uint32_t j = 0; j < n_all; j++)
            kvcl_cache_clear(all[j]->cache);
    }
    return st;
}

static kvcl_status check(kvcl_session *s, const kvcl_prompt *p)
{
    KVCL_CHECK(s->ctx, p->n > 0 && p->tokens && p->n_logits <= p->n && (p->logits || !p->n_logits),
               KVCL_E_ARG, "prefill: no tokens, or more logits than tokens");
    return kvcl_session_check_tokens(s, p->tokens, p->n);
}

kvcl_status kvcl_session_prefill(kvcl_session *s, const int32_t *tokens, uint32_t n_tokens,
                                 uint32_t n_logits, float *logits, kvcl_prefill_fn progress,
                                 void *user)
{
    kvcl_prompt p = {tokens, n_tokens, n_logits, logits, progress, user};
    KVCL_TRY(check(s, &p));
    return kvcl_cache_is_tiered(s->cache) ? tiered(&s, 1, &p) : by_chunks(s, &p);
}

/* The tiered session of the n in `left` that has most of what others may want: keys before
 * rotation, moments of queries.  n when none is tiered. */
static uint32_t pick_leader(kvcl_session *const *left, uint32_t n)
{
    uint32_t best = n, best_has = 0;
    for (uint32_t i = 0; i < n; i++) {
        const kvcl_cache_layout *l = kvcl_cache_get_layout(left[i]->cache);
        uint32_t has = 1 + (l->staging.has_ku ? 1u : 0u) + l->n_metrics;
        if (l->opt.n_tiers && has > best_has)
            best = i, best_has = has;
    }
    return best;
}

/* Moves a leader and those that it serves to the front of `left`; returns how many these are.  0:
 * none is tiered. */
static uint32_t gather(kvcl_session **left, uint32_t n)
{
    uint32_t leader = pick_leader(left, n), n_served = 1;
    if (leader == n)
        return 0;
    kvcl_session *first = left[leader];
    left[leader] = left[0];
    left[0] = first;
    for (uint32_t i = 1; i < n; i++) {
        kvcl_session *s = left[i];
        if (!kvcl_cache_layout_serves(kvcl_cache_get_layout(first->cache),
                                      kvcl_cache_get_layout(s->cache)))
            continue;
        left[i] = left[n_served];
        left[n_served++] = s;
    }
    return n_served;
}

/* Those that no other one serves compute the prompt for themselves. */
static kvcl_status by_groups(kvcl_session **left, uint32_t n, const kvcl_prompt *p)
{
    for (uint32_t some; n > 0; left += some, n -= some) {
        some = gather(left, n);
        KVCL_TRY(some ? tiered(left, some, p) : by_chunks(left[0], p));
        some = kvcl_max_u32(some, 1);
    }
    return KVCL_OK;
}

#define SHARED_MAX 64

kvcl_status kvcl_session_prefill_shared(kvcl_session *const *sessions, uint32_t n_sessions,
                                        const int32_t *tokens, uint32_t n_tokens, uint32_t n_logits,
                                        float *logits, kvcl_prefill_fn progress, void *user)
{
    kvcl_prompt p = {tokens, n_tokens, n_logits, logits, progress, user};
    if (!n_sessions)
        return KVCL_E_ARG;
    kvcl_ctx *ctx = sessions[0]->ctx;
    KVCL_CHECK(ctx, n_sessions <= SHARED_MAX, KVCL_E_ARG, "%u sessions: at most %d share a prompt",
               (unsigned)n_sessions, SHARED_MAX);
    for (uint32_t i = 0; i < n_sessions; i++)
        KVCL_CHECK(ctx,
                   sessions[i]->engine == sessions[0]->engine &&
                       kvcl_session_n_tokens(sessions[i]) == 0,
                   KVCL_E_ARG, "sessions that share a prompt must be empty and of one engine");
    KVCL_TRY(check(sessions[0], &p));
    kvcl_session *order[SHARED_MAX];
    memcpy(order, sessions, n_sessions * sizeof(kvcl_session *));
    kvcl_status st = by_groups(order, n_sessions, &p);
    for (uint32_t i = 0; i < n_sessions && st != KVCL_OK; i++)
        (void)kvcl_session_rewind(sessions[i], 0);
    return st;
}
