/* cache_int.h - inside of kvcl_cache, for cache*.c. */
#ifndef KVCL_CACHE_INT_H
#define KVCL_CACHE_INT_H

#include "cache.h"

struct kvcl_cache {
    kvcl_dev *dev;
    kvcl_cache_layout l; /* sizes and, once created, memory */
    kvcl_cache_rope rope;
    kvcl_buf *ml, *o;
    kvcl_buf *metric;  /* f32 [n_metrics][Hk][D][D]: moments of the prompt's queries at one layer */
    kvcl_queue *coder; /* a second queue of the device, or NULL: the caller's is used */

    uint32_t n_tokens;
    uint32_t raw_low;  /* first position whose raw rows the hot ring still has */
    uint32_t n_coded;  /* pages that are coded */
    uint32_t n_passed; /* pages whose code was found good */
    bool has_sink;

    /* the step that is going on */
    uint32_t n_step, raw_begin; /* its tokens; B */
    bool in_prompt;
};

/* Pages that must be coded before the query at position n.  No query stands behind the last
 * position, so no page is coded that tiers have no slot for. */
static inline uint32_t kvcl_cache_pages_due(const kvcl_cache *c, uint32_t n)
{
    uint32_t hot = c->l.opt.n_hot;
    n = kvcl_min_u32(n, c->l.opt.n_ctx - 1);
    return c->l.opt.n_tiers && n >= hot ? (n - hot) / KVCL_PAGE_TOKENS + 1 : 0;
}

/* True while the prompt's queries are counted: what is learned of a layer is not learned yet. */
static inline bool kvcl_cache_counts_queries(const kvcl_cache *c)
{
    return c->metric && c->in_prompt && c->n_coded == 0;
}

/* One of c->metric. */
static inline kvcl_view kvcl_cache_metric(const kvcl_cache *c, uint32_t i)
{
    return (kvcl_view){c->metric, i * c->l.metric_bytes, c->l.metric_bytes};
}

/* Where this step's raw rows are: staging during a prompt. */
static inline const kvcl_raw_pages *kvcl_cache_raw(const kvcl_cache *c, uint32_t *layer)
{
    if (!c->in_prompt)
        return &c->l.hot;
    *layer = 0;
    return &c->l.staging;
}

#endif
