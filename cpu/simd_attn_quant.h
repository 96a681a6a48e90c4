/* simd_attn_quant.h - what the sources of attention over quant pages share: a task and its numbers.
 * A task is one block of pages of one kv head against a chunk of rows, a row being one head of one
 * query. */
#ifndef KVCL_CPU_SIMD_ATTN_QUANT_H
#define KVCL_CPU_SIMD_ATTN_QUANT_H

#include "simd_code.h"

#define ROWS 32 /* of a task */
#define MAX_D CODE_MAX_DIM
#define PAGES KVCL_BLOCK_PAGES

/* What a row is, and its numbers in the block. */
typedef struct aq_row {
    uint32_t end;  /* positions it sees end here */
    float *ml, *o; /* where its partial goes */
    /* per page: m = -inf where it sees no token */
    float m[16], l[16], max[16], mult[16];
} aq_row;

typedef struct aq_work {
    float q[ROWS][MAX_D]; /* scaled; PRE: turned back for the page at hand */
    uint32_t words_k[ROWS][MAX_D / 2];
    uint32_t words_v[ROWS][PAGES][KVCL_TOKENS / 2];
    int32_t sums_v[PAGES][ROWS]; /* of keys' sums, then of values' */
    int32_t sums[ROWS];
    float mult[ROWS], beta[ROWS];
    float s[ROWS][PAGES][KVCL_TOKENS];
    aq_row rows[ROWS];
    float z[ROWS][PAGES * MAX_D];        /* [PAGES][D] */
    float up_step[PAGES][KVCL_TOKENS];   /* of keys */
    float back[PAGES][CODE_TILE][MAX_D]; /* PRE, few rows: queries turned back */
    float turned[ROWS][MAX_D];           /* PRE, many rows: the same for one page */
    float k[MAX_D * KVCL_TOKENS];        /* PRE: keys */
    float cs[MAX_D * KVCL_TOKENS];       /* PRE: [4][n_rot / 2][2][16] */
    unsigned char levels[MAX_D * KVCL_TOKENS];
    unsigned char table_k[16], table_v[16];
} aq_work;

_Static_assert(sizeof(aq_work) <= KVCL_CPU_SCRATCH_BYTES, "scratch of a thread");

typedef struct aq_task {
    const kvcl_attn_quant_args *a;
    aq_work *w;
    uint32_t hk, page;         /* page: the block's first */
    uint32_t begin, end;       /* of its pages: those in the region that a row sees */
    uint32_t n_rows, D, block; /* block: of the transform */
    float up;
    size_t parts[4], page_bytes;
    const unsigned char *slots[PAGES];
    const float *mean_k, *mean_v;
    const unsigned char *next_k[PAGES]; /* keys' codes of the task that may come next, or NULL */
} aq_task;

static inline size_t aq_part_bytes(const aq_task *t, uint32_t i)
{
    return t->parts[i] / t->a->in.n_kv_heads;
}

/* Parts of a page: K codes, V codes, K scales, V scales, of this task's head. */
static inline const unsigned char *aq_part(const aq_task *t, uint32_t c, uint32_t i)
{
    const unsigned char *p = t->slots[c];
    for (uint32_t j = 0; j < i; j++)
        p += t->parts[j];
    return p + aq_part_bytes(t, i) * t->hk;
}

static inline uint32_t aq_n_rot(const aq_task *t)
{
    return t->a->pairing == KVCL_ROPE_NONE || !kvcl_cpu_ptr(t->a->table) ? 0 : t->a->n_rot;
}

/* The transform of a head's blocks. */
static inline void aq_transform(const aq_task *t, float *x)
{
    for (uint32_t d = 0; d < t->D; d += t->block)
        KVCL_SIMD_FN(fwht_row)(x + d, t->block);
}

/* Many rows read levels that are decoded once. */
static inline kvcl_simd_codes aq_levels(const aq_task *t, kvcl_simd_codes codes)
{
    if (t->n_rows > CODE_TILE && codes.bits != 8) {
        KVCL_SIMD_FN(code_levels)(&codes, t->w->levels);
        codes.codes = t->w->levels;
        codes.bits = CODE_READY;
    }
    return codes;
}

/* x[j], or `other` for tokens outside of [lo, hi). */
KVCL_INLINE v16 aq_seen_only(v16 x, uint32_t j, uint32_t lo, uint32_t hi, float other)
{
    static const float count16[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 t = v16_add(v16_load(count16), v16_set((float)(16 * j)));
    x = v16_select_lt(t, v16_set((float)lo), v16_set(other), x);
    return v16_select_lt(t, v16_set((float)hi), x, v16_set(other));
}

/* Scores to m, l, p * step in place (steps NULL: p), and the largest of them; the row sees tokens
 * [lo, hi) of page c. */
KVCL_INLINE void aq_weights(const unsigned char *steps, uint32_t c, aq_row *rw, uint32_t lo,
                            uint32_t hi, float *p)
{
    bool partly = lo > 0 || hi < KVCL_TOKENS;
    v16 s[4], l[2];
    KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        s[j] = v16_load(p + 16 * j);
    for (uint32_t j = 0; partly && j < 4; j++)
        s[j] = aq_seen_only(s[j], j, lo, hi, -INFINITY);
    float m = v16_max_lane(v16_max(v16_max(s[0], s[1]), v16_max(s[2], s[3])));
    KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++) {
        s[j] = v16_exp(v16_sub(s[j], v16_set(m)));
        v16_store(p + 16 * j, s[j]);
        if (steps)
            s[j] = v16_mul(s[j], v16_load_f16(steps + 32 * j));
    }
    v8 sum = v8_zero();
    KVCL_UNROLL
    for (uint32_t i = 0; i < KVCL_TOKENS; i += 8)
        sum = v8_add(sum, v8_load(p + i));
    for (uint32_t j = 0; partly && j < 4; j++)
        s[j] = aq_seen_only(s[j], j, lo, hi, 0.0f);
    KVCL_UNROLL
    for (uint32_t j = 0; j < 4; j++)
        v16_store(p + 16 * j, s[j]);
    KVCL_UNROLL
    for (uint32_t j = 0; j < 2; j++)
        l[j] = v16_max(v16_abs(s[j]), v16_abs(s[j + 2]));
    rw->m[c] = m;
    rw->l[c] = kvcl_zero(v8_tree(sum));
    rw->max[c] = v16_max_lane(v16_max(l[0], l[1]));
}

/* Block b and rows [first_row, end_row) become the task's; false when no row sees the block. */
bool KVCL_SIMD_FN(aq_begin)(aq_task *t, uint32_t b, uint32_t first_row, uint32_t end_row);
/* m and l of row r's block partial, tree over c of w_c z_c[d] mult_c, d < n, to out (n rounded up
 * to 16); false when it sees nothing. */
bool KVCL_SIMD_FN(aq_merge)(const aq_task *t, uint32_t r, uint32_t n, float *out);
/* Angles of positions order[0 .. 63], NULL: 0 .. 63, to cs. */
void KVCL_SIMD_FN(aq_turn_table)(const aq_task *t, const uint8_t *order);
/* q [D] turned back by the angles of the page's first position. */
void KVCL_SIMD_FN(aq_turn_back)(const aq_task *t, uint32_t page, const float *restrict q,
                                float *restrict out);

/* s of all rows and pages of the task, by the shape's form. */
void KVCL_SIMD_FN(attn_quant_scores)(const aq_task *t);

#endif
