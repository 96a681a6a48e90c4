/* codec_raw.c - raw pages, f16 or f32: the exact codec and the yardstick.  See codec.h. */
#include "codec.h"

#include <stdio.h>
#include <string.h>

static bool parse(const char *name, kvcl_codec_spec *spec)
{
    bool f32 = strcmp(name, "f32") == 0;
    if (!f32 && strcmp(name, "raw") != 0 && strcmp(name, "f16") != 0)
        return false;
    snprintf(spec->name, sizeof spec->name, "%s", f32 ? "f32" : "f16");
    spec->type_k = spec->type_v = f32 ? KVCL_F32 : KVCL_F16;
    return true;
}

static kvcl_status plan(kvcl_ctx *ctx, kvcl_codec_plan *p)
{
    (void)ctx;
    size_t elems = (size_t)p->shape.n_kv_heads * p->shape.head_dim * KVCL_PAGE_TOKENS;
    p->pool_bytes[0] = kvcl_type_bytes(p->spec.type_k, elems);
    p->pool_bytes[1] = kvcl_type_bytes(p->spec.type_v, elems);
    p->part_name[0] = "keys", p->part_bytes[0] = p->pool_bytes[0];
    p->part_name[1] = "values", p->part_bytes[1] = p->pool_bytes[1];
    return KVCL_OK;
}

/* Pages keep their bytes, so the types must agree. */
static kvcl_status copy(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_view src[2],
                        const int32_t *from, const kvcl_view dst[2], const int32_t *to, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (int j = 0; j < 2; j++) {
            size_t bytes = p->pool_bytes[j];
            KVCL_TRY(kvcl_buf_copy(q, dst[j].buf, dst[j].off + (size_t)to[i] * bytes, src[j].buf,
                                   src[j].off + (size_t)from[i] * bytes, bytes));
        }
    return KVCL_OK;
}

static kvcl_status encode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out)
{
    KVCL_CHECK(q->dev->ctx, raw->type_k == p->spec.type_k && raw->type_v == p->spec.type_v,
               KVCL_E_UNSUPPORTED,
               "a raw tier must have the type of the hot tier's rows (-ctk, "
               "-ctv)");
    const kvcl_view src[2] = {raw->k, raw->v};
    return copy(q, p, src, raw->slots, out->pool, out->slots, raw->n_pages);
}

static kvcl_status attend(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_attn_in *in)
{
    kvcl_attn_raw_args a = {.in = *in,
                            .k = pages->pool[0],
                            .v = pages->pool[1],
                            .type_k = p->spec.type_k,
                            .type_v = p->spec.type_v};
    a.in.page_table = pages->table;
    return kvcl_op_attn_raw(q, &a);
}

static kvcl_status decode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated)
{
    (void)unrotated;
    const kvcl_view dst[2] = {out->k, out->v};
    return copy(q, p, pages->pool, pages->slots, dst, out->slots, out->n_pages);
}

const kvcl_codec_ops kvcl_codec_raw_ops = {.name = "raw",
                                           .parse = parse,
                                           .plan = plan,
                                           .encode = encode,
                                           .attend = attend,
                                           .decode = decode};
