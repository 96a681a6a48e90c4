/* simd_code.h - codes of quant pages in vectors: what the sources simd_code.c, simd_key.c and
 * simd_attn_quant.c share.  Layout of the codes: engine/ops_code.h
 *
 * A plane of codes is words [..][width]; a machine register holds M_LANES neighbours of a row, so
 * that each of its lanes is a token (K) or a dimension (V), and each byte one of four codes that
 * follow each other along the sum.  Levels are bytes in the form that products like (MB_BIAS). */
#ifndef KVCL_CPU_SIMD_CODE_H
#define KVCL_CPU_SIMD_CODE_H

#include "ops_code.h"
#include "simd.h"

#define CODE_MAX_DIM 256
#define CODE_READY 0u /* "bits" of levels that code_levels made */
#define CODE_TILE 4u  /* rows that code_dot takes together */

typedef struct kvcl_simd_codes {
    const unsigned char *codes;
    const unsigned char *table; /* sixteen levels, of code_table */
    uint32_t bits;              /* 8, 4, 3, 2, 1, CODE_READY */
    uint32_t n, width;          /* codes along the sum, multiple of 32; lanes, multiple of 32 */
    const unsigned char *soon;  /* codes to ask for on the way, in the same shape; NULL: none */
} kvcl_simd_codes;

/* table [16]: level + MB_BIAS by index; nothing for 8 bits. */
void KVCL_SIMD_FN(code_table)(uint32_t bits, unsigned char *table);
/* The levels [n / 4][width][4] of codes. */
void KVCL_SIMD_FN(code_levels)(const kvcl_simd_codes *c, unsigned char *out);
/* Fifteen-bit integers round(x inv) of x [n], n a multiple of 16: the words [n / 2] of code_dot;
 * returns the sum of them (where the bias needs it).  code_q15: with the scale of x itself. */
int32_t KVCL_SIMD_FN(code_words)(const float *x, uint32_t n, float inv, uint32_t *words);
void KVCL_SIMD_FN(code_q15)(const float *x, uint32_t n, uint32_t *words, float *quantum,
                            int32_t *sum);
/* out[r][lane] = (float) sum over i of Q_r[i] level[i][lane], exact; q, out: rows of q_pitch words
 * and out_pitch floats. */
void KVCL_SIMD_FN(code_dot)(const kvcl_simd_codes *c, const uint32_t *q, uint32_t q_pitch,
                            const int32_t *q_sum, uint32_t rows, float *out, size_t out_pitch);

/* Keys of PRE pages, tokens t .. t + 15 of a page:
 *   out[d][i] = fma(us[i], h[t + i][d], mean[d]), h the transform of the levels in blocks of
 *   `block`; out: rows of `pitch` floats; us: that of token t. */
void KVCL_SIMD_FN(code_keys)(const kvcl_simd_codes *c, uint32_t block, uint32_t t, const float *us,
                             const float *mean, float *out, uint32_t pitch);

/* Scores of a tile of rows over PRE keys: s[r][t] = chain over d of fma(q[r][d], k turned[d][t],
 * .), -0 left as it is; q: rows of CODE_MAX_DIM, s of s_pitch.  False: not for this shape. */
typedef struct kvcl_simd_key_page {
    const unsigned char *codes;
    const float *us, *q; /* [64]; [rows][CODE_MAX_DIM] */
    float *s;
    const unsigned char *soon; /* soon_bytes to ask for on the way */
    const unsigned char *next; /* codes to ask for on the last pages' way; NULL: none */
} kvcl_simd_key_page;

typedef struct kvcl_simd_key_job {
    const unsigned char *table;
    const float *mean, *cs; /* cs [4][n_rot / 2][2][16] */
    uint32_t bits, dim, n_rot, rows, n_pages, s_pitch;
    uint32_t soon_bytes;
    kvcl_rope_pairing pairing;
    kvcl_simd_key_page pages[KVCL_BLOCK_PAGES];
} kvcl_simd_key_job;

bool KVCL_SIMD_FN(key_scores)(const kvcl_simd_key_job *job);

/* Turning: cs [n_rot / 2][2][pitch] of the same tokens. */
typedef struct kvcl_simd_turn {
    uint32_t dim, n_rot, pitch, cs_pitch;
    kvcl_rope_pairing pairing;
    const float *cs;
    float *k; /* [dim][pitch]; turned in place, perhaps in part */
} kvcl_simd_turn;

/* out[r][i] = chain over d of fma(q[r][d], k turned[d][i], .), 16 tokens, rows <= CODE_TILE. */
void KVCL_SIMD_FN(key_turn_dot)(const kvcl_simd_turn *k, const float *q, uint32_t q_pitch,
                                uint32_t rows, float *out, size_t out_pitch);
/* Turns n tokens of k, a multiple of 16. */
void KVCL_SIMD_FN(key_turn)(const kvcl_simd_turn *k, uint32_t n);
/* The same chains over keys already turned, 64 tokens, any number of rows. */
void KVCL_SIMD_FN(key_dot)(const float *k, uint32_t dim, const float *q, uint32_t q_pitch,
                           uint32_t rows, float *out, size_t out_pitch);

/* Walsh-Hadamard transform of x [n] in place, n a power of two >= 16, no factor. */
void KVCL_SIMD_FN(fwht_row)(float *x, uint32_t n);
/* The same of each column of x [n][columns], then times factor, -0 to +0; columns 1 or a power of
 * two >= 16; n >= 16 where it is 1. */
void KVCL_SIMD_FN(fwht_columns)(float *x, uint32_t n, uint32_t columns, float factor);

/* Asks for memory: pages lie apart, so that the processor cannot guess where it goes on.  To be
 * inlined all the way: calls of functions that only ask are removed as without effect. */
KVCL_INLINE void code_ask(const unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(p + i, 0, 2);
}

/* Words of a plane that eight groups of four codes take. */
KVCL_INLINE uint32_t code_step(uint32_t bits)
{
    return bits == CODE_READY ? 8 : bits == 3 ? 2 : bits;
}

/* Group j of the eight that begin at p: levels.  high: where the same eight begin in the plane of
 * bit 2.  bits and j are constants; pitch: bytes from word to word. */
KVCL_INLINE mb code_group(uint32_t bits, const unsigned char *p, const unsigned char *high,
                          size_t pitch, mb table, uint32_t j)
{
    int r = (int)j;
    if (bits == CODE_READY)
        return mb_load(p + j * pitch);
    if (bits == 8)
        return mb_level8(mb_load(p + j * pitch));
    if (bits == 4)
        return mb_pick(table, mb_bits(mb_load(p + j / 2 * pitch), -4 * (r % 2), 15));
    if (bits == 2)
        return mb_pick(table, mb_bits(mb_load(p + j / 4 * pitch), -2 * (r % 4), 3));
    if (bits == 1)
        return mb_pick(table, mb_bits(mb_load(p), -r, 1));
    mb low = mb_bits(mb_load(p + j / 4 * pitch), -2 * (r % 4), 3);
    return mb_pick(table, mb_or(low, mb_bits(mb_load(high), 2 - r, 4)));
}

/* Calls f(bits, ...) with constant bits. */
#define CODE_EACH_BITS(f, bits, ...)    \
    do {                                \
        switch (bits) {                 \
        case CODE_READY:                \
            f(CODE_READY, __VA_ARGS__); \
            break;                      \
        case 8:                         \
            f(8, __VA_ARGS__);          \
            break;                      \
        case 4:                         \
            f(4, __VA_ARGS__);          \
            break;                      \
        case 3:                         \
            f(3, __VA_ARGS__);          \
            break;                      \
        case 2:                         \
            f(2, __VA_ARGS__);          \
            break;                      \
        default:                        \
            f(1, __VA_ARGS__);          \
            break;                      \
        }                               \
    } while (0)

#endif
