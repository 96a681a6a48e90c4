// rans.cl - the entropy coder of pages.  Twin: cpu/rans.c, which explains the stream.
//
// Lane shape: a group of 32 work-items per page, item j is lane j.  Who takes or leaves a word when
// is a vote of the lanes: a mask in local memory, one barrier each.  A step whose plain bits need a
// second vote is a second round of the same loop: no barrier stands in a condition.
//   local memory: 24 bytes of masks, 256 of the tail's words
// Vector shape: one work-item per page, as the twin does it.

#define LANES KVCL_RANS_LANES
#define SPARE_WORDS (KVCL_RANS_SPARE + 2 * LANES)
#define MAX_TAIL_STEPS 255u

#define RANS_SHAPE uint n_pages, uint n_rows, uint n_cols, uint model_stride, uint value_stride
#define RANS_ENC_PARAMS                                                                        \
    __global const uchar *values, ulong values_off, __global const uchar *models,              \
        ulong models_off, __global const uint *table, ulong table_off, __global uint *streams, \
        ulong streams_off, __global uint *used, ulong used_off, RANS_SHAPE, uint slot_bytes
#define RANS_DEC_PARAMS                                                                        \
    __global const uint *streams, ulong streams_off, __global const uint *places,              \
        ulong places_off, __global const uchar *models, ulong models_off,                      \
        __global const uint *table, ulong table_off, __global uchar *values, ulong values_off, \
        __global uint *bad, ulong bad_off, RANS_SHAPE, ulong streams_bytes

typedef struct rans_page {
    __global const uint *table;
    __global const uchar *models;
    uint n_cols;
} rans_page;

static uint entry_of(rans_page p, uint i, uint index)
{
    return p.table[p.models[i / p.n_cols] * KVCL_RANS_WORDS + index];
}

static uint steps_of(uint n) { return (n + LANES - 1) / LANES; }

// The first value of the tail.
static uint tail_begin(uint n, uint steps)
{
    return steps == 0 ? n : LANES * (steps_of(n) - steps);
}

// What the parts of a page's stream are.
typedef struct rans_parts {
    uint tall, height, steps; // height: words
} rans_parts;

static uint lower_lanes(uint mask, uint lane) { return popcount(mask & ((1u << lane) - 1)); }

static uint stream_bytes(uint height, uint tall)
{
    return KVCL_RANS_LEAST + 2 * height + popcount(tall);
}

// Is there a stream at this place, with parts that add up and a possible tail?
static uint read_parts(__global const uint *streams, ulong streams_bytes, uint offset, uint bytes,
                       uint n, rans_parts *p)
{
    ulong at = 4 * (ulong)offset;
    if (bytes < KVCL_RANS_LEAST || at > streams_bytes || bytes > streams_bytes - at)
        return 0;
    p->tall = streams[offset];
    uint least = stream_bytes(0, p->tall);
    if (bytes < least || (bytes - least) % 2 != 0)
        return 0;
    p->height = (bytes - least) / 2;
    p->steps = ((__global const uchar *)(streams + offset))[KVCL_RANS_HEAD + 2 * p->height];
    return p->steps <= steps_of(n);
}

static uint read_state(__global const uint *stream, rans_parts p, uint lane)
{
    __global const uchar *bytes = (__global const uchar *)stream;
    uint x = ((__global const ushort *)stream)[2 + lane] | (uint)bytes[68 + lane] << 16;
    uint top = KVCL_RANS_LEAST + 2 * p.height + lower_lanes(p.tall, lane);
    return p.tall >> lane & 1 ? x | (uint)bytes[top] << 24 : x;
}

static void write_state(__global uint *stream, rans_parts p, uint lane, uint x)
{
    __global uchar *bytes = (__global uchar *)stream;
    ((__global ushort *)stream)[2 + lane] = (ushort)x;
    bytes[68 + lane] = (uchar)(x >> 16);
    if (p.tall >> lane & 1)
        bytes[KVCL_RANS_LEAST + 2 * p.height + lower_lanes(p.tall, lane)] = (uchar)(x >> 24);
    if (lane == 0) {
        stream[0] = p.tall;
        bytes[KVCL_RANS_HEAD + 2 * p.height] = (uchar)p.steps;
    }
}

// A state after a symbol; e is the entry of its slot, or its value's entry.
static uint decoded(uint x, uint e) { return kvcl_rans_freq(e) * (x >> 12) + kvcl_rans_place(e); }
static uint encoded(uint x, uint e)
{
    uint f = kvcl_rans_freq(e), q = x / f;
    return (q << 12) + kvcl_rans_place(e) + kvcl_rest(x, q, f);
}

#if KVCL_VECTOR_SHAPE

// The words: a page's in global memory, or, where that is NULL, the tail's.
typedef struct rans_words {
    __global ushort *page;
    ushort *tail;
    uint cap; // of the page
} rans_words;

static uint push(uint x, uint limit, rans_words w, uint *n)
{
    if (x < limit)
        return x;
    if (!w.page)
        w.tail[*n] = (ushort)x;
    else if (*n < w.cap)
        w.page[*n] = (ushort)x;
    *n += 1;
    return x >> 16;
}

static void encode(rans_page p, __global const uchar *values, uint first, uint end, uint lanes,
                   rans_words w, uint *n, uint *x)
{
    for (uint i = (end + lanes - 1) / lanes * lanes; i > first;) {
        i -= lanes;
        uint some = min(lanes, end - i);
        for (uint j = 0; j < some; j++) {
            uint v = values[i + j];
            if (kvcl_rans_escapes(entry_of(p, i + j, v)))
                x[j] = push(x[j], 1u << 24, w, n) << 8 | v;
        }
        for (uint j = 0; j < some; j++) {
            uint e = entry_of(p, i + j, values[i + j]);
            x[j] = encoded(push(x[j], kvcl_rans_freq(e) << 20, w, n), e);
        }
    }
}

static uint pop(uint x, rans_words w, int *n)
{
    if (x >= KVCL_RANS_LOW)
        return x;
    *n -= 1;
    return x << 16 | (*n < 0 ? 0u : (uint)(w.page ? w.page[*n] : w.tail[*n]));
}

static void decode(rans_page p, __global uchar *values, uint first, uint end, uint lanes,
                   rans_words w, int *n, uint *x)
{
    for (uint i = first; i < end && *n >= 0; i += lanes) {
        uint escaped = 0, some = min(lanes, end - i);
        for (uint j = some; j-- > 0;) {
            uint e = entry_of(p, i + j, KVCL_RANS_SLOTS + (x[j] & 4095));
            values[i + j] = (uchar)e;
            escaped |= kvcl_rans_escapes(e) << j;
            x[j] = pop(decoded(x[j], e), w, n);
        }
        for (uint j = some; escaped && j-- > 0;)
            if (escaped >> j & 1) {
                values[i + j] = (uchar)x[j];
                x[j] = pop(x[j] >> 8, w, n);
            }
    }
}

static uint models_known(rans_page p, uint n_rows)
{
    uint most = 0;
    for (uint r = 0; r < n_rows; r++)
        most = max(most, (uint)p.models[r]);
    return most < KVCL_RANS_MODELS;
}

static uint encode_tail(rans_page p, __global const uchar *values, uint n, uint *x)
{
    ushort tail[SPARE_WORDS];
    uint more[KVCL_RANS_TAIL_LANES], steps = 0, height = 0;
    uint most = min(MAX_TAIL_STEPS, steps_of(n));
    rans_words w = {0, tail, 0};
    for (uint j = 0; j < LANES; j++)
        x[j] = KVCL_RANS_LOW;
    for (; steps < most; steps++) {
        uint h = height;
        for (uint j = 0; j < KVCL_RANS_TAIL_LANES; j++)
            more[j] = x[j];
        encode(p, values, tail_begin(n, steps + 1), tail_begin(n, steps), KVCL_RANS_TAIL_LANES, w,
               &h, more);
        if (h > KVCL_RANS_SPARE)
            break;
        for (uint j = 0; j < KVCL_RANS_TAIL_LANES; j++)
            x[j] = more[j];
        height = h;
    }
    for (uint k = 0; k < height; k++)
        x[LANES - height + k] |= tail[k];
    return steps;
}

__kernel void kvcl_rans_enc_vec(RANS_ENC_PARAMS)
{
    uint page = (uint)get_global_id(0), n = n_rows * n_cols, height = 0, x[LANES];
    if (page >= n_pages)
        return;
    rans_page p = {table + table_off, models + models_off + (ulong)page * model_stride, n_cols};
    used[used_off + page] = 0;
    if (!models_known(p, n_rows))
        return;
    values += values_off + (ulong)page * value_stride;
    streams += streams_off + (ulong)page * (slot_bytes / 4);
    uint steps = encode_tail(p, values, n, x);
    rans_words w = {(__global ushort *)(streams + KVCL_RANS_HEAD / 4), 0,
                    (slot_bytes - KVCL_RANS_LEAST) / 2};
    encode(p, values, 0, tail_begin(n, steps), LANES, w, &height, x);
    rans_parts parts = {0, height, steps};
    for (uint j = 0; j < LANES; j++)
        parts.tall |= (uint)(x[j] >> 24 != 0) << j;
    if (stream_bytes(height, parts.tall) > slot_bytes)
        return;
    for (uint j = 0; j < LANES; j++)
        write_state(streams, parts, j, x[j]);
    used[used_off + page] = stream_bytes(height, parts.tall);
}

static uint decode_tail(rans_page p, __global uchar *values, uint first, uint n, uint *x)
{
    ushort tail[KVCL_RANS_SPARE];
    int height = KVCL_RANS_SPARE;
    uint wrong = 0;
    rans_words w = {0, tail, 0};
    for (uint k = 0; k < KVCL_RANS_SPARE; k++) {
        tail[k] = (ushort)x[KVCL_RANS_TAIL_LANES + k];
        wrong |= (x[KVCL_RANS_TAIL_LANES + k] >> 16) ^ 1;
    }
    decode(p, values, first, n, KVCL_RANS_TAIL_LANES, w, &height, x);
    for (int k = 0; k < height; k++)
        wrong |= tail[k];
    for (uint j = 0; j < KVCL_RANS_TAIL_LANES; j++)
        wrong |= x[j] ^ KVCL_RANS_LOW;
    return wrong == 0 && height >= 0;
}

__kernel void kvcl_rans_dec_vec(RANS_DEC_PARAMS)
{
    uint page = (uint)get_global_id(0), n = n_rows * n_cols, x[LANES], good;
    if (page >= n_pages)
        return;
    rans_page p = {table + table_off, models + models_off + (ulong)page * model_stride, n_cols};
    uint offset = places[places_off + 2 * page], bytes = places[places_off + 2 * page + 1];
    values += values_off + (ulong)page * value_stride;
    streams += streams_off;
    rans_parts parts;
    good = models_known(p, n_rows) && read_parts(streams, streams_bytes, offset, bytes, n, &parts);
    if (good) {
        streams += offset;
        int height = (int)parts.height;
        uint n_main = tail_begin(n, parts.steps);
        rans_words w = {(__global ushort *)(streams + KVCL_RANS_HEAD / 4), 0, 0};
        for (uint j = 0; j < LANES; j++)
            x[j] = read_state(streams, parts, j);
        decode(p, values, 0, n_main, LANES, w, &height, x);
        good = height == 0 && decode_tail(p, values, n_main, n, x);
    }
    bad[bad_off + page] = !good;
    for (uint i = 0; !good && i < n; i++)
        values[i] = 0;
}

#else

// The votes of a group: three pairs of masks in turn, so that one barrier each is enough.
typedef struct rans_votes {
    __local uint *masks;
    uint turn, lane;
} rans_votes;

// Two questions to all lanes; bit j of the answers is lane j's.
static uint2 vote(rans_votes *v, uint yes0, uint yes1)
{
    __local uint *now = v->masks + 2 * v->turn, *before = v->masks + 2 * ((v->turn + 2) % 3);
    if (yes0)
        atomic_or(now, 1u << v->lane);
    if (yes1)
        atomic_or(now + 1, 1u << v->lane);
    barrier(CLK_LOCAL_MEM_FENCE);
    uint2 answer = (uint2)(now[0], now[1]);
    if (v->lane == 0)
        before[0] = before[1] = 0;
    v->turn = (v->turn + 1) % 3;
    return answer;
}

static rans_votes votes_begin(__local uint *masks)
{
    rans_votes v = {masks, 0, (uint)get_local_id(0)};
    if (v.lane < 6)
        masks[v.lane] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    return v;
}

static uint models_known(rans_page p, uint n_rows, rans_votes *v)
{
    uint most = 0;
    for (uint r = v->lane; r < n_rows; r += LANES)
        most = max(most, (uint)p.models[r]);
    return vote(v, most >= KVCL_RANS_MODELS, 0).x == 0;
}

// The words: a page's in global memory, or, where that is NULL, the tail's.
typedef struct rans_words {
    __global ushort *page;
    __local ushort *tail;
    uint cap; // of the page
} rans_words;

// Makes room in the states of the lanes that are meant and not below their limit.
static uint push(uint x, uint limit, uint meant, rans_words w, uint *n, rans_votes *votes)
{
    uint over = meant & (x >= limit);
    uint all = vote(votes, over, 0).x, k = *n + lower_lanes(all, votes->lane);
    if (over && !w.page)
        w.tail[k] = (ushort)x;
    else if (over && k < w.cap)
        w.page[k] = (ushort)x;
    *n += popcount(all);
    return over ? x >> 16 : x;
}

// What a lane has of values [first, end): x its state.
static uint encode(rans_page p, __global const uchar *values, uint first, uint end, uint lanes,
                   rans_words w, uint *n, uint x, rans_votes *votes)
{
    uint lane = votes->lane;
    for (uint i = (end + lanes - 1) / lanes * lanes; i > first;) {
        i -= lanes;
        uint active = (lane < lanes) & (i + lane < end), v = active ? values[i + lane] : 0;
        uint e = active ? entry_of(p, i + lane, v) : 1u << 20;
        uint plain = active & kvcl_rans_escapes(e);
        x = push(x, 1u << 24, plain, w, n, votes);
        x = plain ? x << 8 | v : x;
        x = push(x, kvcl_rans_freq(e) << 20, active, w, n, votes);
        x = active ? encoded(x, e) : x;
    }
    return x;
}

static uint decode(rans_page p, __global uchar *values, uint first, uint end, uint lanes,
                   rans_words w, int *n, uint x, rans_votes *votes)
{
    uint lane = votes->lane, waiting = 0; // lanes whose plain bits are to come
    for (uint i = first; i < end && *n >= 0;) {
        uint active = (lane < lanes) & (i + lane < end), mine = active, v = 0, escapes = 0;
        if (waiting) {
            mine = waiting >> lane & 1;
            v = x & 255;
            x = mine ? x >> 8 : x;
        } else if (mine) {
            uint e = entry_of(p, i + lane, KVCL_RANS_SLOTS + (x & 4095));
            v = e & 255;
            escapes = kvcl_rans_escapes(e);
            x = decoded(x, e);
        }
        if (mine)
            values[i + lane] = (uchar)v;
        uint under = mine && x < KVCL_RANS_LOW;
        uint2 all = vote(votes, under, escapes);
        *n -= (int)popcount(all.x);
        int k = *n + (int)lower_lanes(all.x, lane);
        if (under)
            x = x << 16 | (k < 0 ? 0u : (uint)(w.page ? w.page[k] : w.tail[k]));
        waiting = all.y;
        i += waiting ? 0 : lanes;
    }
    return x;
}

static uint encode_tail(rans_page p, __global const uchar *values, uint n, __local ushort *tail,
                        uint *x, rans_votes *votes)
{
    uint most = min(MAX_TAIL_STEPS, steps_of(n)), steps = 0, height = 0, fits = 1;
    uint lane = votes->lane;
    rans_words w = {0, tail, 0};
    *x = KVCL_RANS_LOW;
    while (fits && steps < most) {
        uint h = height;
        uint more = encode(p, values, tail_begin(n, steps + 1), tail_begin(n, steps),
                           KVCL_RANS_TAIL_LANES, w, &h, *x, votes);
        fits = h <= KVCL_RANS_SPARE;
        steps += fits;
        *x = fits ? more : *x;
        height = fits ? h : height;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (lane >= LANES - height)
        *x |= tail[lane - (LANES - height)];
    return steps;
}

__kernel void kvcl_rans_enc(RANS_ENC_PARAMS)
{
    __local uint masks[6];
    __local ushort tail[SPARE_WORDS];
    uint page = (uint)get_group_id(0), n = n_rows * n_cols, height = 0, x;
    rans_votes votes = votes_begin(masks);
    rans_page p = {table + table_off, models + models_off + (ulong)page * model_stride, n_cols};
    values += values_off + (ulong)page * value_stride;
    streams += streams_off + (ulong)page * (slot_bytes / 4);
    // (a page of unknown models has no values, as far as the loops are concerned)
    uint known = models_known(p, n_rows, &votes);
    uint steps = encode_tail(p, values, known ? n : 0, tail, &x, &votes);
    rans_words w = {(__global ushort *)(streams + KVCL_RANS_HEAD / 4), tail,
                    (slot_bytes - KVCL_RANS_LEAST) / 2};
    x = encode(p, values, 0, known ? tail_begin(n, steps) : 0, LANES, w, &height, x, &votes);
    rans_parts parts = {vote(&votes, x >> 24 != 0, 0).x, height, steps};
    uint fits = known && stream_bytes(height, parts.tall) <= slot_bytes;
    if (votes.lane == 0)
        used[used_off + page] = fits ? stream_bytes(height, parts.tall) : 0;
    if (fits)
        write_state(streams, parts, votes.lane, x);
}

__kernel void kvcl_rans_dec(RANS_DEC_PARAMS)
{
    __local uint masks[6];
    __local ushort tail[KVCL_RANS_SPARE];
    uint page = (uint)get_group_id(0), n = n_rows * n_cols, lane = (uint)get_local_id(0);
    uint offset = places[places_off + 2 * page], bytes = places[places_off + 2 * page + 1];
    rans_votes votes = votes_begin(masks);
    rans_page p = {table + table_off, models + models_off + (ulong)page * model_stride, n_cols};
    values += values_off + (ulong)page * value_stride;
    streams += streams_off;
    rans_parts parts = {0, 0, 0};
    uint good = read_parts(streams, streams_bytes, offset, bytes, n, &parts);
    good = models_known(p, n_rows, &votes) && good;
    streams += good ? offset : 0;
    uint n_main = good ? tail_begin(n, parts.steps) : 0;
    uint x = good ? read_state(streams, parts, lane) : 0;
    int height = (int)parts.height, spare = KVCL_RANS_SPARE;
    rans_words w = {(__global ushort *)(streams + KVCL_RANS_HEAD / 4), 0, 0};
    x = decode(p, values, 0, n_main, LANES, w, &height, x, &votes);
    good = good && height == 0;
    uint wrong = lane >= KVCL_RANS_TAIL_LANES && x >> 16 != 1;
    if (lane >= KVCL_RANS_TAIL_LANES)
        tail[lane - KVCL_RANS_TAIL_LANES] = (ushort)x;
    barrier(CLK_LOCAL_MEM_FENCE);
    rans_words t = {0, tail, 0};
    x = decode(p, values, n_main, good ? n : 0, KVCL_RANS_TAIL_LANES, t, &spare, x, &votes);
    wrong |= lane < KVCL_RANS_TAIL_LANES && x != KVCL_RANS_LOW;
    wrong |= (int)lane < spare && tail[min(lane, KVCL_RANS_SPARE - 1)] != 0;
    good = vote(&votes, wrong, 0).x == 0 && good && spare >= 0;
    if (lane == 0)
        bad[bad_off + page] = !good;
    barrier(CLK_GLOBAL_MEM_FENCE);
    for (uint i = lane; !good && i < n; i += LANES)
        values[i] = 0;
}

#endif
