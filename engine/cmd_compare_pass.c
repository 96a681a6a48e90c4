/* cmd_compare_pass.c - one pass of kvcl compare over one device.  See cmd_compare.h. */
#include "cmd_compare.h"
#include "cmd_stream.h"

#include "f16.h"
#include "mem.h"
#include "os.h"

#include <math.h>
#include <stdlib.h>

#define MEMORY_LIMIT ((size_t)1 << 30) /* larger references go to a file */
#define SLICE 64                       /* positions per call, at least */

/* ---- the reference's logits ---------------------------------------------------------------- */

kvcl_status kvcl_ref_logits_create(kvcl_ctx *ctx, size_t n_rows, size_t n_vocab,
                                   kvcl_ref_logits *out)
{
    size_t bytes;
    void *p;
    *out = (kvcl_ref_logits){.ctx = ctx, .n_vocab = n_vocab, .n_rows = n_rows};
    KVCL_CHECK(ctx, kvcl_mul_size(n_rows, n_vocab, &bytes) && kvcl_mul_size(bytes, 4, &bytes),
               KVCL_E_MEM,
               "%zu positions of %zu logits are too many; take fewer with "
               "--limit-tokens",
               n_rows, n_vocab);
    if (bytes <= MEMORY_LIMIT) {
        KVCL_TRY(
            kvcl_mem_alloc(ctx, bytes, "the reference's logits (--limit-tokens takes fewer)", &p));
        out->memory = p;
        return KVCL_OK;
    }
    KVCL_TRY(kvcl_mem_array(ctx, n_vocab, sizeof(float), "a row of logits", &p));
    out->row = p;
    out->file = tmpfile();
    if (out->file)
        return KVCL_OK;
    kvcl_ref_logits_free(out);
    return kvcl_fail(ctx, KVCL_E_IO,
                     "no temporary file for the reference's logits; take fewer tokens with "
                     "--limit-tokens");
}

void kvcl_ref_logits_free(kvcl_ref_logits *r)
{
    kvcl_mem_free(r->ctx, r->memory);
    kvcl_mem_free(r->ctx, r->row);
    if (r->file)
        fclose(r->file);
    r->memory = r->row = NULL;
    r->file = NULL;
}

kvcl_status kvcl_ref_logits_put(kvcl_ref_logits *r, size_t row, const float *logits, size_t n)
{
    if (r->memory) {
        memcpy(r->memory + row * r->n_vocab, logits, n * r->n_vocab * sizeof(float));
        return KVCL_OK;
    }
    KVCL_CHECK(r->ctx, fwrite(logits, sizeof(float), n * r->n_vocab, r->file) == n * r->n_vocab,
               KVCL_E_IO,
               "the reference's logits do not fit on the disk; take fewer tokens with "
               "--limit-tokens");
    return KVCL_OK;
}

kvcl_status kvcl_ref_logits_get(kvcl_ref_logits *r, size_t row, const float **out)
{
    if (r->memory) {
        *out = r->memory + row * r->n_vocab;
        return KVCL_OK;
    }
    if (row == 0)
        rewind(r->file);
    KVCL_CHECK(r->ctx, fread(r->row, sizeof(float), r->n_vocab, r->file) == r->n_vocab, KVCL_E_IO,
               "the temporary file with the reference's logits cannot be read");
    *out = r->row;
    return KVCL_OK;
}

/* ---- comparing ----------------------------------------------------------------------------- */

uint32_t kvcl_ulp_distance(float a, float b)
{
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? 0 : UINT32_MAX;
    /* the order of floats as the order of integers */
    int64_t i = (int64_t)kvcl_f32_bits(a), j = (int64_t)kvcl_f32_bits(b);
    i = i >= INT64_C(0x80000000) ? INT64_C(0x80000000) - i : i;
    j = j >= INT64_C(0x80000000) ? INT64_C(0x80000000) - j : j;
    return (uint32_t)(i > j ? i - j : j - i);
}

static void compare_row(const float *ref, const float *got, size_t n, kvcl_compare_result *r)
{
    r->n_values += n;
    if (memcmp(ref, got, n * sizeof(float)) == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if (kvcl_f32_bits(ref[i]) == kvcl_f32_bits(got[i]))
            continue;
        r->n_differing++;
        uint64_t ulp = kvcl_ulp_distance(ref[i], got[i]);
        r->max_ulp = ulp > r->max_ulp ? ulp : r->max_ulp;
    }
}

static int32_t argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

/* ---- a pass -------------------------------------------------------------------------------- */

typedef struct pass {
    kvcl_compare_input *in;
    kvcl_compare_result *r;
    kvcl_app app;
    float *logits; /* of one slice */
    uint32_t slice;
    bool as_reference;
    kvcl_progress progress;
} pass;

/* The number behind '@', 0 without one, -1 when it is none or too large. */
static int64_t threads_of(const char *which)
{
    const char *at = strchr(which, '@');
    char *end;
    if (!at)
        return 0;
    long n = strtol(at + 1, &end, 10);
    return end == at + 1 || *end || n < 1 || n > 1024 ? -1 : n;
}

kvcl_status kvcl_compare_check(kvcl_ctx *ctx, const char *which)
{
    int64_t n = threads_of(which);
    KVCL_CHECK(ctx, n >= 0, KVCL_E_ARG, "'%s': behind @ stands a number of threads, 1..1024",
               which);
    KVCL_CHECK(ctx, n == 0 || strncmp(which, "cpu", 3) == 0, KVCL_E_ARG,
               "'%s': only the program's own CPU devices take threads behind @; OpenCL's take "
               "them from their driver's environment (POCL_MAX_PTHREAD_COUNT)",
               which);
    return KVCL_OK;
}

static kvcl_status open_session(pass *p, kvcl_model_opts *o)
{
    const kvcl_compare_input *in = p->in;
    kvcl_cache_wish wish = *in->cache;
    if (p->as_reference) /* scalar twins everywhere, wherever tiers are to be */
        for (size_t i = 0; i < KVCL_MAX_TIERS; i++)
            wish.tier[i].device[0] = 0;
    KVCL_TRY(kvcl_app_open_device(&p->app, o, NULL));
    p->r->device = *kvcl_device_get_info(p->app.dev);
    if (strncmp(p->r->which, "cpu", 3) != 0) /* an index or a part of a name: tell the id */
        memcpy(p->r->which, p->r->device.id, sizeof p->r->which);
    kvcl_session_options s = kvcl_app_session_options(o);
    s.n_ctx = in->n_prompt + in->n_greedy;
    if (p->r->batch)
        s.n_batch = p->r->batch;
    wish.n_prompt = in->n_prompt;
    KVCL_TRY(kvcl_app_open_wished(&p->app, &wish, &s));
    memcpy(p->r->cache, p->app.cache_words, sizeof p->r->cache);
    /* a tiered cache codes older tokens between calls: one call for the whole prompt */
    p->slice = s.n_tiers > 1 ? in->n_prompt : kvcl_div_up(SLICE, s.n_batch) * s.n_batch;
    p->slice = kvcl_min_u32(p->slice, in->n_prompt);
    void *m;
    KVCL_TRY(
        kvcl_mem_array(p->app.ctx, (size_t)p->slice * in->n_vocab, sizeof(float), "logits", &m));
    p->logits = m;
    return KVCL_OK;
}

/* Stores or compares n rows. */
static kvcl_status use_rows(pass *p, size_t row, size_t n)
{
    kvcl_ref_logits *ref = &p->in->ref;
    if (p->as_reference)
        return kvcl_ref_logits_put(ref, row, p->logits, n);
    for (size_t i = 0; i < n; i++) {
        const float *want;
        KVCL_TRY(kvcl_ref_logits_get(ref, row + i, &want));
        compare_row(want, p->logits + i * p->in->n_vocab, p->in->n_vocab, p->r);
    }
    return KVCL_OK;
}

static kvcl_status prefill(pass *p, const float **last)
{
    const kvcl_compare_input *in = p->in;
    uint64_t ns = 0;
    for (uint32_t i = 0; i < in->n_prompt;) {
        uint32_t n = kvcl_min_u32(p->slice, in->n_prompt - i);
        uint64_t begin = kvcl_os_now_ns();
        KVCL_TRY(kvcl_session_prefill(p->app.session, in->prompt + i, n, n, p->logits, NULL, NULL));
        ns += kvcl_os_now_ns() - begin;
        KVCL_TRY(use_rows(p, i, n));
        *last = p->logits + (size_t)(n - 1) * in->n_vocab;
        i += n;
        kvcl_progress_show(&p->progress, i, in->n_prompt + in->n_greedy);
        if (kvcl_interrupted())
            return KVCL_E_INTERRUPTED;
    }
    p->r->prefill_tps = in->n_prompt / kvcl_seconds(ns + 1);
    return KVCL_OK;
}

/* The reference's tokens are fed to every device, so that logits stay comparable behind the first
 * difference. */
static kvcl_status greedy(pass *p, const float *last)
{
    const kvcl_compare_input *in = p->in;
    uint64_t ns = 0;
    for (uint32_t i = 0; i < in->n_greedy; i++) {
        int32_t mine = argmax(last, in->n_vocab);
        if (p->as_reference)
            in->greedy[i] = mine;
        else if (mine != in->greedy[i] && p->r->first_diverging < 0)
            p->r->first_diverging = i;
        uint64_t begin = kvcl_os_now_ns();
        KVCL_TRY(kvcl_session_decode(p->app.session, in->greedy[i], p->logits));
        ns += kvcl_os_now_ns() - begin;
        KVCL_TRY(use_rows(p, in->n_prompt + i, 1));
        last = p->logits;
        kvcl_progress_show(&p->progress, in->n_prompt + i, in->n_prompt + in->n_greedy);
        if (kvcl_interrupted())
            return KVCL_E_INTERRUPTED;
    }
    p->r->decode_tps = in->n_greedy / kvcl_seconds(ns + 1);
    return KVCL_OK;
}

static kvcl_status run_pass(pass *p, kvcl_model_opts *o)
{
    KVCL_TRY(open_session(p, o));
    const float *last = p->logits;
    KVCL_TRY(prefill(p, &last));
    return greedy(p, last);
}

kvcl_status kvcl_compare_pass(kvcl_compare_input *in, bool as_reference, kvcl_compare_result *r)
{
    pass p = {.in = in, .r = r, .as_reference = as_reference};
    char which[64];
    kvcl_model_opts o = *in->model;
    int code;
    r->first_diverging = -1;
    snprintf(which, sizeof which, "%.*s", (int)strcspn(r->which, "@"), r->which);
    o.device = which;
    if (threads_of(r->which) > 0)
        o.n_threads = threads_of(r->which);
    o.allow_inexact = true; /* measuring a device is no use of it */
    if (!kvcl_app_open(&p.app, in->common, &o, NULL, &code)) {
        r->status = KVCL_E_MEM;
        return KVCL_OK;
    }
    kvcl_progress_init(&p.progress, &p.app, r->which, "tokens");
    r->status = run_pass(&p, &o);
    kvcl_progress_end(&p.progress);
    if (r->status != KVCL_OK) {
        /* the reference's logits belong to another context */
        const char *why = kvcl_last_error(p.app.ctx);
        why = *why ? why : kvcl_last_error(in->ref.ctx);
        snprintf(r->error, sizeof r->error, "%s", *why ? why : kvcl_status_string(r->status));
    }
    kvcl_mem_free(p.app.ctx, p.logits);
    kvcl_app_close(&p.app);
    return r->status == KVCL_E_INTERRUPTED ? KVCL_E_INTERRUPTED : KVCL_OK;
}
