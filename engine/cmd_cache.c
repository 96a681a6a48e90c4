/* cmd_cache.c - the cache's options: from strings to devices, a plan and a session.  See cmd.h,
 * planner.h. */
#include "cmd.h"

#include "mem.h"
#include "os.h"
#include "probe.h"

#include <stdio.h>

#define MAX_LISTED 64

/* ---- strings ------------------------------------------------------------------------------- */

kvcl_status kvcl_cache_wish_read(kvcl_ctx *ctx, const kvcl_cache_opts *o, kvcl_cache_wish *out)
{
    *out = (kvcl_cache_wish){
        .preset = o->preset, .tier_dir = o->tier_dir, .drop_oldest = o->drop_oldest};
    for (size_t i = 0; i < o->tiers.n; i++)
        KVCL_TRY(kvcl_wish_add_tier(ctx, "--tier", o->tiers.item[i], out));
    if (!o->mem)
        return KVCL_OK;
    KVCL_TRY(kvcl_parse_bytes(ctx, o->mem, "--cache-mem", &out->budget_bytes));
    KVCL_CHECK(
        ctx, out->budget_bytes > 0, KVCL_E_ARG,
        "--cache-mem '%s': a cache needs some bytes; write a size like 512M, or leave it out",
        o->mem);
    return KVCL_OK;
}

/* The plan as --tier strings. */
static void write_words(const kvcl_session_options *s, const kvcl_planner_plan *plan, char *out,
                        size_t cap)
{
    const kvcl_planner_choice *c = &plan->choice;
    size_t n = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < c->n_tiers && n < cap; i++) {
        const kvcl_planner_tier *t = &c->tiers[i];
        const char *dev = t->on_disk        ? KVCL_WISH_DISK
                          : s->tiers[i].dev ? kvcl_device_get_info(s->tiers[i].dev)->id
                                            : "";
        n += (size_t)snprintf(out + n, cap - n, "%s%s=%s%s%s", i ? " " : "",
                              kvcl_wish_names[t->wish], dev, *dev ? ":" : "",
                              i == 0 && s->type_k != s->type_v ? "raw" : t->codec);
        if (t->tokens && n < cap)
            n += (size_t)snprintf(out + n, cap - n, ":%u", (unsigned)t->tokens);
    }
}

/* ---- devices ------------------------------------------------------------------------------- */

static bool is_gpu(const kvcl_device_info *d)
{
    return d->kind == KVCL_KIND_GPU || d->kind == KVCL_KIND_INTEGRATED;
}

kvcl_status kvcl_cache_device_name(kvcl_ctx *ctx, const char *word, char out[64])
{
    void *p;
    size_t n;
    snprintf(out, 64, "%s", word);
    if (strcmp(word, "gpu") != 0)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(ctx, MAX_LISTED, sizeof(kvcl_device_info), "the list of devices", &p));
    kvcl_device_info *list = p;
    const kvcl_device_info *best = NULL;
    kvcl_status st = kvcl_device_list(ctx, list, MAX_LISTED, &n);
    for (size_t i = 0; st == KVCL_OK && i < kvcl_min_size(n, MAX_LISTED); i++)
        if (is_gpu(&list[i]) && (!best || list[i].is_default ||
                                 (list[i].kind == KVCL_KIND_GPU && best->kind != KVCL_KIND_GPU)))
            best = &list[i];
    if (best)
        snprintf(out, 64, "%s", best->id);
    else if (st == KVCL_OK)
        st = kvcl_fail(ctx, KVCL_E_NO_DEVICE,
                       "a tier asks for 'gpu', and there is none; 'kvcl devices' lists what is "
                       "there, and a tier without a device sits on the model's");
    kvcl_mem_free(ctx, p);
    return st;
}

static bool is_cpu(const kvcl_dev *dev) { return kvcl_device_get_info(dev)->kind == KVCL_KIND_CPU; }

/* An open device that `name` means; NULL when it has to be opened. */
static kvcl_dev *find_open(const kvcl_app *app, const char *name)
{
    for (size_t i = 0; i <= app->n_tier_devs; i++) {
        kvcl_dev *dev = i == 0 ? app->dev : app->tier_devs[i - 1];
        const kvcl_device_info *d = kvcl_device_get_info(dev);
        if (strcmp(d->id, name) == 0 || (strcmp(name, "cpu") == 0 && is_cpu(dev)) ||
            (i == 0 && strcmp(name, "gpu") == 0 && is_gpu(d)))
            return dev;
    }
    return NULL;
}

static kvcl_status open_tier_device(kvcl_app *app, const char *word, kvcl_dev **out)
{
    char name[64];
    *out = find_open(app, word);
    if (*out)
        return KVCL_OK;
    KVCL_TRY(kvcl_cache_device_name(app->ctx, word, name));
    KVCL_CHECK(app->ctx, app->n_tier_devs < KVCL_APP_DEVICES, KVCL_E_ARG,
               "tiers on more than %d devices; name fewer", KVCL_APP_DEVICES);
    kvcl_dev *dev;
    KVCL_TRY(kvcl_device_open(app->ctx, name, &dev));
    /* an index or a part of a name may mean one that is open */
    *out = find_open(app, kvcl_device_get_info(dev)->id);
    if (*out) {
        kvcl_device_close(dev);
        return KVCL_OK;
    }
    app->tier_devs[app->n_tier_devs++] = *out = dev;
    return KVCL_OK;
}

/* ---- the view ------------------------------------------------------------------------------ */

typedef struct cache_view {
    kvcl_app *app;
    kvcl_planner_view view;
    kvcl_dev *devs[KVCL_PLANNER_DEVICES];
    const kvcl_session_options *base;
} cache_view;

/* Adds a device once; returns its place. */
static uint32_t add_device(cache_view *v, kvcl_dev *dev)
{
    const kvcl_device_info *d = kvcl_device_get_info(dev);
    kvcl_planner_view *view = &v->view;
    for (uint32_t i = 0; i < view->n_devices; i++)
        if (v->devs[i] == dev)
            return i;
    kvcl_planner_device *p = &view->devices[view->n_devices];
    memset(p, 0, sizeof *p);
    memcpy(p->id, d->id, sizeof p->id);
    p->may_choose = d->exactness == KVCL_EXACT || d->exactness == KVCL_EXACT_SLOW;
    p->mem_bytes = d->mem_bytes;
    p->mem_what = "memory";
    uint64_t limit = kvcl_mem_limit(v->app->ctx);
    if (is_cpu(dev) && dev == v->app->dev) { /* weights are mapped, not allocated */
        uint64_t mapped = kvcl_model_get_info(v->app->model)->tensor_bytes;
        limit = limit > UINT64_MAX - mapped ? UINT64_MAX : limit + mapped;
    }
    if (limit < p->mem_bytes) {
        p->mem_bytes = limit;
        p->mem_what = is_cpu(dev) ? "KVCL_MEM_LIMIT (and mapped weights)" : "KVCL_MEM_LIMIT";
    }
    v->devs[view->n_devices] = dev;
    return view->n_devices++;
}

/* A choice as options of a session. */
static void apply(const cache_view *v, const kvcl_planner_choice *c, kvcl_session_options *s)
{
    s->n_ctx = c->n_ctx;
    s->n_tiers = c->n_tiers;
    for (uint32_t i = 0; i < c->n_tiers; i++) {
        kvcl_dev *dev = v->devs[c->tiers[i].device];
        s->tiers[i] = (kvcl_tier_options){.dev = dev == v->app->dev ? NULL : dev,
                                          .on_disk = c->tiers[i].on_disk,
                                          .codec = i ? c->tiers[i].codec : NULL,
                                          .tokens = c->tiers[i].tokens};
    }
}

static kvcl_status size_of(void *user, const kvcl_planner_choice *choice, kvcl_session_plan *out)
{
    const cache_view *v = user;
    kvcl_session_options s = *v->base;
    apply(v, choice, &s);
    return kvcl_session_plan_make(v->app->model, v->app->dev, &s, out);
}

/* The speeds of all devices, where there is a choice between some. */
static kvcl_status add_probes(cache_view *v, bool chosen_by_speed)
{
    for (uint32_t i = 0; i < v->view.n_devices; i++) {
        kvcl_probe probe;
        KVCL_TRY(kvcl_probe_get(v->devs[i], chosen_by_speed ? KVCL_PROBE_ONCE : KVCL_PROBE_STORED,
                                &probe));
        v->view.devices[i].copy_bytes_per_s = probe.copy_bytes_per_s;
        v->view.devices[i].launch_ns = probe.launch_ns;
    }
    return KVCL_OK;
}

static kvcl_status make_view(kvcl_app *app, const kvcl_cache_wish *wish,
                             const kvcl_session_options *s, cache_view *out)
{
    const kvcl_model_info *m = kvcl_model_get_info(app->model);
    *out = (cache_view){.app = app, .base = s};
    kvcl_planner_view *view = &out->view;
    view->n_ctx = s->n_ctx;
    view->n_layers = m->n_layers;
    view->raw = s->type_k == KVCL_F32 ? "f32" : "f16";
    view->size = size_of;
    view->user = out;
    add_device(out, app->dev);
    view->devices[0].may_choose = true;
    for (int i = 0; i < KVCL_MAX_TIERS; i++) {
        kvcl_dev *dev;
        bool disk = strcmp(wish->tier[i].device, KVCL_WISH_DISK) == 0;
        view->tier_device[i] = disk ? KVCL_PLANNER_DISK : KVCL_PLANNER_UNSAID;
        if (disk || !wish->tier[i].device[0])
            continue;
        KVCL_TRY(open_tier_device(app, wish->tier[i].device, &dev));
        view->tier_device[i] = (int32_t)add_device(out, dev);
    }
    if (!is_cpu(app->dev) && !kvcl_wish_is_empty(wish)) { /* where cold tokens may go unasked */
        kvcl_dev *cpu;
        KVCL_TRY(open_tier_device(app, "cpu", &cpu));
        add_device(out, cpu);
    }
    return add_probes(out, view->n_devices > 2);
}

/* ---- plan and session ---------------------------------------------------------------------- */

/* Hot rows of a type that the wish names; raw tiers keep the bytes of the hot one. */
static kvcl_status take_types(kvcl_app *app, const kvcl_cache_wish *wish, kvcl_session_options *s)
{
    const char *hot = wish->tier[KVCL_WISH_HOT].codec;
    if (strcmp(hot, "f16") == 0 || strcmp(hot, "f32") == 0)
        s->type_k = s->type_v = hot[1] == '3' ? KVCL_F32 : KVCL_F16;
    for (int i = KVCL_WISH_WARM; i <= KVCL_WISH_COLD; i++) {
        const char *c = wish->tier[i].codec;
        bool f16 = strcmp(c, "f16") == 0, f32 = strcmp(c, "f32") == 0, raw = strcmp(c, "raw") == 0;
        bool same = s->type_k == s->type_v;
        KVCL_CHECK(app->ctx,
                   !(f16 || f32 || raw) ||
                       (same && (raw || s->type_k == (f32 ? KVCL_F32 : KVCL_F16))),
                   KVCL_E_ARG,
                   "--tier %s=%s: a raw tier holds rows as the hot one has them, and those are %s "
                   "and %s; set -ctk and -ctv to the same type",
                   kvcl_wish_names[i], c, kvcl_type_name(s->type_k), kvcl_type_name(s->type_v));
    }
    return KVCL_OK;
}

kvcl_status kvcl_app_plan_cache(kvcl_app *app, const kvcl_cache_wish *wish, kvcl_session_options *s,
                                kvcl_planner_plan *plan, char *words, size_t words_cap)
{
    cache_view v;
    kvcl_session_options base = *s;
    base.drop_oldest = wish->drop_oldest;
    KVCL_TRY(take_types(app, wish, &base));
    base.tier_dir = wish->tier_dir;
    if (base.n_ctx == 0)
        base.n_ctx = kvcl_min_u32(kvcl_model_get_info(app->model)->n_ctx_train, 8192);
    KVCL_TRY(make_view(app, wish, &base, &v));
    KVCL_TRY(kvcl_planner_make(app->ctx, wish, &v.view, plan));
    *s = base;
    apply(&v, &plan->choice, s);
    write_words(s, plan, words, words_cap);
    return KVCL_OK;
}

static void note_plan(const kvcl_app *app)
{
    if (app->common->verbose == 0)
        return;
    kvcl_app_note(app,
                  "cache %s: %.1f MiB of memory and %.1f MiB of disk planned, %.2f bits an "
                  "element",
                  app->cache_words, (double)app->plan.sizes.cache_bytes / 1048576.0,
                  (double)app->plan.sizes.disk_bytes / 1048576.0, app->plan.sizes.bits_per_elem);
    for (uint32_t i = 0; i < app->plan.n_reasons; i++)
        kvcl_app_note(app, "cache: %s", app->plan.reasons[i]);
}

kvcl_status kvcl_app_open_wished(kvcl_app *app, const kvcl_cache_wish *wish,
                                 kvcl_session_options *s)
{
    KVCL_TRY(
        kvcl_app_plan_cache(app, wish, s, &app->plan, app->cache_words, sizeof app->cache_words));
    note_plan(app);
    if (!app->engine)
        KVCL_TRY(kvcl_engine_create(app->model, app->dev, &app->engine));
    return kvcl_session_create(app->engine, s, &app->session);
}

kvcl_status kvcl_app_open_session(kvcl_app *app, const kvcl_cache_opts *cache,
                                  const int32_t *tokens, size_t n, kvcl_session_options *s)
{
    kvcl_cache_wish wish;
    KVCL_TRY(kvcl_cache_wish_read(app->ctx, cache, &wish));
    wish.n_prompt = (uint32_t)kvcl_min_size(n, UINT32_MAX);
    if (cache->error > 0)
        KVCL_TRY(kvcl_app_choose_rate(app, cache->error, s, tokens, n, &wish));
    return kvcl_app_open_wished(app, &wish, s);
}

void kvcl_app_note_drift(const kvcl_app *app, const char *who, const kvcl_session *session)
{
    kvcl_cache_stats st;
    kvcl_session_cache_stats(session, &st);
    for (uint32_t i = 0; i < st.n_tiers && app->common->verbose > 0; i++)
        if (st.tiers[i].error_learned > 0)
            kvcl_app_note(
                app,
                "  %s %s tier: bases learned anew %u times (all layers); relative squared "
                "error %.4f of what was learned from, %.4f of the last pages",
                who, st.tiers[i].tier, st.tiers[i].n_refreshes, st.tiers[i].error_learned,
                st.tiers[i].error_now);
}

/* Every name of memory with its bytes as the devices count them, then the process. */
static void note_memory(const kvcl_app *app, const kvcl_session *session)
{
    kvcl_session_plan held;
    uint64_t peak = kvcl_os_process_bytes(true);
    kvcl_session_memory(session, &held);
    for (uint32_t i = 0; i < held.n_rows; i++)
        kvcl_app_note(app, "memory       %12llu bytes   %s: %s",
                      (unsigned long long)held.rows[i].bytes, held.rows[i].device,
                      held.rows[i].what);
    kvcl_app_note(app, "memory       %12llu bytes   in all", (unsigned long long)held.total_bytes);
    if (peak)
        kvcl_app_note(app, "memory       %12llu bytes   resident at most, with the program itself",
                      (unsigned long long)peak);
}

void kvcl_app_note_dropped(const kvcl_app *app, const kvcl_session *session)
{
    kvcl_cache_stats st;
    kvcl_session_cache_stats(session, &st);
    if (st.n_dropped && !app->common->quiet)
        kvcl_app_note(
            app,
            "%u of %u tokens were dropped, the oldest behind the sinks; the last "
            "%u are read",
            (unsigned)st.n_dropped, (unsigned)kvcl_session_n_tokens(session),
            (unsigned)(st.tiers[0].n_tokens + st.tiers[1].n_tokens + st.tiers[2].n_tokens));
}

void kvcl_app_note_cache(const kvcl_app *app, const kvcl_session *session)
{
    kvcl_cache_stats st;
    char size[32], read[32], disk[32];
    if (app->common->verbose == 0)
        return;
    kvcl_session_cache_stats(session, &st);
    for (uint32_t i = 0; i < st.n_tiers; i++) {
        const kvcl_tier_stats *t = &st.tiers[i];
        kvcl_show_size(t->bytes, size, sizeof size);
        kvcl_app_note(app, "  %-4s tier  %8u tokens of %u, %s in %s on %s, %.2f bits an element",
                      t->tier, t->n_tokens, t->capacity, size, t->codec, t->device,
                      t->bits_per_elem);
    }
    kvcl_app_note_drift(app, "", session);
    kvcl_show_size(st.total_bytes, size, sizeof size);
    kvcl_show_size(st.read_bytes, read, sizeof read);
    kvcl_show_size(st.disk_bytes, disk, sizeof disk);
    kvcl_app_note(app,
                  "  in all     %s with sinks, means, staging and scratch%s%s%s; %.2f bits an "
                  "element, the coded tokens %.2f; %s read for the next token",
                  size, st.disk_bytes ? ", " : "", st.disk_bytes ? disk : "",
                  st.disk_bytes ? " on disk" : "", st.bits_per_elem_all, st.bits_per_elem, read);
    note_memory(app, session);
}
