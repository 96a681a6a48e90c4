/* test_planner.c - wishes from text, and plans from tables of views: no device is touched. */
#include "planner.h"
#include "test.h"

#include <stdio.h>

#define MIB ((uint64_t)1 << 20)

static kvcl_ctx *ctx;

static void open_ctx(void) { ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK); }
static void close_ctx(void)
{
    kvcl_ctx_free(ctx);
    ctx = NULL;
}

/* ---- text ---------------------------------------------------------------------------------- */

typedef struct text_case {
    const char *text;
    int tier;
    const char *device, *codec;
    uint32_t tokens;
} text_case;

START_TEST(tiers_are_read)
{
    static const text_case cases[] = {
        {"hot=gpu:raw:64", KVCL_WISH_HOT, "gpu", "raw", 64},
        {"hot=f32", KVCL_WISH_HOT, "", "f32", 0},
        {"cold=quant-k3v2", KVCL_WISH_COLD, "", "quant-k3v2", 0},
        {"warm=quant8:512", KVCL_WISH_WARM, "", "quant8", 512},
        {"cold=opencl:pocl:0:quant4", KVCL_WISH_COLD, "opencl:pocl:0", "quant4", 0},
        {"cold=opencl:pocl:0:quant4:8192", KVCL_WISH_COLD, "opencl:pocl:0", "quant4", 8192},
        {"cold=0:quant4/post:1", KVCL_WISH_COLD, "0", "quant4/post", 1},
        {"cold=cpu:q8_0", KVCL_WISH_COLD, "cpu", "q8_0", 0},
        {"cold=quant4/pre", KVCL_WISH_COLD, "", "quant4", 0},
        {"cold=quant-k4v4", KVCL_WISH_COLD, "", "quant4", 0},
        {"cold=cpu:auto", KVCL_WISH_COLD, "cpu", "", 0},
        {"hot=auto:16777216", KVCL_WISH_HOT, "", "", 16777216},
        {"cold=NVIDIA H200:raw", KVCL_WISH_COLD, "NVIDIA H200", "raw", 0},
        {"warm=disk:rest1.3:64", KVCL_WISH_WARM, "disk", "rest1.3", 64},
        {"cold=disk:auto", KVCL_WISH_COLD, "disk", "", 0},
    };
    for (size_t i = 0; i < kvcl_array_len(cases); i++) {
        const text_case *c = &cases[i];
        kvcl_cache_wish w = {0};
        ck_assert(kvcl_wish_is_empty(&w));
        ck_assert_msg(kvcl_wish_add_tier(ctx, "--tier", c->text, &w) == KVCL_OK, "%s",
                      kvcl_last_error(ctx));
        for (int t = 0; t < KVCL_MAX_TIERS; t++)
            ck_assert_int_eq(w.tier[t].is_given, t == c->tier);
        ck_assert_str_eq(w.tier[c->tier].device, c->device);
        ck_assert_str_eq(w.tier[c->tier].codec, c->codec);
        ck_assert_uint_eq(w.tier[c->tier].tokens, c->tokens);
        ck_assert(!kvcl_wish_is_empty(&w));
    }
}
END_TEST

START_TEST(lists_of_tiers_are_read)
{
    kvcl_cache_wish w = {0};
    ck_assert_int_eq(
        kvcl_wish_add_tier(ctx, "KVCL_TIER", "hot=raw:128,cold=opencl:pocl:0:quant4", &w), KVCL_OK);
    ck_assert_int_eq(kvcl_wish_add_tier(ctx, "--tier", "warm=quant8", &w), KVCL_OK);
    ck_assert_uint_eq(w.tier[KVCL_WISH_HOT].tokens, 128);
    ck_assert_str_eq(w.tier[KVCL_WISH_WARM].codec, "quant8");
    ck_assert_str_eq(w.tier[KVCL_WISH_COLD].device, "opencl:pocl:0");
}
END_TEST

START_TEST(bad_tiers_are_refused)
{
    static const char *const cases[][2] = {
        {"", "no ="},
        {"quant4", "no ="},
        {"lukewarm=quant4", "'lukewarm'"},
        {"=quant4", "no tier is called ''"},
        {"Hot=raw", "'Hot'"},
        {"cold=", "'' is no codec"},
        {"cold=quant5", "'quant5' is no codec"},
        {"cold=cpu:quant5", "'quant5' is no codec"},
        {"cold=opencl:pocl:0", "'pocl' is no codec"},
        {"cold=quant44", "'quant44'"},
        {"cold=quant4x", "'quant4x'"},
        {"cold=quant-k0v4", "'quant-k0v4'"},
        {"cold=quant4/deep", "'quant4/deep'"},
        {"cold=Q8_0", "'Q8_0'"},
        {"cold=512", "'512' is no codec"},
        {"cold=quant4:many", "'many' is no number of tokens"},
        {"cold=quant4:", "'' is no number"},
        {"cold=quant4:0", "'0' is no number"},
        {"cold=quant4:-1", "'-1' is no number"},
        {"cold=quant4:16777217", "'16777217'"},
        {"cold=quant4:99999999999999999999", "'99999999999999999999'"},
        {"cold=quant4:64:64", "stands behind the number"},
        {"cold=:quant4", "empty"},
        {"hot=quant8:64", "the hot tier is raw"},
        {"hot=disk:raw:64", "in the memory of the model's device"},
        {"cold=disk", "'disk' is no codec"},
        {"cold=disk:quant4:0", "'0' is no number"},
        {"hot=raw,hot=raw", "give each tier once"},
        {"hot=raw,", "no ="},
        {"cold=a:b:c:d:e:f:g:h:i:j:k:l:m:quant4", "too many colons"},
        {"cold=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx:quant4",
         "too long"},
    };
    for (size_t i = 0; i < kvcl_array_len(cases); i++) {
        kvcl_cache_wish w = {0};
        const char *part = cases[i][1];
        ck_assert_msg(kvcl_wish_add_tier(ctx, "--tier", cases[i][0], &w) == KVCL_E_ARG, "'%s'",
                      cases[i][0]);
        const char *says = kvcl_last_error(ctx);
        ck_assert_msg(strstr(says, "--tier '") == says, "'%s'", says);
        ck_assert_msg(strstr(says, part) != NULL, "'%s' says '%s'", cases[i][0], says);
    }
    /* a long word is cut, not overrun */
    char lengthy[2000];
    kvcl_cache_wish w = {0};
    memset(lengthy, 'x', sizeof lengthy - 1);
    lengthy[sizeof lengthy - 1] = 0;
    ck_assert_int_eq(kvcl_wish_add_tier(ctx, "--tier", lengthy, &w), KVCL_E_ARG);
    memcpy(lengthy, "cold=", 5);
    ck_assert_int_eq(kvcl_wish_add_tier(ctx, "--tier", lengthy, &w), KVCL_E_ARG);
}
END_TEST

/* ---- a made-up machine --------------------------------------------------------------------- */

#define N_LAYERS 8
static kvcl_kv_shape shape = {
    .n_q_heads = 8, .n_kv_heads = 4, .head_dim = 64, .n_rot = 64, .pairing = KVCL_ROPE_ADJACENT};

typedef struct machine {
    kvcl_planner_view view;
    uint64_t weight_bytes;
    uint32_t n_sizes; /* calls */
} machine;

static void add_row(kvcl_session_plan *s, const char *device, const char *what, const char *codec,
                    uint64_t bytes)
{
    kvcl_plan_row *r = &s->rows[s->n_rows++];
    snprintf(r->device, sizeof r->device, "%.63s", device);
    snprintf(r->what, sizeof r->what, "%s%s", what, codec);
    r->bytes = bytes;
    s->total_bytes += bytes;
}

/* Weights and 1 MiB of scratch on the engine's device; a tier's pages on its own. */
static kvcl_status size_of(void *user, const kvcl_planner_choice *c, kvcl_session_plan *out)
{
    machine *m = user;
    const kvcl_planner_device *devices = m->view.devices;
    uint32_t left = kvcl_div_up(c->n_ctx, KVCL_PAGE_TOKENS);
    memset(out, 0, sizeof *out);
    m->n_sizes++;
    add_row(out, devices[0].id, "weights", "", m->weight_bytes);
    add_row(out, devices[0].id, "scratch", "", MIB);
    for (uint32_t i = 0; i < c->n_tiers; i++) {
        const kvcl_planner_tier *t = &c->tiers[i];
        kvcl_codec_spec spec;
        kvcl_codec_plan plan;
        char what[32];
        KVCL_TRY(kvcl_codec_parse(ctx, t->codec, &spec));
        KVCL_TRY(kvcl_codec_plan_make(ctx, &spec, &shape, &plan));
        uint32_t pages = t->tokens ? kvcl_div_up(t->tokens, KVCL_PAGE_TOKENS) : left;
        pages = kvcl_min_u32(pages, left);
        left -= pages;
        uint64_t bytes = (uint64_t)(pages * plan.page_bytes + plan.basis_bytes) * N_LAYERS;
        snprintf(what, sizeof what, c->n_tiers > 1 ? "%s tier, " : "cache, ",
                 kvcl_wish_names[t->wish]);
        add_row(out, t->on_disk ? "disk" : devices[t->device].id, what, t->codec, bytes);
        *(t->on_disk ? &out->disk_bytes : &out->cache_bytes) += bytes;
    }
    return KVCL_OK;
}

/* A GPU with `gpu` bytes, 100 times as fast as the CPU. */
static void machine_init(machine *m, uint64_t gpu, uint64_t cpu)
{
    *m = (machine){.weight_bytes = 60 * MIB,
                   .view = {.n_devices = 2,
                            .tier_device = {-1, -1, -1},
                            .n_ctx = 8192,
                            .n_layers = N_LAYERS,
                            .raw = "f16",
                            .size = size_of}};
    m->view.user = m;
    m->view.devices[0] = (kvcl_planner_device){.id = "opencl:x:0",
                                               .may_choose = true,
                                               .mem_bytes = gpu,
                                               .mem_what = "memory",
                                               .copy_bytes_per_s = 1e12,
                                               .launch_ns = 5000};
    m->view.devices[1] = (kvcl_planner_device){.id = "cpu",
                                               .may_choose = true,
                                               .mem_bytes = cpu,
                                               .mem_what = "KVCL_MEM_LIMIT",
                                               .copy_bytes_per_s = 1e10,
                                               .launch_ns = 1000};
}

/* The choice as a line: "hot=0:f16:256 cold=1:quant4". */
static const char *line_of(const kvcl_planner_choice *c)
{
    static char line[256];
    size_t n = 0;
    line[0] = 0;
    for (uint32_t i = 0; i < c->n_tiers; i++) {
        const kvcl_planner_tier *t = &c->tiers[i];
        char place[12];
        snprintf(place, sizeof place, "%u", (unsigned)t->device);
        n += (size_t)snprintf(line + n, sizeof line - n, "%s%s=%s:%s", i ? " " : "",
                              kvcl_wish_names[t->wish], t->on_disk ? "disk" : place, t->codec);
        if (t->tokens)
            n += (size_t)snprintf(line + n, sizeof line - n, ":%u", (unsigned)t->tokens);
    }
    return line;
}

/* ---- plans --------------------------------------------------------------------------------- */

typedef struct plan_case {
    const char *preset, *tiers;
    uint64_t budget, gpu, cpu; /* MiB */
    const char *want;          /* the choice; NULL: refused */
    const char *says;          /* in a reason, or in the refusal */
    kvcl_status status;
} plan_case;

/* Raw, a token takes 8 KiB: 64 MiB for 8192; quant4 18.5 MiB with its hot tokens, k3v2 11.8,
 * quant2 9.4. */
#define SMALL "superpose8-2.25"
#define SMALLEST "superpose8-1.75"

static const plan_case cases[] = {
    /* what is said is done */
    {NULL, NULL, 0, 999, 999, "hot=0:f16", "nothing else", KVCL_OK},
    {"exact", NULL, 0, 999, 999, "hot=0:f16", NULL, KVCL_OK},
    {"balanced", NULL, 0, 999, 999, "hot=0:f16:256 cold=0:quant4", NULL, KVCL_OK},
    {"small", NULL, 0, 999, 999, "hot=0:f16:128 cold=0:quant-k3v2", NULL, KVCL_OK},
    {"smallest", NULL, 0, 999, 999, "hot=0:f16:64 cold=0:quant2", NULL, KVCL_OK},
    {NULL, "cold=quant3", 0, 999, 999, "hot=0:f16:256 cold=0:quant3", NULL, KVCL_OK},
    {NULL, "hot=raw:64,cold=@quant3", 0, 999, 999, "hot=0:f16:64 cold=1:quant3", NULL, KVCL_OK},
    {NULL, "hot=f32:64,warm=quant8:512,cold=quant2", 0, 999, 999,
     "hot=0:f32:64 warm=0:quant8:512 cold=0:quant2", NULL, KVCL_OK},
    {NULL, "hot=#raw:64,warm=quant8:512,cold=@q8_0", 0, 999, 999,
     "hot=0:f16:64 warm=0:quant8:512 cold=1:q8_0", NULL, KVCL_OK},
    {NULL, "hot=@raw:64,cold=quant4", 0, 999, 999, NULL, "on the model's device", KVCL_E_ARG},
    {NULL, "warm=quant8", 0, 999, 999, "hot=0:f16:256 warm=0:quant8", NULL, KVCL_OK},
    {NULL, "warm=quant8:512", 0, 999, 999, "hot=0:f16:256 warm=0:quant8:512 cold=0:quant4",
     "no room", KVCL_OK},
    {NULL, "warm=auto,cold=quant2", 0, 999, 999, "hot=0:f16:256 warm=0:quant8:512 cold=0:quant2",
     NULL, KVCL_OK},
    {NULL, "hot=raw:64", 0, 999, 999, "hot=0:f16", "not used", KVCL_OK},
    {NULL, "cold=@raw", 0, 999, 999, "hot=0:f16:256 cold=1:f16", NULL, KVCL_OK},
    {NULL, "cold=@auto", 0, 999, 999, "hot=0:f16:256 cold=1:f16", NULL, KVCL_OK},
    /* a preset with parts of its own */
    {"small", "cold=@auto", 0, 999, 999, "hot=0:f16:128 cold=1:quant-k3v2", NULL, KVCL_OK},
    {"small", "hot=raw:512", 0, 999, 999, "hot=0:f16:512 cold=0:quant-k3v2", NULL, KVCL_OK},
    {"small", "cold=quant8", 0, 999, 999, "hot=0:f16:128 cold=0:quant8", NULL, KVCL_OK},
    {"balanced", "warm=@auto", 0, 999, 999, "hot=0:f16:256 warm=1:quant8:512 cold=0:quant4", NULL,
     KVCL_OK},
    {"exact", "cold=@auto", 0, 999, 999, "hot=0:f16:256 cold=1:f16", NULL, KVCL_OK},
    {"exact", "cold=quant4", 0, 999, 999, NULL, "--cache exact", KVCL_E_ARG},
    {"tiny", NULL, 0, 999, 999, NULL, "'tiny'", KVCL_E_ARG},
    /* a budget chooses the best preset that fits it, on every machine the same */
    {NULL, NULL, 64, 999, 999, "hot=0:f16", "best preset", KVCL_OK},
    {NULL, NULL, 63, 999, 999, "hot=0:f16:256 cold=0:quant4", "best preset", KVCL_OK},
    {NULL, NULL, 15, 999, 999, "hot=0:f16:128 cold=0:quant-k3v2", "best preset", KVCL_OK},
    {NULL, NULL, 10, 999, 999, "hot=0:f16:64 cold=0:quant2", "best preset", KVCL_OK},
    {NULL, "cold=@auto", 15, 999, 999, "hot=0:f16:128 cold=1:quant-k3v2", "best preset", KVCL_OK},
    {NULL, NULL, 5, 999, 999, NULL, "smallest: 9.4 MiB", KVCL_E_MEM},
    {"balanced", NULL, 30, 999, 999, "hot=0:f16:256 cold=0:quant4", "allows 30.0 MiB", KVCL_OK},
    {"balanced", NULL, 10, 999, 999, NULL, "--cache-mem is 10.0 MiB; take -c", KVCL_E_MEM},
    {NULL, "cold=quant8", 30, 999, 999, NULL, "raise --cache-mem", KVCL_E_MEM},
    /* the engine's device is full: coded tokens go to the CPU, raw ones stay unless told */
    {"balanced", NULL, 0, 70, 999, "hot=0:f16:256 cold=1:quant4", "cold tier on cpu", KVCL_OK},
    {"balanced", "cold=#auto", 0, 70, 999, NULL, "whose memory is 70.0 MiB", KVCL_E_DEVICE_MEM},
    {"balanced", "warm=quant8:1024", 0, 65, 999, "hot=0:f16:256 warm=1:quant8:1024 cold=1:quant4",
     "cold tier on cpu", KVCL_OK},
    {"balanced", NULL, 0, 70, 5, NULL, "opencl:x:0", KVCL_E_DEVICE_MEM},
    {NULL, NULL, 0, 70, 999, NULL, "--tier cold=cpu:raw", KVCL_E_DEVICE_MEM},
    {"exact", NULL, 0, 70, 999, NULL, "a smaller --cache", KVCL_E_DEVICE_MEM},
    {NULL, NULL, 64, 70, 999, "hot=0:f16:256 cold=1:quant4", "best preset", KVCL_OK},
    /* on disk: in no budget and on no device, and there it stays */
    {"balanced", "cold=disk:auto", 9, 999, 999, "hot=0:f16:256 cold=disk:quant4", "allows 9.0 MiB",
     KVCL_OK},
    {"exact", "cold=disk:auto", 0, 70, 5, "hot=0:f16:256 cold=disk:f16", NULL, KVCL_OK},
    {"small", "warm=quant8:2048,cold=disk:auto", 0, 65, 999,
     "hot=0:f16:128 warm=1:quant8:2048 cold=disk:quant-k3v2", "warm tier on cpu", KVCL_OK},
    {"balanced", "hot=raw:2048,cold=disk:auto", 0, 65, 999, NULL, "opencl:x:0", KVCL_E_DEVICE_MEM},
    /* auto: quality first, then the place */
    {"auto", NULL, 0, 999, 999, "hot=0:f16", "fits the devices", KVCL_OK},
    {"auto", NULL, 0, 70, 999, "hot=0:f16:1152 cold=1:f16", "cold tier on cpu", KVCL_OK},
    {"auto", NULL, 0, 70, 30, "hot=0:f16:256 cold=1:quant4", "cold tier on cpu", KVCL_OK},
    {"auto", NULL, 0, 85, 5, "hot=0:f16:256 cold=0:quant4", "fits the devices", KVCL_OK},
    {"auto", NULL, 0, 61, 999, NULL, "smallest", KVCL_E_DEVICE_MEM},
    {NULL, NULL, 0, 30, 999, NULL, "smaller", KVCL_E_DEVICE_MEM},
};

/* What learns comes where the prompt is long enough: tokens of the prompt, 0: not known. */
typedef struct prompt_case {
    uint32_t n_prompt;
    plan_case plan;
} prompt_case;

static const prompt_case prompt_cases[] = {
    {1024, {"small", NULL, 0, 999, 999, "hot=0:f16:128 cold=0:" SMALL, "slower on CPUs", KVCL_OK}},
    {8192,
     {"smallest", NULL, 0, 999, 999, "hot=0:f16:64 cold=0:" SMALLEST, "better than quant2",
      KVCL_OK}},
    {1023,
     {"small", NULL, 0, 999, 999, "hot=0:f16:128 cold=0:quant-k3v2", "1024 tokens or more (1023)",
      KVCL_OK}},
    {0, {"small", NULL, 0, 999, 999, "hot=0:f16:128 cold=0:quant-k3v2", "is not known", KVCL_OK}},
    {8192, {"small", "cold=@auto", 0, 999, 999, "hot=0:f16:128 cold=1:" SMALL, NULL, KVCL_OK}},
    {8192, {"small", "cold=quant8", 0, 999, 999, "hot=0:f16:128 cold=0:quant8", NULL, KVCL_OK}},
    {8192, {"balanced", NULL, 0, 999, 999, "hot=0:f16:256 cold=0:quant4", NULL, KVCL_OK}},
    {8192, {NULL, NULL, 15, 999, 999, "hot=0:f16:128 cold=0:" SMALL, "best preset", KVCL_OK}},
    {8192, {NULL, NULL, 5, 999, 999, NULL, "smallest: ", KVCL_E_MEM}},
    {8192, {"small", NULL, 0, 65, 999, "hot=0:f16:128 cold=1:" SMALL, "cold tier on cpu", KVCL_OK}},
};

/* "@" before a codec stands for the second device, "#" for the first. */
static void wish_of(const plan_case *c, kvcl_planner_view *v, kvcl_cache_wish *w)
{
    char text[256];
    size_t n = 0;
    *w = (kvcl_cache_wish){.preset = c->preset, .budget_bytes = c->budget * MIB};
    for (const char *p = c->tiers ? c->tiers : ""; *p; p++)
        n += (size_t)snprintf(text + n, sizeof text - n,
                              *p == '@'   ? "cpu:"
                              : *p == '#' ? "gpu:"
                                          : "%c",
                              *p);
    if (n)
        ck_assert_msg(kvcl_wish_add_tier(ctx, "--tier", text, w) == KVCL_OK, "%s",
                      kvcl_last_error(ctx));
    for (int i = 0; i < KVCL_MAX_TIERS; i++)
        if (w->tier[i].device[0])
            v->tier_device[i] = strcmp(w->tier[i].device, KVCL_WISH_DISK) == 0
                                    ? KVCL_PLANNER_DISK
                                    : strcmp(w->tier[i].device, "cpu") == 0;
}

static void check_plan(size_t i, const plan_case *c, const kvcl_planner_plan *plan)
{
    ck_assert_msg(strcmp(line_of(&plan->choice), c->want) == 0, "case %zu: %s, not %s", i,
                  line_of(&plan->choice), c->want);
    ck_assert_uint_eq(plan->choice.n_ctx, 8192);
    bool said = !c->says;
    for (uint32_t r = 0; r < plan->n_reasons; r++)
        said = said || strstr(plan->reasons[r], c->says);
    ck_assert_msg(said, "case %zu: no reason '%s' among %u, first '%s'", i, c->says,
                  (unsigned)plan->n_reasons, plan->reasons[0]);
    ck_assert((plan->read_s > 0) == (plan->sizes.disk_bytes == 0));
    ck_assert_uint_gt(plan->sizes.cache_bytes, 0);
}

static void make_plan(size_t i, const plan_case *c, uint32_t n_prompt)
{
    machine m;
    kvcl_cache_wish w;
    kvcl_planner_plan plan;
    machine_init(&m, c->gpu * MIB, c->cpu * MIB);
    wish_of(c, &m.view, &w);
    w.n_prompt = n_prompt;
    kvcl_status st = kvcl_planner_make(ctx, &w, &m.view, &plan);
    ck_assert_msg(st == c->status, "case %zu: status %d, '%s'", i, st, kvcl_last_error(ctx));
    if (st == KVCL_OK)
        check_plan(i, c, &plan);
    else
        ck_assert_msg(strstr(kvcl_last_error(ctx), c->says) != NULL, "case %zu says '%s'", i,
                      kvcl_last_error(ctx));
}

START_TEST(plans)
{
    for (size_t i = 0; i < kvcl_array_len(cases); i++)
        make_plan(i, &cases[i], 0);
    for (size_t i = 0; i < kvcl_array_len(prompt_cases); i++)
        make_plan(i, &prompt_cases[i].plan, prompt_cases[i].n_prompt);
}
END_TEST

/* The longest context that a refusal names does fit, and a page more does not. */
START_TEST(refusals_name_what_fits)
{
    for (uint64_t budget = 2; budget <= 40; budget += 7) {
        machine m;
        kvcl_planner_plan plan;
        const kvcl_cache_wish w = {.preset = "balanced", .budget_bytes = budget * MIB};
        machine_init(&m, 999 * MIB, 999 * MIB);
        m.view.n_ctx = 65536;
        ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_E_MEM);
        const char *at = strstr(kvcl_last_error(ctx), "take -c ");
        unsigned n = 0;
        ck_assert_msg(at && sscanf(at, "take -c %u", &n) == 1, "'%s'", kvcl_last_error(ctx));
        m.view.n_ctx = n;
        ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_OK);
        m.view.n_ctx = n + 64;
        ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_E_MEM);
    }
}
END_TEST

/* A model whose heads no codec takes has its raw rows; presets are not tried in vain. */
/* Bases pay from some thousand tokens on: shorter contexts get what needs none. */
START_TEST(short_contexts_get_no_bases)
{
    for (uint32_t n_ctx = 1024; n_ctx <= 16384; n_ctx *= 4) {
        machine m;
        kvcl_planner_plan plan;
        kvcl_cache_wish w = {.preset = "small", .n_prompt = 1024};
        machine_init(&m, 999 * MIB, 999 * MIB);
        m.view.n_ctx = n_ctx;
        ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_OK);
        const char *codec = plan.choice.tiers[1].codec;
        ck_assert_str_eq(codec, n_ctx < 4096 ? "quant-k3v2" : SMALL);
        ck_assert_ptr_nonnull(
            strstr(plan.reasons[0], n_ctx < 4096 ? "bases make it larger at 1024" : "better than"));
    }
}
END_TEST

START_TEST(models_that_codecs_do_not_take)
{
    machine m;
    kvcl_planner_plan plan;
    kvcl_cache_wish w = {.preset = "small"};
    shape.head_dim = 48;
    machine_init(&m, 999 * MIB, 999 * MIB);
    ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "head dimension"));
    w = (kvcl_cache_wish){.budget_bytes = 100 * MIB};
    ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_OK);
    ck_assert_str_eq(line_of(&plan.choice), "hot=0:f16");
    w.budget_bytes = MIB; /* 6 KiB a token */
    ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_E_MEM);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "take -c 128 or less"));
    shape.head_dim = 64;
}
END_TEST

/* A device that was not probed, or is not exact, and one that is faster. */
START_TEST(the_faster_device_is_taken)
{
    machine m;
    kvcl_planner_plan plan;
    const kvcl_cache_wish w = {.preset = "balanced"};
    machine_init(&m, 70 * MIB, 999 * MIB);
    m.view.n_devices = 3;
    m.view.devices[2] = m.view.devices[0];
    m.view.devices[2].mem_bytes = 999 * MIB;
    memcpy(m.view.devices[2].id, "opencl:y:0", 11);
    ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_OK);
    ck_assert_str_eq(line_of(&plan.choice), "hot=0:f16:256 cold=2:quant4");
    m.view.devices[2].may_choose = false;
    ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_OK);
    ck_assert_str_eq(line_of(&plan.choice), "hot=0:f16:256 cold=1:quant4");
    m.view.devices[1].copy_bytes_per_s = 0;
    ck_assert_int_eq(kvcl_planner_make(ctx, &w, &m.view, &plan), KVCL_OK);
    ck_assert_str_eq(line_of(&plan.choice), "hot=0:f16:256 cold=1:quant4");
    ck_assert(plan.read_s == 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("planner");
    TCase *t = tcase_create("planner");
    tcase_add_checked_fixture(t, open_ctx, close_ctx);
    tcase_add_test(t, tiers_are_read);
    tcase_add_test(t, lists_of_tiers_are_read);
    tcase_add_test(t, bad_tiers_are_refused);
    tcase_add_test(t, plans);
    tcase_add_test(t, refusals_name_what_fits);
    tcase_add_test(t, short_contexts_get_no_bases);
    tcase_add_test(t, models_that_codecs_do_not_take);
    tcase_add_test(t, the_faster_device_is_taken);
    suite_add_tcase(s, t);
    return test_main(s, false);
}
