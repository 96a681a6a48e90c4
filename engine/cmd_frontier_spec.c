/* cmd_frontier_spec.c - names of sketches and rules.  See cmd_frontier.h. */
#include "cmd_frontier.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Moves on behind `word` when the text begins with it. */
static bool take(const char **p, const char *word)
{
    const size_t n = strlen(word);
    if (strncmp(*p, word, n) != 0)
        return false;
    *p += n;
    return true;
}

static bool take_number(const char **p, uint32_t max, uint32_t *out)
{
    char *end;
    if (**p < '1' || **p > '9')
        return false;
    unsigned long n = strtoul(*p, &end, 10);
    *p = end;
    *out = (uint32_t)n;
    return n <= max;
}

/* Plain decimals: no sign, no hexadecimal, no names. */
static bool take_real(const char **p, double *out)
{
    char *end;
    if (strspn(*p, "0123456789.") == 0)
        return false;
    *out = strtod(*p, &end);
    *p = end;
    return isfinite(*out) != 0;
}

static bool read_spec(const char *p, kvcl_frontier_spec *s)
{
    static const struct {
        const char *word;
        kvcl_frontier_kind kind;
        uint32_t max;
    } kinds[] = {{"rp", KVCL_SKETCH_RANDOM, 512},         {"kmeans", KVCL_SKETCH_RANDOM, 512},
                 {"pca", KVCL_SKETCH_PCA, 512},           {"whitened", KVCL_SKETCH_WHITENED, 512},
                 {"balanced", KVCL_SKETCH_BALANCED, 512}, {"lm", KVCL_SKETCH_LEVELS, 4},
                 {"box", KVCL_SKETCH_BOX, 1024}};
    *s = (kvcl_frontier_spec){.bits = 8};
    if (take(&p, "oracle"))
        return !*p;
    for (size_t i = 0; i < kvcl_array_len(kinds); i++)
        if (take(&p, kinds[i].word)) {
            s->kind = kinds[i].kind;
            s->grouped = i == 1;
            if (!take_number(&p, kinds[i].max, &s->n))
                return false;
            break;
        }
    if (s->kind == KVCL_SKETCH_LEVELS) {
        s->post = take(&p, "/post");
        if (!s->post)
            take(&p, "/pre");
    } else if (s->kind >= KVCL_SKETCH_PCA && s->kind <= KVCL_SKETCH_BALANCED) {
        if (take(&p, "/int4"))
            s->bits = 4;
        else
            take(&p, "/int8");
    }
    return s->n > (s->kind == KVCL_SKETCH_BOX ? 1 : 0) && !*p;
}

static bool read_rule(const char *p, kvcl_frontier_rule *r)
{
    *r = (kvcl_frontier_rule){.aim = KVCL_AIM_MASS, .value = 0.01};
    if (take(&p, "theta")) {
        r->aim = KVCL_AIM_THETA;
        bool negative = take(&p, "-");
        if (!take_real(&p, &r->value))
            return false;
        r->value = negative ? -r->value : r->value;
        return !*p;
    }
    if (take(&p, "topk")) {
        r->aim = KVCL_AIM_TOP;
        if (!take_number(&p, KVCL_FRONTIER_MAX_K, &r->k))
            return false;
    } else if (take(&p, "mass")) {
        if (!take_real(&p, &r->value) || r->value <= 0 || r->value >= 1)
            return false;
    } else {
        return take(&p, "z") && take_real(&p, &r->z) && r->z > 0 && !*p;
    }
    if (take(&p, "/z"))
        return take_real(&p, &r->z) && r->z > 0 && !*p;
    return !*p;
}

/* Copies the next word of a list; false when it is too long or empty. */
static bool next_word(const char **p, char *out)
{
    const size_t n = strcspn(*p, ",");
    const bool fits = n > 0 && n < KVCL_FRONTIER_NAME;
    snprintf(out, KVCL_FRONTIER_NAME, "%.*s", (int)kvcl_min_size(n, KVCL_FRONTIER_NAME - 1), *p);
    *p += n;
    return fits;
}

kvcl_status kvcl_frontier_specs_read(kvcl_ctx *ctx, const char *list, kvcl_frontier_spec *out,
                                     uint32_t *n_out)
{
    const char *p = list;
    uint32_t n = 0;
    do {
        char word[KVCL_FRONTIER_NAME];
        KVCL_CHECK(ctx, n < KVCL_FRONTIER_SKETCHES, KVCL_E_ARG, "--sketch: more than %d sketches",
                   KVCL_FRONTIER_SKETCHES);
        KVCL_CHECK(
            ctx, next_word(&p, word) && read_spec(word, &out[n]), KVCL_E_ARG,
            "--sketch: '%s' is no sketch; there are oracle, rp16, kmeans16, pca32, whitened32, "
            "balanced32 (each /int8 or /int4), lm1 to lm4 (/pre or /post), box16",
            word);
        for (uint32_t i = 0; i < n; i++)
            KVCL_CHECK(ctx, strcmp(out[i].name, word) != 0, KVCL_E_ARG, "--sketch: %s stands twice",
                       word);
        memcpy(out[n++].name, word, sizeof word);
    } while (*p++);
    *n_out = n;
    return KVCL_OK;
}

kvcl_status kvcl_frontier_rules_read(kvcl_ctx *ctx, const char *list, kvcl_frontier_rule *out,
                                     uint32_t *n_out)
{
    const char *p = list;
    uint32_t n = 0;
    do {
        char word[KVCL_FRONTIER_NAME];
        KVCL_CHECK(ctx, n < KVCL_FRONTIER_RULES, KVCL_E_ARG, "--rule: more than %d rules",
                   KVCL_FRONTIER_RULES);
        KVCL_CHECK(ctx, next_word(&p, word) && read_rule(word, &out[n]), KVCL_E_ARG,
                   "--rule: '%s' is no rule; there are topk32 (1 to %d), mass0.01 (between 0 and "
                   "1), either followed by /z3, z3 for mass0.01/z3, theta0.5",
                   word, KVCL_FRONTIER_MAX_K);
        for (uint32_t i = 0; i < n; i++)
            KVCL_CHECK(ctx, strcmp(out[i].name, word) != 0, KVCL_E_ARG, "--rule: %s stands twice",
                       word);
        memcpy(out[n++].name, word, sizeof word);
    } while (*p++);
    *n_out = n;
    return KVCL_OK;
}

const char *kvcl_frontier_spec_unfit(const kvcl_frontier_spec *s, uint32_t D)
{
    if (s->kind == KVCL_SKETCH_LEVELS)
        return D % 32 == 0 && D <= 256 ? NULL : "it needs a multiple of 32 up to 256";
    if (s->kind != KVCL_SKETCH_BOX && s->n > D)
        return "take fewer coordinates";
    return NULL;
}

double kvcl_frontier_spec_bytes(const kvcl_frontier_spec *s, uint32_t D)
{
    switch (s->kind) {
    case KVCL_SKETCH_RANDOM: /* f16 coordinates, and a cluster's number */
        return 2.0 * s->n + s->grouped;
    case KVCL_SKETCH_PCA:
    case KVCL_SKETCH_WHITENED:
    case KVCL_SKETCH_BALANCED: /* and two norms */
        return s->n * s->bits / 8.0 + 2;
    case KVCL_SKETCH_LEVELS: /* and an f16 scale, a norm */
        return D * s->n / 8.0 + 3;
    case KVCL_SKETCH_BOX: /* two f16 for each dimension */
        return 4.0 * D / s->n;
    case KVCL_SKETCH_ORACLE:
        break;
    }
    return 0;
}
