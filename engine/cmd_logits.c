/* cmd_logits.c - kvcl logits: the model's raw output at each position, as an array for NumPy. */
#include "cmd.h"
#include "cmd_npy.h"
#include "cmd_stream.h"

#include "mem.h"
#include "os.h"

#include <stddef.h>

typedef struct logits_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    const char *prompt, *file, *tokens, *out;
    int64_t last;
} logits_opts;

#define AT(member) .offset = offsetof(logits_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input and output"},
    KVCL_ROW_MODEL(logits_opts),
    KVCL_ROWS_TEXT(logits_opts),
    KVCL_ROW_TOKENS(logits_opts),
    {.names = {"--last"},
     .kind = KVCL_OPT_INT,
     AT(last),
     .arg = "N",
     .max = 1e9,
     .help = "only the last N positions; 0: all"},
    {.names = {"-o", "--output"},
     .kind = KVCL_OPT_STRING,
     AT(out),
     .arg = "FILE.npy",
     .help = "float32 [positions][vocabulary] in NumPy's format 1.0"},
    KVCL_ROW_CTX(logits_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(logits_opts),
    KVCL_ROW_THREADS(logits_opts),
    KVCL_ROW_BATCH(logits_opts),
    KVCL_ROWS_CACHE(logits_opts),
    KVCL_ROW_KV_ERROR(logits_opts),
    KVCL_ROWS_CACHE_TYPES(logits_opts),
    KVCL_ROWS_COMMON(logits_opts),
};

#define SLICE 256 /* positions whose logits are in memory at once */

/* Prefills ids in slices and writes the logits of the last n_rows positions. */
static kvcl_status write_rows(kvcl_app *app, kvcl_os_out *f, const int32_t *ids, size_t n,
                              size_t n_rows)
{
    const uint32_t n_vocab = kvcl_model_get_info(app->model)->n_vocab;
    /* a tiered cache codes older tokens between calls: one call gives one prompt's logits */
    const bool whole = app->plan.choice.n_tiers > 1;
    const size_t slice = whole ? n : SLICE, most = whole ? n_rows : SLICE;
    void *p;
    KVCL_TRY(
        kvcl_mem_array(app->ctx, most * n_vocab, sizeof(float), "logits (--last takes fewer)", &p));
    kvcl_progress progress;
    kvcl_progress_init(&progress, app, "logits", "tokens");
    progress.total = n;
    kvcl_status st = KVCL_OK;
    const size_t first = n - n_rows;
    for (size_t i = 0; i < n && st == KVCL_OK;) {
        /* positions before the first row that is wanted need no slices */
        size_t m = i < first && !whole ? first - i : kvcl_min_size(slice, n - i);
        size_t rows = whole ? n_rows : i < first ? 0 : m;
        st = kvcl_session_prefill(app->session, ids + i, (uint32_t)m, (uint32_t)rows, p,
                                  kvcl_progress_prefill, &progress);
        if (st == KVCL_OK)
            st = kvcl_os_out_write(f, p, rows * n_vocab * sizeof(float));
        i += m;
        progress.before = i;
    }
    kvcl_progress_end(&progress);
    kvcl_mem_free(app->ctx, p);
    return st;
}

static kvcl_status compute(kvcl_app *app, const logits_opts *o, const int32_t *ids, size_t n)
{
    kvcl_os_out *f;
    kvcl_session_options s = kvcl_app_session_options(&o->model);
    const kvcl_model_info *info = kvcl_model_get_info(app->model);
    if (s.n_ctx == 0) /* the input says how much is needed */
        s.n_ctx = kvcl_min_u32(info->n_ctx_train, (uint32_t)kvcl_min_size(n, UINT32_MAX));
    KVCL_TRY(kvcl_check_fits(app, n, s.n_ctx));
    KVCL_TRY(kvcl_app_open_session(app, &o->cache, ids, n, &s));
    KVCL_TRY(kvcl_check_fits(app, n, kvcl_session_n_ctx(app->session)));
    size_t n_rows = o->last > 0 ? kvcl_min_size((size_t)o->last, n) : n;
    KVCL_TRY(kvcl_os_out_create(app->ctx, o->out, &f));
    kvcl_interrupt_catch();
    const size_t dims[2] = {n_rows, info->n_vocab};
    kvcl_status st = kvcl_npy_header(f, dims, 2);
    if (st == KVCL_OK)
        st = write_rows(app, f, ids, n, n_rows);
    if (st != KVCL_OK) {
        kvcl_os_out_abort(f);
        return st;
    }
    KVCL_TRY(kvcl_os_out_commit(f));
    kvcl_app_note(app, "%s: float32 [%zu][%u], after %zu tokens on %s", o->out, n_rows,
                  info->n_vocab, n, kvcl_device_get_info(app->dev)->id);
    kvcl_app_note_cache(app, app->session);
    return KVCL_OK;
}

static kvcl_status logits(kvcl_app *app, const logits_opts *o)
{
    int32_t *ids;
    size_t n;
    KVCL_CHECK(app->ctx, o->out, KVCL_E_ARG, "no output file: name one with -o FILE.npy");
    KVCL_CHECK(app->ctx, o->prompt || o->file || o->tokens, KVCL_E_ARG,
               "no input: give a text with -p or -f, or ids with --tokens");
    KVCL_TRY(kvcl_app_open_device(app, &o->model, &o->cache));
    KVCL_TRY(kvcl_input_tokens(app, o->prompt, o->file, o->tokens, &ids, &n));
    kvcl_status st = compute(app, o, ids, n);
    kvcl_mem_free(app->ctx, ids);
    return st;
}

static int logits_main(const void *values, const kvcl_opt_result *parsed)
{
    const logits_opts *o = values;
    kvcl_app app;
    int code;
    if (!kvcl_app_open(&app, &o->common, &o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&app, logits(&app, o));
    kvcl_app_close(&app);
    return code;
}

const kvcl_command kvcl_cmd_logits = {
    .name = "logits",
    .summary = "Writes a model's logits at each position of a text",
    .synopsis = "[-m FILE] (-f TEXT | -p TEXT | --tokens FILE.i32) [--last N] -o FILE.npy",
    .examples = "  kvcl logits -f text.txt -o all.npy              # [tokens][vocabulary]\n"
                "  kvcl logits -p 'Hello' --last 1 -o next.npy     # what comes next\n"
                "  kvcl logits --tokens t.i32 -ctk f32 -ctv f32 -o x.npy   # f32 cache\n"
                "  python3 -c 'import numpy; print(numpy.load(\"all.npy\").argmax(1))'\n",
    .notes = "Row i holds the logits after token i of the input, the begin token included where "
             "the model has one. The file appears complete or not at all.\n"
             "A prompt's own tokens attend to each other exactly whatever the cache, so lossy "
             "tiers change no logit here; 'kvcl eval' measures what they do.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(logits_opts),
    .run = logits_main,
};
