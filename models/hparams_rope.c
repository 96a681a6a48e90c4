/* hparams_rope.c - reads and checks what RoPE needs.  See hparams.h. */
#include "hparams.h"

/* A real number of the family's keys within bounds. */
static kvcl_status bounded(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest, double low,
                           double high, double *inout)
{
    float v = (float)*inout;
    KVCL_TRY(kvcl_hparams_f32(g, hp, rest, &v));
    KVCL_CHECK(g->ctx, (double)v >= low && (double)v <= high, KVCL_E_FORMAT,
               "%s: %s.%s is %g, want %g to %g", g->path, hp->arch->name, rest, (double)v, low,
               high);
    *inout = (double)v;
    return KVCL_OK;
}

/* Llama 3.1's factors, one for each pair. */
static kvcl_status read_freqs(const kvcl_gguf *g, kvcl_hparams *hp)
{
    const kvcl_gguf_tensor *t = kvcl_gguf_tensor_find(g, "rope_freqs.weight");
    if (!t)
        return KVCL_OK;
    KVCL_TRY(kvcl_tensor_need(g, "rope_freqs.weight", hp->n_rot / 2, 0, &t));
    KVCL_CHECK(g->ctx, t->type == KVCL_F32, KVCL_E_UNSUPPORTED,
               "%s: tensor 'rope_freqs.weight' is %s, it must be F32", g->path,
               kvcl_type_name(t->type));
    const float *freqs = (const float *)(const void *)t->data;
    for (uint32_t i = 0; i < hp->n_rot / 2; i++)
        KVCL_CHECK(g->ctx, freqs[i] >= 1e-6f && freqs[i] <= 1e6f, KVCL_E_FORMAT,
                   "%s: rope_freqs.weight has %g at %u, want 1e-06 to 1e+06", g->path,
                   (double)freqs[i], i);
    hp->rope.freqs = freqs;
    return KVCL_OK;
}

/* The factor for longer contexts; files before GGUF v2 name it scale_linear. */
static kvcl_status read_factor(const kvcl_gguf *g, kvcl_hparams *hp)
{
    float factor = 0.0f;
    KVCL_TRY(kvcl_hparams_f32(g, hp, "rope.scale_linear", &factor));
    KVCL_TRY(kvcl_hparams_f32(g, hp, "rope.scaling.factor", &factor));
    KVCL_CHECK(g->ctx, factor == 0.0f || (factor >= 1e-3f && factor <= 1e6f), KVCL_E_FORMAT,
               "%s: the RoPE scaling factor is %g, want 0.001 to 1e6", g->path, (double)factor);
    hp->rope.factor = factor == 0.0f ? 1.0 : (double)factor;
    return KVCL_OK;
}

/* YaRN's gain, which belongs to both queries and keys, goes into the scale of their products (as
 * attn_factor does): so the rotation stays one. */
static kvcl_status read_yarn(const kvcl_gguf *g, kvcl_hparams *hp)
{
    kvcl_rope_spec *s = &hp->rope;
    uint32_t original = hp->n_ctx_train;
    s->yarn = true;
    s->beta_fast = 32.0;
    s->beta_slow = 1.0;
    KVCL_TRY(kvcl_hparams_u32(g, hp, "rope.scaling.original_context_length", &original));
    KVCL_CHECK(g->ctx, original >= 1, KVCL_E_FORMAT,
               "%s: %s.rope.scaling.original_context_length is 0", g->path, hp->arch->name);
    s->original_ctx = original;
    KVCL_TRY(bounded(g, hp, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &s->beta_fast));
    KVCL_TRY(bounded(g, hp, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &s->beta_slow));
    hp->attn_scale = (float)((double)hp->attn_scale * kvcl_rope_yarn_gain(s->factor));
    return KVCL_OK;
}

kvcl_status kvcl_hparams_read_rope(const kvcl_gguf *g, kvcl_hparams *hp)
{
    char show[64];
    kvcl_str kind = {0};
    double attn_factor = 1.0;
    hp->n_rot = hp->head_dim;
    KVCL_TRY(kvcl_hparams_u32(g, hp, "rope.dimension_count", &hp->n_rot));
    KVCL_CHECK(g->ctx, hp->n_rot == hp->head_dim, KVCL_E_UNSUPPORTED,
               "%s: RoPE over %u of %u dimensions of a head is not supported", g->path, hp->n_rot,
               hp->head_dim);
    hp->rope = (kvcl_rope_spec){.n_rot = hp->n_rot, .base = 10000.0, .factor = 1.0};
    KVCL_TRY(bounded(g, hp, "rope.freq_base", 1.001, 1e12, &hp->rope.base));
    KVCL_TRY(read_freqs(g, hp));
    KVCL_TRY(kvcl_hparams_str(g, hp, "rope.scaling.type", &kind));
    bool yarn = kind.s && kvcl_str_is(kind, "yarn"), none = kind.s && kvcl_str_is(kind, "none");
    KVCL_CHECK(g->ctx, !kind.s || yarn || none || kvcl_str_is(kind, "linear"), KVCL_E_UNSUPPORTED,
               "%s: RoPE scaling '%s' is not supported (linear and yarn are)", g->path,
               kvcl_str_show(kind, show, sizeof show));
    KVCL_TRY(bounded(g, hp, "rope.scaling.attn_factor", 1e-3, 1e3, &attn_factor));
    hp->attn_scale = (float)((double)hp->attn_scale * attn_factor * attn_factor);
    if (!none)
        KVCL_TRY(read_factor(g, hp));
    return yarn ? read_yarn(g, hp) : KVCL_OK;
}
