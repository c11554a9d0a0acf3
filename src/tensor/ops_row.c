/* ops_row.c - operations on rows one by one: sums, norms, activations, rotations, and the
 * append to the cache; each with its backward below it. */
#include "tensor/ops_in.h"

#include <string.h>

bool nm__same_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return true;
}

bool nm__pair_shape(const struct nm__op_args *a, int64_t out[2]) {
  nm__same_shape(a, out);
  return a->x.rows == a->y.rows && a->x.cols == a->y.cols;
}

/* Elements of rows b..e of a tensor of the result's width. */
#define AT(p) ((p) + b * c->y->cols)
#define N ((e - b) * c->y->cols)
#define ROW_FN(name) \
  static void name(struct nm__call *c, int64_t b, int64_t e); \
  static void name##_tile(void *v, int64_t b, int64_t e, int thread) { \
    (void)thread; \
    name(v, b, e); \
  } \
  static void name(struct nm__call *c, int64_t b, int64_t e)

/* ---- add: z = x + y --------------------------------------------------- */

ROW_FN(add_rows) { c->o->kern->add(AT(c->y->d), AT(c->a->x.d), AT(c->a->y.d), N); }
static void add_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, add_rows_tile);
}
ROW_FN(add_back) {
  if (c->b->dx) c->o->kern->add(AT(c->b->dx), AT(c->b->dx), AT(c->b->d_out), N);
  if (c->b->dy) c->o->kern->add(AT(c->b->dy), AT(c->b->dy), AT(c->b->d_out), N);
}
static void add_backward(struct nm__ops *o, const struct nm__op_args *a,
                         const struct nm__back *b) {
  nm__back_by_rows(o, a, b, add_back_tile);
}

/* ---- scale: y = s x --------------------------------------------------- */

ROW_FN(scale_rows) { c->o->kern->mul(AT(c->y->d), c->a->scale, AT(c->a->x.d), N); }
static void scale_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, scale_rows_tile);
}
ROW_FN(scale_back) {
  if (c->b->dx) c->o->kern->axpy(AT(c->b->dx), c->a->scale, AT(c->b->d_out), N);
}
static void scale_backward(struct nm__ops *o, const struct nm__op_args *a,
                           const struct nm__back *b) {
  nm__back_by_rows(o, a, b, scale_back_tile);
}

/* ---- soft_cap: y = c tanh(x / c) --------------------------------------- */

static bool cap_shape(const struct nm__op_args *a, int64_t out[2]) {
  return nm__same_shape(a, out) && a->cap > 0;
}
ROW_FN(cap_rows) { c->o->kern->soft_cap(AT(c->y->d), c->a->cap, AT(c->a->x.d), N); }
static void cap_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, cap_rows_tile);
}
ROW_FN(cap_back) {
  if (c->b->dx)
    c->o->kern->soft_cap_back(AT(c->b->dx), c->a->cap, AT(c->b->out.d), AT(c->b->d_out), N);
}
static void cap_backward(struct nm__ops *o, const struct nm__op_args *a,
                         const struct nm__back *b) {
  nm__back_by_rows(o, a, b, cap_back_tile);
}

/* ---- norms ------------------------------------------------------------- */

static bool norm_shape(const struct nm__op_args *a, int64_t out[2]) {
  nm__same_shape(a, out);
  return a->w.data && a->w.cols == a->x.cols && (!a->bias.data || a->bias.cols == a->x.cols);
}

ROW_FN(norm_rows) {
  int d = (int)c->y->cols;
  const float *w = c->scratch, *bias = c->a->bias.data ? c->scratch + d : NULL;
  for (int64_t i = b; i < e; i++)
    if (bias) c->o->kern->layernorm(nm__row(c->y, i), nm__row(&c->a->x, i), w, bias, d, c->a->eps);
    else c->o->kern->rmsnorm(nm__row(c->y, i), nm__row(&c->a->x, i), w, d, c->a->eps);
}

static void norm_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used;
  float *w = nm__scratch(o, 2 * (size_t)y->cols, "a norm's weight");
  if (w && o->mode != NM__MEASURE) {
    o->kern->to_f32(w, a->w.data, y->cols, a->w.type);
    if (a->bias.data) o->kern->to_f32(w + y->cols, a->bias.data, y->cols, a->bias.type);
    nm__rows_parallel(o, y->rows, nm__grain(y->cols), norm_rows_tile,
                      &(struct nm__call){o, a, y, NULL, w});
  }
  o->arena.used = mark;
}

ROW_FN(norm_back) {
  int d = (int)c->y->cols;
  for (int64_t i = b; i < e; i++) {
    float *dx = c->b->dx + i * d, *x = nm__row(&c->a->x, i);
    const float *dz = c->b->d_out + i * d;
    if (c->a->bias.data) c->o->kern->layernorm_back(dx, x, c->scratch, dz, d, c->a->eps);
    else c->o->kern->rmsnorm_back(dx, x, c->scratch, dz, d, c->a->eps);
  }
}

/* Gradients of weight and bias are sums over rows: blocks of BLOCK rows, then over blocks in
 * order, so that threads change nothing. */
enum { BLOCK = 64 };
static void norm_block(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct nm__call *c = v;
  int d = (int)c->y->cols;
  for (int64_t k = begin; k < end; k++) {
    float *dw = c->scratch + k * 2 * d, *db = dw + d;
    memset(dw, 0, 2 * sizeof(float) * (size_t)d);
    for (int64_t i = k * BLOCK; i < (k + 1) * BLOCK && i < c->y->rows; i++) {
      const float *dz = c->b->d_out + i * d;
      c->o->kern->norm_weight_back(dw, nm__row(&c->a->x, i), dz, d, c->a->eps,
                                   c->a->bias.data != NULL);
      c->o->kern->add(db, db, dz, d);
    }
  }
}

static void norm_backward(struct nm__ops *o, const struct nm__op_args *a,
                          const struct nm__back *b) {
  size_t mark = o->arena.used, d = (size_t)b->out.cols;
  int64_t blocks = (b->out.rows + BLOCK - 1) / BLOCK;
  float *w = nm__scratch(o, d, "a norm's weight");
  float *sums = b->dw || b->dbias ? nm__scratch(o, (size_t)blocks * 2 * d, "sums of a norm") : NULL;
  if (!o->err.status && o->mode != NM__MEASURE) {
    struct nm__call c = {o, a, &b->out, b, w};
    o->kern->to_f32(w, a->w.data, b->out.cols, a->w.type);
    if (b->dx) nm__rows_parallel(o, b->out.rows, nm__grain(b->out.cols), norm_back_tile, &c);
    c.scratch = sums;
    if (sums) nm__rows_parallel(o, blocks, 1, norm_block, &c);
    for (int64_t k = 0; sums && k < blocks; k++) {
      if (b->dw) o->kern->add(b->dw, b->dw, sums + (size_t)k * 2 * d, (int64_t)d);
      if (b->dbias) o->kern->add(b->dbias, b->dbias, sums + (size_t)k * 2 * d + d, (int64_t)d);
    }
  }
  o->arena.used = mark;
}

/* ---- activations: y = act(x), z = act(x) * y ---------------------------- */

ROW_FN(act_rows) {
  if (c->a->y.d) c->o->kern->act_mul(AT(c->y->d), AT(c->a->x.d), AT(c->a->y.d), N, c->a->act);
  else c->o->kern->act(AT(c->y->d), AT(c->a->x.d), N, c->a->act);
}
static void act_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, act_rows_tile);
}
ROW_FN(act_back) {
  const struct nm__back *g = c->b;
  if (c->a->y.d)
    c->o->kern->act_mul_back(g->dx ? AT(g->dx) : NULL, g->dy ? AT(g->dy) : NULL, AT(c->a->x.d),
                             AT(c->a->y.d), AT(g->d_out), N, c->a->act);
  else if (g->dx) c->o->kern->act_back(AT(g->dx), AT(c->a->x.d), AT(g->d_out), N, c->a->act);
}
static void act_backward(struct nm__ops *o, const struct nm__op_args *a,
                         const struct nm__back *b) {
  nm__back_by_rows(o, a, b, act_back_tile);
}

/* ---- unpermute: GGUF's neighbouring-pair row order to Hugging Face's --- */

static bool heads_shape(const struct nm__op_args *a, int64_t out[2]) {
  nm__same_shape(a, out);
  return a->head_dim > 0 && a->x.cols % a->head_dim == 0;
}

/* y[h][j] = x[h][2j], y[h][j + n/2] = x[h][2j + 1]: q and k are shown, rotated and cached
 * in Hugging Face order whatever the file's. */
ROW_FN(unpermute_rows) {
  int hd = c->a->head_dim, half = hd / 2;
  for (int64_t i = b; i < e; i++)
    for (int64_t h = 0; h < c->y->cols; h += hd) {
      const float *x = nm__row(&c->a->x, i) + h;
      float *y = nm__row(c->y, i) + h;
      for (int j = 0; j < half; j++) {
        y[j] = x[2 * j];
        y[j + half] = x[2 * j + 1];
      }
    }
}
static void unpermute_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, unpermute_rows_tile);
}
ROW_FN(unpermute_back) {
  int hd = c->a->head_dim, half = hd / 2;
  for (int64_t k = b * c->y->cols; k < e * c->y->cols; k += hd)
    for (int j = 0; j < half; j++) {
      c->b->dx[k + 2 * j] += c->b->d_out[k + j];
      c->b->dx[k + 2 * j + 1] += c->b->d_out[k + j + half];
    }
}
static void unpermute_backward(struct nm__ops *o, const struct nm__op_args *a,
                               const struct nm__back *b) {
  if (b->dx) nm__back_by_rows(o, a, b, unpermute_back_tile);
}

/* ---- rope: rotate the pairs (j, j + rope_pair) of every head ----------- */

ROW_FN(rope_rows) {
  int half = c->a->rope_n / 2, pair = c->a->rope_pair;
  for (int64_t i = b; i < e; i++) {
    const float *cs = c->a->rope + i * c->a->rope_n;
    memcpy(nm__row(c->y, i), nm__row(&c->a->x, i), sizeof(float) * (size_t)c->y->cols);
    for (int64_t h = 0; h < c->y->cols; h += c->a->head_dim) {
      float *y = nm__row(c->y, i) + h;
      for (int j = 0; j < half; j++) {
        float u = y[j], w = y[j + pair], co = cs[2 * j], si = cs[2 * j + 1];
        y[j] = u * co - w * si;
        y[j + pair] = u * si + w * co;
      }
    }
  }
}
static void rope_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__by_rows(o, a, y, rope_rows_tile);
}
/* The rotation back; dimensions that are not rotated pass through. */
ROW_FN(rope_back) {
  int half = c->a->rope_n / 2, pair = c->a->rope_pair, hd = c->a->head_dim;
  for (int64_t i = b; i < e; i++) {
    const float *cs = c->a->rope + i * c->a->rope_n;
    for (int64_t h = i * c->y->cols; h < (i + 1) * c->y->cols; h += hd) {
      float *dx = c->b->dx + h;
      const float *dz = c->b->d_out + h;
      for (int j = 0; j < half; j++) {
        float co = cs[2 * j], si = cs[2 * j + 1];
        dx[j] += dz[j] * co + dz[j + pair] * si;
        dx[j + pair] += dz[j + pair] * co - dz[j] * si;
      }
      for (int j = 0; j < hd; j++)
        if (j % pair >= half || j >= 2 * pair) dx[j] += dz[j];
    }
  }
}
static void rope_backward(struct nm__ops *o, const struct nm__op_args *a,
                          const struct nm__back *b) {
  if (b->dx) nm__back_by_rows(o, a, b, rope_back_tile);
}

/* ---- kv_append: rows of k (x) and v (y) into the cache; returns k ------ */

static bool append_shape(const struct nm__op_args *a, int64_t out[2]) {
  return nm__pair_shape(a, out) && a->kv && a->kv->width == a->x.cols;
}

/* First element of the span's rows in the cache. */
static size_t append_at(const struct nm__op_args *a, const struct nm__span *sp) {
  return ((size_t)a->layer * (size_t)a->kv->n_slots +
          (size_t)(sp->slot + sp->first - sp->n_prefix)) * (size_t)a->kv->width;
}

static void to_half(uint16_t *out, const float *x, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] = nm__f32_to_half(x[i]);
}

static void append_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o, (void)y;
  for (int s = 0; s < a->n_spans; s++) {
    const struct nm__span *sp = &a->spans[s];
    size_t at = append_at(a, sp), n = (size_t)(a->kv->width * sp->n);
    const float *k = nm__row(&a->x, sp->row0), *v = nm__row(&a->y, sp->row0);
    if (a->kv->half_k) to_half(a->kv->k16 + at, k, n);
    else memcpy(a->kv->k + at, k, sizeof(float) * n);
    if (a->kv->half_v) to_half(a->kv->v16 + at, v, n);
    else memcpy(a->kv->v + at, v, sizeof(float) * n);
  }
}

/* The cache's gradient, which the attention of this and of later passes has left there, goes
 * to the rows that were appended. The slots are clean again afterwards. */
static void append_backward(struct nm__ops *o, const struct nm__op_args *a,
                            const struct nm__back *b) {
  if (o->mode == NM__MEASURE) return;
  for (int s = 0; s < a->n_spans; s++) {
    const struct nm__span *sp = &a->spans[s];
    size_t at = append_at(a, sp);
    int64_t n = a->kv->width * sp->n, row = a->kv->width * sp->row0;
    if (b->dx) o->kern->add(b->dx + row, b->dx + row, a->kv->dk + at, n);
    if (b->dy) o->kern->add(b->dy + row, b->dy + row, a->kv->dv + at, n);
    memset(a->kv->dk + at, 0, sizeof(float) * (size_t)n);
    memset(a->kv->dv + at, 0, sizeof(float) * (size_t)n);
  }
}

/* ---- the rows of the table ---------------------------------------------- */

const struct nm__op nm__op_add = {.name = "add", .formula = "z = x + y", .shape = nm__pair_shape,
                                  .forward = add_forward, .backward = add_backward};
const struct nm__op nm__op_scale = {.name = "scale", .formula = "y = s x", .shape = nm__same_shape,
                                    .forward = scale_forward, .backward = scale_backward};
const struct nm__op nm__op_soft_cap = {.name = "soft_cap", .formula = "y = c tanh(x / c)",
                                       .shape = cap_shape, .forward = cap_forward,
                                       .backward = cap_backward};
const struct nm__op nm__op_rmsnorm = {.name = "rmsnorm",
                                      .formula = "y = x / sqrt(mean x^2 + eps) * w",
                                      .shape = norm_shape, .forward = norm_forward,
                                      .backward = norm_backward, .scratch = true,
                                      .back_scratch = true};
const struct nm__op nm__op_layernorm = {.name = "layernorm",
                                        .formula = "y = (x - mean) / sqrt(var + eps) * w + bias",
                                        .shape = norm_shape, .forward = norm_forward,
                                        .backward = norm_backward, .scratch = true,
                                      .back_scratch = true};
const struct nm__op nm__op_act = {.name = "act", .formula = "y = act(x)", .shape = nm__same_shape,
                                  .forward = act_forward, .backward = act_backward};
const struct nm__op nm__op_act_mul = {.name = "act_mul", .formula = "z = act(x) * y",
                                      .shape = nm__pair_shape, .forward = act_forward,
                                      .backward = act_backward};
const struct nm__op nm__op_unpermute = {.name = "unpermute",
                                        .formula = "y[j] = x[2j], y[j+n/2] = x[2j+1] in every head",
                                        .shape = heads_shape, .forward = unpermute_forward,
                                        .backward = unpermute_backward};
const struct nm__op nm__op_rope = {.name = "rope",
                                   .formula = "rotate (y[j], y[j+pair]) by pos * theta_j",
                                   .shape = heads_shape, .forward = rope_forward,
                                   .backward = rope_backward};
const struct nm__op nm__op_kv_append = {.name = "kv_append",
                                        .formula = "cache[layer][slot] = (x, y)",
                                        .shape = append_shape, .forward = append_forward,
                                        .backward = append_backward, .in_place = true,
                                        .always = true};
