/* cmd_tokenize.c - kvcl tokenize: text to token ids. */
#include "cmd.h"

#include "mem.h"
#include "os.h"

#include <stddef.h>

typedef struct tokenize_opts {
    kvcl_common_opts common;
    kvcl_model_opts model;
    const char *prompt, *file, *out;
    bool escape, json, pieces, no_bos, no_eos, control, count;
} tokenize_opts;

#define AT(member) .offset = offsetof(tokenize_opts, member)

static const kvcl_opt options[] = {
    {.kind = KVCL_OPT_HEADING, .help = "Input"},
    KVCL_ROW_MODEL(tokenize_opts),
    KVCL_ROWS_TEXT(tokenize_opts),
    {.names = {"-e", "--escape"},
     .kind = KVCL_OPT_FLAG,
     AT(escape),
     .help = "read \\n, \\t, \\\", \\\\ and \\xHH in -p"},
    {.names = {"--no-bos"},
     .kind = KVCL_OPT_FLAG,
     AT(no_bos),
     .help = "no begin token, even if the model wants one"},
    {.names = {"--no-eos"},
     .kind = KVCL_OPT_FLAG,
     AT(no_eos),
     .help = "no end token, even if the model wants one"},
    {.names = {"--special"},
     .kind = KVCL_OPT_FLAG,
     AT(control),
     .help = "control tokens written in the text are those tokens"},
    {.kind = KVCL_OPT_HEADING, .help = "Output"},
    {.names = {"--pieces"},
     .kind = KVCL_OPT_FLAG,
     AT(pieces),
     .help = "one token per line: id and its text"},
    {.names = {"--count", "--show-count"},
     .kind = KVCL_OPT_FLAG,
     AT(count),
     .help = "the number of tokens only"},
    {.names = {"--json"},
     .kind = KVCL_OPT_FLAG,
     AT(json),
     .help = "as JSON; with --pieces the texts too"},
    {.names = {"-o", "--ids"},
     .kind = KVCL_OPT_STRING,
     AT(out),
     .arg = "FILE",
     .help = "write the ids as little-endian int32 into a file (for --tokens of other "
             "subcommands)"},
    KVCL_ROWS_COMMON(tokenize_opts),
};

static kvcl_status write_ids(kvcl_app *app, const char *path, const int32_t *ids, size_t n)
{
    kvcl_os_out *f;
    kvcl_status st = KVCL_OK;
    KVCL_TRY(kvcl_os_out_create(app->ctx, path, &f));
    for (size_t i = 0; i < n && st == KVCL_OK; i++) {
        uint32_t v = (uint32_t)ids[i];
        unsigned char b[4] = {v & 0xff, v >> 8 & 0xff, v >> 16 & 0xff, (unsigned char)(v >> 24)};
        st = kvcl_os_out_write(f, b, sizeof b);
    }
    if (st == KVCL_OK)
        return kvcl_os_out_commit(f);
    kvcl_os_out_abort(f);
    return st;
}

static kvcl_status print_json(kvcl_app *app, const int32_t *ids, size_t n, bool pieces)
{
    json_t *list = json_array(), *texts = json_array();
    kvcl_status st = KVCL_OK;
    for (size_t i = 0; i < n && st == KVCL_OK; i++) {
        const char *bytes;
        size_t n_bytes;
        json_array_append_new(list, json_integer(ids[i]));
        st = kvcl_token_bytes(app->model, ids[i], &bytes, &n_bytes);
        if (st == KVCL_OK && pieces)
            json_array_append_new(texts, kvcl_json_text(bytes, n_bytes));
    }
    json_t *root = json_pack("{s:s, s:I, s:o}", "schema", "kvcl.tokenize/1", "n_tokens",
                             (json_int_t)n, "tokens", list);
    if (pieces)
        json_object_set_new(root, "pieces", texts);
    else
        json_decref(texts);
    if (st != KVCL_OK) {
        json_decref(root);
        return st;
    }
    return kvcl_json_print(app->ctx, root);
}

static kvcl_status print_pieces(kvcl_app *app, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t n_bytes;
        char text[1024];
        KVCL_TRY(kvcl_token_bytes(app->model, ids[i], &bytes, &n_bytes));
        kvcl_show_bytes(bytes, n_bytes, text, sizeof text);
        if (n_bytes == 0)
            printf("%6d  (control token)\n", ids[i]);
        else
            printf("%6d  \"%s\"\n", ids[i], text);
    }
    return KVCL_OK;
}

static kvcl_status report(kvcl_app *app, const tokenize_opts *o, const int32_t *ids, size_t n)
{
    if (o->out)
        KVCL_TRY(write_ids(app, o->out, ids, n));
    if (o->json)
        return print_json(app, ids, n, o->pieces);
    if (o->count)
        printf("%zu\n", n);
    else if (o->pieces)
        return print_pieces(app, ids, n);
    else if (o->out)
        kvcl_app_note(app, "%zu ids written to %s", n, o->out);
    else
        for (size_t i = 0; i < n; i++)
            printf("%d%c", ids[i], i + 1 < n ? ' ' : '\n');
    return KVCL_OK;
}

static kvcl_status tokenize(kvcl_app *app, const tokenize_opts *o)
{
    char *text;
    size_t n_bytes, n;
    int32_t *ids;
    KVCL_CHECK(app->ctx, o->prompt || o->file, KVCL_E_ARG,
               "no text: give one with -p, or with -f (- is standard input)");
    KVCL_TRY(kvcl_read_text(app->ctx, o->prompt, o->file, &text, &n_bytes));
    if (o->escape && !o->file)
        n_bytes = kvcl_unescape(text, n_bytes);
    kvcl_status st = kvcl_app_open_model(app, &o->model);
    if (st == KVCL_OK)
        st = kvcl_tokenize_with(app->model, text, n_bytes,
                                &(kvcl_tokenize_options){.add_bos = o->no_bos ? 0 : -1,
                                                         .add_eos = o->no_eos ? 0 : -1,
                                                         .control = o->control},
                                &ids, &n);
    kvcl_mem_free(app->ctx, text);
    KVCL_TRY(st);
    st = report(app, o, ids, n);
    kvcl_tokens_free(app->model, ids);
    return st;
}

static int tokenize_main(const void *values, const kvcl_opt_result *parsed)
{
    const tokenize_opts *o = values;
    kvcl_app app;
    int code;
    if (!kvcl_app_open(&app, &o->common, NULL, parsed, &code))
        return code;
    code = kvcl_app_finish(&app, tokenize(&app, o));
    if (code == 0)
        code = kvcl_app_finish_stdout(&app);
    kvcl_app_close(&app);
    return code;
}

const kvcl_command kvcl_cmd_tokenize = {
    .name = "tokenize",
    .summary = "Cuts a text into tokens",
    .synopsis = "[-m FILE] (-p TEXT | -f FILE) [--pieces | --count | --json] [-o FILE]",
    .examples = "  kvcl tokenize -p 'Hello world'             # ids\n"
                "  kvcl tokenize -p 'Hello world' --pieces    # ids with their texts\n"
                "  kvcl tokenize -f book.txt --count          # how long is it?\n"
                "  kvcl tokenize -f book.txt -o book.i32      # ids for logits and compare\n",
    .notes = "Control tokens written out in the text are not parsed (\"</s>\" is four characters) "
             "unless\n--special says so; user-defined tokens of the vocabulary always are.",
    .opts = options,
    .n_opts = kvcl_array_len(options),
    .values_bytes = sizeof(tokenize_opts),
    .run = tokenize_main,
};
