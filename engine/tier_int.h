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

/* Pages [begin, end) to codes, with what is learned. */
kvcl_status kvcl_tier_encode_pages(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                   const kvcl_tier_rows *rows, uint32_t begin, uint32_t end);

/* Bases that follow the text: sizes; bytes of scratch on the main device; memory. */
kvcl_status kvcl_tier_init_refresh(const kvcl_tier_setup *s, kvcl_tier *t);
size_t kvcl_tier_refresh_bytes(const kvcl_tier *t);
kvcl_status kvcl_tier_create_refresh(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t);
void kvcl_tier_free_refresh(kvcl_ctx *ctx, kvcl_tier *t);
kvcl_status kvcl_tier_copy_refresh(kvcl_tier *dst, const kvcl_tier *src, kvcl_queue *main);
/* After a layer was learned first, from these rows; after its pages [begin, end) were coded. */
kvcl_status kvcl_tier_note_learned(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                   const kvcl_tier_rows *rows);
kvcl_status kvcl_tier_follow(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                             const kvcl_tier_rows *rows, uint32_t begin, uint32_t end);

/* Tables and work of codecs that want them: bytes on the main device or (there) on the tier's other
 * one; the memory. */
size_t kvcl_tier_work_bytes(const kvcl_tier_setup *s, const kvcl_codec_plan *p, bool there);
kvcl_status kvcl_tier_create_work(const kvcl_tier_setup *s, kvcl_queue *main, const char *travel,
                                  kvcl_tier *t);
/* A layer's word of t->fault, or an absent view. */
kvcl_view kvcl_tier_fault(const kvcl_tier *t, uint32_t layer);

/* The bounce of a tier elsewhere, on the main device. */
kvcl_status kvcl_tier_create_bounce(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t);
/* Its first n slots as a codec that encodes wants them: without work and bad. */
kvcl_codec_pages kvcl_tier_bounce(const kvcl_tier *t, uint32_t layer, uint32_t n);
/* Codes pages into the bounce and sends them where they belong.  Waits. */
kvcl_status kvcl_tier_encode_bounced(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                     const kvcl_codec_raw *raw);
/* Partials of the n pages from `page` on, a part of the region `in` that begins and ends where
 * blocks or the region do. */
kvcl_status kvcl_tier_attend_run(const kvcl_tier *t, kvcl_queue *q, const kvcl_codec_pages *pages,
                                 const kvcl_attn_in *in, uint32_t page, uint32_t n);

/* A tier on another device: its buffers, its means. */
kvcl_status kvcl_tier_create_remote(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t);
/* n coded pages of a remote tier, at most KVCL_TIER_BOUNCE, to the main device: *pages is then
 * there. Waits. */
kvcl_status kvcl_tier_bring(kvcl_tier *t, kvcl_queue *q, kvcl_codec_pages *pages, uint32_t n);

/* A tier on disk (tier_disk.c): pages of its bounce; its memory and file; the n pages in the
 * bounce, from `page` on, to the file; back into the bounce, as codecs that attend or decode want
 * them; attention; pages of another one. */
uint32_t kvcl_tier_disk_bounce(const kvcl_codec_plan *p, uint32_t n_slots);
kvcl_status kvcl_tier_create_disk(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t);
kvcl_status kvcl_tier_disk_store(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t page,
                                 uint32_t n);
kvcl_status kvcl_tier_disk_bring(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t page,
                                 uint32_t n, kvcl_codec_pages *out);
kvcl_status kvcl_tier_disk_attend(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                  const kvcl_attn_in *in);
kvcl_status kvcl_tier_disk_copy(kvcl_tier *dst, const kvcl_tier *src);
/* A part of a buffer of the main device to the same place of one there.  Waits. */
kvcl_status kvcl_tier_send(kvcl_tier *t, kvcl_queue *q, kvcl_view part, kvcl_buf *there);

#endif
