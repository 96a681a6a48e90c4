/* cl_holo.c - host halves of cl/holo.cl. */
#include "cl_launch.h"

#define GROUP 256
#define ROWS 4 /* as in the kernel */
#define TILE 8

/* The arguments that encoder and decoder have, in the order of HOLO_PARAMS. */
typedef struct common {
    const kvcl_holo_shape *shape;
    kvcl_view k, v, page_table, means, basis, pool, pool_table;
    uint32_t first_page, n_pages;
    kvcl_type type_k, type_v;
} common;

static uint32_t spec_of(const kvcl_holo_shape *s) { return s->fold + 16 * (uint32_t)s->form; }

static void arg_shape(kvcl_cl_launch *l, const kvcl_holo_shape *s)
{
    kvcl_cl_arg_u32(l, s->pair);
    kvcl_cl_arg_u32(l, (uint32_t)s->type);
    kvcl_cl_arg_f32(l, s->gain_k);
    kvcl_cl_arg_f32(l, s->gain_v);
    kvcl_cl_arg_u32(l, kvcl_holo_fold(s, true));
    kvcl_cl_arg_u32(l, s->by_block);
}

static kvcl_status begin(kvcl_queue *q, const char *kernel, const common *c, kvcl_cl_launch *l)
{
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_holo, spec_of(c->shape), kernel, l));
    kvcl_cl_arg_view(l, c->k, 1);
    kvcl_cl_arg_view(l, c->v, 1);
    kvcl_cl_arg_view(l, c->page_table, sizeof(int32_t));
    kvcl_cl_arg_view(l, c->means, sizeof(float));
    kvcl_cl_arg_view(l, c->basis, sizeof(uint16_t));
    kvcl_cl_arg_view(l, c->pool, 1);
    kvcl_cl_arg_view(l, c->pool_table, sizeof(int32_t));
    kvcl_cl_arg_u32(l, c->shape->n_kv_heads);
    kvcl_cl_arg_u32(l, c->shape->head_dim);
    arg_shape(l, c->shape);
    kvcl_cl_arg_u32(l, c->first_page);
    kvcl_cl_arg_u32(l, (uint32_t)c->type_k);
    kvcl_cl_arg_u32(l, (uint32_t)c->type_v);
    return KVCL_OK;
}

/* A group per page and head. */
static kvcl_status run(kvcl_cl_launch *l, const common *c)
{
    size_t groups = (size_t)c->n_pages * c->shape->n_kv_heads;
    size_t items = kvcl_cl_lanes_group(l, GROUP);
    return kvcl_cl_run1(l, groups * items, items);
}

kvcl_status kvcl_cl_holo_enc(kvcl_queue *q, const kvcl_holo_enc_args *a)
{
    common c = {&a->shape, a->k,          a->v,          a->page_table, a->means,  a->basis,
                a->pool,   a->pool_table, a->first_page, a->n_pages,    a->type_k, a->type_v};
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, "kvcl_holo_enc", &c, &l));
    kvcl_cl_arg_u32(&l, a->n_skip);
    kvcl_cl_arg_view(&l, a->bad, sizeof(int32_t));
    return run(&l, &c);
}

static uint32_t turned(kvcl_view table, kvcl_rope_pairing pairing, uint32_t n_rot)
{
    return table.buf && pairing != KVCL_ROPE_NONE ? n_rot : 0;
}

kvcl_status kvcl_cl_holo_dec(kvcl_queue *q, const kvcl_holo_dec_args *a)
{
    common c = {&a->shape, a->k,          a->v,          a->page_table, a->means,  a->basis,
                a->pool,   a->pool_table, a->first_page, a->n_pages,    a->type_k, a->type_v};
    kvcl_cl_launch l;
    KVCL_TRY(begin(q, "kvcl_holo_dec", &c, &l));
    kvcl_cl_arg_view(&l, a->table, sizeof(float));
    kvcl_cl_arg_u32(&l, turned(a->table, a->pairing, a->n_rot));
    kvcl_cl_arg_u32(&l, (uint32_t)a->pairing);
    return run(&l, &c);
}

/* Local memory: scores, four rows, lanes, statistics, keys of a tile of tokens or three sums of
 * four rows. */
static size_t lane_bytes(size_t D)
{
    return 16 * KVCL_BLOCK_TOKENS + 4 * ROWS * D + 1024 + 768 +
           4 * kvcl_max_size(TILE, 3 * ROWS) * D;
}

kvcl_status kvcl_cl_attn_holo(kvcl_queue *q, const kvcl_attn_holo_args *a)
{
    const kvcl_attn_in *in = &a->in;
    uint32_t blocks = (in->end - 1) / KVCL_BLOCK_TOKENS - in->begin / KVCL_BLOCK_TOKENS + 1;
    size_t groups = (size_t)blocks * in->n_kv_heads;
    uint32_t rows = in->n * (in->n_q_heads / in->n_kv_heads);
    kvcl_cl_launch l;
    KVCL_TRY(kvcl_cl_begin(q, KVCL_CL_STEM_holo, spec_of(&a->shape), "kvcl_attn_holo", &l));
    size_t items = kvcl_cl_lanes_group(&l, GROUP);
    kvcl_cl_arg_coded(&l, in, a->pool, a->means, a->table, turned(a->table, a->pairing, a->n_rot),
                      a->pairing);
    kvcl_cl_arg_view(&l, a->basis, sizeof(uint16_t));
    arg_shape(&l, &a->shape);
    kvcl_cl_arg_local(&l, lane_bytes(in->head_dim));
    return kvcl_cl_run2(&l, groups * items, kvcl_div_up(rows, ROWS), items, 1);
}
