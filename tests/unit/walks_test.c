/* The study in-context-representations: every fault that can be put in is seen by the claim that is
 * there for it, in the quick form, and by no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "study/study.h"

static char dir[] = "/tmp/walks_test_XXXXXX";

static const nm_study_claim *find(const nm_study_result *r, const char *name) {
  for (int i = 0; i < r->n_claims; i++)
    if (!strcmp(r->claim[i].name, name)) return &r->claim[i];
  fail_msg("no claim %s", name);
  return NULL;
}

static void run(const char *fault, nm_study_result *r) {
  uint64_t seed = 1;
  char out[80];
  nm_err err = {0};
  snprintf(out, sizeof out, "%s/%s", dir, fault ? fault : "none");
  if (nm_study("in-context-representations",
               &(nm_study_opts){.seeds = &seed, .n_seeds = 1, .quick = true, .fault = fault,
                                .out = out, .threads = 2}, r, &err))
    fail_msg("%s", err.text);
}

static void faults(void **state) {
  (void)state;
  static const char *const seen[][2] = {{"back-counts", "back and forth"},
                                        {"zero-fill", "left out"},
                                        {"one-map", "fresh words"},
                                        {"ordered-control", "order"},
                                        {"short-window", "window"},
                                        {"noop-ablation", "silenced"}};
  enum { N = sizeof seen / sizeof *seen };
  nm_study_result r;
  nm_study_info info;
  for (int i = 0; nm_studies(i, &info) && strcmp(info.name, "in-context-representations");) i++;
  for (int i = 0; i <= N; i++)
    if (i < N) assert_string_equal(info.faults[i].name, seen[i][0]);
    else assert_null(info.faults[i].name);
  run(NULL, &r);
  assert_int_equal(r.verdict, NM_EUNSURE);
  for (int i = 0; i < N; i++) assert_int_equal(find(&r, seen[i][1])->state, NM_CLAIM_OK);
  nm_study_result_free(&r);
  for (int i = 0; i < N; i++) {
    run(seen[i][0], &r);
    assert_int_equal(r.verdict, NM_ECHECK);
    for (int k = 0; k < N; k++)
      assert_int_equal(find(&r, seen[k][1])->state, k == i ? NM_CLAIM_RED : NM_CLAIM_OK);
    nm_study_result_free(&r);
  }
}

/* No effect is asked of a model that did not learn; a finished seed is not run again. */
static void unsure(void **state) {
  (void)state;
  nm_study_result r, again;
  char path[100];
  run(NULL, &r);
  assert_int_equal(find(&r, "learned")->state, NM_CLAIM_UNSURE);
  assert_int_equal(find(&r, "map")->n, 0);
  snprintf(path, sizeof path, "%s/none/model-1.gguf", dir);
  assert_int_equal(unlink(path), 0);
  run(NULL, &again);
  assert_int_equal(access(path, F_OK), -1);
  assert_string_equal(r.json, again.json);
  nm_study_result_free(&r);
  nm_study_result_free(&again);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(faults), cmocka_unit_test(unsure)};
  if (!mkdtemp(dir)) return 1;
  int st = cmocka_run_group_tests(tests, NULL, NULL);
  char line[120];
  snprintf(line, sizeof line, "rm -r %s", dir);
  return system(line) ? 1 : st;
}
