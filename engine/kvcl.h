/* kvcl.h - the public interface of libkvcl: language models from GGUF files, with the same bits on
 * every device.
 *
 * Objects and who owns whom:
 *
 *   kvcl_ctx      allocator, log, last error sentence.  One per thread of use.
 *   kvcl_dev      an opened device: the CPU, or one OpenCL device.   keeps its context
 *   kvcl_model    a GGUF file: shape, tokenizer, tensors on disk.    keeps its context
 *   kvcl_engine   a model's weights on one device.                   keeps its model and device
 *   kvcl_session  one sequence: cache, scratch, position.            keeps its engine
 *
 * "borrows" means for the call, "keeps" means until free (the caller must let it outlive), "takes"
 * means the caller must not free it any more.
 *
 * Every function that can fail returns a kvcl_status and writes its results through the last
 * parameters, on success only; kvcl_last_error() then holds one sentence that names cause and
 * remedy.  Every free and close function accepts NULL.  The library never prints, aborts or exits.
 *
 * Compiles as C11 and as C++. */
#ifndef KVCL_H
#define KVCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVCL_VERSION "0.1.0"

/* ---- statuses ------------------------------------------------------------------------------ */

/* X(name, value, sentence, exit code of the program) */
#define KVCL_STATUS_LIST(X)                                     \
    X(OK, 0, "success", 0)                                      \
    X(E_ARG, -1, "argument out of contract", 2)                 \
    X(E_MEM, -2, "host memory exhausted", 6)                    \
    X(E_DEVICE_MEM, -3, "device memory exhausted", 6)           \
    X(E_DEVICE, -4, "device reported an error", 5)              \
    X(E_BUILD, -5, "kernel failed to build", 5)                 \
    X(E_UNSUPPORTED, -6, "combination not supported", 1)        \
    X(E_NO_DEVICE, -7, "no such device", 5)                     \
    X(E_FORMAT, -10, "file is not what it claims", 3)           \
    X(E_VERSION, -11, "file version not supported", 3)          \
    X(E_IO, -12, "file could not be read or written", 1)        \
    X(E_FULL, -20, "budget reached", 1)                         \
    X(E_DIFFERS, -21, "an exact device computed other bits", 7) \
    X(E_INTERRUPTED, -22, "interrupted", 130)                   \
    X(E_NOT_FINITE, -23, "a key or value is not a finite number", 1)

typedef enum kvcl_status {
#define KVCL_STATUS_ENUM(name, value, sentence, exit_code) KVCL_##name = (value),
    KVCL_STATUS_LIST(KVCL_STATUS_ENUM)
#undef KVCL_STATUS_ENUM
} kvcl_status;

/* The fixed sentence of a status, and the exit code the program documents for it. */
const char *kvcl_status_string(kvcl_status st);
int kvcl_status_exit_code(kvcl_status st);

/* ---- context ------------------------------------------------------------------------------- */

typedef struct kvcl_ctx kvcl_ctx;

typedef enum kvcl_log_level {
    KVCL_LOG_ERROR = 0,
    KVCL_LOG_WARN = 1,
    KVCL_LOG_INFO = 2,
    KVCL_LOG_DEBUG = 3
} kvcl_log_level;

typedef void (*kvcl_log_fn)(void *user, kvcl_log_level level, const char *message);

/* alloc returns memory aligned to 64 bytes or NULL; free receives what alloc returned. */
typedef struct kvcl_allocator {
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *p, size_t bytes);
    void *user;
} kvcl_allocator;

typedef struct kvcl_ctx_options {
    const kvcl_allocator *allocator; /* NULL: the C library's */
    kvcl_log_fn log;                 /* NULL: silent */
    void *log_user;
    kvcl_log_level log_level; /* messages above it are not formed */
    uint32_t n_threads;       /* CPU threads; 0: one per processor (or KVCL_THREADS) */
    bool allow_inexact;       /* let devices of class "fast only" be opened */
} kvcl_ctx_options;

/* Live counters of host memory that went through the context's allocator. */
typedef struct kvcl_mem_stats {
    size_t bytes_used; /* now */
    size_t bytes_peak;
    uint64_t n_allocs; /* calls so far */
    uint64_t n_live;   /* blocks now */
} kvcl_mem_stats;

/* opt borrows, may be NULL for defaults. */
kvcl_status kvcl_ctx_create(const kvcl_ctx_options *opt, kvcl_ctx **out);
void kvcl_ctx_free(kvcl_ctx *ctx);
/* The sentence of the last failure; "" when there was none.  Valid until the next failure. */
const char *kvcl_last_error(const kvcl_ctx *ctx);
kvcl_mem_stats kvcl_ctx_mem_stats(const kvcl_ctx *ctx);

/* ---- devices ------------------------------------------------------------------------------- */

typedef struct kvcl_dev kvcl_dev;

typedef enum kvcl_device_kind {
    KVCL_KIND_CPU = 0,        /* the program's own CPU backend */
    KVCL_KIND_GPU = 1,        /* a discrete GPU */
    KVCL_KIND_INTEGRATED = 2, /* a GPU that shares the host's memory */
    KVCL_KIND_OPENCL_CPU = 3, /* a CPU behind OpenCL: used only when named */
    KVCL_KIND_OTHER = 4
} kvcl_device_kind;

typedef enum kvcl_exactness {
    KVCL_EXACT_UNTESTED = 0, /* the self-test runs when the device is opened */
    KVCL_EXACT = 1,
    KVCL_EXACT_SLOW = 2, /* exact, but fma is emulated */
    KVCL_FAST_ONLY = 3   /* a self-test hash differs: refused unless allow_inexact */
} kvcl_exactness;

typedef struct kvcl_device_info {
    char id[64]; /* stable: "cpu", "opencl:nvidia:0" */
    char name[128];
    char platform[128];
    char driver[128];
    char detail[128]; /* path in use ("avx512, 2 threads"), capabilities */
    kvcl_device_kind kind;
    kvcl_exactness exactness;
    uint64_t mem_bytes;
    uint64_t max_alloc_bytes;
    uint32_t n_units;
    bool is_default;
} kvcl_device_info;

/* Lists the devices: the CPU first, then OpenCL's in platform order; one GPU that several platforms
 * show appears once.  Writes at most cap entries; *n_out is the full count.  Opens nothing. */
kvcl_status kvcl_device_list(kvcl_ctx *ctx, kvcl_device_info *out, size_t cap, size_t *n_out);

/* Opens the device that `which` names: an id, an index of kvcl_device_list(), or a case-insensitive
 * part of id, name or platform; NULL or "" means KVCL_DEVICE, else the default (discrete GPU, then
 * integrated GPU, then the CPU).  Runs the self-test. */
kvcl_status kvcl_device_open(kvcl_ctx *ctx, const char *which, kvcl_dev **out);
void kvcl_device_close(kvcl_dev *dev);
const kvcl_device_info *kvcl_device_get_info(const kvcl_dev *dev);

/* ---- models -------------------------------------------------------------------------------- */

/* Element types, numbered as in GGUF. */
typedef enum kvcl_type {
    KVCL_F32 = 0,
    KVCL_F16 = 1,
    KVCL_Q4_0 = 2,
    KVCL_Q5_0 = 6,
    KVCL_Q8_0 = 8,
    KVCL_BF16 = 30
} kvcl_type;

const char *kvcl_type_name(kvcl_type type); /* "Q8_0"; NULL when unknown */
/* Accepts any case; E_ARG when the name is unknown. */
kvcl_status kvcl_type_parse(kvcl_ctx *ctx, const char *name, kvcl_type *out);
/* Bytes of n elements (a multiple of the type's block). */
size_t kvcl_type_bytes(kvcl_type type, size_t n);

typedef struct kvcl_model kvcl_model;

typedef struct kvcl_model_info {
    char arch[32]; /* "llama", "qwen3" */
    char name[128];
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
    uint32_t n_ctx_train; /* the longest context; where attention slides, its window */
    uint64_t n_params;
    uint64_t tensor_bytes;
    int32_t bos_id, eos_id; /* -1 when the file has none */
    bool add_bos, add_eos;
    bool has_tokenizer;
} kvcl_model_info;

/* Reads and checks a GGUF file; maps its tensors.  path borrows. */
kvcl_status kvcl_model_open(kvcl_ctx *ctx, const char *path, kvcl_model **out);
void kvcl_model_close(kvcl_model *model);
const kvcl_model_info *kvcl_model_get_info(const kvcl_model *model);

typedef struct kvcl_tokenize_options {
    int add_bos, add_eos; /* 0: no, > 0: yes, < 0: as the file says */
    bool control;         /* control tokens written in the text ("<|im_end|>") are parsed: only for
                             texts whose every part is trusted */
} kvcl_tokenize_options;

/* Text to token ids.  Invalid UTF-8 is tokenised byte by byte.  *tokens_out takes: free it with
 * kvcl_tokens_free().  Cost: linear in n_bytes but for the merges of one word. */
kvcl_status kvcl_tokenize_with(const kvcl_model *model, const char *text, size_t n_bytes,
                               const kvcl_tokenize_options *opt, int32_t **tokens_out,
                               size_t *n_out);
/* The same for a text that goes on: no EOS, control tokens in it not parsed. */
kvcl_status kvcl_tokenize(const kvcl_model *model, const char *text, size_t n_bytes, int add_bos,
                          int32_t **tokens_out, size_t *n_out);
void kvcl_tokens_free(const kvcl_model *model, int32_t *tokens);
/* The bytes of one token (not a C string); *bytes_out borrows from the model. */
kvcl_status kvcl_token_bytes(const kvcl_model *model, int32_t token, const char **bytes_out,
                             size_t *n_out);
/* True for tokens that end generation. */
bool kvcl_token_is_end(const kvcl_model *model, int32_t token);

/* Writes a copy of a GGUF file with every matrix in `type` (Q8_0, Q5_0, Q4_0, F16 or F32); 1-D
 * tensors stay F32.  The result appears under `out_path` complete or not at all.  progress may be
 * NULL. */
typedef void (*kvcl_progress_fn)(void *user, uint64_t done, uint64_t total);
kvcl_status kvcl_quantize_file(kvcl_ctx *ctx, const char *in_path, const char *out_path,
                               kvcl_type type, kvcl_progress_fn progress, void *user);

/* ---- engine and session -------------------------------------------------------------------- */

typedef struct kvcl_engine kvcl_engine;
typedef struct kvcl_session kvcl_session;

/* Puts the model's weights on the device; keeps both. */
kvcl_status kvcl_engine_create(kvcl_model *model, kvcl_dev *dev, kvcl_engine **out);
void kvcl_engine_free(kvcl_engine *engine);
/* Bytes of weights that one decode step reads. */
uint64_t kvcl_engine_weight_bytes_per_token(const kvcl_engine *engine);

#define KVCL_MAX_TIERS 3

/* One tier of the cache.  Tokens age from tier to tier, newest first: hot, warm, cold.  The hot
 * tier is raw (type_k, type_v); each page that leaves it is coded, once for each later tier, from
 * its exact rows. */
typedef struct kvcl_tier_options {
    kvcl_dev *dev;     /* where its pages live and are read; NULL: the engine's; keeps */
    bool on_disk;      /* instead: in a file (see tier_dir), read through the engine's device; not
                          the hot tier */
    const char *codec; /* "f16", "quant4", "quant-k3v2/post", "q8_0" ...; NULL for the hot tier */
    /* hot (its device is the engine's): the newest tokens that are read raw, 64 at least, rounded
     * up to whole pages; later tiers: how many tokens it holds; 0 in the last one: all that is left
     */
    uint32_t tokens;
} kvcl_tier_options;

typedef struct kvcl_session_options {
    uint32_t n_ctx;   /* tokens the cache holds; 0: min(model's context, 8192) */
    uint32_t n_batch; /* prompt tokens per step; 0: 512 */
    kvcl_type type_k; /* of raw rows: KVCL_F16 (default of kvcl_session_defaults) or KVCL_F32 */
    kvcl_type type_v;
    uint32_t n_sink;  /* first tokens that stay raw beside lossy tiers; at most 32; default 8 */
    uint32_t n_tiers; /* 0 or 1: the whole cache is raw, on the engine's device */
    kvcl_tier_options tiers[KVCL_MAX_TIERS];
    /* folder of the files of tiers on disk; NULL: the system's for temporary files (TMPDIR, else
     * /tmp).  Each session has files of its own, with all their bytes reserved, readable by their
     * owner alone and without a name, so that they are gone with the session or the process.
     * borrows */
    const char *tier_dir;
    /* a last tier with a number of tokens drops its oldest pages, once the others are full, instead
     * of being refused as too small for n_ctx; the first n_sink tokens stay, positions too */
    bool drop_oldest;
} kvcl_session_options;

kvcl_session_options kvcl_session_defaults(void);

/* Allocates everything the session will ever need; nothing is allocated after it returns.  E_IO
 * when a tier's file cannot be had. */
kvcl_status kvcl_session_create(kvcl_engine *engine, const kvcl_session_options *opt,
                                kvcl_session **out);
void kvcl_session_free(kvcl_session *session);
/* Tokens in the cache, and the most it holds. */
uint32_t kvcl_session_n_tokens(const kvcl_session *session);
uint32_t kvcl_session_n_ctx(const kvcl_session *session);
/* Forgets all tokens from position n_tokens on.  With lossy tiers: into the hot window, or to 0;
 * E_ARG, nothing forgotten, for what lies between (those tokens' exact rows are gone, or they were
 * dropped).  A basis
 * that was learned anew meanwhile ("/againR") stays. */
kvcl_status kvcl_session_rewind(kvcl_session *session, uint32_t n_tokens);
/* Copies a session with all its tokens: both go on from the same bits. */
kvcl_status kvcl_session_fork(kvcl_session *session, kvcl_session **out);

typedef struct kvcl_tier_stats {
    char tier[8], device[64], codec[48];
    uint32_t n_tokens; /* that the next query reads here */
    uint32_t capacity; /* tokens its pages have room for */
    uint64_t bytes;    /* allocated for pages; on disk: of their file */
    bool on_disk;      /* device is then "disk" */
    const char *part_name[4];
    uint64_t part_bytes[4]; /* their sum is bytes */
    double bits_per_elem;   /* of a whole page */
    /* where the codec's bases follow the text ("/againR"), over all layers: times that one was
     * learned anew; relative squared error of keys and values, their mean, of pages that were
     * learned from and of the last ones; else 0 */
    uint32_t n_refreshes;
    double error_learned, error_now;
} kvcl_tier_stats;

/* All bytes are those that are allocated, all layers together. */
typedef struct kvcl_cache_stats {
    uint32_t n_tiers;
    kvcl_tier_stats tiers[KVCL_MAX_TIERS];
    uint64_t sink_bytes, mean_bytes;
    uint64_t basis_bytes;   /* what codecs learned of the layers */
    uint64_t staging_bytes; /* one layer's raw rows of a prompt on its way to lossy tiers */
    uint64_t scratch_bytes; /* partials, tables, buffers between devices */
    uint64_t total_bytes;   /* all of these but tiers on disk */
    uint64_t disk_bytes;    /* those */
    uint64_t read_bytes;    /* what attention over the tokens so far reads for one more token */
    double
        bits_per_elem; /* of the coded tokens: codes, scales, means, bases; 0 without lossy tiers */
    double bits_per_elem_all; /* of all tokens so far: the above, hot rows and sinks */
    uint32_t n_dropped;       /* tokens that the next query does not read: see drop_oldest */
} kvcl_cache_stats;

void kvcl_session_cache_stats(const kvcl_session *session, kvcl_cache_stats *out);
/* Bytes of the cache's pages (tiers, sinks, means): what is allocated of memory. */
uint64_t kvcl_session_cache_bytes(const kvcl_session *session);

/* Memory that a session will ask for, told before anything is allocated. */
#define KVCL_PLAN_ROWS 24
typedef struct kvcl_plan_row {
    char device[64], what[64]; /* "cold tier, quant4"; tiers on disk: device "disk" */
    uint64_t bytes;
} kvcl_plan_row;

typedef struct kvcl_session_plan {
    uint32_t n_rows;
    kvcl_plan_row rows[KVCL_PLAN_ROWS];
    uint64_t weight_bytes; /* on the engine's device; on the CPU: mapped from the file */
    uint64_t cache_bytes;  /* tiers, sinks, means: memory */
    uint64_t total_bytes;  /* all rows but those of device "disk" */
    uint64_t disk_bytes;   /* those */
    double bits_per_elem;  /* of the lossy tiers' pages; 16 without */
} kvcl_session_plan;

/* What kvcl_session_create() would allocate for this model on `dev` (NULL: the CPU's sizes); E_ARG
 * and E_UNSUPPORTED as there. */
kvcl_status kvcl_session_plan_make(const kvcl_model *model, kvcl_dev *dev,
                                   const kvcl_session_options *opt, kvcl_session_plan *out);
/* The same rows for what is allocated now, from the live counters of the session's devices; names
 * without codecs ("cold tier").  Buffers of other sessions on these devices count, too. */
void kvcl_session_memory(const kvcl_session *session, kvcl_session_plan *out);

/* Called between the steps of a prefill; return false to stop (E_INTERRUPTED). */
typedef bool (*kvcl_prefill_fn)(void *user, uint32_t n_done, uint32_t n_total);

/* Appends tokens (the prompt) and writes the logits after the last n_logits of them,
 * [n_logits][n_vocab], into the caller's memory.  The bits depend on the tokens and the cache
 * alone, never on n_batch or the device.  E_FULL, nothing appended, when they do not fit. */
kvcl_status kvcl_session_prefill(kvcl_session *session, const int32_t *tokens, uint32_t n_tokens,
                                 uint32_t n_logits, float *logits, kvcl_prefill_fn progress,
                                 void *user);
/* The same for several empty sessions of one engine and one length at once: the prompt is computed
 * once (exactly, as always) for all whose codecs learn from the same tokens, and these sessions'
 * tiers are filled from it.  All are empty when it fails.  For comparisons. */
kvcl_status kvcl_session_prefill_shared(kvcl_session *const *sessions, uint32_t n_sessions,
                                        const int32_t *tokens, uint32_t n_tokens, uint32_t n_logits,
                                        float *logits, kvcl_prefill_fn progress, void *user);
/* Appends one generated token and writes the logits after it, [n_vocab].  E_FORMAT, naming layer
 * and page, when a coded page was damaged, E_IO when a tier's file cannot be read: nothing
 * appended, older tokens as they were. */
kvcl_status kvcl_session_decode(kvcl_session *session, int32_t token, float *logits);

/* Lets `fn` see rows of a step's activations, for measurements (slow: the device is waited for).
 *   KVCL_TAP_QKV  [n][Hq*D | Hk*D | Hk*D] before rotation
 *   KVCL_TAP_Q    [n][Hq*D] after rotation
 *   KVCL_TAP_ATT  [n][Hq*D] attention's output
 * mask: a sum of 1u << KVCL_TAP_...; fn NULL ends it.  rows borrow. */
typedef enum kvcl_tap_point { KVCL_TAP_QKV = 0, KVCL_TAP_Q = 1, KVCL_TAP_ATT = 2 } kvcl_tap_point;
typedef void (*kvcl_tap_fn)(void *user, kvcl_tap_point point, uint32_t layer, uint32_t pos0,
                            uint32_t n, const float *rows, uint32_t width);
kvcl_status kvcl_session_set_tap(kvcl_session *session, uint32_t mask, kvcl_tap_fn fn, void *user);

/* ---- sampling ------------------------------------------------------------------------------ */

typedef struct kvcl_sampler kvcl_sampler;

typedef struct kvcl_sampler_options {
    float temp; /* <= 0: greedy */
    int32_t top_k;
    float top_p, min_p, repeat_penalty;
    int32_t repeat_last_n;
    uint64_t seed;
} kvcl_sampler_options;

kvcl_sampler_options kvcl_sampler_defaults(void);
kvcl_status kvcl_sampler_create(kvcl_ctx *ctx, const kvcl_sampler_options *opt, uint32_t n_vocab,
                                kvcl_sampler **out);
void kvcl_sampler_free(kvcl_sampler *sampler);
/* Picks the next token: penalties, top_k, top_p, min_p, temperature, as llama.cpp orders them.  The
 * same logits, options and history give the same token on every machine.  E_ARG when a logit is not
 * a number. */
kvcl_status kvcl_sampler_pick(kvcl_sampler *sampler, const float *logits, int32_t *token_out);
/* Tells the sampler of a token that came from elsewhere (the prompt), for the repeat penalty. */
void kvcl_sampler_accept(kvcl_sampler *sampler, int32_t token);

/* ---- singular values ----------------------------------------------------------------------- */

typedef struct kvcl_rsvd_options {
    uint32_t rank;       /* singular values wanted; rank + oversample: at most 128, rows and cols */
    uint32_t oversample; /* columns of the sketch beyond rank: 8 by default */
    uint32_t power;      /* power iterations: 4 by default, at most 64 */
    /* Key the random numbers: the same ones, the same bits.  Matrix b of a batch has page + b. */
    uint64_t seed;
    uint32_t layer, head, page;
} kvcl_rsvd_options;

/* As far as rank + oversample fit a rows x cols matrix. */
kvcl_rsvd_options kvcl_rsvd_defaults(uint32_t rank, size_t rows, size_t cols);

/* Truncated singular value decompositions by random projection: A ~ U diag(S) V^T for each of n
 * matrices a [n][rows][cols], row-major, on the device; u [n][rows][rank], s [n][rank] descending,
 * v [n][cols][rank].  The bits are the same on every exact device.  Of each column of v the entry
 * of largest magnitude is positive; beyond a matrix's rank s is 0 and columns of u or v are zero.
 * Up to 256 columns and 2^20 rows, or the other way round, are one step on the device; beyond, up
 * to 65536 of either, the range finder runs in products with the whole matrix there and leaves a
 * matrix of rank + oversample columns to that step.
 *   a, opt borrow; u, s, v: the caller's memory, undefined on failure
 * E_UNSUPPORTED for sizes beyond; E_NOT_FINITE when a value is not finite or from 2^100 on;
 * E_MEM, E_DEVICE_MEM.  Cost: see engine/ops_svd.h. */
kvcl_status kvcl_rsvd(kvcl_dev *dev, const float *a, size_t n, size_t rows, size_t cols,
                      const kvcl_rsvd_options *opt, float *u, float *s, float *v);

#ifdef __cplusplus
}
#endif

#endif
