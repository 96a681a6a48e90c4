/* cl_matvec.c - host half of cl/matvec.cl.  One launch where all matrices have one type and one
 * part each; else one launch per part, a pair's second half finishing what its first half left in
 * out. */
#include "cl_defer.h"
#include "cl_launch.h"
#include "types.h"

#define GROUP 128
#define TEAM 8 /* work-items to a row, as in matvec.cl */
#define RED_FLOATS 72
#define SPARE_LOCAL_BYTES 512 /* drivers keep some local memory to themselves */

#define ACT_GATED 3 /* as in matvec.cl */
#define HAS_BIAS(s) (8u << (s))
#define HAS_RES 64u

/* What one launch does: up to three matrices of one type, one part each. */
typedef struct matvec_job {
    const kvcl_matvec_args *a;
    uint32_t n_seg, act;
    bool pair;
    kvcl_cl_part part[KVCL_MATVEC_SEGS];
    kvcl_view bias[KVCL_MATVEC_SEGS], out[KVCL_MATVEC_SEGS], res;
    uint32_t out_stride[KVCL_MATVEC_SEGS];
    kvcl_type type;
} matvec_job;

/* How its rows are shared out. */
typedef struct matvec_shape {
    uint32_t items, tile, rows_per_group;
    size_t n_groups, local_bytes;
} matvec_shape;

static uint32_t rows_of(const matvec_job *m)
{
    uint32_t rows = m->part[0].rows;
    for (uint32_t s = 1; s < m->n_seg && !m->pair; s++)
        rows += m->part[s].rows;
    return rows;
}

/* The widest tile of the input whose local memory fits: all columns, or a multiple of 256. */
static uint32_t tile_of(uint32_t cols, size_t bytes_per_256, size_t local_bytes)
{
    size_t fit = local_bytes / bytes_per_256 * 256;
    return fit >= cols ? cols : (uint32_t)fit;
}

static matvec_shape vector_shape(const kvcl_cl_caps *caps, const matvec_job *m)
{
    bool blocks = kvcl_type_is_quantised(m->type);
    uint32_t cols = m->a->w[0]->cols, rows = rows_of(m);
    size_t per_256 = blocks ? 2 * 256 + 8 * 4 : 256 * 4;
    matvec_shape s = {.items = 1};
    s.tile = tile_of(cols, per_256, (size_t)caps->local_bytes - SPARE_LOCAL_BYTES - per_256);
    s.local_bytes = kvcl_div_up(s.tile, 256) * per_256;
    s.rows_per_group = kvcl_max_u32(8, kvcl_div_up(rows, caps->n_units * 8));
    s.n_groups = kvcl_div_up(rows, s.rows_per_group);
    return s;
}

static matvec_shape lane_shape(const kvcl_cl_caps *caps, const matvec_job *m, size_t items)
{
    bool blocks = kvcl_type_is_quantised(m->type);
    uint32_t cols = m->a->w[0]->cols, rows = rows_of(m);
    size_t per_256 = blocks ? 256 * 5 + 8 * 4 : 256 * 4;
    matvec_shape s = {.items = (uint32_t)items};
    size_t fixed = (RED_FLOATS + (m->pair ? 18 : 9) * (size_t)s.items) * sizeof(float);
    s.tile = tile_of(cols, per_256, (size_t)caps->local_bytes - SPARE_LOCAL_BYTES - fixed);
    s.local_bytes = fixed + kvcl_div_up(s.tile, 256) * per_256;
    s.rows_per_group = s.items / TEAM;
    s.n_groups = kvcl_div_up(rows, s.rows_per_group);
    return s;
}

static uint32_t flags_of(const matvec_job *m)
{
    uint32_t flags = m->act | (m->res.buf ? HAS_RES : 0);
    for (uint32_t s = 0; s < m->n_seg; s++)
        flags |= m->bias[s].buf ? HAS_BIAS(s) : 0;
    return flags;
}

static void set_matrices(kvcl_cl_launch *l, const matvec_job *m)
{
    for (uint32_t s = 0; s < KVCL_MATVEC_SEGS; s++)
        kvcl_cl_arg_buf(l, s < m->n_seg ? m->part[s].buf : NULL);
    for (uint32_t s = 0; s < KVCL_MATVEC_SEGS; s++)
        kvcl_cl_arg_u32(l, s < m->n_seg ? m->part[s].rows : 0);
    for (uint32_t s = 0; s < KVCL_MATVEC_SEGS; s++)
        kvcl_cl_arg_view(l, m->bias[s], sizeof(float));
    for (uint32_t s = 0; s < KVCL_MATVEC_SEGS; s++)
        kvcl_cl_arg_view(l, m->out[s], sizeof(float));
    for (uint32_t s = 0; s < KVCL_MATVEC_SEGS; s++)
        kvcl_cl_arg_u32(l, m->out_stride[s]);
}

static kvcl_status launch(kvcl_queue *q, const matvec_job *m)
{
    const kvcl_cl_caps *caps = kvcl_cl_caps_of(q);
    const kvcl_matvec_args *a = m->a;
    uint32_t cols = a->w[0]->cols;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_matvec, (uint32_t)m->type | (m->pair ? 256 : 0),
                           caps->vector_shape ? "kvcl_matvec_vec" : "kvcl_matvec", &l));
    matvec_shape s = caps->vector_shape ? vector_shape(caps, m)
                                        : lane_shape(caps, m, kvcl_cl_lanes_group(&l, GROUP));
    set_matrices(&l, m);
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_u32(&l, a->x_stride);
    kvcl_cl_arg_u32(&l, cols);
    kvcl_cl_arg_u32(&l, (uint32_t)a->norm.kind);
    kvcl_cl_arg_f32(&l, a->norm.eps);
    kvcl_cl_arg_f32(&l, 1.0f / (float)cols);
    kvcl_cl_arg_view(&l, a->norm.weight, sizeof(float));
    kvcl_cl_arg_view(&l, a->norm.bias, sizeof(float));
    kvcl_cl_arg_view(&l, m->res, sizeof(float));
    kvcl_cl_arg_u32(&l, flags_of(m));
    kvcl_cl_arg_u32(&l, s.tile);
    kvcl_cl_arg_u32(&l, s.rows_per_group);
    kvcl_cl_arg_local(&l, s.local_bytes);
    return kvcl_cl_run2(&l, s.n_groups * s.items, a->n, s.items, 1);
}

static kvcl_view shifted(kvcl_view v, uint32_t rows)
{
    v.off += v.buf ? rows * sizeof(float) : 0;
    return v;
}

/* Segment s alone, part by part, into out. */
static kvcl_status by_parts(kvcl_queue *q, const kvcl_matvec_args *a, uint32_t s, uint32_t out,
                            uint32_t act, kvcl_view res)
{
    for (uint32_t i = 0; i < a->w[s]->n_parts; i++) {
        kvcl_cl_part part = kvcl_cl_mat_part(a->w[s], i);
        matvec_job m = {.a = a, .n_seg = 1, .act = act, .type = a->w[s]->type};
        m.part[0] = part;
        m.bias[0] = shifted(a->bias[s], part.row0);
        m.out[0] = shifted(a->out[out], part.row0);
        m.out_stride[0] = a->out_stride[out];
        m.res = shifted(res, part.row0);
        KVCL_TRY(launch(q, &m));
    }
    return KVCL_OK;
}

static kvcl_status apart(kvcl_queue *q, const kvcl_matvec_args *a)
{
    const kvcl_view none = {0};
    if (a->act == KVCL_ACT_SWIGLU) {
        KVCL_CHECK(q->dev->ctx,
                   !a->res.buf || a->res.buf != a->out[0].buf || a->res.off != a->out[0].off,
                   KVCL_E_UNSUPPORTED,
                   "matvec on %s: swiglu of matrices of two types or several parts cannot add to "
                   "its own residual; give it an output of its own",
                   q->dev->info.id);
        KVCL_TRY(by_parts(q, a, 0, 0, KVCL_ACT_NONE, none));
        return by_parts(q, a, 1, 0, ACT_GATED, a->res);
    }
    for (uint32_t s = 0; s < a->n_seg; s++)
        KVCL_TRY(by_parts(q, a, s, s, (uint32_t)a->act, a->res));
    return KVCL_OK;
}

kvcl_status kvcl_cl_matvec(kvcl_queue *q, const kvcl_matvec_args *a)
{
    bool deferred;
    KVCL_TRY(kvcl_cl_defer_matvec(q, a, &deferred));
    if (deferred)
        return KVCL_OK;
    if (kvcl_cl_matvec_wide_takes(q, a))
        return kvcl_cl_matvec_wide(q, a);
    matvec_job m = {.a = a, .n_seg = a->n_seg, .act = (uint32_t)a->act, .res = a->res};
    m.pair = a->act == KVCL_ACT_SWIGLU;
    m.type = a->w[0]->type;
    for (uint32_t s = 0; s < a->n_seg; s++) {
        if (a->w[s]->n_parts != 1 || a->w[s]->type != m.type)
            return apart(q, a);
        m.part[s] = kvcl_cl_mat_part(a->w[s], 0);
        m.bias[s] = a->bias[s];
        m.out[s] = a->out[s];
        m.out_stride[s] = a->out_stride[s];
    }
    return launch(q, &m);
}
