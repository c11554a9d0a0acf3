/* ops.c - the table of operations and how one is run. The operations themselves are in
 * ops_linear.c, ops_row.c, attention.c, moe.c, ops_pick.c and ops_loss.c; arithmetic is in the
 * kernels. */
#include "tensor/ops.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/ops_in.h"
#include "tensor/tape.h"

struct nm__w nm__w_rows(struct nm__w w, int64_t first, int64_t n) {
  w.data += (size_t)first * w.row_bytes;
  w.rows = n;
  return w;
}

/* ---- the cache --------------------------------------------------------- */

size_t nm__kv_bytes(int n_layer, int64_t n_slots, int64_t width) {
  return 2 * sizeof(float) * (size_t)n_layer * (size_t)n_slots * (size_t)width;
}

int nm__kv_init_half(struct nm__kv *kv, int n_layer, int64_t n_slots, int64_t width, bool half_k,
                     bool half_v, nm_err *err) {
  size_t bytes = nm__kv_bytes(n_layer, n_slots, width) / 2;
  *kv = (struct nm__kv){.n_layer = n_layer, .n_slots = n_slots, .width = width, .half_k = half_k,
                        .half_v = half_v};
  void *k = nm__alloc_lines(half_k ? bytes / 2 : bytes, 1);
  void *v = nm__alloc_lines(half_v ? bytes / 2 : bytes, 1);
  if (half_k) kv->k16 = k; else kv->k = k;
  if (half_v) kv->v16 = v; else kv->v = v;
  if (k && v) return NM_OK;
  nm__kv_done(kv);
  return nm__fail_memory(err, "the KV cache", 2 * bytes);
}

int nm__kv_init(struct nm__kv *kv, int n_layer, int64_t n_slots, int64_t width, nm_err *err) {
  return nm__kv_init_half(kv, n_layer, n_slots, width, false, false, err);
}

int nm__kv_init_grad(struct nm__kv *kv, nm_err *err) {
  size_t bytes = nm__kv_bytes(kv->n_layer, kv->n_slots, kv->width);
  kv->dk = nm__alloc_lines(bytes / 2, 1);
  kv->dv = nm__alloc_lines(bytes / 2, 1);
  if (kv->dk && kv->dv) return NM_OK;
  return nm__fail_memory(err, "the gradient of the KV cache", bytes);
}

void nm__kv_done(struct nm__kv *kv) {
  free(kv->k);
  free(kv->v);
  free(kv->dk);
  free(kv->dv);
  free(kv->k16);
  free(kv->v16);
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

void nm__by_rows(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y,
                 void (*fn)(void *, int64_t, int64_t, int)) {
  nm__rows_parallel(o, y->rows, nm__grain(y->cols), fn, &(struct nm__call){o, a, y, NULL, NULL});
}

void nm__back_by_rows(struct nm__ops *o, const struct nm__op_args *a, const struct nm__back *b,
                      void (*fn)(void *, int64_t, int64_t, int)) {
  if (o->mode == NM__MEASURE) return;
  nm__rows_parallel(o, b->out.rows, nm__grain(b->out.cols), fn,
                    &(struct nm__call){o, a, &b->out, b, NULL});
}

float *nm__scratch(struct nm__ops *o, size_t floats, const char *what) {
  if (o->err.status) return NULL;
  float *p = nm__arena_take(&o->arena, sizeof(float) * floats);
  if (!p) nm__fail(&o->err, NM_EMEMORY, "the arena is too small for %s", what);
  return p;
}

/* ---- the table --------------------------------------------------------- */

const struct nm__op *const nm__op_table[NM__N_OPS] = {
    [NM__OP_EMBED] = &nm__op_embed,
    [NM__OP_MATMUL] = &nm__op_matmul,
    [NM__OP_ADD] = &nm__op_add,
    [NM__OP_SCALE] = &nm__op_scale,
    [NM__OP_SOFT_CAP] = &nm__op_soft_cap,
    [NM__OP_RMSNORM] = &nm__op_rmsnorm,
    [NM__OP_LAYERNORM] = &nm__op_layernorm,
    [NM__OP_ACT] = &nm__op_act,
    [NM__OP_ACT_MUL] = &nm__op_act_mul,
    [NM__OP_UNPERMUTE] = &nm__op_unpermute,
    [NM__OP_ROPE] = &nm__op_rope,
    [NM__OP_KV_APPEND] = &nm__op_kv_append,
    [NM__OP_ATTENTION] = &nm__op_attention,
    [NM__OP_GATHER] = &nm__op_gather,
    [NM__OP_SOFTMAX] = &nm__op_softmax,
    [NM__OP_TOP_K] = &nm__op_top_k,
    [NM__OP_EXPERTS] = &nm__op_experts,
    [NM__OP_COMBINE] = &nm__op_combine,
    [NM__OP_SIGMOID] = &nm__op_sigmoid,
    [NM__OP_ROW_SCALE] = &nm__op_row_scale,
    [NM__OP_MUL] = &nm__op_mul,
    [NM__OP_SCATTER] = &nm__op_scatter,
    [NM__OP_ADD_VEC] = &nm__op_add_vec,
    [NM__OP_GUMBEL] = &nm__op_gumbel,
    [NM__OP_CROSS_ENTROPY] = &nm__op_cross_entropy,
    [NM__OP_KL] = &nm__op_kl,
    [NM__OP_BCE] = &nm__op_bce,
    [NM__OP_MSE] = &nm__op_mse,
    [NM__OP_HUBER] = &nm__op_huber,
    [NM__OP_COSINE] = &nm__op_cosine,
    [NM__OP_INFO_NCE] = &nm__op_info_nce,
    [NM__OP_WSUM] = &nm__op_wsum,
};

struct nm__t nm__op(struct nm__ops *o, enum nm__op_id id, const struct nm__op_args *a) {
  const struct nm__op *op = nm__op_table[id];
  int64_t shape[2] = {0, 0};
  bool fits = op->shape(a, shape);
  struct nm__t y = {.rows = shape[0], .cols = shape[1]};
  if (o->err.status) return y;
  if (!fits) {
    nm__fail(&o->err, NM_EFAIL, "op %s: shapes do not fit ([%lld, %lld] with [%lld, %lld])",
             op->name, (long long)a->x.rows, (long long)a->x.cols, (long long)a->w.rows,
             (long long)a->w.cols);
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
  if (o->mode != NM__MEASURE || op->scratch) op->forward(o, a, &y);
  if (o->err.status) y.d = NULL;   /* no room for its scratch */
  if (o->tape && o->mode != NM__RUN && y.d) nm__tape_push(o, id, a, &y);
  return y;
}
