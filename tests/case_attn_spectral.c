/* case_attn_spectral.c - attention by block partials over spectral pages.  Kernels:
 * cl/attn_spectral.cl; twin: cpu/attn_spectral.c
 *
 * Identities: near softmax attention in double precision over the pages that spectral_dec makes of
 * the same codes; a query of a batch has the bits it has alone; a region cut where blocks meet has
 * the bits of the whole; a block of which a query sees nothing stays unwritten. */
#include "bases.h"

#include "f16.h"
#include "shared.h"
#include "types.h"

typedef struct as_params {
    uint32_t bits_k, bits_v, fold, pairing, n_rot;
    test_region region;
} as_params;

typedef struct as_data {
    const as_params *p;
    test_spectral spec;
    test_attn attn;
    kvcl_view pool, means, table;
} as_data;

/* One page of made-up codes. */
static void make_page(test_run *r, const kvcl_spectral_shape *s, unsigned char *page)
{
    size_t parts[4];
    kvcl_spectral_page_bytes(s, parts);
    for (size_t i = 0; i < parts[0] + parts[1]; i++) {
        page[i] = (unsigned char)test_u32(&r->rng);
        if (page[i] == 128) /* no code of 8 bits */
            page[i] = 129;
    }
    uint16_t *norms = (uint16_t *)(void *)(page + parts[0] + parts[1]);
    for (size_t i = 0; i < (parts[2] + parts[3]) / 2; i++) {
        uint32_t odd = test_below(&r->rng, 40);
        float norm = 0.5f + 0.25f * test_unit(&r->rng);
        norms[i] = odd < 2 ? (uint16_t)(odd * (1 + test_below(&r->rng, 1000)))
                           : kvcl_f32_to_f16(norm); /* now and then zero or sub-normal */
    }
}

static as_data make(test_run *r, const as_params *p)
{
    const test_region *g = &p->region;
    as_data d = {.p = p, .attn = test_attn_make(r, g)};
    size_t parts[4], n_pages = d.attn.n_pages;
    d.spec = test_spectral_make(r, g->dim, g->n_kv, p->fold, p->bits_k, p->bits_v);
    size_t bytes = kvcl_spectral_page_bytes(&d.spec.shape, parts);
    unsigned char *pool = test_mem(r, (n_pages + 1) * bytes);
    memset(pool, 0xff, (n_pages + 1) * bytes);
    for (size_t i = 0; i < n_pages; i++)
        make_page(r, &d.spec.shape, pool + (size_t)d.attn.slots[i] * bytes);
    d.pool = test_in(r, pool, (n_pages + 1) * bytes);
    size_t n_means = 2 * (size_t)g->n_kv * g->dim;
    d.means = test_in(r, test_floats(r, n_means, 1.0f), n_means * sizeof(float));
    if (p->pairing != KVCL_ROPE_NONE) {
        uint32_t n_rows = (d.attn.first_page + d.attn.n_pages) * KVCL_PAGE_TOKENS;
        d.table = test_in(r, test_rope_table(r, n_rows, p->n_rot), (size_t)n_rows * p->n_rot * 4);
    }
    return d;
}

static void attend(test_run *r, const void *data, const kvcl_attn_in *in)
{
    const as_data *d = data;
    kvcl_attn_spectral_args a = {
        .in = *in, .shape = d->spec.shape, .pool = d->pool, .means = d->means};
    a.basis = d->spec.basis;
    a.table = d->table;
    a.n_rot = d->p->n_rot;
    a.pairing = (kvcl_rope_pairing)d->p->pairing;
    test_ok(r, kvcl_op_attn_spectral(r->d->q, &a));
}

static void run(test_run *r, const void *params)
{
    as_data d = make(r, params);
    d.attn.in = test_attn_part(r, &d.attn, d.attn.in.begin, d.attn.in.end);
    attend(r, &d, &d.attn.in);
}

/* Raw F32 pools of what the codes stand for, keys turned by their position. */
static void decode(test_run *r, const as_data *d, kvcl_view *k, kvcl_view *v)
{
    const kvcl_spectral_shape *s = &d->spec.shape;
    kvcl_spectral_dec_args a = {.shape = *s, .pool = d->pool, .means = d->means};
    size_t elems = (size_t)s->n_kv_heads * s->head_dim * KVCL_PAGE_TOKENS;
    a.basis = d->spec.basis;
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
    test_ok(r, kvcl_op_spectral_dec(r->d->q, &a));
}

static void identity(test_run *r, const void *params)
{
    as_data d = make(r, params);
    kvcl_view k, v;
    d.attn.in = test_attn_part(r, &d.attn, d.attn.in.begin, d.attn.in.end);
    attend(r, &d, &d.attn.in);
    decode(r, &d, &k, &v);
    test_wait(r);
    for (uint32_t hk = 0; hk < d.spec.shape.n_kv_heads; hk++)
        test_attn_check_head(r, &d.attn, k, v, hk, 4e-5, 1.5e-3);
    test_attn_check_bits(r, &d.attn, attend, &d);
}

/* ---- cases --------------------------------------------------------------------------------- */

void test_cases_attn_spectral(test_cases *cases)
{
    static const char *const pairings[] = {"none", "adjacent", "halves"};
    static const uint32_t bits[][2] = {{TEST_MIXED, TEST_MIXED}, {8, 8}, {4, 2}, {1, 4}};
    static const struct {
        test_region region;
        uint32_t pairing, n_rot;
    } shapes[] = {
        /* D, heads, group; n, pos0; tokens; first partial, spare ones, gap between rows */
        {{32, 1, 1, 1, 70, 5, 71, 0, 0, 0}, KVCL_ROPE_HALVES, 32},
        {{64, 3, 2, 3, 700, 408, 600, 1, 2, 0}, KVCL_ROPE_ADJACENT, 40},
        {{96, 1, 4, 2, 1100, 900, 1030, 0, 0, 3}, KVCL_ROPE_HALVES, 96},
        {{128, 2, 4, 1, 2000, 448, 600, 0, 0, 0}, KVCL_ROPE_HALVES, 128},
        {{256, 1, 2, 5, 126, 100, 131, 0, 0, 0}, KVCL_ROPE_HALVES, 64},
        {{64, 2, 1, 70, 480, 470, 550, 0, 0, 0}, KVCL_ROPE_ADJACENT, 64},
        {{128, 1, 3, 1, 5000, 4090, 4200, 0, 0, 0}, KVCL_ROPE_NONE, 0},
        {{32, 8, 8, 2, 33000, 32704, 32832, 0, 0, 32}, KVCL_ROPE_NONE, 0},
        {{64, 1, 5, 1, 199, 64, 200, 0, 0, 0}, KVCL_ROPE_HALVES, 64},
    };
    for (uint32_t f = 0; f < 4; f++) {
        for (size_t b = 0; b < kvcl_array_len(bits); b++) {
            for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
                uint32_t fold = 1u << f;
                bool small = i == 0 && b == 0 && f % 2 == 0;
                if (!small && !test_pairwise(i + b + f, 3))
                    continue;
                const test_region *g = &shapes[i].region;
                as_params p = {bits[b][0],        bits[b][1],      fold,
                               shapes[i].pairing, shapes[i].n_rot, *g};
                test_cases_add(cases, small, run, identity, &p, sizeof p,
                               "attn_spectral k%uv%u fold=%u D=%u heads=%ux%u n=%u pos0=%u "
                               "tokens=%u-%u rope=%s/%u",
                               p.bits_k, p.bits_v, fold, g->dim, g->group, g->n_kv, g->n, g->pos0,
                               g->begin, g->end, pairings[p.pairing], p.n_rot);
            }
        }
    }
}
