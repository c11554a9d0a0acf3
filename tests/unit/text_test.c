/* text_test.c - the frame of all tokenizers: UTF-8, special tokens, ids, and what it refuses. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tok_run.h"
#include "text/unicode.h"

static void test_utf8(void **state) {
  (void)state;
  char s[4];
  uint32_t cp = 0;
  for (uint32_t c = 0; c < 0x110010; c++) {
    int len = nm__utf8_encode(c, s);
    bool scalar = c < 0x110000 && (c < 0xD800 || c > 0xDFFF);
    assert_int_equal(len > 0, scalar);
    if (!scalar) continue;
    assert_int_equal(nm__utf8_decode(s, (size_t)len, &cp), len);
    assert_int_equal(cp, c);
    assert_int_equal(nm__utf8_decode(s, (size_t)len - 1, &cp), 0);
  }
  static const char *const bad[] = {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                                    "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                    "\xE2\x28\xA1", "\xFF"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(nm__utf8_decode(bad[i], strlen(bad[i]), &cp), 0);
  assert_int_equal(nm__utf8_valid("a\xC3\xA4\xC3", 4), 3);
}

/* ---- special tokens -------------------------------------------------------- */

static void test_specials(void **state) {
  (void)state;
  static const struct tok v[] = {
    {"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}, {"aab", 0, 4}, {"bcccc", 0, 4}, {"a", 0, 4},
    {"aa", 0, 4}, {"bc", 0, 4}, {"aab", 0, 4},
  };
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, v, 9, true);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  expect(t, "aabcccc", PLAIN, "6 4");              /* the longest wins over the left one */
  expect(t, "aaab", PLAIN, "5 3");
  expect(t, "aaaaa", PLAIN, "6 6 5");
  expect(t, "aabc", PLAIN, "3 235 159 138 108"); /* what remains is text, with its prefix */
  nm__tok_free(t);
}

/* ---- what a file says ------------------------------------------------- */

static bool here(const char *model) {
  struct file f;
  struct nm__gguf *g;
  nm_err err = {0};
  file_new(&f);
  if (model) put_string(&f, "model", model);
  memcpy(f.b.s + 16, &f.n_kv, 8);
  if (nm__gguf_parse("tiny", f.b.s, f.b.len, &g, &err)) fail_msg("%s", err.text);
  bool is = nm__tok_here(g);
  nm__gguf_close(g);
  nm__buf_done(&f.b);
  return is;
}

static void test_here(void **state) {
  (void)state;
  assert_true(here("llama"));
  assert_true(here("rwkv"));                       /* there is one, if not for us */
  assert_true(here("none at all"));
  assert_false(here("none"));
  assert_false(here("no_vocab"));
  assert_false(here(NULL));
}

static void test_ends(void **state) {
  (void)state;
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  file_new(&f);
  put_string(&f, "model", "llama");
  put_vocab(&f, spm_vocab, N_SPM, false);
  put_id(&f, "eot_token_id", 12);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  assert_int_equal(nm__tok_eos(t), 2);
  assert_int_equal(nm__tok_eot(t), 12);
  assert_int_equal(nm__tok_eom(t), -1);
  nm__tok_free(t);
}

/* ---- hostile vocabularies -------------------------------------------------- */

static void spm_start(struct file *f) {
  file_new(f);
  put_string(f, "model", "llama");
}

static void test_hostile_keys(void **state) {
  (void)state;
  struct file f;
  file_new(&f);
  refuse(&f, "tokenizer.ggml.model");
  file_new(&f);
  put_string(&f, "model", "rwkv\n");
  refuse(&f, "'rwkv?' is not supported");
  spm_start(&f);
  refuse(&f, "tokens");
  spm_start(&f);
  put_array(&f, "tokens", NM__GGUF_I32, 1);
  put_u32(&f, 1);
  refuse(&f, "array of strings");
  spm_start(&f);
  put_array(&f, "tokens", NM__GGUF_STRING, 0);
  refuse(&f, "tokens");
  spm_start(&f);
  put_array(&f, "tokens", NM__GGUF_STRING, 1);
  put_text(&f, "a", 1);
  refuse(&f, "scores is missing");
  file_new(&f);
  put_string(&f, "model", "gpt2");
  put_array(&f, "tokens", NM__GGUF_STRING, 1);
  put_text(&f, "a", 1);
  refuse(&f, "merges");
}

static void test_hostile_arrays(void **state) {
  (void)state;
  static const char *const keys[] = {"scores", "token_type"};
  for (int k = 0; k < 2; k++)
    for (int way = 0; way < 3; way++) {
      struct file f;
      spm_start(&f);
      put_array(&f, "tokens", NM__GGUF_STRING, 2);
      put_text(&f, "a", 1);
      put_text(&f, "b", 1);
      if (way == 0) {                              /* too short */
        put_array(&f, keys[k], k ? NM__GGUF_I32 : NM__GGUF_F32, 1);
        put_u32(&f, 1);
      } else if (way == 1) {                       /* no array */
        put_id(&f, keys[k], 1);
      } else {                                     /* not numbers */
        put_array(&f, keys[k], NM__GGUF_STRING, 2);
        put_text(&f, "a", 1);
        put_text(&f, "b", 1);
      }
      refuse(&f, keys[k]);
    }
}

static void test_hostile_ids(void **state) {
  (void)state;
  static const char *const keys[] = {"bos_token_id", "eos_token_id", "unknown_token_id",
                                     "eot_token_id", "eom_token_id"};
  for (int k = 0; k < 5; k++) {
    struct file f;
    spm_start(&f);
    put_vocab(&f, spm_vocab, N_SPM, false);
    put_id(&f, keys[k], N_SPM);
    refuse(&f, keys[k]);
    spm_start(&f);
    put_vocab(&f, spm_vocab, N_SPM, false);
    put_string(&f, keys[k], "1");
    refuse(&f, keys[k]);
    spm_start(&f);
    put_vocab(&f, spm_vocab, N_SPM, false);
    put_id(&f, keys[k], UINT32_MAX);               /* how some files say "none" */
    struct nm__tok *t;
    nm_err err = {0};
    assert_int_equal(file_open(&f, &t, NULL, &err), NM_OK);
    nm__tok_free(t);
  }
}

/* Scores that are no numbers, pieces that are no text: anything but a crash. */
static void test_hostile_pieces(void **state) {
  (void)state;
  struct tok v[] = {{"<unk>", __builtin_nanf(""), 2}, {"a", __builtin_nanf(""), 1},
                    {"\xFF\xFE", __builtin_inff(), 1}, {"aa", -__builtin_inff(), 9},
                    {"<0xZZ>", 0, 6}, {"aaa", __builtin_nanf(""), -1}, {"", 0, 4}};
  struct file f;
  struct nm__tok *t;
  nm_err err = {0};
  spm_start(&f);
  put_vocab(&f, v, 7, false);
  if (file_open(&f, &t, NULL, &err)) fail_msg("%s", err.text);
  struct nm__ids ids = {0};
  assert_int_equal(nm__tok_encode(t, "aaaa\xFF\xFE aaa", 10, PLAIN, &ids, &err), NM_OK);
  nm__ids_done(&ids);
  nm__tok_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_utf8), cmocka_unit_test(test_specials),
    cmocka_unit_test(test_here), cmocka_unit_test(test_ends),
    cmocka_unit_test(test_hostile_keys), cmocka_unit_test(test_hostile_arrays),
    cmocka_unit_test(test_hostile_ids), cmocka_unit_test(test_hostile_pieces),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
