/* cmd_eval_plot.c - pictures of kvcl eval by gnuplot.  See cmd_eval.h.
 *
 * Labels are placed here: each beside its point where it covers no other point or label. */
#include "cmd_eval.h"
#include "cmd_put.h"

#include <math.h>
#include <stdio.h>

#define WIDTH 1000.0 /* of the picture, in pixels; the plot lies between the margins */
#define HEIGHT 640.0
#define LEFT 0.10
#define RIGHT 0.97
#define BOTTOM 0.12
#define TOP 0.92
#define PLOT_W ((RIGHT - LEFT) * WIDTH)
#define PLOT_H ((TOP - BOTTOM) * HEIGHT)
#define CHAR_W 7.6 /* of a label's letters, about */
#define CHAR_H 16.0
#define GAP 8.0 /* between a point and its label */

typedef struct plot_point {
    const char *name;
    double x, y;   /* as measured */
    double px, py; /* pixels from the plot's lower left corner */
} plot_point;

typedef struct plot_box {
    double x0, y0, x1, y1;
} plot_box;

typedef struct plot {
    const char *file, *title, *y_label;
    bool log_y;
    size_t n;
    plot_point point[KVCL_EVAL_CONFIGS];
    plot_box box[KVCL_EVAL_CONFIGS]; /* of labels placed so far */
    double x_max, y_min, y_max;
} plot;

/* ---- geometry ------------------------------------------------------------------------------ */

static void set_ranges(plot *p)
{
    double low = p->log_y ? HUGE_VAL : 0, high = 0, x = 0;
    for (size_t i = 0; i < p->n; i++) {
        low = fmin(low, p->point[i].y);
        high = fmax(high, p->point[i].y);
        x = fmax(x, p->point[i].x);
    }
    p->x_max = ceil(x + 0.5);
    p->y_min = p->log_y ? pow(10, floor(log10(low) - 0.1)) : 0;
    p->y_max = p->log_y ? pow(10, ceil(log10(high) + 0.1)) : high * 1.15;
    for (size_t i = 0; i < p->n; i++) {
        plot_point *q = &p->point[i];
        double y = p->log_y ? log10(q->y / p->y_min) / log10(p->y_max / p->y_min)
                            : (q->y - p->y_min) / (p->y_max - p->y_min);
        q->px = q->x / p->x_max * PLOT_W;
        q->py = y * PLOT_H;
    }
}

static bool overlap(const plot_box *a, const plot_box *b)
{
    return a->x0 < b->x1 && b->x0 < a->x1 && a->y0 < b->y1 && b->y0 < a->y1;
}

/* Points and labels that a label would cover. */
static unsigned covered(const plot *p, const plot_box *box, size_t n_placed)
{
    unsigned n = 0;
    if (box->x0 < 0 || box->x1 > PLOT_W || box->y0 < 0 || box->y1 > PLOT_H)
        n += 100;
    for (size_t i = 0; i < n_placed; i++)
        n += overlap(box, &p->box[i]);
    for (size_t i = 0; i < p->n; i++) {
        const plot_point *q = &p->point[i];
        plot_box dot = {q->px - 5, q->py - 5, q->px + 5, q->py + 5};
        n += overlap(box, &dot);
    }
    return n;
}

static void place_label(plot *p, size_t i)
{
    /* right, left, above, below, then the corners; steps of a box and the gap */
    static const double at[][2] = {{1, 0},   {-1, 0}, {0, 1},  {0, -1}, {1, 1},   {1, -1}, {-1, 1},
                                   {-1, -1}, {1, 2},  {1, -2}, {-1, 2}, {-1, -2}, {0, 2},  {0, -2}};
    const plot_point *q = &p->point[i];
    const double w = CHAR_W * (double)strlen(q->name);
    unsigned best = UINT32_MAX;
    for (size_t k = 0; k < kvcl_array_len(at) && best > 0; k++) {
        double x = q->px + at[k][0] * (GAP + w / 2), y = q->py + at[k][1] * (GAP + CHAR_H / 2);
        plot_box box = {x - w / 2, y - CHAR_H / 2, x + w / 2, y + CHAR_H / 2};
        unsigned n = covered(p, &box, i);
        if (n < best) {
            best = n;
            p->box[i] = box;
        }
    }
}

/* ---- the script ---------------------------------------------------------------------------- */

static kvcl_status put_axes(kvcl_os_out *f, const plot *p)
{
    KVCL_TRY(kvcl_put(f, "\nset title '%s'\nset ylabel '%s'\n", p->title, p->y_label));
    KVCL_TRY(kvcl_put(f, p->log_y ? "set logscale y 10\nset format y '10^{%%L}'\n"
                                  : "unset logscale y\nset format y '%%g'\n"));
    return kvcl_put(f, "set xrange [0:%g]\nset yrange [%g:%g]\nunset label\n", p->x_max, p->y_min,
                    p->y_max);
}

static kvcl_status put_plot(kvcl_os_out *f, plot *p)
{
    char name[2 * KVCL_EVAL_NAME];
    if (p->n == 0)
        return KVCL_OK;
    set_ranges(p);
    KVCL_TRY(put_axes(f, p));
    for (size_t i = 0; i < p->n; i++) {
        place_label(p, i);
        kvcl_put_quote(p->point[i].name, name, sizeof name);
        KVCL_TRY(kvcl_put(f, "set label %zu '%s' at graph %.4f, graph %.4f center noenhanced\n",
                          i + 1, name, (p->box[i].x0 + p->box[i].x1) / 2 / PLOT_W,
                          (p->box[i].y0 + p->box[i].y1) / 2 / PLOT_H));
    }
    KVCL_TRY(kvcl_put(f, "$%s << END\n", p->file));
    for (size_t i = 0; i < p->n; i++)
        KVCL_TRY(kvcl_put(f, "%.9g %.9g\n", p->point[i].x, p->point[i].y));
    KVCL_TRY(kvcl_put(f, "END\n"));
    for (int svg = 0; svg < 2; svg++) {
        KVCL_TRY(kvcl_put(f, "set terminal %s\nset output dir.'/%s.%s'\n",
                          svg ? "svg size 1000,640 font 'sans,13' background rgb 'white'"
                              : "pngcairo size 1000,640 font 'sans,10'",
                          p->file, svg ? "svg" : "png"));
        KVCL_TRY(kvcl_put(f,
                          "plot $%s using 1:2 with points pointtype 7 pointsize 1.1 linecolor rgb "
                          "'#0060a0' notitle\n",
                          p->file));
    }
    return kvcl_put(f, "set output\n");
}

static kvcl_status put_head(const kvcl_eval *e, kvcl_os_out *f, const char *dir)
{
    char quoted[2048];
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    kvcl_put_quote(dir, quoted, sizeof quoted);
    KVCL_TRY(kvcl_put(f,
                      "# Pictures of a run of 'kvcl eval'; for another folder:\n"
                      "#   gnuplot -e \"dir='FOLDER'\" eval.gp\n"
                      "if (!exists('dir')) dir = '%s'\n",
                      quoted));
    KVCL_TRY(kvcl_put(f, "set lmargin at screen %g\nset rmargin at screen %g\n", LEFT, RIGHT));
    KVCL_TRY(kvcl_put(f, "set bmargin at screen %g\nset tmargin at screen %g\n", BOTTOM, TOP));
    kvcl_put_quote(m->name[0] ? m->name : m->arch, quoted, sizeof quoted);
    KVCL_TRY(
        kvcl_put(f,
                 "set grid linetype 1 linecolor rgb '#d8d8d8'\nset border linecolor rgb '#404040'\n"
                 "set xlabel 'bits per element of the coded tokens'\nset xtics 1\n"
                 "model = '%s'\n",
                 quoted));
    return kvcl_put(f, "conditions = 'last %u of %u tokens, %u places'\n", e->n_positions, e->n_ctx,
                    e->n_places);
}

/* ---- the pictures -------------------------------------------------------------------------- */

static void add_point(plot *p, const char *name, double x, double y)
{
    p->point[p->n++] = (plot_point){.name = name, .x = x, .y = y};
}

typedef struct pictures {
    const kvcl_eval *e;
    const kvcl_eval_sum *sums;
} pictures;

static kvcl_status write_script(const void *user, kvcl_os_out *f, const char *dir)
{
    const kvcl_eval *e = ((const pictures *)user)->e;
    const kvcl_eval_sum *sums = ((const pictures *)user)->sums;
    plot quality = {.file = "quality",
                    .title = "'.model.': quality against size ('.conditions.')",
                    .y_label = "next-token KL against the exact cache, mean, nats",
                    .log_y = true};
    plot speed = {.file = "speed",
                  .title = "'.model.': speed against size ('.conditions.')",
                  .y_label = "tokens per second, decoding"};
    for (size_t c = 0; c < e->configs.n; c++) {
        const kvcl_eval_sum *s = &sums[c];
        const char *name = e->configs.list[c].name;
        if (s->n_places == 0)
            continue;
        if (s->bits < 16 && s->kl_mean > 0) /* raw tiers differ by rounding alone */
            add_point(&quality, name, s->bits, s->kl_mean);
        add_point(&speed, name, s->bits, 1 / s->seconds_per_token);
    }
    KVCL_TRY(put_head(e, f, dir));
    KVCL_TRY(put_plot(f, &quality));
    return put_plot(f, &speed);
}

kvcl_status kvcl_eval_write_plots(const kvcl_eval *e, const kvcl_eval_sum *sums, const char *dir)
{
    return kvcl_put_plots(&e->app, dir, "eval.gp", write_script, &(pictures){e, sums});
}
