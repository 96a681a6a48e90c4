/* codec_spectral.c - the transform codes: rows in a basis of the sequence's own, a width in bits
 * for each coefficient ("spectral"), also of several tokens' Walsh sums ("superpose").  See
 * codec.h; the arithmetic stands in ops_spectral.h, the fit in spectral_fit.h. */
#include "codec.h"

#include "ctx.h"
#include "shared.h"
#include "spectral_fit.h"

#include <stdio.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

#define QUARTER_BITS_MAX 32u

/* A number of bits with at most two decimals, a multiple of a quarter, as quarters; text moves on.
 * 0 when there is none such. */
static uint32_t take_quarters(const char **text)
{
    static const struct {
        const char *text;
        uint32_t quarters;
    } fractions[] = {{".25", 1}, {".75", 3}, {".5", 2}};
    char c = **text;
    if (c < '0' || c > '8')
        return 0;
    (*text)++;
    uint32_t q = 4 * (uint32_t)(c - '0');
    for (size_t i = 0; i < kvcl_array_len(fractions); i++)
        if (kvcl_codec_take_word(text, fractions[i].text))
            return q + fractions[i].quarters;
    return q;
}

typedef struct bits_text {
    char text[6];
} bits_text;

static bits_text text_of(uint32_t quarters)
{
    static const char fractions[4][4] = {"", ".25", ".5", ".75"};
    bits_text t = {{(char)('0' + quarters / 4 % 10)}};
    memcpy(t.text + 1, fractions[quarters % 4], sizeof fractions[0]);
    return t;
}

/* "spectral2", "spectral-k3v2.5"; "superpose4-2", "superpose4-k3v2". */
static bool parse(const char *name, kvcl_codec_spec *spec)
{
    uint32_t fold = 1;
    bool super = kvcl_codec_take_word(&name, "superpose");
    if (super) {
        fold = (uint32_t)(*name - '0');
        if (fold != 2 && fold != 4 && fold != 8)
            return false;
        name++;
        if (*name != '-')
            return false;
        name += name[1] != 'k';
    } else if (!kvcl_codec_take_word(&name, "spectral")) {
        return false;
    }
    uint32_t k, v;
    if (kvcl_codec_take_word(&name, "-k")) {
        k = take_quarters(&name);
        v = kvcl_codec_take_word(&name, "v") ? take_quarters(&name) : 0;
    } else {
        v = k = take_quarters(&name);
    }
    if (*name || !k || !v || k > QUARTER_BITS_MAX || v > QUARTER_BITS_MAX)
        return false;
    spec->fold = fold, spec->bits_k = k, spec->bits_v = v;
    static const char *const families[] = {"spectral", "superpose2", "superpose4", "superpose8"};
    const char *family = families[fold == 8 ? 3 : fold / 2];
    if (k == v)
        snprintf(spec->name, sizeof spec->name, "%s%s%s", family, super ? "-" : "",
                 text_of(k).text);
    else
        snprintf(spec->name, sizeof spec->name, "%s-k%sv%s", family, text_of(k).text,
                 text_of(v).text);
    return true;
}

/* ---- sizes --------------------------------------------------------------------------------- */

static uint32_t words_of(const kvcl_codec_plan *p, uint32_t quarters)
{
    return kvcl_div_up(quarters * p->spec.fold * p->shape.n_kv_heads * p->shape.head_dim, 4 * 32);
}

static kvcl_spectral_shape shape_of(const kvcl_codec_plan *p)
{
    return (kvcl_spectral_shape){.n_kv_heads = p->shape.n_kv_heads,
                                 .head_dim = p->shape.head_dim,
                                 .fold = p->spec.fold,
                                 .words_k = words_of(p, p->spec.bits_k),
                                 .words_v = words_of(p, p->spec.bits_v)};
}

static kvcl_status plan(kvcl_ctx *ctx, kvcl_codec_plan *p)
{
    KVCL_CHECK(ctx, p->shape.head_dim % 32 == 0 && p->shape.head_dim <= 256, KVCL_E_UNSUPPORTED,
               "codec %s needs a head dimension that is a multiple of 32 up to 256, not %u",
               p->spec.name, (unsigned)p->shape.head_dim);
    static const char *const names[] = {"key codes", "value codes", "key norms", "value norms"};
    kvcl_spectral_shape shape = shape_of(p);
    p->pool_bytes[0] = kvcl_spectral_page_bytes(&shape, p->part_bytes);
    p->basis_bytes = kvcl_spectral_basis_bytes(&shape);
    memcpy(p->part_name, names, sizeof names);
    p->lossy = p->wants_means = p->one_mean = true;
    p->unrotated = p->shape.pairing != KVCL_ROPE_NONE;
    return KVCL_OK;
}

/* ---- pages ---------------------------------------------------------------------------------- */

static kvcl_status encode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out)
{
    return kvcl_op_spectral_enc(q, &(kvcl_spectral_enc_args){.shape = shape_of(p),
                                                             .k = raw->k,
                                                             .v = raw->v,
                                                             .page_table = raw->page_table,
                                                             .means = out->means,
                                                             .basis = out->basis,
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
    kvcl_attn_spectral_args a = {.in = *in,
                                 .shape = shape_of(p),
                                 .pool = pages->pool[0],
                                 .means = pages->means,
                                 .basis = pages->basis,
                                 .table = pages->rope,
                                 .n_rot = p->shape.n_rot,
                                 .pairing = p->shape.pairing};
    a.in.page_table = pages->table;
    return kvcl_op_attn_spectral(q, &a);
}

static kvcl_status decode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated)
{
    return kvcl_op_spectral_dec(
        q, &(kvcl_spectral_dec_args){.shape = shape_of(p),
                                     .pool = pages->pool[0],
                                     .pool_table = pages->table,
                                     .means = pages->means,
                                     .basis = pages->basis,
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

/* ---- basis ---------------------------------------------------------------------------------- */

/* Tokens to come are not like those of the fit: the fewer it saw, the more it leaves to directions
 * that it did not see.  Of 1,024 tokens .1 for keys and .3 for values is best, of 8,192 hardly
 * anything; with "/firstN", where most tokens come later, half of that however many these are
 * (bench/JOURNAL.md). */
static double shrink(double of_1024, uint32_t n_tokens, bool first)
{
    double ratio = 1024.0 / (double)n_tokens, part = of_1024 * ratio * ratio;
    if (first)
        part = 0.5 * (part > of_1024 ? part : of_1024);
    return part < 1.0 ? part : 1.0;
}

static kvcl_status learn(kvcl_ctx *ctx, const kvcl_codec_plan *p, const kvcl_codec_moments *m,
                         void *basis_out)
{
    kvcl_spectral_shape shape = shape_of(p);
    uint32_t n_tokens = m->n_slots * p->spec.fold;
    kvcl_spectral_moments moments = {.pages = m->gram,
                                     .queries = m->metric,
                                     .n_slots = m->n_slots,
                                     .metric = m->table ? KVCL_METRIC_SPAN : KVCL_METRIC_RAW,
                                     .pairing = p->shape.pairing,
                                     .n_rot = p->shape.n_rot,
                                     .table = m->table,
                                     .n_span = m->n_span,
                                     .shrink = {shrink(.1, n_tokens, p->spec.first > 0),
                                                shrink(.3, n_tokens, p->spec.first > 0)}};
    kvcl_spectral_fit fit;
    KVCL_TRY(kvcl_spectral_fit_make(ctx, &shape, &moments, ctx->n_threads, &fit));
    kvcl_status st = kvcl_spectral_pack(ctx, &shape, fit.parts, basis_out);
    kvcl_spectral_fit_free(ctx, &fit);
    return st;
}

const kvcl_codec_ops kvcl_codec_spectral_ops = {.name = "spectral",
                                                .parse = parse,
                                                .plan = plan,
                                                .encode = encode,
                                                .attend = attend,
                                                .decode = decode,
                                                .learn = learn};
