/* forest.h - random forests of classification trees (Breiman, "Random Forests", Machine Learning
 * 45, 2001), with the defaults of scikit-learn: 100 trees, each grown on a bootstrap sample until
 * its leaves are pure, the best Gini split among sqrt(d) features drawn anew at every node.
 *
 * Tree t draws from the stream t of the seed and from nothing else, so a forest has the same bits
 * for any number of threads. */
#ifndef NM_LOOK_FOREST_H
#define NM_LOOK_FOREST_H

#include "core/core.h"

/* x[feature] <= threshold goes to node `next`, else to `next + 1`; both lie behind the node. A
 * leaf has feature -1, and `next` is the number of its shares. */
struct nm__node { int32_t feature; float threshold; uint32_t next; };
struct nm__tree {
  struct nm__node *node;           /* [n_nodes], the root first */
  float *share;                    /* [n_leaves][n_classes] of the leaf's rows */
  uint32_t n_nodes, n_leaves;
};
struct nm__forest { int d, n_classes, n_trees; struct nm__tree *tree; };

struct nm__forest_opts {
  int n_trees;                     /* 0: 100 */
  int n_features;                  /* looked at in a node; 0: sqrt(d), at least 1 */
  bool whole;                      /* every tree sees all rows once instead of a bootstrap sample */
  uint64_t seed;
  struct nm__pool *pool;           /* NULL: the caller's thread alone */
};
/* x: rows of `ld` floats of which the first d are used; `rows` picks n of them (NULL: 0..n-1);
 * label, below n_classes, is indexed like x. NM_EFORMAT when a value is not finite. */
int nm__forest_fit(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                   const uint8_t *label, int n_classes, const struct nm__forest_opts *o,
                   struct nm__forest *out, nm_err *err);
/* p: [n_classes], the mean over trees of the shares in the leaf that x falls into. */
void nm__forest_shares(const struct nm__forest *f, const float *x, double *p);
void nm__forest_done(struct nm__forest *f);

#endif
