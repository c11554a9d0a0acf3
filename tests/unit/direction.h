/* direction.h - a gradient against the difference of a loss, along a random direction of one learned
 * tensor: for whole models, where a double twin would be a second forward. */
#ifndef DIRECTION_H
#define DIRECTION_H

#include <math.h>
#include <string.h>
#include "learn/learn.h"

static inline double unit(uint64_t stream, size_t i) {
  return (double)(nm__rand_at(9, stream, i) >> 11) * 0x1p-52 - 1;
}

/* (loss(p + h d) - loss(p - h d)) / 2h - g . d, relative to |g| |d|; g and was are the tensor's
 * gradient and its values. */
static inline double direction(struct nm__params *p, const struct nm__learned *v, const float *g,
                               const float *was, double step, double (*loss)(void *arg),
                               void *arg) {
  size_t n = (size_t)(v->rows * v->cols);
  double gd = 0, gg = 0, dd = 0, pp = 0, f[2];
  for (size_t i = 0; i < n; i++) {
    double d = unit(v->at, i);
    gd += (double)g[i] * d, gg += pow((double)g[i], 2), dd += d * d, pp += pow((double)was[i], 2);
  }
  double h = step * sqrt(pp / dd) + 1e-5;
  for (int side = 0; side < 2; side++) {
    for (size_t i = 0; i < n; i++)
      p->values[v->at + i] = (float)((double)was[i] + (side ? -h : h) * unit(v->at, i));
    f[side] = loss(arg);
  }
  memcpy(p->values + v->at, was, n * sizeof *was);
  return fabs((f[0] - f[1]) / (2 * h) - gd) / (sqrt(gg * dd) + 1e-4 / h);
}

#endif
