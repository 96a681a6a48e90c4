/* cmd_bench.c - kvcl bench: speed of prefill and decode on one device. */
#include "cmd.h"
#include "cmd_devices.h"
#include "cmd_stream.h"
#include "cmd_table.h"

#include "mem.h"
#include "os.h"
#include "roofline.h"

#include <stddef.h>

#define MAX_REPEATS 1000
#define SWEEPS 5

typedef struct bench_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    int64_t n_prompt, n_gen, n_repeats, depth;
    bool json, no_bandwidth;
} bench_opts;

#define AT(member) .offset = offsetof(bench_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "What is measured"},
    KVCL_ROW_MODEL(bench_opts),
    {.names = {"-p", "--n-prompt"},
     .kind = KVCL_OPT_INT,
     AT(n_prompt),
     .arg = "N",
     .max = 1e6,
     .def = "512",
     .help = "tokens of the prefill; 0: leave it out"},
    {.names = {"-n", "--n-gen"},
     .kind = KVCL_OPT_INT,
     AT(n_gen),
     .arg = "N",
     .max = 1e6,
     .def = "128",
     .help = "tokens of the decode; 0: leave it out"},
    {.names = {"-d", "--n-depth"},
     .kind = KVCL_OPT_INT,
     AT(depth),
     .arg = "N",
     .max = 1e6,
     .help = "tokens in the cache before"},
    {.names = {"-r", "--repetitions"},
     .kind = KVCL_OPT_INT,
     AT(n_repeats),
     .arg = "N",
     .min = 1,
     .max = MAX_REPEATS,
     .def = "5",
     .help = "runs of each test, after one that does not count"},
    {.names = {"--no-bandwidth"},
     .kind = KVCL_OPT_FLAG,
     AT(no_bandwidth),
     .help = "do not measure how fast memory is read"},
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(bench_opts),
    {.names = {"-ngl", "--gpu-layers", "--n-gpu-layers"},
     .kind = KVCL_OPT_STRING,
     AT(model.n_gpu_layers),
     .arg = "N",
     .help = "as in llama.cpp: 0 is --device cpu, any other number leaves the default device"},
    KVCL_ROW_THREADS(bench_opts),
    KVCL_ROW_BATCH(bench_opts),
    KVCL_ROWS_CACHE(bench_opts),
    KVCL_ROWS_CACHE_TYPES(bench_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    KVCL_ROW_JSON(bench_opts),
    KVCL_ROWS_COMMON(bench_opts),
};

typedef struct bench_test {
    char name[48]; /* "pp512", "tg128 @ d512" */
    uint32_t n_prompt, n_gen;
    uint32_t n_samples;
    uint64_t samples_ns[MAX_REPEATS];
} bench_test;

typedef struct bench {
    kvcl_app app;
    const bench_opts *o;
    int32_t *tokens; /* [n_ctx]: fixed, well mixed ids */
    float *logits;
    bench_test *tests;  /* [2] */
    kvcl_session *base; /* tiered caches: holds the tokens before; runs are copies of it */
    size_t n_tests;
    double bandwidth; /* bytes/s; 0: not measured */
    bool is_cpu;
} bench;

/* ---- measuring ----------------------------------------------------------------------------- */

static void add_test(bench *b, const char *stem, uint32_t n_prompt, uint32_t n_gen)
{
    if (n_prompt + n_gen == 0)
        return;
    bench_test *t = &b->tests[b->n_tests++];
    int n = snprintf(t->name, sizeof t->name, "%s%u", stem, n_prompt + n_gen);
    if (b->o->depth > 0)
        snprintf(t->name + n, sizeof t->name - (size_t)n, " @ d%lld", (long long)b->o->depth);
    t->n_prompt = n_prompt;
    t->n_gen = n_gen;
}

static kvcl_status open_bench(bench *b)
{
    const bench_opts *o = b->o;
    void *p;
    KVCL_TRY(kvcl_app_open_device(&b->app, &o->model, &o->cache));
    const kvcl_model_info *m = kvcl_model_get_info(b->app.model);
    b->is_cpu = kvcl_device_get_info(b->app.dev)->kind == KVCL_KIND_CPU;
    kvcl_session_options s = kvcl_app_session_options(&o->model);
    const int64_t longest = o->n_prompt > o->n_gen ? o->n_prompt : o->n_gen;
    KVCL_CHECK(b->app.ctx, o->depth + longest + 1 <= m->n_ctx_train, KVCL_E_ARG,
               "%lld tokens do not fit into this model's context of %u; ask for fewer with -p, -n "
               "or -d",
               (long long)(o->depth + longest + 1), m->n_ctx_train);
    s.n_ctx = (uint32_t)(o->depth + longest + 1);
    KVCL_TRY(kvcl_app_open_session(&b->app, &o->cache, NULL, 0, &s));
    KVCL_TRY(kvcl_mem_array(b->app.ctx, s.n_ctx, sizeof(int32_t), "tokens", &p));
    b->tokens = p;
    for (uint32_t i = 0; i < s.n_ctx; i++)
        b->tokens[i] = (int32_t)((i * UINT64_C(0x9e3779b97f4a7c15) >> 32) % m->n_vocab);
    KVCL_TRY(kvcl_mem_array(b->app.ctx, m->n_vocab, sizeof(float), "logits", &p));
    b->logits = p;
    KVCL_TRY(kvcl_mem_array(b->app.ctx, 2, sizeof(bench_test), "the results", &p));
    b->tests = p;
    add_test(b, "pp", (uint32_t)o->n_prompt, 0);
    add_test(b, "tg", 0, (uint32_t)o->n_gen);
    KVCL_CHECK(b->app.ctx, b->n_tests > 0, KVCL_E_ARG,
               "nothing to measure: -p and -n are both 0; give one of them a number");
    return KVCL_OK;
}

/* Leaves the session with `depth` tokens.  A tiered cache cannot go back over tokens it has coded:
 * there a copy of the state before takes the session's place. */
static kvcl_status go_to_depth(bench *b)
{
    kvcl_app *app = &b->app;
    const uint32_t depth = (uint32_t)b->o->depth;
    const bool copies = app->plan.choice.n_tiers > 1 && depth > 0;
    if (copies && b->base) {
        kvcl_session_free(app->session);
        app->session = NULL;
        return kvcl_session_fork(b->base, &app->session);
    }
    kvcl_session *s = app->session;
    KVCL_TRY(kvcl_session_rewind(s, kvcl_min_u32(depth, kvcl_session_n_tokens(s))));
    uint32_t have = kvcl_session_n_tokens(s);
    if (have < depth)
        KVCL_TRY(kvcl_session_prefill(s, b->tokens + have, depth - have, 1, b->logits, NULL, NULL));
    if (!copies)
        return KVCL_OK;
    b->base = s;
    app->session = NULL;
    return kvcl_session_fork(b->base, &app->session);
}

static kvcl_status run_once(bench *b, const bench_test *t, uint64_t *ns)
{
    const uint32_t depth = (uint32_t)b->o->depth;
    KVCL_TRY(go_to_depth(b));
    kvcl_session *s = b->app.session;
    uint64_t begin = kvcl_os_now_ns();
    if (t->n_prompt)
        KVCL_TRY(kvcl_session_prefill(s, b->tokens + depth, t->n_prompt, 1, b->logits, NULL, NULL));
    for (uint32_t i = 0; i < t->n_gen; i++) {
        KVCL_TRY(kvcl_session_decode(s, b->tokens[depth + i], b->logits));
        if (kvcl_interrupted())
            return KVCL_E_INTERRUPTED;
    }
    *ns = kvcl_os_now_ns() - begin;
    return kvcl_interrupted() ? KVCL_E_INTERRUPTED : KVCL_OK;
}

static kvcl_status measure(bench *b)
{
    const uint32_t n = (uint32_t)b->o->n_repeats;
    kvcl_progress progress;
    kvcl_progress_init(&progress, &b->app, "bench", "runs");
    kvcl_status st = KVCL_OK;
    /* repetitions go round the tests, so that a slow moment of the machine hits all alike */
    for (uint32_t i = 0; i <= n && st == KVCL_OK; i++)
        for (size_t k = 0; k < b->n_tests && st == KVCL_OK; k++) {
            uint64_t ns = 0;
            bench_test *t = &b->tests[k];
            st = run_once(b, t, &ns);
            if (st == KVCL_OK && i > 0)
                t->samples_ns[t->n_samples++] = ns;
            kvcl_progress_show(&progress, i * b->n_tests + k + 1, (n + 1) * b->n_tests);
        }
    kvcl_progress_end(&progress);
    KVCL_TRY(st);
    if (b->o->no_bandwidth)
        return KVCL_OK;
    if (b->is_cpu)
        return kvcl_roofline_read(b->app.ctx, kvcl_device_get_info(b->app.dev)->n_units, SWEEPS,
                                  &b->bandwidth);
    return kvcl_roofline_copy(b->app.dev, SWEEPS, &b->bandwidth);
}

/* ---- the report ---------------------------------------------------------------------------- */

static void sort_samples(bench_test *t)
{
    for (uint32_t i = 1; i < t->n_samples; i++) {
        uint64_t x = t->samples_ns[i];
        uint32_t k = i;
        for (; k > 0 && t->samples_ns[k - 1] > x; k--)
            t->samples_ns[k] = t->samples_ns[k - 1];
        t->samples_ns[k] = x;
    }
}

static double tokens_per_s(const bench_test *t, uint64_t ns)
{
    return (double)(t->n_prompt + t->n_gen) / kvcl_seconds(ns ? ns : 1);
}

static double median(const bench_test *t)
{
    uint32_t n = t->n_samples;
    double a = tokens_per_s(t, t->samples_ns[n / 2]);
    return n % 2 ? a : (a + tokens_per_s(t, t->samples_ns[n / 2 - 1])) / 2;
}

/* Bytes of weights read per second while decoding; 0 for a prefill. */
static double weight_rate(const bench *b, const bench_test *t)
{
    if (!t->n_gen)
        return 0;
    return median(t) * (double)kvcl_engine_weight_bytes_per_token(b->app.engine);
}

static void print_cache(const bench *b)
{
    kvcl_cache_stats st;
    char all[32], read[32], disk[32];
    kvcl_session_cache_stats(b->app.session, &st);
    kvcl_show_size(kvcl_session_cache_bytes(b->app.session), all, sizeof all);
    kvcl_show_size(st.read_bytes, read, sizeof read);
    kvcl_show_size(st.disk_bytes, disk, sizeof disk);
    printf("%scache %s: %s%s%s, %.2f bits an element; a token reads %s of it\n",
           b->bandwidth > 0 ? "" : "\n", b->app.cache_words, all,
           st.disk_bytes ? " and on disk " : "", st.disk_bytes ? disk : "", st.bits_per_elem_all,
           read);
}

static void print_table(bench *b)
{
    const kvcl_model_info *m = kvcl_model_get_info(b->app.model);
    const kvcl_device_info *d = kvcl_device_get_info(b->app.dev);
    kvcl_table t;
    char size[32];
    kvcl_show_size(m->tensor_bytes, size, sizeof size);
    kvcl_table_init(&t, "model|>size|>params|device|>threads|>test|>t/s|>spread|>weights GB/s|"
                        ">of bandwidth");
    for (size_t i = 0; i < b->n_tests; i++) {
        const bench_test *r = &b->tests[i];
        double rate = weight_rate(b, r);
        kvcl_table_add(&t);
        kvcl_table_set(&t, 0, "%.40s", m->name);
        kvcl_table_set(&t, 1, "%s", size);
        kvcl_table_set(&t, 2, "%.2f M", (double)m->n_params * 1e-6);
        kvcl_table_set(&t, 3, "%s", d->id);
        kvcl_table_set(&t, 4, "%u", d->n_units);
        kvcl_table_set(&t, 5, "%s", r->name);
        kvcl_table_set(&t, 6, "%.2f", median(r));
        kvcl_table_set(&t, 7, "%.2f .. %.2f", tokens_per_s(r, r->samples_ns[r->n_samples - 1]),
                       tokens_per_s(r, r->samples_ns[0]));
        if (rate > 0)
            kvcl_table_set(&t, 8, "%.2f", rate * 1e-9);
        if (rate > 0 && b->bandwidth > 0)
            kvcl_table_set(&t, 9, "%.0f %%", 100 * rate / b->bandwidth);
    }
    kvcl_table_print(&t, stdout, true, b->app.out_color);
    if (b->bandwidth > 0)
        printf("\n%s (%s): memory %s at %.1f GB/s\n", d->name, d->detail,
               b->is_cpu ? "read" : "copied, both directions counted,", b->bandwidth * 1e-9);
    print_cache(b);
}

static json_t *test_json(const bench *b, const bench_test *t)
{
    json_t *samples = json_array();
    double sum = 0;
    for (uint32_t i = 0; i < t->n_samples; i++) {
        json_array_append_new(samples, json_integer((json_int_t)t->samples_ns[i]));
        sum += (double)t->samples_ns[i];
    }
    double rate = weight_rate(b, t);
    json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:o}", "test", t->name,
                          "n_prompt", (json_int_t)t->n_prompt, "n_gen", (json_int_t)t->n_gen,
                          "n_depth", (json_int_t)b->o->depth, "tokens_per_s", median(t),
                          "tokens_per_s_min", tokens_per_s(t, t->samples_ns[t->n_samples - 1]),
                          "tokens_per_s_max", tokens_per_s(t, t->samples_ns[0]), "avg_ns",
                          sum / t->n_samples, "samples_ns", samples);
    if (rate > 0)
        json_object_set_new(j, "weight_bytes_per_s", json_real(rate));
    return j;
}

static kvcl_status print_json(const bench *b)
{
    const kvcl_model_info *m = kvcl_model_get_info(b->app.model);
    const kvcl_device_info *d = kvcl_device_get_info(b->app.dev);
    json_t *results = json_array();
    for (size_t i = 0; i < b->n_tests; i++)
        json_array_append_new(results, test_json(b, &b->tests[i]));
    json_t *root = json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:o, s:I, s:s, s:s}", "schema",
                             "kvcl.bench/1", "kvcl_version", KVCL_VERSION, "model_filename",
                             kvcl_json_text(b->o->model.model ? b->o->model.model : "",
                                            b->o->model.model ? strlen(b->o->model.model) : 0),
                             "model_name", kvcl_json_text(m->name, strlen(m->name)), "model_size",
                             (json_int_t)m->tensor_bytes, "model_n_params", (json_int_t)m->n_params,
                             "device", kvcl_device_json(d), "n_threads", (json_int_t)d->n_units,
                             "type_k", b->o->model.type_k, "type_v", b->o->model.type_v);
    json_object_set_new(
        root, "weight_bytes_per_token",
        json_integer((json_int_t)kvcl_engine_weight_bytes_per_token(b->app.engine)));
    kvcl_cache_stats st;
    kvcl_session_cache_stats(b->app.session, &st);
    json_object_set_new(root, "cache", json_string(b->app.cache_words));
    json_object_set_new(root, "cache_bytes",
                        json_integer((json_int_t)kvcl_session_cache_bytes(b->app.session)));
    json_object_set_new(root, "cache_disk_bytes", json_integer((json_int_t)st.disk_bytes));
    json_object_set_new(root, "cache_read_bytes_per_token",
                        json_integer((json_int_t)st.read_bytes));
    json_object_set_new(root, "read_bytes_per_s", json_real(b->bandwidth));
    json_object_set_new(root, "bandwidth_kind", json_string(b->is_cpu ? "read" : "copy"));
    json_object_set_new(root, "results", results);
    return kvcl_json_print(b->app.ctx, root);
}

static kvcl_status run_bench(bench *b)
{
    KVCL_TRY(open_bench(b));
    kvcl_interrupt_catch();
    KVCL_TRY(measure(b));
    for (size_t i = 0; i < b->n_tests; i++)
        sort_samples(&b->tests[i]);
    if (b->o->json)
        return print_json(b);
    print_table(b);
    return KVCL_OK;
}

static int bench_main(const void *values, const kvcl_opt_result *parsed)
{
    const bench_opts *o = values;
    bench b = {.o = o};
    int code;
    if (!kvcl_app_open(&b.app, &o->common, &o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&b.app, run_bench(&b));
    if (code == 0)
        code = kvcl_app_finish_stdout(&b.app);
    kvcl_mem_free(b.app.ctx, b.tokens);
    kvcl_mem_free(b.app.ctx, b.logits);
    kvcl_mem_free(b.app.ctx, b.tests);
    kvcl_session_free(b.base);
    kvcl_app_close(&b.app);
    return code;
}

const kvcl_command kvcl_cmd_bench = {
    .name = "bench",
    .summary = "Measures prefill and decode on a device",
    .synopsis = "[-m FILE] [-p N] [-n N] [-d N] [-r N] [--device DEVICE] [--json]",
    .examples = "  kvcl bench -m model.gguf                    # pp512 and tg128, median of 5\n"
                "  kvcl bench -m model.gguf -p 0 -n 64 -t 4    # decode alone, four threads\n"
                "  kvcl bench -d 4096 --device opencl:pocl:0   # behind 4,096 tokens\n",
    .notes = "ppN is a prefill of N tokens, tgN the decode of N tokens one by one; sampling and "
             "tokenising are not timed. Decoding reads all weights once per token: their bytes per "
             "second stand beside what the memory can deliver, measured by reading on the CPU and "
             "by copying on other devices.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(bench_opts),
    .run = bench_main,
};
