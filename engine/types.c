/* types.c - sizes, expansion and encoding of the tensor element types.  See types.h. */
#include "types.h"

#include "f16.h"

#include <ctype.h>
#include <math.h>

typedef struct type_row {
    const char *name;
    uint8_t elems, bytes; /* of a block; 0: the type is only known by name */
} type_row;

/* Indexed by GGUF's number. */
static const type_row rows[] = {
    [0] = {"F32", 1, 4},
    [1] = {"F16", 1, 2},
    [2] = {"Q4_0", KVCL_QK, KVCL_Q4_0_BYTES},
    [3] = {"Q4_1", 0, 0},
    [4] = {"Q4_2", 0, 0},
    [5] = {"Q4_3", 0, 0},
    [6] = {"Q5_0", KVCL_QK, KVCL_Q5_0_BYTES},
    [7] = {"Q5_1", 0, 0},
    [8] = {"Q8_0", KVCL_QK, KVCL_Q8_0_BYTES},
    [9] = {"Q8_1", 0, 0},
    [10] = {"Q2_K", 0, 0},
    [11] = {"Q3_K", 0, 0},
    [12] = {"Q4_K", 0, 0},
    [13] = {"Q5_K", 0, 0},
    [14] = {"Q6_K", 0, 0},
    [15] = {"Q8_K", 0, 0},
    [16] = {"IQ2_XXS", 0, 0},
    [17] = {"IQ2_XS", 0, 0},
    [18] = {"IQ3_XXS", 0, 0},
    [19] = {"IQ1_S", 0, 0},
    [20] = {"IQ4_NL", 0, 0},
    [21] = {"IQ3_S", 0, 0},
    [22] = {"IQ2_S", 0, 0},
    [23] = {"IQ4_XS", 0, 0},
    [24] = {"I8", 0, 0},
    [25] = {"I16", 0, 0},
    [26] = {"I32", 0, 0},
    [27] = {"I64", 0, 0},
    [28] = {"F64", 0, 0},
    [29] = {"IQ1_M", 0, 0},
    [30] = {"BF16", 1, 2},
    [31] = {"Q4_0_4_4", 0, 0},
    [32] = {"Q4_0_4_8", 0, 0},
    [33] = {"Q4_0_8_8", 0, 0},
    [34] = {"TQ1_0", 0, 0},
    [35] = {"TQ2_0", 0, 0},
    [36] = {"IQ4_NL_4_4", 0, 0},
    [37] = {"IQ4_NL_4_8", 0, 0},
    [38] = {"IQ4_NL_8_8", 0, 0},
    [39] = {"MXFP4", 0, 0},
    [40] = {"NVFP4", 0, 0},
    [41] = {"Q1_0", 0, 0},
    [42] = {"Q2_0", 0, 0},
};

bool kvcl_type_known(uint32_t gguf_type)
{
    return gguf_type < kvcl_array_len(rows) && rows[gguf_type].elems != 0;
}

const char *kvcl_type_gguf_name(uint32_t gguf_type)
{
    return gguf_type < kvcl_array_len(rows) ? rows[gguf_type].name : NULL;
}

const char *kvcl_type_name(kvcl_type type)
{
    return kvcl_type_known((uint32_t)type) ? rows[type].name : NULL;
}

uint32_t kvcl_type_block_elems(kvcl_type type)
{
    return kvcl_type_known((uint32_t)type) ? rows[type].elems : 0;
}

uint32_t kvcl_type_block_bytes(kvcl_type type)
{
    return kvcl_type_known((uint32_t)type) ? rows[type].bytes : 0;
}

static bool same_word(const char *a, const char *b)
{
    while (*a && toupper((unsigned char)*a) == toupper((unsigned char)*b)) {
        a++;
        b++;
    }
    return *a == 0 && *b == 0;
}

kvcl_status kvcl_type_parse(kvcl_ctx *ctx, const char *name, kvcl_type *out)
{
    for (uint32_t i = 0; name && i < kvcl_array_len(rows); i++) {
        if (kvcl_type_known(i) && same_word(name, rows[i].name)) {
            *out = (kvcl_type)i;
            return KVCL_OK;
        }
    }
    return kvcl_fail(ctx, KVCL_E_ARG,
                     "'%.32s' is no element type; use F32, F16, BF16, Q8_0, Q5_0 or Q4_0",
                     name ? name : "");
}

size_t kvcl_type_bytes(kvcl_type type, size_t n)
{
    size_t elems = kvcl_type_block_elems(type);
    return elems ? n / elems * kvcl_type_block_bytes(type) : 0;
}

/* ---- little-endian access at any alignment ------------------------------------------------- */

static uint16_t get_u16(const unsigned char *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint32_t get_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put_u16(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)v;
    p[1] = (unsigned char)(v >> 8);
}

static void put_u32(unsigned char *p, uint32_t v)
{
    put_u16(p, v);
    put_u16(p + 2, v >> 16);
}

/* ---- expansion ----------------------------------------------------------------------------- */

static void expand_q8_0(const unsigned char *p, float *out)
{
    float d = kvcl_f16_to_f32(get_u16(p));
    for (unsigned e = 0; e < KVCL_QK; e++)
        out[e] = (float)(signed char)p[2 + e] * d;
}

static void expand_q5_0(const unsigned char *p, float *out)
{
    float d = kvcl_f16_to_f32(get_u16(p));
    uint32_t qh = get_u32(p + 2);
    for (unsigned e = 0; e < 16; e++) {
        unsigned lo = (p[6 + e] & 15u) | (qh >> e & 1u) << 4;
        unsigned hi = p[6 + e] >> 4 | (qh >> (e + 16) & 1u) << 4;
        out[e] = (float)((int)lo - 16) * d;
        out[e + 16] = (float)((int)hi - 16) * d;
    }
}

static void expand_q4_0(const unsigned char *p, float *out)
{
    float d = kvcl_f16_to_f32(get_u16(p));
    for (unsigned e = 0; e < 16; e++) {
        out[e] = (float)((p[2 + e] & 15) - 8) * d;
        out[e + 16] = (float)((p[2 + e] >> 4) - 8) * d;
    }
}

void kvcl_dequantise(kvcl_type type, const void *src, size_t n, float *out)
{
    const unsigned char *p = src;
    size_t n_blocks = n / KVCL_QK;
    switch (type) {
    case KVCL_F32:
        for (size_t i = 0; i < n; i++)
            out[i] = kvcl_bits_f32(get_u32(p + 4 * i));
        return;
    case KVCL_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = kvcl_f16_to_f32(get_u16(p + 2 * i));
        return;
    case KVCL_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = kvcl_bf16_to_f32(get_u16(p + 2 * i));
        return;
    case KVCL_Q8_0:
        for (size_t b = 0; b < n_blocks; b++)
            expand_q8_0(p + b * KVCL_Q8_0_BYTES, out + b * KVCL_QK);
        return;
    case KVCL_Q5_0:
        for (size_t b = 0; b < n_blocks; b++)
            expand_q5_0(p + b * KVCL_Q5_0_BYTES, out + b * KVCL_QK);
        return;
    case KVCL_Q4_0:
        for (size_t b = 0; b < n_blocks; b++)
            expand_q4_0(p + b * KVCL_Q4_0_BYTES, out + b * KVCL_QK);
        return;
    }
}

/* ---- encoding ------------------------------------------------------------------------------ */

#define F16_LIMIT 65520.0f /* rounds to infinity from here on */

/* The value of largest magnitude, the first of several; false when one is not finite. */
static bool block_extreme(const float *x, float *out)
{
    float top = 0.0f, amax = 0.0f;
    for (unsigned e = 0; e < KVCL_QK; e++) {
        float a = fabsf(x[e]);
        if (!(a < INFINITY))
            return false;
        if (a > amax) {
            amax = a;
            top = x[e];
        }
    }
    *out = top;
    return true;
}

/* 1 / d; 0 when d is 0 or so small that its inverse overflows (the f16 d is 0 then). */
static float inverse(float d)
{
    float id = d != 0.0f ? 1.0f / d : 0.0f;
    return fabsf(id) < INFINITY ? id : 0.0f;
}

static bool encode_q8_0(const float *x, unsigned char *p)
{
    float top;
    if (!block_extreme(x, &top))
        return false;
    float d = fabsf(top) / 127.0f, id = inverse(d);
    put_u16(p, kvcl_f32_to_f16(d));
    for (unsigned e = 0; e < KVCL_QK; e++)
        p[2 + e] = (unsigned char)(signed char)roundf(x[e] * id);
    return d < F16_LIMIT;
}

/* n of Q5_0 (half 16) and Q4_0 (half 8).  The product is rounded before the sum, as the reference
 * encoder does: no fma here. */
static uint32_t nibble_code(float x, float id, int half)
{
    float scaled = x * id;
    int n = (int)(scaled + ((float)half + 0.5f));
    return (uint32_t)(n > 2 * half - 1 ? 2 * half - 1 : n);
}

static bool encode_q5_0(const float *x, unsigned char *p)
{
    float top;
    if (!block_extreme(x, &top))
        return false;
    float d = top / -16.0f, id = inverse(d);
    uint32_t qh = 0;
    for (unsigned e = 0; e < 16; e++) {
        uint32_t lo = nibble_code(x[e], id, 16), hi = nibble_code(x[e + 16], id, 16);
        p[6 + e] = (unsigned char)((lo & 15) | (hi & 15) << 4);
        qh |= (lo >> 4 & 1) << e | (hi >> 4 & 1) << (e + 16);
    }
    put_u16(p, kvcl_f32_to_f16(d));
    put_u32(p + 2, qh);
    return fabsf(d) < F16_LIMIT;
}

static bool encode_q4_0(const float *x, unsigned char *p)
{
    float top;
    if (!block_extreme(x, &top))
        return false;
    float d = top / -8.0f, id = inverse(d);
    for (unsigned e = 0; e < 16; e++) {
        uint32_t lo = nibble_code(x[e], id, 8), hi = nibble_code(x[e + 16], id, 8);
        p[2 + e] = (unsigned char)(lo | hi << 4);
    }
    put_u16(p, kvcl_f32_to_f16(d));
    return fabsf(d) < F16_LIMIT;
}

static bool encode_plain(kvcl_type type, const float *src, size_t n, unsigned char *p)
{
    float limit = type == KVCL_F16 ? F16_LIMIT : INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(src[i]) < limit))
            return false;
        if (type == KVCL_F16)
            put_u16(p + 2 * i, kvcl_f32_to_f16(src[i]));
        else
            put_u32(p + 4 * i, kvcl_f32_bits(src[i]));
    }
    return true;
}

bool kvcl_quantise(kvcl_type type, const float *src, size_t n, void *out)
{
    if (type == KVCL_F32 || type == KVCL_F16)
        return encode_plain(type, src, n, out);
    if (!kvcl_type_is_quantised(type))
        return false;
    unsigned char *p = out;
    bool ok = true;
    for (size_t b = 0; ok && b < n / KVCL_QK; b++, p += kvcl_type_block_bytes(type)) {
        const float *x = src + b * KVCL_QK;
        ok = type == KVCL_Q8_0   ? encode_q8_0(x, p)
             : type == KVCL_Q5_0 ? encode_q5_0(x, p)
                                 : encode_q4_0(x, p);
    }
    return ok;
}
