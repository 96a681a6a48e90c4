/* cmd_eval.c - kvcl eval: what compressed caches cost in quality and save in bytes. */
#include "cmd_eval.h"
#include "cmd_eval_stats.h"

#include "mem.h"
#include "os.h"

#include <stddef.h>
#include <stdio.h>

#define AT(member) .offset = offsetof(kvcl_eval_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input"},
    KVCL_ROW_MODEL(kvcl_eval_opts),
    {.names = {"-f", "--text"},
     .kind = KVCL_OPT_LIST,
     AT(texts),
     .arg = "FILE",
     .help = "a text that the model has not seen; up to 8, which share the places"},
    {.names = {"--retrieval"},
     .kind = KVCL_OPT_LIST,
     AT(retrieval),
     .arg = "FILE.jsonl",
     .help = "prompts with answers, {\"prompt\": ..., \"answer\": ...} on each line; the prompt's "
             "last line is the question, fed after the rest is compressed; up to 8 files"},
    {.names = {"-c", "--ctx-size"},
     .kind = KVCL_OPT_INT,
     AT(model.n_ctx),
     .arg = "N",
     .max = 16777216,
     .env = "KVCL_CTX_SIZE",
     .help = "tokens of a place; 0: as the model says, at most 8192"},
    {.names = {"--places"},
     .kind = KVCL_OPT_INT,
     AT(n_places),
     .arg = "N",
     .min = 1,
     .max = 1024,
     .def = "4",
     .help = "places in the texts, at equal distances, the first at the beginning"},
    {.names = {"--positions"},
     .kind = KVCL_OPT_INT,
     AT(n_positions),
     .arg = "N",
     .min = 1,
     .max = 65536,
     .def = "128",
     .help = "tokens at the end of each place that are decoded and compared"},
    {.kind = KVCL_OPT_HEADING, .help = "Configurations"},
    {.names = {"--codecs"},
     .kind = KVCL_OPT_STRING,
     AT(codecs),
     .arg = "LIST",
     .help = "codecs with comma between: for each a hot window and a cold tier in that codec; "
             "without any configuration: quant8, quant4, quant3, quant-k3v2, quant2, q8_0, q4_0"},
    {.names = {"--grid"},
     .kind = KVCL_OPT_STRING,
     AT(grid),
     .arg = "FILE",
     .help = "configurations, one per line: a name, then --tier, --cache, --cache-mem, --hot, "
             "--sinks with their values; # begins a comment"},
    {.names = {"--hot"},
     .kind = KVCL_OPT_INT,
     AT(n_hot),
     .arg = "N",
     .min = 1,
     .max = 16777216,
     .def = "64",
     .help = "newest tokens that are raw, where no preset and no hot tier says it; counted up to "
             "whole pages of 64"},
    {.names = {"--sinks"},
     .kind = KVCL_OPT_INT,
     AT(n_sinks),
     .arg = "N",
     .max = 32,
     .def = "8",
     .help = "first tokens that stay raw"},
    {.names = {"--prompt-step"},
     .kind = KVCL_OPT_INT,
     AT(n_step),
     .arg = "N",
     .max = 16777216,
     .help =
         "feed places and prompts as prompts of N tokens one after the other, each configuration "
         "by itself: later ones meet compressed tokens, and what is learned comes from the "
         "first; 0: at once"},
    KVCL_ROWS_CACHE(kvcl_eval_opts),
    KVCL_ROWS_CACHE_TYPES(kvcl_eval_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Report"},
    {.names = {"--csv"},
     .kind = KVCL_OPT_STRING,
     AT(csv),
     .arg = "FILE",
     .help = "one line for each configuration, with the errors of all layers"},
    KVCL_ROW_JSON(kvcl_eval_opts),
    {.names = {"--plots"},
     .kind = KVCL_OPT_STRING,
     AT(plots),
     .arg = "FOLDER",
     .help = "quality and speed against bits, PNG and SVG, by gnuplot where it is installed"},
    {.names = {"--resume"},
     .kind = KVCL_OPT_STRING,
     AT(resume),
     .arg = "FILE",
     .help = "keeps finished rows there and takes those that are there; may be new"},
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(kvcl_eval_opts),
    KVCL_ROW_THREADS(kvcl_eval_opts),
    KVCL_ROW_BATCH(kvcl_eval_opts),
    KVCL_ROWS_COMMON(kvcl_eval_opts),
};

/* What all rows depend on, besides their configuration and tokens. */
static uint64_t hash_model(const kvcl_eval *e)
{
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    uint64_t h = kvcl_stats_hash(KVCL_HASH_START, KVCL_VERSION, sizeof KVCL_VERSION);
    h = kvcl_stats_hash(h, m->arch, strlen(m->arch) + 1);
    h = kvcl_stats_hash(h, m->name, strlen(m->name) + 1);
    h = kvcl_stats_hash(h, &m->n_params, sizeof m->n_params);
    return kvcl_stats_hash(h, &m->tensor_bytes, sizeof m->tensor_bytes);
}

/* Reports that cannot be written must not be found out hours later. */
static kvcl_status check_outputs(kvcl_ctx *ctx, const kvcl_eval_opts *o)
{
    kvcl_os_out *f;
    if (o->csv) {
        KVCL_TRY(kvcl_os_out_create(ctx, o->csv, &f));
        kvcl_os_out_abort(f);
    }
    return o->plots ? kvcl_os_make_folder(ctx, o->plots) : KVCL_OK;
}

/* Everything that can be refused is refused before the first step. */
static kvcl_status prepare(kvcl_eval *e)
{
    const kvcl_eval_opts *o = e->o;
    kvcl_ctx *ctx = e->app.ctx;
    void *p;
    KVCL_CHECK(ctx, o->texts.n + o->retrieval.n > 0, KVCL_E_ARG,
               "no input: give texts with --text or prompts with --retrieval");
    KVCL_TRY(kvcl_eval_configs_read(ctx, o, &e->configs));
    KVCL_TRY(kvcl_app_open_device(&e->app, &o->model, &o->cache));
    KVCL_TRY(kvcl_engine_create(e->app.model, e->app.dev, &e->app.engine));
    KVCL_TRY(kvcl_eval_text_read(e));
    KVCL_TRY(kvcl_eval_retrieval_read(e));
    uint32_t n_ctx = e->n_ctx;
    for (size_t i = 0; i < e->n_prompts && !e->n_ctx; i++)
        n_ctx = kvcl_max_u32(n_ctx, e->prompts[i].n_tokens + e->prompts[i].n_answer_max);
    KVCL_TRY(kvcl_eval_configs_plan(&e->app, o, n_ctx, &e->configs));
    KVCL_TRY(kvcl_mem_array(ctx, kvcl_model_get_info(e->app.model)->n_vocab, sizeof(float),
                            "logits", &p));
    e->logits = p;
    e->model_hash = hash_model(e);
    KVCL_TRY(check_outputs(ctx, o));
    if (o->resume)
        KVCL_TRY(kvcl_eval_state_open(ctx, o->resume, &e->state));
    kvcl_eval_state_take(e);
    return KVCL_OK;
}

static kvcl_status report(kvcl_eval *e)
{
    kvcl_eval_sum *sums;
    KVCL_TRY(kvcl_eval_sums_make(e, &sums));
    kvcl_status st = KVCL_OK;
    if (e->o->json)
        st = kvcl_eval_print_json(e, sums);
    else
        kvcl_eval_print(e, sums);
    if (st == KVCL_OK && e->o->csv)
        st = kvcl_eval_write_csv(e, sums, e->o->csv);
    if (st == KVCL_OK && e->o->plots && e->n_places > 0)
        st = kvcl_eval_write_plots(e, sums, e->o->plots);
    kvcl_mem_free(e->app.ctx, sums);
    return st;
}

static bool has_rows(const kvcl_eval *e)
{
    for (size_t i = 0; i < e->configs.n * e->n_places; i++)
        if (e->texts[i].is_done)
            return true;
    for (size_t i = 0; i < e->configs.n * e->n_prompts; i++)
        if (e->answers[i].is_done)
            return true;
    return false;
}

/* An interrupted run tells what it has. */
static kvcl_status eval(kvcl_eval *e)
{
    KVCL_TRY(prepare(e));
    kvcl_interrupt_catch();
    kvcl_status st = kvcl_eval_text_run(e);
    if (st == KVCL_OK)
        st = kvcl_eval_retrieval_run(e);
    if (st == KVCL_OK)
        return report(e);
    kvcl_eval_configs_close(&e->configs);
    if (st == KVCL_E_INTERRUPTED && has_rows(e)) {
        kvcl_app_note(&e->app, "%s",
                      e->o->resume ? "stopped; the rows that are finished follow, and the same "
                                     "command goes on from there"
                                   : "stopped; the rows that are finished follow (--resume FILE "
                                     "would have kept them)");
        KVCL_TRY(report(e));
    }
    return st;
}

static void eval_close(kvcl_eval *e)
{
    kvcl_ctx *ctx = e->app.ctx;
    if (e->configs.list)
        kvcl_eval_configs_close(&e->configs);
    for (size_t i = 0; i < e->n_prompts; i++) {
        kvcl_mem_free(ctx, e->prompts[i].tokens);
        kvcl_mem_free(ctx, e->prompts[i].answer);
    }
    void *const all[] = {e->configs.list, e->place_tokens, e->places,  e->texts,
                         e->numbers,      e->prompts,      e->answers, e->logits};
    for (size_t i = 0; i < kvcl_array_len(all); i++)
        kvcl_mem_free(ctx, all[i]);
    kvcl_eval_state_close(e->state);
    kvcl_app_close(&e->app);
}

static int eval_main(const void *values, const kvcl_opt_result *parsed)
{
    kvcl_eval e = {.o = values};
    int code;
    if (!kvcl_app_open(&e.app, &e.o->common, &e.o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&e.app, eval(&e));
    if (code == 0)
        code = kvcl_app_finish_stdout(&e.app);
    eval_close(&e);
    return code;
}

const kvcl_command kvcl_cmd_eval = {
    .name = "eval",
    .summary = "Measures what compressed caches cost in quality and save in bytes",
    .synopsis = "[-m FILE] (--text FILE ... | --retrieval FILE.jsonl ...) [--codecs LIST | --grid "
                "FILE | --cache ... | --tier ...]",
    .examples =
        "  kvcl eval --text novel.txt                         # the usual codecs, 4 places\n"
        "  kvcl eval --text a.txt --text b.txt --codecs quant4,quant2 -c 4096\n"
        "  kvcl eval --retrieval keys.jsonl --cache small     # answers after compression\n"
        "  kvcl eval --text a.txt --grid grid.txt --csv out.csv --plots out --resume out.jsonl\n"
        "  kvcl eval --text a.txt --tier warm=quant8:512 --tier cold=quant2 --json\n",
    .notes =
        "Text: at each place all tokens but the last --positions are prefilled, once for all "
        "configurations and exactly; the last ones are then decoded one by one, as the text has "
        "them, through every cache. KL is sum p ln(p / q) over next-token probabilities, p by the "
        "exact cache, q by the other, in nats; perplexity is that of the same positions. Attention "
        "error is |o - o'| / |o| of attention's outputs, mean over heads and positions. Bits count "
        "codes, scales and means of coded tokens; 'all bits' the hot window and sinks too. "
        "Cache and read are bytes of pages: allocated, in memory and on disk apart, and read for "
        "one more token at the end of a place. Tokens/s are those of the fastest tenth of 32 steps "
        "at the best place, for other "
        "programs on the machine show. "
        "Retrieval: what lies before the prompt's last line is prefilled and compressed, then the "
        "question is fed token by token, then the answer is generated greedily; it counts when the "
        "text begins with the answer. KL of answers is taken on the exact cache's own answer.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(kvcl_eval_opts),
    .run = eval_main,
};
