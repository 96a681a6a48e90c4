/* simd_holo.c - block partials over superposed pages.  Definition: cpu/holo.c
 *
 * Pages are made as rows of f32 in scratch and attended as raw ones (simd_attn.c); tokens stand in
 * lanes while they are made. */
#include "holo.h"
#include "simd_attn.h"
#include "simd_code.h"

#define MAX_D CODE_MAX_DIM
#define TILE 16 /* dimensions of a matrix at a time */

typedef struct work {
    float z[MAX_D * KVCL_TOKENS]; /* components [n_comp][64] */
    float x[MAX_D * KVCL_TOKENS]; /* rows [D][64] */
    float columns[TILE][MAX_D];   /* of the matrix: [dimension][component] */
} work;

_Static_assert(ATTN_WORK_BYTES + sizeof(work) <= KVCL_CPU_SCRATCH_BYTES, "scratch of a thread");

typedef struct holo_pages {
    kvcl_simd_pages pages; /* first: what attn_pages knows */
    const kvcl_attn_holo_args *a;
    work *w;
} holo_pages;

/* Dimensions d0 .. d0 + 15 of the matrix. */
static void load_columns(const kvcl_cpu_holo *x, uint32_t d0, work *w)
{
    uint32_t i = 0;
    const uint16_t *m = x->matrix + d0;
    for (; i + TILE <= x->n_comp; i += TILE) {
        v16 t[TILE];
        KVCL_UNROLL
        for (uint32_t j = 0; j < TILE; j++)
            t[j] = v16_load_f16((const unsigned char *)(m + (size_t)(i + j) * x->D));
        v16_transpose(t);
        KVCL_UNROLL
        for (uint32_t j = 0; j < TILE; j++)
            v16_store(w->columns[j] + i, t[j]);
    }
    for (; i < x->n_comp; i++)
        for (uint32_t j = 0; j < TILE; j++)
            w->columns[j][i] = kvcl_f16_to_f32(m[(size_t)i * x->D + j]);
}

/* Rows [D][64] to out, which may be z. */
static void make_rows(const kvcl_cpu_holo *x, work *w, float *out)
{
    for (uint32_t slot = 0; slot < KVCL_TOKENS / x->fold; slot++)
        kvcl_cpu_holo_components(x, slot, w->z + slot * x->fold, KVCL_TOKENS);
    for (uint32_t d = 0; d < x->D; d += TILE) {
        float *to = out + (size_t)d * KVCL_TOKENS;
        const float *from = x->matrix ? to : w->z + (size_t)d * KVCL_TOKENS;
        if (x->matrix) {
            load_columns(x, d, w);
            KVCL_SIMD_FN(key_dot)
            (w->z, x->n_comp, w->columns[0], MAX_D, TILE, to, KVCL_TOKENS);
        }
        for (uint32_t e = 0; e < TILE * KVCL_TOKENS; e += 16) {
            v16 mean = v16_set(x->mean ? x->mean[d + e / KVCL_TOKENS] : 0.0f);
            v16_store(to + e, v16_fma(v16_set(x->gain), v16_load(from + e), mean));
        }
    }
}

/* Turns keys [D][64]; cs: the page's first row of the table. */
static void turn_keys(const kvcl_attn_holo_args *a, const float *cs, float *k)
{
    bool adjacent = a->pairing == KVCL_ROPE_ADJACENT;
    for (uint32_t i = 0; i < a->n_rot / 2; i++) {
        float *x = k + (size_t)(adjacent ? 2 * i : i) * KVCL_TOKENS;
        float *y = x + (size_t)(adjacent ? 1 : a->n_rot / 2) * KVCL_TOKENS;
        for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
            float p = x[t], q = y[t];
            float c = cs[(size_t)t * a->n_rot + 2 * i], s = cs[(size_t)t * a->n_rot + 2 * i + 1];
            x[t] = fmaf(p, c, -(q * s));
            y[t] = fmaf(q, c, p * s);
        }
    }
}

static void turn_around(const float *x, uint32_t D, float *out)
{
    for (uint32_t d = 0; d < D; d += 16)
        for (uint32_t t = 0; t < KVCL_TOKENS; t += 16) {
            v16 tile[16];
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                tile[j] = v16_load(x + (size_t)(d + j) * KVCL_TOKENS + t);
            v16_transpose(tile);
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                v16_store(out + (size_t)(t + j) * D + d, tile[j]);
        }
}

static void make_page(const kvcl_simd_pages *pages, uint32_t i_page, uint32_t hk, float *k,
                      float *v)
{
    const holo_pages *h = (const holo_pages *)pages;
    const kvcl_attn_holo_args *a = h->a;
    const int32_t *slots = kvcl_cpu_ptr(a->in.page_table);
    size_t slot = (size_t)slots[i_page - a->in.begin / KVCL_TOKENS];
    kvcl_cpu_holo x =
        kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool, slot, i_page, false, hk);
    make_rows(&x, h->w, k);
    if (a->table.buf && a->pairing != KVCL_ROPE_NONE)
        turn_keys(
            a, (const float *)kvcl_cpu_ptr(a->table) + (size_t)i_page * KVCL_TOKENS * a->n_rot, k);
    x = kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool, slot, i_page, true, hk);
    make_rows(&x, h->w, h->w->x);
    turn_around(h->w->x, x.D, v);
}

void KVCL_SIMD_FN(attn_holo)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_holo_args *a = args;
    holo_pages h = {.pages = {.in = &a->in, .make = make_page}, .a = a};
    h.w = (work *)(void *)(p->scratch + ATTN_WORK_BYTES);
    KVCL_SIMD_FN(attn_pages)(&h.pages, p);
}
