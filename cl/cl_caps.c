/* cl_caps.c - asks a device what it can do.  See cl_caps.h. */
#include "cl_caps.h"

#include "mem.h"

#include <stdio.h>
#include <stdlib.h>

/* Queries of extensions that OpenCL 1.2's headers do not have. */
#define QUERY_CC_MAJOR_NV 0x4000
#define QUERY_CC_MINOR_NV 0x4001
#define QUERY_PCI_BUS_NV 0x4008
#define QUERY_PCI_SLOT_NV 0x4009
#define QUERY_PCI_DOMAIN_NV 0x400A
#define QUERY_UUID_KHR 0x106A
#define QUERY_PCI_BUS_INFO_KHR 0x410F
#define QUERY_BOARD_NAME_AMD 0x4038

const char *kvcl_cl_impl_name(kvcl_cl_impl impl)
{
    static const char *const names[] = {
#define KVCL_CL_IMPL_NAME(name, id) [KVCL_CL_##name] = id,
        KVCL_CL_IMPLS(KVCL_CL_IMPL_NAME)
#undef KVCL_CL_IMPL_NAME
    };
    return names[impl];
}

/* Platform strings tell drivers apart; PoCL and Mesa forward the chip's vendor as the device's. */
static kvcl_cl_impl impl_of(const char *platform_name)
{
    static const struct {
        const char *part;
        kvcl_cl_impl impl;
    } rows[] = {
        {"NVIDIA", KVCL_CL_NVIDIA},
        {"AMD Accelerated", KVCL_CL_AMD},
        {"Portable Computing Language", KVCL_CL_POCL},
        {"rusticl", KVCL_CL_RUSTICL},
        {"Clover", KVCL_CL_CLOVER},
        {"Oclgrind", KVCL_CL_OCLGRIND},
        {"Intel", KVCL_CL_INTEL},
        {"Apple", KVCL_CL_APPLE},
        {"QUALCOMM", KVCL_CL_QUALCOMM},
        {"ARM Platform", KVCL_CL_ARM},
    };
    for (size_t i = 0; i < kvcl_array_len(rows); i++)
        if (strstr(platform_name, rows[i].part))
            return rows[i].impl;
    return KVCL_CL_OTHER;
}

typedef struct kvcl_cl_asker {
    const kvcl_cl_lib *cl;
    cl_platform_id platform;
    cl_device_id device;
    cl_int err; /* first failure of a question that must have an answer */
} kvcl_cl_asker;

/* A fixed-size answer; false, *out untouched, when the device gives none. */
static bool ask(const kvcl_cl_asker *a, cl_device_info what, void *out, size_t bytes)
{
    unsigned char answer[64];
    size_t n = 0;
    if (a->cl->GetDeviceInfo(a->device, what, sizeof answer, answer, &n) != CL_SUCCESS ||
        n != bytes)
        return false;
    memcpy(out, answer, bytes);
    return true;
}

static void must(kvcl_cl_asker *a, cl_device_info what, void *out, size_t bytes)
{
    size_t n = 0;
    cl_int err = a->cl->GetDeviceInfo(a->device, what, bytes, out, &n);
    if (err != CL_SUCCESS && a->err == CL_SUCCESS)
        a->err = err;
}

static void must_text(kvcl_cl_asker *a, cl_device_info what, char *out, size_t cap)
{
    char text[1024] = "";
    cl_int err = a->cl->GetDeviceInfo(a->device, what, sizeof text - 1, text, NULL);
    if (err != CL_SUCCESS && a->err == CL_SUCCESS)
        a->err = err;
    snprintf(out, cap, "%.*s", (int)(cap - 1), text);
}

static void platform_text(kvcl_cl_asker *a, cl_platform_info what, char *out, size_t cap)
{
    char text[1024] = "";
    cl_int err = a->cl->GetPlatformInfo(a->platform, what, sizeof text - 1, text, NULL);
    if (err != CL_SUCCESS && a->err == CL_SUCCESS)
        a->err = err;
    snprintf(out, cap, "%.*s", (int)(cap - 1), text);
}

/* True when the device lists the extension. */
static bool has_extension(const kvcl_cl_asker *a, const char *name)
{
    char list[16384] = "";
    if (a->cl->GetDeviceInfo(a->device, CL_DEVICE_EXTENSIONS, sizeof list - 1, list, NULL) !=
        CL_SUCCESS)
        return false;
    size_t n = strlen(name);
    for (const char *p = list; (p = strstr(p, name)) != NULL; p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0))
            return true;
    return false;
}

static void ask_names(kvcl_cl_asker *a, kvcl_cl_caps *c)
{
    char board[128];
    platform_text(a, CL_PLATFORM_NAME, c->platform_name, sizeof c->platform_name);
    platform_text(a, CL_PLATFORM_VERSION, c->platform_version, sizeof c->platform_version);
    must_text(a, CL_DEVICE_NAME, c->device_name, sizeof c->device_name);
    must_text(a, CL_DEVICE_VERSION, c->device_version, sizeof c->device_version);
    must_text(a, CL_DRIVER_VERSION, c->driver_version, sizeof c->driver_version);
    c->impl = impl_of(c->platform_name);
    /* AMD's device name is the chip's code name; the board's stands behind an extension */
    if (c->impl == KVCL_CL_AMD && has_extension(a, "cl_amd_device_attribute_query") &&
        a->cl->GetDeviceInfo(a->device, QUERY_BOARD_NAME_AMD, sizeof board, board, NULL) ==
            CL_SUCCESS &&
        board[0] && memchr(board, 0, sizeof board))
        snprintf(c->device_name, sizeof c->device_name, "%s", board);
}

static void ask_numbers(kvcl_cl_asker *a, kvcl_cl_caps *c)
{
    cl_bool flag = CL_FALSE;
    cl_device_fp_config fp = 0;
    char profile[64];
    must(a, CL_DEVICE_TYPE, &c->type, sizeof c->type);
    must(a, CL_DEVICE_MAX_COMPUTE_UNITS, &c->n_units, sizeof c->n_units);
    must(a, CL_DEVICE_ADDRESS_BITS, &c->address_bits, sizeof c->address_bits);
    must(a, CL_DEVICE_MAX_WORK_GROUP_SIZE, &c->max_group, sizeof c->max_group);
    must(a, CL_DEVICE_MAX_WORK_ITEM_SIZES, c->max_group_dim, sizeof c->max_group_dim);
    must(a, CL_DEVICE_LOCAL_MEM_SIZE, &c->local_bytes, sizeof c->local_bytes);
    must(a, CL_DEVICE_GLOBAL_MEM_SIZE, &c->mem_bytes, sizeof c->mem_bytes);
    must(a, CL_DEVICE_MAX_MEM_ALLOC_SIZE, &c->max_alloc_bytes, sizeof c->max_alloc_bytes);
    must(a, CL_DEVICE_SINGLE_FP_CONFIG, &fp, sizeof fp);
    c->fast_fma = (fp & CL_FP_FMA) != 0;
    must_text(a, CL_DEVICE_PROFILE, profile, sizeof profile);
    c->full_profile = strcmp(profile, "FULL_PROFILE") == 0 && (fp & CL_FP_ROUND_TO_NEAREST);
    must(a, CL_DEVICE_ENDIAN_LITTLE, &flag, sizeof flag);
    c->little_endian = flag != CL_FALSE;
    flag = CL_FALSE;
    /* deprecated after 1.2 but still answered */
    c->unified_memory = ask(a, CL_DEVICE_HOST_UNIFIED_MEMORY, &flag, sizeof flag) && flag;
}

static void ask_place(const kvcl_cl_asker *a, kvcl_cl_caps *c)
{
    cl_uint bus, slot, domain = 0;
    c->has_uuid =
        has_extension(a, "cl_khr_device_uuid") && ask(a, QUERY_UUID_KHR, c->uuid, sizeof c->uuid);
    if (has_extension(a, "cl_khr_pci_bus_info"))
        c->has_pci = ask(a, QUERY_PCI_BUS_INFO_KHR, c->pci, sizeof c->pci);
    if (!has_extension(a, "cl_nv_device_attribute_query"))
        return;
    if (!ask(a, QUERY_CC_MAJOR_NV, &c->cc_major, sizeof c->cc_major) ||
        !ask(a, QUERY_CC_MINOR_NV, &c->cc_minor, sizeof c->cc_minor))
        c->cc_major = c->cc_minor = 0;
    if (!c->has_pci && ask(a, QUERY_PCI_BUS_NV, &bus, sizeof bus) &&
        ask(a, QUERY_PCI_SLOT_NV, &slot, sizeof slot)) {
        (void)ask(a, QUERY_PCI_DOMAIN_NV, &domain, sizeof domain);
        c->pci[0] = domain;
        c->pci[1] = bus;
        c->pci[2] = slot >> 3;
        c->pci[3] = slot & 7;
        c->has_pci = true;
    }
}

/* CPUs that gain nothing from the vector shape: an interpreter, and Mesa, whose compiler takes
 * half a minute for a kernel with vectors of 16. */
static bool is_software(kvcl_cl_impl impl)
{
    return impl == KVCL_CL_OCLGRIND || impl == KVCL_CL_CLOVER || impl == KVCL_CL_RUSTICL;
}

static void derive(const kvcl_cl_asker *a, kvcl_cl_caps *c)
{
    c->vector_shape = (c->type & CL_DEVICE_TYPE_CPU) && !is_software(c->impl);
    if (c->impl == KVCL_CL_OCLGRIND)
        c->fast_fma = false; /* it says otherwise, but it interprets everything */
    if (c->impl == KVCL_CL_NVIDIA && c->cc_major >= 7)
        c->features |= KVCL_CL_PTX;
    /* Oclgrind's compiler crashes on them even when the extension is tested for */
    if (c->impl != KVCL_CL_OCLGRIND &&
        (has_extension(a, "cl_khr_subgroups") || has_extension(a, "cl_intel_subgroups")))
        c->features |= KVCL_CL_SUBGROUPS;
#if defined(__x86_64__) || defined(_M_X64)
    if (c->impl == KVCL_CL_POCL && (c->type & CL_DEVICE_TYPE_CPU)) /* clang, on this processor */
        c->features |= KVCL_CL_X86;
#endif
}

/* ---- the environment's say ------------------------------------------------------------------ */

typedef struct kvcl_cl_word {
    const char *word;
    uint32_t keep, add;
    int shape; /* 1 lane, 2 vector */
} kvcl_cl_word;

static const kvcl_cl_word words[] = {
    {"base", 0, 0, 0},
    {"ptx", KVCL_CL_PTX, 0, 0},
    {"subgroups", KVCL_CL_SUBGROUPS, 0, 0},
    {"x86", KVCL_CL_X86, 0, 0},
    {"+ptx", KVCL_CL_PTX, KVCL_CL_PTX, 0},
    {"+subgroups", KVCL_CL_SUBGROUPS, KVCL_CL_SUBGROUPS, 0},
    {"lane", UINT32_MAX, 0, 1},
    {"vector", UINT32_MAX, 0, 2},
};

static const kvcl_cl_word *word_of(const char *s, size_t n)
{
    for (size_t i = 0; i < kvcl_array_len(words); i++)
        if (strlen(words[i].word) == n && memcmp(words[i].word, s, n) == 0)
            return &words[i];
    return NULL;
}

static kvcl_status mask(kvcl_ctx *ctx, kvcl_cl_caps *c)
{
    const char *s = getenv("KVCL_CL_CAPS");
    uint32_t keep = 0, add = 0;
    bool only_shape = true;
    if (!s || !*s)
        return KVCL_OK;
    for (;;) {
        size_t n = strcspn(s, ",/");
        const kvcl_cl_word *w = word_of(s, n);
        KVCL_CHECK(ctx, w, KVCL_E_ARG,
                   "KVCL_CL_CAPS: unknown word '%.*s'; known are base, ptx, subgroups, x86, +ptx, "
                   "+subgroups, lane and vector, separated by commas or slashes",
                   (int)n, s);
        if (w->shape) {
            c->vector_shape = w->shape == 2;
        } else {
            only_shape = false;
            keep |= w->keep;
            add |= w->add;
        }
        if (!s[n])
            break;
        s += n + 1;
    }
    if (!only_shape)
        c->features = (c->features & keep) | add;
    return KVCL_OK;
}

static kvcl_status limit(kvcl_ctx *ctx, kvcl_cl_caps *c)
{
    const char *s = getenv("KVCL_CL_MAX_ALLOC");
    uint64_t bytes;
    if (!s || !*s)
        return KVCL_OK;
    KVCL_TRY(kvcl_parse_bytes(ctx, s, "KVCL_CL_MAX_ALLOC", &bytes));
    if (bytes < c->max_alloc_bytes)
        c->max_alloc_bytes = bytes;
    return KVCL_OK;
}

kvcl_status kvcl_cl_caps_query(kvcl_ctx *ctx, const kvcl_cl_lib *cl, cl_platform_id platform,
                               cl_device_id device, kvcl_cl_caps *out)
{
    kvcl_cl_asker a = {.cl = cl, .platform = platform, .device = device, .err = CL_SUCCESS};
    kvcl_cl_caps c = {.impl = KVCL_CL_OTHER};
    ask_names(&a, &c);
    ask_numbers(&a, &c);
    KVCL_CHECK(ctx, a.err == CL_SUCCESS, KVCL_E_DEVICE,
               "OpenCL device '%s' of '%s' does not describe itself: %s (%d); update its driver",
               c.device_name, c.platform_name, kvcl_cl_error_name(a.err), (int)a.err);
    ask_place(&a, &c);
    derive(&a, &c);
    KVCL_TRY(mask(ctx, &c));
    KVCL_TRY(limit(ctx, &c));
    *out = c;
    return KVCL_OK;
}
