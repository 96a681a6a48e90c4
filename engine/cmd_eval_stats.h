/* cmd_eval_stats.h - what quality figures are made of.  Plain functions of numbers, in double, with
 * the C library's exp and log: figures to report, not bits to compare. */
#ifndef KVCL_CMD_EVAL_STATS_H
#define KVCL_CMD_EVAL_STATS_H

#include "base.h"

/* Index of the largest; the first one of equals.  n >= 1. */
size_t kvcl_stats_argmax(const float *x, size_t n);

/* ln sum exp(x).  n >= 1. */
double kvcl_stats_log_sum_exp(const float *x, size_t n);

/* -ln of the probability that softmax(logits) gives to `token`, in nats. */
double kvcl_stats_nll(const float *logits, size_t n, size_t token);

/* KL(softmax(p) || softmax(q)) = sum softmax(p) (ln softmax(p) - ln softmax(q)) in nats; rounding
 * below 0 is 0.  Not a number when a logit is none. */
double kvcl_stats_kl(const float *p, const float *q, size_t n);

/* The mean over heads of |a - b| / |a|, each norm over head_dim elements; where a head of a is all
 * zero: 0 when b's is, else 1.  a, b [n_heads][head_dim]. */
double kvcl_stats_head_error(const float *a, const float *b, size_t n_heads, size_t head_dim);

/* 0 for n == 0. */
double kvcl_stats_mean(const double *x, size_t n);

/* Sorts x ascending; no element may be NaN. */
void kvcl_stats_sort(double *x, size_t n);
/* The p-quantile (0..1) of ascending x, linear between neighbours: with h = p (n - 1), x[floor h] +
 * (h - floor h) (x[floor h + 1] - x[floor h]).  0 for n == 0. */
double kvcl_stats_quantile(const double *x, size_t n, double p);

/* FNV-1a over bytes, to be chained; start with KVCL_HASH_START.  Names rows of a state file; no
 * protection against anybody. */
#define KVCL_HASH_START UINT64_C(14695981039346656037)
uint64_t kvcl_stats_hash(uint64_t h, const void *data, size_t bytes);

#endif
