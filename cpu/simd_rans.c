/* simd_rans.c - the main part of the entropy coder's pages, 32 lanes in four vectors of eight.
 * Definition: cpu/rans.c.  Where there are no gathers (NEON) the twin does it. */
#include "rans.h"
#include "simd.h"

#include <assert.h>

#if defined(__AVX2__)

#define VECS 4u /* of eight lanes */

/* Orders of lanes for each mask of eight, a nibble each.
 *   take   of lane j, in the mask: which word it gets, of eight words the last of which are meant
 *   leave  of word k: the k-th lane of the mask */
static const uint32_t take[256] = {
    0x00000000, 0x00000007, 0x00000070, 0x00000076, 0x00000700, 0x00000706, 0x00000760, 0x00000765,
    0x00007000, 0x00007006, 0x00007060, 0x00007065, 0x00007600, 0x00007605, 0x00007650, 0x00007654,
    0x00070000, 0x00070006, 0x00070060, 0x00070065, 0x00070600, 0x00070605, 0x00070650, 0x00070654,
    0x00076000, 0x00076005, 0x00076050, 0x00076054, 0x00076500, 0x00076504, 0x00076540, 0x00076543,
    0x00700000, 0x00700006, 0x00700060, 0x00700065, 0x00700600, 0x00700605, 0x00700650, 0x00700654,
    0x00706000, 0x00706005, 0x00706050, 0x00706054, 0x00706500, 0x00706504, 0x00706540, 0x00706543,
    0x00760000, 0x00760005, 0x00760050, 0x00760054, 0x00760500, 0x00760504, 0x00760540, 0x00760543,
    0x00765000, 0x00765004, 0x00765040, 0x00765043, 0x00765400, 0x00765403, 0x00765430, 0x00765432,
    0x07000000, 0x07000006, 0x07000060, 0x07000065, 0x07000600, 0x07000605, 0x07000650, 0x07000654,
    0x07006000, 0x07006005, 0x07006050, 0x07006054, 0x07006500, 0x07006504, 0x07006540, 0x07006543,
    0x07060000, 0x07060005, 0x07060050, 0x07060054, 0x07060500, 0x07060504, 0x07060540, 0x07060543,
    0x07065000, 0x07065004, 0x07065040, 0x07065043, 0x07065400, 0x07065403, 0x07065430, 0x07065432,
    0x07600000, 0x07600005, 0x07600050, 0x07600054, 0x07600500, 0x07600504, 0x07600540, 0x07600543,
    0x07605000, 0x07605004, 0x07605040, 0x07605043, 0x07605400, 0x07605403, 0x07605430, 0x07605432,
    0x07650000, 0x07650004, 0x07650040, 0x07650043, 0x07650400, 0x07650403, 0x07650430, 0x07650432,
    0x07654000, 0x07654003, 0x07654030, 0x07654032, 0x07654300, 0x07654302, 0x07654320, 0x07654321,
    0x70000000, 0x70000006, 0x70000060, 0x70000065, 0x70000600, 0x70000605, 0x70000650, 0x70000654,
    0x70006000, 0x70006005, 0x70006050, 0x70006054, 0x70006500, 0x70006504, 0x70006540, 0x70006543,
    0x70060000, 0x70060005, 0x70060050, 0x70060054, 0x70060500, 0x70060504, 0x70060540, 0x70060543,
    0x70065000, 0x70065004, 0x70065040, 0x70065043, 0x70065400, 0x70065403, 0x70065430, 0x70065432,
    0x70600000, 0x70600005, 0x70600050, 0x70600054, 0x70600500, 0x70600504, 0x70600540, 0x70600543,
    0x70605000, 0x70605004, 0x70605040, 0x70605043, 0x70605400, 0x70605403, 0x70605430, 0x70605432,
    0x70650000, 0x70650004, 0x70650040, 0x70650043, 0x70650400, 0x70650403, 0x70650430, 0x70650432,
    0x70654000, 0x70654003, 0x70654030, 0x70654032, 0x70654300, 0x70654302, 0x70654320, 0x70654321,
    0x76000000, 0x76000005, 0x76000050, 0x76000054, 0x76000500, 0x76000504, 0x76000540, 0x76000543,
    0x76005000, 0x76005004, 0x76005040, 0x76005043, 0x76005400, 0x76005403, 0x76005430, 0x76005432,
    0x76050000, 0x76050004, 0x76050040, 0x76050043, 0x76050400, 0x76050403, 0x76050430, 0x76050432,
    0x76054000, 0x76054003, 0x76054030, 0x76054032, 0x76054300, 0x76054302, 0x76054320, 0x76054321,
    0x76500000, 0x76500004, 0x76500040, 0x76500043, 0x76500400, 0x76500403, 0x76500430, 0x76500432,
    0x76504000, 0x76504003, 0x76504030, 0x76504032, 0x76504300, 0x76504302, 0x76504320, 0x76504321,
    0x76540000, 0x76540003, 0x76540030, 0x76540032, 0x76540300, 0x76540302, 0x76540320, 0x76540321,
    0x76543000, 0x76543002, 0x76543020, 0x76543021, 0x76543200, 0x76543201, 0x76543210, 0x76543210,
};
static const uint32_t leave[256] = {
    0x00000000, 0x00000000, 0x00000001, 0x00000010, 0x00000002, 0x00000020, 0x00000021, 0x00000210,
    0x00000003, 0x00000030, 0x00000031, 0x00000310, 0x00000032, 0x00000320, 0x00000321, 0x00003210,
    0x00000004, 0x00000040, 0x00000041, 0x00000410, 0x00000042, 0x00000420, 0x00000421, 0x00004210,
    0x00000043, 0x00000430, 0x00000431, 0x00004310, 0x00000432, 0x00004320, 0x00004321, 0x00043210,
    0x00000005, 0x00000050, 0x00000051, 0x00000510, 0x00000052, 0x00000520, 0x00000521, 0x00005210,
    0x00000053, 0x00000530, 0x00000531, 0x00005310, 0x00000532, 0x00005320, 0x00005321, 0x00053210,
    0x00000054, 0x00000540, 0x00000541, 0x00005410, 0x00000542, 0x00005420, 0x00005421, 0x00054210,
    0x00000543, 0x00005430, 0x00005431, 0x00054310, 0x00005432, 0x00054320, 0x00054321, 0x00543210,
    0x00000006, 0x00000060, 0x00000061, 0x00000610, 0x00000062, 0x00000620, 0x00000621, 0x00006210,
    0x00000063, 0x00000630, 0x00000631, 0x00006310, 0x00000632, 0x00006320, 0x00006321, 0x00063210,
    0x00000064, 0x00000640, 0x00000641, 0x00006410, 0x00000642, 0x00006420, 0x00006421, 0x00064210,
    0x00000643, 0x00006430, 0x00006431, 0x00064310, 0x00006432, 0x00064320, 0x00064321, 0x00643210,
    0x00000065, 0x00000650, 0x00000651, 0x00006510, 0x00000652, 0x00006520, 0x00006521, 0x00065210,
    0x00000653, 0x00006530, 0x00006531, 0x00065310, 0x00006532, 0x00065320, 0x00065321, 0x00653210,
    0x00000654, 0x00006540, 0x00006541, 0x00065410, 0x00006542, 0x00065420, 0x00065421, 0x00654210,
    0x00006543, 0x00065430, 0x00065431, 0x00654310, 0x00065432, 0x00654320, 0x00654321, 0x06543210,
    0x00000007, 0x00000070, 0x00000071, 0x00000710, 0x00000072, 0x00000720, 0x00000721, 0x00007210,
    0x00000073, 0x00000730, 0x00000731, 0x00007310, 0x00000732, 0x00007320, 0x00007321, 0x00073210,
    0x00000074, 0x00000740, 0x00000741, 0x00007410, 0x00000742, 0x00007420, 0x00007421, 0x00074210,
    0x00000743, 0x00007430, 0x00007431, 0x00074310, 0x00007432, 0x00074320, 0x00074321, 0x00743210,
    0x00000075, 0x00000750, 0x00000751, 0x00007510, 0x00000752, 0x00007520, 0x00007521, 0x00075210,
    0x00000753, 0x00007530, 0x00007531, 0x00075310, 0x00007532, 0x00075320, 0x00075321, 0x00753210,
    0x00000754, 0x00007540, 0x00007541, 0x00075410, 0x00007542, 0x00075420, 0x00075421, 0x00754210,
    0x00007543, 0x00075430, 0x00075431, 0x00754310, 0x00075432, 0x00754320, 0x00754321, 0x07543210,
    0x00000076, 0x00000760, 0x00000761, 0x00007610, 0x00000762, 0x00007620, 0x00007621, 0x00076210,
    0x00000763, 0x00007630, 0x00007631, 0x00076310, 0x00007632, 0x00076320, 0x00076321, 0x00763210,
    0x00000764, 0x00007640, 0x00007641, 0x00076410, 0x00007642, 0x00076420, 0x00076421, 0x00764210,
    0x00007643, 0x00076430, 0x00076431, 0x00764310, 0x00076432, 0x00764320, 0x00764321, 0x07643210,
    0x00000765, 0x00007650, 0x00007651, 0x00076510, 0x00007652, 0x00076520, 0x00076521, 0x00765210,
    0x00007653, 0x00076530, 0x00076531, 0x00765310, 0x00076532, 0x00765320, 0x00765321, 0x07653210,
    0x00007654, 0x00076540, 0x00076541, 0x00765410, 0x00076542, 0x00765420, 0x00765421, 0x07654210,
    0x00076543, 0x00765430, 0x00765431, 0x07654310, 0x00765432, 0x07654320, 0x07654321, 0x76543210,
};

/* (A permutation looks at three bits of an index.) */
KVCL_INLINE __m256i picks(uint32_t order)
{
    __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    return _mm256_srlv_epi32(_mm256_set1_epi32((int)order), shifts);
}

KVCL_INLINE __m256i bytes8(const int8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}

KVCL_INLINE __m256i place_of(__m256i e)
{
    return _mm256_and_si256(_mm256_srli_epi32(e, 8), _mm256_set1_epi32(4095));
}

KVCL_INLINE uint32_t bits_of(__m256i mask)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(mask));
}

/* The low bytes of 32 numbers. */
KVCL_INLINE __m256i low_bytes(const __m256i e[VECS])
{
    __m256i byte = _mm256_set1_epi32(255);
    __m256i a = _mm256_packus_epi32(_mm256_and_si256(e[0], byte), _mm256_and_si256(e[1], byte));
    __m256i b = _mm256_packus_epi32(_mm256_and_si256(e[2], byte), _mm256_and_si256(e[3], byte));
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order);
}

/* Which of 32 entries escape, of their low bytes. */
KVCL_INLINE uint32_t escapes_of(__m256i bytes)
{
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(-128)));
}

/* Walks along the rows, forward or back (step 1 or -1): `row` is that of the value before, `left`
 * how many of its values are still to come. */
typedef struct cursor {
    const uint8_t *row;
    uint32_t left, n_cols;
} cursor;

KVCL_INLINE void take_values(cursor *k, int step, uint32_t n)
{
    if (k->left == 0) {
        k->row += step;
        k->left = k->n_cols;
    }
    k->left -= n;
}

/* Where the entries of the next eight values' models begin. */
KVCL_INLINE __m256i next_models(cursor *k, int step)
{
    uint32_t each[8];
    if (k->left >= 8 || (k->left == 0 && k->n_cols >= 8)) {
        take_values(k, step, 8);
        return _mm256_set1_epi32((int)(*k->row * KVCL_RANS_WORDS));
    }
    for (uint32_t j = 0; j < 8; j++) {
        take_values(k, step, 1);
        each[step > 0 ? j : 7 - j] = *k->row * KVCL_RANS_WORDS;
    }
    return _mm256_loadu_si256((const void *)each);
}

/* ---- decoding ------------------------------------------------------------------------------ */

/* Plain bits of the lanes that escaped, from the last to the first. */
static void take_plain(__m256i x[VECS], uint32_t escaped, int8_t *values, const uint16_t *words,
                       int32_t *n)
{
    uint32_t each[8 * VECS];
    memcpy(each, x, sizeof each);
    for (uint32_t j = 8 * VECS; j-- > 0;)
        if (escaped >> j & 1) {
            values[j] = (int8_t)(uint8_t)each[j];
            each[j] >>= 8;
            if (each[j] < KVCL_RANS_LOW)
                each[j] = each[j] << 16 | (--*n >= 0 ? words[*n] : 0u);
        }
    memcpy(x, each, sizeof each);
}

/* Words for the lanes below: the eight words up to the vector's last are there to be read, since a
 * head stands before the first, and n was not negative before the step. */
KVCL_INLINE __m256i fill(__m256i x, __m256i under, uint32_t mask, const uint16_t *end)
{
    __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(end - 8)));
    w = _mm256_permutevar8x32_epi32(w, picks(take[mask]));
    return _mm256_blendv_epi8(x, _mm256_or_si256(_mm256_slli_epi32(x, 16), w), under);
}

KVCL_INLINE void decode_step(const uint32_t *table, cursor *k, __m256i x[VECS], int8_t *values,
                             const uint16_t *words, int32_t *n)
{
    __m256i e[VECS], under[VECS], low12 = _mm256_set1_epi32(4095);
    uint32_t mask[VECS];
    KVCL_UNROLL
    for (uint32_t v = 0; v < VECS; v++) {
        __m256i at = _mm256_add_epi32(_mm256_and_si256(x[v], low12), next_models(k, 1));
        e[v] = _mm256_i32gather_epi32((const int *)table + KVCL_RANS_SLOTS, at, 4);
    }
    KVCL_UNROLL
    for (uint32_t v = 0; v < VECS; v++) {
        __m256i f = _mm256_srli_epi32(e[v], 20);
        x[v] = _mm256_mullo_epi32(f, _mm256_srli_epi32(x[v], 12));
        x[v] = _mm256_add_epi32(x[v], place_of(e[v]));
        under[v] = _mm256_cmpeq_epi32(_mm256_srli_epi32(x[v], 16), _mm256_setzero_si256());
        mask[v] = bits_of(under[v]);
    }
    KVCL_UNROLL
    for (uint32_t v = VECS; v-- > 0;) {
        x[v] = fill(x[v], under[v], mask[v], words + *n);
        *n -= __builtin_popcount(mask[v]);
    }
    __m256i bytes = low_bytes(e);
    uint32_t escaped = escapes_of(bytes);
    _mm256_storeu_si256((void *)values, bytes);
    if (escaped)
        take_plain(x, escaped, values, words, n);
}

static void decode(kvcl_rans_coder *c, int8_t *values, uint32_t first, uint32_t end, uint32_t lanes,
                   const uint16_t *words, int32_t *n)
{
    cursor k = {c->models, c->n_cols, c->n_cols};
    __m256i x[VECS];
    uint32_t i = 0;
    int32_t height = *n;
    assert(first == 0 && lanes == 8 * VECS);
    memcpy(x, c->x, sizeof x);
    for (; i + lanes <= end && height >= 0; i += lanes)
        decode_step(c->table, &k, x, values + i, words, &height);
    memcpy(c->x, x, sizeof x);
    *n = height;
    if (height >= 0)
        kvcl_cpu_rans_decode(c, values, i, end, lanes, words, n);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static void leave_plain(__m256i x[VECS], uint32_t escapes, const int8_t *values, uint16_t *words,
                        uint32_t *n)
{
    uint32_t each[8 * VECS];
    memcpy(each, x, sizeof each);
    for (uint32_t j = 0; j < 8 * VECS; j++)
        if (escapes >> j & 1) {
            if (each[j] >= 1u << 24) {
                words[(*n)++] = (uint16_t)each[j];
                each[j] >>= 16;
            }
            each[j] = each[j] << 8 | (uint8_t)values[j];
        }
    memcpy(x, each, sizeof each);
}

/* floor(x / f) for x < f 2^20: the floats' quotient is off by less than one. */
KVCL_INLINE __m256i divide(__m256i x, __m256i f)
{
    __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 16));
    __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff)));
    __m256 xf = _mm256_fmadd_ps(high, _mm256_set1_ps(65536.0f), low);
    __m256i q = _mm256_cvttps_epi32(_mm256_div_ps(xf, _mm256_cvtepi32_ps(f)));
    __m256i r = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, f));
    q = _mm256_add_epi32(q, _mm256_srai_epi32(r, 31));
    __m256i less = _mm256_cmpgt_epi32(f, r); /* all ones but where another f fits */
    return _mm256_add_epi32(q, _mm256_add_epi32(less, _mm256_set1_epi32(1)));
}

/* The states after their values' entries; their words go to the stack. */
KVCL_INLINE __m256i encode_vec(__m256i x, __m256i e, uint16_t *words, uint32_t *n)
{
    __m256i f = _mm256_srli_epi32(e, 20);
    __m256i fits = _mm256_cmpgt_epi32(f, _mm256_srli_epi32(x, 20));
    uint32_t mask = bits_of(fits) ^ 255;
    __m256i w = _mm256_permutevar8x32_epi32(x, picks(leave[mask]));
    w = _mm256_and_si256(w, _mm256_set1_epi32(0xffff));
    __m128i w16 = _mm_packus_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    _mm_storeu_si128((void *)(words + *n), w16);
    *n += (uint32_t)__builtin_popcount(mask);
    x = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, fits);
    /* 4096 q + place + (x - q f) */
    __m256i q = divide(x, f), rest = _mm256_sub_epi32(_mm256_set1_epi32(4096), f);
    return _mm256_add_epi32(_mm256_add_epi32(x, place_of(e)), _mm256_mullo_epi32(q, rest));
}

KVCL_INLINE void encode_step(const uint32_t *table, cursor *k, __m256i x[VECS],
                             const int8_t *values, uint16_t *words, uint32_t *n)
{
    __m256i e[VECS];
    KVCL_UNROLL
    for (uint32_t v = VECS; v-- > 0;) {
        __m256i at = bytes8(values + 8 * v);
        e[v] =
            _mm256_i32gather_epi32((const int *)table, _mm256_add_epi32(at, next_models(k, -1)), 4);
    }
    uint32_t escapes = escapes_of(low_bytes(e));
    if (escapes)
        leave_plain(x, escapes, values, words, n);
    KVCL_UNROLL
    for (uint32_t v = 0; v < VECS; v++)
        x[v] = encode_vec(x[v], e[v], words, n);
}

static void encode(kvcl_rans_coder *c, const int8_t *values, uint32_t first, uint32_t end,
                   uint32_t lanes, uint16_t *words, uint32_t *n)
{
    uint32_t i = end / lanes * lanes, height = *n, row = i / c->n_cols;
    cursor k = {c->models + row, i - row * c->n_cols, c->n_cols};
    __m256i x[VECS];
    assert(first == 0 && lanes == 8 * VECS);
    kvcl_rans_encode(c, values, i, end, lanes, words, &height);
    memcpy(x, c->x, sizeof x);
    for (; i > first; i -= lanes)
        encode_step(c->table, &k, x, values + i - lanes, words, &height);
    memcpy(c->x, x, sizeof x);
    *n = height;
}

void KVCL_SIMD_FN(rans_enc)(const void *args, kvcl_cpu_part *p)
{
    kvcl_cpu_rans_enc_pages(args, p, encode);
}

void KVCL_SIMD_FN(rans_dec)(const void *args, kvcl_cpu_part *p)
{
    kvcl_cpu_rans_dec_pages(args, p, decode);
}

#else

void KVCL_SIMD_FN(rans_enc)(const void *args, kvcl_cpu_part *p) { kvcl_cpu_rans_enc(args, p); }

void KVCL_SIMD_FN(rans_dec)(const void *args, kvcl_cpu_part *p) { kvcl_cpu_rans_dec(args, p); }

#endif
