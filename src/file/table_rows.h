/* table_rows.h - a table while it grows: shared by the readers of the single forms,
 * not for use outside this folder.
 *
 * Columns first, then row by row exactly n_cols cells and nm__rows_end. The cells'
 * bytes go one after another into one string, so a table of a million cells is three
 * allocations. nm__rows_finish hands everything to the table. */
#ifndef NM_FILE_TABLE_ROWS_H
#define NM_FILE_TABLE_ROWS_H

#include "file/table.h"

#define NM__TABLE_FILE_MAX ((size_t)1 << 30)
#define NM__TABLE_CELL_MAX ((size_t)1 << 20)
#define NM__TABLE_COLS_MAX 1024

struct nm__rows {
  const char *name;                /* of the file, for messages */
  nm_err *err;
  char **cols;
  size_t n_cols;
  struct nm__buf text;
  size_t *cells;                   /* offset in text plus 1; 0: the row lacks the field */
  size_t n_cells, cap_cells;
  size_t *line;
  size_t n_rows, cap_rows;
};

void nm__rows_init(struct nm__rows *r, const char *name, nm_err *err);
void nm__rows_done(struct nm__rows *r);
/* Refuses a name that is there already, unless it is empty. */
int nm__rows_col(struct nm__rows *r, const char *name, size_t n);
/* A cell: opened, its bytes put into r->text, closed. Or all at once; NULL: lacks. */
int nm__rows_cell_open(struct nm__rows *r);
int nm__rows_cell_close(struct nm__rows *r, size_t line);
int nm__rows_cell(struct nm__rows *r, const char *s, size_t n, size_t line);
size_t nm__rows_width(const struct nm__rows *r);      /* cells of the unfinished row */
int nm__rows_end(struct nm__rows *r, size_t line);
/* Moves all into t and empties r. */
int nm__rows_finish(struct nm__rows *r, enum nm__table_form form, struct nm__table *t);

/* JSON, JSONL and BIG-bench: sets the form. */
int nm__table_parse_json(const char *name, const char *s, size_t n, struct nm__rows *r,
                         enum nm__table_form *form, nm_err *err);

#endif
