/* cmd.h - what the subcommands share: their tables, option groups, the objects they open, text. */
#ifndef KVCL_CMD_H
#define KVCL_CMD_H

#include "opt.h"
#include "planner.h"

#include <jansson.h>

/* ---- the subcommands ----------------------------------------------------------------------- */

extern const kvcl_command kvcl_cmd_run, kvcl_cmd_devices, kvcl_cmd_compare, kvcl_cmd_logits,
    kvcl_cmd_tokenize, kvcl_cmd_inspect, kvcl_cmd_quantize, kvcl_cmd_bench, kvcl_cmd_plan,
    kvcl_cmd_eval, kvcl_cmd_perplexity, kvcl_cmd_capture, kvcl_cmd_svd, kvcl_cmd_frontier;

/* ---- option groups ------------------------------------------------------------------------- */

typedef struct kvcl_common_opts {
    int64_t verbose, verbosity;
    bool quiet;
    const char *color;
} kvcl_common_opts;

/* Rows of a table; `s` is the subcommand's struct, which has a member `common`. */
#define KVCL_ROWS_COMMON(s)                                                               \
    {.kind = KVCL_OPT_HEADING, .help = "General"},                                        \
        {.names = {"-v", "--verbose"},                                                    \
         .kind = KVCL_OPT_COUNT,                                                          \
         .offset = offsetof(s, common.verbose),                                           \
         .help = "tell on stderr what is done; twice: everything"},                       \
        {.names = {"-lv", "--verbosity"},                                                 \
         .kind = KVCL_OPT_INT,                                                            \
         .offset = offsetof(s, common.verbosity),                                         \
         .arg = "N",                                                                      \
         .max = 3,                                                                        \
         .env = "KVCL_VERBOSITY",                                                         \
         .def = "1",                                                                      \
         .help = "messages up to a level: 0 errors, 1 warnings, 2 as -v, 3 as -v -v"},    \
        {.names = {"-q", "--log-disable", "--quiet"},                                     \
         .kind = KVCL_OPT_FLAG,                                                           \
         .offset = offsetof(s, common.quiet),                                             \
         .help = "no warnings, timings or progress on stderr; errors stay"},              \
        {.names = {"-co", "--color"},                                                     \
         .kind = KVCL_OPT_SWITCH,                                                         \
         .offset = offsetof(s, common.color),                                             \
         .arg = "on|off|auto|always|never",                                               \
         .def = "auto",                                                                   \
         .env = "KVCL_COLOR",                                                             \
         .help = "colours; auto: on a terminal, unless NO_COLOR is set or TERM is dumb"}, \
        {.names = {"-h"}, .kind = KVCL_OPT_HELP, .help = "short help"},                   \
    {                                                                                     \
        .names = {"--help"}, .kind = KVCL_OPT_MANUAL, .help = "full help, examples first" \
    }

typedef struct kvcl_model_opts {
    const char *model, *device, *n_gpu_layers;
    int64_t n_threads, n_ctx, n_batch, n_ubatch;
    const char *type_k, *type_v;
    bool allow_inexact;
} kvcl_model_opts;

#define KVCL_ROW_MODEL(s)                                                                        \
    {                                                                                            \
        .names = {"-m", "--model"}, .kind = KVCL_OPT_STRING, .offset = offsetof(s, model.model), \
        .arg = "FILE", .env = "KVCL_MODEL",                                                      \
        .help = "GGUF model; without it the shipped ref-llama-29m is used"                       \
    }

/* The text of commands that read one; members prompt, file. */
#define KVCL_ROWS_TEXT(s)                                                                \
    {.names = {"-p", "--prompt"},                                                        \
     .kind = KVCL_OPT_STRING,                                                            \
     .offset = offsetof(s, prompt),                                                      \
     .arg = "TEXT",                                                                      \
     .help = "the text"},                                                                \
    {                                                                                    \
        .names = {"-f", "--file"}, .kind = KVCL_OPT_STRING, .offset = offsetof(s, file), \
        .arg = "FILE", .help = "text from a file, to its last byte; - is standard input" \
    }

/* The same as token ids; member tokens. */
#define KVCL_ROW_TOKENS(s)                                                                       \
    {                                                                                            \
        .names = {"--tokens"}, .kind = KVCL_OPT_STRING, .offset = offsetof(s, tokens),           \
        .arg = "FILE",                                                                           \
        .help = "token ids instead of a text: little-endian int32, as 'kvcl tokenize -o' writes" \
    }

/* Member json. */
#define KVCL_ROW_JSON(s)                                                         \
    {                                                                            \
        .names = {"--json"}, .kind = KVCL_OPT_FLAG, .offset = offsetof(s, json), \
        .help = "as JSON on standard output"                                     \
    }

#define KVCL_ROW_THREADS(s)                                                                     \
    {                                                                                           \
        .names = {"-t", "--threads"}, .kind = KVCL_OPT_INT,                                     \
        .offset = offsetof(s, model.n_threads), .arg = "N", .max = 1024, .env = "KVCL_THREADS", \
        .help = "CPU threads; 0: one per processor; any number gives the same bits"             \
    }

#define KVCL_ROWS_DEVICE(s)                                                                      \
    {.names = {"-dev", "--device"},                                                              \
     .kind = KVCL_OPT_STRING,                                                                    \
     .offset = offsetof(s, model.device),                                                        \
     .arg = "DEVICE",                                                                            \
     .env = "KVCL_DEVICE",                                                                       \
     .help = "an id, index or part of a name of 'kvcl devices'; none is cpu; default: the best " \
             "GPU, else the CPU"},                                                               \
    {                                                                                            \
        .names = {"--allow-inexact"}, .kind = KVCL_OPT_FLAG,                                     \
        .offset = offsetof(s, model.allow_inexact),                                              \
        .help = "use a device even if its self-test gives other bits"                            \
    }

#define KVCL_ROWS_CACHE_TYPES(s)                                             \
    {.names = {"-ctk", "--cache-type-k"},                                    \
     .kind = KVCL_OPT_CHOICE,                                                \
     .offset = offsetof(s, model.type_k),                                    \
     .arg = "f16|f32",                                                       \
     .def = "f16",                                                           \
     .env = "KVCL_CACHE_TYPE_K",                                             \
     .help = "how raw keys are kept; fewer bits: --cache, --tier"},          \
    {                                                                        \
        .names = {"-ctv", "--cache-type-v"}, .kind = KVCL_OPT_CHOICE,        \
        .offset = offsetof(s, model.type_v), .arg = "f16|f32", .def = "f16", \
        .env = "KVCL_CACHE_TYPE_V", .help = "how raw values are kept"        \
    }

#define KVCL_ROW_CTX(s)                                                                          \
    {                                                                                            \
        .names = {"-c", "--ctx-size"}, .kind = KVCL_OPT_INT, .offset = offsetof(s, model.n_ctx), \
        .arg = "N", .max = 16777216, .env = "KVCL_CTX_SIZE",                                     \
        .help = "tokens the cache holds; 0: as the model says, at most 8192"                     \
    }

#define KVCL_ROW_BATCH(s)                                                                    \
    {                                                                                        \
        .names = {"-b", "--batch-size"}, .kind = KVCL_OPT_INT,                               \
        .offset = offsetof(s, model.n_batch), .arg = "N", .max = 65536, .env = "KVCL_BATCH", \
        .help = "prompt tokens per step; 0: 512; any number gives the same bits"             \
    }

typedef struct kvcl_cache_opts {
    const char *preset, *mem, *tier_dir;
    kvcl_opt_list tiers;
    double error; /* 0: none was asked for */
    bool drop_oldest;
} kvcl_cache_opts;

#define KVCL_ROW_KV_ERROR(s)                                                                     \
    {                                                                                            \
        .names = {"--kv-error"}, .kind = KVCL_OPT_FLOAT, .offset = offsetof(s, cache.error),     \
        .arg = "E", .min = 0, .max = 1, .env = "KVCL_KV_ERROR",                                  \
        .help = "the smallest cold tier that changes attention's outputs by E of their length "  \
                "at most (.05: next-token KL about .0007), measured on the prompt's first 2048 " \
                "tokens: of superpose4, or up to the codec that --tier names; 0: no choice"      \
    }

/* `s` has a member `cache`. */
#define KVCL_ROWS_CACHE(s)                                                                       \
    {.kind = KVCL_OPT_HEADING, .help = "Cache of keys and values"},                              \
        {.names = {"--cache"},                                                                   \
         .kind = KVCL_OPT_CHOICE,                                                                \
         .offset = offsetof(s, cache.preset),                                                    \
         .arg = "exact|balanced|small|smallest|auto",                                            \
         .env = "KVCL_CACHE",                                                                    \
         .help =                                                                                 \
             "exact: all tokens raw (16 bits an element); balanced: the newest 256 raw, older "  \
             "ones quant4 (4.1 bits); small: 128 raw, then superpose8-2.25 (2.6); smallest: 64 " \
             "raw, then superpose8-1.75 (2.1), which learn from prompts of 1024 tokens or more " \
             "and are slower; else quant-k3v2 and quant2; auto: the first that fits here"},      \
        {.names = {"--tier"},                                                                    \
         .kind = KVCL_OPT_LIST,                                                                  \
         .offset = offsetof(s, cache.tiers),                                                     \
         .arg = "NAME=[DEVICE:]CODEC[:TOKENS]",                                                  \
         .env = "KVCL_TIER",                                                                     \
         .help = "one tier, hot, warm or cold, by hand; once for each, or with comma between: "  \
                 "hot=raw:64, warm=quant8:512, cold=cpu:quant4; disk as a device keeps its "     \
                 "pages in a file: cold=disk:quant4; what is not said comes from --cache"},      \
        {.names = {"--tier-dir"},                                                                \
         .kind = KVCL_OPT_STRING,                                                                \
         .offset = offsetof(s, cache.tier_dir),                                                  \
         .arg = "DIR",                                                                           \
         .env = "KVCL_TIER_DIR",                                                                 \
         .help = "folder of the files of tiers on disk, which have no name there and go with "   \
                 "the program; default: TMPDIR, else /tmp (which may itself be memory)"},        \
        {.names = {"--drop-oldest"},                                                             \
         .kind = KVCL_OPT_FLAG,                                                                  \
         .offset = offsetof(s, cache.drop_oldest),                                               \
         .help = "when the cold tier has its TOKENS, or the cache --cache-mem, forget the "      \
                 "oldest tokens by whole pages of 64 instead of refusing; sinks stay"},          \
    {                                                                                            \
        .names = {"--cache-mem"}, .kind = KVCL_OPT_STRING, .offset = offsetof(s, cache.mem),     \
        .arg = "SIZE", .env = "KVCL_CACHE_MEM",                                                  \
        .help = "most bytes of the cache in memory (512M, 2G); without --cache the best preset " \
                "that fits is taken, else it must fit"                                           \
    }

/* ---- what a subcommand opens --------------------------------------------------------------- */

#define KVCL_APP_DEVICES 8

typedef struct kvcl_app {
    const kvcl_common_opts *common;
    bool err_color, out_color; /* may standard error, standard output be coloured? */
    bool err_tty, out_tty;
    kvcl_ctx *ctx;
    kvcl_dev *dev;
    kvcl_dev *tier_devs[KVCL_APP_DEVICES]; /* further ones, for tiers */
    size_t n_tier_devs;
    kvcl_model *model;
    kvcl_engine *engine;
    kvcl_session *session;
    kvcl_planner_plan plan; /* of the session's cache */
    char cache_words[192];  /* "hot=f16:256 cold=cpu:quant4" */
} kvcl_app;

/* Context with messages to stderr; prints the notes of the parsed options.  model and parsed may be
 * NULL.  On failure the sentence was printed; the exit code is in *code. */
bool kvcl_app_open(kvcl_app *app, const kvcl_common_opts *common, const kvcl_model_opts *model,
                   const kvcl_opt_result *parsed, int *code);
/* Frees what is there, last opened first. */
void kvcl_app_close(kvcl_app *app);
/* Path of the model: the one named, else the shipped one; E_IO when there is none. */
kvcl_status kvcl_app_model_path(kvcl_app *app, const kvcl_model_opts *o, char *out, size_t cap);
kvcl_status kvcl_app_open_model(kvcl_app *app, const kvcl_model_opts *o);
/* Model and device.  Without a device of o, the one that cache names for its hot tier is taken;
 * cache may be NULL. */
kvcl_status kvcl_app_open_device(kvcl_app *app, const kvcl_model_opts *o,
                                 const kvcl_cache_opts *cache);
/* Model, device and engine. */
kvcl_status kvcl_app_open_engine(kvcl_app *app, const kvcl_model_opts *o);
kvcl_session_options kvcl_app_session_options(const kvcl_model_opts *o);

/* The strings of the options as wishes: E_ARG for bad ones.  Opens nothing. */
kvcl_status kvcl_cache_wish_read(kvcl_ctx *ctx, const kvcl_cache_opts *o, kvcl_cache_wish *out);
/* The name by which kvcl_device_open() finds what a tier calls its device: "gpu" becomes the id of
 * the best GPU; E_NO_DEVICE without one. */
kvcl_status kvcl_cache_device_name(kvcl_ctx *ctx, const char *word, char out[64]);
/* Plans tiers for the context length and types in *s, opening the devices that wish names (they
 * stay open until the app closes); fills *s, whose codec names borrow from *plan.  Needs model and
 * device.  words gets the plan in the form of --tier strings. */
kvcl_status kvcl_app_plan_cache(kvcl_app *app, const kvcl_cache_wish *wish, kvcl_session_options *s,
                                kvcl_planner_plan *plan, char *words, size_t words_cap);
/* Plan, engine (unless it is there) and session in one: what does not fit is refused before weights
 * are copied (with --kv-error: before the session is allocated).  Needs model and device.
 *   tokens  borrows: the prompt that will come first and at once; n 0: not known */
kvcl_status kvcl_app_open_session(kvcl_app *app, const kvcl_cache_opts *cache,
                                  const int32_t *tokens, size_t n, kvcl_session_options *s);
/* --kv-error: names the wish's cold codec, the one of the lowest rate among its family whose error
 * is at most `target`, or with a warning the best one; needs model and device, makes the engine. */
kvcl_status kvcl_app_choose_rate(kvcl_app *app, double target, const kvcl_session_options *s,
                                 const int32_t *tokens, size_t n, kvcl_cache_wish *wish);
/* The same for a wish that was read. */
kvcl_status kvcl_app_open_wished(kvcl_app *app, const kvcl_cache_wish *wish,
                                 kvcl_session_options *s);
/* How many tokens --drop-oldest took, where it took some. */
void kvcl_app_note_dropped(const kvcl_app *app, const kvcl_session *session);
/* With -v: bytes and bits of each tier as they are now, on stderr. */
void kvcl_app_note_cache(const kvcl_app *app, const kvcl_session *session);

/* With -v: how often the bases of tiers were learned anew, and the errors that decide it. */
void kvcl_app_note_drift(const kvcl_app *app, const char *who, const kvcl_session *session);

/* Prints "kvcl: sentence" and returns the exit code of st (0 for KVCL_OK, printing nothing). */
int kvcl_app_finish(kvcl_app *app, kvcl_status st);
/* Flushes standard output; a full disk or closed pipe there is a failure of the program. */
int kvcl_app_finish_stdout(kvcl_app *app);
/* "kvcl: " and the sentence on stderr, coloured when that is wanted. */
void kvcl_say(bool color, const char *fmt, ...) KVCL_PRINTF(2, 3);
/* Unless quiet: a line of timings or progress on stderr. */
void kvcl_app_note(const kvcl_app *app, const char *fmt, ...) KVCL_PRINTF(2, 3);
/* May colours be used on this stream?  mode is the --color word. */
bool kvcl_color_wanted(const char *mode, bool is_tty);

/* After this the first Ctrl-C only sets a flag. */
void kvcl_interrupt_catch(void);
bool kvcl_interrupted(void);

/* ---- text in and out ----------------------------------------------------------------------- */

#define KVCL_MAX_INPUT ((size_t)1 << 30) /* bytes of a prompt or token file */

/* Length of the UTF-8 sequence at s: 1..4; 0 when invalid; -1 when s ends inside a sequence that is
 * valid so far.  n >= 1. */
int kvcl_utf8_step(const char *s, size_t n);
/* First byte that is not part of valid UTF-8; n when there is none. */
size_t kvcl_utf8_first_bad(const char *s, size_t n);
/* Copies with each invalid byte replaced by U+FFFD; out needs 3 * n bytes.  Returns the length. */
size_t kvcl_utf8_repair(const char *s, size_t n, char *out);
/* Reads \n \r \t \' \" \\ \xHH in place; other escapes stay.  Returns the length. */
size_t kvcl_unescape(char *s, size_t n);
/* A string for people: control bytes, quotes and invalid bytes as escapes, cut to cap. */
void kvcl_show_bytes(const char *s, size_t n, char *out, size_t cap);

/* Text from -p or -f ("-": standard input); exactly one of them.  *out frees with kvcl_mem_free. */
kvcl_status kvcl_read_text(kvcl_ctx *ctx, const char *prompt, const char *file, char **out,
                           size_t *n_out);
/* int32 little-endian ids of a file, each checked against n_vocab. */
kvcl_status kvcl_read_tokens(kvcl_ctx *ctx, const char *path, uint32_t n_vocab, int32_t **out,
                             size_t *n_out);
/* Tokens of a text or of a file of ids; *out frees with kvcl_mem_free.  E_ARG when there are none.
 */
kvcl_status kvcl_input_tokens(kvcl_app *app, const char *prompt, const char *file,
                              const char *tokens_file, int32_t **out, size_t *n_out);
/* E_ARG with the numbers and the remedy when n tokens do not fit into n_ctx. */
kvcl_status kvcl_check_fits(kvcl_app *app, size_t n, uint32_t n_ctx);

/* JSON string from bytes that may be no UTF-8. */
json_t *kvcl_json_text(const char *s, size_t n);
/* Prints to standard output with a newline and frees it; E_MEM when building it had failed. */
kvcl_status kvcl_json_print(kvcl_ctx *ctx, json_t *root);

/* ---- words --------------------------------------------------------------------------------- */

const char *kvcl_exactness_name(kvcl_exactness e); /* "exact", "exact, slow", "fast only" */
const char *kvcl_kind_name(kvcl_device_kind k);    /* "GPU", "integrated GPU", "CPU" */
/* "1.2 GB": powers of 1000 as storage sellers count, three digits. */
void kvcl_show_size(uint64_t bytes, char *out, size_t cap);
static inline double kvcl_seconds(uint64_t ns) { return (double)ns * 1e-9; }

#endif
