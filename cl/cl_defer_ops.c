/* cl_defer_ops.c - which ops the list takes, and their descriptors.  See cl_defer.h. */
#include "cl_defer_int.h"

#include "types.h"

#define MAX_MERGED 16 /* partials that every group merges for itself */
#define MAX_ROUNDS 2  /* of a group through attention's blocks and pairs of heads */

/* ---- descriptors ----------------------------------------------------------------------------- */

/* Where a buffer lies; NVIDIA's buffers stay where they are. */
static kvcl_status address_of(kvcl_queue *q, kvcl_cl_defer *d, kvcl_buf *buf, uint64_t *out)
{
    kvcl_cl_buf *b = (kvcl_cl_buf *)buf;
    if (!b->address) {
        kvcl_cl_launch l;
        KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_defer, d->spec, "kvcl_defer_address", &l));
        kvcl_cl_arg_buf(&l, buf);
        kvcl_cl_arg_buf(&l, d->address);
        KVCL_TRY(kvcl_cl_run1(&l, 1, 1));
        KVCL_TRY(kvcl_buf_read(q, d->address, 0, &b->address, sizeof b->address));
    }
    *out = b->address;
    return KVCL_OK;
}

/* 0 for a view that is absent. */
static kvcl_status view_at(kvcl_queue *q, kvcl_cl_defer *d, kvcl_view v, uint64_t *out)
{
    *out = 0;
    if (!v.buf)
        return KVCL_OK;
    KVCL_TRY(address_of(q, d, v.buf, out));
    *out += v.off;
    return KVCL_OK;
}

/* The index of a number that changes from token to token; `meaning` keeps equal numbers of
 * different sorts apart, so that the list itself stays the same. */
static bool number(kvcl_cl_defer *d, uint32_t meaning, uint32_t value, uint32_t *out)
{
    for (uint32_t i = 0; i < d->n_numbers; i++)
        if (d->meaning[i] == meaning && d->numbers[i] == value) {
            *out = i;
            return true;
        }
    if (d->n_numbers == KVCL_DEFER_DYN)
        return false;
    d->meaning[d->n_numbers] = meaning;
    d->numbers[d->n_numbers] = value;
    *out = d->n_numbers++;
    return true;
}

/* Makes room for one more op of a program; a list is of one program. */
static kvcl_status make_room(kvcl_queue *q, kvcl_cl_defer *d, uint32_t spec)
{
    if (d->n == KVCL_DEFER_MAX_OPS || d->n_numbers + 3 > KVCL_DEFER_DYN || d->spec != spec)
        KVCL_TRY(kvcl_cl_defer_flush(q));
    d->spec = spec;
    return KVCL_OK;
}

static uint32_t spec_of(const kvcl_queue *q, kvcl_type type)
{
    const kvcl_cl_defer *d = kvcl_cl_of(q)->defer;
    return (uint32_t)type << KVCL_DEFER_SPEC_TYPE |
           (d ? d->spec & KVCL_DEFER_SPEC_PAGES : KVCL_DEFER_SPEC_PAGES) |
           (kvcl_cl_caps_of(q)->cc_major >= 9 ? KVCL_DEFER_SPEC_BULK : 0);
}

static bool matvec_fits(const kvcl_matvec_args *a)
{
    const kvcl_mat *w = a->w[0];
    bool norm = a->norm.kind != KVCL_NORM_NONE; /* needs the row and the norm's weights too */
    bool ok = a->n == 1 && w->cols <= (norm ? KVCL_DEFER_MAX_COLS / 16 * 7 : KVCL_DEFER_MAX_COLS) &&
              a->x.off % 16 == 0 && a->norm.weight.off % 16 == 0 && a->norm.bias.off % 16 == 0;
    for (uint32_t s = 0; s < a->n_seg; s++)
        ok = ok && a->w[s]->n_parts == 1 && a->w[s]->type == w->type && a->w[s]->rows > 0;
    return ok;
}

static kvcl_status set_matrices(kvcl_queue *q, kvcl_cl_defer *d, const kvcl_matvec_args *a,
                                kvcl_defer_matvec *m)
{
    bool pair = a->act == KVCL_ACT_SWIGLU;
    uint32_t rows = 0;
    for (uint32_t s = 0; s < 3; s++) {
        if (s < a->n_seg) {
            kvcl_cl_part part = kvcl_cl_mat_part(a->w[s], 0);
            KVCL_TRY(address_of(q, d, part.buf, &m->w[s]));
            m->h[s] = m->w[s] + part.off_h;
            m->d[s] = m->w[s] + part.off_d;
            m->w[s] += part.off_q;
            KVCL_TRY(view_at(q, d, a->bias[s], &m->bias[s]));
            if (!pair || s == 0)
                KVCL_TRY(view_at(q, d, a->out[s], &m->out[s]));
            rows += a->w[s]->rows;
        }
        m->row_end[s] = rows;
    }
    m->n_tasks = pair ? a->w[0]->rows : kvcl_div_up(rows, 2);
    m->flags = (pair ? KVCL_DEFER_PAIR : 0) | (a->act == KVCL_ACT_GELU ? KVCL_DEFER_GELU : 0);
    return KVCL_OK;
}

/* Whether the list's last op makes just what x is, from partials. */
static bool reads_merge(const kvcl_cl_defer *d, const kvcl_defer_matvec *m)
{
    const kvcl_defer_merge *last = d->n > d->n_run ? &d->ops[d->n - 1].merge : NULL;
    return last && last->head.kind == KVCL_DEFER_MERGE && last->out == m->x && !m->norm &&
           last->n_q_heads * last->head_dim == m->cols && d->numbers[last->n_merged] <= MAX_MERGED;
}

/* The last op becomes the beginning of m. */
static void take_merge(kvcl_cl_defer *d, kvcl_defer_matvec *m)
{
    const kvcl_defer_merge *last = &d->ops[--d->n].merge;
    m->flags |= KVCL_DEFER_MERGED;
    m->ml = last->ml;
    m->o = last->o;
    m->merge_head_dim = last->head_dim;
    m->merge_parts = last->n_parts;
    m->n_merged = last->n_merged;
}

kvcl_status kvcl_cl_defer_matvec(kvcl_queue *q, const kvcl_matvec_args *a, bool *taken)
{
    kvcl_defer_slot op = {.head.kind = KVCL_DEFER_MATVEC};
    uint32_t spec = spec_of(q, a->w[0]->type);
    kvcl_cl_defer *d = matvec_fits(a) ? kvcl_cl_defer_list(q, spec) : NULL;
    *taken = d != NULL;
    if (!d)
        return KVCL_OK;
    KVCL_TRY(make_room(q, d, spec));
    KVCL_TRY(set_matrices(q, d, a, &op.matvec));
    KVCL_TRY(view_at(q, d, a->x, &op.matvec.x));
    KVCL_TRY(view_at(q, d, a->norm.weight, &op.matvec.norm_w));
    KVCL_TRY(view_at(q, d, a->norm.bias, &op.matvec.norm_b));
    KVCL_TRY(view_at(q, d, a->res, &op.matvec.res));
    op.matvec.cols = a->w[0]->cols;
    op.matvec.norm = (uint32_t)a->norm.kind;
    op.matvec.eps = a->norm.eps;
    op.matvec.inv_n = 1.0f / (float)a->w[0]->cols;
    if (reads_merge(d, &op.matvec))
        take_merge(d, &op.matvec);
    return kvcl_cl_defer_add(q, d, &op);
}

kvcl_status kvcl_cl_defer_embed_rows(kvcl_queue *q, const kvcl_embed_rows_args *a, bool *taken)
{
    const kvcl_mat *m = a->table, *pos = a->pos_table;
    kvcl_defer_slot op = {.head.kind = KVCL_DEFER_EMBED};
    uint32_t spec = spec_of(q, m->type);
    bool fits = a->n == 1 && m->n_parts == 1 &&
                m->cols <= (size_t)kvcl_cl_defer_groups(q) * KVCL_DEFER_GROUP * 8 &&
                (!pos || (pos->n_parts == 1 && pos->type == m->type));
    kvcl_cl_defer *d = fits ? kvcl_cl_defer_list(q, spec) : NULL;
    *taken = d != NULL;
    if (!d)
        return KVCL_OK;
    KVCL_TRY(make_room(q, d, spec));
    KVCL_TRY(address_of(q, d, kvcl_cl_mat_part(m, 0).buf, &op.embed.w));
    if (pos)
        KVCL_TRY(address_of(q, d, kvcl_cl_mat_part(pos, 0).buf, &op.embed.pos_w));
    KVCL_TRY(view_at(q, d, a->ids, &op.embed.ids));
    KVCL_TRY(view_at(q, d, a->out, &op.embed.out));
    op.embed.rows = m->rows;
    op.embed.cols = m->cols;
    op.embed.pos_rows = pos ? pos->rows : 0;
    (void)number(d, KVCL_DEFER_EMBED, a->pos0, &op.embed.pos);
    return kvcl_cl_defer_add(q, d, &op);
}

/* Whether m makes the row q | k | v at `qkv`, and nothing else. */
static bool makes_row(const kvcl_defer_matvec *m, uint64_t qkv, uint32_t width)
{
    bool ok =
        m->head.kind == KVCL_DEFER_MATVEC && m->row_end[2] == width && m->flags == 0 && !m->res;
    for (uint32_t s = 0; s < 3; s++) {
        uint32_t row0 = s ? m->row_end[s - 1] : 0;
        if (row0 < m->row_end[s])
            ok = ok && m->out[s] == qkv + row0 * sizeof(float);
    }
    return ok;
}

/* The program for pages of these types.  A list that has no op on pages yet changes its program. */
static kvcl_status set_pages(kvcl_queue *q, kvcl_cl_defer *d, kvcl_type type_k, kvcl_type type_v)
{
    uint32_t pages = (type_k == KVCL_F16 ? 1u : 0u) | (type_v == KVCL_F16 ? 2u : 0u);
    if (pages != (d->spec & KVCL_DEFER_SPEC_PAGES) && d->on_pages)
        KVCL_TRY(kvcl_cl_defer_flush(q));
    d->spec = (d->spec & ~KVCL_DEFER_SPEC_PAGES) | pages;
    d->on_pages = true;
    return KVCL_OK;
}

/* Only as the end of the matvec before it. */
kvcl_status kvcl_cl_defer_rope_store(kvcl_queue *q, const kvcl_rope_store_args *a, bool *taken)
{
    kvcl_cl_defer *d = kvcl_cl_of(q)->defer;
    uint32_t width = (a->n_q_heads + 2 * a->n_kv_heads) * a->head_dim;
    kvcl_defer_rope rope = {.n_q_heads = a->n_q_heads,
                            .n_kv_heads = a->n_kv_heads,
                            .head_dim = a->head_dim,
                            .n_rot = a->pairing == KVCL_ROPE_NONE ? 0 : a->n_rot,
                            .first_page = a->first_page};
    uint64_t qkv;
    *taken = false;
    if (!d || a->n != 1 || a->ku.buf || a->pairing == KVCL_ROPE_HALVES ||
        a->table.off % sizeof(cl_float2) || d->n_numbers == KVCL_DEFER_DYN)
        return KVCL_OK;
    KVCL_TRY(view_at(q, d, a->qkv, &qkv));
    KVCL_TRY(view_at(q, d, a->table, &rope.table));
    KVCL_TRY(view_at(q, d, a->k, &rope.k));
    KVCL_TRY(view_at(q, d, a->v, &rope.v));
    KVCL_TRY(view_at(q, d, a->page_table, &rope.pages));
    if (d->n > d->n_run && !d->on_pages)
        KVCL_TRY(set_pages(q, d, a->type_k, a->type_v));
    uint32_t pages = (a->type_k == KVCL_F16 ? 1u : 0u) | (a->type_v == KVCL_F16 ? 2u : 0u);
    /* asking for an address may have run the list */
    if (d->n == d->n_run || pages != (d->spec & KVCL_DEFER_SPEC_PAGES) ||
        !makes_row(&d->ops[d->n - 1].matvec, qkv, width))
        return KVCL_OK;
    (void)number(d, KVCL_DEFER_ROPE, a->pos0, &rope.pos);
    d->ops[d->n - 1].matvec.rope = rope;
    d->ops[d->n - 1].matvec.flags |= KVCL_DEFER_ROPE;
    *taken = true;
    return KVCL_OK;
}

/* Long regions are for cl/attn_warp.cl, which reads a page once for all heads of a group: what that
 * saves is soon more than the launches that it takes. */
static bool attn_is_short(const kvcl_queue *q, const kvcl_attn_in *in, uint32_t end)
{
    uint32_t blocks = (end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    uint32_t pairs = kvcl_div_up(in->n_q_heads / in->n_kv_heads, 2) * in->n_kv_heads;
    return (uint64_t)blocks * pairs <= (uint64_t)MAX_ROUNDS * kvcl_cl_defer_groups(q);
}

kvcl_status kvcl_cl_defer_attn_raw(kvcl_queue *q, const kvcl_attn_raw_args *a, bool *taken)
{
    kvcl_defer_slot op = {.head.kind = KVCL_DEFER_ATTN};
    kvcl_defer_attn *at = &op.attn;
    const kvcl_attn_in *in = &a->in;
    kvcl_cl_defer *d = kvcl_cl_of(q)->defer;
    uint32_t end = kvcl_min_u32(in->end, in->pos0 + 1);
    *taken = d && in->n == 1 && in->begin < end && in->ml.off % sizeof(cl_float2) == 0 &&
             attn_is_short(q, in, end);
    if (!*taken)
        return KVCL_OK;
    KVCL_TRY(make_room(q, d, d->spec));
    KVCL_TRY(view_at(q, d, in->q, &at->q));
    KVCL_TRY(view_at(q, d, a->k, &at->k));
    KVCL_TRY(view_at(q, d, a->v, &at->v));
    KVCL_TRY(view_at(q, d, in->page_table, &at->pages));
    KVCL_TRY(view_at(q, d, in->ml, &at->ml));
    KVCL_TRY(view_at(q, d, in->o, &at->o));
    KVCL_TRY(set_pages(q, d, a->type_k, a->type_v));
    at->n_q_heads = in->n_q_heads;
    at->n_kv_heads = in->n_kv_heads;
    at->head_dim = in->head_dim;
    at->first_part = in->first_part;
    at->n_parts = in->n_parts;
    at->scale = in->scale;
    (void)number(d, KVCL_DEFER_ATTN, in->begin, &at->begin);
    (void)number(d, KVCL_DEFER_ATTN + 16, end, &at->end);
    return kvcl_cl_defer_add(q, d, &op);
}

kvcl_status kvcl_cl_defer_attn_merge(kvcl_queue *q, const kvcl_attn_merge_args *a, bool *taken)
{
    kvcl_defer_slot op = {.head.kind = KVCL_DEFER_MERGE};
    kvcl_cl_defer *d = kvcl_cl_of(q)->defer;
    uint32_t n_merged = a->n_before + 1 + a->pos0 / KVCL_BLOCK_TOKENS;
    n_merged -= a->last_begin / KVCL_BLOCK_TOKENS;
    *taken = d && a->n == 1 && a->ml.off % sizeof(cl_float2) == 0 &&
             a->o.off % sizeof(cl_float4) == 0 && a->out.off % sizeof(cl_float4) == 0;
    if (!*taken)
        return KVCL_OK;
    KVCL_TRY(make_room(q, d, d->spec));
    KVCL_TRY(view_at(q, d, a->ml, &op.merge.ml));
    KVCL_TRY(view_at(q, d, a->o, &op.merge.o));
    KVCL_TRY(view_at(q, d, a->out, &op.merge.out));
    op.merge.n_q_heads = a->n_q_heads;
    op.merge.head_dim = a->head_dim;
    op.merge.n_parts = a->n_parts;
    (void)number(d, KVCL_DEFER_MERGE, n_merged, &op.merge.n_merged);
    return kvcl_cl_defer_add(q, d, &op);
}
