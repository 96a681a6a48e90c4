/* cmd_perplexity.c - kvcl perplexity: by llama.cpp's rule, so that figures can be compared.
 *
 * The tokens are cut into chunks of n = -c; what is left over is dropped.  Each chunk begins anew,
 * its first token replaced by BOS where the model wants one, and the tokens n/2 + 1 ... n - 1 are
 * scored: perplexity = exp(mean of -ln p(token | those before it in the chunk)).  With a compressed
 * cache the first half is prefilled (exactly, as always) and the second half decoded token by
 * token, so that every scored token was predicted through the compressed cache. */
#include "cmd.h"
#include "cmd_eval_stats.h"
#include "cmd_stream.h"

#include "mem.h"
#include "os.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

#define SLICE 256u /* positions whose logits are in memory at once */

typedef struct perplexity_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    const char *prompt, *file;
    int64_t n_chunks;
    bool json;
} perplexity_opts;

#define AT(member) .offset = offsetof(perplexity_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input"},
    KVCL_ROW_MODEL(perplexity_opts),
    KVCL_ROWS_TEXT(perplexity_opts),
    {.names = {"-c", "--ctx-size"},
     .kind = KVCL_OPT_INT,
     AT(model.n_ctx),
     .arg = "N",
     .max = 16777216,
     .env = "KVCL_CTX_SIZE",
     .help = "tokens of a chunk; 0: as the model says, at most 8192"},
    {.names = {"--chunks"},
     .kind = KVCL_OPT_INT,
     AT(n_chunks),
     .arg = "N",
     .max = 1e9,
     .help = "only the first N chunks; 0: all"},
    KVCL_ROW_JSON(perplexity_opts),
    KVCL_ROWS_CACHE(perplexity_opts),
    KVCL_ROW_KV_ERROR(perplexity_opts),
    KVCL_ROWS_CACHE_TYPES(perplexity_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(perplexity_opts),
    KVCL_ROW_THREADS(perplexity_opts),
    KVCL_ROW_BATCH(perplexity_opts),
    KVCL_ROWS_COMMON(perplexity_opts),
};

typedef struct perplexity {
    kvcl_app app;
    const perplexity_opts *o;
    int32_t *tokens;
    uint32_t n_chunk; /* tokens of a chunk */
    size_t n_chunks;
    bool by_decode; /* the cache is compressed */
    float *logits;
    double nll, nll2; /* sums of -ln p and of its square */
    uint64_t n_scored;
    kvcl_progress progress;
} perplexity;

static void score(perplexity *p, const float *logits, int32_t next)
{
    double nll = kvcl_stats_nll(logits, kvcl_model_get_info(p->app.model)->n_vocab, (size_t)next);
    p->nll += nll;
    p->nll2 += nll * nll;
    p->n_scored++;
}

static kvcl_status decode_half(perplexity *p, const int32_t *tokens, uint32_t first)
{
    kvcl_progress *progress = &p->progress;
    KVCL_TRY(kvcl_session_prefill(p->app.session, tokens, first, 0, NULL, kvcl_progress_prefill,
                                  progress));
    for (uint32_t i = first; i + 1 < p->n_chunk; i++) {
        KVCL_TRY(kvcl_session_decode(p->app.session, tokens[i], p->logits));
        score(p, p->logits, tokens[i + 1]);
        kvcl_progress_show(progress, progress->before + i, progress->total);
        if (kvcl_interrupted())
            return KVCL_E_INTERRUPTED;
    }
    return KVCL_OK;
}

static kvcl_status prefill_half(perplexity *p, const int32_t *tokens, uint32_t first)
{
    const uint64_t before = p->progress.before;
    const uint32_t n_vocab = kvcl_model_get_info(p->app.model)->n_vocab;
    for (uint32_t i = 0, n; i < p->n_chunk; i += n) {
        n = kvcl_min_u32(i < first ? first - i : SLICE, p->n_chunk - i);
        uint32_t rows = i < first ? 0 : n;
        p->progress.before = before + i;
        KVCL_TRY(kvcl_session_prefill(p->app.session, tokens + i, n, rows, p->logits,
                                      kvcl_progress_prefill, &p->progress));
        for (uint32_t j = 0; j < rows && i + j + 1 < p->n_chunk; j++)
            score(p, p->logits + (size_t)j * n_vocab, tokens[i + j + 1]);
    }
    return KVCL_OK;
}

static kvcl_status run_chunk(perplexity *p, size_t index)
{
    const kvcl_model_info *m = kvcl_model_get_info(p->app.model);
    int32_t *tokens = p->tokens + index * p->n_chunk;
    if (m->add_bos)
        tokens[0] = m->bos_id;
    p->progress.before = (uint64_t)index * p->n_chunk;
    KVCL_TRY(kvcl_session_rewind(p->app.session, 0));
    KVCL_TRY(p->by_decode ? decode_half(p, tokens, p->n_chunk / 2)
                          : prefill_half(p, tokens, p->n_chunk / 2));
    kvcl_app_note(&p->app, "chunk %zu of %zu: perplexity so far %.4f", index + 1, p->n_chunks,
                  exp(p->nll / (double)p->n_scored));
    return KVCL_OK;
}

/* ---- begin and end ------------------------------------------------------------------------- */

static kvcl_status prepare(perplexity *p)
{
    const perplexity_opts *o = p->o;
    kvcl_ctx *ctx = p->app.ctx;
    kvcl_session_options s = kvcl_app_session_options(&o->model);
    size_t n;
    void *m;
    KVCL_CHECK(ctx, o->prompt || o->file, KVCL_E_ARG, "no input: give a text with -p or -f");
    KVCL_TRY(kvcl_app_open_device(&p->app, &o->model, &o->cache));
    const kvcl_model_info *info = kvcl_model_get_info(p->app.model);
    KVCL_TRY(kvcl_input_tokens(&p->app, o->prompt, o->file, NULL, &p->tokens, &n));
    s.n_ctx = s.n_ctx ? s.n_ctx : kvcl_min_u32(info->n_ctx_train, 8192);
    p->n_chunk = s.n_ctx;
    p->n_chunks = n / p->n_chunk;
    KVCL_CHECK(ctx, p->n_chunk >= 4, KVCL_E_ARG, "-c %u: a chunk takes 4 tokens at least",
               p->n_chunk);
    KVCL_CHECK(ctx, p->n_chunks > 0, KVCL_E_ARG,
               "the text has %zu tokens, fewer than one chunk of %u; use a longer text or a "
               "smaller -c",
               n, p->n_chunk);
    if (o->n_chunks > 0)
        p->n_chunks = kvcl_min_size(p->n_chunks, (size_t)o->n_chunks);
    KVCL_TRY(kvcl_app_open_session(&p->app, &o->cache, p->tokens, p->n_chunk / 2, &s));
    p->by_decode = s.n_tiers > 1;
    KVCL_TRY(kvcl_mem_array(ctx, (size_t)SLICE * info->n_vocab, sizeof(float), "logits", &m));
    p->logits = m;
    return KVCL_OK;
}

static kvcl_status report(perplexity *p)
{
    double n = (double)p->n_scored, mean = p->nll / n;
    double var = p->nll2 / n - mean * mean;
    double ppl = exp(mean), error = n > 1 && var > 0 ? ppl * sqrt(var / (n - 1)) : 0;
    kvcl_cache_stats s;
    kvcl_session_cache_stats(p->app.session, &s);
    if (p->o->json)
        return kvcl_json_print(
            p->app.ctx,
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f}", "schema", "kvcl.perplexity/1",
                      "cache", p->app.cache_words, "n_ctx", (json_int_t)p->n_chunk, "n_chunks",
                      (json_int_t)p->n_chunks, "n_scored", (json_int_t)p->n_scored, "perplexity",
                      ppl, "standard_error", error, "bits_per_element_all", s.bits_per_elem_all));
    printf("perplexity %.4f +- %.4f over %zu chunks of %u tokens (%llu scored); cache %s\n", ppl,
           error, p->n_chunks, p->n_chunk, (unsigned long long)p->n_scored, p->app.cache_words);
    return KVCL_OK;
}

static kvcl_status run(perplexity *p)
{
    KVCL_TRY(prepare(p));
    kvcl_interrupt_catch();
    kvcl_progress_init(&p->progress, &p->app, "perplexity", "tokens");
    p->progress.total = (uint64_t)p->n_chunks * p->n_chunk;
    kvcl_status st = KVCL_OK;
    for (size_t i = 0; i < p->n_chunks && st == KVCL_OK; i++)
        st = run_chunk(p, i);
    kvcl_progress_end(&p->progress);
    KVCL_TRY(st);
    KVCL_CHECK(p->app.ctx, isfinite(p->nll), KVCL_E_NOT_FINITE,
               "the logits of some position are not finite");
    return report(p);
}

static int perplexity_main(const void *values, const kvcl_opt_result *parsed)
{
    perplexity p = {.o = values};
    int code;
    if (!kvcl_app_open(&p.app, &p.o->common, &p.o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&p.app, run(&p));
    if (code == 0)
        code = kvcl_app_finish_stdout(&p.app);
    kvcl_mem_free(p.app.ctx, p.tokens);
    kvcl_mem_free(p.app.ctx, p.logits);
    kvcl_app_close(&p.app);
    return code;
}

const kvcl_command kvcl_cmd_perplexity = {
    .name = "perplexity",
    .summary = "Measures how well a model predicts a text, as llama.cpp does",
    .synopsis = "[-m FILE] (-f TEXT | -p TEXT) [-c N] [--cache ... | --tier ...]",
    .examples =
        "  kvcl perplexity -f text.txt -c 1024\n"
        "  head -c 120000 text.txt | kvcl perplexity -f -     # the first bytes of a text\n"
        "  kvcl perplexity -f text.txt --cache small          # through a compressed cache\n",
    .notes = "Chunks of -c tokens, each on its own, only the second half of each is scored: the "
             "rule of llama.cpp's perplexity, so that figures can be compared. A compressed cache "
             "is read for every scored token: the second half is then decoded token by token.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(perplexity_opts),
    .run = perplexity_main,
};
