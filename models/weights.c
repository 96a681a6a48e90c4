/* weights.c - see weights.h. */
#include "weights.h"

#include "mem.h"
#include "types.h"

#include <stdio.h>

typedef struct kvcl_loader {
    const kvcl_model *model;
    kvcl_queue *q; /* NULL: describe only */
    kvcl_weights *w;
    size_t vector_bytes; /* handed out of w->vectors */
    bool *used;          /* [n_tensors] of the file */
} kvcl_loader;

/* Looks for a tensor of this exact shape; absent is fine when optional. */
static kvcl_status find(const kvcl_loader *ld, const char *name, uint32_t cols, uint32_t rows,
                        bool optional, const kvcl_gguf_tensor **out)
{
    *out = NULL;
    if (optional && !kvcl_gguf_tensor_find(&ld->model->gguf, name))
        return KVCL_OK;
    KVCL_TRY(kvcl_tensor_need(&ld->model->gguf, name, cols, rows, out));
    ld->used[*out - ld->model->gguf.tensors] = true;
    return KVCL_OK;
}

static kvcl_status describe_mat(kvcl_loader *ld, kvcl_type type, uint32_t rows, uint32_t cols,
                                kvcl_mat **out)
{
    void *p;
    KVCL_TRY(kvcl_mem_alloc(ld->model->ctx, sizeof(kvcl_mat), "a matrix's description", &p));
    kvcl_mat *m = *out = p;
    *m = (kvcl_mat){.dev = ld->w->dev, .type = type, .rows = rows, .cols = cols};
    m->bytes = rows * kvcl_type_bytes(type, cols);
    ld->w->bytes += m->bytes;
    return KVCL_OK;
}

static kvcl_status load_mat(kvcl_loader *ld, const char *name, uint32_t cols, uint32_t rows,
                            bool optional, kvcl_mat **out)
{
    const kvcl_gguf_tensor *t;
    KVCL_TRY(find(ld, name, cols, rows, optional, &t));
    if (!t)
        return KVCL_OK;
    if (!ld->q)
        return describe_mat(ld, t->type, rows, cols, out);
    KVCL_TRY(kvcl_mat_create(ld->q, t->type, rows, cols, t->data, out));
    ld->w->bytes += (*out)->bytes;
    return KVCL_OK;
}

/* A norm or bias, expanded to f32, into its place in w->vectors. */
static kvcl_status load_vector(kvcl_loader *ld, const char *name, uint32_t n, bool optional,
                               kvcl_view *out)
{
    const kvcl_gguf_tensor *t;
    void *host;
    KVCL_TRY(find(ld, name, n, 0, optional, &t));
    if (!t || !ld->q)
        return KVCL_OK;
    KVCL_TRY(kvcl_mem_array(ld->model->ctx, n, sizeof(float), "a weight vector", &host));
    kvcl_dequantise(t->type, t->data, n, host);
    *out = (kvcl_view){ld->w->vectors, ld->vector_bytes, n * sizeof(float)};
    ld->vector_bytes += kvcl_align_up(out->bytes, KVCL_ALIGN);
    kvcl_status st = kvcl_buf_write(ld->q, out->buf, out->off, host, out->bytes);
    kvcl_mem_free(ld->model->ctx, host);
    return st;
}

/* "<prefix>.weight" and "<prefix>.bias", where it is there or must be. */
static kvcl_status load_linear(kvcl_loader *ld, const char *prefix, uint32_t cols, uint32_t rows,
                               bool optional, bool biased, kvcl_linear *out)
{
    char name[KVCL_GGUF_NAME_CAP + 16];
    snprintf(name, sizeof name, "%s.weight", prefix);
    KVCL_TRY(load_mat(ld, name, cols, rows, optional, &out->w));
    if (!out->w)
        return KVCL_OK;
    snprintf(name, sizeof name, "%s.bias", prefix);
    return load_vector(ld, name, rows, !biased, &out->bias);
}

static kvcl_status load_norm(kvcl_loader *ld, const char *prefix, uint32_t n, kvcl_norm_spec *out)
{
    char name[KVCL_GGUF_NAME_CAP + 16];
    const kvcl_hparams *hp = &ld->model->hp;
    out->kind = hp->arch->norm;
    out->eps = hp->norm_eps;
    snprintf(name, sizeof name, "%s.weight", prefix);
    KVCL_TRY(load_vector(ld, name, n, false, &out->weight));
    snprintf(name, sizeof name, "%s.bias", prefix);
    return out->kind == KVCL_NORM_LAYER ? load_vector(ld, name, n, false, &out->bias) : KVCL_OK;
}

/* Of each head's query and key. */
static kvcl_status load_head_norms(kvcl_loader *ld, uint32_t i, kvcl_layer *out)
{
    char name[KVCL_GGUF_NAME_CAP];
    uint32_t D = ld->model->hp.head_dim;
    if (!ld->model->hp.arch->qk_norm)
        return KVCL_OK;
    snprintf(name, sizeof name, "blk.%u.attn_q_norm", (unsigned)i);
    KVCL_TRY(load_norm(ld, name, D, &out->q_norm));
    snprintf(name, sizeof name, "blk.%u.attn_k_norm", (unsigned)i);
    return load_norm(ld, name, D, &out->k_norm);
}

static kvcl_status load_attention(kvcl_loader *ld, uint32_t i, kvcl_layer *out)
{
    static const char *const three[] = {"attn_q", "attn_k", "attn_v"};
    const kvcl_hparams *hp = &ld->model->hp;
    uint32_t q_rows = hp->n_heads * hp->head_dim, kv_rows = hp->n_kv_heads * hp->head_dim;
    bool biased = hp->arch->qkv_bias;
    char name[KVCL_GGUF_NAME_CAP];
    KVCL_TRY(load_head_norms(ld, i, out));
    snprintf(name, sizeof name, "blk.%u.attn_qkv", (unsigned)i);
    out->n_qkv = 1;
    KVCL_TRY(load_linear(ld, name, hp->n_embd, q_rows + 2 * kv_rows, true, biased, &out->qkv[0]));
    if (!out->qkv[0].w) {
        out->n_qkv = 3;
        for (uint32_t s = 0; s < 3; s++) {
            snprintf(name, sizeof name, "blk.%u.%s", (unsigned)i, three[s]);
            KVCL_TRY(load_linear(ld, name, hp->n_embd, s ? kv_rows : q_rows, false, biased,
                                 &out->qkv[s]));
        }
    }
    snprintf(name, sizeof name, "blk.%u.attn_output", (unsigned)i);
    return load_linear(ld, name, q_rows, hp->n_embd, false, false, &out->attn_out);
}

static kvcl_status load_layer(kvcl_loader *ld, uint32_t i, kvcl_layer *out)
{
    const kvcl_hparams *hp = &ld->model->hp;
    char name[KVCL_GGUF_NAME_CAP];
    snprintf(name, sizeof name, "blk.%u.attn_norm", (unsigned)i);
    KVCL_TRY(load_norm(ld, name, hp->n_embd, &out->attn_norm));
    KVCL_TRY(load_attention(ld, i, out));
    snprintf(name, sizeof name, "blk.%u.ffn_norm", (unsigned)i);
    KVCL_TRY(load_norm(ld, name, hp->n_embd, &out->ffn_norm));
    if (hp->arch->gated) {
        snprintf(name, sizeof name, "blk.%u.ffn_gate", (unsigned)i);
        KVCL_TRY(load_linear(ld, name, hp->n_embd, hp->n_ff, false, false, &out->gate));
    }
    snprintf(name, sizeof name, "blk.%u.ffn_up", (unsigned)i);
    KVCL_TRY(load_linear(ld, name, hp->n_embd, hp->n_ff, false, false, &out->up));
    snprintf(name, sizeof name, "blk.%u.ffn_down", (unsigned)i);
    return load_linear(ld, name, hp->n_ff, hp->n_embd, false, false, &out->down);
}

/* Room for every 1-D tensor of the file. */
static size_t vectors_bytes(const kvcl_gguf *g)
{
    size_t n = KVCL_ALIGN;
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i].n_dims == 1)
            n += kvcl_align_up(g->tensors[i].n_elems * sizeof(float), KVCL_ALIGN);
    return n;
}

static size_t read_bytes(const kvcl_mat *m)
{
    return m ? m->rows * kvcl_type_bytes(m->type, m->cols) : 0;
}

static void count_bytes(kvcl_weights *w)
{
    w->bytes_per_token = read_bytes(w->output);
    for (uint32_t i = 0; i < w->n_layers; i++) {
        const kvcl_layer *l = &w->layers[i];
        for (uint32_t s = 0; s < l->n_qkv; s++)
            w->bytes_per_token += read_bytes(l->qkv[s].w);
        w->bytes_per_token += read_bytes(l->attn_out.w) + read_bytes(l->gate.w) +
                              read_bytes(l->up.w) + read_bytes(l->down.w);
    }
}

/* A tensor that nothing reads would be missing from what is computed. */
static kvcl_status check_used(const kvcl_loader *ld)
{
    const kvcl_gguf *g = &ld->model->gguf;
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        bool used = ld->used[i] || (ld->model->hp.rope.freqs &&
                                    strcmp(g->tensors[i].name, "rope_freqs.weight") == 0);
        KVCL_CHECK(g->ctx, used, KVCL_E_UNSUPPORTED,
                   "%s: tensor '%s' has no place in the architecture %s as it is known here; the "
                   "model is a variant that is not supported",
                   g->path, g->tensors[i].name, ld->model->hp.arch->name);
    }
    return KVCL_OK;
}

static kvcl_status load_all(kvcl_loader *ld)
{
    const kvcl_hparams *hp = &ld->model->hp;
    kvcl_weights *w = ld->w;
    void *p;
    size_t bytes = vectors_bytes(&ld->model->gguf);
    w->bytes += bytes;
    if (ld->q)
        KVCL_TRY(kvcl_buf_create(w->dev, bytes, KVCL_USE_WEIGHTS, &w->vectors));
    KVCL_TRY(kvcl_mem_array(ld->model->ctx, hp->n_layers, sizeof(kvcl_layer), "layers", &p));
    w->layers = p;
    w->n_layers = hp->n_layers;
    KVCL_TRY(load_mat(ld, "token_embd.weight", hp->n_embd, hp->n_vocab, false, &w->token_embd));
    if (hp->arch->pairing == KVCL_ROPE_NONE)
        KVCL_TRY(
            load_mat(ld, "position_embd.weight", hp->n_embd, hp->n_ctx_train, false, &w->pos_embd));
    KVCL_TRY(load_mat(ld, "output.weight", hp->n_embd, hp->n_vocab, true, &w->output));
    if (!w->output)
        w->output = w->token_embd;
    KVCL_TRY(load_norm(ld, "output_norm", hp->n_embd, &w->output_norm));
    for (uint32_t i = 0; i < hp->n_layers; i++)
        KVCL_TRY(load_layer(ld, i, &w->layers[i]));
    KVCL_TRY(check_used(ld));
    return ld->q ? kvcl_queue_wait(ld->q) : KVCL_OK;
}

static kvcl_status load(const kvcl_model *model, kvcl_dev *dev, kvcl_queue *q, kvcl_weights *out)
{
    KVCL_CHECK(model->ctx, model->hp.has_tensors, KVCL_E_FORMAT,
               "%s: a vocabulary without weights; it can be inspected and tokenise, not run",
               model->gguf.path);
    void *used;
    KVCL_TRY(kvcl_mem_array(model->ctx, model->gguf.n_tensors, sizeof(bool), "a list of tensors",
                            &used));
    *out = (kvcl_weights){.dev = dev, .described = !q};
    kvcl_status st = load_all(&(kvcl_loader){.model = model, .q = q, .w = out, .used = used});
    kvcl_mem_free(model->ctx, used);
    if (st != KVCL_OK) {
        kvcl_weights_free(out);
        return st;
    }
    count_bytes(out);
    return KVCL_OK;
}

kvcl_status kvcl_weights_create(const kvcl_model *model, kvcl_queue *q, kvcl_weights *out)
{
    return load(model, q->dev, q, out);
}

kvcl_status kvcl_weights_describe(const kvcl_model *model, kvcl_dev *dev, kvcl_weights *out)
{
    return load(model, dev, NULL, out);
}

static void free_mat(const kvcl_weights *w, kvcl_mat *m)
{
    if (w->described && m)
        kvcl_mem_free(w->dev->ctx, m);
    else
        kvcl_mat_free(m);
}

void kvcl_weights_free(kvcl_weights *w)
{
    for (uint32_t i = 0; i < w->n_layers; i++) {
        kvcl_layer *l = &w->layers[i];
        for (uint32_t s = 0; s < 3; s++)
            free_mat(w, l->qkv[s].w);
        free_mat(w, l->attn_out.w);
        free_mat(w, l->gate.w);
        free_mat(w, l->up.w);
        free_mat(w, l->down.w);
    }
    if (w->output != w->token_embd)
        free_mat(w, w->output);
    free_mat(w, w->token_embd);
    free_mat(w, w->pos_embd);
    kvcl_buf_free(w->vectors);
    if (w->dev)
        kvcl_mem_free(w->dev->ctx, w->layers);
    *w = (kvcl_weights){0};
}
