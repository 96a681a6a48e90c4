/* cmd_frontier.c - kvcl frontier: how much of the cache a decode step may leave unread. */
#include "cmd_frontier.h"
#include "cmd_list.h"
#include "cmd_stream.h"

#include "mem.h"
#include "model_int.h"
#include "os.h"
#include "rope_table.h"

#include <stddef.h>
#include <stdio.h>

#define SPREAD 128u /* queries lie among that many newest tokens, if they are fewer */
#define DEFAULT_SKETCHES                                                                     \
    "oracle,rp16,kmeans16,pca32,whitened32,balanced32,balanced48/int4,lm1/pre,lm2/post,lm2/" \
    "pre,lm3/pre,"                                                                           \
    "box16"
#define AT(member) .offset = offsetof(kvcl_frontier_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input"},
    KVCL_ROW_MODEL(kvcl_frontier_opts),
    {.names = {"-f", "--text"},
     .kind = KVCL_OPT_STRING,
     AT(text),
     .arg = "FILE",
     .help = "a text; its first -c tokens are used; - is standard input"},
    {.names = {"-c", "--ctx-size"},
     .kind = KVCL_OPT_INT,
     AT(model.n_ctx),
     .arg = "N",
     .max = 16777216,
     .env = "KVCL_CTX_SIZE",
     .help = "tokens of the text; 0: as the model says, at most 8192, or all that there are"},
    {.names = {"--positions"},
     .kind = KVCL_OPT_INT,
     AT(n_positions),
     .arg = "N",
     .min = 1,
     .max = 65536,
     .def = "32",
     .help = "queries of each head, at even distances among the last 128 tokens"},
    {.names = {"--layers"},
     .kind = KVCL_OPT_STRING,
     AT(layers),
     .arg = "LIST",
     .def = "all",
     .help = "layers from 0 on, like 0,3-5, or all"},
    {.names = {"--heads"},
     .kind = KVCL_OPT_STRING,
     AT(heads),
     .arg = "LIST",
     .def = "all",
     .help = "query heads of these layers, likewise"},
    {.kind = KVCL_OPT_HEADING, .help = "What is measured"},
    {.names = {"--sketch"},
     .kind = KVCL_OPT_STRING,
     AT(sketches),
     .arg = "LIST",
     .help = "what a step reads of every key, with comma between: oracle, rp<s>, kmeans<s>, "
             "pca<s>, "
             "whitened<s>, balanced<s> (/int8 or /int4), lm<1 to 4> (/pre or /post), box<tokens>; "
             "default, of what suits the model: " DEFAULT_SKETCHES},
    {.names = {"--rule"},
     .kind = KVCL_OPT_STRING,
     AT(rules),
     .arg = "LIST",
     .def = "topk32,mass0.01,z3,theta0.5",
     .help = "which tokens stay unread: topk<k> loses none of the k best, mass<part> no more than "
             "that part of the weights; /z<z> behind either: as if errors were no larger than z "
             "deviations; z<z>: mass0.01/z<z>; theta<score>: that of rp and kmeans"},
    {.names = {"--hot"},
     .kind = KVCL_OPT_INT,
     AT(n_hot),
     .arg = "N",
     .min = 1,
     .max = 16777216,
     .def = "64",
     .help = "newest tokens, which are always read"},
    {.names = {"--sinks"},
     .kind = KVCL_OPT_INT,
     AT(n_sinks),
     .arg = "N",
     .max = 65536,
     .def = "8",
     .help = "first tokens, which are always read"},
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    {.names = {"--csv"},
     .kind = KVCL_OPT_STRING,
     AT(csv),
     .arg = "FILE",
     .help = "one line for each sketch, rule and head"},
    {.names = {"--json"}, .kind = KVCL_OPT_FLAG, AT(json), .help = "as JSON on standard output"},
    {.names = {"--plots"},
     .kind = KVCL_OPT_STRING,
     AT(plots),
     .arg = "FOLDER",
     .help = "what stays unread against bytes and by head, PNG and SVG, by gnuplot where it is "
             "installed"},
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(kvcl_frontier_opts),
    KVCL_ROW_THREADS(kvcl_frontier_opts),
    KVCL_ROW_BATCH(kvcl_frontier_opts),
    KVCL_ROWS_COMMON(kvcl_frontier_opts),
};

/* ---- rows of the model --------------------------------------------------------------------- */

/* Adds the outer products of a position's queries to the moments of their KV heads. */
static void add_moments(const kvcl_frontier *f, uint32_t layer, const float *rows)
{
    const size_t D = f->D, group = f->n_heads / f->n_kv_heads;
    double x[KVCL_MAX_HEAD_DIM];
    for (size_t h = 0; h < f->n_heads; h++) {
        double *to = f->moments[layer] + h / group * D * D;
        for (size_t d = 0; d < D; d++)
            x[d] = (double)rows[h * D + d];
        for (size_t a = 0; a < D; a++)
            for (size_t b = 0; b <= a; b++)
                to[a * D + b] += x[a] * x[b];
    }
}

static void on_rows(void *user, kvcl_tap_point point, uint32_t layer, uint32_t pos0, uint32_t n,
                    const float *rows, uint32_t width)
{
    const kvcl_frontier *f = user;
    const size_t nq = (size_t)f->n_heads * f->D, nk = (size_t)f->n_kv_heads * f->D;
    const uint32_t first = f->T - 1 - (f->n_queries - 1) * f->stride;
    if (!f->layer[layer])
        return;
    for (uint32_t i = 0; i < n; i++) {
        const float *row = rows + (size_t)i * width;
        const uint32_t at = pos0 + i;
        if (point == KVCL_TAP_QKV) {
            memcpy(f->keys[layer] + at * nk, row + nq, nk * sizeof *row);
        } else if (at < first) {
            if (at >= (uint32_t)f->o->n_sinks)
                add_moments(f, layer, row);
        } else if ((at - first) % f->stride == 0) {
            float *to = f->queries[layer] + (at - first) / f->stride * nq;
            for (size_t d = 0; d < nq; d++)
                to[d] = row[d] * (float)f->scale;
        }
    }
}

/* The half that add_moments left out. */
static void mirror_moments(const kvcl_frontier *f)
{
    const size_t D = f->D;
    for (size_t l = 0; l < f->n_layers; l++)
        for (size_t k = 0; k < f->n_kv_heads && f->layer[l]; k++) {
            double *m = f->moments[l] + k * D * D;
            for (size_t a = 0; a < D; a++)
                for (size_t b = 0; b < a; b++)
                    m[b * D + a] = m[a * D + b];
        }
}

static kvcl_status create_rows(kvcl_frontier *f)
{
    kvcl_ctx *ctx = f->app.ctx;
    const size_t D = f->D, n_layers = f->n_layers;
    const size_t n_cells = (size_t)f->n_specs * f->n_rules * 2 * n_layers * f->n_heads;
    const struct {
        void **to;
        size_t n, size;
    } parts[] = {{(void **)&f->keys, n_layers, sizeof *f->keys},
                 {(void **)&f->queries, n_layers, sizeof *f->queries},
                 {(void **)&f->moments, n_layers, sizeof *f->moments},
                 {(void **)&f->cells, n_cells, sizeof *f->cells},
                 {(void **)&f->n_violated, f->n_specs * n_layers * f->n_heads, sizeof(uint64_t)}};
    for (size_t i = 0; i < kvcl_array_len(parts); i++)
        KVCL_TRY(kvcl_mem_array(ctx, parts[i].n, parts[i].size, "results", parts[i].to));
    for (size_t l = 0; l < n_layers; l++) {
        const struct {
            void **to;
            size_t n, size;
        } rows[] = {{(void **)&f->keys[l], (size_t)f->T * f->n_kv_heads * D, sizeof(float)},
                    {(void **)&f->queries[l], (size_t)f->n_queries * f->n_heads * D, sizeof(float)},
                    {(void **)&f->moments[l], f->n_kv_heads * D * D, sizeof(double)}};
        for (size_t i = 0; i < kvcl_array_len(rows) && f->layer[l]; i++)
            KVCL_TRY(kvcl_mem_array(ctx, rows[i].n, rows[i].size,
                                    "rows of the model (fewer --layers or a smaller -c)",
                                    rows[i].to));
    }
    return KVCL_OK;
}

static kvcl_status create_table(kvcl_frontier *f)
{
    const kvcl_hparams *hp = &f->app.model->hp;
    void *p;
    f->n_rot = hp->n_rot;
    f->pairing = hp->arch->pairing;
    if (hp->n_rot == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(f->app.ctx, f->T, hp->n_rot * sizeof(float), "the rotation table", &p));
    f->table = p;
    kvcl_rope_table(f->table, f->T, &hp->rope);
    return KVCL_OK;
}

/* ---- begin and end ------------------------------------------------------------------------- */

/* Sketches that do not suit the model: refused when they were asked for, else left out. */
static kvcl_status check_specs(kvcl_frontier *f)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_specs; i++) {
        const char *why = kvcl_frontier_spec_unfit(&f->specs[i], f->D);
        KVCL_CHECK(f->app.ctx, !why || !f->o->sketches, KVCL_E_ARG,
                   "--sketch %s does not suit this model, whose heads have %u dimensions: %s",
                   f->specs[i].name, f->D, why);
        if (why)
            kvcl_app_note(&f->app, "without %s: heads have %u dimensions, and %s", f->specs[i].name,
                          f->D, why);
        else
            f->specs[n++] = f->specs[i];
    }
    f->n_specs = n;
    return KVCL_OK;
}

static kvcl_status read_shape(kvcl_frontier *f)
{
    const kvcl_hparams *hp = &f->app.model->hp;
    kvcl_ctx *ctx = f->app.ctx;
    void *layer, *head;
    f->n_layers = hp->n_layers;
    f->n_heads = hp->n_heads;
    f->n_kv_heads = hp->n_kv_heads;
    f->D = hp->head_dim;
    f->scale = (double)hp->attn_scale;
    KVCL_TRY(check_specs(f));
    KVCL_TRY(kvcl_mem_array(ctx, f->n_layers, sizeof(bool), "a choice of layers", &layer));
    f->layer = layer;
    KVCL_TRY(kvcl_mem_array(ctx, f->n_heads, sizeof(bool), "a choice of heads", &head));
    f->head = head;
    KVCL_TRY(kvcl_list_choose(ctx, "--layers", f->o->layers, "layer", f->n_layers, f->layer));
    return kvcl_list_choose(ctx, "--heads", f->o->heads, "head", f->n_heads, f->head);
}

/* How many tokens, and which of them ask. */
static kvcl_status read_length(kvcl_frontier *f, size_t n)
{
    const kvcl_frontier_opts *o = f->o;
    const uint32_t train = f->app.model->hp.n_ctx_train, want = (uint32_t)o->model.n_ctx;
    KVCL_CHECK(f->app.ctx, want <= train, KVCL_E_ARG, "-c %u: this model's context holds %u tokens",
               want, train);
    KVCL_CHECK(f->app.ctx, !want || n >= want, KVCL_E_ARG,
               "the text has %zu tokens; -c %u wants more", n, want);
    f->T = (uint32_t)kvcl_min_size(n, want ? want : kvcl_min_u32(train, 8192));
    f->n_queries = (uint32_t)o->n_positions;
    f->stride = kvcl_max_u32(1, kvcl_min_u32(SPREAD, f->T / 8) / f->n_queries);
    const uint64_t need =
        (uint64_t)(f->n_queries - 1) * f->stride + (uint64_t)o->n_hot + (uint64_t)o->n_sinks + 1;
    KVCL_CHECK(f->app.ctx, f->T >= need, KVCL_E_ARG,
               "%u tokens are too few for %u positions, %u hot tokens and %u sinks (%llu): take a "
               "longer text, or lower --positions or --hot",
               f->T, f->n_queries, (unsigned)o->n_hot, (unsigned)o->n_sinks,
               (unsigned long long)need);
    return KVCL_OK;
}

static kvcl_status check_outputs(kvcl_ctx *ctx, const kvcl_frontier_opts *o)
{
    kvcl_os_out *f;
    if (o->csv) {
        KVCL_TRY(kvcl_os_out_create(ctx, o->csv, &f));
        kvcl_os_out_abort(f);
    }
    return o->plots ? kvcl_os_make_folder(ctx, o->plots) : KVCL_OK;
}

/* Queries, keys and moments of the text's tokens. */
static kvcl_status read_rows(kvcl_frontier *f)
{
    const kvcl_frontier_opts *o = f->o;
    int32_t *ids = NULL;
    size_t n;
    kvcl_progress progress;
    KVCL_TRY(kvcl_input_tokens(&f->app, NULL, o->text, NULL, &ids, &n));
    kvcl_status st;
    KVCL_TRY_GOTO(read_length(f, n));
    KVCL_TRY_GOTO(create_rows(f));
    KVCL_TRY_GOTO(create_table(f));
    kvcl_model_opts model = o->model;
    model.type_k = model.type_v = "f16"; /* as the keys that are sketched */
    kvcl_session_options s = kvcl_app_session_options(&model);
    s.n_ctx = f->T;
    KVCL_TRY_GOTO(kvcl_session_create(f->app.engine, &s, &f->app.session));
    KVCL_TRY_GOTO(
        kvcl_session_set_tap(f->app.session, 1u << KVCL_TAP_QKV | 1u << KVCL_TAP_Q, on_rows, f));
    kvcl_interrupt_catch();
    kvcl_progress_init(&progress, &f->app, "queries and keys", "tokens");
    st = kvcl_session_prefill(f->app.session, ids, f->T, 0, NULL, kvcl_progress_prefill, &progress);
    kvcl_progress_end(&progress);
    mirror_moments(f);
    kvcl_session_free(f->app.session); /* its cache is not needed any more */
    f->app.session = NULL;
fail:
    kvcl_mem_free(f->app.ctx, ids);
    return st;
}

static kvcl_status report(kvcl_frontier *f)
{
    const kvcl_frontier_opts *o = f->o;
    kvcl_status st = KVCL_OK;
    if (o->json)
        st = kvcl_frontier_print_json(f);
    else
        kvcl_frontier_print(f);
    if (st == KVCL_OK && o->csv)
        st = kvcl_frontier_write_csv(f, o->csv);
    if (st == KVCL_OK && o->plots)
        st = kvcl_frontier_write_plots(f, o->plots);
    return st == KVCL_OK ? kvcl_frontier_verdict(f) : st;
}

static kvcl_status frontier(kvcl_frontier *f)
{
    const kvcl_frontier_opts *o = f->o;
    kvcl_ctx *ctx = f->app.ctx;
    KVCL_CHECK(ctx, o->text, KVCL_E_ARG, "no input: give a text with --text FILE");
    KVCL_TRY(kvcl_frontier_specs_read(ctx, o->sketches ? o->sketches : DEFAULT_SKETCHES, f->specs,
                                      &f->n_specs));
    KVCL_TRY(kvcl_frontier_rules_read(ctx, o->rules, f->rules, &f->n_rules));
    KVCL_TRY(check_outputs(ctx, o));
    KVCL_TRY(kvcl_app_open_engine(&f->app, &o->model));
    KVCL_TRY(read_shape(f));
    KVCL_TRY(read_rows(f));
    KVCL_TRY(kvcl_frontier_run(f));
    return report(f);
}

static void frontier_close(kvcl_frontier *f)
{
    kvcl_ctx *ctx = f->app.ctx;
    for (uint32_t l = 0; l < f->n_layers; l++) {
        kvcl_mem_free(ctx, f->keys ? f->keys[l] : NULL);
        kvcl_mem_free(ctx, f->queries ? f->queries[l] : NULL);
        kvcl_mem_free(ctx, f->moments ? f->moments[l] : NULL);
    }
    void *const all[] = {f->keys,       f->queries, f->moments, f->cells,
                         f->n_violated, f->layer,   f->head,    f->table};
    for (size_t i = 0; i < kvcl_array_len(all); i++)
        kvcl_mem_free(ctx, all[i]);
    kvcl_app_close(&f->app);
}

static int frontier_main(const void *values, const kvcl_opt_result *parsed)
{
    kvcl_frontier f = {.o = values};
    int code;
    if (!kvcl_app_open(&f.app, &f.o->common, &f.o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&f.app, frontier(&f));
    if (code == 0)
        code = kvcl_app_finish_stdout(&f.app);
    frontier_close(&f);
    return code;
}

const kvcl_command kvcl_cmd_frontier = {
    .name = "frontier",
    .summary = "Measures how much of the cache a step may leave unread, with proof",
    .synopsis = "[-m FILE] --text FILE [--sketch LIST] [--rule LIST] [--layers LIST] [--heads "
                "LIST] [--positions N] [-c N]",
    .examples =
        "  kvcl frontier --text novel.txt -c 8192             # the usual sketches and rules\n"
        "  kvcl frontier --text a.txt --sketch lm2,lm3,balanced32 --rule topk32,mass0.001\n"
        "  kvcl frontier --text a.txt --layers 4-7 --csv out.csv --plots out\n",
    .notes =
        "A step reads a sketch of every cold token's key: an estimate of its score and how far off "
        "that can be, at most |error of the key| |query| (Cauchy-Schwarz) and a slack for the "
        "rounding of floats. What the bounds rule out stays unread. One-shot rules know the exact "
        "scores of hot tokens and sinks; scans read token by token, by falling upper bound, and "
        "know what they have read. Every pair of query and token is checked against its bounds, "
        "every rule against its promise: exit code 7 when one does not hold. "
        "Sketches: rp Gaussian projections with constant errors, as in GhostKV (no proof), kmeans "
        "the same in 8 clusters; pca, "
        "whitened, balanced: coordinates in a basis of the keys' spectrum, of that in the queries' "
        "metric, of both, with the norms of what is left out; lm: all of the key in few bits as "
        "codec quant keeps it, before (pre) or after rotation, with the norm of its error; box: "
        "least and largest values of a page; oracle: the scores themselves. Bytes are those of a "
        "token and KV head; bases, means and scales, once for a sequence, are not in them. "
        "'false' is the part of the k best tokens that stays unread, 'lost' the part of the "
        "attention weights; 'group' what any query head of a KV head reads; 'read' the bytes of "
        "sketches and of the group's survivors in f16, against K and V in f16. Keys are those of "
        "an "
        "f16 cache, bases and means are fitted to them, metrics to the queries before the measured "
        "ones.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(kvcl_frontier_opts),
    .run = frontier_main,
};
