// spectral.c - raw pages to spectral pages and back.  Kernels: cl/spectral.cl; SIMD:
// cpu/simd_spectral.c
#include "spectral.h"

#include "quant.h"

/* ---- layout -------------------------------------------------------------------------------- */

kvcl_cpu_spectral kvcl_cpu_spectral_basis(const kvcl_spectral_shape *s, kvcl_view basis, bool of_v,
                                          uint32_t hk)
{
    uint32_t D = s->head_dim, fold = s->fold;
    size_t bytes_k = kvcl_spectral_part_bytes(0, D, fold);
    size_t bytes_v = kvcl_spectral_part_bytes(1, D, fold);
    // neither a basis nor a pool is ever absent
    const unsigned char *at = (const unsigned char *)basis.buf->impl + basis.off;
    at += of_v ? s->n_kv_heads * bytes_k + hk * bytes_v : hk * bytes_k;
    return (kvcl_cpu_spectral){
        .head = (const void *)at,
        .synth = (const void *)(at + kvcl_spectral_synth()),
        .analysis = (const void *)(at + kvcl_spectral_analysis(of_v, D)),
        .place = (const void *)(at + kvcl_spectral_places(of_v, D)),
        .factor = (const void *)(at + kvcl_spectral_factor(of_v, D, fold)),
        .amp = (const void *)(at + kvcl_spectral_amp(of_v, D, fold)),
        .fold = fold,
        .slots = KVCL_TOKENS / fold,
        .D = D,
    };
}

kvcl_cpu_spectral kvcl_cpu_spectral_at(const kvcl_spectral_shape *s, kvcl_view basis,
                                       kvcl_view pool, size_t slot, bool of_v, uint32_t hk)
{
    kvcl_cpu_spectral x = kvcl_cpu_spectral_basis(s, basis, of_v, hk);
    size_t part[4], page_bytes = kvcl_spectral_page_bytes(s, part);
    unsigned char *at = (unsigned char *)pool.buf->impl + pool.off + slot * page_bytes;
    unsigned char *norms = at + part[0] + part[1] + (of_v ? part[2] : 0);
    uint32_t *words = (uint32_t *)(void *)(at + (of_v ? part[0] : 0));
    x.words = words + (size_t)x.head->first_word * x.slots;
    x.norms = (uint16_t *)(void *)norms + (size_t)hk * x.slots;
    x.n_words = kvcl_cpu_spectral_n_words(s, &x, of_v, hk);
    return x;
}

uint32_t kvcl_cpu_spectral_n_words(const kvcl_spectral_shape *s, const kvcl_cpu_spectral *x,
                                   bool of_v, uint32_t hk)
{
    bool last = hk + 1 == s->n_kv_heads;
    return last ? (of_v ? s->words_v : s->words_k) - x->head->first_word : x->head->n_words;
}

size_t kvcl_cpu_spectral_first(const kvcl_spectral_shape *s, const kvcl_cpu_spectral *x,
                               uint32_t page, bool of_v)
{
    return (size_t)page * (s->words_k + s->words_v) + (of_v ? s->words_k : 0) + x->head->first_word;
}

const float *kvcl_cpu_spectral_mean(const kvcl_spectral_shape *s, kvcl_view means, bool of_v,
                                    uint32_t hk)
{
    const float *all = kvcl_cpu_ptr(means);
    return all + ((of_v ? s->n_kv_heads : 0u) + hk) * (size_t)s->head_dim;
}

void kvcl_cpu_spectral_order(const kvcl_cpu_spectral *x, uint16_t *order)
{
    kvcl_cpu_place p;
    uint32_t first[4] = {0};
    for (uint32_t i = 1; i < 4; i++)
        first[i] = first[i - 1] + x->head->plane_codes[i - 1];
    for (uint32_t r = 0; r < x->fold; r++)
        for (uint32_t e = r * x->D; e < r * x->D + x->head->n_comp; e++)
            if (kvcl_cpu_spectral_place(x, e, &p)) {
                uint32_t in = (p.shift >> 3) + 4 * ((p.shift & 7u) >> (3 - p.plane));
                uint32_t word = p.word - x->head->plane_word[p.plane];
                order[first[p.plane] + (word << (2 + p.plane)) + in] = (uint16_t)e;
            }
}

/* ---- decoding ------------------------------------------------------------------------------ */

int kvcl_cpu_spectral_level(const kvcl_cpu_spectral *x, uint32_t entry, uint32_t slot)
{
    kvcl_cpu_place p;
    if (!kvcl_cpu_spectral_place(x, entry, &p))
        return 0;
    uint32_t bits = 8u >> p.plane, word = x->words[(size_t)p.word * x->slots + slot];
    return kvcl_quant_value(bits, word >> p.shift & ((1u << bits) - 1u));
}

// x^ of a slot's tokens, component i; fine: 128 times as fine.
static void components(const kvcl_cpu_spectral *x, bool fine, uint32_t slot, uint32_t i,
                       int32_t *out)
{
    for (uint32_t r = 0; r < x->fold; r++) {
        int a = kvcl_cpu_spectral_level(x, r * x->D + i, slot) * x->factor[r * x->D + i];
        out[r] = fine ? a : (a + 64) >> 7;
    }
    for (uint32_t h = 1; h < x->fold; h *= 2)
        for (uint32_t j = 0; j < x->fold; j++)
            if ((j & h) == 0) {
                int32_t a = out[j], b = out[j + h];
                out[j] = a + b;
                out[j + h] = a - b;
            }
}

void kvcl_cpu_spectral_keys(const kvcl_cpu_spectral *x, const float *mean, float *out)
{
    int32_t h[8][256], c[8] = {0};
    for (uint32_t slot = 0; slot < x->slots; slot++) {
        float step = x->head->quantum * kvcl_f16_to_f32(x->norms[slot]);
        memset(h, 0, sizeof h);
        for (uint32_t i = 0; i < x->head->n_comp; i++) {
            components(x, false, slot, i, c);
            for (uint32_t j = 0; j < x->fold; j++)
                for (uint32_t d = 0; d < x->D; d++)
                    h[j][d] += kvcl_cpu_spectral_weight(x, x->synth, i, d) * c[j];
        }
        for (uint32_t j = 0; j < x->fold; j++)
            for (uint32_t d = 0; d < x->D; d++)
                out[(slot * x->fold + j) * x->D + d] =
                    kvcl_zero(fmaf(step, (float)h[j][d], mean[d]));
    }
}

// Rows [64][D] of values.
static void values(const kvcl_cpu_spectral *x, const float *mean, float *out)
{
    float h[8][256];
    int32_t c[8] = {0};
    for (uint32_t slot = 0; slot < x->slots; slot++) {
        float step = (x->head->quantum * 0.0078125f) * kvcl_f16_to_f32(x->norms[slot]); // 2^-7
        memset(h, 0, sizeof h);
        for (uint32_t i = 0; i < x->head->n_comp; i++) {
            components(x, true, slot, i, c);
            for (uint32_t j = 0; j < x->fold; j++)
                for (uint32_t d = 0; d < x->D; d++)
                    h[j][d] = fmaf((float)kvcl_cpu_spectral_weight(x, x->synth, i, d), (float)c[j],
                                   h[j][d]);
        }
        for (uint32_t j = 0; j < x->fold; j++)
            for (uint32_t d = 0; d < x->D; d++)
                out[(slot * x->fold + j) * x->D + d] = kvcl_zero(fmaf(step, h[j][d], mean[d]));
    }
}

/* ---- encoding ------------------------------------------------------------------------------ */

typedef struct enc_work {
    float y[KVCL_TOKENS * 256]; // rows around their mean
    float u[KVCL_TOKENS * 256]; // coefficients [slot][r][D]
    uint16_t order[8 * 256];    // entry of each code
} enc_work;

_Static_assert(sizeof(enc_work) <= KVCL_CPU_SCRATCH_BYTES, "a page");

typedef struct enc_task {
    kvcl_spectral_coef_args a; // where rows come from
    enc_work *w;
    uint32_t page, hk;
    size_t raw; // first element of the head's raw page
} enc_task;

// Rows around their mean; those that nobody reads are nothing.
static void load_rows(const enc_task *e, bool of_v)
{
    uint32_t D = e->a.shape.head_dim, skip = e->page == 0 ? e->a.n_skip : 0;
    uint32_t raw_dim = kvcl_spectral_raw_dim(&e->a.shape, e->a.join);
    kvcl_type type = of_v ? e->a.type_v : e->a.type_k;
    const void *pool = kvcl_cpu_ptr(of_v ? e->a.v : e->a.k);
    const float *mean = kvcl_cpu_spectral_mean(&e->a.shape, e->a.means, of_v, e->hk);
    for (uint32_t t = 0; t < KVCL_TOKENS; t++)
        for (uint32_t d = 0; d < D; d++) {
            size_t at = e->raw + kvcl_cpu_raw_at(of_v, raw_dim, t, d);
            e->w->y[t * D + d] = t < skip ? 0.0f : kvcl_cpu_load(type, pool, at) - mean[d];
        }
}

// Coefficients of a slot's tokens, transformed across them.
static void transform(const kvcl_cpu_spectral *x, const float *y, float *u)
{
    uint32_t D = x->D;
    for (uint32_t i = 0; i < x->head->n_comp; i++) {
        float c[8] = {0};
        for (uint32_t j = 0; j < x->fold; j++) {
            c[j] = 0.0f;
            for (uint32_t d = 0; d < D; d++)
                c[j] =
                    fmaf((float)kvcl_cpu_spectral_weight(x, x->analysis, i, d), y[j * D + d], c[j]);
        }
        kvcl_cpu_fwht_row(c, x->fold);
        for (uint32_t r = 0; r < x->fold; r++)
            u[r * D + i] = c[r];
    }
}

static uint32_t code_of(uint32_t bits, float v)
{
    if (bits < 8)
        return kvcl_quant_index(bits, v);
    v = v > -127.0f ? v : -127.0f;
    v = v < 127.0f ? v : 127.0f;
    return (uint32_t)kvcl_round(v) & 255u;
}

// The stored norm: from the sums of u^2, l^2 and u l.
static uint16_t norm_of(bool of_v, float uu, float ll, float ul)
{
    float divisor = of_v ? ul : ll, g = divisor < 1e-30f ? 0.0f : uu * kvcl_recip(divisor);
    if (!of_v)
        g = g < 1e-30f ? 0.0f : g * kvcl_rsqrt(g);
    return kvcl_f32_to_f16(g < 1e-30f ? 0.0f : g);
}

// One slot's codes into words that were zero, and its norm; false for a bad slot.
static bool encode_slot(const kvcl_cpu_spectral *x, const uint16_t *order, bool of_v, uint32_t slot,
                        const float *u)
{
    float e[16] = {0}, uu[16] = {0}, ll[16] = {0}, ul[16] = {0};
    for (uint32_t n = 0; n < x->head->n_codes; n++) {
        float v = u[order[n]] * kvcl_recip(x->amp[order[n]]);
        e[n % 16] = fmaf(v, v, e[n % 16]);
    }
    float sum = kvcl_cpu_tree(e, 16), q = sum * x->head->inv_n;
    float inv = q < 1e-30f ? 0.0f : kvcl_recip(q * kvcl_rsqrt(q));
    if (sum - sum != 0.0f)
        return false;
    for (uint32_t n = 0; n < x->head->n_codes; n++) {
        kvcl_cpu_place p;
        kvcl_cpu_spectral_place(x, order[n], &p);
        uint32_t entry = order[n], bits = 8u >> p.plane;
        float amp = x->amp[entry], v = u[entry] * kvcl_recip(amp);
        uint32_t code = code_of(bits, v * (kvcl_spectral_unit(bits) * inv));
        float l =
            (float)kvcl_quant_value(bits, code) * (amp * kvcl_recip(kvcl_spectral_unit(bits)));
        x->words[(size_t)p.word * x->slots + slot] |= code << p.shift;
        uu[n % 16] = fmaf(u[entry], u[entry], uu[n % 16]);
        ll[n % 16] = fmaf(l, l, ll[n % 16]);
        ul[n % 16] = fmaf(u[entry], l, ul[n % 16]);
    }
    float tuu = kvcl_cpu_tree(uu, 16), tll = kvcl_cpu_tree(ll, 16), tul = kvcl_cpu_tree(ul, 16);
    x->norms[slot] = q < 1e-30f ? 0 : norm_of(of_v, tuu, tll, tul);
    return tuu - tuu == 0.0f && (x->norms[slot] & 0x7c00u) != 0x7c00u;
}

// Coefficients of K or V of a head to e->w->u, slot by slot.
static void analyse(const enc_task *e, const kvcl_cpu_spectral *x, bool of_v)
{
    size_t n = (size_t)x->fold * x->D;
    load_rows(e, of_v);
    kvcl_cpu_spectral_order(x, e->w->order);
    for (uint32_t i = 0; i < x->slots; i++)
        transform(x, e->w->y + i * n, e->w->u + i * n);
}

// K or V of a head; returns the first token of the first bad slot.
static uint32_t encode(const enc_task *e, kvcl_view pool, size_t slot, bool of_v)
{
    kvcl_cpu_spectral x = kvcl_cpu_spectral_at(&e->a.shape, e->a.basis, pool, slot, of_v, e->hk);
    uint32_t bad = KVCL_TOKENS;
    memset(x.words, 0, (size_t)x.n_words * x.slots * sizeof *x.words);
    analyse(e, &x, of_v);
    for (uint32_t i = 0; i < x.slots; i++)
        if (!encode_slot(&x, e->w->order, of_v, i, e->w->u + i * (size_t)x.fold * x.D))
            bad = kvcl_min_u32(bad, i * x.fold);
    return bad;
}

static enc_task task_of(const kvcl_spectral_coef_args *a, kvcl_cpu_part *p, uint32_t task)
{
    uint32_t Hk = a->shape.n_kv_heads, i = task / Hk;
    const int32_t *from = kvcl_cpu_ptr(a->page_table);
    enc_task e = {.a = *a, .page = a->first_page + i, .hk = task % Hk};
    e.w = (enc_work *)(void *)p->scratch;
    e.raw = ((size_t)from[i] * Hk + e.hk) * a->shape.head_dim * KVCL_TOKENS;
    return e;
}

void kvcl_cpu_spectral_enc(const void *args, kvcl_cpu_part *p)
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

// Of K or V of a head, in levels of 8 bits, to the head's words of a page of coefficients.
static void store_coefs(const enc_task *e, uint32_t page, bool of_v)
{
    kvcl_view coefs = e->a.coefs;
    kvcl_cpu_spectral x = kvcl_cpu_spectral_basis(&e->a.shape, e->a.basis, of_v, e->hk);
    float *to = (float *)kvcl_cpu_ptr(coefs) +
                kvcl_cpu_spectral_first(&e->a.shape, &x, page, of_v) * x.slots * 4;
    memset(to, 0, kvcl_cpu_spectral_n_words(&e->a.shape, &x, of_v, e->hk) * x.slots * 16);
    analyse(e, &x, of_v);
    for (uint32_t n = 0; n < x.head->n_codes; n++) {
        kvcl_cpu_place p;
        uint32_t entry = e->w->order[n];
        kvcl_cpu_spectral_place(&x, entry, &p);
        float inverse = kvcl_recip(x.amp[entry]);
        for (uint32_t i = 0; i < x.slots && p.plane == 0; i++) {
            float u = e->w->u[i * (size_t)x.fold * x.D + entry];
            to[(p.word * x.slots + i) * 4 + p.shift / 8] = (u * inverse) * 32.0f;
        }
    }
}

void kvcl_cpu_spectral_coef(const void *args, kvcl_cpu_part *p)
{
    const kvcl_spectral_coef_args *a = args;
    uint32_t Hk = a->shape.n_kv_heads;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        enc_task e = task_of(a, p, task);
        store_coefs(&e, task / Hk, false);
        store_coefs(&e, task / Hk, true);
    }
}

void kvcl_cpu_spectral_dec(const void *args, kvcl_cpu_part *p)
{
    const kvcl_spectral_dec_args *a = args;
    uint32_t Hk = a->shape.n_kv_heads, D = a->shape.head_dim;
    uint32_t raw_dim = kvcl_spectral_raw_dim(&a->shape, a->join);
    const int32_t *from = kvcl_cpu_ptr(a->pool_table), *to = kvcl_cpu_ptr(a->page_table);
    const float *table = kvcl_cpu_ptr(a->table);
    float *x = (float *)(void *)p->scratch;
    for (uint32_t task, end; kvcl_cpu_take(p, 2 * a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / 2 / Hk, hk = task / 2 % Hk, page = a->first_page + i;
        bool of_v = task % 2;
        size_t raw = ((size_t)to[i] * Hk + hk) * D * KVCL_TOKENS;
        kvcl_cpu_spectral in =
            kvcl_cpu_spectral_at(&a->shape, a->basis, a->pool, (size_t)from[i], of_v, hk);
        const float *mean = kvcl_cpu_spectral_mean(&a->shape, a->means, of_v, hk);
        if (of_v)
            values(&in, mean, x);
        else
            kvcl_cpu_spectral_keys(&in, mean, x);
        for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
            float *row = x + t * D;
            for (uint32_t d = 0; d < D && !of_v && table; d += raw_dim)
                kvcl_cpu_turn(a->pairing, a->n_rot,
                              table + ((size_t)page * KVCL_TOKENS + t) * a->n_rot, false, row + d);
            for (uint32_t d = 0; d < D; d++)
                kvcl_cpu_store(of_v ? a->type_v : a->type_k, kvcl_cpu_ptr(of_v ? a->v : a->k),
                               raw + kvcl_cpu_raw_at(of_v, raw_dim, t, d), row[d]);
        }
    }
}
