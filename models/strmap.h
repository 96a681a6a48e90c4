/* strmap.h - a hash table from byte strings to numbers; sized once, never grows, never deletes. */
#ifndef KVCL_STRMAP_H
#define KVCL_STRMAP_H

#include "gguf.h"

#define KVCL_STRMAP_NONE UINT32_MAX

/* For at most n_max strings.  Cost: 48 to 96 bytes per string. */
kvcl_status kvcl_strmap_create(kvcl_ctx *ctx, size_t n_max, kvcl_strmap **out);
void kvcl_strmap_free(kvcl_ctx *ctx, kvcl_strmap *map);
/* KVCL_STRMAP_NONE when the string is not there. */
uint32_t kvcl_strmap_get(const kvcl_strmap *map, kvcl_str s);
/* Enters s (its bytes are kept by reference) or changes its number; returns the number it had, or
 * KVCL_STRMAP_NONE.  The caller enters no more than n_max different strings. */
uint32_t kvcl_strmap_put(kvcl_strmap *map, kvcl_str s, uint32_t value);

#endif
