/* cmd_eval_report.c - what kvcl eval says: tables, CSV, JSON.  See cmd_eval.h. */
#include "cmd_eval.h"
#include "cmd_put.h"
#include "cmd_table.h"

#include "mem.h"

#include <stdio.h>

/* ---- tables -------------------------------------------------------------------------------- */

/* Three digits at least. */
static void set_small(kvcl_table *t, size_t col, double x)
{
    kvcl_table_set(t, col, x == 0 ? "0" : x < 1e-3 ? "%.2e" : x < 0.1 ? "%.5f" : "%.3f", x);
}

static void print_quality(const kvcl_eval *e, const kvcl_eval_sum *sums)
{
    kvcl_table t;
    kvcl_table_init(&t, "configuration|>bits|>all bits|>KL mean|>median|>p99|>max|>same top|"
                        ">perplexity|>attention error|>worst layer");
    for (size_t c = 0; c < e->configs.n; c++) {
        const kvcl_eval_sum *s = &sums[c];
        if (s->n_places == 0)
            continue;
        kvcl_table_add(&t);
        kvcl_table_set(&t, 0, "%s", e->configs.list[c].name);
        kvcl_table_set(&t, 1, "%.3f", s->bits);
        kvcl_table_set(&t, 2, "%.3f", s->bits_all);
        set_small(&t, 3, s->kl_mean);
        set_small(&t, 4, s->kl_median);
        set_small(&t, 5, s->kl_p99);
        set_small(&t, 6, s->kl_max);
        kvcl_table_set(&t, 7, "%.2f %%", 100 * s->same_top1);
        kvcl_table_set(&t, 8, "%.4f", s->ppl);
        set_small(&t, 9, s->att_mean);
        set_small(&t, 10, s->att_worst);
    }
    kvcl_table_print(&t, stdout, true, e->app.out_color);
}

static void print_cost(const kvcl_eval *e, const kvcl_eval_sum *sums)
{
    kvcl_table t;
    char bytes[24], disk[24], reads[24];
    kvcl_table_init(&t, "configuration|tiers|>cache|>read per token|>tokens/s|>positions");
    for (size_t c = 0; c < e->configs.n; c++) {
        const kvcl_eval_sum *s = &sums[c];
        if (s->n_places == 0)
            continue;
        kvcl_show_size(s->bytes, bytes, sizeof bytes);
        kvcl_show_size(s->disk, disk, sizeof disk);
        kvcl_show_size(s->read, reads, sizeof reads);
        kvcl_table_add(&t);
        kvcl_table_set(&t, 0, "%s", e->configs.list[c].name);
        kvcl_table_set(&t, 1, "%s", e->configs.list[c].words);
        kvcl_table_set(&t, 2, s->disk ? "%s + %s on disk" : "%s", bytes, disk);
        kvcl_table_set(&t, 3, "%s", reads);
        kvcl_table_set(&t, 4, "%.1f", 1 / s->seconds_per_token);
        kvcl_table_set(&t, 5, "%u", s->n_positions);
    }
    kvcl_table_print(&t, stdout, true, e->app.out_color);
}

static void print_layers(const kvcl_eval *e, const kvcl_eval_sum *sums)
{
    const uint32_t n_layers = kvcl_model_get_info(e->app.model)->n_layers;
    char heading[400];
    kvcl_table t;
    if (n_layers >= KVCL_TABLE_COLS)
        return;
    size_t n = (size_t)snprintf(heading, sizeof heading, "attention error");
    for (uint32_t l = 0; l < n_layers; l++)
        n += (size_t)snprintf(heading + n, sizeof heading - n, "|>layer %u", l);
    kvcl_table_init(&t, heading);
    for (size_t c = 1; c < e->configs.n; c++) {
        if (sums[c].n_places == 0)
            continue;
        kvcl_table_add(&t);
        kvcl_table_set(&t, 0, "%s", e->configs.list[c].name);
        for (uint32_t l = 0; l < n_layers; l++)
            set_small(&t, l + 1, sums[c].att[l]);
    }
    fputc('\n', stdout);
    kvcl_table_print(&t, stdout, true, e->app.out_color);
}

/* The part of a path behind its last slash. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void print_retrieval(const kvcl_eval *e, const kvcl_eval_sum *sums)
{
    const kvcl_opt_list *files = &e->o->retrieval;
    char heading[800];
    kvcl_table t;
    size_t n = (size_t)snprintf(heading, sizeof heading, "retrieval");
    for (size_t i = 0; i < files->n; i++)
        n +=
            (size_t)snprintf(heading + n, sizeof heading - n, "|>%.60s", base_name(files->item[i]));
    snprintf(heading + n, sizeof heading - n, "|>all|>KL of answers, mean|>max");
    kvcl_table_init(&t, heading);
    for (size_t c = 0; c < e->configs.n; c++) {
        const kvcl_eval_sum *s = &sums[c];
        size_t col = 1;
        if (s->n_prompts == 0)
            continue;
        kvcl_table_add(&t);
        kvcl_table_set(&t, 0, "%s", e->configs.list[c].name);
        for (size_t i = 0; i < files->n; i++)
            kvcl_table_set(&t, col++, "%u of %u", s->hits[i], s->n_asked[i]);
        kvcl_table_set(&t, col++, "%u of %u", s->n_hits, s->n_prompts);
        set_small(&t, col++, s->answer_kl);
        set_small(&t, col, s->answer_kl_max);
    }
    kvcl_table_print(&t, stdout, true, e->app.out_color);
}

static void print_conditions(const kvcl_eval *e)
{
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    const kvcl_device_info *d = kvcl_device_get_info(e->app.dev);
    char size[24];
    kvcl_show_size(m->tensor_bytes, size, sizeof size);
    printf("%s (%s of weights) on %s (%s%s%s).\n", m->name[0] ? m->name : m->arch, size, d->id,
           d->name, d->detail[0] ? ", " : "", d->detail);
    if (e->n_places == 0)
        return;
    printf("%u places of %u tokens, the last %u of each decoded:\n", e->n_places, e->n_ctx,
           e->n_positions);
    for (uint32_t i = 0; i < e->n_places; i++)
        printf("- %s from token %zu on\n", base_name(e->places[i].file), e->places[i].first);
}

void kvcl_eval_print(const kvcl_eval *e, const kvcl_eval_sum *sums)
{
    print_conditions(e);
    fputc('\n', stdout);
    if (e->n_places > 0) {
        print_quality(e, sums);
        fputc('\n', stdout);
        print_cost(e, sums);
        print_layers(e, sums);
    }
    if (e->n_places > 0 && e->n_prompts > 0)
        fputc('\n', stdout);
    if (e->n_prompts > 0)
        print_retrieval(e, sums);
}

/* ---- JSON ---------------------------------------------------------------------------------- */

static json_t *text_json(const kvcl_eval *e, const kvcl_eval_sum *s)
{
    json_t *att = json_array();
    for (uint32_t l = 0; l < kvcl_model_get_info(e->app.model)->n_layers; l++)
        json_array_append_new(att, json_real(s->att[l]));
    return json_pack(
        "{s:I, s:I, s:f, s:f, s:{s:f, s:f, s:f, s:f}, s:f, s:f, s:f, s:o, s:I, s:I, s:I, s:f}",
        "n_places", (json_int_t)s->n_places, "n_positions", (json_int_t)s->n_positions,
        "bits_per_element", s->bits, "bits_per_element_all", s->bits_all, "kl", "mean", s->kl_mean,
        "median", s->kl_median, "p99", s->kl_p99, "max", s->kl_max, "same_top1", s->same_top1,
        "perplexity", s->ppl, "attention_error", s->att_mean, "attention_error_of_layers", att,
        "cache_bytes", (json_int_t)s->bytes, "disk_bytes", (json_int_t)s->disk,
        "read_bytes_per_token", (json_int_t)s->read, "tokens_per_second", 1 / s->seconds_per_token);
}

static json_t *retrieval_json(const kvcl_eval *e, const kvcl_eval_sum *s)
{
    json_t *files = json_array();
    for (size_t i = 0; i < e->o->retrieval.n; i++) {
        const char *path = e->o->retrieval.item[i];
        json_array_append_new(
            files, json_pack("{s:o, s:I, s:I}", "file", kvcl_json_text(path, strlen(path)), "hits",
                             (json_int_t)s->hits[i], "n_prompts", (json_int_t)s->n_asked[i]));
    }
    return json_pack("{s:I, s:I, s:f, s:f, s:o}", "hits", (json_int_t)s->n_hits, "n_prompts",
                     (json_int_t)s->n_prompts, "answer_kl_mean", s->answer_kl, "answer_kl_max",
                     s->answer_kl_max, "files", files);
}

kvcl_status kvcl_eval_print_json(const kvcl_eval *e, const kvcl_eval_sum *sums)
{
    const kvcl_model_info *m = kvcl_model_get_info(e->app.model);
    json_t *list = json_array(), *places = json_array();
    for (uint32_t i = 0; i < e->n_places; i++)
        json_array_append_new(
            places, json_pack("{s:o, s:I}", "file",
                              kvcl_json_text(e->places[i].file, strlen(e->places[i].file)),
                              "first_token", (json_int_t)e->places[i].first));
    for (size_t c = 0; c < e->configs.n; c++) {
        const kvcl_eval_config *k = &e->configs.list[c];
        json_t *row = json_pack("{s:o, s:s}", "name", kvcl_json_text(k->name, strlen(k->name)),
                                "tiers", k->words);
        if (sums[c].n_places > 0)
            json_object_set_new(row, "text", text_json(e, &sums[c]));
        if (sums[c].n_prompts > 0)
            json_object_set_new(row, "retrieval", retrieval_json(e, &sums[c]));
        json_array_append_new(list, row);
    }
    json_t *root = json_pack("{s:s, s:o, s:s, s:I, s:I, s:o, s:o}", "schema", "kvcl.eval/1",
                             "model", kvcl_json_text(m->name, strlen(m->name)), "device",
                             kvcl_device_get_info(e->app.dev)->id, "n_ctx", (json_int_t)e->n_ctx,
                             "n_positions", (json_int_t)e->n_positions, "places", places,
                             "configurations", list);
    return kvcl_json_print(e->app.ctx, root);
}

/* ---- CSV ----------------------------------------------------------------------------------- */

static kvcl_status write_heading(const kvcl_eval *e, kvcl_os_out *f)
{
    KVCL_TRY(kvcl_put(
        f, "configuration,tiers,positions,bits,bits_all,kl_mean,kl_median,kl_p99,kl_max,"
           "same_top1,perplexity,attention_error,cache_bytes,disk_bytes,read_bytes_per_token,"
           "tokens_per_second,prompts,hits,answer_kl_mean,answer_kl_max"));
    for (size_t i = 0; i < e->o->retrieval.n; i++)
        KVCL_TRY(kvcl_put(f, ",hits_%zu,prompts_%zu", i + 1, i + 1));
    for (uint32_t l = 0; l < kvcl_model_get_info(e->app.model)->n_layers; l++)
        KVCL_TRY(kvcl_put(f, ",attention_error_%u", l));
    return kvcl_put(f, "\n");
}

static kvcl_status write_row(const kvcl_eval *e, size_t config, const kvcl_eval_sum *s,
                             kvcl_os_out *f)
{
    const kvcl_eval_config *c = &e->configs.list[config];
    KVCL_TRY(kvcl_put(f,
                      "%s,%s,%u,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%llu,%llu,%llu,%.6g",
                      c->name, c->words, s->n_positions, s->bits, s->bits_all, s->kl_mean,
                      s->kl_median, s->kl_p99, s->kl_max, s->same_top1, s->ppl, s->att_mean,
                      (unsigned long long)s->bytes, (unsigned long long)s->disk,
                      (unsigned long long)s->read, s->n_places ? 1 / s->seconds_per_token : 0));
    KVCL_TRY(
        kvcl_put(f, ",%u,%u,%.9g,%.9g", s->n_prompts, s->n_hits, s->answer_kl, s->answer_kl_max));
    for (size_t i = 0; i < e->o->retrieval.n; i++)
        KVCL_TRY(kvcl_put(f, ",%u,%u", s->hits[i], s->n_asked[i]));
    for (uint32_t l = 0; l < kvcl_model_get_info(e->app.model)->n_layers; l++)
        KVCL_TRY(kvcl_put(f, ",%.9g", s->att[l]));
    return kvcl_put(f, "\n");
}

kvcl_status kvcl_eval_write_csv(const kvcl_eval *e, const kvcl_eval_sum *sums, const char *path)
{
    kvcl_os_out *f;
    KVCL_TRY(kvcl_os_out_create(e->app.ctx, path, &f));
    kvcl_status st = write_heading(e, f);
    for (size_t c = 0; c < e->configs.n && st == KVCL_OK; c++)
        if (sums[c].n_places + sums[c].n_prompts > 0)
            st = write_row(e, c, &sums[c], f);
    if (st != KVCL_OK) {
        kvcl_os_out_abort(f);
        return st;
    }
    return kvcl_os_out_commit(f);
}
