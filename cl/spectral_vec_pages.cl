// spectral_vec_pages.cl - sixteen places of a spectral page at a time: what its kernels in the
// vector shape share.  Stands after cl/spectral_pages.cl and cl/ints.cl.  KVCL_SPEC: tokens of a
// slot
//
// A page's 64 numbers of a component, or its 64 tokens, are four vectors of places [r or j][slot]:
// a vector holds 16 slots of one Walsh row r (token j), or all eight slots of two.

#if KVCL_VECTOR_SHAPE

#define KVCL_SPECTRAL_SLOTS (KVCL_TOKENS / KVCL_SPEC)
#define KVCL_SPECTRAL_VECTORS 4
#define KVCL_SPECTRAL_OF_ROW (KVCL_SPEC < 4 ? 4 / KVCL_SPEC : 1) // vectors
#define KVCL_SPECTRAL_FOLDS (KVCL_SPEC / 2 - KVCL_SPEC / 8)      // log2 of the tokens of a slot

// Levels by code, for each plane but bytes'.
static void kvcl_spectral_tables(int16 *tables)
{
    tables[0] = 0;
    for (uint plane = 1; plane < 4; plane++) {
        uint bits = 8u >> plane;
        int level[16];
        for (uint i = 0; i < 16; i++)
            level[i] = kvcl_quant_level(bits, i & ((1u << bits) - 1u));
        tables[plane] = vload16(0, level);
    }
}

// Levels of the codes at a place, of sixteen words.
static int16 kvcl_spectral_levels_at(const int16 *tables, uint place, uint16 words)
{
    uint plane = place >> 24;
    words >>= place >> 16 & 31u;
    return plane == 0 ? as_int16(words << 24) >> 24 : kvcl_pick_word(tables[plane], words);
}

// Levels of component i, vector v; zeros where there is no code.
static int16 kvcl_spectral_levels(const kvcl_spectral_part *p, const int16 *tables, uint i, uint v)
{
    const uint S = KVCL_SPECTRAL_SLOTS;
#if KVCL_SPEC == 8
    int8 level[2];
    for (uint half_ = 0; half_ < 2; half_++) {
        uint place = kvcl_spectral_place(p, (2 * v + half_) * p->D + i);
        level[half_] = 0;
        if (place == KVCL_NO_PLACE)
            continue;
        uint8 words = vload8(0, p->words + (place & 0xffffu) * S);
        level[half_] = kvcl_spectral_levels_at(tables, place, (uint16)(words, words)).lo;
    }
    return (int16)(level[0], level[1]);
#else
    uint place = kvcl_spectral_place(p, 16 * v / S * p->D + i);
    if (place == KVCL_NO_PLACE)
        return 0;
    return kvcl_spectral_levels_at(tables, place,
                                   vload16(0, p->words + (place & 0xffffu) * S + 16 * v % S));
#endif
}

// Their factors.
static int16 kvcl_spectral_factors(const kvcl_spectral_part *p, uint i, uint v)
{
#if KVCL_SPEC == 8
    __global const short *a = p->factor + 2 * v * p->D + i;
    return (int16)((int8)(a[0]), (int8)(a[p->D]));
#else
    return (int16)(p->factor[16 * v / KVCL_SPECTRAL_SLOTS * p->D + i]);
#endif
}

// How many quads of components have a code in vector v: the first ones.
static uint kvcl_spectral_quads(const kvcl_spectral_part *p, uint v)
{
    uint r0 = 16 * v / KVCL_SPECTRAL_SLOTS, r1 = (16 * v + 15) / KVCL_SPECTRAL_SLOTS, most = 0;
    for (uint r = r0; r <= r1; r++) {
        uint n = p->head.n_comp;
        while (n > 0 && p->place[r * p->D + n - 1] == KVCL_SPECTRAL_NONE)
            n--;
        most = max(most, (n + 3) / 4);
    }
    return most;
}

// Norms of the slots in vector v.
static float16 kvcl_spectral_norms(const kvcl_spectral_part *p, uint v)
{
#if KVCL_SPEC == 8
    float8 norm = vload_half8(0, p->norms);
    return (float16)(norm, norm);
#else
    return vload_half16(0, p->norms + 16 * v % KVCL_SPECTRAL_SLOTS);
#endif
}

// Elements of two vectors in turn.
#define KVCL_ZIP(a, b)                                                                         \
    ((float16)((a).s0, (b).s0, (a).s1, (b).s1, (a).s2, (b).s2, (a).s3, (b).s3, (a).s4, (b).s4, \
               (a).s5, (b).s5, (a).s6, (b).s6, (a).s7, (b).s7))

// Four vectors of tokens in their order to places, and back.
static void kvcl_spectral_to_places(float16 *x)
{
    KVCL_UNROLL for (uint i = 0; i < KVCL_SPECTRAL_FOLDS; i++)
    {
        float16 a = x[0], b = x[1], c = x[2], d = x[3];
        x[0] = (float16)(a.even, b.even);
        x[1] = (float16)(c.even, d.even);
        x[2] = (float16)(a.odd, b.odd);
        x[3] = (float16)(c.odd, d.odd);
    }
}

static void kvcl_spectral_to_tokens(float16 *x)
{
    KVCL_UNROLL for (uint i = 0; i < KVCL_SPECTRAL_FOLDS; i++)
    {
        float16 a = x[0], b = x[1], c = x[2], d = x[3];
        x[0] = KVCL_ZIP(a.lo, c.lo);
        x[1] = KVCL_ZIP(a.hi, c.hi);
        x[2] = KVCL_ZIP(b.lo, d.lo);
        x[3] = KVCL_ZIP(b.hi, d.hi);
    }
}

// The transform of a slot's tokens to Walsh rows, or back, of four vectors of places.
#define KVCL_SPECTRAL_DEFINE_WALSH(name, type)                    \
    static void name(type##16 * x)                                \
    {                                                             \
        if (KVCL_SPEC == 8)                                       \
            KVCL_UNROLL for (uint v = 0; v < 4; v++) x[v] =       \
                (type##16)(x[v].lo + x[v].hi, x[v].lo - x[v].hi); \
        if (KVCL_SPEC >= 4) {                                     \
            KVCL_BUTTERFLY(type##16, x[0], x[1])                  \
            KVCL_BUTTERFLY(type##16, x[2], x[3])                  \
        }                                                         \
        if (KVCL_SPEC >= 2) {                                     \
            KVCL_BUTTERFLY(type##16, x[0], x[2])                  \
            KVCL_BUTTERFLY(type##16, x[1], x[3])                  \
        }                                                         \
    }

#endif
