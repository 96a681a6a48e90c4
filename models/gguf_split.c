/* gguf_split.c - models split into several files, NAME-00001-of-00003.gguf and so on: the metadata
 * of the first, the tensors of all.  See gguf.h. */
#include "gguf.h"

#include "mem.h"
#include "strmap.h"

#include <stdio.h>

#define MAX_PARTS 99999u /* five digits */
#define SUFFIX_BYTES 20  /* "-00001-of-00003.gguf" */

/* The path of part `no` (from 0) of n; the caller frees it. */
static kvcl_status part_path(const kvcl_gguf *g, uint32_t no, uint32_t n, char **out)
{
    char suffix[SUFFIX_BYTES + 1], first[SUFFIX_BYTES + 1];
    size_t len = strlen(g->path);
    snprintf(first, sizeof first, "-%05u-of-%05u.gguf", 1u, n);
    snprintf(suffix, sizeof suffix, "-%05u-of-%05u.gguf", no + 1, n);
    KVCL_CHECK(g->ctx, len > SUFFIX_BYTES && strcmp(g->path + len - SUFFIX_BYTES, first) == 0,
               KVCL_E_ARG,
               "%s: a model split into %u files: name the first of them, which must end in %s",
               g->path, n, first);
    KVCL_TRY(kvcl_mem_strdup(g->ctx, g->path, out));
    memcpy(*out + len - SUFFIX_BYTES, suffix, SUFFIX_BYTES);
    return KVCL_OK;
}

/* split.no and split.count of a part say what its name says. */
static kvcl_status check_part(const kvcl_gguf *part, uint32_t no, uint32_t n)
{
    uint32_t said_no = UINT32_MAX, said_n = 0;
    KVCL_TRY(kvcl_gguf_get_u32(part, "split.no", &said_no));
    KVCL_TRY(kvcl_gguf_get_u32(part, "split.count", &said_n));
    KVCL_CHECK(part->ctx, said_no == no && said_n == n, KVCL_E_FORMAT,
               "%s: part %u of %u by its keys split.no and split.count, where %u of %u is due; the "
               "parts do not belong together",
               part->path, said_no + 1, said_n, no + 1, n);
    return KVCL_OK;
}

static kvcl_status open_parts(kvcl_gguf *g, uint32_t n)
{
    void *p;
    KVCL_TRY(check_part(g, 0, n));
    KVCL_TRY(kvcl_mem_array(g->ctx, n - 1, sizeof *g->parts, "the parts of the model", &p));
    g->parts = p;
    for (uint32_t i = 1; i < n; i++) {
        char *path;
        KVCL_TRY(part_path(g, i, n, &path));
        kvcl_status st = kvcl_gguf_open_one(g->ctx, path, &g->parts[i - 1]);
        kvcl_mem_free(g->ctx, path);
        KVCL_TRY(st);
        g->n_parts = i;
        KVCL_TRY(check_part(&g->parts[i - 1], i, n));
        g->file_bytes += g->parts[i - 1].file_bytes;
    }
    return KVCL_OK;
}

/* The tensors of all parts in one list. */
static kvcl_status join(kvcl_gguf *g)
{
    void *p;
    uint64_t there = g->n_tensors;
    kvcl_strmap *index;
    for (uint32_t i = 0; i < g->n_parts; i++)
        there += g->parts[i].n_tensors;
    uint32_t n = (uint32_t)kvcl_min_size(there, UINT32_MAX);
    KVCL_TRY(kvcl_gguf_get_u32(g, "split.tensors.count", &n));
    KVCL_CHECK(g->ctx, n == there && n <= KVCL_GGUF_MAX_TENSORS, KVCL_E_FORMAT,
               "%s: the parts have %llu tensors, split.tensors.count says %u (at most %u are "
               "possible)",
               g->path, (unsigned long long)there, n, KVCL_GGUF_MAX_TENSORS);
    KVCL_TRY(kvcl_mem_array(g->ctx, n, sizeof *g->tensors, "the list of tensors", &p));
    kvcl_gguf_tensor *all = p, *to = all;
    for (uint32_t i = 0; i <= g->n_parts; i++) {
        const kvcl_gguf *part = i ? &g->parts[i - 1] : g;
        for (uint32_t k = 0; k < part->n_tensors; k++)
            *to++ = part->tensors[k];
    }
    kvcl_mem_free(g->ctx, g->tensors);
    g->tensors = all;
    g->n_tensors = n;
    KVCL_TRY(kvcl_strmap_create(g->ctx, n, &index));
    kvcl_strmap_free(g->ctx, g->tensor_index);
    g->tensor_index = index;
    for (uint32_t i = 0; i < n; i++) {
        kvcl_str name = {all[i].name, strlen(all[i].name)};
        KVCL_CHECK(g->ctx, kvcl_strmap_put(index, name, i) == KVCL_STRMAP_NONE, KVCL_E_FORMAT,
                   "%s: tensor '%s' appears in two parts", g->path, all[i].name);
    }
    return KVCL_OK;
}

kvcl_status kvcl_gguf_open(kvcl_ctx *ctx, const char *path, kvcl_gguf *out)
{
    uint32_t n = 0;
    kvcl_status st;
    KVCL_TRY(kvcl_gguf_open_one(ctx, path, out));
    KVCL_TRY_GOTO(kvcl_gguf_get_u32(out, "split.count", &n));
    if (n <= 1)
        return KVCL_OK;
    if (n > MAX_PARTS) {
        st = kvcl_fail(ctx, KVCL_E_FORMAT, "%s: split.count is %u, at most %u is possible", path, n,
                       MAX_PARTS);
        goto fail;
    }
    KVCL_TRY_GOTO(open_parts(out, n));
    KVCL_TRY_GOTO(join(out));
    return KVCL_OK;
fail:
    kvcl_gguf_close(out);
    return st;
}
