/* tier_int.h - what tier*.c share. */
#ifndef KVCL_TIER_INT_H
#define KVCL_TIER_INT_H

#include "shared.h"
#include "tier.h"

/* Pages page .. page + n - 1, of one segment, of a layer as codecs want them: coded, raw. */
kvcl_codec_pages kvcl_tier_pages(const kvcl_tier *t, uint32_t layer, uint32_t page, uint32_t n);
kvcl_codec_raw kvcl_tier_source(const kvcl_tier *t, const kvcl_raw_pages *src, uint32_t layer,
                                uint32_t page, uint32_t n);
kvcl_view kvcl_tier_bad(const kvcl_tier *t, uint32_t layer, uint32_t page, uint32_t n);
/* Means of a layer: one, or one for each epoch. */
static inline uint32_t kvcl_tier_n_means(const kvcl_codec_plan *p)
{
    return p->one_mean ? 1 : KVCL_MEAN_EPOCHS;
}
/* A layer's means in `buf`, or an absent view. */
kvcl_view kvcl_tier_means(const kvcl_tier *t, kvcl_buf *buf, uint32_t layer);

/* Its basis likewise, or those of its blocks; bytes of them. */
size_t kvcl_tier_layer_basis(const kvcl_tier *t);
kvcl_view kvcl_tier_basis(const kvcl_tier *t, kvcl_buf *buf, uint32_t layer);

/* Memory for learning: nothing where the codec learns nothing.  Bytes of scratch on the main
 * device. */
size_t kvcl_tier_learn_bytes(const kvcl_codec_plan *p);
kvcl_status kvcl_tier_create_learn(const kvcl_tier_setup *s, kvcl_queue *main, const char *what,
                                   kvcl_tier *t);
/* Means of all epochs and the basis of a layer, from rows->n_learn pages.  Waits. */
kvcl_status kvcl_tier_learn(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                            const kvcl_tier_rows *rows);
/* One part of a layer's means: all sums of pages [begin, end) added to `to`. */
kvcl_view kvcl_tier_mean(const kvcl_tier *t, kvcl_buf *buf, uint32_t per_layer, uint32_t layer,
                         uint32_t i);
kvcl_status kvcl_tier_add_rows(const kvcl_tier *t, kvcl_queue *q, const kvcl_codec_raw *raw,
                               kvcl_view sums);

/* Tables and work of codecs that want them: bytes on the main device or (there) on the tier's other
 * one; the memory. */
size_t kvcl_tier_work_bytes(const kvcl_tier_setup *s, const kvcl_codec_plan *p, bool there);
kvcl_status kvcl_tier_create_work(const kvcl_tier_setup *s, kvcl_queue *main, const char *travel,
                                  kvcl_tier *t);
/* A layer's word of t->fault, or an absent view. */
kvcl_view kvcl_tier_fault(const kvcl_tier *t, uint32_t layer);

/* A tier on another device: its buffers, its pages, its means. */
kvcl_status kvcl_tier_create_remote(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t);
kvcl_status kvcl_tier_encode_remote(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                    const kvcl_codec_raw *raw);
/* A part of a buffer of the main device to the same place of one there.  Waits. */
kvcl_status kvcl_tier_send(kvcl_tier *t, kvcl_queue *q, kvcl_view part, kvcl_buf *there);

#endif
