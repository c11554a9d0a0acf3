/* patch_test.c - activation patching: alignment of prompts, the planted truth exactly, both
 * directions, noise, effects and intervals by hand, kept cells, hostile lines, heat maps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "model_run.h"
#include "report/report.h"
#include "study/patch.h"

static char dir[80];

static int begin(void **state) {
  (void)state;
  snprintf(dir, sizeof dir, "/tmp/noema_patch_test.%ld/run", (long)getpid());
  return 0;
}

static void remove_dir(void) {
  char cmd[160];
  snprintf(cmd, sizeof cmd, "rm -rf /tmp/noema_patch_test.%ld", (long)getpid());
  assert_int_equal(system(cmd), 0);
}

static int end(void **state) {
  (void)state;
  remove_dir();
  return 0;
}

/* ---- alignment ------------------------------------------------------------------ */

static int load(const nm_model *m, const char *clean, const char *corrupt, struct nm__pairs *l,
                nm_err *err) {
  nm_patch_opts o = {.clean = clean, .corrupt = corrupt, .answer = "ann", .wrong = "bob"};
  return nm__pairs_load(m, &o, l, err);
}

static void aligned(const nm_model *m, const char *clean, const char *corrupt, int first, int last,
                    int n, const int *from) {
  struct nm__pairs l;
  nm_err err = {0};
  if (load(m, clean, corrupt, &l, &err)) fail_msg("%s", err.text);
  const struct nm__pair *p = &l.v[0];
  assert_int_equal(p->base.n, n);
  assert_int_equal(p->first, first);
  assert_int_equal(p->end, last);
  for (int i = 0; i < n; i++) assert_int_equal(p->from[i], from[i]);
  assert_int_equal(nm__pair_role(p, 0), NM__BEFORE);
  assert_int_equal(nm__pair_role(p, n - 1), NM__END);
  if (last < n) assert_int_equal(nm__pair_role(p, last - 1), NM__LAST);
  nm__pairs_done(&l);
}

static void test_alignment(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  struct nm__pairs l;
  nm_err err = {0};
  aligned(m, "ann saw the fox ?", "bob saw the fox ?", 1, 2, 6, (int[]){0, 1, 2, 3, 4, 5});
  aligned(m, "ann saw the fox ?", "bob ran by a tree", 1, 6, 6, (int[]){0, 1, 2, 3, 4, 5});
  /* The source has one token more in what differs: its first and last answer to the base's. */
  aligned(m, "the big red sun saw it ?", "the old fox saw it ?", 2, 4, 7,
          (int[]){0, 1, 2, 4, 5, 6, 7});
  aligned(m, "the sun saw it ?", "the old fox saw it ?", 2, 4, 7, (int[]){0, 1, -1, 2, 3, 4, 5});
  assert_int_equal(load(m, "ann saw", "ann saw", &l, &err), NM_EUSAGE);
  assert_non_null(strstr(err.text, "<s>|ann| saw (3) and <s>|ann| saw (3)"));
  nm__pairs_done(&l);
  assert_int_equal(load(m, "ann saw it", "ann saw the fox", &l, &err), NM_EUSAGE);
  nm__pairs_done(&l);
  assert_int_equal(load(m, "ann saw it", "ann it", &l, &err), NM_EUSAGE);
  nm__pairs_done(&l);
  nm_model_close(m);
}

/* ---- the planted truth --------------------------------------------------------------- */

static nm_patch_result patch(nm_model *m, nm_engine *e, nm_patch_opts o) {
  nm_patch_result r;
  nm_err err = {0};
  remove_dir();
  o.out = dir;
  if (nm_patch(m, e, &o, &r, &err)) fail_msg("%s", err.text);
  assert_true(r.exact_nothing && r.exact_everything && r.can_everything);
  return r;
}

/* Block 0, head 3 copies the name, and the last position reads it there. */
static void test_planted(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  for (int noising = 0; noising < 2; noising++) {
    nm_patch_result r = patch(m, e, (nm_patch_opts){.clean = "ann saw the red fox by night ?",
                                                    .corrupt = "bob saw the red fox by night ?",
                                                    .answer = "ann", .wrong = "bob",
                                                    .noising = noising});
    const nm_patch_map *resid = &r.map[0], *attn = &r.map[1], *mlp = &r.map[2], *head = &r.map[3];
    double none = noising ? 1 : 0, all = 1 - none;
    for (int l = 0; l < m->L; l++) {
      for (int h = 0; h < m->H; h++)
        assert_true(head->effect[l * m->H + h] == (l == 0 && h == 3 ? all : none));
      for (int c = 0; c < 10; c++) {
        bool there = c == 9 || (l == 0 ? c == 1 : c == 8);
        assert_true(resid->effect[l * 10 + c] == (there ? all : none));
        assert_true(attn->effect[l * 10 + c] == (l == 0 && c >= 8 ? all : none));
        assert_true(fabs(mlp->effect[l * 10 + c] - none) < 1e-6);
      }
    }
    assert_int_equal(head->top_col, 3);
    assert_true(head->found && head->control == NM_OK && head->top.mean == 1);
    assert_true(head->unrelated.mean < 0.9 && head->random.mean == 0);
    assert_false(mlp->found);
    assert_int_equal(r.verdict, NM_OK);
    nm_patch_result_free(&r);
  }
  nm_engine_free(e);
  nm_model_close(m);
}

/* Noise has the width that was asked for, and clean activations of the head undo it. */
static void test_tracing(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  static const char *const comp[] = {"attn.head", "resid_post"};
  nm_patch_opts o = {.clean = "the fox saw ann by night ?", .subject = "ann", .answer = "ann",
                     .components = comp, .n_components = 2, .n_seeds = 8, .seed = 3};
  nm_patch_result r = patch(m, e, o);
  assert_int_equal(r.map[0].top_col, 3);
  assert_true(fabs(r.map[0].top.mean - 1) < 0.05);
  assert_true(r.corrupt.mean < r.clean.mean - 1 && r.corrupt.hi > r.corrupt.lo);
  double weak = r.corrupt.mean;
  nm_patch_result_free(&r);
  o.noise = 0.3;
  r = patch(m, e, o);
  assert_true(r.corrupt.mean > weak + 1);      /* a tenth of the noise does little */
  nm_patch_result_free(&r);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- effects by hand ------------------------------------------------------------------ */

/* Two pairs, one component of heads, one layer: the ratio of sums, and its t interval. */
static void test_effects(void **state) {
  (void)state;
  nm_model m = {.L = 1, .H = 2};
  double c0[] = {1, 3}, c1[] = {2, 6}, low[] = {1, 2}, *cells[] = {c0, c1}, effect[6];
  struct nm__pair pairs[2] = {{.m_clean = 3, .m_corrupt = low}, {.m_clean = 8, .m_corrupt = low + 1}};
  struct nm__comp comp = {.heads = true};
  nm_patch_map map = {.n_layers = 1, .n_cols = 2, .heads = true, .effect = effect,
                      .lo = effect + 2, .hi = effect + 4};
  nm_patch_result r = {.map = &map, .n_maps = 1};
  struct nm__patching P = {.m = &m, .r = &r, .pairs = {pairs, 2, false, true}, .comp = &comp,
                           .n_comp = 1, .n_seeds = 1, .cell = cells};
  assert_int_equal(nm__patch_fit(&P, NULL), 0);
  assert_true(effect[0] == 0 && effect[1] == 0.75);    /* (2 + 4) / (2 + 6) */
  assert_int_equal(map.top_col, 1);
  double sd = sqrt(2 * 0.125 * 0.125), half = 12.706 * sd / sqrt(2); /* residuals +-0.5, mean 4 */
  assert_true(fabs(effect[5] - (0.75 + half)) < 1e-9 && fabs(effect[3] - (0.75 - half)) < 1e-9);
  pairs[1].m_clean = 2;                                /* not moved by its corruption: left out */
  r.n_left_out = 0;
  assert_int_equal(nm__patch_fit(&P, NULL), 0);
  assert_int_equal(r.n_left_out, 1);
  assert_true(effect[1] == 1);
}

/* ---- kept cells ------------------------------------------------------------------------- */

static void test_hostile_lines(void **state) {
  (void)state;
  nm_model m = {.L = 3, .H = 4};
  static const char line[] = "[1,1,1,2,5,-0.25]";
  struct nm__pair pairs[2] = {{.base = {NULL, 5}}, {.base = {NULL, 5}}};
  struct nm__comp comp[2] = {{.heads = true}, {.heads = false}};
  double *cell[8];
  struct nm__patching P = {.m = &m, .pairs = {pairs, 2, false, true}, .comp = comp, .n_comp = 2,
                           .n_seeds = 2, .cell = cell};
  for (int i = 0; i < 8; i++) cell[i] = malloc(3 * 6 * sizeof(double));
  for (int i = 0; i < 8; i++)
    for (int k = 0; k < 18; k++) cell[i][k] = NAN;
  nm__patch_read_cell(&P, line, strlen(line));
  assert_true(cell[7][2 * 6 + 5] == -0.25);
  assert_int_equal(P.n_done, 1);
  nm__patch_read_cell(&P, line, strlen(line));
  assert_int_equal(P.n_done, 1);
  for (uint64_t i = 0; i < 10000; i++) {
    char s[32];
    size_t n = strlen(line);
    memcpy(s, line, n);
    for (int k = 0; k < 3; k++)
      s[nm__rand_at(i, 1, (uint64_t)k) % n] =
          "0123456789,-[].e\"{"[nm__rand_at(i, 2, (uint64_t)k) % 18];
    nm__patch_read_cell(&P, s, nm__rand_at(i, 3, 0) % (n + 1));
    nm__patch_read_cell(&P, s, n);
  }
  for (int i = 0; i < 8; i++) free(cell[i]);
}

static int stop(void *arg, const char *what, double done, double total) {
  (void)what;
  assert_true(done <= total);
  return ++*(int *)arg > 30;
}

static void test_goes_on(void **state) {
  (void)state;
  nm_model *m = open_model(PLANTED);
  nm_engine *e = new_engine(m, (nm_engine_opts){.threads = 2});
  nm_patch_opts o = {.clean = "ann saw the fox ?", .corrupt = "bob saw the fox ?", .answer = "ann"};
  nm_patch_result r, whole = patch(m, e, o);
  int calls = 0;
  nm_progress p = {stop, &calls};
  nm_err err = {0};
  remove_dir();
  o.out = dir;
  o.progress = &p;
  assert_int_equal(nm_patch(m, e, &o, &r, &err), NM_EINTR);
  int before = calls;
  calls = -1000;
  if (nm_patch(m, e, &o, &r, &err)) fail_msg("%s", err.text);
  assert_int_equal(calls + 1000, (int)whole.n_runs - before);  /* none of them twice */
  assert_string_equal(r.json, whole.json);
  nm_patch_result_free(&r);
  nm_patch_result_free(&whole);
  nm_engine_free(e);
  nm_model_close(m);
}

/* ---- heat maps --------------------------------------------------------------------------- */

static void test_heat_map(void **state) {
  (void)state;
  const char *rows[] = {"<s>", "ann & \"bob\"", "\xff\x1b[31m"};
  double v[] = {0, 0.5, -1, NAN, 1.7, -0.001}, lo[6] = {0}, hi[] = {0, 0.6, 0, 0, 0, 0};
  struct nm__heat h = {.title = "a <title>", .subtitle = "sub", .x_label = "layer",
                       .y_label = "position", .value_label = "effect", .n_rows = 3, .n_cols = 2,
                       .row = rows, .v = v, .lo = lo, .hi = hi, .mark_row = 1, .mark_col = 0};
  struct nm__buf a, b;
  nm__buf_init(&a, 1 << 20);
  nm__buf_init(&b, 1 << 20);
  nm__heat_svg(&h, &a);
  nm__heat_svg(&h, &b);
  assert_string_equal(a.s, b.s);
  assert_null(strstr(a.s, "\x1b"));
  assert_null(strstr(a.s, "<title>a"));
  assert_non_null(strstr(a.s, "a &lt;title&gt;"));
  assert_non_null(strstr(a.s, "ann &amp; &quot;bob&quot;"));
  assert_non_null(strstr(a.s, "effect: 0.500 (0.000 to 0.600)"));
  assert_non_null(strstr(a.s, "fill-opacity='1.000'"));        /* 1.7 is as strong as 1 */
  int n = 0;
  for (const char *s = a.s; (s = strstr(s, "</title></rect>")); s++) n++;
  assert_int_equal(n, 5);                                      /* one cell has no value */
  nm__buf_done(&a);
  nm__buf_done(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_alignment), cmocka_unit_test(test_planted),
      cmocka_unit_test(test_tracing),   cmocka_unit_test(test_effects),
      cmocka_unit_test(test_goes_on),   cmocka_unit_test(test_hostile_lines),
      cmocka_unit_test(test_heat_map),
  };
  return cmocka_run_group_tests(tests, begin, end);
}
