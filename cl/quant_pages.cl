// quant_pages.cl - codes of many values at a time, vector shape: what encoders of quant and of
// spectral pages share.  Stands before the kernels that use it.  Twin of the codes: cpu/quant.c

#if KVCL_VECTOR_SHAPE

// The positive thresholds (a float's bits), the magnitudes' lowest level and how much each is above
// the one before: levels are symmetric.
typedef struct kvcl_magnitudes {
    int th[7], up[7], low, n;
} kvcl_magnitudes;

static void kvcl_magnitudes_of(uint bits, kvcl_magnitudes *out)
{
    uint mid = 1u << (bits - 1);
    out->n = bits == 8 ? 0 : (int)mid - 1;
    out->low = bits == 8 ? 0 : kvcl_quant_level(bits, mid);
    for (int j = 0; j < out->n; j++) {
        uint i = mid + 1 + (uint)j;
        out->th[j] = as_int(kvcl_threshold(bits, i));
        out->up[j] = kvcl_quant_level(bits, i) - kvcl_quant_level(bits, i - 1);
    }
}

// Codes of N values and the levels they stand for.  A threshold counts when v is above it: on the
// negative side, where magnitudes count down, one that equals v's magnitude must count, too.
#define KVCL_DEFINE_CODES(N)                                                                    \
    static uint##N kvcl_codes##N(uint bits, const kvcl_magnitudes *t, float##N z, float##N inv, \
                                 float##N *level)                                               \
    {                                                                                           \
        float##N v = z * inv;                                                                   \
        if (bits == 8) {                                                                        \
            v = v > (float##N)(-127.0f) ? v : (float##N)(-127.0f);                              \
            v = v < (float##N)(127.0f) ? v : (float##N)(127.0f);                                \
            v = fma(v, (float##N)(1.0f), (float##N)(KVCL_ROUND));                               \
            *level = v - (float##N)(KVCL_ROUND);                                                \
            return as_uint##N(v) & (uint##N)(255u); /* KVCL_ROUND_BITS ends in zeros */         \
        }                                                                                       \
        int##N low_side = v <= (float##N)(0.0f), mag = (as_int##N(v) & 0x7fffffff) - low_side;  \
        int##N index = (int##N)(0), c = (int##N)(t->low);                                       \
        for (int j = 0; j < t->n; j++) {                                                        \
            int##N above = mag > (int##N)(t->th[j]);                                            \
            index -= above;                                                                     \
            c += above & (int##N)(t->up[j]);                                                    \
        }                                                                                       \
        *level = convert_float##N((c ^ low_side) - low_side);                                   \
        return as_uint##N((index ^ low_side) + (t->n + 1));                                     \
    }
KVCL_DEFINE_CODES(8)
KVCL_DEFINE_CODES(16)

#endif
