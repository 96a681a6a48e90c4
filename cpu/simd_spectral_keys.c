/* simd_spectral_keys.c - levels of spectral pages, and keys from them: exact integers up to the
 * last step.  Definition: cpu/spectral.c */
#include "simd_spectral.h"

#include <assert.h>

#define REGS (KVCL_TOKENS / M_LANES) /* of a row */

void KVCL_SIMD_FN(sp_begin)(sp_work *w, uint32_t fold)
{
    uint32_t slots = KVCL_TOKENS / fold;
    for (uint32_t plane = 0; plane < 4; plane++)
        KVCL_SIMD_FN(code_table)(8u >> plane, w->tables[plane]);
    for (uint32_t i = 0; i < KVCL_TOKENS; i++) {
        uint32_t reg = i / M_LANES, lane = i % M_LANES;
        uint32_t at = reg / 2 * 2 * M_LANES + 8 * (lane / 4) + 4 * (reg % 2) + lane % 4;
        w->order[i] = (uint8_t)(at % slots * fold + at / slots);
    }
}

static void places_of(const kvcl_cpu_spectral *x, uint16_t *entry, uint16_t *to)
{
    kvcl_cpu_spectral_order(x, entry);
    for (uint32_t c = 0; c < x->head->n_codes; c++) {
        uint32_t r = entry[c] / x->D, i = entry[c] - r * x->D;
        to[c] = (uint16_t)((i * x->fold + r) * x->slots);
    }
}

void KVCL_SIMD_FN(sp_load_basis)(sp_work *w, const kvcl_cpu_spectral *k, const kvcl_cpu_spectral *v)
{
    uint32_t D = k->D, n = k->head->n_comp;
    assert(D);
    for (uint32_t d = 0; d < D; d++) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            int8_t weight = k->synth[(i / 4 * D + d) * 4 + i % 4];
            w->weights[d * n + i] = weight;
            sum += weight;
        }
        w->weight_sums[d] = sum;
    }
    places_of(k, w->entry[0], w->to[0]);
    places_of(v, w->entry[1], w->to[1]);
    memset(w->rows, 0, sizeof w->rows);
    memset(w->levels, 0, sizeof w->levels);
}

/* ---- levels -------------------------------------------------------------------------------- */

KVCL_INLINE mb group_of(uint32_t bits, mb words, mb table, uint32_t q)
{
    if (bits == 8)
        return mb_level8(words);
    if (bits == 4)
        return mb_pick(table, q ? mb_bits(words, -4, 15) : mb_bits(words, 0, 15));
    if (bits == 2)
        return mb_pick(table, q == 0   ? mb_bits(words, 0, 3)
                              : q == 1 ? mb_bits(words, -2, 3)
                              : q == 2 ? mb_bits(words, -4, 3)
                                       : mb_bits(words, -6, 3));
    return mb_pick(table, q == 0   ? mb_bits(words, 0, 1)
                          : q == 1 ? mb_bits(words, -1, 1)
                          : q == 2 ? mb_bits(words, -2, 1)
                          : q == 3 ? mb_bits(words, -3, 1)
                          : q == 4 ? mb_bits(words, -4, 1)
                          : q == 5 ? mb_bits(words, -5, 1)
                          : q == 6 ? mb_bits(words, -6, 1)
                                   : mb_bits(words, -7, 1));
}

/* Group q of the codes of n words of a plane, as levels. */
KVCL_INLINE void expand_group(uint32_t bits, const uint32_t *words, uint32_t n,
                              const unsigned char *table, uint32_t q, uint32_t *out)
{
    mb levels = mb_table(table);
    uint32_t i = 0;
    for (; i + M_LANES <= n; i += M_LANES)
        mb_store(out + i, group_of(bits, mb_load(words + i), levels, q));
    if (i < n) { /* nothing beyond a page may be read */
        uint32_t rest[M_LANES] = {0};
        memcpy(rest, words + i, (n - i) * sizeof *rest);
        mb_store(rest, group_of(bits, mb_load(rest), levels, q));
        memcpy(out + i, rest, (n - i) * sizeof *rest);
    }
}

static void expand(uint32_t bits, const uint32_t *words, uint32_t n, const unsigned char *table,
                   uint32_t q, uint32_t *out)
{
    if (bits == 8)
        expand_group(8, words, n, table, q, out);
    else if (bits == 4)
        expand_group(4, words, n, table, q, out);
    else if (bits == 2)
        expand_group(2, words, n, table, q, out);
    else
        expand_group(1, words, n, table, q, out);
}

/* Eight integers: slots come in eights, and compilers take so few one by one where vectors hold
 * more. */
typedef int32_t int8x __attribute__((vector_size(32)));
typedef uint32_t uint8x __attribute__((vector_size(32)));
typedef int16_t short8x __attribute__((vector_size(16)));

/* Byte `at` of each of n words: a level, of keys (factor not NULL) times a factor. */
KVCL_INLINE void put(const uint32_t *group, uint32_t at, uint32_t n, const int16_t *factor,
                     int16_t *out)
{
    for (uint32_t s = 0; s < n; s += 8) {
        uint8x words;
        memcpy(&words, group + s, sizeof words);
        int8x x = MB_BIAS ? (int8x)(words >> 8 * at & 255u) - MB_BIAS
                          : (int8x)(words << (24 - 8 * at)) >> 24;
        if (factor)
            x = (x * (int32_t)*factor + 64) >> 7;
        short8x y = __builtin_convertvector(x, short8x);
        memcpy(out + s, &y, sizeof y);
    }
}

/* All codes of a part: of keys times their factors, to w->rows, of values to w->levels. */
KVCL_INLINE void unpack(sp_work *w, const kvcl_cpu_spectral *x, uint32_t slots, bool of_v)
{
    const kvcl_spectral_head *head = x->head;
    const uint16_t *entry = w->entry[of_v], *to = w->to[of_v];
    int16_t *out = of_v ? w->levels : w->rows;
    uint32_t first = 0;
    for (uint32_t plane = 0; plane < 4; first += head->plane_codes[plane++]) {
        uint32_t bits = 8u >> plane, per_word = 32 / bits, count = head->plane_codes[plane];
        uint32_t n_words = kvcl_div_up(count, per_word);
        const uint32_t *words = x->words + (size_t)head->plane_word[plane] * slots;
        for (uint32_t q = 0; q < 8 / bits && count; q++) {
            expand(bits, words, n_words * slots, w->tables[plane], q, w->group);
            const uint32_t *group = w->group;
            for (uint32_t at = 4 * q; at < count; at += per_word, group += slots)
                for (uint32_t e = 0; e < 4 && at + e < count; e++) {
                    uint32_t code = first + at + e;
                    put(group, e, slots, of_v ? NULL : x->factor + entry[code], out + to[code]);
                }
        }
    }
}

/* The same with a constant number of slots. */
static void unpack_part(sp_work *w, const kvcl_cpu_spectral *x, bool of_v)
{
    if (x->slots == 64)
        unpack(w, x, 64, of_v);
    else if (x->slots == 32)
        unpack(w, x, 32, of_v);
    else if (x->slots == 16)
        unpack(w, x, 16, of_v);
    else
        unpack(w, x, 8, of_v);
}

/* Turned, so that components stand in lanes: sums over slots then need no sums of lanes. */
void KVCL_SIMD_FN(sp_levels)(sp_work *w, const kvcl_cpu_spectral *x)
{
    unpack_part(w, x, true);
    for (uint32_t i = 0; i < x->head->n_comp; i += 16)
        for (uint32_t half = 0; half < 2; half++) {
            const int16_t *from = w->levels + (size_t)i * KVCL_TOKENS + 32 * half;
            uint32_t *to = w->pairs + (size_t)16 * half * SP_PITCH + i;
            v16 block[16]; /* bits, no numbers */
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                block[j] = v16_load(from + j * KVCL_TOKENS);
            v16_transpose(block);
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                v16_store((float *)(void *)(to + j * SP_PITCH), block[j]);
        }
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* Transform across the fold of a component's row [r][slots], eight slots at a time; both numbers
 * are constants. */
KVCL_INLINE void across(uint32_t fold, uint32_t slots, int16_t *row)
{
    for (uint32_t s = 0; s < slots; s += 8) {
        short8x x[8];
        KVCL_UNROLL
        for (uint32_t j = 0; j < fold; j++)
            memcpy(&x[j], row + j * slots + s, sizeof x[j]);
        KVCL_UNROLL
        for (uint32_t h = 1; h < fold; h *= 2)
            KVCL_UNROLL
        for (uint32_t j = 0; j < fold; j++)
            if ((j & h) == 0) {
                short8x a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
        KVCL_UNROLL
        for (uint32_t j = 0; j < fold; j++)
            memcpy(row + j * slots + s, &x[j], sizeof x[j]);
    }
}

static void transform(uint32_t fold, uint32_t n, int16_t *rows)
{
    for (uint32_t i = 0; fold > 1 && i < n; i++, rows += KVCL_TOKENS) {
        if (fold == 2)
            across(2, 32, rows);
        else if (fold == 4)
            across(4, 16, rows);
        else
            across(8, 8, rows);
    }
}

/* A tile of keys: dims and registers of places, so that their sums stay in registers. */
#define TILE_DIMS 4u
#define TILE_REGS (V16_REGS == 1 ? 4u : 2u)

/* k[d][place] = fma(step, sum over the components, mean) of a tile. */
KVCL_INLINE void product(const sp_work *w, uint32_t n, uint32_t d, uint32_t reg, const float *step,
                         const float *mean, float *k)
{
    const unsigned char *x = w->packed + (size_t)reg * 4 * M_LANES;
    const mt_weight *weights = w->weights + (size_t)d * n;
    macc acc[TILE_DIMS][TILE_REGS];
    KVCL_UNROLL
    for (uint32_t e = 0; e < TILE_DIMS; e++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < TILE_REGS; j++)
        acc[e][j] = macc_zero();
    for (uint32_t i = 0; i < n; i += 4, x += 512) {
        mt v[TILE_REGS];
        KVCL_UNROLL
        for (uint32_t j = 0; j < TILE_REGS; j++)
            v[j] = mt_load(x + (size_t)j * 4 * M_LANES);
        KVCL_UNROLL
        for (uint32_t e = 0; e < TILE_DIMS; e++)
            KVCL_UNROLL
        for (uint32_t j = 0; j < TILE_REGS; j++)
            acc[e][j] = mt_add(acc[e][j], v[j], weights + e * n + i);
    }
    KVCL_UNROLL
    for (uint32_t e = 0; e < TILE_DIMS; e++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < TILE_REGS; j++) {
        mf us = mf_load(step + (reg + j) * M_LANES);
        mf h = mt_float(acc[e][j], w->weight_sums[d + e]);
        mf_store(k + (size_t)(d + e) * KVCL_TOKENS + (reg + j) * M_LANES,
                 mf_fma(us, h, mf_set(mean[d + e])));
    }
}

void KVCL_SIMD_FN(sp_keys)(sp_work *w, const kvcl_cpu_spectral *x, const float *mean, float *k)
{
    uint32_t n = x->head->n_comp;
    float step[KVCL_TOKENS];
    if (x->fold > 1) /* the last page's stand there transformed */
        memset(w->rows, 0, (size_t)n * KVCL_TOKENS * sizeof *w->rows);
    unpack_part(w, x, false);
    transform(x->fold, n, w->rows);
    for (uint32_t i = 0; i < n; i += 4)
        mt_pack(w->rows + (size_t)i * KVCL_TOKENS, w->packed + (size_t)i / 4 * 512);
    for (uint32_t i = 0; i < KVCL_TOKENS; i++)
        step[i] = x->head->quantum * kvcl_f16_to_f32(x->norms[w->order[i] / x->fold]);
    for (uint32_t d = 0; d < x->D; d += TILE_DIMS)
        for (uint32_t reg = 0; reg < REGS; reg += TILE_REGS)
            product(w, n, d, reg, step, mean, k);
}
