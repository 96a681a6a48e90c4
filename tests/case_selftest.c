/* case_selftest.c - the primitives.  Kernel: cl/selftest.cl; twin: cpu/selftest.c
 *
 * Identities: exp, recip, rsqrt, sigmoid lie near libm's in double precision over a sweep; -0
 * becomes +0; the activation quantiser's codes stay in -127 .. 127 and give the value back within
 * half a step. */
#include "case.h"

#include "shared.h"

#include <math.h>

static void run(test_run *r, const void *params)
{
    KVCL_UNUSED(params);
    kvcl_selftest_args a = {0};
    a.out = test_out(r, (size_t)KVCL_SELFTEST_N * KVCL_SELFTEST_WORDS * 4);
    test_ok(r, kvcl_op_selftest(r->d->q, &a));
}

static void relative(float got, double want, double limit, const char *what, float x)
{
    test_require(fabs((double)got - want) <= limit * fabs(want), "%s(%.9g) = %.9g, not %.9g", what,
                 (double)x, (double)got, want);
}

static void check_exp(void)
{
    for (int i = 0; i <= 600000; i++) {
        float x = (float)(-i) * 1e-4f;
        relative(kvcl_exp(x), exp((double)x), 7.6e-8, "exp", x);
    }
    test_true(kvcl_exp(0.0f) == 1.0f && kvcl_exp(-0.0f) == 1.0f);
    test_true(kvcl_exp(-60.0f) > 0.0f);
    test_true(kvcl_exp(-60.00001f) == 0.0f && kvcl_exp(-INFINITY) == 0.0f);
}

static void check_inverses(void)
{
    for (int e = -100; e <= 100; e++) {
        for (int i = 0; i < 2000; i++) {
            float x = ldexpf(1.0f + (float)i / 2000.0f, e);
            relative(kvcl_recip(x), 1.0 / (double)x, 6.1e-8, "recip", x);
            relative(kvcl_rsqrt(x), 1.0 / sqrt((double)x), 1.5e-7, "rsqrt", x);
        }
    }
    test_true(kvcl_recip(1.0f) == 1.0f);
}

static void check_sigmoid(void)
{
    for (int i = -500000; i <= 500000; i++) {
        float x = (float)i * 1e-4f;
        relative(kvcl_sigmoid(x), 1.0 / (1.0 + exp(-(double)x)), 2e-7, "sigmoid", x);
    }
    test_true(kvcl_sigmoid(0.0f) == 0.5f && kvcl_sigmoid(100.0f) == 1.0f);
    test_true(kvcl_silu(-100.0f) == 0.0f && !signbit(kvcl_silu(-100.0f)));
    test_true(kvcl_gelu(-100.0f) == 0.0f && !signbit(kvcl_gelu(-100.0f)));
    test_true(kvcl_silu(100.0f) == 100.0f && kvcl_gelu(100.0f) == 100.0f);
}

static void check_quantiser(test_rng *rng)
{
    test_true(kvcl_quant_scale(0.0f) == 0.0f && kvcl_quant_inv(0.0f) == 0.0f);
    test_true(kvcl_quant_scale(9e-31f) == 0.0f && kvcl_quant_inv(9e-31f) == 0.0f);
    for (int i = 0; i < 200000; i++) {
        float amax = ldexpf(1.0f + (float)test_below(rng, 1u << 23) * 0x1p-23f,
                            (int)test_below(rng, 60) - 40);
        float x = amax * test_unit(rng), d = kvcl_quant_scale(amax), inv = kvcl_quant_inv(amax);
        int q = kvcl_quant_code(x, inv), top = kvcl_quant_code(-amax, inv);
        test_require(q >= -127 && q <= 127 && top == -127, "amax %.9g: codes %d, %d", (double)amax,
                     q, top);
        test_close((double)q * (double)d, (double)x, (double)d * 0.5001, "activation", 0);
    }
    for (int i = -20000; i <= 20000; i++)
        test_true(kvcl_round((float)i * 0.125f) == (int)rint(i * 0.125));
}

static void identity(test_run *r, const void *params)
{
    KVCL_UNUSED(params);
    uint32_t lo = UINT32_MAX, hi = 0;
    check_exp();
    check_inverses();
    check_sigmoid();
    check_quantiser(&r->rng);
    test_true(!signbit(kvcl_zero(-0.0f)) && kvcl_zero(-1.0f) == -1.0f);
    for (unsigned i = 0; i < 100000; i++) {
        float u = kvcl_unit(kvcl_mix(i));
        test_true(u >= -1.0f && u < 1.0f);
        lo = kvcl_min_u32(lo, kvcl_mix(i));
        hi = kvcl_max_u32(hi, kvcl_mix(i));
    }
    test_true(lo < 1u << 20 && hi > UINT32_MAX - (1u << 20));
}

void test_cases_selftest(test_cases *cases)
{
    uint32_t none = 0;
    test_cases_add(cases, true, run, identity, &none, sizeof none, "selftest");
}
