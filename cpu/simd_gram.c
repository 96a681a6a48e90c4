/* simd_gram.c - second moments of raw pages and of rows.  Definition: cpu/gram.c
 *
 * A task is 64 rows of one matrix; it makes whole vectors, so that the diagonal's blocks are made
 * in full: what stands above the diagonal there is the same bits. */
#include "simd.h"

#define BLOCK_ROWS 64
#define TILE_ROWS 4

/* Rows of values, token-major, each of `group` vectors; pitch a multiple of 16, or the last vector
 * of a row is cut at D. */
typedef struct gram_rows {
    const float *x;
    size_t pitch;
    uint32_t first, end, step; /* the rows that count */
    uint32_t D, group;
    bool chained; /* sums begin with what gram holds, or are added to it */
} gram_rows;

KVCL_INLINE v16 load_cut(const float *p, uint32_t n)
{
    float x[V16_LANES] = {0};
    if (n >= V16_LANES)
        return v16_load(p);
    memcpy(x, p, n * sizeof *x);
    return v16_load(x);
}

KVCL_INLINE void store_cut(float *p, v16 v, uint32_t n)
{
    float x[V16_LANES];
    if (n >= V16_LANES) {
        v16_store(p, v);
        return;
    }
    v16_store(x, v);
    memcpy(p, x, n * sizeof *x);
}

/* gram rows i .. i + 3, columns j .. j + 16 n - 1 (cut at D). */
KVCL_INLINE void add_tile(const gram_rows *g, uint32_t i, uint32_t j, uint32_t n, float *gram)
{
    v16 sum[TILE_ROWS][2], was[TILE_ROWS][2];
    KVCL_UNROLL
    for (uint32_t r = 0; r < TILE_ROWS; r++)
        KVCL_UNROLL
    for (uint32_t c = 0; c < n; c++) {
        uint32_t at = j + V16_LANES * c;
        was[r][c] = load_cut(gram + (i + r) * g->D + at, g->D - at);
        sum[r][c] = g->chained ? was[r][c] : v16_set(0.0f);
    }
    for (uint32_t t = g->first; t < g->end; t += g->step) {
        const float *x = g->x + t * g->pitch;
        for (uint32_t h = 0; h < g->group; h++, x += g->D) {
            v16 b[2];
            KVCL_UNROLL
            for (uint32_t c = 0; c < n; c++)
                b[c] = load_cut(x + j + V16_LANES * c, g->D - j - V16_LANES * c);
            KVCL_UNROLL
            for (uint32_t r = 0; r < TILE_ROWS; r++) {
                v16 a = v16_set(x[i + r]);
                KVCL_UNROLL
                for (uint32_t c = 0; c < n; c++)
                    sum[r][c] = v16_fma(a, b[c], sum[r][c]);
            }
        }
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < TILE_ROWS; r++)
        KVCL_UNROLL
    for (uint32_t c = 0; c < n; c++) {
        uint32_t at = j + V16_LANES * c;
        v16 out = g->chained ? sum[r][c] : v16_add(sum[r][c], was[r][c]);
        store_cut(gram + (i + r) * g->D + at, out, g->D - at);
    }
}

/* Rows begin .. end - 1 of gram, up to the diagonal's blocks. */
static void add_block(const gram_rows *g, uint32_t begin, uint32_t end, float *gram)
{
    for (uint32_t i = begin; i < end; i += TILE_ROWS) {
        uint32_t j = 0;
        for (; j + V16_LANES <= i && j + 2 * V16_LANES <= g->D; j += 2 * V16_LANES)
            add_tile(g, i, j, 2, gram);
        for (; j <= i; j += V16_LANES)
            add_tile(g, i, j, 1, gram);
    }
}

static void mirror(uint32_t D, uint32_t begin, uint32_t end, float *gram)
{
    for (uint32_t i = begin; i < end; i++)
        for (uint32_t j = 0; j < i; j++)
            gram[j * D + i] = gram[i * D + j];
}

/* A page's K of a head, [D][64], turned: [64][pitch]. */
static void turn_page(const float *k, uint32_t D, size_t pitch, float *out)
{
    for (uint32_t t = 0; t < KVCL_TOKENS; t += V16_LANES) {
        uint32_t d = 0;
        for (; d + V16_LANES <= D; d += V16_LANES) {
            v16 x[V16_LANES];
            KVCL_UNROLL
            for (uint32_t i = 0; i < V16_LANES; i++)
                x[i] = v16_load(k + (size_t)(d + i) * KVCL_TOKENS + t);
            v16_transpose(x);
            KVCL_UNROLL
            for (uint32_t i = 0; i < V16_LANES; i++)
                v16_store(out + (t + i) * pitch + d, x[i]);
        }
        for (; d < D; d++)
            for (uint32_t i = 0; i < V16_LANES; i++)
                out[(t + i) * pitch + d] = k[(size_t)d * KVCL_TOKENS + t + i];
    }
}

/* Rows minus the mean, each slot's transformed. */
static void walsh_slots(float *y, size_t pitch, uint32_t fold, const float *mean)
{
    for (uint32_t t = 0; t < KVCL_TOKENS; t += fold) {
        float *slot = y + t * pitch;
        for (size_t d = 0; d < pitch; d += V16_LANES) {
            for (uint32_t i = 0; i < fold; i++)
                v16_store(slot + i * pitch + d,
                          v16_sub(v16_load(slot + i * pitch + d), v16_load(mean + d)));
            for (uint32_t h = 1; h < fold; h *= 2)
                for (uint32_t i = 0; i < fold; i++)
                    if ((i & h) == 0) {
                        float *p = slot + i * pitch + d, *q = p + h * pitch;
                        v16 a = v16_load(p), b = v16_load(q);
                        v16_store(p, v16_add(a, b));
                        v16_store(q, v16_sub(a, b));
                    }
        }
    }
}

void KVCL_SIMD_FN(gram_pages)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_gram_pages_args *a = args;
    const int32_t *slots = kvcl_cpu_ptr(a->page_table);
    uint32_t D = a->head_dim, Hk = a->n_kv_heads, fold = a->fold;
    uint32_t raw_dim = a->join > 1 ? D / a->join : D;
    uint32_t blocks = kvcl_div_up(D, BLOCK_ROWS);
    size_t pitch = kvcl_align_up(D, V16_LANES);
    float *x = (float *)(void *)p->scratch, *y = x + KVCL_TOKENS * pitch;
    float *mean = y + KVCL_TOKENS * pitch;
    memset(y, 0, (KVCL_TOKENS + 1) * pitch * sizeof *y);
    for (uint32_t task, last; kvcl_cpu_take(p, 2 * Hk * blocks, 1, &task, &last);) {
        uint32_t head = task / blocks, begin = task % blocks * BLOCK_ROWS;
        uint32_t end = kvcl_min_u32(D, begin + BLOCK_ROWS);
        bool of_v = head >= Hk;
        kvcl_type type = of_v ? a->type_v : a->type_k;
        const unsigned char *pool = kvcl_cpu_ptr(of_v ? a->v : a->k);
        float *gram = (float *)kvcl_cpu_ptr(a->gram) + (size_t)head * fold * D * D;
        memcpy(mean, (const float *)kvcl_cpu_ptr(a->mean) + head * D, D * sizeof *mean);
        for (uint32_t page = 0; page * KVCL_TOKENS < a->n_tokens; page++) {
            size_t at = ((size_t)slots[page] * Hk + head % Hk) * D * KVCL_TOKENS;
            uint32_t left = kvcl_min_u32(KVCL_TOKENS, a->n_tokens - page * KVCL_TOKENS);
            gram_rows g = {.pitch = pitch, .step = fold, .D = D, .group = 1};
            g.end = left / fold * fold;
            g.first = page == 0 ? kvcl_div_up(a->n_skip, fold) * fold : 0;
            KVCL_SIMD_FN(expand_row)(type, pool + kvcl_type_bytes(type, at), D * KVCL_TOKENS, x);
            if (!of_v)
                turn_page(x, D, pitch, y);
            for (uint32_t t = 0; of_v && t < KVCL_TOKENS; t++)
                for (uint32_t d = 0; d < D; d += raw_dim)
                    memcpy(y + t * pitch + d, x + (size_t)d * KVCL_TOKENS + (size_t)t * raw_dim,
                           raw_dim * sizeof *y);
            walsh_slots(y, pitch, fold, mean);
            for (uint32_t r = 0; r < fold; r++) {
                g.x = y + r * pitch;
                add_block(&g, begin, end, gram + (size_t)r * D * D);
            }
        }
        for (uint32_t r = 0; r < fold; r++)
            mirror(D, begin, end, gram + (size_t)r * D * D);
    }
}

void KVCL_SIMD_FN(gram_rows)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_gram_rows_args *a = args;
    uint32_t D = a->head_dim, group = a->n_q_heads / a->n_kv_heads;
    uint32_t blocks = kvcl_div_up(D, BLOCK_ROWS);
    const float *x = kvcl_cpu_ptr(a->x);
    for (uint32_t task, last; kvcl_cpu_take(p, a->n_kv_heads * blocks, 1, &task, &last);) {
        uint32_t hk = task / blocks, begin = task % blocks * BLOCK_ROWS;
        uint32_t end = kvcl_min_u32(D, begin + BLOCK_ROWS);
        float *gram = (float *)kvcl_cpu_ptr(a->gram) + (size_t)hk * D * D;
        gram_rows g = {.x = x + hk * group * D,
                       .pitch = a->stride,
                       .end = a->n,
                       .step = 1,
                       .D = D,
                       .group = group,
                       .chained = true};
        add_block(&g, begin, end, gram);
        mirror(D, begin, end, gram);
    }
}
