/* cmd_table.h - small tables of text: columns as wide as their widest cell. */
#ifndef KVCL_CMD_TABLE_H
#define KVCL_CMD_TABLE_H

#include "base.h"

#include <stdio.h>

#define KVCL_TABLE_COLS 12
#define KVCL_TABLE_ROWS 72
#define KVCL_TABLE_CELL 100

typedef struct kvcl_table {
    size_t n_cols, n_rows; /* row 0 is the heading */
    uint32_t right;        /* bit c: column c is aligned to the right */
    char cell[KVCL_TABLE_ROWS][KVCL_TABLE_COLS][KVCL_TABLE_CELL];
} kvcl_table;

/* Starts a table with the words of "a|b|c" as its heading; ">b" aligns column b to the right. */
void kvcl_table_init(kvcl_table *t, const char *heading);
/* Adds an empty row and returns its number; the last row is used again when the table is full. */
size_t kvcl_table_add(kvcl_table *t);
/* Writes a cell of the last row; too long a text is cut. */
void kvcl_table_set(kvcl_table *t, size_t col, const char *fmt, ...) KVCL_PRINTF(3, 4);
/* markdown: with bars, to paste into a page; else plain columns, heading underlined when color. */
void kvcl_table_print(const kvcl_table *t, FILE *f, bool markdown, bool color);

#endif
