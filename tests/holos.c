/* holos.c - made-up rows, bases and means for the cases of superposed pages. */
#include "holos.h"

#include "bases.h"
#include "f16.h"
#include "shared.h"

static kvcl_holo_shape shape_of(const test_holo_params *p)
{
    bool chips = p->form == KVCL_HOLO_CHIPS;
    return (kvcl_holo_shape){.n_kv_heads = p->n_kv,
                             .head_dim = p->dim,
                             .fold = p->fold,
                             .pair = p->pairing == KVCL_ROPE_ADJACENT ? 2 : 1,
                             .form = (kvcl_holo_form)p->form,
                             .type = (kvcl_type)p->type,
                             .gain_k = chips ? 1.0f / (float)p->fold : 0.35f,
                             .gain_v = chips ? 1.0f / (float)p->fold : 1.0f};
}

/* Orthonormal rows for chips, else anything. */
static void make_basis(test_run *r, const test_holo_params *p, test_holo *d)
{
    size_t each = (size_t)d->n_comp * p->dim, n = 2 * p->n_kv * each;
    uint16_t *half = test_mem(r, n * sizeof *half);
    d->basis = test_mem(r, n * sizeof(float));
    for (size_t i = 0; i < n; i += each) {
        float *from =
            p->form == KVCL_HOLO_CHIPS ? test_orthonormal(r, p->dim) : test_gauss(r, each, 0.1f);
        for (size_t e = 0; e < each; e++) {
            half[i + e] = kvcl_f32_to_f16(from[e]);
            d->basis[i + e] = kvcl_f16_to_f32(half[i + e]);
        }
    }
    d->basis_view = test_in(r, half, n * sizeof *half);
}

const float *test_holo_basis(const test_holo_params *p, const test_holo *d, uint32_t of_v,
                             uint32_t head)
{
    return d->basis + (of_v * p->n_kv + head) * (size_t)d->n_comp * p->dim;
}

float test_holo_mean(const test_holo_params *p, const test_holo *d, uint32_t page, uint32_t of_v,
                     uint32_t head, uint32_t dim)
{
    size_t epoch = kvcl_mean_epoch((p->first_page + page) / KVCL_BLOCK_PAGES);
    return d->means ? d->means[((epoch * 2 + of_v) * p->n_kv + head) * p->dim + dim] : 0.0f;
}

size_t test_holo_place(const test_holo_params *p, uint32_t of_v, uint32_t i, uint32_t t,
                       uint32_t dim)
{
    size_t head = (size_t)i * p->dim * KVCL_PAGE_TOKENS;
    return head + (of_v ? (size_t)t * p->dim + dim : (size_t)dim * KVCL_PAGE_TOKENS + t);
}

/* Rows around the means: anything; for chips what they can say. */
static void make_rows(test_run *r, const test_holo_params *p, test_holo *d, uint32_t of_v)
{
    float *x = of_v ? d->v : d->k;
    for (uint32_t i = 0; i < p->n_pages * p->n_kv * KVCL_PAGE_TOKENS; i++) {
        uint32_t head = i / KVCL_PAGE_TOKENS, t = i % KVCL_PAGE_TOKENS;
        float c[256];
        for (uint32_t e = 0; e < d->n_comp; e++)
            c[e] = 2.0f * test_unit(&r->rng);
        for (uint32_t dim = 0; dim < p->dim; dim++) {
            double y = (double)c[dim % d->n_comp];
            if (p->form == KVCL_HOLO_CHIPS)
                y = 0.0;
            for (uint32_t e = 0; e < d->n_comp && p->form == KVCL_HOLO_CHIPS; e++)
                y += (double)c[e] *
                     (double)test_holo_basis(p, d, of_v, head % p->n_kv)[e * p->dim + dim];
            x[test_holo_place(p, of_v, head, t, dim)] =
                (float)y + test_holo_mean(p, d, head / p->n_kv, of_v, head % p->n_kv, dim);
        }
    }
}

test_holo test_holo_make(test_run *r, const test_holo_params *p)
{
    test_holo d = {.shape = shape_of(p), .head_elems = (size_t)p->dim * KVCL_PAGE_TOKENS};
    uint32_t last = p->first_page + p->n_pages - 1;
    d.page_elems = d.head_elems * p->n_kv;
    d.chips = p->form == KVCL_HOLO_CHIPS ? p->fold : 1;
    d.n_comp = p->dim / d.chips;
    if (test_holo_has_basis(p)) {
        size_t n = (kvcl_mean_epoch(last / KVCL_BLOCK_PAGES) + 1) * 2 * (size_t)p->n_kv * p->dim;
        make_basis(r, p, &d);
        d.means = test_floats(r, n, 1.0f);
        d.means_view = test_in(r, d.means, n * sizeof(float));
    }
    d.k = test_mem(r, p->n_pages * d.page_elems * sizeof(float));
    d.v = test_mem(r, p->n_pages * d.page_elems * sizeof(float));
    make_rows(r, p, &d, 0);
    make_rows(r, p, &d, 1);
    d.raw_slots = test_slots(r, p->n_pages);
    d.code_slots = test_slots(r, p->n_pages);
    d.dec_slots = test_slots(r, p->n_pages);
    d.code_table = test_in(r, d.code_slots, p->n_pages * sizeof(int32_t));
    return d;
}
