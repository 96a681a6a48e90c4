/* tier_disk.c - tiers whose pages are in a file: written as they are coded, read some whole blocks
 * at a time into the bounce on the main device whenever a query asks for them.  See tier.h.
 *
 * The sums of pages stay in memory.  So a page that the file lost, or that is an older one of the
 * same place, is noticed as well as one with other bits. */
#include "tier_int.h"

#include "mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- memory -------------------------------------------------------------------------------- */

uint32_t kvcl_tier_disk_bounce(const kvcl_codec_plan *p, uint32_t n_slots)
{
    size_t fit = KVCL_TIER_DISK_BYTES / p->page_bytes / KVCL_BLOCK_PAGES * KVCL_BLOCK_PAGES;
    uint32_t most = kvcl_div_up(n_slots, KVCL_BLOCK_PAGES) * KVCL_BLOCK_PAGES;
    most = kvcl_min_u32(most, KVCL_TIER_DISK_PAGES);
    return (uint32_t)kvcl_min_size(kvcl_max_size(fit, KVCL_BLOCK_PAGES), most);
}

kvcl_status kvcl_tier_create_disk(const kvcl_tier_setup *s, kvcl_queue *main, kvcl_tier *t)
{
    kvcl_ctx *ctx = t->dev->ctx;
    size_t n_pages = (size_t)t->n_layers * t->map.n_slots;
    void *p;
    KVCL_TRY(kvcl_tier_create_bounce(s, main, t));
    t->host_bytes = t->bounce_map.n_slots * t->plan.page_bytes;
    KVCL_TRY(kvcl_mem_alloc_undefined(ctx, t->host_bytes, "pages from disk", &p));
    t->host = p;
    KVCL_TRY(kvcl_mem_array(ctx, n_pages, sizeof(uint64_t), "sums of pages", &p));
    t->page_sums = p;
    return kvcl_os_scratch_open(ctx, s->dir, kvcl_tier_page_bytes(t),
                                kvcl_tier_name_uses(t->name).pages, &t->file);
}

/* ---- pages in t->host ---------------------------------------------------------------------- */

/* Part j of the i-th page. */
static unsigned char *staged(const kvcl_tier *t, uint32_t j, uint32_t i)
{
    const size_t *bytes = t->plan.pool_bytes;
    return t->host + (j ? t->bounce_map.n_slots * bytes[0] : 0) + i * bytes[j];
}

static uint64_t sum_of(const kvcl_tier *t, uint32_t i)
{
    const size_t *bytes = t->plan.pool_bytes;
    XXH64_hash_t h = XXH3_64bits(staged(t, 0, i), bytes[0]);
    if (bytes[1])
        h = XXH3_64bits_withSeed(staged(t, 1, i), bytes[1], h);
    return h ? h : 1;
}

/* ---- pages in the file --------------------------------------------------------------------- */

/* Pages page .. page + n - 1 of a layer that lie in a row: up to the end of the ring. */
static uint32_t in_a_row(const kvcl_tier *t, uint32_t page, uint32_t n)
{
    return kvcl_min_u32(n, t->map.n_slots - page % t->map.n_slots);
}

static uint64_t place(const kvcl_tier *t, uint32_t layer, uint32_t j, uint32_t page)
{
    uint64_t slots = t->map.n_slots;
    return layer * slots * t->plan.page_bytes + (j ? slots * t->plan.pool_bytes[0] : 0) +
           page % slots * t->plan.pool_bytes[j];
}

static uint64_t *sum_at(const kvcl_tier *t, uint32_t layer, uint32_t page)
{
    return &t->page_sums[(size_t)layer * t->map.n_slots + page % t->map.n_slots];
}

/* Pages from t->host to the file. */
static kvcl_status put_pages(kvcl_tier *t, uint32_t layer, uint32_t page, uint32_t n)
{
    for (uint32_t i = 0, m; i < n; i += m) {
        m = in_a_row(t, page + i, n - i);
        for (uint32_t j = 0; j < 2; j++)
            KVCL_TRY(kvcl_os_scratch_write(&t->file, place(t, layer, j, page + i), staged(t, j, i),
                                           m * t->plan.pool_bytes[j]));
    }
    for (uint32_t i = 0; i < n; i++)
        *sum_at(t, layer, page + i) = sum_of(t, i);
    return KVCL_OK;
}

static kvcl_status damaged(const kvcl_tier *t, uint32_t layer, uint32_t page, const char *how)
{
    return kvcl_fail(
        t->dev->ctx, KVCL_E_FORMAT,
        "layer %u, page %u (tokens %u to %u) of the %s: %s; read the prompt again, and "
        "check that disk or name another folder with --tier-dir",
        (unsigned)layer, (unsigned)page, (unsigned)page * KVCL_PAGE_TOKENS,
        (unsigned)page * KVCL_PAGE_TOKENS + KVCL_PAGE_TOKENS - 1, t->file.what, how);
}

/* Pages from the file of `from`, a tier of the same setup, to t->host: the ones that were written,
 * or an error. */
static kvcl_status get_pages(kvcl_tier *t, const kvcl_tier *from, uint32_t layer, uint32_t page,
                             uint32_t n)
{
    for (uint32_t i = 0, m; i < n; i += m) {
        m = in_a_row(t, page + i, n - i);
        for (uint32_t j = 0; j < 2; j++) {
            size_t each = t->plan.pool_bytes[j], got;
            KVCL_TRY(kvcl_os_scratch_read(&from->file, place(t, layer, j, page + i),
                                          staged(t, j, i), m * each, &got));
            if (got < m * each)
                return damaged(t, layer, page + i + (uint32_t)(got / each),
                               "something has cut its file short");
        }
    }
    for (uint32_t i = 0; i < n; i++)
        if (sum_of(t, i) != *sum_at(from, layer, page + i))
            return damaged(t, layer, page + i, "its file does not hold what was written there");
    return KVCL_OK;
}

/* The system may fetch what is read next, while the device works on what there is. */
static void expect_pages(const kvcl_tier *t, uint32_t layer, uint32_t page, uint32_t n)
{
    n = in_a_row(t, page, n);
    for (uint32_t j = 0; j < 2 && n; j++)
        if (t->plan.pool_bytes[j])
            kvcl_os_scratch_expect(&t->file, place(t, layer, j, page), n * t->plan.pool_bytes[j]);
}

/* ---- what tiers do ------------------------------------------------------------------------- */

kvcl_status kvcl_tier_disk_store(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t page,
                                 uint32_t n)
{
    for (uint32_t j = 0; j < 2; j++)
        if (t->bounce[j])
            KVCL_TRY(kvcl_buf_read(q, t->bounce[j], 0, staged(t, j, 0), n * t->plan.pool_bytes[j]));
    KVCL_TRY(kvcl_queue_wait(q));
    return put_pages(t, layer, page, n);
}

/* The n pages in t->host to the bounce, in order behind the op before, which may still read it. */
static kvcl_status show_pages(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t n,
                              kvcl_codec_pages *out)
{
    for (uint32_t j = 0; j < 2; j++)
        if (t->bounce[j])
            KVCL_TRY(
                kvcl_buf_write(q, t->bounce[j], 0, staged(t, j, 0), n * t->plan.pool_bytes[j]));
    *out = kvcl_tier_bounce(t, layer, n);
    out->rope = t->rope;
    out->work = kvcl_view_of(t->attend_work);
    out->fault = kvcl_tier_fault(t, layer);
    return KVCL_OK;
}

kvcl_status kvcl_tier_disk_bring(kvcl_tier *t, kvcl_queue *q, uint32_t layer, uint32_t page,
                                 uint32_t n, kvcl_codec_pages *out)
{
    KVCL_TRY(get_pages(t, t, layer, page, n));
    return show_pages(t, q, layer, n, out);
}

/* Pages of the sequence from `page` on that are read together: whole bounces but at the ends. */
static uint32_t at_once(const kvcl_tier *t, uint32_t page, uint32_t end)
{
    uint32_t most = t->bounce_map.n_slots;
    return kvcl_min_u32(end, (page / most + 1) * most) - page;
}

kvcl_status kvcl_tier_disk_attend(kvcl_tier *t, kvcl_queue *q, uint32_t layer,
                                  const kvcl_attn_in *in)
{
    uint32_t first = in->begin / KVCL_PAGE_TOKENS, end = (in->end - 1) / KVCL_PAGE_TOKENS + 1;
    for (uint32_t page = first, n; page < end; page += n) {
        kvcl_codec_pages pages;
        n = at_once(t, page, end);
        KVCL_TRY(get_pages(t, t, layer, page, n));
        if (page + n < end)
            expect_pages(t, layer, page + n, at_once(t, page + n, end));
        else
            expect_pages(t, (layer + 1) % t->n_layers, first, at_once(t, first, end));
        KVCL_TRY(show_pages(t, q, layer, n, &pages));
        KVCL_TRY(kvcl_tier_attend_run(t, q, &pages, in, page, n));
    }
    return KVCL_OK;
}

kvcl_status kvcl_tier_disk_copy(kvcl_tier *dst, const kvcl_tier *src)
{
    const uint32_t n_slots = src->map.n_slots;
    for (uint32_t layer = 0; layer < src->n_layers; layer++) /* slots are as good as pages here */
        for (uint32_t slot = 0, n; slot < n_slots; slot += n) {
            uint32_t most = kvcl_min_u32(n_slots - slot, dst->bounce_map.n_slots);
            for (n = 0; n < most && *sum_at(src, layer, slot + n);)
                n++; /* written in a row */
            KVCL_TRY(get_pages(dst, src, layer, slot, n));
            KVCL_TRY(put_pages(dst, layer, slot, n));
            if (n < most)
                *sum_at(dst, layer, slot + n++) = 0;
        }
    return KVCL_OK;
}
