/* linalg.c - Jacobi eigenvalues and singular values, Cholesky. */
#include "look/linalg.h"

#include <stdlib.h>
#include <string.h>
#include "tensor/math.h"

enum { SWEEPS = 60 };

double nm__dot(const double *a, const double *b, int n) {
  double s = 0;
  for (int i = 0; i < n; i++) s += a[i] * b[i];
  return s;
}

double nm__unit(double *v, int n) {
  double most = 0;                 /* scaled, so that small and large squares survive */
  for (int i = 0; i < n; i++) most = __builtin_fabs(v[i]) > most ? __builtin_fabs(v[i]) : most;
  if (most <= 0) return 0;
  for (int i = 0; i < n; i++) v[i] /= most;
  double len = nm__sqrt(nm__dot(v, v, n));
  for (int i = 0; i < n; i++) v[i] /= len;
  return len * most;
}

void nm__canonical_sign(double *v, int n) {
  int top = 0;
  for (int i = 1; i < n; i++)
    if (__builtin_fabs(v[i]) > __builtin_fabs(v[top])) top = i;
  if (n && v[top] < 0)
    for (int i = 0; i < n; i++) v[i] = -v[i];
}

static int check_finite(const double *a, size_t n, const char *what, nm_err *err) {
  for (size_t i = 0; i < n; i++)
    if (a[i] - a[i] != 0)
      return nm__fail(err, NM_EFAIL, "%s holds a value that is not finite", what);
  return NM_OK;
}

/* Cosine and sine of the rotation that makes the off-diagonal element of [[p, r], [r, q]] zero. */
static void angle(double p, double q, double r, double *c, double *s) {
  double t, theta = (q - p) / (2 * r);
  t = 1 / (__builtin_fabs(theta) + nm__sqrt(theta * theta + 1));
  if (theta * theta > 1e300) t = 1 / (2 * __builtin_fabs(theta));
  if (theta < 0) t = -t;
  *c = 1 / nm__sqrt(t * t + 1);
  *s = t * *c;
}

static void turn(double *a, double *b, int n, int step, double c, double s) {
  for (int i = 0; i < n; i++) {
    double x = a[(size_t)i * (size_t)step], y = b[(size_t)i * (size_t)step];
    a[(size_t)i * (size_t)step] = c * x - s * y;
    b[(size_t)i * (size_t)step] = s * x + c * y;
  }
}

/* Rows of v (n of length len) with their values, the largest first; equal ones keep their order. */
static void sort_rows(double *w, int k, double *v, int len, double *u, int ulen) {
  for (int i = 0; i < k; i++) {
    int top = i;
    for (int j = i + 1; j < k; j++)
      if (w[j] > w[top]) top = j;
    for (; top > i; top--) {
      double t = w[top];
      w[top] = w[top - 1], w[top - 1] = t;
      turn(v + (size_t)(top - 1) * (size_t)len, v + (size_t)top * (size_t)len, len, 1, 0, -1);
      turn(u + (size_t)(top - 1) * (size_t)ulen, u + (size_t)top * (size_t)ulen, ulen, 1, 0, -1);
    }
  }
}

static double off_diagonal(const double *a, int n) {
  double s = 0;
  for (int p = 0; p < n; p++)
    for (int q = p + 1; q < n; q++) s += a[p * n + q] * a[p * n + q];
  return s;
}

int nm__eigen_sym(double *a, int n, double *w, double *v, nm_err *err) {
  size_t all = (size_t)n * (size_t)n;
  int st = check_finite(a, all, "a matrix", err);
  if (st) return st;
  double size = nm__dot(a, a, (int)all);
  memset(v, 0, all * sizeof *v);
  for (int i = 0; i < n; i++) v[i * n + i] = 1;
  for (int k = 0; k < SWEEPS && off_diagonal(a, n) > 1e-32 * size; k++)
    for (int p = 0; p < n; p++)
      for (int q = p + 1; q < n; q++) {
        double c, s, r = a[p * n + q];
        if (r * r <= 1e-40 * size) continue;
        angle(a[p * n + p], a[q * n + q], r, &c, &s);
        turn(a + p, a + q, n, n, c, s);                /* columns, then rows */
        turn(a + p * n, a + q * n, n, 1, c, s);
        turn(v + p * n, v + q * n, n, 1, c, s);
      }
  for (int i = 0; i < n; i++) w[i] = a[i * n + i];
  sort_rows(w, n, v, n, v, 0);
  for (int i = 0; i < n; i++) nm__canonical_sign(v + i * n, n);
  return NM_OK;
}

/* Rotates the rows of b[k, len] until they are orthogonal; v[k, k] gathers the rotations. */
static void orthogonal_rows(double *b, int k, int len, double *v) {
  bool done = false;
  for (int sweep = 0; sweep < SWEEPS && !done; sweep++) {
    done = true;
    for (int p = 0; p < k; p++)
      for (int q = p + 1; q < k; q++) {
        double *x = b + (size_t)p * (size_t)len, *y = b + (size_t)q * (size_t)len, c, s;
        double xx = nm__dot(x, x, len), yy = nm__dot(y, y, len), xy = nm__dot(x, y, len);
        if (xy * xy <= 1e-30 * xx * yy) continue;
        done = false;
        angle(xx, yy, xy, &c, &s);
        turn(x, y, len, 1, c, s);
        turn(v + (size_t)p * (size_t)k, v + (size_t)q * (size_t)k, k, 1, c, s);
      }
  }
}

/* The side with fewer rows is rotated: rows of a for m <= n, else columns. */
int nm__svd(const double *a, int m, int n, double *s, double *ut, double *vt, nm_err *err) {
  int k = m < n ? m : n, len = m < n ? n : m;
  size_t cells = (size_t)k * (size_t)len;
  double *b = nm__alloc(cells + (size_t)k * (size_t)k, sizeof *b), *r = b + cells;
  int st = b ? check_finite(a, (size_t)m * (size_t)n, "a matrix", err)
             : nm__fail_memory(err, "a matrix", cells * sizeof *b);
  if (st) return free(b), st;
  for (int i = 0; i < k; i++) {
    r[i * k + i] = 1;
    for (int j = 0; j < len; j++)
      b[(size_t)i * (size_t)len + (size_t)j] =
          m < n ? a[(size_t)i * (size_t)n + (size_t)j] : a[(size_t)j * (size_t)n + (size_t)i];
  }
  orthogonal_rows(b, k, len, r);
  for (int i = 0; i < k; i++) s[i] = nm__unit(b + (size_t)i * (size_t)len, len);
  double *wide = m < n ? vt : ut, *narrow = m < n ? ut : vt;
  sort_rows(s, k, b, len, r, k);
  memcpy(wide, b, cells * sizeof *b);
  memcpy(narrow, r, (size_t)k * (size_t)k * sizeof *r);
  for (int i = 0; i < k; i++) {
    double *v = vt + (size_t)i * (size_t)n, *u = ut + (size_t)i * (size_t)m, before = 0;
    for (int j = 0; j < n && before == 0; j++) before = v[j];
    nm__canonical_sign(v, n);
    for (int j = 0; j < n; j++)
      if (v[j] != 0) {
        for (int l = 0; v[j] != before && l < m; l++) u[l] = -u[l];
        break;
      }
  }
  free(b);
  return NM_OK;
}

int nm__solve_spd(double *a, int n, double *b, nm_err *err) {
  for (int j = 0; j < n; j++) {
    double d = a[j * n + j] - nm__dot(a + j * n, a + j * n, j);
    if (!(d > 0)) return nm__fail(err, NM_EFAIL, "a matrix of %d rows is not positive definite", n);
    a[j * n + j] = nm__sqrt(d);
    for (int i = j + 1; i < n; i++)
      a[i * n + j] = (a[i * n + j] - nm__dot(a + i * n, a + j * n, j)) / a[j * n + j];
  }
  for (int i = 0; i < n; i++) b[i] = (b[i] - nm__dot(a + i * n, b, i)) / a[i * n + i];
  for (int i = n - 1; i >= 0; i--) {
    for (int k = i + 1; k < n; k++) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
  return NM_OK;
}

/* By the eigenvectors of the smaller of x x' and x' x. */
int nm__first_component(const double *x, int m, int n, double *out, double *share, nm_err *err) {
  int k = m < n ? m : n;
  size_t kk = (size_t)k * (size_t)k;
  double *g = nm__alloc(2 * kk + (size_t)k, sizeof *g), total = 0;
  if (!g) return nm__fail_memory(err, "a matrix of products", 2 * kk * sizeof *g);
  for (int r = 0; r < m && m >= n; r++)
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++)
        g[i * k + j] += x[(size_t)r * (size_t)n + (size_t)i] * x[(size_t)r * (size_t)n + (size_t)j];
  for (int i = 0; i < m && m < n; i++)
    for (int j = 0; j <= i; j++)
      g[i * k + j] = g[j * k + i] =
          nm__dot(x + (size_t)i * (size_t)n, x + (size_t)j * (size_t)n, n);
  int st = nm__eigen_sym(g, k, g + 2 * kk, g + kk, err);
  for (int i = 0; i < k; i++) total += g[2 * kk + (size_t)i];
  *share = total > 0 ? g[2 * kk] / total : 0;
  memset(out, 0, sizeof *out * (size_t)n);
  for (int i = 0; i < n && m >= n; i++) out[i] = g[kk + (size_t)i];
  for (int i = 0; i < m && m < n; i++)
    for (int d = 0; d < n; d++) out[d] += g[kk + (size_t)i] * x[(size_t)i * (size_t)n + (size_t)d];
  nm__unit(out, n);
  nm__canonical_sign(out, n);
  free(g);
  return st;
}
