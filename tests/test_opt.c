/* test_opt.c - option tables: values from defaults, environment and command line, what wrong usage
 * is answered with, llama.cpp's flags, help, completion.  Needs no device. */
#define _POSIX_C_SOURCE 200809L

#include "cmd_table.h"
#include "opt.h"
#include "test.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct values {
    const char *model, *type, *mode;
    int64_t number, verbose;
    double temp;
    bool flag, shown;
    kvcl_opt_list words;
} values;

#define AT(member) .offset = offsetof(values, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Group"},
    {.names = {"-m", "--model"},
     .kind = KVCL_OPT_STRING,
     AT(model),
     .arg = "FILE",
     .env = "KVCL_OPT_MODEL",
     .help = "a file"},
    {.names = {"-n", "--number"},
     .kind = KVCL_OPT_INT,
     AT(number),
     .arg = "N",
     .min = -1,
     .max = 100,
     .def = "7",
     .env = "KVCL_OPT_NUMBER",
     .help = "a number"},
    {.names = {"--temp"},
     .kind = KVCL_OPT_FLOAT,
     AT(temp),
     .arg = "T",
     .max = 2,
     .def = "0.8",
     .help = "a float"},
    {.names = {"-ctk", "--cache-type-k"},
     .kind = KVCL_OPT_CHOICE,
     AT(type),
     .arg = "f16|f32",
     .def = "f16",
     .help = "a choice"},
    {.names = {"--color"},
     .kind = KVCL_OPT_SWITCH,
     AT(mode),
     .arg = "on|off|auto",
     .def = "auto",
     .help = "a switch"},
    {.names = {"--flag"},
     .kind = KVCL_OPT_FLAG,
     AT(flag),
     .env = "KVCL_OPT_FLAG",
     .help = "a flag"},
    {.names = {"--no-show"}, .kind = KVCL_OPT_UNFLAG, AT(shown), .def = "0", .help = "not shown"},
    {.names = {"-v", "--verbose"}, .kind = KVCL_OPT_COUNT, AT(verbose), .help = "more"},
    {.names = {"--word"},
     .kind = KVCL_OPT_LIST,
     AT(words),
     .arg = "WORD",
     .env = "KVCL_OPT_WORD",
     .help = "a word, several times"},
    {.names = {"-h"}, .kind = KVCL_OPT_HELP, .help = "short help"},
    {.names = {"--help"}, .kind = KVCL_OPT_MANUAL, .help = "full help"},
};

static int no_run(const void *v, const kvcl_opt_result *r)
{
    KVCL_UNUSED(v);
    KVCL_UNUSED(r);
    return 0;
}

static const kvcl_command command = {
    .name = "walk",
    .summary = "Walks about",
    .synopsis = "[option ...] [WORD]",
    .examples = "  kvcl walk\n",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(values),
    .max_pos = 1,
    .run = no_run,
};

/* Parses up to 8 words, ended by NULL. */
static kvcl_status parse(values *v, kvcl_opt_result *r, const char *const *words)
{
    char *argv[9] = {0};
    int argc = 0;
    for (; words[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    return kvcl_opt_parse(&command, argc, argv, v, r);
}

#define PARSE(...) parse(&v, &r, (const char *const[]){__VA_ARGS__, NULL})
#define GOOD(...) ck_assert_msg(PARSE(__VA_ARGS__) == KVCL_OK, "%s", r.error)
/* Fails, and the sentence holds `part`. */
#define BAD(part, ...)                                                      \
    do {                                                                    \
        ck_assert_int_eq(PARSE(__VA_ARGS__), KVCL_E_ARG);                   \
        ck_assert_msg(strstr(r.error, part) != NULL, "says '%s'", r.error); \
    } while (0)

static void clear_env(void)
{
    unsetenv("KVCL_OPT_MODEL");
    unsetenv("KVCL_OPT_NUMBER");
    unsetenv("KVCL_OPT_FLAG");
    unsetenv("KVCL_OPT_WORD");
}

START_TEST(takes_values)
{
    values v;
    kvcl_opt_result r;
    ck_assert_int_eq(parse(&v, &r, (const char *const[]){NULL}), KVCL_OK);
    ck_assert_ptr_null(v.model);
    ck_assert_int_eq(v.number, 7);
    ck_assert(v.temp > 0.79 && v.temp < 0.81);
    ck_assert_str_eq(v.type, "f16");
    ck_assert_str_eq(v.mode, "auto");
    ck_assert(!v.flag && v.shown);

    GOOD("-m", "a.gguf", "--number", "-1", "--temp=0", "-ctk", "f32", "word");
    ck_assert_str_eq(v.model, "a.gguf");
    ck_assert_int_eq(v.number, -1);
    ck_assert(v.temp == 0);
    ck_assert_str_eq(v.type, "f32");
    ck_assert_uint_eq(r.n_pos, 1);
    ck_assert_str_eq(r.pos[0], "word");
    ck_assert(kvcl_opt_given(&r, "-n") && kvcl_opt_given(&r, "--model"));
    ck_assert(!kvcl_opt_given(&r, "--flag") && !kvcl_opt_given(&r, "--unknown"));

    GOOD("--cache_type_k=f32", "--flag", "--no-show", "-v", "-v", "--", "-m");
    ck_assert_str_eq(v.type, "f32");
    ck_assert(v.flag && !v.shown);
    ck_assert_int_eq(v.verbose, 2);
    ck_assert_str_eq(r.pos[0], "-m");
}
END_TEST

START_TEST(values_that_look_like_options)
{
    values v;
    kvcl_opt_result r;
    GOOD("-m", "-x"); /* no option of ours */
    ck_assert_str_eq(v.model, "-x");
    GOOD("-m", "-");
    ck_assert_str_eq(v.model, "-");
    GOOD("-m", "");
    ck_assert_str_eq(v.model, "");
    GOOD("--model=-n");
    ck_assert_str_eq(v.model, "-n");
    GOOD("-"); /* a word */
    ck_assert_str_eq(r.pos[0], "-");
    BAD("-m needs a value", "-m", "--temp", "0");
    BAD("--model needs a value", "--model");
}
END_TEST

START_TEST(switches)
{
    values v;
    kvcl_opt_result r;
    GOOD("--color");
    ck_assert_str_eq(v.mode, "on");
    GOOD("--color", "off");
    ck_assert_str_eq(v.mode, "off");
    GOOD("--color=auto");
    ck_assert_str_eq(v.mode, "auto");
    GOOD("--color", "word"); /* not a value: the next argument */
    ck_assert_str_eq(v.mode, "on");
    ck_assert_str_eq(r.pos[0], "word");
    BAD("on|off|auto", "--color=blue");
    GOOD("--flag=0");
    ck_assert(!v.flag);
}
END_TEST

START_TEST(lists)
{
    values v;
    kvcl_opt_result r;
    GOOD("-n", "1");
    ck_assert_uint_eq(v.words.n, 0);
    GOOD("--word", "a", "-n", "1", "--word=b=c");
    ck_assert_uint_eq(v.words.n, 2);
    ck_assert_str_eq(v.words.item[0], "a");
    ck_assert_str_eq(v.words.item[1], "b=c");
    setenv("KVCL_OPT_WORD", "env", 1);
    GOOD("-n", "1");
    ck_assert_uint_eq(v.words.n, 1);
    ck_assert_str_eq(v.words.item[0], "env");
    ck_assert(kvcl_opt_given(&r, "--word"));
    GOOD("--word", "x", "--word", "y"); /* instead of the environment's, not behind them */
    ck_assert_uint_eq(v.words.n, 2);
    ck_assert_str_eq(v.words.item[0], "x");
    clear_env();
    BAD("--word needs a value", "--word");
    char *argv[18];
    for (int i = 0; i < 18; i++)
        argv[i] = (char *)(uintptr_t)(i % 2 ? "w" : "--word");
    ck_assert_int_eq(kvcl_opt_parse(&command, 16, argv, &v, &r), KVCL_OK);
    ck_assert_uint_eq(v.words.n, 8);
    ck_assert_int_eq(kvcl_opt_parse(&command, 18, argv, &v, &r), KVCL_E_ARG);
    ck_assert(strstr(r.error, "more than 8 times") != NULL);
}
END_TEST

START_TEST(environment)
{
    values v;
    kvcl_opt_result r;
    setenv("KVCL_OPT_MODEL", "env.gguf", 1);
    setenv("KVCL_OPT_NUMBER", "42", 1);
    setenv("KVCL_OPT_FLAG", "enabled", 1);
    GOOD("-n", "3");
    ck_assert_str_eq(v.model, "env.gguf");
    ck_assert_int_eq(v.number, 3); /* the command line wins */
    ck_assert(v.flag);
    ck_assert(kvcl_opt_given(&r, "--model"));
    setenv("KVCL_OPT_NUMBER", "", 1); /* empty is unset */
    setenv("KVCL_OPT_FLAG", "off", 1);
    GOOD("-v");
    ck_assert_int_eq(v.number, 7);
    ck_assert(!v.flag);
    setenv("KVCL_OPT_NUMBER", "many", 1);
    BAD("KVCL_OPT_NUMBER takes a whole number from -1 to 100, not 'many'", "-v");
    GOOD("--help"); /* help does not care */
    ck_assert_int_eq(r.help, 2);
    clear_env();
}
END_TEST

START_TEST(wrong_values)
{
    values v;
    kvcl_opt_result r;
    static const char *const not_numbers[] = {
        "", " 1", "1 ", "0x10", "1e1", "1.0", "101", "-2", "99999999999999999999", "one"};
    for (size_t i = 0; i < kvcl_array_len(not_numbers); i++)
        BAD("-n takes a whole number from -1 to 100", "-n", not_numbers[i]);
    static const char *const not_floats[] = {"", "nan", "2.1", "-0.1", "inf", "1,5", "1e999"};
    for (size_t i = 0; i < kvcl_array_len(not_floats); i++)
        BAD("--temp takes a number from 0 to 2", "--temp", not_floats[i]);
    BAD("-ctk takes one of f16|f32, not 'f1'", "-ctk", "f1");
    BAD("not 'f16|f32'", "-ctk", "f16|f32");
    BAD("--flag takes 1 or 0", "--flag=maybe");
    BAD("-v takes no value", "-v=2");
    BAD("one argument too many", "a", "b");
}
END_TEST

START_TEST(typos)
{
    values v;
    kvcl_opt_result r;
    BAD("did you mean '--temp'?", "--tmep", "0");
    BAD("did you mean '--model'?", "--modle=x");
    BAD("did you mean '--cache-type-k'?", "--cache-typ-k", "f16");
    BAD("'kvcl walk -h' lists them", "--nothing-like-it");
    BAD("has no option '-z'", "-z");
    ck_assert_uint_eq(kvcl_opt_distance("", ""), 0);
    ck_assert_uint_eq(kvcl_opt_distance("abc", ""), 3);
    ck_assert_uint_eq(kvcl_opt_distance("", "ab"), 2);
    ck_assert_uint_eq(kvcl_opt_distance("kitten", "sitting"), 3);
    ck_assert_uint_eq(kvcl_opt_distance("ab", "ba"), 1);
    ck_assert_uint_eq(kvcl_opt_distance("temp", "tmep"), 1);
    char lengthy[200];
    memset(lengthy, 'x', sizeof lengthy - 1);
    lengthy[0] = lengthy[1] = '-';
    lengthy[sizeof lengthy - 1] = 0;
    BAD("has no option", lengthy);
}
END_TEST

START_TEST(flags_of_llama_cpp)
{
    values v;
    kvcl_opt_result r;
    BAD("--mlock is not supported, because", "--mlock");
    BAD("--grammar is not supported, because", "--grammar", "x");
    BAD("-cnv is not supported, because", "-cnv");
    GOOD("-fa", "on", "word");
    ck_assert_uint_eq(r.n_pos, 1);
    ck_assert_str_eq(r.pos[0], "word");
    ck_assert_uint_eq(r.n_notes, 1);
    GOOD("-fa", "word");
    ck_assert_str_eq(r.pos[0], "word");
    GOOD("--flash-attn=auto", "--no-warmup");
    ck_assert_uint_eq(r.n_notes, 2);
    GOOD("-fa", "-fa", "-fa", "-fa", "-fa", "-fa", "-fa", "-fa");
    ck_assert_uint_eq(r.n_notes, KVCL_OPT_MAX_NOTES);
}
END_TEST

/* What a print function writes, as a string. */
static char *printed(void (*print)(FILE *, const kvcl_command *))
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    ck_assert_ptr_nonnull(f);
    print(f, &command);
    fclose(f);
    return text;
}

static void print_shells(FILE *f, const kvcl_command *cmd)
{
    ck_assert(kvcl_opt_print_completion(f, "bash", &cmd, 1));
    ck_assert(kvcl_opt_print_completion(f, "zsh", &cmd, 1));
    ck_assert(kvcl_opt_print_completion(f, "fish", &cmd, 1));
    ck_assert(!kvcl_opt_print_completion(f, "csh", &cmd, 1));
    kvcl_opt_print_man(f, &cmd, 1);
}

START_TEST(help_names_everything)
{
    char *brief = printed(kvcl_opt_print_short), *full = printed(kvcl_opt_print_full);
    char *shells = printed(print_shells);
    for (size_t i = 0; i < kvcl_array_len(options); i++)
        for (size_t k = 0; k < KVCL_OPT_NAMES && options[i].names[k]; k++) {
            ck_assert(strstr(brief, options[i].names[k]) != NULL);
            ck_assert(strstr(full, options[i].names[k]) != NULL);
            ck_assert(strstr(shells, options[i].names[k]) != NULL);
        }
    ck_assert(strstr(full, "Examples") < strstr(full, "usage:"));
    ck_assert(strstr(full, "[KVCL_OPT_NUMBER]") != NULL);
    ck_assert(strstr(full, "(default 0.8)") != NULL);
    ck_assert(strstr(full, "130") != NULL);
    for (const char *line = full; *line; line += strcspn(line, "\n") + 1)
        ck_assert_msg(strcspn(line, "\n") <= 82, "%.90s", line);
    free(brief);
    free(full);
    free(shells);
    values v;
    kvcl_opt_result r;
    GOOD("-n", "bad", "-h");
    ck_assert_int_eq(r.help, 1);
}
END_TEST

START_TEST(tables)
{
    kvcl_table t;
    kvcl_table_init(&t, "a|>number");
    kvcl_table_add(&t);
    kvcl_table_set(&t, 0, "%s", "w\xc3\xb6rd");
    kvcl_table_set(&t, 1, "%d", 7);
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    ck_assert_ptr_nonnull(f);
    kvcl_table_print(&t, f, true, false);
    kvcl_table_print(&t, f, false, false);
    fclose(f);
    ck_assert_str_eq(text, "| a    | number |\n| ---- | -----: |\n| w\xc3\xb6rd |      7 |\n"
                           "a     number\nw\xc3\xb6rd       7\n");
    free(text);
    for (int i = 0; i < 2 * KVCL_TABLE_ROWS; i++)
        kvcl_table_add(&t);
    ck_assert_uint_eq(t.n_rows, KVCL_TABLE_ROWS);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("opt");
    TCase *t = tcase_create("opt");
    tcase_add_checked_fixture(t, clear_env, NULL);
    tcase_add_test(t, takes_values);
    tcase_add_test(t, values_that_look_like_options);
    tcase_add_test(t, switches);
    tcase_add_test(t, lists);
    tcase_add_test(t, environment);
    tcase_add_test(t, wrong_values);
    tcase_add_test(t, typos);
    tcase_add_test(t, flags_of_llama_cpp);
    tcase_add_test(t, help_names_everything);
    tcase_add_test(t, tables);
    suite_add_tcase(s, t);
    return test_main(s, false);
}
