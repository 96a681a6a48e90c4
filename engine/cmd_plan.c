/* cmd_plan.c - kvcl plan: the memory of a model and its cache, told before anything is allocated.
 */
#include "cmd.h"
#include "cmd_table.h"

#include "os.h"
#include "probe.h"

#include <stddef.h>

typedef struct plan_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    int64_t n_prompt;
    bool json;
} plan_opts;

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "What is planned"},
    KVCL_ROW_MODEL(plan_opts),
    KVCL_ROW_CTX(plan_opts),
    {.names = {"--prompt-tokens"},
     .kind = KVCL_OPT_INT,
     .offset = offsetof(plan_opts, n_prompt),
     .arg = "N",
     .max = 16777216,
     .help =
         "tokens of the prompt, which decide whether small and smallest can learn from it; 0: as "
         "many as the context"},
    KVCL_ROWS_DEVICE(plan_opts),
    KVCL_ROW_THREADS(plan_opts),
    KVCL_ROW_BATCH(plan_opts),
    KVCL_ROWS_CACHE(plan_opts),
    KVCL_ROWS_CACHE_TYPES(plan_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    {.names = {"--json"},
     .kind = KVCL_OPT_FLAG,
     .offset = offsetof(plan_opts, json),
     .help = "as JSON on standard output"},
    KVCL_ROWS_COMMON(plan_opts),
};

typedef struct plan_run {
    kvcl_app app;
    const plan_opts *o;
    kvcl_session_options s;
    uint64_t program_bytes; /* 0: not known */
} plan_run;

static const char *text_or(const char *s, const char *other) { return s && *s ? s : other; }

static uint64_t bytes_on(const kvcl_session_plan *p, const char *device)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < p->n_rows; i++)
        sum += strcmp(p->rows[i].device, device) == 0 ? p->rows[i].bytes : 0;
    return sum;
}

static void add_line(kvcl_table *t, const char *device, const char *what, uint64_t bytes)
{
    char size[32];
    kvcl_show_size(bytes, size, sizeof size);
    kvcl_table_add(t);
    kvcl_table_set(t, 0, "%s", device);
    kvcl_table_set(t, 1, "%s", what);
    kvcl_table_set(t, 2, "%llu", (unsigned long long)bytes);
    kvcl_table_set(t, 3, "%s", size);
}

/* What the program has resident before it allocates for a session: binary, libraries, the model's
 * vocabulary, threads with their stacks and scratch.  Measured, here, where 'kvcl run' has done the
 * same things so far. */
static kvcl_status measure_program(plan_run *r)
{
    kvcl_queue *q;
    KVCL_TRY(kvcl_queue_create(r->app.dev, &q));
    r->program_bytes = kvcl_os_process_bytes(false);
    kvcl_queue_free(q);
    return KVCL_OK;
}

/* The i-th device with something on it; NULL behind the last. */
static const kvcl_dev *device_at(const kvcl_app *app, size_t i)
{
    for (size_t k = 0; k <= app->n_tier_devs; k++) {
        const kvcl_dev *dev = k == 0 ? app->dev : app->tier_devs[k - 1];
        if (bytes_on(&app->plan.sizes, kvcl_device_get_info(dev)->id) && i-- == 0)
            return dev;
    }
    return NULL;
}

static void print_table(const plan_run *r)
{
    const kvcl_app *app = &r->app;
    const kvcl_session_plan *p = &app->plan.sizes;
    const kvcl_model_info *m = kvcl_model_get_info(app->model);
    const kvcl_dev *dev;
    kvcl_table t;
    kvcl_table_init(&t, "device|what|>bytes|>");
    for (uint32_t i = 0; i < p->n_rows; i++)
        add_line(&t, p->rows[i].device, p->rows[i].what, p->rows[i].bytes);
    for (size_t i = 0; (dev = device_at(app, i)) != NULL; i++)
        add_line(&t, kvcl_device_get_info(dev)->id, "in all",
                 bytes_on(p, kvcl_device_get_info(dev)->id));
    if (p->disk_bytes)
        add_line(&t, "disk", "in all", p->disk_bytes);
    if (r->program_bytes)
        add_line(&t, "host", "the program itself", r->program_bytes);
    printf("%s, context of %u tokens, prompts in steps of %u: cache %s\n\n",
           text_or(m->name, m->arch), r->s.n_ctx, r->s.n_batch ? r->s.n_batch : 512,
           app->cache_words);
    kvcl_table_print(&t, stdout, false, app->out_color);
    char cache[32], total[32], memory[32], disk[32];
    kvcl_show_size(p->cache_bytes, cache, sizeof cache);
    kvcl_show_size(p->total_bytes, total, sizeof total);
    kvcl_show_size(p->disk_bytes, disk, sizeof disk);
    printf("\ncache %s%s%s, %.2f bits an element; in all %s of memory\n", cache,
           p->disk_bytes ? " and on disk " : "", p->disk_bytes ? disk : "", p->bits_per_elem,
           total);
    for (size_t i = 0; (dev = device_at(app, i)) != NULL; i++) {
        const kvcl_device_info *d = kvcl_device_get_info(dev);
        kvcl_show_size(d->mem_bytes, memory, sizeof memory);
        printf("%s has %s (%s)%s\n", d->id, memory, d->name,
               d->kind == KVCL_KIND_CPU && dev == app->dev ? "; weights are mapped from the file"
                                                           : "");
    }
    if (app->plan.read_s > 0)
        printf("reading a full cache takes about %.2f ms per token\n", app->plan.read_s * 1e3);
    for (uint32_t i = 0; i < app->plan.n_reasons; i++)
        printf("why: %s\n", app->plan.reasons[i]);
}

static json_t *tiers_json(const plan_run *r)
{
    const kvcl_planner_choice *c = &r->app.plan.choice;
    json_t *list = json_array();
    for (uint32_t i = 0; i < c->n_tiers; i++) {
        const kvcl_dev *dev = r->s.tiers[i].dev ? r->s.tiers[i].dev : r->app.dev;
        const char *where = c->tiers[i].on_disk ? KVCL_WISH_DISK : kvcl_device_get_info(dev)->id;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I}", "tier",
                                              kvcl_wish_names[c->tiers[i].wish], "device", where,
                                              "codec", c->tiers[i].codec, "tokens",
                                              (json_int_t)c->tiers[i].tokens));
    }
    return list;
}

static kvcl_status print_json(const plan_run *r)
{
    const kvcl_app *app = &r->app;
    const kvcl_session_plan *p = &app->plan.sizes;
    const kvcl_model_info *m = kvcl_model_get_info(app->model);
    json_t *rows = json_array(), *devices = json_array(), *reasons = json_array();
    const kvcl_dev *dev;
    for (uint32_t i = 0; i < p->n_rows; i++)
        json_array_append_new(rows,
                              json_pack("{s:s, s:s, s:I}", "device", p->rows[i].device, "what",
                                        p->rows[i].what, "bytes", (json_int_t)p->rows[i].bytes));
    for (size_t i = 0; (dev = device_at(app, i)) != NULL; i++) {
        const kvcl_device_info *d = kvcl_device_get_info(dev);
        json_array_append_new(devices, json_pack("{s:s, s:I, s:I}", "device", d->id, "bytes",
                                                 (json_int_t)bytes_on(p, d->id), "mem_bytes",
                                                 (json_int_t)d->mem_bytes));
    }
    for (uint32_t i = 0; i < app->plan.n_reasons; i++)
        json_array_append_new(reasons, json_string(app->plan.reasons[i]));
    json_t *root = json_pack(
        "{s:s, s:o, s:I, s:s, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "schema",
        "kvcl.plan/1", "model", kvcl_json_text(m->name, strlen(m->name)), "n_ctx",
        (json_int_t)r->s.n_ctx, "preset", app->plan.choice.name, "cache", app->cache_words, "tiers",
        tiers_json(r), "rows", rows, "devices", devices, "weight_bytes",
        (json_int_t)p->weight_bytes, "cache_bytes", (json_int_t)p->cache_bytes, "total_bytes",
        (json_int_t)p->total_bytes, "disk_bytes", (json_int_t)p->disk_bytes, "program_bytes",
        (json_int_t)r->program_bytes, "bits_per_element", p->bits_per_elem,
        "read_seconds_per_token", app->plan.read_s);
    if (root)
        json_object_set_new(root, "reasons", reasons);
    else
        json_decref(reasons);
    return kvcl_json_print(app->ctx, root);
}

static kvcl_status run_plan(plan_run *r)
{
    const plan_opts *o = r->o;
    kvcl_app *app = &r->app;
    kvcl_cache_wish wish;
    kvcl_probe probe;
    KVCL_TRY(kvcl_cache_wish_read(app->ctx, &o->cache, &wish));
    KVCL_TRY(kvcl_app_open_device(app, &o->model, &o->cache));
    KVCL_TRY(measure_program(r));
    KVCL_TRY(kvcl_probe_get(app->dev, KVCL_PROBE_ONCE, &probe)); /* so that speeds can be told */
    r->s = kvcl_app_session_options(&o->model);
    wish.n_prompt = o->n_prompt ? (uint32_t)o->n_prompt : r->s.n_ctx ? r->s.n_ctx : 8192;
    KVCL_TRY(kvcl_app_plan_cache(app, &wish, &r->s, &app->plan, app->cache_words,
                                 sizeof app->cache_words));
    if (o->json)
        return print_json(r);
    print_table(r);
    return KVCL_OK;
}

static int plan_main(const void *values, const kvcl_opt_result *parsed)
{
    const plan_opts *o = values;
    plan_run r = {.o = o};
    int code;
    if (!kvcl_app_open(&r.app, &o->common, &o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&r.app, run_plan(&r));
    if (code == 0)
        code = kvcl_app_finish_stdout(&r.app);
    kvcl_app_close(&r.app);
    return code;
}

const kvcl_command kvcl_cmd_plan = {
    .name = "plan",
    .summary = "Tells what memory a model and its cache will take",
    .synopsis = "[-m FILE] [-c N] [--cache PRESET] [--tier ...] [--cache-mem SIZE] [option ...]",
    .examples =
        "  kvcl plan -m model.gguf -c 32768                 # raw cache\n"
        "  kvcl plan -m model.gguf -c 32768 --cache small   # old tokens in 2.6 bits\n"
        "  kvcl plan -c 8192 --cache-mem 64M                # the best preset that fits\n"
        "  kvcl plan --tier hot=gpu:raw:256 --tier cold=cpu:quant4\n"
        "  kvcl plan --tier hot=raw:256 --tier cold=disk:quant4   # bytes of memory and disk\n",
    .notes = "Nothing is computed, no weights are copied and no files made; devices are opened "
             "and, once, probed "
             "for their speed ('kvcl devices --probe'). What stands in the table is what 'kvcl "
             "run' with the same options allocates, for a prompt of --prompt-tokens.\n"
             "What does not fit is refused with the numbers: exit code 6.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(plan_opts),
    .run = plan_main,
};
