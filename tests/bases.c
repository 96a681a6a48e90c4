/* bases.c - made-up bases for the cases of spectral pages. */
#include "bases.h"

#include <math.h>

float *test_orthonormal(test_run *r, uint32_t n)
{
    uint32_t block = n & (0u - n);
    float *q = test_mem(r, ((size_t)n * n + 2 * n) * sizeof *q), *mirror = q + n * n;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = i / block * block; d < (i / block + 1) * block; d++)
            q[i * n + d] =
                (__builtin_parity(i & d & (block - 1)) ? -1.0f : 1.0f) / sqrtf((float)block);
    test_fill_f32(&r->rng, mirror, 2 * n, 1.0f);
    for (const float *v = mirror; v < mirror + 2 * n; v += n) {
        double square = 0.0;
        for (uint32_t d = 0; d < n; d++)
            square += (double)v[d] * (double)v[d];
        for (uint32_t i = 0; i < n; i++) {
            double dot = 0.0;
            for (uint32_t d = 0; d < n; d++)
                dot += (double)q[i * n + d] * (double)v[d];
            for (uint32_t d = 0; d < n; d++)
                q[i * n + d] = (float)((double)q[i * n + d] - 2.0 * dot / square * (double)v[d]);
        }
    }
    return q;
}

/* A row with 127 as its largest number; returns what one became. */
static float to_int8(const float *row, uint32_t n, int8_t *out)
{
    float top = 0.0f;
    for (uint32_t d = 0; d < n; d++)
        top = fmaxf(top, fabsf(row[d]));
    for (uint32_t d = 0; d < n; d++)
        out[d] = (int8_t)lrintf(127.0f / top * row[d]);
    return 127.0f / top;
}

static uint8_t mixed_width(test_run *r, uint32_t i, uint32_t n)
{
    static const uint8_t widths[] = {8, 8, 4, 4, 2, 4, 1, 2, 0, 1, 0, 0};
    uint32_t at = i * 8 / n + test_below(&r->rng, 5);
    return i % 7 == 3 ? 0 : widths[at];
}

static kvcl_spectral_part make_part(test_run *r, const kvcl_spectral_shape *s, uint32_t of_v,
                                    uint32_t hk, uint32_t bits)
{
    uint32_t D = s->head_dim, n = bits == TEST_MIXED ? D / 4 + 4 * test_below(&r->rng, D / 8) : D;
    float *q = test_orthonormal(r, D), *gain = test_mem(r, (size_t)D * (4 + 2 * D + 5 * s->fold));
    float *amp = gain + D;
    int8_t *synth = (int8_t *)(amp + s->fold * D), *analysis = synth + D * D;
    uint8_t *width = (uint8_t *)(analysis + D * D);
    bool oblique = !of_v && bits == TEST_MIXED;
    for (uint32_t i = 0; i < n; i++) {
        float a = to_int8(q + i * D, D, synth + i * D), b = a;
        for (uint32_t d = 0; oblique && d < D; d++)
            q[i * D + d] += 0.02f * test_unit(&r->rng);
        if (oblique)
            b = to_int8(q + i * D, D, analysis + i * D);
        gain[i] = 1.0f / (a * b);
        for (uint32_t k = 0; k < s->fold; k++) {
            amp[k * n + i] = b * sqrtf((float)s->fold);
            width[k * n + i] = bits == TEST_MIXED ? mixed_width(r, i, n) : (uint8_t)bits;
            if (bits == TEST_MIXED && i % 11 == 5)
                amp[k * n + i] = 0.0f;
            if (bits == TEST_MIXED && hk == 1 && s->n_kv_heads == 3 && !of_v)
                width[k * n + i] = 0;
        }
    }
    return (kvcl_spectral_part){n, synth, oblique ? analysis : NULL, gain, amp, width, false};
}

test_spectral test_spectral_make(test_run *r, uint32_t dim, uint32_t n_kv, uint32_t fold,
                                 uint32_t bits_k, uint32_t bits_v)
{
    test_spectral t = {.shape = {n_kv, dim, fold, 0, 0}};
    t.parts = test_mem(r, 2 * n_kv * sizeof *t.parts);
    for (uint32_t i = 0; i < 2 * n_kv; i++) {
        uint32_t of_v = i >= n_kv, bits = of_v ? bits_v : bits_k;
        t.parts[i] = make_part(r, &t.shape, of_v, i - of_v * n_kv, bits);
        uint32_t words = kvcl_spectral_words(fold, &t.parts[i]);
        *(of_v ? &t.shape.words_v : &t.shape.words_k) += words;
    }
    t.shape.words_k += bits_k == TEST_MIXED ? 2 : 0;
    t.shape.words_v += bits_v == TEST_MIXED ? 1 : 0;
    size_t bytes = kvcl_spectral_basis_bytes(&t.shape);
    void *basis = test_mem(r, bytes);
    test_ok(r, kvcl_spectral_pack(r->d->ctx, &t.shape, t.parts, basis));
    t.basis = test_in(r, basis, bytes);
    return t;
}

float *test_moments(test_run *r, uint32_t n_matrices, uint32_t D, uint32_t n)
{
    float *out = test_mem(r, (size_t)n_matrices * D * D * sizeof(float));
    for (uint32_t m = 0; m < n_matrices; m++) {
        float *x = test_gauss(r, (size_t)n * D, 1.0f), *to = out + (size_t)m * D * D;
        for (uint32_t i = 0; i < n * D; i++)
            x[i] = (i % D ? 0.6f * x[i - 1] : 0.0f) + x[i] * (1.0f + (float)(i % D % 7));
        for (uint32_t i = 0; i < n * D * D; i++)
            to[i % (D * D)] += x[i / (D * D) * D + i % (D * D) / D] * x[i / (D * D) * D + i % D];
    }
    return out;
}

void test_codec_work(test_run *r, const kvcl_codec_plan *p, kvcl_codec_pages *pages,
                     kvcl_view work[2])
{
    void *tables = test_mem(r, p->table_bytes);
    uint32_t none = 0;
    p->spec.ops->fill(p, tables);
    pages->tables = test_in(r, tables, p->table_bytes);
    work[0] = test_scratch(r, p->encode_bytes);
    work[1] = test_scratch(r, p->attend_bytes);
    pages->fault = test_inout(r, &none, sizeof none);
}
