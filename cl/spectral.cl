// spectral.cl - raw pages to spectral pages and back.  Twin: cpu/spectral.c; parts of a basis and
// of a page: cl/spectral_pages.cl
//
// KVCL_SPEC: tokens of a slot.  Assumes (checked by the host half): head_dim D a multiple of 32, at
// most 256.  A group per page and head, K then V, whole slots at a time: of 8 tokens (decoder) or
// of `chunk`, 8, 16 or 32 as the device's local memory allows (encoder).
//   local memory: `mem`, 4 (D (2 chunk + 4) + 4 LANES chunk / FOLD) + 2 D FOLD bytes, and 1 KiB
//   (encoder);
//   17 KiB (decoder)

#define FOLD KVCL_SPEC
#define SLOTS (KVCL_TOKENS / FOLD)
#define MAX_DIM 256
#define CHUNK 8                // decoder: tokens at a time
#define AT_ONCE (CHUNK / FOLD) // and slots
#define MAX_CHUNK 32           // encoder: tokens at a time
#define LANES 16               // of sums over a slot's codes
#define EACH(at, count) for (uint at = (uint)get_local_id(0); at < (count); at += items)
#define SYNC barrier(CLK_LOCAL_MEM_FENCE)

typedef kvcl_spectral_page part;

static float raw_value(const part *p, uint t, uint d)
{
    uint at = kvcl_spectral_raw_at(p, t, d);
    return p->type == KVCL_F16 ? vload_half(at, (__global const half *)p->raw)
                               : ((__global const float *)p->raw)[at];
}

// ---- encoder ------------------------------------------------------------------------------------

typedef struct work {
    __local float4 *y;         // [D][chunk / 4 + 1]: rows around their mean; then codes
    __local float *u;          // [slot][entry]
    __local float *sums;       // [4][slot][LANES]
    __local ushort *order;     // [D FOLD]: entry of each code
    __local float *inv;        // [slot]
    __local float *thresholds; // [plane][16], of less than 8 bits
    __local int *levels;       // [plane][16], likewise
    __local uint *bad;
    uint chunk, slots; // tokens and slots at a time
} work;

// The parts of `mem`, for `chunk` tokens at a time.
static void place_work(work *w, __local float4 *mem, uint D, uint chunk)
{
    w->y = mem;
    w->u = (__local float *)(mem + D * (chunk / 4 + 1));
    w->sums = w->u + D * chunk;
    w->chunk = chunk;
    w->slots = chunk / FOLD;
    w->order = (__local ushort *)(w->sums + 4 * LANES * w->slots);
}

// Sum of the lanes of a slot.
static float lanes_sum(__local const float *lanes)
{
    float a[8];
    for (uint j = 0; j < 8; j++)
        a[j] = lanes[j] + lanes[j + 8];
    return kvcl_tree8(vload8(0, a));
}

// Levels and the thresholds below them.
static void make_tables(const work *w, uint items)
{
    EACH(at, 64)
    {
        uint bits = 8u >> at / 16, i = at % 16 % (1u << bits);
        w->levels[at] = kvcl_quant_level(bits, i);
        w->thresholds[at] = i > 0 && bits < 8 ? kvcl_threshold(bits, i) : 0.0f;
    }
}

// Rows from token t0 on around their mean.
static void load_values(const part *p, const work *w, uint t0, uint items)
{
    uint D = p->s.D, pitch = w->chunk + 4;
    __local float *y = (__local float *)w->y;
    EACH(at, w->chunk * D)
    {
        uint row = p->s.of_v ? at / D : at / w->chunk;
        uint rest = kvcl_rest(at, row, p->s.of_v ? D : w->chunk);
        uint t = p->s.of_v ? row : rest, d = p->s.of_v ? rest : row;
        y[d * pitch + t] = t0 + t < p->n_skip ? 0.0f : raw_value(p, t0 + t, d) - p->means[d];
    }
}

// Coefficients of the rows, an item four components of four tokens, transformed across each slot's.
static void transform(const part *p, const work *w, uint items)
{
    uint D = p->s.D, n = p->s.head.n_comp, across = w->chunk / 4;
    EACH(at, across * (n / 4))
    {
        uint quad = at / across, four = kvcl_rest(at, quad, across);
        __global const uint *e = (__global const uint *)p->s.analysis + quad * D;
        float4 c[4];
        for (uint i = 0; i < 4; i++)
            c[i] = (float4)(0.0f);
        for (uint d = 0; d < D; d++) {
            float4 y = w->y[d * (across + 1) + four], weight = convert_float4(as_char4(e[d]));
            c[0] = fma((float4)(weight.x), y, c[0]);
            c[1] = fma((float4)(weight.y), y, c[1]);
            c[2] = fma((float4)(weight.z), y, c[2]);
            c[3] = fma((float4)(weight.w), y, c[3]);
        }
        __local float *u = w->u + 4 * (four * D + quad);
        for (uint i = 0; i < 4; i++) {
            u[i] = c[i].x;
            u[D + i] = c[i].y;
            u[2 * D + i] = c[i].z;
            u[3 * D + i] = c[i].w;
        }
    }
    SYNC;
    EACH(at, FOLD > 1 ? w->slots * n : 0)
    {
        uint slot = at / n;
        __local float *u = w->u + slot * FOLD * D + kvcl_rest(at, slot, n);
        float c[FOLD];
        for (uint j = 0; j < FOLD; j++)
            c[j] = u[j * D];
        for (uint h = 1; h < FOLD; h *= 2)
            for (uint j = 0; j < FOLD; j++)
                if ((j & h) == 0)
                    KVCL_BUTTERFLY(float, c[j], c[j + h])
        for (uint r = 0; r < FOLD; r++)
            u[r * D] = c[r];
    }
    SYNC;
}

// The entry of each code.
static void make_order(const part *p, const work *w, uint items)
{
    EACH(entry, FOLD * p->s.D)
    {
        uint place = kvcl_spectral_place(&p->s, entry);
        if (place != KVCL_NO_PLACE)
            w->order[kvcl_spectral_number(&p->s, place)] = (ushort)entry;
    }
}

// Plane of code n.
static uint plane_of(const kvcl_spectral_head *h, uint n)
{
    uint first = h->plane_codes[0], plane = n >= first;
    first += h->plane_codes[1];
    plane += n >= first;
    return plane + (n >= first + h->plane_codes[2]);
}

static uint code_of(const work *w, uint plane, float v)
{
    uint code = 0;
    if (plane == 0)
        return (uint)kvcl_round(kvcl_clip(v)) & 255u;
    for (uint h = (1u << (8u >> plane)) / 2; h > 0; h /= 2)
        code += v > w->thresholds[16 * plane + code + h] ? h : 0;
    return code;
}

// Codes of the slots at hand, a byte each, and the sums of their norms.
static void make_codes(const part *p, const work *w, __local uchar *codes, uint items)
{
    uint N = p->s.head.n_codes, n_sums = w->slots * LANES;
    EACH(at, n_sums)
    {
        __local const float *u = w->u + at / LANES * FOLD * p->s.D;
        float e = 0.0f;
        for (uint n = at % LANES; n < N; n += LANES) {
            float v = u[w->order[n]] * kvcl_recip(p->s.amp[w->order[n]]);
            e = fma(v, v, e);
        }
        w->sums[at] = e;
    }
    SYNC;
    EACH(slot, w->slots)
    {
        float q = lanes_sum(w->sums + slot * LANES) * p->s.head.inv_n;
        w->inv[slot] = q < 1e-30f ? 0.0f : kvcl_recip(q * kvcl_rsqrt(q));
    }
    SYNC;
    EACH(at, w->slots * N)
    {
        uint slot = at / N, n = kvcl_rest(at, slot, N), plane = plane_of(&p->s.head, n);
        float x = w->u[slot * FOLD * p->s.D + w->order[n]];
        float v = (x * kvcl_recip(p->s.amp[w->order[n]])) *
                  (kvcl_spectral_unit(8u >> plane) * w->inv[slot]);
        codes[at] = (uchar)code_of(w, plane, v);
    }
    SYNC;
    EACH(at, n_sums)
    {
        uint slot = at / LANES;
        __local const float *u = w->u + slot * FOLD * p->s.D;
        float uu = 0.0f, ll = 0.0f, ul = 0.0f;
        for (uint n = at % LANES; n < N; n += LANES) {
            uint plane = plane_of(&p->s.head, n), code = codes[slot * N + n];
            int level = plane == 0 ? (int)(code ^ 128u) - 128 : w->levels[16 * plane + code];
            float down = kvcl_recip(kvcl_spectral_unit(8u >> plane)), x = u[w->order[n]];
            float l = (float)level * (p->s.amp[w->order[n]] * down);
            uu = fma(x, x, uu);
            ll = fma(l, l, ll);
            ul = fma(x, l, ul);
        }
        w->sums[n_sums + at] = uu;
        w->sums[2 * n_sums + at] = ll;
        w->sums[3 * n_sums + at] = ul;
    }
    SYNC;
}

// Norm of a slot, which is `slot` of those at hand and `to` of the page.
static void store_norm(const part *p, const work *w, uint slot, uint to)
{
    uint n_sums = w->slots * LANES;
    __local const float *sums = w->sums + slot * LANES;
    float e = lanes_sum(sums), uu = lanes_sum(sums + n_sums);
    uint norm = kvcl_spectral_norm(&p->s, e, uu, lanes_sum(sums + (p->s.of_v ? 3 : 2) * n_sums));
    ((__global ushort *)p->s.norms)[to] = (ushort)norm;
    if (kvcl_is_bad(e) || kvcl_is_bad(uu) || kvcl_bad_half(norm))
        atomic_min(w->bad, to * FOLD);
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

static void encode(const part *p, const work *w, uint items)
{
    uint N = p->s.head.n_codes;
    __local uchar *codes = (__local uchar *)w->y;
    make_order(p, w, items);
    for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += w->chunk) {
        SYNC;
        load_values(p, w, t0, items);
        SYNC;
        transform(p, w, items);
        make_codes(p, w, codes, items);
        EACH(slot, w->slots) { store_norm(p, w, slot, t0 / FOLD + slot); }
        EACH(at, w->slots * p->s.n_words)
        {
            uint word = at / w->slots, slot = kvcl_rest(at, word, w->slots);
            uint made = word_of(&p->s.head, codes + slot * N, word);
            p->s.words[word * SLOTS + t0 / FOLD + slot] = made;
        }
    }
    SYNC;
}

__kernel void kvcl_spectral_enc(KVCL_SPECTRAL_PARAMS(__global const, __global), __global int *bad,
                                ulong bad_off, uint chunk, __local float4 *mem)
{
    __local float inv[MAX_CHUNK], thresholds[64];
    __local int levels[64];
    __local uint bad_token;
    uint items = (uint)get_local_size(0);
    work w;
    place_work(&w, mem, D, chunk);
    w.inv = inv;
    w.thresholds = thresholds;
    w.levels = levels;
    w.bad = &bad_token;
    if (get_local_id(0) == 0)
        bad_token = KVCL_TOKENS;
    make_tables(&w, items);
    for (uint of_v = 0; of_v < 2; of_v++) {
        part p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        encode(&p, &w, items);
    }
    if (get_local_id(0) == 0)
        bad[bad_off + get_group_id(0)] = (int)bad_token;
}

// ---- coefficients -------------------------------------------------------------------------------

// Coefficients of K or V of a head, in levels of 8 bits, to where codes of 8 bits would be.
static void store_coefs(const part *p, const work *w, __global float *to, uint items)
{
    uint slot_floats = FOLD * p->s.D;
    EACH(at, p->s.n_words * SLOTS * 4) { to[at] = 0.0f; }
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += w->chunk) {
        SYNC;
        load_values(p, w, t0, items);
        SYNC;
        transform(p, w, items);
        EACH(at, w->slots * slot_floats)
        {
            uint entry = at / w->slots, slot = kvcl_rest(at, entry, w->slots);
            uint place = kvcl_spectral_place(&p->s, entry);
            uint word = place & 0xffffu, byte = place >> 19 & 3u;
            if (place >> 24 == 0)
                to[(word * SLOTS + t0 / FOLD + slot) * 4 + byte] =
                    (w->u[slot * slot_floats + entry] * kvcl_recip(p->s.amp[entry])) * 32.0f;
        }
    }
    SYNC;
}

// (pool stands for the coefficients, slots for nothing)
__kernel void kvcl_spectral_coef(KVCL_SPECTRAL_PARAMS(__global const, __global), uint chunk,
                                 __local float4 *mem)
{
    uint items = (uint)get_local_size(0), page = (uint)get_group_id(0) / n_kv_heads;
    work w;
    place_work(&w, mem, D, chunk);
    for (uint of_v = 0; of_v < 2; of_v++) {
        part p;
        kvcl_spectral_page_of(&p, (uint)get_group_id(0), of_v, KVCL_SPECTRAL_ARGS);
        ulong first =
            (ulong)page * (words_k + words_v) + (of_v ? words_k : 0) + p.s.head.first_word;
        store_coefs(&p, &w, (__global float *)(pool + pool_off) + first * SLOTS * 4, items);
    }
}

// ---- decoder ------------------------------------------------------------------------------------

static void store(const part *p, uint t, uint d, float x)
{
    uint at = kvcl_spectral_raw_at(p, t, d);
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
    float norm = vload_half(t / FOLD, p->s.norms), h = 0.0f;
    uint from = t % CHUNK * D;
    if (p->s.of_v) {
        for (uint i = 0; i < n; i += 4) { // (four a round: see kvcl_spectral_row)
            float4 weight = convert_float4(vload4(i / 4 * D + d, p->s.synth));
            h = fma(weight.x, (float)x[from + i], h);
            h = fma(weight.y, (float)x[from + i + 1], h);
            h = fma(weight.z, (float)x[from + i + 2], h);
            h = fma(weight.w, (float)x[from + i + 3], h);
        }
        return kvcl_zero(fma((p->s.head.quantum * 0.0078125f) * norm, h, p->means[d])); // 2^-7
    }
    float sum = (float)kvcl_spectral_row(&p->s, (__local const short *)x + from, d);
    return kvcl_zero(fma(p->s.head.quantum * norm, sum, p->means[d]));
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
            uint of_head = d; // (no rest of a division: see kvcl_rest)
            while (of_head >= p->raw_dim)
                of_head -= p->raw_dim;
            float v = z[t * D + d];
            if (of_head < tn->n_rot) {
                kvcl_pair pair = kvcl_pair_of(of_head, tn->n_rot, tn->pairing);
                __global const float *cs = tn->table + (t0 + t) * tn->n_rot + 2 * pair.i;
                uint a = t * D + d - of_head + pair.a;
                float2 turned =
                    kvcl_turn((float2)(z[a], z[a + pair.apart]), (float2)(cs[0], cs[1]));
                v = kvcl_zero(of_head == pair.a ? turned.x : turned.y);
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
