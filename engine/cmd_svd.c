/* cmd_svd.c - kvcl svd: the largest singular values of a matrix, or of a batch, in a NumPy file. */
#include "cmd.h"
#include "cmd_npy.h"

#include "mem.h"
#include "os.h"

#include <math.h>
#include <stddef.h>

typedef struct svd_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    const char *out;
    int64_t rank, oversample, power, seed;
    bool json;
} svd_opts;

#define AT(member) .offset = offsetof(svd_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Decomposition"},
    {.names = {"-k", "--rank"},
     .kind = KVCL_OPT_INT,
     AT(rank),
     .arg = "K",
     .max = 128,
     .help = "how many singular values; needed"},
    {.names = {"--oversample"},
     .kind = KVCL_OPT_INT,
     AT(oversample),
     .arg = "N",
     .min = -1,
     .max = 127,
     .def = "-1",
     .help = "columns of the random sketch beyond K; -1: 8, as far as they fit"},
    {.names = {"--power"},
     .kind = KVCL_OPT_INT,
     AT(power),
     .arg = "N",
     .max = 64,
     .def = "4",
     .help = "power iterations: more of them come nearer to the best rank-K matrix"},
    {.names = {"--seed"},
     .kind = KVCL_OPT_INT,
     AT(seed),
     .arg = "N",
     .max = 9007199254740992.0,
     .def = "1",
     .help = "of the random sketch; the same seed gives the same bits on every device"},
    {.kind = KVCL_OPT_HEADING, .help = "Output"},
    {.names = {"-o", "--output"},
     .kind = KVCL_OPT_STRING,
     AT(out),
     .arg = "PREFIX",
     .help = "writes PREFIX.U.npy, PREFIX.S.npy and PREFIX.V.npy"},
    KVCL_ROW_JSON(svd_opts),
    {.kind = KVCL_OPT_HEADING, .help = "Device"},
    KVCL_ROWS_DEVICE(svd_opts),
    KVCL_ROW_THREADS(svd_opts),
    KVCL_ROWS_COMMON(svd_opts),
};

typedef struct svd {
    kvcl_app app;
    const svd_opts *o;
    const char *path;
    kvcl_npy_array a;
    size_t n, rows, cols, rank;
    kvcl_rsvd_options opt;
    float *u, *s, *v;
    double error; /* relative, of all matrices together */
    double ms;
} svd;

static kvcl_status create(svd *d, size_t n, float **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_array(d->app.ctx, n, sizeof(float), "factors", &p));
    *out = p;
    return KVCL_OK;
}

static kvcl_status load(svd *d)
{
    const svd_opts *o = d->o;
    kvcl_ctx *ctx = d->app.ctx;
    KVCL_CHECK(ctx, o->rank > 0, KVCL_E_ARG, "how many singular values? say it with -k K");
    KVCL_TRY(kvcl_npy_read(ctx, d->path, &d->a));
    const size_t *dims = d->a.dims;
    KVCL_CHECK(ctx, d->a.n_dims == 2 || d->a.n_dims == 3, KVCL_E_UNSUPPORTED,
               "%s: %zu dimensions; a matrix has 2, a batch of matrices 3", d->path, d->a.n_dims);
    d->n = d->a.n_dims == 3 ? *dims++ : 1;
    d->rows = dims[0];
    d->cols = dims[1];
    d->rank = (size_t)o->rank;
    KVCL_CHECK(ctx, d->n && d->rows && d->cols, KVCL_E_ARG, "%s: the array is empty", d->path);
    d->opt = kvcl_rsvd_defaults((uint32_t)o->rank, d->rows, d->cols);
    if (o->oversample >= 0)
        d->opt.oversample = (uint32_t)o->oversample;
    d->opt.power = (uint32_t)o->power;
    d->opt.seed = (uint64_t)o->seed;
    size_t most = kvcl_min_size(d->rows, d->cols);
    KVCL_CHECK(ctx, d->rank <= most, KVCL_E_ARG, "-k %zu: a %zu x %zu matrix has %zu", d->rank,
               d->rows, d->cols, most);
    KVCL_TRY(create(d, d->n * d->rows * d->rank, &d->u));
    KVCL_TRY(create(d, d->n * d->rank, &d->s));
    return create(d, d->n * d->cols * d->rank, &d->v);
}

/* ||A - U S V^T|| / ||A|| in double precision. */
static void measure(svd *d)
{
    double left = 0.0, all = 0.0;
    for (size_t b = 0; b < d->n; b++) {
        const float *s = d->s + b * d->rank, *v = d->v + b * d->cols * d->rank;
        for (size_t i = 0; i < d->rows; i++) {
            const float *a = d->a.values + (b * d->rows + i) * d->cols;
            const float *u = d->u + (b * d->rows + i) * d->rank;
            for (size_t j = 0; j < d->cols; j++) {
                double x = (double)a[j];
                all += x * x;
                for (size_t c = 0; c < d->rank; c++)
                    x -= (double)u[c] * (double)s[c] * (double)v[j * d->rank + c];
                left += x * x;
            }
        }
    }
    d->error = all > 0.0 ? sqrt(left / all) : 0.0;
}

/* PREFIX.<what>.npy: [n][rows][rank], without n for a single matrix, without rows for S. */
static kvcl_status write_factor(svd *d, const char *what, const float *values, size_t rows)
{
    char path[4200];
    size_t dims[3], n = 0;
    int len = snprintf(path, sizeof path, "%s.%s.npy", d->o->out, what);
    KVCL_CHECK(d->app.ctx, len > 0 && (size_t)len < sizeof path, KVCL_E_ARG,
               "-o: the files' path is too long");
    if (d->a.n_dims == 3)
        dims[n++] = d->n;
    if (rows)
        dims[n++] = rows;
    dims[n++] = d->rank;
    return kvcl_npy_write(d->app.ctx, path, values, dims, n);
}

static kvcl_status print_json(svd *d)
{
    json_t *values = json_array();
    for (size_t i = 0; i < d->n * d->rank; i++)
        json_array_append_new(values, json_real((double)d->s[i]));
    return kvcl_json_print(
        d->app.ctx,
        json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o}", "schema",
                  "kvcl.svd/1", "file", kvcl_json_text(d->path, strlen(d->path)), "device",
                  kvcl_device_get_info(d->app.dev)->id, "matrices", (json_int_t)d->n, "rows",
                  (json_int_t)d->rows, "cols", (json_int_t)d->cols, "rank", (json_int_t)d->rank,
                  "oversample", (json_int_t)d->opt.oversample, "power", (json_int_t)d->opt.power,
                  "seed", (json_int_t)d->opt.seed, "relative_error", d->error, "ms", d->ms,
                  "singular_values", values));
}

static kvcl_status run(svd *d)
{
    const svd_opts *o = d->o;
    const char *device = o->model.device;
    KVCL_TRY(load(d));
    KVCL_TRY(kvcl_device_open(d->app.ctx, device && strcmp(device, "none") == 0 ? "cpu" : device,
                              &d->app.dev));
    uint64_t begin = kvcl_os_now_ns();
    KVCL_TRY(kvcl_rsvd(d->app.dev, d->a.values, d->n, d->rows, d->cols, &d->opt, d->u, d->s, d->v));
    d->ms = (double)(kvcl_os_now_ns() - begin) * 1e-6;
    measure(d);
    if (o->out) {
        KVCL_TRY(write_factor(d, "U", d->u, d->rows));
        KVCL_TRY(write_factor(d, "S", d->s, 0));
        KVCL_TRY(write_factor(d, "V", d->v, d->cols));
    }
    if (o->json)
        return print_json(d);
    printf("%zu matri%s of %zu x %zu, rank %zu: relative error %.6g, %.3f ms on %s\n", d->n,
           d->n == 1 ? "x" : "ces", d->rows, d->cols, d->rank, d->error, d->ms,
           kvcl_device_get_info(d->app.dev)->id);
    return KVCL_OK;
}

static int svd_main(const void *values, const kvcl_opt_result *parsed)
{
    svd d = {.o = values, .path = parsed->pos[0]};
    int code;
    if (!kvcl_app_open(&d.app, &d.o->common, &d.o->model, parsed, &code))
        return code;
    code = kvcl_app_finish(&d.app, run(&d));
    if (code == 0)
        code = kvcl_app_finish_stdout(&d.app);
    kvcl_mem_free(d.app.ctx, d.a.values);
    kvcl_mem_free(d.app.ctx, d.u);
    kvcl_mem_free(d.app.ctx, d.s);
    kvcl_mem_free(d.app.ctx, d.v);
    kvcl_app_close(&d.app);
    return code;
}

const kvcl_command kvcl_cmd_svd = {
    .name = "svd",
    .summary = "Finds the largest singular values and vectors of a matrix",
    .synopsis = "IN.npy -k K [-o PREFIX] [--device D] [--json]",
    .examples = "  kvcl svd rows/layer00-k.npy -k 32 -o layer00     # one matrix per head\n"
                "  kvcl svd a.npy -k 8 --power 8 --json\n",
    .notes =
        "IN.npy holds a matrix [rows][cols], or a batch [n][rows][cols], of '<f4', '<f8' or '<f2' "
        "in C order; computed in 32 bits. The factors are float32: U [rows][K], S [K] descending, "
        "V "
        "[cols][K], of a batch with n before. Randomised range finder with power iterations; K "
        "and the oversampling are at most 128 together, and at most rows and cols. Up to 2^20 "
        "rows of 256 columns, or the other way round, or 65536 of both. The relative error is "
        "||A - U S V^T|| / ||A|| (Frobenius), of all matrices together.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(svd_opts),
    .min_pos = 1,
    .max_pos = 1,
    .run = svd_main,
};
