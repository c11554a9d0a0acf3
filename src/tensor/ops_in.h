/* ops_in.h - what the files of operations share, in this folder only: the rows of the table
 * and the small things most forwards need inside a tile. */
#ifndef NM_TENSOR_OPS_IN_H
#define NM_TENSOR_OPS_IN_H

#include "tensor/ops.h"

/* One tile's view of a call. `b` is NULL in a forward. */
struct nm__call {
  struct nm__ops *o;
  const struct nm__op_args *a;
  const struct nm__t *y;           /* the result */
  const struct nm__back *b;
  float *scratch;
};

static inline float *nm__row(const struct nm__t *t, int64_t i) { return t->d + i * t->cols; }

/* Rows per tile so that a tile is worth handing out. */
static inline int64_t nm__grain(int64_t cols) {
  return cols >= 4096 ? 1 : 4096 / (cols > 0 ? cols : 1);
}

bool nm__same_shape(const struct nm__op_args *a, int64_t out[2]);        /* that of x */
bool nm__pair_shape(const struct nm__op_args *a, int64_t out[2]);        /* x and y alike */

/* fn over the rows of the result, in run mode; nothing when measuring. */
void nm__by_rows(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y,
                 void (*fn)(void *call, int64_t begin, int64_t end, int thread));
void nm__back_by_rows(struct nm__ops *o, const struct nm__op_args *a, const struct nm__back *b,
                      void (*fn)(void *call, int64_t begin, int64_t end, int thread));

/* The product of the op matmul and its way back; both take scratch while they run. */
void nm__matmul(struct nm__ops *o, const struct nm__op_args *a, const struct nm__t *y);
/* Sees to it that the arena has the scratch of a product, now or when it is made. */
void nm__matmul_room(struct nm__ops *o, const struct nm__op_args *a);
void nm__matmul_back(struct nm__ops *o, const struct nm__op_args *a, const struct nm__back *b);

/* Scratch that is taken in every mode, so that measuring counts it; NULL after the sentence. */
float *nm__scratch(struct nm__ops *o, size_t floats, const char *what);

extern const struct nm__op nm__op_embed, nm__op_matmul, nm__op_gather, nm__op_add, nm__op_scale,
    nm__op_soft_cap, nm__op_rmsnorm, nm__op_layernorm, nm__op_act, nm__op_act_mul,
    nm__op_unpermute, nm__op_rope, nm__op_kv_append, nm__op_attention, nm__op_softmax,
    nm__op_experts, nm__op_combine, nm__op_sigmoid, nm__op_row_scale, nm__op_mul,
    nm__op_scatter, nm__op_add_vec, nm__op_top_k, nm__op_gumbel, nm__op_cross_entropy, nm__op_kl,
    nm__op_bce, nm__op_mse, nm__op_huber, nm__op_cosine, nm__op_info_nce, nm__op_wsum;

#endif
