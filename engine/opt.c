/* opt.c - parses the command line of a subcommand by its table.  See opt.h. */
#include "opt.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

static kvcl_status fail(kvcl_opt_result *r, const char *fmt, ...) KVCL_PRINTF(2, 3);

static kvcl_status fail(kvcl_opt_result *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->error, sizeof r->error, fmt, ap);
    va_end(ap);
    return KVCL_E_ARG;
}

/* ---- names --------------------------------------------------------------------------------- */

/* "--top_k" and "--top-k" are one name; single-dash names are compared as they are. */
static bool same_name(const char *given, size_t n, const char *name)
{
    bool is_long = n > 2 && given[0] == '-' && given[1] == '-';
    if (strlen(name) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = is_long && given[i] == '_' ? '-' : given[i];
        if (c != name[i])
            return false;
    }
    return true;
}

static const kvcl_opt *find_option(const kvcl_command *cmd, const char *given, size_t n)
{
    for (size_t i = 0; i < cmd->n_opts; i++)
        for (size_t k = 0; k < KVCL_OPT_NAMES && cmd->opts[i].names[k]; k++)
            if (same_name(given, n, cmd->opts[i].names[k]))
                return &cmd->opts[i];
    return NULL;
}

/* The name used in messages: the last one. */
static const char *main_name(const kvcl_opt *o)
{
    const char *name = "";
    for (size_t k = 0; k < KVCL_OPT_NAMES && o->names[k]; k++)
        name = o->names[k];
    return name;
}

bool kvcl_opt_given(const kvcl_opt_result *r, const char *name)
{
    const kvcl_opt *o = find_option(r->command, name, strlen(name));
    return o && (r->given >> (size_t)(o - r->command->opts) & 1) != 0;
}

/* ---- nearest name -------------------------------------------------------------------------- */

#define MAX_WORD 40

size_t kvcl_opt_distance(const char *a, const char *b)
{
    size_t na = strlen(a), nb = strlen(b);
    if (na > MAX_WORD || nb > MAX_WORD)
        return MAX_WORD;
    size_t d[3][MAX_WORD + 1]; /* rows i-2, i-1, i of the edit table, by i mod 3 */
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);
            best = kvcl_min_size(best, kvcl_min_size(up[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = kvcl_min_size(best, up2[j - 2] + 1);
            row[j] = best;
        }
    }
    return d[na % 3][nb];
}

/* The table's long name that is nearest to a mistyped one; NULL when none is near. */
static const char *nearest(const kvcl_command *cmd, const char *given)
{
    const char *best = NULL;
    size_t best_d = strlen(given) > 6 ? 4 : 3; /* a name must be nearer than this */
    for (size_t i = 0; i < cmd->n_opts; i++)
        for (size_t k = 0; k < KVCL_OPT_NAMES && cmd->opts[i].names[k]; k++) {
            const char *name = cmd->opts[i].names[k];
            if (strncmp(name, "--", 2) != 0)
                continue;
            size_t d = kvcl_opt_distance(given, name);
            if (d < best_d) {
                best_d = d;
                best = name;
            }
        }
    return best;
}

/* ---- values -------------------------------------------------------------------------------- */

bool kvcl_opt_choice(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = words; *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && strncmp(p, word, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static kvcl_status bad_value(kvcl_opt_result *r, const kvcl_opt *o, const char *from,
                             const char *text)
{
    switch (o->kind) {
    case KVCL_OPT_INT:
        return fail(r, "%s takes a whole number from %.0f to %.0f, not '%s'", from, o->min, o->max,
                    text);
    case KVCL_OPT_FLOAT:
        return fail(r, "%s takes a number from %g to %g, not '%s'", from, o->min, o->max, text);
    case KVCL_OPT_FLAG:
    case KVCL_OPT_UNFLAG:
        return fail(r, "%s takes 1 or 0 (true, false, on, off), not '%s'", from, text);
    default:
        return fail(r, "%s takes one of %s, not '%s'", from, o->arg, text);
    }
}

static bool parse_bool(const char *text, bool *out)
{
    if (kvcl_opt_choice("1|true|on|yes|enabled", text))
        *out = true;
    else if (kvcl_opt_choice("0|false|off|no|disabled", text))
        *out = false;
    else
        return false;
    return true;
}

static bool parse_int(const char *text, const kvcl_opt *o, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || isspace((unsigned char)*text))
        return false;
    if ((double)v < o->min || (double)v > o->max)
        return false;
    *out = v;
    return true;
}

static bool parse_float(const char *text, const kvcl_opt *o, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || isnan(v))
        return false;
    if (v < o->min || v > o->max)
        return false;
    *out = v;
    return true;
}

static kvcl_status add_to_list(kvcl_opt_result *r, const char *from, const char *text,
                               kvcl_opt_list *list)
{
    if (list->n == kvcl_array_len(list->item))
        return fail(r, "%s is given more than %zu times; leave out '%s'", from,
                    kvcl_array_len(list->item), text);
    list->item[list->n++] = text;
    return KVCL_OK;
}

/* `from` names the source in messages: "--temp" or "KVCL_TEMP". */
static kvcl_status set_value(kvcl_opt_result *r, const kvcl_opt *o, const char *from,
                             const char *text, void *values)
{
    void *slot = (unsigned char *)values + o->offset;
    bool ok = true, b = false;
    switch (o->kind) {
    case KVCL_OPT_FLAG:
    case KVCL_OPT_UNFLAG:
        ok = parse_bool(text, &b);
        if (ok)
            *(bool *)slot = b == (o->kind == KVCL_OPT_FLAG);
        break;
    case KVCL_OPT_COUNT:
        *(int64_t *)slot += 1;
        break;
    case KVCL_OPT_INT:
        ok = parse_int(text, o, slot);
        break;
    case KVCL_OPT_FLOAT:
        ok = parse_float(text, o, slot);
        break;
    case KVCL_OPT_STRING:
        *(const char **)slot = text;
        break;
    case KVCL_OPT_LIST:
        return add_to_list(r, from, text, slot);
    case KVCL_OPT_CHOICE:
    case KVCL_OPT_SWITCH:
        ok = kvcl_opt_choice(o->arg, text);
        if (ok)
            *(const char **)slot = text;
        break;
    default:
        break;
    }
    return ok ? KVCL_OK : bad_value(r, o, from, text);
}

static kvcl_status set_defaults(const kvcl_command *cmd, void *values, kvcl_opt_result *r)
{
    for (size_t i = 0; i < cmd->n_opts; i++) {
        const kvcl_opt *o = &cmd->opts[i];
        if (o->def)
            KVCL_TRY(set_value(r, o, main_name(o), o->def, values));
    }
    for (size_t i = 0; i < cmd->n_opts; i++) {
        const kvcl_opt *o = &cmd->opts[i];
        const char *text = o->env ? getenv(o->env) : NULL;
        if (text && *text) {
            KVCL_TRY(set_value(r, o, o->env, text, values));
            r->given |= UINT64_C(1) << i;
        }
    }
    return KVCL_OK;
}

/* ---- the command line ---------------------------------------------------------------------- */

typedef struct cursor {
    int i, argc;
    char *const *argv;
    const char *value; /* behind '=', or NULL */
} cursor;

static bool is_number(const char *s)
{
    s += *s == '-' || *s == '+';
    return isdigit((unsigned char)*s) || (*s == '.' && isdigit((unsigned char)s[1]));
}

/* Looks like an option rather than a value: "-m", "--x", not "-", "-1" or "- text". */
static bool is_option(const char *s) { return s[0] == '-' && s[1] && s[1] != ' ' && !is_number(s); }

static kvcl_status unknown(const kvcl_command *cmd, const char *given, kvcl_opt_result *r)
{
    const char *near = nearest(cmd, given);
    if (near)
        return fail(r, "'%s' has no option '%s'; did you mean '%s'?", cmd->name, given, near);
    return fail(r, "'%s' has no option '%s'; '%s %s -h' lists them", cmd->name, given,
                kvcl_opt_program(cmd), cmd->name);
}

static kvcl_status take_foreign(const kvcl_command *cmd, const char *given, cursor *c,
                                kvcl_opt_result *r)
{
    const kvcl_opt_foreign *f = kvcl_opt_foreign_find(given);
    if (!f)
        return unknown(cmd, given, r);
    if (!f->accepted)
        return fail(r, "%s is not supported, because %s", given, f->why);
    if (r->n_notes < KVCL_OPT_MAX_NOTES)
        r->notes[r->n_notes++] = f->why;
    if (c->value)
        return KVCL_OK;
    const char *next = c->i < c->argc ? c->argv[c->i] : NULL;
    if (f->n_args > 0)
        c->i += f->n_args;
    else if (f->n_args < 0 && next &&
             (is_number(next) || kvcl_opt_choice("on|off|auto|true|false", next)))
        c->i++;
    if (c->i > c->argc)
        return fail(r, "%s needs a value", given);
    return KVCL_OK;
}

static kvcl_status take_option(const kvcl_command *cmd, const kvcl_opt *o, const char *given,
                               cursor *c, void *values, kvcl_opt_result *r)
{
    const uint64_t bit = UINT64_C(1) << (size_t)(o - cmd->opts);
    if (o->kind == KVCL_OPT_LIST && !(r->typed & bit)) /* the environment's list makes way */
        ((kvcl_opt_list *)(void *)((unsigned char *)values + o->offset))->n = 0;
    r->given |= bit;
    r->typed |= bit;
    const char *next = c->i < c->argc ? c->argv[c->i] : NULL;
    switch (o->kind) {
    case KVCL_OPT_HELP:
        r->help = 1;
        return KVCL_OK;
    case KVCL_OPT_MANUAL:
        r->help = 2;
        return KVCL_OK;
    case KVCL_OPT_FLAG:
    case KVCL_OPT_UNFLAG:
        return set_value(r, o, given, c->value ? c->value : "1", values);
    case KVCL_OPT_COUNT:
        if (c->value)
            return fail(r, "%s takes no value", given);
        return set_value(r, o, given, "", values);
    case KVCL_OPT_SWITCH:
        if (c->value)
            return set_value(r, o, given, c->value, values);
        if (next && kvcl_opt_choice(o->arg, next))
            return set_value(r, o, given, c->argv[c->i++], values);
        return set_value(r, o, given, "on", values);
    default:
        break;
    }
    if (c->value)
        return set_value(r, o, given, c->value, values);
    /* "-m --temp 0": the value was forgotten; "-p -x" is a value unless -x is an option of ours */
    if (!next || (is_option(next) && find_option(cmd, next, strcspn(next, "="))))
        return fail(r, "%s needs a value (%s)", given, o->arg);
    c->i++;
    return set_value(r, o, given, next, values);
}

static kvcl_status take_word(const kvcl_command *cmd, const char *word, kvcl_opt_result *r)
{
    if (r->n_pos >= cmd->max_pos || r->n_pos >= KVCL_OPT_MAX_POS)
        return fail(r, "'%s' is one argument too many; usage: %s %s %s", word,
                    kvcl_opt_program(cmd), cmd->name, cmd->synopsis);
    r->pos[r->n_pos++] = word;
    return KVCL_OK;
}

static kvcl_status take_argument(const kvcl_command *cmd, cursor *c, void *values,
                                 kvcl_opt_result *r)
{
    const char *arg = c->argv[c->i++];
    if (!is_option(arg))
        return take_word(cmd, arg, r);
    size_t n = strcspn(arg, "=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)kvcl_min_size(n, 63), arg);
    c->value = arg[n] == '=' ? arg + n + 1 : NULL;
    const kvcl_opt *o = find_option(cmd, arg, n);
    return o ? take_option(cmd, o, name, c, values, r) : take_foreign(cmd, name, c, r);
}

kvcl_status kvcl_opt_parse(const kvcl_command *cmd, int argc, char *const *argv, void *values,
                           kvcl_opt_result *out)
{
    memset(out, 0, sizeof *out);
    memset(values, 0, cmd->values_bytes);
    out->command = cmd;
    /* help is answered even when the environment or another argument is wrong */
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const kvcl_opt *o = find_option(cmd, argv[i], strlen(argv[i]));
        if (o && (o->kind == KVCL_OPT_HELP || o->kind == KVCL_OPT_MANUAL)) {
            out->help = o->kind == KVCL_OPT_HELP ? 1 : 2;
            return KVCL_OK;
        }
    }
    KVCL_TRY(set_defaults(cmd, values, out));
    cursor c = {0, argc, argv, NULL};
    while (c.i < argc) {
        if (strcmp(argv[c.i], "--") == 0) {
            for (c.i++; c.i < argc; c.i++)
                KVCL_TRY(take_word(cmd, argv[c.i], out));
            break;
        }
        KVCL_TRY(take_argument(cmd, &c, values, out));
    }
    if (out->n_pos < cmd->min_pos)
        return fail(out, "an argument is missing; usage: %s %s %s", kvcl_opt_program(cmd),
                    cmd->name, cmd->synopsis);
    return KVCL_OK;
}
