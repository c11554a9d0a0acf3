/* metrics.c - what a probe's scores are worth: accuracy, F1, area under the ROC curve, and the
 * small statistics that stand around them.
 *
 * The area is the Mann-Whitney statistic (Hanley and McNeil, Radiology 143, 1982): the share of
 * pairs of one row of each class in which class 1 has the higher score, ties counted half. Pairs
 * are counted in integers, so the result is exact up to one division. The interval for a share is
 * Wilson's (JASA 22, 1927), which stays inside 0..1 and is honest at 0 and at n successes. */
#include "look/probe.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/math.h"

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Twice the number of pairs that class 1 wins, a tie being worth one. Both lists ascend: `below`
 * and `upto` are how many of `zero` lie under and not over the score at hand. */
static uint64_t count_pairs(const double *one, size_t n_one, const double *zero, size_t n_zero) {
  uint64_t pairs = 0;
  size_t below = 0, upto = 0;
  for (size_t i = 0; i < n_one; i++) {
    while (below < n_zero && zero[below] < one[i]) below++;
    if (upto < below) upto = below;
    while (upto < n_zero && zero[upto] <= one[i]) upto++;
    pairs += below + upto;
  }
  return pairs;
}

/* The same without memory, in n^2 steps. */
static uint64_t count_pairs_slowly(const double *score, const uint8_t *label, size_t n) {
  uint64_t pairs = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n && label[i]; j++)
      if (!label[j]) pairs += (uint64_t)(score[j] < score[i]) + (uint64_t)(score[j] <= score[i]);
  return pairs;
}

/* One half when a class is empty: the scores say nothing about an order. */
static double area(const double *score, const uint8_t *label, size_t n) {
  size_t n_one = 0, n_zero = 0;
  for (size_t i = 0; i < n; i++) n_one += label[i] != 0;
  if (n_one == 0 || n_one == n) return 0.5;
  double total = 2.0 * (double)n_one * (double)(n - n_one);
  double *v = nm__alloc(n, sizeof *v), *zero = v ? v + n_one : NULL;
  if (!v) return (double)count_pairs_slowly(score, label, n) / total;
  for (size_t i = 0, one = 0; i < n; i++)
    *(label[i] ? &v[one++] : &zero[n_zero++]) = score[i];
  qsort(v, n_one, sizeof *v, by_value);
  qsort(zero, n_zero, sizeof *v, by_value);
  double a = (double)count_pairs(v, n_one, zero, n_zero) / total;
  free(v);
  return a;
}

struct nm__metrics nm__metrics_of(const double *score, const uint8_t *label, size_t n) {
  size_t right = 0, hit = 0, said = 0, are = 0;
  for (size_t i = 0; i < n; i++) {
    bool says = score[i] > 0, is = label[i] != 0;
    right += says == is;
    hit += says && is;
    said += says;
    are += is;
  }
  return (struct nm__metrics){
      .acc = n ? (double)right / (double)n : 0,
      .f1 = said + are ? 2.0 * (double)hit / (double)(said + are) : 0,
      .auc = area(score, label, n),
      .n = n,
  };
}

static int said(const double *score, int n_classes) {
  int best = 0;
  for (int c = 1; c < n_classes; c++)
    if (score[c] > score[best]) best = c;
  return best;
}

/* Class c against the others; the area is one half where there is no memory for it. */
static void one_class(const double *score, const uint8_t *label, size_t n, int n_classes, int c,
                      struct nm__metrics *m) {
  double *mine = nm__alloc(n, sizeof *mine);
  uint8_t *is = nm__alloc(n, 1);
  size_t hit = 0, claimed = 0, are = 0;
  for (size_t i = 0; i < n; i++) {
    bool says = said(score + i * (size_t)n_classes, n_classes) == c;
    hit += says && label[i] == c;
    claimed += says;
    are += label[i] == c;
    if (mine) mine[i] = score[i * (size_t)n_classes + (size_t)c];
    if (is) is[i] = label[i] == c;
  }
  m->f1 += claimed + are ? 2.0 * (double)hit / (double)(claimed + are) / n_classes : 0;
  m->auc += (mine && is ? area(mine, is, n) : 0.5) / n_classes;
  free(mine);
  free(is);
}

struct nm__metrics nm__metrics_many(const double *score, const uint8_t *label, size_t n,
                                    int n_classes, uint64_t *confusion) {
  struct nm__metrics m = {.n = n};
  size_t right = 0, k = (size_t)n_classes;
  for (size_t i = 0; i < n; i++) {
    size_t says = (size_t)said(score + i * k, n_classes);
    right += says == label[i];
    if (confusion) confusion[label[i] * k + says]++;
  }
  m.acc = n ? (double)right / (double)n : 0;
  for (int c = 0; c < n_classes; c++) one_class(score, label, n, n_classes, c, &m);
  return m;
}

void nm__wilson(double k, double n, double *lo, double *hi) {
  const double z = 1.959963984540054;      /* the normal quantile of 0.975 */
  *lo = 0;
  *hi = 1;
  if (!(n > 0)) return;
  double p = k / n, zz = z * z / n;
  double middle = (p + zz / 2) / (1 + zz);
  double half = z * nm__sqrt((p * (1 - p) + zz / 4) / n) / (1 + zz);
  if (k > 0 && middle > half) *lo = middle - half;
  if (k < n && middle + half < 1) *hi = middle + half;
}

/* NaN when there is no memory for the copy. */
double nm__quantile(const double *v, size_t n, double q) {
  double *s = nm__alloc(n, sizeof *s);
  if (!s) return __builtin_nan("");
  memcpy(s, v, n * sizeof *s);
  qsort(s, n, sizeof *s, by_value);
  double at = (q < 0 ? 0 : q > 1 ? 1 : q) * (double)(n - 1);
  size_t i = (size_t)at;
  double x = i + 1 < n ? s[i] + (at - (double)i) * (s[i + 1] - s[i]) : s[n - 1];
  free(s);
  return x;
}

double nm__mean(const double *v, size_t n) {
  double s = 0;
  for (size_t i = 0; i < n; i++) s += v[i];
  return n ? s / (double)n : 0;
}
