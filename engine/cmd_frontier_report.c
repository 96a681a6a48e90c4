/* cmd_frontier_report.c - what kvcl frontier says: tables, CSV, JSON.  See cmd_frontier.h. */
#include "cmd_frontier.h"
#include "cmd_put.h"
#include "cmd_table.h"

#include <math.h>
#include <stdio.h>

static const char *way(const kvcl_frontier_rule *r, uint32_t scan)
{
    return r->aim == KVCL_AIM_THETA ? "threshold" : scan ? "scan" : "one-shot";
}

/* What stands behind a row: "proof", "no proof". */
static bool proves(const kvcl_frontier *f, uint32_t spec, uint32_t rule)
{
    return kvcl_frontier_proves(&f->specs[spec], &f->rules[rule]);
}

static double part_of(const kvcl_frontier *f, const kvcl_frontier_cell *c)
{
    return c->eliminated / f->n_queries;
}

/* ---- tables -------------------------------------------------------------------------------- */

static void set_percent(kvcl_table *t, size_t col, double part)
{
    kvcl_table_set(t, col, part > 0 && part < 0.0005 ? "%.1e %%" : "%.1f %%", 100 * part);
}

static void set_lost(kvcl_table *t, size_t col, double x)
{
    kvcl_table_set(t, col, x <= 0 ? "0" : x < 1e-4 ? "%.1e" : "%.4f", x);
}

static void add_row(const kvcl_frontier *f, uint32_t spec, uint32_t rule, uint32_t scan,
                    kvcl_table *t)
{
    const kvcl_frontier_sum s = kvcl_frontier_sum_of(f, spec, rule, scan);
    if (!s.is_there)
        return;
    kvcl_table_add(t);
    kvcl_table_set(t, 0, "%s", f->specs[spec].name);
    kvcl_table_set(t, 1, "%s", way(&f->rules[rule], scan));
    kvcl_table_set(t, 2, "%.3g", kvcl_frontier_spec_bytes(&f->specs[spec], f->D));
    set_percent(t, 3, s.eliminated);
    set_percent(t, 4, s.worst);
    for (size_t i = 0; i < KVCL_FRONTIER_TOPS; i++)
        set_percent(t, 5 + i, s.missed[i]);
    set_lost(t, 8, s.lost);
    set_lost(t, 9, s.lost_max);
    set_percent(t, 10, s.kept_by_group);
    set_percent(t, 11, s.read);
}

static bool has_rows(const kvcl_frontier *f, uint32_t rule)
{
    for (uint32_t i = 0; i < f->n_specs; i++)
        if (kvcl_frontier_fits(&f->specs[i], &f->rules[rule]))
            return true;
    return false;
}

static void print_title(const kvcl_frontier *f, uint32_t rule)
{
    const kvcl_frontier_rule *r = &f->rules[rule];
    printf("\n%s: ", r->name);
    if (r->aim == KVCL_AIM_TOP)
        printf("none of the %u best tokens may be lost", r->k);
    else if (r->aim == KVCL_AIM_MASS)
        printf("at most %g of the attention weights may be lost", r->value);
    else
        printf("scores below %g by the source's bound, which is none, stay unread", r->value);
    if (r->z > 0)
        printf("; errors taken for %g deviations: no proof", r->z);
    puts("\n");
}

static void print_rule(const kvcl_frontier *f, uint32_t rule)
{
    kvcl_table t;
    kvcl_table_init(&t, "sketch|how|>bytes|>unread|>worst head|>false of 8|>of 32|>of 64|"
                        ">lost, mean|>max|>group reads|>read of f16");
    print_title(f, rule);
    for (uint32_t i = 0; i < f->n_specs; i++)
        for (uint32_t scan = 0; scan < 2; scan++)
            add_row(f, i, rule, scan, &t);
    kvcl_table_print(&t, stdout, true, f->app.out_color);
}

/* Layers down, heads across; where they are too many for a line, the least, mean and largest. */
static void print_heads(const kvcl_frontier *f, uint32_t rule)
{
    const uint32_t spec = kvcl_frontier_best(f, rule);
    char heading[400];
    kvcl_table t;
    uint32_t n_heads = 0;
    if (spec == f->n_specs)
        return;
    for (uint32_t h = 0; h < f->n_heads; h++)
        n_heads += f->head[h];
    const bool wide = n_heads + 4 > KVCL_TABLE_COLS;
    size_t n = (size_t)snprintf(heading, sizeof heading, "layer|>least|>mean|>most");
    for (uint32_t h = 0; h < f->n_heads && !wide; h++)
        if (f->head[h])
            n += (size_t)snprintf(heading + n, sizeof heading - n, "|>head %u", h);
    kvcl_table_init(&t, heading);
    for (uint32_t l = 0; l < f->n_layers; l++) {
        double least = 1, most = 0, sum = 0;
        size_t col = 4;
        if (!f->layer[l])
            continue;
        kvcl_table_add(&t);
        for (uint32_t h = 0; h < f->n_heads; h++) {
            const double x = part_of(f, kvcl_frontier_cell_at(f, spec, rule, 1, l, h));
            if (!f->head[h])
                continue;
            least = fmin(least, x);
            most = fmax(most, x);
            sum += x;
            set_percent(&t, col++, x);
        }
        kvcl_table_set(&t, 0, "%u", l);
        set_percent(&t, 1, least);
        set_percent(&t, 2, sum / n_heads);
        set_percent(&t, 3, most);
    }
    printf("\n%s by %s, scan: unread by head\n\n", f->rules[rule].name, f->specs[spec].name);
    kvcl_table_print(&t, stdout, true, f->app.out_color);
}

/* Pairs of query and cold token that were looked at for each sketch. */
static uint64_t count_pairs(const kvcl_frontier *f)
{
    uint64_t n = 0;
    for (uint32_t l = 0; l < f->n_layers; l++)
        for (uint32_t h = 0; h < f->n_heads; h++)
            for (uint32_t i = 0; i < f->n_queries && f->layer[l] && f->head[h]; i++)
                n += f->T - i * f->stride - (uint32_t)f->o->n_hot - (uint32_t)f->o->n_sinks;
    return n;
}

static uint64_t count_violated(const kvcl_frontier *f, uint32_t spec)
{
    uint64_t n = 0;
    for (size_t i = 0, all = (size_t)f->n_layers * f->n_heads; i < all; i++)
        n += f->n_violated[spec * all + i];
    return n;
}

static void print_checks(const kvcl_frontier *f)
{
    const double pairs = (double)count_pairs(f);
    uint64_t n = 0;
    uint32_t n_sound = 0;
    for (uint32_t i = 0; i < f->n_specs; i++) {
        const uint64_t violated = count_violated(f, i);
        if (f->specs[i].kind == KVCL_SKETCH_RANDOM) {
            printf("\n%s: %.1f %% of the scores lie outside of its bounds.\n", f->specs[i].name,
                   100 * (double)violated / pairs);
            continue;
        }
        n += violated;
        n_sound++;
    }
    if (n_sound)
        printf("\n%llu of %.4g bounds violated (%u sketches that prove, %.4g pairs of query and "
               "token each).\n",
               (unsigned long long)n, n_sound * pairs, n_sound, pairs);
}

void kvcl_frontier_print(const kvcl_frontier *f)
{
    const kvcl_model_info *m = kvcl_model_get_info(f->app.model);
    printf("%s: %u queries of each head, every %u tokens up to the last of %u; %u hot tokens and "
           "%u sinks are always read.\n",
           m->name[0] ? m->name : m->arch, f->n_queries, f->stride, f->T, (unsigned)f->o->n_hot,
           (unsigned)f->o->n_sinks);
    for (uint32_t r = 0; r < f->n_rules; r++)
        if (has_rows(f, r))
            print_rule(f, r);
    for (uint32_t r = 0; r < f->n_rules; r++)
        print_heads(f, r);
    print_checks(f);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static json_t *heads_json(const kvcl_frontier *f, uint32_t spec, uint32_t rule, uint32_t scan)
{
    json_t *layers = json_array();
    for (uint32_t l = 0; l < f->n_layers; l++) {
        json_t *row = json_array();
        for (uint32_t h = 0; h < f->n_heads && f->layer[l]; h++)
            if (f->head[h])
                json_array_append_new(
                    row, json_real(part_of(f, kvcl_frontier_cell_at(f, spec, rule, scan, l, h))));
        json_array_append_new(layers, row);
    }
    return layers;
}

static json_t *row_json(const kvcl_frontier *f, uint32_t spec, uint32_t rule, uint32_t scan)
{
    const kvcl_frontier_sum s = kvcl_frontier_sum_of(f, spec, rule, scan);
    json_t *row = json_pack(
        "{s:s, s:f, s:s, s:s, s:b, s:f, s:f, s:[I, I], s:[f, f, f], s:f, s:f, s:f, s:f, s:f}",
        "sketch", f->specs[spec].name, "bytes", kvcl_frontier_spec_bytes(&f->specs[spec], f->D),
        "rule", f->rules[rule].name, "how", way(&f->rules[rule], scan), "proved",
        (int)proves(f, spec, rule), "unread", s.eliminated, "unread_worst", s.worst, "worst_head",
        (json_int_t)s.worst_layer, (json_int_t)s.worst_head, "false_of_8_32_64", s.missed[0],
        s.missed[1], s.missed[2], "lost_mean", s.lost, "lost_max", s.lost_max, "certificate_max",
        s.certificate_max, "group_reads", s.kept_by_group, "read_of_f16", s.read);
    json_object_set_new(row, "broken_promises", json_integer((json_int_t)s.n_broken));
    json_object_set_new(row, "unread_by_layer_and_head", heads_json(f, spec, rule, scan));
    return row;
}

kvcl_status kvcl_frontier_print_json(const kvcl_frontier *f)
{
    const kvcl_model_info *m = kvcl_model_get_info(f->app.model);
    json_t *rows = json_array(), *violated = json_object();
    for (uint32_t i = 0; i < f->n_specs; i++) {
        json_object_set_new(violated, f->specs[i].name,
                            json_integer((json_int_t)count_violated(f, i)));
        for (uint32_t r = 0; r < f->n_rules; r++)
            for (uint32_t scan = 0; scan < 2; scan++)
                if (kvcl_frontier_sum_of(f, i, r, scan).is_there)
                    json_array_append_new(rows, row_json(f, i, r, scan));
    }
    json_t *root =
        json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "schema", "kvcl.frontier/1",
                  "model", kvcl_json_text(m->name, strlen(m->name)), "n_ctx", (json_int_t)f->T,
                  "n_positions", (json_int_t)f->n_queries, "stride", (json_int_t)f->stride, "hot",
                  (json_int_t)f->o->n_hot, "sinks", (json_int_t)f->o->n_sinks, "pairs",
                  (json_int_t)count_pairs(f), "violated_bounds", violated, "rows", rows);
    return kvcl_json_print(f->app.ctx, root);
}

/* ---- CSV ----------------------------------------------------------------------------------- */

static kvcl_status write_line(const kvcl_frontier *f, uint32_t spec, uint32_t rule, uint32_t scan,
                              uint32_t layer, uint32_t head, kvcl_os_out *out)
{
    const kvcl_frontier_cell *c = kvcl_frontier_cell_at(f, spec, rule, scan, layer, head);
    const double n = f->n_queries;
    KVCL_TRY(kvcl_put(out, "%s,%.9g,%s,%s,%d,%u,%u", f->specs[spec].name,
                      kvcl_frontier_spec_bytes(&f->specs[spec], f->D), f->rules[rule].name,
                      way(&f->rules[rule], scan), (int)proves(f, spec, rule), layer, head));
    return kvcl_put(
        out, ",%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%llu,%llu\n", c->eliminated / n,
        c->missed[0] / n, c->missed[1] / n, c->missed[2] / n, c->lost / n, c->lost_max,
        c->certificate_max, c->kept_by_group / n,
        (unsigned long long)f->n_violated[((size_t)spec * f->n_layers + layer) * f->n_heads + head],
        (unsigned long long)c->n_broken);
}

static kvcl_status write_csv(const kvcl_frontier *f, kvcl_os_out *out)
{
    KVCL_TRY(kvcl_put(out, "sketch,bytes,rule,how,proved,layer,head,unread,false_of_8,false_of_32,"
                           "false_of_64,lost_mean,lost_max,certificate_max,group_reads,"
                           "violated_bounds,broken_promises\n"));
    for (uint32_t i = 0; i < f->n_specs; i++)
        for (uint32_t r = 0; r < f->n_rules; r++)
            for (uint32_t scan = 0; scan < 2; scan++)
                for (uint32_t l = 0; l < f->n_layers; l++)
                    for (uint32_t h = 0; h < f->n_heads; h++)
                        if (f->layer[l] && f->head[h] &&
                            kvcl_frontier_sum_of(f, i, r, scan).is_there)
                            KVCL_TRY(write_line(f, i, r, scan, l, h, out));
    return KVCL_OK;
}

kvcl_status kvcl_frontier_write_csv(const kvcl_frontier *f, const char *path)
{
    kvcl_os_out *out;
    KVCL_TRY(kvcl_os_out_create(f->app.ctx, path, &out));
    kvcl_status st = write_csv(f, out);
    if (st != KVCL_OK) {
        kvcl_os_out_abort(out);
        return st;
    }
    return kvcl_os_out_commit(out);
}
