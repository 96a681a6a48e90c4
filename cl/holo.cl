// holo.cl - raw pages to superposed pages, back, and attention on them; one shape for all devices.
// Twin: cpu/holo.c; rows from slots: cl/holo_pages.cl; what it shares with attention on other coded
// pages: cl/attn_rows.cl
//
// KVCL_SPEC: tokens of a slot + 16 * form.  Assumes (checked by the host half): head_dim D a
// multiple of 32, at most 256.
//
// kvcl_holo_enc: a group per page and head, an item per slot and 32 of its values.
// kvcl_holo_dec: a group per page and head, 8 tokens at a time; local memory: 8 KiB.
// kvcl_attn_holo: a group of a multiple of 64 items per block and KV head (dimension 0) and ROWS
// rows (dimension 1).  Its phases, all for the four rows: keys of 8 tokens, made once, and their
// scores; weights in place; an item per dimension makes the values of a page and sums them.
//   local memory: `mem`, laid out as in kvcl_attn_holo; its size in cl_holo.c

#define MAX_DIM 256

#define HOLO_PARAMS(IN, OUT)                                                                       \
    IN uchar *k, ulong k_off, IN uchar *v, ulong v_off, __global const int *pages,                 \
        ulong pages_off, __global const float *means, ulong means_off, __global const half *basis, \
        ulong basis_off, OUT uchar *pool, ulong pool_off, __global const int *slots,               \
        ulong slots_off, uint n_kv_heads, uint D, uint pair, uint type, float gain_k,              \
        float gain_v, uint fold_v, uint by_block, uint first_page, uint type_k, uint type_v

// A layer's pages, and views that may be absent past their offsets.
#define HOLO_BEGIN                                                                           \
    kvcl_holo h = {n_kv_heads, D, pair, type, gain_k, gain_v, fold_v, by_block};             \
    uint i = (uint)get_group_id(0) / n_kv_heads;                                             \
    uint hk = kvcl_rest((uint)get_group_id(0), i, n_kv_heads);                               \
    ulong head = ((ulong)pages[pages_off + i] * n_kv_heads + hk) * (ulong)(D * KVCL_TOKENS); \
    uint items = (uint)get_local_size(0);                                                    \
    means = means ? means + means_off : means;                                               \
    basis = basis ? basis + basis_off : basis;

static uint raw_at(uint of_v, uint D, uint t, uint d)
{
    return of_v ? t * D + d : d * KVCL_TOKENS + t;
}

// A head's rows of a raw page.
typedef struct raw_rows {
    __global const uchar *first;
    uint type, of_v, n_skip; // n_skip: tokens that count as nothing
} raw_rows;

static float centred(const raw_rows *r, const kvcl_holo_part *p, uint t, uint d)
{
    float x = kvcl_raw_load(r->type, r->first, raw_at(r->of_v, p->D, t, d));
    return p->mean ? x - p->mean[d] : x;
}

// Component i of a token.
static float component(const raw_rows *r, const kvcl_holo_part *p, uint t, uint i)
{
    float a = 0.0f;
    if (t < r->n_skip)
        return 0.0f;
    if (FORM < KVCL_HOLO_CHIPS)
        return centred(r, p, t, i);
    for (uint d = 0; d < p->D; d += 4) { // four a round: see kvcl_holo_rows
        a = fma(vload_half(i * p->D + d, p->matrix), centred(r, p, t, d), a);
        a = fma(vload_half(i * p->D + d + 1, p->matrix), centred(r, p, t, d + 1), a);
        a = fma(vload_half(i * p->D + d + 2, p->matrix), centred(r, p, t, d + 2), a);
        a = fma(vload_half(i * p->D + d + 3, p->matrix), centred(r, p, t, d + 3), a);
    }
    return a;
}

// Values 32 b .. 32 b + 31 of a slot.
static void superpose(const raw_rows *r, const kvcl_holo_part *p, uint slot, uint b, float *x)
{
    for (uint e = 0; FORM == KVCL_HOLO_SIDE && e < 32; e++) {
        uint m = 32 * b + e, j = m / p->n_comp;
        x[e] = kvcl_zero(component(r, p, slot * p->fold + j, kvcl_rest(m, j, p->n_comp)));
    }
    for (uint e = 0; FORM != KVCL_HOLO_SIDE && e < 32; e += CHIPS) {
        uint i = (32 * b + e) / CHIPS;
        float a[FOLD];
        for (uint j = 0; j < FOLD; j++)
            a[j] = component(r, p, slot * FOLD + j, i);
        for (uint c = 0; c < CHIPS; c++) {
            uint of = kvcl_holo_class(p, i, c);
            float sum = 0.0f;
            for (uint j = 0; j < FOLD; j++)
                sum += kvcl_holo_minus(j, of) ? -a[j] : a[j];
            x[e + c] = kvcl_zero(sum);
        }
    }
}

// Stores them; true when one is not finite or fits no slot.
static uint store_values(const kvcl_holo_part *p, uint slot, uint b, const float *x)
{
    __global uchar *row = p->slots + slot * p->row_bytes;
    uint bad = 0;
    if (p->type != KVCL_F16)
        return kvcl_block_encode(KVCL_Q8_0, x, row + b * kvcl_block_bytes(KVCL_Q8_0));
    for (uint e = 0; e < 32; e++) {
        uint bits = kvcl_half_store(x[e]);
        ((__global ushort *)row)[32 * b + e] = (ushort)bits;
        bad |= kvcl_bad_half(bits);
    }
    return bad;
}

__kernel void kvcl_holo_enc(HOLO_PARAMS(__global const, __global), uint n_skip, __global int *bad,
                            ulong bad_off)
{
    __local uint first_bad;
    HOLO_BEGIN
    uint page = first_page + i;
    if (get_local_id(0) == 0)
        first_bad = KVCL_TOKENS;
    SYNC;
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_holo_part p = kvcl_holo_of(&h, basis, means, pool + pool_off,
                                        (ulong)slots[slots_off + i], page, of_v, hk);
        raw_rows r;
        r.type = of_v ? type_v : type_k;
        r.of_v = of_v;
        r.n_skip = page == 0 ? n_skip : 0;
        r.first = (of_v ? v + v_off : k + k_off) + head * (r.type == KVCL_F16 ? 2 : 4);
        EACH(u, KVCL_TOKENS / p.fold * (D / 32))
        {
            uint b = u / (KVCL_TOKENS / p.fold), slot = kvcl_rest(u, b, KVCL_TOKENS / p.fold);
            float x[32];
            superpose(&r, &p, slot, b, x);
            if (store_values(&p, slot, b, x))
                atomic_min(&first_bad, slot * p.fold);
        }
    }
    SYNC;
    if (get_local_id(0) == 0)
        bad[bad_off + get_group_id(0)] = (int)first_bad;
}

__kernel void kvcl_holo_dec(HOLO_PARAMS(__global, __global const), __global const float *table,
                            ulong table_off, uint n_rot, uint pairing)
{
    __local float tile[MAX_DIM * TILE];
    HOLO_BEGIN
    uint page = first_page + i;
    for (uint of_v = 0; of_v < 2; of_v++) {
        kvcl_holo_part p = kvcl_holo_of(&h, basis, means, (__global uchar *)pool + pool_off,
                                        (ulong)slots[slots_off + i], page, of_v, hk);
        kvcl_turning tn = {table, of_v ? 0 : n_rot, pairing};
        if (tn.n_rot != 0)
            tn.table += table_off + (ulong)page * KVCL_TOKENS * n_rot;
        uint raw_type = of_v ? type_v : type_k;
        __global uchar *to = (of_v ? v + v_off : k + k_off) + head * (raw_type == KVCL_F16 ? 2 : 4);
        for (uint t0 = 0; t0 < KVCL_TOKENS; t0 += TILE) {
            kvcl_holo_tile(&p, &tn, t0, tile, items);
            EACH(u, D * TILE)
            {
                uint at = raw_at(of_v, D, t0 + u % TILE, u / TILE);
                float x = kvcl_zero(tile[u]);
                if (raw_type == KVCL_F16)
                    vstore_half_rte(x, at, (__global half *)to);
                else
                    ((__global float *)to)[at] = x;
            }
            SYNC;
        }
    }
}

// ---- attention ----------------------------------------------------------------------------------

// Scores of the page in lane c.
static void scores_page(place w, const kvcl_holo_part *p, const kvcl_turning *tn,
                        __local float *keys, uint c, uint items)
{
    for (uint t0 = 0; t0 < TOKENS; t0 += TILE) {
        kvcl_holo_tile(p, tn, t0, keys, items);
        EACH(at, ROWS * TILE)
        {
            uint r = at / TILE, t = at % TILE;
            float sum = 0.0f;
            __local const float *x = w.qs + r * p->D, *k = keys + t;
            for (uint d = 0; d < p->D; d += 4, x += 4, k += 4 * TILE) {
                sum = fma(x[0], k[0], sum);
                sum = fma(x[1], k[TILE], sum);
                sum = fma(x[2], k[2 * TILE], sum);
                sum = fma(x[3], k[3 * TILE], sum);
            }
            ((__local float *)w.s)[(c * TOKENS + t0 + t) * ROWS + r] = kvcl_zero(sum);
        }
        SYNC;
    }
}

// One dimension of the rows' outputs of the page in lane c, times the page's weights.
static void values_page(place w, const kvcl_holo_part *p, uint c, uint d, float *out)
{
    float8 a[ROWS];
    for (uint r = 0; r < ROWS; r++)
        a[r] = (float8)(0.0f);
    for (uint t0 = 0; t0 < TOKENS; t0 += TILE) {
        float8 x = kvcl_holo_rows(p, t0, d);
        for (uint r = 0; r < ROWS; r++) {
            float weights[TILE];
            for (uint t = 0; t < TILE; t++)
                weights[t] = ((__local float *)w.s)[(c * TOKENS + t0 + t) * ROWS + r];
            a[r] = fma(vload8(0, weights), x, a[r]);
        }
    }
    for (uint r = 0; r < ROWS; r++)
        out[r] = STAT(INVERSE, c, r) * kvcl_tree8(a[r]);
}

// Step i of the halving tree over pages, whose order is kvcl_tree_page's; at [3]: sums that wait,
// `pitch` apart, in the end the whole.
static void add_page(__local float *at, uint pitch, uint i, float x)
{
    if (i & 1)
        x = at[2 * pitch] + x;
    if ((i & 3) == 3)
        x = at[pitch] + x;
    if (i == 7)
        x = at[0] + x;
    at[((i & 1) == 0 ? 2 : (i & 3) == 3 ? 0 : 1) * pitch] = x;
}

__kernel void kvcl_attn_holo(KVCL_ATTN_QUANT_PARAMS, __global const half *basis, ulong basis_off,
                             uint pair, uint type, float gain_k, float gain_v, uint fold_v,
                             uint by_block, __local float4 *mem)
{
    kvcl_holo h = {n_kv_heads, D, pair, type, gain_k, gain_v, fold_v, by_block};
    uint items = (uint)get_local_size(0);
    uint G = n_q_heads / n_kv_heads, row0 = (uint)get_group_id(1) * ROWS;
    kvcl_block b = kvcl_block_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    // pages behind the last row's query stay out, but one (as in cl/attn_quant.cl)
    b.last = min(b.last, (pos0 + (min(row0 + ROWS, n * G) - 1) / G) / TOKENS);
    uint n_pages = b.last < b.first ? 1 : b.last - b.first + 1;
    uint c0 = b.first % PAGES, c1 = c0 + n_pages - 1;
    means = means ? means + means_off : means;
    basis = basis ? basis + basis_off : basis;
    pages += pages_off + b.first - begin / TOKENS - c0;
    place w;
    w.s = mem;
    w.qs = (__local float *)(w.s + PAGES * TOKENS);
    w.red = w.qs + ROWS * D;
    w.stat = w.red + PAGES * ROWS * L;
    __local float *keys = w.stat + 6 * PAGES * ROWS, *waits = keys; // one after the other
    load_rows(w, q + q_off, q_stride, b.hk, row0, n * G, G, D, scale, items);
    SYNC;
    for (uint c = c0; c <= c1; c++) {
        uint page = b.first + c - c0;
        kvcl_holo_part p = kvcl_holo_of(&h, basis, means, (__global uchar *)pool + pool_off,
                                        (ulong)pages[c], page, 0, b.hk);
        kvcl_turning tn = {table, n_rot, pairing};
        if (tn.n_rot != 0)
            tn.table += table_off + (ulong)page * TOKENS * n_rot;
        scores_page(w, &p, &tn, keys, c, items);
    }
    weights(w, b, c0, c1, row0, G, n, pos0, begin, end, items);
    block_stats(w, c0, c1, items);
    // the tree's sums wait where the keys were, each item's own
    for (uint i = 0; i < PAGES; i++) {
        uint c = kvcl_tree_page(i), there = c >= c0 && c <= c1;
        kvcl_holo_part p =
            kvcl_holo_of(&h, basis, means, (__global uchar *)pool + pool_off,
                         there ? (ulong)pages[c] : 0, there ? b.first + c - c0 : 0, 1, b.hk);
        EACH(d, D)
        {
            float out[ROWS] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (there)
                values_page(w, &p, c, d, out);
            for (uint r = 0; r < ROWS; r++)
                add_page(waits + r * D + d, ROWS * D, i, out[r]);
        }
    }
    SYNC;
    EACH(at, ROWS * D)
    {
        uint r = at / D, d = kvcl_rest(at, r, D), row = row0 + r, query = row / G;
        if (row >= n * G || STAT(M, 0, r) == -INFINITY)
            continue;
        ulong to =
            ((ulong)query * n_q_heads + b.hk * G + kvcl_rest(row, query, G)) * n_parts + b.part;
        o[o_off + to * D + d] = kvcl_zero(waits[at]);
        if (d == 0)
            vstore2((float2)(STAT(M, 0, r), STAT(SUM, 0, r)), to, ml + ml_off);
    }
}
