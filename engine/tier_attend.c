/* tier_attend.c - attention over a tier's pages, here or on another device, and how pages, means
 * and queries travel.  See tier.h; from a file: tier_disk.c. */
#include "tier_int.h"

#include "mem.h"

/* ---- memory of a tier elsewhere ------------------------------------------------------------- */

kvcl_status kvcl_tier_create_bounce(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t)
{
    KVCL_TRY(kvcl_page_map_create(main, KVCL_USE_SCRATCH, &t->bounce_map));
    for (uint32_t j = 0; j < 2; j++)
        if (t->plan.pool_bytes[j])
            KVCL_TRY(kvcl_buf_create(s->main_dev, t->bounce_map.n_slots * t->plan.pool_bytes[j],
                                     KVCL_USE_SCRATCH, &t->bounce[j]));
    return KVCL_OK;
}

static kvcl_status copy_rope(const kvcl_tier_setup *s, kvcl_queue *main, const char *what,
                             kvcl_tier *t)
{
    void *p;
    if (!s->rope.bytes)
        return KVCL_OK;
    KVCL_TRY(kvcl_buf_create(t->dev, s->rope.bytes, what, &t->rope_there));
    t->rope = kvcl_view_of(t->rope_there);
    KVCL_TRY(kvcl_mem_alloc_undefined(t->dev->ctx, s->rope.bytes, what, &p));
    kvcl_status st = kvcl_buf_read(main, s->rope.buf, s->rope.off, p, s->rope.bytes);
    if (st == KVCL_OK)
        st = kvcl_buf_write(t->queue, t->rope_there, 0, p, s->rope.bytes);
    kvcl_mem_free(t->dev->ctx, p);
    return st;
}

static kvcl_status create_travel(const kvcl_tier_setup *s, kvcl_queue *main, const char *what,
                                 kvcl_tier *t)
{
    const kvcl_kv_shape *sh = &t->plan.shape;
    size_t heads = (size_t)s->n_queries * sh->n_q_heads, parts = heads * s->n_parts;
    void *p;
    KVCL_TRY(kvcl_tier_create_bounce(s, main, t));
    KVCL_TRY(kvcl_buf_create(t->dev, heads * sh->head_dim * sizeof(float), what, &t->q_there));
    KVCL_TRY(kvcl_buf_create(t->dev, parts * 2 * sizeof(float), what, &t->ml_there));
    KVCL_TRY(kvcl_buf_create(t->dev, parts * sh->head_dim * sizeof(float), what, &t->o_there));
    t->host_bytes = kvcl_max_size(t->o_there->bytes + t->ml_there->bytes, t->q_there->bytes);
    t->host_bytes = kvcl_max_size(t->host_bytes, KVCL_TIER_BOUNCE * t->plan.page_bytes);
    if (t->means)
        t->host_bytes = kvcl_max_size(t->host_bytes, t->means->bytes);
    t->host_bytes = kvcl_max_size(t->host_bytes, kvcl_tier_layer_basis(t));
    KVCL_TRY(kvcl_mem_alloc_undefined(t->dev->ctx, t->host_bytes, what, &p));
    t->host = p;
    return KVCL_OK;
}

kvcl_status kvcl_tier_create_remote(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t)
{
    const kvcl_tier_uses uses = kvcl_tier_name_uses(s->name);
    if (t->means)
        KVCL_TRY(kvcl_buf_create(t->dev, t->means->bytes, uses.travel, &t->means_there));
    if (t->basis)
        KVCL_TRY(kvcl_buf_create(t->dev, t->basis->bytes, uses.travel, &t->basis_there));
    KVCL_TRY(copy_rope(s, main, uses.travel, t));
    return create_travel(s, main, uses.travel, t);
}

/* ---- travel -------------------------------------------------------------------------------- */

/* n bytes from one device's buffer to another's, in order. */
static kvcl_status carry(kvcl_tier *t, kvcl_queue *from, const kvcl_buf *src, size_t src_off,
                         kvcl_queue *to, kvcl_buf *dst, size_t dst_off, size_t n)
{
    KVCL_TRY(kvcl_buf_read(from, src, src_off, t->host, n));
    KVCL_TRY(kvcl_queue_wait(from));
    return kvcl_buf_write(to, dst, dst_off, t->host, n);
}

kvcl_status kvcl_tier_send(kvcl_tier *t, kvcl_queue *q, kvcl_view part, kvcl_buf *there)
{
    KVCL_TRY(carry(t, q, part.buf, part.off, t->queue, there, part.off, part.bytes));
    return kvcl_queue_wait(t->queue);
}

kvcl_codec_pages kvcl_tier_bounce(const kvcl_tier *t, uint32_t layer, uint32_t n)
{
    return (kvcl_codec_pages){.pool = {kvcl_view_of(t->bounce[0]), kvcl_view_of(t->bounce[1])},
                              .table = kvcl_page_map_view(&t->bounce_map, 0, n),
                              .slots = t->bounce_map.slots,
                              .means = kvcl_tier_means(t, t->means, layer),
                              .basis = kvcl_tier_basis(t, t->basis, layer),
                              .tables = kvcl_view_of(t->tables)};
}

/* n coded pages in the bounce, from `page` on, to the tier's device. */
static kvcl_status carry_pages(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t page,
                               uint32_t n)
{
    kvcl_codec_pages there = kvcl_tier_pages(t, layer, page, n);
    for (uint32_t k = 0; k < 2 * n; k++) {
        size_t bytes = t->plan.pool_bytes[k % 2], at = (size_t)there.slots[k / 2] * bytes;
        if (bytes)
            KVCL_TRY(carry(t, q, t->bounce[k % 2], k / 2 * bytes, t->queue, there.pool[k % 2].buf,
                           at, bytes));
    }
    return kvcl_queue_wait(t->queue);
}

kvcl_status kvcl_tier_encode_bounced(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                     const kvcl_codec_raw *raw)
{
    for (uint32_t i = 0, n; i < raw->n_pages; i += n) {
        n = kvcl_min_u32(raw->n_pages - i, t->bounce_map.n_slots);
        kvcl_codec_raw part = *raw;
        uint32_t page = part.first_page = raw->first_page + i;
        part.n_pages = n;
        part.slots += i;
        part.page_table.off += i * sizeof(int32_t);
        part.page_table.bytes = n * sizeof(int32_t);
        part.n_skip = i ? 0 : raw->n_skip;
        kvcl_codec_pages out = kvcl_tier_bounce(t, layer, n);
        out.work = kvcl_view_of(t->encode_work);
        out.bad = kvcl_tier_bad(t, layer, page, n);
        KVCL_TRY(t->plan.spec.ops->encode(q, &t->plan, &part, &out));
        KVCL_TRY(t->on_disk ? kvcl_tier_disk_store(t, q, layer, page, n)
                            : carry_pages(t, q, layer, page, n));
    }
    return KVCL_OK;
}

kvcl_status kvcl_tier_bring(kvcl_tier *t, kvcl_queue *q, kvcl_codec_pages *pages, uint32_t n)
{
    for (uint32_t k = 0; k < 2 * n; k++) {
        size_t bytes = t->plan.pool_bytes[k % 2], at = (size_t)pages->slots[k / 2] * bytes;
        if (bytes)
            KVCL_TRY(carry(t, t->queue, pages->pool[k % 2].buf, at, q, t->bounce[k % 2],
                           k / 2 * bytes, bytes));
        KVCL_TRY(kvcl_queue_wait(q));
    }
    for (uint32_t i = 0; i < 2; i++)
        pages->pool[i] = kvcl_view_of(t->bounce[i]);
    pages->table = kvcl_page_map_view(&t->bounce_map, 0, n);
    pages->slots = t->bounce_map.slots;
    return KVCL_OK;
}

/* ---- attention ----------------------------------------------------------------------------- */

kvcl_status kvcl_tier_attend_run(const kvcl_tier *t, kvcl_queue *q, const kvcl_codec_pages *pages,
                                 const kvcl_attn_in *in, uint32_t page, uint32_t n)
{
    kvcl_attn_in part = *in;
    part.begin = kvcl_max_u32(in->begin, page * KVCL_PAGE_TOKENS);
    part.end = kvcl_min_u32(in->end, (page + n) * KVCL_PAGE_TOKENS);
    part.first_part += page / KVCL_BLOCK_PAGES - in->begin / KVCL_BLOCK_TOKENS;
    return t->plan.spec.ops->attend(q, &t->plan, pages, &part);
}

/* The region cut where segments end: between blocks, so the partials are the same. */
static kvcl_status attend_here(const kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                               const kvcl_attn_in *in)
{
    uint32_t end = (in->end - 1) / KVCL_PAGE_TOKENS + 1;
    for (uint32_t page = in->begin / KVCL_PAGE_TOKENS, n; page < end; page += n) {
        n = kvcl_page_map_run(&t->map, page, end);
        kvcl_codec_pages pages = kvcl_tier_pages(t, layer, page, n);
        KVCL_TRY(kvcl_tier_attend_run(t, q, &pages, in, page, n));
    }
    return KVCL_OK;
}

/* Rows of `floats` floats: parts first .. first + n of each of n_rows rows of n_parts, from the
 * dense host copy. */
static kvcl_status scatter(kvcl_queue *q, const kvcl_view *to, const unsigned char *from,
                           const kvcl_attn_in *in, uint32_t n, size_t floats)
{
    size_t part = floats * sizeof(float);
    for (size_t row = 0; row < (size_t)in->n * in->n_q_heads; row++)
        KVCL_TRY(kvcl_buf_write(q, to->buf, to->off + (row * in->n_parts + in->first_part) * part,
                                from + row * n * part, n * part));
    return KVCL_OK;
}

static kvcl_status send_queries(kvcl_tier *t, kvcl_queue *q, const kvcl_attn_in *in)
{
    size_t row = (size_t)in->n_q_heads * in->head_dim * sizeof(float);
    for (uint32_t i = 0; i < in->n; i++)
        KVCL_TRY(kvcl_buf_read(q, in->q.buf, in->q.off + (size_t)i * in->q_stride * sizeof(float),
                               t->host + i * row, row));
    KVCL_TRY(kvcl_queue_wait(q));
    return kvcl_buf_write(t->queue, t->q_there, 0, t->host, in->n * row);
}

static kvcl_status attend_there(kvcl_tier *t, kvcl_queue *q, uint32_t layer, const kvcl_attn_in *in)
{
    uint32_t n_parts = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t parts = (size_t)in->n * in->n_q_heads * n_parts;
    size_t ml_bytes = parts * 2 * sizeof(float), o_bytes = parts * in->head_dim * sizeof(float);
    KVCL_TRY(send_queries(t, q, in));
    kvcl_attn_in there = *in;
    there.q = kvcl_view_of(t->q_there);
    there.q_stride = in->n_q_heads * in->head_dim;
    there.ml = kvcl_view_of(t->ml_there);
    there.o = kvcl_view_of(t->o_there);
    there.first_part = 0;
    there.n_parts = n_parts;
    KVCL_TRY(attend_here(t, t->queue, layer, &there));
    KVCL_TRY(kvcl_buf_read(t->queue, t->ml_there, 0, t->host, ml_bytes));
    KVCL_TRY(kvcl_buf_read(t->queue, t->o_there, 0, t->host + ml_bytes, o_bytes));
    KVCL_TRY(kvcl_queue_wait(t->queue));
    KVCL_TRY(scatter(q, &in->ml, t->host, in, n_parts, 2));
    return scatter(q, &in->o, t->host + ml_bytes, in, n_parts, in->head_dim);
}

kvcl_status kvcl_tier_attend(kvcl_tier *t, kvcl_queue *q, uint32_t layer, const kvcl_attn_in *in)
{
    if (t->on_disk)
        return kvcl_tier_disk_attend(t, q, layer, in);
    return t->queue ? attend_there(t, q, layer, in) : attend_here(t, q, layer, in);
}
