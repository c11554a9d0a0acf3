/* logreg.h - what the solver of logreg.c knows of its features, and what these know of a fit.
 *
 * Vectors over rows are padded with zeros to a multiple of 4 (struct nm__lr_rows.n4). */
#ifndef NM_LOOK_LOGREG_H
#define NM_LOOK_LOGREG_H

#include "look/probe.h"
#include "tensor/kern.h"

enum { NM__LR_PAIRS = 24 };

/* The fit of one label. */
struct nm__lr_fit {
  double C, tol;
  double *w, b;                    /* [d] the point */
  double *y, *z, *r, *D;           /* [n4] labels -1 +1 (0: the row is not in this fit), scores,
                                      derivatives of C loss(z) */
  double *g, g_b, S;               /* [d] X^T r (then the gradient), sum of r, sum of D */
  double *s, s_b, *z_s;            /* [d] direction, [n4] its scores X s + s_b */
  double *scale, scale_c;          /* [d] Jacobi */
  double *res, res_c, *p, p_c;     /* conjugate gradients, in centred coordinates: [d], 1, [d], 1 */
  double *h, h_c, *t;              /* [d], 1, [n4]: the product with p */
  double *pair[2 * NM__LR_PAIRS];  /* [2 (d + 1)]: steps and what H makes of them, oldest first */
  int n_old, n_pairs;              /* of earlier systems, in use now; with those of this one */
  double rho, enough;
  double best, norm;
  int since, steps, left;          /* steps of Newton; conjugate gradients still allowed */
  bool done, solving;
  double *slab;
};

/* X: n chosen rows of d features. The solver works with x - centre, so that a feature whose mean
 * is far larger than its spread is no worse than others. */
struct nm__lr_rows {
  size_t n, n4;
  int d;
  const uint32_t *rows;
  struct nm__pool *pool;
  double *centre, *spread;         /* [d]: near the mean; mean square of x - centre */
  /* Of each fit, at w and b: z, r, D, S, g = X^T r, g_b. All sums in double. */
  void (*exact)(struct nm__lr_rows *x, struct nm__lr_fit **f, int m);
  /* Of each fit: t = (X - centre) p + p_c, h = (X - centre)^T (D t), h_c = D.t; near enough to
   * find a direction with. */
  void (*curve)(struct nm__lr_rows *x, struct nm__lr_fit **f, int m);
  void *own;
};

static inline size_t nm__lr_row(const struct nm__lr_rows *x, size_t i) {
  return x->rows ? x->rows[i] : i;
}
/* r and D of the rows i..end - 1 from their z. */
void nm__lr_loss(struct nm__lr_fit *f, size_t i, size_t end);

/* Dense rows of `ld` floats; at most `most` fits at once; `C` decides what is near enough. */
enum { NM__LR_MOST = 32 };
int nm__lr_dense_new(struct nm__lr_rows *x, const float *v, size_t ld, double C, int most,
                     nm_err *err);
void nm__lr_dense_free(struct nm__lr_rows *x);

#endif
