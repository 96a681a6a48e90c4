/* test_allocfail.c - every path that creates something, with allocation number k failing, k = 1, 2,
 * 3 ... until none fails: a clean status, nothing left behind, no crash.  KVCL_TEST_DEVICES names
 * the device (its first row, without variables). */
#define _POSIX_C_SOURCE 200809L

#include "tiny_model.h"

#include <stdio.h>
#include <stdlib.h>

static char folder[256], path[512], out_path[512];
static const char *device = "cpu";

/* Counts allocations, refuses number `fail_at`. */
typedef struct failing {
    uint64_t n_calls, fail_at, n_live;
    size_t bytes_live;
} failing;

static void *failing_alloc(void *user, size_t bytes)
{
    failing *f = user;
    void *p = NULL;
    if (++f->n_calls == f->fail_at || posix_memalign(&p, 64, bytes) != 0)
        return NULL;
    f->n_live++;
    f->bytes_live += bytes;
    return p;
}

static void failing_free(void *user, void *p, size_t bytes)
{
    failing *f = user;
    test_true(p && f->n_live > 0 && f->bytes_live >= bytes);
    f->n_live--;
    f->bytes_live -= bytes;
    free(p);
}

static void setup(void)
{
    static char names[TEST_MAX_ROWS][128];
    if (getenv("KVCL_TEST_DEVICES") && test_row_names(names) > 0)
        device = names[0];
    tiny_model m = tiny_llama(KVCL_F16);
    m.untied = true;
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/in.gguf", folder);
    snprintf(out_path, sizeof out_path, "%s/out.gguf", folder);
    tiny_model_write(&m, path);
}

static void teardown(void) { test_folder_remove(folder); }

/* What one path needs and makes; freed as far as it came. */
typedef struct world {
    kvcl_ctx *ctx;
    kvcl_dev *dev;
    kvcl_model *model;
    kvcl_engine *engine;
    kvcl_session *session;
    kvcl_sampler *sampler;
    int32_t *tokens;
} world;

static void world_free(world *w)
{
    kvcl_sampler_free(w->sampler);
    kvcl_session_free(w->session);
    kvcl_engine_free(w->engine);
    if (w->model)
        kvcl_tokens_free(w->model, w->tokens);
    kvcl_model_close(w->model);
    kvcl_device_close(w->dev);
    kvcl_ctx_free(w->ctx);
}

static kvcl_status open_device(world *w) { return kvcl_device_open(w->ctx, device, &w->dev); }

static kvcl_status list_devices(world *w)
{
    kvcl_device_info info[4];
    size_t n;
    return kvcl_device_list(w->ctx, info, 4, &n);
}

static kvcl_status open_model(world *w) { return kvcl_model_open(w->ctx, path, &w->model); }

static kvcl_status tokenize(world *w)
{
    static const char text[] = "the thing on the end of the tent, and 42 \xc3\xa9t\xc3\xa9 \xff!";
    size_t n;
    KVCL_TRY(open_model(w));
    return kvcl_tokenize(w->model, text, sizeof text - 1, 1, &w->tokens, &n);
}

static kvcl_status sampler(world *w)
{
    kvcl_sampler_options opt = kvcl_sampler_defaults();
    float logits[TINY_VOCAB] = {0};
    int32_t token;
    opt.repeat_penalty = 1.1f;
    KVCL_TRY(kvcl_sampler_create(w->ctx, &opt, TINY_VOCAB, &w->sampler));
    kvcl_sampler_accept(w->sampler, 3);
    return kvcl_sampler_pick(w->sampler, logits, &token);
}

static kvcl_status quantize(world *w)
{
    return kvcl_quantize_file(w->ctx, path, out_path, KVCL_Q4_0, NULL, NULL);
}

static kvcl_status generate(world *w)
{
    float logits[TINY_VOCAB];
    int32_t tokens[70] = {0};
    kvcl_session_options opt = kvcl_session_defaults();
    opt.n_ctx = 128;
    KVCL_TRY(open_device(w));
    KVCL_TRY(open_model(w));
    KVCL_TRY(kvcl_engine_create(w->model, w->dev, &w->engine));
    KVCL_TRY(kvcl_session_create(w->engine, &opt, &w->session));
    KVCL_TRY(kvcl_session_prefill(w->session, tokens, 70, 1, logits, NULL, NULL));
    return kvcl_session_decode(w->session, 5, logits);
}

static const struct {
    const char *name;
    kvcl_status (*play)(world *w);
} paths[] = {
    {"open device", open_device}, {"list devices", list_devices}, {"open model", open_model},
    {"tokenize", tokenize},       {"sampler", sampler},           {"quantize", quantize},
    {"generate", generate},
};

/* Plays a path with allocation k failing; false when there are fewer than k. */
static bool play(int i, uint64_t k)
{
    failing f = {.fail_at = k};
    const kvcl_allocator hook = {failing_alloc, failing_free, &f};
    const kvcl_ctx_options opt = {.allocator = &hook, .n_threads = 2};
    char sentence[1024] = "";
    world w = {0};
    kvcl_status st = kvcl_ctx_create(&opt, &w.ctx);
    if (st == KVCL_OK)
        st = paths[i].play(&w);
    if (w.ctx)
        snprintf(sentence, sizeof sentence, "%s", kvcl_last_error(w.ctx));
    bool hit = f.n_calls >= k, made = w.ctx != NULL;
    world_free(&w);
    test_require(f.n_live == 0 && f.bytes_live == 0, "%s, allocation %llu: %llu blocks left",
                 paths[i].name, (unsigned long long)k, (unsigned long long)f.n_live);
    /* what is only a comfort (a cache, a list of fast paths) may be done without */
    test_require(hit || st == KVCL_OK, "%s: %s: %s", paths[i].name, kvcl_status_string(st),
                 sentence);
    test_require(st == KVCL_OK || st == KVCL_E_MEM, "%s, allocation %llu: %s: %s", paths[i].name,
                 (unsigned long long)k, kvcl_status_string(st), sentence);
    test_require(st == KVCL_OK || !made || strlen(sentence) > 10, "%s, allocation %llu: '%s'",
                 paths[i].name, (unsigned long long)k, sentence);
    return hit;
}

START_TEST(each_allocation_fails_once)
{
    uint64_t k = 1, n_failed = 0;
    while (play(_i, k)) {
        n_failed++;
        k++;
        test_require(k < 20000, "%s: no end of allocations", paths[_i].name);
    }
    printf("%s: %llu allocations\n", paths[_i].name, (unsigned long long)n_failed);
    fflush(stdout);
    ck_assert_uint_ge(n_failed, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("allocfail");
    TCase *c = tcase_create("allocfail");
    tcase_add_unchecked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, each_allocation_fails_once, 0, (int)kvcl_array_len(paths));
    suite_add_tcase(suite, c);
    return test_main(suite, false);
}
