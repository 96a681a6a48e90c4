// gram.cl - second moments of raw pages and of rows.  Twin: cpu/gram.c
//
// A group of 64 work-items makes a tile of 32 x 32 of one matrix, on or below the diagonal, and
// writes it turned, too; an item has 4 x 4 of it, eight apart.  One shape for all devices: these
// run once for many tokens.
//
// kvcl_gram_pages: groups [part, head and Walsh row] x [tile].
// kvcl_gram_rows: groups [head] x [tile].
// local memory of both: 16 KiB, up to 64 rows of either side of the tile

#define TILE 32
#define ROWS 64

// Row and column of tile `at` among those on or below the diagonal.
static uint2 tile_at(uint at)
{
    uint row = 0;
    while (at > row) {
        row++;
        at -= row;
    }
    return (uint2)(row, at);
}

// The rows first .. end - 1 of a tile's sides, chained to sum.
static void chain_rows(__local const float *rows, __local const float *cols, uint first, uint end,
                       float sum[16])
{
    uint x = (uint)get_local_id(0) % 8, y = (uint)get_local_id(0) / 8;
    for (uint t = first; t < end; t++) {
        float a[4], b[4];
        for (uint i = 0; i < 4; i++) {
            a[i] = rows[t * TILE + y + 8 * i];
            b[i] = cols[t * TILE + x + 8 * i];
        }
        for (uint i = 0; i < 16; i++)
            sum[i] = fma(a[i / 4], b[i % 4], sum[i]);
    }
}

// This item's sums from its matrix (store 0), or back to it on both sides of the diagonal.
static void move_sums(__global float *gram, uint2 tile, uint D, uint store, float sum[16])
{
    uint lid = (uint)get_local_id(0);
    for (uint i = 0; i < 16; i++) {
        uint a = tile.x * TILE + lid / 8 + 8 * (i / 4), b = tile.y * TILE + lid % 8 + 8 * (i % 4);
        uint within = a < D && b <= a;
        if (!store)
            sum[i] = within ? gram[a * D + b] : 0.0f;
        else if (within)
            gram[a * D + b] = gram[b * D + a] = sum[i];
    }
}

// Raw pages of one head's K or V.
typedef struct gram_source {
    __global const uchar *pool;
    uint type, of_v, raw_dim, fold; // raw_dim: of a head of the pages
} gram_source;

// Dimension d of Walsh row r of the slot that begins at token t, of the head that begins at base.
static float walsh_row(const gram_source *s, ulong base, uint t, uint d, uint r, float mean)
{
    float v[8];
    uint head = d / s->raw_dim, rest = kvcl_rest(d, head, s->raw_dim);
    for (uint i = 0; i < s->fold; i++) {
        uint at =
            s->of_v ? (head * KVCL_TOKENS + t + i) * s->raw_dim + rest : d * KVCL_TOKENS + t + i;
        v[i] = kvcl_raw_load(s->type, s->pool, base + at) - mean;
    }
    for (uint n = s->fold; n > 1; n /= 2) {
        for (uint i = 0; i < n / 2; i++)
            v[i] = r & 1 ? v[2 * i] - v[2 * i + 1] : v[2 * i] + v[2 * i + 1];
        r /= 2;
    }
    return v[0];
}

__kernel void kvcl_gram_pages(__global const uchar *k, ulong k_off, __global const uchar *v,
                              ulong v_off, __global const int *pages, ulong pages_off,
                              __global const float *mean, ulong mean_off, __global float *gram,
                              ulong gram_off, uint n_tokens, uint n_skip, uint fold,
                              uint n_kv_heads, uint D, uint raw_dim, uint type_k, uint type_v)
{
    __local float sides[2 * ROWS * TILE];
    uint lid = (uint)get_local_id(0), matrix = (uint)get_group_id(0);
    uint head = matrix / fold, r = kvcl_rest(matrix, head, fold), of_v = head >= n_kv_heads;
    uint hk = of_v ? head - n_kv_heads : head, slots = KVCL_TOKENS / fold;
    uint2 tile = tile_at((uint)get_group_id(1));
    gram_source s = {of_v ? v + v_off : k + k_off, of_v ? type_v : type_k, of_v, raw_dim, fold};
    float sum[16];
    gram += gram_off + (ulong)matrix * D * D;
    mean += mean_off + head * D;
    move_sums(gram, tile, D, 0, sum);
    for (uint page = 0; page * KVCL_TOKENS < n_tokens; page++) {
        ulong base = ((ulong)pages[pages_off + page] * n_kv_heads + hk) * D * KVCL_TOKENS;
        uint first = page == 0 ? (n_skip + fold - 1) / fold : 0;
        uint end = min(n_tokens - page * KVCL_TOKENS, (uint)KVCL_TOKENS) / fold;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < 2 * slots * TILE; at += 64) { // neighbours in memory side by side
            uint side = at >= slots * TILE, of_side = at & (slots * TILE - 1);
            uint slot = of_v ? of_side / TILE : of_side & (slots - 1);
            uint e = of_v ? of_side % TILE : of_side / slots;
            uint d = e + TILE * (side ? tile.y : tile.x);
            sides[side * ROWS * TILE + slot * TILE + e] =
                d < D && slot < end ? walsh_row(&s, base, slot * fold, d, r, mean[d]) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        float of_page[16];
        for (uint i = 0; i < 16; i++)
            of_page[i] = 0.0f;
        chain_rows(sides, sides + ROWS * TILE, first, end, of_page);
        for (uint i = 0; i < 16; i++)
            sum[i] += of_page[i];
    }
    move_sums(gram, tile, D, 1, sum);
}

__kernel void kvcl_gram_rows(__global const float *x, ulong x_off, __global float *gram,
                             ulong gram_off, uint n, uint stride, uint group, uint D)
{
    __local float sides[2 * ROWS * TILE];
    uint lid = (uint)get_local_id(0), hk = (uint)get_group_id(0);
    uint2 tile = tile_at((uint)get_group_id(1));
    float sum[16];
    gram += gram_off + (ulong)hk * D * D;
    x += x_off + hk * group * D;
    move_sums(gram, tile, D, 0, sum);
    for (uint row = 0; row < n * group; row += ROWS) { // each head's part of a row is a row here
        uint rows = min(n * group - row, (uint)ROWS);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint at = lid; at < 2 * ROWS * TILE; at += 64) {
            uint side = at / (ROWS * TILE), t = at / TILE % ROWS;
            uint of_row = (row + t) / group, h = kvcl_rest(row + t, of_row, group);
            uint d = at % TILE + TILE * (side ? tile.y : tile.x);
            sides[at] = d < D && t < rows ? x[(ulong)of_row * stride + h * D + d] : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        chain_rows(sides, sides + ROWS * TILE, 0, rows, sum);
    }
    move_sums(gram, tile, D, 1, sum);
}
