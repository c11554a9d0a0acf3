/* world_test.c - worlds: every answer is what the checker finds from the text alone and no other
 * is; what must not tell the label does not; twins, splits, prefixes, bytes; hostile lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "world/world.h"

enum { N = 4000 };

/* Worlds with parameters at their ends and in the middle. */
static const struct config { const char *name, *set[4]; int n_set; } configs[] = {
    {"lexical", {0}, 0},
    {"lexical", {"length=1"}, 1},
    {"facts", {0}, 0},
    {"chase", {0}, 0},
    {"chase", {"k_max=3"}, 1},
    {"chase", {"hops=2", "k_min=8"}, 2},
    {"chase", {"hops=3", "k_min=4", "k_max=5"}, 3},
    {"chase", {"hops=4", "k_min=5", "k_max=16"}, 3},
    {"chase", {"fixed=1", "hops=2"}, 2},
    {"chase", {"fixed=1", "hops=3", "k_max=16"}, 3},
    {"chase", {"fixed=1", "k_max=4"}, 2},
    {"parity", {0}, 0},
    {"parity", {"n_min=2", "n_max=12"}, 2},
    {"parity", {"n_min=48", "n_max=48"}, 2},
    {"parity", {"n_min=3", "n_max=9", "steps=1"}, 3},
    {"relation", {0}, 0},
    {"relation", {"kind=1"}, 1},
    {"relation", {"kind=2"}, 1},
    {"taxonomy", {0}, 0},
    {"taxonomy", {"ask=1"}, 1},
    {"taxonomy", {"ask=2", "level=1"}, 2},
    {"taxonomy", {"level=3"}, 1},
    {"sentiment", {0}, 0},
    {"sentiment", {"negation=0"}, 1},
    {"count", {0}, 0},
    {"count", {"n_min=2", "n_max=16"}, 2},
    {"order", {0}, 0},
    {"order", {"n_min=2", "n_max=2"}, 2},
    {"order", {"n_min=8", "n_max=16", "gap=5"}, 3},
    {"walk", {0}, 0},
    {"walk", {"graph=0", "length=90", "trace=1"}, 3},
    {"walk", {"graph=1"}, 1},
    {"walk", {"graph=3"}, 1},
    {"walk", {"graph=4", "length=8"}, 2},
    {"walk", {"graph=5", "length=60"}, 2},
    {"needle", {0}, 0},
    {"needle", {"context=60", "needles=6", "values=200"}, 3},
    {"needle", {"context=24", "needles=1", "span=1"}, 3},
    {"knights", {0}, 0},
    {"knights", {"people=2"}, 1},
    {"knights", {"people=8"}, 1}};
enum { N_CONFIGS = sizeof configs / sizeof *configs };

static nm_world *open_world(const struct config *c, uint64_t W, uint64_t seed) {
  nm_world *w;
  nm_err err = {0};
  if (nm_world_open(c->name, c->set, c->n_set, W, seed, &w, &err)) fail_msg("%s", err.text);
  return w;
}

static bool is_chase(const struct config *c) { return !strcmp(c->name, "chase"); }
static bool is(const struct config *c, const char *name) { return !strcmp(c->name, name); }
static bool answer_is_label(const struct config *c) {
  return !is_chase(c) && !is(c, "relation") && !is(c, "count") && !is(c, "needle") &&
         !(c->n_set == 3 && !strcmp(c->set[2], "steps=1"));
}
static bool is_fixed(const struct config *c) { return c->n_set && !strcmp(c->set[0], "fixed=1"); }

static char scratch[64];

static char *file_of(const struct config *c, uint64_t W, uint64_t seed, uint64_t n,
                     const char *split, enum nm_world_form form, size_t *size) {
  nm_world *w = open_world(c, W, seed);
  nm_err err = {0};
  struct nm__map m;
  if (nm_world_write(w, n, split, form, scratch, NULL, &err)) fail_msg("%s", err.text);
  nm_world_close(w);
  assert_int_equal(nm__map_open(scratch, &m, &err), 0);
  char *s = nm__strndup((const char *)m.data, m.size);
  *size = m.size;
  nm__map_close(&m);
  return s;
}

/* ---- answers -------------------------------------------------------------- */

static bool right(const char *line, size_t n, const char *answer) {
  bool yes;
  nm_err err = {0};
  if (nm_world_check(line, n, answer, &yes, &err)) fail_msg("%s: %.*s", err.text, (int)n, line);
  return yes;
}

static const char *const answers[] = {
    "north", "south", "no",   "yes", "even",   "odd",   "",  "zebra", "a",      "b",       "c",
    "d",     "e",     "f",    "g",   "h",      "i",     "j", "k",     "l",      "m",       "n",
    "o",     "p",     "good", "bad", "knight", "knave", "1", "2",     "kirkby", "even odd"};

static const char *text_of(const json_t *o, const char *key) {
  const char *s = json_string_value(json_object_get(o, key));
  assert_non_null(s);
  return s;
}

/* Every question among the parts of a line has the answer that follows it. */
static void check_parts(const json_t *o) {
  json_t *parts = json_object_get(o, "parts");
  size_t n = json_array_size(parts);
  const char *first = json_string_value(json_array_get(json_array_get(parts, 0), 0));
  const char *end = strrchr(first, ';');
  assert_true(n >= 2 && n % 2 == 0);
  assert_string_equal(first, text_of(o, "text"));
  if (!end) n = 2;                   /* what follows a sentiment is no question */
  for (size_t k = 0; k < n; k += 2) {
    json_t *q = json_array_get(parts, k), *a = json_array_get(parts, k + 1);
    const char *ask = json_string_value(json_array_get(q, 0));
    char text[1024], line[1152];
    if (strcmp(text_of(o, "world"), "walk"))
      assert_int_equal(json_integer_value(json_array_get(q, 1)), 0);
    assert_int_equal(json_integer_value(json_array_get(a, 1)), 1);
    if (k) snprintf(text, sizeof text, "%.*s %s", (int)(end + 1 - first), first, ask);
    else snprintf(text, sizeof text, "%s", ask);
    int len = snprintf(line, sizeof line, "{\"world\":\"%s\",\"W\":%lld,\"text\":\"%s\"}",
                       text_of(o, "world"), (long long)json_integer_value(json_object_get(o, "W")),
                       text);
    assert_true(right(line, (size_t)len, json_string_value(json_array_get(a, 0))));
  }
}

static void answers_are_what_the_checker_finds(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    size_t size, n = 0;
    char *s = file_of(&configs[k], 5 + (uint64_t)k, 9, N, NULL, NM_WORLD_BOTH, &size);
    for (char *line = s; *line; n++) {
      size_t len = strcspn(line, "\n");
      json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
      assert_non_null(o);
      const char *answer = text_of(o, "answer");
      char spaced[640];
      snprintf(spaced, sizeof spaced, " %s\n", answer);
      assert_true(right(line, len, answer));
      assert_true(right(line, len, spaced));
      for (size_t i = 0; n < 200 && i < sizeof answers / sizeof *answers; i++)
        assert_int_equal(right(line, len, answers[i]), !strcmp(answers[i], answer));
      assert_int_equal(json_integer_value(json_object_get(o, "id")), n);
      if (answer_is_label(&configs[k])) assert_string_equal(answer, text_of(o, "label_name"));
      if (n < 500) check_parts(o);
      json_decref(o);
      line += len + 1;
    }
    assert_int_equal(n, N);
    free(s);
  }
}

/* The label of a chase is a class of eight letters, the same in all items of W. */
static void chase_classes(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    if (!is_chase(&configs[k])) continue;
    nm_world *w = open_world(&configs[k], 3, 4);
    nm_world_item it = {0};
    int class[16], size[2] = {0, 0};
    memset(class, -1, sizeof class);
    for (uint64_t i = 0; i < N; i++) {
      assert_int_equal(nm_world_make(w, i, &it, NULL), 0);
      int *c = &class[it.answer[0] - 'a'], pairs = 0;
      if (*c < 0) *c = it.label, size[it.label]++;
      assert_int_equal(*c, it.label);
      for (const char *p = it.text; (p = strchr(p, ';')); p++) pairs++;
      int hops = strrchr(it.text, ' ')[-1] - '0', back = pairs - hops;
      assert_int_equal(it.depth, is_fixed(&configs[k]) ? 0 : hops < back ? hops : back);
      assert_int_equal(it.n_parts, 2 * pairs);
    }
    if (!is_fixed(&configs[k])) assert_true(size[0] == 8 && size[1] == 8);
    nm_world_item_done(&it);
    nm_world_close(w);
  }
}

/* ---- what tells the label and what does not ---------------------------------- */

/* Words of a text, each once, sorted: a bag. */
static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}
static int words_of(char *text, char *v[128]) {
  int n = 0;
  for (char *s = text; *s && n < 128;) {
    v[n++] = s;
    s += strcspn(s, " ");
    if (*s) *s++ = 0;
  }
  return n;
}

static void twins_differ_in_what_decides(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    nm_world *w = open_world(&configs[k], 2, 8);
    nm_world_item a = {0}, b = {0};
    int first = 0;
    for (uint64_t j = 0; j < N / 2; j++) {
      char x[1024], y[1024], *u[128], *v[128];
      assert_int_equal(nm_world_make(w, 2 * j, &a, NULL) | nm_world_make(w, 2 * j + 1, &b, NULL),
                       0);
      assert_int_equal(a.label + b.label, 1);
      assert_true(a.twin == b.twin && a.test == b.test && a.depth == b.depth);
      first += a.label;
      snprintf(x, sizeof x, "%s", a.text);
      snprintf(y, sizeof y, "%s", b.text);
      int n = words_of(x, u), differ = 0;
      assert_int_equal(n, words_of(y, v));
      if (is_chase(&configs[k]) && !is_fixed(&configs[k])) {
        assert_string_equal(u[n - 1], v[n - 1]);
        qsort(u, (size_t)n, sizeof *u, by_text);
        qsort(v, (size_t)n, sizeof *v, by_text);
        for (int i = 0; i < n; i++) assert_string_equal(u[i], v[i]);
        continue;
      }
      for (int i = 0; i < n; i++) differ += strcmp(u[i], v[i]) != 0;
      if (!is_chase(&configs[k])) assert_int_equal(differ, is(&configs[k], "order") ? 2 : 1);
    }
    /* Which twin comes first is a coin: 5 standard deviations. */
    assert_in_range(first, N / 4 - 112, N / 4 + 112);
    nm_world_item_done(&a);
    nm_world_item_done(&b);
    nm_world_close(w);
  }
}

/* Counts of labels for each value of what the text shows at one place. */
static void assert_even(const char *what, const int count[2]) {
  int n = count[0] + count[1], d = count[0] - count[1];
  if (d * d > 25 * n) fail_msg("%s: %d of label 0, %d of label 1", what, count[0], count[1]);
}

/* The place that must not tell: a chase's start, a fact's country, a parity's last bit. */
static void surface_does_not_tell(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    if (is(&configs[k], "lexical") || is(&configs[k], "relation") || is_fixed(&configs[k]))
      continue;
    if (is(&configs[k], "sentiment") && configs[k].n_set) continue;  /* the adjective tells */
    nm_world *w = open_world(&configs[k], 6, 1);
    nm_world_item it = {0};
    static int count[26 * 128][2];
    memset(count, 0, sizeof count);
    for (uint64_t i = 0; i < 10 * N; i++) {
      char text[1024], *v[128];
      assert_int_equal(nm_world_make(w, i, &it, NULL), 0);
      snprintf(text, sizeof text, "%s", it.text);
      int n = words_of(text, v);
      const char *place = is_chase(&configs[k]) ? v[n - 1] : v[n - 2];
      count[place[0] & 127][it.label]++;
      /* With the number of pairs: no length of the context opens a way. */
      count[128 + (place[0] & 31) * 64 + (n & 63)][it.label]++;
    }
    for (int i = 0; i < 26 * 128; i++) assert_even(configs[k].name, count[i]);
    nm_world_item_done(&it);
    nm_world_close(w);
  }
}

/* The trap: in a fixed chase the start alone gives the answer, as a map learned by heart. */
static void fixed_chase_is_a_map(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    if (!is_fixed(&configs[k])) continue;
    char map[26] = {0};
    for (uint64_t seed = 0; seed < 3; seed++) {
      nm_world *w = open_world(&configs[k], 6, seed);
      nm_world_item it = {0};
      for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(nm_world_make(w, i, &it, NULL), 0);
        char *to = &map[strrchr(it.text, ' ')[1] - 'a'];
        if (!*to) *to = it.answer[0];
        assert_int_equal(*to, it.answer[0]);
      }
      nm_world_item_done(&it);
      nm_world_close(w);
    }
  }
}

/* ---- splits, bytes, seeds ------------------------------------------------------ */

static void twins_stay_on_one_side(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    signed char side[1 << 13];
    memset(side, -1, sizeof side);
    int held = 0, seen = 0;
    for (uint64_t seed = 1; seed < 4; seed++) {
      nm_world *w = open_world(&configs[k], 11, seed);
      nm_world_item it = {0};
      for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(nm_world_make(w, i, &it, NULL), 0);
        if (it.twin >= sizeof side) continue;
        signed char *s = &side[it.twin];
        if (*s < 0) *s = it.test, seen++, held += it.test;
        assert_int_equal(*s, it.test);
      }
      if (w->n_twins) assert_true(held * 10 >= seen * (w->split ? 2 : 3) && held * 10 <= seen * 5);
      nm_world_item_done(&it);
      nm_world_close(w);
    }
    if (seen > 1000) assert_in_range(held * 100 / seen, 34, 46);
  }
}

static void bytes_and_prefixes(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    size_t n1, n2, n3, n4, n5;
    char *one = file_of(&configs[k], 1, 1, 300, NULL, NM_WORLD_BOTH, &n1),
         *two = file_of(&configs[k], 1, 1, 600, NULL, NM_WORLD_BOTH, &n2),
         *again = file_of(&configs[k], 1, 1, 300, NULL, NM_WORLD_BOTH, &n3),
         *seed = file_of(&configs[k], 1, 2, 300, NULL, NM_WORLD_BOTH, &n4),
         *truth = file_of(&configs[k], 2, 1, 300, NULL, NM_WORLD_BOTH, &n5);
    assert_true(n1 < n2 && !memcmp(one, two, n1));
    assert_true(n1 == n3 && !memcmp(one, again, n1));
    assert_true(n1 != n4 || memcmp(one, seed, n1));
    assert_true(n1 != n5 || memcmp(one, truth, n1));
    free(one);
    free(two);
    free(again);
    free(seed);
    free(truth);
  }
}

/* Any order, fresh or used memory: item i is item i. */
static void items_in_any_order(void **state) {
  (void)state;
  nm_world *w = open_world(&configs[3], 1, 1);
  nm_world_item used = {0};
  for (uint64_t i = 0; i < 500; i++) {
    nm_world_item fresh = {0};
    uint64_t id = i * 7919 % 500;
    assert_int_equal(nm_world_make(w, id, &used, NULL) | nm_world_make(w, id, &fresh, NULL), 0);
    assert_string_equal(used.text, fresh.text);
    assert_int_equal(used.n_parts, fresh.n_parts);
    nm_world_item_done(&fresh);
  }
  nm_world_item_done(&used);
  nm_world_close(w);
}

static void lines_of_one_side(void **state) {
  (void)state;
  size_t size, n = 0;
  char *s = file_of(&configs[2], 1, 1, 200, "test", NM_WORLD_PROBE, &size);
  for (char *p = s; (p = strstr(p, "\"split\":\"test\"")); p++) n++;
  assert_int_equal(n, 200);
  assert_null(strstr(s, "parts"));
  assert_null(strstr(s, "train"));
  free(s);
  s = file_of(&configs[2], 1, 1, 200, "train", NM_WORLD_TRAIN, &size);
  assert_null(strstr(s, "\"text\""));
  assert_null(strstr(s, "\"test\""));
  free(s);
}

/* Items of one W checked as items of another: the truth is of W, not of the seed. */
static int right_in(const struct config *c, uint64_t W, uint64_t seed, uint64_t other) {
  nm_world *w = open_world(c, W, seed);
  nm_world_item it = {0};
  int n = 0;
  for (uint64_t i = 0; i < 1000; i++) {
    char line[1152];
    assert_int_equal(nm_world_make(w, i, &it, NULL), 0);
    int len = snprintf(line, sizeof line, "{\"world\":\"%s\",\"W\":%d,\"text\":\"%s\"}", c->name,
                       (int)other, it.text);
    n += right(line, (size_t)len, it.answer);
  }
  nm_world_item_done(&it);
  nm_world_close(w);
  return n;
}

static void truth_is_of_W(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    if (is(&configs[k], "relation") && configs[k].n_set && configs[k].set[0][5] == '1')
      assert_in_range(right_in(&configs[k], 1, 1, 2), 0, 150);      /* one of 32 by chance */
    if (is(&configs[k], "taxonomy"))
      assert_in_range(right_in(&configs[k], 1, 1, 2), 200, 800);
  }
  for (int k = 0; k < 3; k += 2)
    for (uint64_t seed = 1; seed < 4; seed++) {
      assert_int_equal(right_in(&configs[k], 1, seed, 1), 1000);
      assert_in_range(right_in(&configs[k], 1, seed, 2), 200, 800);
    }
}

/* ---- refusals ---------------------------------------------------------------------- */

static void refused(const char *name, const char *a, const char *b, const char *says) {
  const char *set[2] = {a, b};
  nm_world *w;
  nm_err err = {0};
  assert_int_equal(nm_world_open(name, set, !!a + !!b, 1, 1, &w, &err), NM_EUSAGE);
  assert_null(w);
  if (!strstr(err.text, says)) fail_msg("'%s' lacks '%s'", err.text, says);
}

static void wrong_parameters(void **state) {
  (void)state;
  refused("moon", NULL, NULL, "lexical, facts, chase, parity");
  refused("chase", "hop=1", NULL, "hops, k_min, k_max, fixed");
  refused("chase", "hops", NULL, "KEY=VALUE");
  refused("chase", "hops=5", NULL, "1 to 4");
  refused("chase", "hops=", NULL, "whole number");
  refused("chase", "hops=2x", NULL, "whole number");
  refused("chase", "k_min=99999999999999999999", NULL, "3 to 16");
  refused("chase", "hops=3", NULL, "k_min=4");
  refused("chase", "k_min=9", NULL, "above k_max");
  refused("chase", "fixed=1", "k_max=7", "even");
  refused("parity", "n_min=9", NULL, "above n_max");
  refused("facts", "n=1", NULL, "none");
  refused("taxonomy", "ask=1", "level=1", "2 or 3");
  refused("order", "n_min=4", "gap=4", "n_min=5");
  refused("order", "n_min=9", "n_max=4", "above n_max");
  refused("count", "n_min=9", NULL, "above n_max");
  refused("needle", "context=24", "needles=6", "take 42");
  nm_world *w;
  assert_int_equal(nm_world_open("facts", NULL, 0, UINT64_MAX, 1, &w, NULL), NM_EUSAGE);
}

static void not_items(void **state) {
  static const char *const bad[] = {
      "",
      "{",
      "[]",
      "{}",
      "{\"world\":\"facts\",\"W\":1}",
      "{\"world\":\"moon\",\"W\":1,\"text\":\"a\"}",
      "{\"world\":\"facts\",\"W\":-1,\"text\":\"arlem tavia ?\"}",
      "{\"world\":\"facts\",\"W\":1,\"text\":\"arlem ?\"}",
      "{\"world\":\"facts\",\"W\":1,\"text\":\"arlem rome ?\"}",
      "{\"world\":\"facts\",\"W\":1,\"text\":\"arlem tavia ? x\"}",
      "{\"world\":\"lexical\",\"W\":1,\"text\":\"?\"}",
      "{\"world\":\"lexical\",\"W\":1,\"text\":\"anvil\"}",
      "{\"world\":\"parity\",\"W\":1,\"text\":\"1 2 ?\"}",
      "{\"world\":\"parity\",\"W\":1,\"text\":\"\"}",
      "{\"world\":\"chase\",\"W\":1,\"text\":\"a b ; a c ; 1 a\"}",
      "{\"world\":\"chase\",\"W\":1,\"text\":\"a b ; 2 a\"}",
      "{\"world\":\"chase\",\"W\":1,\"text\":\"a b ; b a ; 0 a\"}",
      "{\"world\":\"chase\",\"W\":1,\"text\":\"a b ; b a ; 1\"}",
      "{\"world\":\"chase\",\"W\":1,\"text\":\"a b , b a ; 1 a\"}",
      "{\"world\":\"parity\",\"W\":1,\"text\":\"1 0 ; step :\"}",
      "{\"world\":\"relation\",\"W\":1,\"text\":\"where does rome live ?\"}",
      "{\"world\":\"relation\",\"W\":1,\"text\":\"where does arno live\"}",
      "{\"world\":\"taxonomy\",\"W\":1,\"text\":\"is wren galid ?\"}",
      "{\"world\":\"taxonomy\",\"W\":1,\"text\":\"can wren read ?\"}",
      "{\"world\":\"sentiment\",\"W\":1,\"text\":\"the plot was dull ?\"}",
      "{\"world\":\"count\",\"W\":1,\"text\":\"count a : ?\"}",
      "{\"world\":\"count\",\"W\":1,\"text\":\"count z : a ?\"}",
      "{\"world\":\"order\",\"W\":1,\"text\":\"a > b ; is a > c ?\"}",
      "{\"world\":\"order\",\"W\":1,\"text\":\"a > b ; a > c ; is a > c ?\"}",
      "{\"world\":\"walk\",\"W\":1,\"text\":\"fox sun ; fox cat ?\"}",
      "{\"world\":\"needle\",\"W\":1,\"text\":\"hum get babax :\"}",
      "{\"world\":\"needle\",\"W\":1,\"text\":\"babax : ; get babax :\"}",
      "{\"world\":\"knights\",\"W\":1,\"text\":\"ann : ann true ; is ann ?\"}",
      "{\"world\":\"knights\",\"W\":1,\"text\":\"ann : & ann true ; is ann ?\"}",
      "{\"world\":\"knights\",\"W\":1,\"text\":\"ann : bob lies ; is ann ?\"}"};
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    bool yes = true;
    nm_err err = {0};
    if (nm_world_check(bad[i], strlen(bad[i]), "yes", &yes, &err) != NM_EFORMAT || yes)
      fail_msg("taken for an item: %s", bad[i]);
  }
}

/* 10,000 damaged lines of each world, in heap copies of the exact size: no crash. */
static void damaged_lines(void **state) {
  (void)state;
  for (int k = 0; k < N_CONFIGS; k++) {
    size_t size;
    char *s = file_of(&configs[k], 1, 1, 1, NULL, NM_WORLD_PROBE, &size);
    for (uint64_t i = 0; i < 10000; i++) {
      uint64_t r = nm__rand_at(77, (uint64_t)k, i);
      size_t n = r & 1 ? size : (size_t)(r >> 32) % size;
      char *copy = malloc(n + 1);
      bool yes;
      memcpy(copy, s, n);
      if (n) copy[(r >> 8) % n] = (char)(r >> 56);
      char *exact = realloc(copy, n ? n : 1);
      nm_world_check(exact, n, "yes", &yes, NULL);
      free(exact);
    }
    free(s);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(answers_are_what_the_checker_finds),
      cmocka_unit_test(chase_classes),
      cmocka_unit_test(twins_differ_in_what_decides),
      cmocka_unit_test(surface_does_not_tell),
      cmocka_unit_test(fixed_chase_is_a_map),
      cmocka_unit_test(twins_stay_on_one_side),
      cmocka_unit_test(bytes_and_prefixes),
      cmocka_unit_test(items_in_any_order),
      cmocka_unit_test(lines_of_one_side),
      cmocka_unit_test(truth_is_of_W),
      cmocka_unit_test(wrong_parameters),
      cmocka_unit_test(not_items),
      cmocka_unit_test(damaged_lines),
  };
  snprintf(scratch, sizeof scratch, "/tmp/noema-world-%ld.jsonl", (long)getpid());
  int bad = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(scratch);
  return bad;
}
