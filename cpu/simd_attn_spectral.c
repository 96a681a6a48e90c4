/* simd_attn_spectral.c - block partials over spectral pages.  Definition: cpu/attn_spectral.c; what
 * it shares with quant pages: simd_attn_quant.h
 *
 * A task's keys are made page by page and turned, for all of its rows; keys stand in places
 * (simd_spectral.h), scores again in the order of tokens. */
#include "simd_attn_quant.h"
#include "simd_spectral.h"

typedef struct as_work {
    aq_work rows;
    sp_work sp;
    int16_t weight[KVCL_TOKENS]; /* W [r][slots] */
} as_work;

_Static_assert(sizeof(as_work) <= KVCL_CPU_SCRATCH_BYTES, "scratch of a thread");

typedef struct as_task {
    aq_task t;
    const kvcl_attn_spectral_args *a;
    as_work *w;
    uint32_t loaded; /* the head whose basis of keys is in the work */
} as_task;

static kvcl_cpu_spectral page_part(const as_task *s, uint32_t c, bool of_v)
{
    size_t slot = (size_t)(s->t.slots[c] - (const unsigned char *)kvcl_cpu_ptr(s->a->pool));
    return kvcl_cpu_spectral_at(&s->a->shape, s->a->basis, s->a->pool, slot / s->t.page_bytes, of_v,
                                s->t.hk);
}

static void scores_page(const as_task *s, uint32_t c)
{
    const aq_task *t = &s->t;
    aq_work *w = t->w;
    kvcl_cpu_spectral x = page_part(s, c, false);
    float places[ROWS][KVCL_TOKENS];
    KVCL_SIMD_FN(sp_keys)(&s->w->sp, &x, t->mean_k, w->k);
    for (uint32_t r = 0; r < t->n_rows; r++)
        KVCL_SIMD_FN(aq_turn_back)(t, t->page + c, w->q[r], w->turned[r]);
    for (uint32_t i = 0; i < KVCL_TOKENS && aq_n_rot(t); i += 16) {
        kvcl_simd_turn turn = {.dim = t->D,
                               .n_rot = aq_n_rot(t),
                               .pitch = KVCL_TOKENS,
                               .cs_pitch = 16,
                               .pairing = t->a->pairing,
                               .cs = w->cs + (size_t)aq_n_rot(t) * i,
                               .k = w->k + i};
        KVCL_SIMD_FN(key_turn)(&turn, 16);
    }
    KVCL_SIMD_FN(key_dot)
    (w->k, t->D, w->turned[0], MAX_D, t->n_rows, places[0], KVCL_TOKENS);
    for (uint32_t r = 0; r < t->n_rows; r++)
        for (uint32_t i = 0; i < KVCL_TOKENS; i++)
            w->s[r][c][s->w->sp.order[i]] = places[r][i];
}

/* ---- values -------------------------------------------------------------------------------- */

/* Weights p [64] folded, times norms, to fifteen-bit integers [r][slots]; returns their quantum. */
static float integers_of(const kvcl_cpu_spectral *v, const float *norms, float *p, int16_t *out)
{
    float max;
    for (uint32_t s = 0; s < v->slots; s++) {
        float norm = norms[s], *f = p + s * v->fold;
        for (uint32_t h = 1; h < v->fold; h *= 2)
            for (uint32_t j = 0; j < v->fold; j++)
                if ((j & h) == 0) {
                    float a = f[j], b = f[j + h];
                    f[j] = a + b;
                    f[j + h] = a - b;
                }
        for (uint32_t j = 0; j < v->fold; j++)
            f[j] = f[j] * norm;
    }
    v16 top = v16_abs(v16_load(p));
    for (uint32_t i = 16; i < KVCL_TOKENS; i += 16)
        top = v16_max(top, v16_abs(v16_load(p + i)));
    max = v16_max_lane(top);
    float inv = kvcl_q15_inv(max);
    for (uint32_t r = 0; r < v->fold; r++)
        for (uint32_t s = 0; s < v->slots; s++)
            *out++ = (int16_t)kvcl_round(p[s * v->fold + r] * inv);
    return kvcl_q15_quantum(max);
}

/* Registers of components side by side: sums that do not wait for each other. */
#define BESIDE (32 / M_LANES)

/* z of a page from the pairs of the weights' integers; n_comp rounded up to 32 are written. */
static void sum_values(const as_work *w, const kvcl_cpu_spectral *v, float *z)
{
    uint32_t per_row = v->slots / 2, pair[KVCL_TOKENS / 2];
    memcpy(pair, w->weight, sizeof pair);
    for (uint32_t i = 0; i < v->head->n_comp; i += 32) {
        const uint32_t *x = w->sp.pairs + i;
        mf sum[BESIDE];
        KVCL_UNROLL
        for (uint32_t b = 0; b < BESIDE; b++)
            sum[b] = mf_set(0.0f);
        for (uint32_t r = 0, p = 0; r < v->fold; r++) {
            const int16_t *factor = v->factor + r * v->D + i;
            mq acc[BESIDE];
            KVCL_UNROLL
            for (uint32_t b = 0; b < BESIDE; b++)
                acc[b] = mq_zero();
            for (uint32_t end = p + per_row; p < end; p++, x += SP_PITCH)
                KVCL_UNROLL
            for (uint32_t b = 0; b < BESIDE; b++)
                acc[b] = mq_add(acc[b], x + b * M_LANES, pair[p]);
            KVCL_UNROLL
            for (uint32_t b = 0; b < BESIDE; b++)
                sum[b] = mf_fma(mq_float(acc[b]), mf_load_i16(factor + b * M_LANES), sum[b]);
        }
        KVCL_UNROLL
        for (uint32_t b = 0; b < BESIDE; b++)
            mf_store(z + i + b * M_LANES, sum[b]);
    }
}

static void values_page(as_task *s, uint32_t c)
{
    aq_task *t = &s->t;
    kvcl_cpu_spectral v = page_part(s, c, true);
    uint32_t first = (t->page + c) * KVCL_TOKENS, begin = s->a->in.begin;
    uint32_t lo = begin > first ? begin - first : 0;
    float unit = v.head->quantum * 0.0078125f; /* 2^-7 */
    float norms[KVCL_TOKENS];
    for (uint32_t i = 0; i < v.slots; i++)
        norms[i] = kvcl_f16_to_f32(v.norms[i]);
    KVCL_SIMD_FN(sp_levels)(&s->w->sp, &v);
    for (uint32_t r = 0; r < t->n_rows; r++) {
        aq_row *rw = &t->w->rows[r];
        float *p = t->w->s[r][c], *z = t->w->z[r] + (size_t)c * t->D;
        rw->mult[c] = 0.0f;
        if (rw->end <= first + lo) {
            memset(z, 0, t->D * sizeof *z);
            continue;
        }
        aq_weights(NULL, c, rw, lo, kvcl_min_u32(rw->end - first, KVCL_TOKENS), p);
        rw->mult[c] = integers_of(&v, norms, p, s->w->weight) * unit;
        sum_values(s->w, &v, z);
    }
}

static float weight_of(uint32_t four, uint32_t at)
{
    return (float)((int)(four << (24 - 8 * at)) >> 24);
}

/* Adds four components: weights [D][4]. */
static void add_four(uint32_t D, const uint32_t *restrict weights, const float *restrict z,
                     float *restrict o)
{
    float z0 = z[0], z1 = z[1], z2 = z[2], z3 = z[3];
    for (uint32_t d = 0; d < D; d++) {
        float x = fmaf(weight_of(weights[d], 0), z0, o[d]);
        x = fmaf(weight_of(weights[d], 1), z1, x);
        x = fmaf(weight_of(weights[d], 2), z2, x);
        o[d] = fmaf(weight_of(weights[d], 3), z3, x);
    }
}

/* o = l mean + z in the basis. */
static void finish_row(const as_task *s, const kvcl_cpu_spectral *v, uint32_t r)
{
    const aq_task *t = &s->t;
    aq_row *rw = &t->w->rows[r];
    uint32_t D = t->D, n = v->head->n_comp;
    float z[MAX_D], o[MAX_D];
    if (!KVCL_SIMD_FN(aq_merge)(t, r, n, z))
        return;
    memset(o, 0, sizeof o);
    for (uint32_t i = 0; i < n; i += 4)
        add_four(D, (const uint32_t *)(const void *)v->synth + (size_t)i / 4 * D, z + i, o);
    v16 l = v16_set(rw->ml[1]);
    for (uint32_t d = 0; d < D; d += 16)
        v16_store(rw->o + d, v16_plus_zero(v16_fma(l, v16_load(t->mean_v + d), v16_load(o + d))));
}

static void run_task(as_task *s, uint32_t b, uint32_t first_row, uint32_t end_row)
{
    aq_task *t = &s->t;
    if (!KVCL_SIMD_FN(aq_begin)(t, b, first_row, end_row))
        return;
    t->mean_k = kvcl_cpu_spectral_mean(&s->a->shape, s->a->means, false, t->hk);
    t->mean_v = kvcl_cpu_spectral_mean(&s->a->shape, s->a->means, true, t->hk);
    kvcl_cpu_spectral v = kvcl_cpu_spectral_basis(&s->a->shape, s->a->basis, true, t->hk);
    if (s->loaded != t->hk) {
        kvcl_cpu_spectral k = kvcl_cpu_spectral_basis(&s->a->shape, s->a->basis, false, t->hk);
        KVCL_SIMD_FN(sp_load_basis)(&s->w->sp, &k, &v);
        s->loaded = t->hk;
    }
    for (uint32_t c = t->begin; c < t->end; c++) {
        scores_page(s, c);
        values_page(s, c);
    }
    for (uint32_t r = 0; r < t->n_rows; r++)
        finish_row(s, &v, r);
}

void KVCL_SIMD_FN(attn_spectral)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_spectral_args *a = args;
    const kvcl_attn_in *in = &a->in;
    /* the tasks' common part knows quant pages */
    kvcl_attn_quant_args quant = {
        .in = *in,
        .shape = {.n_kv_heads = in->n_kv_heads, .head_dim = in->head_dim, .form = KVCL_QUANT_PRE},
        .pool = a->pool,
        .means = a->means,
        .table = a->table,
        .n_rot = a->n_rot,
        .pairing = a->pairing};
    as_work *w = (as_work *)(void *)p->scratch;
    as_task s = {.t = {.a = &quant, .w = &w->rows, .D = in->head_dim}, .a = a, .w = w};
    size_t parts[4];
    s.t.page_bytes = kvcl_spectral_page_bytes(&a->shape, parts);
    s.loaded = UINT32_MAX;
    uint32_t first = in->begin / KVCL_BLOCK_TOKENS, Hk = in->n_kv_heads;
    uint32_t n_blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - first + 1;
    uint32_t n_rows = in->n * (in->n_q_heads / Hk), chunks = kvcl_div_up(n_rows, ROWS);
    bool ready = false;
    for (uint32_t i, end; kvcl_cpu_take(p, n_blocks * Hk * chunks, 1, &i, &end);) {
        uint32_t block = i % (n_blocks * chunks), chunk = block % chunks;
        if (!ready) {
            KVCL_SIMD_FN(sp_begin)(&w->sp, a->shape.fold);
            if (aq_n_rot(&s.t))
                KVCL_SIMD_FN(aq_turn_table)(&s.t, w->sp.order);
            ready = true;
        }
        s.t.hk = i / (n_blocks * chunks); /* heads in turn: a basis stays near */
        run_task(&s, first + block / chunks, chunk * ROWS,
                 kvcl_min_u32(n_rows, (chunk + 1) * ROWS));
    }
}
