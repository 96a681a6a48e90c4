/* test_tiers_memory.c - sessions with coded tiers: bytes are what is allocated and what was
 * planned, nothing is allocated while decoding, what cannot be is refused with a sentence. */
#define _POSIX_C_SOURCE 200809L

#include "engine_int.h"
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>

#define V TINY_VOCAB

/* ---- memory -------------------------------------------------------------------------------- */

START_TEST(nothing_is_allocated_after_creation)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    rig_tier_model(false, 2);
    for (size_t i = 0; i < n_rows; i++) {
        test_dev *d = &rows[i];
        uint64_t n_live = kvcl_ctx_mem_stats(d->ctx).n_live;
        size_t dev_before = d->dev->bytes_used;
        kvcl_session_options opt = rig_tiers("quant8", "quant-k3v2", 512);
        opt.tiers[2].on_disk = i % 2;
        rig r = rig_open(d, &opt);
        float *logits = calloc(V, sizeof *logits);
        int32_t tokens[200];
        rig_tokens(tokens, 0, 200);
        rig_ok(d, kvcl_session_prefill(r.session, tokens, 200, 1, logits, NULL, NULL));
        uint64_t n_allocs = kvcl_ctx_mem_stats(d->ctx).n_allocs;
        size_t dev_now = d->dev->bytes_used;
        for (uint32_t k = 0; k < 150; k++)
            rig_ok(d, kvcl_session_decode(r.session, rig_token(k), logits));
        test_require(kvcl_ctx_mem_stats(d->ctx).n_allocs == n_allocs, "%s: %llu allocations",
                     d->row, (unsigned long long)(kvcl_ctx_mem_stats(d->ctx).n_allocs - n_allocs));
        test_true(d->dev->bytes_used == dev_now);
        free(logits);
        rig_close(&r);
        test_require(kvcl_ctx_mem_stats(d->ctx).n_live == n_live, "%s: blocks are left", d->row);
        test_true(d->dev->bytes_used == dev_before);
    }
}
END_TEST

/* Each row of the plan is what the devices count under its name. */
static void check_names(test_dev *d, const rig *r, const kvcl_session_plan *plan)
{
    kvcl_session_plan held;
    kvcl_session_memory(r->session, &held);
    for (uint32_t k = 0; k < plan->n_rows; k++) {
        const kvcl_plan_row *row = &plan->rows[k];
        uint64_t bytes = 0;
        size_t n = strcspn(row->what, ","); /* a codec's name follows */
        for (uint32_t i = 0; i < held.n_rows; i++)
            if (strcmp(held.rows[i].device, row->device) == 0 && !held.rows[i].what[n] &&
                strncmp(held.rows[i].what, row->what, n) == 0)
                bytes += held.rows[i].bytes;
        test_require(bytes == row->bytes, "%s: %s: planned %llu, held %llu", d->row, row->what,
                     (unsigned long long)row->bytes, (unsigned long long)bytes);
    }
    test_true(held.cache_bytes == plan->cache_bytes && held.weight_bytes == plan->weight_bytes);
}

/* Plan, statistics and the device's own count agree to the byte; every other row has its cold tier
 * on disk. */
START_TEST(bytes_are_what_is_allocated)
{
    test_dev *rows;
    size_t n_rows = test_rows(&rows);
    rig_tier_model(false, 2);
    for (size_t i = 0; i < n_rows; i++) {
        test_dev *d = &rows[i];
        kvcl_session_options opt = rig_tiers(rig_configs[_i][0], rig_configs[_i][1], 700);
        opt.tiers[opt.n_tiers - 1].on_disk = i % 2;
        rig r = rig_open(d, &opt);
        kvcl_session_free(r.session);
        size_t before = d->dev->bytes_used;
        rig_ok(d, kvcl_session_create(r.engine, &opt, &r.session));
        size_t held = d->dev->bytes_used - before;
        kvcl_cache_stats st;
        kvcl_session_plan plan;
        kvcl_session_cache_stats(r.session, &st);
        rig_ok(d, kvcl_session_plan_make(r.model, d->dev, &opt, &plan));
        uint64_t weights = 0, activations = 0;
        for (uint32_t k = 0; k < plan.n_rows; k++) {
            if (strcmp(plan.rows[k].what, "weights") == 0)
                weights = plan.rows[k].bytes;
            if (strcmp(plan.rows[k].what, "activations") == 0)
                activations = plan.rows[k].bytes;
        }
        test_true(weights && activations);
        test_require(plan.total_bytes - weights == held, "%s: planned %llu, held %zu", d->row,
                     (unsigned long long)(plan.total_bytes - weights), held);
        test_require(st.total_bytes + activations == held, "%s: told %llu, held %zu", d->row,
                     (unsigned long long)(st.total_bytes + activations), held);
        test_true(plan.cache_bytes == kvcl_session_cache_bytes(r.session));
        test_true(plan.disk_bytes == st.disk_bytes);
        test_true((st.disk_bytes > 0) == opt.tiers[opt.n_tiers - 1].on_disk);
        for (uint32_t t = 0; t < st.n_tiers; t++) {
            uint64_t parts = 0;
            for (int p = 0; p < 4; p++)
                parts += st.tiers[t].part_bytes[p];
            test_true(parts == st.tiers[t].bytes);
        }
        check_names(d, &r, &plan);
        rig_close(&r);
    }
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------------ */

static void expect(test_dev *d, rig *r, kvcl_session_options opt, kvcl_status want,
                   const char *word)
{
    kvcl_session *none = NULL;
    kvcl_status st = kvcl_session_create(r->engine, &opt, &none);
    test_require(st == want && !none, "%s, not %s", kvcl_status_string(st),
                 kvcl_status_string(want));
    test_require(strstr(kvcl_last_error(d->ctx), word), "'%s' lacks '%s'", kvcl_last_error(d->ctx),
                 word);
}

START_TEST(impossible_tiers_are_refused)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = rig_tiers("quant8", "quant2", 512), bad;
    rig r = rig_open(d, &opt);
    bad = opt, bad.tiers[2].codec = "quant5";
    expect(d, &r, bad, KVCL_E_ARG, "quant5");
    bad = opt, bad.tiers[1].tokens = 0;
    expect(d, &r, bad, KVCL_E_ARG, "capacity");
    bad = opt, bad.tiers[2].tokens = 64;
    expect(d, &r, bad, KVCL_E_ARG, "last tier");
    bad = opt, bad.n_sink = 100;
    expect(d, &r, bad, KVCL_E_ARG, "sink");
    kvcl_dev *other = NULL;
    rig_ok(d, kvcl_device_open(d->ctx, "cpu:scalar", &other));
    bad = opt, bad.tiers[0].dev = other;
    expect(d, &r, bad, KVCL_E_ARG, "hot tier");
    kvcl_device_close(other);
    bad = opt, bad.n_tiers = 4;
    expect(d, &r, bad, KVCL_E_ARG, "tiers");
    rig_close(&r);
    tiny_model m = tiny_llama(KVCL_F16); /* heads of 16 */
    tiny_model_write(&m, rig_path());
    kvcl_session_options raw = kvcl_session_defaults();
    r = rig_open(d, &raw);
    expect(d, &r, opt, KVCL_E_UNSUPPORTED, "head dimension");
    rig_close(&r);
}
END_TEST

/* Overwrites one weight of blk.1.attn_v with a value that is not a number. */
static void spoil_model(test_dev *d)
{
    kvcl_model *model;
    rig_ok(d, kvcl_model_open(d->ctx, rig_path(), &model));
    const kvcl_gguf_tensor *t = kvcl_gguf_tensor_find(&model->gguf, "blk.1.attn_v.weight");
    size_t n, at;
    unsigned char *bytes = test_read_file(rig_path(), &n), first[64];
    memcpy(first, t->data, sizeof first);
    for (at = 0; memcmp(bytes + at, first, sizeof first) != 0; at++)
        test_true(at + sizeof first < n);
    kvcl_model_close(model);
    bytes[at] = 0x01, bytes[at + 1] = 0x7e;
    test_write_file(rig_path(), bytes, n);
    free(bytes);
}

START_TEST(values_that_are_no_numbers_are_named)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    spoil_model(d);
    kvcl_session_options opt = rig_tiers(NULL, _i ? "q8_0" : "quant4", 512);
    rig r = rig_open(d, &opt);
    int32_t tokens[200];
    rig_tokens(tokens, 0, 200);
    ck_assert_int_eq(kvcl_session_prefill(r.session, tokens, 200, 0, NULL, NULL, NULL),
                     KVCL_E_NOT_FINITE);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(d->ctx), "layer 1, token 0:"));
    ck_assert_uint_eq(kvcl_session_n_tokens(r.session), 0);
    rig_close(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tiers_memory");
    TCase *c = tcase_create("memory");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_add_test(c, nothing_is_allocated_after_creation);
    tcase_add_loop_test(c, bytes_are_what_is_allocated, 0, rig_n_configs);
    tcase_add_test(c, impossible_tiers_are_refused);
    tcase_add_loop_test(c, values_that_are_no_numbers_are_named, 0, 2);
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
