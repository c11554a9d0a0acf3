/* grid.c - what a result looks like in a terminal: tables whose columns fit
 * their cells, and sparklines. Cells come from data files, so everything passes
 * through nm__text_plain: no escape sequence reaches the terminal. */
#include "report/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/text.h"

void nm__sparkline(struct nm__buf *b, const double *v, size_t n, double lo, double hi) {
  for (size_t i = 0; i < n; i++) {
    if (isnan(v[i])) {
      nm__buf_putc(b, ' ');
      continue;
    }
    /* A flat range has no scale, so its values stand in the middle. */
    double part = hi > lo ? (v[i] - lo) / (hi - lo) : 0.5;
    int level = part <= 0 ? 0 : part >= 1 ? 7 : (int)(part * 8);
    nm__text_put(b, 0x2581 + level);
  }
}

/* Row-major cells; the first n_cols are the heads. */
struct nm__grid {
  int n_cols;
  char **cells;
  size_t n, cap;
  bool failed;      /* out of memory; told by nm__grid_print through its buffer */
};

/* Takes ownership of nothing: keeps a cleaned copy of text. */
static void grid_add(struct nm__grid *g, const char *text) {
  if (g->n == g->cap) {
    size_t cap = g->cap ? 2 * g->cap : 64;
    char **more = nm__realloc(g->cells, cap, sizeof *more);
    if (!more) {
      g->failed = true;
      return;
    }
    g->cells = more;
    g->cap = cap;
  }
  struct nm__buf clean;
  nm__buf_init(&clean, (size_t)1 << 20);
  nm__text_plain(&clean, text);
  char *copy = clean.failed ? NULL : nm__strdup(clean.s ? clean.s : "");
  nm__buf_done(&clean);
  if (copy)
    g->cells[g->n++] = copy;
  else
    g->failed = true;
}

struct nm__grid *nm__grid_new(const char *const *heads, int n_cols) {
  struct nm__grid *g = n_cols > 0 ? nm__alloc(1, sizeof *g) : NULL;
  if (!g) return NULL;
  g->n_cols = n_cols;
  for (int i = 0; i < n_cols; i++) grid_add(g, heads[i] ? heads[i] : "");
  if (!g->failed) return g;
  nm__grid_free(g);
  return NULL;
}

void nm__grid_free(struct nm__grid *g) {
  if (!g) return;
  for (size_t i = 0; i < g->n; i++) free(g->cells[i]);
  free(g->cells);
  free(g);
}

void nm__grid_cell(struct nm__grid *g, const char *fmt, ...) {
  if (!g || g->failed) return;
  char small[256], *text = small;
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  va_end(ap);
  if (n >= (int)sizeof small) {
    text = nm__alloc((size_t)n + 1, 1);
    if (text) vsnprintf(text, (size_t)n + 1, fmt, again);
  }
  va_end(again);
  if (n < 0 || !text)
    g->failed = true;
  else
    grid_add(g, text);
  if (text != small) free(text);
}

/* ---- printing -------------------------------------------------------- */

struct column { int width; bool right; };

static struct column column_of(const struct nm__grid *g, size_t i_col) {
  size_t n_cols = (size_t)g->n_cols;
  struct column col = {0};
  for (size_t i = i_col; i < g->n; i += n_cols) {
    int w = nm__text_cells(g->cells[i]);
    if (w > col.width) col.width = w;
  }
  size_t first = i_col + n_cols;
  size_t n = g->n > first ? (g->n - first + n_cols - 1) / n_cols : 0;
  if (n) col.right = nm__text_numeric((const char *const *)g->cells + first, n, n_cols);
  return col;
}

static void pad(struct nm__buf *b, int n) {
  while (n-- > 0) nm__buf_putc(b, ' ');
}

/* Two spaces between columns and none at the end of a line, so that output
 * copied into a text file stays clean. */
static void print_row(const struct nm__grid *g, const struct column *cols, size_t row,
                      struct nm__buf *b) {
  int owed = 0;
  for (int i = 0; i < g->n_cols; i++) {
    size_t at = row * (size_t)g->n_cols + (size_t)i;
    const char *cell = at < g->n ? g->cells[at] : "";
    int gap = cols[i].width - nm__text_cells(cell);
    if (*cell) {
      pad(b, owed + (cols[i].right ? gap : 0));
      nm__buf_puts(b, cell);
      owed = cols[i].right ? 2 : gap + 2;
    } else {
      owed += cols[i].width + 2;
    }
  }
  nm__buf_putc(b, '\n');
}

static void print_rule(const struct nm__grid *g, const struct column *cols, struct nm__buf *b) {
  for (int i = 0; i < g->n_cols; i++) {
    if (i) nm__buf_puts(b, "  ");
    for (int k = 0; k < cols[i].width; k++) nm__text_put(b, 0x2500);
  }
  nm__buf_putc(b, '\n');
}

void nm__grid_print(const struct nm__grid *g, struct nm__buf *b) {
  struct column *cols = g && !g->failed ? nm__alloc((size_t)g->n_cols, sizeof *cols) : NULL;
  if (!cols) {
    b->failed = true;
    return;
  }
  for (int i = 0; i < g->n_cols; i++) cols[i] = column_of(g, (size_t)i);
  size_t n_rows = (g->n + (size_t)g->n_cols - 1) / (size_t)g->n_cols;
  print_row(g, cols, 0, b);
  print_rule(g, cols, b);
  for (size_t row = 1; row < n_rows; row++) print_row(g, cols, row, b);
  free(cols);
}
