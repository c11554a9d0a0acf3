/* direction.c - directions that separate two classes: mean difference, first principal component,
 * probe. All sums in double, rows in ascending order. */
#include "look/direction.h"

#include <stdlib.h>
#include <string.h>
#include "look/linalg.h"
#include "tensor/math.h"

bool nm__method_by_name(const char *name, enum nm__method *out) {
  static const char *const names[] = {"mean", "pca", "probe"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(name, names[i])) {
      *out = (enum nm__method)i;
      return true;
    }
  return false;
}

static const float *row(const struct nm__cloud *c, uint32_t i) { return c->x + (size_t)i * c->ld; }

static double along(const struct nm__cloud *c, uint32_t i, const double *v) {
  const float *x = row(c, i);
  double s = 0;
  for (int d = 0; d < c->D; d++) s += v[d] * (double)x[d];
  return s;
}

/* mean[0][D], mean[1][D]; false when a class is empty. */
static bool means(const struct nm__cloud *c, const uint32_t *rows, size_t n, double *mean) {
  size_t k[2] = {0, 0};
  memset(mean, 0, 2 * sizeof *mean * (size_t)c->D);
  for (size_t i = 0; i < n; i++) {
    double *m = mean + c->label[rows[i]] * c->D;
    k[c->label[rows[i]]]++;
    for (int d = 0; d < c->D; d++) m[d] += (double)row(c, rows[i])[d];
  }
  for (int d = 0; d < 2 * c->D; d++) mean[d] /= k[d / c->D] ? (double)k[d / c->D] : 1;
  return k[0] && k[1];
}

/* Differences of the pairs among the rows, class 1 less class 0: x[m, D]. Returns m. */
static int differences(const struct nm__cloud *c, const uint32_t *rows, size_t n, double *x) {
  int m = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; c->label[rows[i]] == 1 && j < n; j++)
      if (c->label[rows[j]] == 0 && c->group[rows[j]] == c->group[rows[i]]) {
        for (int d = 0; d < c->D; d++)
          x[(size_t)m * (size_t)c->D + (size_t)d] =
              (double)row(c, rows[i])[d] - (double)row(c, rows[j])[d];
        m++;
        break;
      }
  return m;
}

static int by_pca(const struct nm__cloud *c, const uint32_t *rows, size_t n, const double *mean,
                  double *out, nm_err *err) {
  double *x = nm__alloc(n * (size_t)c->D, sizeof *x), share;
  int m = (int)n, D = c->D;
  if (!x) return nm__fail_memory(err, "the vectors", n * (size_t)D * sizeof *x);
  if (c->paired) m = differences(c, rows, n, x);
  else
    for (size_t i = 0; i < n; i++)
      for (int d = 0; d < D; d++)
        x[i * (size_t)D + (size_t)d] = (double)row(c, rows[i])[d] - (mean[d] + mean[D + d]) / 2;
  int st = nm__first_component(x, m, D, out, &share, err);
  free(x);
  return st;
}

static int by_probe(const struct nm__cloud *c, const uint32_t *rows, size_t n, double *out,
                    nm_err *err) {
  struct nm__logreg fit;
  int st = nm__logreg_fit(c->x, c->ld, c->D, rows, n, c->label, &(struct nm__logreg_opts){.C = 1},
                          &fit, err);
  if (st) return st;
  memcpy(out, fit.w, sizeof *out * (size_t)c->D);
  nm__logreg_done(&fit);
  return NM_OK;
}

int nm__direction_fit(const struct nm__cloud *c, const uint32_t *rows, size_t n,
                      enum nm__method method, double *out, double *middle, nm_err *err) {
  int D = c->D, st = NM_OK;
  double *mean = nm__alloc(2 * (size_t)D, sizeof *mean), at[2];
  if (!mean) return nm__fail_memory(err, "the means", 0);
  if (!means(c, rows, n, mean)) st = nm__fail(err, NM_EFORMAT, "one of the two classes is empty");
  else if (method == NM__METHOD_PCA) st = by_pca(c, rows, n, mean, out, err);
  else if (method == NM__METHOD_PROBE) st = by_probe(c, rows, n, out, err);
  else for (int d = 0; d < D; d++) out[d] = mean[D + d] - mean[d];
  if (!st) {
    nm__unit(out, D);
    at[0] = nm__dot(out, mean, D);
    at[1] = nm__dot(out, mean + D, D);
    double gap = at[1] - at[0];    /* below zero: the direction is turned round */
    for (int d = 0; d < D; d++) out[d] *= gap;
    *middle = gap * (at[0] + at[1]) / 2;
  }
  free(mean);
  return st;
}

struct nm__metrics nm__direction_test(const struct nm__cloud *c, const uint32_t *rows, size_t n,
                                      const double *v, double middle, nm_err *err) {
  double *score = nm__alloc(n, sizeof *score);
  uint8_t *label = nm__alloc(n, 1);
  struct nm__metrics m = {0};
  if (!score || !label) nm__fail_memory(err, "scores", n);
  else {
    for (size_t i = 0; i < n; i++) {
      score[i] = along(c, rows[i], v) - middle;
      label[i] = c->label[rows[i]];
    }
    m = nm__metrics_of(score, label, n);
  }
  free(score);
  free(label);
  return m;
}

/* By Box and Muller. */
void nm__direction_random(uint64_t seed, uint64_t stream, int D, double *out) {
  struct nm__rng r = {seed, stream, 0};
  for (int d = 0; d < D; d += 2) {
    double u = 1 - nm__rng_unit(&r), a = 6.283185307179586 * nm__rng_unit(&r);
    double len = nm__sqrt(-2 * nm__log(u));
    out[d] = len * nm__cos(a);
    if (d + 1 < D) out[d + 1] = len * nm__sin(a);
  }
  nm__unit(out, D);
}
