/* case_attn_quant.c - attention by block partials over quant pages.  Kernels: cl/attn_quant.cl;
 * twin: cpu/attn_quant.c
 *
 * Identities: near softmax attention in double precision over the pages that quant_dec makes of the
 * same codes; a query of a batch has the bits it has alone; a region cut where blocks meet has the
 * bits of the whole; a block of which a query sees nothing stays unwritten. */
#include "pages.h"

#include "f16.h"
#include "shared.h"
#include "types.h"

#include <math.h>

typedef struct aq_params {
    uint32_t form, bits_k, bits_v, pairing, n_rot;
    test_region region;
} aq_params;

typedef struct aq_data {
    const aq_params *p;
    kvcl_quant_shape shape;
    test_attn attn;
    kvcl_view pool, means, table;
} aq_data;

/* A scale such that values are about one in size; now and then zero or sub-normal. */
static uint16_t make_scale(test_run *r, uint32_t bits, float size)
{
    float unit = bits == 8 ? 73.0f : kvcl_quant_unit(bits);
    uint32_t odd = test_below(&r->rng, 40);
    if (odd < 2)
        return (uint16_t)(odd * (1 + test_below(&r->rng, 1000)));
    return kvcl_f32_to_f16((1.0f + 0.5f * test_unit(&r->rng)) * size / unit);
}

static void make_words(test_run *r, uint32_t bits, uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t w = test_u32(&r->rng);
        for (uint32_t byte = 0; bits == 8 && byte < 32; byte += 8)
            if ((w >> byte & 255u) == 128u) /* no code of 8 bits */
                w ^= 1u << byte;
        words[i] = w;
    }
}

/* One page of made-up codes. */
static void make_page(test_run *r, const kvcl_quant_shape *s, unsigned char *page)
{
    size_t parts[4];
    uint32_t log2_b = kvcl_head_log2(s->head_dim);
    bool channel = s->form == KVCL_QUANT_CHANNEL;
    float coded = sqrtf(1.0f / (float)(1u << log2_b)) / kvcl_head_up(log2_b);
    kvcl_quant_page_bytes(s, parts);
    make_words(r, s->bits_k, (uint32_t *)(void *)page, parts[0] / 4);
    make_words(r, s->bits_v, (uint32_t *)(void *)(page + parts[0]), parts[1] / 4);
    uint16_t *scales = (uint16_t *)(void *)(page + parts[0] + parts[1]);
    for (size_t i = 0; i < parts[2] / 2; i++) {
        bool mean = channel && i / s->head_dim % 2;
        scales[i] = mean ? kvcl_f32_to_f16(test_unit(&r->rng))
                         : make_scale(r, s->bits_k, channel ? 1.0f : coded);
    }
    scales += parts[2] / 2;
    for (size_t i = 0; i < parts[3] / 2; i++)
        scales[i] = make_scale(r, s->bits_v, coded);
}

static aq_data make(test_run *r, const aq_params *p)
{
    const test_region *g = &p->region;
    aq_data d = {.p = p, .attn = test_attn_make(r, g)};
    size_t parts[4];
    d.shape = (kvcl_quant_shape){g->n_kv, g->dim, p->bits_k, p->bits_v, (kvcl_quant_form)p->form};
    size_t bytes = kvcl_quant_page_bytes(&d.shape, parts), n_pages = d.attn.n_pages;
    unsigned char *pool = test_mem(r, (n_pages + 1) * bytes);
    memset(pool, 0xff, (n_pages + 1) * bytes);
    for (size_t i = 0; i < n_pages; i++)
        make_page(r, &d.shape, pool + (size_t)d.attn.slots[i] * bytes);
    d.pool = test_in(r, pool, (n_pages + 1) * bytes);
    uint32_t last_block = (g->end - 1) / KVCL_BLOCK_TOKENS;
    size_t n_means = (kvcl_mean_epoch(last_block) + 1) * 2 * (size_t)g->n_kv * g->dim;
    d.means = test_in(r, test_floats(r, n_means, 1.0f), n_means * sizeof(float));
    if (p->form == KVCL_QUANT_PRE && p->pairing != KVCL_ROPE_NONE) {
        uint32_t n_rows = (d.attn.first_page + d.attn.n_pages) * KVCL_PAGE_TOKENS;
        d.table = test_in(r, test_rope_table(r, n_rows, p->n_rot), (size_t)n_rows * p->n_rot * 4);
    }
    return d;
}

static void attend(test_run *r, const void *data, const kvcl_attn_in *in)
{
    const aq_data *d = data;
    kvcl_attn_quant_args a = {.in = *in, .shape = d->shape, .pool = d->pool, .means = d->means};
    a.table = d->table;
    a.n_rot = d->p->n_rot;
    a.pairing = (kvcl_rope_pairing)d->p->pairing;
    test_ok(r, kvcl_op_attn_quant(r->d->q, &a));
}

static void run(test_run *r, const void *params)
{
    aq_data d = make(r, params);
    d.attn.in = test_attn_part(r, &d.attn, d.attn.in.begin, d.attn.in.end);
    attend(r, &d, &d.attn.in);
}

/* ---- identities ---------------------------------------------------------------------------- */

/* Raw F32 pools of what the codes stand for, keys turned by their position. */
static void decode(test_run *r, const aq_data *d, kvcl_view *k, kvcl_view *v)
{
    kvcl_quant_dec_args a = {.shape = d->shape, .pool = d->pool, .means = d->means};
    size_t elems = (size_t)d->shape.n_kv_heads * d->shape.head_dim * KVCL_PAGE_TOKENS;
    a.pool_table = test_in(r, d->attn.slots, d->attn.n_pages * sizeof(int32_t));
    a.page_table = a.pool_table;
    a.table = d->table;
    a.k = *k = test_out(r, (d->attn.n_pages + 1) * elems * sizeof(float));
    a.v = *v = test_out(r, (d->attn.n_pages + 1) * elems * sizeof(float));
    a.first_page = d->attn.first_page;
    a.n_pages = d->attn.n_pages;
    a.n_rot = d->p->n_rot;
    a.pairing = (kvcl_rope_pairing)d->p->pairing;
    a.type_k = a.type_v = KVCL_F32;
    test_ok(r, kvcl_op_quant_dec(r->d->q, &a));
}

static void identity(test_run *r, const void *params)
{
    aq_data d = make(r, params);
    kvcl_view k, v;
    d.attn.in = test_attn_part(r, &d.attn, d.attn.in.begin, d.attn.in.end);
    attend(r, &d, &d.attn.in);
    decode(r, &d, &k, &v);
    test_wait(r);
    /* queries (but PRE's) and weights are rounded to 15 bits of the largest */
    double tol = d.p->form == KVCL_QUANT_PRE ? 4e-5 : 1.5e-3;
    for (uint32_t hk = 0; hk < d.shape.n_kv_heads; hk++)
        test_attn_check_head(r, &d.attn, k, v, hk, tol, 1.5e-3);
    test_attn_check_bits(r, &d.attn, attend, &d);
}

/* ---- cases --------------------------------------------------------------------------------- */

void test_cases_attn_quant(test_cases *cases)
{
    static const char *const forms[] = {"pre", "post", "channel"};
    static const char *const pairings[] = {"none", "adjacent", "halves"};
    static const uint32_t bits[][2] = {{8, 8}, {4, 4}, {3, 3}, {2, 2}, {1, 1}, {3, 2}, {8, 1}};
    static const struct {
        test_region region;
        uint32_t pairing, n_rot;
    } shapes[] = {
        /* D, heads, group; n, pos0; tokens; first partial, spare ones, gap between rows */
        {{32, 1, 1, 1, 70, 5, 71, 0, 0, 0}, KVCL_ROPE_HALVES, 32},
        {{64, 2, 2, 3, 700, 8, 600, 1, 2, 0}, KVCL_ROPE_ADJACENT, 40},
        {{96, 1, 4, 2, 1100, 500, 1030, 0, 0, 3}, KVCL_ROPE_HALVES, 96},
        {{128, 2, 4, 1, 2000, 64, 1536, 0, 0, 0}, KVCL_ROPE_HALVES, 128},
        {{256, 1, 2, 5, 126, 100, 131, 0, 0, 0}, KVCL_ROPE_HALVES, 64},
        {{64, 3, 1, 70, 480, 470, 550, 0, 0, 0}, KVCL_ROPE_ADJACENT, 64},
        {{160, 1, 3, 1, 5000, 4090, 4500, 0, 0, 0}, KVCL_ROPE_NONE, 0},
        {{32, 2, 8, 2, 33000, 32704, 32832, 0, 0, 32}, KVCL_ROPE_NONE, 0},
    };
    for (uint32_t form = 0; form <= KVCL_QUANT_CHANNEL; form++) {
        for (size_t b = 0; b < kvcl_array_len(bits); b++) {
            for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
                const test_region *g = &shapes[i].region;
                bool small = i == 0 && (b == 0 || b == 5);
                if (!small && !test_pairwise(i + b + form, 3))
                    continue;
                aq_params p = {form, bits[b][0], bits[b][1], shapes[i].pairing, shapes[i].n_rot,
                               *g};
                test_cases_add(cases, small, run, identity, &p, sizeof p,
                               "attn_quant %s k%uv%u D=%u heads=%ux%u n=%u pos0=%u tokens=%u-%u "
                               "rope=%s/%u",
                               forms[form], p.bits_k, p.bits_v, g->dim, g->group, g->n_kv, g->n,
                               g->pos0, g->begin, g->end, pairings[p.pairing], p.n_rot);
            }
        }
    }
}
