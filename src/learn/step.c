/* step.c - the gradient of a batch: slot by slot through the one forward, the visitor of
 * logits and taps takes the losses, the tape goes back, and the slots' gradients meet in a fixed
 * tree. */
#include <stdlib.h>
#include <string.h>

#include "learn/slot.h"
#include "tensor/math.h"

/* ---- making ---------------------------------------------------------------- */

int nm__stepper_init(struct nm__stepper *s, nm_model *m, struct nm__params *p, int threads,
                     const char *kernels, nm_err *err) {
  *s = (struct nm__stepper){.m = m, .p = p};
  s->ops = (struct nm__ops){.mode = NM__RECORD, .kern = nm__kern_find(kernels), .tape = &s->tape};
  if (!s->ops.kern) return nm__fail(err, NM_EUSAGE, "kernels '%.40s' are not available", kernels);
  s->grad = nm__alloc_lines(p->n_floats + 1, sizeof *s->grad);
  s->seen = nm__alloc(NM__MOST_LOSSES, sizeof *s->seen);
  int st = s->grad && s->seen
               ? nm__pool_new(threads, &s->ops.pool, err)
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
  nm__frozen_done(s);
  free(s->seen);
  free(s->grad);
  *s = (struct nm__stepper){0};
}

/* ---- one slot ---------------------------------------------------------------- */

static bool wants(void *arg, int site, int layer) {
  return site == NM__S_LOGITS || nm__tap_wants(arg, site, layer);
}

/* By the sample's weights; of equal logits the first counts. */
static void count_right(struct nm__slot *l, const struct nm__t *x) {
  for (int64_t r = 0; r < x->rows; r++) {
    const struct nm__sample *v = l->v[l->of[l->at + r]];
    const float *z = x->d + r * x->cols;
    int next = l->next[l->at + r];
    int64_t best = 0;
    for (int64_t i = 1; i < x->cols; i++)
      if (z[i] > z[best]) best = i;
    if (best == v->ids[next]) l->s->right += (double)v->weight[next];
  }
}

static void visit(void *arg, int site, int layer, struct nm__t *x, const int32_t *rows,
                  const struct nm__route *route) {
  struct nm__slot *l = arg;
  (void)rows, (void)route;
  const struct nm__ops *o = &l->s->ops;
  if (site == NM__S_LOGITS && l->count && o->mode == NM__RECORD && !o->err.status)
    count_right(l, x);
  if (site == NM__S_LOGITS) nm__terms_logits(l, *x);
  else nm__tap_visit(l, site, layer, x);
  if (l->collect && o->mode != NM__MEASURE && !o->err.status)
    nm__collect_visit(l, site, layer, x);
}

/* The soft prompt's rows, one for each place in the batch where they stand. */
static struct nm__t prompt(struct nm__slot *l) {
  struct nm__op_args a = {.w = nm__params_view(l->s->p, "prompt"), .ids = l->prompt_row,
                          .n_ids = l->n_prompt};
  return l->n_prompt ? nm__op(&l->s->ops, NM__OP_EMBED, &a) : (struct nm__t){0};
}

/* Forward (and back): in measure mode first, so that the arena is as large as it must be. */
static struct nm__t slot_pass(struct nm__slot *l, enum nm__mode mode, bool backward) {
  struct nm__stepper *s = l->s;
  s->ops.mode = mode;
  nm__terms_begin(l);
  struct nm__visitor vis = {wants, visit, NULL, l};
  struct nm__forward f = {.m = s->m, .ops = &s->ops, .kv = &s->kv, .spans = l->spans,
                          .n_spans = l->n_spans, .T = l->T, .max_keys = l->longest,
                          .n_ctx = s->m->n_ctx, .ids = l->ids, .vis = &vis,
                          .lora = s->p->lora, .n_lora = s->p->n_lora,
                          .last_layer = s->m->L - 1, .head_rows = l->rows,
                          .n_head_rows = l->n_rows, .head = true, .again = s->again,
                          .inject = prompt(l), .inject_at = l->prompt_at,
                          .n_inject = l->n_prompt};
  nm__forward(&f);
  struct nm__t loss = nm__terms_end(l);
  if (backward && loss.rows) nm__tape_back(&s->ops, loss, 1.0f);
  return loss;
}

/* Blocks that are computed again are measured without their visitors: what edits take there. */
static size_t edit_bytes(const struct nm__slot *l) {
  size_t bytes = 0;
  for (int i = 0; l->s->again && i < l->s->n_edits; i++)
    bytes += (size_t)l->plan->edit[i].sels.n *
             (sizeof(float) * (size_t)(l->T + 1) * (size_t)l->s->edits[i].vector.cols + 256);
  return bytes;
}

static int make_cache(struct nm__slot *l, nm_err *err) {
  struct nm__stepper *s = l->s;
  if (s->kv.n_slots >= l->T) return NM_OK;
  nm__kv_done(&s->kv);
  int st = nm__kv_init(&s->kv, s->m->L, l->T, (int64_t)s->m->K * s->m->hd, err);
  return st ? st : nm__kv_init_grad(&s->kv, err);
}

/* Bytes of arena that the slot needs. */
static int measure(struct nm__slot *l, bool backward, size_t *need, nm_err *err) {
  struct nm__stepper *s = l->s;
  int st = make_cache(l, err);
  if (st) return st;
  struct nm__arena real = s->ops.arena;
  nm__arena_init(&s->ops.arena, 0, err);
  slot_pass(l, NM__MEASURE, backward);
  *need = s->ops.arena.peak + edit_bytes(l);
  nm__tape_reset(&s->ops);
  s->ops.arena = real;
  return s->ops.err.status;
}

static int make_room(struct nm__slot *l, bool backward, nm_err *err) {
  struct nm__stepper *s = l->s;
  size_t need;
  int st = measure(l, backward, &need, err);
  if (st || need <= s->ops.arena.cap) return st;
  nm__arena_done(&s->ops.arena);
  return nm__arena_init(&s->ops.arena, need, err);
}

static bool has_terms(const struct nm__slot *l) {
  bool any = l->n_rows > 0;
  for (int i = 0; i < l->plan->n; i++) any |= l->term[i].n_pick > 0;
  return any;
}

/* `need`: the bytes alone, nothing is computed. */
static int slot_run(struct nm__stepper *s, const struct nm__loss_plan *plan,
                    const struct nm__sample *const *v, int n, bool backward, double *loss,
                    size_t *need, nm_err *err) {
  struct nm__slot l = {.s = s, .plan = plan, .v = v, .n = n, .front = s->p->n_prompt,
                       .count = !backward};
  s->ops.err = (nm_err){0};
  memset(s->grad, 0, sizeof(float) * s->p->n_floats);
  int st = nm__slot_fill(&l, err);
  if (!st) st = nm__edits_make(&l, err);
  if (!st) st = nm__terms_make(&l, err);
  if (!st && need && has_terms(&l)) {
    st = measure(&l, backward, need, err);
  } else if (!st && has_terms(&l)) {
    struct nm__t sum = {0};
    st = make_room(&l, backward, err);
    if (!st) sum = slot_pass(&l, NM__RECORD, backward);
    if (!st && !s->ops.err.status && sum.rows) *loss += (double)sum.d[0];
    nm__tape_reset(&s->ops);
  }
  if (s->ops.err.status) {
    if (err) *err = s->ops.err;
    st = s->ops.err.status;
  }
  nm__terms_done(&l);
  nm__edits_done(&l);
  nm__slot_done(&l);
  return st;
}

/* ---- activations alone ------------------------------------------------------------ */

static int read_slot(struct nm__slot *l, const struct nm__places *p, float **out, int *n_rows,
                     nm_err *err) {
  struct nm__stepper *s = l->s;
  size_t width = (size_t)nm__sel_width(s->m, p->sels.v[0], 1) * (size_t)p->sels.n;
  int32_t *rows = NULL, *of = NULL;
  int n = 0;
  s->ops.err = (nm_err){0};
  int st = nm__slot_fill(l, err);
  l->n_rows = 0;                   /* nothing goes through the head */
  if (!st) st = nm__edits_make(l, err);
  if (!st) st = nm__places_rows(l, p, NM__ALL_GROUPS, &rows, &of, &n, err);
  float *all = st ? NULL : nm__realloc(*out, ((size_t)(*n_rows + n) + 1) * width, sizeof *all);
  if (!st && !all) st = nm__fail_memory(err, "activations", (size_t)n * width * sizeof *all);
  if (all) *out = all;
  struct nm__collect c = {p, rows, n, all ? all + (size_t)*n_rows * width : NULL};
  l->collect = &c;
  if (!st) st = make_room(l, false, err);
  if (!st) slot_pass(l, NM__RECORD, false);
  nm__tape_reset(&s->ops);
  if (!st && s->ops.err.status) {
    st = s->ops.err.status;
    if (err) *err = s->ops.err;
  }
  *n_rows += st ? 0 : n;
  free(rows);
  free(of);
  return st;
}

int nm__step_read(struct nm__stepper *s, const struct nm__sample *const *v, int n,
                  const struct nm__places *p, float **out, int *n_rows, nm_err *err) {
  enum { TOGETHER = 512 };         /* positions that go through at once */
  static const struct nm__loss_spec none = {.group = NM__ALL_GROUPS};
  struct nm__loss_plan plan = {.spec = &none};
  *out = NULL;
  *n_rows = 0;
  int st = nm__edits_places(s, &plan, err);
  for (int first = 0, end; first < n && !st; first = end) {
    int T = 0;
    for (end = first; end < n && (end == first || T + v[end]->n <= TOGETHER); end++) T += v[end]->n;
    struct nm__slot l = {.s = s, .plan = &plan, .v = v + first, .n = end - first,
                         .front = s->p->n_prompt};
    st = read_slot(&l, p, out, n_rows, err);
    nm__edits_done(&l);
    nm__slot_done(&l);
  }
  nm__loss_plan_done(&plan, s->n_edits);
  return st;
}

/* ---- the batch ------------------------------------------------------------------ */

/* The i-th slot's gradient lies in s->grad; what is complete below it in the tree joins. */
static int join(struct nm__stepper *s, int i, nm_err *err) {
  size_t n = s->p->n_floats;
  int level = 0;
  for (; (i >> level) & 1; level++)
    s->ops.kern->add(s->grad, s->level[level], s->grad, (int64_t)n);
  if (!s->level[level]) s->level[level] = nm__alloc_lines(n + 1, sizeof(float));
  if (!s->level[level]) return nm__fail_memory(err, "the gradients of a slot", n * sizeof(float));
  memcpy(s->level[level], s->grad, sizeof(float) * n);
  return NM_OK;
}

/* Where slot i begins; a pair that would be cut goes to the slot before. */
static int cut(const struct nm__sample *const *batch, int n, int i, int n_slots) {
  int at = (int)((int64_t)n * i / n_slots);
  while (at > 0 && at < n && batch[at]->pair && batch[at]->pair == batch[at - 1]->pair) at++;
  return at;
}

int nm__step_batch(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                   int n_slots, const struct nm__loss_spec *specs, int n_specs, bool backward,
                   double *loss, double *weight_sum, nm_err *err) {
  *loss = *weight_sum = s->right = 0;
  for (int i = 0; i < n; i++)
    for (int k = 1; k < batch[i]->n; k++) *weight_sum += (double)batch[i]->weight[k];
  if (n_slots < 1 || n_slots > 1 << 15 || (n_slots & (n_slots - 1)))
    return nm__fail(err, NM_EUSAGE, "slots must be a power of two, not %d", n_slots);
  struct nm__loss_plan plan;
  int st = nm__loss_plan(s, specs, n_specs, batch, n, &plan, err);
  memset(s->seen, 0, NM__MOST_LOSSES * sizeof *s->seen);
  for (int i = 0; i < plan.n; i++) s->seen[i].over = plan.over[i];
  for (int i = 0; i < n_slots && !st; i++) {
    int first = cut(batch, n, i, n_slots), end = cut(batch, n, i + 1, n_slots);
    st = slot_run(s, &plan, batch + first, end - first, backward, loss, NULL, err);
    if (!st && backward && n_slots > 1) st = join(s, i, err);
  }
  if (!st && backward) nm__params_mask(s->p, s->grad);
  nm__loss_plan_done(&plan, s->n_edits);
  if (*weight_sum > 0) s->right /= *weight_sum;
  return st;
}

int nm__step_measure(struct nm__stepper *s, const struct nm__sample *const *batch, int n,
                     int n_slots, const struct nm__loss_spec *specs, int n_specs, size_t *bytes,
                     nm_err *err) {
  struct nm__loss_plan plan;
  double loss;
  *bytes = 0;
  int st = nm__loss_plan(s, specs, n_specs, batch, n, &plan, err);
  for (int i = 0; i < n_slots && !st; i++) {
    int first = cut(batch, n, i, n_slots), end = cut(batch, n, i + 1, n_slots);
    size_t need = 0;
    st = slot_run(s, &plan, batch + first, end - first, true, &loss, &need, err);
    need += 2 * nm__kv_bytes(s->m->L, s->kv.n_slots, (int64_t)s->m->K * s->m->hd);
    if (need > *bytes) *bytes = need;
  }
  nm__loss_plan_done(&plan, s->n_edits);
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
