/* cmd_frontier_plot.c - pictures of kvcl frontier by gnuplot.  See cmd_frontier.h. */
#include "cmd_frontier.h"
#include "cmd_put.h"

#include <math.h>
#include <stdio.h>

/* Sketches whose sizes make one curve. */
typedef struct family {
    const char *name, *color;
    kvcl_frontier_kind kind;
    uint32_t bits; /* of coordinates; 0: not asked */
    bool post, grouped;
} family;

static const family families[] = {
    {"pca, int8", "#1f77b4", KVCL_SKETCH_PCA, 8, false, false},
    {"pca, int4", "#17becf", KVCL_SKETCH_PCA, 4, false, false},
    {"whitened, int8", "#2ca02c", KVCL_SKETCH_WHITENED, 8, false, false},
    {"whitened, int4", "#98df8a", KVCL_SKETCH_WHITENED, 4, false, false},
    {"balanced, int8", "#9467bd", KVCL_SKETCH_BALANCED, 8, false, false},
    {"balanced, int4", "#e377c2", KVCL_SKETCH_BALANCED, 4, false, false},
    {"levels before rotation", "#d62728", KVCL_SKETCH_LEVELS, 0, false, false},
    {"levels after rotation", "#ff7f0e", KVCL_SKETCH_LEVELS, 0, true, false},
    {"boxes", "#7f7f7f", KVCL_SKETCH_BOX, 0, false, false},
    {"random projections (no proof)", "#000000", KVCL_SKETCH_RANDOM, 0, false, false},
    {"the same in clusters (no proof)", "#8c564b", KVCL_SKETCH_RANDOM, 0, false, true},
};

static bool is_of(const kvcl_frontier_spec *s, const family *m)
{
    return s->kind == m->kind && (!m->bits || s->bits == m->bits) && s->post == m->post &&
           s->grouped == m->grouped;
}

/* A rule's name as part of a file's: "mass0.01/z3" is mass0.01-z3. */
static void file_name(const char *what, const char *rule, char *out, size_t cap)
{
    snprintf(out, cap, "%s-%s", what, rule);
    for (; *out; out++)
        *out = (char)(*out == '/' ? '-' : *out);
}

static kvcl_status put_terminal(kvcl_os_out *f, bool svg, const char *name)
{
    return kvcl_put(f, "set terminal %s\nset output dir.'/%s.%s'\n",
                    svg ? "svg size 1000,640 font 'sans,13' background rgb 'white'"
                        : "pngcairo size 1000,640 font 'sans,10'",
                    name, svg ? "svg" : "png");
}

/* ---- unread against bytes ------------------------------------------------------------------ */

/* The points of a curve by rising bytes; how many. */
static uint32_t curve(const kvcl_frontier *f, uint32_t rule, const family *m, uint32_t scan,
                      double (*out)[2])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_specs; i++) {
        const kvcl_frontier_sum s = kvcl_frontier_sum_of(f, i, rule, scan);
        if (!s.is_there || !is_of(&f->specs[i], m))
            continue;
        const double bytes = kvcl_frontier_spec_bytes(&f->specs[i], f->D);
        uint32_t at = n++;
        for (; at > 0 && out[at - 1][0] > bytes; at--)
            memcpy(out[at], out[at - 1], sizeof *out);
        out[at][0] = bytes;
        out[at][1] = 100 * s.eliminated;
    }
    return n;
}

static double oracle_of(const kvcl_frontier *f, uint32_t rule)
{
    for (uint32_t i = 0; i < f->n_specs; i++)
        if (f->specs[i].kind == KVCL_SKETCH_ORACLE && f->rules[rule].aim != KVCL_AIM_THETA)
            return 100 * kvcl_frontier_sum_of(f, i, rule, 1).eliminated;
    return -1;
}

/* Data blocks $r<rule>f<family>s<scan> and the words of the plot command. */
static kvcl_status put_curves(const kvcl_frontier *f, uint32_t rule, kvcl_os_out *out, char *words,
                              size_t cap)
{
    double p[KVCL_FRONTIER_SKETCHES][2];
    size_t at = 0;
    const double oracle = oracle_of(f, rule);
    words[0] = 0;
    for (size_t m = 0; m < kvcl_array_len(families); m++)
        for (uint32_t scan = 0; scan < 2; scan++) {
            const uint32_t n = curve(f, rule, &families[m], scan, p);
            if (n == 0)
                continue;
            KVCL_TRY(kvcl_put(out, "$r%uf%zus%u << END\n", rule, m, scan));
            for (uint32_t i = 0; i < n; i++)
                KVCL_TRY(kvcl_put(out, "%.9g %.9g\n", p[i][0], p[i][1]));
            KVCL_TRY(kvcl_put(out, "END\n"));
            at += (size_t)snprintf(words + at, cap - at,
                                   "%s$r%uf%zus%u with linespoints linecolor rgb '%s' dashtype %d "
                                   "pointtype %d linewidth 2 title '%s, %s'",
                                   at ? ", " : "", rule, m, scan, families[m].color, scan ? 1 : 2,
                                   scan ? 7 : 6, families[m].name,
                                   f->rules[rule].aim == KVCL_AIM_THETA ? "threshold"
                                   : scan                               ? "scan"
                                                                        : "one-shot");
        }
    if (at && oracle >= 0)
        snprintf(words + at, cap - at, ", %.9g with lines linecolor rgb '#a0a0a0' title 'oracle'",
                 oracle);
    return KVCL_OK;
}

static kvcl_status put_bytes(const kvcl_frontier *f, uint32_t rule, kvcl_os_out *out)
{
    char words[6000], name[2 * KVCL_FRONTIER_NAME];
    KVCL_TRY(put_curves(f, rule, out, words, sizeof words));
    if (!words[0])
        return KVCL_OK;
    file_name("bytes", f->rules[rule].name, name, sizeof name);
    KVCL_TRY(kvcl_put(out,
                      "set title model.': %s'.conditions\nset xlabel 'bytes of sketch per token "
                      "and KV head'\nset ylabel 'cold tokens unread, %%'\nset xrange [0:*]\nset "
                      "yrange [0:100]\nset grid\nset key outside right noenhanced\n",
                      f->rules[rule].name));
    for (int svg = 0; svg < 2; svg++) {
        KVCL_TRY(put_terminal(out, svg, name));
        KVCL_TRY(kvcl_put(out, "plot "));
        KVCL_TRY(kvcl_os_out_write(out, words, strlen(words)));
        KVCL_TRY(kvcl_put(out, "\n"));
    }
    return kvcl_put(out, "set output\n");
}

/* ---- unread by head ------------------------------------------------------------------------ */

static kvcl_status put_matrix(const kvcl_frontier *f, uint32_t rule, uint32_t spec,
                              kvcl_os_out *out)
{
    KVCL_TRY(kvcl_put(out, "$h%u << END\n", rule));
    for (uint32_t l = 0; l < f->n_layers; l++) {
        for (uint32_t h = 0; h < f->n_heads; h++) {
            const kvcl_frontier_cell *c = kvcl_frontier_cell_at(f, spec, rule, 1, l, h);
            if (f->layer[l] && f->head[h])
                KVCL_TRY(kvcl_put(out, "%u %u %.9g\n", h, l, 100 * c->eliminated / f->n_queries));
        }
    }
    return kvcl_put(out, "END\n");
}

/* Rectangles of one cell each: heads and layers that were left out stay white. */
static kvcl_status put_heads(const kvcl_frontier *f, uint32_t rule, kvcl_os_out *out)
{
    char name[2 * KVCL_FRONTIER_NAME];
    const uint32_t spec = kvcl_frontier_best(f, rule);
    if (spec == f->n_specs)
        return KVCL_OK;
    file_name("heads", f->rules[rule].name, name, sizeof name);
    KVCL_TRY(put_matrix(f, rule, spec, out));
    KVCL_TRY(
        kvcl_put(out,
                 "set title model.': unread by %s, scan, with %s'.conditions\nset xlabel "
                 "'query head'\nset ylabel 'layer'\nset xrange [-0.5:%u.5]\nset yrange "
                 "[-0.5:%u.5]\nset cbrange [0:100]\nset cblabel 'cold tokens unread, %%'\n"
                 "unset key\nunset grid\nset palette defined (0 '#ffffff', 100 '#4292c6')\nset "
                 "xtics 1\nset ytics 1\n",
                 f->rules[rule].name, f->specs[spec].name, f->n_heads - 1, f->n_layers - 1));
    const bool has_room = f->n_heads <= 16 && f->n_layers <= 32; /* for numbers in the cells */
    for (int svg = 0; svg < 2; svg++) {
        KVCL_TRY(put_terminal(out, svg, name));
        KVCL_TRY(kvcl_put(out,
                          "plot $h%u using 1:2:(0.5):(0.5):3 with boxxyerror linecolor palette "
                          "fillstyle solid",
                          rule));
        if (has_room)
            KVCL_TRY(kvcl_put(out, ", $h%u using 1:2:(sprintf('%%.0f', $3)) with labels", rule));
        KVCL_TRY(kvcl_put(out, "\n"));
    }
    return kvcl_put(out, "set output\n");
}

static kvcl_status write_script(const void *user, kvcl_os_out *out, const char *dir)
{
    const kvcl_frontier *f = user;
    const kvcl_model_info *m = kvcl_model_get_info(f->app.model);
    char quoted[2048];
    kvcl_put_quote(dir, quoted, sizeof quoted);
    KVCL_TRY(kvcl_put(out,
                      "# Pictures of a run of 'kvcl frontier'; for another folder:\n"
                      "#   gnuplot -e \"dir='FOLDER'\" frontier.gp\n"
                      "if (!exists('dir')) dir = '%s'\n",
                      quoted));
    kvcl_put_quote(m->name[0] ? m->name : m->arch, quoted, sizeof quoted);
    KVCL_TRY(kvcl_put(out, "model = '%s'\nconditions = ' (%u queries of a head, %u tokens)'\n",
                      quoted, f->n_queries, f->T));
    for (uint32_t r = 0; r < f->n_rules; r++)
        KVCL_TRY(put_bytes(f, r, out));
    for (uint32_t r = 0; r < f->n_rules; r++)
        KVCL_TRY(put_heads(f, r, out));
    return KVCL_OK;
}

kvcl_status kvcl_frontier_write_plots(const kvcl_frontier *f, const char *dir)
{
    return kvcl_put_plots(&f->app, dir, "frontier.gp", write_script, f);
}
