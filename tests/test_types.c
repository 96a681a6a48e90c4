/* test_types.c - half precision, expansion of the tensor types and their encoders, to the bit. */
#include "f16.h"
#include "gguf.h"
#include "mem.h"
#include "test.h"
#include "types.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH_CAP 1024

/* ---- f16 ----------------------------------------------------------------------------------- */

/* The value of a half from its definition, in double. */
static double half_value(uint32_t h)
{
    uint32_t exp = h >> 10 & 31, man = h & 1023;
    double v = exp ? ldexp(1024.0 + man, (int)exp - 25) : ldexp(man, -24);
    return h & 0x8000 ? -v : v;
}

START_TEST(f16_all_values)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = kvcl_f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00) {
            ck_assert(isnan(f));
            uint16_t back = kvcl_f32_to_f16(f);
            ck_assert((back & 0x7fff) > 0x7c00);
            continue;
        }
        if ((h & 0x7fff) == 0x7c00)
            ck_assert(isinf(f) && (signbit(f) != 0) == (h >> 15 != 0));
        else
            ck_assert(kvcl_f32_bits(f) == kvcl_f32_bits((float)half_value(h)));
        ck_assert_uint_eq(kvcl_f32_to_f16(f), h);
    }
}
END_TEST

/* Between each half and the next: the middle goes to the even one, its neighbours to the nearer. */
START_TEST(f16_ties)
{
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float mid = (float)((half_value(h) + half_value(h + 1)) / 2); /* exact in f32 */
        uint32_t even = h & 1 ? h + 1 : h;
        ck_assert_uint_eq(kvcl_f32_to_f16(mid), even);
        ck_assert_uint_eq(kvcl_f32_to_f16(-mid), even | 0x8000);
        ck_assert_uint_eq(kvcl_f32_to_f16(nextafterf(mid, 0.0f)), h);
        ck_assert_uint_eq(kvcl_f32_to_f16(nextafterf(mid, 1e9f)), h + 1);
    }
}
END_TEST

START_TEST(f16_range_ends)
{
    ck_assert_uint_eq(kvcl_f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(kvcl_f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(kvcl_f32_to_f16(-1e30f), 0xfc00);
    ck_assert_uint_eq(kvcl_f32_to_f16(INFINITY), 0x7c00);
    ck_assert_uint_eq(kvcl_f32_to_f16(0x1p-25f), 0);
    ck_assert_uint_eq(kvcl_f32_to_f16(nextafterf(0x1p-25f, 1.0f)), 1);
    ck_assert_uint_eq(kvcl_f32_to_f16(-0x1p-149f), 0x8000);
    ck_assert(kvcl_f32_bits(kvcl_bf16_to_f32(0xc049)) == 0xc0490000u);
}
END_TEST

/* ---- names and sizes ----------------------------------------------------------------------- */

START_TEST(type_names)
{
    static const struct {
        kvcl_type type;
        const char *name;
        size_t bytes_of_64;
    } rows[] = {{KVCL_F32, "F32", 256},  {KVCL_F16, "F16", 128},  {KVCL_BF16, "BF16", 128},
                {KVCL_Q8_0, "Q8_0", 68}, {KVCL_Q5_0, "Q5_0", 44}, {KVCL_Q4_0, "Q4_0", 36}};
    kvcl_ctx *ctx;
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    for (size_t i = 0; i < kvcl_array_len(rows); i++) {
        char lower[8] = {0};
        kvcl_type t;
        for (size_t k = 0; rows[i].name[k]; k++)
            lower[k] = (char)tolower((unsigned char)rows[i].name[k]);
        ck_assert_str_eq(kvcl_type_name(rows[i].type), rows[i].name);
        ck_assert_int_eq(kvcl_type_parse(ctx, lower, &t), KVCL_OK);
        ck_assert_int_eq(t, rows[i].type);
        ck_assert_uint_eq(kvcl_type_bytes(t, 64), rows[i].bytes_of_64);
    }
    kvcl_type t;
    const char *const bad[] = {"Q4_K", "Q8", "F160", "", NULL};
    for (size_t i = 0; i < kvcl_array_len(bad); i++) {
        ck_assert_int_eq(kvcl_type_parse(ctx, bad[i], &t), KVCL_E_ARG);
        ck_assert_ptr_nonnull(strstr(kvcl_last_error(ctx), "Q8_0"));
    }
    ck_assert_str_eq(kvcl_type_gguf_name(12), "Q4_K");
    ck_assert_ptr_null(kvcl_type_gguf_name(4711));
    ck_assert(!kvcl_type_known(12) && !kvcl_type_known(4711) && kvcl_type_known(30));
    ck_assert_ptr_null(kvcl_type_name((kvcl_type)12));
    kvcl_ctx_free(ctx);
}
END_TEST

/* ---- expansion ----------------------------------------------------------------------------- */

/* SHA-256 of a block of memory, by the system's sha256sum. */
static void sha256(const void *data, size_t bytes, char hex[65])
{
    char folder[256], path[512], command[1024];
    test_folder_make(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/values", folder);
    test_write_file(path, data, bytes);
    snprintf(command, sizeof command, "sha256sum '%s'", path);
    FILE *p = popen(command, "r");
    ck_assert_ptr_nonnull(p);
    ck_assert_int_eq(fscanf(p, "%64[0-9a-f]", hex), 1);
    ck_assert_int_eq(pclose(p), 0);
    test_folder_remove(folder);
}

static const char *const suffixes[] = {"f32", "f16", "bf16", "q8_0", "q5_0", "q4_0"};
#define N_ROWS 1024u

static void *golden(const char *suffix, size_t *n_out)
{
    char name[64], path[PATH_CAP];
    snprintf(name, sizeof name, "tests/golden/rows.%s", suffix);
    test_source(name, path, sizeof path);
    return test_read_file(path, n_out);
}

START_TEST(expand_golden_rows)
{
    size_t n;
    float values[N_ROWS];
    char hex[65], line[128];
    kvcl_type type;
    char *sums = golden("sha256", &n);
    void *rows = golden(suffixes[_i], &n);
    ck_assert_int_eq(kvcl_type_parse(NULL, suffixes[_i], &type), KVCL_OK);
    ck_assert_uint_eq(n, kvcl_type_bytes(type, N_ROWS));
    kvcl_dequantise(type, rows, N_ROWS, values);
    sha256(values, sizeof values, hex);
    snprintf(line, sizeof line, "%s  %s\n", hex, suffixes[_i]);
    ck_assert_msg(strstr(sums, line) != NULL, "values of %s have SHA-256 %s", suffixes[_i], hex);
    free(rows);
    free(sums);
}
END_TEST

/* The hash that the JSON file gives for a tensor of a file: the first "sha256_of_f32_values" behind
 * the tensor's name behind the file's. */
static bool json_has(const char *json, const char *file, const char *tensor, const char *hex)
{
    const char *key = "\"sha256_of_f32_values\": \"";
    const char *p = strstr(json, file);
    p = p ? strstr(p, tensor) : NULL;
    p = p ? strstr(p, key) : NULL;
    return p && strncmp(p + strlen(key), hex, 64) == 0;
}

static size_t check_file(kvcl_ctx *ctx, const char *json, const char *file, const char *path)
{
    kvcl_gguf g;
    size_t n_checked = 0;
    ck_assert_msg(kvcl_gguf_open(ctx, path, &g) == KVCL_OK, "%s", kvcl_last_error(ctx));
    for (uint32_t i = 0; i < g.n_tensors; i++) {
        const kvcl_gguf_tensor *t = &g.tensors[i];
        char quoted[80], hex[65];
        if (t->n_dims < 2)
            continue;
        float *values = malloc((size_t)t->n_elems * sizeof *values);
        ck_assert_ptr_nonnull(values);
        kvcl_dequantise(t->type, t->data, (size_t)t->n_elems, values);
        sha256(values, (size_t)t->n_elems * sizeof *values, hex);
        free(values);
        snprintf(quoted, sizeof quoted, "\"%s\"", t->name);
        ck_assert_msg(json_has(json, file, quoted, hex), "%s: %s: SHA-256 %s", file, t->name, hex);
        n_checked++;
    }
    kvcl_gguf_close(&g);
    return n_checked;
}

START_TEST(expand_shared_files)
{
    static const char *const files[] = {"tiny-F16.gguf", "tiny-BF16.gguf", "tiny-Q8_0.gguf",
                                        "tiny-Q5_0.gguf", "tiny-Q4_0.gguf"};
    char path[PATH_CAP], name[64];
    size_t n;
    kvcl_ctx *ctx;
    if (!test_shared("golden/types/dequantised-sha256.json", path, sizeof path))
        return;
    char *json = test_read_file(path, &n);
    ck_assert_int_eq(kvcl_ctx_create(NULL, &ctx), KVCL_OK);
    for (size_t i = 0; i < kvcl_array_len(files); i++) {
        snprintf(name, sizeof name, "golden/types/%s", files[i]);
        ck_assert(test_shared(name, path, sizeof path));
        ck_assert_uint_eq(check_file(ctx, json, files[i], path), 9);
    }
    kvcl_ctx_free(ctx);
    free(json);
}
END_TEST

/* Every code of every type at chosen scales, against the formulas of types.h in double. */
START_TEST(expand_every_code)
{
    static const uint16_t scales[] = {0x3c00, 0xbc01, 0x0001, 0x83ff, 0x7bff, 0x0000};
    for (size_t s = 0; s < kvcl_array_len(scales); s++) {
        double d = half_value(scales[s]);
        unsigned char b[KVCL_Q8_0_BYTES] = {(unsigned char)scales[s],
                                            (unsigned char)(scales[s] >> 8)};
        float v[KVCL_QK];
        for (int q = 0; q < 256; q++) {
            memset(b + 2, q, 32);
            kvcl_dequantise(KVCL_Q8_0, b, KVCL_QK, v);
            for (int e = 0; e < KVCL_QK; e++)
                ck_assert((double)v[e] == d * (q > 127 ? q - 256 : q));
            kvcl_dequantise(KVCL_Q4_0, b, KVCL_QK, v);
            for (int e = 0; e < KVCL_QK; e++)
                ck_assert((double)v[e] == d * ((e < 16 ? q & 15 : q >> 4) - 8));
            for (int bit = 0; bit < KVCL_QK; bit++) {
                uint32_t qh = UINT32_C(1) << bit;
                for (int k = 0; k < 4; k++)
                    b[2 + k] = (unsigned char)(qh >> (8 * k));
                memset(b + 6, q, 16);
                kvcl_dequantise(KVCL_Q5_0, b, KVCL_QK, v);
                for (int e = 0; e < KVCL_QK; e++) {
                    int n = (e < 16 ? q & 15 : q >> 4) + (e == bit ? 16 : 0);
                    ck_assert((double)v[e] == d * (n - 16));
                }
            }
        }
    }
}
END_TEST

/* ---- encoders ------------------------------------------------------------------------------ */

START_TEST(encode_golden_rows)
{
    size_t n;
    unsigned char mine[N_ROWS * 4];
    float *values = golden("f32", &n);
    ck_assert_uint_eq(n, N_ROWS * sizeof *values);
    for (size_t i = 0; i < kvcl_array_len(suffixes); i++) {
        kvcl_type type;
        ck_assert_int_eq(kvcl_type_parse(NULL, suffixes[i], &type), KVCL_OK);
        if (type == KVCL_BF16)
            continue; /* has no encoder */
        void *want = golden(suffixes[i], &n);
        ck_assert(kvcl_quantise(type, values, N_ROWS, mine));
        ck_assert_msg(memcmp(mine, want, n) == 0, "%s", suffixes[i]);
        free(want);
    }
    ck_assert(!kvcl_quantise(KVCL_BF16, values, N_ROWS, mine));
    free(values);
}
END_TEST

/* Decoded values lie within one step (half a step for Q8_0), and encoding them again gives values
 * that stay. */
START_TEST(encode_round_trip)
{
    static const struct {
        kvcl_type type;
        double steps; /* error allowed, in units of amax */
    } rows[] = {
        {KVCL_Q8_0, 0.5 / 127}, {KVCL_Q5_0, 1.0 / 16}, {KVCL_Q4_0, 1.0 / 8}, {KVCL_F16, 0x1p-11}};
    test_rng rng = {test_seed(), 0};
    for (int round = 0; round < 200; round++) {
        float x[KVCL_QK], y[KVCL_QK], z[KVCL_QK];
        unsigned char b[128];
        test_fill_f32(&rng, x, KVCL_QK, ldexpf(1.0f, (int)test_below(&rng, 14) - 4));
        double amax = 0;
        for (int e = 0; e < KVCL_QK; e++)
            amax = fmax(amax, fabs((double)x[e]));
        for (size_t i = 0; i < kvcl_array_len(rows); i++) {
            ck_assert(kvcl_quantise(rows[i].type, x, KVCL_QK, b));
            kvcl_dequantise(rows[i].type, b, KVCL_QK, y);
            for (int e = 0; e < KVCL_QK; e++) /* 0.0006: the scale itself is rounded to a half */
                ck_assert(fabs((double)y[e] - (double)x[e]) <= amax * (rows[i].steps + 0.0006));
            ck_assert(kvcl_quantise(rows[i].type, y, KVCL_QK, b));
            kvcl_dequantise(rows[i].type, b, KVCL_QK, z);
            if (rows[i].type != KVCL_Q8_0) /* Q8_0's amax may be below 127 d after rounding */
                ck_assert(memcmp(y, z, sizeof y) == 0);
        }
    }
}
END_TEST

START_TEST(encode_extremes)
{
    static const kvcl_type types[] = {KVCL_Q8_0, KVCL_Q5_0, KVCL_Q4_0, KVCL_F16};
    static const float bad[] = {INFINITY, -INFINITY, NAN, 3e38f};
    static const float tiny[] = {0.0f, -0.0f, 0x1p-149f, 0x1p-126f, -1e-30f};
    float x[KVCL_QK] = {1.0f}, y[KVCL_QK];
    unsigned char b[128];
    for (size_t i = 0; i < kvcl_array_len(types); i++) {
        for (size_t k = 0; k < kvcl_array_len(bad); k++) {
            x[17] = bad[k];
            ck_assert(!kvcl_quantise(types[i], x, KVCL_QK, b));
        }
        for (size_t k = 0; k < kvcl_array_len(tiny); k++) {
            for (int e = 0; e < KVCL_QK; e++)
                y[e] = tiny[k];
            ck_assert(kvcl_quantise(types[i], y, KVCL_QK, b));
            kvcl_dequantise(types[i], b, KVCL_QK, y);
            for (int e = 0; e < KVCL_QK; e++)
                ck_assert(y[e] == 0.0f);
        }
    }
    x[17] = INFINITY;
    ck_assert(!kvcl_quantise(KVCL_F32, x, KVCL_QK, b));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("types");
    TCase *t = tcase_create("f16");
    tcase_add_test(t, f16_all_values);
    tcase_add_test(t, f16_ties);
    tcase_add_test(t, f16_range_ends);
    suite_add_tcase(s, t);
    t = tcase_create("types");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, type_names);
    tcase_add_loop_test(t, expand_golden_rows, 0, (int)kvcl_array_len(suffixes));
    tcase_add_test(t, expand_shared_files);
    tcase_add_test(t, expand_every_code);
    tcase_add_test(t, encode_golden_rows);
    tcase_add_test(t, encode_round_trip);
    tcase_add_test(t, encode_extremes);
    suite_add_tcase(s, t);
    return test_main(s, true);
}
