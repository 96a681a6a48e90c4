/* simd_attn.c - attention by block partials over raw and block pages.  Definitions: cpu/attn.c,
 * cpu/block.c
 *
 * Page partials (simd_attn_tile.c) gather in scratch and merge at the end.
 *
 * A row that sees only part of the page has p = 0 elsewhere, and fma(0, v, sum) is the sum as long
 * as v is finite (a lane's -0 can turn +0, which no sum shows once its own -0 is +0).  So such
 * pages go through scratch, with zeros in place of what nobody sees; should a value there be
 * infinite or not a number, they go query by query, and each finds zeros beyond itself. */
#include "simd_attn.h"

#include <assert.h>

/* from so many rows on it pays to expand a page to f32 first */
#define EXPAND_ROWS 12
#define CHUNK_ROWS 192u /* of a task; fewer where heads are wide, see chunk_rows() */
#define MAX_DIM 256     /* of a head */

/* ---- pages --------------------------------------------------------------------------------- */

static bool in_blocks(kvcl_type type) { return type == KVCL_Q8_0 || type == KVCL_Q4_0; }

static void expand_keys(const attn_task *tk, attn_page *pg)
{
    if (in_blocks(pg->type_k))
        KVCL_SIMD_FN(block_keys)(pg->type_k, pg->k, tk->D, pg->next_k, tk->w.k);
    else
        KVCL_SIMD_FN(expand_row)(pg->type_k, pg->k, tk->D * KVCL_TOKENS, tk->w.k);
    pg->k = (const unsigned char *)tk->w.k;
    pg->type_k = KVCL_F32;
    pg->next_k = NULL;
}

static void expand_value(kvcl_type type, const unsigned char *row, uint32_t D, uint32_t pitch,
                         float *out)
{
    memset(out + (pitch - 16), 0, 16 * sizeof *out);
    if (D % 16 == 0)
        KVCL_SIMD_FN(expand_row)(type, row, D, out);
    else
        kvcl_dequantise(type, row, D, out);
}

/* The values of tokens [from, to) in f32, zeros elsewhere and in the padding of each row; false
 * when one is not finite. */
static bool expand_values(const attn_task *tk, attn_page *pg, uint32_t to)
{
    uint32_t D = tk->D, pitch = tk->pitch;
    bool blocks = in_blocks(pg->type_v), made = pg->v == (const unsigned char *)tk->w.v;
    size_t row_bytes = kvcl_type_bytes(pg->type_v, D);
    v16 zero = v16_set(0.0f), finite = zero;
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        float *o = tk->w.v + (size_t)t * pitch;
        if (blocks && pg->next_v)
            attn_ask(pg->next_v + t * row_bytes, row_bytes);
        if (t < pg->from || t >= to)
            memset(o, 0, pitch * sizeof *o);
        else if (!made)
            expand_value(pg->type_v, pg->v + t * row_bytes, D, pitch, o);
        for (uint32_t d = 0; d < pitch; d += 16)
            finite = v16_fma(v16_load(o + d), zero, finite);
    }
    pg->v = (const unsigned char *)tk->w.v;
    pg->type_v = KVCL_F32;
    pg->next_v = NULL;
    pg->v_pitch = pitch;
    return v16_tree(finite) == 0.0f;
}

/* Rows of `first` on see something of the page. */
static void run_page(const attn_task *tk, attn_page *pg, uint32_t first)
{
    uint32_t to = kvcl_min_u32(KVCL_TOKENS, attn_row_end(tk, tk->n_rows - 1) - pg->begin);
    bool many = tk->n_rows - first >= EXPAND_ROWS, finite = true;
    bool partly = pg->from > 0 || attn_row_end(tk, first) < pg->begin + KVCL_TOKENS;
    if ((many && pg->type_k == KVCL_F16) || in_blocks(pg->type_k))
        expand_keys(tk, pg);
    if ((many && pg->type_v == KVCL_F16) || in_blocks(pg->type_v) || partly || tk->D % 16 != 0)
        finite = expand_values(tk, pg, to);
    if (finite || !partly) {
        KVCL_SIMD_FN(attn_rows)(tk, pg, first, tk->n_rows);
        return;
    }
    for (uint32_t end = tk->n_rows, r = end; end > first; end = r) {
        uint32_t seen = kvcl_min_u32(KVCL_TOKENS, attn_row_end(tk, end - 1) - pg->begin);
        do {
            r--;
        } while (r > first && attn_row_end(tk, r - 1) == attn_row_end(tk, end - 1));
        memset(tk->w.v + (size_t)seen * tk->pitch, 0,
               (size_t)(KVCL_TOKENS - seen) * tk->pitch * sizeof *tk->w.v);
        KVCL_SIMD_FN(attn_rows)(tk, pg, r, end);
    }
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* The block's partial of row r from its page partials. */
static void merge_pages(const attn_task *tk, uint32_t r, float *ml, float *out)
{
    const float *m = tk->w.m + r * ATTN_PAGES, *l = tk->w.l + r * ATTN_PAGES;
    float *o = tk->w.o + (size_t)r * ATTN_PAGES * tk->pitch, w[ATTN_PAGES], sum[16], m_all = m[0];
    for (uint32_t c = 1; c < ATTN_PAGES; c++)
        m_all = m[c] > m_all ? m[c] : m_all;
    for (uint32_t c = 0; c < ATTN_PAGES; c++) {
        w[c] = m[c] == -INFINITY ? 0.0f : kvcl_exp(m[c] - m_all);
        if (m[c] == -INFINITY)
            memset(o + c * tk->pitch, 0, tk->pitch * sizeof *o);
        sum[c] = w[c] * l[c];
    }
    ml[0] = m_all;
    ml[1] = v8_tree(v8_load(sum));
    for (uint32_t d = 0; d < tk->pitch; d += 16, o += 16) {
        v16 x[ATTN_PAGES];
        KVCL_UNROLL
        for (uint32_t c = 0; c < ATTN_PAGES; c++)
            x[c] = v16_mul(v16_set(w[c]), v16_load(o + c * tk->pitch));
        KVCL_UNROLL
        for (uint32_t s = ATTN_PAGES / 2; s > 0; s /= 2)
            KVCL_UNROLL
        for (uint32_t c = 0; c < s; c++)
            x[c] = v16_add(x[c], x[c + s]);
        if (d + 16 <= tk->D) {
            v16_store(out + d, v16_plus_zero(x[0]));
        } else {
            v16_store(sum, v16_plus_zero(x[0]));
            memcpy(out + d, sum, (tk->D - d) * sizeof *sum);
        }
    }
}

static void begin_rows(const attn_task *tk)
{
    const kvcl_attn_in *in = tk->pages->in;
    for (uint32_t r = 0; r < tk->n_rows; r++) {
        uint32_t i = (tk->first + r) / tk->group,
                 h = tk->hk * tk->group + (tk->first + r) % tk->group;
        const float *q = (const float *)kvcl_cpu_ptr(in->q) + (size_t)i * in->q_stride + h * tk->D;
        float *qs = tk->w.q + (size_t)r * tk->pitch;
        for (uint32_t d = 0; d < tk->D; d++)
            qs[d] = q[d] * in->scale;
    }
    for (uint32_t i = 0; i < tk->n_rows * ATTN_PAGES; i++) {
        tk->w.m[i] = -INFINITY;
        tk->w.l[i] = 0.0f;
    }
}

/* Where a kv head's K (or V) is in a page of the sequence. */
static const unsigned char *head_of(const kvcl_simd_pages *pages, bool of_v, uint32_t i_page,
                                    uint32_t hk)
{
    const int32_t *slots = kvcl_cpu_ptr(pages->in->page_table);
    size_t slot = (size_t)slots[i_page - pages->in->begin / KVCL_TOKENS];
    return of_v ? pages->v + slot * pages->slot_v + hk * pages->head_v
                : pages->k + slot * pages->slot_k + hk * pages->head_k;
}

/* The head's rows of page i_page, made where they must be; then comes, probably, page next of head
 * next_hk. */
static void find_page(const attn_task *tk, attn_page *pg, uint32_t i_page, uint32_t next,
                      uint32_t next_hk)
{
    const kvcl_simd_pages *at = tk->pages;
    if (at->make) {
        at->make(at, i_page, tk->hk, tk->w.k, tk->w.v);
        pg->type_k = pg->type_v = KVCL_F32;
        pg->k = (const unsigned char *)tk->w.k;
        pg->v = (const unsigned char *)tk->w.v;
        pg->next_k = pg->next_v = NULL;
        return;
    }
    pg->type_k = at->type_k;
    pg->type_v = at->type_v;
    pg->k = head_of(at, false, i_page, tk->hk);
    pg->v = head_of(at, true, i_page, tk->hk);
    pg->next_k = head_of(at, false, next, next_hk);
    pg->next_v = head_of(at, true, next, next_hk);
}

/* Pages [first_page, end_page), of one block; then comes, probably, page next of head next_hk. */
static void run_block(const attn_task *tk, uint32_t first_page, uint32_t end_page, uint32_t part,
                      uint32_t next, uint32_t next_hk)
{
    const kvcl_attn_in *in = tk->pages->in;
    begin_rows(tk);
    for (uint32_t i_page = first_page, r = 0; i_page < end_page; i_page++) {
        attn_page pg = {.c = i_page % ATTN_PAGES, .begin = i_page * KVCL_TOKENS, .v_pitch = tk->D};
        bool last = i_page + 1 == end_page;
        pg.from = in->begin > pg.begin ? in->begin - pg.begin : 0;
        while (r < tk->n_rows && attn_row_end(tk, r) <= pg.begin + pg.from)
            r++;
        if (r == tk->n_rows)
            break;
        find_page(tk, &pg, i_page, last ? next : i_page + 1, last ? next_hk : tk->hk);
        run_page(tk, &pg, r);
    }
    uint32_t seen_from = kvcl_max_u32(in->begin, first_page * KVCL_TOKENS);
    for (uint32_t r = 0; r < tk->n_rows; r++) {
        uint32_t i = (tk->first + r) / tk->group,
                 h = tk->hk * tk->group + (tk->first + r) % tk->group;
        size_t to = ((size_t)i * in->n_q_heads + h) * in->n_parts + part;
        if (attn_row_end(tk, r) > seen_from)
            merge_pages(tk, r, (float *)kvcl_cpu_ptr(in->ml) + 2 * to,
                        (float *)kvcl_cpu_ptr(in->o) + to * tk->D);
    }
}

/* Rows of a task: what keeps page partials inside a core's cache. */
static uint32_t chunk_rows(uint32_t pitch)
{
    return kvcl_min_u32(CHUNK_ROWS, 12288 / pitch) / ATTN_TILE * ATTN_TILE;
}

static float *take(unsigned char **scratch, size_t n)
{
    float *p = (float *)(void *)*scratch;
    *scratch += kvcl_align_up(n * sizeof *p, 64);
    return p;
}

static attn_work make_work(unsigned char *scratch, uint32_t rows, uint32_t pitch)
{
    const unsigned char *begin = scratch;
    attn_work w;
    w.q = take(&scratch, (size_t)rows * pitch);
    w.m = take(&scratch, (size_t)rows * ATTN_PAGES);
    w.l = take(&scratch, (size_t)rows * ATTN_PAGES);
    w.p = (float(*)[KVCL_TOKENS])(void *)take(&scratch, ATTN_TILE * KVCL_TOKENS);
    w.k = take(&scratch, KVCL_TOKENS * MAX_DIM);
    w.v = take(&scratch, KVCL_TOKENS * MAX_DIM);
    w.o = take(&scratch, (size_t)rows * ATTN_PAGES * pitch);
    assert((size_t)(scratch - begin) <= ATTN_WORK_BYTES);
    (void)begin;
    return w;
}

void KVCL_SIMD_FN(attn_pages)(const kvcl_simd_pages *pages, kvcl_cpu_part *p)
{
    const kvcl_attn_in *in = pages->in;
    uint32_t pitch = (uint32_t)kvcl_align_up(in->head_dim, 16), chunk = chunk_rows(pitch);
    uint32_t group = in->n_q_heads / in->n_kv_heads, rows = in->n * group;
    uint32_t first_page = in->begin / KVCL_TOKENS, end_page = (in->end - 1) / KVCL_TOKENS + 1;
    uint32_t first = first_page / ATTN_PAGES, n_blocks = (end_page - 1) / ATTN_PAGES - first + 1;
    uint32_t per_block = kvcl_div_up(rows, chunk) * in->n_kv_heads;
    attn_task tk = {.pages = pages, .group = group, .D = in->head_dim, .pitch = pitch};
    tk.w = make_work(p->scratch, kvcl_min_u32(rows, chunk), pitch);
    for (uint32_t i, end; kvcl_cpu_take(p, n_blocks * per_block, 1, &i, &end);) {
        /* the threads take tasks in turn: this one's next is probably n_threads later */
        uint32_t b = i / per_block,
                 next_i = kvcl_min_u32(i + p->n_threads, n_blocks * per_block - 1);
        uint32_t next = kvcl_max_u32(first_page, (first + next_i / per_block) * ATTN_PAGES);
        tk.hk = i % in->n_kv_heads;
        tk.first = i % per_block / in->n_kv_heads * chunk;
        tk.n_rows = kvcl_min_u32(chunk, rows - tk.first);
        run_block(&tk, kvcl_max_u32(first_page, (first + b) * ATTN_PAGES),
                  kvcl_min_u32(end_page, (first + b + 1) * ATTN_PAGES), in->first_part + b, next,
                  next_i % in->n_kv_heads);
    }
}

void KVCL_SIMD_FN(attn_raw)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_raw_args *a = args;
    size_t head = (size_t)a->in.head_dim * KVCL_TOKENS;
    kvcl_simd_pages pages = {.in = &a->in,
                             .k = kvcl_cpu_ptr(a->k),
                             .v = kvcl_cpu_ptr(a->v),
                             .head_k = kvcl_type_bytes(a->type_k, head),
                             .head_v = kvcl_type_bytes(a->type_v, head),
                             .type_k = a->type_k,
                             .type_v = a->type_v};
    pages.slot_k = a->in.n_kv_heads * pages.head_k;
    pages.slot_v = a->in.n_kv_heads * pages.head_v;
    KVCL_SIMD_FN(attn_pages)(&pages, p);
}
