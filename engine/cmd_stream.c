/* cmd_stream.c - text that leaves token by token, and progress.  See cmd_stream.h. */
#include "cmd_stream.h"

#include "os.h"

#define TERMINAL_NS UINT64_C(100000000) /* between two updates of a line */
#define SPARSE_NS UINT64_C(5000000000)  /* between two lines of a log */

void kvcl_stream_init(kvcl_stream *s, FILE *f)
{
    memset(s, 0, sizeof *s);
    s->file = f;
    s->last = '\n';
}

static void emit(kvcl_stream *s, const char *bytes, size_t n)
{
    fwrite(bytes, 1, n, s->file);
    s->last = bytes[n - 1];
}

/* Writes what is decided of tail; keeps a sequence that may still become valid. */
static void drain(kvcl_stream *s)
{
    while (s->n_tail > 0) {
        int step = kvcl_utf8_step(s->tail, s->n_tail);
        if (step < 0)
            return;
        size_t used = step > 0 ? (size_t)step : 1;
        if (step > 0)
            emit(s, s->tail, used);
        else
            emit(s, "\xef\xbf\xbd", 3);
        s->n_tail -= used;
        memmove(s->tail, s->tail + used, s->n_tail);
    }
}

void kvcl_stream_put(kvcl_stream *s, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s->tail[s->n_tail++] = bytes[i];
        drain(s);
    }
    fflush(s->file);
}

void kvcl_stream_end(kvcl_stream *s)
{
    if (s->n_tail > 0)
        emit(s, "\xef\xbf\xbd", 3);
    s->n_tail = 0;
    fflush(s->file);
}

void kvcl_progress_init(kvcl_progress *p, const kvcl_app *app, const char *what, const char *unit)
{
    *p = (kvcl_progress){.app = app, .what = what, .unit = unit};
    p->begin_ns = p->last_ns = kvcl_os_now_ns();
}

void kvcl_progress_show(kvcl_progress *p, uint64_t done, uint64_t total)
{
    if (p->app->common->quiet || total == 0)
        return;
    bool live = p->app->err_tty;
    uint64_t now = kvcl_os_now_ns();
    if (now - p->last_ns < (live ? TERMINAL_NS : SPARSE_NS))
        return;
    p->last_ns = now;
    double percent = 100.0 * (double)done / (double)total;
    double seconds = kvcl_seconds(now - p->begin_ns);
    double left = done ? seconds * (double)(total - done) / (double)done : 0;
    fprintf(stderr, "%skvcl: %s %llu of %llu %s (%.0f %%, %.0f s left)%s", live ? "\r" : "",
            p->what, (unsigned long long)done, (unsigned long long)total, p->unit, percent, left,
            live ? "\033[K" : "\n");
    fflush(stderr);
    p->shown = live;
}

void kvcl_progress_end(kvcl_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}

bool kvcl_progress_prefill(void *user, uint32_t n_done, uint32_t n_total)
{
    kvcl_progress *p = user;
    kvcl_progress_show(p, p->before + n_done, p->total ? p->total : n_total);
    return !kvcl_interrupted();
}
