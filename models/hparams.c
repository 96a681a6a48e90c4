/* hparams.c - reads and checks the shape of a model.  See hparams.h. */
#include "hparams.h"

#include "log.h"

#include <math.h>
#include <stdio.h>

#define KEY_CAP 96

/* "llama" + ".block_count" */
static const char *key_of(const kvcl_hparams *hp, const char *rest, char *buf)
{
    snprintf(buf, KEY_CAP, "%s.%s", hp->arch->name, rest);
    return buf;
}

kvcl_status kvcl_hparams_u32(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                             uint32_t *out)
{
    char key[KEY_CAP];
    return kvcl_gguf_get_u32_uniform(g, key_of(hp, rest, key), out);
}

kvcl_status kvcl_hparams_f32(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                             float *out)
{
    char key[KEY_CAP];
    return kvcl_gguf_get_f32(g, key_of(hp, rest, key), out);
}

kvcl_status kvcl_hparams_str(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                             kvcl_str *out)
{
    char key[KEY_CAP];
    return kvcl_gguf_get_str(g, key_of(hp, rest, key), out);
}

/* A count that must be there, from 1 to max. */
static kvcl_status need_u32(const kvcl_gguf *g, const kvcl_hparams *hp, const char *rest,
                            uint32_t max, uint32_t *out)
{
    char key[KEY_CAP];
    key_of(hp, rest, key);
    KVCL_TRY(kvcl_gguf_require(g, key));
    KVCL_TRY(kvcl_gguf_get_u32_uniform(g, key, out));
    KVCL_CHECK(g->ctx, *out >= 1 && *out <= max, KVCL_E_FORMAT, "%s: %s is %u, want 1 to %u",
               g->path, key, *out, max);
    return KVCL_OK;
}

/* What would compute wrong numbers in silence is refused here. */
static kvcl_status refuse_variants(const kvcl_gguf *g, const kvcl_hparams *hp)
{
    uint32_t n_experts = 0;
    KVCL_TRY(kvcl_hparams_u32(g, hp, "expert_count", &n_experts));
    KVCL_CHECK(g->ctx, n_experts == 0, KVCL_E_UNSUPPORTED,
               "%s: a mixture of %u experts is not supported; use a dense model", g->path,
               n_experts);
    return KVCL_OK;
}

static kvcl_status read_heads(const kvcl_gguf *g, kvcl_hparams *hp)
{
    uint32_t v_dim;
    KVCL_TRY(need_u32(g, hp, "attention.head_count", KVCL_MAX_HEADS, &hp->n_heads));
    hp->n_kv_heads = hp->n_heads;
    hp->head_dim = hp->n_embd / hp->n_heads;
    if (hp->arch->pairing != KVCL_ROPE_NONE) {
        KVCL_TRY(kvcl_hparams_u32(g, hp, "attention.head_count_kv", &hp->n_kv_heads));
        KVCL_TRY(kvcl_hparams_u32(g, hp, "attention.key_length", &hp->head_dim));
        v_dim = hp->head_dim;
        KVCL_TRY(kvcl_hparams_u32(g, hp, "attention.value_length", &v_dim));
        KVCL_CHECK(g->ctx, v_dim == hp->head_dim, KVCL_E_UNSUPPORTED,
                   "%s: keys of %u and values of %u dimensions: unequal lengths are not supported",
                   g->path, hp->head_dim, v_dim);
    } else {
        KVCL_CHECK(g->ctx, hp->head_dim * hp->n_heads == hp->n_embd, KVCL_E_FORMAT,
                   "%s: the width %u does not divide into %u heads", g->path, hp->n_embd,
                   hp->n_heads);
    }
    KVCL_CHECK(g->ctx, hp->n_kv_heads >= 1 && hp->n_heads % hp->n_kv_heads == 0, KVCL_E_FORMAT,
               "%s: %u heads do not divide into groups of %u key/value heads", g->path, hp->n_heads,
               hp->n_kv_heads);
    KVCL_CHECK(g->ctx,
               hp->head_dim >= 2 && hp->head_dim <= KVCL_MAX_HEAD_DIM && hp->head_dim % 2 == 0,
               KVCL_E_FORMAT, "%s: heads of %u dimensions, want an even number from 2 to %u",
               g->path, hp->head_dim, KVCL_MAX_HEAD_DIM);
    KVCL_CHECK(g->ctx, !hp->arch->qk_norm || hp->head_dim % 32 == 0, KVCL_E_UNSUPPORTED,
               "%s: heads of %u dimensions are normalised, want a multiple of 32", g->path,
               hp->head_dim);
    hp->attn_scale = (float)(1.0 / sqrt((double)hp->head_dim));
    KVCL_TRY(kvcl_hparams_f32(g, hp, "attention.scale", &hp->attn_scale));
    KVCL_CHECK(g->ctx, hp->attn_scale > 1e-6f && hp->attn_scale < 1e6f, KVCL_E_FORMAT,
               "%s: an attention scale of %g makes no sense", g->path, (double)hp->attn_scale);
    return KVCL_OK;
}

/* The ops take matrices whose rows are whole blocks of 32. */
static kvcl_status check_width(const kvcl_gguf *g, const char *what, uint32_t n)
{
    KVCL_CHECK(g->ctx, n % 32 == 0 && n <= KVCL_MAX_EMBD, KVCL_E_UNSUPPORTED,
               "%s: %s is %u, want a multiple of 32 up to %u", g->path, what, n, KVCL_MAX_EMBD);
    return KVCL_OK;
}

/* Rows of the embedding, else the length of the vocabulary, else what the file says. */
static kvcl_status read_vocab(const kvcl_gguf *g, kvcl_hparams *hp)
{
    uint32_t said = 0;
    uint64_t rows = 0, tokens = 0;
    const kvcl_gguf_kv *kv = NULL;
    KVCL_TRY(kvcl_hparams_u32(g, hp, "vocab_size", &said));
    KVCL_TRY(kvcl_gguf_get_array(g, "tokenizer.ggml.tokens", KVCL_GGUF_STRING, &kv));
    if (kv)
        tokens = kv->n;
    const kvcl_gguf_tensor *t = kvcl_gguf_tensor_find(g, "token_embd.weight");
    if (t)
        rows = t->dims[1];
    KVCL_CHECK(g->ctx, !rows || !tokens || rows == tokens, KVCL_E_FORMAT,
               "%s: token_embd.weight has %llu rows, the vocabulary %llu tokens; the file "
               "contradicts itself",
               g->path, (unsigned long long)rows, (unsigned long long)tokens);
    uint64_t n = rows ? rows : tokens ? tokens : said;
    KVCL_CHECK(g->ctx, n >= 1 && n <= KVCL_MAX_VOCAB, KVCL_E_FORMAT,
               "%s: a vocabulary of %llu tokens, want 1 to %u", g->path, (unsigned long long)n,
               KVCL_MAX_VOCAB);
    hp->n_vocab = (uint32_t)n;
    return KVCL_OK;
}

kvcl_status kvcl_tensor_need(const kvcl_gguf *g, const char *name, uint32_t cols, uint32_t rows,
                             const kvcl_gguf_tensor **out)
{
    const kvcl_gguf_tensor *t = kvcl_gguf_tensor_find(g, name);
    KVCL_CHECK(g->ctx, t, KVCL_E_FORMAT,
               "%s: tensor '%s' is missing; the file is incomplete, convert the model again",
               g->path, name);
    uint64_t want_rows = rows ? rows : 1;
    bool fits = t->dims[0] == cols && t->dims[1] == want_rows && t->dims[2] == 1 && t->dims[3] == 1;
    KVCL_CHECK(g->ctx, fits, KVCL_E_FORMAT,
               "%s: tensor '%s' has shape %llu x %llu x %llu x %llu, the metadata asks for %u x "
               "%llu",
               g->path, name, (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
               (unsigned long long)t->dims[2], (unsigned long long)t->dims[3], cols,
               (unsigned long long)want_rows);
    *out = t;
    return KVCL_OK;
}

/* One tensor of each kind whose shape the metadata fixes; the rest is checked as it is used. */
static kvcl_status check_tensors(const kvcl_gguf *g, kvcl_hparams *hp)
{
    const kvcl_gguf_tensor *t;
    uint32_t q = hp->n_heads * hp->head_dim, kv = hp->n_kv_heads * hp->head_dim;
    char name[KVCL_GGUF_NAME_CAP];
    KVCL_TRY(kvcl_tensor_need(g, "token_embd.weight", hp->n_embd, hp->n_vocab, &t));
    hp->tied_output = !kvcl_gguf_tensor_find(g, "output.weight");
    if (!hp->tied_output)
        KVCL_TRY(kvcl_tensor_need(g, "output.weight", hp->n_embd, hp->n_vocab, &t));
    if (hp->arch->pairing == KVCL_ROPE_NONE)
        KVCL_TRY(kvcl_tensor_need(g, "position_embd.weight", hp->n_embd, hp->n_ctx_train, &t));
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        snprintf(name, sizeof name, "blk.%u.attn_qkv.weight", i);
        if (hp->arch->pairing == KVCL_ROPE_NONE || kvcl_gguf_tensor_find(g, name)) {
            KVCL_TRY(kvcl_tensor_need(g, name, hp->n_embd, q + 2 * kv, &t));
        } else {
            snprintf(name, sizeof name, "blk.%u.attn_q.weight", i);
            KVCL_TRY(kvcl_tensor_need(g, name, hp->n_embd, q, &t));
            snprintf(name, sizeof name, "blk.%u.attn_k.weight", i);
            KVCL_TRY(kvcl_tensor_need(g, name, hp->n_embd, kv, &t));
        }
        snprintf(name, sizeof name, "blk.%u.ffn_down.weight", i);
        KVCL_TRY(kvcl_tensor_need(g, name, hp->n_ff, hp->n_embd, &t));
    }
    return KVCL_OK;
}

static kvcl_status read_ff(const kvcl_gguf *g, kvcl_hparams *hp)
{
    const kvcl_gguf_tensor *t = kvcl_gguf_tensor_find(g, "blk.0.ffn_up.weight");
    if (t && t->dims[1] <= KVCL_MAX_EMBD)
        hp->n_ff = (uint32_t)t->dims[1]; /* the default when the key is absent */
    KVCL_TRY(kvcl_hparams_u32(g, hp, "feed_forward_length", &hp->n_ff));
    KVCL_CHECK(g->ctx, hp->n_ff >= 1, KVCL_E_FORMAT,
               "%s: neither the metadata nor a tensor gives the feed-forward width", g->path);
    return check_width(g, "the feed-forward width", hp->n_ff);
}

/* A window as long as the context says nothing. */
static kvcl_status read_window(const kvcl_gguf *g, kvcl_hparams *hp)
{
    uint32_t n = 0;
    KVCL_TRY(kvcl_hparams_u32(g, hp, "attention.sliding_window", &n));
    if (n == 0 || n >= hp->n_ctx_train)
        return KVCL_OK;
    hp->n_window = n;
    kvcl_log_warn(g->ctx,
                  "%s: attention slides over %u tokens (%s.attention.sliding_window), which is not "
                  "supported: contexts are held to that length",
                  g->path, n, hp->arch->name);
    return KVCL_OK;
}

kvcl_status kvcl_hparams_read(const kvcl_gguf *g, kvcl_hparams *out)
{
    kvcl_hparams hp = {.has_tensors = g->n_tensors > 0};
    char key[KEY_CAP];
    KVCL_TRY(kvcl_arch_find(g, &hp.arch));
    KVCL_TRY(refuse_variants(g, &hp));
    KVCL_TRY(need_u32(g, &hp, "block_count", KVCL_MAX_LAYERS, &hp.n_layers));
    KVCL_TRY(need_u32(g, &hp, "embedding_length", KVCL_MAX_EMBD, &hp.n_embd));
    KVCL_TRY(need_u32(g, &hp, "context_length", KVCL_MAX_CTX, &hp.n_ctx_train));
    KVCL_TRY(check_width(g, "the width", hp.n_embd));
    KVCL_TRY(read_heads(g, &hp));
    KVCL_TRY(check_width(g, "heads times head length", hp.n_heads * hp.head_dim));
    KVCL_TRY(read_ff(g, &hp));
    key_of(&hp, hp.arch->eps_key, key);
    KVCL_TRY(kvcl_gguf_require(g, key));
    KVCL_TRY(kvcl_gguf_get_f32(g, key, &hp.norm_eps));
    KVCL_CHECK(g->ctx, hp.norm_eps >= 0.0f && hp.norm_eps <= 1.0f, KVCL_E_FORMAT,
               "%s: %s is %g, want 0 to 1", g->path, key, (double)hp.norm_eps);
    KVCL_TRY(read_window(g, &hp));
    if (hp.arch->pairing != KVCL_ROPE_NONE)
        KVCL_TRY(kvcl_hparams_read_rope(g, &hp));
    KVCL_TRY(read_vocab(g, &hp));
    if (hp.has_tensors)
        KVCL_TRY(check_tensors(g, &hp));
    KVCL_TRY(kvcl_arch_check_keys(g, hp.arch));
    *out = hp;
    return KVCL_OK;
}
