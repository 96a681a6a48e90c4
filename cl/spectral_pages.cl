// spectral_pages.cl - parts of a basis and of a spectral page (engine/ops_spectral.h), levels and
// keys' sums.  Stands before the kernels that use it.  Twin: cpu/spectral.c

// K or V of one head: its basis, and in a page its words and norms.
typedef struct kvcl_spectral_part {
    kvcl_spectral_head head;
    __global const char *synth, *analysis; // [D/4][D][4]
    __global const ushort *place;          // [k][D]
    __global const short *factor;          // [k][D]
    __global const float *amp;             // [k][D]
    __global uint *words;                  // [n_words][slots]: the last head's with the rest
    __global half *norms;                  // [slots]
    uint n_words, slots, D, of_v;
} kvcl_spectral_part;

// Through a pointer: with a returned structure Oclgrind's compiler makes an instruction that
// Oclgrind does not know.
static void kvcl_spectral_of(kvcl_spectral_part *p, uint fold, uint D, uint n_kv_heads,
                             uint words_k, uint words_v, __global const uchar *basis,
                             __global uchar *pool, ulong slot, uint of_v, uint hk)
{
    uint slots = KVCL_TOKENS / fold;
    ulong bytes_k = kvcl_spectral_part_bytes(0, D, fold);
    ulong bytes_v = kvcl_spectral_part_bytes(1, D, fold);
    ulong page = (ulong)(words_k + words_v + n_kv_heads) * slots * 4;
    basis += of_v ? n_kv_heads * bytes_k + hk * bytes_v : hk * bytes_k;
    pool += slot * page;
    // field by field: Mesa's compiler crashes on a copy of the whole
    __global const kvcl_spectral_head *h = (__global const kvcl_spectral_head *)basis;
    p->head.n_comp = h->n_comp;
    p->head.n_wide = h->n_wide;
    p->head.n_codes = h->n_codes;
    p->head.first_word = h->first_word;
    p->head.n_words = h->n_words;
    for (uint i = 0; i < 4; i++) {
        p->head.plane_codes[i] = h->plane_codes[i];
        p->head.plane_word[i] = h->plane_word[i];
    }
    p->head.inv_n = h->inv_n;
    p->head.quantum = h->quantum;
    p->synth = (__global const char *)basis + kvcl_spectral_synth();
    p->analysis = (__global const char *)basis + kvcl_spectral_analysis(of_v, D);
    p->place = (__global const ushort *)(basis + kvcl_spectral_places(of_v, D));
    p->factor = (__global const short *)(basis + kvcl_spectral_factor(of_v, D, fold));
    p->amp = (__global const float *)(basis + kvcl_spectral_amp(of_v, D, fold));
    p->words = (__global uint *)pool + (ulong)((of_v ? words_k : 0) + p->head.first_word) * slots;
    p->norms = (__global half *)(pool + (ulong)(words_k + words_v) * slots * 4) +
               ((of_v ? n_kv_heads : 0) + hk) * slots;
    p->n_words =
        hk + 1 == n_kv_heads ? (of_v ? words_v : words_k) - p->head.first_word : p->head.n_words;
    p->slots = slots;
    p->D = D;
    p->of_v = of_v;
}

// Where the code of entry r D + i is: word of the head's + 2^16 * first bit + 2^24 * plane (8 >>
// plane bits).  Where there is none, what the mark for it becomes.
#define KVCL_NO_PLACE (KVCL_SPECTRAL_NONE >> 5 | 31u << 16 | 3u << 24)
static uint kvcl_spectral_place(const kvcl_spectral_part *p, uint entry)
{
    uint at = p->place[entry], word = at >> 5;
    uint plane = (uint)(word >= p->head.plane_word[1]) + (uint)(word >= p->head.plane_word[2]) +
                 (uint)(word >= p->head.plane_word[3]);
    return word | (at & 31u) << 16 | plane << 24;
}

// The number of the code at a place, in the codes' order.
static uint kvcl_spectral_number(const kvcl_spectral_part *p, uint place)
{
    uint plane = place >> 24, shift = place >> 16 & 31u, n = 0, word = place & 0xffffu;
    for (uint i = 0; i < 4; i++) {
        n += i < plane ? p->head.plane_codes[i] : 0;
        word -= i == plane ? p->head.plane_word[i] : 0;
    }
    return n + (word << (2 + plane)) + shift / 8 + 4 * ((shift & 7u) >> (3 - plane));
}

// Level of entry r D + i of a slot; 0 where there is no code.
static int kvcl_spectral_level(const kvcl_spectral_part *p, uint entry, uint slot)
{
    uint place = kvcl_spectral_place(p, entry), bits = 8u >> (place >> 24);
    if (place == KVCL_NO_PLACE)
        return 0;
    uint word = p->words[(place & 0xffffu) * p->slots + slot];
    return kvcl_quant_value(bits, word >> (place >> 16 & 31u) & ((1u << bits) - 1u));
}

// Component i of a slot's tokens, x^; fine: 128 times as fine.
static void kvcl_spectral_tokens(const kvcl_spectral_part *p, uint fold, uint fine, uint i,
                                 uint slot, int *out)
{
    for (uint r = 0; r < fold; r++) {
        int a = kvcl_spectral_level(p, r * p->D + i, slot) * p->factor[r * p->D + i];
        out[r] = fine ? a : (a + 64) >> 7;
    }
    for (uint h = 1; h < fold; h *= 2)
        for (uint j = 0; j < fold; j++)
            if ((j & h) == 0)
                KVCL_BUTTERFLY(int, out[j], out[j + h])
}

// S[i][d] x[i], for components i .. i + 3.
static int kvcl_spectral_four(const kvcl_spectral_part *p, __local const short *x, uint d, uint i)
{
    int4 s = convert_int4(vload4(i / 4 * p->D + d, p->synth)), c = convert_int4(vload4(i / 4, x));
    int products[4]; // (a detour, as in kvcl_tree8)
    vstore4(s * c, 0, products);
    return (products[0] + products[1]) + (products[2] + products[3]);
}

// Sum over the components of S[i][d] x[i].  (Sixteen a round: llvmpipe ends all loops of an item
// that went round 65,535 times.)
static int kvcl_spectral_row(const kvcl_spectral_part *p, __local const short *x, uint d)
{
    int sum = 0;
    uint i = 0;
    for (; i + 16 <= p->head.n_comp; i += 16)
        sum += (kvcl_spectral_four(p, x, d, i) + kvcl_spectral_four(p, x, d, i + 4)) +
               (kvcl_spectral_four(p, x, d, i + 8) + kvcl_spectral_four(p, x, d, i + 12));
    for (; i < p->head.n_comp; i += 4)
        sum += kvcl_spectral_four(p, x, d, i);
    return sum;
}

// ---- encoder and decoder ------------------------------------------------------------------------

// K or V of one head of a page, raw and coded.
typedef struct kvcl_spectral_page {
    kvcl_spectral_part s;
    __global uchar *raw;
    __global const float *means; // [D]
    uint type, page, n_skip;
    uint raw_dim; // of a head of raw pages; D is a multiple
} kvcl_spectral_page;

#define KVCL_SPECTRAL_PARAMS(IN, OUT)                                                      \
    IN uchar *k, ulong k_off, IN uchar *v, ulong v_off, __global const int *pages,         \
        ulong pages_off, __global const float *means, ulong means_off,                     \
        __global const uchar *basis, ulong basis_off, OUT uchar *pool, ulong pool_off,     \
        __global const int *slots, ulong slots_off, uint n_kv_heads, uint D, uint words_k, \
        uint words_v, uint first_page, uint type_k, uint type_v, uint n_skip, uint raw_dim
#define KVCL_SPECTRAL_ARGS                                                                      \
    (__global uchar *)k, k_off, (__global uchar *)v, v_off, pages, pages_off, means, means_off, \
        basis, basis_off, (__global uchar *)pool, pool_off, slots, slots_off, n_kv_heads, D,    \
        words_k, words_v, first_page, type_k, type_v, n_skip, raw_dim

// Work-group `group`'s; of_v: V.
static void kvcl_spectral_page_of(kvcl_spectral_page *p, uint group, uint of_v,
                                  KVCL_SPECTRAL_PARAMS(__global, __global))
{
    uint i = group / n_kv_heads, hk = kvcl_rest(group, i, n_kv_heads);
    ulong at = ((ulong)pages[pages_off + i] * n_kv_heads + hk) * (ulong)(D * KVCL_TOKENS);
    kvcl_spectral_of(&p->s, KVCL_SPEC, D, n_kv_heads, words_k, words_v, basis + basis_off,
                     pool + pool_off, (ulong)slots[slots_off + i], of_v, hk);
    p->type = of_v ? type_v : type_k;
    p->raw = (of_v ? v + v_off : k + k_off) + at * (p->type == KVCL_F16 ? 2 : 4);
    p->page = first_page + i;
    p->means = means + means_off + (of_v * n_kv_heads + hk) * D;
    p->n_skip = p->page == 0 ? n_skip : 0;
    p->raw_dim = raw_dim;
}

// Element of a raw page: V's heads come one after the other, whatever rows they are joined to.
static uint kvcl_spectral_raw_at(const kvcl_spectral_page *p, uint t, uint d)
{
    uint head = d / p->raw_dim;
    return p->s.of_v ? (head * KVCL_TOKENS + t) * p->raw_dim + kvcl_rest(d, head, p->raw_dim)
                     : d * KVCL_TOKENS + t;
}

// A slot's norm, as a half's bits, by its sums: of squares of values by their amplitudes, of u^2,
// and of l^2 (K) or u l (V).
static uint kvcl_spectral_norm(const kvcl_spectral_part *p, float e, float uu, float divisor)
{
    float g = divisor < 1e-30f ? 0.0f : uu * kvcl_recip(divisor);
    if (!p->of_v)
        g = g < 1e-30f ? 0.0f : g * kvcl_rsqrt(g);
    return e * p->head.inv_n < 1e-30f || g < 1e-30f ? 0 : kvcl_half_store(g);
}
