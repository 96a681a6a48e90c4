// holo.c - raw pages to superposed pages, back, and attention on them.  Kernels: cl/holo.cl; SIMD:
// cpu/simd_holo.c
#include "holo.h"

#include "block.h"
#include "partial.h"
#include "quant.h"

#define MAX_DIM 256
#define MAX_FOLD 8

/* ---- layout -------------------------------------------------------------------------------- */

kvcl_cpu_holo kvcl_cpu_holo_at(const kvcl_holo_shape *s, kvcl_view basis, kvcl_view means,
                               kvcl_view pool, size_t slot, uint32_t i_page, bool of_v, uint32_t hk)
{
    kvcl_quant_shape heads = {.n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    size_t part[2], page_bytes = kvcl_holo_page_bytes(s, part);
    kvcl_cpu_holo x = {.type = s->type,
                       .D = s->head_dim,
                       .n_comp = kvcl_holo_components(s, of_v),
                       .chips = s->form == KVCL_HOLO_CHIPS ? s->fold : 1,
                       .fold = kvcl_holo_fold(s, of_v),
                       .side = s->form == KVCL_HOLO_SIDE,
                       .pair = s->pair,
                       .gain = of_v ? s->gain_v : s->gain_k};
    x.row_bytes = kvcl_type_bytes(s->type, x.D);
    x.slots = (unsigned char *)kvcl_cpu_ptr(pool) + slot * page_bytes + (of_v ? part[0] : 0) +
              hk * (KVCL_TOKENS / x.fold) * x.row_bytes;
    if (means.buf)
        x.mean = kvcl_cpu_quant_mean(&heads, means, i_page, of_v, hk);
    if (basis.buf) {
        size_t at = s->by_block ? i_page / KVCL_BLOCK * kvcl_holo_basis_bytes(s) / 2 : 0;
        at += of_v ? (size_t)s->n_kv_heads * kvcl_holo_components(s, false) * x.D : 0;
        x.matrix = (const uint16_t *)kvcl_cpu_ptr(basis) + at + (size_t)hk * x.n_comp * x.D;
    }
    return x;
}

/* ---- encoding ------------------------------------------------------------------------------ */

// Components of a token's row x, in place.
static void analyse(const kvcl_cpu_holo *x, float *y)
{
    float a[MAX_DIM];
    for (uint32_t d = 0; d < x->D && x->mean; d++)
        y[d] = y[d] - x->mean[d];
    if (x->n_comp == x->D)
        return;
    for (uint32_t i = 0; i < x->n_comp; i++) {
        a[i] = 0.0f;
        for (uint32_t d = 0; d < x->D; d++)
            a[i] = fmaf(kvcl_f16_to_f32(x->matrix[i * x->D + d]), y[d], a[i]);
    }
    memcpy(y, a, x->n_comp * sizeof *a);
}

// Stores a slot's row; false when a value is not finite or fits no slot.
static bool store_row(const kvcl_cpu_holo *x, const float *row, uint32_t slot)
{
    unsigned char *out = x->slots + slot * x->row_bytes;
    bool good = true;
    if (x->type != KVCL_F16)
        return kvcl_cpu_block_row(x->type, row, x->D, out);
    for (uint32_t m = 0; m < x->D; m++) {
        uint16_t h = kvcl_f32_to_f16(row[m]);
        memcpy(out + 2 * m, &h, sizeof h);
        good = good && (h & 0x7c00) != 0x7c00;
    }
    return good;
}

// One slot's row from its tokens' components a [fold][256].
static bool superpose(const kvcl_cpu_holo *x, float (*a)[MAX_DIM], uint32_t slot)
{
    float row[MAX_DIM] = {0};
    for (uint32_t m = 0; m < x->D && x->side; m++)
        row[m] = kvcl_zero(a[m / x->n_comp][m % x->n_comp]);
    for (uint32_t i = 0; i < x->n_comp && !x->side; i++)
        for (uint32_t c = 0; c < x->chips; c++) {
            float sum = 0.0f;
            for (uint32_t j = 0; j < x->fold; j++)
                sum += kvcl_holo_minus(j, kvcl_cpu_holo_class(x, i, c)) ? -a[j][i] : a[j][i];
            row[i * x->chips + c] = kvcl_zero(sum);
        }
    return store_row(x, row, slot);
}

void kvcl_cpu_holo_enc(const void *args, kvcl_cpu_part *p)
{
    const kvcl_holo_enc_args *a = args;
    const int32_t *from = kvcl_cpu_ptr(a->page_table), *to = kvcl_cpu_ptr(a->pool_table);
    uint32_t D = a->shape.head_dim, Hk = a->shape.n_kv_heads;
    int32_t *bad = kvcl_cpu_ptr(a->bad);
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / Hk, hk = task % Hk, page = a->first_page + i, first_bad = KVCL_TOKENS;
        uint32_t skip = page == 0 ? a->n_skip : 0;
        size_t raw = ((size_t)from[i] * Hk + hk) * D * KVCL_TOKENS;
        for (uint32_t of_v = 0; of_v < 2; of_v++) {
            kvcl_cpu_holo x = kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool,
                                               (size_t)to[i], page, of_v, hk);
            const void *pool = kvcl_cpu_ptr(of_v ? a->v : a->k);
            uint32_t fold = x.fold;
            float y[MAX_FOLD][MAX_DIM] = {{0}};
            for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
                for (uint32_t d = 0; d < D; d++)
                    y[t % fold][d] = kvcl_cpu_load(
                        of_v ? a->type_v : a->type_k, pool,
                        raw + (of_v ? (size_t)t * D + d : (size_t)d * KVCL_TOKENS + t));
                analyse(&x, y[t % fold]);
                if (t < skip)
                    memset(y[t % fold], 0, sizeof y[0]);
                if (t % fold == fold - 1 && !superpose(&x, y, t / fold))
                    first_bad = kvcl_min_u32(first_bad, t + 1 - fold);
            }
        }
        bad[task] = (int32_t)first_bad;
    }
}

/* ---- decoding ------------------------------------------------------------------------------ */

void kvcl_cpu_holo_components(const kvcl_cpu_holo *x, uint32_t slot, float *out, uint32_t pitch)
{
    float row[MAX_DIM];
    kvcl_dequantise(x->type, x->slots + slot * x->row_bytes, x->D, row);
    for (uint32_t i = 0; i < x->n_comp; i++)
        for (uint32_t j = 0; j < x->fold; j++) {
            float sum = x->side ? row[j * x->n_comp + i] : 0.0f;
            for (uint32_t c = 0; c < x->chips && !x->side; c++) {
                float value = row[i * x->chips + c];
                sum += kvcl_holo_minus(j, kvcl_cpu_holo_class(x, i, c)) ? -value : value;
            }
            out[i * pitch + j] = sum;
        }
}

// One token's row from its components z [n_comp][8].
static void synthesise(const kvcl_cpu_holo *x, const float *z, float *out)
{
    for (uint32_t d = 0; d < x->D; d++) {
        float r = 0.0f;
        for (uint32_t i = 0; i < x->n_comp && x->matrix; i++)
            r = fmaf(kvcl_f16_to_f32(x->matrix[i * x->D + d]), z[i * MAX_FOLD], r);
        r = x->matrix ? r : z[d * MAX_FOLD];
        out[d] = kvcl_zero(fmaf(x->gain, r, x->mean ? x->mean[d] : 0.0f));
    }
}

// How a page's keys are rotated; cs: the page's first row of the table.
typedef struct turning {
    kvcl_rope_pairing pairing;
    uint32_t n_rot;
    const float *cs;
} turning;

static turning turning_of(kvcl_rope_pairing pairing, uint32_t n_rot, kvcl_view table, uint32_t page)
{
    turning none = {.pairing = KVCL_ROPE_NONE};
    size_t row = (size_t)page * KVCL_TOKENS;
    if (!table.buf || pairing == KVCL_ROPE_NONE)
        return none;
    return (turning){pairing, n_rot, (const float *)kvcl_cpu_ptr(table) + row * n_rot};
}

// Rows of a page: value d of token t to out[d * along + t * across]; turned NULL: as they are.
static void make_rows(const kvcl_cpu_holo *x, const turning *turned, size_t along, size_t across,
                      float *out)
{
    float z[MAX_DIM * MAX_FOLD], row[MAX_DIM];
    for (uint32_t t = 0; t < KVCL_TOKENS; t++) {
        if (t % x->fold == 0)
            kvcl_cpu_holo_components(x, t / x->fold, z, MAX_FOLD);
        synthesise(x, z + t % x->fold, row);
        if (turned && turned->pairing != KVCL_ROPE_NONE)
            kvcl_cpu_turn(turned->pairing, turned->n_rot, turned->cs + (size_t)t * turned->n_rot,
                          false, row);
        for (uint32_t d = 0; d < x->D; d++)
            out[d * along + t * across] = row[d];
    }
}

// A head's page in f32: K [D][64], V [64][D].
typedef struct page_rows {
    float k[MAX_DIM * KVCL_TOKENS], v[KVCL_TOKENS * MAX_DIM];
} page_rows;

_Static_assert(KVCL_BLOCK * sizeof(page_rows) <= KVCL_CPU_SCRATCH_BYTES, "a block's pages");

static void make_page(const kvcl_cpu_holo *k, const kvcl_cpu_holo *v, const turning *turned,
                      page_rows *out)
{
    make_rows(k, turned, KVCL_TOKENS, 1, out->k);
    make_rows(v, NULL, 1, v->D, out->v);
}

void kvcl_cpu_holo_dec(const void *args, kvcl_cpu_part *p)
{
    const kvcl_holo_dec_args *a = args;
    const int32_t *from = kvcl_cpu_ptr(a->pool_table), *to = kvcl_cpu_ptr(a->page_table);
    uint32_t D = a->shape.head_dim, Hk = a->shape.n_kv_heads;
    page_rows *rows = (page_rows *)(void *)p->scratch;
    for (uint32_t task, end; kvcl_cpu_take(p, a->n_pages * Hk, 1, &task, &end);) {
        uint32_t i = task / Hk, hk = task % Hk, page = a->first_page + i;
        size_t raw = ((size_t)to[i] * Hk + hk) * D * KVCL_TOKENS, slot = (size_t)from[i];
        kvcl_cpu_holo k =
            kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool, slot, page, false, hk);
        kvcl_cpu_holo v =
            kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool, slot, page, true, hk);
        turning turned = turning_of(a->pairing, a->n_rot, a->table, page);
        make_page(&k, &v, &turned, rows);
        for (uint32_t e = 0; e < D * KVCL_TOKENS; e++) {
            kvcl_cpu_store(a->type_k, kvcl_cpu_ptr(a->k), raw + e, rows->k[e]);
            kvcl_cpu_store(a->type_v, kvcl_cpu_ptr(a->v), raw + e, rows->v[e]);
        }
    }
}

/* ---- attention ----------------------------------------------------------------------------- */

// The block's partial of query i, head h; a block of which it sees nothing stays unwritten.
static void attend(const kvcl_attn_in *in, const kvcl_cpu_attn_task *task, const page_rows *block,
                   uint32_t i, uint32_t h)
{
    kvcl_cpu_attn_pages parts = {.seen = {false}};
    uint32_t n_seen = 0;
    float qs[MAX_DIM];
    kvcl_cpu_attn_query(in, i, h, qs);
    for (uint32_t page = task->first_page; page < task->end_page; page++) {
        uint32_t begin, end, c = page % KVCL_BLOCK;
        if (!kvcl_cpu_attn_sees(in, page, i, &begin, &end))
            continue;
        kvcl_cpu_attn_rows rows = {block[c].k, block[c].v, 0, KVCL_F32, KVCL_F32, in->head_dim};
        kvcl_cpu_attn_page(&rows, qs, c, begin, end, &parts);
        n_seen++;
    }
    if (n_seen > 0)
        kvcl_cpu_attn_merge_pages(&parts, in->head_dim, kvcl_cpu_attn_ml(in, i, h, task->part),
                                  kvcl_cpu_attn_o(in, i, h, task->part));
}

void kvcl_cpu_attn_holo(const void *args, kvcl_cpu_part *p)
{
    const kvcl_attn_holo_args *a = args;
    uint32_t G = a->in.n_q_heads / a->in.n_kv_heads;
    page_rows *block = (page_rows *)(void *)p->scratch;
    for (kvcl_cpu_attn_task task; kvcl_cpu_attn_take(&a->in, p, &task);) {
        for (uint32_t page = task.first_page; page < task.end_page; page++) {
            size_t slot = kvcl_cpu_attn_slot(&a->in, page);
            kvcl_cpu_holo k = kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool, slot, page,
                                               false, task.hk);
            kvcl_cpu_holo v =
                kvcl_cpu_holo_at(&a->shape, a->basis, a->means, a->pool, slot, page, true, task.hk);
            turning turned = turning_of(a->pairing, a->n_rot, a->table, page);
            make_page(&k, &v, &turned, &block[page % KVCL_BLOCK]);
        }
        for (uint32_t i = 0; i < a->in.n; i++)
            for (uint32_t h = task.hk * G; h < (task.hk + 1) * G; h++)
                attend(&a->in, &task, block, i, h);
    }
}
