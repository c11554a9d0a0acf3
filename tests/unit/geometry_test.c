/* Graphs and the geometry of their nodes: the figures of Llama-3.1-8B from its Gram matrix, vectors
 * whose geometry is known, hostile files of edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "look/geometry.h"

#define near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))

static struct nm__graph g;
static struct nm__geometry q;

/* ---- graphs ----------------------------------------------------------------------- */

static void forms(void **state) {
  (void)state;
  static const struct { const char *spec; int n, edges, far; } t[] = {
      {"grid:4x4", 16, 24, 6}, {"grid:3x4", 12, 17, 5}, {"ring:10", 10, 10, 5},
      {"ring:3", 3, 3, 1}, {"hex:14", 14, 16, 6}};
  for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
    int d[NM__GRAPH_NODES * NM__GRAPH_NODES], far = 0;
    assert_int_equal(nm__graph_open(t[k].spec, &g, NULL), NM_OK);
    assert_int_equal(g.n, t[k].n);
    assert_int_equal(g.n_edges, t[k].edges);
    assert_string_equal(g.name, t[k].spec);
    nm__graph_distances(&g, d);
    for (int i = 0; i < g.n * g.n; i++) far = d[i] > far ? d[i] : far;
    assert_int_equal(far, t[k].far);
  }
  nm__graph_honeycomb(&g);
  for (int i = 0; i < g.n; i++)
    for (int k = 0; k < g.degree[i]; k++)
      near(hypot(g.xy[i][0] - g.xy[g.next[i][k]][0], g.xy[i][1] - g.xy[g.next[i][k]][1]), 1, 1e-12);
}

static void refused(void **state) {
  (void)state;
  static const struct { const char *text, *says; } t[] = {
      {"{\"edges\": [[0, 1], [2, 3]]}", "only 2 of 4 nodes can be reached, node 2 not"},
      {"{\"edges\": [[0, 1], [1, 0]]}", "edge 1, 1 to 0, stands twice"},
      {"{\"edges\": [[0, 1], [1, 1]]}", "from node 1 to itself"},
      {"{\"edges\": [[0, 1], [1, 100]]}", "edge 1 is not two nodes from 0 to 99"},
      {"{\"edges\": [[0, 1], [1, -1]]}", "edge 1 is not"},
      {"{\"edges\": [[0, 1], [1]]}", "edge 1 is not"},
      {"{\"edges\": [[0, 1], [1, 2.5]]}", "edge 1 is not"},
      {"{\"edges\": [[0, 1]]}", "at least two pairs"},
      {"{\"edges\": 3}", "at least two pairs"},
      {"{}", "at least two pairs"},
      {"{\"edges\": [[0, 1], [1, 2]], \"xy\": [[0, 1]]}", "\"xy\" must be 3 pairs"},
      {"{\"edges\": [[0, 1], [1, 2]], \"xy\": [[0, 1], [1, 2], [1, 1e300]]}", "must be 3 pairs"},
      {"{\"edges\": [[0, 1], [1, 2]], \"x\": 1}", "it has \"x\""},
      {"[", "g.json"}};
  for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
    nm_err err = {0};
    assert_int_equal(nm__graph_parse("g.json", t[k].text, strlen(t[k].text), &g, &err), NM_EFORMAT);
    if (!strstr(err.text, t[k].says)) fail_msg("'%s' does not say '%s'", err.text, t[k].says);
  }
  static const char *const spec[] = {"grid:1x9", "grid:11x11", "ring:2", "ring:101", "hex:15",
                                     "grid:4x4x4", "ring:", "no-such-file.json"};
  for (size_t k = 0; k < sizeof spec / sizeof *spec; k++)
    assert_int_equal(nm__graph_open(spec[k], &g, NULL), NM_EUSAGE);
}

/* What is not refused is a graph: connected, its neighbours in both directions. */
static void mutated(void **state) {
  (void)state;
  static const char good[] = "{\"edges\": [[0, 1], [1, 2], [2, 3], [3, 0]], "
                             "\"xy\": [[0, 0], [0, 1], [1, 1], [1, 0]]}";
  struct nm__rng r = {11, 3, 0};
  int taken = 0;
  for (int k = 0; k < 10000; k++) {
    char s[sizeof good];
    memcpy(s, good, sizeof good);
    for (int i = 0, n = 1 + (int)nm__rng_below(&r, 3); i < n; i++)
      s[nm__rng_below(&r, sizeof good - 1)] =
          "0123456789[]{},.-\"e\0\377x"[nm__rng_below(&r, 23)];
    if (nm__graph_parse("g", s, nm__rng_below(&r, 8) ? sizeof good - 1 : nm__rng_below(&r, 60), &g,
                        NULL))
      continue;
    taken++;
    assert_true(g.n >= 2 && g.n <= NM__GRAPH_NODES);
    for (int i = 0; i < g.n; i++) assert_true(g.degree[i] >= 1);
    for (int i = 0; i < g.n; i++)
      for (int j = 0; j < g.n; j++)
        assert_int_equal(nm__graph_adjacent(&g, i, j), nm__graph_adjacent(&g, j, i));
  }
  assert_true(taken > 100 && taken < 9000);
}

/* ---- geometry ------------------------------------------------------------------- */

/* Vectors that are the places themselves, turned into five dimensions. */
static void places(void **state) {
  (void)state;
  double x[16 * 5], gram[256];
  nm__graph_grid(&g, 4, 4);
  for (int i = 0; i < 16; i++)
    for (int d = 0; d < 5; d++) x[i * 5 + d] = 3 * g.xy[i][0] * (d == 1) + 3 * g.xy[i][1] * (d > 2);
  assert_int_equal(nm__gram_of(x, 16, 5, NULL, false, gram, NULL), NM_OK);
  assert_int_equal(nm__geometry_of(gram, &g, NULL, &q, NULL), NM_OK);
  assert_int_equal(q.rank, 2);
  near(q.r2, 1, 1e-9);
  near(q.r2_six, 1, 1e-9);
  near(q.share, 1, 1e-9);
  assert_true(q.spearman > 0.9 && q.energy < 0.4 && q.permuted > 0.05 && q.permuted < 0.25);
  assert_true(q.overlap > 0.9);
  /* A mean that all share changes nothing. */
  double before = q.energy;
  for (int i = 0; i < 16 * 5; i++) x[i] += 40;
  nm__gram_of(x, 16, 5, NULL, false, gram, NULL);
  nm__geometry_of(gram, &g, NULL, &q, NULL);
  near(q.energy, before, 1e-6);
  /* By size each dimension counts alike: a blown up one no longer hides the others. */
  for (int i = 0; i < 16; i++) x[i * 5] = 1000 * ((i * 7) % 16);
  nm__gram_of(x, 16, 5, NULL, false, gram, NULL);
  nm__geometry_of(gram, &g, NULL, &q, NULL);
  double raw = q.spearman;
  nm__gram_of(x, 16, 5, NULL, true, gram, NULL);
  nm__geometry_of(gram, &g, NULL, &q, NULL);
  assert_true(q.spearman > raw + 0.3);
}

static void left_out(void **state) {
  (void)state;
  bool there[9] = {true, true, true, true, true, false, true, true, false};
  double gram[81];
  nm__graph_grid(&g, 3, 3);
  for (int i = 0; i < 9; i++)
    for (int j = 0; j < 9; j++)
      gram[i * 9 + j] = there[i] && there[j] ? g.xy[i][0] * g.xy[j][0] + g.xy[i][1] * g.xy[j][1]
                                             : NAN;
  assert_int_equal(nm__geometry_of(gram, &g, there, &q, NULL), NM_OK);
  assert_int_equal(q.n, 7);
  near(q.r2, 1, 1e-9);
  assert_true(isnan(q.pc[5][0]) && isnan(q.overlap) && !isnan(q.pc[0][0]));
  memset(there, 0, 6);
  assert_int_equal(nm__geometry_of(gram, &g, there, &q, NULL), NM_OK);
  assert_true(isnan(q.r2));
  memset(there, 1, 9);
  assert_int_equal(nm__geometry_of(gram, &g, there, &q, NULL), NM_EFORMAT);
  memset(gram, 0, sizeof gram);
  assert_int_equal(nm__geometry_of(gram, &g, there, &q, NULL), NM_OK);
  assert_true(isnan(q.energy) && isnan(q.r2));
}

/* The specification's figures for random vectors, before and after one step of mixing. */
static void baselines(void **state) {
  (void)state;
  nm__graph_grid(&g, 4, 4);
  assert_int_equal(nm__geometry_random(&g, NULL, 4096, false, 1, &q, NULL), NM_OK);
  assert_true(q.r2 > 0.05 && q.r2 < 0.2);
  near(q.energy, 1, 0.02);
  near(q.spearman, 0, 0.1);
  assert_int_equal(nm__geometry_random(&g, NULL, 4096, true, 1, &q, NULL), NM_OK);
  assert_true(q.r2 > 0.93);
  near(q.energy, 0.57, 0.02);
  near(q.spearman, 0.914, 0.01);
  assert_int_equal(nm__geometry_random(&g, NULL, 64, true, 1, &q, NULL), NM_OK);
  near(q.r2, 0.71, 0.12);
  near(q.spearman, 0.69, 0.05);
}

static void rule(void **state) {
  (void)state;
  double p[16] = {0}, out[2];
  nm__graph_grid(&g, 4, 4);
  p[1] = 0.5, p[4] = 0.3;
  nm__rule_accuracy(&g, p, 0, 1, out);
  near(out[0], 0.8, 1e-12);
  near(out[1], 0.6, 1e-12);
  nm__rule_accuracy(&g, p, 0, -1, out);
  near(out[1], 0.8, 1e-12);
  /* Come from somewhere that is no neighbour, as in shuffled text. */
  p[9] = 0.1;
  nm__rule_accuracy(&g, p, 0, 9, out);
  near(out[1], 0.8 / 0.9, 1e-12);
  nm__rule_by_chance(&g, out);
  near(out[0], 0.21, 0.01);
  near(out[1], 0.15, 0.02);
  nm__graph_honeycomb(&g);
  p[13] = 0;
  nm__rule_accuracy(&g, p, 13, 9, out);
  assert_true(isnan(out[1]));
}

/* The Gram matrix of Llama-3.1-8B at layer 26. The specification gives 0.826 for the rank
 * correlation: that of ranks whose ties are broken by the order of a sort. With equal steps at the
 * mean of their ranks, as Spearman's is defined, it is 0.838. */
static void llama(void **state) {
  (void)state;
  FILE *f = fopen("../shared/data/in-context-representations/llama31_8b_L26_class_mean_gram.csv",
                  "r");
  double gram[256];
  char line[1024];
  if (!f) {
    print_message("skipped: no ../shared\n");
    skip();
  }
  assert_non_null(fgets(line, sizeof line, f));
  for (int i = 0; i < 16; i++) {
    assert_non_null(fgets(line, sizeof line, f));
    char *s = strchr(line, ',');
    for (int j = 0; j < 16; j++) gram[i * 16 + j] = strtod(s + 1, &s);
  }
  fclose(f);
  nm__graph_grid(&g, 4, 4);
  assert_int_equal(nm__geometry_of(gram, &g, NULL, &q, NULL), NM_OK);
  near(q.r2, 0.961, 0.0006);
  near(q.spearman, 0.8379, 0.0001);
  near(q.overlap, 0.968, 0.0006);
  near(q.energy, 0.81, 0.006);
  near(q.share, 0.36, 0.006);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forms),     cmocka_unit_test(refused),   cmocka_unit_test(mutated),
      cmocka_unit_test(places),    cmocka_unit_test(left_out),  cmocka_unit_test(baselines),
      cmocka_unit_test(rule),      cmocka_unit_test(llama)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
