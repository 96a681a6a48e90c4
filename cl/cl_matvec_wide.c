/* cl_matvec_wide.c - host half of cl/matvec_wide.cl: which calls it takes, and their launch. */
#include "cl_launch.h"
#include "types.h"

#define GROUP 256    /* these five as in matvec_wide.cl */
#define TEAM_MANY 16 /* items to a row; more of them where there are few rows */
#define TEAM_FEW 32
#define ROW_PAD 68
#define RED_FLOATS 72
#define SPARE_LOCAL_BYTES 512 /* drivers keep some local memory to themselves */
#define GROUPS_PER_UNIT 3     /* that run at the same time; more rows than that mean more passes */

static size_t local_bytes_of(uint32_t cols, uint32_t team)
{
    return (RED_FLOATS + GROUP / team * (2 * 8 + 2 * ROW_PAD) + (size_t)cols) * sizeof(float);
}

/* All segments have a bias, or none has. */
static bool biases_agree(const kvcl_matvec_args *a)
{
    for (uint32_t s = 1; s < a->n_seg; s++)
        if ((a->bias[s].buf != NULL) != (a->bias[0].buf != NULL))
            return false;
    return true;
}

static bool aligned16(kvcl_view v) { return !v.buf || v.off % 16 == 0; }

bool kvcl_cl_matvec_wide_takes(kvcl_queue *q, const kvcl_matvec_args *a)
{
    const kvcl_cl_caps *caps = kvcl_cl_caps_of(q);
    kvcl_type type = a->w[0]->type;
    if (caps->vector_shape || kvcl_type_is_quantised(type) || caps->max_group < GROUP ||
        local_bytes_of(a->w[0]->cols, TEAM_MANY) + SPARE_LOCAL_BYTES > caps->local_bytes)
        return false;
    if (!aligned16(a->x) || a->x_stride % 4 != 0 || !aligned16(a->norm.weight) ||
        !aligned16(a->norm.bias))
        return false;
    if (!biases_agree(a) || (a->n_seg == 2 && a->act != KVCL_ACT_SWIGLU))
        return false;
    for (uint32_t s = 0; s < a->n_seg; s++) {
        if (a->w[s]->n_parts != 1 || a->w[s]->type != type)
            return false;
        if (a->act != KVCL_ACT_SWIGLU &&
            (a->out[s].buf != a->out[0].buf || a->out_stride[s] != a->out_stride[0]))
            return false;
    }
    return true;
}

static uint32_t spec_of(const kvcl_matvec_args *a, uint32_t team)
{
    return (uint32_t)a->w[0]->type | (uint32_t)(a->act == KVCL_ACT_SWIGLU) << 8 |
           (uint32_t)a->norm.kind << 9 | (uint32_t)(a->bias[0].buf != NULL) << 11 |
           (uint32_t)(a->act == KVCL_ACT_GELU) << 12 | (uint32_t)(a->res.buf != NULL) << 13 |
           a->n_seg << 14 | (uint32_t)(team == TEAM_FEW) << 16;
}

static void set_outputs(kvcl_cl_launch *l, const kvcl_matvec_args *a)
{
    kvcl_cl_arg_view(l, a->out[0], sizeof(float));
    for (uint32_t s = 1; s < 3 && a->n_seg == 3; s++)
        kvcl_cl_arg_u64(l, a->out[s].off / sizeof(float));
    for (uint32_t s = 0; s < a->n_seg && a->bias[0].buf; s++)
        kvcl_cl_arg_view(l, a->bias[s], sizeof(float));
}

/* Rows of all matrices that an output has of its own. */
static uint32_t rows_of(const kvcl_matvec_args *a)
{
    uint32_t rows = a->w[0]->rows;
    return a->n_seg == 3 ? rows + a->w[1]->rows + a->w[2]->rows : rows;
}

kvcl_status kvcl_cl_matvec_wide(kvcl_queue *q, const kvcl_matvec_args *a)
{
    uint32_t cols = a->w[0]->cols, rows = rows_of(a);
    uint32_t at_once = kvcl_cl_caps_of(q)->n_units * GROUPS_PER_UNIT;
    uint32_t team = rows <= at_once * (GROUP / TEAM_FEW) ? TEAM_FEW : TEAM_MANY;
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_matvec_wide, spec_of(a, team), "kvcl_matvec_wide", &l));
    for (uint32_t s = 0; s < a->n_seg; s++)
        kvcl_cl_arg_buf(&l, kvcl_cl_mat_part(a->w[s], 0).buf);
    if (a->n_seg == 3)
        kvcl_cl_arg_u32(&l, a->w[1]->rows);
    kvcl_cl_arg_u32(&l, a->w[0]->rows);
    kvcl_cl_arg_u32(&l, rows);
    set_outputs(&l, a);
    if (a->norm.kind != KVCL_NORM_NONE) {
        kvcl_cl_arg_view(&l, a->norm.weight, sizeof(float));
        kvcl_cl_arg_f32(&l, a->norm.eps);
        kvcl_cl_arg_f32(&l, 1.0f / (float)cols);
    }
    if (a->norm.kind == KVCL_NORM_LAYER)
        kvcl_cl_arg_view(&l, a->norm.bias, sizeof(float));
    if (a->res.buf)
        kvcl_cl_arg_view(&l, a->res, sizeof(float));
    kvcl_cl_arg_view(&l, a->x, sizeof(float));
    kvcl_cl_arg_u32(&l, cols);
    kvcl_cl_arg_u32(&l, a->x_stride);
    kvcl_cl_arg_u32(&l, a->out_stride[0]);
    kvcl_cl_arg_local(&l, local_bytes_of(cols, team));
    uint32_t n_tiles = kvcl_div_up(rows, GROUP / team), passes = kvcl_div_up(n_tiles, at_once);
    return kvcl_cl_run2(&l, (size_t)kvcl_div_up(n_tiles, passes) * GROUP, a->n, GROUP, 1);
}
