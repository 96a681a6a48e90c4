// rows.c - canonical sums and rows that the scalar twins share.  OpenCL side: cl/prelude.cl
#include "rows.h"

#include "shared.h"

float kvcl_cpu_tree(float *lanes, uint32_t n)
{
    for (uint32_t s = n / 2; s > 0; s /= 2)
        for (uint32_t i = 0; i < s; i++)
            lanes[i] += lanes[i + s];
    return kvcl_zero(lanes[0]);
}

float kvcl_cpu_dot64(const float *a, const float *b, uint32_t n)
{
    float lanes[64] = {0};
    for (uint32_t k = 0; k < n; k++)
        lanes[k % 64] = fmaf(a[k], b[k], lanes[k % 64]);
    return kvcl_cpu_tree(lanes, 64);
}

static float sum64(const float *a, uint32_t n)
{
    float lanes[64] = {0};
    for (uint32_t k = 0; k < n; k++)
        lanes[k % 64] = fmaf(a[k], 1.0f, lanes[k % 64]);
    return kvcl_cpu_tree(lanes, 64);
}

void kvcl_cpu_norm_row(const kvcl_norm_spec *spec, const float *x, float *out, uint32_t dim)
{
    const float *w = kvcl_cpu_ptr(spec->weight), *b = kvcl_cpu_ptr(spec->bias);
    float inv_n = 1.0f / (float)dim; // on the host, once: IEEE division is exact everywhere
    if (spec->kind == KVCL_NORM_NONE) {
        memmove(out, x, dim * sizeof *x);
    } else if (spec->kind == KVCL_NORM_RMS) {
        float r = kvcl_rsqrt(fmaf(kvcl_cpu_dot64(x, x, dim), inv_n, spec->eps));
        for (uint32_t i = 0; i < dim; i++)
            out[i] = (x[i] * r) * w[i];
    } else {
        float mean = sum64(x, dim) * inv_n;
        for (uint32_t i = 0; i < dim; i++)
            out[i] = fmaf(-1.0f, mean, x[i]);
        float r = kvcl_rsqrt(fmaf(kvcl_cpu_dot64(out, out, dim), inv_n, spec->eps));
        for (uint32_t i = 0; i < dim; i++)
            out[i] = kvcl_zero(fmaf(out[i] * r, w[i], b[i]));
    }
}

void kvcl_cpu_quant_row(const float *x, int8_t *codes, float *scales, uint32_t n)
{
    for (uint32_t b = 0; b < n / KVCL_QK; b++, x += KVCL_QK, codes += KVCL_QK) {
        float amax = 0.0f;
        for (uint32_t i = 0; i < KVCL_QK; i++) {
            float a = x[i] < 0.0f ? -x[i] : x[i];
            amax = a > amax ? a : amax;
        }
        float inv = kvcl_quant_inv(amax);
        scales[b] = kvcl_quant_scale(amax);
        for (uint32_t i = 0; i < KVCL_QK; i++)
            codes[i] = (int8_t)kvcl_quant_code(x[i], inv);
    }
}

float kvcl_cpu_load(kvcl_type type, const void *pool, size_t at)
{
    return type == KVCL_F16 ? kvcl_f16_to_f32(((const uint16_t *)pool)[at])
                            : ((const float *)pool)[at];
}

void kvcl_cpu_store(kvcl_type type, void *pool, size_t at, float x)
{
    if (type == KVCL_F16)
        ((uint16_t *)pool)[at] = kvcl_f32_to_f16(x);
    else
        ((float *)pool)[at] = x;
}

void kvcl_cpu_turn(kvcl_rope_pairing pairing, uint32_t n_rot, const float *cs, bool back, float *x)
{
    bool adjacent = pairing == KVCL_ROPE_ADJACENT;
    if (pairing == KVCL_ROPE_NONE)
        return;
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        uint32_t ia = adjacent ? 2 * i : i, ib = adjacent ? 2 * i + 1 : i + n_rot / 2;
        float a = x[ia], b = x[ib], c = cs[2 * i], s = back ? -cs[2 * i + 1] : cs[2 * i + 1];
        x[ia] = kvcl_zero(fmaf(a, c, -(b * s)));
        x[ib] = kvcl_zero(fmaf(b, c, a * s));
    }
}

void kvcl_cpu_fwht_row(float *x, uint32_t n)
{
    for (uint32_t h = 1; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i++) {
            if ((i & h) == 0) {
                float a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
        }
    }
}
