/* ops_spectral.c - the packed basis of a layer; the only validation of the transform code's
 * operations' arguments, then the table call. */
#include "ops_spectral.h"

#include "ops_check.h"
#include "shared.h"

#include <math.h>

#define N_PLANES 4
#define MIN_AMP 1e-10f /* of amplitudes and gains that are not 0 */
#define MAX_AMP 1e10f
#define MAX_ENTRIES (8 * KVCL_MAX_HEAD_DIM)

/* ---- sizes --------------------------------------------------------------------------------- */

size_t kvcl_spectral_page_bytes(const kvcl_spectral_shape *s, size_t parts_out[4])
{
    size_t slots = KVCL_PAGE_TOKENS / s->fold;
    parts_out[0] = s->words_k * slots * 4;
    parts_out[1] = s->words_v * slots * 4;
    parts_out[2] = parts_out[3] = s->n_kv_heads * slots * 2;
    return parts_out[0] + parts_out[1] + parts_out[2] + parts_out[3];
}

size_t kvcl_spectral_basis_bytes(const kvcl_spectral_shape *s)
{
    return (size_t)s->n_kv_heads * (kvcl_spectral_part_bytes(0, s->head_dim, s->fold) +
                                    kvcl_spectral_part_bytes(1, s->head_dim, s->fold));
}

static bool is_coded(const kvcl_spectral_part *part, uint32_t entry)
{
    return part->width[entry] != 0 && part->amp[entry] >= MIN_AMP;
}

uint32_t kvcl_spectral_words(uint32_t fold, const kvcl_spectral_part *part)
{
    uint32_t n[9] = {0}, words = 0;
    for (uint32_t e = 0; e < fold * part->n_comp; e++)
        if (is_coded(part, e))
            n[part->width[e]]++;
    for (uint32_t bits = 1; bits <= 8; bits *= 2)
        words += kvcl_div_up(n[bits] * bits, 32);
    return words;
}

/* ---- packing ------------------------------------------------------------------------------- */

static const char *name_of(uint32_t of_v) { return of_v ? "V" : "K"; }

/* The shape alone; `op` names the caller. */
static kvcl_status check_shape(kvcl_ctx *ctx, const char *op, const kvcl_spectral_shape *s)
{
    KVCL_TRY(kvcl_check_coded(ctx, op, s->n_kv_heads, s->head_dim));
    KVCL_CHECK(ctx, s->fold == 1 || s->fold == 2 || s->fold == 4 || s->fold == 8,
               KVCL_E_UNSUPPORTED, "%s: %u tokens a slot; want 1, 2, 4 or 8", op,
               (unsigned)s->fold);
    /* all codes of 8 bits, and the ends of planes */
    uint32_t most = s->n_kv_heads * (s->head_dim * s->fold / 4 + N_PLANES - 1);
    KVCL_CHECK(ctx, s->words_k >= 1 && s->words_k <= most && s->words_v >= 1 && s->words_v <= most,
               KVCL_E_UNSUPPORTED, "%s: %u and %u words of codes; want 1 to %u", op,
               (unsigned)s->words_k, (unsigned)s->words_v, (unsigned)most);
    return KVCL_OK;
}

static kvcl_status check_part(kvcl_ctx *ctx, const kvcl_spectral_shape *s, uint32_t of_v,
                              uint32_t hk, const kvcl_spectral_part *p)
{
    KVCL_CHECK(ctx, p->n_comp % 4 == 0 && p->n_comp <= s->head_dim, KVCL_E_ARG,
               "basis of %s, head %u: %u components; want a multiple of 4, at most %u",
               name_of(of_v), (unsigned)hk, (unsigned)p->n_comp, (unsigned)s->head_dim);
    for (uint32_t e = 0; e < s->fold * p->n_comp; e++) {
        uint32_t width = p->width[e];
        KVCL_CHECK(ctx, width == 0 || width == 1 || width == 2 || width == 4 || width == 8,
                   KVCL_E_ARG, "basis of %s, head %u: a code of %u bits; want 0, 1, 2, 4 or 8",
                   name_of(of_v), (unsigned)hk, (unsigned)width);
        float amp = p->amp[e], gain = fabsf(p->gain[e % p->n_comp]);
        KVCL_CHECK(ctx, amp >= 0.0f && amp <= MAX_AMP, KVCL_E_ARG,
                   "basis of %s, head %u: an amplitude of %g", name_of(of_v), (unsigned)hk,
                   (double)amp);
        KVCL_CHECK(ctx, gain == 0.0f || (gain >= MIN_AMP && gain <= MAX_AMP), KVCL_E_ARG,
                   "basis of %s, head %u: a gain of %g", name_of(of_v), (unsigned)hk, (double)gain);
    }
    KVCL_CHECK(ctx, !of_v || !p->analysis || p->analysis == p->synth, KVCL_E_ARG,
               "basis of V, head %u: another analysis than the synthesis", (unsigned)hk);
    for (uint32_t i = 0; i < p->n_comp * s->head_dim; i++)
        KVCL_CHECK(ctx, p->synth[i] != -128 && (!p->analysis || p->analysis[i] != -128), KVCL_E_ARG,
                   "basis of %s, head %u: a weight of -128; want -127 to 127", name_of(of_v),
                   (unsigned)hk);
    return KVCL_OK;
}

/* What one part becomes. */
typedef struct packer {
    const kvcl_spectral_part *part;
    uint32_t of_v, D, fold;
    unsigned char *out;
    kvcl_spectral_head head;
    uint32_t comp[KVCL_MAX_HEAD_DIM]; /* components kept, in their new order */
    double weight[MAX_ENTRIES];       /* of a level in x^, before scaling: [k][n_comp] */
    double sum[KVCL_MAX_HEAD_DIM];    /* over r of the largest of them */
} packer;

/* Weights of levels, and of components. */
static void weigh(packer *p)
{
    uint32_t n = p->part->n_comp;
    for (uint32_t i = 0; i < n; i++)
        p->sum[i] = 0.0;
    for (uint32_t e = 0; e < p->fold * n; e++) {
        p->weight[e] = 0.0;
        if (!is_coded(p->part, e))
            continue;
        double unit = (double)kvcl_spectral_unit(p->part->width[e]) * p->fold;
        p->weight[e] = (double)p->part->gain[e % n] * (double)p->part->amp[e] / unit;
        p->sum[e % n] += fabs(p->weight[e]);
    }
}

/* Components with a code, the largest first or in order. */
static void choose_components(packer *p)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < p->part->n_comp; i++) {
        bool any = false;
        for (uint32_t r = 0; r < p->fold; r++)
            any = any || is_coded(p->part, r * p->part->n_comp + i);
        if (!any)
            continue;
        uint32_t at = kept++;
        for (; !p->part->in_order && at > 0 && p->sum[p->comp[at - 1]] < p->sum[i]; at--)
            p->comp[at] = p->comp[at - 1];
        p->comp[at] = i;
    }
    p->head.n_comp = kept;
}

/* Matrix rows of the components to [D/4][D][4]. */
static void put_matrix(const packer *p, const int8_t *rows, uint32_t at)
{
    for (uint32_t i = 0; i < p->head.n_comp; i++)
        for (uint32_t d = 0; d < p->D; d++)
            p->out[at + (i / 4 * p->D + d) * 4 + i % 4] =
                (unsigned char)rows[(size_t)p->comp[i] * p->D + d];
}

/* Factors A, the quantum, the wide components. */
static void put_factors(packer *p)
{
    int16_t *factor = (int16_t *)(void *)(p->out + kvcl_spectral_factor(p->of_v, p->D, p->fold));
    double most = 0.0;
    for (uint32_t i = 0; i < p->head.n_comp; i++)
        most = p->sum[p->comp[i]] > most ? p->sum[p->comp[i]] : most;
    if (most == 0.0)
        return;
    p->head.quantum = (float)(128.0 * most / (16256.0 - p->fold));
    for (uint32_t i = 0; i < p->head.n_comp; i++) {
        int sum = 0;
        for (uint32_t r = 0; r < p->fold; r++) {
            double w = p->weight[r * p->part->n_comp + p->comp[i]];
            int a = (int)rint(128.0 / (double)p->head.quantum * w);
            factor[r * p->D + i] = (int16_t)a;
            sum += a < 0 ? -a : a;
        }
        if (sum > 127)
            p->head.n_wide = kvcl_div_up(i + 1, 4) * 4;
    }
}

/* Codes in the order of planes: where each is, and its amplitude. */
static void put_codes(packer *p)
{
    uint32_t D = p->D, n = p->part->n_comp, code = 0, word = 0;
    uint16_t *place = (uint16_t *)(void *)(p->out + kvcl_spectral_places(p->of_v, D));
    float *amp = (float *)(void *)(p->out + kvcl_spectral_amp(p->of_v, D, p->fold));
    for (uint32_t e = 0; e < p->fold * D; e++)
        place[e] = KVCL_SPECTRAL_NONE;
    for (uint32_t plane = 0; plane < N_PLANES; plane++) {
        uint32_t bits = 8u >> plane, per_word = 32 / bits, count = 0;
        p->head.plane_word[plane] = word;
        for (uint32_t e = 0; e < p->fold * p->head.n_comp; e++) {
            uint32_t r = e / p->head.n_comp, i = e % p->head.n_comp, from = r * n + p->comp[i];
            if (p->part->width[from] != bits || !is_coded(p->part, from))
                continue;
            amp[r * D + i] = p->part->amp[from];
            place[r * D + i] = (uint16_t)((word + count / per_word) << 5 |
                                          kvcl_code_shift(bits, count % per_word));
            code++;
            count++;
        }
        p->head.plane_codes[plane] = count;
        word += kvcl_div_up(count, per_word);
    }
    p->head.n_codes = code;
    p->head.n_words = word;
    p->head.inv_n = code ? (float)(1.0 / code) : 0.0f;
}

static void pack_part(packer *p)
{
    memset(p->out, 0, kvcl_spectral_part_bytes(p->of_v, p->D, p->fold));
    weigh(p);
    choose_components(p);
    put_matrix(p, p->part->synth, kvcl_spectral_synth());
    if (!p->of_v)
        put_matrix(p, p->part->analysis ? p->part->analysis : p->part->synth,
                   kvcl_spectral_analysis(0, p->D));
    put_factors(p);
    put_codes(p);
    p->head.n_comp = kvcl_div_up(p->head.n_comp, 4) * 4;
    memcpy(p->out, &p->head, sizeof p->head);
}

kvcl_status kvcl_spectral_pack(kvcl_ctx *ctx, const kvcl_spectral_shape *s,
                               const kvcl_spectral_part *parts, void *basis)
{
    _Static_assert(sizeof(kvcl_spectral_head) == KVCL_SPECTRAL_HEAD, "layout");
    KVCL_TRY(check_shape(ctx, "a spectral basis", s));
    for (uint32_t i = 0; i < 2 * s->n_kv_heads; i++)
        KVCL_TRY(check_part(ctx, s, i / s->n_kv_heads, i % s->n_kv_heads, &parts[i]));
    unsigned char *out = basis;
    for (uint32_t of_v = 0; of_v < 2; of_v++) {
        uint32_t word = 0, room = of_v ? s->words_v : s->words_k;
        for (uint32_t hk = 0; hk < s->n_kv_heads; hk++) {
            packer p = {.part = &parts[of_v * s->n_kv_heads + hk],
                        .of_v = of_v,
                        .D = s->head_dim,
                        .fold = s->fold,
                        .out = out};
            p.head.first_word = word;
            word += kvcl_spectral_words(s->fold, p.part);
            KVCL_CHECK(ctx, word <= room, KVCL_E_ARG,
                       "basis of %s: the codes up to head %u take %u words, a page has %u",
                       name_of(of_v), (unsigned)hk, (unsigned)word, (unsigned)room);
            pack_part(&p);
            out += kvcl_spectral_part_bytes(of_v, s->head_dim, s->fold);
        }
    }
    return KVCL_OK;
}

/* ---- operations ---------------------------------------------------------------------------- */

/* The shape, the basis, the means. */
static kvcl_status check_basis(const kvcl_queue *q, const char *op, const kvcl_spectral_shape *s,
                               kvcl_view basis, kvcl_view means)
{
    KVCL_TRY(check_shape(q->dev->ctx, op, s));
    KVCL_TRY(kvcl_check_view(q, op, "basis", basis, kvcl_spectral_basis_bytes(s) / 4, 4));
    return kvcl_check_means(q, op, means, s->n_kv_heads, s->head_dim, 0);
}

static kvcl_status check_join(kvcl_ctx *ctx, const char *op, const kvcl_spectral_shape *s,
                              uint32_t join)
{
    KVCL_CHECK(ctx, join <= 1 || s->head_dim % (32 * join) == 0, KVCL_E_ARG,
               "%s: %u heads joined to %u dimensions; want a multiple of 32 from each", op,
               (unsigned)join, (unsigned)s->head_dim);
    return KVCL_OK;
}

/* The same and a pool of at least one page. */
static kvcl_status check_spectral(const kvcl_queue *q, const char *op, const kvcl_spectral_shape *s,
                                  kvcl_view pool, kvcl_view basis, kvcl_view means)
{
    size_t parts[4];
    KVCL_TRY(check_basis(q, op, s, basis, means));
    return kvcl_check_view(q, op, "pool", pool, kvcl_spectral_page_bytes(s, parts) / 4, 4);
}

/* What the encoders share, an output of n_out elements of 4 bytes. */
static kvcl_status check_coded_from(const kvcl_queue *q, const char *op,
                                    const kvcl_spectral_coef_args *a, const char *what,
                                    kvcl_view out, uint64_t n_out)
{
    const kvcl_spectral_shape *s = &a->shape;
    KVCL_TRY(kvcl_check_pages(q, op, a->first_page, a->n_pages));
    KVCL_TRY(check_basis(q, op, s, a->basis, a->means));
    KVCL_TRY(check_join(q->dev->ctx, op, s, a->join));
    KVCL_CHECK(q->dev->ctx, a->n_skip < KVCL_PAGE_TOKENS, KVCL_E_ARG,
               "%s: %u tokens left out of a page; want less than 64", op, (unsigned)a->n_skip);
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, what, out, n_out, 4));
    const kvcl_view in[] = {a->k, a->v, a->page_table, a->means, a->basis};
    return kvcl_check_apart_of(q, op, out, in, kvcl_array_len(in));
}

kvcl_status kvcl_op_spectral_enc(kvcl_queue *q, const kvcl_spectral_enc_args *a)
{
    static const char op[] = "spectral_enc";
    const kvcl_spectral_coef_args from = kvcl_spectral_source(a);
    size_t parts[4];
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_shape(q->dev->ctx, op, &a->shape));
    KVCL_TRY(check_coded_from(q, op, &from, "pool", a->pool,
                              kvcl_spectral_page_bytes(&a->shape, parts) / 4));
    KVCL_TRY(
        check_coded_from(q, op, &from, "bad", a->bad, (uint64_t)a->n_pages * a->shape.n_kv_heads));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_apart(q, op, a->pool, a->pool_table));
    KVCL_TRY(kvcl_check_apart(q, op, a->bad, a->pool_table));
    KVCL_TRY(kvcl_check_apart(q, op, a->bad, a->pool));
    return q->dev->ops.spectral_enc(q, a);
}

kvcl_status kvcl_op_spectral_dec(kvcl_queue *q, const kvcl_spectral_dec_args *a)
{
    static const char op[] = "spectral_dec";
    const kvcl_spectral_shape *s = &a->shape;
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_check_pages(q, op, a->first_page, a->n_pages));
    KVCL_TRY(check_spectral(q, op, s, a->pool, a->basis, a->means));
    KVCL_TRY(check_join(q->dev->ctx, op, s, a->join));
    if (a->table.buf)
        KVCL_TRY(kvcl_check_turning(q, op, kvcl_spectral_raw_dim(s, a->join), a->pairing, a->n_rot,
                                    a->table, (a->first_page + a->n_pages) * KVCL_PAGE_TOKENS));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "k", a->k, a->type_k, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_raw_pool(q, op, "v", a->v, a->type_v, s->n_kv_heads, s->head_dim));
    KVCL_TRY(kvcl_check_view(q, op, "page table", a->page_table, a->n_pages, sizeof(int32_t)));
    KVCL_TRY(kvcl_check_view(q, op, "pool table", a->pool_table, a->n_pages, sizeof(int32_t)));
    const kvcl_view in[] = {a->pool, a->page_table, a->pool_table, a->means, a->basis, a->table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->k, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->v, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart(q, op, a->k, a->v));
    return q->dev->ops.spectral_dec(q, a);
}

kvcl_status kvcl_op_spectral_coef(kvcl_queue *q, const kvcl_spectral_coef_args *a)
{
    static const char op[] = "spectral_coef";
    if (a->n_pages == 0)
        return KVCL_OK;
    KVCL_TRY(check_shape(q->dev->ctx, op, &a->shape));
    uint64_t words = a->shape.words_k + a->shape.words_v;
    KVCL_TRY(check_coded_from(q, op, a, "coefs", a->coefs,
                              a->n_pages * words * (KVCL_PAGE_TOKENS / a->shape.fold) * 4));
    return q->dev->ops.spectral_coef(q, a);
}

kvcl_status kvcl_op_attn_spectral(kvcl_queue *q, const kvcl_attn_spectral_args *a)
{
    static const char op[] = "attn_spectral";
    const kvcl_spectral_shape *s = &a->shape;
    if (kvcl_attn_in_empty(&a->in))
        return KVCL_OK;
    KVCL_TRY(kvcl_check_attn_coded(q, op, &a->in, s->n_kv_heads, s->head_dim));
    uint32_t last_page = (a->in.end - 1) / KVCL_PAGE_TOKENS;
    KVCL_TRY(check_spectral(q, op, s, a->pool, a->basis, a->means));
    KVCL_TRY(kvcl_check_turning(q, op, s->head_dim, a->pairing, a->n_rot, a->table,
                                kvcl_max_u32(last_page * KVCL_PAGE_TOKENS + 1, KVCL_PAGE_TOKENS)));
    const kvcl_view in[] = {a->pool, a->means, a->basis, a->table};
    KVCL_TRY(kvcl_check_apart_of(q, op, a->in.ml, in, kvcl_array_len(in)));
    KVCL_TRY(kvcl_check_apart_of(q, op, a->in.o, in, kvcl_array_len(in)));
    return q->dev->ops.attn_spectral(q, a);
}
