/* main.c - the program kvcl: finds the subcommand, parses its options, runs it. */
#include "cmd.h"

#include "os.h"

#include <stddef.h>

#define VALUES_BYTES 1024 /* of the largest subcommand's struct */

static const kvcl_command *const commands[] = {
    &kvcl_cmd_run,        &kvcl_cmd_devices, &kvcl_cmd_compare,  &kvcl_cmd_bench,    &kvcl_cmd_plan,
    &kvcl_cmd_tokenize,   &kvcl_cmd_inspect, &kvcl_cmd_quantize, &kvcl_cmd_logits,   &kvcl_cmd_eval,
    &kvcl_cmd_perplexity, &kvcl_cmd_capture, &kvcl_cmd_svd,      &kvcl_cmd_frontier,
};

static void print_listing(FILE *f)
{
    fputs("kvcl " KVCL_VERSION
          ": language models from GGUF files, with the same bits on every device.\n\n"
          "usage: kvcl COMMAND [option ...]\n\n",
          f);
    for (size_t i = 0; i < kvcl_array_len(commands); i++)
        fprintf(f, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("  help       Tells about a command: kvcl help run\n\n"
          "  kvcl run -p 'It is a truth universally acknowledged' -n 40\n\n"
          "'kvcl COMMAND -h' lists its options, 'kvcl COMMAND --help' explains them.\n"
          "'kvcl help --completion bash|zsh|fish' and 'kvcl help --man' write files for shells "
          "and man.\n",
          f);
}

static const kvcl_command *find_command(const char *name)
{
    for (size_t i = 0; i < kvcl_array_len(commands); i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int unknown_command(const char *name, bool color)
{
    const char *near = NULL;
    size_t best = 3;
    for (size_t i = 0; i < kvcl_array_len(commands); i++) {
        size_t d = kvcl_opt_distance(name, commands[i]->name);
        if (d < best) {
            best = d;
            near = commands[i]->name;
        }
    }
    if (name[0] == '-')
        kvcl_say(color, "a command comes before the options; did you mean 'kvcl run %s ...'?",
                 name);
    else if (near)
        kvcl_say(color, "there is no command '%s'; did you mean '%s'?", name, near);
    else
        kvcl_say(color, "there is no command '%s'; 'kvcl help' lists them", name);
    return 2;
}

static int help(int argc, char *const *argv, bool color)
{
    const size_t n = kvcl_array_len(commands);
    if (argc == 0) {
        print_listing(stdout);
        return 0;
    }
    if (strcmp(argv[0], "--man") == 0) {
        kvcl_opt_print_man(stdout, commands, n);
        return 0;
    }
    if (strcmp(argv[0], "--completion") == 0) {
        if (argc > 1 && kvcl_opt_print_completion(stdout, argv[1], commands, n))
            return 0;
        kvcl_say(color, "--completion is for bash, zsh or fish; name one of them");
        return 2;
    }
    const kvcl_command *cmd = find_command(argv[0]);
    if (!cmd)
        return unknown_command(argv[0], color);
    kvcl_opt_print_full(stdout, cmd);
    return 0;
}

static int run_command(const kvcl_command *cmd, int argc, char *const *argv, bool color)
{
    _Alignas(max_align_t) unsigned char values[VALUES_BYTES];
    kvcl_opt_result parsed;
    if (cmd->values_bytes > sizeof values) {
        kvcl_say(color, "the options of '%s' need more room; please report this", cmd->name);
        return 1;
    }
    if (kvcl_opt_parse(cmd, argc, argv, values, &parsed) != KVCL_OK) {
        kvcl_say(color, "%s", parsed.error);
        return 2;
    }
    if (parsed.help) {
        (parsed.help == 1 ? kvcl_opt_print_short : kvcl_opt_print_full)(stdout, cmd);
        return 0;
    }
    return cmd->run(values, &parsed);
}

int main(int argc, char **argv)
{
    kvcl_os_passive_waiting(argv);
    const bool color = kvcl_color_wanted("auto", kvcl_os_is_tty(2));
    if (argc < 2) {
        print_listing(stderr);
        return 2;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        puts("kvcl " KVCL_VERSION);
        return 0;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return help(argc - 2, argv + 2, color);
    const kvcl_command *cmd = find_command(name);
    return cmd ? run_command(cmd, argc - 2, argv + 2, color) : unknown_command(name, color);
}
