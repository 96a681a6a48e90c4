// svd.c - randomised singular value decomposition.  Kernel: cl/svd.cl; SIMD: cpu/simd_svd.c
//
// The twin's steps come first, then their order, which the SIMD paths share.  A matrix is one task.
#include "svd.h"

#include "rows.h"

// ---- steps --------------------------------------------------------------------------------------

static uint32_t max_bits(const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = kvcl_max_u32(most, KVCL_AS_UINT(x[i]) & 0x7fffffffu);
    return most;
}

static void gram(const kvcl_svd_rows *x, float *g, uint32_t stride, float *panel)
{
    const uint32_t n = x->n;
    memset(g, 0, (size_t)stride * stride * sizeof *g);
    for (uint32_t t = 0; t < x->rows; t++) {
        for (uint32_t i = 0; i < n; i++)
            panel[i] = kvcl_svd_value(x->x[(size_t)t * x->stride + i], x->scale, x->least);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = i; j < n; j++)
                g[i * stride + j] = fmaf(panel[i], panel[j], g[i * stride + j]);
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i; j < n; j++)
            g[j * stride + i] = g[i * stride + j] =
                kvcl_drop(g[i * stride + j], KVCL_SVD_LEAST_SUM);
}

static void apply(const float *g, const float *z, float *h, uint32_t l, uint32_t n)
{
    for (uint32_t j = 0; j < l; j++)
        for (uint32_t i = 0; i < n; i++) {
            float sum = 0.0f;
            for (uint32_t r = 0; r < n; r++)
                sum = fmaf(g[r * n + i], z[j * n + r], sum);
            h[j * n + i] = kvcl_drop(sum, KVCL_SVD_LEAST_UNIT);
        }
}

static void dots(const float *a, const float *b, uint32_t m, uint32_t n, float *out)
{
    for (uint32_t j = 0; j < m; j++) {
        float lanes[8] = {0};
        for (uint32_t i = 0; i < n; i++)
            lanes[i % 8] = fmaf(a[j * n + i], b[i], lanes[i % 8]);
        out[j] = kvcl_cpu_tree(lanes, 8);
    }
}

static void subtract(const float *a, const float *h, float *b, uint32_t m, uint32_t n)
{
    for (uint32_t j = 0; j < m; j++)
        for (uint32_t i = 0; i < n; i++)
            b[i] = fmaf(-h[j], a[j * n + i], b[i]);
}

static void angles(kvcl_svd_pairs *p, uint32_t m) { kvcl_svd_angles(p, m); }

static void turn_rows(float *x, uint32_t stride, const kvcl_svd_pairs *p, uint32_t m)
{
    for (uint32_t i = 0; i < m; i++) {
        kvcl_rotation r = {p->t[i], p->s[i], p->tau[i]};
        float *row_p = x + p->p[i] * stride, *row_q = x + p->q[i] * stride;
        for (uint32_t j = 0; j < stride; j++) {
            float a = row_p[j], b = row_q[j];
            row_p[j] = kvcl_svd_turn_p(r, a, b);
            row_q[j] = kvcl_svd_turn_q(r, a, b);
        }
    }
}

static void transpose(const float *in, float *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            out[j * n + i] = in[i * n + j];
}

static void times(const kvcl_svd_rows *x, const float *m, uint32_t m_stride, const float *factor,
                  float least, float *out, uint32_t n_out, uint32_t out_stride)
{
    float row[KVCL_SVD_MAX_COLS];
    for (uint32_t t = 0; t < x->rows; t++) {
        for (uint32_t i = 0; i < x->n; i++)
            row[i] = kvcl_svd_value(x->x[(size_t)t * x->stride + i], x->scale, x->least);
        for (uint32_t c = 0; c < n_out; c++) {
            float sum = 0.0f;
            for (uint32_t i = 0; i < x->n; i++)
                sum = fmaf(row[i], m[i * m_stride + c], sum);
            out[(size_t)t * out_stride + c] = kvcl_zero(kvcl_drop(sum, least) * factor[c]);
        }
    }
}

static const kvcl_svd_steps twin = {
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

void kvcl_cpu_rsvd(const void *args, kvcl_cpu_part *p) { kvcl_cpu_svd_run(args, p, &twin); }

// ---- their order --------------------------------------------------------------------------------

typedef struct work {
    const kvcl_svd_steps *steps;
    kvcl_svd_layout at;
    uint32_t n, rank, key[2];
    float *g, *z, *h, *c, *w, *x, *panel, *u1;
} work;

static float dot(const work *k, const float *a, const float *b)
{
    float sum;
    k->steps->dots(a, b, 1, k->at.np, &sum);
    return sum;
}

static void signs(const work *k, uint32_t round, uint32_t c, float *z)
{
    for (uint32_t i = 0; i < k->n; i++)
        z[i] = kvcl_svd_sign(k->key[0], k->key[1], round, i, c);
}

// Makes z right-angled to the first c columns of Z, twice; returns z.z.
static float straighten(const work *k, float *z, uint32_t c)
{
    float h[KVCL_SVD_MAX_SKETCH];
    for (uint32_t pass = 0; pass < 2; pass++) {
        k->steps->dots(k->z, z, c, k->at.np, h);
        k->steps->subtract(k->z, h, z, c, k->at.np);
    }
    return dot(k, z, z);
}

// Z = the columns of H made orthonormal; H is destroyed.
static void orthonormal(const work *k, uint32_t round)
{
    for (uint32_t c = 0; c < k->at.l; c++) {
        float *z = k->h + c * k->at.np, *out = k->z + c * k->at.np;
        float before = dot(k, z, z), after = straighten(k, z, c);
        if (!(after > KVCL_SVD_LEAST_UNIT * before)) {
            signs(k, round, c, z);
            after = straighten(k, z, c);
        }
        float inv = after < KVCL_SVD_LEAST_UNIT ? 0.0f : kvcl_rsqrt(after);
        for (uint32_t i = 0; i < k->at.np; i++)
            out[i] = kvcl_drop(z[i] * inv, KVCL_SVD_LEAST_UNIT);
    }
}

// A round of Jacobi's sweep on C and W.
static void turn(const work *k, uint32_t round)
{
    const uint32_t players = (k->at.l + 1) / 2 * 2, m = players / 2, ls = k->at.ls;
    float *c = k->c;
    kvcl_svd_pairs pairs;
    for (uint32_t i = 0; i < m; i++) {
        uint32_t a = kvcl_svd_player(players, round, i, 0);
        uint32_t b = kvcl_svd_player(players, round, i, 1);
        uint32_t p = pairs.p[i] = kvcl_min_u32(a, b), q = pairs.q[i] = kvcl_max_u32(a, b);
        pairs.pp[i] = c[p * ls + p];
        pairs.qq[i] = c[q * ls + q];
        pairs.pq[i] = c[p * ls + q];
    }
    k->steps->angles(&pairs, m);
    k->steps->turn_rows(c, ls, &pairs, m);
    k->steps->transpose(c, k->x, ls);
    k->steps->turn_rows(k->x, ls, &pairs, m);
    memcpy(c, k->x, (size_t)ls * ls * sizeof *c);
    for (uint32_t i = 0; i < m; i++) {
        uint32_t p = pairs.p[i], q = pairs.q[i];
        float pp = fmaf(-pairs.t[i], pairs.pq[i], pairs.pp[i]);
        float qq = fmaf(pairs.t[i], pairs.pq[i], pairs.qq[i]);
        c[p * ls + p] = kvcl_drop(pp, KVCL_SVD_LEAST_SUM);
        c[q * ls + q] = kvcl_drop(qq, KVCL_SVD_LEAST_SUM);
        c[p * ls + q] = c[q * ls + p] = 0.0f;
    }
    k->steps->turn_rows(k->w, ls, &pairs, m);
}

// Eigenvalues of C on its diagonal, their vectors in W's rows; order[c]: the c-th largest.
static void eigen(const work *k, uint32_t *order)
{
    const uint32_t l = k->at.l, ls = k->at.ls;
    memset(k->w, 0, (size_t)ls * ls * sizeof(float));
    for (uint32_t i = 0; i < ls; i++)
        k->w[i * ls + i] = 1.0f;
    for (uint32_t sweep = 0; sweep < KVCL_SVD_SWEEPS; sweep++)
        for (uint32_t round = 0; round + 1 < l + l % 2; round++)
            turn(k, round);
    for (uint32_t i = 0; i < l; i++) {
        uint32_t at = 0;
        float e = k->c[i * ls + i];
        for (uint32_t j = 0; j < l; j++) {
            float other = k->c[j * ls + j];
            at += other > e || (other == e && j < i);
        }
        order[at] = i;
    }
}

// Step 2: the sketch, turned into h [np][ls].
static void sketch(const work *k, uint32_t power)
{
    const kvcl_svd_layout *at = &k->at;
    memset(k->z, 0, (size_t)at->ls * at->np * sizeof(float));
    for (uint32_t c = 0; c < at->l; c++)
        signs(k, 0, c, k->z + c * at->np);
    for (uint32_t it = 0; it <= power; it++) {
        k->steps->apply(k->g, k->z, k->h, at->l, at->np);
        orthonormal(k, it + 1);
    }
    for (uint32_t i = 0; i < at->np; i++)
        for (uint32_t c = 0; c < at->ls; c++)
            k->h[i * at->ls + c] = k->z[c * at->np + i];
}

// The signs of V's columns, in place; factor gets them.
static void fix_signs(const work *k, float *v, float *factor)
{
    for (uint32_t c = 0; c < k->rank; c++) {
        float most = 0.0f, at_most = 0.0f;
        for (uint32_t i = 0; i < k->n; i++) {
            float x = v[i * k->rank + c], size = x < 0.0f ? -x : x;
            if (size > most) {
                most = size;
                at_most = x;
            }
        }
        factor[c] = at_most < 0.0f ? -1.0f : 1.0f;
        for (uint32_t i = 0; i < k->n; i++)
            v[i * k->rank + c] = kvcl_zero(v[i * k->rank + c] * factor[c]);
    }
}

// Steps 3 to 6.
static void factors(const work *k, const kvcl_svd_rows *a, float *u, float *s, float *v)
{
    const uint32_t rank = k->rank, l = k->at.l, ls = k->at.ls;
    const float unscale = kvcl_svd_unscale(a->scale);
    float factor[KVCL_SVD_MAX_SKETCH];
    uint32_t order[KVCL_SVD_MAX_SKETCH];
    kvcl_svd_rows u1 = {k->u1, a->rows, l, ls, 1.0f, KVCL_SVD_LEAST_SUM};
    kvcl_svd_rows z = {k->h, k->n, l, ls, 1.0f, KVCL_SVD_LEAST_UNIT};
    for (uint32_t c = 0; c < ls; c++)
        factor[c] = 1.0f;
    k->steps->times(a, k->h, ls, factor, KVCL_SVD_LEAST_SUM, k->u1, l, ls);
    k->steps->gram(&u1, k->c, ls, k->panel);
    eigen(k, order);
    for (uint32_t i = 0; i < ls; i++)
        for (uint32_t c = 0; c < ls; c++)
            k->x[i * ls + c] = c < rank ? k->w[order[c] * ls + i] : 0.0f;
    k->steps->times(&z, k->x, ls, factor, 0.0f, v, rank, rank);
    fix_signs(k, v, factor);
    const float first = k->c[order[0] * ls + order[0]];
    for (uint32_t c = 0; c < rank; c++) {
        float e = k->c[order[c] * ls + order[c]];
        float inv = e > KVCL_SVD_LEAST_UNIT * first ? kvcl_rsqrt(e) : 0.0f;
        s[c] = kvcl_zero((e * inv) * unscale);
        factor[c] *= inv;
    }
    k->steps->times(&u1, k->x, ls, factor, 0.0f, u, rank, rank);
}

static void one_matrix(const kvcl_rsvd_args *args, uint32_t b, work *k)
{
    const size_t size = (size_t)args->rows * args->cols;
    const float *x = (const float *)kvcl_cpu_ptr(args->a) + b * size;
    const uint32_t *id = (const uint32_t *)kvcl_cpu_ptr(args->ids) + 3 * (size_t)b;
    const uint32_t low = (uint32_t)args->seed, high = (uint32_t)(args->seed >> 32);
    const uint32_t bits = k->steps->max_bits(x, size);
    kvcl_svd_rows a = {x, args->rows, args->cols, args->cols, kvcl_svd_scale(bits), KVCL_SVD_LEAST};
    for (uint32_t i = 0; i < 2; i++)
        k->key[i] = kvcl_svd_key(low, high, id[0], id[1], id[2], i);
    k->u1 = (float *)kvcl_cpu_ptr(args->scratch) + b * (size_t)args->rows * k->at.ls;
    ((int32_t *)kvcl_cpu_ptr(args->bad))[b] = bits >= KVCL_SVD_BAD_BITS;
    k->steps->gram(&a, k->g, k->at.np, k->panel);
    sketch(k, args->power);
    factors(k, &a, (float *)kvcl_cpu_ptr(args->u) + (size_t)b * args->rows * args->rank,
            (float *)kvcl_cpu_ptr(args->s) + (size_t)b * args->rank,
            (float *)kvcl_cpu_ptr(args->v) + (size_t)b * args->cols * args->rank);
}

void kvcl_cpu_svd_run(const kvcl_rsvd_args *a, kvcl_cpu_part *p, const kvcl_svd_steps *steps)
{
    work k = {.steps = steps, .n = a->cols, .rank = a->rank};
    float *m = (float *)(void *)p->scratch;
    k.at = kvcl_svd_layout_of(a->cols, a->rank + a->oversample);
    k.g = m + k.at.g;
    k.z = m + k.at.z;
    k.h = m + k.at.h;
    k.c = m + k.at.c;
    k.w = m + k.at.w;
    k.x = m + k.at.x;
    k.panel = m + k.at.floats;
    for (uint32_t b, end; kvcl_cpu_take(p, a->n, 1, &b, &end);)
        one_matrix(a, b, &k);
}
