/* tokenizer.c - whole texts: special tokens cut out, the rest to the family.  See tokenizer.h. */
#include "tok_int.h"

#include "log.h"
#include "mem.h"

static const kvcl_tok_family *const families[] = {&kvcl_tok_bpe, &kvcl_tok_spm};

/* ---- from the file ------------------------------------------------------------------------- */

static kvcl_status read_id(const kvcl_gguf *g, const char *key, uint32_t n_vocab, int32_t *out)
{
    uint32_t id = *out < 0 ? UINT32_MAX : (uint32_t)*out;
    KVCL_TRY(kvcl_gguf_get_u32(g, key, &id));
    *out = id < n_vocab ? (int32_t)id : -1;
    if (id >= n_vocab && id != UINT32_MAX) /* some converters write -1 for none */
        kvcl_log_warn(g->ctx, "%s: %s is %u, beyond the vocabulary of %u: ignored", g->path, key,
                      id, n_vocab);
    return KVCL_OK;
}

/* What files leave unsaid. */
static kvcl_status default_ids(const kvcl_gguf *g, kvcl_vocab_ids *ids)
{
    static const char *const with_bos[] = {"llama-bpe", "llama3", "llama-v3", "tekken"};
    kvcl_str model = {0}, pre = {0};
    *ids = (kvcl_vocab_ids){.bos = -1, .eos = -1, .eot = -1, .eom = -1, .unk = -1};
    KVCL_TRY(kvcl_gguf_get_str(g, "tokenizer.ggml.model", &model));
    KVCL_TRY(kvcl_gguf_get_str(g, "tokenizer.ggml.pre", &pre));
    if (model.s && kvcl_str_is(model, kvcl_tok_spm.model)) {
        ids->unk = 0;
        ids->bos = 1;
        ids->eos = 2;
        ids->add_bos = true;
    }
    for (size_t i = 0; pre.s && i < kvcl_array_len(with_bos); i++)
        ids->add_bos |= kvcl_str_is(pre, with_bos[i]);
    return KVCL_OK;
}

kvcl_status kvcl_vocab_ids_read(const kvcl_gguf *g, uint32_t n_vocab, kvcl_vocab_ids *out)
{
    kvcl_vocab_ids ids;
    KVCL_TRY(default_ids(g, &ids));
    KVCL_TRY(read_id(g, "tokenizer.ggml.bos_token_id", n_vocab, &ids.bos));
    KVCL_TRY(read_id(g, "tokenizer.ggml.eos_token_id", n_vocab, &ids.eos));
    KVCL_TRY(read_id(g, "tokenizer.ggml.eot_token_id", n_vocab, &ids.eot));
    KVCL_TRY(read_id(g, "tokenizer.ggml.eom_token_id", n_vocab, &ids.eom));
    KVCL_TRY(read_id(g, "tokenizer.ggml.unknown_token_id", n_vocab, &ids.unk));
    if (ids.bos < 0) /* a default serves a vocabulary that has the token */
        ids.add_bos = false;
    KVCL_TRY(kvcl_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &ids.add_bos));
    KVCL_TRY(kvcl_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &ids.add_eos));
    *out = ids;
    return KVCL_OK;
}

static kvcl_status find_family(const kvcl_gguf *g, const kvcl_tok_family **out)
{
    const char *key = "tokenizer.ggml.model";
    kvcl_str model = {0};
    char show[64];
    KVCL_TRY(kvcl_gguf_get_str(g, key, &model));
    KVCL_CHECK(g->ctx, model.s, KVCL_E_UNSUPPORTED,
               "%s: the file has no tokenizer; give token ids, or a file with one", g->path);
    for (size_t i = 0; i < kvcl_array_len(families); i++) {
        if (kvcl_str_is(model, families[i]->model)) {
            *out = families[i];
            return KVCL_OK;
        }
    }
    return kvcl_fail(g->ctx, KVCL_E_UNSUPPORTED,
                     "%s: tokenizer '%s' is not supported (gpt2, byte-level BPE, and llama, "
                     "SentencePiece, are); give token ids, or another model",
                     g->path, kvcl_str_show(model, show, sizeof show));
}

kvcl_status kvcl_tokenizer_create(const kvcl_gguf *g, uint32_t n_vocab, kvcl_tokenizer **out)
{
    void *p;
    const kvcl_tok_family *family = NULL;
    kvcl_status st;
    KVCL_TRY(find_family(g, &family));
    KVCL_TRY(kvcl_mem_alloc(g->ctx, sizeof(kvcl_tokenizer), "the tokenizer", &p));
    kvcl_tokenizer *tok = p;
    tok->ctx = g->ctx;
    tok->family = family;
    tok->n_vocab = n_vocab;
    KVCL_TRY_GOTO(kvcl_vocab_ids_read(g, n_vocab, &tok->ids));
    KVCL_TRY_GOTO(kvcl_tok_vocab_read(g, tok));
    KVCL_TRY_GOTO(family->open(g, tok));
    *out = tok;
    return KVCL_OK;
fail:
    kvcl_tokenizer_free(tok);
    return st;
}

void kvcl_tokenizer_free(kvcl_tokenizer *tok)
{
    if (!tok)
        return;
    kvcl_ctx *ctx = tok->ctx;
    pcre2_code_free(tok->split);
    pcre2_general_context_free(tok->pcre);
    kvcl_strmap_free(ctx, tok->symbols);
    kvcl_strmap_free(ctx, tok->extra);
    void *blocks[] = {tok->text,   tok->bytes,   tok->kind, tok->blob, tok->merged,
                      tok->merges, tok->special, tok->rank, tok};
    for (size_t i = 0; i < kvcl_array_len(blocks); i++)
        kvcl_mem_free(ctx, blocks[i]);
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* The next place of `what` in text[from, n); n when there is none. */
static size_t find_bytes(const char *text, size_t n, size_t from, kvcl_str what)
{
    while (n - from >= what.n) {
        const char *p = memchr(text + from, what.s[0], n - from - what.n + 1);
        if (!p)
            break;
        if (memcmp(p, what.s, what.n) == 0)
            return (size_t)(p - text);
        from = (size_t)(p - text) + 1;
    }
    return n;
}

/* claim[i]: 0 free, id + 1 where a special token begins, UINT32_MAX inside one. */
static void claim_tokens(const kvcl_tokenizer *tok, const char *text, size_t n, bool control,
                         uint32_t *claim)
{
    for (uint32_t u = 0; u < tok->n_special; u++) {
        uint32_t id = tok->special[u];
        kvcl_str s = tok->text[id];
        if (!control && tok->kind[id] != KVCL_TOKEN_USER)
            continue;
        size_t at = find_bytes(text, n, 0, s);
        while (at < n) {
            /* tokens already placed are no shorter: a clash shows at one of the ends */
            bool is_free = claim[at] == 0 && claim[at + s.n - 1] == 0;
            for (size_t i = 0; is_free && i < s.n; i++)
                claim[at + i] = i == 0 ? id + 1 : UINT32_MAX;
            at = find_bytes(text, n, is_free ? at + s.n : at + 1, s);
        }
    }
}

static kvcl_status encode_with_special(kvcl_tok_encoder *e, const char *text, size_t n,
                                       bool control)
{
    void *p;
    kvcl_ctx *ctx = e->tok->ctx;
    KVCL_TRY(kvcl_mem_array(ctx, n, sizeof(uint32_t), "the places of special tokens", &p));
    uint32_t *claim = p;
    kvcl_status st = KVCL_OK;
    claim_tokens(e->tok, text, n, control, claim);
    size_t at = 0;
    while (at < n && st == KVCL_OK) {
        size_t end = at;
        while (end < n && claim[end] == 0)
            end++;
        if (end > at)
            st = e->tok->family->run(e, text + at, end - at);
        if (st == KVCL_OK && end < n) {
            uint32_t id = claim[end] - 1;
            e->out[e->n_out++] = (int32_t)id;
            end += e->tok->text[id].n;
        }
        at = end;
    }
    kvcl_mem_free(ctx, claim);
    return st;
}

size_t kvcl_tokenizer_room(const kvcl_tokenizer *tok, size_t n_bytes)
{
    static const char mark[] = "\xe2\x96\x81";
    if (tok->family != &kvcl_tok_spm)
        return n_bytes;
    /* a space may be put before every run of text, and be three tokens where it is none itself */
    bool known = kvcl_strmap_get(tok->symbols, (kvcl_str){mark, 3}) != KVCL_STRMAP_NONE;
    return n_bytes + (known ? n_bytes / 2 + 1 : 4 * n_bytes + 3);
}

kvcl_status kvcl_tokenizer_encode(const kvcl_tokenizer *tok, const char *text, size_t n_bytes,
                                  bool control, int32_t *out, size_t *n_out)
{
    kvcl_status st = KVCL_OK;
    bool any = control ? tok->n_special > 0 : tok->n_user > 0;
    KVCL_CHECK(tok->ctx, n_bytes <= KVCL_MAX_TEXT_BYTES, KVCL_E_ARG,
               "a text of %zu bytes is too long, at most %u can be tokenised at once", n_bytes,
               KVCL_MAX_TEXT_BYTES);
    kvcl_tok_encoder e = {.tok = tok, .work = {.ctx = tok->ctx}, .out = out};
    if (tok->pcre) {
        e.match = pcre2_match_data_create(1, tok->pcre);
        KVCL_CHECK(tok->ctx, e.match, KVCL_E_MEM, "no memory for the word pattern's matches");
    }
    if (n_bytes > 0)
        st = any ? encode_with_special(&e, text, n_bytes, control)
                 : tok->family->run(&e, text, n_bytes);
    pcre2_match_data_free(e.match);
    kvcl_tok_work_free(&e.work);
    if (st == KVCL_OK)
        *n_out = e.n_out;
    return st;
}

/* ---- single tokens ------------------------------------------------------------------------- */

kvcl_str kvcl_tokenizer_bytes(const kvcl_tokenizer *tok, uint32_t id) { return tok->bytes[id]; }

kvcl_str kvcl_tokenizer_text(const kvcl_tokenizer *tok, uint32_t id) { return tok->text[id]; }

bool kvcl_tokenizer_is_end(const kvcl_tokenizer *tok, uint32_t id)
{
    static const char *const ends[] = {
        "<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
        "<|endoftext|>", "<|eom_id|>", "<EOT>",
    };
    const kvcl_vocab_ids *ids = &tok->ids;
    int32_t t = (int32_t)id;
    if (id >= tok->n_vocab)
        return false;
    if (t == ids->eos || t == ids->eot || t == ids->eom)
        return true;
    for (size_t i = 0; i < kvcl_array_len(ends); i++) {
        if (kvcl_str_is(tok->text[id], ends[i]))
            return true;
    }
    return false;
}
