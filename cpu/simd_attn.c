/* simd_attn.c - attention by partials over raw pages, and their merge.  Definition: cpu/attn.c
 *
 * A task is one page of one kv head against a block of queries; the rows of a tile are queries'
 * heads that share it.  Scores: vectors across tokens, K being [D][64].  Outputs: vectors across
 * dimensions, lane after lane in the order in which the halving tree wants them.
 *
 * A row that sees only part of the page has p = 0 beyond, and fma(0, v, sum) is the sum as long as
 * v is finite (a lane's -0 can turn +0, which no sum shows once its own -0 is +0).  So such pages
 * go through scratch, with zeros in place of what nobody sees; should a value there be infinite or
 * not a number, they go query by query, and each finds zeros beyond itself. */
#include "simd.h"

#define TILE 6 /* rows in registers */
/* from so many rows on it pays to expand a page to f32 first */
#define EXPAND_ROWS 12
#define BLOCK 64    /* queries of a task */
#define MAX_DIM 256 /* of a head */

/* vectors that stand beside each other in registers */
#define N_VEC(rows) (V16_REGS == 1 || (rows) == 1 ? 4u : (rows) <= 3 ? 2u : 1u)

typedef struct page_task {
    const kvcl_attn_raw_args *a;
    uint32_t hk, page;
    uint32_t i, end;            /* queries */
    uint32_t group;             /* query heads of a kv head */
    const unsigned char *k, *v; /* [D][64]; [64][v_pitch] */
    kvcl_type type_k, type_v;
    uint32_t v_pitch;
} page_task;

typedef struct tile {
    float q[TILE * MAX_DIM]; /* scaled */
    float p[TILE][KVCL_TOKENS];
    float *o[TILE];           /* [D rounded up to 16] */
    float out[TILE][MAX_DIM]; /* for heads that end inside a vector */
} tile;

/* ---- scores -------------------------------------------------------------------------------- */

/* Tokens t .. t + 16 nv - 1 of `rows` rows; type, rows and nv are constants.  Asks for the page of
 * values on the way: its turn comes next. */
KVCL_INLINE void score_part(kvcl_type type, uint32_t rows, uint32_t nv, const page_task *pt,
                            tile *tl, uint32_t t)
{
    uint32_t D = pt->a->head_dim;
    size_t size = type == KVCL_F16 ? 2 : 4;
    const unsigned char *k = pt->k + t * size;
    v16 acc[TILE][4];
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
        if (type == KVCL_F16 && t == 0)
            for (uint32_t b = 0; b < KVCL_TOKENS * 2; b += 64)
                __builtin_prefetch(pt->v + (size_t)d * KVCL_TOKENS * 2 + b, 0, 3);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            v16 q = v16_set(tl->q[r * D + d]);
            KVCL_UNROLL
            for (uint32_t j = 0; j < nv; j++)
                acc[r][j] = v16_fma(q, kv[j], acc[r][j]);
        }
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        v16_store(tl->p[r] + t + 16 * j, v16_plus_zero(acc[r][j]));
}

KVCL_INLINE void scores(kvcl_type type, uint32_t rows, const page_task *pt, tile *tl)
{
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16 * N_VEC(rows))
        score_part(type, rows, N_VEC(rows), pt, tl, t);
}

static const float count16[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* p[t] = exp(s[t] - m) in place, 0 from n_valid on; m and l. */
static void softmax(float *p, uint32_t n_valid, float *ml)
{
    v16 s[4] = {v16_load(p), v16_load(p + 16), v16_load(p + 32), v16_load(p + 48)};
    if (n_valid < KVCL_TOKENS)
        KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        v16 seen = v16_set((float)n_valid - (float)(16 * j));
        s[j] = v16_select_lt(v16_load(count16), seen, s[j], v16_set(-INFINITY));
    }
    float m = v16_max_lane(v16_max(v16_max(s[0], s[1]), v16_max(s[2], s[3])));
    KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        v16_store(p + 16 * j, v16_exp(v16_sub(s[j], v16_set(m))));
    v8 l = v8_zero();
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 8)
        l = v8_add(l, v8_load(p + t));
    ml[0] = m;
    ml[1] = v8_tree(l);
}

/* ---- outputs ------------------------------------------------------------------------------- */

/* Adds up lane `lane`: tokens lane, lane + 8 ... */
KVCL_INLINE void lane_sum(kvcl_type type, uint32_t rows, uint32_t nv, uint32_t lane,
                          const page_task *pt, const tile *tl, uint32_t d, v16 acc[TILE][4])
{
    size_t size = type == KVCL_F16 ? 2 : 4;
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t j = 0; j < nv; j++)
        acc[r][j] = v16_set(0.0f);
    for (uint32_t t = lane; t < KVCL_TOKENS; t += KVCL_ATTN_LANES) {
        const unsigned char *v = pt->v + ((size_t)t * pt->v_pitch + d) * size;
        v16 vv[4];
        KVCL_UNROLL
        for (uint32_t j = 0; j < nv; j++)
            vv[j] = v16_load_type(type, v + 16 * j * size);
        KVCL_UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            v16 p = v16_set(tl->p[r][t]);
            KVCL_UNROLL
            for (uint32_t j = 0; j < nv; j++)
                acc[r][j] = v16_fma(p, vv[j], acc[r][j]);
        }
    }
}

/* Dimensions d .. d + 16 nv - 1.  ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)) */
KVCL_INLINE void output_part(kvcl_type type, uint32_t rows, uint32_t nv, const page_task *pt,
                             tile *tl, uint32_t d)
{
    v16 acc[TILE][4], sum[3][TILE][4];
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t half = i / 4, lane = half + (i % 2) * 4 + (i / 2 % 2) * 2;
        lane_sum(type, rows, nv, lane, pt, tl, d, acc);
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
                v16_store(tl->o[r] + d + 16 * j, v16_plus_zero(v16_add(sum[0][r][j], x)));
            else
                sum[i % 2 == 0 ? 2 : i % 4 == 1 ? 1 : 0][r][j] = x;
        }
    }
}

KVCL_INLINE void outputs(kvcl_type type, uint32_t rows, const page_task *pt, tile *tl)
{
    uint32_t D = pt->a->head_dim, d = 0;
    for (; d + 16 * N_VEC(rows) <= D; d += 16 * N_VEC(rows))
        output_part(type, rows, N_VEC(rows), pt, tl, d);
    for (; d < D; d += 16)
        output_part(type, rows, 1, pt, tl, d);
}

/* ---- tiles --------------------------------------------------------------------------------- */

#define EACH_COUNT(f, type, rows, pt, tl) \
    do {                                  \
        switch (rows) {                   \
        case 1:                           \
            f(type, 1, pt, tl);           \
            break;                        \
        case 2:                           \
            f(type, 2, pt, tl);           \
            break;                        \
        case 3:                           \
            f(type, 3, pt, tl);           \
            break;                        \
        case 4:                           \
            f(type, 4, pt, tl);           \
            break;                        \
        case 5:                           \
            f(type, 5, pt, tl);           \
            break;                        \
        default:                          \
            f(type, TILE, pt, tl);        \
            break;                        \
        }                                 \
    } while (0)

static void tile_scores(uint32_t rows, const page_task *pt, tile *tl)
{
    if (pt->type_k == KVCL_F16)
        EACH_COUNT(scores, KVCL_F16, rows, pt, tl);
    else
        EACH_COUNT(scores, KVCL_F32, rows, pt, tl);
}

static void tile_outputs(uint32_t rows, const page_task *pt, tile *tl)
{
    if (pt->type_v == KVCL_F16)
        EACH_COUNT(outputs, KVCL_F16, rows, pt, tl);
    else
        EACH_COUNT(outputs, KVCL_F32, rows, pt, tl);
}

static void scale_row(const float *restrict x, float scale, float *restrict out, uint32_t n)
{
    for (uint32_t d = 0; d < n; d++)
        out[d] = x[d] * scale;
}

/* Rows [first, first + rows) of the task: row r is head r % group of query i + r / group. */
static void run_tile(const page_task *pt, uint32_t first, uint32_t rows, tile *tl)
{
    const kvcl_attn_raw_args *a = pt->a;
    uint32_t D = a->head_dim, n_valid[TILE];
    float *ml[TILE], *o[TILE];
    for (uint32_t r = 0; r < rows; r++) {
        uint32_t i = pt->i + (first + r) / pt->group;
        uint32_t h = pt->hk * pt->group + (first + r) % pt->group;
        const float *q = (const float *)kvcl_cpu_ptr(a->q) + (size_t)i * a->q_stride + h * D;
        size_t at = ((size_t)i * a->n_q_heads + h) * a->n_parts + pt->page;
        scale_row(q, a->scale, tl->q + r * D, D);
        n_valid[r] = kvcl_min_u32(a->pos0 + i + 1 - pt->page * KVCL_TOKENS, KVCL_TOKENS);
        ml[r] = (float *)kvcl_cpu_ptr(a->ml) + 2 * at;
        o[r] = (float *)kvcl_cpu_ptr(a->o) + at * D;
        tl->o[r] = D % 16 == 0 ? o[r] : tl->out[r];
        for (uint32_t d = 0; d < D; d += 16) /* partials lie far apart: fetch their lines early */
            __builtin_prefetch(o[r] + d, 1, 3);
    }
    tile_scores(rows, pt, tl);
    for (uint32_t r = 0; r < rows; r++)
        softmax(tl->p[r], n_valid[r], ml[r]);
    tile_outputs(rows, pt, tl);
    for (uint32_t r = 0; D % 16 != 0 && r < rows; r++)
        memcpy(o[r], tl->out[r], D * sizeof *tl->out[r]);
}

static void run_rows(const page_task *pt, uint32_t begin, uint32_t end, tile *tl)
{
    for (uint32_t r = begin; r < end; r += TILE)
        run_tile(pt, r, kvcl_min_u32(TILE, end - r), tl);
}

/* The values of the first n_valid tokens in f32, zeros beyond and in the padding of each row;
 * false when one is not finite. */
static bool expand_values(page_task *pt, uint32_t n_valid, float *out)
{
    uint32_t D = pt->a->head_dim, pitch = (uint32_t)kvcl_align_up(D, 16);
    size_t row_bytes = kvcl_type_bytes(pt->type_v, D);
    v16 zero = v16_set(0.0f), finite = zero;
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        float *o = out + (size_t)t * pitch;
        memset(o + (pitch - 16), 0, 16 * sizeof *o);
        if (t >= n_valid)
            memset(o, 0, D * sizeof *o);
        else if (D % 16 == 0)
            KVCL_SIMD_FN(expand_row)(pt->type_v, pt->v + t * row_bytes, D, o);
        else
            kvcl_dequantise(pt->type_v, pt->v + t * row_bytes, D, o);
        for (uint32_t d = 0; d < pitch; d += 16)
            finite = v16_fma(v16_load(o + d), zero, finite);
    }
    pt->v = (const unsigned char *)out;
    pt->type_v = KVCL_F32;
    pt->v_pitch = pitch;
    return v16_tree(finite) == 0.0f;
}

static void run_page(page_task *pt, unsigned char *scratch)
{
    const kvcl_attn_raw_args *a = pt->a;
    uint32_t D = a->head_dim, rows = (pt->end - pt->i) * pt->group;
    uint32_t first_seen = a->pos0 + pt->i + 1 - pt->page * KVCL_TOKENS; /* tokens, by query i */
    uint32_t n_valid = kvcl_min_u32(KVCL_TOKENS, a->pos0 + pt->end - pt->page * KVCL_TOKENS);
    tile *tl = (tile *)(void *)scratch;
    float *v = (float *)(void *)(scratch + kvcl_align_up(sizeof *tl, 64));
    bool many = rows >= EXPAND_ROWS, partly = first_seen < KVCL_TOKENS, finite = true;
    if (many && pt->type_k == KVCL_F16) {
        float *k = v + KVCL_TOKENS * MAX_DIM;
        KVCL_SIMD_FN(expand_row)(KVCL_F16, pt->k, D * KVCL_TOKENS, k);
        pt->k = (const unsigned char *)k;
        pt->type_k = KVCL_F32;
    }
    if ((many && pt->type_v == KVCL_F16) || partly || D % 16 != 0)
        finite = expand_values(pt, n_valid, v);
    if (finite || !partly) {
        run_rows(pt, 0, rows, tl);
        return;
    }
    for (uint32_t i = pt->end; i-- > pt->i;) {
        uint32_t seen = kvcl_min_u32(KVCL_TOKENS, a->pos0 + i + 1 - pt->page * KVCL_TOKENS);
        memset(v + (size_t)seen * pt->v_pitch, 0,
               (size_t)(KVCL_TOKENS - seen) * pt->v_pitch * sizeof *v);
        run_rows(pt, (i - pt->i) * pt->group, (i - pt->i + 1) * pt->group, tl);
    }
}

void KVCL_SIMD_FN(attn_raw)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_raw_args *a = args;
    const int32_t *pages = kvcl_cpu_ptr(a->page_table);
    uint32_t n_blocks = kvcl_div_up(a->n, BLOCK), per_page = n_blocks * a->n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * per_page, 1, &task, &end);) {
        uint32_t slot = task / per_page, block = task % per_page / a->n_kv_heads;
        page_task pt = {.a = a, .hk = task % a->n_kv_heads, .page = a->first_page + slot};
        uint32_t begin = pt.page * KVCL_TOKENS;
        pt.i = kvcl_max_u32(block * BLOCK, begin > a->pos0 ? begin - a->pos0 : 0);
        pt.end = kvcl_min_u32(a->n, (block + 1) * BLOCK);
        if (pt.i >= pt.end)
            continue;
        size_t at = ((size_t)pages[slot] * a->n_kv_heads + pt.hk) * a->head_dim * KVCL_TOKENS;
        pt.group = a->n_q_heads / a->n_kv_heads;
        pt.k = (const unsigned char *)kvcl_cpu_ptr(a->k) + kvcl_type_bytes(a->type_k, at);
        pt.v = (const unsigned char *)kvcl_cpu_ptr(a->v) + kvcl_type_bytes(a->type_v, at);
        pt.type_k = a->type_k;
        pt.type_v = a->type_v;
        pt.v_pitch = a->head_dim;
        run_page(&pt, p->scratch);
    }
}
