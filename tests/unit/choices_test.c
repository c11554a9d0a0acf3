/* choices_test.c - labels of more than two classes; multiple choice recognised by what it holds; and
 * saved probes of every kind: mutations, and trees that lead nowhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/table.h"
#include "study/depth.h"

static const char named[] = "question,A,B,C,D,answer,subject\n"
                            "\"Is it, so?\",yes,no,maybe,never,B,x\nTwo?,1,2,3,4,b,y\n";
static const char headless[] = "\"Is it, so?\",yes,no,maybe,never,B\nTwo?,1,2,3,4,D\n";
static const char listed[] =
    "{\"question\": \"Is it, so?\", \"choices\": [\"yes\", \"no\", 3], \"answer\": 1}\n"
    "{\"question\": \"Two?\", \"choices\": [\"1\", \"2\", \"3\", \"4\"], \"answer\": \"D\"}\n";

static bool choices(const char *s, struct nm__table *t) {
  bool is;
  assert_int_equal(nm__table_parse("t", s, strlen(s), t, NULL), 0);
  assert_int_equal(nm__table_choices("t", t, &is, NULL), 0);
  return is;
}

static void test_layouts(void **state) {
  (void)state;
  const char *const file[] = {named, headless, listed}, *const last[] = {"B", "D", "D"};
  struct nm__table t;
  for (int i = 0; i < 3; i++) {
    assert_true(choices(file[i], &t));
    assert_int_equal(t.n_rows, 2);
    assert_string_equal(t.cols[0], "text");
    assert_string_equal(t.cols[1], "answer");
    assert_string_equal(t.cells[0], i == 2
                                        ? "Is it, so?\nA. yes\nB. no\nC. 3\nAnswer:"
                                        : "Is it, so?\nA. yes\nB. no\nC. maybe\nD. never\nAnswer:");
    assert_string_equal(t.cells[1], "B");
    assert_string_equal(t.cells[t.n_cols + 1], last[i]);
    if (i == 0) assert_string_equal(t.cells[t.n_cols + 2], "y");
    nm__table_done(&t);
  }
  assert_false(choices("question,answer\nIs it?,yes\n", &t));
  nm__table_done(&t);
  assert_false(choices("a,b,c,d,e,f\n1,2,3,4,5,A\n", &t));       /* the names are no question */
  nm__table_done(&t);
}

static void test_refuses(void **state) {
  (void)state;
  const char *const bad[] = {"question,A,B,C,answer\nIs it?,1,2,3,D\n",
                             "question,A,B,C,answer\n,1,2,3,A\n",
                             "question,A,B,C,answer\nIs it?,1,2,3,\n",
                             "[{\"question\": \"x\", \"choices\": [\"one\"], \"answer\": 0}]"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct nm__table t;
    nm_err err = {0};
    bool is;
    assert_int_equal(nm__table_parse("t", bad[i], strlen(bad[i]), &t, NULL), 0);
    assert_int_equal(nm__table_choices("t", &t, &is, &err), NM_EFORMAT);
    assert_non_null(strstr(err.text, "question"));
    nm__table_done(&t);
  }
}

static void test_labels(void **state) {
  (void)state;
  const char s[] = "text,label\na,low\nb,mid\nc,high\nd,mid\ne,low\nf,low\ng,low\n";
  struct nm__table t;
  struct nm__labelled l;
  nm_err err;
  struct nm__labelled_opts o = {.max_labels = NM__LABELS_MAX};
  assert_int_equal(nm__table_parse("t", s, strlen(s), &t, NULL), 0);
  assert_int_equal(nm__labelled_from("t", &t, &o, &l, NULL), 0);
  assert_int_equal(l.n_labels, 3);
  assert_string_equal(l.label_name[0], "high");
  assert_string_equal(l.label_name[2], "mid");
  const uint8_t want[] = {1, 2, 0, 2, 1, 1, 1};
  assert_memory_equal(l.label, want, 7);
  nm__labelled_done(&l);
  o.max_rows = 5;                  /* in turns: low, mid, high, low, mid */
  assert_int_equal(nm__labelled_from("t", &t, &o, &l, NULL), 0);
  assert_int_equal(l.n, 5);
  assert_memory_equal(l.label, want, 5);
  nm__labelled_done(&l);
  o.max_labels = 0;
  assert_int_equal(nm__labelled_from("t", &t, &o, &l, &err), NM_EFORMAT);
  assert_non_null(strstr(err.text, "must take two values"));
  nm__table_done(&t);
}

/* ---- hostile files ------------------------------------------------------------------ */

static size_t mutate(char *to, const char *s, size_t n, struct nm__rng *r) {
  memcpy(to, s, n);
  for (uint64_t k = 1 + nm__rng_below(r, 4); k > 0 && n > 1; k--) {
    size_t at = (size_t)nm__rng_below(r, n);
    switch (nm__rng_below(r, 4)) {
      case 0: to[at] = (char)nm__rng_u64(r); break;
      case 1: to[at] = "0123456789-,[]{}\".eABCD\n"[nm__rng_below(r, 24)]; break;
      case 2: memmove(to + at, to + at + 1, n - at - 1), n--; break;
      default: n = at + 1;
    }
  }
  return n;
}

static void test_mutated_choices(void **state) {
  (void)state;
  const char *const file[] = {named, headless, listed};
  int taken = 0;
  for (uint64_t i = 0; i < 10000; i++) {
    struct nm__rng r = {7, i, 0};
    char s[400];
    struct nm__table t;
    bool is;
    size_t n = mutate(s, file[i % 3], strlen(file[i % 3]), &r);
    if (nm__table_parse("t", s, n, &t, NULL)) continue;
    if (!nm__table_choices("t", &t, &is, NULL) && is) {
      for (size_t k = 0; k < t.n_rows; k++) assert_non_null(strstr(t.cells[k * t.n_cols], "Answer:"));
      taken++;
    }
    nm__table_done(&t);
  }
  assert_true(taken > 500);
}

#define HEAD "{\"noema\": \"probe\", \"site\": \"blk.1.resid_post\", \"prompt\": \"{text}\", "
#define TREE "\"kind\": \"forest\", \"width\": 3, \"labels\": [\"a\", \"b\", \"c\"], \"trees\": "
static const char linear[] = HEAD "\"labels\": [\"no\", \"yes\"], \"b\": 0.5, \"w\": [1, -2.5, 3e-4]}";
static const char many[] = HEAD "\"kind\": \"linear\", \"labels\": [\"a\", \"b\", \"c\"], \"b\": "
                                "[1, 2, 3], \"w\": [[1, 2], [3, 4], [5, 6]]}";
static const char forest[] = HEAD TREE
    "[{\"nodes\": [[2, 0.5, 1], [-1, 0, 0], [0, -1.5, 3], [-1, 0, 1], [-1, 0, 2]], "
    "\"shares\": [1, 0, 0, 0, 0.5, 0.5, 0, 0, 1]}, {\"nodes\": [[-1, 0, 0]], \"shares\": "
    "[0.25, 0.25, 0.5]}]}";

static int parse(const char *s, size_t n) {
  nm_probe *p;
  int st = nm__probe_parse("t", s, n, &p, NULL);
  if (!st) nm_probe_free(p);
  return st;
}

static void test_probes(void **state) {
  (void)state;
  const char *const good[] = {linear, many, forest};
  int taken = 0;
  for (int i = 0; i < 3; i++) assert_int_equal(parse(good[i], strlen(good[i])), 0);
  for (uint64_t i = 0; i < 10000; i++) {
    struct nm__rng r = {8, i, 0};
    char s[600];
    size_t n = mutate(s, good[i % 3], strlen(good[i % 3]), &r);
    taken += !parse(s, n);
  }
  assert_true(taken > 100 && taken < 9000);
}

static void test_bad_probes(void **state) {
  (void)state;
  const char *const bad[] = {
      HEAD TREE "[{\"nodes\": [[0, 1, 0], [-1, 0, 0]], \"shares\": [1, 0, 0]}]}", /* to itself */
      HEAD TREE "[{\"nodes\": [[0, 1, 1], [-1, 0, 0]], \"shares\": [1, 0, 0]}]}", /* no second */
      HEAD TREE "[{\"nodes\": [[3, 1, 1], [-1, 0, 0], [-1, 0, 0]], \"shares\": [1, 0, 0]}]}",
      HEAD TREE "[{\"nodes\": [[-1, 0, 1]], \"shares\": [1, 0, 0]}]}",
      HEAD TREE "[{\"nodes\": [[-1, 0, 0]], \"shares\": [1, 0]}]}",
      HEAD TREE "[{\"nodes\": [[-1, 0, 0]], \"shares\": [1, 0, 2]}]}",
      HEAD TREE "[{\"nodes\": [], \"shares\": [1, 0, 0]}]}",
      HEAD TREE "[]}",
      HEAD "\"kind\": \"oracle\", \"b\": 0, \"w\": [1]}",
      HEAD "\"labels\": [\"a\", \"b\", \"c\"], \"b\": [1, 2], \"w\": [[1], [2], [3]]}",
      HEAD "\"labels\": [\"a\", \"b\", \"c\"], \"b\": [1, 2, 3], \"w\": [[1], [2, 2], [3]]}",
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(parse(bad[i], strlen(bad[i])), NM_EFORMAT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_layouts),         cmocka_unit_test(test_refuses),
      cmocka_unit_test(test_labels),          cmocka_unit_test(test_mutated_choices),
      cmocka_unit_test(test_probes),          cmocka_unit_test(test_bad_probes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
