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

static float *row(const struct nm__t *t, int64_t i) { return t->d + i * t->cols; }

bool nm__route_take(struct nm__ops *o, int64_t T, int n_expert, int k, struct nm__route *r) {
  size_t pairs = (size_t)T * (size_t)k, bytes = sizeof(int32_t);
  int32_t *at = nm__arena_take(&o->arena, bytes * (3 * pairs + (size_t)n_expert + 1));
  *r = (struct nm__route){.n_expert = n_expert, .k = k, .T = T};
  if (!at) {
    nm__fail(&o->err, NM_EMEMORY, "the arena is too small for the routes to the experts");
    return false;
  }
  if (o->mode == NM__MEASURE) return true;             /* nothing stands behind the address */
  r->expert = at;
  r->slot = at + pairs;
  r->pos = at + 2 * pairs;
  r->first = at + 3 * pairs;
  return true;
}

/* ---- softmax over each row ----------------------------------------------- */

bool nm__softmax_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return a->x.cols > 0 && a->x.cols <= 1 << 24;
}

void nm__softmax_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  memcpy(y->d, a->x.d, sizeof(float) * (size_t)(y->rows * y->cols));
  for (int64_t i = 0; i < y->rows; i++) o->kern->softmax(row(y, i), (int)y->cols);
}

/* ---- top_k: the choice, and the weights of the chosen ------------------------ */

bool nm__top_k_shape(const struct nm__op_args *a, int64_t out[2]) {
  const struct nm__route *r = a->route;
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return r && r->T == a->x.rows && r->n_expert == a->x.cols && r->k > 0 && r->k <= r->n_expert;
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

void nm__top_k_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o;
  struct nm__route *r = a->route;
  for (int64_t t = 0; t < y->rows; t++) {
    int32_t *expert = r->expert + t * r->k;
    const float *x = row(&a->x, t);
    float *w = row(y, t), sum = 0;
    choose(x, w, r->n_expert, r->k, expert);
    for (int i = 0; i < r->k; i++) sum += w[expert[i]] = x[expert[i]];
    for (int i = 0; i < r->k && a->renormalise && sum > 0; i++) w[expert[i]] /= sum;
  }
  group_by_expert(r);
}

/* ---- experts: each group of rows times its expert's matrix -------------------- */

bool nm__experts_shape(const struct nm__op_args *a, int64_t out[2]) {
  const struct nm__route *r = a->route;
  if (!r || !a->experts || !a->experts[0].data) return false;
  out[0] = a->x.rows;
  out[1] = a->experts[0].rows;
  return a->x.rows == r->T * r->k && a->x.cols == a->experts[0].cols;
}

void nm__experts_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  const struct nm__route *r = a->route;
  size_t mark = o->arena.used, bytes = 0;
  for (int e = 0; e < r->n_expert; e++) {
    size_t n = nm__matmul_scratch(o, a->experts[e]);
    if (n > bytes) bytes = n;
  }
  float *scratch = bytes ? nm__arena_take(&o->arena, bytes) : NULL;
  if (bytes && !scratch)
    nm__fail(&o->err, NM_EMEMORY, "the arena is too small for a tile of an expert");
  for (int e = 0; e < r->n_expert && o->mode != NM__MEASURE && !o->err.status; e++) {
    int64_t first = r->first[e], n = r->first[e + 1] - first;
    if (!n) continue;
    struct nm__op_args one = {.x = {row(&a->x, first), n, a->x.cols}, .w = a->experts[e]};
    struct nm__t out = {row(y, first), n, y->cols};
    nm__matmul(o, &one, &out, scratch);
  }
  o->arena.used = mark;
}

/* ---- combine: the weighted sum of a position's experts -------------------------- */

bool nm__combine_shape(const struct nm__op_args *a, int64_t out[2]) {
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
      const float *x = row(&c->a->x, r->slot[t * r->k + i]);
      float w = row(&c->a->y, t)[r->expert[t * r->k + i]];
      if (i == 0) c->o->kern->mul(row(c->y, t), w, x, c->y->cols);
      else c->o->kern->axpy(row(c->y, t), w, x, c->y->cols);
    }
}

void nm__combine_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, 16, combine_rows, &(struct nm__call){o, a, y, NULL});
}

/* ---- the gate of a shared expert -------------------------------------------------- */

void nm__sigmoid_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o;
  for (int64_t i = 0; i < y->rows * y->cols; i++)
    y->d[i] = (float)(1 / (1 + nm__exp(-(double)a->x.d[i])));
}

bool nm__row_scale_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return a->y.rows == a->x.rows && a->y.cols == 1;
}

void nm__row_scale_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  for (int64_t i = 0; i < y->rows; i++)
    o->kern->mul(row(y, i), a->y.d[i], row(&a->x, i), y->cols);
}
