/* case.c - buffers with guards, matrices, and lists of cases.  See case.h. */
#define _POSIX_C_SOURCE 200809L

#include "case.h"

#include "f16.h"
#include "types.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define GUARD_BYTES 256
#define IN_GUARD 0xff  /* NaN, in f32 and in f16 */
#define OUT_GUARD 0xa5 /* -2.9e-16: what an output holds before the run, too */

/* ---- a run --------------------------------------------------------------------------------- */

void test_run_begin(test_run *r, test_dev *d, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    r->d = d;
    r->rng.seed = seed;
}

void test_run_end(test_run *r)
{
    for (size_t i = 0; i < r->n_slots; i++)
        kvcl_buf_free(r->slots[i].buf);
    for (size_t i = 0; i < r->n_mats; i++)
        kvcl_mat_free(r->mats[i]);
    for (size_t i = 0; i < r->n_blocks; i++)
        free(r->blocks[i]);
    memset(r, 0, sizeof *r);
}

void *test_mem(test_run *r, size_t bytes)
{
    void *p = NULL;
    test_true(r->n_blocks < TEST_MAX_BLOCKS);
    test_true(posix_memalign(&p, 32, bytes ? bytes : 1) == 0);
    memset(p, 0, bytes);
    return r->blocks[r->n_blocks++] = p;
}

float *test_floats(test_run *r, size_t n, float scale)
{
    float *p = test_mem(r, n * sizeof *p);
    test_fill_f32(&r->rng, p, n, scale);
    return p;
}

void test_ok_at(test_run *r, kvcl_status st, const char *what, const char *file, int line)
{
    if (st != KVCL_OK)
        ck_abort_msg("%s:%d: %s: %s on %s: %s", file, line, what, kvcl_status_string(st), r->d->row,
                     kvcl_last_error(r->d->ctx));
}

/* The view begins elsewhere in each buffer, aligned to an element and no more. */
static kvcl_view make_slot(test_run *r, const void *data, size_t bytes, bool out)
{
    test_true(r->n_slots < TEST_MAX_BUFS);
    test_slot *s = &r->slots[r->n_slots];
    s->off = GUARD_BYTES + 4 * (5 * r->n_slots % 16);
    s->bytes = bytes;
    s->total = s->off + bytes + GUARD_BYTES;
    s->out = out;
    s->before = test_mem(r, s->total);
    s->after = test_mem(r, s->total);
    memset(s->before, out ? OUT_GUARD : IN_GUARD, s->total);
    if (data && bytes)
        memcpy(s->before + s->off, data, bytes);
    test_ok(r, kvcl_buf_create(r->d->dev, s->total, "test buffer", &s->buf));
    r->n_slots++;
    test_ok(r, kvcl_buf_write(r->d->q, s->buf, 0, s->before, s->total));
    return (kvcl_view){s->buf, s->off, bytes};
}

kvcl_view test_in(test_run *r, const void *data, size_t bytes)
{
    return make_slot(r, data, bytes, false);
}

kvcl_view test_out(test_run *r, size_t bytes) { return make_slot(r, NULL, bytes, true); }

kvcl_view test_inout(test_run *r, const void *data, size_t bytes)
{
    return make_slot(r, data, bytes, true);
}

kvcl_view test_scratch(test_run *r, size_t bytes)
{
    if (bytes == 0)
        return (kvcl_view){0};
    kvcl_view view = make_slot(r, NULL, bytes, true);
    r->slots[r->n_slots - 1].scratch = true;
    return view;
}

kvcl_mat *test_mat_of(test_run *r, kvcl_type type, uint32_t rows, uint32_t cols, const void *data)
{
    kvcl_mat *m = NULL;
    test_true(r->n_mats < TEST_MAX_MATS);
    test_ok(r, kvcl_mat_create(r->d->q, type, rows, cols, data, &m));
    return r->mats[r->n_mats++] = m;
}

kvcl_mat *test_mat(test_run *r, kvcl_type type, uint32_t rows, uint32_t cols, float **values_out)
{
    size_t n = (size_t)rows * cols, bytes = kvcl_type_bytes(type, n);
    void *data = test_mem(r, bytes);
    test_fill_rows(&r->rng, type, data, bytes);
    if (values_out) {
        *values_out = test_mem(r, n * sizeof(float));
        kvcl_dequantise(type, data, n, *values_out);
    }
    return test_mat_of(r, type, rows, cols, data);
}

/* One row of the identity: element k is 1. */
static void identity_row(kvcl_type type, unsigned char *row, uint32_t cols, uint32_t k)
{
    static const uint16_t half_one = 0x3c00, bf16_one = 0x3f80;
    const float one = 1.0f;
    if (type == KVCL_F32)
        memcpy(row + 4 * k, &one, 4);
    else if (type == KVCL_F16 || type == KVCL_BF16)
        memcpy(row + 2 * k, type == KVCL_F16 ? &half_one : &bf16_one, 2);
    else
        for (uint32_t b = 0; b < cols / KVCL_QK; b++) {
            float x[KVCL_QK] = {0};
            unsigned char *block = row + b * kvcl_type_block_bytes(type);
            /* the value of largest magnitude becomes the code -16 or -8: that scales to 1 */
            if (k / KVCL_QK == b)
                x[k % KVCL_QK] = 1.0f;
            test_true(kvcl_quantise(type, x, KVCL_QK, block));
        }
}

kvcl_mat *test_mat_identity(test_run *r, kvcl_type type, uint32_t n)
{
    size_t row_bytes = kvcl_type_bytes(type, n);
    unsigned char *data = test_mem(r, row_bytes * n);
    for (uint32_t i = 0; i < n; i++)
        identity_row(type, data + i * row_bytes, n, i);
    return test_mat_of(r, type, n, n, data);
}

/* ---- results ------------------------------------------------------------------------------- */

static void check_guard(test_run *r, const test_slot *s, size_t begin, size_t end)
{
    if (begin >= end || memcmp(s->after + begin, s->before + begin, end - begin) == 0)
        return;
    for (size_t i = begin; i < end; i++)
        if (s->after[i] != s->before[i])
            ck_abort_msg("%s: buffer %zu: byte %td %s was written", r->d->row,
                         (size_t)(s - r->slots), (ptrdiff_t)i - (ptrdiff_t)s->off,
                         s->out ? "outside of the view" : "of an input");
}

void test_wait(test_run *r)
{
    test_ok(r, kvcl_queue_wait(r->d->q));
    for (size_t i = 0; i < r->n_slots; i++) {
        test_slot *s = &r->slots[i];
        test_ok(r, kvcl_buf_read(r->d->q, s->buf, 0, s->after, s->total));
        check_guard(r, s, 0, s->out ? s->off : s->total);
        check_guard(r, s, s->off + s->bytes, s->total);
    }
}

static const test_slot *slot_of(const test_run *r, kvcl_view view)
{
    for (size_t i = 0; i < r->n_slots; i++)
        if (r->slots[i].buf == view.buf)
            return &r->slots[i];
    ck_abort_msg("no such buffer in this run");
    return NULL;
}

const void *test_bytes(test_run *r, kvcl_view view)
{
    const test_slot *s = slot_of(r, view);
    return s->after + view.off;
}

void test_check_gaps(test_run *r, kvcl_view view, uint32_t n, uint32_t width, uint32_t stride)
{
    const test_slot *s = slot_of(r, view);
    for (uint32_t i = 0; i < n; i++) {
        size_t begin = view.off + 4 * ((size_t)i * stride + width);
        size_t end = view.off + 4 * ((size_t)i + 1) * stride;
        check_guard(r, s, begin, kvcl_min_size(end, s->total));
    }
}

void test_close(double got, double want, double tol, const char *what, size_t index)
{
    if (!(fabs(got - want) <= tol))
        ck_abort_msg("%s [%zu]: got %.9g, want %.9g within %.3g", what, index, got, want, tol);
}

unsigned char *test_run_blob(test_run *r, size_t *n_out)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < r->n_slots; i++)
        n += r->slots[i].out && !r->slots[i].scratch ? r->slots[i].total : 0;
    unsigned char *blob = malloc(n ? n : 1);
    ck_assert_ptr_nonnull(blob);
    for (size_t i = 0; i < r->n_slots; i++) {
        const test_slot *s = &r->slots[i];
        if (s->out && !s->scratch) {
            memcpy(blob + at, s->after, s->total);
            at += s->total;
        }
    }
    *n_out = n;
    return blob;
}

/* ---- lists --------------------------------------------------------------------------------- */

bool test_pairwise(size_t sum, size_t m) { return test_env_on("KVCL_TEST_FULL") || sum % m == 0; }

/* One of the alternatives of KVCL_TEST_FILTER, comma between, is part of the label. */
static bool filtered_out(const char *label)
{
    const char *filter = getenv("KVCL_TEST_FILTER");
    char text[512];
    if (!filter || !*filter)
        return false;
    snprintf(text, sizeof text, "%s", filter);
    for (char *save = NULL, *one = strtok_r(text, ",", &save); one;
         one = strtok_r(NULL, ",", &save))
        if (strstr(label, one))
            return false;
    return true;
}

void test_cases_add(test_cases *cases, bool small, test_case_fn run, test_case_fn identity,
                    const void *params, size_t bytes, const char *fmt, ...)
{
    test_case c = {.run = run, .identity = identity};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c.label, sizeof c.label, fmt, ap);
    va_end(ap);
    if ((!small && test_small()) || filtered_out(c.label))
        return;
    ck_assert_uint_le(bytes, sizeof c.params);
    if (bytes)
        memcpy(c.params, params, bytes);
    if (cases->n == cases->cap) {
        cases->cap = cases->cap ? 2 * cases->cap : 64;
        cases->list = realloc(cases->list, cases->cap * sizeof *cases->list);
        ck_assert_ptr_nonnull(cases->list);
    }
    cases->list[cases->n++] = c;
}
