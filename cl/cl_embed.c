/* cl_embed.c - host half of cl/embed.cl: one launch per part of the table. */
#include "cl_defer.h"
#include "cl_launch.h"

#define PER_ITEM 8
#define GROUP 64

static kvcl_status add_positions(kvcl_queue *q, const kvcl_embed_rows_args *a)
{
    const kvcl_mat *m = a->pos_table;
    for (uint32_t i = 0; i < m->n_parts; i++) {
        kvcl_cl_part part = kvcl_cl_mat_part(m, i);
        kvcl_cl_launch l;
        KVCL_TRY(
            kvcl_cl_begin(q, KVCL_CL_STEM_embed, (uint32_t)m->type, "kvcl_embed_rows_pos", &l));
        kvcl_cl_arg_buf(&l, part.buf);
        kvcl_cl_arg_u32(&l, part.rows);
        kvcl_cl_arg_u32(&l, part.row0);
        kvcl_cl_arg_view(&l, a->out, sizeof(float));
        kvcl_cl_arg_u32(&l, a->n);
        kvcl_cl_arg_u32(&l, m->cols);
        kvcl_cl_arg_u32(&l, a->pos0);
        KVCL_TRY(kvcl_cl_run2(&l, kvcl_div_up(m->cols, PER_ITEM), a->n, GROUP, 1));
    }
    return KVCL_OK;
}

kvcl_status kvcl_cl_embed_rows(kvcl_queue *q, const kvcl_embed_rows_args *a)
{
    const kvcl_mat *m = a->table;
    bool deferred;
    KVCL_TRY(kvcl_cl_defer_embed_rows(q, a, &deferred));
    for (uint32_t i = 0; i < m->n_parts && !deferred; i++) {
        kvcl_cl_part part = kvcl_cl_mat_part(m, i);
        kvcl_cl_launch l;
        KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_embed, (uint32_t)m->type, "kvcl_embed_rows", &l));
        kvcl_cl_arg_buf(&l, part.buf);
        kvcl_cl_arg_u32(&l, part.rows);
        kvcl_cl_arg_u32(&l, part.row0);
        kvcl_cl_arg_u32(&l, m->rows);
        kvcl_cl_arg_view(&l, a->ids, sizeof(int32_t));
        kvcl_cl_arg_view(&l, a->out, sizeof(float));
        kvcl_cl_arg_u32(&l, a->n);
        kvcl_cl_arg_u32(&l, m->cols);
        kvcl_cl_arg_u32(&l, i == 0);
        KVCL_TRY(kvcl_cl_run2(&l, kvcl_div_up(m->cols, PER_ITEM), a->n, GROUP, 1));
    }
    return a->pos_table && !deferred ? add_positions(q, a) : KVCL_OK;
}
