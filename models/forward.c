/* forward.c - see forward.h.  Shapes: E width, W = (Hq + 2 Hk) D one token's q|k|v row, F
 * feed-forward width, V vocabulary. */
#include "forward.h"

#include "mem.h"

/* Rows of logits that one step makes at most, in bytes. */
#define LOGITS_BYTES ((size_t)4 << 20)

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

static kvcl_status create_floats(kvcl_forward *f, size_t rows, size_t width, kvcl_buf **out)
{
    return kvcl_buf_create(f->q->dev, rows * width * sizeof(float), KVCL_USE_ACTIVATIONS, out);
}

/* The most that any matmul of a step wants. */
static size_t scratch_bytes(const kvcl_weights *w, uint32_t n_batch, uint32_t n_logits)
{
    size_t most = kvcl_matmul_scratch_bytes(w->dev, n_logits, w->output);
    for (uint32_t i = 0; i < w->n_layers; i++) {
        const kvcl_layer *l = &w->layers[i];
        const kvcl_mat *mats[] = {l->qkv[0].w, l->qkv[1].w, l->qkv[2].w, l->attn_out.w,
                                  l->gate.w,   l->up.w,     l->down.w};
        for (uint32_t j = 0; j < kvcl_array_len(mats); j++)
            if (mats[j])
                most = kvcl_max_size(most, kvcl_matmul_scratch_bytes(w->dev, n_batch, mats[j]));
    }
    return most;
}

static uint32_t logits_rows(const kvcl_model *model, uint32_t n_batch)
{
    size_t row = (size_t)model->hp.n_vocab * sizeof(float);
    return kvcl_max_u32(1, (uint32_t)kvcl_min_size(n_batch, LOGITS_BYTES / row));
}

size_t kvcl_forward_bytes(const kvcl_model *model, const kvcl_weights *w, uint32_t n_rows,
                          uint32_t n_batch)
{
    const kvcl_hparams *hp = &model->hp;
    uint32_t n_logits = logits_rows(model, n_batch);
    size_t per_token = hp->n_embd + qkv_width(hp) + (size_t)hp->n_heads * hp->head_dim +
                       (size_t)hp->n_ff * (w->layers[0].gate.w ? 2 : 1);
    size_t floats =
        (size_t)n_rows * hp->n_embd + n_batch * per_token + (size_t)n_logits * hp->n_vocab;
    return n_batch * sizeof(int32_t) + floats * sizeof(float) + scratch_bytes(w, n_batch, n_logits);
}

static kvcl_status create_buffers(kvcl_forward *f)
{
    const kvcl_hparams *hp = &f->model->hp;
    size_t n = f->n_batch;
    KVCL_TRY(kvcl_buf_create(f->q->dev, n * sizeof(int32_t), KVCL_USE_ACTIVATIONS, &f->ids));
    KVCL_TRY(create_floats(f, f->n_rows, hp->n_embd, &f->x));
    KVCL_TRY(create_floats(f, n, hp->n_embd, &f->h));
    KVCL_TRY(create_floats(f, n, qkv_width(hp), &f->qkv));
    KVCL_TRY(create_floats(f, n, (size_t)hp->n_heads * hp->head_dim, &f->att));
    KVCL_TRY(create_floats(f, n, hp->n_ff, &f->up));
    if (f->w->layers[0].gate.w)
        KVCL_TRY(create_floats(f, n, hp->n_ff, &f->gate));
    KVCL_TRY(create_floats(f, f->n_logits, hp->n_vocab, &f->logits));
    size_t scratch = scratch_bytes(f->w, f->n_batch, f->n_logits);
    return scratch ? kvcl_buf_create(f->q->dev, scratch, KVCL_USE_ACTIVATIONS, &f->scratch)
                   : KVCL_OK;
}

kvcl_status kvcl_forward_create(const kvcl_model *model, const kvcl_weights *w, kvcl_cache *cache,
                                kvcl_queue *q, uint32_t n_rows, uint32_t n_batch, kvcl_forward *out)
{
    *out = (kvcl_forward){.model = model,
                          .w = w,
                          .cache = cache,
                          .q = q,
                          .n_batch = n_batch,
                          .n_rows = n_rows,
                          .n_logits = logits_rows(model, n_batch)};
    kvcl_status st = create_buffers(out);
    if (st != KVCL_OK)
        kvcl_forward_free(out);
    return st;
}

void kvcl_forward_free(kvcl_forward *f)
{
    kvcl_buf *all[] = {f->ids, f->x, f->h, f->qkv, f->att, f->gate, f->up, f->scratch, f->logits};
    for (uint32_t i = 0; i < kvcl_array_len(all); i++)
        kvcl_buf_free(all[i]);
    if (f->tap.rows)
        kvcl_mem_free(f->model->ctx, f->tap.rows);
    *f = (kvcl_forward){0};
}

/* Shows n rows of `width` floats to whoever wants them. */
static kvcl_status tap(kvcl_forward *f, kvcl_tap_point point, uint32_t layer, uint32_t pos0,
                       uint32_t n, const kvcl_buf *rows, uint32_t stride, uint32_t width)
{
    if (!(f->tap.mask >> point & 1u))
        return KVCL_OK;
    size_t bytes = width * sizeof(float);
    for (uint32_t i = 0; i < n; i++)
        KVCL_TRY(kvcl_buf_read(f->q, rows, (size_t)i * stride * sizeof(float),
                               f->tap.rows + (size_t)i * width, bytes));
    KVCL_TRY(kvcl_queue_wait(f->q));
    f->tap.fn(f->tap.user, point, layer, pos0, n, f->tap.rows, width);
    return KVCL_OK;
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
static kvcl_status add_residual(const kvcl_forward *f, kvcl_view x, uint32_t n)
{
    uint32_t dim = f->model->hp.n_embd;
    return kvcl_op_add(
        f->q,
        &(kvcl_add_args){.a = x, .b = whole(f->h), .out = x, .n = n, .dim = dim, .stride = dim});
}

/* Each head's query and key in the step's qkv rows normalised, where the model does so. */
static kvcl_status norm_heads(const kvcl_forward *f, const kvcl_layer *l, uint32_t n)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_norm_spec *specs[] = {&l->q_norm, &l->k_norm};
    const uint32_t heads[] = {hp->n_heads, hp->n_kv_heads};
    for (uint32_t s = 0; s < 2; s++) {
        kvcl_view rows = from(f->qkv, s ? (size_t)hp->n_heads * hp->head_dim : 0);
        if (specs[s]->kind == KVCL_NORM_NONE)
            continue;
        KVCL_TRY(kvcl_op_norm(f->q, &(kvcl_norm_args){.spec = *specs[s],
                                                      .x = rows,
                                                      .out = rows,
                                                      .n = n * heads[s],
                                                      .dim = hp->head_dim,
                                                      .n_group = heads[s],
                                                      .stride = qkv_width(hp)}));
    }
    return KVCL_OK;
}

/* Keys and values to the cache, attention over it; the step's qkv rows are there. */
static kvcl_status attend(kvcl_forward *f, uint32_t i, uint32_t n, uint32_t pos0)
{
    const kvcl_hparams *hp = &f->model->hp;
    uint32_t width = qkv_width(hp), heads = hp->n_heads * hp->head_dim;
    KVCL_TRY(norm_heads(f, &f->w->layers[i], n));
    KVCL_TRY(tap(f, KVCL_TAP_QKV, i, pos0, n, f->qkv, width, width));
    KVCL_TRY(kvcl_cache_store(f->cache, f->q, i, whole(f->qkv), width, n, pos0));
    KVCL_TRY(tap(f, KVCL_TAP_Q, i, pos0, n, f->qkv, width, heads));
    KVCL_TRY(kvcl_cache_attend(f->cache, f->q, i, whole(f->qkv), width, n, pos0, whole(f->att)));
    return tap(f, KVCL_TAP_ATT, i, pos0, n, f->att, heads, heads);
}

static kvcl_status prefill_attention(kvcl_forward *f, uint32_t i, kvcl_view x, uint32_t n,
                                     uint32_t pos0)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_layer *l = &f->w->layers[i];
    uint32_t width = qkv_width(hp);
    size_t at = 0;
    KVCL_TRY(norm(f, &l->attn_norm, x, n));
    for (uint32_t s = 0; s < l->n_qkv; at += l->qkv[s++].w->rows)
        KVCL_TRY(apply(f, &l->qkv[s], whole(f->h), from(f->qkv, at), width, n));
    KVCL_TRY(attend(f, i, n, pos0));
    KVCL_TRY(apply(f, &l->attn_out, whole(f->att), whole(f->h), hp->n_embd, n));
    return add_residual(f, x, n);
}

static kvcl_status prefill_ffn(kvcl_forward *f, uint32_t i, kvcl_view x, uint32_t n)
{
    const kvcl_hparams *hp = &f->model->hp;
    const kvcl_layer *l = &f->w->layers[i];
    uint32_t n_elems = n * hp->n_ff;
    KVCL_TRY(norm(f, &l->ffn_norm, x, n));
    KVCL_TRY(apply(f, &l->up, whole(f->h), whole(f->up), hp->n_ff, n));
    if (l->gate.w) {
        KVCL_TRY(apply(f, &l->gate, whole(f->h), whole(f->gate), hp->n_ff, n));
        KVCL_TRY(kvcl_op_swiglu(
            f->q, &(kvcl_swiglu_args){whole(f->gate), whole(f->up), whole(f->up), n_elems}));
    } else {
        KVCL_TRY(kvcl_op_gelu(f->q, &(kvcl_gelu_args){whole(f->up), whole(f->up), n_elems}));
    }
    KVCL_TRY(apply(f, &l->down, whole(f->up), whole(f->h), hp->n_embd, n));
    return add_residual(f, x, n);
}

kvcl_status kvcl_forward_embed(kvcl_forward *f, const int32_t *tokens, uint32_t row, uint32_t n,
                               uint32_t pos0)
{
    KVCL_TRY(kvcl_buf_write(f->q, f->ids, 0, tokens, n * sizeof *tokens));
    return kvcl_op_embed_rows(
        f->q, &(kvcl_embed_rows_args){.table = f->w->token_embd,
                                      .pos_table = f->w->pos_embd,
                                      .ids = whole(f->ids),
                                      .out = from(f->x, (size_t)row * f->model->hp.n_embd),
                                      .n = n,
                                      .pos0 = pos0});
}

kvcl_status kvcl_forward_layer(kvcl_forward *f, uint32_t layer, uint32_t row, uint32_t n,
                               uint32_t pos0)
{
    kvcl_view x = from(f->x, (size_t)row * f->model->hp.n_embd);
    KVCL_TRY(prefill_attention(f, layer, x, n, pos0));
    return prefill_ffn(f, layer, x, n);
}

kvcl_status kvcl_forward_logits(kvcl_forward *f, uint32_t row, uint32_t n)
{
    const kvcl_hparams *hp = &f->model->hp;
    KVCL_TRY(norm(f, &f->w->output_norm, from(f->x, (size_t)row * hp->n_embd), n));
    return apply(f, &(kvcl_linear){.w = f->w->output}, whole(f->h), whole(f->logits), hp->n_vocab,
                 n);
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
    KVCL_TRY(attend(f, i, 1, pos));
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
    KVCL_TRY(kvcl_forward_embed(f, &token, 0, 1, pos));
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
