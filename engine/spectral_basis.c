/* spectral_basis.c - see spectral_basis.h, spectral_fit.h. */
#include "spectral_basis.h"

#include "jacobi.h"

#include <math.h>

#define MATRICES 4       /* of scratch, with the metric */
#define SPREAD 8         /* between rows of one of them: see jacobi.h */
#define MIN_AMP 1e-10    /* of amplitudes that count; see kvcl_spectral_part */
#define LEAST_PART 1e-14 /* of the largest variance: less is rounding */

size_t kvcl_spectral_basis_scratch(uint32_t D)
{
    return MATRICES * (size_t)D * D + (SPREAD + 2) * (size_t)D;
}

double *kvcl_spectral_metric_at(uint32_t D, double *scratch)
{
    return scratch + 3 * (size_t)D * D + SPREAD * (size_t)D;
}

/* ---- the metric ---------------------------------------------------------------------------- */

/* The other dimension of d's pair; d itself beyond the rotated ones. */
static uint32_t partner(const kvcl_spectral_moments *m, uint32_t d)
{
    if (m->pairing == KVCL_ROPE_NONE || d >= m->n_rot)
        return d;
    uint32_t mid = m->n_rot / 2;
    return m->pairing == KVCL_ROPE_ADJACENT ? d ^ 1u : d < mid ? d + mid : d - mid;
}

static double moment(const kvcl_spectral_moments *m, uint32_t D, const float *q, uint32_t i,
                     uint32_t j)
{
    double value = (double)q[(size_t)i * D + j];
    uint32_t pi = partner(m, i), pj = partner(m, j);
    if (m->metric != KVCL_METRIC_PAIRS || (pi == i && pj == j))
        return value;
    if (i != j)
        return 0.0;
    return 0.5 * (value + (double)q[(size_t)pi * D + pi]);
}

/* Values a, b of each of n places, `apart` apart, turned by (c, s). */
static void turn(double *a, double *b, uint32_t n, size_t apart, double c, double s)
{
    for (size_t k = 0; k < n * apart; k += apart) {
        double x = a[k], y = b[k];
        a[k] = c * x - s * y;
        b[k] = c * y + s * x;
    }
}

/* R m R^T in place, R the turn by a row of the table. */
static void turn_both(const kvcl_spectral_moments *m, uint32_t D, const float *cs, double *x)
{
    for (uint32_t side = 0; side < 2; side++) {
        size_t across = side ? 1 : D, along = side ? D : 1;
        for (uint32_t i = 0; i < m->n_rot / 2; i++) {
            uint32_t a = m->pairing == KVCL_ROPE_ADJACENT ? 2 * i : i, b = partner(m, a);
            turn(x + a * across, x + b * across, D, along, (double)cs[2 * i],
                 (double)cs[2 * i + 1]);
        }
    }
}

uint32_t kvcl_spectral_distance(double *power, uint32_t *times)
{
    static const double root = 1.0905077326652577; /* 2^(1/8) */
    uint32_t distance = (uint32_t)*power;
    for (*times = 0; (uint32_t)*power == distance; ++*times)
        *power *= root;
    return distance;
}

/* out = mean over distances of the turned moments: short ones stand for several powers, and count
 * as often. */
static void average(const kvcl_spectral_moments *m, uint32_t D, const float *q, double *work,
                    double *out)
{
    size_t n = (size_t)D * D;
    const float *cs = m->table;
    uint32_t count = 0;
    double power = KVCL_SPECTRAL_FIRST;
    memset(out, 0, n * sizeof *out);
    for (; power < (double)m->n_span; cs += m->n_rot) {
        uint32_t times;
        (void)kvcl_spectral_distance(&power, &times);
        for (size_t i = 0; i < n; i++)
            work[i] = (double)q[i];
        turn_both(m, D, cs, work);
        for (size_t i = 0; i < n; i++)
            out[i] += work[i] * times;
        count += times;
    }
    double inv = 1.0 / kvcl_max_u32(1, count);
    for (size_t i = 0; i < n; i++)
        out[i] *= inv;
}

/* Of one head that is not joined. */
static void metric_of_one(const kvcl_spectral_moments *m, uint32_t D, const float *queries,
                          double *work, double *out)
{
    double trace = 0.0, ridge = m->ridge > 0.0 ? m->ridge : 1e-3;
    for (uint32_t i = 0; i < D; i++)
        trace += (double)queries[(size_t)i * D + i];
    bool none = !(trace > 0.0);
    if (m->metric == KVCL_METRIC_SPAN && m->pairing != KVCL_ROPE_NONE && m->n_span)
        average(m, D, queries, work, out);
    else
        for (uint32_t i = 0; i < D; i++)
            for (uint32_t j = 0; j < D; j++)
                out[(size_t)i * D + j] = moment(m, D, queries, i, j);
    for (uint32_t i = 0; i < D; i++) {
        double *row = out + (size_t)i * D;
        for (uint32_t j = 0; j < D && none; j++)
            row[j] = 0.0;
        row[i] += none ? 1.0 : ridge * (trace / D);
    }
}

void kvcl_spectral_metric_make(const kvcl_spectral_moments *m, uint32_t D, uint32_t h, double *work,
                               double *out)
{
    uint32_t join = kvcl_max_u32(1, m->join), d = D / join;
    size_t n = (size_t)d * d;
    const float *queries = m->queries + (size_t)h * join * n;
    if (join == 1) {
        metric_of_one(m, D, queries, work, out);
        return;
    }
    memset(out, 0, (size_t)D * D * sizeof *out);
    for (uint32_t j = 0; j < join; j++) {
        double *one = work + n, *to = out + (size_t)j * d * D + j * d;
        metric_of_one(m, d, queries + j * n, work, one);
        for (uint32_t i = 0; i < d; i++)
            memcpy(to + (size_t)i * D, one + (size_t)i * d, d * sizeof *to);
    }
}

/* m = L L^T in place: L in the lower triangle, zeros above.  A pivot that rounding made negative
 * becomes small: the ridge keeps that from mattering. */
static void cholesky(uint32_t D, double *m)
{
    double least = 0.0;
    for (uint32_t i = 0; i < D; i++)
        least = m[(size_t)i * D + i] > least ? m[(size_t)i * D + i] : least;
    least *= 1e-13;
    for (uint32_t i = 0; i < D; i++) {
        double *row = m + (size_t)i * D;
        for (uint32_t j = 0; j <= i; j++) {
            const double *other = m + (size_t)j * D;
            double sum = row[j];
            for (uint32_t k = 0; k < j; k++)
                sum -= row[k] * other[k];
            row[j] = j < i ? sum / other[j] : sqrt(sum > least ? sum : least);
        }
        for (uint32_t j = i + 1; j < D; j++)
            row[j] = 0.0;
    }
}

/* ---- products ------------------------------------------------------------------------------ */

/* out = a b, all [D][D]; sums over the inner index ascending. */
static void multiply(uint32_t D, const double *a, const double *b, double *restrict out)
{
    for (uint32_t i = 0; i < D; i++) {
        double *restrict row = out + (size_t)i * D;
        memset(row, 0, D * sizeof *row);
        for (uint32_t k = 0; k < D; k++) {
            double x = a[(size_t)i * D + k];
            const double *other = b + (size_t)k * D;
            for (uint32_t j = 0; j < D && x != 0.0; j++)
                row[j] += x * other[j];
        }
    }
}

static void transpose(uint32_t D, double *a)
{
    for (uint32_t i = 0; i < D; i++)
        for (uint32_t j = 0; j < i; j++) {
            double swap = a[(size_t)i * D + j];
            a[(size_t)i * D + j] = a[(size_t)j * D + i];
            a[(size_t)j * D + i] = swap;
        }
}

/* What the diagonal of Walsh row r's moments gets. */
static double shrinkage(const kvcl_spectral_basis *b, uint32_t r)
{
    const float *g = b->gram + (size_t)r * b->D * b->D;
    double trace = 0.0;
    for (uint32_t i = 0; i < b->D; i++)
        trace += (double)g[(size_t)i * b->D + i];
    return b->shrink * (trace / b->D);
}

/* Covariance of a token's row: the mean over Walsh rows and tokens. */
static void covariance(const kvcl_spectral_basis *b, double *out)
{
    size_t n = (size_t)b->D * b->D;
    double scale = 1.0 / ((double)b->n_slots * b->fold * b->fold);
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (uint32_t r = 0; r < b->fold; r++)
            sum += (double)b->gram[r * n + i];
        out[i] = sum * scale;
    }
    for (uint32_t r = 0; r < b->fold; r++) {
        double more = shrinkage(b, r) * scale;
        for (uint32_t i = 0; i < b->D; i++)
            out[(size_t)i * b->D + i] += more;
    }
}

/* Rows of u, each times L^-1 from the right: solutions of s L = u. */
static void solve_rows(uint32_t D, const double *l, double *u)
{
    for (uint32_t i = 0; i < D; i++) {
        double *s = u + (size_t)i * D;
        for (uint32_t k = D; k-- > 0;) {
            const double *row = l + (size_t)k * D;
            s[k] /= row[k];
            for (uint32_t j = 0; j < k; j++)
                s[j] -= s[k] * row[j];
        }
    }
}

/* Rows scaled to a largest magnitude of 127, rounded. */
static void round_rows(uint32_t D, const double *rows, int8_t *out)
{
    for (uint32_t i = 0; i < D; i++, rows += D, out += D) {
        double top = 0.0;
        for (uint32_t d = 0; d < D; d++) {
            double size = rows[d] < 0.0 ? -rows[d] : rows[d];
            top = size > top ? size : top;
        }
        for (uint32_t d = 0; d < D; d++)
            out[d] = (int8_t)floor(rows[d] * (127.0 / top) + 0.5);
    }
}

/* ---- numbers of the rounded basis ---------------------------------------------------------- */

/* out[i] = rows[i] m rows[i]^T, of int8 rows; m in floats (of doubles when `exact` is given). */
static void quadratic(uint32_t D, const int8_t *rows, const float *m, const double *exact,
                      double *work, double *out)
{
    for (uint32_t i = 0; i < D; i++) {
        const int8_t *x = rows + (size_t)i * D;
        memset(work, 0, D * sizeof *work);
        for (uint32_t k = 0; k < D; k++) {
            double w = x[k];
            for (uint32_t j = 0; j < D && exact; j++)
                work[j] += w * exact[(size_t)k * D + j];
            for (uint32_t j = 0; j < D && !exact; j++)
                work[j] += w * (double)m[(size_t)k * D + j];
        }
        double sum = 0.0;
        for (uint32_t j = 0; j < D; j++)
            sum += work[j] * x[j];
        out[i] = sum > 0.0 ? sum : 0.0;
    }
}

static void set_gains(uint32_t D, const int8_t *synth, const int8_t *analysis, float *gain)
{
    for (uint32_t i = 0; i < D; i++) {
        int32_t dot = 0;
        for (uint32_t d = 0; d < D; d++)
            dot += synth[(size_t)i * D + d] * analysis[(size_t)i * D + d];
        gain[i] = dot > 0 ? (float)(1.0 / dot) : 0.0f;
    }
}

/* Amplitudes and costs; length [D]: squared lengths of the synthesis rows in the metric. */
static void set_amplitudes(const kvcl_spectral_basis *b, const int8_t *analysis,
                           const double *length, double *work)
{
    uint32_t D = b->D;
    double *variance = work + D, top = 0.0;
    for (uint32_t r = 0; r < b->fold; r++) {
        quadratic(D, analysis, b->gram + (size_t)r * D * D, NULL, work, variance);
        double more = shrinkage(b, r);
        for (uint32_t i = 0; i < D; i++) {
            int32_t square = 0;
            for (uint32_t d = 0; d < D; d++)
                square += analysis[i * D + d] * analysis[i * D + d];
            double v = (variance[i] + more * square) / b->n_slots, gain = (double)b->gain[i];
            b->amp[r * D + i] = (float)sqrt(v);
            b->cost[r * D + i] = v * (gain * gain) * length[i] / ((double)b->fold * b->fold);
            top = v > top ? v : top;
        }
    }
    for (uint32_t e = 0; e < b->fold * D; e++) {
        double amp = (double)b->amp[e];
        if (amp < MIN_AMP || amp * amp < top * LEAST_PART || b->gain[e % D] == 0.0f) {
            b->amp[e] = 0.0f;
            b->cost[e] = 0.0;
        }
    }
}

/* scratch: [c][vectors][work][metric] matrices, then two rows.  L^T C L takes three of them at a
 * time besides the metric; M itself is made again from L for the lengths, which is cheaper than to
 * keep it. */
bool kvcl_spectral_basis_make(const kvcl_spectral_basis *b, double *scratch)
{
    uint32_t D = b->D;
    size_t n = (size_t)D * D;
    double *c = scratch, *vectors = c + n, *work = vectors + n,
           *l = kvcl_spectral_metric_at(D, scratch);
    double *row = l + n, *values = row + D;
    const int8_t *analysis = b->metric ? b->analysis : b->synth;
    covariance(b, c);
    if (b->metric) {
        memmove(l, b->metric, n * sizeof *l);
        cholesky(D, l);
        multiply(D, c, l, work);
        memcpy(vectors, l, n * sizeof *l);
        transpose(D, vectors);
        multiply(D, vectors, work, c);
    }
    for (uint32_t i = 0; i < D; i++)
        memcpy(work + (size_t)i * (D + SPREAD), c + (size_t)i * D, D * sizeof *c);
    if (!kvcl_jacobi(D, D + SPREAD, work, values, vectors, (uint32_t *)(void *)row))
        return false;
    if (b->metric) {
        memcpy(work, l, n * sizeof *l);
        transpose(D, work);
        multiply(D, vectors, work, c);
        round_rows(D, c, b->analysis);
        multiply(D, l, work, c);
        solve_rows(D, l, vectors);
    }
    round_rows(D, vectors, b->synth);
    set_gains(D, b->synth, analysis, b->gain);
    double *length = vectors;
    if (b->metric)
        quadratic(D, b->synth, NULL, c, row, length);
    for (uint32_t i = 0; i < D && !b->metric; i++) {
        length[i] = 0.0;
        for (uint32_t d = 0; d < D; d++)
            length[i] += (double)(b->synth[i * D + d] * b->synth[i * D + d]);
    }
    set_amplitudes(b, analysis, length, work);
    return true;
}
