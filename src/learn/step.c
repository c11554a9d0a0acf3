/* step.c - the gradient of a batch: slot by slot through the one forward, the logits' visitor
 * takes the loss, the tape goes back, and the slots' gradients meet in a fixed tree. */
#include "learn/learn.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/math.h"

/* ---- making ---------------------------------------------------------------- */

int nm__stepper_init(struct nm__stepper *s, nm_model *m, struct nm__params *p, int threads,
                     const char *kernels, nm_err *err) {
  *s = (struct nm__stepper){.m = m, .p = p};
  s->ops = (struct nm__ops){.mode = NM__RECORD, .kern = nm__kern_find(kernels), .tape = &s->tape};
  if (!s->ops.kern) return nm__fail(err, NM_EUSAGE, "kernels '%.40s' are not available", kernels);
  s->grad = nm__alloc(p->n_floats + 1, sizeof *s->grad);
  int st = s->grad ? nm__pool_new(threads, &s->ops.pool, err)
                   : nm__fail_memory(err, "the gradients", p->n_floats * sizeof *s->grad);
  for (int i = 0; i < p->n && !st; i++)
    st = nm__tape_param(&s->tape, p->values + p->v[i].at,
                        sizeof(float) * (size_t)(p->v[i].rows * p->v[i].cols),
                        s->grad + p->v[i].at, err);
  if (st) nm__stepper_done(s);
  return st;
}

void nm__stepper_done(struct nm__stepper *s) {
  nm__tape_done(&s->tape);
  nm__arena_done(&s->ops.arena);
  nm__pool_free(s->ops.pool);
  nm__kv_done(&s->kv);
  for (int i = 0; i < 16; i++) free(s->level[i]);
  free(s->grad);
  *s = (struct nm__stepper){0};
}

/* ---- one slot ---------------------------------------------------------------- */

/* The rows of a slot: what goes in, what is to be predicted, and with what weight. */
struct slot {
  struct nm__stepper *s;
  struct nm__span *spans;
  int n_spans, T, longest, n_rows;
  int32_t *ids, *rows, *target;    /* rows: those with a weight; target of each of them */
  float *weight;
  int at;                          /* rows whose logits have come */
  struct nm__t loss;               /* so far; rows 0: none */
  bool count;                      /* see nm__stepper.right */
};

static bool wants_logits(void *arg, int site, int layer) {
  (void)arg, (void)layer;
  return site == NM__S_LOGITS;
}

/* Tokens that are the most probable one, by weight; of equal logits the first counts. */
static void count_right(struct slot *l, const struct nm__t *x) {
  for (int64_t r = 0; r < x->rows; r++) {
    const float *z = x->d + r * x->cols;
    int64_t best = 0;
    for (int64_t i = 1; i < x->cols; i++)
      if (z[i] > z[best]) best = i;
    if (best == l->target[l->at + r]) l->s->right += (double)l->weight[l->at + r];
  }
}

/* Logits of the next x->rows rows: their loss is added. */
static void take_loss(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                      const struct nm__route *route) {
  (void)site, (void)layer, (void)rows, (void)route;
  struct slot *l = arg;
  struct nm__ops *o = &l->s->ops;
  if (l->count && o->mode == NM__RECORD && !o->err.status) count_right(l, x);
  struct nm__op_args a = {.x = *x, .ids = l->target + l->at};
  struct nm__t t = nm__op(o, NM__OP_CROSS_ENTROPY, &a);
  a = (struct nm__op_args){.x = t, .weight = l->weight + l->at};
  t = nm__op(o, NM__OP_WSUM, &a);
  l->loss = l->loss.rows ? nm__op(o, NM__OP_ADD, &(struct nm__op_args){.x = l->loss, .y = t}) : t;
  l->at += (int)x->rows;
}

static void slot_free(struct slot *l) {
  free(l->spans);
  free(l->ids);
  free(l->rows);
  free(l->target);
  free(l->weight);
}

static int slot_fill(struct slot *l, const struct nm__sample *const *v, int n, double total,
                     nm_err *err) {
  for (int i = 0; i < n; i++) l->T += v[i]->n;
  size_t T = (size_t)l->T + 1;
  l->spans = nm__alloc((size_t)n + 1, sizeof *l->spans);
  l->ids = nm__alloc(T, sizeof *l->ids);
  l->rows = nm__alloc(T, sizeof *l->rows);
  l->target = nm__alloc(T, sizeof *l->target);
  l->weight = nm__alloc(T, sizeof *l->weight);
  if (!l->spans || !l->ids || !l->rows || !l->target || !l->weight)
    return nm__fail_memory(err, "a slot of the batch", T * 4 * sizeof(float));
  int row = 0;
  for (int i = 0; i < n; i++) {
    if (!v[i]->n) continue;
    l->spans[l->n_spans++] =
        (struct nm__span){.seq = i, .n = v[i]->n, .row0 = row, .slot = row};
    if (v[i]->n > l->longest) l->longest = v[i]->n;
    for (int k = 0; k < v[i]->n; k++, row++) {
      l->ids[row] = v[i]->input ? v[i]->input[k] : v[i]->ids[k];
      if (k + 1 == v[i]->n || v[i]->weight[k + 1] == 0) continue;
      l->rows[l->n_rows] = row;
      l->target[l->n_rows] = v[i]->ids[k + 1];
      l->weight[l->n_rows++] = (float)((double)v[i]->weight[k + 1] / total);
    }
  }
  return NM_OK;
}

/* Forward (and back): in measure mode first, so that the arena is as large as it must be. */
static void slot_pass(struct slot *l, enum nm__mode mode, bool backward) {
  struct nm__stepper *s = l->s;
  struct nm__visitor vis = {wants_logits, take_loss, NULL, l};
  struct nm__forward f = {.m = s->m, .ops = &s->ops, .kv = &s->kv, .spans = l->spans,
                          .n_spans = l->n_spans, .T = l->T, .max_keys = l->longest,
                          .n_ctx = s->m->n_ctx, .ids = l->ids, .vis = &vis,
                          .lora = s->p->lora, .n_lora = s->p->n_lora,
                          .last_layer = s->m->L - 1, .head_rows = l->rows,
                          .n_head_rows = l->n_rows, .head = true, .again = s->again};
  s->ops.mode = mode;
  l->at = 0;
  l->loss = (struct nm__t){0};
  nm__forward(&f);
  if (backward && l->loss.rows) nm__tape_back(&s->ops, l->loss, 1.0f);
}

/* Bytes of arena that the slot needs. */
static int measure(struct slot *l, bool backward, size_t *need, nm_err *err) {
  struct nm__stepper *s = l->s;
  struct nm__arena real = s->ops.arena;
  nm__arena_init(&s->ops.arena, 0, err);
  slot_pass(l, NM__MEASURE, backward);
  *need = s->ops.arena.peak;
  nm__tape_reset(&s->ops);
  s->ops.arena = real;
  return s->ops.err.status;
}

static int make_room(struct slot *l, bool backward, nm_err *err) {
  struct nm__stepper *s = l->s;
  int64_t width = (int64_t)s->m->K * s->m->hd;
  size_t need;
  if (s->kv.n_slots < l->T) {
    nm__kv_done(&s->kv);
    int st = nm__kv_init(&s->kv, s->m->L, l->T, width, err);
    if (!st) st = nm__kv_init_grad(&s->kv, err);
    if (st) return st;
  }
  if (measure(l, backward, &need, err) || need <= s->ops.arena.cap) return s->ops.err.status;
  nm__arena_done(&s->ops.arena);
  return nm__arena_init(&s->ops.arena, need, err);
}

static int slot_run(struct nm__stepper *s, const struct nm__sample *const *v, int n, double total,
                    bool backward, double *loss, nm_err *err) {
  struct slot l = {.s = s, .count = !backward};
  s->ops.err = (nm_err){0};
  memset(s->grad, 0, sizeof(float) * s->p->n_floats);
  int st = slot_fill(&l, v, n, total, err);
  if (!st && l.n_rows) {
    st = make_room(&l, backward, err);
    if (!st) slot_pass(&l, NM__RECORD, backward);
    if (!st && !s->ops.err.status) *loss += (double)l.loss.d[0];
    nm__tape_reset(&s->ops);
  }
  if (s->ops.err.status) {
    if (err) *err = s->ops.err;
    st = s->ops.err.status;
  }
  slot_free(&l);
  return st;
}

/* ---- the batch ------------------------------------------------------------------ */

/* The i-th slot's gradient lies in s->grad; what is complete below it in the tree joins. */
static int join(struct nm__stepper *s, int i, nm_err *err) {
  size_t n = s->p->n_floats;
  int level = 0;
  for (; (i >> level) & 1; level++)
    s->ops.kern->add(s->grad, s->level[level], s->grad, (int64_t)n);
  if (!s->level[level]) s->level[level] = nm__alloc(n + 1, sizeof(float));
  if (!s->level[level]) return nm__fail_memory(err, "the gradients of a slot", n * sizeof(float));
  memcpy(s->level[level], s->grad, sizeof(float) * n);
  return NM_OK;
}

int nm__step_batch(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                   int n_slots, bool backward, double *loss, double *weight_sum, nm_err *err) {
  double total = 0;
  *loss = 0;
  for (int i = 0; i < n; i++)
    for (int k = 1; k < batch[i]->n; k++) total += (double)batch[i]->weight[k];
  *weight_sum = total;
  s->right = 0;
  if (n_slots < 1 || n_slots > 1 << 15 || (n_slots & (n_slots - 1)))
    return nm__fail(err, NM_EUSAGE, "slots must be a power of two, not %d", n_slots);
  if (total <= 0) return nm__fail(err, NM_EFORMAT, "no token of the batch has a weight");
  int st = NM_OK;
  for (int i = 0; i < n_slots && !st; i++) {
    int first = (int)((int64_t)n * i / n_slots), end = (int)((int64_t)n * (i + 1) / n_slots);
    st = slot_run(s, batch + first, end - first, total, backward, loss, err);
    if (!st && backward && n_slots > 1) st = join(s, i, err);
  }
  return st;
}

int nm__step_measure(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                     int n_slots, size_t *bytes, nm_err *err) {
  int st = NM_OK;
  *bytes = 0;
  s->ops.err = (nm_err){0};
  for (int i = 0; i < n_slots && !st; i++) {
    int first = (int)((int64_t)n * i / n_slots), end = (int)((int64_t)n * (i + 1) / n_slots);
    struct slot l = {.s = s};
    size_t need = 0, kv;
    st = slot_fill(&l, batch + first, end - first, 1, err);
    if (!st && l.n_rows) st = measure(&l, true, &need, err);
    kv = 2 * nm__kv_bytes(s->m->L, l.T, (int64_t)s->m->K * s->m->hd);
    if (need + kv > *bytes) *bytes = need + kv;
    slot_free(&l);
  }
  return st;
}

double nm__step_clip(struct nm__stepper *s, double clip) {
  enum { PIECE = 1 << 14 };
  double sum = 0;
  for (size_t at = 0; at < s->p->n_floats; at += PIECE) {
    size_t n = s->p->n_floats - at < PIECE ? s->p->n_floats - at : PIECE;
    sum += (double)s->ops.kern->dot(s->grad + at, s->grad + at, (int64_t)n);
  }
  double norm = nm__sqrt(sum);
  if (clip > 0 && norm > clip)
    s->ops.kern->mul(s->grad, (float)(clip / norm), s->grad, (int64_t)s->p->n_floats);
  return norm;
}
