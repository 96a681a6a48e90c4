/* codec_holo.c - forms of other projects, for comparison.
 *   holo    HoloKV: k tokens superposed in one slot, read by signs as published, by a linear
 *           estimate of least squared error, or spread over chips without crosstalk.  What this
 *           project makes of the idea: "superpose" (codec_spectral.c)
 *   factor  Unsloth Spectral: blocks of 512 tokens as products of coefficients and a basis of low
 *           rank.  What this project makes of it: "spectral"
 *
 * What differs from the published forms, so that they can work at all or fit into pages:
 *   holo    every token of a slot is read, by its own position; the published simulator lets a
 *           query see the tokens of its own place in the slot alone.  Slots are f16, not bf16.  It
 *           divides by the root of k in one of three ways (scores; K and V when written and the
 *           output back), which attention cannot tell apart: scores over the root of k, V whole.
 *   factor  a scale for each 32 coefficients, not one for a head's block; a block's basis is that
 *           of its rows of the prompt, later blocks have that of the last one.
 * See codec.h; the arithmetic stands in ops_holo.h. */
#include "codec.h"

#include "ctx.h"
#include "f16.h"
#include "jacobi.h"
#include "mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

static const struct {
    const char *suffix;
    kvcl_holo_form form;
    bool unscaled;
} variants[] = {{"", KVCL_HOLO_SIGNS, false},
                {"/unscaled", KVCL_HOLO_SIGNS, true},
                {"-mmse", KVCL_HOLO_MATRIX, true},
                {"-chip", KVCL_HOLO_CHIPS, true}};

/* A number of one or two digits, text moves on; 0 when there is none. */
static uint32_t take_number(const char **text)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < 2 && **text >= '0' && **text <= '9'; i++)
        n = 10 * n + (uint32_t)(*(*text)++ - '0');
    return n;
}

/* "factor-k16v32" */
static bool parse_factor(const char *name, kvcl_codec_spec *spec)
{
    uint32_t k = kvcl_codec_take_word(&name, "-k") ? take_number(&name) : 0;
    uint32_t v = kvcl_codec_take_word(&name, "v") ? take_number(&name) : 0;
    if (*name || !k || !v)
        return false;
    spec->fold = 1;
    spec->holo = KVCL_HOLO_SIDE;
    spec->rank_k = k, spec->rank_v = v;
    snprintf(spec->name, sizeof spec->name, "factor-k%uv%u", (unsigned)k, (unsigned)v);
    return true;
}

/* "holo4", "holo4/unscaled", "holo4-mmse", "holo4-chip". */
static bool parse(const char *name, kvcl_codec_spec *spec)
{
    if (kvcl_codec_take_word(&name, "factor"))
        return parse_factor(name, spec);
    if (!kvcl_codec_take_word(&name, "holo") || (*name != '2' && *name != '4' && *name != '8'))
        return false;
    spec->slot_tokens = (uint32_t)(*name++ - '0');
    for (size_t i = 0; i < kvcl_array_len(variants); i++) {
        if (strcmp(name, variants[i].suffix) != 0)
            continue;
        spec->fold = 1; /* of the moments that are learned from */
        spec->holo = variants[i].form;
        spec->unscaled = variants[i].unscaled;
        snprintf(spec->name, sizeof spec->name, "holo%u%s", (unsigned)spec->slot_tokens,
                 variants[i].suffix);
        return true;
    }
    return false;
}

/* ---- sizes --------------------------------------------------------------------------------- */

/* Signs of neighbouring channels where these are rotated together: published keys, whose signs
 * alternate, fit pairs (i, i + n_rot/2) alone. */
static kvcl_holo_shape shape_of(const kvcl_codec_plan *p)
{
    const kvcl_codec_spec *spec = &p->spec;
    kvcl_holo_shape s = {.n_kv_heads = p->shape.n_kv_heads,
                         .head_dim = p->shape.head_dim,
                         .fold = spec->slot_tokens,
                         .pair = p->shape.pairing == KVCL_ROPE_ADJACENT ? 2 : 1,
                         .form = spec->holo,
                         .type = spec->holo < KVCL_HOLO_CHIPS ? KVCL_F16 : KVCL_Q8_0,
                         .gain_k = 1.0f,
                         .gain_v = 1.0f};
    if (s.form == KVCL_HOLO_SIDE) {
        s.fold = s.head_dim / spec->rank_k, s.fold_v = s.head_dim / spec->rank_v;
        s.by_block = true;
    } else if (s.form == KVCL_HOLO_CHIPS) {
        s.gain_k = s.gain_v = 1.0f / (float)s.fold;
    } else if (!spec->unscaled) {
        s.gain_k = (float)(1.0 / sqrt((double)s.fold));
    }
    return s;
}

static bool rank_fits(uint32_t D, uint32_t rank)
{
    uint32_t fold = D / rank;
    return fold * rank == D && (fold == 2 || fold == 4 || fold == 8);
}

static kvcl_status plan(kvcl_ctx *ctx, kvcl_codec_plan *p)
{
    KVCL_CHECK(ctx, p->shape.head_dim % 32 == 0 && p->shape.head_dim <= 256, KVCL_E_UNSUPPORTED,
               "codec %s needs a head dimension that is a multiple of 32 up to 256, not %u",
               p->spec.name, (unsigned)p->shape.head_dim);
    KVCL_CHECK(ctx,
               p->spec.holo != KVCL_HOLO_SIDE || (rank_fits(p->shape.head_dim, p->spec.rank_k) &&
                                                  rank_fits(p->shape.head_dim, p->spec.rank_v)),
               KVCL_E_UNSUPPORTED,
               "codec %s: ranks are a half, a quarter or an eighth of the head dimension, %u",
               p->spec.name, (unsigned)p->shape.head_dim);
    kvcl_holo_shape shape = shape_of(p);
    KVCL_CHECK(ctx,
               shape.form >= KVCL_HOLO_CHIPS ||
                   kvcl_holo_commutes(&shape, p->shape.pairing, p->shape.n_rot),
               KVCL_E_UNSUPPORTED,
               "codec %s: signs that repeat every %u channels differ within rotary pairs that are "
               "%u apart; it needs %u rotated dimensions or a multiple, or use holo%u-chip",
               p->spec.name, (unsigned)shape.fold, (unsigned)(p->shape.n_rot / 2),
               (unsigned)(2 * shape.fold), (unsigned)shape.fold);
    p->pool_bytes[0] = kvcl_holo_page_bytes(&shape, p->part_bytes);
    p->part_name[0] = "key slots", p->part_name[1] = "value slots";
    p->basis_bytes = kvcl_holo_basis_bytes(&shape);
    p->by_block = shape.by_block;
    p->lossy = true;
    p->wants_means = p->basis_bytes > 0;
    p->unrotated = p->wants_means && p->shape.pairing != KVCL_ROPE_NONE;
    return KVCL_OK;
}

/* ---- pages --------------------------------------------------------------------------------- */

static kvcl_status encode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_raw *raw,
                          const kvcl_codec_pages *out)
{
    return kvcl_op_holo_enc(q, &(kvcl_holo_enc_args){.shape = shape_of(p),
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
    kvcl_attn_holo_args a = {.in = *in,
                             .shape = shape_of(p),
                             .pool = pages->pool[0],
                             .means = pages->means,
                             .basis = pages->basis,
                             .table = p->unrotated ? pages->rope : (kvcl_view){0},
                             .n_rot = p->shape.n_rot,
                             .pairing = p->shape.pairing};
    a.in.page_table = pages->table;
    return kvcl_op_attn_holo(q, &a);
}

static kvcl_status decode(kvcl_queue *q, const kvcl_codec_plan *p, const kvcl_codec_pages *pages,
                          const kvcl_codec_raw *out, bool unrotated)
{
    bool turned = p->unrotated && !unrotated;
    return kvcl_op_holo_dec(q, &(kvcl_holo_dec_args){.shape = shape_of(p),
                                                     .pool = pages->pool[0],
                                                     .pool_table = pages->table,
                                                     .means = pages->means,
                                                     .basis = pages->basis,
                                                     .k = out->k,
                                                     .v = out->v,
                                                     .page_table = out->page_table,
                                                     .table = turned ? pages->rope : (kvcl_view){0},
                                                     .first_page = out->first_page,
                                                     .n_pages = out->n_pages,
                                                     .n_rot = p->shape.n_rot,
                                                     .pairing = p->shape.pairing,
                                                     .type_k = out->type_k,
                                                     .type_v = out->type_v});
}

/* ---- matrices ------------------------------------------------------------------------------ */

/* Solves L x = b, then L^T x = b, in place; the lower half of l [n][n]. */
static void solve(const double *l, uint32_t n, double *x)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < i; j++)
            x[i] -= l[i * n + j] * x[j];
        x[i] /= l[i * n + i];
    }
    for (uint32_t i = n; i-- > 0;) {
        for (uint32_t j = i + 1; j < n; j++)
            x[i] -= l[j * n + i] * x[j];
        x[i] /= l[i * n + i];
    }
}

/* Cholesky's L of a [n][n], in place; false when a is not positive. */
static bool factorise(double *a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (uint32_t k = 0; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            if (i != j)
                a[i * n + j] = sum / a[j * n + j];
            else if (sum > 0.0)
                a[i * n + i] = sqrt(sum);
            else
                return false;
        }
    return true;
}

/* A head's matrix in f16; it may not overflow. */
static kvcl_status store(kvcl_ctx *ctx, const double *m, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = kvcl_f32_to_f16((float)m[i]);
        KVCL_CHECK(ctx, (out[i] & 0x7c00) != 0x7c00, KVCL_E_NOT_FINITE,
                   "codec holo: an entry of a read-out matrix is %g", m[i]);
    }
    return KVCL_OK;
}

/* Wiener's estimate of y_j from a slot S = sum of D_s y_s, D_s = diag of token s's signs, tokens
 * alike with covariance C and independent:  y_j = C D_j A^-1 S with A = sum of D_s C D_s.
 * A is k C between channels of one class and 0 elsewhere, since Walsh rows are orthogonal.  A
 * token's signs are constant in a class: so A^-1 and D_j commute and one matrix C A^-1 serves all
 * tokens.  out [i][d] = (C A^-1)[d][i]; work: 2 D^2 doubles.  A thousandth of a millionth of the
 * mean variance keeps A positive. */
static bool estimate(const kvcl_holo_shape *s, const float *gram, double *work, double *out)
{
    uint32_t D = s->head_dim, n, at[256];
    double *a = work, trace = 0.0;
    for (uint32_t d = 0; d < D; d++)
        trace += (double)gram[d * D + d];
    for (uint32_t class = 0; class < s->fold; class ++) {
        n = 0;
        for (uint32_t d = 0; d < D; d++)
            if (d / s->pair % s->fold == class)
                at[n++] = d;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++)
                a[i * n + j] = (double)s->fold * (double)gram[at[i] * D + at[j]] +
                               (i == j ? 1e-6 * (trace / (double)D) : 0.0);
        if (!factorise(a, n))
            return false;
        for (uint32_t d = 0; d < D; d++) {
            double *x = work + (size_t)D * D;
            for (uint32_t i = 0; i < n; i++)
                x[i] = (double)gram[d * D + at[i]];
            solve(a, n, x);
            for (uint32_t i = 0; i < n; i++)
                out[at[i] * D + d] = x[i];
        }
    }
    return true;
}

/* The n strongest components, rows [i][D]; work: 2 D^2 + 9 D doubles and D words. */
static bool components(uint32_t D, uint32_t n, const float *gram, double *work, double *out)
{
    uint32_t pitch = D + 8;
    double *a = work, *values = a + (size_t)D * pitch, *vectors = values + D;
    for (uint32_t i = 0; i < D; i++)
        for (uint32_t j = 0; j < D; j++)
            a[i * pitch + j] = (double)gram[i * D + j];
    if (!kvcl_jacobi(D, pitch, a, values, vectors, (uint32_t *)(void *)(vectors + (size_t)D * D)))
        return false;
    memcpy(out, vectors, (size_t)n * D * sizeof *out);
    return true;
}

static bool finite_moments(const float *gram, size_t n)
{
    bool good = true;
    for (size_t i = 0; i < n; i++)
        good = good && fabsf(gram[i]) < 1e30f;
    return good;
}

static kvcl_status learn(kvcl_ctx *ctx, const kvcl_codec_plan *p, const kvcl_codec_moments *m,
                         void *basis_out)
{
    kvcl_holo_shape s = shape_of(p);
    size_t D = s.head_dim, parts = 2 * (size_t)s.n_kv_heads;
    uint16_t *to = basis_out;
    kvcl_status st = KVCL_OK;
    void *space;
    KVCL_CHECK(ctx, finite_moments(m->gram, parts * D * D), KVCL_E_NOT_FINITE,
               "codec %s: moments of keys or values are not finite", p->spec.name);
    KVCL_TRY(kvcl_mem_array(ctx, 3 * D * D + 10 * D, sizeof(double), "a read-out matrix", &space));
    double *out = space, *work = out + D * D;
    for (size_t i = 0; i < parts && st == KVCL_OK; i++) {
        const float *gram = m->gram + i * D * D;
        uint32_t n = kvcl_holo_components(&s, i >= s.n_kv_heads);
        bool good = s.form == KVCL_HOLO_MATRIX ? estimate(&s, gram, work, out)
                                               : components(s.head_dim, n, gram, work, out);
        if (!good) /* nothing varies: whatever is read out, the mean alone counts */
            memset(out, 0, n * D * sizeof *out);
        st = store(ctx, out, n * D, to);
        to += n * D;
    }
    kvcl_mem_free(ctx, space);
    return st;
}

const kvcl_codec_ops kvcl_codec_holo_ops = {.name = "holo",
                                            .parse = parse,
                                            .plan = plan,
                                            .encode = encode,
                                            .attend = attend,
                                            .decode = decode,
                                            .learn = learn};
