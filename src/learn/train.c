/* train.c - the loop of noema train. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "learn/slot.h"
#include "learn/train.h"

/* ---- a step ------------------------------------------------------------------------ */

/* Nothing of what was learned so far is touched by a step that fails here. */
static int not_finite(struct nm__training *t, const char *what, double v, nm_err *err) {
  return nm__fail(err, NM_EFAIL, "step %lld: the %s is %g; what was learned before this step is "
                  "kept. A lower schedule.lr, a longer warmup or a smaller clip may help",
                  (long long)t->at.step + 1, what, v);
}

static int learn(struct nm__training *t, double lr, double *norm, nm_err *err) {
  double weight;
  int st = nm__stream_step(&t->stream, t->at.step, t->batch, err);
  if (!st) st = nm__training_reference(t, t->batch, t->stream.n, false, err);
  if (!st)
    st = nm__step_batch(&t->s, t->batch, t->stream.n, t->r.slots, t->spec, t->r.n_losses, true,
                        &t->loss, &weight, err);
  if (st) return st;
  if (!isfinite(t->loss)) return not_finite(t, "loss", t->loss, err);
  *norm = nm__step_clip(&t->s, t->r.clip);
  if (!isfinite(*norm)) return not_finite(t, "length of the gradient", *norm, err);
  t->opt.err = (nm_err){0};
  for (int i = 0; i < t->p.n; i++) {
    const struct nm__learned *v = &t->p.v[i];
    const struct nm__group *g = &t->r.group[t->group[i]];
    float decay = nm__params_decays(v) ? (float)g->decay : 0;
    nm__params_step(&t->opt, &g->optim, &t->p, i, t->s.grad, t->moments.v[i],
                    (float)(lr * g->lr), decay, t->at.step + 1);
  }
  if (t->opt.err.status) {
    if (err) *err = t->opt.err;
    return t->opt.err.status;
  }
  t->at.step++;
  t->at.samples += t->r.batch;
  t->at.loss = t->loss;
  for (int i = 0; i < t->stream.n; i++) t->at.tokens += t->batch[i]->n;
  return NM_OK;
}

/* ---- evaluations --------------------------------------------------------------------- */

/* Mean loss over all weighted tokens of a source, and the share of them that come out first. */
static int evaluate_one(struct nm__training *t, const struct nm__set *set, double *loss,
                        double *right, nm_err *err) {
  double all = 0, mean, weight;
  *loss = *right = 0;
  int st = NM_OK;
  for (int at = 0, n; at < set->n && !st; at += n) {
    n = set->n - at < t->r.batch ? set->n - at : t->r.batch;
    for (int i = 0; i < n; i++) t->batch[i] = &set->v[at + i];
    st = nm__step_batch(&t->s, t->batch, n, t->r.slots, NULL, 0, false, &mean, &weight, err);
    *loss += st ? 0 : mean * weight;
    *right += st ? 0 : t->s.right * weight;
    all += st ? 0 : weight;
  }
  if (all > 0) *loss /= all, *right /= all;
  return st;
}

/* Of pairs: the mean of the first loss over pairs, and the share in which the chosen one gained. */
static int evaluate_pairs(struct nm__training *t, const struct nm__set *set, double *loss,
                          double *right, nm_err *err) {
  double mean, weight;
  int st = NM_OK, k = 0;
  while (k + 1 < t->r.n_losses && nm__loss_kind_of(t->spec[k].name)->unit != NM__PAIRS) k++;
  struct nm__loss_spec spec = t->spec[k];
  spec.group = NM__ALL_GROUPS;
  spec.weight = 1;
  *loss = *right = 0;
  for (int i = 0; i < set->n && !st; i += 2) {
    t->batch[0] = &set->v[i];
    t->batch[1] = &set->v[i + 1];
    st = nm__training_reference(t, t->batch, 2, true, err);
    if (!st) st = nm__step_batch(&t->s, t->batch, 2, 1, &spec, 1, false, &mean, &weight, err);
    *loss += st ? 0 : mean;
    *right += !st && t->s.seen[0].margin > 0;
  }
  *loss /= set->n / 2;
  *right /= set->n / 2;
  return st;
}

static int evaluate(struct nm__training *t, nm_err *err) {
  int st = NM_OK;
  for (int i = 0; i < t->r.eval.n && !st; i++) {
    const struct nm__source *s = &t->r.eval.v[i];
    double loss, right;
    st = t->eval[i].per == 2 ? evaluate_pairs(t, &t->eval[i], &loss, &right, err)
                             : evaluate_one(t, &t->eval[i], &loss, &right, err);
    if (st) return st;
    if (i == 0) t->eval_loss = loss, t->eval_accuracy = right;
    st = nm__metrics_line(t, json_pack("{s:I, s:i, s:o, s:f, s:f}", "step",
                                       (json_int_t)t->at.step, "eval", i, "data",
                                       nm__json_text(s->file ? s->file : s->world), "loss", loss,
                                       "accuracy", right), err);
  }
  return st;
}

/* ---- checkpoints ------------------------------------------------------------------------ */

static int save_point(struct nm__training *t, nm_err *err) {
  struct nm__keep keep = {t->r.ckpt_keep, 0};
  struct nm__gguf *adapter = NULL;
  int st = t->r.lora_rank ? nm__training_adapter(t, &adapter, err) : NM_OK;
  if (!st)
    st = nm__ckpt_save(t->dir, &t->at, adapter ? adapter : t->m->g, &t->p, &t->moments, &keep, err);
  nm__gguf_close(adapter);
  return st;
}

/* A run that was ended before its first checkpoint begins anew. */
static int go_on(struct nm__training *t, nm_err *err) {
  struct nm__ckpt_found found = {0};
  int st = nm__ckpt_load(t->dir, -1, &t->at, &t->p, &t->moments, &found, err);
  if (st && found.none) return NM_OK;
  if (st) return st;
  if (found.skipped[0] && t->o->note) {
    char text[600];
    snprintf(text, sizeof text, "a newer checkpoint is broken and was passed over, going on from "
             "step %lld: %s", (long long)found.at.step, found.skipped);
    t->o->note(t->o->arg, text);
  }
  struct nm__keep keep = {t->r.ckpt_keep, 0};
  t->at = found.at;
  return nm__ckpt_tidy(t->dir, t->at.step, &keep, err);
}

/* ---- the loop ----------------------------------------------------------------------------- */

static bool tell(struct nm__training *t, double lr, double norm, double rate, double seconds) {
  if (!t->o->step) return false;
  nm_train_step s = {.step = t->at.step, .steps = t->r.steps, .loss = t->loss, .lr = lr,
                     .grad_norm = norm, .tokens = t->at.tokens, .tokens_per_s = rate,
                     .peak_share = t->peak > 0 ? rate * t->flops_per_token / t->peak : 0,
                     .eta_s = (double)(t->r.steps - t->at.step) * seconds,
                     .eval_loss = t->eval_loss, .eval_accuracy = t->eval_accuracy};
  return t->o->step(t->o->arg, &s) != 0;
}

/* What each loss of a sum gave, and how far chosen answers are ahead, where it is more than `loss`
 * says. */
static int step_line(struct nm__training *t, double lr, double norm, double rate, nm_err *err) {
  json_t *line = json_pack("{s:I, s:f, s:f, s:f, s:I, s:f}", "step", (json_int_t)t->at.step, "loss",
                           t->loss, "lr", lr, "grad_norm", norm, "tokens",
                           (json_int_t)t->at.tokens, "tokens_per_s", rate);
  json_t *losses = json_object();
  for (int i = 0; i < t->r.n_losses; i++) {
    const struct nm__loss_seen *v = &t->s.seen[i];
    char name[60];
    enum nm__loss_unit unit = nm__loss_kind_of(t->spec[i].name)->unit;
    snprintf(name, sizeof name, "%d.%s", i, t->spec[i].name);
    if (!(v->over > 0)) continue;
    json_object_set_new(losses, name, json_real(v->value));
    snprintf(name, sizeof name, "%d.margin", i);
    if (unit == NM__PAIRS || unit == NM__SAMPLES)
      json_object_set_new(losses, name, json_real(v->margin));
  }
  bool more = json_object_size(losses) > 1;
  if (more) json_object_set(line, "losses", losses);
  json_decref(losses);
  return nm__metrics_line(t, line, err);
}

static int one_step(struct nm__training *t, double *mean_seconds, nm_err *err) {
  double start = nm__now(), norm = 0, lr = nm__schedule_at(&t->r.schedule, t->at.step);
  int64_t before = t->at.tokens;
  int st = learn(t, lr, &norm, err);
  if (st) return st;
  double seconds = nm__now() - start, rate = (double)(t->at.tokens - before) / seconds;
  *mean_seconds = *mean_seconds > 0 ? 0.9 * *mean_seconds + 0.1 * seconds : seconds;
  st = step_line(t, lr, norm, rate, err);
  bool last = t->at.step == t->r.steps;
  if (!st && t->r.eval.n && (last || t->at.step % t->r.eval_every == 0)) st = evaluate(t, err);
  if (!st) st = nm__watch_step(t, err);
  bool stop = !st && tell(t, lr, norm, rate, *mean_seconds);
  if (!st && !last && t->r.ckpt_every && t->at.step % t->r.ckpt_every == 0)
    st = save_point(t, err);
  if (!st && stop && !last)
    st = nm__fail(err, NM_EINTR, "stopped after step %lld of %d; --resume goes on",
                  (long long)t->at.step, t->r.steps);
  return st;
}

static int run(struct nm__training *t, nm_err *err) {
  double mean_seconds = 0;
  int st = nm__metrics_open(t, err);
  t->peak = nm__training_peak(t);
  int64_t from = t->at.step;
  if (!st && !from) st = nm__watch_step(t, err);
  while (!st && t->at.step < t->r.steps) st = one_step(t, &mean_seconds, err);
  /* What was learned is kept, whatever ended the run; the first failure is the one to tell. */
  nm_err own = {0};
  if ((st || t->r.ckpt_every) && t->at.step > from && save_point(t, &own) && !st) {
    if (err) *err = own;
    st = own.status;
  }
  return st;
}

/* ---- the verb -------------------------------------------------------------------------------- */

static int measure(struct nm__training *t, nm_train_memory *out, nm_err *err) {
  size_t activations;
  int st = nm__stream_step(&t->stream, 0, t->batch, err);
  if (!st) st = nm__training_reference(t, t->batch, t->stream.n, false, err);
  if (!st)
    st = nm__step_measure(&t->s, t->batch, t->stream.n, t->r.slots, t->spec, t->r.n_losses,
                          &activations, err);
  if (st) return st;
  int levels = 1;                  /* the last batch's, and one a level of the tree of slots */
  for (int n = t->r.slots; n > 1; n /= 2) levels++;
  *out = (nm_train_memory){.weights = t->m->weight_bytes,
                           .parameters = sizeof(float) * t->p.n_floats,
                           .gradients = sizeof(float) * t->p.n_floats * (uint64_t)levels,
                           .activations = activations,
                           .reference = t->s.frozen_bytes +
                                        (t->reference ? t->reference->weight_bytes : 0)};
  for (int i = 0; i < t->p.n; i++) out->moments += sizeof(float) * t->moments.n[i];
  out->n_parameters = t->p.n_floats;
  return NM_OK;
}

static int finish(struct nm__training *t, nm_train_result *out, nm_err *err) {
  char line[300];
  int n = snprintf(line, sizeof line, "%lld steps, %lld tokens, loss %.4f",
                   (long long)t->at.step, (long long)t->at.tokens, t->at.loss);
  if (t->eval_loss >= 0)
    snprintf(line + n, sizeof line - (size_t)n, "; test loss %.4f, accuracy %.3f", t->eval_loss,
             t->eval_accuracy);
  out->summary = nm__strdup(line);
  int st = nm__training_report(t, line, err);
  return st ? st : nm__training_save(t, err);
}

static json_t *settings(const struct nm__training *t) {
  return json_pack("{s:O, s:i, s:i, s:s, s:s}", "recipe", t->r.y.root, "seed", t->r.seed,
                   "threads", nm__pool_size(t->s.ops.pool), "data_hash", t->at.data,
                   "base_hash", t->at.base);
}

static int begin(struct nm__training *t, nm_err *err) {
  int st = nm__mkdirs(t->dir, err);
  if (!st && t->o->resume) st = go_on(t, err);
  if (!st) st = nm__runs_open(t->root, &t->runs, err);
  if (!st) nm__runs_settings(t->runs, settings(t));
  if (!st)
    st = nm__runs_begin(t->runs, "train", t->dir, t->m->path, t->o->command ? t->o->command : "",
                        &t->run_id, err);
  return st;
}

int nm_train(const char *recipe, const nm_train_opts *opts, nm_train_result *out, nm_err *err) {
  nm_err own = {0};
  struct nm__training t = {.o = opts};
  *out = (nm_train_result){0};
  if (!err) err = &own;
  double start = nm__now();
  int st = nm__training_open(&t, recipe, err);
  if (!st && opts->dry_run) {
    st = measure(&t, &out->memory, err);
  } else if (!st) {
    st = begin(&t, err);
    if (!st) st = run(&t, err);
    if (!st) st = finish(&t, out, err);
    if (t.run_id)
      nm__runs_end(t.runs, t.run_id, !st ? "done" : st == NM_EINTR ? "interrupted" : "failed",
                   st ? err->text : out->summary, nm__now() - start, NULL);
    out->step = t.at.step;
    out->loss = t.at.loss;
    out->eval_loss = t.eval_loss;
    out->eval_accuracy = t.eval_accuracy;
  }
  if (t.dir) out->dir = nm__strdup(t.dir);
  nm__training_close(&t);
  return st;
}

void nm_train_result_free(nm_train_result *r) {
  free(r->dir);
  free(r->summary);
  *r = (nm_train_result){0};
}
