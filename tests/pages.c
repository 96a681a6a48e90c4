/* pages.c - made-up pages, queries and regions for the cases of codecs.  See pages.h. */
#include "pages.h"

#include "f16.h"
#include "os.h"
#include "types.h"

#include <math.h>
#include <stdlib.h>

int32_t *test_slots(test_run *r, uint32_t n)
{
    int32_t *slots = test_mem(r, (n + 1) * sizeof *slots);
    for (uint32_t i = 0; i <= n; i++)
        slots[i] = (int32_t)i;
    for (uint32_t i = n; i > 0; i--) {
        uint32_t j = test_below(&r->rng, i + 1);
        int32_t swap = slots[i];
        slots[i] = slots[j];
        slots[j] = swap;
    }
    return slots;
}

float *test_gauss(test_run *r, size_t n, float sigma)
{
    float *out = test_mem(r, n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = sigma * (float)test_normal(&r->rng);
    return out;
}

float *test_rope_table(test_run *r, uint32_t n_rows, uint32_t n_rot)
{
    float *table = test_mem(r, (size_t)n_rows * n_rot * sizeof *table);
    for (uint32_t pos = 0; pos < n_rows; pos++) {
        for (uint32_t i = 0; i < n_rot / 2; i++) {
            double angle = pos * pow(10000.0, -2.0 * i / n_rot);
            table[(size_t)pos * n_rot + 2 * i] = (float)cos(angle);
            table[(size_t)pos * n_rot + 2 * i + 1] = (float)sin(angle);
        }
    }
    return table;
}

void test_turn(kvcl_rope_pairing pairing, uint32_t n_rot, const float *table, size_t pos, double *x)
{
    const float *cs = table + pos * n_rot;
    bool adjacent = pairing == KVCL_ROPE_ADJACENT;
    for (uint32_t i = 0; pairing != KVCL_ROPE_NONE && i < n_rot / 2; i++) {
        uint32_t ia = adjacent ? 2 * i : i, ib = adjacent ? 2 * i + 1 : i + n_rot / 2;
        double a = x[ia], b = x[ib], c = (double)cs[2 * i], s = (double)cs[2 * i + 1];
        x[ia] = a * c - b * s;
        x[ib] = b * c + a * s;
    }
}

void test_check_turned(const test_turned *s, const float *k, const float *turned)
{
    for (uint32_t i = 0; i < s->n_pages * s->n_kv; i++) {
        uint32_t page = s->first_page + i / s->n_kv;
        for (uint32_t t = 0; t < KVCL_PAGE_TOKENS; t++) {
            size_t at = (size_t)i * s->dim * KVCL_PAGE_TOKENS + t;
            double x[256];
            for (uint32_t e = 0; e < s->dim; e++)
                x[e] = (double)k[at + e * KVCL_PAGE_TOKENS];
            test_turn(s->pairing, s->n_rot, s->table, (size_t)page * KVCL_PAGE_TOKENS + t, x);
            for (uint32_t e = 0; e < s->dim; e++)
                test_close((double)turned[at + e * KVCL_PAGE_TOKENS], x[e], s->most, "turned k", e);
        }
    }
}

kvcl_view test_raw_pool(test_run *r, kvcl_type type, const int32_t *slots, uint32_t n_pages,
                        size_t page_elems, float *values)
{
    size_t bytes = kvcl_type_bytes(type, page_elems);
    unsigned char *pool = test_mem(r, (n_pages + 1) * bytes);
    memset(pool, 0xff, (n_pages + 1) * bytes);
    for (uint32_t page = 0; page < n_pages; page++) {
        unsigned char *slot = pool + (size_t)slots[page] * bytes;
        float *x = values + page * page_elems;
        for (size_t i = 0; i < page_elems; i++) {
            uint16_t h = kvcl_f32_to_f16(x[i]);
            if (type == KVCL_F16)
                memcpy(slot + 2 * i, &h, 2);
            else
                memcpy(slot + 4 * i, &x[i], 4);
        }
        kvcl_dequantise(type, slot, page_elems, x);
    }
    return test_in(r, pool, (n_pages + 1) * bytes);
}

float test_raw_value(test_run *r, kvcl_view pool, kvcl_type type, size_t at)
{
    const unsigned char *bytes = test_bytes(r, pool);
    float x;
    kvcl_dequantise(type, bytes + kvcl_type_bytes(type, at), 1, &x);
    return x;
}

void test_through_file(test_run *r, const void *pages, size_t bytes, void *out)
{
    kvcl_os_scratch f = {0};
    size_t got;
    test_ok(r, kvcl_os_scratch_open(r->d->ctx, NULL, bytes, "pages", &f));
    test_ok(r, kvcl_os_scratch_write(&f, 0, pages, bytes));
    test_ok(r, kvcl_os_scratch_read(&f, 0, out, bytes, &got));
    test_true(got == bytes);
    kvcl_os_scratch_close(&f);
}

/* ---- regions ------------------------------------------------------------------------------- */

test_attn test_attn_make(test_run *r, const test_region *g)
{
    test_attn t = {.region = *g};
    uint32_t n_q = g->n_kv * g->group, width = n_q * g->dim;
    t.first_page = g->begin / KVCL_PAGE_TOKENS;
    t.n_pages = (g->end - 1) / KVCL_PAGE_TOKENS - t.first_page + 1;
    t.first_block = g->begin / KVCL_BLOCK_TOKENS;
    t.n_blocks = (g->end - 1) / KVCL_BLOCK_TOKENS - t.first_block + 1;
    t.slots = test_slots(r, t.n_pages);
    t.in.n = g->n;
    t.in.q_stride = width + g->pad;
    t.in.pos0 = g->pos0;
    t.in.n_q_heads = n_q;
    t.in.n_kv_heads = g->n_kv;
    t.in.head_dim = g->dim;
    t.in.begin = g->begin;
    t.in.end = g->end;
    t.in.first_part = g->first_part;
    t.in.n_parts = g->first_part + t.n_blocks + g->spare_parts;
    t.in.scale = 1.0f / sqrtf((float)g->dim);
    t.q = test_gauss(r, (size_t)g->n * t.in.q_stride, 2.0f);
    t.in.q = test_in(r, t.q, ((g->n - 1) * (size_t)t.in.q_stride + width) * sizeof(float));
    size_t partials = (size_t)g->n * n_q * t.in.n_parts;
    t.in.ml = test_out(r, partials * 2 * sizeof(float));
    t.in.o = test_out(r, partials * g->dim * sizeof(float));
    return t;
}

kvcl_attn_in test_attn_part(test_run *r, const test_attn *t, uint32_t begin, uint32_t end)
{
    kvcl_attn_in in = t->in;
    uint32_t first_page = begin / KVCL_PAGE_TOKENS;
    uint32_t n_pages = (end - 1) / KVCL_PAGE_TOKENS - first_page + 1;
    in.page_table = test_in(r, t->slots + (first_page - t->first_page), n_pages * sizeof(int32_t));
    in.begin = begin;
    in.end = end;
    in.first_part = t->in.first_part + begin / KVCL_BLOCK_TOKENS - t->first_block;
    return in;
}

static void check_alone(test_run *r, const test_attn *t, test_attend_fn attend, const void *data)
{
    uint32_t last = t->in.n - 1, width = t->in.n_q_heads * t->in.head_dim;
    size_t parts = (size_t)t->in.n_q_heads * t->in.n_parts;
    kvcl_attn_in in = test_attn_part(r, t, t->in.begin, t->in.end);
    in.n = 1;
    in.pos0 = t->in.pos0 + last;
    in.q = test_in(r, t->q + (size_t)last * t->in.q_stride, width * sizeof(float));
    in.ml = test_out(r, parts * 2 * sizeof(float));
    in.o = test_out(r, parts * t->in.head_dim * sizeof(float));
    attend(r, data, &in);
    test_wait(r);
    ck_assert_mem_eq(test_values(r, in.ml), test_values(r, t->in.ml) + 2 * last * parts,
                     in.ml.bytes);
    ck_assert_mem_eq(test_values(r, in.o), test_values(r, t->in.o) + last * parts * t->in.head_dim,
                     in.o.bytes);
}

void test_attn_check_bits(test_run *r, const test_attn *t, test_attend_fn attend, const void *data)
{
    kvcl_view ml = test_out(r, t->in.ml.bytes), o = test_out(r, t->in.o.bytes);
    for (uint32_t b = t->n_blocks; b-- > 0;) {
        uint32_t first = (t->first_block + b) * KVCL_BLOCK_TOKENS;
        kvcl_attn_in in = test_attn_part(r, t, kvcl_max_u32(first, t->in.begin),
                                         kvcl_min_u32(first + KVCL_BLOCK_TOKENS, t->in.end));
        in.ml = ml;
        in.o = o;
        attend(r, data, &in);
    }
    test_wait(r);
    ck_assert_mem_eq(test_values(r, ml), test_values(r, t->in.ml), ml.bytes);
    ck_assert_mem_eq(test_values(r, o), test_values(r, t->in.o), o.bytes);
    check_alone(r, t, attend, data);
}

/* One kv head's rows of the region's pages, [token][D]. */
typedef struct head_rows {
    double *k, *v;
} head_rows;

static head_rows take_head(const test_attn *t, const float *k, const float *v, uint32_t hk)
{
    size_t dim = t->in.head_dim, n = t->n_pages * (size_t)KVCL_PAGE_TOKENS * dim;
    head_rows out = {malloc(n * sizeof(double)), malloc(n * sizeof(double))};
    test_true(out.k && out.v);
    for (size_t i = 0; i < n; i++) {
        size_t e = i % dim, token = i / dim % KVCL_PAGE_TOKENS;
        size_t slot = (size_t)t->slots[i / dim / KVCL_PAGE_TOKENS];
        size_t base = (slot * t->in.n_kv_heads + hk) * dim * KVCL_PAGE_TOKENS;
        out.k[i] = (double)k[base + e * KVCL_PAGE_TOKENS + token];
        out.v[i] = (double)v[base + token * dim + e];
    }
    return out;
}

/* Query i, head h over tokens [begin, end): m, l and o in double precision. */
static void attend_exactly(const test_attn *t, const head_rows *x, uint32_t i, uint32_t h,
                           uint32_t begin, uint32_t end, double ml[2], double *o)
{
    uint32_t dim = t->in.head_dim;
    const float *q = t->q + (size_t)i * t->in.q_stride + h * dim;
    double s[KVCL_BLOCK_TOKENS];
    ml[0] = -INFINITY;
    ml[1] = 0.0;
    memset(o, 0, dim * sizeof *o);
    for (uint32_t at = begin; at < end; at++) {
        const double *k = x->k + (size_t)(at - t->first_page * KVCL_PAGE_TOKENS) * dim;
        s[at - begin] = 0.0;
        for (uint32_t e = 0; e < dim; e++)
            s[at - begin] += (double)q[e] * (double)t->in.scale * k[e];
        ml[0] = fmax(ml[0], s[at - begin]);
    }
    for (uint32_t at = begin; at < end; at++) {
        const double *v = x->v + (size_t)(at - t->first_page * KVCL_PAGE_TOKENS) * dim;
        double p = exp(s[at - begin] - ml[0]);
        ml[1] += p;
        for (uint32_t e = 0; e < dim; e++)
            o[e] += p * v[e];
    }
}

static void check_untouched(const float *x, uint32_t n, uint32_t i, uint32_t b)
{
    for (uint32_t e = 0; e < n; e++)
        test_require(kvcl_f32_bits(x[e]) == 0xa5a5a5a5u,
                     "query %u sees nothing of block %u, but something was written", i, b);
}

void test_attn_check_head(test_run *r, const test_attn *t, kvcl_view k, kvcl_view v, uint32_t hk,
                          double tol_ml, double tol_o)
{
    uint32_t dim = t->in.head_dim, group = t->region.group, step = t->in.n > 8 ? 11 : 1;
    head_rows x = take_head(t, test_values(r, k), test_values(r, v), hk);
    for (uint32_t task = 0; task < t->in.n * group * t->n_blocks; task++) {
        uint32_t b = task % t->n_blocks, h = hk * group + task / t->n_blocks % group;
        uint32_t i = task / t->n_blocks / group, first = (t->first_block + b) * KVCL_BLOCK_TOKENS;
        uint32_t begin = kvcl_max_u32(first, t->in.begin);
        uint32_t end = kvcl_min_u32(first + KVCL_BLOCK_TOKENS, t->in.end);
        size_t at = ((size_t)i * t->in.n_q_heads + h) * t->in.n_parts + t->in.first_part + b;
        const float *ml = test_values(r, t->in.ml) + 2 * at;
        const float *o = test_values(r, t->in.o) + at * dim;
        double want_ml[2], want[256];
        if (i % step != 0)
            continue;
        end = kvcl_min_u32(end, t->in.pos0 + i + 1);
        if (end <= begin) {
            check_untouched(ml, 2, i, b);
            check_untouched(o, dim, i, b);
            continue;
        }
        attend_exactly(t, &x, i, h, begin, end, want_ml, want);
        test_close((double)ml[0], want_ml[0], tol_ml, "m", at);
        test_close((double)ml[0] + log((double)ml[1]), want_ml[0] + log(want_ml[1]), tol_ml, "l",
                   at);
        for (uint32_t e = 0; e < dim; e++)
            test_close((double)(o[e] / ml[1]), want[e] / want_ml[1], tol_o, "o", e);
    }
    free(x.k);
    free(x.v);
}
