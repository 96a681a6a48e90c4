// attn_spectral_rows.cl - what the shapes of attention over spectral pages share: weights to
// integers of folded tokens.  Stands, behind attn_rows.cl and spectral_pages.cl, before the kernels
// that use it.
//
// KVCL_SPEC: tokens of a slot, + what the kernel adds from 16 on.

#define FOLD (KVCL_SPEC & 15u)
#define SLOTS (TOKENS / FOLD)

// Weights of pages c0 .. c1 folded, times the norms of their values, to integers in place.  norms:
// in the pool's first page; w.slots, page_words: places of pages in the pool, their size.
static void fold_weights(place w, __global const half *norms, ulong page_words, uint c0, uint c1,
                         float up, uint items)
{
    __local float *s = (__local float *)w.s;
    uint n_rows = (c1 - c0 + 1) * ROWS; // (page, row)
    EACH(i, n_rows * SLOTS)
    {
        uint c = c0 + i / SLOTS / ROWS, r = i / SLOTS % ROWS, slot = i % SLOTS;
        __local float *at = s + (c * TOKENS + slot * FOLD) * ROWS + r;
        float f[FOLD], norm = vload_half(slot, norms + 2 * page_words * w.slots[c]);
        for (uint j = 0; j < FOLD; j++)
            f[j] = at[j * ROWS];
        for (uint h = 1; h < FOLD; h *= 2)
            for (uint j = 0; j < FOLD; j++)
                if ((j & h) == 0)
                    KVCL_BUTTERFLY(float, f[j], f[j + h])
        for (uint j = 0; j < FOLD; j++)
            at[j * ROWS] = f[j] * norm;
    }
    SYNC;
    EACH(i, n_rows * L)
    {
        uint c = c0 + i / L / ROWS, r = i / L % ROWS;
        float a = 0.0f;
        for (uint t = i % L; t < TOKENS; t += L)
            a = fmax(a, fabs(s[(c * TOKENS + t) * ROWS + r]));
        w.red[i] = a;
    }
    SYNC;
    weights_to_integers(w, c0, c1, up, items);
}
