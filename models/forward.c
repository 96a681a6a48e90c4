/* forward.c - see forward.h.  Shapes: E width, W = (Hq + 2 Hk) D one token's q|k|v row, F
 * feed-forward width, V vocabulary. */
#include "forward.h"

#include "mem.h"
#include "rope_table.h"

/* Rows of logits that one step makes at most, in bytes. */
#define LOGITS_BYTES ((size_t)64 << 20)

static kvcl_view whole(kvcl_buf *b) { return (kvcl_view){b, 0, b->bytes}; }

/* Elements [at, end) of an f32 buffer. */
static kvcl_view from(kvcl_buf *b, size_t at)
{
    return (kvcl_view){b, at * sizeof(float), b->bytes - at * sizeof(float)};
}

static uint32_t qkv_width(const kvcl_hparams *hp)
{
    return (hp->n_heads + 2 * hp->n_kv_heads) * hp->head_dim;
}

/* ---- memory -------------------------------------------------------------------------------- */

static kvcl_status create_rope(kvcl_forward *f, uint32_t n_ctx)
{
    const kvcl_hparams *hp = &f->model->hp;
    f->rope = (kvcl_cache_rope){.pairing = KVCL_ROPE_NONE};
    if (hp->n_rot == 0)
        return KVCL_OK;
    kvcl_ctx *ctx = f->model->ctx;
    size_t n = (size_t)n_ctx * hp->n_rot, bytes = n * sizeof(float);
    void *table;
    KVCL_TRY(kvcl_mem_array(ctx, n, sizeof(float), "the rotation table", &table));
    kvcl_rope_table(table, n_ctx, hp->n_rot, (double)hp->rope_base, (double)hp->rope_scale);
    kvcl_status st = kvcl_buf_create(f->q->dev, bytes, "the rotation table", &f->rope_table);
    if (st == KVCL_OK)
        st = kvcl_buf_write(f->q, f->rope_table, 0, table, bytes);
    kvcl_mem_free(ctx, table);
    if (st != KVCL_OK)
        return st;
    f->rope = (kvcl_cache_rope){KVCL_ROPE_ADJACENT, hp->n_rot, whole(f->rope_table)};
    return KVCL_OK;
}

static kvcl_status create_floats(kvcl_forward *f, size_t rows, size_t width, kvcl_buf **out)
{
    return kvcl_buf_create(f->q->dev, rows * width * sizeof(float), "activations", out);
}

/* The most that any matmul of a step wants. */
static size_t scratch_bytes(const kvcl_forward *f)
{
    const kvcl_weights *w = f->w;
    size_t most = kvcl_matmul_scratch_bytes(w->dev, f->n_logits, w->output);
    for (uint32_t i = 0; i < w->n_layers; i++) {
        const kvcl_layer *l = &w->layers[i];
        const kvcl_mat *mats[] = {l->qkv[0].w, l->qkv[1].w, l->qkv[2].w, l->attn_out.w,
                                  l->gate.w,   l->up.w,     l->down.w};
        for (uint32_t j = 0; j < kvcl_array_len(mats); j++)
            if (mats[j])
                most = kvcl_max_size(most, kvcl_matmul_scratch_bytes(w->dev, f->n_batch, mats[j]));
    }
    return most;
}

static kvcl_status create_buffers(kvcl_forward *f)
{
    const kvcl_hparams *hp = &f->model->hp;
    size_t n = f->n_batch;
    KVCL_TRY(kvcl_buf_create(f->q->dev, n * sizeof(int32_t), "activations", &f->ids));
    KVCL_TRY(create_floats(f, n, hp->n_embd, &f->x));
    KVCL_TRY(create_floats(f, n, hp->n_embd, &f->h));
    KVCL_TRY(create_floats(f, n, qkv_width(hp), &f->qkv));
    KVCL_TRY(create_floats(f, n, (size_t)hp->n_heads * hp->head_dim, &f->att));
    KVCL_TRY(create_floats(f, n, hp->n_ff, &f->up));
    if (f->w->layers[0].gate.w)
        KVCL_TRY(create_floats(f, n, hp->n_ff, &f->gate));
    KVCL_TRY(create_floats(f, f->n_logits, hp->n_vocab, &f->logits));
    size_t scratch = scratch_bytes(f);
    return scratch ? kvcl_buf_create(f->q->dev, scratch, "matmul scratch", &f->scratch) : KVCL_OK;
}

kvcl_status kvcl_forward_create(const kvcl_model *model, const kvcl_weights *w, kvcl_cache *cache,
                                kvcl_queue *q, uint32_t n_ctx, uint32_t n_batch, kvcl_forward *out)
{
    size_t row = (size_t)model->hp.n_vocab * sizeof(float);
    *out = (kvcl_forward){.model = model, .w = w, .cache = cache, .q = q, .n_batch = n_batch};
    out->n_logits = kvcl_max_u32(1, (uint32_t)kvcl_min_size(n_batch, LOGITS_BYTES / row));
    kvcl_status st = create_rope(out, n_ctx);
    if (st == KVCL_OK)
        st = create_buffers(out);
    if (st != KVCL_OK)
        kvcl_forward_free(out);
    return st;
}

void kvcl_forward_free(kvcl_forward *f)
{
    kvcl_buf *all[] = {f->ids,  f->x,  f->h,       f->qkv,    f->att,
                       f->gate, f->up, f->scratch, f->logits, f->rope_table};
    for (uint32_t i = 0; i < kvcl_array_len(all); i++)
        kvcl_buf_free(all[i]);
    *f = (kvcl_forward){0};
}

/* ---- prompt -------------------------------------------------------------------------------- */

/* out rows (stride apart) = linear(x rows), n of them. */
static kvcl_status apply(const kvcl_forward *f, const kvcl_linear *lin, kvcl_view x, kvcl_view out,
                         uint32_t stride, uint32_t n)
{
    KVCL_TRY(kvcl_op_matmul(f->q, &(kvcl_matmul_args){
                                      .n = n,
                                      .w = lin->w,
                                      .x = x,
                                      .out = out,
                                      .x_stride = lin->w->cols,
                                      .out_stride = stride,
                                      .scratch = f->scratch ? whole(f->scratch) : (kvcl_view){0},
                                  }));
    if (!lin->bias.buf)
        return KVCL_OK;
    return kvcl_op_add(f->q, &(kvcl_add_args){.a = out,
                                              .b = lin->bias,
                                              .out = out,
                                              .n = n,
                                              .dim = lin->w->rows,
                                              .stride = stride,
                                              .b_is_row = true});
}

static kvcl_status norm(const kvcl_forward *f, const kvcl_norm_spec *spec, kvcl_view x, uint32_t n)
{
    return kvcl_op_norm(
        f->q, &(kvcl_norm_args){
                  .spec = *spec, .x = x, .out = whole(f->h), .n = n, .dim = f->model->hp.n_embd});
}

/* x += h */
static kvcl_status add_residual(const kvcl_forward *f, uint32_t n)
{
    uint32_t dim = f->model->hp.n_embd;
    return kvcl_op_add(f->q, &(kvcl_add_args){.a = whole(f->x),
                                              .b = whole(f->h),
                                              .out = whole(f->x),
                                              .n = n,
                                              .dim = dim,
                                              .stride = dim});
}

static kvcl_status prefill_attention(kvcl_forward *f, uint32_t i, uint32_t n, uint32_t pos0)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_layer *l = &f->w->layers[i];
    uint32_t width = qkv_width(hp);
    size_t at = 0;
    KVCL_TRY(norm(f, &l->attn_norm, whole(f->x), n));
    for (uint32_t s = 0; s < l->n_qkv; at += l->qkv[s++].w->rows)
        KVCL_TRY(apply(f, &l->qkv[s], whole(f->h), from(f->qkv, at), width, n));
    KVCL_TRY(kvcl_cache_store(f->cache, f->q, i, whole(f->qkv), width, n, pos0, &f->rope));
    KVCL_TRY(kvcl_cache_attend(f->cache, f->q, i, whole(f->qkv), width, n, pos0, whole(f->att)));
    KVCL_TRY(apply(f, &l->attn_out, whole(f->att), whole(f->h), hp->n_embd, n));
    return add_residual(f, n);
}

static kvcl_status prefill_ffn(kvcl_forward *f, uint32_t i, uint32_t n)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_layer *l = &f->w->layers[i];
    uint32_t n_elems = n * hp->n_ff;
    KVCL_TRY(norm(f, &l->ffn_norm, whole(f->x), n));
    KVCL_TRY(apply(f, &l->up, whole(f->h), whole(f->up), hp->n_ff, n));
    if (l->gate.w) {
        KVCL_TRY(apply(f, &l->gate, whole(f->h), whole(f->gate), hp->n_ff, n));
        KVCL_TRY(kvcl_op_swiglu(
            f->q, &(kvcl_swiglu_args){whole(f->gate), whole(f->up), whole(f->up), n_elems}));
    } else {
        KVCL_TRY(kvcl_op_gelu(f->q, &(kvcl_gelu_args){whole(f->up), whole(f->up), n_elems}));
    }
    KVCL_TRY(apply(f, &l->down, whole(f->up), whole(f->h), hp->n_embd, n));
    return add_residual(f, n);
}

static kvcl_status embed(kvcl_forward *f, const int32_t *tokens, uint32_t n, uint32_t pos0)
{
    KVCL_TRY(kvcl_buf_write(f->q, f->ids, 0, tokens, n * sizeof *tokens));
    return kvcl_op_embed_rows(f->q, &(kvcl_embed_rows_args){.table = f->w->token_embd,
                                                            .pos_table = f->w->pos_embd,
                                                            .ids = whole(f->ids),
                                                            .out = whole(f->x),
                                                            .n = n,
                                                            .pos0 = pos0});
}

kvcl_status kvcl_forward_prefill(kvcl_forward *f, const int32_t *tokens, uint32_t n, uint32_t pos0,
                                 uint32_t n_logits)
{
    const kvcl_hparams *hp = &f->model->hp;
    KVCL_TRY(embed(f, tokens, n, pos0));
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        KVCL_TRY(prefill_attention(f, i, n, pos0));
        KVCL_TRY(prefill_ffn(f, i, n));
    }
    if (n_logits == 0)
        return KVCL_OK;
    kvcl_view x = from(f->x, (size_t)(n - n_logits) * hp->n_embd);
    KVCL_TRY(norm(f, &f->w->output_norm, x, n_logits));
    return apply(f, &(kvcl_linear){.w = f->w->output}, whole(f->h), whole(f->logits), hp->n_vocab,
                 n_logits);
}

/* ---- one token ----------------------------------------------------------------------------- */

static kvcl_status decode_attention(kvcl_forward *f, uint32_t i, uint32_t pos)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_layer *l = &f->w->layers[i];
    uint32_t width = qkv_width(hp);
    kvcl_matvec_args a = {
        .n = 1, .n_seg = l->n_qkv, .x = whole(f->x), .x_stride = hp->n_embd, .norm = l->attn_norm};
    size_t at = 0;
    for (uint32_t s = 0; s < l->n_qkv; at += l->qkv[s++].w->rows) {
        a.w[s] = l->qkv[s].w;
        a.bias[s] = l->qkv[s].bias;
        a.out[s] = from(f->qkv, at);
        a.out_stride[s] = width;
    }
    KVCL_TRY(kvcl_op_matvec(f->q, &a));
    KVCL_TRY(kvcl_cache_store(f->cache, f->q, i, whole(f->qkv), width, 1, pos, &f->rope));
    KVCL_TRY(kvcl_cache_attend(f->cache, f->q, i, whole(f->qkv), width, 1, pos, whole(f->att)));
    return kvcl_op_matvec(f->q, &(kvcl_matvec_args){.n = 1,
                                                    .n_seg = 1,
                                                    .w = {l->attn_out.w},
                                                    .bias = {l->attn_out.bias},
                                                    .out = {whole(f->x)},
                                                    .out_stride = {hp->n_embd},
                                                    .x = whole(f->att),
                                                    .x_stride = hp->n_heads * hp->head_dim,
                                                    .res = whole(f->x)});
}

static kvcl_status decode_ffn(kvcl_forward *f, uint32_t i)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_layer *l = &f->w->layers[i];
    kvcl_matvec_args a = {.n = 1,
                          .n_seg = 1,
                          .w = {l->up.w},
                          .bias = {l->up.bias},
                          .out = {whole(f->up)},
                          .out_stride = {hp->n_ff, hp->n_ff},
                          .x = whole(f->x),
                          .x_stride = hp->n_embd,
                          .norm = l->ffn_norm,
                          .act = KVCL_ACT_GELU};
    if (l->gate.w) {
        a.n_seg = 2;
        a.act = KVCL_ACT_SWIGLU;
        a.w[0] = l->gate.w, a.w[1] = l->up.w;
        a.bias[0] = l->gate.bias, a.bias[1] = l->up.bias;
    }
    KVCL_TRY(kvcl_op_matvec(f->q, &a));
    return kvcl_op_matvec(f->q, &(kvcl_matvec_args){.n = 1,
                                                    .n_seg = 1,
                                                    .w = {l->down.w},
                                                    .bias = {l->down.bias},
                                                    .out = {whole(f->x)},
                                                    .out_stride = {hp->n_embd},
                                                    .x = whole(f->up),
                                                    .x_stride = hp->n_ff,
                                                    .res = whole(f->x)});
}

kvcl_status kvcl_forward_decode(kvcl_forward *f, int32_t token, uint32_t pos)
{
    const kvcl_hparams *hp = &f->model->hp;
    KVCL_TRY(embed(f, &token, 1, pos));
    for (uint32_t i = 0; i < hp->n_layers; i++) {
        KVCL_TRY(decode_attention(f, i, pos));
        KVCL_TRY(decode_ffn(f, i));
    }
    return kvcl_op_matvec(f->q, &(kvcl_matvec_args){.n = 1,
                                                    .n_seg = 1,
                                                    .w = {f->w->output},
                                                    .out = {whole(f->logits)},
                                                    .out_stride = {hp->n_vocab},
                                                    .x = whole(f->x),
                                                    .x_stride = hp->n_embd,
                                                    .norm = f->w->output_norm});
}
