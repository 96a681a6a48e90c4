/* codec.c - the list of codecs, and codecs by name.  See codec.h. */
#include "codec.h"

#include "ctx.h"
#include "shared.h"

#include <stdio.h>
#include <string.h>

#define FIRST "/first"
#define FIRST_MAX 16777216u
#define AGAIN "/again"

static const kvcl_codec_ops *const codecs[] = {&kvcl_codec_raw_ops,      &kvcl_codec_quant_ops,
                                               &kvcl_codec_spectral_ops, &kvcl_codec_rest_ops,
                                               &kvcl_codec_holo_ops,     &kvcl_codec_block_ops};

static const char *const names[] = {"f16",
                                    "f32",
                                    "quant8",
                                    "quant4",
                                    "quant3",
                                    "quant-k3v2",
                                    "quant2",
                                    "quant1",
                                    "quant4/post",
                                    "quant4/channel",
                                    "spectral4",
                                    "spectral2",
                                    "superpose4-3.25",
                                    "superpose4-2",
                                    "q8_0",
                                    "q4_0",
                                    "holo4",
                                    "holo4/unscaled",
                                    "holo4-mmse",
                                    "holo2-chip",
                                    "holo4-chip",
                                    "rest1.3",
                                    NULL};

const char *const *kvcl_codec_names(void) { return names; }

bool kvcl_codec_take_word(const char **text, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*text, word, n) != 0)
        return false;
    *text += n;
    return true;
}

/* The number behind `word` at the end of the name, which is cut off there: a number up to max with
 * at most `decimals` decimals, in units of the last one.  0 without the word; false when what
 * stands behind it is no such number. */
static bool take_end(char *name, const char *word, unsigned decimals, uint32_t max, uint32_t *out)
{
    char *at = strstr(name, word);
    *out = 0;
    if (!at)
        return true;
    const char *p = at + strlen(word);
    uint32_t n = 0;
    bool good = *p >= '1' && *p <= '9';
    for (; *p >= '0' && *p <= '9' && n <= max; p++)
        n = 10 * n + (uint32_t)(*p - '0');
    bool point = *p == '.' && decimals > 0;
    for (p += point; decimals > 0 && n <= max; decimals--)
        n = 10 * n + (point && *p >= '0' && *p <= '9' ? (uint32_t)(*p++ - '0') : 0);
    *at = 0;
    *out = n;
    return good && !*p && n <= max;
}

/* "/first1024" and "/again1.5" to the canonical name; false when there is no room. */
static bool put_ends(kvcl_codec_spec *spec)
{
    size_t n = strlen(spec->name), cap = sizeof spec->name;
    if (spec->first)
        n += (size_t)snprintf(spec->name + n, cap - n, FIRST "%u", (unsigned)spec->first);
    if (spec->again && n < cap) {
        unsigned whole = spec->again / 100, part = spec->again % 100;
        const char *form = !part ? AGAIN "%u" : part % 10 ? AGAIN "%u.%02u" : AGAIN "%u.%u";
        n += (size_t)snprintf(spec->name + n, cap - n, form, whole, part % 10 ? part : part / 10);
    }
    return n < cap;
}

static bool parse_any(const char *text, kvcl_codec_spec *spec)
{
    char name[KVCL_CODEC_NAME_CAP];
    uint32_t first, again;
    if (strlen(text) >= sizeof name)
        return false;
    memcpy(name, text, strlen(text) + 1);
    if (!take_end(name, AGAIN, 2, 900, &again) || !take_end(name, FIRST, 0, FIRST_MAX, &first) ||
        first % KVCL_PAGE_TOKENS != 0 || (again && again < 105))
        return false;
    for (size_t i = 0; i < kvcl_array_len(codecs); i++) {
        memset(spec, 0, sizeof *spec);
        if (!codecs[i]->parse(name, spec))
            continue;
        spec->ops = codecs[i];
        spec->first = first;
        spec->again = again;
        return (!first || (codecs[i]->learn && !spec->rank_k)) &&
               (!again || codecs[i] == &kvcl_codec_spectral_ops) && put_ends(spec);
    }
    return false;
}

kvcl_status kvcl_codec_parse(kvcl_ctx *ctx, const char *name, kvcl_codec_spec *out)
{
    kvcl_codec_spec spec;
    if (parse_any(name, &spec)) {
        *out = spec;
        return KVCL_OK;
    }
    return kvcl_fail(
        ctx, KVCL_E_ARG,
        "no codec is called '%s'; there are raw (f16, f32), quant8, quant4, quant3, "
        "quant2, quant1, quant-kAvB (bits of K and V), each also with /post or "
        "/channel, spectralB and superpose2-B, superpose4-B, superpose8-B (B bits, "
        "quarters too, or -kAvB), restR (R bits a value, hundredths too), holo2, "
        "holo4, holo8, each also with /unscaled, -mmse or -chip, factor-kRvS (ranks), "
        "and q8_0, q4_0; behind codecs that learn /firstN: from N tokens, a multiple of "
        "64; behind spectral and superpose /againR: anew at R times the error",
        name);
}

kvcl_status kvcl_codec_plan_make(kvcl_ctx *ctx, const kvcl_codec_spec *spec,
                                 const kvcl_kv_shape *shape, kvcl_codec_plan *out)
{
    kvcl_codec_plan plan = {.spec = *spec, .shape = *shape};
    KVCL_TRY(spec->ops->plan(ctx, &plan));
    KVCL_CHECK(ctx, !spec->first || plan.basis_bytes, KVCL_E_UNSUPPORTED,
               "codec %s learns nothing; leave out " FIRST "%u", spec->name, (unsigned)spec->first);
    plan.page_bytes = plan.pool_bytes[0] + plan.pool_bytes[1];
    double elems = 2.0 * KVCL_PAGE_TOKENS * shape->n_kv_heads * shape->head_dim;
    plan.bits_per_elem = 8.0 * (double)plan.page_bytes / elems;
    *out = plan;
    return KVCL_OK;
}
