/* choices.c - multiple choice in the layout of MMLU (Hendrycks et al., "Measuring Massive Multitask
 * Language Understanding", 2021) made a table of texts and labels. The label is the letter of the
 * right answer; the text ends where the letter would follow. */
#include "file/table_rows.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"

enum { MOST = NM__LABELS_MAX, NONE = -1 };

struct layout {
  const struct nm__table *t;
  int question, answer, list;      /* columns; list: all choices in one cell, or NONE */
  int letter[MOST], n_letters;     /* else a column each */
  bool headless;                   /* the names are a row, too */
};

static int col(const struct nm__table *t, const char *name) {
  for (size_t i = 0; i < t->n_cols; i++)
    if (!strcasecmp(t->cols[i], name)) return (int)i;
  return NONE;
}

static const char *cell(const struct layout *l, size_t row, int c) {
  if (l->headless && row == 0) return l->t->cols[c];
  return l->t->cells[(row - l->headless) * l->t->n_cols + (size_t)c];
}

/* "B", "b" or "1" is 1; NONE: neither a letter nor a number of the first n choices. */
static int which(const char *s, int n) {
  if (!s || !*s) return NONE;
  int k = s[1] == 0 ? (s[0] | 32) - 'a' : NONE;
  if (s[0] >= '0' && s[0] <= '9' && s[1] == 0) k = s[0] - '0';
  else if (!((s[0] | 32) >= 'a' && (s[0] | 32) <= 'z')) k = NONE;
  return k >= 0 && k < n ? k : NONE;
}

/* MMLU's own files have no names: six columns, the last a letter of four in every row. */
static bool is_headless(struct layout *l) {
  const struct nm__table *t = l->t;
  if (t->form != NM__TABLE_CSV || t->n_cols != 6 || which(t->cols[5], 4) < 0 ||
      (t->cols[5][0] >= '0' && t->cols[5][0] <= '9'))
    return false;
  for (size_t i = 0; i < t->n_rows; i++)
    if (which(t->cells[i * 6 + 5], 4) < 0) return false;
  *l = (struct layout){t, 0, 5, NONE, {1, 2, 3, 4}, 4, true};
  return true;
}

static bool recognise(struct layout *l) {
  const struct nm__table *t = l->t;
  l->question = col(t, "question");
  l->answer = col(t, "answer");
  l->list = col(t, "choices");
  char name[2] = "A";
  for (; l->n_letters < MOST && col(t, name) != NONE; name[0]++)
    l->letter[l->n_letters++] = col(t, name);
  bool named = l->question != NONE && l->answer != NONE && t->n_rows &&
               (l->n_letters >= 3 || (l->list != NONE && cell(l, 0, l->list) &&
                                      *cell(l, 0, l->list) == '['));
  if (l->n_letters >= 3) l->list = NONE;
  return named || is_headless(l);
}

/* "\nA. first" and so on; how many there are, 0 with a sentence when a choice is missing. */
static int put_choices(const struct layout *l, size_t row, struct nm__buf *b) {
  json_t *list = NULL;
  int n = l->n_letters;
  if (l->list != NONE) {
    const char *s = cell(l, row, l->list);
    list = s ? json_loads(s, 0, NULL) : NULL;
    size_t k = json_array_size(list);
    n = k <= MOST ? (int)k : 0;
  }
  for (int k = 0; k < n; k++) {
    json_t *v = json_array_get(list, (size_t)k);
    const char *s = list ? json_string_value(v) : cell(l, row, l->letter[k]);
    char *number = list && !s ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    if (!s) s = number;
    nm__buf_printf(b, "\n%c. ", 'A' + k);
    nm__buf_puts(b, s ? s : "");
    free(number);
  }
  json_decref(list);
  return n;
}

static int put_row(const struct layout *l, size_t row, struct nm__rows *r, struct nm__buf *b,
                   const int *others, int n_others) {
  size_t line = row < (size_t)l->headless ? 1 : l->t->line[row - l->headless];
  const char *q = cell(l, row, l->question);
  char letter[2] = "A";
  nm__buf_reset(b);
  nm__buf_puts(b, q ? q : "");
  int n = put_choices(l, row, b), k = which(cell(l, row, l->answer), n);
  nm__buf_puts(b, "\nAnswer:");
  if (!q || !*q || n < 2 || k < 0)
    return nm__fail(r->err, NM_EFORMAT, "%s: %s %zu: a question, its choices and the letter (or "
                    "number) of one of them are needed", r->name, line ? "line" : "row",
                    line ? line : row + 1);
  if (b->failed) return nm__fail_memory(r->err, "a text", b->len);
  letter[0] = (char)('A' + k);
  int st = nm__rows_cell(r, b->s, b->len, line);
  if (!st) st = nm__rows_cell(r, letter, 1, line);
  for (int i = 0; i < n_others && !st; i++) {
    const char *s = cell(l, row, others[i]);
    st = nm__rows_cell(r, s, s ? strlen(s) : 0, line);
  }
  return st ? st : nm__rows_end(r, line);
}

/* Columns that are no part of question, choices and answer. */
static int other_columns(const struct layout *l, int *out) {
  int n = 0;
  for (int c = 0; c < (int)l->t->n_cols; c++) {
    bool used = c == l->question || c == l->answer || c == l->list ||
                !strcasecmp(l->t->cols[c], "text");
    for (int k = 0; k < l->n_letters; k++) used |= c == l->letter[k];
    if (!used) out[n++] = c;
  }
  return n;
}

int nm__table_choices(const char *name, struct nm__table *t, bool *is, nm_err *err) {
  struct layout l = {.t = t};
  int others[NM__TABLE_COLS_MAX], st = NM_OK;
  struct nm__table made;
  struct nm__rows r;
  struct nm__buf b;
  *is = recognise(&l);
  if (!*is) return NM_OK;
  int n_others = other_columns(&l, others);
  nm__rows_init(&r, name, err);
  nm__buf_init(&b, NM__TABLE_CELL_MAX);
  st = nm__rows_col(&r, "text", 4);
  if (!st) st = nm__rows_col(&r, "answer", 6);
  for (int i = 0; i < n_others && !st; i++)
    st = nm__rows_col(&r, t->cols[others[i]], strlen(t->cols[others[i]]));
  for (size_t i = 0; i < t->n_rows + l.headless && !st; i++)
    st = put_row(&l, i, &r, &b, others, n_others);
  if (!st) st = nm__rows_finish(&r, t->form, &made);
  nm__rows_done(&r);
  nm__buf_done(&b);
  if (st) return st;
  nm__table_done(t);
  *t = made;
  return NM_OK;
}
