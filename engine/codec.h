/* codec.h - a codec turns raw pages (64 tokens of one layer) into coded pages and answers attention
 * on them.
 *
 * A codec is a table of four functions over the compute ops; it knows no other codec, no tier and
 * no device.  The five laws every codec keeps on every backend (tests/test_codec.c):
 *   1. attend(coded) = attn_raw(decode(coded)): the fused kernel is right, however lossy the codec
 *   2. the bytes written are those that plan() said
 *   3. encode gives the same bytes on every backend
 *   4. the error reported is the error of the decoded page
 *   5. a page that was moved (saved, loaded, sent to another device) answers with the same bits */
#ifndef KVCL_CODEC_H
#define KVCL_CODEC_H

#include "dev.h"

#define KVCL_CODEC_NAME_CAP 48
#define KVCL_CODEC_PARTS 4

/* What a layer's keys and values look like, and how keys are rotated. */
typedef struct kvcl_kv_shape {
    uint32_t n_q_heads, n_kv_heads, head_dim, n_rot;
    kvcl_rope_pairing pairing;
    float scale; /* of q . k */
} kvcl_kv_shape;

/* A codec with its settings, from a name like "quant4", "quant-k3v2/post", "q8_0" or "raw". */
typedef struct kvcl_codec_spec {
    char name[KVCL_CODEC_NAME_CAP]; /* canonical */
    const struct kvcl_codec_ops *ops;
    uint32_t bits_k, bits_v; /* quant; spectral: in quarters of a bit */
    uint32_t fold;           /* spectral, rest: tokens of a slot */
    uint32_t rate;           /* rest: hundredths of a bit */
    uint32_t first;          /* of codecs that learn: the tokens, whole pages, that they learn from
                              * at most; 0: all that are there */
    uint32_t again;          /* hundredths: the basis is learned anew when pages cost so much more
                              * than those it was learned from; 0: never */
    kvcl_quant_form form;
    uint32_t slot_tokens;    /* holo; factor: 0 */
    uint32_t rank_k, rank_v; /* factor */
    kvcl_holo_form holo;
    bool unscaled; /* holo: scores as they are read, not divided by the root of slot_tokens */
    kvcl_type type_k, type_v; /* raw: F16 or F32; block: Q8_0 or Q4_0 */
} kvcl_codec_spec;

/* One raw page or several, and the settings of the op that reads them. */
typedef struct kvcl_codec_raw {
    kvcl_view k, v, page_table; /* pools; i32 slots [n_pages] */
    const int32_t *slots;       /* the same slots on the host */
    kvcl_type type_k, type_v;
    uint32_t first_page, n_pages, n_skip;
} kvcl_codec_raw;

/* Coded pages.  pool[1] is absent but for raw (keys in pool[0], values in pool[1]). */
typedef struct kvcl_codec_pages {
    kvcl_view pool[2], table;
    const int32_t *slots;
    kvcl_view means; /* f32 [KVCL_MEAN_EPOCHS][2][Hk][D], or [2][Hk][D]; absent when the
                        plan wants none */
    kvcl_view rope;  /* the rotation table; absent without rotation */
    kvcl_view basis; /* what the codec learned of this layer; absent when the plan wants none */
    kvcl_view bad;   /* i32 [n_pages][Hk]; see ops_code.h */
    /* what the plan wants besides: the codec's tables; work_bytes of encode, or of attend and
     * decode, undefined between calls; u32, 1 + the largest number of a damaged page that attend
     * and decode met, kept where it is larger */
    kvcl_view tables, work, fault;
} kvcl_codec_pages;

/* What plan() says of a page of this codec. */
typedef struct kvcl_codec_plan {
    kvcl_codec_spec spec;
    kvcl_kv_shape shape;
    size_t pool_bytes[2]; /* of one page in each pool; [1] is 0 but for raw */
    size_t page_bytes;    /* their sum */
    const char *part_name[KVCL_CODEC_PARTS];
    size_t part_bytes[KVCL_CODEC_PARTS];
    size_t basis_bytes; /* of one layer; 0: the codec learns nothing */
    bool by_block;      /* a basis for each block of 8 pages (page / 8) of a layer instead, learned
                         * from its rows; means are 0; later blocks get that of the last one */
    bool one_mean;      /* of a layer, instead of one for each epoch */
    uint32_t join;      /* 0, or heads whose rows are one for the moments to learn from */
    size_t table_bytes; /* the same for all; 0: none, and no work nor fault */
    size_t encode_bytes, attend_bytes; /* of work */
    bool lossy;
    bool unrotated;   /* encode wants K as it was before rotation */
    bool wants_means; /* encode and attend want the sequence's means */
    double bits_per_elem;
} kvcl_codec_plan;

/* What a codec with a basis learns it from: moments of a layer's rows less their mean (ops_fit.h),
 * on the host. */
typedef struct kvcl_codec_moments {
    const float *gram;   /* [2][Hk][fold][D][D] of n_slots slots; of joined heads: [2][Hk / join]
                            [fold][D join][D join] */
    const float *metric; /* [Hk][D][D]: moments of queries before rotation; NULL: not known */
    const float *table;  /* the rotation table's rows of the distances below n_span that a fit looks
                          * at (spectral_fit.h); NULL without rotation */
    uint32_t n_slots, n_span;
} kvcl_codec_moments;

typedef struct kvcl_codec_ops {
    const char *name; /* "raw", "quant", "block" */

    /* True when the codec knows `name`; fills spec (all but ops). */
    bool (*parse)(const char *name, kvcl_codec_spec *spec);

    /* Pure: sizes for this shape, or E_UNSUPPORTED and a sentence why.  Fills what differs from
     * zero; spec and shape are already there. */
    kvcl_status (*plan)(kvcl_ctx *ctx, kvcl_codec_plan *plan);

    /* Raw pages to coded pages.  Enqueues. */
    kvcl_status (*encode)(kvcl_queue *q, const kvcl_codec_plan *plan, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out);

    /* Queries to block partials: in->page_table is set from pages->table by the codec.  Enqueues.
     */
    kvcl_status (*attend)(kvcl_queue *q, const kvcl_codec_plan *plan, const kvcl_codec_pages *pages,
                          const kvcl_attn_in *in);

    /* Coded pages to raw pages, K rotated; for tests and quality figures, never while decoding.
     * unrotated: K as encode got it (only where the plan says so).  Enqueues. */
    kvcl_status (*decode)(kvcl_queue *q, const kvcl_codec_plan *plan, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated);

    /* Where the plan says table_bytes: the tables. */
    void (*fill)(const kvcl_codec_plan *plan, void *tables_out);

    /* Where the plan says basis_bytes: the basis of one layer. */
    kvcl_status (*learn)(kvcl_ctx *ctx, const kvcl_codec_plan *plan,
                         const kvcl_codec_moments *moments, void *basis_out);
} kvcl_codec_ops;

/* The tokens from the first on that a codec learns from at most: UINT32_MAX without "/firstN"; 0:
 * it learns nothing. */
static inline uint32_t kvcl_codec_learn_tokens(const kvcl_codec_plan *p)
{
    return !p->basis_bytes ? 0 : p->spec.first ? p->spec.first : UINT32_MAX;
}

/* Heads of a row, and dimensions, as its moments are gathered. */
static inline uint32_t kvcl_codec_join(const kvcl_codec_plan *p)
{
    return p->join > 1 ? p->join : 1;
}

extern const kvcl_codec_ops kvcl_codec_raw_ops, kvcl_codec_quant_ops, kvcl_codec_block_ops,
    kvcl_codec_spectral_ops, kvcl_codec_rest_ops, kvcl_codec_holo_ops;

/* For parse(): past `word` at the front of `text`; false, nothing moved, when something else is
 * there. */
bool kvcl_codec_take_word(const char **text, const char *word);
/* Any codec by name, with "/firstN" and "/againR" behind it or not; E_ARG with the list of names
 * when there is none such. */
kvcl_status kvcl_codec_parse(kvcl_ctx *ctx, const char *name, kvcl_codec_spec *out);
/* All names that stand for something different, for help and sweeps; NULL at the end. */
const char *const *kvcl_codec_names(void);
kvcl_status kvcl_codec_plan_make(kvcl_ctx *ctx, const kvcl_codec_spec *spec,
                                 const kvcl_kv_shape *shape, kvcl_codec_plan *out);

#endif
