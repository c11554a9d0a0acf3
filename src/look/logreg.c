/* logreg.c - L2 logistic regression to the optimum, from dense or sparse rows.
 *
 * Truncated Newton with conjugate gradients, after Lin, Weng and Keerthi, "Trust region Newton
 * method for large-scale logistic regression" (JMLR 9, 2008), with three changes:
 *
 * - The Jacobi preconditioner of Hsia, Chiang and Lin, "Preconditioned conjugate gradient methods
 *   in truncated Newton frameworks" (ACML 2018): feature scales of 1e-3 next to 1e2 are normal
 *   here.
 * - The intercept is eliminated exactly from every Newton system (a Schur complement). It carries
 *   no penalty, and a model's activations have dimensions whose mean is far larger than their
 *   spread; what remains sees features centred by the Hessian's weights D, without copying any:
 *       H v = v + X^T D (X v - m.v / S),   m = X^T D 1,  S = 1^T D 1.
 * - Instead of a trust region, a search for the zero of the slope along each direction. It costs n
 *   exponentials and no pass over X, since conjugate gradients yield X s on the way; the
 *   objective is strictly convex, so nothing is rejected; and a slope can still be told from zero
 *   where a difference of objectives has long drowned in rounding, which the small absolute
 *   tolerance needs.
 *
 * The features are float and stay where they are, every sum is double. Inner loops are written in
 * pairs of doubles with a stated order, so plain x86-64 code is fast and every compiler gives the
 * same bits. C is folded into the loss's derivatives: r = C loss', D = C loss''. */
#include "look/probe.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/math.h"

/* ---- features -------------------------------------------------------- */

/* What the solver knows of X: n chosen rows of d features, and four products. Vectors over rows
 * are padded with zeros to a multiple of 4, and t may be written up to there. */
struct features {
  size_t n;
  int d;
  const uint32_t *rows;
  const float *dense;              /* one of these two */
  size_t ld;
  const struct nm__sparse *sparse;
  /* t = X v + c */
  void (*score)(const struct features *x, const double *v, double c, double *t);
  /* g += X^T r */
  void (*back)(const struct features *x, const double *r, double *g);
  /* t = X v + c; h += X^T (D t): one visit of each row */
  void (*curve)(const struct features *x, const double *v, double c, const double *D, double *t,
                double *h);
  /* m += X^T D; q += (X o X)^T D */
  void (*moments)(const struct features *x, const double *D, double *m, double *q);
};

static size_t row_of(const struct features *x, size_t i) { return x->rows ? x->rows[i] : i; }

/* ---- dense rows, four at a time ------------------------------------- */

typedef double pair __attribute__((vector_size(16)));

static inline pair widen(const float *p) { return (pair){p[0], p[1]}; }

static inline pair load(const double *p) {
  pair v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline void store(double *p, pair v) { memcpy(p, &v, sizeof v); }

struct four { const float *a, *b, *c, *d; };

/* Past the end the last row is repeated; its weights there are zero. */
static struct four four_at(const struct features *x, size_t i) {
  const float *p[4];
  for (size_t k = 0; k < 4; k++)
    p[k] = x->dense + row_of(x, i + k < x->n ? i + k : x->n - 1) * x->ld;
  return (struct four){p[0], p[1], p[2], p[3]};
}

/* Sum of four lanes (l0 + l2) + (l1 + l3), then the odd features one by one. */
static double tail(pair even, pair odd, const float *x, const double *v, int from, int d) {
  pair s = even + odd;
  double t = s[0] + s[1];
  for (int j = from; j < d; j++) t += (double)x[j] * v[j];
  return t;
}

static void dot_four(struct four r, const double *v, int d, double c, double *t) {
  pair a0 = {0}, b0 = {0}, c0 = {0}, d0 = {0}, a1 = {0}, b1 = {0}, c1 = {0}, d1 = {0};
  int j = 0;
  for (; j + 4 <= d; j += 4) {
    pair v0 = load(v + j), v1 = load(v + j + 2);
    a0 += widen(r.a + j) * v0;
    b0 += widen(r.b + j) * v0;
    c0 += widen(r.c + j) * v0;
    d0 += widen(r.d + j) * v0;
    a1 += widen(r.a + j + 2) * v1;
    b1 += widen(r.b + j + 2) * v1;
    c1 += widen(r.c + j + 2) * v1;
    d1 += widen(r.d + j + 2) * v1;
  }
  t[0] = tail(a0, a1, r.a, v, j, d) + c;
  t[1] = tail(b0, b1, r.b, v, j, d) + c;
  t[2] = tail(c0, c1, r.c, v, j, d) + c;
  t[3] = tail(d0, d1, r.d, v, j, d) + c;
}

static void add_four(struct four r, const double *k, int d, double *g) {
  pair ka = {k[0], k[0]}, kb = {k[1], k[1]}, kc = {k[2], k[2]}, kd = {k[3], k[3]};
  int j = 0;
  for (; j + 2 <= d; j += 2) {
    pair s = (ka * widen(r.a + j) + kb * widen(r.b + j)) +
             (kc * widen(r.c + j) + kd * widen(r.d + j));
    store(g + j, load(g + j) + s);
  }
  if (j < d)
    g[j] += (k[0] * (double)r.a[j] + k[1] * (double)r.b[j]) +
            (k[2] * (double)r.c[j] + k[3] * (double)r.d[j]);
}

static void dense_score(const struct features *x, const double *v, double c, double *t) {
  for (size_t i = 0; i < x->n; i += 4) dot_four(four_at(x, i), v, x->d, c, t + i);
}

static void dense_back(const struct features *x, const double *r, double *g) {
  for (size_t i = 0; i < x->n; i += 4) add_four(four_at(x, i), r + i, x->d, g);
}

static void dense_curve(const struct features *x, const double *v, double c, const double *D,
                        double *t, double *h) {
  for (size_t i = 0; i < x->n; i += 4) {
    struct four r = four_at(x, i);
    double k[4];
    dot_four(r, v, x->d, c, t + i);
    for (int l = 0; l < 4; l++) k[l] = D[i + (size_t)l] * t[i + (size_t)l];
    add_four(r, k, x->d, h);
  }
}

static void square_four(struct four r, const double *k, int d, double *q) {
  for (int j = 0; j < d; j++) {
    double a = r.a[j], b = r.b[j], c = r.c[j], e = r.d[j];
    q[j] += (k[0] * (a * a) + k[1] * (b * b)) + (k[2] * (c * c) + k[3] * (e * e));
  }
}

static void dense_moments(const struct features *x, const double *D, double *m, double *q) {
  for (size_t i = 0; i < x->n; i += 4) {
    struct four r = four_at(x, i);
    add_four(r, D + i, x->d, m);
    square_four(r, D + i, x->d, q);
  }
}

/* ---- sparse rows ----------------------------------------------------- */

static double sparse_dot(const struct nm__sparse *s, size_t row, const double *v) {
  double t = 0;
  for (size_t e = s->ptr[row]; e < s->ptr[row + 1]; e++) t += (double)s->val[e] * v[s->idx[e]];
  return t;
}

static void sparse_add(const struct nm__sparse *s, size_t row, double k, double *g) {
  for (size_t e = s->ptr[row]; e < s->ptr[row + 1]; e++) g[s->idx[e]] += k * (double)s->val[e];
}

static void sparse_score(const struct features *x, const double *v, double c, double *t) {
  for (size_t i = 0; i < x->n; i++) t[i] = sparse_dot(x->sparse, row_of(x, i), v) + c;
}

static void sparse_back(const struct features *x, const double *r, double *g) {
  for (size_t i = 0; i < x->n; i++) sparse_add(x->sparse, row_of(x, i), r[i], g);
}

static void sparse_curve(const struct features *x, const double *v, double c, const double *D,
                         double *t, double *h) {
  for (size_t i = 0; i < x->n; i++) {
    t[i] = sparse_dot(x->sparse, row_of(x, i), v) + c;
    sparse_add(x->sparse, row_of(x, i), D[i] * t[i], h);
  }
}

static void sparse_moments(const struct features *x, const double *D, double *m, double *q) {
  const struct nm__sparse *s = x->sparse;
  for (size_t i = 0; i < x->n; i++) {
    size_t row = row_of(x, i);
    sparse_add(s, row, D[i], m);
    for (size_t e = s->ptr[row]; e < s->ptr[row + 1]; e++)
      q[s->idx[e]] += D[i] * ((double)s->val[e] * (double)s->val[e]);
  }
}

/* ---- vectors over features ------------------------------------------- */

static double dot(const double *a, const double *b, size_t n) {
  pair s[4] = {{0}};
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t k = 0; k < 4; k++) s[k] += load(a + i + 2 * k) * load(b + i + 2 * k);
  pair u = (s[0] + s[2]) + (s[1] + s[3]);
  double t = u[0] + u[1];
  for (; i < n; i++) t += a[i] * b[i];
  return t;
}

static void axpy(double k, const double *a, double *out, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] += k * a[i];
}

static double sum(const double *a, size_t n) {
  double s = 0;
  for (size_t i = 0; i < n; i++) s += a[i];
  return s;
}

/* ---- the solver ------------------------------------------------------ */

struct solver {
  const struct features *x;
  double C, tol;
  bool intercept;
  double *w, b;                    /* [d] the point */
  double *y, *z, *r, *D;           /* [n] labels -1 +1, scores, derivatives of C loss(z) */
  double *g, g_b;                  /* [d] gradient */
  double *s, s_b, *z_s;            /* [d] direction, [n] its scores X s + s_b */
  double *m, S;                    /* [d] X^T D 1, 1^T D 1 */
  double *scale;                   /* [d] Jacobi: the diagonal of the reduced Hessian */
  double *res, *p, *h, *t;         /* conjugate gradients: [d] [d] [d] [n] */
  double *slab;
};

/* The logistic loss at margin yz: its derivative in z and, through *curve, the second one. */
static double loss_slope(double y, double z, double *curve) {
  double e = nm__exp(z < 0 ? z : -z), u = 1.0 / (1.0 + e);
  *curve = e * u * u;
  return y * z > 0 ? -y * e * u : -y * u;
}

/* Derivatives and gradient at the scores z; returns the gradient's norm. */
static double gradient(struct solver *f) {
  size_t n = f->x->n, d = (size_t)f->x->d;
  for (size_t i = 0; i < n; i++) {
    f->r[i] = f->C * loss_slope(f->y[i], f->z[i], &f->D[i]);
    f->D[i] *= f->C;
  }
  memcpy(f->g, f->w, d * sizeof *f->g);
  f->x->back(f->x, f->r, f->g);
  f->g_b = f->intercept ? sum(f->r, n) : 0;
  return nm__sqrt(dot(f->g, f->g, d) + f->g_b * f->g_b);
}

/* The means and the diagonal for the curvatures D. S has a floor, so that rows which are all
 * predicted with certainty do not send the intercept to infinity; without an intercept an
 * infinite S takes it out of every formula. */
static void prepare(struct solver *f) {
  size_t d = (size_t)f->x->d;
  double floor = 1e-14 * f->C * (double)f->x->n;
  memset(f->m, 0, d * sizeof *f->m);
  memset(f->scale, 0, d * sizeof *f->scale);
  f->x->moments(f->x, f->D, f->m, f->scale);
  f->S = sum(f->D, f->x->n);
  if (f->S < floor) f->S = floor;
  for (size_t j = 0; j < d; j++) {
    double centred = f->scale[j] - (f->intercept ? f->m[j] * (f->m[j] / f->S) : 0);
    f->scale[j] = 1.0 + (centred > 0 ? centred : 0);
  }
}

/* res.(res / scale), and res / scale into h. */
static double precondition(struct solver *f, size_t d) {
  for (size_t j = 0; j < d; j++) f->h[j] = f->res[j] / f->scale[j];
  return dot(f->res, f->h, d);
}

/* Preconditioned conjugate gradients on the reduced system until its residual is below `enough`;
 * leaves the direction in s, s_b and its scores in z_s. */
static void direction(struct solver *f, double enough) {
  size_t n = f->x->n, d = (size_t)f->x->d;
  double shift = f->intercept ? -f->g_b / f->S : 0;
  int most = 50 + 3 * (d < n ? (int)d : (int)n), k = 0;
  f->s_b = shift;
  for (size_t i = 0; i < n; i++) f->z_s[i] = shift;
  for (size_t j = 0; j < d; j++) f->res[j] = -f->g[j] - shift * f->m[j];
  memset(f->s, 0, d * sizeof *f->s);
  double rho = precondition(f, d);
  memcpy(f->p, f->h, d * sizeof *f->p);
  while (k < most && dot(f->res, f->res, d) > enough * enough) {
    double c = f->intercept ? -dot(f->m, f->p, d) / f->S : 0;
    memcpy(f->h, f->p, d * sizeof *f->h);
    f->x->curve(f->x, f->p, c, f->D, f->t, f->h);
    double alpha = rho / dot(f->p, f->h, d);
    axpy(alpha, f->p, f->s, d);
    axpy(alpha, f->t, f->z_s, n);
    axpy(-alpha, f->h, f->res, d);
    f->s_b += alpha * c;
    double next = precondition(f, d), beta = next / rho;
    for (size_t j = 0; j < d; j++) f->p[j] = f->h[j] + beta * f->p[j];
    rho = next;
    k++;
  }
}

/* The slope of the objective at w + t s, and its curvature there. */
static double slope_at(const struct solver *f, double t, double ws, double ss, double *curve) {
  double slope = 0, bend = 0;
  for (size_t i = 0; i < f->x->n; i++) {
    double D, r = loss_slope(f->y[i], f->z[i] + t * f->z_s[i], &D);
    slope += r * f->z_s[i];
    bend += D * (f->z_s[i] * f->z_s[i]);
  }
  *curve = ss + f->C * bend;
  return ws + t * ss + f->C * slope;
}

/* How far to go along s: where the slope has lost nine tenths of its size. Newton's method on the
 * slope, kept inside the bracket; the first try, 1, is what ends nearly every call. */
static double step_length(const struct solver *f) {
  size_t d = (size_t)f->x->d;
  double ws = dot(f->w, f->s, d), ss = dot(f->s, f->s, d), curve;
  double first = dot(f->g, f->s, d) + f->g_b * f->s_b, lo = 0, hi = 0, t = 1;
  if (!(first < 0)) return 0;
  for (int k = 0; k < 50; k++) {
    double slope = slope_at(f, t, ws, ss, &curve);
    if (slope <= -0.1 * first && slope >= 0.1 * first) return t;
    if (slope < 0) lo = t;
    else hi = t;
    double next = curve > 0 ? t - slope / curve : 10 * t;
    if (hi == 0) t = next < 10 * t ? next : 10 * t;
    else t = next > lo && next < hi ? next : 0.5 * (lo + hi);
  }
  return lo > 0 ? lo : t;
}

static double objective(const struct solver *f) {
  double loss = 0;
  for (size_t i = 0; i < f->x->n; i++) {
    double margin = f->y[i] * f->z[i];
    loss += nm__log1p(nm__exp(margin < 0 ? margin : -margin)) + (margin < 0 ? -margin : 0);
  }
  return 0.5 * dot(f->w, f->w, (size_t)f->x->d) + f->C * loss;
}

/* A Newton system is solved to this share of the gradient. Measured on noisy, separable, shifted
 * and badly scaled rows, tightening it towards the end (for the quadratic rate of the textbook)
 * costs as many products with X as it saves, and far more on hard separable ones. */
#define FORCING 0.1

/* Newton steps to the tolerance. The scores are computed afresh at every point, so the gradient
 * that is judged carries no drift. Twenty steps without a smaller gradient mean that rounding is
 * all that is left: the fit ends there and says that it has not converged. */
static void solve(struct solver *f, int max_iter, struct nm__logreg *out) {
  double best = 0, norm;
  int since = 0;
  for (int k = 0;; k++) {
    f->x->score(f->x, f->w, f->b, f->z);
    norm = gradient(f);
    out->iterations = k;
    if (k == 0 || norm < best) {
      best = norm;
      since = 0;
    }
    if (norm <= f->tol || k == max_iter || since++ == 20) break;
    prepare(f);
    direction(f, FORCING * norm > 0.5 * f->tol ? FORCING * norm : 0.5 * f->tol);
    double t = step_length(f);
    axpy(t, f->s, f->w, (size_t)f->x->d);
    f->b += t * f->s_b;
  }
  out->grad_norm = norm;
  out->converged = norm <= f->tol;
  out->objective = objective(f);
  out->b = f->b;
}

/* One slab holds every working vector. */
static bool allocate(struct solver *f) {
  size_t d = (size_t)f->x->d, n = (f->x->n + 3) / 4 * 4;
  double **over_d[] = {&f->g, &f->s, &f->m, &f->scale, &f->res, &f->p, &f->h};
  double **over_n[] = {&f->y, &f->z, &f->r, &f->D, &f->z_s, &f->t};
  size_t n_d = sizeof over_d / sizeof *over_d, n_n = sizeof over_n / sizeof *over_n;
  double *at = f->slab = nm__alloc(n_d * d + n_n * n, sizeof *at);
  if (!at) return false;
  for (size_t k = 0; k < n_d; k++, at += d) *over_d[k] = at;
  for (size_t k = 0; k < n_n; k++, at += n) *over_n[k] = at;
  return true;
}

/* ---- the public face ------------------------------------------------- */

static int check_options(const struct features *x, const struct nm__logreg_opts *o, nm_err *err) {
  if (x->d < 1 || (x->dense && x->ld < (size_t)x->d))
    return nm__fail(err, NM_EUSAGE, "logistic regression: %d features in rows of %zu", x->d,
                    x->ld);
  if (!(o->C >= 0) || !(o->C <= 1e12) || !(o->tol >= 0) || o->max_iter < 0)
    return nm__fail(err, NM_EUSAGE,
                    "logistic regression: C %g, tolerance %g, steps %d: each is 0 (the default) "
                    "or a positive number",
                    o->C, o->tol, o->max_iter);
  return NM_OK;
}

/* Labels become -1 and +1; the intercept starts at the log odds, the optimum for w = 0. */
static int set_labels(struct solver *f, const uint8_t *label, nm_err *err) {
  size_t n = f->x->n, n_one = 0;
  for (size_t i = 0; i < n; i++) {
    bool one = label[row_of(f->x, i)] != 0;
    f->y[i] = one ? 1 : -1;
    n_one += one;
  }
  if (n_one == 0 || n_one == n)
    return nm__fail(err, NM_EFORMAT,
                    "logistic regression needs rows of both classes: found %zu of class 0 and "
                    "%zu of class 1", n - n_one, n_one);
  if (f->intercept) f->b = nm__log((double)n_one / (double)(n - n_one));
  return NM_OK;
}

static int fit(const struct features *x, const uint8_t *label, const struct nm__logreg_opts *o,
               struct nm__logreg *out, nm_err *err) {
  struct solver f = {.x = x, .C = o->C > 0 ? o->C : 1, .tol = o->tol > 0 ? o->tol : 1e-6,
                     .intercept = !o->no_intercept};
  out->d = x->d;
  out->w = f.w = nm__alloc((size_t)x->d, sizeof *f.w);
  int st = NM_OK;
  if (!f.w || !allocate(&f)) st = nm__fail_memory(err, "logistic regression", 0);
  if (!st) st = set_labels(&f, label, err);
  if (!st) solve(&f, o->max_iter ? o->max_iter : 200, out);
  free(f.slab);
  if (st) nm__logreg_done(out);
  return st;
}

static int not_finite(nm_err *err, size_t row, size_t column, double value) {
  return nm__fail(err, NM_EFORMAT,
                  "logistic regression: row %zu, feature %zu is %g; every value must be finite",
                  row, column, value);
}

/* x - x is 0 for finite x and NaN otherwise. */
static bool is_finite(float x) { return x - x == 0; }

int nm__logreg_fit(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                   const uint8_t *label, const struct nm__logreg_opts *o, struct nm__logreg *out,
                   nm_err *err) {
  const struct nm__logreg_opts none = {0};
  struct features F = {.n = n, .d = d, .rows = rows, .dense = x, .ld = ld, .score = dense_score,
                       .back = dense_back, .curve = dense_curve, .moments = dense_moments};
  *out = (struct nm__logreg){0};
  if (!o) o = &none;
  int st = check_options(&F, o, err);
  if (st) return st;
  for (size_t i = 0; i < n; i++) {
    const float *r = x + row_of(&F, i) * ld;
    for (int j = 0; j < d; j++)
      if (!is_finite(r[j])) return not_finite(err, row_of(&F, i), (size_t)j, (double)r[j]);
  }
  return fit(&F, label, o, out, err);
}

int nm__logreg_fit_sparse(const struct nm__sparse *x, const uint32_t *rows, size_t n,
                          const uint8_t *label, const struct nm__logreg_opts *o,
                          struct nm__logreg *out, nm_err *err) {
  const struct nm__logreg_opts none = {0};
  struct features F = {.n = n, .d = x->d, .rows = rows, .sparse = x, .score = sparse_score,
                       .back = sparse_back, .curve = sparse_curve, .moments = sparse_moments};
  *out = (struct nm__logreg){0};
  if (!o) o = &none;
  int st = check_options(&F, o, err);
  if (st) return st;
  for (size_t i = 0; i < n; i++) {
    size_t row = row_of(&F, i);
    if (row >= x->n_rows)
      return nm__fail(err, NM_EUSAGE, "logistic regression: row %zu of %zu", row, x->n_rows);
    for (size_t e = x->ptr[row]; e < x->ptr[row + 1]; e++) {
      if (!is_finite(x->val[e])) return not_finite(err, row, x->idx[e], (double)x->val[e]);
      if (x->idx[e] >= (uint32_t)x->d)
        return nm__fail(err, NM_EFORMAT, "logistic regression: row %zu, feature %u of %d", row,
                        (unsigned)x->idx[e], x->d);
    }
  }
  return fit(&F, label, o, out, err);
}

void nm__logreg_done(struct nm__logreg *m) {
  free(m->w);
  *m = (struct nm__logreg){0};
}

/* The solver's own product, so that a score has the bits it had while fitting. */
double nm__logreg_score(const struct nm__logreg *m, const float *x) {
  struct features one = {.n = 1, .d = m->d, .dense = x, .ld = (size_t)m->d};
  double t[4];
  dense_score(&one, m->w, m->b, t);
  return t[0];
}

double nm__logreg_score_sparse(const struct nm__logreg *m, const struct nm__sparse *x, size_t row) {
  return sparse_dot(x, row, m->w) + m->b;
}

double nm__logistic(double z) {
  double e = nm__exp(z < 0 ? z : -z), u = 1.0 / (1.0 + e);
  return z < 0 ? e * u : u;
}
