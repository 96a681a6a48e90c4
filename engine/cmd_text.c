/* cmd_text.c - text, token files and JSON of the subcommands.  See cmd.h. */
#include "cmd.h"

#include "mem.h"
#include "os.h"

/* ---- UTF-8 --------------------------------------------------------------------------------- */

/* Length that a first byte promises and the range of the second byte (RFC 3629); 0: no first byte.
 */
static int lead(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (c < 0x80)
        return 1;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    if (c == 0xe0)
        *low = 0xa0; /* no overlong forms */
    if (c == 0xed)
        *high = 0x9f; /* no surrogates */
    if (c == 0xf0)
        *low = 0x90;
    if (c == 0xf4)
        *high = 0x8f; /* nothing above U+10FFFF */
    return c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

int kvcl_utf8_step(const char *s, size_t n)
{
    unsigned char low, high;
    int len = lead((unsigned char)s[0], &low, &high);
    for (int i = 1; i < len; i++) {
        if ((size_t)i >= n)
            return -1;
        unsigned char c = (unsigned char)s[i];
        if (c < low || c > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

size_t kvcl_utf8_first_bad(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        int step = kvcl_utf8_step(s + i, n - i);
        if (step <= 0)
            return i;
        i += (size_t)step;
    }
    return n;
}

size_t kvcl_utf8_repair(const char *s, size_t n, char *out)
{
    size_t m = 0;
    for (size_t i = 0; i < n;) {
        int step = kvcl_utf8_step(s + i, n - i);
        if (step <= 0) {
            memcpy(out + m, "\xef\xbf\xbd", 3);
            m += 3;
            i++;
        } else {
            memcpy(out + m, s + i, (size_t)step);
            m += (size_t)step;
            i += (size_t)step;
        }
    }
    return m;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t kvcl_unescape(char *s, size_t n)
{
    static const char from[] = "nrt'\"\\", to[] = "\n\r\t'\"\\";
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        const char *p = s[i] == '\\' && i + 1 < n && s[i + 1] ? strchr(from, s[i + 1]) : NULL;
        if (p) {
            s[m++] = to[p - from];
            i++;
        } else if (s[i] == '\\' && i + 3 < n && s[i + 1] == 'x' && hex_digit(s[i + 2]) >= 0 &&
                   hex_digit(s[i + 3]) >= 0) {
            s[m++] = (char)(unsigned char)(hex_digit(s[i + 2]) * 16 + hex_digit(s[i + 3]));
            i += 3;
        } else {
            s[m++] = s[i];
        }
    }
    s[m] = 0;
    return m;
}

void kvcl_show_bytes(const char *s, size_t n, char *out, size_t cap)
{
    size_t m = 0;
    for (size_t i = 0; i < n && m + 5 < cap;) {
        int step = kvcl_utf8_step(s + i, n - i);
        unsigned char c = (unsigned char)s[i];
        if (step <= 0 || c < 0x20 || c == 0x7f) {
            const char *fmt = c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : "\\x%02x";
            m += (size_t)snprintf(out + m, cap - m, fmt, (unsigned)c);
            i++;
        } else {
            if (c == '"' || c == '\\')
                out[m++] = '\\';
            memcpy(out + m, s + i, (size_t)step);
            m += (size_t)step;
            i += (size_t)step;
        }
    }
    out[m] = 0;
}

/* ---- input --------------------------------------------------------------------------------- */

kvcl_status kvcl_read_text(kvcl_ctx *ctx, const char *prompt, const char *file, char **out,
                           size_t *n_out)
{
    KVCL_CHECK(ctx, !(prompt && file), KVCL_E_ARG,
               "-p and -f are both given; which one is the text? Give one of them");
    if (file)
        return kvcl_os_read_file(ctx, file, KVCL_MAX_INPUT, out, n_out);
    KVCL_TRY(kvcl_mem_strdup(ctx, prompt ? prompt : "", out));
    *n_out = strlen(*out);
    return KVCL_OK;
}

kvcl_status kvcl_read_tokens(kvcl_ctx *ctx, const char *path, uint32_t n_vocab, int32_t **out,
                             size_t *n_out)
{
    char *raw;
    size_t bytes;
    KVCL_TRY(kvcl_os_read_file(ctx, path, KVCL_MAX_INPUT, &raw, &bytes));
    kvcl_status st = KVCL_OK;
    void *p = NULL;
    KVCL_CHECK_GOTO(ctx, bytes > 0 && bytes % 4 == 0, KVCL_E_FORMAT,
                    "%s: %zu bytes are no list of int32 token ids; write one with 'kvcl tokenize "
                    "-o FILE'",
                    path, bytes);
    KVCL_TRY_GOTO(kvcl_mem_array(ctx, bytes / 4, sizeof(int32_t), "token ids", &p));
    for (size_t i = 0; i < bytes / 4; i++) {
        const unsigned char *b = (const unsigned char *)raw + 4 * i;
        uint32_t id = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        KVCL_CHECK_GOTO(ctx, id < n_vocab, KVCL_E_FORMAT,
                        "%s: id %u at position %zu is outside the vocabulary of %u; the file is of "
                        "another model",
                        path, id, i, n_vocab);
        ((int32_t *)p)[i] = (int32_t)id;
    }
    *out = p;
    *n_out = bytes / 4;
    p = NULL;
fail:
    kvcl_mem_free(ctx, p);
    kvcl_mem_free(ctx, raw);
    return st;
}

/* Tokenises into memory of the context, so that all inputs are freed alike. */
static kvcl_status text_tokens(kvcl_app *app, const char *text, size_t n_bytes, int32_t **out,
                               size_t *n_out)
{
    int32_t *ids;
    size_t n;
    void *p;
    KVCL_TRY(kvcl_tokenize(app->model, text, n_bytes, -1, &ids, &n));
    kvcl_status st = kvcl_mem_array(app->ctx, n + 1, sizeof *ids, "token ids", &p);
    if (st == KVCL_OK) {
        if (n > 0)
            memcpy(p, ids, n * sizeof *ids);
        *out = p;
        *n_out = n;
    }
    kvcl_tokens_free(app->model, ids);
    return st;
}

kvcl_status kvcl_input_tokens(kvcl_app *app, const char *prompt, const char *file,
                              const char *tokens_file, int32_t **out, size_t *n_out)
{
    kvcl_ctx *ctx = app->ctx;
    KVCL_CHECK(ctx, prompt || file || tokens_file, KVCL_E_ARG,
               "no input: give a text with -p or -f, or ids with --tokens");
    KVCL_CHECK(ctx, !tokens_file || !(prompt || file), KVCL_E_ARG,
               "--tokens and a text are both given; give one of them");
    if (tokens_file)
        return kvcl_read_tokens(ctx, tokens_file, kvcl_model_get_info(app->model)->n_vocab, out,
                                n_out);
    char *text;
    size_t n_bytes;
    KVCL_TRY(kvcl_read_text(ctx, prompt, file, &text, &n_bytes));
    kvcl_status st = text_tokens(app, text, n_bytes, out, n_out);
    kvcl_mem_free(ctx, text);
    KVCL_TRY(st);
    if (*n_out == 0) {
        kvcl_mem_free(ctx, *out);
        KVCL_CHECK(ctx, false, KVCL_E_ARG,
                   "the text is empty and this model has no token to begin with; give some text");
    }
    return KVCL_OK;
}

/* ---- JSON ---------------------------------------------------------------------------------- */

json_t *kvcl_json_text(const char *s, size_t n)
{
    json_t *j = json_stringn(s, n);
    if (j)
        return j;
    char fixed[3 * 4096]; /* names from drivers and tokens are short; longer ones are cut */
    return json_stringn(fixed, kvcl_utf8_repair(s, kvcl_min_size(n, 4096), fixed));
}

kvcl_status kvcl_json_print(kvcl_ctx *ctx, json_t *root)
{
    KVCL_CHECK(ctx, root, KVCL_E_MEM, "no memory for the JSON report; ask for less");
    bool ok = json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0;
    json_decref(root);
    fputc('\n', stdout);
    KVCL_CHECK(ctx, ok, KVCL_E_IO, "standard output cannot be written (disk full?)");
    return KVCL_OK;
}
