/* gguf.h - reads a GGUF file (versions 2 and 3, little-endian) without trusting a byte of it.
 *
 * The file stays mapped as long as the object lives; strings and tensor data point into it.  Every
 * count, length and offset is compared with the bytes that are really there before anything is
 * allocated or read. */
#ifndef KVCL_GGUF_H
#define KVCL_GGUF_H

#include "os.h"
#include "types.h"

/* Types of metadata values, numbered as in the file. */
typedef enum kvcl_gguf_type {
    KVCL_GGUF_U8 = 0,
    KVCL_GGUF_I8 = 1,
    KVCL_GGUF_U16 = 2,
    KVCL_GGUF_I16 = 3,
    KVCL_GGUF_U32 = 4,
    KVCL_GGUF_I32 = 5,
    KVCL_GGUF_F32 = 6,
    KVCL_GGUF_BOOL = 7,
    KVCL_GGUF_STRING = 8,
    KVCL_GGUF_ARRAY = 9,
    KVCL_GGUF_U64 = 10,
    KVCL_GGUF_I64 = 11,
    KVCL_GGUF_F64 = 12
} kvcl_gguf_type;

/* Limits; real files stay far below. */
#define KVCL_GGUF_MAX_KV 65536u
#define KVCL_GGUF_MAX_TENSORS 65536u
#define KVCL_GGUF_MAX_KEY 1024u
#define KVCL_GGUF_MAX_STRING (16u << 20)
#define KVCL_GGUF_MAX_ARRAY (64u << 20)
#define KVCL_GGUF_MAX_ALIGN 65536u
#define KVCL_GGUF_MAX_DIMS 4
#define KVCL_GGUF_NAME_CAP 64

typedef struct kvcl_str {
    const char *s; /* not terminated */
    size_t n;
} kvcl_str;

typedef struct kvcl_gguf_kv {
    kvcl_str key;
    kvcl_gguf_type type;      /* ARRAY: see elem_type */
    kvcl_gguf_type elem_type; /* type itself for scalars */
    uint64_t n;               /* elements; 1 for scalars */
    const unsigned char *data;
    size_t bytes; /* of data */
} kvcl_gguf_kv;

typedef struct kvcl_gguf_tensor {
    char name[KVCL_GGUF_NAME_CAP];
    kvcl_type type;
    uint32_t n_dims;
    uint64_t
        dims[KVCL_GGUF_MAX_DIMS]; /* dims[0] is contiguous: the row length; unused ones are 1 */
    uint64_t n_elems;
    size_t bytes;
    size_t offset; /* in the file */
    const unsigned char *data;
} kvcl_gguf_tensor;

typedef struct kvcl_strmap kvcl_strmap;

typedef struct kvcl_gguf kvcl_gguf;
struct kvcl_gguf {
    kvcl_ctx *ctx;
    char *path;
    kvcl_os_map map;
    uint32_t version, alignment;
    uint32_t n_kv, n_tensors;
    kvcl_gguf_kv *kv;          /* in file order */
    kvcl_gguf_tensor *tensors; /* in file order */
    kvcl_strmap *kv_index, *tensor_index;
    size_t data_offset; /* of the tensor data in the file */
    size_t file_bytes;  /* of all parts */
    kvcl_gguf *parts;   /* [n_parts] the further files of a split model, whose tensors are in our
                           list too */
    uint32_t n_parts;
};

/* Opens and checks; on failure *out is closed.  path borrows.  The sentence of a failure begins
 * with the path.  E_IO, E_FORMAT, E_VERSION, E_UNSUPPORTED (a tensor type), E_MEM.
 * Cost: reads the header once; memory about 100 bytes per key and 200 per tensor. */
kvcl_status kvcl_gguf_open(kvcl_ctx *ctx, const char *path, kvcl_gguf *out);
/* The same without the further parts of a split model, whose first file open() takes. */
kvcl_status kvcl_gguf_open_one(kvcl_ctx *ctx, const char *path, kvcl_gguf *out);
void kvcl_gguf_close(kvcl_gguf *g);

/* NULL when there is none. */
const kvcl_gguf_kv *kvcl_gguf_find(const kvcl_gguf *g, const char *key);
const kvcl_gguf_tensor *kvcl_gguf_tensor_find(const kvcl_gguf *g, const char *name);

/* Getters of one value: an absent key leaves *out alone; a value of another type or out of range is
 * E_FORMAT with a sentence.  Integers of every width are taken; f32 takes f64 too. */
kvcl_status kvcl_gguf_get_u32(const kvcl_gguf *g, const char *key, uint32_t *out);
kvcl_status kvcl_gguf_get_f32(const kvcl_gguf *g, const char *key, float *out);
kvcl_status kvcl_gguf_get_bool(const kvcl_gguf *g, const char *key, bool *out);
kvcl_status kvcl_gguf_get_str(const kvcl_gguf *g, const char *key, kvcl_str *out);
/* An array with elements of `type`; *out stays NULL when the key is absent. */
kvcl_status kvcl_gguf_get_array(const kvcl_gguf *g, const char *key, kvcl_gguf_type type,
                                const kvcl_gguf_kv **out);
/* Like get_u32, but also takes an array of integers whose elements are all equal; E_UNSUPPORTED
 * when they differ. */
kvcl_status kvcl_gguf_get_u32_uniform(const kvcl_gguf *g, const char *key, uint32_t *out);
/* E_FORMAT when the key is absent. */
kvcl_status kvcl_gguf_require(const kvcl_gguf *g, const char *key);

/* Walks the strings of a string array: *at starts at kv->data and moves on. */
kvcl_str kvcl_gguf_next_str(const unsigned char **at);
int32_t kvcl_gguf_i32_at(const kvcl_gguf_kv *kv, uint64_t i);

/* The value of a number or truth value as it is; false for strings and arrays. */
bool kvcl_gguf_number(const kvcl_gguf_kv *kv, double *out);

/* A value as text for people, cut to cap: "4096", "true", "llama", "[8192 x string]". */
void kvcl_gguf_format(const kvcl_gguf_kv *kv, char *out, size_t cap);
/* Name of a value type: "u32", "string". */
const char *kvcl_gguf_type_name(uint32_t type);
/* Bytes of one scalar of this type; 0 for strings, arrays and unknown numbers. */
size_t kvcl_gguf_scalar_bytes(uint32_t type);

/* s with everything but printable ASCII replaced, cut to cap, terminated; returns out. */
char *kvcl_str_show(kvcl_str s, char *out, size_t cap);
bool kvcl_str_is(kvcl_str s, const char *text);

#endif
