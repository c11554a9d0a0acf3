/* ops.h - the operations a forward pass is made of, run eagerly.
 *
 * One row of the table per op: name, formula, shape rule, forward and backward, side by
 * side in one place. The context has three modes:
 *   run      compute now, outputs from the arena
 *   record   the same, and remember the op on the tape (tape.h) for the backward; nothing
 *            is written in place
 *   measure  shapes and arena only; nothing is read or computed (with a tape also those of
 *            the backward)
 * so memory figures come from the forward itself.
 *
 * Activations are matrices [rows, cols], row-major f32. T rows are positions of a
 * ragged batch of spans. Errors (shape mismatch, arena full) are sticky in the context.
 * Letters: T positions, D model, H heads, K kv heads, F mlp, V vocab. */
#ifndef NM_TENSOR_OPS_H
#define NM_TENSOR_OPS_H

#include "tensor/kern.h"

enum nm__mode { NM__RUN, NM__RECORD, NM__MEASURE };

/* node: the op on the tape that made it, counted from 1; 0: a constant, without a gradient. */
struct nm__t { float *d; int64_t rows, cols; int node; };

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

/* K and V of every layer: [n_slots, width] each. Appending is an op of its own. dk and dv hold
 * the gradient that attention leaves for the rows that were appended; NULL where none is wanted.
 * Either may be kept as F16, rounded when it is appended: then it lies in k16 (v16), attention
 * computes on its exact float values, and no gradient flows. */
struct nm__kv {
  int n_layer;
  int64_t n_slots, width;
  float *k, *v, *dk, *dv;
  uint16_t *k16, *v16;
  bool half_k, half_v;
};
int nm__kv_init(struct nm__kv *kv, int n_layer, int64_t n_slots, int64_t width, nm_err *err);
int nm__kv_init_half(struct nm__kv *kv, int n_layer, int64_t n_slots, int64_t width, bool half_k,
                     bool half_v, nm_err *err);
int nm__kv_init_grad(struct nm__kv *kv, nm_err *err);    /* dk and dv, zero */
void nm__kv_done(struct nm__kv *kv);
size_t nm__kv_bytes(int n_layer, int64_t n_slots, int64_t width);

enum nm__op_id {
  NM__OP_EMBED, NM__OP_MATMUL, NM__OP_ADD, NM__OP_SCALE, NM__OP_SOFT_CAP, NM__OP_RMSNORM,
  NM__OP_LAYERNORM, NM__OP_ACT, NM__OP_ACT_MUL, NM__OP_UNPERMUTE, NM__OP_ROPE, NM__OP_KV_APPEND,
  NM__OP_ATTENTION, NM__OP_GATHER, NM__OP_SOFTMAX, NM__OP_TOP_K, NM__OP_EXPERTS, NM__OP_COMBINE,
  NM__OP_SIGMOID, NM__OP_ROW_SCALE, NM__OP_MUL, NM__OP_SCATTER, NM__OP_ADD_VEC,
  NM__OP_GUMBEL, NM__OP_CROSS_ENTROPY, NM__OP_KL, NM__OP_BCE, NM__OP_MSE, NM__OP_HUBER,
  NM__OP_COSINE, NM__OP_INFO_NCE, NM__OP_WSUM, NM__N_OPS
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
  const int32_t *ids; int64_t n_ids;           /* embed: tokens; gather: rows; targets */
  int64_t rows;                                /* scatter: of the result; top_k: k, if no route */
  const float *weight;                         /* wsum: of each row; NULL: 1 */
  uint64_t seed;                               /* gumbel: of this step and op */
  float eps;                                   /* norms; cross_entropy: label smoothing */
  enum nm__act act;
  int n_head, n_kv, head_dim;
  int rope_pair, rope_n;                       /* distance of a pair; rotated dimensions */
  const float *rope;                           /* [T][rope_n / 2][cos, sin] */
  float scale;                                 /* attention, info_nce: of scores; the factor */
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

struct nm__tape;
struct nm__ops {
  enum nm__mode mode;
  struct nm__tape *tape;                       /* in record mode; when measuring: or NULL */
  const struct nm__kern *kern;
  struct nm__pool *pool;
  struct nm__arena arena;
  bool bf16;                                   /* products with weights by the bf16 formula */
  nm_err err;                                  /* status != 0: something failed, ops do nothing */
};

/* What a backward is given: the result with its values and gradient, and where the gradients
 * of the inputs go. Those are added to; NULL where none is wanted. */
struct nm__back {
  struct nm__t out;
  const float *d_out;
  float *dx, *dy;                              /* as a->x and a->y */
  float *dw, *dbias;                           /* as a->w and a->bias, which are F32 then */
};

struct nm__op {
  const char *name, *formula;
  /* Output rows and cols from the arguments; false: they do not fit together. */
  bool (*shape)(const struct nm__op_args *a, int64_t out[2]);
  void (*forward)(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
  /* Reads values of its inputs and of its result: both stay until the tape is done. */
  void (*backward)(struct nm__ops *o, const struct nm__op_args *a, const struct nm__back *b);
  bool in_place;                               /* returns x itself */
  bool scratch, back_scratch;                  /* takes memory of its own while it runs */
  bool always;                                 /* acts beside its result: goes back in any case */
};
extern const struct nm__op *const nm__op_table[NM__N_OPS];

/* Runs one op. After a failure (o->err.status) the result has d == NULL and the right shape. */
struct nm__t nm__op(struct nm__ops *o, enum nm__op_id id, const struct nm__op_args *a);

/* Splits rows of work over the pool: fn(arg, begin, end, thread). */
void nm__rows_parallel(struct nm__ops *o, int64_t n, int64_t grain,
                       void (*fn)(void *arg, int64_t begin, int64_t end, int thread), void *arg);

#endif
