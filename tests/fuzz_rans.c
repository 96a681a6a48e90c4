/* fuzz_rans.c - decoding of whatever bytes: nothing outside of the views is touched, and every path
 * of this processor gives the same values and flags.
 *
 * As a test: streams of random pages, whole and damaged, from the seed (tests/test.h).  Built with
 * clang and KVCL_LIBFUZZER it is a target of libFuzzer:
 *   cmake --build build --target fuzz_rans_libfuzzer && build/fuzz_rans_libfuzzer
 * Views are blocks of just their size, so that AddressSanitizer sees the first byte beyond. */
#include "test.h"

#include "rans_model.h"
#include "shared.h"

#include <stdio.h>
#include <stdlib.h>

#define LEVELS 2
#define MAX_ROWS 24u
#define MAX_COLS 96u

typedef struct fuzz_dev {
    kvcl_ctx *ctx;
    kvcl_dev *dev[LEVELS];
    kvcl_queue *q[LEVELS];
    uint32_t *table;
} fuzz_dev;

static void fuzz_open(fuzz_dev *f)
{
    static const char *const ids[LEVELS] = {"cpu:scalar", "cpu:auto"};
    const kvcl_ctx_options one_thread = {.n_threads = 1};
    bool good = kvcl_ctx_create(&one_thread, &f->ctx) == KVCL_OK;
    for (int i = 0; good && i < LEVELS; i++)
        good = kvcl_device_open(f->ctx, ids[i], &f->dev[i]) == KVCL_OK &&
               kvcl_queue_create(f->dev[i], &f->q[i]) == KVCL_OK;
    f->table = malloc(kvcl_rans_table_bytes());
    if (!good || !f->table) {
        fprintf(stderr, "fuzz_rans: no CPU device\n");
        exit(1);
    }
    kvcl_rans_table_fill(f->table);
}

static void fuzz_close(fuzz_dev *f)
{
    for (int i = 0; i < LEVELS; i++) {
        kvcl_queue_free(f->q[i]);
        kvcl_device_close(f->dev[i]);
    }
    kvcl_ctx_free(f->ctx);
    free(f->table);
}

static void stop_if(bool wrong, const char *what)
{
    if (wrong) {
        fprintf(stderr, "fuzz_rans: %s\n", what);
        abort();
    }
}

/* A copy of just that many bytes (zeros without data). */
static void *block(const void *data, size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    stop_if(!p, "no memory");
    if (data && bytes)
        memcpy(p, data, bytes);
    return p;
}

/* On the CPU a buffer is plain memory. */
static kvcl_view wrap(kvcl_dev *dev, kvcl_buf *buf, void *data, size_t bytes)
{
    *buf = (kvcl_buf){.dev = dev, .bytes = bytes, .impl = data};
    return (kvcl_view){buf, 0, bytes};
}

typedef struct fuzz_page {
    kvcl_rans_shape shape;
    uint8_t models[MAX_ROWS];
    int8_t values[MAX_ROWS * MAX_COLS];
    uint32_t bad;
} fuzz_page;

/* Decodes `bytes` bytes of a stream that lies `place` words into the view. */
static void decode(const fuzz_dev *f, int level, const unsigned char *stream, size_t total,
                   uint32_t place, uint32_t bytes, fuzz_page *page)
{
    kvcl_dev *dev = f->dev[level];
    kvcl_buf bufs[6];
    uint32_t places[2] = {place, bytes}, n = page->shape.n_rows * page->shape.n_cols;
    void *streams = block(stream, total), *values = block(NULL, n), *at = block(places, 8);
    void *models = block(page->models, page->shape.n_rows), *bad = block(NULL, 4);
    kvcl_rans_dec_args a = {.shape = page->shape};
    a.streams = wrap(dev, &bufs[0], streams, total);
    a.places = wrap(dev, &bufs[1], at, 8);
    a.models = wrap(dev, &bufs[2], models, page->shape.n_rows);
    a.table = wrap(dev, &bufs[3], f->table, kvcl_rans_table_bytes());
    a.values = wrap(dev, &bufs[4], values, n);
    a.bad = wrap(dev, &bufs[5], bad, 4);
    stop_if(kvcl_op_rans_dec(f->q[level], &a) != KVCL_OK, kvcl_last_error(f->ctx));
    stop_if(kvcl_queue_wait(f->q[level]) != KVCL_OK, kvcl_last_error(f->ctx));
    memcpy(page->values, values, n);
    memcpy(&page->bad, bad, 4);
    free(streams);
    free(values);
    free(at);
    free(models);
    free(bad);
}

/* Both levels agree; a bad page is all zeros.  Returns what `bad` is. */
static uint32_t check(const fuzz_dev *f, const unsigned char *stream, size_t total, uint32_t place,
                      uint32_t bytes, fuzz_page *page)
{
    fuzz_page other = *page;
    size_t n = (size_t)page->shape.n_rows * page->shape.n_cols;
    decode(f, 0, stream, total, place, bytes, page);
    decode(f, 1, stream, total, place, bytes, &other);
    stop_if(page->bad != other.bad || page->bad > 1, "the paths disagree about bad");
    stop_if(memcmp(page->values, other.values, n) != 0, "the paths give different values");
    for (size_t i = 0; page->bad && i < n; i++)
        stop_if(page->values[i] != 0, "a bad page is not zeros");
    return page->bad;
}

#ifdef KVCL_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Rows, columns, a model for each row; the rest is a view with a stream in front. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static fuzz_dev f;
    fuzz_page page = {.shape = {.n_pages = 1}};
    if (!f.ctx)
        fuzz_open(&f);
    if (n < 2)
        return 0;
    page.shape.n_rows = 1 + data[0] % MAX_ROWS;
    page.shape.n_cols = 1 + data[1] % MAX_COLS;
    if (n < 2 + page.shape.n_rows + 4)
        return 0;
    memcpy(page.models, data + 2, page.shape.n_rows);
    data += 2 + page.shape.n_rows;
    n -= 2 + page.shape.n_rows;
    check(&f, data, n, 0, (uint32_t)n, &page);
    return 0;
}

#else

#define ROUNDS 20000

/* Encodes random values on one of the levels; returns the stream's bytes. */
static uint32_t make_stream(const fuzz_dev *f, test_rng *rng, fuzz_page *page,
                            unsigned char *stream, uint32_t cap)
{
    int level = (int)test_below(rng, LEVELS);
    kvcl_dev *dev = f->dev[level];
    kvcl_buf bufs[5];
    uint32_t n = page->shape.n_rows * page->shape.n_cols, used = 0, wide = test_below(rng, 9);
    for (uint32_t r = 0; r < page->shape.n_rows; r++)
        page->models[r] = (uint8_t)test_below(rng, KVCL_RANS_MODELS);
    for (uint32_t i = 0; i < n; i++)
        page->values[i] = (int8_t)((int)test_below(rng, 1u << wide) - (int)(1u << wide) / 2);
    kvcl_rans_enc_args a = {.shape = page->shape, .slot_bytes = cap};
    a.values = wrap(dev, &bufs[0], page->values, n);
    a.models = wrap(dev, &bufs[1], page->models, page->shape.n_rows);
    a.table = wrap(dev, &bufs[2], f->table, kvcl_rans_table_bytes());
    a.streams = wrap(dev, &bufs[3], stream, cap);
    a.used = wrap(dev, &bufs[4], &used, sizeof used);
    stop_if(kvcl_op_rans_enc(f->q[level], &a) != KVCL_OK, kvcl_last_error(f->ctx));
    stop_if(kvcl_queue_wait(f->q[level]) != KVCL_OK, kvcl_last_error(f->ctx));
    stop_if(used == 0 || used > cap, "a stream is longer than the longest");
    return used;
}

/* Spoils a stream of which the view holds `*total` bytes. */
static void damage(test_rng *rng, unsigned char *stream, size_t *total, uint32_t *place,
                   uint32_t *bytes, fuzz_page *page)
{
    uint32_t kind = test_below(rng, 7), n = *bytes;
    for (uint32_t k = 1 + test_below(rng, 4); kind == 0 && k > 0; k--) {
        uint32_t i = test_below(rng, n);
        stream[i] = (unsigned char)(stream[i] ^ 1u << test_below(rng, 8));
    }
    if (kind == 1)
        *total = *bytes = 4 + test_below(rng, n - 3);
    if (kind == 2)
        *bytes = test_below(rng, 2) ? test_u32(rng) : n + test_below(rng, 8);
    if (kind == 3)
        *place = test_below(rng, 2) ? test_u32(rng) : test_below(rng, n / 4 + 2);
    for (uint32_t i = test_below(rng, n); kind == 4 && i < n; i++)
        stream[i] = (unsigned char)test_u32(rng);
    if (kind == 5)
        page->models[test_below(rng, page->shape.n_rows)] = (uint8_t)test_u32(rng);
    if (kind == 6)
        page->shape.n_cols = 1 + test_below(rng, MAX_COLS);
}

START_TEST(whatever_bytes)
{
    test_rng rng = {.seed = test_seed()};
    uint32_t n_bad = 0, cap = (uint32_t)kvcl_rans_bytes_max(MAX_ROWS * MAX_COLS);
    fuzz_dev f = {0};
    fuzz_open(&f);
    unsigned char *stream = block(NULL, cap);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        fuzz_page page = {.shape = {.n_pages = 1}}, back;
        uint32_t place = 0;
        page.shape.n_rows = 1 + test_below(&rng, MAX_ROWS);
        page.shape.n_cols =
            test_below(&rng, 2) ? 8u << test_below(&rng, 4) : 1 + test_below(&rng, MAX_COLS);
        page.shape.n_cols = kvcl_min_u32(page.shape.n_cols, MAX_COLS);
        uint32_t bytes = make_stream(&f, &rng, &page, stream, cap);
        size_t total = bytes;
        back = page;
        stop_if(check(&f, stream, total, 0, bytes, &back) != 0, "a good stream is bad");
        stop_if(memcmp(&back, &page, sizeof page) != 0, "other values came back");
        damage(&rng, stream, &total, &place, &bytes, &page);
        n_bad += check(&f, stream, total, place, bytes, &page);
    }
    printf("%u damaged streams, %u noticed\n", (unsigned)ROUNDS, n_bad);
    ck_assert_uint_ge(n_bad, ROUNDS / 2);
    free(stream);
    fuzz_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fuzz_rans");
    TCase *c = tcase_create("rans");
    tcase_add_test(c, whatever_bytes);
    tcase_set_timeout(c, 600);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}

#endif
