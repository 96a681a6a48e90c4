/* opt.h - the options of a subcommand as one table, from which parsing, help and completion come.
 *
 * Values land in a plain struct of the subcommand, at the row's offset; the order is default,
 * environment, command line.  `--name value` and `--name=value` are the same, `--top_k` is
 * `--top-k`, and `--` ends the options.  Flags that llama.cpp has and kvcl has not are answered
 * with a reason (opt_foreign.c). */
#ifndef KVCL_OPT_H
#define KVCL_OPT_H

#include "base.h"

#include <stdio.h>

typedef enum kvcl_opt_kind {
    KVCL_OPT_FLAG,   /* bool: true when given */
    KVCL_OPT_UNFLAG, /* bool: false when given */
    KVCL_OPT_COUNT,  /* int64_t: one more each time */
    KVCL_OPT_INT,    /* int64_t in [min, max] */
    KVCL_OPT_FLOAT,  /* double in [min, max] */
    KVCL_OPT_STRING, /* const char *, borrowed from argv or the environment */
    KVCL_OPT_CHOICE, /* const char *: one of the words of arg, "f16|f32" */
    KVCL_OPT_SWITCH, /* as CHOICE, but the value may be missing: then "on" */
    KVCL_OPT_LIST,   /* kvcl_opt_list: one more string each time */
    KVCL_OPT_HELP,   /* stops parsing: short help */
    KVCL_OPT_MANUAL, /* stops parsing: full help */
    KVCL_OPT_HEADING /* no option: a line between groups in the help */
} kvcl_opt_kind;

#define KVCL_OPT_NAMES 8 /* names of one option, at most */

/* The values of an option that may be given several times; the strings borrow as those of STRING.
 */
typedef struct kvcl_opt_list {
    const char *item[8];
    size_t n;
} kvcl_opt_list;

typedef struct kvcl_opt {
    const char *names[KVCL_OPT_NAMES]; /* "-m", "--model"; the last one stands in messages */
    kvcl_opt_kind kind;
    size_t offset;    /* of the value in the subcommand's struct */
    const char *arg;  /* "FILE"; the words of a choice */
    double min, max;  /* of numbers */
    const char *def;  /* as typed; NULL: zero, false, NULL */
    const char *env;  /* the environment variable that stands in for the option, or NULL */
    const char *help; /* one sentence or two */
} kvcl_opt;

typedef struct kvcl_opt_result kvcl_opt_result;

typedef struct kvcl_command {
    const char *program; /* NULL: "kvcl" */
    const char *name;
    const char *summary;  /* one line of the listing */
    const char *synopsis; /* what follows "kvcl <name>" in the usage line */
    const char *examples; /* lines: command, then "# what it does" */
    const char *notes;    /* paragraphs of the full help, or NULL */
    const kvcl_opt *opts;
    size_t n_opts;
    size_t values_bytes; /* of the subcommand's struct */
    size_t min_pos, max_pos;
    int (*run)(const void *values, const kvcl_opt_result *parsed); /* returns the exit code */
} kvcl_command;

#define KVCL_OPT_MAX_POS 8
#define KVCL_OPT_MAX_NOTES 8

struct kvcl_opt_result {
    const kvcl_command *command;
    const char *pos[KVCL_OPT_MAX_POS]; /* arguments that are no options */
    size_t n_pos;
    const char *notes[KVCL_OPT_MAX_NOTES]; /* what an accepted flag of llama.cpp means here */
    size_t n_notes;
    uint64_t given;   /* bit i: row i of the table was on the command line or in the environment */
    uint64_t typed;   /* bit i: on the command line */
    int help;         /* 1: short help was asked for, 2: full help */
    char error[1024]; /* one sentence when parsing failed */
};

/* argv[0] is the first argument behind the subcommand's name.  Fills *values (values_bytes, zeroed
 * here) and *out; E_ARG with a sentence in out->error.  Reads the environment.  Allocates nothing.
 */
kvcl_status kvcl_opt_parse(const kvcl_command *cmd, int argc, char *const *argv, void *values,
                           kvcl_opt_result *out);
/* True when the option of that name was on the command line or in the environment. */
bool kvcl_opt_given(const kvcl_opt_result *r, const char *name);

/* What stands before the command's name where it is typed. */
static inline const char *kvcl_opt_program(const kvcl_command *cmd)
{
    return cmd->program ? cmd->program : "kvcl";
}

/* -h: usage and one line per option.  --help: examples first, then everything. */
void kvcl_opt_print_short(FILE *f, const kvcl_command *cmd);
void kvcl_opt_print_full(FILE *f, const kvcl_command *cmd);
/* Completion for "bash", "zsh" or "fish", and a man page, of all commands; false for another
 * shell. */
bool kvcl_opt_print_completion(FILE *f, const char *shell, const kvcl_command *const *cmds,
                               size_t n);
void kvcl_opt_print_man(FILE *f, const kvcl_command *const *cmds, size_t n);
extern const char kvcl_opt_exit_codes[]; /* the lines of the documentation */

/* What a flag of llama.cpp that no table of ours has means here. */
typedef struct kvcl_opt_foreign {
    const char *names[KVCL_OPT_NAMES];
    int n_args; /* values it takes; -1: one that may be missing (on, off, auto, a number) */
    bool accepted;
    const char *why; /* accepted: why it changes nothing; else why it is not supported */
} kvcl_opt_foreign;

const kvcl_opt_foreign *kvcl_opt_foreign_find(const char *name);

/* Edits (insert, drop, change, swap neighbours) that turn a into b. */
size_t kvcl_opt_distance(const char *a, const char *b);
/* Is `word` one of the words of "a|b|c"? */
bool kvcl_opt_choice(const char *words, const char *word);

#endif
