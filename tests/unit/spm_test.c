/* spm_test.c - SentencePiece by score: each rule on a small vocabulary, much text, a real one. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tok_run.h"

static void test_spm(void **state) {
  (void)state;
  struct nm__tok *t = spm_tok(true);
  assert_string_equal(nm__tok_family(t), "llama");
  assert_int_equal(nm__tok_bos(t), 1);
  assert_true(nm__tok_adds_bos(t));
  expect(t, "", (struct nm__tok_opts){0}, "1");
  expect(t, "a", (struct nm__tok_opts){0}, "1 9");
  expect(t, "abc", PLAIN, "6 10");                 /* ab first, then abc; no piece has SP ab */
  expect(t, "aaa", PLAIN, "9 11");                 /* SP a has the higher score */
  expect(t, "b aab", PLAIN, "6 4 9 7");
  expect(t, "\n\xC3\xA4", PLAIN, "6 26 211 180");
  expect(t, "<s>", PLAIN, "6 76 131 78");          /* control tokens are plain text ... */
  expect(t, "a<s>a", SPECIAL, "9 1 9");            /* ... unless asked for */
  expect(t, "<u>a<u><u><u>", PLAIN, "12 9 13 12"); /* user-defined ones always, longest first */
  expect_text(t, (int32_t[]){1, 9, 2, 9}, 4, false, "a a");
  expect_text(t, (int32_t[]){1, 9, 2, 9}, 4, true, "<s>a</s>a");
  static const char *const texts[] = {"", " ", "  a", "a b  c ", "a<s> b</s>", "<u> a<u>\xFF\n",
                                      "\t"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    assert_true(round_trip(t, texts[i], strlen(texts[i]), PLAIN));
    assert_true(round_trip(t, texts[i], strlen(texts[i]), SPECIAL));
  }
  struct nm__str s = nm__tok_piece(t, 9);
  assert_true(s.n == 4 && memcmp(s.s, SP "a", 4) == 0);
  assert_int_equal(nm__tok_piece(t, 9999).n, 0);
  struct nm__buf b;
  nm_err err;
  nm__buf_init(&b, 100);
  assert_int_equal(nm__tok_decode(t, &(int32_t){9999}, 1, true, &b, &err), NM_EFORMAT);
  assert_int_equal(nm__tok_decode(t, &(int32_t){-1}, 1, true, &b, &err), NM_EFORMAT);
  nm__buf_done(&b);
  nm__tok_free(t);
}

static void test_spm_without_bytes(void **state) {
  (void)state;
  struct nm__tok *t = spm_tok(false);
  expect(t, "a\xC3\xA4\xE2\x82\xAC" "b", PLAIN, "9 0 4");        /* one a run */
  expect_text(t, (int32_t[]){9, 0, 9}, 3, false, "a<unk> a");
  nm__tok_free(t);
}

static void test_spm_flags(void **state) {
  (void)state;
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, spm_vocab, N_SPM, true);
  put_flag(&f, "add_space_prefix", false);
  put_flag(&f, "add_bos_token", false);
  put_flag(&f, "add_eos_token", true);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  expect(t, "a", (struct nm__tok_opts){0}, "3 2");
  expect(t, " a", PLAIN, "9");
  assert_true(round_trip(t, " a", 2, PLAIN));
  assert_false(nm__tok_adds_bos(t));
  nm__tok_free(t);
}

/* A piece across words makes the run one whole. */
static void test_spm_across_words(void **state) {
  (void)state;
  static const struct tok v[] = {{"<unk>", 0, 2}, {"a", -5, 1}, {SP, -5, 1}, {SP "a", -2, 1},
                                 {"a" SP "a", -3, 1}, {"a" SP, -1, 1}};
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, v, 6, false);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  expect(t, "a a", PLAIN, "2 4");
  nm__tok_free(t);
}

static void test_spm_much(void **state) {
  (void)state;
  struct nm__tok *t = spm_tok(true);
  long_texts(t, 1000000);
  random_bytes(t, 1);
  nm__tok_free(t);
}

/* The 512-piece vocabulary of the smallest model. */
static void test_stories(void **state) {
  (void)state;
  struct nm__tok *t = open_published(SHARED "models/stories260K/stories260K.f32.gguf");
  if (!t) return;
  assert_int_equal(nm__tok_size(t), 512);
  expect(t, "Once upon a time", (struct nm__tok_opts){0}, "1 403 407 261 378");
  random_bytes(t, 99);
  nm__tok_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_spm), cmocka_unit_test(test_spm_without_bytes),
    cmocka_unit_test(test_spm_flags), cmocka_unit_test(test_spm_across_words),
    cmocka_unit_test(test_spm_much), cmocka_unit_test(test_stories),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
