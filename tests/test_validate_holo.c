/* test_validate_holo.c - the validation layer (test_validate.c) for the operations on superposed
 * pages.  The device's own functions are replaced: what passes does nothing. */
#include "validate.h"

#define KVCL_OP(name, group, stem)                                                   \
    static kvcl_status accept_##name(kvcl_queue *queue, const kvcl_##name##_args *a) \
    {                                                                                \
        return queue && a ? KVCL_OK : KVCL_E_ARG;                                    \
    }
#include "ops.def"
#undef KVCL_OP

static void setup(void)
{
    setup_buffers();
#define KVCL_OP(name, group, stem) d.dev->ops.name = accept_##name;
#include "ops.def"
#undef KVCL_OP
}

static void teardown(void)
{
    check_buffers();
    test_dev_close(&d);
}

#define ACCEPTED(op, good, change) REFUSED(op, good, KVCL_OK, change)

#define RAW 2048  /* elements of a raw page of one head of 32, F32 */
#define PAGE 512  /* f32s of its page of slots, F16 */
#define BASIS 256 /* of its matrices: 2 of 8 x 32 halves */

static const kvcl_holo_shape chips4 = {1,        32,    4,     1, KVCL_HOLO_CHIPS,
                                       KVCL_F16, 0.25f, 0.25f, 0, false};

/* What every op says of a shape and of what goes with it. */
#define BAD_SHAPES(op, good)                                                                \
    do {                                                                                    \
        REFUSED(op, good, KVCL_E_ARG, a.pool.buf = NULL);                                   \
        REFUSED(op, good, KVCL_E_ARG, a.pool.bytes -= 2);                                   \
        REFUSED(op, good, KVCL_E_ARG, a.pool.off += 1);                                     \
        REFUSED(op, good, KVCL_E_ARG, a.basis.buf = NULL);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.basis.bytes -= 2);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.basis.off += 1);                                    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.fold = 1);                            \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.fold = 3);                            \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.fold = 16);                           \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.type = KVCL_F32);                     \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.type = KVCL_Q4_0);                    \
        REFUSED(op, good, KVCL_E_ARG, a.shape.pair = 0);                                    \
        REFUSED(op, good, KVCL_E_ARG, a.shape.pair = 4);                                    \
        REFUSED(op, good, KVCL_E_ARG, a.shape.form = (kvcl_holo_form)4);                    \
        REFUSED(op, good, KVCL_E_ARG, a.shape.form = KVCL_HOLO_SIGNS);                      \
        REFUSED(op, good, KVCL_E_ARG, a.shape.form = KVCL_HOLO_MATRIX);                     \
        REFUSED(op, good, KVCL_E_ARG, a.shape.fold = 2);                                    \
        REFUSED(op, good, KVCL_E_ARG, a.means.bytes = 63 * 4);                              \
        REFUSED(op, good, KVCL_E_ARG, a.means.off += 2);                                    \
        ACCEPTED(op, good, a.means.buf = NULL);                                             \
        REFUSED(op, good, KVCL_E_ARG, a.shape.fold_v = 8);                                  \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.fold_v = 16);                         \
        ACCEPTED(op, good, (a.shape.form = KVCL_HOLO_SIDE, a.shape.fold_v = 8));            \
        REFUSED(op, good, KVCL_E_ARG, (a.shape.form = KVCL_HOLO_SIDE, a.shape.fold_v = 2)); \
        ACCEPTED(op, good, (a.shape.fold = 8, a.basis.bytes /= 2));                         \
        ACCEPTED(op, good, (a.shape.form = KVCL_HOLO_SIGNS, a.basis.buf = NULL));           \
        ACCEPTED(op, good, (a.shape.type = KVCL_Q8_0, a.pool.bytes = PAGE / 64 * 136));     \
    } while (0)

#define BAD_PAGES(op, good)                                            \
    do {                                                               \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.head_dim = 48);  \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.n_pages = UINT32_MAX); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q8_0);   \
        REFUSED(op, good, KVCL_E_ARG, a.v.bytes -= 4);                 \
        REFUSED(op, good, KVCL_E_ARG, a.k.buf = NULL);                 \
        REFUSED(op, good, KVCL_E_ARG, a.page_table.bytes = 4);         \
        REFUSED(op, good, KVCL_E_ARG, a.pool_table.bytes = 4);         \
        ACCEPTED(op, good, (a.n_pages = 0, a.k.buf = NULL));           \
    } while (0)

START_TEST(holo_enc)
{
    kvcl_holo_enc_args good = {.shape = chips4, .n_pages = 2, .n_skip = 8};
    good.k = view(in, 0, RAW);
    good.v = view(in, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.means = view(aux, 4, 64);
    good.basis = view(aux, 128, BASIS);
    good.pool = view(out, 0, PAGE);
    good.bad = view(out2, 0, 2);
    ACCEPTED(holo_enc, good, (void)0);
    BAD_SHAPES(holo_enc, good);
    BAD_PAGES(holo_enc, good);
    BAD_VIEWS(holo_enc, good, bad, 2);
    REFUSED(holo_enc, good, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(holo_enc, good, KVCL_E_ARG, a.pool = view(in, 8, PAGE));
    REFUSED(holo_enc, good, KVCL_E_ARG, a.pool = view(aux, 200, PAGE));
    REFUSED(holo_enc, good, KVCL_E_ARG, a.bad = view(aux, 130, 2));
    REFUSED(holo_enc, good, KVCL_E_ARG, a.bad = view(out, 8, 2));
}
END_TEST

START_TEST(holo_dec)
{
    kvcl_holo_dec_args good = {.shape = chips4, .n_pages = 2, .n_rot = 8};
    good.k = view(out, 0, RAW);
    good.v = view(out, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.means = view(aux, 4, 64);
    good.basis = view(aux, 128, BASIS);
    good.pool = view(in, 0, PAGE);
    good.table = view(in, PAGE, 128 * 8);
    good.pairing = KVCL_ROPE_HALVES;
    ACCEPTED(holo_dec, good, (void)0);
    ACCEPTED(holo_dec, good, a.table.buf = NULL);
    BAD_SHAPES(holo_dec, good);
    BAD_PAGES(holo_dec, good);
    REFUSED(holo_dec, good, KVCL_E_ARG, a.table.bytes -= 4);
    REFUSED(holo_dec, good, KVCL_E_ARG, a.n_rot = 7);
    REFUSED(holo_dec, good, KVCL_E_ARG, a.k = view(aux, 130, RAW));
    REFUSED(holo_dec, good, KVCL_E_ARG, a.v = view(out, 8, RAW));
}
END_TEST

START_TEST(attn_holo)
{
    /* 2 queries of 2 heads at 600, tokens 500 to 601: pages 7 to 9, blocks 0 and 1 */
    kvcl_attn_holo_args good = {.shape = chips4, .n_rot = 4, .pairing = KVCL_ROPE_ADJACENT};
    good.in = (kvcl_attn_in){.n = 2, .q_stride = 64, .pos0 = 600, .n_q_heads = 2, .n_kv_heads = 1};
    good.in.head_dim = 32;
    good.in.begin = 500, good.in.end = 602;
    good.in.n_parts = 2, good.in.scale = 1.0f;
    good.in.q = view(in, 0, 128);
    good.in.page_table = view(aux, 0, 3);
    good.in.ml = view(out, 0, 16);
    good.in.o = view(out2, 0, 256);
    good.means = view(aux, 4, 128);
    good.basis = view(aux, 200, BASIS);
    good.pool = view(in, 512, PAGE);
    good.table = view(aux, 512, 640 * 4);
    ACCEPTED(attn_holo, good, (void)0);
    ACCEPTED(attn_holo, good, a.table.buf = NULL);
    ACCEPTED(attn_holo, good, a.in.n = 0);
    BAD_SHAPES(attn_holo, good);
    BAD_VIEWS(attn_holo, good, in.q, 128);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.in.n_parts = 1);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.shape.head_dim = 64);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.shape.n_kv_heads = 2);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.means.bytes = 127 * 4);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.shape.by_block = true);
    ACCEPTED(attn_holo, good, (a.shape.by_block = true, a.basis.bytes *= 2, a.table.buf = NULL));
    REFUSED(attn_holo, good, KVCL_E_ARG, a.table.bytes -= 4);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.n_rot = 34);
    REFUSED(attn_holo, good, KVCL_E_ARG, a.in.o = view(in, 700, 256));  /* the pool */
    REFUSED(attn_holo, good, KVCL_E_ARG, a.in.ml = view(aux, 220, 16)); /* the basis */
}
END_TEST

START_TEST(sizes)
{
    size_t parts[2];
    kvcl_holo_shape s = {2, 128, 8, 1, KVCL_HOLO_SIGNS, KVCL_F16, 1.0f, 1.0f, 0, false};
    ck_assert_uint_eq(kvcl_holo_page_bytes(&chips4, parts), PAGE * 4);
    ck_assert_uint_eq(kvcl_holo_basis_bytes(&chips4), BASIS * 4);
    ck_assert_uint_eq(kvcl_holo_page_bytes(&s, parts), 2 * 2 * 8 * 256);
    ck_assert(parts[0] == parts[1]);
    ck_assert_uint_eq(kvcl_holo_basis_bytes(&s), 0);
    s.form = KVCL_HOLO_SIDE, s.fold_v = 4;
    ck_assert_uint_eq(kvcl_holo_page_bytes(&s, parts), 2 * (8 + 16) * 256);
    ck_assert_uint_eq(parts[1], 2 * 16 * 256);
    ck_assert_uint_eq(kvcl_holo_basis_bytes(&s), 2 * (16 + 32) * 128 * 2);
    s.form = KVCL_HOLO_MATRIX, s.type = KVCL_Q8_0, s.fold_v = 0;
    ck_assert_uint_eq(kvcl_holo_page_bytes(&s, parts), 2 * 2 * 8 * 136);
    ck_assert_uint_eq(kvcl_holo_basis_bytes(&s), 2 * 2 * 128 * 128 * 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("validate_holo");
    TCase *c = tcase_create("validate_holo");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, sizes);
    tcase_add_test(c, holo_enc);
    tcase_add_test(c, holo_dec);
    tcase_add_test(c, attn_holo);
    suite_add_tcase(suite, c);
    return test_main(suite, false);
}
