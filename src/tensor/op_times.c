/* op_times.c - one forward of every row of the op table, timed. Element-wise operations run over
 * matrices of 64 MiB, so that no cache holds them and memory is their limit; products and
 * attention have the shapes of a model of half a billion weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/moe.h"
#include "tensor/ops.h"

enum { BIG = 4096, REPS = 5, VALUES = BIG * BIG };

/* What an op needs besides x [rows, cols]; `each` is the arithmetic an element of x (of the result
 * where x is empty), 2 k for a product over k. */
struct row {
  enum nm__op_id id;
  int64_t rows, cols, out;         /* out: rows of w */
  double each;
  bool y, w, bias, y_row, y_column;
  int64_t n_ids;
  int n_head, n_kv, hd, n_expert, k;
};

static const struct row rows[] = {
    {.id = NM__OP_EMBED, .cols = 1024, .out = 16384, .w = true, .n_ids = 16384},
    {.id = NM__OP_MATMUL, .rows = 512, .cols = 896, .out = 4864, .each = 2.0 * 4864, .w = true},
    {.id = NM__OP_ADD, .rows = BIG, .cols = BIG, .each = 1, .y = true},
    {.id = NM__OP_SCALE, .rows = BIG, .cols = BIG, .each = 1},
    {.id = NM__OP_SOFT_CAP, .rows = BIG, .cols = BIG, .each = 3},
    {.id = NM__OP_RMSNORM, .rows = BIG, .cols = BIG, .each = 4, .w = true, .out = 1},
    {.id = NM__OP_LAYERNORM, .rows = BIG, .cols = BIG, .each = 7, .w = true, .out = 1,
     .bias = true},
    {.id = NM__OP_ACT, .rows = BIG, .cols = BIG, .each = 4},
    {.id = NM__OP_ACT_MUL, .rows = BIG, .cols = BIG, .each = 5, .y = true},
    {.id = NM__OP_UNPERMUTE, .rows = BIG, .cols = BIG, .hd = 64},
    {.id = NM__OP_ROPE, .rows = BIG, .cols = BIG, .each = 3, .hd = 64},
    {.id = NM__OP_KV_APPEND, .rows = BIG / 2, .cols = BIG, .y = true, .n_kv = 64, .hd = 64},
    {.id = NM__OP_ATTENTION, .rows = 512, .cols = 896, .each = 4 * 256.5, .n_head = 14, .n_kv = 2,
     .hd = 64},
    {.id = NM__OP_GATHER, .rows = BIG, .cols = BIG, .n_ids = BIG},
    {.id = NM__OP_SOFTMAX, .rows = BIG, .cols = BIG, .each = 5},
    {.id = NM__OP_TOP_K, .rows = 65536, .cols = 64, .each = 1, .k = 4},
    {.id = NM__OP_EXPERTS, .rows = 1024, .cols = 896, .out = 1216, .each = 2.0 * 1216, .w = true,
     .n_expert = 8, .k = 2},
    {.id = NM__OP_COMBINE, .rows = BIG, .cols = BIG, .each = 2, .n_expert = 8, .k = 2},
    {.id = NM__OP_SIGMOID, .rows = BIG, .cols = BIG, .each = 3},
    {.id = NM__OP_ROW_SCALE, .rows = BIG, .cols = BIG, .each = 1, .y_column = true},
    {.id = NM__OP_MUL, .rows = BIG, .cols = BIG, .each = 1, .y = true},
    {.id = NM__OP_SCATTER, .rows = BIG, .cols = BIG, .each = 1, .n_ids = BIG},
    {.id = NM__OP_ADD_VEC, .rows = BIG, .cols = BIG, .each = 2, .y_row = true, .n_ids = BIG},
    {.id = NM__OP_GUMBEL, .rows = 256, .cols = BIG, .each = 4},
    {.id = NM__OP_CROSS_ENTROPY, .rows = BIG, .cols = BIG, .each = 3, .n_ids = BIG},
    {.id = NM__OP_KL, .rows = 1024, .cols = BIG, .each = 8, .y = true},
    {.id = NM__OP_BCE, .rows = 1024, .cols = BIG, .each = 6, .y = true},
    {.id = NM__OP_MSE, .rows = BIG, .cols = BIG, .each = 3, .y = true},
    {.id = NM__OP_HUBER, .rows = BIG, .cols = BIG, .each = 4, .y = true},
    {.id = NM__OP_COSINE, .rows = BIG, .cols = BIG, .each = 6, .y = true},
    {.id = NM__OP_INFO_NCE, .rows = 512, .cols = 1024, .each = 2 * 512, .y = true},
    {.id = NM__OP_WSUM, .rows = VALUES, .cols = 1, .each = 2},
};

struct work {
  struct nm__ops o;
  float *x, *y;                    /* [VALUES] each, random below 1 */
  int32_t *ids;                    /* [VALUES / 64]: 0, 1, 2, ... */
  struct nm__kv kv;
  struct nm__span span;
  struct nm__w experts[8];
  struct nm__route route;
  int32_t *pairs[3], firsts[9];
};

static struct nm__w matrix(const float *d, int64_t n, int64_t cols) {
  return (struct nm__w){(const uint8_t *)d, NM__F32, n, cols, sizeof(float) * (size_t)cols};
}

/* Position t goes through expert t mod (E / 2) and through that one's neighbour E / 2 on. */
static void make_route(struct work *w, const struct row *r) {
  int E = r->n_expert, half = E / 2;
  int64_t T = r->rows / 2, at = 0;
  w->route = (struct nm__route){E, 2, T, w->pairs[0], w->pairs[1], w->pairs[2], w->firsts};
  for (int e = 0; e < E; e++) {
    w->firsts[e] = (int32_t)at;
    for (int64_t t = e % half; t < T; t += half, at++) {
      int64_t pair = 2 * t + e / half;
      w->route.expert[pair] = e;
      w->route.slot[pair] = (int32_t)at;
      w->route.pos[at] = (int32_t)t;
    }
  }
  w->firsts[E] = (int32_t)at;
}

static struct nm__op_args args_of(struct work *w, const struct row *r) {
  struct nm__op_args a = {
      .x = {.d = w->x, .rows = r->rows, .cols = r->cols}, .ids = w->ids, .n_ids = r->n_ids,
      .eps = r->id == NM__OP_CROSS_ENTROPY ? 0 : 1e-5f, .n_head = r->n_head, .n_kv = r->n_kv,
      .head_dim = r->hd, .rope_pair = r->hd / 2, .rope_n = r->hd, .rope = w->y, .scale = 0.125f,
      .cap = r->id == NM__OP_ATTENTION ? 0 : 5, .max_keys = (int)r->rows, .spans = &w->span,
      .n_spans = 1, .kv = &w->kv, .weight = w->y, .rows = r->rows, .seed = 1};
  if (r->y) a.y = (struct nm__t){.d = w->y, .rows = r->rows, .cols = r->cols};
  if (r->y_row) a.y = (struct nm__t){.d = w->y, .rows = 1, .cols = r->cols};
  if (r->y_column) a.y = (struct nm__t){.d = w->y, .rows = r->rows, .cols = 1};
  if (r->w && !r->n_expert) a.w = matrix(w->y, r->out, r->cols);
  if (r->bias) a.bias = matrix(w->y, 1, r->cols);
  if (r->k && !r->n_expert) a.rows = r->k;
  if (r->id == NM__OP_WSUM) a.rows = 1;
  w->span = (struct nm__span){.n = (int)r->rows};
  w->kv = (struct nm__kv){.n_layer = 1, .n_slots = r->rows, .width = (int64_t)r->n_kv * r->hd,
                           .k = w->y, .v = w->y + VALUES / 2};
  if (r->id == NM__OP_KV_APPEND) w->kv.k = w->x + VALUES / 2;
  if (!r->n_expert) return a;
  make_route(w, r);
  a.route = &w->route;
  a.experts = w->experts;
  for (int e = 0; e < r->n_expert && r->w; e++)
    w->experts[e] = matrix(w->y + (size_t)(e * r->out * r->cols), r->out, r->cols);
  if (r->id == NM__OP_COMBINE)
    a.y = (struct nm__t){.d = w->y, .rows = r->rows / 2, .cols = r->n_expert};
  return a;
}

/* Floats that must be read and written: all inputs once, the result once. */
static double floats_of(const struct row *r, const struct nm__op_args *a, const struct nm__t *z) {
  double n = (double)(z->rows * z->cols), x = (double)(r->rows * r->cols);
  if (r->id == NM__OP_EMBED || r->id == NM__OP_GATHER) return 2 * n;
  if (r->id == NM__OP_ATTENTION) return n + x + 2.0 * (double)(r->rows * a->kv->width);
  if (r->id == NM__OP_KV_APPEND) return 4 * x;
  double w = r->w ? (double)(r->out * r->cols) * (r->n_expert ? r->n_expert : 1) : 0;
  return x + n + (double)(a->y.rows * a->y.cols) + w;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int time_row(struct work *w, const struct row *r, nm_op_time *out, nm_err *err) {
  struct nm__op_args a = args_of(w, r);
  double t[REPS];
  struct nm__t z = {0};
  for (int i = 0; i < REPS; i++) {
    w->o.arena.used = 0;
    double t0 = nm__now();
    z = nm__op(&w->o, r->id, &a);
    t[i] = nm__now() - t0;
    if (w->o.err.status) {
      if (err) *err = w->o.err;
      return w->o.err.status;
    }
  }
  qsort(t, REPS, sizeof *t, by_value);
  const struct nm__op *op = nm__op_table[r->id];
  double n = r->rows ? (double)(r->rows * r->cols) : (double)(z.rows * z.cols);
  *out = (nm_op_time){.name = op->name, .formula = op->formula, .seconds = t[REPS / 2],
                      .flops = r->each * n, .bytes = 4 * floats_of(r, &a, &z)};
  snprintf(out->shape, sizeof out->shape, r->out > 1 ? "%lld x %lld x %lld" : "%lld x %lld",
           (long long)(r->rows ? r->rows : r->n_ids), (long long)r->cols, (long long)r->out);
  return NM_OK;
}

static int prepare(struct work *w, const nm_engine_opts *o, nm_err *err) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  w->o.mode = NM__RUN;
  w->o.bf16 = o->act && !strcmp(o->act, "bf16");
  w->o.kern = nm__kern_find(o->kernels);
  if (!w->o.kern)
    return nm__fail(err, NM_EUSAGE, "kernels '%.40s' are not available here", o->kernels);
  int st = nm__pool_new(o->threads ? o->threads : (int)(cores > 0 ? cores : 1), &w->o.pool, err);
  if (!st) st = nm__arena_init(&w->o.arena, sizeof(float) * (size_t)VALUES * 3, err);
  if (st) return st;
  w->x = nm__alloc(VALUES, sizeof *w->x);
  w->y = nm__alloc(VALUES, sizeof *w->y);
  w->ids = nm__alloc(VALUES / 64, sizeof *w->ids);
  bool good = w->x && w->y && w->ids;
  for (int i = 0; i < 3 && good; i++) good = (w->pairs[i] = nm__alloc(BIG, sizeof(int32_t)));
  if (!good) return nm__fail_memory(err, "the matrices", sizeof(float) * (size_t)VALUES * 2);
  for (int64_t i = 0; i < VALUES / 64; i++) w->ids[i] = (int32_t)i;
  for (int64_t i = 0; i < VALUES; i += 2) {
    uint64_t u = nm__rand_at(1, 2, (uint64_t)i);
    for (int k = 0; k < 2; k++, u >>= 32) {
      float v = (float)(u & 0xffffff) * 0x1p-24f;
      w->x[i + k] = v;
      w->y[VALUES - 1 - i - k] = v;
    }
  }
  return NM_OK;
}

int nm_op_times(const nm_engine_opts *o, const nm_progress *p, nm_op_time **out, int *n,
                nm_err *err) {
  const nm_engine_opts none = {0};
  struct work w = {0};
  int N = (int)(sizeof rows / sizeof *rows);
  *n = 0;
  *out = nm__alloc((size_t)N, sizeof **out);
  int st = *out ? prepare(&w, o ? o : &none, err) : nm__fail_memory(err, "the times", 0);
  for (int i = 0; i < N && !st; i++) {
    st = time_row(&w, &rows[i], &(*out)[i], err);
    if (!st) st = nm__progress(p, "timing operations", i + 1, N, err);
  }
  *n = st ? 0 : N;
  nm__pool_free(w.o.pool);
  nm__arena_done(&w.o.arena);
  free(w.x);
  free(w.y);
  free(w.ids);
  for (int i = 0; i < 3; i++) free(w.pairs[i]);
  if (st) {
    free(*out);
    *out = NULL;
  }
  return st;
}
