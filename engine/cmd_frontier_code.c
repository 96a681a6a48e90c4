/* cmd_frontier_code.c - sketches that keep all dimensions: levels of few bits, boxes.  See
 * cmd_frontier.h. */
#include "cmd_frontier.h"

#include "f16.h"
#include "hparams.h"
#include "quant.h"
#include "shared.h"

#include <math.h>

/* The row that codec quant<bits> would keep of x (engine/ops_code.h): mean off, transformed, levels
 * and a scale that keeps its length; decoded in place. */
static void keep_row(uint32_t D, uint32_t bits, const float *mean, float *x)
{
    const uint32_t log2_b = kvcl_head_log2(D);
    const float down = kvcl_head_down(log2_b), up = kvcl_head_up(log2_b);
    double square = 0, levels = 0;
    for (uint32_t d = 0; d < D; d++)
        x[d] = x[d] - mean[d];
    kvcl_cpu_fwht_head(D, x);
    for (uint32_t d = 0; d < D; d++) {
        x[d] *= down;
        square += (double)x[d] * (double)x[d];
    }
    const float inv = square > 0 ? (float)((double)kvcl_quant_unit(bits) / sqrt(square / D)) : 0;
    for (uint32_t d = 0; d < D; d++) {
        const int c = kvcl_quant_level(bits, kvcl_quant_index(bits, x[d] * inv));
        levels += (double)(c * c);
        x[d] = (float)c;
    }
    const float step = kvcl_f16_to_f32(kvcl_f32_to_f16((float)sqrt(square / levels)));
    kvcl_cpu_fwht_head(D, x);
    for (uint32_t d = 0; d < D; d++)
        x[d] = mean[d] + up * step * x[d];
}

void kvcl_frontier_code_levels(const kvcl_frontier_keys *k, double *norms,
                               kvcl_frontier_sketch *out)
{
    const uint32_t D = k->D, T = k->T;
    const bool turned = k->table && !out->spec->post;
    const float *from = turned ? k->pre : k->post;
    float mean[KVCL_MAX_HEAD_DIM];
    for (uint32_t d = 0; d < D; d++) {
        double sum = 0;
        for (uint32_t t = k->n_sinks; t < T; t++)
            sum += (double)from[(size_t)t * D + d];
        mean[d] = (float)(sum / (T - k->n_sinks));
    }
    for (uint32_t t = 0; t < T; t++) {
        float *x = out->code + (size_t)t * D;
        double square = 0;
        memcpy(x, from + (size_t)t * D, D * sizeof *x);
        keep_row(D, out->spec->n, mean, x);
        if (turned)
            kvcl_cpu_turn(k->pairing, k->n_rot, k->table + (size_t)t * k->n_rot, false, x);
        for (uint32_t d = 0; d < D; d++) {
            const double e = (double)k->post[(size_t)t * D + d] - (double)x[d];
            square += e * e;
        }
        norms[t] = sqrt(square);
    }
    kvcl_frontier_norms(T, norms, out->in);
}

/* The nearest half that is not above (below) x. */
static float half_beside(float x, bool above)
{
    uint16_t h = kvcl_f32_to_f16(x);
    const float y = kvcl_f16_to_f32(h);
    if (above ? y >= x : y <= x)
        return y;
    if (y == 0) /* the smallest half of the other side */
        h = above ? 1 : 0x8001;
    else if ((y > 0) == above)
        h++;
    else
        h--;
    return kvcl_f16_to_f32(h);
}

void kvcl_frontier_code_box(const kvcl_frontier_keys *k, kvcl_frontier_sketch *out)
{
    const uint32_t D = k->D, n = out->spec->n;
    for (uint32_t begin = 0; begin < k->T; begin += n) {
        float *least = out->code + (size_t)(begin / n) * 2 * D, *most = least + D;
        for (uint32_t d = 0; d < D; d++) {
            float low = INFINITY, high = -INFINITY;
            for (uint32_t t = begin; t < k->T && t < begin + n; t++) {
                low = fminf(low, k->post[(size_t)t * D + d]);
                high = fmaxf(high, k->post[(size_t)t * D + d]);
            }
            least[d] = half_beside(low, false);
            most[d] = half_beside(high, true);
        }
    }
}
