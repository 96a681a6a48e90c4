// spectral.cl - raw pages to spectral pages and back.  Twin: cpu/spectral.c; parts of a basis and
// of a page: cl/spectral_pages.cl
//
// KVCL_SPEC: tokens of a slot.  Assumes (checked by the host half): head_dim D a multiple of 32, at
// most 256.  A group per page and head, K then V, 8 tokens at a time: whole slots.
//   local memory: 19 KiB (encoder), 17 KiB (decoder)

#define FOLD KVCL_SPEC
#define SLOTS (KVCL_TOKENS / FOLD)
#define MAX_DIM 256
#define CHUNK 8                // tokens at a time
#define AT_ONCE (CHUNK / FOLD) // slots at a time
#define LANES 16               // of sums over a slot's codes
#define MAX_CODES (FOLD * MAX_DIM)
#define EACH(at, count) for (uint at = (uint)get_local_id(0); at < (count); at += items)
#define SYNC barrier(CLK_LOCAL_MEM_FENCE)

typedef kvcl_spectral_page part;

static float raw_value(const part *p, uint t, uint d)
{
    uint at = p->s.of_v ? t * p->s.D + d : d * KVCL_TOKENS + t;
    return p->type == KVCL_F16 ? vload_half(at, (__global const half *)p->raw)
                               : ((__global const float *)p->raw)[at];
}

// ---- encoder ------------------------------------------------------------------------------------

typedef struct work {
    float y[CHUNK * MAX_DIM]; // rows around their mean, [token][D]; then sums and codes
    float u[CHUNK * MAX_DIM]; // [slot][entry]
    float sums[4][CHUNK * LANES];
    float inv[CHUNK];
    uint bad;
} work;

// Sum of the lanes of a slot.
static float lanes_sum(__local const float *lanes)
{
    float a[8];
    for (uint j = 0; j < 8; j++)
        a[j] = lanes[j] + lanes[j + 8];
    return kvcl_tree8(vload8(0, a));
}

// Coefficients of the tokens from t0 on, transformed across each slot's.
static void transform(const part *p, __local work *w, uint t0, uint items)
{
    uint D = p->s.D, n = p->s.head.n_comp;
    EACH(at, CHUNK * D)
    {
        uint t = p->s.of_v ? at / D : at % CHUNK, d = p->s.of_v ? kvcl_rest(at, t, D) : at / CHUNK;
        w->y[t * D + d] = t0 + t < p->n_skip ? 0.0f : raw_value(p, t0 + t, d) - p->means[d];
    }
    SYNC;
    EACH(at, AT_ONCE * n)
    {
        uint slot = at / n, i = kvcl_rest(at, slot, n);
        __global const char *e = p->s.analysis + i / 4 * D * 4 + i % 4;
        float c[FOLD];
        for (uint j = 0; j < FOLD; j++)
            c[j] = 0.0f;
        for (uint d = 0; d < D; d++)
            for (uint j = 0; j < FOLD; j++)
                c[j] = fma((float)e[4 * d], w->y[(slot * FOLD + j) * D + d], c[j]);
        for (uint h = 1; h < FOLD; h *= 2)
            for (uint j = 0; j < FOLD; j++)
                if ((j & h) == 0)
                    KVCL_BUTTERFLY(float, c[j], c[j + h])
        for (uint r = 0; r < FOLD; r++)
            w->u[slot * FOLD * D + r * D + i] = c[r];
    }
    SYNC;
}

// Codes of the slots at hand, a byte each, and the sums of their norms.
static void make_codes(const part *p, __local work *w, __local uchar *codes, uint items)
{
    uint N = p->s.head.n_codes;
    EACH(at, AT_ONCE * LANES)
    {
        __local const float *u = w->u + at / LANES * FOLD * p->s.D;
        float e = 0.0f;
        for (uint n = at % LANES; n < N; n += LANES) {
            float v = u[p->s.order[n]] * p->s.inverse[n];
            e = fma(v, v, e);
        }
        w->sums[0][at] = e;
    }
    SYNC;
    EACH(slot, AT_ONCE)
    {
        float q = lanes_sum(w->sums[0] + slot * LANES) * p->s.head.inv_n;
        w->inv[slot] = q < 1e-30f ? 0.0f : kvcl_recip(q * kvcl_rsqrt(q));
    }
    SYNC;
    EACH(at, AT_ONCE * LANES)
    {
        uint slot = at / LANES;
        __local const float *u = w->u + slot * FOLD * p->s.D;
        float uu = 0.0f, ll = 0.0f, ul = 0.0f;
        for (uint n = at % LANES; n < N; n += LANES) {
            uint entry = p->s.order[n], bits = 8u >> (p->s.place[entry] >> 24);
            float x = u[entry];
            float v = (x * p->s.inverse[n]) * (kvcl_spectral_unit(bits) * w->inv[slot]);
            uint code =
                bits == 8 ? (uint)kvcl_round(kvcl_clip(v)) & 255u : kvcl_quant_index(bits, v);
            float l = (float)kvcl_quant_value(bits, code) * p->s.step[n];
            codes[slot * N + n] = (uchar)code;
            uu = fma(x, x, uu);
            ll = fma(l, l, ll);
            ul = fma(x, l, ul);
        }
        w->sums[1][at] = uu;
        w->sums[2][at] = ll;
        w->sums[3][at] = ul;
    }
    SYNC;
}

// Norm of a slot, which is `slot` of those at hand and `to` of the page.
static void store_norm(const part *p, __local work *w, uint slot, uint to)
{
    float e = lanes_sum(w->sums[0] + slot * LANES), uu = lanes_sum(w->sums[1] + slot * LANES);
    float divisor = lanes_sum((p->s.of_v ? w->sums[3] : w->sums[2]) + slot * LANES);
    uint norm = kvcl_spectral_norm(&p->s, e, uu, divisor);
    ((__global ushort *)p->s.norms)[to] = (ushort)norm;
    if (kvcl_is_bad(e) || kvcl_is_bad(uu) || kvcl_bad_half(norm))
        atomic_min(&w->bad, to * FOLD);
}

// A word of the head's for one slot.
static uint word_of(const kvcl_spectral_head *h, __local const uchar *codes, uint word)
{
    uint first = 0, out = 0;
    for (uint plane = 0; plane < 4; plane++) {
        uint bits = 8u >> plane, P = 32 / bits, count = h->plane_codes[plane];
        uint from = (word - h->plane_word[plane]) * P;
        if (word >= h->plane_word[plane] && from < count)
            for (uint i = 0; i < min(P, count - from); i++)
                out |= (uint)codes[first + from + i] << kvcl_code_shift(bits, i);
        first += count;
    }
    return out;
}

static void encode(const part *p, __local work *w)
{
    uint items = (uint)get_local_size(0), N = p->s.head.n_codes;
    __local uchar *codes = (__local uchar *)w->y;
    for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += CHUNK) {
        SYNC;
        transform(p, w, t0, items);
        make_codes(p, w, codes, items);
        EACH(slot, AT_ONCE) { store_norm(p, w, slot, t0 / FOLD + slot); }
        EACH(at, AT_ONCE * p->s.n_words)
        {
            uint word = at / AT_ONCE, slot = at % AT_ONCE;
            uint made = word_of(&p->s.head, codes + slot * N, word);
            p->s.words[word * SLOTS + t0 / FOLD + slot] = made;
        }
    }
    SYNC;
}

__kernel void kvcl_spectral_enc(KVCL_SPECTRAL_PARAMS(__global const, __global), __global int *bad,
                                ulong bad_off)
{
    __local work w;
    if (get_local_id(0) == 0)
        w.bad = KVCL_TOKENS;
    for (uint of_v = 0; of_v < 2; of_v++) {
        part p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        encode(&p, &w);
    }
    if (get_local_id(0) == 0)
        bad[bad_off + get_group_id(0)] = (int)w.bad;
}

// ---- coefficients -------------------------------------------------------------------------------

// Coefficients of K or V of a head, in levels of 8 bits, to where codes of 8 bits would be.
static void store_coefs(const part *p, __local work *w, __global float *to)
{
    uint items = (uint)get_local_size(0), N = p->s.head.n_codes, slot_floats = FOLD * p->s.D;
    EACH(at, p->s.n_words * SLOTS * 4) { to[at] = 0.0f; }
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += CHUNK) {
        SYNC;
        transform(p, w, t0, items);
        EACH(at, AT_ONCE * N)
        {
            uint n = at / AT_ONCE, slot = at % AT_ONCE, entry = p->s.order[n];
            uint place = p->s.place[entry], word = place & 0xffffu, byte = place >> 19 & 3u;
            if (place >> 24 == 0)
                to[(word * SLOTS + t0 / FOLD + slot) * 4 + byte] =
                    (w->u[slot * slot_floats + entry] * p->s.inverse[n]) * 32.0f;
        }
    }
    SYNC;
}

// (pool stands for the coefficients, slots for nothing)
__kernel void kvcl_spectral_coef(KVCL_SPECTRAL_PARAMS(__global const, __global))
{
    __local work w;
    uint page = (uint)get_group_id(0) / n_kv_heads;
    for (uint of_v = 0; of_v < 2; of_v++) {
        part p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        ulong first =
            (ulong)page * (words_k + words_v) + (of_v ? words_k : 0) + p.s.head.first_word;
        store_coefs(&p, &w, (__global float *)(pool + pool_off) + first * SLOTS * 4);
    }
}

// ---- decoder ------------------------------------------------------------------------------------

static void store(const part *p, uint t, uint d, float x)
{
    uint at = p->s.of_v ? t * p->s.D + d : d * KVCL_TOKENS + t;
    if (p->type == KVCL_F16)
        vstore_half_rte(x, at, (__global half *)p->raw);
    else
        ((__global float *)p->raw)[at] = x;
}

// Coefficients of 8 tokens, [token][D]: of V, or of K in half the space.
static void coefficients(const part *p, __local int *x, uint t0, uint items)
{
    uint n = p->s.head.n_comp, D = p->s.D;
    EACH(at, AT_ONCE * n)
    {
        uint slot = at / n, i = kvcl_rest(at, slot, n);
        int c[FOLD];
        kvcl_spectral_tokens(&p->s, FOLD, p->s.of_v, i, t0 / FOLD + slot, c);
        for (uint j = 0; j < FOLD; j++) {
            uint to = (slot * FOLD + j) * D + i;
            if (p->s.of_v)
                x[to] = c[j];
            else
                ((__local short *)x)[to] = (short)c[j];
        }
    }
}

// One value of a token as it was before rotation.
static float value_of(const part *p, __local const int *x, uint t, uint d)
{
    uint D = p->s.D, n = p->s.head.n_comp;
    __global const char *s = p->s.synth + 4 * d;
    float norm = vload_half(t / FOLD, p->s.norms), h = 0.0f;
    uint from = t % CHUNK * D;
    if (p->s.of_v) {
        for (uint i = 0; i < n; i++)
            h = fma((float)s[i / 4 * D * 4 + i % 4], (float)x[from + i], h);
        return fma((p->s.head.quantum * 0.0078125f) * norm, h, p->means[d]); // 2^-7
    }
    return fma(p->s.head.quantum * norm,
               (float)kvcl_spectral_row(&p->s, (__local const short *)x + from, d), p->means[d]);
}

static void decode(const part *p, const kvcl_turning *tn, __local int *x, __local float *z)
{
    uint items = (uint)get_local_size(0), D = p->s.D;
    for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += CHUNK) {
        SYNC;
        coefficients(p, x, t0, items);
        SYNC;
        EACH(at, CHUNK * D)
        {
            uint t = at / D;
            z[at] = value_of(p, x, t0 + t, kvcl_rest(at, t, D));
        }
        SYNC;
        EACH(at, CHUNK * D)
        {
            uint t = p->s.of_v ? at / D : at % CHUNK,
                 d = p->s.of_v ? kvcl_rest(at, t, D) : at / CHUNK;
            float v = z[t * D + d];
            if (d < tn->n_rot) {
                kvcl_pair pair = kvcl_pair_of(d, tn->n_rot, tn->pairing);
                __global const float *cs = tn->table + (t0 + t) * tn->n_rot + 2 * pair.i;
                float2 turned =
                    kvcl_turn((float2)(z[t * D + pair.a], z[t * D + pair.a + pair.apart]),
                              (float2)(cs[0], cs[1]));
                v = kvcl_zero(d == pair.a ? turned.x : turned.y);
            }
            store(p, t0 + t, d, v);
        }
    }
    SYNC;
}

__kernel void kvcl_spectral_dec(KVCL_SPECTRAL_PARAMS(__global, __global const),
                                __global const float *table, ulong table_off, uint n_rot,
                                uint pairing)
{
    __local int x[CHUNK * MAX_DIM];
    __local float z[CHUNK * MAX_DIM];
    for (uint of_v = 0; of_v < 2; of_v++) {
        part p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        kvcl_turning tn = {table + table_off, of_v ? 0 : n_rot, pairing};
        if (tn.n_rot != 0)
            tn.table += (ulong)p.page * KVCL_TOKENS * n_rot;
        decode(&p, &tn, x, z);
    }
}
