/* simd_fwht.c - fast Walsh-Hadamard transform.  Definition: cpu/fwht.c
 *
 * Passes of several stages each: the first over runs of CHUNK values, stages 1 .. 8 within vectors
 * and the others between them; each next one over RADIX vectors h apart.  Long rows go depth first,
 * so that a part is done while it is near; a value sees its stages in the same order. */
#include "simd_code.h"

#define RADIX (V16_REGS == 1 ? 16u : 4u)
#define CHUNK (16u * RADIX)
#define NEAR 4096u /* values that the nearest cache holds with ease */

/* What becomes of a value after the last stage. */
typedef struct finish {
    bool scaled;
    float factor;
} finish;

KVCL_INLINE v16 finished(v16 x, const finish *f)
{
    return f->scaled ? v16_plus_zero(v16_mul(x, v16_set(f->factor))) : x;
}

/* The stages of n vectors among each other; n is a constant. */
KVCL_INLINE void between(v16 *x, uint32_t n)
{
    KVCL_UNROLL
    for (uint32_t h = 1; h < n; h *= 2)
        KVCL_UNROLL
    for (uint32_t i = 0; i < n; i++)
        if ((i & h) == 0) {
            v16 a = x[i], b = x[i + h];
            x[i] = v16_add(a, b);
            x[i + h] = v16_sub(a, b);
        }
}

/* All stages of 16 n values; n is a constant. */
KVCL_INLINE void first_pass(uint32_t n, const float *x, float *out, const finish *f)
{
    v16 r[16];
    KVCL_UNROLL
    for (uint32_t i = 0; i < n; i++)
        r[i] = v16_load(x + 16 * i);
    KVCL_UNROLL
    for (uint32_t i = 0; i < n; i++)
        r[i] = v16_hadamard(r[i]);
    between(r, n);
    KVCL_UNROLL
    for (uint32_t i = 0; i < n; i++)
        v16_store(out + 16 * i, finished(r[i], f));
}

/* The stages h .. h n / 2 of n h values; n is a constant. */
KVCL_INLINE void next_pass(uint32_t n, float *x, uint32_t h, const finish *f)
{
    for (uint32_t i = 0; i < h; i += 16) {
        v16 r[16];
        KVCL_UNROLL
        for (uint32_t j = 0; j < n; j++)
            r[j] = v16_load(x + i + (size_t)j * h);
        between(r, n);
        KVCL_UNROLL
        for (uint32_t j = 0; j < n; j++)
            v16_store(x + i + (size_t)j * h, finished(r[j], f));
    }
}

static void stages_2(float *x, uint32_t h, const finish *f) { next_pass(2, x, h, f); }
static void stages_4(float *x, uint32_t h, const finish *f) { next_pass(4, x, h, f); }
#if V16_REGS == 1
static void stages_8(float *x, uint32_t h, const finish *f) { next_pass(8, x, h, f); }
static void stages_16(float *x, uint32_t h, const finish *f) { next_pass(16, x, h, f); }
#endif

/* The stages from h on, at most log2(RADIX) of them, of the n values at x; returns the next h. */
static uint32_t next_stages(float *x, uint32_t n, uint32_t h, const finish *f)
{
    static const finish plain = {.scaled = false};
    uint32_t radix = kvcl_min_u32(n / h, RADIX);
    if (radix * h < n)
        f = &plain;
    for (uint32_t i = 0; i < n; i += radix * h) {
        if (radix == 2)
            stages_2(x + i, h, f);
        else if (radix == 4)
            stages_4(x + i, h, f);
#if V16_REGS == 1
        else if (radix == 8)
            stages_8(x + i, h, f);
        else
            stages_16(x + i, h, f);
#endif
    }
    return radix * h;
}

/* Short rows, whose vectors all fit in registers. */
static bool short_row(const float *x, float *out, uint32_t n, const finish *f)
{
    if (n > CHUNK)
        return false;
    if (n == 16)
        first_pass(1, x, out, f);
    else if (n == 32)
        first_pass(2, x, out, f);
    else if (n == 64)
        first_pass(4, x, out, f);
    else if (n == 128)
        first_pass(8, x, out, f);
    else
        first_pass(16, x, out, f);
    return true;
}

static void row(const float *x, float *out, uint32_t n, const finish *f)
{
    static const finish plain = {.scaled = false};
    uint32_t near = kvcl_min_u32(n, NEAR);
    if (short_row(x, out, n, f))
        return;
    for (uint32_t i = 0; i < n; i += near) {
        for (uint32_t j = i; j < i + near; j += CHUNK)
            first_pass(RADIX, x + j, out + j, &plain);
        for (uint32_t h = CHUNK; h < near;)
            h = next_stages(out + i, near, h, near == n ? f : &plain);
    }
    for (uint32_t h = near; h < n;)
        h = next_stages(out, n, h, f);
}

void KVCL_SIMD_FN(fwht_row)(float *x, uint32_t n)
{
    static const finish plain = {.scaled = false};
    row(x, x, n, &plain);
}

void KVCL_SIMD_FN(fwht_columns)(float *x, uint32_t n, uint32_t columns, float factor)
{
    finish f = {.scaled = true, .factor = factor};
    if (columns == 1)
        row(x, x, n, &f);
    else
        for (uint32_t h = columns; h < n * columns;)
            h = next_stages(x, n * columns, h, &f);
}

void KVCL_SIMD_FN(fwht)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_fwht_args *a = args;
    finish f = {.scaled = true, .factor = a->factor};
    uint32_t step = kvcl_max_u32(1, 2048 / a->dim);
    for (uint32_t i, end; kvcl_cpu_take(p, a->n, step, &i, &end);)
        for (; i < end; i++) {
            size_t at = (size_t)i * a->stride;
            row((const float *)kvcl_cpu_ptr(a->x) + at, (float *)kvcl_cpu_ptr(a->out) + at, a->dim,
                &f);
        }
}
