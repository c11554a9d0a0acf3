/* table_json.c - tables written as JSON: an array of objects, an object that holds one,
 * one object after another (JSONL), and BIG-bench tasks.
 *
 * jansson parses (it limits nesting, so no file can exhaust the stack). Columns are
 * the keys of all rows in order of first appearance. A cell is the text of a string,
 * number or bool, nothing for null, and compact JSON for lists and objects. */
#include "file/table_rows.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is being read: values in file order, each with its line or 0. */
struct source {
  const char *name;
  nm_err *err;
  json_t *rows;                    /* an array */
  size_t *line;                    /* of each, or NULL: not known */
  size_t size;                     /* of the file */
};

static int bad_row(const struct source *src, size_t i, const char *what) {
  bool known = src->line != NULL;
  nm__fail(src->err, NM_EFORMAT, "%s: %s %zu: %s", src->name, known ? "line" : "row",
           known ? src->line[i] : i + 1, what);
  return NM_EFORMAT;
}

static size_t line_of(const struct source *src, size_t i) { return src->line ? src->line[i] : 0; }

/* ---- cells ----------------------------------------------------------- */

/* The shortest of three forms that reads back as the same number. */
static int put_real(struct nm__rows *r, double v, size_t line) {
  char s[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(s, sizeof s, "%.*g", digits, v);
    if (strtod(s, NULL) == v) break;
  }
  return nm__rows_cell(r, s, strlen(s), line);
}

static int put_cell(struct nm__rows *r, const json_t *v, size_t line) {
  char s[32];
  switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_NULL: return nm__rows_cell(r, NULL, 0, line);
    case JSON_TRUE: return nm__rows_cell(r, "true", 4, line);
    case JSON_FALSE: return nm__rows_cell(r, "false", 5, line);
    case JSON_STRING:
      return nm__rows_cell(r, json_string_value(v), json_string_length(v), line);
    case JSON_INTEGER:
      snprintf(s, sizeof s, "%lld", (long long)json_integer_value(v));
      return nm__rows_cell(r, s, strlen(s), line);
    case JSON_REAL: return put_real(r, json_real_value(v), line);
    default: break;
  }
  char *text = json_dumps(v, JSON_COMPACT);
  if (!text) return nm__fail_memory(r->err, "a JSON cell", 0);
  int st = nm__rows_cell(r, text, strlen(text), line);
  free(text);
  return st;
}

/* ---- rows of any keys ------------------------------------------------ */

/* Enters the keys of one row; `known` is a set, for speed. */
static int add_columns(json_t *row, json_t *known, struct nm__rows *r) {
  const char *key;
  json_t *value;
  json_object_foreach(row, key, value) {
    if (json_object_get(known, key)) continue;
    if (json_object_set_new(known, key, json_true()))
      return nm__fail_memory(r->err, "the columns", 0);
    int st = nm__rows_col(r, key, strlen(key));
    if (st) return st;
  }
  return NM_OK;
}

/* Rows that all have different keys would make a table far larger than their file. */
static int find_columns(const struct source *src, struct nm__rows *r) {
  json_t *known = json_object(), *row;
  size_t i, n = json_array_size(src->rows);
  int st = known ? NM_OK : nm__fail_memory(src->err, "the columns", 0);
  if (!st) json_array_foreach(src->rows, i, row) {
    st = json_is_object(row) ? add_columns(row, known, r)
                             : bad_row(src, i, "is not an object of named fields");
    if (st) break;
  }
  json_decref(known);
  if (!st && n && r->n_cols > (src->size + ((size_t)1 << 20)) / n)
    return nm__fail(src->err, NM_EFORMAT, "%s: %zu rows with %zu different fields in all are not "
                    "a table", src->name, n, r->n_cols);
  return st;
}

static int put_rows(const struct source *src, struct nm__rows *r) {
  size_t i;
  json_t *row;
  int st = find_columns(src, r);
  if (st) return st;
  json_array_foreach(src->rows, i, row) {
    for (size_t k = 0; !st && k < r->n_cols; k++)
      st = put_cell(r, json_object_get(row, r->cols[k]), line_of(src, i));
    if (!st) st = nm__rows_end(r, line_of(src, i));
    if (st) return st;
  }
  return NM_OK;
}

/* ---- BIG-bench ------------------------------------------------------- */

/* A multiple-choice task: the answer is the key of target_scores whose score is 1. */
static bool is_bigbench(const json_t *examples) {
  const json_t *first = json_array_get(examples, 0);
  return json_is_string(json_object_get(first, "input"))
         && json_is_object(json_object_get(first, "target_scores"));
}

static const char *answer_of(json_t *scores) {
  const char *key, *answer = NULL;
  json_t *score;
  json_object_foreach(scores, key, score) {
    if (!json_is_number(score) || json_number_value(score) != 1.0) continue;
    if (answer) return NULL;
    answer = key;
  }
  return answer;
}

/* StrategyQA keeps an explanation behind the answer: "Yes. College ...". The explanation
 * belongs to the statement, the answer must not stand in it. NULL when there is none. */
static const char *explanation_of(const json_t *target) {
  const char *s = json_string_value(target);
  if (!s) return NULL;
  if (strncmp(s, "Yes", 3) == 0) s += 3;
  else if (strncmp(s, "No", 2) == 0) s += 2;
  else return NULL;
  if (isalpha((unsigned char)*s)) return NULL;
  s += strspn(s, ".,;:! ");
  return *s ? s : NULL;
}

static int put_example(const struct source *src, size_t i, json_t *example, struct nm__rows *r) {
  const json_t *input = json_object_get(example, "input");
  const char *answer = answer_of(json_object_get(example, "target_scores"));
  if (!json_is_string(input)) return bad_row(src, i, "the field 'input' must be a string");
  if (!answer) return bad_row(src, i, "'target_scores' must give exactly one answer the score 1");
  const char *more = explanation_of(json_object_get(example, "target"));
  int st = nm__rows_cell_open(r);
  if (st) return st;
  nm__buf_put(&r->text, json_string_value(input), json_string_length(input));
  if (more) {
    nm__buf_putc(&r->text, ' ');
    nm__buf_puts(&r->text, more);
  }
  st = nm__rows_cell_close(r, 0);
  if (!st) st = nm__rows_cell(r, answer, strlen(answer), 0);
  return st ? st : nm__rows_end(r, 0);
}

static int put_bigbench(const struct source *src, struct nm__rows *r) {
  size_t i;
  json_t *example;
  int st = nm__rows_col(r, "text", 4);
  if (!st) st = nm__rows_col(r, "label", 5);
  if (!st) json_array_foreach(src->rows, i, example)
    if ((st = put_example(src, i, example, r))) break;
  return st;
}

/* ---- which of them --------------------------------------------------- */

/* The array of objects inside an object: a customary name first, else the first one. */
static json_t *array_in(json_t *whole) {
  static const char *const usual[] = {"examples", "data", "rows", "instances", "items"};
  for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
    json_t *v = json_object_get(whole, usual[i]);
    if (json_is_object(json_array_get(v, 0))) return v;
  }
  const char *key;
  json_t *v;
  json_object_foreach(whole, key, v)
    if (json_is_object(json_array_get(v, 0))) return v;
  return NULL;
}

/* One value stands alone in the file: an array, an object holding one, or a single row. */
static int put_whole(struct source *src, json_t *whole, struct nm__rows *r,
                     enum nm__table_form *form) {
  *form = NM__TABLE_JSON;
  json_t *inner = json_is_array(whole) ? whole : array_in(whole);
  if (!inner) {
    *form = NM__TABLE_JSONL;
    return put_rows(src, r);
  }
  struct source in = {src->name, src->err, inner, NULL, src->size};
  if (inner == whole || !is_bigbench(inner)) return put_rows(&in, r);
  *form = NM__TABLE_BIGBENCH;
  return put_bigbench(&in, r);
}

/* ---- parsing --------------------------------------------------------- */

/* Remembers the line of value number i; the room doubles at powers of two. */
static int note_line(struct source *src, size_t i, size_t line) {
  if ((i & (i - 1)) == 0) {
    size_t *v = nm__realloc(src->line, i ? 2 * i : 1, sizeof *v);
    if (!v) return nm__fail_memory(src->err, "the lines", i * sizeof *v);
    src->line = v;
  }
  src->line[i] = line;
  return NM_OK;
}

static int bad_json(const struct source *src, size_t line, const json_error_t *e) {
  char shown[200];
  nm__printable(shown, sizeof shown, e->text, strnlen(e->text, sizeof e->text));
  nm__fail(src->err, NM_EFORMAT, "%s: line %zu, column %d: not valid JSON: %s", src->name,
           line + (e->line > 0 ? (size_t)e->line - 1 : 0), e->column, shown);
  return NM_EFORMAT;
}

/* All values of the file, one after another. */
static int load_all(struct source *src, const char *s, size_t n) {
  const char *end = s + n;
  size_t line = 1;
  int st = NM_OK;
  for (size_t i = 0; !st; i++) {
    for (; s < end && strchr(" \t\r\n", *s); s++) line += *s == '\n';
    if (s == end) break;
    json_error_t e;
    json_t *v = json_loadb(s, (size_t)(end - s), JSON_DISABLE_EOF_CHECK, &e);
    if (!v) return bad_json(src, line, &e);
    st = note_line(src, i, line);
    for (const char *stop = s + e.position; s < stop; s++) line += *s == '\n';
    if (st) json_decref(v);
    else if (json_array_append_new(src->rows, v)) st = nm__fail_memory(src->err, "JSON rows", 0);
  }
  return st;
}

int nm__table_parse_json(const char *name, const char *s, size_t n, struct nm__rows *r,
                         enum nm__table_form *form, nm_err *err) {
  struct source src = {name, err, json_array(), NULL, n};
  if (!src.rows) return nm__fail_memory(err, "JSON rows", 0);
  int st = load_all(&src, s, n);
  *form = NM__TABLE_JSONL;
  if (!st && json_array_size(src.rows) == 1)
    st = put_whole(&src, json_array_get(src.rows, 0), r, form);
  else if (!st)
    st = put_rows(&src, r);
  json_decref(src.rows);
  free(src.line);
  return st;
}
