/* sweep.c - how strongly to steer: the effect on a token against the damage to other texts, for
 * every strength, beside random directions of the same length at the same places. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "look/direction.h"
#include "study/vector.h"
#include "tensor/math.h"

struct sweep {
  nm_engine *e;
  const nm_model *m;
  const nm_sweep_opts *o;
  nm_sweep_result *r;
  int n_random, n_edits;
  float *base_scale;               /* [n_edits] */
  float **own;                     /* [n_edits]: the vectors as given */
  double *lp;                      /* [V] */
  double odds; size_t n_odds;
  double done, total;
};

/* ---- what is measured ---------------------------------------------------------- */

static int take_logits(void *arg, const nm_row *row, nm_err *err) {
  struct sweep *s = arg;
  (void)err;
  nm_log_softmax(row->data, (int)row->n, s->lp);
  double lp = s->lp[s->o->target], rest = 0;
  if (s->o->against >= 0) rest = s->lp[s->o->against];
  else {
    double sum = 0;                /* of all others, not 1 - p: that loses its digits near p = 1 */
    for (int v = 0; v < s->m->V; v++) sum += v == s->o->target ? 0 : nm__exp(s->lp[v]);
    rest = sum > 0 ? nm__log(sum) : -745;
  }
  s->odds += lp - rest;
  s->n_odds++;
  return NM_OK;
}

static int effect(struct sweep *s, nm_edits *ed, double *out, nm_err *err) {
  nm_tap tap = {"logits", "last"};
  nm_request q = {.seqs = s->o->prompts, .n_seqs = s->o->n_prompts, .taps = &tap, .n_taps = 1,
                  .edits = ed, .share_prefix = true, .row = take_logits, .arg = s};
  s->odds = 0;
  s->n_odds = 0;
  int st = nm_run(s->e, &q, err);
  *out = s->n_odds ? s->odds / (double)s->n_odds : 0;
  if (!st) st = nm__progress(s->o->progress, "measuring strengths", ++s->done, s->total, err);
  return st;
}

static int damage(struct sweep *s, nm_edits *ed, nm_interval *out, nm_err *err) {
  nm_scores sc;
  nm_score_sum sum;
  *out = (nm_interval){0, 0, 0};
  if (!s->o->n_texts) return NM_OK;
  int st =
      nm_score(s->e, s->o->texts, NULL, s->o->n_texts, &(nm_score_opts){.edits = ed}, &sc, err);
  if (st) return st;
  nm_score_total(&sc, 0, s->o->n_texts, &sum);
  nm_scores_free(&sc);
  *out = sum.ppl;
  return nm__progress(s->o->progress, "measuring strengths", ++s->done, s->total, err);
}

/* ---- edits of a strength --------------------------------------------------------- */

static void set_strength(struct sweep *s, double strength) {
  for (int i = 0; i < s->n_edits; i++)
    s->o->edits->v[i].scale = (float)((double)s->base_scale[i] * strength);
}

static double length_of(const float *v, int64_t n) {
  double sq = 0;
  for (int64_t i = 0; i < n; i++) sq += (double)v[i] * (double)v[i];
  return nm__sqrt(sq);
}

/* Random direction k in place of every vector, each row as long as the one it stands for; k -1: the
 * vectors as given. */
static int set_vectors(struct sweep *s, int k, nm_err *err) {
  for (int i = 0; i < s->n_edits; i++) {
    struct nm__dirs *d = &s->o->edits->v[i].vec;
    int64_t rows = d->rows * d->pos;
    double *u = d->v && k >= 0 ? nm__alloc((size_t)d->n, sizeof *u) : NULL;
    if (d->v && k >= 0 && !u) return nm__fail_memory(err, "a direction", 0);
    for (int64_t r = 0; d->v && r < rows; r++) {
      const float *own = s->own[i] + r * d->n;
      double len = length_of(own, d->n);
      if (u)
        nm__direction_random(s->o->seed, ((uint64_t)k << 40) + ((uint64_t)i << 20) + (uint64_t)r,
                             (int)d->n, u);
      for (int64_t c = 0; c < d->n; c++) d->v[r * d->n + c] = u ? (float)(len * u[c]) : own[c];
    }
    free(u);
  }
  return NM_OK;
}

static uint64_t touched(const nm_edits *e) {
  uint64_t n = 0;
  for (int i = 0; i < e->n; i++) n += e->v[i].touched;
  return n;
}

static int random_ones(struct sweep *s, nm_sweep_row *row, nm_err *err) {
  int st = NM_OK;
  double most = 0;
  row->random_low = HUGE_VAL;
  row->random_high = -HUGE_VAL;
  for (int k = 0; k < s->n_random && !st; k++) {
    double x;
    nm_interval ppl;
    if ((st = set_vectors(s, k, err)) || (st = effect(s, s->o->edits, &x, err)) ||
        (st = damage(s, s->o->edits, &ppl, err)))
      break;
    row->random_effect += x / s->n_random;
    row->random_ppl += ppl.mean > 0 ? nm__log(ppl.mean) / s->n_random : 0;
    row->random_low = x < row->random_low ? x : row->random_low;
    row->random_high = x > row->random_high ? x : row->random_high;
    double change = __builtin_fabs(x - s->r->effect);
    most = change > most ? change : most;
  }
  row->random_ppl = s->o->n_texts ? nm__exp(row->random_ppl) : 0;
  row->beyond = __builtin_fabs(row->effect - s->r->effect) > most;
  int back = set_vectors(s, -1, err);
  return st ? st : back;
}

static int one_strength(struct sweep *s, int i, nm_err *err) {
  nm_sweep_row *row = &s->r->row[i];
  row->strength = s->o->strength[i];
  set_strength(s, row->strength);
  uint64_t before = touched(s->o->edits);
  int st = effect(s, s->o->edits, &row->effect, err);
  if (!st) st = damage(s, s->o->edits, &row->ppl, err);
  row->touched = touched(s->o->edits) - before;
  return st ? st : random_ones(s, row, err);
}

/* ---- the whole ---------------------------------------------------------------------- */

static int check(struct sweep *s, nm_err *err) {
  const nm_sweep_opts *o = s->o;
  bool vectors = false;
  for (int i = 0; i < s->n_edits; i++) vectors |= o->edits->v[i].vec.v != NULL;
  if (!s->m->output.data)
    return nm__fail(err, NM_EFORMAT, "%s: is an encoder and has no vocabulary head, so no token's "
                    "odds can be measured", s->m->path);
  if (!vectors)
    return nm__fail(err, NM_EUSAGE,
                    "nothing to sweep: give a control vector or an edit with a vector");
  if (o->target < 0 || o->target >= s->m->V || o->against >= s->m->V || o->against == o->target)
    return nm__fail(err, NM_EUSAGE, "the target and the token against it must be two tokens of the "
                    "vocabulary");
  if (!o->n_prompts)
    return nm__fail(err, NM_EUSAGE, "no prompt was given to measure the effect on");
  if (o->n < 1 || o->n > 1000 || s->n_random < 1 || s->n_random > 1000)
    return nm__fail(err, NM_EUSAGE, "1 to 1000 strengths and random directions");
  return NM_OK;
}

static int keep_own(struct sweep *s, nm_err *err) {
  s->own = nm__alloc((size_t)s->n_edits, sizeof *s->own);
  s->base_scale = nm__alloc((size_t)s->n_edits, sizeof *s->base_scale);
  s->lp = nm__alloc((size_t)s->m->V, sizeof *s->lp);
  s->r->row = nm__alloc((size_t)s->o->n, sizeof *s->r->row);
  if (!s->own || !s->base_scale || !s->lp || !s->r->row)
    return nm__fail_memory(err, "the sweep", 0);
  for (int i = 0; i < s->n_edits; i++) {
    const struct nm__edit *e = &s->o->edits->v[i];
    size_t n = e->vec.v ? (size_t)(e->vec.rows * e->vec.pos * e->vec.n) : 0;
    s->base_scale[i] = e->scale;
    if (n && !(s->own[i] = nm__alloc(n, sizeof(float)))) return nm__fail_memory(err, "a vector", n);
    if (n) memcpy(s->own[i], e->vec.v, n * sizeof(float));
  }
  return NM_OK;
}

static int summarise(struct sweep *s, nm_err *err) {
  const nm_sweep_row *best = NULL;
  nm_sweep_result *r = s->r;
  int beyond = 0, moved = 0;
  for (int i = 0; i < r->n; i++) {
    if (r->row[i].strength == 0) continue;
    moved++;
    beyond += r->row[i].beyond;
    if (r->row[i].beyond && (!best || __builtin_fabs(r->row[i].effect - r->effect) >
                                          __builtin_fabs(best->effect - r->effect)))
      best = &r->row[i];
  }
  char text[400];
  if (best)
    snprintf(text, sizeof text,
             "beyond every random direction at %d of %d strengths; most at %g: ln odds "
             "%+.3f (without %+.3f, random %+.3f)",
             beyond, moved, best->strength, best->effect, r->effect, best->random_effect);
  else
    snprintf(text, sizeof text, "no strength moves the target further than random directions do");
  r->summary = nm__strdup(text);
  return r->summary ? NM_OK : nm__fail_memory(err, "the summary", 0);
}

static int run_sweep(struct sweep *s, nm_err *err) {
  nm_interval ppl;
  int st = check(s, err);
  if (!st) st = keep_own(s, err);
  s->total = (1.0 + s->o->n * (1.0 + s->n_random)) * (s->o->n_texts ? 2 : 1);
  if (!st) st = effect(s, NULL, &s->r->effect, err);
  if (!st) st = damage(s, NULL, &ppl, err);
  if (!st) s->r->ppl = ppl.mean;
  for (int i = 0; i < s->o->n && !st; i++) {
    st = one_strength(s, i, err);
    if (!st) s->r->n = i + 1;
  }
  return st ? st : summarise(s, err);
}

int nm_sweep(nm_engine *e, const nm_sweep_opts *o, nm_sweep_result *out, nm_err *err) {
  struct sweep s = {.e = e, .m = nm__engine_model(e), .o = o, .r = out,
                    .n_random = o->n_random ? o->n_random : 5, .n_edits = nm__edits_acts(o->edits)};
  struct nm__record rec = {0};
  nm_err own;
  if (!err) err = &own;
  *out = (nm_sweep_result){.n_random = s.n_random};
  int st = run_sweep(&s, err);
  for (int i = 0; s.own && s.base_scale && i < s.n_edits; i++) {
    if (s.own[i]) memcpy(o->edits->v[i].vec.v, s.own[i],
                         sizeof(float) * (size_t)(o->edits->v[i].vec.rows * o->edits->v[i].vec.pos *
                                                  o->edits->v[i].vec.n));
    o->edits->v[i].scale = s.base_scale[i];
    free(s.own[i]);
  }
  if (!st && o->out) {
    st = nm__record_begin(&rec, "sweep", o->out, "sweep.json", s.m->path, o->command,
                         nm__engine_record(s.e), err);
    if (!st) st = (out->dir = nm__strdup(rec.dir)) ? NM_OK : nm__fail_memory(err, "a name", 0);
    if (!st) st = nm__sweep_write(out, s.m, o, &rec, err);
    nm__record_end(&rec, st, out->summary, err);
  }
  free(s.own);
  free(s.base_scale);
  free(s.lp);
  if (st) nm_sweep_result_free(out);
  return st;
}

void nm_sweep_result_free(nm_sweep_result *r) {
  free(r->row);
  free(r->dir);
  free(r->summary);
  *r = (nm_sweep_result){0};
}
