/* simd_spectral.h - spectral pages in vectors: what the sources simd_spectral_keys.c and
 * simd_attn_spectral.c share.  Layout: engine/ops_spectral.h
 *
 * A page's 64 tokens stand in lanes in an order of their own: row [64] of a component is [j][slot]
 * (token k slot + j), which mt_pack of the instruction set shuffles to "places": sp_token. */
#ifndef KVCL_CPU_SIMD_SPECTRAL_H
#define KVCL_CPU_SIMD_SPECTRAL_H

#include "simd_code.h"
#include "spectral.h"

/* Of pairs; rows of 1 KiB would meet in few sets of a cache. */
#define SP_PITCH (CODE_MAX_DIM + 16)

typedef struct sp_work {
    /* aligned: loads that meet two cache lines cost twice */
    _Alignas(64) int16_t rows[CODE_MAX_DIM * KVCL_TOKENS];   /* of keys' components, [i][64] */
    _Alignas(64) int16_t levels[CODE_MAX_DIM * KVCL_TOKENS]; /* of values, [i][r][slots] */
    _Alignas(64) uint32_t pairs[KVCL_TOKENS / 2 * SP_PITCH]; /* [r][slots / 2][i] of two levels */
    _Alignas(64) unsigned char packed[CODE_MAX_DIM / 4 * 512];
    _Alignas(64) mt_weight weights[CODE_MAX_DIM * CODE_MAX_DIM]; /* of keys, [D][n_comp] */
    int32_t weight_sums[CODE_MAX_DIM];
    _Alignas(64)
        uint32_t group[CODE_MAX_DIM * KVCL_TOKENS / 4]; /* levels of a plane, four codes a word */
    uint16_t entry[2][8 * CODE_MAX_DIM];                /* of a code of keys, of values */
    uint16_t to[2][8 * CODE_MAX_DIM];                   /* of a code: where in rows, in levels */
    unsigned char tables[4][16];                        /* of planes */
    uint8_t order[KVCL_TOKENS];                         /* token of each place */
} sp_work;

/* Tables, and the order of tokens, for a fold. */
void KVCL_SIMD_FN(sp_begin)(sp_work *w, uint32_t fold);
/* A head's basis, of keys and of values, becomes the work's. */
void KVCL_SIMD_FN(sp_load_basis)(sp_work *w, const kvcl_cpu_spectral *k,
                                 const kvcl_cpu_spectral *v);
/* Keys of a page as they were before rotation, k [D][64 places]; the basis is the work's. */
void KVCL_SIMD_FN(sp_keys)(sp_work *w, const kvcl_cpu_spectral *x, const float *mean, float *k);
/* Levels of a page's values to w->pairs, zeros where there is no code; the basis is the work's. */
void KVCL_SIMD_FN(sp_levels)(sp_work *w, const kvcl_cpu_spectral *x);

#endif
