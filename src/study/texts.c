/* texts.c - a user's file of texts, or of token ids, as a list. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "study/depth.h"

static int ids_row(const char *path, int line, json_t *o, nm_seq *out, nm_err *err) {
  json_t *ids = json_object_get(o, "ids");
  *out = (nm_seq){0};
  if (!json_is_array(ids))
    return nm__fail(err, NM_EFORMAT, "%s: line %d: \"ids\" must be an array of token ids", path,
                    line);
  out->n = json_array_size(ids);
  int32_t *v = nm__alloc(out->n, sizeof *v);
  out->ids = v;
  if (!v) return nm__fail_memory(err, "token ids", out->n * 4);
  for (size_t i = 0; i < out->n; i++) {
    json_t *x = json_array_get(ids, i);
    if (!json_is_integer(x) || json_integer_value(x) < 0 || json_integer_value(x) > INT32_MAX)
      return nm__fail(err, NM_EFORMAT, "%s: line %d: \"ids\"[%zu] is not a token id", path, line,
                      i);
    v[i] = (int32_t)json_integer_value(x);
  }
  return NM_OK;
}

/* JSONL whose first row has "ids": every row must. */
static int load_ids(const char *path, const struct nm__map *m, nm_texts *out, nm_err *err) {
  const char *s = (const char *)m->data, *end = s + m->size;
  int st = NM_OK, line = 0;
  while (s < end && !st) {
    const char *nl = memchr(s, '\n', (size_t)(end - s));
    size_t n = (size_t)((nl ? nl : end) - s);
    line++;
    if (n && !(n == 1 && *s == '\r')) {
      json_error_t je;
      json_t *o = json_loadb(s, n, 0, &je);
      nm_seq *v = nm__realloc(out->seq, out->n + 1, sizeof *v);
      if (v) out->seq = v;
      if (!v) st = nm__fail_memory(err, "token ids", 0);
      else if (!o) st = nm__fail(err, NM_EFORMAT, "%s: line %d: %.200s", path, line, je.text);
      else st = ids_row(path, line, o, &out->seq[out->n++], err);
      json_decref(o);
    }
    s += n + 1;
  }
  return st;
}

static bool has_ids(const struct nm__map *m) {
  const char *nl = m->size ? memchr(m->data, '\n', m->size) : NULL;
  json_t *o = m->size && m->data[0] == '{'
                  ? json_loadb((const char *)m->data,
                               nl ? (size_t)(nl - (const char *)m->data) : m->size, 0, NULL)
                  : NULL;
  bool yes = json_object_get(o, "ids") != NULL;
  json_decref(o);
  return yes;
}

static int load_texts(const char *path, const struct nm__map *m, const char *col, nm_texts *out,
                      nm_err *err) {
  struct nm__table t;
  int c, st = nm__table_parse(path, m->data, m->size, &t, err);
  if (st) return st;
  if (!t.n_rows) st = nm__fail(err, NM_EFORMAT, "%s: holds no row", path);
  if (!st) st = nm__table_text_col(path, &t, col, &c, err);
  if (!st && !(out->text = nm__alloc(t.n_rows, sizeof *out->text)))
    st = nm__fail_memory(err, "the texts", t.n_rows * sizeof *out->text);
  for (size_t r = 0; !st && r < t.n_rows; r++) {
    const char *s = t.cells[r * t.n_cols + (size_t)c];
    if (!s) st = nm__fail(err, NM_EFORMAT, "%s: row %zu has no '%s'", path, r + 1, t.cols[c]);
    else if (!(out->text[out->n++] = nm__strdup(s))) st = nm__fail_memory(err, "a text", 0);
  }
  nm__table_done(&t);
  return st;
}

int nm__texts_parse(const char *name, const void *bytes, size_t n, const char *col, nm_texts *out,
                    nm_err *err) {
  struct nm__map m = {bytes, n};
  *out = (nm_texts){0};
  int st = has_ids(&m) ? load_ids(name, &m, out, err) : load_texts(name, &m, col, out, err);
  if (st) nm_texts_free(out);
  return st;
}

int nm_texts_load(const char *path, const char *col, nm_texts *out, nm_err *err) {
  struct nm__map m;
  *out = (nm_texts){0};
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  st = nm__texts_parse(path, m.data, m.size, col, out, err);
  nm__map_close(&m);
  return st;
}

void nm_texts_free(nm_texts *t) {
  for (size_t i = 0; i < t->n; i++) {
    if (t->text) free(t->text[i]);
    if (t->seq) free((void *)(uintptr_t)t->seq[i].ids);
  }
  free(t->text);
  free(t->seq);
  *t = (nm_texts){0};
}
