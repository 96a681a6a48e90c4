/* cl_program.c - builds programs from the embedded source at first use.  See cl_program.h. */
#include "cl_program.h"

#include "log.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_SOURCE_BYTES ((size_t)1 << 20)

static const char *const stem_files[KVCL_CL_N_STEMS] = {
#define KVCL_CL_STEM_FILE(stem) [KVCL_CL_STEM_##stem] = #stem ".cl",
    KVCL_CL_STEMS(KVCL_CL_STEM_FILE)
#undef KVCL_CL_STEM_FILE
};

/* Files that come before a stem's own. */
static const char *const files_before[KVCL_CL_N_STEMS][KVCL_CL_BEFORE] = {
    [KVCL_CL_STEM_attn_warp] = {"attn.cl"},
    [KVCL_CL_STEM_attn_quant] = {"attn_rows.cl"},
    [KVCL_CL_STEM_matvec] = {"ints.cl"},
    [KVCL_CL_STEM_attn_quant_vec] = {"ints.cl", "attn_rows_vec.cl"},
    [KVCL_CL_STEM_attn_quant_mma] = {"mma.cl"},
    [KVCL_CL_STEM_block] = {"block_pages.cl"},
    [KVCL_CL_STEM_block_vec] = {"block_pages.cl"},
    [KVCL_CL_STEM_quant_vec] = {"quant_pages.cl"},
    [KVCL_CL_STEM_spectral] = {"spectral_pages.cl"},
    [KVCL_CL_STEM_spectral_vec] = {"ints.cl", "quant_pages.cl", "spectral_pages.cl",
                                   "spectral_vec_pages.cl"},
    [KVCL_CL_STEM_attn_spectral] = {"attn_rows.cl", "spectral_pages.cl", "attn_spectral_rows.cl"},
    [KVCL_CL_STEM_attn_spectral_vec] = {"ints.cl", "attn_rows_vec.cl", "spectral_pages.cl",
                                        "spectral_vec_pages.cl"},
    [KVCL_CL_STEM_attn_spectral_mma] = {"attn_rows.cl", "spectral_pages.cl",
                                        "attn_spectral_rows.cl", "mma.cl"},
    [KVCL_CL_STEM_holo] = {"attn_rows.cl", "block_pages.cl", "holo_pages.cl"},
    [KVCL_CL_STEM_defer] = {"defer.h", "rope.cl", "attn.cl", "defer_base.cl", "defer_attn.cl",
                            "defer_matvec.cl"},
};

/* ---- source ---------------------------------------------------------------------------------- */

static void text_free(kvcl_ctx *ctx, kvcl_cl_text *t)
{
    for (size_t i = 0; i < KVCL_CL_PIECES; i++)
        kvcl_mem_free(ctx, t->owned[i]);
}

/* The embedded file, or in development the one in KVCL_CL_DIR. */
static kvcl_status add_file(kvcl_ctx *ctx, kvcl_cl_text *t, size_t i, const char *name)
{
    const char *dir = getenv("KVCL_CL_DIR");
    if (dir && *dir) {
        char path[4096];
        int n = snprintf(path, sizeof path, "%s/%s", dir, name);
        KVCL_CHECK(ctx, n > 0 && (size_t)n < sizeof path, KVCL_E_ARG,
                   "KVCL_CL_DIR: the path is too long");
        KVCL_TRY(kvcl_os_read_file(ctx, path, MAX_SOURCE_BYTES, &t->owned[i], &t->bytes[i]));
        t->piece[i] = t->owned[i];
        return KVCL_OK;
    }
    for (const kvcl_cl_source *s = kvcl_cl_sources; s->name; s++)
        if (strcmp(s->name, name) == 0) {
            t->piece[i] = (const char *)s->text;
            t->bytes[i] = s->bytes;
            return KVCL_OK;
        }
    return kvcl_fail(ctx, KVCL_E_BUILD, "kernel file %s is not part of this build; build it anew",
                     name);
}

static kvcl_status make_text(const kvcl_cl_dev *d, kvcl_cl_stem stem, uint32_t spec,
                             uint32_t features, kvcl_cl_text *t)
{
    kvcl_ctx *ctx = d->dev->ctx;
    kvcl_status st;
    memset(t, 0, sizeof *t);
    /* no warnings: PoCL prints them on the program's stderr.  Developers get them. */
    const char *dir = getenv("KVCL_CL_DIR");
    t->options = dir && *dir ? "-cl-std=CL1.2" : "-cl-std=CL1.2 -w";
    int n = snprintf(t->defines, sizeof t->defines,
                     "#define KVCL_SPEC %u\n"
                     "#define KVCL_VECTOR_SHAPE %d\n"
                     "#define KVCL_PTX %d\n"
                     "#define KVCL_SUBGROUPS %d\n"
                     "#define KVCL_NVIDIA %d\n"
                     "#define KVCL_X86 %d\n"
                     "#line 1\n",
                     (unsigned)spec, d->caps.vector_shape, (features & KVCL_CL_PTX) != 0,
                     (features & KVCL_CL_SUBGROUPS) != 0, d->caps.impl == KVCL_CL_NVIDIA,
                     (features & KVCL_CL_X86) != 0);
    t->piece[0] = t->defines;
    t->bytes[0] = (size_t)n;
    KVCL_TRY_GOTO(add_file(ctx, t, 1, "shared.h"));
    KVCL_TRY_GOTO(add_file(ctx, t, 2, "prelude.cl"));
    KVCL_TRY_GOTO(add_file(ctx, t, 3, "pages.cl"));
    for (size_t i = 0; i < KVCL_CL_BEFORE; i++) {
        t->piece[4 + i] = "";
        if (files_before[stem][i])
            KVCL_TRY_GOTO(add_file(ctx, t, 4 + i, files_before[stem][i]));
    }
    KVCL_TRY_GOTO(add_file(ctx, t, KVCL_CL_PIECES - 1, stem_files[stem]));
    return KVCL_OK;
fail:
    text_free(ctx, t);
    return st;
}

/* ---- build ----------------------------------------------------------------------------------- */

/* The first line that speaks of an error, "" when none does; at most cap - 1 bytes. */
static void pick_line(const char *log, char *out, size_t cap)
{
    out[0] = 0;
    for (const char *p = log; *p; p += strcspn(p, "\n"), p += *p != 0) {
        size_t n = strcspn(p, "\n");
        const char *hit = strstr(p, "rror");
        if (!hit || hit >= p + n)
            continue;
        snprintf(out, cap, "%.*s", (int)(n < cap ? n : cap - 1), p);
        return;
    }
}

/* The build log into the debug log; its telling line into `line`. */
static void report_log(const kvcl_cl_dev *d, cl_program program, const char *what, char *line,
                       size_t line_cap)
{
    kvcl_ctx *ctx = d->dev->ctx;
    void *p;
    size_t n = 0;
    line[0] = 0;
    if (d->cl.GetProgramBuildInfo(program, d->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) !=
            CL_SUCCESS ||
        n < 2 || kvcl_mem_alloc(ctx, n + 1, "a build log", &p) != KVCL_OK)
        return;
    char *log = p;
    if (d->cl.GetProgramBuildInfo(program, d->device, CL_PROGRAM_BUILD_LOG, n, log, NULL) ==
            CL_SUCCESS &&
        strspn(log, " \n\t") != strlen(log)) {
        kvcl_log_debug(ctx, "%s: build log of %s:\n%s", d->dev->info.id, what, log);
        pick_line(log, line, line_cap);
    }
    kvcl_mem_free(ctx, log);
}

cl_int kvcl_cl_program_try(const kvcl_cl_dev *d, cl_program program)
{
    cl_kernel kernels[64];
    cl_uint n = 0;
    cl_int err = d->cl.CreateKernelsInProgram(program, kvcl_array_len(kernels), kernels, &n);
    if (err != CL_SUCCESS)
        return err;
    for (cl_uint i = 0; i < n && i < kvcl_array_len(kernels); i++)
        d->cl.ReleaseKernel(kernels[i]);
    return n ? CL_SUCCESS : CL_INVALID_PROGRAM_EXECUTABLE;
}

static kvcl_status build_text(kvcl_cl_dev *d, const kvcl_cl_text *t, const char *what,
                              cl_program *out)
{
    kvcl_ctx *ctx = d->dev->ctx;
    char line[200];
    cl_int err;
    const char *pieces[KVCL_CL_PIECES];
    memcpy(pieces, t->piece, sizeof pieces);
    cl_program program =
        d->cl.CreateProgramWithSource(d->context, KVCL_CL_PIECES, pieces, t->bytes, &err);
    KVCL_CHECK(ctx, err == CL_SUCCESS, kvcl_cl_error_status(err), "%s on %s: %s (%d)", what,
               d->dev->info.id, kvcl_cl_error_name(err), (int)err);
    err = d->cl.BuildProgram(program, 1, &d->device, t->options, NULL, NULL);
    report_log(d, program, what, line, sizeof line);
    if (err == CL_SUCCESS)
        err = kvcl_cl_program_try(d, program);
    if (err != CL_SUCCESS) {
        d->cl.ReleaseProgram(program);
        return kvcl_fail(ctx, KVCL_E_BUILD,
                         "%s on %s does not build: %s (%d)%s%s; update the driver '%s', or take "
                         "another device (--device)",
                         what, d->dev->info.id, kvcl_cl_error_name(err), (int)err,
                         *line ? ": " : "", line, d->caps.driver_version);
    }
    *out = program;
    return KVCL_OK;
}

static kvcl_status build(kvcl_cl_dev *d, kvcl_cl_stem stem, uint32_t spec, uint32_t features,
                         cl_program *out)
{
    kvcl_cl_text t;
    uint64_t start = kvcl_os_now_ns();
    KVCL_TRY(make_text(d, stem, spec, features, &t));
    cl_program program = kvcl_cl_cache_load(d, &t);
    bool cached = program != NULL;
    kvcl_status st = KVCL_OK;
    if (!cached) {
        st = build_text(d, &t, stem_files[stem], &program);
        if (st == KVCL_OK)
            kvcl_cl_cache_store(d, &t, program);
    }
    text_free(d->dev->ctx, &t);
    if (st != KVCL_OK)
        return st;
    kvcl_log_debug(d->dev->ctx, "%s: %s (spec %u) %s in %.1f ms", d->dev->info.id, stem_files[stem],
                   (unsigned)spec, cached ? "loaded" : "built",
                   (double)(kvcl_os_now_ns() - start) * 1e-6);
    *out = program;
    return KVCL_OK;
}

/* With the device's features; where that fails, as the base variant. */
static kvcl_status build_or_fall_back(kvcl_cl_dev *d, kvcl_cl_stem stem, uint32_t spec,
                                      kvcl_cl_program *out)
{
    uint32_t features = d->caps.features;
    kvcl_status st = build(d, stem, spec, features, &out->program);
    if (st == KVCL_E_BUILD && features) {
        kvcl_log_warn(d->dev->ctx, "%s; using the base variant of %s", kvcl_last_error(d->dev->ctx),
                      stem_files[stem]);
        features = 0;
        st = build(d, stem, spec, features, &out->program);
    }
    out->stem = stem;
    out->spec = spec;
    out->features = features;
    return st;
}

/* ---- the device's list ----------------------------------------------------------------------- */

static kvcl_status get_locked(kvcl_cl_dev *d, kvcl_cl_stem stem, uint32_t spec,
                              kvcl_cl_program *out)
{
    for (uint32_t i = 0; i < d->n_programs; i++)
        if (d->programs[i].stem == stem && d->programs[i].spec == spec) {
            *out = d->programs[i];
            return KVCL_OK;
        }
    KVCL_CHECK(d->dev->ctx, d->n_programs < KVCL_CL_MAX_PROGRAMS, KVCL_E_UNSUPPORTED,
               "%s: more than %d programs in use", d->dev->info.id, KVCL_CL_MAX_PROGRAMS);
    kvcl_cl_program *p = &d->programs[d->n_programs];
    KVCL_TRY(build_or_fall_back(d, stem, spec, p));
    d->n_programs++;
    *out = *p;
    return KVCL_OK;
}

kvcl_status kvcl_cl_program_get(kvcl_cl_dev *d, kvcl_cl_stem stem, uint32_t spec,
                                kvcl_cl_program *out)
{
    while (atomic_flag_test_and_set_explicit(&d->build_lock, memory_order_acquire))
        kvcl_os_yield();
    kvcl_status st = get_locked(d, stem, spec, out);
    atomic_flag_clear_explicit(&d->build_lock, memory_order_release);
    return st;
}

void kvcl_cl_programs_free(kvcl_cl_dev *d)
{
    for (uint32_t i = 0; i < d->n_programs; i++)
        d->cl.ReleaseProgram(d->programs[i].program);
    d->n_programs = 0;
}
