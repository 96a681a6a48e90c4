/* ops_case.c - single operations on made-up data.  See ops_case.h. */
#include "ops_case.h"

#include "mem.h"
#include "shared.h"
#include "types.h"

#include <math.h>
#include <stdio.h>

#define MOST_HASHED ((size_t)16 << 20) /* bytes of a buffer */

/* ---- the list ------------------------------------------------------------------------------ */

static uint64_t raw_bytes(const kvcl_ops_params *p)
{
    return (uint64_t)p->tokens * p->n_kv_heads * p->head_dim * 2 * sizeof(uint16_t);
}

/* Bytes of one coded page. */
size_t kvcl_ops_page_bytes(const kvcl_ops_params *p, const kvcl_ops_case *c)
{
    size_t parts[4];
    if (c->codec == KVCL_OPS_QUANT)
        return kvcl_quant_page_bytes(&c->shape, parts);
    if (c->codec == KVCL_OPS_SPECTRAL)
        return kvcl_spectral_page_bytes(&c->spectral, parts);
    return kvcl_block_page_bytes(p->n_kv_heads, p->head_dim, c->type, c->type);
}

static uint64_t bytes_of(const kvcl_ops_params *p, const kvcl_ops_case *c)
{
    uint64_t coded =
        c->codec == KVCL_OPS_RAW ? raw_bytes(p) : kvcl_ops_pages(p) * kvcl_ops_page_bytes(p, c);
    switch (c->kind) {
    case KVCL_OPS_ATTEND:
        return coded;
    case KVCL_OPS_MERGE:
        return (uint64_t)kvcl_ops_parts(p) * p->n_q_heads * (p->head_dim + 2) * sizeof(float);
    case KVCL_OPS_ENCODE:
        return raw_bytes(p) + coded;
    case KVCL_OPS_FWHT:
        return 2 * (uint64_t)KVCL_OPS_FWHT_VALUES * sizeof(float);
    case KVCL_OPS_SVD:
        return (uint64_t)KVCL_OPS_SVD_PAGES *
               (KVCL_OPS_SVD_ROWS * (KVCL_OPS_SVD_COLS + KVCL_OPS_SVD_RANK) +
                (KVCL_OPS_SVD_COLS + 1) * KVCL_OPS_SVD_RANK) *
               sizeof(float);
    default:
        return p->n_layers * kvcl_ops_layer_bytes(c->type);
    }
}

static void add(const kvcl_ops_params *p, kvcl_ops_case *out, size_t *n, kvcl_ops_case c,
                const char *word, const char *what)
{
    if (*n == KVCL_OPS_CASES)
        return;
    snprintf(c.name, sizeof c.name, "%s%s%s", word, *what ? " " : "", what);
    c.bytes = bytes_of(p, &c);
    out[(*n)++] = c;
}

static void add_spectral(const kvcl_ops_params *p, kvcl_ops_case *out, size_t *n,
                         kvcl_ops_kind kind, const char *word)
{
    for (uint32_t fold = 1; fold <= 8; fold *= 2)
        for (uint32_t bits = 2; bits <= 3; bits++) {
            char what[32];
            kvcl_ops_case c = {.kind = kind, .codec = KVCL_OPS_SPECTRAL, .bits = bits};
            kvcl_ops_spectral_shape(p, fold, bits, &c.spectral);
            if (fold == 1)
                snprintf(what, sizeof what, "spectral%u", (unsigned)bits);
            else
                snprintf(what, sizeof what, "superpose%u-%u", (unsigned)fold, (unsigned)bits);
            add(p, out, n, c, word, what);
        }
}

/* A row for every form and width of the quant codec, both types of rows in blocks, spectral pages.
 */
static void add_codecs(const kvcl_ops_params *p, kvcl_ops_case *out, size_t *n, kvcl_ops_kind kind,
                       const char *word)
{
    static const uint32_t bits[][2] = {{8, 8}, {4, 4}, {3, 3}, {3, 2}, {2, 2}, {1, 1}};
    static const char *const forms[] = {"", "/post", "/channel"};
    static const kvcl_type types[] = {KVCL_Q8_0, KVCL_Q4_0};
    for (uint32_t form = 0; form < 3; form++)
        for (size_t i = 0; i < kvcl_array_len(bits); i++) {
            char what[32];
            kvcl_ops_case c = {.kind = kind, .codec = KVCL_OPS_QUANT};
            c.shape = (kvcl_quant_shape){p->n_kv_heads, p->head_dim, bits[i][0], bits[i][1],
                                         (kvcl_quant_form)form};
            if (bits[i][0] == bits[i][1])
                snprintf(what, sizeof what, "quant%u%s", (unsigned)bits[i][0], forms[form]);
            else
                snprintf(what, sizeof what, "quant-k%uv%u%s", (unsigned)bits[i][0],
                         (unsigned)bits[i][1], forms[form]);
            add(p, out, n, c, word, what);
        }
    for (size_t i = 0; i < kvcl_array_len(types); i++) {
        kvcl_ops_case c = {.kind = kind, .codec = KVCL_OPS_BLOCK, .type = types[i]};
        add(p, out, n, c, word, types[i] == KVCL_Q8_0 ? "q8_0" : "q4_0");
    }
    add_spectral(p, out, n, kind, word);
}

size_t kvcl_ops_list(const kvcl_ops_params *p, kvcl_ops_case out[KVCL_OPS_CASES])
{
    static const kvcl_type types[] = {KVCL_F16, KVCL_Q8_0, KVCL_Q5_0, KVCL_Q4_0};
    size_t n = 0;
    add(p, out, &n, (kvcl_ops_case){.kind = KVCL_OPS_ATTEND}, "attend", "raw f16");
    add_codecs(p, out, &n, KVCL_OPS_ATTEND, "attend");
    add(p, out, &n, (kvcl_ops_case){.kind = KVCL_OPS_MERGE}, "merge", "");
    add_codecs(p, out, &n, KVCL_OPS_ENCODE, "encode");
    for (uint32_t dim = 128; dim <= 65536; dim *= dim < 4096 ? 32 : 16) {
        char what[16];
        snprintf(what, sizeof what, "%u", (unsigned)dim);
        add(p, out, &n, (kvcl_ops_case){.kind = KVCL_OPS_FWHT, .dim = dim}, "fwht", what);
    }
    add(p, out, &n, (kvcl_ops_case){.kind = KVCL_OPS_SVD}, "svd", "256 of 512x128, rank 32");
    for (size_t i = 0; i < kvcl_array_len(types); i++)
        add(p, out, &n, (kvcl_ops_case){.kind = KVCL_OPS_MATVEC, .type = types[i]}, "matvec",
            kvcl_type_name(types[i]));
    return n;
}

/* ---- running ------------------------------------------------------------------------------- */

static kvcl_view whole(kvcl_buf *buf) { return (kvcl_view){buf, 0, buf->bytes}; }

static kvcl_status attend(const kvcl_ops_rig *r, const kvcl_ops_case *c)
{
    const kvcl_ops_params *p = &r->p;
    const kvcl_attn_in in = {.q = whole(r->query),
                             .page_table = whole(r->slots),
                             .ml = whole(r->ml),
                             .o = whole(r->o),
                             .n = 1,
                             .q_stride = p->n_q_heads * p->head_dim,
                             .pos0 = p->tokens - 1,
                             .n_q_heads = p->n_q_heads,
                             .n_kv_heads = p->n_kv_heads,
                             .head_dim = p->head_dim,
                             .end = p->tokens,
                             .n_parts = kvcl_ops_parts(p),
                             .scale = 1.0f / sqrtf((float)p->head_dim)};
    if (c->codec == KVCL_OPS_RAW)
        return kvcl_op_attn_raw(r->q, &(kvcl_attn_raw_args){.in = in,
                                                            .k = whole(r->k),
                                                            .v = whole(r->v),
                                                            .type_k = KVCL_F16,
                                                            .type_v = KVCL_F16});
    if (c->codec == KVCL_OPS_BLOCK)
        return kvcl_op_attn_block(r->q, &(kvcl_attn_block_args){.in = in,
                                                                .pool = whole(r->pool),
                                                                .block_type_k = c->type,
                                                                .block_type_v = c->type});
    if (c->codec == KVCL_OPS_SPECTRAL)
        return kvcl_op_attn_spectral(r->q,
                                     &(kvcl_attn_spectral_args){.in = in,
                                                                .shape = c->spectral,
                                                                .pool = whole(r->pool),
                                                                .means = whole(r->means),
                                                                .basis = whole(r->basis),
                                                                .table = whole(r->table),
                                                                .n_rot = p->head_dim,
                                                                .pairing = KVCL_ROPE_ADJACENT});
    return kvcl_op_attn_quant(r->q, &(kvcl_attn_quant_args){.in = in,
                                                            .shape = c->shape,
                                                            .pool = whole(r->pool),
                                                            .means = whole(r->means),
                                                            .table = whole(r->table),
                                                            .n_rot = p->head_dim,
                                                            .pairing = KVCL_ROPE_ADJACENT});
}

static kvcl_status merge(const kvcl_ops_rig *r)
{
    return kvcl_op_attn_merge(
        r->q, &(kvcl_attn_merge_args){.ml = whole(r->ml),
                                      .o = whole(r->o),
                                      .out = whole(r->out),
                                      .n = 1,
                                      .pos0 = r->p.tokens - 1,
                                      .n_parts = kvcl_ops_parts(&r->p),
                                      .n_q_heads = r->p.n_q_heads,
                                      .head_dim = r->p.head_dim,
                                      .out_stride = r->p.n_q_heads * r->p.head_dim});
}

static kvcl_status encode(const kvcl_ops_rig *r, const kvcl_ops_case *c)
{
    if (c->codec == KVCL_OPS_QUANT)
        return kvcl_op_quant_enc(r->q, &(kvcl_quant_enc_args){.shape = c->shape,
                                                              .k = whole(r->k),
                                                              .v = whole(r->v),
                                                              .page_table = whole(r->slots),
                                                              .means = whole(r->means),
                                                              .pool = whole(r->pool),
                                                              .pool_table = whole(r->slots),
                                                              .bad = whole(r->bad),
                                                              .n_pages = kvcl_ops_pages(&r->p),
                                                              .type_k = KVCL_F16,
                                                              .type_v = KVCL_F16});
    if (c->codec == KVCL_OPS_SPECTRAL)
        return kvcl_op_spectral_enc(r->q,
                                    &(kvcl_spectral_enc_args){.shape = c->spectral,
                                                              .k = whole(r->k),
                                                              .v = whole(r->v),
                                                              .page_table = whole(r->slots),
                                                              .means = whole(r->means),
                                                              .basis = whole(r->basis),
                                                              .pool = whole(r->pool),
                                                              .pool_table = whole(r->slots),
                                                              .bad = whole(r->bad),
                                                              .n_pages = kvcl_ops_pages(&r->p),
                                                              .type_k = KVCL_F16,
                                                              .type_v = KVCL_F16});
    return kvcl_op_block_enc(r->q, &(kvcl_block_enc_args){.k = whole(r->k),
                                                          .v = whole(r->v),
                                                          .page_table = whole(r->slots),
                                                          .pool = whole(r->pool),
                                                          .pool_table = whole(r->slots),
                                                          .bad = whole(r->bad),
                                                          .n_pages = kvcl_ops_pages(&r->p),
                                                          .n_kv_heads = r->p.n_kv_heads,
                                                          .head_dim = r->p.head_dim,
                                                          .type_k = KVCL_F16,
                                                          .type_v = KVCL_F16,
                                                          .block_type_k = c->type,
                                                          .block_type_v = c->type});
}

static kvcl_status transform(const kvcl_ops_rig *r, uint32_t dim)
{
    return kvcl_op_fwht(r->q, &(kvcl_fwht_args){.x = whole(r->rows),
                                                .out = whole(r->turned),
                                                .n = KVCL_OPS_FWHT_VALUES / dim,
                                                .dim = dim,
                                                .stride = dim,
                                                .factor = 1.0f / 64.0f});
}

/* The products of one layer: q, k, v; output; gate and up; down. */
static kvcl_status layer(const kvcl_ops_rig *r, kvcl_mat *const *m)
{
    const kvcl_norm_spec norm = {.kind = KVCL_NORM_RMS, .eps = 1e-5f, .weight = whole(r->norm)};
    kvcl_matvec_args a = {
        .n = 1, .n_seg = 3, .x = whole(r->x), .x_stride = KVCL_OPS_WIDTH_FF, .norm = norm};
    for (uint32_t s = 0; s < 3; s++) {
        a.w[s] = m[s];
        a.out[s] = whole(r->y[s]);
        a.out_stride[s] = KVCL_OPS_WIDTH_FF;
    }
    KVCL_TRY(kvcl_op_matvec(r->q, &a));
    a.n_seg = 1;
    a.w[0] = m[3];
    a.norm = (kvcl_norm_spec){0};
    KVCL_TRY(kvcl_op_matvec(r->q, &a));
    a.w[0] = m[6];
    KVCL_TRY(kvcl_op_matvec(r->q, &a));
    a.n_seg = 2;
    a.w[0] = m[4];
    a.w[1] = m[5];
    a.norm = norm;
    a.act = KVCL_ACT_SWIGLU;
    return kvcl_op_matvec(r->q, &a);
}

static kvcl_status enqueue(const kvcl_ops_rig *r, const kvcl_ops_case *c)
{
    switch (c->kind) {
    case KVCL_OPS_ATTEND:
        return attend(r, c);
    case KVCL_OPS_MERGE:
        return merge(r);
    case KVCL_OPS_ENCODE:
        return encode(r, c);
    case KVCL_OPS_FWHT:
        return transform(r, c->dim);
    case KVCL_OPS_SVD:
        return kvcl_op_rsvd(r->q, &r->svd);
    default:
        for (uint32_t i = 0; i < r->p.n_layers; i++)
            KVCL_TRY(layer(r, r->mats + (size_t)i * KVCL_OPS_MATS));
        return KVCL_OK;
    }
}

kvcl_status kvcl_ops_prepare(kvcl_ops_rig *r, const kvcl_ops_case *c)
{
    if (c->kind == KVCL_OPS_MATVEC)
        return kvcl_ops_make_mats(r, c->type);
    if (c->kind == KVCL_OPS_SVD)
        return kvcl_ops_make_svd(r);
    if (c->codec == KVCL_OPS_SPECTRAL)
        KVCL_TRY(kvcl_ops_make_basis(r, c));
    if (c->kind == KVCL_OPS_MERGE)
        KVCL_TRY(attend(r, &(kvcl_ops_case){.codec = KVCL_OPS_RAW}));
    if (c->kind == KVCL_OPS_ATTEND && c->codec != KVCL_OPS_RAW)
        KVCL_TRY(encode(r, c));
    return kvcl_queue_wait(r->q);
}

kvcl_status kvcl_ops_run(kvcl_ops_rig *r, const kvcl_ops_case *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        KVCL_TRY(enqueue(r, c));
    return kvcl_queue_wait(r->q);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static uint64_t hash_words(const uint64_t *w, size_t n, uint64_t h)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ w[i] ^ h >> 29) * UINT64_C(0x9e3779b97f4a7c15);
    return h;
}

/* Adds up to MOST_HASHED bytes of a buffer to *h. */
static kvcl_status hash_buffer(const kvcl_ops_rig *r, const kvcl_buf *buf, size_t bytes,
                               uint64_t *h)
{
    void *p;
    bytes = kvcl_min_size(bytes, MOST_HASHED) / 8 * 8;
    KVCL_TRY(kvcl_mem_alloc(r->dev->ctx, bytes, "the comparison", &p));
    kvcl_status st = kvcl_buf_read(r->q, buf, 0, p, bytes);
    if (st == KVCL_OK)
        *h = hash_words(p, bytes / 8, *h);
    kvcl_mem_free(r->dev->ctx, p);
    return st;
}

kvcl_status kvcl_ops_hash(kvcl_ops_rig *r, const kvcl_ops_case *c, uint64_t *hash_out)
{
    uint64_t h = 1;
    switch (c->kind) {
    case KVCL_OPS_ATTEND:
        KVCL_TRY(hash_buffer(r, r->ml, r->ml->bytes, &h));
        KVCL_TRY(hash_buffer(r, r->o, r->o->bytes, &h));
        break;
    case KVCL_OPS_MERGE:
        KVCL_TRY(hash_buffer(r, r->out, r->out->bytes, &h));
        break;
    case KVCL_OPS_ENCODE:
        KVCL_TRY(
            hash_buffer(r, r->pool, kvcl_ops_pages(&r->p) * kvcl_ops_page_bytes(&r->p, c), &h));
        break;
    case KVCL_OPS_FWHT:
        KVCL_TRY(hash_buffer(r, r->turned, r->turned->bytes, &h));
        break;
    case KVCL_OPS_SVD:
        KVCL_TRY(hash_buffer(r, r->svd.u.buf, r->svd.u.bytes, &h));
        break;
    default:
        KVCL_TRY(hash_buffer(r, r->y[0], r->y[0]->bytes, &h));
        break;
    }
    *hash_out = h;
    return KVCL_OK;
}
