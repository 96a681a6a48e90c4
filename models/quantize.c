/* quantize.c - writes a model file anew with its matrices in another type.  See kvcl.h.
 *
 * The metadata is copied byte for byte, but for general.file_type and general.quantization_version,
 * which go to its end; tensors keep their order.  What stays as it is: vectors, norms' weights, the
 * position table, and rows that are no whole number of blocks. */
#include "mem.h"
#include "model_int.h"

#include <stdio.h>

#define CHUNK_ELEMS (1u << 18) /* values encoded at once, or one row if that is longer */

typedef struct job {
    kvcl_ctx *ctx;
    kvcl_gguf in;
    kvcl_os_out *out;
    size_t pos; /* bytes written */
    kvcl_type type;
    float *values;          /* a chunk expanded */
    unsigned char *encoded; /* the same encoded */
    size_t n_chunk;
    uint64_t done, total;
    kvcl_progress_fn progress;
    void *user;
} job;

static kvcl_status put(job *j, const void *data, size_t n)
{
    j->pos += n;
    return kvcl_os_out_write(j->out, data, n);
}

static kvcl_status put_int(job *j, uint64_t v, size_t n)
{
    unsigned char b[8];
    for (size_t i = 0; i < n; i++)
        b[i] = (unsigned char)(v >> (8 * i));
    return put(j, b, n);
}

static kvcl_status put_str(job *j, const char *s, size_t n)
{
    KVCL_TRY(put_int(j, n, 8));
    return put(j, s, n);
}

static kvcl_status put_padding(job *j)
{
    static const unsigned char zeros[64];
    size_t n = kvcl_align_up(j->pos, j->in.alignment) - j->pos;
    for (size_t k; n > 0; n -= k) {
        k = kvcl_min_size(n, sizeof zeros);
        KVCL_TRY(put(j, zeros, k));
    }
    return KVCL_OK;
}

/* ---- what becomes of a tensor -------------------------------------------------------------- */

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static kvcl_type type_after(const job *j, const kvcl_gguf_tensor *t)
{
    bool stays = t->n_dims < 2 || !ends_in(t->name, "weight") || ends_in(t->name, "_norm.weight") ||
                 strcmp(t->name, "position_embd.weight") == 0 ||
                 t->dims[0] % kvcl_type_block_elems(j->type) != 0;
    return stays ? t->type : j->type;
}

static size_t bytes_after(const job *j, const kvcl_gguf_tensor *t)
{
    return kvcl_type_bytes(type_after(j, t), (size_t)t->n_elems);
}

/* general.file_type of a file whose matrices have this type */
static uint32_t file_type_of(kvcl_type type)
{
    switch (type) {
    case KVCL_F32:
        return 0;
    case KVCL_F16:
        return 1;
    case KVCL_Q4_0:
        return 2;
    case KVCL_Q8_0:
        return 7;
    case KVCL_Q5_0:
        return 8;
    case KVCL_BF16:
        return 32;
    }
    return 0;
}

static kvcl_status check_sources(const job *j)
{
    for (uint32_t i = 0; i < j->in.n_tensors; i++) {
        const kvcl_gguf_tensor *t = &j->in.tensors[i];
        bool again = kvcl_type_is_quantised(t->type) && kvcl_type_is_quantised(j->type) &&
                     t->type != type_after(j, t);
        KVCL_CHECK(j->ctx, !again, KVCL_E_UNSUPPORTED,
                   "%s: tensor '%s' is quantised already (%s); start from the F16 or F32 file, "
                   "errors would add up",
                   j->in.path, t->name, kvcl_type_name(t->type));
    }
    return KVCL_OK;
}

/* ---- header -------------------------------------------------------------------------------- */

static bool is_rewritten(const kvcl_gguf_kv *kv)
{
    return kvcl_str_is(kv->key, "general.file_type") ||
           kvcl_str_is(kv->key, "general.quantization_version") ||
           (kv->key.n > 6 && memcmp(kv->key.s, "split.", 6) == 0); /* the copy is one file */
}

static kvcl_status put_u32_key(job *j, const char *key, uint32_t v)
{
    KVCL_TRY(put_str(j, key, strlen(key)));
    KVCL_TRY(put_int(j, KVCL_GGUF_U32, 4));
    return put_int(j, v, 4);
}

static kvcl_status write_header(job *j)
{
    uint64_t n_kv = 2;
    for (uint32_t i = 0; i < j->in.n_kv; i++)
        n_kv += !is_rewritten(&j->in.kv[i]);
    KVCL_TRY(put(j, "GGUF", 4));
    KVCL_TRY(put_int(j, 3, 4));
    KVCL_TRY(put_int(j, j->in.n_tensors, 8));
    KVCL_TRY(put_int(j, n_kv, 8));
    for (uint32_t i = 0; i < j->in.n_kv; i++) {
        const kvcl_gguf_kv *kv = &j->in.kv[i];
        /* from the key's first byte to the value's last: types and lengths lie between them */
        const unsigned char *key = (const unsigned char *)kv->key.s;
        if (is_rewritten(kv))
            continue;
        KVCL_TRY(put_int(j, kv->key.n, 8));
        KVCL_TRY(put(j, key, (size_t)(kv->data - key) + kv->bytes));
    }
    KVCL_TRY(put_u32_key(j, "general.quantization_version", 2));
    KVCL_TRY(put_u32_key(j, "general.file_type", file_type_of(j->type)));
    size_t offset = 0;
    for (uint32_t i = 0; i < j->in.n_tensors; i++) {
        const kvcl_gguf_tensor *t = &j->in.tensors[i];
        KVCL_TRY(put_str(j, t->name, strlen(t->name)));
        KVCL_TRY(put_int(j, t->n_dims, 4));
        for (uint32_t d = 0; d < t->n_dims; d++)
            KVCL_TRY(put_int(j, t->dims[d], 8));
        KVCL_TRY(put_int(j, (uint32_t)type_after(j, t), 4));
        KVCL_TRY(put_int(j, offset, 8));
        offset = kvcl_align_up(offset + bytes_after(j, t), j->in.alignment);
    }
    return put_padding(j);
}

/* ---- tensors ------------------------------------------------------------------------------- */

/* Rows `row_bytes` apart are encoded a chunk of whole rows at a time. */
static kvcl_status write_encoded(job *j, const kvcl_gguf_tensor *t)
{
    size_t row = (size_t)t->dims[0], n = (size_t)t->n_elems, step = j->n_chunk / row * row;
    for (size_t at = 0, k; at < n; at += k) {
        k = kvcl_min_size(step, n - at);
        kvcl_dequantise(t->type, t->data + kvcl_type_bytes(t->type, at), k, j->values);
        KVCL_CHECK(j->ctx, kvcl_quantise(j->type, j->values, k, j->encoded), KVCL_E_FORMAT,
                   "%s: tensor '%s' has a value that is not finite or too large for %s", j->in.path,
                   t->name, kvcl_type_name(j->type));
        KVCL_TRY(put(j, j->encoded, kvcl_type_bytes(j->type, k)));
        j->done += kvcl_type_bytes(t->type, k);
        if (j->progress)
            j->progress(j->user, j->done, j->total);
    }
    return KVCL_OK;
}

static kvcl_status write_tensors(job *j)
{
    for (uint32_t i = 0; i < j->in.n_tensors; i++) {
        const kvcl_gguf_tensor *t = &j->in.tensors[i];
        if (type_after(j, t) == t->type) {
            KVCL_TRY(put(j, t->data, t->bytes));
            j->done += t->bytes;
            if (j->progress)
                j->progress(j->user, j->done, j->total);
        } else {
            KVCL_TRY(write_encoded(j, t));
        }
        KVCL_TRY(put_padding(j));
    }
    return KVCL_OK;
}

static kvcl_status open_job(job *j, const char *in_path)
{
    void *p;
    KVCL_TRY(kvcl_gguf_open(j->ctx, in_path, &j->in));
    KVCL_TRY(check_sources(j));
    j->n_chunk = CHUNK_ELEMS;
    for (uint32_t i = 0; i < j->in.n_tensors; i++) {
        j->n_chunk = kvcl_max_size(j->n_chunk, (size_t)j->in.tensors[i].dims[0]);
        j->total += j->in.tensors[i].bytes;
    }
    KVCL_TRY(kvcl_mem_array(j->ctx, j->n_chunk, sizeof(float), "tensor values", &p));
    j->values = p;
    KVCL_TRY(kvcl_mem_array(j->ctx, j->n_chunk, sizeof(float), "encoded tensor values", &p));
    j->encoded = p;
    return KVCL_OK;
}

static void close_job(job *j)
{
    kvcl_os_out_abort(j->out);
    kvcl_mem_free(j->ctx, j->values);
    kvcl_mem_free(j->ctx, j->encoded);
    kvcl_gguf_close(&j->in);
}

kvcl_status kvcl_quantize_file(kvcl_ctx *ctx, const char *in_path, const char *out_path,
                               kvcl_type type, kvcl_progress_fn progress, void *user)
{
    KVCL_CHECK(ctx, in_path && *in_path && out_path && *out_path, KVCL_E_ARG,
               "quantising needs the names of two files");
    KVCL_CHECK(ctx, kvcl_type_is_quantised(type) || type == KVCL_F16 || type == KVCL_F32,
               KVCL_E_ARG, "cannot write tensors as %s; use Q8_0, Q5_0, Q4_0, F16 or F32",
               kvcl_type_name(type) ? kvcl_type_name(type) : "an unknown type");
    KVCL_CHECK(ctx, !kvcl_os_same_file(in_path, out_path), KVCL_E_ARG,
               "%s is the input; give the result another name", out_path);
    job j = {.ctx = ctx, .type = type, .progress = progress, .user = user};
    kvcl_status st;
    KVCL_TRY_GOTO(open_job(&j, in_path));
    KVCL_TRY_GOTO(kvcl_os_out_create(ctx, out_path, &j.out));
    KVCL_TRY_GOTO(write_header(&j));
    KVCL_TRY_GOTO(write_tensors(&j));
    st = kvcl_os_out_commit(j.out);
    j.out = NULL;
fail:
    close_job(&j);
    return st;
}
