// block_pages.cl - block pages (engine/ops_code.h): where rows are, values of a row, the encoder.
// Twin: cpu/block.c

// A pool of block pages: K [Hk][64] rows, then V [Hk][64] rows, of Q8_0 or Q4_0.
typedef struct kvcl_block_pool {
    __global const uchar *pages;
    uint block_k, block_v, row_k, row_v, n_kv_heads; // row_*: bytes
} kvcl_block_pool;

static uint kvcl_block_bytes(uint block) { return block == KVCL_Q8_0 ? 34 : 18; }

static kvcl_block_pool kvcl_block_pool_of(__global const uchar *pages, uint n_kv_heads, uint D,
                                          uint block_k, uint block_v)
{
    kvcl_block_pool p = {pages,
                         block_k,
                         block_v,
                         D / 32 * kvcl_block_bytes(block_k),
                         D / 32 * kvcl_block_bytes(block_v),
                         n_kv_heads};
    return p;
}

// The 64 rows of a head's K or V.
static __global const uchar *kvcl_block_at(const kvcl_block_pool *p, uint of_v, ulong slot, uint hk)
{
    uint head_k = KVCL_TOKENS * p->row_k, head_v = KVCL_TOKENS * p->row_v;
    __global const uchar *page = p->pages + slot * ((head_k + head_v) * p->n_kv_heads);
    return page + (of_v ? p->n_kv_heads * head_k + hk * head_v : hk * head_k);
}

// Element d of a row.
static float kvcl_block_value(uint block, __global const uchar *row, uint d)
{
    uint e = d % 32;
    row += d / 32 * kvcl_block_bytes(block);
    float scale = vload_half(0, (__global const half *)row);
    if (block == KVCL_Q8_0)
        return (float)((__global const char *)row)[2 + e] * scale;
    uint n = e < 16 ? row[2 + e] & 15u : row[2 + e - 16] >> 4;
    return (float)((int)n - 8) * scale;
}

// The arguments that encoder and decoder share.
#define KVCL_BLOCK_PARAMS(IN, OUT)                                                        \
    IN uchar *k, ulong k_off, IN uchar *v, ulong v_off, __global const int *pages,        \
        ulong pages_off, OUT uchar *pool, ulong pool_off, __global const int *slots,      \
        ulong slots_off, uint n_kv_heads, uint D, uint type_k, uint type_v, uint block_k, \
        uint block_v
#define KVCL_BLOCK_ARGS                                                                    \
    (__global uchar *)k, k_off, (__global uchar *)v, v_off, pages, pages_off,              \
        (__global uchar *)pool, pool_off, slots, slots_off, n_kv_heads, D, type_k, type_v, \
        block_k, block_v

// K or V of one head of a page, raw and as rows of blocks.
typedef struct kvcl_block_rows {
    __global uchar *raw, *rows;
    uint type, block, row_bytes, bytes, of_v, D; // bytes: of a block
} kvcl_block_rows;

static kvcl_block_rows kvcl_block_rows_of(uint group, uint of_v,
                                          KVCL_BLOCK_PARAMS(__global, __global))
{
    uint i = group / n_kv_heads, hk = kvcl_rest(group, i, n_kv_heads);
    kvcl_block_pool p = kvcl_block_pool_of(pool + pool_off, n_kv_heads, D, block_k, block_v);
    ulong at = ((ulong)pages[pages_off + i] * n_kv_heads + hk) * (ulong)(D * KVCL_TOKENS);
    kvcl_block_rows r;
    r.type = of_v ? type_v : type_k;
    r.block = of_v ? block_v : block_k;
    r.bytes = kvcl_block_bytes(r.block);
    r.row_bytes = of_v ? p.row_v : p.row_k;
    r.of_v = of_v;
    r.D = D;
    r.raw = (of_v ? v + v_off : k + k_off) + at * (r.type == KVCL_F16 ? 2 : 4);
    r.rows = (__global uchar *)kvcl_block_at(&p, of_v, (ulong)slots[slots_off + i], hk);
    return r;
}

static float kvcl_block_raw(const kvcl_block_rows *r, uint t, uint d)
{
    uint at = r->of_v ? t * r->D + d : d * KVCL_TOKENS + t;
    return r->type == KVCL_F16 ? vload_half(at, (__global const half *)r->raw)
                               : ((__global const float *)r->raw)[at];
}

// Encodes 32 values; true when one is not finite or the scale does not fit an f16.
static uint kvcl_block_encode(uint block, const float *x, __global uchar *out)
{
    float top = 0.0f;
    uint bad = 0;
    for (uint e = 0; e < 32; e++) {
        bad |= kvcl_is_bad(x[e]);
        top = fabs(x[e]) > fabs(top) ? x[e] : top;
    }
    float amax = fabs(top), inv = kvcl_quant_inv(amax), scale = kvcl_quant_scale(amax);
    __global ushort *words = (__global ushort *)out;
    if (block == KVCL_Q8_0) {
        for (uint e = 0; e < 32; e += 2)
            words[1 + e / 2] = (ushort)((uint)kvcl_round(x[e] * inv) & 255u) |
                               (ushort)((uint)kvcl_round(x[e + 1] * inv) << 8);
    } else {
        uint nothing = amax < 1e-30f;
        scale = nothing ? 0.0f : top * -0.125f;
        inv = nothing ? 0.0f : 8.0f * kvcl_recip(amax);
        inv = top > 0.0f ? -inv : inv;
        for (uint e = 0; e < 16; e += 2) {
            uint word = 0;
            for (uint i = 0; i < 4; i++) {
                int n = (int)fma(x[e + i % 2 + i / 2 * 16], inv, 8.5f);
                word |= (uint)min(n, 15) << (8 * (i % 2) + 4 * (i / 2));
            }
            words[1 + e / 2] = (ushort)word;
        }
    }
    uint half_bits = kvcl_half_store(scale);
    words[0] = (ushort)half_bits;
    return bad | kvcl_bad_half(half_bits);
}

#define KVCL_ATTN_BLOCK_PARAMS                                                                     \
    __global const float *q, ulong q_off, __global const uchar *pool, ulong pool_off,              \
        __global const int *pages, ulong pages_off, __global float *ml, ulong ml_off,              \
        __global float *o, ulong o_off, uint n, uint q_stride, uint pos0, uint n_q_heads,          \
        uint n_kv_heads, uint D, uint begin, uint end, uint first_part, uint n_parts, float scale, \
        uint chunk, uint block_k, uint block_v
