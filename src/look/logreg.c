/* logreg.c - L2 logistic regression to the optimum, from dense or sparse rows, of one label or of
 * many on the same rows.
 *
 * Truncated Newton with conjugate gradients, after Lin, Weng and Keerthi, "Trust region Newton
 * method for large-scale logistic regression" (JMLR 9, 2008), with the Jacobi preconditioner of
 * Hsia, Chiang and Lin, "Preconditioned conjugate gradient methods in truncated Newton frameworks"
 * (ACML 2018): feature scales of 1e-3 next to 1e2 are normal here. Three things are ours:
 *
 * - Gradients are exact, products with the Hessian need not be: a direction that is a little off
 *   costs a little of the next step, while the point where the exact gradient vanishes stays the
 *   same. So the products may read rounded rows (logreg_dense.c).
 * - The systems are solved for w and c = b + w.mu, mu near the means of the features: the intercept
 *   carries no penalty, and a model's activations have dimensions whose mean is far larger than
 *   their spread.
 * - Instead of a trust region, a search for the zero of the slope along each direction. It costs n
 *   exponentials and no pass over X, since conjugate gradients yield X s on the way; the
 *   objective is strictly convex, so nothing is rejected; and a slope can still be told from zero
 *   where a difference of objectives has long drowned in rounding, which the small absolute
 *   tolerance needs.
 *
 * Many labels go through all of it side by side; what they share is each reading of the rows. C is
 * folded into the loss's derivatives: r = C loss', D = C loss''. */
#include "look/logreg.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/math.h"
#include "tensor/wide.h"

/* ---- vectors ----------------------------------------------------------- */

typedef double pair __attribute__((vector_size(16)));

static inline pair load(const double *p) {
  pair v;
  memcpy(&v, p, sizeof v);
  return v;
}

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

/* ---- the loss ------------------------------------------------------------ */

/* The logistic loss at margin yz: its derivative in z and, through *curve, the second one; both 0
 * where y is, in a row that is not the fit's. */
static double loss_slope(double y, double z, double *curve) {
  double e = nm__exp(z < 0 ? z : -z), u = 1.0 / (1.0 + e);
  *curve = y * y * (e * u * u);
  return y * z > 0 ? -y * e * u : -y * u;
}

void nm__lr_loss(struct nm__lr_fit *f, size_t i, size_t end) {
  for (; i < end; i++) {
    f->r[i] = f->C * loss_slope(f->y[i], f->z[i], &f->D[i]);
    f->D[i] *= f->C;
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

static void sparse_exact(struct nm__lr_rows *x, struct nm__lr_fit **v, int m) {
  for (int l = 0; l < m; l++) {
    struct nm__lr_fit *f = v[l];
    memset(f->g, 0, (size_t)x->d * sizeof *f->g);
    f->g_b = f->S = 0;
    for (size_t i = 0; i < x->n; i++) f->z[i] = sparse_dot(x->own, nm__lr_row(x, i), f->w) + f->b;
    nm__lr_loss(f, 0, x->n);
    for (size_t i = 0; i < x->n; i++) {
      sparse_add(x->own, nm__lr_row(x, i), f->r[i], f->g);
      f->g_b += f->r[i];
      f->S += f->D[i];
    }
  }
}

static void sparse_curve(struct nm__lr_rows *x, struct nm__lr_fit **v, int m) {
  for (int l = 0; l < m; l++) {
    struct nm__lr_fit *f = v[l];
    memset(f->h, 0, (size_t)x->d * sizeof *f->h);
    f->h_c = 0;
    for (size_t i = 0; i < x->n; i++) {
      f->t[i] = sparse_dot(x->own, nm__lr_row(x, i), f->p) + f->p_c;
      f->h_c += f->D[i] * f->t[i];
      sparse_add(x->own, nm__lr_row(x, i), f->D[i] * f->t[i], f->h);
    }
  }
}

/* Words are counts near zero: they are left where they are. */
static int sparse_new(struct nm__lr_rows *x, const struct nm__sparse *s, nm_err *err) {
  x->centre = nm__alloc(2 * (size_t)x->d, sizeof *x->centre);
  if (!x->centre) return nm__fail_memory(err, "logistic regression", 0);
  x->spread = x->centre + x->d;
  x->own = (void *)(uintptr_t)s;
  x->exact = sparse_exact;
  x->curve = sparse_curve;
  for (size_t i = 0; i < x->n; i++) {
    size_t row = nm__lr_row(x, i);
    for (size_t e = s->ptr[row]; e < s->ptr[row + 1]; e++)
      x->spread[s->idx[e]] += (double)s->val[e] * (double)s->val[e] / (double)x->n;
  }
  return NM_OK;
}

/* ---- the solver ------------------------------------------------------ */

struct solver {
  struct nm__lr_rows *x;
  struct nm__lr_fit *all, **work;  /* [n]; those a phase is for */
  int n, n_work, max_iter;
  bool intercept;
};

/* The gradient out of g = X^T r, its norm, and whether the fit is at its end. Twenty steps without
 * a smaller gradient mean that rounding is all that is left: it ends and says so. */
static void judge(struct solver *v, struct nm__lr_fit *f) {
  size_t d = (size_t)v->x->d;
  if (!v->intercept) f->g_b = 0;
  axpy(1, f->w, f->g, d);
  f->norm = nm__sqrt(dot(f->g, f->g, d) + f->g_b * f->g_b);
  if (f->steps == 0 || f->norm < f->best) {
    f->best = f->norm;
    f->since = 0;
  }
  f->done = f->norm <= f->tol || f->steps == v->max_iter || f->since++ == 20;
}

/* The residual's norm in the coordinates of w and b, where the tolerance is stated. */
static double residual(const struct solver *v, const struct nm__lr_fit *f) {
  double s = f->res_c * f->res_c;
  for (int j = 0; j < v->x->d; j++) {
    double r = f->res[j] + (v->intercept ? v->x->centre[j] * f->res_c : 0);
    s += r * r;
  }
  return nm__sqrt(s);
}

/* What is known of the inverse of H, applied to the residual, into h; returns the product of both.
 * The diagonal, corrected by the pairs (p, H p) of earlier systems in the two loops of limited
 * memory BFGS: systems of neighbouring points have nearly the same slow directions (Morales and
 * Nocedal, "Automatic preconditioning by limited memory quasi-Newton updating", SIAM J. Optim. 10,
 * 2000). Here that halves the products. */
static double precondition(struct nm__lr_fit *f, size_t d) {
  double a[NM__LR_PAIRS];
  memcpy(f->h, f->res, d * sizeof *f->h);
  f->h_c = f->res_c;
  for (int k = f->n_old - 1; k >= 0; k--) {
    const double *s = f->pair[k], *y = s + d + 1;
    a[k] = (dot(s, f->h, d) + s[d] * f->h_c) / (dot(s, y, d) + s[d] * y[d]);
    axpy(-a[k], y, f->h, d);
    f->h_c -= a[k] * y[d];
  }
  for (size_t j = 0; j < d; j++) f->h[j] /= f->scale[j];
  f->h_c /= f->scale_c;
  for (int k = 0; k < f->n_old; k++) {
    const double *s = f->pair[k], *y = s + d + 1;
    double b = (dot(y, f->h, d) + y[d] * f->h_c) / (dot(s, y, d) + s[d] * y[d]);
    axpy(a[k] - b, s, f->h, d);
    f->h_c += (a[k] - b) * s[d];
  }
  return dot(f->res, f->h, d) + f->res_c * f->h_c;
}

/* p and H p, for the systems after this one. The oldest of this system goes when it is full. */
static void remember(struct nm__lr_fit *f, size_t d, bool intercept) {
  if (f->n_pairs == 2 * NM__LR_PAIRS || f->n_pairs - f->n_old == NM__LR_PAIRS) {
    double *first = f->pair[f->n_old];
    memmove(f->pair + f->n_old, f->pair + f->n_old + 1,
            (size_t)(f->n_pairs - f->n_old - 1) * sizeof *f->pair);
    f->pair[--f->n_pairs] = first;
  }
  double *s = f->pair[f->n_pairs++], *y = s + d + 1;
  memcpy(s, f->p, d * sizeof *s);
  memcpy(y, f->h, d * sizeof *y);
  s[d] = intercept ? f->p_c : 0;
  y[d] = intercept ? f->h_c : 0;
}

/* The newest pairs come into use. */
static void renew(struct nm__lr_fit *f) {
  int drop = f->n_pairs > NM__LR_PAIRS ? f->n_pairs - NM__LR_PAIRS : 0;
  double *was[2 * NM__LR_PAIRS];
  memcpy(was, f->pair, sizeof was);
  for (int k = 0; k < 2 * NM__LR_PAIRS; k++) f->pair[k] = was[(k + drop) % (2 * NM__LR_PAIRS)];
  f->n_old = f->n_pairs -= drop;
}

/* What p adds to every score beside the centred features. */
static void shift_of(const struct solver *v, struct nm__lr_fit *f) {
  if (!v->intercept) f->p_c = dot(v->x->centre, f->p, (size_t)v->x->d);
}

/* A Newton system is solved to this share of the gradient. Measured on noisy, separable, shifted
 * and badly scaled rows, tightening it towards the end (for the quadratic rate of the textbook)
 * costs as many products with X as it saves, and far more on hard separable ones. */
#define FORCING 0.1

/* The system at the point: H s = -g. The diagonal is that of the features' spread under the mean
 * of D. S has a floor, so that rows which are all predicted with certainty do not send the
 * intercept to infinity. */
static void begin(struct solver *v, struct nm__lr_fit *f) {
  const struct nm__lr_rows *x = v->x;
  size_t d = (size_t)x->d;
  double floor = 1e-14 * f->C * (double)x->n, S = f->S > floor ? f->S : floor;
  f->scale_c = S;
  f->res_c = v->intercept ? -f->g_b : 0;
  for (size_t j = 0; j < d; j++) {
    double mu = x->centre[j];
    f->scale[j] = 1 + S * (x->spread[j] + (v->intercept ? 0 : mu * mu));
    f->res[j] = -(f->g[j] - mu * f->g_b);
  }
  memset(f->s, 0, d * sizeof *f->s);
  memset(f->z_s, 0, x->n4 * sizeof *f->z_s);
  f->s_b = 0;                      /* of c until the end */
  renew(f);
  f->rho = precondition(f, d);
  memcpy(f->p, f->h, d * sizeof *f->p);
  f->p_c = f->h_c;
  shift_of(v, f);
  f->enough = FORCING * f->norm > 0.5 * f->tol ? FORCING * f->norm : 0.5 * f->tol;
  f->left = 50 + 3 * (d < x->n ? (int)d : (int)x->n);
  f->solving = f->rho > 0;
}

/* One conjugate gradient out of the product that curve left. */
static void follow(struct solver *v, struct nm__lr_fit *f) {
  size_t d = (size_t)v->x->d;
  if (!v->intercept) axpy(f->h_c, v->x->centre, f->h, d);
  axpy(1, f->p, f->h, d);
  double along = dot(f->p, f->h, d) + (v->intercept ? f->p_c * f->h_c : 0);
  double alpha = along > 0 ? f->rho / along : 0;
  if (along > 0) remember(f, d, v->intercept);
  axpy(alpha, f->p, f->s, d);
  axpy(alpha, f->t, f->z_s, v->x->n);
  axpy(-alpha, f->h, f->res, d);
  if (v->intercept) {
    f->s_b += alpha * f->p_c;
    f->res_c -= alpha * f->h_c;
  }
  if (!(along > 0) || --f->left == 0 || residual(v, f) <= f->enough) {
    f->solving = false;
    return;
  }
  double next = precondition(f, d), beta = next / f->rho;
  for (size_t j = 0; j < d; j++) f->p[j] = f->h[j] + beta * f->p[j];
  f->p_c = f->h_c + beta * f->p_c;
  shift_of(v, f);
  f->rho = next;
}

/* The slope of the objective at w + t s, and its curvature there. What it is at 0, `first`, is
 * exact, while z_s is as rough as the products: so only changes of the loss are taken along it. */
static double slope_at(const struct nm__lr_fit *f, size_t n, double t, double first, double ss,
                       double *curve) {
  double change = 0, bend = 0;
  for (size_t i = 0; i < n; i++) {
    double D, r = loss_slope(f->y[i], f->z[i] + t * f->z_s[i], &D);
    change += (f->C * r - f->r[i]) * f->z_s[i];
    bend += D * (f->z_s[i] * f->z_s[i]);
  }
  *curve = ss + f->C * bend;
  return first + t * ss + change;
}

/* How far to go along s: where the slope has lost nine tenths of its size. Newton's method on the
 * slope, kept inside the bracket; the first try, 1, is what ends nearly every call. */
static double step_length(const struct nm__lr_fit *f, size_t n, size_t d) {
  double ss = dot(f->s, f->s, d), curve;
  double first = dot(f->g, f->s, d) + f->g_b * f->s_b, lo = 0, hi = 0, t = 1;
  if (!(first < 0)) return 0;
  for (int k = 0; k < 50; k++) {
    double slope = slope_at(f, n, t, first, ss, &curve);
    if (slope <= -0.1 * first && slope >= 0.1 * first) return t;
    if (slope < 0) lo = t;
    else hi = t;
    double next = curve > 0 ? t - slope / curve : 10 * t;
    if (hi == 0) t = next < 10 * t ? next : 10 * t;
    else t = next > lo && next < hi ? next : 0.5 * (lo + hi);
  }
  return lo > 0 ? lo : t;
}

static double objective(const struct nm__lr_fit *f, size_t n, size_t d) {
  double loss = 0;
  for (size_t i = 0; i < n; i++) {
    double margin = f->y[i] * f->z[i];
    double one = nm__log1p(nm__exp(margin < 0 ? margin : -margin)) + (margin < 0 ? -margin : 0);
    loss += f->y[i] != 0 ? one : 0;
  }
  return 0.5 * dot(f->w, f->w, d) + f->C * loss;
}

/* To the next point, along the direction. */
static void move(struct solver *v, struct nm__lr_fit *f) {
  size_t d = (size_t)v->x->d;
  if (v->intercept) f->s_b -= dot(v->x->centre, f->s, d);
  double t = step_length(f, v->x->n, d);
  axpy(t, f->s, f->w, d);
  f->b += t * f->s_b;
  f->steps++;
}

/* The fits that are not at their end, or whose system is still being solved, into work. */
static int gather(struct solver *v, bool solving) {
  v->n_work = 0;
  for (int l = 0; l < v->n; l++)
    if (solving ? v->all[l].solving : !v->all[l].done) v->work[v->n_work++] = &v->all[l];
  return v->n_work;
}

static void judge_tile(void *arg, int l, int thread) {
  struct solver *v = arg;
  (void)thread;
  judge(v, v->work[l]);
  if (!v->work[l]->done) begin(v, v->work[l]);
}

static void follow_tile(void *arg, int l, int thread) {
  struct solver *v = arg;
  (void)thread;
  follow(v, v->work[l]);
}

static void move_tile(void *arg, int l, int thread) {
  struct solver *v = arg;
  (void)thread;
  move(v, v->work[l]);
}

/* Newton steps of all fits together. The scores are computed afresh at every point, so the
 * gradient that is judged carries no drift. */
static void solve(struct solver *v) {
  while (gather(v, false)) {
    v->x->exact(v->x, v->work, v->n_work);
    nm__pool_run(v->x->pool, v->n_work, judge_tile, v);
    while (gather(v, true)) {
      v->x->curve(v->x, v->work, v->n_work);
      nm__pool_run(v->x->pool, v->n_work, follow_tile, v);
    }
    nm__pool_run(v->x->pool, gather(v, false), move_tile, v);
  }
}

/* One slab holds every working vector. */
static bool allocate(struct nm__lr_fit *f, const struct nm__lr_rows *x) {
  size_t d = (size_t)x->d;
  double **over_d[] = {&f->g, &f->s, &f->scale, &f->res, &f->p, &f->h};
  double **over_n[] = {&f->y, &f->z, &f->r, &f->D, &f->z_s, &f->t};
  size_t n_d = sizeof over_d / sizeof *over_d, n_n = sizeof over_n / sizeof *over_n;
  size_t pairs = 2 * NM__LR_PAIRS * 2 * (d + 1);
  double *at = f->slab = nm__alloc(n_d * d + n_n * x->n4 + pairs, sizeof *at);
  if (!at) return false;
  for (size_t k = 0; k < n_d; k++, at += d) *over_d[k] = at;
  for (size_t k = 0; k < n_n; k++, at += x->n4) *over_n[k] = at;
  for (size_t k = 0; k < 2 * NM__LR_PAIRS; k++, at += 2 * (d + 1)) f->pair[k] = at;
  return true;
}

/* ---- the public face ------------------------------------------------- */

static int check_options(int d, size_t ld, const struct nm__logreg_opts *o, nm_err *err) {
  if (d < 1 || ld < (size_t)d)
    return nm__fail(err, NM_EUSAGE, "logistic regression: %d features in rows of %zu", d, ld);
  if (!(o->C >= 0) || !(o->C <= 1e12) || !(o->tol >= 0) || o->max_iter < 0)
    return nm__fail(err, NM_EUSAGE,
                    "logistic regression: C %g, tolerance %g, steps %d: each is 0 (the default) "
                    "or a positive number",
                    o->C, o->tol, o->max_iter);
  return NM_OK;
}

/* Labels become -1 and +1; the intercept starts at the log odds, the optimum for w = 0. */
static int set_labels(struct nm__lr_fit *f, const struct nm__lr_rows *x, const uint8_t *label,
                      bool intercept, nm_err *err) {
  size_t n = 0, n_one = 0;
  for (size_t i = 0; i < x->n; i++) {
    uint8_t one = label[nm__lr_row(x, i)];
    f->y[i] = one == NM__LOGREG_SKIP ? 0 : one ? 1 : -1;
    n += one != NM__LOGREG_SKIP;
    n_one += f->y[i] > 0;
  }
  if (n_one == 0 || n_one == n)
    return nm__fail(err, NM_EFORMAT,
                    "logistic regression needs rows of both classes: found %zu of class 0 and "
                    "%zu of class 1", n - n_one, n_one);
  if (intercept) f->b = nm__log((double)n_one / (double)(n - n_one));
  return NM_OK;
}

static int start(struct solver *v, int l, const uint8_t *label, const struct nm__logreg_opts *o,
                 struct nm__logreg *out, nm_err *err) {
  struct nm__lr_fit *f = &v->all[l];
  *f = (struct nm__lr_fit){.C = o->C > 0 ? o->C : 1, .tol = o->tol > 0 ? o->tol : 1e-6};
  out->d = v->x->d;
  out->w = f->w = nm__alloc((size_t)v->x->d, sizeof *f->w);
  if (!f->w || !allocate(f, v->x)) return nm__fail_memory(err, "logistic regression", 0);
  return set_labels(f, v->x, label, v->intercept, err);
}

/* The labels' fits on rows that are ready; at most NM__LR_MOST of them. */
static int fit(struct nm__lr_rows *x, const uint8_t *const *label, int n,
               const struct nm__logreg_opts *o, struct nm__logreg *out, nm_err *err) {
  struct solver v = {.x = x, .n = n, .max_iter = o->max_iter ? o->max_iter : 200,
                     .intercept = !o->no_intercept};
  int st = NM_OK;
  v.all = nm__alloc((size_t)n, sizeof *v.all);
  v.work = nm__alloc((size_t)n, sizeof *v.work);
  if (!v.all || !v.work) st = nm__fail_memory(err, "logistic regression", 0);
  for (int l = 0; l < n && !st; l++) st = start(&v, l, label[l], o, &out[l], err);
  if (!st) solve(&v);
  for (int l = 0; l < n && !st; l++) {
    struct nm__lr_fit *f = &v.all[l];
    out[l].grad_norm = f->norm;
    out[l].iterations = f->steps;
    out[l].converged = f->norm <= f->tol;
    out[l].objective = objective(f, x->n, (size_t)x->d);
    out[l].b = f->b;
  }
  for (int l = 0; v.all && l < n; l++) free(v.all[l].slab);
  free(v.all);
  free(v.work);
  return st;
}

int nm__logreg_fit_many(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                        const uint8_t *const *label, int n_labels, const struct nm__logreg_opts *o,
                        struct nm__logreg *out, nm_err *err) {
  const struct nm__logreg_opts none = {0};
  if (!o) o = &none;
  struct nm__lr_rows r = {.n = n, .n4 = (n + 3) / 4 * 4, .d = d, .rows = rows, .pool = o->pool};
  memset(out, 0, (size_t)n_labels * sizeof *out);
  int st = check_options(d, ld, o, err), most = n_labels < NM__LR_MOST ? n_labels : NM__LR_MOST;
  if (!st && n == 0)
    st = nm__fail(err, NM_EFORMAT, "logistic regression needs rows of both classes: found none");
  if (st) return st;
  st = nm__lr_dense_new(&r, x, ld, o->C > 0 ? o->C : 1, most, err);
  for (int l = 0; l < n_labels && !st; l += most) {
    int k = n_labels - l < most ? n_labels - l : most;
    st = fit(&r, label + l, k, o, out + l, err);
  }
  nm__lr_dense_free(&r);
  for (int l = 0; l < n_labels && st; l++) nm__logreg_done(&out[l]);
  return st;
}

int nm__logreg_fit(const float *x, size_t ld, int d, const uint32_t *rows, size_t n,
                   const uint8_t *label, const struct nm__logreg_opts *o, struct nm__logreg *out,
                   nm_err *err) {
  return nm__logreg_fit_many(x, ld, d, rows, n, &label, 1, o, out, err);
}

static int not_finite(nm_err *err, size_t row, size_t column, double value) {
  return nm__fail(err, NM_EFORMAT,
                  "logistic regression: row %zu, feature %zu is %g; every value must be finite",
                  row, column, value);
}

/* x - x is 0 for finite x and NaN otherwise. */
static bool is_finite(float x) { return x - x == 0; }

int nm__logreg_fit_sparse(const struct nm__sparse *x, const uint32_t *rows, size_t n,
                          const uint8_t *label, const struct nm__logreg_opts *o,
                          struct nm__logreg *out, nm_err *err) {
  const struct nm__logreg_opts none = {0};
  struct nm__lr_rows F = {.n = n, .n4 = (n + 3) / 4 * 4, .d = x->d, .rows = rows};
  *out = (struct nm__logreg){0};
  if (!o) o = &none;
  int st = check_options(x->d, (size_t)(x->d > 0 ? x->d : 0), o, err);
  if (st) return st;
  for (size_t i = 0; i < n; i++) {
    size_t row = nm__lr_row(&F, i);
    if (row >= x->n_rows)
      return nm__fail(err, NM_EUSAGE, "logistic regression: row %zu of %zu", row, x->n_rows);
    for (size_t e = x->ptr[row]; e < x->ptr[row + 1]; e++) {
      if (!is_finite(x->val[e])) return not_finite(err, row, x->idx[e], (double)x->val[e]);
      if (x->idx[e] >= (uint32_t)x->d)
        return nm__fail(err, NM_EFORMAT, "logistic regression: row %zu, feature %u of %d", row,
                        (unsigned)x->idx[e], x->d);
    }
  }
  st = sparse_new(&F, x, err);
  if (!st) st = fit(&F, &label, 1, o, out, err);
  free(F.centre);
  if (st) nm__logreg_done(out);
  return st;
}

void nm__logreg_done(struct nm__logreg *m) {
  free(m->w);
  *m = (struct nm__logreg){0};
}

/* The solver's own product, so that a score has the bits it had while fitting. */
double nm__logreg_score(const struct nm__logreg *m, const float *x) {
  return nm__wide_of(nm__kern_find(NULL))->dot1(x, m->w, m->d) + m->b;
}

double nm__logreg_score_sparse(const struct nm__logreg *m, const struct nm__sparse *x, size_t row) {
  return sparse_dot(x, row, m->w) + m->b;
}

double nm__logistic(double z) {
  double e = nm__exp(z < 0 ? z : -z), u = 1.0 / (1.0 + e);
  return z < 0 ? e * u : u;
}
