/* planner_text.c - wishes of the command line.  See planner.h. */
#include "planner.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_TOKENS 16777216ul
#define FORM "NAME=[DEVICE:]CODEC[:TOKENS]"

const char *const kvcl_wish_names[KVCL_MAX_TIERS] = {"hot", "warm", "cold"};

/* One "NAME=..." cut into fields at its colons. */
typedef struct tier_text {
    kvcl_ctx *ctx;
    const char *from, *whole; /* the option, and what was typed, for messages */
    char copy[160];
    char *field[12]; /* into copy */
    size_t n_fields;
} tier_text;

static bool is_number(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && !s[n];
}

/* Is this field a codec?  *out gets its canonical name; "" for auto. */
static bool read_codec(const char *s, char out[KVCL_CODEC_NAME_CAP])
{
    kvcl_codec_spec spec;
    if (strcmp(s, "auto") == 0 || strcmp(s, "raw") == 0) {
        snprintf(out, KVCL_CODEC_NAME_CAP, "%s", *s == 'a' ? "" : s);
        return true;
    }
    if (kvcl_codec_parse(NULL, s, &spec) != KVCL_OK)
        return false;
    memcpy(out, spec.name, KVCL_CODEC_NAME_CAP);
    return true;
}

static kvcl_status cut_fields(tier_text *t, const char *text)
{
    int n = snprintf(t->copy, sizeof t->copy, "%s", text);
    KVCL_CHECK(t->ctx, n >= 0 && (size_t)n < sizeof t->copy, KVCL_E_ARG,
               "%s '%.40s...': too long; write " FORM, t->from, text);
    for (char *p = t->copy;; p++) {
        KVCL_CHECK(t->ctx, t->n_fields < kvcl_array_len(t->field), KVCL_E_ARG,
                   "%s '%s': too many colons; write " FORM, t->from, t->whole);
        t->field[t->n_fields++] = p;
        p += strcspn(p, ":");
        if (!*p)
            return KVCL_OK;
        *p = 0;
    }
}

/* No field is a codec: which one was meant as such? */
static kvcl_status no_codec(const tier_text *t)
{
    size_t i = t->n_fields - 1;
    while (i > 0 && is_number(t->field[i]))
        i--;
    char names[160];
    size_t n = 0;
    for (const char *const *p = kvcl_codec_names(); *p && n < sizeof names; p++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", *p);
    return kvcl_fail(t->ctx, KVCL_E_ARG,
                     "%s '%s': '%s' is no codec; write " FORM " with a codec like raw, %s, or auto",
                     t->from, t->whole, t->field[i], names);
}

static kvcl_status read_tokens(const tier_text *t, size_t codec, uint32_t *out)
{
    *out = 0;
    if (codec + 1 == t->n_fields)
        return KVCL_OK;
    const char *s = t->field[codec + 1];
    KVCL_CHECK(t->ctx, codec + 2 == t->n_fields, KVCL_E_ARG,
               "%s '%s': '%s' stands behind the number of tokens; write " FORM, t->from, t->whole,
               t->field[codec + 2]);
    unsigned long n = is_number(s) && strlen(s) < 10 ? strtoul(s, NULL, 10) : 0;
    KVCL_CHECK(t->ctx, n >= 1 && n <= MAX_TOKENS, KVCL_E_ARG,
               "%s '%s': '%s' is no number of tokens from 1 to %lu; leave it out, with its colon, "
               "for the default",
               t->from, t->whole, s, MAX_TOKENS);
    *out = (uint32_t)n;
    return KVCL_OK;
}

/* Fields before the codec, with their colons again. */
static kvcl_status read_device(const tier_text *t, size_t codec, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (size_t i = 0; i < codec && n < cap; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i ? ":" : "", t->field[i]);
    KVCL_CHECK(
        t->ctx, n < cap && (codec == 0 || n > 0), KVCL_E_ARG,
        "%s '%s': the device before the codec is %s; 'kvcl devices' lists ids, disk is a file, "
        "and without one the model's device is used",
        t->from, t->whole, n ? "too long a name" : "empty");
    return KVCL_OK;
}

static kvcl_status read_tier(tier_text *t, const char *text, kvcl_tier_wish *out)
{
    kvcl_tier_wish w = {.is_given = true};
    KVCL_TRY(cut_fields(t, text));
    size_t codec = t->n_fields;
    while (codec > 0 && !read_codec(t->field[codec - 1], w.codec))
        codec--;
    if (codec == 0)
        return no_codec(t);
    codec--;
    KVCL_TRY(read_tokens(t, codec, &w.tokens));
    KVCL_TRY(read_device(t, codec, w.device, sizeof w.device));
    *out = w;
    return KVCL_OK;
}

static bool is_raw(const char *codec)
{
    return !*codec || strcmp(codec, "raw") == 0 || strcmp(codec, "f16") == 0 ||
           strcmp(codec, "f32") == 0;
}

static kvcl_status add_one(kvcl_ctx *ctx, const char *from, const char *text, kvcl_cache_wish *out)
{
    tier_text t = {.ctx = ctx, .from = from, .whole = text};
    const char *eq = strchr(text, '=');
    KVCL_CHECK(ctx, eq, KVCL_E_ARG,
               "%s '%s': there is no = in it; write " FORM
               ", for example cold=quant4 or hot=gpu:raw:64",
               from, text);
    size_t i = 0, n = (size_t)(eq - text);
    while (i < KVCL_MAX_TIERS &&
           (strlen(kvcl_wish_names[i]) != n || memcmp(kvcl_wish_names[i], text, n) != 0))
        i++;
    KVCL_CHECK(ctx, i < KVCL_MAX_TIERS, KVCL_E_ARG,
               "%s '%s': no tier is called '%.*s'; there are hot, warm and cold", from, text,
               (int)kvcl_min_size(n, 40), text);
    kvcl_tier_wish *w = &out->tier[i];
    KVCL_CHECK(ctx, !w->is_given, KVCL_E_ARG,
               "%s '%s': the %s tier was described before; give each tier once", from, text,
               kvcl_wish_names[i]);
    KVCL_TRY(read_tier(&t, eq + 1, w));
    KVCL_CHECK(ctx, i != KVCL_WISH_HOT || is_raw(w->codec), KVCL_E_ARG,
               "%s '%s': the hot tier is raw, for it holds what is read most; give %s to the warm "
               "or cold tier",
               from, text, w->codec);
    KVCL_CHECK(ctx, i != KVCL_WISH_HOT || strcmp(w->device, KVCL_WISH_DISK) != 0, KVCL_E_ARG,
               "%s '%s': the hot tier is in the memory of the model's device; give disk to the "
               "warm or cold tier",
               from, text);
    return KVCL_OK;
}

kvcl_status kvcl_wish_add_tier(kvcl_ctx *ctx, const char *from, const char *text,
                               kvcl_cache_wish *out)
{
    for (const char *p = text;;) {
        char one[256];
        size_t n = strcspn(p, ",");
        snprintf(one, sizeof one, "%.*s", (int)kvcl_min_size(n, sizeof one - 1), p);
        KVCL_TRY(add_one(ctx, from, one, out));
        if (!p[n])
            return KVCL_OK;
        p += n + 1;
    }
}

bool kvcl_wish_is_empty(const kvcl_cache_wish *w)
{
    return !w->preset && !w->budget_bytes && !w->tier[0].is_given && !w->tier[1].is_given &&
           !w->tier[2].is_given;
}
