// selftest.cl - every primitive that exactness stands on.  Twin: cpu/selftest.c
//
// One work-item per word of an input, dimension 1 the word; no local memory.  (Not one dimension
// divided by the number of words: what compilers make of that is more than Oclgrind understands.)

__kernel void kvcl_selftest(__global uint *out, ulong out_off, uint n_inputs, uint words_per_input)
{
    uint i = (uint)get_global_id(0), word = (uint)get_global_id(1);
    if (i < n_inputs && word < words_per_input)
        out[out_off + i * words_per_input + word] = kvcl_selftest_word(i, word);
}
