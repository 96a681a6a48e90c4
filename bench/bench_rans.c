/* bench_rans.c - the entropy coder: size against the entropy, speed of one thread.
 *
 *   bench_rans [cpu:LEVEL ...]      (default: cpu:scalar cpu:auto)
 *
 * Pages of 256 components of 64 values, drawn from a distribution and rounded.  "ideal" is what the
 * values cost with their true probabilities; models are picked by the components' deviations.
 * Times are the processor's for this process, so that a busy machine disturbs them less; the median
 * of interleaved runs. */
#include "dev.h"
#include "rans_model.h"
#include "shared.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROWS 256u
#define COLS 64u
#define PAGES 16u
#define PAGE_VALUES (ROWS * COLS)
#define VALUES (PAGES * PAGE_VALUES)
#define RUNS 9
#define MAX_LEVELS 4

/* ---- values -------------------------------------------------------------------------------- */

static double uniform(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) * 0x1p-53;
}

static double draw(bool laplace, uint64_t *state)
{
    double u = uniform(state), v = uniform(state);
    if (laplace)
        return log(u) * (v < 0.5 ? -1.0 : 1.0) / sqrt(2.0);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

static double upper(bool laplace, double x)
{
    return laplace ? 0.5 * exp(-sqrt(2.0) * x) : 0.5 * erfc(x / sqrt(2.0));
}

static double bits_of(bool laplace, double deviation, int value)
{
    int v = abs(value);
    if (v == 0)
        return -log2(1.0 - 2.0 * upper(laplace, 0.5 / deviation));
    double beyond = v >= 127 ? 0.0 : upper(laplace, (v + 0.5) / deviation);
    return -log2(upper(laplace, (v - 0.5) / deviation) - beyond);
}

typedef struct set {
    bool laplace;
    double from, fall; /* deviation of component i: from * 2^(-fall i) */
    int8_t values[VALUES];
    uint8_t models[ROWS];
    double ideal; /* bits */
} set;

static void make_set(set *s)
{
    uint64_t state = 1;
    s->ideal = 0.0;
    for (uint32_t i = 0; i < VALUES; i++) {
        uint32_t row = i % PAGE_VALUES / COLS;
        double deviation = s->from * exp2(-s->fall * row);
        double x = fmax(-127.0, fmin(127.0, round(deviation * draw(s->laplace, &state))));
        s->values[i] = (int8_t)x;
        s->models[row] = (uint8_t)kvcl_rans_pick(s->laplace ? KVCL_RANS_LAPLACE : KVCL_RANS_GAUSS,
                                                 (float)deviation);
        s->ideal += bits_of(s->laplace, deviation, (int)x);
    }
}

/* ---- devices ------------------------------------------------------------------------------- */

typedef struct level {
    kvcl_dev *dev;
    kvcl_queue *q;
    kvcl_buf *buf;
    kvcl_rans_enc_args enc;
    kvcl_rans_dec_args dec;
    double enc_s[RUNS], dec_s[RUNS];
} level;

static void must(kvcl_ctx *ctx, kvcl_status st)
{
    if (st != KVCL_OK) {
        fprintf(stderr, "bench_rans: %s\n", kvcl_last_error(ctx));
        exit(1);
    }
}

static kvcl_view part(level *l, size_t *at, size_t bytes)
{
    kvcl_view v = {l->buf, *at, bytes};
    *at += kvcl_align_up(bytes, 64);
    return v;
}

static void level_open(kvcl_ctx *ctx, const char *id, const uint32_t *table, level *l)
{
    uint32_t slot = (uint32_t)kvcl_rans_bytes_max(PAGE_VALUES);
    size_t table_bytes = kvcl_rans_table_bytes(), at = 0;
    must(ctx, kvcl_device_open(ctx, id, &l->dev));
    must(ctx, kvcl_queue_create(l->dev, &l->q));
    must(ctx,
         kvcl_buf_create(l->dev, table_bytes + PAGES * slot + 2 * VALUES + 8192, "all", &l->buf));
    kvcl_rans_shape shape = {PAGES, ROWS, COLS, 0, 0};
    l->enc = (kvcl_rans_enc_args){.shape = shape, .slot_bytes = slot};
    l->dec = (kvcl_rans_dec_args){.shape = shape};
    l->enc.table = l->dec.table = part(l, &at, table_bytes);
    l->enc.values = part(l, &at, VALUES);
    l->dec.values = part(l, &at, VALUES);
    l->enc.models = l->dec.models = part(l, &at, ROWS);
    l->enc.streams = l->dec.streams = part(l, &at, (size_t)PAGES * slot);
    l->enc.used = part(l, &at, PAGES * 4);
    l->dec.places = part(l, &at, PAGES * 8);
    l->dec.bad = part(l, &at, PAGES * 4);
    must(ctx, kvcl_buf_write(l->q, l->buf, l->enc.table.off, table, table_bytes));
}

/* Seconds of one run of either op. */
static double timed(kvcl_ctx *ctx, level *l, bool encode)
{
    clock_t begin = clock();
    int n = 0;
    for (; clock() - begin < CLOCKS_PER_SEC / 50; n++) {
        must(ctx, encode ? kvcl_op_rans_enc(l->q, &l->enc) : kvcl_op_rans_dec(l->q, &l->dec));
        must(ctx, kvcl_queue_wait(l->q));
    }
    return (double)(clock() - begin) / CLOCKS_PER_SEC / n;
}

/* Encodes, points the decoder at the streams, decodes, compares; returns the bytes. */
static uint64_t round_trip(kvcl_ctx *ctx, level *l, const set *s)
{
    static const char failed[] = "bench_rans: the values did not come back\n";
    uint32_t used[PAGES], places[PAGES][2], bad[PAGES];
    uint64_t sum = 0;
    int8_t *back = malloc(VALUES);
    must(ctx, kvcl_buf_write(l->q, l->buf, l->enc.values.off, s->values, VALUES));
    must(ctx, kvcl_buf_write(l->q, l->buf, l->enc.models.off, s->models, ROWS));
    must(ctx, kvcl_op_rans_enc(l->q, &l->enc));
    must(ctx, kvcl_buf_read(l->q, l->buf, l->enc.used.off, used, sizeof used));
    for (uint32_t i = 0; i < PAGES; i++) {
        places[i][0] = i * (l->enc.slot_bytes / 4);
        places[i][1] = used[i];
        sum += used[i];
    }
    must(ctx, kvcl_buf_write(l->q, l->buf, l->dec.places.off, places, sizeof places));
    must(ctx, kvcl_op_rans_dec(l->q, &l->dec));
    must(ctx, kvcl_buf_read(l->q, l->buf, l->dec.bad.off, bad, sizeof bad));
    must(ctx, kvcl_buf_read(l->q, l->buf, l->dec.values.off, back, VALUES));
    for (uint32_t i = 0; i < PAGES; i++)
        if (bad[i] || memcmp(back, s->values, VALUES) != 0) {
            fputs(failed, stderr);
            exit(1);
        }
    free(back);
    return sum;
}

/* ---- table --------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double mb_per_s(double times[RUNS])
{
    qsort(times, RUNS, sizeof *times, by_value);
    return VALUES * 1e-6 / times[RUNS / 2];
}

static void bench_set(kvcl_ctx *ctx, level *levels, int n_levels, set *s)
{
    double bytes = 0.0;
    make_set(s);
    for (int i = 0; i < n_levels; i++)
        bytes = (double)round_trip(ctx, &levels[i], s);
    for (int run = 0; run < RUNS; run++)
        for (int i = 0; i < n_levels; i++) {
            levels[i].enc_s[run] = timed(ctx, &levels[i], true);
            levels[i].dec_s[run] = timed(ctx, &levels[i], false);
        }
    printf("| %s %.2f", s->laplace ? "Laplace" : "Gauss", s->from);
    if (s->fall > 0.0)
        printf(" .. %.2f", s->from * exp2(-s->fall * (ROWS - 1)));
    printf(" | %.4f | %.4f | %+.2f %% |", s->ideal / VALUES, 8.0 * bytes / VALUES,
           100.0 * (8.0 * bytes / s->ideal - 1.0));
    for (int i = 0; i < n_levels; i++)
        printf(" %.0f / %.0f |", mb_per_s(levels[i].enc_s), mb_per_s(levels[i].dec_s));
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"cpu:scalar", "cpu:auto"};
    static const double deviations[] = {0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0};
    level levels[MAX_LEVELS] = {0};
    const kvcl_ctx_options one_thread = {.n_threads = 1};
    kvcl_ctx *ctx = NULL;
    int n_levels = argc > 1 ? argc - 1 : 2;
    uint32_t *table = malloc(kvcl_rans_table_bytes());
    set *s = malloc(sizeof *s);
    if (!table || !s || n_levels > MAX_LEVELS || kvcl_ctx_create(&one_thread, &ctx) != KVCL_OK)
        exit(1);
    kvcl_rans_table_fill(table);
    printf("| deviation | ideal | bits | |");
    for (int i = 0; i < n_levels; i++) {
        const char *id = argc > 1 ? argv[i + 1] : usual[i];
        level_open(ctx, id, table, &levels[i]);
        printf(" %s enc / dec |", id);
    }
    printf("\n| --- | --- | --- | --- |");
    for (int i = 0; i < n_levels; i++)
        printf(" --- |");
    printf("\n");
    for (int laplace = 0; laplace < 2; laplace++) {
        s->laplace = laplace;
        for (size_t i = 0; i <= kvcl_array_len(deviations); i++) {
            bool falls = i == kvcl_array_len(deviations);
            s->from = falls ? 6.0 : deviations[i];
            s->fall = falls ? 1.0 / 48.0 : 0.0;
            bench_set(ctx, levels, n_levels, s);
        }
    }
    for (int i = 0; i < n_levels; i++) {
        kvcl_buf_free(levels[i].buf);
        kvcl_queue_free(levels[i].q);
        kvcl_device_close(levels[i].dev);
    }
    kvcl_ctx_free(ctx);
    free(s);
    free(table);
    return 0;
}
