/* simd_svd.c - steps of the singular value decomposition.  Definition: cpu/svd.c
 *
 * Products run in tiles of TILE rows by sixteen columns: each of the sums is one chain, and as many
 * of them as hide the latency of an fma stand in registers. */
#include "svd.h"

#include "simd.h"

#define TILE (V16_REGS == 1 ? 8u : 4u)

KVCL_INLINE v16 drop(v16 x, v16 least)
{
    return v16_select_lt(v16_abs(x), least, v16_set(0.0f), x);
}

static uint32_t max_bits(const float *x, size_t n)
{
    v16 most = v16_set(0.0f), bad = v16_set(0.0f), zero = v16_set(0.0f);
    uint32_t bits = 0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 v = v16_load(x + i);
        most = v16_max(v16_abs(v), most);
        bad = v16_fma(v, zero, bad); /* not a number from the first value on that is not finite */
    }
    for (; i < n; i++)
        bits = kvcl_max_u32(bits, KVCL_AS_UINT(x[i]) & 0x7fffffffu);
    if (v16_tree(bad) != 0.0f)
        return 0x7f800000u;
    return kvcl_max_u32(bits, KVCL_AS_UINT(v16_max_lane(most)));
}

/* A row of X: n values and zeros up to stride. */
KVCL_INLINE void scaled_row(const kvcl_svd_rows *x, uint32_t t, float *out, uint32_t stride)
{
    const float *row = x->x + (size_t)t * x->stride;
    v16 scale = v16_set(x->scale), least = v16_set(x->least);
    uint32_t i = 0;
    if (x->scale == 0.0f) {
        memset(out, 0, stride * sizeof *out);
        return;
    }
    for (; i + 16 <= x->n; i += 16)
        v16_store(out + i, drop(v16_mul(v16_load(row + i), scale), least));
    for (; i < x->n; i++)
        out[i] = kvcl_svd_value(row[i], x->scale, x->least);
    for (; i < stride; i++)
        out[i] = 0.0f;
}

/* out[a][..] += sum over n of left[a * a_step + r * r_step] right[r][..], for TILE rows a. */
KVCL_INLINE void tile(const float *left, size_t a_step, size_t r_step, const float *right,
                      uint32_t stride, uint32_t n, v16 *acc)
{
    for (uint32_t r = 0; r < n; r++) {
        v16 y = v16_load(right + (size_t)r * stride);
        KVCL_UNROLL
        for (uint32_t a = 0; a < TILE; a++)
            acc[a] = v16_fma(v16_set(left[a * a_step + r * r_step]), y, acc[a]);
    }
}

static void gram_panel(const float *panel, uint32_t n, float *g, uint32_t stride)
{
    for (uint32_t j = 0; j < stride; j += 16)
        for (uint32_t i = 0; i < j + 16; i += TILE) {
            v16 acc[TILE];
            KVCL_UNROLL
            for (uint32_t a = 0; a < TILE; a++)
                acc[a] = v16_load(g + (i + a) * stride + j);
            tile(panel + i, 1, stride, panel + j, stride, n, acc);
            KVCL_UNROLL
            for (uint32_t a = 0; a < TILE; a++)
                v16_store(g + (i + a) * stride + j, acc[a]);
        }
}

/* The block of 16 x 16 of `in`, turned, to `out`. */
KVCL_INLINE void turn_block(const float *in, float *out, uint32_t stride)
{
    v16 r[16];
    KVCL_UNROLL
    for (uint32_t a = 0; a < 16; a++)
        r[a] = v16_load(in + a * stride);
    v16_transpose(r);
    KVCL_UNROLL
    for (uint32_t a = 0; a < 16; a++)
        v16_store(out + a * stride, r[a]);
}

static void gram(const kvcl_svd_rows *x, float *g, uint32_t stride, float *panel)
{
    v16 least = v16_set(KVCL_SVD_LEAST_SUM);
    memset(g, 0, (size_t)stride * stride * sizeof *g);
    for (uint32_t t = 0; t < x->rows; t += KVCL_SVD_PANEL) {
        uint32_t n = kvcl_min_u32(KVCL_SVD_PANEL, x->rows - t);
        for (uint32_t r = 0; r < n; r++)
            scaled_row(x, t + r, panel + (size_t)r * stride, stride);
        gram_panel(panel, n, g, stride);
    }
    for (uint32_t i = 0; i < stride; i++)
        for (uint32_t j = i / 16 * 16; j < stride; j += 16)
            v16_store(g + i * stride + j, drop(v16_load(g + i * stride + j), least));
    for (uint32_t i = 0; i < stride; i += 16)
        for (uint32_t j = i + 16; j < stride; j += 16)
            turn_block(g + i * stride + j, g + j * stride + i, stride);
}

/* Rows of Z beyond l are zeros, up to a multiple of 16. */
static void apply(const float *g, const float *z, float *h, uint32_t l, uint32_t n)
{
    v16 least = v16_set(KVCL_SVD_LEAST_UNIT);
    for (uint32_t j = 0; j < l; j += TILE)
        for (uint32_t i = 0; i < n; i += 16) {
            v16 acc[TILE];
            KVCL_UNROLL
            for (uint32_t a = 0; a < TILE; a++)
                acc[a] = v16_set(0.0f);
            tile(z + j * n, n, 1, g + i, n, n, acc);
            KVCL_UNROLL
            for (uint32_t a = 0; a < TILE; a++)
                v16_store(h + (j + a) * n + i, drop(acc[a], least));
        }
}

/* `count` (a constant) dot products. */
KVCL_INLINE void dots_of(const float *a, const float *b, uint32_t n, float *out, uint32_t count)
{
    v8 acc[8];
    KVCL_UNROLL
    for (uint32_t j = 0; j < count; j++)
        acc[j] = v8_zero();
    for (uint32_t i = 0; i < n; i += 8) {
        v8 y = v8_load(b + i);
        KVCL_UNROLL
        for (uint32_t j = 0; j < count; j++)
            acc[j] = v8_fma(v8_load(a + (size_t)j * n + i), y, acc[j]);
    }
    KVCL_UNROLL
    for (uint32_t j = 0; j < count; j++)
        out[j] = kvcl_zero(v8_tree(acc[j]));
}

static void dots(const float *a, const float *b, uint32_t m, uint32_t n, float *out)
{
    uint32_t j = 0;
    for (; j + 8 <= m; j += 8)
        dots_of(a + j * n, b, n, out + j, 8);
    for (; j + 2 <= m; j += 2)
        dots_of(a + j * n, b, n, out + j, 2);
    for (; j < m; j++)
        dots_of(a + j * n, b, n, out + j, 1);
}

/* `count` (a constant) times sixteen values. */
KVCL_INLINE void subtract_of(const float *a, const float *h, float *b, uint32_t m, uint32_t n,
                             uint32_t count)
{
    v16 x[4];
    KVCL_UNROLL
    for (uint32_t i = 0; i < count; i++)
        x[i] = v16_load(b + 16 * i);
    for (uint32_t j = 0; j < m; j++) {
        v16 minus = v16_set(-h[j]);
        KVCL_UNROLL
        for (uint32_t i = 0; i < count; i++)
            x[i] = v16_fma(minus, v16_load(a + (size_t)j * n + 16 * i), x[i]);
    }
    KVCL_UNROLL
    for (uint32_t i = 0; i < count; i++)
        v16_store(b + 16 * i, x[i]);
}

static void subtract(const float *a, const float *h, float *b, uint32_t m, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 64 <= n; i += 64)
        subtract_of(a + i, h, b + i, m, n, 4);
    for (; i < n; i += 16)
        subtract_of(a + i, h, b + i, m, n, 1);
}

static void angles(kvcl_svd_pairs *p, uint32_t m) { kvcl_svd_angles(p, m); }

/* A rotation by nothing leaves what it would turn: all values are at least 2^-60 or +0. */
static void turn_rows(float *x, uint32_t stride, const kvcl_svd_pairs *p, uint32_t m)
{
    v16 least = v16_set(KVCL_SVD_LEAST_SUM);
    for (uint32_t i = 0; i < m; i++) {
        float *row_p = x + p->p[i] * stride, *row_q = x + p->q[i] * stride;
        v16 s = v16_set(p->s[i]), tau = v16_set(p->tau[i]);
        v16 minus_s = v16_negate(s), minus_tau = v16_negate(tau);
        if (p->s[i] == 0.0f)
            continue;
        for (uint32_t j = 0; j < stride; j += 16) {
            v16 a = v16_load(row_p + j), b = v16_load(row_q + j);
            v16_store(row_p + j, drop(v16_fma(minus_s, v16_fma(tau, a, b), a), least));
            v16_store(row_q + j, drop(v16_fma(s, v16_fma(minus_tau, b, a), b), least));
        }
    }
}

static void transpose(const float *in, float *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        for (uint32_t j = 0; j < n; j += 16)
            turn_block(in + i * n + j, out + j * n + i, n);
}

static void times(const kvcl_svd_rows *x, const float *m, uint32_t m_stride, const float *factor,
                  float least, float *out, uint32_t n_out, uint32_t out_stride)
{
    float rows[TILE * KVCL_SVD_MAX_COLS], part[16];
    for (uint32_t t = 0; t < x->rows; t += TILE) {
        const uint32_t n = kvcl_min_u32(TILE, x->rows - t);
        for (uint32_t a = 0; a < TILE; a++)
            scaled_row(x, t + kvcl_min_u32(a, n - 1), rows + a * KVCL_SVD_MAX_COLS, x->n);
        for (uint32_t c = 0; c < n_out; c += 16) {
            v16 acc[TILE], scale = v16_load(factor + c);
            const uint32_t wide = kvcl_min_u32(16, n_out - c);
            KVCL_UNROLL
            for (uint32_t a = 0; a < TILE; a++)
                acc[a] = v16_set(0.0f);
            tile(rows, KVCL_SVD_MAX_COLS, 1, m + c, m_stride, x->n, acc);
            KVCL_UNROLL
            for (uint32_t a = 0; a < TILE; a++) {
                float *to = out + (size_t)(t + a) * out_stride + c;
                v16 value = v16_plus_zero(v16_mul(drop(acc[a], v16_set(least)), scale));
                if (a < n && wide == 16)
                    v16_store(to, value);
                else if (a < n) {
                    v16_store(part, value);
                    memcpy(to, part, wide * sizeof *part);
                }
            }
        }
    }
}

static const kvcl_svd_steps steps = {
    .max_bits = max_bits,
    .gram = gram,
    .apply = apply,
    .dots = dots,
    .subtract = subtract,
    .angles = angles,
    .turn_rows = turn_rows,
    .transpose = transpose,
    .times = times,
};

void KVCL_SIMD_FN(rsvd)(const void *args, kvcl_cpu_part *p) { kvcl_cpu_svd_run(args, p, &steps); }
