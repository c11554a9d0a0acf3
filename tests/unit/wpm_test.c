/* wpm_test.c - WordPiece: each rule on a small vocabulary, much text, damaged vocabularies. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tok_run.h"
#include "text/tok.h"

/* Pieces that begin a word carry U+2581. */
static const struct tok wpm_vocab[] = {
  {"[PAD]", 0, 3}, {"[UNK]", 0, 3}, {"[CLS]", 0, 3}, {"[SEP]", 0, 3},
  {SP "un", 0, 1}, {"aff", 0, 1}, {"able", 0, 1}, {SP "a", 0, 1}, {"b", 0, 1}, {SP ".", 0, 1},
  {SP "$", 0, 1}, {SP "\xE4\xB8\x80", 0, 1}, {SP "ca", 0, 1}, {"fe", 0, 1}, {"\xCC\x81", 0, 1},
  {"a", 0, 1}, {SP "\xE2\x82\xAC", 0, 1}, {"##b", 0, 1}, {"ab", 0, 1}, {SP "[", 0, 1},
  {SP "]", 0, 1}, {SP "cls", 0, 1},
};
enum { N_WPM = sizeof wpm_vocab / sizeof *wpm_vocab };
enum { UNK = 1, CLS, SEP, UN, AFF, ABLE, A, B, DOT, DOLLAR, ONE, CA, FE, ACUTE, MORE_A, EURO };

static void wpm_start(struct file *f) {
  file_new(f);
  put_string(f, "model", "bert");
  put_vocab(f, wpm_vocab, N_WPM, false);
  put_id(f, "unknown_token_id", UNK);
  put_id(f, "cls_token_id", CLS);
  put_id(f, "seperator_token_id", SEP);
}

static struct nm__tok *wpm_tok(void) {
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  wpm_start(&f);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  return t;
}

static void test_words(void **state) {
  (void)state;
  struct nm__tok *t = wpm_tok();
  assert_string_equal(nm__tok_family(t), "bert");
  expect(t, "unaffable", PLAIN, "4 5 6");
  expect(t, "  unaffable\t\n a ", PLAIN, "4 5 6 7");
  expect(t, "aab", PLAIN, "7 18");                 /* the longest piece, not the shortest */
  expect(t, "unx unaff", PLAIN, "1 4 5");          /* nothing of a word that is not covered */
  expect(t, "x y", PLAIN, "1 1");                  /* each for itself */
  expect(t, "able", PLAIN, "1");                   /* a continuation does not begin a word */
  expect(t, "a.a", PLAIN, "7 9 7");
  expect(t, "$a$$", PLAIN, "10 7 10 10");          /* ASCII symbols are punctuation, */
  expect(t, "a\xE2\x82\xAC \xE2\x82\xAC", PLAIN, "1 16");      /* others are not */
  expect(t, "a\xE4\xB8\x80\xE4\xB8\x80" "a", PLAIN, "7 11 11 7");
  expect(t, "", PLAIN, "");
  expect(t, " \xE3\x80\x80\xC2\xA0\n", PLAIN, "");
  nm__tok_free(t);
}

static void test_normal_form(void **state) {
  (void)state;
  struct nm__tok *t = wpm_tok();
  expect(t, "UNaffABLE", PLAIN, "4 5 6");
  expect(t, "caf\xC3\xA9", PLAIN, "12 13");        /* the accent goes with the letter, */
  expect(t, "cafe\xCC\x81", PLAIN, "12 13 14");    /* but stays when it stands alone */
  expect(t, "\xC3\x80", PLAIN, "7");
  expect(t, "u\x01n\xE2\x80\x8B\xEF\xBF\xBD\xFF", PLAIN, "4");   /* Cc, Cf, U+FFFD, no UTF-8 */
  nm__tok_free(t);
}

/* 100 characters are a word, 101 are not. */
static void test_long_words(void **state) {
  (void)state;
  struct nm__tok *t = wpm_tok();
  char s[102];
  struct nm__ids v = {0};
  nm_err err = {0};
  memset(s, 'a', 101);
  s[101] = 0;
  expect(t, s, PLAIN, "1");
  assert_int_equal(nm__tok_encode(t, s, 100, PLAIN, &v, &err), NM_OK);
  assert_int_equal(v.n, 100);
  assert_int_equal(v.id[0], A);
  assert_int_equal(v.id[99], MORE_A);
  nm__ids_done(&v);
  nm__tok_free(t);
}

static void test_frame(void **state) {
  (void)state;
  struct nm__tok *t = wpm_tok();
  assert_int_equal(nm__tok_bos(t), CLS);
  assert_int_equal(nm__tok_eos(t), SEP);
  assert_true(nm__tok_adds_bos(t));
  expect(t, "a", (struct nm__tok_opts){0}, "2 7 3");
  expect(t, "", (struct nm__tok_opts){0}, "2 3");
  expect(t, "[CLS]", PLAIN, "19 21 20");
  expect(t, "a[SEP]a", SPECIAL, "7 3 7");
  expect_text(t, (int32_t[]){CLS, UN, AFF, DOT, A, SEP}, 6, false, "unaff . a");
  expect_text(t, (int32_t[]){CLS, UN, AFF, SEP}, 4, true, "[CLS]unaff[SEP]");
  expect_text(t, (int32_t[]){AFF, A}, 2, false, "aff a");
  nm__tok_free(t);
  /* By their looks, where the file leaves the ids out; and flags that say no. */
  struct file f;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "bert");
  put_vocab(&f, wpm_vocab, N_WPM, false);
  put_flag(&f, "add_bos_token", false);
  put_flag(&f, "add_sep_token", false);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  assert_int_equal(nm__tok_bos(t), CLS);
  assert_int_equal(nm__tok_eos(t), SEP);
  expect(t, "a x", (struct nm__tok_opts){0}, "7 1");
  nm__tok_free(t);
}

/* The form of the original: bare at the beginning, marked after it. */
static void test_other_form(void **state) {
  (void)state;
  struct nm__tok *t = wpm_tok();
  struct nm__ids v = {0};
  struct nm__work w = {.out = &v};
  nm_err err = {0};
  nm__buf_init(&w.key, 1 << 20);
  assert_int_equal(nm__wordpiece(t, &w, "", "##", "abb", 3, 100, &err), NM_OK);
  assert_int_equal(nm__wordpiece(t, &w, "", "##", "abc", 3, 100, &err), NM_OK);
  assert_int_equal(nm__wordpiece(t, &w, "", "##", "abb", 3, 2, &err), NM_OK);
  assert_int_equal(nm__wordpiece(t, &w, SP, "", "ab", 2, 100, &err), NM_OK);
  static const int32_t want[] = {18, 17, UNK, UNK, A, B};
  assert_int_equal(v.n, 6);
  assert_memory_equal(v.id, want, sizeof want);
  nm__buf_done(&w.key);
  nm__ids_done(&v);
  nm__tok_free(t);
}

static void test_much(void **state) {
  (void)state;
  static const char *const unit[] = {"a", " ", "unaffable ", ".", "\xCC\x81", "\xFF",
                                     "\xE4\xB8\x80", "[CLS]", "\xC3\xA9"};
  enum { SIZE = 1000000 };
  struct nm__tok *t = wpm_tok();
  char *s = nm__alloc(SIZE + 16, 1);
  double start = nm__now();
  for (size_t k = 0; k < sizeof unit / sizeof *unit; k++) {
    size_t len = strlen(unit[k]), n = 0;
    for (; n + len < SIZE; n += len) memcpy(s + n, unit[k], len);
    assert_true(same_ids_again(t, s, n, PLAIN));
    assert_true(same_ids_again(t, s, n, SPECIAL));
  }
  for (size_t i = 0; i < SIZE; i++) s[i] = i % 101 ? 'a' : ' ';  /* the longest words there are */
  assert_true(same_ids_again(t, s, SIZE, PLAIN));
  assert_true(nm__now() - start < 60);             /* quadratic work would take hours */
  free(s);
  nm__tok_free(t);
}

static void test_random(void **state) {
  (void)state;
  static const char palette[] = "unaffablecde. $[]CLSEP\xC3\xA9\xE4\xB8\x80\xCC\x81\x01\n\xFF\0A";
  struct nm__rng r = {.seed = 3};
  struct nm__tok *t = wpm_tok();
  char s[80];
  for (int round = 0; round < 5000; round++) {
    size_t n = (size_t)nm__rng_below(&r, sizeof s);
    for (size_t i = 0; i < n; i++) s[i] = palette[nm__rng_below(&r, sizeof palette - 1)];
    assert_true(same_ids_again(t, s, n, PLAIN));
    assert_true(same_ids_again(t, s, n, SPECIAL));
  }
  nm__tok_free(t);
}

static void test_mutations(void **state) {
  (void)state;
  struct file f;
  wpm_start(&f);
  mutate_vocabulary(&f, "Unaffable caf\xC3\xA9 a.b [CLS] \xE4\xB8\x80 \xFF");
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_words), cmocka_unit_test(test_normal_form),
    cmocka_unit_test(test_long_words), cmocka_unit_test(test_frame),
    cmocka_unit_test(test_other_form), cmocka_unit_test(test_much), cmocka_unit_test(test_random),
    cmocka_unit_test(test_mutations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
