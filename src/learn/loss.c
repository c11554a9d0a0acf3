/* loss.c - the table of losses by name, and how each is put together on the tape from the logits
 * of a slot: log-probabilities of tokens, summed into samples or pairs where a loss asks for it. */
#include <stdlib.h>
#include <string.h>

#include "learn/slot.h"

/* d = log pi of a token, less log pi_ref where `ref` is set. A unit's x is beta times the sum of
 * its tokens' d; a pair's is that of the chosen sample less that of the rejected one. */
static const struct nm__loss_kind table[] = {
    {"cross_entropy", "-log pi", NM__TOKENS, NM__OP_CROSS_ENTROPY, .beta = false},
    {"gradient_difference", "log pi of the group, -log pi of `retain`", NM__TOKENS,
     NM__OP_CROSS_ENTROPY, .two_groups = true},
    {"kl", "KL(ref || pi)", NM__TOKENS, NM__OP_KL, .frozen = true},
    {"dpo", "-log sigmoid(x)", NM__PAIRS, NM__OP_BCE, .beta = true, .ref = true},
    {"ipo", "(x / beta - 1 / (2 beta))^2", NM__PAIRS, NM__OP_MSE, .beta = true, .ref = true},
    {"simpo", "-log sigmoid(x - gamma)", NM__PAIRS, NM__OP_BCE, .beta = true, .per_token = true},
    {"npo", "(2 / beta) log(1 + e^x)", NM__SAMPLES, NM__OP_BCE, .beta = true, .ref = true},
    {"tap_mse", "mean (a - target)^2", NM__PLACES, NM__OP_MSE, .beta = false},
    {"tap_cosine", "1 - cos(a, target)", NM__PLACES, NM__OP_COSINE, .beta = false},
    {"tap_probe", "-log p(labels), p = sigmoid(W a + b)", NM__PLACES, NM__OP_BCE, .beta = false},
};
enum { N_KINDS = sizeof table / sizeof *table };

void nm__loss_names(struct nm__buf *b) {
  for (int i = 0; i < N_KINDS; i++) nm__buf_printf(b, "%s%s", i ? ", " : "", table[i].name);
}

const struct nm__loss_kind *nm__loss_kind_of(const char *name) {
  for (int i = 0; name && i < N_KINDS; i++)
    if (!strcmp(table[i].name, name)) return &table[i];
  return NULL;
}

/* ---- the plan of a batch ------------------------------------------------------- */

static bool in_group(const struct nm__sample *v, int group) {
  return group == NM__ALL_GROUPS || v->group == group;
}

/* Tokens of a sample with a weight, and the sum of the weights. */
static int weights_of(const struct nm__sample *v, double *sum) {
  int n = 0;
  *sum = 0;
  for (int k = 1; k < v->n; k++) {
    n += v->weight[k] != 0;
    *sum += (double)v->weight[k];
  }
  return n;
}

bool nm__loss_reads(const struct nm__loss_plan *p, const struct nm__sample *v) {
  for (int i = 0; i < p->n; i++)
    if (p->kind[i]->unit != NM__PLACES && p->over[i] + p->retain[i] != 0 &&
        (in_group(v, p->spec[i].group) ||
         (p->kind[i]->two_groups && in_group(v, p->spec[i].retain))))
      return true;
  return false;
}

static int check_spec(const struct nm__stepper *s, const struct nm__loss_spec *e,
                      const struct nm__loss_kind *k, nm_err *err) {
  char shown[40], *names;
  struct nm__buf b;
  if (!k) {
    nm__buf_init(&b, 4096);
    nm__loss_names(&b);
    names = b.s ? b.s : "";
    const char *name = e->name ? e->name : "";
    nm__fail(err, NM_EUSAGE, "loss '%s' is not known (known: %s)",
             nm__printable(shown, sizeof shown, name, strlen(name)), names);
    nm__buf_done(&b);
    return NM_EUSAGE;
  }
  if (k->beta && !(e->beta > 0 && e->beta < 1e30))
    return nm__fail(err, NM_EUSAGE, "loss %s needs a beta above 0, not %g", k->name, e->beta);
  if (!(e->smooth >= 0 && e->smooth < 1))
    return nm__fail(err, NM_EUSAGE, "loss %s: smooth must be at least 0 and below 1, not %g",
                    k->name, e->smooth);
  if (e->weight - e->weight != 0 || e->gamma - e->gamma != 0)
    return nm__fail(err, NM_EUSAGE, "loss %s: weight or gamma is not finite", k->name);
  if (k->two_groups && e->group == e->retain)
    return nm__fail(err, NM_EUSAGE, "loss %s needs two groups, both are %d", k->name, e->group);
  if (k->unit != NM__PLACES && !s->m->output.data)
    return nm__fail(err, NM_EUSAGE, "loss %s: %s has no vocabulary head", k->name, s->m->path);
  return NM_OK;
}

/* The sample at i, and what it adds to the mean's denominator; *step: samples it takes. */
static int count_one(const struct nm__loss_kind *k, const struct nm__loss_spec *e,
                     const struct nm__sample *const *v, int n, int i, double *over, int *step,
                     nm_err *err) {
  double sum;
  int tokens = weights_of(v[i], &sum);
  *step = k->unit == NM__PAIRS ? 2 : 1;
  if (k->unit == NM__PAIRS &&
      (!v[i]->pair || i + 1 == n || v[i + 1]->pair != v[i]->pair || !in_group(v[i + 1], e->group)))
    return nm__fail(err, NM_EUSAGE,
                    "loss %s: sample %d of the batch (pair %d) is not followed by the rejected "
                    "one of its pair", k->name, i + 1, v[i]->pair);
  for (int j = i; j < i + *step; j++)
    if (k->ref && !v[j]->ref && weights_of(v[j], &sum))
      return nm__fail(err, NM_EUSAGE, "loss %s: sample %d of the batch has no log-probabilities of "
                      "the frozen model: nm__loss_reference gives them", k->name, j + 1);
  weights_of(v[i], &sum);
  *over += k->unit == NM__TOKENS ? sum : k->unit == NM__SAMPLES ? tokens > 0 : 1;
  return NM_OK;
}

static int count_places(struct nm__stepper *s, struct nm__loss_plan *p, int i,
                        const struct nm__sample *const *v, int n, nm_err *err) {
  const struct nm__loss_spec *e = &p->spec[i];
  int st = nm__places_open(s->m, p->kind[i]->name, e->site, e->at, !s->again, &p->places[i], err);
  if (st) return st;
  int64_t width = nm__sel_width(s->m, p->places[i].sels.v[0], 1);
  for (int k = 0; k < n && !st; k++) {
    int *pos = NULL, found = 0;
    if (!in_group(v[k], e->group) || !v[k]->n) continue;
    st = nm__tap_check(s, e, v[k], width, err);
    if (!st) st = nm__places_of(&p->places[i], s->m, v[k], &pos, &found, err);
    free(pos);
    p->over[i] += (double)found * p->places[i].sels.n;
  }
  return st ? nm__fail_at(err, st, "loss %s", p->kind[i]->name) : st;
}

static int count(struct nm__stepper *s, struct nm__loss_plan *p, int i,
                 const struct nm__sample *const *v, int n, nm_err *err) {
  const struct nm__loss_spec *e = &p->spec[i];
  const struct nm__loss_kind *k = p->kind[i];
  int st = NM_OK, step;
  if (k->unit == NM__PLACES) return count_places(s, p, i, v, n, err);
  for (int j = 0; j < n && !st; j += step) {
    step = 1;
    if (in_group(v[j], e->group)) st = count_one(k, e, v, n, j, &p->over[i], &step, err);
    else if (k->two_groups && in_group(v[j], e->retain))
      st = count_one(k, e, v, n, j, &p->retain[i], &step, err);
  }
  return st;
}

static int check_lengths(const struct nm__stepper *s, const struct nm__sample *const *v, int n,
                         nm_err *err) {
  for (int i = 0; i < n && s->m->arch->learned_pos; i++)
    if (v[i]->n + s->p->n_prompt > s->m->n_ctx)
      return nm__fail(err, NM_EUSAGE, "sample %d of the batch has %d positions%s, %s has %d", i + 1,
                      v[i]->n + s->p->n_prompt, s->p->n_prompt ? " with the soft prompt" : "",
                      s->m->path, s->m->n_ctx);
  return NM_OK;
}

int nm__edits_places(struct nm__stepper *s, struct nm__loss_plan *p, nm_err *err) {
  int st = NM_OK;
  if (!s->n_edits) return NM_OK;
  p->edit = nm__alloc((size_t)s->n_edits, sizeof *p->edit);
  if (!p->edit) return nm__fail_memory(err, "the edits", 0);
  for (int i = 0; i < s->n_edits && !st; i++)
    st = nm__places_open(s->m, "an edit", s->edits[i].site, s->edits[i].at, true, &p->edit[i], err);
  return st;
}

int nm__loss_plan(struct nm__stepper *s, const struct nm__loss_spec *specs, int n_specs,
                  const struct nm__sample *const *batch, int n, struct nm__loss_plan *p,
                  nm_err *err) {
  static const struct nm__loss_spec plain = {
      .name = "cross_entropy", .weight = 1, .group = NM__ALL_GROUPS};
  *p = (struct nm__loss_plan){.spec = specs ? specs : &plain, .n = specs ? n_specs : 1};
  double all = 0;
  if (p->n < 1 || p->n > NM__MOST_LOSSES) {
    int asked = p->n;
    p->n = 0;
    return nm__fail(err, NM_EUSAGE, "a sum of 1 to %d losses is possible, not of %d",
                    NM__MOST_LOSSES, asked);
  }
  int st = check_lengths(s, batch, n, err);
  for (int i = 0; i < p->n && !st; i++) {
    p->kind[i] = nm__loss_kind_of(p->spec[i].name);
    st = check_spec(s, &p->spec[i], p->kind[i], err);
    if (!st) st = count(s, p, i, batch, n, err);
    if (!st && (p->over[i] < 0 || p->retain[i] < 0))
      st = nm__fail(err, NM_EUSAGE, "loss %s: the weights of the tokens sum to less than 0",
                    p->kind[i]->name);
    all += p->over[i] + p->retain[i];
  }
  if (!st) st = nm__edits_places(s, p, err);
  if (!st && all <= 0)
    st = nm__fail(err, NM_EFORMAT, specs ? "no loss finds anything of its group in the batch"
                                         : "no token of the batch has a weight");
  return st;
}

void nm__loss_plan_done(struct nm__loss_plan *p, int n_edits) {
  for (int i = 0; i < p->n; i++) nm__places_done(&p->places[i]);
  for (int i = 0; p->edit && i < n_edits; i++) nm__places_done(&p->edit[i]);
  free(p->edit);
  p->edit = NULL;
}

/* ---- the terms of a slot ----------------------------------------------------------- */

static int take(struct nm__slot *l, struct nm__term *t, nm_err *err) {
  size_t R = (size_t)l->n_rows + 1, U = (size_t)l->n + 1;
  t->target = nm__alloc(R, sizeof *t->target);
  t->coef = nm__alloc(R, sizeof *t->coef);
  t->ref = nm__alloc(R, sizeof *t->ref);
  t->unit = nm__alloc(R, sizeof *t->unit);
  t->pick = nm__alloc(2 * R, sizeof *t->pick);
  t->pick_weight = nm__alloc(R, sizeof *t->pick_weight);
  t->shift = nm__alloc(U, sizeof *t->shift);
  t->label = nm__alloc(U, sizeof *t->label);
  t->unit_weight = nm__alloc(U, sizeof *t->unit_weight);
  if (t->target && t->coef && t->ref && t->unit && t->pick && t->pick_weight && t->shift &&
      t->label && t->unit_weight)
    return NM_OK;
  return nm__fail_memory(err, "a loss", R * 7 * sizeof(float));
}

/* Weight of a token in its mean; 0: the sample is not in the loss. */
static double part_of(const struct nm__loss_plan *p, int i, const struct nm__sample *v) {
  const struct nm__loss_spec *e = &p->spec[i];
  if (in_group(v, e->group)) {
    if (p->over[i] <= 0) return 0;
    return (p->kind[i]->two_groups ? -1 : 1) / p->over[i];
  }
  bool kept = p->kind[i]->two_groups && in_group(v, e->retain) && p->retain[i] > 0;
  return kept ? 1 / p->retain[i] : 0;
}

static void token_rows(struct nm__slot *l, struct nm__term *t) {
  bool kl = l->plan->kind[t->i]->frozen;
  for (int r = 0; r < l->n_rows; r++) {
    const struct nm__sample *v = l->v[l->of[r]];
    double part = part_of(l->plan, t->i, v), over = 1 / part;
    t->target[r] = -1;
    if (part == 0) continue;
    float w = (float)((double)v->weight[l->next[r]] / over);
    t->target[r] = v->ids[l->next[r]];
    t->coef[r] = w;
    if (kl) t->pick_weight[t->n_pick] = w;
    if (kl) t->pick[t->n_pick++] = r;
  }
}

/* The rows of sample i, as part of unit u: its sign in the unit's sum. The rows hold -log pi. */
static void unit_rows(struct nm__slot *l, struct nm__term *t, int i, int u, double sign) {
  const struct nm__sample *v = l->v[i];
  const struct nm__loss_kind *k = l->plan->kind[t->i];
  double sum;
  weights_of(v, &sum);
  if (!k->per_token || sum == 0) sum = 1;
  for (int r = 0; r < l->n_rows; r++) {
    if (l->of[r] != i) continue;
    t->target[r] = v->ids[l->next[r]];
    t->coef[r] = (float)(-sign * (double)v->weight[l->next[r]] / sum);
    t->ref[r] = k->ref ? v->ref[l->next[r]] : 0;
    t->unit[r] = u;
  }
}

static void units(struct nm__slot *l, struct nm__term *t) {
  const struct nm__loss_kind *k = l->plan->kind[t->i];
  const struct nm__loss_spec *e = &l->plan->spec[t->i];
  double sum, part = 1 / l->plan->over[t->i];
  for (int r = 0; r < l->n_rows; r++) t->target[r] = -1;
  for (int i = 0; i < l->n; i++) {
    if (!in_group(l->v[i], e->group) || (k->unit == NM__SAMPLES && !weights_of(l->v[i], &sum)))
      continue;
    int u = t->n_units++;
    unit_rows(l, t, i, u, 1);
    if (k->unit == NM__PAIRS) unit_rows(l, t, ++i, u, -1);
    t->shift[u] = (float)-e->gamma;
    t->label[u] = (float)(k->op == NM__OP_MSE          ? 0.5 / e->beta
                          : k->unit == NM__PAIRS ? 1 - e->smooth
                                                 : 0);
    t->unit_weight[u] = (float)(k->unit == NM__SAMPLES ? 2 / e->beta * part : part);
  }
}

int nm__terms_make(struct nm__slot *l, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < l->plan->n && !st; i++) {
    struct nm__term *t = &l->term[i];
    const struct nm__loss_kind *k = l->plan->kind[i];
    t->i = i;
    if (l->plan->over[i] + l->plan->retain[i] <= 0) continue;
    if (k->unit == NM__PLACES) {
      st = nm__tap_make(l, t, err);
      continue;
    }
    st = take(l, t, err);
    if (st) break;
    if (k->unit == NM__TOKENS) token_rows(l, t);
    else units(l, t);
    if (k->frozen && t->n_pick) st = nm__frozen_logits(l, t, l->plan->spec[i].group, err);
  }
  return st;
}

void nm__terms_done(struct nm__slot *l) {
  for (int i = 0; i < l->plan->n; i++) {
    struct nm__term *t = &l->term[i];
    free(t->target);
    free(t->coef);
    free(t->ref);
    free(t->unit);
    free(t->pick);
    free(t->pick_weight);
    free(t->shift);
    free(t->label);
    free(t->unit_weight);
    free(t->logits);
    free(t->want);
  }
}

/* ---- on the tape -------------------------------------------------------------------- */

void nm__terms_begin(struct nm__slot *l) {
  l->at = 0;
  for (int i = 0; i < l->plan->n; i++) l->term[i].sum = (struct nm__t){0};
}

void nm__terms_add(struct nm__slot *l, struct nm__term *t, struct nm__t x) {
  struct nm__op_args a = {.x = t->sum, .y = x};
  t->sum = t->sum.rows ? nm__op(&l->s->ops, NM__OP_ADD, &a) : x;
}

static struct nm__t column(float *d, int64_t rows) { return (struct nm__t){d, rows, 1, 0}; }

static bool any(const int32_t *target, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (target[i] >= 0) return true;
  return false;
}

static struct nm__t kl_of(struct nm__slot *l, struct nm__term *t, struct nm__t x) {
  int a = 0, b;
  while (a < t->n_pick && t->pick[a] < l->at) a++;
  for (b = a; b < t->n_pick && t->pick[b] < l->at + x.rows; b++)
    t->pick[l->n_rows + b] = t->pick[b] - l->at;
  struct nm__t ref = {t->logits + (int64_t)a * x.cols, b - a, x.cols, 0};
  struct nm__op_args g = {.x = x, .ids = t->pick + l->n_rows + a, .n_ids = b - a};
  if (b - a < x.rows) x = nm__op(&l->s->ops, NM__OP_GATHER, &g);
  x = nm__op(&l->s->ops, NM__OP_KL, &(struct nm__op_args){.x = x, .y = ref});
  struct nm__op_args w = {.x = x, .weight = t->pick_weight + a};
  return nm__op(&l->s->ops, NM__OP_WSUM, &w);
}

/* The next rows' part: one number, or one a unit. */
static struct nm__t part_of_rows(struct nm__slot *l, struct nm__term *t, struct nm__t x) {
  const struct nm__loss_kind *k = l->plan->kind[t->i];
  struct nm__ops *o = &l->s->ops;
  if (k->frozen) return kl_of(l, t, x);
  float smooth = k->unit == NM__TOKENS ? (float)l->plan->spec[t->i].smooth : 0;
  struct nm__op_args a = {.x = x, .ids = t->target + l->at, .eps = smooth};
  struct nm__t ce = nm__op(o, NM__OP_CROSS_ENTROPY, &a);
  if (k->unit == NM__TOKENS) {
    a = (struct nm__op_args){.x = ce, .weight = t->coef + l->at};
    return nm__op(o, NM__OP_WSUM, &a);
  }
  a = (struct nm__op_args){.x = ce, .y = column(t->ref + l->at, ce.rows)};
  if (k->ref) ce = nm__op(o, NM__OP_ADD, &a);
  a = (struct nm__op_args){.x = ce, .y = column(t->coef + l->at, ce.rows)};
  ce = nm__op(o, NM__OP_MUL, &a);
  a = (struct nm__op_args){.x = ce, .ids = t->unit + l->at, .n_ids = ce.rows, .rows = t->n_units};
  return nm__op(o, NM__OP_SCATTER, &a);
}

void nm__terms_logits(struct nm__slot *l, struct nm__t x) {
  for (int i = 0; i < l->plan->n; i++) {
    struct nm__term *t = &l->term[i];
    if (t->target && any(t->target + l->at, x.rows)) nm__terms_add(l, t, part_of_rows(l, t, x));
  }
  l->at += (int)x.rows;
}

/* Samples or pairs: from their sums to the mean of their losses. */
static struct nm__t of_units(struct nm__slot *l, struct nm__term *t) {
  const struct nm__loss_kind *k = l->plan->kind[t->i];
  const struct nm__loss_spec *e = &l->plan->spec[t->i];
  struct nm__ops *o = &l->s->ops;
  struct nm__t x = t->sum;
  struct nm__op_args a = {.x = x, .scale = (float)e->beta};
  if (k->op == NM__OP_BCE) x = nm__op(o, NM__OP_SCALE, &a);
  a = (struct nm__op_args){.x = x, .y = column(t->shift, x.rows)};
  if (k->per_token && e->gamma != 0) x = nm__op(o, NM__OP_ADD, &a);
  for (int64_t u = 0; o->mode == NM__RECORD && !o->err.status && u < x.rows; u++)
    l->s->seen[t->i].margin += (double)x.d[u] / l->plan->over[t->i];
  a = (struct nm__op_args){.x = x, .y = column(t->label, x.rows)};
  x = nm__op(o, k->op, &a);
  return nm__op(o, NM__OP_WSUM, &(struct nm__op_args){.x = x, .weight = t->unit_weight});
}

struct nm__t nm__terms_end(struct nm__slot *l) {
  struct nm__ops *o = &l->s->ops;
  struct nm__t all = {0};
  for (int i = 0; i < l->plan->n; i++) {
    struct nm__term *t = &l->term[i];
    enum nm__loss_unit unit = l->plan->kind[i]->unit;
    if (!t->sum.rows) continue;
    struct nm__t x = unit == NM__SAMPLES || unit == NM__PAIRS ? of_units(l, t) : t->sum;
    if (o->mode == NM__RECORD && !o->err.status) l->s->seen[i].value += (double)x.d[0];
    struct nm__op_args a = {.x = x, .scale = (float)l->plan->spec[i].weight};
    if (l->plan->spec[i].weight != 1) x = nm__op(o, NM__OP_SCALE, &a);
    a = (struct nm__op_args){.x = all, .y = x};
    all = all.rows ? nm__op(o, NM__OP_ADD, &a) : x;
  }
  return all;
}
