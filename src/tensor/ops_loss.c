/* ops_loss.c - losses and what stands next to them. A loss gives one number a row; `wsum`
 * weighs the rows into the one number that gradients start from, summed in double in order.
 * Rows are independent, so threads change nothing. */
#include "tensor/ops_in.h"

#include <string.h>

#include "tensor/math.h"

static bool one_per_row(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = 1;
  return a->x.cols > 0;
}
static bool two_per_row(const struct nm__op_args *a, int64_t out[2]) {
  return one_per_row(a, out) && a->x.rows == a->y.rows && a->x.cols == a->y.cols;
}

/* Rows in parallel with `floats` of scratch a thread. */
struct job { struct nm__call c; size_t floats; void (*row)(struct nm__call *c, int64_t i); };

static void rows_of_job(void *v, int64_t begin, int64_t end, int thread) {
  struct job j = *(struct job *)v;
  if (j.c.scratch) j.c.scratch += (size_t)thread * j.floats;
  for (int64_t i = begin; i < end; i++) j.row(&j.c, i);
}

static void by_row(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y,
                   const struct nm__back *b, size_t floats,
                   void (*row)(struct nm__call *c, int64_t i)) {
  size_t mark = o->arena.used, threads = (size_t)nm__pool_size(o->pool);
  float *s = floats ? nm__scratch(o, threads * floats, "a row of a loss") : NULL;
  struct job j = {{o, a, y, b, s}, floats, row};
  if (!o->err.status && o->mode != NM__MEASURE)
    nm__rows_parallel(o, a->x.rows, nm__grain(a->x.cols), rows_of_job, &j);
  o->arena.used = mark;
}

#define LOSS(name, floats) \
  static void name##_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) { \
    by_row(o, a, y, NULL, (floats) * (size_t)a->x.cols, name##_row); \
  } \
  static void name##_backward(struct nm__ops *o, const struct nm__op_args *a, \
                              const struct nm__back *b) { \
    by_row(o, a, &b->out, b, (floats) * (size_t)a->x.cols, name##_back); \
  }

/* ---- cross_entropy: y = log sum exp x - x[target] ------------------------- */

/* A target below 0 is not counted. With eps e the target's weight is 1 - e, and e is spread over
 * all columns (label smoothing: Szegedy et al., arXiv 1512.00567). */
static double ce_spread(struct nm__call *c, const float *x, int t) {
  double sum = 0, e = (double)c->a->eps;
  for (int64_t k = 0; k < c->a->x.cols; k++) sum += (double)x[k];
  return e * ((double)x[t] - sum / (double)c->a->x.cols);
}
static void ce_row(struct nm__call *c, int64_t i) {
  const float *x = nm__row(&c->a->x, i);
  float top, sum;
  int t = c->a->ids[i];
  if (t < 0) c->y->d[i] = 0;
  if (t < 0) return;
  c->o->kern->softmax_parts(c->scratch, x, (int)c->a->x.cols, &top, &sum);
  c->y->d[i] = (float)(nm__log((double)sum) + ((double)top - (double)x[t]));
  if (c->a->eps > 0) c->y->d[i] += (float)ce_spread(c, x, t);
}
static void ce_back(struct nm__call *c, int64_t i) {
  int64_t n = c->a->x.cols;
  float top, sum, g = c->b->d_out[i], *dx = c->b->dx + i * n;
  int t = c->a->ids[i];
  if (t < 0 || g == 0) return;
  c->o->kern->softmax_parts(c->scratch, nm__row(&c->a->x, i), (int)n, &top, &sum);
  c->o->kern->axpy(dx, g, c->scratch, n);
  dx[t] -= g * (1 - c->a->eps);
  for (int64_t k = 0; c->a->eps > 0 && k < n; k++) dx[k] -= g * c->a->eps / (float)n;
}
static bool ce_shape(const struct nm__op_args *a, int64_t out[2]) {
  return one_per_row(a, out) && a->ids;
}
LOSS(ce, 1)

/* ---- kl: y = sum p (log p - log q), p of y's logits, q of x's -------------- */

static void two_logs(struct nm__call *c, int64_t i, double *lq, double *lp) {
  int n = (int)c->a->x.cols;
  float top, sum;
  c->o->kern->softmax_parts(c->scratch, nm__row(&c->a->x, i), n, &top, &sum);
  *lq = (double)top + nm__log((double)sum);
  c->o->kern->softmax_parts(c->scratch + n, nm__row(&c->a->y, i), n, &top, &sum);
  *lp = (double)top + nm__log((double)sum);
}
static void kl_row(struct nm__call *c, int64_t i) {
  const float *x = nm__row(&c->a->x, i), *y = nm__row(&c->a->y, i);
  double lq, lp, kl = 0;
  int n = (int)c->a->x.cols;
  two_logs(c, i, &lq, &lp);
  for (int k = 0; k < n; k++)
    kl += (double)c->scratch[n + k] * (((double)y[k] - lp) - ((double)x[k] - lq));
  c->y->d[i] = (float)kl;
}
static void kl_back(struct nm__call *c, int64_t i) {
  const float *x = nm__row(&c->a->x, i), *y = nm__row(&c->a->y, i);
  int n = (int)c->a->x.cols;
  float g = c->b->d_out[i], *q = c->scratch, *p = q + n;
  double lq, lp;
  two_logs(c, i, &lq, &lp);
  if (c->b->dx) {
    c->o->kern->axpy(c->b->dx + i * n, g, q, n);
    c->o->kern->axpy(c->b->dx + i * n, -g, p, n);
  }
  for (int k = 0; c->b->dy && k < n; k++) {
    double log_ratio = ((double)y[k] - lp) - ((double)x[k] - lq) - (double)c->b->out.d[i];
    c->b->dy[i * n + k] += g * (float)((double)p[k] * log_ratio);
  }
}
LOSS(kl, 2)

/* ---- element by element, mean over the columns: bce, mse, huber ------------ */

/* log(1 + e^x) - x t, without overflow. */
static double bce_of(double x, double t) {
  double a = x < 0 ? -x : x;
  return (x > 0 ? x : 0) - x * t + nm__log1p(nm__exp(-a));
}
static double huber_of(double e, double d) {
  double a = e < 0 ? -e : e;
  return a <= d ? 0.5 * e * e : d * (a - 0.5 * d);
}
static double huber_d(double e, double d) { return e < -d ? -d : e > d ? d : e; }

#define MEAN_LOSS(name, value, d_x, d_y) \
  static void name##_row(struct nm__call *c, int64_t i) { \
    double sum = 0, cap = (double)c->a->cap; \
    (void)cap; \
    for (int64_t k = 0; k < c->a->x.cols; k++) { \
      double x = (double)nm__row(&c->a->x, i)[k], y = (double)nm__row(&c->a->y, i)[k]; \
      sum += value; \
    } \
    c->y->d[i] = (float)(sum / (double)c->a->x.cols); \
  } \
  static void name##_back(struct nm__call *c, int64_t i) { \
    int64_t n = c->a->x.cols; \
    double g = (double)c->b->d_out[i] / (double)n, cap = (double)c->a->cap; \
    (void)cap; \
    for (int64_t k = i * n; k < (i + 1) * n; k++) { \
      double x = (double)c->a->x.d[k], y = (double)c->a->y.d[k]; \
      if (c->b->dx) c->b->dx[k] += (float)(g * (d_x)); \
      if (c->b->dy) c->b->dy[k] += (float)(g * (d_y)); \
    } \
  } \
  LOSS(name, 0)

MEAN_LOSS(bce, bce_of(x, y), 1 / (1 + nm__exp(-x)) - y, -x)
MEAN_LOSS(mse, (x - y) * (x - y), 2 * (x - y), 2 * (y - x))
MEAN_LOSS(huber, huber_of(x - y, cap), huber_d(x - y, cap), huber_d(y - x, cap))

static bool huber_shape(const struct nm__op_args *a, int64_t out[2]) {
  return two_per_row(a, out) && a->cap > 0;
}

/* ---- cosine: y = x . y / (|x| |y|) ------------------------------------------ */

static void norms(struct nm__call *c, int64_t i, double *xy, double *xx, double *yy) {
  int64_t n = c->a->x.cols;
  const float *x = nm__row(&c->a->x, i), *y = nm__row(&c->a->y, i);
  *xy = (double)c->o->kern->dot(x, y, n);
  *xx = (double)c->o->kern->dot(x, x, n) + (double)c->a->eps;
  *yy = (double)c->o->kern->dot(y, y, n) + (double)c->a->eps;
}
static void cosine_row(struct nm__call *c, int64_t i) {
  double xy, xx, yy;
  norms(c, i, &xy, &xx, &yy);
  c->y->d[i] = (float)(xy / nm__sqrt(xx * yy));
}
static void cosine_back(struct nm__call *c, int64_t i) {
  int64_t n = c->a->x.cols;
  double xy, xx, yy;
  norms(c, i, &xy, &xx, &yy);
  double r = (double)c->b->d_out[i] / nm__sqrt(xx * yy);
  const float *x = nm__row(&c->a->x, i), *y = nm__row(&c->a->y, i);
  float *dx = c->b->dx ? c->b->dx + i * n : NULL, *dy = c->b->dy ? c->b->dy + i * n : NULL;
  if (dx) c->o->kern->axpy(dx, (float)r, y, n);
  if (dx) c->o->kern->axpy(dx, (float)(-r * xy / xx), x, n);
  if (dy) c->o->kern->axpy(dy, (float)r, x, n);
  if (dy) c->o->kern->axpy(dy, (float)(-r * xy / yy), y, n);
}
LOSS(cosine, 0)

/* ---- info_nce: y[i] = log sum_j exp(s x[i] . y[j]) - s x[i] . y[i] ------------ */

/* Probabilities of the rows of y for row i of x, in scratch[rows]. */
static double nce_parts(struct nm__call *c, int64_t i) {
  int n = (int)c->a->x.rows, d = (int)c->a->x.cols;
  float *s = c->scratch, top, sum, own;
  c->o->kern->gemm(s, (size_t)n, nm__row(&c->a->x, i), (size_t)d, 1, c->a->y.d, (size_t)d, n, d);
  c->o->kern->mul(s, c->a->scale, s, n);
  own = s[i];
  c->o->kern->softmax_parts(s, s, n, &top, &sum);
  return nm__log((double)sum) + ((double)top - (double)own);
}
static void nce_row(struct nm__call *c, int64_t i) { c->y->d[i] = (float)nce_parts(c, i); }

static void nce_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  by_row(o, a, y, NULL, (size_t)a->x.rows, nce_row);
}
/* Rows one after the other: each gives to all rows of dy. */
static void nce_backward(struct nm__ops *o, const struct nm__op_args *a,
                         const struct nm__back *b) {
  size_t mark = o->arena.used;
  int64_t n = a->x.rows, d = a->x.cols;
  struct nm__call c = {o, a, &b->out, b, nm__scratch(o, (size_t)n, "a row of a loss")};
  for (int64_t i = 0; c.scratch && o->mode != NM__MEASURE && i < n; i++) {
    float g = b->d_out[i] * a->scale, *p = c.scratch;
    nce_parts(&c, i);
    p[i] -= 1.0f;
    o->kern->mul(p, g, p, n);
    if (b->dx) o->kern->weighted_sum(b->dx + i * d, p, a->y.d, (size_t)d, (int)n, (int)d);
    for (int64_t j = 0; b->dy && j < n; j++)
      o->kern->axpy(b->dy + j * d, p[j], nm__row(&a->x, i), d);
  }
  o->arena.used = mark;
}

/* ---- wsum: the one number --------------------------------------------------- */

static bool wsum_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = out[1] = 1;
  return a->x.cols == 1;
}
static void wsum_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  double s = 0;
  (void)o;
  for (int64_t i = 0; i < a->x.rows; i++)
    s += (a->weight ? (double)a->weight[i] : 1) * (double)a->x.d[i];
  y->d[0] = (float)s;
}
static void wsum_backward(struct nm__ops *o, const struct nm__op_args *a,
                          const struct nm__back *b) {
  (void)o;
  for (int64_t i = 0; b->dx && i < a->x.rows; i++)
    b->dx[i] += b->d_out[0] * (a->weight ? a->weight[i] : 1.0f);
}

#define ROW_OF_TABLE(id, op_name, text, shape_fn, fn, uses_scratch) \
  const struct nm__op id = {.name = op_name, .formula = text, .shape = shape_fn, \
                            .forward = fn##_forward, .backward = fn##_backward, \
                            .scratch = uses_scratch, .back_scratch = uses_scratch}
ROW_OF_TABLE(nm__op_cross_entropy, "cross_entropy", "y = log sum exp x - x[target]", ce_shape, ce,
             true);
ROW_OF_TABLE(nm__op_kl, "kl", "z = sum p (log p - log q), p = softmax y, q = softmax x",
             two_per_row, kl, true);
ROW_OF_TABLE(nm__op_bce, "bce", "z = mean log(1 + e^x) - x y", two_per_row, bce, false);
ROW_OF_TABLE(nm__op_mse, "mse", "z = mean (x - y)^2", two_per_row, mse, false);
ROW_OF_TABLE(nm__op_huber, "huber", "z = mean huber(x - y, c)", huber_shape, huber, false);
ROW_OF_TABLE(nm__op_cosine, "cosine", "z = x . y / (|x| |y|)", two_per_row, cosine, false);
ROW_OF_TABLE(nm__op_info_nce, "info_nce", "z[i] = log sum_j exp(s x[i] . y[j]) - s x[i] . y[i]",
             two_per_row, nce, true);
ROW_OF_TABLE(nm__op_wsum, "wsum", "z = sum of weight[i] x[i]", wsum_shape, wsum, false);
