/* ugm_test.c - unigram: the character map, spaces, the best path against all paths, unknown
 * characters, bytes, much text, damaged vocabularies. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tok_run.h"
#include "charsmap_made.h"
#include "text/charsmap.h"
#include "text/unicode.h"

static const struct mapping maps[] = {
  {"\xEF\xBC\xA1", "A"}, {"A", "a"}, {"\t", " "}, {"\xE2\x80\x8B", ""}, {"e\xCC\x81", "\xC3\xA9"},
  {"e\xCC\x81\xCC\x82", "E"}, {"\xC2\xA0", " "}, {"\xEF\xAC\x81", "f i"},
};
enum { N_MAPS = sizeof maps / sizeof *maps };

static const struct tok ugm_vocab[] = {
  {"<pad>", 0, 3}, {"</s>", 0, 3}, {"<unk>", 0, 2}, {SP, -2, 1}, {"a", -3, 1}, {"b", -3.5f, 1},
  {SP "a", -4, 1}, {"ab", -6, 1}, {"aba", -7, 1}, {"\xC3\xA9", -5, 1}, {"<u>", 0, 4}, {"bb", 5, 5},
  {"f", -3, 1}, {"i", -3, 1}, {"abab", -9.25f, 1}, {"\xEF\xBF\xBD", -8, 1},
};
enum { N_UGM = sizeof ugm_vocab / sizeof *ugm_vocab };
enum { EOS = 1, UNK, SPACE, A, B, SPACE_A, AB, ABA, E_ACUTE, USER, UNUSED, F, I, ABAB, REPLACED };

static void put_map(struct file *f) {
  struct nm__buf b;
  nm__buf_init(&b, 1 << 20);
  made_map(maps, N_MAPS, &b);
  put_array(f, "precompiled_charsmap", NM__GGUF_U8, b.len);
  put(f, b.s, b.len);
  nm__buf_done(&b);
}

static void ugm_start(struct file *f, bool bytes) {
  file_new(f);
  put_string(f, "model", "t5");
  put_vocab(f, ugm_vocab, N_UGM, bytes);
  put_id(f, "eos_token_id", EOS);
}

static struct nm__tok *ugm_tok(bool bytes, bool map, bool squeeze) {
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  ugm_start(&f, bytes);
  if (map) put_map(&f);
  put_flag(&f, "remove_extra_whitespaces", squeeze);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  return t;
}

/* ---- the character map --------------------------------------------------- */

static void test_charsmap(void **state) {
  (void)state;
  struct nm__buf b;
  struct nm__charsmap *m;
  struct nm__str to;
  nm_err err = {0};
  nm__buf_init(&b, 1 << 20);
  made_map(maps, N_MAPS, &b);
  assert_int_equal(nm__charsmap_new("map", (const uint8_t *)b.s, b.len, &m, &err), NM_OK);
  assert_int_equal(nm__charsmap_next(m, "Ab", 2, &to), 1);
  assert_true(to.n == 1 && *to.s == 'a');
  assert_int_equal(nm__charsmap_next(m, "e\xCC\x81\xCC\x82", 5, &to), 5);      /* the longest */
  assert_true(to.n == 1 && *to.s == 'E');
  assert_int_equal(nm__charsmap_next(m, "e\xCC\x81\xCC", 4, &to), 3);
  assert_true(to.n == 2 && memcmp(to.s, "\xC3\xA9", 2) == 0);
  assert_int_equal(nm__charsmap_next(m, "e\xCC", 2, &to), 1);
  assert_true(to.n == 1 && *to.s == 'e');
  assert_int_equal(nm__charsmap_next(m, "\xE2\x80\x8B", 3, &to), 3);
  assert_true(to.n == 0 && to.s);
  assert_int_equal(nm__charsmap_next(m, "\xE2\x80", 2, &to), 1);
  assert_null(to.s);
  nm__charsmap_free(m);
  /* Sizes that do not fit, and none at all. */
  for (size_t n = 1; n < 4; n++)
    assert_int_equal(nm__charsmap_new("map", (const uint8_t *)b.s, n, &m, &err), NM_EFORMAT);
  assert_int_equal(nm__charsmap_new("map", (const uint8_t *)b.s, 300, &m, &err), NM_EFORMAT);
  assert_int_equal(nm__charsmap_new("map", NULL, 0, &m, &err), NM_OK);
  assert_int_equal(nm__charsmap_next(m, "\xC3\xA9", 2, &to), 2);
  assert_int_equal(to.n, 2);
  nm__charsmap_free(m);
  nm__buf_done(&b);
}

/* Maps of random words, which lead anywhere. */
static void test_charsmap_hostile(void **state) {
  (void)state;
  struct nm__rng r = {.seed = 11};
  for (int round = 0; round < 3000; round++) {
    uint32_t v[65];
    uint64_t units = nm__rng_below(&r, 64);
    v[0] = (uint32_t)units * 4;
    for (int i = 1; i < 65; i++) {
      v[i] = (uint32_t)nm__rng_u64(&r);
      if (nm__rng_below(&r, 2)) v[i] = (v[i] & 63) << 10 | (v[i] >> 20 & 0x1FF);
    }
    struct nm__charsmap *m;
    nm_err err = {0};
    assert_int_equal(nm__charsmap_new("map", (const uint8_t *)v, sizeof v, &m, &err), NM_OK);
    char s[16];
    for (int i = 0; i < 16; i++) s[i] = (char)nm__rng_below(&r, round & 1 ? 4 : 256);
    for (size_t at = 0, step; at < sizeof s; at += step) {
      struct nm__str to;
      unsigned sum = 0;
      step = nm__charsmap_next(m, s + at, sizeof s - at, &to);
      assert_in_range(step, 1, sizeof s - at);
      assert_true(to.n <= 256);
      for (size_t i = 0; i < to.n; i++) sum += (uint8_t)to.s[i];  /* all can be read */
      assert_true(sum <= 256 * 255);
    }
    nm__charsmap_free(m);
  }
}

/* ---- rules ------------------------------------------------------------- */

static void test_paths(void **state) {
  (void)state;
  struct nm__tok *t = ugm_tok(false, false, false);
  assert_string_equal(nm__tok_family(t), "t5");
  expect(t, "a", (struct nm__tok_opts){0}, "6 1"); /* -4 against -2 -3; EOS behind it */
  expect(t, "ab", PLAIN, "6 5");                   /* -4 -3.5 against -2 -6 */
  expect(t, "baba", PLAIN, "3 5 8");
  expect(t, "babab", PLAIN, "3 5 14");             /* -9.25 against -7 -3.5 */
  expect(t, "bb", PLAIN, "3 5 5");                 /* unused pieces stay so, whatever they score */
  expect(t, "a<u>a", PLAIN, "6 10 6");
  expect(t, "</s>", PLAIN, "3 2");                 /* a run of unknown characters is one */
  expect(t, "</s>a</s>", SPECIAL, "1 6 1");
  expect(t, "x\xE4\xB8\x80y a xx", PLAIN, "3 2 6 3 2");
  expect_text(t, (int32_t[]){SPACE_A, B, SPACE, B, EOS}, 5, false, "ab b");
  assert_true(round_trip(t, "a  b ab", 7, PLAIN));
  nm__tok_free(t);
  t = ugm_tok(true, false, false);
  expect(t, "x<y", PLAIN, "3 136 76 137");         /* byte tokens come after the 16 pieces */
  expect(t, "\xFF", PLAIN, "3 271");
  assert_true(round_trip(t, "x\xFF<0x41> a\n", 11, PLAIN));
  nm__tok_free(t);
}

static void test_normal_form(void **state) {
  (void)state;
  struct nm__tok *t = ugm_tok(false, true, false);
  expect(t, "A", PLAIN, "6");
  expect(t, "\xEF\xBC\xA1", PLAIN, "3 2");         /* mapped once: "A" is no piece */
  expect(t, "e\xCC\x81", PLAIN, "3 9");
  expect(t, "\t\xC2\xA0" "a\xE2\x80\x8B", PLAIN, "3 3 6");
  expect(t, "\xEF\xAC\x81", PLAIN, "3 12 3 13");
  expect(t, "\xFF", PLAIN, "3 15");                /* no UTF-8: U+FFFD, which is a piece here */
  nm__tok_free(t);
  t = ugm_tok(false, true, true);
  expect(t, "  a \t\xC2\xA0 b  ", PLAIN, "6 3 5");
  expect(t, " \t\xC2\xA0 ", PLAIN, "");
  expect(t, "\xE2\x80\x8B \xE2\x80\x8B", PLAIN, "");
  expect(t, "\xE2\x80\x8B a", PLAIN, "6");
  expect(t, "a <u> b", PLAIN, "6 10 3 5");
  nm__tok_free(t);
}

/* ---- all paths ----------------------------------------------------------- */

/* The greatest sum over all ways to cut s, which has no unknown characters. */
static double best_of_all(const char *s, size_t n) {
  double best = n ? -1e9 : 0;
  for (int i = SPACE; i < N_UGM; i++) {
    size_t k = strlen(ugm_vocab[i].s);
    if (i == USER || i == UNUSED || k > n || memcmp(s, ugm_vocab[i].s, k)) continue;
    double sum = (double)ugm_vocab[i].score + best_of_all(s + k, n - k);
    if (sum > best) best = sum;
  }
  return best;
}

static void test_all_paths(void **state) {
  (void)state;
  static const char *const part[] = {"a", "b", "a", "b", " ", "\xC3\xA9"};
  struct nm__rng r = {.seed = 21};
  struct nm__tok *t = ugm_tok(false, false, false);
  for (int round = 0; round < 2000; round++) {
    char s[64] = "", escaped[128] = SP;
    for (uint64_t k = 1 + nm__rng_below(&r, 12); k > 0; k--) {
      const char *p = part[nm__rng_below(&r, 6)];
      memcpy(s + strlen(s), p, strlen(p) + 1);
      p = *p == ' ' ? SP : p;
      memcpy(escaped + strlen(escaped), p, strlen(p) + 1);
    }
    struct nm__ids v = {0};
    nm_err err = {0};
    double sum = 0;
    assert_int_equal(nm__tok_encode(t, s, strlen(s), PLAIN, &v, &err), NM_OK);
    for (size_t i = 0; i < v.n; i++) sum += (double)ugm_vocab[v.id[i]].score;
    assert_true(sum == best_of_all(escaped, strlen(escaped)));     /* exact: quarters */
    assert_true(round_trip(t, s, strlen(s), PLAIN));
    nm__ids_done(&v);
  }
  nm__tok_free(t);
}

/* ---- much and damaged ---------------------------------------------------- */

static void test_much(void **state) {
  (void)state;
  struct nm__tok *t = ugm_tok(true, false, false);
  long_texts(t, 1000000);
  random_bytes(t, 31);
  nm__tok_free(t);
  t = ugm_tok(false, true, true);                  /* lossy, but still in linear time */
  enum { SIZE = 1000000 };
  char *s = nm__alloc(SIZE, 1);
  double start = nm__now();
  static const char unit[] = {'a', ' ', 'x', '\t', (char)0xE2, 'A'};
  for (size_t k = 0; k < sizeof unit; k++) {
    struct nm__ids v = {0};
    nm_err err = {0};
    memset(s, unit[k], SIZE);
    assert_int_equal(nm__tok_encode(t, s, SIZE, PLAIN, &v, &err), NM_OK);
    nm__ids_done(&v);
  }
  assert_true(nm__now() - start < 60);
  free(s);
  nm__tok_free(t);
}

/* The longest piece there may be, which nearly fits at every place of a long text. */
static void test_long_piece(void **state) {
  (void)state;
  enum { SIZE = 1000000, PIECE = 65535 };
  char *s = nm__alloc(SIZE, 1), *piece = nm__alloc(PIECE + 1, 1);
  assert_true(s && piece);
  memset(s, 'a', SIZE);
  memset(piece, 'a', PIECE - 1);
  piece[PIECE - 1] = 'b';
  struct tok v[] = {{"<unk>", 0, 2}, {"a", -1, 1}, {piece, -2, 1}, {SP, -1, 1}};
  struct file f;
  struct nm__tok *t;
  struct nm__ids ids = {0};
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "t5");
  put_vocab(&f, v, 4, false);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  double start = nm__now();
  assert_int_equal(nm__tok_encode(t, s, SIZE, PLAIN, &ids, &err), NM_OK);
  assert_int_equal(ids.n, SIZE + 1);
  assert_true(nm__now() - start < 60);             /* byte by byte it would take half an hour */
  nm__ids_done(&ids);
  nm__tok_free(t);
  free(s);
  free(piece);
}

static void test_hostile(void **state) {
  (void)state;
  struct file f;
  file_new(&f);
  put_string(&f, "model", "t5");
  put_array(&f, "tokens", NM__GGUF_STRING, 1);
  put_text(&f, "a", 1);
  refuse(&f, "scores is missing");
  ugm_start(&f, false);
  put_string(&f, "precompiled_charsmap", "abc");
  refuse(&f, "array of bytes");
  ugm_start(&f, false);
  put_array(&f, "precompiled_charsmap", NM__GGUF_U8, 4);
  put(&f, "\x08\0\0\0", 4);
  refuse(&f, "character map");
}

static void test_mutations(void **state) {
  (void)state;
  struct file f;
  ugm_start(&f, false);
  put_map(&f);
  mutate_vocabulary(&f, "A e\xCC\x81 \xEF\xBC\xA1" "abab\t<u> \xEF\xAC\x81\xFF <unk></s>");
  /* A vocabulary alone, where each byte counts. */
  ugm_start(&f, false);
  put_flag(&f, "remove_extra_whitespaces", true);
  mutate_vocabulary(&f, "aab abab<u> x\xFF <unk></s>");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_charsmap), cmocka_unit_test(test_charsmap_hostile),
    cmocka_unit_test(test_paths), cmocka_unit_test(test_normal_form),
    cmocka_unit_test(test_all_paths), cmocka_unit_test(test_much),
    cmocka_unit_test(test_long_piece), cmocka_unit_test(test_hostile),
    cmocka_unit_test(test_mutations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
