/* cmd_compare.h - one device against the scalar twin: logits of every position, greedy tokens. */
#ifndef KVCL_CMD_COMPARE_H
#define KVCL_CMD_COMPARE_H

#include "cmd.h"

/* The logits of the reference, [n_rows][n_vocab]: in memory, or in an unnamed file when they are
 * large. */
typedef struct kvcl_ref_logits {
    kvcl_ctx *ctx;
    size_t n_vocab, n_rows;
    float *memory; /* all rows */
    FILE *file;    /* instead of memory */
    float *row;    /* one row read back from file */
} kvcl_ref_logits;

kvcl_status kvcl_ref_logits_create(kvcl_ctx *ctx, size_t n_rows, size_t n_vocab,
                                   kvcl_ref_logits *out);
void kvcl_ref_logits_free(kvcl_ref_logits *r);
/* Rows are written in ascending order, one after the other. */
kvcl_status kvcl_ref_logits_put(kvcl_ref_logits *r, size_t row, const float *logits, size_t n);
/* *out stays valid until the next call. */
kvcl_status kvcl_ref_logits_get(kvcl_ref_logits *r, size_t row, const float **out);

/* What is compared. */
typedef struct kvcl_compare_input {
    const kvcl_common_opts *common;
    const kvcl_model_opts *model; /* path and cache types */
    const kvcl_cache_wish *cache;
    int32_t *prompt;
    uint32_t n_prompt, n_greedy, n_vocab;
    kvcl_ref_logits ref; /* rows 0 .. n_prompt-1: after each prompt token; then after each greedy */
    int32_t *greedy;     /* [n_greedy]: the reference's choice */
} kvcl_compare_input;

typedef struct kvcl_compare_result {
    char which[64];
    char cache[192]; /* tiers, as --tier strings */
    uint32_t batch;  /* prompt tokens per step; 0: the default */
    kvcl_device_info device;
    kvcl_status status;
    char error[512];
    uint64_t n_values, n_differing; /* values compared; those whose bits differ */
    uint64_t max_ulp;
    int64_t first_diverging; /* greedy token that the device would choose otherwise; -1: none */
    double prefill_tps, decode_tps;
} kvcl_compare_result;

/* E_ARG with a sentence unless "device" or "cpu...@threads". */
kvcl_status kvcl_compare_check(kvcl_ctx *ctx, const char *which);
/* Runs the device `r->which` ("cpu:avx2@2": two threads); as_reference fills in->ref and in->greedy
 * instead of comparing.  Failures of the device land in *r; what is returned is OK or
 * E_INTERRUPTED.
 */
kvcl_status kvcl_compare_pass(kvcl_compare_input *in, bool as_reference, kvcl_compare_result *r);

/* Floats between a and b; UINT32_MAX when one is not a number and the other is. */
uint32_t kvcl_ulp_distance(float a, float b);

#endif
