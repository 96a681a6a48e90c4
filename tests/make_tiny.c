/* make_tiny.c - writes the tiny models of tiny_model.h for test scripts:
 *   make_tiny llama|gpt2|NAME TYPE FILE [WIDTH]      NAME: see tiny_named()
 * WIDTH 128 gives heads of 32, which every codec takes. */
#include "tiny_model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    kvcl_type type;
    if (argc < 4 || argc > 5 || kvcl_type_parse(NULL, argv[2], &type) != KVCL_OK) {
        fputs("usage: make_tiny llama|gpt2|NAME TYPE FILE [WIDTH]\n", stderr);
        return 2;
    }
    tiny_model m = strcmp(argv[1], "gpt2") == 0    ? tiny_gpt2(type)
                   : strcmp(argv[1], "llama") == 0 ? tiny_llama(type)
                                                   : tiny_named(argv[1], type);
    if (argc == 5)
        m.n_embd = (uint32_t)strtoul(argv[4], NULL, 10);
    tiny_model_write(&m, argv[3]);
    return 0;
}
