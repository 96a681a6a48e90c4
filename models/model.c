/* model.c - a model file opened: shape, tensors, tokenizer.  See kvcl.h. */
#include "model_int.h"

#include "log.h"
#include "mem.h"

#include <stdio.h>

/* A tokenizer that is not supported does not stop the model: token ids still work. */
static kvcl_status open_tokenizer(kvcl_model *m)
{
    kvcl_status st = kvcl_tokenizer_create(&m->gguf, m->hp.n_vocab, &m->tok);
    m->tok_status = st;
    if (st != KVCL_E_UNSUPPORTED)
        return st;
    snprintf(m->tok_why, sizeof m->tok_why, "%s", kvcl_last_error(m->ctx));
    kvcl_log_info(m->ctx, "%s", m->tok_why);
    return KVCL_OK;
}

static kvcl_status fill_info(kvcl_model *m)
{
    const kvcl_hparams *hp = &m->hp;
    kvcl_str name = {0};
    KVCL_TRY(kvcl_gguf_get_str(&m->gguf, "general.name", &name));
    m->info = (kvcl_model_info){
        .n_layers = hp->n_layers,
        .n_embd = hp->n_embd,
        .n_ff = hp->n_ff,
        .n_heads = hp->n_heads,
        .n_kv_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .n_vocab = hp->n_vocab,
        .n_ctx_train = kvcl_hparams_ctx(hp),
        .bos_id = m->ids.bos,
        .eos_id = m->ids.eos,
        .add_bos = m->ids.add_bos,
        .add_eos = m->ids.add_eos,
        .has_tokenizer = m->tok != NULL,
    };
    snprintf(m->info.arch, sizeof m->info.arch, "%s", hp->arch->name);
    kvcl_str_show(name, m->info.name, sizeof m->info.name);
    for (uint32_t i = 0; i < m->gguf.n_tensors; i++) {
        m->info.n_params += m->gguf.tensors[i].n_elems;
        m->info.tensor_bytes += m->gguf.tensors[i].bytes;
    }
    return KVCL_OK;
}

kvcl_status kvcl_model_open(kvcl_ctx *ctx, const char *path, kvcl_model **out)
{
    void *p;
    kvcl_status st;
    KVCL_CHECK(ctx, path && *path, KVCL_E_ARG, "no model file is named; give its path");
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_model), "the model", &p));
    kvcl_model *m = p;
    m->ctx = ctx;
    KVCL_TRY_GOTO(kvcl_gguf_open(ctx, path, &m->gguf));
    KVCL_TRY_GOTO(kvcl_hparams_read(&m->gguf, &m->hp));
    KVCL_TRY_GOTO(kvcl_vocab_ids_read(&m->gguf, m->hp.n_vocab, &m->ids));
    KVCL_TRY_GOTO(open_tokenizer(m));
    KVCL_TRY_GOTO(fill_info(m));
    *out = m;
    return KVCL_OK;
fail:
    kvcl_model_close(m);
    return st;
}

void kvcl_model_close(kvcl_model *model)
{
    if (!model)
        return;
    kvcl_tokenizer_free(model->tok);
    kvcl_gguf_close(&model->gguf);
    kvcl_mem_free(model->ctx, model);
}

const kvcl_model_info *kvcl_model_get_info(const kvcl_model *model) { return &model->info; }

/* ---- tokens -------------------------------------------------------------------------------- */

static kvcl_status need_tokenizer(const kvcl_model *m)
{
    return m->tok ? KVCL_OK : kvcl_fail(m->ctx, m->tok_status, "%s", m->tok_why);
}

static kvcl_status check_special(const kvcl_model *m, bool wanted, int32_t id, const char *name)
{
    KVCL_CHECK(m->ctx, !wanted || id >= 0, KVCL_E_FORMAT,
               "%s: a %s token is asked for, but the file names none", m->gguf.path, name);
    return KVCL_OK;
}

kvcl_status kvcl_tokenize_with(const kvcl_model *model, const char *text, size_t n_bytes,
                               const kvcl_tokenize_options *opt, int32_t **tokens_out,
                               size_t *n_out)
{
    void *p;
    size_t n = 0, room;
    bool bos = opt->add_bos < 0 ? model->ids.add_bos : opt->add_bos > 0;
    bool eos = opt->add_eos < 0 ? model->ids.add_eos : opt->add_eos > 0;
    KVCL_TRY(need_tokenizer(model));
    KVCL_CHECK(model->ctx, text || n_bytes == 0, KVCL_E_ARG, "no text to tokenise");
    KVCL_TRY(check_special(model, bos, model->ids.bos, "BOS"));
    KVCL_TRY(check_special(model, eos, model->ids.eos, "EOS"));
    KVCL_CHECK(model->ctx, n_bytes <= KVCL_MAX_TEXT_BYTES, KVCL_E_ARG,
               "a text of %zu bytes is too long, at most %u can be tokenised at once", n_bytes,
               KVCL_MAX_TEXT_BYTES);
    KVCL_CHECK(model->ctx, kvcl_add_size(kvcl_tokenizer_room(model->tok, n_bytes), 2, &room),
               KVCL_E_ARG, "the text is too long");
    KVCL_TRY(kvcl_mem_array(model->ctx, room, sizeof(int32_t), "the tokens of a text", &p));
    int32_t *tokens = p;
    if (bos)
        tokens[0] = model->ids.bos;
    kvcl_status st =
        kvcl_tokenizer_encode(model->tok, text, n_bytes, opt->control, tokens + bos, &n);
    if (st != KVCL_OK) {
        kvcl_mem_free(model->ctx, tokens);
        return st;
    }
    n += bos;
    if (eos)
        tokens[n++] = model->ids.eos;
    *tokens_out = tokens;
    *n_out = n;
    return KVCL_OK;
}

kvcl_status kvcl_tokenize(const kvcl_model *model, const char *text, size_t n_bytes, int add_bos,
                          int32_t **tokens_out, size_t *n_out)
{
    kvcl_tokenize_options opt = {.add_bos = add_bos};
    return kvcl_tokenize_with(model, text, n_bytes, &opt, tokens_out, n_out);
}

void kvcl_tokens_free(const kvcl_model *model, int32_t *tokens)
{
    if (model)
        kvcl_mem_free(model->ctx, tokens);
}

kvcl_status kvcl_token_bytes(const kvcl_model *model, int32_t token, const char **bytes_out,
                             size_t *n_out)
{
    KVCL_TRY(need_tokenizer(model));
    KVCL_CHECK(model->ctx, token >= 0 && (uint32_t)token < model->hp.n_vocab, KVCL_E_ARG,
               "token %d is outside the vocabulary of %u", token, model->hp.n_vocab);
    kvcl_str s = kvcl_tokenizer_bytes(model->tok, (uint32_t)token);
    *bytes_out = s.s;
    *n_out = s.n;
    return KVCL_OK;
}

bool kvcl_token_is_end(const kvcl_model *model, int32_t token)
{
    if (token < 0)
        return false;
    return model->tok ? kvcl_tokenizer_is_end(model->tok, (uint32_t)token)
                      : token == model->ids.eos;
}
