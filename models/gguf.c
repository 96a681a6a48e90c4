/* gguf.c - the GGUF reader: header, metadata, tensor list.  See gguf.h; values: gguf_meta.c. */
#include "gguf.h"

#include "mem.h"
#include "strmap.h"

/* Smallest bytes of one entry: what a count is held against before anything is allocated. */
#define MIN_KV_BYTES (8 + 1 + 4 + 1)
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 8 + 4 + 8)

#define SHOW_CAP 80

/* A place in the mapped file.  Reads fail softly: the caller turns `false` into its sentence. */
typedef struct cursor {
    const unsigned char *at, *end;
} cursor;

static size_t bytes_left(const cursor *c) { return (size_t)(c->end - c->at); }

static bool read_bytes(cursor *c, void *out, size_t n)
{
    if (n > bytes_left(c))
        return false;
    memcpy(out, c->at, n);
    c->at += n;
    return true;
}

static bool read_u32(cursor *c, uint32_t *out)
{
    unsigned char b[4];
    if (!read_bytes(c, b, 4))
        return false;
    *out = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return true;
}

static bool read_u64(cursor *c, uint64_t *out)
{
    uint32_t lo, hi;
    if (!read_u32(c, &lo) || !read_u32(c, &hi))
        return false;
    *out = (uint64_t)hi << 32 | lo;
    return true;
}

/* Every sentence of this file begins with the path. */
#define FAIL(g, st, fmt, ...) kvcl_fail((g)->ctx, (st), "%s: " fmt, (g)->path, __VA_ARGS__)
#define BAD(g, fmt, ...) FAIL((g), KVCL_E_FORMAT, fmt, __VA_ARGS__)

static kvcl_status truncated(const kvcl_gguf *g, const char *where)
{
    return BAD(g,
               "the file ends inside %s (%zu bytes): it is truncated or damaged; copy or "
               "download it again",
               where, g->map.bytes);
}

/* A string that is there in full; n_max is the limit that `what` has. */
static kvcl_status read_str(const kvcl_gguf *g, cursor *c, const char *what, size_t n_max,
                            kvcl_str *out)
{
    uint64_t n;
    if (!read_u64(c, &n))
        return truncated(g, what);
    if (n > n_max)
        return BAD(g, "%s claims a length of %llu bytes, the limit is %zu: the file is damaged",
                   what, (unsigned long long)n, n_max);
    if (n > bytes_left(c))
        return truncated(g, what);
    *out = (kvcl_str){(const char *)c->at, (size_t)n};
    c->at += n;
    return KVCL_OK;
}

/* ---- header -------------------------------------------------------------------------------- */

static kvcl_status check_version(const kvcl_gguf *g)
{
    uint32_t v = g->version;
    if (v != 0 && (v & 0xffffu) == 0)
        return FAIL(g, KVCL_E_VERSION,
                    "a big-endian GGUF file (version bytes %08x), which is not supported; convert "
                    "it to little-endian",
                    v);
    if (v == 1)
        return FAIL(g, KVCL_E_VERSION,
                    "GGUF version %u is not supported (versions 2 and 3 are); convert the model "
                    "again with a current converter",
                    v);
    if (v != 2 && v != 3)
        return FAIL(g, KVCL_E_VERSION,
                    "GGUF version %u is not supported (versions 2 and 3 are); the file is damaged "
                    "or newer than this program",
                    v);
    return KVCL_OK;
}

static kvcl_status read_header(kvcl_gguf *g, cursor *c)
{
    char magic[4];
    if (!read_bytes(c, magic, 4))
        return truncated(g, "the header");
    if (memcmp(magic, "GGUF", 4) != 0)
        return BAD(g,
                   "not a GGUF file (it does not begin with \"%s\"); give a model in GGUF "
                   "format",
                   "GGUF");
    if (!read_u32(c, &g->version))
        return truncated(g, "the header");
    KVCL_TRY(check_version(g));
    uint64_t n_tensors, n_kv;
    if (!read_u64(c, &n_tensors) || !read_u64(c, &n_kv))
        return truncated(g, "the header");
    if (n_kv > KVCL_GGUF_MAX_KV || n_kv > bytes_left(c) / MIN_KV_BYTES)
        return BAD(g,
                   "the header claims %llu metadata keys, more than the file can hold (limit "
                   "%u): the file is truncated or damaged",
                   (unsigned long long)n_kv, KVCL_GGUF_MAX_KV);
    if (n_tensors > KVCL_GGUF_MAX_TENSORS || n_tensors > bytes_left(c) / MIN_TENSOR_BYTES)
        return BAD(g,
                   "the header claims %llu tensors, more than the file can hold (limit %u): the "
                   "file is truncated or damaged",
                   (unsigned long long)n_tensors, KVCL_GGUF_MAX_TENSORS);
    g->n_kv = (uint32_t)n_kv;
    g->n_tensors = (uint32_t)n_tensors;
    return KVCL_OK;
}

/* ---- metadata ------------------------------------------------------------------------------ */

static kvcl_status skip_strings(const kvcl_gguf *g, cursor *c, const char *key, uint64_t n)
{
    if (n > bytes_left(c) / 8)
        return truncated(g, key);
    for (uint64_t i = 0; i < n; i++) {
        kvcl_str s;
        KVCL_TRY(read_str(g, c, key, KVCL_GGUF_MAX_STRING, &s));
    }
    return KVCL_OK;
}

static kvcl_status skip_scalars(const kvcl_gguf *g, cursor *c, const char *key, kvcl_gguf_type type,
                                uint64_t n)
{
    size_t size = kvcl_gguf_scalar_bytes((uint32_t)type);
    if (n > bytes_left(c) / size)
        return truncated(g, key);
    for (uint64_t i = 0; type == KVCL_GGUF_BOOL && i < n; i++) {
        if (c->at[i] > 1)
            return BAD(g, "metadata key '%s': a truth value of %u, only 0 and 1 are defined", key,
                       c->at[i]);
    }
    c->at += n * size;
    return KVCL_OK;
}

static kvcl_status check_value_type(const kvcl_gguf *g, const char *key, uint32_t type)
{
    return type <= KVCL_GGUF_F64
               ? KVCL_OK
               : BAD(g, "metadata key '%s' has the unknown value type %u: the file is damaged", key,
                     type);
}

static kvcl_status read_value(const kvcl_gguf *g, cursor *c, const char *key, kvcl_gguf_kv *kv)
{
    uint32_t type;
    if (!read_u32(c, &type))
        return truncated(g, key);
    KVCL_TRY(check_value_type(g, key, type));
    kv->type = kv->elem_type = (kvcl_gguf_type)type;
    kv->n = 1;
    if (kv->type == KVCL_GGUF_ARRAY) {
        if (!read_u32(c, &type) || !read_u64(c, &kv->n))
            return truncated(g, key);
        KVCL_TRY(check_value_type(g, key, type));
        kv->elem_type = (kvcl_gguf_type)type;
        if (kv->elem_type == KVCL_GGUF_ARRAY)
            return BAD(g, "metadata key '%s' is an array of arrays, which is not supported", key);
        if (kv->n > KVCL_GGUF_MAX_ARRAY)
            return BAD(g, "metadata key '%s' claims an array of %llu elements, the limit is %u",
                       key, (unsigned long long)kv->n, KVCL_GGUF_MAX_ARRAY);
    }
    kv->data = c->at;
    KVCL_TRY(kv->elem_type == KVCL_GGUF_STRING ? skip_strings(g, c, key, kv->n)
                                               : skip_scalars(g, c, key, kv->elem_type, kv->n));
    kv->bytes = (size_t)(c->at - kv->data);
    return KVCL_OK;
}

static bool printable(kvcl_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] <= 0x20 || s.s[i] > 0x7e)
            return false;
    }
    return s.n > 0;
}

static kvcl_status read_metadata(kvcl_gguf *g, cursor *c)
{
    void *p;
    KVCL_TRY(kvcl_mem_array(g->ctx, g->n_kv, sizeof *g->kv, "the model's metadata", &p));
    g->kv = p;
    KVCL_TRY(kvcl_strmap_create(g->ctx, g->n_kv, &g->kv_index));
    for (uint32_t i = 0; i < g->n_kv; i++) {
        kvcl_gguf_kv *kv = &g->kv[i];
        char key[SHOW_CAP];
        KVCL_TRY(read_str(g, c, "a metadata key", KVCL_GGUF_MAX_KEY, &kv->key));
        kvcl_str_show(kv->key, key, sizeof key);
        if (!printable(kv->key))
            return BAD(g, "metadata key %u ('%s') is not plain text: the file is damaged", i, key);
        if (kvcl_strmap_put(g->kv_index, kv->key, i) != KVCL_STRMAP_NONE)
            return BAD(g, "metadata key '%s' appears twice", key);
        KVCL_TRY(read_value(g, c, key, kv));
    }
    const char *key = "general.alignment";
    g->alignment = 32;
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (kv && kv->type != KVCL_GGUF_U32)
        return BAD(g, "%s is a %s, it must be a u32", key, kvcl_gguf_type_name(kv->type));
    KVCL_TRY(kvcl_gguf_get_u32(g, key, &g->alignment));
    uint32_t a = g->alignment;
    if (a < 8 || a > KVCL_GGUF_MAX_ALIGN || (a & (a - 1)) != 0)
        return BAD(g, "%s is %u, it must be a power of two from 8 to %u", key, a,
                   KVCL_GGUF_MAX_ALIGN);
    return KVCL_OK;
}

/* ---- tensors ------------------------------------------------------------------------------- */

static kvcl_status read_tensor_name(kvcl_gguf *g, cursor *c, uint32_t i, kvcl_gguf_tensor *t)
{
    kvcl_str s = {0};
    char show[SHOW_CAP];
    KVCL_TRY(read_str(g, c, "a tensor name", KVCL_GGUF_NAME_CAP - 1, &s));
    kvcl_str_show(s, show, sizeof show);
    if (!printable(s))
        return BAD(g, "the name of tensor %u ('%s') is not plain text: the file is damaged", i,
                   show);
    if (kvcl_strmap_put(g->tensor_index, s, i) != KVCL_STRMAP_NONE)
        return BAD(g, "tensor '%s' appears twice", show);
    memcpy(t->name, s.s, s.n);
    t->name[s.n] = 0;
    return KVCL_OK;
}

/* Dimensions, and the number of elements with an overflow check at each product. */
static kvcl_status read_tensor_dims(kvcl_gguf *g, cursor *c, kvcl_gguf_tensor *t)
{
    if (!read_u32(c, &t->n_dims))
        return truncated(g, "the list of tensors");
    if (t->n_dims < 1 || t->n_dims > KVCL_GGUF_MAX_DIMS)
        return BAD(g, "tensor '%s' has %u dimensions, 1 to %d are possible", t->name, t->n_dims,
                   KVCL_GGUF_MAX_DIMS);
    t->n_elems = 1;
    for (uint32_t d = 0; d < KVCL_GGUF_MAX_DIMS; d++) {
        t->dims[d] = 1;
        if (d < t->n_dims && !read_u64(c, &t->dims[d]))
            return truncated(g, "the list of tensors");
        if (t->dims[d] == 0)
            return BAD(g, "tensor '%s' has an empty dimension", t->name);
        if (__builtin_mul_overflow(t->n_elems, t->dims[d], &t->n_elems) ||
            t->n_elems > (uint64_t)INT64_MAX)
            return BAD(g,
                       "tensor '%s' claims more elements than can be counted: the file is "
                       "damaged",
                       t->name);
    }
    return KVCL_OK;
}

static kvcl_status read_tensor_type(kvcl_gguf *g, cursor *c, kvcl_gguf_tensor *t)
{
    uint32_t type;
    if (!read_u32(c, &type))
        return truncated(g, "the list of tensors");
    const char *name = kvcl_type_gguf_name(type);
    if (!name)
        return FAIL(g, KVCL_E_UNSUPPORTED,
                    "tensor '%s' has type number %u, which this program does not know; it reads "
                    "F32, F16, BF16, Q8_0, Q5_0 and Q4_0",
                    t->name, type);
    if (!kvcl_type_known(type))
        return FAIL(g, KVCL_E_UNSUPPORTED,
                    "tensor '%s' has type %s, which is not supported; use a file with F32, F16, "
                    "BF16, Q8_0, Q5_0 or Q4_0 tensors",
                    t->name, name);
    t->type = (kvcl_type)type;
    uint32_t elems = kvcl_type_block_elems(t->type);
    if (t->dims[0] % elems != 0)
        return BAD(g, "tensor '%s' (%s) has rows of %llu elements, not a multiple of %u", t->name,
                   name, (unsigned long long)t->dims[0], elems);
    uint64_t bytes;
    if (__builtin_mul_overflow(t->n_elems / elems, (uint64_t)kvcl_type_block_bytes(t->type),
                               &bytes) ||
        bytes > SIZE_MAX / 2)
        return BAD(g, "tensor '%s' claims more bytes than can be counted: the file is damaged",
                   t->name);
    t->bytes = (size_t)bytes;
    return KVCL_OK;
}

static kvcl_status read_tensors(kvcl_gguf *g, cursor *c)
{
    void *p;
    KVCL_TRY(kvcl_mem_array(g->ctx, g->n_tensors, sizeof *g->tensors, "the list of tensors", &p));
    g->tensors = p;
    KVCL_TRY(kvcl_strmap_create(g->ctx, g->n_tensors, &g->tensor_index));
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        kvcl_gguf_tensor *t = &g->tensors[i];
        uint64_t offset;
        KVCL_TRY(read_tensor_name(g, c, i, t));
        KVCL_TRY(read_tensor_dims(g, c, t));
        KVCL_TRY(read_tensor_type(g, c, t));
        if (!read_u64(c, &offset))
            return truncated(g, "the list of tensors");
        if (offset > g->map.bytes)
            return BAD(g,
                       "tensor '%s' starts at offset %llu, beyond the end of the file: the file "
                       "is truncated or damaged",
                       t->name, (unsigned long long)offset);
        t->offset = (size_t)offset;
    }
    return KVCL_OK;
}

/* Tensors must lie one behind the other, in file order and padded: then none overlaps another and
 * none leaves the file. */
static kvcl_status place_tensors(kvcl_gguf *g, const cursor *c)
{
    size_t used = (size_t)(c->at - g->map.data), expect = 0;
    g->data_offset = kvcl_align_up(used, g->alignment);
    if (g->n_tensors > 0 && g->data_offset > g->map.bytes)
        return truncated(g, "the padding before the tensor data");
    size_t blob = g->n_tensors ? g->map.bytes - g->data_offset : 0;
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        kvcl_gguf_tensor *t = &g->tensors[i];
        size_t end;
        if (t->offset % g->alignment != 0)
            return BAD(g, "tensor '%s' starts at offset %zu, not a multiple of the alignment %u",
                       t->name, t->offset, g->alignment);
        if (t->offset < expect)
            return BAD(g, "tensor '%s' at offset %zu overlaps tensor '%s', which ends at %zu",
                       t->name, t->offset, g->tensors[i - 1].name, expect);
        if (t->offset > expect)
            return BAD(g, "tensor '%s' starts at offset %zu where %zu is due: the file is damaged",
                       t->name, t->offset, expect);
        if (!kvcl_add_size(t->offset, t->bytes, &end) || end > blob)
            return BAD(g,
                       "tensor '%s' needs %zu bytes at offset %zu, the file holds %zu there: it "
                       "is truncated; copy or download it again",
                       t->name, t->bytes, t->offset, t->offset < blob ? blob - t->offset : 0);
        t->offset += g->data_offset;
        t->data = g->map.data + t->offset;
        expect = kvcl_align_up(end, g->alignment);
    }
    return KVCL_OK;
}

kvcl_status kvcl_gguf_open_one(kvcl_ctx *ctx, const char *path, kvcl_gguf *out)
{
    kvcl_gguf *g = out;
    *g = (kvcl_gguf){.ctx = ctx};
    kvcl_status st;
    KVCL_TRY_GOTO(kvcl_mem_strdup(ctx, path, &g->path));
    KVCL_TRY_GOTO(kvcl_os_map_open(ctx, path, &g->map));
    g->file_bytes = g->map.bytes;
    cursor c = {g->map.data, g->map.data + g->map.bytes};
    KVCL_TRY_GOTO(read_header(g, &c));
    KVCL_TRY_GOTO(read_metadata(g, &c));
    KVCL_TRY_GOTO(read_tensors(g, &c));
    KVCL_TRY_GOTO(place_tensors(g, &c));
    return KVCL_OK;
fail:
    kvcl_gguf_close(g);
    return st;
}

void kvcl_gguf_close(kvcl_gguf *g)
{
    if (!g || !g->ctx)
        return;
    for (uint32_t i = 0; i < g->n_parts; i++)
        kvcl_gguf_close(&g->parts[i]);
    kvcl_mem_free(g->ctx, g->parts);
    kvcl_strmap_free(g->ctx, g->kv_index);
    kvcl_strmap_free(g->ctx, g->tensor_index);
    kvcl_mem_free(g->ctx, g->kv);
    kvcl_mem_free(g->ctx, g->tensors);
    kvcl_mem_free(g->ctx, g->path);
    kvcl_os_map_close(&g->map);
    *g = (kvcl_gguf){0};
}

const kvcl_gguf_kv *kvcl_gguf_find(const kvcl_gguf *g, const char *key)
{
    uint32_t i = kvcl_strmap_get(g->kv_index, (kvcl_str){key, strlen(key)});
    return i == KVCL_STRMAP_NONE ? NULL : &g->kv[i];
}

const kvcl_gguf_tensor *kvcl_gguf_tensor_find(const kvcl_gguf *g, const char *name)
{
    uint32_t i = kvcl_strmap_get(g->tensor_index, (kvcl_str){name, strlen(name)});
    return i == KVCL_STRMAP_NONE ? NULL : &g->tensors[i];
}
