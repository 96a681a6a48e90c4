// mma.cl - warps and tensor cores of NVIDIA's from compute capability 8.0 on: exact sums over codes
// of quant pages (engine/ops_code.h).  Stands before the kernels that use it.
//
// Sums by mma m16n8k32 on int8: the m are 16 places across (tokens of K, dimensions of V), the k 32
// places along, the n four rows, of each the high and the low half of its 15-bit integers.  Lane
// 4 g + i of a warp holds, of k, unit i: the codes of a word or half of one, in the order in which
// they leave the word cheapest (kvcl_slot_of); of m, the places 4 g .. 4 g + 3 of 32, so that words
// come and sums leave as vectors of four.

#if KVCL_PTX && !KVCL_VECTOR_SHAPE

// Everything becomes one function before any loop is looked at: only then are the loops' ends
// constants and the arrays registers.
#define INLINE static __attribute__((always_inline))
#define LOOP _Pragma("unroll") for

// Four halves that came in one load (see kvcl_half_pair).
INLINE float4 kvcl_half_four(__global const half *p, uint i)
{
    uint2 h = ((__global const uint2 *)p)[i];
    return (float4)(kvcl_half_pair(h.x), kvcl_half_pair(h.y));
}

// ---- warps --------------------------------------------------------------------------------------

INLINE float kvcl_from_lane(float v, uint mask)
{
    float r;
    __asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;"
                   : "=f"(r)
                   : "f"(v), "r"(mask));
    return r;
}

INLINE void kvcl_sync_warp(void) { __asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }

// Bytes of (a, b) picked by the four low nibbles of `which`; a nibble above 7 picks 8 signs.
INLINE uint kvcl_pick(uint a, uint b, uint which)
{
    uint r;
    __asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(which));
    return r;
}

// Low bytes of four words.
INLINE uint kvcl_bytes4(const uint *v)
{
    return kvcl_pick(kvcl_pick(v[0], v[1], 0x0040), kvcl_pick(v[2], v[3], 0x0040), 0x5410);
}

// c + the sum of products of four int8.
INLINE int kvcl_dot4(uint a, uint b, int c)
{
    int d;
    __asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// c + a b of int8; kvcl_mma_low: b of unsigned bytes.
#define KVCL_DEFINE_MMA(name, type_b)                                                       \
    INLINE int4 name(uint a0, uint a1, uint a2, uint a3, uint2 b, int4 c)                   \
    {                                                                                       \
        int4 d;                                                                             \
        __asm("mma.sync.aligned.m16n8k32.row.col.s32.s8." type_b ".s32 {%0, %1, %2, %3}, "  \
              "{%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"                           \
              : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)                                  \
              : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b.x), "r"(b.y), "r"(c.x), "r"(c.y), \
                "r"(c.z), "r"(c.w));                                                        \
        return d;                                                                           \
    }
KVCL_DEFINE_MMA(kvcl_mma, "s8")
KVCL_DEFINE_MMA(kvcl_mma_low, "u8")

INLINE float kvcl_warp_max(float v)
{
    LOOP(uint h = 1; h < 32; h *= 2) v = fmax(v, kvcl_from_lane(v, h));
    return v;
}

// ---- codes --------------------------------------------------------------------------------------

// Codes of a unit; k-steps that four units fill; k-steps and quads of units along.
#define UNIT(bits) ((bits) < 4 ? 16 : 8)
#define QUADS(bits, along) (((along) + 4 * UNIT(bits) - 1) / (4 * UNIT(bits)))
#define STEPS(bits, along) (QUADS(bits, along) * (UNIT(bits) / 8))
#define WORDS(bits) ((bits) == 8 || (bits) == 3 ? 2 : 1) // vectors of words of a unit

// Where code e of a unit stands in the unit's registers: byte + 4 * register.
INLINE uint kvcl_slot_of(uint bits, uint e)
{
    if (bits == 8 || bits == 1)
        return e;
    uint top = e >> (bits == 4 ? 2 : 3), low = bits == 4 ? 0 : e >> 2 & 1;
    return top + (e & 1) * 2 + (e >> 1 & 1) * 4 + low * 8;
}

// Levels i .. i + 3 in bytes: all of them, or the positive ones (sign 1), or minus the others.
INLINE uint kvcl_levels4(uint bits, uint i, int sign)
{
    uint r = 0;
    for (uint e = 0; e < 4; e++) {
        int v = i + e < 1u << bits ? kvcl_quant_level(bits, i + e) : 0;
        v = sign == 0 ? v : max(sign * v, 0);
        r |= (uint)(v & 255) << 8 * e;
    }
    return r;
}

// Bits of a unit's word as indices of kvcl_pick, two registers of four codes to a word of them.
INLINE void kvcl_indices(uint bits, uint low, uint high, uint odd, uint *index)
{
    if (bits == 4) {
        index[0] = low;
    } else if (bits == 2) {
        index[0] = low & 0x33333333u;
        index[1] = low >> 2 & 0x33333333u;
    } else { // 3
        high >>= 4 * odd;
        uint a = (high << 4 & 0x40404040u) | (high << 2 & 0x04040404u);
        uint b = (high << 3 & 0x40404040u) | (high << 1 & 0x04040404u);
        index[0] = (low & 0x33333333u) | a;
        index[1] = (low >> 2 & 0x33333333u) | b;
    }
}

// The levels of a unit, a byte each, in UNIT / 4 registers; of 4 bits the positive ones, zeros for
// the others, and in `minus` the others' negatives.
INLINE void kvcl_unpack(uint bits, uint low, uint high, uint odd, uint *level, uint *minus)
{
    if (bits == 8) {
        level[0] = low;
        level[1] = high;
    } else if (bits == 1) {
        low >>= 4 * odd;
        LOOP(uint i = 0; i < 4; i++) level[i] = ((low >> i & 0x01010101u) * 254u) ^ 0x81818181u;
    } else if (bits == 4) {
        uint flipped = low ^ 0x88888888u;
        LOOP(uint i = 0; i < 2; i++)
        {
            minus[i] = kvcl_pick(kvcl_levels4(4, 0, -1), kvcl_levels4(4, 4, -1), low >> 16 * i);
            level[i] = kvcl_pick(kvcl_levels4(4, 8, 1), kvcl_levels4(4, 12, 1), flipped >> 16 * i);
        }
    } else {
        uint index[2];
        kvcl_indices(bits, low, high, odd, index);
        LOOP(uint i = 0; i < 4; i++)
        level[i] = kvcl_pick(kvcl_levels4(bits, 0, 0), kvcl_levels4(bits, 4, 0),
                             index[i / 2] >> 16 * (i % 2));
    }
}

// For one kind of codes and 4 * TILES rows, all sizes constant (loops with ends that are constants
// only after inlining would keep arrays in memory). load_words: words of 32 places across from j
// on: a lane's four places of its unit in each quad. sum_words: sums over ALONG for these 32
// places, of row 4 i + lane % 4 in sum[i]. load_integers: a lane's part of a block of integers
// (kvcl_integer_at).
#define KVCL_DEFINE_KIND(kind, BITS, ACROSS, ALONG)                                                \
    INLINE void load_words_##kind(__global const uint *words, uint j, uint4 *raw)                  \
    {                                                                                              \
        uint lane = (uint)get_local_id(0) % 32, u = lane % 4;                                      \
        uint low = BITS == 8 ? 2 * u : BITS == 1 ? u / 2 : u;                                      \
        uint high = BITS == 8 ? low + 1 : ALONG / 16 + u / 2;                                      \
        __global const uint4 *first =                                                              \
            (__global const uint4 *)(words + (low * ACROSS + j + lane / 4 * 4));                   \
        __global const uint4 *second =                                                             \
            (__global const uint4 *)(words + (high * ACROSS + j + lane / 4 * 4));                  \
        LOOP(uint quad = 0; quad < QUADS(BITS, ALONG); quad++)                                     \
        {                                                                                          \
            raw[quad * WORDS(BITS)] = first[quad *                                                 \
                                            (BITS == 8   ? 8                                       \
                                             : BITS == 1 ? 2                                       \
                                                         : 4) *                                    \
                                            (ACROSS / 4)];                                         \
            if (WORDS(BITS) == 2)                                                                  \
                raw[quad * WORDS(BITS) + 1] = second[quad * (BITS == 8 ? 8 : 2) * (ACROSS / 4)];   \
        }                                                                                          \
    }                                                                                              \
    INLINE void sum_words_##kind(const uint4 *raw, const uint2 *x, int4 *sum)                      \
    {                                                                                              \
        uint odd = (uint)get_local_id(0) % 2;                                                      \
        int4 acc[2 * TILES], acc_minus[2 * TILES];                                                 \
        LOOP(uint i = 0; i < 2 * TILES; i++) acc[i] = acc_minus[i] = (int4)(0);                    \
        LOOP(uint quad = 0; quad < QUADS(BITS, ALONG); quad++)                                     \
        {                                                                                          \
            uint level[4][4], minus[4][2];                                                         \
            uint4 low = raw[quad * WORDS(BITS)], high = raw[quad * WORDS(BITS) + WORDS(BITS) - 1]; \
            kvcl_unpack(BITS, low.x, high.x, odd, level[0], minus[0]);                             \
            kvcl_unpack(BITS, low.y, high.y, odd, level[1], minus[1]);                             \
            kvcl_unpack(BITS, low.z, high.z, odd, level[2], minus[2]);                             \
            kvcl_unpack(BITS, low.w, high.w, odd, level[3], minus[3]);                             \
            LOOP(uint i = 0; i < 2 * TILES; i++)                                                   \
            {                                                                                      \
                uint m = i % 2 * 2;                                                                \
                LOOP(uint s = 0; s < UNIT(BITS) / 8; s++)                                          \
                {                                                                                  \
                    uint2 b = x[i / 2 * STEPS(BITS, ALONG) + quad * (UNIT(BITS) / 8) + s];         \
                    acc[i] = kvcl_mma(level[m][2 * s], level[m + 1][2 * s], level[m][2 * s + 1],   \
                                      level[m + 1][2 * s + 1], b, acc[i]);                         \
                    if (BITS == 4)                                                                 \
                        acc_minus[i] = kvcl_mma(minus[m][0], minus[m + 1][0], minus[m][1],         \
                                                minus[m + 1][1], b, acc_minus[i]);                 \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        LOOP(uint i = 0; i < TILES; i++)                                                           \
        {                                                                                          \
            int4 a = acc[2 * i] - acc_minus[2 * i], b = acc[2 * i + 1] - acc_minus[2 * i + 1];     \
            sum[i] = (int4)(128 * a.x + a.y, 128 * a.z + a.w, 128 * b.x + b.y, 128 * b.z + b.w);   \
        }                                                                                          \
    }                                                                                              \
    INLINE void load_integers_##kind(__local const uint *block, uint2 *x)                          \
    {                                                                                              \
        block += (uint)get_local_id(0) % 32;                                                       \
        LOOP(uint i = 0; i < TILES * STEPS(BITS, ALONG); i++)                                      \
        x[i] = (uint2)(block[64 * i], block[64 * i + 32]);                                         \
    }
// ---- integers of queries and weights ------------------------------------------------------------

// Bytes from the start of a block of integers where row r's element i along has its high half; the
// low half is 16 bytes on.  A block: [TILES][STEPS][2][32 lanes] words.
INLINE uint kvcl_integer_at(uint bits, uint along, uint r, uint i)
{
    uint u = i / UNIT(bits), slot = kvcl_slot_of(bits, i % UNIT(bits));
    uint step = u / 4 * (UNIT(bits) / 8) + slot / 8;
    uint word = ((r / 4 * STEPS(bits, along) + step) * 2 + slot / 4 % 2) * 32 + r % 4 * 8 + u % 4;
    return word * 4 + slot % 4;
}

INLINE void kvcl_store_integer(float v, __local char *to)
{
    int q = kvcl_round(v), high = (q + 64) >> 7;
    to[0] = (char)high;
    to[16] = (char)(q - 128 * high);
}

// Transform of each block of a head of DIM dimensions; a lane has dimensions lane + 32 k in v[k].
#define KVCL_DEFINE_FWHT_WARP(DIM)                                                          \
    INLINE void fwht_warp(float *v)                                                         \
    {                                                                                       \
        uint lane = (uint)get_local_id(0) % 32;                                             \
        LOOP(uint k = 0; k < DIM / 32; k++) LOOP(uint h = 1; h < 32; h *= 2)                \
        {                                                                                   \
            float u = kvcl_from_lane(v[k], h);                                              \
            v[k] = lane & h ? u - v[k] : v[k] + u;                                          \
        }                                                                                   \
        LOOP(uint h = 1; 32 * h < (DIM & -DIM); h *= 2) LOOP(uint k = 0; k < DIM / 32; k++) \
        {                                                                                   \
            if ((k & h) == 0)                                                               \
                KVCL_BUTTERFLY(float, v[k], v[k + h])                                       \
        }                                                                                   \
    }

// ---- rows ---------------------------------------------------------------------------------------

INLINE float kvcl_largest4(float4 v) { return fmax(fmax(v.x, v.y), fmax(v.z, v.w)); }

// Of all lanes that share a row (lane % 4).
INLINE float kvcl_rows_max(float v)
{
    LOOP(uint h = 4; h < 32; h *= 2) v = fmax(v, kvcl_from_lane(v, h));
    return v;
}

// Sum of 64 weights in the tree's order, of row lane / 8 of four that are `pitch` apart.
INLINE float kvcl_weight_sum(__local const float *p, uint pitch)
{
    uint lane = (uint)get_local_id(0) % 32;
    float sum = 0.0f;
    p += lane / 8 * pitch + lane % 8;
    LOOP(uint t = 0; t < KVCL_TOKENS; t += KVCL_ATTN_LANES) sum += p[t];
    sum = sum + kvcl_from_lane(sum, 4);
    sum = sum + kvcl_from_lane(sum, 2);
    return kvcl_zero(sum + kvcl_from_lane(sum, 1));
}

#endif
