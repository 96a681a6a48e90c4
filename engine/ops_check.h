/* ops_check.h - the checks that both groups of operations share.  Included by ops_*.c alone. */
#ifndef KVCL_OPS_CHECK_H
#define KVCL_OPS_CHECK_H

#include "dev.h"

#define KVCL_MAX_COLS 65536u
#define KVCL_MAX_HEAD_DIM 256u
#define KVCL_MAX_TOKENS (1u << 24) /* positions: keeps every index of a page inside 32 bits */
#define KVCL_MAX_PAGES (KVCL_MAX_TOKENS / KVCL_PAGE_TOKENS)

/* A view of at least n elements of `size` bytes, inside its buffer, on this device, aligned to its
 * element. */
kvcl_status kvcl_check_view(const kvcl_queue *q, const char *op, const char *what, kvcl_view v,
                            uint64_t n, size_t size);
/* n rows of `dim` f32 elements, `stride` apart. */
kvcl_status kvcl_check_rows(const kvcl_queue *q, const char *op, const char *what, kvcl_view v,
                            uint32_t n, uint32_t dim, uint32_t stride);
kvcl_status kvcl_check_mat(const kvcl_queue *q, const char *op, const kvcl_mat *w);
kvcl_status kvcl_check_norm(const kvcl_queue *q, const char *op, const kvcl_norm_spec *spec,
                            uint32_t dim);
/* Head counts (query heads a multiple of kv heads), head dimension, positions pos0 .. pos0 + n - 1.
 */
kvcl_status kvcl_check_heads(const kvcl_queue *q, const char *op, uint32_t n_q_heads,
                             uint32_t n_kv_heads, uint32_t head_dim, uint32_t pos0, uint32_t n);
/* Raw pages: F16 or F32, at least one page.  The pool holds its slots by contract of the table. */
kvcl_status kvcl_check_raw_pool(const kvcl_queue *q, const char *op, const char *what,
                                kvcl_view pool, kvcl_type type, uint32_t n_kv_heads,
                                uint32_t head_dim);
/* True when there is nothing to do: no queries or no tokens. */
static inline bool kvcl_attn_in_empty(const kvcl_attn_in *in)
{
    return in->n == 0 || in->begin == in->end;
}
/* All that the attn_* operations share, of an input that is not empty. */
kvcl_status kvcl_check_attn_in(const kvcl_queue *q, const char *op, const kvcl_attn_in *in);
/* The same over coded pages of these heads. */
kvcl_status kvcl_check_attn_coded(const kvcl_queue *q, const char *op, const kvcl_attn_in *in,
                                  uint32_t n_kv_heads, uint32_t head_dim);
/* E_ARG when the views share a byte. */
kvcl_status kvcl_check_apart(const kvcl_queue *q, const char *op, kvcl_view a, kvcl_view b);
/* E_ARG when they share a byte but are not the same place. */
kvcl_status kvcl_check_same_or_apart(const kvcl_queue *q, const char *op, kvcl_view a, kvcl_view b);
/* E_ARG when `out` shares a byte with one of n views. */
kvcl_status kvcl_check_apart_of(const kvcl_queue *q, const char *op, kvcl_view out,
                                const kvcl_view *others, size_t n);

/* What all coded pages have alike: heads; pages first .. first + n - 1 of the sequence; means up to
 * the last page's epoch; with a pairing, rows 0 .. n_rows - 1 of the rope table. */
kvcl_status kvcl_check_coded(kvcl_ctx *ctx, const char *op, uint32_t n_kv_heads, uint32_t head_dim);
kvcl_status kvcl_check_pages(const kvcl_queue *q, const char *op, uint32_t first, uint32_t n);
kvcl_status kvcl_check_means(const kvcl_queue *q, const char *op, kvcl_view means,
                             uint32_t n_kv_heads, uint32_t head_dim, uint32_t last_page);
kvcl_status kvcl_check_turning(const kvcl_queue *q, const char *op, uint32_t head_dim,
                               kvcl_rope_pairing pairing, uint32_t n_rot, kvcl_view table,
                               uint32_t n_rows);

#endif
