/* cmd_list.c - lists of numbers as they are typed.  See cmd_list.h. */
#include "cmd_list.h"

#include <stdlib.h>

static bool read_number(const char **p, uint32_t *out)
{
    char *end;
    if (**p < '0' || **p > '9')
        return false;
    unsigned long n = strtoul(*p, &end, 10);
    *p = end;
    *out = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return true;
}

kvcl_status kvcl_list_choose(kvcl_ctx *ctx, const char *option, const char *list, const char *what,
                             uint32_t n, bool *chosen)
{
    const char *p = list;
    if (strcmp(list, "all") == 0) {
        for (uint32_t i = 0; i < n; i++)
            chosen[i] = true;
        return KVCL_OK;
    }
    do {
        uint32_t first = 0, last;
        bool ok = read_number(&p, &first);
        last = first;
        if (ok && *p == '-') {
            p++;
            ok = read_number(&p, &last) && first <= last;
        }
        KVCL_CHECK(ctx, ok && (!*p || *p == ','), KVCL_E_ARG,
                   "%s %s: write numbers and ranges with comma between, like 0,3-5, or all", option,
                   list);
        KVCL_CHECK(ctx, last < n, KVCL_E_ARG, "%s %s: there is no %s %u; the model has %ss 0 to %u",
                   option, list, what, last, what, n - 1);
        for (uint32_t i = first; i <= last; i++)
            chosen[i] = true;
    } while (*p++);
    return KVCL_OK;
}
