/* case_embed.c - rows of embedding tables.  Kernel: cl/embed.cl; twin: cpu/embed.c
 *
 * Identity: ids 0, 1, 2 ... give the matrix dequantised, to the bit; an id outside gives zeros. */
#include "case.h"

#include "types.h"

typedef struct embed_params {
    uint32_t n, rows, cols, type, pos_type, pos0; /* pos_type UINT32_MAX: none */
} embed_params;

static kvcl_view embed(test_run *r, const embed_params *p, const int32_t *ids, uint32_t n,
                       float **values, float **pos_values)
{
    bool pos = p->pos_type != UINT32_MAX;
    kvcl_embed_rows_args a = {.n = n, .pos0 = p->pos0};
    a.table = test_mat(r, (kvcl_type)p->type, p->rows, p->cols, values);
    if (pos)
        a.pos_table = test_mat(r, (kvcl_type)p->pos_type, p->pos0 + n, p->cols, pos_values);
    a.ids = test_in(r, ids, n * sizeof *ids);
    a.out = test_out(r, (size_t)n * p->cols * sizeof(float));
    test_ok(r, kvcl_op_embed_rows(r->d->q, &a));
    return a.out;
}

static void run(test_run *r, const void *params)
{
    const embed_params *p = params;
    int32_t *ids = test_mem(r, p->n * sizeof *ids);
    for (uint32_t i = 0; i < p->n; i++)
        ids[i] = (int32_t)test_below(&r->rng, p->rows);
    if (p->n > 2) {
        ids[1] = -1;
        ids[2] = (int32_t)p->rows;
    }
    embed(r, p, ids, p->n, NULL, NULL);
}

static void identity(test_run *r, const void *params)
{
    const embed_params *p = params;
    float *values = NULL, *pos = NULL;
    int32_t *ids = test_mem(r, (p->rows + 2) * sizeof *ids);
    for (uint32_t i = 0; i < p->rows; i++)
        ids[i] = (int32_t)i;
    ids[p->rows] = -1;
    ids[p->rows + 1] = INT32_MAX;
    const float *got;
    kvcl_view out = embed(r, p, ids, p->rows + 2, &values, &pos);
    test_wait(r);
    got = test_values(r, out);
    for (size_t i = 0; i < ((size_t)p->rows + 2) * p->cols; i++) {
        size_t row = i / p->cols;
        float want = row < p->rows ? values[i] : 0.0f;
        if (pos)
            want += pos[(p->pos0 + row) * p->cols + i % p->cols];
        test_require(memcmp(&got[i], &want, sizeof want) == 0, "row %zu: %.9g is not %.9g", row,
                     (double)got[i], (double)want);
    }
}

void test_cases_embed(test_cases *cases)
{
    static const struct {
        uint32_t n, rows, cols, pos0;
        bool small;
    } sizes[] = {{1, 1, 32, 0, true},
                 {3, 17, 96, 0, true},
                 {7, 300, 352, 5, false},
                 {64, 50, 1376, 100, false}};
    for (size_t t = 0; t < TEST_N_TYPES; t++) {
        for (size_t i = 0; i < kvcl_array_len(sizes); i++) {
            for (uint32_t with_pos = 0; with_pos < 2; with_pos++) {
                embed_params p = {.n = sizes[i].n,
                                  .rows = sizes[i].rows,
                                  .cols = sizes[i].cols,
                                  .pos0 = sizes[i].pos0,
                                  .type = (uint32_t)test_types[t]};
                p.pos_type = with_pos ? (uint32_t)test_types[(t + i) % TEST_N_TYPES] : UINT32_MAX;
                test_cases_add(cases, sizes[i].small, run, identity, &p, sizeof p,
                               "embed_rows %s n=%u %ux%u pos=%s", kvcl_type_name(test_types[t]),
                               p.n, p.rows, p.cols,
                               with_pos ? kvcl_type_name((kvcl_type)p.pos_type) : "none");
            }
        }
    }
}
