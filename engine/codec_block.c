/* codec_block.c - llama.cpp's q8_0 and q4_0 rows, for comparison.  See codec.h, ops_code.h. */
#include "codec.h"

#include "types.h"

#include <stdio.h>
#include <string.h>

static bool parse(const char *name, kvcl_codec_spec *spec)
{
    bool q8 = strcmp(name, "q8_0") == 0;
    if (!q8 && strcmp(name, "q4_0") != 0)
        return false;
    snprintf(spec->name, sizeof spec->name, "%s", name);
    spec->type_k = spec->type_v = q8 ? KVCL_Q8_0 : KVCL_Q4_0;
    return true;
}

static kvcl_status plan(kvcl_ctx *ctx, kvcl_codec_plan *p)
{
    const kvcl_kv_shape *s = &p->shape;
    KVCL_CHECK(ctx, s->head_dim % KVCL_QK == 0, KVCL_E_UNSUPPORTED,
               "codec %s needs a head dimension that is a multiple of 32, not %u", p->spec.name,
               (unsigned)s->head_dim);
    size_t rows = (size_t)s->n_kv_heads * KVCL_PAGE_TOKENS;
    p->part_name[0] = "keys", p->part_name[1] = "values";
    p->part_bytes[0] = rows * kvcl_type_bytes(p->spec.type_k, s->head_dim);
    p->part_bytes[1] = rows * kvcl_type_bytes(p->spec.type_v, s->head_dim);
    p->pool_bytes[0] =
        kvcl_block_page_bytes(s->n_kv_heads, s->head_dim, p->spec.type_k, p->spec.type_v);
    p->lossy = true;
    return KVCL_OK;
}

static kvcl_status encode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out)
{
    return kvcl_op_block_enc(q, &(kvcl_block_enc_args){.k = raw->k,
                                                       .v = raw->v,
                                                       .page_table = raw->page_table,
                                                       .pool = out->pool[0],
                                                       .pool_table = out->table,
                                                       .bad = out->bad,
                                                       .n_pages = raw->n_pages,
                                                       .n_kv_heads = p->shape.n_kv_heads,
                                                       .head_dim = p->shape.head_dim,
                                                       .type_k = raw->type_k,
                                                       .type_v = raw->type_v,
                                                       .block_type_k = p->spec.type_k,
                                                       .block_type_v = p->spec.type_v});
}

static kvcl_status attend(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_attn_in *in)
{
    kvcl_attn_block_args a = {.in = *in,
                              .pool = pages->pool[0],
                              .block_type_k = p->spec.type_k,
                              .block_type_v = p->spec.type_v};
    a.in.page_table = pages->table;
    return kvcl_op_attn_block(q, &a);
}

static kvcl_status decode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated)
{
    (void)unrotated;
    return kvcl_op_block_dec(q, &(kvcl_block_dec_args){.pool = pages->pool[0],
                                                       .pool_table = pages->table,
                                                       .k = out->k,
                                                       .v = out->v,
                                                       .page_table = out->page_table,
                                                       .n_pages = out->n_pages,
                                                       .n_kv_heads = p->shape.n_kv_heads,
                                                       .head_dim = p->shape.head_dim,
                                                       .type_k = out->type_k,
                                                       .type_v = out->type_v,
                                                       .block_type_k = p->spec.type_k,
                                                       .block_type_v = p->spec.type_v});
}

const kvcl_codec_ops kvcl_codec_block_ops = {.name = "block",
                                             .parse = parse,
                                             .plan = plan,
                                             .encode = encode,
                                             .attend = attend,
                                             .decode = decode};
