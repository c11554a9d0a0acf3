/* linalg.h - small dense linear algebra in double: what methods over activations need. Jacobi
 * rotations, in one fixed order, so the same bits everywhere; meant for a few hundred rows.
 *
 * Matrices are row-major. A vector of a basis has the canonical sign: its component of largest
 * size (the first of them) is positive. */
#ifndef NM_LOOK_LINALG_H
#define NM_LOOK_LINALG_H

#include "core/core.h"

/* Eigenvalues of the symmetric a[n, n] (overwritten), the largest first, and their vectors as the
 * rows of v[n, n]. Cyclic Jacobi (Golub and Van Loan, 8.5). NM_EFAIL when a value is not finite. */
int nm__eigen_sym(double *a, int n, double *w, double *v, nm_err *err);
/* a[m, n] = u diag(s) v', k = min(m, n): columns of u as rows of ut[k, m], of v as rows of
 * vt[k, n]; s descending. Directions of a zero singular value are zero rows of ut. One-sided
 * Jacobi. vt has the canonical sign. */
int nm__svd(const double *a, int m, int n, double *s, double *ut, double *vt, nm_err *err);
/* x with a x = b for a symmetric positive definite a[n, n] (overwritten by its Cholesky factor);
 * b is overwritten by x. NM_EFAIL when a is not positive definite. */
int nm__solve_spd(double *a, int n, double *b, nm_err *err);
/* The first right singular vector of x[m, n] (rows of floats, `ld` apart, picked by `rows`): the
 * first principal component of rows whose mean counts as the origin. share: of the squares. */
int nm__first_component(const double *x, int m, int n, double *out, double *share, nm_err *err);
double nm__dot(const double *a, const double *b, int n);
/* Divides by the length, which is returned; a zero vector stays. */
double nm__unit(double *v, int n);
void nm__canonical_sign(double *v, int n);

#endif
