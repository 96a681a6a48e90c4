/* simd_attn_scores.c - scores of rows over quant pages.  Definition: cpu/attn_quant.c */
#include "simd_attn_quant.h"

/* sum a[d] b[d]: 64 lanes by d mod 64. */
static float dot64(const float *a, const float *b, uint32_t n)
{
    v16 acc[4] = {v16_set(0.0f), v16_set(0.0f), v16_set(0.0f), v16_set(0.0f)};
    for (uint32_t d = 0; d < n; d += 16)
        acc[d / 16 % 4] = v16_fma(v16_load(a + d), v16_load(b + d), acc[d / 16 % 4]);
    return v16_tree64(acc);
}

/* ---- scores -------------------------------------------------------------------------------- */

static kvcl_simd_codes codes_k(const aq_task *t, uint32_t c)
{
    return (kvcl_simd_codes){.codes = aq_part(t, c, 0),
                             .table = t->w->table_k,
                             .bits = t->a->shape.bits_k,
                             .n = t->D,
                             .width = KVCL_TOKENS,
                             .soon = c + 1 < t->end ? aq_part(t, c + 1, 0) : NULL};
}

static void quantise_key_row(const aq_task *t, uint32_t r, const float *g)
{
    aq_work *w = t->w;
    KVCL_SIMD_FN(code_q15)(g, t->D, w->words_k[r], &w->mult[r], &w->sums[r]);
}

static void dot_keys(const aq_task *t, uint32_t c)
{
    aq_work *w = t->w;
    kvcl_simd_codes codes = aq_levels(t, codes_k(t, c));
    KVCL_SIMD_FN(code_dot)
    (&codes, w->words_k[0], MAX_D / 2, w->sums, t->n_rows, w->s[0][c], PAGES * KVCL_TOKENS);
}

static void scores_post(const aq_task *t)
{
    aq_work *w = t->w;
    for (uint32_t r = 0; r < t->n_rows; r++) {
        w->beta[r] = dot64(w->q[r], t->mean_k, t->D);
        aq_transform(t, w->q[r]);
        quantise_key_row(t, r, w->q[r]);
        w->mult[r] *= t->up;
    }
    for (uint32_t c = t->begin; c < t->end; c++) {
        const unsigned char *steps = aq_part(t, c, 2);
        dot_keys(t, c);
        for (uint32_t r = 0; r < t->n_rows; r++) {
            v16 mult = v16_set(w->mult[r]), beta = v16_set(w->beta[r]);
            for (uint32_t i = 0; i < KVCL_TOKENS; i += 16) {
                v16 s = v16_mul(v16_load(w->s[r][c] + i), mult);
                s = v16_fma(s, v16_load_f16(steps + 2 * i), beta);
                v16_store(w->s[r][c] + i, v16_plus_zero(s));
            }
        }
    }
}

static void scores_channel(const aq_task *t)
{
    aq_work *w = t->w;
    float steps[MAX_D], means[MAX_D], g[MAX_D];
    for (uint32_t c = t->begin; c < t->end; c++) {
        const unsigned char *p = aq_part(t, c, 2);
        for (uint32_t d = 0; d < t->D; d += 16) {
            v16_store(steps + d, v16_load_f16(p + 2 * d));
            v16_store(means + d, v16_load_f16(p + 2 * (t->D + d)));
        }
        for (uint32_t r = 0; r < t->n_rows; r++) {
            w->beta[r] = dot64(w->q[r], means, t->D);
            for (uint32_t d = 0; d < t->D; d += 16)
                v16_store(g + d, v16_mul(v16_load(w->q[r] + d), v16_load(steps + d)));
            quantise_key_row(t, r, g);
        }
        dot_keys(t, c);
        for (uint32_t r = 0; r < t->n_rows; r++) {
            v16 mult = v16_set(w->mult[r]), beta = v16_set(w->beta[r]);
            for (uint32_t i = 0; i < KVCL_TOKENS; i += 16) {
                v16 s = v16_fma(v16_load(w->s[r][c] + i), mult, beta);
                v16_store(w->s[r][c] + i, v16_plus_zero(s));
            }
        }
    }
}

void KVCL_SIMD_FN(aq_turn_back)(const aq_task *t, uint32_t page, const float *restrict q,
                                float *restrict out)
{
    uint32_t half = aq_n_rot(t) / 2;
    float c[MAX_D / 2], s[MAX_D / 2];
    memcpy(out, q, t->D * sizeof *q);
    if (half == 0)
        return;
    const float *cs =
        (const float *)kvcl_cpu_ptr(t->a->table) + (size_t)page * KVCL_TOKENS * 2 * half;
    for (uint32_t i = 0; i < half; i++) {
        c[i] = cs[2 * i];
        s[i] = cs[2 * i + 1];
    }
    if (t->a->pairing == KVCL_ROPE_ADJACENT)
        for (uint32_t i = 0; i < half; i++) {
            out[2 * i] = fmaf(q[2 * i], c[i], q[2 * i + 1] * s[i]);
            out[2 * i + 1] = fmaf(q[2 * i + 1], c[i], -(q[2 * i] * s[i]));
        }
    else
        for (uint32_t i = 0; i < half; i++) {
            out[i] = fmaf(q[i], c[i], q[i + half] * s[i]);
            out[i + half] = fmaf(q[i + half], c[i], -(q[i] * s[i]));
        }
}

/* A tile of rows, in shapes that simd_key_few.c knows. */
static bool scores_pre_fast(const aq_task *t)
{
    aq_work *w = t->w;
    kvcl_simd_key_job job = {.table = w->table_k,
                             .mean = t->mean_k,
                             .cs = w->cs,
                             .bits = t->a->shape.bits_k,
                             .dim = t->D,
                             .n_rot = aq_n_rot(t),
                             .rows = t->n_rows,
                             .s_pitch = PAGES * KVCL_TOKENS,
                             .soon_bytes = (uint32_t)aq_part_bytes(t, 1),
                             .pairing = t->a->pairing};
    for (uint32_t c = t->begin; c < t->end; c++)
        job.pages[job.n_pages++] = (kvcl_simd_key_page){.codes = aq_part(t, c, 0),
                                                        .us = w->up_step[c],
                                                        .q = w->back[c][0],
                                                        .s = w->s[0][c],
                                                        .soon = aq_part(t, c, 1),
                                                        .next = t->next_k[PAGES - 1 - c]};
    return KVCL_SIMD_FN(key_scores)(&job);
}

/* A tile of rows: sixteen tokens of all pages at a time, so that their angles stay near. */
static void scores_pre_few(const aq_task *t)
{
    aq_work *w = t->w;
    kvcl_simd_turn turn = {.dim = t->D,
                           .n_rot = aq_n_rot(t),
                           .pitch = 16,
                           .cs_pitch = 16,
                           .pairing = t->a->pairing,
                           .k = w->k};
    for (uint32_t c = t->begin; c < t->end; c++)
        for (uint32_t r = 0; r < t->n_rows; r++)
            KVCL_SIMD_FN(aq_turn_back)(t, t->page + c, w->q[r], w->back[c][r]);
    if (scores_pre_fast(t))
        return;
    for (uint32_t i = 0; i < KVCL_TOKENS; i += 16) {
        turn.cs = w->cs + (size_t)turn.n_rot * i;
        for (uint32_t c = t->begin; c < t->end; c++) {
            kvcl_simd_codes codes = codes_k(t, c);
            KVCL_SIMD_FN(code_keys)(&codes, t->block, i, w->up_step[c] + i, t->mean_k, w->k, 16);
            KVCL_SIMD_FN(key_turn_dot)
            (&turn, w->back[c][0], MAX_D, t->n_rows, w->s[0][c] + i, PAGES * KVCL_TOKENS);
        }
    }
}

static void scores_pre_many(const aq_task *t)
{
    aq_work *w = t->w;
    for (uint32_t c = t->begin; c < t->end; c++) {
        kvcl_simd_codes codes = codes_k(t, c);
        for (uint32_t r = 0; r < t->n_rows; r++)
            KVCL_SIMD_FN(aq_turn_back)(t, t->page + c, w->q[r], w->turned[r]);
        for (uint32_t i = 0; i < KVCL_TOKENS; i += 16) {
            kvcl_simd_turn turn = {.dim = t->D,
                                   .n_rot = aq_n_rot(t),
                                   .pitch = KVCL_TOKENS,
                                   .cs_pitch = 16,
                                   .pairing = t->a->pairing,
                                   .cs = w->cs + (size_t)aq_n_rot(t) * i,
                                   .k = w->k + i};
            KVCL_SIMD_FN(code_keys)
            (&codes, t->block, i, w->up_step[c] + i, t->mean_k, w->k + i, KVCL_TOKENS);
            KVCL_SIMD_FN(key_turn)(&turn, 16);
        }
        KVCL_SIMD_FN(key_dot)
        (w->k, t->D, w->turned[0], MAX_D, t->n_rows, w->s[0][c], PAGES * KVCL_TOKENS);
    }
}

static void scores_pre(const aq_task *t)
{
    for (uint32_t c = t->begin; c < t->end; c++)
        for (uint32_t i = 0; i < KVCL_TOKENS; i += 16)
            v16_store(t->w->up_step[c] + i,
                      v16_mul(v16_load_f16(aq_part(t, c, 2) + 2 * i), v16_set(t->up)));
    if (t->n_rows <= CODE_TILE)
        scores_pre_few(t);
    else
        scores_pre_many(t);
}

void KVCL_SIMD_FN(attn_quant_scores)(const aq_task *t)
{
    if (t->a->shape.form == KVCL_QUANT_PRE)
        scores_pre(t);
    else if (t->a->shape.form == KVCL_QUANT_POST)
        scores_post(t);
    else
        scores_channel(t);
}
