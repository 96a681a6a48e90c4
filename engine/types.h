/* types.h - element types of tensors: sizes, block layouts, the canonical expansion to f32, and the
 * encoders.
 *
 * A block of a quantised type holds 32 consecutive elements of one row; d is an f16, all integers
 * are little-endian, e is the element's index in the block:
 *
 *   Q8_0  34 bytes  d, int8 q[32]            value q[e] * d
 *   Q5_0  22 bytes  d, u32 qh, u8 qs[16]     value (n - 16) * d,  n = nibble(e) | bit e of qh << 4
 *   Q4_0  18 bytes  d, u8 qs[16]             value (n - 8) * d,   n = nibble(e)
 *
 * nibble(e) is the low half of qs[e] for e < 16 and the high half of qs[e - 16] above.  Each value
 * is one product of a small integer and a half, exact in f32: every order of work gives its bits.
 */
#ifndef KVCL_TYPES_H
#define KVCL_TYPES_H

#include "base.h"

#define KVCL_QK 32 /* elements of a quantised block */
#define KVCL_Q8_0_BYTES 34
#define KVCL_Q5_0_BYTES 22
#define KVCL_Q4_0_BYTES 18

/* True for the six types of kvcl_type. */
bool kvcl_type_known(uint32_t gguf_type);
/* Name of any tensor type that GGUF defines, known to us or not; NULL when the number is free. */
const char *kvcl_type_gguf_name(uint32_t gguf_type);
/* Elements and bytes of one block; 0 when the type is unknown. */
uint32_t kvcl_type_block_elems(kvcl_type type);
uint32_t kvcl_type_block_bytes(kvcl_type type);
static inline bool kvcl_type_is_quantised(kvcl_type type)
{
    return type == KVCL_Q8_0 || type == KVCL_Q5_0 || type == KVCL_Q4_0;
}

/* out[i] = value of element i, i < n.
 *   src  borrows; n elements of a known type, any alignment; n a multiple of the type's block
 *   out  n floats, must not overlap src
 * Cost: reads kvcl_type_bytes(type, n), writes 4 n bytes. */
void kvcl_dequantise(kvcl_type type, const void *src, size_t n, float *out);

/* The other way, for F32, F16, Q8_0, Q5_0 and Q4_0; the bytes equal those of the format's reference
 * encoder.
 *   F16   round to nearest even
 *   Q8_0  d = amax / 127, q = x / d rounded half away from zero
 *   Q5_0  d = m / -16, m the value of largest magnitude (the first of several),
 *         n = min(31, trunc(x / d + 16.5))
 *   Q4_0  likewise with -8, 15 and 8.5
 * False, out then undefined, when a value is not finite or its block's d does not fit an f16, or
 * when the type has no encoder. */
bool kvcl_quantise(kvcl_type type, const float *src, size_t n, void *out);

#endif
