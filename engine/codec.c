/* codec.c - the list of codecs, and codecs by name.  See codec.h. */
#include "codec.h"

#include <string.h>

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

kvcl_status kvcl_codec_parse(kvcl_ctx *ctx, const char *name, kvcl_codec_spec *out)
{
    kvcl_codec_spec spec;
    for (size_t i = 0; i < kvcl_array_len(codecs); i++) {
        memset(&spec, 0, sizeof spec);
        if (strlen(name) < sizeof spec.name && codecs[i]->parse(name, &spec)) {
            spec.ops = codecs[i];
            *out = spec;
            return KVCL_OK;
        }
    }
    return kvcl_fail(ctx, KVCL_E_ARG,
                     "no codec is called '%s'; there are raw (f16, f32), quant8, quant4, quant3, "
                     "quant2, quant1, quant-kAvB (bits of K and V), each also with /post or "
                     "/channel, spectralB and superpose2-B, superpose4-B, superpose8-B (B bits, "
                     "quarters too, or -kAvB), restR (R bits a value, hundredths too), holo2, "
                     "holo4, holo8, each also with /unscaled, -mmse or -chip, factor-kRvS (ranks), "
                     "and q8_0, q4_0",
                     name);
}

kvcl_status kvcl_codec_plan_make(kvcl_ctx *ctx, const kvcl_codec_spec *spec,
                                 const kvcl_kv_shape *shape, kvcl_codec_plan *out)
{
    kvcl_codec_plan plan = {.spec = *spec, .shape = *shape};
    KVCL_TRY(spec->ops->plan(ctx, &plan));
    plan.page_bytes = plan.pool_bytes[0] + plan.pool_bytes[1];
    double elems = 2.0 * KVCL_PAGE_TOKENS * shape->n_kv_heads * shape->head_dim;
    plan.bits_per_elem = 8.0 * (double)plan.page_bytes / elems;
    *out = plan;
    return KVCL_OK;
}
