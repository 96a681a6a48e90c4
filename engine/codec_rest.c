/* codec_rest.c - pages at rest: rows of several KV heads in one basis, one step for a whole page,
 * entropy coded into slots of fixed size.  See codec.h; the arithmetic stands in ops_rest.h.
 *
 * Pages are decoded to spectral pages of eight bits and these to raw ones, some blocks at a time,
 * and attended as such. */
#include "codec.h"

#include "ctx.h"
#include "rans_model.h"
#include "shared.h"
#include "spectral_rest.h"
#include "types.h"

#include <stdio.h>
#include <string.h>

#define WORK_BYTES ((size_t)4 << 20) /* of work aimed at: as many pages at once as fit */
#define ENCODE_PAGES 8u              /* at most */
#define ATTEND_PAGES 64u
#define ALIGN 64u
#define MAX_DIM 256u /* of a row */
#define RAW KVCL_F16 /* what attention reads: as exact as the cache's raw pages are */
/* Of rest_quant.  At the rates of interest .4 takes 8 % fewer bits than .5 for the same error; .35
 * and a choice by each value's own cost gain no more than another percent or two. */
#define ROUND 0.4f

/* ---- names --------------------------------------------------------------------------------- */

#define MIN_RATE 50u
#define MAX_RATE 600u

/* "rest1.5", "rest1.05", "rest2": hundredths. */
static bool parse(const char *name, kvcl_codec_spec *spec)
{
    if (!kvcl_codec_take_word(&name, "rest") || name[0] < '0' || name[0] > '9')
        return false;
    uint32_t rate = 100 * (uint32_t)(*name++ - '0'), unit = 10;
    if (*name == '.')
        for (name++; *name >= '0' && *name <= '9' && unit; name++, unit /= 10)
            rate += unit * (uint32_t)(*name - '0');
    spec->fold = 1; /* Walsh sums of several tokens gain nothing here (bench/JOURNAL.md) */
    if (*name || rate < MIN_RATE || rate > MAX_RATE)
        return false;
    spec->rate = rate;
    uint32_t part = rate % 100;
    if (part)
        snprintf(spec->name, sizeof spec->name, part % 10 ? "rest%u.%02u" : "rest%u.%u",
                 (unsigned)rate / 100, (unsigned)(part % 10 ? part : part / 10));
    else
        snprintf(spec->name, sizeof spec->name, "rest%u", (unsigned)rate / 100);
    return true;
}

/* ---- sizes --------------------------------------------------------------------------------- */

/* Heads side by side in a row: as many as fit, a power of two.  One basis for two heads takes 20 to
 * 27 % fewer bits than one for each (bench/JOURNAL.md). */
static uint32_t join_of(const kvcl_kv_shape *s)
{
    uint32_t join = 1;
    while (s->n_kv_heads % (2 * join) == 0 && 2 * join * s->head_dim <= MAX_DIM)
        join *= 2;
    return join;
}

static kvcl_spectral_shape spectral_of(const kvcl_codec_plan *p)
{
    uint32_t words = p->shape.n_kv_heads * p->spec.fold * p->shape.head_dim / 4;
    return (kvcl_spectral_shape){.n_kv_heads = p->shape.n_kv_heads / join_of(&p->shape),
                                 .head_dim = p->shape.head_dim * join_of(&p->shape),
                                 .fold = p->spec.fold,
                                 .words_k = words,
                                 .words_v = words};
}

static kvcl_rest_shape rest_of(const kvcl_codec_plan *p, uint32_t n_pages)
{
    uint32_t rows = p->shape.n_kv_heads * p->spec.fold * p->shape.head_dim / 2;
    return (kvcl_rest_shape){.n_pages = n_pages,
                             .n_rows = rows,
                             .n_cols = 256 / p->spec.fold,
                             .n_parts = 2 * p->shape.n_kv_heads / join_of(&p->shape),
                             .page_bytes = (uint32_t)p->pool_bytes[0]};
}

static kvcl_rans_shape rans_of(const kvcl_rest_shape *s, uint32_t value_stride)
{
    return (kvcl_rans_shape){s->n_pages, s->n_rows, s->n_cols, s->n_rows, value_stride};
}

/* Parts of a region, each aligned. */
static kvcl_view take(kvcl_view *from, size_t bytes)
{
    kvcl_view v = {from->buf, from->off, bytes};
    size_t all = kvcl_align_up(bytes, ALIGN);
    from->off += all;
    from->bytes -= all;
    return v;
}

typedef struct tables {
    kvcl_view rans, costs, slots; /* slots: 0, 1, 2 ... of work's pages */
} tables;

static tables tables_of(kvcl_view v)
{
    tables t;
    t.rans = take(&v, kvcl_rans_table_bytes());
    t.costs = take(&v, kvcl_rest_cost_bytes());
    t.slots = take(&v, ATTEND_PAGES * sizeof(int32_t));
    return t;
}

/* A layer's basis as ops_spectral.h has it; chunks of matrices that are not what a coder made. */
typedef struct basis_work {
    kvcl_view basis, bad;
} basis_work;

static basis_work basis_work_of(const kvcl_codec_plan *p, kvcl_view *v)
{
    kvcl_spectral_shape s = spectral_of(p);
    basis_work w;
    w.basis = take(v, kvcl_spectral_basis_bytes(&s));
    w.bad = take(v, kvcl_rest_chunks(&s, false) * sizeof(uint32_t));
    return w;
}

typedef struct encode_work {
    kvcl_view coefs, values, models, gains, rungs, used, streams;
} encode_work;

/* v->bytes falls by what is taken. */
static encode_work encode_work_of(const kvcl_rest_shape *s, uint32_t n, kvcl_view *v)
{
    encode_work w;
    size_t values = (size_t)s->n_rows * s->n_cols;
    w.coefs = take(v, n * values * sizeof(float));
    w.values = take(v, n * values);
    w.models = take(v, (size_t)n * s->n_rows);
    w.gains = take(v, (size_t)n * s->n_parts);
    w.rungs = take(v, n * sizeof(uint32_t));
    w.used = take(v, n * sizeof(uint32_t));
    w.streams = take(v, (size_t)n * kvcl_rest_room(s));
    return w;
}

typedef struct attend_work {
    kvcl_view pages, places, models, bad, k, v;
    size_t stride; /* of pages */
} attend_work;

static attend_work attend_work_of(const kvcl_codec_plan *p, uint32_t n, kvcl_view *v)
{
    attend_work w;
    size_t parts[4];
    kvcl_spectral_shape s = spectral_of(p);
    size_t raw = kvcl_type_bytes(RAW, (size_t)KVCL_PAGE_TOKENS * s.n_kv_heads * s.head_dim);
    w.stride = kvcl_spectral_page_bytes(&s, parts);
    w.pages = take(v, n * w.stride);
    w.places = take(v, (size_t)n * 2 * sizeof(uint32_t));
    w.models = take(v, (size_t)n * (s.words_k + s.words_v));
    w.bad = take(v, n * sizeof(uint32_t));
    w.k = take(v, n * raw);
    w.v = take(v, n * raw);
    return w;
}

static size_t encode_bytes(const kvcl_codec_plan *p, uint32_t n)
{
    kvcl_view v = {0};
    kvcl_rest_shape s = rest_of(p, n);
    basis_work_of(p, &v);
    encode_work_of(&s, n, &v);
    return v.off;
}

static size_t attend_bytes(const kvcl_codec_plan *p, uint32_t n)
{
    kvcl_view v = {0};
    basis_work_of(p, &v);
    attend_work_of(p, n, &v);
    return v.off;
}

static uint32_t encode_pages(const kvcl_codec_plan *p)
{
    uint32_t n = ENCODE_PAGES;
    while (n > 1 && encode_bytes(p, n) > WORK_BYTES)
        n--;
    return n;
}

/* Whole blocks, since a partial is a block's. */
static uint32_t attend_pages(const kvcl_codec_plan *p)
{
    uint32_t n = ATTEND_PAGES;
    while (n > KVCL_BLOCK_PAGES && attend_bytes(p, n) > WORK_BYTES)
        n -= KVCL_BLOCK_PAGES;
    return n;
}

static kvcl_status plan(kvcl_ctx *ctx, kvcl_codec_plan *p)
{
    size_t elems = (size_t)2 * KVCL_PAGE_TOKENS * p->shape.n_kv_heads * p->shape.head_dim;
    KVCL_CHECK(ctx, p->shape.head_dim % 32 == 0 && p->shape.head_dim <= 256, KVCL_E_UNSUPPORTED,
               "codec %s needs a head dimension that is a multiple of 32 up to 256, not %u",
               p->spec.name, (unsigned)p->shape.head_dim);
    KVCL_CHECK(ctx, elems <= KVCL_RANS_MAX_VALUES, KVCL_E_UNSUPPORTED,
               "codec %s takes at most %u values a page; %u heads of %u have %zu", p->spec.name,
               KVCL_RANS_MAX_VALUES, (unsigned)p->shape.n_kv_heads, (unsigned)p->shape.head_dim,
               elems);
    kvcl_spectral_shape s = spectral_of(p);
    kvcl_view v = {0};
    p->pool_bytes[0] = elems * p->spec.rate / 800 / 4 * 4;
    kvcl_rest_shape rest = rest_of(p, 1);
    p->part_name[0] = "streams";
    p->part_bytes[0] = kvcl_rest_room(&rest);
    p->part_name[1] = "heads of pages";
    p->part_bytes[1] = kvcl_rest_head(&rest);
    p->join = join_of(&p->shape);
    p->basis_bytes = kvcl_rest_basis_layout(&s, p->spec.rate).bytes;
    tables_of((kvcl_view){0});
    v = tables_of(v).slots;
    p->table_bytes = v.off + v.bytes;
    p->encode_bytes = encode_bytes(p, encode_pages(p));
    p->attend_bytes = attend_bytes(p, attend_pages(p));
    p->lossy = p->wants_means = p->one_mean = true;
    p->unrotated = p->shape.pairing != KVCL_ROPE_NONE;
    return KVCL_OK;
}

static void fill(const kvcl_codec_plan *p, void *out)
{
    tables t = tables_of((kvcl_view){0});
    unsigned char *at = out;
    uint32_t *rans = (uint32_t *)(void *)(at + t.rans.off);
    int32_t *slots = (int32_t *)(void *)(at + t.slots.off);
    KVCL_UNUSED(p);
    kvcl_rans_table_fill(rans);
    kvcl_rest_cost_fill(rans, (uint16_t *)(void *)(at + t.costs.off));
    for (uint32_t i = 0; i < ATTEND_PAGES; i++)
        slots[i] = (int32_t)i;
}

/* The part of a layer's basis that models of pages come from. */
static kvcl_view scales_of(const kvcl_codec_plan *p, kvcl_view basis)
{
    kvcl_spectral_shape s = spectral_of(p);
    kvcl_rest_basis at = kvcl_rest_basis_layout(&s, p->spec.rate);
    return (kvcl_view){basis.buf, basis.off + at.scales, at.models - at.scales};
}

/* A layer's basis to work. */
static kvcl_status open_basis(kvcl_queue *q, const kvcl_codec_plan *p,
                              const kvcl_codec_pages *pages, const basis_work *w)
{
    kvcl_spectral_shape s = spectral_of(p);
    return kvcl_spectral_rest_open(q, &s, p->spec.rate, pages->basis, tables_of(pages->tables).rans,
                                   w->basis, w->bad);
}

/* Entries i .. i + n - 1 of a table of slots. */
static kvcl_view part_of(kvcl_view table, uint32_t i, uint32_t n)
{
    return (kvcl_view){table.buf, table.off + i * sizeof(int32_t), n * sizeof(int32_t)};
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* Coefficients to streams: first with the step that most likely fits, then, where it did not, with
 * one that is sure to. */
static kvcl_status make_streams(kvcl_queue *q, const kvcl_rest_shape *s, const encode_work *w,
                                const tables *t, kvcl_view scales, uint32_t fold)
{
    uint32_t room = kvcl_rest_room(s);
    kvcl_rest_quant_args a = {.shape = *s,
                              .coefs = w->coefs,
                              .scales = scales,
                              .costs = t->costs,
                              .values = w->values,
                              .models = w->models,
                              .gains = w->gains,
                              .rungs = w->rungs,
                              .budget = kvcl_rest_hope(room),
                              .fold = fold,
                              .round = ROUND};
    const kvcl_rans_enc_args enc = {.shape = rans_of(s, 0),
                                    .values = w->values,
                                    .models = w->models,
                                    .table = t->rans,
                                    .streams = w->streams,
                                    .used = w->used,
                                    .slot_bytes = room};
    KVCL_TRY(kvcl_op_rest_quant(q, &a));
    KVCL_TRY(kvcl_op_rans_enc(q, &enc));
    a.used = w->used;
    a.budget = kvcl_rest_budget(room);
    KVCL_TRY(kvcl_op_rest_quant(q, &a));
    return kvcl_op_rans_enc(q, &enc);
}

/* n pages from the i-th on; work: behind the basis. */
static kvcl_status encode_some(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                               const kvcl_codec_pages *out, kvcl_view basis, kvcl_view work,
                               uint32_t i, uint32_t n)
{
    uint32_t heads = p->shape.n_kv_heads;
    kvcl_rest_shape s = rest_of(p, n);
    encode_work w = encode_work_of(&s, n, &work);
    tables t = tables_of(out->tables);
    KVCL_TRY(kvcl_op_spectral_coef(
        q, &(kvcl_spectral_coef_args){.shape = spectral_of(p),
                                      .k = raw->k,
                                      .v = raw->v,
                                      .page_table = part_of(raw->page_table, i, n),
                                      .means = out->means,
                                      .basis = basis,
                                      .coefs = w.coefs,
                                      .first_page = raw->first_page + i,
                                      .n_pages = n,
                                      .n_skip = raw->n_skip,
                                      .join = p->join,
                                      .type_k = raw->type_k,
                                      .type_v = raw->type_v}));
    KVCL_TRY(make_streams(q, &s, &w, &t, scales_of(p, out->basis), p->spec.fold));
    return kvcl_op_rest_store(
        q, &(kvcl_rest_store_args){.shape = s,
                                   .streams = w.streams,
                                   .used = w.used,
                                   .rungs = w.rungs,
                                   .gains = w.gains,
                                   .pool = out->pool[0],
                                   .pool_table = part_of(out->table, i, n),
                                   .bad = {out->bad.buf, out->bad.off + i * heads * sizeof(int32_t),
                                           n * heads * sizeof(int32_t)},
                                   .n_heads = heads});
}

static kvcl_status encode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out)
{
    uint32_t most = encode_pages(p);
    kvcl_view work = out->work;
    basis_work w = basis_work_of(p, &work);
    KVCL_TRY(open_basis(q, p, out, &w));
    for (uint32_t i = 0, n; i < raw->n_pages; i += n) {
        n = kvcl_min_u32(most, raw->n_pages - i);
        KVCL_TRY(encode_some(q, p, raw, out, w.basis, work, i, n));
    }
    return KVCL_OK;
}

/* ---- decoding ------------------------------------------------------------------------------ */

/* n pages from the i-th on, page first_page of the sequence, to spectral pages of 8 bits. */
static kvcl_status open_pages(kvcl_queue *q, const kvcl_codec_plan *p,
                              const kvcl_codec_pages *pages, uint32_t first_page, uint32_t i,
                              uint32_t n, const attend_work *w)
{
    kvcl_rest_shape s = rest_of(p, n);
    kvcl_view table = part_of(pages->table, i, n);
    tables t = tables_of(pages->tables);
    KVCL_TRY(kvcl_op_rest_open(q, &(kvcl_rest_open_args){.shape = s,
                                                         .pool = pages->pool[0],
                                                         .pool_table = table,
                                                         .scales = scales_of(p, pages->basis),
                                                         .places = w->places,
                                                         .models = w->models}));
    KVCL_TRY(kvcl_op_rans_dec(q, &(kvcl_rans_dec_args){.shape = rans_of(&s, (uint32_t)w->stride),
                                                       .streams = pages->pool[0],
                                                       .places = w->places,
                                                       .models = w->models,
                                                       .table = t.rans,
                                                       .values = w->pages,
                                                       .bad = w->bad}));
    return kvcl_op_rest_norms(q, &(kvcl_rest_norms_args){.shape = s,
                                                         .pool = pages->pool[0],
                                                         .pool_table = table,
                                                         .bad = w->bad,
                                                         .out = w->pages,
                                                         .fault = pages->fault,
                                                         .stride_bytes = (uint32_t)w->stride,
                                                         .first_page = first_page});
}

/* Pages of the sequence from `page` on that are opened together: whole blocks but at the ends. */
static uint32_t at_once(uint32_t most, uint32_t page, uint32_t end)
{
    return kvcl_min_u32(end, (page / most + 1) * most) - page;
}

/* n pages from the i-th on, page first_page of the sequence, to raw pages. */
static kvcl_status decode_some(kvcl_queue *q, const kvcl_codec_plan *p,
                               const kvcl_codec_pages *pages, kvcl_view basis, kvcl_view work,
                               const kvcl_codec_raw *out, bool unrotated, uint32_t i)
{
    uint32_t n = out->n_pages;
    attend_work w = attend_work_of(p, n, &work);
    KVCL_TRY(open_pages(q, p, pages, out->first_page, i, n, &w));
    return kvcl_op_spectral_dec(
        q, &(kvcl_spectral_dec_args){.shape = spectral_of(p),
                                     .pool = w.pages,
                                     .pool_table = part_of(tables_of(pages->tables).slots, 0, n),
                                     .means = pages->means,
                                     .basis = basis,
                                     .k = out->k,
                                     .v = out->v,
                                     .page_table = out->page_table,
                                     .table = unrotated ? (kvcl_view){0} : pages->rope,
                                     .first_page = out->first_page,
                                     .n_pages = n,
                                     .n_rot = p->shape.n_rot,
                                     .join = p->join,
                                     .pairing = p->shape.pairing,
                                     .type_k = out->type_k,
                                     .type_v = out->type_v});
}

static kvcl_status attend(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_attn_in *in)
{
    uint32_t first = in->begin / KVCL_PAGE_TOKENS, end = kvcl_div_up(in->end, KVCL_PAGE_TOKENS);
    uint32_t most = attend_pages(p);
    kvcl_view work = pages->work;
    tables t = tables_of(pages->tables);
    basis_work b = basis_work_of(p, &work);
    if (in->begin < in->end)
        KVCL_TRY(open_basis(q, p, pages, &b));
    for (uint32_t page = first, n; page < end && in->begin < in->end; page += n) {
        n = at_once(most, page, end);
        kvcl_view rest = work;
        attend_work w = attend_work_of(p, n, &rest);
        kvcl_codec_raw raw = {.k = w.k, .v = w.v, .type_k = RAW, .type_v = RAW};
        raw.page_table = part_of(t.slots, 0, n);
        raw.first_page = page;
        raw.n_pages = n;
        KVCL_TRY(decode_some(q, p, pages, b.basis, work, &raw, false, page - first));
        kvcl_attn_raw_args a = {.in = *in, .k = w.k, .v = w.v, .type_k = RAW, .type_v = RAW};
        a.in.page_table = raw.page_table;
        a.in.begin = kvcl_max_u32(in->begin, page * KVCL_PAGE_TOKENS);
        a.in.end = kvcl_min_u32(in->end, (page + n) * KVCL_PAGE_TOKENS);
        a.in.first_part += page / KVCL_BLOCK_PAGES - first / KVCL_BLOCK_PAGES;
        KVCL_TRY(kvcl_op_attn_raw(q, &a));
    }
    return KVCL_OK;
}

static kvcl_status decode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated)
{
    uint32_t most = attend_pages(p);
    kvcl_view work = pages->work;
    basis_work b = basis_work_of(p, &work);
    KVCL_TRY(open_basis(q, p, pages, &b));
    for (uint32_t i = 0, n; i < out->n_pages; i += n) {
        kvcl_codec_raw some = *out;
        n = kvcl_min_u32(most, out->n_pages - i);
        some.first_page = out->first_page + i;
        some.n_pages = n;
        some.page_table = part_of(out->page_table, i, n);
        KVCL_TRY(decode_some(q, p, pages, b.basis, work, &some, unrotated, i));
    }
    return KVCL_OK;
}

/* ---- basis ---------------------------------------------------------------------------------- */

static kvcl_status learn(kvcl_ctx *ctx, const kvcl_codec_plan *p, const kvcl_codec_moments *m,
                         void *basis_out)
{
    kvcl_spectral_shape s = spectral_of(p);
    const kvcl_spectral_moments moments = {.pages = m->gram,
                                           .queries = m->metric,
                                           .join = p->join,
                                           .n_slots = m->n_slots,
                                           .metric = m->table ? KVCL_METRIC_SPAN : KVCL_METRIC_RAW,
                                           .pairing = p->shape.pairing,
                                           .n_rot = p->shape.n_rot,
                                           .table = m->table,
                                           .n_span = m->n_span};
    return kvcl_spectral_rest_make(ctx, &s, &moments, ctx->n_threads, p->spec.rate, basis_out);
}

const kvcl_codec_ops kvcl_codec_rest_ops = {.name = "rest",
                                            .parse = parse,
                                            .plan = plan,
                                            .encode = encode,
                                            .attend = attend,
                                            .decode = decode,
                                            .fill = fill,
                                            .learn = learn};
