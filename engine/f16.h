/* f16.h - half precision and bfloat16, to the bit, on any compiler. */
#ifndef KVCL_F16_H
#define KVCL_F16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t kvcl_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float kvcl_bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Exact for every half, sub-normals too. */
static inline float kvcl_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exp = (h >> 10) & 31u, man = h & 0x3ffu;
    if (exp == 31)
        return kvcl_bits_f32(sign | 0x7f800000u | man << 13);
    if (exp != 0)
        return kvcl_bits_f32(sign | (exp + 112) << 23 | man << 13);
    /* sub-normal: man * 2^-24, exact in f32 */
    return kvcl_bits_f32(sign | kvcl_f32_bits((float)man * 0x1p-24f));
}

/* Round to nearest, ties to even; overflow to infinity; NaN stays a (quiet) NaN. */
static inline uint16_t kvcl_f32_to_f16(float f)
{
    uint32_t u = kvcl_f32_bits(f), sign = (u >> 16) & 0x8000u, abs = u & 0x7fffffffu;
    if (abs > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (abs >> 13 & 0x3ffu));
    if (abs >= 0x477ff000u) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (abs < 0x38800000u) { /* result is sub-normal or zero: integer rounding at 2^-24 */
        if (abs < 0x33000000u)
            return (uint16_t)sign;
        uint32_t shift = 126 - (abs >> 23), man = (abs & 0x7fffffu) | 0x800000u;
        uint32_t q = man >> shift, rest = man & ((1u << shift) - 1), half = 1u << (shift - 1);
        q += rest > half || (rest == half && (q & 1u));
        return (uint16_t)(sign | q);
    }
    uint32_t r = abs - 0x38000000u; /* rebias */
    r += 0xfffu + (r >> 13 & 1u);
    return (uint16_t)(sign | r >> 13);
}

static inline float kvcl_bf16_to_f32(uint16_t h) { return kvcl_bits_f32((uint32_t)h << 16); }

#endif
