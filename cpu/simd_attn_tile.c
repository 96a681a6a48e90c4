/* simd_attn_tile.c - partials of one page for the rows of a task.  Definition: cpu/attn.c
 *
 * Scores: vectors across tokens, K being [D][64].  Outputs: vectors across dimensions, lane after
 * lane in the order in which the halving tree wants them. */
#include "simd_attn.h"

/* vectors that stand beside each other in registers */
#define N_VEC(rows) (V16_REGS == 1 || (rows) == 1 ? 4u : (rows) <= 3 ? 2u : 1u)

/* ---- scores -------------------------------------------------------------------------------- */

/* Asks for what stands in the next page where 16 nv values of this one are read.  Pages are far
 * apart, so that the processor does not foresee them, and take as long to come as to compute: so
 * all the while and a little at a time, since a core waits for two dozen lines at most. */
KVCL_INLINE void ask_for(const unsigned char *next, size_t at, size_t bytes)
{
    if (next && at % 64 == 0)
        attn_ask(next + at, bytes);
}

/* Tokens t .. t + 16 nv - 1 of `rows` rows; type, rows and nv are constants. */
KVCL_INLINE void score_part(kvcl_type type, uint32_t rows, uint32_t nv, const attn_task *tk,
                            const attn_page *pg, uint32_t first, uint32_t t)
{
    uint32_t D = tk->D;
    size_t size = type == KVCL_F16 ? 2 : 4;
    const unsigned char *k = pg->k + t * size;
    const float *q = tk->w.q + (size_t)first * tk->pitch;
    v16 acc[ATTN_TILE][4];
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        acc[r][j] = v16_set(0.0f);
    for (uint32_t d = 0; d < D; d++, k += KVCL_TOKENS * size) {
        v16 kv[4];
        KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++)
            kv[j] = v16_load_type(type, k + 16 * j * size);
        ask_for(pg->next_k, (d * KVCL_TOKENS + t) * size, 16 * nv * size);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            v16 qd = v16_set(q[r * tk->pitch + d]);
            KVCL_UNROLL
            for (uint32_t j = 0; j < nv; j++)
                acc[r][j] = v16_fma(qd, kv[j], acc[r][j]);
        }
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        v16_store(tk->w.p[r] + t + 16 * j, v16_plus_zero(acc[r][j]));
}

KVCL_INLINE void scores(kvcl_type type, uint32_t rows, const attn_task *tk, const attn_page *pg,
                        uint32_t first)
{
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16 * N_VEC(rows))
        score_part(type, rows, N_VEC(rows), tk, pg, first, t);
}

static const float count16[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* p[t] = exp(s[t] - m) in place, 0 outside of [from, to); m and l. */
static void softmax(float *p, uint32_t from, uint32_t to, float *m_out, float *l_out)
{
    v16 s[4] = {v16_load(p), v16_load(p + 16), v16_load(p + 32), v16_load(p + 48)};
    v16 none = v16_set(-INFINITY);
    if (from > 0 || to < KVCL_TOKENS)
        KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        v16 t = v16_add(v16_load(count16), v16_set((float)(16 * j)));
        s[j] = v16_select_lt(t, v16_set((float)to), s[j], none);
        s[j] = v16_select_lt(t, v16_set((float)from), none, s[j]);
    }
    float m = v16_max_lane(v16_max(v16_max(s[0], s[1]), v16_max(s[2], s[3])));
    KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        v16_store(p + 16 * j, v16_exp(v16_sub(s[j], v16_set(m))));
    v8 l = v8_zero();
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 8)
        l = v8_add(l, v8_load(p + t));
    *m_out = m;
    *l_out = v8_tree(l);
}

/* ---- outputs ------------------------------------------------------------------------------- */

/* Adds up lane `lane`: tokens lane, lane + 8 ... */
KVCL_INLINE void lane_sum(kvcl_type type, uint32_t rows, uint32_t nv, uint32_t lane,
                          const attn_task *tk, const attn_page *pg, uint32_t d,
                          v16 acc[ATTN_TILE][4])
{
    size_t size = type == KVCL_F16 ? 2 : 4;
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        acc[r][j] = v16_set(0.0f);
    for (uint32_t t = lane; t < KVCL_TOKENS; t += KVCL_ATTN_LANES) {
        const unsigned char *v = pg->v + ((size_t)t * pg->v_pitch + d) * size;
        v16 vv[4];
        ask_for(pg->next_v, ((size_t)t * pg->v_pitch + d) * size, 16 * nv * size);
        KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++)
            vv[j] = v16_load_type(type, v + 16 * j * size);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            v16 p = v16_set(tk->w.p[r][t]);
            KVCL_UNROLL
            for (uint32_t j = 0; j < nv; j++)
                acc[r][j] = v16_fma(p, vv[j], acc[r][j]);
        }
    }
}

/* Dimensions d .. d + 16 nv - 1.  ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)) */
KVCL_INLINE void output_part(kvcl_type type, uint32_t rows, uint32_t nv, const attn_task *tk,
                             const attn_page *pg, float *o, uint32_t d)
{
    v16 acc[ATTN_TILE][4], sum[3][ATTN_TILE][4];
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t half = i / 4, lane = half + (i % 2) * 4 + (i / 2 % 2) * 2;
        lane_sum(type, rows, nv, lane, tk, pg, d, acc);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++)
            KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++) {
            v16 x = acc[r][j];
            if (i % 2 == 1)
                x = v16_add(sum[2][r][j], x);
            if (i % 4 == 3)
                x = v16_add(sum[1][r][j], x);
            if (i == 7)
                v16_store(o + r * ATTN_PAGES * tk->pitch + d + 16 * j,
                          v16_plus_zero(v16_add(sum[0][r][j], x)));
            else
                sum[i % 2 == 0 ? 2 : i % 4 == 1 ? 1 : 0][r][j] = x;
        }
    }
}

KVCL_INLINE void outputs(kvcl_type type, uint32_t rows, const attn_task *tk, const attn_page *pg,
                         uint32_t first)
{
    float *o = tk->w.o + ((size_t)first * ATTN_PAGES + pg->c) * tk->pitch;
    uint32_t d = 0;
    for (; d + 16 * N_VEC(rows) <= tk->pitch; d += 16 * N_VEC(rows))
        output_part(type, rows, N_VEC(rows), tk, pg, o, d);
    for (; d < tk->pitch; d += 16)
        output_part(type, rows, 1, tk, pg, o, d);
}

/* ---- tiles --------------------------------------------------------------------------------- */

#define EACH_COUNT(f, type, rows, ...)       \
    do {                                     \
        switch (rows) {                      \
        case 1:                              \
            f(type, 1, __VA_ARGS__);         \
            break;                           \
        case 2:                              \
            f(type, 2, __VA_ARGS__);         \
            break;                           \
        case 3:                              \
            f(type, 3, __VA_ARGS__);         \
            break;                           \
        case 4:                              \
            f(type, 4, __VA_ARGS__);         \
            break;                           \
        case 5:                              \
            f(type, 5, __VA_ARGS__);         \
            break;                           \
        default:                             \
            f(type, ATTN_TILE, __VA_ARGS__); \
            break;                           \
        }                                    \
    } while (0)

static void tile_scores(uint32_t rows, const attn_task *tk, const attn_page *pg, uint32_t first)
{
    if (pg->type_k == KVCL_F16)
        EACH_COUNT(scores, KVCL_F16, rows, tk, pg, first);
    else
        EACH_COUNT(scores, KVCL_F32, rows, tk, pg, first);
}

static void tile_outputs(uint32_t rows, const attn_task *tk, const attn_page *pg, uint32_t first)
{
    if (pg->type_v == KVCL_F16)
        EACH_COUNT(outputs, KVCL_F16, rows, tk, pg, first);
    else
        EACH_COUNT(outputs, KVCL_F32, rows, tk, pg, first);
}

/* Rows [first, end) of the task, which all see something of the page. */
void KVCL_SIMD_FN(attn_rows)(const attn_task *tk, const attn_page *pg, uint32_t first, uint32_t end)
{
    uint32_t per_tile = kvcl_div_up(end - first, kvcl_div_up(end - first, ATTN_TILE));
    for (; first < end; first += per_tile) {
        uint32_t rows = kvcl_min_u32(per_tile, end - first);
        tile_scores(rows, tk, pg, first);
        for (uint32_t r = first; r < first + rows; r++) {
            uint32_t to = kvcl_min_u32(KVCL_TOKENS, attn_row_end(tk, r) - pg->begin);
            size_t at = (size_t)r * ATTN_PAGES + pg->c;
            softmax(tk->w.p[r - first], pg->from, to, tk->w.m + at, tk->w.l + at);
        }
        tile_outputs(rows, tk, pg, first);
    }
}
