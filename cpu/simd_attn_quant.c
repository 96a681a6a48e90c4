/* simd_attn_quant.c - block partials over quant pages.  Definition: cpu/attn_quant.c
 *
 * First the scores of all pages of a task (simd_attn_scores.c), then softmax and fifteen-bit
 * weights, then the values, then the block's merge.  Sums over codes: simd_code.c; keys of PRE:
 * simd_key.c, simd_key_few.c. */
#include "simd_attn_quant.h"

static const unsigned char *slot(const aq_task *t, uint32_t page)
{
    const int32_t *pages = kvcl_cpu_ptr(t->a->in.page_table);
    return (const unsigned char *)kvcl_cpu_ptr(t->a->pool) +
           (size_t)pages[page - t->a->in.begin / KVCL_TOKENS] * t->page_bytes;
}

/* Pages lie apart: the processor cannot guess where it goes on. */
KVCL_INLINE void ask_for_scales(const aq_task *t)
{
    const float *table = kvcl_cpu_ptr(t->a->table);
    for (uint32_t c = t->begin; c < t->end; c++) {
        code_ask(aq_part(t, c, 2), aq_part_bytes(t, 2));
        code_ask(aq_part(t, c, 3), aq_part_bytes(t, 3));
        if (t->a->shape.form == KVCL_QUANT_PRE && table)
            code_ask(
                (const unsigned char *)(table + (size_t)(t->page + c) * KVCL_TOKENS * t->a->n_rot),
                t->a->n_rot * sizeof *table);
    }
}

/* ---- queries ------------------------------------------------------------------------------- */

static void begin_row(const aq_task *t, uint32_t index, uint32_t r, uint32_t at_part)
{
    const kvcl_attn_in *in = &t->a->in;
    uint32_t group = in->n_q_heads / in->n_kv_heads, D = t->D;
    uint32_t i = index / group, h = t->hk * group + index % group;
    size_t at = ((size_t)i * in->n_q_heads + h) * in->n_parts + at_part;
    const float *q = (const float *)kvcl_cpu_ptr(in->q) + (size_t)i * in->q_stride + h * D;
    aq_row *w = &t->w->rows[r];
    w->end = kvcl_min_u32(in->end, in->pos0 + i + 1);
    w->ml = (float *)kvcl_cpu_ptr(in->ml) + 2 * at;
    w->o = (float *)kvcl_cpu_ptr(in->o) + at * D;
    for (uint32_t d = 0; d < D; d += 16)
        v16_store(t->w->q[r] + d, v16_mul(v16_load(q + d), v16_set(in->scale)));
    v16_store(w->m, v16_set(-INFINITY));
    v16_store(w->l, v16_set(0.0f));
    v16_store(w->max, v16_set(0.0f));
    v16_store(w->mult, v16_set(0.0f)); /* of pages that are not looked at: 0 times nothing is 0 */
    for (uint32_t c = 0; c < PAGES; c++)
        if (c < t->begin || c >= t->end)
            memset(t->w->z[r] + (size_t)c * D, 0, D * sizeof(float));
}

/* ---- weights ------------------------------------------------------------------------------- */

/* Fifteen-bit integers of a row's weights, all pages' scales at once. */
static void quantise_weights(const aq_task *t, uint32_t r)
{
    aq_work *w = t->w;
    aq_row *rw = &w->rows[r];
    float inv[16];
    v16 max = v16_load(rw->max), least = v16_set(1e-30f), zero = v16_set(0.0f);
    v16 quantum = v16_mul(max, v16_set(kvcl_q15_quantum(1.0f)));
    v16_store(inv, v16_select_lt(max, least, zero, v16_mul(v16_set(KVCL_Q15_MAX), v16_recip(max))));
    v16_store(rw->mult, v16_mul(v16_select_lt(max, least, zero, quantum), v16_set(t->up)));
    for (uint32_t c = t->begin; c < t->end; c++)
        w->sums_v[c][r] =
            KVCL_SIMD_FN(code_words)(w->s[r][c], KVCL_TOKENS, inv[c], w->words_v[r][c]);
}

static void weigh_row(const aq_task *t, uint32_t r)
{
    aq_row *rw = &t->w->rows[r];
    for (uint32_t c = t->begin; c < t->end; c++) {
        uint32_t first = (t->page + c) * KVCL_TOKENS;
        uint32_t lo = t->a->in.begin > first ? t->a->in.begin - first : 0;
        float *s = t->w->s[r][c];
        if (rw->end > first + lo)
            aq_weights(aq_part(t, c, 3), c, rw, lo, kvcl_min_u32(rw->end - first, KVCL_TOKENS), s);
        else
            memset(s, 0, KVCL_TOKENS * sizeof *s);
    }
    quantise_weights(t, r);
}

/* ---- values and the block ------------------------------------------------------------------ */

static void values(const aq_task *t, uint32_t c)
{
    aq_work *w = t->w;
    kvcl_simd_codes codes = {.codes = aq_part(t, c, 1),
                             .table = w->table_v,
                             .bits = t->a->shape.bits_v,
                             .n = KVCL_TOKENS,
                             .width = t->D,
                             .soon = c + 1 < t->end ? aq_part(t, c + 1, 1) : t->next_k[0]};
    codes = aq_levels(t, codes);
    KVCL_SIMD_FN(code_dot)
    (&codes, w->words_v[0][c], PAGES * KVCL_TOKENS / 2, w->sums_v[c], t->n_rows,
     w->z[0] + (size_t)c * t->D, PAGES * MAX_D);
}

/* Weights of the row's page partials and the block's m and l; false when it sees nothing. */
static bool merge_weights(const aq_task *t, aq_row *rw, float weight[16])
{
    float m = -INFINITY;
    for (uint32_t c = t->begin; c < t->end; c++)
        m = rw->m[c] > m ? rw->m[c] : m;
    if (m < -3e38f)
        return false;
    v16 x = v16_load(rw->m), e = v16_exp(v16_sub(x, v16_set(m)));
    v16_store(weight, v16_select_lt(x, v16_set(-3e38f), v16_set(0.0f), e));
    float lanes[16];
    v16_store(lanes, v16_mul(v16_load(weight), v16_load(rw->l)));
    rw->ml[0] = m;
    rw->ml[1] = kvcl_zero(v8_tree(v8_load(lanes)));
    return true;
}

bool KVCL_SIMD_FN(aq_merge)(const aq_task *t, uint32_t r, uint32_t n, float *out)
{
    aq_row *rw = &t->w->rows[r];
    float weight[16];
    if (!merge_weights(t, rw, weight))
        return false;
    for (uint32_t d = 0; d < n; d += 16) {
        v16 x[PAGES];
        KVCL_UNROLL
        for (uint32_t c = 0; c < PAGES; c++)
            x[c] = v16_mul(v16_set(weight[c]), v16_mul(v16_load(t->w->z[r] + (size_t)c * t->D + d),
                                                       v16_set(rw->mult[c])));
        KVCL_UNROLL
        for (uint32_t s = PAGES / 2; s > 0; s /= 2)
            KVCL_UNROLL
        for (uint32_t c = 0; c < s; c++)
            x[c] = v16_add(x[c], x[c + s]);
        v16_store(out + d, v16_plus_zero(x[0]));
    }
    return true;
}

/* o = l mean + transform of z. */
static void finish_row(const aq_task *t, uint32_t r)
{
    aq_row *rw = &t->w->rows[r];
    float out[MAX_D];
    if (!KVCL_SIMD_FN(aq_merge)(t, r, t->D, out))
        return;
    aq_transform(t, out);
    v16 l = v16_set(rw->ml[1]);
    for (uint32_t d = 0; d < t->D; d += 16) {
        v16 o = v16_fma(l, v16_load(t->mean_v + d), v16_load(out + d));
        v16_store(rw->o + d, v16_plus_zero(o));
    }
}

/* ---- tasks --------------------------------------------------------------------------------- */

bool KVCL_SIMD_FN(aq_begin)(aq_task *t, uint32_t b, uint32_t first_row, uint32_t end_row)
{
    const kvcl_attn_in *in = &t->a->in;
    uint32_t group = in->n_q_heads / in->n_kv_heads, n = 0;
    t->page = b * PAGES;
    /* rows in order of queries: the first ones may see nothing of the block */
    uint32_t begin = kvcl_max_u32(in->begin, t->page * KVCL_TOKENS);
    if (begin > in->pos0)
        first_row = kvcl_max_u32(first_row, (begin - in->pos0) * group);
    if (first_row >= end_row)
        return false;
    uint32_t seen = kvcl_min_u32(in->end, in->pos0 + (end_row - 1) / group + 1);
    t->begin = begin / KVCL_TOKENS - t->page;
    t->end = kvcl_min_u32(PAGES, (seen - 1) / KVCL_TOKENS - t->page + 1);
    for (uint32_t c = t->begin; c < t->end; c++)
        t->slots[c] = slot(t, t->page + c);
    const float *means = (const float *)kvcl_cpu_ptr(t->a->means) +
                         (size_t)kvcl_mean_epoch(b) * 2 * in->n_kv_heads * t->D;
    t->mean_k = means + (size_t)t->hk * t->D;
    t->mean_v = means + (size_t)(in->n_kv_heads + t->hk) * t->D;
    for (uint32_t r = first_row; r < end_row; r++)
        begin_row(t, r, n++, in->first_part + b - in->begin / KVCL_BLOCK_TOKENS);
    t->n_rows = n;
    return true;
}

static void run_task(aq_task *t, uint32_t b, uint32_t first_row, uint32_t end_row)
{
    if (!KVCL_SIMD_FN(aq_begin)(t, b, first_row, end_row))
        return;
    ask_for_scales(t);
    KVCL_SIMD_FN(attn_quant_scores)(t);
    for (uint32_t r = 0; r < t->n_rows; r++)
        weigh_row(t, r);
    for (uint32_t c = t->begin; c < t->end; c++)
        values(t, c);
    for (uint32_t r = 0; r < t->n_rows; r++)
        finish_row(t, r);
}

void KVCL_SIMD_FN(aq_turn_table)(const aq_task *t, const uint8_t *order)
{
    uint32_t n = aq_n_rot(t);
    const float *table = kvcl_cpu_ptr(t->a->table);
    for (uint32_t i = 0; i < KVCL_TOKENS; i += 16) {
        float *out = t->w->cs + (size_t)n * i;
        const float *row[16];
        uint32_t d = 0;
        for (uint32_t j = 0; j < 16; j++)
            row[j] = table + (size_t)(order ? order[i + j] : i + j) * n;
        for (; d + 16 <= n; d += 16) {
            v16 x[16];
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                x[j] = v16_load(row[j] + d);
            v16_transpose(x);
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                v16_store(out + (size_t)(d + j) * 16, x[j]);
        }
        for (; d < n; d++)
            for (uint32_t j = 0; j < 16; j++)
                out[(size_t)d * 16 + j] = row[j][d];
    }
}

/* Where the keys' codes of a task are that this thread may get next: head hk of block b. */
static void find_next(aq_task *t, bool any, uint32_t hk, uint32_t b)
{
    const kvcl_attn_in *in = &t->a->in;
    for (uint32_t c = 0; c < PAGES; c++) {
        uint32_t page = b * PAGES + c;
        bool there = any && page >= in->begin / KVCL_TOKENS && page <= (in->end - 1) / KVCL_TOKENS;
        t->next_k[c] = there ? slot(t, page) + aq_part_bytes(t, 0) * hk : NULL;
    }
}

void KVCL_SIMD_FN(attn_quant)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_quant_args *a = args;
    const kvcl_attn_in *in = &a->in;
    aq_task t = {.a = a, .w = (aq_work *)(void *)p->scratch, .D = in->head_dim};
    t.block = in->head_dim & -in->head_dim;
    t.up = 1.0f;
    for (uint32_t b = t.block; b >= 4; b /= 4)
        t.up *= 0.5f;
    t.page_bytes = kvcl_quant_page_bytes(&a->shape, t.parts);
    uint32_t first = in->begin / KVCL_BLOCK_TOKENS;
    uint32_t n_blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - first + 1, Hk = in->n_kv_heads;
    uint32_t n_rows = in->n * (in->n_q_heads / Hk), chunks = kvcl_div_up(n_rows, ROWS);
    uint32_t n_tasks = n_blocks * Hk * chunks;
    bool ready = false;
    for (uint32_t i, end; kvcl_cpu_take(p, n_tasks, 1, &i, &end);) {
        uint32_t chunk = i / Hk % chunks;
        if (!ready) {
            KVCL_SIMD_FN(code_table)(a->shape.bits_k, t.w->table_k);
            KVCL_SIMD_FN(code_table)(a->shape.bits_v, t.w->table_v);
            if (a->shape.form == KVCL_QUANT_PRE)
                KVCL_SIMD_FN(aq_turn_table)(&t, NULL);
            ready = true;
        }
        uint32_t next = i + p->n_threads;
        find_next(&t, next < n_tasks, next % Hk, first + next / Hk / chunks);
        t.hk = i % Hk;
        run_task(&t, first + i / Hk / chunks, chunk * ROWS,
                 kvcl_min_u32(n_rows, (chunk + 1) * ROWS));
    }
}
