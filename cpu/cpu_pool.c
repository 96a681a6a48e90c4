/* cpu_pool.c - one OpenMP region for a list of ops, with a barrier of our own between them.
 *
 * OpenMP's barrier either spins for as long as it takes (and loses a scheduler quantum whenever
 * another process wants the core) or sleeps at once (9 us a time).  Ours spins for a few
 * microseconds, which is what a step's imbalance costs, then gives the processor away. */
#include "cpu_pool.h"

#include "mem.h"
#include "os.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define SPINS_BEFORE_YIELD 4000

kvcl_status kvcl_cpu_pool_init(kvcl_ctx *ctx, uint32_t n_threads, kvcl_cpu_pool *out)
{
    void *p;
#ifndef _OPENMP
    n_threads = 1;
#endif
    KVCL_TRY(kvcl_mem_array(ctx, n_threads, KVCL_CPU_SCRATCH_BYTES, "thread scratch", &p));
    out->n_threads = n_threads;
    out->scratch = p;
    return KVCL_OK;
}

void kvcl_cpu_pool_free(kvcl_ctx *ctx, kvcl_cpu_pool *pool)
{
    kvcl_mem_free(ctx, pool->scratch);
    pool->scratch = NULL;
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The last to arrive resets the task counter, then opens the next round. */
static void barrier(kvcl_cpu_pool *pool, uint32_t n_threads)
{
    uint32_t round = atomic_load_explicit(&pool->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == n_threads) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->round, round + 1, memory_order_release);
        return;
    }
    for (uint32_t i = 0; atomic_load_explicit(&pool->round, memory_order_acquire) == round; i++) {
        if (i < SPINS_BEFORE_YIELD)
            pause_briefly();
        else
            kvcl_os_yield();
    }
}

static void run_thread(kvcl_cpu_pool *pool, const kvcl_cpu_entry *entries, uint32_t n,
                       uint32_t thread, uint32_t n_threads)
{
    kvcl_cpu_part part = {
        .thread = thread,
        .n_threads = n_threads,
        .next = &pool->next,
        .scratch = pool->scratch + thread * KVCL_CPU_SCRATCH_BYTES,
    };
    for (uint32_t i = 0; i < n; i++) {
        for (part.phase = 0; part.phase < entries[i].op.n_phases; part.phase++) {
            entries[i].op.fn(&entries[i].args, &part);
            barrier(pool, n_threads);
        }
    }
}

void kvcl_cpu_pool_run(kvcl_cpu_pool *pool, const kvcl_cpu_entry *entries, uint32_t n)
{
    if (n == 0)
        return;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->arrived, 0);
    if (pool->n_threads == 1) {
        run_thread(pool, entries, n, 0, 1);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel num_threads((int)pool->n_threads)
    run_thread(pool, entries, n, (uint32_t)omp_get_thread_num(), (uint32_t)omp_get_num_threads());
#endif
}
