/* moe.h - routes of positions to experts. */
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
/* Room for a route from the arena; in measure mode only counted. Returns `here`, or with a tape
 * memory that lives as long as the tape's nodes. */
struct nm__route *nm__route_take(struct nm__ops *o, int64_t T, int n_expert, int k,
                                 struct nm__route *here);

#endif
