// ints.cl - exact sums of products of small integers, sixteen at a time: what the vector shape does
// where GPUs have dot products of bytes.
//
// A word holds four bytes or two 16-bit integers, the first ones lowest; a uint16 is sixteen of
// them.  KVCL_X86: the compiler is clang and knows the processor, as PoCL's is: then this file uses
// its names for the instructions that multiply and add neighbours, which it finds in no way of
// writing the same in OpenCL C.

#if KVCL_VECTOR_SHAPE

#if KVCL_X86 && defined(__AVX2__)
#define KVCL_AVX2 1
typedef char kvcl_bytes __attribute__((ext_vector_type(32)));
typedef short kvcl_shorts __attribute__((ext_vector_type(16)));
#define KVCL_BYTES(v) __builtin_astype((v), kvcl_bytes)
#define KVCL_SHORTS(v) __builtin_astype((v), kvcl_shorts)
// f for both halves of sixteen words
#define KVCL_HALVES(type, f, a, b) ((type)(f((a).lo, (b).lo), f((a).hi, (b).hi)))
#else
#define KVCL_AVX2 0
#endif

// Asks for memory that is read soon: pages lie apart, the processor cannot guess where it goes on.
static void kvcl_ask(__global const uint *p)
{
#if KVCL_X86
    __builtin_prefetch((const void *)(ulong)p);
#else
    (void)p;
#endif
}

// Sixteen words that hold the same.
static uint16 kvcl_words(uint word) { return (uint16)(word); }

// ---- 16-bit integers ----------------------------------------------------------------------------

#if KVCL_AVX2
static int8 kvcl_pair_sums8(uint8 a, uint8 b)
{
    return __builtin_astype(__builtin_ia32_pmaddwd256(KVCL_SHORTS(a), KVCL_SHORTS(b)), int8);
}

// a.low b.low + a.high b.high of each word.
static int16 kvcl_pair_sums(uint16 a, uint16 b)
{
#ifdef __AVX512BW__
    typedef short shorts32 __attribute__((ext_vector_type(32)));
    return __builtin_astype(
        __builtin_ia32_pmaddwd512(__builtin_astype(a, shorts32), __builtin_astype(b, shorts32)),
        int16);
#else
    return KVCL_HALVES(int16, kvcl_pair_sums8, a, b);
#endif
}

static uint8 kvcl_even8(uint8 x)
{
    return __builtin_astype(KVCL_SHORTS(x) << (short)8 >> (short)8, uint8);
}

static uint8 kvcl_odd8(uint8 x) { return __builtin_astype(KVCL_SHORTS(x) >> (short)8, uint8); }

static uint8 kvcl_add8(uint8 a, uint8 b)
{
    return __builtin_astype(KVCL_SHORTS(a) + KVCL_SHORTS(b), uint8);
}

static uint8 kvcl_sub8(uint8 a, uint8 b)
{
    return __builtin_astype(KVCL_SHORTS(a) - KVCL_SHORTS(b), uint8);
}

// Sums, and differences, of the integers of each word.
static uint16 kvcl_add2(uint16 a, uint16 b) { return KVCL_HALVES(uint16, kvcl_add8, a, b); }
static uint16 kvcl_sub2(uint16 a, uint16 b) { return KVCL_HALVES(uint16, kvcl_sub8, a, b); }

// Signed bytes 0 and 2, or 1 and 3, of each word as 16-bit integers.
static uint16 kvcl_even_bytes(uint16 x) { return (uint16)(kvcl_even8(x.lo), kvcl_even8(x.hi)); }
static uint16 kvcl_odd_bytes(uint16 x) { return (uint16)(kvcl_odd8(x.lo), kvcl_odd8(x.hi)); }
#else
static int16 kvcl_pair_sums(uint16 a, uint16 b)
{
    int16 low = (as_int16(a << 16) >> 16) * (as_int16(b << 16) >> 16);
    return low + (as_int16(a) >> 16) * (as_int16(b) >> 16);
}

static uint16 kvcl_add2(uint16 a, uint16 b)
{
    return ((a & 0x7fff7fffu) + (b & 0x7fff7fffu)) ^ ((a ^ b) & 0x80008000u);
}

static uint16 kvcl_sub2(uint16 a, uint16 b)
{
    return ((a | 0x80008000u) - (b & 0x7fff7fffu)) ^ ((a ^ ~b) & 0x80008000u);
}

static uint16 kvcl_even_bytes(uint16 x)
{
    uint16 signs = x & 0x00800080u;
    return (x & 0x00ff00ffu) | ((signs << 9) - (signs << 1));
}

static uint16 kvcl_odd_bytes(uint16 x) { return kvcl_even_bytes(x >> 8); }
#endif

// ---- bytes --------------------------------------------------------------------------------------

#if KVCL_AVX2
static int8 kvcl_quads8(kvcl_bytes small, kvcl_bytes b)
{
    const kvcl_shorts ones = (kvcl_shorts)(1);
    kvcl_shorts pairs = __builtin_ia32_pmaddubsw256(small, b);
    return __builtin_astype(__builtin_ia32_pmaddwd256(pairs, ones), int8);
}

static int8 kvcl_dot4_8(uint8 a, uint8 b)
{
    kvcl_bytes w = KVCL_BYTES(a);
    return kvcl_quads8(__builtin_ia32_psignb256(w, w), __builtin_ia32_psignb256(KVCL_BYTES(b), w));
}

static int8 kvcl_dot4_small8(uint8 a, uint8 b) { return kvcl_quads8(KVCL_BYTES(a), KVCL_BYTES(b)); }

// Sum over the four bytes of each word of signed a times signed b; no b is -128.  (The sums of two
// products, at most 2 * 128 * 127, fit 16 bits.)
static int16 kvcl_dot4(uint16 a, uint16 b) { return KVCL_HALVES(int16, kvcl_dot4_8, a, b); }

// The same where a is in 0 .. 127.
static int16 kvcl_dot4_small(uint16 a, uint16 b)
{
    return KVCL_HALVES(int16, kvcl_dot4_small8, a, b);
}

static uint8 kvcl_pick8(uint8 table, uint8 index)
{
    return __builtin_astype(__builtin_ia32_pshufb256(KVCL_BYTES(table), KVCL_BYTES(index)), uint8);
}

// Byte `index` of the table, for each byte; n: how many of the table's bytes are used, at most 16.
static uint16 kvcl_pick(uint4 table, uint n, uint16 index)
{
    (void)n;
    return (uint16)(kvcl_pick8((uint8)(table, table), index.lo),
                    kvcl_pick8((uint8)(table, table), index.hi));
}

// Byte e of two times 32: 16 where bit e of a (then of b) is set, else 0.
static uint8 kvcl_fifths8(uint h)
{
    const uint8 spread = (uint8)(0u, 0u, 0x01010101u, 0x01010101u, 0x02020202u, 0x02020202u,
                                 0x03030303u, 0x03030303u);
    const kvcl_bytes bit = KVCL_BYTES((ulong4)(0x8040201008040201ul));
    kvcl_bytes b = KVCL_BYTES(kvcl_pick8((uint8)(h), spread));
    return __builtin_astype(((b & bit) == bit) & (kvcl_bytes)(16), uint8);
}

static uint16 kvcl_fifths(uint a, uint b) { return (uint16)(kvcl_fifths8(a), kvcl_fifths8(b)); }
#else
static int16 kvcl_dot4(uint16 a, uint16 b)
{
    return kvcl_pair_sums(kvcl_even_bytes(a), kvcl_even_bytes(b)) +
           kvcl_pair_sums(kvcl_odd_bytes(a), kvcl_odd_bytes(b));
}

static int16 kvcl_dot4_small(uint16 a, uint16 b) { return kvcl_dot4(a, b); }

static uint16 kvcl_pick(uint4 table, uint n, uint16 index)
{
    const uchar *bytes = (const uchar *)&table;
    uint16 found = (uint16)(0u);
    for (uint i = 0; i < n; i++) {
        uint16 other = index ^ (uint16)(i * 0x01010101u); // 0 in the bytes that are i
        uint16 same = ((other + 0x7f7f7f7fu) & 0x80808080u) ^ 0x80808080u;
        found |= ((same << 1) - (same >> 7)) & (uint16)(bytes[i] * 0x01010101u);
    }
    return found;
}

static uint16 kvcl_fifths(uint a, uint b)
{
    const uint8 shift = (uint8)(0, 4, 8, 12, 16, 20, 24, 28);
    uint16 bits = (uint16)((uint8)(a) >> shift, (uint8)(b) >> shift) & 15u;
    return ((bits * 0x00204081u) & 0x01010101u) << 4;
}
#endif

// ---- words --------------------------------------------------------------------------------------

// Element `index` mod 16 of the table, for each word.
#if KVCL_AVX2 && defined(__AVX512F__)
static int16 kvcl_pick_word(int16 table, uint16 index)
{
    return __builtin_ia32_permvarsi512(table, as_int16(index));
}
#elif KVCL_AVX2
static int8 kvcl_pick_word8(int16 table, int8 index)
{
    int8 low = __builtin_ia32_permvarsi256(table.lo, index);
    int8 high = __builtin_ia32_permvarsi256(table.hi, index);
    return select(low, high, index << 28); // by their sign
}

static int16 kvcl_pick_word(int16 table, uint16 index)
{
    return (int16)(kvcl_pick_word8(table, as_int8(index.lo)),
                   kvcl_pick_word8(table, as_int8(index.hi)));
}
#else
static int16 kvcl_pick_word(int16 table, uint16 index) { return shuffle(table, index); }
#endif

#endif
