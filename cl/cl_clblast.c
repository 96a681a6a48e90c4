/* cl_clblast.c - CLBlast's SGEMM where its bits are the canonical ones.
 *
 * Nothing in CLBlast's contract promises an order of summation, but in practice each output is one
 * fma chain over k ascending.  So it is tested on the device it will run on, at first use, and not
 * used where a bit differs.  CPUs behind OpenCL never use it: their kernels of our own are faster
 * there and some contract differently.
 *
 * Versions before 1.6.3 write out of bounds with parameter sets of GEMMK = 1 and MWG != NWG, and
 * the C interface cannot ask which set is active nor which version this is.  So a set of our own,
 * GEMMK = 0, is put in place before the first call, on every device. */
#include "cl_defer.h"

#include "log.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>

/* CLBlast's C interface; its numbers are part of its ABI. */
#define LAYOUT_ROW_MAJOR 101
#define TRANSPOSE_NO 111
#define TRANSPOSE_YES 112
#define PRECISION_SINGLE 32

typedef int(kvcl_cl_sgemm_fn)(int layout, int transpose_a, int transpose_b, size_t m, size_t n,
                              size_t k, float alpha, cl_mem a, size_t a_off, size_t a_ld, cl_mem b,
                              size_t b_off, size_t b_ld, float beta, cl_mem c, size_t c_off,
                              size_t c_ld, cl_command_queue *queue, cl_event *event);
typedef int(kvcl_cl_override_fn)(cl_device_id device, const char *kernel, int precision, size_t n,
                                 const char **names, const size_t *values);

struct kvcl_cl_blas {
    kvcl_os_lib *lib;
    kvcl_cl_sgemm_fn *sgemm;
    kvcl_cl_override_fn *override;
    bool ready;
};

/* ---- parameters ------------------------------------------------------------------------------ */

/* Of the tiled kernel.  MWG x NWG outputs per group of MDIMC x NDIMC items, KWG steps of k through
 * local memory (SA, SB); vectors of VWM and VWN. */
static const char *const tile_names[] = {"GEMMK", "KREG",  "KWG",   "KWI", "MDIMA", "MDIMC",
                                         "MWG",   "NDIMB", "NDIMC", "NWG", "SA",    "SB",
                                         "STRM",  "STRN",  "VWM",   "VWN"};
#define N_TILE 16
/* 8 x 4 outputs per item, 12 KiB of local memory.  On an H200 at n = 512 the best of 12 sets: 16 to
 * 20 TFLOP/s where CLBlast's own choice for it gives 13; all 12 gave the same bits. */
static const size_t tile_large[N_TILE] = {0, 1, 16, 8, 16, 16, 128, 16, 16, 64, 1, 1, 1, 1, 4, 4};
/* 4 x 4 outputs per item, 8 KiB: for everything else. */
static const size_t tile_small[N_TILE] = {0, 1, 16, 2, 16, 16, 64, 16, 16, 64, 1, 1, 0, 0, 4, 4};

/* ---- self-test ------------------------------------------------------------------------------- */

/* c = a b^T at one shape, with gaps between rows, against the chain on the host. */
typedef struct kvcl_cl_trial {
    size_t m, n, k, ld;
    kvcl_buf *a, *b, *c;
    float *ha, *hb, *hc;
} kvcl_cl_trial;

/* Exact at short k; values of mixed sign and scale, so that every rounding matters. */
static void fill(float *x, size_t rows, size_t ld, unsigned seed)
{
    uint32_t s = seed;
    for (size_t i = 0; i < rows * ld; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = ((float)(int32_t)(s >> 8) - 8388608.0f) * 0x1p-23f;
    }
}

static float chain(const kvcl_cl_trial *t, size_t i, size_t j)
{
    float acc = 0.0f;
    for (size_t k = 0; k < t->k; k++)
        acc = fmaf(t->ha[i * t->ld + k], t->hb[j * t->ld + k], acc);
    return acc;
}

/* All outputs of small shapes; of large ones a third of the last row and column and a sample. */
static size_t count_differences(const kvcl_cl_trial *t)
{
    size_t n_different = 0, n = t->m * t->n, step = n > 16384 ? n / 4096 | 1 : 1;
    for (size_t at = 0; at < n; at += step) {
        float want = chain(t, at / t->n, at % t->n);
        n_different += memcmp(&want, &t->hc[at], sizeof want) != 0;
    }
    for (size_t j = 0; j < t->n && step > 1; j += 3) {
        float want = chain(t, t->m - 1, j);
        n_different += memcmp(&want, &t->hc[(t->m - 1) * t->n + j], sizeof want) != 0;
    }
    for (size_t i = 0; i < t->m && step > 1; i += 3) {
        float want = chain(t, i, t->n - 1);
        n_different += memcmp(&want, &t->hc[i * t->n + t->n - 1], sizeof want) != 0;
    }
    return n_different;
}

static kvcl_status trial_alloc(kvcl_dev *dev, kvcl_cl_trial *t)
{
    void *p;
    size_t na = t->m * t->ld, nb = t->n * t->ld, nc = t->m * t->n;
    KVCL_TRY(kvcl_mem_array(dev->ctx, na + nb + nc, sizeof(float), "the SGEMM test", &p));
    t->ha = p;
    t->hb = t->ha + na;
    t->hc = t->hb + nb;
    KVCL_TRY(kvcl_buf_create(dev, na * sizeof(float), "the SGEMM test", &t->a));
    KVCL_TRY(kvcl_buf_create(dev, nb * sizeof(float), "the SGEMM test", &t->b));
    return kvcl_buf_create(dev, nc * sizeof(float), "the SGEMM test", &t->c);
}

static kvcl_status trial_run(kvcl_queue *q, kvcl_cl_trial *t, size_t *n_different)
{
    fill(t->ha, t->m, t->ld, 1);
    fill(t->hb, t->n, t->ld, 2);
    KVCL_TRY(kvcl_buf_write(q, t->a, 0, t->ha, t->m * t->ld * sizeof(float)));
    KVCL_TRY(kvcl_buf_write(q, t->b, 0, t->hb, t->n * t->ld * sizeof(float)));
    KVCL_TRY(kvcl_cl_sgemm(q, t->m, t->n, t->k, t->a, 0, t->ld, t->b, 0, t->ld, t->c, 0, t->n));
    KVCL_TRY(kvcl_buf_read(q, t->c, 0, t->hc, t->m * t->n * sizeof(float)));
    KVCL_TRY(kvcl_queue_wait(q));
    *n_different = count_differences(t);
    return KVCL_OK;
}

static kvcl_status try_shape(kvcl_queue *q, size_t m, size_t n, size_t k, size_t *n_different)
{
    kvcl_cl_trial t = {.m = m, .n = n, .k = k, .ld = k + 3};
    kvcl_status st = trial_alloc(q->dev, &t);
    if (st == KVCL_OK)
        st = trial_run(q, &t, n_different);
    kvcl_buf_free(t.a);
    kvcl_buf_free(t.b);
    kvcl_buf_free(t.c);
    kvcl_mem_free(q->dev->ctx, t.ha);
    return st;
}

/* Odd shapes for CLBlast's direct kernel and for its tiled one. */
static bool bits_are_canonical(kvcl_queue *q)
{
    static const size_t shapes[][3] = {{5, 33, 70}, {70, 90, 97}, {515, 641, 480}};
    kvcl_ctx *ctx = q->dev->ctx;
    for (size_t i = 0; i < kvcl_array_len(shapes); i++) {
        size_t n_different = 0;
        const size_t *s = shapes[i];
        if (try_shape(q, s[0], s[1], s[2], &n_different) != KVCL_OK) {
            kvcl_log_info(ctx, "%s: CLBlast not used: %s", q->dev->info.id, kvcl_last_error(ctx));
            return false;
        }
        if (n_different) {
            kvcl_log_info(ctx,
                          "%s: CLBlast not used: %zu values of SGEMM %zux%zux%zu have other "
                          "bits than the definition",
                          q->dev->info.id, n_different, s[0], s[1], s[2]);
            return false;
        }
    }
    return true;
}

/* ---- use ------------------------------------------------------------------------------------- */

static bool load(kvcl_cl_blas *b)
{
    b->lib = kvcl_os_lib_open(kvcl_os_clblast_names());
    void *sgemm = kvcl_os_lib_symbol(b->lib, "CLBlastSgemm");
    void *override = kvcl_os_lib_symbol(b->lib, "CLBlastOverrideParameters");
    if (!sgemm || !override)
        return false;
    memcpy(&b->sgemm, &sgemm, sizeof sgemm);
    memcpy(&b->override, &override, sizeof override);
    return true;
}

/* Puts a sound parameter set in place; false when CLBlast does not take it. */
static bool set_parameters(const kvcl_cl_dev *d, const kvcl_cl_blas *b)
{
    const char *names[N_TILE];
    bool large = d->caps.impl == KVCL_CL_NVIDIA && d->caps.max_group >= 256;
    memcpy(names, tile_names, sizeof names);
    return d->caps.max_group >= 256 && b->override(d->device, "Xgemm", PRECISION_SINGLE, N_TILE,
                                                   names, large ? tile_large : tile_small) == 0;
}

static bool wanted(const kvcl_cl_dev *d)
{
    const char *s = getenv("KVCL_CLBLAST");
    return !(s && strcmp(s, "off") == 0) && !(d->caps.type & CL_DEVICE_TYPE_CPU);
}

bool kvcl_cl_sgemm_ready(kvcl_queue *q)
{
    kvcl_cl_dev *d = kvcl_cl_of(q)->d;
    kvcl_ctx *ctx = d->dev->ctx;
    void *p;
    if (d->blas)
        return d->blas->ready;
    if (!wanted(d) || kvcl_mem_alloc(ctx, sizeof(kvcl_cl_blas), "CLBlast", &p) != KVCL_OK)
        return false;
    d->blas = p;
    if (!load(d->blas)) {
        kvcl_log_debug(ctx, "%s: no CLBlast library; own kernels are used", d->dev->info.id);
        return false;
    }
    if (!set_parameters(d, d->blas)) {
        kvcl_log_info(ctx, "%s: CLBlast not used: it does not take our parameters",
                      d->dev->info.id);
        return false;
    }
    uint64_t start = kvcl_os_now_ns();
    d->blas->ready = bits_are_canonical(q);
    if (d->blas->ready)
        kvcl_log_info(ctx, "%s: CLBlast's SGEMM has the canonical bits (tested in %.0f ms)",
                      d->dev->info.id, (double)(kvcl_os_now_ns() - start) * 1e-6);
    return d->blas->ready;
}

void kvcl_cl_blas_free(kvcl_cl_dev *d)
{
    /* the library stays loaded: it holds programs of its own until the process ends */
    kvcl_mem_free(d->dev->ctx, d->blas);
    d->blas = NULL;
}

kvcl_status kvcl_cl_sgemm(kvcl_queue *q, size_t m, size_t n, size_t k, const kvcl_buf *a,
                          size_t a_off, size_t a_ld, const kvcl_buf *b, size_t b_off, size_t b_ld,
                          kvcl_buf *c, size_t c_off, size_t c_ld)
{
    kvcl_cl_queue *cq = kvcl_cl_of(q);
    if (m == 0 || n == 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_cl_defer_flush(q));
    int err = cq->d->blas->sgemm(LAYOUT_ROW_MAJOR, TRANSPOSE_NO, TRANSPOSE_YES, m, n, k, 1.0f,
                                 a->impl, a_off, a_ld, b->impl, b_off, b_ld, 0.0f, c->impl, c_off,
                                 c_ld, &cq->queue, NULL);
    KVCL_CHECK(q->dev->ctx, err == 0, err <= 0 ? kvcl_cl_error_status(err) : KVCL_E_DEVICE,
               "SGEMM of CLBlast on %s: %s (%d); KVCL_CLBLAST=off uses own kernels",
               q->dev->info.id, kvcl_cl_error_name(err), err);
    return KVCL_OK;
}
