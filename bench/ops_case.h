/* ops_case.h - single operations on made-up data of one device: what bench_ops.c times.
 *
 * The same parameters give the same inputs, so that outputs of two devices can be compared. */
#ifndef KVCL_OPS_CASE_H
#define KVCL_OPS_CASE_H

#include "dev.h"

#define KVCL_OPS_CASES 96 /* at most */

/* The matvecs are those of a layer of a 1.1B llama. */
#define KVCL_OPS_MATS 7 /* matrices of a layer: q, k, v, output, gate, up, down */
#define KVCL_OPS_WIDTH 2048u
#define KVCL_OPS_WIDTH_FF 5632u
#define KVCL_OPS_FWHT_VALUES (8u << 20)
/* A batch of singular value decompositions. */
#define KVCL_OPS_SVD_PAGES 256u
#define KVCL_OPS_SVD_ROWS 512u
#define KVCL_OPS_SVD_COLS 128u
#define KVCL_OPS_SVD_RANK 32u

typedef struct kvcl_ops_params {
    uint32_t tokens; /* in the cache, a multiple of 64 */
    uint32_t n_q_heads, n_kv_heads, head_dim;
    uint32_t n_layers; /* of matrices that a matvec goes through, one after the other */
} kvcl_ops_params;

typedef enum kvcl_ops_kind {
    KVCL_OPS_ATTEND, /* one query over all tokens */
    KVCL_OPS_MERGE,  /* its partials */
    KVCL_OPS_ENCODE, /* all pages */
    KVCL_OPS_FWHT,   /* rows of `dim` values */
    KVCL_OPS_SVD,    /* a batch */
    KVCL_OPS_MATVEC  /* the products of each of n_layers layers */
} kvcl_ops_kind;

typedef enum kvcl_ops_codec {
    KVCL_OPS_RAW,
    KVCL_OPS_QUANT,
    KVCL_OPS_BLOCK,
    KVCL_OPS_SPECTRAL
} kvcl_ops_codec;

typedef struct kvcl_ops_case {
    char name[40]; /* "attend quant4/post" */
    kvcl_ops_kind kind;
    kvcl_ops_codec codec;
    kvcl_quant_shape shape;       /* of QUANT */
    kvcl_spectral_shape spectral; /* of SPECTRAL */
    uint32_t bits;                /* of SPECTRAL, in the mean: 2 or 3 */
    kvcl_type type;               /* of BLOCK's rows, of a matvec's weights */
    uint32_t dim;
    uint64_t bytes; /* read and written by one run, each once */
} kvcl_ops_case;

/* All cases, in the order of the report. */
size_t kvcl_ops_list(const kvcl_ops_params *p, kvcl_ops_case out[KVCL_OPS_CASES]);

/* Sizes that follow from the parameters; bytes of a coded page, and of a layer's matrices. */
static inline uint32_t kvcl_ops_pages(const kvcl_ops_params *p)
{
    return p->tokens / KVCL_PAGE_TOKENS;
}
static inline uint32_t kvcl_ops_parts(const kvcl_ops_params *p)
{
    return kvcl_div_up(p->tokens, KVCL_BLOCK_TOKENS);
}
size_t kvcl_ops_page_bytes(const kvcl_ops_params *p, const kvcl_ops_case *c);
size_t kvcl_ops_layer_bytes(kvcl_type type);
void kvcl_ops_spectral_shape(const kvcl_ops_params *p, uint32_t fold, uint32_t bits,
                             kvcl_spectral_shape *out);

/* A device with the buffers of the cases. */
typedef struct kvcl_ops_rig {
    kvcl_ops_params p;
    kvcl_dev *dev; /* kept */
    kvcl_queue *q;
    kvcl_buf *k, *v, *pool, *bad, *slots, *means, *table; /* the cache */
    kvcl_buf *basis;                                      /* of the last case with spectral pages */
    kvcl_buf *query, *ml, *o, *out;
    kvcl_buf *rows, *turned;   /* the transforms' input and output */
    kvcl_rsvd_args svd;        /* and its buffers, once they are made */
    kvcl_buf *x, *norm, *y[3]; /* activations */
    kvcl_mat **mats;           /* [n_layers][KVCL_OPS_MATS] */
    void *weights;             /* of one layer, as in a file: layers lie apart on devices */
} kvcl_ops_rig;

/* Fills *r; on error leaves nothing behind. */
kvcl_status kvcl_ops_open(kvcl_dev *dev, const kvcl_ops_params *p, kvcl_ops_rig *r);
void kvcl_ops_close(kvcl_ops_rig *r);

/* Makes the matrices of all layers, instead of those there were. */
kvcl_status kvcl_ops_make_mats(kvcl_ops_rig *r, kvcl_type type);
/* Makes the basis of a case with spectral pages, instead of the one there was. */
kvcl_status kvcl_ops_make_basis(kvcl_ops_rig *r, const kvcl_ops_case *c);
/* Makes the matrices and the buffers of the singular value decompositions, once. */
kvcl_status kvcl_ops_make_svd(kvcl_ops_rig *r);
/* Makes what the case reads: coded pages, matrices.  Untimed. */
kvcl_status kvcl_ops_prepare(kvcl_ops_rig *r, const kvcl_ops_case *c);
/* Runs the case n times and waits. */
kvcl_status kvcl_ops_run(kvcl_ops_rig *r, const kvcl_ops_case *c, uint32_t n);
/* A hash of what the last run wrote. */
kvcl_status kvcl_ops_hash(kvcl_ops_rig *r, const kvcl_ops_case *c, uint64_t *hash_out);

#endif
