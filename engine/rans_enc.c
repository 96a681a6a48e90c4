/* rans_enc.c - the entropy coder's way in: values to a stream.  Its way back: cpu/rans.c.
 *
 * Words are a stack, so that both directions work forward in memory's terms: the encoder appends,
 * the decoder takes from the end.  All lanes share it; who takes a word when follows from the
 * states, which both sides know, so that no lane needs lengths of its own. */
#include "rans_enc.h"

#include <string.h>

#define MAX_TAIL_STEPS 255u

/* Makes room in a state that must be below `limit`. */
static uint32_t push(uint32_t x, uint32_t limit, uint16_t *words, uint32_t *n)
{
    if (x < limit)
        return x;
    words[(*n)++] = (uint16_t)x;
    return x >> 16;
}

static void encode_step(kvcl_rans_coder *c, const int8_t *values, uint32_t i, uint32_t lanes,
                        uint16_t *words, uint32_t *n)
{
    for (uint32_t j = 0; j < lanes; j++) {
        uint32_t v = (uint8_t)values[i + j];
        if (kvcl_rans_escapes(kvcl_rans_entry(c, i + j, v)))
            c->x[j] = push(c->x[j], 1u << 24, words, n) << 8 | v;
    }
    for (uint32_t j = 0; j < lanes; j++) {
        uint32_t e = kvcl_rans_entry(c, i + j, (uint8_t)values[i + j]), f = kvcl_rans_freq(e);
        uint32_t x = push(c->x[j], f << 20, words, n);
        c->x[j] = (x / f << 12) + kvcl_rans_place(e) + x % f;
    }
}

void kvcl_rans_encode(kvcl_rans_coder *c, const int8_t *values, uint32_t first, uint32_t end,
                      uint32_t lanes, uint16_t *words, uint32_t *n)
{
    for (uint32_t i = kvcl_div_up(end, lanes) * lanes; i > first;) {
        i -= lanes;
        encode_step(c, values, i, kvcl_min_u32(lanes, end - i), words, n);
    }
}

/* Encodes as many steps' values into the slack of the lanes as fit; returns how many. */
static uint32_t encode_tail(kvcl_rans_coder *c, const int8_t *values, uint32_t n)
{
    uint16_t words[KVCL_RANS_SPARE + 2 * KVCL_RANS_LANES];
    uint32_t most = kvcl_min_u32(MAX_TAIL_STEPS, kvcl_div_up(n, KVCL_RANS_LANES));
    uint32_t steps = 0, height = 0;
    for (uint32_t j = 0; j < KVCL_RANS_LANES; j++)
        c->x[j] = KVCL_RANS_LOW;
    for (; steps < most; steps++) {
        kvcl_rans_coder more = *c;
        uint32_t h = height;
        kvcl_rans_encode(&more, values, kvcl_rans_tail_begin(n, steps + 1),
                         kvcl_rans_tail_begin(n, steps), KVCL_RANS_TAIL_LANES, words, &h);
        if (h > KVCL_RANS_SPARE)
            break;
        *c = more;
        height = h;
    }
    for (uint32_t k = 0; k < height; k++)
        c->x[KVCL_RANS_LANES - height + k] |= words[k];
    return steps;
}

/* The head and what follows the words. */
static void write_states(const kvcl_rans_coder *c, uint32_t tall, uint32_t steps, uint32_t height,
                         unsigned char *slot)
{
    unsigned char *end = slot + KVCL_RANS_HEAD + 2 * height;
    memcpy(slot, &tall, sizeof tall);
    *end++ = (unsigned char)steps;
    for (uint32_t j = 0; j < KVCL_RANS_LANES; j++) {
        uint16_t low = (uint16_t)c->x[j];
        memcpy(slot + 4 + 2 * j, &low, sizeof low);
        slot[68 + j] = (unsigned char)(c->x[j] >> 16);
        if (tall >> j & 1)
            *end++ = (unsigned char)(c->x[j] >> 24);
    }
}

uint32_t kvcl_rans_encode_page(kvcl_rans_coder *c, const int8_t *values, uint32_t n,
                               kvcl_rans_encode_fn encode, uint16_t *words, unsigned char *slot,
                               uint32_t slot_bytes)
{
    uint32_t height = 0, tall = 0, steps = encode_tail(c, values, n);
    encode(c, values, 0, kvcl_rans_tail_begin(n, steps), KVCL_RANS_LANES, words, &height);
    for (uint32_t j = 0; j < KVCL_RANS_LANES; j++)
        tall |= (uint32_t)(c->x[j] >> 24 != 0) << j;
    uint32_t bytes = kvcl_rans_stream_bytes(height, tall);
    if (bytes > slot_bytes)
        return 0;
    write_states(c, tall, steps, height, slot);
    memcpy(slot + KVCL_RANS_HEAD, words, height * sizeof *words);
    return bytes;
}
