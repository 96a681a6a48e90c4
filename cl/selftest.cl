// selftest.cl - every primitive that exactness stands on.  Twin: cpu/selftest.c
//
// One work-item per word; no local memory.

__kernel void kvcl_selftest(__global uint *out, ulong out_off, uint n_words, uint words_per_input)
{
    uint i = (uint)get_global_id(0);
    if (i < n_words)
        out[out_off + i] = kvcl_selftest_word(i / words_per_input, i % words_per_input);
}
