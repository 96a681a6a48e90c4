/* cl_matmul.c - host half of cl/matmul.cl.  On GPUs where CLBlast's SGEMM has the canonical bits
 * the matrix is expanded to f32 slab by slab into the scratch and multiplied there; elsewhere our
 * own kernels do both at once. */
#include "cl_launch.h"

#define PANEL 32 /* as in matmul.cl */
#define ROWS_PER_ITEM 8
#define TILE 64
#define SLAB_BYTES ((size_t)64 << 20)
#define MIN_SGEMM_N 32 /* below, expanding the matrix costs more than the product */
/* Below these multiplications our own kernel is as fast, and the second that CLBlast's first use
 * takes is not worth it. */
#define MIN_SGEMM_WORK (UINT64_C(1) << 28)

static bool may_use_sgemm(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w)
{
    const kvcl_cl_dev *d = dev->impl;
    return n >= MIN_SGEMM_N && !(d->caps.type & CL_DEVICE_TYPE_CPU) &&
           (uint64_t)n * w->rows * w->cols >= MIN_SGEMM_WORK;
}

static uint32_t slab_rows(const kvcl_mat *w)
{
    size_t fit = SLAB_BYTES / (w->cols * sizeof(float));
    return (uint32_t)kvcl_min_size(w->rows, kvcl_max_size(1, fit));
}

size_t kvcl_cl_matmul_scratch_bytes(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w)
{
    const kvcl_cl_dev *d = dev->impl;
    if (d->caps.vector_shape)
        return (size_t)kvcl_div_up(n, PANEL) * PANEL * w->cols * sizeof(float);
    return may_use_sgemm(dev, n, w) ? (size_t)slab_rows(w) * w->cols * sizeof(float) : 0;
}

static kvcl_status expand(kvcl_queue *q, const kvcl_mat *w, const kvcl_cl_part *part, uint32_t row0,
                          uint32_t rows, kvcl_view scratch)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_matmul, (uint32_t)w->type, "kvcl_matmul_expand", &l));
    kvcl_cl_arg_buf(&l, part->buf);
    kvcl_cl_arg_u32(&l, part->rows);
    kvcl_cl_arg_u32(&l, w->cols);
    kvcl_cl_arg_u32(&l, row0);
    kvcl_cl_arg_u32(&l, rows);
    kvcl_cl_arg_view(&l, scratch, sizeof(float));
    return kvcl_cl_run2(&l, w->cols / 8, rows, 64, 1);
}

/* The SGEMM's -0 to +0. */
static kvcl_status canonicalise(kvcl_queue *q, const kvcl_matmul_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_matmul, (uint32_t)a->w->type, "kvcl_matmul_zero", &l));
    kvcl_cl_arg_view(&l, a->out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->out_stride);
    kvcl_cl_arg_u32(&l, a->w->rows);
    kvcl_cl_arg_u32(&l, a->n);
    return kvcl_cl_run2(&l, a->w->rows, a->n, 64, 1);
}

static kvcl_status by_sgemm(kvcl_queue *q, const kvcl_matmul_args *a)
{
    const kvcl_mat *w = a->w;
    size_t x_off = a->x.off / sizeof(float), out_off = a->out.off / sizeof(float);
    size_t b_off = a->scratch.off / sizeof(float);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        kvcl_cl_part part = kvcl_cl_mat_part(w, i);
        for (uint32_t r = 0, rows; r < part.rows; r += rows) {
            rows = kvcl_min_u32(part.rows - r, slab_rows(w));
            KVCL_TRY(expand(q, w, &part, r, rows, a->scratch));
            KVCL_TRY(kvcl_cl_sgemm(q, a->n, rows, w->cols, a->x.buf, x_off, a->x_stride,
                                   a->scratch.buf, b_off, w->cols, a->out.buf,
                                   out_off + part.row0 + r, a->out_stride));
        }
    }
    return canonicalise(q, a);
}

static kvcl_status pack(kvcl_queue *q, const kvcl_matmul_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_matmul, (uint32_t)a->w->type, "kvcl_matmul_pack", &l));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_u32(&l, a->x_stride);
    kvcl_cl_arg_u32(&l, a->n);
    kvcl_cl_arg_u32(&l, a->w->cols);
    kvcl_cl_arg_view(&l, a->scratch, sizeof(float));
    return kvcl_cl_run2(&l, a->w->cols, kvcl_div_up(a->n, PANEL), 32, 1);
}

/* Our own kernels on one part of the matrix. */
static kvcl_status own(kvcl_queue *q, const kvcl_matmul_args *a, const kvcl_cl_part *part)
{
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_view out = a->out;
    kvcl_cl_launch l;
    out.off += part->row0 * sizeof(float);
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_matmul, (uint32_t)a->w->type,
                           vector ? "kvcl_matmul_vec" : "kvcl_matmul", &l));
    kvcl_cl_arg_buf(&l, part->buf);
    kvcl_cl_arg_u32(&l, part->rows);
    kvcl_cl_arg_u32(&l, a->w->cols);
    kvcl_cl_arg_view(&l, vector ? a->scratch : a->x, sizeof(float));
    if (!vector)
        kvcl_cl_arg_u32(&l, a->x_stride);
    kvcl_cl_arg_view(&l, out, sizeof(float));
    kvcl_cl_arg_u32(&l, a->out_stride);
    kvcl_cl_arg_u32(&l, a->n);
    if (vector)
        return kvcl_cl_run2(&l, kvcl_div_up(part->rows, ROWS_PER_ITEM), kvcl_div_up(a->n, PANEL), 1,
                            1);
    return kvcl_cl_run2(&l, (size_t)kvcl_div_up(part->rows, TILE) * 16,
                        (size_t)kvcl_div_up(a->n, TILE) * 16, 16, 16);
}

kvcl_status kvcl_cl_matmul(kvcl_queue *q, const kvcl_matmul_args *a)
{
    if (may_use_sgemm(q->dev, a->n, a->w) && kvcl_cl_sgemm_ready(q))
        return by_sgemm(q, a);
    if (kvcl_cl_caps_of(q)->vector_shape)
        KVCL_TRY(pack(q, a));
    for (uint32_t i = 0; i < a->w->n_parts; i++) {
        kvcl_cl_part part = kvcl_cl_mat_part(a->w, i);
        KVCL_TRY(own(q, a, &part));
    }
    return KVCL_OK;
}
