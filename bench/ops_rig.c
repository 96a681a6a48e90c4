/* ops_rig.c - the buffers and matrices of the benchmark of operations.  See ops_case.h. */
#include "ops_case.h"

#include "f16.h"
#include "mem.h"
#include "shared.h"
#include "types.h"

#include <math.h>

#define SOME_PAGES 8            /* made-up raw pages, again and again */
#define CHUNK_VALUES (1u << 20) /* made-up weights, again and again */

#define WIDTH KVCL_OPS_WIDTH
#define WIDTH_KV 256u
#define WIDTH_FF KVCL_OPS_WIDTH_FF

static const struct {
    uint32_t rows, cols;
} layer_mats[KVCL_OPS_MATS] = {
    {WIDTH, WIDTH},    {WIDTH_KV, WIDTH}, {WIDTH_KV, WIDTH}, {WIDTH, WIDTH},
    {WIDTH_FF, WIDTH}, {WIDTH_FF, WIDTH}, {WIDTH, WIDTH_FF},
};

size_t kvcl_ops_layer_bytes(kvcl_type type)
{
    size_t bytes = 0;
    for (size_t i = 0; i < KVCL_OPS_MATS; i++)
        bytes += kvcl_type_bytes(type, (size_t)layer_mats[i].rows * layer_mats[i].cols);
    return bytes;
}

/* ---- buffers ------------------------------------------------------------------------------- */

/* Made-up values in (-2, 2), about normal. */
static float value(uint32_t seed, uint32_t i)
{
    uint32_t a = kvcl_mix(seed ^ (2 * i + 1)), b = kvcl_mix(a);
    return (kvcl_unit(a) + kvcl_unit(b)) + kvcl_unit(kvcl_mix(b));
}

/* A buffer of n made-up floats. */
static kvcl_status floats(const kvcl_ops_rig *r, size_t n, float scale, uint32_t seed,
                          kvcl_buf **out)
{
    void *p;
    KVCL_TRY(kvcl_buf_create(r->dev, n * sizeof(float), "the benchmark", out));
    KVCL_TRY(kvcl_mem_array(r->dev->ctx, n, sizeof(float), "the benchmark", &p));
    for (size_t i = 0; i < n; i++)
        ((float *)p)[i] = scale * value(seed, (uint32_t)i);
    kvcl_status st = kvcl_buf_write(r->q, *out, 0, p, n * sizeof(float));
    kvcl_mem_free(r->dev->ctx, p);
    return st;
}

/* The raw pages of K or V. */
static kvcl_status raw_pool(const kvcl_ops_rig *r, uint32_t seed, kvcl_buf **out)
{
    const size_t n = (size_t)KVCL_PAGE_TOKENS * r->p.n_kv_heads * r->p.head_dim;
    const size_t bytes = n * sizeof(uint16_t);
    void *p;
    KVCL_TRY(kvcl_buf_create(r->dev, bytes * kvcl_ops_pages(&r->p), "raw pages", out));
    KVCL_TRY(kvcl_mem_array(r->dev->ctx, SOME_PAGES, bytes, "raw pages", &p));
    for (size_t i = 0; i < SOME_PAGES * n; i++)
        ((uint16_t *)p)[i] = kvcl_f32_to_f16(value(seed, (uint32_t)i));
    kvcl_status st = KVCL_OK;
    for (uint32_t page = 0; page < kvcl_ops_pages(&r->p) && st == KVCL_OK; page++)
        st = kvcl_buf_write(r->q, *out, page * bytes,
                            (unsigned char *)p + page % SOME_PAGES * bytes, bytes);
    kvcl_mem_free(r->dev->ctx, p);
    return st;
}

/* Slots of pages: each page lies where its number says. */
static kvcl_status page_slots(kvcl_ops_rig *r)
{
    void *p;
    const size_t bytes = kvcl_ops_pages(&r->p) * sizeof(int32_t);
    KVCL_TRY(kvcl_buf_create(r->dev, bytes, "the page table", &r->slots));
    KVCL_TRY(kvcl_mem_alloc(r->dev->ctx, bytes, "the page table", &p));
    for (uint32_t i = 0; i < kvcl_ops_pages(&r->p); i++)
        ((int32_t *)p)[i] = (int32_t)i;
    kvcl_status st = kvcl_buf_write(r->q, r->slots, 0, p, bytes);
    kvcl_mem_free(r->dev->ctx, p);
    return st;
}

/* Angles of all positions, [tokens][head_dim / 2][2]. */
static kvcl_status rope_table(kvcl_ops_rig *r)
{
    const uint32_t D = r->p.head_dim;
    const size_t n = (size_t)r->p.tokens * D;
    void *p;
    KVCL_TRY(kvcl_buf_create(r->dev, n * sizeof(float), "the rope table", &r->table));
    KVCL_TRY(kvcl_mem_array(r->dev->ctx, n, sizeof(float), "the rope table", &p));
    for (uint32_t i = 0; i < D / 2; i++) {
        const double step = pow(10000.0, -2.0 * i / D);
        for (uint32_t pos = 0; pos < r->p.tokens; pos++) {
            float *cs = (float *)p + (size_t)pos * D + 2 * i;
            cs[0] = (float)cos(pos * step);
            cs[1] = (float)sin(pos * step);
        }
    }
    kvcl_status st = kvcl_buf_write(r->q, r->table, 0, p, n * sizeof(float));
    kvcl_mem_free(r->dev->ctx, p);
    return st;
}

static size_t largest_pool(const kvcl_ops_params *p)
{
    kvcl_ops_case list[KVCL_OPS_CASES];
    size_t n = kvcl_ops_list(p, list), bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (list[i].kind == KVCL_OPS_ENCODE)
            bytes = kvcl_max_size(bytes, kvcl_ops_page_bytes(p, &list[i]));
    return bytes * kvcl_ops_pages(p);
}

static kvcl_status cache_buffers(kvcl_ops_rig *r)
{
    const kvcl_ops_params *p = &r->p;
    const size_t width = (size_t)p->n_q_heads * p->head_dim;
    const size_t parts = (size_t)p->n_q_heads * kvcl_ops_parts(p);
    KVCL_TRY(raw_pool(r, 1, &r->k));
    KVCL_TRY(raw_pool(r, 2, &r->v));
    KVCL_TRY(page_slots(r));
    KVCL_TRY(rope_table(r));
    KVCL_TRY(
        floats(r, KVCL_MEAN_EPOCHS * 2 * (size_t)p->n_kv_heads * p->head_dim, 0.25f, 3, &r->means));
    KVCL_TRY(kvcl_buf_create(r->dev, largest_pool(p), "coded pages", &r->pool));
    KVCL_TRY(kvcl_buf_create(r->dev, kvcl_ops_pages(p) * p->n_kv_heads * sizeof(int32_t),
                             "bad tokens", &r->bad));
    KVCL_TRY(floats(r, width, 1.0f, 4, &r->query));
    KVCL_TRY(kvcl_buf_create(r->dev, parts * 2 * sizeof(float), "partials", &r->ml));
    KVCL_TRY(kvcl_buf_create(r->dev, parts * p->head_dim * sizeof(float), "partials", &r->o));
    return kvcl_buf_create(r->dev, width * sizeof(float), "the output", &r->out);
}

/* A view of a new buffer. */
static kvcl_status new_view(const kvcl_ops_rig *r, size_t bytes, kvcl_view *out)
{
    kvcl_buf *buf = NULL;
    kvcl_status st = kvcl_buf_create(r->dev, bytes, "the benchmark", &buf);
    *out = (kvcl_view){buf, 0, st == KVCL_OK ? bytes : 0};
    return st;
}

kvcl_status kvcl_ops_make_svd(kvcl_ops_rig *r)
{
    const size_t n = KVCL_OPS_SVD_PAGES, rows = KVCL_OPS_SVD_ROWS, cols = KVCL_OPS_SVD_COLS;
    const size_t rank = KVCL_OPS_SVD_RANK, page = rows * cols;
    kvcl_rsvd_args *a = &r->svd;
    kvcl_buf *matrices;
    uint32_t ids[3 * KVCL_OPS_SVD_PAGES] = {0};
    if (a->n)
        return KVCL_OK;
    for (uint32_t i = 0; i < n; i++)
        ids[3 * i + 2] = i;
    KVCL_TRY(floats(r, n * page, 1.0f, 9, &matrices));
    a->a = (kvcl_view){matrices, 0, matrices->bytes};
    KVCL_TRY(new_view(r, sizeof ids, &a->ids));
    KVCL_TRY(kvcl_buf_write(r->q, a->ids.buf, 0, ids, sizeof ids));
    KVCL_TRY(new_view(r, n * rows * rank * sizeof(float), &a->u));
    KVCL_TRY(new_view(r, n * rank * sizeof(float), &a->s));
    KVCL_TRY(new_view(r, n * cols * rank * sizeof(float), &a->v));
    KVCL_TRY(new_view(r, n * sizeof(int32_t), &a->bad));
    a->rows = KVCL_OPS_SVD_ROWS;
    a->cols = KVCL_OPS_SVD_COLS;
    a->rank = KVCL_OPS_SVD_RANK;
    a->oversample = 8;
    a->power = 4;
    a->seed = 1;
    KVCL_TRY(new_view(
        r, kvcl_rsvd_scratch_bytes(KVCL_OPS_SVD_PAGES, a->rows, a->cols, a->rank + a->oversample),
        &a->scratch));
    a->n = KVCL_OPS_SVD_PAGES;
    return kvcl_queue_wait(r->q);
}

static kvcl_status model_buffers(kvcl_ops_rig *r)
{
    void *p;
    KVCL_TRY(floats(r, KVCL_OPS_FWHT_VALUES, 1.0f, 5, &r->rows));
    KVCL_TRY(kvcl_buf_create(r->dev, r->rows->bytes, "transforms", &r->turned));
    KVCL_TRY(floats(r, WIDTH_FF, 1.0f, 6, &r->x));
    KVCL_TRY(floats(r, WIDTH, 1.0f, 7, &r->norm));
    for (size_t i = 0; i < 3; i++)
        KVCL_TRY(kvcl_buf_create(r->dev, WIDTH_FF * sizeof(float), "the output", &r->y[i]));
    KVCL_TRY(kvcl_mem_array(r->dev->ctx, (size_t)r->p.n_layers * KVCL_OPS_MATS, sizeof(kvcl_mat *),
                            "the matrices", &p));
    r->mats = p;
    return KVCL_OK;
}

kvcl_status kvcl_ops_open(kvcl_dev *dev, const kvcl_ops_params *p, kvcl_ops_rig *r)
{
    kvcl_status st;
    *r = (kvcl_ops_rig){.p = *p, .dev = dev};
    KVCL_TRY_GOTO(kvcl_queue_create(dev, &r->q));
    KVCL_TRY_GOTO(cache_buffers(r));
    KVCL_TRY_GOTO(model_buffers(r));
    return KVCL_OK;
fail:
    kvcl_ops_close(r);
    return st;
}

static void free_mats(kvcl_ops_rig *r)
{
    for (size_t i = 0; r->mats && i < (size_t)r->p.n_layers * KVCL_OPS_MATS; i++) {
        kvcl_mat_free(r->mats[i]);
        r->mats[i] = NULL;
    }
    kvcl_mem_free(r->dev->ctx, r->weights);
    r->weights = NULL;
}

void kvcl_ops_close(kvcl_ops_rig *r)
{
    if (!r->dev)
        return;
    kvcl_buf *bufs[] = {r->svd.a.buf,
                        r->svd.ids.buf,
                        r->svd.u.buf,
                        r->svd.s.buf,
                        r->svd.v.buf,
                        r->svd.bad.buf,
                        r->svd.scratch.buf,
                        r->k,
                        r->v,
                        r->pool,
                        r->bad,
                        r->slots,
                        r->means,
                        r->table,
                        r->query,
                        r->ml,
                        r->o,
                        r->out,
                        r->rows,
                        r->turned,
                        r->x,
                        r->norm,
                        r->y[0],
                        r->y[1],
                        r->y[2],
                        r->basis};
    free_mats(r);
    kvcl_mem_free(r->dev->ctx, (void *)r->mats);
    for (size_t i = 0; i < kvcl_array_len(bufs); i++)
        kvcl_buf_free(bufs[i]);
    kvcl_queue_free(r->q);
    *r = (kvcl_ops_rig){0};
}

/* Matrices of all layers; the host's memory holds them in the file's layout. */
kvcl_status kvcl_ops_make_mats(kvcl_ops_rig *r, kvcl_type type)
{
    const size_t bytes = r->p.n_layers * kvcl_ops_layer_bytes(type);
    const size_t chunk = kvcl_type_bytes(type, CHUNK_VALUES);
    void *p, *x;
    free_mats(r);
    KVCL_TRY(kvcl_mem_alloc_undefined(r->dev->ctx, bytes + chunk, "the weights", &p));
    r->weights = p;
    KVCL_TRY(kvcl_mem_array(r->dev->ctx, CHUNK_VALUES, sizeof(float), "the weights", &x));
    for (uint32_t i = 0; i < CHUNK_VALUES; i++)
        ((float *)x)[i] = 0.02f * value(8, i);
    kvcl_quantise(type, x, CHUNK_VALUES, p);
    kvcl_mem_free(r->dev->ctx, x);
    for (size_t at = chunk; at < bytes; at += chunk)
        memcpy((unsigned char *)p + at, p, chunk);
    const unsigned char *rows = p;
    for (size_t i = 0; i < (size_t)r->p.n_layers * KVCL_OPS_MATS; i++) {
        const uint32_t n = layer_mats[i % KVCL_OPS_MATS].rows;
        const uint32_t cols = layer_mats[i % KVCL_OPS_MATS].cols;
        KVCL_TRY(kvcl_mat_create(r->q, type, n, cols, rows, &r->mats[i]));
        rows += kvcl_type_bytes(type, (size_t)n * cols);
    }
    return KVCL_OK;
}
