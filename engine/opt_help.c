/* opt_help.c - what the option tables say to people and to shells: help, completion, man page. */
#include "opt.h"

#include <ctype.h>
#include <stdio.h>

const char kvcl_opt_exit_codes[] =
    "  0  success\n"
    "  1  failure while running\n"
    "  2  wrong usage\n"
    "  3  an input file is malformed, or a page of the cache damaged\n"
    "  5  device or OpenCL failure, no such device\n"
    "  6  out of host or device memory\n"
    "  7  an exact device computed other bits (compare), a bound broke (frontier)\n"
    "130  interrupted by Ctrl-C\n";

static bool has_value(const kvcl_opt *o)
{
    return o->kind == KVCL_OPT_INT || o->kind == KVCL_OPT_FLOAT || o->kind == KVCL_OPT_STRING ||
           o->kind == KVCL_OPT_CHOICE || o->kind == KVCL_OPT_SWITCH || o->kind == KVCL_OPT_LIST;
}

/* "-m, --model FILE" */
static size_t left_column(const kvcl_opt *o, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (size_t k = 0; k < KVCL_OPT_NAMES && o->names[k]; k++) {
        int w = snprintf(out + n, cap - n, "%s%s", k ? ", " : "", o->names[k]);
        n = kvcl_min_size(n + (size_t)w, cap - 1);
    }
    if (has_value(o)) {
        const char *fmt = o->kind == KVCL_OPT_SWITCH ? " [%s]" : " %s";
        int w = snprintf(out + n, cap - n, fmt, o->arg);
        n = kvcl_min_size(n + (size_t)w, cap - 1);
    }
    return n;
}

/* Prints text wrapped at 80 columns behind an indent; the first line starts at column `at`. */
static void wrapped(FILE *f, const char *text, int indent, int at)
{
    while (*text) {
        if (at < indent)
            fprintf(f, "%*s", indent - at, "");
        size_t room = (size_t)(80 - indent), n = strcspn(text, "\n");
        bool line_end = n <= room;
        if (!line_end) {
            n = room;
            while (n > 0 && text[n] != ' ')
                n--;
            n = n ? n : room;
        }
        fprintf(f, "%.*s\n", (int)n, text);
        text += n;
        text += *text == '\n' || *text == ' ';
        at = 0;
    }
}

static void print_option(FILE *f, const kvcl_opt *o, bool full)
{
    if (o->kind == KVCL_OPT_HEADING) {
        fprintf(f, "\n%s\n", o->help);
        return;
    }
    char left[160], right[512];
    int width = 28, n = (int)left_column(o, left, sizeof left);
    fprintf(f, "  %s", left);
    n += 2;
    if (n >= width - 1) {
        fputc('\n', f);
        n = 0;
    }
    int w = snprintf(right, sizeof right, "%s", o->help);
    if (o->def && has_value(o) && *o->def)
        w += snprintf(right + w, sizeof right - (size_t)w, " (default %s)", o->def);
    if (full && o->env)
        snprintf(right + w, sizeof right - (size_t)w, " [%s]", o->env);
    wrapped(f, right, width, n);
}

static void print_options(FILE *f, const kvcl_command *cmd, bool full)
{
    for (size_t i = 0; i < cmd->n_opts; i++)
        print_option(f, &cmd->opts[i], full);
}

void kvcl_opt_print_short(FILE *f, const kvcl_command *cmd)
{
    fprintf(f, "usage: %s %s %s\n%s.\n", kvcl_opt_program(cmd), cmd->name, cmd->synopsis,
            cmd->summary);
    print_options(f, cmd, false);
    fprintf(f, "\n'%s %s --help' has examples and more.\n", kvcl_opt_program(cmd), cmd->name);
}

void kvcl_opt_print_full(FILE *f, const kvcl_command *cmd)
{
    fprintf(f, "%s %s: %s.\n\nExamples\n%s\n", kvcl_opt_program(cmd), cmd->name, cmd->summary,
            cmd->examples);
    fprintf(f, "usage: %s %s %s\n", kvcl_opt_program(cmd), cmd->name, cmd->synopsis);
    print_options(f, cmd, true);
    if (cmd->notes) {
        fputs("\nNotes\n", f);
        wrapped(f, cmd->notes, 2, 0);
    }
    fputs("\nThe variable in brackets stands in for an option; the command line wins.\n", f);
    fprintf(f, "\nExit codes\n%s", kvcl_opt_exit_codes);
}

/* ---- completion ---------------------------------------------------------------------------- */

static void all_names(FILE *f, const kvcl_command *cmd)
{
    for (size_t i = 0; i < cmd->n_opts; i++)
        for (size_t k = 0; k < KVCL_OPT_NAMES && cmd->opts[i].names[k]; k++)
            fprintf(f, " %s", cmd->opts[i].names[k]);
}

static void completion_bash(FILE *f, const kvcl_command *const *cmds, size_t n)
{
    fputs("# bash completion for kvcl; put into ~/.bashrc: source <(kvcl help --completion bash)\n"
          "_kvcl() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} words=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='help --version",
          f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, " %s", cmds[i]->name);
    fputs("'\n    else\n        case ${COMP_WORDS[1]} in\n", f);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "        %s) words='", cmds[i]->name);
        all_names(f, cmds[i]);
        fputs("' ;;\n", f);
    }
    fputs("        esac\n        case $cur in -*) ;; *) words= ;; esac\n    fi\n"
          "    [ -n \"$words\" ] && mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "}\ncomplete -o default -F _kvcl kvcl\n",
          f);
}

static void completion_zsh(FILE *f, const kvcl_command *const *cmds, size_t n)
{
    fputs("#compdef kvcl\n# zsh completion: kvcl help --completion zsh > a folder of $fpath/_kvcl\n"
          "_kvcl() {\n    if (( CURRENT == 2 )); then\n        local -a cmds=(\n",
          f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "            '%s:%s'\n", cmds[i]->name, cmds[i]->summary);
    fputs("        )\n        _describe command cmds\n        return\n    fi\n"
          "    local -a opts\n    case $words[2] in\n",
          f);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "        %s) opts=(", cmds[i]->name);
        all_names(f, cmds[i]);
        fputs(") ;;\n", f);
    }
    fputs("    esac\n    if [[ $words[CURRENT] == -* ]]; then compadd -- $opts; else _files; fi\n"
          "}\n_kvcl \"$@\"\n",
          f);
}

/* Text inside a fish or man argument: quotes are doubled away. */
static void without_quotes(FILE *f, const char *s)
{
    for (; *s; s++)
        fputc(*s == '\'' || *s == '\\' ? ' ' : *s, f);
}

static void completion_fish(FILE *f, const kvcl_command *const *cmds, size_t n)
{
    fputs("# fish completion: kvcl help --completion fish > "
          "~/.config/fish/completions/kvcl.fish\n",
          f);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "complete -c kvcl -n __fish_use_subcommand -a %s -d '", cmds[i]->name);
        without_quotes(f, cmds[i]->summary);
        fputs("'\n", f);
        for (size_t j = 0; j < cmds[i]->n_opts; j++) {
            const kvcl_opt *o = &cmds[i]->opts[j];
            if (!o->names[0])
                continue;
            fprintf(f, "complete -c kvcl -n '__fish_seen_subcommand_from %s'", cmds[i]->name);
            for (size_t k = 0; k < KVCL_OPT_NAMES && o->names[k]; k++) {
                const char *name = o->names[k];
                if (name[1] == '-')
                    fprintf(f, " -l %s", name + 2);
                else
                    fprintf(f, " %s %s", name[2] ? "-o" : "-s", name + 1);
            }
            fprintf(f, "%s -d '", has_value(o) ? " -r" : "");
            without_quotes(f, o->help);
            fputs("'\n", f);
        }
    }
}

bool kvcl_opt_print_completion(FILE *f, const char *shell, const kvcl_command *const *cmds,
                               size_t n)
{
    if (strcmp(shell, "bash") == 0)
        completion_bash(f, cmds, n);
    else if (strcmp(shell, "zsh") == 0)
        completion_zsh(f, cmds, n);
    else if (strcmp(shell, "fish") == 0)
        completion_fish(f, cmds, n);
    else
        return false;
    return true;
}

/* ---- man page ------------------------------------------------------------------------------ */

/* Text for troff: backslashes, minus signs and leading dots or quotes are escaped. */
static void roff(FILE *f, const char *s)
{
    bool start = true;
    for (; *s; s++) {
        if (start && (*s == '.' || *s == '\''))
            fputs("\\&", f);
        if (*s == '\\')
            fputs("\\e", f);
        else if (*s == '-')
            fputs("\\-", f);
        else
            fputc(*s, f);
        start = *s == '\n';
    }
}

static void man_option(FILE *f, const kvcl_opt *o)
{
    char left[160];
    if (o->kind == KVCL_OPT_HEADING)
        return;
    left_column(o, left, sizeof left);
    fputs(".TP\n.B ", f);
    roff(f, left);
    fputc('\n', f);
    roff(f, o->help);
    if (o->def && has_value(o) && *o->def)
        fprintf(f, " (default %s)", o->def);
    if (o->env)
        fprintf(f, " [%s]", o->env);
    fputc('\n', f);
}

void kvcl_opt_print_man(FILE *f, const kvcl_command *const *cmds, size_t n)
{
    fputs(".TH KVCL 1 \"\" \"kvcl " KVCL_VERSION "\" \"User commands\"\n.SH NAME\n"
          "kvcl \\- language models from GGUF files, with the same bits on every device\n"
          ".SH SYNOPSIS\n.B kvcl\n.I command\n[\\fIoption\\fR ...]\n.SH COMMANDS\n",
          f);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, ".SS kvcl %s ", cmds[i]->name);
        roff(f, cmds[i]->synopsis);
        fputc('\n', f);
        roff(f, cmds[i]->summary);
        fputs(".\n.PP\n.nf\n", f);
        roff(f, cmds[i]->examples);
        fputs(".fi\n", f);
        for (size_t j = 0; j < cmds[i]->n_opts; j++)
            man_option(f, &cmds[i]->opts[j]);
        if (cmds[i]->notes) {
            fputs(".PP\n", f);
            roff(f, cmds[i]->notes);
            fputc('\n', f);
        }
    }
    fputs(".SH EXIT STATUS\n.nf\n", f);
    roff(f, kvcl_opt_exit_codes);
    fputs(".fi\n", f);
}
