/* cl_int.h - the inside of the OpenCL backend: what a device and a queue hold, programs, matrices.
 *
 * An op's host half kvcl_cl_<name>() stands in cl/cl_<stem>.c; it launches kernels of cl/<stem>.cl
 * through cl_launch.h.  A program's source is the defines below, cl/shared.h, cl/prelude.cl,
 * cl/pages.cl, then cl/<stem>.cl. */
#ifndef KVCL_CL_INT_H
#define KVCL_CL_INT_H

#include "cl_caps.h"
#include "dev.h"

#include <stdatomic.h>

/* Kernel files: one program each, or one per value of `spec`. */
#define KVCL_CL_STEMS(X) \
    X(embed)             \
    X(norm)              \
    X(matvec)            \
    X(matvec_wide)       \
    X(defer)             \
    X(matmul)            \
    X(glu)               \
    X(selftest)          \
    X(rope)              \
    X(kv)                \
    X(gram)              \
    X(attn)              \
    X(attn_vec)          \
    X(attn_warp)         \
    X(fwht)              \
    X(quant)             \
    X(quant_vec)         \
    X(attn_quant)        \
    X(attn_quant_vec)    \
    X(attn_quant_mma)    \
    X(block)             \
    X(block_vec)         \
    X(spectral)          \
    X(spectral_vec)      \
    X(attn_spectral)     \
    X(attn_spectral_vec) \
    X(attn_spectral_mma) \
    X(holo)              \
    X(rans)              \
    X(rest)              \
    X(svd)

typedef enum kvcl_cl_stem {
#define KVCL_CL_STEM_ENUM(stem) KVCL_CL_STEM_##stem,
    KVCL_CL_STEMS(KVCL_CL_STEM_ENUM)
#undef KVCL_CL_STEM_ENUM
        KVCL_CL_N_STEMS
} kvcl_cl_stem;

/* Defines that every kernel file sees:
 *   KVCL_SPEC           the number given to kvcl_cl_begin: what the host half wants to be constant
 *                       at build time (an element type, a head dimension, or several packed in one
 *                       number); one program is built for each value in use
 *   KVCL_VECTOR_SHAPE   1: CPU device, one work-item does a vector's work; 0: lane shape
 *   KVCL_PTX            1: NVIDIA inline assembly may be used   (0 in the base variant)
 *   KVCL_SUBGROUPS      1: cl_khr_subgroups / cl_intel_subgroups may be used   (0 in the base)
 *   KVCL_X86            1: clang's names for instructions of x86 may be used    (0 in the base)
 *   KVCL_NVIDIA         1: the device is NVIDIA's (a tuning hint; no language feature)
 * A program whose build with features fails is built again as the base variant, with a warning. */

#define KVCL_CL_MAX_PROGRAMS 256 /* (stem, spec) pairs of a device */
#define KVCL_CL_MAX_KERNELS 384  /* kernels of a queue */
#define KVCL_CL_MAX_ARGS 48      /* arguments of a kernel */

typedef struct kvcl_cl_program {
    kvcl_cl_stem stem;
    uint32_t spec;
    uint32_t features; /* kvcl_cl_feature that it was built with */
    cl_program program;
} kvcl_cl_program;

typedef struct kvcl_cl_blas kvcl_cl_blas;   /* cl_clblast.c */
typedef struct kvcl_cl_defer kvcl_cl_defer; /* cl_defer.c */

/* kvcl_dev.impl */
typedef struct kvcl_cl_dev {
    kvcl_dev *dev;
    kvcl_cl_lib cl;
    kvcl_cl_caps caps;
    cl_platform_id platform;
    cl_device_id device;
    cl_context context;
    atomic_uint mem_epoch;  /* grows with each freed buffer: remembered arguments are then stale */
    atomic_flag build_lock; /* held while a program is looked up or built */
    uint32_t n_programs;
    kvcl_cl_program programs[KVCL_CL_MAX_PROGRAMS];
    bool cache_off;               /* the program cache's folder cannot be used */
    kvcl_cl_blas *blas;           /* NULL: not tried yet */
    atomic_uintptr_t defer_owner; /* the queue that defers its ops; 0: none */
} kvcl_cl_dev;

/* One kernel object of one queue and the arguments it holds, so that equal ones are not set again.
 */
typedef struct kvcl_cl_entry {
    kvcl_cl_stem stem;
    uint32_t spec;
    const char *name;
    cl_kernel kernel;
    uint32_t features;
    uint32_t mem_epoch;
    size_t max_group; /* CL_KERNEL_WORK_GROUP_SIZE */
    struct {
        uint8_t bytes; /* 0: not set yet; 255: local memory of `value` bytes */
        uint64_t value;
    } args[KVCL_CL_MAX_ARGS];
} kvcl_cl_entry;

/* A buffer as this backend makes it. */
typedef struct kvcl_cl_buf {
    kvcl_buf base;
    uint64_t address; /* on the device; 0: not asked for yet (cl_defer.c) */
} kvcl_cl_buf;

/* kvcl_queue.impl */
typedef struct kvcl_cl_queue {
    kvcl_cl_dev *d;
    cl_command_queue queue;
    uint32_t n_unflushed; /* launches since the last clFlush */
    uint32_t n_kernels;
    kvcl_cl_entry kernels[KVCL_CL_MAX_KERNELS];
    kvcl_cl_defer *defer; /* NULL: launches one by one */
    bool no_defer;        /* that has been decided */
    kvcl_status sticky;   /* first failure since the last queue_wait */
    char sentence[256];
} kvcl_cl_queue;

static inline kvcl_cl_queue *kvcl_cl_of(const kvcl_queue *q) { return q->impl; }
static inline const kvcl_cl_caps *kvcl_cl_caps_of(const kvcl_queue *q)
{
    return &kvcl_cl_of(q)->d->caps;
}

/* ---- programs (cl_program.c, cl_cache.c) ---------------------------------------------------- */

/* The built program of (stem, spec): from the device's list, the disk cache, or its source.
 * E_BUILD with the first line of the build log when it does not compile. */
kvcl_status kvcl_cl_program_get(kvcl_cl_dev *d, kvcl_cl_stem stem, uint32_t spec,
                                kvcl_cl_program *out);
void kvcl_cl_programs_free(kvcl_cl_dev *d);

/* ---- matrices (cl_mat.c) --------------------------------------------------------------------- */

/* Layout of part i of a matrix in its buffer, at most 2 GiB, so that 32-bit numbers index its
 * elements (offsets in bytes, multiples of 256; `rows` rows; row r of the part is row row0 + r of
 * the matrix):
 *
 *   F32 F16 BF16  q: rows as in the file, contiguous [rows][cols]; h, d unused
 *   Q8_0          q: int8 [rows][cols]             d: half [rows][cols / 32]
 *   Q4_0          q: nibbles [rows][cols / 32][16] d: half [rows][cols / 32]
 *   Q5_0          q: nibbles likewise              h: uint [rows][cols / 32] fifth bits
 *                                                  d: half [rows][cols / 32]
 *
 * Nibbles and fifth bits keep the order inside a block that the file has (engine/types.h): element
 * e < 16 is the low half of byte e, e >= 16 the high half of byte e - 16; bit e of h.  So the
 * 32-bit word w of a block holds group w in its low nibbles and group w + 4 in its high ones. */
typedef struct kvcl_cl_part {
    kvcl_buf *buf;
    uint32_t row0, rows;
    size_t off_q, off_h, off_d;
} kvcl_cl_part;

kvcl_cl_part kvcl_cl_mat_part(const kvcl_mat *mat, uint32_t i);

kvcl_status kvcl_cl_mat_create(kvcl_queue *q, kvcl_type type, uint32_t rows, uint32_t cols,
                               const void *rows_data, kvcl_mat **out);
void kvcl_cl_mat_free(kvcl_dev *dev, kvcl_mat *mat);
/* In cl_matmul.c. */
size_t kvcl_cl_matmul_scratch_bytes(const kvcl_dev *dev, uint32_t n, const kvcl_mat *w);

/* ---- cl_matvec_wide.c: another arrangement of matvec for some calls -----------------------------
 */

bool kvcl_cl_matvec_wide_takes(kvcl_queue *q, const kvcl_matvec_args *a);
kvcl_status kvcl_cl_matvec_wide(kvcl_queue *q, const kvcl_matvec_args *a);

/* ---- device (cl_dev.c) ----------------------------------------------------------------------- */

/* Keeps an error that an already enqueued command gave until queue_wait, and returns it. */
kvcl_status kvcl_cl_stick(kvcl_queue *q, cl_int err, const char *doing);

/* ---- CLBlast (cl_clblast.c) ------------------------------------------------------------------ */

/* True when CLBlast is there and its SGEMM gave the canonical bits on this device.  The first call
 * on a device runs that test (about a second, kernels are compiled).  Never true on a CPU. */
bool kvcl_cl_sgemm_ready(kvcl_queue *q);

void kvcl_cl_blas_free(kvcl_cl_dev *d);

/* c[i][j] = sum_k a[i][k] * b[j][k], i < m, j < n: f32, k contiguous in both; offsets and leading
 * dimensions in elements.  A sum may come out as -0: the caller makes it +0.  Only where
 * kvcl_cl_sgemm_ready(). */
kvcl_status kvcl_cl_sgemm(kvcl_queue *q, size_t m, size_t n, size_t k, const kvcl_buf *a,
                          size_t a_off, size_t a_ld, const kvcl_buf *b, size_t b_off, size_t b_ld,
                          kvcl_buf *c, size_t c_off, size_t c_ld);

/* ---- ops: cl_<stem>.c ------------------------------------------------------------------------ */

#define KVCL_OP(name, group, stem) \
    kvcl_status kvcl_cl_##name(kvcl_queue *q, const kvcl_##name##_args *a);
#include "ops.def"
#undef KVCL_OP

#endif
