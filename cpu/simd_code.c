/* simd_code.c - exact sums over the codes of quant pages.  Definition: cpu/attn_quant.c */
#include "simd_code.h"

void KVCL_SIMD_FN(code_table)(uint32_t bits, unsigned char *table)
{
    memset(table, 0, 16);
    for (uint32_t i = 0; bits < 8 && i < 1u << bits; i++)
        table[i] = (unsigned char)(kvcl_quant_level(bits, i) + MB_BIAS);
}

/* Where the plane of bit 2 begins. */
KVCL_INLINE const unsigned char *high_plane(const kvcl_simd_codes *c)
{
    return c->codes + (size_t)c->n / 16 * c->width * 4;
}

KVCL_INLINE void expand(uint32_t bits, const kvcl_simd_codes *c, unsigned char *out)
{
    const unsigned char *p = c->codes, *high = high_plane(c);
    size_t pitch = (size_t)c->width * 4;
    mb table = mb_table(c->table);
    for (uint32_t i = 0; i < c->n; i += 32) {
        for (uint32_t lane = 0; lane < pitch; lane += 4 * M_LANES)
            KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++)
            mb_store(out + j * pitch + lane,
                     code_group(bits, p + lane, high + lane, pitch, table, j));
        p += code_step(bits) * pitch;
        high += pitch;
        out += 8 * pitch;
    }
}

void KVCL_SIMD_FN(code_levels)(const kvcl_simd_codes *c, unsigned char *out)
{
    CODE_EACH_BITS(expand, c->bits, c, out);
}

int32_t KVCL_SIMD_FN(code_words)(const float *x, uint32_t n, float inv, uint32_t *words)
{
    v16 factor = v16_set(inv), round = v16_set(KVCL_ROUND);
    msum total = msum_zero();
    for (uint32_t i = 0; i < n; i += 16) {
        v16 q = v16_add(v16_mul(v16_load(x + i), factor), round);
        total = v16_store_q15(words + i / 2, q, total);
    }
    return msum_total(total);
}

void KVCL_SIMD_FN(code_q15)(const float *x, uint32_t n, uint32_t *words, float *quantum,
                            int32_t *sum)
{
    v16 a = v16_abs(v16_load(x));
    for (uint32_t i = 16; i < n; i += 16)
        a = v16_max(a, v16_abs(v16_load(x + i)));
    float max = v16_max_lane(a);
    *quantum = kvcl_q15_quantum(max);
    *sum = KVCL_SIMD_FN(code_words)(x, n, kvcl_q15_inv(max), words);
}

/* Machine registers of lanes that stand beside each other. */
#define N_REGS(rows) (V16_REGS == 2 ? ((rows) <= 2 ? 2u : 1u) : ((rows) <= 2 ? 4u : 2u))

typedef struct dot_job {
    const kvcl_simd_codes *c;
    const uint32_t *q;
    uint32_t q_pitch;
    const int32_t *q_sum;
    float *out;
    size_t out_pitch;
} dot_job;

/* Lanes lane .. lane + nv M_LANES - 1; bits, rows and nv are constants. */
KVCL_INLINE void dot_part(uint32_t bits, uint32_t rows, uint32_t nv, const dot_job *job,
                          uint32_t lane)
{
    const kvcl_simd_codes *c = job->c;
    const unsigned char *p = c->codes + (size_t)lane * 4, *high = high_plane(c) + (size_t)lane * 4;
    const uint32_t *q = job->q;
    size_t pitch = (size_t)c->width * 4;
    const unsigned char *soon = c->soon ? c->soon + (size_t)lane * 4 : NULL;
    mb table = mb_table(c->table);
    mdot acc[CODE_TILE][4];
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t v = 0; v < nv; v++)
        acc[r][v] = mdot_zero();
    for (uint32_t i = 0; i < c->n; i += 32) {
        KVCL_UNROLL
        for (uint32_t j = 0; j < 8; j++) {
            mlev x[4];
            for (uint32_t b = 0; soon && j < code_step(bits) && b < 4 * M_LANES * nv; b += 64)
                __builtin_prefetch(soon + j * pitch + b, 0, 3);
            KVCL_UNROLL
            for (uint32_t v = 0; v < nv; v++) {
                size_t at = 4 * M_LANES * v;
                x[v] = mlev_of(code_group(bits, p + at, high + at, pitch, table, j));
            }
            KVCL_UNROLL
            for (uint32_t r = 0; r < rows; r++)
                KVCL_UNROLL
            for (uint32_t v = 0; v < nv; v++)
                acc[r][v] = mdot_add(acc[r][v], x[v], q + r * job->q_pitch + 2 * j);
        }
        p += code_step(bits) * pitch;
        high += pitch;
        q += 16;
        soon = soon ? soon + code_step(bits) * pitch : NULL;
    }
    KVCL_UNROLL
    for (uint32_t r = 0; r < rows; r++)
        KVCL_UNROLL
    for (uint32_t v = 0; v < nv; v++)
        mf_store(job->out + r * job->out_pitch + lane + v * M_LANES,
                 mdot_float(acc[r][v], job->q_sum[r]));
}

KVCL_INLINE void dot_rows(uint32_t bits, uint32_t rows, const dot_job *job)
{
    uint32_t lane = 0, width = job->c->width;
    for (; lane + N_REGS(rows) * M_LANES <= width; lane += N_REGS(rows) * M_LANES)
        dot_part(bits, rows, N_REGS(rows), job, lane);
    if (N_REGS(rows) * M_LANES > 32 && lane < width)
        dot_part(bits, rows, 2, job, lane);
}

static void dot_1(const dot_job *job) { CODE_EACH_BITS(dot_rows, job->c->bits, 1, job); }
static void dot_2(const dot_job *job) { CODE_EACH_BITS(dot_rows, job->c->bits, 2, job); }
static void dot_3(const dot_job *job) { CODE_EACH_BITS(dot_rows, job->c->bits, 3, job); }
static void dot_4(const dot_job *job) { CODE_EACH_BITS(dot_rows, job->c->bits, 4, job); }

void KVCL_SIMD_FN(code_dot)(const kvcl_simd_codes *c, const uint32_t *q, uint32_t q_pitch,
                            const int32_t *q_sum, uint32_t rows, float *out, size_t out_pitch)
{
    static void (*const dots[CODE_TILE])(const dot_job *job) = {dot_1, dot_2, dot_3, dot_4};
    for (uint32_t r = 0; r < rows; r += CODE_TILE) {
        dot_job job = {.c = c,
                       .q = q + (size_t)r * q_pitch,
                       .q_pitch = q_pitch,
                       .q_sum = q_sum + r,
                       .out = out + r * out_pitch,
                       .out_pitch = out_pitch};
        dots[kvcl_min_u32(rows - r, CODE_TILE) - 1](&job);
    }
}
