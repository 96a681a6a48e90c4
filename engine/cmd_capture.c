/* cmd_capture.c - kvcl capture: queries, keys and values of chosen layers as arrays for NumPy. */
#include "cmd.h"
#include "cmd_list.h"
#include "cmd_npy.h"
#include "cmd_stream.h"

#include "mem.h"
#include "model_int.h"
#include "os.h"
#include "rope_table.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

#define MAX_LAYERS 1024

typedef struct capture_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    const char *prompt, *file, *tokens, *layers, *out;
    int64_t limit;
} capture_opts;

#define AT(member) .offset = offsetof(capture_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input and output"},
    KVCL_ROW_MODEL(capture_opts),
    KVCL_ROWS_TEXT(capture_opts),
    KVCL_ROW_TOKENS(capture_opts),
    {.names = {"--limit-tokens"},
     .kind = KVCL_OPT_INT,
     AT(limit),
     .arg = "N",
     .max = 1e9,
     .help = "only the first N tokens of the input; 0: all"},
    {.names = {"--layers"},
     .kind = KVCL_OPT_STRING,
     AT(layers),
     .arg = "LIST",
     .def = "all",
     .help = "layers from 0 on, like 0,3-5, or all; the memory is that of the files without k"},
    {.names = {"-o", "--output"},
     .kind = KVCL_OPT_STRING,
     AT(out),
     .arg = "FOLDER",
     .help = "gets layerNN-q.npy, -k_pre.npy, -k.npy and -v.npy; made if it is not there"},
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(capture_opts),
    KVCL_ROW_THREADS(capture_opts),
    KVCL_ROW_BATCH(capture_opts),
    KVCL_ROWS_CACHE_TYPES(capture_opts),
    KVCL_ROWS_COMMON(capture_opts),
};

/* One layer's rows as they come, token by token: q after rotation, k before it, v. */
typedef struct captured {
    float *q, *k, *v; /* [tokens][heads * head_dim]; NULL: not chosen */
} captured;

typedef struct capture {
    kvcl_app app;
    const capture_opts *o;
    const kvcl_hparams *hp;
    int32_t *ids;
    size_t n;
    bool chosen[MAX_LAYERS];
    captured *layers; /* [n_layers] */
    float *table;     /* of rotation; NULL without */
    float *out;       /* [heads][tokens][head_dim] of one array */
} capture;

static kvcl_status choose(capture *c)
{
    const uint32_t n_layers = c->hp->n_layers;
    KVCL_CHECK(c->app.ctx, n_layers <= MAX_LAYERS, KVCL_E_UNSUPPORTED,
               "the model has %u layers; capture knows %d at most", n_layers, MAX_LAYERS);
    return kvcl_list_choose(c->app.ctx, "--layers", c->o->layers, "layer", n_layers, c->chosen);
}

/* ---- taking rows --------------------------------------------------------------------------- */

static void on_rows(void *user, kvcl_tap_point point, uint32_t layer, uint32_t pos0, uint32_t n,
                    const float *rows, uint32_t width)
{
    const capture *c = user;
    const kvcl_hparams *hp = c->hp;
    const captured *l = &c->layers[layer];
    const size_t nq = (size_t)hp->n_heads * hp->head_dim,
                 nk = (size_t)hp->n_kv_heads * hp->head_dim;
    if (!c->chosen[layer])
        return;
    for (uint32_t i = 0; i < n; i++) {
        const float *row = rows + (size_t)i * width;
        const size_t at = pos0 + i;
        if (point == KVCL_TAP_Q) {
            memcpy(l->q + at * nq, row, nq * sizeof *row);
        } else if (point == KVCL_TAP_QKV) {
            memcpy(l->k + at * nk, row + nq, nk * sizeof *row);
            memcpy(l->v + at * nk, row + nq + nk, nk * sizeof *row);
        }
    }
}

static kvcl_status create_array(capture *c, uint32_t heads, float **out)
{
    void *p;
    size_t n;
    KVCL_CHECK(c->app.ctx, kvcl_mul_size(c->n, (size_t)heads * c->hp->head_dim, &n), KVCL_E_MEM,
               "%zu tokens are too many; take fewer with --limit-tokens", c->n);
    KVCL_TRY(kvcl_mem_array(c->app.ctx, n, sizeof(float),
                            "captured rows (fewer --layers or --limit-tokens)", &p));
    *out = p;
    return KVCL_OK;
}

static kvcl_status create_arrays(capture *c)
{
    void *p;
    const kvcl_hparams *hp = c->hp;
    KVCL_TRY(kvcl_mem_array(c->app.ctx, hp->n_layers, sizeof *c->layers, "captured layers", &p));
    c->layers = p;
    for (uint32_t i = 0; i < hp->n_layers; i++)
        if (c->chosen[i]) {
            KVCL_TRY(create_array(c, hp->n_heads, &c->layers[i].q));
            KVCL_TRY(create_array(c, hp->n_kv_heads, &c->layers[i].k));
            KVCL_TRY(create_array(c, hp->n_kv_heads, &c->layers[i].v));
        }
    KVCL_TRY(create_array(c, hp->n_heads, &c->out));
    if (hp->n_rot == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(c->app.ctx, c->n, hp->n_rot * sizeof(float), "the rotation table", &p));
    c->table = p;
    kvcl_rope_table(c->table, (uint32_t)c->n, &hp->rope);
    return KVCL_OK;
}

/* ---- files --------------------------------------------------------------------------------- */

/* The engine's rotation (engine/ops_kv.h), the same bits: with the table's cosine c and sine s, a
 * pair's a' = fma(a, c, -(b s)), b' = fma(b, c, a s), -0 as +0. */
static void rotate(const kvcl_hparams *hp, const float *cs, float *x)
{
    const uint32_t half = hp->n_rot / 2;
    const bool adjacent = hp->arch->pairing == KVCL_ROPE_ADJACENT;
    for (uint32_t i = 0; i < half; i++) {
        float *pa = &x[adjacent ? 2 * i : i], *pb = &x[adjacent ? 2 * i + 1 : i + half];
        const float a = *pa, b = *pb, c = cs[2 * i], s = cs[2 * i + 1];
        const float y0 = fmaf(a, c, -(b * s)), y1 = fmaf(b, c, a * s);
        *pa = y0 == 0 ? 0 : y0;
        *pb = y1 == 0 ? 0 : y1;
    }
}

/* Rows [tokens][heads][D] as a file of [heads][tokens][D]. */
static kvcl_status write_array(capture *c, uint32_t layer, const char *what, const float *rows,
                               uint32_t heads, bool turn)
{
    char path[4200];
    const size_t dim = c->hp->head_dim, dims[3] = {heads, c->n, dim};
    int len = snprintf(path, sizeof path, "%s/layer%02u-%s.npy", c->o->out, layer, what);
    KVCL_CHECK(c->app.ctx, len > 0 && (size_t)len < sizeof path, KVCL_E_ARG,
               "-o: the folder's path is too long");
    for (uint32_t h = 0; h < heads; h++)
        for (size_t t = 0; t < c->n; t++) {
            float *to = c->out + (h * c->n + t) * dim;
            memcpy(to, rows + (t * heads + h) * dim, dim * sizeof *to);
            if (turn && c->table)
                rotate(c->hp, c->table + t * c->hp->n_rot, to);
        }
    return kvcl_npy_write(c->app.ctx, path, c->out, dims, 3);
}

static kvcl_status write_layer(capture *c, uint32_t i)
{
    const captured *l = &c->layers[i];
    if (kvcl_interrupted())
        return KVCL_E_INTERRUPTED;
    KVCL_TRY(write_array(c, i, "q", l->q, c->hp->n_heads, false));
    KVCL_TRY(write_array(c, i, "k_pre", l->k, c->hp->n_kv_heads, false));
    KVCL_TRY(write_array(c, i, "k", l->k, c->hp->n_kv_heads, true));
    return write_array(c, i, "v", l->v, c->hp->n_kv_heads, false);
}

/* ---- begin and end ------------------------------------------------------------------------- */

static kvcl_status prepare(capture *c)
{
    const capture_opts *o = c->o;
    kvcl_ctx *ctx = c->app.ctx;
    KVCL_CHECK(ctx, o->out, KVCL_E_ARG, "no folder for the arrays: name one with -o FOLDER");
    KVCL_CHECK(ctx, o->prompt || o->file || o->tokens, KVCL_E_ARG,
               "no input: give a text with -p or -f, or ids with --tokens");
    KVCL_TRY(kvcl_app_open_engine(&c->app, &o->model));
    c->hp = &c->app.model->hp;
    KVCL_TRY(choose(c));
    KVCL_TRY(kvcl_input_tokens(&c->app, o->prompt, o->file, o->tokens, &c->ids, &c->n));
    if (o->limit > 0)
        c->n = kvcl_min_size(c->n, (size_t)o->limit);
    KVCL_CHECK(ctx, c->n <= c->hp->n_ctx_train, KVCL_E_ARG,
               "the input has %zu tokens and this model's context holds %u; take fewer with "
               "--limit-tokens",
               c->n, c->hp->n_ctx_train);
    KVCL_TRY(create_arrays(c));
    return kvcl_os_make_folder(ctx, o->out);
}

static kvcl_status run(capture *c)
{
    KVCL_TRY(prepare(c));
    kvcl_session_options s = kvcl_app_session_options(&c->o->model);
    s.n_ctx = (uint32_t)c->n;
    KVCL_TRY(kvcl_session_create(c->app.engine, &s, &c->app.session));
    KVCL_TRY(
        kvcl_session_set_tap(c->app.session, 1u << KVCL_TAP_QKV | 1u << KVCL_TAP_Q, on_rows, c));
    kvcl_progress progress;
    kvcl_interrupt_catch();
    kvcl_progress_init(&progress, &c->app, "capture", "tokens");
    kvcl_status st = kvcl_session_prefill(c->app.session, c->ids, (uint32_t)c->n, 0, NULL,
                                          kvcl_progress_prefill, &progress);
    uint32_t n_written = 0;
    for (uint32_t i = 0; i < c->hp->n_layers && st == KVCL_OK; i++)
        if (c->chosen[i]) {
            st = write_layer(c, i);
            n_written++;
        }
    kvcl_progress_end(&progress);
    KVCL_TRY(st);
    kvcl_app_note(&c->app,
                  "%s: q float32 [%u][%zu][%u], k_pre, k and v [%u][%zu][%u] of %u layers on %s",
                  c->o->out, c->hp->n_heads, c->n, c->hp->head_dim, c->hp->n_kv_heads, c->n,
                  c->hp->head_dim, n_written, kvcl_device_get_info(c->app.dev)->id);
    return KVCL_OK;
}

static void capture_close(capture *c)
{
    kvcl_ctx *ctx = c->app.ctx;
    for (uint32_t i = 0; c->layers && i < c->hp->n_layers; i++) {
        kvcl_mem_free(ctx, c->layers[i].q);
        kvcl_mem_free(ctx, c->layers[i].k);
        kvcl_mem_free(ctx, c->layers[i].v);
    }
    kvcl_mem_free(ctx, c->layers);
    kvcl_mem_free(ctx, c->table);
    kvcl_mem_free(ctx, c->out);
    kvcl_mem_free(ctx, c->ids);
    kvcl_app_close(&c->app);
}

static int capture_main(const void *values, const kvcl_opt_result *parsed)
{
    capture c = {.o = values};
    int code;
    if (!kvcl_app_open(&c.app, &c.o->common, &c.o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&c.app, run(&c));
    capture_close(&c);
    return code;
}

const kvcl_command kvcl_cmd_capture = {
    .name = "capture",
    .summary = "Writes a model's queries, keys and values on a text",
    .synopsis = "[-m FILE] (-f TEXT | -p TEXT | --tokens FILE.i32) [--layers LIST] -o FOLDER",
    .examples = "  kvcl capture -f text.txt --limit-tokens 2048 -o rows      # all layers\n"
                "  kvcl capture -f text.txt --layers 0,3-5 -o rows\n"
                "  python3 -c 'import numpy; print(numpy.load(\"rows/layer00-k.npy\").shape)'\n",
    .notes =
        "Arrays of float32 [heads][tokens][head_dim]: q after rotation, k_pre before and k after "
        "rotation, v. They are the values before the cache rounds them to f16. Rotation turns "
        "neighbouring pairs: with c, s = cos, sin of position * base^(-2 i / n_rot), x[2i] becomes "
        "x[2i] c - x[2i+1] s and x[2i+1] becomes x[2i+1] c + x[2i] s; models without rotation have "
        "k = k_pre. Each file appears complete or not at all.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(capture_opts),
    .run = capture_main,
};
