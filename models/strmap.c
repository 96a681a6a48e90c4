/* strmap.c - open addressing with linear probing, at most half full.  See strmap.h. */
#include "strmap.h"

#include "mem.h"

typedef struct slot {
    kvcl_str key;
    uint32_t value, hash; /* value KVCL_STRMAP_NONE: empty */
} slot;

struct kvcl_strmap {
    slot *slots;
    size_t mask;
};

/* FNV-1a, folded: short keys, no adversary who gains more than slowness in reading his own file */
static uint32_t hash_of(kvcl_str s)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.s[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(h ^ h >> 32);
}

kvcl_status kvcl_strmap_create(kvcl_ctx *ctx, size_t n_max, kvcl_strmap **out)
{
    size_t n = 16;
    while (n / 2 < n_max)
        n *= 2;
    void *p, *slots;
    KVCL_TRY(kvcl_mem_alloc(ctx, sizeof(kvcl_strmap), "a string table", &p));
    kvcl_status st = kvcl_mem_array(ctx, n, sizeof(slot), "a string table", &slots);
    if (st != KVCL_OK) {
        kvcl_mem_free(ctx, p);
        return st;
    }
    kvcl_strmap *map = p;
    map->slots = slots;
    map->mask = n - 1;
    for (size_t i = 0; i < n; i++)
        map->slots[i].value = KVCL_STRMAP_NONE;
    *out = map;
    return KVCL_OK;
}

void kvcl_strmap_free(kvcl_ctx *ctx, kvcl_strmap *map)
{
    if (!map)
        return;
    kvcl_mem_free(ctx, map->slots);
    kvcl_mem_free(ctx, map);
}

/* The slot of s, or the empty one where it belongs. */
static slot *slot_of(const kvcl_strmap *map, kvcl_str s, uint32_t hash)
{
    size_t i = hash & map->mask;
    for (;; i = (i + 1) & map->mask) {
        slot *t = &map->slots[i];
        if (t->value == KVCL_STRMAP_NONE)
            return t;
        if (t->hash == hash && t->key.n == s.n && memcmp(t->key.s, s.s, s.n) == 0)
            return t;
    }
}

uint32_t kvcl_strmap_get(const kvcl_strmap *map, kvcl_str s)
{
    return slot_of(map, s, hash_of(s))->value;
}

uint32_t kvcl_strmap_put(kvcl_strmap *map, kvcl_str s, uint32_t value)
{
    uint32_t hash = hash_of(s);
    slot *t = slot_of(map, s, hash);
    uint32_t before = t->value;
    *t = (slot){.key = before == KVCL_STRMAP_NONE ? s : t->key, .value = value, .hash = hash};
    return before;
}
