/* cpu_caps.c - which of the SIMD paths this processor can run. */
#include "cpu_int.h"

#include <ctype.h>

static const char *const names[] = {
    [KVCL_CPU_SCALAR] = "scalar",
    [KVCL_CPU_AVX2] = "avx2",
    [KVCL_CPU_AVX512] = "avx512",
    [KVCL_CPU_NEON] = "neon",
};

/* What the processor lacks for a path, or NULL when it has everything. */
static const char *lacking(kvcl_cpu_caps caps)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (caps == KVCL_CPU_NEON)
        return "an AArch64 processor";
    /* F16C is older than AVX2 on every processor, and clang's builtin does not know it */
    if (caps >= KVCL_CPU_AVX2 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
        return "AVX2, FMA and F16C";
    if (caps == KVCL_CPU_AVX512 &&
        !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
          __builtin_cpu_supports("avx512vnni")))
        return "AVX-512 F, BW, DQ, VL and VNNI";
    return NULL;
#elif defined(__aarch64__)
    /* NEON is part of the architecture */
    return caps == KVCL_CPU_AVX2 || caps == KVCL_CPU_AVX512 ? "an x86-64 processor" : NULL;
#else
    return caps == KVCL_CPU_SCALAR ? NULL : "an x86-64 or AArch64 processor";
#endif
}

static bool same_word(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (tolower((unsigned char)*a) != *b)
            return false;
    return *a == *b;
}

kvcl_status kvcl_cpu_caps_pick(kvcl_ctx *ctx, const char *want, kvcl_cpu_caps *out)
{
    size_t i = 0;
    if (!want || !*want || same_word(want, "auto")) {
        for (i = kvcl_array_len(names); lacking((kvcl_cpu_caps)(i - 1)) != NULL;)
            i--;
        *out = (kvcl_cpu_caps)(i - 1);
        return KVCL_OK;
    }
    while (i < kvcl_array_len(names) && !same_word(want, names[i]))
        i++;
    KVCL_CHECK(ctx, i < kvcl_array_len(names), KVCL_E_ARG,
               "no CPU path is called \"%s\"; give scalar, avx2, avx512 or neon", want);
    const char *missing = lacking((kvcl_cpu_caps)i);
    KVCL_CHECK(ctx, missing == NULL, KVCL_E_UNSUPPORTED,
               "the %s path needs %s; leave KVCL_CPU_CAPS unset for the best this machine has",
               names[i], missing);
    *out = (kvcl_cpu_caps)i;
    return KVCL_OK;
}

const char *kvcl_cpu_caps_name(kvcl_cpu_caps caps) { return names[caps]; }
