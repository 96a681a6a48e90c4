/* gguf_meta.c - typed access to a GGUF file's metadata.  See gguf.h. */
#include "gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static const struct {
    const char *name;
    uint8_t bytes;
} types[] = {
    [KVCL_GGUF_U8] = {"u8", 1},         [KVCL_GGUF_I8] = {"i8", 1},
    [KVCL_GGUF_U16] = {"u16", 2},       [KVCL_GGUF_I16] = {"i16", 2},
    [KVCL_GGUF_U32] = {"u32", 4},       [KVCL_GGUF_I32] = {"i32", 4},
    [KVCL_GGUF_F32] = {"f32", 4},       [KVCL_GGUF_BOOL] = {"truth value", 1},
    [KVCL_GGUF_STRING] = {"string", 0}, [KVCL_GGUF_ARRAY] = {"array", 0},
    [KVCL_GGUF_U64] = {"u64", 8},       [KVCL_GGUF_I64] = {"i64", 8},
    [KVCL_GGUF_F64] = {"f64", 8},
};

const char *kvcl_gguf_type_name(uint32_t type)
{
    return type < kvcl_array_len(types) ? types[type].name : "value of unknown type";
}

size_t kvcl_gguf_scalar_bytes(uint32_t type)
{
    return type < kvcl_array_len(types) ? types[type].bytes : 0;
}

char *kvcl_str_show(kvcl_str s, char *out, size_t cap)
{
    size_t n = kvcl_min_size(s.n, cap - 1);
    for (size_t i = 0; i < n; i++)
        out[i] = s.s[i] >= 0x20 && s.s[i] <= 0x7e ? s.s[i] : '?';
    out[n] = 0;
    return out;
}

bool kvcl_str_is(kvcl_str s, const char *text)
{
    return s.n == strlen(text) && memcmp(s.s, text, s.n) == 0;
}

/* n bytes, shifted into `above`: 0, or all ones for a negative number. */
static uint64_t get_bytes(const unsigned char *p, size_t n, uint64_t above)
{
    uint64_t v = above;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static uint64_t get_le(const unsigned char *p, size_t n) { return get_bytes(p, n, 0); }

static bool is_signed(kvcl_gguf_type t)
{
    return t == KVCL_GGUF_I8 || t == KVCL_GGUF_I16 || t == KVCL_GGUF_I32 || t == KVCL_GGUF_I64;
}

static bool is_integer(kvcl_gguf_type t)
{
    return is_signed(t) || t == KVCL_GGUF_U8 || t == KVCL_GGUF_U16 || t == KVCL_GGUF_U32 ||
           t == KVCL_GGUF_U64;
}

/* Element i of an integer value, sign extended; *negative tells how to read it. */
static uint64_t integer_at(const kvcl_gguf_kv *kv, uint64_t i, bool *negative)
{
    size_t size = kvcl_gguf_scalar_bytes((uint32_t)kv->elem_type);
    const unsigned char *p = kv->data + i * size;
    *negative = is_signed(kv->elem_type) && (p[size - 1] & 0x80) != 0;
    return get_bytes(p, size, *negative ? ~UINT64_C(0) : 0);
}

static double real_of(const kvcl_gguf_kv *kv)
{
    if (kv->elem_type == KVCL_GGUF_F32) {
        uint32_t u = (uint32_t)get_le(kv->data, 4);
        float f;
        memcpy(&f, &u, sizeof f);
        return (double)f;
    }
    uint64_t u = get_le(kv->data, 8);
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

static kvcl_status wrong_type(const kvcl_gguf *g, const char *key, const kvcl_gguf_kv *kv,
                              const char *want)
{
    return kvcl_fail(g->ctx, KVCL_E_FORMAT, "%s: %s is a %s, it must be %s", g->path, key,
                     kvcl_gguf_type_name((uint32_t)kv->type), want);
}

kvcl_status kvcl_gguf_require(const kvcl_gguf *g, const char *key)
{
    if (kvcl_gguf_find(g, key))
        return KVCL_OK;
    return kvcl_fail(g->ctx, KVCL_E_FORMAT,
                     "%s: the metadata key %s is missing; convert the model again", g->path, key);
}

static kvcl_status u32_at(const kvcl_gguf *g, const char *key, const kvcl_gguf_kv *kv, uint64_t i,
                          uint32_t *out)
{
    bool negative;
    uint64_t v = integer_at(kv, i, &negative);
    if (negative || v > UINT32_MAX)
        return kvcl_fail(g->ctx, KVCL_E_FORMAT, "%s: %s is %s, out of range", g->path, key,
                         negative ? "negative" : "above 4294967295");
    *out = (uint32_t)v;
    return KVCL_OK;
}

kvcl_status kvcl_gguf_get_u32(const kvcl_gguf *g, const char *key, uint32_t *out)
{
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (!kv)
        return KVCL_OK;
    if (!is_integer(kv->type))
        return wrong_type(g, key, kv, "an integer");
    return u32_at(g, key, kv, 0, out);
}

kvcl_status kvcl_gguf_get_u32_uniform(const kvcl_gguf *g, const char *key, uint32_t *out)
{
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (!kv)
        return KVCL_OK;
    if (!is_integer(kv->elem_type) || kv->n == 0)
        return wrong_type(g, key, kv, "an integer, or integers for each layer");
    uint32_t first, v;
    KVCL_TRY(u32_at(g, key, kv, 0, &first));
    for (uint64_t i = 1; i < kv->n; i++) {
        KVCL_TRY(u32_at(g, key, kv, i, &v));
        if (v != first)
            return kvcl_fail(g->ctx, KVCL_E_UNSUPPORTED,
                             "%s: %s differs between layers (%u, then %u), which is not supported; "
                             "use a model with equal layers",
                             g->path, key, first, v);
    }
    *out = first;
    return KVCL_OK;
}

kvcl_status kvcl_gguf_get_f32(const kvcl_gguf *g, const char *key, float *out)
{
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (!kv)
        return KVCL_OK;
    if (kv->type != KVCL_GGUF_F32 && kv->type != KVCL_GGUF_F64)
        return wrong_type(g, key, kv, "a real number");
    double d = real_of(kv);
    if (!(fabs(d) <= 3.4e38))
        return kvcl_fail(g->ctx, KVCL_E_FORMAT, "%s: %s is not a finite number", g->path, key);
    *out = (float)d;
    return KVCL_OK;
}

kvcl_status kvcl_gguf_get_bool(const kvcl_gguf *g, const char *key, bool *out)
{
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (!kv)
        return KVCL_OK;
    if (kv->type != KVCL_GGUF_BOOL)
        return wrong_type(g, key, kv, "a truth value");
    *out = kv->data[0] != 0;
    return KVCL_OK;
}

kvcl_status kvcl_gguf_get_str(const kvcl_gguf *g, const char *key, kvcl_str *out)
{
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (!kv)
        return KVCL_OK;
    if (kv->type != KVCL_GGUF_STRING)
        return wrong_type(g, key, kv, "a string");
    const unsigned char *at = kv->data;
    *out = kvcl_gguf_next_str(&at);
    return KVCL_OK;
}

kvcl_status kvcl_gguf_get_array(const kvcl_gguf *g, const char *key, kvcl_gguf_type type,
                                const kvcl_gguf_kv **out)
{
    const kvcl_gguf_kv *kv = kvcl_gguf_find(g, key);
    if (kv && kv->type != KVCL_GGUF_ARRAY)
        return wrong_type(g, key, kv, "an array");
    if (kv && kv->elem_type != type)
        return kvcl_fail(g->ctx, KVCL_E_FORMAT, "%s: %s is an array of type %s, it must be %s",
                         g->path, key, kvcl_gguf_type_name((uint32_t)kv->elem_type),
                         kvcl_gguf_type_name((uint32_t)type));
    *out = kv;
    return KVCL_OK;
}

kvcl_str kvcl_gguf_next_str(const unsigned char **at)
{
    kvcl_str s = {(const char *)*at + 8, (size_t)get_le(*at, 8)};
    *at += 8 + s.n;
    return s;
}

int32_t kvcl_gguf_i32_at(const kvcl_gguf_kv *kv, uint64_t i)
{
    uint32_t u = (uint32_t)get_le(kv->data + 4 * i, 4);
    int32_t v;
    memcpy(&v, &u, sizeof v);
    return v;
}

bool kvcl_gguf_number(const kvcl_gguf_kv *kv, double *out)
{
    bool negative;
    if (kv->type == KVCL_GGUF_ARRAY || kv->type == KVCL_GGUF_STRING)
        return false;
    if (kv->type == KVCL_GGUF_F32 || kv->type == KVCL_GGUF_F64) {
        *out = real_of(kv);
    } else if (kv->type == KVCL_GGUF_BOOL) {
        *out = kv->data[0] != 0;
    } else {
        uint64_t v = integer_at(kv, 0, &negative);
        *out = negative ? -(double)(0 - v) : (double)v;
    }
    return true;
}

void kvcl_gguf_format(const kvcl_gguf_kv *kv, char *out, size_t cap)
{
    bool negative;
    if (kv->type == KVCL_GGUF_ARRAY) {
        snprintf(out, cap, "[%" PRIu64 " x %s]", kv->n,
                 kvcl_gguf_type_name((uint32_t)kv->elem_type));
    } else if (kv->type == KVCL_GGUF_STRING) {
        const unsigned char *at = kv->data;
        kvcl_str_show(kvcl_gguf_next_str(&at), out, cap);
    } else if (kv->type == KVCL_GGUF_BOOL) {
        snprintf(out, cap, "%s", kv->data[0] ? "true" : "false");
    } else if (is_integer(kv->type)) {
        uint64_t v = integer_at(kv, 0, &negative);
        snprintf(out, cap, "%s%" PRIu64, negative ? "-" : "", negative ? 0 - v : v);
    } else {
        snprintf(out, cap, "%.9g", real_of(kv));
    }
}
