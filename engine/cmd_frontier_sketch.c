/* cmd_frontier_sketch.c - sketches of keys and their bounds.  See cmd_frontier.h. */
#include "cmd_frontier.h"

#include "hparams.h"
#include "mem.h"

#include <math.h>

#define LANES 16
#define LEVELS 256
#define ULP 0x1p-24     /* of a float, half of it: the error of one operation */
#define INFLATE 0x1p-30 /* of sums of doubles, generously */
#define NOTHING 1e-30   /* below: floats that lose digits */
#define CLIP_INT4 0.45  /* an int4 step in root mean squares: clips a little, as norms cover it */

/* ---- memory -------------------------------------------------------------------------------- */

kvcl_status kvcl_frontier_sketch_create(kvcl_ctx *ctx, uint32_t T, uint32_t D,
                                        kvcl_frontier_sketch *out)
{
    const struct {
        void **to;
        size_t n, size;
    } parts[] = {{(void **)&out->code, (size_t)(T + 2) * D, sizeof(float)},
                 {(void **)&out->in, T, sizeof(float)},
                 {(void **)&out->out, T, sizeof(float)},
                 {(void **)&out->to_query, (size_t)D * D, sizeof(double)},
                 {(void **)&out->random, (size_t)D * D, sizeof(float)},
                 {(void **)&out->cluster, T, 1},
                 {(void **)&out->center, (size_t)KVCL_FRONTIER_CLUSTERS * D, sizeof(float)},
                 {(void **)&out->mean, D, sizeof(float)}};
    for (size_t i = 0; i < kvcl_array_len(parts); i++)
        KVCL_TRY(kvcl_mem_array(ctx, parts[i].n, parts[i].size, "a sketch", parts[i].to));
    return KVCL_OK;
}

void kvcl_frontier_sketch_free(kvcl_ctx *ctx, kvcl_frontier_sketch *s)
{
    kvcl_mem_free(ctx, s->code);
    kvcl_mem_free(ctx, s->in);
    kvcl_mem_free(ctx, s->out);
    kvcl_mem_free(ctx, s->to_query);
    kvcl_mem_free(ctx, s->random);
    kvcl_mem_free(ctx, s->cluster);
    kvcl_mem_free(ctx, s->center);
    kvcl_mem_free(ctx, s->mean);
    *s = (kvcl_frontier_sketch){0};
}

/* ---- numbers ------------------------------------------------------------------------------- */

float kvcl_frontier_dot(const float *a, const float *b, uint32_t n)
{
    float lanes[LANES] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (uint32_t k = 0; k < LANES; k++)
            lanes[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (uint32_t k = 0; k < LANES; k++)
        sum += lanes[k];
    return sum;
}

static double norm_of(const float *x, uint32_t n)
{
    double square = 0;
    for (uint32_t i = 0; i < n; i++)
        square += (double)x[i] * (double)x[i];
    return sqrt(square);
}

static float float_above(double x)
{
    const float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}

static float float_below(double x)
{
    const float f = (float)x;
    return (double)f > x ? nextafterf(f, -INFINITY) : f;
}

void kvcl_frontier_norms(uint32_t n, const double *norms, float *out)
{
    float level[LEVELS];
    double largest = 0;
    for (uint32_t i = 0; i < n; i++)
        largest = fmax(largest, norms[i]);
    const float top = float_above(largest * (1 + INFLATE));
    for (int i = 0; i < LEVELS; i++)
        level[i] = i == LEVELS - 1 ? top : float_above((double)top * exp2((i - 255) / 32.0));
    for (uint32_t i = 0; i < n; i++) {
        const double x = norms[i] * (1 + INFLATE);
        int byte = x > 0 ? (int)ceil(255 + 32 * log2(x / (double)top)) : 0;
        byte = byte < 0 ? 0 : byte > LEVELS - 1 ? LEVELS - 1 : byte;
        while (byte > 0 && (double)level[byte - 1] >= x) /* the logarithm may be off by one */
            byte--;
        while (byte < LEVELS - 1 && (double)level[byte] < x)
            byte++;
        out[i] = level[byte];
    }
}

static void measure_reach(const kvcl_frontier_keys *k, kvcl_frontier_sketch *s)
{
    const double mean = norm_of(s->mean, s->D);
    s->reach = s->reach_code = 0;
    for (uint32_t t = 0; t < s->T; t++)
        s->reach = fmax(s->reach, norm_of(k->post + (size_t)t * s->D, s->D));
    s->reach += mean;
    if (s->spec->kind != KVCL_SKETCH_BOX)
        for (uint32_t t = 0; t < s->T; t++)
            s->reach_code = fmax(s->reach_code, norm_of(s->code + (size_t)t * s->s, s->s));
}

/* ---- coordinates in a basis ---------------------------------------------------------------- */

static void add_moments(const kvcl_frontier_keys *k, const float *mean, double *y, double *moments)
{
    const uint32_t D = k->D;
    memset(moments, 0, (size_t)D * D * sizeof *moments);
    for (uint32_t t = k->n_sinks; t < k->T; t++) {
        for (uint32_t d = 0; d < D; d++)
            y[d] = (double)k->post[(size_t)t * D + d] - (double)mean[d];
        for (uint32_t a = 0; a < D; a++)
            for (uint32_t b = 0; b <= a; b++)
                moments[(size_t)a * D + b] += y[a] * y[b];
    }
    for (uint32_t a = 0; a < D; a++)
        for (uint32_t b = 0; b <= a; b++)
            moments[(size_t)b * D + a] = moments[(size_t)a * D + b] /= k->T - k->n_sinks;
}

/* y [T][D] = to_key (k - mean). */
static void to_coordinates(const kvcl_frontier_keys *k, const float *mean, const double *to_key,
                           double *x, double *y)
{
    const uint32_t D = k->D;
    for (uint32_t t = 0; t < k->T; t++) {
        for (uint32_t d = 0; d < D; d++)
            x[d] = (double)k->post[(size_t)t * D + d] - (double)mean[d];
        for (uint32_t i = 0; i < D; i++) {
            const double *row = to_key + (size_t)i * D;
            double lanes[4] = {0}; /* D is a multiple of 4 or the rest is added below */
            uint32_t d = 0;
            for (; d + 4 <= D; d += 4)
                for (uint32_t l = 0; l < 4; l++)
                    lanes[l] += row[d + l] * x[d + l];
            for (; d < D; d++)
                lanes[0] += row[d] * x[d];
            y[(size_t)t * D + i] = lanes[0] + lanes[1] + (lanes[2] + lanes[3]);
        }
    }
}

/* Steps per coordinate, then codes; what they leave goes to norms [2][T]. */
static void code_coordinates(const double *y, kvcl_frontier_sketch *s, double *norms)
{
    const uint32_t D = s->D, T = s->T;
    const double top = s->spec->bits == 4 ? 7 : 127;
    memset(norms, 0, 2 * (size_t)T * sizeof *norms);
    for (uint32_t i = 0; i < D; i++) {
        double largest = 0, square = 0;
        for (uint32_t t = 0; t < T; t++) {
            const double x = y[(size_t)t * D + i];
            largest = fmax(largest, fabs(x));
            square += x * x;
        }
        double step = largest / top;
        if (s->spec->bits == 4)
            step = fmin(step, CLIP_INT4 * sqrt(square / T));
        for (uint32_t t = 0; t < T; t++) {
            const double x = y[(size_t)t * D + i];
            double left = x;
            if (i < s->s) {
                const double c = step > 0 ? fmin(top, fmax(-top - 1, rint(x / step))) : 0;
                const float decoded = (float)(c * step);
                s->code[(size_t)t * s->s + i] = decoded;
                left = x - (double)decoded;
            }
            norms[(i < s->s ? 0 : T) + t] += left * left;
        }
    }
    for (uint32_t t = 0; t < 2 * T; t++)
        norms[t] = sqrt(norms[t]);
}

static bool code_basis(const kvcl_frontier_keys *k, double *work, kvcl_frontier_sketch *s)
{
    const uint32_t D = s->D, T = s->T;
    double *moments = work, *to_key = moments + (size_t)D * D, *x = to_key + (size_t)D * D;
    double *norms = x + D, *y = norms + 2 * (size_t)T, *basis = y + (size_t)T * D;
    for (uint32_t d = 0; d < D; d++) {
        double sum = 0;
        for (uint32_t t = k->n_sinks; t < T; t++)
            sum += (double)k->post[(size_t)t * D + d];
        s->mean[d] = (float)(sum / (T - k->n_sinks));
    }
    add_moments(k, s->mean, x, moments);
    if (!kvcl_frontier_basis(s->spec->kind, D, moments, k->queries, basis, to_key, s->to_query,
                             &s->defect))
        return false;
    to_coordinates(k, s->mean, to_key, x, y);
    code_coordinates(y, s, norms);
    kvcl_frontier_norms(T, norms, s->in);
    kvcl_frontier_norms(T, norms + T, s->out);
    return true;
}

size_t kvcl_frontier_sketch_work(uint32_t T, uint32_t D)
{
    return (size_t)D * (2 * D + 1) + (size_t)T * (D + 2) + kvcl_frontier_basis_work(D);
}

bool kvcl_frontier_sketch_make(const kvcl_frontier_spec *spec, const kvcl_frontier_keys *keys,
                               double *work, kvcl_frontier_sketch *out)
{
    bool ok = true;
    out->spec = spec;
    out->T = keys->T;
    out->D = keys->D;
    out->s = spec->kind == KVCL_SKETCH_LEVELS ? keys->D : spec->n;
    out->defect = 0;
    memset(out->mean, 0, out->D * sizeof *out->mean);
    switch (spec->kind) {
    case KVCL_SKETCH_ORACLE:
        return true;
    case KVCL_SKETCH_RANDOM:
        kvcl_frontier_code_random(keys, out);
        break;
    case KVCL_SKETCH_LEVELS:
        kvcl_frontier_code_levels(keys, work, out);
        break;
    case KVCL_SKETCH_BOX:
        kvcl_frontier_code_box(keys, out);
        break;
    case KVCL_SKETCH_PCA:
    case KVCL_SKETCH_WHITENED:
    case KVCL_SKETCH_BALANCED:
        ok = code_basis(keys, work, out);
        break;
    }
    measure_reach(keys, out);
    return ok;
}

/* ---- bounds -------------------------------------------------------------------------------- */

/* The query in the sketch's coordinates: b [s], and the norms of it and of the rest. */
static void query_coordinates(const kvcl_frontier_sketch *s, const float *q, float *b,
                              double *inside, double *outside)
{
    const uint32_t D = s->D;
    double square[2] = {0};
    if (s->spec->kind == KVCL_SKETCH_LEVELS) {
        memcpy(b, q, D * sizeof *b);
        *inside = norm_of(q, D);
        *outside = 0;
        return;
    }
    for (uint32_t i = 0; i < D; i++) {
        double x = 0;
        for (uint32_t d = 0; d < D; d++)
            x += s->to_query[(size_t)i * D + d] * (double)q[d];
        if (i < s->s)
            b[i] = (float)x;
        square[i < s->s ? 0 : 1] += x * x;
    }
    *inside = sqrt(square[0]) * (1 + INFLATE);
    *outside = sqrt(square[1]) * (1 + INFLATE);
}

static void bounds_estimate(const kvcl_frontier_sketch *s, const float *q, uint32_t n, double z,
                            float *low, float *high)
{
    float b[KVCL_MAX_HEAD_DIM];
    double inside, outside;
    query_coordinates(s, q, b, &inside, &outside);
    /* Two products in floats, of q and k and of b and a row of code, and the mean's: at most n
     * rounded operations each, in any order, lose less than 2 n ulp |q| |k| (Higham 2002, 3.1). */
    const double size = norm_of(q, s->D), ops = 2 * (s->D + 16) * ULP;
    const double slack =
        ops * (size * s->reach + inside * s->reach_code) + s->defect * size * s->reach + NOTHING;
    const double offset = (double)kvcl_frontier_dot(q, s->mean, s->D);
    const double rest = s->D > s->s ? s->D - s->s : 1;
    for (uint32_t t = 0; t < n; t++) {
        const double x = offset + (double)kvcl_frontier_dot(b, s->code + (size_t)t * s->s, s->s);
        const double in = inside * (double)s->in[t];
        const double out = outside > 0 ? outside * (double)s->out[t] : 0;
        double error = in + out;
        if (z > 0)
            error = z * sqrt(in * in / s->s + out * out / rest);
        low[t] = float_below(x - error - slack);
        high[t] = float_above(x + error + slack);
    }
}

static void bounds_box(const kvcl_frontier_sketch *s, const float *q, uint32_t n, float *low,
                       float *high)
{
    const uint32_t D = s->D, size = s->spec->n;
    const double slack = 2 * (D + 16) * ULP * norm_of(q, D) * s->reach + NOTHING;
    for (uint32_t begin = 0; begin < n; begin += size) {
        const float *least = s->code + (size_t)(begin / size) * 2 * D, *most = least + D;
        double lowest = 0, highest = 0;
        for (uint32_t d = 0; d < D; d++) {
            const double a = (double)q[d] * (double)least[d], b = (double)q[d] * (double)most[d];
            lowest += fmin(a, b);
            highest += fmax(a, b);
        }
        for (uint32_t t = begin; t < n && t < begin + size; t++) {
            low[t] = float_below(lowest - slack);
            high[t] = float_above(highest + slack);
        }
    }
}

void kvcl_frontier_bounds(const kvcl_frontier_sketch *s, const float *q, const float *score,
                          uint32_t n, double scale, double z, float *low, float *high)
{
    switch (s->spec->kind) {
    case KVCL_SKETCH_ORACLE:
        memcpy(low, score, n * sizeof *low);
        memcpy(high, score, n * sizeof *high);
        break;
    case KVCL_SKETCH_RANDOM:
        kvcl_frontier_bounds_random(s, q, n, scale, low, high);
        break;
    case KVCL_SKETCH_BOX:
        bounds_box(s, q, n, low, high);
        break;
    case KVCL_SKETCH_LEVELS:
    case KVCL_SKETCH_PCA:
    case KVCL_SKETCH_WHITENED:
    case KVCL_SKETCH_BALANCED:
        bounds_estimate(s, q, n, z, low, high);
        break;
    }
}
