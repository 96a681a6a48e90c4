/* cmd_npy_read.c - reading of NumPy's array files; see cmd_npy.h.  The header is a Python literal
 * of three known keys: what of it is looked at is checked, to the last byte of the file. */
#include "cmd_npy.h"
#include "f16.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>

#define MAX_HEADER 65536

/* The text behind 'key': in the header, or NULL. */
static const char *value_of(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    if (!at)
        return NULL;
    at += strlen(key);
    while (*at == ' ')
        at++;
    if (*at++ != ':')
        return NULL;
    while (*at == ' ')
        at++;
    return at;
}

/* Bytes of an element of "'<f4'"; 0 when it is none of those that are read. */
static size_t element_bytes(const char *descr)
{
    static const char *const known[] = {"<f2", "<f4", "<f8"};
    for (size_t i = 0; i < kvcl_array_len(known); i++)
        if ((descr[0] == '\'' || descr[0] == '"') && strncmp(descr + 1, known[i], 3) == 0 &&
            descr[4] == descr[0])
            return (size_t)2 << i;
    return 0;
}

static bool read_shape(const char *at, kvcl_npy_array *a)
{
    if (*at++ != '(')
        return false;
    for (a->n_dims = 0;;) {
        while (*at == ' ' || (*at == ',' && a->n_dims > 0))
            at++;
        if (*at == ')')
            return a->n_dims > 0;
        char *end;
        if (*at < '0' || *at > '9' || a->n_dims == KVCL_NPY_DIMS)
            return false;
        unsigned long long n = strtoull(at, &end, 10);
        if (n > (unsigned long long)1 << 40 || (*end != ',' && *end != ')'))
            return false;
        a->dims[a->n_dims++] = (size_t)n;
        at = end;
    }
}

static float load(const unsigned char *p, size_t bytes)
{
    uint16_t half;
    float single;
    double wide;
    if (bytes == 2) {
        memcpy(&half, p, 2);
        return kvcl_f16_to_f32(half);
    }
    if (bytes == 4) {
        memcpy(&single, p, 4);
        return single;
    }
    memcpy(&wide, p, 8);
    return fabs(wide) <= 3.4e38 ? (float)wide : wide < 0 ? -INFINITY : wide > 0 ? INFINITY : NAN;
}

/* Where the values begin, and the header as a string. */
static kvcl_status read_header(kvcl_ctx *ctx, const char *path, const kvcl_os_map *map, char *text,
                               size_t *begin)
{
    const unsigned char *d = map->data;
    KVCL_CHECK(ctx, map->bytes >= 12 && memcmp(d, "\x93NUMPY", 6) == 0, KVCL_E_FORMAT,
               "%s: no array of NumPy's (.npy)", path);
    KVCL_CHECK(ctx, d[6] >= 1 && d[6] <= 3, KVCL_E_VERSION,
               "%s: version %u of NumPy's format; 1 to 3 are read", path, d[6]);
    size_t len = d[8] | (size_t)d[9] << 8, at = 10;
    if (d[6] > 1) {
        len |= (size_t)d[10] << 16 | (size_t)d[11] << 24;
        at = 12;
    }
    KVCL_CHECK(ctx, len < MAX_HEADER && len <= map->bytes - at, KVCL_E_FORMAT,
               "%s: its header says %zu bytes; the file has %zu", path, len, map->bytes - at);
    memcpy(text, d + at, len);
    text[len] = 0;
    *begin = at + len;
    return KVCL_OK;
}

static kvcl_status read_array(kvcl_ctx *ctx, const char *path, const kvcl_os_map *map, char *text,
                              kvcl_npy_array *out)
{
    size_t begin = 0, n = 1, bytes, want;
    void *p;
    KVCL_TRY(read_header(ctx, path, map, text, &begin));
    const char *descr = value_of(text, "'descr'"), *order = value_of(text, "'fortran_order'");
    const char *shape = value_of(text, "'shape'");
    KVCL_CHECK(ctx, descr && order && shape && read_shape(shape, out), KVCL_E_FORMAT,
               "%s: the header of the array is damaged", path);
    bytes = element_bytes(descr);
    KVCL_CHECK(ctx, bytes, KVCL_E_UNSUPPORTED,
               "%s: elements of type %.12s; '<f2', '<f4' and '<f8' are read", path, descr);
    KVCL_CHECK(ctx, strncmp(order, "False", 5) == 0, KVCL_E_UNSUPPORTED,
               "%s: column-major order; save numpy.ascontiguousarray() of it", path);
    bool ok = true;
    for (size_t i = 0; i < out->n_dims; i++)
        ok = ok && kvcl_mul_size(n, out->dims[i], &n);
    KVCL_CHECK(ctx, ok && kvcl_mul_size(n, bytes, &want) && want == map->bytes - begin,
               KVCL_E_FORMAT, "%s: %zu bytes of values; the header's shape wants another number",
               path, map->bytes - begin);
    KVCL_TRY(kvcl_mem_array(ctx, kvcl_max_size(n, 1), sizeof(float), "the array's values", &p));
    out->values = p;
    for (size_t i = 0; i < n; i++)
        out->values[i] = load(map->data + begin + i * bytes, bytes);
    return KVCL_OK;
}

kvcl_status kvcl_npy_read(kvcl_ctx *ctx, const char *path, kvcl_npy_array *out)
{
    kvcl_os_map map;
    void *text;
    KVCL_TRY(kvcl_os_map_open(ctx, path, &map));
    kvcl_status st = kvcl_mem_alloc(ctx, MAX_HEADER + 1, "an array's header", &text);
    if (st == KVCL_OK) {
        st = read_array(ctx, path, &map, text, out);
        kvcl_mem_free(ctx, text);
    }
    kvcl_os_map_close(&map);
    return st;
}
