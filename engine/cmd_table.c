/* cmd_table.c - small tables of text.  See cmd_table.h. */
#include "cmd_table.h"

void kvcl_table_init(kvcl_table *t, const char *heading)
{
    memset(t, 0, sizeof *t);
    t->n_rows = 1;
    for (const char *p = heading; t->n_cols < KVCL_TABLE_COLS; p++) {
        size_t n = strcspn(p, "|");
        if (*p == '>') {
            t->right |= UINT32_C(1) << t->n_cols;
            p++;
            n--;
        }
        snprintf(t->cell[0][t->n_cols++], KVCL_TABLE_CELL, "%.*s", (int)n, p);
        p += n;
        if (!*p)
            break;
    }
}

size_t kvcl_table_add(kvcl_table *t)
{
    if (t->n_rows < KVCL_TABLE_ROWS)
        t->n_rows++;
    memset(t->cell[t->n_rows - 1], 0, sizeof t->cell[0]);
    return t->n_rows - 1;
}

void kvcl_table_set(kvcl_table *t, size_t col, const char *fmt, ...)
{
    if (col >= t->n_cols)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->cell[t->n_rows - 1][col], KVCL_TABLE_CELL, fmt, ap);
    va_end(ap);
}

/* Characters, not bytes: UTF-8 continuation bytes take no column. */
static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_cell(const kvcl_table *t, FILE *f, size_t row, size_t col, size_t width,
                       bool last)
{
    const char *s = t->cell[row][col];
    int pad = (int)(width - width_of(s));
    bool right = (t->right >> col & 1) != 0;
    if (right)
        fprintf(f, "%*s%s", pad, "", s);
    else if (last)
        fputs(s, f);
    else
        fprintf(f, "%s%*s", s, pad, "");
}

static void print_rule(const kvcl_table *t, FILE *f, const size_t *width)
{
    for (size_t c = 0; c < t->n_cols; c++) {
        fputs(c ? " | " : "| ", f);
        bool right = (t->right >> c & 1) != 0;
        for (size_t i = 0; i + right < width[c]; i++)
            fputc('-', f);
        if (right)
            fputc(':', f);
    }
    fputs(" |\n", f);
}

void kvcl_table_print(const kvcl_table *t, FILE *f, bool markdown, bool color)
{
    size_t width[KVCL_TABLE_COLS] = {0};
    for (size_t r = 0; r < t->n_rows; r++)
        for (size_t c = 0; c < t->n_cols; c++)
            width[c] = kvcl_max_size(width[c], width_of(t->cell[r][c]));
    for (size_t r = 0; r < t->n_rows; r++) {
        bool paint = color && r == 0;
        if (paint)
            fputs("\033[1m", f);
        for (size_t c = 0; c < t->n_cols; c++) {
            fputs(markdown ? (c ? " | " : "| ") : c ? "  " : "", f);
            print_cell(t, f, r, c, width[c], !markdown && c + 1 == t->n_cols);
        }
        fputs(markdown ? " |" : "", f);
        fputs(paint ? "\033[0m\n" : "\n", f);
        if (markdown && r == 0)
            print_rule(t, f, width);
    }
}
