/* cmd_stream.h - text that leaves token by token, and the progress of a long prefill. */
#ifndef KVCL_CMD_STREAM_H
#define KVCL_CMD_STREAM_H

#include "cmd.h"

/* Bytes of tokens go to a stream; a UTF-8 sequence leaves whole or, when it turns out invalid, as
 * U+FFFD. */
typedef struct kvcl_stream {
    FILE *file;
    char tail[4]; /* the begin of a sequence */
    size_t n_tail;
    char last; /* byte written last */
} kvcl_stream;

void kvcl_stream_init(kvcl_stream *s, FILE *f);
/* Writes and flushes. */
void kvcl_stream_put(kvcl_stream *s, const char *bytes, size_t n);
/* A sequence that will not be completed any more leaves as U+FFFD. */
void kvcl_stream_end(kvcl_stream *s);

/* Progress on standard error: a line that is rewritten on a terminal, else a line now and then. */
typedef struct kvcl_progress {
    const kvcl_app *app;
    const char *what;       /* "prefill" */
    const char *unit;       /* "tokens" */
    uint64_t before, total; /* of a prefill in several calls: tokens of earlier ones, of all */
    uint64_t begin_ns, last_ns;
    bool shown;
} kvcl_progress;

void kvcl_progress_init(kvcl_progress *p, const kvcl_app *app, const char *what, const char *unit);
void kvcl_progress_show(kvcl_progress *p, uint64_t done, uint64_t total);
/* Wipes the line of a terminal. */
void kvcl_progress_end(kvcl_progress *p);
/* A kvcl_prefill_fn with a kvcl_progress as user; stops on Ctrl-C. */
bool kvcl_progress_prefill(void *user, uint32_t n_done, uint32_t n_total);

#endif
