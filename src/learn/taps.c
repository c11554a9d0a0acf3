/* taps.c - activations on the tape: a vector that is learned is added at a site, and a tapped
 * activation enters a loss. */
#include <stdlib.h>
#include <string.h>

#include "learn/slot.h"

/* ---- which sites, which positions ------------------------------------------------ */

/* A site of one whole row a position, which the visitor may replace. */
static const char *not_a_row(struct nm__sel s) {
  if (s.index_n) return "an index is not possible here, only whole rows are";
  if (nm__site_per_key(s.site)) return "scores and patterns are not rows of positions";
  if (s.site >= NM__S_ROUTER && s.site <= NM__S_SHARED_OUT)
    return "the inside of a mixture of experts cannot be used in training";
  if (s.site == NM__S_FINAL_NORM || s.site == NM__S_LOGITS)
    return "only some positions reach the head: take the last block's resid_post";
  return NULL;
}

int nm__places_open(const nm_model *m, const char *what, const char *site, const char *at,
                    bool blocks, struct nm__places *p, nm_err *err) {
  char name[64];
  if (!site) return nm__fail(err, NM_EUSAGE, "%s: no site is named", what);
  int st = nm__sites_select(m, site, &p->sels, err);
  if (!st) st = nm__at_parse(at ? at : "all", &p->at, err);
  for (int i = 0; i < p->sels.n && !st; i++) {
    const char *why = not_a_row(p->sels.v[i]);
    nm__sel_name(m, p->sels.v[i], name);
    if (!why && nm__sel_width(m, p->sels.v[i], 1) != nm__sel_width(m, p->sels.v[0], 1))
      why = "the sites of one glob must have one width";
    if (!why && !blocks && p->sels.v[i].layer >= 0)
      why = "blocks are computed again on the way back, so a loss cannot read inside them: train "
            "without recomputing";
    if (why) st = nm__fail(err, NM_EUSAGE, "site %s: %s", name, why);
  }
  return st ? nm__fail_at(err, st, "%s", what) : st;
}

void nm__places_done(struct nm__places *p) {
  free(p->sels.v);
  nm__at_done(&p->at);
  *p = (struct nm__places){0};
}

int nm__places_of(const struct nm__places *p, const nm_model *m, const struct nm__sample *v,
                  int **pos, int *n, nm_err *err) {
  nm_seq seq = {v->ids, (size_t)v->n};
  return nm__at_resolve(&p->at, m, &seq, pos, n, err);
}

int nm__places_rows(const struct nm__slot *l, const struct nm__places *p, int group,
                    int32_t **rows, int32_t **of, int *n, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < l->n && !st; i++) {
    int *pos = NULL, found = 0;
    if ((group != NM__ALL_GROUPS && l->v[i]->group != group) || !l->v[i]->n) continue;
    st = nm__places_of(p, l->s->m, l->v[i], &pos, &found, err);
    size_t all = (size_t)(*n + found) + 1;
    int32_t *r = st ? NULL : nm__realloc(*rows, all, sizeof *r);
    if (r) *rows = r;
    int32_t *o = r ? nm__realloc(*of, all, sizeof *o) : NULL;
    if (o) *of = o;
    if (!st && !o) st = nm__fail_memory(err, "positions", all * sizeof *r);
    for (int k = 0; k < found && !st; k++, (*n)++) {
      (*rows)[*n] = l->first[i] + pos[k];
      (*of)[*n] = i;
    }
    free(pos);
  }
  return st;
}

/* ---- edits --------------------------------------------------------------------------- */

static int check_edit(const struct nm__slot *l, int i, nm_err *err) {
  const struct nm__places *p = &l->plan->edit[i];
  struct nm__w w = l->s->edits[i].vector;
  int64_t width = nm__sel_width(l->s->m, p->sels.v[0], 1);
  if (w.data && w.type == NM__F32 && w.cols == width && (w.rows == 1 || w.rows == p->sels.n))
    return NM_OK;
  return nm__fail(err, NM_EUSAGE, "an edit at %s: its vector is [%lld, %lld], it must be [1, %lld]"
                  " or have a row for each of %d sites", l->s->edits[i].site, (long long)w.rows,
                  (long long)w.cols, (long long)width, p->sels.n);
}

int nm__edits_make(struct nm__slot *l, nm_err *err) {
  int n = l->s->n_edits, st = NM_OK;
  l->edit_rows = nm__alloc((size_t)n + 1, sizeof *l->edit_rows);
  l->n_edit_rows = nm__alloc((size_t)n + 1, sizeof *l->n_edit_rows);
  if (!l->edit_rows || !l->n_edit_rows) return nm__fail_memory(err, "the edits", 0);
  for (int i = 0; i < n && !st; i++) {
    int32_t *of = NULL;
    st = check_edit(l, i, err);
    if (!st)
      st = nm__places_rows(l, &l->plan->edit[i], NM__ALL_GROUPS, &l->edit_rows[i], &of,
                           &l->n_edit_rows[i], err);
    free(of);
  }
  return st;
}

void nm__edits_done(struct nm__slot *l) {
  for (int i = 0; l->edit_rows && i < l->s->n_edits; i++) free(l->edit_rows[i]);
  free(l->edit_rows);
  free(l->n_edit_rows);
}

static bool here(const struct nm__places *p, int k, int site, int layer) {
  return p->sels.v[k].site == site && p->sels.v[k].layer == layer;
}

static void apply_edit(struct nm__slot *l, int i, int k, struct nm__t *x) {
  static const int32_t first[1] = {0};
  const struct nm__learned_edit *e = &l->s->edits[i];
  struct nm__w row = nm__w_rows(e->vector, e->vector.rows > 1 ? k : 0, 1);
  struct nm__op_args a = {.w = row, .ids = first, .n_ids = 1};
  struct nm__t v = nm__op(&l->s->ops, NM__OP_EMBED, &a);
  a = (struct nm__op_args){.x = *x, .y = v, .ids = l->edit_rows[i], .n_ids = l->n_edit_rows[i],
                           .scale = e->scale};
  *x = nm__op(&l->s->ops, NM__OP_ADD_VEC, &a);
}

/* ---- losses of taps -------------------------------------------------------------------- */

static int64_t wanted(const struct nm__loss_spec *e, int64_t width) {
  return e->probe.data ? e->probe.rows : width;
}

int nm__tap_check(const struct nm__stepper *s, const struct nm__loss_spec *e,
                  const struct nm__sample *v, int64_t width, nm_err *err) {
  bool probe = !strcmp(e->name, "tap_probe");
  const struct nm__w *w = &e->probe, *b = &e->probe_bias;
  int64_t n = wanted(e, width);
  (void)s;
  if (probe && (!w->data || w->type != NM__F32 || w->cols != width ||
                (b->data && (b->type != NM__F32 || b->rows * b->cols != w->rows))))
    return nm__fail(err, NM_EUSAGE, "a probe at %s must be [labels, %lld] in F32 with a bias for "
                    "each label, not [%lld, %lld]", e->site, (long long)width, (long long)w->rows,
                    (long long)w->cols);
  if (!probe && w->data)
    return nm__fail(err, NM_EUSAGE, "only tap_probe reads a probe");
  if (!e->target && (!v->target || e->target_at < 0 || n > v->n_target - e->target_at))
    return nm__fail(err, NM_EUSAGE, "a target of %lld numbers from %d on is needed, a "
                    "sample has %d",
                    (long long)n, e->target_at, v->target ? v->n_target : 0);
  return NM_OK;
}

int nm__tap_make(struct nm__slot *l, struct nm__term *t, nm_err *err) {
  const struct nm__loss_spec *e = &l->plan->spec[t->i];
  const struct nm__places *p = &l->plan->places[t->i];
  bool cosine = l->plan->kind[t->i]->op == NM__OP_COSINE;
  double part = 1 / l->plan->over[t->i];
  int32_t *of = NULL;
  int st = nm__places_rows(l, p, e->group, &t->pick, &of, &t->n_pick, err);
  size_t n = (size_t)t->n_pick, w = (size_t)wanted(e, nm__sel_width(l->s->m, p->sels.v[0], 1));
  if (!st) {
    t->want = nm__alloc(n * w + 1, sizeof *t->want);
    t->pick_weight = nm__alloc(n + 1, sizeof *t->pick_weight);
    t->shift = nm__alloc(1, sizeof *t->shift);
    if (!t->want || !t->pick_weight || !t->shift)
      st = nm__fail_memory(err, "the targets of a loss", n * w * sizeof *t->want);
  }
  for (size_t i = 0; i < n && !st; i++) {
    const float *from = e->target ? e->target : l->v[of[i]]->target + e->target_at;
    memcpy(t->want + i * w, from, w * sizeof *from);
    t->pick_weight[i] = (float)(cosine ? -part : part);
  }
  if (!st) t->shift[0] = (float)((double)n * part);
  free(of);
  return st;
}

static void tap(struct nm__slot *l, struct nm__term *t, struct nm__t x) {
  const struct nm__loss_spec *e = &l->plan->spec[t->i];
  const struct nm__loss_kind *k = l->plan->kind[t->i];
  struct nm__ops *o = &l->s->ops;
  struct nm__op_args a = {.x = x, .ids = t->pick, .n_ids = t->n_pick};
  x = nm__op(o, NM__OP_GATHER, &a);
  a = (struct nm__op_args){.x = x, .w = e->probe, .bias = e->probe_bias};
  if (e->probe.data) x = nm__op(o, NM__OP_MATMUL, &a);
  struct nm__t want = {t->want, t->n_pick, wanted(e, x.cols), 0};
  a = (struct nm__op_args){.x = x, .y = want, .eps = k->op == NM__OP_COSINE ? 1e-12f : 0};
  x = nm__op(o, k->op, &a);
  a = (struct nm__op_args){.x = x, .weight = t->pick_weight};
  x = nm__op(o, NM__OP_WSUM, &a);
  a = (struct nm__op_args){.x = x, .y = {t->shift, 1, 1, 0}};
  if (k->op == NM__OP_COSINE) x = nm__op(o, NM__OP_ADD, &a);
  nm__terms_add(l, t, x);
}

/* ---- the visitor -------------------------------------------------------------------------- */

bool nm__tap_wants(const struct nm__slot *l, int site, int layer) {
  for (int i = 0; i < l->s->n_edits; i++)
    for (int k = 0; k < l->plan->edit[i].sels.n; k++)
      if (here(&l->plan->edit[i], k, site, layer)) return true;
  for (int i = 0; i < l->plan->n; i++)
    for (int k = 0; k < l->plan->places[i].sels.n; k++)
      if (here(&l->plan->places[i], k, site, layer)) return true;
  for (int k = 0; l->collect && k < l->collect->p->sels.n; k++)
    if (here(l->collect->p, k, site, layer)) return true;
  return false;
}

void nm__collect_visit(const struct nm__slot *l, int site, int layer, const struct nm__t *x) {
  const struct nm__collect *c = l->collect;
  size_t w = (size_t)x->cols;
  for (int k = 0; k < c->p->sels.n; k++)
    for (int i = 0; here(c->p, k, site, layer) && i < c->n; i++)
      memcpy(c->to + ((size_t)i * (size_t)c->p->sels.n + (size_t)k) * w,
             x->d + (size_t)c->rows[i] * w, w * sizeof *c->to);
}

/* Edits first, in their order: a tap reads what they leave. */
void nm__tap_visit(struct nm__slot *l, int site, int layer, struct nm__t *x) {
  for (int i = 0; i < l->s->n_edits; i++)
    for (int k = 0; k < l->plan->edit[i].sels.n; k++)
      if (here(&l->plan->edit[i], k, site, layer) && l->n_edit_rows[i]) apply_edit(l, i, k, x);
  for (int i = 0; i < l->plan->n; i++)
    for (int k = 0; k < l->plan->places[i].sels.n; k++)
      if (here(&l->plan->places[i], k, site, layer) && l->term[i].n_pick) tap(l, &l->term[i], *x);
}
