/* holos.c - made-up rows, bases and means for the cases of superposed pages. */
#include "holos.h"

#include "bases.h"
#include "f16.h"
#include "shared.h"

static kvcl_holo_shape shape_of(const test_holo_params *p)
{
    bool side = p->form == KVCL_HOLO_SIDE, chips = p->form == KVCL_HOLO_CHIPS;
    return (kvcl_holo_shape){.n_kv_heads = p->n_kv,
                             .head_dim = p->dim,
                             .fold = p->fold,
                             .pair = p->pairing == KVCL_ROPE_ADJACENT ? 2 : 1,
                             .form = (kvcl_holo_form)p->form,
                             .type = (kvcl_type)p->type,
                             .gain_k = chips  ? 1.0f / (float)p->fold
                                       : side ? 1.0f
                                              : 0.35f,
                             .gain_v = chips ? 1.0f / (float)p->fold : 1.0f,
                             .fold_v = side ? (p->fold == 8 ? 2 : 2 * p->fold) : 0,
                             .by_block = side};
}

/* Where the matrix of a page's head begins. */
static size_t basis_at(const test_holo_params *p, const test_holo *d, uint32_t page, uint32_t of_v,
                       uint32_t head)
{
    size_t each = (size_t)p->n_kv * (d->n_comp[0] + d->n_comp[1]), at = head * d->n_comp[of_v];
    at += of_v ? (size_t)p->n_kv * d->n_comp[0] : 0;
    at += d->shape.by_block ? page / KVCL_BLOCK_PAGES * each : 0;
    return at * p->dim;
}

/* Some rows of an orthonormal matrix, or anything. */
static void make_basis(test_run *r, const test_holo_params *p, test_holo *d)
{
    uint32_t last = p->first_page + p->n_pages - 1;
    size_t n = basis_at(p, d, last / KVCL_BLOCK_PAGES * KVCL_BLOCK_PAGES, 1, p->n_kv);
    bool any = p->form == KVCL_HOLO_MATRIX;
    const float *q = any ? test_gauss(r, n, 0.1f) : test_orthonormal(r, p->dim);
    uint16_t *half = test_mem(r, n * sizeof *half);
    d->basis = test_mem(r, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        size_t row = i / p->dim % p->dim; /* the next matrix goes on where the last one ended */
        half[i] = kvcl_f32_to_f16(any ? q[i] : q[row * p->dim + i % p->dim]);
        d->basis[i] = kvcl_f16_to_f32(half[i]);
    }
    d->basis_view = test_in(r, half, n * sizeof *half);
}

const float *test_holo_basis(const test_holo_params *p, const test_holo *d, uint32_t page,
                             uint32_t of_v, uint32_t head)
{
    return d->basis + basis_at(p, d, p->first_page + page, of_v, head);
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

/* Rows around the means: anything; from fewer components what they can say. */
static void make_rows(test_run *r, const test_holo_params *p, test_holo *d, uint32_t of_v)
{
    float *x = of_v ? d->v : d->k;
    for (uint32_t i = 0; i < p->n_pages * p->n_kv * KVCL_PAGE_TOKENS; i++) {
        uint32_t head = i / KVCL_PAGE_TOKENS, t = i % KVCL_PAGE_TOKENS;
        float c[256];
        uint32_t n = d->n_comp[of_v], page = head / p->n_kv;
        for (uint32_t e = 0; e < n; e++)
            c[e] = 2.0f * test_unit(&r->rng);
        for (uint32_t dim = 0; dim < p->dim; dim++) {
            double y = n == p->dim ? (double)c[dim] : 0.0;
            for (uint32_t e = 0; e < n && n < p->dim; e++)
                y += (double)c[e] *
                     (double)test_holo_basis(p, d, page, of_v, head % p->n_kv)[e * p->dim + dim];
            x[test_holo_place(p, of_v, head, t, dim)] =
                (float)y + test_holo_mean(p, d, page, of_v, head % p->n_kv, dim);
        }
    }
}

test_holo test_holo_make(test_run *r, const test_holo_params *p)
{
    test_holo d = {.shape = shape_of(p), .head_elems = (size_t)p->dim * KVCL_PAGE_TOKENS};
    uint32_t last = p->first_page + p->n_pages - 1;
    d.page_elems = d.head_elems * p->n_kv;
    d.chips = p->form == KVCL_HOLO_CHIPS ? p->fold : 1;
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        d.fold[of_v] = kvcl_holo_fold(&d.shape, of_v);
        d.n_comp[of_v] = kvcl_holo_components(&d.shape, of_v);
    }
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
