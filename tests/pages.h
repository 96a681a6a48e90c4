/* pages.h - made-up pages for the cases of codecs: slots in shuffled order, raw pools, rotation
 * tables, regions of attention. */
#ifndef KVCL_TEST_PAGES_H
#define KVCL_TEST_PAGES_H

#include "case.h"

/* Slots of n pages in a pool of n + 1, in shuffled order; one slot stays free. */
int32_t *test_slots(test_run *r, uint32_t n);
/* n Gaussian values of this standard deviation. */
float *test_gauss(test_run *r, size_t n, float sigma);
/* Rows 0 .. n_rows - 1 of a rotation table, [n_rows][n_rot/2][2]. */
float *test_rope_table(test_run *r, uint32_t n_rows, uint32_t n_rot);
/* Turns a head of doubles by row `pos` of the table (NONE: leaves it). */
void test_turn(kvcl_rope_pairing pairing, uint32_t n_rot, const float *table, size_t pos,
               double *x);
/* Decoded keys of pages from first_page on, [n_pages][Hk][D][64]: `turned` are k, turned by this
 * side's own arithmetic, within `most`. */
typedef struct test_turned {
    uint32_t first_page, n_pages, n_kv, dim, n_rot;
    kvcl_rope_pairing pairing;
    const float *table;
    double most;
} test_turned;
void test_check_turned(const test_turned *s, const float *k, const float *turned);
/* A pool of n_pages + 1 pages of page_elems elements each, NaN in the free slot; values
 * [page][page_elems] become what is stored. */
kvcl_view test_raw_pool(test_run *r, kvcl_type type, const int32_t *slots, uint32_t n_pages,
                        size_t page_elems, float *values);
/* Element `at` of a raw pool read back by test_wait(). */
float test_raw_value(test_run *r, kvcl_view pool, kvcl_type type, size_t at);
/* Coded pages into a file, as tiers on disk have them, and back. */
void test_through_file(test_run *r, const void *pages, size_t bytes, void *out);

/* ---- regions ------------------------------------------------------------------------------- */

/* Queries and the region they attend to; the fields are those of kvcl_attn_in. */
typedef struct test_region {
    uint32_t dim, n_kv, group;
    uint32_t n, pos0, begin, end, first_part, spare_parts, pad;
} test_region;

typedef struct test_attn {
    test_region region;
    uint32_t first_page, n_pages, first_block, n_blocks;
    int32_t *slots; /* of the region's pages, in a pool of n_pages + 1 */
    const float *q;
    kvcl_attn_in in; /* the whole region; the page table is absent */
} test_attn;

/* Gaussian queries, room for partials. */
test_attn test_attn_make(test_run *r, const test_region *region);
/* The same for the tokens [begin, end) of the region, with a page table. */
kvcl_attn_in test_attn_part(test_run *r, const test_attn *t, uint32_t begin, uint32_t end);

/* Enqueues the attention op that is tested. */
typedef void (*test_attend_fn)(test_run *r, const void *data, const kvcl_attn_in *in);

/* The last query alone has the bits it has in the batch (t->in); a region cut where blocks meet has
 * those of the whole.  Waits. */
void test_attn_check_bits(test_run *r, const test_attn *t, test_attend_fn attend, const void *data);
/* Partials of kv head hk against softmax attention in double precision over these raw F32 pools, a
 * block that a query sees nothing of against what was there before. */
void test_attn_check_head(test_run *r, const test_attn *t, kvcl_view k, kvcl_view v, uint32_t hk,
                          double tol_ml, double tol_o);

#endif
