/* edit_weight.c - edits of weights, as data, in the same files as edits of activations:
 *
 *   {"weight": "blk.3.ffn_down.weight", "col": 17, "op": "zero"}
 *   {"weight": "blk.3.attn_q.weight", "row": 5, "op": "add", "vector": [...], "scale": 0.5}
 *   {"weight": "blk.3.ffn_up.weight", "col": 0, "op": "noise", "scale": 0.1, "seed": 7}
 *   {"weight": "blk.3.ffn_up_exps.weight", "expert": 2, "row": 1, "op": "zero"}
 *
 * A change of one row or column is a matrix of rank one. It stands beside the weight, which stays
 * as it is stored. */
#include "model/delta.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/yaml.h"
#include "tensor/math.h"

static const char *const op_names[] = {"zero", "noise", "add"};

/* ---- reading --------------------------------------------------------------------- */

struct reader { const struct nm__yaml *y; int number; json_t *o; nm_err *err; };

static int bad(const struct reader *r, const char *what) {
  return nm__yaml_fail(r->y, r->o, r->err, "edit %d: %s", r->number, what);
}

static int known_keys(const struct reader *r) {
  static const char *const known[] = {"weight", "row", "col", "expert", "op", "vector", "tensor",
                                      "scale", "seed", "note"};
  const char *key;
  json_t *v;
  json_object_foreach(r->o, key, v) {
    size_t i = 0;
    char shown[60];
    while (i < sizeof known / sizeof *known && strcmp(key, known[i])) i++;
    if (i == sizeof known / sizeof *known)
      return nm__yaml_fail(r->y, r->o, r->err, "edit %d: unknown key \"%s\" (known beside weight: "
                           "row, col, expert, op, vector, tensor, scale, seed, note)", r->number,
                           nm__printable(shown, sizeof shown, key, strlen(key)));
  }
  return NM_OK;
}

/* An integer from 0 on; `absent` where it is not there. */
static int whole(const struct reader *r, const char *key, int64_t absent, int64_t *out) {
  json_t *v = json_object_get(r->o, key);
  char why[80];
  *out = v ? json_integer_value(v) : absent;
  if (!v || (json_is_integer(v) && *out >= 0)) return NM_OK;
  snprintf(why, sizeof why, "\"%s\" must be a whole number, 0 or more", key);
  return bad(r, why);
}

static int read_place(const struct reader *r, struct nm__weight_edit *w) {
  const char *weight = json_string_value(json_object_get(r->o, "weight"));
  int64_t row, col, expert;
  int st = weight && *weight && strlen(weight) < 120
               ? NM_OK : bad(r, "\"weight\" must be the name of a tensor (noema info --json)");
  if (!st) st = whole(r, "row", -1, &row);
  if (!st) st = whole(r, "col", -1, &col);
  if (!st) st = whole(r, "expert", -1, &expert);
  if (!st && (row >= 0) == (col >= 0)) st = bad(r, "an edit of a weight needs one of row and col");
  if (!st && expert > 1 << 20) st = bad(r, "there is no such expert");
  if (st) return st;
  w->weight = nm__strdup(weight);
  w->row = row >= 0;
  w->index = w->row ? row : col;
  w->expert = (int)expert;
  return w->weight ? NM_OK : nm__fail_memory(r->err, "an edit", 120);
}

static int read_op(const struct reader *r, struct nm__weight_edit *w) {
  const char *op = json_string_value(json_object_get(r->o, "op"));
  json_t *scale = json_object_get(r->o, "scale"), *vec = json_object_get(r->o, "vector");
  int64_t seed = 0;
  int k = 0;
  while (k < 3 && (!op || strcmp(op, op_names[k]))) k++;
  if (k == 3) return bad(r, "\"op\" of a weight must be zero, noise or add");
  w->op = (enum nm__weight_op)k;
  if (scale && !json_is_number(scale)) return bad(r, "\"scale\" must be a number");
  w->scale = scale ? (float)json_number_value(scale) : 1;
  if (w->scale - w->scale != 0) return bad(r, "\"scale\" is not finite");
  int st = whole(r, "seed", 0, &seed);
  if (st) return st;
  w->seed = (uint64_t)seed;
  if (json_object_get(r->o, "seed") && w->op != NM__WEIGHT_NOISE)
    return bad(r, "only noise takes a \"seed\"");
  if ((w->op == NM__WEIGHT_ADD) != (vec != NULL))
    return bad(r, vec ? "zero and noise take no \"vector\"" : "add needs a \"vector\"");
  st = vec ? nm__edit_vector(r->y, r->number, r->o, &w->vec, r->err) : NM_OK;
  if (!st && w->vec.rows * w->vec.pos > 1) st = bad(r, "the vector of a weight must be one row");
  return st;
}

int nm__weight_edit_read(const struct nm__yaml *y, int number, json_t *o,
                         struct nm__weight_edit *out, nm_err *err) {
  struct reader r = {y, number, o, err};
  char text[240], expert[24] = "";
  *out = (struct nm__weight_edit){.number = number};
  int st = known_keys(&r);
  if (!st) st = read_place(&r, out);
  if (!st) st = read_op(&r, out);
  if (st) return st;
  if (out->expert >= 0) snprintf(expert, sizeof expert, ", expert %d", out->expert);
  snprintf(text, sizeof text, "%s of %s%s, %s %lld, scale %g", op_names[out->op], out->weight,
           expert, out->row ? "row" : "column", (long long)out->index, (double)out->scale);
  out->what = nm__strdup(text);
  return out->what ? NM_OK : nm__fail_memory(err, "an edit", sizeof text);
}

void nm__weight_edit_done(struct nm__weight_edit *w) {
  free(w->weight);
  free(w->what);
  nm__dirs_done(&w->vec);
  *w = (struct nm__weight_edit){0};
}

void nm__weight_edit_key(const struct nm__weight_edit *w, struct nm__buf *b) {
  nm__buf_printf(b, "weight %s|%llu|", w->what, (unsigned long long)w->seed);
  nm__buf_printf(b, "%a|", (double)w->scale);
  nm__buf_put(b, w->vec.v, w->vec.v ? sizeof(float) * (size_t)w->vec.n : 0);
}

/* ---- as a change of rank one ------------------------------------------------------ */

static int misfit(const struct nm__weight_edit *w, nm_err *err, const char *what) {
  return nm__fail(err, NM_EFORMAT, "edit %d (%s): %s", w->number, w->what, what);
}

/* The row or column as it is stored, dequantised. */
static void stored(const struct nm__weight_edit *w, const struct nm__place *at, float *out) {
  const struct nm__dtype_info *d = nm__dtype(at->t->type);
  float block[256];
  if (w->row) {
    d->to_f32(out, at->data + (size_t)w->index * at->row_bytes, at->cols);
    return;
  }
  const uint8_t *first = at->data + (size_t)(w->index / d->block) * (size_t)d->bytes;
  for (int64_t r = 0; r < at->rows; r++) {
    d->to_f32(block, first + (size_t)r * at->row_bytes, d->block);
    out[r] = block[w->index % d->block];
  }
}

/* What is added to the row or column at scale 1. */
static int change(const struct nm__weight_edit *w, const struct nm__place *at, float *v, int64_t n,
                  nm_err *err) {
  double sum = 0;
  if (w->op == NM__WEIGHT_ADD) {
    char why[120];
    snprintf(why, sizeof why, "the vector has %lld values, the %s %lld", (long long)w->vec.n,
             w->row ? "row" : "column", (long long)n);
    if (w->vec.n != n) return misfit(w, err, why);
    memcpy(v, w->vec.v, sizeof *v * (size_t)n);
    return NM_OK;
  }
  stored(w, at, v);
  for (int64_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
  if (!(sum - sum == 0)) return misfit(w, err, "a value of it is not finite");
  if (w->op == NM__WEIGHT_NOISE)
    nm__normals(v, n, nm__sqrt(sum / (double)n), w->seed,
                nm__hash(w->weight, strlen(w->weight), (uint64_t)w->index * 2 + w->row));
  else
    for (int64_t i = 0; i < n; i++) v[i] = -v[i];
  return NM_OK;
}

static int apply(struct nm__weight_edit *w, const nm_model *m, struct nm__deltas *d, nm_err *err) {
  struct nm__place at;
  char why[120];
  int places = 0;
  w->touched = 0;
  if (!nm__place_of(m, w->weight, w->expert, &at))
    return misfit(w, err, "the model has no such matrix (noema info --json lists its tensors; of "
                          "stacked experts say which by \"expert\")");
  const struct nm__dtype_info *info = nm__dtype(at.t->type);
  if (!info->to_f32 || info->block > 256)
    return misfit(w, err, "it is stored in a type that cannot be read");
  snprintf(why, sizeof why, "the matrix has %lld rows and %lld columns", (long long)at.rows,
           (long long)at.cols);
  if (w->index >= (w->row ? at.rows : at.cols)) return misfit(w, err, why);
  int64_t n = w->row ? at.cols : at.rows;
  float *a = nm__deltas_own(d, (size_t)at.cols, sizeof *a, err);
  float *b = a ? nm__deltas_own(d, (size_t)at.rows, sizeof *b, err) : NULL;
  if (!b) return NM_EMEMORY;
  int st = change(w, &at, w->row ? a : b, n, err);
  *(w->row ? b + w->index : a + w->index) = 1;
  struct nm__low_rank product = {a, b, 1, w->scale}, rows = {b, a, 1, w->scale};
  if (st || w->scale == 0) return st;
  st = nm__deltas_beside(d, m, &at, &product, false, &places, err);
  if (!st && w->expert < 0) st = nm__deltas_lookup(d, m, &at, &rows, &places, err);
  if (!st && !places) st = misfit(w, err, "it is no matrix that the model multiplies with");
  w->touched = st ? 0 : (uint64_t)n;
  return st;
}

int nm__weight_edits_apply(nm_edits *e, const nm_model *m, struct nm__deltas *d, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; e && i < e->n_w && !st; i++) st = apply(&e->w[i], m, d, err);
  return st;
}
