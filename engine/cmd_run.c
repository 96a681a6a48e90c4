/* cmd_run.c - kvcl run: completes a prompt.  Text on standard output, the rest on stderr. */
#include "cmd.h"
#include "cmd_devices.h"
#include "cmd_stream.h"

#include "mem.h"
#include "os.h"

#include <stddef.h>
#include <time.h>

typedef struct run_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    const char *prompt, *file;
    int64_t n_predict, seed, top_k, repeat_last_n;
    double temp, top_p, min_p, repeat_penalty;
    bool escape, control, ignore_eos, no_timings;
    bool display_prompt, list_devices;
} run_opts;

#define AT(member) .offset = offsetof(run_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input and length"},
    KVCL_ROW_MODEL(run_opts),
    {.names = {"-p", "--prompt"},
     .kind = KVCL_OPT_STRING,
     AT(prompt),
     .arg = "TEXT",
     .help = "the text to continue; without one, text is made up from the beginning"},
    {.names = {"-f", "--file"},
     .kind = KVCL_OPT_STRING,
     AT(file),
     .arg = "FILE",
     .help = "prompt from a file (its last line break is dropped); - is standard input"},
    {.names = {"-e", "--escape"},
     .kind = KVCL_OPT_FLAG,
     AT(escape),
     .help = "read \\n, \\t, \\\", \\\\ and \\xHH in -p"},
    {.names = {"--special"},
     .kind = KVCL_OPT_FLAG,
     AT(control),
     .help = "control tokens written in the prompt (<|im_start|>) are those tokens"},
    {.names = {"-n", "--predict", "--n-predict"},
     .kind = KVCL_OPT_INT,
     AT(n_predict),
     .arg = "N",
     .min = -2,
     .max = 16777216,
     .def = "-1",
     .env = "KVCL_N_PREDICT",
     .help = "tokens to generate; -1 or -2: until the end token or a full context"},
    KVCL_ROW_CTX(run_opts),
    {.names = {"--ignore-eos"},
     .kind = KVCL_OPT_FLAG,
     AT(ignore_eos),
     .help = "go on after an end token"},
    {.names = {"--no-display-prompt"},
     .kind = KVCL_OPT_UNFLAG,
     AT(display_prompt),
     .def = "0",
     .help = "print what is generated only, not the prompt before it"},
    {.names = {"--no-perf", "--no-timings"},
     .kind = KVCL_OPT_FLAG,
     AT(no_timings),
     .help = "no timings on stderr at the end"},
    {.kind = KVCL_OPT_HEADING, .help = "Sampling (penalties, top-k, top-p, min-p, temperature)"},
    {.names = {"--temp"},
     .kind = KVCL_OPT_FLOAT,
     AT(temp),
     .arg = "T",
     .max = 1000,
     .min = -1000,
     .def = "0.8",
     .env = "KVCL_TEMP",
     .help = "temperature; 0: always the likeliest token"},
    {.names = {"--top-k"},
     .kind = KVCL_OPT_INT,
     AT(top_k),
     .arg = "K",
     .min = -1,
     .max = 2147483647,
     .def = "40",
     .env = "KVCL_TOP_K",
     .help = "only the K likeliest tokens; 0 or -1: all"},
    {.names = {"--top-p"},
     .kind = KVCL_OPT_FLOAT,
     AT(top_p),
     .arg = "P",
     .max = 1,
     .def = "0.95",
     .env = "KVCL_TOP_P",
     .help = "only the likeliest tokens that together have probability P; 1: all"},
    {.names = {"--min-p"},
     .kind = KVCL_OPT_FLOAT,
     AT(min_p),
     .arg = "P",
     .max = 1,
     .def = "0.05",
     .env = "KVCL_MIN_P",
     .help = "only tokens at least P times as likely as the likeliest; 0: all"},
    {.names = {"--repeat-penalty"},
     .kind = KVCL_OPT_FLOAT,
     AT(repeat_penalty),
     .arg = "R",
     .min = 0.01,
     .max = 100,
     .def = "1.0",
     .help = "makes tokens seen lately less likely; 1: off"},
    {.names = {"--repeat-last-n"},
     .kind = KVCL_OPT_INT,
     AT(repeat_last_n),
     .arg = "N",
     .min = -1,
     .max = 16777216,
     .def = "64",
     .help = "how many tokens back the penalty looks; -1: all"},
    {.names = {"-s", "--seed"},
     .kind = KVCL_OPT_INT,
     AT(seed),
     .arg = "N",
     .min = -1,
     .max = 4294967295.0,
     .def = "-1",
     .env = "KVCL_SEED",
     .help = "seed of the sampling; the same seed gives the same text on every machine; -1: a new "
             "one each time, told with the timings"},
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(run_opts),
    {.names = {"--list-devices"},
     .kind = KVCL_OPT_FLAG,
     AT(list_devices),
     .help = "list the devices and stop"},
    {.names = {"-ngl", "--gpu-layers", "--n-gpu-layers"},
     .kind = KVCL_OPT_STRING,
     AT(model.n_gpu_layers),
     .arg = "N",
     .help = "as in llama.cpp: 0 is --device cpu, any other number leaves the default device"},
    KVCL_ROW_THREADS(run_opts),
    KVCL_ROW_BATCH(run_opts),
    {.names = {"-ub", "--ubatch-size"},
     .kind = KVCL_OPT_INT,
     AT(model.n_ubatch),
     .arg = "N",
     .max = 65536,
     .help = "as -b; the smaller of the two counts"},
    KVCL_ROWS_CACHE(run_opts),
    KVCL_ROW_KV_ERROR(run_opts),
    KVCL_ROWS_CACHE_TYPES(run_opts),
    KVCL_ROWS_COMMON(run_opts),
};

/* One run: what it made, for the timings. */
typedef struct run {
    kvcl_app app;
    const run_opts *o;
    char *text;
    size_t n_text;
    int32_t *tokens;
    size_t n_tokens;
    float *logits;
    kvcl_sampler *sampler;
    kvcl_stream out;
    uint64_t seed;
    uint32_t n_made;
    uint64_t begin_ns, loaded_ns, prefilled_ns, first_ns, end_ns;
    const char *why_stopped;
} run;

/* ---- input --------------------------------------------------------------------------------- */

static kvcl_status read_prompt(run *r, const kvcl_opt_result *parsed)
{
    const run_opts *o = r->o;
    kvcl_ctx *ctx = r->app.ctx;
    const char *prompt = o->prompt;
    if (parsed->n_pos > 0) {
        KVCL_CHECK(ctx, !prompt, KVCL_E_ARG,
                   "'%s' and -p are both given; which one is the prompt? Give one of them",
                   parsed->pos[0]);
        prompt = parsed->pos[0];
    }
    KVCL_TRY(kvcl_read_text(ctx, prompt, o->file, &r->text, &r->n_text));
    if (o->escape && !o->file)
        r->n_text = kvcl_unescape(r->text, r->n_text);
    /* editors end a file with a line break that is not meant as part of the prompt */
    if (o->file && r->n_text > 0 && r->text[r->n_text - 1] == '\n')
        r->text[--r->n_text] = 0;
    size_t bad = kvcl_utf8_first_bad(r->text, r->n_text);
    if (bad < r->n_text && !o->common.quiet)
        kvcl_app_note(&r->app,
                      "warning: the prompt is not valid UTF-8 at byte %zu; its stray bytes are "
                      "taken as they are (convert it with iconv if that is not meant)",
                      bad);
    return KVCL_OK;
}

static kvcl_status tokenise(run *r)
{
    kvcl_ctx *ctx = r->app.ctx;
    const kvcl_model_info *info = kvcl_model_get_info(r->app.model);
    kvcl_tokenize_options opt = {.add_bos = -1, .control = r->o->control};
    KVCL_TRY(kvcl_tokenize_with(r->app.model, r->text, r->n_text, &opt, &r->tokens, &r->n_tokens));
    if (r->n_tokens == 0 && info->bos_id >= 0) {
        kvcl_tokens_free(r->app.model, r->tokens);
        r->tokens = NULL;
        KVCL_TRY(kvcl_tokenize(r->app.model, "", 0, 1, &r->tokens, &r->n_tokens));
    }
    KVCL_CHECK(ctx, r->n_tokens > 0, KVCL_E_ARG,
               "the prompt is empty and this model has no token to begin with; give a prompt with "
               "-p or -f");
    return KVCL_OK;
}

static uint64_t pick_seed(int64_t wanted)
{
    if (wanted >= 0)
        return (uint64_t)wanted;
    uint64_t x = kvcl_os_now_ns() ^ (uint64_t)time(NULL) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 31;
    return x & 0xffffffffu;
}

static kvcl_status open_sampler(run *r)
{
    const run_opts *o = r->o;
    kvcl_sampler_options s = kvcl_sampler_defaults();
    s.temp = (float)o->temp;
    s.top_k = (int32_t)o->top_k;
    s.top_p = (float)o->top_p;
    s.min_p = (float)o->min_p;
    s.repeat_penalty = (float)o->repeat_penalty;
    s.repeat_last_n = (int32_t)o->repeat_last_n;
    s.seed = r->seed = pick_seed(o->seed);
    return kvcl_sampler_create(r->app.ctx, &s, kvcl_model_get_info(r->app.model)->n_vocab,
                               &r->sampler);
}

/* ---- the run ------------------------------------------------------------------------------- */

static kvcl_status load(run *r, const kvcl_opt_result *parsed)
{
    kvcl_app *app = &r->app;
    KVCL_TRY(read_prompt(r, parsed));
    KVCL_TRY(kvcl_app_open_device(app, &r->o->model, &r->o->cache));
    KVCL_TRY(tokenise(r));
    KVCL_TRY(open_sampler(r));
    kvcl_session_options s = kvcl_app_session_options(&r->o->model);
    KVCL_TRY(kvcl_app_open_session(app, &r->o->cache, r->tokens, r->n_tokens, &s));
    KVCL_TRY(kvcl_check_fits(app, r->n_tokens, kvcl_session_n_ctx(app->session)));
    void *p;
    KVCL_TRY(kvcl_mem_array(app->ctx, kvcl_model_get_info(app->model)->n_vocab, sizeof(float),
                            "logits", &p));
    r->logits = p;
    r->loaded_ns = kvcl_os_now_ns();
    return KVCL_OK;
}

static kvcl_status prefill(run *r)
{
    kvcl_progress progress;
    kvcl_progress_init(&progress, &r->app, "prefill", "tokens");
    kvcl_status st = kvcl_session_prefill(r->app.session, r->tokens, (uint32_t)r->n_tokens, 1,
                                          r->logits, kvcl_progress_prefill, &progress);
    kvcl_progress_end(&progress);
    KVCL_TRY(st);
    for (size_t i = 0; i < r->n_tokens; i++)
        kvcl_sampler_accept(r->sampler, r->tokens[i]);
    r->prefilled_ns = kvcl_os_now_ns();
    return KVCL_OK;
}

static kvcl_status generate(run *r)
{
    kvcl_session *s = r->app.session;
    const uint32_t limit = r->o->n_predict < 0 ? UINT32_MAX : (uint32_t)r->o->n_predict;
    while (r->n_made < limit) {
        int32_t token;
        const char *bytes;
        size_t n;
        KVCL_TRY(kvcl_sampler_pick(r->sampler, r->logits, &token));
        if (!r->o->ignore_eos && kvcl_token_is_end(r->app.model, token)) {
            r->why_stopped = "end token";
            break;
        }
        KVCL_TRY(kvcl_token_bytes(r->app.model, token, &bytes, &n));
        kvcl_stream_put(&r->out, bytes, n);
        if (r->n_made++ == 0)
            r->first_ns = kvcl_os_now_ns();
        if (r->n_made == limit)
            break;
        if (kvcl_interrupted())
            return KVCL_E_INTERRUPTED;
        if (ferror(stdout))
            return KVCL_OK; /* told at the end */
        if (kvcl_session_n_tokens(s) == kvcl_session_n_ctx(s)) {
            r->why_stopped = "context full";
            break;
        }
        KVCL_TRY(kvcl_session_decode(s, token, r->logits));
    }
    return KVCL_OK;
}

static void echo_prompt(run *r)
{
    if (!r->o->display_prompt || r->n_text == 0)
        return;
    if (r->app.out_color)
        fputs("\033[33m", stdout);
    kvcl_stream_put(&r->out, r->text, r->n_text);
    if (r->app.out_color)
        fputs("\033[0m", stdout);
    fflush(stdout);
}

/* ---- timings ------------------------------------------------------------------------------- */

static double rate(double n, uint64_t ns) { return ns ? n / kvcl_seconds(ns) : 0; }

static void print_load(const run *r)
{
    const kvcl_app *app = &r->app;
    const kvcl_model_info *m = kvcl_model_get_info(app->model);
    const kvcl_device_info *d = kvcl_device_get_info(app->dev);
    kvcl_cache_stats st;
    char weights[32], cache[32], disk[32];
    kvcl_session_cache_stats(app->session, &st);
    kvcl_show_size(m->tensor_bytes, weights, sizeof weights);
    kvcl_show_size(kvcl_session_cache_bytes(app->session), cache, sizeof cache);
    kvcl_show_size(st.disk_bytes, disk, sizeof disk);
    kvcl_app_note(app, "load         %8.1f ms   %s, %s of weights, on %s (%s)",
                  kvcl_seconds(r->loaded_ns - r->begin_ns) * 1e3, m->name, weights, d->id,
                  d->detail);
    kvcl_app_note(app, "cache        %8u of %u tokens, %s%s%s (%s)",
                  kvcl_session_n_tokens(app->session), kvcl_session_n_ctx(app->session), cache,
                  st.disk_bytes ? " and on disk " : "", st.disk_bytes ? disk : "",
                  app->cache_words);
    kvcl_app_note_cache(app, app->session);
}

static void print_timings(const run *r)
{
    const kvcl_app *app = &r->app;
    if (r->prefilled_ns)
        kvcl_app_note_dropped(app, app->session);
    if (r->o->no_timings || r->o->common.quiet || !r->loaded_ns)
        return;
    print_load(r);
    if (!r->prefilled_ns)
        return;
    uint64_t prefill_ns = r->prefilled_ns - r->loaded_ns;
    kvcl_app_note(app, "prefill      %8.1f ms   %zu tokens, %.1f tokens/s",
                  kvcl_seconds(prefill_ns) * 1e3, r->n_tokens,
                  rate((double)r->n_tokens, prefill_ns));
    if (r->n_made > 0)
        kvcl_app_note(app, "first token  %8.1f ms   after the start",
                      kvcl_seconds(r->first_ns - r->begin_ns) * 1e3);
    if (r->n_made > 1) {
        uint64_t ns = r->end_ns - r->first_ns;
        double n = (double)r->n_made - 1;
        double gb = (double)kvcl_engine_weight_bytes_per_token(app->engine) * n * 1e-9;
        kvcl_app_note(app,
                      "decode       %8.1f ms   %.0f tokens, %.1f tokens/s, %.1f GB/s of weights",
                      kvcl_seconds(ns) * 1e3, n, rate(n, ns), rate(gb, ns));
    }
    if (r->o->temp > 0)
        kvcl_app_note(app, "seed         %llu", (unsigned long long)r->seed);
}

static void print_why_stopped(const run *r)
{
    if (!r->why_stopped)
        return;
    if (strcmp(r->why_stopped, "context full") == 0) {
        uint32_t n = kvcl_session_n_ctx(r->app.session);
        uint32_t most = kvcl_model_get_info(r->app.model)->n_ctx_train;
        if (n < most)
            kvcl_app_note(&r->app,
                          "stopped: the context of %u tokens is full; -c %u is what this model "
                          "was made for",
                          n, most);
        else
            kvcl_app_note(&r->app, "stopped: the context of %u tokens, this model's limit, is full",
                          n);
    } else if (r->app.common->verbose > 0) {
        kvcl_app_note(&r->app, "stopped: %s", r->why_stopped);
    }
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static kvcl_status whole_run(run *r, const kvcl_opt_result *parsed)
{
    KVCL_TRY(load(r, parsed));
    kvcl_interrupt_catch();
    /* on a terminal the line of progress would wipe the prompt's last line */
    bool late = r->app.out_tty && r->app.err_tty;
    if (!late)
        echo_prompt(r);
    kvcl_status st = prefill(r);
    if (late)
        echo_prompt(r);
    if (st == KVCL_OK)
        st = generate(r);
    r->end_ns = kvcl_os_now_ns();
    kvcl_stream_end(&r->out);
    if (r->app.out_tty && r->out.last != '\n')
        puts("");
    return st;
}

static int run_main(const void *values, const kvcl_opt_result *parsed)
{
    const run_opts *o = values;
    run r = {.o = o, .begin_ns = kvcl_os_now_ns()};
    int code;
    if (o->list_devices)
        return kvcl_devices_list(&o->common, parsed);
    if (!kvcl_app_open(&r.app, &o->common, &o->model, parsed, &code))
        return code;
    kvcl_stream_init(&r.out, stdout);
    kvcl_status st = whole_run(&r, parsed);
    if (st == KVCL_OK || st == KVCL_E_INTERRUPTED) {
        print_why_stopped(&r);
        print_timings(&r);
    }
    code = kvcl_app_finish(&r.app, st);
    if (code == 0)
        code = kvcl_app_finish_stdout(&r.app);
    kvcl_sampler_free(r.sampler);
    kvcl_tokens_free(r.app.model, r.tokens);
    kvcl_mem_free(r.app.ctx, r.logits);
    kvcl_mem_free(r.app.ctx, r.text);
    kvcl_app_close(&r.app);
    return code;
}

const kvcl_command kvcl_cmd_run = {
    .name = "run",
    .summary = "Continues a text",
    .synopsis = "[-m FILE] [-p TEXT | -f FILE | TEXT] [option ...]",
    .examples =
        "  kvcl run -p 'It is a truth universally acknowledged' -n 40\n"
        "  kvcl run -m model.gguf -f prompt.txt --temp 0     # greedy: the same text everywhere\n"
        "  echo 'Once upon a time' | kvcl run -f - -s 7      # prompt from a pipe, fixed seed\n"
        "  kvcl run --device opencl:nvidia:0 -p Hello        # on a named device\n"
        "  kvcl run --cache small -f long.txt -v             # old tokens in 2.6 bits\n"
        "  kvcl run --kv-error .05 -f long.txt               # in as few as cost 5 % in attention\n"
        "  kvcl run --tier hot=raw:512 --tier cold=cpu:quant4 -f long.txt\n"
        "  kvcl run --no-display-prompt -q -f p.txt >out.txt # nothing but the new text\n",
    .notes = "The text goes to standard output, everything else to standard error. The first "
             "Ctrl-C ends the text and prints the timings, the second ends the program.\n"
             "Every device of class exact computes the same bits, so the same prompt, options and "
             "seed give the same text on each of them; see 'kvcl compare'. The cache's codecs are "
             "part of those options, where its tiers live is not: 'kvcl plan' tells what a cache "
             "takes.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(run_opts),
    .max_pos = 1,
    .run = run_main,
};
