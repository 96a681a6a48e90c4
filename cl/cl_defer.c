/* cl_defer.c - the list of deferred ops: its launch, and whether it may be used.  See cl_defer.h.
 */
#include "cl_defer_int.h"

#include "log.h"
#include "mem.h"
#include "types.h"

#include <stdlib.h>

#define FIRST_OPS 9 /* launched while the host collects the others */
#define LINE 128
#define LOCAL_BYTES ((KVCL_DEFER_RED_FLOATS + KVCL_DEFER_MAX_COLS) * sizeof(float))
#define SLOT_BYTES (KVCL_DEFER_WORDS * sizeof(uint32_t))
#define SPARE_LOCAL_BYTES 2048 /* the kernel's own variables, and the driver's */
/* Weights asked for before their op runs.  More (8 and 16 MiB) held up the barrier. */
#define AHEAD_BYTES ((size_t)4 << 20)
#define PATIENCE (1u << 26)       /* looks at a barrier; each is half a microsecond or more */
#define TRIAL_PATIENCE (1u << 20) /* the same in the trial */
#define TRIAL_OPS 9

/* ---- launch ---------------------------------------------------------------------------------- */

/* Ops [first, n) of the list. */
static kvcl_status launch(kvcl_queue *q, kvcl_cl_defer *d, uint32_t first, uint32_t n,
                          uint32_t patience, bool trap)
{
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_defer, d->spec, "kvcl_defer", &l));
    kvcl_cl_arg_buf(&l, d->list);
    kvcl_cl_arg_u32(&l, first);
    kvcl_cl_arg_u32(&l, n - first);
    kvcl_cl_arg_buf(&l, d->round);
    kvcl_cl_arg_u32(&l, d->arrivals);
    kvcl_cl_arg_u32(&l, patience);
    kvcl_cl_arg_u32(&l, trap);
    for (uint32_t i = 0; i < KVCL_DEFER_DYN; i += 2)
        kvcl_cl_arg_u64(&l, d->numbers[i] | (uint64_t)d->numbers[i + 1] << 32);
    kvcl_cl_arg_local(&l, LOCAL_BYTES);
    d->arrivals += (n - first - 1) * kvcl_cl_defer_groups(q);
    return kvcl_cl_run1(&l, (size_t)kvcl_cl_defer_groups(q) * KVCL_DEFER_GROUP, KVCL_DEFER_GROUP);
}

static kvcl_status upload(kvcl_queue *q, kvcl_cl_defer *d, uint32_t first, uint32_t n)
{
    size_t bytes = (n - first) * SLOT_BYTES;
    if (n <= d->n_uploaded && memcmp(d->ops + first, d->uploaded + first, bytes) == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_buf_write(q, d->list, first * SLOT_BYTES, d->ops + first, bytes));
    memcpy(d->uploaded + first, d->ops + first, bytes);
    d->n_uploaded = first <= d->n_uploaded ? kvcl_max_u32(n, d->n_uploaded) : d->n_uploaded;
    return KVCL_OK;
}

/* ---- weights ahead ---------------------------------------------------------------------------
 *
 * The bytes of a matvec in the order in which the groups take them: its matrices one after the
 * other, or the two of a pair side by side. */

static size_t matrix_bytes(const kvcl_defer_matvec *m, uint32_t s, size_t row_bytes)
{
    return (m->row_end[s] - (s ? m->row_end[s - 1] : 0)) * row_bytes;
}

static void add_range(kvcl_defer_head *head, uint32_t *n, uint64_t at, size_t bytes)
{
    if (*n >= KVCL_DEFER_AHEAD || bytes < LINE)
        return;
    head->ahead_at[*n] = at;
    head->ahead_bytes[(*n)++] = (uint32_t)(bytes / LINE * LINE);
}

/* Bytes [from, to) of m. */
static void add_bytes(kvcl_defer_head *head, uint32_t *n, const kvcl_defer_matvec *m,
                      size_t row_bytes, size_t from, size_t to)
{
    if (m->flags & KVCL_DEFER_PAIR) {
        for (uint32_t s = 0; s < 2; s++)
            add_range(head, n, m->w[s] + from / 2, (to - from) / 2);
        return;
    }
    for (uint32_t s = 0; s < 3; s++) {
        size_t bytes = matrix_bytes(m, s, row_bytes), end = kvcl_min_size(to, bytes);
        if (from < end)
            add_range(head, n, m->w[s] + from, end - from);
        from -= kvcl_min_size(from, bytes);
        to -= kvcl_min_size(to, bytes);
    }
}

static size_t row_bytes_of(const kvcl_cl_defer *d, const kvcl_defer_matvec *m)
{
    kvcl_type type = (kvcl_type)(d->spec >> KVCL_DEFER_SPEC_TYPE & 255);
    switch (type) {
    case KVCL_Q8_0:
        return m->cols;
    case KVCL_Q5_0:
    case KVCL_Q4_0:
        return m->cols / 2;
    default:
        return kvcl_type_bytes(type, m->cols);
    }
}

/* Each op asks for the beginning of the next matvec when it ends. */
static void plan_ahead(kvcl_cl_defer *d, uint32_t first, uint32_t n)
{
    const kvcl_defer_matvec *next = NULL;
    for (uint32_t i = n; i-- > first;) {
        kvcl_defer_head *head = &d->ops[i].head;
        uint32_t n_ranges = 0;
        if (next) {
            size_t row_bytes = row_bytes_of(d, next), all = next->row_end[2] * row_bytes;
            add_bytes(head, &n_ranges, next, row_bytes, 0, kvcl_min_size(all, AHEAD_BYTES));
        }
        if (head->kind == KVCL_DEFER_MATVEC)
            next = &d->ops[i].matvec;
    }
}

/* Launches what has not been; the list goes on behind it. */
static kvcl_status run_so_far(kvcl_queue *q, kvcl_cl_defer *d)
{
    uint32_t first = d->n_run, n = d->n;
    if (first == n)
        return KVCL_OK;
    plan_ahead(d, first, n);
    d->busy = true; /* what follows launches and writes, and so asks for a flush */
    kvcl_status st = upload(q, d, first, n);
    if (st == KVCL_OK)
        st = launch(q, d, first, n, PATIENCE, true);
    d->busy = false;
    d->n_run = n;
    return st;
}

kvcl_status kvcl_cl_defer_flush(kvcl_queue *q)
{
    kvcl_cl_defer *d = kvcl_cl_of(q)->defer;
    if (!d || d->n == 0 || d->busy)
        return KVCL_OK;
    kvcl_status st = run_so_far(q, d);
    d->n = d->n_run = d->n_numbers = 0;
    d->on_pages = false;
    return st;
}

kvcl_status kvcl_cl_defer_add(kvcl_queue *q, kvcl_cl_defer *d, const kvcl_defer_slot *op)
{
    if (d->n == FIRST_OPS && d->n_run == 0 && op->head.kind == KVCL_DEFER_MATVEC)
        KVCL_TRY(run_so_far(q, d));
    d->ops[d->n++] = *op;
    return KVCL_OK;
}

/* ---- on and off ------------------------------------------------------------------------------ */

static bool wanted(const kvcl_queue *q)
{
    const kvcl_cl_caps *caps = kvcl_cl_caps_of(q);
    const char *s = getenv("KVCL_CL_DEFER");
    return caps->impl == KVCL_CL_NVIDIA && (caps->features & KVCL_CL_PTX) && !caps->vector_shape &&
           caps->max_group >= KVCL_DEFER_GROUP &&
           caps->local_bytes >= LOCAL_BYTES + SPARE_LOCAL_BYTES && caps->address_bits == 64 &&
           !(s && strcmp(s, "0") == 0);
}

/* Empty ops, so that only the barrier between them is tried. */
static kvcl_status trial(kvcl_queue *q, kvcl_cl_defer *d, bool *out)
{
    uint32_t round[2] = {0, 0};
    memset(d->ops, 0, TRIAL_OPS * sizeof *d->ops);
    KVCL_TRY(kvcl_buf_write(q, d->round, 0, round, sizeof round));
    KVCL_TRY(upload(q, d, 0, TRIAL_OPS));
    KVCL_TRY(launch(q, d, 0, TRIAL_OPS, TRIAL_PATIENCE, false));
    KVCL_TRY(kvcl_buf_read(q, d->round, 0, round, sizeof round));
    *out = round[1] == 0 && round[0] == d->arrivals;
    return KVCL_OK;
}

static kvcl_status make(kvcl_queue *q, uint32_t spec, kvcl_cl_defer **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(q->dev->ctx, sizeof(kvcl_cl_defer), "a list of ops", &p));
    kvcl_cl_defer *d = kvcl_cl_of(q)->defer = p;
    d->spec = spec;
    KVCL_TRY(kvcl_buf_create(q->dev, KVCL_DEFER_MAX_OPS * SLOT_BYTES, "a list of ops", &d->list));
    KVCL_TRY(kvcl_buf_create(q->dev, 2 * sizeof(uint32_t), "a list of ops", &d->round));
    KVCL_TRY(kvcl_buf_create(q->dev, sizeof(uint64_t), "a list of ops", &d->address));
    *out = d;
    return KVCL_OK;
}

kvcl_cl_defer *kvcl_cl_defer_list(kvcl_queue *q, uint32_t spec)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    kvcl_cl_defer *d = cq->defer;
    uintptr_t nobody = 0, me = (uintptr_t)cq;
    bool works = false;
    if (d)
        return d->on ? d : NULL;
    if (cq->no_defer)
        return NULL;
    cq->no_defer = true; /* not tried twice */
    if (!wanted(q) || !atomic_compare_exchange_strong(&cq->d->defer_owner, &nobody, me))
        return NULL;
    kvcl_status st = make(q, spec, &d);
    if (st == KVCL_OK)
        st = trial(q, d, &works);
    if (st == KVCL_OK && works) {
        d->on = true;
        return d;
    }
    kvcl_log_warn(q->dev->ctx, "%s: ops are launched one by one: %s", q->dev->info.id,
                  st == KVCL_OK ? "its work-groups do not run together"
                                : kvcl_last_error(q->dev->ctx));
    kvcl_cl_defer_free(q);
    return NULL;
}

void kvcl_cl_defer_free(kvcl_queue *q)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    kvcl_cl_defer *d = cq->defer;
    if (!d)
        return;
    kvcl_buf_free(d->list);
    kvcl_buf_free(d->round);
    kvcl_buf_free(d->address);
    kvcl_mem_free(q->dev->ctx, d);
    cq->defer = NULL;
    atomic_store(&cq->d->defer_owner, 0);
}
