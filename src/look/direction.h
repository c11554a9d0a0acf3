/* direction.h - one direction that separates two classes of vectors, by three methods, and how
 * well a direction separates vectors it was not fitted on. */
#ifndef NM_LOOK_DIRECTION_H
#define NM_LOOK_DIRECTION_H

#include "look/probe.h"

enum nm__method { NM__METHOD_MEAN, NM__METHOD_PCA, NM__METHOD_PROBE };
bool nm__method_by_name(const char *name, enum nm__method *out);

/* Vectors x[n] of D floats, `ld` apart; label 0 or 1; pairs share a group when `paired`. */
struct nm__cloud {
  const float *x; size_t ld; int D; size_t n;
  const uint8_t *label;
  const uint32_t *group; size_t n_groups;
  bool paired;                     /* every group has exactly one of each label */
};
/* Fits on the given rows. out[D] is scaled so that adding it moves a vector from the mean of class
 * 0 to that of class 1 along it; *middle is where they part: class 1 lies at out.x > middle.
 *   mean   mean of class 1 less mean of class 0
 *   pca    first principal component of the differences of pairs, each taken in both orders, or,
 *          without pairs, of all vectors about the midpoint of the two means; turned to class 1
 *   probe  the normal of a logistic regression
 * Zero when the classes do not differ along it. */
int nm__direction_fit(const struct nm__cloud *c, const uint32_t *rows, size_t n,
                      enum nm__method method, double *out, double *middle, nm_err *err);
/* Accuracy and AUC of v on rows: class 1 where v.x > middle. */
struct nm__metrics nm__direction_test(const struct nm__cloud *c, const uint32_t *rows, size_t n,
                                      const double *v, double middle, nm_err *err);
/* A direction drawn evenly over the sphere, of length one. */
void nm__direction_random(uint64_t seed, uint64_t stream, int D, double *out);

#endif
