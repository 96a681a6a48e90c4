/* cmd_eval_stats.c - see cmd_eval_stats.h. */
#include "cmd_eval_stats.h"

#include <math.h>
#include <stdlib.h>

size_t kvcl_stats_argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

double kvcl_stats_log_sum_exp(const float *x, size_t n)
{
    double max = (double)x[kvcl_stats_argmax(x, n)], sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max + log(sum);
}

double kvcl_stats_nll(const float *logits, size_t n, size_t token)
{
    return kvcl_stats_log_sum_exp(logits, n) - (double)logits[token];
}

double kvcl_stats_kl(const float *p, const float *q, size_t n)
{
    double zp = kvcl_stats_log_sum_exp(p, n), zq = kvcl_stats_log_sum_exp(q, n), sum = 0;
    for (size_t i = 0; i < n; i++) {
        double lp = (double)p[i] - zp;
        sum += exp(lp) * (lp - ((double)q[i] - zq));
    }
    return sum < 0 ? 0 : sum;
}

double kvcl_stats_head_error(const float *a, const float *b, size_t n_heads, size_t head_dim)
{
    double sum = 0;
    for (size_t h = 0; h < n_heads; h++) {
        double norm = 0, diff = 0;
        for (size_t i = h * head_dim; i < (h + 1) * head_dim; i++) {
            double d = (double)a[i] - (double)b[i];
            norm += (double)a[i] * (double)a[i];
            diff += d * d;
        }
        sum += diff == 0 ? 0 : norm > 0 ? sqrt(diff / norm) : 1;
    }
    return n_heads ? sum / (double)n_heads : 0;
}

double kvcl_stats_mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / (double)n : 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void kvcl_stats_sort(double *x, size_t n)
{
    if (n > 1)
        qsort(x, n, sizeof *x, ascending);
}

double kvcl_stats_quantile(const double *x, size_t n, double p)
{
    if (n == 0)
        return 0;
    double h = p * (double)(n - 1), low = floor(h);
    size_t i = (size_t)low;
    return i + 1 < n ? x[i] + (h - low) * (x[i + 1] - x[i]) : x[n - 1];
}

uint64_t kvcl_stats_hash(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * UINT64_C(1099511628211);
    return h;
}
