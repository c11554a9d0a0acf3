/* table.c - recognising what form a table has, and reading CSV, TSV and STSA.
 *
 * The form is told from the content alone: JSON begins with a bracket, in STSA nearly
 * every line begins with "0 " or "1 ", TSV has a header line with tabs, and whatever
 * else is text is CSV. Bytes that are no UTF-8 pass through; a zero byte does not, as
 * it means that the file is no text at all. */
#include "file/table.h"

#include "file/table_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a table while it grows ------------------------------------------ */

void nm__rows_init(struct nm__rows *r, const char *name, nm_err *err) {
  *r = (struct nm__rows){.name = name, .err = err};
  nm__buf_init(&r->text, 2 * NM__TABLE_FILE_MAX);
}

void nm__rows_done(struct nm__rows *r) {
  for (size_t i = 0; i < r->n_cols; i++) free(r->cols[i]);
  free(r->cols);
  nm__buf_done(&r->text);
  free(r->cells);
  free(r->line);
}

static int memory(const struct nm__rows *r) {
  return nm__fail_memory(r->err, "a table", r->text.len + r->n_cells * sizeof *r->cells);
}

int nm__rows_col(struct nm__rows *r, const char *name, size_t n) {
  if (r->n_cols == NM__TABLE_COLS_MAX)
    return nm__fail(r->err, NM_EFORMAT, "%s: has more than %d columns", r->name,
                    NM__TABLE_COLS_MAX);
  char *copy = nm__strndup(name, n);
  char **cols = nm__realloc(r->cols, r->n_cols + 1, sizeof *cols);
  if (cols) r->cols = cols;
  if (!copy || !cols) return free(copy), memory(r);
  for (size_t i = 0; n && i < r->n_cols; i++) {
    if (strcmp(cols[i], copy) != 0) continue;
    char shown[80];
    nm__printable(shown, sizeof shown, copy, n);
    free(copy);
    return nm__fail(r->err, NM_EFORMAT, "%s: has two columns named '%s'", r->name, shown);
  }
  r->cols[r->n_cols++] = copy;
  return NM_OK;
}

static int push(const struct nm__rows *r, size_t **v, size_t *n, size_t *cap, size_t value) {
  if (*n == *cap) {
    size_t want = *cap ? 2 * *cap : 256;
    size_t *grown = nm__realloc(*v, want, sizeof *grown);
    if (!grown) return memory(r);
    *v = grown;
    *cap = want;
  }
  (*v)[(*n)++] = value;
  return NM_OK;
}

int nm__rows_cell_open(struct nm__rows *r) {
  return push(r, &r->cells, &r->n_cells, &r->cap_cells, r->text.len + 1);
}

int nm__rows_cell_close(struct nm__rows *r, size_t line) {
  size_t n = r->text.len + 1 - r->cells[r->n_cells - 1];
  if (n > NM__TABLE_CELL_MAX)
    return nm__fail(r->err, NM_EFORMAT, "%s: a cell of %s %zu has %zu bytes, at most %zu are read "
                    "(is a quote left open?)", r->name, line ? "line" : "row",
                    line ? line : r->n_rows + 1, n, NM__TABLE_CELL_MAX);
  nm__buf_putc(&r->text, 0);
  return r->text.failed ? memory(r) : NM_OK;
}

int nm__rows_cell(struct nm__rows *r, const char *s, size_t n, size_t line) {
  if (!s) return push(r, &r->cells, &r->n_cells, &r->cap_cells, 0);
  int st = nm__rows_cell_open(r);
  nm__buf_put(&r->text, s, n);
  return st ? st : nm__rows_cell_close(r, line);
}

size_t nm__rows_width(const struct nm__rows *r) { return r->n_cells - r->n_rows * r->n_cols; }

int nm__rows_end(struct nm__rows *r, size_t line) {
  return push(r, &r->line, &r->n_rows, &r->cap_rows, line);
}

int nm__rows_finish(struct nm__rows *r, enum nm__table_form form, struct nm__table *t) {
  char **cells = nm__alloc(r->n_cells, sizeof *cells);
  if (!cells) return memory(r);
  for (size_t i = 0; i < r->n_cells; i++)
    if (r->cells[i]) cells[i] = r->text.s + r->cells[i] - 1;
  *t = (struct nm__table){form, r->n_rows, r->n_cols, r->cols, cells, r->line, r->text.s};
  free(r->cells);
  *r = (struct nm__rows){0};
  return NM_OK;
}

void nm__table_done(struct nm__table *t) {
  for (size_t i = 0; i < t->n_cols; i++) free(t->cols[i]);
  free(t->cols);
  free(t->cells);
  free(t->line);
  free(t->text);
  *t = (struct nm__table){0};
}

/* ---- CSV and TSV ----------------------------------------------------- */

struct csv {
  const char *s, *end;
  char sep;
  size_t line;                     /* of s, from 1 */
  struct nm__rows *rows;
};

static bool at_break(const struct csv *c, const char *p) {
  return p == c->end || *p == '\n' || (*p == '\r' && p + 1 < c->end && p[1] == '\n');
}

/* The quote that closes the cell opened at c->s, or NULL when none does before the end or
 * within the largest cell. Doubled quotes stand for one. */
static const char *closing_quote(const struct csv *c) {
  const char *p = c->s + 1, *stop = c->end;
  if ((size_t)(stop - p) > 2 * NM__TABLE_CELL_MAX) stop = p + 2 * NM__TABLE_CELL_MAX;
  for (; p < stop; p++) {
    if (*p != '"') continue;
    if (p + 1 < c->end && p[1] == '"') p++;
    else return p;
  }
  return NULL;
}

static void put_unquoted(struct csv *c, const char *close) {
  const char *p = c->s + 1;
  while (p < close) {
    const char *q = memchr(p, '"', (size_t)(close - p));
    size_t n = (size_t)((q ? q + 1 : close) - p);
    nm__buf_put(&c->rows->text, p, n);
    for (const char *k = p; (k = memchr(k, '\n', (size_t)(p + n - k))); k++) c->line++;
    p += n + (q != NULL);
  }
  c->s = close + 1;
}

/* TSV is often written without any quoting: there a quote that is not closed right before a
 * separator is a plain character. In CSV it is an error, or else rows would run together. */
static int read_cell(struct csv *c) {
  size_t line = c->line;
  int st = nm__rows_cell_open(c->rows);
  if (st) return st;
  const char *close = c->s < c->end && *c->s == '"' ? closing_quote(c) : NULL;
  if (close && (at_break(c, close + 1) || close[1] == c->sep)) {
    put_unquoted(c, close);
    return nm__rows_cell_close(c->rows, line);
  }
  if (c->s < c->end && *c->s == '"' && c->sep == ',')
    return nm__fail(c->rows->err, NM_EFORMAT, "%s: line %zu: %s", c->rows->name, line,
                    close ? "a closing quote is followed by more text before the comma"
                          : "a quote is opened and not closed");
  const char *from = c->s;
  while (!at_break(c, c->s) && *c->s != c->sep) c->s++;
  nm__buf_put(&c->rows->text, from, (size_t)(c->s - from));
  return nm__rows_cell_close(c->rows, line);
}

/* Cells up to and with the end of the line. */
static int read_cells(struct csv *c, size_t *n) {
  int st = read_cell(c);
  for (*n = 1; !st && c->s < c->end && *c->s == c->sep; (*n)++) {
    c->s++;
    if (*n > NM__TABLE_COLS_MAX)
      return nm__fail(c->rows->err, NM_EFORMAT, "%s: line %zu has more than %d cells",
                      c->rows->name, c->line, NM__TABLE_COLS_MAX);
    st = read_cell(c);
  }
  if (c->s < c->end && *c->s == '\r') c->s++;
  if (c->s < c->end) c->s++, c->line++;
  return st;
}

static void skip_empty_lines(struct csv *c) {
  while (c->s < c->end && at_break(c, c->s)) {
    c->s += *c->s == '\r' ? 2 : 1;
    c->line++;
  }
}

/* The header's cells become the columns' names, and the store is as new. */
static int read_header(struct csv *c) {
  size_t n;
  int st = read_cells(c, &n);
  for (size_t i = 0; !st && i < n; i++) {
    const char *name = c->rows->text.s + c->rows->cells[i] - 1;
    st = nm__rows_col(c->rows, name, strlen(name));
  }
  c->rows->n_cells = 0;
  nm__buf_reset(&c->rows->text);
  return st;
}

static int parse_csv(const char *s, size_t n, char sep, struct nm__rows *r) {
  struct csv c = {s, s + n, sep, 1, r};
  skip_empty_lines(&c);
  int st = read_header(&c);
  while (!st) {
    skip_empty_lines(&c);
    if (c.s == c.end) break;
    size_t line = c.line, k;
    st = read_cells(&c, &k);
    if (!st && k != r->n_cols)
      return nm__fail(r->err, NM_EFORMAT, "%s: line %zu has %zu cells, but the header has %zu",
                      r->name, line, k, r->n_cols);
    if (!st) st = nm__rows_end(r, line);
  }
  return st;
}

/* ---- STSA ------------------------------------------------------------ */

/* The next line without its end; false at the end of the text. */
static bool next_line(const char **s, const char *end, const char **line, size_t *n) {
  if (*s == end) return false;
  const char *stop = memchr(*s, '\n', (size_t)(end - *s));
  *line = *s;
  *n = (size_t)((stop ? stop : end) - *s);
  *s = stop ? stop + 1 : end;
  if (*n && (*line)[*n - 1] == '\r') --*n;
  return true;
}

static bool is_stsa_line(const char *line, size_t n) {
  return n >= 2 && (line[0] == '0' || line[0] == '1') && line[1] == ' ';
}

/* "Nearly": a broken line must not make a CSV of the file, it shall be named. */
static bool is_stsa(const char *s, size_t size) {
  const char *line, *end = s + size;
  size_t n, n_lines = 0, n_good = 0;
  while (next_line(&s, end, &line, &n)) {
    if (n == 0) continue;
    bool good = is_stsa_line(line, n);
    if (n_lines++ == 0 && !good) return false;
    n_good += good;
  }
  return n_lines > 0 && n_good * 20 >= n_lines * 19;
}

static int parse_stsa(const char *s, size_t size, struct nm__rows *r) {
  const char *line, *end = s + size;
  size_t n, i = 0;
  int st = nm__rows_col(r, "label", 5);
  if (!st) st = nm__rows_col(r, "text", 4);
  while (!st && next_line(&s, end, &line, &n)) {
    i++;
    if (n == 0) continue;
    if (!is_stsa_line(line, n))
      return nm__fail(r->err, NM_EFORMAT, "%s: line %zu does not begin with '0 ' or '1 ' as the "
                      "others do", r->name, i);
    st = nm__rows_cell(r, line, 1, i);
    if (!st) st = nm__rows_cell(r, line + 2, n - 2, i);
    if (!st) st = nm__rows_end(r, i);
  }
  return st;
}

/* ---- recognition ----------------------------------------------------- */

const char *nm__table_form_name(enum nm__table_form f) {
  static const char *const names[] = {"CSV", "TSV", "JSON", "JSONL", "BIG-bench JSON", "STSA"};
  return (size_t)f < sizeof names / sizeof *names ? names[f] : "unknown";
}

/* Whether the header, the first line that is not empty, is separated by tabs. */
static bool is_tsv(const char *s, size_t size) {
  const char *line, *end = s + size;
  size_t n, tabs = 0, commas = 0;
  while (next_line(&s, end, &line, &n) && n == 0) continue;
  for (size_t i = 0; i < n; i++) {
    tabs += line[i] == '\t';
    commas += line[i] == ',';
  }
  return tabs > 0 && commas <= tabs;
}

static int check_text(const char *name, const char *s, size_t n, nm_err *err) {
  if (n > NM__TABLE_FILE_MAX)
    return nm__fail(err, NM_EFORMAT, "%s: has %zu bytes, tables of at most 1 GiB are read", name,
                    n);
  const char *zero = n ? memchr(s, 0, n) : NULL;
  if (zero)
    return nm__fail(err, NM_EFORMAT, "%s: is not a text file: byte %td is zero", name, zero - s);
  size_t i = 0;
  while (i < n && strchr(" \t\r\n", s[i])) i++;
  if (i == n) return nm__fail(err, NM_EFORMAT, "%s: is empty, a table is needed", name);
  return NM_OK;
}

static int parse(const char *name, const char *s, size_t n, struct nm__rows *r,
                 enum nm__table_form *form, nm_err *err) {
  size_t i = 0;
  while (strchr(" \t\r\n", s[i])) i++;
  if (s[i] == '[' || s[i] == '{') return nm__table_parse_json(name, s, n, r, form, err);
  *form = is_stsa(s, n) ? NM__TABLE_STSA : is_tsv(s, n) ? NM__TABLE_TSV : NM__TABLE_CSV;
  if (*form == NM__TABLE_STSA) return parse_stsa(s, n, r);
  return parse_csv(s, n, *form == NM__TABLE_TSV ? '\t' : ',', r);
}

int nm__table_parse(const char *name, const void *bytes, size_t n, struct nm__table *t,
                    nm_err *err) {
  const char *s = bytes;
  enum nm__table_form form = NM__TABLE_CSV;
  struct nm__rows r;
  *t = (struct nm__table){0};
  if (n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0) s += 3, n -= 3;
  int st = check_text(name, s, n, err);
  if (st) return st;
  nm__rows_init(&r, name, err);
  st = parse(name, s, n, &r, &form, err);
  if (!st) st = nm__rows_finish(&r, form, t);
  nm__rows_done(&r);
  return st;
}

int nm__table_read(const char *path, struct nm__table *t, nm_err *err) {
  struct nm__map m;
  *t = (struct nm__table){0};
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  st = nm__table_parse(path, m.data, m.size, t, err);
  nm__map_close(&m);
  return st;
}

int nm__table_col(const struct nm__table *t, const char *name) {
  for (size_t i = 0; i < t->n_cols; i++)
    if (strcmp(t->cols[i], name) == 0) return (int)i;
  return -1;
}
