/* ops.c - the table of operations and their plain forwards. Attention, the one
 * large op, is in attention.c, those of experts are in moe.c; arithmetic is in the kernels. */
#include "tensor/moe.h"

#include <stdlib.h>
#include <string.h>

struct nm__w nm__w_rows(struct nm__w w, int64_t first, int64_t n) {
  w.data += (size_t)first * w.row_bytes;
  w.rows = n;
  return w;
}

size_t nm__kv_bytes(int n_layer, int64_t n_slots, int64_t width) {
  return 2 * sizeof(float) * (size_t)n_layer * (size_t)n_slots * (size_t)width;
}

int nm__kv_init(struct nm__kv *kv, int n_layer, int64_t n_slots, int64_t width, nm_err *err) {
  size_t bytes = nm__kv_bytes(n_layer, n_slots, width);
  *kv = (struct nm__kv){n_layer, n_slots, width, NULL, NULL};
  kv->k = nm__alloc(bytes / 2, 1);
  kv->v = nm__alloc(bytes / 2, 1);
  if (kv->k && kv->v) return NM_OK;
  nm__kv_done(kv);
  return nm__fail_memory(err, "the KV cache", bytes);
}

void nm__kv_done(struct nm__kv *kv) {
  free(kv->k);
  free(kv->v);
  *kv = (struct nm__kv){0};
}

/* ---- work over rows --------------------------------------------------- */

struct rows_job {
  int64_t n, grain;
  void (*fn)(void *, int64_t, int64_t, int);
  void *arg;
};

static void rows_tile(void *v, int tile, int thread) {
  struct rows_job *j = v;
  int64_t begin = tile * j->grain, end = begin + j->grain < j->n ? begin + j->grain : j->n;
  j->fn(j->arg, begin, end, thread);
}

void nm__rows_parallel(struct nm__ops *o, int64_t n, int64_t grain,
                       void (*fn)(void *, int64_t, int64_t, int), void *arg) {
  struct rows_job j = {n, grain, fn, arg};
  nm__pool_run(o->pool, (int)((n + grain - 1) / grain), rows_tile, &j);
}

static float *row(const struct nm__t *t, int64_t i) { return t->d + i * t->cols; }

/* Rows per tile so that a tile is worth handing out. */
static int64_t grain_for(int64_t cols) { return cols >= 4096 ? 1 : 4096 / (cols > 0 ? cols : 1); }

static bool same_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->x.cols;
  return true;
}

/* ---- embed: y[i] = w[ids[i]] ------------------------------------------ */

static bool embed_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->n_ids;
  out[1] = a->w.cols;
  return a->w.data != NULL;
}

static void embed_rows(void *v, int64_t begin, int64_t end, int thread) {
  (void)thread;
  struct nm__call *c = v;
  for (int64_t i = begin; i < end; i++)
    c->o->kern->to_f32(row(c->y, i), c->a->w.data + (size_t)c->a->ids[i] * c->a->w.row_bytes,
                       c->a->w.cols, c->a->w.type);
}

static void embed_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), embed_rows, &(struct nm__call){o, a, y, NULL});
}

/* ---- matmul: y = x w^T + bias ----------------------------------------- */

enum { TILE_ROWS = 32 };

static bool matmul_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->x.rows;
  out[1] = a->w.rows;
  return a->w.data && a->x.cols == a->w.cols && (!a->bias.data || a->bias.cols == a->w.rows);
}

static void add_bias(struct nm__call *c, int64_t begin, int64_t end) {
  float b[TILE_ROWS];
  struct nm__w w = c->a->bias;
  size_t unit = (size_t)nm__dtype(w.type)->bytes;      /* vectors are F32, F16 or BF16 */
  nm__dtype(w.type)->to_f32(b, w.data + (size_t)begin * unit, end - begin);
  for (int64_t i = 0; i < c->y->rows; i++) {
    float *y = row(c->y, i) + begin;
    c->o->kern->add(y, y, b, end - begin);
  }
}

/* A tile of weight rows is made f32 once (F32 files: used where it lies) and then serves
 * all positions. */
static void matmul_tile(void *v, int64_t begin, int64_t end, int thread) {
  struct nm__call *c = v;
  const struct nm__op_args *a = c->a;
  const float *w = (const float *)(const void *)(a->w.data + (size_t)begin * a->w.row_bytes);
  if (a->w.type != NM__F32) {
    float *s = c->scratch + (size_t)thread * TILE_ROWS * (size_t)a->w.cols;
    for (int64_t r = begin; r < end; r++)
      c->o->kern->to_f32(s + (r - begin) * a->w.cols, a->w.data + (size_t)r * a->w.row_bytes,
                         a->w.cols, a->w.type);
    w = s;
  }
  c->o->kern->gemm(c->y->d + begin, (size_t)c->y->cols, a->x.d, (size_t)a->x.cols, (int)a->x.rows,
                   w, (size_t)a->w.cols, (int)(end - begin), (int)a->w.cols);
  if (a->bias.data) add_bias(c, begin, end);
}

/* Scratch of the op: one dequantised tile a thread. Taken in measure mode too. */
size_t nm__matmul_scratch(const struct nm__ops *o, struct nm__w w) {
  if (w.type == NM__F32) return 0;
  return sizeof(float) * (size_t)nm__pool_size(o->pool) * TILE_ROWS * (size_t)w.cols;
}

void nm__matmul(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y, float *scratch) {
  nm__rows_parallel(o, a->w.rows, TILE_ROWS, matmul_tile,
                    &(struct nm__call){o, a, y, scratch});
}

static void matmul_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used, bytes = nm__matmul_scratch(o, a->w);
  float *scratch = bytes ? nm__arena_take(&o->arena, bytes) : NULL;
  if (bytes && !scratch) {
    nm__fail(&o->err, NM_EMEMORY, "the arena is too small for a weight tile");
  } else if (o->mode != NM__MEASURE) {
    nm__matmul(o, a, y, scratch);
  }
  o->arena.used = mark;
}

/* ---- add, norms, activations ------------------------------------------ */

static bool pair_shape(const struct nm__op_args *a, int64_t out[2]) {
  same_shape(a, out);
  return a->x.rows == a->y.rows && a->x.cols == a->y.cols;
}

static void add_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  c->o->kern->add(row(c->y, b), row(&c->a->x, b), row(&c->a->y, b), (e - b) * c->y->cols);
}
static void add_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), add_rows, &(struct nm__call){o, a, y, NULL});
}

static void scale_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  c->o->kern->mul(row(c->y, b), c->a->scale, row(&c->a->x, b), (e - b) * c->y->cols);
}
static void scale_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), scale_rows, &(struct nm__call){o, a, y, NULL});
}

static bool cap_shape(const struct nm__op_args *a, int64_t out[2]) {
  return same_shape(a, out) && a->cap > 0;
}
static void cap_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  c->o->kern->soft_cap(row(c->y, b), c->a->cap, row(&c->a->x, b), (e - b) * c->y->cols);
}
static void cap_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), cap_rows, &(struct nm__call){o, a, y, NULL});
}

static bool norm_shape(const struct nm__op_args *a, int64_t out[2]) {
  same_shape(a, out);
  return a->w.data && a->w.cols == a->x.cols && (!a->bias.data || a->bias.cols == a->x.cols);
}

static void norm_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  int d = (int)c->y->cols;
  const float *w = c->scratch, *bias = c->a->bias.data ? c->scratch + d : NULL;
  for (int64_t i = b; i < e; i++)
    if (bias) c->o->kern->layernorm(row(c->y, i), row(&c->a->x, i), w, bias, d, c->a->eps);
    else c->o->kern->rmsnorm(row(c->y, i), row(&c->a->x, i), w, d, c->a->eps);
}

static void norm_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  size_t mark = o->arena.used;
  float *w = nm__arena_take(&o->arena, 2 * sizeof(float) * (size_t)y->cols);
  if (!w) {
    nm__fail(&o->err, NM_EMEMORY, "the arena is too small for a norm's weight");
  } else if (o->mode != NM__MEASURE) {
    o->kern->to_f32(w, a->w.data, y->cols, a->w.type);
    if (a->bias.data) o->kern->to_f32(w + y->cols, a->bias.data, y->cols, a->bias.type);
    nm__rows_parallel(o, y->rows, grain_for(y->cols), norm_rows, &(struct nm__call){o, a, y, w});
  }
  o->arena.used = mark;
}

static void act_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  int64_t n = (e - b) * c->y->cols;
  if (c->a->y.d)
    c->o->kern->act_mul(row(c->y, b), row(&c->a->x, b), row(&c->a->y, b), n, c->a->act);
  else c->o->kern->act(row(c->y, b), row(&c->a->x, b), n, c->a->act);
}
static void act_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), act_rows, &(struct nm__call){o, a, y, NULL});
}

/* ---- unpermute: GGUF's neighbouring-pair row order to Hugging Face's --- */

/* y[h][j] = x[h][2j], y[h][j + n/2] = x[h][2j + 1]: q and k are shown, rotated and cached
 * in Hugging Face order whatever the file's. */
static void unpermute_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  int hd = c->a->head_dim, half = hd / 2;
  for (int64_t i = b; i < e; i++)
    for (int64_t h = 0; h < c->y->cols; h += hd) {
      const float *x = row(&c->a->x, i) + h;
      float *y = row(c->y, i) + h;
      for (int j = 0; j < half; j++) {
        y[j] = x[2 * j];
        y[j + half] = x[2 * j + 1];
      }
    }
}
static bool heads_shape(const struct nm__op_args *a, int64_t out[2]) {
  same_shape(a, out);
  return a->head_dim > 0 && a->x.cols % a->head_dim == 0;
}
static void unpermute_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), unpermute_rows,
                    &(struct nm__call){o, a, y, NULL});
}

/* ---- rope: rotate the pairs (j, j + rope_pair) of every head ----------- */

static void rope_rows(void *v, int64_t b, int64_t e, int thread) {
  (void)thread;
  struct nm__call *c = v;
  int half = c->a->rope_n / 2, pair = c->a->rope_pair;
  for (int64_t i = b; i < e; i++) {
    const float *cs = c->a->rope + i * c->a->rope_n;
    memcpy(row(c->y, i), row(&c->a->x, i), sizeof(float) * (size_t)c->y->cols);
    for (int64_t h = 0; h < c->y->cols; h += c->a->head_dim) {
      float *y = row(c->y, i) + h;
      for (int j = 0; j < half; j++) {
        float u = y[j], w = y[j + pair], co = cs[2 * j], si = cs[2 * j + 1];
        y[j] = u * co - w * si;
        y[j + pair] = u * si + w * co;
      }
    }
  }
}
static void rope_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  nm__rows_parallel(o, y->rows, grain_for(y->cols), rope_rows, &(struct nm__call){o, a, y, NULL});
}

/* ---- kv_append: rows of k (x) and v (y) into the cache; returns k ------ */

static bool append_shape(const struct nm__op_args *a, int64_t out[2]) {
  return pair_shape(a, out) && a->kv && a->kv->width == a->x.cols;
}

static void append_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o, (void)y;
  size_t width = (size_t)a->kv->width, layer = (size_t)a->layer * (size_t)a->kv->n_slots;
  for (int s = 0; s < a->n_spans; s++) {
    const struct nm__span *sp = &a->spans[s];
    size_t slot = layer + (size_t)(sp->slot + sp->first - sp->n_prefix);
    size_t bytes = sizeof(float) * width * (size_t)sp->n;
    memcpy(a->kv->k + slot * width, row(&a->x, sp->row0), bytes);
    memcpy(a->kv->v + slot * width, row(&a->y, sp->row0), bytes);
  }
}

/* ---- gather: y[i] = x[ids[i]] ------------------------------------------ */

static bool gather_shape(const struct nm__op_args *a, int64_t out[2]) {
  out[0] = a->n_ids;
  out[1] = a->x.cols;
  return true;
}
static void gather_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y) {
  (void)o;
  for (int64_t i = 0; i < y->rows; i++)
    memcpy(row(y, i), row(&a->x, a->ids[i]), sizeof(float) * (size_t)y->cols);
}

/* ---- the table --------------------------------------------------------- */

const struct nm__op nm__op_table[NM__N_OPS] = {
    [NM__OP_EMBED] = {"embed", "y[i] = w[ids[i]]", embed_shape, embed_forward, NULL, false},
    [NM__OP_MATMUL] = {"matmul", "y = x w^T + bias", matmul_shape, matmul_forward, NULL, false},
    [NM__OP_ADD] = {"add", "z = x + y", pair_shape, add_forward, NULL, false},
    [NM__OP_SCALE] = {"scale", "y = s x", same_shape, scale_forward, NULL, false},
    [NM__OP_SOFT_CAP] = {"soft_cap", "y = c tanh(x / c)", cap_shape, cap_forward, NULL, false},
    [NM__OP_RMSNORM] = {"rmsnorm", "y = x / sqrt(mean x^2 + eps) * w", norm_shape, norm_forward,
                        NULL, false},
    [NM__OP_LAYERNORM] = {"layernorm", "y = (x - mean) / sqrt(var + eps) * w + bias", norm_shape,
                          norm_forward, NULL, false},
    [NM__OP_ACT] = {"act", "y = act(x)", same_shape, act_forward, NULL, false},
    [NM__OP_ACT_MUL] = {"act_mul", "z = act(x) * y", pair_shape, act_forward, NULL, false},
    [NM__OP_UNPERMUTE] = {"unpermute", "y[j] = x[2j], y[j+n/2] = x[2j+1] in every head",
                          heads_shape, unpermute_forward, NULL, false},
    [NM__OP_ROPE] = {"rope", "rotate (y[j], y[j+pair]) by pos * theta_j", heads_shape,
                     rope_forward, NULL, false},
    [NM__OP_KV_APPEND] = {"kv_append", "cache[layer][slot] = (x, y)", append_shape, append_forward,
                          NULL, true},
    [NM__OP_ATTENTION] = {"attention", "y = softmax(cap(scale x k^T), causal or not, window) v",
                          nm__attention_shape, nm__attention_forward, NULL, false},
    [NM__OP_GATHER] = {"gather", "y[i] = x[ids[i]]", gather_shape, gather_forward, NULL, false},
    [NM__OP_SOFTMAX] = {"softmax", "y = e^x / sum e^x in every row", nm__softmax_shape,
                        nm__softmax_forward, NULL, false},
    [NM__OP_TOP_K] = {"top_k", "y = x where x is among the k largest, else 0; may be made to sum "
                      "to 1", nm__top_k_shape, nm__top_k_forward, NULL, false},
    [NM__OP_EXPERTS] = {"experts", "y[i] = x[i] w(expert of row i)^T", nm__experts_shape,
                        nm__experts_forward, NULL, false},
    [NM__OP_COMBINE] = {"combine", "z[t] = sum over experts e of t: y[t][e] x[row of (t, e)]",
                        nm__combine_shape, nm__combine_forward, NULL, false},
    [NM__OP_SIGMOID] = {"sigmoid", "y = 1 / (1 + e^-x)", same_shape, nm__sigmoid_forward, NULL,
                        false},
    [NM__OP_ROW_SCALE] = {"row_scale", "z[i] = y[i] x[i], one y a row", nm__row_scale_shape,
                          nm__row_scale_forward, NULL, false},
};

struct nm__t nm__op(struct nm__ops *o, enum nm__op_id id, const struct nm__op_args *a) {
  const struct nm__op *op = &nm__op_table[id];
  int64_t shape[2] = {0, 0};
  bool fits = op->shape(a, shape);
  struct nm__t y = {NULL, shape[0], shape[1]};
  if (o->err.status) return y;
  if (!fits) {
    nm__fail(&o->err, NM_EFAIL, "op %s: shapes do not fit ([%lld, %lld] with [%lld, %lld])",
             op->name, (long long)a->x.rows, (long long)a->x.cols, (long long)a->w.rows,
             (long long)a->w.cols);
    return y;
  }
  if (o->mode == NM__RECORD && !op->backward) {
    nm__fail(&o->err, NM_EFAIL, "op %s has no backward yet, so it cannot be recorded", op->name);
    return y;
  }
  y.d = op->in_place ? a->x.d
                     : nm__arena_take(&o->arena, sizeof(float) * (size_t)y.rows * (size_t)y.cols);
  if (!y.d) {
    nm__fail(&o->err, NM_EMEMORY, "the activation arena (%zu bytes) is too small at op %s",
             o->arena.cap, op->name);
    return y;
  }
  /* In measure mode only the ops with scratch of their own are called, to count it. */
  bool scratch = op->forward == matmul_forward || op->forward == norm_forward ||
                 op->forward == nm__attention_forward || op->forward == nm__experts_forward;
  if (o->mode != NM__MEASURE || scratch) op->forward(o, a, &y);
  if (o->err.status) y.d = NULL;   /* no room for its scratch */
  return y;
}
