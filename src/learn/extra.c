/* extra.c - learned tensors that stand beside the model's: soft prompts, vectors, probes; and
 * tensors of which only some rows or columns are trained. */
#include "learn/learn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/npy.h"
#include "tensor/math.h"

/* ---- finding, adding ------------------------------------------------------- */

const struct nm__learned *nm__params_find(const struct nm__params *p, const char *name) {
  for (int i = 0; i < p->n; i++)
    if (!strcmp(p->v[i].name, name)) return &p->v[i];
  return NULL;
}

struct nm__w nm__params_view(const struct nm__params *p, const char *name) {
  const struct nm__learned *v = nm__params_find(p, name);
  if (!v) return (struct nm__w){0};
  return (struct nm__w){(const uint8_t *)(p->values + v->at), NM__F32, v->rows, v->cols,
                        sizeof(float) * (size_t)v->cols};
}

/* A pointer into the old values points to the same place in the new ones. */
static void rebase(const uint8_t **at, const float *from, size_t n, const float *to) {
  const uint8_t *old = (const uint8_t *)from;
  if (from && *at >= old && *at < old + n * sizeof *from)
    *at = (const uint8_t *)to + (*at - old);
}

static void rebase_all(struct nm__params *p, struct nm__gguf *g, size_t n, const float *to) {
  for (size_t i = 0; g && i < g->n_tensors; i++) rebase(&g->tensors[i].data, p->values, n, to);
  for (int i = 0; i < p->n_lora; i++) {
    rebase(&p->lora[i].a.data, p->values, n, to);
    rebase(&p->lora[i].b.data, p->values, n, to);
  }
}

int nm__params_add(struct nm__params *p, struct nm__gguf *g, const char *name, int64_t rows,
                   int64_t cols, nm_err *err) {
  enum { ALIGN = 16 };             /* floats, as in params.c */
  struct nm__learned one = {.rows = rows, .cols = cols, .at = p->n_floats};
  if (nm__params_find(p, name))
    return nm__fail(err, NM_EUSAGE, "there is a learned tensor %.60s already", name);
  if (rows < 1 || cols < 1 || rows > (int64_t)1 << 31 || cols > (int64_t)1 << 31 ||
      strlen(name) >= sizeof one.name)
    return nm__fail(err, NM_EUSAGE, "a learned tensor %.60s [%lld, %lld] cannot be made", name,
                    (long long)rows, (long long)cols);
  size_t all = p->n_floats + ((size_t)rows * (size_t)cols + ALIGN - 1) / ALIGN * ALIGN;
  struct nm__learned *v = nm__realloc(p->v, (size_t)p->n + 1, sizeof *v);
  if (v) p->v = v;
  float *values = v ? nm__alloc_lines(all + ALIGN, sizeof *values) : NULL;
  if (!values) return nm__fail_memory(err, "a learned tensor", all * sizeof *values);
  if (p->values) memcpy(values, p->values, p->n_floats * sizeof *values);
  rebase_all(p, g, p->n_floats, values);
  free(p->values);
  p->values = values;
  p->n_floats = all;
  memcpy(one.name, name, strlen(name) + 1);
  p->v[p->n++] = one;
  return NM_OK;
}

/* ---- soft prompts ------------------------------------------------------------ */

static bool wants_embed(void *arg, int site, int layer) {
  (void)arg, (void)layer;
  return site == NM__S_EMBED;
}

static void copy_rows(void *arg, int site, int layer, struct nm__t *t, const int32_t *rows,
                      const struct nm__route *route) {
  (void)site, (void)layer, (void)rows, (void)route;
  memcpy(arg, t->d, sizeof(float) * (size_t)(t->rows * t->cols));
}

/* What enters block 0 for these tokens at positions 0..n-1. */
static int embedded(const nm_model *m, const int32_t *ids, int n, float *out, nm_err *err) {
  struct nm__ops o = {.mode = NM__MEASURE, .kern = nm__kern_find(NULL)};
  struct nm__visitor vis = {wants_embed, copy_rows, NULL, out};
  struct nm__span span = {.n = n};
  struct nm__forward f = {.m = m, .ops = &o, .spans = &span, .n_spans = 1, .T = n, .max_keys = n,
                          .n_ctx = m->n_ctx, .ids = ids, .vis = &vis, .last_layer = -1};
  nm__arena_init(&o.arena, 0, NULL);
  nm__forward(&f);
  size_t need = o.arena.peak;
  int st = nm__arena_init(&o.arena, need, err);
  o.mode = NM__RUN;
  if (!st && nm__forward(&f)) {
    st = o.err.status;
    if (err) *err = o.err;
  }
  nm__arena_done(&o.arena);
  return st;
}

static int tokens_in_range(const nm_model *m, const int32_t *ids, int n, nm_err *err) {
  for (int i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= m->V)
      return nm__fail(err, NM_EUSAGE, "a soft prompt cannot begin as token %d: %s has %d tokens",
                      ids[i], m->path, m->V);
  return NM_OK;
}

/* The size of m's embeddings, element by element: of as many tokens as there are rows. */
static void noise(float *v, int64_t n, uint64_t seed) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
  double size = nm__sqrt(3.0 * sum / (double)n);
  for (int64_t i = 0; i < n; i++)
    v[i] = (float)(size * ((double)(nm__rand_at(seed, 0x50, (uint64_t)i) >> 11) * 0x1p-52 - 1));
}

int nm__params_soft(struct nm__params *p, struct nm__gguf *g, const nm_model *m, int rows,
                    const int32_t *ids, int n_ids, uint64_t seed, nm_err *err) {
  if (rows < 1 || rows >= m->n_ctx)
    return nm__fail(err, NM_EUSAGE, "a soft prompt of %d rows does not fit: %s has a context of %d",
                    rows, m->path, m->n_ctx);
  if (!m->arch || m->arch->encoder)
    return nm__fail(err, NM_EUSAGE, "%s: a soft prompt needs a decoder", m->path);
  int st = tokens_in_range(m, ids, n_ids, err);
  if (!st) st = nm__params_add(p, g, "prompt", rows, m->D, err);
  int32_t *first = st ? NULL : nm__alloc((size_t)rows, sizeof *first);
  if (st) return st;
  if (!first) return nm__fail_memory(err, "a soft prompt", (size_t)rows * sizeof *first);
  for (int i = 0; i < rows; i++)
    first[i] = n_ids ? ids[i % n_ids]
                     : (int32_t)(nm__rand_at(seed, 0x51, (uint64_t)i) % (uint64_t)m->V);
  float *values = p->values + p->v[p->n - 1].at;
  st = embedded(m, first, rows, values, err);
  if (!st && !n_ids) noise(values, (int64_t)rows * m->D, seed);
  free(first);
  p->n_prompt = rows;
  return st;
}

/* ---- writing --------------------------------------------------------------------- */

static int write_gguf(const struct nm__learned *v, const float *values, const char *path,
                      nm_err *err) {
  struct nm__gguf_writer *w;
  int st = nm__gguf_writer_new(&w, err);
  if (st) return st;
  nm__gguf_put_string(w, "general.type", "learned");
  nm__gguf_announce(w, v->name, NM__F32, 2, (const int64_t[]){v->cols, v->rows});
  st = nm__gguf_begin(w, path, err);
  if (!st) st = nm__gguf_data(w, values, sizeof(float) * (size_t)(v->rows * v->cols), err);
  if (!st) st = nm__gguf_finish(w, err);
  nm__gguf_writer_free(w);
  return st;
}

int nm__params_write(const struct nm__params *p, const char *name, const char *path, nm_err *err) {
  const struct nm__learned *v = nm__params_find(p, name);
  size_t n = strlen(path);
  if (!v) return nm__fail(err, NM_EUSAGE, "%s: no tensor %.60s was learned", path, name);
  if (n > 5 && !strcmp(path + n - 5, ".gguf")) return write_gguf(v, p->values + v->at, path, err);
  return nm__npy_write(path, 2, (const int64_t[]){v->rows, v->cols}, p->values + v->at, err);
}

/* ---- single rows or columns -------------------------------------------------------- */

int nm__params_only(struct nm__params *p, const char *name, bool by_column, const int32_t *list,
                    int n, nm_err *err) {
  struct nm__learned *v = (struct nm__learned *)(uintptr_t)nm__params_find(p, name);
  const char *what = by_column ? "column" : "row";
  if (!v) return nm__fail(err, NM_EUSAGE, "no tensor %.60s is trained", name);
  int64_t most = by_column ? v->cols : v->rows;
  if (n < 1) return nm__fail(err, NM_EUSAGE, "%s: no %s is named", name, what);
  for (int i = 0; i < n; i++)
    if (list[i] < 0 || list[i] >= most || (i && list[i] <= list[i - 1]))
      return nm__fail(err, NM_EUSAGE, "%s: %ss must ascend and lie below %lld, found %d", name,
                      what, (long long)most, list[i]);
  int32_t *copy = nm__alloc((size_t)n, sizeof *copy);
  if (!copy) return nm__fail_memory(err, "a list of rows", (size_t)n * sizeof *copy);
  memcpy(copy, list, (size_t)n * sizeof *copy);
  free(v->only);
  v->only = copy;
  v->n_only = n;
  v->by_column = by_column;
  return NM_OK;
}

/* fn over the runs of elements that are trained (or that are not), one after the other. */
static void runs(const struct nm__learned *v, bool trained, void *arg,
                 void (*fn)(void *arg, int64_t at, int64_t n)) {
  int64_t last = v->by_column ? v->cols : v->rows, unit = v->by_column ? 1 : v->cols;
  for (int64_t r = 0; r < (v->by_column ? v->rows : 1); r++) {
    int64_t base = r * v->cols, from = 0;
    for (int i = 0; i <= v->n_only; i++) {
      int64_t k = i < v->n_only ? v->only[i] : last;
      if (!trained && k > from) fn(arg, base + from * unit, (k - from) * unit);
      if (trained && k < last) fn(arg, base + k * unit, unit);
      from = k + 1;
    }
  }
}

static void zero(void *arg, int64_t at, int64_t n) {
  memset((float *)arg + at, 0, sizeof(float) * (size_t)n);
}

void nm__params_mask(const struct nm__params *p, float *grad) {
  for (int i = 0; i < p->n; i++)
    if (p->v[i].only) runs(&p->v[i], false, grad + p->v[i].at, zero);
}

struct shrink { const struct nm__kern *k; float *p, keep; };
static void shrink(void *arg, int64_t at, int64_t n) {
  struct shrink *s = arg;
  s->k->mul(s->p + at, s->keep, s->p + at, n);
}

/* A gradient of zero and a state of zero leave an element as it is; decay does not. So it is
 * applied to the trained elements by itself. */
void nm__params_step(struct nm__ops *o, const struct nm__optim *k, const struct nm__params *p,
                     int i, const float *grad, float *state, float lr, float decay, int64_t step) {
  const struct nm__learned *v = &p->v[i];
  float *values = p->values + v->at;
  struct shrink s = {o->kern, values, (float)(1 - (double)lr * (double)decay)};
  if (v->only && decay != 0) runs(v, true, &s, shrink);
  nm__optim_step(o, k, values, grad + v->at, state, v->rows, v->cols, lr, v->only ? 0 : decay,
                 step);
}
