/* cache.h - the key/value cache of one sequence: a hot tier of raw pages, sinks, and up to two
 * tiers of coded pages.
 *
 * Which token is read where, for a query at position pos, is a function of pos and the options
 * alone, never of devices, batches or how a prompt was cut:
 *
 *   B = pos + 1 - hot tokens (0 when negative, or without other tiers; during a prompt: of its
 * first token) tokens [B, pos]              raw, from the hot tier (a prompt's own tokens: from
 * staging) tokens [0, min(n_sink, B))   raw, from the sink page (only beside lossy tiers) the rest
 * below B             from their code: the newest in the first tier, and from whole pages older
 * than that tier's capacity in the next one
 *
 * A page is coded once for each tier, from exact rows, before its first token leaves the hot
 * window. A prompt is attended exactly: it goes through the model layer by layer, one layer's raw
 * rows wait in staging, and pages are coded when the layer is done.
 *
 * With drop_oldest nobody answers for tokens beyond what the last tier is asked to hold, counted up
 * to whole pages (kvcl_cache_dropped); a prompt's own queries still read all of it.
 *
 * Regions in the order sinks, oldest tier ... first tier, raw give block partials (ops_kv.h), which
 * merge in that order. */
#ifndef KVCL_CACHE_H
#define KVCL_CACHE_H

#include "tier.h"

#define KVCL_CACHE_TIERS (KVCL_MAX_TIERS - 1) /* below the hot one */

/* How keys and queries are rotated on their way in; KVCL_ROPE_NONE: not at all. */
typedef struct kvcl_cache_rope {
    kvcl_rope_pairing pairing;
    uint32_t n_rot;
    kvcl_view table; /* f32 [n_ctx][n_rot/2][2] */
} kvcl_cache_rope;

typedef struct kvcl_cache_tier {
    kvcl_dev *dev; /* keeps */
    bool on_disk;  /* dev is NULL */
    kvcl_codec_spec codec;
    uint32_t tokens; /* capacity; 0: all that is left (the last tier only) */
} kvcl_cache_tier;

typedef struct kvcl_cache_options {
    uint32_t n_layers, n_ctx;
    uint32_t n_batch; /* most queries of one call */
    kvcl_kv_shape shape;
    kvcl_type type_k, type_v; /* of raw rows */
    uint32_t n_hot, n_sink;   /* tokens; n_hot is not used without further tiers */
    bool drop_oldest; /* a last tier with a number of tokens drops older pages; sinks stay */
    uint32_t n_tiers; /* below the hot one */
    kvcl_cache_tier tiers[KVCL_CACHE_TIERS];
    const char *tier_dir; /* of tiers on disk; keeps */
} kvcl_cache_options;

/* Sizes of all that a cache allocates: pure, so that it can be told before. */
typedef struct kvcl_cache_layout {
    kvcl_cache_options opt; /* with n_hot and n_sink as used */
    uint32_t n_pages, n_parts, n_queries;
    kvcl_raw_pages hot, sink, staging; /* sink, staging: beside tiers only */
    kvcl_tier_setup setups[KVCL_CACHE_TIERS];
    kvcl_tier tiers[KVCL_CACHE_TIERS];
    size_t ml_bytes, o_bytes;
    /* moments of a layer's queries, where tiers' codecs learn: one for each number of tokens from
     * the first on (UINT32_MAX: all) that some tier learns from */
    uint32_t n_metrics, metric_tokens[KVCL_CACHE_TIERS];
    size_t metric_bytes; /* of one */
} kvcl_cache_layout;

/* E_ARG or E_UNSUPPORTED with a sentence when the options cannot be.  rope_bytes: of the rotation
 * table. */
kvcl_status kvcl_cache_layout_make(kvcl_dev *dev, const kvcl_cache_options *opt, size_t rope_bytes,
                                   kvcl_cache_layout *out);
/* May a cache of the second layout be filled from a prompt that one of the first computes? */
bool kvcl_cache_layout_serves(const kvcl_cache_layout *from, const kvcl_cache_layout *to);
/* Which of the metrics is that of `tokens` tokens; n_metrics when there is none. */
uint32_t kvcl_cache_layout_metric(const kvcl_cache_layout *l, uint32_t tokens);
/* Bytes of partials, tables and (with `there`) what tier i needs on its own device. */
size_t kvcl_cache_layout_scratch(const kvcl_cache_layout *l);

/* First token behind those that are dropped where raw rows begin at token raw_begin; a multiple of
 * 64, 0: none are. */
uint32_t kvcl_cache_dropped(const kvcl_cache_layout *l, uint32_t raw_begin);

typedef struct kvcl_cache kvcl_cache;

/* keeps queue's device; all memory is allocated here.  The queue borrows. */
kvcl_status kvcl_cache_create(kvcl_queue *q, const kvcl_cache_options *opt,
                              const kvcl_cache_rope *rope, kvcl_cache **out);
void kvcl_cache_free(kvcl_cache *cache);
const kvcl_cache_layout *kvcl_cache_get_layout(const kvcl_cache *cache);
/* True when there are tiers below the hot one: prompts then go layer by layer. */
bool kvcl_cache_is_tiered(const kvcl_cache *cache);
void kvcl_cache_stats_get(const kvcl_cache *cache, kvcl_cache_stats *out);

/* ---- positions ----------------------------------------------------------------------------- */

uint32_t kvcl_cache_n_tokens(const kvcl_cache *cache);
/* Forgets tokens from n on: E_ARG when exact rows that are needed again are gone. */
kvcl_status kvcl_cache_rewind(kvcl_cache *cache, uint32_t n);
/* All pages and positions of a cache with the same options. */
kvcl_status kvcl_cache_copy(kvcl_cache *dst, kvcl_cache *src, kvcl_queue *q);

/* Before a step of n tokens: which region each query reads.  E_NOT_FINITE when a page that the
 * step needs was refused. */
kvcl_status kvcl_cache_begin(kvcl_cache *cache, kvcl_queue *q, uint32_t n);
/* After the step was waited for: its tokens count, pages that are due are coded (on a second queue
 * where the device has one). */
kvcl_status kvcl_cache_end(kvcl_cache *cache, kvcl_queue *q, uint32_t n);

/* ---- a layer of a step --------------------------------------------------------------------- */

/* Rotates q in place and k on its way, stores the K and V of n tokens at positions pos0 ... of a
 * layer.  qkv f32 [n] rows `stride` apart, [Hq*D | Hk*D | Hk*D].  pos0 + n <= n_ctx.  Enqueues. */
kvcl_status kvcl_cache_store(kvcl_cache *cache, kvcl_queue *q, uint32_t layer, kvcl_view qkv,
                             uint32_t stride, uint32_t n, uint32_t pos0);

/* Attention of n queries at positions pos0 ..., each over all tokens up to its own, which are
 * stored.  queries f32 [n] rows q_stride apart, [Hq][D]; out f32 [n][Hq*D] contiguous.  Enqueues.
 */
kvcl_status kvcl_cache_attend(kvcl_cache *cache, kvcl_queue *q, uint32_t layer, kvcl_view queries,
                              uint32_t q_stride, uint32_t n, uint32_t pos0, kvcl_view out);

/* ---- a prompt through a tiered cache ------------------------------------------------------- */

/* Like begin, for a prompt of n tokens that goes layer by layer through staging. */
kvcl_status kvcl_cache_prompt_begin(kvcl_cache *cache, kvcl_queue *q, uint32_t n);
/* Before the first tokens of a layer are stored; after the last were attended. */
kvcl_status kvcl_cache_layer_begin(kvcl_cache *cache, kvcl_queue *q, uint32_t layer);
kvcl_status kvcl_cache_layer_end(kvcl_cache *cache, kvcl_queue *q, uint32_t layer);
/* Fills a layer of `cache`, which is empty, with the prompt that `from` has just computed. */
kvcl_status kvcl_cache_layer_take(kvcl_cache *cache, kvcl_queue *q, uint32_t layer,
                                  kvcl_cache *from);
/* The prompt's tokens count; E_NOT_FINITE when a page was refused. */
kvcl_status kvcl_cache_prompt_end(kvcl_cache *cache, kvcl_queue *q);
/* The prompt was stopped: the cache is empty again. */
void kvcl_cache_clear(kvcl_cache *cache);

#endif
