/* tok_merge.c - merges of one word: a linked list of pieces and a heap of candidate pairs, so that
 * a word of n pieces costs n log n.  See tokenizer.h. */
#include "tok_int.h"

#include "mem.h"

typedef kvcl_tok_piece piece;

/* A pair that may be merged; stale when its pieces have changed since. */
typedef struct kvcl_tok_pair {
    uint32_t rank, at; /* at: the left piece */
    uint32_t left, right;
    uint32_t result;
} pair;

void kvcl_tok_work_free(kvcl_tok_work *work)
{
    kvcl_mem_free(work->ctx, work->pieces);
    kvcl_mem_free(work->ctx, work->heap);
    kvcl_mem_free(work->ctx, work->text);
    *work = (kvcl_tok_work){.ctx = work->ctx};
}

kvcl_status kvcl_tok_work_reserve(kvcl_tok_work *work, size_t n)
{
    void *p;
    if (n <= work->n_max)
        return KVCL_OK;
    n = kvcl_max_size(n, kvcl_max_size(64, 2 * work->n_max));
    kvcl_tok_work_free(work);
    KVCL_TRY(kvcl_mem_array(work->ctx, n, sizeof(piece), "the pieces of a word", &p));
    work->pieces = p;
    /* n - 1 pairs at first, and each of the n - 1 merges adds at most two */
    KVCL_TRY(kvcl_mem_array(work->ctx, 3 * n, sizeof(pair), "the pairs of a word", &p));
    work->heap = p;
    KVCL_TRY(kvcl_mem_array(work->ctx, 3 * n, 1, "the text of a word", &p));
    work->text = p;
    work->n_max = n;
    return KVCL_OK;
}

/* Lower rank first, then further left. */
static bool before(const pair *a, const pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(kvcl_tok_work *work, pair p)
{
    pair *h = work->heap;
    size_t i = work->n_heap++;
    for (; i > 0 && before(&p, &h[(i - 1) / 2]); i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = p;
}

static pair heap_pop(kvcl_tok_work *work)
{
    pair *h = work->heap, top = h[0], last = h[--work->n_heap];
    size_t n = work->n_heap, i = 0;
    for (size_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(&h[child + 1], &h[child]))
            child++;
        if (!before(&h[child], &last))
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = last;
    return top;
}

static void consider(kvcl_tok_encoder *e, const char *word, uint32_t at)
{
    const piece *p = e->work.pieces;
    kvcl_merge m;
    if (at == KVCL_NO_PIECE || p[at].next == KVCL_NO_PIECE)
        return;
    const piece *a = &p[at], *b = &p[a->next];
    kvcl_str both = {word + a->at, (size_t)a->n_bytes + b->n_bytes};
    if (e->tok->family->pair(e->tok, both, a->symbol, b->symbol, &m))
        heap_push(&e->work, (pair){m.rank, at, a->symbol, b->symbol, m.result});
}

/* A symbol tells a piece's text, so the same two symbols at the same place are the same pair; of a
 * piece without one only the unmerged first form exists. */
static void merge_all(kvcl_tok_encoder *e, const char *word)
{
    piece *p = e->work.pieces;
    while (e->work.n_heap > 0) {
        pair top = heap_pop(&e->work);
        uint32_t next = p[top.at].next;
        bool stale = p[top.at].n_bytes == 0 || p[top.at].symbol != top.left ||
                     next == KVCL_NO_PIECE || p[next].symbol != top.right;
        if (stale)
            continue;
        p[top.at].symbol = top.result;
        p[top.at].n_bytes += p[next].n_bytes;
        p[top.at].next = p[next].next;
        p[next].n_bytes = 0;
        if (p[top.at].next != KVCL_NO_PIECE)
            p[p[top.at].next].prev = top.at;
        consider(e, word, p[top.at].prev);
        consider(e, word, top.at);
    }
}

/* A piece that is no token: its bytes one by one; when the vocabulary lacks one, the unknown token,
 * for the byte or (SentencePiece) for the character. */
static kvcl_status emit_bytes(kvcl_tok_encoder *e, const char *s, size_t n)
{
    const kvcl_tokenizer *tok = e->tok;
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)s[i];
        uint32_t id = tok->byte_symbol[b];
        bool known = id < tok->n_vocab;
        KVCL_CHECK(tok->ctx, known || tok->ids.unk >= 0, KVCL_E_FORMAT,
                   "the model's vocabulary has no token for byte 0x%02x and no unknown token; "
                   "this text cannot be tokenised with it",
                   b);
        e->out[e->n_out++] = known ? (int32_t)id : tok->ids.unk;
        if (!known && tok->family == &kvcl_tok_spm)
            break;
    }
    return KVCL_OK;
}

kvcl_status kvcl_tok_merge(kvcl_tok_encoder *e, const char *word, size_t n)
{
    piece *p = e->work.pieces;
    uint32_t at = 0;
    e->work.n_heap = 0;
    for (uint32_t i = 0; i < n; at += p[i++].n_bytes) {
        p[i].at = at;
        p[i].prev = i ? i - 1 : KVCL_NO_PIECE;
        p[i].next = i + 1 < n ? i + 1 : KVCL_NO_PIECE;
    }
    for (uint32_t i = 0; i + 1 < n; i++)
        consider(e, word, i);
    merge_all(e, word);
    for (uint32_t i = 0; i != KVCL_NO_PIECE && n > 0; i = p[i].next) {
        if (p[i].symbol < e->tok->n_vocab)
            e->out[e->n_out++] = (int32_t)p[i].symbol;
        else
            KVCL_TRY(emit_bytes(e, word + p[i].at, p[i].n_bytes));
    }
    return KVCL_OK;
}

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
size_t kvcl_tok_utf8_char(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned c = s[0];
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    bool bad = (c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) ||
               (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : len;
}
