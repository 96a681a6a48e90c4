/* roofline.c - memory bandwidth of the host and of devices.  See roofline.h. */
#include "roofline.h"

#include "mem.h"
#include "os.h"

#define SWEEP_BYTES ((size_t)1 << 30)
#define LEAST_BYTES ((size_t)16 << 20)

typedef uint64_t word4 __attribute__((vector_size(32)));

/* Four sums, so that loads and not the chain of additions set the pace. */
static uint64_t sum_words(const word4 *p, size_t n)
{
    word4 a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 4 <= n; i += 4) {
        a += p[i];
        b += p[i + 1];
        c += p[i + 2];
        d += p[i + 3];
    }
    a = (a + b) + (c + d);
    return a[0] + a[1] + a[2] + a[3];
}

/* Each thread reads one run of memory. */
static uint64_t sweep(const word4 *p, size_t n, uint32_t n_threads)
{
    uint64_t total = 0;
    const size_t share = n / n_threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(n_threads) reduction(+ : total) schedule(static, 1)
#endif
    for (uint32_t t = 0; t < n_threads; t++)
        total += sum_words(p + t * share, share);
    return total;
}

kvcl_status kvcl_roofline_read(kvcl_ctx *ctx, uint32_t n_threads, uint32_t n_sweeps,
                               double *bytes_per_s)
{
    void *p;
    size_t bytes = SWEEP_BYTES;
    n_threads = kvcl_max_u32(n_threads, 1);
    while (bytes > LEAST_BYTES && bytes > kvcl_os_mem_bytes() / 4)
        bytes /= 2;
    KVCL_TRY(kvcl_mem_alloc(ctx, bytes, "the bandwidth measurement", &p));
    memset(p, 1, bytes); /* fresh zero pages may all be one page */
    double best = 0;
    volatile uint64_t sink = 0;
    for (uint32_t i = 0; i < n_sweeps + 1; i++) {
        uint64_t begin = kvcl_os_now_ns();
        sink += sweep(p, bytes / sizeof(word4), n_threads);
        double rate = (double)bytes * 1e9 / (double)(kvcl_os_now_ns() - begin + 1);
        if (i > 0 && rate > best) /* the first one starts the threads */
            best = rate;
    }
    KVCL_UNUSED(sink); /* volatile: the sums may not be left out */
    kvcl_mem_free(ctx, p);
    *bytes_per_s = best;
    return KVCL_OK;
}

kvcl_status kvcl_roofline_copy(kvcl_dev *dev, uint32_t n_sweeps, double *bytes_per_s)
{
    kvcl_buf *a = NULL, *b = NULL;
    kvcl_queue *q = NULL;
    kvcl_status st = KVCL_OK;
    double best = 0;
    size_t bytes = SWEEP_BYTES;
    while (bytes > LEAST_BYTES &&
           (bytes > dev->info.max_alloc_bytes || bytes > dev->info.mem_bytes / 8))
        bytes /= 2;
    KVCL_TRY_GOTO(kvcl_queue_create(dev, &q));
    KVCL_TRY_GOTO(kvcl_buf_create(dev, bytes, "the bandwidth measurement", &a));
    KVCL_TRY_GOTO(kvcl_buf_create(dev, bytes, "the bandwidth measurement", &b));
    for (uint32_t i = 0; i < n_sweeps + 2; i++) {
        uint64_t begin = kvcl_os_now_ns();
        KVCL_TRY_GOTO(kvcl_buf_copy(q, b, 0, a, 0, bytes));
        KVCL_TRY_GOTO(kvcl_queue_wait(q));
        double rate = 2.0 * (double)bytes * 1e9 / (double)(kvcl_os_now_ns() - begin + 1);
        if (i > 1 && rate > best) /* the first ones make the buffers real */
            best = rate;
    }
    *bytes_per_s = best;
fail:
    kvcl_buf_free(a);
    kvcl_buf_free(b);
    kvcl_queue_free(q);
    return st;
}
