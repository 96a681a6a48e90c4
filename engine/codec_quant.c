/* codec_quant.c - Hadamard-rotated Lloyd-Max codes of 8, 4, 3, 2 or 1 bits.  See codec.h; the
 * arithmetic stands in ops_code.h. */
#include "codec.h"

#include <stdio.h>
#include <string.h>

static bool bits_known(uint32_t b) { return b >= 1 && b <= 8 && (b <= 4 || b == 8); }

/* A digit of `text`, which then moves on; 0 when there is none. */
static uint32_t take_digit(const char **text)
{
    char c = **text;
    if (c < '0' || c > '9')
        return 0;
    (*text)++;
    return (uint32_t)(c - '0');
}

/* "quant4", "quant-k3v2", either followed by "/pre", "/post" or "/channel". */
static bool parse(const char *name, kvcl_codec_spec *spec)
{
    static const char *const forms[] = {"pre", "post", "channel"};
    uint32_t k, v;
    if (kvcl_codec_take_word(&name, "quant-k")) {
        k = take_digit(&name);
        v = kvcl_codec_take_word(&name, "v") ? take_digit(&name) : 0;
    } else {
        if (!kvcl_codec_take_word(&name, "quant"))
            return false;
        v = k = take_digit(&name);
    }
    if (!bits_known(k) || !bits_known(v))
        return false;
    uint32_t form = 0;
    if (kvcl_codec_take_word(&name, "/"))
        while (form < 3 && strcmp(name, forms[form]) != 0)
            form++;
    else if (*name)
        return false;
    if (form == 3)
        return false;
    spec->bits_k = k, spec->bits_v = v;
    spec->form = (kvcl_quant_form)form;
    char bits[16];
    if (k == v)
        snprintf(bits, sizeof bits, "%u", k);
    else
        snprintf(bits, sizeof bits, "-k%uv%u", k, v);
    snprintf(spec->name, sizeof spec->name, "quant%s%s%s", bits, form ? "/" : "",
             form ? forms[form] : "");
    return true;
}

/* A model without rotation has one kind of keys: the form that does not turn them is the faster. */
static kvcl_quant_form form_of(const kvcl_codec_plan *p)
{
    bool turned = p->shape.pairing != KVCL_ROPE_NONE;
    return p->spec.form == KVCL_QUANT_PRE && !turned ? KVCL_QUANT_POST : p->spec.form;
}

static kvcl_quant_shape shape_of(const kvcl_codec_plan *p)
{
    return (kvcl_quant_shape){.n_kv_heads = p->shape.n_kv_heads,
                              .head_dim = p->shape.head_dim,
                              .bits_k = p->spec.bits_k,
                              .bits_v = p->spec.bits_v,
                              .form = form_of(p)};
}

static kvcl_status plan(kvcl_ctx *ctx, kvcl_codec_plan *p)
{
    KVCL_CHECK(ctx, p->shape.head_dim % 32 == 0 && p->shape.head_dim <= 256, KVCL_E_UNSUPPORTED,
               "codec %s needs a head dimension that is a multiple of 32 up to 256, not %u",
               p->spec.name, (unsigned)p->shape.head_dim);
    static const char *const names[] = {"key codes", "value codes", "key scales", "value scales"};
    kvcl_quant_shape shape = shape_of(p);
    p->pool_bytes[0] = kvcl_quant_page_bytes(&shape, p->part_bytes);
    memcpy(p->part_name, names, sizeof names);
    p->lossy = p->wants_means = true;
    p->unrotated = shape.form == KVCL_QUANT_PRE;
    return KVCL_OK;
}

static kvcl_status encode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out)
{
    return kvcl_op_quant_enc(q, &(kvcl_quant_enc_args){.shape = shape_of(p),
                                                       .k = raw->k,
                                                       .v = raw->v,
                                                       .page_table = raw->page_table,
                                                       .means = out->means,
                                                       .pool = out->pool[0],
                                                       .pool_table = out->table,
                                                       .bad = out->bad,
                                                       .first_page = raw->first_page,
                                                       .n_pages = raw->n_pages,
                                                       .n_skip = raw->n_skip,
                                                       .type_k = raw->type_k,
                                                       .type_v = raw->type_v});
}

static kvcl_status attend(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_attn_in *in)
{
    kvcl_attn_quant_args a = {.in = *in,
                              .shape = shape_of(p),
                              .pool = pages->pool[0],
                              .means = pages->means,
                              .table = pages->rope,
                              .n_rot = p->shape.n_rot,
                              .pairing = p->shape.pairing};
    a.in.page_table = pages->table;
    return kvcl_op_attn_quant(q, &a);
}

static kvcl_status decode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated)
{
    return kvcl_op_quant_dec(
        q, &(kvcl_quant_dec_args){.shape = shape_of(p),
                                  .pool = pages->pool[0],
                                  .pool_table = pages->table,
                                  .means = pages->means,
                                  .k = out->k,
                                  .v = out->v,
                                  .page_table = out->page_table,
                                  .table = unrotated ? (kvcl_view){0} : pages->rope,
                                  .first_page = out->first_page,
                                  .n_pages = out->n_pages,
                                  .n_rot = p->shape.n_rot,
                                  .pairing = p->shape.pairing,
                                  .type_k = out->type_k,
                                  .type_v = out->type_v});
}

const kvcl_codec_ops kvcl_codec_quant_ops = {.name = "quant",
                                             .parse = parse,
                                             .plan = plan,
                                             .encode = encode,
                                             .attend = attend,
                                             .decode = decode};
