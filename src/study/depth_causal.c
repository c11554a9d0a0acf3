/* depth_causal.c - readable is not the same as used: does adding the probe's
 * direction to the residual stream move the model's own answer?
 *
 * A probe is fitted on the residual stream where the answer is read (the last token of
 * the answer prompt, at the converging layer). Its unit direction times the distance of the
 * class means is added and subtracted there; what counts is the difference in log-odds
 * of yes over no, against random directions of the same length. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/json.h"
#include "file/npy.h"
#include "study/depth.h"
#include "tensor/math.h"

enum { FIT_ROWS = 320, ASK_ROWS = 96, N_RANDOM = 3 };

/* Where the probed value enters the residual stream; NULL: it does not. In a parallel block
 * the MLP too reads what comes into the block. */
static const char *stream_of(const nm_model *m, const char *site) {
  if (!strcmp(site, "mlp_norm") && m->parallel) return "resid_pre";
  if (!strcmp(site, "mlp_norm") || !strcmp(site, "resid_mid")) return "resid_mid";
  if (!strcmp(site, "attn_norm") || !strcmp(site, "resid_pre")) return "resid_pre";
  return strcmp(site, "resid_post") ? NULL : "resid_post";
}

struct sample { uint32_t *rows; size_t n; float *x; uint8_t *label; int D; };

static int keep(void *arg, const nm_row *r, nm_err *err) {
  struct sample *s = arg;
  (void)err;
  memcpy(s->x + r->seq * (size_t)s->D, r->data, sizeof(float) * (size_t)r->n);
  return NM_OK;
}

/* Up to FIT_ROWS rows with both classes, whole groups. */
static int draw(const struct nm__depth_set *s, uint64_t seed, int D, struct sample *out,
                nm_err *err) {
  struct nm__split sp = {0};
  const struct nm__labelled *l = &s->lab;
  double share = (double)FIT_ROWS / (double)s->n;
  int st = nm__split_make(s->n, l->label, l->grouped ? l->group : NULL, l->n_groups,
                          share < 0.5 ? share : 0.5, seed + 77, &sp, err);
  if (st) return st;
  *out =
      (struct sample){nm__alloc(sp.n_test, sizeof(uint32_t)), sp.n_test,
                      nm__alloc(sp.n_test * (size_t)D, sizeof(float)), nm__alloc(sp.n_test, 1), D};
  if (!out->rows || !out->x || !out->label)
    st = nm__fail_memory(err, "the sample", sp.n_test * (size_t)D * 4);
  for (size_t i = 0; i < sp.n_test && !st; i++) {
    out->rows[i] = sp.test[i];
    out->label[i] = l->label[sp.test[i]];
  }
  nm__split_done(&sp);
  return st;
}

struct ask {
  nm_engine *e;
  const struct nm__depth_set *s;
  const struct sample *a;
  const char *site;
  const nm_progress *p;
  nm_edits *user;                  /* the edits the whole study runs under, or NULL */
};

static int read_stream(const struct ask *q, struct sample *a, nm_err *err) {
  nm_seq *seqs = nm__alloc(a->n, sizeof *seqs);
  if (!seqs) return nm__fail_memory(err, "the sample", 0);
  for (size_t i = 0; i < a->n; i++) seqs[i] = q->s->answers[a->rows[i]];
  nm_tap tap = {q->site, "last"};
  nm_request r = {.seqs = seqs,
                  .n_seqs = a->n,
                  .taps = &tap,
                  .n_taps = 1,
                  .share_prefix = true,
                  .row = keep,
                  .arg = a,
                  .edits = q->user,
                  .progress = q->p};
  int st = nm_run(q->e, &r, err);
  free(seqs);
  return st;
}

/* The unit direction of a probe, and the distance of the class means along it. */
static int direction(const struct sample *a, double C, float *v, double *step, nm_err *err) {
  struct nm__logreg m = {0};
  int st = nm__logreg_fit(a->x, (size_t)a->D, a->D, NULL, a->n, a->label,
                          &(struct nm__logreg_opts){.C = C}, &m, err);
  if (st) return st;
  double norm = 0, mean[2] = {0}, n[2] = {0};
  for (int i = 0; i < a->D; i++) norm += m.w[i] * m.w[i];
  norm = nm__sqrt(norm);
  for (int i = 0; i < a->D; i++) v[i] = norm > 0 ? (float)(m.w[i] / norm) : 0;
  for (size_t r = 0; r < a->n; r++) {
    double z = 0;
    for (int i = 0; i < a->D; i++) z += (double)a->x[r * (size_t)a->D + (size_t)i] * (double)v[i];
    mean[a->label[r]] += z;
    n[a->label[r]]++;
  }
  *step = n[0] > 0 && n[1] > 0 ? mean[1] / n[1] - mean[0] / n[0] : 0;
  nm__logreg_done(&m);
  return NM_OK;
}

static void random_direction(float *v, int D, uint64_t seed, int which) {
  double norm = 0;
  for (int i = 0; i < D; i++) {
    double u =
        (double)(nm__rand_at(seed, 500 + (uint64_t)which, (uint64_t)i) >> 11) * 0x1p-53 - 0.5;
    v[i] = (float)u;
    norm += u * u;
  }
  for (int i = 0; i < D; i++) v[i] = (float)((double)v[i] / nm__sqrt(norm));
}

/* An edit that adds scale * v at the last position. */
static int addition(const struct ask *q, const float *v, double scale, nm_edits **out,
                    nm_err *err) {
  struct nm__buf b;
  nm__buf_init(&b, (size_t)1 << 26);
  nm__buf_printf(
      &b, "{\"site\": \"%s\", \"at\": \"last\", \"op\": \"add\", \"scale\": %.9g, \"vector\": [",
      q->site, scale);
  for (int i = 0; i < q->a->D; i++) nm__buf_printf(&b, "%s%.9g", i ? "," : "", (double)v[i]);
  nm__buf_puts(&b, "]}");
  int st = b.failed ? nm__fail_memory(err, "an edit", b.len)
                    : nm_edits_parse("direction", b.s, b.len, out, err);
  nm__buf_done(&b);
  return st;
}

/* Mean log-odds with scale * v added at the last position, after the user's own edits. */
static int ask(const struct ask *q, const float *v, double scale, double *mean, nm_err *err) {
  size_t n = q->a->n < ASK_ROWS ? q->a->n : ASK_ROWS;
  double z[ASK_ROWS] = {0};
  nm_edits *mine = NULL, all = {0};
  int st = v ? addition(q, v, scale, &mine, err) : NM_OK, n_user = q->user ? q->user->n : 0;
  all.n = n_user + (mine ? mine->n : 0);
  if (q->user) all.w = q->user->w, all.n_w = q->user->n_w;
  all.v = st ? NULL : nm__alloc((size_t)all.n + 1, sizeof *all.v);      /* borrowed, not owned */
  if (!st && !all.v) st = nm__fail_memory(err, "the edits", 0);
  if (!st && n_user) memcpy(all.v, q->user->v, (size_t)n_user * sizeof *all.v);
  if (!st && mine) memcpy(all.v + n_user, mine->v, (size_t)mine->n * sizeof *all.v);
  if (!st)
    st = nm__depth_answers(q->e, q->s, q->a->rows, n, nm_edits_n(&all) ? &all : NULL, z, q->p, err);
  free(all.v);
  nm_edits_free(mine);
  *mean = nm__mean(z, n);
  return st;
}

static int difference(const struct ask *q, const float *v, double step, double *plus, double *minus,
                      nm_err *err) {
  int st = ask(q, v, step, plus, err);
  return st ? st : ask(q, v, -step, minus, err);
}

static int save_direction(const char *dir, const char *name, const char *site, const float *v,
                          int D, double step, nm_depth_curve *c, nm_err *err) {
  char file[160], plain[101];
  snprintf(plain, sizeof plain, "%.100s", name);
  for (char *ch = plain; *ch; ch++)            /* a name may hold anything, a file's name not */
    if (!strchr("-_.", *ch) && !((*ch | 32) >= 'a' && (*ch | 32) <= 'z') &&
        !(*ch >= '0' && *ch <= '9'))
      *ch = '_';
  snprintf(file, sizeof file, "direction-%s.npy", plain);
  c->vector = nm__path_join(dir, file);
  snprintf(file, sizeof file, "edit-%s.json", plain);
  c->edit = nm__path_join(dir, file);
  if (!c->vector || !c->edit) return nm__fail_memory(err, "a file name", 0);
  int64_t ne[1] = {D};
  int st = nm__npy_write(c->vector, 1, ne, v, err);
  if (st) return st;
  json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:f}", "site", site, "at", "last", "op", "add",
                        "vector", nm__json_text(nm__path_base(c->vector)), "scale", step);
  char *s = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
  st = s ? nm__write_file(c->edit, s, strlen(s), err)
         : nm__fail(err, NM_EFAIL, "%s: the name is not UTF-8", c->edit);
  free(s);
  json_decref(o);
  return st;
}

static int test_direction(const struct ask *q, const char *dir, uint64_t seed, double C,
                          nm_depth_curve *c, nm_err *err) {
  float *v = nm__alloc((size_t)q->a->D, sizeof *v), *w = nm__alloc((size_t)q->a->D, sizeof *w);
  double step = 0, plus, minus;
  int st = v && w ? direction(q->a, C, v, &step, err) : nm__fail_memory(err, "a direction", 0);
  if (!st) st = save_direction(dir, c->name, q->site, v, q->a->D, step, c, err);
  bool can = !q->s->cannot_say;
  if (!st && can) st = ask(q, NULL, 0, &c->causal.before, err);
  if (!st && can) st = difference(q, v, step, &c->causal.plus, &c->causal.minus, err);
  for (int i = 0; i < N_RANDOM && can && !st; i++) {
    random_direction(w, q->a->D, seed, i);
    st = difference(q, w, step, &plus, &minus, err);
    double d = plus > minus ? plus - minus : minus - plus;
    if (!st && d > c->causal.random) c->causal.random = d;
  }
  if (!st && can) {
    double d = c->causal.plus - c->causal.minus;
    c->causal.n = (int)(q->a->n < ASK_ROWS ? q->a->n : ASK_ROWS);
    c->causal.moved = d > 0.1 && d > 3 * c->causal.random;
  }
  free(v);
  free(w);
  return st;
}

int nm__depth_causal(nm_engine *e, const struct nm__depth_set *s, const nm_depth_opts *o,
                     const char *dir, nm_depth_curve *c, nm_err *err) {
  const char *stream = stream_of(nm__engine_model(e), o->site);
  int layer = c->converge >= 0 ? c->converge : c->peak;
  if (!stream || s->lab.n_labels > 2) return NM_OK;     /* a direction parts two */
  snprintf(c->causal.site, sizeof c->causal.site, "%sblk.%d.%s",
           nm__site_prefix(nm__engine_model(e)), layer, stream);
  struct sample a = {0};
  struct ask q = {e, s, &a, c->causal.site, o->progress, o->edits};
  int st = draw(s, o->seed, nm__engine_model(e)->D, &a, err);
  if (!st) st = read_stream(&q, &a, err);
  if (!st) st = test_direction(&q, dir, o->seed, o->C, c, err);
  free(a.rows);
  free(a.x);
  free(a.label);
  return st;
}
