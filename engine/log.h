/* log.h - messages to whoever embeds the library; nothing is printed by the library itself. */
#ifndef KVCL_LOG_H
#define KVCL_LOG_H

#include "base.h"

void kvcl_log(kvcl_ctx *ctx, kvcl_log_level level, const char *fmt, ...) KVCL_PRINTF(3, 4);

#define kvcl_log_warn(ctx, ...) kvcl_log((ctx), KVCL_LOG_WARN, __VA_ARGS__)
#define kvcl_log_info(ctx, ...) kvcl_log((ctx), KVCL_LOG_INFO, __VA_ARGS__)
#define kvcl_log_debug(ctx, ...) kvcl_log((ctx), KVCL_LOG_DEBUG, __VA_ARGS__)

#endif
