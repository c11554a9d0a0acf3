/* tape.h - what was computed, so that gradients can flow back through it.
 *
 *   struct nm__tape t = {0};
 *   nm__tape_param(&t, w.data, bytes, grad, err);    for every weight that is trained
 *   o.tape = &t; o.mode = NM__RECORD;
 *   ... a forward; loss = nm__op(&o, NM__OP_..., ...);
 *   nm__tape_back(&o, loss, 1.0f);                   gradients have been added to the grads
 *   nm__tape_reset(&o);                              for the next step
 *
 * A weight that is no parameter is frozen and may have any stored type: gradients flow through
 * it. A tensor that depends on no parameter (and on no leaf) has no node and costs nothing.
 * Values live in the context's arena until the reset; gradients of tensors are taken from it
 * when first needed. Several forwards may be recorded one after the other, over one cache too. */
#ifndef NM_TENSOR_TAPE_H
#define NM_TENSOR_TAPE_H

#include "tensor/ops.h"

/* Weights between data and data + bytes, F32; views of it (rows of a fused matrix) count. */
struct nm__param { const uint8_t *data; size_t bytes; float *grad; };

/* A stretch of a forward that is not kept but computed again when gradients come back. */
typedef struct nm__t nm__stretch(void *arg, struct nm__ops *o, struct nm__t x);

struct nm__node;
struct nm__tape {
  struct nm__node *v;
  size_t n, cap;
  struct nm__param *param;         /* sorted by data */
  size_t n_param, cap_param;
  bool kv_live;                    /* something with a gradient lies in the cache */
  void **kept;                     /* nm__tape_keep */
  size_t n_kept, cap_kept;
};
int nm__tape_param(struct nm__tape *t, const void *data, size_t bytes, float *grad, nm_err *err);
/* Where the gradient of a weight goes; NULL when it is frozen. For ops that hold several. */
float *nm__tape_grad_of(const struct nm__tape *t, const struct nm__w *w);
void nm__tape_done(struct nm__tape *t);
/* Zeroed memory that lives until the reset, for arguments that nodes point to; NULL after a sticky
 * failure. */
void *nm__tape_keep(struct nm__ops *o, size_t bytes);
/* Forgets all nodes (parameters stay) and empties the arena. */
void nm__tape_reset(struct nm__ops *o);

/* A tensor from outside with a gradient: an injected embedding, a learned vector. `grad` has the
 * tensor's shape and is added to; NULL: it is kept on the tape, see nm__tape_grad. */
struct nm__t nm__tape_leaf(struct nm__ops *o, struct nm__t x, float *grad);
/* The gradient of a recorded tensor, after nm__tape_back; NULL when none reached it. */
const float *nm__tape_grad(const struct nm__ops *o, struct nm__t x);

/* fn(arg, o, x), of which only x and the result are kept; what it makes besides is made again
 * in the backward. It must give the same bits when it is called twice. */
struct nm__t nm__tape_stretch(struct nm__ops *o, nm__stretch *fn, void *arg, struct nm__t x);

/* Goes back from a [1, 1] tensor with d loss = seed. Failures are sticky in o->err. */
void nm__tape_back(struct nm__ops *o, struct nm__t loss, float seed);

/* Used by nm__op: remembers the op when a gradient can flow through it. */
void nm__tape_push(struct nm__ops *o, enum nm__op_id id, const struct nm__op_args *a,
                   struct nm__t *y);

#endif
