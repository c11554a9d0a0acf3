/* wide.h - products of float rows in double, and rows rounded to bfloat16: what a fit to the
 * optimum needs besides the f32 kernels. Written once (wide_body.h) over eight doubles and compiled
 * for each instruction set; no operation is fused, so all give the same bits. */
#ifndef NM_TENSOR_WIDE_H
#define NM_TENSOR_WIDE_H

#include "tensor/kern.h"

struct nm__wide {
  /* out[i] = x[i] */
  void (*from_f32)(double *out, const float *x, int64_t n);
  /* t[i] = x[i] . w for four rows: lane l = 0..7 takes k mod 8 = l in ascending order, two such
   * sums (k mod 16 below 8 or not) are added, then (0 + 4) + (2 + 6) + ((1 + 5) + (3 + 7)); the
   * rest of k is added one by one. */
  void (*dot4)(double t[4], const double *x, size_t ldx, const double *w, int k);
  /* One row of floats by the same formula. */
  double (*dot1)(const float *x, const double *w, int k);
  /* g += (p[0] x[0] + p[1] x[1]) + (p[2] x[2] + p[3] x[3]) */
  void (*add4)(double *g, const double p[4], const double *x, size_t ldx, int k);
  /* out = x + shift, rounded to the nearest bfloat16, ties to even; and in q, q += that squared */
  void (*bf16)(uint16_t *out, float *q, const float *x, const float *shift, int64_t n);
};
/* The one that belongs to a set of kernels. */
const struct nm__wide *nm__wide_of(const struct nm__kern *k);

#endif
