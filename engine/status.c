/* status.c - status sentences, the error sentence of a context, log messages. */
#include "ctx.h"
#include "log.h"

#include <stdio.h>

const char *kvcl_status_string(kvcl_status st)
{
    switch (st) {
#define KVCL_STATUS_CASE(name, value, sentence, exit_code) \
    case KVCL_##name:                                      \
        return sentence;
        KVCL_STATUS_LIST(KVCL_STATUS_CASE)
#undef KVCL_STATUS_CASE
    }
    return "unknown status";
}

int kvcl_status_exit_code(kvcl_status st)
{
    switch (st) {
#define KVCL_STATUS_CASE(name, value, sentence, exit_code) \
    case KVCL_##name:                                      \
        return exit_code;
        KVCL_STATUS_LIST(KVCL_STATUS_CASE)
#undef KVCL_STATUS_CASE
    }
    return 1;
}

kvcl_status(kvcl_fail)(kvcl_ctx *ctx, kvcl_status st, const char *fmt, ...)
{
    if (!ctx)
        return st;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(ctx->error, sizeof ctx->error, fmt, ap);
    va_end(ap);
    kvcl_log_debug(ctx, "%s (%s)", ctx->error, kvcl_status_string(st));
    return st;
}

const char *kvcl_last_error(const kvcl_ctx *ctx) { return ctx ? ctx->error : ""; }

void kvcl_log(kvcl_ctx *ctx, kvcl_log_level level, const char *fmt, ...)
{
    if (!ctx || !ctx->log || level > ctx->log_level)
        return;
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    ctx->log(ctx->log_user, level, line);
}
