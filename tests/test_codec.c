/* test_codec.c - the five laws of engine/codec.h, for every codec on every row of the device table.
 *
 *   1. attend(coded) = attn_raw(decode(coded)): to the bit where both are the same arithmetic (raw,
 *      block, rest), near where the codes are attended without decoding them (quant, spectral)
 *   2. the bytes written, all of them and no others, are those that plan() said
 *   3. encode and attend give the bytes of the scalar twins
 *   4. the error that kv_error reports is that of the decoded page
 *   5. pages that were read back, kept in a file and written elsewhere answer with the same bits */
#include "bases.h"
#include "codec.h"

#include "f16.h"
#include "shared.h"
#include "types.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Three models: rotated keys of both kinds, and none. */
static const kvcl_kv_shape shapes[] = {
    {4, 2, 64, 64, KVCL_ROPE_HALVES, 0.125f},
    {3, 3, 96, 40, KVCL_ROPE_ADJACENT, 0.1f},
    {2, 2, 32, 0, KVCL_ROPE_NONE, 0.2f},
};

/* Tokens 390 to 640: pages 6 to 9, blocks and epochs 0 and 1; the last queries see them all. */
static const test_region regions[kvcl_array_len(shapes)] = {
    {64, 2, 2, 3, 638, 390, 640, 0, 0, 0},
    {96, 3, 1, 1, 700, 384, 640, 1, 1, 0},
    {32, 2, 1, 20, 620, 390, 640, 0, 1, 3},
};

typedef struct rig {
    test_run r;
    kvcl_codec_plan plan;
    test_attn attn;    /* its slots: of the coded pages */
    kvcl_view work[2]; /* of encode, of attend and decode */
    int32_t *raw_slots;
    float *k, *v; /* what encode got */
    size_t page_elems;
    kvcl_codec_raw raw;
    kvcl_codec_pages coded;
} rig;

/* The pages of one run, in order, and the partials: what all rows must agree on. */
typedef struct answer {
    unsigned char *pages, *ml, *o;
    size_t page_bytes, ml_bytes, o_bytes;
} answer;

static void answer_free(answer *a)
{
    free(a->pages);
    free(a->ml);
    free(a->o);
}

static void *copy_of(const void *p, size_t bytes)
{
    void *out = malloc(bytes);
    test_true(out != NULL);
    memcpy(out, p, bytes);
    return out;
}

/* ---- a run --------------------------------------------------------------------------------- */

static void make_raw(rig *g)
{
    const kvcl_kv_shape *s = &g->plan.shape;
    test_run *r = &g->r;
    kvcl_codec_raw *raw = &g->raw;
    bool f32 = g->plan.spec.ops == &kvcl_codec_raw_ops && g->plan.spec.type_k == KVCL_F32;
    raw->first_page = g->attn.first_page;
    raw->n_pages = g->attn.n_pages;
    raw->type_k = raw->type_v = f32 ? KVCL_F32 : KVCL_F16;
    g->page_elems = (size_t)s->n_kv_heads * s->head_dim * KVCL_PAGE_TOKENS;
    g->k = test_gauss(r, raw->n_pages * g->page_elems, 1.0f);
    g->v = test_gauss(r, raw->n_pages * g->page_elems, 1.0f);
    g->raw_slots = test_slots(r, raw->n_pages);
    raw->slots = g->raw_slots;
    raw->page_table = test_in(r, raw->slots, raw->n_pages * sizeof(int32_t));
    raw->k = test_raw_pool(r, raw->type_k, raw->slots, raw->n_pages, g->page_elems, g->k);
    raw->v = test_raw_pool(r, raw->type_v, raw->slots, raw->n_pages, g->page_elems, g->v);
}

/* Pools for coded pages, filled with `fill`. */
static void make_pools(rig *g, int fill, kvcl_view out[2])
{
    for (int i = 0; i < 2; i++) {
        size_t bytes = (g->raw.n_pages + 1) * g->plan.pool_bytes[i];
        void *image = test_mem(&g->r, bytes);
        memset(image, fill, bytes);
        out[i] = bytes ? test_inout(&g->r, image, bytes) : (kvcl_view){0};
    }
}

/* The basis of a codec that learns one; the second shape has a metric, too. */
static kvcl_view make_basis(rig *g, size_t i_shape)
{
    const kvcl_kv_shape *s = &g->plan.shape;
    uint32_t last = (g->raw.first_page + g->raw.n_pages - 1) / KVCL_BLOCK_PAGES;
    uint32_t n = g->plan.by_block ? last + 1 : 1;
    unsigned char *basis = test_mem(&g->r, n * g->plan.basis_bytes);
    kvcl_codec_moments m = {.n_slots = 200};
    if (i_shape == 1)
        m.metric = test_moments(&g->r, s->n_kv_heads, s->head_dim, 300);
    uint32_t join = kvcl_codec_join(&g->plan);
    for (uint32_t i = 0; i < n; i++) {
        m.gram = test_moments(&g->r, 2 * s->n_kv_heads / join * g->plan.spec.fold,
                              s->head_dim * join, 200);
        test_ok(&g->r, g->plan.spec.ops->learn(g->r.d->ctx, &g->plan, &m,
                                               basis + i * g->plan.basis_bytes));
    }
    return test_in(&g->r, basis, n * g->plan.basis_bytes);
}

static void begin(rig *g, test_dev *d, const char *name, size_t i_shape)
{
    const kvcl_kv_shape *s = &shapes[i_shape];
    kvcl_codec_spec spec;
    char factor[KVCL_CODEC_NAME_CAP];
    if (strncmp(name, "factor", 6) == 0) { /* ranks that every head dimension here has */
        snprintf(factor, sizeof factor, "factor-k%uv%u", (unsigned)s->head_dim / 8,
                 (unsigned)s->head_dim / 4);
        name = factor;
    }
    memset(g, 0, sizeof *g);
    test_run_begin(&g->r, d, test_seed() + i_shape);
    test_ok(&g->r, kvcl_codec_parse(d->ctx, name, &spec));
    test_ok(&g->r, kvcl_codec_plan_make(d->ctx, &spec, s, &g->plan));
    g->attn = test_attn_make(&g->r, &regions[i_shape]);
    g->attn.in.scale = s->scale;
    make_raw(g);
    kvcl_codec_pages *c = &g->coded;
    c->slots = g->attn.slots;
    c->table = test_in(&g->r, c->slots, g->raw.n_pages * sizeof(int32_t));
    c->bad = test_out(&g->r, (size_t)g->raw.n_pages * s->n_kv_heads * sizeof(int32_t));
    if (g->plan.wants_means) {
        size_t epochs = g->plan.one_mean ? 1 : KVCL_MEAN_EPOCHS;
        size_t n = epochs * 2 * s->n_kv_heads * s->head_dim;
        c->means = test_in(&g->r, test_floats(&g->r, n, 0.5f), n * sizeof(float));
    }
    if (g->plan.basis_bytes)
        c->basis = make_basis(g, i_shape);
    if (g->plan.table_bytes)
        test_codec_work(&g->r, &g->plan, &g->coded, g->work);
    if (s->pairing != KVCL_ROPE_NONE) {
        uint32_t n_rows = (g->raw.first_page + g->raw.n_pages) * KVCL_PAGE_TOKENS;
        c->rope = test_in(&g->r, test_rope_table(&g->r, n_rows, s->n_rot),
                          (size_t)n_rows * s->n_rot * sizeof(float));
    }
    make_pools(g, 0x5a, c->pool);
}

static void encode(rig *g)
{
    g->coded.work = g->work[0];
    test_ok(&g->r, g->plan.spec.ops->encode(g->r.d->q, &g->plan, &g->raw, &g->coded));
}

static void attend(rig *g, const kvcl_codec_pages *pages, const kvcl_attn_in *in)
{
    kvcl_codec_pages with = *pages;
    with.work = g->work[1];
    test_ok(&g->r, g->plan.spec.ops->attend(g->r.d->q, &g->plan, &with, in));
}

/* Raw pages, in the slots of the coded ones. */
static kvcl_codec_raw decode(rig *g, bool unrotated)
{
    const kvcl_codec_ops *ops = g->plan.spec.ops; /* (pages at rest are attended as raw ones) */
    bool same = ops == &kvcl_codec_raw_ops || ops == &kvcl_codec_rest_ops;
    kvcl_codec_raw out = g->raw;
    out.type_k = out.type_v = same ? g->raw.type_k : KVCL_F32;
    out.slots = g->coded.slots;
    out.page_table = g->coded.table;
    out.k = test_out(&g->r, (out.n_pages + 1) * kvcl_type_bytes(out.type_k, g->page_elems));
    out.v = test_out(&g->r, out.k.bytes);
    g->coded.work = g->work[1];
    test_ok(&g->r, g->plan.spec.ops->decode(g->r.d->q, &g->plan, &g->coded, &out, unrotated));
    return out;
}

/* The coded pages one after the other, each from all its pools. */
static unsigned char *pages_of(rig *g, const kvcl_view pool[2])
{
    unsigned char *out = malloc(g->raw.n_pages * g->plan.page_bytes), *at = out;
    test_true(out != NULL);
    for (uint32_t i = 0; i < g->raw.n_pages; i++) {
        for (int j = 0; j < 2; j++) {
            size_t bytes = g->plan.pool_bytes[j];
            if (bytes == 0)
                continue;
            memcpy(at,
                   (const unsigned char *)test_bytes(&g->r, pool[j]) +
                       (size_t)g->coded.slots[i] * bytes,
                   bytes);
            at += bytes;
        }
    }
    return out;
}

/* ---- laws ---------------------------------------------------------------------------------- */

static void check_close(const rig *g, const float *ml, const float *o, const float *want_ml,
                        const float *want_o, size_t n)
{
    uint32_t dim = g->plan.shape.head_dim;
    for (size_t i = 0; i < n; i++) {
        const float *a = ml + 2 * i, *b = want_ml + 2 * i;
        if (kvcl_f32_bits(b[0]) == 0xa5a5a5a5u) { /* sees nothing: not written */
            test_true(kvcl_f32_bits(a[0]) == 0xa5a5a5a5u);
            continue;
        }
        test_close((double)a[0], (double)b[0], 1.5e-3, "m", i);
        test_close((double)a[0] + log((double)a[1]), (double)b[0] + log((double)b[1]), 1.5e-3, "l",
                   i);
        for (uint32_t e = 0; e < dim; e++)
            test_close((double)(o[i * dim + e] / a[1]), (double)(want_o[i * dim + e] / b[1]),
                       1.5e-3, "o", e);
    }
}

static void law_1(rig *g)
{
    kvcl_codec_raw x = decode(g, false);
    kvcl_attn_raw_args a = {.in = g->attn.in, .k = x.k, .v = x.v};
    a.in.page_table = g->coded.table;
    a.in.ml = test_out(&g->r, g->attn.in.ml.bytes);
    a.in.o = test_out(&g->r, g->attn.in.o.bytes);
    a.type_k = a.type_v = x.type_k;
    test_ok(&g->r, kvcl_op_attn_raw(g->r.d->q, &a));
    test_wait(&g->r);
    const float *ml = test_values(&g->r, g->attn.in.ml), *o = test_values(&g->r, g->attn.in.o);
    const float *want_ml = test_values(&g->r, a.in.ml), *want_o = test_values(&g->r, a.in.o);
    if (g->plan.spec.ops == &kvcl_codec_quant_ops || g->plan.spec.ops == &kvcl_codec_spectral_ops) {
        check_close(g, ml, o, want_ml, want_o, a.in.ml.bytes / 8);
        return;
    }
    test_require(memcmp(ml, want_ml, a.in.ml.bytes) == 0 && memcmp(o, want_o, a.in.o.bytes) == 0,
                 "%s on %s: attend is not attention over the decoded pages", g->plan.spec.name,
                 g->r.d->row);
}

/* The same pages into pools of another content: every byte of a page is written, no other. */
static void law_2(rig *g, const unsigned char *pages)
{
    size_t parts = 0;
    for (int i = 0; i < KVCL_CODEC_PARTS; i++)
        parts += g->plan.part_bytes[i];
    test_true(parts == g->plan.page_bytes);
    test_true(g->plan.page_bytes == g->plan.pool_bytes[0] + g->plan.pool_bytes[1]);
    kvcl_view pool[2] = {g->coded.pool[0], g->coded.pool[1]};
    make_pools(g, 0xc3, g->coded.pool);
    encode(g);
    test_wait(&g->r);
    unsigned char *again = pages_of(g, g->coded.pool);
    test_require(memcmp(again, pages, g->raw.n_pages * g->plan.page_bytes) == 0,
                 "%s on %s: bytes of a page that encode does not write", g->plan.spec.name,
                 g->r.d->row);
    free(again);
    size_t spare = (size_t)g->coded.slots[g->raw.n_pages];
    for (int j = 0; j < 2; j++) {
        const unsigned char *at = pool[j].buf ? test_bytes(&g->r, pool[j]) : NULL;
        for (size_t i = 0; at && i < g->plan.pool_bytes[j]; i++)
            test_true(at[spare * g->plan.pool_bytes[j] + i] == 0x5a);
    }
}

/* Sums over one head of one page: (x - y)^2 and x^2, in double precision. */
static void measure(rig *g, const float *x, const kvcl_codec_raw *y, kvcl_view pool, kvcl_type type,
                    uint32_t i, double out[2])
{
    uint32_t heads = g->plan.shape.n_kv_heads;
    size_t n = g->page_elems / heads, slot = (size_t)y->slots[i / heads];
    out[0] = out[1] = 0.0;
    for (size_t e = 0; e < n; e++) {
        double a = (double)x[i * n + e];
        double b = (double)test_raw_value(&g->r, pool, type, (slot * heads + i % heads) * n + e);
        out[0] += (a - b) * (a - b);
        out[1] += a * a;
    }
}

static void law_4(rig *g)
{
    kvcl_codec_raw y = decode(g, g->plan.unrotated);
    uint32_t n = g->raw.n_pages * g->plan.shape.n_kv_heads;
    kvcl_kv_error_args a = {.k = g->raw.k, .v = g->raw.v, .ka = y.k, .va = y.v};
    a.page_table = g->raw.page_table;
    a.page_table_a = y.page_table;
    a.err = test_out(&g->r, n * 4 * sizeof(float));
    a.n_pages = g->raw.n_pages;
    a.n_kv_heads = g->plan.shape.n_kv_heads;
    a.head_dim = g->plan.shape.head_dim;
    a.type_k = g->raw.type_k;
    a.type_v = g->raw.type_v;
    a.type_ka = y.type_k;
    a.type_va = y.type_v;
    test_ok(&g->r, kvcl_op_kv_error(g->r.d->q, &a));
    test_wait(&g->r);
    for (uint32_t i = 0; i < n; i++) {
        const float *err = test_values(&g->r, a.err) + 4 * (size_t)i;
        double want[4];
        measure(g, g->k, &y, y.k, y.type_k, i, want);
        measure(g, g->v, &y, y.v, y.type_v, i, want + 2);
        for (uint32_t j = 0; j < 4; j++)
            test_close((double)err[j], want[j], 1e-5 * want[j], "error", i * 4 + j);
    }
}

/* Pages of the scalar twins' run in other slots of other pools of this row. */
static void law_5(rig *g, const answer *want)
{
    uint32_t n = g->raw.n_pages;
    kvcl_codec_pages moved = g->coded;
    int32_t *slots = test_slots(&g->r, n);
    unsigned char *image[2], *from = test_mem(&g->r, want->page_bytes);
    test_through_file(&g->r, want->pages, want->page_bytes, from);
    for (int j = 0; j < 2; j++)
        image[j] = test_mem(&g->r, (n + 1) * g->plan.pool_bytes[j]);
    for (uint32_t i = 0; i < n; i++) {
        for (int j = 0; j < 2; j++) {
            size_t bytes = g->plan.pool_bytes[j];
            memcpy(image[j] + (size_t)slots[i] * bytes, from, bytes);
            from += bytes;
        }
    }
    for (int j = 0; j < 2; j++)
        if (g->plan.pool_bytes[j])
            moved.pool[j] = test_in(&g->r, image[j], (n + 1) * g->plan.pool_bytes[j]);
    moved.slots = slots;
    moved.table = test_in(&g->r, slots, n * sizeof(int32_t));
    kvcl_attn_in in = g->attn.in;
    in.ml = test_out(&g->r, in.ml.bytes);
    in.o = test_out(&g->r, in.o.bytes);
    attend(g, &moved, &in);
    test_wait(&g->r);
    test_require(memcmp(test_bytes(&g->r, in.ml), want->ml, want->ml_bytes) == 0 &&
                     memcmp(test_bytes(&g->r, in.o), want->o, want->o_bytes) == 0,
                 "%s on %s: pages that were moved answer otherwise", g->plan.spec.name,
                 g->r.d->row);
}

static void check_bad(rig *g)
{
    const int32_t *bad = test_bytes(&g->r, g->coded.bad);
    for (uint32_t i = 0; g->plan.lossy && i < g->raw.n_pages * g->plan.shape.n_kv_heads; i++)
        test_require(bad[i] == KVCL_PAGE_TOKENS, "%s: a good page is called bad",
                     g->plan.spec.name);
    if (g->coded.fault.buf)
        test_require(*(const uint32_t *)test_bytes(&g->r, g->coded.fault) == 0,
                     "%s: a whole page is called damaged", g->plan.spec.name);
}

/* Runs a codec on a row; fills *out, and checks it against `want` (law 3) when there is one. */
static void run(test_dev *d, const char *name, size_t i_shape, const answer *want, answer *out)
{
    rig g;
    begin(&g, d, name, i_shape);
    encode(&g);
    attend(&g, &g.coded, &g.attn.in);
    test_wait(&g.r);
    check_bad(&g);
    out->pages = pages_of(&g, g.coded.pool);
    out->page_bytes = g.raw.n_pages * g.plan.page_bytes;
    out->ml_bytes = g.attn.in.ml.bytes;
    out->o_bytes = g.attn.in.o.bytes;
    out->ml = copy_of(test_bytes(&g.r, g.attn.in.ml), out->ml_bytes);
    out->o = copy_of(test_bytes(&g.r, g.attn.in.o), out->o_bytes);
    if (!test_more_threads(d)) { /* the same bits (law 3) obey these laws */
        law_1(&g);
        law_2(&g, out->pages);
        law_4(&g);
    }
    if (want) {
        test_require(memcmp(out->pages, want->pages, want->page_bytes) == 0,
                     "%s on %s: other pages than the scalar twins'", name, d->row);
        test_require(memcmp(out->ml, want->ml, want->ml_bytes) == 0 &&
                         memcmp(out->o, want->o, want->o_bytes) == 0,
                     "%s on %s: other partials than the scalar twins'", name, d->row);
        law_5(&g, want);
    }
    test_run_end(&g.r);
}

/* ---- every codec --------------------------------------------------------------------------- */

#define N_FORMS 3
#define N_BITS 7

static size_t n_names(void)
{
    size_t n = 0;
    while (kvcl_codec_names()[n])
        n++;
    return n;
}

/* Names for help and sweeps, every form of every number of bits, and what no sweep has. */
static const char *codec_name(size_t i, char *space, size_t cap)
{
    static const char *const forms[N_FORMS] = {"pre", "post", "channel"};
    static const char *const bits[N_BITS] = {"8", "4", "3", "2", "1", "-k3v2", "-k8v1"};
    size_t n = n_names();
    if (i < n)
        return kvcl_codec_names()[i];
    i -= n;
    if (i >= N_FORMS * N_BITS)
        return i == N_FORMS * N_BITS ? "factor-k16v32" : NULL;
    snprintf(space, cap, "quant%s/%s", bits[i / N_FORMS], forms[i % N_FORMS]);
    return space;
}

/* What is named for users with every shape; forms, bits and shapes by pairs.  Small: some of each
 * kind, each with one shape. */
static bool is_tried(size_t i, size_t i_shape)
{
    if (test_env_on("KVCL_TEST_BITS_ONLY") && i_shape < 2)
        return false;
    size_t k = i - n_names();
    if (test_small())
        return (i % 5 == 0 || i == 21 || k == N_FORMS * N_BITS) && (i / 5 + i_shape) % 3 == 0;
    return i < n_names() || k == N_FORMS * N_BITS ||
           test_pairwise(k % N_FORMS + k / N_FORMS + i_shape, 3);
}

START_TEST(laws)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows), i_shape = (size_t)_i;
    char space[KVCL_CODEC_NAME_CAP];
    const char *name;
    for (size_t i = 0; (name = codec_name(i, space, sizeof space)) != NULL; i++) {
        answer want;
        if (!is_tried(i, i_shape))
            continue;
        run(test_reference(), name, i_shape, NULL, &want);
        for (size_t row = 0; row < n_rows; row++) {
            answer got;
            if (test_is_reference(&rows[row]))
                continue;
            if (test_env_on("KVCL_TEST_VERBOSE"))
                printf("%s: %s\n", rows[row].row, name);
            run(&rows[row], name, i_shape, &want, &got);
            answer_free(&got);
        }
        answer_free(&want);
    }
}
END_TEST

START_TEST(names)
{
    kvcl_ctx *ctx = test_reference()->ctx;
    static const char unknown[] = /* the first one is empty */
        " quant quant5 quant4/ quant42 quant4/pro quant-k3 quant-k3v5 q5_0 q8_0x"
        " quant-k3v2v2 rawr holo holo3 holo4- holo42 holo4-chip/unscaled factor"
        " factor-k16 factor-k0v32 factor-k16v320 rest rest0.4 rest1.333 rest7";
    kvcl_codec_spec spec, again;
    char space[KVCL_CODEC_NAME_CAP];
    const char *name;
    for (size_t i = 0; (name = codec_name(i, space, sizeof space)) != NULL; i++) {
        ck_assert_int_eq(kvcl_codec_parse(ctx, name, &spec), KVCL_OK);
        ck_assert_int_eq(kvcl_codec_parse(ctx, spec.name, &again), KVCL_OK);
        ck_assert_str_eq(spec.name, again.name);
        ck_assert(spec.ops == again.ops && spec.form == again.form);
        ck_assert(spec.bits_k == again.bits_k && spec.bits_v == again.bits_v);
        ck_assert(spec.rate == again.rate && spec.fold == again.fold);
    }
    for (const char *at = unknown;; at++) {
        int n = (int)strcspn(at, " ");
        snprintf(space, sizeof space, "%.*s", n, at);
        ck_assert_int_eq(kvcl_codec_parse(ctx, space, &spec), KVCL_E_ARG);
        ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "quant4"));
        at += n;
        if (*at == 0)
            break;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec");
    TCase *c = tcase_create("codec");
    tcase_add_test(c, names);
    tcase_add_loop_test(c, laws, 0, (int)kvcl_array_len(shapes));
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
