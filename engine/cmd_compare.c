/* cmd_compare.c - kvcl compare: do all devices compute the same bits? */
#include "cmd_compare.h"
#include "cmd_devices.h"
#include "cmd_table.h"

#include "mem.h"
#include "os.h"

#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>

#define MAX_TARGETS 32
#define MAX_BATCHES 8

typedef struct compare_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    const char *prompt, *file, *tokens, *devices, *batches;
    int64_t n_greedy, limit;
    bool json;
} compare_opts;

#define AT(member) .offset = offsetof(compare_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input"},
    KVCL_ROW_MODEL(compare_opts),
    KVCL_ROWS_TEXT(compare_opts),
    KVCL_ROW_TOKENS(compare_opts),
    {.names = {"--limit-tokens"},
     .kind = KVCL_OPT_INT,
     AT(limit),
     .arg = "N",
     .max = 1e9,
     .def = "512",
     .help = "only the first N tokens of the input; 0: all"},
    {.names = {"-n", "--n-predict"},
     .kind = KVCL_OPT_INT,
     AT(n_greedy),
     .arg = "N",
     .max = 1e6,
     .def = "64",
     .help = "greedy tokens behind the input"},
    {.kind = KVCL_OPT_HEADING, .help = "Devices"},
    {.names = {"-dev", "--device", "--devices"},
     .kind = KVCL_OPT_STRING,
     AT(devices),
     .arg = "LIST",
     .help = "ids, indices or parts of names, comma between; cpu:scalar, cpu:avx2, cpu:avx512, "
             "cpu:neon name the CPU's paths, @2 behind them two threads; default: each path of "
             "this CPU at 1 and all threads, and each OpenCL device that is no CPU"},
    KVCL_ROW_THREADS(compare_opts),
    {.names = {"-b", "--batch", "--batch-size"},
     .kind = KVCL_OPT_STRING,
     AT(batches),
     .arg = "LIST",
     .def = "512",
     .help = "prompt tokens per step; several, with comma between, are compared one by one"},
    KVCL_ROWS_CACHE(compare_opts),
    KVCL_ROWS_CACHE_TYPES(compare_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    KVCL_ROW_JSON(compare_opts),
    KVCL_ROWS_COMMON(compare_opts),
};

typedef struct compare {
    kvcl_app app;
    const compare_opts *o;
    kvcl_compare_input in;
    kvcl_cache_wish wish;
    char targets[MAX_TARGETS][64];
    size_t n_targets;
    bool listed; /* targets were named, so that one that is missing is an error */
    uint32_t batches[MAX_BATCHES];
    size_t n_batches;
    kvcl_compare_result reference;
    kvcl_compare_result *results; /* [n_targets * n_batches] */
    size_t n_results;
} compare;

/* ---- what is compared ---------------------------------------------------------------------- */

static void add_target(compare *c, const char *id, uint32_t n_threads)
{
    if (c->n_targets == MAX_TARGETS)
        return;
    char *t = c->targets[c->n_targets++];
    if (n_threads)
        snprintf(t, sizeof c->targets[0], "%.50s@%u", id, n_threads);
    else
        snprintf(t, sizeof c->targets[0], "%.63s", id);
}

static bool has_part(const char *text, const char *part)
{
    const size_t n = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < n && text[i] &&
               tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == n)
            return true;
    }
    return false;
}

/* Refuses a list with a device that is not there before the reference takes its time. */
static kvcl_status check_targets(compare *c)
{
    kvcl_device_info info[KVCL_MAX_DEVICES];
    size_t n;
    bool all_cpu = true;
    for (size_t t = 0; t < c->n_targets; t++) {
        KVCL_TRY(kvcl_compare_check(c->app.ctx, c->targets[t]));
        all_cpu = all_cpu && strncmp(c->targets[t], "cpu", 3) == 0;
    }
    if (all_cpu)
        return KVCL_OK;
    KVCL_TRY(kvcl_device_list(c->app.ctx, info, KVCL_MAX_DEVICES, &n));
    n = kvcl_min_size(n, KVCL_MAX_DEVICES);
    for (size_t t = 0; t < c->n_targets; t++) {
        const char *which = c->targets[t];
        char *end;
        unsigned long index = strtoul(which, &end, 10);
        bool found = strncmp(which, "cpu", 3) == 0 || (*end == 0 && index < n);
        for (size_t i = 0; i < n && !found; i++)
            found = has_part(info[i].id, which) || has_part(info[i].name, which) ||
                    has_part(info[i].platform, which);
        KVCL_CHECK(c->app.ctx, found, KVCL_E_NO_DEVICE,
                   "no device '%s'; 'kvcl devices' lists what is there", which);
    }
    return KVCL_OK;
}

static kvcl_status named_targets(compare *c)
{
    c->listed = true;
    for (const char *p = c->o->devices; *p;) {
        size_t n = strcspn(p, ",");
        KVCL_CHECK(c->app.ctx, n > 0 && n < sizeof c->targets[0] && c->n_targets < MAX_TARGETS,
                   KVCL_E_ARG,
                   "--devices %s: an entry is empty or too long, or there are more than %d; put "
                   "one comma between ids",
                   c->o->devices, MAX_TARGETS);
        snprintf(c->targets[c->n_targets++], sizeof c->targets[0], "%.*s", (int)n, p);
        p += n + (p[n] == ',');
    }
    return check_targets(c);
}

static kvcl_status all_targets(compare *c)
{
    static const char *const paths[] = {"cpu:scalar", "cpu:avx2", "cpu:avx512", "cpu:neon"};
    kvcl_device_info info[KVCL_MAX_DEVICES];
    size_t n;
    uint32_t threads = (uint32_t)c->o->model.n_threads;
    threads = threads ? threads : kvcl_os_n_cpus();
    for (size_t i = 0; i < kvcl_array_len(paths); i++) {
        if (i > 0 || threads > 1) /* the scalar twin on all threads is the reference */
            add_target(c, paths[i], 1);
        if (i > 0 && threads > 1)
            add_target(c, paths[i], threads);
    }
    KVCL_TRY(kvcl_device_list(c->app.ctx, info, KVCL_MAX_DEVICES, &n));
    for (size_t i = 0; i < n && i < KVCL_MAX_DEVICES; i++)
        if (info[i].kind != KVCL_KIND_CPU && info[i].kind != KVCL_KIND_OPENCL_CPU)
            add_target(c, info[i].id, 0);
    return KVCL_OK;
}

static kvcl_status parse_batches(compare *c)
{
    for (const char *p = c->o->batches; *p;) {
        char *end;
        unsigned long n = strtoul(p, &end, 10);
        bool ok = end != p && *p >= '0' && *p <= '9' && (*end == ',' || !*end) && n >= 1 &&
                  n <= 65536 && c->n_batches < MAX_BATCHES;
        KVCL_CHECK(c->app.ctx, ok, KVCL_E_ARG,
                   "--batch %s: at most %d numbers from 1 to 65536 with comma between",
                   c->o->batches, MAX_BATCHES);
        c->batches[c->n_batches++] = (uint32_t)n;
        p = end + (*end == ',');
    }
    KVCL_CHECK(c->app.ctx, c->n_batches > 0, KVCL_E_ARG, "--batch is empty; give a number");
    return KVCL_OK;
}

/* What every device must do alike. */
static kvcl_status read_wish(compare *c)
{
    kvcl_cache_wish *w = &c->wish;
    KVCL_TRY(kvcl_cache_wish_read(c->app.ctx, &c->o->cache, w));
    KVCL_CHECK(c->app.ctx, !w->preset || strcmp(w->preset, "auto") != 0 || w->budget_bytes,
               KVCL_E_ARG,
               "--cache auto chooses for each machine; name a preset, or give --cache-mem");
    KVCL_CHECK(c->app.ctx, !w->tier[KVCL_WISH_HOT].device[0], KVCL_E_ARG,
               "--tier hot=%s:...: the hot tier is on the device that is compared; leave its "
               "device out and name it in --devices",
               w->tier[KVCL_WISH_HOT].device);
    c->in.cache = w;
    return KVCL_OK;
}

static kvcl_status prepare(compare *c)
{
    const compare_opts *o = c->o;
    kvcl_compare_input *in = &c->in;
    int32_t *ids;
    size_t n;
    void *p;
    KVCL_TRY(parse_batches(c));
    KVCL_TRY(read_wish(c));
    KVCL_TRY(o->devices ? named_targets(c) : all_targets(c));
    KVCL_CHECK(c->app.ctx, o->prompt || o->file || o->tokens, KVCL_E_ARG,
               "no input: give a text with -p or -f, or ids with --tokens");
    KVCL_TRY(kvcl_app_open_model(&c->app, &o->model));
    KVCL_TRY(kvcl_input_tokens(&c->app, o->prompt, o->file, o->tokens, &ids, &n));
    in->prompt = ids;
    if (o->limit > 0)
        n = kvcl_min_size(n, (size_t)o->limit);
    const kvcl_model_info *info = kvcl_model_get_info(c->app.model);
    in->n_greedy = (uint32_t)o->n_greedy;
    KVCL_CHECK(c->app.ctx, n + in->n_greedy <= info->n_ctx_train, KVCL_E_ARG,
               "%zu tokens and %u greedy ones do not fit into this model's context of %u; take "
               "fewer with --limit-tokens or -n",
               n, in->n_greedy, info->n_ctx_train);
    in->n_prompt = (uint32_t)n;
    in->n_vocab = info->n_vocab;
    in->common = &o->common;
    in->model = &o->model;
    KVCL_TRY(kvcl_mem_array(c->app.ctx, in->n_greedy + 1u, sizeof(int32_t), "tokens", &p));
    in->greedy = p;
    KVCL_TRY(kvcl_mem_array(c->app.ctx, c->n_targets * c->n_batches + 1,
                            sizeof(kvcl_compare_result), "the results", &p));
    c->results = p;
    return kvcl_ref_logits_create(c->app.ctx, n + in->n_greedy, in->n_vocab, &in->ref);
}

/* ---- the passes ---------------------------------------------------------------------------- */

static kvcl_status run_reference(compare *c)
{
    kvcl_compare_result *r = &c->reference;
    snprintf(r->which, sizeof r->which, "cpu:scalar");
    for (size_t i = 0; i < c->n_batches; i++) /* any gives the same bits; the largest is fastest */
        r->batch = kvcl_max_u32(r->batch, c->batches[i]);
    KVCL_TRY(kvcl_compare_pass(&c->in, true, r));
    if (r->status != KVCL_OK)
        return kvcl_fail(c->app.ctx, r->status, "%s", r->error);
    kvcl_app_note(&c->app, "reference cpu:scalar: %.1f tokens/s prefill, %.1f decode",
                  r->prefill_tps, r->decode_tps);
    return KVCL_OK;
}

/* A path that this processor has not is left out of the default list. */
static bool left_out(const compare *c, const kvcl_compare_result *r)
{
    return !c->listed && strncmp(r->which, "cpu:", 4) == 0 && r->status == KVCL_E_UNSUPPORTED;
}

static kvcl_status run_targets(compare *c)
{
    for (size_t b = 0; b < c->n_batches; b++)
        for (size_t t = 0; t < c->n_targets; t++) {
            kvcl_compare_result *r = &c->results[c->n_results];
            memset(r, 0, sizeof *r);
            memcpy(r->which, c->targets[t], sizeof r->which);
            r->batch = c->batches[b];
            KVCL_TRY(kvcl_compare_pass(&c->in, false, r));
            if (left_out(c, r))
                continue;
            c->n_results++;
            if (r->status == KVCL_OK)
                kvcl_app_note(&c->app, "%s, batch %u: %llu of %llu values differ", r->which,
                              r->batch, (unsigned long long)r->n_differing,
                              (unsigned long long)r->n_values);
        }
    return KVCL_OK;
}

/* ---- the report ---------------------------------------------------------------------------- */

static bool is_exact(const kvcl_compare_result *r)
{
    return r->device.exactness == KVCL_EXACT || r->device.exactness == KVCL_EXACT_SLOW;
}

static void table_row(kvcl_table *t, const kvcl_compare_result *r, bool is_reference)
{
    kvcl_table_add(t);
    kvcl_table_set(t, 0, "%s", r->which);
    kvcl_table_set(t, 1, "%.48s", r->device.name);
    kvcl_table_set(t, 2, "%u", r->batch);
    if (r->status != KVCL_OK) {
        kvcl_table_set(t, 3, "fails");
        return;
    }
    kvcl_table_set(t, 3, "%s", kvcl_exactness_name(r->device.exactness));
    kvcl_table_set(t, 4, "%llu of %llu", (unsigned long long)r->n_differing,
                   (unsigned long long)r->n_values);
    kvcl_table_set(t, 5, "%llu", (unsigned long long)r->max_ulp);
    if (r->first_diverging < 0)
        kvcl_table_set(t, 6, "none");
    else
        kvcl_table_set(t, 6, "%lld", (long long)r->first_diverging);
    if (is_reference)
        for (size_t i = 4; i <= 6; i++)
            kvcl_table_set(t, i, "reference");
    kvcl_table_set(t, 7, "%.1f", r->prefill_tps);
    kvcl_table_set(t, 8, "%.1f", r->decode_tps);
}

static void print_table(const compare *c)
{
    kvcl_table t;
    kvcl_table_init(&t, "device|name|>batch|class|>values that differ|>max ulp|>first other token|"
                        ">prefill tokens/s|>decode tokens/s");
    table_row(&t, &c->reference, true);
    for (size_t i = 0; i < c->n_results; i++)
        table_row(&t, &c->results[i], false);
    kvcl_table_print(&t, stdout, true, c->app.out_color);
    printf("\n%u prompt tokens and %u greedy ones, %u logits each; cache %s (%s/%s); prefill speed "
           "includes the logits of every position.\n",
           c->in.n_prompt, c->in.n_greedy, c->in.n_vocab,
           c->n_results ? c->results[0].cache : c->reference.cache, c->o->model.type_k,
           c->o->model.type_v);
}

static json_t *result_json(const kvcl_compare_result *r)
{
    json_t *j = json_pack("{s:o, s:o, s:I}", "device", kvcl_json_text(r->which, strlen(r->which)),
                          "info", kvcl_device_json(&r->device), "batch", (json_int_t)r->batch);
    if (r->status != KVCL_OK) {
        json_object_set_new(j, "error", kvcl_json_text(r->error, strlen(r->error)));
        return j;
    }
    json_object_set_new(j, "cache", json_string(r->cache));
    json_object_set_new(j, "class", json_string(kvcl_exactness_name(r->device.exactness)));
    json_object_set_new(j, "n_values", json_integer((json_int_t)r->n_values));
    json_object_set_new(j, "n_differing", json_integer((json_int_t)r->n_differing));
    json_object_set_new(j, "max_ulp", json_integer((json_int_t)r->max_ulp));
    json_object_set_new(j, "first_diverging_token",
                        r->first_diverging < 0 ? json_null() : json_integer(r->first_diverging));
    json_object_set_new(j, "prefill_tokens_per_second", json_real(r->prefill_tps));
    json_object_set_new(j, "decode_tokens_per_second", json_real(r->decode_tps));
    return j;
}

static kvcl_status print_json(const compare *c)
{
    const kvcl_model_info *m = kvcl_model_get_info(c->app.model);
    json_t *tokens = json_array(), *results = json_array();
    for (uint32_t i = 0; i < c->in.n_greedy; i++)
        json_array_append_new(tokens, json_integer(c->in.greedy[i]));
    for (size_t i = 0; i < c->n_results; i++)
        json_array_append_new(results, result_json(&c->results[i]));
    json_t *root = json_pack(
        "{s:s, s:o, s:I, s:I, s:I, s:s, s:s, s:o, s:o, s:o}", "schema", "kvcl.compare/1", "model",
        kvcl_json_text(m->name, strlen(m->name)), "n_prompt", (json_int_t)c->in.n_prompt,
        "n_greedy", (json_int_t)c->in.n_greedy, "n_vocab", (json_int_t)c->in.n_vocab, "type_k",
        c->o->model.type_k, "type_v", c->o->model.type_v, "greedy_tokens", tokens, "reference",
        result_json(&c->reference), "results", results);
    return kvcl_json_print(c->app.ctx, root);
}

/* An exact device that differs weighs more than one that fails. */
static kvcl_status verdict(compare *c)
{
    kvcl_ctx *ctx = c->app.ctx;
    for (size_t i = 0; i < c->n_results; i++) {
        const kvcl_compare_result *r = &c->results[i];
        KVCL_CHECK(ctx, r->status != KVCL_OK || !is_exact(r) || r->n_differing == 0, KVCL_E_DIFFERS,
                   "%s is of class %s and yet %llu of %llu values differ; please report this with "
                   "the output of 'kvcl devices -v'",
                   r->which, kvcl_exactness_name(r->device.exactness),
                   (unsigned long long)r->n_differing, (unsigned long long)r->n_values);
    }
    for (size_t i = 0; i < c->n_results; i++)
        if (c->results[i].status != KVCL_OK)
            return kvcl_fail(ctx, c->results[i].status, "%s: %s", c->results[i].which,
                             c->results[i].error);
    return KVCL_OK;
}

static kvcl_status run_compare(compare *c)
{
    KVCL_TRY(prepare(c));
    kvcl_interrupt_catch();
    KVCL_TRY(run_reference(c));
    kvcl_status st = run_targets(c);
    if (c->o->json)
        KVCL_TRY(print_json(c));
    else
        print_table(c);
    KVCL_TRY(st);
    return verdict(c);
}

static int compare_main(const void *values, const kvcl_opt_result *parsed)
{
    const compare_opts *o = values;
    compare c = {.o = o};
    int code;
    if (!kvcl_app_open(&c.app, &o->common, &o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&c.app, run_compare(&c));
    if (code == 0)
        code = kvcl_app_finish_stdout(&c.app);
    kvcl_mem_free(c.app.ctx, c.in.prompt);
    kvcl_mem_free(c.app.ctx, c.in.greedy);
    kvcl_mem_free(c.app.ctx, c.results);
    kvcl_ref_logits_free(&c.in.ref);
    kvcl_app_close(&c.app);
    return code;
}

const kvcl_command kvcl_cmd_compare = {
    .name = "compare",
    .summary = "Shows whether all devices compute the same bits",
    .synopsis = "[-m FILE] (-f TEXT | -p TEXT | --tokens FILE) [--devices LIST] [option ...]",
    .examples = "  kvcl compare -f text.txt                     # every device of this machine\n"
                "  kvcl compare -f text.txt --devices cpu:avx2@1,opencl:pocl:0 -n 16\n"
                "  kvcl compare -f text.txt --batch 1,7,64      # prompt in steps of 1, 7, 64\n"
                "  kvcl compare -f text.txt --tier cold=cpu:quant2 --tier hot=raw:64\n"
                "  kvcl compare -f text.txt --json | jq '.results[].n_differing'\n",
    .notes = "The scalar twin (cpu:scalar) runs the text and continues it greedily. Each device "
             "then gets the same tokens, and every logit at every position is compared bit by "
             "bit.\n"
             "With --cache or --tier the reference keeps all tiers on the scalar twin; tiers "
             "without a device sit on the device that is compared. Greedy tokens read what was "
             "coded, prompt tokens attend to each other exactly.\n"
             "Exit code 7 says that a device of class exact differs in at least one bit.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(compare_opts),
    .run = compare_main,
};
