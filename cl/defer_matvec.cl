// defer_matvec.cl - cl/defer.cl's matvec.
//
// A warp takes two rows at a time, 16 items to a row, item j the lanes 4j .. 4j + 3; it keeps up to
// 2 CHUNK loads in flight, over the ends of rows too.  Task t goes to group t mod n_groups, so the
// groups walk through a matrix together.  local memory: four floats, then the prepared row; with a
// norm the row as it came and the norm's weights besides.

#if KVCL_PTX

// ---- weights ------------------------------------------------------------------------------------

// STEP columns: a load of each of a row's 16 items; its bytes of a plane, and an item's.
#if BLOCKS
#define STEP 256
#define CHUNK 4
typedef uint4 raw;
#define ROW_BYTES(cols) (TYPE == KVCL_Q8_0 ? (ulong)(cols) : (ulong)(cols) / 2)
#define ITEM_AT(j) (TYPE == KVCL_Q8_0 ? (j)*16 : (j) / 2 * 16)
#define STEP_BYTES (TYPE == KVCL_Q8_0 ? 256 : 128)
#else
#define STEP 64
#if TYPE == KVCL_F32
#define CHUNK 4
typedef uint4 raw;
#else
#define CHUNK 8
typedef uint2 raw;
#endif
#define ROW_BYTES(cols) ((ulong)(cols) * sizeof(raw) / 4)
#define ITEM_AT(j) ((j) * (uint)sizeof(raw))
#define STEP_BYTES (16 * (uint)sizeof(raw))
#endif

// What an item holds of one load.
typedef struct weights {
    raw q;
#if BLOCKS
    ushort d;
#endif
#if TYPE == KVCL_Q5_0
    uint h;
#endif
} weights;

// An item's place in a row.
typedef struct row_place {
    __global const uchar *q;
#if BLOCKS
    __global const ushort *d;
#endif
#if TYPE == KVCL_Q5_0
    __global const uint *h;
#endif
} row_place;

typedef struct row_id {
    uint segment, row, mine; // mine: there is such a row
} row_id;

static row_id row_of(__local const kvcl_defer_matvec *op, uint task, uint team)
{
    row_id r = {team, task, 1};
    if (op->flags & KVCL_DEFER_PAIR)
        return r;
    r.row = 2 * task + team;
    r.mine = r.row < op->row_end[2];
    r.row = min(r.row, op->row_end[2] - 1);
    r.segment = (r.row >= op->row_end[0]) + (r.row >= op->row_end[1]);
    r.row -= r.segment ? op->row_end[r.segment - 1] : 0;
    return r;
}

static row_place row_at(__local const kvcl_defer_matvec *op, uint task, uint team, uint j)
{
    row_id r = row_of(op, min(task, op->n_tasks - 1), team);
    row_place p;
    p.q = (__global const uchar *)op->w[r.segment] + r.row * ROW_BYTES(op->cols) + ITEM_AT(j);
#if BLOCKS
    ulong block = (ulong)r.row * (op->cols / 32) + j / 2;
    p.d = (__global const ushort *)op->d[r.segment] + block;
#endif
#if TYPE == KVCL_Q5_0
    p.h = (__global const uint *)op->h[r.segment] + block;
#endif
    return p;
}

static weights load_weights(row_place p, uint step)
{
    weights w;
    w.q = *(__global const raw *)(p.q + step * STEP_BYTES);
#if BLOCKS
    w.d = p.d[step * 8];
#endif
#if TYPE == KVCL_Q5_0
    w.h = p.h[step * 8];
#endif
    return w;
}

static row_place next_chunk(row_place p)
{
    p.q += CHUNK * STEP_BYTES;
#if BLOCKS
    p.d += CHUNK * 8;
#endif
#if TYPE == KVCL_Q5_0
    p.h += CHUNK * 8;
#endif
    return p;
}

#if BLOCKS

static int dot4(uint a, uint b)
{
    int r;
    __asm("dp4a.s32.s32 %0, %1, %2, 0;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

// Codes of the item's 16 weights as signed bytes.
static uint4 codes_of(weights w, uint j)
{
#if TYPE == KVCL_Q8_0
    return w.q;
#else
    uint4 n = (w.q >> ((j & 1) * 4)) & 0x0f0f0f0fu;
#if TYPE == KVCL_Q5_0
    uint f = w.h >> ((j & 1) * 16);
    n |= (uint4)(kvcl_fifth4(f), kvcl_fifth4(f >> 4), kvcl_fifth4(f >> 8), kvcl_fifth4(f >> 12));
    return (n + 0x70707070u) ^ 0x80808080u;
#else
    return (n + 0x78787878u) ^ 0x80808080u;
#endif
#endif
}

// z: the chunk's codes; dz: its scales.
static float4 add_step(weights w, __local const float *z, __local const float *dz, uint step,
                       uint j, float4 acc)
{
    uint4 c = codes_of(w, j), x = ((__local const uint4 *)z)[step * 16 + j];
    float s = kvcl_half_load(w.d) * dz[step * 8 + j / 2];
    int4 sums = (int4)(dot4(c.x, x.x), dot4(c.y, x.y), dot4(c.z, x.z), dot4(c.w, x.w));
    return fma((float4)(s), convert_float4(sums), acc);
}

#else

static float4 widen(raw r)
{
#if TYPE == KVCL_F32
    return as_float4(r);
#elif TYPE == KVCL_F16
    return (float4)(kvcl_half_pair(r.x), kvcl_half_pair(r.y));
#else
    return as_float4((uint4)(r.x << 16, r.x & 0xffff0000u, r.y << 16, r.y & 0xffff0000u));
#endif
}

static float4 add_step(weights w, __local const float *z, __local const float *dz, uint step,
                       uint j, float4 acc)
{
    return fma(widen(w.q), ((__local const float4 *)z)[step * 16 + j], acc);
}

#endif

// ---- input --------------------------------------------------------------------------------------

#define X_LOADS 3

// Floats of the prepared row; where its values change their size there, the row as it came lies
// behind it.
#if BLOCKS
#define Z_FLOATS(cols) (((cols) / 4 + (cols) / 32 + 3) & ~3u)
#else
#define Z_FLOATS(cols) 0
#endif

// Values 4i .. 4i + 3, as far as there are any.
static float4 four(ulong at, uint i, uint cols)
{
    return at && i * 4 < cols ? ((__global const float4 *)at)[i] : (float4)(0.0f);
}

// Four values of the row, raw and (gain) the norm's weights, prepared and put to z; quantised for
// blocks (8 neighbouring items hold a block).
static void put_input(__local const kvcl_defer_matvec *op, float4 v, float4 gain, uint i,
                      float2 stats, __local float *z)
{
    uint cols = op->cols, in = i * 4 < cols, norm = op->norm;
    if (norm) {
        float4 b = norm == KVCL_NORM_LAYER ? four(op->norm_b, i, cols) : (float4)(0.0f);
        v = (float4)(kvcl_norm_value(norm, v.x, stats, gain.x, b.x),
                     kvcl_norm_value(norm, v.y, stats, gain.y, b.y),
                     kvcl_norm_value(norm, v.z, stats, gain.z, b.z),
                     kvcl_norm_value(norm, v.w, stats, gain.w, b.w));
    }
#if BLOCKS
    float4 m = fabs(v);
    float amax = fmax(fmax(m.x, m.y), fmax(m.z, m.w));
    amax = fmax(amax, kvcl_shfl_xor(amax, 1));
    amax = fmax(amax, kvcl_shfl_xor(amax, 2));
    amax = fmax(amax, kvcl_shfl_xor(amax, 4));
    float4 t = fma(v, (float4)(kvcl_quant_inv(amax)), (float4)(KVCL_ROUND));
    if (in)
        ((__local uint *)z)[i] = as_uint(convert_char4(as_int4(t) - (int4)(KVCL_ROUND_BITS)));
    if (in && i % 8 == 0)
        z[cols / 4 + i / 8] = kvcl_quant_scale(amax);
#else
    if (in)
        ((__local float4 *)z)[i] = v;
#endif
}

static float2 chain_step(float2 v, uint squares, float mean, float2 acc)
{
    v = fma((float2)(-1.0f), (float2)(mean), v);
    return fma(v, squares ? v : (float2)(1.0f), acc);
}

// sum64 over a row in local memory by one warp: of the values minus `mean` (squares 0) or of their
// squares.  Item i holds the lanes 2i, 2i + 1.
static float warp_sum64(__local const float *row, uint n, uint squares, float mean)
{
    uint i = (uint)get_local_id(0) % 32;
    float2 acc = (float2)(0.0f);
    uint k = 2 * i;
    for (; k + 15 * 64 < n; k += 16 * 64) { // loads first: the chain waits for each sum
        float2 v[16];
#pragma unroll
        for (uint u = 0; u < 16; u++)
            v[u] = *(__local const float2 *)(row + k + u * 64);
#pragma unroll
        for (uint u = 0; u < 16; u++)
            acc = chain_step(v[u], squares, mean, acc);
    }
    for (; k < n; k += 64)
        acc = chain_step(*(__local const float2 *)(row + k), squares, mean, acc);
    for (uint s = 16; s > 0; s /= 2)
        acc += (float2)(kvcl_shfl_xor(acc.x, s), kvcl_shfl_xor(acc.y, s));
    return kvcl_zero(acc.x + acc.y);
}

// (mean, r) of the row for the norm, by the last warp, which has the least to do besides.
static void put_stats(__local const kvcl_defer_matvec *op, __local const float *row,
                      __local float2 *out)
{
    float mean = 0.0f;
    if (op->norm == KVCL_NORM_LAYER)
        mean = warp_sum64(row, op->cols, 0, 0.0f) * op->inv_n;
    float r = kvcl_rsqrt(fma(warp_sum64(row, op->cols, 1, mean), op->inv_n, op->eps));
    if (get_local_id(0) == GROUP - 1)
        *out = (float2)(mean, r);
}

// ---- sums ---------------------------------------------------------------------------------------

// The halving tree over a team's 64 lanes, in all its items: first each keeps a half of what the
// two of a level hold, then the last levels go over what is left.
static float tree64(float4 a, uint j)
{
    uint b8 = j & 8, b4 = j & 4;
    float2 keep = b8 ? a.hi : a.lo, give = b8 ? a.lo : a.hi;
    keep += (float2)(kvcl_shfl_xor(give.x, 8), kvcl_shfl_xor(give.y, 8)); // s = 32
    float s = b4 ? keep.y : keep.x, t = b4 ? keep.x : keep.y;
    s += kvcl_shfl_xor(t, 4); // 16
    s += kvcl_shfl_xor(s, 2); // 8
    s += kvcl_shfl_xor(s, 1); // 4
    s += kvcl_shfl_xor(s, 8); // 2
    s += kvcl_shfl_xor(s, 4); // 1
    return kvcl_zero(s);
}

// ---- ops ----------------------------------------------------------------------------------------

// What finishing a row needs, asked for when the row begins.
typedef struct row_end {
    row_id id;
    float bias, res;
    float2 turn; // (c, s)
    uint slot;
} row_end;

// The rotation of value r of the row q | k | v, and where its page lies.
static void rope_begins(__local const kvcl_defer_rope *op, uint pos, uint r, row_end *e)
{
    uint h = r / op->head_dim, pair = kvcl_rest(r, h, op->head_dim) / 2;
    e->turn = (float2)(1.0f, 0.0f);
    if (pair < op->n_rot / 2 && h < op->n_q_heads + op->n_kv_heads)
        e->turn = ((__global const float2 *)op->table)[(ulong)pos * (op->n_rot / 2) + pair];
    e->slot = ((__global const uint *)op->pages)[pos / KVCL_TOKENS - op->first_page];
}

// Value r, which is y, beside the other of its pair: rotated and stored in its page.  Returns what
// stays in the row.
static float rope_ends(__local const kvcl_defer_rope *op, uint pos, uint r, uint mine, float y,
                       row_end e)
{
    uint D = op->head_dim, h = r / D, d = kvcl_rest(r, h, D), t = pos % KVCL_TOKENS;
    uint n_q = op->n_q_heads, n_k = op->n_kv_heads;
    float other = kvcl_shfl_xor(y, 16), turned = y;
    if (d / 2 < op->n_rot / 2 && h < n_q + n_k)
        turned = r & 1 ? kvcl_turn_b(other, y, e.turn) : kvcl_turn_a(y, other, e.turn);
    if (h < n_q)
        return turned;
    if (mine && h < n_q + n_k)
        store_k((__global uchar *)op->k,
                (((ulong)e.slot * n_k + (h - n_q)) * D + d) * KVCL_TOKENS + t, turned);
    else if (mine)
        store_v((__global uchar *)op->v,
                (((ulong)e.slot * n_k + (h - n_q - n_k)) * KVCL_TOKENS + t) * D + d, y);
    return y;
}

static row_end row_begins(__local const kvcl_defer_matvec *op, uint pos, uint task, uint team)
{
    row_end e;
    e.id = row_of(op, min(task, op->n_tasks - 1), team);
    ulong bias = op->bias[e.id.segment];
    e.bias = bias ? ((__global const float *)bias)[e.id.row] : 0.0f;
    e.res = op->res ? ((__global const float *)op->res)[e.id.row] : 0.0f;
    if (op->flags & KVCL_DEFER_ROPE)
        rope_begins(&op->rope, pos, 2 * task + team, &e);
    return e;
}

static void row_ends(__local const kvcl_defer_matvec *op, uint pos, uint task, row_end e,
                     float4 acc, uint j, uint team)
{
    float y = tree64(acc, j);
    uint mine = e.id.mine && j == 0;
    y = op->bias[e.id.segment] ? y + e.bias : y;
    if (op->flags & KVCL_DEFER_PAIR) {
        float up = kvcl_shfl_xor(y, 16);
        y = kvcl_zero(kvcl_silu(y) * up);
        mine = mine && team == 0;
    } else if (op->flags & KVCL_DEFER_GELU) {
        y = kvcl_gelu(y);
    } else if (op->flags & KVCL_DEFER_ROPE) {
        y = rope_ends(&op->rope, pos, 2 * task + team, mine, y, e);
    }
    y = op->res ? e.res + y : y;
    if (mine)
        ((__global float *)op->out[e.id.segment])[e.id.row] = y;
}

// The loads of the chunk to come: a whole chunk has no tests inside.
#define LOAD(buf)                                                                              \
    if (load_task < op->n_tasks) {                                                             \
        if ((load_chunk + 1) * CHUNK * STEP <= cols) {                                         \
            _Pragma("unroll") for (uint u = 0; u < CHUNK; u++) buf[u] = load_weights(at, u);   \
        } else {                                                                               \
            _Pragma("unroll") for (uint u = 0; u < CHUNK; u++) if (IN(load_chunk, u)) buf[u] = \
                load_weights(at, u);                                                           \
        }                                                                                      \
        at = next_chunk(at);                                                                   \
        if (++load_chunk == n_chunks) {                                                        \
            load_chunk = 0;                                                                    \
            load_task += stride;                                                               \
            at = row_at(op, load_task, team, j);                                               \
        }                                                                                      \
    }

#define SUM(buf)                                                                               \
    {                                                                                          \
        __local const float *zc = z + chunk * Z_CHUNK, *dc = z + cols / 4 + chunk * CHUNK * 8; \
        if ((chunk + 1) * CHUNK * STEP <= cols) {                                              \
            _Pragma("unroll") for (uint u = 0; u < CHUNK; u++) acc =                           \
                add_step(buf[u], zc, dc, u, j, acc);                                           \
        } else {                                                                               \
            _Pragma("unroll") for (uint u = 0; u < CHUNK; u++) if (IN(chunk, u)) acc =         \
                add_step(buf[u], zc, dc, u, j, acc);                                           \
        }                                                                                      \
        chunk++;                                                                               \
    }

#define IN(chunk, u) (((chunk)*CHUNK + (u)) * STEP + j * (STEP / 16) < cols)
#define Z_CHUNK (BLOCKS ? CHUNK * STEP / 4 : CHUNK * STEP) // floats

#define END_OF_ROW                                  \
    if (chunk == n_chunks) {                        \
        row_ends(op, pos, task, end, acc, j, team); \
        chunk = 0;                                  \
        acc = (float4)(0.0f);                       \
        task += stride;                             \
        if (task >= op->n_tasks)                    \
            break;                                  \
        end = row_begins(op, pos, task, team);      \
    }

static void run_matvec(__local const kvcl_defer_matvec *op, __local const uint *dyn,
                       __local float *mem)
{
    uint pos = op->flags & KVCL_DEFER_ROPE ? dyn[op->rope.pos] : 0;
    uint lid = (uint)get_local_id(0), j = lid % 16, team = lid / 16 % 2, cols = op->cols;
    uint n_groups = (uint)get_num_groups(0), stride = n_groups * WARPS;
    uint task = lid / 32 * n_groups + (uint)get_group_id(0);
    uint n_chunks = (cols + CHUNK * STEP - 1) / (CHUNK * STEP);
    __local float *z = mem + 4, *row = z + Z_FLOATS(cols);
    uint bound = (cols / 4 + GROUP - 1) / GROUP * GROUP; // whole groups: shuffles inside
    float2 stats = (float2)(0.0f);
    // The row first, before loads of weights stand in its way.
    if (op->norm != KVCL_NORM_NONE) {
        for (uint i = lid; i < cols / 4; i += GROUP) {
            float4 v = four(op->x, i, cols), g = four(op->norm_w, i, cols);
            ((__local float4 *)row)[i] = v;
            ((__local float4 *)row)[i + cols / 4] = g;
        }
    } else {
        float4 v[X_LOADS]; // all on their way together
#pragma unroll
        for (uint u = 0; u < X_LOADS; u++) {
            uint i = lid + u * GROUP;
            v[u] = op->flags & KVCL_DEFER_MERGED ? merged_input(op, dyn, i) : four(op->x, i, cols);
        }
#pragma unroll
        for (uint u = 0; u < X_LOADS; u++)
            put_input(op, v[u], (float4)(0.0f), lid + u * GROUP, stats, z);
        for (uint i = lid + X_LOADS * GROUP; i < bound; i += GROUP)
            put_input(op, four(op->x, i, cols), (float4)(0.0f), i, stats, z);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    weights even[CHUNK], odd[CHUNK];
    uint load_task = task, load_chunk = 0;
    row_place at = row_at(op, task, team, j);
    LOAD(even)
    row_end end = row_begins(op, pos, task, team);
    if (op->norm != KVCL_NORM_NONE) {
        if (lid / 32 == WARPS - 1)
            put_stats(op, row, (__local float2 *)mem);
        barrier(CLK_LOCAL_MEM_FENCE);
        stats = *(__local float2 *)mem;
        for (uint i = lid; i < bound; i += GROUP) {
            __local const float4 *row4 = (__local const float4 *)row;
            uint in = min(i, cols / 4 - 1);
            put_input(op, row4[in], row4[in + cols / 4], i, stats, z);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    LOAD(odd)
    float4 acc = (float4)(0.0f);
    uint chunk = 0;
    while (task < op->n_tasks) {
        SUM(even)
        LOAD(even)
        END_OF_ROW
        SUM(odd)
        LOAD(odd)
        END_OF_ROW
    }
}

#endif
