/* look_test.c - probes against liblinear and against a gradient computed independently, metrics
 * against values worked by hand, splits, shuffled labels, bag of words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <linear.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/probe.h"

/* ---- random problems ------------------------------------------------- */

struct problem_data {
  size_t n;
  int d;
  float *x;                        /* [n][d] */
  uint8_t *y;
};

enum kind { NOISY, SEPARABLE, UNBALANCED, SCALED, SHIFTED, LARGE };

/* Twelve uniform numbers make a normal one, near enough. */
static double normal(struct nm__rng *r) {
  double s = -6;
  for (int i = 0; i < 12; i++) s += nm__rng_unit(r);
  return s;
}

/* A true direction, noise on the labels, and columns stretched or shifted by the kind. */
static struct problem_data make(size_t n, int d, enum kind kind, uint64_t seed) {
  struct problem_data p = {n, d, malloc(n * (size_t)d * sizeof(float)), malloc(n)};
  struct nm__rng r = {seed, kind, 0};
  double *v = malloc((size_t)d * sizeof *v), *scale = malloc((size_t)d * sizeof *scale);
  for (int j = 0; j < d; j++) {
    v[j] = normal(&r);
    double u = nm__rng_unit(&r);
    scale[j] = kind == SCALED ? exp(log(1e-3) + u * log(1e5)) : kind == LARGE ? 100 : 1;
  }
  for (size_t i = 0; i < n; i++) {
    double t = 0;
    for (int j = 0; j < d; j++) {
      double g = normal(&r);
      t += g * v[j];
      p.x[i * (size_t)d + (size_t)j] =
          (float)(g * scale[j] + (kind == SHIFTED ? (j % 3 == 0 ? 100 : -1) : 0));
    }
    t = t / sqrt(d) + (kind == SEPARABLE || kind == LARGE ? 0 : normal(&r));
    p.y[i] = t > (kind == UNBALANCED ? 2.4 : 0);
  }
  p.y[0] = 0;
  p.y[1] = 1;
  free(v);
  free(scale);
  return p;
}

static void drop(struct problem_data *p) {
  free(p->x);
  free(p->y);
}

static struct nm__logreg fit(const struct problem_data *p, struct nm__logreg_opts o) {
  struct nm__logreg m;
  nm_err err = {0};
  if (nm__logreg_fit(p->x, (size_t)p->d, p->d, NULL, p->n, p->y, &o, &m, &err))
    fail_msg("%s", err.text);
  return m;
}

/* The gradient's norm and the objective in long double with libm: nothing shared with the code. */
static double gradient_norm(const struct problem_data *p, const double *w, double b, double C,
                            bool intercept, double *objective) {
  long double *g = calloc((size_t)p->d + 1, sizeof *g), norm = 0, f = 0;
  for (size_t i = 0; i < p->n; i++) {
    const float *x = p->x + i * (size_t)p->d;
    long double z = b, y = p->y[i] ? 1 : -1;
    for (int j = 0; j < p->d; j++) z += (long double)w[j] * x[j];
    long double r = -C * y / (1 + expl(y * z));
    f += C * (y * z > 0 ? log1pl(expl(-y * z)) : -y * z + log1pl(expl(y * z)));
    for (int j = 0; j < p->d; j++) g[j] += r * x[j];
    g[p->d] += intercept ? r : 0;
  }
  for (int j = 0; j < p->d; j++) {
    g[j] += w[j];
    f += 0.5L * w[j] * w[j];
  }
  for (int j = 0; j <= p->d; j++) norm += g[j] * g[j];
  free(g);
  if (objective) *objective = (double)f;
  return (double)sqrtl(norm);
}

/* ---- against liblinear ----------------------------------------------- */

static void say_nothing(const char *s) { (void)s; }

/* liblinear's -s 0 without bias; weights of class 1 into w. */
static void liblinear_fit(const struct problem_data *p, double C, double *w) {
  size_t width = (size_t)p->d + 1;
  struct feature_node *nodes = malloc(p->n * width * sizeof *nodes);
  struct feature_node **rows = malloc(p->n * sizeof *rows);
  double *y = malloc(p->n * sizeof *y);
  for (size_t i = 0; i < p->n; i++) {
    rows[i] = nodes + i * width;
    y[i] = p->y[i];
    for (int j = 0; j < p->d; j++)
      rows[i][j] = (struct feature_node){j + 1, (double)p->x[i * (size_t)p->d + (size_t)j]};
    rows[i][p->d].index = -1;
  }
  struct problem prob = {.l = (int)p->n, .n = p->d, .y = y, .x = rows, .bias = -1};
  struct parameter param = {.solver_type = L2R_LR, .eps = 1e-9, .C = C};
  set_print_string_function(say_nothing);
  struct model *m = train(&prob, &param);
  for (int j = 0; j < p->d; j++) w[j] = m->label[0] == 1 ? m->w[j] : -m->w[j];
  free_and_destroy_model(&m);
  free(nodes);
  free(rows);
  free(y);
}

static void agree(size_t n, int d, enum kind kind, double C, uint64_t seed) {
  struct problem_data p = make(n, d, kind, seed);
  struct nm__logreg m = fit(&p, (struct nm__logreg_opts){.C = C, .no_intercept = true});
  double *w = malloc((size_t)d * sizeof *w), worst = 0, size = 0, theirs, ours;
  liblinear_fit(&p, C, w);
  for (int j = 0; j < d; j++) {
    size = fmax(size, fabs(w[j]));
    worst = fmax(worst, fabs(w[j] - m.w[j]));
  }
  gradient_norm(&p, w, 0, C, false, &theirs);
  double norm = gradient_norm(&p, m.w, 0, C, false, &ours);
  if (worst > 1e-4 * size || fabs(ours - theirs) > 1e-9 * theirs || norm > 1.01e-6)
    fail_msg("%zu x %d kind %d C %g: weights differ by %g of %g, objectives %.12g and %.12g, "
             "gradient %g", n, d, (int)kind, C, worst, size, ours, theirs, norm);
  assert_true(m.converged && m.b == 0);
  assert_true(fabs(m.objective - ours) <= 1e-12 * ours);
  free(w);
  nm__logreg_done(&m);
  drop(&p);
}

static void test_liblinear(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 3; seed++) {
    agree(300, 40, NOISY, 1, seed);
    agree(60, 200, NOISY, 1, seed);
    agree(10, 7, NOISY, 1, seed);
    agree(201, 33, SEPARABLE, 1, seed);
    agree(400, 20, UNBALANCED, 1, seed);
    agree(300, 30, SHIFTED, 1, seed);
    agree(150, 50, NOISY, 0.01, seed);
    agree(150, 50, NOISY, 100, seed);
    agree(250, 30, SCALED, 1, seed);
  }
}

/* ---- the optimum ----------------------------------------------------- */

/* The stated norm is the true one up to rounding, and at most 1e-6, on every kind of data. */
static void test_gradient(void **state) {
  (void)state;
  static const struct { size_t n; int d; } size[] = {{10, 3}, {11, 700}, {90, 301}, {700, 64}};
  for (int kind = NOISY; kind <= LARGE; kind++)
    for (size_t s = 0; s < 4; s++)
      for (int bare = 0; bare < 2; bare++) {
        struct problem_data p = make(size[s].n, size[s].d, (enum kind)kind, 40 + s);
        struct nm__logreg m = fit(&p, (struct nm__logreg_opts){.no_intercept = bare});
        double f, norm = gradient_norm(&p, m.w, m.b, 1, !bare, &f);
        if (!m.converged || m.grad_norm > 1e-6 || fabs(norm - m.grad_norm) > 1e-8)
          fail_msg("kind %d, %zu x %d: gradient %g, said %g after %d steps", kind, p.n, p.d,
                   norm, m.grad_norm, m.iterations);
        assert_true(fabs(f - m.objective) <= 1e-10 * f);
        nm__logreg_done(&m);
        drop(&p);
      }
}

static void test_options(void **state) {
  (void)state;
  struct problem_data p = make(120, 30, NOISY, 5);
  struct nm__logreg fine = fit(&p, (struct nm__logreg_opts){.C = 1000, .tol = 1e-9});
  assert_true(fine.converged);
  assert_true(gradient_norm(&p, fine.w, fine.b, 1000, true, NULL) < 1.1e-9);
  struct nm__logreg one = fit(&p, (struct nm__logreg_opts){.max_iter = 1});
  assert_int_equal(one.iterations, 1);
  assert_false(one.converged);
  struct nm__logreg never = fit(&p, (struct nm__logreg_opts){.tol = 1e-300});
  assert_false(never.converged);        /* ends where rounding ends, and says so */
  assert_true(never.grad_norm < 1e-10 && never.iterations < 200);
  struct nm__logreg m;
  nm_err err = {0};
  assert_int_equal(nm__logreg_fit(p.x, 30, 30, NULL, 120, p.y,
                                  &(struct nm__logreg_opts){.C = -1}, &m, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "C -1"));
  assert_int_equal(nm__logreg_fit(p.x, 29, 30, NULL, 120, p.y, NULL, &m, &err), NM_EUSAGE);
  nm__logreg_done(&fine);
  nm__logreg_done(&one);
  nm__logreg_done(&never);
  drop(&p);
}

/* Zero columns get weight 0 exactly; equal columns share their weight; doubling every row is
 * doubling C. */
static void test_duplicates(void **state) {
  (void)state;
  struct problem_data p = make(80, 21, NOISY, 6);
  for (size_t i = 0; i < 80; i++) {
    p.x[i * 21 + 4] = 0;
    p.x[i * 21 + 20] = p.x[i * 21 + 9];
  }
  struct nm__logreg m = fit(&p, (struct nm__logreg_opts){.C = 2});
  assert_true(m.converged && m.w[4] == 0);
  assert_true(fabs(m.w[20] - m.w[9]) < 1e-6);
  uint32_t twice[160];
  for (uint32_t i = 0; i < 160; i++) twice[i] = i / 2;
  struct nm__logreg t;
  assert_int_equal(nm__logreg_fit(p.x, 21, 21, twice, 160, p.y, NULL, &t, NULL), NM_OK);
  for (int j = 0; j < 21; j++) assert_true(fabs(m.w[j] - t.w[j]) < 1e-6);
  nm__logreg_done(&m);
  nm__logreg_done(&t);
  drop(&p);
}

/* A choice of rows, in a wider matrix, gives the bits of a matrix of these rows. */
static void test_rows(void **state) {
  (void)state;
  struct problem_data p = make(101, 37, NOISY, 7), q = make(50, 30, NOISY, 8);
  uint32_t rows[50];
  for (uint32_t i = 0; i < 50; i++) {
    rows[i] = 2 * i + 1;
    q.y[i] = p.y[rows[i]];
    memcpy(q.x + i * 30, p.x + rows[i] * 37, 30 * sizeof(float));
  }
  p.x[4 * 37] = NAN;                    /* not chosen, not looked at */
  p.x[7 * 37 + 30] = NAN;               /* beyond the first 30 */
  struct nm__logreg a, b = fit(&q, (struct nm__logreg_opts){0});
  assert_int_equal(nm__logreg_fit(p.x, 37, 30, rows, 50, p.y, NULL, &a, NULL), NM_OK);
  assert_memory_equal(a.w, b.w, 30 * sizeof *a.w);
  assert_true(a.b == b.b);
  double z = a.b;
  for (int j = 0; j < 30; j++) z += a.w[j] * (double)q.x[j];
  assert_true(fabs(nm__logreg_score(&a, q.x) - z) < 1e-12);
  nm__logreg_done(&a);
  nm__logreg_done(&b);
  drop(&p);
  drop(&q);
}

static void test_refused(void **state) {
  (void)state;
  struct problem_data p = make(20, 9, NOISY, 9);
  uint32_t rows[] = {3, 5, 17, 1, 0};
  struct nm__logreg m;
  nm_err err = {0};
  p.x[17 * 9 + 8] = NAN;
  assert_int_equal(nm__logreg_fit(p.x, 9, 9, rows, 5, p.y, NULL, &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "row 17"));
  assert_null(m.w);
  p.x[17 * 9 + 8] = -INFINITY;
  assert_int_equal(nm__logreg_fit(p.x, 9, 9, NULL, 20, p.y, NULL, &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "row 17, feature 8 is -inf"));
  p.x[17 * 9 + 8] = 0;
  memset(p.y, 1, 20);
  assert_int_equal(nm__logreg_fit(p.x, 9, 9, NULL, 20, p.y, NULL, &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "0 of class 0 and 20 of class 1"));
  assert_int_equal(nm__logreg_fit(p.x, 9, 9, NULL, 0, p.y, NULL, &m, &err), NM_EFORMAT);
  nm__logreg_done(&m);
  drop(&p);
}

/* ---- many labels at once ------------------------------------------------ */

/* The labels of a call are those of calls of their own, bit for bit, whatever the threads; a row
 * that is skipped is a row that is not there. 40 labels are more than one group of the solver. */
static void test_many(void **state) {
  (void)state;
  enum { N = 331, D = 45, LABELS = 40 };
  for (int kind = NOISY; kind <= LARGE; kind++) {
    struct problem_data p = make(N, D, (enum kind)kind, 11);
    static uint8_t y[LABELS][N];
    const uint8_t *label[LABELS];
    static struct nm__logreg all[LABELS], one;
    struct nm__pool *pool;
    for (int l = 0; l < LABELS; l++) {
      nm__shuffle_labels(p.y, N, (uint64_t)l, y[l]);
      for (int i = 0; i < N && l > 20; i++)
        if (nm__rand_at(5, (uint64_t)l, (uint64_t)i) % 3 == 0) y[l][i] = NM__LOGREG_SKIP;
      label[l] = l ? y[l] : p.y;
    }
    assert_int_equal(nm__pool_new(3, &pool, NULL), 0);
    assert_int_equal(nm__logreg_fit_many(p.x, D, D, NULL, N, label, LABELS,
                                         &(struct nm__logreg_opts){.pool = pool}, all, NULL), 0);
    for (int l = 0; l < LABELS; l += 13) {
      assert_int_equal(nm__logreg_fit(p.x, D, D, NULL, N, label[l], NULL, &one, NULL), 0);
      assert_memory_equal(one.w, all[l].w, D * sizeof *one.w);
      assert_true(one.b == all[l].b && one.objective == all[l].objective);
      nm__logreg_done(&one);
    }
    uint32_t rows[N];
    size_t n = 0;
    for (uint32_t i = 0; i < N; i++)
      if (y[LABELS - 1][i] != NM__LOGREG_SKIP) rows[n++] = i;
    assert_true(n < N - 50);
    assert_int_equal(nm__logreg_fit(p.x, D, D, rows, n, y[LABELS - 1], NULL, &one, NULL), 0);
    assert_true(one.converged && all[LABELS - 1].converged);
    assert_true(fabs(one.objective - all[LABELS - 1].objective) <= 1e-10 * one.objective);
    nm__logreg_done(&one);
    for (int l = 0; l < LABELS; l++) nm__logreg_done(&all[l]);
    nm__pool_free(pool);
    drop(&p);
  }
}

/* The features' size decides between rounded rows and the floats themselves: on both sides of that
 * choice the optimum is the same once the features are scaled back. */
static void test_sizes(void **state) {
  (void)state;
  struct problem_data p = make(300, 40, NOISY, 12);
  struct nm__logreg small = fit(&p, (struct nm__logreg_opts){.C = 1 << 20});
  for (int i = 0; i < 300 * 40; i++) p.x[i] *= 1024;
  struct nm__logreg large = fit(&p, (struct nm__logreg_opts){.C = 1});
  assert_true(small.converged && large.converged);
  for (int j = 0; j < 40; j++)
    assert_true(fabs(small.w[j] - 1024 * large.w[j]) < 1e-4 * (1 + fabs(small.w[j])));
  nm__logreg_done(&small);
  nm__logreg_done(&large);
  drop(&p);
}

/* The dense problem with its zeros left out has the same optimum. */
static void test_sparse(void **state) {
  (void)state;
  struct problem_data p = make(90, 40, NOISY, 10);
  struct nm__sparse s = {90, 40, calloc(91, sizeof *s.ptr), calloc(3600, sizeof *s.idx),
                         calloc(3600, sizeof *s.val)};
  for (size_t i = 0, e = 0; i < 90; i++, s.ptr[i] = e)
    for (uint32_t j = 0; j < 40; j++) {
      float *x = &p.x[i * 40 + j];
      if (nm__rand_at(3, i, j) % 4) *x = 0;
      if (*x == 0) continue;
      s.idx[e] = j;
      s.val[e++] = *x;
    }
  struct nm__logreg a = fit(&p, (struct nm__logreg_opts){0}), b;
  assert_int_equal(nm__logreg_fit_sparse(&s, NULL, 90, p.y, NULL, &b, NULL), NM_OK);
  assert_true(b.converged && gradient_norm(&p, b.w, b.b, 1, true, NULL) < 1.1e-6);
  for (int j = 0; j < 40; j++) assert_true(fabs(a.w[j] - b.w[j]) < 2e-6);
  assert_true(fabs(nm__logreg_score_sparse(&b, &s, 11) - nm__logreg_score(&b, p.x + 440)) < 1e-12);
  nm_err err = {0};
  struct nm__logreg m;
  s.val[s.ptr[13]] = NAN;
  assert_int_equal(nm__logreg_fit_sparse(&s, NULL, 90, p.y, NULL, &m, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "row 13"));
  nm__logreg_done(&a);
  nm__logreg_done(&b);
  nm__sparse_done(&s);
  drop(&p);
}

static void test_logistic(void **state) {
  (void)state;
  assert_true(nm__logistic(0) == 0.5);
  assert_true(nm__logistic(-1e4) == 0 && nm__logistic(1e4) == 1);
  for (double z = -40; z < 40; z += 0.37)
    assert_true(fabs(nm__logistic(z) * (1 + exp(-z)) - 1) < 1e-14);
}

/* ---- metrics --------------------------------------------------------- */

static bool near(double a, double b, double tol) { return fabs(a - b) <= tol; }

static void test_metrics(void **state) {
  (void)state;
  struct nm__metrics m =
      nm__metrics_of((double[]){0.1, 0.4, 0.35, 0.8}, (uint8_t[]){0, 0, 1, 1}, 4);
  assert_true(m.acc == 0.5 && m.auc == 0.75 && m.n == 4 && near(m.f1, 2.0 / 3, 1e-15));
  /* one tie between the classes: 0.5 + 1 + 1 + 1 of 4 pairs; a score of 0 predicts class 0 */
  m = nm__metrics_of((double[]){1, 1, 2, 0}, (uint8_t[]){1, 0, 1, 0}, 4);
  assert_true(m.auc == 0.875 && m.acc == 0.75 && near(m.f1, 0.8, 1e-15));
  m = nm__metrics_of((double[]){-1, -1, -1}, (uint8_t[]){1, 0, 1}, 3);
  assert_true(m.auc == 0.5 && m.f1 == 0);
  m = nm__metrics_of((double[]){-1, -2}, (uint8_t[]){0, 0}, 2);
  assert_true(m.acc == 1 && m.f1 == 0 && m.auc == 0.5);
}

/* Many ties, every pair counted. */
static void test_area(void **state) {
  (void)state;
  double score[300];
  uint8_t label[300];
  double won = 0, pairs = 0;
  for (size_t i = 0; i < 300; i++) {
    score[i] = (double)(nm__rand_at(1, 1, i) % 40) - 20;
    label[i] = nm__rand_at(1, 2, i) % 3 == 0;
  }
  for (size_t i = 0; i < 300; i++)
    for (size_t j = 0; j < 300; j++) {
      if (!label[i] || label[j]) continue;
      won += score[i] > score[j] ? 1 : score[i] == score[j] ? 0.5 : 0;
      pairs++;
    }
  assert_true(near(nm__metrics_of(score, label, 300).auc, won / pairs, 1e-15));
}

/* The examples of Newcombe, "Two-sided confidence intervals for the single proportion" (1998),
 * and the closed forms n / (n + z^2) at the ends. */
static void test_wilson(void **state) {
  (void)state;
  static const double known[][4] = {{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605},
                                    {0, 20, 0.0000, 0.1611},   {1, 29, 0.0061, 0.1718},
                                    {50, 100, 0.4038, 0.5962}, {10, 10, 0.7225, 1.0000}};
  double lo, hi, zz = 1.959963984540054 * 1.959963984540054;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    nm__wilson(known[i][0], known[i][1], &lo, &hi);
    assert_true(near(lo, known[i][2], 5e-5) && near(hi, known[i][3], 5e-5));
  }
  nm__wilson(0, 7, &lo, &hi);
  assert_true(lo == 0 && near(hi, zz / (7 + zz), 1e-15));
  nm__wilson(7, 7, &lo, &hi);
  assert_true(hi == 1 && near(lo, 7 / (7 + zz), 1e-15));
  nm__wilson(0, 0, &lo, &hi);
  assert_true(lo == 0 && hi == 1);
}

static void test_quantile(void **state) {
  (void)state;
  double v[] = {4, 1, 3, 2};
  assert_true(nm__quantile(v, 4, 0) == 1 && nm__quantile(v, 4, 1) == 4);
  assert_true(nm__quantile(v, 4, 0.25) == 1.75 && nm__quantile(v, 4, 0.5) == 2.5);
  assert_true(v[0] == 4);
  assert_true(nm__quantile(v, 1, 0.3) == 4);
  assert_true(nm__mean(v, 4) == 2.5 && nm__mean(v, 0) == 0);
}

/* ---- splits ---------------------------------------------------------- */

/* Every row once, ascending on either side, both classes on both, groups whole. */
static void check_split(const struct nm__split *s, size_t n, const uint8_t *label,
                        const uint32_t *group) {
  int *side = calloc(n, sizeof *side), *of_group = calloc(n + 1, sizeof *side);
  size_t count[3][2] = {{0}};
  assert_int_equal(s->n_train + s->n_test, n);
  for (int t = 0; t < 2; t++) {
    const uint32_t *v = t ? s->test : s->train;
    for (size_t i = 0; i < (t ? s->n_test : s->n_train); i++) {
      assert_true(v[i] < n && (i == 0 || v[i] > v[i - 1]) && !side[v[i]]);
      side[v[i]] = 1 + t;
      count[1 + t][label[v[i]]]++;
      if (group) of_group[group[v[i]]] |= 1 << t;
    }
  }
  for (size_t i = 0; i < n && group; i++) assert_int_not_equal(of_group[group[i]], 3);
  assert_true(count[1][0] && count[1][1] && count[2][0] && count[2][1]);
  free(side);
  free(of_group);
}

static bool same_split(const struct nm__split *a, const struct nm__split *b) {
  return a->n_test == b->n_test && !memcmp(a->test, b->test, a->n_test * sizeof *a->test);
}

static void test_splits(void **state) {
  (void)state;
  uint8_t label[200];
  uint32_t group[200];
  for (size_t i = 0; i < 200; i++) {
    label[i] = nm__rand_at(2, 0, i) % 2;
    group[i] = nm__rand_at(2, 1, i) % 30;
  }
  for (uint64_t seed = 0; seed < 50; seed++) {
    struct nm__split a, b, c, g;
    assert_int_equal(nm__split_make(200, label, NULL, 0, 0.4, seed, &a, NULL), NM_OK);
    assert_int_equal(nm__split_make(200, label, NULL, 0, 0.4, seed, &b, NULL), NM_OK);
    assert_int_equal(nm__split_make(200, label, NULL, 0, 0.4, seed + 1, &c, NULL), NM_OK);
    assert_int_equal(nm__split_make(200, label, group, 31, 0.4, seed, &g, NULL), NM_OK);
    check_split(&a, 200, label, NULL);
    check_split(&g, 200, label, group);
    assert_int_equal(a.n_test, 80);
    assert_in_range(g.n_test, 70, 90);
    assert_true(same_split(&a, &b) && !same_split(&a, &c) && !same_split(&a, &g));
    nm__split_done(&a);
    nm__split_done(&b);
    nm__split_done(&c);
    nm__split_done(&g);
  }
}

/* Two rows of class 1 among twenty: most draws are lopsided, none is given out. With these two in
 * one group, or a group for everything, there is no split, and the sentence has the counts. */
static void test_hard_splits(void **state) {
  (void)state;
  uint8_t label[20] = {[3] = 1, [9] = 1};
  uint32_t group[20];
  struct nm__split s;
  nm_err err = {0};
  for (uint64_t seed = 0; seed < 50; seed++) {
    assert_int_equal(nm__split_make(20, label, NULL, 0, 0.3, seed, &s, &err), NM_OK);
    check_split(&s, 20, label, NULL);
    nm__split_done(&s);
  }
  for (uint32_t i = 0; i < 20; i++) group[i] = i == 9 ? 3 : i;
  assert_int_equal(nm__split_make(20, label, group, 20, 0.3, 1, &s, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "of class 1"));
  assert_null(s.train);
  memset(group, 0, sizeof group);
  assert_int_equal(nm__split_make(20, label, group, 1, 0.3, 1, &s, &err), NM_EFORMAT);
  assert_int_equal(nm__split_make(20, label, group, 0, 0.3, 1, &s, &err), NM_EUSAGE);
  assert_int_equal(nm__split_make(20, label, NULL, 0, 1.0, 1, &s, &err), NM_EUSAGE);
  assert_int_equal(nm__split_make(0, label, NULL, 0, 0.3, 1, &s, &err), NM_EFORMAT);
  nm__split_done(&s);
}

static void test_shuffle(void **state) {
  (void)state;
  uint8_t label[100], a[100], b[100], c[100];
  size_t ones = 0, moved = 0;
  for (size_t i = 0; i < 100; i++) label[i] = i < 30;
  nm__shuffle_labels(label, 100, 1, a);
  nm__shuffle_labels(label, 100, 1, b);
  nm__shuffle_labels(label, 100, 2, c);
  for (size_t i = 0; i < 100; i++) {
    ones += a[i];
    moved += a[i] != label[i];
  }
  assert_int_equal(ones, 30);
  assert_in_range(moved, 20, 60);       /* 42 expected */
  assert_memory_equal(a, b, 100);
  assert_memory_not_equal(a, c, 100);
}

/* ---- bag of words ---------------------------------------------------- */

static void test_bag(void **state) {
  (void)state;
  char *text[] = {"The cat, the CAT2!", "", "  na\xc3\xafve\tcat , (the)\n", "the the the"};
  /* the 0, cat 1, "," 2, cat2 3, "!" 4, naive 5, "(" 6, ")" 7 */
  static const uint32_t idx[] = {0, 1, 2, 3, 4, 5, 1, 2, 6, 0, 7, 0};
  static const float val[] = {2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3};
  static const size_t ptr[] = {0, 5, 5, 11, 12};
  struct nm__sparse s;
  assert_int_equal(nm__bag_of_words(text, 4, &s, NULL), NM_OK);
  assert_int_equal(s.n_rows, 4);
  assert_int_equal(s.d, 8);
  assert_memory_equal(s.ptr, ptr, sizeof ptr);
  assert_memory_equal(s.idx, idx, sizeof idx);
  assert_memory_equal(s.val, val, sizeof val);
  nm__sparse_done(&s);
  assert_int_equal(nm__bag_of_words(NULL, 0, &s, NULL), NM_OK);
  assert_int_equal(s.d, 0);
  nm__sparse_done(&s);
}

/* Enough words for the table to grow several times, then a fit that one word decides. */
static void test_big_bag(void **state) {
  (void)state;
  enum { N = 3000 };
  char **text = calloc(N, sizeof *text);
  uint8_t label[N];
  for (int i = 0; i < N; i++) {
    text[i] = malloc(64);
    label[i] = nm__rand_at(4, 0, (uint64_t)i) % 2;
    snprintf(text[i], 64, "%s w%d w%d", label[i] ? "Yes" : "no", i, (i + 1) % N);
  }
  struct nm__sparse s;
  struct nm__logreg m;
  assert_int_equal(nm__bag_of_words(text, N, &s, NULL), NM_OK);
  assert_int_equal(s.d, N + 2);
  assert_int_equal(s.ptr[N], 3 * N);
  assert_int_equal(nm__logreg_fit_sparse(&s, NULL, N, label, NULL, &m, NULL), NM_OK);
  assert_true(m.converged);
  for (size_t i = 0; i < N; i++)
    assert_int_equal(nm__logreg_score_sparse(&m, &s, i) > 0, label[i]);
  for (int i = 0; i < N; i++) free(text[i]);
  free(text);
  nm__logreg_done(&m);
  nm__sparse_done(&s);
}

/* Three classes worked by hand. Said: 0 0 1 2 2 1, a tie going to the first; right: rows 0, 2, 3. */
static void test_many_by_hand(void **state) {
  (void)state;
  const double score[] = {3, 1, 0, 2, 2, 0, 0, 5, 1, 0, 1, 9, 1, 0, 4, 1, 3, 2};
  const uint8_t label[] = {0, 1, 1, 2, 0, 2};
  uint64_t confusion[9] = {0};
  struct nm__metrics m = nm__metrics_many(score, label, 6, 3, confusion);
  const uint64_t want[9] = {1, 0, 1, 1, 1, 0, 0, 1, 1};
  assert_memory_equal(confusion, want, sizeof want);
  assert_true(m.acc == 0.5);
  assert_true(fabs(m.f1 - 0.5) < 1e-15);       /* each class: 1 hit, 2 said, 2 are */
  /* Areas by pairs, of 8 each. Class 0 scores 3 1 against 2 0 0 1: 4 + 2.5; class 1: 2 5 against
   * 1 1 0 3: 3 + 4; class 2: 9 2 against 0 0 1 4: 4 + 3. */
  assert_true(fabs(m.auc - (6.5 + 7 + 7) / 24) < 1e-15);
}

static void test_split_of_many(void **state) {
  (void)state;
  enum { N = 60 };
  uint8_t label[N];
  struct nm__split s;
  nm_err err;
  for (int i = 0; i < N; i++) label[i] = (uint8_t)(i % 20 == 0 ? 2 : i % 2);
  for (uint64_t seed = 0; seed < 50; seed++) { /* three rows of class 2: a blind draw may lack it */
    assert_int_equal(nm__split_make(N, label, NULL, 0, 0.4, seed, &s, NULL), 0);
    int seen[2][3] = {{0}};
    for (size_t i = 0; i < s.n_train; i++) seen[0][label[s.train[i]]]++;
    for (size_t i = 0; i < s.n_test; i++) seen[1][label[s.test[i]]]++;
    for (int c = 0; c < 3; c++) assert_true(seen[0][c] && seen[1][c]);
    assert_int_equal(s.n_train + s.n_test, N);
    nm__split_done(&s);
  }
  label[20] = label[40] = 0;
  assert_int_equal(nm__split_make(N, label, NULL, 0, 0.4, 1, &s, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "all 3 classes"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_liblinear),   cmocka_unit_test(test_gradient),
      cmocka_unit_test(test_options),     cmocka_unit_test(test_duplicates),
      cmocka_unit_test(test_rows),        cmocka_unit_test(test_refused),
      cmocka_unit_test(test_many),
      cmocka_unit_test(test_sizes),
      cmocka_unit_test(test_sparse),      cmocka_unit_test(test_logistic),
      cmocka_unit_test(test_metrics),     cmocka_unit_test(test_area),
      cmocka_unit_test(test_wilson),      cmocka_unit_test(test_quantile),
      cmocka_unit_test(test_splits),      cmocka_unit_test(test_hard_splits),
      cmocka_unit_test(test_shuffle),     cmocka_unit_test(test_bag),
      cmocka_unit_test(test_many_by_hand),
      cmocka_unit_test(test_split_of_many),
      cmocka_unit_test(test_big_bag),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
