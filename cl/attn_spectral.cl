// attn_spectral.cl - attention by block partials over spectral pages.  Twin: cpu/attn_spectral.c;
// what it shares with quant pages: cl/attn_rows.cl; parts of a basis and of a page:
// cl/spectral_pages.cl; NVIDIA's tensor cores: cl/attn_spectral_mma.cl
//
// KVCL_SPEC: tokens of a slot.  Assumes (checked by the host half): head_dim D a multiple of 32, at
// most 256.
//
// kvcl_attn_spectral: a group of a multiple of 64 items per block and KV head (dimension 0) and
// ROWS rows (dimension 1).  Its phases, all for the four rows: keys of a tile of tokens, made once,
// and their scores; weights, folded, to integers in place; values, an item per component and pair
// of rows; output.
//   local memory: `mem`, laid out as in kvcl_attn_spectral; its size in cl_attn_spectral.c

#define LOG_TILE (D > 128 ? 3u : 4u) // tokens whose keys are in local memory together
#define TILE (1u << LOG_TILE)

// Keys of tokens t0 .. t0 + TILE - 1 of a page to keys [D][TILE], turned; x [TILE][D]: room.
static void make_keys(const kvcl_spectral_part *p, __local short *x, __local float *keys, uint t0,
                      __global const float *mean, __global const float *table, uint n_rot,
                      uint pairing, uint items)
{
    uint D = p->D, n = p->head.n_comp;
    EACH(at, TILE / FOLD * n)
    {
        uint slot = at / n, i = kvcl_rest(at, slot, n);
        int c[FOLD];
        kvcl_spectral_tokens(p, FOLD, 0, i, t0 / FOLD + slot, c);
        for (uint j = 0; j < FOLD; j++)
            x[(slot * FOLD + j) * D + i] = (short)c[j];
    }
    SYNC;
    EACH(at, TILE * D)
    {
        uint d = at >> LOG_TILE, t = at & (TILE - 1);
        float step = p->head.quantum * vload_half((t0 + t) / FOLD, p->norms);
        keys[at] = fma(step, (float)kvcl_spectral_row(p, x + t * D, d), mean[d]);
    }
    SYNC;
    EACH(at, TILE * (n_rot / 2))
    {
        uint i = at >> LOG_TILE, t = at & (TILE - 1);
        kvcl_pair pair = kvcl_pair_of(pairing == KVCL_ROPE_HALVES ? i : 2 * i, n_rot, pairing);
        uint a = pair.a * TILE + t, b = (pair.a + pair.apart) * TILE + t;
        float2 v = kvcl_turn((float2)(keys[a], keys[b]), vload2(i, table + (t0 + t) * n_rot));
        keys[a] = v.x;
        keys[b] = v.y;
    }
    SYNC;
}

// Scores of the page in lane c.
static void scores_page(place w, const kvcl_spectral_part *p, __local short *x, __local float *keys,
                        uint c, uint page, __global const float *mean, __global const float *table,
                        uint n_rot, uint pairing, uint items)
{
    uint D = p->D;
    turn_rows(w, page, D, table, n_rot, pairing, items);
    for (uint t0 = 0; t0 < TOKENS; t0 += TILE) {
        make_keys(p, x, keys, t0, mean, table, n_rot, pairing, items);
        EACH(at, ROWS * TILE)
        {
            uint r = at >> LOG_TILE, t = at & (TILE - 1);
            __local const float *qp = (__local const float *)w.qp + r;
            float sum = 0.0f;
            for (uint d = 0; d < D; d += 4) { // (four a round: see kvcl_spectral_row)
                sum = fma(qp[d * ROWS], keys[d * TILE + t], sum);
                sum = fma(qp[(d + 1) * ROWS], keys[(d + 1) * TILE + t], sum);
                sum = fma(qp[(d + 2) * ROWS], keys[(d + 2) * TILE + t], sum);
                sum = fma(qp[(d + 3) * ROWS], keys[(d + 3) * TILE + t], sum);
            }
            ((__local float *)w.s)[(c * TOKENS + t0 + t) * ROWS + r] = kvcl_zero(sum);
        }
        SYNC;
    }
}

// z[i] of rows r and r + 1: tree over the block's pages of weighted sums.
static float2 values2(place w, const kvcl_spectral_part *p, __global const uint *const *words,
                      uint c0, uint c1, uint i, uint r)
{
    float z0[PAGES], z1[PAGES];
    for (uint c = 0; c < PAGES; c++) {
        z0[c] = z1[c] = 0.0f;
        if (c < c0 || c > c1)
            continue;
        __local const int2 *x = (__local const int2 *)(w.s + c * TOKENS) + r / 2;
        float2 all = 0.0f;
        for (uint k = 0; k < FOLD; k++) {
            uint place = kvcl_spectral_place(p, k * p->D + i), bits = 8u >> (place >> 24);
            uint shift = place >> 16 & 31u, mask = (1u << bits) - 1u;
            if (place == KVCL_NO_PLACE)
                continue;
            __global const uint *at = words[c] + (place & 0xffffu) * SLOTS;
            int2 sum = 0;
            for (uint slot = 0; slot < SLOTS; slot++)
                sum += x[(slot * FOLD + k) * (ROWS / 2)] *
                       kvcl_quant_value(bits, at[slot] >> shift & mask);
            all = fma(convert_float2(sum), (float2)(p->factor[k * p->D + i]), all);
        }
        z0[c] = STAT(INVERSE, c, r) * (all.x * STAT(FACTOR, c, r));
        z1[c] = STAT(INVERSE, c, r + 1) * (all.y * STAT(FACTOR, c, r + 1));
    }
    return (float2)(kvcl_tree8(vload8(0, z0)), kvcl_tree8(vload8(0, z1)));
}

// Output of a row: z in the basis of the values.
static float output(const kvcl_spectral_part *p, __local const float *z, uint d, float l,
                    float mean)
{
    float sum = 0.0f;
    for (uint i = 0; i < p->head.n_comp; i += 4) {
        float4 s = convert_float4(vload4(i / 4 * p->D + d, p->synth));
        sum = fma(s.x, z[i], sum);
        sum = fma(s.y, z[i + 1], sum);
        sum = fma(s.z, z[i + 2], sum);
        sum = fma(s.w, z[i + 3], sum);
    }
    return kvcl_zero(fma(l, mean, sum));
}

// Outputs of the rows in parts.
static void put_outputs(place w, kvcl_block b, const kvcl_spectral_part *v,
                        __global const float *mean, uint row0, uint n_rows, uint G, uint n_q_heads,
                        uint n_parts, __global float *ml, __global float *o, uint items)
{
    uint D = v->D;
    EACH(i, ROWS * D)
    {
        uint r = i / D, d = kvcl_rest(i, r, D), row = row0 + r, query = row / G;
        if (row >= n_rows || STAT(M, 0, r) == -INFINITY)
            continue;
        ulong to =
            ((ulong)query * n_q_heads + b.hk * G + kvcl_rest(row, query, G)) * n_parts + b.part;
        o[to * D + d] = output(v, w.qs + r * D, d, STAT(SUM, 0, r), mean[d]);
        if (d == 0)
            vstore2((float2)(STAT(M, 0, r), STAT(SUM, 0, r)), to, ml);
    }
}

__kernel void kvcl_attn_spectral(KVCL_ATTN_QUANT_PARAMS, __global const uchar *basis,
                                 ulong basis_off, uint words_k, uint words_v, __local float4 *mem)
{
    uint items = (uint)get_local_size(0);
    uint G = n_q_heads / n_kv_heads, row0 = (uint)get_group_id(1) * ROWS;
    kvcl_block b = kvcl_block_of((uint)get_group_id(0), n_kv_heads, begin, end, first_part);
    // pages behind the last row's query stay out, but one (as in cl/attn_quant.cl)
    b.last = min(b.last, (pos0 + (min(row0 + ROWS, n * G) - 1) / G) / TOKENS);
    uint n_pages = b.last < b.first ? 1 : b.last - b.first + 1;
    uint c0 = b.first % PAGES, c1 = c0 + n_pages - 1;
    __global const float *mean = means + means_off + b.hk * D;
    place w;
    w.s = mem;
    w.qs = (__local float *)(w.s + PAGES * TOKENS);
    w.red = w.qs + ROWS * D;
    w.stat = w.red + PAGES * ROWS * L;
    w.qp = (__local float4 *)(w.stat + 6 * PAGES * ROWS);
    __local float *keys = (__local float *)(w.qp + D);
    __local short *x = (__local short *)(keys + D * TILE);
    ulong page_words = (ulong)(words_k + words_v + n_kv_heads) * SLOTS;
    w.slots = (__local uint *)(x + D * TILE);
    load_rows(w, q + q_off, q_stride, b.hk, row0, n * G, G, D, scale, items);
    __global const uint *words[PAGES];
    kvcl_spectral_part v;
    EACH(c, n_pages) { w.slots[c0 + c] = (uint)pages[pages_off + b.first + c - begin / TOKENS]; }
    SYNC;
    for (uint c = c0; c <= c1; c++) {
        ulong slot = w.slots[c];
        kvcl_spectral_part k;
        kvcl_spectral_of(&k, FOLD, D, n_kv_heads, words_k, words_v, basis + basis_off,
                         (__global uchar *)pool + pool_off, slot, 0, b.hk);
        scores_page(w, &k, x, keys, c, b.first + c - c0, mean, table + table_off, n_rot, pairing,
                    items);
        kvcl_spectral_of(&v, FOLD, D, n_kv_heads, words_k, words_v, basis + basis_off,
                         (__global uchar *)pool + pool_off, slot, 1, b.hk);
        words[c] = v.words;
    }
    weights(w, b, c0, c1, row0, G, n, pos0, begin, end, items);
    fold_weights(w, v.norms - 2 * page_words * w.slots[c1], page_words, c0, c1,
                 v.head.quantum * 0.0078125f, items); // 2^-7
    block_stats(w, c0, c1, items);
    EACH(i, ROWS / 2 * v.head.n_comp)
    {
        uint pair = i / v.head.n_comp, j = kvcl_rest(i, pair, v.head.n_comp);
        float2 z = values2(w, &v, words, c0, c1, j, 2 * pair);
        w.qs[2 * pair * D + j] = z.x;
        w.qs[(2 * pair + 1) * D + j] = z.y;
    }
    SYNC;
    put_outputs(w, b, &v, mean + n_kv_heads * D, row0, n * G, G, n_q_heads, n_parts, ml + ml_off,
                o + o_off, items);
}
