/* test_validate_code.c - the validation layer (test_validate.c) for fwht and the operations on
 * coded pages.  The device's own functions are replaced: what passes does nothing. */
#include "validate.h"

#include "types.h"

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

START_TEST(fwht)
{
    kvcl_fwht_args good = {.n = 2, .dim = 64, .stride = 70, .factor = 1.0f};
    good.x = view(in, 0, 70 + 64);
    good.out = view(out, 0, 70 + 64);
    ACCEPTED(fwht, good, (void)0);
    ACCEPTED(fwht, good, a.out = a.x);
    ACCEPTED(fwht, good, a.dim = 16);
    BAD_VIEWS(fwht, good, x, 70 + 64);
    BAD_VIEWS(fwht, good, out, 70 + 64);
    REFUSED(fwht, good, KVCL_E_UNSUPPORTED, a.dim = 8);
    REFUSED(fwht, good, KVCL_E_UNSUPPORTED, a.dim = 48);
    REFUSED(fwht, good, KVCL_E_UNSUPPORTED, a.dim = 0);
    REFUSED(fwht, good, KVCL_E_UNSUPPORTED, a.dim = 131072);
    REFUSED(fwht, good, KVCL_E_ARG, a.stride = 63);
    REFUSED(fwht, good, KVCL_E_ARG, a.stride = UINT32_MAX);
    REFUSED(fwht, good, KVCL_E_ARG, a.out = view(in, 1, 70 + 64));
    ACCEPTED(fwht, good, (a.n = 0, a.x.buf = NULL));
}
END_TEST

/* ---- quant --------------------------------------------------------------------------------- */

#define RAW 2048 /* elements of a raw page of one head of 32, F32 */
#define PAGE 576 /* words of its quant page of 4 bits */

static const kvcl_quant_shape shape4 = {1, 32, 4, 4, KVCL_QUANT_POST};

/* What every op of quant pages says of a shape. */
#define BAD_SHAPES(op, good)                                                    \
    do {                                                                        \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.bits_k = 5);              \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.bits_v = 0);              \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.bits_v = 16);             \
        REFUSED(op, good, KVCL_E_ARG, a.shape.form = (kvcl_quant_form)3);       \
        REFUSED(op, good, KVCL_E_ARG, a.pool.bytes = PAGE * 4 - 4);             \
        REFUSED(op, good, KVCL_E_ARG, a.pool.off += 2);                         \
        REFUSED(op, good, KVCL_E_ARG, a.pool.buf = NULL);                       \
        REFUSED(op, good, KVCL_E_ARG, a.means.bytes = 63 * 4);                  \
        REFUSED(op, good, KVCL_E_ARG, a.means.off += 2);                        \
        REFUSED(op, good, KVCL_E_ARG, a.means.buf = NULL);                      \
        REFUSED(op, good, KVCL_E_ARG, (a.shape.bits_k = 8, a.pool.bytes -= 4)); \
    } while (0)

/* Heads, positions and raw pages: both directions. */
#define BAD_PAGES(op, good)                                               \
    do {                                                                  \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.head_dim = 48);     \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.head_dim = 288);    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.head_dim = 0);      \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_kv_heads = 0);    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.n_kv_heads = 1025); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.first_page = UINT32_MAX); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.n_pages = UINT32_MAX);    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q8_0);      \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.type_v = KVCL_BF16);      \
        REFUSED(op, good, KVCL_E_ARG, a.k.bytes -= 4);                    \
        REFUSED(op, good, KVCL_E_ARG, a.v.buf = NULL);                    \
        REFUSED(op, good, KVCL_E_ARG, a.page_table.bytes = 4);            \
        REFUSED(op, good, KVCL_E_ARG, a.pool_table.bytes = 4);            \
        REFUSED(op, good, KVCL_E_ARG, a.page_table.buf = NULL);           \
        REFUSED(op, good, KVCL_E_ARG, a.pool_table.off += 2);             \
        ACCEPTED(op, good, (a.n_pages = 0, a.k.buf = NULL));              \
    } while (0)

START_TEST(quant_sizes)
{
    size_t parts[4];
    kvcl_quant_shape s = {8, 128, 3, 2, KVCL_QUANT_CHANNEL};
    ck_assert_uint_eq(kvcl_quant_page_bytes(&shape4, parts), PAGE * 4);
    ck_assert_uint_eq(kvcl_quant_page_bytes(&s, parts), 24576 + 16384 + 4096 + 1024);
    ck_assert(parts[0] == 24576 && parts[1] == 16384 && parts[2] == 4096 && parts[3] == 1024);
    s.form = KVCL_QUANT_PRE;
    ck_assert_uint_eq(kvcl_quant_page_bytes(&s, parts), 24576 + 16384 + 1024 + 1024);
    ck_assert_uint_eq(kvcl_block_page_bytes(2, 64, KVCL_Q8_0, KVCL_Q4_0), 2 * 64 * (68 + 36));
}
END_TEST

START_TEST(quant_enc)
{
    kvcl_quant_enc_args good = {.shape = shape4, .n_pages = 2, .n_skip = 8};
    good.k = view(in, 0, RAW);
    good.v = view(in, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.means = view(aux, 4, 64);
    good.pool = view(out, 0, PAGE);
    good.bad = view(out2, 0, 2);
    ACCEPTED(quant_enc, good, (void)0);
    ACCEPTED(quant_enc, good, (a.type_k = a.type_v = KVCL_F16, a.k.bytes /= 2));
    ACCEPTED(quant_enc, good, (a.first_page = 8, a.means = view(aux, 4, 128)));
    BAD_SHAPES(quant_enc, good);
    BAD_PAGES(quant_enc, good);
    REFUSED(quant_enc, good, KVCL_E_ARG, a.first_page = 8); /* the means of epoch 1 */
    BAD_VIEWS(quant_enc, good, bad, 2);
    REFUSED(quant_enc, good, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(quant_enc, good, KVCL_E_ARG, a.pool = view(in, 8, PAGE));
    REFUSED(quant_enc, good, KVCL_E_ARG, a.pool = view(aux, 8, PAGE));
    REFUSED(quant_enc, good, KVCL_E_ARG, a.bad = view(in, 8, 2));
    REFUSED(quant_enc, good, KVCL_E_ARG, a.bad = view(aux, 1, 2));
    REFUSED(quant_enc, good, KVCL_E_ARG, a.bad = view(out, PAGE - 1, 2));
}
END_TEST

START_TEST(quant_dec)
{
    kvcl_quant_dec_args good = {.shape = shape4, .n_pages = 2, .n_rot = 8};
    good.shape.form = KVCL_QUANT_PRE;
    good.k = view(out, 0, RAW);
    good.v = view(out, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.means = view(aux, 4, 64);
    good.pool = view(in, 0, PAGE);
    good.table = view(in, PAGE, 128 * 8);
    good.pairing = KVCL_ROPE_HALVES;
    ACCEPTED(quant_dec, good, (void)0);
    ACCEPTED(quant_dec, good, a.table.buf = NULL);
    ACCEPTED(quant_dec, good, (a.shape.form = KVCL_QUANT_POST, a.n_rot = 7));
    BAD_SHAPES(quant_dec, good);
    BAD_PAGES(quant_dec, good);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.first_page = 8);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.table.bytes -= 4);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.table.off += 2);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.n_rot = 7);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.n_rot = 0);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.n_rot = 34);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.pairing = (kvcl_rope_pairing)3);
    REFUSED(quant_dec, good, KVCL_E_ARG, a.k = view(in, PAGE, RAW));
    REFUSED(quant_dec, good, KVCL_E_ARG, a.v = view(in, 8, RAW));
    REFUSED(quant_dec, good, KVCL_E_ARG, a.v = view(aux, 60, RAW));
    REFUSED(quant_dec, good, KVCL_E_ARG, a.v = view(out, 8, RAW));
}
END_TEST

/* ---- block --------------------------------------------------------------------------------- */

#define BLOCK_HALVES (64 * (17 + 9)) /* f16 units of a page of Q8_0 keys and Q4_0 values */

#define BAD_BLOCKS(op, good)                                               \
    do {                                                                   \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.block_type_k = KVCL_Q5_0); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.block_type_v = KVCL_F16);  \
        REFUSED(op, good, KVCL_E_ARG, a.block_type_v = KVCL_Q8_0);         \
        REFUSED(op, good, KVCL_E_ARG, a.pool.bytes -= 2);                  \
        REFUSED(op, good, KVCL_E_ARG, a.pool.off += 1);                    \
        REFUSED(op, good, KVCL_E_ARG, a.pool.buf = NULL);                  \
    } while (0)

#define BAD_BLOCK_PAGES(op, good)                                    \
    do {                                                             \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.head_dim = 40);      \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.n_kv_heads = 0);     \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.n_pages = 1u << 19); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.type_k = KVCL_Q8_0); \
        REFUSED(op, good, KVCL_E_ARG, a.v.bytes -= 4);               \
        REFUSED(op, good, KVCL_E_ARG, a.k.buf = NULL);               \
        REFUSED(op, good, KVCL_E_ARG, a.page_table.bytes = 4);       \
        REFUSED(op, good, KVCL_E_ARG, a.pool_table.bytes = 4);       \
        ACCEPTED(op, good, (a.n_pages = 0, a.k.buf = NULL));         \
    } while (0)

START_TEST(block_enc)
{
    kvcl_block_enc_args good = {.n_pages = 2, .n_kv_heads = 1, .head_dim = 32};
    good.block_type_k = KVCL_Q8_0;
    good.block_type_v = KVCL_Q4_0;
    good.k = view(in, 0, RAW);
    good.v = view(in, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.pool = view(out, 0, BLOCK_HALVES / 2);
    good.bad = view(out2, 0, 2);
    ACCEPTED(block_enc, good, (void)0);
    BAD_BLOCKS(block_enc, good);
    BAD_BLOCK_PAGES(block_enc, good);
    BAD_VIEWS(block_enc, good, bad, 2);
    REFUSED(block_enc, good, KVCL_E_ARG, a.pool = view(in, 8, BLOCK_HALVES / 2));
    REFUSED(block_enc, good, KVCL_E_ARG, a.bad = view(in, 8, 2));
    REFUSED(block_enc, good, KVCL_E_ARG, a.bad = view(out, 8, 2));
}
END_TEST

START_TEST(block_dec)
{
    kvcl_block_dec_args good = {.n_pages = 2, .n_kv_heads = 1, .head_dim = 32};
    good.block_type_k = KVCL_Q8_0;
    good.block_type_v = KVCL_Q4_0;
    good.k = view(out, 0, RAW);
    good.v = view(out, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.pool = view(in, 0, BLOCK_HALVES / 2);
    ACCEPTED(block_dec, good, (void)0);
    BAD_BLOCKS(block_dec, good);
    BAD_BLOCK_PAGES(block_dec, good);
    REFUSED(block_dec, good, KVCL_E_ARG, a.k = view(in, 8, RAW));
    REFUSED(block_dec, good, KVCL_E_ARG, a.v = view(aux, 1, RAW));
    REFUSED(block_dec, good, KVCL_E_ARG, a.v = view(out, 8, RAW));
}
END_TEST

/* ---- spectral ------------------------------------------------------------------------------ */

#define SPECTRAL_PAGE 1088 /* words of a page of the shape below */
#define SPECTRAL_BASIS 928 /* of its basis */

static const kvcl_spectral_shape spectral8 = {1, 32, 1, 8, 8};

/* What every op of spectral pages says of a shape. */
#define BAD_SPECTRAL(op, good)                                       \
    do {                                                             \
        BAD_VIEWS(op, good, basis, SPECTRAL_BASIS);                  \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.fold = 3);     \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.fold = 16);    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.words_k = 0);  \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.shape.words_v = 12); \
        REFUSED(op, good, KVCL_E_ARG, a.shape.words_v = 9);          \
        REFUSED(op, good, KVCL_E_ARG, a.pool.bytes -= 4);            \
        REFUSED(op, good, KVCL_E_ARG, a.pool.off += 2);              \
        REFUSED(op, good, KVCL_E_ARG, a.means.bytes -= 4);           \
        REFUSED(op, good, KVCL_E_ARG, a.means.buf = NULL);           \
    } while (0)

START_TEST(spectral_enc)
{
    kvcl_spectral_enc_args good = {.shape = spectral8, .n_pages = 2, .n_skip = 8};
    good.k = view(in, 0, RAW);
    good.v = view(in, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.means = view(aux, 4, 64);
    good.basis = view(aux, 128, SPECTRAL_BASIS);
    good.pool = view(out, 0, SPECTRAL_PAGE);
    good.bad = view(out2, 0, 2);
    ACCEPTED(spectral_enc, good, (void)0);
    BAD_SPECTRAL(spectral_enc, good);
    BAD_PAGES(spectral_enc, good);
    BAD_VIEWS(spectral_enc, good, bad, 2);
    REFUSED(spectral_enc, good, KVCL_E_ARG, a.n_skip = 64);
    REFUSED(spectral_enc, good, KVCL_E_ARG, a.pool = view(in, 8, SPECTRAL_PAGE));
    REFUSED(spectral_enc, good, KVCL_E_ARG, a.pool = view(aux, 200, SPECTRAL_PAGE));
    REFUSED(spectral_enc, good, KVCL_E_ARG, a.bad = view(aux, 130, 2));
}
END_TEST

START_TEST(spectral_dec)
{
    kvcl_spectral_dec_args good = {.shape = spectral8, .n_pages = 2, .n_rot = 8};
    good.k = view(out, 0, RAW);
    good.v = view(out, RAW, RAW);
    good.page_table = view(aux, 0, 2);
    good.pool_table = view(aux, 2, 2);
    good.means = view(aux, 4, 64);
    good.basis = view(aux, 128, SPECTRAL_BASIS);
    good.pool = view(in, 0, SPECTRAL_PAGE);
    good.table = view(in, SPECTRAL_PAGE, 128 * 8);
    good.pairing = KVCL_ROPE_HALVES;
    ACCEPTED(spectral_dec, good, (void)0);
    ACCEPTED(spectral_dec, good, a.table.buf = NULL);
    BAD_SPECTRAL(spectral_dec, good);
    BAD_PAGES(spectral_dec, good);
    REFUSED(spectral_dec, good, KVCL_E_ARG, a.table.bytes -= 4);
    REFUSED(spectral_dec, good, KVCL_E_ARG, a.n_rot = 7);
    REFUSED(spectral_dec, good, KVCL_E_ARG, a.join = 3);
    REFUSED(spectral_dec, good, KVCL_E_ARG, a.k = view(aux, 130, RAW));
}
END_TEST

/* A basis that pack refuses names what is wrong. */
START_TEST(spectral_pack)
{
    int8_t synth[4 * 32] = {1};
    float gain[4] = {1.0f, 1.0f, 1.0f, 1.0f}, amp[4] = {1.0f, 2.0f, 0.0f, 1.0f};
    uint8_t width[4] = {8, 4, 2, 0};
    kvcl_spectral_part part = {4, synth, NULL, gain, amp, width, false}, parts[2] = {part, part};
    float basis[SPECTRAL_BASIS];
    ck_assert_uint_eq(kvcl_spectral_basis_bytes(&spectral8), sizeof basis);
    ck_assert_uint_eq(kvcl_spectral_words(1, &part), 2);
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &spectral8, parts, basis), KVCL_OK);
    parts[1].analysis = (const int8_t *)gain;
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &spectral8, parts, basis), KVCL_E_ARG);
    parts[1] = part;
    parts[0].n_comp = 3;
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &spectral8, parts, basis), KVCL_E_ARG);
    parts[0] = part;
    kvcl_spectral_shape small = {1, 32, 1, 1, 8};
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &small, parts, basis), KVCL_E_ARG);
    ck_assert_msg(strstr(kvcl_last_error(d.ctx), "2 words"), "%s", kvcl_last_error(d.ctx));
    width[1] = 3;
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &spectral8, parts, basis), KVCL_E_ARG);
    width[1] = 4;
    amp[0] = -1.0f;
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &spectral8, parts, basis), KVCL_E_ARG);
    amp[0] = 1.0f;
    synth[5] = -128;
    ck_assert_int_eq(kvcl_spectral_pack(d.ctx, &spectral8, parts, basis), KVCL_E_ARG);
}
END_TEST

/* ---- attention ----------------------------------------------------------------------------- */

/* 2 queries of 2 heads at 600, tokens 500 to 601: pages 7 to 9, blocks 0 and 1. */
static kvcl_attn_in make_in(void)
{
    kvcl_attn_in a = {.n = 2, .q_stride = 64, .pos0 = 600, .n_q_heads = 2, .n_kv_heads = 1};
    a.head_dim = 32;
    a.begin = 500;
    a.end = 602;
    a.first_part = 1;
    a.n_parts = 3;
    a.scale = 1.0f;
    a.q = view(in, 0, 128);
    a.page_table = view(aux, 0, 3);
    a.ml = view(out, 0, 24);
    a.o = view(out2, 0, 384);
    return a;
}

/* What all attn_* operations refuse (attn_raw's own test: test_validate.c). */
#define BAD_IN(op, good)                                                                  \
    do {                                                                                  \
        ACCEPTED(op, good, (void)0);                                                      \
        ACCEPTED(op, good, a.in.n = 0);                                                   \
        ACCEPTED(op, good, a.in.end = a.in.begin);                                        \
        ACCEPTED(op, good, a.in.pos0 = 0); /* sees nothing */                             \
        BAD_VIEWS(op, good, in.q, 128);                                                   \
        BAD_VIEWS(op, good, in.page_table, 3);                                            \
        BAD_VIEWS(op, good, in.ml, 24);                                                   \
        BAD_VIEWS(op, good, in.o, 384);                                                   \
        REFUSED(op, good, KVCL_E_ARG, a.in.end = 499);                                    \
        REFUSED(op, good, KVCL_E_ARG, a.in.end = UINT32_MAX);                             \
        REFUSED(op, good, KVCL_E_ARG, a.in.first_part = 2);                               \
        REFUSED(op, good, KVCL_E_ARG, a.in.first_part = UINT32_MAX);                      \
        REFUSED(op, good, KVCL_E_ARG, a.in.n_parts = 2);                                  \
        REFUSED(op, good, KVCL_E_ARG, a.in.n_parts = UINT32_MAX);                         \
        REFUSED(op, good, KVCL_E_ARG, a.in.q_stride = 63);                                \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.in.pos0 = UINT32_MAX);                    \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, (a.in.n_q_heads = 3, a.in.n_kv_heads = 2)); \
        REFUSED(op, good, KVCL_E_UNSUPPORTED, a.in.n_kv_heads = 0);                       \
        REFUSED(op, good, KVCL_E_ARG, a.in.ml = view(in, 8, 24));                         \
        REFUSED(op, good, KVCL_E_ARG, a.in.o = view(in, 8, 384));                         \
        REFUSED(op, good, KVCL_E_ARG, a.in.o = view(out, 8, 384));                        \
        REFUSED(op, good, KVCL_E_ARG, a.in.ml = view(aux, 1, 24));                        \
        REFUSED(op, good, KVCL_E_ARG, a.in.o = view(in, 512, 384)); /* the pool */        \
        REFUSED(op, good, KVCL_E_ARG, a.in.ml = view(in, 520, 24));                       \
    } while (0)

START_TEST(attn_quant)
{
    kvcl_attn_quant_args good = {.in = make_in(), .shape = shape4, .n_rot = 4};
    good.shape.form = KVCL_QUANT_PRE;
    good.pairing = KVCL_ROPE_ADJACENT;
    good.pool = view(in, 512, PAGE);
    good.means = view(aux, 512, 128);
    good.table = view(aux, 700, 577 * 4);
    BAD_IN(attn_quant, good);
    BAD_SHAPES(attn_quant, good);
    ACCEPTED(attn_quant, good, (a.pairing = KVCL_ROPE_NONE, a.table.buf = NULL));
    ACCEPTED(attn_quant, good, (a.shape.form = KVCL_QUANT_CHANNEL, a.table.buf = NULL));
    REFUSED(attn_quant, good, KVCL_E_ARG, a.shape.head_dim = 64);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.shape.n_kv_heads = 2);
    REFUSED(attn_quant, good, KVCL_E_UNSUPPORTED, a.in.head_dim = a.shape.head_dim = 24);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.means.bytes = 127 * 4);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.table.bytes -= 4);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.table.buf = NULL);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.n_rot = 3);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.n_rot = 34);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.pairing = (kvcl_rope_pairing)3);
    REFUSED(attn_quant, good, KVCL_E_ARG, a.in.o = view(aux, 600, 384));
    REFUSED(attn_quant, good, KVCL_E_ARG, a.in.ml = view(aux, 699, 24));
}
END_TEST

START_TEST(attn_spectral)
{
    kvcl_attn_spectral_args good = {.in = make_in(), .shape = spectral8, .n_rot = 4};
    good.pairing = KVCL_ROPE_ADJACENT;
    good.pool = view(in, 512, SPECTRAL_PAGE);
    good.basis = view(in, 2000, SPECTRAL_BASIS);
    good.means = view(aux, 512, 64);
    good.table = view(aux, 700, 577 * 4);
    BAD_IN(attn_spectral, good);
    BAD_SPECTRAL(attn_spectral, good);
    ACCEPTED(attn_spectral, good, (a.pairing = KVCL_ROPE_NONE, a.table.buf = NULL));
    REFUSED(attn_spectral, good, KVCL_E_ARG, a.shape.head_dim = 64);
    REFUSED(attn_spectral, good, KVCL_E_ARG, a.table.bytes -= 4);
    REFUSED(attn_spectral, good, KVCL_E_ARG, a.n_rot = 34);
    REFUSED(attn_spectral, good, KVCL_E_ARG, a.in.o = view(in, 2000, 384)); /* the basis */
}
END_TEST

START_TEST(attn_block)
{
    kvcl_attn_block_args good = {.in = make_in()};
    good.block_type_k = KVCL_Q8_0;
    good.block_type_v = KVCL_Q4_0;
    good.pool = view(in, 512, BLOCK_HALVES / 2);
    BAD_IN(attn_block, good);
    BAD_BLOCKS(attn_block, good);
    REFUSED(attn_block, good, KVCL_E_UNSUPPORTED, a.in.head_dim = 24);
}
END_TEST

/* ---- rsvd ---------------------------------------------------------------------------------- */

START_TEST(rsvd)
{
    kvcl_rsvd_args good = {.n = 1, .rows = 8, .cols = 16, .rank = 2, .oversample = 2, .power = 1};
    const size_t scratch = kvcl_rsvd_scratch_bytes(1, 8, 16, 4) / 4;
    good.a = view(in, 0, 128);
    good.ids = view(aux, 0, 3);
    good.u = view(out, 0, 16);
    good.s = view(out, 16, 2);
    good.v = view(out, 32, 32);
    good.bad = view(out, 64, 1);
    good.scratch = view(out2, 0, scratch);
    ACCEPTED(rsvd, good, (void)0);
    ACCEPTED(rsvd, good, (a.n = 0, a.a.buf = NULL));
    ACCEPTED(rsvd, good, a.power = 64);
    BAD_VIEWS(rsvd, good, a, 128);
    BAD_VIEWS(rsvd, good, ids, 3);
    BAD_VIEWS(rsvd, good, u, 16);
    BAD_VIEWS(rsvd, good, v, 32);
    BAD_VIEWS(rsvd, good, scratch, scratch);
    REFUSED(rsvd, good, KVCL_E_ARG, a.s.bytes = 4);
    REFUSED(rsvd, good, KVCL_E_ARG, a.bad.bytes = 0);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.rows = 0);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.rows = (1u << 20) + 1);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.cols = 0);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.cols = 257);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.rank = 0);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.rank = 15);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.oversample = UINT32_MAX);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.power = 65);
    REFUSED(rsvd, good, KVCL_E_UNSUPPORTED, a.n = 65537);
    REFUSED(rsvd, good, KVCL_E_ARG, a.u = view(in, 100, 16));
    REFUSED(rsvd, good, KVCL_E_ARG, a.v = view(out, 15, 32));
    REFUSED(rsvd, good, KVCL_E_ARG, a.bad = view(aux, 2, 1));
    REFUSED(rsvd, good, KVCL_E_ARG, a.s = view(out2, scratch - 1, 2));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("validate_code");
    TCase *c = tcase_create("validate_code");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, fwht);
    tcase_add_test(c, rsvd);
    tcase_add_test(c, quant_sizes);
    tcase_add_test(c, quant_enc);
    tcase_add_test(c, quant_dec);
    tcase_add_test(c, block_enc);
    tcase_add_test(c, block_dec);
    tcase_add_test(c, attn_quant);
    tcase_add_test(c, attn_block);
    tcase_add_test(c, spectral_enc);
    tcase_add_test(c, spectral_dec);
    tcase_add_test(c, spectral_pack);
    tcase_add_test(c, attn_spectral);
    suite_add_tcase(suite, c);
    return test_main(suite, true);
}
