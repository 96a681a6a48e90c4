/* simd_spectral_dec.c - spectral pages to raw pages.  Definition: cpu/spectral.c
 *
 * Slots of one token, which is what pages at rest are attended from; others take the scalar twin:
 * they are decoded for tests and figures alone. */
#include "simd_spectral.h"

#include <assert.h>

typedef struct work {
    sp_work sp;
    _Alignas(
        64) float x[CODE_MAX_DIM * KVCL_TOKENS]; /* rows [D][64]; of values: components first */
    _Alignas(64) float y[CODE_MAX_DIM * KVCL_TOKENS];
    _Alignas(64) float cs[CODE_MAX_DIM * KVCL_TOKENS]; /* [n_rot / 2][2][64] */
    float rows[CODE_TILE][CODE_MAX_DIM];
    float step[KVCL_TOKENS];
} work;

_Static_assert(sizeof(work) <= KVCL_CPU_SCRATCH_BYTES, "scratch of a thread");

static void store(kvcl_type type, unsigned char *pool, size_t at, v16 x)
{
    x = v16_add(x, v16_set(0.0f)); /* no -0 */
    if (type == KVCL_F16)
        v16_store_f16(pool + 2 * at, x);
    else
        v16_store((float *)(void *)(pool + 4 * at), x);
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* Rows of the rotation table, turned. */
static void load_turn(work *w, const float *table, uint32_t n_rot)
{
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        for (uint32_t i = 0; i < n_rot; i++)
            w->cs[i * KVCL_TOKENS + t] = table[(size_t)t * n_rot + i];
}

static void keys(work *w, const kvcl_spectral_dec_args *a, const kvcl_cpu_spectral *in,
                 const float *mean, const float *table, size_t raw)
{
    uint32_t D = in->D, dim = kvcl_spectral_raw_dim(&a->shape, a->join);
    unsigned char *pool = kvcl_cpu_ptr(a->k);
    KVCL_SIMD_FN(sp_keys)(&w->sp, in, mean, w->y);
    for (uint32_t d = 0; d < D; d++)
        for (uint32_t i = 0; i < KVCL_TOKENS; i++) /* (a twin's keys are never -0 here, either) */
            w->x[d * KVCL_TOKENS + w->sp.order[i]] = kvcl_zero(w->y[d * KVCL_TOKENS + i]);
    if (table && a->pairing != KVCL_ROPE_NONE)
        load_turn(w, table, a->n_rot);
    for (uint32_t d = 0; d < D && table && a->pairing != KVCL_ROPE_NONE; d += dim)
        KVCL_SIMD_FN(key_turn)
    (&(kvcl_simd_turn){.dim = dim,
                       .n_rot = a->n_rot,
                       .pitch = KVCL_TOKENS,
                       .cs_pitch = KVCL_TOKENS,
                       .pairing = a->pairing,
                       .cs = w->cs,
                       .k = w->x + (size_t)d * KVCL_TOKENS},
     KVCL_TOKENS);
    assert(pool);
    for (uint32_t i = 0; i < D * KVCL_TOKENS; i += 16)
        store(a->type_k, pool, raw + i, v16_load(w->x + i));
}

/* ---- values -------------------------------------------------------------------------------- */

/* Components [n_comp][64], 128 times as fine as keys'. */
static void components(const kvcl_cpu_spectral *in, float *out)
{
    for (uint32_t i = 0; i < in->head->n_comp; i++, out += KVCL_TOKENS) {
        kvcl_cpu_place place;
        bool coded = kvcl_cpu_spectral_place(in, i, &place);
        const uint32_t *words = in->words + (coded ? (size_t)place.word * KVCL_TOKENS : 0);
        int32_t factor = in->factor[i];
        if (coded && place.plane == 0)
            for (uint32_t t = 0; t < KVCL_TOKENS; t++)
                out[t] = (float)(((int32_t)(words[t] << (24 - place.shift)) >> 24) * factor);
        else
            for (uint32_t t = 0; t < KVCL_TOKENS; t++)
                out[t] = (float)(kvcl_cpu_spectral_level(in, i, t) * factor);
    }
}

/* Rows [64][D] of y [D][64] to V's raw page. */
static void store_rows(const work *w, const kvcl_spectral_dec_args *a, uint32_t D, size_t raw)
{
    uint32_t dim = kvcl_spectral_raw_dim(&a->shape, a->join);
    unsigned char *pool = kvcl_cpu_ptr(a->v);
    assert(pool);
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16)
        for (uint32_t d = 0; d < D; d += 16) {
            v16 x[16];
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                x[j] = v16_load(w->y + (size_t)(d + j) * KVCL_TOKENS + t);
            v16_transpose(x);
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                store(a->type_v, pool, raw + kvcl_cpu_raw_at(true, dim, t + j, d), x[j]);
        }
}

static void values(work *w, const kvcl_spectral_dec_args *a, const kvcl_cpu_spectral *in,
                   const float *mean, size_t raw)
{
    uint32_t D = in->D, n = in->head->n_comp;
    components(in, w->x);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        w->step[t] = (in->head->quantum * 0.0078125f) * kvcl_f16_to_f32(in->norms[t]); /* 2^-7 */
    for (uint32_t d = 0; d < D; d += CODE_TILE) {
        float *h = w->y + (size_t)d * KVCL_TOKENS;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < CODE_TILE; j++)
                w->rows[j][i] = (float)kvcl_cpu_spectral_weight(in, in->synth, i, d + j);
        KVCL_SIMD_FN(key_dot)(w->x, n, w->rows[0], CODE_MAX_DIM, CODE_TILE, h, KVCL_TOKENS);
        for (uint32_t j = 0; j < CODE_TILE; j++)
            for (uint32_t t = 0; t < KVCL_TOKENS; t += 16)
                v16_store(h + j * KVCL_TOKENS + t,
                          v16_fma(v16_load(w->step + t), v16_load(h + j * KVCL_TOKENS + t),
                                  v16_set(mean[d + j])));
    }
    store_rows(w, a, D, raw);
}

void KVCL_SIMD_FN(spectral_dec)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_spectral_dec_args *a = args;
    uint32_t Hk = a->shape.n_kv_heads, D = a->shape.head_dim, loaded = Hk;
    const int32_t *from = kvcl_cpu_ptr(a->pool_table), *to = kvcl_cpu_ptr(a->page_table);
    const float *table = kvcl_cpu_ptr(a->table);
    work *w = (work *)(void *)p->scratch;
    if (a->shape.fold != 1) {
        kvcl_cpu_spectral_dec(args, p);
        return;
    }
    KVCL_SIMD_FN(sp_begin)(&w->sp, 1);
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t hk = task / a->n_pages, i = task % a->n_pages; /* a head's pages together */
        size_t raw = ((size_t)to[i] * Hk + hk) * D * KVCL_TOKENS, slot = (size_t)from[i];
        size_t first = ((size_t)a->first_page + i) * KVCL_TOKENS;
        kvcl_cpu_spectral k = kvcl_cpu_spectral_at(&a->shape, a->basis, a->pool, slot, false, hk);
        kvcl_cpu_spectral v = kvcl_cpu_spectral_at(&a->shape, a->basis, a->pool, slot, true, hk);
        if (loaded != hk)
            KVCL_SIMD_FN(sp_load_basis)(&w->sp, &k, &v);
        loaded = hk;
        keys(w, a, &k, kvcl_cpu_spectral_mean(&a->shape, a->means, false, hk),
             table ? table + first * a->n_rot : NULL, raw);
        values(w, a, &v, kvcl_cpu_spectral_mean(&a->shape, a->means, true, hk), raw);
    }
}
