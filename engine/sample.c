/* sample.c - picks the next token from logits, to the same one on every machine.
 *
 * Floats are only added, multiplied, divided and compared, each correctly rounded in IEEE
 * arithmetic; the exponential is the canonical one of cl/shared.h; sums run in double in a fixed
 * order; ties go to the lower id; random numbers are a function of seed and number of the pick.
 *
 *   penalties   a logit of a token seen lately is divided by R when positive, multiplied else
 *               source: arXiv:1909.05858, section 4.1
 *   top_k       the K best
 *   top_p       the best whose probabilities add up to P; source: arXiv:1904.09751
 *   min_p       those with at least P times the best one's probability; source: arXiv:2407.01082
 *   temp        probabilities of logit / T */
#include "mem.h"
#include "shared.h"

#include <float.h>

#define MAX_LAST_N (1 << 24)

typedef struct candidate {
    float logit; /* after penalties; less the best one's */
    float weight;
    int32_t id;
} candidate;

struct kvcl_sampler {
    kvcl_ctx *ctx;
    kvcl_sampler_options opt;
    uint32_t n_vocab;
    uint64_t n_picks;
    candidate *cand; /* [n_vocab] */
    uint32_t *seen;  /* [n_vocab]: how often the window holds the token */
    int32_t *window; /* the last tokens, a ring; NULL when all tokens count */
    uint32_t window_cap, window_n, window_at;
};

kvcl_sampler_options kvcl_sampler_defaults(void)
{
    return (kvcl_sampler_options){.temp = 0.8f,
                                  .top_k = 40,
                                  .top_p = 0.95f,
                                  .min_p = 0.05f,
                                  .repeat_penalty = 1.0f,
                                  .repeat_last_n = 64};
}

static kvcl_status check_options(kvcl_ctx *ctx, const kvcl_sampler_options *o)
{
    /* comparisons are written so that NaN fails them */
    KVCL_CHECK(ctx, o->temp >= -FLT_MAX && o->temp <= FLT_MAX, KVCL_E_ARG,
               "temperature: not a finite number; 0 picks the likeliest token");
    KVCL_CHECK(ctx, o->top_p >= 0 && o->top_p <= 1, KVCL_E_ARG,
               "top_p %g is outside 0..1; 1 switches it off", (double)o->top_p);
    KVCL_CHECK(ctx, o->min_p >= 0 && o->min_p <= 1, KVCL_E_ARG,
               "min_p %g is outside 0..1; 0 switches it off", (double)o->min_p);
    KVCL_CHECK(ctx, o->repeat_penalty >= 1e-3f && o->repeat_penalty <= 1e3f, KVCL_E_ARG,
               "repeat_penalty %g is outside 0.001..1000; 1 switches it off",
               (double)o->repeat_penalty);
    KVCL_CHECK(ctx, o->repeat_last_n >= -1 && o->repeat_last_n <= MAX_LAST_N, KVCL_E_ARG,
               "repeat_last_n %d is outside -1..%d; -1 looks at all tokens", o->repeat_last_n,
               MAX_LAST_N);
    return KVCL_OK;
}

kvcl_status kvcl_sampler_create(kvcl_ctx *ctx, const kvcl_sampler_options *opt, uint32_t n_vocab,
                                kvcl_sampler **out)
{
    kvcl_status st = KVCL_OK;
    kvcl_sampler_options o = opt ? *opt : kvcl_sampler_defaults();
    void *p = NULL;
    KVCL_TRY(check_options(ctx, &o));
    KVCL_CHECK(ctx, n_vocab > 0 && n_vocab <= INT32_MAX, KVCL_E_ARG,
               "a sampler for a vocabulary of %u tokens: 1..2147483647 are possible", n_vocab);
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_sampler), "the sampler", &p));
    kvcl_sampler *s = p;
    s->ctx = ctx;
    s->opt = o;
    s->n_vocab = n_vocab;
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, n_vocab, sizeof *s->cand, "the sampler", &p));
    s->cand = p;
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, n_vocab, sizeof *s->seen, "the sampler", &p));
    s->seen = p;
    if (o.repeat_last_n > 0) {
        s->window_cap = (uint32_t)o.repeat_last_n;
        KVCL_TRY_GOTO(kvcl_mem_array(ctx, s->window_cap, sizeof *s->window, "the sampler", &p));
        s->window = p;
    }
    *out = s;
    return KVCL_OK;
fail:
    kvcl_sampler_free(s);
    return st;
}

void kvcl_sampler_free(kvcl_sampler *s)
{
    if (!s)
        return;
    kvcl_mem_free(s->ctx, s->cand);
    kvcl_mem_free(s->ctx, s->seen);
    kvcl_mem_free(s->ctx, s->window);
    kvcl_mem_free(s->ctx, s);
}

void kvcl_sampler_accept(kvcl_sampler *s, int32_t token)
{
    if (token < 0 || (uint32_t)token >= s->n_vocab || s->opt.repeat_last_n == 0)
        return;
    if (s->window) {
        if (s->window_n == s->window_cap)
            s->seen[s->window[s->window_at]]--;
        else
            s->window_n++;
        s->window[s->window_at] = token;
        s->window_at = (s->window_at + 1) % s->window_cap;
    } else if (s->seen[token] == UINT32_MAX) {
        return;
    }
    s->seen[token]++;
}

/* ---- candidates ---------------------------------------------------------------------------- */

static bool better(const candidate *a, const candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static float penalised(const kvcl_sampler *s, const float *logits, uint32_t i)
{
    float x = logits[i];
    if (!s->seen[i])
        return x;
    x = x > 0 ? x / s->opt.repeat_penalty : x * s->opt.repeat_penalty;
    return x > FLT_MAX ? FLT_MAX : x;
}

/* Heap whose root is the worst candidate. */
static void sift_down(candidate *heap, uint32_t n, uint32_t i)
{
    const candidate c = heap[i];
    for (;;) {
        uint32_t k = 2 * i + 1;
        if (k >= n)
            break;
        if (k + 1 < n && better(&heap[k], &heap[k + 1]))
            k++;
        if (!better(&c, &heap[k]))
            break;
        heap[i] = heap[k];
        i = k;
    }
    heap[i] = c;
}

/* The k best, best first. */
static void keep_best(kvcl_sampler *s, const float *logits, uint32_t k)
{
    candidate *heap = s->cand;
    for (uint32_t i = 0; i < k; i++)
        heap[i] = (candidate){.logit = penalised(s, logits, i), .id = (int32_t)i};
    for (uint32_t i = k / 2; i-- > 0;)
        sift_down(heap, k, i);
    for (uint32_t i = k; i < s->n_vocab; i++) {
        candidate c = {.logit = penalised(s, logits, i), .id = (int32_t)i};
        if (better(&c, &heap[0])) {
            heap[0] = c;
            sift_down(heap, k, 0);
        }
    }
    for (uint32_t n = k; n > 1; n--) {
        candidate worst = heap[0];
        heap[0] = heap[n - 1];
        heap[n - 1] = worst;
        sift_down(heap, n - 1, 0);
    }
}

/* All tokens in order of their ids, their logits counted from the best one. */
static void keep_all(kvcl_sampler *s, const float *logits)
{
    for (uint32_t i = 0; i < s->n_vocab; i++)
        s->cand[i] = (candidate){.logit = penalised(s, logits, i), .id = (int32_t)i};
}

static uint32_t best_of(const kvcl_sampler *s, const float *logits, float *out)
{
    uint32_t best = 0;
    float x = penalised(s, logits, 0);
    for (uint32_t i = 1; i < s->n_vocab; i++) {
        float y = penalised(s, logits, i);
        if (y > x) {
            x = y;
            best = i;
        }
    }
    *out = x;
    return best;
}

/* ---- filters ------------------------------------------------------------------------------- */

static uint32_t filter_top_p(kvcl_sampler *s, uint32_t n)
{
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        total += (double)s->cand[i].weight;
    const double wanted = total * (double)s->opt.top_p;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)s->cand[i].weight;
        if (sum >= wanted)
            return i + 1;
    }
    return n;
}

/* The best one has weight 1. */
static uint32_t filter_min_p(kvcl_sampler *s, uint32_t n)
{
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s->cand[i].weight >= s->opt.min_p)
            s->cand[m++] = s->cand[i];
    return m;
}

/* A number in [0, 1) from seed and number of the pick (SplitMix64). */
static double random_unit(const kvcl_sampler *s)
{
    uint64_t z = s->opt.seed + (s->n_picks + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static int32_t draw(kvcl_sampler *s, uint32_t n)
{
    double total = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        s->cand[i].weight = kvcl_exp(s->cand[i].logit / s->opt.temp);
        total += (double)s->cand[i].weight;
    }
    const double target = random_unit(s) * total;
    int32_t last = s->cand[0].id;
    for (uint32_t i = 0; i < n; i++) {
        if (!(s->cand[i].weight > 0))
            continue;
        last = s->cand[i].id;
        sum += (double)s->cand[i].weight;
        if (sum > target)
            break;
    }
    return last;
}

static int32_t pick_random(kvcl_sampler *s, const float *logits, float best)
{
    const kvcl_sampler_options *o = &s->opt;
    const bool has_k = o->top_k > 0 && (uint32_t)o->top_k < s->n_vocab;
    uint32_t n = has_k ? (uint32_t)o->top_k : s->n_vocab;
    if (has_k || o->top_p < 1)
        keep_best(s, logits, n);
    else
        keep_all(s, logits);
    for (uint32_t i = 0; i < n; i++) {
        s->cand[i].logit -= best;
        s->cand[i].weight = kvcl_exp(s->cand[i].logit);
    }
    if (o->top_p < 1)
        n = filter_top_p(s, n);
    if (o->min_p > 0)
        n = filter_min_p(s, n);
    return draw(s, n);
}

kvcl_status kvcl_sampler_pick(kvcl_sampler *s, const float *logits, int32_t *token_out)
{
    for (uint32_t i = 0; i < s->n_vocab; i++)
        KVCL_CHECK(s->ctx, logits[i] <= FLT_MAX, KVCL_E_ARG,
                   "the logit of token %u is not a number; the model file is damaged or its "
                   "weights overflow",
                   i);
    float best;
    uint32_t id = best_of(s, logits, &best);
    KVCL_CHECK(s->ctx, best >= -FLT_MAX, KVCL_E_ARG,
               "all logits are minus infinity: no token can be picked; the model file is damaged");
    int32_t token = s->opt.temp > 0 ? pick_random(s, logits, best) : (int32_t)id;
    s->n_picks++;
    kvcl_sampler_accept(s, token);
    *token_out = token;
    return KVCL_OK;
}
