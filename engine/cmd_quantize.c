/* cmd_quantize.c - kvcl quantize: a copy of a model with smaller weights. */
#include "cmd.h"
#include "cmd_stream.h"

#include "os.h"

#include <stddef.h>

typedef struct quantize_opts {
    kvcl_common_opts common;
} quantize_opts;

static const kvcl_opt options[] = {
    KVCL_ROWS_COMMON(quantize_opts),
};

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    kvcl_progress_show(user, done / 1000000, total / 1000000);
}

static uint64_t file_bytes(kvcl_app *app, const char *path)
{
    kvcl_os_map map;
    if (kvcl_os_map_open(app->ctx, path, &map) != KVCL_OK)
        return 0;
    uint64_t n = map.bytes;
    kvcl_os_map_close(&map);
    return n;
}

static kvcl_status quantize(kvcl_app *app, const kvcl_opt_result *parsed)
{
    const char *in = parsed->pos[0], *out = parsed->pos[1];
    kvcl_type type;
    KVCL_TRY(kvcl_type_parse(app->ctx, parsed->pos[2], &type));
    kvcl_progress progress;
    kvcl_progress_init(&progress, app, "quantize", "MB");
    uint64_t begin = kvcl_os_now_ns();
    kvcl_status st = kvcl_quantize_file(app->ctx, in, out, type, on_progress, &progress);
    kvcl_progress_end(&progress);
    KVCL_TRY(st);
    char before[32], after[32];
    kvcl_show_size(file_bytes(app, in), before, sizeof before);
    kvcl_show_size(file_bytes(app, out), after, sizeof after);
    kvcl_app_note(app, "%s: %s, from %s, in %.1f s", out, after, before,
                  kvcl_seconds(kvcl_os_now_ns() - begin));
    return KVCL_OK;
}

static int quantize_main(const void *values, const kvcl_opt_result *parsed)
{
    const quantize_opts *o = values;
    kvcl_app app;
    int code;
    if (!kvcl_app_open(&app, &o->common, NULL, parsed, &code))
        return code;
    code = kvcl_app_finish(&app, quantize(&app, parsed));
    kvcl_app_close(&app);
    return code;
}

const kvcl_command kvcl_cmd_quantize = {
    .name = "quantize",
    .summary = "Writes a copy of a model with smaller weights",
    .synopsis = "IN.gguf OUT.gguf TYPE",
    .examples = "  kvcl quantize model-f16.gguf model-q8_0.gguf Q8_0  # 8.5 bits per weight\n"
                "  kvcl quantize model-f16.gguf model-q5_0.gguf Q5_0  # 5.5 bits\n"
                "  kvcl quantize model-f16.gguf model-q4_0.gguf Q4_0  # 4.5 bits\n",
    .notes =
        "TYPE is Q8_0, Q5_0, Q4_0, F16 or F32. Matrices get the type, vectors stay F32. The "
        "copy appears under its name complete or not at all, and replaces a file of that name.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(quantize_opts),
    .min_pos = 3,
    .max_pos = 3,
    .run = quantize_main,
};
