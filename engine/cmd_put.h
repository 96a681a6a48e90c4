/* cmd_put.h - formatted text into files that appear complete or not at all; scripts for gnuplot. */
#ifndef KVCL_CMD_PUT_H
#define KVCL_CMD_PUT_H

#include "cmd.h"
#include "os.h"

/* As fprintf; up to 2047 bytes. */
kvcl_status kvcl_put(kvcl_os_out *f, const char *fmt, ...) KVCL_PRINTF(2, 3);
/* A string for gnuplot's single quotes, where a quote is written twice; cut to cap. */
void kvcl_put_quote(const char *s, char *out, size_t cap);
/* Writes DIR/NAME by fn and runs gnuplot on it; without gnuplot a note says so. */
typedef kvcl_status (*kvcl_put_fn)(const void *user, kvcl_os_out *f, const char *dir);
kvcl_status kvcl_put_plots(const kvcl_app *app, const char *dir, const char *name, kvcl_put_fn fn,
                           const void *user);

#endif
