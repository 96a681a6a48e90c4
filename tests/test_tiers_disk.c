/* test_tiers_disk.c - tiers on disk: the bits of memory, in every codec and through fork, rewind
 * and several sessions; files that leave nothing behind; damage and full disks told with a
 * sentence. */
#define _POSIX_C_SOURCE 200809L

#include "cache_int.h"
#include "rig.h"
#include "session_int.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define V TINY_VOCAB

/* Beside rig_configs: the codecs that it has none of. */
static const char *const more_configs[][2] = {
    {"holo4-mmse", "factor-k8v16"}, {NULL, "holo2-chip"}, {"f32", NULL}};

static int n_configs(void) { return rig_n_configs + (int)kvcl_array_len(more_configs); }

/* Configuration i with the tiers that the bits of `disk` name on disk. */
static kvcl_session_options options(int i, unsigned disk)
{
    const char *const *pair = i < rig_n_configs ? rig_configs[i] : more_configs[i - rig_n_configs];
    bool f32 = !pair[1];
    kvcl_session_options o = rig_tiers(f32 ? NULL : pair[0], f32 ? pair[0] : pair[1], 512);
    if (f32)
        o.type_k = o.type_v = KVCL_F32;
    for (uint32_t t = 1; t < o.n_tiers; t++)
        o.tiers[t].on_disk = disk >> (o.n_tiers - 1 - t) & 1;
    return o;
}

static kvcl_tier *last_tier(kvcl_session *s) { return &s->cache->l.tiers[s->opt.n_tiers - 2]; }

/* ---- the bits of memory -------------------------------------------------------------------- */

START_TEST(a_file_has_the_bits_of_memory)
{
    test_dev *d = rig_last_row();
    uint32_t n = test_small() ? 140 : 300, n_decode = test_small() ? 2 : 80;
    rig_tier_model(false, 2);
    float *want = NULL;
    for (unsigned disk = 0; disk < 4; disk++) {
        kvcl_session_options opt = options(_i, disk);
        opt.n_batch = disk == 3 ? 64 : 512;
        if (opt.n_tiers == 2 && disk > 1 && disk != 3)
            continue;
        rig r = rig_open(d, &opt);
        float *got = rig_play(d, r.session, n, 1, n_decode);
        if (want)
            rig_same("disk", want, got, (1 + n_decode) * V);
        if (want)
            free(got);
        else
            want = got;
        rig_close(&r);
    }
    free(want);
}
END_TEST

/* Rewind, a second prompt, a fork and its source: memory and file side by side, over a ring that
 * has gone round. */
START_TEST(positions_go_as_in_memory)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    float *got[2];
    const uint32_t n_rows = 61 + 60 + 1 + 2 * 90;
    for (unsigned disk = 0; disk < 2; disk++) {
        kvcl_session_options opt = rig_tiers("quant8", _i ? "rest1.5" : "quant4", 900);
        opt.tiers[0].tokens = 128;
        opt.tiers[1].on_disk = opt.tiers[2].on_disk = disk;
        rig r = rig_open(d, &opt);
        kvcl_session *copy;
        float *at = got[disk] = rig_play(d, r.session, 300, 1, 60);
        at = got[disk] = realloc(at, (size_t)n_rows * V * sizeof *at);
        test_true(at != NULL);
        at += 61 * V;
        rig_ok(d, kvcl_session_rewind(r.session, 340));
        rig_decode(d, r.session, 500, 60, at);
        at += 60 * V;
        int32_t tokens[200];
        rig_tokens(tokens, 700, 200);
        rig_ok(d, kvcl_session_prefill(r.session, tokens, 200, 1, at, NULL, NULL));
        at += V;
        rig_ok(d, kvcl_session_fork(r.session, &copy));
        for (uint32_t i = 0; i < 90; i++, at += 2 * V) {
            rig_decode(d, r.session, 900 + i, 1, at);
            rig_decode(d, copy, 1000 + i, 1, at + V);
        }
        kvcl_session_free(copy);
        rig_close(&r);
    }
    rig_same("positions", got[0], got[1], n_rows * V);
    free(got[0]);
    free(got[1]);
}
END_TEST

START_TEST(sessions_keep_out_of_each_others_files)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options mem = options(0, 0), disk = options(0, 1);
    rig r = rig_open(d, &mem);
    kvcl_session *s[3] = {r.session};
    int32_t tokens[300];
    float logits[3][V];
    rig_tokens(tokens, 0, 300);
    rig_ok(d, kvcl_session_create(r.engine, &disk, &s[1]));
    rig_ok(d, kvcl_session_create(r.engine, &disk, &s[2]));
    free(rig_play(d, s[2], 200, 1, 3));
    rig_ok(d, kvcl_session_prefill_shared(s, 2, tokens, 300, 0, NULL, NULL, NULL));
    for (uint32_t i = 0; i < 100; i++) {
        for (int k = 0; k < 3; k++)
            rig_decode(d, s[k], 300 + i, 1, logits[k]);
        rig_same("beside another", logits[0], logits[1], V);
    }
    kvcl_session_free(s[1]);
    kvcl_session_free(s[2]);
    rig_close(&r);
}
END_TEST

/* ---- the file ------------------------------------------------------------------------------ */

static size_t n_files(const char *folder)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    test_true(dir != NULL);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

START_TEST(files_have_no_name_and_all_their_bytes)
{
    test_dev *d = rig_last_row();
    char folder[256];
    test_folder_make(folder, sizeof folder);
    rig_tier_model(false, 2);
    kvcl_session_options opt = rig_tiers("quant8", "quant4", 512);
    opt.tiers[1].on_disk = opt.tiers[2].on_disk = true;
    char *dir = strdup(folder); /* is not kept */
    opt.tier_dir = dir;
    rig r = rig_open(d, &opt);
    memset(dir, 'x', strlen(dir));
    free(dir);
    uint64_t bytes = 0;
    for (int i = 0; i < 2; i++) {
        struct stat s;
        ck_assert_int_eq(fstat((int)r.session->cache->l.tiers[i].file.handle, &s), 0);
        ck_assert_int_eq(s.st_mode & 07777, 0600);
        ck_assert_int_eq((int)s.st_nlink, 0);
        ck_assert(s.st_blocks * 512 >= s.st_size);
        bytes += (uint64_t)s.st_size;
    }
    kvcl_session *copy; /* in the same folder */
    rig_ok(d, kvcl_session_fork(r.session, &copy));
    kvcl_session_free(copy);
    ck_assert_uint_eq(n_files(folder), 0);
    kvcl_cache_stats st;
    kvcl_session_plan plan;
    opt.tier_dir = "/nowhere"; /* a plan makes no file */
    rig_ok(d, kvcl_session_plan_make(r.model, d->dev, &opt, &plan));
    kvcl_session_cache_stats(r.session, &st);
    ck_assert_uint_eq(bytes, plan.disk_bytes);
    ck_assert_uint_eq(bytes, st.disk_bytes);
    ck_assert_str_eq(st.tiers[2].device, "disk");
    rig_close(&r);
    test_folder_remove(folder);
}
END_TEST

static void refused(test_dev *d, rig *r, const kvcl_session_options *opt, kvcl_status want,
                    const char *word)
{
    kvcl_session *none = NULL;
    uint64_t n_live = kvcl_ctx_mem_stats(d->ctx).n_live;
    size_t held = d->dev->bytes_used;
    ck_assert_int_eq(kvcl_session_create(r->engine, opt, &none), want);
    ck_assert_ptr_null(none);
    test_require(strstr(kvcl_last_error(d->ctx), word), "'%s' lacks '%s'", kvcl_last_error(d->ctx),
                 word);
    ck_assert_uint_eq(kvcl_ctx_mem_stats(d->ctx).n_live, n_live);
    ck_assert_uint_eq(d->dev->bytes_used, held);
}

START_TEST(files_that_cannot_be_are_refused)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = options(0, 1), bad;
    rig r = rig_open(d, &opt);
    bad = opt, bad.tier_dir = "/nowhere/at/all";
    refused(d, &r, &bad, KVCL_E_IO, "--tier-dir");
    bad = opt, bad.tier_dir = rig_path(); /* no folder */
    refused(d, &r, &bad, KVCL_E_IO, "cold tier");
    bad = opt, bad.tiers[0].on_disk = true;
    refused(d, &r, &bad, KVCL_E_ARG, "hot tier");
    bad = opt, bad.tiers[1].dev = d->dev;
    refused(d, &r, &bad, KVCL_E_ARG, "one place");
    struct rlimit before, little = {4096, 0};
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    little.rlim_max = before.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
    refused(d, &r, &opt, KVCL_E_IO, "4096 bytes (ulimit -f)"); /* and no SIGXFSZ */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    kvcl_os_scratch f = {0};
    ck_assert_int_eq(kvcl_os_scratch_open(d->ctx, NULL, (uint64_t)1 << 62, "cold tier", &f),
                     KVCL_E_IO);
    ck_assert_ptr_nonnull(strstr(kvcl_last_error(d->ctx), "cannot be reserved"));
    ck_assert(!f.is_open);
    rig_close(&r);
}
END_TEST

/* ---- damage -------------------------------------------------------------------------------- */

static void fails(test_dev *d, kvcl_session *s, const char *where, const char *how)
{
    float logits[V];
    uint32_t n = kvcl_session_n_tokens(s);
    ck_assert_int_eq(kvcl_session_decode(s, rig_token(n), logits), KVCL_E_FORMAT);
    const char *says = kvcl_last_error(d->ctx);
    test_require(strstr(says, where) && strstr(says, how), "'%s' lacks '%s' or '%s'", says, where,
                 how);
    ck_assert_uint_eq(kvcl_session_n_tokens(s), n);
}

/* Pages of another content, of another place, of nothing: each told; what was put back goes on with
 * the bits of a session that nothing happened to. */
START_TEST(damaged_pages_are_named)
{
    test_dev *d = rig_last_row();
    rig_tier_model(false, 2);
    kvcl_session_options opt = options(_i ? 7 : 0, 1); /* f16: two pools; quant4 */
    rig r = rig_open(d, &opt);
    float *want = rig_play(d, r.session, 300, 1, 40), got[20 * V];
    rig_ok(d, kvcl_session_rewind(r.session, 0));
    free(rig_play(d, r.session, 300, 1, 20));
    kvcl_tier *t = last_tier(r.session);
    int fd = (int)t->file.handle;
    const size_t bytes = t->plan.pool_bytes[0], slots = t->map.n_slots;
    const off_t layer_1 = (off_t)(slots * t->plan.page_bytes);
    unsigned char *page = malloc(bytes), bit;
    test_true(page != NULL);
    off_t at = layer_1 + (off_t)(2 * bytes + bytes / 3);
    ck_assert_int_eq(pread(fd, &bit, 1, at), 1);
    bit ^= 8;
    ck_assert_int_eq(pwrite(fd, &bit, 1, at), 1);
    fails(d, r.session, "layer 1, page 2 (tokens 128 to 191) of the cold tier", "was written");
    bit ^= 8;
    ck_assert_int_eq(pwrite(fd, &bit, 1, at), 1);
    /* page 0 in the place of page 3, both of layer 0 */
    ck_assert_int_eq(pread(fd, page, bytes, (off_t)(3 * bytes)), (ssize_t)bytes);
    unsigned char *other = malloc(bytes);
    ck_assert_int_eq(pread(fd, other, bytes, 0), (ssize_t)bytes);
    ck_assert_int_eq(pwrite(fd, other, bytes, (off_t)(3 * bytes)), (ssize_t)bytes);
    free(other);
    fails(d, r.session, "layer 0, page 3", "was written");
    ck_assert_int_eq(pwrite(fd, page, bytes, (off_t)(3 * bytes)), (ssize_t)bytes);
    free(page);
    rig_decode(d, r.session, 320, 20, got);
    rig_same("put back", want + 21 * V, got, 20 * V);
    ck_assert_int_eq(ftruncate(fd, layer_1 + (off_t)bytes), 0);
    fails(d, r.session, "layer 1, page 1", "cut its file short");
    kvcl_session *copy = NULL;
    ck_assert_int_eq(kvcl_session_fork(r.session, &copy), KVCL_E_FORMAT);
    ck_assert_ptr_null(copy);
    free(want);
    rig_close(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tiers_disk");
    TCase *c = tcase_create("disk");
    tcase_add_checked_fixture(c, rig_setup, rig_teardown);
    tcase_add_loop_test(c, a_file_has_the_bits_of_memory, 0, n_configs());
    if (!test_small()) {
        tcase_add_loop_test(c, positions_go_as_in_memory, 0, 2);
        tcase_add_test(c, sessions_keep_out_of_each_others_files);
    }
    tcase_add_test(c, files_have_no_name_and_all_their_bytes);
    tcase_add_test(c, files_that_cannot_be_are_refused);
    tcase_add_loop_test(c, damaged_pages_are_named, 0, 2);
    suite_add_tcase(suite, c);
    return test_main_on_rows(suite);
}
