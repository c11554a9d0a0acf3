/* depth_probe.c - a probe of either kind on one layer's features: logistic regression, or a random
 * forest; for two labels or more.
 *
 * With more than two labels the linear probe is one against all others, not one softmax: each label
 * keeps a direction of its own that is the published probe for "this label or not", with the same
 * C and the same optimum, and all of them are one call of the solver of many labels. The label
 * with the highest score is said. */
#include <stdlib.h>
#include <string.h>

#include "study/depth.h"

/* The labels of one against all others, or those given where there are only two. */
static void against(const uint8_t *label, size_t N, int n_labels, int which, uint8_t *out) {
  for (size_t i = 0; i < N; i++)
    out[i] = label[i] == NM__LOGREG_SKIP ? NM__LOGREG_SKIP
             : n_labels == 2             ? label[i] != 0
                                         : label[i] == which;
}

static int fit_linear(const float *x, int d, size_t N, const uint8_t *const *label, int n,
                      int n_labels, const struct nm__depth_probe_opts *o,
                      struct nm__depth_probe *out, nm_err *err) {
  int k = n_labels == 2 ? 1 : n_labels, m = n * k;
  struct nm__logreg_opts lo = {.C = o->C, .pool = o->pool};
  struct nm__logreg *fit = nm__alloc((size_t)m, sizeof *fit);
  uint8_t *mine = nm__alloc((size_t)m * N, 1);
  const uint8_t **each = nm__alloc((size_t)m, sizeof *each);
  int st = fit && mine && each ? NM_OK : nm__fail_memory(err, "labels", (size_t)m * N);
  for (int i = 0; i < m && !st; i++) {
    each[i] = mine + (size_t)i * N;
    against(label[i / k], N, n_labels, i % k, mine + (size_t)i * N);
  }
  if (!st) st = nm__logreg_fit_many(x, (size_t)d, d, NULL, N, each, m, &lo, fit, err);
  for (int i = 0; i < n && !st; i++) {
    out[i].linear = nm__alloc((size_t)k, sizeof *fit);
    if (!out[i].linear) st = nm__fail_memory(err, "a probe", sizeof *fit);
    else memcpy(out[i].linear, fit + (size_t)i * (size_t)k, (size_t)k * sizeof *fit);
    if (!st) memset(fit + (size_t)i * (size_t)k, 0, (size_t)k * sizeof *fit);
  }
  for (int i = 0; fit && i < m; i++) nm__logreg_done(&fit[i]);
  free(fit);
  free(mine);
  free(each);
  return st;
}

static int fit_forests(const float *x, int d, size_t N, const uint8_t *const *label, int n,
                       int n_labels, const struct nm__depth_probe_opts *o,
                       struct nm__depth_probe *out, nm_err *err) {
  uint32_t *rows = nm__alloc(N, sizeof *rows);
  int st = rows ? NM_OK : nm__fail_memory(err, "rows", N * sizeof *rows);
  for (int i = 0; i < n && !st; i++) {
    struct nm__forest_opts fo = {.seed = o->seed + (uint64_t)i, .pool = o->pool};
    size_t n_rows = 0;
    for (size_t r = 0; r < N; r++)
      if (label[i][r] != NM__LOGREG_SKIP) rows[n_rows++] = (uint32_t)r;
    st = nm__forest_fit(x, (size_t)d, d, rows, n_rows, label[i], n_labels, &fo, &out[i].forest,
                        err);
  }
  free(rows);
  return st;
}

int nm__depth_probe_fit(const float *x, int d, size_t N, const uint8_t *const *label, int n,
                        int n_labels, const struct nm__depth_probe_opts *o,
                        struct nm__depth_probe *out, nm_err *err) {
  for (int i = 0; i < n; i++) out[i] = (struct nm__depth_probe){.n_labels = n_labels, .d = d};
  int st = (o->forest ? fit_forests : fit_linear)(x, d, N, label, n, n_labels, o, out, err);
  for (int i = 0; st && i < n; i++) nm__depth_probe_done(&out[i]);
  return st;
}

void nm__depth_probe_score(const struct nm__depth_probe *p, const float *x, double *score) {
  if (p->linear) {
    for (int k = 0; k < (p->n_labels == 2 ? 1 : p->n_labels); k++)
      score[k] = nm__logreg_score(&p->linear[k], x);
    return;
  }
  double share[NM__LABELS_MAX];
  nm__forest_shares(&p->forest, x, share);
  if (p->n_labels == 2) score[0] = share[1] - 0.5;
  else memcpy(score, share, (size_t)p->n_labels * sizeof *score);
}

void nm__depth_probe_done(struct nm__depth_probe *p) {
  for (int k = 0; p->linear && k < (p->n_labels == 2 ? 1 : p->n_labels); k++)
    nm__logreg_done(&p->linear[k]);
  free(p->linear);
  nm__forest_done(&p->forest);
  *p = (struct nm__depth_probe){0};
}

/* ---- bag of words ------------------------------------------------------------------ */

/* How many test rows a linear probe on words gets right. */
int nm__depth_words(const struct nm__sparse *x, const struct nm__split *sp, const uint8_t *label,
                    int n_labels, double C, double *accuracy, nm_err *err) {
  int k = n_labels == 2 ? 1 : n_labels, st = NM_OK;
  struct nm__logreg m[NM__LABELS_MAX] = {0};
  uint8_t *mine = nm__alloc(x->n_rows, 1);
  size_t right = 0;
  if (!mine) return nm__fail_memory(err, "labels", x->n_rows);
  for (int c = 0; c < k && !st; c++) {
    against(label, x->n_rows, n_labels, c, mine);
    st = nm__logreg_fit_sparse(x, sp->train, sp->n_train, mine, &(struct nm__logreg_opts){.C = C},
                               &m[c], err);
  }
  for (size_t i = 0; i < sp->n_test && !st; i++) {
    int says = 0;
    double best = nm__logreg_score_sparse(&m[0], x, sp->test[i]);
    if (k == 1) says = best > 0;
    for (int c = 1; c < k; c++) {
      double z = nm__logreg_score_sparse(&m[c], x, sp->test[i]);
      if (z > best) best = z, says = c;
    }
    right += says == label[sp->test[i]];
  }
  *accuracy = (double)right / (double)sp->n_test;
  for (int c = 0; c < k; c++) nm__logreg_done(&m[c]);
  free(mine);
  return st;
}
