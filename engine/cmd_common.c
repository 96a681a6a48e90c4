/* cmd_common.c - what the subcommands open, and how they speak on standard error.  See cmd.h. */
#include "cmd.h"

#include "mem.h"
#include "os.h"

#include <stdatomic.h>
#include <stdlib.h>

#define SHIPPED_MODEL "ref-llama-29m-q5_0.gguf"
#define PATH_CAP 4096

/* A signal handler has no argument for its context: this flag is the program's only variable. */
static atomic_bool interrupted;

static void on_interrupt(void) { atomic_store(&interrupted, true); }
void kvcl_interrupt_catch(void) { kvcl_os_on_interrupt(on_interrupt); }
bool kvcl_interrupted(void) { return atomic_load(&interrupted); }

/* ---- standard error ------------------------------------------------------------------------ */

bool kvcl_color_wanted(const char *mode, bool is_tty)
{
    if (strcmp(mode, "always") == 0 || strcmp(mode, "on") == 0)
        return true;
    if (strcmp(mode, "never") == 0 || strcmp(mode, "off") == 0)
        return false;
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return is_tty && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

static void say(bool color, const char *paint, const char *kind, const char *fmt, va_list ap)
{
    fprintf(stderr, "%skvcl:%s %s", color ? paint : "", color ? "\033[0m" : "", kind);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void kvcl_say(bool color, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(color, "\033[1;31m", "", fmt, ap);
    va_end(ap);
}

void kvcl_app_note(const kvcl_app *app, const char *fmt, ...)
{
    if (app->common->quiet)
        return;
    va_list ap;
    va_start(ap, fmt);
    say(app->err_color, "\033[2m", "", fmt, ap);
    va_end(ap);
}

static void log_line(kvcl_app *app, const char *kind, const char *fmt, ...) KVCL_PRINTF(3, 4);

static void log_line(kvcl_app *app, const char *kind, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(app->err_color, "\033[1;33m", kind, fmt, ap);
    va_end(ap);
}

static void on_log(void *user, kvcl_log_level level, const char *message)
{
    static const char *const kinds[] = {"error: ", "warning: ", "", "debug: "};
    log_line(user, kinds[level], "%s", message);
}

/* ---- opening ------------------------------------------------------------------------------- */

static kvcl_log_level wanted_level(const kvcl_common_opts *c)
{
    if (c->quiet)
        return KVCL_LOG_ERROR;
    int64_t level = c->verbose > 0 ? 1 + c->verbose : c->verbosity;
    return level > 3 ? KVCL_LOG_DEBUG : (kvcl_log_level)level;
}

bool kvcl_app_open(kvcl_app *app, const kvcl_common_opts *common, const kvcl_model_opts *model,
                   const kvcl_opt_result *parsed, int *code)
{
    memset(app, 0, sizeof *app);
    app->common = common;
    app->err_tty = kvcl_os_is_tty(2);
    app->out_tty = kvcl_os_is_tty(1);
    app->err_color = kvcl_color_wanted(common->color, app->err_tty);
    app->out_color = kvcl_color_wanted(common->color, app->out_tty);
    kvcl_ctx_options opt = {.log = on_log, .log_user = app, .log_level = wanted_level(common)};
    if (model) {
        opt.n_threads = (uint32_t)model->n_threads;
        opt.allow_inexact = model->allow_inexact;
    }
    kvcl_status st = kvcl_ctx_create(&opt, &app->ctx);
    if (st != KVCL_OK) {
        if (st == KVCL_E_MEM) /* of anything else the log has told */
            kvcl_say(app->err_color, "%s", kvcl_status_string(st));
        *code = kvcl_status_exit_code(st);
        return false;
    }
    if (parsed && wanted_level(common) >= KVCL_LOG_INFO)
        for (size_t i = 0; i < parsed->n_notes; i++)
            kvcl_app_note(app, "%s", parsed->notes[i]);
    return true;
}

void kvcl_app_close(kvcl_app *app)
{
    kvcl_session_free(app->session);
    kvcl_engine_free(app->engine);
    kvcl_model_close(app->model);
    for (size_t i = 0; i < app->n_tier_devs; i++)
        kvcl_device_close(app->tier_devs[i]);
    app->n_tier_devs = 0;
    kvcl_device_close(app->dev);
    kvcl_ctx_free(app->ctx);
    app->session = NULL;
    app->engine = NULL;
    app->model = NULL;
    app->dev = NULL;
    app->ctx = NULL;
}

static bool is_readable(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f)
        fclose(f);
    return f != NULL;
}

/* The folder of the program, without the last slash; false when unknown. */
static bool program_folder(char *out, size_t cap)
{
    if (!kvcl_os_program_path(out, cap))
        return false;
    char *slash = strrchr(out, '/'), *back = strrchr(out, '\\');
    slash = back && (!slash || back > slash) ? back : slash;
    if (!slash)
        return false;
    *slash = 0;
    return true;
}

kvcl_status kvcl_app_model_path(kvcl_app *app, const kvcl_model_opts *o, char *out, size_t cap)
{
    /* from the program's folder: a build folder in the source tree, an installation */
    static const char *const places[] = {"../models/ref", "../../models/ref", "models/ref",
                                         "../share/kvcl/ref"};
    if (o->model) {
        int n = snprintf(out, cap, "%s", o->model);
        KVCL_CHECK(app->ctx, n > 0 && (size_t)n < cap, KVCL_E_ARG,
                   "-m names no file: its path is empty or too long");
        return KVCL_OK;
    }
    char folder[PATH_CAP];
    if (program_folder(folder, sizeof folder))
        for (size_t i = 0; i < kvcl_array_len(places); i++) {
            int n = snprintf(out, cap, "%s/%s/%s", folder, places[i], SHIPPED_MODEL);
            if (n > 0 && (size_t)n < cap && is_readable(out))
                return KVCL_OK;
        }
    return kvcl_fail(app->ctx, KVCL_E_IO,
                     "the shipped model " SHIPPED_MODEL
                     " is not beside the program; name a GGUF file with -m or KVCL_MODEL");
}

kvcl_status kvcl_app_open_model(kvcl_app *app, const kvcl_model_opts *o)
{
    char path[PATH_CAP];
    KVCL_TRY(kvcl_app_model_path(app, o, path, sizeof path));
    return kvcl_model_open(app->ctx, path, &app->model);
}

/* -ngl 0 means the CPU; llama.cpp's "none" too. */
static const char *wanted_device(kvcl_app *app, const kvcl_model_opts *o)
{
    if (o->device && strcmp(o->device, "none") == 0)
        return "cpu";
    const char *n = o->n_gpu_layers;
    if (!n || o->device)
        return o->device;
    if (strcmp(n, "0") == 0) {
        kvcl_app_note(app, "-ngl 0: running on the device cpu");
        return "cpu";
    }
    kvcl_app_note(app, "-ngl %s: all layers run on one device, the best one; --device chooses", n);
    return NULL;
}

kvcl_status kvcl_app_open_device(kvcl_app *app, const kvcl_model_opts *o,
                                 const kvcl_cache_opts *cache)
{
    char hot[64] = "";
    const char *which = wanted_device(app, o);
    KVCL_CHECK(app->ctx, !which || !strchr(which, ','), KVCL_E_ARG,
               "--device %s: a model runs on one device; name one", which);
    if (cache) {
        kvcl_cache_wish wish;
        KVCL_TRY(kvcl_cache_wish_read(app->ctx, cache, &wish));
        if (!which && wish.tier[KVCL_WISH_HOT].device[0])
            KVCL_TRY(kvcl_cache_device_name(app->ctx, wish.tier[KVCL_WISH_HOT].device, hot));
    }
    KVCL_TRY(kvcl_app_open_model(app, o));
    return kvcl_device_open(app->ctx, hot[0] ? hot : which, &app->dev);
}

kvcl_status kvcl_app_open_engine(kvcl_app *app, const kvcl_model_opts *o)
{
    KVCL_TRY(kvcl_app_open_device(app, o, NULL));
    return kvcl_engine_create(app->model, app->dev, &app->engine);
}

static kvcl_type cache_type(const char *word)
{
    return strcmp(word, "f32") == 0 ? KVCL_F32 : KVCL_F16;
}

kvcl_session_options kvcl_app_session_options(const kvcl_model_opts *o)
{
    kvcl_session_options s = kvcl_session_defaults();
    int64_t batch = o->n_batch;
    if (o->n_ubatch > 0 && (batch == 0 || o->n_ubatch < batch))
        batch = o->n_ubatch;
    s.n_ctx = (uint32_t)o->n_ctx;
    s.n_batch = (uint32_t)batch;
    s.type_k = cache_type(o->type_k);
    s.type_v = cache_type(o->type_v);
    return s;
}

/* ---- the end ------------------------------------------------------------------------------- */

int kvcl_app_finish(kvcl_app *app, kvcl_status st)
{
    if (st == KVCL_OK)
        return 0;
    fflush(stdout);
    const char *sentence = kvcl_last_error(app->ctx);
    if (st == KVCL_E_INTERRUPTED)
        sentence = "interrupted";
    kvcl_say(app->err_color, "%s", *sentence ? sentence : kvcl_status_string(st));
    return kvcl_status_exit_code(st);
}

int kvcl_app_finish_stdout(kvcl_app *app)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    kvcl_say(app->err_color, "standard output cannot be written (disk full, or its reader ended)");
    return kvcl_status_exit_code(KVCL_E_IO);
}

kvcl_status kvcl_check_fits(kvcl_app *app, size_t n, uint32_t n_ctx)
{
    const kvcl_model_info *info = kvcl_model_get_info(app->model);
    if (n_ctx < info->n_ctx_train)
        KVCL_CHECK(app->ctx, n <= n_ctx, KVCL_E_ARG,
                   "the prompt has %zu tokens and the context holds %u; shorten it, or raise -c "
                   "(this model goes up to %u)",
                   n, n_ctx, info->n_ctx_train);
    KVCL_CHECK(app->ctx, n <= n_ctx, KVCL_E_ARG,
               "the prompt has %zu tokens and this model's context holds %u; shorten it", n, n_ctx);
    return KVCL_OK;
}

/* ---- words --------------------------------------------------------------------------------- */

const char *kvcl_exactness_name(kvcl_exactness e)
{
    switch (e) {
    case KVCL_EXACT:
        return "exact";
    case KVCL_EXACT_SLOW:
        return "exact, slow";
    case KVCL_FAST_ONLY:
        return "fast only";
    case KVCL_EXACT_UNTESTED:
        break;
    }
    return "untested";
}

const char *kvcl_kind_name(kvcl_device_kind k)
{
    switch (k) {
    case KVCL_KIND_CPU:
        return "CPU";
    case KVCL_KIND_GPU:
        return "GPU";
    case KVCL_KIND_INTEGRATED:
        return "integrated GPU";
    case KVCL_KIND_OPENCL_CPU:
        return "CPU by OpenCL";
    case KVCL_KIND_OTHER:
        break;
    }
    return "other";
}

void kvcl_show_size(uint64_t bytes, char *out, size_t cap)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 999.5 && u + 1 < kvcl_array_len(units)) {
        v /= 1000;
        u++;
    }
    snprintf(out, cap, u == 0 || v >= 99.95 ? "%.0f %s" : "%.1f %s", v, units[u]);
}
