/* ops_basis.c - a made-up basis of spectral pages for the benchmark of operations: Walsh functions,
 * widths as a fit gives them.  See ops_case.h. */
#include "ops_case.h"

#include "mem.h"

#include <math.h>

#define MAX_DIM 256u
#define MAX_FOLD 8u

typedef struct made_up {
    int8_t synth[MAX_DIM * MAX_DIM];
    float gain[MAX_DIM], amp[MAX_FOLD * MAX_DIM];
    uint8_t width[MAX_FOLD * MAX_DIM];
} made_up;

/* Width of the entry that is `at` of n by size, for `bits` (2 or 3) in the mean. */
static uint8_t width_at(uint32_t bits, uint32_t at, uint32_t n)
{
    const uint32_t eighth = 8 * at / n;
    if (bits == 2)
        return eighth < 1 ? 4 : eighth < 6 ? 2 : 1;
    return eighth < 1 ? 8 : eighth < 3 ? 4 : eighth < 7 ? 2 : 0;
}

static kvcl_spectral_part make_part(const kvcl_ops_params *p, const kvcl_ops_case *c, made_up *m)
{
    const uint32_t D = p->head_dim, fold = c->spectral.fold, block = D & (0u - D);
    for (uint32_t i = 0; i < D; i++) {
        for (uint32_t d = 0; d < D; d++)
            m->synth[i * D + d] = (int8_t)(i / block != d / block                        ? 0
                                           : __builtin_popcount(i & d & (block - 1)) & 1 ? -127
                                                                                         : 127);
        m->gain[i] = 1.0f / (127.0f * 127.0f * (float)block);
        for (uint32_t r = 0; r < fold; r++) {
            m->amp[r * D + i] = 127.0f * sqrtf((float)block * (float)fold);
            m->width[r * D + i] = width_at(c->bits, i * fold + r, D * fold);
        }
    }
    return (kvcl_spectral_part){D, m->synth, NULL, m->gain, m->amp, m->width, false};
}

void kvcl_ops_spectral_shape(const kvcl_ops_params *p, uint32_t fold, uint32_t bits,
                             kvcl_spectral_shape *out)
{
    const uint32_t D = p->head_dim;
    uint32_t counts[9] = {0}, words = 0;
    for (uint32_t at = 0; at < D * fold; at++)
        counts[width_at(bits, at, D * fold)]++;
    for (uint32_t b = 1; b <= 8; b *= 2)
        words += kvcl_div_up(counts[b] * b, 32);
    *out =
        (kvcl_spectral_shape){p->n_kv_heads, D, fold, words * p->n_kv_heads, words * p->n_kv_heads};
}

kvcl_status kvcl_ops_make_basis(kvcl_ops_rig *r, const kvcl_ops_case *c)
{
    kvcl_ctx *ctx = r->dev->ctx;
    const size_t bytes = kvcl_spectral_basis_bytes(&c->spectral);
    const uint32_t n_parts = 2 * r->p.n_kv_heads;
    void *m = NULL, *parts = NULL, *basis = NULL;
    kvcl_status st;
    kvcl_buf_free(r->basis);
    r->basis = NULL;
    KVCL_TRY_GOTO(kvcl_mem_alloc(ctx, sizeof(made_up), "the basis", &m));
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, n_parts, sizeof(kvcl_spectral_part), "the basis", &parts));
    KVCL_TRY_GOTO(kvcl_mem_alloc(ctx, bytes, "the basis", &basis));
    for (uint32_t i = 0; i < n_parts; i++)
        ((kvcl_spectral_part *)parts)[i] = make_part(&r->p, c, m);
    KVCL_TRY_GOTO(kvcl_spectral_pack(ctx, &c->spectral, parts, basis));
    KVCL_TRY_GOTO(kvcl_buf_create(r->dev, bytes, "the basis", &r->basis));
    st = kvcl_buf_write(r->q, r->basis, 0, basis, bytes);
fail:
    kvcl_mem_free(ctx, m);
    kvcl_mem_free(ctx, parts);
    kvcl_mem_free(ctx, basis);
    return st;
}
