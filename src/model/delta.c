/* delta.c - where a change of a tensor acts: the products and look-ups of the forward that read
 * rows of it. */
#include "model/delta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hf.h"

/* ---- the list ---------------------------------------------------------------- */

void nm__deltas_done(struct nm__deltas *d) {
  for (size_t i = 0; i < d->n_own; i++) free(d->own[i]);
  free(d->own);
  free(d->v);
  *d = (struct nm__deltas){0};
}

void *nm__deltas_own(struct nm__deltas *d, size_t n, size_t size, nm_err *err) {
  void **v = nm__realloc(d->own, d->n_own + 1, sizeof *v);
  if (v) d->own = v;
  void *p = v ? nm__alloc(n ? n : 1, size) : NULL;
  if (!p) return nm__fail_memory(err, "a change of a weight", n * size), NULL;
  return d->own[d->n_own++] = p;
}

/* Behind those that stand beside the same weight already. */
static int put(struct nm__deltas *d, struct nm__lora l, nm_err *err) {
  if (d->n == d->cap) {
    int cap = d->cap ? 2 * d->cap : 32;
    struct nm__lora *v = nm__realloc(d->v, (size_t)cap, sizeof *v);
    if (!v) return nm__fail_memory(err, "the changes of weights", (size_t)cap * sizeof *v);
    d->v = v;
    d->cap = cap;
  }
  int at = d->n++;
  for (; at > 0 && d->v[at - 1].data > l.data; at--) d->v[at] = d->v[at - 1];
  d->v[at] = l;
  return NM_OK;
}

int nm__deltas_join(struct nm__deltas *d, const struct nm__lora *v, int n, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < n && !st; i++) st = put(d, v[i], err);
  return st;
}

/* ---- places --------------------------------------------------------------------- */

bool nm__place_of(const nm_model *m, const char *name, int expert, struct nm__place *out) {
  char alone[160];
  const struct nm__gguf_tensor *t = nm__gguf_tensor(m->g, name);
  const char *stack = strstr(name, "_exps.weight");
  bool stacked = t && t->ne[2] > 1;
  if (!t && expert >= 0 && stack) {
    snprintf(alone, sizeof alone, "%.*s.%d.weight", (int)(stack - name), name, expert);
    t = nm__gguf_tensor(m->g, alone);
  }
  if (!t && !strcmp(name, "output.weight") && m->tied)
    t = nm__gguf_tensor(m->g, "token_embd.weight");
  if (!t || t->n_dims < 2 || t->ne[3] != 1 || (stacked && (expert < 0 || expert >= t->ne[2])))
    return false;
  const struct nm__dtype_info *d = nm__dtype(t->type);
  size_t row = (size_t)(t->ne[0] / d->block) * (size_t)d->bytes;
  *out = (struct nm__place){t, t->data, t->ne[1], t->ne[0], row, expert};
  if (stacked) out->data += (size_t)expert * (size_t)t->ne[1] * row;
  return true;
}

/* ---- beside products --------------------------------------------------------------- */

static struct nm__w matrix(const float *v, int64_t rows, int64_t cols) {
  return (struct nm__w){(const uint8_t *)v, NM__F32, rows, cols, sizeof *v * (size_t)cols};
}

/* Rows of b as the model has them. */
static const float *own_rows(struct nm__deltas *d, const nm_model *m, const struct nm__place *at,
                             const struct nm__low_rank *c, nm_err *err) {
  int n_head;
  enum nm__hf_change change = nm__hf_pending(m->g, at->t, &n_head);
  if (change == NM__HF_SAME) return c->b;
  float *b = nm__deltas_own(d, (size_t)(at->rows * c->r), sizeof *b, err);
  for (int64_t i = 0; b && i < at->rows; i++)
    memcpy(b + i * c->r, c->b + nm__hf_row(change, false, n_head, at->rows, i) * c->r,
           sizeof *b * (size_t)c->r);
  return b;
}

enum { MOST_USES = 12 };

/* The matrices of block il; of "block" L the head. */
static int uses(const nm_model *m, int il, const struct nm__w *out[MOST_USES]) {
  if (il == m->L) return out[0] = &m->output, 1;
  const struct nm__layer *l = &m->layer[il];
  const struct nm__w *v[] = {&l->q,         &l->k,         &l->v,          &l->o,
                             &l->gate,      &l->up,        &l->down,       &l->router,
                             &l->shared[0], &l->shared[1], &l->shared[2],  &l->shared_gate};
  memcpy(out, v, sizeof v);
  return MOST_USES;
}

/* An expert's change joins those of the other experts of the block that have its form. */
static int beside_expert(struct nm__deltas *d, const nm_model *m, const struct nm__w *experts,
                         int e, const struct nm__low_rank *c, const float *b, nm_err *err) {
  int64_t rows = experts[e].rows, cols = experts[e].cols;
  for (int i = d->n - 1; i >= 0; i--) {
    struct nm__lora *l = &d->v[i];
    if (l->data != experts[0].data || !l->expert[0] || l->expert[0][e].data ||
        l->expert[0][e].rows != c->r || l->scale != c->scale)
      continue;
    l->expert[0][e] = matrix(c->a, c->r, cols);
    l->expert[1][e] = matrix(b, rows, c->r);
    return NM_OK;
  }
  struct nm__w *v = nm__deltas_own(d, 2 * (size_t)m->moe.n, sizeof *v, err);
  if (!v) return NM_EMEMORY;
  for (int i = 0; i < m->moe.n; i++) {
    v[i] = matrix(i == e ? c->a : NULL, c->r, cols);
    v[m->moe.n + i] = matrix(i == e ? b : NULL, rows, c->r);
  }
  return put(d, (struct nm__lora){.data = experts[0].data, .scale = c->scale,
                                  .expert = {v, v + m->moe.n}}, err);
}

static int in_experts(struct nm__deltas *d, const nm_model *m, const struct nm__place *at,
                      const struct nm__low_rank *c, const float *b, int *n, nm_err *err) {
  int st = NM_OK;
  for (int il = 0; il < m->L && m->moe.n && !st; il++)
    for (int i = 0; i < 3 && !st; i++) {
      const struct nm__w *w = m->layer[il].expert[i];
      if (!w || at->expert < 0 || at->expert >= m->moe.n || w[at->expert].data != at->data)
        continue;
      st = beside_expert(d, m, w, at->expert, c, b, err);
      ++*n;
    }
  return st;
}

int nm__deltas_beside(struct nm__deltas *d, const nm_model *m, const struct nm__place *at,
                      const struct nm__low_rank *c, bool gguf_rows, int *n, nm_err *err) {
  const struct nm__w *use[MOST_USES];
  const float *b = gguf_rows ? own_rows(d, m, at, c, err) : c->b;
  if (!b) return NM_EMEMORY;
  if (at->expert >= 0) return in_experts(d, m, at, c, b, n, err);
  int st = NM_OK;
  for (int il = 0; il <= m->L && !st; il++)
    for (int k = uses(m, il, use); k-- > 0 && !st;) {
      const struct nm__w *w = use[k];
      if (!w->data || w->data < at->data || w->data >= at->data + at->t->bytes) continue;
      int64_t first = (w->data - at->data) / (int64_t)at->row_bytes;
      st = put(d, (struct nm__lora){.data = w->data, .scale = c->scale,
                                    .a = matrix(c->a, c->r, at->cols),
                                    .b = matrix(b + first * c->r, w->rows, c->r)}, err);
      ++*n;
    }
  return st;
}

int nm__deltas_lookup(struct nm__deltas *d, const nm_model *m, const struct nm__place *at,
                      const struct nm__low_rank *c, int *n, nm_err *err) {
  const struct nm__w *tables[] = {&m->embd, &m->pos, &m->type_embd};
  int st = NM_OK;
  for (int i = 0; i < 3 && !st; i++) {
    if (tables[i]->data != at->data) continue;
    st = put(d, (struct nm__lora){.data = at->data, .scale = c->scale, .lookup = true,
                                  .a = matrix(c->a, at->rows, c->r),
                                  .b = matrix(c->b, at->cols, c->r)}, err);
    ++*n;
  }
  return st;
}
