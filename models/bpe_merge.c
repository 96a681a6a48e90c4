/* bpe_merge.c - merges of one word: a linked list of pieces and a heap of candidate pairs, so that
 * a word of n bytes costs n log n.  See tokenizer.h. */
#include "bpe_int.h"

#include "mem.h"

#define NO_PIECE UINT32_MAX

typedef struct kvcl_bpe_piece {
    uint32_t symbol; /* KVCL_STRMAP_NONE: a byte outside the vocabulary, or merged into `prev` */
    uint32_t prev, next;
    uint32_t n_bytes; /* of the word; 0: merged away */
} piece;

/* A pair that may be merged; stale when its pieces have changed since. */
typedef struct kvcl_bpe_pair {
    uint32_t rank, at; /* at: the left piece */
    uint32_t left, right;
    uint32_t result;
} pair;

void kvcl_bpe_work_free(kvcl_bpe_work *work)
{
    kvcl_mem_free(work->ctx, work->pieces);
    kvcl_mem_free(work->ctx, work->heap);
    *work = (kvcl_bpe_work){.ctx = work->ctx};
}

static kvcl_status work_reserve(kvcl_bpe_work *work, size_t n)
{
    void *p;
    if (n <= work->n_max)
        return KVCL_OK;
    n = kvcl_max_size(n, kvcl_max_size(64, 2 * work->n_max));
    kvcl_bpe_work_free(work);
    KVCL_TRY(kvcl_mem_array(work->ctx, n, sizeof(piece), "the pieces of a word", &p));
    work->pieces = p;
    /* n - 1 pairs at first, and each of the n - 1 merges adds at most two */
    KVCL_TRY(kvcl_mem_array(work->ctx, 3 * n, sizeof(pair), "the pairs of a word", &p));
    work->heap = p;
    work->n_max = n;
    return KVCL_OK;
}

/* Lower rank first, then further left. */
static bool before(const pair *a, const pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(kvcl_bpe_work *work, pair p)
{
    pair *h = work->heap;
    size_t i = work->n_heap++;
    for (; i > 0 && before(&p, &h[(i - 1) / 2]); i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = p;
}

static pair heap_pop(kvcl_bpe_work *work)
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

static void consider(const kvcl_tokenizer *tok, kvcl_bpe_work *work, uint32_t at)
{
    const piece *p = work->pieces;
    if (at == NO_PIECE || p[at].next == NO_PIECE)
        return;
    uint32_t left = p[at].symbol, right = p[p[at].next].symbol;
    const kvcl_merge *m = kvcl_bpe_merge_find(tok, left, right);
    if (m)
        heap_push(work, (pair){m->rank, at, left, right, m->result});
}

static void merge_all(const kvcl_tokenizer *tok, kvcl_bpe_work *work)
{
    piece *p = work->pieces;
    while (work->n_heap > 0) {
        pair top = heap_pop(work);
        uint32_t next = p[top.at].next;
        bool stale = p[top.at].n_bytes == 0 || p[top.at].symbol != top.left || next == NO_PIECE ||
                     p[next].symbol != top.right;
        if (stale)
            continue;
        p[top.at].symbol = top.result;
        p[top.at].n_bytes += p[next].n_bytes;
        p[top.at].next = p[next].next;
        p[next].n_bytes = 0;
        if (p[top.at].next != NO_PIECE)
            p[p[top.at].next].prev = top.at;
        consider(tok, work, p[top.at].prev);
        consider(tok, work, top.at);
    }
}

/* A piece that is no token: its bytes one by one, the unknown token for bytes without one. */
static kvcl_status emit_bytes(const kvcl_tokenizer *tok, const char *s, size_t n, int32_t *out,
                              size_t *n_out)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)s[i];
        uint32_t id = tok->byte_symbol[b];
        if (id >= tok->n_vocab) {
            KVCL_CHECK(tok->ctx, tok->ids.unk >= 0, KVCL_E_FORMAT,
                       "the model's vocabulary has no token for byte 0x%02x and no unknown token; "
                       "this text cannot be tokenised with it",
                       b);
            id = (uint32_t)tok->ids.unk;
        }
        out[(*n_out)++] = (int32_t)id;
    }
    return KVCL_OK;
}

kvcl_status kvcl_bpe_word(const kvcl_tokenizer *tok, kvcl_bpe_work *work, const char *word,
                          size_t n, int32_t *out, size_t *n_out)
{
    KVCL_TRY(work_reserve(work, n));
    piece *p = work->pieces;
    work->n_heap = 0;
    for (uint32_t i = 0; i < n; i++)
        p[i] = (piece){.symbol = tok->byte_symbol[(unsigned char)word[i]],
                       .prev = i ? i - 1 : NO_PIECE,
                       .next = i + 1 < n ? i + 1 : NO_PIECE,
                       .n_bytes = 1};
    for (uint32_t i = 0; i + 1 < n; i++)
        consider(tok, work, i);
    merge_all(tok, work);
    size_t at = 0;
    for (uint32_t i = 0; i != NO_PIECE && n > 0; i = p[i].next) {
        if (p[i].symbol < tok->n_vocab)
            out[(*n_out)++] = (int32_t)p[i].symbol;
        else
            KVCL_TRY(emit_bytes(tok, word + at, p[i].n_bytes, out, n_out));
        at += p[i].n_bytes;
    }
    return KVCL_OK;
}
