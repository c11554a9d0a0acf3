/* linalg_test.c - eigenvectors, singular values and solutions by their defining equations, on full,
 * flat, repeated and hostile matrices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "look/linalg.h"

static double draw(uint64_t seed, uint64_t i) {
  return (double)(nm__rand_at(seed, 1, i) >> 11) / 9007199254740992.0 - 0.5;
}

static void eigen_holds(const double *given, int n, double tol) {
  size_t all = (size_t)n * (size_t)n;
  double *a = malloc(all * sizeof *a), *w = malloc((size_t)n * sizeof *w),
         *v = malloc(all * sizeof *v);
  double size = 0;
  memcpy(a, given, all * sizeof *a);
  for (size_t i = 0; i < all; i++) size = fabs(given[i]) > size ? fabs(given[i]) : size;
  assert_int_equal(nm__eigen_sym(a, n, w, v, NULL), 0);
  for (int k = 0; k < n; k++) {
    const double *x = v + k * n;
    int top = 0;
    assert_true(!k || w[k] <= w[k - 1]);
    for (int i = 0; i < n; i++) {
      double y = 0;
      for (int j = 0; j < n; j++) y += given[i * n + j] * x[j];
      assert_true(fabs(y - w[k] * x[i]) <= tol * (size + 1e-300) * n);
      if (fabs(x[i]) > fabs(x[top])) top = i;
    }
    assert_true(x[top] > 0);
    for (int l = 0; l <= k; l++)
      assert_true(fabs(nm__dot(x, v + l * n, n) - (l == k)) < 1e-12 * n);
  }
  free(a);
  free(w);
  free(v);
}

static void eigenvalues(void **state) {
  (void)state;
  for (int n = 1; n <= 40; n += n < 6 ? 1 : 17)
    for (uint64_t s = 0; s < 4; s++) {
      double *a = malloc(sizeof *a * (size_t)(n * n));
      for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
          a[i * n + j] = a[j * n + i] = s == 3 ? (i == j)
                                               : draw(s, (uint64_t)(i * n + j)) * (s == 1   ? 1e-140
                                                                                   : s == 2 ? 1e100
                                                                                            : 1);
      eigen_holds(a, n, 1e-13);
      free(a);
    }
  double a[4] = {2, 1, 1, 2}, w[2], v[4];
  assert_int_equal(nm__eigen_sym(a, 2, w, v, NULL), 0);
  assert_true(fabs(w[0] - 3) < 1e-15 && fabs(w[1] - 1) < 1e-15 && fabs(v[0] - sqrt(0.5)) < 1e-15);
  double bad[4] = {1, NAN, NAN, 1};
  assert_int_equal(nm__eigen_sym(bad, 2, w, v, NULL), NM_EFAIL);
}

static void singular_values(void **state) {
  (void)state;
  static const int sizes[][2] = {{1, 1}, {3, 3}, {2, 7}, {7, 2}, {12, 30}, {30, 12}};
  for (int t = 0; t < 6; t++)
    for (int flat = 0; flat < 2; flat++) {
      int m = sizes[t][0], n = sizes[t][1], k = m < n ? m : n;
      double *a = malloc(sizeof *a * (size_t)(m * n)), s[12];
      double *u = malloc(sizeof *u * (size_t)(k * m)), *v = malloc(sizeof *v * (size_t)(k * n));
      for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)                  /* flat: rank one */
          a[i * n + j] = flat ? (i + 1.0) * (j - 0.5) : draw(9, (uint64_t)(i * n + j + t * 1000));
      assert_int_equal(nm__svd(a, m, n, s, u, v, NULL), 0);
      for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
          double x = 0;
          for (int l = 0; l < k; l++) x += u[l * m + i] * s[l] * v[l * n + j];
          assert_true(fabs(x - a[i * n + j]) < 1e-12 * (1 + s[0]));
        }
      for (int l = 0; l < k; l++) {
        int top = 0;
        assert_true(s[l] >= 0 && (!l || s[l] <= s[l - 1]));
        for (int j = 0; j < n; j++) top = fabs(v[l * n + j]) > fabs(v[l * n + top]) ? j : top;
        if (s[l] > 1e-9) assert_true(v[l * n + top] > 0);
        if (s[l] > 1e-9) assert_true(fabs(nm__dot(u + l * m, u + l * m, m) - 1) < 1e-12);
        if (flat && l) assert_true(s[l] < 1e-9 * s[0]);
      }
      free(a);
      free(u);
      free(v);
    }
}

static void solutions(void **state) {
  (void)state;
  enum { N = 9 };
  double b[N][N], a[N * N], x[N], want[N];
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) b[i][j] = draw(4, (uint64_t)(i * N + j));
  for (int i = 0; i < N; i++) {
    want[i] = i - 3.5;
    for (int j = 0; j < N; j++) {
      a[i * N + j] = i == j;
      for (int k = 0; k < N; k++) a[i * N + j] += b[i][k] * b[j][k];
    }
  }
  for (int i = 0; i < N; i++) x[i] = nm__dot(a + i * N, want, N);
  assert_int_equal(nm__solve_spd(a, N, x, NULL), 0);
  for (int i = 0; i < N; i++) assert_true(fabs(x[i] - want[i]) < 1e-12);
  double not[4] = {1, 2, 2, 1}, y[2] = {1, 1};
  assert_int_equal(nm__solve_spd(not, 2, y, NULL), NM_EFAIL);
}

/* A cloud stretched along one direction: the first component is that direction, from either side
 * of the shape of the matrix. */
static void components(void **state) {
  (void)state;
  for (int wide = 0; wide < 2; wide++) {
    int m = wide ? 8 : 60, n = wide ? 40 : 6;
    double *x = malloc(sizeof *x * (size_t)(m * n)), d[40], out[40], share;
    for (int j = 0; j < n; j++) d[j] = draw(6, (uint64_t)j);
    nm__unit(d, n);
    nm__canonical_sign(d, n);
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++)
        x[i * n + j] = 20 * draw(7, (uint64_t)i) * d[j] + 1e-5 * draw(8, (uint64_t)(i * n + j));
    assert_int_equal(nm__first_component(x, m, n, out, &share, NULL), 0);
    assert_true(nm__dot(out, d, n) > 1 - 1e-9 && share > 0.999999);
    free(x);
  }
  double zero[6] = {0}, out[3], share;
  assert_int_equal(nm__first_component(zero, 2, 3, out, &share, NULL), 0);
  assert_true(share == 0 && out[0] == 0 && out[2] == 0);
}

static void units(void **state) {
  (void)state;
  double tiny[2] = {3e-200, -4e-200}, huge[2] = {3e200, 4e200}, zero[2] = {0, 0};
  assert_true(fabs(nm__unit(tiny, 2) / 5e-200 - 1) < 1e-14 && fabs(tiny[1] + 0.8) < 1e-15);
  assert_true(fabs(nm__unit(huge, 2) / 5e200 - 1) < 1e-14 && fabs(huge[0] - 0.6) < 1e-15);
  assert_true(nm__unit(zero, 2) == 0 && zero[0] == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(eigenvalues), cmocka_unit_test(singular_values),
      cmocka_unit_test(solutions), cmocka_unit_test(components), cmocka_unit_test(units)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
