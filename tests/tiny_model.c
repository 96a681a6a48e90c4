/* tiny_model.c - see tiny_model.h. */
#define _POSIX_C_SOURCE 200809L

#include "tiny_model.h"

#include "f16.h"
#include "types.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STR = 8, GGUF_ARR = 9 };

#define ALIGNMENT 32u

/* A file is written in two passes over the same description: first names and offsets, then data. */
typedef struct writer {
    FILE *f;
    const tiny_model *m;
    bool data;
    uint64_t n_keys, n_tensors, offset;
} writer;

static void put(writer *w, const void *data, size_t bytes)
{
    test_true(fwrite(data, 1, bytes, w->f) == bytes);
}

static void put_u32(writer *w, uint32_t v)
{
    unsigned char b[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                          (unsigned char)(v >> 24)};
    put(w, b, sizeof b);
}

static void put_u64(writer *w, uint64_t v)
{
    put_u32(w, (uint32_t)v);
    put_u32(w, (uint32_t)(v >> 32));
}

static void put_text(writer *w, const char *s)
{
    put_u64(w, strlen(s));
    put(w, s, strlen(s));
}

/* ---- keys ---------------------------------------------------------------------------------- */

static const char *family_of(const tiny_model *m)
{
    return m->family ? m->family : m->gpt2 ? "gpt2" : "llama";
}

static bool is_family(const tiny_model *m, const char *name)
{
    return strcmp(family_of(m), name) == 0;
}

static uint32_t head_dim(const tiny_model *m)
{
    return m->head_dim ? m->head_dim : m->n_embd / m->n_heads;
}

static void key(writer *w, const char *name, uint32_t type)
{
    char full[96];
    const char *arch = family_of(w->m);
    /* ".x" belongs to the architecture */
    snprintf(full, sizeof full, "%s%s", name[0] == '.' ? arch : "", name);
    put_text(w, full);
    put_u32(w, type);
    w->n_keys++;
}

static void key_u32(writer *w, const char *name, uint32_t v)
{
    key(w, name, GGUF_U32);
    put_u32(w, v);
}

static void key_f32(writer *w, const char *name, float v)
{
    key(w, name, GGUF_F32);
    put_u32(w, kvcl_f32_bits(v));
}

static void key_text(writer *w, const char *name, const char *v)
{
    key(w, name, GGUF_STR);
    put_text(w, v);
}

static void key_array(writer *w, const char *name, uint32_t type, uint64_t n)
{
    key(w, name, GGUF_ARR);
    put_u32(w, type);
    put_u64(w, n);
}

/* Code point of a byte in GPT-2's printable alphabet, as UTF-8. */
static void byte_text(unsigned b, char out[3])
{
    unsigned c = 256;
    for (unsigned i = 0; i <= b; i++) {
        bool plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        if (i == b)
            c = plain ? b : c;
        else if (!plain)
            c++;
    }
    out[0] = (char)(c < 128 ? c : 0xc0 | c >> 6);
    out[1] = (char)(c < 128 ? 0 : 0x80 | (c & 0x3f));
    out[2] = 0;
}

#define N_MERGES 30
static const char merges[N_MERGES][5] = {"t h", "h e", "i n", "e r", "a n", "r e", "o n", "a t",
                                         "e n", "n d", "t i", "e s", "o r", "t e", "o f", "e d",
                                         "i s", "i t", "a l", "a r", "s t", "t o", "n t", "n g",
                                         "s e", "h a", "a s", "o u", "i o", "l e"};

static void write_tokenizer(writer *w)
{
    char text[8];
    key_text(w, "tokenizer.ggml.model", "gpt2");
    key_text(w, "tokenizer.ggml.pre", "gpt-2");
    key_array(w, "tokenizer.ggml.tokens", GGUF_STR, TINY_VOCAB);
    for (unsigned b = 0; b < 256; b++) {
        byte_text(b, text);
        put_text(w, text);
    }
    for (unsigned i = 0; i < N_MERGES; i++) {
        snprintf(text, sizeof text, "%c%c", merges[i][0], merges[i][2]);
        put_text(w, text);
    }
    put_text(w, "<s>");
    put_text(w, "</s>");
    key_array(w, "tokenizer.ggml.token_type", GGUF_I32, TINY_VOCAB);
    for (unsigned i = 0; i < TINY_VOCAB; i++)
        put_u32(w, i < TINY_VOCAB - 2 ? 1 : 3);
    key_array(w, "tokenizer.ggml.merges", GGUF_STR, N_MERGES);
    for (unsigned i = 0; i < N_MERGES; i++)
        put_text(w, merges[i]);
    key_u32(w, "tokenizer.ggml.bos_token_id", TINY_VOCAB - 2);
    key_u32(w, "tokenizer.ggml.eos_token_id", TINY_VOCAB - 1);
}

static void write_rope_keys(writer *w)
{
    const tiny_model *m = w->m;
    key_u32(w, ".rope.dimension_count", head_dim(m));
    key_f32(w, ".rope.freq_base", 10000.0f);
    if (m->head_dim) {
        key_u32(w, ".attention.key_length", m->head_dim);
        key_u32(w, ".attention.value_length", m->head_dim);
    }
    if (m->rope == TINY_ROPE_LINEAR || m->rope == TINY_ROPE_YARN) {
        key_text(w, ".rope.scaling.type", m->rope == TINY_ROPE_YARN ? "yarn" : "linear");
        key_f32(w, ".rope.scaling.factor", 4.0f);
    }
    if (m->rope == TINY_ROPE_YARN)
        key_u32(w, ".rope.scaling.original_context_length", 256);
}

static void write_keys(writer *w)
{
    const tiny_model *m = w->m;
    key_text(w, "general.architecture", family_of(m));
    key_text(w, "general.name", "tiny made-up model");
    key_u32(w, ".context_length", TINY_CTX);
    key_u32(w, ".embedding_length", m->n_embd);
    key_u32(w, ".block_count", m->n_layers);
    key_u32(w, ".feed_forward_length", m->n_ff);
    key_u32(w, ".attention.head_count", m->n_heads);
    if (m->gpt2) {
        key_f32(w, ".attention.layer_norm_epsilon", 1e-5f);
    } else {
        key_u32(w, ".attention.head_count_kv", m->n_kv_heads);
        key_f32(w, ".attention.layer_norm_rms_epsilon", 1e-5f);
        write_rope_keys(w);
        key_u32(w, ".vocab_size", TINY_VOCAB);
    }
    write_tokenizer(w);
}

/* ---- tensors ------------------------------------------------------------------------------- */

static void encode(kvcl_type type, const float *x, size_t n, unsigned char *out)
{
    if (type != KVCL_BF16) {
        test_true(kvcl_quantise(type, x, n, out));
        return;
    }
    for (size_t i = 0; i < n; i++) { /* rounding does not matter here: cut */
        uint16_t h = (uint16_t)(kvcl_f32_bits(x[i]) >> 16);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

/* rows 0: a vector of cols values around `centre`, stored as f32. */
static void tensor(writer *w, const char *name, uint32_t cols, uint32_t rows, float centre)
{
    kvcl_type type = rows ? w->m->type : KVCL_F32;
    size_t n = (size_t)cols * (rows ? rows : 1), bytes = kvcl_type_bytes(type, n);
    size_t padded = kvcl_align_up(bytes, ALIGNMENT);
    uint64_t index = w->n_tensors++;
    if (!w->data) {
        put_text(w, name);
        put_u32(w, rows ? 2 : 1);
        put_u64(w, cols);
        if (rows)
            put_u64(w, rows);
        put_u32(w, (uint32_t)type);
        put_u64(w, w->offset);
        w->offset += padded;
        return;
    }
    test_true(n > 0);
    test_rng rng = {.seed = test_word(w->m->seed, index)};
    float *x = malloc(n * sizeof *x), scale = rows ? sqrtf(3.0f / (float)cols) : 0.3f;
    unsigned char *raw = calloc(1, padded);
    test_true(x && raw);
    for (size_t i = 0; i < n; i++)
        x[i] = centre + scale * test_unit(&rng);
    encode(type, x, n, raw);
    put(w, raw, padded);
    free(x);
    free(raw);
}

/* A matrix and, where the family has one, its bias. */
static void linear(writer *w, uint32_t layer, const char *what, uint32_t cols, uint32_t rows)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.%s.weight", layer, what);
    tensor(w, name, cols, rows, 0.0f);
    snprintf(name, sizeof name, "blk.%u.%s.bias", layer, what);
    bool qkv = strcmp(what, "attn_output") != 0 && strncmp(what, "attn", 4) == 0;
    if (w->m->gpt2 || (qkv && is_family(w->m, "qwen2")))
        tensor(w, name, rows, 0, 0.0f);
}

static void norm(writer *w, const char *prefix)
{
    char name[64];
    snprintf(name, sizeof name, "%s.weight", prefix);
    tensor(w, name, w->m->n_embd, 0, 1.0f);
    snprintf(name, sizeof name, "%s.bias", prefix);
    if (w->m->gpt2)
        tensor(w, name, w->m->n_embd, 0, 0.0f);
}

/* Of each head's query and key. */
static void head_norms(writer *w, uint32_t i)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.attn_q_norm.weight", i);
    tensor(w, name, head_dim(w->m), 0, 1.0f);
    snprintf(name, sizeof name, "blk.%u.attn_k_norm.weight", i);
    tensor(w, name, head_dim(w->m), 0, 1.0f);
}

static void layer(writer *w, uint32_t i)
{
    const tiny_model *m = w->m;
    uint32_t E = m->n_embd, kv = m->n_kv_heads * head_dim(m), q = m->n_heads * head_dim(m);
    char name[64];
    snprintf(name, sizeof name, "blk.%u.attn_norm", i);
    norm(w, name);
    if (m->gpt2) {
        linear(w, i, "attn_qkv", E, 3 * E);
    } else {
        linear(w, i, "attn_q", E, q);
        linear(w, i, "attn_k", E, kv);
        linear(w, i, "attn_v", E, kv);
    }
    if (is_family(m, "qwen3"))
        head_norms(w, i);
    linear(w, i, "attn_output", q, E);
    snprintf(name, sizeof name, "blk.%u.ffn_norm", i);
    norm(w, name);
    if (!m->gpt2)
        linear(w, i, "ffn_gate", E, m->n_ff);
    linear(w, i, "ffn_up", E, m->n_ff);
    linear(w, i, "ffn_down", m->n_ff, E);
}

static void write_tensors(writer *w, bool data)
{
    const tiny_model *m = w->m;
    w->data = data;
    w->n_tensors = 0;
    tensor(w, "token_embd.weight", m->n_embd, TINY_VOCAB, 0.0f);
    if (m->gpt2)
        tensor(w, "position_embd.weight", m->n_embd, TINY_CTX, 0.0f);
    if (m->untied)
        tensor(w, "output.weight", m->n_embd, TINY_VOCAB, 0.0f);
    if (m->rope == TINY_ROPE_FREQS)
        tensor(w, "rope_freqs.weight", head_dim(m) / 2, 0, 2.0f);
    for (uint32_t i = 0; i < m->n_layers; i++)
        layer(w, i);
    norm(w, "output_norm");
}

/* ---- files --------------------------------------------------------------------------------- */

tiny_model tiny_llama(kvcl_type type)
{
    return (tiny_model){.type = type,
                        .n_layers = 2,
                        .n_embd = 64,
                        .n_ff = 96,
                        .n_heads = 4,
                        .n_kv_heads = 2,
                        .seed = 1};
}

tiny_model tiny_gpt2(kvcl_type type)
{
    tiny_model m = tiny_llama(type);
    m.gpt2 = true;
    m.n_kv_heads = m.n_heads;
    m.seed = 2;
    return m;
}

tiny_model tiny_named(const char *name, kvcl_type type)
{
    tiny_model m = tiny_llama(type);
    m.seed = 3;
    if (strncmp(name, "qwen", 4) == 0) {
        m.family = strcmp(name, "qwen2") == 0 ? "qwen2" : "qwen3";
        m.head_dim = 32;
    } else if (strcmp(name, "llama-linear") == 0 || strcmp(name, "llama-yarn") == 0) {
        m.rope = strcmp(name, "llama-yarn") == 0 ? TINY_ROPE_YARN : TINY_ROPE_LINEAR;
        m.head_dim = 32;
    } else {
        test_require(strcmp(name, "llama-freqs") == 0, "no tiny model '%s'", name);
        m.rope = TINY_ROPE_FREQS;
        m.untied = true;
    }
    return m;
}

void tiny_model_write(const tiny_model *m, const char *path)
{
    static const char zeros[ALIGNMENT];
    writer w = {.f = fopen(path, "wb"), .m = m};
    test_require(w.f != NULL, "cannot create %s", path);
    put(&w, "GGUF", 4);
    put_u32(&w, 3);
    put_u64(&w, 0);
    put_u64(&w, 0);
    write_keys(&w);
    write_tensors(&w, false);
    long at = ftell(w.f);
    put(&w, zeros, kvcl_align_up((size_t)at, ALIGNMENT) - (size_t)at);
    write_tensors(&w, true);
    /* the counts, now known */
    test_true(fseek(w.f, 8, SEEK_SET) == 0);
    put_u64(&w, w.n_tensors);
    put_u64(&w, w.n_keys);
    test_true(fclose(w.f) == 0);
}
