/* cl_spectral.c - host halves of cl/spectral.cl and cl/spectral_vec.cl. */
#include "cl_launch.h"

#define GROUP 256
#define ENC_LANES 16    /* as in the kernel: lanes of sums */
#define ENC_STATIC 1024 /* bytes of local memory besides */

/* The arguments that both have, in the order of KVCL_SPECTRAL_PARAMS. */
typedef struct common {
    const kvcl_spectral_shape *shape;
    kvcl_view k, v, page_table, means, basis, pool, pool_table;
    uint32_t first_page, n_pages, n_skip, join;
    kvcl_type type_k, type_v;
} common;

static kvcl_status begin(kvcl_queue *q, kvcl_cl_stem stem, const char *kernel, const common *c,
                         kvcl_cl_launch *l)
{
    KVCL_TRY(kvcl_cl_begin(q, stem, c->shape->fold, kernel, l));
    kvcl_cl_arg_view(l, c->k, 1);
    kvcl_cl_arg_view(l, c->v, 1);
    kvcl_cl_arg_view(l, c->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(l, c->means, sizeof(float));
    kvcl_cl_arg_view(l, c->basis, 1);
    kvcl_cl_arg_view(l, c->pool, 1);
    kvcl_cl_arg_view(l, c->pool_table, sizeof(int32_t));
    kvcl_cl_arg_u32(l, c->shape->n_kv_heads);
    kvcl_cl_arg_u32(l, c->shape->head_dim);
    kvcl_cl_arg_u32(l, c->shape->words_k);
    kvcl_cl_arg_u32(l, c->shape->words_v);
    kvcl_cl_arg_u32(l, c->first_page);
    kvcl_cl_arg_u32(l, (uint32_t)c->type_k);
    kvcl_cl_arg_u32(l, (uint32_t)c->type_v);
    kvcl_cl_arg_u32(l, c->n_skip);
    kvcl_cl_arg_u32(l, kvcl_spectral_raw_dim(c->shape, c->join));
    return KVCL_OK;
}

/* A group, or in the vector shape an item, per page and head. */
static kvcl_status run(kvcl_cl_launch *l, const common *c, bool vector)
{
    size_t groups = (size_t)c->n_pages * c->shape->n_kv_heads;
    size_t items = vector ? 1 : kvcl_cl_lanes_group(l, GROUP);
    return kvcl_cl_run1(l, groups * items, items);
}

/* Local memory of the encoder for a number of tokens at a time. */
static size_t enc_bytes(const kvcl_spectral_shape *s, uint32_t chunk)
{
    size_t D = s->head_dim, floats = D * (2 * chunk + 4) + (size_t)4 * ENC_LANES * chunk / s->fold;
    return sizeof(float) * floats + sizeof(uint16_t) * D * s->fold;
}

/* How many tokens at a time, and the memory for them: arguments of the lane shape. */
static void add_chunk(kvcl_queue *q, const kvcl_spectral_shape *s, kvcl_cl_launch *l)
{
    uint32_t chunk = s->head_dim <= 128 ? 32 : 16;
    while (chunk > 8 && enc_bytes(s, chunk) + ENC_STATIC > kvcl_cl_caps_of(q)->local_bytes)
        chunk /= 2;
    kvcl_cl_arg_u32(l, chunk);
    kvcl_cl_arg_local(l, enc_bytes(s, chunk));
}

kvcl_status kvcl_cl_spectral_enc(kvcl_queue *q, const kvcl_spectral_enc_args *a)
{
    common c = {&a->shape, a->k,    a->v,          a->page_table, a->means,
                a->basis,  a->pool, a->pool_table, a->first_page, a->n_pages,
                a->n_skip, 0,       a->type_k,     a->type_v};
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, vector ? KVCL_CL_STEM_spectral_vec : KVCL_CL_STEM_spectral,
                   vector ? "kvcl_spectral_enc_vec" : "kvcl_spectral_enc", &c, &l));
    kvcl_cl_arg_view(&l, a->bad, sizeof(int32_t));
    if (!vector)
        add_chunk(q, &a->shape, &l);
    return run(&l, &c, vector);
}

kvcl_status kvcl_cl_spectral_coef(kvcl_queue *q, const kvcl_spectral_coef_args *a)
{
    common c = {&a->shape, a->k,     a->v,          a->page_table, a->means,
                a->basis,  a->coefs, a->page_table, a->first_page, a->n_pages,
                a->n_skip, a->join,  a->type_k,     a->type_v};
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, KVCL_CL_STEM_spectral, "kvcl_spectral_coef", &c, &l));
    add_chunk(q, &a->shape, &l);
    return run(&l, &c, false);
}

kvcl_status kvcl_cl_spectral_dec(kvcl_queue *q, const kvcl_spectral_dec_args *a)
{
    common c = {&a->shape, a->k,    a->v,          a->page_table, a->means,
                a->basis,  a->pool, a->pool_table, a->first_page, a->n_pages,
                0,         a->join, a->type_k,     a->type_v};
    bool turned = a->table.buf && a->pairing != KVCL_ROPE_NONE;
    kvcl_cl_launch l;
    bool vector = kvcl_cl_caps_of(q)->vector_shape;
    KVCL_TRY(begin(q, vector ? KVCL_CL_STEM_spectral_vec : KVCL_CL_STEM_spectral,
                   vector ? "kvcl_spectral_dec_vec" : "kvcl_spectral_dec", &c, &l));
    kvcl_cl_arg_view(&l, a->table, sizeof(float));
    kvcl_cl_arg_u32(&l, turned ? a->n_rot : 0);
    kvcl_cl_arg_u32(&l, (uint32_t)a->pairing);
    return run(&l, &c, vector);
}
