/* planner.c - fills in, places and weighs candidates for the tiers of the cache.  See planner.h. */
#include "planner.h"

#include <stdio.h>

#define DEFAULT_HOT 256u
#define DEFAULT_WARM 512u
#define WARM_CODEC "quant8"
#define PAGE KVCL_PAGE_TOKENS

/* quant2: keys before rotation, as all of these; quality and bytes are in README.md. */
const kvcl_cache_preset kvcl_cache_presets[KVCL_N_PRESETS] = {
    {"exact", 0, NULL, NULL},
    {"balanced", 256, "quant4", NULL},
    {"small", 128, "quant-k3v2", "superpose8-2.25"},
    {"smallest", 64, "quant2", "superpose8-1.75"}};

/* All that is left to the single --tier strings. */
static const kvcl_cache_preset as_said = {"as said", 0, NULL, NULL};

typedef struct planner {
    kvcl_ctx *ctx;
    const kvcl_cache_wish *wish;
    const kvcl_planner_view *view;
    bool machine_decides; /* preset auto without a budget */
    kvcl_planner_plan plan;
    char codec_why[160]; /* of the preset that is tried; "": there was nothing to choose */
    char why_not[512];   /* the candidates that did not fit, with their bytes */
    kvcl_status why_status;
    const kvcl_cache_preset *last; /* candidate that the model allows */
} planner;

static double mib(uint64_t bytes) { return (double)bytes / 1048576.0; }

static void reason(planner *p, const char *fmt, ...) KVCL_PRINTF(2, 3);

static void reason(planner *p, const char *fmt, ...)
{
    if (p->plan.n_reasons == KVCL_PLANNER_REASONS)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->plan.reasons[p->plan.n_reasons++], sizeof p->plan.reasons[0], fmt, ap);
    va_end(ap);
}

/* ---- filling in ---------------------------------------------------------------------------- */

static bool is_raw(const char *codec)
{
    return strcmp(codec, "raw") == 0 || strcmp(codec, "f16") == 0 || strcmp(codec, "f32") == 0;
}

static bool codec_is_said(const kvcl_tier_wish *w) { return w->is_given && w->codec[0] != 0; }

static void add_tier(planner *p, uint32_t wish, const char *codec, uint32_t tokens)
{
    kvcl_planner_choice *c = &p->plan.choice;
    kvcl_planner_tier *t = &c->tiers[c->n_tiers++];
    int32_t device = p->view->tier_device[wish];
    t->wish = wish;
    snprintf(t->codec, sizeof t->codec, "%s", strcmp(codec, "raw") == 0 ? p->view->raw : codec);
    t->tokens = tokens;
    t->device = device < 0 ? 0 : (uint32_t)device;
    t->on_disk = device == KVCL_PLANNER_DISK;
}

/* The tiers of a preset, with this codec in the cold one, or of the wishes alone, with what wishes
 * say put in. */
static void fill(planner *p, const kvcl_cache_preset *preset, const char *codec, uint32_t n_ctx)
{
    const kvcl_tier_wish *hot = &p->wish->tier[KVCL_WISH_HOT],
                         *warm = &p->wish->tier[KVCL_WISH_WARM],
                         *cold = &p->wish->tier[KVCL_WISH_COLD];
    const bool lossy = preset->codec != NULL, mixed = preset == &as_said;
    const char *fallback = mixed ? kvcl_cache_presets[1].codec : lossy ? codec : "raw";
    /* a warm tier with a number of tokens needs one below it */
    bool has_cold = lossy || cold->is_given || (warm->is_given && warm->tokens);
    uint32_t n_hot = hot->tokens ? hot->tokens : lossy ? preset->hot_tokens : DEFAULT_HOT;
    memset(&p->plan, 0, sizeof p->plan);
    p->plan.choice.name = preset->name;
    p->plan.choice.n_ctx = n_ctx;
    bool below = has_cold || warm->is_given;
    add_tier(p, KVCL_WISH_HOT, codec_is_said(hot) ? hot->codec : "raw", below ? n_hot : 0);
    if (warm->is_given)
        add_tier(p, KVCL_WISH_WARM,
                 codec_is_said(warm) ? warm->codec
                 : lossy || mixed    ? WARM_CODEC
                                     : "raw",
                 warm->tokens ? warm->tokens
                 : has_cold   ? DEFAULT_WARM
                              : 0);
    if (has_cold)
        add_tier(p, KVCL_WISH_COLD, codec_is_said(cold) ? cold->codec : fallback, cold->tokens);
    if (!below && hot->tokens)
        reason(p, "all tokens stay raw, so the number of hot tokens is not used");
    if (warm->is_given && has_cold && !cold->is_given && !lossy)
        reason(p, "cold tier: %s holds what the warm tier has no room for",
               p->plan.choice.tiers[p->plan.choice.n_tiers - 1].codec);
}

/* ---- weighing ------------------------------------------------------------------------------ */

static uint32_t device_of(const planner *p, const char *id)
{
    for (uint32_t i = 0; i < p->view->n_devices; i++)
        if (strcmp(p->view->devices[i].id, id) == 0)
            return i;
    return UINT32_MAX;
}

static uint64_t bytes_on(const planner *p, const kvcl_session_plan *s, uint32_t device)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->n_rows; i++)
        if (device_of(p, s->rows[i].device) == device)
            sum += s->rows[i].bytes;
    return sum;
}

/* The first device that holds less than it should; UINT32_MAX when all is well. */
static uint32_t overfull(const planner *p, const kvcl_session_plan *s)
{
    for (uint32_t i = 0; i < p->view->n_devices; i++)
        if (bytes_on(p, s, i) > p->view->devices[i].mem_bytes)
            return i;
    return UINT32_MAX;
}

/* About how long one token's attention reads a full cache; 0 when a device was not probed, or with
 * a tier on disk: how much of it the system keeps in memory is not known. */
static double read_seconds(const planner *p, const kvcl_session_plan *s)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n_rows; i++) {
        uint32_t d = device_of(p, s->rows[i].device);
        const char *what = s->rows[i].what; /* "cold tier, quant4"; "cache, f16" */
        if (strcmp(s->rows[i].device, KVCL_WISH_DISK) == 0)
            return 0;
        if ((!strstr(what, " tier,") && strncmp(what, "cache,", 6) != 0) || d == UINT32_MAX)
            continue;
        const kvcl_planner_device *dev = &p->view->devices[d];
        if (dev->copy_bytes_per_s <= 0)
            return 0;
        sum += (double)s->rows[i].bytes / dev->copy_bytes_per_s +
               (double)p->view->n_layers * dev->launch_ns * 1e-9;
    }
    return sum;
}

static kvcl_status weigh(planner *p)
{
    memset(&p->plan.sizes, 0, sizeof p->plan.sizes);
    KVCL_TRY(p->view->size(p->view->user, &p->plan.choice, &p->plan.sizes));
    p->plan.read_s = read_seconds(p, &p->plan.sizes);
    return KVCL_OK;
}

/* ---- the preset's codec -------------------------------------------------------------------- */

/* Bytes of the cache with this codec; UINT64_MAX where it cannot be. */
static uint64_t bytes_with(planner *p, const kvcl_cache_preset *preset, const char *codec,
                           uint32_t n_ctx)
{
    fill(p, preset, codec, n_ctx);
    return weigh(p) == KVCL_OK ? p->plan.sizes.cache_bytes : UINT64_MAX;
}

/* See kvcl_cache_preset; the reason is left in p->codec_why. */
static const char *pick_codec(planner *p, const kvcl_cache_preset *preset, uint32_t n_ctx)
{
    char *why = p->codec_why;
    const size_t cap = sizeof p->codec_why;
    why[0] = 0;
    if (!preset->learns || codec_is_said(&p->wish->tier[KVCL_WISH_COLD]))
        return preset->codec;
    size_t n =
        (size_t)snprintf(why, cap, "%s: %s, not %s, ", preset->name, preset->codec, preset->learns);
    if (p->wish->n_prompt == 0) {
        snprintf(why + n, cap - n, "since the prompt that it would learn from is not known");
        return preset->codec;
    }
    if (p->wish->n_prompt < KVCL_PLANNER_PROMPT) {
        snprintf(why + n, cap - n, "which has to learn from a prompt of %u tokens or more (%u)",
                 KVCL_PLANNER_PROMPT, (unsigned)p->wish->n_prompt);
        return preset->codec;
    }
    uint64_t simple = bytes_with(p, preset, preset->codec, n_ctx);
    uint64_t learned = bytes_with(p, preset, preset->learns, n_ctx);
    if (learned == UINT64_MAX) {
        snprintf(why + n, cap - n, "which these heads do not fit");
        return preset->codec;
    }
    if (learned > simple / 20 * 21) {
        snprintf(why + n, cap - n, "whose bases make it larger at %u tokens (%.1f MiB, %.1f)",
                 (unsigned)n_ctx, mib(learned), mib(simple));
        return preset->codec;
    }
    snprintf(why, cap, "%s: %s, better than %s for about the same bytes and slower on CPUs",
             preset->name, preset->learns, preset->codec);
    return preset->learns;
}

static void fill_best(planner *p, const kvcl_cache_preset *preset, uint32_t n_ctx)
{
    const char *codec = pick_codec(p, preset, n_ctx);
    fill(p, preset, codec, n_ctx);
}

/* ---- placing ------------------------------------------------------------------------------- */

/* Moves the unplaced tiers from `first` on to the device that reads them fastest among those that
 * have the room; false, and nothing moved, when there is none. */
static bool move_tiers(planner *p, uint32_t first)
{
    kvcl_planner_plan best = p->plan, before = p->plan;
    bool found = false;
    for (uint32_t d = 1; d < p->view->n_devices; d++) {
        if (!p->view->devices[d].may_choose)
            continue;
        bool moved = false;
        p->plan = before;
        for (uint32_t i = first; i < p->plan.choice.n_tiers; i++) {
            kvcl_planner_tier *t = &p->plan.choice.tiers[i];
            if (p->view->tier_device[t->wish] != KVCL_PLANNER_UNSAID)
                continue;
            t->device = d;
            moved = true;
        }
        if (!moved || weigh(p) != KVCL_OK || overfull(p, &p->plan.sizes) != UINT32_MAX)
            continue;
        bool faster = p->plan.read_s > 0 && (best.read_s <= 0 || p->plan.read_s < best.read_s);
        if (!found || faster)
            best = p->plan;
        found = true;
    }
    p->plan = best;
    return found;
}

static void tell_move(planner *p, uint64_t wanted, const kvcl_planner_device *full)
{
    const kvcl_planner_choice *c = &p->plan.choice;
    const kvcl_planner_tier *t = &c->tiers[c->n_tiers - 1];
    while (t->on_disk) /* another one was moved */
        t--;
    reason(p, "%s tier on %s: with it %s would hold %.1f MiB, and its %s is %.1f MiB",
           kvcl_wish_names[t->wish], p->view->devices[t->device].id, full->id, mib(wanted),
           full->mem_what, mib(full->mem_bytes));
}

/* A raw cache in two: as many tokens as fit stay hot, the others go to another device. */
static bool split_exact(planner *p)
{
    kvcl_planner_plan before = p->plan, best = p->plan;
    uint32_t low = 0, high = p->view->n_ctx / PAGE; /* pages: low fits, high does not */
    if (p->plan.choice.n_tiers != 1)
        return false;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        p->plan = before;
        p->plan.choice.tiers[0].tokens = mid * PAGE;
        add_tier(p, KVCL_WISH_COLD, "raw", 0);
        if (move_tiers(p, 1)) {
            low = mid;
            best = p->plan;
        } else {
            high = mid;
        }
    }
    p->plan = best;
    return low > 0;
}

/* Does the candidate in p->plan fit the devices, if need be with tiers moved? */
static bool place(planner *p)
{
    uint32_t full = overfull(p, &p->plan.sizes);
    if (full == UINT32_MAX)
        return true;
    const kvcl_planner_device *dev = &p->view->devices[full];
    uint64_t wanted = bytes_on(p, &p->plan.sizes, full);
    uint32_t n = p->plan.choice.n_tiers;
    bool found = false;
    for (uint32_t first = n; first > 1 && !found; first--)
        found = move_tiers(p, first - 1);
    if (!found && n == 1 && p->machine_decides)
        found = split_exact(p);
    if (found)
        tell_move(p, wanted, dev);
    return found;
}

/* ---- refusing ------------------------------------------------------------------------------ */

static void note_failure(planner *p, kvcl_status st, const char *fmt, ...) KVCL_PRINTF(3, 4);

static void note_failure(planner *p, kvcl_status st, const char *fmt, ...)
{
    size_t n = strlen(p->why_not);
    if (n > 0)
        n += (size_t)snprintf(p->why_not + n, sizeof p->why_not - n, "; ");
    if (n >= sizeof p->why_not)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->why_not + n, sizeof p->why_not - n, fmt, ap);
    va_end(ap);
    bool is_size = st == KVCL_E_MEM || st == KVCL_E_DEVICE_MEM;
    if (is_size || p->why_status == KVCL_OK) /* one that is too large weighs more */
        p->why_status = st;
}

/* The longest context with which the last candidate would have fitted; 0: none. */
static uint32_t longest_context(planner *p, const kvcl_cache_preset *preset)
{
    uint32_t low = 0, high = p->view->n_ctx / PAGE + 1;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        fill_best(p, preset, mid * PAGE);
        bool fits =
            weigh(p) == KVCL_OK &&
            (!p->wish->budget_bytes || p->plan.sizes.cache_bytes <= p->wish->budget_bytes) &&
            place(p);
        *(fits ? &low : &high) = mid;
    }
    return low * PAGE;
}

/* Appends to "take -c 512 or less, or ...". */
static void add_remedy(char *text, size_t cap, const char *more)
{
    size_t n = strlen(text);
    snprintf(text + n, cap - n, "%s%s", n ? ", or " : "", more);
}

static kvcl_status refuse(planner *p, bool alone)
{
    const kvcl_cache_preset *last = p->last;
    char remedy[240] = "";
    if (p->why_status != KVCL_E_MEM && p->why_status != KVCL_E_DEVICE_MEM)
        return kvcl_fail(p->ctx, p->why_status, "%s", p->why_not);
    uint32_t n_ctx = longest_context(p, last);
    if (n_ctx)
        snprintf(remedy, sizeof remedy, "take -c %u or less", (unsigned)n_ctx);
    if (p->why_status == KVCL_E_MEM)
        add_remedy(remedy, sizeof remedy, "raise --cache-mem");
    else if (last == &kvcl_cache_presets[0] && strncmp(p->view->devices[0].id, "cpu", 3) != 0)
        add_remedy(remedy, sizeof remedy, "keep older tokens elsewhere with --tier cold=cpu:raw");
    else if (last == &kvcl_cache_presets[0])
        add_remedy(remedy, sizeof remedy, "keep older tokens on disk with --tier cold=disk:raw");
    if (alone && last != &kvcl_cache_presets[KVCL_N_PRESETS - 1])
        add_remedy(remedy, sizeof remedy, "choose a smaller --cache");
    if (!remedy[0])
        add_remedy(remedy, sizeof remedy, "take a smaller model or another --device");
    return kvcl_fail(p->ctx, p->why_status, "the cache of %u tokens does not fit: %s; %s",
                     (unsigned)p->view->n_ctx, p->why_not, remedy);
}

/* ---- candidates ---------------------------------------------------------------------------- */

/* Gives the last tier as many pages as the budget allows, at least one; older tokens will be
 * dropped.  False when there is no such tier or no room for a page. */
static bool shorten(planner *p)
{
    kvcl_planner_choice *c = &p->plan.choice;
    kvcl_planner_tier *last = &c->tiers[c->n_tiers - 1];
    uint32_t low = 0, high = (last->tokens ? last->tokens : p->view->n_ctx) / PAGE + 1;
    if (c->n_tiers == 1)
        return false;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        last->tokens = mid * PAGE;
        bool fits = weigh(p) == KVCL_OK && p->plan.sizes.cache_bytes <= p->wish->budget_bytes;
        *(fits ? &low : &high) = mid;
    }
    last->tokens = low * PAGE;
    return low > 0 && weigh(p) == KVCL_OK;
}

/* True when the candidate fits, if need be without its oldest tokens; else its figures are noted.
 */
static bool try_candidate(planner *p, const kvcl_cache_preset *preset, bool may_drop)
{
    const uint64_t budget = p->wish->budget_bytes;
    fill_best(p, preset, p->view->n_ctx);
    kvcl_status st = weigh(p);
    if (st != KVCL_OK) {
        note_failure(p, st, "%s", kvcl_last_error(p->ctx));
        return false;
    }
    p->last = preset;
    uint64_t bytes = p->plan.sizes.cache_bytes;
    if (budget && bytes > budget && !(may_drop && shorten(p))) {
        note_failure(p, KVCL_E_MEM, "%s: %.1f MiB, and --cache-mem is %.1f MiB", preset->name,
                     mib(bytes), mib(budget));
        return false;
    }
    bytes = p->plan.sizes.cache_bytes;
    if (place(p))
        return true;
    uint32_t full = overfull(p, &p->plan.sizes);
    const kvcl_planner_device *dev = &p->view->devices[full == UINT32_MAX ? 0 : full];
    note_failure(p, KVCL_E_DEVICE_MEM,
                 "%s: %.1f MiB of cache, %.1f MiB in all on %s, whose %s is %.1f MiB", preset->name,
                 mib(bytes), mib(bytes_on(p, &p->plan.sizes, full == UINT32_MAX ? 0 : full)),
                 dev->id, dev->mem_what, mib(dev->mem_bytes));
    return false;
}

static void tell_choice(planner *p, const kvcl_cache_preset *preset, bool several)
{
    uint64_t bytes = p->plan.sizes.cache_bytes;
    if (p->codec_why[0])
        reason(p, "%s", p->codec_why);
    if (several && p->wish->budget_bytes)
        reason(p, "%s: the best preset whose cache (%.1f MiB) fits --cache-mem (%.1f MiB)",
               preset->name, mib(bytes), mib(p->wish->budget_bytes));
    else if (several)
        reason(p, "%s: the best preset that fits the devices", preset->name);
    else if (p->wish->budget_bytes)
        reason(p, "%s: %.1f MiB of cache, --cache-mem allows %.1f MiB", preset->name, mib(bytes),
               mib(p->wish->budget_bytes));
    if (preset == &kvcl_cache_presets[0] && p->plan.choice.n_tiers == 1 &&
        kvcl_wish_is_empty(p->wish))
        reason(p, "exact: nothing else was asked for");
}

/* The range of presets to try; as_said when wishes say it all. */
static kvcl_status candidates(planner *p, const kvcl_cache_preset **first, size_t *n)
{
    const kvcl_cache_wish *w = p->wish;
    bool is_auto = w->preset && strcmp(w->preset, "auto") == 0;
    bool said = codec_is_said(&w->tier[KVCL_WISH_WARM]) || codec_is_said(&w->tier[KVCL_WISH_COLD]);
    int32_t hot = p->view->tier_device[KVCL_WISH_HOT];
    KVCL_CHECK(p->ctx, hot <= 0, KVCL_E_ARG,
               "--tier hot=%s:...: the hot tier is on the model's device, which is %s; name the "
               "same one with --device, or none of the two",
               w->tier[KVCL_WISH_HOT].device, p->view->devices[0].id);
    *first = kvcl_cache_presets;
    *n = 1;
    if (w->preset && !is_auto) {
        size_t i = 0;
        while (i < KVCL_N_PRESETS && strcmp(kvcl_cache_presets[i].name, w->preset) != 0)
            i++;
        KVCL_CHECK(p->ctx, i < KVCL_N_PRESETS, KVCL_E_ARG,
                   "no preset is called '%s'; there are exact, balanced, small, smallest and auto",
                   w->preset);
        *first += i;
    } else if (said) {
        *first = &as_said;
    } else if (is_auto || w->budget_bytes) {
        *n = KVCL_N_PRESETS;
    }
    p->machine_decides = is_auto && !w->budget_bytes;
    for (size_t i = 1; i < KVCL_MAX_TIERS && w->preset; i++)
        KVCL_CHECK(p->ctx,
                   *first != &kvcl_cache_presets[0] || *n > 1 || !codec_is_said(&w->tier[i]) ||
                       is_raw(w->tier[i].codec),
                   KVCL_E_ARG,
                   "--cache exact keeps every token raw, and --tier %s=%s does not; leave one out",
                   kvcl_wish_names[i], w->tier[i].codec);
    return KVCL_OK;
}

/* Does a last tier have a number of tokens? */
static bool bounded(const kvcl_cache_wish *w)
{
    return w->tier[KVCL_WISH_COLD].tokens > 0 ||
           (!w->tier[KVCL_WISH_COLD].is_given && w->tier[KVCL_WISH_WARM].tokens > 0);
}

kvcl_status kvcl_planner_make(kvcl_ctx *ctx, const kvcl_cache_wish *wish,
                              const kvcl_planner_view *view, kvcl_planner_plan *out)
{
    planner p = {.ctx = ctx, .wish = wish, .view = view};
    const kvcl_cache_preset *first = kvcl_cache_presets;
    size_t n = 1;
    KVCL_TRY(candidates(&p, &first, &n));
    KVCL_CHECK(ctx, !wish->drop_oldest || wish->budget_bytes || bounded(wish), KVCL_E_ARG,
               "--drop-oldest: nothing says when the cache is full; give the cold tier a number of "
               "tokens (--tier cold=quant4:4096) or the cache a size (--cache-mem)");
    for (size_t i = 0; i < n; i++)
        if (try_candidate(&p, &first[i], wish->drop_oldest && i + 1 == n)) {
            tell_choice(&p, &first[i], n > 1);
            *out = p.plan;
            return KVCL_OK;
        }
    return refuse(&p, n == 1);
}
