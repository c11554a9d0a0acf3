/* ops.h - the operations a forward pass is made of, run eagerly.
 *
 * One row of the table per op: name, formula, shape rule, forward and (once there is a
 * tape) backward, side by side in one place. The context has three modes:
 *   run      compute now, outputs from the arena
 *   record   the same, and remember the op for the backward (needs the tape: refused
 *            until ops have backwards)
 *   measure  shapes and arena only; nothing is read or computed
 * so memory figures come from the forward itself.
 *
 * Activations are matrices [rows, cols], row-major f32. T rows are positions of a
 * ragged batch of spans. Errors (shape mismatch, arena full) are sticky in the context.
 * Letters: T positions, D model, H heads, K kv heads, F mlp, V vocab. */
#ifndef NM_TENSOR_OPS_H
#define NM_TENSOR_OPS_H

#include "tensor/kern.h"

enum nm__mode { NM__RUN, NM__RECORD, NM__MEASURE };

struct nm__t { float *d; int64_t rows, cols; };

/* A stored matrix [rows = outputs, cols = inputs] or vector (rows 1), as it lies in the file. */
struct nm__w {
  const uint8_t *data;             /* NULL: absent */
  uint32_t type;                   /* enum nm__dtype */
  int64_t rows, cols;
  size_t row_bytes;
};
/* Rows first..first+n of w, sharing its memory. */
struct nm__w nm__w_rows(struct nm__w w, int64_t first, int64_t n);

/* A piece of one sequence: n tokens from absolute position `first`, at rows row0.. of the
 * batch. Key position j lives in cache slot prefix_slot + j for j < n_prefix, else in
 * slot + (j - n_prefix): sequences may share the keys of a common beginning. */
struct nm__span {
  int seq, first, n, row0;
  int prefix_slot, n_prefix, slot;
};

/* K and V of every layer: [n_slots, width] each. Appending is an op of its own. */
struct nm__kv { int n_layer; int64_t n_slots, width; float *k, *v; };
int nm__kv_init(struct nm__kv *kv, int n_layer, int64_t n_slots, int64_t width, nm_err *err);
void nm__kv_done(struct nm__kv *kv);
size_t nm__kv_bytes(int n_layer, int64_t n_slots, int64_t width);

enum nm__op_id {
  NM__OP_EMBED, NM__OP_MATMUL, NM__OP_ADD, NM__OP_SCALE, NM__OP_SOFT_CAP, NM__OP_RMSNORM,
  NM__OP_LAYERNORM, NM__OP_ACT, NM__OP_ACT_MUL, NM__OP_UNPERMUTE, NM__OP_ROPE, NM__OP_KV_APPEND,
  NM__OP_ATTENTION, NM__OP_GATHER, NM__OP_SOFTMAX, NM__OP_TOP_K, NM__OP_EXPERTS, NM__OP_COMBINE,
  NM__OP_SIGMOID, NM__OP_ROW_SCALE, NM__N_OPS
};
struct nm__route;                                    /* moe.h */

/* What looks at (or edits) a row of attention scores or probabilities while it lies in
 * scratch: row of the batch, head, the keys first..n-1 the row sees as v[first..n-1]. Called
 * from any thread, once per row and head. */
struct nm__attn_hook {
  void (*fn)(void *arg, bool after_softmax, int row, int head, float *v, int first, int n);
  void *arg;
};

/* Arguments of any op; each op's row says which it reads. */
struct nm__op_args {
  struct nm__t x, y;
  struct nm__w w, bias;
  const int32_t *ids; int64_t n_ids;           /* embed: tokens; gather: rows */
  float eps;
  enum nm__act act;
  int n_head, n_kv, head_dim;
  int rope_pair, rope_n;                       /* distance of a pair; rotated dimensions */
  const float *rope;                           /* [T][rope_n / 2][cos, sin] */
  float scale;                                 /* attention: of scores; scale: the factor */
  float cap;                                   /* soft caps; attention: 0 for none */
  int window;                                  /* attention: keys seen, own included; 0: all */
  bool all_keys;                               /* attention: later keys of the span, too */
  struct nm__kv *kv; int layer;
  const struct nm__span *spans; int n_spans; int max_keys;
  const struct nm__attn_hook *hook;
  struct nm__route *route;                     /* top_k fills it; experts and combine follow it */
  const struct nm__w *experts;                 /* [route->n_expert], all of one shape */
  bool renormalise;                            /* top_k: the chosen weights sum to 1 */
};

struct nm__ops {
  enum nm__mode mode;
  const struct nm__kern *kern;
  struct nm__pool *pool;
  struct nm__arena arena;
  nm_err err;                                  /* status != 0: something failed, ops do nothing */
};

struct nm__op {
  const char *name, *formula;
  /* Output rows and cols from the arguments; false: they do not fit together. */
  bool (*shape)(const struct nm__op_args *a, int64_t out[2]);
  void (*forward)(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
  void (*backward)(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *dy);
  bool in_place;                               /* writes into x (run mode) and returns it */
};
extern const struct nm__op nm__op_table[NM__N_OPS];

/* Runs one op. After a failure (o->err.status) the result has d == NULL and the right shape. */
struct nm__t nm__op(struct nm__ops *o, enum nm__op_id id, const struct nm__op_args *a);

/* Splits rows of work over the pool: fn(arg, begin, end, thread). */
void nm__rows_parallel(struct nm__ops *o, int64_t n, int64_t grain,
                       void (*fn)(void *arg, int64_t begin, int64_t end, int thread), void *arg);

/* What most forwards need inside a tile. */
struct nm__call {
  struct nm__ops *o;
  const struct nm__op_args *a;
  struct nm__t *y;
  float *scratch;
};
/* The product of the op matmul, with scratch (nm__matmul_scratch bytes) that is already taken. */
void nm__matmul(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y, float *scratch);
size_t nm__matmul_scratch(const struct nm__ops *o, struct nm__w w);

/* attention.c */
bool nm__attention_shape(const struct nm__op_args *a, int64_t out[2]);
void nm__attention_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);

#endif
