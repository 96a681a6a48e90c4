/* make_tiny.c - writes the tiny models of tiny_model.h for test scripts:
 *   make_tiny llama|gpt2 TYPE FILE */
#include "tiny_model.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    kvcl_type type;
    if (argc != 4 || kvcl_type_parse(NULL, argv[2], &type) != KVCL_OK) {
        fputs("usage: make_tiny llama|gpt2 TYPE FILE\n", stderr);
        return 2;
    }
    tiny_model m = strcmp(argv[1], "gpt2") == 0 ? tiny_gpt2(type) : tiny_llama(type);
    tiny_model_write(&m, argv[3]);
    return 0;
}
