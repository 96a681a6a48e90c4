/* cl_mat.c - weights on the device: GGUF's rows taken apart into planes, and split by rows where a
 * buffer would be too large.  The layout is described in cl_int.h. */
#include "cl_int.h"

#include "mem.h"
#include "types.h"

#define PLANE_ALIGN 256
#define STAGING_BYTES ((size_t)4 << 20)
#define MAX_PART_BYTES ((uint64_t)1 << 31)

/* Bytes of a row in each plane. */
typedef struct kvcl_cl_planes {
    size_t q, h, d;
} kvcl_cl_planes;

static kvcl_cl_planes planes_of(kvcl_type type, uint32_t cols)
{
    size_t blocks = cols / KVCL_QK;
    switch (type) {
    case KVCL_Q8_0:
        return (kvcl_cl_planes){.q = blocks * 32, .d = blocks * 2};
    case KVCL_Q5_0:
        return (kvcl_cl_planes){.q = blocks * 16, .h = blocks * 4, .d = blocks * 2};
    case KVCL_Q4_0:
        return (kvcl_cl_planes){.q = blocks * 16, .d = blocks * 2};
    default:
        return (kvcl_cl_planes){.q = kvcl_type_bytes(type, cols)};
    }
}

static kvcl_cl_part part_layout(const kvcl_mat *m, uint32_t i)
{
    kvcl_cl_planes row = planes_of(m->type, m->cols);
    kvcl_cl_part p = {.buf = m->part[i], .row0 = i * m->rows_per_part};
    p.rows = kvcl_min_u32(m->rows - p.row0, m->rows_per_part);
    p.off_h = kvcl_align_up(p.rows * row.q, PLANE_ALIGN);
    p.off_d = p.off_h + kvcl_align_up(p.rows * row.h, PLANE_ALIGN);
    return p;
}

static size_t part_bytes(const kvcl_mat *m, const kvcl_cl_part *p)
{
    kvcl_cl_planes row = planes_of(m->type, m->cols);
    return row.d ? p->off_d + p->rows * row.d : p->rows * row.q;
}

kvcl_cl_part kvcl_cl_mat_part(const kvcl_mat *mat, uint32_t i) { return part_layout(mat, i); }

/* ---- split ----------------------------------------------------------------------------------- */

/* As many rows as fit into a buffer; a round number, so that parts fill their work-groups. */
static kvcl_status split(kvcl_dev *dev, kvcl_mat *m)
{
    const kvcl_cl_dev *d = dev->impl;
    kvcl_cl_planes row = planes_of(m->type, m->cols);
    uint64_t limit =
        d->caps.max_alloc_bytes < MAX_PART_BYTES ? d->caps.max_alloc_bytes : MAX_PART_BYTES;
    uint64_t slack = row.d ? 2 * PLANE_ALIGN : 0;
    uint64_t fit = limit > slack ? (limit - slack) / (row.q + row.h + row.d) : 0;
    if (fit >= m->rows)
        fit = m->rows;
    else if (fit >= 64)
        fit -= fit % 64;
    KVCL_CHECK(dev->ctx, fit > 0 && (m->rows - 1) / fit < KVCL_MAT_PARTS, KVCL_E_DEVICE_MEM,
               "%s: a matrix of %u x %u %s does not fit into %d buffers of %llu bytes, the most "
               "this device gives in one piece; take another device, or a smaller type of weights",
               dev->info.id, (unsigned)m->rows, (unsigned)m->cols, kvcl_type_name(m->type),
               KVCL_MAT_PARTS, (unsigned long long)limit);
    m->rows_per_part = (uint32_t)fit;
    m->n_parts = kvcl_div_up(m->rows, m->rows_per_part);
    return KVCL_OK;
}

/* ---- upload ---------------------------------------------------------------------------------- */

/* Takes n blocks apart. */
static void repack(kvcl_type type, const unsigned char *src, size_t n, unsigned char *q,
                   unsigned char *h, unsigned char *d)
{
    size_t q_bytes = type == KVCL_Q8_0 ? 32 : 16, h_bytes = type == KVCL_Q5_0 ? 4 : 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(d + 2 * i, src, 2);
        memcpy(h + h_bytes * i, src + 2, h_bytes);
        memcpy(q + q_bytes * i, src + 2 + h_bytes, q_bytes);
        src += 2 + h_bytes + q_bytes;
    }
}

/* Rows of a part, at most `chunk` at a time, through the staging memory. */
static kvcl_status upload_planes(kvcl_queue *q, const kvcl_mat *m, const kvcl_cl_part *p,
                                 const unsigned char *src, unsigned char *staging, uint32_t chunk)
{
    kvcl_cl_planes row = planes_of(m->type, m->cols);
    size_t blocks = m->cols / KVCL_QK, src_row = kvcl_type_bytes(m->type, m->cols);
    unsigned char *sq = staging, *sh = sq + chunk * row.q, *sd = sh + chunk * row.h;
    for (uint32_t r = 0; r < p->rows; r += chunk) {
        uint32_t n = kvcl_min_u32(chunk, p->rows - r);
        repack(m->type, src + r * src_row, n * blocks, sq, sh, sd);
        KVCL_TRY(kvcl_buf_write(q, p->buf, p->off_q + r * row.q, sq, n * row.q));
        if (row.h)
            KVCL_TRY(kvcl_buf_write(q, p->buf, p->off_h + r * row.h, sh, n * row.h));
        KVCL_TRY(kvcl_buf_write(q, p->buf, p->off_d + r * row.d, sd, n * row.d));
    }
    return KVCL_OK;
}

/* A part that fits the staging memory, in one write.  (Oclgrind's check of uninitialised values
 * loses track of a buffer that is written piece by piece.) */
static kvcl_status upload_whole(kvcl_queue *q, const kvcl_mat *m, const kvcl_cl_part *p,
                                const unsigned char *src, unsigned char *staging, size_t bytes)
{
    memset(staging, 0, bytes);
    repack(m->type, src, (size_t)p->rows * (m->cols / KVCL_QK), staging + p->off_q,
           staging + p->off_h, staging + p->off_d);
    return kvcl_buf_write(q, p->buf, 0, staging, bytes);
}

static kvcl_status upload(kvcl_queue *q, kvcl_mat *m, const unsigned char *src)
{
    kvcl_ctx *ctx = q->dev->ctx;
    size_t src_row = kvcl_type_bytes(m->type, m->cols);
    uint32_t chunk = (uint32_t)kvcl_max_size(1, STAGING_BYTES / src_row);
    size_t staging_bytes = chunk * src_row + 2 * PLANE_ALIGN;
    void *staging = NULL;
    kvcl_status st = KVCL_OK;
    if (kvcl_type_is_quantised(m->type))
        KVCL_TRY(kvcl_mem_alloc(ctx, staging_bytes, "staging of weights", &staging));
    for (uint32_t i = 0; i < m->n_parts && st == KVCL_OK; i++) {
        kvcl_cl_part p = part_layout(m, i);
        size_t bytes = part_bytes(m, &p);
        st = kvcl_buf_create(q->dev, bytes, KVCL_USE_WEIGHTS, &m->part[i]);
        if (st != KVCL_OK)
            break;
        m->bytes += bytes;
        p.buf = m->part[i];
        if (staging && bytes <= staging_bytes)
            st = upload_whole(q, m, &p, src + p.row0 * src_row, staging, bytes);
        else if (staging)
            st = upload_planes(q, m, &p, src + p.row0 * src_row, staging, chunk);
        else
            st = kvcl_buf_write(q, p.buf, 0, src + p.row0 * src_row, bytes);
    }
    kvcl_mem_free(ctx, staging);
    return st;
}

kvcl_status kvcl_cl_mat_create(kvcl_queue *q, kvcl_type type, uint32_t rows, uint32_t cols,
                               const void *rows_data, kvcl_mat **out)
{
    void *p;
    kvcl_status st;
    KVCL_TRY(kvcl_mem_alloc(q->dev->ctx, sizeof(kvcl_mat), "a matrix", &p));
    kvcl_mat *m = p;
    m->dev = q->dev;
    m->type = type;
    m->rows = rows;
    m->cols = cols;
    KVCL_TRY_GOTO(split(q->dev, m));
    KVCL_TRY_GOTO(upload(q, m, rows_data));
    *out = m;
    return KVCL_OK;
fail:
    kvcl_cl_mat_free(q->dev, m);
    return st;
}

void kvcl_cl_mat_free(kvcl_dev *dev, kvcl_mat *mat)
{
    if (!mat)
        return;
    for (uint32_t i = 0; i < mat->n_parts; i++)
        kvcl_buf_free(mat->part[i]);
    kvcl_mem_free(dev->ctx, mat);
}
