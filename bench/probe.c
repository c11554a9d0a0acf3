/* probe.c - probe N D LABELS [C] [THREADS] [FOLDER]: seconds a label of L2 logistic regression on
 * N rows of D floats, the last line; the best of three. With FOLDER it writes features and labels
 * there instead, for bench/peer_sklearn.py, which prints the same. The rows are two Gaussian clouds,
 * each 1 from the middle; label 0 is the cloud, the others follow directions of their own. The
 * gradient's norm to reach is 1e-3, about where scikit-learn stops (1e-4 in each direction). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file/npy.h"
#include "look/probe.h"
#include "tensor/math.h"

static double normal(uint64_t stream, uint64_t i) {
  double u = (double)((nm__rand_at(7, stream, 2 * i) >> 11) + 1) * 0x1p-53;
  double v = (double)(nm__rand_at(7, stream, 2 * i + 1) >> 11) * 0x1p-53;
  return nm__sqrt(-2 * nm__log(u)) * nm__cos(6.283185307179586 * v);
}

struct set { size_t n; int d, labels; float *x; uint8_t *y; };

static int make(struct set *s) {
  s->x = malloc(s->n * (size_t)s->d * sizeof *s->x);
  s->y = malloc(s->n * (size_t)s->labels);
  double *u = malloc((size_t)s->labels * (size_t)s->d * sizeof *u);
  if (!s->x || !s->y || !u) return 4;
  double scale = 1 / nm__sqrt((double)s->d);
  for (size_t j = 0; j < (size_t)s->labels * (size_t)s->d; j++) u[j] = normal(2, j) * scale;
  for (size_t i = 0; i < s->n; i++) {
    float *x = s->x + i * (size_t)s->d;
    s->y[i] = nm__rand_at(7, 3, i) & 1;
    for (int j = 0; j < s->d; j++)
      x[j] = (float)(normal(1, i * (size_t)s->d + (size_t)j) + (s->y[i] ? 1 : -1) * u[j]);
    for (int l = 1; l < s->labels; l++) {
      double t = normal(4, i * 64 + (size_t)l);
      for (int j = 0; j < s->d; j++) t += (double)x[j] * u[(size_t)(l * s->d + j)];
      s->y[(size_t)l * s->n + i] = t > 0;
    }
  }
  free(u);
  return 0;
}

/* scikit-learn reads the labels as bytes from a float file, which it can just as well. */
static int save(const struct set *s, const char *dir) {
  char path[600];
  size_t m = s->n * (size_t)s->labels;
  float *y = malloc(m * sizeof *y);
  if (!y) return 4;
  for (size_t i = 0; i < m; i++) y[i] = s->y[i];
  nm_err err = {0};
  snprintf(path, sizeof path, "%s/x.npy", dir);
  int st = nm__npy_write(path, 2, (int64_t[]){(int64_t)s->n, s->d}, s->x, &err);
  snprintf(path, sizeof path, "%s/y.npy", dir);
  if (!st) st = nm__npy_write(path, 2, (int64_t[]){s->labels, (int64_t)s->n}, y, &err);
  free(y);
  if (st) fprintf(stderr, "probe: %s\n", err.text);
  return st ? 1 : 0;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  struct set s = {strtoul(argv[1], NULL, 10), atoi(argv[2]), atoi(argv[3]), NULL, NULL};
  if (s.n < 4 || s.d < 1 || s.labels < 1 || s.labels > 64 || make(&s)) return 2;
  if (argc > 6) return save(&s, argv[6]);
  struct nm__pool *pool;
  nm_err err = {0};
  if (nm__pool_new(argc > 5 ? atoi(argv[5]) : 2, &pool, &err)) return 1;
  struct nm__logreg_opts o = {.C = argc > 4 ? strtod(argv[4], NULL) : 1, .tol = 1e-3,
                             .pool = pool};
  struct nm__logreg *m = calloc((size_t)s.labels, sizeof *m);
  const uint8_t **label = calloc((size_t)s.labels, sizeof *label);
  for (int l = 0; l < s.labels; l++) label[l] = s.y + (size_t)l * s.n;
  double best = 1e30, busy = (double)clock();
  for (int r = 0; r < 3; r++) {
    for (int l = 0; l < s.labels; l++) nm__logreg_done(&m[l]);
    double t0 = nm__now();
    if (nm__logreg_fit_many(s.x, (size_t)s.d, s.d, NULL, s.n, label, s.labels, &o, m, &err)) {
      fprintf(stderr, "probe: %s\n", err.text);
      return 1;
    }
    double t = nm__now() - t0;
    best = t < best ? t : best;
  }
  for (int l = 0; l < s.labels; l++)
    printf("objective %.10g after %d, gradient %.1e\n", m[l].objective, m[l].iterations,
           m[l].grad_norm);
  printf("CPU seconds a label %.6f\n",
         ((double)clock() - busy) / CLOCKS_PER_SEC / 3 / s.labels);
  printf("%.6f\n", best / s.labels);
  nm__pool_free(pool);
  return 0;
}
