/* arch.c - the list of families, and which keys they know.  See arch.h. */
#include "arch.h"

#include <stdio.h>

static const kvcl_arch *const archs[] = {
    &kvcl_arch_llama,
    &kvcl_arch_gpt2,
    &kvcl_arch_qwen2,
    &kvcl_arch_qwen3,
};

kvcl_status kvcl_arch_find(const kvcl_gguf *g, const kvcl_arch **out)
{
    const char *key = "general.architecture";
    kvcl_str name = {0};
    char show[64], known[128];
    int n = 0;
    KVCL_TRY(kvcl_gguf_require(g, key));
    KVCL_TRY(kvcl_gguf_get_str(g, key, &name));
    for (size_t i = 0; i < kvcl_array_len(archs); i++) {
        if (kvcl_str_is(name, archs[i]->name)) {
            *out = archs[i];
            return KVCL_OK;
        }
        n += snprintf(known + n, sizeof known - (size_t)n, "%s%s", i ? ", " : "", archs[i]->name);
    }
    return kvcl_fail(g->ctx, KVCL_E_UNSUPPORTED,
                     "%s: architecture '%s' is not supported; known are %s", g->path,
                     kvcl_str_show(name, show, sizeof show), known);
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* Read, or without effect on what is computed. */
static const char *const known_keys[] = {
    "block_count", "context_length",       "embedding_length",   "feed_forward_length",
    "vocab_size",  "attention.head_count", "tensor_data_layout",
};

/* Read by the families with RoPE. */
static const char *const rope_keys[] = {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.scale",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned", /* whether the model was trained with the scaling */
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
};

/* Without effect at one value, unknown at any other.  Experts are refused elsewhere. */
static const struct {
    const char *key;
    double value;
} neutral_keys[] = {
    {"expert_count", 0},
    {"expert_used_count", 0},
    {"use_parallel_residual", 1}, /* read by other families only */
    {"attention.causal", 1},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
    {"pooling_type", 0},
    {"rope.scaling.yarn_ext_factor", 1},
    {"rope.scaling.yarn_attn_factor", 1},
};

static bool listed(kvcl_str key, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (kvcl_str_is(key, list[i]))
            return true;
    return false;
}

static bool is_neutral(kvcl_str rest, const kvcl_gguf_kv *kv)
{
    double v;
    for (size_t i = 0; i < kvcl_array_len(neutral_keys); i++)
        if (kvcl_str_is(rest, neutral_keys[i].key))
            return kvcl_gguf_number(kv, &v) && v == neutral_keys[i].value;
    return false;
}

kvcl_status kvcl_arch_check_keys(const kvcl_gguf *g, const kvcl_arch *arch)
{
    size_t n_name = strlen(arch->name);
    for (uint32_t i = 0; i < g->n_kv; i++) {
        kvcl_str key = g->kv[i].key;
        char show[96], value[64];
        if (key.n <= n_name + 1 || memcmp(key.s, arch->name, n_name) != 0 || key.s[n_name] != '.')
            continue;
        kvcl_str rest = {key.s + n_name + 1, key.n - n_name - 1};
        bool known = listed(rest, known_keys, kvcl_array_len(known_keys)) ||
                     kvcl_str_is(rest, arch->eps_key) || is_neutral(rest, &g->kv[i]);
        if (arch->pairing != KVCL_ROPE_NONE)
            known = known || listed(rest, rope_keys, kvcl_array_len(rope_keys));
        kvcl_gguf_format(&g->kv[i], value, sizeof value);
        KVCL_CHECK(g->ctx, known, KVCL_E_UNSUPPORTED,
                   "%s: the key %s = %s is not supported; it may change what the model computes",
                   g->path, kvcl_str_show(key, show, sizeof show), value);
    }
    return KVCL_OK;
}
