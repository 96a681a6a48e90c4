/* cmd_eval.h - the parts of kvcl eval: configurations, the state of a run, measuring, reports. */
#ifndef KVCL_CMD_EVAL_H
#define KVCL_CMD_EVAL_H

#include "cmd_stream.h"

#define KVCL_EVAL_CONFIGS 48 /* the exact one included */
#define KVCL_EVAL_FILES 8    /* texts, and retrieval files */
#define KVCL_EVAL_NAME 48

typedef struct kvcl_eval_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    kvcl_cache_opts cache;
    kvcl_opt_list texts, retrieval;
    const char *grid, *codecs, *csv, *plots, *resume;
    int64_t n_places, n_positions, n_hot, n_sinks, n_step;
    bool json;
} kvcl_eval_opts;

/* ---- configurations (cmd_eval_config.c) ---------------------------------------------------- */

/* One way to keep the cache.  The codec names in opt point into plan: a configuration is never
 * moved or copied. */
typedef struct kvcl_eval_config {
    char name[KVCL_EVAL_NAME];
    kvcl_cache_wish wish;
    uint32_t n_sinks;
    char words[192]; /* "hot=f16:64 cold=quant4 sinks=8"; names it in a state file */
    kvcl_planner_plan plan;
    kvcl_session_options opt;
    kvcl_session *session; /* while measuring */
} kvcl_eval_config;

typedef struct kvcl_eval_configs {
    size_t n;               /* [0] is the exact one */
    kvcl_eval_config *list; /* [KVCL_EVAL_CONFIGS] */
} kvcl_eval_configs;

/* Reads --codecs, --grid, --cache and --tier: E_ARG with a sentence for bad ones.  Opens nothing.
 * Free list with kvcl_mem_free. */
kvcl_status kvcl_eval_configs_read(kvcl_ctx *ctx, const kvcl_eval_opts *o, kvcl_eval_configs *out);
/* Devices and sizes of all for a context of n_ctx tokens. */
kvcl_status kvcl_eval_configs_plan(kvcl_app *app, const kvcl_eval_opts *o, uint32_t n_ctx,
                                   kvcl_eval_configs *c);
/* Sessions of those that `wanted` marks; the exact one's always. */
kvcl_status kvcl_eval_configs_open(kvcl_app *app, const bool *wanted, kvcl_eval_configs *c);
void kvcl_eval_configs_close(kvcl_eval_configs *c);
/* Prefills tokens once for all open sessions, which are emptied first; n_step: for each by itself,
 * as prompts of so many tokens, one after the other; 0: as one. */
kvcl_status kvcl_eval_configs_prefill(kvcl_app *app, kvcl_eval_configs *c, uint32_t n_step,
                                      const int32_t *tokens, size_t n, const char *what);

/* ---- what is measured ---------------------------------------------------------------------- */

/* One configuration at one place of a text. */
typedef struct kvcl_eval_text {
    bool is_done;
    double *kl; /* [n_positions], against the exact cache */
    uint32_t n_same;
    double nll;               /* sum over positions */
    double *att;              /* [n_layers] relative error of attention's output, mean */
    double bits, bits_all;    /* per element: of coded tokens, of all tokens */
    uint64_t bytes, disk;     /* allocated for pages: of memory, of disk */
    uint64_t read;            /* by one more token */
    double seconds_per_token; /* of untapped steps, the 10 % quantile */
} kvcl_eval_text;

/* One configuration and one prompt. */
typedef struct kvcl_eval_answer {
    bool is_done, is_hit;
    uint32_t n_kl; /* answer tokens, as the exact cache gives them */
    double kl_sum, kl_max;
} kvcl_eval_answer;

typedef struct kvcl_eval_place {
    const char *file;      /* borrows */
    size_t first;          /* token of the text (without BOS) it begins with */
    const int32_t *tokens; /* [c + 1]: the last one is only predicted */
} kvcl_eval_place;

typedef struct kvcl_eval_prompt {
    uint32_t file;   /* index of --retrieval */
    size_t line;     /* from 1 */
    int32_t *tokens; /* takes */
    uint32_t n_tokens, n_context, n_answer_max;
    char *answer; /* takes */
} kvcl_eval_prompt;

typedef struct kvcl_eval_state kvcl_eval_state;

/* A whole run. */
typedef struct kvcl_eval {
    kvcl_app app;
    const kvcl_eval_opts *o;
    kvcl_eval_configs configs;
    kvcl_eval_state *state; /* NULL without --resume */
    uint64_t model_hash;
    uint32_t n_ctx, n_positions, n_places;
    int32_t *place_tokens; /* [n_places][n_ctx + 1] */
    kvcl_eval_place *places;
    kvcl_eval_text *texts; /* [n_configs][n_places] */
    double *numbers;       /* what texts[].kl and .att point into */
    size_t n_prompts;
    kvcl_eval_prompt *prompts;
    kvcl_eval_answer *answers; /* [n_configs][n_prompts] */
    float *logits;             /* [n_vocab], of a lossy cache */
} kvcl_eval;

static inline kvcl_eval_text *kvcl_eval_text_at(const kvcl_eval *e, size_t config, size_t place)
{
    return &e->texts[config * e->n_places + place];
}

static inline kvcl_eval_answer *kvcl_eval_answer_at(const kvcl_eval *e, size_t config, size_t i)
{
    return &e->answers[config * e->n_prompts + i];
}

/* Inputs are read and checked before anything is computed. */
kvcl_status kvcl_eval_text_read(kvcl_eval *e);
kvcl_status kvcl_eval_text_run(kvcl_eval *e);
kvcl_status kvcl_eval_retrieval_read(kvcl_eval *e);
kvcl_status kvcl_eval_retrieval_run(kvcl_eval *e);

/* ---- the state of a run (cmd_eval_state.c) ------------------------------------------------- */

/* Finished rows, one JSON object per line, appended as they are finished.  A row's key covers all
 * that its numbers depend on, so that rows of other runs in the same file do no harm. */
kvcl_status kvcl_eval_state_open(kvcl_ctx *ctx, const char *path, kvcl_eval_state **out);
void kvcl_eval_state_close(kvcl_eval_state *s);
/* Keys of a row: of configuration `config` at a place, on a prompt. */
uint64_t kvcl_eval_text_key(const kvcl_eval *e, size_t config, size_t place);
uint64_t kvcl_eval_answer_key(const kvcl_eval *e, size_t config, size_t prompt);
/* Fills rows that the file has; others stay. */
void kvcl_eval_state_take(kvcl_eval *e);
/* Append a finished row; nothing without a state. */
kvcl_status kvcl_eval_state_put_text(kvcl_eval *e, size_t config, size_t place);
kvcl_status kvcl_eval_state_put_answer(kvcl_eval *e, size_t config, size_t prompt);

/* ---- reports (cmd_eval_sum.c, cmd_eval_report.c, cmd_eval_plot.c) -------------------------- */

/* A configuration's figures over all finished places and prompts. */
typedef struct kvcl_eval_sum {
    uint32_t n_places, n_positions; /* finished */
    double kl_mean, kl_median, kl_p99, kl_max, same_top1, ppl;
    double att_mean, att_worst;
    uint32_t att_worst_layer;
    double *att; /* [n_layers]; of the run's numbers */
    double bits, bits_all;
    uint64_t bytes, disk, read;
    double seconds_per_token; /* best place */
    uint32_t hits[KVCL_EVAL_FILES], n_asked[KVCL_EVAL_FILES], n_hits, n_prompts;
    double answer_kl, answer_kl_max; /* mean over the answers' tokens */
} kvcl_eval_sum;

/* sums [n_configs]; free with kvcl_mem_free (one block). */
kvcl_status kvcl_eval_sums_make(const kvcl_eval *e, kvcl_eval_sum **out);
void kvcl_eval_print(const kvcl_eval *e, const kvcl_eval_sum *sums);
kvcl_status kvcl_eval_print_json(const kvcl_eval *e, const kvcl_eval_sum *sums);
kvcl_status kvcl_eval_write_csv(const kvcl_eval *e, const kvcl_eval_sum *sums, const char *path);
/* Writes DIR/eval.gp and, with gnuplot, quality and speed against bits as PNG and SVG. */
kvcl_status kvcl_eval_write_plots(const kvcl_eval *e, const kvcl_eval_sum *sums, const char *dir);

#endif
