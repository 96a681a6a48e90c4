/* validate.h - what the tests of the validation layer share: four buffers that nothing may write, a
 * call with one wrong argument.  Included by test_validate*.c alone, once each. */
#ifndef KVCL_TEST_VALIDATE_H
#define KVCL_TEST_VALIDATE_H

#include "test.h"

#define N 4096 /* elements of each buffer */

static test_dev d;
static kvcl_queue *q;
static kvcl_buf *in, *aux, *out, *out2;
static float image[N]; /* what each buffer holds */

static kvcl_buf *make_buf(void)
{
    kvcl_buf *b = NULL;
    ck_assert_int_eq(kvcl_buf_create(d.dev, N * sizeof(float), "test", &b), KVCL_OK);
    ck_assert_int_eq(kvcl_buf_write(q, b, 0, image, sizeof image), KVCL_OK);
    return b;
}

static void setup_buffers(void)
{
    char why[512] = "";
    test_rng rng = {.seed = test_seed()};
    ck_assert_msg(test_dev_open("cpu", &d, why, sizeof why) == KVCL_OK, "%s", why);
    q = d.q;
    test_fill_f32(&rng, image, N, 1.0f);
    in = make_buf();
    aux = make_buf();
    out = make_buf();
    out2 = make_buf();
}

/* Whatever was refused has written nothing.  Frees the buffers. */
static void check_buffers(void)
{
    kvcl_buf *all[] = {in, aux, out, out2};
    ck_assert_int_eq(kvcl_queue_wait(q), KVCL_OK);
    for (size_t i = 0; i < kvcl_array_len(all); i++) {
        float now[N];
        ck_assert_int_eq(kvcl_buf_read(q, all[i], 0, now, sizeof now), KVCL_OK);
        ck_assert_mem_eq(now, image, sizeof now);
        kvcl_buf_free(all[i]);
    }
}

static kvcl_view view(kvcl_buf *b, size_t first, size_t n)
{
    return (kvcl_view){b, first * sizeof(float), n * sizeof(float)};
}

/* The call with `change` applied to a copy of `good` answers `status`. */
#define REFUSED(op, good, status, change)                                                        \
    do {                                                                                         \
        kvcl_##op##_args a = (good);                                                             \
        change;                                                                                  \
        kvcl_status got_ = kvcl_op_##op(q, &a);                                                  \
        ck_assert_msg(got_ == (status), "%s with %s: %s (%s)", #op, #change,                     \
                      kvcl_status_string(got_), kvcl_last_error(d.ctx));                         \
        ck_assert_msg((status) == KVCL_OK || strstr(kvcl_last_error(d.ctx), #op),                \
                      "%s with %s: the sentence is '%s'", #op, #change, kvcl_last_error(d.ctx)); \
    } while (0)

/* What holds for any view of at least `elems` elements: missing, too small, beyond the buffer,
 * misaligned. */
#define BAD_VIEWS(op, good, field, elems)                                   \
    do {                                                                    \
        REFUSED(op, good, KVCL_E_ARG, a.field.buf = NULL);                  \
        REFUSED(op, good, KVCL_E_ARG, a.field.bytes = ((elems)-1) * 4);     \
        REFUSED(op, good, KVCL_E_ARG, a.field.bytes = 0);                   \
        REFUSED(op, good, KVCL_E_ARG, a.field.off = (N - (elems) + 1) * 4); \
        REFUSED(op, good, KVCL_E_ARG, a.field.off = SIZE_MAX - 3);          \
        REFUSED(op, good, KVCL_E_ARG, a.field.bytes = SIZE_MAX - 3);        \
        REFUSED(op, good, KVCL_E_ARG, a.field.off += 2);                    \
    } while (0)

#endif
