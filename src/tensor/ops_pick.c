/* ops_pick.c - products and choices between rows and columns: mul, scatter, add_vec and the Gumbel
 * softmax; what edits and discrete codes are made of. */
#include "tensor/ops_in.h"

#include <string.h>

#include "tensor/math.h"

/* ---- mul: z = x * y ------------------------------------------------------ */

static void mul_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  for (int64_t k = b * c->y->cols; k < e * c->y->cols; k++)
    c->y->d[k] = c->a->x.d[k] * c->a->y.d[k];
}
static void mul_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, mul_rows);
}
static void mul_back(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  int64_t at = b * c->y->cols, n = (e - b) * c->y->cols;
  if (c->b->dx) c->o->kern->mul_add(c->b->dx + at, c->b->d_out + at, c->a->y.d + at, n);
  if (c->b->dy) c->o->kern->mul_add(c->b->dy + at, c->b->d_out + at, c->a->x.d + at, n);
}
static void mul_backward(struct nm__ops *o, const struct nm__op_args *a,
                         const struct nm__back *b) {
  nm__back_by_rows(o, a, b, mul_back);
}

/* ---- scatter: z[ids[i]] += x[i] into `rows` rows ---------------------------- */

static bool scatter_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->rows;
  out[1] = a->x.cols;
  return a->ids && a->n_ids == a->x.rows;
}
static void scatter_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  memset(y->d, 0, sizeof(float) * (size_t)(y->rows * y->cols));
  for (int64_t i = 0; i < a->n_ids; i++)
    o->kern->add(nm__row(y, a->ids[i]), nm__row(y, a->ids[i]), nm__row(&a->x, i), y->cols);
}
static void scatter_backward(struct nm__ops *o, const struct nm__op_args *a,
                             const struct nm__back *b) {
  int64_t n = b->out.cols;
  for (int64_t i = 0; b->dx && i < a->n_ids; i++)
    o->kern->add(b->dx + i * n, b->dx + i * n, b->d_out + a->ids[i] * n, n);
}

/* ---- add_vec: z = x, and s y on the rows ids --------------------------------- */

static bool vec_shape(const struct nm__op_args *a, int64_t out[2]) {
  return nm__same_shape(a, out) && a->y.rows == 1 && a->y.cols == a->x.cols;
}
static void vec_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  memcpy(y->d, a->x.d, sizeof(float) * (size_t)(y->rows * y->cols));
  for (int64_t i = 0; i < a->n_ids; i++)
    o->kern->axpy(nm__row(y, a->ids[i]), a->scale, a->y.d, y->cols);
}
static void vec_backward(struct nm__ops *o, const struct nm__op_args *a,
                         const struct nm__back *b) {
  int64_t n = b->out.cols;
  if (b->dx) o->kern->add(b->dx, b->dx, b->d_out, b->out.rows * n);
  for (int64_t i = 0; b->dy && i < a->n_ids; i++)
    o->kern->axpy(b->dy, a->scale, b->d_out + a->ids[i] * n, n);
}

/* ---- gumbel: one of the columns, drawn; the gradient is that of the softmax ------ */

/* Jang, Gu, Poole, Categorical Reparameterization with Gumbel-Softmax (arXiv 1611.01144): a
 * one-hot row forwards, softmax((x + g) / t) backwards (straight-through); t is `scale`. The
 * noise of element k is a function of (seed, k) alone. */
static float gumbel_noise(uint64_t seed, int64_t k) {
  double u = ((double)(nm__rand_at(seed, 0x67, (uint64_t)k) >> 11) + 0.5) * 0x1p-53;
  return (float)-nm__log(-nm__log(u));
}
static bool gumbel_shape(const struct nm__op_args *a, int64_t out[2]) {
  return nm__same_shape(a, out) && a->scale > 0;
}
static void gumbel_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o;
  memset(y->d, 0, sizeof(float) * (size_t)(y->rows * y->cols));
  for (int64_t i = 0; i < y->rows; i++) {
    int64_t best = 0;
    float top = 0;
    for (int64_t k = 0; k < y->cols; k++) {
      float s = a->x.d[i * y->cols + k] + gumbel_noise(a->seed, i * y->cols + k);
      if (!k || s > top) top = s, best = k;
    }
    y->d[i * y->cols + best] = 1.0f;
  }
}
static void gumbel_backward(struct nm__ops *o, const struct nm__op_args *a,
                            const struct nm__back *b) {
  size_t mark = o->arena.used;
  int64_t n = b->out.cols;
  float *p = nm__scratch(o, 2 * (size_t)n, "a row of a softmax");
  for (int64_t i = 0; p && b->dx && o->mode != NM__MEASURE && i < b->out.rows; i++) {
    for (int64_t k = 0; k < n; k++)
      p[k] = (a->x.d[i * n + k] + gumbel_noise(a->seed, i * n + k)) / a->scale;
    o->kern->softmax(p, (int)n);
    memcpy(p + n, b->d_out + i * n, sizeof(float) * (size_t)n);
    o->kern->softmax_back(p + n, p, (int)n);
    o->kern->axpy(b->dx + i * n, 1.0f / a->scale, p + n, n);
  }
  o->arena.used = mark;
}

const struct nm__op nm__op_mul = {.name = "mul", .formula = "z = x * y", .shape = nm__pair_shape,
                                  .forward = mul_forward, .backward = mul_backward};
const struct nm__op nm__op_scatter = {.name = "scatter", .formula = "z[ids[i]] += x[i]",
                                      .shape = scatter_shape, .forward = scatter_forward,
                                      .backward = scatter_backward};
const struct nm__op nm__op_add_vec = {.name = "add_vec", .formula = "z = x; z[ids[i]] += s y",
                                      .shape = vec_shape, .forward = vec_forward,
                                      .backward = vec_backward};
const struct nm__op nm__op_gumbel = {.name = "gumbel",
                                     .formula = "z = one-hot of argmax(x + noise)",
                                     .shape = gumbel_shape, .forward = gumbel_forward,
                                     .backward = gumbel_backward, .back_scratch = true};
