/* cmd_frontier.h - the parts of kvcl frontier: sketches of keys, what they prove about scores,
 * rules that leave tokens unread, reports.
 *
 * Notation: q a query times the attention scale, k a key after rotation as the cache has it (f16),
 * s = q . k their score, both in floats.  A sketch of k gives an estimate of s and how far off it
 * can be.  A token is cold unless it is among the first (sinks) or newest (hot) ones. */
#ifndef KVCL_CMD_FRONTIER_H
#define KVCL_CMD_FRONTIER_H

#include "cmd.h"
#include "ops_kv.h"

#define KVCL_FRONTIER_SKETCHES 24
#define KVCL_FRONTIER_RULES 12
#define KVCL_FRONTIER_TOPS 3 /* 8, 32, 64 best tokens */
#define KVCL_FRONTIER_MAX_K 1024
#define KVCL_FRONTIER_CLUSTERS 8
#define KVCL_FRONTIER_NAME 24

/* ---- names of sketches and rules (cmd_frontier_spec.c) -------------------------------------- */

typedef enum kvcl_frontier_kind {
    KVCL_SKETCH_ORACLE,   /* the scores themselves: what no sketch can pass */
    KVCL_SKETCH_RANDOM,   /* rp<s>: s Gaussian projections, the source's form; proves nothing.
                             kmeans<s>: the same in clusters, which are ruled out as a whole */
    KVCL_SKETCH_PCA,      /* pca<s>[/int4]: the first s coordinates of a basis, and the norm of the
                             rest */
    KVCL_SKETCH_WHITENED, /* whitened<s>[/int4] */
    KVCL_SKETCH_BALANCED, /* balanced<s>[/int4] */
    KVCL_SKETCH_LEVELS,   /* lm<b>/pre, lm<b>/post: all of the key in b bits, as codec quant<b> */
    KVCL_SKETCH_BOX       /* box<n>: least and largest value of each dimension over n tokens */
} kvcl_frontier_kind;

typedef struct kvcl_frontier_spec {
    char name[KVCL_FRONTIER_NAME];
    kvcl_frontier_kind kind;
    uint32_t n;    /* coordinates; bits; tokens of a box */
    uint32_t bits; /* of a coordinate: 8 or 4 */
    bool post;     /* LEVELS: coded after rotation */
    bool grouped;  /* RANDOM: kmeans */
} kvcl_frontier_spec;

typedef enum kvcl_frontier_aim { KVCL_AIM_TOP, KVCL_AIM_MASS, KVCL_AIM_THETA } kvcl_frontier_aim;

typedef struct kvcl_frontier_rule {
    char name[KVCL_FRONTIER_NAME];
    kvcl_frontier_aim aim;
    uint32_t k;   /* TOP */
    double value; /* MASS: delta; THETA */
    double z;     /* above 0: errors are taken for z standard deviations; proves nothing */
} kvcl_frontier_rule;

/* Words with comma between; E_ARG with a sentence for bad ones. */
kvcl_status kvcl_frontier_specs_read(kvcl_ctx *ctx, const char *list, kvcl_frontier_spec *out,
                                     uint32_t *n_out);
kvcl_status kvcl_frontier_rules_read(kvcl_ctx *ctx, const char *list, kvcl_frontier_rule *out,
                                     uint32_t *n_out);
/* Why a sketch does not suit heads of D dimensions; NULL when it does. */
const char *kvcl_frontier_spec_unfit(const kvcl_frontier_spec *s, uint32_t D);
/* Bytes per token and KV head; bases, means and scales, which a sequence has once, not counted. */
double kvcl_frontier_spec_bytes(const kvcl_frontier_spec *s, uint32_t D);
/* THETA is for RANDOM alone, and RANDOM for THETA alone. */
static inline bool kvcl_frontier_fits(const kvcl_frontier_spec *s, const kvcl_frontier_rule *r)
{
    return (s->kind == KVCL_SKETCH_RANDOM) == (r->aim == KVCL_AIM_THETA);
}
static inline bool kvcl_frontier_proves(const kvcl_frontier_spec *s, const kvcl_frontier_rule *r)
{
    return s->kind != KVCL_SKETCH_RANDOM && r->z <= 0;
}

/* ---- bases (cmd_frontier_basis.c) ----------------------------------------------------------- */

/* to_key, to_query [D][D] with (to_query q) . (to_key k) = q . k, the most important coordinate
 * first; from the second moments of centred keys and of queries, [D][D] each:
 *   PCA       both the eigenvectors of the keys' moments
 *   WHITENED  R = queries^(1/2) (with a ridge), R keys R = U S^2 U^T: U^T R and U^T R^-1
 *   BALANCED  the same times S^(-1/2) and S^(1/2): both get the moments S
 * work [kvcl_frontier_basis_work(D)].  *defect gets |to_query^T to_key - 1|, Frobenius.  False when
 * an eigenproblem did not converge.  source: balanced truncation of linear systems (Moore 1981). */
bool kvcl_frontier_basis(kvcl_frontier_kind kind, uint32_t D, const double *keys,
                         const double *queries, double *work, double *to_key, double *to_query,
                         double *defect);
size_t kvcl_frontier_basis_work(uint32_t D); /* doubles */

/* ---- sketches of one KV head (cmd_frontier_sketch.c, _code.c, _random.c) -------------------- */

/* What a sketch is made from.  Everything borrows. */
typedef struct kvcl_frontier_keys {
    uint32_t T, D, n_sinks; /* moments and means leave the sinks out */
    uint32_t n_rot;
    kvcl_rope_pairing pairing;
    const float *table;      /* [T][n_rot/2][2] angles; NULL without rotation */
    const float *pre, *post; /* [T][D] before and after rotation, as the cache rounds them */
    const double *queries;   /* [D][D] second moments of the group's queries; zeros: none known */
    uint32_t seed;           /* RANDOM */
} kvcl_frontier_keys;

/* Errors of a token: |q . k - estimate| <= |b| in + |b'| out, b and b' the query's coordinates
 * inside and outside of the sketch (Cauchy-Schwarz), + slack for rounding. */
typedef struct kvcl_frontier_sketch {
    const kvcl_frontier_spec *spec;
    uint32_t T, D, s; /* s: coordinates; D for LEVELS */
    float *code;      /* [T][s] decoded; BOX: [pages][2][D] */
    float *in, *out;  /* [T] norms, decoded from a byte each: never below the true ones */
    double *to_query; /* [D][D]; rows 0 .. s - 1 are used for b, the others for b' */
    float *random;    /* RANDOM: [s][D] */
    /* ... grouped: [T] a token's cluster, [KVCL_FRONTIER_CLUSTERS][s] their means, the largest
     * distance from them */
    uint8_t *cluster;
    float *center;
    double radius[KVCL_FRONTIER_CLUSTERS];
    float *mean; /* [D]: coordinates are those of k - mean */
    /* what bounds rounding, with |q| and |b|: the largest |k| and |mean|, the largest row of code,
     * how far the two maps of a basis are from being inverse */
    double reach, reach_code, defect;
} kvcl_frontier_sketch;

/* Memory of a sketch of up to T tokens, of any kind; everything else is scratch. */
kvcl_status kvcl_frontier_sketch_create(kvcl_ctx *ctx, uint32_t T, uint32_t D,
                                        kvcl_frontier_sketch *out);
void kvcl_frontier_sketch_free(kvcl_ctx *ctx, kvcl_frontier_sketch *s);
/* Fills it; work [kvcl_frontier_sketch_work(T, D)].  Allocates nothing.  False when an eigenproblem
 * did not converge. */
bool kvcl_frontier_sketch_make(const kvcl_frontier_spec *spec, const kvcl_frontier_keys *keys,
                               double *work, kvcl_frontier_sketch *out);
size_t kvcl_frontier_sketch_work(uint32_t T, uint32_t D); /* doubles */
/* ... and its parts for the kinds: RANDOM, LEVELS, BOX. */
void kvcl_frontier_code_random(const kvcl_frontier_keys *keys, kvcl_frontier_sketch *out);
void kvcl_frontier_code_levels(const kvcl_frontier_keys *keys, double *norms,
                               kvcl_frontier_sketch *out);
void kvcl_frontier_code_box(const kvcl_frontier_keys *keys, kvcl_frontier_sketch *out);

/* Norms as bytes of a logarithmic scale, 1/32 octave a step below the largest, rounded up; out gets
 * the values of the bytes.  Norms 1/250 of the largest and below share the lowest. */
void kvcl_frontier_norms(uint32_t n, const double *norms, float *out);

/* low[t] <= q . k_t <= high[t], as floats compute the product in any order, for t < n; z > 0:
 * errors of z standard deviations instead, which prove nothing.  score [n]: the true ones, for
 * ORACLE. RANDOM: the source's bound,
 * which is none: estimate -+ epsilon + sigma, .05 each; grouped, no more than the score of the
 * cluster's mean, its radius and these. */
void kvcl_frontier_bounds(const kvcl_frontier_sketch *s, const float *q, const float *score,
                          uint32_t n, double scale, double z, float *low, float *high);

void kvcl_frontier_bounds_random(const kvcl_frontier_sketch *s, const float *q, uint32_t n,
                                 double scale, float *low, float *high);

/* q . k, one rounding for each product and sum. */
float kvcl_frontier_dot(const float *a, const float *b, uint32_t n);

/* ---- rules (cmd_frontier_rule.c) ------------------------------------------------------------ */

extern const uint32_t kvcl_frontier_tops[KVCL_FRONTIER_TOPS];

/* One query of one head: tokens 0 .. n - 1, [begin, end) of them cold. */
typedef struct kvcl_frontier_query {
    uint32_t n, begin, end;
    const float *score;            /* [n] */
    const double *weight;          /* [n] exp(score - max) */
    double max, total;             /* of scores; sum of weights */
    float top[KVCL_FRONTIER_TOPS]; /* the 8th, 32nd, 64th largest score */
} kvcl_frontier_query;

/* Bounds of the cold tokens and their order. */
typedef struct kvcl_frontier_bound {
    const float *low, *high; /* [n] */
    uint32_t *order;         /* [end - begin] cold tokens by falling high */
    double *sums;            /* [end - begin + 1] of exp(high - max) from this place of order on */
} kvcl_frontier_bound;

/* Fills order and sums; keys, spare [end - begin]. */
void kvcl_frontier_bound_sort(const kvcl_frontier_query *q, uint32_t *keys, uint32_t *spare,
                              kvcl_frontier_bound *b);

/* The k-th largest of n values of a heap that was filled with kvcl_frontier_push; -inf when there
 * are fewer. */
typedef struct kvcl_frontier_heap {
    uint32_t k, n;
    float v[KVCL_FRONTIER_MAX_K];
} kvcl_frontier_heap;
void kvcl_frontier_push(kvcl_frontier_heap *h, float x);
float kvcl_frontier_least(const kvcl_frontier_heap *h);

/* Marks in kept [n] the cold tokens that must be read: 1, others 0.  One-shot knows the exact
 * scores of hot tokens alone; a scan reads cold ones by falling upper bound and knows what it has
 * read.
 *   TOP one-shot   reads where high >= the k-th largest of low and hot scores
 *   TOP scan       stops where high < the k-th largest of hot scores and scores read
 *   MASS one-shot  leaves the lowest, sum exp(high) <= delta (sum exp(hot) + sum exp(low))
 *   MASS scan      stops where the rest's sum exp(high) <= delta/(1 - delta) sum exp(hot and read)
 *   THETA          reads where high >= theta (one-shot alone)
 * Returns the certificate: MASS with proved bounds loses no larger part of the weights.
 * source: branch and bound; the mass rule: this project. */
double kvcl_frontier_apply(const kvcl_frontier_rule *rule, bool scan, const kvcl_frontier_query *q,
                           const kvcl_frontier_bound *b, uint8_t *kept);

/* ---- results -------------------------------------------------------------------------------- */

/* One sketch, rule, way and head; sums over queries. */
typedef struct kvcl_frontier_cell {
    double eliminated;                 /* part of the cold tokens */
    double lost, lost_max;             /* part of the weights */
    double certificate_max;            /* MASS */
    double missed[KVCL_FRONTIER_TOPS]; /* eliminated ones of the k best, part of k */
    double kept_by_group;              /* part of the cold tokens that a head of the group reads */
    uint64_t n_broken; /* promises: a missed one of k, more lost than certified or than delta */
} kvcl_frontier_cell;

/* Cold tokens whose score lies outside of [low, high]. */
uint64_t kvcl_frontier_violations(const kvcl_frontier_query *q, const float *low,
                                  const float *high);
/* Adds what a rule did to a query. */
void kvcl_frontier_count(const kvcl_frontier_rule *rule, bool proves, double certificate,
                         const kvcl_frontier_query *q, const uint8_t *kept,
                         kvcl_frontier_cell *cell);

typedef struct kvcl_frontier_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    const char *text, *sketches, *rules, *layers, *heads, *csv, *plots;
    int64_t n_positions, n_hot, n_sinks;
    bool json;
} kvcl_frontier_opts;

typedef struct kvcl_frontier {
    kvcl_app app;
    const kvcl_frontier_opts *o;
    uint32_t n_layers, n_heads, n_kv_heads, D, n_rot;
    kvcl_rope_pairing pairing;
    double scale;                  /* of scores */
    uint32_t T, n_queries, stride; /* queries at T - 1 - i stride */
    uint32_t n_specs, n_rules;
    kvcl_frontier_spec specs[KVCL_FRONTIER_SKETCHES];
    kvcl_frontier_rule rules[KVCL_FRONTIER_RULES];
    bool *layer, *head;        /* chosen */
    float **keys;              /* [n_layers] [T][Hk][D] before rotation; NULL: not chosen */
    float **queries;           /* [n_layers] [n_queries][Hq][D] after it */
    double **moments;          /* [n_layers] [Hk][D][D] of the queries before the first of these */
    float *table;              /* of rotation; NULL without */
    kvcl_frontier_cell *cells; /* [n_specs][n_rules][2: one-shot, scan][n_layers][Hq] */
    uint64_t *n_violated;      /* [n_specs][n_layers][Hq] pairs of query and token out of bounds */
} kvcl_frontier;

static inline kvcl_frontier_cell *kvcl_frontier_cell_at(const kvcl_frontier *f, uint32_t spec,
                                                        uint32_t rule, uint32_t scan,
                                                        uint32_t layer, uint32_t head)
{
    size_t at = ((size_t)spec * f->n_rules + rule) * 2 + scan;
    return &f->cells[(at * f->n_layers + layer) * f->n_heads + head];
}

/* Measures all chosen heads, on threads; cells and n_violated are there and zero. */
kvcl_status kvcl_frontier_run(kvcl_frontier *f);

/* ---- reports (cmd_frontier_sum.c, cmd_frontier_report.c, cmd_frontier_plot.c) ---------------- */

/* A sketch, rule and way over the chosen heads. */
typedef struct kvcl_frontier_sum {
    bool is_there;
    double eliminated, worst; /* mean, least of the heads */
    uint32_t worst_layer, worst_head;
    double missed[KVCL_FRONTIER_TOPS];
    double lost, lost_max, certificate_max;
    double kept_by_group;
    double read; /* bytes per token of sketch and survivors, part of K and V in f16 */
    uint64_t n_broken, n_violated;
} kvcl_frontier_sum;

kvcl_frontier_sum kvcl_frontier_sum_of(const kvcl_frontier *f, uint32_t spec, uint32_t rule,
                                       uint32_t scan);
/* The proved sketch but the oracle that eliminates most in a scan; n_specs when there is none. */
uint32_t kvcl_frontier_best(const kvcl_frontier *f, uint32_t rule);
/* E_DIFFERS with a sentence when a bound of a sketch that proves, or a promise, did not hold. */
kvcl_status kvcl_frontier_verdict(const kvcl_frontier *f);
void kvcl_frontier_print(const kvcl_frontier *f);
kvcl_status kvcl_frontier_print_json(const kvcl_frontier *f);
kvcl_status kvcl_frontier_write_csv(const kvcl_frontier *f, const char *path);
kvcl_status kvcl_frontier_write_plots(const kvcl_frontier *f, const char *dir);

#endif
