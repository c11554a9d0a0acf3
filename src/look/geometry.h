/* geometry.h - whether vectors of a graph's nodes lie as the graph does: all from their products,
 * the Gram matrix, with what random vectors give beside it.
 *
 * Nodes that were never seen have no vector: they are left out (`there`), never filled in. */
#ifndef NM_LOOK_GEOMETRY_H
#define NM_LOOK_GEOMETRY_H

#include "look/linalg.h"
#include "world/graph.h"

enum { NM__GEOMETRY_PCS = 6 };

struct nm__geometry {
  int n, rank;                     /* nodes that count; dimensions that their vectors fill */
  double r2;                       /* of the nodes' places on components 1 and 2 */
  double r2_six;                   /* the same on the first six: by chance 5 / (n - 1) and more */
  double permuted;                 /* r2 of permuted places, mean */
  double spearman;                 /* of distances with steps in the graph, over pairs */
  double energy;                   /* mean squared distance over edges / over all pairs */
  double overlap;                  /* of components 1 and 2 with Laplacian vectors 2 and 3 */
  double share;                    /* of the squares that components 1 and 2 hold */
  double pc[NM__GRAPH_NODES][2];   /* components 1 and 2; NaN for nodes left out */
};
/* gram[n, n] of vectors about any origin. Values that cannot be had (fewer than four nodes, no
 * spread, no edge among those that are there) are NaN. NM_EFORMAT: a value is not finite. */
int nm__geometry_of(const double *gram, const struct nm__graph *g, const bool *there,
                    struct nm__geometry *out, nm_err *err);
/* Products of the rows of x[n, D]; `standard`: every dimension first brought to mean 0 and
 * standard deviation 1 over the nodes that are there. */
int nm__gram_of(const double *x, int n, int D, const bool *there, bool standard, double *gram,
                nm_err *err);
/* Random directions in D dimensions, mean of 20 draws; `mixed`: after each node had the mean of
 * its neighbours added, once. pc is that of the first draw. */
int nm__geometry_random(const struct nm__graph *g, const bool *there, int D, bool mixed,
                        uint64_t seed, struct nm__geometry *out, nm_err *err);

/* What the next word should be at `node`, come from `left` (-1: nowhere). p: probabilities by node.
 * out[0]: of the neighbours; out[1]: of those but `left`, of what is not given to `left` (NaN where
 * there is no other). */
void nm__rule_accuracy(const struct nm__graph *g, const double *p, int node, int left,
                       double out[2]);
/* The same for who only knows how often each word comes in a long walk. */
void nm__rule_by_chance(const struct nm__graph *g, double out[2]);

#endif
