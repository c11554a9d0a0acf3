/* edit.c - edits of activations: what each does to a row. edit_read.c reads them from files,
 * plan.c fits them to a model, run.c brings them to the rows. They stack in the order written. */
#include "model/delta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nm__edit *nm__edits_push(nm_edits *e) {
  struct nm__edit *v = nm__realloc(e->v, (size_t)e->n + 1, sizeof *v);
  if (!v) return NULL;
  e->v = v;
  memset(&v[e->n], 0, sizeof *v);
  return &v[e->n++];
}

bool nm__edit_name(struct nm__edit *e, const char *op) {
  e->what = nm__alloc(160, 1);
  if (e->what)
    snprintf(e->what, 160, "%s at %.60s, positions %.40s", op, e->site, e->at_text);
  return e->what;
}

static void edit_done(struct nm__edit *e) {
  free(e->site);
  free(e->at_text);
  free(e->what);
  free(e->schedule.v);
  nm__dirs_done(&e->vec);
  nm__at_done(&e->at);
}

void nm_edits_free(nm_edits *e) {
  if (!e) return;
  for (int i = 0; i < e->n; i++) edit_done(&e->v[i]);
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

struct nm__weight_edit *nm__edits_push_weight(nm_edits *e) {
  struct nm__weight_edit *w = nm__realloc(e->w, (size_t)e->n_w + 1, sizeof *w);
  if (!w) return NULL;
  e->w = w;
  memset(&w[e->n_w], 0, sizeof *w);
  return &w[e->n_w++];
}

int nm_edits_join(nm_edits **to, nm_edits *from, nm_err *err) {
  if (!*to) {
    *to = from;
    return NM_OK;
  }
  int n = nm__edits_acts(from), n_w = from ? from->n_w : 0;
  struct nm__edit *v = nm__realloc((*to)->v, (size_t)((*to)->n + n) + 1, sizeof *v);
  if (v) (*to)->v = v;
  struct nm__weight_edit *w = nm__realloc((*to)->w, (size_t)((*to)->n_w + n_w) + 1, sizeof *w);
  if (w) (*to)->w = w;
  if (!v || !w) return nm_edits_free(from), nm__fail_memory(err, "the edits", 0);
  if (n) memcpy(v + (*to)->n, from->v, (size_t)n * sizeof *v);
  if (n_w) memcpy(w + (*to)->n_w, from->w, (size_t)n_w * sizeof *w);
  (*to)->n += n;
  (*to)->n_w += n_w;
  if (from) from->n = from->n_w = 0;
  nm_edits_free(from);
  return NM_OK;
}

/* ---- control vectors --------------------------------------------------------- */

/* Blocks from..to, all of which have a direction, as one edit. */
static int push_range(nm_edits *e, const struct nm__dirs *d, float scale, int from, int to,
                      nm_err *err) {
  struct nm__edit *v = nm__edits_push(e);
  char site[64];
  snprintf(site, sizeof site, from == to ? "blk.%d.resid_post" : "blk.%d-%d.resid_post", from, to);
  if (!v || !(v->site = nm__strdup(site)) || !(v->at_text = nm__strdup("all")) ||
      !nm__edit_name(v, "control vector"))
    return nm__fail_memory(err, "an edit", 0);
  size_t n = (size_t)(to - from + 1) * (size_t)d->n;
  v->op = NM__EDIT_ADD;
  v->scale = scale;
  v->vec = (struct nm__dirs){nm__alloc(n, sizeof(float)), to - from + 1, 1, d->n, NULL};
  if (!v->vec.v) return nm__fail_memory(err, "a control vector", n * sizeof(float));
  memcpy(v->vec.v, d->v + (int64_t)from * d->n, n * sizeof(float));
  return nm__at_parse("all", &v->at, err);
}

/* What llama.cpp does: directions from..to are added after their blocks, at every position. */
static int push_control(nm_edits *e, const nm_model *m, const char *path, const struct nm__dirs *d,
                        double scale, int from, int to, nm_err *err) {
  int before = e->n;
  if (!d->has)
    return nm__fail(err, NM_EFORMAT, "%s: is no control vector (a GGUF with tensors direction.K)",
                    path);
  if (d->n != m->D)
    return nm__fail(err, NM_EFORMAT, "%s: its directions have %lld values, the model's width is %d",
                    path, (long long)d->n, m->D);
  if (d->rows > m->L)
    return nm__fail(err, NM_EFORMAT, "%s: it has a direction for block %lld, the last of the model "
                    "is %d", path, (long long)d->rows - 1, m->L - 1);
  for (int a = from > 1 ? from : 1; a <= to && a < d->rows; a++) {
    int b = a;
    if (!d->has[a]) continue;
    while (b < to && b + 1 < d->rows && d->has[b + 1]) b++;
    int st = push_range(e, d, (float)scale, a, b, err);
    if (st) return st;
    a = b;
  }
  if (e->n > before) return NM_OK;
  return nm__fail(err, NM_EFORMAT, "%s: it has no direction for blocks %d to %d", path, from, to);
}

int nm_edits_add_control_vector(nm_edits **e, const nm_model *m, const char *path, double scale,
                                int from, int to, nm_err *err) {
  struct nm__dirs d;
  nm_edits *more = nm__alloc(1, sizeof *more);
  if (!more) return nm__fail_memory(err, "the edits", sizeof *more);
  int st = (double)(float)scale - (double)(float)scale == 0
               ? nm__dirs_read(path, NULL, &d, err)
               : nm__fail(err, NM_EUSAGE, "%s: the scale is not finite", path);
  if (!st) {
    st = push_control(more, m, path, &d, scale, from, to, err);
    nm__dirs_done(&d);
  }
  if (!st) return nm_edits_join(e, more, err);
  nm_edits_free(more);
  return st;
}

/* ---- what an edit does ---------------------------------------------------------- */

float nm__factor_at(const struct nm__factors *s, int generated) {
  if (!s->n) return 1;
  int i = generated < 0 ? 0 : generated;
  return s->v[i < s->n ? i : s->n - 1];
}

static void uniform(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = 1.0f / (float)n;
}

static void clamp(float *x, int64_t n, float low, float high) {
  for (int64_t i = 0; i < n; i++) x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

/* x moves to v by s of the way; all of it gives the very bits of v. */
static void toward(float *x, const float *v, float s, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = s == 1 ? v[i] : x[i] + s * (v[i] - x[i]);
}

bool nm__edit_apply(const struct nm__edit *e, struct nm__edit_at at, const struct nm__kern *k,
                    float *x, int64_t n) {
  const struct nm__dirs *d = &e->vec;
  const float *v = d->v ? d->v + ((d->rows > 1 ? at.row : 0) * d->pos +
                                  (d->pos > 1 && at.pos < d->pos ? at.pos : 0)) * d->n : NULL;
  if (d->pos > 1 && at.pos >= d->pos) return false;      /* behind the text of the file */
  float factor = nm__factor_at(&e->schedule, at.generated), s = e->scale * factor;
  bool adds = e->op == NM__EDIT_ADD || e->op == NM__EDIT_PROJECT_OUT || e->op == NM__EDIT_MEAN;
  if (adds ? s == 0 : factor == 0) return false;       /* no bit changes, not that of -0 either */
  if (e->op == NM__EDIT_SCALE) s = 1 + (e->scale - 1) * factor;
  switch (e->op) {
    case NM__EDIT_ADD: k->axpy(x, s, v, n); break;
    case NM__EDIT_ZERO: memset(x, 0, sizeof(float) * (size_t)n); break;
    case NM__EDIT_SCALE: k->mul(x, e->schedule.n ? s : e->scale, x, n); break;
    case NM__EDIT_REPLACE: k->mul(x, e->scale, v, n); break;
    case NM__EDIT_MEAN: toward(x, v, s, n); break;
    case NM__EDIT_CLAMP: clamp(x, n, e->low, e->high); break;
    case NM__EDIT_UNIFORM: uniform(x, n); break;
    case NM__EDIT_PROJECT_OUT: {   /* x -= s (x.v / v.v) v */
      float vv = k->dot(v, v, n);
      if (vv > 0) k->axpy(x, -s * (k->dot(x, v, n) / vv), v, n);
      break;
    }
    default: break;
  }
  return true;
}

void nm__edits_key(const nm_edits *e, struct nm__buf *b) {
  for (int i = 0; e && i < e->n_w; i++) nm__weight_edit_key(&e->w[i], b);
  for (int i = 0; e && i < e->n; i++) {
    const struct nm__edit *v = &e->v[i];
    nm__buf_printf(b, "%d|%a|%s|%s|", (int)v->op, (double)v->scale, v->site, v->at_text);
    if (v->op == NM__EDIT_CLAMP) nm__buf_printf(b, "%a|%a|", (double)v->low, (double)v->high);
    if (v->vec.pos > 1) nm__buf_printf(b, "%lld|", (long long)v->vec.pos);
    nm__buf_put(b, v->vec.v,
                v->vec.v ? sizeof(float) * (size_t)(v->vec.n * v->vec.pos * v->vec.rows) : 0);
    if (v->vec.has) nm__buf_put(b, v->vec.has, (size_t)v->vec.rows);
    if (v->schedule.n)
      nm__buf_put(b, v->schedule.v, sizeof(float) * (size_t)v->schedule.n);
  }
}
