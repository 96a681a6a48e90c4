/* cl_selftest.c - host half of cl/selftest.cl. */
#include "cl_launch.h"

kvcl_status kvcl_cl_selftest(kvcl_queue *q, const kvcl_selftest_args *a)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_selftest, 0, "kvcl_selftest", &l));
    kvcl_cl_arg_view(&l, a->out, sizeof(uint32_t));
    kvcl_cl_arg_u32(&l, KVCL_SELFTEST_N);
    kvcl_cl_arg_u32(&l, KVCL_SELFTEST_WORDS);
    return kvcl_cl_run2(&l, KVCL_SELFTEST_N, KVCL_SELFTEST_WORDS, 64, 1);
}
