/* rope_table.c - see rope_table.h. */
#include "rope_table.h"

#define LN2 0.69314718055994530942
/* pi/2 in three parts of 33, 33 and 53 bits: k times a part is exact for k < 2^20, and beyond that
 * far below the f32 result's rounding. */
#define PIO2_1 1.57079632673412561417e+00
#define PIO2_2 6.07710050630396597660e-11
#define PIO2_3 2.02226624879595063154e-21
#define TWO_PI 6.28318530717958647693
#define TWO_OVER_PI 6.36619772367581382433e-01

/* ln x for x >= 1: halve into [0.75, 1.5), then the series of atanh. */
static double own_ln(double x)
{
    double n = 0.0;
    while (x >= 1.5) {
        x *= 0.5;
        n += 1.0;
    }
    double s = (x - 1.0) / (x + 1.0), s2 = s * s, term = s, sum = 0.0;
    for (int k = 1; k < 40; k += 2) {
        sum += term / k;
        term *= s2;
    }
    return n * LN2 + 2.0 * sum;
}

/* e^-x for x >= 0: the fraction by its series, then halvings. */
static double own_exp_neg(double x)
{
    int n = (int)(x / LN2);
    double r = x - n * LN2, term = 1.0, sum = 0.0;
    for (int k = 1; k < 24; k++) {
        sum += term;
        term *= -r / k;
    }
    for (; n > 0; n--)
        sum *= 0.5;
    return sum;
}

/* cos and sin of a >= 0: quarter turns off, then the series on [-pi/4, pi/4]. */
static void own_cos_sin(double a, float *c, float *s)
{
    double k = (double)(int64_t)(a * TWO_OVER_PI + 0.5);
    double r = ((a - k * PIO2_1) - k * PIO2_2) - k * PIO2_3, z = r * r;
    double sn = -7.6471637318198164759e-13;
    sn = sn * z + 1.6059043836821614599e-10;
    sn = sn * z - 2.5052108385441718775e-8;
    sn = sn * z + 2.7557319223985890653e-6;
    sn = sn * z - 1.9841269841269841270e-4;
    sn = sn * z + 8.3333333333333333333e-3;
    sn = sn * z - 1.6666666666666666667e-1;
    sn = r + r * z * sn;
    double cs = 4.7794773323873852974e-14;
    cs = cs * z - 1.1470745597729724714e-11;
    cs = cs * z + 2.0876756987868098979e-9;
    cs = cs * z - 2.7557319223985890653e-7;
    cs = cs * z + 2.4801587301587301587e-5;
    cs = cs * z - 1.3888888888888888889e-3;
    cs = cs * z + 4.1666666666666666667e-2;
    cs = 1.0 + z * (z * cs - 0.5);
    switch ((int64_t)k & 3) {
    case 0:
        *c = (float)cs, *s = (float)sn;
        break;
    case 1:
        *c = (float)-sn, *s = (float)cs;
        break;
    case 2:
        *c = (float)-cs, *s = (float)-sn;
        break;
    default:
        *c = (float)sn, *s = (float)-cs;
    }
}

/* ln x for x > 0 */
static double any_ln(double x) { return x >= 1.0 ? own_ln(x) : -own_ln(1.0 / x); }

static double whole_below(double x)
{
    double n = (double)(int64_t)x;
    return n > x ? n - 1.0 : n;
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* The (real) index of the pair that turns b times in the original context. */
static double pair_of(const kvcl_rope_spec *s, double b)
{
    return s->n_rot * any_ln(s->original_ctx / (TWO_PI * b)) / (2.0 * own_ln(s->base));
}

static double theta_of(const kvcl_rope_spec *s, uint32_t i)
{
    double theta = own_exp_neg(own_ln(s->base) * (2.0 * i) / s->n_rot);
    if (s->freqs)
        theta /= (double)s->freqs[i];
    if (!s->yarn)
        return theta / s->factor;
    double low = clamp(whole_below(pair_of(s, s->beta_fast)), 0.0, s->n_rot - 1.0);
    double high = clamp(-whole_below(-pair_of(s, s->beta_slow)), 0.0, s->n_rot - 1.0);
    double width = high - low > 0.001 ? high - low : 0.001;
    double ramp = 1.0 - clamp((i - low) / width, 0.0, 1.0);
    return theta / s->factor * (1.0 - ramp) + theta * ramp;
}

double kvcl_rope_yarn_gain(double factor)
{
    double gain = 1.0 + 0.1 * any_ln(factor);
    return gain * gain;
}

void kvcl_rope_table(float *out, uint32_t n_pos, const kvcl_rope_spec *spec)
{
    uint32_t half = spec->n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        double theta = theta_of(spec, i);
        for (uint32_t pos = 0; pos < n_pos; pos++) {
            float *cs = out + ((uint64_t)pos * half + i) * 2;
            own_cos_sin(pos * theta, &cs[0], &cs[1]);
        }
    }
}
