/* forest_test.c - random forests: trees worked by hand, the same bits for any threads, what chance
 * gives, and scikit-learn on the same rows where it is installed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look/forest.h"
#include "look/probe.h"

static double normal(struct nm__rng *r) {
  double s = -6;
  for (int i = 0; i < 12; i++) s += nm__rng_unit(r);
  return s;
}

/* Classes by two features that only together say which: checks of a board, k of them, and noise. */
static void make(size_t n, int d, int k, double flip, uint64_t seed, float *x, uint8_t *y) {
  struct nm__rng r = {seed, 5, 0};
  for (size_t i = 0; i < n; i++) {
    for (int j = 0; j < d; j++) x[i * (size_t)d + (size_t)j] = (float)normal(&r);
    int a = x[i * (size_t)d] > 0, b = x[i * (size_t)d + 1] > 0;
    y[i] = (uint8_t)(k == 2 ? a ^ b : (2 * a + b) % k);
    if (nm__rng_unit(&r) < flip) y[i] = (uint8_t)nm__rng_below(&r, (uint64_t)k);
  }
}

static double accuracy(const struct nm__forest *f, const float *x, const uint8_t *y, size_t from,
                       size_t to) {
  size_t right = 0;
  double p[256];
  for (size_t i = from; i < to; i++) {
    nm__forest_shares(f, x + i * (size_t)f->d, p);
    int best = 0;
    for (int c = 1; c < f->n_classes; c++)
      if (p[c] > p[best]) best = c;
    right += best == y[i];
  }
  return (double)right / (double)(to - from);
}

/* One tree on all rows, all features looked at. By hand: feature 0 at 2.5 leaves (0 0) and (1 1 0),
 * worth 4/2 + 5/3; feature 1, in the order 0 1 0 1 0, at best 1 + 8/4. The right side is then parted
 * by feature 0 at 4.5 or, as well, by feature 1 at 45. */
static void test_by_hand(void **state) {
  (void)state;
  const float x[] = {1, 36, 2, 10, 3, 40, 4, 35, 5, 50};
  const uint8_t y[] = {0, 0, 1, 1, 0};
  struct nm__forest f;
  struct nm__forest_opts o = {.n_trees = 1, .n_features = 2, .whole = true};
  assert_int_equal(nm__forest_fit(x, 2, 2, NULL, 5, y, 2, &o, &f, NULL), 0);
  const struct nm__tree *t = &f.tree[0];
  assert_int_equal(t->n_nodes, 5);
  assert_int_equal(t->n_leaves, 3);
  assert_int_equal(t->node[0].feature, 0);
  assert_true(t->node[0].threshold == 2.5f);
  assert_int_equal(t->node[0].next, 1);
  assert_int_equal(t->node[1].feature, -1);    /* rows 0 and 1 */
  assert_true(t->share[t->node[1].next * 2] == 1 && t->share[t->node[1].next * 2 + 1] == 0);
  assert_true(t->node[2].threshold == 45 || t->node[2].threshold == 4.5f);
  double p[2];
  for (size_t i = 0; i < 5; i++) {
    nm__forest_shares(&f, x + 2 * i, p);
    assert_true(p[y[i]] == 1 && p[!y[i]] == 0);
  }
  nm__forest_shares(&f, (float[]){2.5f, 99}, p);       /* the threshold itself goes left */
  assert_true(p[0] == 1);
  nm__forest_shares(&f, (float[]){2.6f, 0}, p);
  assert_true(p[1] == 1);
  nm__forest_done(&f);
}

/* Equal rows of two classes cannot be parted: a leaf of shares. */
static void test_shares(void **state) {
  (void)state;
  const float x[] = {7, 7, 7, 7};
  const uint8_t y[] = {2, 0, 2, 2};
  struct nm__forest f;
  struct nm__forest_opts o = {.n_trees = 1, .whole = true};
  double p[3];
  assert_int_equal(nm__forest_fit(x, 1, 1, NULL, 4, y, 3, &o, &f, NULL), 0);
  assert_int_equal(f.tree[0].n_nodes, 1);
  nm__forest_shares(&f, x, p);
  assert_true(p[0] == 0.25 && p[1] == 0 && p[2] == 0.75);
  nm__forest_done(&f);
}

static uint64_t bits_of(const struct nm__forest *f) {
  uint64_t h = 1;
  for (int t = 0; t < f->n_trees; t++) {
    h = nm__hash(f->tree[t].node, f->tree[t].n_nodes * sizeof(struct nm__node), h);
    h = nm__hash(f->tree[t].share,
                 (size_t)f->tree[t].n_leaves * (size_t)f->n_classes * sizeof(float), h);
  }
  return h;
}

static void test_same_bits(void **state) {
  (void)state;
  enum { N = 300, D = 9 };
  static float x[N * D];
  static uint8_t y[N];
  uint64_t first = 0;
  make(N, D, 3, 0.2, 4, x, y);
  for (int threads = 0; threads < 4; threads++) {
    struct nm__pool *pool = NULL;
    struct nm__forest f;
    if (threads) assert_int_equal(nm__pool_new(threads, &pool, NULL), 0);
    struct nm__forest_opts o = {.n_trees = 20, .seed = 3, .pool = pool};
    assert_int_equal(nm__forest_fit(x, D, D, NULL, N, y, 3, &o, &f, NULL), 0);
    if (!threads) first = bits_of(&f);
    assert_true(bits_of(&f) == first);
    nm__forest_done(&f);
    o.seed = 4;
    assert_int_equal(nm__forest_fit(x, D, D, NULL, N, y, 3, &o, &f, NULL), 0);
    assert_true(bits_of(&f) != first);
    nm__forest_done(&f);
    nm__pool_free(pool);
  }
}

/* What no line parts a forest parts; and labels of chance stay at chance. */
static void test_learns(void **state) {
  (void)state;
  enum { N = 1500, D = 10 };
  static float x[N * D];
  static uint8_t y[N];
  const double chance[] = {0, 0, 0.5, 1.0 / 3, 0.25};
  for (int k = 2; k <= 4; k++)
    for (int noise = 0; noise < 2; noise++) {
      struct nm__forest f;
      struct nm__forest_opts o = {.seed = 1};
      make(N, D, k, noise, 100 + (uint64_t)k, x, y);
      assert_int_equal(nm__forest_fit(x, D, D, NULL, 900, y, k, &o, &f, NULL), 0);
      double acc = accuracy(&f, x, y, 900, N);
      if (noise) assert_true(acc > chance[k] - 0.07 && acc < chance[k] + 0.07);
      else assert_true(acc > 0.85);
      nm__forest_done(&f);
    }
}

static void test_refuses(void **state) {
  (void)state;
  float x[] = {1, 2, 3, __builtin_nanf("")};
  const uint8_t y[] = {0, 1, 0, 2};
  struct nm__forest f;
  struct nm__forest_opts o = {.n_trees = 2};
  nm_err err;
  assert_int_equal(nm__forest_fit(x, 1, 1, NULL, 4, y, 3, &o, &f, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "row 3"));
  assert_int_equal(nm__forest_fit(x, 1, 1, NULL, 3, y, 1, &o, &f, &err), NM_EUSAGE);
  assert_int_equal(nm__forest_fit(x, 1, 1, (uint32_t[]){1, 3}, 2, y, 2, &o, &f, &err), NM_EUSAGE);
  nm__forest_done(&f);
}

/* The same rows through scikit-learn, means over ten seeds. A seed's accuracy varies by about 0.012,
 * so that the difference of the means has a standard error of about 0.005. */
static const char peer[] =
    "import numpy as np, sys\n"
    "from sklearn.ensemble import RandomForestClassifier\n"
    "n, d, m = (int(v) for v in sys.argv[1:])\n"
    "x = np.fromfile('forest_x.bin', np.float32).reshape(n, d)\n"
    "y = np.fromfile('forest_y.bin', np.uint8)\n"
    "a = [RandomForestClassifier(random_state=s).fit(x[:m], y[:m]).score(x[m:], y[m:])"
    " for s in range(10)]\n"
    "print(np.mean(a))\n";

static bool put(const char *name, const void *p, size_t n) {
  FILE *f = fopen(name, "wb");
  bool good = f && fwrite(p, 1, n, f) == n;
  return f && fclose(f) == 0 && good;
}

static void test_against_sklearn(void **state) {
  (void)state;
  enum { N = 1600, M = 800, D = 12 };
  static float x[N * D];
  static uint8_t y[N];
  if (system("/usr/bin/python3 -c 'import sklearn' 2> /dev/null")) {
    print_message("skipped: no scikit-learn\n");
    skip();
  }
  assert_true(put("forest_peer.py", peer, sizeof peer - 1));
  for (int k = 2; k <= 4; k++) {
    double theirs = -1, ours = 0;
    char line[100];
    make(N, D, k, 0.3, 200 + (uint64_t)k, x, y);
    assert_true(put("forest_x.bin", x, sizeof x) && put("forest_y.bin", y, sizeof y));
    snprintf(line, sizeof line, "/usr/bin/python3 forest_peer.py %d %d %d", N, D, M);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    assert_int_equal(fscanf(p, "%lf", &theirs), 1);
    pclose(p);
    for (uint64_t s = 0; s < 10; s++) {
      struct nm__forest f;
      struct nm__forest_opts o = {.seed = s};
      assert_int_equal(nm__forest_fit(x, D, D, NULL, M, y, k, &o, &f, NULL), 0);
      ours += accuracy(&f, x, y, M, N) / 10;
      nm__forest_done(&f);
    }
    print_message("%d classes: %.4f, scikit-learn %.4f\n", k, ours, theirs);
    assert_true(ours - theirs < 0.02 && theirs - ours < 0.02);
  }
  remove("forest_peer.py");
  remove("forest_x.bin");
  remove("forest_y.bin");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_by_hand),   cmocka_unit_test(test_shares),
      cmocka_unit_test(test_same_bits), cmocka_unit_test(test_learns),
      cmocka_unit_test(test_refuses),   cmocka_unit_test(test_against_sklearn),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
