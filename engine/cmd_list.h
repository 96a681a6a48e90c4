/* cmd_list.h - lists of numbers as they are typed: "0,3-5" or "all". */
#ifndef KVCL_CMD_LIST_H
#define KVCL_CMD_LIST_H

#include "base.h"

/* Marks in chosen [n] the numbers and ranges of list; E_ARG with a sentence that names the option
 * and `what` ("layer") for bad ones and for numbers from n on. */
kvcl_status kvcl_list_choose(kvcl_ctx *ctx, const char *option, const char *list, const char *what,
                             uint32_t n, bool *chosen);

#endif
