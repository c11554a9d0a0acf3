/* moe.h - routes of positions to experts, and the rows of the op table that lie in moe.c. */
#ifndef NM_TENSOR_MOE_H
#define NM_TENSOR_MOE_H

#include "tensor/ops.h"

/* Which experts each of T positions goes through: k of n_expert, filled by the op top_k. A pair
 * (position, expert) has a row of its own in the experts' tensors [T k, ...]. */
struct nm__route {
  int n_expert, k;
  int64_t T;
  int32_t *expert;                 /* [T][k]: the experts of a position, ascending */
  int32_t *slot;                   /* [T][k]: the rows of these pairs */
  int32_t *pos;                    /* [T k]: the position of each row */
  int32_t *first;                  /* [n_expert + 1]: rows of expert e: first[e] .. first[e + 1] */
};
/* Room for a route from the arena; in measure mode only counted. */
bool nm__route_take(struct nm__ops *o, int64_t T, int n_expert, int k, struct nm__route *r);

bool nm__softmax_shape(const struct nm__op_args *a, int64_t out[2]);
void nm__softmax_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
bool nm__top_k_shape(const struct nm__op_args *a, int64_t out[2]);
void nm__top_k_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
bool nm__experts_shape(const struct nm__op_args *a, int64_t out[2]);
void nm__experts_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
bool nm__combine_shape(const struct nm__op_args *a, int64_t out[2]);
void nm__combine_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
void nm__sigmoid_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);
bool nm__row_scale_shape(const struct nm__op_args *a, int64_t out[2]);
void nm__row_scale_forward(struct nm__ops *o, const struct nm__op_args *a, struct nm__t *y);

#endif
