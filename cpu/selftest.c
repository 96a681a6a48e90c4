// selftest.c - every primitive that exactness stands on.  Kernel: cl/selftest.cl
#include "rows.h"
#include "shared.h"

void kvcl_cpu_selftest(const void *args, kvcl_cpu_part *p)
{
    const kvcl_selftest_args *a = args;
    uint32_t *out = kvcl_cpu_ptr(a->out);
    for (uint32_t i, end; kvcl_cpu_take(p, KVCL_SELFTEST_N, 64, &i, &end);)
        for (; i < end; i++)
            for (uint32_t w = 0; w < KVCL_SELFTEST_WORDS; w++)
                out[i * KVCL_SELFTEST_WORDS + w] = kvcl_selftest_word(i, w);
}
