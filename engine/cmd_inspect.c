/* cmd_inspect.c - kvcl inspect: what a GGUF file holds. */
#include "cmd.h"

#include "gguf.h"

#include <stddef.h>

typedef struct inspect_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    bool json, tensors, metadata;
} inspect_opts;

#define AT(member) .offset = offsetof(inspect_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    KVCL_ROW_MODEL(inspect_opts),
    {.names = {"--metadata"}, .kind = KVCL_OPT_FLAG, AT(metadata), .help = "the metadata only"},
    {.names = {"--tensors"}, .kind = KVCL_OPT_FLAG, AT(tensors), .help = "the tensors only"},
    KVCL_ROW_JSON(inspect_opts),
    KVCL_ROWS_COMMON(inspect_opts),
};

/* ---- text ---------------------------------------------------------------------------------- */

static void print_summary(const kvcl_gguf *g)
{
    uint64_t params = 0, bytes = 0;
    char size[32], file[32];
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        params += g->tensors[i].n_elems;
        bytes += g->tensors[i].bytes;
    }
    kvcl_show_size(bytes, size, sizeof size);
    kvcl_show_size(g->file_bytes, file, sizeof file);
    printf("%s: GGUF version %u, %s, alignment %u\n", g->path, g->version, file, g->alignment);
    printf("%u tensors, %.2f M values, %s; %u keys\n", g->n_tensors, (double)params * 1e-6, size,
           g->n_kv);
}

static void print_metadata(const kvcl_gguf *g, bool color)
{
    int width = 0;
    for (uint32_t i = 0; i < g->n_kv; i++)
        if (g->kv[i].key.n < 48)
            width = (int)kvcl_max_size((size_t)width, g->kv[i].key.n);
    printf("\n%sMetadata%s\n", color ? "\033[1m" : "", color ? "\033[0m" : "");
    for (uint32_t i = 0; i < g->n_kv; i++) {
        const kvcl_gguf_kv *kv = &g->kv[i];
        char key[KVCL_GGUF_MAX_KEY + 1], value[160];
        kvcl_str_show(kv->key, key, sizeof key);
        kvcl_gguf_format(kv, value, sizeof value);
        printf("  %-*s  %-7s %s\n", width, key, kvcl_gguf_type_name((uint32_t)kv->type), value);
    }
}

static void print_tensors(const kvcl_gguf *g, bool color)
{
    printf("\n%sTensors%s (row length first)\n", color ? "\033[1m" : "", color ? "\033[0m" : "");
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const kvcl_gguf_tensor *t = &g->tensors[i];
        char dims[96];
        int n = 0;
        for (uint32_t d = 0; d < t->n_dims; d++)
            n += snprintf(dims + n, sizeof dims - (size_t)n, d ? " x %llu" : "%llu",
                          (unsigned long long)t->dims[d]);
        printf("  %-32s  %-5s %-22s %12zu bytes at %zu\n", t->name, kvcl_type_name(t->type), dims,
               t->bytes, t->offset);
    }
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static json_t *metadata_json(const kvcl_gguf *g)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < g->n_kv; i++) {
        const kvcl_gguf_kv *kv = &g->kv[i];
        char value[1024];
        kvcl_gguf_format(kv, value, sizeof value);
        json_array_append_new(
            list,
            json_pack("{s:o, s:s, s:s, s:I, s:o}", "key", kvcl_json_text(kv->key.s, kv->key.n),
                      "type", kvcl_gguf_type_name((uint32_t)kv->type), "element_type",
                      kvcl_gguf_type_name((uint32_t)kv->elem_type), "count", (json_int_t)kv->n,
                      "value", kvcl_json_text(value, strlen(value))));
    }
    return list;
}

static json_t *tensors_json(const kvcl_gguf *g)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const kvcl_gguf_tensor *t = &g->tensors[i];
        json_t *dims = json_array();
        for (uint32_t d = 0; d < t->n_dims; d++)
            json_array_append_new(dims, json_integer((json_int_t)t->dims[d]));
        json_array_append_new(list,
                              json_pack("{s:o, s:s, s:o, s:I, s:I}", "name",
                                        kvcl_json_text(t->name, strlen(t->name)), "type",
                                        kvcl_type_name(t->type), "dims", dims, "bytes",
                                        (json_int_t)t->bytes, "offset", (json_int_t)t->offset));
    }
    return list;
}

static json_t *report_json(const kvcl_gguf *g, bool metadata, bool tensors)
{
    json_t *root =
        json_pack("{s:s, s:o, s:I, s:I, s:I}", "schema", "kvcl.inspect/1", "file",
                  kvcl_json_text(g->path, strlen(g->path)), "version", (json_int_t)g->version,
                  "alignment", (json_int_t)g->alignment, "file_bytes", (json_int_t)g->file_bytes);
    if (metadata)
        json_object_set_new(root, "metadata", metadata_json(g));
    if (tensors)
        json_object_set_new(root, "tensors", tensors_json(g));
    return root;
}

/* ---- the subcommand ------------------------------------------------------------------------ */

static kvcl_status inspect(kvcl_app *app, const inspect_opts *o, const kvcl_opt_result *parsed)
{
    kvcl_gguf g;
    char path[4096];
    kvcl_model_opts model = o->model;
    if (parsed->n_pos > 0)
        model.model = parsed->pos[0];
    KVCL_TRY(kvcl_app_model_path(app, &model, path, sizeof path));
    KVCL_TRY(kvcl_gguf_open(app->ctx, path, &g));
    const bool metadata = o->metadata || !o->tensors, tensors = o->tensors || !o->metadata;
    kvcl_status st = KVCL_OK;
    if (o->json) {
        st = kvcl_json_print(app->ctx, report_json(&g, metadata, tensors));
    } else {
        print_summary(&g);
        if (metadata)
            print_metadata(&g, app->out_color);
        if (tensors)
            print_tensors(&g, app->out_color);
    }
    kvcl_gguf_close(&g);
    return st;
}

static int inspect_main(const void *values, const kvcl_opt_result *parsed)
{
    const inspect_opts *o = values;
    kvcl_app app;
    int code;
    if (!kvcl_app_open(&app, &o->common, NULL, parsed, &code))
        return code;
    code = kvcl_app_finish(&app, inspect(&app, o, parsed));
    if (code == 0)
        code = kvcl_app_finish_stdout(&app);
    kvcl_app_close(&app);
    return code;
}

const kvcl_command kvcl_cmd_inspect = {
    .name = "inspect",
    .summary = "Shows what a GGUF file holds",
    .synopsis = "[FILE | -m FILE] [--metadata | --tensors] [--json]",
    .examples = "  kvcl inspect model.gguf              # metadata and tensors\n"
                "  kvcl inspect model.gguf --tensors    # names, types, shapes\n"
                "  kvcl inspect model.gguf --json | jq '.metadata[].key'\n",
    .notes = "The whole header is checked on the way: a file that this shows without complaint has "
             "no length, count or offset outside itself. Models of other architectures than those "
             "that run are shown too.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(inspect_opts),
    .max_pos = 1,
    .run = inspect_main,
};
