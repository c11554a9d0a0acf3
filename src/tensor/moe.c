/* moe.c - the operations of a mixture of experts: which experts a position goes through,
 * their products, and their weighted sum.
 *
 * Rows of the experts' tensors are (position, expert) pairs, grouped by expert, so that an
 * expert's matrix is read once for all positions that chose it. Each row is a product of
 * its own and each sum runs over the experts in ascending order, so nothing depends on who
 * else is in the batch. Of equal probabilities the lower expert is chosen. */
#include "tensor/moe.h"

#include <string.h>
#include "tensor/math.h"
#include "tensor/ops_in.h"
#include "tensor/tape.h"

struct nm__route *nm__route_take(struct nm__ops *o, int64_t T, int n_expert, int k,
                                 struct nm__route *here) {
  size_t pairs = (size_t)T * (size_t)k, bytes = sizeof(int32_t);
  int32_t *at = nm__arena_take(&o->arena, bytes * (3 * pairs + (size_t)n_expert + 1));
  struct nm__route *kept = o->tape ? nm__tape_keep(o, sizeof *kept) : here, *r = kept ? kept : here;
  *r = (struct nm__route){.n_expert = n_expert, .k = k, .T = T};
  if (!at) nm__fail(&o->err, NM_EMEMORY, "the arena is too small for the routes to the experts");
  if (!at || o->mode == NM__MEASURE) return r;         /* nothing stands behind the address */
  r->expert = at;
  r->slot = at + pairs;
  r->pos = at + 2 * pairs;
  r->first = at + 3 * pairs;
  return r;
}

/* ---- softmax over each row ----------------------------------------------- */

static bool softmax_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return a->x.cols > 0 && a->x.cols <= 1 << 24;
}

static void softmax_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  memcpy(y->d, a->x.d, sizeof(float) * (size_t)(y->rows * y->cols));
  for (int64_t i = 0; i < y->rows; i++) o->kern->softmax(nm__row(y, i), (int)y->cols);
}

/* dx += p (dp - sum p dp) */
static void softmax_backward(struct nm__ops *o, const struct nm__op_args *a,
                             const struct nm__back *b) {
  size_t mark = o->arena.used;
  int64_t n = b->out.cols;
  float *t = nm__scratch(o, (size_t)n, "a row of a softmax");
  (void)a;
  for (int64_t i = 0; t && b->dx && o->mode != NM__MEASURE && i < b->out.rows; i++) {
    memcpy(t, b->d_out + i * n, sizeof(float) * (size_t)n);
    o->kern->softmax_back(t, nm__row(&b->out, i), (int)n);
    o->kern->add(b->dx + i * n, b->dx + i * n, t, n);
  }
  o->arena.used = mark;
}

/* ---- top_k: the choice, and the weights of the chosen ------------------------ */

/* With a route it is filled; without one k is a->rows and the op only chooses. */
static bool top_k_shape(const struct nm__op_args *a, int64_t out[2]) {
  const struct nm__route *r = a->route;
  int64_t k = r ? r->k : a->rows;
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return k > 0 && k <= a->x.cols && (!r || (r->T == a->x.rows && r->n_expert == a->x.cols));
}

/* Marks the k largest in y (1 where chosen) and lists them in ascending order. A value that is
 * no number is not larger than any other, so that k experts are chosen whatever x holds. */
static void choose(const float *x, float *y, int n, int k, int32_t *expert) {
  memset(y, 0, sizeof *y * (size_t)n);
  for (int i = 0; i < k; i++) {
    int best = -1;
    for (int e = 0; e < n; e++)
      if (y[e] == 0 && (best < 0 || x[e] > x[best])) best = e;
    y[best] = 1;
  }
  for (int e = 0; e < n; e++)
    if (y[e] != 0) *expert++ = e;
}

/* Counts, then places: the pairs of expert e are slots first[e] to first[e + 1]. */
static void group_by_expert(struct nm__route *r) {
  int64_t pairs = r->T * r->k;
  memset(r->first, 0, sizeof *r->first * ((size_t)r->n_expert + 1));
  for (int64_t i = 0; i < pairs; i++) r->first[r->expert[i]]++;
  int32_t at = 0;
  for (int e = 0; e <= r->n_expert; e++) {
    int32_t n = r->first[e];
    r->first[e] = at;
    at += n;
  }
  for (int64_t i = 0; i < pairs; i++) {
    r->slot[i] = r->first[r->expert[i]]++;
    r->pos[r->slot[i]] = (int32_t)(i / r->k);
  }
  memmove(r->first + 1, r->first, sizeof *r->first * (size_t)r->n_expert);
  r->first[0] = 0;
}

static void top_k_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  struct nm__route *r = a->route;
  int n = (int)y->cols, k = r ? r->k : (int)a->rows;
  size_t mark = o->arena.used;
  int32_t *one = (int32_t *)(void *)nm__scratch(o, (size_t)k, "the chosen columns");
  for (int64_t t = 0; one && o->mode != NM__MEASURE && t < y->rows; t++) {
    int32_t *expert = r ? r->expert + t * k : one;
    const float *x = nm__row(&a->x, t);
    float *w = nm__row(y, t), sum = 0;
    choose(x, w, n, k, expert);
    for (int i = 0; i < k; i++) sum += w[expert[i]] = x[expert[i]];
    for (int i = 0; i < k && a->renormalise && sum > 0; i++) w[expert[i]] /= sum;
  }
  if (r && one && o->mode != NM__MEASURE) group_by_expert(r);
  o->arena.used = mark;
}

/* Through the chosen ones: dx = dz, or with y = x / s, s the sum of the chosen:
 * dx = (dz - sum dz y) / s. The choice itself has no gradient. */
static void top_k_backward(struct nm__ops *o, const struct nm__op_args *a,
                           const struct nm__back *b) {
  int n = (int)b->out.cols, k = a->route ? a->route->k : (int)a->rows;
  size_t mark = o->arena.used;
  float *one = nm__scratch(o, (size_t)(n + k), "the chosen columns");
  for (int64_t t = 0; one && b->dx && o->mode != NM__MEASURE && t < b->out.rows; t++) {
    int32_t *chosen = (int32_t *)(void *)(one + n);
    const float *x = nm__row(&a->x, t), *y = nm__row(&b->out, t), *dz = b->d_out + t * n;
    float sum = 0, dot = 0, *dx = b->dx + t * n;
    choose(x, one, n, k, chosen);
    for (int i = 0; i < k; i++) sum += x[chosen[i]];
    bool norm = a->renormalise && sum > 0;
    for (int i = 0; i < k && norm; i++) dot += dz[chosen[i]] * y[chosen[i]];
    for (int i = 0; i < k; i++) dx[chosen[i]] += norm ? (dz[chosen[i]] - dot) / sum : dz[chosen[i]];
  }
  o->arena.used = mark;
}

/* ---- experts: each group of rows times its expert's matrix -------------------- */

static bool experts_shape(const struct nm__op_args *a, int64_t out[2]) {
  const struct nm__route *r = a->route;
  if (!r || !a->experts || !a->experts[0].rows) return false;
  out[0] = a->x.rows;
  out[1] = a->experts[0].rows;
  return a->x.rows == r->T * r->k && a->x.cols == a->experts[0].cols;
}

/* The rows of expert e, and what they become. */
static int64_t group(const struct nm__route *r, int e, int64_t *first) {
  *first = r->first[e];
  return r->first[e + 1] - r->first[e];
}

/* The scratch is that of all rows at the largest expert: a measurement cannot know the choice. */
static void experts_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  const struct nm__route *r = a->route;
  for (int e = 0; e < r->n_expert && !o->err.status; e++)
    nm__matmul_room(o, &(struct nm__op_args){.x = a->x, .w = a->experts[e]});
  for (int e = 0; e < r->n_expert && o->mode != NM__MEASURE && !o->err.status; e++) {
    int64_t first, n = group(r, e, &first);
    if (!n) continue;
    if (!a->experts[e].data) {     /* an expert that no adapter stands beside: nothing is added */
      memset(nm__row(y, first), 0, sizeof(float) * (size_t)(n * y->cols));
      continue;
    }
    struct nm__op_args one = {.x = {.d = nm__row(&a->x, first), .rows = n, .cols = a->x.cols},
                              .w = a->experts[e]};
    struct nm__t out = {.d = nm__row(y, first), .rows = n, .cols = y->cols};
    nm__matmul(o, &one, &out);
  }
}

/* Measured as if all rows chose the largest expert. */
static void experts_backward(struct nm__ops *o, const struct nm__op_args *a,
                             const struct nm__back *b) {
  const struct nm__route *r = a->route;
  for (int e = 0; e < r->n_expert && !o->err.status; e++) {
    int64_t first = 0, n = o->mode == NM__MEASURE ? a->x.rows : group(r, e, &first);
    if (!n || !a->experts[e].data) continue;
    struct nm__op_args one = {.x = {.d = nm__row(&a->x, first), .rows = n, .cols = a->x.cols},
                              .w = a->experts[e]};
    struct nm__back g = {.out = {.d = nm__row(&b->out, first), .rows = n, .cols = b->out.cols},
                         .d_out = b->d_out + first * b->out.cols,
                         .dx = b->dx ? b->dx + first * a->x.cols : NULL,
                         .dw = o->tape ? nm__tape_grad_of(o->tape, &a->experts[e]) : NULL};
    nm__matmul_back(o, &one, &g);
  }
}

/* ---- combine: the weighted sum of a position's experts -------------------------- */

static bool combine_shape(const struct nm__op_args *a, int64_t out[2]) {
  const struct nm__route *r = a->route;
  out[0] = a->y.rows;
  out[1] = a->x.cols;
  return r && a->x.rows == r->T * r->k && a->y.rows == r->T && a->y.cols == r->n_expert;
}

static void combine_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  const struct nm__route *r = c->a->route;
  for (int64_t t = b; t < e; t++)
    for (int i = 0; i < r->k; i++) {
      const float *x = nm__row(&c->a->x, r->slot[t * r->k + i]);
      float w = nm__row(&c->a->y, t)[r->expert[t * r->k + i]];
      if (i == 0) c->o->kern->mul(nm__row(c->y, t), w, x, c->y->cols);
      else c->o->kern->axpy(nm__row(c->y, t), w, x, c->y->cols);
    }
}

static void combine_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, 16, combine_rows, &(struct nm__call){o, a, y, NULL, NULL});
}

static void combine_back(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  const struct nm__route *r = c->a->route;
  int64_t n = c->y->cols;
  for (int64_t t = b; t < e; t++)
    for (int i = 0; i < r->k; i++) {
      int64_t slot = r->slot[t * r->k + i], at = t * r->n_expert + r->expert[t * r->k + i];
      const float *dz = c->b->d_out + t * n;
      if (c->b->dx) c->o->kern->axpy(c->b->dx + slot * n, c->a->y.d[at], dz, n);
      if (c->b->dy) c->b->dy[at] += c->o->kern->dot(nm__row(&c->a->x, slot), dz, n);
    }
}
static void combine_backward(struct nm__ops *o, const struct nm__op_args *a,
                             const struct nm__back *b) {
  nm__back_by_rows(o, a, b, combine_back);
}

/* ---- the gate of a shared expert -------------------------------------------------- */

static void sigmoid_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o;
  for (int64_t i = 0; i < y->rows * y->cols; i++)
    y->d[i] = (float)(1 / (1 + nm__exp(-(double)a->x.d[i])));
}
static void sigmoid_backward(struct nm__ops *o, const struct nm__op_args *a,
                             const struct nm__back *b) {
  (void)o, (void)a;
  for (int64_t i = 0; b->dx && i < b->out.rows * b->out.cols; i++)
    b->dx[i] += b->d_out[i] * b->out.d[i] * (1.0f - b->out.d[i]);
}

static bool row_scale_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return a->y.rows == a->x.rows && a->y.cols == 1;
}

static void row_scale_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  for (int64_t i = 0; i < y->rows; i++)
    o->kern->mul(nm__row(y, i), a->y.d[i], nm__row(&a->x, i), y->cols);
}

static void row_scale_backward(struct nm__ops *o, const struct nm__op_args *a,
                               const struct nm__back *b) {
  int64_t n = b->out.cols;
  for (int64_t i = 0; i < b->out.rows; i++) {
    if (b->dx) o->kern->axpy(b->dx + i * n, a->y.d[i], b->d_out + i * n, n);
    if (b->dy) b->dy[i] += o->kern->dot(nm__row(&a->x, i), b->d_out + i * n, n);
  }
}

const struct nm__op nm__op_softmax = {.name = "softmax",
                                      .formula = "y = e^x / sum e^x in every row",
                                      .shape = softmax_shape, .forward = softmax_forward,
                                      .backward = softmax_backward, .back_scratch = true};
const struct nm__op nm__op_top_k = {
    .name = "top_k",
    .formula = "y = x where x is among the k largest, else 0; may be made to sum to 1",
    .shape = top_k_shape, .forward = top_k_forward, .backward = top_k_backward, .scratch = true,
    .back_scratch = true};
const struct nm__op nm__op_experts = {.name = "experts",
                                      .formula = "y[i] = x[i] w(expert of row i)^T",
                                      .shape = experts_shape, .forward = experts_forward,
                                      .backward = experts_backward, .scratch = true,
                                      .back_scratch = true};
const struct nm__op nm__op_combine = {
    .name = "combine", .formula = "z[t] = sum over experts e of t: y[t][e] x[row of (t, e)]",
    .shape = combine_shape, .forward = combine_forward, .backward = combine_backward};
const struct nm__op nm__op_sigmoid = {.name = "sigmoid", .formula = "y = 1 / (1 + e^-x)",
                                      .shape = nm__same_shape, .forward = sigmoid_forward,
                                      .backward = sigmoid_backward};
const struct nm__op nm__op_row_scale = {.name = "row_scale",
                                        .formula = "z[i] = y[i] x[i], one y a row",
                                        .shape = row_scale_shape, .forward = row_scale_forward,
                                        .backward = row_scale_backward};
