/* simd_matvec.c - decode's linear layers, by streaming rows.  Definition: cpu/matvec.c
 *
 * Each thread prepares x for itself (normalises, quantises): that costs less than a barrier.  With
 * several rows of x, as many as fit the scratch are prepared together, so that a weight is fetched
 * from memory once for all of them. */
#include "simd.h"

#define GROUP 64             /* rows per call of the dot product, at most */
#define TASK_BYTES (1 << 16) /* of weights: long enough to stream, short enough to balance */
#define MAX_X 16

typedef struct plan {
    const kvcl_matvec_args *a;
    uint32_t cols, rows; /* rows counted over all segments; gate and up count once */
    uint32_t rows_per_task, tasks_per_chunk;
    uint32_t n_x; /* rows of x prepared together */
    size_t x_bytes;
    bool quantised;
} plan;

/* Bytes of scratch for one prepared row of x. */
static size_t row_scratch(uint32_t cols)
{
    return kvcl_align_up((size_t)cols * (4 + KVCL_MATVEC_SEGS + 1) + cols / 8, 64);
}

static plan make_plan(const kvcl_matvec_args *a, uint32_t n_threads)
{
    plan pl = {.a = a, .cols = a->w[0]->cols, .rows = a->w[0]->rows};
    size_t row_bytes = kvcl_type_bytes(a->w[0]->type, pl.cols);
    bool pair = a->act == KVCL_ACT_SWIGLU;
    for (uint32_t s = 0; s < a->n_seg; s++) {
        pl.quantised = pl.quantised || kvcl_type_is_quantised(a->w[s]->type);
        if (s > 0 && !pair)
            pl.rows += a->w[s]->rows;
    }
    uint32_t most = (uint32_t)(TASK_BYTES / (row_bytes * (pair ? 2 : 1))) + 1;
    uint32_t fair = pl.rows / (4 * n_threads) + 1;
    pl.rows_per_task = (kvcl_min_u32(most, fair) + 3) / 4 * 4;
    pl.tasks_per_chunk = kvcl_div_up(pl.rows, pl.rows_per_task);
    pl.x_bytes = row_scratch(pl.cols);
    pl.n_x =
        kvcl_min_u32(kvcl_min_u32(a->n, MAX_X), (uint32_t)(KVCL_CPU_SCRATCH_BYTES / pl.x_bytes));
    return pl;
}

/* The starts of each segment; segments of one type share theirs. */
static void prepare_starts(const plan *pl, kvcl_simd_row *row, int32_t *room)
{
    const kvcl_matvec_args *a = pl->a;
    for (uint32_t s = 0; s < a->n_seg; s++) {
        kvcl_type type = a->w[s]->type;
        for (uint32_t t = 0; t < s && !row->starts[s]; t++)
            if (a->w[t]->type == type)
                row->starts[s] = row->starts[t];
        if (row->starts[s] || !kvcl_type_is_quantised(type))
            continue;
        KVCL_SIMD_FN(quant_starts)(type, row->codes, room, pl->cols);
        row->starts[s] = room;
        room += pl->cols / 4;
    }
}

/* Row i of x, normalised, and quantised where some weights are. */
static kvcl_simd_row prepare(const plan *pl, uint32_t i, unsigned char *scratch)
{
    const kvcl_matvec_args *a = pl->a;
    const float *x = (const float *)kvcl_cpu_ptr(a->x) + (size_t)i * a->x_stride;
    float *z = (float *)(void *)scratch, *scales = z + pl->cols;
    int32_t *starts = (int32_t *)(void *)(scales + pl->cols / KVCL_QK);
    int8_t *codes = (int8_t *)(starts + KVCL_MATVEC_SEGS * (pl->cols / 4));
    kvcl_simd_row row = {.x = x, .codes = codes, .scales = scales};
    if (a->norm.kind != KVCL_NORM_NONE) {
        KVCL_SIMD_FN(norm_row)(&a->norm, x, z, pl->cols);
        row.x = z;
    }
    if (pl->quantised) {
        KVCL_SIMD_FN(quant_row)(row.x, codes, scales, pl->cols);
        prepare_starts(pl, &row, starts);
    }
    return row;
}

/* y[r] = dot(row first + r of segment s, x) + bias, n <= GROUP */
static void values(const plan *pl, uint32_t s, uint32_t first, uint32_t n, const kvcl_simd_row *x,
                   float *y)
{
    const kvcl_mat *w = pl->a->w[s];
    size_t row_bytes = kvcl_type_bytes(w->type, w->cols);
    const unsigned char *rows = kvcl_cpu_rows(w) + first * row_bytes;
    if (kvcl_type_is_quantised(w->type))
        KVCL_SIMD_FN(dot_quant)(w->type, rows, row_bytes, n, x, s, w->cols, y);
    else
        KVCL_SIMD_FN(dot_float)(w->type, rows, row_bytes, n, x, w->cols, y);
    const float *bias = kvcl_cpu_ptr(pl->a->bias[s]);
    for (uint32_t r = 0; bias && r < n; r++)
        y[r] += bias[first + r];
}

/* n <= GROUP rows of segment s, for row i of x: values, activation, residual. */
static void store_rows(const plan *pl, uint32_t i, uint32_t s, uint32_t first, uint32_t n,
                       const kvcl_simd_row *x)
{
    const kvcl_matvec_args *a = pl->a;
    float y[GROUP], up[GROUP];
    values(pl, s, first, n, x, y);
    if (a->act == KVCL_ACT_SWIGLU) {
        values(pl, 1, first, n, x, up);
        KVCL_SIMD_FN(swiglu_row)(y, up, y, n);
    } else if (a->act == KVCL_ACT_GELU) {
        KVCL_SIMD_FN(gelu_row)(y, y, n);
    }
    size_t at = (size_t)i * a->out_stride[s] + first;
    const float *res = kvcl_cpu_ptr(a->res);
    float *out = (float *)kvcl_cpu_ptr(a->out[s]) + at;
    for (uint32_t r = 0; r < n; r++)
        out[r] = res ? res[at + r] + y[r] : y[r];
}

/* Rows [begin, end), counted over the segments, for the n_x prepared rows from row i on. */
static void task_rows(const plan *pl, uint32_t begin, uint32_t end, uint32_t i, uint32_t n_x,
                      const kvcl_simd_row *x)
{
    const kvcl_matvec_args *a = pl->a;
    uint32_t s = 0, base = 0;
    for (uint32_t r = begin; r < end;) {
        while (r - base >= a->w[s]->rows)
            base += a->w[s++]->rows;
        uint32_t n = kvcl_min_u32(GROUP, kvcl_min_u32(end, base + a->w[s]->rows) - r);
        for (uint32_t j = 0; j < n_x; j++)
            store_rows(pl, i + j, s, r - base, n, &x[j]);
        r += n;
    }
}

void KVCL_SIMD_FN(matvec)(const void *args, kvcl_cpu_part *p)
{
    const kvcl_matvec_args *a = args;
    if (a->n == 0 || a->w[0]->rows == 0)
        return;
    plan pl = make_plan(a, p->n_threads);
    kvcl_simd_row x[MAX_X];
    uint32_t ready = UINT32_MAX, n_tasks = kvcl_div_up(a->n, pl.n_x) * pl.tasks_per_chunk;
    for (uint32_t t, end; kvcl_cpu_take(p, n_tasks, 1, &t, &end);) {
        uint32_t chunk = t / pl.tasks_per_chunk, i = chunk * pl.n_x;
        uint32_t n_x = kvcl_min_u32(pl.n_x, a->n - i);
        if (chunk != ready) {
            for (uint32_t j = 0; j < n_x; j++)
                x[j] = prepare(&pl, i + j, p->scratch + j * pl.x_bytes);
            ready = chunk;
        }
        uint32_t begin = t % pl.tasks_per_chunk * pl.rows_per_task;
        task_rows(&pl, begin, kvcl_min_u32(pl.rows, begin + pl.rows_per_task), i, n_x, x);
    }
}
