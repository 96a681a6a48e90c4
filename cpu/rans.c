// rans.c - the entropy coder of pages: interleaved rANS; its encoder stands in
// engine/rans_enc.c, since hosts code bases with it, too.  Kernels: cl/rans.cl; SIMD:
// cpu/simd_rans.c
//
// Words are a stack, so that both directions work forward in memory's terms: the encoder appends,
// the decoder takes from the end.  All lanes share it; who takes a word when follows from the
// states, which both sides know, so that no lane needs lengths of its own.
#include "rans.h"
#include "shared.h"

#include <assert.h>

// A value takes at most 20.1 bits, less than 4/3 words (engine/rans_model.c); a vector may be
// stored beyond the last.
_Static_assert(KVCL_RANS_MAX_VALUES / 3 * 8 + 256 <= KVCL_CPU_SCRATCH_BYTES, "a page's words");

// ---- steps --------------------------------------------------------------------------------------

// Fills a state up.
static uint32_t pop(uint32_t x, const uint16_t *words, int32_t *n)
{
    if (x >= KVCL_RANS_LOW)
        return x;
    return x << 16 | (--*n >= 0 ? words[*n] : 0u);
}

static void decode_step(kvcl_rans_coder *c, int8_t *values, uint32_t i, uint32_t lanes,
                        const uint16_t *words, int32_t *n)
{
    uint32_t escaped = 0;
    for (uint32_t j = lanes; j-- > 0;) {
        uint32_t e = kvcl_rans_entry(c, i + j, KVCL_RANS_SLOTS + c->x[j] % 4096);
        values[i + j] = (int8_t)(uint8_t)e;
        escaped |= kvcl_rans_escapes(e) << j;
        c->x[j] = pop(kvcl_rans_freq(e) * (c->x[j] >> 12) + kvcl_rans_place(e), words, n);
    }
    for (uint32_t j = lanes; j-- > 0;)
        if (escaped >> j & 1) {
            values[i + j] = (int8_t)(uint8_t)c->x[j];
            c->x[j] = pop(c->x[j] >> 8, words, n);
        }
}

void kvcl_cpu_rans_decode(kvcl_rans_coder *c, int8_t *values, uint32_t first, uint32_t end,
                          uint32_t lanes, const uint16_t *words, int32_t *n)
{
    for (uint32_t i = first; i < end; i += lanes)
        decode_step(c, values, i, kvcl_min_u32(lanes, end - i), words, n);
}

// ---- pages --------------------------------------------------------------------------------------

static kvcl_rans_coder coder_of(const kvcl_rans_shape *s, kvcl_view models, kvcl_view table,
                                uint32_t page)
{
    kvcl_rans_coder c = {.table = kvcl_cpu_ptr(table), .n_cols = s->n_cols};
    const uint8_t *all = kvcl_cpu_ptr(models);
    assert(all);
    c.models = all + (size_t)page * s->model_stride;
    return c;
}

static bool models_known(const kvcl_rans_coder *c, uint32_t n_rows)
{
    uint32_t most = 0;
    for (uint32_t r = 0; r < n_rows; r++)
        most = kvcl_max_u32(most, c->models[r]);
    return most < KVCL_RANS_MODELS;
}

void kvcl_cpu_rans_enc_pages(const kvcl_rans_enc_args *a, kvcl_cpu_part *p,
                             kvcl_rans_encode_fn encode)
{
    uint32_t n = a->shape.n_rows * a->shape.n_cols, *used = kvcl_cpu_ptr(a->used);
    uint16_t *words = (uint16_t *)(void *)p->scratch;
    size_t stride = kvcl_rans_stride(&a->shape);
    for (uint32_t page, end; kvcl_cpu_take(p, a->shape.n_pages, 1, &page, &end);) {
        const int8_t *values = (const int8_t *)kvcl_cpu_ptr(a->values) + page * stride;
        unsigned char *slot = (unsigned char *)kvcl_cpu_ptr(a->streams);
        kvcl_rans_coder c = coder_of(&a->shape, a->models, a->table, page);
        slot += (size_t)page * a->slot_bytes;
        used[page] = 0;
        if (models_known(&c, a->shape.n_rows))
            used[page] = kvcl_rans_encode_page(&c, values, n, encode, words, slot, a->slot_bytes);
    }
}

void kvcl_cpu_rans_enc(const void *args, kvcl_cpu_part *p)
{
    kvcl_cpu_rans_enc_pages(args, p, kvcl_rans_encode);
}

// True when the tail is what an encoder makes, and begins as an encoder begins.
static bool decode_tail(kvcl_rans_coder *c, int8_t *values, uint32_t first, uint32_t n)
{
    uint16_t words[KVCL_RANS_SPARE];
    int32_t height = KVCL_RANS_SPARE;
    bool good = true;
    for (uint32_t k = 0; k < KVCL_RANS_SPARE; k++) {
        words[k] = (uint16_t)c->x[KVCL_RANS_TAIL_LANES + k];
        good = good && c->x[KVCL_RANS_TAIL_LANES + k] >> 16 == 1;
    }
    kvcl_cpu_rans_decode(c, values, first, n, KVCL_RANS_TAIL_LANES, words, &height);
    for (int32_t k = 0; k < height; k++)
        good = good && words[k] == 0;
    for (uint32_t j = 0; j < KVCL_RANS_TAIL_LANES; j++)
        good = good && c->x[j] == KVCL_RANS_LOW;
    return good && height >= 0;
}

// The states and the number of tail steps; false when the stream's parts do not add up.
static bool read_states(kvcl_rans_coder *c, const unsigned char *stream, uint32_t bytes,
                        int32_t *height, uint32_t *steps)
{
    uint32_t tall;
    if (bytes < KVCL_RANS_LEAST)
        return false;
    memcpy(&tall, stream, sizeof tall);
    uint32_t least = kvcl_rans_stream_bytes(0, tall);
    if (bytes < least || (bytes - least) % 2 != 0)
        return false;
    *height = (int32_t)((bytes - least) / 2);
    const unsigned char *end = stream + KVCL_RANS_HEAD + 2 * (size_t)*height;
    *steps = *end++;
    for (uint32_t j = 0; j < KVCL_RANS_LANES; j++) {
        uint16_t low;
        memcpy(&low, stream + 4 + 2 * j, sizeof low);
        c->x[j] = (uint32_t)stream[68 + j] << 16 | low;
        if (tall >> j & 1)
            c->x[j] |= (uint32_t)*end++ << 24;
    }
    return true;
}

static bool decode_page(kvcl_rans_coder *c, const unsigned char *stream, uint32_t bytes,
                        int8_t *values, uint32_t n, kvcl_rans_decode_fn decode)
{
    int32_t height;
    uint32_t steps;
    if (!read_states(c, stream, bytes, &height, &steps) || steps > kvcl_div_up(n, KVCL_RANS_LANES))
        return false;
    uint32_t n_main = kvcl_rans_tail_begin(n, steps);
    decode(c, values, 0, n_main, KVCL_RANS_LANES,
           (const uint16_t *)(const void *)(stream + KVCL_RANS_HEAD), &height);
    return height == 0 && decode_tail(c, values, n_main, n);
}

void kvcl_cpu_rans_dec_pages(const kvcl_rans_dec_args *a, kvcl_cpu_part *p,
                             kvcl_rans_decode_fn decode)
{
    uint32_t n = a->shape.n_rows * a->shape.n_cols, *bad = kvcl_cpu_ptr(a->bad);
    const uint32_t *places = kvcl_cpu_ptr(a->places);
    size_t stride = kvcl_rans_stride(&a->shape);
    for (uint32_t page, end; kvcl_cpu_take(p, a->shape.n_pages, 1, &page, &end);) {
        int8_t *values = (int8_t *)kvcl_cpu_ptr(a->values) + page * stride;
        uint64_t at = 4 * (uint64_t)places[2 * page];
        uint32_t bytes = places[2 * page + 1];
        kvcl_rans_coder c = coder_of(&a->shape, a->models, a->table, page);
        const unsigned char *streams = kvcl_cpu_ptr(a->streams);
        bool good = models_known(&c, a->shape.n_rows) && at <= a->streams.bytes &&
                    bytes <= a->streams.bytes - at &&
                    decode_page(&c, streams + at, bytes, values, n, decode);
        bad[page] = !good;
        if (!good)
            memset(values, 0, n);
    }
}

void kvcl_cpu_rans_dec(const void *args, kvcl_cpu_part *p)
{
    kvcl_cpu_rans_dec_pages(args, p, kvcl_cpu_rans_decode);
}
