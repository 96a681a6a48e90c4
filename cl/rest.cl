// rest.cl - pages at rest: one step for a whole page, streams in slots of fixed size.  Twin:
// cpu/rest.c
//
// A group per page; sums of integers, so that it does not matter who adds what.
//   local memory: 300 bytes (rest_quant), 4 bytes else

#define EACH(at, count) for (uint at = (uint)get_local_id(0); at < (count); at += items)
#define SYNC barrier(CLK_LOCAL_MEM_FENCE)
#define REST_SHAPE uint n_pages, uint n_rows, uint n_cols, uint n_parts, uint page_bytes
#define LAST_RUNG 1023u

// ---- steps --------------------------------------------------------------------------------------

typedef struct page_coefs {
    __global const float *coefs; // [n_rows][n_cols]
    __global const short *scales;
    __global const ushort *costs;
    float cut; // added before numbers are cut
    uint n_rows, n_cols;
} page_coefs;

static float in_steps(float c, float inv, float cut) { return fma(fabs(c), inv, cut); }

static int value_of(float c, float inv, float cut)
{
    int v = (int)in_steps(c, inv, cut);
    return c < 0.0f ? -v : v;
}

// An item's part of a rung's costs; *large: it met a number that is too large.
static uint cost_of(page_coefs p, uint rung, uint items, uint *large)
{
    float inv = kvcl_recip(kvcl_rest_step(rung));
    uint sum = 0;
    *large = 0;
    for (uint row = 0; row < p.n_rows; row++) {
        __global const float *c = p.coefs + row * p.n_cols;
        __global const ushort *costs = p.costs + 256 * kvcl_rest_model(p.scales[row], rung);
        EACH(i, p.n_cols)
        {
            float x = c[i];
            uint fits = in_steps(x, inv, p.cut) < 128.0f;
            *large |= !fits;
            sum += costs[fits ? value_of(x, inv, p.cut) & 255 : 0];
        }
    }
    return sum;
}

// An item's lane of the sums over n coefficients c and their values v: c^2, c v and, exact, v^2.
static float2 lane_of(page_coefs p, uint first, uint n, float inv, uint *squares)
{
    float2 sums = (float2)(0.0f);
    *squares = 0;
    for (uint i = (uint)get_local_id(0); i < n && get_local_id(0) < 64; i += 64) {
        float c = p.coefs[first + i];
        int v = value_of(c, inv, p.cut);
        sums.x = fma(c, c, sums.x);
        sums.y = fma(c, (float)v, sums.y);
        *squares += (uint)(v * v);
    }
    return sums;
}

// A gain's byte: of sums uu and, by which it is divided, of values and coefficients or values.
static uint gain_of(uint of_v, float uu, float by, float inv)
{
    float g = 1.0f;
    if (uu >= 1e-30f && by >= 1e-30f) {
        float r = (uu * kvcl_recip(by)) * inv, root = r * inv;
        g = of_v ? r : root < 1e-30f ? 1.0f : root * kvcl_rsqrt(root);
    }
    g = fma(256.0f, g, -192.0f);
    return (uint)kvcl_round(g < 0.0f ? 0.0f : g < 255.0f ? g : 255.0f);
}

// The finest rung that fits, as far as costs tell; *good: whether one does.  total: two words.
static uint finest_rung(page_coefs p, uint budget, uint items, __local uint *total, uint *good)
{
    uint low = 0, high = LAST_RUNG, fits = 0;
    for (uint step = 0; step < 11; step++) { // the last: whether what was found fits
        uint rung = step < 10 ? (low + high) / 2 : high, large;
        uint sum = cost_of(p, rung, items, &large);
        SYNC;
        if (get_local_id(0) == 0)
            total[0] = total[1] = 0;
        SYNC;
        atomic_add(total, sum);
        atomic_or(total + 1, large);
        SYNC;
        fits = total[1] == 0 && total[0] <= budget;
        high = step < 10 && fits ? rung : high;
        low = step < 10 && !fits ? rung + 1 : low;
    }
    *good = fits;
    return high;
}

// The first token of n coefficients that is too large for the coarsest rung; 0 when none is.
static uint first_bad(page_coefs p, uint n, uint fold, uint items, __local uint *bad)
{
    float last = kvcl_recip(kvcl_rest_step(LAST_RUNG));
    uint first = KVCL_TOKENS;
    if (get_local_id(0) == 0)
        *bad = KVCL_TOKENS;
    SYNC;
    EACH(i, n)
    {
        if (!(in_steps(p.coefs[i], last, p.cut) < 128.0f))
            first = min(first, kvcl_rest(i, i / p.n_cols, p.n_cols) / 4 * fold);
    }
    atomic_min(bad, first);
    SYNC;
    return *bad == KVCL_TOKENS ? 0 : *bad;
}

// (Each function with a barrier is called in one place: PoCL 3.1 crashes on inlining it in two.)
__kernel void kvcl_rest_quant(__global const float *coefs, ulong coefs_off,
                              __global const short *scales, ulong scales_off,
                              __global const ushort *costs, ulong costs_off, __global char *values,
                              ulong values_off, __global uchar *models, ulong models_off,
                              __global uchar *gains, ulong gains_off, __global uint *rungs,
                              ulong rungs_off, __global const uint *used, ulong used_off,
                              REST_SHAPE, uint budget, uint fold, float cut)
{
    __local uint total[3];
    __local float red[KVCL_RED_FLOATS], part_sums[2];
    uint page = (uint)get_group_id(0), items = (uint)get_local_size(0), n = n_rows * n_cols;
    uint done = used != 0 && used[used_off + page] != 0, good, m = n / n_parts;
    // a page that is done has no rows, as far as the loops are concerned
    page_coefs p = {coefs + coefs_off + (ulong)page * n,
                    scales + scales_off,
                    costs + costs_off,
                    cut,
                    done ? 0 : n_rows,
                    n_cols};
    uint rung = finest_rung(p, budget, items, total, &good);
    uint bad = first_bad(p, good ? 0 : n, fold, items, total + 2);
    float inv = kvcl_recip(kvcl_rest_step(rung));
    EACH(i, p.n_rows * n_cols)
    {
        values[values_off + (ulong)page * n + i] = good ? (char)value_of(p.coefs[i], inv, cut) : 0;
    }
    EACH(row, p.n_rows)
    {
        models[models_off + (ulong)page * n_rows + row] =
            (uchar)kvcl_rest_model(p.scales[row], rung);
    }
    for (uint i = 0; i < 2 * n_parts; i++) { // two sums of each part
        uint squares, of_v = i / 2 >= n_parts / 2;
        float2 lane = lane_of(p, i / 2 * m, good && !done ? m : 0, inv, &squares);
        SYNC;
        if (get_local_id(0) == 0)
            total[0] = 0;
        float sum = kvcl_lanes_sum(i % 2 ? lane.y : lane.x, red);
        atomic_add(total, squares);
        if (get_local_id(0) == 0)
            part_sums[i % 2] = sum;
        SYNC;
        if (get_local_id(0) == 0 && i % 2 && !done)
            gains[gains_off + page * n_parts + i / 2] =
                (uchar)gain_of(of_v, part_sums[0], of_v ? part_sums[1] : (float)(int)total[0], inv);
    }
    if (get_local_id(0) == 0 && !done)
        rungs[rungs_off + page] = rung + (LAST_RUNG + 1) * (good ? KVCL_TOKENS : bad);
}

// ---- slots --------------------------------------------------------------------------------------

// An item's part of a slot's checksum, but for word 0.
static uint checksum(__global const uint *slot, uint n_words, uint items)
{
    uint sum = 0;
    EACH(i, n_words)
    {
        if (i > 1)
            sum += kvcl_mix(slot[i] + kvcl_mix(i));
    }
    return sum;
}

static uint head_bytes(uint n_parts) { return 8 + (n_parts + 3) / 4 * 4; }

// Four bytes, of which the first `n` count.
static uint four(__global const uchar *bytes, uint n)
{
    uint word = 0;
    for (uint j = 0; j < min(n, 4u); j++)
        word |= (uint)bytes[j] << 8 * j;
    return word;
}

__kernel void kvcl_rest_store(__global const uchar *streams, ulong streams_off,
                              __global const uint *used, ulong used_off, __global const uint *rungs,
                              ulong rungs_off, __global const uchar *gains, ulong gains_off,
                              __global uchar *pool, ulong pool_off, __global const int *slots,
                              ulong slots_off, __global int *bad, ulong bad_off, REST_SHAPE,
                              uint n_heads)
{
    __local uint total;
    uint page = (uint)get_group_id(0), items = (uint)get_local_size(0);
    uint head = head_bytes(n_parts), bytes = used[used_off + page], rung = rungs[rungs_off + page];
    __global uint *words =
        (__global uint *)(pool + pool_off + (ulong)slots[slots_off + page] * page_bytes);
    streams += streams_off + (ulong)page * (page_bytes - head);
    gains += gains_off + page * n_parts;
    uint first = bytes + ((rung & LAST_RUNG) << 20), sum = 0;
    if (get_local_id(0) == 0)
        total = kvcl_mix(first + kvcl_mix(0));
    SYNC;
    EACH(i, page_bytes / 4 - 2)
    {
        uint at = 4 * i + 8, from = at - head;
        uint word = at < head      ? four(gains + 4 * i, n_parts - 4 * i)
                    : from < bytes ? four(streams + from, bytes - from)
                                   : 0;
        words[2 + i] = word;
        sum += kvcl_mix(word + kvcl_mix(2 + i));
    }
    atomic_add(&total, sum);
    SYNC;
    if (get_local_id(0) == 0) {
        words[0] = first;
        words[1] = total;
    }
    EACH(h, n_heads)
    {
        bad[bad_off + page * n_heads + h] = bytes ? (int)(rung / (LAST_RUNG + 1)) : 0;
    }
}

__kernel void kvcl_rest_open(__global const uchar *pool, ulong pool_off, __global const int *slots,
                             ulong slots_off, __global const short *scales, ulong scales_off,
                             __global uint *places, ulong places_off, __global uchar *models,
                             ulong models_off, REST_SHAPE)
{
    __local uint total;
    uint page = (uint)get_group_id(0), items = (uint)get_local_size(0), head = head_bytes(n_parts);
    uint at = (uint)slots[slots_off + page];
    __global const uint *slot = (__global const uint *)(pool + pool_off + (ulong)at * page_bytes);
    uint first = slot[0], bytes = first & 0xfffffu;
    if (get_local_id(0) == 0)
        total = kvcl_mix(first + kvcl_mix(0));
    SYNC;
    atomic_add(&total, checksum(slot, page_bytes / 4, items));
    SYNC;
    EACH(row, n_rows)
    {
        models[models_off + (ulong)page * n_rows + row] =
            (uchar)kvcl_rest_model(scales[scales_off + row], first >> 20 & LAST_RUNG);
    }
    if (get_local_id(0) == 0) {
        places[places_off + 2 * page] = at * (page_bytes / 4) + head / 4;
        places[places_off + 2 * page + 1] =
            bytes <= page_bytes - head && total == slot[1] ? bytes : 0;
    }
}

__kernel void kvcl_rest_norms(__global const uchar *pool, ulong pool_off, __global const int *slots,
                              ulong slots_off, __global const uint *bad, ulong bad_off,
                              __global uchar *out, ulong out_off, __global uint *fault,
                              ulong fault_off, REST_SHAPE, uint stride_bytes, uint first_page)
{
    uint page = (uint)get_group_id(0), items = (uint)get_local_size(0), n = n_cols / 4;
    __global const uchar *slot = pool + pool_off + (ulong)slots[slots_off + page] * page_bytes;
    float step = kvcl_rest_step(*(__global const uint *)slot >> 20 & LAST_RUNG);
    uint wrong = bad[bad_off + page];
    out += out_off + (ulong)page * stride_bytes + n_rows * n_cols;
    EACH(i, n_parts * n)
    {
        float gain = (float)(192 + slot[8 + i / n]) * 0.00390625f; // 1/256
        ((__global ushort *)out)[i] = wrong ? 0 : (ushort)kvcl_half_store(step * gain);
    }
    if (get_local_id(0) == 0 && wrong)
        atomic_max(fault + fault_off, first_page + page + 1);
}
