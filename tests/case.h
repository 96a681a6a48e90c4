/* case.h - one case of one operation: sizes, inputs made from a seed, how to run it on a device,
 * and the identity it must satisfy whatever the backend.
 *
 * A case runs on the scalar twin and on a row of the device table with the same inputs; every byte
 * of every output buffer (gaps between rows and the guard regions around the view too) must be the
 * same.  Input buffers must stay as they were.  Guards around inputs are NaNs, so that a read
 * outside of a view shows. */
#ifndef KVCL_CASE_H
#define KVCL_CASE_H

#include "test.h"

#define TEST_MAX_BUFS 32
#define TEST_MAX_MATS 16
#define TEST_MAX_BLOCKS 96

typedef struct test_slot {
    kvcl_buf *buf;
    size_t off, bytes, total;      /* the view, and the buffer around it */
    unsigned char *before, *after; /* host images of the whole buffer */
    bool out, scratch;             /* scratch: written, but its bytes are the backend's own */
} test_slot;

typedef struct test_run {
    test_dev *d;
    test_rng rng;
    test_slot slots[TEST_MAX_BUFS];
    kvcl_mat *mats[TEST_MAX_MATS];
    void *blocks[TEST_MAX_BLOCKS];
    size_t n_slots, n_mats, n_blocks;
} test_run;

/* ---- what a case uses ---------------------------------------------------------------------- */

/* Host memory that lives as long as the run; zeroed, 32-byte aligned, not a byte too long. */
void *test_mem(test_run *r, size_t bytes);
float *test_floats(test_run *r, size_t n, float scale);
/* Views in buffers with guards around them. */
kvcl_view test_in(test_run *r, const void *data, size_t bytes);
kvcl_view test_out(test_run *r, size_t bytes);
kvcl_view test_inout(test_run *r, const void *data, size_t bytes);
/* Absent when bytes is 0. */
kvcl_view test_scratch(test_run *r, size_t bytes);
/* A matrix of made-up rows; *values_out (may be NULL): the same, dequantised, [rows][cols]. */
kvcl_mat *test_mat(test_run *r, kvcl_type type, uint32_t rows, uint32_t cols, float **values_out);
/* A matrix of these rows (GGUF layout). */
kvcl_mat *test_mat_of(test_run *r, kvcl_type type, uint32_t rows, uint32_t cols, const void *data);
/* The identity matrix, n x n; codes of 1 and scale 1 for the quantised types. */
kvcl_mat *test_mat_identity(test_run *r, kvcl_type type, uint32_t n);

/* Checks an operation's status; fails with the library's sentence. */
#define test_ok(r, expr) test_ok_at((r), (expr), #expr, __FILE__, __LINE__)
void test_ok_at(test_run *r, kvcl_status st, const char *what, const char *file, int line);

/* Waits for the queue, reads every buffer back and checks guards and inputs. */
void test_wait(test_run *r);
/* What the view holds since the last test_wait(). */
const void *test_bytes(test_run *r, kvcl_view view);
static inline const float *test_values(test_run *r, kvcl_view view) { return test_bytes(r, view); }
/* Fails when the elements between rows of `width` elements, `stride` apart, were written. */
void test_check_gaps(test_run *r, kvcl_view view, uint32_t n, uint32_t width, uint32_t stride);
/* Fails when got is further than tol from want, or not a number. */
void test_close(double got, double want, double tol, const char *what, size_t index);

/* ---- lists of cases ------------------------------------------------------------------------ */

typedef void (*test_case_fn)(test_run *r, const void *params);

typedef struct test_case {
    char label[120];
    test_case_fn run, identity; /* identity may be NULL */
    uint32_t params[32];
} test_case;

typedef struct test_cases {
    test_case *list;
    size_t n, cap;
} test_cases;

/* params: a struct of at most 32 words, copied.  Cases that are not small are left out in
 * simulators (KVCL_TEST_SMALL); KVCL_TEST_FILTER leaves out what does not match. */
void test_cases_add(test_cases *cases, bool small, test_case_fn run, test_case_fn identity,
                    const void *params, size_t bytes, const char *fmt, ...) KVCL_PRINTF(7, 8);

/* Whether a combination of choices from three independent tables is tried: when the sum of their
 * indices is a multiple of m.  Tables of m entries or more have every pair of two choices then;
 * KVCL_TEST_FULL tries all combinations. */
bool test_pairwise(size_t sum, size_t m);

/* One per stem of ops.def. */
#define TEST_STEMS(X) \
    X(embed)          \
    X(norm)           \
    X(matvec)         \
    X(matmul)         \
    X(glu)            \
    X(selftest)       \
    X(rope)           \
    X(attn)           \
    X(kv)             \
    X(gram)           \
    X(fwht)           \
    X(quant)          \
    X(attn_quant)     \
    X(block)          \
    X(spectral)       \
    X(attn_spectral)  \
    X(holo)           \
    X(rans)           \
    X(rest)           \
    X(svd)
#define TEST_STEM_DECL(stem) void test_cases_##stem(test_cases *cases);
TEST_STEMS(TEST_STEM_DECL)
#undef TEST_STEM_DECL

/* ---- what the runner uses ------------------------------------------------------------------ */

void test_run_begin(test_run *r, test_dev *d, uint64_t seed);
/* The images of all output buffers one after the other, malloc'ed. */
unsigned char *test_run_blob(test_run *r, size_t *n_out);
void test_run_end(test_run *r);

#endif
