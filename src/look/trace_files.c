/* trace_files.c - figures measured elsewhere: products of node means, accuracies by position. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file/table.h"
#include "look/trace.h"

enum { MAX_WALKS = 4096 };

/* A finite number and nothing else. */
static bool number(const char *s, double *out) {
  char *end;
  if (!s || !*s || strspn(s, "+-0123456789.eE") != strlen(s)) return false;
  *out = strtod(s, &end);
  return !*end && isfinite(*out);
}

static int bad_cell(const char *file, const struct nm__table *t, size_t row, size_t col,
                    const char *must, nm_err *err) {
  char shown[40];
  const char *s = t->cells[row * t->n_cols + col];
  return nm__fail(err, NM_EFORMAT, "%s:%zu: '%s' in column %zu is not %s", file, t->line[row],
                  nm__printable(shown, sizeof shown, s ? s : "", s ? strlen(s) : 0), col + 1, must);
}

/* ---- products ------------------------------------------------------------------------ */

static int read_gram(const char *file, const struct nm__table *t, struct nm__gram_file *g,
                     nm_err *err) {
  size_t n = (size_t)g->n;
  for (size_t i = 0; i < n; i++) {
    const char *name = t->cells[i * t->n_cols];
    if (!name || strcmp(name, t->cols[i + 1]) || strlen(name) >= NM__TRACE_WORD)
      return bad_cell(file, t, i, 0, "the node that column is of (rows and columns in one order, "
                      "names below 64 bytes)", err);
    memcpy(g->name[i], name, strlen(name) + 1);
    for (size_t j = 0; j < n; j++)
      if (!number(t->cells[i * t->n_cols + j + 1], &g->gram[i * n + j]))
        return bad_cell(file, t, i, j + 1, "a finite number", err);
  }
  double size = 0;
  for (size_t i = 0; i < n; i++) size = fmax(size, fabs(g->gram[i * n + i]));
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < i; j++)
      if (!(fabs(g->gram[i * n + j] - g->gram[j * n + i]) <= 1e-3 * size))
        return nm__fail(err, NM_EFORMAT, "%s: the product of nodes %zu and %zu is %g one way and "
                                         "%g "
                        "the other: not a matrix of products", file, i, j, g->gram[i * n + j],
                        g->gram[j * n + i]);
  return NM_OK;
}

int nm__gram_parse(const char *file, const char *text, size_t size, struct nm__gram_file *g,
                   nm_err *err) {
  struct nm__table t;
  *g = (struct nm__gram_file){0};
  int st = nm__table_parse(file, text, size, &t, err);
  if (st) return st;
  size_t n = t.n_rows;
  if (t.form != NM__TABLE_CSV || n < 4 || n > NM__GRAPH_NODES || t.n_cols != n + 1)
    st = nm__fail(err, NM_EFORMAT, "%s: %zu rows of %zu columns; a matrix of products is a CSV "
                                   "of a "
                  "header and n rows of a name and n numbers, n from 4 to %d", file, n, t.n_cols,
                  NM__GRAPH_NODES);
  if (!st) {
    g->n = (int)n;
    g->name = nm__alloc(n, sizeof *g->name);
    g->gram = nm__alloc(n * n, sizeof *g->gram);
    st = g->name && g->gram ? read_gram(file, &t, g, err)
                            : nm__fail_memory(err, "a matrix of products", n * n * 8);
  }
  nm__table_done(&t);
  if (st) nm__gram_done(g);
  return st;
}

void nm__gram_done(struct nm__gram_file *g) {
  free(g->name);
  free(g->gram);
  *g = (struct nm__gram_file){0};
}

/* ---- accuracies -------------------------------------------------------------------------- */

static int read_accuracy(const char *file, const struct nm__table *t, struct nm__accuracy_file *a,
                         nm_err *err) {
  size_t walks = (size_t)a->walks;
  for (size_t i = 0; i < a->n; i++) {
    if (!number(t->cells[i * t->n_cols], &a->position[i]) || a->position[i] < 0 ||
        a->position[i] > 1e9 || (i && a->position[i] <= a->position[i - 1]))
      return bad_cell(file, t, i, 0, "a position behind the one before it", err);
    for (size_t k = 0; k < walks; k++) {
      const char *s = t->cells[i * t->n_cols + k + 1];
      double *v = &a->acc[i * walks + k];
      if (!s || !*s) *v = NAN;
      else if (!number(s, v) || *v < 0 || *v > 1.001)
        return bad_cell(file, t, i, k + 1, "an accuracy from 0 to 1", err);
    }
  }
  return NM_OK;
}

int nm__accuracy_parse(const char *file, const char *text, size_t size,
                       struct nm__accuracy_file *a, nm_err *err) {
  struct nm__table t;
  *a = (struct nm__accuracy_file){0};
  int st = nm__table_parse(file, text, size, &t, err);
  if (st) return st;
  if (t.form != NM__TABLE_CSV || t.n_cols < 2 || t.n_cols > MAX_WALKS || !t.n_rows)
    st = nm__fail(err, NM_EFORMAT, "%s: %zu rows of %zu columns; accuracies are a CSV of a "
                                   "position "
                  "and a column for each walk", file, t.n_rows, t.n_cols);
  if (!st) {
    a->n = t.n_rows;
    a->walks = (int)t.n_cols - 1;
    a->position = nm__alloc(a->n, sizeof *a->position);
    a->acc = nm__alloc(a->n, (size_t)a->walks * sizeof *a->acc);
    st = a->position && a->acc ? read_accuracy(file, &t, a, err)
                               : nm__fail_memory(err, "accuracies", a->n * 8);
  }
  nm__table_done(&t);
  if (st) nm__accuracy_done(a);
  return st;
}

void nm__accuracy_done(struct nm__accuracy_file *a) {
  free(a->position);
  free(a->acc);
  *a = (struct nm__accuracy_file){0};
}
