/* edit.c - edits of activations, as data: a JSON file with one edit, an array of
 * them, or {"edits": [...]}.
 *
 *   {"site": "blk.3.resid_post", "at": "last", "op": "add", "vector": "v.npy", "scale": 2}
 *
 * op: add (vector, scale), zero, scale (scale), project_out (vector), replace (vector). A
 * vector is an array of numbers or the path of an .npy: [n] for every selected site, or
 * [sites, n] with a row for each in layer order. Edits stack in the order written. */
#include "model/delta.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "file/npy.h"

static const char *const op_names[] = {"add", "zero", "scale", "project_out", "replace"};

struct reader { const char *name; size_t i; nm_err *err; };

static int bad(struct reader *r, const char *what) {
  return nm__fail(r->err, NM_EFORMAT, "%s: edit %zu: %s", r->name, r->i + 1, what);
}

static int read_op(struct reader *r, json_t *o, struct nm__edit *e) {
  const char *op = json_string_value(json_object_get(o, "op"));
  for (int i = 0; op && i < 5; i++)
    if (!strcmp(op, op_names[i])) {
      e->op = (enum nm__edit_op)i;
      return NM_OK;
    }
  return bad(r, "\"op\" must be add, zero, scale, project_out or replace");
}

/* A relative path is looked for beside the edit file first, so that the two can move together. */
static int read_npy(struct reader *r, const char *path, struct nm__npy *a) {
  const char *base = nm__path_base(r->name);
  char *dir =
      *path == '/' || base == r->name ? NULL : nm__strndup(r->name, (size_t)(base - r->name));
  char *beside = dir ? nm__path_join(dir, path) : NULL;
  int st = nm__npy_read(beside && nm__exists(beside) ? beside : path, a, r->err);
  free(dir);
  free(beside);
  return st;
}

static int read_vector(struct reader *r, json_t *v, struct nm__edit *e) {
  if (json_is_string(v)) {
    struct nm__npy a;
    int st = read_npy(r, json_string_value(v), &a);
    if (st) return nm__fail_at(r->err, st, "%s: edit %zu", r->name, r->i + 1);
    e->vec_n = a.n_dims ? a.ne[a.n_dims - 1] : 1;
    e->vec_rows = e->vec_n ? a.n / e->vec_n : 0;
    e->vec = a.data;
    a.data = NULL;
    nm__npy_done(&a);
  } else if (json_is_array(v)) {
    e->vec_rows = 1;
    e->vec_n = (int64_t)json_array_size(v);
    e->vec = nm__alloc((size_t)e->vec_n, sizeof(float));
    if (!e->vec) return nm__fail_memory(r->err, "an edit's vector", 0);
    for (int64_t i = 0; i < e->vec_n; i++) {
      json_t *x = json_array_get(v, (size_t)i);
      if (!json_is_number(x)) return bad(r, "\"vector\" must hold numbers only");
      e->vec[i] = (float)json_number_value(x);
    }
  } else {
    return bad(r, "\"vector\" must be an array of numbers or the path of an .npy file");
  }
  if (e->vec_n < 1 || e->vec_rows < 1) return bad(r, "the vector is empty");
  for (int64_t i = 0; i < e->vec_n * e->vec_rows; i++)
    if (e->vec[i] - e->vec[i] != 0) return bad(r, "the vector holds a value that is not finite");
  return NM_OK;
}

int nm__edit_vector(const char *name, int number, json_t *v, float **vec, int64_t *rows,
                    int64_t *n, nm_err *err) {
  struct reader r = {name, (size_t)number - 1, err};
  struct nm__edit e = {0};
  int st = read_vector(&r, v, &e);
  *vec = e.vec;
  *rows = e.vec_rows;
  *n = e.vec_n;
  return st;
}

static int known_keys(struct reader *r, json_t *o) {
  static const char *const known[] = {"site", "at", "op", "vector", "scale", "note"};
  const char *key;
  json_t *v;
  json_object_foreach(o, key, v) {
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(key, known[i])) i++;
    if (i == sizeof known / sizeof *known) {
      char shown[60];
      return nm__fail(r->err, NM_EFORMAT,
                      "%s: edit %zu: unknown key \"%s\" (known: site, at, op, vector, "
                      "scale, note)",
                      r->name, r->i + 1, nm__printable(shown, sizeof shown, key, strlen(key)));
    }
  }
  return NM_OK;
}

static int read_edit(struct reader *r, json_t *o, struct nm__edit *e) {
  if (!json_is_object(o)) return bad(r, "must be an object with site, at and op");
  int st = known_keys(r, o);
  if (st) return st;
  const char *site = json_string_value(json_object_get(o, "site"));
  const char *at = json_string_value(json_object_get(o, "at"));
  json_t *scale = json_object_get(o, "scale"), *vec = json_object_get(o, "vector");
  if (!site) return bad(r, "\"site\" is missing");
  if (json_object_get(o, "at") && !at)
    return bad(r, "\"at\" must be a string, for example \"last\"");
  if (scale && !json_is_number(scale)) return bad(r, "\"scale\" must be a number");
  if ((st = read_op(r, o, e))) return st;
  e->scale = scale ? (float)json_number_value(scale) : 1.0f;
  bool wants = e->op != NM__EDIT_ZERO && e->op != NM__EDIT_SCALE;
  if (e->scale - e->scale != 0) return bad(r, "\"scale\" is not finite");
  if (wants && !vec) return bad(r, "this op needs a \"vector\"");
  if (!wants && vec) return bad(r, "zero and scale take no \"vector\"");
  if (e->op == NM__EDIT_SCALE && !scale) return bad(r, "op scale needs a \"scale\"");
  if (vec && (st = read_vector(r, vec, e))) return st;
  e->site = nm__strdup(site);
  e->at_text = nm__strdup(at ? at : "all");
  e->what = nm__alloc(160, 1);
  if (!e->site || !e->at_text || !e->what) return nm__fail_memory(r->err, "an edit", 0);
  snprintf(e->what, 160, "%s at %.60s, positions %.40s", op_names[e->op], e->site, e->at_text);
  st = nm__at_parse(e->at_text, &e->at, r->err);
  return st ? nm__fail_at(r->err, NM_EFORMAT, "%s: edit %zu", r->name, r->i + 1) : NM_OK;
}

static int from_json(const char *name, json_t *root, nm_edits *e, nm_err *err) {
  json_t *list = json_is_object(root) && json_object_get(root, "edits")
                     ? json_object_get(root, "edits")
                     : root;
  size_t n = json_is_array(list) ? json_array_size(list) : 1;
  if (json_is_array(list) && !n) return nm__fail(err, NM_EFORMAT, "%s: holds no edit", name);
  e->v = nm__alloc(n, sizeof *e->v);
  e->w = nm__alloc(n, sizeof *e->w);
  if (!e->v || !e->w) return nm__fail_memory(err, "the edits", n * sizeof *e->v);
  for (size_t i = 0; i < n; i++) {
    struct reader r = {name, i, err};
    json_t *o = json_is_array(list) ? json_array_get(list, i) : list;
    int st = json_object_get(o, "weight")
                 ? nm__weight_edit_read(name, (int)i + 1, o, &e->w[e->n_w++], err)
                 : read_edit(&r, o, &e->v[e->n++]);
    if (st) return st;
  }
  return NM_OK;
}

int nm_edits_parse(const char *name, const char *text, size_t n, nm_edits **out, nm_err *err) {
  *out = NULL;
  json_error_t je;
  json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
  if (!root)
    return nm__fail(err, NM_EFORMAT, "%s: line %d, column %d: %.200s", name, je.line, je.column,
                    je.text);
  nm_edits *e = nm__alloc(1, sizeof *e);
  int st = e ? from_json(name, root, e, err) : nm__fail_memory(err, "the edits", sizeof *e);
  json_decref(root);
  if (st) {
    nm_edits_free(e);
    return st;
  }
  *out = e;
  return NM_OK;
}

int nm_edits_load(const char *path, nm_edits **out, nm_err *err) {
  struct nm__map m;
  *out = NULL;
  int st = nm__map_open(path, &m, err);
  if (st) return st;
  if (m.size > (size_t)1 << 28)
    st = nm__fail(err, NM_EFORMAT, "%s: is too large for an edit file", path);
  else st = nm_edits_parse(path, (const char *)m.data, m.size, out, err);
  nm__map_close(&m);
  return st;
}

void nm_edits_free(nm_edits *e) {
  if (!e) return;
  for (int i = 0; i < e->n; i++) {
    free(e->v[i].site);
    free(e->v[i].at_text);
    free(e->v[i].what);
    free(e->v[i].vec);
    nm__at_done(&e->v[i].at);
  }
  for (int i = 0; i < e->n_w; i++) nm__weight_edit_done(&e->w[i]);
  free(e->v);
  free(e->w);
  free(e);
}

/* Those of activations first, then those of weights. */
int nm_edits_n(const nm_edits *e) { return e ? e->n + e->n_w : 0; }
const char *nm_edits_what(const nm_edits *e, int i) {
  return i < e->n ? e->v[i].what : e->w[i - e->n].what;
}
uint64_t nm_edits_touched(const nm_edits *e, int i) {
  return i < e->n ? e->v[i].touched : e->w[i - e->n].touched;
}
const char *nm_edits_unit(const nm_edits *e, int i) { return i < e->n ? "positions" : "weights"; }

void nm__edit_apply(const struct nm__edit *e, int row_i, const struct nm__kern *k, float *x,
                    int64_t n) {
  const float *v = e->vec ? e->vec + (e->vec_rows > 1 ? row_i : 0) * e->vec_n : NULL;
  switch (e->op) {
    case NM__EDIT_ADD: k->axpy(x, e->scale, v, n); break;
    case NM__EDIT_ZERO: memset(x, 0, sizeof(float) * (size_t)n); break;
    case NM__EDIT_SCALE: k->mul(x, e->scale, x, n); break;
    case NM__EDIT_REPLACE: k->mul(x, e->scale, v, n); break;
    case NM__EDIT_PROJECT_OUT: {   /* x -= scale (x.v / v.v) v */
      float vv = k->dot(v, v, n);
      if (vv > 0) k->axpy(x, -e->scale * (k->dot(x, v, n) / vv), v, n);
      break;
    }
  }
}

void nm__edits_key(const nm_edits *e, struct nm__buf *b) {
  for (int i = 0; e && i < e->n_w; i++) nm__weight_edit_key(&e->w[i], b);
  for (int i = 0; e && i < e->n; i++) {
    const struct nm__edit *v = &e->v[i];
    nm__buf_printf(b, "%d|%a|%s|%s|", (int)v->op, (double)v->scale, v->site, v->at_text);
    nm__buf_put(b, v->vec, v->vec ? sizeof(float) * (size_t)(v->vec_n * v->vec_rows) : 0);
  }
}
