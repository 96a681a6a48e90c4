/* simd_spectral.c - raw pages to spectral pages.  Definition: cpu/spectral.c
 *
 * Tokens stand in lanes while coefficients are made, slots afterwards: a component's row is
 * [r][slots].  What runs along the slots are plain loops, which compilers turn to vectors; they
 * are compiled for each number of slots, since eight slots are less than a vector. */
#include "simd_code.h"
#include "spectral.h"

#include <assert.h>

#define MAX_D CODE_MAX_DIM
#define LANES 16 /* of sums over a slot's codes */

typedef struct work {
    float y[MAX_D * KVCL_TOKENS]; /* [D][64], rows around their mean */
    float u[MAX_D * KVCL_TOKENS]; /* [n_comp][r][slots] */
    float rows[CODE_TILE][MAX_D]; /* of the analysis */
    float v[KVCL_TOKENS], level[KVCL_TOKENS], inv[KVCL_TOKENS];
    float sums[3][LANES][KVCL_TOKENS];
    float e[KVCL_TOKENS];
    uint32_t code[KVCL_TOKENS];
    uint16_t order[8 * MAX_D]; /* entry of each code */
} work;

_Static_assert(sizeof(work) <= KVCL_CPU_SCRATCH_BYTES, "scratch of a thread");

typedef struct enc_task {
    const kvcl_spectral_coef_args *a; /* where rows come from */
    work *w;
    kvcl_cpu_spectral x;
    size_t raw; /* first element of the head's raw page */
    uint32_t page, hk;
} enc_task;

static v16 load_raw(kvcl_type type, const unsigned char *p, size_t i)
{
    return type == KVCL_F16 ? v16_load_f16(p + 2 * i) : v16_load(p + 4 * i);
}

/* ---- coefficients -------------------------------------------------------------------------- */

/* Rows around their mean to y; those that nobody reads are nothing. */
static void load_rows(const enc_task *e, bool of_v)
{
    const kvcl_spectral_coef_args *a = e->a;
    kvcl_type type = of_v ? a->type_v : a->type_k;
    const unsigned char *p = kvcl_cpu_ptr(of_v ? a->v : a->k);
    const float *mean = kvcl_cpu_spectral_mean(&a->shape, a->means, of_v, e->hk);
    uint32_t D = e->x.D, skip = e->page == 0 ? a->n_skip : 0;
    uint32_t raw_dim = kvcl_spectral_raw_dim(&a->shape, a->join);
    assert(p);
    p += kvcl_type_bytes(type, e->raw);
    for (uint32_t t = 0; t < KVCL_TOKENS; t += 16)
        for (uint32_t d = 0; d < D; d += 16) {
            v16 x[16];
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                x[j] = load_raw(type, p,
                                of_v ? kvcl_cpu_raw_at(true, raw_dim, t + j, d)
                                     : (size_t)(d + j) * KVCL_TOKENS + t);
            if (of_v)
                v16_transpose(x);
            KVCL_UNROLL
            for (uint32_t j = 0; j < 16; j++)
                v16_store(e->w->y + (size_t)(d + j) * KVCL_TOKENS + t,
                          v16_sub(x[j], v16_set(mean[d + j])));
        }
    for (uint32_t d = 0; d < D && skip; d++)
        memset(e->w->y + (size_t)d * KVCL_TOKENS, 0, skip * sizeof(float));
}

/* Eight numbers: slots come in eights. */
typedef float float8x __attribute__((vector_size(32)));

/* A component's tokens c [64] to u [r][slots]; slots is a constant. */
KVCL_INLINE void transform_slots(uint32_t slots, const float *restrict c, float *restrict u)
{
    uint32_t fold = KVCL_TOKENS / slots;
    for (uint32_t s = 0; s < slots; s += 8) {
        float8x x[8];
        KVCL_UNROLL
        for (uint32_t j = 0; j < fold; j++) {
            const float *from = c + s * fold + j;
            x[j] = (float8x){from[0],        from[fold],     from[2 * fold], from[3 * fold],
                             from[4 * fold], from[5 * fold], from[6 * fold], from[7 * fold]};
        }
        KVCL_UNROLL
        for (uint32_t h = 1; h < fold; h *= 2)
            KVCL_UNROLL
        for (uint32_t j = 0; j < fold; j++)
            if ((j & h) == 0) {
                float8x a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
        KVCL_UNROLL
        for (uint32_t j = 0; j < fold; j++)
            memcpy(u + j * slots + s, &x[j], sizeof x[j]);
    }
}

/* Calls f(slots, ...) with a constant number of slots. */
#define EACH_SLOTS(f, slots, ...) \
    do {                          \
        switch (slots) {          \
        case 64:                  \
            f(64, __VA_ARGS__);   \
            break;                \
        case 32:                  \
            f(32, __VA_ARGS__);   \
            break;                \
        case 16:                  \
            f(16, __VA_ARGS__);   \
            break;                \
        default:                  \
            f(8, __VA_ARGS__);    \
            break;                \
        }                         \
    } while (0)

static void transform(uint32_t slots, const float *c, float *u)
{
    EACH_SLOTS(transform_slots, slots, c, u);
}

static void coefficients(work *w, const kvcl_cpu_spectral *x)
{
    float c[CODE_TILE][KVCL_TOKENS];
    kvcl_cpu_spectral_order(x, w->order);
    for (uint32_t i = 0; i < x->head->n_comp; i += CODE_TILE) {
        const int8_t *four = x->analysis + (size_t)i * x->D;
        for (uint32_t d = 0; d < x->D; d++)
            for (uint32_t j = 0; j < CODE_TILE; j++)
                w->rows[j][d] = (float)four[4 * d + j];
        KVCL_SIMD_FN(key_dot)(w->y, x->D, w->rows[0], MAX_D, CODE_TILE, c[0], KVCL_TOKENS);
        for (uint32_t j = 0; j < CODE_TILE; j++)
            transform(x->slots, c[j], w->u + (size_t)(i + j) * KVCL_TOKENS);
    }
}

/* ---- codes --------------------------------------------------------------------------------- */

/* sum += a b, slot by slot. */
KVCL_INLINE void add_product(uint32_t n, const float *restrict a, const float *restrict b,
                             float *restrict sum)
{
    for (uint32_t s = 0; s < n; s++)
        sum[s] = fmaf(a[s], b[s], sum[s]);
}

/* Halving tree over the lanes, to lane 0. */
KVCL_INLINE void lanes_sum(uint32_t n, float (*sums)[KVCL_TOKENS])
{
    for (uint32_t h = LANES / 2; h > 0; h /= 2)
        for (uint32_t j = 0; j < h; j++)
            for (uint32_t s = 0; s < n; s++)
                sums[j][s] = sums[j][s] + sums[j + h][s];
    for (uint32_t s = 0; s < n; s++)
        sums[0][s] = kvcl_zero(sums[0][s]);
}

/* Codes and levels of v * (unit inv); bits is a constant. */
KVCL_INLINE void codes_of(uint32_t bits, uint32_t n, const float *restrict v,
                          const float *restrict inv, uint32_t *restrict code, float *restrict level)
{
    float edge[16], unit = kvcl_quant_unit(bits);
    int step[16];
    for (uint32_t j = 1; j < 1u << bits; j++) {
        int low = kvcl_quant_level(bits, j - 1), high = kvcl_quant_level(bits, j);
        edge[j] = 0.5f * (float)(low + high);
        step[j] = high - low;
    }
    int first = kvcl_quant_level(bits, 0);
    for (uint32_t s = 0; s < n; s++) {
        float x = v[s] * (unit * inv[s]);
        uint32_t k = 0;
        int c = first;
        KVCL_UNROLL
        for (uint32_t j = 1; j < 1u << bits; j++) {
            k += x > edge[j] ? 1u : 0u;
            c += x > edge[j] ? step[j] : 0;
        }
        code[s] = k;
        level[s] = (float)c;
    }
}

KVCL_INLINE void codes_8(uint32_t n, const float *restrict v, const float *restrict inv,
                         uint32_t *restrict code, float *restrict level)
{
    for (uint32_t s = 0; s < n; s++) {
        float x = v[s] * (32.0f * inv[s]);
        x = x > -127.0f ? x : -127.0f;
        x = x < 127.0f ? x : 127.0f;
        int c = kvcl_round(x);
        code[s] = (uint32_t)c & 255u;
        level[s] = (float)c;
    }
}

KVCL_INLINE void code_row(uint32_t bits, uint32_t n, work *w)
{
    if (bits == 8)
        codes_8(n, w->v, w->inv, w->code, w->level);
    else if (bits == 4)
        codes_of(4, n, w->v, w->inv, w->code, w->level);
    else if (bits == 2)
        codes_of(2, n, w->v, w->inv, w->code, w->level);
    else
        codes_of(1, n, w->v, w->inv, w->code, w->level);
}

KVCL_INLINE void put_codes(uint32_t n, const uint32_t *restrict code, uint32_t shift,
                           uint32_t *restrict words)
{
    for (uint32_t s = 0; s < n; s++)
        words[s] |= code[s] << shift;
}

KVCL_INLINE void scale(uint32_t n, const float *restrict x, float factor, float *restrict out)
{
    for (uint32_t s = 0; s < n; s++)
        out[s] = x[s] * factor;
}

/* The row of an entry's numbers. */
static const float *row_of(const work *w, const kvcl_cpu_spectral *x, uint32_t entry)
{
    uint32_t r = entry / x->D, i = entry - r * x->D;
    return w->u + (size_t)i * KVCL_TOKENS + (size_t)r * x->slots;
}

/* Factors of all slots to inv, sums of squares to e. */
KVCL_INLINE void slot_factors(uint32_t slots, work *w, const kvcl_cpu_spectral *x)
{
    memset(w->sums, 0, sizeof w->sums);
    for (uint32_t c = 0; c < x->head->n_codes; c++) {
        uint32_t entry = w->order[c];
        scale(slots, row_of(w, x, entry), kvcl_recip(x->amp[entry]), w->v);
        add_product(slots, w->v, w->v, w->sums[0][c % LANES]);
    }
    lanes_sum(slots, w->sums[0]);
    memcpy(w->e, w->sums[0][0], sizeof w->e);
    for (uint32_t s = 0; s < slots; s++) {
        float q = w->e[s] * x->head->inv_n;
        w->inv[s] = q < 1e-30f ? 0.0f : kvcl_recip(q * kvcl_rsqrt(q));
    }
}

/* Codes of all slots, and the sums of their norms. */
KVCL_INLINE void make_codes(uint32_t slots, work *w, const kvcl_cpu_spectral *x)
{
    slot_factors(slots, w, x);
    memset(w->sums, 0, sizeof w->sums);
    for (uint32_t c = 0; c < x->head->n_codes; c++) {
        kvcl_cpu_place p;
        uint32_t entry = w->order[c];
        kvcl_cpu_spectral_place(x, entry, &p);
        const float *u = row_of(w, x, entry);
        float amp = x->amp[entry];
        scale(slots, u, kvcl_recip(amp), w->v);
        code_row(8u >> p.plane, slots, w);
        scale(slots, w->level, amp * kvcl_recip(kvcl_spectral_unit(8u >> p.plane)), w->v);
        put_codes(slots, w->code, p.shift, x->words + (size_t)p.word * slots);
        add_product(slots, u, u, w->sums[0][c % LANES]);
        add_product(slots, w->v, w->v, w->sums[1][c % LANES]);
        add_product(slots, u, w->v, w->sums[2][c % LANES]);
    }
    for (uint32_t i = 0; i < 3; i++)
        lanes_sum(slots, w->sums[i]);
}

/* The stored norm of a slot; false for a bad one. */
static bool store_norm(const work *w, const kvcl_cpu_spectral *x, bool of_v, uint32_t s)
{
    float uu = w->sums[0][0][s], divisor = w->sums[of_v ? 2 : 1][0][s];
    float g = divisor < 1e-30f ? 0.0f : uu * kvcl_recip(divisor);
    if (!of_v)
        g = g < 1e-30f ? 0.0f : g * kvcl_rsqrt(g);
    bool nothing = w->e[s] * x->head->inv_n < 1e-30f || g < 1e-30f;
    x->norms[s] = nothing ? 0 : kvcl_f32_to_f16(g);
    return w->e[s] - w->e[s] == 0.0f && uu - uu == 0.0f && (x->norms[s] & 0x7c00u) != 0x7c00u;
}

/* K or V of a head; returns the first token of the first bad slot. */
static uint32_t encode(enc_task *e, kvcl_view pool, size_t slot, bool of_v)
{
    const kvcl_spectral_coef_args *a = e->a;
    kvcl_cpu_spectral *x = &e->x;
    work *w = e->w;
    uint32_t bad = KVCL_TOKENS;
    *x = kvcl_cpu_spectral_at(&a->shape, a->basis, pool, slot, of_v, e->hk);
    assert(x->head && x->words);
    memset(x->words, 0, (size_t)x->n_words * x->slots * sizeof *x->words);
    load_rows(e, of_v);
    coefficients(w, x);
    EACH_SLOTS(make_codes, x->slots, w, x);
    for (uint32_t s = 0; s < x->slots; s++)
        if (!store_norm(w, x, of_v, s))
            bad = kvcl_min_u32(bad, s * x->fold);
    return bad;
}

static enc_task task_of(const kvcl_spectral_coef_args *a, kvcl_cpu_part *p, uint32_t task)
{
    uint32_t Hk = a->shape.n_kv_heads, i = task / Hk;
    const int32_t *from = kvcl_cpu_ptr(a->page_table);
    enc_task e = {.a = a, .w = (work *)(void *)p->scratch, .hk = task % Hk};
    e.page = a->first_page + i;
    e.raw = ((size_t)from[i] * Hk + e.hk) * a->shape.head_dim * KVCL_TOKENS;
    return e;
}

void KVCL_SIMD_FN(spectral_enc)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_spectral_enc_args *a = args;
    const kvcl_spectral_coef_args source = kvcl_spectral_source(a);
    uint32_t Hk = a->shape.n_kv_heads;
    const int32_t *to = kvcl_cpu_ptr(a->pool_table);
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        enc_task e = task_of(&source, p, task);
        uint32_t bad_k = encode(&e, a->pool, (size_t)to[task / Hk], false);
        bad[task] = (int32_t)kvcl_min_u32(bad_k, encode(&e, a->pool, (size_t)to[task / Hk], true));
    }
}

/* Of K or V of a head, in levels of 8 bits, to the head's words of a page of coefficients. */
static void store_coefs(enc_task *e, uint32_t page, bool of_v)
{
    const kvcl_spectral_shape *s = &e->a->shape;
    kvcl_cpu_spectral *x = &e->x;
    *x = kvcl_cpu_spectral_basis(s, e->a->basis, of_v, e->hk);
    assert(x->head);
    float *to = (float *)kvcl_cpu_ptr(e->a->coefs) +
                kvcl_cpu_spectral_first(s, x, page, of_v) * x->slots * 4;
    memset(to, 0, kvcl_cpu_spectral_n_words(s, x, of_v, e->hk) * (size_t)x->slots * 16);
    load_rows(e, of_v);
    coefficients(e->w, x);
    for (uint32_t c = 0; c < x->head->n_codes; c++) {
        kvcl_cpu_place p;
        uint32_t entry = e->w->order[c];
        kvcl_cpu_spectral_place(x, entry, &p);
        const float *u = row_of(e->w, x, entry);
        float *at = to + (size_t)p.word * x->slots * 4 + p.shift / 8;
        float inverse = kvcl_recip(x->amp[entry]);
        for (uint32_t i = 0; i < x->slots && p.plane == 0; i++)
            at[4 * i] = (u[i] * inverse) * 32.0f;
    }
}

void KVCL_SIMD_FN(spectral_coef)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_spectral_coef_args *a = args;
    uint32_t Hk = a->shape.n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        enc_task e = task_of(a, p, task);
        store_coefs(&e, task / Hk, false);
        store_coefs(&e, task / Hk, true);
    }
}
