// holo_pages.cl - superposed pages (engine/ops_holo.h): where one head's slots are, rows of tokens
// from them, eight tokens at a time.  Twin: cpu/holo.c
//
// KVCL_SPEC: tokens of a slot + 16 * form.

#define FOLD (KVCL_SPEC & 15)
#define FORM (KVCL_SPEC >> 4)
#define KVCL_HOLO_MATRIX 1 // of kvcl_holo_form
#define KVCL_HOLO_CHIPS 2
#define KVCL_HOLO_SIDE 3
#define CHIPS (FORM == KVCL_HOLO_CHIPS ? FOLD : 1) // of a component
#define TILE 8                                     // tokens that are made together: whole slots

// What all parts of a layer's pages have alike.
typedef struct kvcl_holo {
    uint n_kv_heads, D, pair, type;
    float gain_k, gain_v;
    uint fold_v, by_block;
} kvcl_holo;

// K or V of one head in a page.
typedef struct kvcl_holo_part {
    __global const half *matrix; // [n_comp][D]; NULL: none
    __global const float *mean;  // [D]; NULL: none
    __global uchar *slots;       // rows of row_bytes
    uint row_bytes, type, D, n_comp, pair;
    uint fold; // FOLD but for V's components side by side
    float gain;
} kvcl_holo_part;

// In slot `slot` of the pool, which is page `page` of the sequence.
static kvcl_holo_part kvcl_holo_of(const kvcl_holo *h, __global const half *basis,
                                   __global const float *means, __global uchar *pool, ulong slot,
                                   uint page, uint of_v, uint hk)
{
    kvcl_holo_part p;
    uint n_k = FORM >= KVCL_HOLO_CHIPS ? h->D / FOLD : h->D;
    uint n_v = FORM >= KVCL_HOLO_CHIPS ? h->D / h->fold_v : h->D;
    p.type = h->type;
    p.D = h->D;
    p.fold = of_v ? h->fold_v : FOLD;
    p.n_comp = of_v ? n_v : n_k;
    p.pair = h->pair;
    p.gain = of_v ? h->gain_v : h->gain_k;
    p.row_bytes = h->type == KVCL_F16 ? 2 * h->D : h->D / 32 * kvcl_block_bytes(KVCL_Q8_0);
    // rows of a page that stand before the head's
    uint rows_k = KVCL_TOKENS / FOLD, rows_v = KVCL_TOKENS / h->fold_v;
    uint rows = of_v ? h->n_kv_heads * rows_k + hk * rows_v : hk * rows_k;
    p.slots = pool + (slot * ((rows_k + rows_v) * h->n_kv_heads) + rows) * p.row_bytes;
    p.mean = means ? means + kvcl_quant_mean_at(page, of_v, h->n_kv_heads, hk, h->D) : means;
    uint before = h->by_block ? page / KVCL_BLOCK * (n_k + n_v) * h->n_kv_heads : 0;
    before += of_v ? n_k * h->n_kv_heads + hk * n_v : hk * n_k;
    p.matrix = basis ? basis + (ulong)before * h->D : basis;
    return p;
}

// Class of chip c of component i, by which kvcl_holo_minus knows a token's sign.
static uint kvcl_holo_class(const kvcl_holo_part *p, uint i, uint c)
{
    return CHIPS > 1 ? c : i / p->pair % FOLD;
}

// Value m of a row.
static float kvcl_holo_value(const kvcl_holo_part *p, __global const uchar *row, uint m)
{
    return p->type == KVCL_F16 ? vload_half(m, (__global const half *)row)
                               : kvcl_block_value(KVCL_Q8_0, row, m);
}

// Component i of the tokens t0 .. t0 + 7.
static float8 kvcl_holo_components(const kvcl_holo_part *p, uint t0, uint i)
{
    float z[TILE];
    if (FORM == KVCL_HOLO_SIDE) {
        for (uint t = 0; t < TILE; t++) {
            uint s = (t0 + t) / p->fold, j = kvcl_rest(t0 + t, s, p->fold);
            z[t] = kvcl_holo_value(p, p->slots + s * p->row_bytes, j * p->n_comp + i);
        }
        return vload8(0, z);
    }
    __global const uchar *row = p->slots + t0 / FOLD * p->row_bytes;
    for (uint s = 0; s < TILE; s += FOLD, row += p->row_bytes) {
        for (uint j = 0; j < FOLD; j++)
            z[s + j] = 0.0f;
        if (CHIPS == 1) {
            float value = kvcl_holo_value(p, row, i);
            for (uint j = 0; j < FOLD; j++)
                z[s + j] = kvcl_holo_minus(j, i / p->pair % FOLD) ? -value : value;
        } else {
            for (uint c = 0; c < FOLD; c++) {
                float value = kvcl_holo_value(p, row, i * FOLD + c);
                for (uint j = 0; j < FOLD; j++)
                    z[s + j] += kvcl_holo_minus(j, c) ? -value : value;
            }
        }
    }
    return vload8(0, z);
}

// Adds component i of eight tokens to dimension d of their rows.
static float8 kvcl_holo_add(const kvcl_holo_part *p, uint t0, uint d, uint i, float8 r)
{
    return fma((float8)(vload_half(i * p->D + d, p->matrix)), kvcl_holo_components(p, t0, i), r);
}

// Dimension d of the rows of tokens t0 .. t0 + 7, as they were coded.  (Long loops do four steps a
// round: llvmpipe ends all loops of an item that went round 65,535 times.)
static float8 kvcl_holo_rows(const kvcl_holo_part *p, uint t0, uint d)
{
    float8 r = (float8)(0.0f);
    if (FORM < KVCL_HOLO_MATRIX)
        r = kvcl_holo_components(p, t0, d);
    for (uint i = 0; FORM >= KVCL_HOLO_MATRIX && i < p->n_comp; i += 4) {
        r = kvcl_holo_add(p, t0, d, i, r);
        r = kvcl_holo_add(p, t0, d, i + 1, r);
        r = kvcl_holo_add(p, t0, d, i + 2, r);
        r = kvcl_holo_add(p, t0, d, i + 3, r);
    }
    return fma((float8)(p->gain), r, (float8)(p->mean ? p->mean[d] : 0.0f));
}

// Rows of tokens t0 .. t0 + 7 to out [D][8], turned, by all items of a group.
static void kvcl_holo_tile(const kvcl_holo_part *p, const kvcl_turning *tn, uint t0,
                           __local float *out, uint items)
{
    EACH(d, p->D) { vstore8(kvcl_holo_rows(p, t0, d), d, out); }
    SYNC;
    EACH(at, tn->n_rot / 2 * TILE)
    {
        uint i = at / TILE, t = at % TILE;
        kvcl_pair pair =
            kvcl_pair_of(tn->pairing == KVCL_ROPE_HALVES ? i : 2 * i, tn->n_rot, tn->pairing);
        uint a = pair.a * TILE + t, b = (pair.a + pair.apart) * TILE + t;
        float2 v = kvcl_turn((float2)(out[a], out[b]), vload2(i, tn->table + (t0 + t) * tn->n_rot));
        out[a] = kvcl_zero(v.x);
        out[b] = kvcl_zero(v.y);
    }
    SYNC;
}
