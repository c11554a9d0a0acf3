/* frozen.c - the model before training, which losses are measured against: the log-probabilities
 * of samples, once, and the logits of a slot's rows. It runs without a tape, with memory of its
 * own that stays between calls. */
#include <stdlib.h>
#include <string.h>

#include "learn/slot.h"

enum { TOGETHER = 512 };           /* positions that go through at once */

/* Does training change the weights that m reads? */
static bool changes(const struct nm__stepper *s) {
  const uint8_t *from = (const uint8_t *)s->p->values, *to = from + 4 * s->p->n_floats;
  for (size_t i = 0; i < s->m->g->n_tensors; i++)
    if (s->m->g->tensors[i].data >= from && s->m->g->tensors[i].data < to) return true;
  return false;
}

static int model_of(const struct nm__stepper *s, const nm_model **out, nm_err *err) {
  *out = s->frozen ? s->frozen : s->m;
  if (!s->frozen && changes(s))
    return nm__fail(err, NM_EUSAGE, "%s: a loss compares with the frozen model, and training "
                    "changes this one: the reference must be a model of its own", s->m->path);
  if ((*out)->V != s->m->V || !(*out)->output.data)
    return nm__fail(err, NM_EUSAGE, "%s: has %d tokens and cannot be the reference of %s with %d",
                    (*out)->path, (*out)->V, s->m->path, s->m->V);
  return NM_OK;
}

static bool wants_logits(void *arg, int site, int layer) {
  (void)arg, (void)layer;
  return site == NM__S_LOGITS;
}

static int cache(struct nm__stepper *s, const nm_model *m, const struct nm__slot *l,
                 nm_err *err) {
  struct nm__kv *kv = &s->frozen_kv;
  int64_t width = (int64_t)m->K * m->hd;
  if (kv->n_slots >= l->T && kv->width == width && kv->n_layer == m->L) return NM_OK;
  nm__kv_done(kv);
  return nm__kv_init(kv, m->L, l->T, width, err);
}

static int arena(struct nm__stepper *s, size_t need, size_t kept, nm_err *err) {
  struct nm__arena *a = &s->frozen_ops.arena;
  int st = NM_OK;
  if (need > a->cap) {
    nm__arena_done(a);
    st = nm__arena_init(a, need, err);
  }
  const struct nm__kv *kv = &s->frozen_kv;
  size_t bytes = a->cap + nm__kv_bytes(kv->n_layer, kv->n_slots, kv->width) + kept;
  if (bytes > s->frozen_bytes) s->frozen_bytes = bytes;
  return st;
}

/* The frozen model over the slot; the visitor sees the logits of its rows. kept: bytes that the
 * caller holds for them. */
static int pass(struct nm__stepper *s, struct nm__slot *l, const struct nm__visitor *vis,
                size_t kept, nm_err *err) {
  const nm_model *m;
  struct nm__ops *o = &s->frozen_ops;
  int st = model_of(s, &m, err);
  if (!st) st = cache(s, m, l, err);
  if (st) return st;
  struct nm__forward f = {.m = m, .ops = o, .kv = &s->frozen_kv, .spans = l->spans,
                          .n_spans = l->n_spans, .T = l->T, .max_keys = l->longest,
                          .n_ctx = m->n_ctx, .ids = l->ids, .vis = vis, .last_layer = m->L - 1,
                          .head_rows = l->rows, .n_head_rows = l->n_rows, .head = true};
  struct nm__arena real = o->arena;
  o->kern = s->ops.kern;
  o->pool = s->ops.pool;
  o->tape = NULL;
  o->err = (nm_err){0};
  nm__arena_init(&o->arena, 0, NULL);
  o->mode = NM__MEASURE;
  nm__forward(&f);
  /* The visitor is not called when measuring; its loss of 32 rows takes a row a thread at most. */
  size_t more = ((size_t)nm__pool_size(o->pool) * (size_t)m->V + 4096) * sizeof(float);
  size_t need = o->arena.peak + more;
  o->arena = real;
  st = arena(s, need, kept, err);
  o->mode = NM__RUN;
  if (!st && nm__forward(&f)) {
    st = o->err.status;
    if (err) *err = o->err;
  }
  return st;
}

void nm__frozen_done(struct nm__stepper *s) {
  nm__arena_done(&s->frozen_ops.arena);
  nm__kv_done(&s->frozen_kv);
}

/* ---- logits of a slot ------------------------------------------------------------ */

struct copy { float *to; };

static void copy_logits(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                        const struct nm__route *route) {
  (void)site, (void)layer, (void)rows, (void)route;
  struct copy *c = arg;
  size_t n = (size_t)(x->rows * x->cols);
  memcpy(c->to, x->d, n * sizeof *x->d);
  c->to += n;
}

int nm__frozen_logits(struct nm__slot *l, struct nm__term *t, int group, nm_err *err) {
  size_t n = (size_t)t->n_pick * (size_t)l->s->m->V;
  const struct nm__sample **v = nm__alloc((size_t)l->n + 1, sizeof *v);
  struct nm__slot own = {.s = l->s, .v = v};
  t->logits = nm__alloc(n + 1, sizeof *t->logits);
  if (!v || !t->logits) {
    free(v);
    return nm__fail_memory(err, "the reference's logits", n * sizeof *t->logits);
  }
  for (int i = 0; i < l->n; i++)
    if (group == NM__ALL_GROUPS || l->v[i]->group == group) v[own.n++] = l->v[i];
  struct copy c = {t->logits};
  struct nm__visitor vis = {wants_logits, copy_logits, NULL, &c};
  int st = nm__slot_fill(&own, err);
  if (!st && own.n_rows != t->n_pick)
    st = nm__fail(err, NM_EFAIL, "the reference has %d rows, the slot %d", own.n_rows, t->n_pick);
  if (!st) st = pass(l->s, &own, &vis, n * sizeof *t->logits, err);
  nm__slot_done(&own);
  free(v);
  return st;
}

/* ---- log-probabilities of samples ---------------------------------------------------- */

struct score { struct nm__stepper *s; const struct nm__slot *l; struct nm__sample *const *v;
               int32_t *target; int at; };

/* The op of the loss itself, so that an unchanged model differs from it by nothing. */
static void score_rows(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                       const struct nm__route *route) {
  (void)site, (void)layer, (void)rows, (void)route;
  struct score *c = arg;
  struct nm__op_args a = {.x = *x, .ids = c->target + c->at};
  struct nm__t y = nm__op(&c->s->frozen_ops, NM__OP_CROSS_ENTROPY, &a);
  for (int64_t i = 0; y.d && i < x->rows; i++, c->at++)
    c->v[c->l->of[c->at]]->ref[c->l->next[c->at]] = -y.d[i];
}

static int score(struct nm__stepper *s, struct nm__sample *const *v, int n, nm_err *err) {
  struct nm__slot l = {.s = s, .v = (const struct nm__sample *const *)v, .n = n};
  struct score c = {s, &l, v, NULL, 0};
  int st = nm__slot_fill(&l, err);
  if (!st && !(c.target = nm__alloc((size_t)l.n_rows + 1, sizeof *c.target)))
    st = nm__fail_memory(err, "the targets of a slot", 0);
  for (int r = 0; r < l.n_rows && !st; r++) c.target[r] = v[l.of[r]]->ids[l.next[r]];
  struct nm__visitor vis = {wants_logits, score_rows, NULL, &c};
  if (!st && l.n_rows) st = pass(s, &l, &vis, 0, err);
  free(c.target);
  nm__slot_done(&l);
  return st;
}

int nm__loss_reference(struct nm__stepper *s, struct nm__sample *const *v, int n, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < n; i++) {
    if (!v[i]->ref) v[i]->ref = nm__alloc((size_t)v[i]->n + 1, sizeof *v[i]->ref);
    if (!v[i]->ref) return nm__fail_memory(err, "the reference", (size_t)v[i]->n * sizeof(float));
  }
  for (int first = 0, end; first < n && !st; first = end) {
    int T = 0;
    for (end = first; end < n && (end == first || T + v[end]->n <= TOGETHER); end++) T += v[end]->n;
    st = score(s, v + first, end - first, err);
  }
  return st;
}
