/* table.h - labelled texts out of whatever form a user has: CSV, TSV, JSON (an
 * array of objects, or an object holding one), JSONL, BIG-bench JSON, and the
 * STSA form ("LABEL SPACE text" a line). The form is recognised by content, never
 * by the file's name.
 *
 * A table is rows of named string cells plus, once asked for, texts with labels. */
#ifndef NM_FILE_TABLE_H
#define NM_FILE_TABLE_H

#include "core/core.h"

enum nm__table_form {
  NM__TABLE_CSV, NM__TABLE_TSV, NM__TABLE_JSON, NM__TABLE_JSONL, NM__TABLE_BIGBENCH, NM__TABLE_STSA
};

struct nm__table {
  enum nm__table_form form;
  size_t n_rows, n_cols;
  char **cols;                     /* n_cols names */
  char **cells;                    /* [n_rows][n_cols]; NULL where the row lacks the field */
  size_t *line;                    /* first line of each row in the file, from 1 (0: not known) */
  char *text;                      /* where the cells' bytes stand */
};

int nm__table_read(const char *path, struct nm__table *t, nm_err *err);
int nm__table_parse(const char *name, const void *bytes, size_t n, struct nm__table *t,
                    nm_err *err);
void nm__table_done(struct nm__table *t);
const char *nm__table_form_name(enum nm__table_form f);
int nm__table_col(const struct nm__table *t, const char *name);      /* -1: none */

/* The column that holds the texts: the one named `col`, else one with a usual name, else the one
 * with the longest cells. */
int nm__table_text_col(const char *name, const struct nm__table *t, const char *col, int *out,
                       nm_err *err);

/* Multiple choice in the layout of MMLU, recognised by content: the columns question, A, B, C, D
 * and answer (with or without a first line of names), or question, choices (a list) and answer; the
 * answer is a letter or its number. Such a table becomes one of texts ("QUESTION\nA. ...\nB. ...
 * \nAnswer:"), with the answers' letters as labels and whatever else there was; *is says so. Others
 * stay as they are. */
int nm__table_choices(const char *name, struct nm__table *t, bool *is, nm_err *err);

enum { NM__LABELS_MAX = 26 };

/* Texts with a label 0/1 (or of more classes, when they are allowed), and the group a row belongs
 * to (true/false twins share one). */
struct nm__labelled {
  size_t n;
  char **text;
  uint8_t *label;
  uint32_t *group;                 /* 0..n_groups-1 */
  size_t n_groups;
  bool grouped;                    /* twins were found: splits must keep groups together */
  char *how;                       /* one sentence: columns used, labels mapped, how grouped */
  int n_labels;
  char *label_name[NM__LABELS_MAX];    /* as written in the file: e.g. {"False","True"} */
};
struct nm__labelled_opts {
  const char *text_col, *label_col, *group_col;   /* NULL: found by name and content */
  size_t max_rows;                 /* 0: all; else the first rows of each label alternately
                                      kept in file order, whole groups */
  int max_labels;                  /* 0: 2; at most NM__LABELS_MAX */
};
/* Fails (NM_EFORMAT, naming file and line/row, and for unknown columns listing those found) on
 * no rows, one class, more labels than allowed, an empty text, an undecidable label column. */
int nm__labelled_from(const char *name, const struct nm__table *t,
                      const struct nm__labelled_opts *o, struct nm__labelled *out, nm_err *err);
void nm__labelled_done(struct nm__labelled *l);

#endif
