/* gguf_writer.c - see gguf_writer.h. */
#include "gguf_writer.h"

#include "f16.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

static void put(gguf_writer *w, const void *data, size_t n)
{
    if (w->n + n > w->cap) {
        w->cap = 2 * (w->n + n);
        w->data = realloc(w->data, w->cap);
        ck_assert_ptr_nonnull(w->data);
    }
    memcpy(w->data + w->n, data, n);
    w->n += n;
}

static void put_int(gguf_writer *w, uint64_t v, size_t n)
{
    unsigned char b[8];
    for (size_t i = 0; i < n; i++)
        b[i] = (unsigned char)(v >> (8 * i));
    put(w, b, n);
}

static void put_str(gguf_writer *w, const char *s)
{
    put_int(w, strlen(s), 8);
    put(w, s, strlen(s));
}

static void mark(gguf_writer *w)
{
    ck_assert_uint_lt(w->n_marks, GW_MAX_MARKS);
    w->marks[w->n_marks++] = w->n;
}

void gw_begin(gguf_writer *w, uint32_t version)
{
    *w = (gguf_writer){.align = 32};
    put(w, "GGUF", 4);
    mark(w);
    put_int(w, version, 4);
    mark(w);
    put_int(w, 0, 8);
    mark(w);
    put_int(w, 0, 8);
    mark(w);
}

static void key_and_type(gguf_writer *w, const char *key, kvcl_gguf_type type)
{
    put_str(w, key);
    mark(w);
    put_int(w, (uint32_t)type, 4);
    mark(w);
    w->n_kv++;
}

void gw_scalar(gguf_writer *w, const char *key, kvcl_gguf_type type, uint64_t v)
{
    key_and_type(w, key, type);
    put_int(w, v, kvcl_gguf_scalar_bytes((uint32_t)type));
    mark(w);
}

void gw_u32(gguf_writer *w, const char *key, uint32_t v) { gw_scalar(w, key, KVCL_GGUF_U32, v); }

void gw_f32(gguf_writer *w, const char *key, float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    gw_scalar(w, key, KVCL_GGUF_F32, u);
}

void gw_bool(gguf_writer *w, const char *key, bool v) { gw_scalar(w, key, KVCL_GGUF_BOOL, v); }

void gw_str(gguf_writer *w, const char *key, const char *v)
{
    key_and_type(w, key, KVCL_GGUF_STRING);
    put_str(w, v);
    mark(w);
}

static void array(gguf_writer *w, const char *key, kvcl_gguf_type type, size_t n)
{
    key_and_type(w, key, KVCL_GGUF_ARRAY);
    put_int(w, (uint32_t)type, 4);
    mark(w);
    put_int(w, n, 8);
    mark(w);
}

void gw_strs(gguf_writer *w, const char *key, const char *const *v, size_t n)
{
    array(w, key, KVCL_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        put_str(w, v[i]);
        mark(w);
    }
}

void gw_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    array(w, key, KVCL_GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        put_int(w, (uint32_t)v[i], 4);
    mark(w);
}

void gw_f32s(gguf_writer *w, const char *key, const float *v, size_t n)
{
    array(w, key, KVCL_GGUF_F32, n);
    for (size_t i = 0; i < n; i++)
        put_int(w, kvcl_f32_bits(v[i]), 4);
    mark(w);
}

void gw_tensor(gguf_writer *w, const char *name, kvcl_type type, uint64_t cols, uint64_t rows)
{
    put_str(w, name);
    mark(w);
    put_int(w, rows ? 2 : 1, 4);
    mark(w);
    put_int(w, cols, 8);
    if (rows)
        put_int(w, rows, 8);
    mark(w);
    put_int(w, (uint32_t)type, 4);
    mark(w);
    put_int(w, w->offset, 8);
    mark(w);
    w->n_tensors++;
    w->offset += kvcl_type_bytes(type, (size_t)(cols * (rows ? rows : 1)));
    w->offset = kvcl_align_up(w->offset, w->align);
}

void gw_finish(gguf_writer *w)
{
    gw_patch(w, 8, 8, w->n_tensors);
    gw_patch(w, 16, 8, w->n_kv);
    while (w->n % w->align != 0)
        put_int(w, 0, 1);
    mark(w);
    /* read as f32: +-0.008 to 0.012; as f16, and as scales of blocks: +-1 to 1.25 */
    for (size_t i = 0; i < w->offset; i++)
        put_int(w, i % 2 == 0 ? i * 37 % 251 : i / 4 % 3 || i % 4 == 1 ? 0x3c : 0xbc, 1);
}

void gw_free(gguf_writer *w)
{
    free(w->data);
    *w = (gguf_writer){0};
}

size_t gw_find(const gguf_writer *w, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i + n <= w->n; i++) {
        if (memcmp(w->data + i, text, n) == 0)
            return i;
    }
    ck_abort_msg("'%s' is not in the image", text);
    return 0;
}

void gw_patch(gguf_writer *w, size_t at, size_t bytes, uint64_t v)
{
    ck_assert_uint_le(at + bytes, w->n);
    for (size_t i = 0; i < bytes; i++)
        w->data[at + i] = (unsigned char)(v >> (8 * i));
}

/* ---- the tiny model ------------------------------------------------------------------------ */

static void tiny_vocab(gguf_writer *w)
{
    static const char *const more[] = {"\xc4\xa0t", "he", "\xc4\xa0the", "<tool>"};
    static const char *const merges[] = {"\xc4\xa0 t", "h e", "\xc4\xa0t he"};
    static char text[256][3];
    const char *tokens[GW_TINY_VOCAB] = {"<|endoftext|>"};
    int32_t kinds[GW_TINY_VOCAB];
    unsigned extra = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        unsigned c = plain ? b : extra++;
        snprintf(text[b], 3, c < 0x80 ? "%c" : "%c%c", (char)(c < 0x80 ? c : 0xc0 | c >> 6),
                 (char)(0x80 | (c & 0x3f)));
        tokens[1 + b] = text[b];
    }
    for (size_t i = 0; i < kvcl_array_len(more); i++)
        tokens[257 + i] = more[i];
    for (int i = 0; i < GW_TINY_VOCAB; i++)
        kinds[i] = i == GW_TINY_EOT ? 3 : i == GW_TINY_TOOL ? 4 : 1;
    gw_str(w, "tokenizer.ggml.model", "gpt2");
    gw_str(w, "tokenizer.ggml.pre", "gpt-2");
    gw_strs(w, "tokenizer.ggml.tokens", tokens, GW_TINY_VOCAB);
    gw_i32s(w, "tokenizer.ggml.token_type", kinds, GW_TINY_VOCAB);
    gw_strs(w, "tokenizer.ggml.merges", merges, kvcl_array_len(merges));
    gw_u32(w, "tokenizer.ggml.bos_token_id", 0);
    gw_u32(w, "tokenizer.ggml.eos_token_id", 0);
    gw_bool(w, "tokenizer.ggml.add_bos_token", true);
}

void gw_tiny_keys(gguf_writer *w)
{
    gw_begin(w, 3);
    gw_str(w, "general.architecture", "llama");
    gw_str(w, "general.name", "tiny");
    gw_u32(w, "general.alignment", 32);
    gw_u32(w, "general.file_type", 0);
    gw_u32(w, "llama.block_count", 1);
    gw_u32(w, "llama.context_length", 64);
    gw_u32(w, "llama.embedding_length", 32);
    gw_u32(w, "llama.feed_forward_length", 64);
    gw_u32(w, "llama.attention.head_count", 2);
    gw_u32(w, "llama.attention.head_count_kv", 1);
    gw_u32(w, "llama.rope.dimension_count", 16);
    gw_f32(w, "llama.rope.freq_base", 10000.0f);
    gw_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_vocab(w);
    gw_u32(w, "test.twin_a", 1);
    gw_u32(w, "test.twin_b", 2);
}

void gw_tiny_tensors(gguf_writer *w)
{
    gw_tensor(w, "token_embd.weight", KVCL_F32, 32, GW_TINY_VOCAB);
    gw_tensor(w, "output_norm.weight", KVCL_F32, 32, 0);
    gw_tensor(w, "blk.0.attn_norm.weight", KVCL_F32, 32, 0);
    gw_tensor(w, "blk.0.attn_q.weight", KVCL_F32, 32, 32);
    gw_tensor(w, "blk.0.attn_k.weight", KVCL_F16, 32, 16);
    gw_tensor(w, "blk.0.attn_v.weight", KVCL_F16, 32, 16);
    gw_tensor(w, "blk.0.attn_output.weight", KVCL_F32, 32, 32);
    gw_tensor(w, "blk.0.ffn_norm.weight", KVCL_F32, 32, 0);
    gw_tensor(w, "blk.0.ffn_gate.weight", KVCL_F32, 32, 64);
    gw_tensor(w, "blk.0.ffn_up.weight", KVCL_F32, 32, 64);
    gw_tensor(w, "blk.0.ffn_down.weight", KVCL_F32, 64, 32);
    gw_finish(w);
}

void gw_tiny_llama(gguf_writer *w)
{
    gw_tiny_keys(w);
    gw_tiny_tensors(w);
}
