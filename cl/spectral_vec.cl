// spectral_vec.cl - raw pages to spectral pages and back, vector shape.  Twin: cpu/spectral.c; the
// lane shape, KVCL_SPEC and what is assumed: cl/spectral.cl; parts of a page: cl/spectral_pages.cl;
// places: cl/spectral_vec_pages.cl; codes: cl/quant_pages.cl
//
// One work-item per page and head: tokens in lanes while coefficients are made, then slots.

#if KVCL_VECTOR_SHAPE

#define MAX_DIM 256
#define MAX_CODES (KVCL_SPEC * MAX_DIM)
#define VECTORS KVCL_SPECTRAL_VECTORS // of a page's places
#define SLOTS KVCL_SPECTRAL_SLOTS
#define SUMS 16 // lanes of sums over a slot's codes

// As many slots as are taken together.
#if KVCL_SPEC == 8
#define LANES 8
typedef float8 floats;
typedef uint8 uints;
#define LOAD vload8
#define STORE vstore8
#define CODES kvcl_codes8
#else
#define LANES 16
typedef float16 floats;
typedef uint16 uints;
#define LOAD vload16
#define STORE vstore16
#define CODES kvcl_codes16
#endif

// What an item holds of a page's K or V.
typedef struct work {
    float16 y[MAX_DIM][VECTORS]; // rows around their mean, by place
    float16 u[MAX_DIM][VECTORS]; // components
    float e[4][MAX_DIM];         // rows of the analysis
    ushort at[MAX_CODES];        // of a code: where in u
    float amp[MAX_CODES];        // of a code
    kvcl_magnitudes levels[4];   // of planes
} work;

KVCL_SPECTRAL_DEFINE_WALSH(walsh, float)

// ---- coefficients -------------------------------------------------------------------------------

// Sixteen raw values from `at` on.
static float16 raw16(const kvcl_spectral_page *p, uint at)
{
    return p->type == KVCL_F16 ? vload_half16(0, (__global const half *)p->raw + at)
                               : vload16(0, (__global const float *)p->raw + at);
}

static void transpose16(float16 *x)
{
    KVCL_UNROLL for (uint step = 0; step < 4; step++)
    {
        float16 a[16];
        KVCL_UNROLL for (uint i = 0; i < 16; i++) { a[i] = x[i]; }
        KVCL_UNROLL for (uint i = 0; i < 8; i++)
        {
            x[2 * i] = KVCL_ZIP(a[i].lo, a[i + 8].lo);
            x[2 * i + 1] = KVCL_ZIP(a[i].hi, a[i + 8].hi);
        }
    }
}

// Rows around their mean; those that nobody reads are nothing.
static void load_rows(const kvcl_spectral_page *p, work *w)
{
    const int16 place = (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint D = p->s.D;
    for (uint v = 0; v < VECTORS; v++) {
        int16 skipped = place + (int)(16 * v) < (int16)((int)p->n_skip);
        for (uint d = 0; d < D; d += 16) {
            float16 x[16];
            for (uint i = 0; i < 16; i++)
                x[i] = raw16(p, p->s.of_v ? (16 * v + i) * D + d : (d + i) * KVCL_TOKENS + 16 * v);
            if (p->s.of_v)
                transpose16(x);
            for (uint i = 0; i < 16; i++)
                w->y[d + i][v] =
                    select(x[i] - (float16)(p->means[d + i]), (float16)(0.0f), skipped);
        }
    }
    for (uint d = 0; d < D; d++)
        kvcl_spectral_to_places(w->y[d]);
}

// Dimensions d .. of four components more, all places.
static void coefficients(const kvcl_spectral_part *p, work *w)
{
    uint D = p->D;
    for (uint i = 0; i < p->head.n_comp; i += 4) {
        float16 c[4][VECTORS];
        for (uint d = 0; d < D; d += 16) {
            int16 four = as_int16(vload16(0, (__global const uint *)p->analysis + i / 4 * D + d));
            KVCL_UNROLL for (uint j = 0; j < 4; j++)
            {
                vstore16(convert_float16(four << (int)(24 - 8 * j) >> 24), 0, w->e[j] + d);
            }
        }
        KVCL_UNROLL for (uint j = 0; j < 4 * VECTORS; j++) { c[j / VECTORS][j % VECTORS] = 0.0f; }
        for (uint d = 0; d < D; d++) {
            KVCL_UNROLL for (uint j = 0; j < 4; j++)
            {
                KVCL_UNROLL for (uint v = 0; v < VECTORS; v++)
                {
                    c[j][v] = fma((float16)(w->e[j][d]), w->y[d][v], c[j][v]);
                }
            }
        }
        KVCL_UNROLL for (uint j = 0; j < 4; j++)
        {
            walsh(c[j]);
            KVCL_UNROLL for (uint v = 0; v < VECTORS; v++) { w->u[i + j][v] = c[j][v]; }
        }
    }
}

// ---- codes --------------------------------------------------------------------------------------

static void codes_begin(const kvcl_spectral_part *p, work *w)
{
    for (uint r = 0; r < KVCL_SPEC; r++)
        for (uint i = 0; i < p->head.n_comp; i++) {
            uint place = kvcl_spectral_place(p, r * p->D + i), n;
            if (place == KVCL_NO_PLACE)
                continue;
            n = kvcl_spectral_number(p, place);
            w->at[n] = (ushort)(i * KVCL_TOKENS + r * SLOTS);
            w->amp[n] = p->amp[r * p->D + i];
        }
    for (uint plane = 0; plane < 4; plane++)
        kvcl_magnitudes_of(8u >> plane, &w->levels[plane]);
}

static floats lanes_sum(floats *x)
{
    for (uint h = SUMS / 2; h > 0; h /= 2)
        for (uint j = 0; j < h; j++)
            x[j] = x[j] + x[j + h];
    return x[0];
}

// Sums over the codes of LANES slots: see kvcl_spectral_norm.
typedef struct sums {
    float e[LANES], uu[LANES], divisor[LANES];
} sums;

// Factors of slots s .. s + LANES - 1, and their sums of squares.
static floats slot_factors(const kvcl_spectral_part *p, const work *w, uint s, sums *out)
{
    const float *u = (const float *)w->u + s;
    floats e[SUMS];
    float inv[LANES];
    for (uint j = 0; j < SUMS; j++)
        e[j] = 0.0f;
    for (uint n = 0; n < p->head.n_codes; n++) {
        floats v = LOAD(0, u + w->at[n]) * kvcl_recip(w->amp[n]);
        e[n % SUMS] = fma(v, v, e[n % SUMS]);
    }
    STORE(lanes_sum(e), 0, out->e);
    for (uint j = 0; j < LANES; j++) {
        float q = out->e[j] * p->head.inv_n;
        inv[j] = q < 1e-30f ? 0.0f : kvcl_recip(q * kvcl_rsqrt(q));
    }
    return LOAD(0, inv);
}

// Words of those slots, and the sums of their norms.
static void make_codes(const kvcl_spectral_part *p, const work *w, uint s, floats inv, sums *out)
{
    const float *u = (const float *)w->u + s;
    floats uu[SUMS], other[SUMS], l;
    uint n = 0;
    for (uint j = 0; j < SUMS; j++)
        uu[j] = other[j] = 0.0f;
    for (uint plane = 0; plane < 4; plane++) {
        uint bits = 8u >> plane, P = 32 / bits, end = n + p->head.plane_codes[plane];
        float unit = kvcl_spectral_unit(bits), down = kvcl_recip(unit);
        floats factor = unit * inv;
        __global uint *to = p->words + p->head.plane_word[plane] * SLOTS + s;
        for (uint first = n; n < end; first += P, to += SLOTS) {
            uints word = 0;
            for (; n < min(end, first + P); n++) {
                floats x = LOAD(0, u + w->at[n]);
                uints code = CODES(bits, &w->levels[plane], x * kvcl_recip(w->amp[n]), factor, &l);
                word |= code << kvcl_code_shift(bits, n - first);
                l = l * (w->amp[n] * down);
                uu[n % SUMS] = fma(x, x, uu[n % SUMS]);
                other[n % SUMS] = fma(p->of_v ? x : l, l, other[n % SUMS]);
            }
            STORE(word, 0, to);
        }
    }
    STORE(lanes_sum(uu), 0, out->uu);
    STORE(lanes_sum(other), 0, out->divisor);
}

// K or V of a page; returns the first token of the first bad slot.
static uint encode(const kvcl_spectral_page *p, work *w)
{
    uint bad = KVCL_TOKENS;
    load_rows(p, w);
    coefficients(&p->s, w);
    codes_begin(&p->s, w);
    for (uint i = p->s.head.n_words * SLOTS; i < p->s.n_words * SLOTS; i++)
        p->s.words[i] = 0;
    for (uint s = 0; s < SLOTS; s += LANES) {
        sums t;
        floats inv = slot_factors(&p->s, w, s, &t);
        make_codes(&p->s, w, s, inv, &t);
        for (uint j = 0; j < LANES; j++) {
            uint norm = kvcl_spectral_norm(&p->s, t.e[j], t.uu[j], t.divisor[j]);
            ((__global ushort *)p->s.norms)[s + j] = (ushort)norm;
            if (kvcl_is_bad(t.e[j]) || kvcl_is_bad(t.uu[j]) || kvcl_bad_half(norm))
                bad = min(bad, (s + j) * KVCL_SPEC);
        }
    }
    return bad;
}

__kernel void kvcl_spectral_enc_vec(KVCL_SPECTRAL_PARAMS(__global const, __global),
                                    __global int *bad, ulong bad_off)
{
    uint first = KVCL_TOKENS;
    work w;
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_spectral_page p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        first = min(first, encode(&p, &w));
    }
    bad[bad_off + get_group_id(0)] = (int)first;
}

// ---- decoder ------------------------------------------------------------------------------------

KVCL_SPECTRAL_DEFINE_WALSH(walsh_int, int)

// Components x^ of all places to u: of K as integers, of V as floats.
static void tokens_of(const kvcl_spectral_part *p, work *w)
{
    int16 tables[4];
    kvcl_spectral_tables(tables);
    for (uint i = 0; i < p->head.n_comp; i++) {
        int16 a[VECTORS];
        for (uint v = 0; v < VECTORS; v++) {
            a[v] = kvcl_spectral_levels(p, tables, i, v) * kvcl_spectral_factors(p, i, v);
            a[v] = p->of_v ? a[v] : (a[v] + 64) >> 7;
        }
        walsh_int(a);
        for (uint v = 0; v < VECTORS; v++)
            w->u[i][v] = p->of_v ? convert_float16(a[v]) : as_float16(a[v]);
    }
}

// Sums over the components, dimensions d .. d + 3, two vectors of places from v on.
#define DEFINE_SUMS(name, type, load, madd)                                                       \
    static void name(const kvcl_spectral_part *p, const work *w, uint d, uint v, type##16(*h)[2]) \
    {                                                                                             \
        KVCL_UNROLL for (uint e = 0; e < 4; e++) { h[e][0] = h[e][1] = 0; }                       \
        for (uint i = 0; i < p->head.n_comp; i++) {                                               \
            __global const char *s = p->synth + (i / 4 * p->D + d) * 4 + i % 4;                   \
            type##16 x0 = load(w->u[i][v]), x1 = load(w->u[i][v + 1]);                            \
            KVCL_UNROLL for (uint e = 0; e < 4; e++)                                              \
            {                                                                                     \
                h[e][0] = madd((type##16)((type)s[4 * e]), x0, h[e][0]);                          \
                h[e][1] = madd((type##16)((type)s[4 * e]), x1, h[e][1]);                          \
            }                                                                                     \
        }                                                                                         \
    }
#define AS_IT_IS(x) (x)
#define INT_MADD(a, b, c) ((a) * (b) + (c))
DEFINE_SUMS(sums_of_k, int, as_int16, INT_MADD)
DEFINE_SUMS(sums_of_v, float, AS_IT_IS, fma)

// Rows as they were before rotation to y, tokens in order.
static void rows_of(const kvcl_spectral_page *p, work *w)
{
    float unit = p->s.of_v ? p->s.head.quantum * 0.0078125f : p->s.head.quantum; // 2^-7
    tokens_of(&p->s, w);
    for (uint d = 0; d < p->s.D; d += 4)
        for (uint v = 0; v < VECTORS; v += 2) {
            float16 h[4][2];
            if (p->s.of_v) {
                sums_of_v(&p->s, w, d, v, h);
            } else {
                int16 sums[4][2];
                sums_of_k(&p->s, w, d, v, sums);
                for (uint e = 0; e < 4; e++) {
                    h[e][0] = convert_float16(sums[e][0]);
                    h[e][1] = convert_float16(sums[e][1]);
                }
            }
            for (uint e = 0; e < 4; e++)
                for (uint j = 0; j < 2; j++)
                    w->y[d + e][v + j] = kvcl_zero16(fma(unit * kvcl_spectral_norms(&p->s, v + j),
                                                         h[e][j], (float16)(p->means[d + e])));
        }
    for (uint d = 0; d < p->s.D; d++)
        kvcl_spectral_to_tokens(w->y[d]);
}

static void store16(const kvcl_spectral_page *p, uint at, float16 x)
{
    if (p->type == KVCL_F16)
        vstore_half16_rte(x, 0, (__global half *)p->raw + at);
    else
        vstore16(x, 0, (__global float *)p->raw + at);
}

// Keys of tokens 16 v .. of the head from dimension `first` on turned by their positions.
static void turn16(const kvcl_turning *tn, uint v, uint first, work *w)
{
    for (uint i = 0; i < tn->n_rot / 2; i++) {
        kvcl_pair at =
            kvcl_pair_of(tn->pairing == KVCL_ROPE_HALVES ? i : 2 * i, tn->n_rot, tn->pairing);
        uint one = first + at.a, other = one + at.apart;
        float c[16], s[16];
        for (uint j = 0; j < 16; j++) {
            __global const float *cs = tn->table + (16 * v + j) * tn->n_rot + 2 * i;
            c[j] = cs[0];
            s[j] = cs[1];
        }
        float16 a = w->y[one][v], b = w->y[other][v];
        float16 c16 = vload16(0, c), s16 = vload16(0, s);
        w->y[one][v] = kvcl_zero16(fma(a, c16, -(b * s16)));
        w->y[other][v] = kvcl_zero16(fma(b, c16, a * s16));
    }
}

static void store_rows(const kvcl_spectral_page *p, const work *w)
{
    uint D = p->s.D;
    for (uint v = 0; v < VECTORS; v++)
        for (uint d = 0; d < D; d += 16) {
            float16 x[16];
            for (uint i = 0; i < 16; i++)
                x[i] = w->y[d + i][v];
            if (p->s.of_v)
                transpose16(x);
            for (uint i = 0; i < 16; i++)
                store16(p,
                        p->s.of_v ? kvcl_spectral_raw_at(p, 16 * v + i, d)
                                  : kvcl_spectral_raw_at(p, 16 * v, d + i),
                        x[i]);
        }
}

__kernel void kvcl_spectral_dec_vec(KVCL_SPECTRAL_PARAMS(__global, __global const),
                                    __global const float *table, ulong table_off, uint n_rot,
                                    uint pairing)
{
    work w;
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_spectral_page p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        kvcl_turning tn = {table + table_off, of_v ? 0 : n_rot, pairing};
        if (tn.n_rot != 0)
            tn.table += (ulong)p.page * KVCL_TOKENS * n_rot;
        rows_of(&p, &w);
        for (uint v = 0; v < VECTORS; v++)
            for (uint d = 0; d < D; d += raw_dim)
                turn16(&tn, v, d, &w);
        store_rows(&p, &w);
    }
}

#endif
