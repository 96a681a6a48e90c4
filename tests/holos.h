/* holos.h - made-up rows, bases and means for the cases of superposed pages. */
#ifndef KVCL_TEST_HOLOS_H
#define KVCL_TEST_HOLOS_H

#include "pages.h"

typedef struct test_holo_params {
    uint32_t form, fold, type, dim, n_kv;
    uint32_t first_page, n_pages, n_skip;
    uint32_t pairing, n_rot, type_k, type_v;
} test_holo_params;

typedef struct test_holo {
    kvcl_holo_shape shape;
    float *k, *v;         /* [page][Hk][D][64], [page][Hk][64][D] */
    float *means, *basis; /* NULL: none; the basis as f16 holds it */
    int32_t *raw_slots, *code_slots, *dec_slots;
    uint32_t n_comp[2], fold[2], chips; /* of K, V */
    size_t head_elems, page_elems;
    kvcl_view means_view, basis_view, pool, code_table, bad;
} test_holo;

static inline bool test_holo_has_basis(const test_holo_params *p)
{
    return p->form != KVCL_HOLO_SIGNS;
}
/* Where value dim of token t stands in d->k or d->v; i: page and head. */
size_t test_holo_place(const test_holo_params *p, uint32_t of_v, uint32_t i, uint32_t t,
                       uint32_t dim);
/* [n_comp][D] */
const float *test_holo_basis(const test_holo_params *p, const test_holo *d, uint32_t page,
                             uint32_t of_v, uint32_t head);
/* 0 where there are none. */
float test_holo_mean(const test_holo_params *p, const test_holo *d, uint32_t page, uint32_t of_v,
                     uint32_t head, uint32_t dim);
/* Rows around the means, for chips in the span of the basis; the pool is still absent. */
test_holo test_holo_make(test_run *r, const test_holo_params *p);

#endif
