/* cmd_put.c - formatted text into files; scripts for gnuplot.  See cmd_put.h. */
#include "cmd_put.h"

#include <stdio.h>

kvcl_status kvcl_put(kvcl_os_out *f, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return kvcl_os_out_write(f, text, kvcl_min_size((size_t)n, sizeof text - 1));
}

void kvcl_put_quote(const char *s, char *out, size_t cap)
{
    size_t n = 0;
    for (; *s && n + 3 < cap; s++) {
        if (*s == '\'')
            out[n++] = '\'';
        out[n++] = (unsigned char)*s < 0x20 ? ' ' : *s;
    }
    out[n] = 0;
}

kvcl_status kvcl_put_plots(const kvcl_app *app, const char *dir, const char *name, kvcl_put_fn fn,
                           const void *user)
{
    char path[2048];
    kvcl_os_out *f;
    kvcl_ctx *ctx = app->ctx;
    KVCL_TRY(kvcl_os_make_folder(ctx, dir));
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    KVCL_CHECK(ctx, n > 0 && (size_t)n < sizeof path, KVCL_E_ARG, "--plots: the path is too long");
    KVCL_TRY(kvcl_os_out_create(ctx, path, &f));
    kvcl_status st = fn(user, f, dir);
    if (st != KVCL_OK) {
        kvcl_os_out_abort(f);
        return st;
    }
    KVCL_TRY(kvcl_os_out_commit(f));
    const char *const argv[] = {"gnuplot", path, NULL};
    int status = kvcl_os_run(argv);
    if (status == -1 || status == 127) {
        kvcl_app_note(app, "no pictures: gnuplot is not installed; %s draws them with it", path);
        return KVCL_OK;
    }
    KVCL_CHECK(ctx, status == 0, KVCL_E_IO, "gnuplot ended with status %d on %s", status, path);
    return KVCL_OK;
}
