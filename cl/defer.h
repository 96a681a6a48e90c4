/* defer.h - one deferred op of a token, as cl/defer.cl reads it: this text is compiled as OpenCL C
 * (put before cl/defer.cl) and as C11 (included by cl/cl_defer.c).  Addresses are the device's;
 * offsets of views are in them.  A slot holds any op; its `kind` comes first. */
#ifndef KVCL_DEFER_H
#define KVCL_DEFER_H

#ifdef __OPENCL_VERSION__
typedef uint kvcl_u32;
typedef ulong kvcl_u64;
#else
#include <stdint.h>
typedef uint32_t kvcl_u32;
typedef uint64_t kvcl_u64;
#endif

#define KVCL_DEFER_WORDS 112 /* 32-bit words of a slot */
#define KVCL_DEFER_DYN 8 /* numbers that change from token to token, an argument of the kernel */

enum { KVCL_DEFER_NOTHING, KVCL_DEFER_MATVEC, KVCL_DEFER_EMBED, KVCL_DEFER_ATTN, KVCL_DEFER_MERGE };

/* flags of a matvec */
#define KVCL_DEFER_PAIR 1u
#define KVCL_DEFER_GELU 2u
#define KVCL_DEFER_ROPE 4u
#define KVCL_DEFER_MERGED 8u

/* Bytes of the next matvec's weights, brought into the L2 cache when this op has ended. */
#define KVCL_DEFER_AHEAD 4
typedef struct kvcl_defer_head {
    kvcl_u32 kind, pad;
    kvcl_u64 ahead_at[KVCL_DEFER_AHEAD];
    kvcl_u32 ahead_bytes[KVCL_DEFER_AHEAD];
} kvcl_defer_head;

/* rope_store as the end of the matvec that makes the row q | k | v. */
typedef struct kvcl_defer_rope {
    kvcl_u64 table, k, v, pages; /* table 0: no rotation */
    kvcl_u32 n_q_heads, n_kv_heads, head_dim, n_rot, first_page;
    kvcl_u32 pos; /* index of the position among the changing numbers */
} kvcl_defer_rope;

/* attn_merge, an op of its own or the beginning of the matvec that reads what it makes. */
typedef struct kvcl_defer_merge {
    kvcl_defer_head head;
    kvcl_u64 ml, o, out;
    kvcl_u32 n_q_heads, head_dim, n_parts;
    kvcl_u32 n_merged; /* index of the number of partials among the changing numbers */
} kvcl_defer_merge;

typedef struct kvcl_defer_attn {
    kvcl_defer_head head;
    kvcl_u64 q, k, v, pages, ml, o;
    kvcl_u32 n_q_heads, n_kv_heads, head_dim, n_parts;
    float scale;
    kvcl_u32 begin, end; /* indices of the region's first position and of the one behind its last */
    kvcl_u32 first_part;
} kvcl_defer_attn;

typedef struct kvcl_defer_matvec {
    kvcl_defer_head head;
    kvcl_u64 w[3], d[3], h[3]; /* planes of the matrices; d, h: blocks only */
    kvcl_u64 bias[3], out[3];  /* bias 0: none */
    kvcl_u64 x, norm_w, norm_b, res;
    kvcl_u32 row_end[3]; /* rows of the matrices up to this one */
    kvcl_u32 n_tasks;    /* pairs of rows: 2t, 2t + 1, or row t of two matrices */
    kvcl_u32 cols, flags, norm;
    float eps, inv_n;
    kvcl_u32 pad;
    kvcl_defer_rope rope;                                 /* with KVCL_DEFER_ROPE */
    kvcl_u64 ml, o;                                       /* these with KVCL_DEFER_MERGED: x is */
    kvcl_u32 merge_head_dim, merge_parts, n_merged, pad2; /* written, then read */
} kvcl_defer_matvec;

typedef struct kvcl_defer_embed {
    kvcl_defer_head head;
    kvcl_u64 w, pos_w, ids, out; /* pos_w 0: none */
    kvcl_u32 rows, cols, pos_rows;
    kvcl_u32 pos; /* index of the position among the changing numbers */
} kvcl_defer_embed;

#endif
