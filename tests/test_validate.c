/* test_validate.c - the single validation layer: every operation refuses every wrong argument with
 * the right status and a sentence that names the operation, writes nothing then, and takes empty
 * sizes.  Backends never see these calls: one device tells for all. */
#include "validate.h"

#include "types.h"

static kvcl_mat *w, *w_rows, *w_cols;
static float rows_data[64 * 64];

static void setup(void)
{
    test_rng rng = {.seed = test_seed() + 1};
    setup_buffers();
    test_fill_f32(&rng, rows_data, kvcl_array_len(rows_data), 1.0f);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 8, 64, rows_data, &w), KVCL_OK);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 9, 64, rows_data, &w_rows), KVCL_OK);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 8, 32, rows_data, &w_cols), KVCL_OK);
}

static void teardown(void)
{
    check_buffers();
    kvcl_mat_free(w);
    kvcl_mat_free(w_rows);
    kvcl_mat_free(w_cols);
    test_dev_close(&d);
}

START_TEST(embed_rows)
{
    kvcl_embed_rows_args good = {
        .table = w, .ids = view(in, 0, 2), .out = view(out, 0, 128), .n = 2};
    BAD_VIEWS(embed_rows, good, ids, 2);
    BAD_VIEWS(embed_rows, good, out, 128);
    REFUSED(embed_rows, good, KVCL_E_ARG, a.table = NULL);
    REFUSED(embed_rows, good, KVCL_E_ARG, a.out = a.ids = view(in, 0, 128));
    REFUSED(embed_rows, good, KVCL_E_ARG, a.pos_table = w_cols);
    REFUSED(embed_rows, good, KVCL_E_ARG, (a.pos_table = w, a.pos0 = 7));
    REFUSED(embed_rows, good, KVCL_E_ARG, (a.pos_table = w, a.pos0 = UINT32_MAX));
    REFUSED(embed_rows, good, KVCL_OK, (a.n = 0, a.table = NULL));
}
END_TEST

START_TEST(norm)
{
    kvcl_norm_args good = {.x = view(in, 0, 128), .out = view(out, 0, 128), .n = 2, .dim = 64};
    good.spec = (kvcl_norm_spec){KVCL_NORM_LAYER, 1e-5f, view(aux, 0, 64), view(aux, 64, 64)};
    BAD_VIEWS(norm, good, x, 128);
    BAD_VIEWS(norm, good, out, 128);
    BAD_VIEWS(norm, good, spec.weight, 64);
    BAD_VIEWS(norm, good, spec.bias, 64);
    REFUSED(norm, good, KVCL_E_UNSUPPORTED, a.dim = 63);
    REFUSED(norm, good, KVCL_E_UNSUPPORTED, a.dim = 0);
    REFUSED(norm, good, KVCL_E_UNSUPPORTED, a.dim = 65536 + 32);
    REFUSED(norm, good, KVCL_E_ARG, a.spec.kind = (kvcl_norm_kind)3);
    REFUSED(norm, good, KVCL_E_ARG, a.spec.eps = 0.0f);
    REFUSED(norm, good, KVCL_E_ARG, a.spec.eps = -1.0f);
    REFUSED(norm, good, KVCL_E_ARG, a.out = view(in, 1, 128));
    REFUSED(norm, good, KVCL_E_ARG, a.out = view(in, 127, 128));
    REFUSED(norm, good, KVCL_E_ARG, a.out = view(aux, 32, 128));
    REFUSED(norm, good, KVCL_E_ARG, a.out = view(aux, 100, 128));
    REFUSED(norm, good, KVCL_OK, (a.n = 0, a.x.buf = NULL));
}
END_TEST

START_TEST(matvec_views)
{
    kvcl_matvec_args good = {.n = 2, .n_seg = 2, .w = {w, w_rows}, .x_stride = 70};
    good.x = view(in, 0, 70 + 64);
    good.out[0] = view(out, 0, 10 + 8);
    good.out[1] = view(out2, 0, 10 + 9);
    good.out_stride[0] = good.out_stride[1] = 10;
    good.bias[0] = view(aux, 0, 8);
    good.bias[1] = view(aux, 8, 9);
    good.norm = (kvcl_norm_spec){KVCL_NORM_RMS, 1e-5f, view(aux, 64, 64), {0}};
    BAD_VIEWS(matvec, good, x, 70 + 64);
    BAD_VIEWS(matvec, good, out[0], 10 + 8);
    BAD_VIEWS(matvec, good, out[1], 10 + 9);
    BAD_VIEWS(matvec, good, norm.weight, 64);
    REFUSED(matvec, good, KVCL_E_ARG, a.bias[0].bytes = 28);
    REFUSED(matvec, good, KVCL_E_ARG, a.bias[1].bytes = 32);
    REFUSED(matvec, good, KVCL_E_ARG, a.bias[1].off = 2);
    REFUSED(matvec, good, KVCL_E_ARG, a.x_stride = 63);
    REFUSED(matvec, good, KVCL_E_ARG, a.out_stride[0] = 7);
    REFUSED(matvec, good, KVCL_E_ARG, a.out_stride[1] = 8);
    REFUSED(matvec, good, KVCL_E_ARG, a.out[1] = view(in, 100, 19));
    REFUSED(matvec, good, KVCL_E_ARG, a.out[0] = view(in, 0, 18));
}
END_TEST

START_TEST(matvec_the_rest)
{
    kvcl_matvec_args good = {.n = 2, .n_seg = 1, .w = {w}, .x_stride = 64};
    good.x = view(in, 0, 128);
    good.out[0] = view(out, 0, 16);
    good.out_stride[0] = 8;
    kvcl_matvec_args glu = good;
    glu.n_seg = 2;
    glu.w[1] = w;
    glu.act = KVCL_ACT_SWIGLU;
    REFUSED(matvec, good, KVCL_E_ARG, a.n_seg = 0);
    REFUSED(matvec, good, KVCL_E_ARG, a.n_seg = 4);
    REFUSED(matvec, good, KVCL_E_ARG, a.n_seg = 2);
    REFUSED(matvec, good, KVCL_E_ARG, a.w[0] = NULL);
    REFUSED(matvec, good, KVCL_E_ARG, a.act = (kvcl_act)3);
    REFUSED(matvec, good, KVCL_E_ARG, a.act = KVCL_ACT_SWIGLU);
    REFUSED(matvec, glu, KVCL_E_ARG, a.w[1] = w_rows);
    REFUSED(matvec, glu, KVCL_E_ARG, a.w[1] = w_cols);
    REFUSED(matvec, good, KVCL_E_ARG, a.norm.kind = (kvcl_norm_kind)7);
    REFUSED(matvec, good, KVCL_E_ARG, (a.res = view(aux, 0, 15)));
    REFUSED(matvec, good, KVCL_E_ARG, (a.res = view(out, 1, 16)));
    REFUSED(matvec, glu, KVCL_E_ARG,
            (a.act = KVCL_ACT_NONE, a.out[1] = view(out2, 0, 16), a.out_stride[1] = 8,
             a.res = view(aux, 0, 16)));
    REFUSED(matvec, good, KVCL_OK, (a.n = 0, a.w[0] = NULL));
}
END_TEST

START_TEST(matmul)
{
    kvcl_matmul_args good = {.n = 2, .w = w, .x_stride = 64, .out_stride = 8};
    size_t need = kvcl_matmul_scratch_bytes(d.dev, 2, w) / sizeof(float);
    good.x = view(in, 0, 128);
    good.out = view(out, 0, 16);
    good.scratch = view(out2, 0, need);
    BAD_VIEWS(matmul, good, x, 128);
    BAD_VIEWS(matmul, good, out, 16);
    if (need > 0) {
        BAD_VIEWS(matmul, good, scratch, need);
        REFUSED(matmul, good, KVCL_E_ARG, a.scratch = view(in, 8, need));
        REFUSED(matmul, good, KVCL_E_ARG, a.scratch = view(out, 8, need));
    }
    REFUSED(matmul, good, KVCL_E_ARG, a.w = NULL);
    REFUSED(matmul, good, KVCL_E_ARG, a.x_stride = 63);
    REFUSED(matmul, good, KVCL_E_ARG, a.out_stride = 7);
    REFUSED(matmul, good, KVCL_E_ARG, a.out = view(in, 127, 16));
    REFUSED(matmul, good, KVCL_OK, (a.n = 0, a.w = NULL));
}
END_TEST

START_TEST(matrices)
{
    kvcl_mat *bad = NULL, odd;
    test_dev other;
    char why[512];
    kvcl_matmul_args good = {.n = 2, .w = w, .x_stride = 64, .out_stride = 8};
    good.x = view(in, 0, 128);
    good.out = view(out, 0, 16);
    good.scratch = view(out2, 0, N);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 0, 64, rows_data, &bad), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 8, 0, rows_data, &bad), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_mat_create(q, KVCL_F32, 8, 64, NULL, &bad), KVCL_E_ARG);
    ck_assert_ptr_null(bad);
    kvcl_mat_free(NULL);
    odd = *w;
    odd.cols = 48;
    REFUSED(matmul, good, KVCL_E_UNSUPPORTED, a.w = &odd);
    odd.cols = 65536 + 32;
    REFUSED(matmul, good, KVCL_E_UNSUPPORTED, a.w = &odd);
    odd = *w;
    odd.type = (kvcl_type)3;
    REFUSED(matmul, good, KVCL_E_UNSUPPORTED, a.w = &odd);
    ck_assert_int_eq(test_dev_open("cpu", &other, why, sizeof why), KVCL_OK);
    odd = *w;
    odd.dev = other.dev;
    REFUSED(matmul, good, KVCL_E_ARG, a.w = &odd);
    kvcl_buf foreign = *in;
    foreign.dev = other.dev;
    REFUSED(matmul, good, KVCL_E_ARG, a.x.buf = &foreign);
    test_dev_close(&other);
}
END_TEST

START_TEST(elementwise)
{
    kvcl_add_args sum = {.n = 3, .dim = 7, .stride = 9};
    kvcl_swiglu_args glu = {view(in, 0, 40), view(aux, 0, 40), view(out, 0, 40), 40};
    kvcl_gelu_args gelu = {view(in, 0, 40), view(out, 0, 40), 40};
    sum.a = view(in, 0, 25);
    sum.b = view(aux, 0, 21);
    sum.out = view(out, 0, 25);
    BAD_VIEWS(add, sum, a, 25);
    BAD_VIEWS(add, sum, b, 21);
    BAD_VIEWS(add, sum, out, 25);
    REFUSED(add, sum, KVCL_E_ARG, a.stride = 6);
    REFUSED(add, sum, KVCL_E_ARG, a.out = view(in, 1, 25));
    REFUSED(add, sum, KVCL_E_ARG, a.out = view(aux, 20, 25));
    REFUSED(add, sum, KVCL_OK, (a.n = 0, a.a.buf = NULL));
    REFUSED(add, sum, KVCL_OK, (a.dim = 0, a.a.buf = NULL));
    BAD_VIEWS(swiglu, glu, gate, 40);
    BAD_VIEWS(swiglu, glu, up, 40);
    BAD_VIEWS(swiglu, glu, out, 40);
    REFUSED(swiglu, glu, KVCL_E_ARG, a.out = view(in, 39, 40));
    REFUSED(swiglu, glu, KVCL_E_ARG, a.out = view(aux, 4, 40));
    REFUSED(swiglu, glu, KVCL_OK, (a.n_elems = 0, a.gate.buf = NULL));
    BAD_VIEWS(gelu, gelu, x, 40);
    BAD_VIEWS(gelu, gelu, out, 40);
    REFUSED(gelu, gelu, KVCL_E_ARG, a.out = view(in, 8, 40));
    REFUSED(gelu, gelu, KVCL_OK, (a.n_elems = 0, a.x.buf = NULL));
}
END_TEST

START_TEST(selftest)
{
    kvcl_selftest_args small = {view(out, 0, N)};
    REFUSED(selftest, small, KVCL_E_ARG, a.out.buf = NULL);
    REFUSED(selftest, small, KVCL_E_ARG, a.out.off = 0);
}
END_TEST

START_TEST(rope_store)
{
    /* 2 tokens at positions 63 and 64, one head of 8: a page holds 512 elements */
    kvcl_rope_store_args good = {.n = 2, .qkv_stride = 24, .pos0 = 63};
    good.n_q_heads = good.n_kv_heads = 1;
    good.head_dim = good.n_rot = 8;
    good.n_pages = 2;
    good.pairing = KVCL_ROPE_HALVES;
    good.qkv = view(out2, 0, 48);
    good.table = view(in, 0, 65 * 8);
    good.k = view(out, 0, 1024);
    good.v = view(out, 1024, 1024);
    good.page_table = view(aux, 0, 2);
    BAD_VIEWS(rope_store, good, qkv, 48);
    BAD_VIEWS(rope_store, good, table, 65 * 8);
    BAD_VIEWS(rope_store, good, page_table, 2);
    REFUSED(rope_store, good, KVCL_E_ARG, a.k.buf = NULL);
    REFUSED(rope_store, good, KVCL_E_ARG, a.v.buf = NULL);
    REFUSED(rope_store, good, KVCL_E_ARG, a.k.bytes = 511 * 4);
    REFUSED(rope_store, good, KVCL_E_ARG, a.v.off += 2);
    REFUSED(rope_store, good, KVCL_E_ARG, a.v = view(out, 1000, 1024));
    REFUSED(rope_store, good, KVCL_E_ARG, a.k = view(out2, 40, 1024));
    REFUSED(rope_store, good, KVCL_E_ARG, a.v = view(out2, 40, 1024));
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.type_k = KVCL_BF16);
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.type_v = KVCL_Q8_0);
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.n_kv_heads = 0);
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, ((a.n_q_heads = 3, a.n_kv_heads = 2)));
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.head_dim = 12);
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.head_dim = 264);
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.pos0 = UINT32_MAX);
    REFUSED(rope_store, good, KVCL_E_ARG, a.n_rot = 7);
    REFUSED(rope_store, good, KVCL_E_ARG, a.n_rot = 0);
    REFUSED(rope_store, good, KVCL_E_ARG, a.n_rot = 10);
    REFUSED(rope_store, good, KVCL_E_ARG, a.pairing = (kvcl_rope_pairing)3);
    REFUSED(rope_store, good, KVCL_E_ARG, a.qkv_stride = 23);
    REFUSED(rope_store, good, KVCL_E_ARG, a.n_pages = 1);
    REFUSED(rope_store, good, KVCL_E_ARG, a.first_page = 1);
    REFUSED(rope_store, good, KVCL_OK, (a.n = 0, a.qkv.buf = NULL));
    good.ku = view(out, 2048, 1024);
    good.type_ku = KVCL_F32;
    REFUSED(rope_store, good, KVCL_E_UNSUPPORTED, a.type_ku = KVCL_BF16);
    REFUSED(rope_store, good, KVCL_E_ARG, a.ku.bytes = 511 * 4);
    REFUSED(rope_store, good, KVCL_E_ARG, a.ku = view(out2, 40, 1024));
    REFUSED(rope_store, good, KVCL_E_ARG, a.ku = view(out, 1000, 1024));
    REFUSED(rope_store, good, KVCL_E_ARG, a.ku = view(out, 2000, 1024));
}
END_TEST

START_TEST(attn_raw)
{
    /* tokens 60 .. 599: pages 0 .. 9, blocks 0 and 1; a page holds 512 elements */
    kvcl_attn_raw_args good = {.type_k = KVCL_F32, .type_v = KVCL_F32};
    good.in = (kvcl_attn_in){.n = 2, .q_stride = 16, .pos0 = 598, .begin = 60, .end = 600};
    good.in.n_q_heads = 2;
    good.in.n_kv_heads = 1;
    good.in.head_dim = 8;
    good.in.first_part = 1;
    good.in.n_parts = 3;
    good.in.scale = 1.0f;
    good.in.q = view(in, 0, 32);
    good.k = view(in, 1024, 1024);
    good.v = view(in, 2048, 1024);
    good.in.page_table = view(aux, 0, 10);
    good.in.ml = view(out, 0, 24);
    good.in.o = view(out2, 0, 96);
    BAD_VIEWS(attn_raw, good, in.q, 32);
    BAD_VIEWS(attn_raw, good, in.page_table, 10);
    BAD_VIEWS(attn_raw, good, in.ml, 24);
    BAD_VIEWS(attn_raw, good, in.o, 96);
    BAD_VIEWS(attn_raw, good, k, 512);
    BAD_VIEWS(attn_raw, good, v, 512);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.q_stride = 15);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.first_part = 2);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.first_part = UINT32_MAX);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.n_parts = 1);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.n_parts = UINT32_MAX);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.begin = 601);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.end = UINT32_MAX);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.end = 641);
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.ml = view(in, 16, 24));
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.ml = view(in, 2040, 24));
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.o = view(in, 16, 96));
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.o = view(in, 1020, 96));
    REFUSED(attn_raw, good, KVCL_E_ARG, a.in.o = view(out, 8, 96));
    REFUSED(attn_raw, good, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q4_0);
    REFUSED(attn_raw, good, KVCL_E_UNSUPPORTED, a.type_v = KVCL_BF16);
    REFUSED(attn_raw, good, KVCL_E_UNSUPPORTED, a.in.head_dim = 9);
    REFUSED(attn_raw, good, KVCL_E_UNSUPPORTED, a.in.head_dim = 0);
    REFUSED(attn_raw, good, KVCL_E_UNSUPPORTED, a.in.n_q_heads = 0);
    REFUSED(attn_raw, good, KVCL_OK, (a.in.n = 0, a.in.q.buf = NULL));
    REFUSED(attn_raw, good, KVCL_OK, (a.in.end = 60, a.in.q.buf = NULL));
}
END_TEST

START_TEST(attn_merge)
{
    /* positions 511 and 512 of a region from 3 on, one partial before it */
    kvcl_attn_merge_args good = {.n = 2, .pos0 = 511, .n_before = 1, .last_begin = 3};
    good.n_parts = 3;
    good.n_q_heads = 2;
    good.head_dim = 8;
    good.out_stride = 17;
    good.ml = view(in, 0, 24);
    good.o = view(aux, 0, 96);
    good.out = view(out, 0, 33);
    BAD_VIEWS(attn_merge, good, ml, 24);
    BAD_VIEWS(attn_merge, good, o, 96);
    BAD_VIEWS(attn_merge, good, out, 33);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.out_stride = 15);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.n_parts = 2);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.n_parts = UINT32_MAX);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.n_before = 2);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.n_before = UINT32_MAX);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.last_begin = 512);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.pos0 = 1023);
    REFUSED(attn_merge, good, KVCL_E_ARG, a.out = view(in, 10, 33));
    REFUSED(attn_merge, good, KVCL_E_ARG, a.out = view(aux, 10, 33));
    REFUSED(attn_merge, good, KVCL_E_UNSUPPORTED, a.head_dim = 4);
    REFUSED(attn_merge, good, KVCL_OK, (a.n = 0, a.ml.buf = NULL));
}
END_TEST

START_TEST(kv)
{
    /* two pages of one head of 8: 512 elements each */
    kvcl_kv_sum_args sum = {.n_pages = 2, .n_kv_heads = 1, .head_dim = 8};
    sum.type_k = sum.type_v = KVCL_F32;
    sum.k = view(in, 1024, 1024);
    sum.v = view(in, 2048, 1024);
    sum.page_table = view(aux, 0, 2);
    sum.sums = view(out, 0, 16);
    BAD_VIEWS(kv_sum, sum, k, 512);
    BAD_VIEWS(kv_sum, sum, v, 512);
    BAD_VIEWS(kv_sum, sum, page_table, 2);
    BAD_VIEWS(kv_sum, sum, sums, 16);
    REFUSED(kv_sum, sum, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(kv_sum, sum, KVCL_E_ARG, a.sums = view(in, 1020, 16));
    REFUSED(kv_sum, sum, KVCL_E_ARG, a.sums = view(in, 2040, 16));
    REFUSED(kv_sum, sum, KVCL_E_ARG, a.sums = view(aux, 1, 16));
    REFUSED(kv_sum, sum, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q8_0);
    REFUSED(kv_sum, sum, KVCL_E_UNSUPPORTED, a.type_v = KVCL_BF16);
    REFUSED(kv_sum, sum, KVCL_E_UNSUPPORTED, a.head_dim = 12);
    REFUSED(kv_sum, sum, KVCL_E_UNSUPPORTED, a.n_kv_heads = 0);
    REFUSED(kv_sum, sum, KVCL_E_UNSUPPORTED, a.n_pages = UINT32_MAX);
    REFUSED(kv_sum, sum, KVCL_OK, (a.n_pages = 0, a.k.buf = NULL));
    kvcl_kv_mean_args mean = {.sums = view(in, 0, 16), .mean = view(out, 0, 16), .n = 16};
    BAD_VIEWS(kv_mean, mean, sums, 16);
    BAD_VIEWS(kv_mean, mean, mean, 16);
    REFUSED(kv_mean, mean, KVCL_E_ARG, a.mean = view(in, 8, 16));
    REFUSED(kv_mean, mean, KVCL_OK, (a.n = 0, a.mean.buf = NULL));
    kvcl_kv_error_args error = {.n_pages = 2, .n_kv_heads = 1, .head_dim = 8};
    error.type_k = error.type_v = error.type_ka = error.type_va = KVCL_F32;
    error.k = view(in, 1024, 1024);
    error.v = view(in, 2048, 1024);
    error.ka = view(aux, 1024, 1024);
    error.va = view(aux, 2048, 1024);
    error.page_table = view(in, 0, 2);
    error.page_table_a = view(aux, 0, 2);
    error.err = view(out, 0, 8);
    BAD_VIEWS(kv_error, error, k, 512);
    BAD_VIEWS(kv_error, error, v, 512);
    BAD_VIEWS(kv_error, error, ka, 512);
    BAD_VIEWS(kv_error, error, va, 512);
    BAD_VIEWS(kv_error, error, page_table, 2);
    BAD_VIEWS(kv_error, error, page_table_a, 2);
    BAD_VIEWS(kv_error, error, err, 8);
    REFUSED(kv_error, error, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(kv_error, error, KVCL_E_ARG, a.err = view(in, 1020, 8));
    REFUSED(kv_error, error, KVCL_E_ARG, a.err = view(aux, 1020, 8));
    REFUSED(kv_error, error, KVCL_E_ARG, a.err = view(aux, 3070, 8));
    REFUSED(kv_error, error, KVCL_E_UNSUPPORTED, a.type_ka = KVCL_BF16);
    REFUSED(kv_error, error, KVCL_E_UNSUPPORTED, a.type_va = KVCL_Q8_0);
    REFUSED(kv_error, error, KVCL_OK, (a.n_pages = 0, a.k.buf = NULL));
}
END_TEST

START_TEST(gram)
{
    /* two pages of one head of 8: 512 elements each; slots of two tokens */
    kvcl_gram_pages_args pages = {.n_tokens = 65, .fold = 2, .n_kv_heads = 1, .head_dim = 8};
    pages.type_k = pages.type_v = KVCL_F32;
    pages.k = view(in, 1024, 1024);
    pages.v = view(in, 2048, 1024);
    pages.page_table = view(aux, 0, 2);
    pages.mean = view(aux, 2, 16);
    pages.gram = view(out, 0, 256);
    REFUSED(gram_pages, pages, KVCL_E_ARG, a.join = 3);
    BAD_VIEWS(gram_pages, pages, k, 512);
    BAD_VIEWS(gram_pages, pages, v, 512);
    BAD_VIEWS(gram_pages, pages, page_table, 2);
    BAD_VIEWS(gram_pages, pages, mean, 16);
    BAD_VIEWS(gram_pages, pages, gram, 256);
    REFUSED(gram_pages, pages, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(gram_pages, pages, KVCL_E_ARG, a.gram = view(in, 1000, 256));
    REFUSED(gram_pages, pages, KVCL_E_ARG, a.gram = view(in, 3000, 256));
    REFUSED(gram_pages, pages, KVCL_E_ARG, a.gram = view(aux, 1, 256));
    REFUSED(gram_pages, pages, KVCL_E_ARG, a.gram = view(aux, 17, 256));
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.fold = 0);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.fold = 3);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.fold = 16);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q8_0);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.type_v = KVCL_BF16);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.head_dim = 12);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.n_kv_heads = 0);
    REFUSED(gram_pages, pages, KVCL_E_UNSUPPORTED, a.n_tokens = UINT32_MAX);
    REFUSED(gram_pages, pages, KVCL_OK, (a.n_tokens = 0, a.k.buf = NULL));
    kvcl_gram_rows_args rows = {.n = 2, .stride = 20, .n_q_heads = 2, .n_kv_heads = 1};
    rows.head_dim = 8;
    rows.x = view(in, 0, 36);
    rows.gram = view(out, 0, 64);
    BAD_VIEWS(gram_rows, rows, x, 36);
    BAD_VIEWS(gram_rows, rows, gram, 64);
    REFUSED(gram_rows, rows, KVCL_E_ARG, a.stride = 15);
    REFUSED(gram_rows, rows, KVCL_E_ARG, a.gram = view(in, 35, 64));
    REFUSED(gram_rows, rows, KVCL_E_UNSUPPORTED, (a.n_q_heads = 3, a.n_kv_heads = 2));
    REFUSED(gram_rows, rows, KVCL_E_UNSUPPORTED, a.head_dim = 264);
    REFUSED(gram_rows, rows, KVCL_OK, (a.n = 0, a.x.buf = NULL));
}
END_TEST

START_TEST(buffers)
{
    unsigned char bytes[8] = {0};
    ck_assert_int_eq(kvcl_buf_write(q, out, N * 4 - 7, bytes, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_write(q, out, SIZE_MAX, bytes, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_write(q, NULL, 0, bytes, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_read(q, out, N * 4 - 7, bytes, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_read(q, NULL, 0, bytes, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_copy(q, out, N * 4 - 7, in, 0, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_copy(q, out, 0, in, N * 4 - 7, 8), KVCL_E_ARG);
    ck_assert_int_eq(kvcl_buf_write(q, out, N * 4, bytes, 0), KVCL_OK);
    ck_assert_int_eq(kvcl_buf_read(q, out, N * 4, bytes, 0), KVCL_OK);
    ck_assert_int_eq(kvcl_buf_copy(q, out, N * 4, in, 0, 0), KVCL_OK);
    ck_assert_int_eq(kvcl_buf_copy(q, out, 64, in, 64, 256), KVCL_OK);
    ck_assert_int_eq(kvcl_buf_write(q, out, 4, image + 1, 400), KVCL_OK);
    kvcl_buf_free(NULL);
    kvcl_queue_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("validate");
    TCase *c = tcase_create("validate");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, embed_rows);
    tcase_add_test(c, norm);
    tcase_add_test(c, matvec_views);
    tcase_add_test(c, matvec_the_rest);
    tcase_add_test(c, matmul);
    tcase_add_test(c, matrices);
    tcase_add_test(c, elementwise);
    tcase_add_test(c, selftest);
    tcase_add_test(c, rope_store);
    tcase_add_test(c, attn_raw);
    tcase_add_test(c, attn_merge);
    tcase_add_test(c, kv);
    tcase_add_test(c, gram);
    tcase_add_test(c, buffers);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
