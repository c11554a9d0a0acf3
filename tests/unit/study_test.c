/* study_test.c - what a verdict is made of, and the instrument of concept-depth on vectors and
 * models whose answers are known. Each trap of the study turns a test here red
 * (scripts/check_faults.sh). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "model_run.h"
#include "study/concept.h"

static const struct nm__mini_recipe tiny = {{3, 32, 1, 64, 100, 0.15, 4, 1, false}, 30, 480,
                                            3e-3, 10, 0.3, 0.01, 1, -1, -1, 0, 0};

static void get_items(int level, size_t n, struct nm__mini *t, struct nm__mini_items *items) {
  nm_err err = {0};
  if (nm__mini_new(&tiny, nm__concept_levels, NM__HEART, 7, 1, t, &err) ||
      nm__mini_items_make(&nm__concept_levels[level], 7, 5, n, false, &t->words, items, &err))
    fail_msg("%s", err.text);
}

static void drop(struct nm__mini *t, struct nm__mini_items *items) {
  nm__mini_items_done(items);
  nm__mini_done(t);
}

/* Trap: twins on both sides. */
static void twins_on_one_side(void **state) {
  (void)state;
  for (int level = 0; level < NM__HEART; level++) {
    struct nm__mini t;
    struct nm__mini_items items;
    struct nm__concept_splits s;
    get_items(level, 200, &t, &items);
    assert_int_equal(nm__concept_splits_make(&items, 3, NM__NO_FAULT, &s, NULL), 0);
    assert_int_equal(s.shared, 0);
    for (int i = 0; i < 3; i++) assert_int_equal(s.v[i].n_train + s.v[i].n_test, 200);
    nm__concept_splits_done(&s);
    assert_int_equal(nm__concept_splits_make(&items, 3, NM__SPLIT_TWINS, &s, NULL), 0);
    assert_true(s.shared > 0);
    nm__concept_splits_done(&s);
    drop(&t, &items);
  }
}

/* Traps: accuracy on the rows of the fit, and a curve that was not measured. Vectors of noise carry
 * nothing; one column that is the label carries all. */
static void curves_measure(void **state) {
  (void)state;
  struct nm__mini t;
  struct nm__mini_items items;
  struct nm__concept_splits s;
  double acc[NM__CONCEPT_ROWS];
  enum { N = 200, D = 48 };
  get_items(NM__H2, N, &t, &items);
  assert_int_equal(nm__concept_splits_make(&items, 3, NM__NO_FAULT, &s, NULL), 0);
  float *x = malloc(sizeof *x * 3 * N * D);
  struct nm__concept_acts a = {.x = x, .n_rows = 3, .D = D, .n = N};
  for (size_t i = 0; i < 3 * N * D; i++)
    x[i] = (float)((double)(nm__rand_at(3, 0, i) >> 11) * 0x1p-53 - 0.5);
  for (size_t i = 0; i < N; i++) x[(N + i) * D] = items.label[i] ? 3 : -3;
  assert_int_equal(nm__concept_curve(&a, items.label, false, &s, NM__NO_FAULT, NM__H2, NULL, acc,
                                     NULL), 0);
  print_message("noise %.3f, the label %.3f, noise %.3f\n", acc[0], acc[1], acc[2]);
  assert_true(fabs(acc[0] - 0.5) < 0.1 && acc[1] > 0.99 && fabs(acc[2] - 0.5) < 0.1);
  assert_int_equal(nm__concept_depth(acc, 3), 0);
  assert_int_equal(nm__concept_curve(&a, items.label, true, &s, NM__NO_FAULT, NM__H2, NULL, acc,
                                     NULL), 0);
  assert_true(fabs(acc[1] - 0.5) < 0.15);
  nm__concept_splits_done(&s);
  free(x);
  drop(&t, &items);
}

/* Traps: a mean over tokens, and the answer's own place. Before the first block the vector is the
 * embedding of the question's last token. */
static void last_token(void **state) {
  (void)state;
  for (int level = 0; level < NM__HEART; level++) {
    struct nm__mini t;
    struct nm__mini_items items;
    struct nm__concept_acts a;
    nm_err err = {0};
    get_items(level, 60, &t, &items);
    if (nm__concept_capture(t.m, &items, NM__NO_FAULT, 2, &a, &err)) fail_msg("%s", err.text);
    assert_int_equal(a.n_rows, tiny.shape.L + 1);
    assert_int_equal(nm__concept_strays(&a, &items), 0);
    for (size_t i = 0; i < items.n; i++) {
      int32_t id = items.seq[i].ids[items.seq[i].n - 1];
      const float *e = (const float *)(const void *)t.m->embd.data + id * a.D;
      assert_memory_equal(a.x + i * (size_t)a.D, e, sizeof *e * (size_t)a.D);
    }
    nm__concept_acts_done(&a);
    drop(&t, &items);
  }
}

/* Trap: rounding that rounds nothing. */
static void rounding(void **state) {
  (void)state;
  static const int bits[] = {8, 4, 3, 2};
  double last = 0;
  for (int k = 0; k < 4; k++) {
    struct nm__mini t, u;
    struct nm__mini_items items;
    double off = 0;
    get_items(NM__L0, 2, &t, &items);
    assert_int_equal(nm__mini_new(&tiny, nm__concept_levels, NM__HEART, 7, 1, &u, NULL), 0);
    nm__mini_round(&t.p, bits[k]);
    for (size_t i = 0; i < t.p.n_floats; i++)
      off += pow((double)t.p.values[i] - (double)u.p.values[i], 2);
    assert_true(off > last && nm__mini_most_values(&t.p) <= (1 << bits[k]) - 1);
    assert_memory_equal(t.m->embd.data, u.m->embd.data, 4 * 64);       /* not of a block */
    last = off;
    nm__mini_done(&u);
    drop(&t, &items);
  }
}

/* The same bits with one thread and two; what was saved is what was trained; another recipe's file
 * is not taken. */
static void training(void **state) {
  (void)state;
  char path[64];
  snprintf(path, sizeof path, "/tmp/noema-study-%ld.gguf", (long)getpid());
  struct nm__mini a, b;
  nm_err err = {0};
  for (int k = 0; k < 2; k++) {
    struct nm__mini *t = k ? &b : &a;
    if (nm__mini_new(&tiny, nm__concept_levels, NM__HEART, 7, 3, t, &err) ||
        nm__mini_train(t, nm__concept_levels, NM__HEART, 7, 3, k + 1, "test", NULL, &err))
      fail_msg("%s", err.text);
  }
  size_t bytes = a.p.n_floats * sizeof *a.p.values;
  assert_memory_equal(a.p.values, b.p.values, bytes);
  assert_true(a.loss > 0 && a.loss < 6);
  if (nm__mini_save(&a, path, "r 1", &err)) fail_msg("%s", err.text);
  memset(b.p.values, 0, bytes);
  assert_false(nm__mini_load(&b, path, "r 2"));
  assert_true(b.p.values[0] == 0);
  assert_true(nm__mini_load(&b, path, "r 1"));
  assert_memory_equal(a.p.values, b.p.values, bytes);
  remove(path);
  nm__mini_done(&a);
  nm__mini_done(&b);
}

/* Red beats unsure, unsure beats too few, and a mean does not hide a seed. */
static void verdicts(void **state) {
  (void)state;
  nm_study_result out = {0};
  struct nm__study_run r = {.out = &out};
  const double v[] = {0.9, 0.9, 0.4}, good[] = {1, 1, 1};
  nm__study_claim(&r, &(struct nm__claim){"a", "", NM__EFFECT, 0.5, HUGE_VAL}, good, 3);
  assert_int_equal(nm__study_verdict(out.claim, 1, 3), NM_OK);
  assert_int_equal(nm__study_verdict(out.claim, 1, 2), NM_EUNSURE);
  nm__study_claim(&r, &(struct nm__claim){"b", "", NM__NOTE, 0.5, HUGE_VAL}, v, 3);
  assert_int_equal(nm__study_verdict(out.claim, 2, 3), NM_OK);
  nm__study_claim(&r, &(struct nm__claim){"c", "", NM__CONDITION, 0.5, HUGE_VAL}, v, 3);
  assert_int_equal(nm__study_verdict(out.claim, 3, 3), NM_EUNSURE);
  nm__study_claim(&r, &(struct nm__claim){"d", "", NM__CONTROL, 0.5, HUGE_VAL}, v, 3);
  assert_int_equal(out.claim[3].state, NM_CLAIM_RED);
  assert_true(out.claim[3].worst == 0.4);
  assert_int_equal(nm__study_verdict(out.claim, 4, 3), NM_ECHECK);
  nm__study_claim(&r, &(struct nm__claim){"e", "", NM__EFFECT, 0.5, HUGE_VAL}, NULL, 0);
  assert_int_equal(out.claim[4].state, NM_CLAIM_UNSURE);
  nm_study_result_free(&out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(twins_on_one_side), cmocka_unit_test(curves_measure),
      cmocka_unit_test(last_token),        cmocka_unit_test(rounding),
      cmocka_unit_test(training),          cmocka_unit_test(verdicts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
