/* tier.h - one lossy or raw tier below the hot one: coded pages of all layers on one device.
 *
 * Pages are coded on the device where their exact rows are (the main one) and, when the tier lives
 * elsewhere, carried there through host memory; queries go there and partials come back the same
 * way.  Pages of a tier on disk are written to a file and come back, some at a time, into a bounce
 * on the main device, which answers.  The bytes and the answers do not depend on where the tier
 * lives. */
#ifndef KVCL_TIER_H
#define KVCL_TIER_H

#include "codec.h"
#include "os.h"
#include "page_raw.h"

/* Sums of the last pages, so that a page that is forgotten can be coded anew. */
#define KVCL_TIER_SUMS 4
/* Pages that travel to another device at once; from a file: as many whole blocks as fit these
 * bytes, one at least, and these pages. */
#define KVCL_TIER_BOUNCE 8
#define KVCL_TIER_DISK_BYTES ((size_t)4 << 20)
#define KVCL_TIER_DISK_PAGES 32u

/* How well a layer's basis suits its pages: relative squared errors of K and V, the mean of both.
 */
typedef struct kvcl_tier_drift {
    uint32_t n_learned;   /* pages that the basis was learned from */
    uint32_t n_refreshes; /* times that it was learned anew */
    uint32_t n_usual;     /* pages that `usual` is the mean of */
    double usual, now;    /* of pages that were learned from; of the last ones */
    bool has_metric;
} kvcl_tier_drift;

typedef struct kvcl_tier {
    const char *name; /* "warm", "cold" */
    kvcl_codec_plan plan;
    uint32_t tokens; /* it is asked to hold; 0: all that is left */
    uint32_t n_layers, n_sink;
    kvcl_dev *dev;     /* its own; on disk: the main one */
    kvcl_queue *queue; /* of its own device when remote, else NULL: the caller's */
    kvcl_page_map map; /* on disk: sizes only */
    kvcl_buf **pools;  /* [n_layers][map.n_segments][2]; on disk: NULL */

    /* on disk only: pages [n_layers][2: pools][map.n_slots], and what each was when it was
     * written, XXH3 of its bytes, [n_layers][map.n_slots]; 0: nothing was */
    bool on_disk;
    kvcl_os_scratch file;
    uint64_t *page_sums;

    /* on the main device */
    kvcl_buf *sums, *means;   /* [n_layers][KVCL_TIER_SUMS | kvcl_tier_n_means][2][Hk][D]; sums of a
                                 codec that learns: [2][Hk][D] */
    kvcl_buf *basis;          /* [n_layers], of each kvcl_tier_layer_basis() bytes */
    kvcl_buf *gram;           /* moments of a layer's rows, while its basis is made */
    void *learn_host;         /* the same on the host, the rotation table, the basis */
    uint32_t n_span;          /* distances below are in that table */
    kvcl_page_map bounce_map; /* remote or on disk only */
    kvcl_buf *bounce[2];
    kvcl_buf *bad;                  /* i32 [n_layers][map.n_pages][Hk] */
    kvcl_buf *tables, *encode_work; /* of codecs that want them */
    kvcl_view rope;                 /* on the tier's device */

    /* where bases follow the text (tier_refresh.c) */
    kvcl_tier_drift *drift; /* [n_layers] on the host; else NULL */
    kvcl_raw_pages echo;    /* a page that was decoded */
    kvcl_buf *kept;         /* [n_layers]: metrics as they were when a layer was learned first */
    unsigned char *echo_host;

    /* on the tier's device, where its codec wants them */
    kvcl_buf *tables_there;        /* NULL here: tables */
    kvcl_buf *attend_work, *fault; /* fault u32 [n_layers] */
    uint32_t *fault_host;

    /* on the tier's device, remote only */
    kvcl_buf *means_there, *basis_there, *rope_there, *q_there, *ml_there, *o_there;
    unsigned char *host; /* what travels; on disk: pages in the bounce's order */
    size_t host_bytes;
    int32_t *bad_host; /* [map.n_pages][Hk] */
} kvcl_tier;

/* What a tier is made of; main_dev is the device of the exact rows. */
typedef struct kvcl_tier_setup {
    const char *name;
    kvcl_dev *main_dev, *dev;
    bool on_disk;    /* dev is the main one */
    const char *dir; /* folder of the file; NULL: the system's for temporary files.  borrows */
    kvcl_codec_plan plan;
    uint32_t tokens, n_layers, n_pages, n_slots, n_sink;
    uint32_t n_queries, n_parts; /* of one attend; for transfers */
    kvcl_type type_k, type_v;    /* of exact rows */
    kvcl_view rope;              /* on the main device */
} kvcl_tier_setup;

/* Sizes only. */
kvcl_status kvcl_tier_init(const kvcl_tier_setup *setup, kvcl_tier *out);
/* Allocates; main is a queue of the main device. */
kvcl_status kvcl_tier_create(const kvcl_tier_setup *setup, kvcl_queue *main, kvcl_tier *tier);
void kvcl_tier_free(kvcl_ctx *ctx, kvcl_tier *tier);

/* Names of a tier's memory: "cold tier", "cold tier's means", its bases, its travel. */
typedef struct kvcl_tier_uses {
    char pages[32], means[32], bases[32], travel[32];
} kvcl_tier_uses;
kvcl_tier_uses kvcl_tier_name_uses(const char *tier);

/* Bytes: of pages (of the file, on disk); of means; of what was learned; of everything else on the
 * main and on the tier's device. */
size_t kvcl_tier_page_bytes(const kvcl_tier *tier);
size_t kvcl_tier_mean_bytes(const kvcl_tier *tier);
size_t kvcl_tier_basis_bytes(const kvcl_tier *tier);
size_t kvcl_tier_scratch_bytes(const kvcl_tier_setup *setup, const kvcl_tier *tier, bool there);

/* A layer's exact rows. */
typedef struct kvcl_tier_rows {
    const kvcl_raw_pages *pages;
    uint32_t layer;      /* of pages */
    uint32_t n_learn;    /* pages from 0 on that are there whole: what a codec may learn from */
    kvcl_view metric;    /* moments of queries (ops_fit.h), or absent */
    uint32_t learn_from; /* the first of these; n_learn is the one behind the last */
    const kvcl_raw_pages *room; /* one layer of all pages that may be written below `begin`; NULL:
                                   bases stay as they are */
} kvcl_tier_rows;

/* Codes pages [begin, end) of a layer; begin is the number of pages coded so far.  Before page 0
 * is coded, the codec learns what it wants to know of the layer; a basis that follows the text may
 * be learned anew, and all pages coded again.  q: a queue of the main device.  Enqueues, but waits
 * where a remote tier is filled or something is learned or measured. */
kvcl_status kvcl_tier_encode(kvcl_tier *tier, kvcl_queue *q, uint32_t layer,
                             const kvcl_tier_rows *rows, uint32_t begin, uint32_t end);

/* After the queue was waited for: E_NOT_FINITE, naming layer and token, when one of the pages
 * [begin, end) was refused. */
kvcl_status kvcl_tier_check(kvcl_tier *tier, kvcl_queue *q, uint32_t begin, uint32_t end);

/* After attention was waited for: E_FORMAT, naming layer and page, when it met a coded page that is
 * damaged.  Waits; nothing where pages do not tell. */
kvcl_status kvcl_tier_check_pages(kvcl_tier *tier, kvcl_queue *q);

/* Block partials over in->begin .. in->end of a layer.  in->page_table is ignored.  Enqueues; a
 * remote tier waits, one on disk for its file.  E_FORMAT, naming layer and page, when a page of the
 * file is not the one that was written. */
kvcl_status kvcl_tier_attend(kvcl_tier *tier, kvcl_queue *q, uint32_t layer,
                             const kvcl_attn_in *in);

/* Copies all pages, sums, means and bases of another tier of the same setup. */
kvcl_status kvcl_tier_copy(kvcl_tier *dst, const kvcl_tier *src, kvcl_queue *main);

#endif
