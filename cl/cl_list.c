/* cl_list.c - finds the OpenCL devices, names them, and shows one GPU once.  See cl_list.h.
 *
 * Platforms without devices are normal (a driver waiting for its hardware), so is one that fails:
 * neither may cost the user the others. */
#include "cl_list.h"

#include "log.h"
#include "mem.h"

#include <stdio.h>

#define MAX_PLATFORMS 32
#define MAX_DEVICES 64

static kvcl_cl_found *next_slot(kvcl_cl_set *set)
{
    return set->n < set->cap ? &set->found[set->n] : NULL;
}

static void add_device(kvcl_ctx *ctx, const kvcl_cl_lib *cl, cl_platform_id platform,
                       cl_device_id device, kvcl_cl_set *set, kvcl_status *env)
{
    kvcl_cl_found *f = next_slot(set);
    if (!f)
        return;
    kvcl_status st = kvcl_cl_caps_query(ctx, cl, platform, device, &f->caps);
    if (st == KVCL_E_ARG) {
        *env = st; /* the user's variable, not the device, is wrong: say so */
        return;
    }
    if (st != KVCL_OK) {
        kvcl_log_debug(ctx, "OpenCL: %s", kvcl_last_error(ctx));
        return;
    }
    f->platform = platform;
    f->device = device;
    f->hidden = false;
    f->number = 0;
    for (size_t i = 0; i < set->n; i++)
        f->number += set->found[i].caps.impl == f->caps.impl;
    set->n++;
}

static kvcl_status add_platform(kvcl_ctx *ctx, const kvcl_cl_lib *cl, cl_platform_id platform,
                                kvcl_cl_set *set)
{
    cl_device_id devices[MAX_DEVICES];
    cl_uint n = 0;
    char name[128] = "?";
    kvcl_status env = KVCL_OK;
    (void)cl->GetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
    name[sizeof name - 1] = 0;
    cl_int err = cl->GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, MAX_DEVICES, devices, &n);
    if (err != CL_SUCCESS || n == 0) {
        kvcl_log_debug(ctx, "OpenCL: platform '%s' has no device (%s)", name,
                       kvcl_cl_error_name(err));
        return KVCL_OK;
    }
    for (cl_uint i = 0; i < n && i < MAX_DEVICES; i++)
        add_device(ctx, cl, platform, devices[i], set, &env);
    return env;
}

/* ---- one GPU, several drivers ---------------------------------------------------------------- */

static bool is_gpu(const kvcl_cl_caps *c)
{
    return (c->type & CL_DEVICE_TYPE_GPU) && !(c->type & CL_DEVICE_TYPE_CPU);
}

/* The maker's own driver before Mesa's, before PoCL's. */
static int nativeness(kvcl_cl_impl impl)
{
    switch (impl) {
    case KVCL_CL_POCL:
    case KVCL_CL_OCLGRIND:
        return 0;
    case KVCL_CL_CLOVER:
        return 1;
    case KVCL_CL_RUSTICL:
        return 2;
    case KVCL_CL_OTHER:
        return 3;
    default:
        return 4;
    }
}

/* How many earlier devices of f's platform carry its name: two equal boards are not one. */
static uint32_t rank_by_name(const kvcl_cl_set *set, const kvcl_cl_found *f)
{
    uint32_t n = 0;
    for (const kvcl_cl_found *g = set->found; g < f; g++)
        n += g->platform == f->platform && strcmp(g->caps.device_name, f->caps.device_name) == 0;
    return n;
}

static bool same_gpu(const kvcl_cl_set *set, const kvcl_cl_found *f, const kvcl_cl_found *g)
{
    const kvcl_cl_caps *a = &f->caps, *b = &g->caps;
    if (f->platform == g->platform || !is_gpu(a) || !is_gpu(b))
        return false;
    if (a->has_pci && b->has_pci)
        return memcmp(a->pci, b->pci, sizeof a->pci) == 0;
    if (a->has_uuid && b->has_uuid && memcmp(a->uuid, b->uuid, sizeof a->uuid) == 0)
        return true;
    return strcmp(a->device_name, b->device_name) == 0 &&
           rank_by_name(set, f) == rank_by_name(set, g);
}

static void hide_duplicates(kvcl_ctx *ctx, kvcl_cl_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        for (size_t j = 0; j < i; j++) {
            kvcl_cl_found *f = &set->found[i], *g = &set->found[j];
            if (f->hidden || g->hidden || !same_gpu(set, f, g))
                continue;
            bool first_stays = nativeness(g->caps.impl) >= nativeness(f->caps.impl);
            *(first_stays ? &f->hidden : &g->hidden) = true;
            kvcl_log_debug(ctx, "OpenCL: '%s' of %s and of %s is one GPU; the %s driver is used",
                           f->caps.device_name, g->caps.platform_name, f->caps.platform_name,
                           kvcl_cl_impl_name(first_stays ? g->caps.impl : f->caps.impl));
        }
}

kvcl_status kvcl_cl_enumerate(kvcl_ctx *ctx, const kvcl_cl_lib *cl, kvcl_cl_set *out)
{
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint n = 0;
    void *p;
    kvcl_status st = KVCL_OK;
    kvcl_cl_set set = {.cap = MAX_DEVICES};
    KVCL_TRY(kvcl_mem_array(ctx, set.cap, sizeof(kvcl_cl_found), "the OpenCL device list", &p));
    set.found = p;
    cl_int err = cl->GetPlatformIDs(MAX_PLATFORMS, platforms, &n);
    if (err != CL_SUCCESS) {
        kvcl_log_debug(ctx, "OpenCL: no platform: %s (%d)", kvcl_cl_error_name(err), (int)err);
        n = 0;
    }
    for (cl_uint i = 0; i < n && i < MAX_PLATFORMS && st == KVCL_OK; i++)
        st = add_platform(ctx, cl, platforms[i], &set);
    if (st != KVCL_OK) {
        kvcl_cl_set_free(ctx, &set);
        return st;
    }
    hide_duplicates(ctx, &set);
    *out = set;
    return KVCL_OK;
}

void kvcl_cl_set_free(kvcl_ctx *ctx, kvcl_cl_set *set)
{
    kvcl_mem_free(ctx, set->found);
    set->found = NULL;
    set->n = set->cap = 0;
}

/* ---- what the program shows ------------------------------------------------------------------ */

static kvcl_device_kind kind_of(const kvcl_cl_caps *c)
{
    if (c->type & CL_DEVICE_TYPE_CPU)
        return KVCL_KIND_OPENCL_CPU;
    if (!(c->type & CL_DEVICE_TYPE_GPU))
        return KVCL_KIND_OTHER;
    return c->unified_memory ? KVCL_KIND_INTEGRATED : KVCL_KIND_GPU;
}

void kvcl_cl_describe(const kvcl_cl_found *f, kvcl_device_info *out)
{
    const kvcl_cl_caps *c = &f->caps;
    memset(out, 0, sizeof *out);
    snprintf(out->id, sizeof out->id, "opencl:%s:%u", kvcl_cl_impl_name(c->impl),
             (unsigned)f->number);
    snprintf(out->name, sizeof out->name, "%s", c->device_name);
    snprintf(out->platform, sizeof out->platform, "%s", c->platform_name);
    snprintf(out->driver, sizeof out->driver, "%s", c->driver_version);
    snprintf(out->detail, sizeof out->detail, "%s shape%s%s%s%s",
             c->vector_shape ? "vector" : "lane", c->features & KVCL_CL_PTX ? ", ptx" : "",
             c->features & KVCL_CL_SUBGROUPS ? ", sub-groups" : "",
             c->fast_fma ? "" : ", emulated fma", c->full_profile ? "" : ", embedded profile");
    out->kind = kind_of(c);
    out->mem_bytes = c->mem_bytes;
    out->max_alloc_bytes = c->max_alloc_bytes;
    out->n_units = c->n_units;
}
