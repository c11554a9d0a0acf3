/* knights_test.c - Knights and Knaves: truth tables, the solver against all published puzzles and
 * against a second evaluation of random ones, broken statements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world/knights.h"

static struct nm__kk parsed(const char *text) {
  struct nm__kk k;
  nm_err err = {0};
  if (nm__kk_parse(text, &k, &err)) fail_msg("%s", err.text);
  return k;
}

static void small_puzzles(void **state) {
  (void)state;
  uint32_t a = 9;
  /* The first says that the second lies, the second that both are knights. */
  struct nm__kk k = parsed("(('lying', 1), ('and', ('telling-truth', 0), ('telling-truth', 1)))");
  assert_int_equal(nm__kk_solve(&k, &a), 1);
  assert_int_equal(a, 1);
  k = parsed("(('lying', 0),)");                     /* the liar's own words: nobody can be it */
  assert_int_equal(nm__kk_solve(&k, &a), 0);
  k = parsed("(('telling-truth', 0),)");
  assert_int_equal(nm__kk_solve(&k, &a), 2);
  k = parsed("(('->', ('telling-truth', 0), ('telling-truth', 1)), ('telling-truth', 1))");
  assert_int_equal(nm__kk_solve(&k, &a), 1);         /* a knave cannot say "if I am one, then .." */
  assert_int_equal(a, 3);
  k = parsed("(('not', ('lying', 0)), ('<=>', ('lying', 0), ('lying', 1)))");
  for (uint32_t s = 0; s < 4; s++) {
    assert_int_equal(nm__kk_holds(&k, k.root[0], s), s & 1);
    assert_int_equal(nm__kk_holds(&k, k.root[1], s), (s & 1) == (s >> 1));
  }
}

/* ---- the published puzzles ------------------------------------------------- */

static int check_line(const char *line, size_t n) {
  json_t *o = json_loadb(line, n, 0, NULL);
  assert_non_null(o);
  struct nm__kk k = parsed(json_string_value(json_object_get(o, "statements")));
  json_t *want = json_object_get(o, "solution");
  uint32_t a = 0;
  assert_int_equal(json_array_size(want), k.n_people);
  assert_int_equal(nm__kk_solve(&k, &a), 1);
  for (int i = 0; i < k.n_people; i++)
    assert_int_equal(a >> i & 1, json_is_true(json_array_get(want, (size_t)i)));
  json_decref(o);
  return 1;
}

static void published_puzzles(void **state) {
  glob_t g;
  size_t n = 0;
  (void)state;
  if (glob("../shared/data/reasoning-memorization/*/*/people*.jsonl", 0, NULL, &g)) {
    print_message("skipped: the published puzzles\n");
    return;
  }
  for (size_t f = 0; f < g.gl_pathc; f++) {
    struct nm__map m;
    assert_int_equal(nm__map_open(g.gl_pathv[f], &m, NULL), 0);
    for (size_t at = 0; at < m.size;) {
      const char *s = (const char *)m.data + at, *end = memchr(s, '\n', m.size - at);
      size_t len = end ? (size_t)(end - s) : m.size - at;
      if (len) n += (size_t)check_line(s, len);
      at += len + 1;
    }
    nm__map_close(&m);
  }
  globfree(&g);
  print_message("published puzzles solved: %zu\n", n);
  assert_true(n > 1000);
}

/* ---- random statements against their value worked out while they are made ------------ */

/* Writes a random statement of depth 2 to b; bit s of the result: it holds when s says who is a
 * knight (three people, eight cases). */
static uint32_t random_statement(struct nm__rng *r, int depth, struct nm__buf *b) {
  static const char *const two[] = {"and", "or", "->", "<=>"};
  uint64_t dice = depth ? nm__rng_below(r, 7) : nm__rng_below(r, 2);
  uint32_t value = 0;
  if (dice < 2) {
    int p = (int)nm__rng_below(r, 3);
    nm__buf_printf(b, "('%s', %d)", dice ? "telling-truth" : "lying", p);
    for (uint32_t s = 0; s < 8; s++) value |= (uint32_t)((s >> p & 1) == dice) << s;
    return value;
  }
  nm__buf_printf(b, "('%s', ", dice == 2 ? "not" : two[dice - 3]);
  uint32_t x = random_statement(r, depth - 1, b), y = 0;
  if (dice > 2) {
    nm__buf_puts(b, ", ");
    y = random_statement(r, depth - 1, b);
  }
  nm__buf_putc(b, ')');
  uint32_t all[] = {~x, x & y, x | y, ~x | y, ~(x ^ y)};
  return all[dice - 2] & 255;
}

static void random_puzzles(void **state) {
  struct nm__rng r = {11, 3, 0};
  struct nm__buf b;
  (void)state;
  nm__buf_init(&b, 1 << 16);
  for (int i = 0; i < 10000; i++) {
    uint32_t value[3], found = 0, last = 0, a = 0;
    nm__buf_reset(&b);
    for (int p = 0; p < 3; p++) {
      nm__buf_puts(&b, p ? ", " : "(");
      value[p] = random_statement(&r, 2, &b);
    }
    nm__buf_puts(&b, ")");
    nm__buf_putc(&b, 0);
    for (uint32_t s = 0; s < 8; s++) {
      bool fits = true;
      for (int p = 0; p < 3; p++) fits &= (value[p] >> s & 1) == (s >> p & 1);
      if (fits) found++, last = s;
    }
    struct nm__kk k = parsed(b.s);
    assert_int_equal(nm__kk_solve(&k, &a), found);
    if (found) assert_int_equal(a, last);
  }
  nm__buf_done(&b);
}

static void broken_statements(void **state) {
  static const char *const bad[] = {
      "", "(", "()", "(('lying', 1))", "(('lying',))", "(('lying', 0, 0),)", "(('lies', 0),)",
      "(('lying', -1),)", "(('lying', 99999999999999999999),)", "(('lying', 0)", "(('lying', 0),) x",
      "(('not', ('lying', 0), ('lying', 0)),)", "(('and', ('lying', 0)),)", "(('and', 0, 0),)",
      "(('->', ('lying', 0), ('lying', 0), ('lying', 0)),)"};
  struct nm__kk k;
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (nm__kk_parse(bad[i], &k, NULL) != NM_EFORMAT) fail_msg("taken: %s", bad[i]);
  char deep[4000] = "(";
  for (int i = 0; i < 100; i++) strcat(deep, "('not', ");
  assert_int_equal(nm__kk_parse(deep, &k, NULL), NM_EFORMAT);
}

/* 10,000 damaged texts in heap copies of the exact size: refused or solved, no crash. */
static void damaged_statements(void **state) {
  static const char text[] = "(('<=>', ('telling-truth', 1), ('not', ('lying', 1))), ('or', ('lying', "
                             "2), ('telling-truth', 2)), ('->', ('lying', 0), ('lying', 1)))";
  (void)state;
  for (uint64_t i = 0; i < 10000; i++) {
    uint64_t r = nm__rand_at(78, 1, i);
    size_t n = r & 1 ? sizeof text - 1 : (size_t)(r >> 32) % sizeof text;
    struct nm__kk k;
    uint32_t a;
    char *copy = nm__strndup(text, n);
    if (n) copy[(r >> 8) % n] = (char)(r >> 56);
    if (!nm__kk_parse(copy, &k, NULL)) nm__kk_solve(&k, &a);
    free(copy);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(small_puzzles),     cmocka_unit_test(published_puzzles),
      cmocka_unit_test(random_puzzles),    cmocka_unit_test(broken_statements),
      cmocka_unit_test(damaged_statements)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
